//! Scaled dot-product attention: a custom operation on flex, plain tensors elsewhere.

use std::sync::LazyLock;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Bool, Tensor, TensorData, activation};
use crossfield_core::{Ragged, Segments, is_flex_f32};
use crossfield_simd::Isa;
use rayon::prelude::*;

use crate::row::{self, Answer, Answered, Row, Scratch};

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
/// On flex it is one operation with a gradient of its own: its cost follows the items that there are
/// and its memory is linear in them; a row has the same bits whatever else is in the batch and at any
/// number of threads. It has no second derivative. On other devices sequences are padded. The example
/// of the [crate] calls it.
///
/// # Shapes
/// - queries: `[queries, dim]` in all
/// - keys: `[items, dim]`
/// - values: `[items, values' dim]`
/// - output: `[queries, values' dim]`
///
/// # Panics
/// If the shapes do not fit, or the number of heads does not divide the dims; if the environment
/// variable `CROSSFIELD_ISA` names an instruction set that the machine does not have.
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
    check(queries, keys, &values, heads, causal);
    let tensors = [&queries.values, &keys.values, &values];
    if !tensors.into_iter().all(is_flex_f32) {
        return dot_product_attention_plain(queries, keys, values, heads, causal);
    }
    let how = How {
        queries: queries.segments.clone(),
        items: keys.segments.clone(),
        heads,
        causal,
    };
    let (queries, keys) = (queries.values.clone(), keys.values.clone());
    Tensor::from_dispatch(<Dispatch as Attend>::attend(
        queries.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        how,
    ))
}

/// The weights that the one query of each row gives to the row's items, what explains
/// [`dot_product_attention`]:
///
/// ```text
/// weight_j = softmax_j(q · k_j / √d)
/// ```
///
/// # Shapes
/// - queries: `[rows, dim]`
/// - keys: `[items, dim]`
/// - output: `[items, heads]`; those of a row and head add up to 1
///
/// # Panics
/// As [`dot_product_attention`].
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use crossfield_attention::dot_product_weights;
/// use crossfield_core::{Ragged, Segments};
///
/// let device = Device::flex();
/// let past = Ragged {
///     values: Tensor::from_data([[8.0, 0.0], [0.0, 8.0]], &device),
///     segments: Segments::new(vec![0, 2]),
/// };
/// // One query, whose two heads look at one number each.
/// let query = Tensor::from_data([[8.0, 0.0]], &device);
/// let weights = dot_product_weights(query, &past, 2).try_into_vec_as::<f32>();
/// let weights = weights.expect("floats");
/// assert!(weights[0] > 0.999 && weights[1] == 0.5);
/// ```
pub fn dot_product_weights(queries: Tensor<2>, keys: &Ragged, heads: usize) -> Tensor<2> {
    let queries = Ragged::of_one(queries);
    check(&queries, keys, &keys.values, heads, false);
    let [items, dim] = keys.values.dims();
    let width = dim / heads;
    let products = keys.segments.spread(queries.values) * keys.values.clone();
    let scores = products.reshape([items, heads, width]).sum_dim(2);
    let scores = scores
        .reshape([items, heads])
        .div_scalar((width as f64).sqrt());
    keys.segments.softmax(scores)
}

fn check(queries: &Ragged, keys: &Ragged, values: &Tensor<2>, heads: usize, causal: bool) {
    let ([items, dim], [valued, out]) = (keys.values.dims(), values.dims());
    let [asking, query_dim] = queries.values.dims();
    assert!(
        heads > 0 && dim % heads == 0 && out % heads == 0 && query_dim == dim,
        "{heads} heads do not divide dims of {dim} and {out}, or queries are not of keys' dim"
    );
    assert!(
        items == keys.segments.items() && valued == items && asking == queries.segments.items(),
        "{asking} queries, {items} keys and {valued} values: expected {}, {} and as many",
        queries.segments.items(),
        keys.segments.items()
    );
    assert_eq!(
        queries.segments.rows(),
        keys.segments.rows(),
        "rows of queries and of keys"
    );
    assert!(
        !causal || queries.segments == keys.segments,
        "causal attention: expected queries and keys of the same items"
    );
}

