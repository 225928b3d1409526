//! The deep part: a perceptron over the vectors of fields and the dense columns.

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield_core::{
    Activation, Component, ComponentConfig, Contribution, Error, Factors, FieldId, FieldInputs,
    Init, Lookup, Mlp, MlpConfig, Normalization, Schema, TableConfig, features_in,
};
use serde::{Deserialize, Serialize};

/// Configuration of a [`Deep`].
///
/// ```
/// use crossfield_core::{ComponentConfig, Field, FieldKind, Schema};
/// use crossfield_wide_deep::DeepConfig;
///
/// let schema = Schema {
///     fields: vec![Field {
///         name: "tags".into(),
///         kind: FieldKind::Bag,
///         vocabulary: "tags".into(),
///         rows: 4,
///         oov_row: Some(0),
///     }],
///     dense: Vec::new(),
/// };
/// let mut config = DeepConfig::default();
/// assert_eq!(config.tables(&schema)?[0].name, "v8.tags");
/// config.residual = true;
/// assert_eq!(
///     config.tables(&schema).unwrap_err().to_string(),
///     "`deep.residual` is true with layers of 8 → [256, 128]: expected a hidden layer as wide as \
///      what it reads, or false"
/// );
/// # Ok::<(), crossfield_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeepConfig {
    /// Name of the component, set by its place in a run file; its dense weights are keyed by it.
    #[serde(skip)]
    pub name: String,
    /// Fields to read; none: all but sequences and crosses, for a cross remembers what it was
    /// trained on and is for the wide part (Cheng et al. 2016, section 3.1), and a perceptron makes
    /// its own. Numeric fields that are not in buckets arrive as their dense columns, with the
    /// indicator of their missing values; all others as vectors, those of a bag added up. A
    /// sequence that is named is read as a bag.
    pub fields: Vec<String>,
    /// Length of the vectors.
    pub embedding_dim: usize,
    /// Standard deviation of the vectors at the start, the same as a factorization machine's, with
    /// which they are shared.
    pub init_std: f64,
    /// Units of each hidden layer, from the input on. Cheng et al. have three of 1024, 512 and 256.
    pub hidden: Vec<usize>,
    /// What follows each hidden layer; ReLU as in Cheng et al.
    pub activation: Activation,
    /// Probability that a hidden unit is left out at a step of training; 0 as in Cheng et al.
    pub dropout: f64,
    /// How hidden units are normalized before the activation.
    pub norm: Normalization,
    /// Whether a hidden layer adds its input to its output where both have one width.
    pub residual: bool,
    /// Prefix of the tables instead of `v<embedding_dim>`, which other components share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
}

impl Default for DeepConfig {
    fn default() -> Self {
        Self {
            name: "deep".into(),
            fields: Vec::new(),
            embedding_dim: 8,
            init_std: 0.01,
            hidden: vec![256, 128],
            activation: Activation::Relu,
            dropout: 0.0,
            norm: Normalization::None,
            residual: false,
            share: None,
        }
    }
}

/// A perceptron over the vectors of all fields, side by side with the dense columns.
///
/// ```text
/// a = [v_1, …, v_F, x_1, …, x_D],  v_f = Σ x v over the features of field f
/// z = MLP(a)
/// ```
///
/// An empty bag is a zero vector. The example of the [crate] adds one to a [`Wide`](crate::Wide).
///
/// # Source
/// Cheng et al. 2016, section 3.2; the layers are those of an [`Mlp`]. The vectors of the source
/// have 32 weights.
#[derive(Module, Debug)]
pub struct Deep {
    #[module(skip)]
    name: String,
    #[module(skip)]
    inputs: FieldInputs,
    mlp: Mlp,
}

impl DeepConfig {
    fn factors(&self) -> Factors<'_> {
        Factors::new(&self.name, self.embedding_dim, self.init_std)
            .in_tables_of(self.share.as_deref())
    }

    fn inputs(&self, schema: &Schema) -> Result<(Vec<TableConfig>, FieldInputs), Error> {
        let factors = self.factors();
        factors.check()?;
        let ids = schema.bags(&self.name, &self.fields)?;
        let name = |vocabulary: &str| factors.table(vocabulary);
        let inputs = FieldInputs::new(schema, &ids, self.embedding_dim, name);
        let ids: Vec<FieldId> = inputs.embedded().iter().map(|it| it.field).collect();
        let (tables, _) = factors.tables(schema, &ids);
        self.mlp().check(&self.name, inputs.width())?;
        Ok((tables, inputs))
    }

    fn mlp(&self) -> MlpConfig {
        MlpConfig {
            hidden: self.hidden.clone(),
            output: 1,
            activation: self.activation,
            dropout: self.dropout,
            norm: self.norm,
            residual: self.residual,
        }
    }
}

