//! Samples made of ratings and lists, sequences in several columns, and leaks that are refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::Files;
use crossfield_core::FieldKind;
use crossfield_data::{
    Candidates, DataSpec, EventFormat, FieldConfig, Header, LabelKind, Labels, SampleSplit,
    SampleTargets, SequenceSamples, Ties, encode_files, prepare,
};

/// Nine ratings of two users; item c is disliked, and x and y are of the same second.
const RATINGS: &str = "u\ta\t5\t60\n\
                       v\tx\t4\t100\n\
                       u\tc\t2\t180\n\
                       u\tb\t4\t120\n\
                       u\td\t3\t240\n\
                       v\ty\t5\t100\n\
                       u\te\t5\t300\n\
                       v\ta\t4\t220\n\
                       u\ta\t4\t360\n";

fn ratings(files: &Files) -> SequenceSamples {
    SequenceSamples {
        file: files.write("u.data", RATINGS),
        min_rating: Some(4.0),
        ..SequenceSamples::default()
    }
}

/// The lines of a part that was written, without its header.
fn lines(files: &Files, part: &str) -> Vec<String> {
    let text = std::fs::read_to_string(files.path(part)).unwrap();
    text.lines().skip(1).map(str::to_owned).collect()
}

/// The message of samples that cannot be written, after which there is nothing.
fn refused(files: &Files, samples: &SequenceSamples) -> String {
    let error = samples.write(&files.path("refused")).unwrap_err();
    for left in ["refused", "refused.part"] {
        assert!(!files.path(left).exists(), "{left}: {error}");
    }
    error.to_string().replace(&files.text_path(""), "")
}

#[test]
fn a_history_holds_what_was_liked_strictly_before() {
    let files = Files::new();
    let samples = SequenceSamples {
        times: true,
        ..ratings(&files)
    };
    let report = samples.write(&files.path("s")).unwrap();
    // By time, u has a b c d e a: the last tests, the last but one validates.
    assert_eq!(
        lines(&files, "s/train.csv"),
        [
            "1,u,b,a,120,60,1",
            "0,u,c,a|b,180,60|120,1|1",
            "0,u,d,a|b,240,60|120,2|1"
        ]
    );
    assert_eq!(
        lines(&files, "s/valid.csv"),
        ["1,u,e,a|b,300,60|120,2|2"],
        "y, of the same second as x, has no history"
    );
    assert_eq!(
        lines(&files, "s/test.csv"),
        [
            "1,u,a,a|b|e,360,60|120|300,2|2|1",
            "1,v,a,x|y,220,100|100,1|1"
        ]
    );
    assert_eq!((report.users, report.items, report.events), (2, 7, 9));
    assert_eq!((report.without_history, report.repeats), (3, 1));
    let train = &report.parts[0];
    assert_eq!(
        (train.name, train.rows, train.positives, train.longest),
        ("train", 3, 1, 2)
    );

    let by_order = SequenceSamples {
        ties: Ties::Order,
        max_len: 1,
        ..ratings(&files)
    };
    by_order.write(&files.path("o")).unwrap();
    assert_eq!(lines(&files, "o/valid.csv"), ["1,u,e,b", "1,v,y,x"]);
    assert_eq!(lines(&files, "o/test.csv"), ["1,u,a,e", "1,v,a,y"]);
}

#[test]
fn only_the_last_target_of_each_part_has_a_row_where_that_is_asked() {
    let files = Files::new();
    let samples = SequenceSamples {
        file: files.write("l.txt", "7 1 2 3 4 5\n10 6 7 8\n9 1 2\n"),
        format: EventFormat::Lists,
        targets: SampleTargets::Last,
        ..SequenceSamples::default()
    };
    let report = samples.write(&files.path("s")).unwrap();
    // Users in the order of numbers; 9 has too few events to hold any out.
    assert_eq!(lines(&files, "s/train.csv"), ["1,7,3,1|2", "1,9,2,1"]);
    assert_eq!(lines(&files, "s/valid.csv"), ["1,7,4,1|2|3", "1,10,7,6"]);
    assert_eq!(lines(&files, "s/test.csv"), ["1,7,5,1|2|3|4", "1,10,8,6|7"]);
    assert_eq!((report.without_history, report.candidates), (1, 0));
}

