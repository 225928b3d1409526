use thiserror::Error;

/// What can go wrong with a row-by-row pass.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A score is no number any more.
    #[error("the score of training row {row} is {score} at step {step}")]
    NonFiniteScore {
        /// Position of the row in the data, from 0.
        row: usize,
        /// Step of the run, from 0.
        step: u64,
        /// The score.
        score: f32,
    },
    /// An index lies outside of its table.
    #[error("field {field}: index {index} in a table of {rows} rows")]
    IndexOutOfRange {
        /// The field, by its place in the schema.
        field: usize,
        /// The index.
        index: u32,
        /// Rows of the table.
        rows: usize,
    },
    /// A model reads a table that the collection does not hold.
    #[error("the model reads table `{table}`, which does not exist")]
    MissingTable {
        /// The table.
        table: String,
    },
    /// A field that the rows do not have.
    #[error("the model reads field {field}, which the rows do not have")]
    MissingField {
        /// The field, by its place in the schema.
        field: usize,
    },
    /// A table's optimizer has no kernel.
    #[error(
        "table `{table}`: the fused executor has no `{kind}` (it has sgd, adagrad, \
         rowwise_adagrad, ftrl); executor = \"burn\" has"
    )]
    Optimizer {
        /// The table.
        table: String,
        /// The kind of optimizer.
        kind: &'static str,
    },
    /// A component's tables keep their weights in different ways.
    #[error(
        "table `{table}` keeps its weights in another precision than the first table of its \
         component: give all of them the same"
    )]
    MixedPrecision {
        /// The table.
        table: String,
    },
    /// Two components read one table.
    #[error(
        "table `{table}` is read by two components: the fused executor updates each component \
         by itself; give one of them other tables, or use executor = \"burn\""
    )]
    SharedTable {
        /// The table.
        table: String,
    },
    /// A thread that the system does not give.
    #[error("train.threads: the system gives no such threads: {source}")]
    Threads {
        /// What the system says.
        source: std::io::Error,
    },
    /// The environment asks for an instruction set that is not there.
    #[error(transparent)]
    Isa(#[from] crossfield_simd::Error),
}
