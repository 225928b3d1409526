//! Matrix factorization row by row: the score and its gradient in closed form, on the tables
//! themselves.

use crossfield_core::Schema;
use crossfield_embedding::Precision;
use crossfield_fused::{
    Books, Error, FusedComponent, FusedConfig, Gradient, Kernel, Lanes, Linear, Options, RowData,
    RowPass, RowRule, Rowwise, Rule, Shared, Slots, Step, TableRows, Tables, TurnPass, UpdateRow,
    element_noise,
};

use crate::{BiasedMfConfig, MfLookups};

/// A matrix factorization as a pass over rows: the gradient of `p` is `q`, and that of `q` is `p`.
#[derive(Clone, Debug)]
pub struct FusedMf {
    at: MfLookups,
    biases: Linear,
}

impl FusedMf {
    /// With its parameters in the given tables.
    pub fn new(at: MfLookups) -> Self {
        Self {
            biases: Linear::new(at.biases.clone()),
            at,
        }
    }

    /// The tables of the vectors, whose rows one kernel reads.
    fn factors<'a>(
        &self,
        tables: &Tables<'a>,
        data: &'a RowData<'a>,
        options: Options,
    ) -> Result<Factors<'a>, Error> {
        let slots = Slots::new(tables, data, &self.at.factors)?;
        let [user, item] = [slots.slots()[0].table, slots.slots()[1].table];
        for table in [user, item] {
            table.rule(1.0, options.fast)?;
        }
        if user.layout().precision != item.layout().precision {
            return Err(Error::MixedPrecision {
                table: item.name().to_owned(),
            });
        }
        Ok(Factors { slots, options })
    }
}

impl FusedConfig for BiasedMfConfig {
    fn fused(&self, schema: &Schema) -> Result<Box<dyn FusedComponent>, crossfield_core::Error> {
        Ok(Box::new(FusedMf::new(self.lookups(schema)?)))
    }
}

impl FusedComponent for FusedMf {
    fn tables(&self) -> Vec<&str> {
        let factors = self.at.factors.iter().map(|at| at.table.as_str());
        factors.chain(self.biases.tables()).collect()
    }

    fn bind<'a>(
        &'a self,
        tables: &Tables<'a>,
        data: &'a RowData<'a>,
        options: Options,
    ) -> Result<Box<dyn RowPass + 'a>, Error> {
        let factors = self.factors(tables, data, options)?;
        Ok(Box::new(MfPass {
            gradient: vec![0.0; factors.width()],
            biases: self.biases.bind(tables, data, options)?,
            factors,
        }))
    }

    /// Where users and items have the same kind of optimizer, as they usually have.
    fn bind_alone<'a>(
        &'a self,
        tables: &Tables<'a>,
        data: &'a RowData<'a>,
        options: Options,
    ) -> Result<Option<Box<dyn TurnPass + 'a>>, Error> {
        let factors = self.factors(tables, data, options)?;
        let [user, item] = factors.tables();
        let alike = user.optimizer().kind == item.optimizer().kind;
        let trained = !user.is_frozen() && !item.is_frozen();
        if !alike || !trained {
            return Ok(None);
        }
        Ok(Some(Box::new(MfWalk {
            kept: vec![0.0; 2 * factors.width()],
            biases: Slots::new(tables, data, &self.at.biases)?,
            factors,
        })))
    }
}

/// The vectors of users and items, in tables of one width and precision.
struct Factors<'a> {
    slots: Slots<'a>,
    options: Options,
}

impl<'a> Factors<'a> {
    fn tables(&self) -> [TableRows<'a>; 2] {
        [0, 1].map(|side| self.slots.slots()[side].table)
    }

    /// Floats of a vector, padded as rows are.
    fn width(&self) -> usize {
        self.tables()[0].layout().width
    }

    fn is_half(&self) -> bool {
        self.tables()[0].layout().precision == Precision::Bf16
    }

    /// Noise for the rounding of a side's update.
    fn noise(&self, step: Step, side: usize) -> u32 {
        element_noise(step.noise, side * self.width())
    }
}

/// One part does all: two rows are too little to share.
const PART: usize = 0;

/// Row by row, beside other components.
struct MfPass<'a> {
    factors: Factors<'a>,
    biases: Box<dyn RowPass + 'a>,
    /// Of one vector.
    gradient: Vec<f32>,
}

