//! A dense layer with its activation: a custom operation on flex, plain tensors elsewhere.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, TensorData, activation, module};

use crate::gather::is_flex_f32;
use crate::{Matrix, product};

/// `x W + b`, the affine map of a layer.
///
/// On flex it is one operation with a gradient of its own, the same bits at any number of threads;
/// on other devices it is Burn's own `linear`. It has no second derivative.
///
/// # Shapes
/// - x: `[batch, inputs]`
/// - weight: `[inputs, outputs]`
/// - bias: `[outputs]`
/// - output: `[batch, outputs]`
///
/// # Panics
/// If the shapes do not fit.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use crossfield_core::{dense_layer, dense_layer_relu};
///
/// let device = Device::flex();
/// let x = Tensor::<2>::from_data([[1.0, 2.0]], &device);
/// let weight = Tensor::<2>::from_data([[1.0, -1.0], [10.0, -10.0]], &device);
/// let bias = Tensor::<1>::from_data([0.5, 0.5], &device);
/// let z = dense_layer(x.clone(), weight.clone(), bias.clone());
/// assert_eq!(z.try_into_vec_as::<f32>().unwrap(), [21.5, -20.5]);
/// let z = dense_layer_relu(x, weight, bias);
/// assert_eq!(z.try_into_vec_as::<f32>().unwrap(), [21.5, 0.0]);
/// ```
pub fn dense_layer(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    layer(x, weight, bias, false)
}

/// `max(x W + b, 0)`, a layer of rectified units. A NaN stays one.
///
/// Operation, shapes and panics are those of [`dense_layer`], whose example has both.
pub fn dense_layer_relu(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    layer(x, weight, bias, true)
}

fn layer(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, relu: bool) -> Tensor<2> {
    let ([_, inputs], [rows, outputs], [biases]) = (x.dims(), weight.dims(), bias.dims());
    assert!(
        inputs == rows && outputs == biases,
        "`x` is {:?}, `weight` {:?}, `bias` {:?}: expected [batch, inputs], [inputs, outputs] and \
         [outputs]",
        x.dims(),
        weight.dims(),
        bias.dims()
    );
    if is_flex_f32(&x) && is_flex_f32(&weight) && is_flex_f32(&bias) {
        let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
        let output = <Dispatch as DenseLayer>::dense_layer(x.into_dispatch(), weight, bias, relu);
        Tensor::from_dispatch(output)
    } else {
        layer_plain(x, weight, bias, relu)
    }
}

/// [`layer`] in Burn's own operations, for any device.
fn layer_plain(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, relu: bool) -> Tensor<2> {
    let output = module::linear(x, weight, Some(bias));
    if relu {
        activation::relu(output)
    } else {
        output
    }
}

/// The operation; a backend listed here takes part in Burn's dispatch.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait DenseLayer: Backend {
    /// `[batch, inputs]`, `[inputs, outputs]` and `[outputs]` to `[batch, outputs]`.
    fn dense_layer(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        relu: bool,
    ) -> FloatTensor<Self>;
}

