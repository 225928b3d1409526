//! Each format, split and kind of field, from file to batch.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;

use common::Files;
use crossfield_core::{FieldKind, Jagged};
use crossfield_data::{
    Buckets, DataSpec, Error, FieldConfig, Format, Generated, Header, JoinConfig, LabelKind,
    Labels, Loader, Order, Pooling, RowsPart, SplitConfig, TransformKind, Unseen, encode_files,
    prepare, prepare_generated,
};

fn field(name: &str, kind: FieldKind) -> FieldConfig {
    FieldConfig {
        name: name.to_owned(),
        kind,
        ..FieldConfig::default()
    }
}

fn spec(train: String, fields: Vec<FieldConfig>) -> DataSpec {
    let mut spec = DataSpec {
        field: fields,
        ..DataSpec::default()
    };
    spec.data.train = vec![train];
    spec
}

#[test]
fn keys_are_ordered_by_count_and_unknown_values_go_to_row_0() {
    let files = Files::new();
    let train = files.write("t.csv", "label,item\n1,b\n0,a\n1,a\n0,c\n1,?\n0,d\n0,d\n");
    let mut spec = spec(train, vec![field("item", FieldKind::Categorical)]);
    spec.data.missing = vec!["?".to_owned()];
    spec.data.valid = vec![files.write("v.csv", "label,item\n1,a\n0,new\n1,?\n1,c\n")];
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    // a and d twice, a first; then b, c and the missing value by first appearance.
    let keys: Vec<_> = (0..7).map(|row| prepared.schema.key("item", row)).collect();
    let expected = [
        None,
        Some("a"),
        Some("d"),
        Some("b"),
        Some("c"),
        Some("<missing>"),
        None,
    ];
    assert_eq!(keys, expected);
    assert_eq!(prepared.schema.count("item", 1), Some(2));
    assert_eq!(prepared.schema.row("item", "b"), Some(3));
    let item = &prepared.schema.schema().fields[0];
    assert_eq!((item.rows, item.oov_row), (6, Some(0)));
    assert_eq!(
        prepared.train.column(0),
        Jagged::one_hot(vec![3, 1, 1, 4, 5, 2, 2])
    );
    assert_eq!(prepared.valid.unwrap().column(0).indices, [1, 0, 5, 4]);
    let report = &prepared.report.fields[0];
    assert_eq!((report.distinct, report.kept), (Some(5), Some(5)));
    assert_eq!(report.out_of_vocabulary, [0, 1]);
    assert_eq!(report.missing, [1, 1]);

    spec.field[0].min_count = Some(2);
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.train.column(0).indices, [0, 1, 1, 0, 0, 2, 2]);
    let report = &prepared.report.fields[0];
    assert_eq!((report.distinct, report.kept), (Some(5), Some(2)));
    assert_eq!(report.out_of_vocabulary, [3, 3]);
    assert_eq!(prepared.report.parts[0].label_mean, Some(3.0 / 7.0));
}

#[test]
fn validation_rows_of_the_same_file_teach_nothing() {
    let files = Files::new();
    let train = files.write("t.csv", "label,item,t\n1,late,9\n0,a,1\n1,b,2\n0,b,3\n");
    let mut spec = spec(train, vec![field("item", FieldKind::Categorical)]);
    let column = "t".to_owned();
    spec.data.split = Some(SplitConfig::Time {
        column,
        valid: 0.25,
        test: 0.0,
    });
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.schema.row("item", "late"), None);
    assert_eq!(prepared.valid.unwrap().column(0).indices, [0]);
    assert_eq!(prepared.train.column(0).indices, [2, 1, 1]);
    assert!(prepared.test.is_none());
}

#[test]
fn quotes_headers_and_separators_vary() {
    let files = Files::new();
    let quoted = files.write("q.csv", "\u{feff}label,item\n1,\"a, \"\"b\"\"\"\n0,c\n");
    let fields = vec![field("item", FieldKind::Categorical)];
    let prepared = prepare(&spec(quoted, fields.clone()), 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.schema.key("item", 1), Some("a, \"b\""));

    let plain = files.write("p.tsv", "1\tx\n0\ty\n");
    let mut named = spec(plain.clone(), fields);
    named.data.separator = Some("\t".to_owned());
    named.data.header = Some(Header::Names(vec!["label".to_owned(), "item".to_owned()]));
    let prepared = prepare(&named, 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.train.column(0).indices, [1, 2]);

    named.data.header = Some(Header::Present(false));
    named.label.column = "0".to_owned();
    named.field = vec![field("1", FieldKind::Categorical)];
    let prepared = prepare(&named, 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.schema.key("1", 2), Some("y"));
}

