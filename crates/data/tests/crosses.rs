//! Crosses of fields: combinations, hashed rows, conditions.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::Files;
use crossfield_core::rng::{Purpose, rng};
use crossfield_core::{FieldKind, Jagged};
use crossfield_data::{
    CrossConfig, DataSpec, Dataset, FittedSchema, Format, LabelKind, Labels, Prepared, Unseen,
    encode_files, prepare,
};
use rand::RngExt;

impl Files {
    /// Fields of all kinds that can be crossed, and two parts.
    fn csv(&self, cross: Vec<CrossConfig>) -> DataSpec {
        let header = "label,bank,clicked,tags,age,cookie\n";
        let train = "1,kookmin,travel,x:2|y:1,25,c1\n\
                     0,hana,travel,,35,c2\n\
                     1,kookmin,travel,y:0.5|x:1,25,c1\n\
                     0,kookmin,food,z:1,?,c3\n\
                     0,hana,food,x:1,45,c1\n\
                     1,?,food,x:1|x:3,35,c2\n";
        let valid = "1,kookmin,travel,x:1,25,c1\n0,new,travel,z:1|new:2,35,c2\n";
        let fields = r#"[
            {"name": "bank"}, {"name": "clicked"},
            {"name": "tags", "kind": "bag", "weight_delimiter": ":"},
            {"name": "age", "kind": "numeric", "transform": "buckets", "buckets": [30, 40]},
            {"name": "cookie", "kind": "hashed", "hash_rows": 1000}]"#;
        let mut spec = DataSpec {
            field: serde_json::from_str(fields).unwrap(),
            cross,
            ..DataSpec::default()
        };
        spec.data.missing = vec![String::new(), "?".to_owned()];
        spec.data.train = vec![self.write("t.csv", format!("{header}{train}"))];
        spec.data.valid = vec![self.write("v.csv", format!("{header}{valid}"))];
        spec
    }

    fn ffm(&self, cross: Vec<CrossConfig>) -> DataSpec {
        let mut spec = DataSpec {
            cross,
            ..DataSpec::default()
        };
        spec.data.format = Format::Libffm;
        spec.data.train = vec![self.write("t.ffm", "1 0:2:1 1:7:3\n0 0:3:0.5 1:8:1\n1 0:2:1\n")];
        spec
    }
}

fn of(fields: &[&str]) -> CrossConfig {
    CrossConfig {
        fields: fields.iter().map(|&name| name.to_owned()).collect(),
        ..CrossConfig::default()
    }
}

fn hashed(fields: &[&str], rows: u32) -> CrossConfig {
    CrossConfig {
        hash_rows: Some(rows),
        ..of(fields)
    }
}

fn when(condition: &str) -> CrossConfig {
    CrossConfig {
        when: Some(condition.to_owned()),
        ..CrossConfig::default()
    }
}

fn read(spec: &DataSpec) -> Prepared {
    prepare(spec, 1, LabelKind::Binary).unwrap()
}

/// The features of field `name`, row by row, as a person reads them.
fn names(schema: &FittedSchema, data: &Dataset, name: &str) -> Vec<Vec<String>> {
    let field = schema.schema().field(name).unwrap();
    let column = data.column(field);
    let feature = |at: usize| schema.name(field, column.indices[at], column.weight(at));
    let rows = (0..column.rows()).map(|row| column.range(row).map(feature).collect());
    rows.collect()
}

/// The rows in which a condition holds.
fn holds(data: &Dataset, schema: &FittedSchema, name: &str) -> Vec<usize> {
    let column = data.column(schema.schema().field(name).unwrap());
    let rows = (0..column.rows()).filter(|&row| !column.range(row).is_empty());
    rows.collect()
}

