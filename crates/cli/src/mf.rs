//! Matrix factorization as the executors `als` and `mcmc` fit it, and as BPR does.

use std::sync::Arc;

use crossfield_core::{ListFigures, RankingReport, Schema};
use crossfield_data::Dataset;
use crossfield_embedding::{
    ListOf, RowOptimizer, RowOptimizerKind, Vectors, evaluate_ranking, list_figures,
};
use crossfield_mf::{
    BiasedMfConfig, Biases, Bpr, BprConfig, Duplicates, InnerSolver, Interactions, MfParameters,
    MfTables, Negatives, RatingsConfig, RatingsL2, RatingsMethod, RatingsSolver, Wrmf, WrmfConfig,
};
use crossfield_train::{
    Error, Executor, PLACES, Solver, SolverFailure, SolverModel, SolverTrained, TrainConfig,
};

use crate::run::{Anyhow, Finished, Run};
use crate::solver::{failed, named};

/// How the parameters of a matrix factorization are saved, how they score pairs, and how they rank
/// items where that is what counts.
#[derive(Debug)]
pub(crate) struct MfModel {
    tables: MfTables,
    ranking: Option<Seen>,
}

/// What each user has had, and the rows that nobody is to be shown.
#[derive(Debug)]
struct Seen {
    train: Arc<Dataset>,
    /// Each user with their items, and with the row of unknown items.
    pairs: Interactions,
}

/// Pairs of the rows of a data set.
fn pairs(
    tables: &MfTables,
    data: &Dataset,
    duplicates: Duplicates,
) -> Result<Interactions, crossfield_mf::Error> {
    Interactions::of_examples(
        &data.examples(),
        tables.fields(),
        tables.sizes(),
        duplicates,
    )
}

impl MfModel {
    /// Of rows that are measured one by one; `mean`: whether the model has a bias.
    pub(crate) fn of_rows(
        config: &BiasedMfConfig,
        mean: bool,
        schema: &Schema,
    ) -> Result<Self, Error> {
        Ok(Self {
            tables: MfTables::of(config, mean, schema)?,
            ranking: None,
        })
    }

    /// Of what people did, measured by the lists that it gives them.
    pub(crate) fn of_lists(
        config: &BiasedMfConfig,
        schema: &Schema,
        run: &TrainConfig,
        train: &Arc<Dataset>,
    ) -> Result<Self, Error> {
        let tables = MfTables::of(config, false, schema)?;
        let all = pairs(&tables, train, Duplicates::Sum).map_err(failed(run))?;
        let [_, item] = tables.fields().map(|field| schema.fields[field].oov_row);
        let (users, items) = (all.users(), all.items());
        let hidden = (0..users as u32).filter_map(|user| Some((user, item?, 1.0)));
        let seen = all.pairs().chain(hidden);
        let seen = Interactions::new(users, items, seen, Duplicates::Sum).map_err(failed(run))?;
        Ok(Self {
            tables,
            ranking: Some(Seen {
                train: train.clone(),
                pairs: seen,
            }),
        })
    }

    /// What fits ratings.
    pub(crate) fn ratings(
        &self,
        config: &BiasedMfConfig,
        train: &TrainConfig,
        rows: &Dataset,
    ) -> Result<MfSweeps<RatingsSolver>, Error> {
        let options = train.solver();
        let method = match train.executor {
            Executor::Als => RatingsMethod::Als(ratings_l2(train)),
            _ => RatingsMethod::Gibbs,
        };
        let config = RatingsConfig {
            embedding_dim: config.embedding_dim,
            biases: config.biases == Biases::Both,
            init_std: options.init_std.unwrap_or_default(),
            method,
        };
        let ratings = pairs(&self.tables, rows, Duplicates::Keep).map_err(failed(train))?;
        let solver = RatingsSolver::new(ratings, config, train.seed).map_err(failed(train))?;
        Ok(self.sweeps(solver))
    }

    /// What fits all pairs, those that occurred with more weight.
    pub(crate) fn wrmf(
        &self,
        config: &BiasedMfConfig,
        train: &TrainConfig,
        rows: &Dataset,
    ) -> Result<MfSweeps<Wrmf>, Error> {
        let config = wrmf_config(config, train);
        let pairs = pairs(&self.tables, rows, Duplicates::Sum).map_err(failed(train))?;
        let solver = Wrmf::new(pairs, config, train.seed).map_err(failed(train))?;
        Ok(self.sweeps(solver))
    }