#[test]
fn listed_events_test_and_histories_hold_training_events_alone() {
    let files = Files::new();
    // b and a of u, the latter the second time, and y of v.
    let samples = SequenceSamples {
        split: SampleSplit::Rows {
            valid: 0.0,
            test: files.write("test-rows", "3\n5\n8\n"),
        },
        empty_histories: true,
        ..ratings(&files)
    };
    let report = samples.write(&files.path("s")).unwrap();
    assert_eq!(
        lines(&files, "s/train.csv"),
        [
            "1,u,a,", "0,u,c,a", "0,u,d,a", "1,u,e,a", "1,v,x,", "1,v,a,x"
        ],
        "b and y are known to no history"
    );
    assert_eq!(
        lines(&files, "s/test.csv"),
        ["1,u,b,a", "1,u,a,a|e", "1,v,y,"]
    );
    assert_eq!((report.without_history, report.repeats), (3, 1));

    let shares = SequenceSamples {
        split: SampleSplit::Rows {
            valid: 0.5,
            test: files.text_path("test-rows"),
        },
        empty_histories: true,
        ..samples.clone()
    };
    let report = shares.write(&files.path("v")).unwrap();
    let rows = |part: usize| (report.parts[part].name, report.parts[part].rows);
    assert_eq!(
        (rows(0), rows(1), rows(2)),
        (("train", 3), ("valid", 3), ("test", 3))
    );

    let beyond = SequenceSamples {
        split: SampleSplit::Rows {
            valid: 0.0,
            test: files.write("beyond", "9\n"),
        },
        ..samples.clone()
    };
    let message = refused(&files, &beyond);
    assert!(
        message.starts_with("`beyond` line 1, test row: `9`"),
        "{message}"
    );
    let lists = SequenceSamples {
        file: files.write("l.txt", "7 1 2\n"),
        format: EventFormat::Lists,
        min_rating: None,
        ..samples
    };
    assert_eq!(
        refused(&files, &lists),
        "--split = rows: expected an event a line: --format ratings or csv"
    );
}

#[test]
fn shares_are_rounded_down_and_at_least_one_event() {
    let files = Files::new();
    let list: Vec<String> = (1..=21).map(|item| item.to_string()).collect();
    let samples = SequenceSamples {
        file: files.write("l.txt", format!("u {}\nv 1 2 3\n", list.join(" "))),
        format: EventFormat::Lists,
        split: SampleSplit::Share {
            valid: 0.01,
            test: 0.1,
        },
        ..SequenceSamples::default()
    };
    samples.write(&files.path("s")).unwrap();
    let items = |part: &str| -> Vec<String> {
        let lines = lines(&files, part);
        let items = lines
            .iter()
            .map(|line| line.split(',').nth(2).unwrap().to_owned());
        items.collect()
    };
    assert_eq!(items("s/valid.csv"), ["19", "2"]);
    assert_eq!(items("s/test.csv"), ["20", "21", "3"]);
    assert_eq!(items("s/train.csv").len(), 17);

    let samples = SequenceSamples {
        split: SampleSplit::Share {
            valid: 0.0,
            test: 0.0,
        },
        ..samples
    };
    samples.write(&files.path("t")).unwrap();
    assert_eq!(lines(&files, "t/train.csv").len(), 22);
    assert!(!files.path("t/test.csv").exists(), "a part without rows");
}

