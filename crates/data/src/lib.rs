#![doc = include_str!("../README.md")]

mod config;
mod dataset;
mod error;
#[cfg(feature = "fetch")]
pub mod fetch;
mod fit;
mod indexed;
mod intern;
mod line;
mod loader;
mod planted;
mod prepare;
mod raw;
mod report;
mod schema;
mod split;
pub mod synth;
mod tabular;

pub use config::{
    Buckets, DataConfig, DataSpec, Encoding, FieldConfig, Format, Header, JoinConfig, LabelConfig,
    Pooling, RowsPart, SplitConfig, TransformKind, expand,
};
pub use dataset::Dataset;
pub use error::Error;
pub use loader::{Loader, Order};
pub use prepare::{Generated, Prepared, encode_files, prepare, prepare_generated};
pub use raw::{LabelKind, Labels};
pub use report::{DataReport, FieldReport, PartReport};
pub use schema::FittedSchema;
