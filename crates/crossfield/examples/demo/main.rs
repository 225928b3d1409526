//! Experiments on generated rows, whose truth is known: `demo NAME [SEED]`. `cargo xtask demo` runs
//! them, and the chapters of docs/guide tell what they show.

mod attention;
mod bars;
mod combine;
mod fields;
mod memorise_generalise;
mod mix;
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
const NAMES: &str = "one-hot, neighbours, combine, warm-start, transfer, fields, \
                     memorise-generalise, attention or mix";

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let seed = args.next().map_or(Ok(SEED), |seed| seed.parse())?;
    match name.as_str() {
        "one-hot" => {
            let outcomes = one_hot::run(seed, one_hot::MOST)?;
            print!("{}", one_hot::report(&outcomes));
            drawn("one-hot.svg", |file| one_hot::draw(&outcomes, file))?;
        }
        "combine" => {
            let outcomes = combine::run(seed)?;
            print!("{}", combine::report(&outcomes));
            drawn("combine.svg", |file| combine::draw(&outcomes, file))?;
        }
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
            let outcomes = memorise_generalise::run(seed)?;
            print!("{}", memorise_generalise::report(&outcomes));
            drawn("memorise-generalise.svg", |file| {
                memorise_generalise::draw(&outcomes, file)
            })?;
        }
        "attention" => {
            let outcomes = attention::run(seed)?;
            print!("{}", attention::report(&outcomes));
            drawn("attention.svg", |file| attention::draw_map(&outcomes, file))?;
        }
        "mix" => {
            let outcomes = mix::run(seed)?;
            print!("{}", mix::report(&outcomes));
            drawn("mix.svg", |file| mix::draw(&outcomes, file))?;
        }
        "transfer" => {
            let outcomes = transfer::run(seed)?;
            print!("{}", transfer::report(&outcomes));
            drawn("transfer.svg", |file| transfer::draw(&outcomes, file))?;
        }
        "fields" => {
            let outcomes = fields::run(seed)?;
            print!("{}", fields::report(&outcomes));
            drawn("fields.svg", |file| fields::draw(&outcomes, file))?;
        }
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
