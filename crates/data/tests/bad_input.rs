//! Whatever is wrong with a file is said with its place, its value and what was expected.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::Write;
use std::path::Path;

use common::Files;
use crossfield_core::FieldKind;
use crossfield_data::{
    CrossConfig, DataSpec, FieldConfig, Format, Header, JoinConfig, LabelKind, Labels, SplitConfig,
    encode_files, prepare,
};

/// A directory that messages show as `DIR`.
impl Files {
    fn error(&self, spec: &DataSpec) -> String {
        let error = prepare(spec, 1, LabelKind::Binary).unwrap_err().to_string();
        error.replace(self.0.path().to_str().unwrap(), "DIR")
    }

    /// The error of a csv file with the columns label, item and age.
    fn csv(&self, content: impl AsRef<[u8]>) -> String {
        self.write("a.csv", content);
        self.error(&csv_spec(&self.text_path("a.csv")))
    }

    fn indexed(&self, format: Format, content: &str) -> String {
        let mut spec = DataSpec::default();
        spec.data.format = format;
        spec.data.train = vec![self.write("a.txt", content)];
        self.error(&spec)
    }
}

fn field(name: &str, kind: FieldKind) -> FieldConfig {
    FieldConfig {
        name: name.to_owned(),
        kind,
        ..FieldConfig::default()
    }
}

fn csv_spec(file: &str) -> DataSpec {
    let mut spec = DataSpec::default();
    spec.data.train = vec![file.to_owned()];
    spec.field = vec![
        field("item", FieldKind::Categorical),
        field("age", FieldKind::Numeric),
    ];
    spec
}

#[test]
fn a_missing_file_is_named() {
    let files = Files::new();
    assert_eq!(
        files.error(&csv_spec(&files.text_path("no.csv"))),
        "cannot open `DIR/no.csv`: No such file or directory (os error 2)"
    );
}

#[test]
fn an_empty_file_is_an_error() {
    let files = Files::new();
    let empty = "`DIR/a.csv` is empty; expected a header and at least one record";
    assert_eq!(files.csv(""), empty);
    assert_eq!(files.csv("\n\n"), empty);
    assert_eq!(
        files.csv("label,item,age\n"),
        "`DIR/a.csv` is empty; expected at least one record"
    );
    assert_eq!(
        files.indexed(Format::Libsvm, ""),
        "`DIR/a.txt` is empty; expected lines of `label index:value …`"
    );
    assert_eq!(
        files.indexed(Format::Libffm, "\n"),
        "`DIR/a.txt` is empty; expected lines of `label field:index:value …`"
    );
}

#[test]
fn a_wrong_number_of_columns_is_counted() {
    let files = Files::new();
    assert_eq!(
        files.csv("label,item,age\n1,a,3\n0,b\n"),
        "`DIR/a.csv` line 3: 2 columns; expected 3"
    );
    assert_eq!(
        files.csv("label,item,age\n1,a,3,4\n"),
        "`DIR/a.csv` line 2: 4 columns; expected 3"
    );
}

#[test]
fn malformed_pairs_are_shown() {
    let files = Files::new();
    for (line, position, token, expected) in [
        ("1 3:1 4", 3, "4", "index:value"),
        ("1 3:1:2", 2, "3:1:2", "index:value"),
        ("1 3:x", 2, "3:x", "a finite number as the value"),
        ("1 3:", 2, "3:", "a finite number as the value"),
    ] {
        assert_eq!(
            files.indexed(Format::Libsvm, &format!("1 0:1\n{line}\n")),
            format!("`DIR/a.txt` line 2, position {position}: `{token}`; expected {expected}")
        );
    }
    assert_eq!(
        files.indexed(Format::Libffm, "1 0:1:1 2:1\n"),
        "`DIR/a.txt` line 1, position 3: `2:1`; expected field:index:value"
    );
    assert_eq!(
        files.indexed(Format::Libffm, "1 70000:1:1\n"),
        "`DIR/a.txt` line 1, position 2: `70000:1:1`; expected a field number from 0 to 65535"
    );
    assert_eq!(
        files.indexed(Format::Libsvm, "1 0:1\n3:1 4:1\n"),
        "`DIR/a.txt` line 2, column `label`: `3:1`; expected a label first"
    );
}

