//! Row optimizers as kernels: the rules of `crossfield_embedding::RowOptimizer` on vectors.

use crossfield_embedding::{Precision, RowLayout, RowOptimizer, RowOptimizerKind};

use crate::{Error, Isa, Kernel, Lanes, element_noise};

/// The number below which a root is not taken: ε² of AdaGrad stands under the root here, where the
/// row optimizer adds ε to it, which is the same for all roots that are not tiny themselves.
const TINY: f32 = 1e-30;

/// The rule of a table for one step, with the learning rate of that step.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// `w ← w − η g`.
    Sgd(Sgd),
    /// AdaGrad with `1/√n` to 22 bits or more.
    Adagrad(Adagrad<true>),
    /// AdaGrad with `1/√n` as the instruction set estimates it.
    FastAdagrad(Adagrad<false>),
    /// FTRL-Proximal.
    Ftrl(Ftrl),
    /// One accumulator a row.
    Rowwise(Rowwise<false>),
    /// One accumulator a row, weights in halves.
    RowwiseHalf(Rowwise<true>),
}

impl Rule {
    /// The rule of an optimizer at `rate` times its learning rate. `fast`: AdaGrad does without
    /// the Newton step.
    ///
    /// # Errors
    /// [`Error::Optimizer`] for Adam, which has no kernel.
    #[inline]
    pub fn new(
        table: &str,
        optimizer: &RowOptimizer,
        precision: Precision,
        rate: f32,
        fast: bool,
    ) -> Result<Self, Error> {
        let lr = optimizer.lr as f32 * rate;
        let l2 = optimizer.l2 as f32;
        let least = ((optimizer.eps * optimizer.eps) as f32).max(TINY);
        Ok(match optimizer.kind {
            RowOptimizerKind::Sgd => Self::Sgd(Sgd { lr, l2 }),
            RowOptimizerKind::Adagrad if fast => Self::FastAdagrad(Adagrad { lr, l2, least }),
            RowOptimizerKind::Adagrad => Self::Adagrad(Adagrad { lr, l2, least }),
            RowOptimizerKind::RowwiseAdagrad => {
                let eps = optimizer.eps as f32;
                match precision {
                    Precision::F32 => Self::Rowwise(Rowwise { lr, l2, eps }),
                    Precision::Bf16 => Self::RowwiseHalf(Rowwise { lr, l2, eps }),
                }
            }
            RowOptimizerKind::Ftrl => Self::Ftrl(Ftrl {
                lr: optimizer.lr as f32,
                l1: optimizer.l1 as f32,
                l2,
                beta: optimizer.beta as f32,
                factor: rate,
            }),
            RowOptimizerKind::Adam => {
                return Err(Error::Optimizer {
                    table: table.to_owned(),
                    kind: "adam",
                });
            }
        })
    }
}

/// A rule with a learning rate.
pub trait Rated: Copy {
    /// The rule at `rate` times its learning rate.
    fn at_rate(self, rate: f32) -> Self;
}

/// A rule that treats each weight by itself.
pub trait ElementRule: Rated {
    /// The weights after a step, given the gradient of the loss; updates the state at `state`,
    /// whose parts are `width` floats long.
    ///
    /// # Safety
    /// The machine has the instruction set of `L`; each part of the state reaches over `L::N`
    /// floats from `state`.
    unsafe fn step<L: Lanes>(&self, w: L, g: L, state: *mut f32, width: usize) -> L;
}

/// A rule that updates a whole row.
pub trait RowRule: Rated {
    /// Updates a row by the gradient of the loss.
    ///
    /// # Safety
    /// The machine has the instruction set of `L`, which divides `layout.width`; `row` is a row of
    /// that layout that no other thread touches.
    unsafe fn update<L: Lanes>(
        &self,
        row: *mut u8,
        layout: &RowLayout,
        noise: u32,
        gradient: impl Gradient,
    );

