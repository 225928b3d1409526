//! Fitting by sweeps over all parameters: alternating least squares, and draws from the posterior.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crossfield_core::metrics::Report;
use crossfield_core::{Link, ListFigures, Loss, PredictionLink, PredictionMean, RankingReport};
use crossfield_data::Dataset;
use crossfield_embedding::{SavedRows, Snapshot, SnapshotTensor, write_snapshot};

use crate::checkpoint::{MODEL, OPTIMIZER, Posterior};
use crate::executor::{Done, Epoch, Executor, SavedTables, rows_by_mean, rows_evaluated};
use crate::ranking::of_lists;
use crate::{Error, Output, Scorer, Setup, SolverOptions, State};

/// Sweeps from one measurement and checkpoint to the next.
const MEASURED: usize = 10;
/// Rows whose values are handed over at a time.
const BLOCK: usize = 4096;

/// What a solver or its model reports when it fails.
pub type SolverFailure = Box<dyn std::error::Error + Send + Sync>;

/// How parameters that a [`Solver`] fits are saved, and how they score rows.
///
/// Parameters are one list of numbers: the values of all [`tensors`](Self::tensors), one after the
/// other.
///
/// ```
/// use crossfield_data::Dataset;
/// use crossfield_train::{SolverFailure, SolverModel};
///
/// /// The same score for every row.
/// struct Constant;
///
/// impl SolverModel for Constant {
///     fn tensors(&self) -> Vec<(String, Vec<usize>)> {
///         vec![("bias".into(), vec![1])]
///     }
///     fn scores(&self, parameters: &[f32], data: &Dataset) -> Result<Vec<f64>, SolverFailure> {
///         Ok(vec![f64::from(parameters[0]); data.len()])
///     }
/// }
/// ```
pub trait SolverModel: Send {
    /// Name and shape of each tensor, as the run directory of any executor has them: `bias`,
    /// `tables.<table>`.
    fn tensors(&self) -> Vec<(String, Vec<usize>)>;

    /// The score of every row.
    ///
    /// # Errors
    /// Where rows, parameters and model do not fit together.
    fn scores(&self, parameters: &[f32], data: &Dataset) -> Result<Vec<f64>, SolverFailure>;

    /// The figures of ranked lists, where the order of items counts and not the score of rows;
    /// `None`: rows are measured by their scores.
    ///
    /// # Errors
    /// As [`scores`](Self::scores).
    fn ranking(
        &self,
        _parameters: &[f32],
        _data: &Dataset,
    ) -> Result<Option<RankingReport>, SolverFailure> {
        Ok(None)
    }

    /// The figures of each list, of which [`ranking`](Self::ranking) has the means.
    ///
    /// # Errors
    /// As [`scores`](Self::scores).
    fn lists(
        &self,
        _parameters: &[f32],
        _data: &Dataset,
    ) -> Result<Option<Vec<ListFigures>>, SolverFailure> {
        Ok(None)
    }

    /// The same figures without a model, of lists that are the same for everybody, to compare with.
    ///
    /// # Errors
    /// As [`scores`](Self::scores).
    fn constant(&self, _data: &Dataset) -> Result<Option<RankingReport>, SolverFailure> {
        Ok(None)
    }
}

/// What updates every parameter once a sweep, over all training rows at once.
///
/// A sweep depends on the rows, the options, the seed, its number and the parameters alone, so
/// that a run goes on from saved parameters to the bit.
///
/// ```
/// use crossfield_train::{Solver, SolverFailure};
///
/// /// Goes half the way to the mean of the labels.
/// struct Halfway {
///     mean: f32,
///     bias: f32,
/// }
///
/// impl Solver for Halfway {
///     fn sweep(&mut self) -> Result<f64, SolverFailure> {
///         let error = self.mean - self.bias;
///         self.bias += 0.5 * error;
///         Ok(f64::from(0.5 * error * error))
///     }
///     fn parameters(&self) -> Vec<f32> {
///         vec![self.bias]
///     }
///     fn resume(&mut self, parameters: &[f32], _sweeps: u64) -> Result<(), SolverFailure> {
///         self.bias = parameters[0];
///         Ok(())
///     }
/// }
/// ```
pub trait Solver: Send {
    /// Updates every parameter once; gives the mean loss of the training rows before.
    ///
    /// # Errors
    /// If an update is not finite.
    fn sweep(&mut self) -> Result<f64, SolverFailure>;

