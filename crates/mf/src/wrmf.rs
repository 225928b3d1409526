//! Weighted regularised matrix factorization: what a user has is 1, all else is 0, and the more he
//! has had of something the surer it is.
//!
//! ```text
//! min Σ_u,i c_ui (p_ui − x_u·y_i)² + Σ_u λ_u ‖x_u‖² + Σ_i λ_i ‖y_i‖²
//!
//! p_ui = 1 where r_ui > 0, else 0        c_ui = 1 + α r_ui
//! λ_u  = λ (Σ_i c_ui)^ν                  λ_i  = λ (Σ_u c_ui)^ν
//! ```
//!
//! over *all* pairs of a user and an item. Given the items, the best x_u solves
//!
//! ```text
//! (YᵀY + λ_u + Σ_i α r_ui y_i y_iᵀ) x_u = Σ_i c_ui y_i        sums over the items of u
//! ```
//!
//! so that a sweep takes time with the pairs that were seen: the Gram matrix `YᵀY` is that of all
//! items, and the same for all users.
//!
//! # Source
//! Hu, Koren, Volinsky, Collaborative filtering for implicit feedback datasets, ICDM 2008, equations
//! 3 to 5; the conjugate gradient method: Takács, Pilászy, Tikk, Applications of the conjugate
//! gradient method for implicit feedback collaborative filtering, RecSys 2011; penalties that grow
//! with what is known of a row: Rendle, Krichene, Zhang, Koren, Revisiting the performance of iALS on
//! item recommendation benchmarks, RecSys 2022, section 3.3, there with 1 for what was seen and α₀
//! for the rest.

use crossfield_simd::{Isa, Kernel, Lanes};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::dense::{Rows, System};
use crate::implicit::{check_dim, check_indices, check_option, seen};
use crate::{Csr, Error, ImplicitParameters, Interactions};

/// Rows that a thread solves at a time.
const BLOCK: usize = 32;
/// Parts of a Gram matrix that are summed up apart, at most, and rows of one, at least.
const GRAM_PARTS: usize = 32;
const GRAM_ROWS: usize = 4096;

/// How the vector of a user is found, given those of the items, and the other way round.
///
/// ```
/// use crossfield_mf::InnerSolver;
///
/// assert_eq!(InnerSolver::default(), InnerSolver::ConjugateGradient { steps: 3 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum InnerSolver {
    /// Exactly; takes time with k² for each pair and k³ for each row.
    Cholesky,
    /// So many steps from where the vector is; each takes time with k for each pair and k² for each
    /// row.
    ConjugateGradient {
        /// The number of steps.
        steps: usize,
    },
}

impl Default for InnerSolver {
    fn default() -> Self {
        Self::ConjugateGradient { steps: 3 }
    }
}

/// Configuration of a [`Wrmf`].
///
/// ```
/// use crossfield_mf::{InnerSolver, WrmfConfig};
///
/// let config = WrmfConfig { solver: InnerSolver::Cholesky, ..WrmfConfig::default() };
/// assert_eq!(config.embedding_dim, 64);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WrmfConfig {
    /// Length k of the vectors.
    pub embedding_dim: usize,
    /// α, how much surer a value of 1 is than a pair that was not seen. What suits depends on the
    /// values: 0.7 with ratings of 4 and 5, 40 with the times that a programme was seen (Hu and
    /// others).
    pub alpha: f64,
    /// λ. It stands against sums over all users or items: 10 is not much.
    pub l2: f64,
    /// ν, how λ grows with what is known of a row; 0: it is the same for all. On MovieLens-100k no
    /// other was better.
    pub l2_power: f64,
    /// How vectors are found.
    pub solver: InnerSolver,
    /// Standard deviation of the vectors at the beginning.
    pub init_std: f64,
}

impl Default for WrmfConfig {
    fn default() -> Self {
        Self {
            embedding_dim: 64,
            alpha: 1.0,
            l2: 1.0,
            l2_power: 0.0,
            solver: InnerSolver::default(),
            init_std: 0.01,
        }
    }
}

impl WrmfConfig {
    fn check(&self) -> Result<(), Error> {
        check_dim(self.embedding_dim)?;
        let alpha = self.alpha;
        check_option("alpha", alpha, alpha >= 0.0, "a number of at least 0")?;
        check_option("l2", self.l2, self.l2 > 0.0, "a number above 0")?;
        let power = self.l2_power;
        check_option("l2_power", power, power >= 0.0, "a number of at least 0")?;
        let std = self.init_std;
        check_option("init_std", std, std > 0.0, "a number above 0")?;
        if self.solver == (InnerSolver::ConjugateGradient { steps: 0 }) {
            return check_option("steps", 0.0, false, "at least 1");
        }
        Ok(())
    }
}

