//! Killed at any moment, a run ends with the same bytes as if it had not been.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::{Duration, Instant};

use common::{DEEP_RUN, Draws, Folder, RICH_RUN, assert_same_files, fused_runs};

/// Kills `rounds` runs of a run file at random moments; each ends as an undisturbed one does.
fn killed_runs_end_with_the_same_bytes(run_file: &str, rounds: usize, seed: u64) {
    let folder = Folder::new();
    folder.write("rich.toml", run_file);
    let begin = Instant::now();
    folder.succeed("train rich.toml --out undisturbed");
    let duration = begin.elapsed().as_secs_f64();
    let undisturbed = folder.files("undisturbed");
    assert!(undisturbed.contains_key("metrics.json"));

    println!("seed {seed}, undisturbed {duration:.2} s");
    let mut draws = Draws(seed);
    for round in 0..rounds {
        let out = format!("killed-{round}");
        let mut killed_after = Vec::new();
        loop {
            let has_begun = folder.path(&out).join("run.toml").exists();
            let args = if has_begun {
                format!("train --resume {out}")
            } else {
                // Killed before there was a run: it is started anew.
                let _ = std::fs::remove_dir_all(folder.path(&out));
                format!("train rich.toml --out {out}")
            };
            // The first process of a round is killed in any case, later ones now and then.
            let kills = killed_after.len();
            if kills > 0 && (kills == 4 || draws.next() > 0.4) {
                folder.succeed(&args);
                break;
            }
            let delay = draws.next() * duration;
            let mut child = folder.start(&args);
            std::thread::sleep(Duration::from_secs_f64(delay));
            child.kill().unwrap();
            child.wait().unwrap();
            killed_after.push(format!("{delay:.3}"));
        }
        println!("round {round}: killed after {} s", killed_after.join(", "));
        assert_same_files(&folder.files(&out), &undisturbed, &out);
    }
}

#[test]
fn a_run_that_is_killed_at_random_moments_ends_with_the_same_bytes() {
    killed_runs_end_with_the_same_bytes(RICH_RUN, 10, 20_261_124);
}

#[test]
fn a_run_with_dropout_and_running_statistics_ends_with_the_same_bytes_when_it_is_killed() {
    killed_runs_end_with_the_same_bytes(DEEP_RUN, 4, 20_261_129);
}

#[test]
fn a_fused_run_that_is_killed_at_random_moments_ends_with_the_same_bytes() {
    for (at, (name, run_file)) in fused_runs().into_iter().enumerate() {
        println!("{name}");
        killed_runs_end_with_the_same_bytes(&run_file, 3, 20_261_125 + at as u64);
    }
}

#[test]
fn a_run_with_mapped_tables_ends_with_the_same_bytes_when_it_is_killed() {
    let mapped = |run_file: &str| {
        let mapped = "[[optimizer.table]]\nmatch = \"v8.*\"\nstorage = \"mapped\"\n\n[train]\n";
        run_file.replace("[train]\n", mapped)
    };
    killed_runs_end_with_the_same_bytes(&mapped(RICH_RUN), 4, 20_261_126);
    let [.., (_, fm), _] = fused_runs();
    killed_runs_end_with_the_same_bytes(&mapped(&fm), 4, 20_261_127);
}

#[test]
fn a_publication_that_was_interrupted_is_completed_without_leftovers() {
    let folder = Folder::new();
    folder.write("rich.toml", RICH_RUN);
    folder.succeed("train rich.toml --out undisturbed");
    // A folder where a file is about to be written stops the run after the model was published
    // and before its figures were.
    folder.interrupt("rich.toml", "a");
    std::fs::create_dir(folder.path("a/metrics.json.part")).unwrap();
    let message = folder.fail("train --resume a");
    assert!(
        message.starts_with("a/metrics.json.part: cannot write: "),
        "{message}"
    );
    assert!(folder.path("a/model.safetensors").exists());
    std::fs::remove_dir(folder.path("a/metrics.json.part")).unwrap();
    folder.succeed("train --resume a");
    assert_same_files(
        &folder.files("a"),
        &folder.files("undisturbed"),
        "interrupted",
    );
}

#[test]
fn a_finished_run_stays_as_it_is() {
    let folder = Folder::new();
    folder.write("rich.toml", RICH_RUN);
    folder.succeed("train rich.toml --out a --set train.epochs=1");
    let finished = folder.files("a");
    // What a kill between the last file and the last clean-up leaves.
    std::fs::create_dir_all(folder.path("a/checkpoints/step-0000000047")).unwrap();
    let output = folder.succeed("train --resume a");
    assert_eq!(output.stderr, "a is finished; nothing to do\n");
    assert_same_files(&folder.files("a"), &finished, "resumed");
}
