//! What a perceptron reads of a batch.

use burn::tensor::{Int, Tensor};

use crate::{FieldId, FieldKind, Lookup, Schema, TableField};

/// The vectors of fields side by side, then dense columns.
///
/// ```text
/// a = [v_1, …, v_F, x_1, …, x_D],  v_f = Σ x v over the features of field f
/// ```
///
/// A numeric field that is not in buckets is its dense column, with the indicator of its missing
/// values; all others are vectors, those of a bag added up.
///
/// ```
/// use crossfield_core::{Field, FieldInputs, FieldKind, Schema, factor_table};
///
/// let field = |name: &str, kind| Field {
///     name: name.into(),
///     kind,
///     vocabulary: name.into(),
///     rows: 4,
///     oov_row: None,
/// };
/// let schema = Schema {
///     fields: vec![field("age", FieldKind::Numeric), field("tags", FieldKind::Bag)],
///     dense: vec!["age".into(), "age.missing".into()],
/// };
/// let inputs = FieldInputs::new(&schema, &[0, 1], 8, |vocabulary| factor_table(8, vocabulary));
/// assert_eq!(inputs.embedded()[0].table, "v8.tags");
/// assert_eq!(inputs.width(), 8 + 2);
/// ```
#[derive(Clone, Debug, Default)]
pub struct FieldInputs {
    embedded: Vec<TableField>,
    /// Positions of the dense columns; none if all of them are read.
    columns: Option<Vec<usize>>,
    width: usize,
}

impl FieldInputs {
    /// Of fields in the order of their vectors, of which each has `embedding_dim` weights in the table
    /// that `table` names by its vocabulary.
    pub fn new(
        schema: &Schema,
        fields: &[FieldId],
        embedding_dim: usize,
        table: impl Fn(&str) -> String,
    ) -> Self {
        let is_dense = |&&id: &&usize| {
            let field = &schema.fields[id];
            field.kind == FieldKind::Numeric && schema.dense.contains(&field.name)
        };
        let (numbers, ids): (Vec<usize>, Vec<usize>) = fields.iter().partition(is_dense);
        // A number's column and, if it has one, the indicator of its missing values.
        let columns: Vec<usize> = (0..schema.dense.len())
            .filter(|&column| {
                let column = &schema.dense[column];
                numbers.iter().any(|&id| {
                    let name = &schema.fields[id].name;
                    column == name || column.strip_suffix(".missing") == Some(name)
                })
            })
            .collect();
        let embedded = ids.into_iter().map(|field| TableField {
            table: table(&schema.fields[field].vocabulary),
            field,
        });
        let embedded: Vec<TableField> = embedded.collect();
        let width = embedded.len() * embedding_dim + columns.len();
        Self {
            embedded,
            columns: (columns.len() < schema.dense.len()).then_some(columns),
            width,
        }
    }

    /// The fields that are vectors, and where each is looked up.
    pub fn embedded(&self) -> &[TableField] {
        &self.embedded
    }

    /// Numbers a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// What the rows of a batch have.
    ///
    /// # Shapes
    /// - output: `[batch, width]`
    ///
    /// # Panics
    /// As [`Lookup::fields`], and if there is nothing to read.
    pub fn of(&self, x: &Lookup) -> Tensor<2> {
        let vectors = (!self.embedded.is_empty()).then(|| {
            let vectors = x.fields(&self.embedded);
            let [batch, fields, dim] = vectors.dims();
            vectors.reshape([batch, fields * dim])
        });
        let columns = match &self.columns {
            None => x.dense(),
            Some(columns) if columns.is_empty() => None,
            Some(columns) => x.dense().map(|dense| {
                let columns: Vec<i64> = columns.iter().map(|&column| column as i64).collect();
                let columns = Tensor::<1, Int>::from_data(&columns[..], &dense.device());
                dense.select(1, columns)
            }),
        };
        let parts: Vec<Tensor<2>> = vectors.into_iter().chain(columns).collect();
        Tensor::cat(parts, 1)
    }
}
