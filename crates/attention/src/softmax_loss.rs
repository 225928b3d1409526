//! The loss of a softmax over many items: a custom operation on flex, plain tensors elsewhere.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Bool, Tensor, TensorData};
use crossfield_core::{Matrix, is_flex_f32, product_into};
use crossfield_simd::{Kernel, Lanes};
use rayon::prelude::*;

use crate::dot_product::ISA;

/// Positions whose scores are held at a time.
const BLOCK: usize = 128;

/// A score whose power is 0.
const NO_SCORE: f32 = f32::MIN / 2.0;

/// What [`softmax_loss`] knows beside the vectors.
#[derive(Clone, Debug)]
pub(crate) struct SoftmaxTerms {
    /// What is taken off the score of each candidate.
    pub(crate) corrections: Vec<f32>,
    /// Position and candidate of those that are the position's own next item, and are left out; by
    /// rising position.
    pub(crate) hits: Vec<(u32, u32)>,
    /// How much each position counts.
    pub(crate) weights: Vec<f32>,
}

impl SoftmaxTerms {
    fn total(&self) -> f32 {
        self.weights.iter().sum::<f32>().max(f32::MIN_POSITIVE)
    }
}

/// The weighted mean over positions of `ln Z − s`, with `s = ⟨h, v_next⟩` and
/// `Z = exp(s) + Σ_j exp(⟨h, v_j⟩ − correction_j)` over the candidates that are not left out.
///
/// On flex it is one operation, which computes its gradients on the way forward: scores of a block of
/// positions are held, and never those of all. It has no second derivative.
///
/// # Shapes
/// - h, next: `[positions, dim]`
/// - candidates: `[candidates, dim]`
/// - output: `[1]`
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn softmax_loss(
    h: Tensor<2>,
    next: Tensor<2>,
    candidates: Tensor<2>,
    terms: SoftmaxTerms,
) -> Tensor<1> {
    let ([positions, dim], [count, of_candidates]) = (h.dims(), candidates.dims());
    assert!(
        next.dims() == [positions, dim]
            && of_candidates == dim
            && terms.corrections.len() == count
            && terms.weights.len() == positions
            && terms.hits.is_sorted()
            && terms.hits.iter().all(|&(position, candidate)| {
                (position as usize) < positions && (candidate as usize) < count
            }),
        "{positions} positions of {dim} and {count} candidates of {of_candidates}, or their terms"
    );
    if ![&h, &next, &candidates].into_iter().all(is_flex_f32) {
        return softmax_loss_plain(h, next, candidates, terms);
    }
    Tensor::from_dispatch(<Dispatch as SoftmaxLoss>::softmax_loss(
        h.into_dispatch(),
        next.into_dispatch(),
        candidates.into_dispatch(),
        Arc::new(terms),
    ))
}

/// [`softmax_loss`] in Burn's own operations, for any device.
fn softmax_loss_plain(
    h: Tensor<2>,
    next: Tensor<2>,
    candidates: Tensor<2>,
    terms: SoftmaxTerms,
) -> Tensor<1> {
    let (device, total) = (h.device(), terms.total());
    let [positions, count] = [h.dims()[0], candidates.dims()[0]];
    let own = (h.clone() * next).sum_dim(1);
    let corrections = TensorData::new(terms.corrections, [1, count]);
    let scores = h.matmul(candidates.transpose()) - Tensor::<2>::from_data(corrections, &device);
    let mut left_out = vec![false; positions * count];
    for (position, candidate) in terms.hits {
        left_out[position as usize * count + candidate as usize] = true;
    }
    let left_out = TensorData::new(left_out, [positions, count]);
    let left_out = Tensor::<2, Bool>::from_data(left_out, &device);
    let scores = scores.mask_fill(left_out, NO_SCORE);
    let largest = scores.clone().max_dim(1).max_pair(own.clone()).detach();
    let sums = (scores - largest.clone()).exp().sum_dim(1) + (own.clone() - largest.clone()).exp();
    let losses = sums.log() + largest - own;
    let weights = TensorData::new(terms.weights, [positions, 1]);
    let weights = Tensor::<2>::from_data(weights, &device);
    (losses * weights).sum_dim(0).div_scalar(total).reshape([1])
}

/// The operation; a backend listed here takes part in Burn's dispatch.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait SoftmaxLoss: Backend {
    /// `[positions, dim]` twice and `[candidates, dim]` to `[1]`.
    fn softmax_loss(
        h: FloatTensor<Self>,
        next: FloatTensor<Self>,
        candidates: FloatTensor<Self>,
        terms: Arc<SoftmaxTerms>,
    ) -> FloatTensor<Self>;
}

