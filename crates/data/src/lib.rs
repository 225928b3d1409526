#![doc = include_str!("../README.md")]

mod cache;
mod checksum;
mod condition;
mod config;
mod cross;
mod dataset;
mod error;
#[cfg(feature = "fetch")]
pub mod fetch;
mod fit;
mod indexed;
mod intern;
mod line;
mod loader;
mod manifest;
mod order;
#[cfg(feature = "parquet")]
mod parquet;
mod planted;
mod prepare;
mod raw;
mod report;
mod schema;
mod sequences;
mod slice;
mod split;
mod stream;
pub mod synth;
mod tabular;

pub use config::{
    Buckets, CrossConfig, DataConfig, DataSpec, Encoding, FieldConfig, Format, Header, JoinConfig,
    LabelConfig, Pooling, RowsPart, SplitConfig, TransformKind, Unseen, expand,
};
pub use dataset::Dataset;
pub use error::{Error, Place};
pub use loader::{Loader, Order};
pub use manifest::Manifest;
pub use prepare::{Candidates, Generated, Prepared, encode_files, prepare, prepare_generated};
pub use raw::{LabelKind, Labels};
pub use report::{CacheUse, CrossReport, DataReport, FieldReport, Negatives, PartReport, grouped};
pub use schema::FittedSchema;
pub use sequences::{
    EventFormat, SampleSplit, SampleTargets, SequencePart, SequenceReport, SequenceSamples, Ties,
};
pub use stream::{Blocks, RowStream, Streamed, TrainingRows, stream};
pub use tabular::side_column;
