//! What does the steps of a run: the loop around it is the same for all.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crossfield_core::metrics::{Kind, Metrics, Report};
use crossfield_core::{Link, ListFigures};
use crossfield_data::Dataset;
use crossfield_embedding::{EmbeddingCollection, SavedRows, SnapshotTensor};

use crate::{Error, RateSchedule, State};

/// What a [`Scorer`] hands over for a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Output {
    /// The score; this link makes a prediction of it.
    Score(Link),
    /// The logit of a model that was trained on all clicks and this share `w` of the non-clicks.
    /// The prediction for the whole traffic is `σ(z + ln w) = p / (p + (1 − p) / w)`, with `p = σ(z)`.
    ///
    /// # Source
    /// He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014,
    /// section 6.3.
    DownSampled(f64),
    /// The prediction itself, of this link: an average over several models.
    Prediction(Link),
}

impl Output {
    /// Of scores under `link`, whose model was trained on the share `negative_rate` of the
    /// non-clicks.
    pub(crate) fn scores(link: Link, negative_rate: f64) -> Self {
        if negative_rate == 1.0 {
            Self::Score(link)
        } else {
            Self::DownSampled(negative_rate)
        }
    }

    /// What is added to a value before its link makes a prediction of it: the logarithm of the share
    /// of the non-clicks that the model was trained on.
    ///
    /// ```
    /// use crossfield_train::Output;
    ///
    /// let tenth = Output::DownSampled(0.1);
    /// assert_eq!(tenth.shift(), 0.1f64.ln());
    /// // p / (p + (1 − p) / w) with p = ½
    /// assert!((tenth.prediction(0.0) - 0.5 / (0.5 + 0.5 / 0.1)).abs() < 1e-12);
    /// ```
    pub fn shift(self) -> f64 {
        match self {
            Output::DownSampled(rate) => rate.ln(),
            Output::Score(_) | Output::Prediction(_) => 0.0,
        }
    }

    /// The prediction that belongs to what was handed over: a probability, or a rating.
    pub fn prediction(self, value: f32) -> f64 {
        match self {
            Output::Score(link) => link.prediction(f64::from(value)),
            Output::DownSampled(_) => Link::Logistic.prediction(f64::from(value) + self.shift()),
            Output::Prediction(_) => f64::from(value),
        }
    }

    /// Metrics of rows by what is handed over for them.
    pub(crate) fn metrics(self) -> Metrics {
        let kind = match self {
            // Logloss comes from logits, which says more than a probability near 0 or 1.
            Output::Score(Link::Logistic) | Output::DownSampled(_) => Kind::Logits,
            output if output.is_probability() => Kind::Probabilities,
            _ => Kind::Ratings,
        };
        Metrics::new(kind).with_shift(self.shift())
    }

    /// What the metrics take of values that were handed over.
    pub(crate) fn measured(self, values: &[f32]) -> Vec<f32> {
        let values = values.iter().copied();
        if self == Output::Score(Link::Probit) {
            values.map(|value| self.prediction(value) as f32).collect()
        } else {
            values.collect()
        }
    }

    /// The weight by which a row counts among the traffic.
    pub(crate) fn traffic_weight(self, label: f32, weight: f32) -> f32 {
        match self {
            Output::DownSampled(rate) if label == 0.0 => (f64::from(weight) / rate) as f32,
            _ => weight,
        }
    }

    /// Whether predictions are probabilities.
    pub fn is_probability(self) -> bool {
        match self {
            Output::Score(link) | Output::Prediction(link) => link.is_probability(),
            Output::DownSampled(_) => true,
        }
    }
}

/// A model and its tables, ready to score rows.
pub trait Scorer {
    /// What [`score`](Self::score) hands over.
    fn output(&self) -> Output;

    /// One value a row, handed over in blocks and in order.
    ///
    /// # Errors
    /// Where rows and model do not fit together.
    fn score(&mut self, data: &Arc<Dataset>, each: &mut dyn FnMut(&[f32])) -> Result<(), Error>;

    /// Figures on labelled rows.
    ///
    /// # Errors
    /// [`Error::Metrics`] where a score is no number.
    fn evaluate(&mut self, data: &Arc<Dataset>) -> Result<Report, Error> {
        rows_evaluated(self, data)
    }

    /// The figures of each list, in the order of the rows or users that have one, where those are what
    /// [`evaluate`](Self::evaluate) measures; `None`: rows are measured one by one.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    fn lists(&mut self, _data: &Arc<Dataset>) -> Result<Option<Vec<ListFigures>>, Error> {
        Ok(None)
    }

    /// Figures on labelled rows of what knows the training rows and looks at no feature: their mean.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    fn constant(&mut self, train: &Dataset, data: &Arc<Dataset>) -> Result<Option<Report>, Error> {
        rows_by_mean(self.output(), train, data)
    }
}

/// Figures of predictions that are given, probabilities or ratings.
pub(crate) fn rows_measured(
    output: Output,
    predictions: &[f32],
    data: &Dataset,
) -> Result<Report, Error> {
    let mut metrics = Metrics::new(if output.is_probability() {
        Kind::Probabilities
    } else {
        Kind::Ratings
    });
    let weights = data.traffic_weights(0..data.len());
    metrics.update(predictions, data.labels(), weights.as_deref(), None)?;
    Ok(metrics.finish())
}