/// Its gradients, which backends below autodiff have.
pub(crate) trait SoftmaxLossGradient: SoftmaxLoss {
    /// The loss, and its gradients by `h`, `next` and `candidates`.
    fn loss_and_gradients(
        vectors: [FloatTensor<Self>; 3],
        terms: &SoftmaxTerms,
    ) -> (FloatTensor<Self>, [FloatTensor<Self>; 3]);

    /// A gradient by what leads to the loss, times the one by the loss.
    fn times(gradient: FloatTensor<Self>, by_loss: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl SoftmaxLoss for Flex {
    fn softmax_loss(
        h: FlexTensor,
        next: FlexTensor,
        candidates: FlexTensor,
        terms: Arc<SoftmaxTerms>,
    ) -> FlexTensor {
        let vectors = [h, next, candidates].map(|tensor| tensor.to_contiguous());
        let (loss, _) = Vectors::of(&vectors).losses(&terms, false);
        one(loss)
    }
}

fn one(loss: f32) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(vec![loss], [1]))
}

impl SoftmaxLossGradient for Flex {
    fn loss_and_gradients(
        vectors: [FlexTensor; 3],
        terms: &SoftmaxTerms,
    ) -> (FlexTensor, [FlexTensor; 3]) {
        let vectors = vectors.map(|tensor| tensor.to_contiguous());
        let (loss, gradients) = Vectors::of(&vectors).losses(terms, true);
        let dims = vectors.map(|tensor| tensor.shape().dims::<2>());
        let mut gradients = gradients.into_iter().zip(dims);
        let gradients = std::array::from_fn(|_| {
            let (gradient, dims) = gradients.next().expect("three gradients");
            FlexTensor::from_data(TensorData::new(gradient, dims))
        });
        (one(loss), gradients)
    }

    fn times(gradient: FlexTensor, by_loss: FlexTensor) -> FlexTensor {
        let factor = contiguous(&by_loss.to_contiguous())[0];
        let mut gradient = gradient.to_contiguous();
        if factor != 1.0 {
            for number in gradient.storage_mut::<f32>() {
                *number *= factor;
            }
        }
        gradient
    }
}

fn contiguous(tensor: &FlexTensor) -> &[f32] {
    tensor
        .as_slice()
        .expect("contiguous, and f32 by the caller")
}

/// The vectors of positions, of their next items and of candidates, row after row.
struct Vectors<'a> {
    h: &'a [f32],
    next: &'a [f32],
    candidates: &'a [f32],
    dim: usize,
}

impl<'a> Vectors<'a> {
    fn of(tensors: &'a [FlexTensor; 3]) -> Self {
        let [h, next, candidates] = tensors.each_ref().map(contiguous);
        Self {
            h,
            next,
            candidates,
            dim: tensors[0].shape().dims::<2>()[1],
        }
    }

    /// The loss, and where they are asked for its gradients by `h`, `next` and `candidates`.
    fn losses(&self, terms: &SoftmaxTerms, with_gradients: bool) -> (f32, [Vec<f32>; 3]) {
        let (dim, count) = (self.dim, terms.corrections.len());
        let positions = terms.weights.len();
        let total = terms.total();
        let sizes = [self.h, self.next, self.candidates].map(<[f32]>::len);
        let mut gradients = sizes.map(|size| vec![0f32; if with_gradients { size } else { 0 }]);
        let mut scores = vec![0f32; BLOCK.min(positions) * count];
        let (mut loss, mut hits) = (0.0, &terms.hits[..]);
        for first in (0..positions).step_by(BLOCK) {
            let rows = BLOCK.min(positions - first);
            let block = first * dim..(first + rows) * dim;
            let (h, next) = (&self.h[block.clone()], &self.next[block.clone()]);
            let scores = &mut scores[..rows * count];
            let of_candidates = Matrix::new(self.candidates, count, dim);
            product_into(
                Matrix::new(h, rows, dim),
                of_candidates.transposed(),
                scores,
                false,
            );
            while let Some(&(position, candidate)) = hits.first() {
                let row = position as usize - first;
                if row >= rows {
                    break;
                }
                scores[row * count + candidate as usize] = NO_SCORE;
                hits = &hits[1..];
            }
            let weights = &terms.weights[first..first + rows];
            let pairs = h.par_chunks_exact(dim).zip(next.par_chunks_exact(dim));
            let each = scores.par_chunks_exact_mut(count).zip(pairs).zip(weights);
            let own: Vec<(f32, f32)> = each
                .map(|((scores, (h, next)), weight)| {
                    ISA.run(Powers {
                        own: h.iter().zip(next).map(|(a, b)| a * b).sum(),
                        scores,
                        corrections: &terms.corrections,
                        factor: weight / total,
                    })
                })
                .collect();
            let weighted = own.iter().zip(weights);
            loss += weighted
                .map(|(&(loss, _), &weight)| f64::from(loss) * f64::from(weight))
                .sum::<f64>();
            if !with_gradients {
                continue;
            }
            let [by_h, by_next, by_candidates] = &mut gradients;
            let by_h = &mut by_h[block.clone()];
            let weights = Matrix::new(scores, rows, count);
            product_into(weights, of_candidates, by_h, false);
            product_into(
                weights.transposed(),
                Matrix::new(h, rows, dim),
                by_candidates,
                true,
            );
            for (row, &(_, slope)) in own.iter().enumerate() {
                let row = row * dim..(row + 1) * dim;
                let numbers = by_h[row.clone()]
                    .iter_mut()
                    .zip(&mut by_next[block.clone()][row.clone()]);
                let vectors = h[row.clone()].iter().zip(&next[row]);
                for ((by_h, by_next), (h, next)) in numbers.zip(vectors) {
                    *by_h += slope * next;
                    *by_next = slope * h;
                }
            }
        }
        ((loss / f64::from(total)) as f32, gradients)
    }
}

