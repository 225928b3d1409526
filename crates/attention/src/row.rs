//! Dot-product attention of one row: kernels, forward and backward.
//!
//! Scores are kept for a few queries at a time, never for all: memory is linear in the items. The
//! backward pass computes them again from the logarithms of the sums of their exponentials (Dao et
//! al., FlashAttention, NeurIPS 2022, section 3.1).

use crossfield_simd::{Isa, Kernel, Lanes};

/// Queries that are answered together: as many sums as stay in registers.
const GROUP: usize = 8;

/// Rows with fewer queries answer them one by one, for which keys need not be turned: with so many
/// that is as fast for heads of 16 to 64.
const FEW: usize = 6;

/// A score that no item has: its power is 0.
const NO_SCORE: f32 = f32::MIN;

/// What a row asks and what it is asked: rows of numbers, cut into heads side by side.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    /// `[queries, dim]`
    pub queries: &'a [f32],
    /// `[items, dim]`
    pub keys: &'a [f32],
    /// `[items, out]`
    pub values: &'a [f32],
    /// Numbers of a key, and of a value.
    pub dims: [usize; 2],
    pub heads: usize,
    /// Whether a query sees no items behind its own.
    pub causal: bool,
}

/// What a row is given back, and what is kept to compute its gradients.
pub(crate) struct Answer<'a> {
    /// `[queries, out]`
    pub output: &'a mut [f32],
    /// ln Σ exp(score), `[queries, heads]`
    pub log_sums: &'a mut [f32],
}

/// The gradients of a row, zero before they are computed.
pub(crate) struct Gradients<'a> {
    /// `[queries, dim]`
    pub queries: &'a mut [f32],
    /// `[items, dim]`
    pub keys: &'a mut [f32],
    /// `[items, out]`
    pub values: &'a mut [f32],
}

/// What the gradients of a row follow from.
#[derive(Clone, Copy)]
pub(crate) struct Answered<'a> {
    /// `[queries, out]`
    pub output: &'a [f32],
    /// ln Σ exp(score), `[queries, heads]`
    pub log_sums: &'a [f32],
    /// The gradient by the output, `[queries, out]`.
    pub gradient: &'a [f32],
}

/// Memory that rows use one after the other.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Keys and values of a head in panels of a vector's width, `[panels, width, lanes]`.
    turned: [Vec<f32>; 2],
    /// The same row by row, where they do not fill vectors; then their gradients.
    padded: [Vec<f32>; 3],
    /// Queries of a group and the gradients by their outputs, `[width, GROUP]`, then row by row.
    group: [Vec<f32>; 4],
    /// Scores, then weights, of a group, and their gradients: `[GROUP, items]`.
    scores: [Vec<f32>; 2],
}

