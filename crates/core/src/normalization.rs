//! Layers that bring units to mean 0 and variance 1.

use burn::module::{Module, Param, RunningState};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// What the units of a hidden layer are brought to mean 0 and variance 1 over, before the
/// activation.
///
/// ```text
/// ŷ = γ (y − mean) / √(variance + 10⁻⁵) + β
/// ```
///
/// with a trained γ and β for each unit, which start at 1 and 0.
///
/// ```
/// use crossfield_core::{MlpConfig, Normalization};
///
/// assert_eq!(MlpConfig::default().norm, Normalization::None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// Nothing.
    #[default]
    None,
    /// Each unit over the rows of the batch (Ioffe and Szegedy 2015, algorithm 1); where nothing
    /// is trained, with running statistics that have taken in a tenth of those of each batch.
    Batch,
    /// The units of each row (Ba, Kiros and Hinton 2016, equations 3 and 4).
    Layer,
}

impl Normalization {
    /// The name in a run file.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Batch => "batch",
            Self::Layer => "layer",
        }
    }

    /// The layer for `units` units.
    pub(crate) fn init(self, units: usize, device: &Device) -> Option<Norm> {
        match self {
            Self::None => None,
            Self::Batch => Some(Norm::Batch(BatchNorm::new(units, device))),
            Self::Layer => {
                let config = LayerNormConfig::new(units).with_epsilon(EPSILON);
                Some(Norm::Layer(config.init(device)))
            }
        }
    }
}

const EPSILON: f64 = 1e-5;

/// The share of a batch in the running statistics.
const MOMENTUM: f64 = 0.1;

/// A layer of one of the kinds.
#[derive(Module, Debug)]
pub(crate) enum Norm {
    Batch(BatchNorm),
    Layer(LayerNorm),
}

impl Norm {
    /// # Shapes
    /// - input and output: `[batch, units]`
    pub(crate) fn forward(&self, input: Tensor<2>, is_training: bool) -> Tensor<2> {
        match self {
            Self::Batch(norm) => norm.forward(input, is_training),
            Self::Layer(norm) => norm.forward(input),
        }
    }
}

/// Batch normalization. Burn's own keeps the statistics of the last batch aside until the next one
/// or until the model is copied for evaluation: a checkpoint would lack them, and a model that
/// was read back would get them. Here they are taken in at once. Which statistics are used follows
/// from what the rows are for, not from the device.
#[derive(Module, Debug)]
pub(crate) struct BatchNorm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
    running_mean: RunningState<Tensor<1>>,
    running_var: RunningState<Tensor<1>>,
}

impl BatchNorm {
    fn new(units: usize, device: &Device) -> Self {
        Self {
            gamma: Param::from_tensor(Tensor::ones([units], device)),
            beta: Param::from_tensor(Tensor::zeros([units], device)),
            running_mean: RunningState::new(Tensor::zeros([units], device)),
            running_var: RunningState::new(Tensor::ones([units], device)),
        }
    }

    /// A single row has no variance: it goes by the running statistics, as in evaluation, and
    /// leaves them as they are.
    fn forward(&self, input: Tensor<2>, is_training: bool) -> Tensor<2> {
        let rows = input.dims()[0];
        let [mean, var] = [&self.running_mean, &self.running_var];
        if !is_training || rows < 2 {
            let [mean, var] = [mean, var].map(|running| as_row(running.value()));
            return self.scale(input - mean, var);
        }
        // Along the rows as they lie in memory: Burn's operation, for any number of dimensions, copies
        // them with rows and units exchanged, forward and backward.
        let of_batch = input.clone().mean_dim(0);
        let centered = input - of_batch.clone();
        let variance = centered.clone().square().mean_dim(0);
        let units = |row: Tensor<2>| row.squeeze_dim::<1>(0);
        take_in(mean, units(of_batch));
        take_in(var, sample_variance(units(variance.clone()), rows));
        self.scale(centered, variance)
    }

    /// # Shapes
    /// - centered: `[batch, units]`
    /// - variance: `[1, units]`
    fn scale(&self, centered: Tensor<2>, variance: Tensor<2>) -> Tensor<2> {
        let deviation = variance.add_scalar(EPSILON).sqrt();
        centered * (as_row(self.gamma.val()) / deviation) + as_row(self.beta.val())
    }
}

pub(crate) fn as_row(units: Tensor<1>) -> Tensor<2> {
    units.unsqueeze_dim(0)
}

/// The variance of what a batch of so many rows is a sample of: algorithm 2 of Ioffe and Szegedy,
/// step 10.
pub(crate) fn sample_variance(of_batch: Tensor<1>, rows: usize) -> Tensor<1> {
    of_batch.mul_scalar(rows as f64 / (rows as f64 - 1.0))
}

