//! The first layer of an activation unit: a custom operation on flex, plain tensors elsewhere.
//!
//! ```text
//! z_t = [q, k_t, q − k_t, q ⊙ k_t] W + b,  W = [W_q; W_k; W_d; W_p]
//!     = q (W_q + W_d) + b + k_t (W_k − W_d + diag(q) W_p)
//! ```
//!
//! for the items t of a row with query q. The first two terms and the matrix in front of k_t are the
//! same for all items of a row: an item costs one product of a vector of `dim` numbers instead of
//! one of 4 `dim`, and the input is never made.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::LazyLock;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, TensorData, module};
use crossfield_core::{Segments, is_flex_f32};
use crossfield_simd::{Isa, Kernel, Lanes};
use rayon::prelude::*;

/// Rows that are one task, and whose sums are added up before they are added to those of others.
const ROWS_A_TASK: usize = 32;

/// The best that the machine has: nothing is fused or reordered, all give the same bits.
static ISA: LazyLock<Isa> = LazyLock::new(|| Isa::available()[0]);

/// The first layer's sums for each item.
///
/// # Shapes
/// - query: `[rows, dim]`
/// - keys: `[items, dim]`
/// - weight: `[4 · dim, units]`
/// - bias: `[units]`
/// - output: `[items, units]`
pub(crate) fn unit_layer(
    query: Tensor<2>,
    keys: Tensor<2>,
    segments: &Segments,
    weight: Tensor<2>,
    bias: Tensor<1>,
) -> Tensor<2> {
    let ([rows, dim], [items, width]) = (query.dims(), keys.dims());
    let ([inputs, units], [biases]) = (weight.dims(), bias.dims());
    assert!(
        (rows, items) == (segments.rows(), segments.items())
            && (width, inputs, biases) == (dim, 4 * dim, units),
        "queries are {:?}, keys {:?}, weights {:?}: expected [{}, dim], [{}, dim], [4 · dim, units]",
        query.dims(),
        keys.dims(),
        weight.dims(),
        segments.rows(),
        segments.items()
    );
    let all = is_flex_f32(&query) && is_flex_f32(&keys) && is_flex_f32(&weight);
    if !(all && is_flex_f32(&bias)) {
        return unit_layer_plain(query, keys, segments, weight, bias);
    }
    Tensor::from_dispatch(<Dispatch as UnitLayer>::unit_layer(
        query.into_dispatch(),
        keys.into_dispatch(),
        segments.clone(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ))
}

/// [`unit_layer`] in Burn's own operations, for any device.
fn unit_layer_plain(
    query: Tensor<2>,
    keys: Tensor<2>,
    segments: &Segments,
    weight: Tensor<2>,
    bias: Tensor<1>,
) -> Tensor<2> {
    let query = segments.spread(query);
    let parts = vec![
        query.clone(),
        keys.clone(),
        query.clone() - keys.clone(),
        query * keys,
    ];
    module::linear(Tensor::cat(parts, 1), weight, Some(bias))
}

/// The operation; a backend listed here takes part in Burn's dispatch.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait UnitLayer: Backend {
    /// Query, keys, weight and bias to `[items, units]`.
    fn unit_layer(
        query: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        segments: Segments,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// Its gradients, which backends below autodiff have.
pub(crate) trait UnitLayerGradient: UnitLayer {
    /// By query, keys, weight and bias, given the one by the output.
    fn unit_layer_gradient(
        query: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        segments: &Segments,
        weight: FloatTensor<Self>,
        output: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 4];
}

fn contiguous(tensor: &FlexTensor) -> &[f32] {
    tensor
        .as_slice()
        .expect("contiguous, and f32 by `unit_layer`")
}

/// The parts of W as kernels want them.
struct Weights {
    dim: usize,
    units: usize,
    /// `W_q + W_d`, `[dim, units]`.
    of_query: Vec<f32>,
    /// `W_k − W_d`, `[dim, units]`.
    of_key: Vec<f32>,
    /// `W_p`, `[dim, units]`.
    of_product: Vec<f32>,
}

impl Weights {
    fn new(weight: &[f32], dim: usize, units: usize) -> Self {
        let part = |nth: usize| &weight[nth * dim * units..][..dim * units];
        let zip = |a: &[f32], b: &[f32], of: fn(f32, f32) -> f32| {
            a.iter().zip(b).map(|(&a, &b)| of(a, b)).collect()
        };
        Self {
            dim,
            units,
            of_query: zip(part(0), part(2), |q, d| q + d),
            of_key: zip(part(1), part(2), |k, d| k - d),
            of_product: part(3).to_vec(),
        }
    }

    /// `[units, dim]` of one of the parts.
    fn transposed(&self, part: &[f32]) -> Vec<f32> {
        let at = |at: usize| part[at % self.dim * self.units + at / self.dim];
        (0..self.dim * self.units).map(at).collect()
    }
}

/// The rows of each task.
fn tasks(segments: &Segments) -> Vec<Range<usize>> {
    let rows = segments.rows();
    (0..rows)
        .step_by(ROWS_A_TASK)
        .map(|first| first..(first + ROWS_A_TASK).min(rows))
        .collect()
}

/// The items of the rows of a task.
fn items_of(segments: &Segments, rows: &Range<usize>) -> Range<usize> {
    segments.range(rows.start).start..segments.range(rows.end - 1).end
}

/// One slice for each task, of `width` numbers for each that it has.
fn split<'a, T>(
    mut values: &'a mut [T],
    counts: impl Iterator<Item = usize>,
    width: usize,
) -> Vec<&'a mut [T]> {
    let take = |count: usize| {
        let (head, tail) = std::mem::take(&mut values).split_at_mut(count * width);
        values = tail;
        head
    };
    counts.map(take).collect()
}

