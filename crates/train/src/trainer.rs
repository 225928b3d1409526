//! The training loop.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use crossfield_core::metrics::{Kind, Metrics, Report};
use crossfield_core::{Init, Link, Model, TableConfig};
use crossfield_data::{Dataset, Loader, Order, Prepared};
use crossfield_embedding::{EmbeddingCollection, TablePlan};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, Checkpoints, Evaluation, State, json, write_whole};
use crate::{Error, OptimizerConfig, TrainConfig, check_memory, dense, peak_memory};

/// Rows that are scored at a time when nothing is trained.
const SCORE_BATCH: usize = 4096;

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
///     valid: None,
/// };
/// let timing = Timing {
///     epoch: 1,
///     train_seconds: 2.0,
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
    /// A step was done: step of the epoch, steps an epoch has, mean loss of the epoch so far.
    fn stepped(&mut self, _epoch: usize, _step: usize, _steps: usize, _loss: f64) {}
    /// An epoch was measured.
    fn evaluated(&mut self, _evaluation: &Evaluation, _timing: &Timing) {}
    /// Training ended before its last epoch, and the weights of epoch `best` were restored.
    fn stopped_early(&mut self, _best: usize) {}
}

/// Hears nothing.
impl Observer for () {}

/// A line of timing.jsonl: the one file of a run with clocks in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Seconds of training, without evaluation.
    pub train_seconds: f64,
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
    /// On the training part.
    pub train: Option<Report>,
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

/// A model and its tables, ready to score.
#[derive(Debug)]
pub struct Trained<M> {
    /// The model, without autodiff.
    pub model: M,
    /// Its tables.
    pub tables: EmbeddingCollection,
    /// Where it computes.
    pub device: Device,
}

impl<M: Model> Trained<M> {
    /// Loads the model of a finished run.
    ///
    /// # Errors
    /// Whatever is wrong with the files.
    pub fn load(
        run: &Path,
        schema: u64,
        model: M,
        tables: Vec<TableConfig>,
        device: &Device,
    ) -> Result<Self, Error> {
        State::read(run, schema)?;
        let plans: Vec<TablePlan> = tables.into_iter().map(TablePlan::read_only).collect();
        check_memory(&plans)?;
        let mut tables = EmbeddingCollection::new(&plans, 0)?;
        let model = checkpoint::load_weights(run, model, &mut tables)?;
        Ok(Self {
            model,
            tables,
            device: device.clone(),
        })
    }

    /// The score of each row, before the link, handed over in order.
    pub fn score(&mut self, data: &Arc<Dataset>, mut each: impl FnMut(&[f32])) {
        for batch in Loader::new(data.clone(), Order::Sequential, SCORE_BATCH, 0) {
            let (lookup, _) = self.tables.stage(Arc::new(batch), &self.device);
            let scores = self.model.score(&lookup).try_into_vec_as::<f32>();
            each(&scores.expect("scores are floats"));
        }
    }

    /// Figures on labelled rows.
    ///
    /// # Errors
    /// [`Error::Metrics`] where a score is no number.
    pub fn evaluate(&mut self, data: &Arc<Dataset>) -> Result<Report, Error> {
        let link = self.model.link();
        let mut metrics = Metrics::new(match link {
            Link::Logistic => Kind::Logits,
            Link::Probit => Kind::Probabilities,
            Link::Identity => Kind::Ratings,
        });
        let mut from = 0;
        let mut result = Ok(());
        self.score(data, |scores| {
            let to = from + scores.len();
            let mut predictions = scores.to_vec();
            if link == Link::Probit {
                for score in &mut predictions {
                    *score = link.prediction(f64::from(*score)) as f32;
                }
            }
            if result.is_ok() {
                result = metrics.update(
                    &predictions,
                    &data.labels()[from..to],
                    data.weights().map(|weights| &weights[from..to]),
                    data.groups().map(|groups| &groups[from..to]),
                );
            }
            from = to;
        });
        result?;
        Ok(metrics.finish())
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
}

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
    in_pool(setup.train.threads, || {
        Run::start(setup, data, make, observer)?.finish()
    })?
}

/// Runs tensor operations on a pool of `threads` threads; 0: as many as the machine has.
///
/// # Errors
/// [`Error::Option`] if the system does not give them.
///
/// ```
/// let threads = crossfield_train::in_pool(2, rayon::current_num_threads)?;
/// assert_eq!(threads, 2);
/// # Ok::<(), crossfield_train::Error>(())
/// ```
pub fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> Result<R, Error> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| Error::Option {
        option: "train.threads".into(),
        reason: format!("{threads} threads: {error}"),
    })?;
    Ok(pool.install(work))
}

