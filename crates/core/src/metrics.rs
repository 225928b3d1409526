//! Streaming metrics in f64: clicks from logits or from probabilities, and ratings.
//!
//! Rows are added one after the other, so the same rows in the same sequence give the same bits,
//! however they are cut into batches. What a set of rows does not define (the AUC of one class,
//! the mean of no rows) is `None`, never NaN.
//!
//! ```
//! use crossfield_core::metrics::{Kind, Metrics};
//!
//! let mut metrics = Metrics::new(Kind::Logits);
//! metrics.update(&[2.0, -1.0, 0.5], &[1.0, 0.0, 0.0], None, None)?;
//! let report = metrics.finish();
//! assert_eq!(report.auc, Some(1.0));
//! assert_eq!(report.rows, 3);
//! # Ok::<(), crossfield_core::metrics::MetricsError>(())
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::RankingReport;

/// Rows up to which AUC is exact, if [`Metrics::with_exact_rows`] says nothing else.
pub const EXACT_ROWS: usize = 50_000_000;

/// Equal-width bins of the predicted probability in the calibration error (ECE).
pub const ECE_BINS: usize = 15;

/// Probabilities are kept this far from 0 and 1 before their logarithm is taken: 2⁻²⁵, half the
/// distance from 1 to the `f32` below it, so that a probability that was rounded to 1 costs what
/// the farthest value that rounds there would.
pub const PROBABILITY_CLAMP: f64 = 1.0 / 33_554_432.0;

/// Leading bits of a score that make its bucket once AUC is no longer exact.
const BUCKET_BITS: u32 = 20;

/// What the predictions of a [`Metrics`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Clicks, predicted by logits `z`: the probability is `1 / (1 + e^−z)`, and logloss is
    /// computed from `z` in stable form.
    Logits,
    /// Clicks, predicted by probabilities: a known truth, a constant, a link other than the
    /// logistic one. Logloss clamps them by [`PROBABILITY_CLAMP`].
    Probabilities,
    /// Ratings, predicted by numbers.
    Ratings,
}

/// How an AUC was computed.
///
/// ```
/// use crossfield_core::metrics::{AucMethod, Kind, Metrics};
///
/// let mut metrics = Metrics::new(Kind::Probabilities).with_exact_rows(2);
/// metrics.update(&[0.9, 0.2, 0.4], &[1.0, 0.0, 1.0], None, None)?;
/// assert_eq!(metrics.finish().auc_method, Some(AucMethod::Bucketed));
/// # Ok::<(), crossfield_core::metrics::MetricsError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AucMethod {
    /// From every score, ties counted one half.
    Exact,
    /// From scores cut to their leading 20 bits (sign, exponent, 11 bits of mantissa: values in
    /// one bucket differ by less than 0.05 %); scores in one bucket count as tied.
    Bucketed,
}

/// The figures of one set of rows; what does not apply or is not defined is `None` and is left
/// out when written. Displayed, it is the figures that models are compared by.
///
/// ```
/// use crossfield_core::metrics::Report;
///
/// let report = Report {
///     logloss: Some(0.5),
///     auc: Some(0.75),
///     rows: 4,
///     ..Report::default()
/// };
/// assert_eq!(report.to_string(), "logloss 0.50000  AUC 0.75000  4 rows");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Report {
    /// Mean of `−y ln p − (1 − y) ln(1 − p)`, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logloss: Option<f64>,
    /// Probability that a click is scored above a non-click, ties one half. `None` with one class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auc: Option<f64>,
    /// How `auc` was computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auc_method: Option<AucMethod>,
    /// Mean of the AUC of each group, weighted by the group's rows (the sum of its sample
    /// weights, if there are any). Groups with one class have no AUC and are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gauc: Option<f64>,
    /// Groups that `gauc` is a mean of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gauc_groups: Option<u64>,
    /// Groups with one class, which `gauc` leaves out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gauc_left_out: Option<u64>,
    /// There were groups, but more rows than are kept for an exact AUC: `gauc` is not known.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gauc_over_limit: bool,
    /// Logloss over the entropy of the mean label: 1 is a constant predictor that knows the mean.
    /// `None` with one class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalized_entropy: Option<f64>,
    /// Mean prediction over mean label. `None` without clicks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<f64>,
    /// Expected calibration error: over [`ECE_BINS`] bins of equal width in the predicted
    /// probability, the mean of |mean prediction − mean label| weighted by the bin's weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ece: Option<f64>,
    /// Root of the mean squared error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rmse: Option<f64>,
    /// Mean absolute error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mae: Option<f64>,
    /// The figures of ranked lists, where those are measured in place of rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranking: Option<RankingReport>,
    /// Mean label, the share of clicks, by the rows' weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_mean: Option<f64>,
    /// Rows seen, those of weight 0 included.
    pub rows: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ndcg = self.ranking.as_ref().map(|lists| lists.ndcg);
        let figures = [
            ("logloss", self.logloss),
            ("AUC", self.auc),
            ("RMSE", self.rmse),
            ("NDCG", ndcg),
        ];
        for (name, figure) in figures {
            if let Some(figure) = figure {
                write!(f, "{name} {figure:.5}  ")?;
            }
        }
        write!(f, "{} rows", self.rows)
    }
}

