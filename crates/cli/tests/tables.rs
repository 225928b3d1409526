//! Tables that take less memory than a row for each value.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;

use common::{Draws, Folder, assert_same_files};
use crossfield_data::FittedSchema;
use crossfield_embedding::Snapshot;

/// A log in which users of one half like items of one half. `first` is the first user and item, so
/// that other logs have other vocabularies.
fn log(rows: usize, first: usize, seed: u64) -> String {
    let mut draws = Draws(seed);
    let mut text = "label,user,item\n".to_owned();
    for _ in 0..rows {
        let [user, item] = [60.0, 90.0].map(|count| first + (draws.next() * count) as usize);
        let likes = if user % 2 == item % 2 { 0.85 } else { 0.15 };
        let label = u32::from(draws.next() < likes);
        text += &format!("{label},u{user},i{item}\n");
    }
    text
}

const RUN: &str = "\
[data]
train = 'a.csv'
test = 'b.csv'

[[field]]
name = 'user'

[[field]]
name = 'item'

[model]
kind = 'fm'
[model.fm]
embedding_dim = 8
init_std = 0.1

[train]
epochs = 4
batch_size = 64
checkpoint_every = 40
";

/// A folder with data, and one run file for each entry under `[[optimizer.table]]`.
fn folder(entries: &[(&str, &str)]) -> Folder {
    let folder = Folder::new();
    folder.write("a.csv", log(3000, 0, 1));
    folder.write("b.csv", log(500, 5, 2));
    for (name, entry) in entries {
        let entry = entry.replace(';', "\n");
        let run = format!("{RUN}\n[[optimizer.table]]\n{entry}\n");
        folder.write(&format!("{name}.toml"), run);
    }
    folder
}

/// The train loss of each epoch.
fn losses(folder: &Folder, run: &str) -> Vec<f64> {
    let number = |line: &str| {
        let (_, rest) = line.split_once("\"train_loss\":").unwrap();
        rest.split([',', '}']).next().unwrap().parse().unwrap()
    };
    let lines = folder.read(&format!("{run}/metrics.jsonl"));
    lines.lines().map(number).collect()
}

/// The rows of a table of a finished run by the key of a vocabulary.
fn rows(folder: &Folder, run: &str, table: &str, vocabulary: &str) -> BTreeMap<String, Vec<f32>> {
    let schema = FittedSchema::load(&folder.path(run)).unwrap();
    let mut snapshot = Snapshot::open(&folder.path(run).join("model.safetensors")).unwrap();
    let name = format!("tables.{table}");
    let shape = snapshot.shape(&name).unwrap().to_vec();
    let mut values = Vec::new();
    snapshot
        .read(&name, &shape, |block| values.extend_from_slice(block))
        .unwrap();
    let rows = values.chunks_exact(shape[1]).enumerate();
    rows.map(|(row, values)| {
        let key = schema.key(vocabulary, row as u32).unwrap_or("(unseen)");
        (key.to_owned(), values.to_vec())
    })
    .collect()
}