/// The parts of a data set, as a run uses them.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Fingerprint of the schema.
    pub schema: u64,
    /// Rows to learn from.
    pub train: Arc<Dataset>,
    /// Rows that decide when to stop.
    pub valid: Option<Arc<Dataset>>,
    /// Rows to report on.
    pub test: Option<Arc<Dataset>>,
}

impl From<Prepared> for Parts {
    fn from(prepared: Prepared) -> Self {
        Self {
            schema: prepared.schema.fingerprint(),
            train: Arc::new(prepared.train),
            valid: prepared.valid.map(Arc::new),
            test: prepared.test.map(Arc::new),
        }
    }
}

struct Run<'a, M> {
    setup: &'a Setup<'a>,
    data: &'a Parts,
    observer: &'a mut (dyn Observer + Send),
    /// The device that collects gradients.
    device: Device,
    model: M,
    tables: EmbeddingCollection,
    optimizer: ModuleOptimizer,
    state: State,
    checkpoints: Checkpoints,
}

impl<'a, M: Model> Run<'a, M> {
    fn start(
        setup: &'a Setup<'a>,
        data: &'a Parts,
        make: impl FnOnce(&Init) -> Result<M, Error>,
        observer: &'a mut (dyn Observer + Send),
    ) -> Result<Self, Error> {
        let seed = setup.train.seed;
        let inner = setup.train.device.init()?;
        let device = inner.clone().autodiff();
        // A component from outside may draw weights from Burn's own generator, which every
        // device shares within a process: its state is set here, and drawn from at once.
        inner.seed(seed);
        let model = make(&Init {
            device: device.clone(),
            seed,
        })?
        .materialize();
        let mut run = Self {
            model: dense::with_ids_from_paths(model),
            tables: EmbeddingCollection::new(setup.plans, seed)?,
            optimizer: setup.optimizer.dense.init(),
            state: State::new(data.schema, seed),
            checkpoints: Checkpoints::open(setup.out)?,
            setup,
            data,
            observer,
            device,
        };
        if let Some(newest) = run.checkpoints.newest()? {
            run.state = State::read(&newest, data.schema)?;
            run.load(&newest)?;
            run.optimizer = checkpoint::load_optimizers(
                &newest,
                &run.state,
                &run.model,
                &mut run.tables,
                run.optimizer.clone(),
            )?;
            run.observer.resumed(&run.state);
        }
        run.write_metrics_lines()?;
        Ok(run)
    }

    fn load(&mut self, folder: &Path) -> Result<(), Error> {
        self.model = checkpoint::load_weights(folder, self.model.clone(), &mut self.tables)?;
        Ok(())
    }

    fn finish(mut self) -> Result<(Trained<M>, FinalMetrics), Error> {
        while self.state.epoch < self.setup.train.epochs && !self.should_stop() {
            self.epoch()?;
        }
        // Without early stopping the last epoch is the model, whatever validation says of it.
        let best = match (self.setup.train.early_stop, self.state.best_step) {
            (Some(_), Some(best)) => best,
            _ => self.state.step,
        };
        if best != self.state.step {
            self.load(&self.checkpoints.at(best))?;
            let epoch = self.state.evaluations.iter().find(|at| at.step == best);
            self.observer
                .stopped_early(epoch.map_or(0, |evaluation| evaluation.epoch));
        }
        self.checkpoints.publish(best, self.setup.out)?;
        let mut trained = Trained {
            model: self.model.valid(),
            tables: self.tables,
            device: self.device.inner(),
        };
        let metrics = final_metrics(&mut trained, self.data)?;
        write_whole(&self.setup.out.join("metrics.json"), &json(&metrics))?;
        self.checkpoints.remove()?;
        Ok((trained, metrics))
    }

