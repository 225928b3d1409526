//! The binary cache: the same rows as the files, and never anything else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::PathBuf;

use common::Files;
use crossfield_core::FieldKind;
use crossfield_data::{
    DataSpec, FieldConfig, Format, LabelKind, Prepared, RowsPart, SplitConfig, TransformKind,
    Unseen, prepare,
};

impl Files {
    /// Every kind of field, with weights, groups and three parts.
    fn csv(&self) -> DataSpec {
        let train = "label,item,tags,age,income,cookie,seen,w,user\n\
                     1,a,x|y,30,1.5,c1,b|a,1,u\n\
                     0,b,,20,,c2,,2,v\n\
                     1,ü,x:z,,-3,c3,a|a|b,0.5,u\n\
                     0,a,z,40,7,c1,b,1,v\n";
        let field = |name: &str, kind| FieldConfig {
            name: name.to_owned(),
            kind,
            ..FieldConfig::default()
        };
        let mut age = field("age", FieldKind::Numeric);
        age.transform = Some(TransformKind::Quantile);
        let mut seen = field("seen", FieldKind::Sequence);
        seen.vocabulary = Some("item".to_owned());
        seen.repeats = Some(true);
        let mut spec = DataSpec {
            field: vec![
                field("item", FieldKind::Categorical),
                field("tags", FieldKind::Bag),
                age,
                field("income", FieldKind::Numeric),
                field("cookie", FieldKind::Hashed),
                seen,
            ],
            ..DataSpec::default()
        };
        spec.data.train = vec![self.write("t.csv", train)];
        spec.data.valid = vec![self.write("v.csv", &train[..train.find("0,b").unwrap()])];
        spec.data.split = Some(SplitConfig::Rows {
            test: Some(self.write("rows", "3\n")),
            valid: None,
        });
        spec.label.weight = Some("w".to_owned());
        spec.label.group = Some("user".to_owned());
        spec
    }

    fn ffm(&self) -> DataSpec {
        let mut spec = DataSpec::default();
        spec.data.format = Format::Libffm;
        spec.data.train = vec![self.write("t.ffm", "1 0:2:1 1:7:1\n0 0:3:1 1:8:0.5\n1 0:2:1\n")];
        spec
    }

    fn cached(&self, spec: &DataSpec) -> DataSpec {
        let mut spec = spec.clone();
        spec.data.cache = Some(self.path("cache").to_str().unwrap().to_owned());
        spec
    }

    fn file(&self) -> PathBuf {
        self.path("cache/rows.cache")
    }
}

fn read(spec: &DataSpec) -> Prepared {
    prepare(spec, 1, LabelKind::Binary).unwrap()
}

/// Why the cache was built, if it was.
fn rebuilt(prepared: &Prepared) -> Option<String> {
    let cache = prepared.report.cache.as_ref().unwrap();
    cache.rebuilt.clone()
}

fn assert_same(a: &Prepared, b: &Prepared) {
    assert_eq!(a.train, b.train);
    assert_eq!(a.valid, b.valid);
    assert_eq!(a.test, b.test);
    assert_eq!(a.schema.fingerprint(), b.schema.fingerprint());
    assert_eq!(a.report.parts, b.report.parts);
    assert_eq!(a.report.fields, b.report.fields);
}