#[test]
fn bags_and_sequences_share_a_vocabulary() {
    let files = Files::new();
    let train = files.write(
        "t.csv",
        "label,item,liked,tags\n1,a,b|a|c,x:1|y:3\n0,b,,x:2\n1,c,c|c,\n",
    );
    let mut liked = field("liked", FieldKind::Sequence);
    liked.vocabulary = Some("item".to_owned());
    liked.max_len = Some(2);
    liked.repeats = Some(true);
    let mut tags = field("tags", FieldKind::Bag);
    tags.weight_delimiter = Some(":".to_owned());
    tags.pooling = Some(Pooling::Mean);
    let spec = spec(
        train,
        vec![field("item", FieldKind::Categorical), liked, tags],
    );
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    // b stands once in item: what max_len cuts off is not counted. a: 2, c: 4.
    assert_eq!(prepared.schema.count("item", 1), Some(4));
    let batch = prepared.train.batch(&[0, 1, 2]);
    assert_eq!(batch.sparse[0].indices, [2, 3, 1]);
    assert_eq!(
        batch.sparse[1],
        Jagged {
            indices: vec![2, 1, 1, 1],
            offsets: Some(vec![0, 2, 2, 4]),
            weights: None
        }
    );
    assert_eq!(
        batch.sparse[2],
        Jagged {
            indices: vec![1, 2, 1],
            offsets: Some(vec![0, 2, 3, 3]),
            weights: Some(vec![0.25, 0.75, 1.0])
        }
    );
    let fields = &prepared.schema.schema().fields;
    assert_eq!(
        (fields[1].kind, fields[1].rows),
        (FieldKind::Sequence, fields[0].rows)
    );
    assert_eq!(prepared.report.fields[1].missing, [1]);
}

#[test]
fn hashed_values_have_rows_without_a_vocabulary() {
    let files = Files::new();
    let train = files.write("t.csv", "label,id\n1,a\n0,b\n1,a\n");
    let mut id = field("id", FieldKind::Hashed);
    id.hash_rows = Some(1);
    let mut spec = spec(train, vec![id]);
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.train.column(0).indices, [0, 0, 0]);
    let report = &prepared.report.fields[0];
    assert_eq!(
        (report.distinct, report.kept, report.collisions),
        (Some(2), Some(1), Some(1.0))
    );
    spec.field[0].hash_rows = Some(1000);
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    let field = &prepared.schema.schema().fields[0];
    assert_eq!((field.rows, field.oov_row), (1000, None));
    let indices = &prepared.train.column(0).indices;
    assert!(indices[0] == indices[2] && indices[0] != indices[1] && indices[1] < 1000);
}

#[test]
fn numbers_are_dense_columns_too() {
    let files = Files::new();
    let train = files.write("t.csv", "label,x,y\n1,1,\n0,3,5\n");
    let fields = vec![
        field("x", FieldKind::Numeric),
        field("y", FieldKind::Numeric),
    ];
    let mut spec = spec(train, fields);
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.schema.schema().dense, ["x", "y", "y.missing"]);
    let batch = prepared.train.batch(&[1, 0]);
    assert_eq!(batch.dense, Some(vec![1.0, 0.0, 0.0, -1.0, 0.0, 1.0]));
    assert_eq!(batch.sparse[1].indices, [0, 1]);
    assert_eq!(prepared.schema.schema().fields[0].rows, 2);
    spec.field[0].transform = Some(TransformKind::Quantile);
    spec.field.truncate(1);
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    let fields = &prepared.schema.schema().fields;
    // 32 edges above the smallest of the values 1 and 3, 33 buckets, one row for missing.
    assert_eq!((fields[0].rows, fields[0].oov_row), (34, None));
    assert_eq!(prepared.train.column(0), Jagged::one_hot(vec![0, 32]));
    assert!(prepared.train.batch(&[0]).dense.is_none());
}

