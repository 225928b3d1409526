//! Train, evaluate and predict on files, as a user does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use common::Folder;

const RUN: &str = r#"
[data]
train = "train.csv"
valid = "valid.csv"
test = "test.csv"

[label]
column = "click"

[[field]]
name = "user"

[[field]]
name = "age"

[[field]]
name = "ad"

[[field]]
name = "campaign"

[[field]]
name = "site"

[[field]]
name = "history"
kind = "sequence"
vocabulary = "ad"
repeats = true

[model]
kind = "fm"

[optimizer]
rows = { kind = "adagrad", lr = 0.05 }

[train]
epochs = 2
early_stop = { patience = 1 }
"#;

/// More rows than are scored at a time (4096), so that batches meet inside the file.
const TEST_ROWS: usize = 5000;

/// A generated log in three files, and a run file for them.
fn log() -> Folder {
    let folder = Folder::new();
    folder.succeed("data synth --out log.csv --rows 16000 --seed 3");
    let log = folder.read("log.csv");
    let (header, rows) = log.split_once('\n').unwrap();
    let rows: Vec<&str> = rows.lines().collect();
    assert_eq!(rows.len(), 16_000);
    for (name, part) in [
        ("train.csv", &rows[..10_000]),
        ("valid.csv", &rows[10_000..11_000]),
        ("test.csv", &rows[11_000..]),
    ] {
        folder.write(name, format!("{header}\n{}\n", part.join("\n")));
    }
    folder.write("ads.toml", RUN);
    folder
}

/// The same with a finished run `a`.
fn trained() -> Folder {
    let folder = log();
    folder.succeed("train ads.toml --out a");
    folder
}

fn predict(folder: &Folder, files: &str) -> Vec<String> {
    let output = folder.succeed(&format!("predict a --data {files}"));
    assert_eq!(output.stderr, "");
    output.stdout.lines().map(str::to_owned).collect()
}

fn rows_of(folder: &Folder, file: &str) -> (String, Vec<String>) {
    let text = folder.read(file);
    let (header, rows) = text.split_once('\n').unwrap();
    (header.to_owned(), rows.lines().map(str::to_owned).collect())
}

#[test]
fn predictions_stand_in_input_order_with_nine_significant_digits() {
    let folder = trained();
    let lines = predict(&folder, "test.csv");
    assert_eq!(lines.len(), TEST_ROWS);
    for line in &lines {
        let prob: f64 = line.parse().unwrap();
        assert!(0.0 < prob && prob < 1.0, "{line}");
        let mantissa = line.split('e').next().unwrap();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        assert_eq!(digits.trim_start_matches('0').len(), 9, "{line}");
    }
    let different = lines.iter().collect::<std::collections::BTreeSet<_>>();
    assert!(different.len() > 4000, "{} values", different.len());

    let (header, mut rows) = rows_of(&folder, "test.csv");
    rows.reverse();
    folder.write("reversed.csv", format!("{header}\n{}\n", rows.join("\n")));
    let mut reversed = predict(&folder, "reversed.csv");
    reversed.reverse();
    assert_eq!(reversed, lines);

    // Without labels: they are the first column.
    let unlabelled = folder.read("test.csv");
    let unlabelled: Vec<&str> = unlabelled
        .lines()
        .map(|line| line.split_once(',').unwrap().1)
        .collect();
    assert!(unlabelled[0].starts_with("time,user,"), "{}", unlabelled[0]);
    folder.write("unlabelled.csv", unlabelled.join("\n"));
    assert_eq!(predict(&folder, "unlabelled.csv"), lines);
}

#[test]
fn eval_predict_and_the_run_agree_on_the_logloss() {
    let folder = trained();
    let (_, rows) = rows_of(&folder, "test.csv");
    let probs = predict(&folder, "test.csv");
    let sum: f64 = rows
        .iter()
        .zip(&probs)
        .map(|(row, prob)| {
            let prob: f64 = prob.parse().unwrap();
            match row.split_once(',').unwrap().0 {
                "1" => -prob.ln(),
                "0" => -(1.0 - prob).ln(),
                label => panic!("{label}"),
            }
        })
        .sum();
    let logloss = sum / rows.len() as f64;
    let metrics = folder.metrics("a");
    let test = &metrics["test"];
    let of_run = test["logloss"].as_f64().unwrap();
    assert!((logloss - of_run).abs() < 1e-6, "{logloss} {of_run}");
    assert_eq!(test["rows"], 5000);

    // The figures that eval prints are those of the run, rounded.
    let printed = folder.succeed("eval a --data test.csv").stdout;
    let mut lines = printed.lines();
    let names: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let figures: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(lines.next(), None, "{printed}");
    assert_eq!(
        names,
        ["logloss", "AUC", "NE", "calib.", "ECE", "rows"],
        "{printed}"
    );
    let figure = |name: &str, digits: usize| format!("{:.*}", digits, test[name].as_f64().unwrap());
    assert_eq!(
        figures,
        [
            figure("logloss", 5),
            figure("auc", 5),
            figure("normalized_entropy", 4),
            figure("calibration", 4),
            figure("ece", 4),
            "5000".to_owned(),
        ]
    );
}