    /// What puts items that a user had above others.
    pub(crate) fn bpr(
        &self,
        config: &BiasedMfConfig,
        run: &Run,
        rows: &Dataset,
    ) -> Result<MfSweeps<Bpr>, Error> {
        let (train, optimizer) = (&run.train, run.optimizer.rows);
        let config = BprConfig {
            embedding_dim: config.embedding_dim,
            lr: optimizer.lr,
            l2: optimizer.l2,
            negatives: match train.negatives.unwrap_or_default() {
                crossfield_train::Negatives::Uniform => Negatives::Uniform,
                crossfield_train::Negatives::Popularity { power } => {
                    Negatives::Popularity { power }
                }
            },
            item_bias: config.biases == Biases::Item,
            init_std: config.init_std,
        };
        let pairs = pairs(&self.tables, rows, Duplicates::Sum).map_err(failed(train))?;
        let solver = Bpr::new(pairs, config, train.seed).map_err(failed(train))?;
        Ok(self.sweeps(solver))
    }

    fn sweeps<S>(&self, solver: S) -> MfSweeps<S> {
        MfSweeps {
            tables: self.tables.clone(),
            solver,
        }
    }

    /// Lists for the users of `data`, measured by what of it is positive.
    fn measured<R>(
        &self,
        seen: &Seen,
        data: &Dataset,
        measure: impl for<'l> FnOnce(&ListOf<'l>, &ListOf<'l>) -> Result<R, crossfield_embedding::Error>,
    ) -> Result<R, SolverFailure> {
        let wanted = held_out(&self.tables, data, data.schema())?;
        // What was trained on is ranked as if nobody had seen it.
        let of_train = std::ptr::eq(data, &*seen.train);
        let nothing: &[u32] = &[];
        let had = |user: u32| {
            if of_train {
                nothing
            } else {
                seen.pairs.by_user().row(user as usize).0
            }
        };
        let wanted = |user: u32| wanted.by_user().row(user as usize).0;
        Ok(measure(&had, &wanted)?)
    }
}

/// Vectors of users and of items, and the items' biases if there are any.
pub(crate) fn vectors(
    parameters: &MfParameters,
) -> Result<([Vectors; 2], Option<&[f32]>), crossfield_embedding::Error> {
    let dim = parameters.embedding_dim;
    let users = Vectors::from_flat(&parameters.users, dim)?;
    let items = Vectors::from_flat(&parameters.items, dim)?;
    let bias = (!parameters.item_bias.is_empty()).then_some(&parameters.item_bias[..]);
    Ok(([users, items], bias))
}

/// The parameters of a finished run, whoever has trained it: one set, or the draws of `mcmc`.
pub(crate) fn read_parameters(
    finished: &Finished,
    config: &BiasedMfConfig,
) -> Anyhow<(MfTables, Vec<MfParameters>)> {
    let (run, schema) = (&finished.run, finished.fitted.schema());
    let model = MfModel::of_rows(config, run.model.bias, schema)?;
    let tables = model.tables.clone();
    // The tensors are the same; only draws are stacked.
    let executor = match run.train.executor {
        Executor::Mcmc => Executor::Mcmc,
        _ => Executor::Als,
    };
    let (fingerprint, link) = (finished.fitted.fingerprint(), run.train.loss.link());
    let trained = SolverTrained::load(&finished.directory, fingerprint, executor, link, model)?;
    let sets = trained.parameters().iter();
    let sets = sets
        .map(|set| tables.parameters(set))
        .collect::<Result<_, _>>()?;
    Ok((tables, sets))
}

/// What the known users of `data` wanted.
pub(crate) fn held_out(
    tables: &MfTables,
    data: &Dataset,
    schema: &Schema,
) -> Result<Interactions, crossfield_mf::Error> {
    let [user, _] = tables.fields();
    let unknown = schema.fields[user].oov_row;
    positive(&pairs(tables, data, Duplicates::Sum)?, unknown)
}

/// The pairs whose value is above 0, of known users.
fn positive(
    all: &Interactions,
    unknown_user: Option<u32>,
) -> Result<Interactions, crossfield_mf::Error> {
    let kept = all
        .pairs()
        .filter(|&(user, _, value)| value > 0.0 && Some(user) != unknown_user);
    Interactions::new(all.users(), all.items(), kept, Duplicates::Sum)
}

