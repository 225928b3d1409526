//! The prior of the blocks of a side, drawn from the blocks.

use crossfield_simd::Isa;
use rand::{Rng, RngExt};
use rand_distr::{Gamma, StandardNormal};

use crate::dense::System;

/// How many blocks the prior of the mean counts as, β₀.
const PRIOR_BLOCKS: f64 = 1.0;
/// Degrees of freedom of the gamma prior of the precision of the noise: its shape is half of it.
const PRIOR_SHAPE: f64 = 1.0;
/// Twice the rate of that prior.
const PRIOR_RATE: f64 = 1.0;

/// Draws `α ~ Gamma((1 + n)/2, rate (1 + Σ (r − ŷ)²)/2)`, the precision of the noise.
pub(crate) fn draw_alpha(ratings: usize, squares: f64, rng: &mut impl Rng) -> f64 {
    gamma(PRIOR_SHAPE + ratings as f64, PRIOR_RATE + squares, rng)
}

/// A draw from the gamma distribution of shape `twice_shape / 2` and rate `twice_rate / 2`.
fn gamma(twice_shape: f64, twice_rate: f64, rng: &mut impl Rng) -> f64 {
    match Gamma::new(0.5 * twice_shape, 2.0 / twice_rate) {
        Ok(gamma) => rng.sample(gamma),
        // Squares beyond f64: the equations that follow are not finite, and say so.
        Err(_) => f64::NAN,
    }
}

/// Mean and precision matrix of a normal distribution.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Normal {
    pub(crate) mean: Vec<f64>,
    /// `[size, size]`, row-major.
    pub(crate) precision: Vec<f64>,
}

impl Normal {
    /// Draws the prior of blocks `x` of length D from their posterior under a Gaussian–Wishart
    /// prior, `μ ~ N(0, (β₀ Λ)⁻¹)`, `Λ ~ Wishart(I, D)`:
    ///
    /// ```text
    /// V = I + Σ (x − x̄)(x − x̄)ᵀ + x̄ x̄ᵀ β₀ n/(β₀ + n)
    /// Λ ~ Wishart(V⁻¹, D + n)
    /// μ ~ N(x̄ n/(β₀ + n), ((β₀ + n) Λ)⁻¹)
    /// ```
    ///
    /// Salakhutdinov, Mnih, Bayesian probabilistic matrix factorization using Markov chain Monte
    /// Carlo, ICML 2008, equation 14. `None` if the numbers are too large for a draw.
    pub(crate) fn draw<'a>(
        size: usize,
        blocks: impl Iterator<Item = &'a [f32]>,
        rng: &mut impl Rng,
    ) -> Option<Self> {
        let (mut count, mut sum) = (0.0, vec![0.0; size]);
        let mut squares = vec![0.0; size * size];
        for block in blocks {
            count += 1.0;
            for i in 0..size {
                let x = f64::from(block[i]);
                sum[i] += x;
                let row = &mut squares[i * size..][..=i];
                for (square, &other) in row.iter_mut().zip(block) {
                    *square += x * f64::from(other);
                }
            }
        }
        let total = PRIOR_BLOCKS + count;
        // V, lower triangle: n x̄ x̄ᵀ − x̄ x̄ᵀ β₀ n/(β₀ + n) = s sᵀ/(β₀ + n), s being the sum.
        for i in 0..size {
            for j in 0..=i {
                squares[i * size + j] -= sum[i] * sum[j] / total;
            }
            squares[i * size + i] += 1.0;
        }
        let c = cholesky(size, squares)?;
        // Bartlett: T Tᵀ ~ Wishart(I, ν) for T lower triangular with T_ii² ~ χ²(ν − i) and normal
        // numbers below. With V = C Cᵀ and B = C⁻ᵀ T, Λ = B Bᵀ.
        let mut t = vec![0.0; size * size];
        for i in 0..size {
            for j in 0..i {
                t[i * size + j] = normal(rng);
            }
            let freedom = size as f64 + count - i as f64;
            t[i * size + i] = gamma(freedom, 1.0, rng).sqrt();
        }
        let mut b = t.clone();
        for i in (0..size).rev() {
            let (above, below) = b.split_at_mut((i + 1) * size);
            let row = &mut above[i * size..];
            for (m, below) in (i + 1..size).zip(below.chunks(size)) {
                let factor = c[m * size + i];
                for j in 0..size {
                    row[j] -= factor * below[j];
                }
            }
            row.iter_mut().for_each(|value| *value /= c[i * size + i]);
        }
        let mut precision = vec![0.0; size * size];
        for i in 0..size {
            for j in 0..=i {
                let (x, y) = (&b[i * size..][..size], &b[j * size..][..size]);
                let dot: f64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
                precision[i * size + j] = dot;
                precision[j * size + i] = dot;
            }
        }
        // Λ⁻¹ = (C T⁻ᵀ)(C T⁻ᵀ)ᵀ.
        let mut noise: Vec<f64> = (0..size).map(|_| normal(rng)).collect();
        for i in (0..size).rev() {
            for m in i + 1..size {
                noise[i] -= t[m * size + i] * noise[m];
            }
            noise[i] /= t[i * size + i];
        }
        let mean = (0..size)
            .map(|i| {
                let row = &c[i * size..][..=i];
                let step: f64 = row.iter().zip(&noise).map(|(c, x)| c * x).sum();
                sum[i] / total + step / total.sqrt()
            })
            .collect();
        Some(Self { mean, precision })
    }

    /// The equations `Λ x = Λ μ`.
    pub(crate) fn system(&self, isa: Isa) -> System {
        let size = self.mean.len();
        let mut system = System::new(size, isa);
        for (i, row) in self.precision.chunks(size).enumerate() {
            let right: f64 = row.iter().zip(&self.mean).map(|(p, mean)| p * mean).sum();
            system.right_mut()[i] = right as f32;
            for (j, &value) in row.iter().enumerate().skip(i) {
                system.add_element(i, j, value as f32);
            }
        }
        system
    }
}

