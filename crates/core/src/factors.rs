//! The tables of vectors and of linear weights that components keep.

use crate::error::check_option;
use crate::{
    Error, FieldId, Initializer, Schema, TableConfig, TableField, factor_table, tables_for,
};

/// Lengths that vectors may have.
const DIMS: std::ops::RangeInclusive<usize> = 1..=1024;

/// How a component keeps the vectors of its fields, as its options say: as rows of the tables
/// `v<dim>.<vocabulary>`, which all components of that dim share, or of tables of its own.
///
/// ```
/// use crossfield_core::{Factors, Field, FieldKind, Schema};
///
/// let ad = Field {
///     name: "ad".into(),
///     kind: FieldKind::Categorical,
///     vocabulary: "ad".into(),
///     rows: 10,
///     oov_row: Some(0),
/// };
/// let schema = Schema {
///     fields: vec![ad],
///     dense: vec![],
/// };
/// let shared = Factors::new("tower", 8, 0.01);
/// shared.check()?;
/// let (tables, lookups) = shared.tables(&schema, &[0]);
/// assert_eq!((tables[0].name.as_str(), tables[0].rows), ("v8.ad", 10));
/// assert_eq!(lookups[0].table, "v8.ad");
/// assert_eq!(shared.in_tables_of(Some("tower")).table("ad"), "tower.ad");
/// # Ok::<(), crossfield_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Factors<'a> {
    /// The component, as messages name it.
    pub component: &'a str,
    /// Length of a vector.
    pub dim: usize,
    /// Standard deviation of its entries at the beginning.
    pub init_std: f64,
    /// Prefix of the tables in place of `v<dim>`.
    pub share: Option<&'a str>,
}

impl<'a> Factors<'a> {
    /// Vectors of `dim` numbers in the tables that are shared by all components of that dim.
    pub fn new(component: &'a str, dim: usize, init_std: f64) -> Self {
        Self {
            component,
            dim,
            init_std,
            share: None,
        }
    }

    /// The same in tables of that prefix, if there is one.
    pub fn in_tables_of(self, share: Option<&'a str>) -> Self {
        Self { share, ..self }
    }

    /// Refuses what vectors cannot be, for a component that may begin with zeros.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for `embedding_dim` or `init_std`.
    pub fn check(&self) -> Result<(), Error> {
        let good = self.init_std.is_finite() && self.init_std >= 0.0;
        self.check_with(good, "a finite number of at least 0")
    }

    /// As [`check`](Self::check), for a component that multiplies vectors by each other: those of zero
    /// would stay zero.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for `embedding_dim` or `init_std`.
    pub fn check_multiplied(&self) -> Result<(), Error> {
        let good = self.init_std.is_finite() && self.init_std > 0.0;
        self.check_with(good, "a number above 0")
    }

    fn check_with(&self, good_std: bool, expected: &'static str) -> Result<(), Error> {
        let (name, dim) = (self.component, self.dim);
        check_option(name, "embedding_dim", dim, DIMS.contains(&dim), "1 to 1024")?;
        check_option(name, "init_std", self.init_std, good_std, expected)
    }

    /// The name of the table of a vocabulary.
    pub fn table(&self, vocabulary: &str) -> String {
        match self.share {
            Some(prefix) => format!("{prefix}.{vocabulary}"),
            None => factor_table(self.dim, vocabulary),
        }
    }

    /// The tables of some fields, and where each field is to be looked up.
    pub fn tables(
        &self,
        schema: &Schema,
        fields: &[FieldId],
    ) -> (Vec<TableConfig>, Vec<TableField>) {
        let begin = Initializer::Normal { std: self.init_std };
        tables_for(schema, fields, self.dim, begin, |vocabulary| {
            self.table(vocabulary)
        })
    }
}

/// The tables `<prefix>.<vocabulary>` of one weight a feature, zero at the beginning, and where each
/// field is to be looked up.
///
/// ```
/// use crossfield_core::{Field, FieldKind, Schema, linear_tables};
///
/// let site = Field {
///     name: "site".into(),
///     kind: FieldKind::Categorical,
///     vocabulary: "site".into(),
///     rows: 4,
///     oov_row: None,
/// };
/// let schema = Schema {
///     fields: vec![site],
///     dense: vec![],
/// };
/// let (tables, _) = linear_tables(&schema, &[0], "wide");
/// assert_eq!((tables[0].name.as_str(), tables[0].dim), ("wide.site", 1));
/// ```
pub fn linear_tables(
    schema: &Schema,
    fields: &[FieldId],
    prefix: &str,
) -> (Vec<TableConfig>, Vec<TableField>) {
    tables_for(schema, fields, 1, Initializer::Zeros, |vocabulary| {
        format!("{prefix}.{vocabulary}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_that_cannot_be_are_refused_by_name() {
        let factors = Factors::new("fm", 8, 0.0);
        factors.check().unwrap();
        let message = factors.check_multiplied().unwrap_err().to_string();
        assert!(
            message.contains("init_std") && message.contains("a number above 0"),
            "{message}"
        );
        for (dim, init_std) in [(0, 0.1), (1025, 0.1), (8, -0.1), (8, f64::NAN)] {
            let bad = Factors {
                dim,
                init_std,
                ..factors
            };
            assert!(bad.check().is_err(), "{bad:?}");
            assert!(bad.check_multiplied().is_err(), "{bad:?}");
        }
    }
}
