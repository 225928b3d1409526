#![doc = include_str!("../README.md")]

mod behaviour;
mod din;
mod dot_product;
mod pooling;
mod target_attention;
mod unit;
mod unit_layer;

pub use behaviour::BehaviourConfig;
pub use din::{Din, DinConfig, Pooling};
pub use dot_product::dot_product_attention;
pub use pooling::weighted_sum;
pub use target_attention::{TargetAttention, TargetAttentionConfig, dot_weights};
pub use unit::{ActivationUnit, ActivationUnitConfig};
