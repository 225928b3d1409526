//! What can be wrong with what a solver is given.

use crossfield_core::Loss;

/// Why a factorization machine could not be fitted, or rows not be scored.
///
/// ```
/// use crossfield_core::Loss;
/// use crossfield_fm::solver::SolverError;
///
/// let error = SolverError::Loss(Loss::Logistic);
/// assert_eq!(
///     error.to_string(),
///     "the loss is Logistic: expected squared (ratings) or probit (clicks)"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SolverError {
    /// Nothing to fit.
    #[error("the training rows: expected at least one, got none")]
    NoRows,
    /// More rows than a `u32` counts.
    #[error("the training rows: expected at most 4294967295, got {0}")]
    TooManyRows(usize),
    /// Rows without a label, or labels without a row.
    #[error("labels: expected one for each of {rows} rows, got {labels}")]
    Labels {
        /// Rows of the design.
        rows: usize,
        /// Labels given.
        labels: usize,
    },
    /// A label that the loss has no use for.
    #[error("row {row}: the label is {value}: expected {expected}")]
    Label {
        /// The row, from 0.
        row: usize,
        /// Its label.
        value: f32,
        /// What it may be.
        expected: &'static str,
    },
    /// Rows that do not count equally.
    #[error("sample weights: expected none, as ALS and MCMC count every row once")]
    SampleWeights,
    /// A loss without closed-form conditionals.
    #[error("the loss is {0:?}: expected squared (ratings) or probit (clicks)")]
    Loss(Loss),
    /// A field that the rows do not hold.
    #[error("field {0}: the rows do not hold it")]
    MissingField(usize),
    /// A field whose columns are not there, or only overlap with another's.
    #[error(
        "field {field}: its columns are {base}..{end}: expected them within 0..{columns}, and the \
         same as another field's or apart from them"
    )]
    FieldColumns {
        /// The field.
        field: usize,
        /// Its first column.
        base: u32,
        /// One past its last column.
        end: u64,
        /// Columns there are.
        columns: usize,
    },
    /// An index beyond its vocabulary.
    #[error("row {row}, field {field}: the index is {index}: expected below {rows}")]
    Index {
        /// The row, from 0.
        row: usize,
        /// The field.
        field: usize,
        /// The index.
        index: u32,
        /// Rows of the vocabulary.
        rows: u32,
    },
    /// A weight that is not a number.
    #[error("row {row}, field {field}: a weight is {value}: expected a finite number")]
    Weight {
        /// The row, from 0.
        row: usize,
        /// The field.
        field: usize,
        /// The weight.
        value: f32,
    },
    /// An option out of its range.
    #[error("`{option}` is {value}: expected {expected}")]
    OutOfRange {
        /// The option.
        option: &'static str,
        /// What it is.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// Parameters of another model.
    #[error("the parameters' {what}: expected {expected}, got {got}")]
    Parameters {
        /// Which of them.
        what: &'static str,
        /// The length that fits.
        expected: usize,
        /// The length there is.
        got: usize,
    },
    /// A parameter that is not a number.
    #[error("the parameters' {what}: expected finite numbers, got {value} at {at}")]
    NotFinite {
        /// Which of them.
        what: &'static str,
        /// Position.
        at: usize,
        /// The value.
        value: f32,
    },
    /// An update that is beyond what an `f32` holds.
    #[error(
        "iteration {iteration}: the update of {what} is not finite; weights of features or labels \
         are too large: scale them to the order of 1"
    )]
    Diverged {
        /// The iteration, from 1.
        iteration: u64,
        /// Which parameter.
        what: &'static str,
    },
}
