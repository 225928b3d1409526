//! The same seed gives the same bytes, whatever the number of threads.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{DEEP_RUN, Folder, RICH_RUN};

/// Large batches and wide rows, so that the tensor operations are worth sharing among threads.
const LARGE: &str = "--set train.batch_size=4096 --set model.fm.embedding_dim=32 \
                     --set train.epochs=2 --set train.checkpoint_every=0";

const LARGE_DEEP: &str = "--set train.batch_size=4096 --set model.deep.hidden=[160,160] \
                          --set model.gelu.hidden=[160] --set model.silu.hidden=[160] \
                          --set model.tanh.hidden=[160] --set model.sigmoid.hidden=[160] \
                          --set train.epochs=2 --set train.checkpoint_every=0";

fn same_seed_same_bytes(run_file: &str, sets: &str) {
    let folder = Folder::new();
    folder.write("rich.toml", run_file);
    let train = |out: &str, more: &str| {
        folder.succeed(&format!("train rich.toml --out {out} {sets} {more}"));
        folder.files(out)
    };
    let one = train("one", "--set train.threads=1");
    for threads in [2, 4] {
        let out = format!("threads-{threads}");
        let mut more = train(&out, &format!("--set train.threads={threads}"));
        let run_file = String::from_utf8(more["run.toml"].clone()).unwrap();
        let key = format!("threads = {threads}\n");
        assert!(run_file.contains(&key), "{run_file}");
        more.insert(
            "run.toml".to_owned(),
            run_file.replace(&key, "threads = 1\n").into_bytes(),
        );
        common::assert_same_files(&more, &one, &out);
    }
    common::assert_same_files(&train("again", "--set train.threads=1"), &one, "again");

    let other = train("other", "--set train.threads=1 --set train.seed=2");
    for name in [
        "model.safetensors",
        "optimizer.safetensors",
        "metrics.json",
        "state.json",
    ] {
        assert!(other[name] != one[name], "{name} does not follow the seed");
    }
}

#[test]
fn same_seed_same_bytes_at_any_number_of_threads() {
    same_seed_same_bytes(RICH_RUN, &format!("{LARGE} --device flex"));
}

/// Layers wide enough that their products are shared among threads.
#[test]
fn wide_and_deep_gives_the_same_bytes_at_any_number_of_threads() {
    let run_file = RICH_RUN.replace(r#"["wide", "fm"]"#, r#"["wide", "deep"]"#);
    let sets = "--set train.batch_size=2048 --set data.synth.rows=8000 --set train.epochs=2 \
                --set train.checkpoint_every=0";
    same_seed_same_bytes(&run_file, sets);
}

#[test]
fn deep_parts_give_the_same_bytes_at_any_number_of_threads() {
    same_seed_same_bytes(DEEP_RUN, &format!("{LARGE_DEEP} --device flex"));
}

#[test]
fn fused_runs_give_the_same_bytes_at_any_number_of_threads() {
    for (name, run_file) in common::fused_runs() {
        println!("{name}");
        same_seed_same_bytes(&run_file, "--set train.epochs=2 --set data.synth.rows=1000");
    }
}

#[cfg(feature = "ndarray")]
#[test]
fn ndarray_gives_the_same_bytes_at_any_number_of_threads() {
    same_seed_same_bytes(RICH_RUN, &format!("{LARGE} --device ndarray"));
    same_seed_same_bytes(DEEP_RUN, &format!("{LARGE_DEEP} --device ndarray"));
}

/// The two backends add up in another order, so that each step rounds differently by some units
/// of 2⁻²⁴ relative to the logit, and AdaGrad divides such differences by a root that is never
/// below the gradient itself: they stay of that order. Over the 12 steps here 1e-5 leaves a
/// hundredfold margin to one rounding and is far below what any mistake in an operation gives.
#[cfg(feature = "ndarray")]
#[test]
fn ndarray_trains_as_flex_does() {
    let folder = Folder::new();
    folder.write("rich.toml", RICH_RUN);
    folder.succeed("data synth --out rows.csv --rows 2000 --seed 7");
    let outcome = |device: &str| {
        folder.succeed(&format!(
            "train rich.toml --out {device} --device {device} {LARGE} \
             --set optimizer.rows.kind=adagrad"
        ));
        let metrics = folder.metrics(device);
        let logloss = metrics["test"]["logloss"].as_f64().unwrap();
        let printed = folder
            .succeed(&format!("predict {device} --data rows.csv"))
            .stdout;
        let probs: Vec<f64> = printed.lines().map(|line| line.parse().unwrap()).collect();
        (logloss, probs)
    };
    let (flex, ndarray) = (outcome("flex"), outcome("ndarray"));
    assert!(
        (flex.0 - ndarray.0).abs() < 1e-5,
        "{} {}",
        flex.0,
        ndarray.0
    );
    assert_eq!((flex.1.len(), ndarray.1.len()), (2000, 2000));
    let furthest = flex.1.iter().zip(&ndarray.1).map(|(a, b)| (a - b).abs());
    let furthest = furthest.fold(0.0, f64::max);
    println!("furthest apart: {furthest:e}");
    assert!(furthest < 1e-5, "{furthest}");
}