#[test]
fn an_index_that_is_no_row_number_is_an_error() {
    let files = Files::new();
    let index = "an index from 0 to 2147483647, for it is a row number (data.max_index)";
    assert_eq!(
        files.indexed(Format::Libsvm, "1 4000000000:1\n"),
        format!("`DIR/a.txt` line 1, position 2: `4000000000:1`; expected {index}")
    );
    assert_eq!(
        files.indexed(Format::Libffm, "1 0:1:1\n0 0:2:1 1:4000000000:1\n"),
        format!("`DIR/a.txt` line 2, position 3: `1:4000000000:1`; expected {index}")
    );
    assert_eq!(
        files.indexed(Format::Libsvm, "1 -3:1\n"),
        format!("`DIR/a.txt` line 1, position 2: `-3:1`; expected {index}")
    );
    assert_eq!(
        files.indexed(Format::Libsvm, "1 99999999999999999999999:1\n"),
        format!("`DIR/a.txt` line 1, position 2: `99999999999999999999999:1`; expected {index}")
    );
}

#[test]
fn no_nan_and_no_infinity_gets_in() {
    let files = Files::new();
    for value in ["NaN", "inf", "-infinity", "1e400", "abc"] {
        assert_eq!(
            files.csv(format!("label,item,age\n1,a,{value}\n")),
            format!(
                "`DIR/a.csv` line 2, column `age`: `{value}`; expected a finite number (or \
                 declare it in data.missing)"
            )
        );
    }
    for value in ["nan", "inf", "1e39"] {
        assert_eq!(
            files.indexed(Format::Libsvm, &format!("1 3:{value}\n")),
            format!(
                "`DIR/a.txt` line 1, position 2: `3:{value}`; expected a finite number as the value"
            )
        );
        assert_eq!(
            files.indexed(Format::Libffm, &format!("1 0:3:1\n1 0:3:1 1:4:{value}\n")),
            format!(
                "`DIR/a.txt` line 2, position 3: `1:4:{value}`; expected a finite number as the \
                 value"
            )
        );
    }
    assert_eq!(
        files.csv("label,item,age\nNaN,a,1\n"),
        "`DIR/a.csv` line 2, column `label`: `NaN`; expected 0, 1 or -1 as a label (set \
         label.threshold or label.positive for other values)"
    );
}

#[test]
fn an_unknown_label_value_comes_with_advice() {
    let files = Files::new();
    assert_eq!(
        files.csv("label,item,age\n>50K,a,1\n"),
        "`DIR/a.csv` line 2, column `label`: `>50K`; expected 0, 1 or -1 as a label (set \
         label.threshold or label.positive for other values)"
    );
    let mut spec = csv_spec(&files.text_path("a.csv"));
    spec.label.positive = vec!["yes".to_owned()];
    spec.label.negative = vec!["no".to_owned()];
    assert_eq!(
        files.error(&spec),
        "`DIR/a.csv` line 2, column `label`: `>50K`; expected one of `yes`, `no` (label.positive \
         and label.negative)"
    );
}

#[test]
fn weights_are_finite_and_not_negative() {
    let files = Files::new();
    files.write("a.csv", "label,item,age,w\n1,a,1,0\n1,a,1,-0.5\n");
    let mut spec = csv_spec(&files.text_path("a.csv"));
    spec.label.weight = Some("w".to_owned());
    assert_eq!(
        files.error(&spec),
        "`DIR/a.csv` line 3, column `w`: `-0.5`; expected a finite weight of at least 0"
    );
}

#[test]
fn a_blank_line_in_the_middle_is_an_error_and_at_the_end_is_not() {
    let files = Files::new();
    assert_eq!(
        files.csv("label,item,age\n1,a,3\n\n0,b,4\n"),
        "`DIR/a.csv` line 3: blank; expected a record (blank lines may only end a file)"
    );
    assert_eq!(
        files.indexed(Format::Libffm, "1 0:1:1\n\n\n0 0:1:1\n"),
        "`DIR/a.txt` line 2: blank; expected a record (blank lines may only end a file)"
    );
    let file = files.write("b.csv", "label,item,age\r\n1,a,3\r\n0,b,4\r\n\r\n\r\n");
    let prepared = prepare(&csv_spec(&file), 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.train.len(), 2);
}

#[test]
fn a_line_of_10_mb_is_refused_without_holding_it() {
    let files = Files::new();
    let mut content = b"label,item,age\n1,".to_vec();
    content.resize(10 << 20, b'x');
    assert_eq!(
        files.csv(content),
        "`DIR/a.csv` line 2: longer than 1048576 bytes; expected shorter lines (is it really a \
         text file? data.max_line sets the limit)"
    );
}

