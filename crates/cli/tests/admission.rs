//! Fields whose values are given rows as they come: trained, killed, read again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::{Duration, Instant};

use common::{Draws, Folder, assert_same_files};

/// Rows of users, friends of the same vocabulary, and sites. A third of the users are seen once.
fn log(rows: u64, first_once: u64, seed: u64) -> String {
    let mut draws = Draws(seed);
    let mut text = "label,user,friend,site\n".to_owned();
    for row in 0..rows {
        let below = |most: f64, draw: f64| (most * draw * draw) as u64;
        let user = match row % 3 {
            0 => format!("once-{}", first_once + row),
            _ => format!("user-{}", below(500.0, draws.next())),
        };
        let friend = below(500.0, draws.next());
        let site = below(9.0, draws.next());
        let clicks = draws.next() < if (friend + site) % 3 == 0 { 0.7 } else { 0.2 };
        text += &format!("{},{user},user-{friend},{site}\n", u8::from(clicks));
    }
    text
}

const ADMIT: &str = "{ min_count = 2, max_rows = 200, evict_after = 600, sketch = \"16kB\" }";

fn run_file(executor: &str, stream: bool) -> String {
    let batch_size = match executor {
        "burn" => "batch_size = 16",
        _ => "",
    };
    format!(
        r#"
[data]
train = "train.csv"
valid = "valid.csv"
stream = {stream}
block_rows = 300

[[field]]
name = "user"
kind = "hashed"
admit = {ADMIT}

[[field]]
name = "friend"
kind = "hashed"
vocabulary = "user"
admit = {ADMIT}

[[field]]
name = "site"

[model]
sum = ["wide", "fm"]

[model.fm]
linear = false
embedding_dim = 4

[train]
executor = "{executor}"
{batch_size}
epochs = 3
checkpoint_every = 50
early_stop = {{ patience = 2 }}
"#
    )
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("train.csv", log(2000, 0, 1));
    folder.write("valid.csv", log(300, 1_000_000, 2));
    folder
}

/// The mean logloss of what `predict` prints for labelled rows.
fn logloss_of_predictions(folder: &Folder, args: &str, file: &str) -> f64 {
    let printed = folder.succeed(args).stdout;
    let predictions = printed.lines().map(|line| line.parse::<f64>().unwrap());
    let text = folder.read(file);
    let labels = text.lines().skip(1).map(|line| line.starts_with('1'));
    let losses = predictions
        .zip(labels)
        .map(|(p, label)| -(if label { p } else { 1.0 - p }).ln());
    let losses: Vec<f64> = losses.collect();
    losses.iter().sum::<f64>() / losses.len() as f64
}

#[test]
fn runs_that_give_rows_to_keys_end_with_the_same_bytes_when_they_are_killed() {
    for (executor, stream) in [("fused", true), ("burn", true), ("fused", false)] {
        let folder = folder();
        folder.write("a.toml", run_file(executor, stream));
        let begin = Instant::now();
        folder.succeed("train a.toml --out undisturbed");
        let duration = begin.elapsed().as_secs_f64();
        folder.interrupt("a.toml", "killed");
        for part in [0.3, 0.6] {
            let mut child = folder.start("train --resume killed");
            std::thread::sleep(Duration::from_secs_f64(part * duration));
            let _ = child.kill();
            child.wait().unwrap();
        }
        folder.succeed("train --resume killed");
        let (killed, undisturbed) = (folder.files("killed"), folder.files("undisturbed"));
        assert!(undisturbed.contains_key("keys.user"));
        assert_same_files(
            &killed,
            &undisturbed,
            &format!("{executor}, stream {stream}"),
        );
    }
}

#[test]
fn a_finished_run_predicts_as_it_was_measured_by_either_executor() {
    let folder = folder();
    folder.write("a.toml", run_file("fused", true));
    let said = folder.succeed("train a.toml --out a").stderr;
    assert!(said.contains("keys of user: 200 rows at most"), "{said}");
    assert!(said.contains("with a row, "), "{said}");
    let measured = folder.metrics("a")["valid"]["logloss"].as_f64().unwrap();
    for executor in ["fused", "burn"] {
        let args = format!("predict a --data valid.csv --set train.executor={executor}");
        let predicted = logloss_of_predictions(&folder, &args, "valid.csv");
        assert!(
            (predicted - measured).abs() < 1e-6,
            "{executor}: {predicted}, {measured}"
        );
    }
    // Rows are of keys: a user of training is told from one that is new, and two new ones are alike.
    folder.write(
        "new.csv",
        "user,friend,site\nuser-0,user-1,0\nx,user-1,0\ny,user-1,0\n",
    );
    let printed = folder.succeed("predict a --data new.csv").stdout;
    let lines: Vec<&str> = printed.lines().collect();
    assert_ne!(lines[0], lines[1]);
    assert_eq!(lines[1], lines[2]);
    folder.succeed("explain a --data new.csv");
}

