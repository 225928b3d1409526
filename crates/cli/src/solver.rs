//! What the solvers fit: which model of a run file, by which of them.

use crossfield_core::{Error as ModelError, Schema};
use crossfield_data::Dataset;
use crossfield_fm::FmConfig;
use crossfield_fm::solver::{FmSolver, FmTables, Method, SolverConfig, scores};
use crossfield_mf::BiasedMfConfig;
use crossfield_train::{
    Error, Executor, Objective, OptimizerConfig, Solver, SolverFailure, SolverModel, TrainConfig,
};

use crate::run::Run;

/// A model whose parameters are fitted by sweeps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fitted<'a> {
    /// A factorization machine.
    Fm(&'a FmConfig),
    /// A matrix factorization of ratings.
    Ratings(&'a BiasedMfConfig),
    /// A matrix factorization of what people did, by WRMF or BPR.
    Implicit(&'a BiasedMfConfig),
}

impl<'a> Fitted<'a> {
    /// What a run asks for; `None` where steps along gradients train it.
    ///
    /// # Errors
    /// [`Error::Option`] where executor, loss and model do not fit together.
    pub(crate) fn of(run: &'a Run) -> Result<Option<Self>, Error> {
        let (executor, loss) = (run.train.executor, run.train.loss);
        let refuse = |option: &str, reason: String| {
            let option = option.to_owned();
            Err(Error::Option { option, reason })
        };
        if loss.of_rows().is_none() {
            let name = loss.name();
            if loss == Objective::SampledSoftmax || run.model.only_sasrec().is_some() {
                return crate::next_item::check(run).map(|()| None);
            }
            let Some(mf) = run.model.only_mf() else {
                let kinds = run.model.kinds().join(" + ");
                let reason = format!(
                    "{name} fits a matrix factorization alone (model.kind = \"mf\"); the model is \
                     {kinds}"
                );
                return refuse("train.loss", reason);
            };
            let expected = match loss {
                Objective::Bpr => Executor::Fused,
                _ => Executor::Als,
            };
            if executor != expected {
                let reason = format!(
                    "is {}: {name} needs executor = \"{}\"",
                    executor.name(),
                    expected.name()
                );
                return refuse("train.executor", reason);
            }
            if run.model.bias {
                let reason = format!(
                    "is true: {name} compares items, which a bias adds nothing to; set model.bias \
                     = false"
                );
                return refuse("model.bias", reason);
            }
            let (fits, expected) = match loss {
                Objective::Bpr => (mf.biases != crossfield_mf::Biases::Both, "item or none"),
                _ => (mf.biases == crossfield_mf::Biases::None, "none"),
            };
            if !fits {
                let reason = format!("{name} needs biases = {expected}");
                return refuse(&format!("model.{}.biases", mf.name), reason);
            }
            return Ok(Some(Self::Implicit(mf)));
        }
        if !executor.is_solver() {
            return Ok(None);
        }
        if let Some(mf) = run.model.only_mf() {
            if loss != Objective::Squared {
                let reason = format!(
                    "is {}: the executor {} fits a matrix factorization by \"squared\" (ratings) or \
                     \"wrmf\" (what people did)",
                    loss.name(),
                    executor.name()
                );
                return refuse("train.loss", reason);
            }
            if !run.model.bias {
                let reason = "is false: the mean of the ratings is the bias; leave it out";
                return refuse("model.bias", reason.into());
            }
            if mf.biases == crossfield_mf::Biases::Item {
                let reason = "ratings need biases = both or none".into();
                return refuse(&format!("model.{}.biases", mf.name), reason);
            }
            return Ok(Some(Self::Ratings(mf)));
        }
        match run.model.only_fm() {
            Ok(fm) => Ok(Some(Self::Fm(fm))),
            Err(reason) => {
                let reason = format!(
                    "{} fits a factorization machine (model.kind = \"fm\") or a matrix \
                     factorization (\"mf\") alone; {reason}",
                    executor.name()
                );
                refuse("train.executor", reason)
            }
        }
    }

    /// Writes out defaults that depend on the model.
    pub(crate) fn complete(self, train: &mut TrainConfig) {
        let Self::Ratings(_) = self else { return };
        if train.executor == Executor::Als {
            let l2 = crossfield_mf::RatingsL2::default();
            let options = train.solver.get_or_insert_default();
            options.linear_l2.get_or_insert(l2.bias_l2);
            options.factor_l2.get_or_insert(l2.factor_l2);
            options.weighted.get_or_insert(l2.weighted);
        }
    }

    /// Refuses what the solver would ignore.
    pub(crate) fn check(self, run: &Run) -> Result<(), Error> {
        let (name, std, default) = match self {
            Self::Fm(fm) => (&fm.name, fm.init_std, FmConfig::default().init_std),
            Self::Ratings(mf) | Self::Implicit(mf) => {
                (&mf.name, mf.init_std, BiasedMfConfig::default().init_std)
            }
        };
        let executor = run.train.executor.name();
        let refuse = |option: String, reason: String| Err(Error::Option { option, reason });
        if run.train.executor.is_solver() {
            if std != default {
                let reason =
                    format!("the executor {executor} begins with train.solver.init_std: set that");
                return refuse(format!("model.{name}.init_std"), reason);
            }
            if run.optimizer != OptimizerConfig::default() {
                let reason = format!(
                    "the executor {executor} has no optimizer: leave the section out (its options \
                     are train.solver)"
                );
                return refuse("optimizer".into(), reason);
            }
        }
        if let (Self::Fm(_), Some(true)) = (self, run.train.solver().weighted) {
            let reason = "is for a matrix factorization (model.kind = \"mf\"): leave it out";
            return refuse("train.solver.weighted".into(), reason.into());
        }
        if let (Self::Implicit(_), Objective::Bpr) = (self, run.train.loss) {
            crate::mf::check_bpr(run)?;
        }
        Ok(())
    }
}

/// How the parameters of a factorization machine are saved, and how they score rows.
#[derive(Debug)]
pub(crate) struct FmModel(FmTables);

impl FmModel {
    pub(crate) fn new(config: &FmConfig, schema: &Schema) -> Result<Self, ModelError> {
        FmTables::of(config, schema).map(Self)
    }

    /// A solver of the training rows, as `[train]` asks for it.
    pub(crate) fn solver(
        &self,
        config: &FmConfig,
        train: &TrainConfig,
        rows: &Dataset,
    ) -> Result<FmSweeps, Error> {
        let options = train.solver();
        let method = match train.executor {
            Executor::Als => Method::Als {
                bias_l2: options.bias_l2.unwrap_or_default(),
                linear_l2: options.linear_l2.unwrap_or_default(),
                factor_l2: options.factor_l2.unwrap_or_default(),
            },
            _ => Method::Mcmc,
        };
        let config = SolverConfig {
            embedding_dim: config.embedding_dim,
            linear: config.linear,
            init_std: options.init_std.unwrap_or_default(),
            method,
        };
        let columns = self.0.columns();
        let loss = train.loss.of_rows().unwrap_or_default();
        let solver = FmSolver::new(&rows.examples(), columns, loss, config, train.seed);
        let solver = solver.map_err(failed(train))?;
        Ok(FmSweeps {
            tables: self.0.clone(),
            solver,
        })
    }
}

/// A solver's own error as one of the run.
pub(crate) fn failed<E: std::error::Error + Send + Sync + 'static>(
    train: &TrainConfig,
) -> impl FnOnce(E) -> Error {
    let executor = train.executor.name();
    move |error| Error::Solver {
        executor,
        source: error.into(),
    }
}

/// The tensors of a model, tables under the names that all executors give them.
pub(crate) fn named(tensors: &[(String, Vec<usize>)]) -> Vec<(String, Vec<usize>)> {
    let named = tensors.iter().map(|(name, shape)| match name.as_str() {
        "bias" => (name.clone(), shape.clone()),
        table => (crossfield_embedding::tensor_name(table), shape.clone()),
    });
    named.collect()
}

impl SolverModel for FmModel {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        named(self.0.tensors())
    }

    fn scores(&self, parameters: &[f32], data: &Dataset) -> Result<Vec<f64>, SolverFailure> {
        let parameters = self.0.parameters(parameters)?;
        Ok(scores(&parameters, &data.examples(), self.0.columns())?)
    }
}

/// What fits a factorization machine.
#[derive(Debug)]
pub(crate) struct FmSweeps {
    tables: FmTables,
    solver: FmSolver,
}

impl Solver for FmSweeps {
    fn sweep(&mut self) -> Result<f64, SolverFailure> {
        self.solver.iterate()?;
        Ok(self.solver.last_loss())
    }

    fn parameters(&self) -> Vec<f32> {
        self.tables.values(self.solver.parameters())
    }

    fn resume(&mut self, parameters: &[f32], sweeps: u64) -> Result<(), SolverFailure> {
        let parameters = self.tables.parameters(parameters)?;
        Ok(self.solver.resume(parameters, sweeps)?)
    }
}
