//! The loss of a softmax over many items.

use burn::tensor::{Bool, Tensor, TensorData};

/// What [`softmax_loss`] knows beside the vectors.
#[derive(Clone, Debug)]
pub(crate) struct SoftmaxTerms {
    /// What is taken off the score of each candidate.
    pub(crate) corrections: Vec<f32>,
    /// Position and candidate of those that are the position's own next item, and are left out.
    pub(crate) hits: Vec<(u32, u32)>,
    /// How much each position counts.
    pub(crate) weights: Vec<f32>,
}

/// The weighted mean over positions of `ln Z − s`, with `s = ⟨h, v_next⟩` and
/// `Z = exp(s) + Σ_j exp(⟨h, v_j⟩ − correction_j)` over the candidates that are not left out.
///
/// # Shapes
/// - h, next: `[positions, dim]`
/// - candidates: `[candidates, dim]`
/// - output: `[1]`
pub(crate) fn softmax_loss(
    h: Tensor<2>,
    next: Tensor<2>,
    candidates: Tensor<2>,
    terms: SoftmaxTerms,
) -> Tensor<1> {
    softmax_loss_plain(h, next, candidates, terms)
}

/// [`softmax_loss`] in Burn's own operations, for any device.
fn softmax_loss_plain(
    h: Tensor<2>,
    next: Tensor<2>,
    candidates: Tensor<2>,
    terms: SoftmaxTerms,
) -> Tensor<1> {
    let device = h.device();
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
    let scores = scores.mask_fill(left_out, f32::MIN / 2.0);
    let largest = scores.clone().max_dim(1).max_pair(own.clone()).detach();
    let sums = (scores - largest.clone()).exp().sum_dim(1) + (own.clone() - largest.clone()).exp();
    let losses = sums.log() + largest - own;
    let total = terms.weights.iter().sum::<f32>().max(f32::MIN_POSITIVE);
    let weights = TensorData::new(terms.weights, [positions, 1]);
    let weights = Tensor::<2>::from_data(weights, &device);
    (losses * weights).sum_dim(0).div_scalar(total).reshape([1])
}