#[test]
fn invalid_utf8_is_pointed_at() {
    let files = Files::new();
    let content = b"label,item,age\n1,caf\xe9,3\n";
    assert_eq!(
        files.csv(content),
        "`DIR/a.csv` line 2, byte 6: 0xe9 is not valid UTF-8; expected UTF-8 text, or encoding = \
         \"latin-1\""
    );
    let mut spec = csv_spec(&files.text_path("a.csv"));
    spec.data.encoding = crossfield_data::Encoding::Latin1;
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.schema.key("item", 1), Some("café"));
}

#[test]
fn truncated_compressed_files_are_recognised() {
    let files = Files::new();
    let rows: String = (0..5000)
        .map(|row| format!("{},v{},{row}\n", row % 2, row * row))
        .collect();
    let text = format!("label,item,age\n{rows}");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(text.as_bytes()).unwrap();
    let gz = gz.finish().unwrap();
    let zst = zstd::encode_all(text.as_bytes(), 1).unwrap();
    for (name, bytes, format) in [("a.csv.gz", gz, "gzip"), ("a.csv.zst", zst, "zstd")] {
        let whole = files.write(name, &bytes);
        let prepared = prepare(&csv_spec(&whole), 1, LabelKind::Binary).unwrap();
        assert_eq!(prepared.train.len(), 5000);
        let cut = files.write(name, &bytes[..bytes.len() / 2]);
        let message = files.error(&csv_spec(&cut));
        let (place, rest) = message.split_once(": ").unwrap();
        let line = place.strip_prefix(&format!("`DIR/{name}` line ")).unwrap();
        assert!(line.parse::<u64>().unwrap() >= 1, "{message}");
        assert_eq!(
            rest,
            format!(
                "the {format} data ends in the middle: the file is truncated (an interrupted \
                 download or copy?); expected a complete {format} file"
            )
        );
    }
}

#[test]
fn a_field_without_a_column_gets_the_nearest() {
    let files = Files::new();
    files.write("a.csv", "label,item,age\n1,a,3\n");
    let mut spec = csv_spec(&files.text_path("a.csv"));
    spec.field[0].name = "itme".to_owned();
    assert_eq!(
        files.error(&spec),
        "field `itme`: `DIR/a.csv` has no column `itme`; did you mean `item`?"
    );
    spec.field[0].column = Some("zzz".to_owned());
    assert_eq!(
        files.error(&spec),
        "field `itme`: `DIR/a.csv` has no column `zzz`; it has `label`, `item`, `age`"
    );
    spec.field[0].column = Some("item".to_owned());
    spec.label.column = "lable".to_owned();
    assert_eq!(
        files.error(&spec),
        "label.column: `DIR/a.csv` has no column `lable`; did you mean `label`?"
    );
    spec.label.column = "label".to_owned();
    let (column, valid, test) = ("tiem".to_owned(), 0.1, 0.1);
    spec.data.split = Some(SplitConfig::Time {
        column,
        valid,
        test,
    });
    assert_eq!(
        files.error(&spec),
        "data.split: `DIR/a.csv` has no column `tiem`; did you mean `item`?"
    );
}

#[test]
fn joins_need_each_key_once() {
    let files = Files::new();
    files.write("a.csv", "label,item,age\n1,a,3\n0,c,4\n");
    let side = files.write("s.csv", "item,price\na,1\nb,2\n");
    let mut spec = csv_spec(&files.text_path("a.csv"));
    spec.data.join = vec![JoinConfig {
        file: side,
        on: "item".to_owned(),
        ..JoinConfig::default()
    }];
    assert_eq!(
        files.error(&spec),
        "`DIR/a.csv` line 3, column `item`: `c` is not in `DIR/s.csv`; expected one of its 2 keys"
    );
    files.write("s.csv", "item,price\na,1\nb,2\na,3\n");
    assert_eq!(
        files.error(&spec),
        "`DIR/s.csv` line 4, column `item`: `a`; expected each key once"
    );
    files.write("s.csv", "item,age\na,1\n");
    assert_eq!(
        files.error(&spec),
        "`DIR/a.csv joined with DIR/s.csv`: two columns are called `age`; expected each name once"
    );
    spec.data.join[0].on = "itme".to_owned();
    assert_eq!(
        files.error(&spec),
        "data.join.on: `DIR/s.csv` has no column `itme`; did you mean `item`?"
    );
}

