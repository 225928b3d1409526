//! Tables that take less memory than a row for each value, and tables that begin with the factors
//! of another run.

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

/// A folder with a finished run of dim 4, and run files that begin with it, on rows in another order
/// with other users and items among them.
fn warm(entries: &[(&str, &str)]) -> Folder {
    let folder = folder(entries);
    folder.write("first.csv", log(2000, 20, 3));
    folder.write("first.toml", RUN.replace("'a.csv'", "'first.csv'"));
    folder.succeed("train first.toml --out first --set model.fm.embedding_dim=4");
    folder
}

#[test]
fn rows_begin_with_those_of_the_same_key_of_another_run() {
    let begin = "match = 'v4.*';init_from = 'first';frozen = true";
    let folder = warm(&[("same", begin)]);
    let output = folder.succeed("train same.toml --out same --set model.fm.embedding_dim=4");
    // Items 20 to 89 of 0 to 89, and users 20 to 59 of 0 to 59.
    for expected in [
        "v4.item: 70 of 90 rows from first (v4.item)\n",
        "v4.user: 40 of 60 rows from first (v4.user)\n",
    ] {
        assert!(output.stderr.contains(expected), "{}", output.stderr);
    }
    let [first, same] = ["first", "same"].map(|run| rows(&folder, run, "v4.item", "item"));
    assert_eq!(same["i42"], first["i42"]);
    assert_eq!(same["i89"], first["i89"]);
    assert_eq!(same["(unseen)"], [0.0; 4]);
    // Keys that the other run does not know begin as they would have.
    folder.write(
        "cold.toml",
        format!("{RUN}\n[[optimizer.table]]\nmatch = 'v4.*'\nfrozen = true\n"),
    );
    folder.succeed("train cold.toml --out cold --set model.fm.embedding_dim=4");
    let cold = rows(&folder, "cold", "v4.item", "item");
    assert_eq!(same["i7"], cold["i7"]);
    assert_ne!(same["i42"], cold["i42"]);
    assert!(
        folder
            .read("same/run.toml")
            .contains("init_from = \"first\"")
    );
}

#[test]
fn rows_of_other_dims_are_rotated_or_padded() {
    let folder = warm(&[
        ("short", "match = 'v2.*';init_from = 'first';frozen = true"),
        ("long", "match = 'v8.*';init_from = 'first';frozen = true"),
        (
            "named",
            "match = 'fm.item';init_from = 'first';init_table = 'fm.item';frozen = true",
        ),
    ]);
    let output = folder.succeed("train short.toml --out short --set model.fm.embedding_dim=2");
    let line = "v2.item: 70 of 90 rows from first (v4.item, PCA 4 → 2 keeps ";
    assert!(output.stderr.contains(line), "{}", output.stderr);
    let output = folder.succeed("train long.toml --out long");
    let line = "v8.item: 70 of 90 rows from first (v4.item, 4 of 8 weights)\n";
    assert!(output.stderr.contains(line), "{}", output.stderr);
    let first = rows(&folder, "first", "v4.item", "item");
    let long = rows(&folder, "long", "v8.item", "item");
    assert_eq!(long["i42"][..4], first["i42"]);
    assert_ne!(long["i42"][4..], [0.0; 4]);
    // One rotation for both tables: products of users and items are close to what they were.
    let product = |run: &str, dim: usize, user: &str, item: &str| {
        let rows = |vocabulary| rows(&folder, run, &format!("v{dim}.{vocabulary}"), vocabulary);
        let (user, item) = (rows("user")[user].clone(), rows("item")[item].clone());
        user.iter().zip(item).map(|(p, q)| p * q).sum::<f32>()
    };
    let (mut error, mut size) = (0.0, 0.0);
    for (user, item) in [
        ("u25", "i25"),
        ("u30", "i41"),
        ("u44", "i62"),
        ("u51", "i80"),
    ] {
        let whole = product("first", 4, user, item);
        error += (product("short", 2, user, item) - whole).powi(2);
        size += whole.powi(2);
    }
    assert!(error < 0.1 * size, "{error} of {size}");
    folder.succeed("train named.toml --out named");
    let [first, named] = ["first", "named"].map(|run| rows(&folder, run, "fm.item", "item"));
    assert_eq!(named["i42"], first["i42"]);
}

#[test]
fn a_run_that_began_with_another_goes_on_without_it() {
    let folder = warm(&[("warm", "match = 'v8.*';init_from = 'first';lr = 0.05")]);
    folder.succeed("train warm.toml --out undisturbed");
    folder.interrupt("warm.toml", "killed");
    std::fs::rename(folder.path("first"), folder.path("gone")).unwrap();
    let output = folder.succeed("train --resume killed");
    assert!(
        !output.stderr.contains("rows from first"),
        "{}",
        output.stderr
    );
    assert_same_files(
        &folder.files("killed"),
        &folder.files("undisturbed"),
        "resumed",
    );
    folder.succeed("eval killed --data b.csv");
    folder.succeed("predict killed --data b.csv");
    // Killed before its first checkpoint, it begins anew, and with the other run.
    std::fs::rename(folder.path("gone"), folder.path("first")).unwrap();
    std::fs::create_dir(folder.path("early")).unwrap();
    std::fs::copy(
        folder.path("killed/run.toml"),
        folder.path("early/run.toml"),
    )
    .unwrap();
    let output = folder.succeed("train --resume early");
    assert!(
        output.stderr.contains("rows from first"),
        "{}",
        output.stderr
    );
    assert_same_files(&folder.files("early"), &folder.files("killed"), "early");
}

