//! Biased matrix factorization fitted to ratings by whole sweeps: alternating least squares, or
//! draws from the posterior.

use crossfield_core::rng::{Purpose, rng};
use crossfield_simd::Isa;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::block::{Block, Other, Prior};
use crate::gibbs::{Normal, draw_alpha};
use crate::{BiasedParameters, Csr, Error, Interactions};

/// Streams of random numbers of users begin here, those of items at twice that; below are those
/// of a sweep as a whole.
const STREAMS: u64 = 1 << 32;
/// Blocks that a thread takes at least.
const LEAST: usize = 16;

/// L2 of biases and vectors under ALS.
///
/// The defaults were the best on rows held out of the training rows of MovieLens-100k, which have
/// some 100 ratings a user. Other scales of ratings, and many more or fewer of them, want others.
///
/// ```
/// use crossfield_mf::RatingsL2;
///
/// let l2 = RatingsL2 { factor_l2: 20.0, ..RatingsL2::default() };
/// assert_eq!((l2.bias_l2, l2.weighted), (3.0, false));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RatingsL2 {
    /// λ_b of the biases, at least 0.
    pub bias_l2: f64,
    /// λ of the vectors, above 0: a user may have fewer ratings than a vector has elements.
    pub factor_l2: f64,
    /// Whether both are multiplied by the number of the user's, or the item's, ratings.
    pub weighted: bool,
}

impl Default for RatingsL2 {
    fn default() -> Self {
        Self {
            bias_l2: 3.0,
            factor_l2: 12.0,
            weighted: false,
        }
    }
}

impl RatingsL2 {
    pub(crate) fn check(self) -> Result<(), Error> {
        let fail = |option, value, expected| {
            Err(Error::Option {
                option,
                value,
                expected,
            })
        };
        if !(self.bias_l2 >= 0.0 && self.bias_l2.is_finite()) {
            return fail("bias_l2", self.bias_l2, "a number of at least 0");
        }
        if !(self.factor_l2 > 0.0 && self.factor_l2.is_finite()) {
            return fail("factor_l2", self.factor_l2, "a number above 0");
        }
        Ok(())
    }
}

/// How parameters are updated.
///
/// ```
/// use crossfield_mf::RatingsMethod;
///
/// assert_eq!(RatingsMethod::default(), RatingsMethod::Gibbs);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum RatingsMethod {
    /// Each user's and item's parameters to their minimiser.
    Als(RatingsL2),
    /// Each user's and item's parameters drawn from their conditional, the priors and the noise
    /// too: nothing is to be tuned.
    #[default]
    Gibbs,
}

/// Configuration of a [`RatingsSolver`].
///
/// ```
/// use crossfield_mf::{RatingsConfig, RatingsL2, RatingsMethod};
///
/// let config = RatingsConfig {
///     method: RatingsMethod::Als(RatingsL2::default()),
///     ..RatingsConfig::default()
/// };
/// assert_eq!(config.embedding_dim, 8);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RatingsConfig {
    /// Length k of the vectors, at most 1024; 0: biases alone.
    pub embedding_dim: usize,
    /// Whether there are biases.
    pub biases: bool,
    /// Standard deviation of the vectors at the beginning; vectors of zero would stay zero under
    /// ALS.
    pub init_std: f64,
    /// How parameters are updated.
    pub method: RatingsMethod,
}

impl Default for RatingsConfig {
    fn default() -> Self {
        Self {
            embedding_dim: 8,
            biases: true,
            init_std: 0.1,
            method: RatingsMethod::default(),
        }
    }
}

