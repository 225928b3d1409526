//! FFM row by row: the score and its gradient in closed form, on the tables themselves.
//!
//! The vectors of a row lie side by side by the field they are meant for, so that the row of field
//! `f` holds `v_f,g` where the row of field `g` holds its partner `v_g,f`: a matrix against its
//! transpose. Kernels walk over it in tiles of vectors that hold whole blocks of fields, transpose a
//! tile in registers, and never copy a row.
//!
//! ```text
//!            column block a        column block b
//! rows of a  ▒▒ v_a,a ▒▒           v_a,b ──┐   a tile pair: each is transposed and
//! rows of b  v_b,a ────────────────────────┘   multiplied, or updated, with the other
//! ```

use crossfield_core::{Schema, TableField};
use crossfield_embedding::{Precision, RowLayout, RowOptimizer};
use crossfield_fused::{
    ElementRule, Error, Feature, FusedComponent, FusedConfig, Isa, Kernel, Lanes, Linear, Options,
    PARTS, RowData, RowPass, Rowwise, Rule, Shared, Slots, Step, Tables, UpdateRow, element_noise,
    prefetch,
};

use crate::FfmConfig;

/// Fields of the widest block.
const BLOCK: usize = 4;

/// A field-aware factorization machine as a pass over rows.
#[derive(Clone, Debug)]
pub struct FusedFfm {
    factors: Vec<TableField>,
    linear: Option<Linear>,
    embedding_dim: usize,
    normalize: bool,
    same_field: bool,
}

impl FusedFfm {
    /// Over the given fields: the table of the factors and that of the linear weights of each, in
    /// one order; no linear weights: no linear terms.
    pub fn new(
        factors: Vec<TableField>,
        linear: Vec<TableField>,
        embedding_dim: usize,
        normalize: bool,
        same_field: bool,
    ) -> Self {
        Self {
            factors,
            linear: (!linear.is_empty()).then(|| Linear::new(linear)),
            embedding_dim,
            normalize,
            same_field,
        }
    }
}

impl FusedConfig for FfmConfig {
    fn fused(&self, schema: &Schema) -> Result<Box<dyn FusedComponent>, crossfield_core::Error> {
        let (factors, linear) = self.lookups(schema)?;
        Ok(Box::new(FusedFfm::new(
            factors,
            linear,
            self.embedding_dim,
            self.normalize,
            self.same_field,
        )))
    }
}

impl FusedComponent for FusedFfm {
    fn tables(&self) -> Vec<&str> {
        let linear = self.linear.iter().flat_map(|linear| linear.tables());
        let factors = self.factors.iter().map(|at| at.table.as_str());
        factors.chain(linear).collect()
    }

    fn bind<'a>(
        &'a self,
        tables: &Tables<'a>,
        data: &'a RowData<'a>,
        options: Options,
    ) -> Result<Box<dyn RowPass + 'a>, Error> {
        let slots = Slots::new(tables, data, &self.factors)?;
        let first = slots.slots()[0].table;
        let layout = *first.layout();
        let optimizer = first.optimizer();
        for slot in slots.slots() {
            slot.table.rule(1.0, options.fast)?;
        }
        let alike = slots.slots().iter().all(|slot| {
            let table = &slot.table;
            *table.layout() == layout && table.optimizer() == optimizer && !table.is_frozen()
        });
        let (fields, dim) = (self.factors.len(), self.embedding_dim);
        let tiled = matches!(dim, 4 | 8) && alike && slots.all_plain() && fields * dim > 8;
        let linear = match &self.linear {
            Some(linear) => Some(linear.bind(tables, data, options)?),
            None => None,
        };
        let padded = fields.next_multiple_of(BLOCK);
        // A row for a field that is not there: zeros, which an update leaves zero.
        let absent = vec![0u64; (padded * layout.stride).div_ceil(size_of::<u64>())];
        let rowwise = matches!(
            Rule::new("", optimizer, layout.precision, 1.0, false)?,
            Rule::Rowwise(_) | Rule::RowwiseHalf(_)
        );
        let mut pass = FfmPass {
            ffm: self,
            tiles: tiled.then(|| Tiles::new(fields, dim, options.isa)),
            general: General::default(),
            linear,
            rows: vec![std::ptr::null_mut(); padded],
            rows_of: None,
            next_rows: vec![std::ptr::null_mut(); padded],
            next_rows_of: None,
            rowwise,
            layout,
            optimizer,
            options,
            slots,
            absent,
        };
        pass.point_at_absent();
        Ok(Box::new(pass))
    }
}

