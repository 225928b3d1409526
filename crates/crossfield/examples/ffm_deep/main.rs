//! FFM and a perceptron: tables that are not shared.
//!
//! Source: Juan et al., Field-aware Factorization Machines for CTR Prediction, RecSys 2016, equation 4.

#[path = "../rows/ad_log.rs"]
mod ad_log;
mod model;
#[path = "../rows/outcome.rs"]
mod outcome;

use crossfield::ffm::FfmConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let training = ad_log::ad_log(100_000, folder.path())?;
    let ffm = outcome::fit(&training, "FFM", FfmConfig::default())?;
    let ffm_deep = outcome::fit(&training, "FFM + deep", model::ffm_deep())?;
    let lines = [
        ("constant", ffm.metrics.constant.as_ref()),
        ("FFM", ffm.metrics.test.as_ref()),
        ("FFM + deep", ffm_deep.metrics.test.as_ref()),
    ];
    println!("{}", outcome::table(&lines));
    Ok(())
}