impl Row<'_> {
    /// Answers all queries. There is at least one, and at least one item.
    pub(crate) fn answer(self, isa: Isa, answer: Answer<'_>, scratch: &mut Scratch) {
        self.check(answer.output.len(), answer.log_sums.len());
        let kernel = Forward {
            row: self,
            answer,
            scratch,
        };
        match self.fills_wide_vectors() {
            true => isa.run(kernel),
            false => isa.run_eight(kernel),
        }
    }

    /// Adds the gradients by queries, keys and values.
    pub(crate) fn gradients(
        self,
        isa: Isa,
        answered: Answered<'_>,
        gradients: Gradients<'_>,
        scratch: &mut Scratch,
    ) {
        self.check(answered.output.len(), answered.log_sums.len());
        let sizes = [
            answered.gradient.len(),
            gradients.queries.len(),
            gradients.keys.len(),
            gradients.values.len(),
        ];
        let expected = [
            answered.output.len(),
            self.queries.len(),
            self.keys.len(),
            self.values.len(),
        ];
        assert_eq!(sizes, expected, "a gradient of each number");
        let kernel = Backward {
            row: self,
            answered,
            gradients,
            scratch,
        };
        match self.fills_wide_vectors() {
            true => isa.run(kernel),
            false => isa.run_eight(kernel),
        }
    }

    fn check(&self, output: usize, log_sums: usize) {
        let [dim, out] = self.dims;
        assert!(
            self.queries.len() == self.asking() * dim
                && self.keys.len() == self.items() * dim
                && self.values.len() == self.items() * out
                && output == self.asking() * out
                && log_sums == self.asking() * self.heads
                && (!self.causal || self.asking() == self.items())
                && dim.is_multiple_of(self.heads)
                && out.is_multiple_of(self.heads),
            "whole rows of numbers"
        );
    }

    fn asking(&self) -> usize {
        self.queries.len() / self.dims[0]
    }

    fn items(&self) -> usize {
        self.keys.len() / self.dims[0]
    }

    /// Numbers of a key and of a value that a head sees.
    fn widths(&self) -> [usize; 2] {
        self.dims.map(|dim| dim / self.heads)
    }

    fn fills_wide_vectors(&self) -> bool {
        self.widths().iter().all(|width| width.is_multiple_of(16))
    }

    /// 1 / √d
    fn scale(&self) -> f32 {
        (1.0 / (self.widths()[0] as f64).sqrt()) as f32
    }

    /// How many items a query sees, the first ones.
    fn seen(&self, query: usize) -> usize {
        match self.causal {
            true => query + 1,
            false => self.items(),
        }
    }

    /// How many items some query of a group sees.
    fn seen_by_group(&self, first: usize) -> usize {
        self.seen((first + GROUP).min(self.asking()) - 1)
    }
}

/// Numbers of a head: rows of `width` numbers, `step` apart.
#[derive(Clone, Copy)]
struct Block {
    at: *const f32,
    step: usize,
    width: usize,
}

impl Block {
    /// Those of head `head` in rows of `dim` numbers.
    fn new(rows: &[f32], dim: usize, heads: usize, head: usize) -> Self {
        let width = dim / heads;
        Self {
            at: rows[head * width..].as_ptr(),
            step: dim,
            width,
        }
    }

    /// # Safety
    /// There is such a row.
    #[inline(always)]
    unsafe fn row(&self, nth: usize) -> *const f32 {
        // SAFETY: the caller's.
        unsafe { self.at.add(nth * self.step) }
    }

    /// # Safety
    /// There is such a row.
    #[inline(always)]
    unsafe fn numbers<'a>(self, nth: usize) -> &'a [f32] {
        // SAFETY: the caller's; a row is `width` numbers.
        unsafe { std::slice::from_raw_parts(self.row(nth), self.width) }
    }

    /// The block with rows that fill vectors: itself, or a copy with zeros behind each row.
    ///
    /// # Safety
    /// There are `count` rows.
    #[inline(always)]
    unsafe fn filled<L: Lanes>(self, count: usize, copy: &mut Vec<f32>) -> Self {
        if self.width.is_multiple_of(L::N) {
            return self;
        }
        let width = self.width.next_multiple_of(L::N);
        copy.clear();
        copy.resize(count * width, 0.0);
        for (nth, padded) in copy.chunks_exact_mut(width).enumerate() {
            // SAFETY: `nth` is below `count`.
            padded[..self.width].copy_from_slice(unsafe { self.numbers(nth) });
        }
        Self {
            at: copy.as_ptr(),
            step: width,
            width,
        }
    }

    /// The rows in panels of `L::N`: number `d` of row `r` lies at `[r / N][d][r % N]`; zeros where
    /// the last panel has no rows.
    ///
    /// # Safety
    /// There are `count` rows.
    #[inline(always)]
    unsafe fn turn<L: Lanes>(self, count: usize, turned: &mut Vec<f32>) {
        let panel = self.width * L::N;
        turned.clear();
        turned.resize(count.div_ceil(L::N) * panel, 0.0);
        for first in (0..count).step_by(L::N) {
            let to = turned[first / L::N * panel..][..panel].as_mut_ptr();
            // SAFETY: rows below `count`, and a panel of room for them.
            unsafe { self.turn_rows(first, L::N.min(count - first), 1.0, to, L::N) };
        }
    }

