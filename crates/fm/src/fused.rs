//! FM row by row: the score and its gradient in closed form, on the tables themselves.

use crossfield_core::{Schema, TableField};
use crossfield_embedding::{Precision, RowLayout};
use crossfield_fused::{
    Error, Feature, FusedComponent, FusedConfig, Gradient, Isa, Kernel, Lanes, Linear, Member, Options,
    Portable, RowData, RowPass, RowRule, Rowwise, Rule, Shared, Slots, Step, Tables, element_noise,
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
        for slot in slots.slots() {
            let (table, precision) = (slot.table, slot.table.layout().precision);
            Rule::new(
                table.name(),
                table.optimizer(),
                precision,
                1.0,
                options.fast,
            )?;
        }
        let linear = match &self.linear {
            Some(linear) => Some(linear.bind(tables, data, options)?),
            None => None,
        };
        let width = slots.slots()[0].table.layout().width;
        Ok(Box::new(FmPass {
            features: Vec::new(),
            sums: vec![0.0; width],
            linear,
            options,
            slots,
        }))
    }
}

struct FmPass<'a> {
    slots: Slots<'a>,
    linear: Option<Box<dyn RowPass + 'a>>,
    features: Vec<Feature>,
    /// `S`, padded as rows are.
    sums: Vec<f32>,
    options: Options,
}

impl RowPass for FmPass<'_> {
    fn shared_len(&self) -> usize {
        2
    }

    fn prefetch(&self, row: usize, member: Member) {
        self.slots.prefetch(row, member.number, member.of);
        if let Some(linear) = &self.linear {
            linear.prefetch(row, member);
        }
    }

    fn forward(&mut self, row: usize, member: Member, shared: Shared) {
        if member.number == 0 {
            self.slots.gather(row, &mut self.features);
            let half = self.slots.slots()[0].table.layout().precision == Precision::Bf16;
            let pairs = Pairs {
                features: &self.features,
                sums: &mut self.sums,
                half,
            };
            shared.put(0, run(self.options.isa, pairs));
        }
        if let Some(linear) = &mut self.linear {
            linear.forward(row, member, shared.part(1, 1));
        }
    }

    fn score(&mut self, shared: Shared) -> f32 {
        let linear = self.linear.as_mut();
        shared.get(0) + linear.map_or(0.0, |linear| linear.score(shared.part(1, 1)))
    }

    fn backward(&mut self, row: usize, step: Step, member: Member, shared: Shared) {
        if member.number == 0 {
            self.update(step);
        }
        if let Some(linear) = &mut self.linear {
            linear.backward(row, step, member, shared.part(1, 1));
        }
    }
}

impl FmPass<'_> {
    /// Updates the rows, those of one table after the other, by the rule of that table.
    fn update(&mut self, step: Step) {
        let mut rest = &self.features[..];
        while let Some(first) = rest.first() {
            let table = &self.slots.slots()[first.slot].table;
            let same = rest
                .iter()
                .take_while(|other| self.slots.slots()[other.slot].table.name() == table.name());
            let (features, others) = rest.split_at(same.count());
            rest = others;
            if table.is_frozen() {
                continue;
            }
            let (layout, optimizer) = (table.layout(), table.optimizer());
            let rule = Rule::new(
                table.name(),
                optimizer,
                layout.precision,
                step.rate,
                self.options.fast,
            )
            .expect("checked when the pass was bound");
            let isa = self.options.isa;
            let update = Update {
                features,
                sums: &self.sums,
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
    sums: &'a mut [f32],
    half: bool,
}

impl Wide for Pairs<'_> {
    fn width(&self) -> usize {
        self.sums.len()
    }
}

impl Kernel for Pairs<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        // SAFETY: the rows are checked rows of tables of `sums.len()` factors, padding included.
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
    /// The machine has the set of `L`; the rows hold as many factors as `sums`, as halves if `HALF`.
    #[inline(always)]
    unsafe fn sum<L: Lanes, const HALF: bool>(self) -> f32 {
        let mut pairs = 0.0;
        // SAFETY: the caller vouches for it.
        unsafe {
            for at in (0..self.sums.len()).step_by(L::N) {
                let (mut sum, mut squares) = (L::splat(0.0), L::splat(0.0));
                for feature in self.features {
                    let v: L = Rowwise::<HALF>::load(feature.row, at);
                    sum = v.mul_add(L::splat(feature.x), sum);
                    squares = v.mul(v).mul_add(L::splat(feature.squares), squares);
                }
                sum.store(self.sums.as_mut_ptr().add(at));
                pairs += sum.mul(sum).sub(squares).sum();
            }
        }
        0.5 * pairs
    }
}

#[derive(Clone, Copy)]
struct Update<'a> {
    features: &'a [Feature],
    sums: &'a [f32],
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
        self.of.sums.len()
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
        } = self.of;
        for (nth, feature) in features.iter().enumerate() {
            let gradient = FactorGradient {
                sums: sums.as_ptr(),
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
