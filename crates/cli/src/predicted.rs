//! What a finished run predicts for labelled rows: what figures, averages and reports are made of.

use std::sync::Arc;

use crossfield_core::metrics::{Kind, Metrics, Report};
use crossfield_data::{Dataset, Prepared, prepare};
use crossfield_train::{Admissions, Error, Scorer, check_schema, in_pool};

use crate::run::{Anyhow, Finished, label_kind};

/// Rows that a run was not trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Valid,
    Test,
}

impl Part {
    /// In the order of the variants.
    pub(crate) const ALL: [Self; 2] = [Self::Valid, Self::Test];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Valid => "validation",
            Self::Test => "test",
        }
    }
}

/// Labels, and a prediction beside each.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Predicted {
    /// Empty where rows have none.
    pub(crate) labels: Vec<f32>,
    /// By which rows stand for the traffic that they are from; none: all are 1.
    pub(crate) weights: Option<Vec<f32>>,
    pub(crate) groups: Option<Vec<u32>>,
    /// Probabilities, or ratings.
    pub(crate) predictions: Vec<f64>,
    pub(crate) is_probability: bool,
}

impl Predicted {
    /// The figures of the predictions.
    pub(crate) fn report(&self) -> Result<Report, Error> {
        let mut metrics = Metrics::new(if self.is_probability {
            Kind::Probabilities
        } else {
            Kind::Ratings
        });
        let predictions: Vec<f32> = self.predictions.iter().map(|&p| p as f32).collect();
        let (weights, groups) = (self.weights.as_deref(), self.groups.as_deref());
        metrics.update(&predictions, &self.labels, weights, groups)?;
        Ok(metrics.finish())
    }

    /// How these rows differ from others, if they do.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let kind = |rows: &Self| {
            if rows.is_probability {
                "probabilities"
            } else {
                "ratings"
            }
        };
        if self.is_probability != other.is_probability {
            return Some(format!("{}, not {}", kind(self), kind(other)));
        }
        let (mine, its) = (&self.labels, &other.labels);
        if mine.len() != its.len() {
            return Some(format!("{} rows, not {}", mine.len(), its.len()));
        }
        let row = (0..mine.len()).find(|&row| mine[row] != its[row])?;
        Some(format!(
            "label {} of row {}, not {}",
            mine[row],
            row + 1,
            its[row]
        ))
    }
}

impl Finished {
    /// The parts of the run's own data: its files read again, and split again.
    pub(crate) fn prepare(&self) -> Anyhow<Prepared> {
        let (spec, seed) = (self.run.data_spec(), self.run.train.seed);
        let prepared = prepare(&spec, seed, label_kind(self.run.train.loss))?;
        check_schema(&self.directory, &prepared.schema)?;
        let admissions = Admissions::open(&self.directory, &self.fitted)?;
        Ok(admissions.look_up_prepared(prepared))
    }

    /// Refuses a run that is measured by lists, not by predictions of rows.
    pub(crate) fn check_predicts(&self) -> Anyhow<()> {
        if self.run.train.loss.of_rows().is_none() {
            return Err(Error::Option {
                option: format!("train.loss of {}", self.directory.display()),
                reason: format!(
                    "is {}: the run ranks items, and predicts no rows",
                    self.run.train.loss.name()
                ),
            }
            .into());
        }
        Ok(())
    }

    /// A prediction for each row.
    pub(crate) fn predicted(&self, data: &Arc<Dataset>) -> Anyhow<Predicted> {
        self.predicted_by(&mut *self.scorer()?, data)
    }

    /// The same of a model that was loaded already.
    pub(crate) fn predicted_by(
        &self,
        scorer: &mut (dyn Scorer + Send),
        data: &Arc<Dataset>,
    ) -> Anyhow<Predicted> {
        let output = scorer.output();
        let mut predictions = Vec::with_capacity(data.len());
        in_pool(self.run.train.threads, || {
            scorer.score(data, &mut |values| {
                predictions.extend(values.iter().map(|&value| output.prediction(value)));
            })
        })??;
        let labels = data.labels().to_vec();
        let weights = (!labels.is_empty()).then(|| data.traffic_weights(0..data.len()));
        Ok(Predicted {
            labels,
            weights: weights.flatten().map(|weights| weights.into_owned()),
            groups: data.groups().map(<[u32]>::to_vec),
            predictions,
            is_probability: output.is_probability(),
        })
    }
}
