#![doc = include_str!("../README.md")]

mod error;
mod isa;
mod lanes;

pub use error::Error;
pub use isa::{Isa, Kernel, prefetch};
#[cfg(target_arch = "x86_64")]
pub use lanes::{Avx2, Avx512};
pub use lanes::{Lanes, Portable, element_noise};
