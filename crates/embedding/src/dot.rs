//! The inner product of two sides, as a component.

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield_core::{
    Component, ComponentConfig, Contribution, Error, Factors, FieldId, Init, LookedUp, Lookup,
    Schema, TableConfig, TableField, What, features_in, merge_tables,
};
use serde::{Deserialize, Serialize};

/// Configuration of a [`DotProduct`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DotProductConfig {
    /// Name of the component, set by its place in a run file.
    #[serde(skip)]
    pub name: String,
    /// Fields of one side, whose vectors are added up.
    pub left: Vec<String>,
    /// Fields of the other side.
    pub right: Vec<String>,
    /// Length of the vectors.
    pub embedding_dim: usize,
    /// Standard deviation of the vectors at the beginning. Vectors of zero would stay zero.
    pub init_std: f64,
}

impl Default for DotProductConfig {
    fn default() -> Self {
        Self {
            name: "dot".into(),
            left: vec!["user".into()],
            right: vec!["item".into()],
            embedding_dim: 32,
            init_std: 0.1,
        }
    }
}

/// User · item: `(Σ x v) · (Σ x w)` over the features of two sides.
///
/// With one field on each side it is the product of a matrix factorization; with bags and several
/// fields (a user's history, an item's tags) each side is a sum of vectors, as two towers without
/// layers. Vectors are those of the tables `v<dim>.<vocabulary>`, shared with every other component
/// of that dim.
///
/// ```
/// use std::sync::Arc;
///
/// use burn::tensor::Device;
/// use crossfield_core::{
///     Batch, Component, ComponentConfig, Field, FieldKind, Init, Jagged, Schema, merge_tables,
/// };
/// use crossfield_embedding::{DotProductConfig, EmbeddingCollection, RowOptimizer, TablePlan};
///
/// let field = |name: &str| Field {
///     name: name.into(),
///     kind: FieldKind::Categorical,
///     vocabulary: name.into(),
///     rows: 3,
///     oov_row: None,
/// };
/// let schema = Schema {
///     fields: vec![field("user"), field("item")],
///     dense: vec![],
/// };
/// let config = DotProductConfig {
///     embedding_dim: 2,
///     ..DotProductConfig::default()
/// };
/// let plan = |table| TablePlan::new(table, RowOptimizer::default());
/// let plans: Vec<TablePlan> = merge_tables(config.tables(&schema)?)?.into_iter().map(plan).collect();
/// let mut tables = EmbeddingCollection::new(&plans, 1)?;
/// let mut set = |table, row, vector: [f32; 2]| {
///     tables.table_mut(table).map(|table| table.write_weights(row, &vector))
/// };
/// set("v2.user", 1, [1.0, 2.0]);
/// set("v2.item", 2, [3.0, -1.0]);
///
/// let init = Init {
///     device: Device::flex(),
///     seed: 1,
/// };
/// let dot = config.init(&schema, &init)?;
/// let batch = Batch {
///     batch_size: 1,
///     sparse: vec![Jagged::one_hot(vec![1]), Jagged::one_hot(vec![2])],
///     ..Batch::default()
/// };
/// let (x, _) = tables.stage(Arc::new(batch), &init.device);
/// assert_eq!(dot.forward(&x).into_scalar::<f32>(), 1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Module, Debug)]
pub struct DotProduct {
    #[module(skip)]
    left: Vec<TableField>,
    #[module(skip)]
    right: Vec<TableField>,
}

impl DotProductConfig {
    /// Where the fields of each side are looked up, and in which tables.
    #[expect(clippy::type_complexity, reason = "two sides of the same pair")]
    fn sides(&self, schema: &Schema) -> Result<[(Vec<TableConfig>, Vec<TableField>); 2], Error> {
        let factors = Factors::new(&self.name, self.embedding_dim, self.init_std);
        factors.check_multiplied()?;
        let side = |names: &[String], expected| {
            if names.is_empty() {
                let component = self.name.clone();
                return Err(Error::NoFields {
                    component,
                    expected,
                });
            }
            let ids: Vec<FieldId> = schema.bags(&self.name, names)?;
            Ok(factors.tables(schema, &ids))
        };
        Ok([
            side(&self.left, "at least one field in `left`")?,
            side(&self.right, "at least one field in `right`")?,
        ])
    }
}