/// Its gradients, which backends below autodiff have.
pub(crate) trait DenseLayerGradient: DenseLayer {
    /// The gradient by `x W + b` and the one by the bias, given the one by the output; `output` is
    /// that of rectified units.
    fn bias_gradient(
        output: Option<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient by `x`, given the one by `x W + b`.
    fn input_gradient(weight: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The gradient by the weights, given the one by `x W + b`.
    fn weight_gradient(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl DenseLayer for Flex {
    fn dense_layer(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, relu: bool) -> FlexTensor {
        let [x, weight, bias] = [x, weight, bias].map(|tensor| tensor.to_contiguous());
        let ([batch, inputs], [_, outputs]) = (x.shape().dims(), weight.shape().dims());
        let x = Matrix::new(contiguous(&x), batch, inputs);
        let mut output = rows_times(x, Matrix::new(contiguous(&weight), inputs, outputs));
        let bias = contiguous(&bias);
        for row in output.chunks_exact_mut(outputs.max(1)) {
            if relu {
                for (z, &bias) in row.iter_mut().zip(bias) {
                    let sum = *z + bias;
                    // The comparison leaves a NaN as it is.
                    *z = if sum < 0.0 { 0.0 } else { sum };
                }
            } else {
                row.iter_mut().zip(bias).for_each(|(z, &bias)| *z += bias);
            }
        }
        FlexTensor::from_data(TensorData::new(output, [batch, outputs]))
    }
}

impl DenseLayerGradient for Flex {
    fn bias_gradient(output: Option<FlexTensor>, gradient: FlexTensor) -> (FlexTensor, FlexTensor) {
        let mut by_sum = gradient.to_contiguous();
        // Where the graph was the last to hold it, the gradient is written over.
        drop(gradient);
        let [_, outputs] = by_sum.shape().dims();
        let mut by_bias = vec![0f32; outputs];
        let mut add = |row: &[f32]| {
            for (sum, &g) in by_bias.iter_mut().zip(row) {
                *sum += g;
            }
        };
        // Row by row on one thread: the order of additions is always the same.
        match output {
            Some(output) => {
                let output = output.to_contiguous();
                let rows = by_sum.storage_mut::<f32>().chunks_exact_mut(outputs.max(1));
                for (row, output) in rows.zip(contiguous(&output).chunks_exact(outputs.max(1))) {
                    for (g, &output) in row.iter_mut().zip(output) {
                        *g = if output <= 0.0 { 0.0 } else { *g };
                    }
                    add(row);
                }
            }
            None => contiguous(&by_sum)
                .chunks_exact(outputs.max(1))
                .for_each(add),
        }
        let by_bias = FlexTensor::from_data(TensorData::new(by_bias, [outputs]));
        (by_sum, by_bias)
    }

    fn input_gradient(weight: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let [weight, gradient] = [weight, gradient].map(|tensor| tensor.to_contiguous());
        let ([inputs, outputs], [batch, _]) = (weight.shape().dims(), gradient.shape().dims());
        let by_input = product(
            Matrix::new(contiguous(&gradient), batch, outputs),
            Matrix::new(contiguous(&weight), inputs, outputs).transposed(),
        );
        FlexTensor::from_data(TensorData::new(by_input, [batch, inputs]))
    }

    fn weight_gradient(x: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let [x, gradient] = [x, gradient].map(|tensor| tensor.to_contiguous());
        let ([batch, inputs], [_, outputs]) = (x.shape().dims(), gradient.shape().dims());
        let by_weight = product(
            Matrix::new(contiguous(&x), batch, inputs).transposed(),
            Matrix::new(contiguous(&gradient), batch, outputs),
        );
        FlexTensor::from_data(TensorData::new(by_weight, [inputs, outputs]))
    }
}

fn contiguous(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("contiguous, and f32 by `layer`")
}

/// As many products as are added up before their sum is added to those before: `gemm` takes no more at a
/// time if it is given more, but as many as suits the number of rows.
const DEPTH: usize = 512;

/// The product of rows, one after the other in memory, with a matrix. The bits of a row do not depend on
/// which rows are beside it.
fn rows_times(x: Matrix<'_>, weight: Matrix<'_>) -> Vec<f32> {
    let ([rows, inner], [_, columns]) = (x.dims, weight.dims);
    if columns == 1 && inner > 0 {
        // Here `gemm` goes one way or another by the number of rows.
        let rows = x.numbers.chunks_exact(inner);
        return rows.map(|row| dot(row, weight.numbers)).collect();
    }
    if inner <= DEPTH {
        return product(x, weight);
    }
    if rows == 1 {
        // A single row goes another way too.
        let twice = [x.numbers, x.numbers].concat();
        let mut output = rows_times(Matrix::new(&twice, 2, inner), weight);
        output.truncate(columns);
        return output;
    }
    let mut output = vec![0.0; rows * columns];
    for first in (0..inner).step_by(DEPTH) {
        let depth = DEPTH.min(inner - first);
        let x = Matrix {
            numbers: &x.numbers[first..],
            dims: [rows, depth],
            ..x
        };
        let weight = Matrix::new(
            &weight.numbers[first * columns..][..depth * columns],
            depth,
            columns,
        );
        for (output, part) in output.iter_mut().zip(product(x, weight)) {
            *output += part;
        }
    }
    output
}

/// Σ a b, in the same order for the same length.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut sums = [0f32; 16];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let mut half = 8;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    let mut sum = sums[0];
    for (a, b) in a_rest.iter().zip(b_rest) {
        sum += a * b;
    }
    sum
}

#[derive(Debug)]
struct LayerBackward;

impl<B: DenseLayerGradient> Backward<B, 3> for LayerBackward {
    /// Input, weights, and the output of rectified units.
    type State = (
        B::FloatTensorPrimitive,
        B::FloatTensorPrimitive,
        Option<B::FloatTensorPrimitive>,
    );

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (x, weight, output) = ops.state;
        let gradient = gradients.consume::<B>(&ops.node);
        let (by_sum, by_bias) = B::bias_gradient(output, gradient);
        let [x_node, weight_node, bias_node] = ops.parents;
        if let Some(node) = bias_node {
            gradients.register::<B>(node.id, by_bias);
        }
        if let Some(node) = weight_node {
            gradients.register::<B>(node.id, B::weight_gradient(x, by_sum.clone()));
        }
        if let Some(node) = x_node {
            gradients.register::<B>(node.id, B::input_gradient(weight, by_sum));
        }
    }
}

impl<B: DenseLayerGradient, C: CheckpointStrategy> DenseLayer for Autodiff<B, C> {
    fn dense_layer(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        relu: bool,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (bias, bias_node) = bias.into_parts();
        match LayerBackward
            .prepare::<C>([x_node, weight_node, bias_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let output = B::dense_layer(x.clone(), weight.clone(), bias, relu);
                let kept = relu.then(|| output.clone());
                step.finish((x, weight, kept), output)
            }
            OpsKind::UnTracked(step) => step.finish(B::dense_layer(x, weight, bias, relu)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use burn::tensor::{DType, Device};
    use proptest::prelude::*;

    /// Numbers without a pattern, in ±1.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        (0..count as u32)
            .map(|at| {
                let mixed = (at + 7919 * seed).wrapping_mul(2_654_435_761);
                (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn tensor<const D: usize>(shape: [usize; D], seed: u32, device: &Device) -> Tensor<D> {
        let numbers = numbers(shape.iter().product(), seed);
        Tensor::from_data(TensorData::new(numbers, shape), device)
    }

    type Form = fn(Tensor<2>, Tensor<2>, Tensor<1>, bool) -> Tensor<2>;

    /// The output, and the gradients of Σ output · numbers by input, weights and bias.
    fn all(form: Form, [batch, inputs, outputs]: [usize; 3], relu: bool) -> [Vec<f32>; 4] {
        let device = Device::flex().autodiff();
        let x = tensor([batch, inputs], 1, &device).require_grad();
        let weight = tensor([inputs, outputs], 2, &device).require_grad();
        let bias = tensor([outputs], 3, &device).require_grad();
        let output = form(x.clone(), weight.clone(), bias.clone(), relu);
        let slopes = tensor([batch, outputs], 4, &device);
        let mut gradients = (output.clone() * slopes).sum().backward();
        let by_x = x.grad_remove(&mut gradients).unwrap();
        let by_weight = weight.grad_remove(&mut gradients).unwrap();
        let by_bias = bias.grad_remove(&mut gradients).unwrap();
        [
            output.try_into_vec_as().unwrap(),
            by_x.try_into_vec_as().unwrap(),
            by_weight.try_into_vec_as().unwrap(),
            by_bias.try_into_vec_as().unwrap(),
        ]
    }

    fn close(got: &[f32], expected: &[f32], terms: usize) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            // Terms are at most 1; only the order in which they are added differs.
            assert!(
                (got - expected).abs() <= terms as f32 * f32::EPSILON * 4.0,
                "{got} for {expected}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_operation_equals_the_plain_form_and_its_gradients(
            batch in 1usize..70, inputs in 1usize..40, outputs in 1usize..40, relu: bool,
        ) {
            let got = all(layer, [batch, inputs, outputs], relu);
            let expected = all(layer_plain, [batch, inputs, outputs], relu);
            for (nth, terms) in [inputs + 1, outputs, batch, batch].into_iter().enumerate() {
                // A sum so near 0 that the forms differ in its sign does not occur here.
                close(&got[nth], &expected[nth], terms);
            }
        }

        #[test]
        fn a_product_is_the_sum_over_the_inner_dimension(
            rows in 0usize..20, inner in 0usize..20, columns in 0usize..20,
            turned_a: bool, turned_b: bool,
        ) {
            let matrix = |numbers, rows, columns, turned| match turned {
                true => Matrix::new(numbers, columns, rows).transposed(),
                false => Matrix::new(numbers, rows, columns),
            };
            let (a, b) = (numbers(rows * inner, 5), numbers(inner * columns, 6));
            let a = matrix(&a, rows, inner, turned_a);
            let b = matrix(&b, inner, columns, turned_b);
            let at = |matrix: Matrix<'_>, row, column| {
                matrix.numbers[row * matrix.steps[0] + column * matrix.steps[1]]
            };
            let expected: Vec<f32> = (0..rows * columns)
                .map(|place| {
                    let (row, column) = (place / columns, place % columns);
                    (0..inner).map(|nth| at(a, row, nth) * at(b, nth, column)).sum()
                })
                .collect();
            close(&product(a, b), &expected, inner.max(1));
        }
    }

    #[test]
    fn the_gradients_are_those_of_finite_differences() {
        let [batch, inputs, outputs] = [3, 4, 2];
        let device = Device::flex();
        let start = [
            numbers(batch * inputs, 1),
            numbers(inputs * outputs, 2),
            numbers(outputs, 3),
        ];
        let slopes = numbers(batch * outputs, 4);
        let value = |[x, weight, bias]: &[Vec<f32>; 3]| -> f32 {
            let x = TensorData::new(x.clone(), [batch, inputs]);
            let weight = TensorData::new(weight.clone(), [inputs, outputs]);
            let output = dense_layer_relu(
                Tensor::from_data(x, &device),
                Tensor::from_data(weight, &device),
                Tensor::from_data(TensorData::new(bias.clone(), [outputs]), &device),
            );
            let output = output.try_into_vec_as::<f32>().unwrap();
            output.iter().zip(&slopes).map(|(z, slope)| z * slope).sum()
        };
        let [_, gradients @ ..] = all(layer, [batch, inputs, outputs], true);
        for (part, gradient) in gradients.iter().enumerate() {
            for (at, &expected) in gradient.iter().enumerate() {
                let moved = |by: f32| {
                    let mut at_parameters = start.clone();
                    at_parameters[part][at] += by;
                    value(&at_parameters)
                };
                // The map is linear between the kinks: the step may be large.
                let difference = (moved(0.01) - moved(-0.01)) / 0.02;
                assert_relative_eq!(difference, expected, epsilon = 1e-4);
            }
        }
    }

    #[test]
    fn the_same_bits_at_any_number_of_threads() {
        for shape in [[300, 97, 70], [257, 128, 1], [1024, 312, 256]] {
            let [one, two, four] = [1, 2, 4].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                pool.unwrap().install(|| all(layer, shape, true))
            });
            assert!(one == two && two == four, "{shape:?}");
        }
    }

    #[test]
    fn units_at_zero_have_no_gradient_and_a_nan_stays_one() {
        let device = Device::flex().autodiff();
        let x = Tensor::<2>::from_data([[1.0], [-1.0], [0.0], [f32::NAN]], &device).require_grad();
        let weight = Tensor::<2>::from_data([[2.0]], &device);
        let output = dense_layer_relu(x.clone(), weight, Tensor::zeros([1], &device));
        let mut gradients = output.clone().sum().backward();
        let output = output.try_into_vec_as::<f32>().unwrap();
        assert_eq!(output[..3], [2.0, 0.0, 0.0]);
        assert!(output[3].is_nan());
        let by_x = x.grad_remove(&mut gradients).unwrap();
        let by_x = by_x.try_into_vec_as::<f32>().unwrap();
        assert_eq!(by_x[..3], [2.0, 0.0, 0.0]);
    }

    #[test]
    fn views_and_other_floats_are_taken_too() {
        let device = Device::flex();
        let weight = tensor([3, 2], 2, &device);
        let bias = tensor([2], 3, &device);
        let turned = tensor([3, 4], 1, &device).transpose();
        let copied = Tensor::from_data(turned.clone().into_data(), &device);
        assert_eq!(
            dense_layer(turned, weight.clone(), bias.clone()).into_data(),
            dense_layer(copied, weight.clone(), bias.clone()).into_data()
        );
        let wide = |tensor: Tensor<2>| tensor.cast(DType::F64);
        let x = wide(tensor([4, 3], 1, &device));
        let output = dense_layer(x, wide(weight), bias.cast(DType::F64));
        assert_eq!((output.dtype(), output.dims()), (DType::F64, [4, 2]));
    }

    #[test]
    fn nothing_is_tracked_where_nothing_asks_for_a_gradient() {
        let device = Device::flex().autodiff();
        let x = tensor([2, 3], 1, &device);
        let output = dense_layer(x, tensor([3, 2], 2, &device), tensor([2], 3, &device));
        assert!(!output.is_tracked());
    }

    #[test]
    #[should_panic(expected = "`x` is [1, 2], `weight` [3, 2], `bias` [2]: expected")]
    fn shapes_are_checked() {
        let device = Device::flex();
        let x = Tensor::zeros([1, 2], &device);
        dense_layer(
            x,
            Tensor::zeros([3, 2], &device),
            Tensor::zeros([2], &device),
        );
    }
}