#[test]
fn negatives_are_items_that_the_user_never_had_and_follow_from_the_seed() {
    let files = Files::new();
    let samples = SequenceSamples {
        negatives: 1,
        test_negatives: Some(2),
        ..ratings(&files)
    };
    samples.write(&files.path("s")).unwrap();
    // u likes a b e a, and never had x and y, but had c, which it did not like.
    let train = lines(&files, "s/train.csv");
    assert_eq!(train.len(), 2);
    assert_eq!(train[0], "1,u,b,a");
    assert!(
        ["0,u,x,a", "0,u,y,a"].contains(&train[1].as_str()),
        "{train:?}"
    );
    let test = lines(&files, "s/test.csv");
    assert_eq!(test[0], "1,u,a,a|b|e");
    let mut of_u = test[1..3].to_vec();
    of_u.sort();
    assert_eq!(of_u, ["0,u,x,a|b|e", "0,u,y,a|b|e"]);
    let candidates = std::fs::read_to_string(files.path("s/candidates.txt")).unwrap();
    assert!(candidates.starts_with("u x y\nv "), "{candidates}");
    for name in ["train.csv", "valid.csv", "test.csv", "candidates.txt"] {
        let read = |folder: &str| std::fs::read(files.path(folder).join(name)).unwrap();
        if name == "train.csv" {
            samples.write(&files.path("again")).unwrap();
        }
        assert_eq!(read("s"), read("again"), "{name}");
    }
    let seeds = (2..12).map(|seed| {
        let folder = format!("seed{seed}");
        let other = SequenceSamples {
            seed,
            ..samples.clone()
        };
        other.write(&files.path(&folder)).unwrap();
        lines(&files, &format!("{folder}/train.csv"))[1].clone()
    });
    assert!(seeds.collect::<std::collections::BTreeSet<_>>().len() == 2);

    let too_many = SequenceSamples {
        negatives: 3,
        test_negatives: None,
        ..samples
    };
    assert_eq!(
        refused(&files, &too_many),
        "--negatives = 3: expected at most 2: user `u` had all other items of the file"
    );
}

#[test]
fn published_candidates_take_the_place_of_drawn_ones() {
    let files = Files::new();
    let mut samples = SequenceSamples {
        file: files.write("l.txt", "u 1 2 3 4\nv 5 6 7 8\n"),
        format: EventFormat::Lists,
        test_candidates: Some(files.write("c.txt", "v 4 1\nw 1\nu 8 5\n")),
        ..SequenceSamples::default()
    };
    samples.write(&files.path("s")).unwrap();
    assert_eq!(
        lines(&files, "s/test.csv"),
        [
            "1,u,4,1|2|3",
            "0,u,8,1|2|3",
            "0,u,5,1|2|3",
            "1,v,8,5|6|7",
            "0,v,4,5|6|7",
            "0,v,1,5|6|7"
        ]
    );
    let candidates = std::fs::read_to_string(files.path("s/candidates.txt")).unwrap();
    assert_eq!(candidates, "u 5 8\nv 1 4\n");
    assert_eq!(lines(&files, "s/valid.csv").len(), 2);
    for (text, expected) in [
        (
            "u 8\nv 5\n",
            "`d.txt` line 2, column `item`: `5`; expected items that user `v` never had",
        ),
        (
            "u 9\n",
            "`d.txt` line 1, column `item`: `9`; expected an item of the events",
        ),
        (
            "u 8\nu 7\n",
            "`d.txt` line 2, column `user`: `u`; expected each user on one line",
        ),
        (
            "u 8\n",
            "--test-candidates = d.txt: expected a line for user `v`",
        ),
    ] {
        samples.test_candidates = Some(files.write("d.txt", text));
        assert_eq!(refused(&files, &samples), expected);
    }
}

