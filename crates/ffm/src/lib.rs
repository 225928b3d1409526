//! Field-aware factorization machines.

#[cfg(feature = "fused")]
mod fused;

#[cfg(feature = "fused")]
pub use fused::FusedFfm;
