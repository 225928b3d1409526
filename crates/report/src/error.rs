//! What can go wrong with a picture or a comparison.

/// A picture that cannot be drawn, or a comparison that cannot be made.
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
    /// Columns of rows that are not as long as their labels.
    #[error("{what} of {got} rows: expected {expected}")]
    Rows {
        /// The column.
        what: &'static str,
        /// Its rows.
        got: usize,
        /// Rows of the labels.
        expected: usize,
    },
    /// A prediction that is no number.
    #[error("prediction {value} of row {row}: expected a finite number")]
    Prediction {
        /// The row, from 0.
        row: usize,
        /// The prediction.
        value: f64,
    },
    /// A point that has no place on a plot.
    #[error("plot `{plot}`: {series} has a point at {x}, {y}: expected finite numbers")]
    Point {
        /// Title of the plot.
        plot: String,
        /// Name of the series.
        series: String,
        /// Where the point would be.
        x: f64,
        /// Where the point would be.
        y: f64,
    },
    /// What the drawing library says.
    #[error("drawing: {0}")]
    Drawing(String),
}
