//! What is wrong is said by the command with its place, and nothing is left behind or lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Folder, assert_same_files};

const CSV: &str = "label,item,age\n1,a,3\n0,b,4\n1,a,5\n0,c,6\n";

const RUN: &str = "\
[data]
train = 'a.csv'

[[field]]
name = 'item'

[[field]]
name = 'age'
kind = 'numeric'

[model]
kind = 'fm'

[train]
epochs = 2
";

/// A folder with a good run file and good data.
fn small() -> Folder {
    let folder = Folder::new();
    folder.write("a.toml", RUN);
    folder.write("a.csv", CSV);
    folder
}

/// Trains with `--set` and more; the message. No folder is left.
fn refused(folder: &Folder, more: &str) -> String {
    let before = folder.names();
    let message = folder.fail(&format!("train a.toml {more}"));
    assert_eq!(folder.names(), before, "something was left behind");
    message
}

/// The message on a file with this content.
fn refused_csv(content: impl AsRef<[u8]>) -> String {
    let folder = small();
    folder.write("a.csv", content);
    refused(&folder, "")
}

/// The message on a libsvm or libffm file with this content.
fn refused_indexed(format: &str, content: &str) -> String {
    let folder = Folder::new();
    folder.write(
        "a.toml",
        format!("[data]\nformat = '{format}'\ntrain = 'a.txt'\n[model]\nkind = 'fm'\n"),
    );
    folder.write("a.txt", content);
    refused(&folder, "")
}

#[test]
fn missing_files_are_named() {
    let folder = small();
    let no_file = "No such file or directory (os error 2)";
    assert_eq!(
        refused(&folder, "--set data.train=no.csv"),
        format!("cannot open `no.csv`: {no_file}")
    );
    assert_eq!(
        refused(&folder, "--set data.valid=no.csv"),
        format!("cannot open `no.csv`: {no_file}")
    );
    assert_eq!(
        folder.fail("train no.toml"),
        format!("no.toml: cannot read: {no_file}")
    );
    assert_eq!(
        refused(&folder, "--set data.train=$CROSSFIELD_NOT_SET/a.csv"),
        "`$CROSSFIELD_NOT_SET/a.csv`: the environment variable `CROSSFIELD_NOT_SET` is not set; \
         expected its value"
    );
}

#[test]
fn empty_files_are_refused() {
    assert_eq!(
        refused_csv(""),
        "`a.csv` is empty; expected a header and at least one record"
    );
    assert_eq!(
        refused_csv("label,item,age\n"),
        "`a.csv` is empty; expected at least one record"
    );
    assert_eq!(
        refused_indexed("libffm", ""),
        "`a.txt` is empty; expected lines of `label field:index:value …`"
    );
    let folder = small();
    folder.write("a.toml", "");
    assert_eq!(refused(&folder, ""), "a.toml:1: missing field `model`");
}

#[test]
fn malformed_lines_are_shown() {
    assert_eq!(
        refused_csv("label,item,age\n1,a,3\n0,\"b,4\n"),
        "`a.csv` line 3, column 2: a quote is opened and not closed on this line; expected quoted \
         values that do not span lines"
    );
    assert_eq!(
        refused_indexed("libsvm", "1 0:1\n1 3:x\n"),
        "`a.txt` line 2, position 2: `3:x`; expected a finite number as the value"
    );
    assert_eq!(
        refused_indexed("libffm", "1 0:1:1 2:1\n"),
        "`a.txt` line 1, position 3: `2:1`; expected field:index:value"
    );
}

#[test]
fn a_wrong_number_of_columns_is_counted() {
    assert_eq!(
        refused_csv("label,item,age\n1,a,3\n0,b\n"),
        "`a.csv` line 3: 2 columns; expected 3"
    );
}

#[test]
fn unknown_label_values_are_shown() {
    assert_eq!(
        refused_csv("label,item,age\n1,a,3\nmaybe,b,4\n"),
        "`a.csv` line 3, column `label`: `maybe`; expected 0, 1 or -1 as a label (set \
         label.threshold or label.positive for other values)"
    );
}

#[test]
fn neither_nan_nor_infinity_gets_in() {
    for value in ["NaN", "inf", "-Infinity", "1e999"] {
        assert_eq!(
            refused_csv(format!("label,item,age\n1,a,3\n0,b,{value}\n")),
            format!(
                "`a.csv` line 3, column `age`: `{value}`; expected a finite number (or declare \
                 it in data.missing)"
            )
        );
        assert_eq!(
            refused_indexed("libffm", &format!("1 0:1:{value}\n")),
            format!(
                "`a.txt` line 1, position 2: `0:1:{value}`; expected a finite number as the value"
            )
        );
        let folder = small();
        folder.write("a.csv", format!("label,item,age\n1,a,3\n{value},b,1\n"));
        let message = refused(&folder, "--set train.loss=squared");
        assert!(
            message.starts_with(&format!(
                "`a.csv` line 3, column `label`: `{value}`; expected a finite number"
            )),
            "{message}"
        );
    }
}