    /// The parameters after the last sweep.
    fn parameters(&self) -> Vec<f32>;

    /// Goes on from the parameters that a run had after so many sweeps.
    ///
    /// # Errors
    /// For parameters of another model.
    fn resume(&mut self, parameters: &[f32], sweeps: u64) -> Result<(), SolverFailure>;
}

/// What a solver left: one set of parameters, or draws over which predictions are averaged.
#[derive(Debug)]
enum Fit {
    One(Vec<f32>),
    Draws(Vec<Vec<f32>>, PredictionLink),
}

/// A model that a solver has fitted, ready to score.
#[derive(Debug)]
pub struct SolverTrained<M> {
    model: M,
    link: Link,
    executor: crate::Executor,
    fit: Fit,
}

impl<M: SolverModel> SolverTrained<M> {
    /// Loads the model of a finished run. `executor` is `als` or `mcmc`, and `link` is that of the
    /// loss.
    ///
    /// # Errors
    /// Whatever is wrong with the files; [`Error::RunDirectory`] for `mcmc` and a run without
    /// draws, [`Error::Draws`] for `als` and one with draws.
    pub fn load(
        run: &Path,
        schema: u64,
        executor: crate::Executor,
        link: Link,
        model: M,
    ) -> Result<Self, Error> {
        let fit = if executor == crate::Executor::Mcmc {
            let posterior = State::read_any(run, schema)?.posterior;
            let posterior = posterior.ok_or_else(|| Error::RunDirectory {
                path: run.to_owned(),
                reason: "holds one model, not draws: expected a run of the executor mcmc".into(),
            })?;
            let draws = read(&run.join(MODEL), &model, Some(posterior.draws))?;
            Fit::Draws(draws, posterior.link)
        } else {
            State::read(run, schema)?;
            Fit::One(read_one(&run.join(MODEL), &model)?)
        };
        Ok(Self {
            model,
            link,
            executor,
            fit,
        })
    }

    /// The parameters: one set, or the draws over which predictions are averaged.
    pub fn parameters(&self) -> &[Vec<f32>] {
        match &self.fit {
            Fit::One(parameters) => std::slice::from_ref(parameters),
            Fit::Draws(draws, _) => draws,
        }
    }
}

/// Figures of ranked lists, of models that are measured by those.
fn ranked(
    model: &impl SolverModel,
    executor: crate::Executor,
    parameters: &[f32],
    data: &Dataset,
) -> Result<Option<Report>, Error> {
    let ranking = model.ranking(parameters, data).map_err(failed(executor))?;
    Ok(ranking.map(|ranking| of_lists(ranking, data)))
}

impl<M: SolverModel> Scorer for SolverTrained<M> {
    fn output(&self) -> Output {
        match &self.fit {
            Fit::One(_) => Output::Score(self.link),
            Fit::Draws(_, link) => Output::Prediction(link.link),
        }
    }

    fn evaluate(&mut self, data: &Arc<Dataset>) -> Result<Report, Error> {
        if let Fit::One(parameters) = &self.fit
            && let Some(report) = ranked(&self.model, self.executor, parameters, data)?
        {
            return Ok(report);
        }
        rows_evaluated(self, data)
    }

    fn lists(&mut self, data: &Arc<Dataset>) -> Result<Option<Vec<ListFigures>>, Error> {
        let Fit::One(parameters) = &self.fit else {
            return Ok(None);
        };
        let lists = self.model.lists(parameters, data);
        lists.map_err(failed(self.executor))
    }

    fn score(&mut self, data: &Arc<Dataset>, each: &mut dyn FnMut(&[f32])) -> Result<(), Error> {
        let values = match &self.fit {
            Fit::One(parameters) => scores(&self.model, self.executor, parameters, data)?,
            Fit::Draws(draws, link) => {
                let mut mean = PredictionMean::new(*link, data.len());
                add(&mut mean, &self.model, self.executor, draws, data)?;
                mean.predictions()
            }
        };
        hand_over(&values, each);
        Ok(())
    }
}

fn failed(executor: crate::Executor) -> impl FnOnce(SolverFailure) -> Error {
    move |source| Error::Solver {
        executor: executor.name(),
        source,
    }
}

