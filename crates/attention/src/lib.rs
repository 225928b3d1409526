#![doc = include_str!("../README.md")]

mod additive;
mod behaviour;
mod din;
mod dot_product;
mod encoding;
mod pooling;
mod qkv;
mod row;
mod self_attention;
mod target_attention;
#[cfg(test)]
mod test_support;
mod unit;
mod unit_layer;

pub use additive::{AdditiveAttention, AdditiveConfig};
pub use behaviour::BehaviourConfig;
pub use din::{Din, DinConfig, Pooling};
pub use dot_product::{dot_product_attention, dot_product_weights};
pub use encoding::{
    PositionConfig, PositionEncoding, PositionKind, TimeGapConfig, TimeGapEncoding, time_gap_bucket,
};
pub use pooling::weighted_sum;
pub use qkv::{QkvAttention, QkvConfig};
pub use self_attention::{SelfAttentionBlock, SelfAttentionConfig};
pub use target_attention::{TargetAttention, TargetAttentionConfig};
pub use unit::{ActivationUnit, ActivationUnitConfig};
