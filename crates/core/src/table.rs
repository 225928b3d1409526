//! What a component asks of the embedding tables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, FieldId, Schema};

/// How the rows of a table begin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Initializer {
    /// All zero.
    Zeros,
    /// Normal around 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Uniform in `[low, high)`.
    Uniform {
        /// Lower bound.
        low: f64,
        /// Upper bound.
        high: f64,
    },
}

/// A table that a component reads: one row of `dim` weights for each index of a vocabulary.
///
/// ```
/// use crossfield_core::{Field, FieldKind, Initializer, Schema};
/// use crossfield_core::{factor_table, merge_tables, tables_for};
///
/// let field = |name: &str| Field {
///     name: name.into(),
///     kind: FieldKind::Categorical,
///     vocabulary: "ad".into(),
///     rows: 10,
///     oov_row: Some(0),
/// };
/// let schema = Schema {
///     fields: vec![field("ad"), field("last_ad")],
///     dense: vec![],
/// };
/// let ask = |fields: &[usize], dim| {
///     let initializer = Initializer::Normal { std: 0.01 };
///     tables_for(&schema, fields, dim, initializer, |vocabulary| factor_table(dim, vocabulary))
/// };
/// // Two fields of one vocabulary are one table, and where each is looked up.
/// let (tables, lookups) = ask(&[0, 1], 8);
/// assert_eq!((tables.len(), tables[0].name.as_str()), (1, "v8.ad"));
/// assert_eq!(lookups[1].table, "v8.ad");
/// // So are two components that ask for the same name.
/// let both = ask(&[0], 8).0.into_iter().chain(ask(&[1], 8).0);
/// assert_eq!(merge_tables(both)?[0].fields, [0, 1]);
/// # Ok::<(), crossfield_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TableConfig {
    /// Name; two components that ask for the same name share the rows.
    pub name: String,
    /// Number of rows.
    pub rows: usize,
    /// Weights a row.
    pub dim: usize,
    /// The fields whose indices are looked up here, in rising order.
    pub fields: Vec<FieldId>,
    /// How rows begin; the out-of-vocabulary row begins at zero whatever this says.
    pub initializer: Initializer,
    /// The row that stands for unseen values, if there is one.
    pub oov_row: Option<u32>,
}

/// A field looked up in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableField {
    /// Name of the table.
    pub table: String,
    /// The field.
    pub field: FieldId,
}

/// One table for each vocabulary of `fields`, named by `name(vocabulary)`, and where each field
/// is to be looked up.
pub fn tables_for(
    schema: &Schema,
    fields: &[FieldId],
    dim: usize,
    initializer: Initializer,
    name: impl Fn(&str) -> String,
) -> (Vec<TableConfig>, Vec<TableField>) {
    let mut tables: BTreeMap<String, TableConfig> = BTreeMap::new();
    let mut lookups = Vec::with_capacity(fields.len());
    for &id in fields {
        let field = &schema.fields[id];
        let table = name(&field.vocabulary);
        lookups.push(TableField {
            table: table.clone(),
            field: id,
        });
        tables
            .entry(table.clone())
            .or_insert_with(|| TableConfig {
                name: table,
                rows: field.rows as usize,
                dim,
                fields: Vec::new(),
                initializer,
                oov_row: field.oov_row,
            })
            .fields
            .push(id);
    }
    (tables.into_values().collect(), lookups)
}

/// The vectors of `fields` in the tables that every component of that dim shares, one for each
/// vocabulary ([`factor_table`]), and where each field is to be looked up. They begin normal around 0.
///
/// ```
/// use crossfield_core::{Field, FieldKind, Schema, factors_for};
///
/// let schema = Schema {
///     fields: vec![Field {
///         name: "last_ad".into(),
///         kind: FieldKind::Categorical,
///         vocabulary: "ad".into(),
///         rows: 10,
///         oov_row: Some(0),
///     }],
///     dense: vec![],
/// };
/// let (tables, lookups) = factors_for(&schema, &[0], 8, 0.01);
/// assert_eq!((tables[0].name.as_str(), tables[0].dim), ("v8.ad", 8));
/// assert_eq!(lookups[0].table, "v8.ad");
/// ```
pub fn factors_for(
    schema: &Schema,
    fields: &[FieldId],
    dim: usize,
    init_std: f64,
) -> (Vec<TableConfig>, Vec<TableField>) {
    let initializer = Initializer::Normal { std: init_std };
    tables_for(schema, fields, dim, initializer, |vocabulary| {
        factor_table(dim, vocabulary)
    })
}

