#![doc = include_str!("../README.md")]

#[cfg(feature = "fused")]
mod fused;
mod interaction;
pub mod libffm;

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield_core::{
    Component, ComponentConfig, Contribution, Error, FieldId, Init, Initializer, Lookup, Schema,
    TableConfig, TableField, What, check_option, factor_table, features_in, linear_tables,
    tables_for,
};
#[cfg(feature = "fused")]
pub use fused::FusedFfm;
pub use interaction::{interaction, interaction_plain};
use serde::{Deserialize, Serialize};

/// Configuration of an [`Ffm`]. Where its defaults differ from libffm (a signed start, linear terms, no
/// normalisation) they reach a lower loss in fewer epochs; `configs/ffm-as-libffm.toml` has libffm's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FfmConfig {
    /// Name of the component, set by its place in a run file; its vectors are the tables
    /// `<name>.v<k>.<vocabulary>` and its linear weights the tables `<name>.<vocabulary>`.
    #[serde(skip)]
    pub name: String,
    /// Fields to read; none: all but the sequences.
    pub fields: Vec<String>,
    /// Length k of each of the vectors that a feature has, one towards each field; 4 is libffm's.
    pub embedding_dim: usize,
    /// Whether the linear terms `w_i x_i` are part of it; leave them out beside `wide`.
    pub linear: bool,
    /// Whether the pairs of a row are divided by Σ x², so that rows with many features are not
    /// louder than others. libffm does; without it, and with a signed start, fewer epochs are needed.
    pub normalize: bool,
    /// Whether two features of one field are a pair, as they are in libffm.
    pub same_field: bool,
    /// The vectors begin uniform in ±`init_scale`. Vectors of zero would stay zero.
    pub init_scale: f64,
    /// Prefix of the linear tables instead of the name, to share them with another component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
}

impl Default for FfmConfig {
    fn default() -> Self {
        Self {
            name: "ffm".into(),
            fields: Vec::new(),
            embedding_dim: 4,
            linear: true,
            normalize: false,
            same_field: true,
            init_scale: 0.1,
            share: None,
        }
    }
}

/// Linear terms and field-aware pairs of all features, those inside one bag included.
///
/// The example of the [crate] scores a row.
#[derive(Module, Debug)]
pub struct Ffm {
    #[module(skip)]
    factors: Vec<TableField>,
    #[module(skip)]
    linear: Vec<TableField>,
    #[module(skip)]
    embedding_dim: usize,
    #[module(skip)]
    normalize: bool,
    #[module(skip)]
    same_field: bool,
}

impl FfmConfig {
    /// A row of a table holds a feature's vectors side by side: the one towards the component's
    /// g-th field in the columns g·k..(g + 1)·k.
    fn factors(&self, schema: &Schema, ids: &[FieldId]) -> (Vec<TableConfig>, Vec<TableField>) {
        let initializer = Initializer::Uniform {
            low: -self.init_scale,
            high: self.init_scale,
        };
        let dim = ids.len() * self.embedding_dim;
        tables_for(schema, ids, dim, initializer, |vocabulary| {
            let table = factor_table(self.embedding_dim, vocabulary);
            format!("{}.{table}", self.name)
        })
    }

    fn linear(&self, schema: &Schema, ids: &[FieldId]) -> (Vec<TableConfig>, Vec<TableField>) {
        let ids = if self.linear { ids } else { &[] };
        linear_tables(schema, ids, self.share.as_deref().unwrap_or(&self.name))
    }

    /// Where each field's vectors and linear weights are looked up.
    fn lookups(&self, schema: &Schema) -> Result<(Vec<TableField>, Vec<TableField>), Error> {
        self.check()?;
        let ids = schema.bags(&self.name, &self.fields)?;
        Ok((self.factors(schema, &ids).1, self.linear(schema, &ids).1))
    }