    /// Number `d` of row `first + r` times `factor` to `to[d · step + r]`, for `count` rows.
    ///
    /// # Safety
    /// There are the rows, and room for them.
    #[inline(always)]
    unsafe fn turn_rows(self, first: usize, count: usize, factor: f32, to: *mut f32, step: usize) {
        // SAFETY: the caller's.
        unsafe {
            for column in 0..self.width {
                for r in 0..count {
                    *to.add(column * step + r) = *self.row(first + r).add(column) * factor;
                }
            }
        }
    }

    /// Rows `first..` of a group times `factor`, turned: `[width, GROUP]`, zeros where there are
    /// fewer rows.
    ///
    /// # Safety
    /// There are `count` rows in all, and `first` is one of them.
    #[inline(always)]
    unsafe fn turn_group(self, first: usize, count: usize, factor: f32, turned: &mut Vec<f32>) {
        turned.clear();
        turned.resize(self.width * GROUP, 0.0);
        let in_group = GROUP.min(count - first);
        // SAFETY: the caller's.
        unsafe { self.turn_rows(first, in_group, factor, turned.as_mut_ptr(), GROUP) };
    }

    /// The same row by row, filled up to whole vectors.
    ///
    /// # Safety
    /// As [`turn_group`](Self::turn_group).
    #[inline(always)]
    unsafe fn copy_group<L: Lanes>(
        self,
        first: usize,
        count: usize,
        factor: f32,
        rows: &mut Vec<f32>,
    ) {
        let width = self.width.next_multiple_of(L::N);
        rows.clear();
        rows.resize(width * GROUP, 0.0);
        let places = rows.chunks_exact_mut(width);
        for (nth, place) in places.take(count - first).enumerate() {
            // SAFETY: below `count`.
            let numbers = unsafe { self.numbers(first + nth) };
            for (place, &number) in place.iter_mut().zip(numbers) {
                *place = number * factor;
            }
        }
    }
}

/// Σ_i a[i · steps[0] + r · steps[1]] · b[i · step ..] for each of a group's r: sums in registers.
///
/// # Safety
/// Both reach over `inner` terms, and the machine has the set.
#[inline(always)]
unsafe fn tile<L: Lanes>(
    a: *const f32,
    steps: [usize; 2],
    b: *const f32,
    step: usize,
    inner: usize,
) -> [L; GROUP] {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [L::splat(0.0); GROUP];
        for i in 0..inner {
            let b = L::load(b.add(i * step));
            let a = a.add(i * steps[0]);
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = L::splat(*a.add(r * steps[1])).mul_add(b, *sum);
            }
        }
        sums
    }
}

/// The products of a group with each of `seen` turned rows: `[GROUP, step]`, whole vectors.
///
/// # Safety
/// The panels reach over `seen` rows, `products` over whole panels, and the machine has the set.
#[inline(always)]
unsafe fn group_products<L: Lanes>(
    group: &[f32],
    turned: &[f32],
    width: usize,
    seen: usize,
    products: *mut f32,
    step: usize,
) {
    debug_assert!(turned.len() >= seen.div_ceil(L::N) * width * L::N);
    for panel in 0..seen.div_ceil(L::N) {
        // SAFETY: the caller's.
        unsafe {
            let turned = turned.as_ptr().add(panel * width * L::N);
            let sums = tile::<L>(group.as_ptr(), [GROUP, 1], turned, L::N, width);
            for (r, sum) in sums.into_iter().enumerate() {
                sum.store(products.add(r * step + panel * L::N));
            }
        }
    }
}

