#![doc = include_str!("../README.md")]

mod biased;
mod biased_parameters;
mod block;
mod dense;
mod error;
#[cfg(feature = "fused")]
mod fused;
mod gibbs;
mod interactions;
mod ratings;

pub use biased::{BiasedMf, BiasedMfConfig, Biases, MfLookups};
pub use biased_parameters::BiasedParameters;
pub use error::Error;
#[cfg(feature = "fused")]
pub use fused::FusedMf;
pub use interactions::{Csr, Duplicates, Interactions};
pub use ratings::{RatingsConfig, RatingsL2, RatingsMethod, RatingsSolver};