impl RatingsConfig {
    fn check(&self) -> Result<(), Error> {
        let fail = |option, value, expected| {
            Err(Error::Option {
                option,
                value,
                expected,
            })
        };
        let least = usize::from(!self.biases);
        if self.embedding_dim < least || self.embedding_dim > 1024 {
            let expected = match self.biases {
                true => "0 to 1024",
                false => "1 to 1024 without biases",
            };
            return fail("embedding_dim", self.embedding_dim as f64, expected);
        }
        if !(self.init_std > 0.0 && self.init_std.is_finite()) {
            return fail("init_std", self.init_std, "a number above 0");
        }
        match self.method {
            RatingsMethod::Als(l2) => l2.check(),
            RatingsMethod::Gibbs => Ok(()),
        }
    }
}

/// Fits `ŷ = μ + b_u + b_i + p_u · q_i` to ratings, one sweep after the other.
///
/// With the items given, a rating is linear in the block `(b_u, p_u)` of its user, whose features
/// are `(1, q_i)` and whose target is `r − μ − b_i`. With a prior of mean m and precision Λ, and
/// noise of precision α, the block is normal:
///
/// ```text
/// precision  A = Λ + α Σ z zᵀ               z = (1, q_i), over the user's ratings
/// mean       A⁻¹ (Λ m + α Σ z (r − μ − b_i))
/// ```
///
/// - **ALS** sets each block to that mean (α = 1, m = 0, Λ a diagonal of λ_b and λ, or of n λ_b
///   and n λ for n ratings): no sweep raises `½ Σ (r − ŷ)² + ½ λ |·|²`. Users and items without a
///   rating have zeros.
/// - **Gibbs** draws each block from that normal, α from a gamma distribution, and m and Λ, one
///   pair for users and one for items, from a Gaussian–Wishart distribution. The prediction is the
///   mean of the predictions of the draws, the first ones left out: of 100, some 20 are still on
///   their way from the start. Users and items without a rating do not enter the priors, and are
///   drawn from them.
///
/// A sweep updates all users, then all items. It depends on the ratings, the configuration, the
/// seed, its number and the parameters alone, so that a run that goes on from saved parameters
/// ([`resume`](Self::resume)) does what the undisturbed run would have done, to the bit, at any
/// number of threads (those of rayon). Its time goes with `embedding_dim²` times the ratings, and
/// `embedding_dim³` times users and items.
///
/// Two ratings of one item by one user both count. Ratings may lie anywhere; predictions are not
/// clamped to a scale.
///
/// ```
/// use crossfield_mf::{Duplicates, Interactions, RatingsConfig, RatingsL2, RatingsMethod, RatingsSolver};
///
/// // Users 0 and 1 like items 0 and 1, user 2 likes item 2.
/// let pairs = [(0, 0, 5.0), (0, 1, 5.0), (0, 2, 1.0), (1, 0, 5.0), (1, 2, 1.0), (2, 1, 1.0), (2, 2, 5.0)];
/// let ratings = Interactions::new(3, 3, pairs, Duplicates::Keep)?;
/// let l2 = RatingsL2 { bias_l2: 1.0, factor_l2: 0.1, weighted: false };
/// let config = RatingsConfig {
///     embedding_dim: 1,
///     method: RatingsMethod::Als(l2),
///     ..RatingsConfig::default()
/// };
/// let mut solver = RatingsSolver::new(ratings, config, 1)?;
/// for _ in 0..20 {
///     solver.iterate()?;
/// }
/// assert!(solver.parameters().score(1, 1) > 4.0);
/// assert!(solver.parameters().score(2, 0) < 2.0);
/// # Ok::<(), crossfield_mf::Error>(())
/// ```
///
/// # Source
/// Koren, Bell, Volinsky, Matrix factorization techniques for recommender systems, IEEE Computer
/// 2009; Zhou, Wilkinson, Schreiber, Pan, Large-scale parallel collaborative filtering for the
/// Netflix Prize, AAIM 2008 (ALS-WR, where λ is `weighted`); Salakhutdinov, Mnih, Bayesian
/// probabilistic matrix factorization using Markov chain Monte Carlo, ICML 2008. In theirs blocks
/// have no biases, and α is fixed; here it is drawn.
#[derive(Clone, Debug)]
pub struct RatingsSolver {
    ratings: Interactions,
    config: RatingsConfig,
    seed: u64,
    isa: Isa,
    sweeps: u64,
    parameters: BiasedParameters,
    alpha: f64,
    last_loss: f64,
}