#[test]
fn each_variant_learns_resumes_to_the_bit_and_is_read_back() {
    let variants = [
        (
            "hash",
            "match = 'v8.item';compress = { kind = 'hash', rows = 40, hashes = 2 }",
        ),
        (
            "product",
            "match = 'v8.item';compress = { kind = 'quotient_remainder', rows = 10 }",
        ),
        (
            "sum",
            "match = 'v8.*';compress = { kind = 'quotient_remainder', rows = 10, combine = 'sum' }",
        ),
        (
            "projection",
            "match = 'v8.*';compress = { kind = 'projection', dim = 4 }",
        ),
        (
            "frequent",
            "match = 'v8.*';compress = { kind = 'frequent', min_count = 34 }",
        ),
        ("max-norm", "match = 'v8.*';max_norm = 0.5"),
    ];
    let folder = folder(&variants);
    for (name, _) in variants {
        let output = folder.succeed(&format!("train {name}.toml --out {name}"));
        let losses = losses(&folder, name);
        assert!(losses[3] < losses[0] - 0.03, "{name}: {losses:?}");
        if name == "hash" {
            let expected = "  v8.item.hash          41 rows × 64 B (8 f32 weights + 8 adagrad) = \
                            2.6 kB\n    v8.item by hash: 2.6 kB instead of 91 rows × 64 B (8 f32 \
                            weights + 8 adagrad) = 5.8 kB, 45.1 %\n";
            assert!(output.stderr.contains(expected), "{}", output.stderr);
        }
        if name == "max-norm" {
            for (key, row) in rows(&folder, name, "v8.item", "item") {
                let norm = row.iter().map(|w| w * w).sum::<f32>().sqrt();
                assert!(norm < 0.5 + 1e-6, "{key}: {norm}");
            }
        }
        folder.interrupt(&format!("{name}.toml"), &format!("{name}-killed"));
        folder.succeed(&format!("train --resume {name}-killed"));
        assert_same_files(
            &folder.files(&format!("{name}-killed")),
            &folder.files(name),
            name,
        );
        // The same figures of the model that was saved.
        let end = |text: &str, line: usize| {
            let line = text.lines().nth(line).unwrap();
            let figures = line.trim_start_matches("test").split_whitespace();
            figures.map(str::to_owned).collect::<Vec<_>>()
        };
        let eval = folder.succeed(&format!("eval {name} --data b.csv"));
        let test = output
            .stdout
            .lines()
            .position(|line| line.starts_with("test"));
        assert_eq!(
            end(&eval.stdout, 1),
            end(&output.stdout, test.unwrap()),
            "{name}"
        );
        let explained = folder.succeed(&format!("explain {name} --data b.csv"));
        assert!(explained.stdout.contains("item="), "{}", explained.stdout);
        let similar = format!("similar {name} --vocabulary item --key i7 -k 2");
        assert_eq!(folder.succeed(&similar).stdout.lines().count(), 2, "{name}");
        if name != "max-norm" {
            let message = folder.fail(&format!(
                "eval {name} --data b.csv --set train.executor=fused"
            ));
            assert!(
                message.starts_with("compress of table `v8.item"),
                "{name}: {message}"
            );
        }
    }
}

#[test]
fn what_other_executors_cannot_train_is_named_before_there_is_a_run() {
    let folder = folder(&[
        (
            "hash",
            "match = 'v8.item';compress = { kind = 'hash', rows = 40 }",
        ),
        ("norm", "match = 'v8.item';max_norm = 1.0"),
    ]);
    for (name, option) in [("hash", "compress"), ("norm", "max_norm")] {
        let message = folder.fail(&format!(
            "train {name}.toml --set train.executor=fused --set train.batch_size=1"
        ));
        assert_eq!(
            message,
            format!(
                "{option} of table `v8.item`: is for executor = \"burn\"; the executor is fused"
            )
        );
    }
    assert!(!folder.path("runs").exists());
}

#[test]
fn variants_that_cannot_be_are_named() {
    let entries = [
        (
            "match = 'v8.item';compress = { kind = 'hash', rows = 0 }",
            "compress of table `v8.item`: rows is 0, expected 1 to 90, fewer than the table has",
        ),
        (
            "match = 'v8.item';compress = { kind = 'hash', rows = 9, hashes = 0 }",
            "compress of table `v8.item`: hashes is 0, expected 1 to 16",
        ),
        (
            "match = 'fm.item';compress = { kind = 'projection', dim = 1 }",
            "compress of table `fm.item`: dim is 1, expected no projection of a table of single \
             weights: leave it out",
        ),
        (
            "match = 'v9.item';max_norm = 1.0",
            "optimizer.table.match: `v9.item` matches no table (tables: fm.item, fm.user, v8.item, \
             v8.user)",
        ),
        (
            "match = 'v8.item';max_norm = nan",
            "optimizer of table `v8.item`: max_norm is NaN, expected a finite number above 0",
        ),
        (
            "match = 'v8.item';kind = 'ftrl';max_norm = 1.0",
            "table `v8.item`: max_norm needs an optimizer other than ftrl, whose weights follow \
             from its state",
        ),
    ];
    for (entry, expected) in entries {
        let folder = folder(&[("a", entry)]);
        assert_eq!(folder.fail("train a.toml"), expected, "{entry}");
        assert!(!folder.path("runs").exists());
    }
    let folder = folder(&[(
        "a",
        "match = 'v8.item';compress = { kind = 'hush', rows = 9 }",
    )]);
    let message = folder.fail("train a.toml");
    let expected = "unknown value `hush` of `optimizer.table[0].compress.kind`: did you mean `hash`? \
                    (known: hash, quotient_remainder, projection, frequent)";
    assert!(message.ends_with(expected), "{message}");
}
