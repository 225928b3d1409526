//! Factorization machines fitted one feature at a time: by alternating least squares, or by
//! drawing from the posterior.
//!
//! ```text
//! z = w0 + Σ_i w_i x_i + Σ_{i<j} ⟨v_i, v_j⟩ x_i x_j
//! ```
//!
//! is linear in the parameters θ = (w_i, v_i) of a single feature: `z = g + h·θ`, where
//! `∂z/∂w_i = x_i` and `∂z/∂v_i = x_i (q − x_i v_i)` with `q = Σ_j v_j x_j`. Under a squared loss
//! with noise of precision α, and a prior of mean μ and precisions Λ (a diagonal), θ given all
//! other parameters is normal:
//!
//! ```text
//! precision  P = Λ + α Σ h hᵀ              sums over the rows that have the feature
//! mean       m = P⁻¹ (Λ μ + α Σ h (y − g))
//! ```
//!
//! - **ALS** sets θ to m (α = 1, μ = 0, Λ given): an exact block coordinate descent of
//!   `½ Σ (z − y)² + ½ λ θ²`.
//! - **MCMC** draws θ from that normal (Gibbs sampling), and draws α and, for each group of
//!   features and each factor, μ and λ as well, so that there is nothing to tune. The prediction
//!   is the mean of the predictions of the draws, the first ones left out: of 100, some 20 are
//!   still on their way from the start.
//! - **Clicks** are the signs of unseen targets `t ~ N(z, 1)`, so that `P(click) = Φ(z)`. MCMC
//!   draws the targets, α being 1 (Albert & Chib). ALS takes their means, which is an EM step: no
//!   iteration raises `−Σ ln Φ(±z) + ½ λ θ²`.
//!
//! A vector of more than eight elements is updated eight at a time, `w_i` with each eight.
//!
//! ```
//! use crossfield_core::{Examples, Loss, PredictionLink, PredictionMean};
//! use crossfield_fm::solver::{Columns, FieldColumns, FmSolver, SolverConfig, scores};
//!
//! // Two users, two items; ratings 1 where they match, else 5.
//! let labels = [1.0, 5.0, 5.0, 1.0].repeat(8);
//! let examples = Examples {
//!     rows: 32,
//!     one_hot_fields: &[0, 1],
//!     one_hot: &[0, 0, 0, 1, 1, 0, 1, 1].repeat(8),
//!     lists: vec![],
//!     labels: &labels,
//!     weights: None,
//! };
//! let user = FieldColumns { field: 0, base: 0, rows: 2 };
//! let item = FieldColumns { field: 1, base: 2, rows: 2 };
//! let columns = Columns::new(vec![user, item], vec![0, 0, 1, 1])?;
//! let config = SolverConfig { embedding_dim: 2, ..SolverConfig::default() };
//! let mut solver = FmSolver::new(&examples, &columns, Loss::Squared, config, 1)?;
//! let mut mean = PredictionMean::new(PredictionLink::of(Loss::Squared, &labels), 32);
//! for iteration in 1..=60 {
//!     solver.iterate()?;
//!     if iteration > 20 {
//!         mean.add(&scores(solver.parameters(), &examples, &columns)?);
//!     }
//! }
//! let predictions = mean.predictions();
//! assert!(predictions[0] < 1.5 && predictions[1] > 4.5);
//! # Ok::<(), crossfield_fm::solver::SolverError>(())
//! ```
//!
//! # Source
//! Rendle, Factorization machines with libFM, ACM TIST 2012; Freudenthaler, Schmidt-Thieme,
//! Rendle, Bayesian factorization machines, NIPS workshop 2011; Albert, Chib, Bayesian analysis
//! of binary and polychotomous response data, JASA 1993. The posterior is theirs; the way there
//! differs, for draws that depend less on the ones before: a feature's weight and vector are drawn
//! jointly, not one number after the other; μ and λ too (λ with μ integrated out, then μ), which
//! leaves an iteration without any state but the parameters; and columns that no training row has
//! are left out of them and drawn from the prior afterwards.