/// Scores to powers exp(score − greatest); those from `seen` on are 0. Returns the greatest score
/// and the sum of the powers.
///
/// # Safety
/// `scores` reaches over `reach` numbers, whole vectors, and the machine has the set.
#[inline(always)]
unsafe fn powers<L: Lanes>(scores: *mut f32, seen: usize, reach: usize) -> (f32, f32) {
    // SAFETY: the caller's.
    unsafe {
        hide(scores, seen, reach);
        let mut greatest = L::splat(NO_SCORE);
        for at in (0..reach).step_by(L::N) {
            greatest = greatest.max(L::load(scores.add(at)));
        }
        let greatest = greatest_lane(greatest);
        let mut sum = L::splat(0.0);
        for at in (0..reach).step_by(L::N) {
            let power = L::load(scores.add(at)).sub(L::splat(greatest)).exp();
            power.store(scores.add(at));
            sum = sum.add(power);
        }
        (greatest, sum.sum())
    }
}

/// # Safety
/// `scores` reaches over `reach` numbers.
#[inline(always)]
unsafe fn hide(scores: *mut f32, seen: usize, reach: usize) {
    for at in seen..reach {
        // SAFETY: the caller's.
        unsafe { *scores.add(at) = NO_SCORE };
    }
}

/// # Safety
/// The machine has the set.
#[inline(always)]
unsafe fn greatest_lane<L: Lanes>(vector: L) -> f32 {
    let mut lanes = [NO_SCORE; 16];
    // SAFETY: no set has vectors of more than sixteen.
    unsafe { vector.store(lanes.as_mut_ptr()) };
    lanes.into_iter().fold(NO_SCORE, f32::max)
}

/// The products of one query with each of `seen` rows, times a factor.
///
/// # Safety
/// There are `seen` rows, `products` reaches over them, and the machine has the set.
#[inline(always)]
unsafe fn products_of_one<L: Lanes>(
    query: *const f32,
    rows: Block,
    seen: usize,
    factor: f32,
    products: *mut f32,
) {
    let whole = rows.width - rows.width % L::N;
    // SAFETY: the caller's; `whole` is below the width.
    unsafe {
        for first in (0..seen).step_by(4) {
            // Behind the last row the last is taken again.
            let mut at = [query; 4];
            for (r, at) in at.iter_mut().enumerate() {
                *at = rows.row((first + r).min(seen - 1));
            }
            let mut sums = [L::splat(0.0); 4];
            for column in (0..whole).step_by(L::N) {
                let query = L::load(query.add(column));
                for r in 0..4 {
                    sums[r] = L::load(at[r].add(column)).mul_add(query, sums[r]);
                }
            }
            let sums = L::sums(sums);
            for r in 0..4.min(seen - first) {
                let mut sum = sums[r];
                for column in whole..rows.width {
                    sum += *query.add(column) * *at[r].add(column);
                }
                *products.add(first + r) = sum * factor;
            }
        }
    }
}

/// Σ_j weights[j] · rows[j] · factor, added to `sums`.
///
/// # Safety
/// There are as many rows as weights, `sums` is as wide as they, and the machine has the set.
#[inline(always)]
unsafe fn weigh_for_one<L: Lanes>(weights: &[f32], rows: Block, factor: f32, sums: *mut f32) {
    let whole = rows.width - rows.width % L::N;
    // SAFETY: the caller's; `whole` is below the width.
    unsafe {
        for column in (0..whole).step_by(L::N) {
            // Four sums, that additions need not wait for each other.
            let mut parts = [L::splat(0.0); 4];
            for first in (0..weights.len()).step_by(4) {
                for r in 0..4.min(weights.len() - first) {
                    let row = L::load(rows.row(first + r).add(column));
                    parts[r] = L::splat(weights[first + r]).mul_add(row, parts[r]);
                }
            }
            let [a, b, c, d] = parts;
            let sum = a.add(b).add(c.add(d));
            let at = sums.add(column);
            sum.mul_add(L::splat(factor), L::load(at)).store(at);
        }
        for column in whole..rows.width {
            let terms = weights.iter().enumerate();
            let sum: f32 = terms.map(|(j, w)| w * *rows.row(j).add(column)).sum();
            *sums.add(column) += sum * factor;
        }
    }
}

