#![doc = include_str!("../README.md")]

mod biased;
mod block;
mod bpr;
mod dense;
mod error;
#[cfg(feature = "fused")]
mod fused;
mod gibbs;
mod implicit;
mod interactions;
mod parameters;
mod ratings;
mod tables;
mod wrmf;

pub use biased::{BiasedMf, BiasedMfConfig, Biases, MfLookups};
pub use bpr::{Bpr, BprConfig, Negatives};
pub use error::Error;
#[cfg(feature = "fused")]
pub use fused::FusedMf;
pub use interactions::{Csr, Duplicates, Interactions};
pub use parameters::MfParameters;
pub use ratings::{RatingsConfig, RatingsL2, RatingsMethod, RatingsSolver};
pub use tables::MfTables;
pub use wrmf::{FoldIn, InnerSolver, Wrmf, WrmfConfig};
