//! The `[optimizer]` and `[train]` sections of a run file.

use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::exponential::ExponentialLrSchedulerConfig;
use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::{AdaGradConfig, AdamConfig, AdamWConfig, ModuleOptimizer, SgdConfig};
use burn::tensor::Device;
use bytesize::ByteSize;
use crossfield_core::{Initializer, Link, Loss, TableConfig};
use crossfield_data::{FittedSchema, LabelKind};
use crossfield_embedding::{
    Compress, L2By, Precision, RowOptimizer, RowOptimizerKind, Storage, TablePlan,
};
use crossfield_fused::{Isa, Rule};
use serde::{Deserialize, Serialize};

use crate::Error;

/// `[optimizer]`: how rows and dense weights are updated.
///
/// ```
/// use crossfield_core::{Initializer, TableConfig};
/// use crossfield_embedding::RowOptimizerKind;
/// use crossfield_train::OptimizerConfig;
///
/// let config: OptimizerConfig = toml::from_str(
///     "rows = { kind = 'adagrad', lr = 0.05 }
///      dense = { kind = 'adamw', lr = 0.001 }
///      schedule = { kind = 'cosine', end = 0.1 }
///      table = [{ match = 'wide.*', kind = 'ftrl', l1 = 0.5 }]",
/// )?;
/// let tables = ["v8.ad", "wide.ad"].map(|name| TableConfig {
///     name: name.into(),
///     rows: 10,
///     dim: 1,
///     fields: vec![0],
///     initializer: Initializer::Zeros,
///     oov_row: None,
/// });
/// let plans = config.plan(tables.to_vec())?;
/// assert_eq!(plans[0].optimizer.kind, RowOptimizerKind::Adagrad);
/// assert_eq!(plans[1].optimizer.kind, RowOptimizerKind::Ftrl);
/// // The schedule is a factor on the learning rates: 1 at first.
/// assert_eq!(config.schedule.init(100, 0)?.step(), 1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Optimizer of all tables that no entry of `table` matches.
    pub rows: RowOptimizer,
    /// Optimizer of the dense weights, the bias among them.
    pub dense: DenseOptimizer,
    /// How the learning rates of both go over time.
    pub schedule: Schedule,
    /// Exceptions by table; the first match wins.
    pub table: Vec<TableOptions>,
}

/// `[[optimizer.table]]`: what differs for the tables whose name matches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableOptions {
    /// Name of a table; `*` stands for any characters.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Kind of optimizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<RowOptimizerKind>,
    /// Learning rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// L2 on touched rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2: Option<f64>,
    /// What of its L2 a row pays at a step.
    #[serde(default)]
    pub l2_by: L2By,
    /// L1 of FTRL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l1: Option<f64>,
    /// β of FTRL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// What accumulators begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_accumulator: Option<f64>,
    /// How weights are kept.
    #[serde(default)]
    pub precision: Precision,
    /// Where its rows lie while the run lasts: in memory, or in a file of the run that is mapped into
    /// memory, for tables that memory does not hold. The finished run is the same.
    #[serde(default)]
    pub storage: Storage,
    /// How rows begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initializer: Option<Initializer>,
    /// Whether rows stay as they begin.
    #[serde(default)]
    pub frozen: bool,
    /// Length to which a longer row is scaled back after it was updated; none: rows grow freely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<f64>,
    /// How rows are composed of those of smaller tables, which take the options of this one; none:
    /// a row for each value. Of the executors, `burn` trains such tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<Compress>,
    /// A finished run whose factors the rows of the same keys begin with; none: all begin as the
    /// initialiser says. Keys that it does not know do so anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<String>,
    /// The table of `init_from`; none: its only one of factors of the same vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_table: Option<String>,
}

impl OptimizerConfig {
    /// What each table will be: its optimizer, its initialiser, whether it is frozen.
    ///
    /// # Errors
    /// [`Error::Option`] for an entry that matches no table, or an initialiser that cannot be.
    pub fn plan(&self, tables: Vec<TableConfig>) -> Result<Vec<TablePlan>, Error> {
        for options in &self.table {
            if !tables
                .iter()
                .any(|table| matches(&options.pattern, &table.name))
            {
                let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
                return Err(Error::Option {
                    option: "optimizer.table.match".into(),
                    reason: format!(
                        "`{}` matches no table (tables: {})",
                        options.pattern,
                        names.join(", ")
                    ),
                });
            }
        }
        tables
            .into_iter()
            .map(|mut config| {
                let mut optimizer = self.rows;
                let options = self.options(&config.name);
                if let Some(options) = options {
                    optimizer.kind = options.kind.unwrap_or(optimizer.kind);
                    optimizer.lr = options.lr.unwrap_or(optimizer.lr);
                    optimizer.l2 = options.l2.unwrap_or(optimizer.l2);
                    optimizer.l1 = options.l1.unwrap_or(optimizer.l1);
                    optimizer.beta = options.beta.unwrap_or(optimizer.beta);
                    optimizer.initial_accumulator = options
                        .initial_accumulator
                        .unwrap_or(optimizer.initial_accumulator);
                    config.initializer = options.initializer.unwrap_or(config.initializer);
                }
                check_initializer(&config)?;
                let plan = TablePlan::new(config, optimizer);
                Ok(match options {
                    None => plan,
                    Some(options) => TablePlan {
                        frozen: options.frozen,
                        precision: options.precision,
                        compress: options.compress.clone(),
                        max_norm: options.max_norm.map(|norm| norm as f32),
                        l2_by: options.l2_by,
                        storage: options.storage,
                        ..plan
                    },
                })
            })
            .collect()
    }