/// Why rows could not be measured.
///
/// ```
/// use crossfield_core::metrics::{Kind, Metrics, MetricsError};
///
/// let mut metrics = Metrics::new(Kind::Logits);
/// let error = metrics.update(&[f32::NAN], &[1.0], None, None).unwrap_err();
/// assert!(matches!(error, MetricsError::Prediction { row: 0, .. }));
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// Columns of different lengths.
    #[error("metrics: {what} of {got} rows, expected {expected} as there are predictions")]
    Length {
        /// The column.
        what: &'static str,
        /// Its rows.
        got: usize,
        /// Rows of the predictions.
        expected: usize,
    },
    /// A prediction that is not a finite number, or not a probability where it has to be one.
    #[error("metrics: prediction {value} in row {row}, expected {expected}")]
    Prediction {
        /// Row, counted from 0 over all updates.
        row: u64,
        /// The prediction.
        value: f32,
        /// What it has to be.
        expected: &'static str,
    },
    /// A label that is not 0 or 1 for clicks, or not finite for ratings.
    #[error("metrics: label {value} in row {row}, expected {expected}")]
    Label {
        /// Row, counted from 0 over all updates.
        row: u64,
        /// The label.
        value: f32,
        /// What it has to be.
        expected: &'static str,
    },
    /// A sample weight that is negative or not finite.
    #[error("metrics: sample weight {value} in row {row}, expected a finite number ≥ 0")]
    Weight {
        /// Row, counted from 0 over all updates.
        row: u64,
        /// The weight.
        value: f32,
    },
    /// Some updates with groups and some without.
    #[error("metrics: groups are given for some rows and not for others, from row {row} on")]
    Groups {
        /// First row of the update that differs.
        row: u64,
    },
}

