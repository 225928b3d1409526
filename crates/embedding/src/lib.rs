#![doc = include_str!("../README.md")]

mod admission;
#[cfg(feature = "ann")]
mod ann;
mod bag;
mod collection;
mod compress;
mod dot;
mod error;
mod mapped;
mod optimizer;
mod pages;
mod ranking;
mod row;
mod similarity;
mod snapshot;
mod table;
mod undo;
mod vector_files;
mod vectors;
mod warm_start;

pub use admission::{Admission, AdmissionConfig, Admitted, KeyRows, Sketch};
#[cfg(feature = "ann")]
pub use ann::{Approximate, HnswConfig};
pub use bag::{EmbeddingBag, Pooling};
pub use collection::{EmbeddingCollection, Place, StagedRows, tensor_name};
pub use compress::{Combine, Compress};
pub use dot::{DotProduct, DotProductConfig};
pub use error::Error;
pub use mapped::Storage;
pub use optimizer::{RowOptimizer, RowOptimizerKind, RowStep, StateWidth};
pub use ranking::{Candidates, ListOf, evaluate_candidates, evaluate_ranking, list_figures};
pub use row::{Precision, RowLayout};
pub use similarity::{Exact, Measure, Neighbour};
pub use snapshot::{SavedRows, Snapshot, SnapshotTensor, Values, write_snapshot};
pub use table::{L2By, Table, TablePlan};
pub use undo::MappedRows;
pub use vector_files::{VectorFormat, write_vectors};
pub use vectors::Vectors;
pub use warm_start::{Moments, Principal};
