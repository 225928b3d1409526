//! `[model] average`: runs that are the mean of other runs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::Folder;

/// Runs of an FM and of a linear model on the same 300 clicks and 100 validation rows.
fn runs() -> Folder {
    let folder = Folder::new();
    let mut rows = String::from("a,b,click\n");
    for row in 0..400 {
        let (a, b) = (row % 7, row % 5);
        let click = i32::from((a + b) % 3 == 0 || row % 11 == 0);
        rows += &format!("{a},{b},{click}\n");
    }
    folder.write("rows.csv", &rows);
    for (name, kind, seed) in [("fm", "fm", 1), ("wide", "wide", 1), ("other", "fm", 2)] {
        folder.write(
            &format!("{name}.toml"),
            format!(
                "[data]\ntrain = 'rows.csv'\nsplit = {{ kind = 'random', valid = 0.25 }}\n\
                 [label]\ncolumn = 'click'\n[[field]]\nname = 'a'\n[[field]]\nname = 'b'\n\
                 [model]\nkind = '{kind}'\n[train]\nepochs = 20\nbatch_size = 64\nseed = {seed}\n"
            ),
        );
        folder.succeed(&format!("train {name}.toml --out {name}"));
    }
    folder
}

fn predictions(text: &str) -> Vec<f64> {
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn an_average_is_of_logits_by_the_weights_that_validation_rows_like_best() {
    let folder = runs();
    folder.write("mix.toml", "[model]\naverage = ['fm', 'wide']\n");
    let trained = folder.succeed("train mix.toml --out mix");
    assert!(
        trained.stdout.contains("validation rows"),
        "{}",
        trained.stdout
    );
    let run: toml::Table = folder.read("mix/run.toml").parse().unwrap();
    let weights: Vec<f64> = run["model"]["weights"].clone().try_into().unwrap();
    assert!(
        (weights.iter().sum::<f64>() - 1.0).abs() < 1e-9,
        "{weights:?}"
    );
    let logloss = |run: &str| folder.metrics(run)["valid"]["logloss"].as_f64().unwrap();
    let best = logloss("fm").min(logloss("wide"));
    assert!(logloss("mix") <= best + 1e-6, "{} {best}", logloss("mix"));

    // The members are copies: what becomes of the runs is nothing to their average.
    let parts = ["fm", "wide"].map(|run| {
        predictions(
            &folder
                .succeed(&format!("predict {run} --data rows.csv"))
                .stdout,
        )
    });
    std::fs::remove_dir_all(folder.path("fm")).unwrap();
    let average = predictions(&folder.succeed("predict mix --data rows.csv").stdout);
    let logit = |prob: f64| (prob / (1.0 - prob)).ln();
    for row in 0..average.len() {
        let expected = weights[0] * logit(parts[0][row]) + weights[1] * logit(parts[1][row]);
        assert!((logit(average[row]) - expected).abs() < 1e-6, "row {row}");
    }
    let figures = folder.succeed("eval mix --data rows.csv").stdout;
    assert!(figures.contains("logloss"), "{figures}");
    let refused = folder.fail("explain mix --data rows.csv --row 1");
    assert!(refused.contains("is an average of runs"), "{refused}");
}

#[test]
fn given_weights_are_taken_in_proportion_and_bad_ones_refused() {
    let folder = runs();
    folder.write(
        "mix.toml",
        "[model]\naverage = ['fm', 'wide']\nweights = [3, 1]\n",
    );
    folder.succeed("train mix.toml --out mix");
    let run: toml::Table = folder.read("mix/run.toml").parse().unwrap();
    assert_eq!(run["model"]["weights"].to_string(), "[0.75, 0.25]");
    for (model, expected) in [
        ("average = ['fm']", "names 1 run: expected two or more"),
        (
            "average = ['fm', 'wide']\nweights = [1]",
            "has 1 numbers: expected 2, one a run",
        ),
        (
            "average = ['fm', 'wide']\nweights = [1, -1]",
            "has -1: expected finite numbers from 0",
        ),
        (
            "average = ['fm', 'wide']\nweights = [0, 0]",
            "is all 0: expected one above it",
        ),
        ("average = ['fm', 'nowhere']", "nowhere/run.toml"),
        (
            "average = ['fm', 'other']",
            "other differs from fm on validation rows: label",
        ),
        (
            "average = ['fm', 'wide']\nwieghts = [1, 1]",
            "did you mean `weights`?",
        ),
        ("average = ['fm', 'mix']", "mix: is an average of runs"),
    ] {
        folder.write("bad.toml", format!("[model]\n{model}\n"));
        let message = folder.fail("train bad.toml --out bad");
        assert!(message.contains(expected), "{model}: {message}");
        assert!(!folder.path("bad").exists(), "{model}");
    }
}

#[test]
fn without_validation_rows_the_weights_must_be_given() {
    let folder = runs();
    let text = folder
        .read("fm.toml")
        .replace("valid = 0.25", "test = 0.25");
    for name in ["one", "two"] {
        let kind = if name == "one" { "fm" } else { "wide" };
        folder.write(
            &format!("{name}.toml"),
            text.replace("'fm'", &format!("'{kind}'")),
        );
        folder.succeed(&format!("train {name}.toml --out {name}"));
    }
    folder.write("mix.toml", "[model]\naverage = ['one', 'two']\n");
    let message = folder.fail("train mix.toml --out mix");
    assert!(message.contains("model.weights"), "{message}");
    assert!(
        message.contains("expected a weight for each run"),
        "{message}"
    );
    folder.succeed("train mix.toml --set model.weights=[1,1] --out mix");
    assert!(folder.metrics("mix")["test"]["logloss"].is_number());
    assert!(folder.metrics("mix")["constant"]["logloss"].is_number());
}
