//! `cargo xtask bench all`: every model on every preset's data, on several seeds, as one table a data
//! set in benches/RESULTS.md and as a page beside it.
//!
//! A run that is finished in `target/bench-all` is not made again, so that an interrupted command goes
//! on where it was; without that folder all begins anew.

mod page;
mod plan;
mod runs;

use std::path::Path;
use std::process::ExitCode;

use plan::Plan;
use runs::Bench;

/// Where runs are left, below the root of the checkout.
const RUNS: &str = "target/bench-all";

fn main() -> ExitCode {
    match bench(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The first argument is the `crossfield` command; the others are texts of which a data set's name has
/// to hold one, if there are any.
fn bench(args: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let (crossfield, only) = args
        .split_first()
        .ok_or("expected the crossfield command")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()?;
    let plan = Plan::read(&root.join("benches/all.toml"))?;
    let picked = |name: &str| only.is_empty() || only.iter().any(|text| name.contains(text));
    let sets: Vec<_> = plan.data.iter().filter(|data| picked(&data.name)).collect();
    if sets.is_empty() {
        let names: Vec<&str> = plan.data.iter().map(|data| data.name.as_str()).collect();
        return Err(format!("no data set is called so; there are: {}", names.join("; ")).into());
    }
    let bench = Bench {
        root: &root,
        crossfield: Path::new(crossfield),
        seeds: &plan.seeds,
    };
    let mut failed = Vec::new();
    for data in sets {
        failed.extend(bench.run(data)?);
    }
    // What was run at other times is in the tables too.
    let tables: Vec<_> = plan.data.iter().map(|data| bench.table(data)).collect();
    page::write(&root, &plan, &tables)?;
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!("these failed: {}", failed.join("; ")).into())
}
