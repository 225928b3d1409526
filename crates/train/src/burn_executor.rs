//! Training on Burn: any model, on any device.

use std::path::Path;
use std::sync::Arc;

use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use crossfield_core::metrics::Report;
use crossfield_core::{Batch, Init, Jagged, ListFigures, Model, TrainingStep};
use crossfield_data::{Dataset, Loader, Order};
use crossfield_embedding::{EmbeddingCollection, SavedRows, TablePlan};

use crate::executor::{Before, Done, Epoch, Executor, SavedTables, rows_by_mean, rows_evaluated};
use crate::memory::check_memory_of;
use crate::ranking::{self, RankedRows};
use crate::trainer::{diverged, make_tables};
use crate::{Error, Output, Scorer, Setup, State, checkpoint, dense};

/// Rows that are scored at a time when nothing is trained: few enough that what the layers of a
/// perceptron compute for them stays in the caches.
pub(crate) const SCORE_BATCH: usize = 1024;

/// A model and its tables, ready to score on Burn.
#[derive(Debug)]
pub struct Trained<M> {
    /// The model, without autodiff.
    pub model: M,
    /// Its tables.
    pub tables: EmbeddingCollection,
    /// Where it computes.
    pub device: Device,
    /// Share of the traffic's rows of label 0 that it was trained on.
    pub negative_rate: f64,
}

impl<M: Model> Trained<M> {
    /// Loads the model of a finished run, whose tables are as `plans` say: compressed as they were
    /// trained.
    ///
    /// # Errors
    /// Whatever is wrong with the files.
    pub fn load(
        run: &Path,
        schema: u64,
        model: M,
        plans: Vec<TablePlan>,
        device: &Device,
    ) -> Result<Self, Error> {
        let state = State::read(run, schema)?;
        let plans = plans.into_iter().map(TablePlan::into_read_only);
        let plans: Vec<TablePlan> = plans.collect();
        let left = check_memory_of(&plans, None)?;
        let mut tables = EmbeddingCollection::new(&plans, 0)?;
        tables.bound_mapped(left);
        let model = checkpoint::load_weights(run, SavedRows::All, model, &mut tables)?;
        Ok(Self {
            model,
            tables,
            device: device.clone(),
            negative_rate: state.negative_rate,
        })
    }

    /// The vectors that rank all items for these histories, whoever has them; `None` for a model that
    /// scores rows alone.
    pub fn queries(&mut self, histories: &[Vec<u32>]) -> Option<Vec<f32>> {
        let ranker = self.model.ranker()?;
        let items = ranker.items();
        let mut offsets = vec![0];
        offsets.extend(histories.iter().scan(0, |end, history| {
            *end += history.len() as u32;
            Some(*end)
        }));
        // Nobody asks about a target.
        let fields = items.history.max(items.target) + 1;
        let mut sparse = vec![Jagged::one_hot(vec![0; histories.len()]); fields];
        sparse[items.history] = Jagged {
            indices: histories.concat(),
            offsets: Some(offsets),
            weights: None,
        };
        let batch = Batch {
            batch_size: histories.len(),
            sparse,
            ..Batch::default()
        };
        let (lookup, _) = self.tables.stage(Arc::new(batch), &self.device);
        let queries = ranker.queries(&lookup).try_into_vec_as::<f32>();
        Some(queries.expect("queries are floats"))
    }

    /// What ranks all items for the rows of a data set; `None` for a model that scores rows alone.
    pub fn ranked(&mut self, data: &Arc<Dataset>) -> Option<Result<RankedRows, Error>> {
        ranking::ranked(&self.model, &mut self.tables, &self.device, data)
    }
}

impl<M: Model> Scorer for Trained<M> {
    fn output(&self) -> Output {
        Output::scores(self.model.link(), self.negative_rate)
    }

    fn score(&mut self, data: &Arc<Dataset>, each: &mut dyn FnMut(&[f32])) -> Result<(), Error> {
        score(&self.model, &mut self.tables, &self.device, data, each)
    }

    fn evaluate(&mut self, data: &Arc<Dataset>) -> Result<Report, Error> {
        match self.ranked(data) {
            Some(ranked) => ranking::evaluated(ranked, data),
            None => rows_evaluated(self, data),
        }
    }

    fn lists(&mut self, data: &Arc<Dataset>) -> Result<Option<Vec<ListFigures>>, Error> {
        let ranked = self.ranked(data).transpose()?;
        ranked.map(|ranked| ranked.each()).transpose()
    }
}

fn score<M: Model>(
    model: &M,
    tables: &mut EmbeddingCollection,
    device: &Device,
    data: &Arc<Dataset>,
    each: &mut dyn FnMut(&[f32]),
) -> Result<(), Error> {
    for batch in Loader::new(data.clone(), Order::Sequential, SCORE_BATCH, 0)? {
        let (lookup, _) = tables.stage(Arc::new(batch), device);
        let scores = model.score(&lookup).try_into_vec_as::<f32>();
        each(&scores.expect("scores are floats"));
    }
    Ok(())
}

pub(crate) struct BurnExecutor<'a, M> {
    setup: &'a Setup<'a>,
    /// The device that collects gradients.
    device: Device,
    model: M,
    tables: EmbeddingCollection,
    optimizer: ModuleOptimizer,
    /// Share of the traffic's rows of label 0 that are trained on.
    negative_rate: f64,
}