/// One row that an exact AUC needs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Scored {
    group: u32,
    score: f32,
    /// Sample weight; negative for a row without a click.
    signed_weight: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scores {
    Exact(Vec<Scored>),
    /// Weights of clicks and of non-clicks by bucket.
    Bucketed(#[serde(with = "filled_buckets")] Vec<[f64; 2]>),
}

/// Most buckets are empty: those that are not, with their numbers.
mod filled_buckets {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::BUCKET_BITS;

    pub(super) fn serialize<S: Serializer>(
        buckets: &[[f64; 2]],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let filled = buckets
            .iter()
            .enumerate()
            .filter(|(_, weights)| **weights != [0.0; 2]);
        let filled = filled.map(|(number, weights)| (number, weights[0], weights[1]));
        filled
            .collect::<Vec<(usize, f64, f64)>>()
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<[f64; 2]>, D::Error> {
        let mut buckets = vec![[0.0; 2]; 1 << BUCKET_BITS];
        for (number, clicks, non_clicks) in Vec::<(usize, f64, f64)>::deserialize(deserializer)? {
            let bucket = buckets.get_mut(number);
            let bucket = bucket.ok_or_else(|| D::Error::custom(format!("bucket {number}")))?;
            *bucket = [clicks, non_clicks];
        }
        Ok(buckets)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Bin {
    weight: f64,
    predictions: f64,
    labels: f64,
}

/// Adds up rows and reports their metrics. What is saved of it and read again goes on to the same
/// bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    kind: Kind,
    /// What is added to a logit before it becomes a probability.
    shift: f64,
    exact_rows: usize,
    rows: u64,
    grouped: Option<bool>,
    weight: f64,
    loss: f64,
    absolute: f64,
    predictions: f64,
    labels: f64,
    clicks: bool,
    non_clicks: bool,
    bins: [Bin; ECE_BINS],
    scores: Scores,
}

impl Metrics {
    /// Metrics of no rows yet.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            shift: 0.0,
            exact_rows: EXACT_ROWS,
            rows: 0,
            grouped: None,
            weight: 0.0,
            loss: 0.0,
            absolute: 0.0,
            predictions: 0.0,
            labels: 0.0,
            clicks: false,
            non_clicks: false,
            bins: [Bin::default(); ECE_BINS],
            scores: Scores::Exact(Vec::new()),
        }
    }

    /// Keeps AUC exact up to this many rows (12 bytes each), [`EXACT_ROWS`] by default; beyond
    /// them it is bucketed in 16 MiB, and there is no GAUC; 0: bucketed from the first on.
    pub fn with_exact_rows(mut self, rows: usize) -> Self {
        self.exact_rows = rows;
        self
    }

    /// Adds `shift` to every logit before it becomes a probability. What only asks for the order of
    /// the logits, the AUC, is taken from them as they are: to the bit what it is without a shift.
    ///
    /// ```
    /// use crossfield_core::metrics::{Kind, Metrics};
    ///
    /// // Odds of 1 to 1, and ten times as many non-clicks as the model knows of: 1 to 10.
    /// let mut metrics = Metrics::new(Kind::Logits).with_shift(0.1f64.ln());
    /// metrics.update(&[0.0; 11], &[1., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0.], None, None)?;
    /// assert!((metrics.finish().calibration.unwrap() - 1.0).abs() < 1e-12);
    /// # Ok::<(), crossfield_core::metrics::MetricsError>(())
    /// ```
    pub fn with_shift(mut self, shift: f64) -> Self {
        self.shift = shift;
        self
    }

    /// Adds rows: predictions and labels, and sample weights and groups where there are any.
    ///
    /// # Shapes
    /// - all: `[rows]`
    ///
    /// # Errors
    /// Columns of different lengths; groups in some updates only; a prediction, label or weight
    /// that is not finite; a probability outside `[0, 1]`; a click label other than 0 and 1; a
    /// negative weight. Nothing of the update is added then.
    pub fn update(
        &mut self,
        predictions: &[f32],
        labels: &[f32],
        weights: Option<&[f32]>,
        groups: Option<&[u32]>,
    ) -> Result<(), MetricsError> {
        self.check(predictions, labels, weights, groups)?;
        if !predictions.is_empty() {
            self.grouped = Some(groups.is_some());
        }
        for (row, (&prediction, &label)) in predictions.iter().zip(labels).enumerate() {
            let weight = weights.map_or(1.0, |weights| weights[row]);
            let group = groups.map_or(0, |groups| groups[row]);
            self.rows += 1;
            self.weight += f64::from(weight);
            if self.kind == Kind::Ratings {
                self.add_rating(prediction, label, f64::from(weight));
            } else if weight > 0.0 {
                self.add_click(prediction, label > 0.5, weight, group);
            }
        }
        Ok(())
    }

    fn check(
        &self,
        predictions: &[f32],
        labels: &[f32],
        weights: Option<&[f32]>,
        groups: Option<&[u32]>,
    ) -> Result<(), MetricsError> {
        let expected = predictions.len();
        let lengths = [
            ("labels", Some(labels.len())),
            ("sample weights", weights.map(<[f32]>::len)),
            ("groups", groups.map(<[u32]>::len)),
        ];
        for (what, got) in lengths {
            if let Some(got) = got.filter(|&got| got != expected) {
                return Err(MetricsError::Length {
                    what,
                    got,
                    expected,
                });
            }
        }
        if expected > 0
            && self
                .grouped
                .is_some_and(|grouped| grouped != groups.is_some())
        {
            return Err(MetricsError::Groups { row: self.rows });
        }
        for (row, (&prediction, &label)) in (self.rows..).zip(predictions.iter().zip(labels)) {
            let (prediction_fits, expected) = match self.kind {
                Kind::Probabilities => {
                    ((0.0..=1.0).contains(&prediction), "a probability in [0, 1]")
                }
                Kind::Logits | Kind::Ratings => (prediction.is_finite(), "a finite number"),
            };
            if !prediction_fits {
                return Err(MetricsError::Prediction {
                    row,
                    value: prediction,
                    expected,
                });
            }
            let (label_fits, expected) = match self.kind {
                Kind::Ratings => (label.is_finite(), "a finite number"),
                Kind::Logits | Kind::Probabilities => (label == 0.0 || label == 1.0, "0 or 1"),
            };
            if !label_fits {
                return Err(MetricsError::Label {
                    row,
                    value: label,
                    expected,
                });
            }
        }
        for (row, &value) in (self.rows..).zip(weights.unwrap_or_default()) {
            if !(value.is_finite() && value >= 0.0) {
                return Err(MetricsError::Weight { row, value });
            }
        }
        Ok(())
    }

    fn add_rating(&mut self, prediction: f32, label: f32, weight: f64) {
        let error = f64::from(prediction) - f64::from(label);
        self.loss += weight * error * error;
        self.absolute += weight * error.abs();
    }

    fn add_click(&mut self, prediction: f32, label: bool, weight: f32, group: u32) {
        let (prob, loss) = match self.kind {
            Kind::Logits => {
                let logit = f64::from(prediction) + self.shift;
                (sigmoid(logit), logloss_of_logit(logit, label))
            }
            Kind::Probabilities | Kind::Ratings => {
                let prob = f64::from(prediction);
                (prob, logloss_of_probability(prob, label))
            }
        };
        let w = f64::from(weight);
        let y = f64::from(u8::from(label));
        self.clicks |= label;
        self.non_clicks |= !label;
        self.loss += w * loss;
        self.predictions += w * prob;
        self.labels += w * y;
        let bin = &mut self.bins[((prob * ECE_BINS as f64) as usize).min(ECE_BINS - 1)];
        bin.weight += w;
        bin.predictions += w * prob;
        bin.labels += w * y;

        // Adding 0 turns −0 into 0: the two are tied.
        let score = prediction + 0.0;
        let scored = Scored {
            group,
            score,
            signed_weight: if label { weight } else { -weight },
        };
        if let Scores::Exact(rows) = &mut self.scores {
            if rows.len() < self.exact_rows {
                rows.push(scored);
                return;
            }
            let rows = std::mem::take(rows);
            let mut buckets = vec![[0.0; 2]; 1 << BUCKET_BITS];
            rows.into_iter()
                .for_each(|row| add_to_bucket(&mut buckets, row));
            self.scores = Scores::Bucketed(buckets);
        }
        if let Scores::Bucketed(buckets) = &mut self.scores {
            add_to_bucket(buckets, scored);
        }
    }

    /// The figures of all rows so far.
    pub fn finish(self) -> Report {
        let mut report = Report {
            rows: self.rows,
            ..Report::default()
        };
        if self.weight <= 0.0 {
            return report;
        }
        if self.kind == Kind::Ratings {
            report.rmse = Some((self.loss / self.weight).sqrt());
            report.mae = Some(self.absolute / self.weight);
            return report;
        }
        let logloss = self.loss / self.weight;
        report.logloss = Some(logloss);
        report.ece = Some(
            self.bins
                .iter()
                .map(|bin| (bin.predictions - bin.labels).abs())
                .sum::<f64>()
                / self.weight,
        );
        report.label_mean = Some(self.labels / self.weight);
        report.calibration = self.clicks.then(|| self.predictions / self.labels);
        if self.clicks && self.non_clicks {
            let mean = self.labels / self.weight;
            let entropy = -mean * mean.ln() - (1.0 - mean) * (-mean).ln_1p();
            // A weight too small to move the mean off 0 or 1 leaves no entropy to divide by.
            report.normalized_entropy = (entropy > 0.0).then(|| logloss / entropy);
        }
        let grouped = self.grouped == Some(true);
        match self.scores {
            Scores::Exact(mut rows) => {
                if grouped {
                    group_auc(&mut rows, &mut report);
                }
                report.auc = exact_auc(&mut rows).map(|(auc, _)| auc);
                report.auc_method = report.auc.map(|_| AucMethod::Exact);
            }
            Scores::Bucketed(buckets) => {
                report.gauc_over_limit = grouped;
                report.auc = auc_of_ties(buckets.into_iter());
                report.auc_method = report.auc.map(|_| AucMethod::Bucketed);
            }
        }
        report
    }
}

/// `1 / (1 + e^−z)`, without overflow.
pub fn sigmoid(logit: f64) -> f64 {
    let exp = (-logit.abs()).exp();
    if logit >= 0.0 {
        1.0 / (1.0 + exp)
    } else {
        exp / (1.0 + exp)
    }
}

/// Logloss of one row from its logit: `max(z, 0) − z·y + ln(1 + e^−|z|)`, finite for every
/// finite `z`.
pub fn logloss_of_logit(logit: f64, label: bool) -> f64 {
    let linear = if label {
        (-logit).max(0.0)
    } else {
        logit.max(0.0)
    };
    linear + (-logit.abs()).exp().ln_1p()
}

/// Logloss of one row from its probability, which is kept [`PROBABILITY_CLAMP`] from 0 and 1.
pub fn logloss_of_probability(prob: f64, label: bool) -> f64 {
    let prob = prob.clamp(PROBABILITY_CLAMP, 1.0 - PROBABILITY_CLAMP);
    if label { -prob.ln() } else { -(-prob).ln_1p() }
}

fn add_to_bucket(buckets: &mut [[f64; 2]], row: Scored) {
    // Bits of an f32, turned so that they rise with the number.
    let bits = row.score.to_bits();
    let ordered = if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    };
    let side = usize::from(row.signed_weight < 0.0);
    buckets[(ordered >> (32 - BUCKET_BITS)) as usize][side] += f64::from(row.signed_weight.abs());
}

