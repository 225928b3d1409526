//! The wide and the deep part, trained in the same steps by optimizers of their own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use crossfield_core::{
    Batch, ComponentConfig, FieldKind, Init, Loss, Normalization, Schema, Scored, merge_tables,
};
use crossfield_data::{DataSpec, FieldConfig, LabelKind, prepare};
use crossfield_embedding::{EmbeddingCollection, Snapshot, TablePlan, tensor_name};
use crossfield_train::{OptimizerConfig, Parts, Scorer, Setup, TrainConfig, Trained, train};
use crossfield_wide_deep::{DeepConfig, WideConfig};

type Config = (WideConfig, DeepConfig);
type Weights = BTreeMap<String, Vec<f64>>;

const STEPS: usize = 3;
const SEED: u64 = 5;

fn data(folder: &Path, rows: &str) -> (Parts, Schema) {
    let file = folder.join("rows.csv");
    std::fs::write(&file, format!("label,user,tags,age\n{rows}")).unwrap();
    let mut spec = DataSpec::default();
    spec.data.train = vec![file.display().to_string()];
    let field = |name: &str, kind| FieldConfig {
        name: name.into(),
        kind,
        ..FieldConfig::default()
    };
    spec.field = vec![
        field("user", FieldKind::Categorical),
        field("tags", FieldKind::Bag),
        field("age", FieldKind::Numeric),
    ];
    let prepared = prepare(&spec, SEED, LabelKind::Binary).unwrap();
    let schema = prepared.schema.schema().clone();
    (Parts::from(prepared), schema)
}

fn config() -> Config {
    let deep = DeepConfig {
        embedding_dim: 2,
        init_std: 0.5,
        hidden: vec![3],
        ..DeepConfig::default()
    };
    (WideConfig::default(), deep)
}

fn plans(config: &Config, optimizer: &OptimizerConfig, schema: &Schema) -> Vec<TablePlan> {
    let tables = merge_tables(config.tables(schema).unwrap()).unwrap();
    optimizer.plan(tables).unwrap()
}

/// Trains, each batch all rows, and leaves the files in `out`.
fn trained(
    config: &Config,
    optimizer: &OptimizerConfig,
    (parts, schema): &(Parts, Schema),
    out: &Path,
) -> Trained<Scored<<Config as ComponentConfig>::Component>> {
    let train_config = TrainConfig {
        epochs: Some(STEPS),
        batch_size: Some(parts.held().unwrap().len()),
        seed: SEED,
        threads: 1,
        ..TrainConfig::default()
    };
    let plans = plans(config, optimizer, schema);
    let setup = Setup {
        train: &train_config,
        optimizer,
        plans: &plans,
        out,
        fill: None,
        continues: None,
        check_block: None,
    };
    let make = |init: &Init| {
        let component = config.init(schema, init)?;
        Ok(Scored::new(component, Loss::Logistic, 0.5, &init.device))
    };
    train(&setup, parts, make, &mut ()).unwrap().0
}

/// All weights as they begin: tables under the names of their tensors, dense ones under their
/// module paths.
fn beginning(config: &Config, optimizer: &OptimizerConfig, schema: &Schema) -> Weights {
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
            self.1.insert(self.0.join("."), wide(&values));
        }
    }
    let init = Init {
        device: Device::flex(),
        seed: SEED,
    };
    let component = config.init(schema, &init).unwrap();
    let mut collect = Collect(Vec::new(), Weights::new());
    Scored::new(component, Loss::Logistic, 0.5, &init.device).visit(&mut collect);
    let tables = EmbeddingCollection::new(&plans(config, optimizer, schema), SEED).unwrap();
    for table in tables.tables() {
        let config = table.config();
        let rows = (0..config.rows as u32).flat_map(|row| wide(table.weights(row)));
        collect.1.insert(tensor_name(&config.name), rows.collect());
    }
    collect.1
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

fn saved(run: &Path) -> Weights {
    let mut snapshot = Snapshot::open(&run.join("model.safetensors")).unwrap();
    let names = snapshot.names();
    let read = |name: String| {
        let shape = snapshot.shape(&name).unwrap().to_vec();
        let mut values = Vec::new();
        snapshot
            .read(&name, &shape, |block| values.extend_from_slice(block))
            .unwrap();
        (name, wide(&values))
    };
    names.into_iter().map(read).collect()
}

const HIDDEN: &str = "component.b.mlp.hidden.0.linear";
const OUTPUT: &str = "component.b.mlp.output";