#[test]
fn categories_come_from_csv_and_from_lists_of_attributes() {
    let files = Files::new();
    let attributes = r#"{"1": [7, 8], "2": ["k", "m", "m"], "3": [9], "4": [7], "5": [1]}"#;
    let samples = SequenceSamples {
        file: files.write("l.txt", "u 1 2 3 4\n"),
        format: EventFormat::Lists,
        attributes: Some(files.write("a.json", attributes)),
        ..SequenceSamples::default()
    };
    samples.write(&files.path("s")).unwrap();
    let test = std::fs::read_to_string(files.path("s/test.csv")).unwrap();
    assert_eq!(
        test,
        "label,user,item,history,category,history_category\n1,u,4,1|2|3,7,7|m|9\n"
    );
    let csv = "genre,id\n\"a, b\",1\nc,2\nd,3\nc,4\n";
    let from_csv = SequenceSamples {
        attributes: Some(files.write("a.csv", csv)),
        attribute_columns: ["id", "genre"].map(str::to_owned),
        ..samples.clone()
    };
    from_csv.write(&files.path("c")).unwrap();
    assert_eq!(lines(&files, "c/test.csv"), ["1,u,4,1|2|3,c,\"a, b|c|d\""]);

    let lacking = SequenceSamples {
        attributes: Some(files.write("b.json", r#"{"1": [7], "2": [1]}"#)),
        ..samples.clone()
    };
    assert_eq!(
        refused(&files, &lacking),
        "`l.txt` line 1, column `item`: `3` is not in `b.json`; expected one of its 2 keys"
    );
    let empty = SequenceSamples {
        attributes: Some(files.write("e.json", r#"{"1": []}"#)),
        ..samples
    };
    assert_eq!(
        refused(&files, &empty),
        "`e.json` line 1, column `1`: `[]`; expected a list of at least one number or text"
    );
}

#[test]
fn events_that_cannot_be_are_refused_with_their_line() {
    let files = Files::new();
    let plain = SequenceSamples::default();
    let lists = SequenceSamples {
        format: EventFormat::Lists,
        ..SequenceSamples::default()
    };
    let timed = SequenceSamples {
        times: true,
        ..lists.clone()
    };
    let csv = SequenceSamples {
        format: EventFormat::Csv,
        ..SequenceSamples::default()
    };
    for (samples, text, expected) in [
        (&plain, "", "`f` is empty; expected at least one record"),
        (
            &lists,
            "",
            "`f` is empty; expected a user and their items on each line",
        ),
        (
            &plain,
            "u\ta\t5\t1\nu\tb\t5\n",
            "`f` line 2: 3 columns; expected 4",
        ),
        (&lists, "u 1 2\nv\n", "`f` line 2: 1 columns; expected 2"),
        (
            &plain,
            "u\ta\tgood\t1\n",
            "`f` line 1, column `rating`: `good`; expected a finite number",
        ),
        (
            &plain,
            "u\ta\t5\t1\nu\tb\t5\tNaN\n",
            "`f` line 2, column `timestamp`: `NaN`; expected a finite number",
        ),
        (
            &plain,
            "u\ta|b\t5\t1\n",
            "`f` line 1, column `item`: `a|b`; expected at least one character, and no `|`",
        ),
        (
            &plain,
            "\ta\t5\t1\n",
            "`f` line 1, column `user`: ``; expected a user",
        ),
        (
            &lists,
            "u 1 2\nv 1\nu 3\n",
            "`f` line 3, column `user`: `u`; expected each user on one line",
        ),
        (
            &timed,
            "u 1:5 2:7 3:6\n",
            "`f` line 1, column `item`: `3:6`; expected times in order: none before 7",
        ),
        (
            &timed,
            "u 1:5 2\n",
            "`f` line 1, column `item`: `2`; expected item:time (--times)",
        ),
        (
            &csv,
            "user,item,stars,timestamp\nu,a,5,1\n",
            "--columns: `f` has no column `rating`; it has `user`, `item`, `stars`, `timestamp`",
        ),
        (
            &plain,
            "u\ta\t5\t1\n",
            "`f` is empty; expected users with more events: none leaves a row to train on",
        ),
    ] {
        let samples = SequenceSamples {
            file: files.write("f", text),
            ..samples.clone()
        };
        assert_eq!(refused(&files, &samples), expected);
    }
}

#[test]
fn options_that_cannot_be_are_refused_and_a_full_folder_is_left_alone() {
    let files = Files::new();
    let ratings = ratings(&files);
    let columns = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    for (samples, expected) in [
        (
            SequenceSamples {
                columns: columns(&["user"]),
                ..ratings.clone()
            },
            "--columns = user: expected two to four columns: user, item, rating, time",
        ),
        (
            SequenceSamples {
                columns: columns(&["user", "item", "-"]),
                ..ratings.clone()
            },
            "--min-rating = 4: expected a column of ratings: the third of --columns",
        ),
        (
            SequenceSamples {
                columns: columns(&["user", "item", "rating"]),
                times: true,
                ..ratings.clone()
            },
            "--times = true: expected a column of times: the fourth of --columns",
        ),
        (
            SequenceSamples {
                split: SampleSplit::Share {
                    valid: 0.5,
                    test: 0.5,
                },
                ..ratings.clone()
            },
            "--valid = 0.5: expected less than 1 together with --test",
        ),
    ] {
        assert_eq!(refused(&files, &samples), expected);
    }
    std::fs::create_dir(files.path("full")).unwrap();
    files.write("full/a", "a");
    let error = ratings.write(&files.path("full")).unwrap_err().to_string();
    assert!(
        error.ends_with("full: expected an empty folder, or a new one"),
        "{error}"
    );
    assert_eq!(std::fs::read(files.path("full/a")).unwrap(), b"a");
    std::fs::create_dir(files.path("empty")).unwrap();
    ratings.write(&files.path("empty")).unwrap();
    assert!(files.path("empty/train.csv").exists());
    assert!(!files.path("empty.part").exists());
}

/// MovieLens-100k, where it is.
#[test]
fn the_rows_of_ml_100k_are_those_of_the_published_split() {
    let Some(folder) = std::env::var_os("CROSSFIELD_DATA") else {
        println!("skipped: CROSSFIELD_DATA is not set");
        return;
    };
    let files = Files::new();
    let file = std::path::Path::new(&folder).join("ml-100k/u.data.gz");
    let samples = SequenceSamples {
        file: file.display().to_string(),
        min_rating: Some(4.0),
        split: SampleSplit::Share {
            valid: 0.1,
            test: 0.1,
        },
        ties: Ties::Order,
        ..SequenceSamples::default()
    };
    let report = samples.write(&files.path("s")).unwrap();
    let rows: Vec<_> = report.parts.iter().map(|part| part.rows).collect();
    // 88,467 rows before the test part.
    assert_eq!(rows, [78_873, 9_594, 9_594]);
    let positives: usize = report.parts.iter().map(|part| part.positives).sum();
    assert_eq!(positives, 54_433);
    // What user 1 rated first: 168, 172 and 165, which they liked, all in one second.
    let train = lines(&files, "s/train.csv");
    assert_eq!(train[..2], ["1,1,172,168", "1,1,165,168|172"]);
    // FNV-1a of what the program of the peers' figures wrote, in this form, of all three parts.
    let text: String = ["train", "valid", "test"]
        .iter()
        .flat_map(|part| lines(&files, &format!("s/{part}.csv")))
        .map(|line| line + "\n")
        .collect();
    assert_eq!(crossfield_core::rng::name_key(&text), CHECKSUM);
}

const CHECKSUM: u64 = 0xff5d_b655_8297_04b5;

fn field(name: &str, kind: FieldKind) -> FieldConfig {
    FieldConfig {
        name: name.to_owned(),
        kind,
        ..FieldConfig::default()
    }
}

/// An item and the history before it.
fn spec(train: String) -> DataSpec {
    let mut history = field("history", FieldKind::Sequence);
    history.vocabulary = Some("item".to_owned());
    let mut spec = DataSpec {
        field: vec![history, field("item", FieldKind::Categorical)],
        ..DataSpec::default()
    };
    spec.data.train = vec![train];
    spec
}

fn message(files: &Files, spec: &DataSpec) -> String {
    let error = prepare(spec, 1, LabelKind::Binary).unwrap_err();
    error.to_string().replace(&files.text_path(""), "")
}

#[test]
fn a_sequence_in_several_columns_drops_what_pads_it() {
    let files = Files::new();
    let mut spec = spec(files.write("t.tsv", "1 7 1 5 6 0 0\n0 6 2 5 7 8 0\n1 5 0 0 0 0 0\n"));
    spec.data.separator = Some(" ".to_owned());
    spec.data.header = Some(Header::Present(false));
    spec.label.column = "0".to_owned();
    spec.field[1].column = Some("1".to_owned());
    spec.field[0].columns = Some(vec!["3..6".to_owned()]);
    spec.field[0].padding = Some("0".to_owned());
    let read = |spec: &DataSpec| {
        let prepared = prepare(spec, 1, LabelKind::Binary).unwrap();
        let batch = prepared.train.batch(&[0, 1, 2]);
        let keys = batch.sparse[0].indices.iter();
        let keys: Vec<_> = keys
            .map(|&row| prepared.schema.key("item", row).unwrap().to_owned())
            .collect();
        (keys, batch.sparse[0].offsets.clone().unwrap())
    };
    let all = (
        ["5", "6", "5", "7", "8"].map(str::to_owned).to_vec(),
        vec![0, 2, 5, 5],
    );
    assert_eq!(read(&spec), all);
    spec.field[0].columns = Some(["3", "4", "5..5", "6"].map(str::to_owned).to_vec());
    assert_eq!(read(&spec), all);
    // The last ones are kept.
    spec.field[0].max_len = Some(2);
    let last = (
        ["5", "6", "7", "8"].map(str::to_owned).to_vec(),
        vec![0, 2, 4, 4],
    );
    assert_eq!(read(&spec), last);

    spec.field[0].columns = Some(vec!["6..3".to_owned()]);
    assert_eq!(
        message(&files, &spec),
        "field `history`: columns = 6..3: expected the first of them first, as `t.tsv` has them"
    );
    spec.field[0].columns = Some(vec!["3..9".to_owned()]);
    assert!(message(&files, &spec).starts_with("field `history`: `t.tsv` has no column `9`"));
    spec.field[0].columns = None;
    assert_eq!(
        message(&files, &spec),
        "field `history`: padding = 0: expected it only beside `columns`"
    );
}

#[test]
fn a_history_that_holds_its_target_is_refused_unless_people_come_back() {
    let files = Files::new();
    let train = files.write("t.csv", "label,item,history\n1,b,a\n0,a,\n1,c,b|a\n");
    let leak = files.write("l.csv", "label,item,history\n1,b,a\n1,c,b|c|a\n");
    let mut spec = spec(train);
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    let expected = "`l.csv` line 3, field `history`: the history holds the target `c` itself; \
                    expected only what came before it (`repeats = true` where people come back \
                    to what they had, `beside` where this describes the items of another \
                    sequence)";
    // The default is written out, so that a run says what it checks.
    let complete = spec.complete();
    assert_eq!(complete.field[0].target.as_deref(), Some("item"));
    assert_eq!(complete.field[0].repeats, Some(false));
    let encoded = encode_files(
        &spec,
        &prepared.schema,
        std::slice::from_ref(&leak),
        LabelKind::Binary,
        Labels::Optional,
    );
    let error = encoded.unwrap_err().to_string();
    assert_eq!(error.replace(&files.text_path(""), ""), expected);
    // A context beside candidates: the history is wrong in its own file.
    let contexts = files.write("h.csv", "history\nb\nb|a\n");
    let candidates = files.write("c.csv", "item\na\nc\n");
    let opened = Candidates::open(
        &spec,
        &prepared.schema,
        &contexts,
        &candidates,
        LabelKind::Binary,
    );
    let error = opened.err().unwrap().to_string();
    assert!(error.contains("h.csv` line 3, field `history`: the history holds the target `a`"));

    spec.data.train.push(leak);
    assert_eq!(message(&files, &spec), expected);
    spec.field[0].repeats = Some(true);
    assert_eq!(prepare(&spec, 1, LabelKind::Binary).unwrap().train.len(), 5);
    // What max_len cuts off does not reach the model.
    spec.field[0].repeats = None;
    spec.field[0].max_len = Some(1);
    assert!(prepare(&spec, 1, LabelKind::Binary).is_ok());
}

#[test]
fn only_a_field_of_the_same_vocabulary_can_be_the_target() {
    let files = Files::new();
    let mut spec = spec(files.write("t.csv", "label,item,other,history\n1,b,b,b\n"));
    let mut other = field("other", FieldKind::Categorical);
    spec.field.push(other.clone());
    spec.field[0].target = Some("other".to_owned());
    assert_eq!(
        message(&files, &spec),
        "field `history`: target = other: expected a categorical field of the vocabulary `item`"
    );
    // Of two that it could be, neither is assumed.
    other.vocabulary = Some("item".to_owned());
    spec.field[2] = other;
    spec.field[0].target = None;
    assert_eq!(spec.complete().field[0].target, None);
    assert!(prepare(&spec, 1, LabelKind::Binary).is_ok());
    spec.field[0].target = Some("other".to_owned());
    assert!(message(&files, &spec).contains("the target `b` itself"));
    spec.field[1].target = Some("other".to_owned());
    assert_eq!(
        message(&files, &spec),
        "field `item`: target = (set on kind categorical): expected it only in fields of kind \
         sequence"
    );
}

#[test]
fn later_events_and_times_out_of_order_are_refused() {
    let files = Files::new();
    let write = |rows: &str| {
        let text = format!("label,item,history,past,now\n1,b,,,1\n1,b,a|c,3|4,5\n{rows}\n");
        files.write("t.csv", text)
    };
    for (row, problem) in [
        (
            "1,b,a|c,3|5,5",
            "time 5 in column `past`, with 5 of the row in `now`; expected only what came before \
             the row",
        ),
        (
            "1,b,a|c,4|3,5",
            "time 3 behind 4 in column `past`; expected times that do not fall: the oldest item \
             first",
        ),
        (
            "1,b,a|c,3,5",
            "1 times in column `past` for 2 values; expected one for each",
        ),
    ] {
        let mut spec = spec(write(row));
        spec.field[0].times = Some("past".to_owned());
        spec.field[0].time = Some("now".to_owned());
        let expected = format!("`t.csv` line 4, field `history`: {problem}");
        assert_eq!(message(&files, &spec), expected);
        // All times count, those of items that are cut off too.
        spec.field[0].max_len = Some(1);
        assert_eq!(message(&files, &spec), expected);
    }
    let mut spec = spec(write("1,b,a,soon,5"));
    spec.field[0].times = Some("past".to_owned());
    assert_eq!(
        message(&files, &spec),
        "field `history`: times = past: expected `time`, the column of the row's own, beside it"
    );
    spec.field[0].time = Some("now".to_owned());
    assert_eq!(
        message(&files, &spec),
        "`t.csv` line 4, column `past`: `soon`; expected a finite number as a time"
    );
}

#[test]
fn a_sequence_beside_another_is_as_long_in_each_row() {
    let files = Files::new();
    let header = "label,item,category,history,kinds\n";
    let rows = "1,b,k,a,k\n0,a,k,,\n1,c,m,b|a,k|k\n";
    let mut spec = spec(files.write("t.csv", format!("{header}{rows}")));
    spec.field.push(field("category", FieldKind::Categorical));
    let mut kinds = field("kinds", FieldKind::Sequence);
    kinds.vocabulary = Some("category".to_owned());
    kinds.beside = Some("history".to_owned());
    spec.field.push(kinds);
    // Categories repeat: they are no leak.
    assert_eq!(prepare(&spec, 1, LabelKind::Binary).unwrap().train.len(), 3);
    spec.data.train = vec![files.write("u.csv", format!("{header}{rows}1,c,m,b|a,k\n"))];
    assert_eq!(
        message(&files, &spec),
        "`u.csv` line 5, field `kinds`: 1 values beside 2 of `history`; expected one for each"
    );
    spec.field[0].max_len = Some(50);
    assert_eq!(
        message(&files, &spec),
        "field `kinds`: max_len = 0: expected 50 as in field `history`, beside which it is"
    );
    spec.field[3].beside = Some("item".to_owned());
    assert_eq!(
        message(&files, &spec),
        "field `kinds`: beside = item: expected another field of kind sequence"
    );
}
