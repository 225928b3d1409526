//! Experiments on generated rows, whose truth is known: `demo NAME [SEED]`. `cargo xtask demo` runs
//! them, and the chapters of docs/guide tell what they show.

mod attention;
mod fields;
mod memorise_generalise;
mod neighbours;
mod one_hot;
mod planted;
mod runs;
mod transfer;
mod warm_start;

use std::path::Path;

use runs::Failure;

/// Settings were chosen on the seeds 101 to 103.
const SEED: u64 = 1;
const NAMES: &str =
    "one-hot, neighbours, warm-start, transfer, fields, memorise-generalise or attention";

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let seed = args.next().map_or(Ok(SEED), |seed| seed.parse())?;
    match name.as_str() {
        "one-hot" => print!("{}", one_hot::report(&one_hot::run(seed, one_hot::MOST)?)),
        "neighbours" => {
            let outcome = neighbours::run(seed)?;
            print!("{}", neighbours::report(&outcome));
            drawn("neighbours.svg", |file| neighbours::draw(&outcome, file))?;
            match neighbours::films(seed)? {
                Some(films) => print!("{films}"),
                None => eprintln!("no films: CROSSFIELD_DATA names no folder with ml-100k"),
            }
        }
        "warm-start" => {
            let outcomes = warm_start::run(seed)?;
            print!("{}", warm_start::report(&outcomes));
            drawn("warm-start.svg", |file| warm_start::draw(&outcomes, file))?;
        }
        "memorise-generalise" => {
            print!(
                "{}",
                memorise_generalise::report(&memorise_generalise::run(seed)?)
            );
        }
        "attention" => {
            let outcomes = attention::run(seed)?;
            print!("{}", attention::report(&outcomes));
            drawn("attention.svg", |file| attention::draw_map(&outcomes, file))?;
        }
        "transfer" => print!("{}", transfer::report(&transfer::run(seed)?)),
        "fields" => print!("{}", fields::report(&fields::run(seed)?)),
        _ => return Err(format!("expected {NAMES}, and then a seed if you like").into()),
    }
    Ok(())
}

/// Draws beside the runs, and says where.
fn drawn(name: &str, draw: impl Fn(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    let folder = Path::new("runs");
    std::fs::create_dir_all(folder)?;
    let file = folder.join(name);
    draw(&file)?;
    println!("\ndrawn in {}", file.display());
    Ok(())
}
