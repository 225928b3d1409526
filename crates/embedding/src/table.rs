//! One embedding table in host memory.

use crossfield_core::rng::{Purpose, name_key, rng};
use crossfield_core::{Initializer, TableConfig};
use rand_distr::{Distribution, Normal, Uniform};
use rayon::prelude::*;

use crate::pages::Pages;
use crate::row::{from_bf16, to_bf16};
use crate::{
    Error, Precision, RowLayout, RowOptimizer, RowOptimizerKind, Snapshot, SnapshotTensor,
};

/// Rows that are drawn from one stream of random numbers.
const INIT_BLOCK: usize = 4096;
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
/// let config = TableConfig {
///     name: "v8.user".into(),
///     rows: 1000,
///     dim: 8,
///     fields: vec![0],
///     initializer: Initializer::Normal { std: 0.01 },
///     oov_row: Some(0),
/// };
/// let plan = TablePlan::new(config, RowOptimizer::default());
/// assert_eq!((plan.weight_bytes(), plan.state_bytes()), (32_000, 32_000));
/// let table = Table::new(&plan, 1)?;
/// assert_eq!(table.weights(0), [0.0; 8]);
/// assert_ne!(table.weights(1), Table::new(&plan, 2)?.weights(1));
/// # Ok::<(), crossfield_embedding::Error>(())
/// ```
#[derive(Debug)]
pub struct Table {
    config: TableConfig,
    optimizer: RowOptimizer,
    frozen: bool,
    layout: RowLayout,
    memory: Pages,
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
    /// How weights are kept.
    pub precision: Precision,
}

impl TablePlan {
    /// A table that is trained, of `f32` rows.
    pub fn new(config: TableConfig, optimizer: RowOptimizer) -> Self {
        Self {
            config,
            optimizer,
            frozen: false,
            precision: Precision::F32,
        }
    }

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
            precision: Precision::F32,
        }
    }

    /// Where the parts of a row lie.
    pub fn layout(&self) -> RowLayout {
        RowLayout::new(self.config.dim, &self.optimizer, self.precision)
    }

    /// Bytes of the weights, padding included.
    pub fn weight_bytes(&self) -> u64 {
        (self.config.rows * self.layout().state_at) as u64
    }

    /// Bytes of the optimizer's state, padding included.
    pub fn state_bytes(&self) -> u64 {
        let layout = self.layout();
        (self.config.rows * (layout.stride - layout.state_at)) as u64
    }

    /// Checks what a table needs to be made, before it is.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for an optimizer's numbers; [`Error::HalfRows`] for rows of halves under
    /// an optimizer other than row-wise AdaGrad, or of a single weight.
    pub fn check(&self) -> Result<(), Error> {
        let half_rows = |expected| {
            Err(Error::HalfRows {
                table: self.config.name.clone(),
                expected,
            })
        };
        if self.precision == Precision::Bf16 {
            if self.config.dim == 1 {
                return half_rows("more than one weight: leave linear weights out of the match");
            }
            if self.optimizer.kind != RowOptimizerKind::RowwiseAdagrad {
                return half_rows("kind = \"rowwise_adagrad\"");
            }
        }
        self.optimizer.check(&self.config.name)
    }
}

