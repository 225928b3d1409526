#![doc = include_str!("../README.md")]

mod additive;
mod behaviour;
mod din;
mod dot_product;
mod encoding;
mod next_item;
mod pooling;
mod qkv;
mod row;
mod sasrec;
mod self_attention;
mod softmax_loss;
mod target_attention;
#[cfg(test)]
mod test_support;
mod unit;
mod unit_layer;

/// The crate of the types that are passed here, sequences and seeds among them: for those who depend on
/// this crate alone.
pub use crossfield_core;

pub use additive::{AdditiveAttention, AdditiveConfig};
pub use behaviour::BehaviourConfig;
pub use din::{Din, DinConfig, Pooling};
pub use dot_product::{dot_product_attention, dot_product_weights};
pub use encoding::{
    PositionConfig, PositionEncoding, PositionKind, TimeGapConfig, TimeGapEncoding, time_gap_bucket,
};
pub use next_item::{NextItem, NextItemConfig, NextItemLoss};
pub use pooling::weighted_sum;
pub use qkv::{QkvAttention, QkvConfig};
pub use sasrec::{Positions, SasRec, SasRecConfig};
pub use self_attention::{SelfAttentionBlock, SelfAttentionConfig};
pub use target_attention::{TargetAttention, TargetAttentionConfig};
pub use unit::{ActivationUnit, ActivationUnitConfig};