    fn check(&self) -> Result<(), Error> {
        let (name, dim, init_scale) = (&self.name, self.embedding_dim, self.init_scale);
        let good = (1..=1024).contains(&dim);
        check_option(name, "embedding_dim", dim, good, "1 to 1024")?;
        let good = init_scale > 0.0 && init_scale.is_finite();
        check_option(name, "init_scale", init_scale, good, "a number above 0")
    }
}

impl ComponentConfig for FfmConfig {
    type Component = Ffm;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        self.check()?;
        let ids = schema.bags(&self.name, &self.fields)?;
        let mut tables = self.factors(schema, &ids).0;
        tables.extend(self.linear(schema, &ids).0);
        Ok(tables)
    }

    fn init(&self, schema: &Schema, _init: &Init) -> Result<Ffm, Error> {
        let (factors, linear) = self.lookups(schema)?;
        Ok(Ffm {
            factors,
            linear,
            embedding_dim: self.embedding_dim,
            normalize: self.normalize,
            same_field: self.same_field,
        })
    }

    /// x v of each feature towards each field, the products of all pairs of fields, for fields of more
    /// than a feature those inside them as of an FM; x² where pairs are normalized; w x of each
    /// feature.
    fn flops(&self, schema: &Schema, features: &[f64]) -> Option<f64> {
        let (factors, linear) = self.lookups(schema).ok()?;
        let (fields, dim) = (factors.len() as f64, self.embedding_dim as f64);
        let all = features_in(&factors, features);
        let vectors = all * fields * dim;
        let pairs = fields * (fields - 1.0) / 2.0 * dim;
        let bags = factors.iter().map(|field| features[field.field]);
        let bags = bags.filter(|&features| self.same_field && features > 1.0);
        let inside: f64 = bags.map(|features| (2.0 * features + 1.0) * dim).sum();
        let norm = if self.normalize { all } else { 0.0 };
        Some(2.0 * (vectors + pairs + inside + norm + features_in(&linear, features)))
    }
}

impl Component for Ffm {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        let fields = self.factors.len();
        let shape = [x.batch_size(), fields, fields, self.embedding_dim];
        let mut pairs = interaction(x.fields(&self.factors).reshape(shape));
        if let Some(inside) = self.inside_fields(x) {
            pairs = pairs + inside;
        }
        if self.normalize {
            pairs = pairs * scale(self.norm2(x));
        }
        if self.linear.is_empty() {
            pairs
        } else {
            pairs + x.pooled(&self.linear)
        }
    }

    /// Every pair on its own, so in time quadratic in the features of a row.
    fn explain(&self, x: &Lookup) -> Vec<Contribution> {
        let mut contributions = x.linear_terms(&self.linear);
        let scales = if self.normalize {
            let scales = scale(self.norm2(x)).into_data().convert::<f32>();
            scales
                .as_slice::<f32>()
                .expect("they were made f32")
                .to_vec()
        } else {
            vec![1.0; x.batch_size()]
        };
        let rows = x.features(&self.factors);
        for (row, (features, scale)) in rows.iter().zip(scales).enumerate() {
            for (at, a) in features.iter().enumerate() {
                for b in &features[at + 1..] {
                    if a.nth == b.nth && !self.same_field {
                        continue;
                    }
                    let [a_to_b, b_to_a] = [(a, b), (b, a)].map(|(from, to)| {
                        &from.weights[to.nth * self.embedding_dim..][..self.embedding_dim]
                    });
                    let weight: f32 = a_to_b.iter().zip(b_to_a).map(|(a, b)| a * b).sum();
                    contributions.push(Contribution {
                        row,
                        what: What::Pair(a.feature, b.feature),
                        weight,
                        contribution: weight * scale * a.feature.value * b.feature.value,
                    });
                }
            }
        }
        contributions
    }
}

