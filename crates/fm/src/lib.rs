#![doc = include_str!("../README.md")]

#[cfg(feature = "fused")]
mod fused;
pub mod solver;

use burn::module::Module;
use burn::tensor::Tensor;
/// The crate of the traits that are implemented here: for those who depend on this crate alone.
pub use crossfield_core;
use crossfield_core::{
    Component, ComponentConfig, Contribution, Error, Factors, FieldId, Init, Lookup, Schema,
    TableConfig, TableField, What, features_in, linear_tables,
};
#[cfg(feature = "fused")]
pub use fused::FusedFm;
use serde::{Deserialize, Serialize};

/// Configuration of an [`Fm`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FmConfig {
    /// Name of the component, set by its place in a run file; its linear weights are the tables `<name>.<vocabulary>`.
    #[serde(skip)]
    pub name: String,
    /// Fields to read; none: all but the sequences.
    pub fields: Vec<String>,
    /// Length k of the vectors; 8 is what libFM's users begin with.
    pub embedding_dim: usize,
    /// Whether the linear terms `w_i x_i` are part of it; leave them out beside `wide`.
    pub linear: bool,
    /// Standard deviation of the vectors at the beginning. Vectors of zero would stay zero.
    pub init_std: f64,
    /// Prefix of the linear tables instead of the name, to share them with another component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
}

impl Default for FmConfig {
    fn default() -> Self {
        Self {
            name: "fm".into(),
            fields: Vec::new(),
            embedding_dim: 8,
            linear: true,
            init_std: 0.01,
            share: None,
        }
    }
}

/// Linear terms and factorized pairs of all features, those inside one bag included.
///
/// The example of the [crate] scores a row.
#[derive(Module, Debug)]
pub struct Fm {
    #[module(skip)]
    factors: Vec<TableField>,
    #[module(skip)]
    linear: Vec<TableField>,
}

impl FmConfig {
    fn factors(&self) -> Factors<'_> {
        Factors::new(&self.name, self.embedding_dim, self.init_std)
    }

    fn linear(&self, schema: &Schema, ids: &[FieldId]) -> (Vec<TableConfig>, Vec<TableField>) {
        let ids = if self.linear { ids } else { &[] };
        linear_tables(schema, ids, self.share.as_deref().unwrap_or(&self.name))
    }

    /// Where each field's vectors and linear weights are looked up.
    fn lookups(&self, schema: &Schema) -> Result<(Vec<TableField>, Vec<TableField>), Error> {
        let ids = self.ids(schema)?;
        let factors = self.factors().tables(schema, &ids).1;
        Ok((factors, self.linear(schema, &ids).1))
    }

    fn ids(&self, schema: &Schema) -> Result<Vec<FieldId>, Error> {
        self.factors().check_multiplied()?;
        schema.bags(&self.name, &self.fields)
    }
}

impl ComponentConfig for FmConfig {
    type Component = Fm;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        let ids = self.ids(schema)?;
        let mut tables = self.factors().tables(schema, &ids).0;
        tables.extend(self.linear(schema, &ids).0);
        Ok(tables)
    }

    fn init(&self, schema: &Schema, _init: &Init) -> Result<Fm, Error> {
        let (factors, linear) = self.lookups(schema)?;
        Ok(Fm { factors, linear })
    }

    /// For each feature x v and x² v², then the square of each entry of the sum; w x of each feature.
    fn flops(&self, schema: &Schema, features: &[f64]) -> Option<f64> {
        let (factors, linear) = self.lookups(schema).ok()?;
        let dim = self.embedding_dim as f64;
        let pairs = (2.0 * features_in(&factors, features) + 1.0) * dim;
        Some(2.0 * (pairs + features_in(&linear, features)))
    }
}

impl Component for Fm {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        let (sum, square) = x.pooled_with_square(&self.factors);
        let pairs = interaction_of_sums(sum, square);
        if self.linear.is_empty() {
            pairs
        } else {
            pairs + x.pooled(&self.linear)
        }
    }

    /// Every pair on its own, so in time quadratic in the features of a row.
    fn explain(&self, x: &Lookup) -> Vec<Contribution> {
        let mut contributions = x.linear_terms(&self.linear);
        for (row, features) in x.features(&self.factors).into_iter().enumerate() {
            for (at, a) in features.iter().enumerate() {
                for b in &features[at + 1..] {
                    let weight: f32 = a.weights.iter().zip(&b.weights).map(|(a, b)| a * b).sum();
                    contributions.push(Contribution {
                        row,
                        what: What::Pair(a.feature, b.feature),
                        weight,
                        contribution: weight * a.feature.value * b.feature.value,
                    });
                }
            }
        }
        contributions
    }
}