#[test]
fn ml_100k_is_ratings_with_two_joins() {
    let files = Files::new();
    let train = files.write("u.data", "1\t10\t5\t100\n2\t20\t3\t90\n1\t20\t4\t120\n");
    let users = files.write("u.user", "1|24|M|artist|85711\n2|53|F|other|94043\n");
    let items = files.write(
        "u.item",
        b"10|Caf\xe9 (1995)|0|1|1\n20|Heat|1|0|0\n30|unseen|0|0|0\n",
    );
    let join = |file: String, on: &str, header: &[&str], encoding| JoinConfig {
        file,
        on: on.to_owned(),
        separator: "|".to_owned(),
        header: Header::Names(header.iter().map(|&name| name.to_owned()).collect()),
        encoding,
    };
    let mut genres = field("genres", FieldKind::Bag);
    genres.columns = Some(["unknown", "Action", "Crime"].map(str::to_owned).to_vec());
    genres.pooling = Some(Pooling::Mean);
    let mut age = field("age", FieldKind::Numeric);
    age.transform = Some(TransformKind::Buckets);
    age.buckets = Some(crossfield_data::Buckets::Edges(vec![20.0, 30.0]));
    let fields = vec![
        field("user", FieldKind::Categorical),
        field("title", FieldKind::Categorical),
        age,
        genres,
    ];
    let mut spec = spec(train, fields);
    spec.data.format = Format::Ratings;
    spec.data.join = vec![
        join(
            users,
            "user",
            &["user", "age", "gender", "occupation", "zip"],
            crossfield_data::Encoding::Utf8,
        ),
        join(
            items,
            "item",
            &["item", "title", "unknown", "Action", "Crime"],
            crossfield_data::Encoding::Latin1,
        ),
    ];
    spec.label.column = "rating".to_owned();
    spec.label.threshold = Some(4.0);
    spec.label.group = Some("user".to_owned());
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.train.labels(), [1.0, 0.0, 1.0]);
    assert_eq!(prepared.train.groups(), Some(&[0, 1, 0][..]));
    assert_eq!(prepared.schema.row("title", "Café (1995)"), Some(2));
    assert_eq!(prepared.train.column(2).indices, [1, 2, 1]);
    assert_eq!(prepared.schema.key("genres", 1), Some("unknown"));
    assert_eq!(
        prepared.train.column(3),
        Jagged {
            indices: vec![2, 3, 1, 1],
            offsets: Some(vec![0, 2, 3, 4]),
            weights: Some(vec![0.5, 0.5, 1.0, 1.0])
        }
    );

    let test = files.write("rows", "0\n");
    let valid = Some(RowsPart::File(files.write("valid-rows", "2\n")));
    spec.data.split = Some(SplitConfig::Rows {
        test: Some(test),
        valid,
    });
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.train.labels(), [0.0]);
    assert_eq!(prepared.test.unwrap().groups(), Some(&[0][..]));
    spec.label.threshold = None;
    let prepared = prepare(&spec, 1, LabelKind::Number).unwrap();
    assert_eq!(prepared.valid.unwrap().labels(), [4.0]);
}

#[test]
fn libsvm_indices_are_rows_and_unseen_ones_are_out_of_vocabulary() {
    let files = Files::new();
    let train = files.write("t.svm", "1 0:1 3:0.5 # a comment\n-1 5:2 5:2\n+1\n");
    let mut spec = spec(train, Vec::new());
    spec.data.format = Format::Libsvm;
    spec.data.valid = vec![files.write("v.svm", "0 3:1 4:1 9:2\n")];
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    let features = &prepared.schema.schema().fields[0];
    assert_eq!(
        (features.name.as_str(), features.vocabulary.as_str()),
        ("features", "index")
    );
    assert_eq!((features.rows, features.oov_row), (7, Some(6)));
    assert_eq!(
        prepared.train.column(0),
        Jagged {
            indices: vec![0, 3, 5, 5],
            offsets: Some(vec![0, 2, 4, 4]),
            weights: Some(vec![1.0, 0.5, 2.0, 2.0])
        }
    );
    assert_eq!(prepared.train.labels(), [1.0, 0.0, 1.0]);
    let valid = prepared.valid.unwrap();
    assert_eq!(valid.column(0).indices, [3, 6, 6]);
    assert_eq!(valid.column(0).weights, Some(vec![1.0, 1.0, 2.0]));
    assert_eq!(prepared.report.fields[0].out_of_vocabulary, [0, 2]);
    // A file to predict may lack the labels.
    let bare = files.write("p.svm", "3:1\n0:1 1:1\n");
    let (kind, optional) = (LabelKind::Binary, Labels::Optional);
    let data = encode_files(&spec, &prepared.schema, &[bare], kind, optional).unwrap();
    assert!(data.labels().is_empty());
    assert_eq!(data.batch(&[1]).sparse[0].indices, [0, 6]);
    let mixed = files.write("m.svm", "1 3:1\n0:1 1:1\n");
    let error = encode_files(&spec, &prepared.schema, &[mixed], kind, optional).unwrap_err();
    assert!(error.to_string().ends_with(
        "m.svm` line 2: it has no label; expected the same in all rows that are read together"
    ));
}

#[test]
fn libffm_fields_share_one_vocabulary_and_one_hot_fields_stay_so() {
    let files = Files::new();
    let train = files.write("t.ffm", "1 0:2:1 1:7:1\n0 0:3:1 1:8:0.5\n1 0:2:1 2:9:1\n");
    let mut spec = spec(train, Vec::new());
    spec.data.format = Format::Libffm;
    spec.data.test = vec![files.write("v.ffm", "1 0:4:1 0:2:1\n")];
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    let fields = &prepared.schema.schema().fields;
    let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["0", "1", "2"]);
    assert!(
        fields
            .iter()
            .all(|field| field.vocabulary == "index" && field.rows == 11)
    );
    let batch = prepared.train.batch(&[2, 0]);
    assert_eq!(batch.sparse[0], Jagged::one_hot(vec![2, 2]));
    assert_eq!(batch.sparse[1].offsets, Some(vec![0, 0, 1]));
    // Field 2 appears in the third row: the rows before it are empty.
    assert_eq!(prepared.train.column(2).offsets, Some(vec![0, 0, 0, 1]));
    let test = prepared.test.unwrap();
    assert_eq!(test.column(0).indices, [10, 2]);
    assert!(test.column(2).range(0).is_empty());
    // Declared fields: those alone are kept.
    spec.field = vec![FieldConfig {
        column: Some("1".into()),
        ..field("ad", FieldKind::Bag)
    }];
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.schema.schema().fields[0].rows, 10);
    assert_eq!(prepared.train.column(0).indices, [7, 8]);
    spec.field[0].column = Some("ad".to_owned());
    let error = prepare(&spec, 1, LabelKind::Binary).unwrap_err();
    assert!(matches!(error, Error::NoColumn { .. }), "{error}");
}