mod block;
mod design;
mod error;
mod parameters;
mod probit;
mod tables;

use crossfield_core::rng::{Purpose, rng};
use crossfield_core::{Examples, Loss};
use rand::{Rng, RngExt};
use rand_distr::{Gamma, StandardNormal};
use serde::{Deserialize, Serialize};

pub use design::{Columns, Design, FieldColumns};
pub use error::SolverError;
pub use parameters::{FmParameters, scores};
pub use tables::FmTables;

use block::{Conditional, Sums};
use design::Line;

/// Degrees of freedom of the gamma priors of all precisions: their shape is half of it.
const PRIOR_SHAPE: f64 = 1.0;
/// Twice the rate of these priors.
const PRIOR_RATE: f64 = 1.0;
/// How many columns the prior of a mean counts as; that prior's mean is 0.
const PRIOR_COLUMNS: f64 = 1.0;
/// Rows that share a stream of random numbers.
const BLOCK: usize = 4096;
/// Streams of the rows' blocks begin here; those of the parameters are below.
const ROW_STREAMS: u64 = 1 << 32;

/// How parameters are updated.
///
/// ```
/// use crossfield_fm::solver::Method;
///
/// assert_eq!(Method::default(), Method::Mcmc);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Method {
    /// Each feature's parameters to their minimiser, with fixed precisions λ of the priors.
    Als {
        /// λ of the bias.
        bias_l2: f64,
        /// λ of the linear weights.
        linear_l2: f64,
        /// λ of the vectors.
        factor_l2: f64,
    },
    /// Each feature's parameters drawn from their conditional, precisions and means of the priors too.
    #[default]
    Mcmc,
}

/// Configuration of an [`FmSolver`].
///
/// ```
/// use crossfield_fm::solver::{Method, SolverConfig};
///
/// let config = SolverConfig {
///     method: Method::Als { bias_l2: 0.0, linear_l2: 1.0, factor_l2: 10.0 },
///     ..SolverConfig::default()
/// };
/// assert_eq!(config.embedding_dim, 8);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SolverConfig {
    /// Length k of the vectors; 0: a linear model.
    pub embedding_dim: usize,
    /// Whether there are linear weights.
    pub linear: bool,
    /// Standard deviation of the vectors at the beginning, libFM's; vectors of zero would stay
    /// zero under ALS.
    pub init_std: f64,
    /// How parameters are updated.
    pub method: Method,
}

impl Default for SolverConfig {
    fn default() -> Self {
        Self {
            embedding_dim: 8,
            linear: true,
            init_std: 0.1,
            method: Method::Mcmc,
        }
    }
}

impl SolverConfig {
    fn check(&self) -> Result<(), SolverError> {
        let fail = |option, value, expected| {
            Err(SolverError::OutOfRange {
                option,
                value,
                expected,
            })
        };
        if self.embedding_dim > 1024 {
            return fail("embedding_dim", self.embedding_dim as f64, "0 to 1024");
        }
        if !(self.init_std > 0.0 && self.init_std.is_finite()) {
            return fail("init_std", self.init_std, "a number above 0");
        }
        if let Method::Als {
            bias_l2,
            linear_l2,
            factor_l2,
        } = self.method
        {
            let options = [
                ("bias_l2", bias_l2),
                ("linear_l2", linear_l2),
                ("factor_l2", factor_l2),
            ];
            for (option, value) in options {
                if !(value >= 0.0 && value.is_finite()) {
                    return fail(option, value, "a number of at least 0");
                }
            }
        }
        Ok(())
    }
}

/// The prior of the parameters of one group: normal.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prior {
    /// μ.
    pub mean: f64,
    /// λ, one over the variance.
    pub precision: f64,
}

