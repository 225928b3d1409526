//! Training a component on rows, and what came of it.

use std::sync::Arc;

use crossfield::core::metrics::{Kind, Metrics, Report, logloss_of_logit};
use crossfield::core::{ComponentConfig, Init, Loss, Model, Scored, merge_tables};
use crossfield::data::{Dataset, FittedSchema};
use crossfield::embedding::{RowOptimizer, RowOptimizerKind, Snapshot};
use crossfield::train::{
    EarlyStop, Evaluation, Executor, FinalMetrics, FusedModel, Observer, OptimizerConfig, Parts,
    Scorer, Setup, Timing, TrainConfig, Trained, table_bytes, train, train_fused,
};
use crossfield_fused::FusedConfig;
use tempfile::TempDir;

/// Whatever stops a demo.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// How a model is trained.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// Learning rate of AdaGrad.
    pub(crate) lr: f64,
    /// Penalty on touched weights.
    pub(crate) l2: f64,
    /// Passes over the training rows.
    pub(crate) epochs: usize,
}

/// Adam on rows, with this rate and penalty.
pub(crate) fn adam(lr: f64, l2: f64) -> OptimizerConfig {
    OptimizerConfig {
        rows: RowOptimizer {
            kind: RowOptimizerKind::Adam,
            lr,
            l2,
            ..RowOptimizer::default()
        },
        ..OptimizerConfig::default()
    }
}

/// So many epochs on Burn, fewer where `patience` of them do not help.
pub(crate) fn stopping_early(
    epochs: usize,
    batch_size: usize,
    patience: usize,
    seed: u64,
) -> TrainConfig {
    TrainConfig {
        epochs: Some(epochs),
        batch_size: Some(batch_size),
        early_stop: Some(EarlyStop { patience }),
        seed,
        ..TrainConfig::default()
    }
}

/// A trained model.
pub(crate) struct Run {
    /// Figures on each part.
    pub(crate) metrics: FinalMetrics,
    /// Weights of all tables.
    pub(crate) weights: usize,
    /// Bytes of the tables, the state of their optimizers included.
    pub(crate) bytes: u64,
    /// Seconds of training.
    pub(crate) seconds: f64,
    folder: TempDir,
}

/// Adds up the clocks.
struct Seconds(f64);

impl Observer for Seconds {
    fn evaluated(&mut self, _evaluation: &Evaluation, timing: &Timing) {
        self.0 += timing.train_seconds;
    }
}

impl Run {
    /// Trains a component and a bias, row by row.
    pub(crate) fn train(
        config: &(impl ComponentConfig + FusedConfig),
        settings: Settings,
        data: &Parts,
        seed: u64,
    ) -> Result<Self, Failure> {
        let schema = data.train.schema();
        let optimizer = OptimizerConfig {
            rows: RowOptimizer {
                lr: settings.lr,
                l2: settings.l2,
                ..RowOptimizer::default()
            },
            ..OptimizerConfig::default()
        };
        let tables = merge_tables(config.tables(schema)?)?;
        let weights = tables.iter().map(|table| table.rows * table.dim).sum();
        let plans = optimizer.plan(tables)?;
        let (weight_bytes, state_bytes) = table_bytes(&plans);
        let train = TrainConfig {
            executor: Executor::Fused,
            epochs: Some(settings.epochs),
            threads: 1,
            seed,
            ..TrainConfig::default()
        };
        let model = FusedModel {
            components: vec![config.fused(schema)?],
            loss: Loss::Logistic,
            bias: true,
        };
        let folder = TempDir::new()?;
        let setup = Setup {
            train: &train,
            optimizer: &optimizer,
            plans: &plans,
            out: folder.path(),
            fill: None,
            continues: None,
            check_block: None,
        };
        let mut seconds = Seconds(0.0);
        let metrics = train_fused(&setup, data, model, &mut seconds)?;
        Ok(Self {
            metrics,
            weights,
            bytes: weight_bytes + state_bytes,
            seconds: seconds.0,
            folder,
        })
    }

