//! Parquet files: the same rows as from text, and what is wrong with them.

#![cfg(feature = "parquet")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs::File;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::types::Int64Type;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Float32Array, Float64Array, Int8Array,
    Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StringViewArray, StructArray,
    TimestampMicrosecondArray, UInt64Array,
};
use common::Files;
use crossfield_core::FieldKind;
use crossfield_data::synth::{AdLog, SynthConfig, generate};
use crossfield_data::{
    DataSpec, Dataset, FieldConfig, Format, LabelKind, Labels, RowStream, TransformKind,
    encode_files, prepare,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

fn field(name: &str, kind: FieldKind) -> FieldConfig {
    FieldConfig {
        name: name.to_owned(),
        kind,
        ..FieldConfig::default()
    }
}

/// Writes a file with row groups of so many rows.
fn write(files: &Files, name: &str, group: usize, columns: Vec<(&str, ArrayRef)>) -> String {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let file = File::create(files.path(name)).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    for start in (0..batch.num_rows()).step_by(group) {
        let rows = group.min(batch.num_rows() - start);
        writer.write(&batch.slice(start, rows)).unwrap();
        writer.flush().unwrap();
    }
    writer.close().unwrap();
    files.text_path(name)
}

fn array(values: impl arrow_array::Array + 'static) -> ArrayRef {
    Arc::new(values)
}

fn texts(values: &[&str]) -> ArrayRef {
    array(StringArray::from(values.to_vec()))
}

fn spec(train: String, fields: Vec<FieldConfig>) -> DataSpec {
    let mut spec = DataSpec {
        field: fields,
        ..DataSpec::default()
    };
    spec.data.format = Format::Parquet;
    spec.data.train = vec![train];
    spec
}

/// Label, item and age.
fn small(files: &Files, name: &str) -> DataSpec {
    let columns = vec![
        ("label", array(Int32Array::from(vec![1, 0, 1]))),
        ("item", texts(&["a", "b", "a"])),
        ("age", array(Int64Array::from(vec![20, 30, 40]))),
    ];
    let file = write(files, name, 2, columns);
    let age = field("age", FieldKind::Numeric);
    spec(file, vec![field("item", FieldKind::Categorical), age])
}

fn error(files: &Files, spec: &DataSpec) -> String {
    let error = prepare(spec, 1, LabelKind::Binary).unwrap_err().to_string();
    error.replace(files.0.path().to_str().unwrap(), "DIR")
}

/// The rows of one column that is a field of this kind.
fn encoded(kind: FieldKind, values: ArrayRef) -> Dataset {
    let files = Files::new();
    let labels = Int8Array::from(vec![1; values.len()]);
    let file = write(
        &files,
        "a.parquet",
        100,
        vec![("label", array(labels)), ("x", values)],
    );
    let spec = spec(file, vec![field("x", kind)]);
    prepare(&spec, 1, LabelKind::Binary).unwrap().train
}

/// The same of a csv file.
fn from_csv(kind: FieldKind, cells: &[&str]) -> Dataset {
    let files = Files::new();
    let lines: String = cells.iter().map(|cell| format!("1,{cell}\n")).collect();
    let mut spec = spec(
        files.write("a.csv", format!("label,x\n{lines}")),
        vec![field("x", kind)],
    );
    spec.data.format = Format::Csv;
    prepare(&spec, 1, LabelKind::Binary).unwrap().train
}

#[test]
fn a_log_gives_the_rows_that_it_gives_as_csv() {
    let files = Files::new();
    let log = generate(&SynthConfig {
        rows: 3000,
        ..SynthConfig::default()
    });
    let log = log.unwrap();
    log.write_csv(File::create(files.path("a.csv")).unwrap())
        .unwrap();
    log.write_parquet(File::create(files.path("a.parquet")).unwrap())
        .unwrap();
    let mut of_text = DataSpec::default();
    of_text.label.column = "click".to_owned();
    of_text.data.train = vec![files.text_path("a.csv")];
    for planted in AdLog::default_fields() {
        let mut field = field(planted.name, planted.kind);
        field.vocabulary = Some(planted.vocabulary.to_owned());
        field.repeats = (planted.kind == FieldKind::Sequence).then_some(true);
        of_text.field.push(field);
    }
    let mut hour = field("hour", FieldKind::Numeric);
    hour.name = "hour as a number".to_owned();
    hour.column = Some("hour".to_owned());
    of_text.field.push(hour);
    let mut hashed = field("user", FieldKind::Hashed);
    hashed.name = "hashed user".to_owned();
    hashed.column = Some("user".to_owned());
    hashed.vocabulary = Some("hashed user".to_owned());
    of_text.field.push(hashed);
    let mut of_parquet = of_text.clone();
    of_parquet.data.format = Format::Parquet;
    of_parquet.data.train = vec![files.text_path("a.parquet")];
    let expected = prepare(&of_text, 1, LabelKind::Binary).unwrap();
    let found = prepare(&of_parquet, 1, LabelKind::Binary).unwrap();
    assert_eq!(found.schema.fingerprint(), expected.schema.fingerprint());
    assert!(found.train == expected.train);
    let files = &of_parquet.data.train;
    let again = encode_files(
        &of_parquet,
        &found.schema,
        files,
        LabelKind::Binary,
        Labels::Required,
    );
    assert!(again.unwrap() == expected.train);
}

#[test]
fn numbers_have_the_keys_that_they_have_as_text() {
    let kind = FieldKind::Hashed;
    let same = |values: ArrayRef, cells: &[&str]| {
        assert_eq!(encoded(kind, values), from_csv(kind, cells), "{cells:?}");
    };
    same(array(Int8Array::from(vec![42, -1])), &["42", "-1"]);
    same(
        array(Int64Array::from(vec![i64::MIN])),
        &["-9223372036854775808"],
    );
    same(
        array(UInt64Array::from(vec![u64::MAX])),
        &["18446744073709551615"],
    );
    same(array(Float32Array::from(vec![0.1, 42.0])), &["0.1", "42"]);
    same(
        array(Float64Array::from(vec![0.1, 1e-7])),
        &["0.1", "0.0000001"],
    );
    same(
        array(BooleanArray::from(vec![true, false])),
        &["true", "false"],
    );
    same(array(Date32Array::from(vec![19_000])), &["19000"]);
    let time = TimestampMicrosecondArray::from(vec![1_700_000_000_000_000]);
    same(array(time), &["1700000000000000"]);
    same(array(StringViewArray::from(vec!["a", "é"])), &["a", "é"]);
    same(array(BinaryArray::from(vec!["é".as_bytes()])), &["é"]);
    let dictionary: arrow_array::DictionaryArray<arrow_array::types::Int8Type> =
        ["b", "a", "b"].into_iter().collect();
    same(array(dictionary), &["b", "a", "b"]);
}

#[test]
fn nulls_are_missing_values() {
    for kind in [FieldKind::Hashed, FieldKind::Categorical] {
        let words = StringArray::from(vec![Some("a"), None, Some("")]);
        assert_eq!(encoded(kind, array(words)), from_csv(kind, &["a", "", ""]));
    }
    let numbers = Float64Array::from(vec![Some(1.0), None, Some(4.0)]);
    let kind = FieldKind::Numeric;
    assert_eq!(
        encoded(kind, array(numbers)),
        from_csv(kind, &["1", "", "4"])
    );
    let lists = vec![
        Some(vec![Some(3), Some(4)]),
        None,
        Some(vec![]),
        Some(vec![Some(4)]),
    ];
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
    for kind in [FieldKind::Bag, FieldKind::Sequence] {
        let expected = from_csv(kind, &["3|4", "", "", "4"]);
        assert_eq!(encoded(kind, array(lists.clone())), expected);
    }
}

#[test]
fn a_value_with_a_delimiter_stays_one_value_of_a_list() {
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.append_value([Some("a|b"), Some("c")]);
    let rows = encoded(FieldKind::Bag, array(lists.finish()));
    assert_eq!(rows.column(0).indices, [1, 2]);
}

/// 20,000 rows in row groups of 3,000.
fn long(files: &Files) -> DataSpec {
    let rows = 20_000;
    let columns = vec![
        ("label", array(Int32Array::from_iter_values(0..rows))),
        (
            "item",
            array(StringArray::from_iter_values(
                (0..rows).map(|row| format!("i{}", row % 77)),
            )),
        ),
    ];
    let file = write(files, "long.parquet", 3000, columns);
    let mut item = field("item", FieldKind::Hashed);
    item.hash_rows = Some(1000);
    spec(file, vec![item])
}

#[test]
fn row_groups_come_in_an_order_of_the_epoch_and_can_be_skipped() {
    let files = Files::new();
    let mut spec = long(&files);
    spec.data.block_rows = 2500;
    let all = prepare(&spec, 1, LabelKind::Number).unwrap();
    let expected: Vec<f32> = (0..20_000).map(|row| row as f32).collect();
    assert_eq!(all.train.labels(), expected);
    let files = spec.data.train.clone();
    let schema = Arc::new(all.schema);
    let stream = RowStream::new(&spec, schema.clone(), &files, LabelKind::Number).unwrap();
    let whole: Vec<_> = stream.blocks(5, 1, 0).map(Result::unwrap).collect();
    assert_eq!(whole.len(), 8);
    let rows: Vec<f32> = whole
        .iter()
        .flat_map(|block| block.labels().to_vec())
        .collect();
    let breaks = rows
        .windows(2)
        .filter(|pair| pair[1] != pair[0] + 1.0)
        .count();
    assert!(
        (2..=6).contains(&breaks),
        "{breaks} places where groups meet"
    );
    let mut sorted = rows.clone();
    sorted.sort_by(f32::total_cmp);
    assert_eq!(sorted, expected);
    // Each row has its item.
    for block in &whole {
        for (row, &label) in block.labels().iter().enumerate() {
            let index = block.examples().one_hot_of(row)[0];
            assert_eq!(index, all.train.examples().one_hot_of(label as usize)[0]);
        }
    }
    for first in [1, 3, 7, 8] {
        let late: Vec<_> = stream.blocks(5, 1, first).map(Result::unwrap).collect();
        assert_eq!(late, whole[first as usize..]);
    }
    spec.data.in_order = true;
    let stream = RowStream::new(&spec, schema, &files, LabelKind::Number).unwrap();
    let rows = stream
        .blocks(5, 1, 2)
        .flat_map(|block| block.unwrap().labels().to_vec());
    assert_eq!(rows.collect::<Vec<_>>(), expected[5000..]);
}

#[test]
fn keys_of_text_files_are_refused() {
    let files = Files::new();
    let mut with_header = small(&files, "a.parquet");
    with_header.data.header = Some(crossfield_data::Header::Present(true));
    assert_eq!(
        error(&files, &with_header),
        "data.header = (set): expected no such key with parquet"
    );
    let mut latin = small(&files, "a.parquet");
    latin.data.encoding = crossfield_data::Encoding::Latin1;
    assert_eq!(
        error(&files, &latin),
        "data.encoding = (set): expected no such key with parquet"
    );
}

#[test]
fn a_lost_column_is_named_with_its_file_and_more_columns_are_fine() {
    let files = Files::new();
    let mut spec = small(&files, "a.parquet");
    let more = vec![
        ("extra", texts(&["x"])),
        ("age", array(Float32Array::from(vec![1.5]))),
        ("item", array(Int8Array::from(vec![7]))),
        ("label", array(BooleanArray::from(vec![true]))),
    ];
    spec.data.valid = vec![write(&files, "b.parquet", 9, more)];
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.valid.unwrap().labels(), [1.0]);
    let lost = vec![
        ("label", array(Int32Array::from(vec![1]))),
        ("items", texts(&["a"])),
        ("age", array(Int32Array::from(vec![1]))),
    ];
    spec.data.valid = vec![write(&files, "b.parquet", 9, lost)];
    let expected = "field `item`: `DIR/b.parquet` has no column `item`; did you mean `items`?";
    assert_eq!(error(&files, &spec), expected);
    // So it is of a day that is evaluated later.
    let later = spec.data.valid.clone();
    let failed = encode_files(
        &spec,
        &prepared.schema,
        &later,
        LabelKind::Binary,
        Labels::Optional,
    );
    let message = failed.unwrap_err().to_string();
    assert_eq!(
        message.replace(files.0.path().to_str().unwrap(), "DIR"),
        expected
    );
    // Of several train files, before a row is read.
    spec.data.valid.clear();
    spec.data.train.push(later[0].clone());
    assert_eq!(error(&files, &spec), expected);
}