    /// As [`plan`](Self::plan), with the counts that rare values are known by.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn plan_for(
        &self,
        tables: Vec<TableConfig>,
        fitted: &FittedSchema,
    ) -> Result<Vec<TablePlan>, Error> {
        let plans = self.plan(tables)?.into_iter().map(|plan| {
            let vocabulary = vocabulary(&plan.config, fitted);
            if let Some(admit) = fitted.admit(vocabulary) {
                let bound = admit.max_rows.map(|_| admit.rows() as usize);
                let growing = Some(bound.unwrap_or(1));
                return TablePlan { growing, ..plan };
            }
            // Only values of texts are counted.
            if fitted.count(vocabulary, 1).is_none() {
                return plan;
            }
            plan.with_counts(|row| fitted.count(vocabulary, row).unwrap_or_default())
        });
        Ok(plans.collect())
    }

    /// The entry that says what differs for a table.
    pub fn options(&self, table: &str) -> Option<&TableOptions> {
        let mut entries = self.table.iter();
        entries.find(|options| matches(&options.pattern, table))
    }
}

/// The vocabulary that a table serves.
///
/// ```
/// use crossfield_core::{Initializer, TableConfig};
/// use crossfield_data::FittedSchema;
///
/// let fitted = FittedSchema::libffm(100, 3)?;
/// let config = TableConfig {
///     name: "v8.index".into(),
///     rows: 101,
///     dim: 8,
///     fields: vec![0],
///     initializer: Initializer::Zeros,
///     oov_row: None,
/// };
/// assert_eq!(crossfield_train::vocabulary(&config, &fitted), "index");
/// # Ok::<(), crossfield_data::Error>(())
/// ```
pub fn vocabulary<'a>(table: &TableConfig, fitted: &'a FittedSchema) -> &'a str {
    let fields = &fitted.schema().fields;
    let field = table.fields.first().map(|&field| &fields[field]);
    field.map_or("", |field| field.vocabulary.as_str())
}

/// Refuses what kernels do not know: they work on whole rows, and do not measure them.
pub(crate) fn refuse_fused(plan: &TablePlan) -> Result<(), Error> {
    let option = match plan {
        TablePlan {
            compress: Some(_), ..
        } => "compress",
        TablePlan {
            max_norm: Some(_), ..
        } => "max_norm",
        TablePlan {
            l2_by: L2By::Occurrence,
            ..
        } => "l2_by",
        _ => return Ok(()),
    };
    Err(Error::Option {
        option: format!("{option} of table `{}`", plan.config.name),
        reason: "is for executor = \"burn\"; the executor is fused".into(),
    })
}

fn check_initializer(table: &TableConfig) -> Result<(), Error> {
    let good = match table.initializer {
        Initializer::Zeros => true,
        Initializer::Normal { std } => std.is_finite() && std >= 0.0,
        Initializer::Uniform { low, high } => low.is_finite() && high.is_finite() && low < high,
    };
    if good {
        return Ok(());
    }
    Err(Error::Option {
        option: format!("initializer of table `{}`", table.name),
        reason: format!(
            "{:?}: expected finite numbers, std ≥ 0, low < high",
            table.initializer
        ),
    })
}

/// Whether `name` matches `pattern`, in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(tail, &rest[at..]))
        }),
    }
}

/// Rule by which dense weights are updated; Burn's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenseOptimizerKind {
    /// Adam.
    #[default]
    Adam,
    /// Adam with decoupled weight decay.
    Adamw,
    /// AdaGrad.
    Adagrad,
    /// Plain gradient descent.
    Sgd,
}

/// `optimizer.dense`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DenseOptimizer {
    /// The rule.
    pub kind: DenseOptimizerKind,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay (L2; decoupled in AdamW).
    pub weight_decay: f64,
    /// Decay of Adam's first moment.
    pub beta1: f64,
    /// Decay of Adam's second moment.
    pub beta2: f64,
    /// ε of Adam and AdaGrad.
    pub eps: f64,
}

impl Default for DenseOptimizer {
    fn default() -> Self {
        Self {
            kind: DenseOptimizerKind::Adam,
            lr: 0.001,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
        }
    }
}

impl DenseOptimizer {
    /// Burn's optimizer.
    pub fn init(&self) -> ModuleOptimizer {
        let [weight_decay, beta1, beta2, eps] =
            [self.weight_decay, self.beta1, self.beta2, self.eps].map(|number| number as f32);
        let decay = (weight_decay > 0.0).then(|| WeightDecayConfig::new(weight_decay));
        match self.kind {
            DenseOptimizerKind::Adam => AdamConfig::new()
                .with_beta_1(beta1)
                .with_beta_2(beta2)
                .with_epsilon(eps)
                .with_weight_decay(decay)
                .init(),
            DenseOptimizerKind::Adamw => AdamWConfig::new()
                .with_beta_1(beta1)
                .with_beta_2(beta2)
                .with_epsilon(eps)
                .with_weight_decay(weight_decay)
                .init(),
            DenseOptimizerKind::Adagrad => AdaGradConfig::new()
                .with_epsilon(eps)
                .with_weight_decay(decay)
                .init(),
            DenseOptimizerKind::Sgd => SgdConfig::new().with_weight_decay(decay).init(),
        }
    }
}

/// Shape of a learning rate over time; Burn's own schedulers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// The same all the time.
    #[default]
    Constant,
    /// A straight line from 1 to `end` over the run.
    Linear,
    /// Half a cosine from 1 to `end` over the run.
    Cosine,
    /// Times `gamma` at each step.
    Exponential,
}