/// The tile pairs of a row, and which part each belongs to.
#[derive(Debug)]
struct Tiles {
    /// Row block and column block, the row block not after the column block.
    pairs: Vec<(u16, u16)>,
}

impl Tiles {
    fn new(fields: usize, dim: usize, isa: Isa) -> Self {
        struct Width;
        impl Kernel for Width {
            type Output = usize;
            #[inline(always)]
            unsafe fn run<L: Lanes>(self) -> usize {
                L::N
            }
        }
        let in_block = isa.run(Width) / dim;
        let blocks = fields.div_ceil(in_block) as u16;
        let pairs = (0..blocks).flat_map(|a| (a..blocks).map(move |b| (a, b)));
        Self {
            pairs: pairs.collect(),
        }
    }

    fn part(&self, part: usize) -> &[(u16, u16)] {
        let len = self.pairs.len();
        &self.pairs[len * part / PARTS..len * (part + 1) / PARTS]
    }
}

struct FfmPass<'a> {
    ffm: &'a FusedFfm,
    slots: Slots<'a>,
    linear: Option<Box<dyn RowPass + 'a>>,
    layout: RowLayout,
    optimizer: &'a RowOptimizer,
    options: Options,
    /// Whether the rule has one accumulator a row.
    rowwise: bool,
    /// `None`: bags, weights, repeated rows, or tables of several kinds; see [`General`].
    tiles: Option<Tiles>,
    general: General,
    /// The table row of each field, then rows that stay zero up to a whole block.
    rows: Vec<*mut u8>,
    /// The row of data that they belong to.
    rows_of: Option<usize>,
    /// The same of the next row of data, whose table rows are asked for during the update.
    next_rows: Vec<*mut u8>,
    next_rows_of: Option<usize>,
    absent: Vec<u64>,
}

/// Where in the shared memory things are, after the sum of each part.
const NORMALIZER: usize = PARTS;
const LINEAR: usize = PARTS + 1;
/// Of tiles under a rule with one accumulator a row: squares by column, part by part, then the rate
/// of each row. Else: the sums of [`General`].
const REST: usize = PARTS + 2;

impl FfmPass<'_> {
    fn point_at_absent(&mut self) {
        let fields = self.slots.slots().len();
        let base: *mut u8 = self.absent.as_mut_ptr().cast();
        for rows in [&mut self.rows, &mut self.next_rows] {
            for (number, row) in rows.iter_mut().enumerate().skip(fields) {
                *row = base.wrapping_add(number * self.layout.stride);
            }
        }
    }

    fn find_rows(&mut self, row: usize) {
        if self.rows_of == Some(row) {
            return;
        }
        if self.next_rows_of == Some(row) {
            std::mem::swap(&mut self.rows, &mut self.next_rows);
            self.next_rows_of = self.rows_of;
        } else {
            let fields = self.slots.slots().len();
            self.slots.plain(row, &mut self.rows[..fields]);
        }
        self.rows_of = Some(row);
    }

    fn find_next_rows(&mut self, next: usize) {
        if self.next_rows_of != Some(next) {
            let fields = self.slots.slots().len();
            self.slots.plain(next, &mut self.next_rows[..fields]);
            self.next_rows_of = Some(next);
        }
    }

    fn rates(&self, shared: Shared) -> *mut f32 {
        shared.floats(REST + PARTS * self.layout.width, self.rows.len())
    }

    /// The sums of [`General`].
    fn sums<'s>(&self, shared: Shared) -> &'s mut [f32] {
        let len = self.general_len();
        // SAFETY: `floats` checks the bounds; one part, hence one thread, works with them, or the
        // forward stage, which wrote them, is over.
        unsafe { std::slice::from_raw_parts_mut(shared.floats(REST, len), len) }
    }

    fn general_len(&self) -> usize {
        let fields = self.slots.slots().len();
        fields * fields * self.ffm.embedding_dim
    }
}