#[test]
fn indices_that_training_lacks_share_a_row_or_have_their_own() {
    let files = Files::new();
    let train = files.write("t.ffm", "1 0:2:1 1:7:1\n0 0:2:1 1:4:1\n");
    let new = files.write("v.ffm", "1 0:3:1 1:7:1\n0 0:8:1 1:0:1\n");
    let mut spec = spec(train, Vec::new());
    spec.data.format = Format::Libffm;
    spec.data.valid = vec![new.clone()];
    for (unseen, valid, out) in [
        (Unseen::Shared, [[8, 8], [7, 8]], [2, 1]),
        (Unseen::Own, [[3, 8], [7, 0]], [1, 0]),
    ] {
        spec.data.unseen = unseen;
        let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
        assert_eq!(prepared.schema.schema().fields[0].rows, 9);
        // New rows are encoded by what was saved, whatever the run file says by then.
        let directory = files.0.path().join(format!("{unseen:?}"));
        prepared.schema.save(&directory).unwrap();
        let saved = crossfield_data::FittedSchema::load(&directory).unwrap();
        assert_eq!(saved.fingerprint(), prepared.schema.fingerprint());
        let (kind, labels) = (LabelKind::Binary, Labels::Required);
        spec.data.unseen = Unseen::Shared;
        let encoded =
            encode_files(&spec, &saved, std::slice::from_ref(&new), kind, labels).unwrap();
        for data in [&encoded, &prepared.valid.unwrap()] {
            assert_eq!([data.column(0).indices, data.column(1).indices], valid);
        }
        let counted = prepared.report.fields.iter();
        let counted: Vec<u64> = counted.map(|field| field.out_of_vocabulary[1]).collect();
        assert_eq!(counted, out);
    }
}

#[test]
fn rows_of_indices_are_for_files_of_indices() {
    let files = Files::new();
    let train = files.write("t.csv", "label,a\n1,x\n");
    let mut spec = spec(train, vec![field("a", FieldKind::Categorical)]);
    spec.data.unseen = Unseen::Own;
    let error = prepare(&spec, 1, LabelKind::Binary).unwrap_err();
    assert_eq!(
        error.to_string(),
        "data.unseen = own: expected \"shared\": only in libsvm and libffm files is an index a row"
    );
}

#[test]
fn an_encoded_feature_is_named_by_what_the_data_said() {
    let files = Files::new();
    let train = files.write(
        "t.csv",
        "label,item,tags,age,log,cut,any,cookie\n\
         1,a,x:0.5|y:1,38,1000,25,1,c\n0,b,,41,-3,,1,d\n1,a,y:1,,7,40,1,e\n",
    );
    let number = |name: &str, transform| FieldConfig {
        transform: Some(transform),
        ..field(name, FieldKind::Numeric)
    };
    let mut tags = field("tags", FieldKind::Bag);
    tags.weight_delimiter = Some(":".into());
    let mut cut = number("cut", TransformKind::Buckets);
    cut.buckets = Some(Buckets::Edges(vec![20.0, 30.5]));
    let fields = vec![
        field("item", FieldKind::Categorical),
        tags,
        number("age", TransformKind::Standardise),
        number("log", TransformKind::Log),
        cut,
        number("any", TransformKind::Quantile),
        FieldConfig {
            hash_rows: Some(1),
            ..field("cookie", FieldKind::Hashed)
        },
    ];
    let prepared = prepare(&spec(train, fields), 1, LabelKind::Binary).unwrap();
    let names = |row: usize| -> Vec<String> {
        let fields = 0..prepared.schema.schema().fields.len();
        let of_field = |field| {
            let column = prepared.train.column(field);
            let named =
                |at: usize| (prepared.schema).name(field, column.indices[at], column.weight(at));
            column.range(row).map(named).collect::<Vec<_>>()
        };
        fields.flat_map(of_field).collect()
    };
    assert_eq!(
        names(0),
        [
            "item=a",
            "tags=x × 0.5",
            "tags=y",
            "age=38",
            "log=1000",
            "cut=[20, 30.5)",
            "any=(any)",
            "cookie=(hash 0)"
        ]
    );
    assert_eq!(names(1)[1..4], ["age=41", "log=-3", "cut=(missing)"]);
    assert_eq!(names(2)[2..5], ["age=(missing)", "log=7", "cut≥30.5"]);
    assert_eq!(prepared.schema.name(0, 0, 1.0), "item=(unseen)");
    assert_eq!(prepared.schema.name(4, 0, 1.0), "cut<20");
}