#[test]
fn a_column_of_another_type_is_named_with_its_type() {
    let files = Files::new();
    let mut spec = small(&files, "a.parquet");
    let mut of = |name: &str, values: ArrayRef| {
        let mut columns = vec![
            ("label", array(Int32Array::from(vec![1]))),
            ("item", texts(&["a"])),
            ("age", array(Int32Array::from(vec![1]))),
        ];
        columns
            .iter_mut()
            .find(|(column, _)| *column == name)
            .unwrap()
            .1 = values;
        spec.data.valid = vec![write(&files, "b.parquet", 9, columns)];
        error(&files, &spec)
    };
    assert_eq!(
        of("age", texts(&["31"])),
        "field `age`: column `age` of `DIR/b.parquet` is of type Utf8; expected a number, a bool, a \
         date or a timestamp"
    );
    let list = || ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)])]);
    assert_eq!(
        of("item", array(list())),
        "field `item`: column `item` of `DIR/b.parquet` is of type List(Int64); expected text, a \
         number, a bool, a date or a timestamp"
    );
    let inner = RecordBatch::try_from_iter(vec![("a", texts(&["x"]))]).unwrap();
    assert_eq!(
        of("item", array(StructArray::from(inner))),
        "field `item`: column `item` of `DIR/b.parquet` is of type Struct(\"a\": non-null Utf8); \
         expected text, a number, a bool, a date or a timestamp"
    );
    assert_eq!(
        of("label", array(list())),
        "label.column: column `label` of `DIR/b.parquet` is of type List(Int64); expected text, a \
         number, a bool, a date or a timestamp"
    );
}