    /// Updates two rows, the gradient of each being the weights of the other, as they were, times
    /// `slope`: in one walk over both, without copies. Of a row beside itself the second update
    /// stays.
    ///
    /// # Safety
    /// As [`update`](Self::update), for both rows, which are of one width.
    unsafe fn update_pair<L: Lanes>(
        rules: [Self; 2],
        rows: [*mut u8; 2],
        layouts: [&RowLayout; 2],
        noise: [u32; 2],
        slope: f32,
    );
}

/// A gradient that is computed vector by vector.
///
/// A trait and not a closure: what a closure does would not be compiled for the instruction set.
pub trait Gradient: Copy {
    /// The gradient of the `L::N` weights `w` from position `at` of a row on.
    ///
    /// # Safety
    /// The machine has the instruction set of `L`, and the row holds that many weights.
    unsafe fn at<L: Lanes>(&self, at: usize, w: L) -> L;
}

/// `w ← w − η (g + λ w)`.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    lr: f32,
    l2: f32,
}

/// `n ← n + g²; w ← w − η g / √n`, with `g` the gradient and its penalty.
#[derive(Clone, Copy, Debug)]
pub struct Adagrad<const REFINED: bool> {
    lr: f32,
    l2: f32,
    least: f32,
}

/// FTRL-Proximal. The schedule's factor is on the gradient in z.
#[derive(Clone, Copy, Debug)]
pub struct Ftrl {
    lr: f32,
    l1: f32,
    l2: f32,
    beta: f32,
    factor: f32,
}

/// AdaGrad with one accumulator a row; weights in halves if `HALF`.
#[derive(Clone, Copy, Debug)]
pub struct Rowwise<const HALF: bool> {
    lr: f32,
    l2: f32,
    eps: f32,
}

macro_rules! rated {
    ($($rule:ty $(: $flag:ident)?),*) => {$(
        impl$(<const $flag: bool>)? Rated for $rule {
            #[inline(always)]
            fn at_rate(mut self, rate: f32) -> Self {
                self.lr *= rate;
                self
            }
        }
    )*};
}

rated!(Sgd, Adagrad<REFINED>: REFINED, Rowwise<HALF>: HALF);

impl Rated for Ftrl {
    #[inline(always)]
    fn at_rate(mut self, rate: f32) -> Self {
        self.factor *= rate;
        self
    }
}

/// The gradient with that of the penalty, which weights that took no part do not pay.
#[inline(always)]
unsafe fn penalized<L: Lanes>(w: L, g: L, l2: f32) -> L {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { L::splat(l2).where_nonzero(g).mul_add(w, g) }
}

impl ElementRule for Sgd {
    #[inline(always)]
    unsafe fn step<L: Lanes>(&self, w: L, g: L, _state: *mut f32, _width: usize) -> L {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { penalized(w, g, self.l2).neg_mul_add(L::splat(self.lr), w) }
    }
}

impl<const REFINED: bool> ElementRule for Adagrad<REFINED> {
    #[inline(always)]
    unsafe fn step<L: Lanes>(&self, w: L, g: L, state: *mut f32, _width: usize) -> L {
        // SAFETY: the caller vouches for the instruction set and the state.
        unsafe {
            let g = penalized(w, g, self.l2);
            let n = g.mul_add(g, L::load(state));
            n.store(state);
            let n = n.max(L::splat(self.least));
            let root = if REFINED {
                n.rsqrt()
            } else {
                n.rsqrt_estimate()
            };
            g.mul(L::splat(self.lr)).neg_mul_add(root, w)
        }
    }
}

impl ElementRule for Ftrl {
    #[inline(always)]
    unsafe fn step<L: Lanes>(&self, w: L, g: L, state: *mut f32, width: usize) -> L {
        // SAFETY: the caller vouches for the instruction set and the state.
        unsafe {
            let (z_at, n_at) = (state, state.add(width));
            let (z, n) = (L::load(z_at), L::load(n_at));
            let before = n.sqrt();
            let n = g.mul_add(g, n);
            let after = n.sqrt();
            let sigma = after.sub(before).div(L::splat(self.lr));
            let step = g.mul(L::splat(self.factor));
            let z = z.add(sigma.neg_mul_add(w, step));
            z.store(z_at);
            n.store(n_at);
            let l1 = L::splat(self.l1);
            let size = z.sub(l1.copy_sign(z));
            let slope = L::splat(self.beta)
                .add(after)
                .div(L::splat(self.lr))
                .add(L::splat(self.l2));
            // Without β, n and λ₂ the slope of a weight that never had a gradient is zero.
            let w = L::splat(0.0).sub(size.div(slope.max(L::splat(TINY))));
            w.where_above(z, l1)
        }
    }
}