#[test]
fn a_saved_schema_encodes_as_before() {
    let files = Files::new();
    let train = files.write(
        "t.csv",
        "label,item,x,z,q,h\n1,\"a,b\",0.1,1,7,a\n0,,0.7,2,8,b\n1,c,,3,9,c\n0,c,1e-9,4,0,d\n",
    );
    let mut z = field("z", FieldKind::Numeric);
    z.transform = Some(TransformKind::Log);
    let mut q = field("q", FieldKind::Numeric);
    q.transform = Some(TransformKind::Quantile);
    let fields = vec![
        field("item", FieldKind::Categorical),
        field("x", FieldKind::Numeric),
        z,
        q,
        field("h", FieldKind::Hashed),
    ];
    let mut spec = spec(train.clone(), fields);
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    let directory = files.0.path().join("run");
    prepared.schema.save(&directory).unwrap();
    let loaded = crossfield_data::FittedSchema::load(&directory).unwrap();
    assert_eq!(loaded.fingerprint(), prepared.schema.fingerprint());
    assert_eq!(loaded.schema(), prepared.schema.schema());
    assert!(loaded.field_configs().eq(prepared.schema.field_configs()));
    let (kind, required) = (LabelKind::Binary, Labels::Required);
    let again = encode_files(&spec, &loaded, &[train], kind, required).unwrap();
    assert_eq!(again, prepared.train);
    let files_of = |folder: &str| {
        let entries = std::fs::read_dir(directory.join(folder)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(files_of("."), ["schema.json", "vocabularies"]);
    assert_eq!(files_of("vocabularies"), ["item.csv"]);

    spec.field[0].min_count = Some(2);
    let other = prepare(&spec, 1, LabelKind::Binary).unwrap();
    assert_ne!(other.schema.fingerprint(), loaded.fingerprint());
    let text = std::fs::read_to_string(directory.join("vocabularies/item.csv")).unwrap();
    assert_eq!(text, "key,count\nc,2\n\"a,b\",1\n<missing>,1\n");
    let swapped = text.replace("\"a,b\"", "\"a,x\"");
    files.write("run/vocabularies/item.csv", swapped);
    let edited = crossfield_data::FittedSchema::load(&directory).unwrap();
    assert_ne!(edited.fingerprint(), loaded.fingerprint());
    files.write("run/vocabularies/item.csv", "key,count\nc,2\n");
    let error = crossfield_data::FittedSchema::load(&directory)
        .unwrap_err()
        .to_string();
    assert!(error.ends_with(
        "schema.json`: vocabulary `item` has 2 rows, not 4; expected a schema as it was saved"
    ));
}

#[test]
fn identity_vocabularies_come_back_too() {
    let files = Files::new();
    let train = files.write("t.svm", "1 1:1 3:1\n0 200:1\n");
    let mut spec = spec(train, Vec::new());
    spec.data.format = Format::Libsvm;
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    prepared.schema.save(files.0.path()).unwrap();
    let loaded = crossfield_data::FittedSchema::load(files.0.path()).unwrap();
    assert_eq!(loaded.fingerprint(), prepared.schema.fingerprint());
    let test = files.write("v.svm", "1 1:1 2:1 200:1 500:1\n");
    let (kind, required) = (LabelKind::Binary, Labels::Required);
    let data = encode_files(&spec, &loaded, &[test], kind, required).unwrap();
    assert_eq!(data.column(0).indices, [1, 201, 200, 201]);
}

#[test]
fn labels_may_be_absent_where_nothing_is_learned() {
    let files = Files::new();
    let train = files.write("t.csv", "label,item,w\n1,a,1\n0,b,3\n");
    let mut spec = spec(train, vec![field("item", FieldKind::Categorical)]);
    spec.label.weight = Some("w".to_owned());
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.train.weights(), Some(&[1.0, 3.0][..]));
    assert_eq!(prepared.train.label_mean(), Some(0.25));
    let bare = [files.write("p.csv", "item\nb\nnew\n")];
    let kind = LabelKind::Binary;
    let data = encode_files(&spec, &prepared.schema, &bare, kind, Labels::Optional).unwrap();
    let batch = data.batch(&[1, 0]);
    assert_eq!(batch.sparse[0].indices, [0, 2]);
    assert!(batch.targets.labels.is_empty() && batch.targets.weights.is_none());
    let error = encode_files(&spec, &prepared.schema, &bare, kind, Labels::Required).unwrap_err();
    assert!(error.to_string().starts_with("label.column: `"), "{error}");
}

#[test]
fn leave_last_reads_user_and_time_from_the_table() {
    let files = Files::new();
    let train = files.write(
        "t.csv",
        "label,user,item,t\n0,u,a,3\n1,u,b,1\n1,u,c,2\n0,v,a,9\n1,u,d,3\n",
    );
    let mut spec = spec(train, vec![field("item", FieldKind::Categorical)]);
    spec.data.split = Some(SplitConfig::LeaveLast {
        user: "user".to_owned(),
        time: "t".to_owned(),
        valid: true,
        test: true,
    });
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.train.labels(), [1.0, 1.0, 0.0]);
    assert_eq!(prepared.valid.unwrap().labels(), [0.0]);
    assert_eq!(prepared.test.unwrap().labels(), [1.0]);
}

