//! The conditional of one column's parameters, `(w_i, v_i)` or as many elements of `v_i` as fit.

use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

use super::Prior;
use super::design::Line;

/// Rows whose sums are added in `f32` before they go to `f64`.
const SHORT: usize = 32;

/// Sums over the rows that have a column: with `h = ∂z/∂v = x (q − x v)` and `∂z/∂w = x`, the
/// normal equations of its parameters.
#[derive(Clone, Debug)]
pub(super) struct Sums<const N: usize> {
    /// `Σ x²`.
    pub(super) xx: f64,
    /// `Σ x e`.
    pub(super) xe: f64,
    /// `Σ x h`.
    pub(super) xh: [f64; N],
    /// `Σ h e`.
    pub(super) he: [f64; N],
    /// `Σ h hᵀ`, the lower triangle.
    pub(super) hh: [[f64; N]; N],
}

impl<const N: usize> Sums<N> {
    /// Sums over the entries of a column whose vector is `v`, from `e` and `q` of all rows.
    pub(super) fn of(line: Line, v: &[f32; N], e: &[f32], q: &[[f32; N]]) -> Self {
        match line.values {
            None => Self::gather(line.indices, |_| 1.0, v, e, q),
            Some(values) => Self::gather(line.indices, |at| values[at], v, e, q),
        }
    }

    #[inline(always)]
    fn gather(
        rows: &[u32],
        value: impl Fn(usize) -> f32,
        v: &[f32; N],
        e: &[f32],
        q: &[[f32; N]],
    ) -> Self {
        let mut sums = Self {
            xx: 0.0,
            xe: 0.0,
            xh: [0.0; N],
            he: [0.0; N],
            hh: [[0.0; N]; N],
        };
        // Copied first, so that the loads do not wait for the sums of the rows before.
        let mut h = [[0f32; N]; SHORT];
        let mut errors = [0f32; SHORT];
        for (short, rows) in rows.chunks(SHORT).enumerate() {
            for ((h, error), &row) in h.iter_mut().zip(&mut errors).zip(rows) {
                *h = q[row as usize];
                *error = e[row as usize];
            }
            let (mut xx, mut xe, mut xh, mut he) = (0f32, 0f32, [0f32; N], [0f32; N]);
            for (at, (h, &e)) in h.iter_mut().zip(&errors).take(rows.len()).enumerate() {
                let x = value(short * SHORT + at);
                xx += x * x;
                xe += x * e;
                for f in 0..N {
                    h[f] = x * (h[f] - x * v[f]);
                    xh[f] += x * h[f];
                    he[f] += h[f] * e;
                }
            }
            sums.xx += f64::from(xx);
            sums.xe += f64::from(xe);
            for f in 0..N {
                sums.xh[f] += f64::from(xh[f]);
                sums.he[f] += f64::from(he[f]);
                // Whole vectors of four; what lies above the diagonal is not used.
                if f < 4 {
                    add_products::<N, 4>(&h[..rows.len()], f, &mut sums.hh[f]);
                } else {
                    add_products::<N, 8>(&h[..rows.len()], f, &mut sums.hh[f]);
                }
            }
        }
        sums
    }
}

/// Adds `Σ h_f h_g` for g < G.
#[inline(always)]
fn add_products<const N: usize, const G: usize>(h: &[[f32; N]], f: usize, out: &mut [f64; N]) {
    let mut sum = [0f32; G];
    for h in h {
        for g in 0..G {
            sum[g] += h[f] * h[g];
        }
    }
    for g in 0..G {
        out[g] += f64::from(sum[g]);
    }
}

