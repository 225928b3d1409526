//! How sure figures are, and differences between models: the bootstrap over rows or users.

use crossfield_core::Link;
use crossfield_core::metrics::{ECE_BINS, logloss_of_probability};
use crossfield_core::rng::{Purpose, rng};
use rand::RngExt;
use rayon::prelude::*;

use crate::Error;

/// A figure of a set of rows.
///
/// ```
/// use crossfield_report::Figure;
///
/// assert_eq!((Figure::Auc.name(), Figure::Auc.best()), ("AUC", Some(crossfield_report::Best::Highest)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Mean logloss, in nats.
    Logloss,
    /// Area under the ROC curve.
    Auc,
    /// Mean AUC of groups, by their weight.
    Gauc,
    /// Logloss over the entropy of the mean label.
    NormalizedEntropy,
    /// Mean prediction over mean label.
    Calibration,
    /// Expected calibration error.
    Ece,
    /// Root of the mean squared error.
    Rmse,
    /// Mean absolute error.
    Mae,
}

/// Which of two values of a figure is the better one.
///
/// ```
/// use crossfield_report::Best;
///
/// assert!(Best::Lowest.is_better(0.4, 0.5) && Best::Highest.is_better(0.5, 0.4));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Best {
    /// The lower one.
    Lowest,
    /// The higher one.
    Highest,
}

impl Best {
    /// Whether `value` is better than `other`.
    pub fn is_better(self, value: f64, other: f64) -> bool {
        match self {
            Self::Lowest => value < other,
            Self::Highest => value > other,
        }
    }
}

impl Figure {
    /// Those of clicks, the one that decides first.
    pub const CLICKS: [Self; 6] = [
        Self::Logloss,
        Self::Auc,
        Self::Gauc,
        Self::NormalizedEntropy,
        Self::Calibration,
        Self::Ece,
    ];
    /// Those of ratings, the one that decides first.
    pub const RATINGS: [Self; 2] = [Self::Rmse, Self::Mae];

    /// The name, as tables have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logloss => "logloss",
            Self::Auc => "AUC",
            Self::Gauc => "GAUC",
            Self::NormalizedEntropy => "NE",
            Self::Calibration => "calibration",
            Self::Ece => "ECE",
            Self::Rmse => "RMSE",
            Self::Mae => "MAE",
        }
    }

    /// Which value is best; `None` where it is neither the lowest nor the highest (calibration is best
    /// at 1).
    pub fn best(self) -> Option<Best> {
        match self {
            Self::Auc | Self::Gauc => Some(Best::Highest),
            Self::Calibration => None,
            _ => Some(Best::Lowest),
        }
    }
}

/// Labelled rows on which models are measured.
///
/// # Shapes
/// - all: `[rows]`
///
/// ```
/// let rows = crossfield_report::Rows {
///     labels: &[1.0, 0.0],
///     weights: None,
///     groups: Some(&[7, 7]),
///     is_probability: true,
/// };
/// assert_eq!(rows.labels.len(), 2);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// 0 or 1 for clicks, any number for ratings.
    pub labels: &'a [f32],
    /// Weights of the rows; `None`: all are 1.
    pub weights: Option<&'a [f32]>,
    /// Groups, users for instance, that are resampled whole.
    pub groups: Option<&'a [u32]>,
    /// Whether predictions are probabilities of a click; else they are ratings.
    pub is_probability: bool,
}

impl Rows<'_> {
    fn weight(&self, row: usize) -> f64 {
        self.weights.map_or(1.0, |weights| f64::from(weights[row]))
    }

    /// What a prediction of a row costs: its logloss, or its squared error.
    pub fn loss(&self, row: usize, prediction: f64) -> f64 {
        let label = f64::from(self.labels[row]);
        if self.is_probability {
            logloss_of_probability(prediction, label > 0.5)
        } else {
            (prediction - label).powi(2)
        }
    }

    fn check(&self, predictions: &[f64]) -> Result<(), Error> {
        let expected = self.labels.len();
        let lengths = [
            ("predictions", Some(predictions.len())),
            ("weights", self.weights.map(<[f32]>::len)),
            ("groups", self.groups.map(<[u32]>::len)),
        ];
        for (what, got) in lengths {
            if let Some(got) = got.filter(|&got| got != expected) {
                return Err(Error::Rows {
                    what,
                    got,
                    expected,
                });
            }
        }
        match predictions.iter().position(|value| !value.is_finite()) {
            Some(row) => Err(Error::Prediction {
                row,
                value: predictions[row],
            }),
            None => Ok(()),
        }
    }
}

