#![doc = include_str!("../README.md")]

mod biased;
mod error;
#[cfg(feature = "fused")]
mod fused;
mod interactions;

pub use biased::{BiasedMf, BiasedMfConfig, Biases, MfLookups};
pub use error::Error;
#[cfg(feature = "fused")]
pub use fused::FusedMf;
pub use interactions::{Csr, Duplicates, Interactions};