/// Adds `factors[j] · row` to row j of the block at `to`.
///
/// # Safety
/// There are as many rows at `to`, `step` apart, and the machine has the set.
#[inline(always)]
unsafe fn add_multiples<L: Lanes>(factors: &[f32], row: &[f32], to: *mut f32, step: usize) {
    let whole = row.len() - row.len() % L::N;
    for (j, &factor) in factors.iter().enumerate() {
        // SAFETY: the caller's; `whole` is at most the length of the row.
        unsafe {
            let to = to.add(j * step);
            for column in (0..whole).step_by(L::N) {
                let sum = L::load(to.add(column));
                let row = L::load(row.as_ptr().add(column));
                row.mul_add(L::splat(factor), sum).store(to.add(column));
            }
            for (column, number) in row.iter().enumerate().skip(whole) {
                *to.add(column) += factor * number;
            }
        }
    }
}

/// Adds Σ_r factors[r · from + j] · group[r] to row j of the block at `to`, for the first `seen`.
///
/// # Safety
/// `group` is GROUP rows of `width` numbers, whole vectors; there are `seen` rows at `to`, `step`
/// apart, and as many factors of each r; the machine has the set.
#[inline(always)]
unsafe fn add_group<L: Lanes>(
    factors: *const f32,
    from: usize,
    group: &[f32],
    width: usize,
    seen: usize,
    to: *mut f32,
    step: usize,
) {
    debug_assert!(group.len() == GROUP * width);
    // SAFETY: the caller's.
    unsafe {
        for column in (0..width).step_by(L::N) {
            let mut rows = [L::splat(0.0); GROUP];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = L::load(group.as_ptr().add(r * width + column));
            }
            for j in 0..seen {
                let at = to.add(j * step + column);
                let mut sum = L::load(at);
                for (r, row) in rows.iter().enumerate() {
                    sum = L::splat(*factors.add(r * from + j)).mul_add(*row, sum);
                }
                sum.store(at);
            }
        }
    }
}

struct Forward<'a> {
    row: Row<'a>,
    answer: Answer<'a>,
    scratch: &'a mut Scratch,
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        for head in 0..self.row.heads {
            // SAFETY: the machine has the set; `Row::answer` has checked all sizes.
            unsafe {
                if self.row.asking() < FEW {
                    one_by_one::<L>(
                        self.row,
                        head,
                        &mut *self.answer.output,
                        &mut *self.answer.log_sums,
                        self.scratch,
                    );
                } else {
                    in_groups::<L>(
                        self.row,
                        head,
                        &mut *self.answer.output,
                        &mut *self.answer.log_sums,
                        self.scratch,
                    );
                }
            }
        }
    }
}

/// # Safety
/// All sizes fit the row, and the machine has the set.
#[inline(always)]
unsafe fn one_by_one<L: Lanes>(
    row: Row<'_>,
    head: usize,
    output: &mut [f32],
    log_sums: &mut [f32],
    scratch: &mut Scratch,
) {
    let ([dim, out], heads) = (row.dims, row.heads);
    let queries = Block::new(row.queries, dim, heads, head);
    let keys = Block::new(row.keys, dim, heads, head);
    let values = Block::new(row.values, out, heads, head);
    let reach = row.items().next_multiple_of(L::N);
    let scores = &mut scratch.scores[0];
    scores.resize(reach, 0.0);
    for query in 0..row.asking() {
        let seen = row.seen(query);
        let reach = seen.next_multiple_of(L::N);
        let output = &mut output[query * out..][head * values.width..][..values.width];
        // SAFETY: the caller's.
        unsafe {
            let at = scores.as_mut_ptr();
            products_of_one::<L>(queries.row(query), keys, seen, row.scale(), at);
            let (greatest, sum) = powers::<L>(at, seen, reach);
            log_sums[query * heads + head] = greatest + sum.ln();
            output.fill(0.0);
            weigh_for_one::<L>(&scores[..seen], values, 1.0 / sum, output.as_mut_ptr());
        }
    }
}