/// A figure with its bootstrap: the interval that holds 95 % of the resamples.
///
/// ```
/// let rows = crossfield_report::Rows {
///     labels: &[1.0, 0.0, 1.0, 0.0],
///     weights: None,
///     groups: None,
///     is_probability: true,
/// };
/// let compared = crossfield_report::Comparison::of(rows, &[&[0.9, 0.2, 0.6, 0.4]], 100, 1)?;
/// let auc = compared.estimate(0, crossfield_report::Figure::Auc).expect("both classes are there");
/// assert_eq!((auc.value, auc.high), (1.0, 1.0));
/// # Ok::<(), crossfield_report::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Of the rows as they are.
    pub value: f64,
    /// Standard deviation over the resamples.
    pub error: f64,
    /// The 2.5th percentile of the resamples.
    pub low: f64,
    /// The 97.5th percentile of the resamples.
    pub high: f64,
}

/// A difference between two models on the same rows.
///
/// ```
/// use crossfield_report::{Rows, paired};
///
/// let rows = Rows { labels: &[1.0, 3.0], weights: None, groups: None, is_probability: false };
/// // Squared errors 1, 4 and 0, 1: worse by 1 and by 3.
/// let difference = paired(rows, &[2.0, 5.0], &[1.0, 4.0])?;
/// assert_eq!((difference.estimate.value, difference.estimate.error), (2.0, 1.0));
/// # Ok::<(), crossfield_report::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The difference, the first model's figure less the second's.
    pub estimate: Estimate,
    /// Two-sided p-value of no difference.
    pub p: f64,
}

/// Several models on the same rows, with figures of many resamples of these.
///
/// A resample draws as many rows with replacement as there are; where rows have groups, as many
/// groups, each with all of its rows, since the rows of one user are no independent witnesses. All
/// models are measured on the same resamples, so that differences are paired.
///
/// # Source
/// Efron, Tibshirani, *An Introduction to the Bootstrap* (1993): standard errors, section 6.2;
/// percentile intervals, section 13.3; the achieved significance level, section 15.4.
///
/// ```
/// use crossfield_report::{Comparison, Figure, Rows};
///
/// let labels: Vec<f32> = (0..200).map(|row| (row % 2) as f32).collect();
/// let sharp: Vec<f64> = labels.iter().map(|&label| 0.1 + 0.8 * f64::from(label)).collect();
/// let blunt = vec![0.5; 200];
/// let rows = Rows { labels: &labels, weights: None, groups: None, is_probability: true };
/// let compared = Comparison::of(rows, &[&sharp, &blunt], 200, 1)?;
/// assert_eq!(compared.best(), 0);
/// let difference = compared.difference(1, 0, Figure::Logloss).expect("both have a logloss");
/// assert!(difference.estimate.value > 0.5 && difference.p < 0.02);
/// # Ok::<(), crossfield_report::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Comparison {
    figures: Vec<Figure>,
    resamples: usize,
    units: usize,
    models: Vec<Resampled>,
}

/// The figures of one model.
#[derive(Clone, Debug)]
struct Resampled {
    /// By figure; not a number where it is not defined.
    values: Vec<f64>,
    /// By figure, then resample.
    resampled: Vec<Vec<f64>>,
}

impl Comparison {
    /// Measures models by their predictions, on the rows and on `resamples` resamples of them.
    ///
    /// # Shapes
    /// - predictions: `[models][rows]`
    ///
    /// # Errors
    /// [`Error::Rows`] for columns of different lengths, [`Error::Prediction`] for one that is no
    /// finite number.
    pub fn of(
        rows: Rows<'_>,
        predictions: &[&[f64]],
        resamples: usize,
        seed: u64,
    ) -> Result<Self, Error> {
        for predictions in predictions {
            rows.check(predictions)?;
        }
        let mut figures = if rows.is_probability {
            Figure::CLICKS.to_vec()
        } else {
            Figure::RATINGS.to_vec()
        };
        if rows.groups.is_none() {
            figures.retain(|&figure| figure != Figure::Gauc);
        }
        let units = Units::of(&rows);
        let scored: Vec<Scored> = predictions
            .iter()
            .map(|predictions| Scored::of(&rows, predictions, &units))
            .collect();
        let of_all = |counts: &Counts| -> Vec<Vec<f64>> {
            let of_model = |scored: &Scored| {
                let measured = scored.measure(counts);
                figures
                    .iter()
                    .map(|&figure| measured.figure(figure))
                    .collect()
            };
            scored.iter().map(of_model).collect()
        };
        let values = of_all(&units.once());
        let drawn: Vec<Vec<Vec<f64>>> = (0..resamples as u64)
            .into_par_iter()
            .map(|resample| of_all(&units.draw(seed, resample)))
            .collect();
        let models = values.into_iter().enumerate().map(|(model, values)| {
            let of_figure = |figure| drawn.iter().map(|all| all[model][figure]).collect();
            Resampled {
                resampled: (0..figures.len()).map(of_figure).collect(),
                values,
            }
        });
        Ok(Self {
            models: models.collect(),
            figures,
            resamples,
            units: units.count,
        })
    }