/// Fits vectors by alternating least squares, one sweep over users and items after the other.
///
/// A sweep depends on the pairs, the configuration and the parameters alone, so that a run goes on
/// from saved parameters ([`resume`](Self::resume)) to the bit; the seed draws the vectors at the
/// beginning. Threads share the rows; their number does not change a bit.
///
/// - Values of the same pair add up; a value of 0 says nothing, as if the pair were not there.
/// - A user without a pair and an item that nobody has get zero vectors: the solution of their
///   equations.
/// - λ is above 0, so that there is one solution however large k is.
///
/// ```
/// use crossfield_mf::{Duplicates, Interactions, Wrmf, WrmfConfig};
///
/// // Users 0 and 1 play songs 0 and 1, users 2 and 3 songs 2 and 3; user 0 has not heard song 1.
/// let plays = [(0, 0, 9.0), (1, 0, 3.0), (1, 1, 4.0), (2, 2, 1.0), (2, 3, 5.0), (3, 2, 2.0)];
/// let plays = Interactions::new(4, 4, plays, Duplicates::Sum)?;
/// let config = WrmfConfig { embedding_dim: 2, l2: 0.1, ..WrmfConfig::default() };
/// let mut wrmf = Wrmf::new(plays, config, 1)?;
/// for _ in 0..15 {
///     wrmf.iterate()?;
/// }
/// let parameters = wrmf.parameters();
/// assert!(parameters.score(0, 1) > 0.4 && parameters.score(0, 2).abs() < 0.1);
/// # Ok::<(), crossfield_mf::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Wrmf {
    interactions: Interactions,
    config: WrmfConfig,
    isa: Isa,
    sweeps: u64,
    parameters: ImplicitParameters,
    last_loss: f64,
}

impl Wrmf {
    /// Starts from small vectors.
    ///
    /// # Errors
    /// [`Error::Option`]; [`Error::Value`] for a value below 0; [`Error::Empty`] where none is above
    /// 0; [`Error::Isa`].
    pub fn new(interactions: Interactions, config: WrmfConfig, seed: u64) -> Result<Self, Error> {
        config.check()?;
        let interactions = seen(interactions)?;
        let (dim, std) = (config.embedding_dim, config.init_std);
        Ok(Self {
            parameters: ImplicitParameters::init(&interactions, dim, std, false, seed),
            isa: Isa::detect()?,
            sweeps: 0,
            last_loss: f64::NAN,
            interactions,
            config,
        })
    }

    /// The parameters after the last sweep.
    pub fn parameters(&self) -> &ImplicitParameters {
        &self.parameters
    }

    /// `Σ c (p − x·y)²` over all users and items, by the number of pairs that were seen, of the
    /// parameters before the last sweep, which computed it on its way; NaN before the first.
    pub fn last_loss(&self) -> f64 {
        self.last_loss
    }

    /// Sweeps done.
    pub fn sweeps(&self) -> u64 {
        self.sweeps
    }

    /// Goes on from the parameters that a run had after that many sweeps.
    ///
    /// # Errors
    /// [`Error::Parameters`] and [`Error::NonFinite`]; nothing is changed then.
    pub fn resume(&mut self, parameters: ImplicitParameters, sweeps: u64) -> Result<(), Error> {
        parameters.check_like(&self.parameters)?;
        self.parameters = parameters;
        self.sweeps = sweeps;
        Ok(())
    }

    /// Updates the vectors of all users, then those of all items.
    ///
    /// # Errors
    /// [`Error::NonFinite`] and [`Error::Singular`]; the parameters before stand.
    pub fn iterate(&mut self) -> Result<(), Error> {
        let ImplicitParameters { users, items, .. } = &self.parameters;
        let (mut users, mut items) = (users.clone(), items.clone());
        let of = |vectors: &[f32], what, rows| {
            FoldIn::of(vectors, what, rows, self.config.clone(), self.isa)
        };
        let (by_user, by_item) = (self.interactions.by_user(), self.interactions.by_item());
        let loss = of(&items, "user", by_user.rows()).update(by_user, &mut users)?;
        of(&users, "item", by_item.rows()).update(by_item, &mut items)?;
        self.parameters.users = users;
        self.parameters.items = items;
        self.sweeps += 1;
        self.last_loss = loss / self.interactions.len() as f64;
        Ok(())
    }
}

