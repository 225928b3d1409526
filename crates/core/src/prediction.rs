//! Predictions that average over several models.

use serde::{Deserialize, Serialize};

use crate::{Link, Loss};

/// What a score means: the link, and the range that a prediction is kept in.
///
/// ```
/// use crossfield_core::{Loss, PredictionLink};
///
/// // Ratings are kept between the lowest and the highest label of training.
/// let ratings = PredictionLink::of(Loss::Squared, &[3.0, 1.0, 5.0]);
/// assert_eq!((ratings.prediction(5.5), ratings.prediction(2.5)), (5.0, 2.5));
/// let clicks = PredictionLink::of(Loss::Probit, &[0.0, 1.0]);
/// assert_eq!(clicks.prediction(0.0), 0.5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictionLink {
    /// The link.
    pub link: Link,
    /// Lowest and highest prediction; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(f32, f32)>,
}

impl PredictionLink {
    /// The link of a loss; for ratings, with the range of the training labels.
    pub fn of(loss: Loss, labels: &[f32]) -> Self {
        let range = labels.iter().fold(None, |range, &label| {
            let (low, high) = range.unwrap_or((label, label));
            Some((label.min(low), label.max(high)))
        });
        Self {
            link: loss.link(),
            range: range.filter(|_| loss == Loss::Squared),
        }
    }

    /// The prediction that belongs to a score.
    pub fn prediction(&self, score: f64) -> f64 {
        let prediction = self.link.prediction(score);
        match self.range {
            Some((low, high)) => prediction.clamp(f64::from(low), f64::from(high)),
            None => prediction,
        }
    }
}

/// The mean over draws of the predictions of some rows: `(1/T) Σ_t link(z_t)`.
///
/// Draws are added in their order; the same draws give the same bits, in the run that drew them
/// and from their saved form.
///
/// ```
/// use crossfield_core::{Loss, PredictionLink, PredictionMean};
///
/// let mut mean = PredictionMean::new(PredictionLink::of(Loss::Squared, &[1.0, 5.0]), 1);
/// mean.add(&[2.5]);
/// // 7.5 is kept at 5.
/// mean.add(&[7.5]);
/// assert_eq!(mean.predictions(), [(2.5 + 5.0) / 2.0]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PredictionMean {
    link: PredictionLink,
    draws: u64,
    sums: Vec<f64>,
}

impl PredictionMean {
    /// No draws yet, for that many rows.
    pub fn new(link: PredictionLink, rows: usize) -> Self {
        Self {
            link,
            draws: 0,
            sums: vec![0.0; rows],
        }
    }

    /// Draws so far.
    pub fn draws(&self) -> u64 {
        self.draws
    }

    /// Adds the predictions of one draw, given its score of each row.
    ///
    /// # Panics
    /// If there are more or fewer rows than before.
    pub fn add(&mut self, scores: &[f64]) {
        assert_eq!(scores.len(), self.sums.len(), "a score for each row");
        for (sum, &score) in self.sums.iter_mut().zip(scores) {
            *sum += self.link.prediction(score);
        }
        self.draws += 1;
    }

    /// The means, one a row; none without draws.
    pub fn predictions(&self) -> Vec<f64> {
        if self.draws == 0 {
            return Vec::new();
        }
        let draws = self.draws as f64;
        self.sums.iter().map(|sum| sum / draws).collect()
    }
}