/// Adds what a step of `w` and `v` changes to `e` and `q` of the column's rows.
pub(super) fn apply<const N: usize>(
    line: Line,
    v: &[f32; N],
    step_w: f32,
    step: &[f32; N],
    e: &mut [f32],
    q: &mut [[f32; N]],
) {
    let mut one = |row: u32, x: f32| {
        let q = &mut q[row as usize];
        let mut change = 0.0;
        for f in 0..N {
            change += (q[f] - x * v[f]) * step[f];
        }
        e[row as usize] += x * (step_w + change);
        for f in 0..N {
            q[f] += x * step[f];
        }
    };
    match line.values {
        None => line.indices.iter().for_each(|&row| one(row, 1.0)),
        Some(values) => line
            .indices
            .iter()
            .zip(values)
            .for_each(|(&row, &x)| one(row, x)),
    }
}

/// Parameters that are updated together: at most eight elements of a vector and a linear weight.
pub(super) const MOST: usize = 9;

/// A normal distribution of `size` parameters, as the step from where they are:
/// precision matrix and gradient.
#[derive(Clone, Debug)]
pub(super) struct Conditional {
    size: usize,
    precision: [[f64; MOST]; MOST],
    gradient: [f64; MOST],
}

impl Conditional {
    /// The conditional of `size` elements of `v`, and then `w` if it has a prior.
    pub(super) fn new<const N: usize>(
        sums: &Sums<N>,
        alpha: f64,
        size: usize,
        v: &[f32; N],
        priors: impl Fn(usize) -> Prior,
        w: Option<(f32, Prior)>,
    ) -> Self {
        let mut conditional = Self {
            size: size + usize::from(w.is_some()),
            precision: [[0.0; MOST]; MOST],
            gradient: [0.0; MOST],
        };
        for (f, &value) in v[..size].iter().enumerate() {
            for g in 0..=f {
                conditional.precision[f][g] = alpha * sums.hh[f][g];
            }
            conditional.gradient[f] = -alpha * sums.he[f];
            conditional.add_prior(f, value, priors(f));
        }
        if let Some((w, prior)) = w {
            for f in 0..size {
                conditional.precision[size][f] = alpha * sums.xh[f];
            }
            conditional.precision[size][size] = alpha * sums.xx;
            conditional.gradient[size] = -alpha * sums.xe;
            conditional.add_prior(size, w, prior);
        }
        conditional
    }

    fn add_prior(&mut self, at: usize, value: f32, prior: Prior) {
        self.precision[at][at] += prior.precision;
        self.gradient[at] += prior.precision * (prior.mean - f64::from(value));
    }

    /// The step to the mean, `P⁻¹ g`; with a generator, to a draw: `P⁻¹ g + L⁻ᵀ ε`, `P = L Lᵀ`.
    ///
    /// Parameters of which neither rows nor a prior say anything stay where they are.
    pub(super) fn step(mut self, rng: Option<&mut impl Rng>) -> [f64; MOST] {
        let n = self.size;
        let p = &mut self.precision;
        // Cholesky in place; a pivot that rounding has left of nothing ends its row and column.
        for i in 0..n {
            let whole = p[i][i];
            for j in 0..=i {
                let done: f64 = (0..j).map(|m| p[i][m] * p[j][m]).sum();
                let sum = p[i][j] - done;
                if i != j {
                    p[i][j] = if p[j][j] > 0.0 { sum / p[j][j] } else { 0.0 };
                } else {
                    p[i][i] = if sum > 1e-12 * whole { sum.sqrt() } else { 0.0 };
                }
            }
        }
        let mut step = self.gradient;
        let divide = |value: f64, pivot: f64| if pivot > 0.0 { value / pivot } else { 0.0 };
        for i in 0..n {
            for m in 0..i {
                step[i] -= p[i][m] * step[m];
            }
            step[i] = divide(step[i], p[i][i]);
        }
        if let Some(rng) = rng {
            for value in &mut step[..n] {
                *value += rng.sample::<f64, _>(StandardNormal);
            }
        }
        for i in (0..n).rev() {
            for m in i + 1..n {
                step[i] -= p[m][i] * step[m];
            }
            step[i] = divide(step[i], p[i][i]);
        }
        step
    }
}
