//! The pairs of a row, as a layer: a custom operation on flex, plain tensors elsewhere.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, Dispatch, DispatchDevice, Flex, TensorMetadata, backend_extension,
};
use burn::tensor::{DType, Tensor, TensorData};
use rayon::prelude::*;

/// The fewest rows that are worth a task of their own.
const ROWS_A_TASK: usize = 32;

/// The sum over all pairs of fields f < g of ⟨v_fg, v_gf⟩, where `v[f][g]` is the vector that
/// field f has towards field g. Vectors of a field towards itself have no part in it.
///
/// On flex it is one operation with a gradient of its own, the same bits at any number of
/// threads; on other devices it is [`interaction_plain`]. It has no second derivative.
///
/// # Shapes
/// - v: `[batch, fields, fields, dim]`, each vector times its feature's value
/// - output: `[batch, 1]`
///
/// # Panics
/// If the second and third dimension differ.
///
/// ```
/// use burn::tensor::{Device, Tensor};
///
/// // Field 0 towards 1 is [1, 2], field 1 towards 0 is [3, -1].
/// let v = Tensor::<4>::from_data(
///     [[[[9.0, 9.0], [1.0, 2.0]], [[3.0, -1.0], [9.0, 9.0]]]],
///     &Device::flex(),
/// );
/// assert_eq!(crossfield_ffm::interaction(v).into_scalar::<f32>(), 1.0);
/// ```
pub fn interaction(v: Tensor<4>) -> Tensor<2> {
    check(&v);
    let device = v.device().without_autodiff();
    // A custom operation on a backend that it does not list panics: ask first.
    if v.dtype() == DType::F32 && matches!(device.as_dispatch(), DispatchDevice::Flex(_)) {
        Tensor::from_dispatch(<Dispatch as FieldPairs>::field_pairs(v.into_dispatch()))
    } else {
        interaction_plain(v)
    }
}

/// [`interaction`] in Burn's own operations, for any device.
///
/// # Shapes
/// As [`interaction`].
///
/// # Panics
/// As [`interaction`].
pub fn interaction_plain(v: Tensor<4>) -> Tensor<2> {
    check(&v);
    let [batch, fields, _, dim] = v.dims();
    let above: Vec<f32> = (0..fields * fields)
        .map(|at| f32::from(at / fields < at % fields))
        .collect();
    let above = TensorData::new(above, [1, fields, fields, 1]);
    let above = Tensor::<4>::from_data(above, (&v.device(), v.dtype()));
    (v.clone() * v.swap_dims(1, 2) * above)
        .reshape([batch, fields * fields * dim])
        .sum_dim(1)
}

fn check(v: &Tensor<4>) {
    let [_, fields, towards, _] = v.dims();
    assert_eq!(
        fields,
        towards,
        "`v` is {:?}: expected [batch, fields, fields, dim]",
        v.dims()
    );
}