#[test]
fn wrong_values_are_named_with_their_row() {
    let files = Files::new();
    let of = |name: &str, values: ArrayRef| {
        let mut spec = small(&files, "a.parquet");
        let mut columns = vec![
            ("label", array(Int32Array::from(vec![1, 0, 1]))),
            ("item", texts(&["a", "b", "c"])),
            ("age", array(Int32Array::from(vec![1, 2, 3]))),
        ];
        columns
            .iter_mut()
            .find(|(column, _)| *column == name)
            .unwrap()
            .1 = values;
        write(&files, "a.parquet", 2, columns);
        spec.field[1].transform = Some(TransformKind::Standardise);
        error(&files, &spec)
    };
    assert_eq!(
        of(
            "label",
            array(Int32Array::from(vec![Some(1), Some(0), None]))
        ),
        "`DIR/a.parquet` row 3, column `label`: `null`; expected a label (a label cannot be missing)"
    );
    assert_eq!(
        of("label", array(Int32Array::from(vec![1, 5, 0]))),
        "`DIR/a.parquet` row 2, column `label`: `5`; expected 0, 1 or -1 as a label (set \
         label.threshold or label.positive for other values)"
    );
    assert_eq!(
        of("age", array(Float64Array::from(vec![1.0, 2.0, f64::NAN]))),
        "`DIR/a.parquet` row 3, column `age`: `NaN`; expected a finite number (or declare it in \
         data.missing)"
    );
    assert_eq!(
        of(
            "item",
            array(BinaryArray::from(vec![&b"a"[..], b"\xff", b"c"]))
        ),
        "`DIR/a.parquet` row 2, column `item`: `(bytes)`; expected text in UTF-8"
    );
    let mut spec = small(&files, "a.parquet");
    let lists = [Some(vec![Some(1)]), Some(vec![Some(1), None])];
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
    let columns = vec![
        ("label", array(Int32Array::from(vec![1, 0]))),
        ("tags", array(lists)),
    ];
    spec.data.train = vec![write(&files, "a.parquet", 9, columns)];
    spec.field = vec![field("tags", FieldKind::Bag)];
    assert_eq!(
        error(&files, &spec),
        "`DIR/a.parquet` row 2, column `tags`: `null`; expected no missing value in a list"
    );
}