#[test]
fn what_comes_out_of_the_cache_is_what_comes_out_of_the_files() {
    let files = Files::new();
    let mut own_rows = files.ffm();
    own_rows.data.unseen = Unseen::Own;
    let mut sampled = files.csv();
    (sampled.data.keep_negatives, sampled.label.negative_rate) = (0.5, 0.25);
    for spec in [files.csv(), files.ffm(), own_rows, sampled] {
        let _ = std::fs::remove_file(files.file());
        let plain = read(&spec);
        assert_eq!(plain.report.cache, None);
        let built = read(&files.cached(&spec));
        assert_eq!(rebuilt(&built).as_deref(), Some("there was none"));
        let opened = read(&files.cached(&spec));
        assert_eq!(rebuilt(&opened), None);
        for prepared in [&built, &opened] {
            assert_same(prepared, &plain);
            let rows: Vec<u32> = prepared.train.epoch_order(1, 0, 0);
            let batch = prepared.train.batch(&rows);
            assert_eq!(batch, plain.train.batch(&rows));
        }
        let item = |prepared: &Prepared| prepared.schema.row("item", "ü");
        assert_eq!(item(&opened), item(&plain));
        // Nothing is left beside the cache but the lock.
        let mut names: Vec<_> = std::fs::read_dir(files.path("cache"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["rows.cache", "rows.lock"]);
    }
}

#[test]
fn indices_with_rows_of_their_own_are_another_description() {
    let files = Files::new();
    let mut spec = files.cached(&files.ffm());
    let shared = read(&spec);
    spec.data.unseen = Unseen::Own;
    let own = read(&spec);
    assert_eq!(
        rebuilt(&own).unwrap(),
        "it was made with another `data.unseen`"
    );
    assert_ne!(own.schema.fingerprint(), shared.schema.fingerprint());
    assert!(own.schema.has_own_row("index", 0) && !shared.schema.has_own_row("index", 0));
}

#[test]
fn another_description_or_another_source_builds_it_anew() {
    let files = Files::new();
    let mut spec = files.cached(&files.csv());
    read(&spec);
    let mut expect = |change: &mut dyn FnMut(&mut DataSpec), reason: &str| {
        change(&mut spec);
        let prepared = read(&spec);
        let found = rebuilt(&prepared).unwrap();
        let directory = files.0.path().canonicalize().unwrap();
        assert_eq!(found.replace(directory.to_str().unwrap(), "DIR"), reason);
        let mut plain = spec.clone();
        plain.data.cache = None;
        assert_same(&prepared, &read(&plain));
        assert_eq!(rebuilt(&read(&spec)), None);
    };
    expect(
        &mut |spec| spec.data.missing = vec![String::new(), "a".to_owned()],
        "it was made with another `data.missing`",
    );
    expect(
        &mut |spec| spec.field[1].min_count = Some(2),
        "it was made with another `field`",
    );
    expect(
        &mut |spec| {
            spec.data.valid =
                vec![files.write("w.csv", std::fs::read(files.path("v.csv")).unwrap())];
        },
        "it was made with another `data.valid`",
    );
    expect(
        &mut |_| {
            let text = std::fs::read_to_string(files.path("t.csv")).unwrap();
            files.write("t.csv", text + "1,a,,3,3,c,,1,u\n");
        },
        "`DIR/t.csv` has 153 bytes and had 137",
    );
    expect(
        &mut |spec| spec.data.keep_negatives = 0.75,
        "it was made with another `data.keep_negatives`",
    );
    expect(
        &mut |spec| spec.label.negative_rate = 0.75,
        "it was made with another `label.negative_rate`",
    );
    expect(
        &mut |spec| (spec.data.keep_negatives, spec.label.negative_rate) = (1.0, 1.0),
        "it was made with another `data.keep_negatives`",
    );
    // As long as before, and of the same time: the content tells.
    expect(
        &mut |_| {
            let file = std::fs::File::open(files.path("t.csv")).unwrap();
            let modified = file.metadata().unwrap().modified().unwrap();
            let text = std::fs::read_to_string(files.path("t.csv")).unwrap();
            files.write("t.csv", text.replace("1,a,,3,3", "1,b,,3,3"));
            let file = std::fs::File::options()
                .write(true)
                .open(files.path("t.csv"));
            file.unwrap().set_modified(modified).unwrap();
        },
        "`DIR/t.csv` has another content",
    );
    expect(
        &mut |_| {
            let file = std::fs::File::options()
                .write(true)
                .open(files.path("rows"));
            let time = std::time::SystemTime::UNIX_EPOCH;
            file.unwrap().set_modified(time).unwrap();
        },
        "`DIR/rows` was changed after it",
    );
    // What decides nothing about the rows changes nothing.
    spec.data.shuffle_block = 2;
    assert_eq!(rebuilt(&read(&spec)), None);
    let other_seed = prepare(&spec, 2, LabelKind::Binary).unwrap();
    assert_eq!(rebuilt(&other_seed), None);
    let ratings = prepare(&spec, 2, LabelKind::Number).unwrap();
    assert_eq!(
        rebuilt(&ratings).unwrap(),
        "it was made with another `labels`"
    );
}

#[test]
fn the_seed_counts_where_it_draws_the_split_or_the_negatives() {
    let files = Files::new();
    let random = SplitConfig::Random {
        valid: 0.0,
        test: 0.4,
    };
    let listed = SplitConfig::Rows {
        test: None,
        valid: Some(RowsPart::Share(0.4)),
    };
    for split in [random, listed] {
        let mut spec = files.cached(&files.csv());
        spec.data.valid.clear();
        spec.data.split = Some(split);
        read(&spec);
        assert_eq!(rebuilt(&read(&spec)), None);
        let other = prepare(&spec, 2, LabelKind::Binary).unwrap();
        assert_eq!(rebuilt(&other).unwrap(), "it was made with another `seed`");
        spec.data.cache = None;
        assert_same(&other, &prepare(&spec, 2, LabelKind::Binary).unwrap());
    }
    let mut spec = files.cached(&files.csv());
    spec.data.keep_negatives = 0.5;
    read(&spec);
    let other = prepare(&spec, 2, LabelKind::Binary).unwrap();
    assert_eq!(rebuilt(&other).unwrap(), "it was made with another `seed`");
}

#[test]
fn damage_is_named() {
    let files = Files::new();
    let spec = files.cached(&files.csv());
    read(&spec);
    let whole = std::fs::read(files.file()).unwrap();
    let reason = |bytes: &[u8]| {
        std::fs::write(files.file(), bytes).unwrap();
        let reason = rebuilt(&read(&spec)).unwrap();
        assert_eq!(rebuilt(&read(&spec)), None);
        reason
    };
    assert_eq!(
        reason(b"CFcache\n"),
        "the one there is damaged: 8 bytes, less than a header"
    );
    assert_eq!(
        reason(&[b'x'; 500]),
        "the one there is damaged: it does not start as a cache does"
    );
    let mut version = whole.clone();
    version[8] = 9;
    assert_eq!(reason(&version), "the one there has version 9, expected 4");
    let mut header = whole.clone();
    header[24] ^= 1;
    assert_eq!(
        reason(&header),
        "the one there is damaged: wrong checksum of its header"
    );
    let length = whole.len();
    assert_eq!(
        reason(&whole[..length - 1]),
        format!(
            "the one there is damaged: {} bytes, expected {length}",
            length - 1
        )
    );
    let mut array = whole.clone();
    // The first array, behind the header, is the text of a vocabulary.
    array[64] ^= 1;
    assert_eq!(
        reason(&array),
        "the one there is damaged: wrong checksum of its vocabulary `item`"
    );
    let mut index = whole.clone();
    index[length - 10] ^= 4;
    assert_eq!(
        reason(&index),
        "the one there is damaged: wrong checksum of its index"
    );
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_that_names_it() {
    let files = Files::new();
    let spec = files.cached(&files.csv());
    files.write("cache", "a file where the folder should be");
    let error = prepare(&spec, 1, LabelKind::Binary)
        .unwrap_err()
        .to_string();
    let folder = files.path("cache");
    let expected = format!("cannot write `{}`: ", folder.display());
    assert!(error.starts_with(&expected), "{error}");
    let mut synth = DataSpec::default();
    synth.data.format = Format::Synth;
    synth.data.cache = Some("cache".to_owned());
    assert_eq!(
        prepare(&synth, 1, LabelKind::Binary)
            .unwrap_err()
            .to_string(),
        "data.cache = cache: expected no cache of generated rows: they have no file to check it \
         against"
    );
}

#[test]
fn a_source_that_is_gone_is_an_error_and_a_broken_one_leaves_the_cache() {
    let files = Files::new();
    let spec = files.cached(&files.ffm());
    read(&spec);
    let whole = std::fs::read(files.file()).unwrap();
    files.write("t.ffm", "1 0:2:1\n1 oops\n");
    let error = prepare(&spec, 1, LabelKind::Binary)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("t.ffm` line 2, position 2: `oops`"),
        "{error}"
    );
    assert_eq!(std::fs::read(files.file()).unwrap(), whole);
    std::fs::remove_file(files.path("t.ffm")).unwrap();
    let error = prepare(&spec, 1, LabelKind::Binary)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("cannot open `"), "{error}");
}

#[test]
fn runs_at_the_same_time_build_once_and_read_the_same() {
    let files = Files::new();
    let spec = files.cached(&files.csv());
    // What a killed run left.
    std::fs::create_dir(files.path("cache")).unwrap();
    files.write("cache/rows.cache.part", "half a cac");
    let runs: Vec<Prepared> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| read(&spec))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let built = runs.iter().filter(|run| rebuilt(run).is_some()).count();
    assert_eq!(built, 1);
    for run in &runs[1..] {
        assert_same(run, &runs[0]);
    }
    assert!(!files.path("cache/rows.cache.part").exists());
}

#[test]
fn a_mapped_cache_outlives_its_replacement() {
    let files = Files::new();
    let spec = files.cached(&files.ffm());
    let first = read(&spec);
    let mut other = spec.clone();
    other.data.max_index = 100;
    assert!(rebuilt(&read(&other)).is_some());
    assert_eq!(first.train, read(&files.ffm()).train);
}