/// Turns the scores of a position into the gradients by them; gives the loss, and the gradient by the
/// score of the position's own next item.
struct Powers<'a> {
    own: f32,
    scores: &'a mut [f32],
    corrections: &'a [f32],
    /// What the position counts in the mean.
    factor: f32,
}

impl Kernel for Powers<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> (f32, f32) {
        let Self {
            own,
            scores,
            corrections,
            factor,
        } = self;
        assert_eq!(scores.len(), corrections.len());
        let whole = scores.len() / L::N * L::N;
        let at = scores.as_mut_ptr();
        let mut largest = own;
        let mut lanes = [0f32; 16];
        // SAFETY: the machine has the set of `L`; pointers reach over `L::N` numbers, as `whole` is a
        // multiple of it within the slices, and no vector is longer than `lanes`.
        unsafe {
            let mut top = L::splat(own);
            for start in (0..whole).step_by(L::N) {
                let correction = L::load(corrections.as_ptr().add(start));
                let score = L::load(at.add(start)).sub(correction);
                score.store(at.add(start));
                top = top.max(score);
            }
            top.store(lanes.as_mut_ptr());
        }
        for &lane in &lanes[..L::N] {
            largest = if lane > largest { lane } else { largest };
        }
        for (score, correction) in scores[whole..].iter_mut().zip(&corrections[whole..]) {
            *score -= correction;
            largest = if *score > largest { *score } else { largest };
        }
        let mut tail = [NO_SCORE; 16];
        tail[..scores.len() - whole].copy_from_slice(&scores[whole..]);
        let mut sum = 0f32;
        // SAFETY: as above; the tail is shorter than a vector, which `tail` holds.
        unsafe {
            let mut sums = L::splat(0.0);
            let top = L::splat(largest);
            for start in (0..whole).step_by(L::N) {
                let power = L::load(at.add(start)).sub(top).exp();
                power.store(at.add(start));
                sums = sums.add(power);
            }
            let power = L::load(tail.as_ptr()).sub(top).exp();
            power.store(tail.as_mut_ptr());
            sums.add(power).store(lanes.as_mut_ptr());
        }
        for lane in &lanes[..L::N] {
            sum += lane;
        }
        let left = scores.len() - whole;
        scores[whole..].copy_from_slice(&tail[..left]);
        let own_power = (own - largest).exp();
        sum += own_power;
        let scale = factor / sum;
        // SAFETY: as above.
        unsafe {
            let scale = L::splat(scale);
            for start in (0..whole).step_by(L::N) {
                L::load(at.add(start)).mul(scale).store(at.add(start));
            }
        }
        for score in &mut scores[whole..] {
            *score *= scale;
        }
        (sum.ln() + largest - own, own_power * scale - factor)
    }
}

#[derive(Debug)]
struct LossBackward;

impl<B: SoftmaxLossGradient> Backward<B, 3> for LossBackward {
    /// The gradients by `h`, `next` and the candidates.
    type State = [B::FloatTensorPrimitive; 3];

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let by_loss = gradients.consume::<B>(&ops.node);
        for (node, gradient) in ops.parents.into_iter().zip(ops.state) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, B::times(gradient, by_loss.clone()));
            }
        }
    }
}

