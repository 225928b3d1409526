//! DIN and target attention against their equations.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::sync::Arc;

use approx::assert_relative_eq;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};
use crossfield_attention::{
    ActivationUnitConfig, BehaviourConfig, Din, DinConfig, Pooling, TargetAttentionConfig,
};
use crossfield_core::{
    Activation, Batch, Component, ComponentConfig, Examples, FeatureLists, Field, FieldKind, Init,
    Jagged, Ragged, Schema, TrainingStep, What,
};
use crossfield_embedding::{EmbeddingCollection, RowOptimizer, RowOptimizerKind, TablePlan};

const USER: usize = 0;
const ITEM: usize = 1;
const KIND: usize = 2;
const ITEMS: usize = 4;
const KINDS: usize = 5;
const GAPS: usize = 6;

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
            field("user", FieldKind::Categorical, "user", 5),
            field("item", FieldKind::Categorical, "item", 7),
            field("kind", FieldKind::Categorical, "kind", 3),
            field("age", FieldKind::Numeric, "age", 2),
            field("items", FieldKind::Sequence, "item", 7),
            field("kinds", FieldKind::Sequence, "kind", 3),
            field("gaps", FieldKind::Sequence, "gap", 4),
        ],
        dense: vec!["age".into()],
    }
}

const AGES: [f32; 4] = [0.5, -1.0, 2.0, 0.25];

