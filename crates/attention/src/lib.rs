#![doc = include_str!("../README.md")]

mod dot_product;

pub use dot_product::dot_product_attention;
