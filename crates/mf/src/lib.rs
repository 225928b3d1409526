#![doc = include_str!("../README.md")]

mod dense;
mod error;
mod interactions;

pub use error::Error;
pub use interactions::{Csr, Duplicates, Interactions};