fn scores(
    model: &impl SolverModel,
    executor: crate::Executor,
    parameters: &[f32],
    data: &Dataset,
) -> Result<Vec<f64>, Error> {
    model.scores(parameters, data).map_err(failed(executor))
}

/// Adds the draws that the mean does not have yet.
fn add(
    mean: &mut PredictionMean,
    model: &impl SolverModel,
    executor: crate::Executor,
    draws: &[Vec<f32>],
    data: &Dataset,
) -> Result<(), Error> {
    for draw in &draws[mean.draws() as usize..] {
        mean.add(&scores(model, executor, draw, data)?);
    }
    Ok(())
}

fn hand_over(values: &[f64], each: &mut dyn FnMut(&[f32])) {
    for block in values.chunks(BLOCK) {
        let block: Vec<f32> = block.iter().map(|&value| value as f32).collect();
        each(&block);
    }
}

/// The tensors of several sets of parameters, one set after the other, or of a single one.
fn stacked<'a>(
    model: &impl SolverModel,
    sets: &'a [Vec<f32>],
    draws: Option<usize>,
) -> BTreeMap<String, SnapshotTensor<'a>> {
    let mut end = 0;
    let tensors = model.tensors().into_iter().map(|(name, shape)| {
        let start = end;
        end += shape.iter().product::<usize>();
        let range = start..end;
        let tensor = SnapshotTensor {
            shape: draws.into_iter().chain(shape).collect(),
            values: Box::new(move |write| {
                sets.iter().try_for_each(|set| write(&set[range.clone()]))
            }),
        };
        (name, tensor)
    });
    tensors.collect()
}

/// Reads what [`stacked`] wrote.
fn read(
    path: &Path,
    model: &impl SolverModel,
    draws: Option<usize>,
) -> Result<Vec<Vec<f32>>, Error> {
    let mut snapshot = Snapshot::open(path)?;
    let mut sets = vec![Vec::new(); draws.unwrap_or(1)];
    for (name, shape) in model.tensors() {
        let len: usize = shape.iter().product();
        let shape: Vec<usize> = draws.into_iter().chain(shape).collect();
        let mut done = 0;
        snapshot.read(&name, &shape, |mut block| {
            // A block may hold the end of one draw and the beginning of the next.
            while !block.is_empty() {
                let (some, rest) = block.split_at(block.len().min(len - done % len));
                sets[done / len].extend_from_slice(some);
                done += some.len();
                block = rest;
            }
        })?;
    }
    Ok(sets)
}

fn read_one(path: &Path, model: &impl SolverModel) -> Result<Vec<f32>, Error> {
    Ok(read(path, model, None)?.pop().unwrap_or_default())
}

pub(crate) struct SolverExecutor<'a, S, M> {
    setup: &'a Setup<'a>,
    options: SolverOptions,
    solver: S,
    model: M,
    link: PredictionLink,
    /// The parameters after the last sweep.
    current: Vec<f32>,
    draws: Vec<Vec<f32>>,
    /// The rows that are measured again and again, and their predictions so far.
    valid: Option<(Arc<Dataset>, PredictionMean)>,
}

impl<'a, S: Solver, M: SolverModel> SolverExecutor<'a, S, M> {
    /// `labels` are those of the training rows.
    pub(crate) fn new(
        setup: &'a Setup<'a>,
        solver: S,
        model: M,
        labels: &[f32],
        valid: Option<&Arc<Dataset>>,
    ) -> Self {
        // Scores that order items are averaged by no executor: any loss of numbers will do.
        let loss = setup.train.loss.of_rows().unwrap_or(Loss::Squared);
        let link = PredictionLink::of(loss, labels);
        let valid = valid.map(|valid| (valid.clone(), PredictionMean::new(link, valid.len())));
        Self {
            options: setup.train.solver(),
            current: solver.parameters(),
            draws: Vec::new(),
            setup,
            solver,
            model,
            link,
            valid,
        }
    }

    fn averages(&self) -> bool {
        self.setup.train.executor == crate::Executor::Mcmc
    }
}

