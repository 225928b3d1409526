//! Matrix factorization row by row: the score and its gradient in closed form, on the tables
//! themselves.

use crossfield_core::Schema;
use crossfield_embedding::Precision;
use crossfield_fused::{
    Books, Error, FusedComponent, FusedConfig, Kernel, Lanes, Linear, Options, RowData, RowPass,
    RowRule, Rowwise, Rule, Shared, Slots, Step, TableRows, Tables, TurnPass, UpdateRow,
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
            gradients: [(); 2].map(|()| vec![0.0; factors.width()]),
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
}

/// One part does all: two rows are too little to share.
const PART: usize = 0;

/// Row by row, beside other components.
struct MfPass<'a> {
    factors: Factors<'a>,
    biases: Box<dyn RowPass + 'a>,
    /// Of `p` and of `q`.
    gradients: [Vec<f32>; 2],
}

impl MfPass<'_> {
    /// Behind `p · q`, the biases' share of the score.
    fn biases_of(&self, shared: Shared) -> Shared {
        shared.part(1, self.biases.shared_len())
    }

    fn update(&mut self, row: usize, step: Step) {
        let width = self.factors.width();
        let Options { isa, fast } = self.factors.options;
        let mut rows = [std::ptr::null_mut(); 2];
        self.factors.slots.plain(row, &mut rows);
        let tables = self.factors.tables();
        // The gradient of each is the other as it was.
        let half = self.factors.is_half();
        let [gradient_of_p, gradient_of_q] = &mut self.gradients;
        for (row, to) in [(rows[0], gradient_of_q), (rows[1], gradient_of_p)] {
            let copy = Copied {
                row,
                half,
                slope: step.slope,
                to,
            };
            isa.run_width(width, copy);
        }
        for side in [0, 1] {
            if tables[side].is_frozen() {
                continue;
            }
            let update = UpdateRow {
                row: rows[side],
                layout: tables[side].layout(),
                noise: element_noise(step.noise, side * width),
                gradient: &self.gradients[side],
            };
            let rule = tables[side].rule(step.rate, fast);
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

/// A vector times the slope of the loss: the other's gradient.
struct Copied<'a> {
    row: *const u8,
    half: bool,
    slope: f32,
    to: &'a mut [f32],
}

impl Kernel for Copied<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: a checked row as wide as `to`, in halves if `half`.
        unsafe {
            let slope = L::splat(self.slope);
            for at in (0..self.to.len()).step_by(L::N) {
                let vector: L = if self.half {
                    Rowwise::<true>::load(self.row, at)
                } else {
                    Rowwise::<false>::load(self.row, at)
                };
                slope.mul(vector).store(self.to.as_mut_ptr().add(at));
            }
        }
    }
}

impl RowPass for MfPass<'_> {
    fn shared_len(&self) -> usize {
        1 + self.biases.shared_len()
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
            let half = self.factors.is_half();
            let product = Product { rows, width, half };
            shared.put(0, self.factors.options.isa.run_width(width, product));
        }
        let of_biases = self.biases_of(shared);
        self.biases.forward(row, part, of_biases);
    }

    fn score(&mut self, row: usize, shared: Shared) -> f32 {
        let of_biases = self.biases_of(shared);
        shared.get(0) + self.biases.score(row, of_biases)
    }

    fn backward(&mut self, row: usize, next: usize, part: usize, step: Step, shared: Shared) {
        if part == PART {
            self.factors.slots.prefetch(next);
            self.update(row, step);
        }
        let of_biases = self.biases_of(shared);
        self.biases.backward(row, next, part, step, of_biases);
    }
}

/// `p · q`.
#[derive(Clone, Copy)]
struct Product {
    rows: [*mut u8; 2],
    width: usize,
    half: bool,
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
    /// The machine has the set of `L`; the rows hold `width` weights, as halves if `HALF`.
    #[inline(always)]
    unsafe fn product<L: Lanes, const HALF: bool>(self) -> f32 {
        // SAFETY: the caller vouches for it.
        unsafe {
            let mut sum = L::splat(0.0);
            for at in (0..self.width).step_by(L::N) {
                let p: L = Rowwise::<HALF>::load(self.rows[0], at);
                let q: L = Rowwise::<HALF>::load(self.rows[1], at);
                sum = p.mul_add(q, sum);
            }
            sum.sum()
        }
    }
}

/// Alone: all rows of a turn in one loop.
struct MfWalk<'a> {
    factors: Factors<'a>,
    biases: Slots<'a>,
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
/// Bytes that a core keeps near: of tables that are no larger, to ask for rows costs a quarter of the
/// time and brings nothing.
const NEAR: usize = 1 << 20;

impl<R: RowRule> Kernel for Walk<'_, '_, '_, R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { rules, pass, books } = self;
        let MfWalk { factors, biases } = pass;
        let (width, half) = (factors.width(), factors.is_half());
        let tables = factors.tables();
        let bias_tables: [Option<TableRows<'_>>; 2] =
            [0, 1].map(|nth| biases.slots().get(nth).map(|slot| slot.table));
        let layouts = [tables[0].layout(), tables[1].layout()];
        let turn = books.turn();
        let mut rows = [std::ptr::null_mut(); 2];
        let mut bias_rows = [std::ptr::null_mut::<u8>(); 2];
        let bias_rows = &mut bias_rows[..biases.slots().len()];
        let all = tables.iter().chain(bias_tables.iter().flatten());
        let is_near = all.map(|table| table.bytes()).sum::<usize>() <= NEAR;
        for (nth, &row) in turn.rows.iter().enumerate() {
            if let Some(&later) = turn.rows.get(nth + 2 * AHEAD) {
                factors.slots.prefetch_data(later as usize);
            }
            if let Some(&later) = turn.rows.get(nth + AHEAD).filter(|_| !is_near) {
                factors.slots.prefetch(later as usize);
                biases.prefetch(later as usize);
            }
            factors.slots.plain(row as usize, &mut rows);
            biases.plain(row as usize, bias_rows);
            let product = Product { rows, width, half };
            // SAFETY: checked rows of the tables, whose vectors are `width` floats; biases are
            // single floats; no other thread is here.
            unsafe {
                let product = product.run::<L>();
                let mut of_biases = 0.0;
                for &bias in &*bias_rows {
                    of_biases += bias.cast::<f32>().read();
                }
                let Some(step) = books.close_row(nth, product + of_biases) else {
                    return;
                };
                let at_rate = [rules[0].at_rate(step.rate), rules[1].at_rate(step.rate)];
                let noise = [step.noise, element_noise(step.noise, width)];
                R::update_pair::<L>(at_rate, rows, layouts, noise, step.slope);
                for (table, &bias) in bias_tables.iter().flatten().zip(&*bias_rows) {
                    if !table.is_frozen() {
                        table.update_weight(bias, step.slope, step.rate);
                    }
                }
            }
        }
    }
}