impl<B: SoftmaxLossGradient, C: CheckpointStrategy> SoftmaxLoss for Autodiff<B, C> {
    fn softmax_loss(
        h: FloatTensor<Self>,
        next: FloatTensor<Self>,
        candidates: FloatTensor<Self>,
        terms: Arc<SoftmaxTerms>,
    ) -> FloatTensor<Self> {
        let (h, h_node) = h.into_parts();
        let (next, next_node) = next.into_parts();
        let (candidates, candidates_node) = candidates.into_parts();
        match LossBackward
            .prepare::<C>([h_node, next_node, candidates_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let (loss, kept) = B::loss_and_gradients([h, next, candidates], &terms);
                step.finish(kept, loss)
            }
            OpsKind::UnTracked(step) => step.finish(B::softmax_loss(h, next, candidates, terms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::numbers;
    use approx::assert_relative_eq;
    use burn::tensor::Device;
    use proptest::prelude::*;

    type Form = fn(Tensor<2>, Tensor<2>, Tensor<2>, SoftmaxTerms) -> Tensor<1>;

    fn terms(positions: usize, count: usize) -> SoftmaxTerms {
        let hits = (0..positions as u32).filter(|position| position % 3 == 1);
        SoftmaxTerms {
            corrections: numbers(count, 5),
            hits: hits
                .map(|position| (position, position % count as u32))
                .collect(),
            weights: (0..positions)
                .map(|position| (position % 4) as f32 + 0.5)
                .collect(),
        }
    }

    /// The loss times 3, and the gradients by the vectors.
    fn all(form: Form, [positions, count, dim]: [usize; 3]) -> [Vec<f32>; 4] {
        let device = Device::flex().autodiff();
        let tensor = |rows, seed| {
            let numbers = numbers(rows * dim, seed);
            let numbers = TensorData::new(numbers, [rows, dim]);
            Tensor::<2>::from_data(numbers, &device).require_grad()
        };
        let vectors = [tensor(positions, 1), tensor(positions, 2), tensor(count, 3)];
        let [h, next, candidates] = vectors.clone();
        let loss = form(h, next, candidates, terms(positions, count)).mul_scalar(3.0);
        let mut gradients = loss.clone().backward();
        let [h, next, candidates] =
            vectors.map(|tensor| tensor.grad_remove(&mut gradients).expect("it is tracked"));
        [
            loss.try_into_vec_as().unwrap(),
            h.try_into_vec_as().unwrap(),
            next.try_into_vec_as().unwrap(),
            candidates.try_into_vec_as().unwrap(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn the_operation_equals_the_plain_form_and_its_gradients(
            positions in 1usize..300, count in 1usize..90, dim in 1usize..20,
        ) {
            let shape = [positions, count, dim];
            let pairs = all(softmax_loss, shape).into_iter().zip(all(softmax_loss_plain, shape));
            for (got, expected) in pairs {
                prop_assert_eq!(got.len(), expected.len());
                for (got, expected) in got.into_iter().zip(expected) {
                    // Sums of terms below 1, added in another order.
                    prop_assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1.0));
                }
            }
        }
    }

    #[test]
    fn the_loss_is_that_of_a_naive_loop() {
        let ([positions, count, dim], terms) = ([7, 5, 3], terms(7, 5));
        let [h, next, candidates] = [(positions, 1), (positions, 2), (count, 3)]
            .map(|(rows, seed)| numbers(rows * dim, seed));
        let score = |a: &[f32], at: usize, b: &[f32], of: usize| -> f64 {
            let pairs = a[at * dim..][..dim].iter().zip(&b[of * dim..][..dim]);
            pairs.map(|(a, b)| f64::from(a * b)).sum()
        };
        let (mut sum, mut total) = (0.0, 0.0);
        for position in 0..positions {
            let own = score(&h, position, &next, position);
            let mut z = own.exp();
            for candidate in 0..count {
                if !terms.hits.contains(&(position as u32, candidate as u32)) {
                    let correction = f64::from(terms.corrections[candidate]);
                    z += (score(&h, position, &candidates, candidate) - correction).exp();
                }
            }
            let weight = f64::from(terms.weights[position]);
            sum += weight * (z.ln() - own);
            total += weight;
        }
        let got = all(softmax_loss, [positions, count, dim])[0][0];
        assert_relative_eq!(f64::from(got), 3.0 * sum / total, max_relative = 1e-6);
    }

    #[test]
    fn the_same_bits_at_any_number_of_threads() {
        let [one, three] = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap().install(|| all(softmax_loss, [400, 333, 24]))
        });
        assert!(one == three);
    }

    #[test]
    fn scores_of_any_size_give_a_finite_loss() {
        let device = Device::flex().autodiff();
        let row = |number: f32| Tensor::<2>::from_data([[number]], &device).require_grad();
        for (h, own, other) in [(1e3, 1e3, -1e3), (1e3, -1e3, 1e3), (0.0, 0.0, 0.0)] {
            let terms = SoftmaxTerms {
                corrections: vec![0.0],
                hits: vec![],
                weights: vec![1.0],
            };
            let h = row(h);
            let loss = softmax_loss(h.clone(), row(own), row(other), terms);
            let gradient = h.grad(&loss.backward()).unwrap().into_scalar::<f32>();
            assert!(loss.into_scalar::<f32>().is_finite() && gradient.is_finite());
        }
    }
}
