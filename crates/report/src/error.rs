//! What can go wrong with a picture.

/// A picture that cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Numbers and names do not fit.
    #[error(
        "a heat map of {rows} rows and {columns} columns: expected at least one of each and {expected} values, got {got}"
    )]
    Shape {
        /// Names of rows.
        rows: usize,
        /// Names of columns.
        columns: usize,
        /// Their product.
        expected: usize,
        /// Values that were given.
        got: usize,
    },
    /// A value that has no colour.
    #[error("value {value} of row {row} and column {column}: expected a finite number")]
    Value {
        /// Name of the row.
        row: String,
        /// Name of the column.
        column: String,
        /// The value.
        value: f32,
    },
    /// What the drawing library says.
    #[error("drawing: {0}")]
    Drawing(String),
}