impl MfPass<'_> {
    /// `p` and `q` as they were, then `p · q`, then the biases' share of the score.
    fn product_at(&self) -> usize {
        2 * self.factors.width()
    }

    fn biases_of(&self, shared: Shared) -> Shared {
        shared.part(self.product_at() + 1, self.biases.shared_len())
    }

    fn update(&mut self, row: usize, step: Step, shared: Shared) {
        let width = self.factors.width();
        let mut rows = [std::ptr::null_mut(); 2];
        self.factors.slots.plain(row, &mut rows);
        for (side, table) in self.factors.tables().into_iter().enumerate() {
            if table.is_frozen() {
                continue;
            }
            let other = (1 - side) * width;
            for (at, to) in self.gradient.iter_mut().enumerate() {
                *to = step.slope * shared.get(other + at);
            }
            let Options { isa, fast } = self.factors.options;
            let update = UpdateRow {
                row: rows[side],
                layout: table.layout(),
                noise: self.factors.noise(step, side),
                gradient: &self.gradient,
            };
            let rule = table.rule(step.rate, fast);
            match rule.expect("checked when the pass was bound") {
                Rule::Sgd(rule) => update.by(rule, isa),
                Rule::Adagrad(rule) => update.by(rule, isa),
                Rule::FastAdagrad(rule) => update.by(rule, isa),
                Rule::Ftrl(rule) => update.by(rule, isa),
                Rule::Rowwise(rule) => update.by(rule, isa),
                Rule::RowwiseHalf(rule) => update.by(rule, isa),
            }
        }
    }
}

impl RowPass for MfPass<'_> {
    fn shared_len(&self) -> usize {
        self.product_at() + 1 + self.biases.shared_len()
    }

    fn prefetch(&self, row: usize, part: usize) {
        if part == PART {
            self.factors.slots.prefetch(row);
        }
        self.biases.prefetch(row, part);
    }

    fn forward(&mut self, row: usize, part: usize, shared: Shared) {
        if part == PART {
            let width = self.factors.width();
            let mut rows = [std::ptr::null_mut(); 2];
            self.factors.slots.plain(row, &mut rows);
            let product = Product {
                rows,
                width,
                half: self.factors.is_half(),
                kept: shared.floats(0, 2 * width),
            };
            let product = self.factors.options.isa.run_width(width, product);
            shared.put(self.product_at(), product);
        }
        let of_biases = self.biases_of(shared);
        self.biases.forward(row, part, of_biases);
    }

    fn score(&mut self, row: usize, shared: Shared) -> f32 {
        let of_biases = self.biases_of(shared);
        shared.get(self.product_at()) + self.biases.score(row, of_biases)
    }

    fn backward(&mut self, row: usize, next: usize, part: usize, step: Step, shared: Shared) {
        if part == PART {
            self.factors.slots.prefetch(next);
            self.update(row, step, shared);
        }
        let of_biases = self.biases_of(shared);
        self.biases.backward(row, next, part, step, of_biases);
    }
}

/// `p · q`, and copies of both: each is the other's gradient, as it was before the update.
#[derive(Clone, Copy)]
struct Product {
    rows: [*mut u8; 2],
    width: usize,
    half: bool,
    /// Where they are kept, `p` before `q`.
    kept: *mut f32,
}

impl Kernel for Product {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        // SAFETY: the rows are checked rows of `width` weights, padding included, in halves if
        // `half`.
        unsafe {
            if self.half {
                self.product::<L, true>()
            } else {
                self.product::<L, false>()
            }
        }
    }
}

impl Product {
    /// # Safety
    /// The machine has the set of `L`; the rows hold `width` weights, as halves if `HALF`, and
    /// there is room for both in `kept`.
    #[inline(always)]
    unsafe fn product<L: Lanes, const HALF: bool>(self) -> f32 {
        // SAFETY: the caller vouches for it.
        unsafe {
            let mut sum = L::splat(0.0);
            for at in (0..self.width).step_by(L::N) {
                let p: L = Rowwise::<HALF>::load(self.rows[0], at);
                let q: L = Rowwise::<HALF>::load(self.rows[1], at);
                p.store(self.kept.add(at));
                q.store(self.kept.add(self.width + at));
                sum = p.mul_add(q, sum);
            }
            sum.sum()
        }
    }
}

/// A vector times the slope of the loss.
#[derive(Clone, Copy)]
struct Scaled {
    vector: *const f32,
    slope: f32,
}