/// # Safety
/// All sizes fit the row, and the machine has the set.
#[inline(always)]
unsafe fn in_groups<L: Lanes>(
    row: Row<'_>,
    head: usize,
    output: &mut [f32],
    log_sums: &mut [f32],
    scratch: &mut Scratch,
) {
    let ([dim, out], heads, items) = (row.dims, row.heads, row.items());
    let queries = Block::new(row.queries, dim, heads, head);
    let keys = Block::new(row.keys, dim, heads, head);
    let values = Block::new(row.values, out, heads, head);
    let Scratch {
        turned: [turned, _],
        padded: [padded, ..],
        group: [group, ..],
        scores: [scores, _],
    } = scratch;
    let step = items.next_multiple_of(L::N);
    scores.resize(GROUP * step, 0.0);
    // SAFETY: the caller's; scratch was just made large enough.
    unsafe {
        keys.turn::<L>(items, turned);
        let filled = values.filled::<L>(items, padded);
        for first in (0..row.asking()).step_by(GROUP) {
            let in_group = GROUP.min(row.asking() - first);
            let seen_by_group = row.seen_by_group(first);
            let reach = seen_by_group.next_multiple_of(L::N);
            queries.turn_group(first, row.asking(), row.scale(), group);
            let at = scores.as_mut_ptr();
            group_products::<L>(group, turned, keys.width, seen_by_group, at, step);
            let mut shares = [0.0; GROUP];
            for (r, share) in shares.iter_mut().enumerate().take(in_group) {
                let query = first + r;
                let (greatest, sum) = powers::<L>(at.add(r * step), row.seen(query), reach);
                log_sums[query * heads + head] = greatest + sum.ln();
                *share = 1.0 / sum;
            }
            for column in (0..values.width).step_by(L::N) {
                let b = filled.at.add(column);
                let sums = tile::<L>(at, [1, step], b, filled.step, seen_by_group);
                for (r, sum) in sums.into_iter().enumerate().take(in_group) {
                    let to = (first + r) * out + head * values.width + column;
                    let sum = sum.mul(L::splat(shares[r]));
                    put(sum, &mut output[to..][..L::N.min(values.width - column)]);
                }
            }
        }
    }
}

/// The first lanes of a vector, as many as there is room for.
///
/// # Safety
/// The machine has the set.
#[inline(always)]
unsafe fn put<L: Lanes>(vector: L, to: &mut [f32]) {
    let mut lanes = [0.0; 16];
    // SAFETY: no set has vectors of more than sixteen, and there is room for one at `to`.
    unsafe {
        if to.len() >= L::N {
            vector.store(to.as_mut_ptr());
        } else {
            vector.store(lanes.as_mut_ptr());
            to.copy_from_slice(&lanes[..to.len()]);
        }
    }
}

struct Backward<'a> {
    row: Row<'a>,
    answered: Answered<'a>,
    gradients: Gradients<'a>,
    scratch: &'a mut Scratch,
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(mut self) {
        for head in 0..self.row.heads {
            // SAFETY: the machine has the set; `Row::gradients` has checked all sizes.
            unsafe {
                if self.row.asking() < FEW {
                    back_one_by_one::<L>(
                        self.row,
                        head,
                        self.answered,
                        &mut self.gradients,
                        self.scratch,
                    );
                } else {
                    back_in_groups::<L>(
                        self.row,
                        head,
                        self.answered,
                        &mut self.gradients,
                        self.scratch,
                    );
                }
            }
        }
    }
}

/// Scores and gradients by weights to weights and gradients by scores:
/// `w = exp(score − log_sum)`, `w · (gradient − Σ w · gradient)`.
///
/// # Safety
/// Both reach over `reach` numbers, whole vectors, and the machine has the set.
#[inline(always)]
unsafe fn back_softmax<L: Lanes>(
    scores: *mut f32,
    gradients: *mut f32,
    log_sum: f32,
    mean: f32,
    reach: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        for at in (0..reach).step_by(L::N) {
            let (score, gradient) = (L::load(scores.add(at)), L::load(gradients.add(at)));
            let weight = score.sub(L::splat(log_sum)).exp();
            weight.store(scores.add(at));
            let gradient = gradient.sub(L::splat(mean)).mul(weight);
            gradient.store(gradients.add(at));
        }
    }
}