    /// The figures that were measured, the one that decides first.
    pub fn figures(&self) -> &[Figure] {
        &self.figures
    }

    /// How many resamples were drawn.
    pub fn resamples(&self) -> usize {
        self.resamples
    }

    /// How many rows, or groups, a resample is drawn from.
    pub fn units(&self) -> usize {
        self.units
    }

    fn place(&self, figure: Figure) -> Option<usize> {
        self.figures.iter().position(|&other| other == figure)
    }

    /// A figure of a model; `None` where it is not defined on these rows.
    pub fn estimate(&self, model: usize, figure: Figure) -> Option<Estimate> {
        let (place, model) = (self.place(figure)?, self.models.get(model)?);
        estimate(model.values[place], model.resampled[place].iter().copied())
    }

    /// How much a figure of `model` is above that of `other`. The p-value is twice the share of
    /// resamples on whose other side of zero the difference lies, at least `2 / (resamples + 1)`.
    pub fn difference(&self, model: usize, other: usize, figure: Figure) -> Option<Difference> {
        let place = self.place(figure)?;
        let (model, other) = (self.models.get(model)?, self.models.get(other)?);
        let pairs = model.resampled[place].iter().zip(&other.resampled[place]);
        let differences: Vec<f64> = pairs
            .map(|(a, b)| a - b)
            .filter(|d| d.is_finite())
            .collect();
        let estimate = estimate(
            model.values[place] - other.values[place],
            differences.iter().copied(),
        )?;
        let share = |is_beyond: fn(f64) -> bool| {
            let beyond = differences.iter().filter(|&&d| is_beyond(d)).count();
            (beyond + 1) as f64 / (differences.len() + 1) as f64
        };
        let p = 2.0 * share(|d| d <= 0.0).min(share(|d| d >= 0.0));
        Some(Difference {
            estimate,
            p: p.min(1.0),
        })
    }

    /// The model whose first figure is best; the first of several.
    pub fn best(&self) -> usize {
        let Some(best) = self.figures.first().and_then(|figure| figure.best()) else {
            return 0;
        };
        let values = self.models.iter().map(|model| model.values[0]);
        let mut values = values.enumerate().filter(|(_, value)| value.is_finite());
        let Some(mut found) = values.next() else {
            return 0;
        };
        for (at, value) in values {
            if best.is_better(value, found.1) {
                found = (at, value);
            }
        }
        found.0
    }
}

/// The mean difference of two models' losses, row by row, with its standard error in closed form:
/// `d = Σ w (a − b) / Σ w`, `SE² = G / (G − 1) · Σ_g (Σ_{i∈g} w (a − b − d))² / (Σ w)²` over groups `g`,
/// each row one where there are none. The p-value is that of a normal distribution.
///
/// # Shapes
/// - model, other: `[rows]`
///
/// # Errors
/// As [`Comparison::of`].
///
/// # Source
/// Miller, *Error Bars for Evals* (2024), sections 2 to 4: paired differences, clustered standard errors.
pub fn paired(rows: Rows<'_>, model: &[f64], other: &[f64]) -> Result<Difference, Error> {
    rows.check(model)?;
    rows.check(other)?;
    let differences: Vec<f64> = (0..model.len())
        .map(|row| rows.loss(row, model[row]) - rows.loss(row, other[row]))
        .collect();
    Ok(mean_of(rows, &differences))
}

