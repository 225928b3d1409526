//! A component of your own that feeds a layer of one crate to that of another.
//!
//! Source: Rendle, Factorization Machines, ICDM 2010, equation 1; the attention is that of Vaswani et
//! al., Attention Is All You Need, NeurIPS 2017, equation 1.

mod model;
#[path = "../rows/outcome.rs"]
mod outcome;
#[path = "../rows/shop.rs"]
mod shop;

use crossfield::fm::FmConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let training = shop::shop(20_000, folder.path())?;
    let fields = ["history", "item", "kind", "season"];
    let fm = outcome::fit(&training, "FM", FmConfig::default())?;
    let mix = outcome::fit(
        &training,
        "attention + FM",
        model::AttentionFmConfig(fields.map(str::to_owned).to_vec()),
    )?;
    let lines = [
        ("constant", fm.metrics.constant.as_ref()),
        ("FM", fm.metrics.test.as_ref()),
        ("attention + FM", mix.metrics.test.as_ref()),
    ];
    println!("{}", outcome::table(&lines));
    Ok(())
}