/// The noise and the priors of the last iteration, for the record: an iteration draws them anew
/// from the parameters.
///
/// ```
/// use crossfield_fm::solver::{Hyper, Prior};
///
/// let prior = Prior { mean: 0.0, precision: 4.0 };
/// let hyper = Hyper { alpha: 1.5, linear: vec![prior], factors: vec![vec![prior]] };
/// assert_eq!(hyper.named()[0], ("alpha".to_owned(), 1.5));
/// assert_eq!(hyper.named()[4], ("v.0.group0.precision".to_owned(), 4.0));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hyper {
    /// α, the precision of the noise.
    pub alpha: f64,
    /// The priors of the linear weights, one a group.
    pub linear: Vec<Prior>,
    /// The priors of each factor, one a group.
    pub factors: Vec<Vec<Prior>>,
}

impl Hyper {
    /// All of them by name: `alpha`, `w.group<g>.mean`, `v.<factor>.group<g>.precision` …
    pub fn named(&self) -> Vec<(String, f64)> {
        let mut named = vec![("alpha".to_owned(), self.alpha)];
        let mut push = |name: String, prior: &Prior| {
            named.push((format!("{name}.mean"), prior.mean));
            named.push((format!("{name}.precision"), prior.precision));
        };
        for (group, prior) in self.linear.iter().enumerate() {
            push(format!("w.group{group}"), prior);
        }
        for (factor, priors) in self.factors.iter().enumerate() {
            for (group, prior) in priors.iter().enumerate() {
                push(format!("v.{factor}.group{group}"), prior);
            }
        }
        named
    }
}

/// Fits a factorization machine, one iteration after the other.
///
/// An iteration depends on the rows, the configuration, the seed, its number and the parameters
/// alone, so that a run that goes on from saved parameters ([`resume`](Self::resume)) does what
/// the undisturbed run would have done, to the bit. Beside the [`Design`] it takes 8 bytes a row
/// and 4 for each factor; time goes with `embedding_dim` (in eights) times the features of all
/// rows.
///
/// The example of the [module](self) fits ratings.
#[derive(Clone, Debug)]
pub struct FmSolver {
    design: Design,
    labels: Vec<f32>,
    loss: Loss,
    config: SolverConfig,
    seed: u64,
    iterations: u64,
    parameters: FmParameters,
    hyper: Hyper,
    last_loss: f64,
    /// `z − y` of each row, or of its augmented target.
    e: Vec<f32>,
    q: Factors,
}

impl FmSolver {
    /// Reads the rows, and starts from the constant predictor with small vectors.
    ///
    /// # Errors
    /// What [`Design::new`] says of the rows; [`SolverError::Labels`], [`SolverError::Label`] for
    /// a rating that is not finite or a click that is not 0 or 1; [`SolverError::SampleWeights`],
    /// [`SolverError::Loss`] and [`SolverError::OutOfRange`].
    pub fn new(
        examples: &Examples,
        columns: &Columns,
        loss: Loss,
        config: SolverConfig,
        seed: u64,
    ) -> Result<Self, SolverError> {
        config.check()?;
        if examples.weights.is_some() {
            return Err(SolverError::SampleWeights);
        }
        let design = Design::new(examples, columns)?;
        if examples.labels.len() != design.rows() {
            return Err(SolverError::Labels {
                rows: design.rows(),
                labels: examples.labels.len(),
            });
        }
        let (good, expected): (fn(f32) -> bool, _) = match loss {
            Loss::Squared => (f32::is_finite, "a finite number"),
            Loss::Probit => (|label| label == 0.0 || label == 1.0, "0 or 1"),
            Loss::Logistic => return Err(SolverError::Loss(loss)),
        };
        if let Some(row) = examples.labels.iter().position(|&label| !good(label)) {
            return Err(SolverError::Label {
                row,
                value: examples.labels[row],
                expected,
            });
        }
        let labels = examples.labels.to_vec();
        let mut parameters = FmParameters::init(
            design.columns(),
            config.embedding_dim,
            config.linear,
            config.init_std,
            seed,
        );
        let mean = labels.iter().map(|&y| f64::from(y)).sum::<f64>() / labels.len() as f64;
        parameters.w0 = loss.link().score(mean) as f32;
        Ok(Self {
            e: vec![0.0; design.rows()],
            q: Factors::new(config.embedding_dim, design.rows()),
            hyper: Hyper::default(),
            last_loss: f64::NAN,
            iterations: 0,
            design,
            labels,
            loss,
            config,
            seed,
            parameters,
        })
    }

