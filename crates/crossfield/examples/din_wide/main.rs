//! DIN beside wide crosses: a history is read for the candidate, and rules are remembered.
//!
//! Source: Zhou et al., Deep Interest Network for Click-Through Rate Prediction, KDD 2018; the wide part
//! is that of Cheng et al., Wide & Deep Learning for Recommender Systems, DLRS 2016.

mod model;
#[path = "../rows/outcome.rs"]
mod outcome;
#[path = "../rows/shop.rs"]
mod shop;

use crossfield::wide_deep::WideConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let training = shop::shop(20_000, folder.path())?;
    let wide = outcome::fit(&training, "wide", WideConfig::default())?;
    let din_wide = outcome::fit(&training, "DIN + wide", model::din_wide())?;
    let lines = [
        ("constant", wide.metrics.constant.as_ref()),
        ("wide", wide.metrics.test.as_ref()),
        ("DIN + wide", din_wide.metrics.test.as_ref()),
    ];
    println!("{}", outcome::table(&lines));
    Ok(())
}