#[test]
fn combinations_are_numbered_by_count_and_then_by_first_appearance() {
    let files = Files::new();
    let prepared = read(&files.csv(vec![of(&["bank", "clicked"])]));
    let schema = prepared.schema.schema();
    let field = schema.field("bank & clicked").unwrap();
    assert_eq!(field, 5);
    let cross = &schema.fields[field];
    assert_eq!((cross.kind, cross.rows), (FieldKind::Cross, 6));
    assert_eq!(cross.oov_row, Some(0));
    // kookmin & travel twice; then hana & travel, kookmin & food, hana & food, missing & food.
    let expected = Jagged::one_hot(vec![1, 2, 1, 3, 4, 5]);
    assert_eq!(prepared.train.column(field), expected);
    let valid = prepared.valid.unwrap();
    assert_eq!(valid.column(field), Jagged::one_hot(vec![1, 0]));
    // One-hot fields lie row by row, this one too; tags and nothing else are lists.
    assert_eq!(valid.examples().one_hot_fields, [0, 1, 3, 4, 5]);
    let name = |index| prepared.schema.name(field, index, 1.0);
    assert_eq!(name(1), "bank=kookmin & clicked=travel");
    assert_eq!(name(5), "bank=<missing> & clicked=food");
    assert_eq!(name(0), "bank & clicked=(unseen)");
    assert_eq!(prepared.schema.count("bank & clicked", 1), Some(2));
}

#[test]
fn rare_combinations_share_the_row_of_unseen_ones() {
    let files = Files::new();
    let cross = CrossConfig {
        name: Some("pair".to_owned()),
        min_count: Some(2),
        ..of(&["bank", "clicked"])
    };
    let prepared = read(&files.csv(vec![cross]));
    assert_eq!(prepared.schema.schema().fields[5].rows, 2);
    assert_eq!(prepared.train.column(5).indices, [1, 0, 1, 0, 0, 0]);
    assert_eq!(prepared.schema.name(5, 0, 1.0), "pair=(unseen)");
    let report = &prepared.report.crosses[0];
    assert_eq!((report.distinct, report.kept), (Some(5), Some(1)));
    assert_eq!(report.counts, Some([1, 1, 2]));
    assert_eq!(report.seen, [6, 2]);
    assert_eq!(report.out_of_vocabulary, [4, 1]);
}

#[test]
fn rare_values_of_a_member_are_crossed_as_one() {
    let files = Files::new();
    let mut spec = files.csv(vec![of(&["bank", "clicked"])]);
    // Of the banks, only kookmin is left.
    spec.field[0].min_count = Some(3);
    let prepared = read(&spec);
    assert_eq!(prepared.train.column(5).indices, [1, 3, 1, 4, 2, 2]);
    assert_eq!(prepared.valid.unwrap().column(5).indices, [1, 3]);
    let name = prepared.schema.name(5, 3, 1.0);
    assert_eq!(name, "bank=(unseen) & clicked=travel");
}

#[test]
fn a_bag_is_crossed_value_by_value_with_the_product_of_the_weights() {
    let files = Files::new();
    let prepared = read(&files.csv(vec![of(&["tags", "age"])]));
    let rows = names(&prepared.schema, &prepared.train, "tags & age");
    assert_eq!(rows[0], ["tags=x & age<30 × 2", "tags=y & age<30"]);
    assert!(rows[1].is_empty());
    assert_eq!(rows[2], ["tags=y & age<30 × 0.5", "tags=x & age<30"]);
    assert_eq!(rows[3], ["tags=z & age=(missing)"]);
    // A value that stands twice makes two features, which add up.
    let twice = "tags=x & age=[30, 40)";
    assert_eq!(rows[5], [twice.to_owned(), format!("{twice} × 3")]);
}