#[test]
fn an_index_of_four_billion_is_no_row_number() {
    let index = "an index from 0 to 2147483647, for it is a row number (data.max_index)";
    assert_eq!(
        refused_indexed("libsvm", "1 0:1\n0 4000000000:1\n"),
        format!("`a.txt` line 2, position 2: `4000000000:1`; expected {index}")
    );
    assert_eq!(
        refused_indexed("libffm", "1 0:1:1\n0 0:2:1 1:4000000000:1\n"),
        format!("`a.txt` line 2, position 3: `1:4000000000:1`; expected {index}")
    );
}

#[test]
fn a_blank_line_in_the_middle_is_an_error() {
    let blank = "blank; expected a record (blank lines may only end a file)";
    assert_eq!(
        refused_csv("label,item,age\n1,a,3\n\n0,b,4\n"),
        format!("`a.csv` line 3: {blank}")
    );
    assert_eq!(
        refused_indexed("libsvm", "1 0:1\n\n0 1:1\n"),
        format!("`a.txt` line 2: {blank}")
    );
}

#[test]
fn a_line_of_10_mb_is_refused() {
    let mut content = b"label,item,age\n1,a,3\n1,".to_vec();
    content.resize(10 << 20, b'x');
    assert_eq!(
        refused_csv(content),
        "`a.csv` line 3: longer than 1048576 bytes; expected shorter lines (is it really a text \
         file? data.max_line sets the limit)"
    );
}

#[test]
fn invalid_utf8_is_pointed_at() {
    assert_eq!(
        refused_csv(b"label,item,age\n1,caf\xe9,3\n"),
        "`a.csv` line 2, byte 6: 0xe9 is not valid UTF-8; expected UTF-8 text, or encoding = \
         \"latin-1\""
    );
}

#[test]
fn a_truncated_gz_is_recognised() {
    let folder = small();
    // A gzip header and one block that holds its bytes as they are; it promises 10,000 of them.
    let mut gz = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    gz.extend(10_000u16.to_le_bytes());
    gz.extend((!10_000u16).to_le_bytes());
    gz.extend(CSV.as_bytes());
    folder.write("a.csv.gz", gz);
    let message = refused(&folder, "--set data.train=a.csv.gz");
    let (place, problem) = message.split_once(": ").unwrap();
    assert!(place.starts_with("`a.csv.gz` line "), "{message}");
    assert_eq!(
        problem,
        "the gzip data ends in the middle: the file is truncated (an interrupted download or \
         copy?); expected a complete gzip file"
    );
}

#[test]
fn unknown_keys_of_a_run_file_get_the_nearest() {
    for (section, message) in [
        (
            "[train]\nepoch = 3\n",
            "a.toml:5: unknown key `train.epoch`: did you mean `epochs`?",
        ),
        (
            "[optimiser]\n",
            "a.toml:4: unknown key `optimiser`: did you mean `optimizer`?",
        ),
        (
            "[[field]]\nnam = 'item'\n",
            "a.toml:5: unknown key `field[0].nam`: did you mean `name`?",
        ),
        (
            "[[cross]]\nfield = ['item']\n",
            "a.toml:5: unknown key `cross[0].field`: did you mean `fields`?",
        ),
        (
            "[model.fm]\nembeding_dim = 4\n",
            "a.toml:2: unknown key `model.fm.embeding_dim`: did you mean `embedding_dim`?",
        ),
        (
            "[optimizer]\nrows = { kind = 'adagrat' }\n",
            "a.toml:5: unknown value `adagrat` of `optimizer.rows.kind`: did you mean `adagrad`?",
        ),
    ] {
        let folder = small();
        folder.write(
            "a.toml",
            format!("data.train = 'a.csv'\n[model]\nkind = 'fm'\n{section}"),
        );
        let got = refused(&folder, "");
        assert!(got.starts_with(message), "{got}");
        assert!(got.contains("(known: "), "{got}");
    }
    let folder = small();
    let got = refused(&folder, "--set train.epoch=3");
    assert!(
        got.starts_with("a.toml: unknown key `train.epoch`: did you mean `epochs`?"),
        "{got}"
    );
}

#[test]
fn a_field_that_no_column_has_gets_the_nearest() {
    let folder = small();
    assert_eq!(
        refused(&folder, "--set field.0.name=itme"),
        "field `itme`: `a.csv` has no column `itme`; did you mean `item`?"
    );
    assert_eq!(
        refused(&folder, "--set model.fm.fields=[\"itme\"]"),
        "`fm` reads field `itme`, which the data does not have (fields: item, age)"
    );
}

#[test]
fn crosses_that_cannot_be_are_refused_and_odd_ones_are_warned_of() {
    let folder = small();
    // The label as a field, to have a second categorical one.
    let with_label = "[[field]]\nname = 'label'\n\n[model]\nkind = 'wide'";
    folder.write("a.toml", RUN.replace("[model]\nkind = 'fm'", with_label));
    for (cross, message) in [
        (
            "fields=[\"item\",\"itme\"]",
            "cross `item & itme`: fields = itme: expected a field of the run file; did you mean \
             `item`?",
        ),
        (
            "fields=[\"item\",\"age\"]",
            "cross `item & age`: fields = age: expected values that are told apart: put the field \
             in buckets, with transform = \"quantile\" or \"buckets\"",
        ),
        (
            "when=\"item=d\"",
            "cross `item=d`: when = item=d: expected a value that the training rows have; it has \
             `a`, `b`, `c`",
        ),
    ] {
        assert_eq!(
            refused(&folder, &format!("--set cross=[{{{cross}}}]")),
            message
        );
    }
    let crosses = "--set cross=[{fields=[\"item\",\"label\"],hash_rows=2},{when=\"item=a\"}]";
    let warning = "warning: cross `item & label`: 3 combinations in 2 rows (hash_rows); ";
    let stats = folder
        .succeed(&format!("data stats a.toml {crosses}"))
        .stdout;
    assert!(stats.contains(warning), "{stats}");
    assert!(
        stats.lines().any(|line| line == "  holds in 2 rows"),
        "{stats}"
    );
    let train = folder.succeed(&format!("train a.toml {crosses} --out a"));
    assert!(train.stderr.contains(warning), "{}", train.stderr);
    let run = folder.read("a/run.toml");
    assert!(run.contains("name = \"item & label\"\n"), "{run}");
}