/// Whose blocks a sweep updates.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    User,
    Item,
}

impl RatingsSolver {
    /// Starts from the mean of the ratings with small vectors.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Option`] and [`Error::Isa`].
    pub fn new(ratings: Interactions, config: RatingsConfig, seed: u64) -> Result<Self, Error> {
        config.check()?;
        if ratings.is_empty() {
            return Err(Error::Empty);
        }
        let RatingsConfig {
            embedding_dim,
            biases,
            init_std,
            ..
        } = config;
        let parameters = BiasedParameters::init(&ratings, embedding_dim, biases, init_std, seed);
        Ok(Self {
            isa: Isa::detect()?,
            sweeps: 0,
            alpha: f64::NAN,
            last_loss: f64::NAN,
            ratings,
            config,
            seed,
            parameters,
        })
    }

    /// The parameters: after a sweep of Gibbs sampling, one draw.
    pub fn parameters(&self) -> &BiasedParameters {
        &self.parameters
    }

    /// Sweeps done.
    pub fn sweeps(&self) -> u64 {
        self.sweeps
    }

    /// α of the last sweep, the precision of the noise: 1 for ALS, NaN before the first sweep.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// Mean `½ (ŷ − r)²` of the training ratings by the parameters before the last sweep, which
    /// computed it on its way; NaN before the first.
    pub fn last_loss(&self) -> f64 {
        self.last_loss
    }

    /// Mean `½ (ŷ − r)²` of the training ratings by the parameters as they are.
    pub fn train_loss(&self) -> f64 {
        0.5 * self.squares() / self.ratings.len() as f64
    }

    /// Goes on from the parameters that a run had after that many sweeps.
    ///
    /// # Errors
    /// [`Error::Parameters`] and [`Error::NonFinite`]; nothing is changed then.
    pub fn resume(&mut self, parameters: BiasedParameters, sweeps: u64) -> Result<(), Error> {
        parameters.check(&self.parameters)?;
        self.parameters = parameters;
        self.sweeps = sweeps;
        Ok(())
    }

    /// Updates every user, then every item.
    ///
    /// # Errors
    /// [`Error::NonFinite`], and [`Error::Singular`] where L2 is too small for the data; the
    /// parameters before it stand.
    pub fn iterate(&mut self) -> Result<(), Error> {
        let before = self.parameters.clone();
        let updated = self.update(self.sweeps + 1);
        match updated {
            Ok(()) => self.sweeps += 1,
            Err(_) => self.parameters = before,
        }
        updated
    }

    fn update(&mut self, sweep: u64) -> Result<(), Error> {
        let mut noise = rng(self.seed, Purpose::Gibbs, sweep, 0);
        let squares = self.squares();
        self.last_loss = 0.5 * squares / self.ratings.len() as f64;
        self.alpha = match self.config.method {
            RatingsMethod::Als(_) => 1.0,
            RatingsMethod::Gibbs => draw_alpha(self.ratings.len(), squares, &mut noise),
        };
        for side in [Side::User, Side::Item] {
            let prior = self.prior(side, &mut noise)?;
            self.update_side(side, &prior, sweep)?;
        }
        Ok(())
    }

    /// `Σ (ŷ − r)²`, added up user by user: the same bits at any number of threads.
    fn squares(&self) -> f64 {
        let by_user = self.ratings.by_user();
        let sums: Vec<f64> = (0..by_user.rows())
            .into_par_iter()
            .with_min_len(LEAST)
            .map(|user| {
                let (items, ratings) = by_user.row(user);
                let mut sum = 0.0;
                for (&item, &rating) in items.iter().zip(ratings) {
                    let error = self.parameters.score(user, item as usize) - f64::from(rating);
                    sum += error * error;
                }
                sum
            })
            .collect();
        sums.iter().sum()
    }