impl<S: Solver, M: SolverModel> Scorer for SolverExecutor<'_, S, M> {
    fn output(&self) -> Output {
        if self.averages() {
            Output::Prediction(self.link.link)
        } else {
            Output::Score(self.link.link)
        }
    }

    fn evaluate(&mut self, data: &Arc<Dataset>) -> Result<Report, Error> {
        let executor = self.setup.train.executor;
        match ranked(&self.model, executor, &self.current, data)? {
            Some(report) => Ok(report),
            None => rows_evaluated(self, data),
        }
    }

    fn constant(&mut self, train: &Dataset, data: &Arc<Dataset>) -> Result<Option<Report>, Error> {
        let constant = self.model.constant(data);
        match constant.map_err(failed(self.setup.train.executor))? {
            Some(ranking) => Ok(Some(of_lists(ranking, data))),
            None => rows_by_mean(self.output(), train, data),
        }
    }

    /// Before the first draw that is kept: the prediction of the parameters as they are.
    fn score(&mut self, data: &Arc<Dataset>, each: &mut dyn FnMut(&[f32])) -> Result<(), Error> {
        let (model, executor) = (&self.model, self.setup.train.executor);
        let values = if self.draws.is_empty() {
            let mut scores = scores(model, executor, &self.current, data)?;
            if self.averages() {
                for score in &mut scores {
                    *score = self.link.prediction(*score);
                }
            }
            scores
        } else {
            let mut new = None;
            let mean = match &mut self.valid {
                Some((valid, mean)) if Arc::ptr_eq(valid, data) => mean,
                _ => new.insert(PredictionMean::new(self.link, data.len())),
            };
            add(mean, model, executor, &self.draws, data)?;
            mean.predictions()
        };
        hand_over(&values, each);
        Ok(())
    }
}

impl<S: Solver, M: SolverModel> Executor for SolverExecutor<'_, S, M> {
    /// A sweep is a step.
    fn steps(&self, _rows: usize) -> usize {
        1
    }

    fn measures(&self, epoch: usize, last: bool) -> bool {
        last || epoch.is_multiple_of(MEASURED) || self.setup.train.early_stop.is_some()
    }

    fn epoch(
        &mut self,
        epoch: Epoch<'_>,
        done: &mut dyn FnMut(&mut Self, Done<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let executor = self.setup.train.executor;
        let loss = self.solver.sweep().map_err(failed(executor))?;
        self.current = self.solver.parameters();
        if self.averages() && self.options.keeps(epoch.number as usize + 1) {
            self.draws.push(self.current.clone());
        }
        let rows = epoch.data.len() as u64;
        let one = Done {
            steps: 1,
            rows,
            loss_sum: loss * rows as f64,
            loss_weight: rows as f64,
            before: None,
        };
        done(self, one)
    }

    fn save(&self, folder: &Path, state: &mut State, _tables: SavedTables) -> Result<(), Error> {
        let current = std::slice::from_ref(&self.current);
        let (model, optimizer) = if self.averages() {
            state.posterior = Some(Posterior {
                draws: self.draws.len(),
                link: self.link,
            });
            let draws = stacked(&self.model, &self.draws, Some(self.draws.len()));
            // The last sweep's parameters need not be a draw that is kept.
            (draws, stacked(&self.model, current, None))
        } else {
            (stacked(&self.model, current, None), BTreeMap::new())
        };
        write_snapshot(&folder.join(MODEL), model)?;
        Ok(write_snapshot(&folder.join(OPTIMIZER), optimizer)?)
    }

    fn load(&mut self, folder: &Path, _rows: SavedRows) -> Result<(), Error> {
        let path = folder.join(MODEL);
        if self.averages() {
            let first = self.model.tensors().into_iter().next();
            let snapshot = Snapshot::open(&path)?;
            let shape = first.and_then(|(name, _)| snapshot.shape(&name).map(<[usize]>::to_vec));
            let draws = shape.and_then(|shape| shape.first().copied());
            self.draws = read(&path, &self.model, Some(draws.unwrap_or(0)))?;
        } else {
            self.current = read_one(&path, &self.model)?;
        }
        Ok(())
    }

    fn load_optimizer(
        &mut self,
        folder: &Path,
        state: &State,
        _rows: SavedRows,
    ) -> Result<(), Error> {
        if self.averages() {
            self.current = read_one(&folder.join(OPTIMIZER), &self.model)?;
        }
        let resumed = self.solver.resume(&self.current, state.step);
        resumed.map_err(failed(self.setup.train.executor))
    }
}