impl ComponentConfig for DotProductConfig {
    type Component = DotProduct;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        let [(left, _), (right, _)] = self.sides(schema)?;
        // A vocabulary on both sides is one table.
        merge_tables(left.into_iter().chain(right))
    }

    fn init(&self, schema: &Schema, _init: &Init) -> Result<DotProduct, Error> {
        let [(_, left), (_, right)] = self.sides(schema)?;
        Ok(DotProduct { left, right })
    }

    /// x v of each feature of both sides, and their product.
    fn flops(&self, schema: &Schema, features: &[f64]) -> Option<f64> {
        let [(_, left), (_, right)] = self.sides(schema).ok()?;
        let vectors = features_in(&left, features) + features_in(&right, features);
        Some(2.0 * (vectors + 1.0) * self.embedding_dim as f64)
    }
}

impl Component for DotProduct {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        (x.pooled(&self.left) * x.pooled(&self.right)).sum_dim(1)
    }

    /// Every pair across the two sides.
    fn explain(&self, x: &Lookup) -> Vec<Contribution> {
        let rows = x.features(&self.left).into_iter();
        let rows = rows.zip(x.features(&self.right)).enumerate();
        let pair = |row: usize, a: &LookedUp, b: &LookedUp| {
            let weight: f32 = a.weights.iter().zip(&b.weights).map(|(a, b)| a * b).sum();
            Contribution {
                row,
                what: What::Pair(a.feature, b.feature),
                weight,
                contribution: weight * a.feature.value * b.feature.value,
            }
        };
        let mut pairs = Vec::new();
        for (row, (left, right)) in rows {
            for a in &left {
                pairs.extend(right.iter().map(|b| pair(row, a, b)));
            }
        }
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use approx::assert_relative_eq;
    use burn::tensor::Device;
    use crossfield_core::{Batch, Field, FieldKind, Jagged};

    use crate::{EmbeddingCollection, RowOptimizer, TablePlan};

    fn schema() -> Schema {
        let field = |name: &str, kind, rows| Field {
            name: name.into(),
            kind,
            vocabulary: name.trim_start_matches("last_").into(),
            rows,
            oov_row: Some(0),
        };
        Schema {
            fields: vec![
                field("user", FieldKind::Categorical, 4),
                field("last_item", FieldKind::Bag, 5),
                field("item", FieldKind::Categorical, 5),
            ],
            dense: vec![],
        }
    }

    #[test]
    fn pairs_across_the_sides_add_up_to_the_score() {
        let config = DotProductConfig {
            left: vec!["user".into(), "last_item".into()],
            embedding_dim: 3,
            ..DotProductConfig::default()
        };
        let tables = config.tables(&schema()).unwrap();
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["v3.item", "v3.user"]);
        let plan = |table| TablePlan::new(table, RowOptimizer::default());
        let plans: Vec<TablePlan> = tables.into_iter().map(plan).collect();
        let mut tables = EmbeddingCollection::new(&plans, 7).unwrap();
        let device = Device::flex();
        let init = Init {
            device: device.clone(),
            seed: 1,
        };
        let dot = config.init(&schema(), &init).unwrap();
        let last = Jagged {
            indices: vec![1, 4],
            offsets: Some(vec![0, 2, 2]),
            weights: Some(vec![2.0, 0.5]),
        };
        let batch = Arc::new(Batch {
            batch_size: 2,
            sparse: vec![
                Jagged::one_hot(vec![3, 0]),
                last,
                Jagged::one_hot(vec![2, 2]),
            ],
            ..Batch::default()
        });
        let (x, _) = tables.stage(batch, &device);
        let scores = dot.forward(&x).try_into_vec_as::<f32>().unwrap();
        let parts = dot.explain(&x);
        assert_eq!(parts.len(), 4);
        for (row, score) in scores.iter().enumerate() {
            let of_row = parts.iter().filter(|part| part.row == row);
            let sum: f32 = of_row.map(|part| part.contribution).sum();
            assert_relative_eq!(sum, *score, epsilon = 1e-7);
        }
        // The other row's user is unknown and its history empty: nothing to multiply.
        assert!(scores[0] != 0.0 && scores[1] == 0.0);
    }

    #[test]
    fn operations_are_counted_as_by_hand() {
        let config = DotProductConfig {
            left: vec!["user".into(), "last_item".into()],
            embedding_dim: 3,
            ..DotProductConfig::default()
        };
        // x v of 1 + 2.5 + 1 features of 3 numbers, and 3 products.
        let flops = config.flops(&schema(), &[1.0, 2.5, 1.0]);
        assert_eq!(flops, Some(2.0 * (4.5 * 3.0 + 3.0)));
    }

    #[test]
    fn a_side_without_fields_is_refused() {
        let config = DotProductConfig {
            right: vec![],
            ..DotProductConfig::default()
        };
        assert_eq!(
            config.tables(&schema()).unwrap_err().to_string(),
            "`dot` has no field to read: it takes at least one field in `right`"
        );
    }
}
