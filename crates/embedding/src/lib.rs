#![doc = include_str!("../README.md")]

mod collection;
mod dot;
mod error;
mod optimizer;
mod pages;
mod ranking;
mod row;
mod similarity;
mod snapshot;
mod table;
mod vectors;

pub use collection::{EmbeddingCollection, StagedRows, tensor_name};
pub use dot::{DotProduct, DotProductConfig};
pub use error::Error;
pub use optimizer::{RowOptimizer, RowOptimizerKind, RowStep, StateWidth};
pub use ranking::{Candidates, ListOf, evaluate_candidates, evaluate_ranking};
pub use row::{Precision, RowLayout};
pub use similarity::{Exact, Measure, Neighbour};
pub use snapshot::{Snapshot, SnapshotTensor, Values, write_snapshot};
pub use table::{Table, TablePlan};
pub use vectors::Vectors;
