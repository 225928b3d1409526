//! A disk that is full, and memory that is denied.

use std::fmt;

use crate::files;
use crate::scenario::Stage;
use crate::{Crossfield, Error, Scenario};

/// Largest sizes of a file, in the shell's blocks of 512 bytes or more.
const DISK: [u32; 7] = [0, 1, 4, 40, 150, 300, 2000];
/// Address space, in megabytes: from what the program itself hardly begins in. With less the system does
/// not load it.
const MEMORY: [u32; 8] = [39, 40, 41, 42, 43, 45, 48, 200];

/// What came of limits.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Runs under a limit.
    pub limited: usize,
    /// Of these, ended all the same.
    pub ended: usize,
    /// Of these, stopped with an error.
    pub refused: usize,
    /// Of these, ended by the runtime, with a message, for want of memory.
    pub out_of_memory: usize,
    /// Panics, silent ends, and runs that did not go on to the undisturbed end.
    pub failures: Vec<String>,
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} runs under limits: {} ended, {} stopped with an error, {} ran out of memory; {} failures",
            self.limited,
            self.ended,
            self.refused,
            self.out_of_memory,
            self.failures.len()
        )
    }
}

/// Runs a scenario under each limit, then without.
///
/// # Errors
/// What keeps the harness from going on.
pub fn starve(scenario: &'static Scenario, crossfield: &Crossfield) -> Result<Limits, Error> {
    let stage = Stage::new(scenario, crossfield)?;
    let mut limits = Limits::default();
    let disk = DISK.map(|blocks| format!("-f {blocks}"));
    let memory = MEMORY.map(|megabytes| format!("-v {}", megabytes * 1024));
    for limit in disk.into_iter().chain(memory) {
        let place = stage.place("starved")?;
        let outcome = crossfield.run_limited(&place, &limit, stage.next(&place)?)?;
        limits.limited += 1;
        let mut fails = |wrong: String| {
            let name = scenario.name;
            limits
                .failures
                .push(format!("{name}: ulimit {limit}: {wrong}"));
        };
        if outcome.succeeded() {
            limits.ended += 1;
        } else if outcome.refused() {
            limits.refused += 1;
        } else if outcome.ran_out_of_memory() {
            limits.out_of_memory += 1;
        } else {
            fails(format!("{:?}: {}", outcome.code, outcome.text));
        }
        let is_done = scenario.goes_on.is_none() && outcome.succeeded();
        if !is_done {
            let outcome = crossfield.run(&place, stage.next(&place)?)?;
            if !outcome.succeeded() {
                fails(format!("without the limit: {}", outcome.text));
                continue;
            }
        }
        if let Some(wrong) = files::difference(&files::read(&place)?, &stage.undisturbed) {
            fails(format!("without the limit: {wrong}"));
        }
    }
    Ok(limits)
}
