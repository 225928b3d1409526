//! A Deep Interest Network beside a linear model of features and crosses.

use crossfield::attention::{DinConfig, Pooling};
use crossfield::wide_deep::WideConfig;

/// What a candidate asks of a history, and rules that are remembered as they are.
pub(crate) fn din_wide() -> (DinConfig, WideConfig) {
    let din = DinConfig {
        attention: Pooling::UnitSoftmax,
        unit_hidden: vec![16],
        hidden: vec![32, 16],
        ..DinConfig::default()
    };
    (din, WideConfig::default())
}