/// Brings a running statistic nearer to that of a batch.
///
/// # Shapes
/// - of_batch: `[units]`
pub(crate) fn take_in(running: &RunningState<Tensor<1>>, of_batch: Tensor<1>) {
    let of_batch = of_batch.detach().mul_scalar(MOMENTUM);
    running.update(running.value().mul_scalar(1.0 - MOMENTUM) + of_batch);
    running.value_sync();
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.try_into_vec_as::<f32>().unwrap()
    }

    fn assert_all_close(got: &[f32], expected: &[f32]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert_relative_eq!(*got, *expected, epsilon = 1e-4, max_relative = 1e-4);
        }
    }

    #[test]
    fn a_batch_is_normalized_by_its_own_statistics_and_evaluation_by_the_running_ones() {
        let device = Device::flex().autodiff();
        let norm = BatchNorm::new(2, &device);
        // Means 2 and 5, variances (1 + 0 + 1) / 3 and (16 + 0 + 16) / 3.
        let rows = Tensor::from_data([[1.0, 1.0], [2.0, 5.0], [3.0, 9.0]], &device);
        let end = 1.5f32.sqrt();
        let out = norm.forward(rows.clone(), true);
        assert_all_close(&values(out), &[-end, -end, 0.0, 0.0, end, end]);
        // 0.9 · 0 + 0.1 · mean; 0.9 · 1 + 0.1 · 3/2 · variance. A visitor sees them at once.
        let (mean, var) = ([0.2, 0.5], [1.0, 2.5]);
        assert_all_close(&values(norm.running_mean.value()), &mean);
        assert_all_close(&values(norm.running_var.value()), &var);

        let scored = norm.valid().forward(rows.inner(), false);
        let of = |x: f32, unit: usize| (x - mean[unit]) / (var[unit] + 1e-5f32).sqrt();
        let expected = [1.0, 2.0, 3.0]
            .into_iter()
            .zip([1.0, 5.0, 9.0])
            .flat_map(|(a, b)| [of(a, 0), of(b, 1)])
            .collect::<Vec<f32>>();
        assert_all_close(&values(scored), &expected);
        assert_all_close(&values(norm.running_mean.value()), &mean);
    }

    #[test]
    fn a_batch_of_one_row_goes_by_the_running_statistics_and_leaves_them() {
        let device = Device::flex().autodiff();
        let norm = BatchNorm::new(1, &device);
        let row = Tensor::<2>::from_data([[3.0]], &device).require_grad();
        let out = norm.forward(row.clone(), true);
        assert_all_close(&values(out.clone()), &[3.0]);
        assert_eq!(values(norm.running_mean.value()), [0.0]);
        assert_eq!(values(norm.running_var.value()), [1.0]);
        let gradients = out.sum().backward();
        assert_all_close(&values(row.grad(&gradients).unwrap()), &[1.0]);
    }

    #[test]
    fn rows_that_are_all_alike_are_normalized_to_zero() {
        let device = Device::flex().autodiff();
        let norm = BatchNorm::new(1, &device);
        let rows = Tensor::<2>::from_data([[7.0], [7.0]], &device).require_grad();
        let out = norm.forward(rows.clone(), true);
        assert_eq!(values(out.clone()), [0.0, 0.0]);
        let gradient = rows.grad(&out.square().sum().backward()).unwrap();
        assert!(values(gradient).iter().all(|gradient| gradient.is_finite()));
    }

    #[test]
    fn a_layer_is_normalized_row_by_row() {
        let device = Device::flex();
        let norm = Normalization::Layer.init(3, &device).unwrap();
        let rows = Tensor::from_data([[1.0, 2.0, 3.0], [10.0, 10.0, 40.0]], &device);
        let end = 1.5f32.sqrt();
        // The second row: mean 20, variance (100 + 100 + 400) / 3.
        let (low, high) = (-(0.5f32.sqrt()), 2.0f32.sqrt());
        let out = values(norm.forward(rows, false));
        assert_all_close(&out, &[-end, 0.0, end, low, low, high]);
    }

    #[test]
    fn the_gradient_of_a_batch_equals_finite_differences() {
        let device = Device::flex().autodiff();
        let start = [[1.0f32, -2.0], [0.5, 3.0], [2.0, 0.25]];
        let loss = |rows: [[f32; 2]; 3]| {
            let norm = BatchNorm::new(2, &device);
            let rows = Tensor::<2>::from_data(rows, &device).require_grad();
            let weights = Tensor::from_data([[1.0, 0.5], [-2.0, 1.5], [0.25, 2.0]], &device);
            (rows.clone(), (norm.forward(rows, true) * weights).sum())
        };
        let (rows, sum) = loss(start);
        let gradient = values(rows.grad(&sum.backward()).unwrap());
        for (at, gradient) in gradient.into_iter().enumerate() {
            let moved = |by: f32| {
                let mut rows = start;
                rows[at / 2][at % 2] += by;
                loss(rows).1.into_scalar::<f32>()
            };
            let expected = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert_relative_eq!(gradient, expected, epsilon = 2e-3);
        }
    }
}
