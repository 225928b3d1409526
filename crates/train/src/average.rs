//! Averages of models: how much each counts.

use crossfield_core::metrics::logloss_of_logit;

/// The weights, none negative and 1 in all, under which the average of several models' scores
/// predicts rows best that none of them was trained on: with the least mean logloss of logits, or
/// the least squared error of ratings. Both are convex in the weights, so that there is one best
/// average.
///
/// Mass is moved from one model to another as far as that helps, pair by pair, until no pair helps.
///
/// # Shapes
/// - scores: `[models][rows]`; logits if `logits`, else ratings
/// - labels, row_weights: `[rows]`
///
/// # Panics
/// Without a model, or where lengths differ.
///
/// # Source
/// Averaging logits is the logarithmic opinion pool of Genest and Zidek, Combining Probability
/// Distributions, Statistical Science 1 (1986); fitting its weights on rows of their own is Breiman's
/// stacking, Machine Learning 24 (1996), with his condition that no weight is negative.
///
/// ```
/// // The first is right by half, the second wrong by as much, the third knows nothing.
/// let scores = [vec![1.0, 3.0], vec![3.0, 1.0], vec![9.0, 9.0]];
/// let weights = crossfield_train::average_weights(&scores, &[1.5, 2.5], None, false);
/// let expected = [0.75, 0.25, 0.0];
/// for (weight, expected) in weights.iter().zip(expected) {
///     assert!((weight - expected).abs() < 1e-6, "{weights:?}");
/// }
/// ```
pub fn average_weights(
    scores: &[Vec<f64>],
    labels: &[f32],
    row_weights: Option<&[f32]>,
    logits: bool,
) -> Vec<f64> {
    assert!(!scores.is_empty(), "an average of no models");
    for of_model in scores {
        assert_eq!(of_model.len(), labels.len(), "a score for each label");
    }
    let weight = |row: usize| row_weights.map_or(1.0, |weights| f64::from(weights[row]));
    let loss = |row: usize, score: f64| {
        weight(row)
            * if logits {
                logloss_of_logit(score, labels[row] > 0.5)
            } else {
                (score - f64::from(labels[row])).powi(2)
            }
    };
    let models = scores.len();
    let mut weights = vec![1.0 / models as f64; models];
    let mut mixed = mix(scores, &weights);
    let total = |mixed: &[f64]| -> f64 { (0..mixed.len()).map(|row| loss(row, mixed[row])).sum() };
    let mut before = total(&mixed);
    loop {
        for to in 0..models {
            for from in 0..to {
                let moved = |by: f64| -> f64 {
                    let rows = mixed.iter().zip(&scores[to]).zip(&scores[from]).enumerate();
                    let of_row =
                        |(row, ((&mixed, &to), &from))| loss(row, mixed + by * (to - from));
                    rows.map(of_row).sum()
                };
                let by = least(-weights[to], weights[from], moved);
                weights[to] += by;
                weights[from] -= by;
                mixed = mix(scores, &weights);
            }
        }
        let now = total(&mixed);
        // Sums of losses are only so exact.
        if before - now <= 1e-10 * before.abs() {
            return weights;
        }
        before = now;
    }
}

/// Σ weight × score of each row.
fn mix(scores: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let of_row = |row: usize| {
        let parts = scores.iter().zip(weights);
        parts.map(|(scores, weight)| weight * scores[row]).sum()
    };
    (0..scores[0].len()).map(of_row).collect()
}

/// Where in `[low, high]` a convex function is least: golden sections, and the ends.
fn least(mut low: f64, mut high: f64, at: impl Fn(f64) -> f64) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let ends = [low, high];
    let inside = |low: f64, high: f64| [high - GOLDEN * (high - low), low + GOLDEN * (high - low)];
    let [mut left, mut right] = inside(low, high);
    let (mut at_left, mut at_right) = (at(left), at(right));
    while high - low > 1e-9 {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = inside(low, high)[0];
            at_left = at(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = inside(low, high)[1];
            at_right = at(right);
        }
    }
    let mut best = 0.5 * (low + high);
    for end in ends {
        // A weight that is best at 0 is 0 itself.
        if at(end) <= at(best) {
            best = end;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_helps_nobody_has_no_weight() {
        let good = vec![2.0, -2.0, 1.0, -1.0, 0.5, -1.5];
        let bad: Vec<f64> = good.iter().map(|score| -score).collect();
        let labels = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0];
        let weights = average_weights(&[bad, good], &labels, None, true);
        assert_eq!(weights[0] + weights[1], 1.0);
        assert!(weights[1] > 0.5, "{weights:?}");
        let labels = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0];
        let good = vec![2.0, -2.0, 1.0, -1.0, 0.5, -1.5];
        let bad: Vec<f64> = good.iter().map(|score| -score).collect();
        assert_eq!(
            average_weights(&[bad, good], &labels, None, true),
            [0.0, 1.0]
        );
    }

    #[test]
    fn no_other_weights_of_a_grid_are_better() {
        let of = |scale: f64, shift: f64| -> Vec<f64> {
            (0..40)
                .map(|row| (f64::from(row) * scale).sin() + shift)
                .collect()
        };
        let scores = [of(1.0, 0.2), of(2.3, -0.1), of(0.7, 0.0)];
        let labels: Vec<f32> = (0..40).map(|row| f32::from(row % 3 != 0)).collect();
        let row_weights: Vec<f32> = (0..40).map(|row| 1.0 + (row % 4) as f32).collect();
        let weights = average_weights(&scores, &labels, Some(&row_weights), true);
        let loss = |weights: &[f64]| -> f64 {
            let rows = mix(&scores, weights);
            let of_row = |(row, score): (usize, &f64)| {
                f64::from(row_weights[row]) * logloss_of_logit(*score, labels[row] > 0.5)
            };
            rows.iter().enumerate().map(of_row).sum()
        };
        let least = loss(&weights);
        for a in 0..=20 {
            for b in 0..=20 - a {
                let [a, b] = [a, b].map(|part| f64::from(part) / 20.0);
                assert!(loss(&[a, b, 1.0 - a - b]) >= least - 1e-9, "{weights:?}");
            }
        }
    }

    #[test]
    fn one_model_is_all_of_it() {
        assert_eq!(average_weights(&[vec![1.0]], &[1.0], None, true), [1.0]);
    }
}