impl Table {
    /// Makes a table whose rows depend on nothing but the seed, the name and the row.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for an optimizer's numbers, [`Error::HalfRows`], [`Error::NoMemory`].
    pub fn new(plan: &TablePlan, seed: u64) -> Result<Self, Error> {
        plan.check()?;
        let TablePlan {
            config,
            optimizer,
            frozen,
            ..
        } = plan.clone();
        let layout = plan.layout();
        let mut memory = Pages::zeroed(&config.name, config.rows * layout.stride)?;
        let key = name_key(&config.name);
        let oov_row = config.oov_row.map(|row| row as usize);
        let fills = Fills::new(config.initializer);
        let blocks = memory
            .bytes_mut()
            .par_chunks_mut(INIT_BLOCK * layout.stride);
        blocks.enumerate().for_each(|(block, rows)| {
            let mut rng = rng(seed, Purpose::TableInit, key, block as u64);
            let mut weights = vec![0f32; layout.dim];
            for (nth, row) in rows.chunks_exact_mut(layout.stride).enumerate() {
                fills.fill(&mut rng, &mut weights);
                if oov_row == Some(block * INIT_BLOCK + nth) {
                    weights.fill(0.0);
                }
                let (head, state) = row.split_at_mut(layout.state_at);
                put(layout, head, &weights);
                let state = &mut state[..optimizer.state_len(layout.dim) * size_of::<f32>()];
                optimizer.init_state(&weights, bytemuck::cast_slice_mut(state));
            }
        });
        Ok(Self {
            config,
            optimizer,
            frozen,
            layout,
            memory,
        })
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

    /// Where the parts of a row lie.
    pub fn layout(&self) -> RowLayout {
        self.layout
    }

    /// The rows, one after the other as [`layout`](Self::layout) says: for kernels.
    pub fn bytes(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// The rows, to be changed by kernels.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.bytes_mut()
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.memory.bytes()[row * self.layout.stride..][..self.layout.stride]
    }

    /// The weights of a row.
    ///
    /// # Panics
    /// If rows are kept in halves; [`read_weights`](Self::read_weights) reads those too.
    pub fn weights(&self, row: u32) -> &[f32] {
        assert_eq!(self.layout.precision, Precision::F32, "rows of halves");
        let weights = &self.row(row as usize)[..self.layout.dim * size_of::<f32>()];
        bytemuck::cast_slice(weights)
    }

    /// Copies the weights of a row.
    ///
    /// # Shapes
    /// - weights: `[dim]`
    pub fn read_weights(&self, row: u32, weights: &mut [f32]) {
        get(self.layout, self.row(row as usize), weights);
    }

    /// Sets the weights of a row.
    ///
    /// # Shapes
    /// - weights: `[dim]`
    pub fn write_weights(&mut self, row: u32, weights: &[f32]) {
        let layout = self.layout;
        let from = row as usize * layout.stride;
        put(layout, &mut self.memory.bytes_mut()[from..], weights);
    }

    /// The weights of a row, to be filled from outside.
    ///
    /// # Panics
    /// If rows are kept in halves.
    pub fn weights_mut(&mut self, row: u32) -> &mut [f32] {
        self.row_mut(row).0
    }

    /// Weights and state of a row.
    pub(crate) fn row_mut(&mut self, row: u32) -> (&mut [f32], &mut [f32]) {
        assert_eq!(self.layout.precision, Precision::F32, "rows of halves");
        let layout = self.layout;
        let row = &mut self.memory.bytes_mut()[row as usize * layout.stride..][..layout.stride];
        let (weights, state) = row.split_at_mut(layout.state_at);
        (
            &mut bytemuck::cast_slice_mut(weights)[..layout.dim],
            bytemuck::cast_slice_mut(state),
        )
    }

    /// The parts of a row's state: name, floats before it, values.
    fn state_parts(&self) -> impl Iterator<Item = (&'static str, usize, usize)> + use<> {
        let dim = self.config.dim;
        let mut from = 0;
        self.optimizer.state().iter().map(move |(part, width)| {
            let at = from;
            from += width.len(dim);
            (*part, at, width.values(dim))
        })
    }

    /// The weights, as a snapshot takes them: `[rows, dim]`.
    pub fn weight_tensor(&self) -> SnapshotTensor<'_> {
        let dim = self.config.dim;
        SnapshotTensor {
            shape: vec![self.config.rows, dim],
            values: Box::new(move |write| {
                let mut weights = vec![0f32; dim];
                (0..self.config.rows as u32).try_for_each(|row| {
                    self.read_weights(row, &mut weights);
                    write(&weights)
                })
            }),
        }
    }

