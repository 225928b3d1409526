#![doc = include_str!("../README.md")]

mod collection;
mod error;
mod optimizer;
mod snapshot;
mod table;

pub use collection::{EmbeddingCollection, StagedRows};
pub use error::Error;
pub use optimizer::{RowOptimizer, RowOptimizerKind, RowStep, StateWidth};
pub use snapshot::{Snapshot, SnapshotTensor, write_snapshot};
pub use table::{Table, TablePlan};
