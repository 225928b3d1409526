//! DeepFM: crossfield's own parts, on shared tables.
//!
//! Source: Guo et al., DeepFM: A Factorization-Machine based Neural Network for CTR Prediction,
//! IJCAI 2017, equation 1.

#[path = "../rows/ad_log.rs"]
mod ad_log;
mod model;
#[path = "../rows/outcome.rs"]
mod outcome;

use crossfield::fm::FmConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let training = ad_log::ad_log(100_000, folder.path())?;
    let fm = outcome::fit(&training, "FM", FmConfig::default())?;
    let deep_fm = outcome::fit(&training, "DeepFM", model::deep_fm())?;
    let lines = [
        ("constant", fm.metrics.constant.as_ref()),
        ("FM", fm.metrics.test.as_ref()),
        ("DeepFM", deep_fm.metrics.test.as_ref()),
    ];
    println!("{}", outcome::table(&lines));
    Ok(())
}