/// `optimizer.schedule`: a factor on all learning rates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// The shape.
    pub kind: ScheduleKind,
    /// Factor at the end of the run (linear, cosine).
    pub end: f64,
    /// Factor from step to step (exponential).
    pub gamma: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Constant,
            end: 0.0,
            gamma: 0.9999,
        }
    }
}

/// The factor on the learning rates, step by step.
pub struct RateSchedule(Factors);

enum Factors {
    Constant,
    /// By hand: the fused executor asks for a factor a row, and Burn's scheduler takes a sixth of the
    /// time of a row of FM.
    Linear {
        step: u64,
        /// `(end − 1) / steps`.
        slope: f64,
        steps: u64,
    },
    Burn(ModuleLrScheduler),
}

impl Schedule {
    /// The factors of a run of `steps` steps, from step `first` (from 0) on.
    ///
    /// # Errors
    /// [`Error::Option`] for numbers that Burn's schedulers refuse.
    pub fn init(&self, steps: u64, first: u64) -> Result<RateSchedule, Error> {
        let refuse = |reason| Error::Option {
            option: "optimizer.schedule".into(),
            reason,
        };
        let iterations = usize::try_from(steps.max(1)).unwrap_or(usize::MAX);
        let scheduler = match self.kind {
            ScheduleKind::Constant => return Ok(RateSchedule(Factors::Constant)),
            ScheduleKind::Linear => {
                // Burn knows which numbers make sense.
                LinearLrSchedulerConfig::new(1.0, self.end, iterations)
                    .init()
                    .map_err(refuse)?;
                return Ok(RateSchedule(Factors::Linear {
                    step: first,
                    slope: (self.end - 1.0) / steps.max(1) as f64,
                    steps: steps.max(1),
                }));
            }
            ScheduleKind::Cosine => CosineAnnealingLrSchedulerConfig::new(1.0, iterations)
                .with_min_lr(self.end)
                .init(),
            ScheduleKind::Exponential => ExponentialLrSchedulerConfig::new(1.0, self.gamma).init(),
        };
        let mut scheduler = scheduler.map_err(refuse)?;
        // The schedulers hold no more than a position: walk there instead of saving it.
        for _ in 0..first {
            scheduler.step();
        }
        Ok(RateSchedule(Factors::Burn(scheduler)))
    }
}

impl RateSchedule {
    /// The factor of the next step.
    pub fn step(&mut self) -> f64 {
        match &mut self.0 {
            Factors::Constant => 1.0,
            Factors::Linear { step, slope, steps } => {
                let done = (*step).min(*steps) as f64;
                *step += 1;
                1.0 + *slope * done
            }
            Factors::Burn(scheduler) => scheduler.step().base(),
        }
    }
}

/// What is minimised.
///
/// ```
/// use crossfield_core::Loss;
/// use crossfield_train::Objective;
///
/// assert_eq!(Objective::Probit.of_rows(), Some(Loss::Probit));
/// assert_eq!(Objective::Bpr.of_rows(), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// [`Loss::Logistic`].
    #[default]
    Logistic,
    /// [`Loss::Probit`].
    Probit,
    /// [`Loss::Squared`].
    Squared,
    /// Bayesian personalised ranking: an item that a user had above one that they had not.
    Bpr,
    /// Weighted regularised matrix factorization: all pairs of user and item, those that occurred
    /// with more weight.
    Wrmf,
    /// The item that came next against all others, or against some that are drawn and stand for all.
    SampledSoftmax,
}

impl From<Loss> for Objective {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Logistic => Objective::Logistic,
            Loss::Probit => Objective::Probit,
            Loss::Squared => Objective::Squared,
        }
    }
}

impl Objective {
    /// The loss of single rows; `None` where rows are not looked at one by one, and what counts is
    /// the order of items.
    pub fn of_rows(self) -> Option<Loss> {
        match self {
            Objective::Logistic => Some(Loss::Logistic),
            Objective::Probit => Some(Loss::Probit),
            Objective::Squared => Some(Loss::Squared),
            Objective::Bpr | Objective::Wrmf | Objective::SampledSoftmax => None,
        }
    }

    /// What it reads as labels: clicks, or numbers.
    pub fn label_kind(self) -> LabelKind {
        if self.link().is_probability() {
            LabelKind::Binary
        } else {
            LabelKind::Number
        }
    }

    /// Its name, as a run file spells it.
    pub fn name(self) -> &'static str {
        match self {
            Objective::Logistic => "logistic",
            Objective::Probit => "probit",
            Objective::Squared => "squared",
            Objective::Bpr => "bpr",
            Objective::Wrmf => "wrmf",
            Objective::SampledSoftmax => "sampled_softmax",
        }
    }

    /// Whether it puts items that are drawn beside one that was taken.
    pub fn draws(self) -> bool {
        matches!(self, Objective::Bpr | Objective::SampledSoftmax)
    }

    /// How its scores become predictions; those that order items stay scores.
    pub fn link(self) -> Link {
        self.of_rows().map_or(Link::Identity, Loss::link)
    }
}

/// Who does the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Executor {
    /// Burn: any component, on any device.
    #[default]
    Burn,
    /// Row by row, by hand-written kernels: linear models, FM, FFM, matrix factorization and their
    /// sums.
    Fused,
    /// Alternating least squares: each feature's parameters to their minimiser; FM or matrix
    /// factorization alone.
    Als,
    /// Draws from the posterior, over which predictions are averaged; FM or matrix factorization
    /// alone.
    Mcmc,
}