#[test]
fn labels_of_one_class_train_to_a_finite_score_and_have_no_auc() {
    for executor in ["burn", "fused"] {
        for label in [0, 1] {
            let folder = small();
            let rows = "a,3\nb,4\na,5\nc,6".replace('\n', &format!("\n{label},"));
            folder.write("a.csv", format!("label,item,age\n{label},{rows}\n"));
            folder.succeed(&format!(
                "train a.toml --out a --set train.executor={executor}"
            ));
            let metrics = folder.metrics("a");
            let train = &metrics["train"];
            assert!(train["auc"].is_null(), "{metrics}");
            let logloss = train["logloss"].as_f64().unwrap();
            assert!((0.0..1e-3).contains(&logloss), "{metrics}");
            for line in folder.succeed("predict a --data a.csv").stdout.lines() {
                let prediction: f64 = line.parse().unwrap();
                assert!((prediction - f64::from(label)).abs() < 1e-2, "{line}");
            }
        }
    }
}

#[test]
fn options_that_cannot_be_are_refused_by_name() {
    let folder = small();
    for (set, message) in [
        ("train.epochs=0", "train.epochs: is 0: expected 1 or more"),
        (
            "train.batch_size=0",
            "train.batch_size: is 0: expected 1 or more",
        ),
        (
            "train",
            "--set train: expected key=value, as in train.epochs=3",
        ),
    ] {
        assert_eq!(refused(&folder, &format!("--set {set}")), message);
    }
    folder.write(
        "a.toml",
        format!("{RUN}[[optimizer.table]]\nmatch = 'wide.*'\nkind = 'ftrl'\n"),
    );
    let message = refused(&folder, "");
    assert!(
        message.starts_with("optimizer.table.match: `wide.*` matches no table (tables: "),
        "{message}"
    );
}

#[test]
fn tables_too_large_for_the_memory_are_refused_with_the_arithmetic() {
    let folder = small();
    let message = refused(
        &folder,
        "--set field.0.kind=hashed --set field.0.hash_rows=4000000000 \
         --set model.fm.embedding_dim=1024",
    );
    assert!(
        message.starts_with(
            "not enough memory: the tables need 16400.00 GB and their optimizers 16400.00 GB, \
             32800.00 GB in all; "
        ),
        "{message}"
    );
    assert!(
        message.contains(
            "v1024.item  4000000000 rows × 8192 B (1024 f32 weights + 1024 adagrad) = 32768.00 GB"
        ),
        "{message}"
    );
}

#[cfg(not(feature = "ndarray"))]
#[test]
fn a_device_that_this_build_lacks_is_refused_before_the_data_is_read() {
    let folder = small();
    let message = refused(&folder, "--device ndarray --set data.train=no.csv");
    assert_eq!(
        message,
        "train.device: `ndarray` needs a build with `--features ndarray`; this one has flex"
    );
}

#[test]
fn a_run_directory_that_exists_is_not_touched() {
    let folder = small();
    folder.succeed("train a.toml --out a");
    let before = folder.files("a");
    let taken = "exists and is not empty: go on with --resume, or name another --out";
    assert_eq!(refused(&folder, "--out a"), format!("a: {taken}"));
    assert_same_files(&folder.files("a"), &before, "a");
    assert_eq!(refused(&folder, "--out a.csv"), format!("a.csv: {taken}"));
    assert_eq!(folder.read("a.csv"), CSV);
}

#[test]
fn what_is_no_run_cannot_be_resumed_or_read() {
    let folder = small();
    std::fs::create_dir(folder.path("photos")).unwrap();
    let missing = "cannot read: No such file or directory (os error 2)";
    for command in [
        "train --resume photos",
        "eval photos --data a.csv",
        "predict photos --data a.csv",
    ] {
        assert_eq!(
            folder.fail(command),
            format!("photos/run.toml: {missing}"),
            "{command}"
        );
    }
    assert_eq!(
        folder.fail("train --resume no"),
        format!("no/run.toml: {missing}")
    );
    assert_eq!(folder.names(), ["a.csv", "a.toml", "photos"]);
}

/// A run long enough to be interrupted, with tables larger than its vocabularies: a checkpoint is
/// 2 × 20,000 rows × (8 + 1) weights × 4 bytes = 1.4 MB and as much optimizer state.
const LONG_RUN: &str = "\
[data]
train = 'log.csv'
split = { kind = 'random', valid = 0.1 }

[label]
column = 'click'

[[field]]
name = 'user'
kind = 'hashed'
hash_rows = 20000