#[test]
fn the_last_liked_row_is_held_out_where_only_likes_count() {
    let files = Files::new();
    let train = files.write(
        "t.csv",
        "stars,user,item,t\n5,u,a,1\n4,u,b,2\n1,u,c,3\n5,v,a,1\n2,v,b,2\n",
    );
    let mut spec = spec(train, vec![field("item", FieldKind::Categorical)]);
    spec.label.column = "stars".to_owned();
    spec.label.threshold = Some(4.0);
    spec.label.only_positive = true;
    spec.data.split = Some(SplitConfig::LeaveLast {
        user: "user".to_owned(),
        time: "t".to_owned(),
        valid: false,
        test: true,
    });
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    let items = |data: &crossfield_data::Dataset| {
        let rows = data.column(0).indices;
        let key = |&row: &u32| prepared.schema.key("item", row).unwrap_or("new").to_owned();
        rows.iter().map(key).collect::<Vec<_>>()
    };
    // v has one like, which stays.
    assert_eq!(items(&prepared.train), ["a", "a"]);
    assert_eq!(items(prepared.test.as_ref().unwrap()), ["new"]);
    let report = prepared.report.to_string();
    assert!(report.contains("2 rows left out: not positive"), "{report}");
}

#[test]
fn keys_of_another_run_have_rows_too() {
    let files = Files::new();
    let known = files.write("known.csv", "label,item\n1,a\n1,b\n1,b\n");
    let prepared = prepare(
        &spec(known, vec![field("item", FieldKind::Categorical)]),
        1,
        LabelKind::Binary,
    );
    let run = files.0.path().join("run");
    std::fs::create_dir(&run).unwrap();
    prepared.unwrap().schema.save(&run).unwrap();

    let train = files.write("t.csv", "label,item\n1,c\n0,b\n");
    let mut item = field("item", FieldKind::Categorical);
    item.keys_from = Some(run.display().to_string());
    let prepared = prepare(
        &spec(train.clone(), vec![item.clone()]),
        1,
        LabelKind::Binary,
    )
    .unwrap();
    // Those of the training rows come first; the others were not counted.
    let keys = [1, 2, 3].map(|row| prepared.schema.key("item", row).unwrap_or("none"));
    assert_eq!(keys, ["c", "b", "a"]);
    let counts = [1, 2, 3].map(|row| prepared.schema.count("item", row));
    assert_eq!(counts, [Some(1), Some(1), Some(0)]);
    assert_eq!(prepared.train.column(0).indices, [1, 2]);

    item.vocabulary = Some("ad".to_owned());
    let error = prepare(&spec(train, vec![item]), 1, LabelKind::Binary).unwrap_err();
    let expected = "expected a run with keys of the vocabulary `ad`; it has item";
    assert!(error.to_string().contains(expected), "{error}");
}

struct Coins;

impl Generated for Coins {
    fn name(&self) -> &str {
        "coins"
    }

    fn header(&self) -> &[&str] {
        &["label", "side"]
    }

    fn rows(&self) -> usize {
        20
    }

    fn record(&self, row: usize, cells: &mut Vec<String>) {
        *cells = vec![(row % 2).to_string(), format!("s{row}")];
    }

    fn probability(&self, row: usize) -> f32 {
        (row % 2) as f32 * 0.5 + 0.25
    }
}

#[test]
fn generated_rows_keep_their_probabilities_through_split_and_shuffle() {
    let mut spec = DataSpec {
        field: vec![field("side", FieldKind::Categorical)],
        ..Default::default()
    };
    spec.data.split = Some(SplitConfig::Random {
        valid: 0.2,
        test: 0.2,
    });
    let prepared = prepare_generated(&spec, 3, LabelKind::Binary, &Coins).unwrap();
    let valid = prepared.valid.unwrap();
    assert_eq!((prepared.train.len(), valid.len()), (12, 4));
    for part in [&prepared.train, &valid] {
        let probabilities = part.probabilities().unwrap();
        for (label, probability) in part.labels().iter().zip(probabilities) {
            assert_eq!(label * 0.5 + 0.25, *probability);
        }
    }
    let report = prepared.report.to_string();
    assert!(
        report.contains("coins") && report.contains("oov.test"),
        "{report}"
    );
    let batches: Vec<_> = Loader::new(
        Arc::new(prepared.train),
        Order::Shuffled {
            seed: 1,
            epoch: 0,
            block: 0,
        },
        5,
        0,
    )
    .unwrap()
    .collect();
    assert_eq!(
        batches
            .iter()
            .map(|batch| batch.batch_size)
            .collect::<Vec<_>>(),
        [5, 5, 2]
    );
}

