#![doc = include_str!("../README.md")]

mod deep;
mod wide;

pub use deep::{Deep, DeepConfig};
pub use wide::{Wide, WideConfig};
