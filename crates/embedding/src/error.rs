use std::path::{Path, PathBuf};

use thiserror::Error;

/// What can go wrong with tables and their snapshots.
///
/// ```
/// use crossfield_embedding::{Error, RowOptimizer};
///
/// let optimizer = RowOptimizer {
///     lr: -1.0,
///     ..RowOptimizer::default()
/// };
/// let error = optimizer.check("v8.ad").unwrap_err();
/// assert!(matches!(error, Error::OutOfRange { option: "lr", .. }));
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{path}: cannot {action}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not a snapshot, or a damaged one.
    #[error("{path}: not an intact safetensors file: {reason}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A snapshot lacks a tensor.
    #[error("{path}: holds no tensor `{name}`", path = path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor in a snapshot has another shape than the model.
    #[error("{path}: tensor `{name}` is {got}, the model expects {expected}", path = path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Shape and type in the file.
        got: String,
        /// Shape and type of the model.
        expected: String,
    },
    /// A gradient is not finite; nothing was updated.
    #[error(
        "the gradient of table `{table}` is not finite (row {row}): training diverged; \
         try a lower learning rate"
    )]
    NonFiniteGradient {
        /// Name of the table.
        table: String,
        /// Row of the table.
        row: u32,
    },
    /// A number to be saved is not finite.
    #[error("tensor `{tensor}` holds {value}, expected finite numbers")]
    NonFiniteTensor {
        /// The tensor.
        tensor: String,
        /// The number.
        value: f32,
    },
    /// A vector holds a number that is not finite.
    #[error("vector {row} holds {value}, expected finite numbers")]
    NonFiniteVector {
        /// Its row.
        row: usize,
        /// The number.
        value: f32,
    },
    /// Something has another length than what it belongs to.
    #[error("{what}: got {got}, expected {expected}")]
    Length {
        /// What it is.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The length that it has to have.
        expected: String,
    },
    /// There is no such row.
    #[error("{what} {row}: expected a row below {rows}")]
    NoRow {
        /// What the row was asked for as.
        what: &'static str,
        /// The row.
        row: u32,
        /// How many there are.
        rows: usize,
    },
    /// The rows that a query leaves out do not rise.
    #[error("the rows that query {query} leaves out: expected rising numbers")]
    Unsorted {
        /// Row of the query; 0 where there is one query alone.
        query: u32,
    },
    /// A key that cannot stand on a line.
    #[error("key {key:?}: expected no line end in it")]
    Key {
        /// The key.
        key: String,
    },
    /// The system gives no thread to build a graph on.
    #[cfg(feature = "ann")]
    #[error("cannot start a thread: {0}")]
    Threads(#[source] rayon::ThreadPoolBuildError),
    /// The environment asks for an instruction set that is not there.
    #[error(transparent)]
    Isa(#[from] crossfield_simd::Error),
    /// The system has no memory for a table.
    #[error("table `{table}`: the system gives no {bytes} bytes: {source}")]
    NoMemory {
        /// Name of the table.
        table: String,
        /// Its size.
        bytes: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system has no memory for a sketch.
    #[error("a sketch of {bytes} bytes: the system does not give them")]
    NoSketch {
        /// Its size.
        bytes: u64,
    },
    /// An option of an admission is out of its range.
    #[error("admission of `{name}`: {option} is {value}, expected {expected}")]
    Admission {
        /// The vocabulary.
        name: String,
        /// The option.
        option: &'static str,
        /// What it was set to.
        value: u64,
        /// The range.
        expected: &'static str,
    },
    /// A file of keys is damaged, or none.
    #[error("{path}: not an intact file of keys: {reason}", path = path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file of keys is not the one that is wanted.
    #[error("{path}: the keys of {what}", path = path.display())]
    OtherKeys {
        /// The file.
        path: PathBuf,
        /// Whose they are.
        what: &'static str,
    },
    /// The file of a mapped table, or a log that leads it back to a checkpoint, is not what it should be.
    #[error("{path}: {reason}", path = path.display())]
    MappedTable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Rows of halves are trained by the fused executor, with one accumulator a row.
    #[error("table `{table}`: rows of bf16 need {expected}")]
    HalfRows {
        /// Name of the table.
        table: String,
        /// What they need.
        expected: &'static str,
    },
    /// A table cannot be made of the parts that are asked for.
    #[error("compress of table `{table}`: {option} is {value}, expected {expected}")]
    Compress {
        /// Name of the table.
        table: String,
        /// The option.
        option: &'static str,
        /// What it is.
        value: u64,
        /// What it can be.
        expected: String,
    },
    /// An option of a table that does not go with the others.
    #[error("table `{table}`: {what} needs {expected}")]
    Needs {
        /// Name of the table.
        table: String,
        /// The option.
        what: &'static str,
        /// What it needs.
        expected: &'static str,
    },
    /// Two tables in memory of one name.
    #[error(
        "two tables are called `{table}`: one is a part of a compressed table, rename the other"
    )]
    TableClash {
        /// The name.
        table: String,
    },
    /// An option of a row optimizer is out of its range.
    #[error("optimizer of table `{table}`: {option} is {value}, expected {expected}")]
    OutOfRange {
        /// Name of the table.
        table: String,
        /// The option.
        option: &'static str,
        /// What it was set to.
        value: f64,
        /// The range.
        expected: &'static str,
    },
}

impl Error {
    pub(crate) fn io<'a>(
        path: &'a Path,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self + use<'a> {
        move |source| Self::Io {
            path: path.to_owned(),
            action,
            source,
        }
    }
}
