//! Wide & Deep from the command line: parts alone and together, explanations, mistakes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{DEEP_RUN, Folder};

const SMALL: &str = "--set data.synth.rows=8000 --set train.epochs=2 --set train.batch_size=256";

fn logloss(metrics: &serde_json::Value, part: &str) -> f64 {
    metrics[part]["logloss"].as_f64().unwrap()
}

/// Names of the tensors of a file, from its header.
fn tensors(folder: &Folder, file: &str) -> Vec<String> {
    let bytes = std::fs::read(folder.path(file)).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let names = header.as_object().unwrap().keys().cloned();
    names.filter(|name| name != "__metadata__").collect()
}

#[test]
fn each_part_learns_alone_and_together() {
    let folder = Folder::new();
    folder.write(
        "a.toml",
        "[data]\nformat = 'synth'\n[data.synth]\nusers = 200\nads = 100\ncampaigns = 20\n\
         sites = 20\n[model]\nkind = 'deep'\n[optimizer]\ndense = { kind = 'adagrad', lr = 0.02 }\n",
    );
    for (out, model) in [
        ("wide", "{kind=\"wide\"}"),
        ("deep", "{kind=\"deep\"}"),
        ("both", "{sum=[\"wide\",\"deep\"]}"),
        // DeepFM: vectors that the FM and the deep part share.
        (
            "deepfm",
            "{sum=[\"wide\",\"fm\",\"deep\"],fm={linear=false}}",
        ),
    ] {
        folder.succeed(&format!(
            "train a.toml --out {out} {SMALL} --set model={model}"
        ));
        let metrics = folder.metrics(out);
        let (model, constant) = (logloss(&metrics, "test"), logloss(&metrics, "constant"));
        println!("{out}: {model} {constant}");
        assert!(model < constant, "{out}: {model} {constant}");
    }
    let vectors = |run: &str| -> Vec<String> {
        let names = tensors(&folder, &format!("{run}/model.safetensors"));
        names
            .into_iter()
            .filter(|name| name.contains("v8."))
            .collect()
    };
    assert!(!vectors("deep").is_empty());
    assert_eq!(vectors("deepfm"), vectors("deep"));
    assert!(vectors("wide").is_empty());
}

#[test]
fn a_finished_run_predicts_and_explains_as_it_was_measured() {
    let folder = Folder::new();
    folder.write("deep.toml", DEEP_RUN);
    folder.succeed(&format!("train deep.toml --out a {SMALL}"));
    folder.succeed("data synth --out rows.csv --rows 50 --seed 7");
    let predicted = folder.succeed("predict a --data rows.csv").stdout;
    let first: f64 = predicted.lines().next().unwrap().parse().unwrap();
    let text = folder.succeed("explain a --data rows.csv --row 1").stdout;
    let number = |line: &str| -> f64 { line.split_whitespace().next().unwrap().parse().unwrap() };
    let prediction = text
        .lines()
        .nth(1)
        .unwrap()
        .strip_prefix("prediction")
        .unwrap();
    assert!((number(prediction) - first).abs() < 1e-6, "{text}");
    // Each deep part is one line, under the name that the run file gives it.
    for name in ["deep", "gelu", "silu", "tanh", "sigmoid"] {
        let of_name = text
            .lines()
            .filter(|line| line.ends_with(&format!("  {name}")));
        assert_eq!(of_name.count(), 1, "{name}: {text}");
    }
}

#[test]
fn mistakes_in_a_deep_part_are_named_before_there_is_a_run() {
    let folder = Folder::new();
    folder.write("deep.toml", DEEP_RUN);
    for (set, expected) in [
        (
            "model.deep.dropout=1.0",
            "`deep.dropout` is 1: expected a probability of at least 0 and below 1",
        ),
        (
            "model.tanh.residual=true",
            "`tanh.residual` is true with layers of ",
        ),
        (
            "model.silu.hidden=[]",
            "`silu.norm` is batch: expected none, for there is no hidden layer",
        ),
        (
            "model.gelu.activation=\"glu\"",
            "unknown value `glu` of `model.gelu`: did you mean `gelu`? (known: relu, gelu, silu, tanh, \
             sigmoid, prelu, dice)",
        ),
        (
            "model.deep.norm=\"bach\"",
            "unknown value `bach` of `model.deep`: did you mean `batch`? (known: none, batch, layer)",
        ),
    ] {
        let message = folder.fail(&format!("train deep.toml --out a --set {set}"));
        assert!(message.contains(expected), "{set}: {message}");
        assert!(!folder.path("a").exists());
    }
    folder.write(
        "alone.toml",
        "[data]\nformat = 'synth'\n[model]\nkind = 'deep'\n",
    );
    let message = folder.fail("train alone.toml --out a --set train.executor=fused");
    assert!(
        message.contains("the fused executor has no `deep`; executor = \"burn\" has"),
        "{message}"
    );
}

#[test]
fn wide_and_deep_is_ahead_of_logistic_regression_on_adult() {
    if std::env::var_os("CROSSFIELD_DATA").is_none() {
        println!("skipped: CROSSFIELD_DATA is not set");
        return;
    }
    let folder = Folder::new();
    let configs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs");
    for (out, preset) in [("both", "adult-wide-deep"), ("lr", "adult")] {
        folder.succeed(&format!("train {configs}/{preset}.toml --out {out}"));
    }
    let [both, lr] = ["both", "lr"].map(|run| folder.metrics(run));
    let difference = logloss(&lr, "test") - logloss(&both, "test");
    // A standard error of the difference, row by row, is .0013; seeds differ by .0012.
    assert!(difference > 0.008, "{difference}");
    assert!(logloss(&both, "test") <= 0.279, "{both}");
    assert!(both["test"]["auc"].as_f64().unwrap() >= 0.926, "{both}");
}
