//! Field-aware pairs beside a perceptron.

use crossfield::ffm::FfmConfig;
use crossfield::wide_deep::DeepConfig;

/// An FFM has tables of its own, for a row of them holds a vector towards each field.
pub(crate) fn ffm_deep() -> (FfmConfig, DeepConfig) {
    let ffm = FfmConfig {
        embedding_dim: 2,
        ..FfmConfig::default()
    };
    let deep = DeepConfig {
        hidden: vec![64, 32],
        ..DeepConfig::default()
    };
    (ffm, deep)
}
