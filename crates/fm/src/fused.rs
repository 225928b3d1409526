//! FM row by row: the score and its gradient in closed form, on the tables themselves.

use crossfield_core::{Schema, TableField};
use crossfield_embedding::{Precision, RowLayout};
use crossfield_fused::{
    Error, Feature, FusedComponent, FusedConfig, Gathered, Gradient, Isa, Kernel, Lanes, Linear,
    Options, Portable, RowData, RowPass, RowRule, Rowwise, Rule, Shared, Slots, Step, Tables,
    element_noise,
};

use crate::FmConfig;

/// A factorization machine as a pass over rows.
///
/// With `S = Σ x_i v_i` the pairs are `½ Σ_d [S_d² − Σ_i x_i² v_i,d²]`, and the gradient of `v_i` is
/// `x_i (S − x_i v_i)`.
#[derive(Clone, Debug)]
pub struct FusedFm {
    factors: Vec<TableField>,
    linear: Option<Linear>,
}

impl FusedFm {
    /// Over the given fields: the table of the factors and that of the linear weights of each; no
    /// linear weights: no linear terms.
    pub fn new(factors: Vec<TableField>, linear: Vec<TableField>) -> Self {
        Self {
            factors,
            linear: (!linear.is_empty()).then(|| Linear::new(linear)),
        }
    }
}

impl FusedConfig for FmConfig {
    fn fused(&self, schema: &Schema) -> Result<Box<dyn FusedComponent>, crossfield_core::Error> {
        let (factors, linear) = self.lookups(schema)?;
        Ok(Box::new(FusedFm::new(factors, linear)))
    }
}

impl FusedComponent for FusedFm {
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
        // One kernel reads the rows of all fields.
        let precision = slots.slots()[0].table.layout().precision;
        for slot in slots.slots() {
            slot.table.rule(1.0, options.fast)?;
            if slot.table.layout().precision != precision {
                return Err(Error::MixedPrecision {
                    table: slot.table.name().to_owned(),
                });
            }
        }
        let linear = match &self.linear {
            Some(linear) => Some(linear.bind(tables, data, options)?),
            None => None,
        };
        Ok(Box::new(FmPass {
            width: slots.slots()[0].table.layout().width,
            half: precision == Precision::Bf16,
            features: Gathered::default(),
            linear,
            options,
            slots,
        }))
    }
}

/// One part does all pairs: what a feature's update needs is little.
const PART: usize = 0;

struct FmPass<'a> {
    slots: Slots<'a>,
    linear: Option<Box<dyn RowPass + 'a>>,
    features: Gathered,
    /// Factors, padded as rows are.
    width: usize,
    /// Whether all tables keep them in halves.
    half: bool,
    options: Options,
}

impl FmPass<'_> {
    /// `S`, then the pairs' share of the score, then the linear terms'.
    fn sums(&self, shared: Shared) -> *mut f32 {
        shared.floats(0, self.width)
    }
}

impl RowPass for FmPass<'_> {
    fn shared_len(&self) -> usize {
        self.width + 2
    }

    fn prefetch(&self, row: usize, part: usize) {
        if part == PART {
            self.slots.prefetch(row);
        }
        if let Some(linear) = &self.linear {
            linear.prefetch(row, part);
        }
    }

    fn forward(&mut self, row: usize, part: usize, shared: Shared) {
        if part == PART {
            let pairs = Pairs {
                sums: self.sums(shared),
                width: self.width,
                features: self.features.of(&self.slots, row),
                half: self.half,
            };
            shared.put(self.width, run(self.options.isa, pairs));
        }
        if let Some(linear) = &mut self.linear {
            linear.forward(row, part, shared.part(self.width + 1, 1));
        }
    }

    fn score(&mut self, row: usize, shared: Shared) -> f32 {
        let pairs = shared.get(self.width);
        let linear = shared.part(self.width + 1, 1);
        pairs
            + self
                .linear
                .as_mut()
                .map_or(0.0, |pass| pass.score(row, linear))
    }

    fn backward(&mut self, row: usize, next: usize, part: usize, step: Step, shared: Shared) {
        if part == PART {
            self.slots.prefetch(next);
            self.update(row, step, shared);
        }
        if let Some(linear) = &mut self.linear {
            linear.backward(row, next, part, step, shared.part(self.width + 1, 1));
        }
    }
}