    fn blocks_of(&self, side: Side) -> (&Csr, &[f32], &[f32]) {
        let parameters = &self.parameters;
        match side {
            Side::User => (
                self.ratings.by_user(),
                &parameters.user_bias,
                &parameters.users,
            ),
            Side::Item => (
                self.ratings.by_item(),
                &parameters.item_bias,
                &parameters.items,
            ),
        }
    }

    /// The configured prior, or one that is drawn from the blocks that have ratings.
    fn prior(&self, side: Side, noise: &mut ChaCha8Rng) -> Result<Prior, Error> {
        let size = self.config.embedding_dim + usize::from(self.config.biases);
        match self.config.method {
            RatingsMethod::Als(l2) => Ok(Prior::ridge(size, self.config.biases, l2, self.isa)),
            RatingsMethod::Gibbs => {
                let (ratings, bias, vectors) = self.blocks_of(side);
                let k = self.config.embedding_dim;
                let mut blocks = Vec::with_capacity(ratings.rows() * size);
                for row in (0..ratings.rows()).filter(|&row| !ratings.row(row).0.is_empty()) {
                    blocks.extend(bias.get(row));
                    blocks.extend_from_slice(&vectors[row * k..][..k]);
                }
                let normal = Normal::draw(size, blocks.chunks_exact(size), noise);
                let normal = normal.ok_or(Error::NonFinite {
                    what: side.name(),
                    index: 0,
                })?;
                Ok(Prior::normal(normal.system(self.isa), self.alpha as f32))
            }
        }
    }

    fn update_side(&mut self, side: Side, prior: &Prior, sweep: u64) -> Result<(), Error> {
        let k = self.config.embedding_dim;
        let (_, bias, vectors) = self.blocks_of(side.other());
        let (ratings, ..) = self.blocks_of(side);
        let rows = self.ratings_of(side.other()).rows();
        let other = Other::new(self.parameters.mean, bias, vectors, k, 0..rows);
        let draws = self.config.method == RatingsMethod::Gibbs;
        let size = other.size();
        let mut blocks = vec![0f32; ratings.rows() * size];
        blocks
            .par_chunks_mut(size)
            .enumerate()
            .with_min_len(LEAST)
            .try_for_each_init(
                || Block::new(size, self.isa),
                |block, (row, to)| {
                    let (indices, values) = ratings.row(row);
                    let mut noise = draws.then(|| {
                        let stream = side.streams() + row as u64;
                        rng(self.seed, Purpose::Gibbs, sweep, stream)
                    });
                    let solved = block.solve(&other, indices, values, prior, noise.as_mut());
                    to.copy_from_slice(solved.map_err(|failure| failure.of(side.name(), row))?);
                    Ok::<(), Error>(())
                },
            )?;
        let parameters = &mut self.parameters;
        let (bias, vectors) = match side {
            Side::User => (&mut parameters.user_bias, &mut parameters.users),
            Side::Item => (&mut parameters.item_bias, &mut parameters.items),
        };
        for (row, block) in blocks.chunks_exact(size).enumerate() {
            let (first, vector) = block.split_at(size - k);
            if let Some(&value) = first.first() {
                bias[row] = value;
            }
            vectors[row * k..][..k].copy_from_slice(vector);
        }
        Ok(())
    }

    fn ratings_of(&self, side: Side) -> &Csr {
        self.blocks_of(side).0
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::User => Self::Item,
            Self::Item => Self::User,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Item => "item",
        }
    }

    fn streams(self) -> u64 {
        match self {
            Self::User => STREAMS,
            Self::Item => 2 * STREAMS,
        }
    }
}

#[cfg(test)]
mod tests;