impl<R: ElementRule> RowRule for R {
    #[inline(always)]
    unsafe fn update<L: Lanes>(
        &self,
        row: *mut u8,
        layout: &RowLayout,
        _noise: u32,
        gradient: impl Gradient,
    ) {
        // SAFETY: the caller vouches for the row, whose weights and state are whole vectors.
        unsafe {
            let (weights, state) = (row.cast::<f32>(), row.add(layout.state_at).cast::<f32>());
            for at in (0..layout.width).step_by(L::N) {
                let w = L::load(weights.add(at));
                let g = gradient.at(at, w);
                self.step(w, g, state.add(at), layout.width)
                    .store(weights.add(at));
            }
        }
    }

    #[inline(always)]
    unsafe fn update_pair<L: Lanes>(
        rules: [Self; 2],
        rows: [*mut u8; 2],
        layouts: [&RowLayout; 2],
        _noise: [u32; 2],
        slope: f32,
    ) {
        // SAFETY: the caller vouches for the rows, whose weights and state are whole vectors.
        unsafe {
            let width = layouts[0].width;
            let weights = rows.map(|row| row.cast::<f32>());
            let states = [
                rows[0].add(layouts[0].state_at).cast::<f32>(),
                rows[1].add(layouts[1].state_at).cast::<f32>(),
            ];
            let slope = L::splat(slope);
            for at in (0..width).step_by(L::N) {
                let (p, q) = (L::load(weights[0].add(at)), L::load(weights[1].add(at)));
                let new_p = rules[0].step(p, slope.mul(q), states[0].add(at), width);
                let new_q = rules[1].step(q, slope.mul(p), states[1].add(at), width);
                new_p.store(weights[0].add(at));
                new_q.store(weights[1].add(at));
            }
        }
    }
}

impl<const HALF: bool> Rowwise<HALF> {
    /// Reads `L::N` weights from position `at` of a row.
    ///
    /// # Safety
    /// The machine has the instruction set of `L`, and the row holds that many weights.
    #[inline(always)]
    pub unsafe fn load<L: Lanes>(row: *const u8, at: usize) -> L {
        // SAFETY: the caller vouches for it.
        unsafe {
            if HALF {
                L::load_half(row.cast::<u16>().add(at))
            } else {
                L::load(row.cast::<f32>().add(at))
            }
        }
    }

    /// Writes `L::N` weights from position `at` of a row, rounding with the noise of the element
    /// numbered `noise`.
    ///
    /// # Safety
    /// As [`load`](Self::load).
    #[inline(always)]
    pub unsafe fn store<L: Lanes>(weights: L, row: *mut u8, at: usize, noise: u32) {
        // SAFETY: the caller vouches for it.
        unsafe {
            if HALF {
                let noise = L::noise(element_noise(noise, at));
                weights.store_half(row.cast::<u16>().add(at), noise);
            } else {
                weights.store(row.cast::<f32>().add(at));
            }
        }
    }

    /// The rate of a row's weights, given its accumulator.
    #[inline(always)]
    pub fn rate(&self, accumulator: f32) -> f32 {
        self.lr / (accumulator.sqrt() + self.eps)
    }

    /// The weights after a step at `rate`.
    ///
    /// # Safety
    /// The machine has the instruction set of `L`.
    #[inline(always)]
    pub unsafe fn step<L: Lanes>(&self, w: L, g: L, rate: f32) -> L {
        // SAFETY: the caller vouches for it.
        unsafe { penalized(w, g, self.l2).neg_mul_add(L::splat(rate), w) }
    }
}