/// Finds the vectors of new users, all else as it is, or of new items.
///
/// They are the exact solution of the equations of a row, which a sweep that is near the end does
/// not move much. A user who has got another item is a new one with all of his items.
///
/// ```
/// use crossfield_mf::{Duplicates, FoldIn, Interactions, Wrmf, WrmfConfig};
///
/// let plays = [(0, 0, 9.0), (1, 0, 3.0), (1, 1, 4.0), (2, 2, 1.0), (2, 3, 5.0), (3, 2, 2.0)];
/// let plays = Interactions::new(4, 4, plays, Duplicates::Sum)?;
/// let config = WrmfConfig { embedding_dim: 2, l2: 0.1, ..WrmfConfig::default() };
/// let mut wrmf = Wrmf::new(plays, config.clone(), 1)?;
/// for _ in 0..15 {
///     wrmf.iterate()?;
/// }
/// let parameters = wrmf.parameters();
/// let new = FoldIn::users(parameters, config)?.fold_in(&[(3, 2.0)])?;
/// let score = |item| new.iter().zip(parameters.item(item)).map(|(x, y)| x * y).sum::<f32>();
/// assert!(score(2) > 0.4 && score(0).abs() < 0.1);
/// # Ok::<(), crossfield_mf::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FoldIn {
    /// The vectors that stay as they are.
    fixed: Rows,
    /// The sum of `y yᵀ` over them, as equations and as a whole matrix.
    gram: System,
    product: Rows,
    /// Whose vectors are looked for, and how many the parameters have.
    what: &'static str,
    rows: usize,
    config: WrmfConfig,
    isa: Isa,
}

impl FoldIn {
    /// For users, given the items.
    ///
    /// # Errors
    /// [`Error::Option`]; [`Error::Parameters`] for vectors of another length than the
    /// configuration's; [`Error::NonFinite`]; [`Error::Isa`].
    pub fn users(parameters: &ImplicitParameters, config: WrmfConfig) -> Result<Self, Error> {
        let rows = Self::check(parameters, &config)?.0;
        let vectors = &parameters.items;
        Ok(Self::of(vectors, "user", rows, config, Isa::detect()?))
    }

    /// For items, given the users.
    ///
    /// # Errors
    /// As [`users`](Self::users).
    pub fn items(parameters: &ImplicitParameters, config: WrmfConfig) -> Result<Self, Error> {
        let rows = Self::check(parameters, &config)?.1;
        let vectors = &parameters.users;
        Ok(Self::of(vectors, "item", rows, config, Isa::detect()?))
    }

    /// The number of users and of items.
    fn check(
        parameters: &ImplicitParameters,
        config: &WrmfConfig,
    ) -> Result<(usize, usize), Error> {
        config.check()?;
        let dim = config.embedding_dim;
        let (users, items) = (parameters.users.len(), parameters.items.len());
        if parameters.embedding_dim != dim || users % dim != 0 || items % dim != 0 {
            return Err(Error::Parameters {
                got: users + items,
                expected: (users + items) / parameters.embedding_dim.max(1) * dim,
            });
        }
        parameters.check_finite()?;
        Ok((users / dim, items / dim))
    }

    fn of(vectors: &[f32], what: &'static str, rows: usize, config: WrmfConfig, isa: Isa) -> Self {
        let fixed = Rows::of(vectors, config.embedding_dim);
        let gram = gram(&fixed, config.embedding_dim, isa);
        Self {
            product: gram.symmetric(),
            fixed,
            gram,
            what,
            rows,
            config,
            isa,
        }
    }

    /// The vector of a row with these indices (items of a user, users of an item) and values, which
    /// add up where an index is named more than once. Nothing above 0 gives a zero vector.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`]; [`Error::Value`] for one that is not finite or below 0;
    /// [`Error::NonFinite`] and [`Error::Singular`].
    pub fn fold_in(&self, pairs: &[(u32, f32)]) -> Result<Vec<f32>, Error> {
        let other = if self.what == "user" { "item" } else { "user" };
        let indices: Vec<u32> = pairs.iter().map(|pair| pair.0).collect();
        check_indices(other, &indices, self.fixed.count())?;
        let good = |value: f32| value.is_finite() && value >= 0.0;
        if let Some(row) = pairs.iter().position(|pair| !good(pair.1)) {
            return Err(Error::Value {
                row,
                value: pairs[row].1,
                expected: "a finite number of at least 0",
            });
        }
        let mut pairs = pairs.to_vec();
        pairs.retain(|pair| pair.1 > 0.0);
        pairs.sort_by_key(|pair| pair.0);
        pairs.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
        let (indices, values): (Vec<u32>, Vec<f32>) = pairs.into_iter().unzip();
        let mut scratch = Scratch::new(self);
        let mut vector = vec![0.0; self.config.embedding_dim];
        scratch.weigh(&values, &self.config);
        self.solve(&indices, self.rows, &mut vector, &mut scratch)?;
        if vector.iter().all(|value| value.is_finite()) {
            return Ok(vector);
        }
        Err(Error::NonFinite {
            what: self.what,
            index: self.rows,
        })
    }