impl RowPass for FfmPass<'_> {
    fn shared_len(&self) -> usize {
        REST + match (&self.tiles, self.rowwise) {
            (Some(_), true) => PARTS * self.layout.width + self.rows.len(),
            (Some(_), false) => 0,
            (None, _) => self.general_len(),
        }
    }

    fn prefetch(&self, row: usize, part: usize) {
        self.slots.prefetch_part(row, part);
        if let Some(linear) = &self.linear {
            linear.prefetch(row, part);
        }
    }

    fn forward(&mut self, row: usize, part: usize, shared: Shared) {
        if self.tiles.is_some() {
            self.find_rows(row);
        }
        if let Some(tiles) = &self.tiles {
            let width = self.layout.width;
            let norms = self
                .rowwise
                .then(|| (shared.floats(REST + part * width, width), width));
            let sum = self.options.isa.run(Score {
                rows: &self.rows,
                pairs: tiles.part(part),
                dim: self.ffm.embedding_dim,
                half: self.layout.precision == Precision::Bf16,
                norms,
            });
            shared.put(part, sum);
        } else if part == 0 {
            let sums = self.sums(shared);
            let (sum, normalizer) = self.general.forward(self.ffm, &self.slots, row, sums);
            shared.put(0, sum);
            shared.put(NORMALIZER, normalizer);
        }
        if let Some(linear) = &mut self.linear {
            linear.forward(row, part, shared.part(LINEAR, 1));
        }
    }

    fn score(&mut self, row: usize, shared: Shared) -> f32 {
        let parts = if self.tiles.is_some() { PARTS } else { 1 };
        let pairs: f32 = (0..parts).map(|part| shared.get(part)).sum();
        if self.tiles.is_some() {
            shared.put(NORMALIZER, 1.0 / self.slots.slots().len() as f32);
        }
        if !self.ffm.normalize {
            shared.put(NORMALIZER, 1.0);
        }
        let score = pairs * shared.get(NORMALIZER);
        match &mut self.linear {
            Some(linear) => score + linear.score(row, shared.part(LINEAR, 1)),
            None => score,
        }
    }

    fn prepare(&mut self, row: usize, step: Step, shared: Shared) {
        if self.tiles.is_none() || !self.rowwise {
            return;
        }
        self.find_rows(row);
        let step = self.pair_step(step, shared);
        match self.rule(step) {
            Rule::Rowwise(rule) => self.rowwise_rates(rule, step, shared),
            Rule::RowwiseHalf(rule) => self.rowwise_rates(rule, step, shared),
            _ => unreachable!("the rule has one accumulator a row"),
        }
    }

    fn backward(&mut self, row: usize, next: usize, part: usize, step: Step, shared: Shared) {
        let pair_step = self.pair_step(step, shared);
        if self.tiles.is_some() {
            self.find_rows(row);
            self.find_next_rows(next);
            self.update_tiles(part, pair_step, shared);
        } else if part == 0 {
            self.slots.prefetch(next);
            let sums = self.sums(shared);
            self.general
                .backward(self.ffm, &self.slots, row, sums, pair_step, self.options);
        }
        if let Some(linear) = &mut self.linear {
            linear.backward(row, next, part, step, shared.part(LINEAR, 1));
        }
    }
}

