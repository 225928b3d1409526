//! Scaled dot-product attention.

use burn::tensor::{Bool, Tensor, TensorData, activation};
use crossfield_core::Ragged;

/// What each query reads of its row's values, by how well their keys fit it.
///
/// ```text
/// output_i = Σ_j softmax_j(q_i · k_j / √d) v_j
/// ```
///
/// over the items j of the same row; with `causal`, where queries and keys are the same items, over
/// those up to i. With several heads, queries, keys and values are as many blocks side by side, each
/// attended to by itself, and `d` is the width of a block. A query whose row has no items reads zeros.
///
/// The example of the [crate] calls it.
///
/// # Shapes
/// - queries: `[queries, dim]` in all
/// - keys: `[items, dim]`
/// - values: `[items, values' dim]`
/// - output: `[queries, values' dim]`
///
/// # Panics
/// If the shapes do not fit, or the number of heads does not divide the dims.
///
/// # Source
/// Vaswani et al., Attention Is All You Need, NeurIPS 2017, equation 1 and section 3.2.2.
pub fn dot_product_attention(
    queries: &Ragged,
    keys: &Ragged,
    values: Tensor<2>,
    heads: usize,
    causal: bool,
) -> Tensor<2> {
    let ([_, dim], [_, out]) = (keys.values.dims(), values.dims());
    assert!(
        dim % heads == 0 && out % heads == 0 && queries.values.dims()[1] == dim,
        "{heads} heads do not divide dims of {dim} and {out}, or queries are not of keys' dim"
    );
    let width = dim / heads;
    let (q, _) = queries.padded();
    let (k, mask) = keys.padded();
    let (v, _) = keys.segments.pad(values);
    let ([rows, asking, _], [_, time, _]) = (q.dims(), k.dims());
    let in_heads = |tensor: Tensor<3>| {
        let [rows, time, dim] = tensor.dims();
        tensor
            .reshape([rows, time, heads, dim / heads])
            .swap_dims(1, 2)
    };
    let scores = in_heads(q).matmul(in_heads(k).transpose());
    let scores = scores.div_scalar((width as f64).sqrt());
    let real = mask
        .reshape([rows, 1, 1, time])
        .expand([rows, heads, asking, time]);
    let real = if causal {
        real.bool_and(past(asking, time, &scores))
    } else {
        real
    };
    let scores = scores.mask_fill(real.clone().bool_not(), f32::MIN / 2.0);
    let weights = activation::softmax(scores, 3) * real.float();
    let read = weights.matmul(in_heads(v)).swap_dims(1, 2);
    queries.segments.unpad(read.reshape([rows, asking, out]))
}

/// Whether a key is not behind its query.
fn past(asking: usize, time: usize, like: &Tensor<4>) -> Tensor<4, Bool> {
    let past = (0..asking)
        .flat_map(|query| (0..time).map(move |key| key <= query))
        .collect();
    let past = TensorData::new(past, [1, 1, asking, time]);
    Tensor::<4, Bool>::from_data(past, &like.device()).expand(like.dims())
}
