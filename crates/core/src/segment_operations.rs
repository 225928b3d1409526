//! What [`Segments`] compute of tensors: custom operations on flex, plain tensors elsewhere.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

use crate::Segments;
use crate::gather::{gather, is_flex_f32};

/// Each row beside its items: `[rows, dim]` to `[items, dim]`.
pub(crate) fn spread(segments: &Segments, rows: Tensor<2>) -> Tensor<2> {
    if is_flex_f32(&rows) {
        let (rows, segments) = (rows.into_dispatch(), segments.clone());
        Tensor::from_dispatch(<Dispatch as OfSegments>::spread_rows(rows, segments))
    } else {
        spread_plain(segments, rows)
    }
}

/// Σ over the items of each row, in their order: `[items, dim]` to `[rows, dim]`.
pub(crate) fn sum(segments: &Segments, items: Tensor<2>) -> Tensor<2> {
    if is_flex_f32(&items) {
        let (items, segments) = (items.into_dispatch(), segments.clone());
        Tensor::from_dispatch(<Dispatch as OfSegments>::sum_rows(items, segments))
    } else {
        sum_plain(segments, items)
    }
}

/// The softmax of each column over the items of a row: `[items, columns]` to the same.
pub(crate) fn softmax(segments: &Segments, scores: Tensor<2>) -> Tensor<2> {
    if is_flex_f32(&scores) {
        let (scores, segments) = (scores.into_dispatch(), segments.clone());
        Tensor::from_dispatch(<Dispatch as OfSegments>::softmax_rows(scores, segments))
    } else {
        softmax_plain(segments, scores)
    }
}

fn spread_plain(segments: &Segments, rows: Tensor<2>) -> Tensor<2> {
    let rows_of_items = segments.row_of_items().map(|row| row as u32);
    gather(rows, rows_of_items.collect(), 1)
}

fn sum_plain(segments: &Segments, items: Tensor<2>) -> Tensor<2> {
    let [count, dim] = items.dims();
    let device = items.device();
    let rows: Vec<i64> = segments.row_of_items().map(|row| row as i64).collect();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &device);
    Tensor::zeros([segments.rows(), dim], (&device, items.dtype())).select_assign(
        0,
        rows,
        items,
        IndexingUpdateOp::Add,
    )
}

fn softmax_plain(segments: &Segments, scores: Tensor<2>) -> Tensor<2> {
    let (scores, mask) = segments.pad(scores);
    let [rows, time, columns] = scores.dims();
    let padding = mask
        .clone()
        .bool_not()
        .unsqueeze_dim::<3>(2)
        .expand([rows, time, columns]);
    let real = mask.float().cast(scores.dtype()).unsqueeze_dim::<3>(2);
    let scores = scores.mask_fill(padding, f32::MIN / 2.0);
    let largest = scores.clone().detach().max_dim(1);
    let powers = (scores - largest).exp() * real;
    // A row without items has no sum to divide by.
    let sums = powers.clone().sum_dim(1).clamp_min(f32::MIN_POSITIVE);
    segments.unpad(powers / sums)
}

/// The operations; a backend listed here takes part in Burn's dispatch.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait OfSegments: Backend {
    /// `[rows, dim]` to `[items, dim]`.
    fn spread_rows(rows: FloatTensor<Self>, segments: Segments) -> FloatTensor<Self>;

    /// `[items, dim]` to `[rows, dim]`.
    fn sum_rows(items: FloatTensor<Self>, segments: Segments) -> FloatTensor<Self>;

    /// `[items, columns]` to the same.
    fn softmax_rows(scores: FloatTensor<Self>, segments: Segments) -> FloatTensor<Self>;
}

/// A gradient that backends below autodiff have; those of spreading and of adding up are each other.
pub(crate) trait SoftmaxGradient: OfSegments {
    /// The gradient by the scores, given the weights and the gradient by them.
    fn softmax_gradient(
        weights: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        segments: &Segments,
    ) -> FloatTensor<Self>;
}

impl OfSegments for Flex {
    fn spread_rows(rows: FlexTensor, segments: Segments) -> FlexTensor {
        let rows = rows.to_contiguous();
        let [_, dim] = rows.shape().dims();
        let mut items = Vec::with_capacity(segments.items() * dim);
        for (row, numbers) in contiguous(&rows).chunks_exact(dim.max(1)).enumerate() {
            for _ in segments.range(row) {
                items.extend_from_slice(numbers);
            }
        }
        FlexTensor::from_data(TensorData::new(items, [segments.items(), dim]))
    }

    fn sum_rows(items: FlexTensor, segments: Segments) -> FlexTensor {
        let items = items.to_contiguous();
        let [_, dim] = items.shape().dims();
        let mut sums = vec![0f32; segments.rows() * dim];
        for (row, sum) in sums.chunks_exact_mut(dim.max(1)).enumerate() {
            let range = segments.range(row);
            let of_row = &contiguous(&items)[range.start * dim..range.end * dim];
            for item in of_row.chunks_exact(dim) {
                sum.iter_mut()
                    .zip(item)
                    .for_each(|(sum, term)| *sum += term);
            }
        }
        FlexTensor::from_data(TensorData::new(sums, [segments.rows(), dim]))
    }