/// Σ output · gradient = Σ_j w_j · (gradient by w_j), of a query and head.
///
/// # Safety
/// All sizes fit the row, and the machine has the set.
#[inline(always)]
unsafe fn mean_gradient<L: Lanes>(
    row: Row<'_>,
    head: usize,
    query: usize,
    answered: Answered<'_>,
) -> f32 {
    let width = row.widths()[1];
    let from = query * row.dims[1] + head * width;
    let [output, gradient] =
        [answered.output, answered.gradient].map(|numbers| &numbers[from..][..width]);
    let whole = width - width % L::N;
    // SAFETY: the caller's; `whole` is at most the width.
    unsafe {
        let mut sum = L::splat(0.0);
        for column in (0..whole).step_by(L::N) {
            let gradient = L::load(gradient.as_ptr().add(column));
            sum = L::load(output.as_ptr().add(column)).mul_add(gradient, sum);
        }
        let mut sum = sum.sum();
        for (output, gradient) in output.iter().zip(gradient).skip(whole) {
            sum += output * gradient;
        }
        sum
    }
}

/// # Safety
/// All sizes fit the row, and the machine has the set.
#[inline(always)]
unsafe fn back_one_by_one<L: Lanes>(
    row: Row<'_>,
    head: usize,
    answered: Answered<'_>,
    gradients: &mut Gradients<'_>,
    scratch: &mut Scratch,
) {
    let ([dim, out], heads) = (row.dims, row.heads);
    let queries = Block::new(row.queries, dim, heads, head);
    let keys = Block::new(row.keys, dim, heads, head);
    let values = Block::new(row.values, out, heads, head);
    let outputs = Block::new(answered.gradient, out, heads, head);
    let [scores, slopes] = &mut scratch.scores;
    for query in 0..row.asking() {
        let seen = row.seen(query);
        let reach = seen.next_multiple_of(L::N);
        scores.resize(reach, 0.0);
        slopes.resize(reach, 0.0);
        let (log_sum, scale) = (answered.log_sums[query * heads + head], row.scale());
        // SAFETY: the caller's; scratch was just made large enough.
        unsafe {
            let mean = mean_gradient::<L>(row, head, query, answered);
            let at = [scores.as_mut_ptr(), slopes.as_mut_ptr()];
            products_of_one::<L>(queries.row(query), keys, seen, scale, at[0]);
            hide(at[0], seen, reach);
            products_of_one::<L>(outputs.row(query), values, seen, 1.0, at[1]);
            back_softmax::<L>(at[0], at[1], log_sum, mean, reach);
            for slope in &mut slopes[..seen] {
                *slope *= scale;
            }
            let to = gradients.values[head * values.width..].as_mut_ptr();
            add_multiples::<L>(&scores[..seen], outputs.numbers(query), to, out);
            let to = gradients.keys[head * keys.width..].as_mut_ptr();
            add_multiples::<L>(&slopes[..seen], queries.numbers(query), to, dim);
            let to = gradients.queries[query * dim + head * keys.width..].as_mut_ptr();
            weigh_for_one::<L>(&slopes[..seen], keys, 1.0, to);
        }
    }
}