/// Floats behind a matrix that a kernel may read, so that the last vector of a row need not be whole.
const SLACK: usize = 16;

/// What a product is added to.
#[derive(Clone, Copy)]
enum Start<'a> {
    /// To the same numbers in each row.
    Row(&'a [f32]),
    /// To nothing.
    Zero,
}

/// Writes `start + a b` into the rows of `out`. The number of `a` at `(row, i)` lies at
/// `row · steps[0] + i · steps[1]`; `b` is `[inner, n]`, and may have [`SLACK`]. What is added to a number
/// comes in the order of `i`, and is rounded after each product and each sum: where the number lies
/// makes no difference.
///
/// # Safety
/// The machine has the instruction set of `L`.
#[inline(always)]
unsafe fn product<L: Lanes>(
    a: (&[f32], [usize; 2]),
    b: &[f32],
    (inner, n): (usize, usize),
    start: Start<'_>,
    out: &mut [MaybeUninit<f32>],
) {
    let rows = out.len() / n;
    let mut row = 0;
    // SAFETY: the caller vouches for the set.
    unsafe {
        while row + 8 <= rows {
            product_of::<L, 8>(a, row, b, (inner, n), start, out);
            row += 8;
        }
        while row + 2 <= rows {
            product_of::<L, 2>(a, row, b, (inner, n), start, out);
            row += 2;
        }
        while row < rows {
            product_of::<L, 1>(a, row, b, (inner, n), start, out);
            row += 1;
        }
    }
}