impl FfmPass<'_> {
    fn pair_step(&self, step: Step, shared: Shared) -> Step {
        Step {
            slope: step.slope * shared.get(NORMALIZER),
            ..step
        }
    }

    fn rule(&self, step: Step) -> Rule {
        let (precision, fast) = (self.layout.precision, self.options.fast);
        Rule::new("", self.optimizer, precision, step.rate, fast)
            .expect("checked when the pass was bound")
    }

    fn update_tiles(&mut self, part: usize, step: Step, shared: Shared) {
        let (isa, dim) = (self.options.isa, self.ffm.embedding_dim);
        let tiles = self.tiles.as_ref().expect("called with tiles");
        let (rows, pairs) = (&self.rows, tiles.part(part));
        let elements = Elements {
            rows,
            next: &self.next_rows,
            pairs,
            dim,
            fields: self.slots.slots().len(),
            layout: &self.layout,
            slope: step.slope,
        };
        let rowwise = |rates| RowwiseTiles {
            rows,
            next: &self.next_rows,
            state_at: self.layout.state_at,
            rates,
            pairs,
            dim,
            width: self.layout.width,
            noise: step.noise,
            slope: step.slope,
        };
        // SAFETY: `rates` checks the bounds; they were written when the update was prepared.
        let rates = || unsafe { std::slice::from_raw_parts(self.rates(shared), rows.len()) };
        match self.rule(step) {
            Rule::Sgd(rule) => isa.run(UpdateElements { rule, of: elements }),
            Rule::Adagrad(rule) => isa.run(UpdateElements { rule, of: elements }),
            Rule::FastAdagrad(rule) => isa.run(UpdateElements { rule, of: elements }),
            Rule::Ftrl(rule) => isa.run(UpdateElements { rule, of: elements }),
            Rule::Rowwise(rule) => {
                let of = rowwise(rates());
                isa.run(UpdateRowwise { rule, of });
            }
            Rule::RowwiseHalf(rule) => {
                let of = rowwise(rates());
                isa.run(UpdateRowwise { rule, of });
            }
        }
    }

    /// The rate of each row. The squared gradient of a row is that of its partners, which the
    /// forward pass has added up by column.
    fn rowwise_rates<const HALF: bool>(&self, rule: Rowwise<HALF>, step: Step, shared: Shared) {
        let (width, fields) = (self.layout.width, self.slots.slots().len());
        // SAFETY: `floats` and `rates` check the bounds; the forward stage, which wrote the norms,
        // is over, and the thread that prepares the update is alone.
        let (norms, rates) = unsafe {
            (
                std::slice::from_raw_parts_mut(shared.floats(REST, PARTS * width), PARTS * width),
                std::slice::from_raw_parts_mut(self.rates(shared), self.rows.len()),
            )
        };
        // Rows that stay zero keep a rate of zero.
        rates[fields..].fill(0.0);
        self.options.isa.run(Rates {
            rule,
            norms,
            dim: self.ffm.embedding_dim,
            scale: step.slope * step.slope / self.layout.dim as f32,
            rows: &self.rows[..fields],
            state_at: self.layout.state_at,
            rates: &mut rates[..fields],
        });
    }
}

/// Adds up what a row's partners contribute to its accumulator, and takes the rates.
struct Rates<'a, const HALF: bool> {
    rule: Rowwise<HALF>,
    /// `[PARTS, width]`; the first part becomes the sum.
    norms: &'a mut [f32],
    dim: usize,
    scale: f32,
    rows: &'a [*mut u8],
    state_at: usize,
    rates: &'a mut [f32],
}

impl<const HALF: bool> Kernel for Rates<'_, HALF> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let width = self.norms.len() / PARTS;
        let (sums, parts) = self.norms.split_at_mut(width);
        for part in parts.chunks_exact(width) {
            for (sum, &norm) in sums.iter_mut().zip(part) {
                *sum += norm;
            }
        }
        let columns = sums.chunks_exact(self.dim);
        for ((rate, row), columns) in self.rates.iter_mut().zip(self.rows).zip(columns) {
            // SAFETY: the accumulator of a checked row; no other thread works now.
            let accumulator = unsafe { &mut *row.add(self.state_at).cast::<f32>() };
            *accumulator += columns.iter().sum::<f32>() * self.scale;
            *rate = *accumulator;
        }
        for rate in self.rates.iter_mut() {
            *rate = self.rule.rate(*rate);
        }
    }
}

/// The score's pairs in some of the tile pairs, ½ of each tile on the diagonal.
struct Score<'a> {
    rows: &'a [*mut u8],
    pairs: &'a [(u16, u16)],
    dim: usize,
    half: bool,
    /// Where to add up squares by column, and how many columns.
    norms: Option<(*mut f32, usize)>,
}

impl Kernel for Score<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        // SAFETY: as for `blocks`; the parts of a vector follow from its width.
        unsafe {
            match (L::N / self.dim, self.half) {
                (4, false) => self.blocks::<L, 4, false>(),
                (4, true) => self.blocks::<L, 4, true>(),
                (2, false) => self.blocks::<L, 2, false>(),
                (2, true) => self.blocks::<L, 2, true>(),
                (1, false) => self.blocks::<L, 1, false>(),
                (1, true) => self.blocks::<L, 1, true>(),
                _ => unreachable!("tiles are made for 4 and 8 factors"),
            }
        }
    }
}

/// A tile: the column block `column` of `G` rows.
///
/// # Safety
/// The machine has the set of `L`; the rows hold vectors in that column block.
#[inline(always)]
unsafe fn tile<L: Lanes, const G: usize, const HALF: bool>(
    rows: [*mut u8; G],
    column: usize,
) -> [L; G] {
    // A loop: what a closure does would not be compiled for the instruction set.
    // SAFETY: the caller vouches for it.
    unsafe {
        let mut tile = [L::splat(0.0); G];
        for (v, row) in tile.iter_mut().zip(rows) {
            *v = Rowwise::<HALF>::load(row, column * L::N);
        }
        tile
    }
}

