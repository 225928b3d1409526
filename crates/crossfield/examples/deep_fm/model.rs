//! A factorization machine and a perceptron on the same vectors.

use crossfield::fm::FmConfig;
use crossfield::wide_deep::DeepConfig;

/// Both look their vectors up in the tables `v8.<vocabulary>`: these are one set of tables.
pub(crate) fn deep_fm() -> (FmConfig, DeepConfig) {
    let fm = FmConfig {
        embedding_dim: 8,
        ..FmConfig::default()
    };
    let deep = DeepConfig {
        embedding_dim: 8,
        hidden: vec![64, 32],
        ..DeepConfig::default()
    };
    (fm, deep)
}
