#![doc = include_str!("../README.md")]

mod bias;
mod error;
mod executor;
mod linear;
mod pass;
mod rule;
mod tables;
mod team;

pub use bias::{Bias, BiasOptimizer, BiasRule};
#[cfg(target_arch = "x86_64")]
pub use crossfield_simd::{Avx2, Avx512};
pub use crossfield_simd::{Isa, Kernel, Lanes, Portable, element_noise, prefetch};
pub use error::Error;
pub use executor::{Books, Fused, Passed, Turn};
pub use linear::Linear;
pub use pass::{FusedComponent, FusedConfig, Options, PARTS, RowPass, Shared, Step, TurnPass};
pub use rule::{
    Adagrad, ElementRule, Ftrl, Gradient, Rated, RowRule, Rowwise, Rule, Sgd, UpdateRow,
};
pub use tables::{Feature, Gathered, RowData, Slot, Slots, TableRows, Tables};
