//! Rows of a leaf, copied or added up: a custom operation on flex, plain tensors elsewhere.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, Dispatch, DispatchDevice, Flex, TensorMetadata, backend_extension,
};
use burn::tensor::{DType, Int, Tensor, TensorData};

/// Whether a tensor is one that custom operations on flex take. One that is called on a backend that
/// it does not list panics: ask first.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use crossfield_core::is_flex_f32;
///
/// assert!(is_flex_f32(&Tensor::<1>::zeros([2], &Device::flex())));
/// assert!(is_flex_f32(&Tensor::<1>::zeros([2], &Device::flex().autodiff())));
/// ```
pub fn is_flex_f32<const D: usize>(tensor: &Tensor<D>) -> bool {
    let device = tensor.device().without_autodiff();
    tensor.dtype() == DType::F32 && matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}

/// The sums of `count` rows each: row i of the output is Σ_j leaf[positions[i · count + j]].
///
/// On flex it is one operation with a gradient of its own, whose additions come in the order of the
/// positions. It has no second derivative.
///
/// # Shapes
/// - leaf: `[rows, dim]`
/// - positions: `[n · count]`, each below `rows`
/// - output: `[n, dim]`
///
/// # Panics
/// If a position is no row of the leaf.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use crossfield_core::gather;
///
/// let leaf = Tensor::from_data([[1.0], [10.0]], &Device::flex());
/// let sums = gather(leaf, vec![0, 1, 1, 1], 2).try_into_vec_as::<f32>();
/// assert_eq!(sums.expect("floats"), [11.0, 20.0]);
/// ```
pub fn gather(leaf: Tensor<2>, positions: Vec<u32>, count: usize) -> Tensor<2> {
    if is_flex_f32(&leaf) {
        let leaf = leaf.into_dispatch();
        let positions = positions.into();
        Tensor::from_dispatch(<Dispatch as Gather>::gather(leaf, positions, count))
    } else {
        gather_plain(leaf, positions, count)
    }
}

/// [`gather`] in Burn's own operations, for any device.
fn gather_plain(leaf: Tensor<2>, positions: Vec<u32>, count: usize) -> Tensor<2> {
    let device = leaf.device();
    let [n, dim] = [positions.len() / count, leaf.dims()[1]];
    let positions: Vec<i64> = positions.into_iter().map(i64::from).collect();
    let positions = TensorData::new(positions, [n * count]);
    let rows = leaf.select(0, Tensor::<1, Int>::from_data(positions, &device));
    match count {
        1 => rows,
        _ => rows.reshape([n, count, dim]).sum_dim(1).reshape([n, dim]),
    }
}

/// The operation; a backend listed here takes part in Burn's dispatch.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Gather: Backend {
    /// `[rows, dim]` to `[positions / count, dim]`.
    fn gather(leaf: FloatTensor<Self>, positions: Arc<[u32]>, count: usize) -> FloatTensor<Self>;
}

