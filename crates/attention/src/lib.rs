#![doc = include_str!("../README.md")]

mod additive;
mod dot_product;
mod encoding;
mod qkv;
mod row;
mod self_attention;
#[cfg(test)]
mod test_support;

pub use additive::{AdditiveAttention, AdditiveConfig};
pub use dot_product::{dot_product_attention, dot_product_weights};
pub use encoding::{
    PositionConfig, PositionEncoding, PositionKind, TimeGapConfig, TimeGapEncoding, time_gap_bucket,
};
pub use qkv::{QkvAttention, QkvConfig};
pub use self_attention::{SelfAttentionBlock, SelfAttentionConfig};