/// How many features a row has in fields that are looked up, of `features[f]` in field f.
///
/// ```
/// use crossfield_core::{TableField, features_in};
///
/// let lookup = |field| TableField { table: "v8.ad".into(), field };
/// assert_eq!(features_in(&[lookup(0), lookup(2)], &[1.0, 1.0, 2.5]), 3.5);
/// ```
///
/// # Panics
/// If a field has no entry.
pub fn features_in(fields: &[TableField], features: &[f64]) -> f64 {
    fields.iter().map(|field| features[field.field]).sum()
}

/// The name of a table of factors, shared by every component of that dim: `v8.item`.
pub fn factor_table(dim: usize, vocabulary: &str) -> String {
    format!("v{dim}.{vocabulary}")
}

/// Joins the tables of several components: the same name is one table that serves the fields of
/// all of them. Sorted by name.
///
/// # Errors
/// [`Error::TableClash`] where the same name comes with other rows, another dim or another
/// initialiser.
pub fn merge_tables(
    tables: impl IntoIterator<Item = TableConfig>,
) -> Result<Vec<TableConfig>, Error> {
    let mut merged: BTreeMap<String, TableConfig> = BTreeMap::new();
    for table in tables {
        let Some(known) = merged.get_mut(&table.name) else {
            merged.insert(table.name.clone(), table);
            continue;
        };
        let clash = |what, left: String, right: String| {
            Err(Error::TableClash {
                table: table.name.clone(),
                what,
                left,
                right,
            })
        };
        if known.rows != table.rows || known.oov_row != table.oov_row {
            return clash("rows", known.rows.to_string(), table.rows.to_string());
        }
        if known.dim != table.dim {
            return clash(
                "embedding_dim",
                known.dim.to_string(),
                table.dim.to_string(),
            );
        }
        if known.initializer != table.initializer {
            return clash(
                "initializer",
                format!("{:?}", known.initializer),
                format!("{:?}", table.initializer),
            );
        }
        known.fields.extend(table.fields);
        known.fields.sort_unstable();
        known.fields.dedup();
    }
    Ok(merged.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Field, FieldKind};

    fn schema() -> Schema {
        let field = |name: &str, vocabulary: &str, rows| Field {
            name: name.into(),
            kind: FieldKind::Categorical,
            vocabulary: vocabulary.into(),
            rows,
            oov_row: Some(0),
        };
        Schema {
            fields: vec![
                field("ad", "ad", 10),
                field("site", "site", 4),
                field("last", "ad", 10),
            ],
            dense: vec![],
        }
    }

    #[test]
    fn fields_of_one_vocabulary_share_a_table() {
        let (tables, lookups) = tables_for(&schema(), &[0, 1, 2], 8, Initializer::Zeros, |v| {
            factor_table(8, v)
        });
        assert_eq!(tables.len(), 2);
        assert_eq!(
            (tables[0].name.as_str(), &tables[0].fields[..]),
            ("v8.ad", &[0, 2][..])
        );
        assert_eq!(
            lookups[2],
            TableField {
                table: "v8.ad".into(),
                field: 2
            }
        );
    }

    #[test]
    fn the_same_name_is_one_table() {
        let ask = |fields: &[FieldId]| {
            tables_for(&schema(), fields, 8, Initializer::Zeros, |v| {
                factor_table(8, v)
            })
            .0
        };
        let merged = merge_tables(ask(&[2]).into_iter().chain(ask(&[0, 1]))).unwrap();
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[0].fields, [0, 2]);
    }

    #[test]
    fn unequal_tables_of_one_name_are_refused() {
        let ask = |dim, initializer| {
            tables_for(&schema(), &[0], dim, initializer, |_| "deep.ad".into())
                .0
                .remove(0)
        };
        let normal = Initializer::Normal { std: 0.1 };
        let error = merge_tables([ask(8, normal), ask(16, normal)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "table `deep.ad` is asked for twice with different embedding_dim: 8 and 16; \
             give one of the two another name"
        );
        assert!(merge_tables([ask(8, normal), ask(8, Initializer::Zeros)]).is_err());
        let mut wider = ask(8, normal);
        wider.rows += 1;
        assert!(merge_tables([ask(8, normal), wider]).is_err());
    }
}