/// Its gradient, which backends below autodiff have.
pub(crate) trait GatherGradient: Gather {
    /// The gradient by the leaf of `rows` rows, given the one by the output.
    fn gather_gradient(
        rows: usize,
        positions: &[u32],
        count: usize,
        output: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl Gather for Flex {
    fn gather(leaf: FlexTensor, positions: Arc<[u32]>, count: usize) -> FlexTensor {
        let leaf = leaf.to_contiguous();
        let [_, dim] = leaf.shape().dims();
        let n = positions.len() / count;
        let rows = contiguous(&leaf);
        let sums = match dim {
            1 => sums::<1>(rows, &positions, count),
            4 => sums::<4>(rows, &positions, count),
            8 => sums::<8>(rows, &positions, count),
            16 => sums::<16>(rows, &positions, count),
            _ => {
                let mut sums = vec![0f32; n * dim];
                for (nth, &row) in positions.iter().enumerate() {
                    let sum = &mut sums[nth / count * dim..][..dim];
                    add(sum, &rows[row as usize * dim..][..dim]);
                }
                sums
            }
        };
        FlexTensor::from_data(TensorData::new(sums, [n, dim]))
    }
}

impl GatherGradient for Flex {
    fn gather_gradient(
        rows: usize,
        positions: &[u32],
        count: usize,
        output: FlexTensor,
    ) -> FlexTensor {
        let output = output.to_contiguous();
        let [_, dim] = output.shape().dims();
        let output = contiguous(&output);
        let gradient = match dim {
            1 => scattered::<1>(output, positions, count, rows),
            4 => scattered::<4>(output, positions, count, rows),
            8 => scattered::<8>(output, positions, count, rows),
            16 => scattered::<16>(output, positions, count, rows),
            _ => {
                let mut gradient = vec![0f32; rows * dim];
                for (nth, &row) in positions.iter().enumerate() {
                    let sum = &mut gradient[row as usize * dim..][..dim];
                    add(sum, &output[nth / count * dim..][..dim]);
                }
                gradient
            }
        };
        FlexTensor::from_data(TensorData::new(gradient, [rows, dim]))
    }
}

fn contiguous(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("contiguous, and f32 by `gather`")
}

fn add(sum: &mut [f32], terms: &[f32]) {
    for (sum, &term) in sum.iter_mut().zip(terms) {
        *sum += term;
    }
}

/// The sums of `count` rows of `N` numbers each: a length that the compiler knows needs no calls.
fn sums<const N: usize>(rows: &[f32], positions: &[u32], count: usize) -> Vec<f32> {
    let (rows, _) = rows.as_chunks::<N>();
    if count == 1 {
        let rows = positions.iter().map(|&row| rows[row as usize]);
        return rows.collect::<Vec<[f32; N]>>().into_flattened();
    }
    let of_one = |positions: &[u32]| {
        let mut sum = [0f32; N];
        for &row in positions {
            add(&mut sum, &rows[row as usize]);
        }
        sum
    };
    let sums = positions.chunks_exact(count).map(of_one);
    sums.collect::<Vec<[f32; N]>>().into_flattened()
}

/// Row i of `output` added to each row that positions i · count … name.
fn scattered<const N: usize>(
    output: &[f32],
    positions: &[u32],
    count: usize,
    rows: usize,
) -> Vec<f32> {
    let (output, _) = output.as_chunks::<N>();
    let mut gradient = vec![[0f32; N]; rows];
    for (terms, positions) in output.iter().zip(positions.chunks_exact(count)) {
        for &row in positions {
            add(&mut gradient[row as usize], terms);
        }
    }
    gradient.into_flattened()
}

#[derive(Debug)]
struct GatherBackward;

impl<B: GatherGradient> Backward<B, 1> for GatherBackward {
    /// Rows of the leaf, positions, rows a sum.
    type State = (usize, Arc<[u32]>, usize);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (rows, positions, count) = ops.state;
        unary::<B, _>(ops.parents, ops.node, gradients, |output| {
            B::gather_gradient(rows, &positions, count, output)
        });
    }
}

impl<B: GatherGradient, C: CheckpointStrategy> Gather for Autodiff<B, C> {
    fn gather(leaf: FloatTensor<Self>, positions: Arc<[u32]>, count: usize) -> FloatTensor<Self> {
        let (leaf, node) = leaf.into_parts();
        match GatherBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let [rows, _] = leaf.shape().dims();
                let output = B::gather(leaf, positions.clone(), count);
                step.finish((rows, positions, count), output)
            }
            OpsKind::UnTracked(step) => step.finish(B::gather(leaf, positions, count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use proptest::prelude::*;

    /// The sums, and the gradient of Σ (row + 1) · sum by the leaf.
    fn both(
        form: fn(Tensor<2>, Vec<u32>, usize) -> Tensor<2>,
        [rows, dim]: [usize; 2],
        positions: &[u32],
        count: usize,
    ) -> [Vec<f32>; 2] {
        let device = Device::flex().autodiff();
        // Halves: sums are exact, whatever their order.
        let numbers = (0..rows * dim).map(|at| (at * 37 % 101) as f32 / 2.0);
        let leaf = TensorData::new(numbers.collect(), [rows, dim]);
        let leaf = Tensor::<2>::from_data(leaf, &device).require_grad();
        let sums = form(leaf.clone(), positions.to_vec(), count);
        let [n, _] = sums.dims();
        let slopes = TensorData::new((1..=n).map(|row| row as f32).collect(), [n, 1]);
        let slopes = Tensor::<2>::from_data(slopes, &device);
        let mut gradients = (sums.clone() * slopes).sum().backward();
        let gradient = leaf.grad_remove(&mut gradients).unwrap();
        [
            sums.try_into_vec_as().unwrap(),
            gradient.try_into_vec_as().unwrap(),
        ]
    }

    #[test]
    fn rows_are_added_up_and_each_gets_the_gradient_of_its_sums() {
        // Rows [0, 18.5] and [37, 5]; sums of rows 1 + 1 and 0 + 1, of slopes 1 and 2.
        let [sums, gradient] = both(gather, [2, 2], &[1, 1, 0, 1], 2);
        assert_eq!(sums, [74.0, 10.0, 37.0, 23.5]);
        assert_eq!(gradient, [2.0, 2.0, 4.0, 4.0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_operation_equals_the_plain_form_and_its_gradient(
            dim in prop::sample::select(vec![1usize, 2, 4, 7, 8, 16]),
            count in 1usize..5,
            positions in prop::collection::vec(0u32..9, 1..60),
        ) {
            let positions = &positions[..positions.len() / count * count];
            prop_assume!(!positions.is_empty());
            prop_assert_eq!(
                both(gather, [9, dim], positions, count),
                both(gather_plain, [9, dim], positions, count)
            );
        }
    }

    #[test]
    fn nothing_is_tracked_where_nothing_asks_for_a_gradient() {
        let leaf = Tensor::<2>::zeros([2, 3], &Device::flex().autodiff());
        assert!(!gather(leaf, vec![1, 0], 1).is_tracked());
    }
}