[[field]]
name = 'ad'
kind = 'hashed'
hash_rows = 20000

[[field]]
name = 'campaign'

[model]
kind = 'fm'

[train]
epochs = 12
batch_size = 256
";

/// `long.toml` and its data.
fn long() -> Folder {
    let folder = Folder::new();
    folder.write("long.toml", LONG_RUN);
    folder.succeed("data synth --out log.csv --rows 6000 --seed 5");
    folder
}

#[test]
fn a_checkpoint_of_another_schema_is_refused() {
    let folder = long();
    folder.interrupt("long.toml", "a");
    let before = folder.files("a");
    let log = folder.read("log.csv");
    let other = "the data, the fields or the split changed since; train anew with another --out";

    // With a row less the parts and the counts of the vocabulary are others.
    let mut lines: Vec<&str> = log.lines().collect();
    lines.pop();
    folder.write("log.csv", lines.join("\n"));
    let message = folder.fail("train --resume a");
    assert!(
        message.starts_with("a/schema.json: belongs to another schema (fingerprint "),
        "{message}"
    );
    assert!(message.ends_with(other), "{message}");
    folder.write("log.csv", &log);
    assert_same_files(&folder.files("a"), &before, "a");

    // The vocabulary of the run itself was changed.
    let vocabulary = folder.read("a/vocabularies/campaign.csv");
    let (first, rest) = vocabulary
        .strip_prefix("key,count\n")
        .unwrap()
        .split_once(',')
        .unwrap();
    folder.write(
        "a/vocabularies/campaign.csv",
        format!("key,count\n{first}x,{rest}"),
    );
    let damaged = "`a/vocabularies/campaign.csv` is damaged: it has ";
    let message = folder.fail("train --resume a");
    assert!(message.starts_with(damaged), "{message}");
    folder.write("a/vocabularies/campaign.csv", &vocabulary);

    // With everything as it was the run goes on, and is refused again when it is finished and its
    // vocabulary changes.
    folder.succeed("train --resume a");
    folder.succeed("eval a --data log.csv");
    folder.write(
        "a/vocabularies/campaign.csv",
        format!("key,count\n{first}x,{rest}"),
    );
    for command in ["eval", "predict"] {
        let message = folder.fail(&format!("{command} a --data log.csv"));
        assert!(message.starts_with(damaged), "{message}");
    }
    // Even where the checksums agree.
    folder.list_all("a");
    let message = folder.fail("eval a --data log.csv");
    assert!(
        message.starts_with("a/state.json: belongs to another schema (fingerprint "),
        "{message}"
    );
    assert!(message.ends_with(other), "{message}");
}

#[test]
fn an_unfinished_run_is_not_measured() {
    let folder = long();
    folder.interrupt("long.toml", "a");
    let before = folder.files("a");
    for command in ["eval", "predict"] {
        assert_eq!(
            folder.fail(&format!("{command} a --data log.csv")),
            "a: not finished; go on with: crossfield train --resume a"
        );
    }
    assert_same_files(&folder.files("a"), &before, "a");
}

/// Flips a bit in the middle of a file.
fn damage(folder: &Folder, name: &str) -> Vec<u8> {
    let whole = std::fs::read(folder.path(name)).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 4;
    folder.write(name, damaged);
    whole
}

#[test]
fn damaged_files_of_a_finished_run_are_named_by_whoever_opens_it() {
    let folder = long();
    folder.succeed("train long.toml --out a --set train.epochs=1");
    folder.succeed("eval a --data log.csv");
    for name in [
        "run.toml",
        "schema.json",
        "vocabularies/campaign.csv",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "metrics.json",
        "metrics.jsonl",
        "timing.jsonl",
        "checksums.json",
    ] {
        let name = format!("a/{name}");
        let whole = damage(&folder, &name);
        for command in [
            "eval a --data log.csv",
            "predict a --data log.csv",
            "train --resume a",
            "train --continue a --data log.csv --out b",
            "describe a",
            "report a",
        ] {
            let message = folder.fail(command);
            let begin = format!("`{name}` is damaged: ");
            assert!(message.contains(&begin), "{command}: {message}");
        }
        folder.write(&name, &whole[1..]);
        let message = folder.fail("eval a --data log.csv");
        assert!(message.contains(&name), "{message}");
        std::fs::remove_file(folder.path(&name)).unwrap();
        let message = folder.fail("train --resume a");
        assert!(message.contains(&name), "{message}");
        folder.write(&name, &whole);
    }
    folder.succeed("eval a --data log.csv");

    // A setting of a finished run is changed otherwise.
    let run_file = folder.read("a/run.toml");
    folder.write("a/run.toml", format!("{run_file}# better\n"));
    let message = folder.fail("eval a --data log.csv");
    assert!(
        message.starts_with("`a/run.toml` is damaged: it has "),
        "{message}"
    );
    assert!(
        message.ends_with("(settings of a finished run are changed by --set, not in the file)"),
        "{message}"
    );
}