/// [`product`] for `R` rows from `row` on.
///
/// # Safety
/// The machine has the instruction set of `L`.
#[inline(always)]
unsafe fn product_of<L: Lanes, const R: usize>(
    (a, [down, right]): (&[f32], [usize; 2]),
    row: usize,
    b: &[f32],
    (inner, n): (usize, usize),
    start: Start<'_>,
    out: &mut [MaybeUninit<f32>],
) {
    assert!(
        inner > 0 && (row + R - 1) * down + (inner - 1) * right < a.len(),
        "a"
    );
    assert!(inner * n <= b.len(), "b");
    let (a, out) = (a[row * down..].as_ptr(), &mut out[row * n..(row + R) * n]);
    if let Start::Row(start) = start {
        assert!(n <= start.len(), "start");
    }
    let mut column = 0;
    // SAFETY: the caller vouches for the set. Reads of `a` end before the place that was checked, those
    // of `start` before `n`, and those of `b` before `inner · n` while whole vectors are left in a row,
    // or, in the last part of one, before `inner · n + SLACK`, which is checked; so do writes to `out`,
    // of which the last part of a row goes through an array.
    unsafe {
        while column + L::N <= n {
            let sums = match start {
                Start::Row(start) => [L::load(start.as_ptr().add(column)); R],
                Start::Zero => [L::splat(0.0); R],
            };
            let sums = add_tile::<L, R>((a, [down, right]), b, (inner, n), column, sums);
            for (nth, sum) in sums.into_iter().enumerate() {
                sum.store(out.as_mut_ptr().add(nth * n + column).cast());
            }
            column += L::N;
        }
        if column < n && inner * n + SLACK <= b.len() && L::N <= SLACK {
            let mut part = [0f32; SLACK];
            if let Start::Row(start) = start {
                part[..n - column].copy_from_slice(&start[column..n]);
            }
            let sums = [L::load(part.as_ptr()); R];
            let sums = add_tile::<L, R>((a, [down, right]), b, (inner, n), column, sums);
            for (nth, sum) in sums.into_iter().enumerate() {
                sum.store(part.as_mut_ptr());
                for (out, &sum) in out[nth * n + column..(nth + 1) * n].iter_mut().zip(&part) {
                    out.write(sum);
                }
            }
            return;
        }
        for column in column..n {
            for nth in 0..R {
                let mut sum = match start {
                    Start::Row(start) => start[column],
                    Start::Zero => 0.0,
                };
                for i in 0..inner {
                    sum += *a.add(nth * down + i * right) * b[i * n + column];
                }
                out[nth * n + column].write(sum);
            }
        }
    }
}

/// # Safety
/// The machine has the instruction set of `L`; `a` reaches over `R` rows and `inner` columns, `b` over
/// a vector from `column` on in each of its `inner` rows.
#[inline(always)]
unsafe fn add_tile<L: Lanes, const R: usize>(
    (a, [down, right]): (*const f32, [usize; 2]),
    b: &[f32],
    (inner, n): (usize, usize),
    column: usize,
    mut sums: [L; R],
) -> [L; R] {
    for i in 0..inner {
        // SAFETY: the caller vouches for the set and the reach.
        unsafe {
            let b = L::load(b.as_ptr().add(i * n + column));
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add(L::splat(*a.add(row * down + i * right)).mul(b));
            }
        }
    }
    sums
}

/// Numbers that may be written over as if they were not set yet.
fn unset(numbers: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    let (start, len) = (
        numbers.as_mut_ptr().cast::<MaybeUninit<f32>>(),
        numbers.len(),
    );
    // SAFETY: the same memory under a type of the same layout; nothing in this file takes a number
    // out of such a slice without writing one.
    unsafe { std::slice::from_raw_parts_mut(start, len) }
}

/// Σ a b, always in the same order.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut sums = [0f32; 16];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let mut sum = 0.0;
    for lane in sums {
        sum += lane;
    }
    for (a, b) in a_rest.iter().zip(b_rest) {
        sum += a * b;
    }
    sum
}

/// `of_key + diag(q) of_product`.
#[inline(always)]
fn matrix_of(query: &[f32], weights: &Weights, matrix: &mut [f32]) {
    let units = weights.units;
    for (i, &q) in query.iter().enumerate() {
        let range = i * units..(i + 1) * units;
        let key = &weights.of_key[range.clone()];
        let product = &weights.of_product[range.clone()];
        let matrix = &mut matrix[range];
        for unit in 0..units {
            matrix[unit] = key[unit] + q * product[unit];
        }
    }
}

struct Forward<'a> {
    rows: Range<usize>,
    segments: &'a Segments,
    query: &'a [f32],
    keys: &'a [f32],
    weights: &'a Weights,
    bias: &'a [f32],
    /// Of the items of these rows.
    output: &'a mut [MaybeUninit<f32>],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Weights { dim, units, .. } = *self.weights;
        let (mut start, mut matrix) = (vec![0f32; units], vec![0f32; dim * units + SLACK]);
        let mut output = self.output;
        for row in self.rows {
            let items = self.segments.range(row);
            if items.is_empty() {
                continue;
            }
            let (of_row, rest) = std::mem::take(&mut output).split_at_mut(items.len() * units);
            output = rest;
            let query = &self.query[row * dim..][..dim];
            let of_query = &self.weights.of_query;
            let bias = Start::Row(self.bias);
            // SAFETY: the caller vouches for the set; so below.
            unsafe {
                product::<L>(
                    (query, [dim, 1]),
                    of_query,
                    (dim, units),
                    bias,
                    unset(&mut start),
                )
            };
            matrix_of(query, self.weights, &mut matrix);
            let keys = &self.keys[items.start * dim..items.end * dim];
            // SAFETY: as above.
            unsafe {
                product::<L>(
                    (keys, [dim, 1]),
                    &matrix,
                    (dim, units),
                    Start::Row(&start),
                    of_row,
                )
            };
        }
    }
}

