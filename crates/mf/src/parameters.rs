//! The parameters of a matrix factorization, and the score they give.

use crossfield_core::rng::{Purpose, name_key, rng};
use crossfield_simd::Isa;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::block::{Block, Other, Prior};
use crate::interactions::{check_index, check_value};
use crate::{Biases, Csr, Error, Interactions, RatingsL2};

/// The parameters of `ŷ = μ + b_u + b_i + p_u · q_i`, for ratings; of what people did, the vectors and
/// at most the biases of items.
///
/// ```
/// use crossfield_mf::MfParameters;
///
/// let parameters = MfParameters {
///     embedding_dim: 2,
///     mean: 3.5,
///     user_bias: vec![0.25],
///     item_bias: vec![0.0, -1.0],
///     users: vec![1.0, 2.0],
///     items: vec![0.0, 0.0, 0.5, -0.5],
/// };
/// assert_eq!(parameters.score(0, 1), 3.5 + 0.25 - 1.0 + 0.5 - 1.0);
/// ```
///
/// # Source
/// Koren, Bell, Volinsky, Matrix factorization techniques for recommender systems, IEEE Computer
/// 2009, equation 4.
#[derive(Clone, Debug, PartialEq)]
pub struct MfParameters {
    /// Length k of the vectors.
    pub embedding_dim: usize,
    /// μ, the mean of the training ratings.
    pub mean: f32,
    /// b_u, `[users]`; empty: there are no biases.
    pub user_bias: Vec<f32>,
    /// b_i, `[items]`; empty: there are no biases.
    pub item_bias: Vec<f32>,
    /// p_u, `[users, embedding_dim]`, row-major.
    pub users: Vec<f32>,
    /// q_i, `[items, embedding_dim]`, row-major.
    pub items: Vec<f32>,
}

impl MfParameters {
    /// Vectors that are normal around 0, those of users and items without a pair 0; biases of 0 where
    /// there are any, and a mean of 0.
    pub(crate) fn init(
        pairs: &Interactions,
        embedding_dim: usize,
        std: f64,
        biases: Biases,
        seed: u64,
    ) -> Self {
        let draw = |name: &str, side: &Csr| {
            let mut rng = rng(seed, Purpose::TableInit, name_key(name), 0);
            let mut vectors = vec![0.0; side.rows() * embedding_dim];
            for row in 0..side.rows() {
                let vector = &mut vectors[row * embedding_dim..][..embedding_dim];
                if !side.row(row).0.is_empty() {
                    vector.fill_with(|| (std * rng.sample::<f64, _>(StandardNormal)) as f32);
                }
            }
            vectors
        };
        let zeros = |of: bool, rows| vec![0.0; if of { rows } else { 0 }];
        Self {
            embedding_dim,
            mean: 0.0,
            user_bias: zeros(biases == Biases::Both, pairs.users()),
            item_bias: zeros(biases != Biases::None, pairs.items()),
            users: draw("mf.users", pairs.by_user()),
            items: draw("mf.items", pairs.by_item()),
        }
    }

    /// The vector of a user.
    ///
    /// # Panics
    /// If there is no such user.
    pub fn user(&self, user: usize) -> &[f32] {
        &self.users[user * self.embedding_dim..][..self.embedding_dim]
    }

    /// The vector of an item.
    ///
    /// # Panics
    /// If there is no such item.
    pub fn item(&self, item: usize) -> &[f32] {
        &self.items[item * self.embedding_dim..][..self.embedding_dim]
    }

    /// `μ + b_u + b_i + p_u · q_i`, not clamped to the scale of the ratings.
    ///
    /// # Panics
    /// If there is no such user or item.
    #[inline]
    pub fn score(&self, user: usize, item: usize) -> f64 {
        let (p, q) = (self.user(user), self.item(item));
        let bias = |of: &[f32], row: usize| of.get(row).map_or(0.0, |&bias| f64::from(bias));
        let score = f64::from(self.mean);
        let score = score + bias(&self.user_bias, user) + bias(&self.item_bias, item);
        // Four sums, so that the compiler may use vectors; their order is fixed.
        let mut sums = [0f32; 4];
        let (p_fours, p_rest) = p.as_chunks::<4>();
        let (q_fours, q_rest) = q.as_chunks::<4>();
        for (p, q) in p_fours.iter().zip(q_fours) {
            for lane in 0..4 {
                sums[lane] += p[lane] * q[lane];
            }
        }
        let rest: f32 = p_rest.iter().zip(q_rest).map(|(p, q)| p * q).sum();
        score + f64::from((sums[0] + sums[1]) + (sums[2] + sums[3]) + rest)
    }