#[test]
fn crosses_of_random_bags_are_a_double_loop_over_their_values() {
    let files = Files::new();
    let mut random = rng(7, Purpose::Synth, 0, 0);
    let mut rows: Vec<[Vec<(String, f32)>; 2]> = Vec::new();
    let mut text = "label,a,b\n".to_owned();
    for _ in 0..60 {
        let mut bag = |letter: char| -> Vec<(String, f32)> {
            let values = 0..random.random_range(0..4);
            let value = |_| {
                let weight = random.random_range(-8..9) as f32 / 4.0;
                (format!("{letter}{}", random.random_range(0..3)), weight)
            };
            values.map(value).collect()
        };
        let row = [bag('a'), bag('b')];
        let cell = |bag: &Vec<(String, f32)>| {
            let values = bag
                .iter()
                .map(|(value, weight)| format!("{value}:{weight}"));
            values.collect::<Vec<_>>().join("|")
        };
        text += &format!("1,{},{}\n", cell(&row[0]), cell(&row[1]));
        rows.push(row);
    }
    let fields = r#"[{"name": "a", "kind": "bag", "weight_delimiter": ":"},
        {"name": "b", "kind": "bag", "weight_delimiter": ":"}]"#;
    let mut spec = DataSpec {
        field: serde_json::from_str(fields).unwrap(),
        cross: vec![of(&["a", "b"]), hashed(&["b", "a"], 64)],
        ..DataSpec::default()
    };
    spec.data.train = vec![files.write("t.csv", text)];
    let prepared = read(&spec);
    let [exact, hashed] = [2, 3].map(|field| prepared.train.column(field));
    let mut row_of = std::collections::BTreeMap::new();
    for (row, [a, b]) in rows.iter().enumerate() {
        let mut expected = Vec::new();
        for (left, x) in a {
            for (right, y) in b {
                expected.push((format!("a={left} & b={right}"), x * y));
            }
        }
        let name = |at: usize| prepared.schema.name(2, exact.indices[at], 1.0);
        let found = exact.range(row).map(|at| (name(at), exact.weight(at)));
        assert_eq!(found.collect::<Vec<_>>(), expected);
        // Hashed: the same features, whatever their order, each combination in one row.
        let mut sums = [0.0; 2];
        for (sum, column) in sums.iter_mut().zip([&exact, &hashed]) {
            *sum = column.range(row).map(|at| column.weight(at)).sum();
        }
        assert_eq!(sums[0], sums[1]);
        assert_eq!(exact.range(row).len(), hashed.range(row).len());
        if let ([(left, _)], [(right, _)]) = (a.as_slice(), b.as_slice()) {
            let index = hashed.indices[hashed.range(row).start];
            let known = *row_of.entry((left, right)).or_insert(index);
            assert_eq!(known, index);
        }
    }
}