    fn epoch(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let TrainConfig {
            batch_size,
            seed,
            checkpoint_every,
            ..
        } = *self.setup.train;
        let first = self.state.step_in_epoch as usize;
        let epoch = self.state.epoch as u64;
        let order = Order::Shuffled { seed, epoch };
        let loader = Loader::new(self.data.train.clone(), order, batch_size, first);
        let steps = loader.steps();
        let total = steps as u64 * self.setup.train.epochs as u64;
        let mut schedule = self.setup.optimizer.schedule.init(total, self.state.step)?;
        let mut rows = 0;
        for batch in loader {
            let (loss, weight) = self.step(Arc::new(batch), schedule.step())?;
            rows += weight as u64;
            self.state.loss_sum += f64::from(loss) * weight;
            self.state.loss_weight += weight;
            self.state.step += 1;
            self.state.step_in_epoch += 1;
            self.observer.stepped(
                self.state.epoch + 1,
                self.state.step_in_epoch as usize,
                steps,
                self.state.loss_sum / self.state.loss_weight,
            );
            let inside = self.state.step_in_epoch < steps as u64;
            if checkpoint_every > 0 && inside && self.state.step.is_multiple_of(checkpoint_every) {
                self.save()?;
            }
        }
        let train_seconds = started.elapsed().as_secs_f64();

        self.state.epoch += 1;
        self.state.step_in_epoch = 0;
        let train_loss = self.state.loss_sum / self.state.loss_weight;
        (self.state.loss_sum, self.state.loss_weight) = (0.0, 0.0);
        let valid = match &self.data.valid {
            Some(valid) => Some(self.evaluate(valid)?),
            None => None,
        };
        let evaluation = Evaluation {
            epoch: self.state.epoch,
            step: self.state.step,
            train_loss,
            valid,
        };
        self.state.evaluations.push(evaluation.clone());
        self.state.best_step = best(&self.state.evaluations).map(|best| best.step);
        self.save()?;
        self.write_metrics_lines()?;
        let timing = Timing {
            epoch: self.state.epoch,
            train_seconds,
            examples_per_second: rows as f64 / train_seconds,
            other_seconds: started.elapsed().as_secs_f64() - train_seconds,
            peak_memory: peak_memory(),
        };
        append_line(&self.setup.out.join("timing.jsonl"), &timing)?;
        self.observer.evaluated(&evaluation, &timing);
        Ok(())
    }

    /// One batch: gather, forward, backward, update. Returns the loss and the batch's rows.
    fn step(&mut self, batch: Arc<crossfield_core::Batch>, rate: f64) -> Result<(f32, f64), Error> {
        let (lookup, staged) = self.tables.stage(batch.clone(), &self.device);
        let loss = self.model.loss(&lookup, &batch.targets);
        let value = loss.clone().into_scalar::<f32>();
        if !value.is_finite() {
            let rows = &self.setup.optimizer.rows;
            return Err(Error::Diverged {
                loss: value,
                epoch: self.state.epoch + 1,
                step: self.state.step + 1,
                optimizer: format!("{:?}, lr {}", rows.kind, rows.lr),
            });
        }
        let mut gradients = loss.backward();
        self.tables
            .apply(&lookup, &staged, &mut gradients, rate as f32)?;
        let gradients = GradientsParams::from_grads(gradients, &self.model);
        if !gradients.is_empty() {
            let lr = self.setup.optimizer.dense.lr * rate;
            self.model = self.optimizer.step(lr, self.model.clone(), gradients);
        }
        Ok((value, batch.batch_size as f64))
    }

    fn evaluate(&mut self, data: &Arc<Dataset>) -> Result<Report, Error> {
        let mut trained = Trained {
            model: self.model.valid(),
            tables: std::mem::take(&mut self.tables),
            device: self.device.clone().inner(),
        };
        let report = trained.evaluate(data);
        self.tables = trained.tables;
        report
    }

    fn save(&mut self) -> Result<(), Error> {
        self.checkpoints
            .save(&mut self.state, &self.model, &self.tables, &self.optimizer)
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

    fn should_stop(&self) -> bool {
        let Some(stop) = self.setup.train.early_stop else {
            return false;
        };
        best(&self.state.evaluations)
            .is_some_and(|best| self.state.epoch >= best.epoch + stop.patience)
    }
}

/// The evaluation with the lowest validation logloss (RMSE for ratings); `None` without a
/// validation part.
fn best(evaluations: &[Evaluation]) -> Option<&Evaluation> {
    evaluations
        .iter()
        .filter_map(|evaluation| {
            let valid = evaluation.valid.as_ref()?;
            Some((valid.logloss.or(valid.rmse)?, evaluation))
        })
        .min_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, evaluation)| evaluation)
}

fn final_metrics<M: Model>(trained: &mut Trained<M>, data: &Parts) -> Result<FinalMetrics, Error> {
    let mut metrics = FinalMetrics {
        train: Some(trained.evaluate(&data.train)?),
        ..Default::default()
    };
    if let Some(valid) = &data.valid {
        metrics.valid = Some(trained.evaluate(valid)?);
    }
    if let Some(test) = &data.test {
        metrics.test = Some(trained.evaluate(test)?);
    }
    if let Some(held_out) = data.test.as_ref().or(data.valid.as_ref()) {
        let kind = if trained.model.link().is_probability() {
            Kind::Probabilities
        } else {
            Kind::Ratings
        };
        let measure = |predictions: &[f32]| -> Result<Report, Error> {
            let mut metrics = Metrics::new(kind);
            metrics.update(predictions, held_out.labels(), held_out.weights(), None)?;
            Ok(metrics.finish())
        };
        if let Some(mean) = data.train.label_mean() {
            metrics.constant = Some(measure(&vec![mean as f32; held_out.len()])?);
        }
        metrics.bayes = held_out.probabilities().map(measure).transpose()?;
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
