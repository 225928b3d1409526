//! The parameters of one user, or of one item, given all of the other side.

use crossfield_simd::Isa;
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

use crate::dense::{NotPositiveDefinite, Rows, System};
use crate::{Error, RatingsL2};

/// The other side of the ratings, as a block sees it: `ŷ = μ + b_i + (b, p) · (1, q_i)`.
pub(crate) struct Other {
    /// `(1, q_i)`; without biases `q_i`.
    features: Rows,
    /// `μ + b_i`.
    constants: Vec<f32>,
    biases: bool,
}

impl Other {
    /// Of the rows that `which` names; `bias` is empty where the model has none.
    pub(crate) fn new(
        mean: f32,
        bias: &[f32],
        vectors: &[f32],
        dim: usize,
        which: impl ExactSizeIterator<Item = usize>,
    ) -> Self {
        let biases = !bias.is_empty();
        let mut features = Rows::new(which.len(), dim + usize::from(biases));
        let mut constants = Vec::with_capacity(which.len());
        for (at, row) in which.enumerate() {
            let feature = features.row_mut(at);
            if biases {
                feature[0] = 1.0;
            }
            feature[usize::from(biases)..].copy_from_slice(&vectors[row * dim..][..dim]);
            constants.push(mean + bias.get(row).copied().unwrap_or(0.0));
        }
        Self {
            features,
            constants,
            biases,
        }
    }

    /// Parameters of a block.
    pub(crate) fn size(&self) -> usize {
        self.features.size()
    }

    /// Whether the first of them is a bias.
    pub(crate) fn biases(&self) -> bool {
        self.biases
    }
}

/// What a block is before any rating: normal, with precision A and A times the mean.
pub(crate) struct Prior {
    system: System,
    /// α, what a rating counts.
    alpha: f32,
    /// Whether the prior counts once a rating.
    weighted: bool,
    /// Whether a block without ratings is 0, else it is of the prior.
    zero: bool,
}

impl Prior {
    /// L2 as a prior around 0.
    pub(crate) fn ridge(size: usize, biases: bool, l2: RatingsL2, isa: Isa) -> Self {
        let mut system = System::new(size, isa);
        for i in 0..size {
            let bias = biases && i == 0;
            let l2 = if bias { l2.bias_l2 } else { l2.factor_l2 };
            system.add_element(i, i, l2 as f32);
        }
        Self {
            system,
            alpha: 1.0,
            weighted: l2.weighted,
            zero: true,
        }
    }

    /// A normal distribution, as equations for its mean.
    pub(crate) fn normal(system: System, alpha: f32) -> Self {
        Self {
            system,
            alpha,
            weighted: false,
            zero: false,
        }
    }
}

/// Solves one block after the other.
pub(crate) struct Block {
    system: System,
    weights: Vec<f32>,
    targets: Vec<f32>,
}

/// Why a block has no solution.
pub(crate) enum Failure {
    Singular,
    NonFinite,
}

impl Failure {
    /// The error of that user or item.
    pub(crate) fn of(self, what: &'static str, index: usize) -> Error {
        match self {
            Self::Singular => Error::Singular { what, index },
            Self::NonFinite => Error::NonFinite { what, index },
        }
    }
}

impl From<NotPositiveDefinite> for Failure {
    fn from(_: NotPositiveDefinite) -> Self {
        Self::Singular
    }
}

impl Block {
    /// For blocks of `size` parameters.
    pub(crate) fn new(size: usize, isa: Isa) -> Self {
        Self {
            system: System::new(size, isa),
            weights: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// The mean of a block given its ratings, or with random numbers a draw: `(b, p)`.
    pub(crate) fn solve<R: Rng>(
        &mut self,
        other: &Other,
        indices: &[u32],
        ratings: &[f32],
        prior: &Prior,
        noise: Option<&mut R>,
    ) -> Result<&[f32], Failure> {
        let system = &mut self.system;
        if prior.zero && indices.is_empty() {
            system.right_mut().fill(0.0);
            return Ok(system.right());
        }
        let factor = if prior.weighted {
            indices.len() as f32
        } else {
            1.0
        };
        system.start(&prior.system, factor);
        self.weights.clear();
        self.weights.resize(indices.len(), prior.alpha);
        self.targets.clear();
        let targets = indices
            .iter()
            .zip(ratings)
            .map(|(&index, rating)| prior.alpha * (rating - other.constants[index as usize]));
        self.targets.extend(targets);
        system.add(&other.features, indices, &self.weights, &self.targets);
        system.factor()?;
        system.forward();
        if let Some(noise) = noise {
            for value in system.right_mut() {
                *value += noise.sample::<f32, _>(StandardNormal);
            }
        }
        system.backward();
        if system.right().iter().all(|value| value.is_finite()) {
            Ok(system.right())
        } else {
            Err(Failure::NonFinite)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfield_core::rng::{Purpose, rng};

    #[test]
    fn draws_of_a_block_have_the_mean_and_covariance_of_the_posterior() {
        // z = (1, 1) and (1, −1), α = 2, Λ = (2 0; 0 4): A = (6 0; 0 8) but for one more rating
        // of z = (1, 1): A = (8 2; 2 10).
        let other = Other::new(3.0, &[0.5, -0.5], &[1.0, -1.0], 1, [0, 1].into_iter());
        let mut system = System::new(2, Isa::PORTABLE);
        system.add_element(0, 0, 2.0);
        system.add_element(1, 1, 4.0);
        system.right_mut().copy_from_slice(&[1.0, -1.0]);
        let prior = Prior::normal(system, 2.0);
        let mut block = Block::new(2, Isa::PORTABLE);
        let mut noise = rng(1, Purpose::Gibbs, 0, 0);
        let (indices, ratings) = ([0, 1, 0], [4.5, 3.0, 3.0]);
        // Targets 1, 0.5 and −0.5: b = (1, −1) + 2 (1 + 0.5 − 0.5, 1 − 0.5 − 0.5) = (3, −1);
        // A⁻¹ = (10 −2; −2 8)/76.
        let mean = [32.0 / 76.0, -14.0 / 76.0];
        let covariance = [10.0 / 76.0, -2.0 / 76.0, 8.0 / 76.0];
        let (mut sums, mut squares) = ([0.0; 2], [0.0; 3]);
        let draws = 40_000;
        for _ in 0..draws {
            let x = block.solve(&other, &indices, &ratings, &prior, Some(&mut noise));
            let x = x.ok().unwrap();
            let d: [f64; 2] = std::array::from_fn(|i| f64::from(x[i]) - mean[i]);
            for (sum, d) in sums.iter_mut().zip(d) {
                *sum += d;
            }
            for (sum, product) in squares
                .iter_mut()
                .zip([d[0] * d[0], d[0] * d[1], d[1] * d[1]])
            {
                *sum += product;
            }
        }
        // Standard errors: √(0.13/40,000) = .0018 and √2 · 0.13/200 = .0009.
        for sum in sums {
            assert!((sum / f64::from(draws)).abs() < 0.006, "{sum}");
        }
        for (sum, expected) in squares.iter().zip(covariance) {
            assert!((sum / f64::from(draws) - expected).abs() < 0.004, "{sum}");
        }
    }
}
