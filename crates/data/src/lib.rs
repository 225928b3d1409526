//! data

pub mod synth;