#[test]
fn files_whose_checksums_agree_are_looked_at_all_the_same() {
    let folder = long();
    folder.succeed("train long.toml --out a --set train.epochs=1");
    let name = "a/model.safetensors";
    let model = std::fs::read(folder.path(name)).unwrap();
    folder.write(name, &model[..5]);
    folder.list_all("a");
    let message = folder.fail("eval a --data log.csv");
    assert!(
        message.contains("a/model.safetensors: not an intact safetensors file: only 5 bytes long"),
        "{message}"
    );
    folder.write(name, &model);
    folder.write("a/state.json", "{");
    folder.list_all("a");
    let message = folder.fail("eval a --data log.csv");
    assert!(
        message.starts_with("a/state.json: not the state of a run: "),
        "{message}"
    );
}

#[test]
fn from_a_damaged_checkpoint_the_one_before_it_is_offered_and_ends_with_the_same_bytes() {
    let folder = long();
    folder.succeed("train long.toml --out undisturbed");
    let undisturbed = folder.files("undisturbed");
    folder.interrupt_at("long.toml", "a", 2);
    let checkpoints = |run: &str| -> Vec<String> {
        let names = folder.files(run).into_keys();
        let steps = names.filter_map(|name| {
            let step = name.strip_prefix("checkpoints/")?.strip_suffix('/')?;
            (!step.ends_with(".part")).then(|| step.to_owned())
        });
        steps.collect()
    };
    let steps = checkpoints("a");
    let [.., before, newest] = steps.as_slice() else {
        panic!("{steps:?}");
    };
    let step = |name: &str| name["step-".len()..].parse::<u64>().unwrap();
    let damaged = format!("a/checkpoints/{newest}/model.safetensors");
    damage(&folder, &damaged);
    let message = folder.fail("train --resume a");
    assert!(
        message.starts_with(&format!("`{damaged}` is damaged: its checksum is ")),
        "{message}"
    );
    let advice = format!(
        "; go on from step {0}: crossfield train --resume a --step {0}",
        step(before)
    );
    assert!(message.ends_with(&advice), "{message}");
    assert_eq!(checkpoints("a"), steps, "nothing is removed unasked");
    let message = folder.fail("train --resume a --step 7");
    assert!(
        message.starts_with("--step 7: a has no such checkpoint: expected one of "),
        "{message}"
    );
    // Neither can be gone on from.
    let older = format!("a/checkpoints/{before}/state.json");
    let whole = damage(&folder, &older);
    let message = folder.fail("train --resume a");
    let none = "; there is no intact checkpoint before it: train anew with another --out";
    assert!(message.ends_with(none) || steps.len() > 2, "{message}");
    let message = folder.fail(&format!("train --resume a --step {}", step(before)));
    assert!(
        message.starts_with(&format!("`{older}` is damaged: ")),
        "{message}"
    );
    folder.write(&older, whole);

    folder.succeed(&format!("train --resume a --step {}", step(before)));
    assert_same_files(&folder.files("a"), &undisturbed, "a");
    assert_eq!(folder.read("a/timing.jsonl").lines().count(), 12);
}

#[test]
fn bad_rows_for_a_finished_run_are_named_and_the_run_stays() {
    let folder = small();
    folder.succeed("train a.toml --out a");
    let before = folder.files("a");
    for (content, message) in [
        (
            "label,item,age\n1,a,3\n0,b\n",
            "`b.csv` line 3: 2 columns; expected 3",
        ),
        (
            "label,item,age\n1,a,NaN\n",
            "`b.csv` line 2, column `age`: `NaN`; expected a finite number (or declare it in \
             data.missing)",
        ),
        (
            "label,itme,age\n1,a,3\n",
            "field `item`: `b.csv` has no column `item`; did you mean `itme`?",
        ),
        (
            "",
            "`b.csv` is empty; expected a header and at least one record",
        ),
    ] {
        folder.write("b.csv", content);
        for command in ["eval", "predict"] {
            assert_eq!(
                folder.fail(&format!("{command} a --data b.csv")),
                message,
                "{command}"
            );
        }
    }
    folder.write("b.csv", "label,item,age\n2,a,3\n");
    assert_eq!(
        folder.fail("eval a --data b.csv"),
        "`b.csv` line 2, column `label`: `2`; expected 0, 1 or -1 as a label (set \
         label.threshold or label.positive for other values)"
    );
    folder.write("b.csv", "item,age\na,3\n");
    let message = folder.fail("eval a --data b.csv");
    assert!(
        message.starts_with("label.column: `b.csv` has no column `label`"),
        "{message}"
    );
    assert_same_files(&folder.files("a"), &before, "a");
}

#[test]
fn a_run_that_diverges_says_what_to_try_and_saves_no_nan() {
    let folder = small();
    let message = folder.fail(
        "train a.toml --out a --set optimizer.rows.kind=sgd --set optimizer.rows.lr=1e30 \
         --set train.epochs=50",
    );
    assert!(
        message.starts_with("training diverged: the loss is "),
        "{message}"
    );
    assert!(
        message.contains("(rows: Sgd, lr 1000000000000000000000000000000)"),
        "{message}"
    );
    assert!(
        message.ends_with(
            "try a lower learning rate (optimizer.rows.lr) or more L2 (optimizer.rows.l2)"
        ),
        "{message}"
    );
    assert!(!folder.path("a/metrics.json").exists());
    assert!(!folder.path("a/model.safetensors").exists());
    let files = folder.files("a");
    let saved: Vec<_> = (files.iter())
        .filter(|(name, _)| name.ends_with(".safetensors"))
        .collect();
    assert_eq!(saved.len(), 2, "one checkpoint");
    for (name, bytes) in saved {
        // The length of the header, the header, and then nothing but 32-bit floats.
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let values = bytes[8 + header as usize..].as_chunks::<4>().0;
        assert!(!values.is_empty());
        let finite = |&value: &[u8; 4]| f32::from_le_bytes(value).is_finite();
        assert!(values.iter().all(finite), "{name} holds what is no number");
    }
}