#[test]
fn the_ad_log_needs_no_fields_and_reads_back_from_its_csv() {
    let mut spec = DataSpec::default();
    spec.data.format = Format::Synth;
    spec.data.synth = Some(crossfield_data::synth::SynthConfig {
        rows: 3000,
        users: 200,
        ads: 100,
        campaigns: 20,
        sites: 10,
        ..Default::default()
    });
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    let test = prepared.test.unwrap();
    assert_eq!((prepared.train.len(), test.len()), (2400, 300));
    let mean: f32 = test.probabilities().unwrap().iter().sum::<f32>() / 300.0;
    assert!((mean - test.label_mean().unwrap() as f32).abs() < 0.1);
    let schema = prepared.schema.schema();
    let history = schema.field("history").unwrap();
    assert_eq!(schema.fields[history].kind, FieldKind::Sequence);
    assert_eq!(schema.fields[history].vocabulary, "ad");

    let log = crossfield_data::synth::generate(spec.data.synth.as_ref().unwrap()).unwrap();
    let mut csv = Vec::new();
    log.write_csv(&mut csv).unwrap();
    let files = Files::new();
    let file = [files.write("log.csv", csv)];
    let (kind, required) = (LabelKind::Binary, Labels::Required);
    let data = encode_files(&spec, &prepared.schema, &file, kind, required).unwrap();
    let rows: Vec<u32> = (0..3000).collect();
    let labels: Vec<f32> = (0..3000)
        .map(|row| f32::from(u8::from(log.click(row))))
        .collect();
    assert_eq!(data.batch(&rows).targets.labels, labels);
    spec.data.synth.as_mut().unwrap().users = 0;
    let error = prepare(&spec, 1, kind).unwrap_err().to_string();
    assert!(
        error.starts_with("[data.synth] ad log: users = 0, expected "),
        "{error}"
    );
}

/// Reads a data set of `$CROSSFIELD_DATA`, or says that the test was skipped.
fn real(name: &str) -> Option<String> {
    let path = std::env::var("CROSSFIELD_DATA")
        .ok()
        .map(|root| format!("{root}/{name}"));
    let found = path.filter(|path| std::path::Path::new(path).exists());
    if found.is_none() {
        println!("skipped: $CROSSFIELD_DATA/{name} is not there");
    }
    found
}

#[test]
fn adult_is_read_as_its_authors_count_it() {
    let (Some(train), Some(test)) = (real("adult/adult.data.gz"), real("adult/adult.test.gz"))
    else {
        return;
    };
    let header = "age workclass fnlwgt education education-num marital-status occupation \
                  relationship race sex capital-gain capital-loss hours-per-week native-country \
                  label";
    let fields = header
        .split_whitespace()
        .filter(|&name| name != "label")
        .map(|name| {
            let numeric = [
                "age",
                "fnlwgt",
                "education-num",
                "capital-gain",
                "capital-loss",
                "hours-per-week",
            ];
            let kind = if numeric.contains(&name) {
                FieldKind::Numeric
            } else {
                FieldKind::Categorical
            };
            let transform = (kind == FieldKind::Numeric).then_some(TransformKind::Quantile);
            FieldConfig {
                transform,
                ..field(name, kind)
            }
        });
    let mut spec = spec(train, fields.collect());
    spec.data.test = vec![test];
    spec.data.missing = vec!["?".to_owned()];
    spec.data.header = Some(Header::Names(
        header.split_whitespace().map(str::to_owned).collect(),
    ));
    spec.label.positive = vec![">50K".to_owned(), ">50K.".to_owned()];
    spec.label.negative = vec!["<=50K".to_owned(), "<=50K.".to_owned()];
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    println!("{}", prepared.report);
    let positives = |labels: &[f32]| labels.iter().filter(|&&label| label == 1.0).count();
    let test = prepared.test.unwrap();
    assert_eq!((prepared.train.len(), test.len()), (32_561, 16_281));
    assert_eq!(positives(prepared.train.labels()), 7_841);
    assert_eq!(positives(test.labels()), 3_846);
}

/// Forty rows, every eighth of label 1; the weight says which row it was.
fn few_clicks() -> Vec<String> {
    let row = |row: u32| {
        let (label, item) = (u32::from(row.is_multiple_of(8)), row * 7 % 5);
        format!("{label},i{item},{}", 1.0 + f64::from(row) / 64.0)
    };
    (0..40).map(row).collect()
}