/// The sum of the squares of `G` vectors, in pairs: a chain would wait for each of them.
///
/// # Safety
/// The machine has the set of `L`.
#[inline(always)]
unsafe fn squares<L: Lanes, const G: usize>(v: [L; G]) -> L {
    // SAFETY: the caller vouches for it.
    unsafe {
        match G {
            1 => v[0].mul(v[0]),
            2 => v[1].mul_add(v[1], v[0].mul(v[0])),
            _ => {
                let first = v[1].mul_add(v[1], v[0].mul(v[0]));
                first.add(v[3].mul_add(v[3], v[2].mul(v[2])))
            }
        }
    }
}

#[inline(always)]
fn block<T: Copy, const G: usize>(values: &[T], number: usize) -> [T; G] {
    let block = &values[number * G..][..G];
    std::array::from_fn(|i| block[i])
}

impl Score<'_> {
    /// # Safety
    /// The machine has the set of `L`, whose vectors hold `G` fields; all rows are table rows or
    /// rows of zeros of their layout; `norms` is this thread's.
    #[inline(always)]
    unsafe fn blocks<L: Lanes, const G: usize, const HALF: bool>(self) -> f32 {
        // SAFETY: the caller vouches for it.
        unsafe {
            match self.norms {
                Some((norms, width)) => {
                    for at in (0..width).step_by(L::N) {
                        L::splat(0.0).store(norms.add(at));
                    }
                    self.sum::<L, G, HALF, true>(norms)
                }
                None => self.sum::<L, G, HALF, false>(std::ptr::null_mut()),
            }
        }
    }

    /// # Safety
    /// As above; `norms` holds all columns if `NORMS`.
    #[inline(always)]
    unsafe fn sum<L: Lanes, const G: usize, const HALF: bool, const NORMS: bool>(
        &self,
        norms: *mut f32,
    ) -> f32 {
        // SAFETY: the caller vouches for it.
        unsafe {
            let mut sums = [L::splat(0.0); G];
            let mut diagonal = L::splat(0.0);
            // The squares in the column block of the rows that the last pairs were of: it stays in
            // a register until those of another block come.
            let (mut of_a, mut block_a) = (L::splat(0.0), usize::MAX);
            for &(a, b) in self.pairs {
                let (a, b) = (a as usize, b as usize);
                if NORMS && a != block_a {
                    if block_a != usize::MAX {
                        of_a.store(norms.add(block_a * L::N));
                    }
                    of_a = L::load(norms.add(a * L::N));
                    block_a = a;
                }
                let rows_a: [*mut u8; G] = block(self.rows, a);
                if a == b {
                    let mut v = tile::<L, G, HALF>(rows_a, a);
                    let partners = L::transpose(v);
                    for i in 0..G {
                        v[i] = v[i].without_part::<G>(i);
                        diagonal = v[i].mul_add(partners[i], diagonal);
                    }
                    if NORMS {
                        of_a = of_a.add(squares(v));
                    }
                    continue;
                }
                let rows_b: [*mut u8; G] = block(self.rows, b);
                let v = tile::<L, G, HALF>(rows_a, b);
                let other = tile::<L, G, HALF>(rows_b, a);
                let partners = L::transpose(other);
                for i in 0..G {
                    sums[i] = v[i].mul_add(partners[i], sums[i]);
                }
                if NORMS {
                    of_a = of_a.add(squares(other));
                    let at_b = norms.add(b * L::N);
                    L::load(at_b).add(squares(v)).store(at_b);
                }
            }
            if NORMS && block_a != usize::MAX {
                of_a.store(norms.add(block_a * L::N));
            }
            let mut sum = sums[0];
            for &more in &sums[1..] {
                sum = sum.add(more);
            }
            sum.sum() + 0.5 * diagonal.sum()
        }
    }
}

/// What an update of tiles by a rule for single weights needs.
#[derive(Clone, Copy)]
struct Elements<'a> {
    rows: &'a [*mut u8],
    /// The table rows of the next row of data.
    next: &'a [*mut u8],
    pairs: &'a [(u16, u16)],
    dim: usize,
    fields: usize,
    layout: &'a RowLayout,
    slope: f32,
}

