#![doc = include_str!("../README.md")]

mod additive;
mod dot_product;
mod encoding;
mod next_item;
mod qkv;
mod row;
mod sasrec;
mod self_attention;
mod softmax_loss;
#[cfg(test)]
mod test_support;

pub use additive::{AdditiveAttention, AdditiveConfig};
pub use dot_product::{dot_product_attention, dot_product_weights};
pub use encoding::{
    PositionConfig, PositionEncoding, PositionKind, TimeGapConfig, TimeGapEncoding, time_gap_bucket,
};
pub use next_item::{NextItem, NextItemConfig, NextItemLoss};
pub use qkv::{QkvAttention, QkvConfig};
pub use sasrec::{Positions, SasRec, SasRecConfig};
pub use self_attention::{SelfAttentionBlock, SelfAttentionConfig};
