//! A component of your own made of layers of your own, beside a perceptron of ours.
//!
//! Source: Wang et al., DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale
//! Learning to Rank Systems, WWW 2021, equation 1.

#[path = "../rows/ad_log.rs"]
mod ad_log;
mod model;
#[path = "../rows/outcome.rs"]
mod outcome;

use crossfield::wide_deep::{DeepConfig, WideConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let training = ad_log::ad_log(100_000, folder.path())?;
    let deep = DeepConfig {
        hidden: vec![64, 32],
        ..DeepConfig::default()
    };
    let wide = outcome::fit(&training, "wide", WideConfig::default())?;
    let cross = outcome::fit(&training, "cross layers", model::CrossNetConfig(2))?;
    let dcn = outcome::fit(&training, "with deep", (model::CrossNetConfig(2), deep))?;
    let lines = [
        ("constant", wide.metrics.constant.as_ref()),
        ("wide", wide.metrics.test.as_ref()),
        ("cross layers", cross.metrics.test.as_ref()),
        ("with deep", dcn.metrics.test.as_ref()),
    ];
    println!("{}", outcome::table(&lines));
    Ok(())
}