impl Ffm {
    /// The pairs inside one field, of all fields: ½ Σ_f [|Σ x v|² − Σ x² |v|²], where v are the
    /// vectors of the field's features towards the field itself. `None` where no row of the batch
    /// has two features in one field.
    fn inside_fields(&self, x: &Lookup) -> Option<Tensor<2>> {
        if !self.same_field {
            return None;
        }
        let has_pairs = |field: &TableField| {
            let jagged = &x.batch().sparse[field.field];
            jagged.offsets.is_some() && (0..x.batch_size()).any(|row| jagged.range(row).len() > 1)
        };
        let (blocks, bags): (Vec<usize>, Vec<TableField>) = self
            .factors
            .iter()
            .cloned()
            .enumerate()
            .filter(|(_, field)| has_pairs(field))
            .unzip();
        if bags.is_empty() {
            return None;
        }
        let (sum, square) = x.blocks_with_square(&bags, &blocks, self.embedding_dim);
        let shape = [x.batch_size(), self.embedding_dim];
        let twice = sum.square().sum_dim(1).reshape(shape) - square;
        Some(twice.sum_dim(1).mul_scalar(0.5))
    }

    fn norm2(&self, x: &Lookup) -> Tensor<2> {
        let ids: Vec<FieldId> = self.factors.iter().map(|field| field.field).collect();
        x.norm2(&ids)
    }
}

