use thiserror::Error;

/// What can go wrong with a factorization.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing to learn from.
    #[error("no interactions: expected at least one row")]
    Empty,
    /// A field does not name exactly one value a row.
    #[error("field {field}: expected one value a row, as users and items have")]
    NotOneHot {
        /// The field, by its place in the schema.
        field: usize,
    },
    /// A user or an item beyond the last one.
    #[error("interaction {row}: {what} {index} of {count}")]
    IndexOutOfRange {
        /// Position of the interaction, from 0.
        row: usize,
        /// `user` or `item`.
        what: &'static str,
        /// Its number.
        index: u32,
        /// How many there are.
        count: usize,
    },
    /// A value that is no number.
    #[error("interaction {row}: value {value}, expected {expected}")]
    Value {
        /// Position of the interaction, from 0.
        row: usize,
        /// The value.
        value: f32,
        /// What it has to be.
        expected: &'static str,
    },
    /// An option out of its range.
    #[error("{option} is {value}: expected {expected}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: f64,
        /// What it has to be.
        expected: &'static str,
    },
    /// Parameters that do not belong to this model.
    #[error("parameters of {got} numbers, expected {expected}")]
    Parameters {
        /// How many there are.
        got: usize,
        /// How many there have to be.
        expected: usize,
    },
    /// The equations of a vector have no single solution in the precision of `f32`.
    #[error("the equations of {what} {index} have no single solution: expected a greater L2")]
    Singular {
        /// `user` or `item`.
        what: &'static str,
        /// Its number.
        index: usize,
    },
    /// The environment asks for an instruction set that is not there.
    #[error("{0}")]
    Isa(String),
    /// An update is no number any more.
    #[error("the vector of {what} {index} is no number any more: the numbers grew too large")]
    NonFinite {
        /// `user` or `item`.
        what: &'static str,
        /// Its number.
        index: usize,
    },
}

impl From<crossfield_simd::Error> for Error {
    fn from(error: crossfield_simd::Error) -> Self {
        Self::Isa(error.to_string())
    }
}
