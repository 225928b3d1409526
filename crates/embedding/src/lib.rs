#![doc = include_str!("../README.md")]

mod collection;
mod dot;
mod error;
mod optimizer;
mod pages;
mod row;
mod snapshot;
mod table;

pub use collection::{EmbeddingCollection, StagedRows, tensor_name};
pub use dot::{DotProduct, DotProductConfig};
pub use error::Error;
pub use optimizer::{RowOptimizer, RowOptimizerKind, RowStep, StateWidth};
pub use row::{Precision, RowLayout};
pub use snapshot::{Snapshot, SnapshotTensor, Values, write_snapshot};
pub use table::{Table, TablePlan};