/// The sum over all pairs of vectors of their inner product.
///
/// # Shapes
/// - v: `[batch, features, dim]`, each vector times its feature's value
/// - output: `[batch, 1]`
///
/// ```
/// use burn::tensor::{Device, Tensor};
///
/// let v = Tensor::<3>::from_data([[[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]]], &Device::flex());
/// // ⟨a, b⟩ + ⟨a, c⟩ + ⟨b, c⟩ = 1 + 1.5 + 1
/// let z = crossfield_fm::interaction(v).into_scalar::<f32>();
/// assert!((z - 3.5).abs() < 1e-6);
/// ```
pub fn interaction(v: Tensor<3>) -> Tensor<2> {
    bi_interaction(v).sum_dim(1)
}

/// [`interaction`] where the sums over the features are known: `½ Σ_d [sum² − square]`.
///
/// # Shapes
/// - sum: `[batch, dim]`, Σ x v
/// - square: `[batch, dim]`, Σ x² v², element-wise
/// - output: `[batch, 1]`
pub fn interaction_of_sums(sum: Tensor<2>, square: Tensor<2>) -> Tensor<2> {
    bi_interaction_of_sums(sum, square).sum_dim(1)
}

/// The sum over all pairs of vectors of their element-wise product, `½ [(Σ v)² − Σ v²]`: what a
/// network takes in place of the vectors themselves. Its entries add up to [`interaction`].
///
/// # Shapes
/// - v: `[batch, features, dim]`, each vector times its feature's value
/// - output: `[batch, dim]`
///
/// # Source
/// He, Chua, Neural Factorization Machines for Sparse Predictive Analytics, SIGIR 2017,
/// equation 4.
///
/// ```
/// use burn::tensor::{Device, Tensor};
///
/// let v = Tensor::<3>::from_data([[[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]]], &Device::flex());
/// // 1·3 + 1·0.5 + 3·0.5, and −2·1 + 2·0.5 − 1·0.5
/// let pooled = crossfield_fm::bi_interaction(v).try_into_vec_as::<f32>().unwrap();
/// assert_eq!(pooled, [5.0, -1.5]);
/// ```
pub fn bi_interaction(v: Tensor<3>) -> Tensor<2> {
    let [batch, _, dim] = v.dims();
    let square = v.clone().square().sum_dim(1).reshape([batch, dim]);
    bi_interaction_of_sums(v.sum_dim(1).reshape([batch, dim]), square)
}

