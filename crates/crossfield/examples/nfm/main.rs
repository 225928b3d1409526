//! A component of your own that pools pairs into a perceptron, beside a linear part of ours.
//!
//! Source: He, Chua, Neural Factorization Machines for Sparse Predictive Analytics, SIGIR 2017,
//! equations 2 to 4.

#[path = "../rows/ad_log.rs"]
mod ad_log;
mod model;
#[path = "../rows/outcome.rs"]
mod outcome;

use crossfield::core::MlpConfig;
use crossfield::wide_deep::WideConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let training = ad_log::ad_log(100_000, folder.path())?;
    let nfm = model::NfmConfig(MlpConfig {
        hidden: vec![64, 32],
        ..MlpConfig::default()
    });
    let wide = outcome::fit(&training, "wide", WideConfig::default())?;
    let nfm = outcome::fit(&training, "NFM", (WideConfig::default(), nfm))?;
    let lines = [
        ("constant", wide.metrics.constant.as_ref()),
        ("wide", wide.metrics.test.as_ref()),
        ("NFM", nfm.metrics.test.as_ref()),
    ];
    println!("{}", outcome::table(&lines));
    Ok(())
}