impl<'a, M: Model> BurnExecutor<'a, M> {
    pub(crate) fn new(
        setup: &'a Setup<'a>,
        negative_rate: f64,
        make: impl FnOnce(&Init) -> Result<M, Error>,
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
        Ok(Self {
            model: dense::with_ids_from_paths(model),
            tables: make_tables(setup)?,
            optimizer: setup.optimizer.dense.init(),
            setup,
            device,
            negative_rate,
        })
    }

    pub(crate) fn into_trained(self) -> Trained<M> {
        Trained {
            model: self.model.valid(),
            tables: self.tables,
            device: self.device.inner(),
            negative_rate: self.negative_rate,
        }
    }

    /// The scores of a batch, as the model is.
    fn scores(&mut self, batch: &Batch) -> Vec<f32> {
        let device = self.device.clone().inner();
        let (lookup, _) = self.tables.stage(Arc::new(batch.clone()), &device);
        let scores = self.model.valid().score(&lookup);
        scores.try_into_vec_as().expect("scores are floats")
    }

    /// One batch: gather, forward, backward, update. Returns the loss.
    fn step(&mut self, batch: &Arc<Batch>, rate: f64, at: TrainingStep) -> Result<f32, Error> {
        let (lookup, staged) = self.tables.stage(batch.clone(), &self.device);
        let lookup = lookup.for_training(at);
        let loss = self.model.loss(&lookup, &batch.targets);
        let value = loss.clone().into_scalar::<f32>();
        if !value.is_finite() {
            let epoch = at.epoch as usize + 1;
            return Err(diverged(self.setup, value, epoch, at.step + 1));
        }
        let mut gradients = loss.backward();
        self.tables
            .apply(&lookup, &staged, &mut gradients, rate as f32)?;
        let gradients = GradientsParams::from_grads(gradients, &self.model);
        if !gradients.is_empty() {
            let lr = self.setup.optimizer.dense.lr * rate;
            self.model = self.optimizer.step(lr, self.model.clone(), gradients);
        }
        Ok(value)
    }
}

impl<M: Model> Scorer for BurnExecutor<'_, M> {
    fn output(&self) -> Output {
        Output::scores(self.model.link(), self.negative_rate)
    }

    fn score(&mut self, data: &Arc<Dataset>, each: &mut dyn FnMut(&[f32])) -> Result<(), Error> {
        let (model, device) = (self.model.valid(), self.device.clone().inner());
        score(&model, &mut self.tables, &device, data, each)
    }

    fn evaluate(&mut self, data: &Arc<Dataset>) -> Result<Report, Error> {
        let (model, device) = (self.model.valid(), self.device.clone().inner());
        match ranking::ranked(&model, &mut self.tables, &device, data) {
            Some(ranked) => ranking::evaluated(ranked, data),
            None => rows_evaluated(self, data),
        }
    }

    /// Of a model that ranks: by popularity.
    fn constant(&mut self, train: &Dataset, data: &Arc<Dataset>) -> Result<Option<Report>, Error> {
        let (model, device) = (self.model.valid(), self.device.clone().inner());
        let ranked = ranking::ranked(&model, &mut self.tables, &device, data);
        match (ranked, model.ranker()) {
            (Some(ranked), Some(ranker)) => {
                ranking::by_popularity(ranker.items(), ranked, train, data).map(Some)
            }
            _ => rows_by_mean(self.output(), train, data),
        }
    }
}

impl<M: Model> Executor for BurnExecutor<'_, M> {
    fn steps(&self, rows: usize) -> usize {
        rows.div_ceil(self.setup.train.batch_size())
    }

    fn tables_mut(&mut self) -> Option<&mut EmbeddingCollection> {
        Some(&mut self.tables)
    }

    fn epoch(
        &mut self,
        mut epoch: Epoch<'_>,
        done: &mut dyn FnMut(&mut Self, Done<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let order = Order::Shuffled {
            seed: epoch.seed,
            epoch: epoch.number,
            block: epoch.block,
        };
        let batch_size = self.setup.train.batch_size();
        let loader = Loader::new(epoch.data.clone(), order, batch_size, epoch.first)?;
        for mut batch in loader {
            let weight = batch.batch_size as f64;
            let rate = epoch.rates.step();
            let at = TrainingStep {
                seed: epoch.seed,
                epoch: epoch.number,
                step: epoch.step,
            };
            let before = epoch.evaluate_first.then(|| self.scores(&batch));
            self.model.draw(&mut batch, at);
            let batch = Arc::new(batch);
            let loss = self.step(&batch, rate, at)?;
            epoch.step += 1;
            let one = Done {
                steps: 1,
                rows: weight as u64,
                loss_sum: f64::from(loss) * weight,
                loss_weight: weight,
                before: before.as_ref().map(|scores| Before {
                    scores,
                    labels: &batch.targets.labels,
                    weights: batch.targets.weights.as_deref(),
                }),
            };
            done(self, one)?;
        }
        Ok(())
    }

    fn save(&self, folder: &Path, state: &mut State, tables: SavedTables) -> Result<(), Error> {
        let of_tables = tables.tensors(&self.tables);
        checkpoint::write_model(folder, state, &self.model, of_tables, &self.optimizer)
    }

    fn load(&mut self, folder: &Path, rows: SavedRows) -> Result<(), Error> {
        self.model = checkpoint::load_weights(folder, rows, self.model.clone(), &mut self.tables)?;
        Ok(())
    }

    fn load_optimizer(
        &mut self,
        folder: &Path,
        state: &State,
        rows: SavedRows,
    ) -> Result<(), Error> {
        self.optimizer = checkpoint::load_optimizers(
            folder,
            rows,
            state,
            &self.model,
            &mut self.tables,
            self.optimizer.clone(),
        )?;
        Ok(())
    }
}