/// [`dot_product_attention`] in Burn's own operations on padded sequences, for any device.
fn dot_product_attention_plain(
    queries: &Ragged,
    keys: &Ragged,
    values: Tensor<2>,
    heads: usize,
    causal: bool,
) -> Tensor<2> {
    let ([_, dim], [_, out]) = (keys.values.dims(), values.dims());
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
    let weights = activation::softmax(scores, 3);
    let weights = weights * real.float().cast(keys.values.dtype());
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

/// Which queries ask which items, and how.
#[derive(Clone, Debug)]
pub(crate) struct How {
    queries: Segments,
    items: Segments,
    heads: usize,
    causal: bool,
}

/// The operation; a backend listed here takes part in Burn's dispatch.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Attend: Backend {
    /// `[queries, dim]`, `[items, dim]` and `[items, out]` to `[queries, out]`.
    fn attend(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        how: How,
    ) -> FloatTensor<Self>;
}

/// Its gradients, which backends below autodiff have.
pub(crate) trait AttendGradient: Attend {
    /// The output, and ln Σ exp(score) of each query and head, `[queries, heads]`.
    fn attend_and_keep(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        how: &How,
    ) -> [FloatTensor<Self>; 2];

    /// The gradients by queries, keys and values, given the one by the output.
    fn attend_gradients(
        asked: [FloatTensor<Self>; 3],
        kept: [FloatTensor<Self>; 2],
        gradient: FloatTensor<Self>,
        how: &How,
    ) -> [FloatTensor<Self>; 3];
}

/// The instruction set of this machine, or the one that `CROSSFIELD_ISA` names.
pub(crate) static ISA: LazyLock<Isa> =
    LazyLock::new(|| Isa::detect().unwrap_or_else(|error| panic!("{error}")));

impl Attend for Flex {
    fn attend(queries: FlexTensor, keys: FlexTensor, values: FlexTensor, how: How) -> FlexTensor {
        let [output, _] = Self::attend_and_keep(queries, keys, values, &how);
        output
    }
}

impl AttendGradient for Flex {
    fn attend_and_keep(
        queries: FlexTensor,
        keys: FlexTensor,
        values: FlexTensor,
        how: &How,
    ) -> [FlexTensor; 2] {
        let asked = [queries, keys, values].map(|tensor| tensor.to_contiguous());
        let rows = how.rows(&asked);
        let ([asking, _], [_, out]) = (asked[0].shape().dims(), asked[2].shape().dims());
        let mut output = vec![0f32; asking * out];
        let mut log_sums = vec![0f32; asking * how.heads];
        let outputs = cut(&mut output, &how.queries, out);
        let sums = cut(&mut log_sums, &how.queries, how.heads);
        let answers = outputs.into_iter().zip(sums);
        let answers: Vec<_> = answers
            .map(|(output, log_sums)| Answer { output, log_sums })
            .collect();
        rows.into_par_iter().zip(answers).for_each_init(
            Scratch::default,
            |scratch, (row, answer)| {
                if let Some(row) = row {
                    row.answer(*ISA, answer, scratch);
                }
            },
        );
        [
            FlexTensor::from_data(TensorData::new(output, [asking, out])),
            FlexTensor::from_data(TensorData::new(log_sums, [asking, how.heads])),
        ]
    }

