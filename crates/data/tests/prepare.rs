//! Passes over the files, a block at a time: what comes of them is what comes of all rows in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;

use common::Files;
use crossfield_core::FieldKind;
use crossfield_data::{
    Buckets, CrossConfig, DataSpec, Dataset, FieldConfig, Format, LabelKind, Pooling, Progress,
    SplitConfig, TransformKind, prepare, prepare_in_passes, stream, stream_with,
};
use proptest::prelude::*;

fn field(name: &str, kind: FieldKind) -> FieldConfig {
    FieldConfig {
        name: name.to_owned(),
        kind,
        ..FieldConfig::default()
    }
}

fn cached(spec: &DataSpec, folder: &Path) -> DataSpec {
    let mut spec = spec.clone();
    spec.data.cache = Some(folder.to_str().unwrap().to_owned());
    spec
}

/// The cache as it is made in memory and in passes, or what is wrong.
fn both(files: &Files, spec: &DataSpec) -> [Result<Vec<u8>, String>; 2] {
    let (memory, passes) = (files.path("memory"), files.path("passes"));
    let built = |folder: &Path, outcome: Result<_, crossfield_data::Error>| match outcome {
        Ok(_) => {
            let mut names: Vec<_> = (folder.read_dir().unwrap())
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            assert_eq!(names, ["rows.cache", "rows.lock"]);
            Ok(std::fs::read(folder.join("rows.cache")).unwrap())
        }
        Err(error) => Err(error.to_string()),
    };
    let in_memory = prepare(&cached(spec, &memory), 1, LabelKind::Binary);
    let in_memory = built(&memory, in_memory.map(drop));
    let in_passes = cached(spec, &passes);
    let in_passes = prepare_in_passes(&in_passes, 1, LabelKind::Binary, &mut |_| {});
    let in_passes = built(&passes, in_passes.map(drop));
    [in_memory, in_passes]
}

/// Whether two caches are the same; the index is text, which shows where they differ.
fn assert_same(files: &Files, spec: &DataSpec) {
    let [memory, passes] = both(files, spec);
    match (&memory, &passes) {
        (Ok(memory), Ok(passes)) => {
            let index = |bytes: &[u8]| {
                let text = String::from_utf8_lossy(bytes);
                text[text.rfind("{\"crosses\"").unwrap_or(0)..].to_owned()
            };
            assert_eq!(index(memory), index(passes));
            assert!(memory == passes);
        }
        _ => assert_eq!(memory.err(), passes.err()),
    }
}

/// A row of numbers, of which cells are made.
type Cells = [u8; 8];

fn csv(rows: &[Cells]) -> String {
    let mut text = "label,item,seen,tags,f1,f0,age,income,gap,cookie,w,user\n".to_owned();
    for &[label, item, seen, tags, flags, age, income, user] in rows {
        let key = |number: u8| ["", "a", "b", "c", "ü", "a b"][usize::from(number % 6)];
        let seen = match seen % 4 {
            0 => String::new(),
            1 => key(1 + seen % 5).to_owned(),
            _ => format!("{}|{}", key(1 + seen % 5), key(1 + item % 5)),
        };
        let tags = match tags % 5 {
            0 => String::new(),
            1 => format!("f{}:1", tags % 3),
            _ => format!("x:{}|f{}:1", tags % 3 + 1, tags % 2),
        };
        let number = |number: u8| match number % 7 {
            0 => String::new(),
            some => format!("{}", f64::from(some) * 1.7 - 3.0),
        };
        text += &format!(
            "{},{},{seen},{tags},{},{},{},{},{},c{},{},{}\n",
            label % 2,
            key(item),
            flags & 1,
            flags >> 1 & 1,
            number(age),
            number(income),
            income % 3,
            item ^ user,
            f64::from(user % 4) * 0.5,
            key(user),
        );
    }
    text
}

