//! Predictions that average over draws.

use crossfield_core::{Examples, Link, Loss};

use super::design::RowReader;
use super::{Columns, FmParameters, SolverError};

/// What a score means: the link, and the range that a prediction is kept in.
///
/// ```
/// use crossfield_core::Loss;
/// use crossfield_fm::solver::PredictionLink;
///
/// // Ratings are kept between the lowest and the highest label of training.
/// let ratings = PredictionLink::of(Loss::Squared, &[3.0, 1.0, 5.0]);
/// assert_eq!((ratings.prediction(5.5), ratings.prediction(2.5)), (5.0, 2.5));
/// let clicks = PredictionLink::of(Loss::Probit, &[0.0, 1.0]);
/// assert_eq!(clicks.prediction(0.0), 0.5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PredictionLink {
    /// The link.
    pub link: Link,
    /// Lowest and highest prediction; `None`: any.
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
/// use crossfield_core::{Examples, Loss};
/// use crossfield_fm::solver::{Columns, FieldColumns, FmParameters, PredictionLink, PredictionMean};
///
/// let examples = Examples {
///     rows: 1,
///     one_hot_fields: &[0],
///     one_hot: &[1],
///     lists: vec![],
///     labels: &[],
///     weights: None,
/// };
/// let columns = Columns::new(vec![FieldColumns { field: 0, base: 0, rows: 2 }], vec![0, 0])?;
/// let draw = |w0| FmParameters { embedding_dim: 1, w0, w: vec![0.0, 0.5], v: vec![0.0; 2] };
/// let mut mean = PredictionMean::new(PredictionLink::of(Loss::Squared, &[1.0, 5.0]), 1);
/// mean.add(&draw(2.0), &examples, &columns)?;
/// // 7.5 is kept at 5.
/// mean.add(&draw(7.0), &examples, &columns)?;
/// assert_eq!(mean.predictions(), [(2.5 + 5.0) / 2.0]);
/// # Ok::<(), crossfield_fm::solver::SolverError>(())
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

    /// Adds the predictions of one draw.
    ///
    /// # Errors
    /// [`SolverError::Rows`] if there are more or fewer rows than before;
    /// [`SolverError::MissingField`], [`SolverError::Index`] and [`SolverError::Weight`];
    /// [`SolverError::Parameters`] and [`SolverError::NotFinite`] for parameters that do not fit
    /// the columns. Nothing is added then.
    pub fn add(
        &mut self,
        parameters: &FmParameters,
        examples: &Examples,
        columns: &Columns,
    ) -> Result<(), SolverError> {
        if examples.rows != self.sums.len() {
            return Err(SolverError::Rows {
                expected: self.sums.len(),
                got: examples.rows,
            });
        }
        let scores = scores(parameters, examples, columns)?;
        for (sum, score) in self.sums.iter_mut().zip(scores) {
            *sum += self.link.prediction(score);
        }
        self.draws += 1;
        Ok(())
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

/// The score of every row.
///
/// # Errors
/// [`SolverError::MissingField`], [`SolverError::Index`] and [`SolverError::Weight`];
/// [`SolverError::Parameters`] and [`SolverError::NotFinite`] for parameters that do not fit the
/// columns.
pub fn scores(
    parameters: &FmParameters,
    examples: &Examples,
    columns: &Columns,
) -> Result<Vec<f64>, SolverError> {
    parameters.check(
        columns.len(),
        parameters.embedding_dim,
        !parameters.w.is_empty(),
    )?;
    let reader = RowReader::new(examples, columns)?;
    let mut features = Vec::new();
    (0..examples.rows)
        .map(|row| {
            reader.read(row, &mut features)?;
            Ok(parameters.score(&features))
        })
        .collect()
}
