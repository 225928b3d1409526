#![doc = include_str!("../README.md")]

mod error;
mod heat_map;

pub use error::Error;
pub use heat_map::HeatMap;
