//! Items of a row added up by their weights: a custom operation on flex, plain tensors elsewhere.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, TensorData};
use crossfield_core::{Segments, is_flex_f32};

/// Σ_t w_t v_t over the items t of each row; zeros where a row has none.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use crossfield_attention::weighted_sum;
/// use crossfield_core::Segments;
///
/// let device = Device::flex();
/// let segments = Segments::new(vec![0, 2, 2]);
/// let weights = Tensor::from_data([[0.5], [2.0]], &device);
/// let values = Tensor::from_data([[1.0, 0.0], [1.0, 3.0]], &device);
/// let sums = weighted_sum(weights, values, &segments);
/// assert_eq!(sums.try_into_vec_as::<f32>().unwrap(), [2.5, 6.0, 0.0, 0.0]);
/// ```
///
/// # Shapes
/// - weights: `[items, 1]`
/// - values: `[items, dim]`
/// - output: `[rows, dim]`
///
/// # Panics
/// If the shapes do not fit.
pub fn weighted_sum(weights: Tensor<2>, values: Tensor<2>, segments: &Segments) -> Tensor<2> {
    let ([items, one], [count, _]) = (weights.dims(), values.dims());
    assert!(
        one == 1 && items == count && count == segments.items(),
        "weights are {:?}, values {:?}: expected [{items}, 1] and [{items}, dim]",
        weights.dims(),
        values.dims(),
        items = segments.items(),
    );
    if is_flex_f32(&weights) && is_flex_f32(&values) {
        let (weights, values) = (weights.into_dispatch(), values.into_dispatch());
        let output = <Dispatch as WeightedSum>::weighted_sum(weights, values, segments.clone());
        Tensor::from_dispatch(output)
    } else {
        weighted_sum_plain(weights, values, segments)
    }
}

/// [`weighted_sum`] in Burn's own operations, for any device.
fn weighted_sum_plain(weights: Tensor<2>, values: Tensor<2>, segments: &Segments) -> Tensor<2> {
    segments.sum(values * weights)
}

/// The operation; a backend listed here takes part in Burn's dispatch.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait WeightedSum: Backend {
    /// `[items, 1]` and `[items, dim]` to `[rows, dim]`.
    fn weighted_sum(
        weights: FloatTensor<Self>,
        values: FloatTensor<Self>,
        segments: Segments,
    ) -> FloatTensor<Self>;
}

/// Its gradients, which backends below autodiff have.
pub(crate) trait WeightedSumGradient: WeightedSum {
    /// By weights and values, given the one by the output.
    fn weighted_sum_gradient(
        weights: FloatTensor<Self>,
        values: FloatTensor<Self>,
        segments: &Segments,
        output: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];
}

fn contiguous(tensor: &FlexTensor) -> &[f32] {
    tensor
        .as_slice()
        .expect("contiguous, and f32 by `weighted_sum`")
}

impl WeightedSum for Flex {
    fn weighted_sum(weights: FlexTensor, values: FlexTensor, segments: Segments) -> FlexTensor {
        let [weights, values] = [weights, values].map(|tensor| tensor.to_contiguous());
        let ([_, dim], rows) = (values.shape().dims(), segments.rows());
        let (weights, values) = (contiguous(&weights), contiguous(&values));
        let mut output = vec![0f32; rows * dim];
        for row in 0..rows {
            let sum = &mut output[row * dim..][..dim];
            for item in segments.range(row) {
                let weight = weights[item];
                let values = &values[item * dim..][..dim];
                sum.iter_mut()
                    .zip(values)
                    .for_each(|(sum, v)| *sum += weight * v);
            }
        }
        FlexTensor::from_data(TensorData::new(output, [rows, dim]))
    }
}

