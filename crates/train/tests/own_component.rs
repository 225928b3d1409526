//! A component that crossfield does not have, with dense weights, trains beside its FM: the same
//! bits at any number of threads, and after an interruption.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield_core::{
    Component, ComponentConfig, Error, Init, Initializer, Lookup, Mlp, MlpConfig, Schema, Scored,
    TableConfig, TableField, factor_table, merge_tables, tables_for,
};
use crossfield_data::synth::SynthConfig;
use crossfield_data::{DataSpec, Format, LabelKind, prepare};
use crossfield_fm::FmConfig;
use crossfield_train::{
    DeviceConfig, FinalMetrics, Observer, OptimizerConfig, Parts, Setup, TrainConfig, train,
};

const DIM: usize = 8;

struct DeepConfig;

#[derive(Module, Debug)]
struct Deep {
    #[module(skip)]
    fields: Vec<TableField>,
    mlp: Mlp,
}

impl DeepConfig {
    fn lookups(schema: &Schema) -> Result<(Vec<TableConfig>, Vec<TableField>), Error> {
        let begin = Initializer::Normal {
            std: FmConfig::default().init_std,
        };
        let ids = schema.bags("deep", &[])?;
        Ok(tables_for(schema, &ids, DIM, begin, |vocabulary| {
            factor_table(DIM, vocabulary)
        }))
    }
}

impl ComponentConfig for DeepConfig {
    type Component = Deep;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        Ok(Self::lookups(schema)?.0)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<Deep, Error> {
        let fields = Self::lookups(schema)?.1;
        let config = MlpConfig {
            hidden: vec![64, 32],
            output: 1,
        };
        Ok(Deep {
            mlp: config.init("deep", fields.len() * DIM, init),
            fields,
        })
    }
}

impl Component for Deep {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        let v = x.fields(&self.fields);
        let [batch, fields, dim] = v.dims();
        self.mlp.forward(v.reshape([batch, fields * dim]))
    }
}

fn data() -> Parts {
    let spec = DataSpec {
        data: crossfield_data::DataConfig {
            format: Format::Synth,
            synth: Some(SynthConfig {
                rows: 20_000,
                users: 2_000,
                ads: 1_000,
                campaigns: 60,
                sites: 40,
                ..SynthConfig::default()
            }),
            ..Default::default()
        },
        label: crossfield_data::LabelConfig {
            column: "click".into(),
            ..Default::default()
        },
        field: vec![],
    };
    prepare(&spec, 1, LabelKind::Binary).unwrap().into()
}

fn settings(threads: usize) -> TrainConfig {
    TrainConfig {
        epochs: 2,
        batch_size: 512,
        threads,
        checkpoint_every: 10,
        ..TrainConfig::default()
    }
}

fn run(
    data: &Parts,
    settings: &TrainConfig,
    out: &Path,
    observer: &mut (dyn Observer + Send),
) -> FinalMetrics {
    let schema = data.train.schema();
    let config = (
        FmConfig {
            embedding_dim: DIM,
            ..FmConfig::default()
        },
        DeepConfig,
    );
    let optimizer = OptimizerConfig::default();
    let tables = merge_tables(config.tables(schema).unwrap()).unwrap();
    let plans = optimizer.plan(tables).unwrap();
    let setup = Setup {
        train: settings,
        optimizer: &optimizer,
        plans: &plans,
        out,
    };
    let make = |init: &Init| {
        Ok(Scored::new(
            config.init(schema, init)?,
            settings.loss,
            0.25,
            &init.device,
        ))
    };
    train(&setup, data, make, observer).unwrap().1
}

/// The files of a run but the one with clocks in it.
fn files(out: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(out)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name() != "timing.jsonl")
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

fn assert_same_bits_at_any_number_of_threads(device: DeviceConfig) {
    let data = data();
    let outs: Vec<_> = [1, 2, 4]
        .map(|threads| {
            let out = tempfile::tempdir().unwrap();
            let settings = TrainConfig {
                device,
                ..settings(threads)
            };
            run(&data, &settings, out.path(), &mut ());
            files(out.path())
        })
        .into();
    assert_eq!(outs[0].len(), 5, "{:?}", outs[0].keys());
    assert!(outs[0] == outs[1] && outs[1] == outs[2]);
}

#[test]
fn dense_weights_have_the_same_bits_at_any_number_of_threads() {
    assert_same_bits_at_any_number_of_threads(DeviceConfig::Flex);
}

#[cfg(feature = "ndarray")]
#[test]
fn dense_weights_have_the_same_bits_at_any_number_of_threads_on_ndarray() {
    assert_same_bits_at_any_number_of_threads(DeviceConfig::Ndarray);
}

#[test]
fn the_perceptron_is_trained_and_the_sum_learns() {
    let data = data();
    let out = tempfile::tempdir().unwrap();
    let metrics = run(&data, &settings(2), out.path(), &mut ());
    let logloss =
        |report: Option<crossfield_core::metrics::Report>| report.unwrap().logloss.unwrap();
    assert!(logloss(metrics.test) < logloss(metrics.constant));
    let snapshot =
        crossfield_embedding::Snapshot::open(&out.path().join("model.safetensors")).unwrap();
    let names = snapshot.names();
    for name in [
        "bias",
        "component.b.mlp.layers.0.weight",
        "tables.v8.ad",
        "tables.fm.ad",
    ] {
        assert!(
            names.iter().any(|known| known == name),
            "{name} in {names:?}"
        );
    }
    assert_eq!(
        snapshot.shape("component.b.mlp.layers.0.weight"),
        Some(&[10 * DIM, 64][..])
    );
}

/// Breaks off at a step, as a kill would.
struct BreaksOff(usize);

impl Observer for BreaksOff {
    fn stepped(&mut self, epoch: usize, step: usize, _steps: usize, _loss: f64) {
        assert!((epoch, step) != (2, self.0), "broken off on purpose");
    }
}

#[test]
fn dense_optimizer_state_survives_an_interruption() {
    let data = data();
    let undisturbed = tempfile::tempdir().unwrap();
    run(&data, &settings(2), undisturbed.path(), &mut ());
    for step in [3, 25] {
        let out = tempfile::tempdir().unwrap();
        let broken =
            std::panic::catch_unwind(|| run(&data, &settings(2), out.path(), &mut BreaksOff(step)));
        assert!(broken.is_err());
        run(&data, &settings(2), out.path(), &mut ());
        assert!(
            files(out.path()) == files(undisturbed.path()),
            "broken off at step {step}"
        );
    }
}
