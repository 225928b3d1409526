//! The training loop.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crossfield_core::metrics::{Metrics, MetricsError, Report};
use crossfield_core::{Init, Model};
use crossfield_data::{AdmitConfig, Dataset, FittedSchema, Prepared, Streamed, TrainingRows};
use crossfield_embedding::{EmbeddingCollection, Place, SavedRows, TablePlan};
use serde::{Deserialize, Serialize};

use crate::admission::{self, Admissions};
use crate::burn_executor::BurnExecutor;
use crate::checkpoint::{Checkpoints, Evaluation, State, json, write_whole};
use crate::executor::{Epoch, Executor, rows_measured};
use crate::fused_executor::FusedExecutor;
use crate::manifest;
use crate::memory::{check_disk, check_memory_of, mapped_bytes};
use crate::solver_executor::SolverExecutor;
use crate::{
    Error, FusedModel, OptimizerConfig, Scorer, Solver, SolverModel, TrainConfig, Trained,
    cpu_seconds, peak_memory,
};

/// Hears how a run goes.
///
/// ```
/// use crossfield_train::{Evaluation, Observer, Timing};
///
/// /// Keeps the loss of each epoch.
/// struct Losses(Vec<f64>);
///
/// impl Observer for Losses {
///     fn evaluated(&mut self, evaluation: &Evaluation, _timing: &Timing) {
///         self.0.push(evaluation.train_loss);
///     }
/// }
///
/// let mut losses = Losses(Vec::new());
/// let evaluation = Evaluation {
///     epoch: 1,
///     step: 10,
///     train_loss: 0.5,
///     progressive: None,
///     valid: None,
/// };
/// let timing = Timing {
///     epoch: 1,
///     train_seconds: 2.0,
///     cpu_seconds: None,
///     examples_per_second: 5120.0,
///     other_seconds: 0.5,
///     peak_memory: None,
/// };
/// losses.evaluated(&evaluation, &timing);
/// assert_eq!(losses.0, [0.5]);
/// ```
pub trait Observer {
    /// A checkpoint was found, and training goes on from there.
    fn resumed(&mut self, _state: &State) {}
    /// A step was done: step of the epoch, steps an epoch has (0 where that is not known before its
    /// end), mean loss of the epoch so far.
    fn stepped(&mut self, _epoch: usize, _step: usize, _steps: usize, _loss: f64) {}
    /// An epoch was measured.
    fn evaluated(&mut self, _evaluation: &Evaluation, _timing: &Timing) {}
    /// An epoch ended, after which so many keys of a vocabulary have a row that was given to them as
    /// they came; their places, and the counts of others, take so many bytes.
    fn admitted(&mut self, _vocabulary: &str, _keys: usize, _bytes: u64) {}
    /// Training ended before its last epoch, and the weights of epoch `best` were restored.
    fn stopped_early(&mut self, _best: usize) {}
    /// Asked before an epoch begins, where the run has a checkpoint of all that was done: whether it
    /// stops there, after `_epochs` of them. It then ends with [`Error::Paused`], and goes on from that
    /// checkpoint, to the same bits, when it is trained again.
    fn pauses(&mut self, _epochs: usize) -> bool {
        false
    }
}

/// Hears nothing.
impl Observer for () {}

/// A line of timing.jsonl: the one file of a run with clocks in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Seconds of training since the last line, without evaluation.
    pub train_seconds: f64,
    /// Seconds of processor time of these, of all threads, the loader's included, where the system
    /// tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// Training rows a second.
    pub examples_per_second: f64,
    /// Seconds of evaluation and saving.
    pub other_seconds: f64,
    /// Most memory held so far, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
}

/// The final figures of a run: metrics.json.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FinalMetrics {
    /// On the training part; rows that are read block by block are looked at once, by training.
    pub train: Option<Report>,
    /// On the training rows of the first epoch, each scored before the model learned from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progressive: Option<Report>,
    /// On the validation part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<Report>,
    /// On the test part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Report>,
    /// What the training mean alone gives on the test part (validation, where there is no test).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constant: Option<Report>,
    /// What the true probabilities of a generated log give there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bayes: Option<Report>,
}