#[test]
fn an_unset_variable_is_named() {
    let files = Files::new();
    assert_eq!(
        files.error(&csv_spec("$CROSSFIELD_NOT_SET/a.csv")),
        "`$CROSSFIELD_NOT_SET/a.csv`: the environment variable `CROSSFIELD_NOT_SET` is not set; \
         expected its value"
    );
}

#[test]
fn field_numbers_beyond_those_of_training_are_errors() {
    let files = Files::new();
    let mut spec = DataSpec::default();
    spec.data.format = Format::Libffm;
    spec.data.train = vec![files.write("a.ffm", "1 0:1:1 2:5:1\n")];
    spec.data.valid = vec![files.write("b.ffm", "1 0:1:1 1:2:1\n")];
    let expected =
        "b.ffm` line 1, position 3: `1:2:1`; expected a field of the training files: 0 2";
    assert_eq!(files.error(&spec), format!("`DIR/{expected}"));
    // Nor may a file to be evaluated or predicted later.
    let later = std::mem::take(&mut spec.data.valid);
    let schema = prepare(&spec, 1, LabelKind::Binary).unwrap().schema;
    for labels in [Labels::Required, Labels::Optional] {
        let error = encode_files(&spec, &schema, &later, LabelKind::Binary, labels);
        let message = error.unwrap_err().to_string();
        assert!(message.ends_with(expected), "{message}");
    }
}

#[test]
fn a_row_without_features_is_a_row() {
    let files = Files::new();
    let mut spec = DataSpec::default();
    spec.data.format = Format::Libffm;
    spec.data.train = vec![files.write("a.ffm", "1\n0 0:1:1 2:5:1\n1 2:4:1\n0\n")];
    let train = prepare(&spec, 1, LabelKind::Binary).unwrap().train;
    assert_eq!(train.labels(), [1.0, 0.0, 1.0, 0.0]);
    let examples = train.examples();
    assert!(examples.one_hot_fields.is_empty() && examples.one_hot.is_empty());
    assert_eq!(examples.lists[0].offsets, [0, 0, 1, 1, 1]);
    assert_eq!(examples.lists[1].offsets, [0, 0, 1, 2, 2]);
    assert_eq!(examples.lists[1].indices, [5, 4]);
    let batch = train.batch(&[3]);
    assert!(batch.sparse.iter().all(|lists| lists.range(0).is_empty()));
}

#[test]
fn a_row_of_a_hundred_thousand_features_is_a_row() {
    let files = Files::new();
    let mut spec = DataSpec::default();
    spec.data.format = Format::Libffm;
    let pairs: String = (0..100_000).map(|n| format!(" {}:{n}:1", n % 2)).collect();
    spec.data.train = vec![files.write("a.ffm", format!("1{pairs}\n0 0:3:0.5\n"))];
    let train = prepare(&spec, 1, LabelKind::Binary).unwrap().train;
    assert_eq!(train.column(0).range(0), 0..50_000);
    assert_eq!(train.column(0).weight(50_000), 0.5);
    assert_eq!(train.column(1).indices[49_999], 99_999);
    assert_eq!(train.column(1).rows(), 2);
}

#[test]
fn fields_that_cannot_share_rows_are_refused() {
    let files = Files::new();
    let file = files.write("a.csv", "label,item,age\n1,a,3\n");
    let mut spec = csv_spec(&file);
    spec.field[1].vocabulary = Some("item".to_owned());
    assert_eq!(
        files.error(&spec),
        "field `age`: vocabulary = item: expected a vocabulary of its own: kind numeric cannot \
         share one with `item` of kind categorical"
    );
    spec.field[1].kind = FieldKind::Categorical;
    spec.field[1].min_count = Some(3);
    assert_eq!(
        files.error(&spec),
        "field `age`: min_count = 3: expected 1 as in field `item`, which shares the vocabulary \
         `item`"
    );
    spec.field[1] = spec.field[0].clone();
    assert_eq!(
        files.error(&spec),
        "field: name = item: expected each name once"
    );
}

#[test]
fn lists_hold_no_empty_values_and_no_broken_weights() {
    let files = Files::new();
    let file = files.write("a.csv", "label,tags\n1,a|b\n0,\n1,a||b\n");
    let mut spec = DataSpec::default();
    spec.data.train = vec![file];
    spec.field = vec![field("tags", FieldKind::Bag)];
    assert_eq!(
        files.error(&spec),
        "`DIR/a.csv` line 4, column `tags`: `a||b`; expected no empty value in a list (`|` \
         separates values)"
    );
    files.write("a.csv", "label,tags\n1,a:2|b:x\n");
    spec.field[0].weight_delimiter = Some(":".to_owned());
    assert_eq!(
        files.error(&spec),
        "`DIR/a.csv` line 2, column `tags`: `b:x`; expected value:weight, the weight finite"
    );
}

