#![doc = include_str!("../README.md")]

mod bias;
mod error;
mod executor;
mod isa;
mod lanes;
mod linear;
mod pass;
mod rule;
mod tables;
mod team;

pub use bias::{Bias, BiasOptimizer, BiasRule};
pub use error::Error;
pub use executor::{Fused, Passed, Turn};
pub use isa::{Isa, Kernel, prefetch};
#[cfg(target_arch = "x86_64")]
pub use lanes::{Avx2, Avx512};
pub use lanes::{Lanes, Portable, element_noise};
pub use linear::Linear;
pub use pass::{FusedComponent, FusedConfig, Options, PARTS, RowPass, Shared, Step};
pub use rule::{Adagrad, ElementRule, Ftrl, Gradient, RowRule, Rowwise, Rule, Sgd, UpdateRow};
pub use tables::{Feature, Gathered, RowData, Slot, Slots, TableRows, Tables};
