//! Training row by row, without a graph.

use std::path::Path;
use std::sync::Arc;

use crossfield_core::Loss;
use crossfield_data::{Dataset, TrainingRows};
use crossfield_embedding::{
    EmbeddingCollection, SavedRows, Snapshot, SnapshotTensor, TablePlan, write_snapshot,
};
use crossfield_fused::{
    Bias, BiasOptimizer, BiasRule, Fused, FusedComponent, Isa, Options, Passed, RowData, Turn,
};

use crate::checkpoint::{MODEL, OPTIMIZER};
use crate::config::refuse_fused;
use crate::executor::{Before, Done, Epoch, Executor, SavedTables};
use crate::memory::check_memory_of;
use crate::trainer::{diverged, make_tables};
use crate::{DenseOptimizer, DenseOptimizerKind, Error, Output, Scorer, Setup, State};

/// Rows between two looks at the progress: a tenth of a second. Threads are made anew for each turn.
const TURN: usize = 1 << 15;
/// Rows for which the rows of mapped tables are written down and kept in memory together.
const MAPPED_TURN: usize = 1 << 12;
/// The bias under its module path, and its optimizer's state.
const BIAS: &str = "bias";
const BIAS_STATE: &str = "dense.bias";

/// A sum of components with a closed-form gradient, and whether a bias is added.
#[derive(Debug)]
pub struct FusedModel {
    /// The components.
    pub components: Vec<Box<dyn FusedComponent>>,
    /// What is minimised.
    pub loss: Loss,
    /// Whether the score has a bias.
    pub bias: bool,
}

/// A model and its tables, ready to score row by row.
#[derive(Debug)]
pub struct FusedTrained {
    fused: Fused,
    tables: EmbeddingCollection,
    output: Output,
}

impl FusedTrained {
    /// Loads the model of a finished run, whose tables are as `plans` say.
    ///
    /// # Errors
    /// Whatever is wrong with the files; [`Error::Option`] for a compressed table.
    pub fn load(
        run: &Path,
        schema: u64,
        model: FusedModel,
        plans: Vec<TablePlan>,
    ) -> Result<Self, Error> {
        let state = State::read(run, schema)?;
        let plans = plans.into_iter().map(TablePlan::into_read_only);
        let plans: Vec<TablePlan> = plans.collect();
        plans.iter().try_for_each(refuse_fused)?;
        let left = check_memory_of(&plans, None)?;
        let mut tables = EmbeddingCollection::new(&plans, 0)?;
        tables.bound_mapped(left);
        let output = Output::scores(model.loss.link(), state.negative_rate);
        let mut fused = make(model, 0.0, DenseOptimizer::default(), false)?;
        load(run, SavedRows::All, &mut fused, &mut tables)?;
        Ok(Self {
            fused,
            tables,
            output,
        })
    }
}

impl Scorer for FusedTrained {
    fn output(&self) -> Output {
        self.output
    }

    fn score(&mut self, data: &Arc<Dataset>, each: &mut dyn FnMut(&[f32])) -> Result<(), Error> {
        score(&self.fused, &self.tables, data, each)
    }
}

fn score(
    fused: &Fused,
    tables: &EmbeddingCollection,
    data: &Dataset,
    each: &mut dyn FnMut(&[f32]),
) -> Result<(), Error> {
    assert!(data.keys().next().is_none(), "keys were not looked up");
    let rows = RowData::new(data.examples());
    let mut from = 0;
    let scored = fused.score(tables, &rows, |scores| {
        let to = from + scores.len();
        tables.touch(rows.examples(), from..to);
        from = to;
        each(scores);
    });
    Ok(scored?)
}

fn make(
    model: FusedModel,
    bias: f32,
    optimizer: DenseOptimizer,
    fast: bool,
) -> Result<Fused, Error> {
    let bias = model
        .bias
        .then(|| Bias::new(bias, bias_optimizer(optimizer)));
    let options = Options {
        isa: Isa::detect().map_err(crossfield_fused::Error::from)?,
        fast,
    };
    Ok(Fused::new(model.components, model.loss, bias, options)?)
}

fn bias_optimizer(dense: DenseOptimizer) -> BiasOptimizer {
    BiasOptimizer {
        kind: match dense.kind {
            DenseOptimizerKind::Sgd => BiasRule::Sgd,
            DenseOptimizerKind::Adagrad => BiasRule::Adagrad,
            DenseOptimizerKind::Adam => BiasRule::Adam { decoupled: false },
            DenseOptimizerKind::Adamw => BiasRule::Adam { decoupled: true },
        },
        lr: dense.lr,
        weight_decay: dense.weight_decay,
        beta1: dense.beta1,
        beta2: dense.beta2,
        eps: dense.eps,
    }
}

fn load(
    folder: &Path,
    rows: SavedRows,
    fused: &mut Fused,
    tables: &mut EmbeddingCollection,
) -> Result<(), Error> {
    let mut snapshot = Snapshot::open(&folder.join(MODEL))?.with_rows(rows);
    tables.load_weights(&mut snapshot)?;
    if let Some(bias) = &mut fused.bias {
        snapshot.read(BIAS, &[1], |block| bias.value = block[0])?;
    }
    Ok(())
}

pub(crate) struct FusedExecutor<'a> {
    setup: &'a Setup<'a>,
    fused: Fused,
    tables: EmbeddingCollection,
    output: Output,
}