/// A line for each part that there is, the constant predictor and the planted truth among them.
impl fmt::Display for FinalMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("train", &self.train),
            ("before", &self.progressive),
            ("valid", &self.valid),
            ("test", &self.test),
            ("constant", &self.constant),
            ("bayes", &self.bayes),
        ];
        let parts = parts
            .into_iter()
            .filter_map(|(name, report)| Some((name, report.as_ref()?)));
        for (nth, (name, report)) in parts.enumerate() {
            let end_of_last = if nth == 0 { "" } else { "\n" };
            write!(f, "{end_of_last}{name:<8}  {report}")?;
        }
        Ok(())
    }
}

/// What [`train`] needs beside the data.
///
/// The example of the [crate] trains with one.
pub struct Setup<'a> {
    /// `[train]`.
    pub train: &'a TrainConfig,
    /// `[optimizer]`.
    pub optimizer: &'a OptimizerConfig,
    /// The tables, as [`OptimizerConfig::plan`] gives them.
    pub plans: &'a [TablePlan],
    /// The run directory; it exists.
    pub out: &'a Path,
    /// Fills tables that begin otherwise than their initialisers say; called once, unless there is a
    /// checkpoint to go on from. The solvers have no tables to fill.
    pub fill: Option<&'a Fill<'a>>,
    /// The finished run whose weights and optimizer's state training begins with, unless there is a
    /// checkpoint to go on from. Tables may have rows behind those of that run.
    pub continues: Option<Continued<'a>>,
    /// Refuses rows that the model cannot read, where they are read block by block; rows that are
    /// held are checked before there is a run.
    pub check_block: Option<&'a CheckBlock<'a>>,
}

/// Refuses rows that a model cannot read.
pub type CheckBlock<'a> = dyn Fn(&Dataset) -> Result<(), Error> + Sync + 'a;

/// A finished run that another goes on from.
#[derive(Clone, Copy, Debug)]
pub struct Continued<'a> {
    /// Its run directory.
    pub run: &'a Path,
    /// Fingerprint of its schema.
    pub schema: u64,
}

/// Fills tables before the first step.
pub type Fill<'a> = dyn Fn(&mut EmbeddingCollection) -> Result<(), Error> + Sync + 'a;

/// Trains a model, from the newest checkpoint in the run directory if there is one, and leaves
/// the finished run there. `make` makes the model, given where and from which seed its weights
/// are drawn.
///
/// The same data, setup and seed give the same bits, at any number of threads, whether or not
/// the run was interrupted.
///
/// # Errors
/// Whatever stops the run; the checkpoints saved until then stay.
pub fn train<M: Model>(
    setup: &Setup<'_>,
    data: &Parts,
    make: impl FnOnce(&Init) -> Result<M, Error> + Send,
    observer: &mut (dyn Observer + Send),
) -> Result<(Trained<M>, FinalMetrics), Error> {
    setup.train.check()?;
    setup.train.check_negatives(data.train.negative_rate())?;
    setup.train.check_plans(setup.plans)?;
    in_pool(setup.train.threads, || {
        let executor = BurnExecutor::new(setup, data.train.negative_rate(), make)?;
        let (executor, metrics) = Run::start(setup, data, executor, observer)?.finish()?;
        Ok((executor.into_trained(), metrics))
    })?
}

/// Runs tensor operations on a pool of `threads` threads; 0: as many as the machine has.
///
/// # Errors
/// [`Error::Threads`] if the system does not give them.
///
/// ```
/// let threads = crossfield_train::in_pool(2, rayon::current_num_threads)?;
/// assert_eq!(threads, 2);
/// # Ok::<(), crossfield_train::Error>(())
/// ```
pub fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> Result<R, Error> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|source| Error::Threads { threads, source })?;
    Ok(pool.install(work))
}