#[test]
fn declared_numbers_are_missing() {
    let files = Files::new();
    let columns = vec![
        ("label", array(Int32Array::from(vec![1, 0, 1]))),
        ("age", array(Float64Array::from(vec![-1.0, f64::NAN, 3.0]))),
    ];
    let file = write(&files, "a.parquet", 9, columns);
    let mut spec = spec(file, vec![field("age", FieldKind::Numeric)]);
    spec.data.missing = vec!["-1".to_owned(), "NaN".to_owned()];
    let train = prepare(&spec, 1, LabelKind::Binary).unwrap().train;
    assert_eq!(train.column(0).indices, [1, 1, 0]);
}

#[test]
fn a_history_is_checked_row_by_row() {
    let files = Files::new();
    let mut past = ListBuilder::new(StringBuilder::new());
    past.append_value([Some("a"), Some("b")]);
    past.append_value([Some("a"), Some("c")]);
    let times = |last| {
        let lists = [
            Some(vec![Some(1), Some(2)]),
            Some(vec![Some(1), Some(last)]),
        ];
        array(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))
    };
    let past = array(past.finish());
    let of = |items: &[&str], last| {
        let columns = vec![
            ("label", array(Int32Array::from(vec![1, 0]))),
            ("item", texts(items)),
            ("history", past.clone()),
            ("times", times(last)),
            ("time", array(Int64Array::from(vec![3, 3]))),
        ];
        let file = write(&files, "a.parquet", 9, columns);
        let mut history = field("history", FieldKind::Sequence);
        history.vocabulary = Some("item".to_owned());
        history.times = Some("times".to_owned());
        history.time = Some("time".to_owned());
        spec(file, vec![field("item", FieldKind::Categorical), history])
    };
    let fine = prepare(&of(&["c", "b"], 2), 1, LabelKind::Binary).unwrap();
    assert_eq!(fine.train.column(1).offsets, Some(vec![0, 2, 4]));
    let error = |spec: &DataSpec| error(&files, spec);
    assert!(error(&of(&["c", "a"], 2)).starts_with(
        "`DIR/a.parquet` row 2, field `history`: the history holds the target `a` itself"
    ));
    assert_eq!(
        error(&of(&["c", "b"], 3)),
        "`DIR/a.parquet` row 2, field `history`: time 3 in column `times`, with 3 of the row in \
         `time`; expected only what came before the row"
    );
}

