//! Rows that are read block by block: which blocks there are, in which order, and from which on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;

use common::Files;
use crossfield_core::FieldKind;
use crossfield_data::{
    DataSpec, Dataset, FieldConfig, Format, LabelKind, Labels, RowStream, encode_files, prepare,
    stream,
};

/// Files of these numbers of rows; the time of a row is its number over all files.
fn spec(files: &Files, rows: &[usize], block_rows: usize) -> DataSpec {
    let mut spec = DataSpec::default();
    let mut number = 0;
    for (file, &rows) in rows.iter().enumerate() {
        let mut text = "label,time,ad\n".to_owned();
        for _ in 0..rows {
            text += &format!("{},{number},ad{}\n", number % 2, number % 3);
            number += 1;
        }
        files.write(&format!("part-{file}.csv"), text);
    }
    spec.data.train = vec![files.text_path("part-*.csv")];
    spec.data.block_rows = block_rows;
    spec.label.column = "time".to_owned();
    spec.field = vec![FieldConfig {
        name: "ad".to_owned(),
        kind: FieldKind::Hashed,
        ..FieldConfig::default()
    }];
    spec
}

fn row_stream(spec: &DataSpec) -> RowStream {
    let schema = prepare(spec, 1, LabelKind::Number).unwrap().schema;
    RowStream::new(spec, Arc::new(schema), &spec.data.train, LabelKind::Number).unwrap()
}

fn blocks(stream: &RowStream, epoch: u64, first: u64) -> Vec<Arc<Dataset>> {
    stream.blocks(7, epoch, first).map(Result::unwrap).collect()
}

fn times(blocks: &[Arc<Dataset>]) -> Vec<Vec<f32>> {
    blocks.iter().map(|block| block.labels().to_vec()).collect()
}

#[test]
fn files_come_in_an_order_of_the_epoch_and_blocks_span_them() {
    let files = Files::new();
    let stream = row_stream(&spec(&files, &[4, 3, 5, 2, 6], 8));
    let first = times(&blocks(&stream, 0, 0));
    assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), [8, 8, 4]);
    let rows = first.concat();
    // Inside a file the rows stand as they do.
    let breaks = rows.windows(2).filter(|pair| pair[1] != pair[0] + 1.0);
    assert!((1..=4).contains(&breaks.count()), "{rows:?}");
    let mut sorted = rows.clone();
    sorted.sort_by(f32::total_cmp);
    assert_eq!(sorted, (0..20).map(|row| row as f32).collect::<Vec<_>>());
    assert_eq!(times(&blocks(&stream, 0, 0)).concat(), rows);
    let others = (1..5).map(|epoch| times(&blocks(&stream, epoch, 0)).concat());
    assert!(others.into_iter().any(|other| other != rows));
}

#[test]
fn a_stream_that_starts_late_gives_the_blocks_of_the_whole_epoch() {
    let files = Files::new();
    let stream = row_stream(&spec(&files, &[4, 3, 5, 2, 6], 3));
    let whole = blocks(&stream, 2, 0);
    assert_eq!(whole.len(), 7);
    for first in 0..9 {
        let late = blocks(&stream, 2, first);
        assert_eq!(late, whole[whole.len().min(first as usize)..], "{first}");
    }
}

#[test]
fn rows_that_their_label_leaves_out_are_skipped_as_they_were_trained_on() {
    let files = Files::new();
    let mut spec = spec(&files, &[4, 3, 5, 2, 6], 2);
    spec.label.column = "label".to_owned();
    spec.label.only_positive = true;
    let stream = row_stream(&spec);
    let whole = blocks(&stream, 0, 0);
    assert_eq!(whole.iter().map(|block| block.len()).sum::<usize>(), 10);
    assert_eq!(blocks(&stream, 0, 3), whole[3..]);
}

#[test]
fn in_order_keeps_files_and_rows_as_they_stand() {
    let files = Files::new();
    let mut spec = spec(&files, &[4, 3, 5], 5);
    spec.data.in_order = true;
    let stream = row_stream(&spec);
    let blocks = blocks(&stream, 3, 0);
    let expected: Vec<f32> = (0..12).map(|row| row as f32).collect();
    assert_eq!(times(&blocks).concat(), expected);
    assert_eq!(blocks[1].epoch_order(7, 3, 1), [0, 1, 2, 3, 4]);
    // Rows that are held are visited in order as well.
    let held = prepare(&spec, 1, LabelKind::Number).unwrap().train;
    assert_eq!(held.epoch_order(7, 3, 0), (0..12).collect::<Vec<_>>());
}

#[test]
fn a_stream_dropped_early_ends_its_thread() {
    let files = Files::new();
    let stream = row_stream(&spec(&files, &[40, 30], 1));
    let mut blocks = stream.blocks(1, 0, 0);
    assert_eq!(blocks.next().unwrap().unwrap().len(), 1);
    drop(blocks);
}

#[test]
fn libffm_files_skip_lines_without_reading_their_pairs() {
    let files = Files::new();
    let mut spec = DataSpec::default();
    spec.data.format = Format::Libffm;
    let lines: String = (0..9).map(|row| format!("{row} 0:{row}:1\n")).collect();
    spec.data.train = vec![files.write("a.ffm", lines)];
    spec.data.block_rows = 4;
    let stream = row_stream(&spec);
    let whole = blocks(&stream, 0, 0);
    assert_eq!(blocks(&stream, 0, 1), whole[1..]);
    assert_eq!(times(&whole[2..]), [[8.0]]);
}

