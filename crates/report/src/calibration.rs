//! What was predicted against what happened: reliability, ROC curves, residuals.

use crate::Rows;

/// Rows of about the same prediction.
///
/// ```
/// let bin = crossfield_report::Bin { rows: 10, predicted: 0.2, observed: 0.3, low: 0.1, high: 0.6 };
/// assert!(bin.low <= bin.predicted && bin.predicted <= bin.high);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// How many there are.
    pub rows: usize,
    /// Their mean prediction.
    pub predicted: f64,
    /// Their mean label.
    pub observed: f64,
    /// Lower end of the 95 % interval of the mean label.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Rows by rising prediction, cut into about `bins` groups of as many rows each; rows of one prediction
/// stay together. Intervals are Wilson's for clicks, `mean ± 1.96 SE` for ratings; with weights they are
/// of `(Σ w)² / Σ w²` rows.
///
/// # Shapes
/// - predictions: `[rows]`
///
/// # Source
/// Wilson, *Probable Inference, the Law of Succession, and Statistical Inference* (1927). Groups of as
/// many rows each: Naeini, Cooper, Hauskrecht, *Obtaining Well Calibrated Probabilities Using Bayesian
/// Binning* (2015), who call them equal frequency.
///
/// ```
/// use crossfield_report::{Rows, reliability};
///
/// let rows = Rows { labels: &[0., 0., 1., 0., 1., 1.], weights: None, groups: None, is_probability: true };
/// let bins = reliability(rows, &[0.1, 0.2, 0.3, 0.6, 0.8, 0.9], 2);
/// assert_eq!((bins.len(), bins[0].rows, bins[0].observed), (2, 3, 1.0 / 3.0));
/// ```
pub fn reliability(rows: Rows<'_>, predictions: &[f64], bins: usize) -> Vec<Bin> {
    let mut order: Vec<usize> = (0..predictions.len()).collect();
    order.sort_by(|&a, &b| predictions[a].total_cmp(&predictions[b]));
    let mut found = Vec::new();
    let mut from = 0;
    for bin in 1..=bins {
        let mut to = (order.len() * bin / bins).max(from);
        if to == from {
            continue;
        }
        while to < order.len() && predictions[order[to]] == predictions[order[to - 1]] {
            to += 1;
        }
        found.extend(bin_of(rows, predictions, &order[from..to]));
        from = to;
    }
    found
}

fn bin_of(rows: Rows<'_>, predictions: &[f64], of: &[usize]) -> Option<Bin> {
    let weight = |row: usize| rows.weights.map_or(1.0, |w| f64::from(w[row]));
    let label = |row: usize| f64::from(rows.labels[row]);
    let sum = |value: &dyn Fn(usize) -> f64| of.iter().map(|&row| value(row)).sum::<f64>();
    let (all, squares) = (sum(&weight), sum(&|row| weight(row).powi(2)));
    if all <= 0.0 {
        return None;
    }
    let predicted = sum(&|row| weight(row) * predictions[row]) / all;
    let observed = sum(&|row| weight(row) * label(row)) / all;
    let (count, z) = (all * all / squares, 1.96f64);
    let (middle, half) = if rows.is_probability {
        let scale = 1.0 + z * z / count;
        let spread = observed * (1.0 - observed) / count + (z / (2.0 * count)).powi(2);
        (
            (observed + z * z / (2.0 * count)) / scale,
            z * spread.sqrt() / scale,
        )
    } else {
        let variance = sum(&|row| weight(row) * (label(row) - observed).powi(2)) / all;
        (observed, z * (variance / (count - 1.0).max(1.0)).sqrt())
    };
    Some(Bin {
        rows: of.len(),
        predicted,
        observed,
        low: middle - half,
        high: middle + half,
    })
}

/// The ROC curve: for each threshold the share of non-clicks at or above it, and that of clicks. Of a
/// long curve only points that lie apart are kept; the ends always are. Empty with one class.
///
/// # Shapes
/// - predictions: `[rows]`
///
/// # Source
/// Fawcett, *An introduction to ROC analysis* (2006), algorithm 1.
///
/// ```
/// use crossfield_report::{Rows, roc};
///
/// let rows = Rows { labels: &[1., 0., 1.], weights: None, groups: None, is_probability: true };
/// let curve = roc(rows, &[0.9, 0.5, 0.5]);
/// assert_eq!(curve, [[0.0, 0.0], [0.0, 0.5], [1.0, 1.0]]);
/// ```
pub fn roc(rows: Rows<'_>, predictions: &[f64]) -> Vec<[f64; 2]> {
    /// Points that are nearer are not told apart on a page.
    const APART: f64 = 1.0 / 200.0;
    let mut order: Vec<usize> = (0..predictions.len()).collect();
    order.sort_by(|&a, &b| predictions[b].total_cmp(&predictions[a]));
    let weight = |row: usize| rows.weights.map_or(1.0, |w| f64::from(w[row]));
    let mut totals = [0.0; 2];
    for &row in &order {
        totals[usize::from(rows.labels[row] > 0.5)] += weight(row);
    }
    if totals.contains(&0.0) {
        return Vec::new();
    }
    let (mut above, mut kept) = ([0.0; 2], vec![[0.0, 0.0]]);
    for tied in order.chunk_by(|&a, &b| predictions[a] == predictions[b]) {
        for &row in tied {
            above[usize::from(rows.labels[row] > 0.5)] += weight(row);
        }
        let point = [above[0] / totals[0], above[1] / totals[1]];
        let last = kept[kept.len() - 1];
        if (point[0] - last[0]).abs() + (point[1] - last[1]).abs() >= APART {
            kept.push(point);
        }
    }
    if kept[kept.len() - 1] != [1.0, 1.0] {
        kept.push([1.0, 1.0]);
    }
    kept
}