struct UpdateElements<'a, R> {
    rule: R,
    of: Elements<'a>,
}

impl<R: ElementRule> Kernel for UpdateElements<'_, R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: as for `blocks`; the parts of a vector follow from its width.
        unsafe {
            match L::N / self.of.dim {
                4 => self.blocks::<L, 4>(),
                2 => self.blocks::<L, 2>(),
                1 => self.blocks::<L, 1>(),
                _ => unreachable!("tiles are made for 4 and 8 factors"),
            }
        }
    }
}

impl<R: ElementRule> UpdateElements<'_, R> {
    /// # Safety
    /// As [`Score::blocks`]; the tiles are this thread's.
    #[inline(always)]
    unsafe fn blocks<L: Lanes, const G: usize>(self) {
        let Elements { rows, pairs, .. } = self.of;
        // SAFETY: the caller vouches for it.
        unsafe {
            for &(a, b) in pairs {
                let (a, b) = (a as usize, b as usize);
                let rows_a: [*mut u8; G] = block(rows, a);
                if a == b {
                    let v = tile::<L, G, false>(rows_a, a);
                    let partners = L::transpose(v);
                    for i in 0..G {
                        let partner = partners[i].without_part::<G>(i);
                        self.vector(rows_a[i], a * G + i, a, v[i], partner);
                    }
                    continue;
                }
                let rows_b: [*mut u8; G] = block(rows, b);
                let v = tile::<L, G, false>(rows_a, b);
                let other = tile::<L, G, false>(rows_b, a);
                let (transposed, partners) = (L::transpose(v), L::transpose(other));
                for i in 0..G {
                    self.vector(rows_a[i], a * G + i, b, v[i], partners[i]);
                }
                for i in 0..G {
                    self.vector(rows_b[i], b * G + i, a, other[i], transposed[i]);
                }
            }
        }
    }

    /// # Safety
    /// As [`Score::blocks`]; the vector is this thread's.
    #[inline(always)]
    unsafe fn vector<L: Lanes>(&self, row: *mut u8, field: usize, column: usize, v: L, partner: L) {
        let Elements {
            fields,
            layout,
            slope,
            ..
        } = self.of;
        // A row that is not there is a partner like any other, but has no gradient itself.
        let slope = if field < fields { slope } else { 0.0 };
        // SAFETY: the caller vouches for it; weights and each part of the state are whole vectors.
        unsafe {
            let at = column * L::N;
            // Between two updates, where the memory has time for it.
            let ahead = self.of.next[field].wrapping_add(at * size_of::<f32>());
            prefetch(ahead, 1);
            prefetch(ahead.wrapping_add(layout.state_at), 1);
            let state = row.add(layout.state_at).cast::<f32>().add(at);
            let gradient = partner.mul(L::splat(slope));
            let v = self.rule.step(v, gradient, state, layout.width);
            v.store(row.cast::<f32>().add(at));
        }
    }
}

/// What an update of tiles by a rule with one accumulator a row needs.
#[derive(Clone, Copy)]
struct RowwiseTiles<'a> {
    rows: &'a [*mut u8],
    /// The table rows of the next row of data.
    next: &'a [*mut u8],
    state_at: usize,
    rates: &'a [f32],
    pairs: &'a [(u16, u16)],
    dim: usize,
    width: usize,
    noise: u32,
    slope: f32,
}

struct UpdateRowwise<'a, const HALF: bool> {
    rule: Rowwise<HALF>,
    of: RowwiseTiles<'a>,
}

impl<const HALF: bool> Kernel for UpdateRowwise<'_, HALF> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: as for `blocks`; the parts of a vector follow from its width.
        unsafe {
            match L::N / self.of.dim {
                4 => self.blocks::<L, 4>(),
                2 => self.blocks::<L, 2>(),
                1 => self.blocks::<L, 1>(),
                _ => unreachable!("tiles are made for 4 and 8 factors"),
            }
        }
    }
}