impl UnitLayer for Flex {
    fn unit_layer(
        query: FlexTensor,
        keys: FlexTensor,
        segments: Segments,
        weight: FlexTensor,
        bias: FlexTensor,
    ) -> FlexTensor {
        let [query, keys, weight, bias] =
            [query, keys, weight, bias].map(|tensor| tensor.to_contiguous());
        let ([_, dim], [_, units]) = (query.shape().dims(), weight.shape().dims());
        let weights = Weights::new(contiguous(&weight), dim, units);
        let items = segments.items();
        let mut output = Vec::with_capacity(items * units);
        let tasks = tasks(&segments);
        let counts = tasks.iter().map(|rows| items_of(&segments, rows).len());
        let room = &mut output.spare_capacity_mut()[..items * units];
        let outputs = split(room, counts, units);
        tasks
            .into_par_iter()
            .zip(outputs)
            .for_each(|(rows, output)| {
                ISA.run(Forward {
                    rows,
                    segments: &segments,
                    query: contiguous(&query),
                    keys: contiguous(&keys),
                    weights: &weights,
                    bias: contiguous(&bias),
                    output,
                });
            });
        // SAFETY: there is room for that many, and the tasks have written `units` numbers for each item
        // of each row.
        unsafe { output.set_len(items * units) };
        FlexTensor::from_data(TensorData::new(output, [items, units]))
    }
}

/// Sums over the rows of a task of what W and b get.
struct ByWeights {
    of_query: Vec<f32>,
    of_key: Vec<f32>,
    of_product: Vec<f32>,
    bias: Vec<f32>,
}

struct BackwardPass<'a> {
    rows: Range<usize>,
    segments: &'a Segments,
    query: &'a [f32],
    keys: &'a [f32],
    weights: &'a Weights,
    /// `of_key` and `of_product`, transposed.
    transposed: [&'a [f32]; 2],
    output: &'a [f32],
    /// Of these rows.
    by_query: &'a mut [f32],
    /// Of the items of these rows.
    by_keys: &'a mut [f32],
}

impl Kernel for BackwardPass<'_> {
    type Output = ByWeights;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> ByWeights {
        let weights = self.weights;
        let Weights { dim, units, .. } = *weights;
        let zeros = || vec![0f32; dim * units];
        let mut sums = ByWeights {
            of_query: zeros(),
            of_key: zeros(),
            of_product: zeros(),
            bias: vec![0f32; units],
        };
        let (mut transposed, mut by_matrix) = (vec![0f32; dim * units + SLACK], zeros());
        let mut by_start = vec![0f32; units];
        let [of_key, of_product] = self.transposed;
        let first = self.segments.range(self.rows.start).start;
        let first_row = self.rows.start;
        for row in self.rows {
            let items = self.segments.range(row);
            if items.is_empty() {
                continue;
            }
            let query = &self.query[row * dim..][..dim];
            let keys = &self.keys[items.start * dim..items.end * dim];
            let output = &self.output[items.start * units..items.end * units];
            // By the items: the row's matrix, transposed.
            let rows = transposed[..dim * units].chunks_exact_mut(dim);
            let rows = rows.zip(of_key.chunks_exact(dim));
            for ((transposed, key), product) in rows.zip(of_product.chunks_exact(dim)) {
                for i in 0..dim {
                    transposed[i] = key[i] + query[i] * product[i];
                }
            }
            let by_keys = &mut self.by_keys[(items.start - first) * dim..(items.end - first) * dim];
            // SAFETY: the caller vouches for the set.
            unsafe {
                product::<L>(
                    (output, [units, 1]),
                    &transposed,
                    (units, dim),
                    Start::Zero,
                    unset(by_keys),
                )
            };
            // By the row's matrix and the term beside it.
            let count = items.len();
            // SAFETY: as above.
            unsafe {
                product::<L>(
                    (keys, [1, dim]),
                    output,
                    (count, units),
                    Start::Zero,
                    unset(&mut by_matrix),
                )
            };
            by_start.fill(0.0);
            let start = &mut by_start[..units];
            for output in output.chunks_exact(units) {
                for unit in 0..units {
                    start[unit] += output[unit];
                }
            }
            let bias = &mut sums.bias[..units];
            for unit in 0..units {
                bias[unit] += start[unit];
            }
            let by_query = &mut self.by_query[(row - first_row) * dim..][..dim];
            for (i, &q) in query.iter().enumerate() {
                let range = i * units..(i + 1) * units;
                let by_matrix = &by_matrix[range.clone()];
                by_query[i] = dot(&weights.of_query[range.clone()], &by_start)
                    + dot(&weights.of_product[range.clone()], by_matrix);
                let of_query = &mut sums.of_query[range.clone()];
                let of_key = &mut sums.of_key[range.clone()];
                let of_product = &mut sums.of_product[range];
                let start = &by_start[..units];
                for unit in 0..units {
                    of_query[unit] += q * start[unit];
                    of_key[unit] += by_matrix[unit];
                    of_product[unit] += q * by_matrix[unit];
                }
            }
        }
        sums
    }
}