fn normal(rng: &mut impl Rng) -> f64 {
    rng.sample(StandardNormal)
}

/// C, lower triangular, of `V = C Cᵀ`; reads the lower triangle of V. `None` if there is none.
fn cholesky(size: usize, mut v: Vec<f64>) -> Option<Vec<f64>> {
    for i in 0..size {
        for j in 0..=i {
            let (x, y) = (&v[i * size..][..j], &v[j * size..][..j]);
            let done: f64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
            let sum = v[i * size + j] - done;
            if i != j {
                v[i * size + j] = sum / v[j * size + j];
            } else if sum > 0.0 && sum.is_finite() {
                v[i * size + i] = sum.sqrt();
            } else {
                return None;
            }
        }
        v[i * size + i + 1..(i + 1) * size].fill(0.0);
    }
    Some(v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfield_core::rng::{Purpose, rng};

    #[test]
    fn draws_of_the_prior_have_the_moments_of_a_gaussian_wishart() {
        // Four blocks: n = 4, x̄ = (1, 0.5), Σ (x − x̄)(x − x̄)ᵀ = (4 2; 2 5).
        let blocks: [[f32; 2]; 4] = [[2.0, 2.0], [2.0, 0.0], [0.0, 1.0], [0.0, -1.0]];
        // V = I + S + x̄ x̄ᵀ 4/5 = (5.8 2.4; 2.4 6.2), ν = 2 + 4.
        let determinant = 5.8 * 6.2 - 2.4 * 2.4;
        let w = [6.2 / determinant, -2.4 / determinant, 5.8 / determinant];
        let mut rng = rng(2, Purpose::Gibbs, 0, 0);
        let draws = 40_000;
        let mut precision = [0.0; 3];
        let mut mean = [0.0; 2];
        let mut standard = [0.0; 3];
        for _ in 0..draws {
            let blocks = blocks.iter().map(|block| &block[..]);
            let normal = Normal::draw(2, blocks, &mut rng).unwrap();
            let p = &normal.precision;
            assert_eq!(p[1], p[2]);
            for (sum, p) in precision.iter_mut().zip([p[0], p[1], p[3]]) {
                *sum += p / f64::from(draws);
            }
            let d = [normal.mean[0] - 0.8, normal.mean[1] - 0.4];
            for (sum, d) in mean.iter_mut().zip(d) {
                *sum += d / f64::from(draws);
            }
            // (μ − μ*) has precision 5 Λ given Λ: the products of Λ d and d are those of I / 5.
            let pd = [p[0] * d[0] + p[1] * d[1], p[2] * d[0] + p[3] * d[1]];
            let products = [pd[0] * d[0], pd[0] * d[1], pd[1] * d[1]];
            for (sum, product) in standard.iter_mut().zip(products) {
                *sum += product / f64::from(draws);
            }
        }
        for (got, w) in precision.iter().zip(w) {
            // E Λ = ν W; its elements have a standard deviation of about √(2 ν) W = 0.7.
            assert!((got - 6.0 * w).abs() < 0.015, "{got} {}", 6.0 * w);
        }
        for got in mean {
            assert!(got.abs() < 0.01, "{got}");
        }
        for (got, expected) in standard.iter().zip([0.2, 0.0, 0.2]) {
            assert!((got - expected).abs() < 0.01, "{got} {expected}");
        }
    }

    #[test]
    fn alpha_has_the_mean_of_its_gamma_distribution() {
        let mut rng = rng(3, Purpose::Gibbs, 0, 0);
        let draws = 20_000;
        let sum: f64 = (0..draws).map(|_| draw_alpha(9, 4.0, &mut rng)).sum();
        // Shape (1 + 9)/2, rate (1 + 4)/2; the standard deviation is 0.9.
        assert!((sum / f64::from(draws) - 2.0).abs() < 0.03);
        assert!(draw_alpha(9, f64::INFINITY, &mut rng).is_nan());
    }

    #[test]
    fn blocks_beyond_f64_have_no_prior() {
        let mut rng = rng(3, Purpose::Gibbs, 0, 0);
        let block = [f32::INFINITY];
        assert_eq!(Normal::draw(1, [&block[..]].into_iter(), &mut rng), None);
    }
}