    fn softmax_rows(scores: FlexTensor, segments: Segments) -> FlexTensor {
        let mut scores = scores.to_contiguous();
        let [_, columns] = scores.shape().dims();
        let numbers = scores.storage_mut::<f32>();
        for range in segments.with_items() {
            let of_row = &mut numbers[range.start * columns..range.end * columns];
            for column in 0..columns {
                let scores = of_row[column..].iter().step_by(columns);
                let largest = scores.fold(f32::NEG_INFINITY, |largest, &score| largest.max(score));
                let mut sum = 0.0;
                for score in of_row[column..].iter_mut().step_by(columns) {
                    *score = (*score - largest).exp();
                    sum += *score;
                }
                for power in of_row[column..].iter_mut().step_by(columns) {
                    *power /= sum;
                }
            }
        }
        scores
    }
}

impl SoftmaxGradient for Flex {
    fn softmax_gradient(
        weights: FlexTensor,
        gradient: FlexTensor,
        segments: &Segments,
    ) -> FlexTensor {
        let weights = weights.to_contiguous();
        let mut gradient = gradient.to_contiguous();
        let [_, columns] = weights.shape().dims();
        let numbers = gradient.storage_mut::<f32>();
        for range in segments.with_items() {
            let weights = &contiguous(&weights)[range.start * columns..range.end * columns];
            let gradients = &mut numbers[range.start * columns..range.end * columns];
            for column in 0..columns {
                let weights = || weights[column..].iter().step_by(columns);
                let pairs = gradients[column..].iter().step_by(columns).zip(weights());
                let mean: f32 = pairs.map(|(gradient, weight)| gradient * weight).sum();
                let gradients = gradients[column..].iter_mut().step_by(columns);
                for (gradient, weight) in gradients.zip(weights()) {
                    *gradient = weight * (*gradient - mean);
                }
            }
        }
        gradient
    }
}

fn contiguous(tensor: &FlexTensor) -> &[f32] {
    tensor
        .as_slice()
        .expect("contiguous, and f32 by the callers")
}

#[derive(Debug)]
struct SpreadBackward;

impl<B: OfSegments> Backward<B, 1> for SpreadBackward {
    type State = Segments;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let segments = ops.state;
        unary::<B, _>(ops.parents, ops.node, gradients, |items| {
            B::sum_rows(items, segments)
        });
    }
}

#[derive(Debug)]
struct SumBackward;

impl<B: OfSegments> Backward<B, 1> for SumBackward {
    type State = Segments;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let segments = ops.state;
        unary::<B, _>(ops.parents, ops.node, gradients, |rows| {
            B::spread_rows(rows, segments)
        });
    }
}

#[derive(Debug)]
struct SoftmaxBackward;

impl<B: SoftmaxGradient> Backward<B, 1> for SoftmaxBackward {
    /// The weights, and whose they are.
    type State = (B::FloatTensorPrimitive, Segments);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (weights, segments) = ops.state;
        unary::<B, _>(ops.parents, ops.node, gradients, |gradient| {
            B::softmax_gradient(weights, gradient, &segments)
        });
    }
}