/// AUC from the weights of clicks and non-clicks of each distinct score, scores rising.
fn auc_of_ties(ties: impl Iterator<Item = [f64; 2]>) -> Option<f64> {
    let (mut clicks, mut non_clicks, mut ordered) = (0.0, 0.0, 0.0);
    for [tied_clicks, tied_non_clicks] in ties {
        ordered += tied_clicks * (non_clicks + 0.5 * tied_non_clicks);
        clicks += tied_clicks;
        non_clicks += tied_non_clicks;
    }
    let pairs: f64 = clicks * non_clicks;
    // Sums of weights round: the quotient may pass 1 by an ulp.
    (pairs > 0.0).then(|| (ordered / pairs).min(1.0))
}

/// AUC and sum of weights of some rows, which are put in order of score. Rows of equal score are
/// ordered by weight, so that their sum does not depend on the order in which they came.
fn exact_auc(rows: &mut [Scored]) -> Option<(f64, f64)> {
    rows.sort_unstable_by(|a, b| {
        a.score
            .total_cmp(&b.score)
            .then(a.signed_weight.total_cmp(&b.signed_weight))
    });
    let mut weight = 0.0;
    let ties = rows.chunk_by(|a, b| a.score == b.score).map(|tied| {
        let mut sums = [0.0; 2];
        for row in tied {
            sums[usize::from(row.signed_weight < 0.0)] += f64::from(row.signed_weight.abs());
        }
        weight += sums[0] + sums[1];
        sums
    });
    auc_of_ties(ties).map(|auc| (auc, weight))
}