/// The parts of a data set, as a run uses them.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Fingerprint of the schema.
    pub schema: u64,
    /// Rows to learn from.
    pub train: TrainingRows,
    /// Rows that decide when to stop.
    pub valid: Option<Arc<Dataset>>,
    /// Rows to report on.
    pub test: Option<Arc<Dataset>>,
    /// Vocabularies whose keys are given rows as they come, and when they are.
    pub admitted: BTreeMap<String, AdmitConfig>,
}

impl From<Prepared> for Parts {
    fn from(prepared: Prepared) -> Self {
        let train = TrainingRows::Held(Arc::new(prepared.train));
        Self::new(&prepared.schema, train, prepared.valid, prepared.test)
    }
}

impl From<Streamed> for Parts {
    fn from(streamed: Streamed) -> Self {
        let train = TrainingRows::Streamed(Arc::new(streamed.train));
        Self::new(&streamed.schema, train, streamed.valid, streamed.test)
    }
}

impl Parts {
    /// Rows that were encoded with a schema, which is not kept.
    pub fn new(
        schema: &FittedSchema,
        train: TrainingRows,
        valid: Option<Dataset>,
        test: Option<Dataset>,
    ) -> Self {
        Self {
            schema: schema.fingerprint(),
            admitted: schema.admitted(),
            train,
            valid: valid.map(Arc::new),
            test: test.map(Arc::new),
        }
    }

    /// The training rows, for what needs all of them at hand.
    ///
    /// # Errors
    /// [`Error::Option`] if they are read block by block.
    ///
    /// The example of [`Training`](crate::Training) makes a model of them.
    pub fn held(&self) -> Result<&Arc<Dataset>, Error> {
        self.train.held().ok_or_else(|| Error::Option {
            option: "data.stream".into(),
            reason: "is true, but this model needs all training rows at hand: expected false"
                .into(),
        })
    }
}

/// Trains a sum of components row by row, as [`train`] does a model on Burn. The same bits at any
/// number of threads, whether or not the run was interrupted.
///
/// # Errors
/// Whatever stops the run; the checkpoints saved until then stay.
pub fn train_fused(
    setup: &Setup<'_>,
    data: &Parts,
    model: FusedModel,
    observer: &mut (dyn Observer + Send),
) -> Result<FinalMetrics, Error> {
    setup.train.check()?;
    setup.train.check_negatives(data.train.negative_rate())?;
    setup.train.check_plans(setup.plans)?;
    in_pool(setup.train.threads, || {
        let executor = FusedExecutor::new(setup, model, &data.train)?;
        Ok(Run::start(setup, data, executor, observer)?.finish()?.1)
    })?
}

/// Fits by sweeps of a solver, `train.executor` being `als` or `mcmc`, as [`train`] does by steps
/// along gradients: an epoch is a sweep. Every tenth sweep and the last are measured and saved, or
/// all of them where early stopping is asked for. `model` is of the parameters that `solver` fits.
///
/// Draws of `mcmc` are kept as `train.solver` says, and what is measured is the mean of their
/// predictions, each kept within the range of the training labels for ratings; before the first of
/// them, the prediction of the parameters as they are.
///
/// # Errors
/// Whatever stops the run; the checkpoints saved until then stay.
pub fn train_solver(
    setup: &Setup<'_>,
    data: &Parts,
    solver: impl Solver,
    model: impl SolverModel,
    observer: &mut (dyn Observer + Send),
) -> Result<FinalMetrics, Error> {
    setup.train.check()?;
    setup.train.check_negatives(data.train.negative_rate())?;
    let labels = data.held()?.labels();
    let executor = SolverExecutor::new(setup, solver, model, labels, data.valid.as_ref());
    Ok(Run::start(setup, data, executor, observer)?.finish()?.1)
}

/// The folder of a run that holds the rows of its mapped tables, as long as it is not finished.
const TABLES: &str = "tables";