/// Blocks of 512 or 1024 bytes that a file may have: the run file and the schema fit, a
/// checkpoint of 1.4 MB does not.
const LITTLE: u32 = 200;

#[test]
fn a_full_disk_leaves_the_checkpoint_before_it_as_it_was() {
    let folder = long();
    folder.succeed("train long.toml --out undisturbed");
    folder.interrupt("long.toml", "a");
    let before = folder.files("a");

    let message = folder
        .run_with_little_disk(LITTLE, "train --resume a")
        .message();
    assert!(message.contains("a/checkpoints/step-"), "{message}");
    assert!(
        message.contains("/model.safetensors: cannot write: File too large (os error 27)"),
        "{message}"
    );
    let after = folder.files("a");
    assert!(
        before
            .keys()
            .any(|name| name.starts_with("checkpoints/step-"))
    );
    for (name, bytes) in &before {
        if name.contains(".part/") || name.ends_with(".part") {
            // The kill fell into a save; what it left unfinished is no file of the run, and the
            // next start takes it away (asserted below).
            continue;
        }
        // Killed between a checkpoint and the line of its epoch: the next start adds the line.
        let stays = match name.as_str() {
            "metrics.jsonl" => after[name].starts_with(bytes),
            name => after.get(name) == Some(bytes),
        };
        assert!(stays, "{name} was lost or changed");
    }
    let part = after.keys().find(|name| name.contains(".part"));
    assert_eq!(part, None, "room is made again");

    folder.succeed("train --resume a");
    assert_same_files(&folder.files("a"), &folder.files("undisturbed"), "a");
}

#[test]
fn a_disk_that_is_full_from_the_start_leaves_a_run_that_can_go_on() {
    let folder = long();
    folder.succeed("train long.toml --out undisturbed");
    let message = folder
        .run_with_little_disk(LITTLE, "train long.toml --out a")
        .message();
    assert!(
        message.starts_with("a/checkpoints/step-0000000022.part/model.safetensors: cannot write: "),
        "{message}"
    );
    folder.succeed("train --resume a");
    assert_same_files(&folder.files("a"), &folder.files("undisturbed"), "a");

    // Not even the run file can be written.
    let message = folder
        .run_with_little_disk(0, "train long.toml --out b")
        .message();
    assert_eq!(
        message,
        "b/run.toml.part: cannot write: File too large (os error 27)"
    );
    assert!(folder.files("b").is_empty());
}

#[test]
#[cfg(target_os = "linux")]
fn tables_that_do_not_fit_into_the_memory_that_is_allowed_are_refused_with_the_arithmetic() {
    let folder = long();
    // 2 × 20 million rows of 8 weights and one: 1.4 GB, and as much state, in 600 MB.
    let rows = "--set field.0.hash_rows=20000000 --set field.1.hash_rows=20000000";
    let output = folder.run_limited("-v 600000", &format!("train long.toml --out a {rows}"));
    let message = output.message();
    assert!(
        message.starts_with("not enough memory: the tables need "),
        "{message}"
    );
    assert!(!folder.path("a").exists());
}

/// A model of two features, two fields and one entry a vector, as libffm 1.14 wrote them.
const LIBFFM: &str = "n 2\nm 2\nk 1\nnormalization 1\nw0,0 0.5 \nw0,1 -1 \nw1,0 2 \nw1,1 0.25 \n";

#[test]
fn a_model_of_libffm_that_was_cut_short_leaves_nothing_behind() {
    let folder = Folder::new();
    folder.write("whole", LIBFFM);
    folder.write("cut", &LIBFFM[..LIBFFM.len() - 6]);
    folder.write("no-model", "label,item\n1,a\n");
    std::fs::create_dir(folder.path("empty")).unwrap();
    let before = folder.names();
    for out in ["a", "empty"] {
        assert_eq!(
            folder.fail(&format!("import libffm cut --out {out}")),
            "`cut` ends at line 8, after 3 vectors: expected 4, 2 features by 2 fields (is it a \
             copy that was cut short?)"
        );
    }
    let message = folder.fail("import libffm no-model --out a");
    assert!(message.starts_with("`no-model`, byte "), "{message}");
    assert_eq!(
        folder.fail("import libffm no --out a"),
        "no: cannot open: No such file or directory (os error 2)"
    );
    assert_eq!(folder.names(), before);
    assert!(folder.files("empty").is_empty());
    folder.succeed("import libffm whole --out empty");
    assert_eq!(
        folder.fail("import libffm whole --out empty"),
        "empty: exists and is not empty: go on with --resume, or name another --out"
    );
    folder.write("a.ffm", "1 0:0:1 2:1:1\n");
    assert_eq!(
        folder.fail("predict empty --data a.ffm"),
        "`a.ffm` line 1, position 3: `2:1:1`; expected a field of the training files: 0 1"
    );
}