/// The gradient of the mean logloss, by hand: tags and users are the fields 1 and 0, age field 2
/// and the dense column.
fn gradient(weights: &Weights, batch: &Batch, schema: &Schema) -> Weights {
    let mut gradient: Weights = weights
        .iter()
        .map(|(name, values)| (name.clone(), vec![0.0; values.len()]))
        .collect();
    let columns = schema.dense.len();
    let dense = batch.dense.as_ref().unwrap();
    for row in 0..batch.batch_size {
        let features = |field: usize| {
            let jagged = &batch.sparse[field];
            let of = move |at| (jagged.indices[at] as usize, f64::from(jagged.weight(at)));
            jagged.range(row).map(of)
        };
        let table = |prefix: &str, field: usize| {
            tensor_name(&format!("{prefix}.{}", schema.fields[field].vocabulary))
        };
        let mut z = weights["bias"][0];
        for field in 0..3 {
            z += features(field)
                .map(|(index, x)| weights[&table("wide", field)][index] * x)
                .sum::<f64>();
        }
        let mut input = Vec::new();
        for field in 0..2 {
            let mut vector = [0.0; 2];
            for (index, x) in features(field) {
                for (at, sum) in vector.iter_mut().enumerate() {
                    *sum += weights[&table("v2", field)][index * 2 + at] * x;
                }
            }
            input.extend(vector);
        }
        input.extend(wide(&dense[row * columns..][..columns]));
        let (weight, bias) = (format!("{HIDDEN}.weight"), format!("{HIDDEN}.bias"));
        let (last, last_bias) = (format!("{OUTPUT}.weight"), format!("{OUTPUT}.bias"));
        let units: Vec<f64> = (0..3)
            .map(|unit| {
                let terms = input.iter().enumerate();
                let sum: f64 = terms
                    .map(|(at, x)| x * weights[&weight][at * 3 + unit])
                    .sum();
                (sum + weights[&bias][unit]).max(0.0)
            })
            .collect();
        z += units
            .iter()
            .zip(&weights[&last])
            .map(|(x, w)| x * w)
            .sum::<f64>();
        z += weights[&last_bias][0];

        let label = f64::from(batch.targets.labels[row]);
        let slope = (1.0 / (1.0 + (-z).exp()) - label) / batch.batch_size as f64;
        let mut add = |name: &str, at: usize, by: f64| gradient.get_mut(name).unwrap()[at] += by;
        add("bias", 0, slope);
        for field in 0..3 {
            for (index, x) in features(field) {
                add(&table("wide", field), index, slope * x);
            }
        }
        add(&last_bias, 0, slope);
        let mut of_input = vec![0.0; input.len()];
        for (unit, value) in units.iter().enumerate() {
            add(&last, unit, slope * value);
            if *value > 0.0 {
                let slope = slope * weights[&last][unit];
                add(&bias, unit, slope);
                for (at, x) in input.iter().enumerate() {
                    add(&weight, at * 3 + unit, slope * x);
                    of_input[at] += slope * weights[&weight][at * 3 + unit];
                }
            }
        }
        for field in 0..2 {
            for (index, x) in features(field) {
                for at in 0..2 {
                    add(
                        &table("v2", field),
                        index * 2 + at,
                        of_input[field * 2 + at] * x,
                    );
                }
            }
        }
    }
    gradient
}

/// The rules as their papers have them, for weights that take part in every step or in none.
#[derive(Clone, Copy)]
enum Rule {
    /// α, λ₁ and λ₂, with β = 1.
    Ftrl(f64, f64, f64),
    Adagrad(f64),
    Adam(f64),
}

/// State of one weight: two numbers.
fn update(rule: Rule, w: &mut f64, state: &mut [f64; 2], g: f64, step: usize) {
    match rule {
        Rule::Ftrl(lr, l1, l2) => {
            let [z, n] = state;
            let before = n.sqrt();
            *n += g * g;
            *z += g - (n.sqrt() - before) / lr * *w;
            *w = if z.abs() <= l1 {
                0.0
            } else {
                -(*z - z.signum() * l1) / ((1.0 + n.sqrt()) / lr + l2)
            };
        }
        Rule::Adagrad(lr) => {
            state[0] += g * g;
            *w -= lr * g / (state[0].sqrt() + 1e-8);
        }
        Rule::Adam(lr) => {
            let [m, v] = state;
            *m = 0.9 * *m + 0.1 * g;
            *v = 0.999 * *v + 0.001 * g * g;
            let of = |moment: f64, beta: f64| moment / (1.0 - beta.powi(step as i32));
            *w -= lr * of(*m, 0.9) / (of(*v, 0.999).sqrt() + 1e-8);
        }
    }
}

/// Two rows of click data, the first with a bag of two tags, the second with none and no age.
const ROWS: &str = "1,ann,x|y,30\n0,bob,,\n";