/// 1 / Σ x²; 0 where that has no reciprocal, as in a row without features.
fn scale(norm2: Tensor<2>) -> Tensor<2> {
    let empty = norm2.clone().lower_elem(f32::MIN_POSITIVE);
    norm2.recip().mask_fill(empty, 0.0)
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
        let field = |name: &str, kind, vocabulary: &str, rows| Field {
            name: name.into(),
            kind,
            vocabulary: vocabulary.into(),
            rows,
            oov_row: None,
        };
        Schema {
            fields: vec![
                field("item", FieldKind::Categorical, "item", 6),
                field("genres", FieldKind::Bag, "genres", 5),
                field("history", FieldKind::Sequence, "item", 6),
                field("last", FieldKind::Categorical, "item", 6),
                field("age", FieldKind::Numeric, "age", 2),
            ],
            dense: vec!["age".into()],
        }
    }

    /// Bags of three, of none and of one, a number and a missing one, the same item twice.
    fn batch() -> Arc<Batch> {
        let genres = Jagged {
            indices: vec![1, 2, 2, 4],
            offsets: Some(vec![0, 3, 3, 4]),
            weights: Some(vec![1.0, 0.5, 0.25, -2.0]),
        };
        let age = Jagged {
            indices: vec![0, 1, 0],
            offsets: None,
            weights: Some(vec![1.5, 1.0, -0.5]),
        };
        Arc::new(Batch {
            batch_size: 3,
            sparse: vec![
                Jagged::one_hot(vec![3, 5, 3]),
                genres,
                Jagged::default(),
                Jagged::one_hot(vec![3, 0, 1]),
                age,
            ],
            ..Batch::default()
        })
    }

    fn config() -> FfmConfig {
        FfmConfig {
            embedding_dim: 3,
            init_scale: 0.9,
            ..FfmConfig::default()
        }
    }

    /// Every combination of the switches.
    fn configs() -> impl Iterator<Item = FfmConfig> {
        (0..8).map(|bits| FfmConfig {
            linear: bits & 1 == 0,
            normalize: bits & 2 == 0,
            same_field: bits & 4 == 0,
            ..config()
        })
    }

    fn tables(config: &FfmConfig) -> EmbeddingCollection {
        let sgd = RowOptimizer {
            kind: RowOptimizerKind::Sgd,
            lr: 1.0,
            ..RowOptimizer::default()
        };
        let plans: Vec<TablePlan> = merge_tables(config.tables(&schema()).unwrap())
            .unwrap()
            .into_iter()
            .map(|config| TablePlan::new(config, sgd))
            .collect();
        let mut tables = EmbeddingCollection::new(&plans, 3).unwrap();
        for name in ["ffm.item", "ffm.genres", "ffm.age"] {
            if let Some(table) = tables.table_mut(name) {
                for row in 0..table.config().rows as u32 {
                    table.weights_mut(row)[0] = row as f32 * 0.1 - 0.15;
                }
            }
        }
        tables
    }

    fn init(config: &FfmConfig, device: &Device) -> Ffm {
        let init = Init {
            device: device.clone(),
            seed: 1,
        };
        config.init(&schema(), &init).unwrap()
    }

    fn scores(config: &FfmConfig, tables: &mut EmbeddingCollection, device: &Device) -> Vec<f32> {
        let (lookup, _) = tables.stage(batch(), device);
        let scores = init(config, device).forward(&lookup);
        scores.try_into_vec_as::<f32>().unwrap()
    }

    /// The equation as it stands: a double loop over the features of each row.
    fn naive(config: &FfmConfig, tables: &EmbeddingCollection) -> Vec<f64> {
        let (schema, batch) = (schema(), batch());
        let ids = schema.bags("ffm", &config.fields).unwrap();
        let k = config.embedding_dim;
        let weights = |name: String, index| {
            let named = |table: &&crossfield_embedding::Table| table.config().name == name;
            tables.tables().iter().find(named).unwrap().weights(index)
        };
        (0..batch.batch_size)
            .map(|row| {
                let mut features = Vec::new();
                for (nth, &id) in ids.iter().enumerate() {
                    let jagged = &batch.sparse[id];
                    let vocabulary = &schema.fields[id].vocabulary;
                    for at in jagged.range(row) {
                        let x = f64::from(jagged.weight(at));
                        features.push((nth, vocabulary, jagged.indices[at], x));
                    }
                }
                let v = |i: usize, towards: usize| {
                    let (_, vocabulary, index, _) = features[i];
                    &weights(format!("ffm.v{k}.{vocabulary}"), index)[towards * k..][..k]
                };
                let norm2: f64 = features.iter().map(|(.., x)| x * x).sum();
                let r = match config.normalize {
                    true if norm2 == 0.0 => 0.0,
                    true => 1.0 / norm2,
                    false => 1.0,
                };
                let mut z = 0.0;
                for (i, &(f, vocabulary, index, x)) in features.iter().enumerate() {
                    if config.linear {
                        z += f64::from(weights(format!("ffm.{vocabulary}"), index)[0]) * x;
                    }
                    for (j, &(g, _, _, other)) in features.iter().enumerate().skip(i + 1) {
                        if f == g && !config.same_field {
                            continue;
                        }
                        let products = v(i, g).iter().zip(v(j, f));
                        let dot: f64 = products.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                        z += r * dot * x * other;
                    }
                }
                z
            })
            .collect()
    }

    #[test]
    fn the_aggregated_form_equals_the_double_loop_whatever_is_switched_on() {
        for config in configs() {
            let mut tables = tables(&config);
            let expected = naive(&config, &tables);
            let got = scores(&config, &mut tables, &Device::flex());
            for (&got, expected) in got.iter().zip(expected) {
                assert_relative_eq!(f64::from(got), expected, epsilon = 1e-5);
            }
        }
    }

    #[test]
    fn operations_are_counted_as_by_hand() {
        // An item and two genres. Vectors: 3 features towards 2 fields by 3 numbers; one pair of
        // fields; inside the genres x v, x² v² and the squares of 3 sums; 3 linear terms.
        let features = [1.0, 2.0, 40.0, 1.0, 1.0];
        let with = |same_field, normalize| {
            let config = FfmConfig {
                fields: vec!["item".into(), "genres".into()],
                same_field,
                normalize,
                ..config()
            };
            config.flops(&schema(), &features)
        };
        assert_eq!(with(false, false), Some(2.0 * (18.0 + 3.0 + 3.0)));
        assert_eq!(with(true, false), Some(2.0 * (24.0 + 2.0 * 6.0 + 3.0)));
        assert_eq!(with(true, true), Some(2.0 * (39.0 + 3.0)));
    }

    #[test]
    fn fields_may_be_chosen_and_come_in_the_order_they_are_named() {
        let config = FfmConfig {
            fields: vec!["age".into(), "genres".into()],
            ..config()
        };
        let mut tables = tables(&config);
        assert_eq!(tables.tables()[0].config().name, "ffm.age");
        assert_eq!(tables.tables()[2].config().name, "ffm.v3.age");
        assert_eq!(tables.tables()[2].config().dim, 2 * 3);
        let expected = naive(&config, &tables);
        let got = scores(&config, &mut tables, &Device::flex());
        for (&got, expected) in got.iter().zip(expected) {
            assert_relative_eq!(f64::from(got), expected, epsilon = 1e-5);
        }
    }

    #[test]
    fn a_row_without_features_scores_zero_and_moves_nothing() {
        let config = FfmConfig {
            fields: vec!["genres".into()],
            ..config()
        };
        let mut tables = tables(&config);
        let device = Device::flex().autodiff();
        let (lookup, staged) = tables.stage(batch(), &device);
        let scores = init(&config, &device).forward(&lookup);
        let values = scores.clone().try_into_vec_as::<f32>().unwrap();
        assert_eq!(values[1], 0.0);
        assert!(values.iter().all(|value| value.is_finite()));
        // The gradients of the empty row are finite, or `apply` would refuse them.
        let mut gradients = scores.narrow(0, 1, 1).sum().backward();
        let before = tables.tables()[1].weights(2).to_vec();
        tables.apply(&lookup, &staged, &mut gradients, 1.0).unwrap();
        assert_eq!(tables.tables()[1].weights(2), before);
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let device = Device::flex().autodiff();
        for config in configs().filter(|config| config.linear) {
            let total = |tables: &EmbeddingCollection| -> f64 {
                naive(&config, tables).iter().map(|z| z * z).sum()
            };
            let mut stepped = tables(&config);
            let (lookup, staged) = stepped.stage(batch(), &device);
            let scores = init(&config, &device).forward(&lookup);
            let mut gradients = scores.square().sum().backward();
            stepped
                .apply(&lookup, &staged, &mut gradients, 1.0)
                .unwrap();
            // Columns 3..6 are towards the genres, the field itself for `v3.genres`.
            for (table, row, at) in [
                ("ffm.v3.item", 3, 1),
                ("ffm.v3.item", 3, 7),
                ("ffm.v3.genres", 2, 4),
                ("ffm.v3.genres", 1, 10),
                ("ffm.v3.age", 0, 5),
                ("ffm.genres", 4, 0),
            ] {
                let moved = |by: f32| {
                    let mut tables = tables(&config);
                    tables.table_mut(table).unwrap().weights_mut(row)[at] += by;
                    total(&tables)
                };
                let expected = (moved(1e-3) - moved(-1e-3)) / 2e-3;
                let start = tables(&config).table_mut(table).unwrap().weights(row)[at];
                let gradient = start - stepped.table_mut(table).unwrap().weights(row)[at];
                assert_relative_eq!(
                    f64::from(gradient),
                    expected,
                    epsilon = 1e-3,
                    max_relative = 1e-3
                );
            }
        }
    }

    #[test]
    fn contributions_add_up_to_the_score() {
        let device = Device::flex();
        for config in configs() {
            let mut tables = tables(&config);
            let (lookup, _) = tables.stage(batch(), &device);
            let model = Scored::new(init(&config, &device), Loss::Logistic, 0.3, &device);
            let scores = model.score(&lookup).try_into_vec_as::<f32>().unwrap();
            let parts = model.explain(&lookup);
            for (row, &score) in scores.iter().enumerate() {
                let of_row = parts.iter().filter(|part| part.row == row);
                let sum: f64 = of_row.map(|part| f64::from(part.contribution)).sum();
                assert_relative_eq!(sum, f64::from(score), epsilon = 1e-5, max_relative = 1e-5);
            }
            // Row 0: the bias, six features, their pairs, three of them between genres.
            let of_row = parts.iter().filter(|part| part.row == 0).count();
            let linear = if config.linear { 6 } else { 0 };
            let pairs = if config.same_field { 15 } else { 12 };
            assert_eq!(of_row, 1 + linear + pairs);
        }
    }

    #[test]
    fn a_pair_is_explained_by_the_vectors_towards_each_other() {
        let config = FfmConfig {
            linear: false,
            normalize: true,
            ..config()
        };
        let mut tables = tables(&config);
        let device = Device::flex();
        let (lookup, _) = tables.stage(batch(), &device);
        let parts = init(&config, &device).explain(&lookup);
        // Row 2: item 3 and genre 4 of weight −2; Σ x² = 1 + 4 + 1 + 0.25.
        let item = Feature {
            field: 0,
            index: 3,
            value: 1.0,
        };
        let genre = Feature {
            field: 1,
            index: 4,
            value: -2.0,
        };
        let pair = What::Pair(item, genre);
        let part = parts.iter().find(|part| part.row == 2 && part.what == pair);
        let towards_genres = tables.table_mut("ffm.v3.item").unwrap().weights(3)[3..6].to_vec();
        let towards_items = &tables.table_mut("ffm.v3.genres").unwrap().weights(4)[..3];
        let products = towards_genres.iter().zip(towards_items);
        let weight: f32 = products.map(|(a, b)| a * b).sum();
        assert_eq!(part.unwrap().weight, weight);
        assert_relative_eq!(
            part.unwrap().contribution,
            weight * -2.0 / 6.25,
            epsilon = 1e-6
        );
    }

    #[test]
    fn scores_are_those_that_libffm_predicts() {
        // libffm 1.14 (1d9c849): the model file of `ffm-train -k 2 -t 8 -s 1` on these
        // six rows, labelled 1 0 1 0 1 0, and what `ffm-predict` says of them.
        let model = "n 7\nm 3\nk 2\nnormalization 1\n\
            w0,0 5.53375e-06 0.0930113 \nw0,1 0.940465 0.316004 \nw0,2 0.460966 0.16241 \n\
            w1,0 0.0332656 0.48003 \nw1,1 0.152242 0.73768 \nw1,2 -0.129359 0.017543 \n\
            w2,0 0.886073 0.0149501 \nw2,1 0.0378031 0.374555 \nw2,2 0.27746 -0.00478222 \n\
            w3,0 0.147256 -0.333383 \nw3,1 0.295207 0.485622 \nw3,2 0.313205 0.60487 \n\
            w4,0 0.718381 0.371789 \nw4,1 0.09146 0.433422 \nw4,2 0.212217 0.379385 \n\
            w5,0 0.536601 0.481232 \nw5,1 0.0636912 -0.0269482 \nw5,2 0.490116 0.180524 \n\
            w6,0 0.417635 0.452575 \nw6,1 0.540475 0.172063 \nw6,2 0.139184 0.633467 \n";
        let rows: [&[(usize, u32, f32)]; 6] = [
            &[(0, 0, 1.0), (1, 2, 1.0), (2, 4, 0.5), (2, 5, -1.0)],
            &[(0, 1, 1.0), (1, 3, 1.0), (2, 5, 0.25)],
            &[(0, 0, 1.0), (1, 3, 1.0), (2, 4, 2.0)],
            &[(0, 1, 1.0), (1, 2, 1.0), (2, 6, 1.0)],
            &[(0, 0, 1.0), (1, 2, 1.0)],
            &[(0, 1, 1.0), (1, 3, 1.0), (2, 4, 1.0), (2, 6, 0.5)],
        ];
        let probabilities = [0.547236, 0.471203, 0.557981, 0.520736, 0.603249, 0.517643];

        let field = |name: &str| Field {
            name: name.into(),
            kind: FieldKind::Bag,
            vocabulary: "index".into(),
            rows: 7,
            oov_row: None,
        };
        let schema = Schema {
            fields: vec![field("0"), field("1"), field("2")],
            dense: vec![],
        };
        let mut file = libffm::read("model", model.as_bytes()).unwrap();
        let config = FfmConfig {
            embedding_dim: file.header().embedding_dim as usize,
            normalize: file.header().normalize,
            linear: false,
            ..FfmConfig::default()
        };
        let plans = config.tables(&schema).unwrap().into_iter();
        let plans: Vec<TablePlan> = plans
            .map(|config| TablePlan::new(config, RowOptimizer::default()))
            .collect();
        let mut tables = EmbeddingCollection::new(&plans, 1).unwrap();
        let table = tables.table_mut("ffm.v2.index").unwrap();
        while let Some(vector) = file.next_vector().unwrap() {
            let columns = vector.field as usize * 2..vector.field as usize * 2 + 2;
            table.weights_mut(vector.index)[columns].copy_from_slice(vector.weights);
        }
        let mut sparse = vec![
            Jagged {
                indices: vec![],
                offsets: Some(vec![0]),
                weights: Some(vec![]),
            };
            3
        ];
        for row in rows {
            for &(field, index, value) in row {
                sparse[field].indices.push(index);
                sparse[field].weights.as_mut().unwrap().push(value);
            }
            for jagged in &mut sparse {
                let end = jagged.indices.len() as u32;
                jagged.offsets.as_mut().unwrap().push(end);
            }
        }
        let batch = Arc::new(Batch {
            batch_size: rows.len(),
            sparse,
            ..Batch::default()
        });
        let device = Device::flex();
        let init = Init {
            device: device.clone(),
            seed: 1,
        };
        let ffm = config.init(&schema, &init).unwrap();
        let (lookup, _) = tables.stage(batch, &device);
        let scores = ffm.forward(&lookup).try_into_vec_as::<f32>().unwrap();
        for (score, expected) in scores.iter().zip(probabilities) {
            // Both files print six significant digits.
            assert_relative_eq!(1.0 / (1.0 + (-score).exp()), expected, epsilon = 2e-6);
        }
    }

    #[cfg(feature = "ndarray")]
    #[test]
    #[expect(deprecated, reason = "kept as the second CPU backend")]
    fn ndarray_scores_as_flex_does() {
        let mut tables = tables(&config());
        let flex = scores(&config(), &mut tables, &Device::flex());
        let ndarray = scores(&config(), &mut tables, &Device::ndarray());
        for (flex, ndarray) in flex.iter().zip(ndarray) {
            assert_relative_eq!(*flex, ndarray, epsilon = 1e-6);
        }
    }

    #[test]
    fn wrong_options_are_named() {
        let error = |config: FfmConfig| config.tables(&schema()).unwrap_err().to_string();
        let zero = FfmConfig {
            embedding_dim: 0,
            ..config()
        };
        assert_eq!(error(zero), "`ffm.embedding_dim` is 0: expected 1 to 1024");
        let unmoved = FfmConfig {
            init_scale: 0.0,
            ..config()
        };
        assert_eq!(
            error(unmoved),
            "`ffm.init_scale` is 0: expected a number above 0"
        );
        let twice = FfmConfig {
            fields: vec!["item".into(), "age".into(), "item".into()],
            ..config()
        };
        assert_eq!(
            error(twice),
            "`ffm` reads field `item` twice: expected each field once"
        );
        let unknown = FfmConfig {
            fields: vec!["itm".into()],
            ..config()
        };
        assert_eq!(
            error(unknown),
            "`ffm` reads field `itm`, which the data does not have (fields: item, genres, \
             history, last, age)"
        );
    }
}
