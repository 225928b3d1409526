//! The counts of every change; `cargo xtask faults` has the full ones.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crossfield_faults::{ALL, Crossfield, corrupt, kill};

const KILLS: usize = 20;
const CORRUPTIONS: usize = 500;

/// The share of a count that falls to a scenario.
fn share(count: usize, nth: usize) -> usize {
    count / ALL.len() + usize::from(nth < count % ALL.len())
}

#[test]
fn killed_runs_end_as_undisturbed_ones() {
    let crossfield = Crossfield::built().unwrap();
    for (nth, scenario) in ALL.iter().enumerate() {
        let kills = kill(scenario, &crossfield, share(KILLS, nth), nth as u64).unwrap();
        println!("{}: {kills}", scenario.name);
        assert!(kills.failures.is_empty(), "{}", kills.failures.join("\n"));
    }
}

#[test]
fn damaged_files_are_refused_by_name_and_caches_built_anew() {
    let crossfield = Crossfield::built().unwrap();
    for (nth, scenario) in ALL.iter().enumerate() {
        let done = corrupt(scenario, &crossfield, share(CORRUPTIONS, nth), nth as u64).unwrap();
        println!("{}: {done}", scenario.name);
        let failures: Vec<&str> = done.failures().map(String::as_str).collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        let noticed = done.refused + done.built_anew + done.led_back;
        assert_eq!(noticed, share(CORRUPTIONS, nth));
    }
}
