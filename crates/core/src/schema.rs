//! What the data looks like to a model: fields, the vocabularies behind them, dense columns.

use serde::{Deserialize, Serialize};

use crate::Error;

/// Position of a field in [`Schema::fields`].
pub type FieldId = usize;

/// How the values of a field reach a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldKind {
    /// One index a row.
    #[default]
    Categorical,
    /// Any number of weighted indices a row, pooled by a weighted sum.
    Bag,
    /// A number. In buckets: one index a row. As a number: index 0 weighted by the transformed
    /// value, or index 1 where the value is missing; the same numbers are dense columns too.
    Numeric,
    /// An ordered list of indices, oldest first.
    Sequence,
    /// One index a row, hashed into a fixed number of rows.
    Hashed,
    /// Values of several fields together, `[[cross]]` of a run file: any number of weighted indices
    /// a row.
    Cross,
}

impl FieldKind {
    /// The name in a run file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Categorical => "categorical",
            Self::Bag => "bag",
            Self::Numeric => "numeric",
            Self::Sequence => "sequence",
            Self::Hashed => "hashed",
            Self::Cross => "cross",
        }
    }
}

/// A column of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Name, unique in a schema.
    pub name: String,
    /// How its values arrive.
    pub kind: FieldKind,
    /// The vocabulary its indices belong to; fields of the same vocabulary share rows.
    pub vocabulary: String,
    /// Rows of that vocabulary, the out-of-vocabulary row included: indices are `< rows`.
    pub rows: u32,
    /// The row of that vocabulary that stands for values never seen in training, if it has one.
    /// Tables start it at zero, so that an unknown value adds nothing.
    pub oov_row: Option<u32>,
}

/// The fields of a data set, in the order in which a [`Batch`](crate::Batch) holds them.
///
/// ```
/// use crossfield_core::{Field, FieldKind, Schema};
///
/// let field = |name: &str, kind, vocabulary: &str| Field {
///     name: name.into(),
///     kind,
///     vocabulary: vocabulary.into(),
///     rows: 10,
///     oov_row: Some(0),
/// };
/// let schema = Schema {
///     fields: vec![
///         field("ad", FieldKind::Categorical, "ad"),
///         field("history", FieldKind::Sequence, "ad"),
///     ],
///     dense: vec![],
/// };
/// assert_eq!(schema.field("history"), Some(1));
/// // What a component that asks for nothing in particular reads as bags.
/// assert_eq!(schema.bags("fm", &[])?, [0]);
/// # Ok::<(), crossfield_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// The fields.
    pub fields: Vec<Field>,
    /// Names of the dense columns: transformed numerics, then indicators of missing values.
    pub dense: Vec<String>,
}

impl Schema {
    /// The id of the field called `name`.
    pub fn field(&self, name: &str) -> Option<FieldId> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// The fields that a component reads as bags: those it names, in that order; if it names
    /// none, all but the sequences, whose order a bag throws away, and the crosses, which are for
    /// components that cannot cross fields themselves.
    ///
    /// # Errors
    /// [`Error::UnknownField`]; [`Error::DuplicateField`]; [`Error::NoFields`] if the data has
    /// none.
    pub fn bags(&self, component: &str, names: &[String]) -> Result<Vec<FieldId>, Error> {
        self.pick(component, names, &[FieldKind::Sequence, FieldKind::Cross])
    }

    /// As [`bags`](Self::bags), for a component that reads crosses too unless it is told otherwise.
    ///
    /// # Errors
    /// As [`bags`](Self::bags).
    pub fn bags_and_crosses(
        &self,
        component: &str,
        names: &[String],
    ) -> Result<Vec<FieldId>, Error> {
        self.pick(component, names, &[FieldKind::Sequence])
    }

    fn pick(
        &self,
        component: &str,
        names: &[String],
        but: &[FieldKind],
    ) -> Result<Vec<FieldId>, Error> {
        let ids = if names.is_empty() {
            (0..self.fields.len())
                .filter(|&id| !but.contains(&self.fields[id].kind))
                .collect()
        } else {
            names
                .iter()
                .map(|name| {
                    self.field(name).ok_or_else(|| Error::UnknownField {
                        component: component.to_owned(),
                        field: name.clone(),
                        known: self.names().join(", "),
                    })
                })
                .collect::<Result<Vec<_>, _>>()?
        };
        if let Some(name) =
            (1..names.len()).find_map(|at| names[..at].iter().find(|&name| *name == names[at]))
        {
            return Err(Error::DuplicateField {
                component: component.to_owned(),
                field: name.clone(),
            });
        }
        if ids.is_empty() {
            return Err(Error::NoFields {
                component: component.to_owned(),
                expected: "at least one field that is not a sequence",
            });
        }
        Ok(ids)
    }

    fn names(&self) -> Vec<&str> {
        self.fields
            .iter()
            .map(|field| field.name.as_str())
            .collect()
    }
}