#[test]
fn what_libffm_cannot_hold_is_not_exported_and_says_why() {
    let folder = Folder::new();
    folder.write("a.ffm", "1 0:0:1 1:2:1\n0 0:1:1 1:2:1\n");
    folder.write("a.csv", CSV);
    let run = |name: &str, data: &str, model: &str| {
        folder.write("a.toml", format!("[data]\n{data}\n[model]\n{model}\n"));
        folder.succeed(&format!("train a.toml --out {name} --set train.epochs=1"));
    };
    let ffm = "format = 'libffm'\ntrain = 'a.ffm'";
    let model = "kind = 'ffm'\nbias = false\n[model.ffm]\nlinear = false\n";
    for (name, data, model, message) in [
        (
            "csv",
            "train = 'a.csv'\n[[field]]\nname = 'item'",
            model,
            "data.format: libffm knows features by the numbers in its files; a run whose data is \
             in format = \"libffm\" can be exported",
        ),
        (
            "fields",
            &format!("{ffm}\n[[field]]\nname = '0'\nkind = 'bag'"),
            model,
            "field: libffm reads all fields of its files, with one range of indices; train without \
             [[field]] to export",
        ),
        (
            "cross",
            &format!("{ffm}\n[[cross]]\nfields = ['0', '1']"),
            model,
            "cross: libffm has no crosses of fields; train without [[cross]] to export",
        ),
        (
            "sum",
            ffm,
            "sum = ['wide', 'ffm']",
            "model: is wide + ffm: libffm has one field-aware factorization machine and nothing \
             beside it; train with kind = \"ffm\" to export",
        ),
        (
            "bias",
            ffm,
            "kind = 'ffm'",
            "model.bias: libffm has no bias; train with model.bias = false to export",
        ),
        (
            "linear",
            ffm,
            "kind = 'ffm'\nbias = false",
            "model.ffm.linear: libffm has no linear terms; train with linear = false to export",
        ),
        (
            "same",
            ffm,
            &format!("{model}same_field = false"),
            "model.ffm.same_field: in libffm two features of one field are a pair; train with \
             same_field = true to export",
        ),
        (
            "part",
            ffm,
            &format!("{model}fields = ['1']"),
            "model.ffm.fields: libffm reads all fields; train without fields = […] to export",
        ),
        (
            "squared",
            ffm,
            &format!("{model}[train]\nloss = 'squared'"),
            "train.loss: libffm predicts by the logistic function; train with loss = \"logistic\" \
             to export",
        ),
    ] {
        run(name, data, model);
        let got = folder.fail(&format!("export {name} --format libffm -o model"));
        assert_eq!(got, message, "{name}");
    }
    run("good", ffm, model);
    let message = folder.fail("export good --format libffm -o no/model");
    assert_eq!(
        message,
        "no/model.part: cannot create: No such file or directory (os error 2)"
    );
    assert!(!folder.names().iter().any(|name| name.starts_with("model")));
}

#[test]
fn a_row_beyond_the_file_cannot_be_explained() {
    let folder = small();
    folder.succeed("train a.toml --out a");
    for row in [0, 5] {
        assert_eq!(
            folder.fail(&format!("explain a --data a.csv --row {row}")),
            format!("--row {row}: expected 1 to 4, a row of a.csv")
        );
    }
    folder.succeed("explain a --data a.csv --row 4");
}

#[test]
fn a_row_of_a_hundred_thousand_features_is_predicted_but_not_taken_apart() {
    let folder = Folder::new();
    folder.write("model", LIBFFM);
    folder.succeed("import libffm model --out a");
    folder.write("a.ffm", format!("1{}\n", " 0:0:0.5 1:1:1".repeat(50_000)));
    let args = "a --data a.ffm --set data.max_line=10000000";
    let line = folder.succeed(&format!("predict {args}")).stdout;
    assert!(
        (0.0..=1.0).contains(&line.trim().parse::<f64>().unwrap()),
        "{line}"
    );
    let run_file = folder.read("a/run.toml").replace("1048576", "10000000");
    folder.write("a/run.toml", run_file);
    folder.list_all("a");
    assert_eq!(
        folder.fail("explain a --data a.ffm"),
        "--row 1: has 100000 features, 4999950000 pairs: expected at most 2000 features"
    );
}