/// As [`paired`], of numbers that are differences already.
///
/// # Shapes
/// - differences: `[rows]`
pub fn mean_of(rows: Rows<'_>, differences: &[f64]) -> Difference {
    let weight: f64 = (0..differences.len()).map(|row| rows.weight(row)).sum();
    let weighted = |row: usize| rows.weight(row) * differences[row];
    let mean = (0..differences.len()).map(weighted).sum::<f64>() / weight;
    let units = Units::of(&rows);
    let mut sums = vec![0.0; units.count];
    for (row, difference) in differences.iter().enumerate() {
        sums[units.unit(row)] += rows.weight(row) * (difference - mean);
    }
    let count = units.count as f64;
    let squares: f64 = sums.iter().map(|sum| sum * sum).sum();
    let error = (count / (count - 1.0) * squares).sqrt() / weight;
    // Where every row differs by the same, the sums are rounding alone.
    let p = match error > 1e-12 * mean.abs() {
        true => 2.0 * Link::Probit.prediction(-(mean / error).abs()),
        false if mean == 0.0 => 1.0,
        false => 0.0,
    };
    Difference {
        estimate: Estimate {
            value: mean,
            error,
            low: mean - 1.96 * error,
            high: mean + 1.96 * error,
        },
        p,
    }
}