/// The operation; a backend listed here takes part in Burn's dispatch.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait FieldPairs: Backend {
    /// `[batch, fields, fields, dim]` to `[batch, 1]`.
    fn field_pairs(v: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Its gradient, which backends below autodiff have.
pub(crate) trait FieldPairsGradient: FieldPairs {
    /// The gradient by `v`, given the one by the output.
    fn field_pairs_gradient(v: FloatTensor<Self>, output: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl FieldPairs for Flex {
    fn field_pairs(v: FlexTensor) -> FlexTensor {
        let v = v.to_contiguous();
        let [batch, fields, _, dim] = v.shape().dims();
        let mut scores = vec![0f32; batch];
        scores
            .par_iter_mut()
            .zip(contiguous(&v).par_chunks_exact((fields * fields * dim).max(1)))
            .with_min_len(ROWS_A_TASK)
            .for_each(|(score, v)| *score = row_score(v, fields, dim));
        FlexTensor::from_data(TensorData::new(scores, [batch, 1]))
    }
}

impl FieldPairsGradient for Flex {
    fn field_pairs_gradient(v: FlexTensor, output: FlexTensor) -> FlexTensor {
        let mut gradient = v.to_contiguous();
        // Where the graph was the last to hold `v`, the gradient is written over it.
        drop(v);
        let output = output.to_contiguous();
        let [_, fields, _, dim] = gradient.shape().dims();
        gradient
            .storage_mut::<f32>()
            .par_chunks_exact_mut((fields * fields * dim).max(1))
            .zip(contiguous(&output))
            .with_min_len(ROWS_A_TASK)
            .for_each(|(v, &output)| match dim {
                4 => row_gradient(v, output, fields, 4),
                8 => row_gradient(v, output, fields, 8),
                _ => row_gradient(v, output, fields, dim),
            });
        gradient
    }
}

fn contiguous(tensor: &FlexTensor) -> &[f32] {
    tensor
        .as_slice()
        .expect("contiguous, and f32 by `interaction`")
}

fn row_score(v: &[f32], fields: usize, dim: usize) -> f32 {
    let mut score = 0.0;
    for f in 0..fields {
        for g in f + 1..fields {
            let a = &v[(f * fields + g) * dim..][..dim];
            let b = &v[(g * fields + f) * dim..][..dim];
            score += a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        }
    }
    score
}

/// Puts the gradient in place of `v`: ∂/∂v_fg = v_gf for f ≠ g, 0 for f = g.
///
/// Inlined, so that the swap is unrolled where the caller knows the length.
#[inline(always)]
fn row_gradient(v: &mut [f32], output: f32, fields: usize, dim: usize) {
    for f in 0..fields {
        v[(f * fields + f) * dim..][..dim].fill(0.0);
        for g in f + 1..fields {
            let (before, after) = v.split_at_mut((g * fields + f) * dim);
            let a = &mut before[(f * fields + g) * dim..][..dim];
            for (a, b) in a.iter_mut().zip(&mut after[..dim]) {
                (*a, *b) = (output * *b, output * *a);
            }
        }
    }
}

#[derive(Debug)]
struct PairsBackward;

impl<B: FieldPairsGradient> Backward<B, 1> for PairsBackward {
    type State = B::FloatTensorPrimitive;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let v = ops.state;
        unary::<B, _>(ops.parents, ops.node, gradients, |output| {
            B::field_pairs_gradient(v, output)
        });
    }
}

impl<B: FieldPairsGradient, C: CheckpointStrategy> FieldPairs for Autodiff<B, C> {
    fn field_pairs(v: FloatTensor<Self>) -> FloatTensor<Self> {
        let (v, node) = v.into_parts();
        match PairsBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => step.finish(v.clone(), B::field_pairs(v)),
            OpsKind::UnTracked(step) => step.finish(B::field_pairs(v)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    /// Numbers without a pattern, in ±1.
    fn numbers(count: usize) -> Vec<f32> {
        (0..count as u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0)
            .collect()
    }

    fn v(batch: usize, fields: usize, dim: usize, device: &Device) -> Tensor<4> {
        let shape = [batch, fields, fields, dim];
        let numbers = numbers(shape.iter().product());
        Tensor::from_data(TensorData::new(numbers, shape), device)
    }

    /// Scores, and the gradient of Σ row · score.
    fn both(form: fn(Tensor<4>) -> Tensor<2>, v: Tensor<4>) -> (Vec<f32>, Vec<f32>) {
        let v = v.require_grad();
        let scores = form(v.clone());
        let [batch, _] = scores.dims();
        let rows = TensorData::new((0..batch).map(|row| row as f32).collect(), [batch, 1]);
        let rows = Tensor::<2>::from_data(rows, &v.device());
        let mut gradients = (scores.clone() * rows).sum().backward();
        let gradient = v.grad_remove(&mut gradients).unwrap();
        (
            scores.try_into_vec_as().unwrap(),
            gradient.try_into_vec_as().unwrap(),
        )
    }

    #[test]
    fn only_pairs_of_different_fields_count_and_each_once() {
        let device = Device::flex();
        let mut numbers = [7.0; 9];
        // Towards: 0→1 2, 1→0 3, 0→2 5, 2→0 11, 1→2 13, 2→1 17.
        for (at, number) in [
            (1, 2.0),
            (3, 3.0),
            (2, 5.0),
            (6, 11.0),
            (5, 13.0),
            (7, 17.0),
        ] {
            numbers[at] = number;
        }
        let v = Tensor::<4>::from_data(TensorData::new(numbers.to_vec(), [1, 3, 3, 1]), &device);
        let expected = 2.0 * 3.0 + 5.0 * 11.0 + 13.0 * 17.0;
        assert_eq!(interaction(v.clone()).into_scalar::<f32>(), expected);
        assert_eq!(interaction_plain(v).into_scalar::<f32>(), expected);
    }

    #[test]
    fn the_operation_equals_the_plain_form_and_its_gradient() {
        let device = Device::flex().autodiff();
        for (batch, fields, dim) in [(1, 1, 3), (2, 2, 1), (40, 5, 3), (3, 7, 4), (2, 4, 8)] {
            let (scores, gradient) = both(interaction, v(batch, fields, dim, &device));
            let (plain, plain_gradient) = both(interaction_plain, v(batch, fields, dim, &device));
            assert_eq!(scores.len(), batch);
            for (got, expected) in scores.iter().zip(&plain) {
                assert_relative_eq!(got, expected, epsilon = 1e-5);
            }
            // Each entry of the gradient is one product.
            assert_eq!(gradient, plain_gradient);
        }
    }

    #[test]
    fn views_of_a_larger_tensor_are_read_where_they_lie() {
        let device = Device::flex().autodiff();
        let rows = |v: Tensor<4>| interaction(v.narrow(0, 2, 2));
        let plain = |v: Tensor<4>| interaction_plain(v.narrow(0, 2, 2));
        let (scores, gradient) = both(rows, v(5, 3, 2, &device));
        let (plain_scores, plain_gradient) = both(plain, v(5, 3, 2, &device));
        for (got, expected) in scores.iter().zip(&plain_scores) {
            assert_relative_eq!(got, expected, epsilon = 1e-6);
        }
        assert_eq!(gradient, plain_gradient);
        let swapped = |v: Tensor<4>| interaction(v.swap_dims(1, 2));
        assert_relative_eq!(
            both(swapped, v(2, 3, 2, &device)).0[1],
            both(interaction, v(2, 3, 2, &device)).0[1],
            epsilon = 1e-6
        );
    }

    #[test]
    fn the_same_bits_at_any_number_of_threads() {
        let device = Device::flex().autodiff();
        let [one, two, four] = [1, 2, 4].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap()
                .install(|| both(interaction, v(300, 6, 4, &device)))
        });
        assert!(one == two && two == four);
    }

    #[test]
    fn other_floats_take_the_plain_form() {
        let numbers = TensorData::new(numbers(2 * 3 * 3 * 2), [2, 3, 3, 2]);
        let v = |dtype| Tensor::<4>::from_data(numbers.clone(), (&Device::flex(), dtype));
        let wide = interaction(v(DType::F64));
        assert_eq!(wide.dtype(), DType::F64);
        let wide = wide.try_into_vec_as::<f64>().unwrap();
        let narrow = interaction(v(DType::F32)).try_into_vec_as::<f32>().unwrap();
        for (narrow, wide) in narrow.iter().zip(wide) {
            assert_relative_eq!(f64::from(*narrow), wide, epsilon = 1e-6);
        }
    }

    #[test]
    fn nothing_is_tracked_where_nothing_asks_for_a_gradient() {
        let device = Device::flex().autodiff();
        assert!(!interaction(v(2, 3, 2, &device)).is_tracked());
    }

    #[cfg(feature = "ndarray")]
    #[test]
    #[expect(deprecated, reason = "kept as the second CPU backend")]
    fn ndarray_takes_the_plain_form() {
        let (flex, flex_gradient) = both(interaction, v(3, 4, 2, &Device::flex().autodiff()));
        let ndarray = Device::ndarray().autodiff();
        let (scores, gradient) = both(interaction, v(3, 4, 2, &ndarray));
        for (got, expected) in scores.iter().zip(&flex) {
            assert_relative_eq!(got, expected, epsilon = 1e-5);
        }
        assert_eq!(gradient, flex_gradient);
    }

    #[test]
    #[should_panic(expected = "`v` is [1, 2, 3, 1]: expected [batch, fields, fields, dim]")]
    fn fields_by_fields_is_checked() {
        interaction(Tensor::zeros([1, 2, 3, 1], &Device::flex()));
    }
}
