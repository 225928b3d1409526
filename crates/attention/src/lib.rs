#![doc = include_str!("../README.md")]

mod block;
mod dot_product;
mod next_item;
mod row;
mod sasrec;
mod softmax_loss;

pub use dot_product::{dot_product_attention, dot_product_weights};
pub use next_item::{NextItem, NextItemConfig, NextItemLoss};
pub use sasrec::{Positions, SasRec, SasRecConfig};