impl Gradient for Scaled {
    #[inline(always)]
    unsafe fn at<L: Lanes>(&self, at: usize, _w: L) -> L {
        // SAFETY: the vector is as wide as the row.
        unsafe { L::splat(self.slope).mul(L::load(self.vector.add(at))) }
    }
}

/// Alone: all rows of a turn in one loop.
struct MfWalk<'a> {
    factors: Factors<'a>,
    biases: Slots<'a>,
    /// `p` and `q` of the row.
    kept: Vec<f32>,
}

impl TurnPass for MfWalk<'_> {
    fn train(&mut self, books: &mut Books<'_>) {
        let fast = self.factors.options.fast;
        let rules = self.factors.tables().map(|table| {
            let rule = table.rule(1.0, fast);
            rule.expect("checked when the pass was bound")
        });
        match rules {
            [Rule::Sgd(p), Rule::Sgd(q)] => self.walk([p, q], books),
            [Rule::Adagrad(p), Rule::Adagrad(q)] => self.walk([p, q], books),
            [Rule::FastAdagrad(p), Rule::FastAdagrad(q)] => self.walk([p, q], books),
            [Rule::Ftrl(p), Rule::Ftrl(q)] => self.walk([p, q], books),
            [Rule::Rowwise(p), Rule::Rowwise(q)] => self.walk([p, q], books),
            [Rule::RowwiseHalf(p), Rule::RowwiseHalf(q)] => self.walk([p, q], books),
            _ => unreachable!("one kind of optimizer, one precision"),
        }
    }
}

impl MfWalk<'_> {
    fn walk<R: RowRule>(&mut self, rules: [R; 2], books: &mut Books<'_>) {
        let (isa, width) = (self.factors.options.isa, self.factors.width());
        let walk = Walk {
            rules,
            pass: self,
            books,
        };
        isa.run_width(width, walk);
    }
}

struct Walk<'w, 'a, 'b, R> {
    rules: [R; 2],
    pass: &'w mut MfWalk<'a>,
    books: &'w mut Books<'b>,
}

/// Rows ahead whose vectors are asked for: as long as it takes memory to answer.
const AHEAD: usize = 4;

impl<R: RowRule> Kernel for Walk<'_, '_, '_, R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { rules, pass, books } = self;
        let MfWalk {
            factors,
            biases,
            kept,
        } = pass;
        let (width, half) = (factors.width(), factors.is_half());
        let tables = factors.tables();
        let bias_tables: [Option<TableRows<'_>>; 2] =
            [0, 1].map(|nth| biases.slots().get(nth).map(|slot| slot.table));
        let kept = kept.as_mut_ptr();
        let turn = books.turn();
        let mut rows = [std::ptr::null_mut(); 2];
        let mut bias_rows = [std::ptr::null_mut::<u8>(); 2];
        let bias_rows = &mut bias_rows[..biases.slots().len()];
        for (nth, &row) in turn.rows.iter().enumerate() {
            if let Some(&later) = turn.rows.get(nth + 2 * AHEAD) {
                factors.slots.prefetch_data(later as usize);
            }
            if let Some(&later) = turn.rows.get(nth + AHEAD) {
                factors.slots.prefetch(later as usize);
                biases.prefetch(later as usize);
            }
            factors.slots.plain(row as usize, &mut rows);
            biases.plain(row as usize, bias_rows);
            let product = Product {
                rows,
                width,
                half,
                kept,
            };
            // SAFETY: checked rows of the tables, whose vectors are `width` floats; biases are
            // single floats; `kept` has room for two vectors; no other thread is here.
            unsafe {
                let product = product.run::<L>();
                let mut of_biases = 0.0;
                for &bias in &*bias_rows {
                    of_biases += bias.cast::<f32>().read();
                }
                let Some(step) = books.close_row(nth, product + of_biases) else {
                    return;
                };
                for side in 0..2 {
                    let other = Scaled {
                        vector: kept.add((1 - side) * width),
                        slope: step.slope,
                    };
                    let layout = tables[side].layout();
                    let noise = element_noise(step.noise, side * width);
                    let rule = rules[side].at_rate(step.rate);
                    rule.update::<L>(rows[side], layout, noise, other);
                }
                for (table, &bias) in bias_tables.iter().flatten().zip(&*bias_rows) {
                    if !table.is_frozen() {
                        table.update_weight(bias, step.slope, step.rate);
                    }
                }
            }
        }
    }
}
