//! Normal variables of which only the sign is known.

use rand::{Rng, RngExt};
use rand_distr::{Exp1, StandardNormal};
use std::f64::consts::{PI, SQRT_2};

/// Draws from the normal distribution of the given mean and variance 1, cut to positive numbers.
///
/// # Source
/// Robert, Simulation of truncated normal variables, 1995: the normal itself where it is likely
/// to be positive, a shifted exponential as proposal in the tail.
pub(crate) fn draw_positive(mean: f64, rng: &mut impl Rng) -> f64 {
    if mean > -0.4 {
        loop {
            let value = mean + rng.sample::<f64, _>(StandardNormal);
            if value > 0.0 {
                return value;
            }
        }
    }
    let rate = 0.5 * (-mean + (mean * mean + 4.0).sqrt());
    loop {
        let value = rng.sample::<f64, _>(Exp1) / rate;
        let off = value - mean - rate;
        if value > 0.0 && rng.random::<f64>() < (-0.5 * off * off).exp() {
            return value;
        }
    }
}

/// The mean of that distribution, `m + φ(m) / Φ(m)`.
pub(crate) fn mean_positive(mean: f64) -> f64 {
    if mean > -30.0 {
        let density = (-0.5 * mean * mean).exp() / (2.0 * PI).sqrt();
        mean + density / (0.5 * libm::erfc(-mean / SQRT_2))
    } else {
        // The sum above would cancel: its expansion in 1 / m.
        let inverse = -1.0 / mean;
        inverse * (1.0 - 2.0 * inverse * inverse)
    }
}

/// `−ln Φ(z)`, finite for any finite z.
pub(crate) fn negative_log_normal(z: f64) -> f64 {
    if z > -30.0 {
        -(0.5 * libm::erfc(-z / SQRT_2)).ln()
    } else {
        0.5 * z * z + (-z).ln() + 0.5 * (2.0 * PI).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use crossfield_core::rng::{Purpose, rng};

    #[test]
    fn draws_have_the_moments_of_the_cut_normal() {
        for mean in [-8.0, -2.0, -0.41, -0.39, 0.0, 1.5, 6.0] {
            let mut rng = rng(5, Purpose::Gibbs, 0, 0);
            let draws: Vec<f64> = (0..40_000).map(|_| draw_positive(mean, &mut rng)).collect();
            assert!(draws.iter().all(|&draw| draw > 0.0 && draw.is_finite()));
            let first = draws.iter().sum::<f64>() / 40_000.0;
            let second = draws.iter().map(|draw| draw * draw).sum::<f64>() / 40_000.0;
            // E t² = 1 + m E t, since the density satisfies p' = (m − t) p on t > 0.
            let expected = mean_positive(mean);
            let variance = 1.0 + mean * expected - expected * expected;
            // Four standard errors of a mean of 40,000.
            assert!(
                (first - expected).abs() < 4.0 * (variance / 40_000.0).sqrt(),
                "{mean}"
            );
            assert_relative_eq!(second, 1.0 + mean * expected, max_relative = 0.05);
        }
    }

    #[test]
    fn the_mean_is_known_at_zero_and_goes_as_one_over_m() {
        // √(2/π)
        assert_relative_eq!(mean_positive(0.0), 0.797_884_560_8, epsilon = 1e-10);
        assert_relative_eq!(
            mean_positive(-29.999),
            mean_positive(-30.001),
            max_relative = 1e-4
        );
        assert_relative_eq!(mean_positive(-1e6), 1e-6, max_relative = 1e-9);
        assert_relative_eq!(mean_positive(50.0), 50.0);
    }

    #[test]
    fn the_log_of_the_normal_is_finite_far_out() {
        assert_relative_eq!(negative_log_normal(0.0), 2f64.ln());
        assert_relative_eq!(
            negative_log_normal(-29.999),
            negative_log_normal(-30.001),
            max_relative = 2e-4
        );
        assert!(negative_log_normal(-1e8).is_finite());
        assert_eq!(negative_log_normal(1e8), 0.0);
    }
}