    /// Updates every row; gives `Σ c (p − x·y)²` before.
    fn update(&self, lists: &Csr, vectors: &mut [f32]) -> Result<f64, Error> {
        let dim = self.config.embedding_dim;
        let blocks = vectors.par_chunks_mut(BLOCK * dim).enumerate();
        let losses: Vec<Result<f64, Error>> = blocks
            .map_init(
                || Scratch::new(self),
                |scratch, (block, vectors)| {
                    let mut loss = 0.0;
                    for (at, vector) in vectors.chunks_exact_mut(dim).enumerate() {
                        let row = block * BLOCK + at;
                        loss += self.update_row(lists, row, vector, scratch)?;
                    }
                    Ok(loss)
                },
            )
            .collect();
        losses.into_iter().sum()
    }

    fn update_row(
        &self,
        lists: &Csr,
        row: usize,
        vector: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<f64, Error> {
        let (indices, values) = lists.row(row);
        scratch.weigh(values, &self.config);
        let steps = match self.config.solver {
            InnerSolver::ConjugateGradient { steps } if !indices.is_empty() => steps,
            _ => 0,
        };
        let l2 = scratch.l2(&self.config, self.fixed.count());
        let (x, rest) = scratch
            .vectors
            .values_mut()
            .split_at_mut(self.fixed.stride());
        x[..vector.len()].copy_from_slice(vector);
        let loss = self.isa.run(Conjugate {
            fixed: self.fixed.values(),
            gram: self.product.values(),
            size: self.product.count(),
            stride: self.fixed.stride(),
            indices,
            weights: &scratch.weights,
            l2,
            steps,
            x: &mut *x,
            rest,
        });
        if steps > 0 {
            vector.copy_from_slice(&x[..vector.len()]);
        } else {
            self.solve(indices, row, vector, scratch)?;
        }
        if vector.iter().all(|value| value.is_finite()) {
            return Ok(loss);
        }
        let what = self.what;
        Err(Error::NonFinite { what, index: row })
    }

    /// Solves the equations of a row whose weights are in `scratch`.
    fn solve(
        &self,
        indices: &[u32],
        row: usize,
        vector: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        if indices.is_empty() {
            vector.fill(0.0);
            return Ok(());
        }
        let l2 = scratch.l2(&self.config, self.fixed.count());
        let Scratch {
            weights,
            targets,
            system,
            ..
        } = scratch;
        system.start(&self.gram, 1.0);
        for at in 0..vector.len() {
            system.add_element(at, at, l2);
        }
        targets.clear();
        targets.extend(weights.iter().map(|weight| 1.0 + weight));
        system.add(&self.fixed, indices, weights, targets);
        let what = self.what;
        let singular = |_| Error::Singular { what, index: row };
        system.factor().map_err(singular)?;
        system.forward();
        system.backward();
        vector.copy_from_slice(system.right());
        Ok(())
    }
}

/// The sum of `y yᵀ` over rows, in parts that do not depend on the number of threads.
fn gram(rows: &Rows, size: usize, isa: Isa) -> System {
    let count = rows.count();
    let part = count.div_ceil(GRAM_PARTS).max(GRAM_ROWS);
    let parts: Vec<System> = (0..count.div_ceil(part))
        .into_par_iter()
        .map(|nth| {
            let mut system = System::new(size, isa);
            let indices: Vec<u32> = (nth * part..count.min((nth + 1) * part))
                .map(|row| row as u32)
                .collect();
            let (ones, zeros) = (vec![1.0; indices.len()], vec![0.0; indices.len()]);
            system.add(rows, &indices, &ones, &zeros);
            system
        })
        .collect();
    let mut sum = System::new(size, isa);
    for part in &parts {
        sum.add_system(part);
    }
    sum
}

/// What solving a row needs of memory.
struct Scratch {
    /// `α r` of each pair of a row.
    weights: Vec<f32>,
    targets: Vec<f32>,
    system: System,
    /// The vector, its residual, a direction, and the matrix times that.
    vectors: Rows,
}

impl Scratch {
    fn new(fold_in: &FoldIn) -> Self {
        let dim = fold_in.config.embedding_dim;
        Self {
            weights: Vec::new(),
            targets: Vec::new(),
            system: System::new(dim, fold_in.isa),
            vectors: Rows::new(4, dim),
        }
    }

    fn weigh(&mut self, values: &[f32], config: &WrmfConfig) {
        let alpha = config.alpha as f32;
        self.weights.clear();
        self.weights
            .extend(values.iter().map(|value| alpha * value));
    }