#[test]
fn both_executors_give_the_same_keys_the_same_rows() {
    let folder = folder();
    for executor in ["fused", "burn"] {
        let run = run_file(executor, false).replace("batch_size = 16", "batch_size = 1");
        folder.write("a.toml", run.replace("early_stop = { patience = 2 }", ""));
        folder.succeed(&format!(
            "train a.toml --out {executor} --set train.epochs=1"
        ));
    }
    let logloss = |run: &str| folder.metrics(run)["valid"]["logloss"].as_f64().unwrap();
    let (fused, burn) = (logloss("fused"), logloss("burn"));
    assert!((fused - burn).abs() < 1e-4, "{fused}, {burn}");
}

#[test]
fn a_second_day_goes_on_with_the_keys_of_the_first() {
    let folder = folder();
    folder.write("a.toml", run_file("fused", true));
    folder.succeed("train a.toml --out a");
    folder.write("day-2.csv", log(1000, 5_000_000, 3));
    folder.succeed("train --continue a --data day-2.csv --out b");
    let measured = folder.metrics("b")["valid"]["logloss"].as_f64().unwrap();
    let predicted = logloss_of_predictions(&folder, "predict b --data valid.csv", "valid.csv");
    assert!(
        (predicted - measured).abs() < 1e-6,
        "{predicted}, {measured}"
    );
}

#[test]
fn keys_that_are_damaged_or_another_runs_are_refused_by_name() {
    let folder = folder();
    folder.write("a.toml", run_file("fused", true));
    folder.succeed("train a.toml --out a");
    folder.succeed("train a.toml --out b --set train.seed=2");
    let keys = std::fs::read(folder.path("a/keys.user")).unwrap();
    std::fs::copy(folder.path("b/keys.user"), folder.path("a/keys.user")).unwrap();
    let message = folder.fail("eval a --data valid.csv");
    assert!(message.contains("`a/keys.user` is damaged: "), "{message}");
    folder.list_again("a");
    let message = folder.fail("eval a --data valid.csv");
    assert!(
        message.contains("a/keys.user: the keys of another run, or of another step of this one"),
        "{message}"
    );
    let mut damaged = keys.clone();
    damaged[keys.len() / 2] ^= 4;
    folder.write("a/keys.user", damaged);
    folder.list_again("a");
    let message = folder.fail("eval a --data valid.csv");
    assert!(
        message.contains("a/keys.user: not an intact file of keys: "),
        "{message}"
    );
}

#[test]
fn what_does_not_go_with_keys_that_come_and_go_is_refused() {
    let folder = folder();
    let refused = |from: &str, to: &str, expected: &str| {
        let run = run_file("fused", false);
        assert!(run.contains(from));
        folder.write("a.toml", run.replacen(from, to, 1));
        let message = folder.fail("train a.toml --out a");
        assert!(message.contains(expected), "{message}");
    };
    refused(
        "min_count = 2",
        "min_count = 3",
        "field `friend`: admit = { min_count = 2, max_rows = 200, evict_after = 600, sketch = \
         \"16kB\" }: expected { min_count = 3, max_rows = 200, evict_after = 600, sketch = \"16kB\" } \
         as in field `user`, which shares the vocabulary `user`",
    );
    refused(
        "[model]",
        "[[cross]]\nfields = [\"user\", \"site\"]\n[model]",
        "fields = user: expected a field whose values keep their rows: give it hash_rows in place of \
         admit",
    );
    refused(
        "stream = false",
        "cache = \"cache\"",
        "data.cache = cache: expected no cache beside `admit` of field `user`: leave one out",
    );
    folder.write("a.toml", run_file("fused", false));
    folder.succeed("train a.toml --out a");
    let message = folder.fail("similar a --vocabulary user --key user-1");
    assert!(
        message.contains("is of hashes that were given rows as they came (admit)"),
        "{message}"
    );
}