/// Every kind of field, vocabularies that are shared, and crosses.
fn csv_spec(files: &Files, parts: &[Vec<Cells>; 4], ways: u8) -> DataSpec {
    let mut seen = field("seen", FieldKind::Sequence);
    seen.vocabulary = Some("item".to_owned());
    seen.repeats = Some(true);
    let mut tags = field("tags", FieldKind::Bag);
    tags.weight_delimiter = Some(":".to_owned());
    tags.pooling = Some([Pooling::Sum, Pooling::Mean][usize::from(ways & 1)]);
    let mut flags = field("flags", FieldKind::Bag);
    flags.columns = Some(vec!["f1".to_owned(), "f0".to_owned()]);
    flags.vocabulary = Some("tags".to_owned());
    let mut age = field("age", FieldKind::Numeric);
    age.transform = Some(TransformKind::Quantile);
    age.buckets = Some(Buckets::Count(4));
    let mut income = field("income", FieldKind::Numeric);
    income.transform = [None, Some(TransformKind::Log)][usize::from(ways >> 1 & 1)];
    let mut gap = field("gap", FieldKind::Numeric);
    gap.transform = Some(TransformKind::Buckets);
    gap.buckets = Some(Buckets::Edges(vec![0.5, 1.5]));
    let mut cookie = field("cookie", FieldKind::Hashed);
    cookie.hash_rows = Some(5);
    let mut fields = vec![
        seen,
        field("item", FieldKind::Categorical),
        tags,
        flags,
        age,
        income,
        gap,
        cookie,
    ];
    for field in &mut fields {
        if ["item", "seen"].contains(&field.name.as_str()) {
            field.min_count = Some(1 + u64::from(ways >> 2 & 1));
        }
    }
    let product = |names: &[&str]| CrossConfig {
        fields: names.iter().map(|&name| name.to_owned()).collect(),
        hash_rows: Some(7),
        ..CrossConfig::default()
    };
    let mut spec = DataSpec {
        field: fields,
        ..DataSpec::default()
    };
    if ways >> 3 & 1 == 1 {
        spec.cross = vec![product(&["item", "cookie"])];
    }
    if ways >> 4 & 1 == 1 {
        spec.cross.push(product(&["tags", "age"]));
        spec.cross.push(CrossConfig {
            when: Some("item=a AND gap=1".to_owned()),
            ..CrossConfig::default()
        });
    }
    spec.label.only_positive = ways >> 5 & 1 == 1;
    if ways >> 6 & 1 == 1 {
        spec.label.weight = Some("w".to_owned());
        spec.label.group = Some("user".to_owned());
    }
    let [first, second, valid, test] = parts;
    spec.data.train = vec![files.write("a.csv", csv(first))];
    for (part, rows, name) in [
        (&mut spec.data.train, second, "b.csv"),
        (&mut spec.data.valid, valid, "v.csv"),
        (&mut spec.data.test, test, "t.csv"),
    ] {
        if !rows.is_empty() {
            part.push(files.write(name, csv(rows)));
        }
    }
    spec
}

fn ffm(rows: &[Cells]) -> String {
    let mut text = String::new();
    for &[label, a, b, c, d, ..] in rows {
        text += &(label % 2).to_string();
        text += &format!(" 0:{}:1", a % 9);
        if b % 4 > 0 {
            text += &format!(" 1:{}:{}", b % 9, ["1", "0.5"][usize::from(b % 2)]);
        }
        if b % 4 > 2 {
            text += &format!(" 1:{}:1", c % 9);
        }
        if d % 3 > 0 {
            text += &format!(" 3:{}:1", d % 70);
        }
        text += "\n";
    }
    text
}