#[test]
fn columns_of_the_same_name_and_odd_separators_are_refused() {
    let files = Files::new();
    assert_eq!(
        files.csv("label,item,item\n1,a,b\n"),
        "`DIR/a.csv`: two columns are called `item`; expected each name once"
    );
    let mut spec = csv_spec(&files.text_path("a.csv"));
    spec.data.separator = Some("::".to_owned());
    spec.data.header = Some(Header::Present(true));
    assert_eq!(
        files.error(&spec),
        "data.separator = \"::\": expected one ASCII character"
    );
    assert!(Path::new(&files.text_path("a.csv")).exists());
}

/// The error of a cross over fields of each kind.
fn cross_error(files: &Files, cross: &str) -> String {
    let text = "label,item,user,age,income,seen\n1,a,u,3,5,a|b\n0,b,v,4,6,b\n";
    let mut spec = csv_spec(&files.write("a.csv", text));
    let mut income = field("income", FieldKind::Numeric);
    income.transform = Some(crossfield_data::TransformKind::Quantile);
    spec.field.push(field("user", FieldKind::Categorical));
    spec.field.push(income);
    spec.field.push(field("seen", FieldKind::Sequence));
    spec.cross = serde_json::from_str::<Vec<CrossConfig>>(&format!("[{cross}]")).unwrap();
    files.error(&spec)
}

#[test]
fn a_cross_is_of_two_to_four_fields_that_have_values() {
    let files = Files::new();
    for (cross, expected) in [
        (
            r#"{"fields": ["item", "usr"]}"#,
            "cross `item & usr`: fields = usr: expected a field of the run file; did you mean \
             `user`?",
        ),
        (
            r#"{"fields": ["item", "seen"]}"#,
            "cross `item & seen`: fields = seen: expected a field that is not a sequence: make it \
             a bag, for the order is lost",
        ),
        (
            r#"{"fields": ["item", "age"]}"#,
            "cross `item & age`: fields = age: expected values that are told apart: put the field \
             in buckets, with transform = \"quantile\" or \"buckets\"",
        ),
        (
            r#"{"name": "x", "fields": ["item"]}"#,
            "cross `x`: fields = [\"item\"]: expected two to four fields, not 1",
        ),
        (
            r#"{"name": "x", "fields": ["item", "user", "income", "item", "user"]}"#,
            "cross `x`: fields = [\"item\", \"user\", \"income\", \"item\", \"user\"]: expected two to \
             four fields, not 5",
        ),
        (
            r#"{"name": "x", "fields": ["item", "item"]}"#,
            "cross `x`: fields = [\"item\", \"item\"]: expected each field once",
        ),
        (
            r#"{"name": "x", "fields": ["item", "user"]}, {"fields": ["x", "user"]}"#,
            "cross `x & user`: fields = x: expected a field: a cross is of fields, not of other \
             crosses",
        ),
        (
            r#"{"hash_rows": 7}"#,
            "cross 1 = (neither fields nor when): expected fields = [\"a\", \"b\"], or when = \"a=x AND \
             b=y\"",
        ),
        (
            r#"{"name": "item", "fields": ["item", "user"]}"#,
            "cross `item`: name = item: expected a name that no field, vocabulary or other cross \
             has",
        ),
        (
            r#"{"fields": ["item", "user"]}, {"fields": ["item", "user"], "hash_rows": 7}"#,
            "cross `item & user`: name = item & user: expected a name that no field, vocabulary or \
             other cross has",
        ),
        (
            r#"{"fields": ["item", "user"], "hash_rows": 7, "min_count": 2}"#,
            "cross `item & user`: min_count = 2: expected either hash_rows or min_count: hashed \
             rows have no counts",
        ),
        (
            r#"{"fields": ["item", "user"], "hash_rows": 0}"#,
            "cross `item & user`: hash_rows = 0: expected 1 to 4294967294",
        ),
        (
            r#"{"fields": ["item", "user"], "min_count": 0}"#,
            "cross `item & user`: min_count = 0: expected at least 1",
        ),
    ] {
        assert_eq!(cross_error(&files, cross), expected);
    }
}

