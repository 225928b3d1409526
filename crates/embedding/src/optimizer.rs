//! Optimizers that update only the rows a batch has touched.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::row::padded;

/// The rule by which a touched row is updated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowOptimizerKind {
    /// `w ← w − η g`. Equal to dense SGD, whose update of an untouched row is zero.
    Sgd,
    /// `n ← n + g²; w ← w − η g / (√n + ε)`, element by element. Equal to dense AdaGrad, which
    /// leaves a row of zero gradient as it is.
    ///
    /// # Source
    /// Duchi, Hazan, Singer 2011, the diagonal form.
    #[default]
    Adagrad,
    /// AdaGrad with one accumulator a row, the mean of `g²` over the row: one float of state
    /// instead of `dim`. Not equal to dense AdaGrad: all weights of a row share one rate. `g` is
    /// the gradient of the loss alone, without that of the penalty.
    RowwiseAdagrad,
    /// Adam on the touched rows. Not equal to dense Adam, where moments of an untouched row decay
    /// and still move it: here both wait, and the bias correction counts the row's own updates.
    ///
    /// # Source
    /// Kingma, Ba 2015, algorithm 1.
    Adam,
    /// FTRL-Proximal, which sets weights to exactly zero (L1). Equal to its dense form. `l2` is
    /// the λ₂ of its closed form, not a term of the gradient.
    ///
    /// # Source
    /// McMahan et al. 2013, algorithm 1. There the rate has no schedule; here its factor is one on
    /// the gradient in z, so that a step is that much shorter.
    Ftrl,
}

/// A row optimizer and its numbers; those that a kind does not use are ignored by it.
///
/// ```
/// use crossfield_embedding::{RowOptimizer, RowOptimizerKind, RowStep, StateWidth};
///
/// let optimizer = RowOptimizer {
///     kind: RowOptimizerKind::Adagrad,
///     lr: 0.1,
///     ..RowOptimizer::default()
/// };
/// assert_eq!(optimizer.state(), [("accumulator", StateWidth::Dim)]);
/// // A row of two weights, and its two accumulators.
/// let (mut weights, mut state) = ([1.0, 1.0], [f32::NAN; 2]);
/// optimizer.init_state(&weights, &mut state);
/// let step = RowStep {
///     rate: 1.0,
///     share: 1.0,
/// };
/// optimizer.update(&mut weights, &mut state, &[2.0, 0.0], step);
/// // The first step of AdaGrad is the learning rate, whatever the gradient's size.
/// assert!((weights[0] - 0.9).abs() < 1e-6);
/// assert_eq!((weights[1], state), (1.0, [4.0, 0.0]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RowOptimizer {
    /// The rule.
    pub kind: RowOptimizerKind,
    /// Learning rate η (α in FTRL).
    pub lr: f64,
    /// λ of the penalty ½ λ Σ w² over the features of a row, per row of data. Only weights that
    /// took part pay it: those whose gradient is not exactly zero. With one row a batch this is
    /// what libFM and libffm do.
    pub l2: f64,
    /// λ₁ of FTRL.
    pub l1: f64,
    /// ε of AdaGrad and Adam.
    pub eps: f64,
    /// Decay of Adam's first moment.
    pub beta1: f64,
    /// Decay of Adam's second moment.
    pub beta2: f64,
    /// β of FTRL: `1/rate` begins at `β/α`.
    pub beta: f64,
    /// What AdaGrad's accumulators and FTRL's n begin with.
    pub initial_accumulator: f64,
}

impl Default for RowOptimizer {
    fn default() -> Self {
        Self {
            kind: RowOptimizerKind::Adagrad,
            lr: 0.1,
            l2: 0.0,
            l1: 0.0,
            eps: 1e-8,
            beta1: 0.9,
            beta2: 0.999,
            beta: 1.0,
            initial_accumulator: 0.0,
        }
    }
}

/// One step's numbers that are not the optimizer's own.
#[derive(Clone, Copy, Debug)]
pub struct RowStep {
    /// Factor on the learning rate, from the schedule.
    pub rate: f32,
    /// Share of the batch's rows in which this row of the table occurred.
    pub share: f32,
}

