//! DeepFM from the outside: a component that crossfield does not have (a perceptron over the
//! vectors of all fields), added to its FM on shared tables, trained on the planted ad log.
//!
//! Source: Guo et al., DeepFM: A Factorization-Machine based Neural Network for CTR Prediction,
//! IJCAI 2017.

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield::core::{
    Component, ComponentConfig, Error, Init, Initializer, Lookup, Mlp, MlpConfig, Schema, Scored,
    TableConfig, TableField, factor_table, merge_tables, tables_for,
};
use crossfield::data::{DataSpec, Format, LabelKind, prepare, synth::SynthConfig};
use crossfield::fm::FmConfig;
use crossfield::train::{EarlyStop, OptimizerConfig, Parts, Setup, TrainConfig, train};

const DIM: usize = 8;

struct DeepConfig;

#[derive(Module, Debug)]
struct Deep {
    #[module(skip)]
    fields: Vec<TableField>,
    mlp: Mlp,
}

impl DeepConfig {
    /// The tables of the FM: the same names, rows and beginnings.
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
    };
    let make = |init: &Init| {
        let component = config.init(&schema, init)?;
        Ok(Scored::new(component, settings.loss, mean, &init.device))
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