impl UnitLayerGradient for Flex {
    fn unit_layer_gradient(
        query: FlexTensor,
        keys: FlexTensor,
        segments: &Segments,
        weight: FlexTensor,
        output: FlexTensor,
    ) -> [FlexTensor; 4] {
        let [query, keys, weight, output] =
            [query, keys, weight, output].map(|tensor| tensor.to_contiguous());
        let ([rows, dim], [_, units]) = (query.shape().dims(), weight.shape().dims());
        let items = segments.items();
        let weights = Weights::new(contiguous(&weight), dim, units);
        let [key, product] = [
            weights.transposed(&weights.of_key),
            weights.transposed(&weights.of_product),
        ];
        let (mut by_query, mut by_keys) = (vec![0f32; rows * dim], vec![0f32; items * dim]);
        let tasks = tasks(segments);
        let counts = tasks.iter().map(|rows| items_of(segments, rows).len());
        let of_keys = split(&mut by_keys, counts, dim);
        let of_query = split(&mut by_query, tasks.iter().map(Range::len), dim);
        let of_tasks: Vec<ByWeights> = tasks
            .into_par_iter()
            .zip(of_query)
            .zip(of_keys)
            .map(|((rows, by_query), by_keys)| {
                ISA.run(BackwardPass {
                    rows,
                    segments,
                    query: contiguous(&query),
                    keys: contiguous(&keys),
                    weights: &weights,
                    transposed: [&key, &product],
                    output: contiguous(&output),
                    by_query,
                    by_keys,
                })
            })
            .collect();
        // Task by task, on one thread: the order of additions is always the same.
        let mut by_weight = vec![0f32; 4 * dim * units];
        let mut by_bias = vec![0f32; units];
        let (by_q, rest) = by_weight.split_at_mut(dim * units);
        let (by_k, rest) = rest.split_at_mut(dim * units);
        let (by_d, by_p) = rest.split_at_mut(dim * units);
        for sums in &of_tasks {
            let add = |total: &mut [f32], sum: &[f32]| {
                total
                    .iter_mut()
                    .zip(sum)
                    .for_each(|(total, sum)| *total += sum);
            };
            add(by_q, &sums.of_query);
            add(by_k, &sums.of_key);
            add(by_p, &sums.of_product);
            add(&mut by_bias, &sums.bias);
        }
        for ((d, &q), &k) in by_d.iter_mut().zip(&*by_q).zip(&*by_k) {
            *d = q - k;
        }
        let tensor =
            |values, shape: [usize; 2]| FlexTensor::from_data(TensorData::new(values, shape));
        [
            tensor(by_query, [rows, dim]),
            tensor(by_keys, [items, dim]),
            tensor(by_weight, [4 * dim, units]),
            FlexTensor::from_data(TensorData::new(by_bias, [units])),
        ]
    }
}

#[derive(Debug)]
struct UnitLayerBackward;