    /// The parameters: after an iteration of MCMC, one draw.
    pub fn parameters(&self) -> &FmParameters {
        &self.parameters
    }

    /// The noise and the priors of the last iteration; before the first, none.
    pub fn hyper(&self) -> &Hyper {
        &self.hyper
    }

    /// Iterations done.
    pub fn iterations(&self) -> u64 {
        self.iterations
    }

    /// Goes on from the parameters that a run had after that many iterations.
    ///
    /// # Errors
    /// [`SolverError::Parameters`] and [`SolverError::NotFinite`]; nothing is changed then.
    pub fn resume(&mut self, parameters: FmParameters, iterations: u64) -> Result<(), SolverError> {
        parameters.check(
            self.design.columns(),
            self.config.embedding_dim,
            self.config.linear,
        )?;
        self.parameters = parameters;
        self.iterations = iterations;
        Ok(())
    }

    /// Mean loss on the training rows of the parameters before the last iteration, which computed
    /// it on its way; NaN before the first.
    pub fn last_loss(&self) -> f64 {
        self.last_loss
    }

    /// Mean loss of the parameters on the training rows: `½ (z − y)²`, or `−ln Φ(±z)`.
    pub fn train_loss(&self) -> f64 {
        let mut features = Vec::new();
        let mut sum = 0.0;
        for (row, &y) in self.labels.iter().enumerate() {
            self.design.read(row, &mut features);
            sum += loss_of(self.loss, self.parameters.score(&features), y);
        }
        sum / self.labels.len() as f64
    }

    /// Updates every parameter once.
    ///
    /// # Errors
    /// [`SolverError::Diverged`] if an update is not finite; the parameters before it stand.
    pub fn iterate(&mut self) -> Result<(), SolverError> {
        let before = self.parameters.clone();
        let updated = self.update(self.iterations + 1);
        match updated {
            Ok(()) => self.iterations += 1,
            Err(_) => self.parameters = before,
        }
        updated
    }

    fn update(&mut self, iteration: u64) -> Result<(), SolverError> {
        let stream = |step| rng(self.seed, Purpose::Gibbs, iteration, step);
        let (mut noise, mut columns) = (stream(0), stream(1));
        let squares = self.residuals(iteration);
        self.hyper.alpha = match (self.config.method, self.loss) {
            (Method::Mcmc, Loss::Squared) => gamma(
                PRIOR_SHAPE + self.design.rows() as f64,
                PRIOR_RATE + squares,
                &mut noise,
            ),
            _ => 1.0,
        };
        self.update_bias(iteration, &mut noise)?;
        self.update_priors(&mut noise);
        let mut q = std::mem::replace(&mut self.q, Factors::Four(Vec::new()));
        let updated = match &mut q {
            Factors::Four(q) => self.update_columns(iteration, q, &mut columns),
            Factors::Eight(q) => self.update_columns(iteration, q, &mut columns),
        };
        self.q = q;
        updated
    }

    /// Computes `e` and `q` from the parameters, so that no rounding error lives longer than an
    /// iteration; returns `Σ e²`.
    fn residuals(&mut self, iteration: u64) -> f64 {
        let rows = self.design.rows();
        let mut features = Vec::new();
        let mut squares = 0.0;
        let mut loss = 0.0;
        for block in 0..rows.div_ceil(BLOCK) {
            let mut rng = rng(
                self.seed,
                Purpose::Gibbs,
                iteration,
                ROW_STREAMS + block as u64,
            );
            for row in block * BLOCK..((block + 1) * BLOCK).min(rows) {
                self.design.read(row, &mut features);
                let q = &mut self.q;
                let z = self
                    .parameters
                    .score_with(&features, |factor, sum| q.set(row, factor, sum));
                let e = match (self.loss, self.config.method) {
                    (Loss::Squared, _) => z - f64::from(self.labels[row]),
                    (_, method) => {
                        // By symmetry: the target of a row without a click is minus that of one
                        // with a click and the score −z.
                        let sign = if self.labels[row] > 0.5 { 1.0 } else { -1.0 };
                        let target = match method {
                            Method::Mcmc => probit::draw_positive(sign * z, &mut rng),
                            Method::Als { .. } => probit::mean_positive(sign * z),
                        };
                        z - sign * target
                    }
                };
                self.e[row] = e as f32;
                squares += e * e;
                if self.loss != Loss::Squared {
                    loss += loss_of(self.loss, z, self.labels[row]);
                }
            }
        }
        if self.loss == Loss::Squared {
            loss = 0.5 * squares;
        }
        self.last_loss = loss / rows as f64;
        squares
    }