#[test]
fn the_fused_executor_begins_with_another_run_too() {
    let folder = warm(&[("warm", "match = 'v4.*';init_from = 'first';frozen = true")]);
    let fused =
        "--set model.fm.embedding_dim=4 --set train.executor=fused --set train.batch_size=1";
    folder.succeed(&format!("train warm.toml --out fused {fused}"));
    let [first, fused] = ["first", "fused"].map(|run| rows(&folder, run, "v4.user", "user"));
    assert_eq!(fused["u33"], first["u33"]);
}

#[test]
fn runs_that_cannot_be_begun_with_are_named() {
    let folder = warm(&[]);
    folder.write(
        "mcmc.toml",
        RUN.replace("init_std = 0.1", "").replace(
            "batch_size = 64\ncheckpoint_every = 40",
            "executor = 'mcmc'\nloss = 'probit'",
        ),
    );
    folder.succeed(
        "train mcmc.toml --out draws --set train.solver.burn_in=1 --set model.fm.embedding_dim=2",
    );
    folder.write("other.csv", log(200, 500, 4));
    folder.write("other.toml", RUN.replace("'a.csv'", "'other.csv'"));
    folder.succeed("train other.toml --out other");
    folder.write(
        "films.toml",
        RUN.replace("'a.csv'", "'films.csv'")
            .replace("'b.csv'", "'films.csv'")
            .replace("name = 'item'", "name = 'film'"),
    );
    folder.write("films.csv", log(200, 0, 4).replace("item", "film"));
    folder.succeed("train films.toml --out films");
    let two = "[model]\nsum = ['fm', 'two']\n[model.two]\nkind = 'fm'\nlinear = false\n\
               embedding_dim = 2\n";
    folder.write("two.toml", RUN.replace("[model]\nkind = 'fm'\n", two));
    folder.succeed("train two.toml --out two");
    std::fs::create_dir(folder.path("unfinished")).unwrap();
    std::fs::copy(
        folder.path("first/run.toml"),
        folder.path("unfinished/run.toml"),
    )
    .unwrap();

    for (entry, expected) in [
        (
            "match = 'v8.item';init_from = 'none'",
            "init_from of table `v8.item`: none/run.toml: cannot read: No such file or directory (os \
             error 2)",
        ),
        (
            "match = 'v8.item';init_from = 'unfinished'",
            "init_from of table `v8.item`: unfinished: not finished; go on with: crossfield train \
             --resume unfinished",
        ),
        (
            "match = 'v8.item';init_from = 'draws'",
            "init_from of table `v8.item`: draws holds 3 draws of the executor mcmc: expected one \
             model, such as als or fused fit",
        ),
        (
            "match = 'v8.item';init_from = 'films'",
            "init_from of table `v8.item`: films has no factors of the vocabulary `item`; it has \
             v8.film, v8.user",
        ),
        (
            "match = 'v8.item';init_from = 'other'",
            "init_from of table `v8.item`: other knows none of the 90 values of the vocabulary \
             `item` (values of hashed fields have no names to be known by)",
        ),
        (
            "match = 'v8.item';init_from = 'two'",
            "init_from of table `v8.item`: two has 2 tables of factors of the vocabulary `item`: \
             expected init_table, one of v2.item, v8.item",
        ),
        (
            "match = 'v8.item';init_from = 'two';init_table = 'v4.item'",
            "init_table of table `v8.item`: two has no `v4.item`: expected one of fm.item, fm.user, \
             v2.item, v2.user, v8.item, v8.user",
        ),
        (
            "match = 'v8.item';init_from = 'two';init_table = 'v2.user'",
            "init_table of table `v8.item`: `v2.user` of two is of the vocabulary `user`: expected \
             `item`",
        ),
        (
            "match = 'v8.item';init_table = 'v2.item'",
            "init_table of table `v8.item`: is `v2.item`: expected init_from beside it, a run",
        ),
        (
            "match = 'fm.item';init_from = 'first'",
            "init_from of table `fm.item`: is `first`: expected init_table beside it, for this is no \
             table of factors shared under the name v<dim>.item",
        ),
        (
            "match = 'v8.item';init_from = 'first';compress = { kind = 'hash', rows = 9 }",
            "init_from of table `v8.item`: is `first`: expected a row for each key, which compress \
             = \"hash\" does not have; leave one of the two out",
        ),
    ] {
        let entry = entry.replace(';', "\n");
        folder.write("a.toml", format!("{RUN}\n[[optimizer.table]]\n{entry}\n"));
        assert_eq!(folder.fail("train a.toml"), expected, "{entry}");
    }
    assert!(!folder.path("runs").exists());
}

#[test]
fn a_compressed_run_can_be_begun_with() {
    let folder = folder(&[
        (
            "hash",
            "match = 'v8.*';compress = { kind = 'hash', rows = 20 }",
        ),
        ("warm", "match = 'v8.*';init_from = 'hash';frozen = true"),
    ]);
    folder.succeed("train hash.toml --out hash");
    folder.succeed("train warm.toml --out warm");
    // The sum of two rows of the smaller table, for whichever rows these are.
    let warm = rows(&folder, "warm", "v8.item", "item");
    let parts: Vec<Vec<f32>> = {
        let mut snapshot = Snapshot::open(&folder.path("hash/model.safetensors")).unwrap();
        let shape = snapshot.shape("tables.v8.item.hash").unwrap().to_vec();
        let mut values = Vec::new();
        let read = |block: &[f32]| values.extend_from_slice(block);
        snapshot.read("tables.v8.item.hash", &shape, read).unwrap();
        values.chunks_exact(8).map(<[f32]>::to_vec).collect()
    };
    let sums = parts.iter().flat_map(|a| {
        let sum = |b: &Vec<f32>| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<f32>>();
        parts.iter().map(sum).collect::<Vec<_>>()
    });
    assert!(sums.into_iter().any(|sum| sum == warm["i42"]));
}