impl ComponentConfig for DeepConfig {
    type Component = Deep;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        Ok(self.inputs(schema)?.0)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<Deep, Error> {
        let inputs = self.inputs(schema)?.1;
        Ok(Deep {
            name: self.name.clone(),
            mlp: self.mlp().init(&self.name, inputs.width(), init)?,
            inputs,
        })
    }

    /// x v of each feature, and the layers.
    fn flops(&self, schema: &Schema, features: &[f64]) -> Option<f64> {
        let inputs = self.inputs(schema).ok()?.1;
        let vectors = features_in(inputs.embedded(), features) * self.embedding_dim as f64;
        Some(2.0 * vectors + self.mlp().flops(inputs.width()))
    }
}

impl Component for Deep {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        self.mlp.forward(self.inputs.of(x), x.training())
    }

    /// The score under the component's own name: a perceptron has no parts that add up.
    fn explain(&self, x: &Lookup) -> Vec<Contribution> {
        Contribution::whole(&self.name, self.forward(x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use approx::assert_relative_eq;
    use burn::module::{ModuleVisitor, Param};
    use burn::optim::{GradientsParams, SgdConfig};
    use burn::tensor::Device;
    #[cfg(feature = "ndarray")]
    use crossfield_core::TrainingStep;
    use crossfield_core::{Batch, Field, FieldKind, Jagged, What};
    use crossfield_embedding::{EmbeddingCollection, RowOptimizer, RowOptimizerKind, TablePlan};

    /// Age has missing values, height has none, hours are in buckets.
    fn schema() -> Schema {
        let field = |name: &str, kind, rows| Field {
            name: name.into(),
            kind,
            vocabulary: name.into(),
            rows,
            oov_row: None,
        };
        Schema {
            fields: vec![
                field("user", FieldKind::Categorical, 6),
                field("tags", FieldKind::Bag, 5),
                field("age", FieldKind::Numeric, 2),
                field("height", FieldKind::Numeric, 2),
                field("hour", FieldKind::Numeric, 4),
                field("history", FieldKind::Sequence, 6),
                field("user × hour", FieldKind::Cross, 9),
            ],
            dense: ["age", "height", "age.missing"].map(String::from).to_vec(),
        }
    }

    const DENSE: [[f32; 3]; 3] = [[0.5, -1.0, 0.0], [0.0, 2.0, 1.0], [-1.5, 0.25, 0.0]];

    /// Row 0 has tag 2 twice; row 1 has no tag, no history and no age.
    fn batch(rows: &[usize]) -> Arc<Batch> {
        let one_hot = |all: [u32; 3]| Jagged::one_hot(rows.iter().map(|&row| all[row]).collect());
        let bag = |all: [&[(u32, f32)]; 3]| {
            let of_rows: Vec<(u32, f32)> = rows.iter().flat_map(|&row| all[row].to_vec()).collect();
            let mut offsets = vec![0];
            for &row in rows {
                offsets.push(offsets[offsets.len() - 1] + all[row].len() as u32);
            }
            Jagged {
                indices: of_rows.iter().map(|feature| feature.0).collect(),
                offsets: Some(offsets),
                weights: Some(of_rows.iter().map(|feature| feature.1).collect()),
            }
        };
        Arc::new(Batch {
            batch_size: rows.len(),
            sparse: vec![
                one_hot([3, 5, 3]),
                bag([&[(2, 1.0), (2, 0.5), (1, 0.25)], &[], &[(4, -2.0)]]),
                bag([&[(0, 0.5)], &[(1, 1.0)], &[(0, -1.5)]]),
                bag([&[(0, -1.0)], &[(0, 2.0)], &[(0, 0.25)]]),
                one_hot([0, 3, 1]),
                bag([&[(1, 1.0), (5, 1.0)], &[], &[(5, 1.0)]]),
                one_hot([8, 7, 6]),
            ],
            dense: Some(rows.iter().flat_map(|&row| DENSE[row]).collect()),
            ..Batch::default()
        })
    }

    fn config(fields: &[&str], hidden: &[usize]) -> DeepConfig {
        DeepConfig {
            fields: fields.iter().map(|&name| name.to_owned()).collect(),
            embedding_dim: 2,
            init_std: 0.5,
            hidden: hidden.to_vec(),
            ..DeepConfig::default()
        }
    }

    fn tables(config: &DeepConfig) -> EmbeddingCollection {
        let sgd = RowOptimizer {
            kind: RowOptimizerKind::Sgd,
            lr: 1.0,
            ..RowOptimizer::default()
        };
        let tables = config.tables(&schema()).unwrap();
        let plans: Vec<TablePlan> = tables
            .into_iter()
            .map(|config| TablePlan::new(config, sgd))
            .collect();
        EmbeddingCollection::new(&plans, 3).unwrap()
    }

    fn deep(config: &DeepConfig, device: &Device) -> Deep {
        let init = Init {
            device: device.clone(),
            seed: 1,
        };
        config.init(&schema(), &init).unwrap()
    }

    fn scores(config: &DeepConfig, tables: &mut EmbeddingCollection, rows: &[usize]) -> Vec<f32> {
        let device = Device::flex();
        let (lookup, _) = tables.stage(batch(rows), &device);
        let scores = deep(config, &device).forward(&lookup);
        scores.try_into_vec_as::<f32>().unwrap()
    }

    type Weights = BTreeMap<String, Vec<f32>>;

    /// The dense weights by module path.
    fn weights(deep: &Deep) -> Weights {
        #[derive(Default)]
        struct Collect(Vec<String>, Weights);
        impl ModuleVisitor for Collect {
            fn enter_module(&mut self, name: &str, _container: &str) {
                self.0.push(name.to_owned());
            }
            fn exit_module(&mut self, _name: &str, _container: &str) {
                self.0.pop();
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let values = param.val().try_into_vec_as::<f32>().unwrap();
                self.1.insert(self.0.join("."), values);
            }
        }
        let mut collect = Collect::default();
        deep.visit(&mut collect);
        collect.1
    }

    /// The equation as it stands, feature by feature and unit by unit. `fields` and `columns` are
    /// what is read.
    fn naive(
        config: &DeepConfig,
        tables: &EmbeddingCollection,
        weights: &Weights,
        (fields, columns): (&[usize], &[usize]),
    ) -> Vec<f64> {
        let batch = batch(&[0, 1, 2]);
        let layer = |name: String, input: &[f64]| -> Vec<f64> {
            let (weight, bias) = (
                &weights[&format!("{name}.weight")],
                &weights[&format!("{name}.bias")],
            );
            let mut output: Vec<f64> = bias.iter().map(|&bias| f64::from(bias)).collect();
            for (at, input) in input.iter().enumerate() {
                for (to, output) in output.iter_mut().enumerate() {
                    *output += input * f64::from(weight[at * bias.len() + to]);
                }
            }
            output
        };
        let of_row = |row: usize| {
            let mut units = Vec::new();
            for &field in fields {
                let name = format!("v2.{}", schema().fields[field].name);
                let mut tables = tables.tables().iter();
                let table = tables.find(|table| table.config().name == name).unwrap();
                let mut vector = [0.0; 2];
                for at in batch.sparse[field].range(row) {
                    let (index, x) = (
                        batch.sparse[field].indices[at],
                        batch.sparse[field].weight(at),
                    );
                    for (sum, &weight) in vector.iter_mut().zip(table.weights(index)) {
                        *sum += f64::from(weight) * f64::from(x);
                    }
                }
                units.extend(vector);
            }
            units.extend(columns.iter().map(|&column| f64::from(DENSE[row][column])));
            for nth in 0..config.hidden.len() {
                units = layer(format!("mlp.hidden.{nth}.linear"), &units);
                for unit in &mut units {
                    *unit = match config.activation {
                        Activation::Tanh => unit.tanh(),
                        _ => unit.max(0.0),
                    };
                }
            }
            layer("mlp.output".into(), &units)[0]
        };
        (0..3).map(of_row).collect()
    }

    #[test]
    fn the_score_is_that_of_loops_over_vectors_columns_and_units() {
        let all: (&[usize], &[usize]) = (&[0, 1, 4], &[0, 1, 2]);
        for (config, read) in [
            (config(&[], &[4, 3]), all),
            (config(&[], &[]), all),
            // The order of vectors is that of the names, the order of columns that of the data.
            (config(&["hour", "age", "tags"], &[5]), (&[4, 1], &[0, 2])),
            (config(&["height"], &[2]), (&[], &[1])),
            (config(&["user"], &[2]), (&[0], &[])),
            // A sequence and a cross that are named are read as bags.
            (config(&["history", "user × hour"], &[3]), (&[5, 6], &[])),
        ] {
            let mut tables = tables(&config);
            let weights = weights(&deep(&config, &Device::flex()));
            let expected = naive(&config, &tables, &weights, read);
            let got = scores(&config, &mut tables, &[0, 1, 2]);
            for (got, expected) in got.iter().zip(expected) {
                assert_relative_eq!(f64::from(*got), expected, epsilon = 1e-5);
            }
        }
    }

    #[test]
    fn operations_are_counted_as_by_hand() {
        // Vectors of two weights for a user, 1.5 tags and an hour; three dense columns.
        let features = [1.0, 1.5, 1.0, 1.0, 1.0, 40.0, 1.0];
        let flops = config(&[], &[4, 3]).flops(&schema(), &features);
        let layers = (3 * 2 + 3) * 4 + 4 * 3 + 3;
        assert_eq!(flops, Some(2.0 * (3.5 * 2.0 + f64::from(layers))));
    }

    #[test]
    fn a_row_alone_scores_as_it_does_in_a_batch() {
        let config = config(&[], &[4]);
        let mut tables = tables(&config);
        let together = scores(&config, &mut tables, &[0, 1, 2]);
        for (row, expected) in together.into_iter().enumerate() {
            let alone = scores(&config, &mut tables, &[row]);
            assert_relative_eq!(alone[0], expected, epsilon = 1e-6);
        }
    }

    #[test]
    fn gradients_of_rows_and_of_dense_weights_equal_finite_differences() {
        let config = DeepConfig {
            activation: Activation::Tanh,
            ..config(&[], &[4, 3])
        };
        let read: (&[usize], &[usize]) = (&[0, 1, 4], &[0, 1, 2]);
        let device = Device::flex().autodiff();
        let start = tables(&config);
        let mut stepped = tables(&config);
        let deep = deep(&config, &device);
        let dense = weights(&deep);
        let total = |tables: &EmbeddingCollection, dense: &Weights| -> f64 {
            let scores = naive(&config, tables, dense, read);
            scores.iter().map(|z| z * z).sum()
        };
        let (lookup, staged) = stepped.stage(batch(&[0, 1, 2]), &device);
        let mut gradients = deep.forward(&lookup).square().sum().backward();
        stepped
            .apply(&lookup, &staged, &mut gradients, 1.0)
            .unwrap();
        let gradients = GradientsParams::from_grads(gradients, &deep);
        let after = weights(&SgdConfig::new().init().step(1.0, deep, gradients));

        let close = |gradient: f32, moved: &dyn Fn(f32) -> f64| {
            let expected = (moved(1e-3) - moved(-1e-3)) / 2e-3;
            let gradient = f64::from(gradient);
            assert_relative_eq!(gradient, expected, epsilon = 1e-4, max_relative = 1e-3);
        };
        for (name, row, at) in [("v2.user", 3, 1), ("v2.tags", 2, 0), ("v2.hour", 1, 1)] {
            let weight = |tables: &EmbeddingCollection| {
                let mut tables = tables.tables().iter();
                let table = tables.find(|table| table.config().name == name).unwrap();
                table.weights(row)[at]
            };
            close(weight(&start) - weight(&stepped), &|by| {
                let mut moved = tables(&config);
                moved.table_mut(name).unwrap().weights_mut(row)[at] += by;
                total(&moved, &dense)
            });
        }
        for (path, values) in &dense {
            for at in 0..values.len() {
                close(values[at] - after[path][at], &|by| {
                    let mut moved = dense.clone();
                    moved.get_mut(path).unwrap()[at] += by;
                    total(&start, &moved)
                });
            }
        }
    }

    #[cfg(feature = "ndarray")]
    #[test]
    #[expect(deprecated, reason = "kept as the second CPU backend")]
    fn ndarray_trains_on_a_batch_as_flex_does() {
        let config = DeepConfig {
            dropout: 0.2,
            norm: Normalization::Batch,
            ..config(&[], &[4, 3])
        };
        let step = TrainingStep {
            seed: 1,
            epoch: 0,
            step: 9,
        };
        let on = |device: Device| {
            let device = device.autodiff();
            let deep = deep(&config, &device);
            let (lookup, _) = tables(&config).stage(batch(&[0, 1, 2]), &device);
            let scores = deep.forward(&lookup.for_training(step));
            let gradients = scores.clone().square().sum().backward();
            let gradients = GradientsParams::from_grads(gradients, &deep);
            let after = SgdConfig::new().init().step(1.0, deep, gradients);
            (scores.try_into_vec_as::<f32>().unwrap(), weights(&after))
        };
        let (flex, ndarray) = (on(Device::flex()), on(Device::ndarray()));
        for (flex, ndarray) in flex.0.iter().zip(&ndarray.0) {
            assert_relative_eq!(flex, ndarray, epsilon = 1e-5);
        }
        for (path, flex) in &flex.1 {
            for (flex, ndarray) in flex.iter().zip(&ndarray.1[path]) {
                assert_relative_eq!(flex, ndarray, epsilon = 1e-4);
            }
        }
    }

    #[test]
    fn an_explanation_is_the_score_under_the_components_own_name() {
        let config = DeepConfig {
            name: "tower".into(),
            ..config(&[], &[4])
        };
        let mut tables = tables(&config);
        let device = Device::flex();
        let (lookup, _) = tables.stage(batch(&[0, 1, 2]), &device);
        let parts = deep(&config, &device).explain(&lookup);
        let expected = scores(&config, &mut tables, &[0, 1, 2]);
        assert_eq!(parts.len(), 3);
        for ((row, part), score) in parts.iter().enumerate().zip(expected) {
            assert_eq!((part.row, &part.what), (row, &What::Named("tower".into())));
            assert_relative_eq!(part.contribution, score, epsilon = 1e-6);
        }
    }

    #[test]
    fn vectors_of_one_dim_are_shared_unless_a_prefix_says_otherwise() {
        let names = |config: &DeepConfig| -> Vec<String> {
            let tables = config.tables(&schema()).unwrap();
            tables.into_iter().map(|table| table.name).collect()
        };
        let mut config = config(&[], &[4]);
        assert_eq!(names(&config), ["v2.hour", "v2.tags", "v2.user"]);
        config.share = Some("own".into());
        assert_eq!(names(&config), ["own.hour", "own.tags", "own.user"]);
    }

    #[test]
    fn wrong_options_are_named_before_anything_is_made() {
        let refused = |schema: &Schema, change: fn(&mut DeepConfig)| {
            let mut config = config(&[], &[4]);
            change(&mut config);
            config.tables(schema).unwrap_err().to_string()
        };
        for (change, expected) in [
            (
                (|config| config.embedding_dim = 0) as fn(&mut DeepConfig),
                "`deep.embedding_dim` is 0: expected 1 to 1024",
            ),
            (
                |config| config.init_std = f64::NAN,
                "`deep.init_std` is NaN: expected a finite number of at least 0",
            ),
            (
                |config| config.hidden = vec![8, 0],
                "`deep.hidden` is [8, 0]: expected layers of 1 to 65536 units",
            ),
            (
                |config| config.dropout = -0.1,
                "`deep.dropout` is -0.1: expected a probability of at least 0 and below 1",
            ),
            (
                |config| config.residual = true,
                "`deep.residual` is true with layers of 9 → [4]: expected a hidden layer as wide \
                 as what it reads, or false",
            ),
        ] {
            assert_eq!(refused(&schema(), change), expected);
        }
        let mut sequences = schema();
        sequences.fields = sequences.fields.split_off(5);
        let nothing = refused(&sequences, |_| ());
        assert!(
            nothing.starts_with("`deep` has no field to read"),
            "{nothing}"
        );
    }
}
