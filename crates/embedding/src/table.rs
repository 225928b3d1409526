//! One embedding table in host memory.

use crossfield_core::rng::{Purpose, name_key, rng};
use crossfield_core::{Initializer, TableConfig};
use rand_distr::{Distribution, Normal, Uniform};
use rayon::prelude::*;

use crate::{Error, RowOptimizer, RowOptimizerKind, Snapshot, SnapshotTensor};

/// Rows that are drawn from one stream of random numbers.
const INIT_BLOCK: usize = 4096;
/// Floats of a cache line; rows begin on one where their length allows it.
const CACHE_LINE: usize = 16;

/// Rows of weights, each followed by its optimizer state, in one allocation.
///
/// ```text
/// row 0   w w w w | n n n n        4 weights and their AdaGrad accumulators:
/// row 1   w w w w | n n n n        one walk through memory updates both
/// ```
///
/// ```
/// use crossfield_core::{Initializer, TableConfig};
/// use crossfield_embedding::{RowOptimizer, Table, TablePlan};
///
/// let plan = TablePlan {
///     config: TableConfig {
///         name: "v8.user".into(),
///         rows: 1000,
///         dim: 8,
///         fields: vec![0],
///         initializer: Initializer::Normal { std: 0.01 },
///         oov_row: Some(0),
///     },
///     optimizer: RowOptimizer::default(),
///     frozen: false,
/// };
/// assert_eq!((plan.weight_bytes(), plan.state_bytes()), (32_000, 32_000));
/// let table = Table::new(&plan, 1);
/// assert_eq!(table.weights(0), [0.0; 8]);
/// assert_ne!(table.weights(1), Table::new(&plan, 2).weights(1));
/// ```
#[derive(Debug)]
pub struct Table {
    config: TableConfig,
    optimizer: RowOptimizer,
    frozen: bool,
    stride: usize,
    /// `start` floats are left out, so that row 0 begins on a cache line.
    memory: Vec<f32>,
    start: usize,
}

/// What a table will be, and what it will take, before it is made.
#[derive(Clone, Debug, PartialEq)]
pub struct TablePlan {
    /// Shape and initialiser.
    pub config: TableConfig,
    /// How touched rows are updated.
    pub optimizer: RowOptimizer,
    /// Whether rows stay as they are.
    pub frozen: bool,
}

impl TablePlan {
    /// A table that is only read: no optimizer state, rows to be loaded.
    pub fn read_only(config: TableConfig) -> Self {
        Self {
            config: TableConfig {
                initializer: Initializer::Zeros,
                ..config
            },
            optimizer: RowOptimizer {
                kind: RowOptimizerKind::Sgd,
                ..RowOptimizer::default()
            },
            frozen: true,
        }
    }

    /// Bytes of the weights.
    pub fn weight_bytes(&self) -> u64 {
        (self.config.rows * self.config.dim * size_of::<f32>()) as u64
    }

    /// Bytes of the optimizer's state.
    pub fn state_bytes(&self) -> u64 {
        (self.config.rows * self.optimizer.state_len(self.config.dim) * size_of::<f32>()) as u64
    }
}

impl Table {
    /// Makes a table whose rows depend on nothing but the seed, the name and the row.
    pub fn new(plan: &TablePlan, seed: u64) -> Self {
        let TablePlan {
            config,
            optimizer,
            frozen,
        } = plan.clone();
        let dim = config.dim;
        let stride = dim + optimizer.state_len(dim);
        let memory = vec![0f32; config.rows * stride + CACHE_LINE];
        let start = memory
            .as_ptr()
            .align_offset(CACHE_LINE * size_of::<f32>())
            .min(CACHE_LINE);
        let mut table = Self {
            config,
            optimizer,
            frozen,
            stride,
            memory,
            start,
        };
        let key = name_key(&table.config.name);
        let (initializer, oov_row) = (table.config.initializer, table.config.oov_row);
        table
            .all_rows_mut()
            .par_chunks_mut(INIT_BLOCK * stride)
            .enumerate()
            .for_each(|(block, rows)| {
                let mut rng = rng(seed, Purpose::TableInit, key, block as u64);
                let mut fill = |weights: &mut [f32]| match initializer {
                    Initializer::Zeros => weights.fill(0.0),
                    Initializer::Normal { std } => {
                        let normal = Normal::new(0.0, std as f32).expect("checked in the run file");
                        weights.fill_with(|| normal.sample(&mut rng));
                    }
                    Initializer::Uniform { low, high } => {
                        let uniform =
                            Uniform::new(low as f32, high as f32).expect("checked in the run file");
                        weights.fill_with(|| uniform.sample(&mut rng));
                    }
                };
                for (nth, row) in rows.chunks_exact_mut(stride).enumerate() {
                    fill(&mut row[..dim]);
                    if oov_row.is_some_and(|oov| oov as usize == block * INIT_BLOCK + nth) {
                        row[..dim].fill(0.0);
                    }
                    optimizer.init_state(row, dim);
                }
            });
        table
    }

