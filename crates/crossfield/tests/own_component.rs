//! The component of the example `nfm`, which crossfield does not have and which has dense weights, trains
//! beside its FM: the same bits at any number of threads, and after an interruption.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::Path;

use crossfield::core::metrics::Report;
use crossfield::core::{ComponentConfig, Init, Loss, MlpConfig, Scored, merge_tables};
use crossfield::data::synth::SynthConfig;
use crossfield::data::{DataConfig, DataSpec, Format, LabelConfig, LabelKind, prepare};
use crossfield::embedding::Snapshot;
use crossfield::fm::FmConfig;
use crossfield::train::{
    DeviceConfig, FinalMetrics, Observer, OptimizerConfig, Parts, Setup, TrainConfig, train,
};

#[path = "../examples/nfm/model.rs"]
mod nfm;

use nfm::{DIM, NfmConfig};

fn data() -> Parts {
    let spec = DataSpec {
        data: DataConfig {
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
        label: LabelConfig {
            column: "click".into(),
            ..Default::default()
        },
        field: vec![],
        cross: vec![],
    };
    prepare(&spec, 1, LabelKind::Binary).unwrap().into()
}

fn settings(threads: usize) -> TrainConfig {
    TrainConfig {
        epochs: Some(2),
        batch_size: Some(512),
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
        NfmConfig(MlpConfig {
            hidden: vec![64, 32],
            ..MlpConfig::default()
        }),
    );
    let optimizer = OptimizerConfig::default();
    let tables = merge_tables(config.tables(schema).unwrap()).unwrap();
    let plans = optimizer.plan(tables).unwrap();
    let setup = Setup {
        train: settings,
        optimizer: &optimizer,
        plans: &plans,
        out,
        fill: None,
        continues: None,
        check_block: None,
    };
    let make = |init: &Init| {
        Ok(Scored::new(
            config.init(schema, init)?,
            Loss::Logistic,
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
        // Clocks, and the list with their checksum.
        .filter(|entry| entry.file_name() != "timing.jsonl")
        .filter(|entry| entry.file_name() != "checksums.json")
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
    let logloss = |report: Option<Report>| report.unwrap().logloss.unwrap();
    assert!(logloss(metrics.test) < logloss(metrics.constant));
    let snapshot = Snapshot::open(&out.path().join("model.safetensors")).unwrap();
    let names = snapshot.names();
    for name in [
        "bias",
        "component.b.mlp.hidden.0.linear.weight",
        "tables.v8.ad",
        "tables.fm.ad",
    ] {
        assert!(
            names.iter().any(|known| known == name),
            "{name} in {names:?}"
        );
    }
    assert_eq!(
        snapshot.shape("component.b.mlp.hidden.0.linear.weight"),
        Some(&[DIM, 64][..])
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