#[test]
fn a_condition_is_of_values_that_the_training_rows_have() {
    let files = Files::new();
    for (cross, expected) in [
        (
            r#"{"when": "item=c AND user=u"}"#,
            "cross `item=c AND user=u`: when = item=c: expected a value that the training rows \
             have; it has `a`, `b`",
        ),
        (
            r#"{"when": "item=(missing)"}"#,
            "cross `item=(missing)`: when = item=(missing): expected a value that the training rows \
             have; it has `a`, `b`",
        ),
        (
            r#"{"when": "itm=a"}"#,
            "cross `itm=a`: when = itm: expected a field of the run file; did you mean `item`?",
        ),
        (
            r#"{"when": "seen=a"}"#,
            "cross `seen=a`: when = seen: expected a field that is not a sequence: make it a bag, \
             for the order is lost",
        ),
        (
            r#"{"when": "age=3"}"#,
            "cross `age=3`: when = age: expected values that are told apart: put the field in \
             buckets, with transform = \"quantile\" or \"buckets\"",
        ),
        (
            r#"{"when": "income=lots"}"#,
            "cross `income=lots`: when = income=lots: expected a number, for the bucket that it \
             falls into",
        ),
        (
            r#"{"when": "item a"}"#,
            "cross `item a`: when = item a: expected field=value, joined by ` AND `",
        ),
        (
            r#"{"name": "x", "when": "item=a AND item=b AND item=a AND item=b AND user=u"}"#,
            "cross `x`: when = item=a AND item=b AND item=a AND item=b AND user=u: expected one to \
             four conditions, not 5",
        ),
        (
            r#"{"when": "item=a", "fields": ["item", "user"]}"#,
            "cross `item=a`: fields = (set): expected no such key beside `when`, which is one \
             feature",
        ),
        (
            r#"{"when": "item=a", "min_count": 1}"#,
            "cross `item=a`: min_count = (set): expected no such key beside `when`, which is one \
             feature",
        ),
    ] {
        assert_eq!(cross_error(&files, cross), expected);
    }
    // Indices of libffm files have no spelling to be near to.
    let mut spec = DataSpec::default();
    spec.data.format = Format::Libffm;
    spec.data.train = vec![files.write("a.ffm", "1 0:2:1 1:7:1\n")];
    spec.cross = serde_json::from_str(r#"[{"when": "0=3"}]"#).unwrap();
    assert_eq!(
        files.error(&spec),
        "cross `0=3`: when = 0=3: expected an index that the training rows have"
    );
    spec.cross = serde_json::from_str(r#"[{"fields": ["0", "2"]}]"#).unwrap();
    assert_eq!(
        files.error(&spec),
        "cross `0 & 2`: fields = 2: expected a field of the run file; it has `0`, `1`"
    );
}

#[test]
fn a_product_of_weights_beyond_f32_is_refused() {
    let files = Files::new();
    let mut spec = DataSpec::default();
    spec.data.format = Format::Libffm;
    spec.data.train = vec![files.write("a.ffm", "1 0:2:1 1:7:1\n0 0:2:1e30 1:7:1e30\n")];
    spec.cross = serde_json::from_str(r#"[{"fields": ["0", "1"]}]"#).unwrap();
    let message = files.error(&spec);
    assert!(
        message.starts_with("field `0 & 1`, row 1 of the train part: `1000000"),
        "{message}"
    );
}

#[test]
fn a_numeric_column_without_a_number_is_refused_and_a_constant_one_is_not() {
    let files = Files::new();
    assert_eq!(
        files.csv("label,item,age\n1,a,\n0,b,\n"),
        "field `age`: no value in the training part; expected at least one number"
    );
    assert_eq!(
        files.csv("label,item,age\n1,a,3\n0,b,old\n"),
        "`DIR/a.csv` line 3, column `age`: `old`; expected a finite number (or declare it in \
         data.missing)"
    );
    let mut spec = csv_spec(&files.write("b.csv", "label,item,age\n1,,7\n0,,7\n"));
    let mut buckets = field("years", FieldKind::Numeric);
    buckets.column = Some("age".to_owned());
    buckets.transform = Some(crossfield_data::TransformKind::Quantile);
    spec.field.push(buckets);
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    let [item, age, years] = [0, 1, 2].map(|field| prepared.train.column(field));
    // A column of nothing but missing values is the value `<missing>`, a constant number is 0 or
    // falls into the one bucket that there is.
    assert_eq!(item.indices, [1, 1]);
    assert_eq!(age.weights, Some(vec![0.0, 0.0]));
    assert_eq!(years.indices, [0, 0]);
    assert_eq!(prepared.schema.name(2, 0, 1.0), "years=(any)");
}