impl FmPass<'_> {
    /// Updates the rows, those of one table after the other, by the rule of that table.
    fn update(&mut self, row: usize, step: Step, shared: Shared) {
        let (sums, width) = (self.sums(shared), self.width);
        let slots = &self.slots;
        let mut rest = self.features.of(slots, row);
        while let Some(first) = rest.first() {
            let table = &slots.slots()[first.slot].table;
            let same = rest
                .iter()
                .take_while(|other| slots.slots()[other.slot].table.number() == table.number());
            let (features, others) = rest.split_at(same.count());
            rest = others;
            if table.is_frozen() {
                continue;
            }
            let layout = table.layout();
            let rule = table
                .rule(step.rate, self.options.fast)
                .expect("checked when the pass was bound");
            let isa = self.options.isa;
            let update = Update {
                features,
                sums,
                width,
                layout,
                step,
            };
            match rule {
                Rule::Sgd(rule) => run(isa, ByRule { rule, of: update }),
                Rule::Adagrad(rule) => run(isa, ByRule { rule, of: update }),
                Rule::FastAdagrad(rule) => run(isa, ByRule { rule, of: update }),
                Rule::Ftrl(rule) => run(isa, ByRule { rule, of: update }),
                Rule::Rowwise(rule) => run(isa, ByRule { rule, of: update }),
                Rule::RowwiseHalf(rule) => run(isa, ByRule { rule, of: update }),
            }
        }
    }
}

/// A kernel over rows of some width.
trait Wide: Kernel {
    fn width(&self) -> usize;
}

/// Rows of one or two factors are not padded to vectors.
fn run<K: Wide>(isa: Isa, kernel: K) -> K::Output {
    if kernel.width().is_multiple_of(8) {
        isa.run_eight(kernel)
    } else {
        // SAFETY: plain code.
        unsafe { kernel.run::<Portable<1>>() }
    }
}

struct Pairs<'a> {
    features: &'a [Feature],
    /// Where `S` goes, `width` floats.
    sums: *mut f32,
    width: usize,
    half: bool,
}

impl Wide for Pairs<'_> {
    fn width(&self) -> usize {
        self.width
    }
}

impl Kernel for Pairs<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        // SAFETY: the rows are checked rows of tables of `width` factors, padding included.
        unsafe {
            if self.half {
                self.sum::<L, true>()
            } else {
                self.sum::<L, false>()
            }
        }
    }
}

impl Pairs<'_> {
    /// # Safety
    /// The machine has the set of `L`; the rows hold `width` factors, as halves if `HALF`.
    #[inline(always)]
    unsafe fn sum<L: Lanes, const HALF: bool>(self) -> f32 {
        let mut pairs = 0.0;
        // SAFETY: the caller vouches for it.
        unsafe {
            for at in (0..self.width).step_by(L::N) {
                let (mut sum, mut squares) = (L::splat(0.0), L::splat(0.0));
                for feature in self.features {
                    let v: L = Rowwise::<HALF>::load(feature.row, at);
                    sum = v.mul_add(L::splat(feature.x), sum);
                    squares = v.mul(v).mul_add(L::splat(feature.squares), squares);
                }
                sum.store(self.sums.add(at));
                pairs += sum.mul(sum).sub(squares).sum();
            }
        }
        0.5 * pairs
    }
}

#[derive(Clone, Copy)]
struct Update<'a> {
    features: &'a [Feature],
    sums: *const f32,
    width: usize,
    layout: &'a RowLayout,
    step: Step,
}

struct ByRule<'a, R> {
    rule: R,
    of: Update<'a>,
}

impl<R> Wide for ByRule<'_, R>
where
    Self: Kernel,
{
    fn width(&self) -> usize {
        self.of.width
    }
}

impl<R: RowRule> Kernel for ByRule<'_, R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Update {
            features,
            sums,
            layout,
            step,
            ..
        } = self.of;
        for (nth, feature) in features.iter().enumerate() {
            let gradient = FactorGradient {
                sums,
                x: step.slope * feature.x,
                squares: step.slope * feature.squares,
            };
            let noise = element_noise(step.noise, nth * layout.width);
            // SAFETY: a checked row of the table of that layout, as wide as `sums`.
            unsafe { self.rule.update::<L>(feature.row, layout, noise, gradient) }
        }
    }
}

/// `x (S − x v)` times the slope of the loss.
#[derive(Clone, Copy)]
struct FactorGradient {
    sums: *const f32,
    x: f32,
    squares: f32,
}

impl Gradient for FactorGradient {
    #[inline(always)]
    unsafe fn at<L: Lanes>(&self, at: usize, w: L) -> L {
        // SAFETY: `sums` is as wide as the row.
        unsafe {
            let sum = L::load(self.sums.add(at));
            w.neg_mul_add(L::splat(self.squares), sum.mul(L::splat(self.x)))
        }
    }
}