    fn attend_gradients(
        asked: [FlexTensor; 3],
        kept: [FlexTensor; 2],
        gradient: FlexTensor,
        how: &How,
    ) -> [FlexTensor; 3] {
        let asked = asked.map(|tensor| tensor.to_contiguous());
        let kept = kept.map(|tensor| tensor.to_contiguous());
        let gradient = gradient.to_contiguous();
        let dims = [0, 1, 2].map(|nth| asked[nth].shape().dims::<2>());
        let rows = how.rows(&asked);
        let [output, log_sums] = [&kept[0], &kept[1]].map(contiguous);
        let by_output = contiguous(&gradient);
        let of_rows = [&how.queries, &how.items, &how.items];
        let mut sums = dims.map(|[count, dim]| vec![0f32; count * dim]);
        let [queries, keys, values] = &mut sums;
        let queries = cut(queries, of_rows[0], dims[0][1]);
        let keys = cut(keys, of_rows[1], dims[1][1]);
        let values = cut(values, of_rows[2], dims[2][1]);
        let gradients = queries.into_iter().zip(keys).zip(values);
        let gradients: Vec<_> = gradients
            .map(|((queries, keys), values)| row::Gradients {
                queries,
                keys,
                values,
            })
            .collect();
        let out = dims[2][1];
        rows.into_par_iter()
            .zip(gradients)
            .enumerate()
            .for_each_init(Scratch::default, |scratch, (nth, (row, gradients))| {
                if let Some(row) = row {
                    let range = how.queries.range(nth);
                    let answered = Answered {
                        output: &output[range.start * out..range.end * out],
                        log_sums: &log_sums[range.start * how.heads..range.end * how.heads],
                        gradient: &by_output[range.start * out..range.end * out],
                    };
                    row.gradients(*ISA, answered, gradients, scratch);
                }
            });
        let mut sums = sums.into_iter().zip(dims);
        std::array::from_fn(|_| {
            let (sums, dims) = sums.next().expect("three gradients");
            FlexTensor::from_data(TensorData::new(sums, dims))
        })
    }
}

impl How {
    /// The rows as kernels see them; none where nothing is asked, or nobody is there to answer.
    fn rows<'a>(&self, asked: &'a [FlexTensor; 3]) -> Vec<Option<Row<'a>>> {
        let [_, dim] = asked[1].shape().dims();
        let [_, out] = asked[2].shape().dims();
        let [queries, keys, values] = [&asked[0], &asked[1], &asked[2]].map(contiguous);
        let row = |nth| {
            let (asking, items) = (self.queries.range(nth), self.items.range(nth));
            (!asking.is_empty() && !items.is_empty()).then(|| Row {
                queries: &queries[asking.start * dim..asking.end * dim],
                keys: &keys[items.start * dim..items.end * dim],
                values: &values[items.start * out..items.end * out],
                dims: [dim, out],
                heads: self.heads,
                causal: self.causal,
            })
        };
        (0..self.items.rows()).map(row).collect()
    }
}

/// The numbers of each row of a batch, `width` an item.
fn cut<'a>(mut numbers: &'a mut [f32], rows: &Segments, width: usize) -> Vec<&'a mut [f32]> {
    let of_row = |row| {
        let of_row = numbers.split_off_mut(..rows.range(row).len() * width);
        of_row.expect("as many numbers as the items have")
    };
    (0..rows.rows()).map(of_row).collect()
}

fn contiguous(tensor: &FlexTensor) -> &[f32] {
    tensor
        .as_slice()
        .expect("contiguous, and f32 by `dot_product_attention`")
}

#[derive(Debug)]
struct AttendBackward;

impl<B: AttendGradient> Backward<B, 3> for AttendBackward {
    /// Queries, keys and values; output and logarithms of sums.
    type State = (
        [B::FloatTensorPrimitive; 3],
        [B::FloatTensorPrimitive; 2],
        How,
    );

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (asked, kept, how) = ops.state;
        let gradient = gradients.consume::<B>(&ops.node);
        let by_asked = B::attend_gradients(asked, kept, gradient, &how);
        for (node, gradient) in ops.parents.into_iter().zip(by_asked) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: AttendGradient, C: CheckpointStrategy> Attend for Autodiff<B, C> {
    fn attend(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        how: How,
    ) -> FloatTensor<Self> {
        let (queries, query_node) = queries.into_parts();
        let (keys, key_node) = keys.into_parts();
        let (values, value_node) = values.into_parts();
        match AttendBackward
            .prepare::<C>([query_node, key_node, value_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let asked = [queries.clone(), keys.clone(), values.clone()];
                let kept = B::attend_and_keep(queries, keys, values, &how);
                let output = kept[0].clone();
                step.finish((asked, kept, how), output)
            }
            OpsKind::UnTracked(step) => step.finish(B::attend(queries, keys, values, how)),
        }
    }
}

#[cfg(test)]
mod tests;