fn with_header(rows: &[String]) -> String {
    format!("label,item,w\n{}\n", rows.join("\n"))
}

#[test]
fn negatives_that_are_left_out_here_or_before_are_the_same_training_part() {
    let files = Files::new();
    let rows = few_clicks();
    let mut whole = spec(
        files.write("t.csv", with_header(&rows)),
        vec![field("item", FieldKind::Categorical)],
    );
    whole.label.weight = Some("w".to_owned());
    whole.data.keep_negatives = 0.2;
    let kept = prepare(&whole, 1, LabelKind::Binary).unwrap();
    // Every click, and 7 of 35 others.
    assert_eq!(kept.train.labels().iter().sum::<f32>(), 5.0);
    assert_eq!(kept.train.len(), 5 + 7);
    assert_eq!(kept.train.negative_rate(), 0.2);
    let negatives = kept.report.negatives.unwrap();
    assert_eq!((negatives.kept, negatives.of), (7, 35));
    let line = "7 of 35 negatives of the training part kept (data.keep_negatives)\n";
    assert!(kept.report.to_string().contains(line));
    // The rows count as all 40 did, here where clicks and others weigh alike but for their number.
    let mut plain = whole.clone();
    plain.label.weight = None;
    let plain = prepare(&plain, 1, LabelKind::Binary).unwrap();
    assert_eq!(plain.train.traffic_mean(), Some(5.0 / 40.0));
    assert_eq!(plain.train.label_mean(), Some(5.0 / 12.0));

    let weights = kept.train.weights().unwrap().iter();
    let few: Vec<String> = weights
        .map(|weight| rows[((weight - 1.0) * 64.0) as usize].clone())
        .collect();
    let mut declared = whole.clone();
    declared.data.train = vec![files.write("few.csv", with_header(&few))];
    (declared.data.keep_negatives, declared.label.negative_rate) = (1.0, 0.2);
    let declared = prepare(&declared, 1, LabelKind::Binary).unwrap();
    assert_eq!(declared.train, kept.train);
    assert_eq!(declared.schema.fingerprint(), kept.schema.fingerprint());
    assert_eq!(declared.report.negatives, None);
}

#[test]
fn held_out_parts_lack_the_negatives_that_their_files_lack_and_no_others() {
    let files = Files::new();
    let mut spec = spec(
        files.write("t.csv", with_header(&few_clicks())),
        vec![field("item", FieldKind::Categorical)],
    );
    spec.data.test = vec![files.write("v.csv", with_header(&few_clicks()))];
    spec.data.split = Some(SplitConfig::Random {
        valid: 0.25,
        test: 0.0,
    });
    (spec.data.keep_negatives, spec.label.negative_rate) = (0.5, 0.25);
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    let (valid, test) = (prepared.valid.unwrap(), prepared.test.unwrap());
    assert_eq!(prepared.train.negative_rate(), 0.125);
    assert_eq!((valid.negative_rate(), valid.len()), (0.25, 10));
    assert_eq!((test.negative_rate(), test.len()), (1.0, 40));
    spec.data.keep_negatives = 1.0;
    let whole = prepare(&spec, 1, LabelKind::Binary).unwrap();
    assert_eq!(whole.valid.unwrap().labels(), valid.labels());
}

#[test]
fn shares_of_negatives_that_are_none_are_refused() {
    let files = Files::new();
    let train = files.write("t.csv", with_header(&few_clicks()));
    let spec = spec(train, vec![field("item", FieldKind::Categorical)]);
    let refused = |change: &dyn Fn(&mut DataSpec), kind| {
        let mut spec = spec.clone();
        change(&mut spec);
        prepare(&spec, 1, kind).unwrap_err().to_string()
    };
    for share in [0.0, -0.5, 1.5, f64::NAN] {
        assert_eq!(
            refused(&|spec| spec.data.keep_negatives = share, LabelKind::Binary),
            format!("data.keep_negatives = {share}: expected a share above 0, at most 1")
        );
    }
    assert_eq!(
        refused(&|spec| spec.label.negative_rate = 0.1, LabelKind::Number),
        "label.negative_rate = 0.1: expected 1: only the labels 0 and 1, under a loss of clicks, \
         have negatives"
    );
    let only_positive = |spec: &mut DataSpec| {
        (spec.data.keep_negatives, spec.label.only_positive) = (0.1, true);
    };
    assert_eq!(
        refused(&only_positive, LabelKind::Binary),
        "data.keep_negatives = 0.1: expected 1: label.only_positive leaves no negatives"
    );
    assert_eq!(
        refused(&|spec| spec.data.keep_negatives = 0.01, LabelKind::Binary),
        "data.keep_negatives = 0.01: expected a share that leaves one of the 35 negatives of the \
         training part"
    );
}
