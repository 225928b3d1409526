//! What follows a hidden layer: functions of each unit, some with a weight of its own for each.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::module::{Module, Param, RunningState};
use burn::tensor::{Device, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

use crate::gather::is_flex_f32;
use crate::normalization::{as_row, sample_variance, take_in};
use crate::units::{self, Moments};

/// The non-linear function of a hidden layer.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use crossfield_core::Activation;
///
/// let device = Device::flex();
/// let units = Tensor::<2>::from_data([[-2.0, 3.0]], &device);
/// let of = |activation: Activation| {
///     let layer = activation.init(2, &device);
///     layer.forward(units.clone(), false).try_into_vec_as::<f32>().unwrap()
/// };
/// assert_eq!(of(Activation::Relu), [0.0, 3.0]);
/// assert_eq!(of(Activation::Prelu), [-0.5, 3.0]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// max(x, 0), what Cheng et al. 2016 use.
    #[default]
    Relu,
    /// x Φ(x), with Φ of the standard normal distribution (Hendrycks and Gimpel 2016).
    Gelu,
    /// x σ(x), Swish with β = 1 (Ramachandran et al. 2017).
    Silu,
    /// tanh(x).
    Tanh,
    /// σ(x) = 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// x where it is above 0, else α x, with an α trained for each unit, which starts at 0.25 (He et
    /// al. 2015, equation 1).
    Prelu,
    /// p x + (1 − p) α x with p = σ((x − mean) / √(variance + 10⁻⁸)) and an α trained for each unit,
    /// which starts at 0 (Zhou et al. 2018, equation 3). Mean and variance are the unit's over the
    /// batch, or, where nothing is trained, running ones that have taken in a tenth of those of each
    /// batch.
    Dice,
}

/// Where the slope below 0 of a rectified unit starts.
const PRELU_START: f32 = 0.25;

/// What is added to a variance under [`Activation::Dice`].
const DICE_EPSILON: f32 = 1e-8;

impl Activation {
    /// The layer of this function for `units` units.
    pub fn init(self, units: usize, device: &Device) -> ActivationLayer {
        let slope = |start| Param::from_tensor(Tensor::full([units], start, device));
        let running = |start| RunningState::new(Tensor::full([units], start, device));
        let (slope, running_mean, running_var) = match self {
            Self::Prelu => (Some(slope(PRELU_START)), None, None),
            Self::Dice => (Some(slope(0.0)), Some(running(0.0)), Some(running(1.0))),
            _ => (None, None, None),
        };
        ActivationLayer {
            function: self,
            slope,
            running_mean,
            running_var,
        }
    }
}

/// A function of each unit, with what it has learned.
///
/// [`Activation::init`] makes it; its example calls it.
#[derive(Module, Debug)]
pub struct ActivationLayer {
    #[module(skip)]
    function: Activation,
    /// α of PReLU and of Dice, `[units]`.
    slope: Option<Param<Tensor<1>>>,
    /// Of Dice.
    running_mean: Option<RunningState<Tensor<1>>>,
    running_var: Option<RunningState<Tensor<1>>>,
}

impl ActivationLayer {
    /// Which function it is.
    pub fn function(&self) -> Activation {
        self.function
    }

    /// The function of each unit. While training, statistics are those of these rows, and running ones
    /// take them in; a single row has no variance and goes by the running ones.
    ///
    /// # Shapes
    /// - input and output: `[batch, units]`
    pub fn forward(&self, input: Tensor<2>, is_training: bool) -> Tensor<2> {
        match self.function {
            Activation::Relu => activation::relu(input),
            Activation::Gelu => activation::gelu(input),
            Activation::Silu => activation::silu(input),
            Activation::Tanh => activation::tanh(input),
            Activation::Sigmoid => activation::sigmoid(input),
            Activation::Prelu => prelu(input, self.slope()),
            Activation::Dice => self.dice(input, is_training),
        }
    }

    fn slope(&self) -> Tensor<1> {
        let slope = self.slope.as_ref();
        slope.expect("made with a slope for each unit").val()
    }

