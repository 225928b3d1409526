//! The fused executor and Burn agree: the same start, one row a batch.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::Arc;

use crossfield_core::{ComponentConfig, Init, Loss, Scored, merge_tables};
use crossfield_data::{DataSpec, FieldConfig, Format, LabelKind, prepare};
use crossfield_embedding::{RowOptimizer, RowOptimizerKind, Snapshot, TablePlan};
use crossfield_ffm::FfmConfig;
use crossfield_fm::FmConfig;
use crossfield_fused::FusedConfig;
use crossfield_mf::BiasedMfConfig;
use crossfield_train::{
    Executor, FusedModel, FusedTrained, OptimizerConfig, Parts, Scorer, Setup, TrainConfig,
    Trained, train, train_fused,
};

const ROWS: u32 = 1000;

/// A libffm file of `ROWS` rows: four one-hot fields, one of any number of weighted features, of
/// which a row may name one twice if `repeat`.
fn write_rows(path: &Path, repeat: bool) {
    let mut text = String::new();
    let mut state = 1u32;
    let mut next = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    for _ in 0..ROWS {
        let a = next(7);
        let b = next(5);
        let label = u32::from((a + b) % 3 == 0) ^ u32::from(next(10) == 0);
        text += &format!(
            "{label} 0:{a}:1 1:{}:1 2:{}:1 3:{}:1",
            7 + b,
            12 + next(9),
            21 + next(4)
        );
        for nth in 0..next(4) {
            let index = if repeat { next(6) } else { 2 * nth + next(2) };
            text += &format!(" 4:{}:0.{}", 25 + index, 1 + next(9));
        }
        text += "\n";
    }
    std::fs::write(path, text).unwrap();
}

fn data(folder: &Path, repeat: bool) -> (Parts, crossfield_core::Schema) {
    let file = folder.join("rows.ffm");
    write_rows(&file, repeat);
    let mut spec = DataSpec::default();
    spec.data.format = Format::Libffm;
    spec.data.train = vec![file.display().to_string()];
    let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
    let schema = prepared.schema.schema().clone();
    (Parts::from(prepared), schema)
}

/// Ratings of 30 users and 20 items.
fn ratings(folder: &Path) -> (Parts, crossfield_core::Schema) {
    let file = folder.join("rows.tsv");
    let rows = (0..ROWS).map(|row| {
        let (user, item) = (row * 7 % 30, row * row % 20);
        format!(
            "{user}\t{item}\t{}\t{row}\n",
            1 + (user * item + row % 3) % 5
        )
    });
    std::fs::write(&file, rows.collect::<String>()).unwrap();
    let mut spec = DataSpec::default();
    spec.data.format = Format::Ratings;
    spec.data.train = vec![file.display().to_string()];
    spec.label.column = "rating".to_owned();
    spec.field = ["user", "item"]
        .map(|name| FieldConfig {
            name: name.to_owned(),
            ..FieldConfig::default()
        })
        .to_vec();
    let prepared = prepare(&spec, 1, LabelKind::Number).unwrap();
    let schema = prepared.schema.schema().clone();
    (Parts::from(prepared), schema)
}

/// A feature that comes twice in a row pays its L2 twice on Burn, once in the fused executor: rows
/// with such features are compared without L2.
fn optimizer(kind: RowOptimizerKind, repeat: bool) -> OptimizerConfig {
    OptimizerConfig {
        rows: RowOptimizer {
            kind,
            lr: 0.1,
            l2: if repeat { 0.0 } else { 1e-4 },
            l1: 1e-4,
            initial_accumulator: 0.1,
            ..RowOptimizer::default()
        },
        ..OptimizerConfig::default()
    }
}

/// A run by one of the executors: its folder, its train figures are in it.
struct Run<'a, C> {
    config: &'a C,
    loss: Loss,
    optimizer: OptimizerConfig,
    schema: &'a crossfield_core::Schema,
    parts: &'a Parts,
}

impl<C: ComponentConfig + FusedConfig + Sync> Run<'_, C> {
    fn plans(&self) -> Vec<TablePlan> {
        let tables = merge_tables(self.config.tables(self.schema).unwrap()).unwrap();
        self.optimizer.plan(tables).unwrap()
    }

    fn model(&self, init: &Init) -> Scored<C::Component> {
        let component = self.config.init(self.schema, init).unwrap();
        Scored::new(component, self.loss, 0.4, &init.device)
    }

    fn fused_model(&self) -> FusedModel {
        FusedModel {
            components: vec![self.config.fused(self.schema).unwrap()],
            loss: self.loss,
            bias: true,
        }
    }

    fn train(&self, executor: Executor, out: &Path) {
        std::fs::create_dir(out).unwrap();
        let config = TrainConfig {
            executor,
            loss: self.loss.into(),
            epochs: Some(1),
            batch_size: Some(1),
            threads: 1,
            ..TrainConfig::default()
        };
        let plans = self.plans();
        let setup = Setup {
            train: &config,
            optimizer: &self.optimizer,
            plans: &plans,
            out,
            fill: None,
            continues: None,
            check_block: None,
        };
        let mean = self.parts.train.label_mean().unwrap();
        match executor {
            Executor::Burn => {
                let make = |init: &Init| {
                    let component = self.config.init(self.schema, init)?;
                    Ok(Scored::new(component, self.loss, mean, &init.device))
                };
                train(&setup, self.parts, make, &mut ()).unwrap();
            }
            _ => {
                train_fused(&setup, self.parts, self.fused_model(), &mut ()).unwrap();
            }
        }
    }

    /// Predictions of the model in a folder, by either executor.
    fn predictions(&self, executor: Executor, run: &Path) -> Vec<f64> {
        let mut scorer: Box<dyn Scorer> = match executor {
            Executor::Burn => {
                let device = burn::tensor::Device::flex();
                let init = Init {
                    device: device.clone(),
                    seed: 1,
                };
                let model = self.model(&init);
                let schema = self.parts.schema;
                Box::new(Trained::load(run, schema, model, self.plans(), &device).unwrap())
            }
            _ => {
                let (schema, model) = (self.parts.schema, self.fused_model());
                Box::new(FusedTrained::load(run, schema, model, self.plans()).unwrap())
            }
        };
        let output = scorer.output();
        let mut all = Vec::new();
        let data = Arc::clone(self.parts.held().unwrap());
        scorer
            .score(&data, &mut |scores| {
                all.extend(scores.iter().map(|&score| output.prediction(score)));
            })
            .unwrap();
        all
    }
}

