//! `tune`: settings that are searched for, on rows that are held out of the training part.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::{Duration, Instant};

use common::{DEEP_RUN, Draws, Folder, RICH_RUN, assert_same_files, fused_runs};

/// A small planted log in a file, of which shares are held out.
const RUN: &str = r#"
[data]
train = "log.csv"
split = { kind = "random", valid = 0.2, test = 0.1 }

[label]
column = "click"

[[field]]
name = "user"

[[field]]
name = "ad"

[[field]]
name = "site"

[model]
kind = "fm"

[optimizer]
rows = { kind = "adagrad", lr = 0.05 }

[train]
epochs = 4

[tune]
trials = 6

[tune.range]
"optimizer.rows.lr" = { low = 0.0001, high = 10.0, scale = "log" }
"model.fm.embedding_dim" = [2, 4]
"#;

fn log() -> Folder {
    let folder = Folder::new();
    folder.succeed("data synth --out log.csv --rows 3000 --seed 3");
    folder.write("run.toml", RUN);
    folder
}

/// The lines of a search, as JSON.
fn trials(folder: &Folder, search: &str) -> Vec<serde_json::Value> {
    let text = folder.read(&format!("{search}/trials.jsonl"));
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// The last line of each trial that has a figure, the best first.
fn best(lines: &[serde_json::Value]) -> &serde_json::Value {
    let figure = |line: &&serde_json::Value| line["figure"].as_f64().unwrap();
    let with = lines.iter().filter(|line| !line["figure"].is_null());
    with.min_by(|left, right| figure(left).total_cmp(&figure(right)))
        .unwrap()
}

#[test]
fn half_of_the_trials_go_on_at_each_rung_and_the_best_remains() {
    let folder = log();
    let output = folder.succeed("tune run.toml --out s --set tune.keep=0.5");
    let lines = trials(&folder, "s");
    let at = |rung: usize| -> Vec<&serde_json::Value> {
        lines.iter().filter(|line| line["rung"] == rung).collect()
    };
    // 6 trials of 1 epoch, 3 of 2, 2 of all 4.
    assert_eq!([1, 2, 3].map(|rung| at(rung).len()), [6, 3, 2]);
    assert!(at(4).is_empty());
    for (rung, epochs) in [(1, 1), (2, 2), (3, 4)] {
        assert!(
            at(rung).iter().all(|line| line["epochs"] == epochs),
            "{lines:?}"
        );
    }
    // Those with the lowest figures, by hand, the best first.
    for rung in [1, 2] {
        let mut order = at(rung);
        order.sort_by(|left, right| {
            let [left, right] = [left, right].map(|line| line["figure"].as_f64().unwrap());
            left.total_cmp(&right)
        });
        let expected: Vec<_> = order.iter().map(|line| &line["trial"]).collect();
        let went_on: Vec<_> = at(rung + 1).iter().map(|line| &line["trial"]).collect();
        assert_eq!(went_on, expected[..went_on.len()]);
    }
    // The first trial is the run file as it stands.
    assert_eq!(lines[0]["settings"], serde_json::json!({}));
    let best = best(&lines);
    let trial = best["trial"].to_string();
    let left: Vec<_> = folder.path("s/trials").read_dir().unwrap().collect();
    assert_eq!(left.len(), 1);
    assert!(
        folder
            .path(&format!("s/trials/{trial}/metrics.json"))
            .exists()
    );
    let row = output.stdout.lines().nth(1).unwrap().to_owned();
    assert!(
        row.trim_start().starts_with("1 ") && row.ends_with(&trial),
        "{row}"
    );
    assert!(
        output.stdout.lines().all(|line| line.chars().count() <= 40),
        "{}",
        output.stdout
    );
}

#[test]
fn a_better_rate_is_found_than_either_end_of_the_range() {
    let folder = log();
    folder.succeed("tune run.toml --out s");
    let found = best(&trials(&folder, "s"))["figure"].as_f64().unwrap();
    for (nth, lr) in ["0.0001", "10.0"].into_iter().enumerate() {
        folder.succeed(&format!(
            "train run.toml --out end-{nth} --set optimizer.rows.lr={lr}"
        ));
        let end = folder.metrics(&format!("end-{nth}"))["valid"]["logloss"].clone();
        assert!(
            found < end.as_f64().unwrap(),
            "lr {lr}: {end}, found {found}"
        );
    }
}

#[test]
fn best_toml_trains_to_the_figure_that_was_found_and_has_the_test_part_again() {
    let folder = log();
    folder.succeed("tune run.toml --out s");
    let found = best(&trials(&folder, "s")).clone();
    let text = folder.read("s/best.toml");
    assert!(!text.contains("[tune"), "{text}");
    assert!(
        text.contains(&format!("epochs = {}", found["epoch"])),
        "{text}"
    );
    folder.succeed("train s/best.toml --out b");
    let metrics = folder.metrics("b");
    assert_eq!(metrics["valid"]["logloss"], found["figure"]);
    assert_eq!(metrics["test"]["rows"], 300);
}

#[test]
fn training_ignores_the_section() {
    let folder = log();
    folder.succeed("train run.toml --out a --set train.epochs=1");
    assert!(!folder.read("a/run.toml").contains("tune"));
}

/// A trial that was paused at every rung ends as a run that nobody disturbed.
fn paused_is_undisturbed(run_file: &str, range: &str) {
    let folder = Folder::new();
    let tune = format!(
        "{run_file}\n[tune]\ntrials = 2\nkeep = 0.5\n[tune.range]\n\"data.keep_negatives\" = [1.0]\n\
         {range}\n"
    );
    folder.write("run.toml", tune);
    folder.succeed("tune run.toml --out s --set data.synth.rows=6000");
    let left = folder.path("s/trials").read_dir().unwrap().next().unwrap();
    let trial = format!("s/trials/{}", left.unwrap().file_name().to_str().unwrap());
    let rungs: Vec<_> = trials(&folder, "s")
        .iter()
        .map(|line| line["epochs"].as_u64().unwrap())
        .collect();
    assert!(
        rungs.iter().max() > rungs.iter().min(),
        "it was not paused: {rungs:?}"
    );
    let mut files = folder.files(&trial);
    // Trials have no test part; the run file of a search is the same but for that.
    folder.write("again.toml", folder.read(&format!("{trial}/run.toml")));
    folder.succeed("train again.toml --out undisturbed");
    let mut undisturbed = folder.files("undisturbed");
    let [trial, whole] = [&mut files, &mut undisturbed].map(|files| files.remove("metrics.json"));
    let read = |bytes: Option<Vec<u8>>| -> serde_json::Value {
        serde_json::from_slice(&bytes.unwrap()).unwrap()
    };
    let (trial, whole) = (read(trial), read(whole));
    for part in ["train", "valid"] {
        assert_eq!(trial[part], whole[part]);
    }
    assert!(trial["test"].is_null() && !whole["test"].is_null());
    assert_same_files(&files, &undisturbed, "the trial");
}

#[test]
fn a_trial_on_burn_is_the_undisturbed_run_to_the_bit() {
    paused_is_undisturbed(RICH_RUN, "");
}

#[test]
fn a_trial_with_dropout_and_running_statistics_is_the_undisturbed_run_to_the_bit() {
    paused_is_undisturbed(DEEP_RUN, "");
}

#[test]
fn a_fused_trial_is_the_undisturbed_run_to_the_bit() {
    let [(_, ffm), ..] = fused_runs();
    paused_is_undisturbed(&ffm, "");
}

#[test]
fn a_trial_of_a_solver_is_the_undisturbed_run_to_the_bit() {
    let mcmc = r#"
[data]
format = "synth"

[data.synth]
users = 300
ads = 100
campaigns = 20
sites = 10

[model]
kind = "fm"

[train]
executor = "mcmc"
loss = "probit"
epochs = 25
solver = { burn_in = 8, thin = 3 }
"#;
    paused_is_undisturbed(mcmc, "\"model.fm.embedding_dim\" = [2, 3]");
}

#[test]
fn a_search_that_is_killed_at_random_moments_ends_with_the_same_files() {
    let folder = log();
    let args = "--set tune.keep=0.5 --set train.epochs=6 --set train.checkpoint_every=3";
    let begin = Instant::now();
    folder.succeed(&format!("tune run.toml --out undisturbed {args}"));
    let duration = begin.elapsed().as_secs_f64();
    let without_clocks = |search: &str| {
        let mut files = folder.files(search);
        files.retain(|name, _| !name.ends_with("timing.jsonl"));
        files
    };
    let undisturbed = without_clocks("undisturbed");
    let mut draws = Draws(20_261_126);
    for round in 0..4 {
        let out = format!("killed-{round}");
        for kills in 0.. {
            let has_begun = folder.path(&out).join("tune.toml").exists();
            let args = if has_begun {
                format!("tune --resume {out}")
            } else {
                let _ = std::fs::remove_dir_all(folder.path(&out));
                format!("tune run.toml --out {out} {args}")
            };
            if kills == 4 {
                folder.succeed(&args);
                break;
            }
            let mut child = folder.start(&args);
            std::thread::sleep(Duration::from_secs_f64(draws.next() * duration * 0.8));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_same_files(&without_clocks(&out), &undisturbed, &out);
    }
}

#[test]
fn a_line_that_an_interrupt_came_upon_is_done_again() {
    let folder = log();
    folder.succeed("tune run.toml --out s --set tune.trials=2");
    let (whole, best) = (folder.read("s/trials.jsonl"), folder.read("s/best.toml"));
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let before = lines[..lines.len() - 1].concat();
    let last: serde_json::Value = serde_json::from_str(lines[lines.len() - 1]).unwrap();
    let trial = folder.path(&format!("s/trials/{}", last["trial"]));
    // Before the line was whole, and before it was listed.
    for interrupted in [&whole[..whole.len() - 20], &whole] {
        folder.write("s/trials.jsonl", &before);
        folder.list("s", &["trials.jsonl", "tune.toml"]);
        folder.write("s/trials.jsonl", interrupted);
        // Nor had the trial, which was finished, been cleaned up.
        assert!(trial.join("metrics.json").exists());
        std::fs::create_dir(trial.join("checkpoints")).unwrap();
        folder.succeed("tune --resume s");
        assert!(!trial.join("checkpoints").exists());
        assert_eq!(folder.read("s/trials.jsonl"), whole);
        assert_eq!(folder.read("s/best.toml"), best);
    }
    // What is listed was whole once.
    folder.write("s/trials.jsonl", &whole[..whole.len() - 20]);
    let (bytes, listed) = (whole.len() - 20, whole.len());
    assert_eq!(
        folder.fail("tune --resume s"),
        format!("`s/trials.jsonl` is damaged: it has {bytes} bytes, expected {listed}")
    );
}

#[test]
fn nothing_begins_when_the_time_is_over_and_the_search_goes_on_later() {
    let folder = log();
    let message = folder.fail("tune run.toml --out s --budget 0s");
    assert_eq!(
        message,
        "s: the time was over before the first trial had a figure"
    );
    folder.succeed("tune --resume s");
    folder.succeed("tune run.toml --out undisturbed");
    assert_eq!(
        folder.read("s/trials.jsonl"),
        folder.read("undisturbed/trials.jsonl")
    );
    assert_eq!(
        folder.read("s/best.toml"),
        folder.read("undisturbed/best.toml")
    );
    // And one that is finished has nothing left to do.
    let output = folder.succeed("tune --resume s --budget 0s");
    assert!(
        !output.stderr.contains("time was over"),
        "{}",
        output.stderr
    );
}

#[test]
fn rows_of_the_test_part_are_neither_trained_on_nor_measured() {
    let folder = log();
    folder.succeed("tune run.toml --out a");
    // A test file that is not there is not read, and takes no rows from the others.
    let log = folder.read("log.csv");
    let rows = "--set data.split={kind='random',valid=0.2} --set data.test=none.csv";
    folder.succeed(&format!("tune run.toml --out b --set tune.trials=2 {rows}"));
    let path = format!("b/trials/{}", best(&trials(&folder, "b"))["trial"]);
    assert!(folder.metrics(&path)["test"].is_null());
    assert_eq!(folder.metrics(&path)["train"]["rows"], 2400);

    // The first 300 rows test: what their labels are makes no difference.
    let numbers: String = (0..300).map(|row| format!("{row}\n")).collect();
    folder.write("test-rows", numbers);
    let rows = "--set data.split={kind='rows',test='test-rows',valid=0.2} --set tune.trials=3";
    folder.succeed(&format!("tune run.toml --out c {rows}"));
    let label = log
        .lines()
        .next()
        .unwrap()
        .split(',')
        .position(|name| name == "click");
    let turned = log.lines().enumerate().map(|(number, line)| {
        let mut cells: Vec<&str> = line.split(',').collect();
        if (1..=300).contains(&number) {
            let label = &mut cells[label.unwrap()];
            *label = if *label == "1" { "0" } else { "1" };
        }
        cells.join(",") + "\n"
    });
    let turned: String = turned.collect();
    assert_ne!(turned, log);
    folder.write("log.csv", turned);
    folder.succeed(&format!("tune run.toml --out d {rows}"));
    assert_eq!(folder.read("c/trials.jsonl"), folder.read("d/trials.jsonl"));
}

#[test]
fn a_trial_that_diverges_is_a_bad_trial_and_not_the_end() {
    let folder = log();
    let range = "tune.range={'optimizer.rows.lr'=[1e38],'optimizer.rows.kind'=['sgd']}";
    folder.write("run.toml", RUN.replace("[tune.range]", "[tune.none]"));
    let text = RUN.split("[tune]").next().unwrap();
    folder.write("run.toml", text);
    let output = folder.succeed(&format!("tune run.toml --out s --trials 3 --set {range}"));
    let lines = trials(&folder, "s");
    assert_eq!(best(&lines)["trial"], 1);
    for line in lines.iter().filter(|line| line["trial"] != 1) {
        assert!(line["figure"].is_null());
        let failed = line["failed"].as_str().unwrap();
        assert!(failed.contains("diverged"), "{failed}");
    }
    assert!(
        output
            .stdout
            .ends_with("2 trials have failed: trials.jsonl\n"),
        "{}",
        output.stdout
    );
    // If all fail there is nothing to write.
    let message = folder.fail(&format!(
        "tune run.toml --out t --trials 2 --set {range} --set optimizer.rows.kind=sgd --set \
         optimizer.rows.lr=1e38"
    ));
    assert!(
        message.starts_with("t: no trial has a figure; the first that failed: "),
        "{message}"
    );
    assert!(!folder.path("t/best.toml").exists());
}

#[test]
fn a_tenth_is_held_out_where_nothing_says_what_validates() {
    let folder = log();
    let text = RUN.replace("split = { kind = \"random\", valid = 0.2, test = 0.1 }", "");
    folder.write("run.toml", text);
    let output = folder.succeed("tune run.toml --out s --trials 2");
    let said = "a tenth of the training rows is held out to compare trials";
    assert!(output.stderr.contains(said), "{}", output.stderr);
    assert!(
        output.stderr.contains("2700 rows train, 300 validate"),
        "{}",
        output.stderr
    );
    // What was found is for all of the rows.
    assert!(!folder.read("s/best.toml").contains("split"));
    let message = folder.fail("tune run.toml --out t --set data.split={kind='random',test=0.1}");
    assert_eq!(
        message,
        "tune: compares trials on validation rows: set data.valid, or valid in data.split"
    );
}

#[test]
fn mistakes_are_named_before_anything_is_trained() {
    let folder = log();
    let no_range = RUN.split("[tune]").next().unwrap();
    folder.write("none.toml", no_range);
    let range = |range: &str| format!("tune none.toml --out s --set tune.range={range}");
    for (args, expected) in [
        (
            "tune none.toml --out s".to_owned(),
            "tune.range: names nothing to draw",
        ),
        (
            range("{'optimizer.rows.lrr'=[1]}"),
            "tune.range.\"optimizer.rows.lrr\" = 1: unknown key `optimizer.rows.lrr`: did you mean \
             `lr`?",
        ),
        (
            range("{'model.fm.embeding_dim'=[2]}"),
            "tune.range.\"model.fm.embeding_dim\" = 2: unknown key `model.fm.embeding_dim`: did you \
             mean `embedding_dim`?",
        ),
        (
            range("{'optimizer.table.0.l2'=[0.1]}"),
            "tune.range.\"optimizer.table.0.l2\" = 0.1: ",
        ),
        (
            range("{'model.fm.embedding_dim'={low=0,high=8,integer=true}}"),
            "tune.range.\"model.fm.embedding_dim\" = 0: `fm.embedding_dim` is 0: expected 1 to 1024",
        ),
        (
            range("{'optimizer.rows.lr'={low=1,high=0.1}}"),
            "tune.range.\"optimizer.rows.lr\": from 1 to 0.1: expected low ≤ high",
        ),
        (
            range("{'optimizer.rows.lr'={low=0,high=0.1,scale='log'}}"),
            "tune.range.\"optimizer.rows.lr\": scale = \"log\" from 0: expected low above 0",
        ),
        (
            range("{'optimizer.rows.lr'={low=-1,high=0.1}}"),
            "tune.range.\"optimizer.rows.lr\" = -1.0: ",
        ),
        (
            range("{'data.test'=['a.csv']}"),
            "tune.range.\"data.test\": the test part is not for",
        ),
        (
            range("{'train.seed'=[1,2]}"),
            "tune.range.\"train.seed\": is luck, not a setting",
        ),
        (
            "tune run.toml --out s --set tune.metric=loglos".to_owned(),
            "tune.metric: is `loglos`: did you mean `logloss`?",
        ),
        (
            "tune run.toml --out s --set tune.trails=3".to_owned(),
            "run.toml: unknown key `tune.trails`: did you mean `trials`?",
        ),
    ] {
        let message = folder.fail(&args);
        assert!(message.starts_with(expected), "{args}\n{message}");
        assert!(!folder.path("s").exists(), "{args} has left a folder");
    }
}

#[test]
fn trials_are_compared_by_the_figure_that_is_asked_for() {
    let folder = log();
    folder.succeed("tune run.toml --out s --trials 4 --set tune.metric=auc");
    let lines = trials(&folder, "s");
    let first: Vec<(f64, &serde_json::Value)> = lines
        .iter()
        .filter(|line| line["rung"] == 1)
        .map(|line| (line["figure"].as_f64().unwrap(), &line["trial"]))
        .collect();
    let highest = first
        .iter()
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .unwrap();
    let went_on = lines.iter().find(|line| line["rung"] == 2).unwrap();
    assert_eq!(&went_on["trial"], highest.1);
    assert!(lines.iter().all(|line| line["metric"] == "auc"));
}