impl<'a> FusedExecutor<'a> {
    /// `train` are the rows to learn from.
    pub(crate) fn new(
        setup: &'a Setup<'a>,
        model: FusedModel,
        train: &TrainingRows,
    ) -> Result<Self, Error> {
        let link = model.loss.link();
        let held = train.held();
        // Of rows that are not at hand nothing is known: the score of no preference.
        let bias = train
            .label_mean()
            .map_or(0.0, |mean| link.score(mean) as f32);
        let fused = make(model, bias, setup.optimizer.dense, setup.train.fast)?;
        let tables = make_tables(setup)?;
        // Rows whose keys have none yet are checked block by block.
        if let Some(rows) = held.filter(|rows| rows.keys().next().is_none()) {
            fused.check(&tables, &RowData::new(rows.examples()))?;
        }
        Ok(Self {
            setup,
            fused,
            tables,
            output: Output::scores(link, train.negative_rate()),
        })
    }
}

impl Scorer for FusedExecutor<'_> {
    fn output(&self) -> Output {
        self.output
    }

    fn score(&mut self, data: &Arc<Dataset>, each: &mut dyn FnMut(&[f32])) -> Result<(), Error> {
        score(&self.fused, &self.tables, data, each)
    }
}

impl Executor for FusedExecutor<'_> {
    /// Each row is a step.
    fn steps(&self, rows: usize) -> usize {
        rows
    }

    fn tables_mut(&mut self) -> Option<&mut EmbeddingCollection> {
        Some(&mut self.tables)
    }

    fn epoch(
        &mut self,
        mut epoch: Epoch<'_>,
        done: &mut dyn FnMut(&mut Self, Done<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let rows_of_block = RowData::new(epoch.data.examples());
        let order = (epoch.data).epoch_order(epoch.seed, epoch.number, epoch.block);
        self.fused.keep_scores = epoch.evaluate_first;
        let (mut labels, mut weights) = (Vec::new(), Vec::new());
        let at_a_time = if self.tables.has_mapped_rows() {
            // Before any row is looked for, which training itself checks too late.
            self.fused.check(&self.tables, &rows_of_block)?;
            MAPPED_TURN
        } else {
            TURN
        };
        let mut rest = &order[epoch.first..];
        let mut rates = Vec::with_capacity(TURN);
        while !rest.is_empty() {
            let mut len = TURN.min(rest.len());
            if epoch.checkpoint_every > 0 {
                // Not beyond the next step after which a checkpoint is due.
                let due = epoch.checkpoint_every - epoch.step % epoch.checkpoint_every;
                len = len.min(usize::try_from(due).unwrap_or(usize::MAX));
            }
            let (rows, others) = rest.split_at(len);
            rest = others;
            rates.clear();
            rates.extend((0..len).map(|_| epoch.rates.step() as f32));
            let mut passed = Passed::default();
            for (rows, rates) in rows.chunks(at_a_time).zip(rates.chunks(at_a_time)) {
                let turn = Turn {
                    rows,
                    rates,
                    seed: epoch.seed,
                    first_step: epoch.step,
                    threads: self.setup.train.fused_threads(),
                };
                let numbers = rows.iter().map(|&row| row as usize);
                let examples = rows_of_block.examples();
                self.tables.about_to_change(examples, numbers)?;
                let (tables, data) = (&mut self.tables, &rows_of_block);
                let trained = self.fused.go_on(tables, data, turn, &mut passed);
                trained.map_err(|error| match error {
                    crossfield_fused::Error::NonFiniteScore { step, score, .. } => {
                        diverged(self.setup, score, epoch.number as usize + 1, step + 1)
                    }
                    other => other.into(),
                })?;
                epoch.step += rows.len() as u64;
            }
            let some = Done {
                steps: len as u64,
                rows: len as u64,
                loss_sum: passed.loss_sum,
                loss_weight: passed.weight,
                before: epoch.evaluate_first.then(|| {
                    let examples = rows_of_block.examples();
                    labels.clear();
                    labels.extend(rows.iter().map(|&row| examples.labels[row as usize]));
                    Before {
                        scores: &passed.scores,
                        labels: &labels,
                        weights: examples.weights.map(|of_rows| {
                            weights.clear();
                            weights.extend(rows.iter().map(|&row| of_rows[row as usize]));
                            weights.as_slice()
                        }),
                    }
                }),
            };
            done(self, some)?;
        }
        Ok(())
    }

    fn save(&self, folder: &Path, _state: &mut State, tables: SavedTables) -> Result<(), Error> {
        let bias = self.fused.bias.as_ref();
        let value = bias.map(|bias| [bias.value]);
        let state = bias.map(|bias| bias.state);
        let [mut model, mut optimizer] = tables.tensors(&self.tables);
        if let Some(value) = &value {
            model.insert(BIAS.to_owned(), SnapshotTensor::from_slice(vec![1], value));
        }
        if let Some(state) = &state {
            let tensor = SnapshotTensor::from_slice(vec![3], state);
            optimizer.insert(BIAS_STATE.to_owned(), tensor);
        }
        write_snapshot(&folder.join(MODEL), model)?;
        Ok(write_snapshot(&folder.join(OPTIMIZER), optimizer)?)
    }

    fn load(&mut self, folder: &Path, rows: SavedRows) -> Result<(), Error> {
        load(folder, rows, &mut self.fused, &mut self.tables)
    }

    fn load_optimizer(
        &mut self,
        folder: &Path,
        _state: &State,
        rows: SavedRows,
    ) -> Result<(), Error> {
        let mut snapshot = Snapshot::open(&folder.join(OPTIMIZER))?.with_rows(rows);
        self.tables.load_state(&mut snapshot)?;
        if let Some(bias) = &mut self.fused.bias {
            let state = &mut bias.state;
            snapshot.read(BIAS_STATE, &[3], |block| state.copy_from_slice(block))?;
        }
        Ok(())
    }
}