impl SolverModel for MfModel {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        named(self.tables.tensors())
    }

    fn scores(&self, parameters: &[f32], data: &Dataset) -> Result<Vec<f64>, SolverFailure> {
        let parameters = self.tables.parameters(parameters)?;
        Ok(self.tables.scores(&parameters, &data.examples())?)
    }

    fn ranking(
        &self,
        parameters: &[f32],
        data: &Dataset,
    ) -> Result<Option<RankingReport>, SolverFailure> {
        let Some(seen) = &self.ranking else {
            return Ok(None);
        };
        let parameters = self.tables.parameters(parameters)?;
        let ([users, items], bias) = vectors(&parameters)?;
        self.measured(seen, data, |had, wanted| {
            evaluate_ranking(&users, &items, bias, had, wanted, PLACES)
        })
        .map(Some)
    }

    fn lists(
        &self,
        parameters: &[f32],
        data: &Dataset,
    ) -> Result<Option<Vec<ListFigures>>, SolverFailure> {
        let Some(seen) = &self.ranking else {
            return Ok(None);
        };
        let parameters = self.tables.parameters(parameters)?;
        let ([users, items], bias) = vectors(&parameters)?;
        self.measured(seen, data, |had, wanted| {
            list_figures(&users, &items, bias, had, wanted, PLACES)
        })
        .map(Some)
    }

    /// By popularity: each item's number of users is all that is known of it.
    fn constant(&self, data: &Dataset) -> Result<Option<RankingReport>, SolverFailure> {
        let Some(seen) = &self.ranking else {
            return Ok(None);
        };
        let train = pairs(&self.tables, &seen.train, Duplicates::Sum)?;
        let train = positive(&train, None)?;
        let popularity: Vec<f32> = (0..train.items())
            .map(|item| train.by_item().row(item).0.len() as f32)
            .collect();
        let [users, items] = self.tables.sizes();
        let users = Vectors::from_flat(&vec![0.0; users], 1)?;
        let items = Vectors::from_flat(&vec![0.0; items], 1)?;
        self.measured(seen, data, |had, wanted| {
            evaluate_ranking(&users, &items, Some(&popularity), had, wanted, PLACES)
        })
        .map(Some)
    }
}

/// What fits a matrix factorization.
#[derive(Debug)]
pub(crate) struct MfSweeps<S> {
    tables: MfTables,
    solver: S,
}

impl MfSweeps<Bpr> {
    /// The vector of someone who has these items.
    pub(crate) fn fold_in_user(
        &self,
        items: &[u32],
        epochs: usize,
    ) -> Result<Vec<f32>, crossfield_mf::Error> {
        self.solver.fold_in_user(items, epochs)
    }
}

/// λ of ratings as `[train]` has it.
pub(crate) fn ratings_l2(train: &TrainConfig) -> RatingsL2 {
    let (options, default) = (train.solver(), RatingsL2::default());
    if train.executor != Executor::Als {
        return default;
    }
    RatingsL2 {
        bias_l2: options.linear_l2.unwrap_or(default.bias_l2),
        factor_l2: options.factor_l2.unwrap_or(default.factor_l2),
        weighted: options.weighted.unwrap_or(default.weighted),
    }
}

/// WRMF as `[train]` has it.
pub(crate) fn wrmf_config(config: &BiasedMfConfig, train: &TrainConfig) -> WrmfConfig {
    let options = train.solver();
    WrmfConfig {
        embedding_dim: config.embedding_dim,
        alpha: options.alpha.unwrap_or_default(),
        l2: options.factor_l2.unwrap_or_default(),
        l2_power: options.l2_power.unwrap_or_default(),
        solver: match options.conjugate_steps.unwrap_or_default() {
            0 => InnerSolver::Cholesky,
            steps => InnerSolver::ConjugateGradient { steps },
        },
        init_std: options.init_std.unwrap_or_default(),
    }
}

macro_rules! sweeps_of {
    ($($solver:ty),*) => {$(
        impl Solver for MfSweeps<$solver> {
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
    )*};
}

sweeps_of!(RatingsSolver, Wrmf, Bpr);

/// Refuses what BPR would ignore of `[optimizer]`.
pub(crate) fn check_bpr(run: &Run) -> Result<(), Error> {
    let optimizer = &run.optimizer;
    let only = RowOptimizer {
        kind: RowOptimizerKind::Sgd,
        lr: optimizer.rows.lr,
        l2: optimizer.rows.l2,
        ..RowOptimizer::default()
    };
    let refuse = |option: &str, reason: &str| {
        Err(Error::Option {
            option: option.into(),
            reason: reason.into(),
        })
    };
    if optimizer.rows != only {
        let reason = "bpr updates by kind = \"sgd\" with an lr and an l2: leave the rest out";
        return refuse("optimizer.rows", reason);
    }
    let rest = crossfield_train::OptimizerConfig {
        rows: optimizer.rows,
        ..Default::default()
    };
    if *optimizer != rest {
        let reason = "bpr reads `rows` alone: leave the rest out";
        return refuse("optimizer", reason);
    }
    Ok(())
}