#[test]
fn what_needs_all_rows_is_refused() {
    let files = Files::new();
    let mut with_split = spec(&files, &[4], 5);
    with_split.data.split = Some(crossfield_data::SplitConfig::Random {
        valid: 0.5,
        test: 0.0,
    });
    let error = |spec: &DataSpec| stream(spec, 1, LabelKind::Binary).unwrap_err().to_string();
    assert_eq!(
        error(&with_split),
        "data.split = random: expected files for data.valid in its place, for rows are read block by \
         block here (or train with data.stream = false, which reads them all into memory)"
    );
    let mut negatives = spec(&files, &[4], 5);
    negatives.data.keep_negatives = 0.5;
    assert_eq!(
        error(&negatives),
        "data.keep_negatives = 0.5: expected 1, for rows are read block by block here (or train with \
         data.stream = false, which reads them all into memory)"
    );
    assert_eq!(
        error(&spec(&files, &[4], 0)),
        "data.block_rows = 0: expected 1 to 4294967294"
    );
}

#[test]
fn patterns_stand_for_the_files_that_match_sorted() {
    let files = Files::new();
    for (name, label) in [
        ("b-2.csv", 2),
        ("a.csv", 1),
        ("b-1.csv", 3),
        (".b-0.csv", 4),
    ] {
        files.write(name, format!("label,ad\n{label},x\n"));
    }
    std::fs::create_dir(files.path("b-3.csv")).unwrap();
    let mut spec = DataSpec {
        field: vec![FieldConfig {
            name: "ad".to_owned(),
            ..FieldConfig::default()
        }],
        ..DataSpec::default()
    };
    let labels = |spec: &DataSpec, pattern: &str| {
        let mut spec = spec.clone();
        spec.data.train = vec![files.text_path(pattern)];
        let prepared = prepare(&spec, 1, LabelKind::Number);
        prepared.map(|prepared| (prepared.train.labels().to_vec(), prepared.report))
    };
    let (found, report) = labels(&spec, "*.csv").unwrap();
    assert_eq!(found, [1.0, 3.0, 2.0]);
    assert_eq!(report.parts[0].files[1], files.text_path("b-1.csv"));
    assert_eq!(labels(&spec, "b-[!1].csv").unwrap().0, [2.0]);
    assert_eq!(labels(&spec, "?.csv").unwrap().0, [1.0]);
    let error = |pattern: &str| {
        let error = labels(&spec, pattern).unwrap_err().to_string();
        error.replace(files.0.path().to_str().unwrap(), "DIR")
    };
    assert_eq!(
        error("c*.csv"),
        "`DIR/c*.csv`: no file matches; expected at least one"
    );
    assert_eq!(
        error("b-[1.csv"),
        "`DIR/b-[1.csv`: Pattern syntax error near position 11: invalid range pattern; expected a \
         pattern of `*`, `?` and `[…]`"
            .replace(
                "position 11",
                &format!(
                    "position {}",
                    files.text_path("b-[1.csv").find('[').unwrap()
                )
            )
    );
    // A file of just that name is that file.
    files.write("[ab].csv", "label,ad\n9,x\n");
    assert_eq!(labels(&spec, "[ab].csv").unwrap().0, [9.0]);
    // Files to be scored may be named by a pattern, too.
    spec.data.train = vec![files.text_path("a.csv")];
    let schema = prepare(&spec, 1, LabelKind::Number).unwrap().schema;
    let pattern = [files.text_path("b-*.csv")];
    let rows = encode_files(
        &spec,
        &schema,
        &pattern,
        LabelKind::Number,
        Labels::Required,
    );
    assert_eq!(rows.unwrap().labels(), [3.0, 2.0]);
}

#[test]
fn a_cache_is_made_anew_when_one_more_file_matches() {
    let files = Files::new();
    let mut spec = spec(&files, &[4, 3], 5);
    spec.data.cache = Some(files.text_path("cache"));
    let rows = |spec: &DataSpec| prepare(spec, 1, LabelKind::Number).unwrap().train.len();
    assert_eq!((rows(&spec), rows(&spec)), (7, 7));
    files.write("part-9.csv", "label,time,ad\n1,7,x\n");
    assert_eq!(rows(&spec), 8);
}

#[test]
fn headers_may_differ_in_order_and_a_lost_column_is_named_with_its_file() {
    let files = Files::new();
    let mut spec = DataSpec {
        field: vec![FieldConfig {
            name: "ad".to_owned(),
            ..FieldConfig::default()
        }],
        ..DataSpec::default()
    };
    spec.data.train = vec![
        files.write("a.csv", "label,ad,more\n1,x,1\n"),
        files.write("b.csv", "ad,label\nx,0\n"),
    ];
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    assert_eq!(prepared.train.labels(), [1.0, 0.0]);
    assert_eq!(prepared.train.column(0).indices, [1, 1]);
    files.write("b.csv", "add,label\nx,0\n");
    let error = prepare(&spec, 1, LabelKind::Binary)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error.replace(files.0.path().to_str().unwrap(), "DIR"),
        "field `ad`: `DIR/b.csv` has no column `ad`; did you mean `add`?"
    );
}