    /// What the table `<prefix><field>` has for each of these values of a field. A value that was
    /// not in training has the row of all such values.
    pub(crate) fn rows(
        &self,
        schema: &FittedSchema,
        prefix: &str,
        field: &str,
        values: impl Iterator<Item = String>,
    ) -> Result<Vec<Vec<f64>>, Failure> {
        let name = format!("tables.{prefix}{field}");
        let mut snapshot = Snapshot::open(&self.folder.path().join("model.safetensors"))?;
        let shape = snapshot
            .shape(&name)
            .ok_or(format!("no table {name}"))?
            .to_vec();
        let mut all = Vec::new();
        snapshot.read(&name, &shape, |block| all.extend_from_slice(block))?;
        let unknown = schema
            .schema()
            .fields
            .iter()
            .find(|known| known.name == field);
        let unknown = unknown
            .and_then(|field| field.oov_row)
            .ok_or(format!("no field {field}"))?;
        Ok(values
            .map(|value| {
                let row = schema.row(field, &value).unwrap_or(unknown) as usize;
                let row = &all[row * shape[1]..][..shape[1]];
                row.iter().map(|&weight| f64::from(weight)).collect()
            })
            .collect())
    }
}

/// Trains a component and a bias on clicks, batch by batch.
pub(crate) fn train_on_burn<C: ComponentConfig + Sync>(
    config: &C,
    optimizer: &OptimizerConfig,
    settings: &TrainConfig,
    data: &Parts,
) -> Result<Trained<Scored<C::Component>>, Failure> {
    let schema = data.train.schema();
    let mean = data.train.label_mean().ok_or("no training rows")?;
    let plans = optimizer.plan(merge_tables(config.tables(schema)?)?)?;
    let folder = TempDir::new()?;
    let setup = Setup {
        train: settings,
        optimizer,
        plans: &plans,
        out: folder.path(),
        fill: None,
        continues: None,
        check_block: None,
    };
    let make = |init: &Init| {
        let component = config.init(schema, init)?;
        Ok(Scored::new(component, Loss::Logistic, mean, &init.device))
    };
    Ok(train(&setup, data, make, &mut ())?.0)
}

/// The logloss of each test row.
pub(crate) fn losses<M: Model>(
    trained: &mut Trained<M>,
    data: &Parts,
) -> Result<Vec<f64>, Failure> {
    let test = data.test.as_ref().ok_or("no test rows")?;
    let mut logits = Vec::with_capacity(test.len());
    trained.score(test, &mut |scores| logits.extend_from_slice(scores))?;
    Ok(losses_of(logits.into_iter().map(f64::from), test))
}

/// The logloss of each row of a part, by the logits.
pub(crate) fn losses_of(logits: impl Iterator<Item = f64>, part: &Dataset) -> Vec<f64> {
    let rows = logits.zip(part.labels());
    rows.map(|(logit, &label)| logloss_of_logit(logit, label > 0.5))
        .collect()
}

/// By how much `other` is higher, in standard errors of the difference row by row.
pub(crate) fn standard_errors_ahead(own: &[f64], other: &[f64]) -> f64 {
    let pairs = own.iter().zip(other);
    let differences: Vec<f64> = pairs.map(|(own, other)| other - own).collect();
    let n = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    let squares = differences
        .iter()
        .map(|difference| (difference - mean).powi(2));
    mean / (squares.sum::<f64>() / (n - 1.0) / n).sqrt()
}

/// Logloss of the mean click rate of the training rows, and of the probabilities that the clicks
/// were drawn from.
pub(crate) fn bounds(data: &Parts, part: Option<&Arc<Dataset>>) -> Result<[f64; 2], Failure> {
    let part = part.ok_or("the part has no rows")?;
    let mean = data.train.label_mean().ok_or("no training rows")? as f32;
    let logloss = |probabilities: &[f32]| -> Result<f64, Failure> {
        let mut metrics = Metrics::new(Kind::Probabilities);
        metrics.update(probabilities, part.labels(), None, None)?;
        Ok(metrics.finish().logloss.ok_or("no rows")?)
    };
    let truth = part.probabilities().ok_or("the rows were not planted")?;
    Ok([logloss(&vec![mean; part.len()])?, logloss(truth)?])
}

/// The logloss of a part.
pub(crate) fn logloss(part: Option<&Report>) -> Result<f64, Failure> {
    Ok(part
        .and_then(|part| part.logloss)
        .ok_or("the part has no rows")?)
}

/// Pearson's correlation; `None` where one side is all the same.
pub(crate) fn correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
    let (x, y) = (mean(|pair| pair.0), mean(|pair| pair.1));
    let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
        pairs.iter().map(|pair| of(pair.0 - x, pair.1 - y)).sum()
    };
    let (xx, yy) = (sum(&|x, _| x * x), sum(&|_, y| y * y));
    (xx > 0.0 && yy > 0.0).then(|| sum(&|x, y| x * y) / (xx * yy).sqrt())
}