    fn dice(&self, input: Tensor<2>, is_training: bool) -> Tensor<2> {
        let running = [&self.running_mean, &self.running_var];
        let running = running.map(|state| state.as_ref().expect("made with statistics"));
        let rows = input.dims()[0];
        if !is_training || rows < 2 {
            let [mean, var] = running.map(|state| state.value());
            return dice(input, self.slope(), (mean, var), false);
        }
        let (mean, var) = moments(input.clone());
        let of_batch = [mean.clone(), sample_variance(var.clone(), rows)];
        for (state, of_batch) in running.into_iter().zip(of_batch) {
            take_in(state, of_batch);
        }
        dice(input, self.slope(), (mean, var), true)
    }
}

/// Mean and variance of each unit over the rows, as constants of the graph.
///
/// # Shapes
/// - x: `[rows, units]`
/// - outputs: `[units]`
fn moments(x: Tensor<2>) -> (Tensor<1>, Tensor<1>) {
    let x = x.detach();
    let [_, units] = x.dims();
    let both = if is_flex_f32(&x) {
        Tensor::from_dispatch(<Dispatch as UnitFunctions>::unit_moments(x.into_dispatch()))
    } else {
        let mean = x.clone().mean_dim(0);
        let var = (x - mean.clone()).square().mean_dim(0);
        Tensor::cat(vec![mean, var], 0)
    };
    let of = |nth: usize| both.clone().narrow(0, nth, 1).reshape([units]);
    (of(0), of(1))
}

/// x where above 0, else slope · x.
fn prelu(x: Tensor<2>, slope: Tensor<1>) -> Tensor<2> {
    if !(is_flex_f32(&x) && is_flex_f32(&slope)) {
        return prelu_plain(x, slope);
    }
    let (x, slope) = (x.into_dispatch(), slope.into_dispatch());
    Tensor::from_dispatch(<Dispatch as UnitFunctions>::unit_prelu(x, slope))
}

/// [`prelu`] in Burn's own operations, for any device.
fn prelu_plain(x: Tensor<2>, slope: Tensor<1>) -> Tensor<2> {
    let below = x.clone().clamp_max(0.0) * as_row(slope);
    activation::relu(x) + below
}

/// p x + (1 − p) slope x, where p = σ((x − mean) / √(var + ε)). With `of_batch` mean and variance are
/// those of the rows of `x`, and its gradient goes through them.
///
/// # Shapes
/// - x: `[rows, units]`
/// - slope, mean, var: `[units]`
fn dice(
    x: Tensor<2>,
    slope: Tensor<1>,
    (mean, var): (Tensor<1>, Tensor<1>),
    of_batch: bool,
) -> Tensor<2> {
    if !(is_flex_f32(&x) && is_flex_f32(&slope)) {
        return dice_plain(x, slope, (mean, var), of_batch);
    }
    let statistics = Tensor::cat(vec![as_row(mean), as_row(var)], 0);
    Tensor::from_dispatch(<Dispatch as UnitFunctions>::unit_dice(
        x.into_dispatch(),
        slope.into_dispatch(),
        statistics.detach().into_dispatch(),
        of_batch,
    ))
}

/// [`dice`] in Burn's own operations, for any device.
fn dice_plain(
    x: Tensor<2>,
    slope: Tensor<1>,
    (mean, var): (Tensor<1>, Tensor<1>),
    of_batch: bool,
) -> Tensor<2> {
    let (centered, var) = if of_batch {
        let centered = x.clone() - x.clone().mean_dim(0);
        let var = centered.clone().square().mean_dim(0);
        (centered, var)
    } else {
        (x.clone() - as_row(mean), as_row(var))
    };
    let p = activation::sigmoid(centered / var.add_scalar(DICE_EPSILON).sqrt());
    let slope = as_row(slope);
    x * (slope.clone() + p * (slope.neg().add_scalar(1.0)))
}