    fn update_bias(&mut self, iteration: u64, rng: &mut impl Rng) -> Result<(), SolverError> {
        let l2 = match self.config.method {
            Method::Als { bias_l2, .. } => bias_l2,
            Method::Mcmc => 0.0,
        };
        let alpha = self.hyper.alpha;
        let pull: f64 = self.e.iter().map(|&e| f64::from(e)).sum();
        let precision = l2 + alpha * self.e.len() as f64;
        let mut step = -(alpha * pull + l2 * f64::from(self.parameters.w0)) / precision;
        if self.config.method == Method::Mcmc {
            step += normal(rng) / precision.sqrt();
        }
        let new = moved(self.parameters.w0, step, iteration, "w0")?;
        let step = new - self.parameters.w0;
        self.e.iter_mut().for_each(|e| *e += step);
        self.parameters.w0 = new;
        Ok(())
    }

    /// Draws the priors from the parameters, or takes the configured ones.
    fn update_priors(&mut self, rng: &mut impl Rng) {
        let groups = self.design.group_count();
        let k = self.config.embedding_dim;
        let FmParameters { w, v, .. } = &self.parameters;
        match self.config.method {
            Method::Als {
                linear_l2,
                factor_l2,
                ..
            } => {
                let fixed = |precision| Prior {
                    mean: 0.0,
                    precision,
                };
                self.hyper.linear = vec![fixed(linear_l2); if w.is_empty() { 0 } else { groups }];
                self.hyper.factors = vec![vec![fixed(factor_l2); groups]; k];
            }
            Method::Mcmc => {
                self.hyper.linear = match w.is_empty() {
                    true => Vec::new(),
                    false => draw_priors(&self.design, |column| w[column], rng),
                };
                self.hyper.factors = (0..k)
                    .map(|f| draw_priors(&self.design, |column| v[column * k + f], rng))
                    .collect();
            }
        }
    }

    /// Updates the parameters of each column, N elements of its vector and its linear weight at a
    /// time.
    fn update_columns<const N: usize>(
        &mut self,
        iteration: u64,
        q: &mut [Vec<[f32; N]>],
        rng: &mut impl Rng,
    ) -> Result<(), SolverError> {
        let k = self.config.embedding_dim;
        let draws = self.config.method == Method::Mcmc;
        for (part, q) in q.iter_mut().enumerate() {
            let first = part * N;
            let size = N.min(k - first);
            let mut one = |column: usize, line: Line, q: &mut Vec<[f32; N]>| {
                let FmParameters { w, v, .. } = &mut self.parameters;
                let group = self.design.groups()[column] as usize;
                let v = &mut v[column * k + first..][..size];
                let mut old = [0f32; N];
                old[..size].copy_from_slice(v);
                let w = w.get_mut(column);
                let sums = Sums::of(line, &old, &self.e, q);
                let step = Conditional::new(
                    &sums,
                    self.hyper.alpha,
                    size,
                    &old,
                    |f| self.hyper.factors[first + f][group],
                    w.as_deref().map(|&w| (w, self.hyper.linear[group])),
                )
                .step(draws.then_some(&mut *rng));
                let mut moved_by = [0f32; N];
                for f in 0..size {
                    v[f] = moved(old[f], step[f], iteration, "v")?;
                    moved_by[f] = v[f] - old[f];
                }
                let mut moved_w = 0.0;
                if let Some(w) = w {
                    let new = moved(*w, step[size], iteration, "w")?;
                    moved_w = new - *w;
                    *w = new;
                }
                block::apply(line, &old, moved_w, &moved_by, &mut self.e, q);
                Ok(())
            };
            for (column, line) in self.design.lines() {
                one(column, line, q)?;
            }
            for column in (0..self.design.columns()).filter(|&at| !self.design.occurs(at)) {
                one(column, Line::default(), q)?;
            }
        }
        Ok(())
    }
}