    /// λ of a row, given the weights of its pairs.
    fn l2(&self, config: &WrmfConfig, others: usize) -> f32 {
        if config.l2_power == 0.0 {
            return config.l2 as f32;
        }
        let seen: f64 = self.weights.iter().map(|&weight| f64::from(weight)).sum();
        (config.l2 * (others as f64 + seen).powf(config.l2_power)) as f32
    }
}

/// Steps of the conjugate gradient method on the equations of a row; gives
/// `Σ c (p − x·y)²` before them.
struct Conjugate<'a> {
    /// The vectors y, `stride` floats each.
    fixed: &'a [f32],
    /// `YᵀY`, `[size, stride]`.
    gram: &'a [f32],
    size: usize,
    stride: usize,
    indices: &'a [u32],
    /// `α r` of each index.
    weights: &'a [f32],
    l2: f32,
    steps: usize,
    /// Where to begin, and where the result goes.
    x: &'a mut [f32],
    /// Three vectors more.
    rest: &'a mut [f32],
}

impl Kernel for Conjugate<'_> {
    type Output = f64;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f64 {
        let width = self.stride;
        let equations = Equations {
            fixed: self.fixed,
            gram: self.gram,
            size: self.size,
            width,
            indices: self.indices,
            weights: self.weights,
        };
        let (x, r) = (self.x.as_mut_ptr(), self.rest.as_mut_ptr());
        // SAFETY: `rest` holds three vectors of `stride` floats; `x` one, as all rows are; strides
        // are whole vectors of every set; `FoldIn` has seen that indices are those of rows.
        unsafe {
            let (p, product) = (r.add(width), r.add(2 * width));
            let minus_l2 = L::splat(-self.l2);
            equations.gram_times::<L>(x, product);
            let all = dot::<L>(x, product, width);
            for at in (0..width).step_by(L::N) {
                let residual = L::load(x.add(at)).mul(minus_l2);
                residual.sub(L::load(product.add(at))).store(r.add(at));
            }
            let seen = equations.add_pairs::<L, true>(x, r);
            let mut square = 0.0;
            if self.steps > 0 {
                std::ptr::copy_nonoverlapping(r, p, width);
                square = dot::<L>(r, r, width);
            }
            for _ in 0..self.steps {
                // Written so that NaN goes on, and is found.
                if square <= f32::MIN_POSITIVE {
                    break;
                }
                equations.gram_times::<L>(p, product);
                equations.add_pairs::<L, false>(p, product);
                let curvature = dot::<L>(p, product, width) + self.l2 * dot::<L>(p, p, width);
                let rate = square / curvature;
                let up = L::splat(rate);
                let mut squares = L::splat(0.0);
                for at in (0..width).step_by(L::N) {
                    let direction = L::load(p.add(at));
                    direction.mul_add(up, L::load(x.add(at))).store(x.add(at));
                    let whole = direction.neg_mul_add(minus_l2, L::load(product.add(at)));
                    let residual = whole.neg_mul_add(up, L::load(r.add(at)));
                    residual.store(r.add(at));
                    squares = residual.mul_add(residual, squares);
                }
                let before = std::mem::replace(&mut square, squares.sum());
                let kept = L::splat(square / before);
                for at in (0..width).step_by(L::N) {
                    let direction = L::load(p.add(at)).mul_add(kept, L::load(r.add(at)));
                    direction.store(p.add(at));
                }
            }
            f64::from(all) + f64::from(seen)
        }
    }
}

/// The equations of a row, without its penalty.
struct Equations<'a> {
    fixed: &'a [f32],
    gram: &'a [f32],
    size: usize,
    width: usize,
    indices: &'a [u32],
    weights: &'a [f32],
}