#[test]
fn hashed_combinations_have_the_same_rows_on_every_platform() {
    let files = Files::new();
    let prepared = read(&files.csv(vec![hashed(&["bank", "clicked"], 100)]));
    let cross = &prepared.schema.schema().fields[5];
    assert_eq!((cross.rows, cross.oov_row), (100, None));
    // Golden: the finaliser of splitmix64 over the rows of the members.
    let golden = |bank: u64, clicked: u64| {
        let mix = |mut z: u64| {
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let gamma = 0x9e37_79b9_7f4a_7c15_u64;
        let first = mix(gamma.wrapping_add(2).wrapping_add(bank));
        (mix(first.wrapping_add(gamma).wrapping_add(clicked)) % 100) as u32
    };
    // kookmin, hana, missing are 1, 2, 3 of bank; travel and food, three times each, 1, 2 of clicked.
    let train = [(1, 1), (2, 1), (1, 1), (1, 2), (2, 2), (3, 2)];
    let expected: Vec<u32> = train.iter().map(|&(a, b)| golden(a, b)).collect();
    assert_eq!(prepared.train.column(5), Jagged::one_hot(expected.clone()));
    // An unseen bank is row 0 of the banks.
    let valid = prepared.valid.unwrap().column(5);
    assert_eq!(valid.indices, [expected[0], golden(0, 1)]);
    let name = format!("bank & clicked=(hash {})", expected[0]);
    assert_eq!(prepared.schema.name(5, expected[0], 1.0), name);
}

#[test]
fn a_condition_is_one_feature_where_it_holds() {
    let files = Files::new();
    for (condition, train, valid) in [
        ("bank=kookmin AND clicked=travel", &[0, 2][..], &[0][..]),
        ("tags=x", &[0, 2, 4, 5], &[0]),
        ("tags=x AND tags=y", &[0, 2], &[]),
        // Any number names its bucket; an edge belongs to the bucket right of it.
        ("age=30", &[1, 5], &[1]),
        ("age=-7 AND bank=kookmin", &[0, 2], &[0]),
        ("age=(missing)", &[3], &[]),
        ("bank=(missing)", &[5], &[]),
        ("tags=(missing)", &[1], &[]),
        ("cookie=c1 AND clicked=food", &[4], &[]),
        ("bank=\"hana\" AND \"age\" = \"99\"", &[4], &[]),
    ] {
        let prepared = read(&files.csv(vec![when(condition)]));
        let schema = &prepared.schema;
        assert_eq!(
            holds(&prepared.train, schema, condition),
            train,
            "{condition}"
        );
        let rows = prepared.valid.unwrap();
        assert_eq!(holds(&rows, schema, condition), valid, "{condition}");
        let field = &schema.schema().fields[5];
        assert_eq!((field.rows, field.oov_row), (1, None));
        assert_eq!(schema.name(5, 0, 1.0), condition);
        assert_eq!(prepared.report.crosses[0].seen[0], train.len() as u64);
    }
}

#[test]
fn fields_that_a_libffm_file_names_are_crossed_by_number() {
    let files = Files::new();
    let crosses = vec![of(&["0", "1"]), when("0=2 AND 1=(missing)")];
    for unseen in [Unseen::Shared, Unseen::Own] {
        let mut spec = files.ffm(crosses.clone());
        spec.data.unseen = unseen;
        let prepared = read(&spec);
        let rows = names(&prepared.schema, &prepared.train, "0 & 1");
        assert_eq!(
            rows,
            [vec!["0=2 & 1=7 × 3"], vec!["0=3 & 1=8 × 0.5"], vec![]]
        );
        let condition = "0=2 AND 1=(missing)";
        assert_eq!(holds(&prepared.train, &prepared.schema, condition), [2]);
    }
}

fn all(files: &Files) -> DataSpec {
    files.csv(vec![
        of(&["bank", "clicked"]),
        of(&["tags", "age", "cookie", "clicked"]),
        hashed(&["tags", "bank"], 5),
        when("bank=kookmin AND clicked=travel"),
    ])
}

#[test]
fn rows_are_encoded_after_loading_as_they_were_for_training() {
    let files = Files::new();
    for spec in [all(&files), files.ffm(vec![of(&["0", "1"]), when("1=8")])] {
        let prepared = read(&spec);
        let saved = files.path("saved");
        prepared.schema.save(&saved).unwrap();
        let loaded = FittedSchema::load(&saved).unwrap();
        assert_eq!(loaded.fingerprint(), prepared.schema.fingerprint());
        assert_eq!(loaded.schema(), prepared.schema.schema());
        let files = &spec.data.train;
        let again = encode_files(&spec, &loaded, files, LabelKind::Binary, Labels::Required);
        assert_eq!(again.unwrap(), prepared.train);
    }
}

#[test]
fn a_vocabulary_of_combinations_is_saved_for_people_to_read() {
    let files = Files::new();
    let prepared = read(&files.csv(vec![of(&["bank", "age"])]));
    prepared.schema.save(&files.path("saved")).unwrap();
    let file = files.path("saved/vocabularies/bank%20%26%20age.csv");
    let text = std::fs::read_to_string(file).unwrap();
    assert_eq!(
        text,
        "bank,age,count,combination\n\
         1,0,2,bank=kookmin & age<30\n\
         2,1,1,\"bank=hana & age=[30, 40)\"\n\
         1,3,1,bank=kookmin & age=(missing)\n\
         2,2,1,bank=hana & age≥40\n\
         3,1,1,\"bank=<missing> & age=[30, 40)\"\n"
    );
}

#[test]
fn a_saved_cross_that_does_not_fit_its_fields_is_refused() {
    let files = Files::new();
    let prepared = read(&files.csv(vec![of(&["bank", "clicked"])]));
    let saved = files.path("saved");
    prepared.schema.save(&saved).unwrap();
    let file = saved.join("vocabularies/bank%20%26%20clicked.csv");
    let text = std::fs::read_to_string(&file).unwrap();
    let refusal = |from: &str, to: &str| {
        std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
        let message = FittedSchema::load(&saved).unwrap_err().to_string();
        message.replace(saved.to_str().unwrap(), "RUN")
    };
    assert_eq!(
        refusal("\n1,1,", "\n9,1,"),
        "`RUN/schema.json`: cross `bank & clicked` does not fit its fields; expected a schema as \
         it was saved"
    );
    assert!(refusal("\n1,1,", "\n2,1,").contains("a combination stands twice"));
    assert!(refusal("\n1,1,", "\nx,1,").contains("record 1 is not rows and a count"));
    assert!(refusal("\n2,1,1,", "\n2,1,,").contains("record 2 is not rows and a count"));
}

#[test]
fn a_schema_without_crosses_is_what_it_was_before_there_were_any() {
    let files = Files::new();
    let prepared = read(&files.csv(Vec::new()));
    prepared.schema.save(&files.path("saved")).unwrap();
    let text = std::fs::read_to_string(files.path("saved/schema.json")).unwrap();
    assert!(!text.contains("cross"), "{text}");
    let spec = serde_json::to_string(&files.csv(Vec::new())).unwrap();
    assert!(!spec.contains("cross"), "{spec}");
}

#[test]
fn crosses_come_out_of_the_cache_as_out_of_the_files() {
    let files = Files::new();
    let plain = read(&all(&files));
    let mut spec = all(&files);
    spec.data.cache = Some(files.path("cache").to_str().unwrap().to_owned());
    for _ in 0..2 {
        let cached = read(&spec);
        assert_eq!((&cached.train, &cached.valid), (&plain.train, &plain.valid));
        assert_eq!(cached.schema.fingerprint(), plain.schema.fingerprint());
        assert_eq!(cached.report.crosses, plain.report.crosses);
        for index in 0..3 {
            let name = |schema: &FittedSchema| schema.name(6, index, 1.0);
            assert_eq!(name(&cached.schema), name(&plain.schema));
        }
    }
    spec.cross.pop();
    let rebuilt = read(&spec).report.cache.unwrap().rebuilt;
    assert_eq!(rebuilt.as_deref(), Some("it was made with another `cross`"));
}

#[test]
fn the_report_says_what_crosses_hold_and_warns_of_odd_ones() {
    let files = Files::new();
    let prepared = read(&files.csv(vec![
        of(&["bank", "clicked"]),
        hashed(&["bank", "clicked", "age"], 2),
        when("bank=kookmin"),
        when("bank=kookmin AND bank=hana"),
    ]));
    let text = prepared.report.to_string();
    let start = text.find("crosses").unwrap();
    assert_eq!(
        &text[start..],
        "crosses (train / valid)\n\
         bank & clicked\n  \
           5 distinct, 5 kept\n  \
           each 1 to 2 times, median 1\n  \
           0.00 / 50.00 % oov\n\
         bank & clicked & age\n  \
           5 distinct in 2 rows\n  \
           each 1 to 2 times, median 1\n  \
           100.00 % of them share a row\n\
         bank=kookmin\n  \
           holds in 3 / 1 rows\n\
         bank=kookmin AND bank=hana\n  \
           holds in 0 / 0 rows\n\
         warning: cross `bank & clicked & age`: 5 combinations in 2 rows (hash_rows); 100.00 % of \
         them share a row\n\
         warning: cross `bank=kookmin AND bank=hana`: it holds in none of the training rows\n"
    );
}