/// Users, items and their kinds by row; and events: item, kind, gap. Row 1 has none, row 2 an item
/// twice, row 3 has fifty.
fn batch(rows: &[usize]) -> Arc<Batch> {
    let one_hot = |all: [u32; 4]| Jagged::one_hot(rows.iter().map(|&row| all[row]).collect());
    let events = |row: usize| -> Vec<[u32; 3]> {
        match row {
            0 => vec![[1, 0, 3], [6, 2, 0]],
            1 => vec![],
            2 => vec![[2, 1, 2], [5, 0, 2], [2, 1, 1]],
            _ => (0..50).map(|at| [at % 7, at % 3, at % 4]).collect(),
        }
    };
    let sequence = |part: usize| {
        let mut offsets = vec![0];
        let mut indices = Vec::new();
        for &row in rows {
            indices.extend(events(row).iter().map(|event| event[part]));
            offsets.push(indices.len() as u32);
        }
        Jagged {
            indices,
            offsets: Some(offsets),
            weights: None,
        }
    };
    let ages: Vec<f32> = rows.iter().map(|&row| AGES[row]).collect();
    Arc::new(Batch {
        batch_size: rows.len(),
        sparse: vec![
            one_hot([3, 4, 3, 1]),
            one_hot([6, 1, 2, 4]),
            one_hot([2, 0, 1, 1]),
            Jagged {
                indices: vec![0; rows.len()],
                offsets: None,
                weights: Some(ages.clone()),
            },
            sequence(0),
            sequence(1),
            sequence(2),
        ],
        dense: Some(ages),
        ..Batch::default()
    })
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Items with their kinds side by side; how long ago they were is added.
fn with_side_information() -> Vec<BehaviourConfig> {
    vec![BehaviourConfig {
        target: names(&["item", "kind"]),
        history: names(&["items", "kinds"]),
        added: names(&["gaps"]),
        positions: Some(2),
    }]
}

fn din(attention: Pooling) -> DinConfig {
    DinConfig {
        embedding_dim: 2,
        init_std: 0.7,
        attention,
        unit_hidden: vec![5, 3],
        hidden: vec![6, 4],
        behaviour: with_side_information(),
        ..DinConfig::default()
    }
}

fn tables<C: ComponentConfig>(config: &C) -> EmbeddingCollection {
    let sgd = RowOptimizer {
        kind: RowOptimizerKind::Sgd,
        lr: 1.0,
        ..RowOptimizer::default()
    };
    let mut tables = config.tables(&schema()).unwrap();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    let plans: Vec<TablePlan> = tables
        .into_iter()
        .map(|config| TablePlan::new(config, sgd))
        .collect();
    EmbeddingCollection::new(&plans, 3).unwrap()
}

fn component<C: ComponentConfig>(config: &C, device: &Device) -> C::Component {
    let init = Init {
        device: device.clone(),
        seed: 1,
    };
    config.init(&schema(), &init).unwrap()
}

fn scores<C: ComponentConfig>(config: &C, rows: &[usize]) -> Vec<f32> {
    let device = Device::flex();
    let (lookup, _) = tables(config).stage(batch(rows), &device);
    let scores = component(config, &device).forward(&lookup);
    scores.try_into_vec_as::<f32>().unwrap()
}

type Weights = BTreeMap<String, Vec<f32>>;

/// The dense weights by module path.
fn weights<M: Module>(module: &M) -> Weights {
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
    module.visit(&mut collect);
    collect.1
}

/// A row of a table.
fn vector(tables: &EmbeddingCollection, name: &str, row: u32) -> Vec<f64> {
    let table = tables
        .tables()
        .iter()
        .find(|table| table.config().name == name);
    let weights = table.unwrap().weights(row);
    weights.iter().map(|&weight| f64::from(weight)).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A perceptron with PReLU, or with Dice of mean 0 and variance 1, unit by unit.
fn perceptron(path: &str, layers: usize, dice: bool, weights: &Weights, input: &[f64]) -> f64 {
    let affine = |name: String, input: &[f64]| -> Vec<f64> {
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
    let mut units = input.to_vec();
    for nth in 0..layers {
        units = affine(format!("{path}.hidden.{nth}.linear"), &units);
        let slopes = &weights[&format!("{path}.hidden.{nth}.activation.slope")];
        for (unit, &slope) in units.iter_mut().zip(slopes) {
            let slope = f64::from(slope);
            *unit = if dice {
                let p = sigmoid(*unit);
                *unit * (p + (1.0 - p) * slope)
            } else {
                unit.max(0.0) + slope * unit.min(0.0)
            };
        }
    }
    affine(format!("{path}.output"), &units)[0]
}

/// What is added to the event at `at` of `range`: the last has a vector, and all before it share one.
fn position(weights: &Weights, range: std::ops::Range<usize>, at: usize) -> Vec<f64> {
    let vectors = &weights["positions.0.learned"];
    let from_end = (range.end - 1 - at).min(1);
    let vector = vectors[from_end * 4..][..4].iter();
    vector.map(|&number| f64::from(number)).collect()
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let sum: f64 = scores.iter().map(|score| score.exp()).sum();
    scores.iter().map(|score| score.exp() / sum).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Query and keys of a row of the batch.
fn row(
    tables: &EmbeddingCollection,
    weights: &Weights,
    batch: &Batch,
    row: usize,
) -> (Vec<f64>, Vec<Vec<f64>>) {
    let index = |field: usize| batch.sparse[field].indices[row];
    let (item, kind) = (
        vector(tables, "v2.item", index(ITEM)),
        vector(tables, "v2.kind", index(KIND)),
    );
    let events = batch.sparse[ITEMS].range(row);
    let keys = events.clone().map(|at| {
        let of = |name: &str, field: usize| vector(tables, name, batch.sparse[field].indices[at]);
        let key = [of("v2.item", ITEMS), of("v2.kind", KINDS)].concat();
        let (gap, position) = (of("v4.gap", GAPS), position(weights, events.clone(), at));
        let sums = key.iter().zip(gap).zip(position);
        sums.map(|((key, gap), position)| key + gap + position)
            .collect()
    });
    ([item, kind].concat(), keys.collect())
}

/// wᵀ tanh(W_q q + W_k k + b).
fn additive(weights: &Weights, query: &[f64], key: &[f64]) -> f64 {
    let of = |name: &str| &weights[&format!("additive.0.{name}")];
    let fit = of("fit");
    let unit = |unit: usize| {
        let times = |map: &[f32], vector: &[f64]| -> f64 {
            let terms = vector.iter().enumerate();
            terms
                .map(|(at, v)| v * f64::from(map[at * fit.len() + unit]))
                .sum()
        };
        let sum = times(of("query.weight"), query) + times(of("key.weight"), key);
        f64::from(fit[unit]) * (sum + f64::from(of("query.bias")[unit])).tanh()
    };
    (0..fit.len()).map(unit).sum()
}

/// The equations of DIN as they stand.
fn naive(config: &DinConfig, tables: &EmbeddingCollection, weights: &Weights) -> Vec<f64> {
    let batch = batch(&[0, 1, 2]);
    let dice = |activation| activation == Activation::Dice;
    let of_row = |nth: usize| {
        let (query, keys) = row(tables, weights, &batch, nth);
        let scores: Vec<f64> = keys
            .iter()
            .map(|key| match config.attention {
                Pooling::Dot => dot(&query, key) / (key.len() as f64).sqrt(),
                Pooling::Additive => additive(weights, &query, key),
                Pooling::Mean => 1.0 / keys.len() as f64,
                Pooling::Sum => 1.0,
                _ => {
                    let pairs = || query.iter().zip(key);
                    let differences = pairs().map(|(q, k)| q - k).collect();
                    let products = pairs().map(|(q, k)| q * k).collect();
                    let input = [query.clone(), key.clone(), differences, products].concat();
                    let dice = dice(config.unit_activation);
                    perceptron("units.0.mlp", 2, dice, weights, &input)
                }
            })
            .collect();
        let by = match config.attention {
            Pooling::Dot | Pooling::Additive | Pooling::UnitSoftmax => softmax(&scores),
            _ => scores,
        };
        let mut pooled = vec![0.0; 4];
        for (key, weight) in keys.iter().zip(by) {
            for (sum, k) in pooled.iter_mut().zip(key) {
                *sum += weight * k;
            }
        }
        let user = vector(tables, "v2.user", batch.sparse[USER].indices[nth]);
        let age = vec![f64::from(batch.dense.as_ref().unwrap()[nth])];
        let input = [user, query, age, pooled].concat();
        perceptron("mlp", 2, dice(config.activation), weights, &input)
    };
    (0..3).map(of_row).collect()
}

#[test]
fn the_score_of_din_is_that_of_loops_over_events_and_units() {
    for attention in [
        Pooling::Unit,
        Pooling::UnitSoftmax,
        Pooling::Dot,
        Pooling::Additive,
        Pooling::Mean,
        Pooling::Sum,
    ] {
        for activation in [Activation::Prelu, Activation::Dice] {
            let config = DinConfig {
                unit_activation: activation,
                activation,
                ..din(attention)
            };
            let weights = weights(&component(&config, &Device::flex()));
            let expected = naive(&config, &tables(&config), &weights);
            for (got, expected) in scores(&config, &[0, 1, 2]).iter().zip(expected) {
                assert_relative_eq!(f64::from(*got), expected, epsilon = 1e-5);
            }
        }
    }
}

#[test]
fn without_attention_the_histories_are_not_read() {
    let config = din(Pooling::None);
    let fields: Vec<_> = config.tables(&schema()).unwrap();
    let read = fields.iter().flat_map(|table| table.fields.clone());
    assert!(
        read.clone().all(|field| field < ITEMS),
        "{:?}",
        read.collect::<Vec<_>>()
    );
    let device = Device::flex();
    let with = weights(&component(&din(Pooling::Mean), &device));
    let without = weights(&component(&config, &device));
    // Everything else is the same: the first layer lacks the four numbers of the history.
    let first = "mlp.hidden.0.linear.weight";
    assert_eq!(with[first].len() - without[first].len(), 4 * 6);
    // Beside the vectors of positions, which are the history's too.
    assert_eq!(with.len(), without.len() + 1);
    assert!(
        scores(&config, &[0, 1, 2])
            .iter()
            .all(|score| score.is_finite())
    );
}

#[test]
fn gradients_of_rows_and_of_dense_weights_equal_finite_differences() {
    let config = DinConfig {
        unit_activation: Activation::Dice,
        activation: Activation::Dice,
        ..din(Pooling::Unit)
    };
    let device = Device::flex().autodiff();
    let start = tables(&config);
    let mut stepped = tables(&config);
    let din: Din = component(&config, &device);
    let dense = weights(&din);
    let total = |tables: &EmbeddingCollection, dense: &Weights| -> f64 {
        naive(&config, tables, dense).iter().map(|z| z * z).sum()
    };
    let (lookup, staged) = stepped.stage(batch(&[0, 1, 2]), &device);
    let mut gradients = din.forward(&lookup).square().sum().backward();
    stepped
        .apply(&lookup, &staged, &mut gradients, 1.0)
        .unwrap();
    let gradients = GradientsParams::from_grads(gradients, &din);
    let after = weights(&SgdConfig::new().init().step(1.0, din, gradients));

    let close = |gradient: f32, moved: &dyn Fn(f32) -> f64| {
        let expected = (moved(1e-3) - moved(-1e-3)) / 2e-3;
        assert_relative_eq!(
            f64::from(gradient),
            expected,
            epsilon = 1e-4,
            max_relative = 1e-3
        );
    };
    // A target, a past item, one that is both, a side field, what is added.
    for (name, row, at) in [
        ("v2.item", 6, 1),
        ("v2.item", 5, 0),
        ("v2.item", 2, 1),
        ("v2.kind", 1, 0),
        ("v4.gap", 2, 3),
        ("v2.user", 3, 0),
    ] {
        let weight = |tables: &EmbeddingCollection| vector(tables, name, row)[at] as f32;
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

#[test]
fn a_row_scores_the_same_bits_alone_and_beside_a_row_with_fifty_events() {
    for attention in [
        Pooling::Unit,
        Pooling::UnitSoftmax,
        Pooling::Dot,
        Pooling::Additive,
        Pooling::Mean,
    ] {
        let config = DinConfig {
            unit_hidden: vec![64, 16],
            hidden: vec![256, 128],
            ..din(attention)
        };
        for row in [0, 1, 2] {
            let alone = scores(&config, &[row])[0];
            let beside = scores(&config, &[3, row])[1];
            let among = scores(&config, &[3, 3, row, 0, 3, 3, 3, 2])[2];
            assert_eq!((alone, alone), (beside, among), "{attention:?}, row {row}");
        }
    }
    let config = target(false);
    for row in [0, 1, 2] {
        assert_eq!(scores(&config, &[row])[0], scores(&config, &[3, row])[1]);
    }
}

#[test]
fn a_row_without_events_reads_zeros_also_where_no_row_has_one() {
    let config = din(Pooling::Unit);
    let alone = scores(&config, &[1, 1]);
    assert!(alone[0].is_finite());
    assert_eq!(alone[0], scores(&config, &[0, 1])[1]);
    assert_eq!(scores(&target(true), &[1, 0])[0], 0.0);
    assert_eq!(scores(&target(true), &[1]), [0.0]);
}

#[test]
fn masked_items_get_a_weight_of_exactly_zero_and_change_nothing() {
    let device = Device::flex();
    let init = Init {
        device: device.clone(),
        seed: 1,
    };
    let query = || Tensor::<2>::from_data([[0.5, -1.0], [2.0, 1.0]], &device);
    let events = |values: [[[f32; 2]; 3]; 2], mask: [[bool; 3]; 2]| {
        let mask = Tensor::from_data(mask, &device);
        Ragged::from_padded(Tensor::from_data(values, &device), mask).unwrap()
    };
    let (a, b, c) = ([1.0, 2.0], [-1.0, 0.5], [0.25, 3.0]);
    let masked = events(
        [[a, [9.0, 9.0], b], [[8.0, 8.0], c, [7.0, 7.0]]],
        [[true, false, true], [false, true, false]],
    );
    let same = events(
        [[a, b, [5.0, 5.0]], [c, [6.0, 6.0], [6.0, 6.0]]],
        [[true, true, false], [true, false, false]],
    );
    for softmax in [false, true] {
        let config = ActivationUnitConfig {
            softmax,
            ..ActivationUnitConfig::default()
        };
        let unit = config.init("unit", 2, &init).unwrap();
        let pooled = |items: &Ragged| {
            let pooled = unit.forward(query(), items, None);
            pooled.try_into_vec_as::<f32>().unwrap()
        };
        assert_eq!(pooled(&masked), pooled(&same));
        let weights = unit.weights(query(), &same, None);
        let (padded, mask) = same.segments.pad(weights);
        assert_eq!(
            mask.try_into_vec_as::<bool>().unwrap(),
            [true, true, true, false]
        );
        let padded = padded.try_into_vec_as::<f32>().unwrap();
        assert_eq!(padded[3], 0.0);
        if softmax {
            assert_relative_eq!(padded[0] + padded[1], 1.0, epsilon = 1e-6);
            assert_eq!(padded[2], 1.0);
        }
    }
}

#[test]
fn a_step_of_training_goes_by_the_statistics_of_the_batch() {
    let config = din(Pooling::Unit);
    let device = Device::flex().autodiff();
    let din = component(&config, &device);
    let (lookup, _) = tables(&config).stage(batch(&[0, 1, 2]), &device);
    let before = din.forward(&lookup).try_into_vec_as::<f32>().unwrap();
    let at = TrainingStep {
        seed: 1,
        epoch: 0,
        step: 0,
    };
    let trained = din.forward(&lookup.clone().for_training(at));
    assert_ne!(trained.try_into_vec_as::<f32>().unwrap(), before);
    // It has left its trace in the running ones.
    assert_ne!(
        din.forward(&lookup).try_into_vec_as::<f32>().unwrap(),
        before
    );
}

fn target(projections: bool) -> TargetAttentionConfig {
    TargetAttentionConfig {
        embedding_dim: 2,
        init_std: 0.7,
        projections,
        behaviour: with_side_information(),
        ..TargetAttentionConfig::default()
    }
}

#[test]
fn target_attention_is_its_equation_and_what_past_items_add_is_the_score() {
    let device = Device::flex();
    for projections in [false, true] {
        let config = target(projections);
        let mut tables = tables(&config);
        let component = component(&config, &device);
        let dense = weights(&component);
        let map = |what: &str, vector: &[f64]| -> Vec<f64> {
            match dense.get(&format!("projections.0.{what}")) {
                None => vector.to_vec(),
                Some(map) => (0..4)
                    .map(|to| {
                        (0..4)
                            .map(|at| vector[at] * f64::from(map[at * 4 + to]))
                            .sum()
                    })
                    .collect(),
            }
        };
        let rows = batch(&[0, 1, 2]);
        let (lookup, _) = tables.stage(rows.clone(), &device);
        let scores = component.forward(&lookup).try_into_vec_as::<f32>().unwrap();
        let parts = component.explain(&lookup);
        let attention = component.attention(&lookup);
        assert_eq!(parts.len(), 5);
        for nth in 0..3 {
            let (query, keys) = row(&tables, &dense, &rows, nth);
            let scaled: Vec<f64> = keys
                .iter()
                .map(|key| dot(&map("query", &query), &map("key", key)) / 2.0)
                .collect();
            let by = softmax(&scaled);
            let adds: Vec<f64> = keys
                .iter()
                .zip(&by)
                .map(|(key, a)| a * dot(&query, key))
                .collect();
            let expected: f64 = adds.iter().sum();
            assert_relative_eq!(f64::from(scores[nth]), expected, epsilon = 1e-5);
            let of_row: Vec<_> = parts.iter().filter(|part| part.row == nth).collect();
            assert_eq!(of_row.len(), keys.len());
            for ((part, adds), weight) in of_row.iter().zip(adds).zip(by) {
                assert_relative_eq!(f64::from(part.contribution), adds, epsilon = 1e-5);
                assert_relative_eq!(f64::from(part.weight), weight, epsilon = 1e-5);
            }
            let weights: f32 = attention[nth].weights.iter().sum();
            assert_relative_eq!(weights, if nth == 1 { 0.0 } else { 1.0 }, epsilon = 1e-6);
        }
        let What::History(target, past) = &parts[1].what else {
            panic!("{:?}", parts[1].what)
        };
        assert_eq!((target.field, target.index), (ITEM, 6));
        assert_eq!((past.field, past.index), (ITEMS, 6));
    }
}

#[test]
fn the_weights_of_din_are_reported_row_by_row() {
    let config = din(Pooling::Mean);
    let device = Device::flex();
    let (lookup, _) = tables(&config).stage(batch(&[0, 1, 2]), &device);
    let attention = component(&config, &device).attention(&lookup);
    let weights: Vec<Vec<f32>> = attention.iter().map(|it| it.weights.clone()).collect();
    assert_eq!(weights, [vec![0.5; 2], vec![], vec![1.0 / 3.0; 3]]);
    assert_eq!(
        (attention[2].row, attention[2].target, attention[2].history),
        (2, ITEM, ITEMS)
    );
}

#[test]
fn a_sequence_is_the_history_of_the_one_field_that_shares_its_vocabulary() {
    let config = DinConfig::default();
    let names: Vec<_> = config.tables(&schema()).unwrap();
    let names: Vec<&str> = names.iter().map(|table| table.name.as_str()).collect();
    // Gaps are nobody's history.
    assert_eq!(names, ["v8.item", "v8.kind", "v8.user"]);
}

#[test]
fn behaviours_that_cannot_be_are_named() {
    let refused = |target: &[&str], history: &[&str], added: &[&str]| {
        let config = DinConfig {
            behaviour: vec![BehaviourConfig {
                target: names(target),
                history: names(history),
                added: names(added),
                positions: None,
            }],
            ..DinConfig::default()
        };
        config.tables(&schema()).unwrap_err().to_string()
    };
    for (error, expected) in [
        (
            refused(&["itm"], &["items"], &[]),
            "`din` reads field `itm`, which the data does not have (fields: user, item, kind, age, \
             items, kinds, gaps)",
        ),
        (
            refused(&["item"], &["kind"], &[]),
            "`din.behaviour` is history `kind`, a categorical field: expected fields of kind = \
             \"sequence\"",
        ),
        (
            refused(&["item"], &["items"], &["user"]),
            "`din.behaviour` is history `user`, a categorical field: expected fields of kind = \
             \"sequence\"",
        ),
        (
            refused(&["items"], &["items"], &[]),
            "`din.behaviour` is target `items`, a sequence field: expected a field that is no sequence",
        ),
        (
            refused(&["item"], &["kinds"], &[]),
            "`din.behaviour` is target `item` of vocabulary `item` with history `kinds` of `kind`: \
             expected a target and a history of the same vocabulary",
        ),
        (
            refused(&["item", "kind"], &["items"], &[]),
            "`din.behaviour` is target = [\"item\", \"kind\"] with history = [\"items\"]: expected one \
             history for each target, and at least one",
        ),
    ] {
        assert_eq!(error, expected);
    }
    let zero = DinConfig {
        unit_hidden: vec![8, 0],
        ..DinConfig::default()
    };
    assert_eq!(
        zero.tables(&schema()).unwrap_err().to_string(),
        "`din.unit_hidden` is [8, 0]: expected layers of 1 to 65536 units"
    );
}

#[test]
fn histories_of_unequal_length_are_refused_with_their_row() {
    let lists = |field, offsets: &'static [u64]| FeatureLists {
        field,
        offsets,
        indices: &[0; 5],
        weights: None,
    };
    let rows = |gaps: &'static [u64]| Examples {
        rows: 2,
        one_hot_fields: &[],
        one_hot: &[],
        lists: vec![
            lists(ITEMS, &[0, 2, 5]),
            lists(KINDS, &[0, 2, 5]),
            lists(GAPS, gaps),
        ],
        labels: &[],
        weights: None,
    };
    let config = din(Pooling::Unit);
    assert_eq!(config.check_rows(&schema(), &rows(&[0, 2, 5])), Ok(()));
    assert_eq!(
        config
            .check_rows(&schema(), &rows(&[0, 2, 4]))
            .unwrap_err()
            .to_string(),
        "`din` reads `items` and `gaps` side by side, which have [3, 2] items in row 2: expected as many"
    );
    assert!(
        target(false)
            .check_rows(&schema(), &rows(&[0, 1, 4]))
            .is_err()
    );
}

#[cfg(feature = "ndarray")]
#[test]
#[expect(deprecated, reason = "kept as the second CPU backend")]
fn ndarray_trains_on_a_batch_as_flex_does() {
    let config = din(Pooling::Unit);
    let step = TrainingStep {
        seed: 1,
        epoch: 0,
        step: 9,
    };
    let on = |device: Device| {
        let device = device.autodiff();
        let din: Din = component(&config, &device);
        let (lookup, _) = tables(&config).stage(batch(&[0, 1, 2]), &device);
        let scores = din.forward(&lookup.for_training(step));
        let gradients = scores.clone().square().sum().backward();
        let gradients = GradientsParams::from_grads(gradients, &din);
        let after = SgdConfig::new().init().step(1.0, din, gradients);
        (scores.try_into_vec_as::<f32>().unwrap(), weights(&after))
    };
    let (flex, ndarray) = (on(Device::flex()), on(Device::ndarray()));
    for (flex, ndarray) in flex.0.iter().zip(&ndarray.0) {
        assert_relative_eq!(flex, ndarray, epsilon = 1e-4);
    }
    for (path, flex) in &flex.1 {
        for (flex, ndarray) in flex.iter().zip(&ndarray.1[path]) {
            assert_relative_eq!(flex, ndarray, epsilon = 1e-3, max_relative = 1e-3);
        }
    }
}

#[test]
fn operations_are_counted_as_by_hand() {
    // Two events of four numbers: items and kinds side by side.
    let features = [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0];
    let flops = |attention| din(attention).flops(&schema(), &features);
    // x v of user, item and kind, and of item and kind again as the query.
    let vectors = 3.0 * 2.0 + 2.0 * 2.0;
    // Over the three vectors, the age and what is read of the history.
    let layers = f64::from((6 + 1 + 4) * 6 + 6 * 4 + 4);
    let sum = 2.0 * 4.0;
    let mean = 2.0 * (vectors + layers + sum);
    assert_eq!(flops(Pooling::Mean), Some(mean));
    assert_eq!(flops(Pooling::Dot), Some(mean + 2.0 * 2.0 * 4.0));
    // Twice 4 × 5 for the row; for each event 4 × 5, 5 × 3 and 3.
    let unit = 2.0 * 20.0 + 2.0 * (20.0 + 15.0 + 3.0);
    assert_eq!(flops(Pooling::Unit), Some(mean + 2.0 * unit));
    // 4 × 5 for the query and for each event, and 5 to the fit.
    let additive = 20.0 + 2.0 * (20.0 + 5.0);
    assert_eq!(flops(Pooling::Additive), Some(mean + 2.0 * additive));
    // Nothing is asked, and the layers are narrower.
    let layers = f64::from((6 + 1) * 6 + 6 * 4 + 4);
    assert_eq!(flops(Pooling::None), Some(2.0 * (6.0 + layers)));

    let attention = |projections| {
        let config = TargetAttentionConfig {
            embedding_dim: 2,
            projections,
            ..TargetAttentionConfig::default()
        };
        config.flops(&schema(), &features)
    };
    // Items and kinds, each: x v of the target; for each of two events weight, fit and share.
    assert_eq!(
        attention(false),
        Some(2.0 * 2.0 * (2.0 + 2.0 * (2.0 + 2.0 + 1.0)))
    );
    // And 2 × 2 for the target and each event.
    assert_eq!(attention(true), Some(2.0 * 2.0 * (12.0 + 3.0 * 4.0)));
}
