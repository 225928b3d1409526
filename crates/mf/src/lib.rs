#![doc = include_str!("../README.md")]

mod bpr;
mod dense;
mod error;
mod implicit;
mod interactions;
mod wrmf;

pub use bpr::{Bpr, BprConfig, Negatives};
pub use error::Error;
pub use implicit::ImplicitParameters;
pub use interactions::{Csr, Duplicates, Interactions};
pub use wrmf::{FoldIn, InnerSolver, Wrmf, WrmfConfig};