    /// Shape and initialiser.
    pub fn config(&self) -> &TableConfig {
        &self.config
    }

    /// How touched rows are updated.
    pub fn optimizer(&self) -> &RowOptimizer {
        &self.optimizer
    }

    /// Whether rows stay as they are.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// The weights of a row.
    pub fn weights(&self, row: u32) -> &[f32] {
        &self.memory[self.start + row as usize * self.stride..][..self.config.dim]
    }

    /// The weights of a row, to be filled from outside.
    pub fn weights_mut(&mut self, row: u32) -> &mut [f32] {
        let dim = self.config.dim;
        &mut self.row_mut(row)[..dim]
    }

    /// Weights and state of a row.
    pub(crate) fn row_mut(&mut self, row: u32) -> &mut [f32] {
        &mut self.memory[self.start + row as usize * self.stride..][..self.stride]
    }

    fn all_rows(&self) -> &[f32] {
        &self.memory[self.start..][..self.config.rows * self.stride]
    }

    fn all_rows_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.start..][..self.config.rows * self.stride]
    }

    /// The weights, as a snapshot takes them: `[rows, dim]`.
    pub fn weight_tensor(&self) -> SnapshotTensor<'_> {
        self.columns(0, self.config.dim)
    }

    /// The parts of the optimizer's state with their names: `[rows, dim]` or `[rows, 1]` each.
    pub fn state_tensors(&self) -> Vec<(&'static str, SnapshotTensor<'_>)> {
        let mut from = self.config.dim;
        self.optimizer
            .state()
            .iter()
            .map(|(part, width)| {
                let width = width.len(self.config.dim);
                let tensor = self.columns(from, width);
                from += width;
                (*part, tensor)
            })
            .collect()
    }

    fn columns(&self, from: usize, width: usize) -> SnapshotTensor<'_> {
        SnapshotTensor {
            shape: vec![self.config.rows, width],
            blocks: Box::new(
                self.all_rows()
                    .chunks_exact(self.stride)
                    .map(move |row| &row[from..][..width]),
            ),
        }
    }

    /// Reads the weights from the tensor `name` of a snapshot.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn load_weights(&mut self, snapshot: &mut Snapshot, name: &str) -> Result<(), Error> {
        self.load_columns(snapshot, name, 0, self.config.dim)
    }

    /// Reads the optimizer's state from the tensors `name.<part>` of a snapshot.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn load_state(&mut self, snapshot: &mut Snapshot, name: &str) -> Result<(), Error> {
        let mut from = self.config.dim;
        for (part, width) in self.optimizer.state() {
            let width = width.len(self.config.dim);
            self.load_columns(snapshot, &format!("{name}.{part}"), from, width)?;
            from += width;
        }
        Ok(())
    }

    fn load_columns(
        &mut self,
        snapshot: &mut Snapshot,
        name: &str,
        from: usize,
        width: usize,
    ) -> Result<(), Error> {
        let (rows, stride) = (self.config.rows, self.stride);
        let mut next = self.all_rows_mut().chunks_exact_mut(stride);
        snapshot.read(name, &[rows, width], |block| {
            for (values, row) in block.chunks_exact(width).zip(&mut next) {
                row[from..][..width].copy_from_slice(values);
            }
        })
    }
}
