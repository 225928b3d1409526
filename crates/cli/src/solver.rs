//! The factorization machine as the executors `als` and `mcmc` fit it.

use crossfield_core::{Error as ModelError, Schema};
use crossfield_data::Dataset;
use crossfield_fm::FmConfig;
use crossfield_fm::solver::{FmSolver, FmTables, Method, SolverConfig, scores};
use crossfield_train::{Error, Executor, Solver, SolverFailure, SolverModel, TrainConfig};

/// How its parameters are saved, and how they score rows.
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
        let solver = FmSolver::new(&rows.examples(), columns, train.loss, config, train.seed);
        let solver = solver.map_err(|error| Error::Solver {
            executor: train.executor.name(),
            source: error.into(),
        })?;
        Ok(FmSweeps {
            tables: self.0.clone(),
            solver,
        })
    }
}

impl SolverModel for FmModel {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (bias, tables) = self.0.tensors().split_first().expect("the bias is first");
        let mut tensors = vec![bias.clone()];
        tensors.extend(
            tables
                .iter()
                .map(|(name, shape)| (format!("tables.{name}"), shape.clone())),
        );
        tensors
    }

    fn scores(&self, parameters: &[f32], data: &Dataset) -> Result<Vec<f64>, SolverFailure> {
        let parameters = self.0.parameters(parameters)?;
        Ok(scores(&parameters, &data.examples(), self.0.columns())?)
    }
}

/// What fits it.
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