impl<const HALF: bool> UpdateRowwise<'_, HALF> {
    /// # Safety
    /// As [`Score::blocks`]; the tiles are this thread's.
    #[inline(always)]
    unsafe fn blocks<L: Lanes, const G: usize>(self) {
        // SAFETY: the caller vouches for it.
        unsafe {
            for &(a, b) in self.of.pairs {
                let (a, b) = (a as usize, b as usize);
                let of_a = self.block::<G>(a);
                if a == b {
                    let v = tile::<L, G, HALF>(of_a.rows, a);
                    let partners = L::transpose(v);
                    for i in 0..G {
                        let partner = partners[i].without_part::<G>(i);
                        self.vector(&of_a, i, a, v[i], partner);
                        prefetch(of_a.next[i].wrapping_add(self.of.state_at), 1);
                    }
                    continue;
                }
                let of_b = self.block::<G>(b);
                let v = tile::<L, G, HALF>(of_a.rows, b);
                let other = tile::<L, G, HALF>(of_b.rows, a);
                let (transposed, partners) = (L::transpose(v), L::transpose(other));
                for i in 0..G {
                    self.vector(&of_a, i, b, v[i], partners[i]);
                }
                for i in 0..G {
                    self.vector(&of_b, i, a, other[i], transposed[i]);
                }
            }
        }
    }

    #[inline(always)]
    fn block<const G: usize>(&self, number: usize) -> RowwiseBlock<G> {
        let RowwiseTiles {
            rows,
            next,
            rates,
            width,
            noise,
            ..
        } = self.of;
        RowwiseBlock {
            rows: block(rows, number),
            next: block(next, number),
            rates: block(rates, number),
            noise: std::array::from_fn(|i| element_noise(noise, (number * G + i) * width)),
        }
    }

    /// # Safety
    /// As [`Score::blocks`]; the vector is this thread's.
    #[inline(always)]
    unsafe fn vector<L: Lanes, const G: usize>(
        &self,
        of: &RowwiseBlock<G>,
        i: usize,
        column: usize,
        v: L,
        partner: L,
    ) {
        let weight = if HALF { 2 } else { 4 };
        // Between two updates, where the memory has time for it.
        prefetch(of.next[i].wrapping_add(column * L::N * weight), 1);
        // SAFETY: the caller vouches for it.
        unsafe {
            let gradient = partner.mul(L::splat(self.of.slope));
            // The rate of a row that is not there is zero.
            let v = self.rule.step(v, gradient, of.rates[i]);
            Rowwise::<HALF>::store(v, of.rows[i], column * L::N, of.noise[i]);
        }
    }
}

/// What the update needs of the rows of a block.
struct RowwiseBlock<const G: usize> {
    rows: [*mut u8; G],
    next: [*mut u8; G],
    rates: [f32; G],
    /// Noise of the first element of each.
    noise: [u32; G],
}

/// The pass for any row: bags, weights, repeated rows of a table, tables of several kinds, any
/// number of factors. One thread does it.
///
/// With `S_f,g = Σ_{i of field f} x_i v_i,g` the pairs are `Σ_{f<g} ⟨S_f,g, S_g,f⟩`, and those inside
/// of a field `½ (|S_f,f|² − Σ_i x_i² |v_i,f|²)`; the gradient of `v_i,g` is `x_i S_g,f`, that of
/// `v_i,f` is `x_i (S_f,f − x_i v_i,f)`.
#[derive(Debug, Default)]
struct General {
    /// Features as they stand. Sorted by key, so that what names one row of a table lies together.
    features: Vec<Feature>,
    /// How many each field has.
    counts: Vec<usize>,
    /// The row of data that they belong to.
    features_of: Option<usize>,
    /// The weights of one table row.
    row: Vec<f32>,
}

impl General {
    fn gather(&mut self, slots: &Slots<'_>, row: usize) {
        if self.features_of == Some(row) {
            return;
        }
        self.features.clear();
        self.counts.clear();
        self.counts.resize(slots.slots().len(), 0);
        slots.each_feature(row, |feature| {
            self.counts[feature.slot] += 1;
            self.features.push(feature);
        });
        // Rows of a table that are named more than once must be updated once.
        self.features.sort_by_key(|feature| feature.key);
        self.features_of = Some(row);
    }