fn estimate(value: f64, resampled: impl Iterator<Item = f64>) -> Option<Estimate> {
    if !value.is_finite() {
        return None;
    }
    // Some resample may hold one class alone.
    let mut sorted: Vec<f64> = resampled.filter(|value| value.is_finite()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    if sorted.len() < 2 {
        return None;
    }
    let count = sorted.len() as f64;
    let mean = sorted.iter().sum::<f64>() / count;
    let squares: f64 = sorted.iter().map(|value| (value - mean).powi(2)).sum();
    let percentile = |share: f64| {
        let place = share * (count - 1.0);
        let (below, above) = (sorted[place as usize], sorted[place.ceil() as usize]);
        below + (above - below) * place.fract()
    };
    Some(Estimate {
        value,
        error: (squares / (count - 1.0)).sqrt(),
        low: percentile(0.025),
        high: percentile(0.975),
    })
}

/// What is drawn: rows, or whole groups of them.
struct Units {
    count: usize,
    /// The group of each row, from 0 in the order of their first rows; `None`: each row is one.
    group: Option<Vec<u32>>,
}

/// How often each row is in a resample, and each group.
struct Counts {
    rows: Vec<u32>,
    groups: Option<Vec<u32>>,
}

impl Units {
    fn of(rows: &Rows<'_>) -> Self {
        let mut count = rows.labels.len();
        let group = rows.groups.map(|groups| {
            let mut numbers = std::collections::HashMap::new();
            let numbered: Vec<u32> = groups
                .iter()
                .map(|&group| {
                    let next = numbers.len() as u32;
                    *numbers.entry(group).or_insert(next)
                })
                .collect();
            count = numbers.len();
            numbered
        });
        Self { count, group }
    }

    fn unit(&self, row: usize) -> usize {
        self.group.as_ref().map_or(row, |group| group[row] as usize)
    }

    fn once(&self) -> Counts {
        self.counts(vec![1; self.count])
    }

    fn draw(&self, seed: u64, resample: u64) -> Counts {
        let mut stream = rng(seed, Purpose::Bootstrap, resample, 0);
        let mut counts = vec![0u32; self.count];
        for _ in 0..self.count {
            counts[stream.random_range(0..self.count as u32) as usize] += 1;
        }
        self.counts(counts)
    }

    fn counts(&self, units: Vec<u32>) -> Counts {
        match &self.group {
            None => Counts {
                rows: units,
                groups: None,
            },
            Some(group) => Counts {
                rows: group.iter().map(|&group| units[group as usize]).collect(),
                groups: Some(units),
            },
        }
    }
}

/// The rows of a model as resamples need them.
struct Scored {
    /// In the order of the rows.
    rows: Vec<ScoredRow>,
    /// Of clicks, by rising prediction.
    sorted: Vec<SortedRow>,
    /// Of each group with both classes: which it is, its weight, and that times its AUC.
    groups: Vec<(usize, f64, f64)>,
    is_probability: bool,
}

/// Each but the bin times the weight of the row.
struct ScoredRow {
    weight: f64,
    loss: f64,
    absolute: f64,
    prediction: f64,
    label: f64,
    bin: usize,
}

struct SortedRow {
    row: u32,
    /// Whether the next prediction is another one.
    ends_tie: bool,
    is_click: bool,
    weight: f64,
}

impl Scored {
    fn of(rows: &Rows<'_>, predictions: &[f64], units: &Units) -> Self {
        let row = |(row, &prediction): (usize, &f64)| {
            let (weight, label) = (rows.weight(row), f64::from(rows.labels[row]));
            let bin = (prediction * ECE_BINS as f64) as usize;
            ScoredRow {
                weight,
                loss: weight * rows.loss(row, prediction),
                absolute: weight * (prediction - label).abs(),
                prediction: weight * prediction,
                label: weight * label,
                bin: bin.min(ECE_BINS - 1),
            }
        };
        let mut scored = Self {
            rows: predictions.iter().enumerate().map(row).collect(),
            sorted: Vec::new(),
            groups: Vec::new(),
            is_probability: rows.is_probability,
        };
        if rows.is_probability {
            let mut order: Vec<u32> = (0..predictions.len() as u32).collect();
            scored.sorted = sorted(rows, predictions, &mut order);
            if units.group.is_some() {
                let mut of_group = vec![Vec::new(); units.count];
                for row in 0..predictions.len() {
                    of_group[units.unit(row)].push(row as u32);
                }
                for (group, mut order) in of_group.into_iter().enumerate() {
                    let all = sorted(rows, predictions, &mut order);
                    let weight: f64 = all.iter().map(|row| row.weight).sum();
                    let auc = auc(&all, |_| 1);
                    if auc.is_finite() {
                        scored.groups.push((group, weight, weight * auc));
                    }
                }
            }
        }
        scored
    }

    fn measure(&self, counts: &Counts) -> Measured {
        let mut measured = Measured {
            auc: f64::NAN,
            gauc: f64::NAN,
            ..Measured::default()
        };
        let mut bins = [0.0; ECE_BINS];
        for (row, &count) in self.rows.iter().zip(&counts.rows) {
            let count = f64::from(count);
            measured.weight += count * row.weight;
            measured.loss += count * row.loss;
            measured.absolute += count * row.absolute;
            measured.predictions += count * row.prediction;
            measured.labels += count * row.label;
            bins[row.bin] += count * (row.prediction - row.label);
        }
        measured.ece = bins.iter().map(|bin| bin.abs()).sum();
        if self.is_probability {
            measured.auc = auc(&self.sorted, |row| counts.rows[row as usize]);
        }
        if let Some(counts) = &counts.groups {
            let (mut sum, mut weight) = (0.0, 0.0);
            for &(group, of_group, times_auc) in &self.groups {
                let count = f64::from(counts[group]);
                sum += count * times_auc;
                weight += count * of_group;
            }
            measured.gauc = sum / weight;
        }
        measured
    }
}

fn sorted(rows: &Rows<'_>, predictions: &[f64], order: &mut [u32]) -> Vec<SortedRow> {
    let of = |row: u32| predictions[row as usize];
    order.sort_unstable_by(|&a, &b| of(a).total_cmp(&of(b)).then(a.cmp(&b)));
    let next = order.iter().skip(1).map(|&row| Some(of(row)));
    order
        .iter()
        .zip(next.chain([None]))
        .map(|(&row, next)| SortedRow {
            row,
            ends_tie: next != Some(of(row)),
            is_click: rows.labels[row as usize] > 0.5,
            weight: rows.weight(row as usize),
        })
        .collect()
}

/// The share of pairs of a click and a non-click that are in order, ties one half, each row counted as
/// often as `count` says; not a number with one class.
fn auc(sorted: &[SortedRow], count: impl Fn(u32) -> u32) -> f64 {
    let (mut clicks, mut non_clicks, mut ordered) = (0.0, 0.0, 0.0);
    let mut tied = [0.0; 2];
    for row in sorted {
        tied[usize::from(row.is_click)] += f64::from(count(row.row)) * row.weight;
        if row.ends_tie {
            ordered += tied[1] * (non_clicks + 0.5 * tied[0]);
            clicks += tied[1];
            non_clicks += tied[0];
            tied = [0.0; 2];
        }
    }
    let pairs: f64 = clicks * non_clicks;
    if pairs > 0.0 {
        // Sums of weights round: the quotient may pass 1 by an ulp.
        (ordered / pairs).min(1.0)
    } else {
        f64::NAN
    }
}

/// Sums of a resample.
#[derive(Default)]
struct Measured {
    weight: f64,
    loss: f64,
    absolute: f64,
    predictions: f64,
    labels: f64,
    ece: f64,
    auc: f64,
    gauc: f64,
}

impl Measured {
    /// Not a number where it is not defined.
    fn figure(&self, figure: Figure) -> f64 {
        let mean = self.loss / self.weight;
        match figure {
            Figure::Logloss => mean,
            Figure::Auc => self.auc,
            Figure::Gauc => self.gauc,
            Figure::NormalizedEntropy => {
                let rate = self.labels / self.weight;
                mean / (-rate * rate.ln() - (1.0 - rate) * (-rate).ln_1p())
            }
            Figure::Calibration => self.predictions / self.labels,
            Figure::Ece => self.ece / self.weight,
            Figure::Rmse => mean.sqrt(),
            Figure::Mae => self.absolute / self.weight,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use crossfield_core::metrics::{Kind, Metrics};
    use crossfield_core::rng::Purpose;

    /// Labels drawn from the predictions of the first model; the second is off by noise.
    fn clicks(rows: usize, seed: u64) -> (Vec<f32>, [Vec<f64>; 2]) {
        let mut stream = rng(seed, Purpose::Synth, 9, 0);
        let mut labels = Vec::new();
        let mut predictions = [Vec::new(), Vec::new()];
        for _ in 0..rows {
            // In f32, as the reference reads them; rounded, so that there are ties.
            let truth = f64::from((stream.random_range(1..40) as f32) / 40.0);
            labels.push(f32::from(u8::from(stream.random_bool(truth))));
            predictions[0].push(truth);
            let other = 0.7 * truth + 0.3 * stream.random::<f64>();
            predictions[1].push(f64::from(other as f32));
        }
        (labels, predictions)
    }

    fn plain(labels: &[f32]) -> Rows<'_> {
        Rows {
            labels,
            weights: None,
            groups: None,
            is_probability: true,
        }
    }

    #[test]
    fn figures_of_all_rows_are_those_of_metrics() {
        let (labels, [predictions, _]) = clicks(300, 1);
        let weights: Vec<f32> = (0..300).map(|row| (row % 4) as f32 / 2.0).collect();
        let groups: Vec<u32> = (0..300).map(|row| row * 7 % 23).collect();
        let rows = Rows {
            weights: Some(&weights),
            groups: Some(&groups),
            ..plain(&labels)
        };
        let compared = Comparison::of(rows, &[&predictions], 2, 1).unwrap();
        let mut metrics = Metrics::new(Kind::Probabilities);
        let floats: Vec<f32> = predictions.iter().map(|&p| p as f32).collect();
        metrics
            .update(&floats, &labels, Some(&weights), Some(&groups))
            .unwrap();
        let expected = metrics.finish();
        for (figure, expected) in [
            (Figure::Logloss, expected.logloss),
            (Figure::Auc, expected.auc),
            (Figure::Gauc, expected.gauc),
            (Figure::NormalizedEntropy, expected.normalized_entropy),
            (Figure::Calibration, expected.calibration),
            (Figure::Ece, expected.ece),
        ] {
            let got = compared.estimate(0, figure).unwrap().value;
            assert_relative_eq!(got, expected.unwrap(), epsilon = 1e-12);
        }
        assert_eq!(compared.units(), 23);

        let ratings = Rows {
            labels: &[4.0, 2.0],
            weights: Some(&[3.0, 1.0]),
            groups: None,
            is_probability: false,
        };
        let compared = Comparison::of(ratings, &[&[3.0, 5.0]], 9, 1).unwrap();
        let value = |figure| compared.estimate(0, figure).unwrap().value;
        assert_eq!(
            (value(Figure::Rmse), value(Figure::Mae)),
            (3f64.sqrt(), 1.5)
        );
    }

    #[test]
    fn a_resample_is_measured_as_its_rows_repeated() {
        let (labels, [predictions, _]) = clicks(60, 2);
        let rows = plain(&labels);
        let units = Units::of(&rows);
        let counts = units.draw(5, 3);
        assert_eq!(counts.rows.iter().sum::<u32>(), 60);
        let measured = Scored::of(&rows, &predictions, &units).measure(&counts);
        let mut metrics = Metrics::new(Kind::Probabilities);
        for (row, &count) in counts.rows.iter().enumerate() {
            for _ in 0..count {
                let (prediction, label) = (predictions[row] as f32, labels[row]);
                metrics.update(&[prediction], &[label], None, None).unwrap();
            }
        }
        let expected = metrics.finish();
        assert_relative_eq!(measured.figure(Figure::Auc), expected.auc.unwrap());
        let logloss = expected.logloss.unwrap();
        assert_relative_eq!(measured.figure(Figure::Logloss), logloss, epsilon = 1e-12);
        let ece = expected.ece.unwrap();
        assert_relative_eq!(measured.figure(Figure::Ece), ece, epsilon = 1e-12);
    }

    #[test]
    fn the_error_of_a_paired_mean_is_the_closed_form() {
        let (labels, [one, other]) = clicks(500, 3);
        let groups: Vec<u32> = (0..500).map(|row| row / 5).collect();
        for groups in [None, Some(&groups[..])] {
            let rows = Rows {
                groups,
                ..plain(&labels)
            };
            let closed = paired(rows, &other, &one).unwrap();
            let compared = Comparison::of(rows, &[&one, &other], 2000, 1).unwrap();
            let drawn = compared.difference(1, 0, Figure::Logloss).unwrap();
            let (drawn_error, closed_error) = (drawn.estimate.error, closed.estimate.error);
            // A standard deviation of 2000 draws is itself known to 1.6 %.
            assert_relative_eq!(drawn_error, closed_error, max_relative = 0.06);
            let (drawn, closed) = (drawn.estimate.value, closed.estimate.value);
            assert_relative_eq!(drawn, closed, epsilon = 1e-12);
        }
    }

    #[test]
    fn nineteen_intervals_of_twenty_hold_the_truth() {
        // The absolute error of a uniform residual in [0, 1) is ½ in the mean.
        let mut held = 0;
        for seed in 0..200 {
            let mut stream = rng(seed, Purpose::Synth, 10, 0);
            let labels = vec![0.0; 80];
            let predictions: Vec<f64> = (0..80).map(|_| stream.random()).collect();
            let rows = Rows {
                is_probability: false,
                ..plain(&labels)
            };
            let compared = Comparison::of(rows, &[&predictions], 200, seed).unwrap();
            let mae = compared.estimate(0, Figure::Mae).unwrap();
            held += usize::from((mae.low..=mae.high).contains(&0.5));
        }
        assert!((180..=198).contains(&held), "{held} of 200");
    }

    #[test]
    fn rows_of_a_group_are_drawn_together() {
        let labels = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0];
        let groups = [4, 4, 9, 9, 2, 2];
        let units = Units::of(&Rows {
            groups: Some(&groups),
            ..plain(&labels)
        });
        for resample in 0..20 {
            let counts = units.draw(1, resample).rows;
            assert!(
                counts.chunks(2).all(|pair| pair[0] == pair[1]),
                "{counts:?}"
            );
            assert_eq!(counts.iter().sum::<u32>(), 6);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bits_at_any_number_of_threads() {
        let (labels, [one, other]) = clicks(100, 4);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let compared = Comparison::of(plain(&labels), &[&one, &other], 50, 7).unwrap();
                compared.difference(1, 0, Figure::Auc)
            })
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn models_that_predict_alike_do_not_differ() {
        let (labels, [one, _]) = clicks(100, 5);
        let compared = Comparison::of(plain(&labels), &[&one, &one], 100, 1).unwrap();
        let difference = compared.difference(0, 1, Figure::Logloss).unwrap();
        assert_eq!((difference.estimate.value, difference.p), (0.0, 1.0));
        assert_eq!(paired(plain(&labels), &one, &one).unwrap().p, 1.0);
    }

    #[test]
    fn one_class_has_no_auc_and_a_prediction_that_is_no_number_is_refused_by_row() {
        let compared = Comparison::of(plain(&[1.0, 1.0]), &[&[0.5, 0.75]], 10, 1).unwrap();
        assert_eq!(compared.estimate(0, Figure::Auc), None);
        assert!(compared.estimate(0, Figure::Logloss).is_some());
        let error = Comparison::of(plain(&[1.0, 0.0]), &[&[0.5, f64::NAN]], 10, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "prediction NaN of row 1: expected a finite number"
        );
        let error = Comparison::of(plain(&[1.0, 0.0]), &[&[0.5]], 10, 1).unwrap_err();
        assert_eq!(error.to_string(), "predictions of 1 rows: expected 2");
    }
}