    /// Bias and vector of a user whom the parameters do not know, from ratings of known items:
    /// the minimiser of
    ///
    /// ```text
    /// ½ Σ (r − μ − b_i − b − p · q_i)² + ½ λ_b b² + ½ λ |p|²
    /// ```
    ///
    /// It is what a sweep of ALS gives a user of these ratings. All else stays as it is; the time
    /// does not grow with the tables. Without ratings both are 0; without biases in the model, `b`
    /// is 0. An item may occur more than once: each rating counts.
    ///
    /// ```
    /// use crossfield_mf::{MfParameters, RatingsL2};
    ///
    /// let parameters = MfParameters {
    ///     embedding_dim: 1,
    ///     mean: 3.0,
    ///     user_bias: vec![],
    ///     item_bias: vec![],
    ///     users: vec![],
    ///     items: vec![1.0, 2.0],
    /// };
    /// let l2 = RatingsL2 { factor_l2: 4.0, ..RatingsL2::default() };
    /// // (1 · 1 + 2 · 4) / (1² + 2² + λ)
    /// let (bias, vector) = parameters.fold_in_user(&[(0, 4.0), (1, 7.0)], l2)?;
    /// assert_eq!((bias, vector), (0.0, vec![1.0]));
    /// # Ok::<(), crossfield_mf::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`] and [`Error::Value`], which count from the first rating;
    /// [`Error::Option`]; [`Error::Singular`] and [`Error::NonFinite`].
    pub fn fold_in_user(
        &self,
        ratings: &[(u32, f32)],
        l2: RatingsL2,
    ) -> Result<(f32, Vec<f32>), Error> {
        self.fold_in("user", "item", [&self.item_bias, &self.items], ratings, l2)
    }

    /// Bias and vector of an item that the parameters do not know, from ratings by known users:
    /// as [`fold_in_user`](Self::fold_in_user), with users and items exchanged.
    ///
    /// # Errors
    /// As for a user.
    pub fn fold_in_item(
        &self,
        ratings: &[(u32, f32)],
        l2: RatingsL2,
    ) -> Result<(f32, Vec<f32>), Error> {
        self.fold_in("item", "user", [&self.user_bias, &self.users], ratings, l2)
    }

    fn fold_in(
        &self,
        new: &'static str,
        what: &'static str,
        [bias, vectors]: [&[f32]; 2],
        ratings: &[(u32, f32)],
        l2: RatingsL2,
    ) -> Result<(f32, Vec<f32>), Error> {
        l2.check()?;
        let k = self.embedding_dim;
        let count = vectors.len().checked_div(k).unwrap_or(bias.len());
        for (row, &(index, value)) in ratings.iter().enumerate() {
            check_index(row, what, index, count)?;
            check_value(row, value)?;
        }
        // By rising index, as in the rows of a data set: sums then have the same bits.
        let mut ratings = ratings.to_vec();
        ratings.sort_by_key(|&(index, _)| index);
        let known: Vec<usize> = ratings.iter().map(|&(index, _)| index as usize).collect();
        let indices: Vec<u32> = (0..ratings.len() as u32).collect();
        let values: Vec<f32> = ratings.iter().map(|&(_, value)| value).collect();
        let isa = Isa::detect()?;
        let other = Other::new(self.mean, bias, vectors, k, known.into_iter());
        let prior = Prior::ridge(other.size(), other.biases(), l2, isa);
        let mut block = Block::new(other.size(), isa);
        let solved = block.solve::<ChaCha8Rng>(&other, &indices, &values, &prior, None);
        let solved = solved.map_err(|reason| reason.of(new, 0))?;
        let (bias, vector) = solved.split_at(usize::from(other.biases()));
        Ok((bias.first().copied().unwrap_or(0.0), vector.to_vec()))
    }

    /// Whether these are the parameters of a model of that shape, all of them finite.
    pub(crate) fn check(&self, expected: &Self) -> Result<(), Error> {
        let lengths = |of: &Self| {
            [
                of.embedding_dim,
                of.user_bias.len(),
                of.item_bias.len(),
                of.users.len(),
                of.items.len(),
            ]
        };
        let numbers = |of: &Self| 1 + lengths(of)[1..].iter().sum::<usize>();
        if lengths(self) != lengths(expected) {
            return Err(Error::Parameters {
                got: numbers(self),
                expected: numbers(expected),
            });
        }
        self.check_finite()
    }

    /// Whether all are finite.
    pub(crate) fn check_finite(&self) -> Result<(), Error> {
        let k = self.embedding_dim;
        for (what, values, width) in [
            ("user", &self.user_bias, 1),
            ("item", &self.item_bias, 1),
            ("user", &self.users, k),
            ("item", &self.items, k),
        ] {
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                let index = at / width;
                return Err(Error::NonFinite { what, index });
            }
        }
        if !self.mean.is_finite() {
            let expected = "a finite number";
            return Err(Error::Option {
                option: "mean",
                value: f64::from(self.mean),
                expected,
            });
        }
        Ok(())
    }
}
