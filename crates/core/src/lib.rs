//! What every crossfield model agrees on.

mod batch;
pub mod metrics;
pub mod rng;
mod schema;

pub use batch::{Batch, Jagged, Targets};
pub use schema::{Field, FieldId, FieldKind, Schema};