/// The tables of a run. Rows of mapped ones are found in its folder if there is a checkpoint to go on
/// from, and begin anew otherwise.
pub(crate) fn make_tables(setup: &Setup<'_>) -> Result<EmbeddingCollection, Error> {
    let (plans, seed) = (setup.plans, setup.train.seed);
    if mapped_bytes(plans) == 0 {
        return Ok(EmbeddingCollection::new(plans, seed)?);
    }
    let left = check_memory_of(plans, setup.train.memory()?)?;
    let folder = setup.out.join(TABLES);
    let exists = Checkpoints::open(setup.out)?.newest()?.is_some();
    if !exists {
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(Error::io(&folder, "remove"))?;
        }
        std::fs::create_dir(&folder).map_err(Error::io(&folder, "create"))?;
        check_disk(plans, &folder)?;
    }
    let place = Place {
        folder: &folder,
        exists,
    };
    let tables = EmbeddingCollection::in_place(plans, seed, place)?;
    tables.bound_mapped(left);
    Ok(tables)
}

fn has_kept_rows(executor: &mut impl Executor) -> bool {
    let tables = executor.tables_mut();
    tables.is_some_and(|tables| tables.has_kept_rows())
}

/// The loss is no number any more.
pub(crate) fn diverged(setup: &Setup<'_>, loss: f32, epoch: usize, step: u64) -> Error {
    let rows = &setup.optimizer.rows;
    Error::Diverged {
        loss,
        epoch,
        step,
        optimizer: format!("{:?}, lr {}", rows.kind, rows.lr),
    }
}

/// Says of a checkpoint or a measurement that was refused for its numbers where the run was.
fn refused(error: Error, setup: &Setup<'_>, epoch: usize, step: u64) -> Error {
    let rows = &setup.optimizer.rows;
    match error {
        Error::Tables(crossfield_embedding::Error::NonFiniteTensor { .. })
        | Error::Metrics(MetricsError::Prediction { .. }) => Error::DivergedWeights {
            what: error.to_string().trim_start_matches("metrics: ").to_owned(),
            epoch,
            step,
            optimizer: format!("{:?}, lr {}", rows.kind, rows.lr),
        },
        other => other,
    }
}

struct Run<'a, E> {
    setup: &'a Setup<'a>,
    data: &'a Parts,
    observer: &'a mut (dyn Observer + Send),
    executor: E,
    admissions: Admissions,
    state: State,
    checkpoints: Checkpoints,
    /// Seconds and rows of training since the last measurement.
    train_seconds: f64,
    rows: u64,
    /// Seconds of processor time since then, where the system tells.
    cpu_seconds: Option<f64>,
}

impl<'a, E: Executor> Run<'a, E> {
    fn start(
        setup: &'a Setup<'a>,
        data: &'a Parts,
        executor: E,
        observer: &'a mut (dyn Observer + Send),
    ) -> Result<Self, Error> {
        let mut executor = executor;
        let (admitted, plans) = (&data.admitted, setup.plans);
        admission::check(admitted, plans, executor.tables_mut())?;
        let mut run = Self {
            executor,
            admissions: Admissions::new(admitted)?,
            state: State {
                negative_rate: data.train.negative_rate(),
                ..State::new(data.schema, setup.train.seed)
            },
            checkpoints: Checkpoints::open(setup.out)?,
            train_seconds: 0.0,
            rows: 0,
            cpu_seconds: Some(0.0),
            setup,
            data,
            observer,
        };
        if let Some(newest) = run.checkpoints.newest()? {
            run.checkpoints.verify_newest()?;
            run.state = State::read_any(&newest, data.schema)?;
            run.admissions = Admissions::load(&newest, admitted, &run.state)?;
            // What early stopping may go back to: better missed now than at the end.
            if let (Some(_), Some(best)) = (setup.train.early_stop, run.state.best_step)
                && best != run.state.step
                && run.checkpoints.at(best).exists()
            {
                run.checkpoints.verify(best)?;
            }
            run.executor.load(&newest, SavedRows::All)?;
            run.executor
                .load_optimizer(&newest, &run.state, SavedRows::All)?;
            run.checkpoints
                .lead_back(run.state.step, &mut run.executor)?;
            run.observer.resumed(&run.state);
        } else if let Some(before) = setup.continues {
            manifest::check_run(before.run)?;
            let ended = State::read(before.run, before.schema)?;
            run.admissions = Admissions::load(before.run, admitted, &ended)?;
            run.executor.load(before.run, SavedRows::Fewer)?;
            run.executor
                .load_optimizer(before.run, &ended, SavedRows::Fewer)?;
        } else if let (Some(fill), Some(tables)) = (setup.fill, run.executor.tables_mut()) {
            fill(tables)?;
        }
        run.write_metrics_lines()?;
        run.cut_timing()?;
        Ok(run)
    }