impl Executor {
    /// Its name, as a run file spells it.
    pub fn name(self) -> &'static str {
        match self {
            Executor::Burn => "burn",
            Executor::Fused => "fused",
            Executor::Als => "als",
            Executor::Mcmc => "mcmc",
        }
    }

    /// Whether it is a solver: an epoch is one step, a sweep over all parameters.
    pub fn is_solver(self) -> bool {
        matches!(self, Executor::Als | Executor::Mcmc)
    }
}

/// `train.solver`: options of the executors `als` and `mcmc`.
///
/// ```
/// use crossfield_train::{Executor, Objective, SolverOptions};
///
/// let mut options: SolverOptions = toml::from_str("thin = 4")?;
/// options.complete(Executor::Mcmc, Objective::Squared);
/// assert_eq!((options.burn_in, options.thin), (Some(20), Some(4)));
/// // Sweeps 24, 28 … 100.
/// assert_eq!((options.draws(100), options.keeps(24), options.keeps(25)), (20, true, false));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SolverOptions {
    /// MCMC: first sweeps, whose draws are left out; none: 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burn_in: Option<usize>,
    /// MCMC: every so manieth draw after them is kept; none: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thin: Option<usize>,
    /// ALS: λ of the bias; none: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias_l2: Option<f64>,
    /// ALS: λ of the linear weights; none: 1, and of a matrix factorization's biases 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linear_l2: Option<f64>,
    /// ALS: λ of the vectors; none: 10, of a matrix factorization's 12, under WRMF 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor_l2: Option<f64>,
    /// ALS of a matrix factorization: whether both are multiplied by the number of ratings that a
    /// user or an item has; none: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weighted: Option<bool>,
    /// WRMF: α, how much surer a value of 1 is than a pair that did not occur; none: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// WRMF: ν; a user's λ is multiplied by (number of items + Σ α r)^ν, an item's likewise; none:
    /// 0, the same λ for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l2_power: Option<f64>,
    /// WRMF: steps of conjugate gradient for a vector; 0 finds it exactly; none: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conjugate_steps: Option<usize>,
    /// Both: standard deviation of the vectors at the beginning; none: 0.1. The model's `init_std`
    /// is for steps along gradients, from a start so close to zero that sweeps are slow to leave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_std: Option<f64>,
}

impl SolverOptions {
    /// Writes out the defaults of what the executor reads.
    pub fn complete(&mut self, executor: Executor, objective: Objective) {
        fn fill<T>(option: &mut Option<T>, default: T) {
            option.get_or_insert(default);
        }
        let wrmf = objective == Objective::Wrmf;
        if executor.is_solver() {
            fill(&mut self.init_std, if wrmf { 0.01 } else { 0.1 });
        }
        match executor {
            Executor::Burn | Executor::Fused => {}
            Executor::Als if wrmf => {
                fill(&mut self.factor_l2, 1.0);
                fill(&mut self.alpha, 1.0);
                fill(&mut self.l2_power, 0.0);
                fill(&mut self.conjugate_steps, 3);
            }
            Executor::Als => {
                fill(&mut self.bias_l2, 0.0);
                fill(&mut self.linear_l2, 1.0);
                fill(&mut self.factor_l2, 10.0);
            }
            Executor::Mcmc => {
                fill(&mut self.burn_in, 20);
                fill(&mut self.thin, 1);
            }
        }
    }

    /// Whether the draw of a sweep, from 1, is kept.
    pub fn keeps(&self, sweep: usize) -> bool {
        let (burn_in, thin) = self.mcmc();
        sweep > burn_in && (sweep - burn_in).is_multiple_of(thin)
    }

    /// How many draws of so many sweeps are kept.
    pub fn draws(&self, sweeps: usize) -> usize {
        let (burn_in, thin) = self.mcmc();
        sweeps.saturating_sub(burn_in) / thin
    }

    fn mcmc(mut self) -> (usize, usize) {
        self.complete(Executor::Mcmc, Objective::Squared);
        (
            self.burn_in.unwrap_or_default(),
            self.thin.unwrap_or_default().max(1),
        )
    }

    fn check(&self, executor: Executor, objective: Objective, sweeps: usize) -> Result<(), Error> {
        let refuse = |name: &str, reason: String| {
            Err(Error::Option {
                option: format!("train.solver.{name}"),
                reason,
            })
        };
        let given = [
            ("burn_in", self.burn_in.is_some(), Executor::Mcmc),
            ("thin", self.thin.is_some(), Executor::Mcmc),
            ("bias_l2", self.bias_l2.is_some(), Executor::Als),
            ("linear_l2", self.linear_l2.is_some(), Executor::Als),
            ("factor_l2", self.factor_l2.is_some(), Executor::Als),
            ("weighted", self.weighted.is_some(), Executor::Als),
            ("alpha", self.alpha.is_some(), Executor::Als),
            ("l2_power", self.l2_power.is_some(), Executor::Als),
            (
                "conjugate_steps",
                self.conjugate_steps.is_some(),
                Executor::Als,
            ),
        ];
        for (name, is_given, of) in given {
            if is_given && executor != of {
                let (executor, of) = (executor.name(), of.name());
                return refuse(
                    name,
                    format!("is for the executor {of}; the executor is {executor}: leave it out"),
                );
            }
        }
        let wrmf = objective == Objective::Wrmf;
        let given = [
            ("bias_l2", self.bias_l2.is_some(), false),
            ("linear_l2", self.linear_l2.is_some(), false),
            ("weighted", self.weighted.is_some(), false),
            ("alpha", self.alpha.is_some(), true),
            ("l2_power", self.l2_power.is_some(), true),
            ("conjugate_steps", self.conjugate_steps.is_some(), true),
        ];
        for (name, is_given, of_wrmf) in given {
            if is_given && of_wrmf != wrmf {
                let reason = if wrmf {
                    "the loss wrmf has no use for it: leave it out"
                } else {
                    "is for the loss wrmf: leave it out"
                };
                return refuse(name, reason.into());
            }
        }
        if self.init_std.is_some() && !executor.is_solver() {
            let reason = format!(
                "is for the executors als and mcmc; the executor is {}: leave it out",
                executor.name()
            );
            return refuse("init_std", reason);
        }
        if let Some(std) = self.init_std.filter(|std| !(*std > 0.0 && std.is_finite())) {
            return refuse("init_std", format!("is {std}: expected a number above 0"));
        }
        if self.thin == Some(0) {
            return refuse("thin", "is 0: expected 1 or more".into());
        }
        let (burn_in, thin) = self.mcmc();
        if executor == Executor::Mcmc && self.draws(sweeps) == 0 {
            let reason = format!(
                "is {burn_in}: of {sweeps} sweeps (train.epochs), one in {thin}, no draw is left"
            );
            return refuse("burn_in", reason);
        }
        let numbers = [
            ("bias_l2", self.bias_l2),
            ("linear_l2", self.linear_l2),
            ("factor_l2", self.factor_l2),
            ("alpha", self.alpha),
            ("l2_power", self.l2_power),
        ];
        for (name, value) in numbers {
            if let Some(value) = value.filter(|value| !(*value >= 0.0 && value.is_finite())) {
                return refuse(name, format!("is {value}: expected a number of at least 0"));
            }
        }
        Ok(())
    }
}