impl<B: SoftmaxGradient, C: CheckpointStrategy> OfSegments for Autodiff<B, C> {
    fn spread_rows(rows: FloatTensor<Self>, segments: Segments) -> FloatTensor<Self> {
        let (rows, node) = rows.into_parts();
        match SpreadBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => step.finish(segments.clone(), B::spread_rows(rows, segments)),
            OpsKind::UnTracked(step) => step.finish(B::spread_rows(rows, segments)),
        }
    }

    fn sum_rows(items: FloatTensor<Self>, segments: Segments) -> FloatTensor<Self> {
        let (items, node) = items.into_parts();
        match SumBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish(segments.clone(), B::sum_rows(items, segments)),
            OpsKind::UnTracked(step) => step.finish(B::sum_rows(items, segments)),
        }
    }

    fn softmax_rows(scores: FloatTensor<Self>, segments: Segments) -> FloatTensor<Self> {
        let (scores, node) = scores.into_parts();
        match SoftmaxBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let weights = B::softmax_rows(scores, segments.clone());
                step.finish((weights.clone(), segments), weights)
            }
            OpsKind::UnTracked(step) => step.finish(B::softmax_rows(scores, segments)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use burn::tensor::Device;
    use proptest::prelude::*;

    type Form = fn(&Segments, Tensor<2>) -> Tensor<2>;

    /// Numbers without a pattern, in ±4.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        (0..count as u32)
            .map(|at| {
                let mixed = (at + 7919 * seed).wrapping_mul(2_654_435_761);
                (mixed >> 8) as f32 / (1 << 21) as f32 - 4.0
            })
            .collect()
    }

    fn tensor(numbers: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(numbers, shape), device)
    }

    fn values(tensor: Tensor<2>) -> Vec<f32> {
        tensor.try_into_vec_as().unwrap()
    }

    /// The output, and the gradient of Σ output · numbers by the input.
    fn both(form: Form, segments: &Segments, input: [usize; 2], start: Vec<f32>) -> [Vec<f32>; 2] {
        let device = Device::flex().autodiff();
        let input = tensor(start, input, &device).require_grad();
        let output = form(segments, input.clone());
        let shape = output.dims();
        let slopes = tensor(numbers(shape[0] * shape[1], 2), shape, &device);
        let mut gradients = (output.clone() * slopes).sum().backward();
        let gradient = input.grad_remove(&mut gradients).unwrap();
        [values(output), values(gradient)]
    }

    fn segments(lengths: &[u32]) -> Segments {
        let mut offsets = vec![0];
        for length in lengths {
            offsets.push(offsets[offsets.len() - 1] + length);
        }
        Segments::new(offsets)
    }

    const FORMS: [[Form; 2]; 3] = [
        [spread, spread_plain],
        [sum, sum_plain],
        [softmax, softmax_plain],
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_operations_equal_the_plain_forms_and_their_gradients(
            lengths in prop::collection::vec(0u32..7, 1..9),
            dim in 1usize..10,
        ) {
            let segments = segments(&lengths);
            prop_assume!(segments.items() > 0);
            for (nth, forms) in FORMS.into_iter().enumerate() {
                let rows = if nth == 0 { segments.rows() } else { segments.items() };
                let start = numbers(rows * dim, 1);
                let [got, expected] = forms.map(|form| both(form, &segments, [rows, dim], start.clone()));
                for (got, expected) in got.iter().zip(&expected) {
                    prop_assert_eq!(got.len(), expected.len());
                    for (got, expected) in got.iter().zip(expected) {
                        assert_relative_eq!(got, expected, epsilon = 1e-5);
                    }
                }
            }
        }
    }

    #[test]
    fn rows_without_items_have_sums_and_gradients_of_zero() {
        let segments = segments(&[0, 2, 0]);
        let [sums, gradient] = both(sum, &segments, [2, 1], vec![1.5, 2.0]);
        let slopes = numbers(3, 2);
        assert_eq!(sums, [0.0, 3.5, 0.0]);
        assert_eq!(gradient, [slopes[1]; 2]);
        let [items, gradient] = both(spread, &segments, [3, 1], vec![7.0, 8.0, 9.0]);
        assert_eq!(items, [8.0, 8.0]);
        assert_eq!(gradient, [0.0, slopes[0] + slopes[1], 0.0]);
    }

    #[test]
    fn the_gradient_of_the_softmax_is_that_of_finite_differences() {
        let segments = segments(&[3, 1, 4]);
        let (shape, start) = ([8, 2], numbers(16, 1));
        let slopes = numbers(16, 2);
        let value = |scores| -> f32 {
            let weights = values(softmax(&segments, tensor(scores, shape, &Device::flex())));
            weights
                .iter()
                .zip(&slopes)
                .map(|(w, slope)| w * slope)
                .sum()
        };
        let [_, gradient] = both(softmax, &segments, shape, start.clone());
        for (at, &expected) in gradient.iter().enumerate() {
            let moved = |by: f32| {
                let mut scores = start.clone();
                scores[at] += by;
                value(scores)
            };
            let difference = (moved(0.01) - moved(-0.01)) / 0.02;
            assert_relative_eq!(difference, expected, epsilon = 1e-3);
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_beside_others() {
        let together = values(softmax(
            &segments(&[3, 5]),
            tensor(numbers(16, 1), [8, 2], &Device::flex()),
        ));
        let alone = tensor(numbers(16, 1)[6..].to_vec(), [5, 2], &Device::flex());
        assert_eq!(values(softmax(&segments(&[5]), alone)), together[6..]);
    }

    #[test]
    fn other_floats_take_the_plain_forms() {
        let segments = segments(&[2, 1]);
        let scores = tensor(numbers(3, 1), [3, 1], &Device::flex());
        let wide = scores.clone().cast(burn::tensor::DType::F64);
        for [form, _] in &FORMS[1..] {
            let wide = form(&segments, wide.clone());
            let wide = wide.try_into_vec_as::<f64>().unwrap();
            for (wide, narrow) in wide
                .into_iter()
                .zip(values(form(&segments, scores.clone())))
            {
                assert_relative_eq!(wide, f64::from(narrow), epsilon = 1e-6);
            }
        }
    }

    #[test]
    fn nothing_is_tracked_where_nothing_asks_for_a_gradient() {
        let items = Tensor::<2>::zeros([3, 1], &Device::flex().autodiff());
        for [form, _] in FORMS {
            assert!(!form(&segments(&[1, 1, 1]), items.clone()).is_tracked());
        }
    }
}
