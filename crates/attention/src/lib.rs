#![doc = include_str!("../README.md")]

mod dot_product;
mod row;

pub use dot_product::{dot_product_attention, dot_product_weights};