    fn finish(mut self) -> Result<(E, FinalMetrics), Error> {
        while self.state.epoch < self.setup.train.epochs() && !self.should_stop() {
            if self.is_saved() && self.observer.pauses(self.state.epoch) {
                let epoch = self.state.epoch;
                return Err(Error::Paused { epoch });
            }
            self.epoch()?;
        }
        // Without early stopping the last epoch is the model, whatever validation says of it.
        let best = match (self.setup.train.early_stop, self.state.best_step) {
            (Some(_), Some(best)) => best,
            _ => self.state.step,
        };
        let has_kept_rows = has_kept_rows(&mut self.executor);
        if best != self.state.step {
            self.checkpoints.verify(best)?;
            let folder = self.checkpoints.at(best);
            let state = State::read_any(&folder, self.data.schema)?;
            self.admissions = Admissions::load(&folder, &self.data.admitted, &state)?;
            if has_kept_rows {
                self.checkpoints.remove_after(best)?;
            }
            self.executor.load(&folder, SavedRows::All)?;
            if has_kept_rows {
                self.executor
                    .load_optimizer(&folder, &state, SavedRows::All)?;
                self.checkpoints.lead_back(best, &mut self.executor)?;
            }
            let epoch = self.state.evaluations.iter().find(|at| at.step == best);
            self.observer
                .stopped_early(epoch.map_or(0, |evaluation| evaluation.epoch));
        }
        let published = if has_kept_rows {
            self.checkpoints
                .complete(best, &self.executor, &self.admissions)?
        } else {
            self.checkpoints.at(best)
        };
        let model = Checkpoints::publish(&published, self.setup.out, &self.admissions)?;
        let parts = self.admissions.look_up_parts(self.data);
        let mut metrics = final_metrics(&mut self.executor, &parts)?;
        let first = self.state.evaluations.first();
        metrics.progressive = first.and_then(|evaluation| evaluation.progressive.clone());
        manifest::finish(self.setup.out, &model, &json(&metrics))?;
        self.checkpoints.remove()?;
        if has_kept_rows {
            // Mapped as they are, they serve on without a name.
            let folder = self.setup.out.join(TABLES);
            std::fs::remove_dir_all(&folder).map_err(Error::io(&folder, "remove"))?;
        }
        Ok((self.executor, metrics))
    }

