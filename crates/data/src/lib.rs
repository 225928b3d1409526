//! data

#[cfg(feature = "fetch")]
pub mod fetch;
pub mod synth;