fn assert_trained_as_by_hand(optimizer: &str, rows: Rule, dense: Rule) {
    let optimizer: OptimizerConfig = toml::from_str(optimizer).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), ROWS);
    let mut weights = beginning(&config(), &optimizer, &data.1);
    let out = folder.path().join("run");
    std::fs::create_dir(&out).unwrap();
    trained(&config(), &optimizer, &data, &out);

    let batch = data.0.held().unwrap().batch(&[0, 1]);
    let mut states: BTreeMap<String, Vec<[f64; 2]>> = weights
        .iter()
        .map(|(name, values)| (name.clone(), vec![[0.0; 2]; values.len()]))
        .collect();
    for step in 1..=STEPS {
        let gradient = gradient(&weights, &batch, &data.1);
        for (name, values) in &mut weights {
            let rule = if name.contains("wide.") {
                Rule::Ftrl(0.2, 0.01, 0.1)
            } else if name.contains("v2.") {
                rows
            } else {
                dense
            };
            let states = states.get_mut(name).unwrap();
            for (at, w) in values.iter_mut().enumerate() {
                update(rule, w, &mut states[at], gradient[name][at], step);
            }
        }
    }
    let got = saved(&out);
    assert_eq!(
        got.keys().collect::<Vec<_>>(),
        weights.keys().collect::<Vec<_>>()
    );
    for (name, expected) in &weights {
        for (at, (got, expected)) in got[name].iter().zip(expected).enumerate() {
            assert!(
                (got - expected).abs() < 1e-5,
                "{name} {at}: {got} {expected}"
            );
        }
    }
    let moved = got["bias"][0].abs();
    assert!(moved > 1e-3, "{moved}");
}

const WIDE: &str = "table = [{ match = 'wide.*', kind = 'ftrl', lr = 0.2, l1 = 0.01, l2 = 0.1 }]";

#[test]
fn ftrl_adagrad_and_adam_share_the_steps_as_by_hand() {
    assert_trained_as_by_hand(
        &format!(
            "rows = {{ kind = 'adagrad', lr = 0.1 }}\ndense = {{ kind = 'adam', lr = 0.05 }}\n{WIDE}"
        ),
        Rule::Adagrad(0.1),
        Rule::Adam(0.05),
    );
}

#[test]
fn ftrl_adam_and_dense_adagrad_share_the_steps_as_by_hand() {
    assert_trained_as_by_hand(
        &format!(
            "rows = {{ kind = 'adam', lr = 0.1 }}\ndense = {{ kind = 'adagrad', lr = 0.05 }}\n{WIDE}"
        ),
        Rule::Adam(0.1),
        Rule::Adagrad(0.05),
    );
}

#[test]
fn a_model_that_is_read_back_has_the_statistics_of_its_batches_and_the_same_scores() {
    let (wide, deep) = config();
    let deep = DeepConfig {
        hidden: vec![5, 5],
        dropout: 0.3,
        norm: Normalization::Batch,
        residual: true,
        ..deep
    };
    let config = (wide, deep);
    let optimizer = OptimizerConfig::default();
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), &format!("{ROWS}0,ann,y,41\n1,cy,z,25\n"));
    let out = folder.path().join("run");
    std::fs::create_dir(&out).unwrap();
    let mut trained = trained(&config, &optimizer, &data, &out);
    let saved = saved(&out);
    for (statistic, start) in [("running_mean", 0.0), ("running_var", 1.0)] {
        let name = format!("component.b.mlp.hidden.0.norm.Batch.{statistic}");
        let values = &saved[&name];
        assert!(values.len() == 5 && values.iter().all(|&value| value != start));
    }
    // They are no weights: the optimizer has nothing on them.
    let state = Snapshot::open(&out.join("optimizer.safetensors")).unwrap();
    assert!(!state.names().iter().any(|name| name.contains("running")));
    assert!(state.names().iter().any(|name| name.contains("gamma")));

    let (parts, schema) = &data;
    let device = Device::flex();
    let init = Init {
        device: device.clone(),
        seed: SEED + 1,
    };
    let model = config.init(schema, &init).unwrap();
    let model = Scored::new(model, Loss::Logistic, 0.5, &device);
    let plans = plans(&config, &optimizer, schema);
    let mut loaded = Trained::load(&out, parts.schema, model, plans, &device).unwrap();
    let scores = |trained: &mut dyn Scorer| {
        let mut all: Vec<f32> = Vec::new();
        trained
            .score(&Arc::clone(parts.held().unwrap()), &mut |scores| {
                all.extend_from_slice(scores);
            })
            .unwrap();
        all
    };
    let of_loaded = scores(&mut loaded);
    assert_eq!(of_loaded.len(), 4);
    assert_eq!(scores(&mut trained), of_loaded);
}
