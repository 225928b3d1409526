use std::borrow::Cow;

use thiserror::Error;

/// What can be wrong with a model's configuration, found before training starts.
///
/// ```
/// use crossfield_core::{Error, Schema};
///
/// let error = Schema::default().bags("fm", &["usr".into()]).unwrap_err();
/// assert!(matches!(error, Error::UnknownField { .. }));
/// assert!(error.to_string().starts_with("`fm` reads field `usr`"));
/// ```
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A component names a field that the schema does not have.
    #[error("`{component}` reads field `{field}`, which the data does not have (fields: {known})")]
    UnknownField {
        /// The component's name.
        component: String,
        /// The field it asked for.
        field: String,
        /// The fields there are, separated by commas.
        known: String,
    },
    /// A component names a field twice.
    #[error("`{component}` reads field `{field}` twice: expected each field once")]
    DuplicateField {
        /// The component's name.
        component: String,
        /// The field.
        field: String,
    },
    /// A component has nothing to read.
    #[error("`{component}` has no field to read: it takes {expected}")]
    NoFields {
        /// The component's name.
        component: String,
        /// What it can read.
        expected: &'static str,
    },
    /// Sequences that lie side by side differ in length.
    #[error(
        "`{component}` reads `{first}` and `{second}` side by side, which have {lengths:?} items in \
         row {row}: expected as many"
    )]
    UnequalSequences {
        /// The component's name.
        component: String,
        /// A sequence.
        first: String,
        /// The other.
        second: String,
        /// The row, from 1.
        row: usize,
        /// Items of the first and of the second.
        lengths: [usize; 2],
    },
    /// Two components ask for one table with different shapes or beginnings.
    #[error(
        "table `{table}` is asked for twice with different {what}: {left} and {right}; \
         give one of the two another name"
    )]
    TableClash {
        /// Name of the table.
        table: String,
        /// `rows`, `embedding_dim` or `initializer`.
        what: &'static str,
        /// What the first asked for.
        left: String,
        /// What the second asked for.
        right: String,
    },
    /// A number in a configuration is out of its range.
    #[error("`{component}.{option}` is {value}: expected {expected}")]
    OutOfRange {
        /// The component's name.
        component: String,
        /// The option.
        option: &'static str,
        /// What it was set to.
        value: String,
        /// The range.
        expected: Cow<'static, str>,
    },
}

/// Refuses an option of a component that is not `good`.
///
/// ```
/// use crossfield_core::check_option;
///
/// assert!(check_option("fm", "embedding_dim", 8, true, "1 to 1024").is_ok());
/// let error = check_option("fm", "embedding_dim", 0, false, "1 to 1024").unwrap_err();
/// assert_eq!(error.to_string(), "`fm.embedding_dim` is 0: expected 1 to 1024");
/// ```
///
/// # Errors
/// [`Error::OutOfRange`].
pub fn check_option(
    component: &str,
    option: &'static str,
    value: impl std::fmt::Display,
    good: bool,
    expected: impl Into<Cow<'static, str>>,
) -> Result<(), Error> {
    if good {
        return Ok(());
    }
    Err(Error::OutOfRange {
        component: component.to_owned(),
        option,
        value: value.to_string(),
        expected: expected.into(),
    })
}