#[test]
fn how_rows_are_divided_does_not_matter() {
    let folder = trained();
    let (header, rows) = rows_of(&folder, "test.csv");
    for (name, part) in [("one.csv", &rows[..1]), ("rest.csv", &rows[1..])] {
        folder.write(name, format!("{header}\n{}\n", part.join("\n")));
    }
    let whole = predict(&folder, "test.csv");
    assert_eq!(predict(&folder, "one.csv rest.csv"), whole);
    assert_eq!(predict(&folder, "one.csv"), whole[..1]);
    assert_eq!(predict(&folder, "rest.csv"), whole[1..]);
    assert_eq!(
        folder.succeed("eval a --data one.csv rest.csv").stdout,
        folder.succeed("eval a --data test.csv").stdout
    );
}

#[test]
fn stdout_holds_the_table_and_nothing_else() {
    let folder = log();
    let output = folder.succeed("train ads.toml --out a");
    let lines: Vec<&str> = output.stdout.lines().collect();
    let starts: Vec<&str> = lines
        .iter()
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(
        starts,
        ["logloss", "train", "valid", "test", "constant"],
        "{}",
        output.stdout
    );
    for expected in [
        "part            rows",
        "tables: ",
        "run directory: a\nif interrupted: crossfield train --resume a\n",
        "epoch 1/2  train ",
        "saved in a",
    ] {
        assert!(output.stderr.contains(expected), "{}", output.stderr);
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = trained();
    // More than fits a pipe (64 KiB), so that the command does meet the closed one.
    let files = ["test.csv"; 4];
    let mut child = folder
        .crossfield()
        .args(["predict", "a", "--data"])
        .args(files)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut out = BufReader::with_capacity(64, child.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    drop(out);
    let mut errors = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut errors).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: {errors}");
    assert_eq!(errors, "");
    assert!((0.0..1.0).contains(&first.trim().parse::<f64>().unwrap()));
}

#[test]
fn early_stopping_needs_validation_rows() {
    let folder = log();
    folder.write("ads.toml", RUN.replace("valid = \"valid.csv\"\n", ""));
    let before = folder.names();
    let message = folder
        .fail("train ads.toml --set data.split.kind=random --set data.split.test=0.1 --out a");
    assert_eq!(
        message,
        "train.early_stop: needs validation rows: set data.valid, or valid in data.split"
    );
    assert_eq!(folder.names(), before);

    // Where nothing is said about parts, a tenth of the training rows is held out.
    let output = folder.succeed("train ads.toml --set train.epochs=1 --out a");
    assert!(
        output
            .stderr
            .starts_with("early stopping: a tenth of the training rows is held out"),
        "{}",
        output.stderr
    );
    let metrics = folder.metrics("a");
    assert_eq!(metrics["train"]["rows"], 9000);
    assert_eq!(metrics["valid"]["rows"], 1000);
    assert_eq!(metrics["test"]["rows"], 5000);
}

#[test]
fn empty_histories_and_unseen_values_have_finite_predictions() {
    let folder = trained();
    folder.write(
        "odd.csv",
        "user,age,ad,campaign,site,history\n\
         u1,25-34,a1,c1,s1,\n\
         nobody,never,none,none,nowhere,none|none\n\
         ,,,,,\n",
    );
    let lines = predict(&folder, "odd.csv");
    assert_eq!(lines.len(), 3);
    for line in &lines {
        let prob: f64 = line.parse().unwrap();
        assert!(0.0 < prob && prob < 1.0, "{line}");
    }
}

#[test]
fn set_overrides_keys_and_the_run_file_shows_it() {
    let folder = log();
    folder.succeed(
        "train ads.toml --out a --set train.epochs=1 --set optimizer.rows.lr=0.03 \
         --set data.train=valid.csv --set field.1.min_count=5 --set train.seed=9",
    );
    let run: toml::Table = folder.read("a/run.toml").parse().unwrap();
    assert_eq!(run["train"]["epochs"].as_integer(), Some(1));
    assert_eq!(run["train"]["seed"].as_integer(), Some(9));
    assert_eq!(run["optimizer"]["rows"]["lr"].as_float(), Some(0.03));
    assert_eq!(run["data"]["train"][0].as_str(), Some("valid.csv"));
    assert_eq!(run["field"][1]["min_count"].as_integer(), Some(5));
    let metrics = folder.metrics("a");
    assert_eq!(metrics["train"]["rows"], 1000);
    assert_eq!(folder.read("a/metrics.jsonl").lines().count(), 1);
}

#[test]
fn the_run_file_of_a_run_is_complete_and_trains_the_same_run() {
    let folder = trained();
    let text = folder.read("a/run.toml");
    let run: toml::Table = text.parse().unwrap();
    // Defaults that follow from the format and from the kinds of fields.
    assert_eq!(run["data"]["separator"].as_str(), Some(","));
    assert_eq!(run["data"]["header"].as_bool(), Some(true));
    assert_eq!(run["field"][0]["column"].as_str(), Some("user"));
    assert_eq!(run["field"][0]["min_count"].as_integer(), Some(1));
    assert_eq!(run["field"][5]["delimiter"].as_str(), Some("|"));
    assert_eq!(run["train"]["batch_size"].as_integer(), Some(1024));
    folder.succeed("train a/run.toml --out b");
    common::assert_same_files(&folder.files("b"), &folder.files("a"), "b");
}

#[test]
fn run_directories_are_numbered_by_default() {
    let folder = log();
    for expected in ["runs/ads", "runs/ads-2", "runs/ads-3"] {
        let output = folder.succeed("train ads.toml --set train.epochs=1");
        assert!(
            output.stderr.ends_with(&format!("saved in {expected}\n")),
            "{}",
            output.stderr
        );
        assert!(folder.path(expected).join("metrics.json").exists());
    }
    common::assert_same_files(
        &folder.files("runs/ads-2"),
        &folder.files("runs/ads"),
        "the second run",
    );
}

#[test]
fn what_models_prints_is_a_run_file() {
    let folder = log();
    let models = folder.succeed("models").stdout;
    let table: toml::Table = models.parse().unwrap();
    assert_eq!(
        table.keys().collect::<Vec<_>>(),
        ["data", "field", "label", "model", "optimizer", "train"]
    );
    assert_eq!(table["data"]["separator"].as_str(), Some(","));
    assert_eq!(table["field"][0]["min_count"].as_integer(), Some(1));
    assert_eq!(table["model"]["fm"]["embedding_dim"].as_integer(), Some(8));
    assert_eq!(table["model"]["ffm"]["embedding_dim"].as_integer(), Some(4));
    assert_eq!(table["optimizer"]["rows"]["kind"].as_str(), Some("adagrad"));
    assert_eq!(table["train"]["epochs"].as_integer(), Some(5));
    for key in [
        "# [[cross]]",
        "# fields = [\"bank\", \"clicked\"]",
        "# when = \"bank=kookmin AND clicked=travel\"",
        "# alpha = 1.0",
        "# max_norm = 1.0",
        "# [[model.din.behaviour]]",
        "# history = [\"history\", \"history_category\"]",
        "# init_from = \"runs/mf\"",
    ] {
        assert!(models.lines().any(|line| line == key), "{models}");
    }
    folder.write("models.toml", models);
    let sum = "--set model.sum=[\"wide\",\"deep\",\"fm\",\"ffm\",\"mf\",\"dot\",\"din\",\"attention\",\"sasrec\"] \
               --set model.mf.item=ad --set model.dot.right=[\"ad\"] \
               --set model.sasrec.target=ad --set model.sasrec.history=past";
    // A past of one ad, which is the row's own.
    let past = "{name=\"past\",kind=\"sequence\",column=\"ad\",vocabulary=\"ad\",repeats=true}";
    folder.succeed(&format!(
        "train models.toml {sum} --set data.train=train.csv --set label.column=click \
         --set field=[{{name=\"ad\"}},{{name=\"user\"}},{past}] --set train.epochs=1 --out a"
    ));
    let run: toml::Table = folder.read("a/run.toml").parse().unwrap();
    let (train, rows) = (&run["train"], &run["optimizer"]["rows"]);
    assert_eq!(rows, &table["optimizer"]["rows"]);
    assert_eq!(train["batch_size"], table["train"]["batch_size"]);
}

#[test]
fn stats_say_what_is_in_the_data() {
    let folder = log();
    let output = folder.succeed("data stats ads.toml");
    let parts: Vec<Vec<&str>> = output
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for (row, name, rows, file) in [
        (1, "train", "10,000", "train.csv"),
        (2, "valid", "1,000", "valid.csv"),
        (3, "test", "5,000", "test.csv"),
    ] {
        assert_eq!(
            (parts[row][0], parts[row][1], parts[row][3]),
            (name, rows, file),
            "{}",
            output.stdout
        );
    }
    assert_eq!(folder.names().len(), 5, "stats write nothing");
}
