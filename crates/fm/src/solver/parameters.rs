//! The parameters of a factorization machine, and the score they give.

use crossfield_core::Examples;
use crossfield_core::rng::{Purpose, rng};
use rand::RngExt;
use rand_distr::StandardNormal;

use super::design::RowReader;
use super::{Columns, SolverError};

/// The parameters of a factorization machine over numbered columns.
///
/// ```
/// use crossfield_fm::solver::FmParameters;
///
/// let parameters = FmParameters {
///     embedding_dim: 2,
///     w0: 0.5,
///     w: vec![0.25, 0.0],
///     v: vec![1.0, 2.0, 3.0, -1.0],
/// };
/// // w0 + w_0 + 2 w_1 + ⟨v_0, v_1⟩ · 1 · 2
/// assert_eq!(parameters.score(&[(0, 1.0), (1, 2.0)]), 0.5 + 0.25 + 2.0);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FmParameters {
    /// Length k of the vectors.
    pub embedding_dim: usize,
    /// The bias.
    pub w0: f32,
    /// The linear weights, `[columns]`; empty: there are none.
    pub w: Vec<f32>,
    /// The vectors, `[columns, embedding_dim]`, row-major.
    pub v: Vec<f32>,
}

impl FmParameters {
    /// Zero weights, and vectors that are normal around 0.
    pub fn init(columns: usize, embedding_dim: usize, linear: bool, std: f64, seed: u64) -> Self {
        let mut rng = rng(seed, Purpose::Gibbs, 0, 0);
        Self {
            embedding_dim,
            w0: 0.0,
            w: vec![0.0; if linear { columns } else { 0 }],
            v: (0..columns * embedding_dim)
                .map(|_| (std * rng.sample::<f64, _>(StandardNormal)) as f32)
                .collect(),
        }
    }

    /// `w0 + Σ w_i x_i + Σ_{i<j} ⟨v_i, v_j⟩ x_i x_j` over columns `i` with values `x_i`, each
    /// column once.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn score(&self, features: &[(u32, f32)]) -> f64 {
        self.score_with(features, |_, _| {})
    }

    /// [`score`](Self::score); `sums` hears of `Σ_i v_if x_i` for each factor f.
    #[inline]
    pub(crate) fn score_with(
        &self,
        features: &[(u32, f32)],
        mut sums: impl FnMut(usize, f32),
    ) -> f64 {
        let mut score = f64::from(self.w0);
        if !self.w.is_empty() {
            let linear: f32 = features.iter().map(|&(i, x)| self.w[i as usize] * x).sum();
            score += f64::from(linear);
        }
        let mut factor = 0;
        let mut pairs = 0.0;
        while factor + 8 <= self.embedding_dim {
            pairs += self.pairs::<8>(features, factor, &mut sums);
            factor += 8;
        }
        while factor + 4 <= self.embedding_dim {
            pairs += self.pairs::<4>(features, factor, &mut sums);
            factor += 4;
        }
        while factor < self.embedding_dim {
            pairs += self.pairs::<1>(features, factor, &mut sums);
            factor += 1;
        }
        score + 0.5 * pairs
    }

    /// `Σ_f [(Σ_i v_if x_i)² − Σ_i v_if² x_i²]` over N factors from `first` on.
    #[inline]
    fn pairs<const N: usize>(
        &self,
        features: &[(u32, f32)],
        first: usize,
        sums: &mut impl FnMut(usize, f32),
    ) -> f64 {
        let mut sum = [0f32; N];
        let mut square = [0f32; N];
        for &(column, x) in features {
            let at = column as usize * self.embedding_dim + first;
            let v = &self.v[at..at + N];
            for f in 0..N {
                let vx = v[f] * x;
                sum[f] += vx;
                square[f] += vx * vx;
            }
        }
        let mut pairs = 0.0;
        for f in 0..N {
            sums(first + f, sum[f]);
            pairs += f64::from(sum[f] * sum[f] - square[f]);
        }
        pairs
    }

    /// Whether these are the parameters of a model of that shape, all of them finite.
    ///
    /// # Errors
    /// [`SolverError::Parameters`] and [`SolverError::NotFinite`].
    pub fn check(
        &self,
        columns: usize,
        embedding_dim: usize,
        linear: bool,
    ) -> Result<(), SolverError> {
        let lengths = [
            ("embedding_dim", embedding_dim, self.embedding_dim),
            ("w", if linear { columns } else { 0 }, self.w.len()),
            ("v", columns * embedding_dim, self.v.len()),
        ];
        for (what, expected, got) in lengths {
            if expected != got {
                return Err(SolverError::Parameters {
                    what,
                    expected,
                    got,
                });
            }
        }
        for (what, values) in [("w0", &[self.w0][..]), ("w", &self.w), ("v", &self.v)] {
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err(SolverError::NotFinite {
                    what,
                    at,
                    value: values[at],
                });
            }
        }
        Ok(())
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