/// The operations; a backend listed here takes part in Burn's dispatch.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait UnitFunctions: Backend {
    /// `[rows, units]` and `[units]` to `[rows, units]`.
    fn unit_prelu(x: FloatTensor<Self>, slope: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `[rows, units]`, `[units]`, and mean and variance `[2, units]` to `[rows, units]`.
    fn unit_dice(
        x: FloatTensor<Self>,
        slope: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        of_batch: bool,
    ) -> FloatTensor<Self>;

    /// `[rows, units]` to mean and variance, `[2, units]`, without a gradient.
    fn unit_moments(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Their gradients, which backends below autodiff have: by `x` and by `slope`.
pub(crate) trait UnitFunctionsGradient: UnitFunctions {
    fn prelu_gradient(
        x: FloatTensor<Self>,
        slope: FloatTensor<Self>,
        output: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];

    fn dice_gradient(
        x: FloatTensor<Self>,
        slope: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        of_batch: bool,
        output: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];
}

fn contiguous(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("contiguous, and f32 by `forward`")
}

fn like(x: &FlexTensor, values: Vec<f32>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, x.shape()))
}

/// 1 / √(variance + ε) in place of the variances.
fn dice_moments(statistics: &FlexTensor) -> Moments {
    let (mean, var) = contiguous(statistics).split_at(contiguous(statistics).len() / 2);
    let scale = |var: &f32| 1.0 / (var + DICE_EPSILON).sqrt();
    Moments {
        mean: mean.to_vec(),
        scale: var.iter().map(scale).collect(),
    }
}

/// The numbers of a tensor, to be written over. They are copied only where the graph holds them too.
fn to_overwrite(tensor: FlexTensor) -> FlexTensor {
    let contiguous = tensor.to_contiguous();
    drop(tensor);
    contiguous
}

impl UnitFunctions for Flex {
    fn unit_prelu(x: FlexTensor, slope: FlexTensor) -> FlexTensor {
        let [x, slope] = [x, slope].map(|tensor| tensor.to_contiguous());
        like(&x, units::prelu(contiguous(&x), contiguous(&slope)))
    }

    fn unit_dice(
        x: FlexTensor,
        slope: FlexTensor,
        statistics: FlexTensor,
        _of_batch: bool,
    ) -> FlexTensor {
        let [x, slope, statistics] = [x, slope, statistics].map(|tensor| tensor.to_contiguous());
        let moments = dice_moments(&statistics);
        like(
            &x,
            units::dice(contiguous(&x), contiguous(&slope), &moments),
        )
    }

    fn unit_moments(x: FlexTensor) -> FlexTensor {
        let x = x.to_contiguous();
        let [_, units] = x.shape().dims();
        let moments = units::moments(contiguous(&x), units);
        FlexTensor::from_data(TensorData::new(moments, [2, units]))
    }
}

impl UnitFunctionsGradient for Flex {
    fn prelu_gradient(x: FlexTensor, slope: FlexTensor, output: FlexTensor) -> [FlexTensor; 2] {
        let [x, slope] = [x, slope].map(|tensor| tensor.to_contiguous());
        let mut by_x = to_overwrite(output);
        let by_slope =
            units::prelu_gradient(contiguous(&x), contiguous(&slope), by_x.storage_mut());
        [by_x, like(&slope, by_slope)]
    }

    fn dice_gradient(
        x: FlexTensor,
        slope: FlexTensor,
        statistics: FlexTensor,
        of_batch: bool,
        output: FlexTensor,
    ) -> [FlexTensor; 2] {
        let [x, slope, statistics] = [x, slope, statistics].map(|tensor| tensor.to_contiguous());
        let moments = dice_moments(&statistics);
        let mut by_x = to_overwrite(output);
        let by_slope = units::dice_gradient(
            contiguous(&x),
            contiguous(&slope),
            (&moments, of_batch),
            by_x.storage_mut(),
        );
        [by_x, like(&slope, by_slope)]
    }
}

#[derive(Debug)]
struct PreluBackward;