#[test]
fn what_an_executor_cannot_train_is_refused_before_there_is_a_run() {
    let folder = small();
    let ffm = "--set model.kind=ffm --set train.executor=fused";
    let half = |pattern: &str, kind: &str| {
        let table = format!("[[optimizer.table]]\nmatch = '{pattern}'\nprecision = 'bf16'\n");
        let kind = format!("kind = '{kind}'\n");
        folder.write("a.toml", format!("{RUN}{table}{kind}"));
    };
    assert_eq!(
        refused(&folder, &format!("{ffm} --set optimizer.rows.kind=adam")),
        "table `ffm.age`: the fused executor has no `adam` (it has sgd, adagrad, rowwise_adagrad, \
         ftrl); executor = \"burn\" has"
    );
    assert_eq!(
        refused(&folder, &format!("{ffm} --set train.batch_size=64")),
        "train.batch_size: is 64: the fused executor updates after each row; leave it out"
    );
    half("ffm.v*", "rowwise_adagrad");
    assert_eq!(
        refused(&folder, "--set model.kind=ffm"),
        "table `ffm.v4.age`: rows of bf16 need executor = \"fused\""
    );
    half("ffm.v*", "sgd");
    assert_eq!(
        refused(&folder, ffm),
        "table `ffm.v4.age`: rows of bf16 need kind = \"rowwise_adagrad\""
    );
    half("*", "rowwise_adagrad");
    assert_eq!(
        refused(&folder, ffm),
        "table `ffm.age`: rows of bf16 need more than one weight: leave linear weights out of the \
         match"
    );
    half("ffm.v*", "rowwise_adagrad");
    folder.succeed(&format!("train a.toml --out a {ffm}"));

    folder.write("a.toml", RUN);
    let before = folder.names();
    let mut command = folder.crossfield();
    command.env("CROSSFIELD_ISA", "nonsense");
    command.args(["train", "a.toml", "--set", "train.executor=fused"]);
    let message = common::output(&mut command).message();
    assert!(
        message.starts_with("CROSSFIELD_ISA is `nonsense`: this machine has "),
        "{message}"
    );
    assert!(message.ends_with("portable"), "{message}");
    assert_eq!(folder.names(), before);
}

/// Field-aware, by the fused executor, from a checkpoint every 500 rows; its rates can be changed
/// without making another run of it.
const FUSED_RUN: &str = "\
[data]
train = 'log.csv'

[label]
column = 'click'

[[field]]
name = 'user'

[[field]]
name = 'ad'

[[field]]
name = 'site'

[model]
kind = 'ffm'

[train]
executor = 'fused'
epochs = 20
checkpoint_every = 500
";

#[test]
fn a_fused_run_that_diverges_says_what_to_try_and_keeps_its_checkpoints() {
    let folder = Folder::new();
    folder.write("fused.toml", FUSED_RUN);
    folder.succeed("data synth --out log.csv --rows 3000 --seed 5");
    folder.interrupt("fused.toml", "a");
    let run_file = folder.read("a/run.toml");
    let rate = "kind = \"adagrad\"\nlr = 0.1\n";
    assert!(run_file.contains(rate), "{run_file}");
    let huge = rate.replace("0.1", "1e30");
    folder.write("a/run.toml", run_file.replace(rate, &huge));
    let message = folder.fail("train --resume a");
    assert!(
        message.ends_with(
            "(the settings of a run that has begun stay: train anew with another --out)"
        ),
        "{message}"
    );
    folder.list_all("a");
    let before = folder.files("a");
    let kept = |files: &std::collections::BTreeMap<String, Vec<u8>>| {
        let complete = |name: &str| name.starts_with("checkpoints/") && !name.contains(".part");
        let mut kept = files.clone();
        kept.retain(|name, _| complete(name) && name.len() > "checkpoints/".len());
        kept
    };
    assert!(!kept(&before).is_empty());

    let message = folder.fail("train --resume a");
    let (problem, advice) = message.split_once(" (rows: ").unwrap();
    assert!(problem.starts_with("training diverged: "), "{message}");
    assert!(problem.contains(" at epoch "), "{message}");
    assert_eq!(
        advice,
        "Adagrad, lr 1000000000000000000000000000000); try a lower learning rate \
         (optimizer.rows.lr) or more L2 (optimizer.rows.l2)"
    );
    assert!(!folder.path("a/metrics.json").exists());
    assert_same_files(&kept(&folder.files("a")), &kept(&before), "a");
    folder.write("a/run.toml", run_file);
    folder.list_all("a");
    folder.succeed("train --resume a");
}

#[test]
fn weights_that_overflow_in_the_last_row_of_an_epoch_are_not_saved() {
    // One row: its score is checked before its update, and the epoch ends behind it.
    let folder = Folder::new();
    folder.write("a.csv", "label,item,site\n1,a,b\n");
    folder.write(
        "a.toml",
        "[data]\ntrain = 'a.csv'\n[[field]]\nname = 'item'\n[[field]]\nname = 'site'\n\
         [model]\nkind = 'ffm'\nbias = false\n[optimizer]\nrows = { kind = 'sgd', lr = 1e39 }\n\
         [train]\nexecutor = 'fused'\n",
    );
    let message = folder.fail("train a.toml --out a");
    assert!(
        message.starts_with("training diverged: tensor `tables.ffm."),
        "{message}"
    );
    assert!(
        message.contains(" at epoch 1, step 1 (rows: Sgd"),
        "{message}"
    );
    assert!(
        !folder
            .files("a")
            .keys()
            .any(|name| name.ends_with(".safetensors"))
    );
}

#[cfg(feature = "parquet")]
#[test]
fn a_parquet_file_that_breaks_its_decoder_is_named_and_nothing_else_is_said() {
    let folder = Folder::new();
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let content = std::fs::read(corpus.join("parquet/decoder-panics")).unwrap();
    folder.write("a.parquet", content);
    let run = "[data]\nformat = 'parquet'\ntrain = 'a.parquet'\n[label]\ncolumn = 'click'\n\
               [model]\nkind = 'fm'\n[[field]]\nname = 'user'\n[[field]]\nname = 'ad'\n";
    folder.write("a.toml", run);
    assert_eq!(
        refused(&folder, ""),
        "`a.parquet`, row group 1 (rows 1 to 12): what it holds contradicts itself; expected a \
         whole Parquet file, as it was written"
    );
}