/// `Σ_i v_if x_i` of each row, a few factors side by side: `[parts][rows][factors of a part]`.
#[derive(Clone, Debug)]
enum Factors {
    Four(Vec<Vec<[f32; 4]>>),
    Eight(Vec<Vec<[f32; 8]>>),
}

impl Factors {
    fn new(embedding_dim: usize, rows: usize) -> Self {
        // One part at least: it updates the linear weights.
        if embedding_dim <= 4 {
            Self::Four(vec![vec![[0.0; 4]; rows]])
        } else {
            Self::Eight(vec![vec![[0.0; 8]; rows]; embedding_dim.div_ceil(8)])
        }
    }

    #[inline]
    fn set(&mut self, row: usize, factor: usize, sum: f32) {
        match self {
            Self::Four(parts) => parts[0][row][factor] = sum,
            Self::Eight(parts) => parts[factor / 8][row][factor % 8] = sum,
        }
    }
}

/// `½ (z − y)²`, or `−ln Φ(±z)`.
fn loss_of(loss: Loss, z: f64, y: f32) -> f64 {
    match loss {
        Loss::Squared => 0.5 * (z - f64::from(y)).powi(2),
        _ if y > 0.5 => probit::negative_log_normal(z),
        _ => probit::negative_log_normal(-z),
    }
}

/// A parameter after its step.
fn moved(value: f32, step: f64, iteration: u64, what: &'static str) -> Result<f32, SolverError> {
    let new = (f64::from(value) + step) as f32;
    if new.is_finite() {
        Ok(new)
    } else {
        Err(SolverError::Diverged { iteration, what })
    }
}

/// Draws the prior of each group from the values of its columns.
///
/// For n values of mean m: `λ ~ Gamma((1 + n)/2, rate (1 + Σ (θ − m)² + m² n/(n + 1))/2)`, then
/// `μ ~ N(n m/(n + 1), 1/((n + 1) λ))`.
fn draw_priors(design: &Design, value: impl Fn(usize) -> f32, rng: &mut impl Rng) -> Vec<Prior> {
    let mut sums = vec![(0.0f64, 0.0f64, 0.0f64); design.group_count()];
    for (column, &group) in design.groups().iter().enumerate() {
        if design.occurs(column) {
            let value = f64::from(value(column));
            let (count, sum, square) = &mut sums[group as usize];
            *count += 1.0;
            *sum += value;
            *square += value * value;
        }
    }
    sums.into_iter()
        .map(|(count, sum, square)| {
            let columns = count + PRIOR_COLUMNS;
            // Σ (θ − m)² + m² n/(n + 1), without m.
            let spread = (square - sum * sum / columns).max(0.0);
            let precision = gamma(PRIOR_SHAPE + count, PRIOR_RATE + spread, rng);
            let mean = sum / columns + normal(rng) / (columns * precision).sqrt();
            Prior { mean, precision }
        })
        .collect()
}

fn normal(rng: &mut impl Rng) -> f64 {
    rng.sample(StandardNormal)
}

/// A draw from the gamma distribution of shape `twice_shape / 2` and rate `twice_rate / 2`.
fn gamma(twice_shape: f64, twice_rate: f64, rng: &mut impl Rng) -> f64 {
    match Gamma::new(0.5 * twice_shape, 2.0 / twice_rate) {
        Ok(gamma) => rng.sample(gamma),
        // Squares beyond f64: the updates that follow are not finite, and say so.
        Err(_) => f64::NAN,
    }
}

#[cfg(test)]
mod tests;