impl<B: UnitLayerGradient> Backward<B, 4> for UnitLayerBackward {
    /// Query, keys and weight.
    type State = ([B::FloatTensorPrimitive; 3], Segments);

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let ([query, keys, weight], segments) = ops.state;
        let output = gradients.consume::<B>(&ops.node);
        let all = B::unit_layer_gradient(query, keys, &segments, weight, output);
        for (node, gradient) in ops.parents.into_iter().zip(all) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: UnitLayerGradient, C: CheckpointStrategy> UnitLayer for Autodiff<B, C> {
    fn unit_layer(
        query: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        segments: Segments,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let ((query, q), (keys, k)) = (query.into_parts(), keys.into_parts());
        let ((weight, w), (bias, b)) = (weight.into_parts(), bias.into_parts());
        match UnitLayerBackward
            .prepare::<C>([q, k, w, b])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let output = B::unit_layer(
                    query.clone(),
                    keys.clone(),
                    segments.clone(),
                    weight.clone(),
                    bias,
                );
                step.finish(([query, keys, weight], segments), output)
            }
            OpsKind::UnTracked(step) => {
                step.finish(B::unit_layer(query, keys, segments, weight, bias))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use proptest::prelude::*;

    type Form = fn(Tensor<2>, Tensor<2>, &Segments, Tensor<2>, Tensor<1>) -> Tensor<2>;

    /// Output, and the gradients of Σ output² by query, keys, weight and bias.
    fn all(form: Form, segments: &Segments, dim: usize, units: usize) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let numbers = |count: usize, step: f32| -> Vec<f32> {
            (0..count).map(|at| (at as f32 * step).sin()).collect()
        };
        let matrix = |rows: usize, columns: usize, step| {
            let data = TensorData::new(numbers(rows * columns, step), [rows, columns]);
            Tensor::<2>::from_data(data, &device).require_grad()
        };
        let query = matrix(segments.rows(), dim, 0.37);
        let keys = matrix(segments.items(), dim, 0.91);
        let weight = matrix(4 * dim, units, 1.7);
        let bias = Tensor::<1>::from_data(&numbers(units, 0.5)[..], &device).require_grad();
        let output = form(
            query.clone(),
            keys.clone(),
            segments,
            weight.clone(),
            bias.clone(),
        );
        let mut gradients = output.clone().square().sum().backward();
        let mut parts = vec![output.try_into_vec_as::<f32>().unwrap()];
        for tensor in [query, keys, weight] {
            let gradient = tensor.grad_remove(&mut gradients).unwrap();
            parts.push(gradient.try_into_vec_as::<f32>().unwrap());
        }
        let gradient = bias.grad_remove(&mut gradients).unwrap();
        parts.push(gradient.try_into_vec_as::<f32>().unwrap());
        parts
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_operation_equals_the_plain_form_and_its_gradients(
            lengths in prop::collection::vec(0u32..9, 1..70),
            dim in 1usize..10,
            units in 1usize..40,
        ) {
            let mut offsets = vec![0];
            for length in lengths {
                offsets.push(offsets[offsets.len() - 1] + length);
            }
            let segments = Segments::new(offsets);
            prop_assume!(segments.items() > 0);
            let custom = all(unit_layer, &segments, dim, units);
            let plain = all(unit_layer_plain, &segments, dim, units);
            for (custom, plain) in custom.iter().zip(&plain) {
                let size = plain.iter().fold(1f32, |size, value| size.max(value.abs()));
                for (custom, plain) in custom.iter().zip(plain) {
                    prop_assert!((custom - plain).abs() <= 1e-5 * size, "{custom} {plain}");
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let segments = Segments::new(vec![0, 3, 3, 9]);
        let numbers =
            |count: usize| -> Vec<f32> { (0..count).map(|at| (at as f32).sin()).collect() };
        let (query, keys) = (numbers(3 * 5), numbers(9 * 5));
        let weights = Weights::new(&numbers(4 * 5 * 29), 5, 29);
        let of = |isa: Isa| {
            let mut output = vec![0f32; 9 * 29];
            isa.run(Forward {
                rows: 0..3,
                segments: &segments,
                query: &query,
                keys: &keys,
                weights: &weights,
                bias: &numbers(29),
                output: unset(&mut output),
            });
            output
        };
        for isa in Isa::available() {
            assert_eq!(of(isa), of(Isa::PORTABLE), "{}", isa.name());
        }
    }
}