/// Where tensors are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceConfig {
    /// Burn's own CPU backend.
    #[default]
    Flex,
    /// The `ndarray` CPU backend; needs a build with the feature `ndarray`.
    Ndarray,
}

impl DeviceConfig {
    /// The device, without autodiff.
    ///
    /// # Errors
    /// [`Error::Option`] if this build does not have it.
    pub fn init(self) -> Result<Device, Error> {
        match self {
            DeviceConfig::Flex => Ok(Device::flex()),
            #[cfg(feature = "ndarray")]
            #[expect(deprecated, reason = "kept as the second CPU backend")]
            DeviceConfig::Ndarray => Ok(Device::ndarray()),
            #[cfg(not(feature = "ndarray"))]
            DeviceConfig::Ndarray => Err(Error::Option {
                option: "train.device".into(),
                reason: "`ndarray` needs a build with `--features ndarray`; this one has flex"
                    .into(),
            }),
        }
    }
}

/// `train.early_stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EarlyStop {
    /// Epochs without a better validation figure after which training ends.
    pub patience: usize,
}

impl Default for EarlyStop {
    fn default() -> Self {
        Self { patience: 1 }
    }
}

/// `[train]`.
///
/// ```
/// use crossfield_train::{DeviceConfig, Executor, TrainConfig};
///
/// let config: TrainConfig = toml::from_str("epochs = 9\nearly_stop = { patience = 2 }")?;
/// config.check()?;
/// assert_eq!((config.epochs(), config.batch_size()), (9, 1024));
/// assert_eq!(config.early_stop.map(|stop| stop.patience), Some(2));
/// assert_eq!(config.executor, Executor::Burn);
/// assert!(DeviceConfig::Flex.init().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Who does the steps.
    pub executor: Executor,
    /// What is minimised.
    pub loss: Objective,
    /// Passes over the training rows; those of a solver are sweeps. None: 5, and 100 for a solver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Rows a step; none: 1024, and 1 for the fused executor, which updates after each row. A
    /// solver reads all rows at each step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// Seed of everything random.
    pub seed: u64,
    /// Threads of the tensor operations; 0: as many as the machine has. The fused executor's share
    /// the work on each row, up to four; 0: one. Results do not depend on it.
    pub threads: usize,
    /// Whether the fused executor takes `1/√n` of AdaGrad as the processor estimates it, to 11 bits
    /// or more, without the Newton step that makes them 22.
    pub fast: bool,
    /// Ends training when the validation figure no longer improves, and goes back to the best
    /// epoch; without it all epochs are trained and the last one is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
    /// Steps between checkpoints inside an epoch; 0: only at the end of each.
    pub checkpoint_every: u64,
    /// Whether the rows of the first epoch are measured before they are learned from, each by the
    /// model that it then changes: progressive validation (Blum, Kalai and Langford, COLT 1999). On
    /// Burn it costs a forward pass.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub evaluate_first: bool,
    /// Memory that tables may take, as in `"6GB"`, together with what the process holds already: those
    /// in memory have to fit it, and of mapped ones no more stays there than what is left. None: what
    /// the machine has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Where tensors are computed.
    pub device: DeviceConfig,
    /// Options of the executors `als` and `mcmc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver: Option<SolverOptions>,
    /// How bpr and sampled_softmax draw the items that are put beside one that was taken; none:
    /// `{ kind = "uniform" }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negatives: Option<Negatives>,
    /// How many: sampled_softmax, for all positions of a batch together, 0: every item, the full
    /// softmax; bpr of a model of sequences, for each position. None: 1024, and 1 for bpr.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_count: Option<usize>,
}

