#![doc = include_str!("../README.md")]

mod biased_parameters;
mod block;
mod dense;
mod error;
mod gibbs;
mod interactions;
mod ratings;

pub use biased_parameters::BiasedParameters;
pub use error::Error;
pub use interactions::{Csr, Duplicates, Interactions};
pub use ratings::{RatingsConfig, RatingsL2, RatingsMethod, RatingsSolver};
