#![doc = include_str!("../README.md")]

mod biased;
mod biased_parameters;
mod block;
mod bpr;
mod dense;
mod error;
#[cfg(feature = "fused")]
mod fused;
mod gibbs;
mod implicit;
mod interactions;
mod ratings;
mod tables;
mod wrmf;

pub use biased::{BiasedMf, BiasedMfConfig, Biases, MfLookups};
pub use biased_parameters::BiasedParameters;
pub use bpr::{Bpr, BprConfig, Negatives};
pub use error::Error;
#[cfg(feature = "fused")]
pub use fused::FusedMf;
pub use implicit::ImplicitParameters;
pub use interactions::{Csr, Duplicates, Interactions};
pub use ratings::{RatingsConfig, RatingsL2, RatingsMethod, RatingsSolver};
pub use tables::MfTables;
pub use wrmf::{FoldIn, InnerSolver, Wrmf, WrmfConfig};
