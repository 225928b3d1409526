#![doc = include_str!("../README.md")]

#[cfg(feature = "attention")]
pub use crossfield_attention as attention;
pub use crossfield_core as core;
#[cfg(feature = "data")]
pub use crossfield_data as data;
pub use crossfield_embedding as embedding;
#[cfg(feature = "ffm")]
pub use crossfield_ffm as ffm;
#[cfg(feature = "fm")]
pub use crossfield_fm as fm;
#[cfg(feature = "fused")]
pub use crossfield_fused as fused;
#[cfg(feature = "mf")]
pub use crossfield_mf as mf;
#[cfg(feature = "train")]
pub use crossfield_train as train;
#[cfg(feature = "wide-deep")]
pub use crossfield_wide_deep as wide_deep;