/// The share of rows whose residual, label − prediction, lies in each of `bins` steps of equal width
/// between the largest residuals on both sides: `[middle of the step, share]`.
///
/// # Shapes
/// - predictions: `[rows]`
///
/// ```
/// use crossfield_report::{Rows, residuals};
///
/// let rows = Rows { labels: &[1., 3., 4.], weights: None, groups: None, is_probability: false };
/// // Residuals −1, 1 and 1: two steps, of −1 to 0 and of 0 to 1.
/// let steps = residuals(rows, &[2.0, 2.0, 3.0], 2);
/// assert_eq!(steps, [[-0.5, 1.0 / 3.0], [0.5, 2.0 / 3.0]]);
/// ```
pub fn residuals(rows: Rows<'_>, predictions: &[f64], bins: usize) -> Vec<[f64; 2]> {
    let residual = |row: usize| f64::from(rows.labels[row]) - predictions[row];
    let all = 0..predictions.len();
    let most = all
        .clone()
        .map(|row| residual(row).abs())
        .fold(0.0, f64::max);
    if most == 0.0 {
        return vec![[0.0, 1.0]];
    }
    let width = 2.0 * most / bins as f64;
    let (mut sums, mut total) = (vec![0.0; bins], 0.0);
    for row in all {
        let weight = rows.weights.map_or(1.0, |w| f64::from(w[row]));
        let bin = ((residual(row) + most) / width) as usize;
        sums[bin.min(bins - 1)] += weight;
        total += weight;
    }
    let steps = sums.iter().enumerate();
    steps
        .map(|(bin, sum)| [-most + (bin as f64 + 0.5) * width, sum / total])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Comparison, Figure};
    use approx::assert_relative_eq;
    use proptest::prelude::*;

    fn rows(labels: &[f32]) -> Rows<'_> {
        Rows {
            labels,
            weights: None,
            groups: None,
            is_probability: true,
        }
    }

    #[test]
    fn wilsons_interval_by_hand() {
        // 2 of 10: (0.2 + 0.19208) / 1.38416 ± 1.96 √(0.016 + 0.009604) / 1.38416.
        let labels = [1., 1., 0., 0., 0., 0., 0., 0., 0., 0.];
        let bins = reliability(rows(&labels), &[0.25; 10], 4);
        assert_eq!(bins.len(), 1);
        assert_eq!((bins[0].rows, bins[0].predicted), (10, 0.25));
        assert_relative_eq!(bins[0].low, 0.0567, epsilon = 1e-4);
        assert_relative_eq!(bins[0].high, 0.5098, epsilon = 1e-4);
    }

    #[test]
    fn rows_of_one_prediction_are_in_one_bin_and_each_row_is_in_some() {
        let predictions = [0.5, 0.1, 0.5, 0.5, 0.9, 0.5];
        let bins = reliability(rows(&[0., 0., 1., 0., 1., 1.]), &predictions, 3);
        let counts: Vec<usize> = bins.iter().map(|bin| bin.rows).collect();
        assert_eq!(counts, [5, 1]);
    }

    #[test]
    fn ratings_have_the_interval_of_a_mean() {
        let of = Rows {
            is_probability: false,
            ..rows(&[2.0, 4.0])
        };
        let bin = reliability(of, &[3.5, 3.5], 1)[0];
        assert_eq!((bin.observed, bin.low, bin.high), (3.0, 1.04, 4.96));
    }

    #[test]
    fn one_class_has_no_curve() {
        assert!(roc(rows(&[1.0, 1.0]), &[0.1, 0.2]).is_empty());
    }

    proptest! {
        #[test]
        fn the_area_under_the_curve_is_the_auc(
            all in prop::collection::vec((0u8..12, any::<bool>()), 2..80)
        ) {
            let labels: Vec<f32> = all.iter().map(|row| f32::from(u8::from(row.1))).collect();
            let predictions: Vec<f64> = all.iter().map(|row| f64::from(row.0) / 16.0).collect();
            let curve = roc(rows(&labels), &predictions);
            let compared = Comparison::of(rows(&labels), &[&predictions], 50, 1).unwrap();
            if let Some(auc) = compared.estimate(0, Figure::Auc) {
                let areas = curve.windows(2).map(|ends| {
                    (ends[1][0] - ends[0][0]) * (ends[1][1] + ends[0][1]) / 2.0
                });
                prop_assert!((areas.sum::<f64>() - auc.value).abs() < 1e-9);
            }
        }
    }
}