    fn epoch(&mut self) -> Result<(), Error> {
        let (started, cpu_started) = (Instant::now(), cpu_seconds());
        let setup = self.setup;
        let every = setup.train.checkpoint_every;
        let number = self.state.epoch as u64;
        let steps = self.data.train.held();
        let steps = steps.map_or(0, |rows| self.executor.steps(rows.len()));
        let total = steps as u64 * setup.train.epochs() as u64;
        let mut rates = setup.optimizer.schedule.init(total, self.state.step)?;
        let output = self.executor.output();
        let evaluate_first = setup.train.evaluate_first && number == 0;
        if evaluate_first && self.state.progressive.is_none() {
            // In the memory of the buckets, however many rows there are.
            self.state.progressive = Some(output.metrics().with_exact_rows(0));
        }
        let blocks = (self.data.train).blocks(setup.train.seed, number, self.state.block);
        for block in blocks {
            let mut block = block?;
            if let (Some(check), TrainingRows::Streamed(_)) = (setup.check_block, &self.data.train)
            {
                check(&block)?;
            }
            block = if self.state.step_in_block > 0 {
                // Its keys were admitted before the checkpoint that training goes on from.
                self.admissions.look_up(block)
            } else {
                let tables = self.executor.tables_mut();
                let seed = setup.train.seed;
                self.admissions.admit(block, number == 0, seed, tables)
            };
            let of_block = self.executor.steps(block.len()) as u64;
            let epoch = Epoch {
                data: &block,
                seed: setup.train.seed,
                number,
                block: self.state.block,
                first: self.state.step_in_block as usize,
                step: self.state.step,
                checkpoint_every: every,
                evaluate_first,
                rates: &mut rates,
            };
            let (state, observer, checkpoints) =
                (&mut self.state, &mut self.observer, &self.checkpoints);
            let (rows, admissions) = (&mut self.rows, &self.admissions);
            self.executor.epoch(epoch, &mut |executor, done| {
                *rows += done.rows;
                if let (Some(metrics), Some(before)) = (&mut state.progressive, done.before) {
                    before.add_to(metrics, output)?;
                }
                state.loss_sum += done.loss_sum;
                state.loss_weight += done.loss_weight;
                state.step += done.steps;
                state.step_in_epoch += done.steps;
                state.step_in_block += done.steps;
                observer.stepped(
                    state.epoch + 1,
                    state.step_in_epoch as usize,
                    steps,
                    state.loss_sum / state.loss_weight,
                );
                let inside = state.step_in_block < of_block;
                if every > 0 && inside && state.step.is_multiple_of(every) {
                    let saved = checkpoints.save(state, executor, admissions);
                    saved.map_err(|error| refused(error, setup, state.epoch + 1, state.step))?;
                }
                Ok(())
            })?;
            self.state.block += 1;
            self.state.step_in_block = 0;
        }
        let trained = started.elapsed().as_secs_f64();
        self.train_seconds += trained;
        let cpu = cpu_seconds().zip(cpu_started).map(|(now, then)| now - then);
        self.cpu_seconds = self.cpu_seconds.zip(cpu).map(|(sum, cpu)| sum + cpu);

        self.state.epoch += 1;
        self.state.step_in_epoch = 0;
        self.state.block = 0;
        let train_loss = self.state.loss_sum / self.state.loss_weight;
        (self.state.loss_sum, self.state.loss_weight) = (0.0, 0.0);
        let last = self.state.epoch == setup.train.epochs();
        if !self.executor.measures(self.state.epoch, last) {
            return Ok(());
        }
        let valid = match &self.data.valid {
            Some(valid) => {
                let valid = self.admissions.look_up(valid.clone());
                let measured = self.executor.evaluate(&valid);
                let (epoch, step) = (self.state.epoch, self.state.step);
                Some(measured.map_err(|error| refused(error, setup, epoch, step))?)
            }
            None => None,
        };
        let evaluation = Evaluation {
            epoch: self.state.epoch,
            step: self.state.step,
            train_loss,
            progressive: self.state.progressive.take().map(Metrics::finish),
            valid,
        };
        self.state.evaluations.push(evaluation.clone());
        self.state.best_step = best_evaluation(&self.state.evaluations).map(|best| best.step);
        let saved = (self.checkpoints).save(&mut self.state, &mut self.executor, &self.admissions);
        saved.map_err(|error| refused(error, setup, self.state.epoch, self.state.step))?;
        self.write_metrics_lines()?;
        let timing = Timing {
            epoch: self.state.epoch,
            train_seconds: self.train_seconds,
            cpu_seconds: self.cpu_seconds,
            examples_per_second: self.rows as f64 / self.train_seconds,
            other_seconds: started.elapsed().as_secs_f64() - trained,
            peak_memory: peak_memory(),
        };
        (self.train_seconds, self.rows) = (0.0, 0);
        self.cpu_seconds = Some(0.0);
        append_line(&self.setup.out.join("timing.jsonl"), &timing)?;
        self.observer.evaluated(&evaluation, &timing);
        for (vocabulary, keys, bytes) in self.admissions.sizes() {
            self.observer.admitted(vocabulary, keys, bytes);
        }
        Ok(())
    }