fn weights(run: &Path) -> Vec<(String, Vec<f32>)> {
    let mut snapshot = Snapshot::open(&run.join("model.safetensors")).unwrap();
    snapshot
        .names()
        .into_iter()
        .map(|name| {
            let shape = snapshot.shape(&name).unwrap().to_vec();
            let mut values = Vec::new();
            snapshot
                .read(&name, &shape, |block| values.extend_from_slice(block))
                .unwrap();
            (name, values)
        })
        .collect()
}

fn assert_agree<C: ComponentConfig + FusedConfig + Sync>(
    config: &C,
    loss: Loss,
    kind: RowOptimizerKind,
) {
    for repeat in [false, true] {
        assert_agree_on(config, loss, kind, repeat);
    }
}

fn assert_agree_on<C: ComponentConfig + FusedConfig + Sync>(
    config: &C,
    loss: Loss,
    kind: RowOptimizerKind,
    repeat: bool,
) {
    let folder = tempfile::tempdir().unwrap();
    let (parts, schema) = data(folder.path(), repeat);
    let run = Run {
        config,
        loss,
        optimizer: optimizer(kind, repeat),
        schema: &schema,
        parts: &parts,
    };
    assert_same(&run, folder.path());
}

fn assert_same<C: ComponentConfig + FusedConfig + Sync>(run: &Run<'_, C>, folder: &Path) {
    let (kind, loss) = (run.optimizer.rows.kind, run.loss);
    let [burn, fused] = ["burn", "fused"].map(|name| folder.join(name));
    run.train(Executor::Burn, &burn);
    run.train(Executor::Fused, &fused);

    let (of_burn, of_fused) = (weights(&burn), weights(&fused));
    assert_eq!(of_burn.len(), of_fused.len());
    for ((name, burn), (other, fused)) in of_burn.iter().zip(&of_fused) {
        assert_eq!(name, other);
        for (at, (burn, fused)) in burn.iter().zip(fused).enumerate() {
            // Relative, to weights of at least 0.01: smaller ones are sums that cancel.
            let near = (burn - fused).abs() <= 1e-4 * burn.abs().max(0.01);
            assert!(near, "{kind:?} {name} {at}: burn {burn}, fused {fused}");
        }
    }
    let own = run.predictions(Executor::Burn, &burn);
    let probable = |left: &[f64], right: &[f64], tolerance: f64| {
        for (left, right) in left.iter().zip(right) {
            assert!(
                (left - right).abs() <= tolerance,
                "{kind:?}: {left} {right}"
            );
        }
    };
    probable(&run.predictions(Executor::Fused, &fused), &own, 1e-5);
    // A model that one trained is evaluated by the other.
    let tolerance = if loss == Loss::Squared { 1e-5 } else { 1e-6 };
    probable(&run.predictions(Executor::Fused, &burn), &own, tolerance);
    let own = run.predictions(Executor::Fused, &fused);
    probable(&run.predictions(Executor::Burn, &fused), &own, tolerance);
}

const KINDS: [RowOptimizerKind; 4] = [
    RowOptimizerKind::Sgd,
    RowOptimizerKind::Adagrad,
    RowOptimizerKind::RowwiseAdagrad,
    RowOptimizerKind::Ftrl,
];

#[test]
fn fm_is_the_same_in_both_after_a_thousand_steps() {
    let config = FmConfig {
        embedding_dim: 8,
        init_std: 0.1,
        ..FmConfig::default()
    };
    for kind in KINDS {
        assert_agree(&config, Loss::Logistic, kind);
    }
    assert_agree(&config, Loss::Squared, RowOptimizerKind::Adagrad);
    assert_agree(&config, Loss::Probit, RowOptimizerKind::Adagrad);
}

#[test]
fn ffm_is_the_same_in_both_after_a_thousand_steps() {
    let all = FfmConfig::default();
    // The one-hot fields alone go through tiles.
    let tiles = FfmConfig {
        fields: ["0", "1", "2", "3"].map(str::to_owned).to_vec(),
        ..FfmConfig::default()
    };
    for kind in KINDS {
        assert_agree(&all, Loss::Logistic, kind);
        assert_agree(&tiles, Loss::Logistic, kind);
    }
    let apart = FfmConfig {
        same_field: false,
        normalize: false,
        ..FfmConfig::default()
    };
    assert_agree(&apart, Loss::Logistic, RowOptimizerKind::Adagrad);
}

#[test]
fn mf_is_the_same_in_both_after_a_thousand_steps() {
    let config = BiasedMfConfig {
        embedding_dim: 8,
        ..BiasedMfConfig::default()
    };
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let (parts, schema) = ratings(folder.path());
        let mut optimizer = optimizer(kind, false);
        // Errors of ratings are larger than those of clicks.
        optimizer.rows.lr = 0.02;
        let run = Run {
            config: &config,
            loss: Loss::Squared,
            optimizer,
            schema: &schema,
            parts: &parts,
        };
        assert_same(&run, folder.path());
    }
}