impl Equations<'_> {
    /// `out = YᵀY v`.
    ///
    /// # Safety
    /// The machine has the set of `L`; both pointers reach over `width` floats.
    #[inline(always)]
    unsafe fn gram_times<L: Lanes>(&self, v: *const f32, out: *mut f32) {
        let mut column = 0;
        // SAFETY: the caller vouches for it; a part lies inside a row of the matrix.
        unsafe {
            while column < self.width {
                column += match (self.width - column) / L::N {
                    1 => self.gram_part::<L, 1>(column, v, out),
                    2 | 3 => self.gram_part::<L, 2>(column, v, out),
                    _ => self.gram_part::<L, 4>(column, v, out),
                };
            }
        }
    }

    /// # Safety
    /// As `gram_times`, and there are `V` vectors from `column` on.
    #[inline(always)]
    unsafe fn gram_part<L: Lanes, const V: usize>(
        &self,
        column: usize,
        v: *const f32,
        out: *mut f32,
    ) -> usize {
        // SAFETY: the caller vouches for it.
        unsafe {
            let mut sums = [L::splat(0.0); V];
            for row in 0..self.size {
                let from = self.gram.as_ptr().add(row * self.width + column);
                let factor = L::splat(*v.add(row));
                for at in 0..V {
                    sums[at] = L::load(from.add(at * L::N)).mul_add(factor, sums[at]);
                }
            }
            for at in 0..V {
                sums[at].store(out.add(column + at * L::N));
            }
        }
        V * L::N
    }

    /// Adds `Σ w (v·y) y` to `out`; `FIRST`: `Σ (1 + w − w (v·y)) y`, and gives
    /// `Σ (1 + w) (1 − v·y)² − (v·y)²`.
    ///
    /// # Safety
    /// The machine has the set of `L`; indices name rows; both pointers reach over `width` floats.
    #[inline(always)]
    unsafe fn add_pairs<L: Lanes, const FIRST: bool>(&self, v: *const f32, out: *mut f32) -> f32 {
        let fours = self.indices.len() / 4 * 4;
        let mut loss = 0.0;
        // SAFETY: the caller vouches for it.
        unsafe {
            for start in (0..fours).step_by(4) {
                loss += self.add_some::<L, FIRST, 4>(start, v, out);
            }
            for start in fours..self.indices.len() {
                loss += self.add_some::<L, FIRST, 1>(start, v, out);
            }
        }
        loss
    }

    /// # Safety
    /// As `add_pairs`, and there are `P` pairs from `start` on.
    #[inline(always)]
    unsafe fn add_some<L: Lanes, const FIRST: bool, const P: usize>(
        &self,
        start: usize,
        v: *const f32,
        out: *mut f32,
    ) -> f32 {
        let mut loss = 0.0;
        // SAFETY: the caller vouches for it.
        unsafe {
            let mut rows = [self.fixed.as_ptr(); P];
            for pair in 0..P {
                let index = *self.indices.get_unchecked(start + pair) as usize;
                rows[pair] = rows[pair].add(index * self.width);
            }
            let mut dots = [L::splat(0.0); P];
            for at in (0..self.width).step_by(L::N) {
                let v = L::load(v.add(at));
                for pair in 0..P {
                    dots[pair] = L::load(rows[pair].add(at)).mul_add(v, dots[pair]);
                }
            }
            let mut factors = [L::splat(0.0); P];
            for pair in 0..P {
                let weight = *self.weights.get_unchecked(start + pair);
                let score = dots[pair].sum();
                factors[pair] = if FIRST {
                    let missing = 1.0 - score;
                    loss += (1.0 + weight) * missing * missing - score * score;
                    L::splat(1.0 + weight * missing)
                } else {
                    L::splat(weight * score)
                };
            }
            for at in (0..self.width).step_by(L::N) {
                let mut sum = L::load(out.add(at));
                for pair in 0..P {
                    sum = L::load(rows[pair].add(at)).mul_add(factors[pair], sum);
                }
                sum.store(out.add(at));
            }
        }
        loss
    }
}