    /// The parts of the optimizer's state with their names: `[rows, dim]` or `[rows, 1]` each.
    pub fn state_tensors(&self) -> Vec<(&'static str, SnapshotTensor<'_>)> {
        let layout = self.layout;
        self.state_parts()
            .map(|(part, from, width)| {
                let tensor = SnapshotTensor {
                    shape: vec![self.config.rows, width],
                    values: Box::new(move |write| {
                        let mut rows = self.bytes().chunks_exact(layout.stride);
                        rows.try_for_each(|row| {
                            let state: &[f32] = bytemuck::cast_slice(&row[layout.state_at..]);
                            write(&state[from..][..width])
                        })
                    }),
                };
                (part, tensor)
            })
            .collect()
    }

    /// Reads the weights from the tensor `name` of a snapshot.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn load_weights(&mut self, snapshot: &mut Snapshot, name: &str) -> Result<(), Error> {
        let (shape, layout) = ([self.config.rows, self.config.dim], self.layout);
        let mut rows = self.bytes_mut().chunks_exact_mut(layout.stride);
        snapshot.read(name, &shape, |block| {
            for (weights, row) in block.chunks_exact(layout.dim).zip(&mut rows) {
                put(layout, row, weights);
            }
        })
    }

    /// Reads the optimizer's state from the tensors `name.<part>` of a snapshot.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn load_state(&mut self, snapshot: &mut Snapshot, name: &str) -> Result<(), Error> {
        let (count, layout) = (self.config.rows, self.layout);
        for (part, from, width) in self.state_parts() {
            let mut rows = self.bytes_mut().chunks_exact_mut(layout.stride);
            snapshot.read(&format!("{name}.{part}"), &[count, width], |block| {
                for (values, row) in block.chunks_exact(width).zip(&mut rows) {
                    let state: &mut [f32] = bytemuck::cast_slice_mut(&mut row[layout.state_at..]);
                    state[from..][..width].copy_from_slice(values);
                }
            })?;
        }
        Ok(())
    }
}

/// The weights at the head of a row.
fn get(layout: RowLayout, row: &[u8], weights: &mut [f32]) {
    match layout.precision {
        Precision::F32 => {
            let from: &[f32] = bytemuck::cast_slice(&row[..layout.dim * size_of::<f32>()]);
            weights.copy_from_slice(from);
        }
        Precision::Bf16 => {
            let from: &[u16] = bytemuck::cast_slice(&row[..layout.dim * size_of::<u16>()]);
            for (weight, &half) in weights.iter_mut().zip(from) {
                *weight = from_bf16(half);
            }
        }
    }
}

/// Puts weights at the head of a row.
fn put(layout: RowLayout, row: &mut [u8], weights: &[f32]) {
    match layout.precision {
        Precision::F32 => {
            let to = &mut row[..layout.dim * size_of::<f32>()];
            to.copy_from_slice(bytemuck::cast_slice(weights));
        }
        Precision::Bf16 => {
            let to = &mut row[..layout.dim * size_of::<u16>()];
            let to: &mut [u16] = bytemuck::cast_slice_mut(to);
            for (half, &weight) in to.iter_mut().zip(weights) {
                *half = to_bf16(weight);
            }
        }
    }
}

/// An initialiser, ready to draw.
enum Fills {
    Zeros,
    Normal(Normal<f32>),
    Uniform(Uniform<f32>),
}

impl Fills {
    fn new(initializer: Initializer) -> Self {
        let checked = "checked in the run file";
        match initializer {
            Initializer::Zeros => Self::Zeros,
            Initializer::Normal { std } => {
                Self::Normal(Normal::new(0.0, std as f32).expect(checked))
            }
            Initializer::Uniform { low, high } => {
                Self::Uniform(Uniform::new(low as f32, high as f32).expect(checked))
            }
        }
    }

    fn fill(&self, rng: &mut impl rand::Rng, weights: &mut [f32]) {
        match self {
            Self::Zeros => weights.fill(0.0),
            Self::Normal(normal) => weights.fill_with(|| normal.sample(rng)),
            Self::Uniform(uniform) => weights.fill_with(|| uniform.sample(rng)),
        }
    }
}