fn group_auc(rows: &mut [Scored], report: &mut Report) {
    rows.sort_unstable_by_key(|row| row.group);
    let (mut sum, mut weight, mut groups, mut left_out) = (0.0, 0.0, 0, 0);
    for group in rows.chunk_by_mut(|a, b| a.group == b.group) {
        match exact_auc(group) {
            Some((auc, group_weight)) => {
                sum += auc * group_weight;
                weight += group_weight;
                groups += 1;
            }
            None => left_out += 1,
        }
    }
    report.gauc = (groups > 0).then(|| sum / weight);
    report.gauc_groups = Some(groups);
    report.gauc_left_out = Some(left_out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_moves_probabilities_and_no_rank() {
        // Logits so near to each other that added to a shift they would be one number.
        let logits: Vec<f32> = (0..50).map(|row| row as f32 * 1e-9).collect();
        let labels: Vec<f32> = (0..50).map(|row| f32::from(row * 7 % 5 < 2)).collect();
        let report = |shift| {
            let mut metrics = Metrics::new(Kind::Logits).with_shift(shift);
            metrics.update(&logits, &labels, None, None).unwrap();
            metrics.finish()
        };
        let (plain, shifted) = (report(0.0), report(0.1f64.ln()));
        assert!(plain.auc.is_some() && plain.auc == shifted.auc);
        // 20 clicks of 50: a half over 0.4, and 1 / 11 over it.
        assert!((plain.calibration.unwrap() - 1.25).abs() < 1e-7);
        assert!((shifted.calibration.unwrap() - 2.5 / 11.0).abs() < 1e-7);
    }
    use approx::assert_relative_eq;
    use proptest::prelude::*;

    fn report(kind: Kind, predictions: &[f32], labels: &[f32]) -> Report {
        weighted(kind, predictions, labels, None)
    }

    fn weighted(kind: Kind, predictions: &[f32], labels: &[f32], w: Option<&[f32]>) -> Report {
        let mut metrics = Metrics::new(kind);
        metrics.update(predictions, labels, w, None).unwrap();
        metrics.finish()
    }

    /// Every click against every non-click.
    fn naive_auc(scores: &[f32], labels: &[f32], weights: &[f32]) -> Option<f64> {
        let (mut won, mut pairs) = (0.0, 0.0);
        for i in 0..scores.len() {
            for j in 0..scores.len() {
                if labels[i] == 1.0 && labels[j] == 0.0 {
                    let pair = f64::from(weights[i]) * f64::from(weights[j]);
                    pairs += pair;
                    if scores[i] > scores[j] {
                        won += pair;
                    } else if scores[i] == scores[j] {
                        won += 0.5 * pair;
                    }
                }
            }
        }
        (pairs > 0.0).then(|| won / pairs)
    }

    #[test]
    fn numbers_by_hand() {
        // Probabilities 3/4 and 1/4; labels 1, 0, 0.
        let z = 3.0f32.ln();
        let got = report(Kind::Logits, &[z, -z, z], &[1.0, 0.0, 0.0]);
        let (quarter, three_quarters) = (0.25f64.ln(), 0.75f64.ln());
        let logloss = -(2.0 * three_quarters + quarter) / 3.0;
        assert_relative_eq!(got.logloss.unwrap(), logloss, epsilon = 1e-7);
        assert_eq!(got.auc, Some(0.75));
        assert_eq!(got.auc_method, Some(AucMethod::Exact));
        let third = 1.0f64 / 3.0;
        let entropy = -third * third.ln() - 2.0 * third * (2.0 * third).ln();
        assert_relative_eq!(
            got.normalized_entropy.unwrap(),
            logloss / entropy,
            epsilon = 1e-7
        );
        // Mean prediction (3/4 + 1/4 + 3/4) / 3 over mean label 1/3.
        assert_relative_eq!(got.calibration.unwrap(), 1.75, epsilon = 1e-7);
        // Bin of 3/4: |3/4 − 1/2| × 2/3; bin of 1/4: 1/4 × 1/3.
        assert_relative_eq!(got.ece.unwrap(), 0.25, epsilon = 1e-7);
        assert_eq!((got.rows, got.rmse, got.gauc), (3, None, None));
    }

    #[test]
    fn ratings_by_hand() {
        let got = weighted(Kind::Ratings, &[3.0, 5.0], &[4.0, 2.0], Some(&[3.0, 1.0]));
        assert_eq!(got.rmse, Some(3.0f64.sqrt()));
        assert_eq!(got.mae, Some(1.5));
        assert_eq!((got.rows, got.logloss, got.auc), (2, None, None));
    }

    #[test]
    fn extreme_logits_stay_finite() {
        let got = report(
            Kind::Logits,
            &[1000.0, -1000.0, 1000.0, -1000.0],
            &[1.0, 0.0, 0.0, 1.0],
        );
        assert_eq!(got.logloss, Some(500.0));
        assert_eq!(got.auc, Some(0.5));
        let huge = report(Kind::Logits, &[f32::MAX, f32::MIN], &[0.0, 1.0]);
        assert!(huge.logloss.unwrap().is_finite());
    }

    #[test]
    fn one_class_and_no_rows_are_none() {
        let empty = Metrics::new(Kind::Logits).finish();
        assert_eq!(empty, Report::default());
        assert_eq!(Metrics::new(Kind::Ratings).finish(), Report::default());
        let none = report(Kind::Logits, &[0.0, 1.0], &[0.0, 0.0]);
        assert!(none.logloss.is_some() && none.ece.is_some());
        assert_eq!((none.auc, none.auc_method), (None, None));
        assert_eq!((none.normalized_entropy, none.calibration), (None, None));
        let all = report(Kind::Logits, &[0.0, 0.0], &[1.0, 1.0]);
        assert_eq!(
            (all.auc, all.normalized_entropy, all.calibration),
            (None, None, Some(0.5))
        );
        let unweighted = weighted(Kind::Logits, &[1.0], &[1.0], Some(&[0.0]));
        assert_eq!(
            unweighted,
            Report {
                rows: 1,
                ..Report::default()
            }
        );
    }

    #[test]
    fn both_zeros_are_tied() {
        assert_eq!(
            report(Kind::Logits, &[0.0, -0.0], &[1.0, 0.0]).auc,
            Some(0.5)
        );
    }

    #[test]
    fn a_weight_of_two_is_the_row_twice() {
        let once = weighted(
            Kind::Logits,
            &[0.5, -0.5, 0.25],
            &[1.0, 0.0, 0.0],
            Some(&[2.0, 1.0, 3.0]),
        );
        let repeated = report(
            Kind::Logits,
            &[0.5, 0.5, -0.5, 0.25, 0.25, 0.25],
            &[1.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        );
        assert_relative_eq!(
            once.logloss.unwrap(),
            repeated.logloss.unwrap(),
            epsilon = 1e-12
        );
        assert_relative_eq!(once.ece.unwrap(), repeated.ece.unwrap(), epsilon = 1e-12);
        assert_eq!(once.auc, repeated.auc);
        assert_eq!(
            once.calibration.map(|c| c as f32),
            repeated.calibration.map(|c| c as f32)
        );
    }

    #[test]
    fn groups_count_by_rows_and_those_of_one_class_are_left_out() {
        let mut metrics = Metrics::new(Kind::Logits);
        // Group 7: 3 rows, AUC 1. Group 2: 2 rows, AUC 0. Group 9: one class.
        metrics
            .update(
                &[2.0, 1.0, 0.0, -1.0, 5.0, 3.0],
                &[1.0, 1.0, 0.0, 0.0, 0.0, 1.0],
                None,
                Some(&[7, 2, 7, 7, 2, 9]),
            )
            .unwrap();
        let got = metrics.finish();
        assert_relative_eq!(got.gauc.unwrap(), 0.6);
        assert_eq!((got.gauc_groups, got.gauc_left_out), (Some(2), Some(1)));
    }

    #[test]
    fn beyond_the_limit_auc_is_bucketed_and_says_so() {
        let labels: Vec<f32> = (0..2000u32)
            .map(|row| ((row * 7919) % 5 == 0) as u8 as f32)
            .collect();
        let scores: Vec<f32> = (0..2000u32)
            .map(|row| ((row * 104_729) % 1999) as f32 / 500.0 - 2.0 + labels[row as usize])
            .collect();
        let groups = vec![1; 2000];
        let run = |limit| {
            let mut metrics = Metrics::new(Kind::Logits).with_exact_rows(limit);
            metrics
                .update(&scores, &labels, None, Some(&groups))
                .unwrap();
            metrics.finish()
        };
        let (exact, bucketed) = (run(2000), run(1999));
        assert_eq!(exact.auc_method, Some(AucMethod::Exact));
        assert_eq!(bucketed.auc_method, Some(AucMethod::Bucketed));
        assert_relative_eq!(exact.auc.unwrap(), bucketed.auc.unwrap(), epsilon = 1e-4);
        assert_eq!((exact.gauc_over_limit, exact.gauc), (false, exact.auc));
        assert_eq!((bucketed.gauc_over_limit, bucketed.gauc), (true, None));
        assert_eq!(exact.logloss, bucketed.logloss);
    }

    #[test]
    fn probabilities_are_clamped_in_logloss_alone() {
        let got = report(Kind::Probabilities, &[1.0, 0.0], &[0.0, 0.0]);
        let worst = -PROBABILITY_CLAMP.ln();
        assert_relative_eq!(got.logloss.unwrap(), worst / 2.0, epsilon = 1e-6);
        let got = report(Kind::Probabilities, &[1.0, 0.25], &[1.0, 0.0]);
        assert_eq!((got.auc, got.calibration), (Some(1.0), Some(1.25)));
    }

    #[test]
    fn the_mean_label_as_a_constant_has_entropy_one_and_auc_one_half() {
        let labels: Vec<f32> = (0..10_000).map(|row| (row % 4 == 0) as u8 as f32).collect();
        let got = report(Kind::Probabilities, &[0.25; 10_000], &labels);
        assert_relative_eq!(got.normalized_entropy.unwrap(), 1.0, epsilon = 1e-12);
        assert_eq!(
            (got.auc, got.calibration, got.rows),
            (Some(0.5), Some(1.0), 10_000)
        );
        assert_eq!(got.ece, Some(0.0));
    }

    #[test]
    fn bad_rows_are_refused_by_row_and_value_and_change_nothing() {
        let mut metrics = Metrics::new(Kind::Logits);
        metrics
            .update(&[1.0, 0.0], &[1.0, 0.0], None, None)
            .unwrap();
        let refusals = [
            (
                &[0.0, f32::NAN][..],
                &[0.0, 1.0][..],
                None,
                "prediction NaN in row 3",
            ),
            (&[f32::INFINITY], &[0.0], None, "prediction inf in row 2"),
            (&[0.0], &[0.5], None, "label 0.5 in row 2, expected 0 or 1"),
            (
                &[0.0],
                &[1.0],
                Some(&[-1.0][..]),
                "sample weight -1 in row 2",
            ),
            (&[0.0], &[1.0, 0.0], None, "labels of 2 rows, expected 1"),
        ];
        for (predictions, labels, weights, expected) in refusals {
            let error = metrics
                .update(predictions, labels, weights, None)
                .unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let error = metrics
            .update(&[0.0], &[1.0], None, Some(&[1]))
            .unwrap_err();
        assert_eq!(error, MetricsError::Groups { row: 2 });
        assert_eq!(
            metrics.finish(),
            report(Kind::Logits, &[1.0, 0.0], &[1.0, 0.0])
        );
        let error = Metrics::new(Kind::Probabilities).update(&[1.5], &[1.0], None, None);
        assert!(matches!(
            error,
            Err(MetricsError::Prediction { row: 0, .. })
        ));
        let error = Metrics::new(Kind::Ratings).update(&[1.5], &[f32::NAN], None, None);
        assert!(matches!(error, Err(MetricsError::Label { row: 0, .. })));
    }

    proptest! {
        #[test]
        fn auc_is_the_share_of_ordered_pairs(
            rows in prop::collection::vec((-4i8..4, any::<bool>(), 0u8..4), 0..60)
        ) {
            let scores: Vec<f32> = rows.iter().map(|row| f32::from(row.0)).collect();
            let labels: Vec<f32> = rows.iter().map(|row| f32::from(u8::from(row.1))).collect();
            let weights: Vec<f32> = rows.iter().map(|row| f32::from(row.2) / 2.0).collect();
            let got = weighted(Kind::Logits, &scores, &labels, Some(&weights)).auc;
            match (got, naive_auc(&scores, &labels, &weights)) {
                (Some(got), Some(naive)) => prop_assert!((got - naive).abs() < 1e-12),
                (got, naive) => prop_assert_eq!(got, naive),
            }
        }

        #[test]
        fn batches_do_not_change_a_bit(
            rows in prop::collection::vec((-20f32..20.0, any::<bool>(), 0f32..2.0, 0u32..5), 1..80),
            cut in 0usize..80,
        ) {
            let scores: Vec<f32> = rows.iter().map(|row| row.0).collect();
            let labels: Vec<f32> = rows.iter().map(|row| f32::from(u8::from(row.1))).collect();
            let weights: Vec<f32> = rows.iter().map(|row| row.2).collect();
            let groups: Vec<u32> = rows.iter().map(|row| row.3).collect();
            let run = |cuts: &[usize]| {
                let mut metrics = Metrics::new(Kind::Logits);
                for ends in cuts.windows(2) {
                    let range = ends[0]..ends[1];
                    metrics.update(
                        &scores[range.clone()],
                        &labels[range.clone()],
                        Some(&weights[range.clone()]),
                        Some(&groups[range]),
                    ).unwrap();
                }
                metrics.finish()
            };
            let cut = cut.min(rows.len());
            prop_assert_eq!(run(&[0, rows.len()]), run(&[0, cut, rows.len()]));
        }

        #[test]
        fn logloss_of_a_logit_is_that_of_its_probability(logit in -15f64..15.0, label: bool) {
            let expected = logloss_of_probability(sigmoid(logit), label);
            prop_assert!((logloss_of_logit(logit, label) - expected).abs() < 1e-8);
        }
    }
}
