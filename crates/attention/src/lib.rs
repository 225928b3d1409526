#![doc = include_str!("../README.md")]

mod block;
mod dot_product;
mod next_item;
mod sasrec;
mod softmax_loss;

pub use dot_product::dot_product_attention;
pub use next_item::{NextItem, NextItemConfig, NextItemLoss};
pub use sasrec::{Positions, SasRec, SasRecConfig};
