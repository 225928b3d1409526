//! DeepFM from the outside: a component that crossfield does not have (a perceptron over the
//! vectors of all fields), added to its FM on shared tables, trained on the planted ad log.
//!
//! Source: Guo et al., DeepFM: A Factorization-Machine based Neural Network for CTR Prediction,
//! IJCAI 2017.

mod deep;

use crossfield::core::{ComponentConfig, Init, Loss, Scored, merge_tables};
use crossfield::data::{DataSpec, Format, LabelKind, prepare, synth::SynthConfig};
use crossfield::fm::FmConfig;
use crossfield::train::{EarlyStop, OptimizerConfig, Parts, Setup, TrainConfig, train};

use deep::{DIM, DeepConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut spec = DataSpec::default();
    spec.data.format = Format::Synth;
    spec.data.synth = Some(SynthConfig {
        rows: 100_000,
        ..SynthConfig::default()
    });
    spec.label.column = "click".into();
    let prepared = prepare(&spec, 1, LabelKind::Binary)?;
    let schema = prepared.schema.schema().clone();
    let mean = prepared.train.label_mean().unwrap_or_default();
    let data = Parts::from(prepared);

    let config = (
        FmConfig {
            embedding_dim: DIM,
            ..FmConfig::default()
        },
        DeepConfig,
    );
    let settings = TrainConfig {
        early_stop: Some(EarlyStop::default()),
        ..TrainConfig::default()
    };
    let optimizer = OptimizerConfig::default();
    let plans = optimizer.plan(merge_tables(config.tables(&schema)?)?)?;
    let folder = std::env::temp_dir().join(format!("deep-fm-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let setup = Setup {
        train: &settings,
        optimizer: &optimizer,
        plans: &plans,
        out: &folder,
        fill: None,
    };
    let make = |init: &Init| {
        let component = config.init(&schema, init)?;
        Ok(Scored::new(component, Loss::Logistic, mean, &init.device))
    };
    let (_, metrics) = train(&setup, &data, make, &mut ())?;
    std::fs::remove_dir_all(&folder)?;
    println!(
        "{}",
        metrics
            .test
            .and_then(|test| test.logloss)
            .unwrap_or(f64::NAN)
    );
    Ok(())
}
