//! `faults`: kills, damages and starves small runs, and prints what came of it.

use std::process::ExitCode;

use clap::Parser;
use crossfield_faults::{ALL, Crossfield, Error, Scenario, corrupt, kill, starve};

/// Kills, damages and starves small runs of the built `crossfield`, and counts what is lost.
#[derive(Parser, Debug)]
struct Args {
    /// Processes that are killed, over all scenarios.
    #[arg(long, default_value_t = 1000)]
    kills: usize,
    /// Files that are damaged, over all scenarios.
    #[arg(long, default_value_t = 10_000)]
    corruptions: usize,
    /// Leaves out full disks and denied memory.
    #[arg(long)]
    no_limits: bool,
    /// Seed of what is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Scenarios, by name [default: all].
    scenarios: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(failures) => {
            for failure in &failures {
                eprintln!("{failure}\n");
            }
            eprintln!("{} failures", failures.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<Vec<String>, Error> {
    let crossfield = Crossfield::built()?;
    let asked = |scenario: &&Scenario| {
        args.scenarios.is_empty() || args.scenarios.iter().any(|name| name == scenario.name)
    };
    let scenarios: Vec<&'static Scenario> = ALL.iter().filter(asked).collect();
    let share = |count: usize, nth: usize| {
        let each = count / scenarios.len();
        each + usize::from(nth < count % scenarios.len())
    };
    let mut failures = Vec::new();
    for (nth, &scenario) in scenarios.iter().enumerate() {
        let seed = args.seed.wrapping_mul(1000).wrapping_add(nth as u64);
        let name = scenario.name;
        let kills = kill(scenario, &crossfield, share(args.kills, nth), seed)?;
        println!("{name:<10} {kills}");
        failures.extend(kills.failures);
        let damaged = corrupt(scenario, &crossfield, share(args.corruptions, nth), seed)?;
        println!("{name:<10} {damaged}");
        failures.extend(damaged.failures().cloned());
        if !args.no_limits {
            let starved = starve(scenario, &crossfield)?;
            println!("{name:<10} {starved}");
            failures.extend(starved.failures);
        }
    }
    Ok(failures)
}