    /// The pairs of a row, and what they are to be multiplied by if they are normalised. Leaves
    /// `S`, `[fields, fields, dim]`, in `sums`.
    fn forward(
        &mut self,
        ffm: &FusedFfm,
        slots: &Slots<'_>,
        row: usize,
        sums: &mut [f32],
    ) -> (f32, f32) {
        self.gather(slots, row);
        let (fields, dim) = (ffm.factors.len(), ffm.embedding_dim);
        let width = fields * dim;
        sums.fill(0.0);
        self.row.resize(width, 0.0);
        let mut norm = 0.0;
        let mut inside = 0.0;
        for feature in &self.features {
            norm += feature.squares;
            let table = &slots.slots()[feature.slot].table;
            // SAFETY: a checked row of the table, which nobody writes now.
            unsafe { read(table.layout(), feature.row, &mut self.row) };
            let own = &mut sums[feature.slot * width..][..width];
            for (sum, &v) in own.iter_mut().zip(&self.row) {
                *sum += feature.x * v;
            }
            if ffm.same_field {
                let v = &self.row[feature.slot * dim..][..dim];
                inside -= feature.squares * v.iter().map(|v| v * v).sum::<f32>();
            }
        }
        let part = |f: usize, g: usize| &sums[f * width + g * dim..][..dim];
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let mut pairs = 0.0;
        for f in 0..fields {
            for g in f + 1..fields {
                pairs += dot(part(f, g), part(g, f));
            }
            if ffm.same_field {
                inside += dot(part(f, f), part(f, f));
            }
        }
        let normalizer = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        (pairs + 0.5 * inside, normalizer)
    }

    fn backward(
        &mut self,
        ffm: &FusedFfm,
        slots: &Slots<'_>,
        row: usize,
        sums: &[f32],
        step: Step,
        options: Options,
    ) {
        self.gather(slots, row);
        self.row.resize(ffm.factors.len() * ffm.embedding_dim, 0.0);
        let (fields, dim) = (ffm.factors.len(), ffm.embedding_dim);
        let width = fields * dim;
        let mut gradient = vec![0f32; width.next_multiple_of(16)];
        let mut rest = &self.features[..];
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|other| other.key == first.key);
            let (these, others) = rest.split_at(same.count());
            rest = others;
            let table = &slots.slots()[first.slot].table;
            if table.is_frozen() {
                continue;
            }
            gradient.fill(0.0);
            // SAFETY: a checked row of the table.
            unsafe { read(table.layout(), first.row, &mut self.row) };
            for feature in these {
                let f = feature.slot;
                for g in (0..fields).filter(|&g| g != f) {
                    let partner = &sums[g * width + f * dim..][..dim];
                    for (to, &s) in gradient[g * dim..][..dim].iter_mut().zip(partner) {
                        *to += step.slope * feature.x * s;
                    }
                }
                // Alone in its field a feature has no pair there, and no gradient: exactly none, so
                // that it pays no penalty either.
                if ffm.same_field && self.counts[f] > 1 {
                    let own = &sums[f * width + f * dim..][..dim];
                    let v = &self.row[f * dim..][..dim];
                    let to = &mut gradient[f * dim..][..dim];
                    for ((to, &s), &v) in to.iter_mut().zip(own).zip(v) {
                        *to += step.slope * (feature.x * s - feature.squares * v);
                    }
                }
            }
            let layout = table.layout();
            let rule = table
                .rule(step.rate, options.fast)
                .expect("checked when the pass was bound");
            let noise = element_noise(step.noise, first.slot * layout.width);
            let update = UpdateRow {
                row: first.row,
                layout,
                noise,
                gradient: &gradient,
            };
            match rule {
                Rule::Sgd(rule) => update.by(rule, options.isa),
                Rule::Adagrad(rule) => update.by(rule, options.isa),
                Rule::FastAdagrad(rule) => update.by(rule, options.isa),
                Rule::Ftrl(rule) => update.by(rule, options.isa),
                Rule::Rowwise(rule) => update.by(rule, options.isa),
                Rule::RowwiseHalf(rule) => update.by(rule, options.isa),
            }
        }
    }
}

/// # Safety
/// `row` is a row of that layout, which nobody writes now.
unsafe fn read(layout: &RowLayout, row: *const u8, weights: &mut [f32]) {
    // SAFETY: the caller vouches for the row, which holds as many weights as `weights` takes.
    unsafe {
        match layout.precision {
            Precision::F32 => {
                weights.copy_from_slice(std::slice::from_raw_parts(row.cast(), weights.len()));
            }
            Precision::Bf16 => {
                let halves: &[u16] = std::slice::from_raw_parts(row.cast(), weights.len());
                for (weight, &half) in weights.iter_mut().zip(halves) {
                    *weight = f32::from_bits(u32::from(half) << 16);
                }
            }
        }
    }
}