impl<const HALF: bool> RowRule for Rowwise<HALF> {
    #[inline(always)]
    unsafe fn update<L: Lanes>(
        &self,
        row: *mut u8,
        layout: &RowLayout,
        noise: u32,
        gradient: impl Gradient,
    ) {
        // SAFETY: the caller vouches for the row.
        unsafe {
            let mut squares: L = L::splat(0.0);
            for at in (0..layout.width).step_by(L::N) {
                let g = gradient.at(at, Self::load::<L>(row, at));
                squares = g.mul_add(g, squares);
            }
            let accumulator = &mut *row.add(layout.state_at).cast::<f32>();
            *accumulator += squares.sum() / layout.dim as f32;
            let rate = self.rate(*accumulator);
            for at in (0..layout.width).step_by(L::N) {
                let w: L = Self::load(row, at);
                let g = gradient.at(at, w);
                Self::store(self.step(w, g, rate), row, at, noise);
            }
        }
    }

    #[inline(always)]
    unsafe fn update_pair<L: Lanes>(
        rules: [Self; 2],
        rows: [*mut u8; 2],
        layouts: [&RowLayout; 2],
        noise: [u32; 2],
        slope: f32,
    ) {
        // SAFETY: the caller vouches for the rows.
        unsafe {
            let width = layouts[0].width;
            let slope = L::splat(slope);
            let (mut of_p, mut of_q): (L, L) = (L::splat(0.0), L::splat(0.0));
            for at in (0..width).step_by(L::N) {
                let (p, q): (L, L) = (Self::load(rows[0], at), Self::load(rows[1], at));
                let (g_p, g_q) = (slope.mul(q), slope.mul(p));
                of_p = g_p.mul_add(g_p, of_p);
                of_q = g_q.mul_add(g_q, of_q);
            }
            let accumulate = |squares: f32, row: *mut u8, layout: &RowLayout| {
                let accumulator = &mut *row.add(layout.state_at).cast::<f32>();
                *accumulator += squares / layout.dim as f32;
                *accumulator
            };
            let rate_p = rules[0].rate(accumulate(of_p.sum(), rows[0], layouts[0]));
            let rate_q = rules[1].rate(accumulate(of_q.sum(), rows[1], layouts[1]));
            for at in (0..width).step_by(L::N) {
                let (p, q): (L, L) = (Self::load(rows[0], at), Self::load(rows[1], at));
                let new_p = rules[0].step(p, slope.mul(q), rate_p);
                let new_q = rules[1].step(q, slope.mul(p), rate_q);
                Self::store(new_p, rows[0], at, noise[0]);
                Self::store(new_q, rows[1], at, noise[1]);
            }
        }
    }
}

/// The update of one table row by a gradient that lies in memory.
#[derive(Clone, Copy, Debug)]
pub struct UpdateRow<'a> {
    /// The row, which no other thread touches.
    pub row: *mut u8,
    /// Its layout.
    pub layout: &'a RowLayout,
    /// Noise of its first element.
    pub noise: u32,
    /// The gradient, `layout.width` floats or more.
    pub gradient: &'a [f32],
}

impl UpdateRow<'_> {
    /// Updates the row.
    ///
    /// # Panics
    /// If the gradient is shorter than the row.
    pub fn by<R: RowRule>(self, rule: R, isa: Isa) {
        assert!(self.gradient.len() >= self.layout.width, "a whole gradient");
        isa.run_width(self.layout.width, ByRule { rule, of: self });
    }
}

struct ByRule<'a, R> {
    rule: R,
    of: UpdateRow<'a>,
}

impl<R: RowRule> Kernel for ByRule<'_, R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let UpdateRow {
            row,
            layout,
            noise,
            gradient,
        } = self.of;
        // SAFETY: `by` has compared the lengths; the row is the caller's.
        unsafe { self.rule.update::<L>(row, layout, noise, gradient.as_ptr()) }
    }
}

impl Gradient for *const f32 {
    #[inline(always)]
    unsafe fn at<L: Lanes>(&self, at: usize, _w: L) -> L {
        // SAFETY: the gradient reaches as far as the row.
        unsafe { L::load(self.add(at)) }
    }
}
