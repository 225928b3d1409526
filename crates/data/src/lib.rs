//! Data for crossfield models: files in, encoded batches out.
//!
//! [`prepare`] reads the files that a run file's `[data]`, `[label]` and `[[field]]` describe,
//! splits their rows, learns vocabularies and transforms from the training part alone, and encodes
//! every part. [`encode_files`] does the same to new files with a schema that was learned before.
//! [`Loader`] hands out the rows in shuffled batches that are made ready on a thread of their own.
//!
//! Anything wrong with a file stops with an [`Error`] that names file, line, column, value and
//! what was expected: no row is skipped, no NaN gets in.
//!
//! ```
//! use crossfield_data::{DataSpec, FieldConfig, LabelKind, prepare};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let file = directory.path().join("clicks.csv");
//! std::fs::write(&file, "label,item\n1,a\n0,b\n1,a\n")?;
//! let mut spec = DataSpec::default();
//! spec.data.train = vec![file.display().to_string()];
//! spec.field = vec![FieldConfig { name: "item".into(), ..FieldConfig::default() }];
//! let prepared = prepare(&spec, 1, LabelKind::Binary)?;
//! // Row 0 of a vocabulary is for unknown values; the most frequent value comes next.
//! assert_eq!(prepared.train.batch(&[0, 1, 2]).sparse[0].indices, [1, 2, 1]);
//! # Ok(())
//! # }
//! ```

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
    Buckets, DataConfig, DataSpec, Encoding, FieldConfig, Format, Header, JoinConfig, Kind,
    LabelConfig, Pooling, RowsPart, SplitConfig, TransformKind, expand,
};
pub use dataset::Dataset;
pub use error::Error;
pub use loader::{Loader, Order};
pub use prepare::{Generated, Prepared, encode_files, prepare, prepare_generated};
pub use raw::{LabelKind, Labels};
pub use report::{DataReport, FieldReport, PartReport};
pub use schema::FittedSchema;