#[test]
fn damaged_files_are_named() {
    let files = Files::new();
    let mut spec = long(&files);
    let path = files.path("long.parquet");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(
        error(&files, &spec),
        "`DIR/long.parquet`: it does not end with PAR1: it is truncated (an interrupted download or \
         copy?); expected a whole Parquet file, as it was written"
    );
    std::fs::write(&path, "label,item\n1,a\n0,b\n").unwrap();
    assert_eq!(
        error(&files, &spec),
        "`DIR/long.parquet`: it does not begin with PAR1, so it is no Parquet file; expected a whole \
         Parquet file, as it was written"
    );
    std::fs::write(&path, "PAR1").unwrap();
    assert_eq!(
        error(&files, &spec),
        "`DIR/long.parquet`: 4 bytes are too few for a Parquet file; expected a whole Parquet file, \
         as it was written"
    );
    spec.data.train = vec![files.text_path("no.parquet")];
    assert!(error(&files, &spec).starts_with("cannot open `DIR/no.parquet`"));
}

#[test]
fn a_file_without_rows_is_empty() {
    let files = Files::new();
    let mut spec = small(&files, "a.parquet");
    let columns = vec![
        ("label", array(Int32Array::from(Vec::<i32>::new()))),
        ("item", texts(&[])),
        ("age", array(Int32Array::from(Vec::<i32>::new()))),
    ];
    let empty = write(&files, "b.parquet", 9, columns);
    spec.data.train.push(empty.clone());
    assert_eq!(prepare(&spec, 1, LabelKind::Binary).unwrap().train.len(), 3);
    spec.data.train = vec![empty];
    assert_eq!(
        error(&files, &spec),
        "`DIR/b.parquet` is empty; expected at least one row"
    );
}

#[test]
fn flipped_bytes_are_errors_or_other_values_and_never_panics() {
    let files = Files::new();
    let spec = small(&files, "a.parquet");
    let path = files.path("a.parquet");
    let whole = std::fs::read(&path).unwrap();
    let intact = prepare(&spec, 1, LabelKind::Binary).unwrap().train;
    let (mut refused, mut changed) = (0, 0);
    for at in (0..whole.len()).step_by(5) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&path, flipped).unwrap();
        match prepare(&spec, 1, LabelKind::Binary) {
            Ok(prepared) => changed += u32::from(prepared.train != intact),
            Err(_) => refused += 1,
        }
    }
    // Pages without a checksum cannot tell all: what is left are other values of the right type.
    assert!(refused > changed, "{refused} refused, {changed} changed");
}
