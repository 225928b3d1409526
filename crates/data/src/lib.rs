#![doc = include_str!("../README.md")]

mod cache;
mod condition;
mod config;
mod count;
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
mod made_ahead;
mod manifest;
mod order;
#[cfg(feature = "parquet")]
mod parquet;
mod passes;
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
    AdmitConfig, Buckets, CrossConfig, DataConfig, DataSpec, Encoding, FieldConfig, Format, Header,
    JoinConfig, LabelConfig, Pooling, RowsPart, SplitConfig, TransformKind, Unseen, expand,
};
pub use dataset::Dataset;
pub use error::{Error, Place};
pub use loader::{Loader, Order};
pub use manifest::Manifest;
pub use passes::{Progress, prepare_in_passes};
pub use prepare::{Candidates, Generated, Prepared, encode_files, prepare, prepare_generated};
pub use raw::{LabelKind, Labels};
pub use report::{CacheUse, CrossReport, DataReport, FieldReport, Negatives, PartReport, grouped};
pub use schema::{FittedSchema, file_name};
pub use sequences::{
    EventFormat, SampleSplit, SampleTargets, SequencePart, SequenceReport, SequenceSamples, Ties,
};
pub use stream::{Blocks, RowStream, Streamed, TrainingRows, stream, stream_with};
pub use tabular::side_column;