/// `train.negatives`: how items that a user does not have are drawn.
///
/// ```
/// use crossfield_train::{Negatives, TrainConfig};
///
/// let config: TrainConfig =
///     toml::from_str("negatives = { kind = 'popularity', power = 0.5 }")?;
/// assert_eq!(config.negatives, Some(Negatives::Popularity { power: 0.5 }));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Negatives {
    /// Each item that somebody has, as often as any other.
    #[default]
    Uniform,
    /// In proportion to (number of users that have it)^`power`.
    Popularity {
        /// The power: 1 as often as items occur.
        power: f64,
    },
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            executor: Executor::Burn,
            loss: Objective::Logistic,
            epochs: None,
            batch_size: None,
            seed: 1,
            threads: 0,
            fast: false,
            early_stop: None,
            checkpoint_every: 0,
            evaluate_first: false,
            memory: None,
            device: DeviceConfig::Flex,
            solver: None,
            negatives: None,
            negative_count: None,
        }
    }
}

impl TrainConfig {
    /// Passes over the training rows, or sweeps.
    pub fn epochs(&self) -> usize {
        self.epochs
            .unwrap_or(if self.executor.is_solver() { 100 } else { 5 })
    }

    /// Rows a step; a solver's is over all rows, whatever this says.
    pub fn batch_size(&self) -> usize {
        self.batch_size.unwrap_or(match self.executor {
            Executor::Fused => 1,
            Executor::Burn | Executor::Als | Executor::Mcmc => 1024,
        })
    }

    /// The options of a solver, with their defaults.
    pub fn solver(&self) -> SolverOptions {
        let mut options = self.solver.unwrap_or_default();
        options.complete(self.executor, self.loss);
        options
    }

    /// Writes out what depends on other options.
    pub fn complete(&mut self) {
        self.epochs = Some(self.epochs());
        if self.executor.is_solver() {
            self.solver = Some(self.solver());
        } else {
            self.batch_size = Some(self.batch_size());
        }
        if self.loss.draws() {
            self.negatives.get_or_insert_default();
        }
        if self.loss.draws() && self.executor == Executor::Burn {
            self.negative_count = Some(self.negative_count());
        }
    }

    /// Items that are drawn for a batch, or for a position of bpr.
    pub fn negative_count(&self) -> usize {
        let default = if self.loss == Objective::Bpr { 1 } else { 1024 };
        self.negative_count.unwrap_or(default)
    }