impl<B: UnitFunctionsGradient> Backward<B, 2> for PreluBackward {
    type State = [B::FloatTensorPrimitive; 2];

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [x, slope] = ops.state;
        let output = gradients.consume::<B>(&ops.node);
        let both = B::prelu_gradient(x, slope, output);
        for (node, gradient) in ops.parents.into_iter().zip(both) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct DiceBackward;

impl<B: UnitFunctionsGradient> Backward<B, 2> for DiceBackward {
    /// Input, slope, statistics, and whether these are those of the batch.
    type State = ([B::FloatTensorPrimitive; 3], bool);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let ([x, slope, statistics], of_batch) = ops.state;
        let output = gradients.consume::<B>(&ops.node);
        let both = B::dice_gradient(x, slope, statistics, of_batch, output);
        for (node, gradient) in ops.parents.into_iter().zip(both) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: UnitFunctionsGradient, C: CheckpointStrategy> UnitFunctions for Autodiff<B, C> {
    fn unit_prelu(x: FloatTensor<Self>, slope: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((x, x_node), (slope, slope_node)) = (x.into_parts(), slope.into_parts());
        match PreluBackward
            .prepare::<C>([x_node, slope_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let output = B::unit_prelu(x.clone(), slope.clone());
                step.finish([x, slope], output)
            }
            OpsKind::UnTracked(step) => step.finish(B::unit_prelu(x, slope)),
        }
    }

    fn unit_dice(
        x: FloatTensor<Self>,
        slope: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        of_batch: bool,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (slope, slope_node)) = (x.into_parts(), slope.into_parts());
        let statistics = statistics.into_primitive();
        match DiceBackward
            .prepare::<C>([x_node, slope_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let output = B::unit_dice(x.clone(), slope.clone(), statistics.clone(), of_batch);
                step.finish(([x, slope, statistics], of_batch), output)
            }
            OpsKind::UnTracked(step) => step.finish(B::unit_dice(x, slope, statistics, of_batch)),
        }
    }

