//! Models of down-sampled negatives predict the probabilities of the whole traffic.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::Folder;

const RUN: &str = r#"
[data]
train = "train.csv"
test = "test.csv"

[label]
column = "click"

[[field]]
name = "campaign"

[[field]]
name = "site"

[[field]]
name = "age"

[model]
kind = "wide"

[optimizer]
rows = { kind = "adagrad", lr = 0.05 }

[train]
epochs = 2
batch_size = 256
"#;

/// A planted log, in rows to train on and rows to test on.
fn log() -> Folder {
    let folder = Folder::new();
    folder.succeed("data synth --out log.csv --rows 30000 --seed 3");
    let log = folder.read("log.csv");
    let (header, rows) = log.split_once('\n').unwrap();
    let rows: Vec<&str> = rows.lines().collect();
    for (name, part) in [
        ("train.csv", &rows[..20_000]),
        ("test.csv", &rows[20_000..]),
    ] {
        folder.write(name, format!("{header}\n{}\n", part.join("\n")));
    }
    folder.write("ads.toml", RUN);
    folder
}

fn figure(folder: &Folder, run: &str, part: &str, figure: &str) -> f64 {
    let metrics = folder.metrics(run);
    metrics[part][figure].as_f64().unwrap()
}

fn predict(folder: &Folder, run: &str) -> Vec<f64> {
    let lines = folder
        .succeed(&format!("predict {run} --data test.csv"))
        .stdout;
    lines.lines().map(|line| line.parse().unwrap()).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn a_tenth_of_the_negatives_gives_the_probabilities_of_all() {
    let folder = log();
    for executor in ["burn", "fused"] {
        let batch = if executor == "fused" { "1" } else { "256" };
        let train = |out: &str, set: &str| {
            folder.succeed(&format!(
                "train ads.toml --out {out} --set train.executor={executor} \
                 --set train.batch_size={batch} --set data.valid=test.csv {set}"
            ))
        };
        let (whole, tenth) = (format!("{executor}-all"), format!("{executor}-tenth"));
        train(&whole, "");
        let said = train(&tenth, "--set data.keep_negatives=0.1").stderr;
        assert!(said.contains(" negatives of the training part kept (data.keep_negatives)"));
        // All parts are figures of the whole traffic, those of the constant too.
        for part in ["train", "test", "constant"] {
            let calibration = figure(&folder, &tenth, part, "calibration");
            assert!(
                (calibration - 1.0).abs() < 0.06,
                "{executor} {part} {calibration}"
            );
        }
        // So are those at the end of each epoch.
        let epochs = folder.read(&format!("{tenth}/metrics.jsonl"));
        let last: serde_json::Value = serde_json::from_str(epochs.lines().last().unwrap()).unwrap();
        let last = last["valid"]["calibration"].as_f64().unwrap();
        assert_eq!(last, figure(&folder, &tenth, "valid", "calibration"));
        for name in ["logloss", "normalized_entropy"] {
            let (all, some) = (
                figure(&folder, &whole, "test", name),
                figure(&folder, &tenth, "test", name),
            );
            assert!(
                (all / some - 1.0).abs() < 0.03,
                "{executor} {name} {all} {some}"
            );
        }
        let (all, some) = (predict(&folder, &whole), predict(&folder, &tenth));
        assert!((mean(&all) / mean(&some) - 1.0).abs() < 0.06);
        let state = folder.read(&format!("{tenth}/state.json"));
        assert!(state.contains("\"negative_rate\": 0.1"), "{state}");

        // The same model as if it were of all negatives: what the correction is for.
        let auc = folder
            .succeed(&format!("eval {tenth} --data test.csv"))
            .stdout;
        folder.write(
            &format!("{tenth}/state.json"),
            state.replace("\"negative_rate\": 0.1", "\"negative_rate\": 1.0"),
        );
        folder.list_again(&tenth);
        let raw = predict(&folder, &tenth);
        assert!(
            mean(&raw) / mean(&all) > 2.5,
            "{} {}",
            mean(&raw),
            mean(&all)
        );
        for (&p, &corrected) in raw.iter().zip(&some) {
            let by_hand = p / (p + (1.0 - p) / 0.1);
            assert!((corrected / by_hand - 1.0).abs() < 1e-7);
        }
        // Logloss, AUC, …: the order of the rows is the same.
        let second = |text: &str| {
            text.lines()
                .nth(1)
                .unwrap()
                .split_whitespace()
                .nth(1)
                .unwrap()
                .to_owned()
        };
        let uncorrected = folder
            .succeed(&format!("eval {tenth} --data test.csv"))
            .stdout;
        assert!(
            auc.contains("AUC") && second(&auc) == second(&uncorrected),
            "{auc}{uncorrected}"
        );
    }
}

#[test]
fn every_command_corrects_alike() {
    let folder = log();
    folder.succeed("train ads.toml --out a --set data.keep_negatives=0.1 --set train.epochs=1");
    let rows = folder.read("test.csv");
    let (header, first) = rows.split_once('\n').unwrap();
    let first = first.lines().next().unwrap();
    folder.write("one.csv", format!("{header}\n{first}\n"));
    let predicted = folder.succeed("predict a --data one.csv").stdout;
    let fused = folder
        .succeed("predict a --data one.csv --set train.executor=fused")
        .stdout;
    let value = |text: &str| text.trim().parse::<f64>().unwrap();
    assert!((value(&predicted) - value(&fused)).abs() < 1e-6);

    let columns: Vec<&str> = header.split(',').collect();
    let cells: Vec<&str> = first.split(',').collect();
    let of = |context: bool| {
        let kept = |all: &[&str]| {
            let pairs = columns.iter().zip(all);
            let kept = pairs.filter(|(name, _)| (**name == "age") == context && **name != "click");
            kept.map(|(_, cell)| *cell).collect::<Vec<_>>().join(",")
        };
        format!("{}\n{}\n", kept(&columns), kept(&cells))
    };
    folder.write("f.csv", of(true));
    folder.write("g.csv", of(false));
    let ranked = folder
        .succeed("rank a --context f.csv --candidates g.csv")
        .stdout;
    assert_eq!(ranked.split('\t').nth(1), Some(predicted.trim()));

    let text = folder.succeed("explain a --data one.csv").stdout;
    assert!(text.contains(&format!("prediction  {predicted}")), "{text}");
    assert!(text.contains(" -2.302585  down-sampling\n"), "{text}");
    let sum = text
        .lines()
        .last()
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    let prob = 1.0 / (1.0 + (-value(sum)).exp());
    assert!((prob - value(&predicted)).abs() < 1e-5, "{text}");
}

#[test]
fn files_that_were_down_sampled_before_need_only_say_so() {
    let folder = log();
    folder.succeed("train ads.toml --out a --set data.keep_negatives=0.1");
    let rows = folder.read("train.csv");
    let clicks = rows.lines().filter(|row| row.starts_with("1,")).count();
    assert!(clicks > 500, "the label is the first column");
    // One of ten negatives, as another program would have drawn them.
    let mut negatives = 0;
    let few = rows.lines().filter(|row| {
        negatives += usize::from(row.starts_with("0,"));
        !row.starts_with("0,") || negatives.is_multiple_of(10)
    });
    let few: Vec<&str> = few.collect();
    folder.write("few.csv", few.join("\n") + "\n");
    folder.succeed("train ads.toml --out b --set data.train=few.csv --set label.negative_rate=0.1");
    let (a, b) = (predict(&folder, "a"), predict(&folder, "b"));
    assert!((mean(&a) / mean(&b) - 1.0).abs() < 0.06);
    assert!((figure(&folder, "b", "test", "calibration") - 1.0).abs() < 0.06);
}

#[test]
fn shares_and_losses_that_cannot_be_are_refused() {
    let folder = Folder::new();
    folder.write("train.csv", "click,campaign,site,age\n1,a,b,c\n0,a,b,c\n");
    folder.write("test.csv", "click,campaign,site,age\n1,a,b,c\n0,a,b,c\n");
    folder.write("ads.toml", RUN);
    for (sets, expected) in [
        (
            "--set data.keep_negatives=0",
            "data.keep_negatives = 0: expected a share above 0, at most 1",
        ),
        (
            "--set label.negative_rate=2",
            "label.negative_rate = 2: expected a share above 0, at most 1",
        ),
        (
            "--set label.negative_rate=0.5 --set train.loss=probit",
            "train.loss: is probit: only with \"logistic\" are predictions corrected for \
             down-sampled negatives (0.5 of them, by label.negative_rate and data.keep_negatives)",
        ),
        (
            "--set data.keep_negatives=0.5 --set train.loss=squared",
            "train.loss: is squared: only with \"logistic\" are predictions corrected for \
             down-sampled negatives (0.5 of them, by label.negative_rate and data.keep_negatives)",
        ),
        (
            "--set data.keep_negatives=0.1",
            "data.keep_negatives = 0.1: expected a share that leaves one of the 1 negatives of the \
             training part",
        ),
    ] {
        assert_eq!(folder.fail(&format!("train ads.toml {sets}")), expected);
    }
}