/// # Safety
/// All sizes fit the row, and the machine has the set.
#[inline(always)]
unsafe fn back_in_groups<L: Lanes>(
    row: Row<'_>,
    head: usize,
    answered: Answered<'_>,
    gradients: &mut Gradients<'_>,
    scratch: &mut Scratch,
) {
    let ([dim, out], heads, items) = (row.dims, row.heads, row.items());
    let queries = Block::new(row.queries, dim, heads, head);
    let keys = Block::new(row.keys, dim, heads, head);
    let values = Block::new(row.values, out, heads, head);
    let outputs = Block::new(answered.gradient, out, heads, head);
    let Scratch {
        turned: [turned_keys, turned_values],
        padded: [padded, by_keys, by_values],
        group: [turned_queries, turned_outputs, group_queries, group_outputs],
        scores: [scores, slopes],
    } = scratch;
    let step = items.next_multiple_of(L::N);
    scores.resize(GROUP * step, 0.0);
    slopes.resize(GROUP * step, 0.0);
    let widths = [keys, values].map(|block| block.width.next_multiple_of(L::N));
    // Where heads fill vectors, sums go where they belong.
    let in_place = [keys, values].map(|block| block.width.is_multiple_of(L::N));
    let (to_keys, keys_step) = if in_place[0] {
        (gradients.keys[head * keys.width..].as_mut_ptr(), dim)
    } else {
        by_keys.clear();
        by_keys.resize(items * widths[0], 0.0);
        (by_keys.as_mut_ptr(), widths[0])
    };
    let (to_values, values_step) = if in_place[1] {
        (gradients.values[head * values.width..].as_mut_ptr(), out)
    } else {
        by_values.clear();
        by_values.resize(items * widths[1], 0.0);
        (by_values.as_mut_ptr(), widths[1])
    };
    // SAFETY: the caller's; scratch was just made large enough.
    unsafe {
        keys.turn::<L>(items, turned_keys);
        values.turn::<L>(items, turned_values);
        let filled = keys.filled::<L>(items, padded);
        for first in (0..row.asking()).step_by(GROUP) {
            let in_group = GROUP.min(row.asking() - first);
            let seen_by_group = row.seen_by_group(first);
            let reach = seen_by_group.next_multiple_of(L::N);
            queries.turn_group(first, row.asking(), row.scale(), turned_queries);
            queries.copy_group::<L>(first, row.asking(), row.scale(), group_queries);
            outputs.turn_group(first, row.asking(), 1.0, turned_outputs);
            outputs.copy_group::<L>(first, row.asking(), 1.0, group_outputs);
            let at = [scores.as_mut_ptr(), slopes.as_mut_ptr()];
            group_products::<L>(
                turned_queries,
                turned_keys,
                keys.width,
                seen_by_group,
                at[0],
                step,
            );
            group_products::<L>(
                turned_outputs,
                turned_values,
                values.width,
                seen_by_group,
                at[1],
                step,
            );
            for r in 0..in_group {
                let query = first + r;
                let at = at.map(|at| at.add(r * step));
                hide(at[0], row.seen(query), reach);
                let mean = mean_gradient::<L>(row, head, query, answered);
                let log_sum = answered.log_sums[query * heads + head];
                back_softmax::<L>(at[0], at[1], log_sum, mean, reach);
            }
            for r in in_group..GROUP {
                scores[r * step..][..reach].fill(0.0);
                slopes[r * step..][..reach].fill(0.0);
            }
            let at = [scores.as_ptr(), slopes.as_ptr()];
            add_group::<L>(
                at[0],
                step,
                group_outputs,
                widths[1],
                seen_by_group,
                to_values,
                values_step,
            );
            add_group::<L>(
                at[1],
                step,
                group_queries,
                widths[0],
                seen_by_group,
                to_keys,
                keys_step,
            );
            for column in (0..keys.width).step_by(L::N) {
                let b = filled.at.add(column);
                let sums = tile::<L>(at[1], [1, step], b, filled.step, seen_by_group);
                for (r, sum) in sums.into_iter().enumerate().take(in_group) {
                    let to = (first + r) * dim + head * keys.width + column;
                    let room = L::N.min(keys.width - column);
                    let sum = sum.mul(L::splat(row.scale()));
                    put(sum, &mut gradients.queries[to..][..room]);
                }
            }
        }
    }
    for (from, to, width, dim, head_width, in_place) in [
        (
            &*by_keys,
            &mut *gradients.keys,
            widths[0],
            dim,
            keys.width,
            in_place[0],
        ),
        (
            &*by_values,
            &mut *gradients.values,
            widths[1],
            out,
            values.width,
            in_place[1],
        ),
    ] {
        if !in_place {
            let rows = from.chunks_exact(width).zip(to.chunks_exact_mut(dim));
            for (from, to) in rows {
                to[head * head_width..][..head_width].copy_from_slice(&from[..head_width]);
            }
        }
    }
}