/// # Safety
/// The machine has the set of `L`; both pointers reach over `width` floats, whole vectors.
#[inline(always)]
unsafe fn dot<L: Lanes>(a: *const f32, b: *const f32, width: usize) -> f32 {
    // SAFETY: the caller vouches for it.
    unsafe {
        let mut sum = L::splat(0.0);
        for at in (0..width).step_by(L::N) {
            sum = L::load(a.add(at)).mul_add(L::load(b.add(at)), sum);
        }
        sum.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Duplicates;
    use crate::implicit::dot;

    /// Plays that depend on where they stand: 12 users, 9 items, of which item 8 and user 11 have
    /// none, and user 10 has one.
    fn plays() -> Interactions {
        let all = (0..10u32).flat_map(|user| (0..8u32).map(move |item| (user, item)));
        let some = all.filter(|(user, item)| (user * 5 + item * 3 + user * item) % 7 < 3);
        let pairs = some.map(|(user, item)| (user, item, 1.0 + (user + item) as f32 % 4.0));
        let pairs = pairs.chain([(10, 2, 1.0)]);
        Interactions::new(12, 9, pairs, Duplicates::Sum).unwrap()
    }

    fn config(embedding_dim: usize, solver: InnerSolver) -> WrmfConfig {
        WrmfConfig {
            embedding_dim,
            alpha: 0.5,
            l2: 0.3,
            solver,
            ..WrmfConfig::default()
        }
    }

    fn value(plays: &Interactions, user: usize, item: usize) -> f64 {
        let (items, values) = plays.by_user().row(user);
        let at = items.iter().position(|&other| other as usize == item);
        at.map_or(0.0, |at| f64::from(values[at]))
    }

    /// `Σ c (p − x·y)²` and the penalty, by a double loop.
    fn objective(
        plays: &Interactions,
        config: &WrmfConfig,
        parameters: &ImplicitParameters,
    ) -> (f64, f64) {
        let (mut loss, mut penalty) = (0.0, 0.0);
        let mut users = vec![0.0; plays.users()];
        let mut items = vec![0.0; plays.items()];
        for user in 0..plays.users() {
            for item in 0..plays.items() {
                let r = value(plays, user, item);
                let confidence = 1.0 + config.alpha * r;
                let seen = if r > 0.0 { 1.0 } else { 0.0 };
                loss += confidence * (seen - parameters.score(user, item)).powi(2);
                users[user] += confidence;
                items[item] += confidence;
            }
        }
        let l2 = |confidence: f64| config.l2 * confidence.powf(config.l2_power);
        for (user, &confidence) in users.iter().enumerate() {
            let x = parameters.user(user);
            penalty += l2(confidence) * dot(x, x);
        }
        for (item, &confidence) in items.iter().enumerate() {
            let y = parameters.item(item);
            penalty += l2(confidence) * dot(y, y);
        }
        (loss, penalty)
    }

    const SOLVERS: [InnerSolver; 2] = [
        InnerSolver::Cholesky,
        InnerSolver::ConjugateGradient { steps: 3 },
    ];

    #[test]
    fn a_sweep_gives_the_loss_before_it_and_never_raises_the_objective() {
        let plays = plays();
        for solver in SOLVERS {
            for l2_power in [0.0, 0.5] {
                let config = WrmfConfig {
                    l2_power,
                    ..config(20, solver)
                };
                let mut wrmf = Wrmf::new(plays.clone(), config.clone(), 1).unwrap();
                let mut before = objective(&plays, &config, wrmf.parameters());
                for _ in 0..6 {
                    wrmf.iterate().unwrap();
                    let reported = wrmf.last_loss() * plays.len() as f64;
                    assert!((reported - before.0).abs() < 1e-4 * before.0, "{solver:?}");
                    let after = objective(&plays, &config, wrmf.parameters());
                    assert!(after.0 + after.1 <= (before.0 + before.1) * (1.0 + 1e-6));
                    before = after;
                }
                assert!(before.0 < 0.5 * plays.len() as f64);
            }
        }
    }

    #[test]
    fn steps_of_the_conjugate_gradient_method_lead_to_the_solution_on_every_instruction_set() {
        let plays = plays();
        let config = config(17, InnerSolver::ConjugateGradient { steps: 60 });
        let fitted = Wrmf::new(plays.clone(), config.clone(), 1).unwrap();
        let parameters = fitted.parameters();
        // The start is small; vectors of a size that matters.
        let items: Vec<f32> = parameters.items.iter().map(|y| 60.0 * y).collect();
        for isa in Isa::available() {
            let users = FoldIn::of(&items, "user", 12, config.clone(), isa);
            let mut vectors = parameters.users.clone();
            users.update(plays.by_user(), &mut vectors).unwrap();
            for (user, vector) in vectors.chunks_exact(17).enumerate() {
                let (indices, values) = plays.by_user().row(user);
                let pairs: Vec<(u32, f32)> = indices
                    .iter()
                    .copied()
                    .zip(values.iter().copied())
                    .collect();
                let exact = users.fold_in(&pairs).unwrap();
                for (got, want) in vector.iter().zip(&exact) {
                    assert!((got - want).abs() < 1e-4, "{isa:?} user {user}");
                }
            }
        }
    }

    #[test]
    fn one_user_and_one_item_are_solved_as_by_hand() {
        // (y² + λ + α r y²) x = (1 + α r) y with y = 2, λ = 1, α = 0.5, r = 4: x = 6 / 13.
        let parameters = ImplicitParameters {
            embedding_dim: 1,
            users: vec![0.0],
            items: vec![2.0],
            item_bias: Vec::new(),
        };
        let config = WrmfConfig {
            l2: 1.0,
            ..config(1, InnerSolver::Cholesky)
        };
        let users = FoldIn::users(&parameters, config).unwrap();
        let x = users.fold_in(&[(0, 1.0), (0, 3.0)]).unwrap();
        assert!((x[0] - 6.0 / 13.0).abs() < 1e-6);
        assert_eq!(users.fold_in(&[(0, 0.0)]).unwrap(), [0.0]);
        assert_eq!(users.fold_in(&[]).unwrap(), [0.0]);
    }

    #[test]
    fn folding_in_gives_the_rows_of_a_sweep() {
        let plays = plays();
        let pairs = |lists: &Csr, row: usize| -> Vec<(u32, f32)> {
            let (indices, values) = lists.row(row);
            indices
                .iter()
                .copied()
                .zip(values.iter().copied())
                .collect()
        };
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        let config = config(6, InnerSolver::Cholesky);
        let mut wrmf = Wrmf::new(plays.clone(), config.clone(), 1).unwrap();
        for _ in 0..5 {
            wrmf.iterate().unwrap();
        }
        let before = wrmf.parameters().clone();
        wrmf.iterate().unwrap();
        let after = wrmf.parameters();
        let users = FoldIn::users(&before, config.clone()).unwrap();
        for user in 0..plays.users() {
            let row = users.fold_in(&pairs(plays.by_user(), user)).unwrap();
            assert!(near(&row, after.user(user)), "user {user}");
        }
        let items = FoldIn::items(after, config).unwrap();
        for item in 0..plays.items() {
            let row = items.fold_in(&pairs(plays.by_item(), item)).unwrap();
            assert!(near(&row, after.item(item)), "item {item}");
        }
    }

    #[test]
    fn what_nobody_has_and_who_has_nothing_are_zero() {
        for solver in SOLVERS {
            // k is larger than the data.
            let mut wrmf = Wrmf::new(plays(), config(40, solver), 1).unwrap();
            wrmf.iterate().unwrap();
            assert_eq!(wrmf.parameters().user(11), [0.0; 40]);
            assert_eq!(wrmf.parameters().item(8), [0.0; 40]);
            assert!(wrmf.parameters().user(10).iter().any(|&x| x != 0.0));
        }
    }

    #[test]
    fn a_run_goes_on_from_its_parameters_to_the_bit_at_any_number_of_threads() {
        // More rows than a block.
        let pairs = (0..100u32).flat_map(|user| {
            (0..6u32).map(move |nth| (user, (user * 7 + nth * nth * 5) % 80, 1.0))
        });
        let plays = Interactions::new(100, 80, pairs, Duplicates::Sum).unwrap();
        for solver in SOLVERS {
            let new = || Wrmf::new(plays.clone(), config(9, solver), 3).unwrap();
            let threads = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                pool.unwrap()
            };
            let mut whole = new();
            threads(1).install(|| whole.iterate().unwrap());
            let mut resumed = new();
            resumed.resume(whole.parameters().clone(), 1).unwrap();
            threads(1).install(|| whole.iterate().unwrap());
            threads(3).install(|| resumed.iterate().unwrap());
            assert_eq!(whole.parameters(), resumed.parameters());
            assert_eq!(whole.last_loss(), resumed.last_loss());
        }
    }

    #[test]
    fn pairs_of_value_zero_change_nothing_and_negative_ones_are_refused() {
        let fit = |pairs: &[(u32, u32, f32)]| {
            let plays = Interactions::new(2, 3, pairs.iter().copied(), Duplicates::Keep)?;
            let mut wrmf = Wrmf::new(plays, config(2, InnerSolver::Cholesky), 1)?;
            wrmf.iterate()?;
            Ok::<_, Error>(wrmf.parameters().clone())
        };
        let plain = fit(&[(0, 0, 3.0), (1, 1, 1.0)]).unwrap();
        let same = fit(&[(0, 0, 1.0), (0, 2, 0.0), (1, 1, 1.0), (0, 0, 2.0)]).unwrap();
        assert_eq!(plain, same);
        let refused = fit(&[(0, 0, 3.0), (1, 1, -1.0)]).unwrap_err().to_string();
        assert_eq!(refused, "interaction 1: value -1, expected at least 0");
    }

    #[test]
    fn rows_that_cannot_be_folded_in_are_refused() {
        let wrmf = Wrmf::new(plays(), config(3, InnerSolver::Cholesky), 1).unwrap();
        let users = FoldIn::users(wrmf.parameters(), wrmf.config.clone()).unwrap();
        let refused = |pair| users.fold_in(&[(0, 1.0), pair]).unwrap_err().to_string();
        assert_eq!(refused((9, 1.0)), "interaction 1: item 9 of 9");
        let expected = "interaction 1: value -2, expected a finite number of at least 0";
        assert_eq!(refused((1, -2.0)), expected);
        let other = config(4, InnerSolver::Cholesky);
        let error = FoldIn::users(wrmf.parameters(), other).unwrap_err();
        assert_eq!(
            error,
            Error::Parameters {
                got: 63,
                expected: 84
            }
        );
    }

    #[test]
    fn options_out_of_their_range_are_refused() {
        let refused = |config| Wrmf::new(plays(), config, 1).unwrap_err().to_string();
        let l2 = WrmfConfig {
            l2: 0.0,
            ..WrmfConfig::default()
        };
        assert_eq!(refused(l2), "l2 is 0: expected a number above 0");
        let alpha = WrmfConfig {
            alpha: f64::NAN,
            ..WrmfConfig::default()
        };
        assert_eq!(
            refused(alpha),
            "alpha is NaN: expected a number of at least 0"
        );
        let steps = config(2, InnerSolver::ConjugateGradient { steps: 0 });
        assert_eq!(refused(steps), "steps is 0: expected at least 1");
    }
}
