//! Two towers: trained on clicks, then searched for the items of a person.
//!
//! Source: Huang et al., Learning Deep Structured Semantic Models for Web Search using Clickthrough
//! Data, CIKM 2013, section 3.

mod model;
#[path = "../rows/outcome.rs"]
mod outcome;
mod search;
#[path = "../rows/shop.rs"]
mod shop;

use crossfield::wide_deep::WideConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let training = shop::shop(20_000, folder.path())?;
    let strings = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let sides = [strings(&["history", "season"]), strings(&["item", "kind"])];
    let wide = outcome::fit(&training, "wide", WideConfig::default())?;
    let mut towers = outcome::fit(&training, "two towers", model::TwoTowerConfig(sides))?;
    let lines = [
        ("constant", wide.metrics.constant.as_ref()),
        ("wide", wide.metrics.test.as_ref()),
        ("two towers", towers.metrics.test.as_ref()),
    ];
    println!("{}", outcome::table(&lines));

    let sides: [search::Side<model::TwoTower>; 2] = [
        |towers, x| towers.tower(0, x),
        |towers, x| towers.tower(1, x),
    ];
    let person = search::person(
        folder.path(),
        &["shoes-0", "tea-3", "tea-4", "shoes-5", "tea-1"],
    )?;
    let (items, names) = search::catalogue(folder.path())?;
    let best = search::best(&mut towers, sides, &person, &items, 10)?;
    let best: Vec<&str> = best.iter().map(|&row| &*names[row as usize]).collect();
    println!("\nfor one who bought shoes and tea: {}", best.join(" "));
    Ok(())
}