/// [`bi_interaction`] where the sums over the features are known: `½ [sum² − square]`.
///
/// # Shapes
/// - sum: `[batch, dim]`, Σ x v
/// - square: `[batch, dim]`, Σ x² v², element-wise
/// - output: `[batch, dim]`
pub fn bi_interaction_of_sums(sum: Tensor<2>, square: Tensor<2>) -> Tensor<2> {
    (sum.square() - square).mul_scalar(0.5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use approx::assert_relative_eq;
    use burn::tensor::Device;
    use crossfield_core::{
        Batch, Feature, Field, FieldKind, Jagged, Loss, Model, Scored, merge_tables,
    };
    use crossfield_embedding::{EmbeddingCollection, RowOptimizer, RowOptimizerKind, TablePlan};

    fn schema() -> Schema {
        let field = |name: &str, kind, rows| Field {
            name: name.into(),
            kind,
            vocabulary: name.into(),
            rows,
            oov_row: Some(0),
        };
        Schema {
            fields: vec![
                field("user", FieldKind::Categorical, 6),
                field("genres", FieldKind::Bag, 5),
                field("history", FieldKind::Sequence, 9),
            ],
            dense: vec![],
        }
    }

    fn batch() -> Arc<Batch> {
        let genres = Jagged {
            indices: vec![1, 2, 2, 4],
            offsets: Some(vec![0, 3, 3, 4]),
            weights: Some(vec![1.0, 0.5, 0.25, -2.0]),
        };
        Arc::new(Batch {
            batch_size: 3,
            sparse: vec![Jagged::one_hot(vec![3, 5, 3]), genres, Jagged::default()],
            ..Batch::default()
        })
    }

    fn tables(config: &FmConfig, optimizer: RowOptimizer) -> EmbeddingCollection {
        let plans: Vec<TablePlan> = merge_tables(config.tables(&schema()).unwrap())
            .unwrap()
            .into_iter()
            .map(|config| TablePlan::new(config, optimizer))
            .collect();
        let mut tables = EmbeddingCollection::new(&plans, 3).unwrap();
        for name in ["fm.user", "fm.genres"] {
            if let Some(table) = tables.table_mut(name) {
                for row in 1..table.config().rows as u32 {
                    table.weights_mut(row)[0] = row as f32 * 0.1;
                }
            }
        }
        tables
    }

    /// The equation as it stands: a double loop over the features of each row.
    fn naive(tables: &EmbeddingCollection, batch: &Batch, linear: bool) -> Vec<f64> {
        let find = |name: &str| {
            tables
                .tables()
                .iter()
                .find(|table| table.config().name == name)
                .unwrap()
        };
        (0..batch.batch_size)
            .map(|row| {
                let mut features = Vec::new();
                for (field, name) in ["user", "genres"].iter().enumerate() {
                    let jagged = &batch.sparse[field];
                    for at in jagged.range(row) {
                        features.push((name, jagged.indices[at], f64::from(jagged.weight(at))));
                    }
                }
                let v = |i: usize| find(&format!("v4.{}", features[i].0)).weights(features[i].1);
                let mut z = 0.0;
                for (i, &(name, index, x)) in features.iter().enumerate() {
                    if linear {
                        z += f64::from(find(&format!("fm.{name}")).weights(index)[0]) * x;
                    }
                    for (j, &(_, _, other)) in features.iter().enumerate().skip(i + 1) {
                        let dot: f64 = v(i)
                            .iter()
                            .zip(v(j))
                            .map(|(&a, &b)| f64::from(a) * f64::from(b))
                            .sum();
                        z += dot * x * other;
                    }
                }
                z
            })
            .collect()
    }

    fn config(linear: bool) -> FmConfig {
        FmConfig {
            embedding_dim: 4,
            init_std: 0.5,
            linear,
            ..FmConfig::default()
        }
    }

    fn scores(config: &FmConfig, tables: &mut EmbeddingCollection, device: &Device) -> Vec<f32> {
        let init = Init {
            device: device.clone(),
            seed: 1,
        };
        let fm = config.init(&schema(), &init).unwrap();
        let (lookup, _) = tables.stage(batch(), device);
        fm.forward(&lookup).try_into_vec_as::<f32>().unwrap()
    }

    #[test]
    fn operations_are_counted_as_by_hand() {
        // A user and two genres of four weights each: x v and x² v² of 3 · 4 numbers, 4 squares of
        // sums, and w x of 3 features.
        let features = [1.0, 2.0, 40.0];
        let flops = |linear| config(linear).flops(&schema(), &features);
        assert_eq!(flops(false), Some(2.0 * (12.0 + 12.0 + 4.0)));
        assert_eq!(flops(true), Some(2.0 * (28.0 + 3.0)));
        // Two components do the work of both.
        let both = (config(false), config(true)).flops(&schema(), &features);
        assert_eq!(both, Some(56.0 + 62.0));
    }

    #[test]
    fn the_linear_time_form_equals_the_double_loop_bags_included() {
        for linear in [true, false] {
            let mut tables = tables(&config(linear), RowOptimizer::default());
            let expected = naive(&tables, &batch(), linear);
            let got = scores(&config(linear), &mut tables, &Device::flex());
            for (got, expected) in got.iter().zip(expected) {
                assert_relative_eq!(f64::from(*got), expected, epsilon = 1e-5);
            }
        }
    }

    #[test]
    fn the_layer_equals_the_component_on_one_vector_a_field() {
        let v = Tensor::<3>::from_data([[[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]]], &Device::flex());
        // ⟨a,b⟩ + ⟨a,c⟩ + ⟨b,c⟩ = 1 + 1.5 + 1
        assert_relative_eq!(interaction(v).into_scalar::<f32>(), 3.5, epsilon = 1e-6);
    }

    #[test]
    fn contributions_add_up_to_the_score_and_name_bags_and_pairs() {
        let config = config(true);
        let mut tables = tables(&config, RowOptimizer::default());
        let device = Device::flex();
        let init = Init {
            device: device.clone(),
            seed: 1,
        };
        let fm = config.init(&schema(), &init).unwrap();
        let model = Scored::new(fm, Loss::Logistic, 0.3, &device);
        let (lookup, _) = tables.stage(batch(), &device);
        let scores = model.score(&lookup).try_into_vec_as::<f32>().unwrap();
        let parts = model.explain(&lookup);
        for (row, &score) in scores.iter().enumerate() {
            let of_row = parts.iter().filter(|part| part.row == row);
            let sum: f64 = of_row.map(|part| f64::from(part.contribution)).sum();
            assert_relative_eq!(sum, f64::from(score), epsilon = 1e-5, max_relative = 1e-5);
        }
        // Row 0: the bias, the user and three genres, and the six pairs of these four.
        let of_row = |row| parts.iter().filter(move |part| part.row == row);
        assert_eq!(of_row(0).count(), 1 + 4 + 6);
        assert_eq!(of_row(0).next().unwrap().what, What::Bias);
        let twice = Feature {
            field: 1,
            index: 2,
            value: 0.5,
        };
        let again = Feature {
            value: 0.25,
            ..twice
        };
        let inside = of_row(0).find(|part| part.what == What::Pair(twice, again));
        let norm2: f32 = tables
            .table_mut("v4.genres")
            .unwrap()
            .weights(2)
            .iter()
            .map(|v| v * v)
            .sum();
        assert_relative_eq!(inside.unwrap().contribution, norm2 * 0.125, epsilon = 1e-6);
        // Row 1 has a user alone.
        assert_eq!(of_row(1).count(), 2);
    }

    #[test]
    fn the_un_summed_layer_adds_up_to_the_interaction() {
        let v = Tensor::<3>::from_data(
            [
                [[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]],
                [[0.0; 2], [2.0, 1.0], [0.0; 2]],
            ],
            &Device::flex(),
        );
        let pooled = bi_interaction(v.clone()).try_into_vec_as::<f32>().unwrap();
        // A vector alone has no pair.
        assert_eq!(pooled, [5.0, -1.5, 0.0, 0.0]);
        let z = interaction(v).try_into_vec_as::<f32>().unwrap();
        assert_eq!(z, [3.5, 0.0]);
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let sgd = RowOptimizer {
            kind: RowOptimizerKind::Sgd,
            lr: 1.0,
            ..RowOptimizer::default()
        };
        let device = Device::flex().autodiff();
        let total = |tables: &EmbeddingCollection| -> f64 {
            naive(tables, &batch(), true).iter().map(|z| z * z).sum()
        };
        let mut stepped = tables(&config(true), sgd);
        let fm = config(true)
            .init(
                &schema(),
                &Init {
                    device: device.clone(),
                    seed: 1,
                },
            )
            .unwrap();
        let (lookup, staged) = stepped.stage(batch(), &device);
        let mut gradients = fm.forward(&lookup).square().sum().backward();
        stepped
            .apply(&lookup, &staged, &mut gradients, 1.0)
            .unwrap();
        for (table, row, at) in [("v4.user", 3, 1), ("v4.genres", 2, 3), ("fm.genres", 4, 0)] {
            let moved = |by: f32| {
                let mut tables = tables(&config(true), sgd);
                tables.table_mut(table).unwrap().weights_mut(row)[at] += by;
                total(&tables)
            };
            let expected = (moved(1e-3) - moved(-1e-3)) / 2e-3;
            let start = tables(&config(true), sgd)
                .table_mut(table)
                .unwrap()
                .weights(row)[at];
            let gradient = start - stepped.table_mut(table).unwrap().weights(row)[at];
            assert_relative_eq!(
                f64::from(gradient),
                expected,
                epsilon = 1e-3,
                max_relative = 1e-3
            );
        }
    }

    #[cfg(feature = "ndarray")]
    #[test]
    #[expect(deprecated, reason = "kept as the second CPU backend")]
    fn ndarray_scores_as_flex_does() {
        let mut tables = tables(&config(true), RowOptimizer::default());
        let flex = scores(&config(true), &mut tables, &Device::flex());
        let ndarray = scores(&config(true), &mut tables, &Device::ndarray());
        for (flex, ndarray) in flex.iter().zip(ndarray) {
            assert_relative_eq!(*flex, ndarray, epsilon = 1e-6);
        }
    }

    #[test]
    fn wrong_options_are_named() {
        let error = FmConfig {
            embedding_dim: 0,
            ..FmConfig::default()
        }
        .tables(&schema());
        assert_eq!(
            error.unwrap_err().to_string(),
            "`fm.embedding_dim` is 0: expected 1 to 1024"
        );
        let error = FmConfig {
            fields: vec!["usr".into()],
            ..FmConfig::default()
        }
        .tables(&schema());
        assert_eq!(
            error.unwrap_err().to_string(),
            "`fm` reads field `usr`, which the data does not have (fields: user, genres, history)"
        );
    }
}