fn rows(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Cells>> {
    prop::collection::vec(any::<Cells>(), count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn passes_over_csv_files_make_the_cache_that_memory_makes(
        first in rows(1..12),
        others in [rows(0..9), rows(0..6), rows(0..6)],
        ways in any::<u8>(),
        block_rows in 1..7usize,
    ) {
        let files = Files::new();
        let [second, valid, test] = others;
        let yesterday = Files::new();
        let day = csv_spec(&yesterday, &[first.clone(), vec![], vec![], vec![]], ways);
        let day = prepare(&day, 1, LabelKind::Binary);
        let mut spec = csv_spec(&files, &[first, second, valid, test], ways);
        spec.data.block_rows = block_rows;
        if let (Ok(day), 1) = (day, ways >> 7) {
            day.schema.save(&yesterday.path("run")).unwrap();
            spec.data.continue_from = Some(yesterday.text_path("run"));
        }
        assert_same(&files, &spec);
    }

    #[test]
    fn passes_over_libffm_files_make_the_cache_that_memory_makes(
        first in rows(1..12),
        valid in rows(0..6),
        ways in any::<u8>(),
        block_rows in 1..7usize,
    ) {
        let files = Files::new();
        let mut spec = DataSpec::default();
        spec.data.format = Format::Libffm;
        spec.data.block_rows = block_rows;
        spec.data.train = vec![files.write("a.ffm", ffm(&first))];
        if !valid.is_empty() {
            spec.data.valid = vec![files.write("v.ffm", ffm(&valid))];
        }
        if ways & 1 == 1 {
            let one = |name: &str| FieldConfig {
                pooling: Some([Pooling::Sum, Pooling::Mean][usize::from(ways >> 1 & 1)]),
                ..field(name, FieldKind::Bag)
            };
            spec.field = vec![one("1"), one("0")];
        }
        if ways >> 2 & 1 == 1 {
            spec.cross = vec![CrossConfig {
                fields: vec!["0".to_owned(), "1".to_owned()],
                hash_rows: Some(11),
                ..CrossConfig::default()
            }];
        }
        assert_same(&files, &spec);
    }
}

/// Many distinct keys, among others in a hashed field and a cross.
fn many(files: &Files, rows: u32) -> DataSpec {
    let mut text = "label,item,cookie\n".to_owned();
    for row in 0..rows {
        let mixed = row.wrapping_mul(0x9e37_79b1) >> 8;
        text += &format!("{},i{},c{}\n", mixed % 2, mixed % (1 + mixed % 60_000), row);
    }
    let mut spec = DataSpec {
        field: vec![
            field("item", FieldKind::Categorical),
            field("cookie", FieldKind::Hashed),
        ],
        ..DataSpec::default()
    };
    spec.cross = vec![CrossConfig {
        fields: vec!["item".to_owned(), "cookie".to_owned()],
        hash_rows: Some(50_000),
        ..CrossConfig::default()
    }];
    spec.data.train = vec![files.write("many.csv", text)];
    spec.data.block_rows = 4096;
    spec
}

#[test]
fn what_spills_makes_the_same_cache() {
    let files = Files::new();
    let mut spec = many(&files, 60_000);
    spec.data.memory = "1MB".to_owned();
    assert_same(&files, &spec);
}

#[test]
fn what_cannot_be_done_in_passes_says_what_can() {
    let files = Files::new();
    let base = many(&files, 10);
    let refusal = |change: &dyn Fn(&mut DataSpec)| {
        let mut spec = cached(&base, &files.path("cache"));
        change(&mut spec);
        let in_passes = prepare_in_passes(&spec, 1, LabelKind::Binary, &mut |_| {});
        let message = in_passes.unwrap_err().to_string();
        if spec.data.cache.is_some() {
            let streamed = stream(&spec, 1, LabelKind::Binary).unwrap_err();
            assert_eq!(streamed.to_string(), message);
        }
        let tail = ", for rows are read block by block here (or train with data.stream = false, \
                    which reads them all into memory)";
        message.replace(tail, " (IN MEMORY)")
    };
    assert_eq!(
        refusal(&|spec| spec.data.cache = None),
        "data.cache = (not set): expected a folder for the cache, such as \"cache/clicks\""
    );
    assert_eq!(
        refusal(&|spec| spec.data.memory = "much".to_owned()),
        "data.memory = much: expected a size such as \"512MB\", at least 1MB"
    );
    assert_eq!(
        refusal(&|spec| spec.data.memory = "1kB".to_owned()),
        "data.memory = 1kB: expected a size such as \"512MB\", at least 1MB"
    );
    assert_eq!(
        refusal(&|spec| spec.data.block_rows = 0),
        "data.block_rows = 0: expected 1 to 4294967294"
    );
    assert_eq!(
        refusal(&|spec| spec.data.keep_negatives = 0.5),
        "data.keep_negatives = 0.5: expected 1 (IN MEMORY)"
    );
    let random = SplitConfig::Random {
        valid: 0.1,
        test: 0.1,
    };
    assert_eq!(
        refusal(&|spec| spec.data.split = Some(random.clone())),
        "data.split = random: expected files for data.valid and data.test in its place (IN MEMORY)"
    );
    assert_eq!(
        refusal(&|spec| {
            spec.data.test = spec.data.train.clone();
            spec.data.split = Some(random.clone());
        }),
        "data.split = random: expected files for data.valid in its place (IN MEMORY)"
    );
    assert_eq!(
        refusal(&|spec| spec.cross[0].hash_rows = None),
        "cross `item & cookie`: min_count = 1: expected hash_rows in its place (IN MEMORY)"
    );
    assert_eq!(
        refusal(&|spec| spec.data.format = Format::Synth),
        "data.format = synth: expected files (`crossfield data synth` writes them) (IN MEMORY)"
    );
    // No split takes rows of parts that have files.
    let mut spec = base.clone();
    (spec.data.valid, spec.data.test) = (spec.data.train.clone(), spec.data.train.clone());
    spec.data.split = Some(random);
    assert_same(&files, &spec);
}

fn labels(
    blocks: impl Iterator<Item = Result<std::sync::Arc<Dataset>, crossfield_data::Error>>,
) -> Vec<Vec<f32>> {
    let blocks = blocks.map(|block| block.unwrap());
    blocks.map(|block| block.labels().to_vec()).collect()
}

/// Ten rows, whose labels are their numbers.
fn ten(files: &Files) -> DataSpec {
    let rows = (0..10).map(|row| format!("{row},i{},{}\n", row % 3, row * row));
    let text: String = ["label,item,age\n".to_owned()]
        .into_iter()
        .chain(rows)
        .collect();
    let mut spec = DataSpec {
        field: vec![
            field("item", FieldKind::Categorical),
            field("age", FieldKind::Numeric),
        ],
        ..DataSpec::default()
    };
    spec.data.train = vec![files.write("ten.csv", text)];
    spec.data.valid = spec.data.train.clone();
    spec.data.stream = true;
    spec.data.block_rows = 4;
    spec
}

#[test]
fn blocks_out_of_a_cache_come_in_an_order_of_the_epoch_and_hold_all_rows() {
    let files = Files::new();
    let spec = ten(&files);
    let in_memory = prepare(&spec, 1, LabelKind::Number).unwrap();
    let spec = cached(&spec, &files.path("cache"));
    let streamed = stream(&spec, 1, LabelKind::Number).unwrap();
    assert_eq!(
        streamed.schema.fingerprint(),
        in_memory.schema.fingerprint()
    );
    assert_eq!(streamed.valid, in_memory.valid);
    let epochs: Vec<_> = (0..4)
        .map(|epoch| labels(streamed.train.blocks(1, epoch, 0)))
        .collect();
    for blocks in &epochs {
        let mut sorted = blocks.clone();
        sorted.sort_by(|a, b| a[0].total_cmp(&b[0]));
        assert_eq!(
            sorted,
            [
                vec![0.0, 1.0, 2.0, 3.0],
                vec![4.0, 5.0, 6.0, 7.0],
                vec![8.0, 9.0]
            ]
        );
    }
    assert!(epochs.iter().any(|blocks| *blocks != epochs[0]));
    assert_eq!(labels(streamed.train.blocks(1, 2, 0)), epochs[2]);
    assert_eq!(labels(streamed.train.blocks(1, 2, 1)), epochs[2][1..]);
    assert!(labels(streamed.train.blocks(1, 2, 9)).is_empty());
    // The rows are those of the cache in memory.
    let blocks: Vec<_> = streamed.train.blocks(1, 0, 0).map(Result::unwrap).collect();
    for block in blocks {
        let first = block.labels()[0] as u32;
        let picked: Vec<u32> = (first..first + block.len() as u32).collect();
        assert_eq!(*block, in_memory.train.select(&picked));
    }
}

#[test]
fn rows_of_hashed_fields_and_given_edges_are_not_read_before_they_are_trained_on() {
    let files = Files::new();
    let mut spec = ten(&files);
    spec.field[0].kind = FieldKind::Hashed;
    spec.field[1].transform = Some(TransformKind::Buckets);
    spec.field[1].buckets = Some(Buckets::Edges(vec![1.5, 20.0]));
    spec.data.valid.clear();
    let mut seen = Vec::new();
    let streamed = stream_with(&spec, 1, LabelKind::Number, &mut |at| seen.push(at)).unwrap();
    assert_eq!(seen, []);
    assert_eq!(streamed.report.parts[0].rows, None);
    let in_memory = prepare(&spec, 1, LabelKind::Number).unwrap();
    assert_eq!(
        streamed.schema.fingerprint(),
        in_memory.schema.fingerprint()
    );
    let all: f32 = labels(streamed.train.blocks(1, 0, 0)).concat().iter().sum();
    assert_eq!(all, 45.0);
    // A vocabulary asks for one pass, a mean for another; one reads the validation rows.
    for (kind, passes) in [(FieldKind::Categorical, 2), (FieldKind::Numeric, 3)] {
        let mut spec = ten(&files);
        spec.field.retain(|field| field.kind == kind);
        let mut seen = Vec::new();
        let say = &mut |at: Progress| seen.push(at);
        let streamed = stream_with(&spec, 1, LabelKind::Number, say).unwrap();
        let ends: Vec<_> = seen.iter().filter(|at| at.rows == 10).collect();
        let numbers: Vec<_> = ends.iter().map(|at| at.pass).collect();
        assert_eq!(numbers, (1..=passes).collect::<Vec<_>>());
        assert!(seen.iter().all(|at| at.passes == passes), "{seen:?}");
        let in_memory = prepare(&spec, 1, LabelKind::Number).unwrap();
        assert_eq!(
            streamed.schema.fingerprint(),
            in_memory.schema.fingerprint()
        );
        assert_eq!(streamed.report.parts, in_memory.report.parts);
        assert_eq!(streamed.valid, in_memory.valid);
    }
}

#[test]
fn quantiles_of_too_many_numbers_are_those_of_a_sample_and_the_report_says_so() {
    let files = Files::new();
    // 0 to 99,999, mixed: quantiles are known.
    let number = |row: u64| row * 7_919 % 100_000;
    let rows = (0..100_000).map(|row| format!("1,{}\n", number(row)));
    let text: String = ["label,age\n".to_owned()].into_iter().chain(rows).collect();
    let mut age = field("age", FieldKind::Numeric);
    age.transform = Some(TransformKind::Quantile);
    age.buckets = Some(Buckets::Count(5));
    let mut spec = DataSpec {
        field: vec![age],
        ..DataSpec::default()
    };
    spec.data.train = vec![files.write("n.csv", text)];
    spec.data.memory = "1MB".to_owned();
    let streamed = stream(&spec, 1, LabelKind::Binary).unwrap();
    // Half a MB of numbers of 8 bytes.
    assert_eq!(streamed.report.fields[0].sample, Some(62_500));
    let text = streamed.report.to_string();
    assert!(
        text.contains("age: quantiles of 62,500 of its values, drawn"),
        "{text}"
    );
    let mut edges = Vec::new();
    for bucket in 1..streamed.schema.schema().fields[0].rows - 2 {
        // `age=[a, b)`.
        let name = streamed.schema.name(0, bucket, 1.0);
        let edge = name.trim_start_matches("age=[").split(',').next().unwrap();
        edges.push(edge.parse::<f64>().unwrap());
    }
    for expected in [25_000.0, 50_000.0, 75_000.0] {
        // The median of 62,500 of 100,000 strays by 10⁵ · √(0.25 / 62,500 · 0.375) = 122.
        let near = edges.iter().any(|edge| f64::abs(edge - expected) < 600.0);
        assert!(near, "{edges:?}");
    }
    spec.data.memory = "2MB".to_owned();
    let streamed = stream(&spec, 1, LabelKind::Binary).unwrap();
    assert_eq!(streamed.report.fields[0].sample, None);
    let in_memory = prepare(&spec, 1, LabelKind::Binary).unwrap();
    assert_eq!(
        streamed.schema.fingerprint(),
        in_memory.schema.fingerprint()
    );
}