    /// metrics.jsonl, as the state has it: after a resume it holds no line of what was lost.
    fn write_metrics_lines(&self) -> Result<(), Error> {
        let lines: String = self
            .state
            .evaluations
            .iter()
            .map(|line| serde_json::to_string(line).expect("numbers and names") + "\n")
            .collect();
        write_whole(&self.setup.out.join("metrics.jsonl"), &lines)
    }

    /// Leaves in timing.jsonl the whole lines of epochs that are done: an interrupt may have cut the
    /// last, and others be of epochs that are done again.
    fn cut_timing(&self) -> Result<(), Error> {
        let path = self.setup.out.join("timing.jsonl");
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            text => text.map_err(Error::io(&path, "read"))?,
        };
        let text = String::from_utf8_lossy(&text);
        let is_done = |line: &&str| {
            let timing: Result<Timing, _> = serde_json::from_str(line);
            timing.is_ok_and(|timing| timing.epoch <= self.state.epoch)
        };
        let lines: String = text
            .lines()
            .filter(is_done)
            .flat_map(|line| [line, "\n"])
            .collect();
        if lines == text {
            return Ok(());
        }
        write_whole(&path, &lines)
    }

    /// Whether the newest checkpoint is of all steps so far: each evaluation has one.
    fn is_saved(&self) -> bool {
        let last = self.state.evaluations.last();
        last.is_some_and(|evaluation| evaluation.step == self.state.step)
    }

    fn should_stop(&self) -> bool {
        let Some(stop) = self.setup.train.early_stop else {
            return false;
        };
        best_evaluation(&self.state.evaluations)
            .is_some_and(|best| self.state.epoch >= best.epoch + stop.patience)
    }
}

/// The evaluation that early stopping goes back to: the one with the lowest validation logloss (RMSE
/// for ratings, highest NDCG of lists), the first of equals; `None` without a validation part.
///
/// ```
/// use crossfield_core::metrics::Report;
/// use crossfield_train::{Evaluation, best_evaluation};
///
/// let after = |epoch, logloss| Evaluation {
///     epoch,
///     step: 10 * epoch as u64,
///     train_loss: 0.5,
///     progressive: None,
///     valid: Some(Report {
///         logloss: Some(logloss),
///         ..Report::default()
///     }),
/// };
/// let evaluations = [after(1, 0.6), after(2, 0.5), after(3, 0.55)];
/// assert_eq!(best_evaluation(&evaluations).map(|best| best.epoch), Some(2));
/// ```
pub fn best_evaluation(evaluations: &[Evaluation]) -> Option<&Evaluation> {
    evaluations
        .iter()
        .filter_map(|evaluation| {
            let valid = evaluation.valid.as_ref()?;
            let ranking = || Some(-valid.ranking.as_ref()?.ndcg);
            Some((valid.logloss.or(valid.rmse).or_else(ranking)?, evaluation))
        })
        .min_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, evaluation)| evaluation)
}

fn final_metrics(trained: &mut impl Scorer, data: &Parts) -> Result<FinalMetrics, Error> {
    let held = data.train.held();
    let mut metrics = FinalMetrics {
        // Rows that are read anew for each look at them are looked at once, by training.
        train: held.map(|rows| trained.evaluate(rows)).transpose()?,
        ..Default::default()
    };
    if let Some(valid) = &data.valid {
        metrics.valid = Some(trained.evaluate(valid)?);
    }
    if let Some(test) = &data.test {
        metrics.test = Some(trained.evaluate(test)?);
    }
    if let Some(held_out) = data.test.as_ref().or(data.valid.as_ref()) {
        if let Some(train) = held {
            metrics.constant = trained.constant(train, held_out)?;
        }
        let output = trained.output();
        let bayes = held_out.probabilities();
        let bayes = bayes.map(|truth| rows_measured(output, truth, held_out));
        metrics.bayes = bayes.transpose()?;
    }
    Ok(metrics)
}

fn append_line(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    use std::io::Write;
    let line = serde_json::to_string(value).expect("numbers and names") + "\n";
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .map_err(Error::io(path, "write"))
}