impl RowOptimizer {
    /// The parts of a row's state, in the order in which they follow its weights, with their
    /// widths for a row of `dim` weights.
    pub fn state(&self) -> &'static [(&'static str, StateWidth)] {
        match self.kind {
            RowOptimizerKind::Sgd => &[],
            RowOptimizerKind::Adagrad => &[("accumulator", StateWidth::Dim)],
            RowOptimizerKind::RowwiseAdagrad => &[("accumulator", StateWidth::One)],
            RowOptimizerKind::Adam => &[
                ("moment_1", StateWidth::Dim),
                ("moment_2", StateWidth::Dim),
                ("time", StateWidth::One),
            ],
            RowOptimizerKind::Ftrl => &[("z", StateWidth::Dim), ("n", StateWidth::Dim)],
        }
    }

    /// Floats of state beside a row of `dim` weights, padding included.
    pub fn state_len(&self, dim: usize) -> usize {
        self.state().iter().map(|(_, width)| width.len(dim)).sum()
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn check(&self, table: &str) -> Result<(), Error> {
        let positive = "a finite number above 0";
        let not_negative = "a finite number of at least 0";
        let decay = "at least 0 and below 1";
        let checks: [(&'static str, f64, bool, &'static str); 8] = [
            ("lr", self.lr, self.lr > 0.0, positive),
            ("l2", self.l2, self.l2 >= 0.0, not_negative),
            ("l1", self.l1, self.l1 >= 0.0, not_negative),
            ("eps", self.eps, self.eps > 0.0, positive),
            ("beta", self.beta, self.beta >= 0.0, not_negative),
            ("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), decay),
            ("beta2", self.beta2, (0.0..1.0).contains(&self.beta2), decay),
            (
                "initial_accumulator",
                self.initial_accumulator,
                self.initial_accumulator >= 0.0,
                not_negative,
            ),
        ];
        for (option, value, good, expected) in checks {
            if !good || !value.is_finite() {
                return Err(Error::OutOfRange {
                    table: table.to_owned(),
                    option,
                    value,
                    expected,
                });
            }
        }
        Ok(())
    }

    /// Sets the state of a row whose weights have just been initialised.
    ///
    /// # Shapes
    /// - weights: `[dim]`
    /// - state: `[state_len(dim)]`
    pub fn init_state(&self, weights: &[f32], state: &mut [f32]) {
        let dim = weights.len();
        state.fill(0.0);
        let accumulator = self.initial_accumulator as f32;
        match self.kind {
            RowOptimizerKind::Sgd | RowOptimizerKind::Adam => {}
            RowOptimizerKind::Adagrad => state[..dim].fill(accumulator),
            RowOptimizerKind::RowwiseAdagrad => state[0] = accumulator,
            RowOptimizerKind::Ftrl => {
                let (z, n) = state.split_at_mut(padded(dim));
                n[..dim].fill(accumulator);
                // FTRL computes w from z: begin with the z that gives the initial w.
                let denominator = (self.beta + self.initial_accumulator.sqrt()) / self.lr + self.l2;
                for (z, &w) in z.iter_mut().zip(weights) {
                    *z = if w == 0.0 {
                        0.0
                    } else {
                        -w * denominator as f32 - w.signum() * self.l1 as f32
                    };
                }
            }
        }
    }

    /// Updates one row by its gradient.
    ///
    /// # Shapes
    /// - weights, grad: `[dim]`
    /// - state: `[state_len(dim)]`
    #[inline]
    pub fn update(&self, weights: &mut [f32], state: &mut [f32], grad: &[f32], step: RowStep) {
        let dim = grad.len();
        let lr = self.lr as f32 * step.rate;
        let l2 = self.l2 as f32 * step.share;
        let penalized = |g: f32, w: f32| if g == 0.0 { 0.0 } else { g + l2 * w };
        let eps = self.eps as f32;
        match self.kind {
            RowOptimizerKind::Sgd => {
                for (w, &g) in weights.iter_mut().zip(grad) {
                    *w -= lr * penalized(g, *w);
                }
            }
            RowOptimizerKind::Adagrad => {
                for ((w, n), &g) in weights.iter_mut().zip(&mut state[..dim]).zip(grad) {
                    let g = penalized(g, *w);
                    *n += g * g;
                    *w -= g / (n.sqrt() + eps) * lr;
                }
            }
            RowOptimizerKind::RowwiseAdagrad => {
                let n = &mut state[0];
                let squares: f32 = grad.iter().map(|g| g * g).sum();
                *n += squares / dim as f32;
                let rate = lr / (n.sqrt() + eps);
                for (w, &g) in weights.iter_mut().zip(grad) {
                    *w -= rate * penalized(g, *w);
                }
            }
            RowOptimizerKind::Adam => {
                let (m, rest) = state.split_at_mut(padded(dim));
                let (v, time) = rest.split_at_mut(padded(dim));
                time[0] += 1.0;
                let (beta1, beta2) = (self.beta1 as f32, self.beta2 as f32);
                let bias1 = 1.0 - self.beta1.powf(f64::from(time[0]));
                let bias2 = 1.0 - self.beta2.powf(f64::from(time[0]));
                let rate = lr * (bias2.sqrt() / bias1) as f32;
                let eps = eps * bias2.sqrt() as f32;
                for (((w, m), v), &g) in weights.iter_mut().zip(m).zip(v).zip(grad) {
                    let g = penalized(g, *w);
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    *w -= rate * *m / (v.sqrt() + eps);
                }
            }
            RowOptimizerKind::Ftrl => {
                let (z, n) = state.split_at_mut(padded(dim));
                let (l1, l2, beta) = (self.l1 as f32, self.l2 as f32, self.beta as f32);
                // The schedule shortens the step. α in the closed form would move weights that stand
                // still: as it goes to zero, all of them to zero.
                let lr = self.lr as f32;
                for (((w, z), n), &g) in weights.iter_mut().zip(z).zip(n).zip(grad) {
                    let before = n.sqrt();
                    *n += g * g;
                    let after = n.sqrt();
                    *z += g * step.rate - (after - before) / lr * *w;
                    *w = if z.abs() <= l1 {
                        0.0
                    } else {
                        -(*z - z.signum() * l1) / ((beta + after) / lr + l2)
                    };
                }
            }
        }
    }
}

/// How wide a part of a row's state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateWidth {
    /// One float.
    One,
    /// As many floats as the row has weights.
    Dim,
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use burn::module::{Module, Param};
    use burn::optim::{AdaGradConfig, AdamConfig, GradientsParams, ModuleOptimizer, SgdConfig};
    use burn::tensor::{Device, Tensor};

    const STEP: RowStep = RowStep {
        rate: 1.0,
        share: 1.0,
    };

    #[derive(Module, Debug)]
    struct Weights {
        w: Param<Tensor<1>>,
    }

    /// Weights after Burn's dense optimizer has seen the gradients.
    fn dense(
        mut optimizer: ModuleOptimizer,
        lr: f64,
        start: [f32; 2],
        grads: &[[f32; 2]],
    ) -> Vec<f32> {
        let device = Device::flex().autodiff();
        let mut module = Weights {
            w: Param::from_data(start, &device),
        };
        for grad in grads {
            let loss = (module.w.val() * Tensor::<1>::from_data(*grad, &device)).sum();
            let grads = GradientsParams::from_grads(loss.backward(), &module);
            module = optimizer.step(lr, module, grads);
        }
        module.w.val().try_into_vec_as::<f32>().unwrap()
    }

    fn rows(optimizer: RowOptimizer, start: [f32; 2], grads: &[[f32; 2]]) -> Vec<f32> {
        let mut weights = start.to_vec();
        let mut state = vec![f32::NAN; optimizer.state_len(2)];
        optimizer.init_state(&weights, &mut state);
        for grad in grads {
            optimizer.update(&mut weights, &mut state, grad, STEP);
        }
        weights
    }

    const START: [f32; 2] = [0.5, -0.25];
    const GRADS: [[f32; 2]; 4] = [[0.1, -0.2], [0.3, 0.0], [-0.5, 0.01], [0.02, 0.4]];

    fn of(kind: RowOptimizerKind) -> RowOptimizer {
        RowOptimizer {
            kind,
            lr: 0.05,
            ..RowOptimizer::default()
        }
    }

    #[test]
    fn sgd_equals_dense_sgd() {
        let expected = dense(SgdConfig::new().init(), 0.05, START, &GRADS);
        for (got, expected) in rows(of(RowOptimizerKind::Sgd), START, &GRADS)
            .iter()
            .zip(expected)
        {
            assert_relative_eq!(*got, expected, epsilon = 1e-7);
        }
    }

    #[test]
    fn adagrad_equals_dense_adagrad_to_the_bit() {
        let expected = dense(
            AdaGradConfig::new().with_epsilon(1e-8).init(),
            0.05,
            START,
            &GRADS,
        );
        assert_eq!(rows(of(RowOptimizerKind::Adagrad), START, &GRADS), expected);
    }

    #[test]
    fn adam_equals_dense_adam_on_a_row_that_every_batch_touches() {
        let expected = dense(
            AdamConfig::new().with_epsilon(1e-8).init(),
            0.05,
            START,
            &GRADS,
        );
        for (got, expected) in rows(of(RowOptimizerKind::Adam), START, &GRADS)
            .iter()
            .zip(expected)
        {
            assert_relative_eq!(*got, expected, epsilon = 1e-6);
        }
    }

    #[test]
    fn rowwise_adagrad_divides_by_the_root_of_the_mean_square() {
        let optimizer = of(RowOptimizerKind::RowwiseAdagrad);
        let got = rows(optimizer, [1.0, 2.0], &[[3.0, 4.0]]);
        // √((9 + 16) / 2) = 3.5355
        assert_relative_eq!(got[0], 1.0 - 0.05 * 3.0 / 12.5f32.sqrt(), epsilon = 1e-6);
        assert_relative_eq!(got[1], 2.0 - 0.05 * 4.0 / 12.5f32.sqrt(), epsilon = 1e-6);
    }

    #[test]
    fn ftrl_follows_algorithm_1() {
        // Algorithm 1 of McMahan et al. 2013, where w is computed from z and n when it is needed.
        let (alpha, beta, l1, l2) = (0.1f64, 1.0f64, 0.05f64, 0.2f64);
        let (mut z, mut n) = (0.0f64, 0.0f64);
        let weight = |z: f64, n: f64| {
            if z.abs() <= l1 {
                0.0
            } else {
                -(z - z.signum() * l1) / ((beta + n.sqrt()) / alpha + l2)
            }
        };
        for g in [0.3, -0.1, 0.5, 0.2] {
            let sigma = ((n + g * g).sqrt() - n.sqrt()) / alpha;
            z += g - sigma * weight(z, n);
            n += g * g;
        }
        let optimizer = RowOptimizer {
            kind: RowOptimizerKind::Ftrl,
            lr: alpha,
            l1,
            l2,
            beta,
            ..RowOptimizer::default()
        };
        let got = rows(
            optimizer,
            [0.0, 0.0],
            &[[0.3, 0.01], [-0.1, 0.01], [0.5, 0.01], [0.2, 0.01]],
        );
        assert_relative_eq!(got[0], weight(z, n) as f32, epsilon = 1e-6);
        assert_eq!(got[1], 0.0, "a gradient below l1 leaves an exact zero");
    }

    #[test]
    fn ftrl_at_the_end_of_a_schedule_leaves_its_weights_where_they_are() {
        let optimizer = RowOptimizer {
            l1: 0.01,
            ..of(RowOptimizerKind::Ftrl)
        };
        let mut weights = START.to_vec();
        let mut state = vec![f32::NAN; optimizer.state_len(2)];
        optimizer.init_state(&weights, &mut state);
        optimizer.update(&mut weights, &mut state, &GRADS[0], STEP);
        let before = weights.clone();
        let end = RowStep { rate: 0.0, ..STEP };
        optimizer.update(&mut weights, &mut state, &GRADS[2], end);
        for (after, before) in weights.iter().zip(&before) {
            assert_relative_eq!(after, before, max_relative = 1e-5);
        }
        // At half the rate half as far, of what η = α / (β + √n) gives the gradient.
        let half = RowStep { rate: 0.5, ..STEP };
        optimizer.update(&mut weights, &mut state, &GRADS[3], half);
        let n: f32 = [0, 2, 3]
            .iter()
            .map(|&at: &usize| GRADS[at][1].powi(2))
            .sum();
        let eta = 0.05 / (1.0 + n.sqrt());
        assert_relative_eq!(
            weights[1],
            before[1] - 0.5 * eta * GRADS[3][1],
            max_relative = 1e-4
        );
    }

    #[test]
    fn ftrl_keeps_initial_weights() {
        let optimizer = RowOptimizer {
            kind: RowOptimizerKind::Ftrl,
            l1: 0.1,
            ..RowOptimizer::default()
        };
        for (got, start) in rows(optimizer, START, &[[0.0, 0.0]]).iter().zip(START) {
            assert_relative_eq!(*got, start, epsilon = 1e-6);
        }
    }

    #[test]
    fn l2_is_paid_in_proportion_to_a_rows_share_of_the_batch() {
        let optimizer = RowOptimizer {
            kind: RowOptimizerKind::Sgd,
            lr: 0.1,
            l2: 0.5,
            ..RowOptimizer::default()
        };
        let mut weights = [2.0f32, 2.0];
        optimizer.update(
            &mut weights,
            &mut [],
            &[0.1, 0.0],
            RowStep {
                rate: 1.0,
                share: 0.25,
            },
        );
        assert_relative_eq!(
            weights[0],
            2.0 - 0.1 * (0.1 + 0.5 * 0.25 * 2.0),
            epsilon = 1e-7
        );
        assert_eq!(weights[1], 2.0, "a weight that took no part pays nothing");
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let error = RowOptimizer {
            lr: -1.0,
            ..RowOptimizer::default()
        }
        .check("v8.ad")
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "optimizer of table `v8.ad`: lr is -1, expected a finite number above 0"
        );
        assert!(
            RowOptimizer {
                l2: f64::NAN,
                ..RowOptimizer::default()
            }
            .check("t")
            .is_err()
        );
    }
}