/// Figures of the mean label of the training rows.
pub(crate) fn rows_by_mean(
    output: Output,
    train: &Dataset,
    data: &Dataset,
) -> Result<Option<Report>, Error> {
    let mean = train
        .traffic_mean()
        .map(|mean| vec![mean as f32; data.len()]);
    mean.map(|mean| rows_measured(output, &mean, data))
        .transpose()
}

/// Figures of rows by their scores.
pub(crate) fn rows_evaluated<S: Scorer + ?Sized>(
    scorer: &mut S,
    data: &Arc<Dataset>,
) -> Result<Report, Error> {
    let output = scorer.output();
    let mut metrics = output.metrics();
    let mut from = 0;
    let mut result = Ok(());
    scorer.score(data, &mut |values| {
        let to = from + values.len();
        let predictions = output.measured(values);
        if result.is_ok() {
            result = metrics.update(
                &predictions,
                &data.labels()[from..to],
                data.traffic_weights(from..to).as_deref(),
                data.groups().map(|groups| &groups[from..to]),
            );
        }
        from = to;
    })?;
    result?;
    Ok(metrics.finish())
}

/// A block of an epoch, or what is left of it; rows that are held are one block.
pub(crate) struct Epoch<'a> {
    pub(crate) data: &'a Arc<Dataset>,
    pub(crate) seed: u64,
    /// From 0.
    pub(crate) number: u64,
    /// Number of the block, from 0.
    pub(crate) block: u64,
    /// Step of the block to begin with, from 0.
    pub(crate) first: usize,
    /// Step of the run to begin with, from 0.
    pub(crate) step: u64,
    /// Steps of the run between checkpoints; 0: none inside an epoch.
    pub(crate) checkpoint_every: u64,
    /// Whether rows are scored before the model learns from them.
    pub(crate) evaluate_first: bool,
    /// Factors on the learning rates, from `step` on.
    pub(crate) rates: &'a mut RateSchedule,
}

/// Some steps that were done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done<'a> {
    pub(crate) steps: u64,
    pub(crate) rows: u64,
    /// Σ loss × weight, each loss measured before its step.
    pub(crate) loss_sum: f64,
    /// Σ weight.
    pub(crate) loss_weight: f64,
    /// The rows as they were scored before the model learned from them, where that was asked for.
    pub(crate) before: Option<Before<'a>>,
}

/// Rows that were scored before the model learned from them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before<'a> {
    pub(crate) scores: &'a [f32],
    pub(crate) labels: &'a [f32],
    pub(crate) weights: Option<&'a [f32]>,
}

impl Before<'_> {
    /// Measures the rows as those of the traffic that they stand for.
    pub(crate) fn add_to(&self, metrics: &mut Metrics, output: Output) -> Result<(), Error> {
        let predictions = output.measured(self.scores);
        let weight = |row: usize| self.weights.map_or(1.0, |weights| weights[row]);
        let labels = self.labels.iter().enumerate();
        let weights = labels.map(|(row, &label)| output.traffic_weight(label, weight(row)));
        let weights: Vec<f32> = weights.collect();
        Ok(metrics.update(&predictions, self.labels, Some(&weights), None)?)
    }
}

/// Which tables are written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SavedTables {
    /// All but those whose rows lie in files of the run.
    OfCheckpoint,
    /// All.
    OfRun,
}

impl SavedTables {
    /// Their weights, and the states of their optimizers.
    pub(crate) fn tensors(
        self,
        tables: &EmbeddingCollection,
    ) -> [BTreeMap<String, SnapshotTensor<'_>>; 2] {
        match self {
            Self::OfCheckpoint => tables.checkpoint_tensors(),
            Self::OfRun => [tables.weight_tensors(), tables.state_tensors()],
        }
    }
}

/// What does the steps.
pub(crate) trait Executor: Scorer {
    /// Steps over so many rows.
    fn steps(&self, rows: usize) -> usize;

    /// Whether the end of epoch `epoch` (from 1) is measured and saved.
    fn measures(&self, _epoch: usize, _last: bool) -> bool {
        true
    }

    /// Its tables, to be filled before the first step; none if it has none.
    fn tables_mut(&mut self) -> Option<&mut EmbeddingCollection> {
        None
    }

    /// Trains on a block. Calls `done` after one or several steps, and at each step after which
    /// a checkpoint is due.
    fn epoch(
        &mut self,
        epoch: Epoch<'_>,
        done: &mut dyn FnMut(&mut Self, Done<'_>) -> Result<(), Error>,
    ) -> Result<(), Error>;

    /// Writes model and optimizer into a folder, and into the state what is no tensor.
    fn save(&self, folder: &Path, state: &mut State, tables: SavedTables) -> Result<(), Error>;

    /// Reads the model of a folder, whose tables have these rows.
    fn load(&mut self, folder: &Path, rows: SavedRows) -> Result<(), Error>;

    /// Reads the optimizer of a folder whose model was read.
    fn load_optimizer(
        &mut self,
        folder: &Path,
        state: &State,
        rows: SavedRows,
    ) -> Result<(), Error>;
}