    /// Bytes of memory that tables may take, if that is bounded.
    ///
    /// # Errors
    /// [`Error::Option`] for what is no size.
    ///
    /// ```
    /// use crossfield_train::TrainConfig;
    ///
    /// let config: TrainConfig = toml::from_str("memory = '1.5 GB'")?;
    /// assert_eq!(config.memory()?, Some(1_500_000_000));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn memory(&self) -> Result<Option<u64>, Error> {
        let parse = |text: &String| {
            let size = text.parse::<ByteSize>();
            let size = size.map_err(|error| Error::Option {
                option: "train.memory".into(),
                reason: format!("is `{text}`: expected a size, as in \"6GB\" ({error})"),
            });
            Ok(size?.as_u64())
        };
        self.memory.as_ref().map(parse).transpose()
    }

    /// Threads that share the work on a row.
    pub(crate) fn fused_threads(&self) -> usize {
        self.threads.clamp(1, 4)
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub fn check(&self) -> Result<(), Error> {
        let at_least_one = |option: &str, value: usize| {
            if value > 0 {
                return Ok(());
            }
            Err(Error::Option {
                option: option.into(),
                reason: "is 0: expected 1 or more".into(),
            })
        };
        if self.evaluate_first && (self.executor.is_solver() || self.loss.of_rows().is_none()) {
            return Err(Error::Option {
                option: "train.evaluate_first".into(),
                reason:
                    "is true: expected the executor burn or fused, and a loss of rows, which are \
                         learned from one after the other"
                        .into(),
            });
        }
        self.memory()?;
        at_least_one("train.epochs", self.epochs())?;
        at_least_one("train.batch_size", self.batch_size())?;
        if self.executor == Executor::Fused && self.batch_size() != 1 {
            return Err(Error::Option {
                option: "train.batch_size".into(),
                reason: format!(
                    "is {}: the fused executor updates after each row; leave it out",
                    self.batch_size()
                ),
            });
        }
        if let Some(options) = self.solver {
            options.check(self.executor, self.loss, self.epochs())?;
        }
        if self.negatives.is_some() && !self.loss.draws() {
            return Err(Error::Option {
                option: "train.negatives".into(),
                reason: "is for the losses bpr and sampled_softmax: leave it out".into(),
            });
        }
        if let Some(Negatives::Popularity { power }) = self.negatives
            && !(power.is_finite() && power >= 0.0)
        {
            return Err(Error::Option {
                option: "train.negatives.power".into(),
                reason: format!("is {power}: expected a number of at least 0"),
            });
        }
        if self.negative_count.is_some() && !(self.loss.draws() && self.executor == Executor::Burn)
        {
            return Err(Error::Option {
                option: "train.negative_count".into(),
                reason:
                    "is for the losses bpr and sampled_softmax of the executor burn: leave it out"
                        .into(),
            });
        }
        if self.loss == Objective::Bpr && self.executor == Executor::Burn {
            at_least_one("train.negative_count", self.negative_count())?;
        }
        if self.executor.is_solver() {
            self.check_solver()?;
        }
        self.early_stop.map_or(Ok(()), |stop| {
            at_least_one("train.early_stop.patience", stop.patience)
        })
    }

    /// Checks that predictions of a model of this loss can be corrected for the share of the negatives
    /// that it is trained on.
    ///
    /// # Errors
    /// [`Error::Option`] for a share other than 1 and a loss other than the logistic one, whose scores
    /// are no logits.
    pub fn check_negatives(&self, rate: f64) -> Result<(), Error> {
        if rate == 1.0 || self.loss == Objective::Logistic {
            return Ok(());
        }
        Err(Error::Option {
            option: "train.loss".into(),
            reason: format!(
                "is {}: only with \"logistic\" are predictions corrected for down-sampled negatives \
                 ({rate} of them, by label.negative_rate and data.keep_negatives)",
                self.loss.name()
            ),
        })
    }

    /// Checks that the executor can train these tables, before any of them is made.
    ///
    /// # Errors
    /// [`Error::Tables`] for what [`TablePlan::check`] refuses, and rows of halves that cannot be
    /// trained; [`Error::Option`] for compressed tables and bounded rows that the fused executor
    /// cannot train; [`Error::Fused`] for an optimizer or an instruction set that the fused executor does not
    /// have.
    ///
    /// ```
    /// use crossfield_core::{Initializer, TableConfig};
    /// use crossfield_embedding::{Compress, L2By, Precision, RowOptimizer, RowOptimizerKind, TablePlan};
    /// use crossfield_train::{Executor, TrainConfig};
    ///
    /// let config = TableConfig {
    ///     name: "v8.ad".into(),
    ///     rows: 10,
    ///     dim: 8,
    ///     fields: vec![0],
    ///     initializer: Initializer::Zeros,
    ///     oov_row: None,
    /// };
    /// let rowwise = RowOptimizer {
    ///     kind: RowOptimizerKind::RowwiseAdagrad,
    ///     ..RowOptimizer::default()
    /// };
    /// let halves = TablePlan {
    ///     precision: Precision::Bf16,
    ///     ..TablePlan::new(config, rowwise)
    /// };
    /// let with = |executor| TrainConfig {
    ///     executor,
    ///     ..TrainConfig::default()
    /// };
    /// assert!(with(Executor::Fused).check_plans(&[halves.clone()]).is_ok());
    /// let error = with(Executor::Burn).check_plans(&[halves]).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "table `v8.ad`: rows of bf16 need executor = \"fused\""
    /// );
    /// ```
    pub fn check_plans(&self, plans: &[TablePlan]) -> Result<(), Error> {
        for plan in plans {
            let table = &plan.config.name;
            match self.executor {
                Executor::Burn if plan.precision == Precision::Bf16 => {
                    return Err(crossfield_embedding::Error::HalfRows {
                        table: table.clone(),
                        expected: "executor = \"fused\"",
                    }
                    .into());
                }
                Executor::Burn => {}
                // They make their own memory.
                Executor::Als | Executor::Mcmc => continue,
                Executor::Fused => {
                    refuse_fused(plan)?;
                    Rule::new(table, &plan.optimizer, plan.precision, 1.0, self.fast)?;
                }
            }
            plan.check()?;
        }
        if self.executor == Executor::Fused {
            Isa::detect().map_err(crossfield_fused::Error::from)?;
        }
        Ok(())
    }

    /// Refuses what a solver would have to ignore.
    fn check_solver(&self) -> Result<(), Error> {
        let executor = self.executor.name();
        let refuse = |option: &str, reason: String| {
            Err(Error::Option {
                option: format!("train.{option}"),
                reason,
            })
        };
        self.solver()
            .check(self.executor, self.loss, self.epochs())?;
        if self.loss == Objective::Logistic {
            let reason = format!(
                "is logistic: the executor {executor} takes \"probit\" for clicks and \"squared\" \
                 for ratings"
            );
            return refuse("loss", reason);
        }
        if self.early_stop.is_some() && self.executor == Executor::Mcmc {
            let reason = "the executor mcmc averages over draws and has no best epoch: leave it \
                          out, and set train.epochs";
            return refuse("early_stop", reason.into());
        }
        let ignored = [
            ("batch_size", self.batch_size.is_some()),
            ("checkpoint_every", self.checkpoint_every > 0),
            ("fast", self.fast),
        ];
        for (option, is_set) in ignored {
            if is_set {
                let reason = format!(
                    "the executor {executor} sweeps over all rows and has no use for it: leave it \
                     out"
                );
                return refuse(option, reason);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfield_embedding::Combine;

    #[test]
    fn stars_match_any_characters() {
        for (pattern, name, expected) in [
            ("wide.*", "wide.ad", true),
            ("wide.*", "wide2.ad", false),
            ("*", "v8.ad", true),
            ("v*.ad", "v16.ad", true),
            ("v*.ad", "v16.ads", false),
            ("v8.ad", "v8.ad", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    fn table(name: &str) -> TableConfig {
        TableConfig {
            name: name.into(),
            rows: 3,
            dim: 1,
            fields: vec![0],
            initializer: Initializer::Zeros,
            oov_row: None,
        }
    }

    #[test]
    fn the_first_matching_entry_wins_and_what_it_leaves_out_stays() {
        let config: OptimizerConfig = toml::from_str(
            "rows = { kind = 'adagrad', lr = 0.2 }\n\
             [[table]]\nmatch = 'wide.*'\nkind = 'ftrl'\nl1 = 0.5\n\
             [[table]]\nmatch = '*'\nfrozen = true",
        )
        .unwrap();
        let plans = config.plan(vec![table("v8.ad"), table("wide.ad")]).unwrap();
        assert_eq!(plans[0].optimizer.kind, RowOptimizerKind::Adagrad);
        assert!(plans[0].frozen);
        assert_eq!(plans[1].optimizer.kind, RowOptimizerKind::Ftrl);
        assert_eq!((plans[1].optimizer.l1, plans[1].optimizer.lr), (0.5, 0.2));
        assert!(!plans[1].frozen);
    }

    #[test]
    fn variants_are_read_and_written_out_again() {
        let text = "[[table]]\nmatch = 'a'\nmax_norm = 0.1\ninit_from = 'runs/mf'\n\
                    compress = { kind = 'hash', rows = 2 }\n\
                    [[table]]\nmatch = 'b'\ncompress = { kind = 'quotient_remainder', rows = 2 }\n";
        let config: OptimizerConfig = toml::from_str(text).unwrap();
        let plans = config
            .plan(vec![table("a"), table("b"), table("c")])
            .unwrap();
        let compress: Vec<_> = plans.iter().map(|plan| plan.compress.clone()).collect();
        let hash = Compress::Hash { rows: 2, hashes: 2 };
        let product = Compress::QuotientRemainder {
            rows: 2,
            combine: Combine::Product,
        };
        assert_eq!(compress, [Some(hash), Some(product), None]);
        assert_eq!(plans[0].max_norm, Some(0.1));
        assert_eq!(
            config.options("a").unwrap().init_from.as_deref(),
            Some("runs/mf")
        );
        let written = toml::to_string(&config).unwrap();
        assert!(written.contains("max_norm = 0.1\n"), "{written}");
        assert_eq!(toml::from_str::<OptimizerConfig>(&written).unwrap(), config);
    }

    #[test]
    fn an_entry_that_matches_nothing_is_an_error() {
        let config: OptimizerConfig =
            toml::from_str("[[table]]\nmatch = 'wide.*'\nkind = 'ftrl'").unwrap();
        assert_eq!(
            config.plan(vec![table("v8.ad")]).unwrap_err().to_string(),
            "optimizer.table.match: `wide.*` matches no table (tables: v8.ad)"
        );
    }

    #[test]
    fn what_an_executor_would_ignore_is_refused() {
        for (text, expected) in [
            (
                "executor = 'mcmc'",
                "train.loss: is logistic: the executor mcmc takes \"probit\" for clicks and \
                 \"squared\" for ratings",
            ),
            (
                "solver = { thin = 2 }",
                "train.solver.thin: is for the executor mcmc; the executor is burn: leave it out",
            ),
            (
                "executor = 'als'\nloss = 'probit'\nsolver = { burn_in = 2 }",
                "train.solver.burn_in: is for the executor mcmc; the executor is als: leave it out",
            ),
            (
                "executor = 'mcmc'\nloss = 'probit'\nsolver = { factor_l2 = 2.0 }",
                "train.solver.factor_l2: is for the executor als; the executor is mcmc: leave it \
                 out",
            ),
            (
                "executor = 'als'\nloss = 'squared'\nsolver = { linear_l2 = -1.0 }",
                "train.solver.linear_l2: is -1: expected a number of at least 0",
            ),
            (
                "executor = 'fused'\nsolver = { init_std = 0.1 }",
                "train.solver.init_std: is for the executors als and mcmc; the executor is fused: \
                 leave it out",
            ),
            (
                "executor = 'als'\nloss = 'squared'\nsolver = { init_std = 0.0 }",
                "train.solver.init_std: is 0: expected a number above 0",
            ),
            (
                "executor = 'mcmc'\nloss = 'squared'\nsolver = { thin = 0 }",
                "train.solver.thin: is 0: expected 1 or more",
            ),
            (
                "executor = 'mcmc'\nloss = 'squared'\nepochs = 20",
                "train.solver.burn_in: is 20: of 20 sweeps (train.epochs), one in 1, no draw is \
                 left",
            ),
            (
                "executor = 'mcmc'\nloss = 'squared'\nearly_stop = {}",
                "train.early_stop: the executor mcmc averages over draws and has no best epoch: \
                 leave it out, and set train.epochs",
            ),
            (
                "executor = 'als'\nloss = 'squared'\nbatch_size = 1",
                "train.batch_size: the executor als sweeps over all rows and has no use for it: \
                 leave it out",
            ),
        ] {
            let config: TrainConfig = toml::from_str(text).unwrap();
            assert_eq!(config.check().unwrap_err().to_string(), expected);
            // Nor does it pass when the defaults were written out.
            let mut complete = config;
            complete.complete();
            assert!(complete.check().is_err(), "{text}");
        }
    }

    #[test]
    fn epochs_default_to_what_the_executor_needs() {
        for (text, expected) in [
            ("", (5, None)),
            (
                "executor = 'mcmc'\nloss = 'squared'",
                (
                    100,
                    Some(SolverOptions {
                        burn_in: Some(20),
                        thin: Some(1),
                        init_std: Some(0.1),
                        ..SolverOptions::default()
                    }),
                ),
            ),
        ] {
            let mut config: TrainConfig = toml::from_str(text).unwrap();
            config.complete();
            config.check().unwrap();
            assert_eq!((config.epochs(), config.solver), expected);
        }
    }

    #[test]
    fn schedules_resume_where_they_were() {
        for kind in [
            ScheduleKind::Linear,
            ScheduleKind::Cosine,
            ScheduleKind::Exponential,
        ] {
            let schedule = Schedule {
                kind,
                ..Schedule::default()
            };
            let mut whole = schedule.init(10, 0).unwrap();
            let factors: Vec<f64> = (0..10).map(|_| whole.step()).collect();
            // Burn's exponential begins at 1/γ and multiplies: off by the rounding of that.
            assert!((factors[0] - 1.0).abs() < 1e-15, "{kind:?}");
            assert!(factors[9] < factors[1], "{kind:?}");
            let mut rest = schedule.init(10, 6).unwrap();
            assert_eq!(rest.step(), factors[6], "{kind:?}");
        }
        assert_eq!(Schedule::default().init(10, 0).unwrap().step(), 1.0);
    }
}
