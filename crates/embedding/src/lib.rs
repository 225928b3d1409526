//! Embedding tables in host memory, with optimizers that touch only the rows of a batch.
//!
//! Burn's embedding gradient and dense optimizers walk the whole table at every step. Here a
//! table is plain memory: a batch's unique rows become a leaf of the graph, their gradients
//! update just those rows, and no step does work in proportion to a table.

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