impl WeightedSumGradient for Flex {
    fn weighted_sum_gradient(
        weights: FlexTensor,
        values: FlexTensor,
        segments: &Segments,
        output: FlexTensor,
    ) -> [FlexTensor; 2] {
        let [weights, values, output] =
            [weights, values, output].map(|tensor| tensor.to_contiguous());
        let [items, dim] = values.shape().dims();
        let (weights, values) = (contiguous(&weights), contiguous(&values));
        let output = contiguous(&output);
        let (mut by_weights, mut by_values) = (vec![0f32; items], vec![0f32; items * dim]);
        for row in 0..segments.rows() {
            let output = &output[row * dim..][..dim];
            for item in segments.range(row) {
                let range = item * dim..(item + 1) * dim;
                let terms = output.iter().zip(&values[range.clone()]);
                by_weights[item] = terms.map(|(output, v)| output * v).sum();
                let weight = weights[item];
                let by_value = by_values[range].iter_mut().zip(output);
                by_value.for_each(|(by_value, output)| *by_value = weight * output);
            }
        }
        [
            FlexTensor::from_data(TensorData::new(by_weights, [items, 1])),
            FlexTensor::from_data(TensorData::new(by_values, [items, dim])),
        ]
    }
}

#[derive(Debug)]
struct WeightedSumBackward;

impl<B: WeightedSumGradient> Backward<B, 2> for WeightedSumBackward {
    type State = ([B::FloatTensorPrimitive; 2], Segments);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let ([weights, values], segments) = ops.state;
        let output = gradients.consume::<B>(&ops.node);
        let both = B::weighted_sum_gradient(weights, values, &segments, output);
        for (node, gradient) in ops.parents.into_iter().zip(both) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: WeightedSumGradient, C: CheckpointStrategy> WeightedSum for Autodiff<B, C> {
    fn weighted_sum(
        weights: FloatTensor<Self>,
        values: FloatTensor<Self>,
        segments: Segments,
    ) -> FloatTensor<Self> {
        let ((weights, w), (values, v)) = (weights.into_parts(), values.into_parts());
        match WeightedSumBackward
            .prepare::<C>([w, v])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let output = B::weighted_sum(weights.clone(), values.clone(), segments.clone());
                step.finish(([weights, values], segments), output)
            }
            OpsKind::UnTracked(step) => step.finish(B::weighted_sum(weights, values, segments)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use proptest::prelude::*;

    type Form = fn(Tensor<2>, Tensor<2>, &Segments) -> Tensor<2>;

    /// Output, and the gradients of Σ output² by weights and values, which are halves.
    fn all(form: Form, segments: &Segments, dim: usize) -> [Vec<f32>; 3] {
        let device = Device::flex().autodiff();
        let matrix = |columns: usize, step: usize| {
            let numbers = (0..segments.items() * columns).map(|at| (at * step % 11) as f32 / 2.0);
            let data = TensorData::new(numbers.collect(), [segments.items(), columns]);
            Tensor::<2>::from_data(data, &device).require_grad()
        };
        let (weights, values) = (matrix(1, 3), matrix(dim, 7));
        let output = form(weights.clone(), values.clone(), segments);
        let mut gradients = output.clone().square().sum().backward();
        [
            output.try_into_vec_as().unwrap(),
            weights
                .grad_remove(&mut gradients)
                .unwrap()
                .try_into_vec_as()
                .unwrap(),
            values
                .grad_remove(&mut gradients)
                .unwrap()
                .try_into_vec_as()
                .unwrap(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_operation_equals_the_plain_form_and_its_gradients(
            lengths in prop::collection::vec(0u32..5, 1..20),
            dim in 1usize..10,
        ) {
            let mut offsets = vec![0];
            for length in lengths {
                offsets.push(offsets[offsets.len() - 1] + length);
            }
            let segments = Segments::new(offsets);
            prop_assume!(segments.items() > 0);
            prop_assert_eq!(
                all(weighted_sum, &segments, dim),
                all(weighted_sum_plain, &segments, dim)
            );
        }
    }
}