    fn unit_moments(x: FloatTensor<Self>) -> FloatTensor<Self> {
        FloatTensor::<Self>::new(B::unit_moments(x.into_primitive()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use proptest::prelude::*;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.try_into_vec_as::<f32>().unwrap()
    }

    #[test]
    fn activations_are_their_equations() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        for x in [-3.0f64, -0.5, 0.0, 0.25, 2.0] {
            let normal = 0.5 * (1.0 + libm::erf(x / 2.0f64.sqrt()));
            for (activation, expected) in [
                (Activation::Relu, x.max(0.0)),
                (Activation::Gelu, x * normal),
                (Activation::Silu, x * sigmoid(x)),
                (Activation::Tanh, x.tanh()),
                (Activation::Sigmoid, sigmoid(x)),
                (Activation::Prelu, if x > 0.0 { x } else { 0.25 * x }),
                // Of mean 0, variance 1 and α = 0, as it starts.
                (Activation::Dice, x * sigmoid(x)),
            ] {
                let device = Device::flex();
                let x = Tensor::<2>::from_data([[x as f32]], &device);
                let got = values(activation.init(1, &device).forward(x, false))[0];
                assert_relative_eq!(f64::from(got), expected, epsilon = 1e-6);
            }
        }
    }

    #[test]
    fn dice_bends_at_the_mean_of_the_batch_and_later_at_the_running_one() {
        let device = Device::flex().autodiff();
        let layer = Activation::Dice.init(1, &device);
        // Mean 2, variance 2/3, of a sample of three 1.
        let rows = Tensor::from_data([[1.0], [2.0], [3.0]], &device);
        let end = 1.5f32.sqrt();
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        let got = values(layer.forward(rows.clone(), true));
        for (got, expected) in got
            .iter()
            .zip([sigmoid(-end), 2.0 * 0.5, 3.0 * sigmoid(end)])
        {
            assert_relative_eq!(*got, expected, epsilon = 1e-5);
        }
        let running =
            |state: &Option<RunningState<Tensor<1>>>| values(state.as_ref().unwrap().value())[0];
        assert_relative_eq!(running(&layer.running_mean), 0.2, epsilon = 1e-6);
        assert_relative_eq!(running(&layer.running_var), 1.0, epsilon = 1e-6);
        let scored = values(layer.valid().forward(rows.inner(), false));
        assert_relative_eq!(scored[2], 3.0 * sigmoid(2.8), epsilon = 1e-5);
        assert_relative_eq!(running(&layer.running_mean), 0.2, epsilon = 1e-6);
        // One row says nothing of a variance.
        let one = Tensor::from_data([[3.0]], &device);
        let got = values(layer.forward(one, true))[0];
        assert_relative_eq!(got, 3.0 * sigmoid(2.8), epsilon = 1e-5);
        assert_relative_eq!(running(&layer.running_mean), 0.2, epsilon = 1e-6);
    }

    #[derive(Clone, Copy, Debug)]
    enum Form {
        Prelu,
        Dice,
        DiceOfBatch,
    }

    /// Output, and the gradients of Σ weight · output² by input and slope.
    fn all(form: Form, plain: bool, x: &[f32], slope: &[f32]) -> [Vec<f32>; 3] {
        let device = Device::flex().autodiff();
        let units = slope.len();
        let shape = [x.len() / units, units];
        let x = Tensor::<2>::from_data(TensorData::new(x.to_vec(), shape), &device).require_grad();
        let slope = Tensor::<1>::from_data(slope, &device).require_grad();
        let statistics = if matches!(form, Form::DiceOfBatch) {
            moments(x.clone())
        } else {
            let of = |value: f32| Tensor::<1>::full([units], value, &device);
            (of(0.3), of(0.7))
        };
        let (input, slopes) = (x.clone(), slope.clone());
        let output = match (form, plain) {
            (Form::Prelu, true) => prelu_plain(input, slopes),
            (Form::Prelu, false) => prelu(input, slopes),
            (Form::Dice, true) => dice_plain(input, slopes, statistics, false),
            (Form::Dice, false) => dice(input, slopes, statistics, false),
            (Form::DiceOfBatch, true) => dice_plain(input, slopes, statistics, true),
            (Form::DiceOfBatch, false) => dice(input, slopes, statistics, true),
        };
        let weights: Vec<f32> = (0..shape[0] * units)
            .map(|at| (at % 7) as f32 - 2.5)
            .collect();
        let weights = Tensor::<2>::from_data(TensorData::new(weights, shape), &device);
        let mut gradients = (output.clone().square() * weights).sum().backward();
        [
            values(output),
            values(x.grad_remove(&mut gradients).unwrap()),
            values(slope.grad_remove(&mut gradients).unwrap()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_operations_equal_the_plain_forms_and_their_gradients(
            units in 1usize..20,
            rows in 2usize..40,
            seed in prop::collection::vec(-3.0f32..3.0, 1024),
            form in prop::sample::select(vec![Form::Prelu, Form::Dice, Form::DiceOfBatch]),
        ) {
            let (x, slope) = (&seed[..rows * units], &seed[1000..1000 + units]);
            let [custom, plain] = [false, true].map(|plain| all(form, plain, x, slope));
            for (custom, plain) in custom.iter().zip(&plain) {
                let size = plain.iter().fold(1f32, |size, value| size.max(value.abs()));
                for (custom, plain) in custom.iter().zip(plain) {
                    prop_assert!((custom - plain).abs() <= 2e-5 * size, "{custom} {plain}");
                }
            }
        }
    }

    #[test]
    fn a_rows_units_do_not_depend_on_the_rows_beside_it() {
        let device = Device::flex();
        for activation in [Activation::Prelu, Activation::Dice] {
            let layer = activation.init(5, &device);
            let rows: Vec<f32> = (0..500 * 5)
                .map(|at| (at % 23) as f32 / 7.0 - 1.5)
                .collect();
            let all = Tensor::<2>::from_data(TensorData::new(rows.clone(), [500, 5]), &device);
            let all = values(layer.forward(all, false));
            let last =
                Tensor::<2>::from_data(TensorData::new(rows[499 * 5..].to_vec(), [1, 5]), &device);
            assert_eq!(values(layer.forward(last, false)), all[499 * 5..]);
        }
    }
}
