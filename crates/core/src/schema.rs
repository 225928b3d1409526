//! What the data looks like to a model: fields, the vocabularies behind them, dense columns.

use serde::{Deserialize, Serialize};

/// Position of a field in [`Schema::fields`].
pub type FieldId = usize;

/// How the values of a field reach a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldKind {
    /// One index a row.
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

    /// Fields that a factorization or a linear model reads: all but the sequences, whose order
    /// such a model would throw away.
    pub fn pooled_fields(&self) -> Vec<FieldId> {
        (0..self.fields.len())
            .filter(|&id| self.fields[id].kind != FieldKind::Sequence)
            .collect()
    }
}
