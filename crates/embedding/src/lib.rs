#![doc = include_str!("../README.md")]

mod collection;
mod error;
mod optimizer;
mod pages;
mod row;
mod similarity;
mod snapshot;
mod table;
mod vectors;

pub use collection::{EmbeddingCollection, StagedRows, tensor_name};
pub use error::Error;
pub use optimizer::{RowOptimizer, RowOptimizerKind, RowStep, StateWidth};
pub use row::{Precision, RowLayout};
pub use similarity::{Exact, Measure, Neighbour};
pub use snapshot::{Snapshot, SnapshotTensor, Values, write_snapshot};
pub use table::{Table, TablePlan};
pub use vectors::Vectors;
