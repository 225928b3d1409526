//! One embedding table in host memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossfield_core::rng::{Purpose, name_key, rng};
use crossfield_core::{Initializer, TableConfig};
use crossfield_simd::prefetch;
use rand_distr::{Distribution, Normal, Uniform};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::mapped::MappedFile;
use crate::pages::Pages;
use crate::row::{from_bf16, to_bf16};
use crate::undo::{self, Undo};
use crate::{
    Compress, Error, MappedRows, Place, Precision, RowLayout, RowOptimizer, RowOptimizerKind,
    RowStep, SavedRows, Snapshot, SnapshotTensor, Storage,
};

/// Rows that are drawn from one stream of random numbers.
const INIT_BLOCK: usize = 4096;

/// Blocks of rows that are drawn at a time, in parallel, for a file.
const FILE_BLOCKS: usize = 32;

/// Rows that are copied at a time for a snapshot.
const SNAPSHOT_ROWS: usize = 4096;

/// Rows between the one whose memory is asked for and the one that is worked on.
const AHEAD: usize = 16;

/// Rows of weights, each followed by its optimizer state, in one allocation or one mapped file.
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
    max_norm: Option<f32>,
    layout: RowLayout,
    memory: Pages,
    /// Rows in use.
    rows: usize,
    /// Whether there may be more of them, up to those of the configuration.
    grows: bool,
    /// Of a table whose rows lie in a file of the run.
    undo: Option<Undo>,
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
    /// How rows are composed of those of smaller tables; none: the table is whole.
    pub compress: Option<Compress>,
    /// Length to which a longer row is scaled back after it was updated.
    pub max_norm: Option<f32>,
    /// For each row the row of the part, under [`Compress::Frequent`]; 0 is what rare values share.
    /// Set by [`with_counts`](Self::with_counts).
    pub own_rows: Option<Arc<[u32]>>,
    /// What of its L2 a row pays at a step.
    pub l2_by: L2By,
    /// For each row 1 / its occurrences in training, under [`L2By::Occurrence`]; 0 where there are
    /// none. Set by [`with_counts`](Self::with_counts).
    pub inverse_counts: Option<Arc<[f32]>>,
    /// Of a table whose rows are given to keys one by one, as an [`Admission`](crate::Admission) says:
    /// for how many rows memory is counted, all that there can be, or 1 where that is no bound.
    /// `config.rows` are then those that address space is reserved for. None: all rows are there from
    /// the start.
    pub growing: Option<usize>,
    /// Where its rows lie.
    pub storage: Storage,
}

/// What of its L2 a row that occurs in a batch pays at that step.
///
/// ```
/// use crossfield_core::{Initializer, TableConfig};
/// use crossfield_embedding::{L2By, RowOptimizer, TablePlan};
///
/// let config = TableConfig {
///     name: "v8.item".into(),
///     rows: 3,
///     dim: 8,
///     fields: vec![0],
///     initializer: Initializer::Zeros,
///     oov_row: Some(0),
/// };
/// let plan = TablePlan {
///     l2_by: L2By::Occurrence,
///     ..TablePlan::new(config, RowOptimizer::default())
/// };
/// assert_eq!(
///     plan.check().unwrap_err().to_string(),
///     "table `v8.item`: l2_by = \"occurrence\" needs values that were counted in training: those of \
///      hashed fields and of files of indices are not"
/// );
/// // Row 1 occurred twice, row 2 ten times.
/// let plan = plan.with_counts(|row| [0, 2, 10][row as usize]);
/// assert_eq!(plan.inverse_counts.as_deref(), Some(&[0.0, 0.5, 0.1][..]));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum L2By {
    /// The share of the batch's rows in which it occurs: over an epoch a row pays in proportion to how
    /// often it occurs.
    #[default]
    Share,
    /// One through the number of its occurrences in training, however often it occurs in the batch:
    /// over an epoch of small batches every row pays the same. The mini-batch aware regularisation of
    /// Zhou et al., Deep Interest Network for Click-Through Rate Prediction, KDD 2018, equations 4 to 7.
    Occurrence,
}

impl TablePlan {
    /// A table that is trained, of `f32` rows.
    pub fn new(config: TableConfig, optimizer: RowOptimizer) -> Self {
        Self {
            config,
            optimizer,
            frozen: false,
            precision: Precision::F32,
            compress: None,
            max_norm: None,
            own_rows: None,
            l2_by: L2By::Share,
            inverse_counts: None,
            growing: None,
            storage: Storage::Memory,
        }
    }

    /// A table that is only read: no optimizer state, rows to be loaded.
    pub fn read_only(config: TableConfig) -> Self {
        Self::new(config, RowOptimizer::default()).into_read_only()
    }

    /// The same table, compressed or not, to be only read: no optimizer state, `f32` rows to be
    /// loaded.
    pub fn into_read_only(self) -> Self {
        Self {
            config: TableConfig {
                initializer: Initializer::Zeros,
                ..self.config
            },
            optimizer: RowOptimizer {
                kind: RowOptimizerKind::Sgd,
                ..RowOptimizer::default()
            },
            frozen: true,
            precision: Precision::F32,
            max_norm: None,
            l2_by: L2By::Share,
            inverse_counts: None,
            ..self
        }
    }

    /// The same plan, with what [`Compress::Frequent`] and [`L2By::Occurrence`] go by: how often the
    /// value of each row was seen in training. Others go by nothing of the kind.
    pub fn with_counts(mut self, count: impl Fn(u32) -> u64) -> Self {
        if self.growing.is_some() {
            return self;
        }
        if self.l2_by == L2By::Occurrence {
            let inverse = |row| match count(row) {
                0 => 0.0,
                count => 1.0 / count as f32,
            };
            self.inverse_counts = Some((0..self.config.rows as u32).map(inverse).collect());
        }
        let Some(Compress::Frequent { min_count }) = self.compress else {
            return self;
        };
        let mut last = 0;
        let rows = (0..self.config.rows as u32).map(|row| {
            if Some(row) == self.config.oov_row || count(row) < min_count {
                return 0;
            }
            last += 1;
            last
        });
        Self {
            own_rows: Some(rows.collect()),
            ..self
        }
    }

    /// The tables in memory that this one is made of: itself, or its parts if it is compressed.
    pub fn parts(&self) -> Vec<TablePlan> {
        match &self.compress {
            Some(compress) => compress.parts(self),
            None => vec![self.clone()],
        }
    }

    /// The plan of the whole table.
    pub fn whole(&self) -> Self {
        Self {
            compress: None,
            ..self.clone()
        }
    }

    /// Where the parts of a row lie.
    pub fn layout(&self) -> RowLayout {
        RowLayout::new(self.config.dim, &self.optimizer, self.precision)
    }

    /// Bytes of the weights, padding included; of the parts of a compressed table and of what
    /// leads to their rows.
    pub fn weight_bytes(&self) -> u64 {
        if let Some(compress) = &self.compress {
            let parts = self.parts();
            let bytes: u64 = parts.iter().map(Self::weight_bytes).sum();
            return bytes + compress.index_bytes(&self.config);
        }
        (self.counted_rows() * self.layout().state_at) as u64
    }

    /// Bytes of the optimizer's state, padding included; of the parts of a compressed table.
    pub fn state_bytes(&self) -> u64 {
        if self.compress.is_some() {
            return self.parts().iter().map(Self::state_bytes).sum();
        }
        let layout = self.layout();
        (self.counted_rows() * (layout.stride - layout.state_at)) as u64
    }

    /// Rows that memory is counted for.
    pub fn counted_rows(&self) -> usize {
        self.growing.unwrap_or(self.config.rows)
    }

    /// Checks what a table needs to be made, before it is.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for an optimizer's numbers and `max_norm`; [`Error::HalfRows`] for rows
    /// of halves under an optimizer other than row-wise AdaGrad, or of a single weight;
    /// [`Error::Compress`] for parts that cannot be or take no less memory; [`Error::Needs`] for
    /// options that do not go together.
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
        self.optimizer.check(&self.config.name)?;
        if self.growing.is_some() && self.storage == Storage::Mapped {
            return Err(Error::Needs {
                table: self.config.name.clone(),
                what: "storage = \"mapped\"",
                expected: "rows that are all there from the start: leave out admit of its fields",
            });
        }
        if let Some(compress) = &self.compress {
            if self.growing.is_some() {
                return Err(Error::Needs {
                    table: self.config.name.clone(),
                    what: "compress",
                    expected: "rows that are all there from the start: leave out admit of its fields",
                });
            }
            compress.check(self)?;
            if self.storage == Storage::Mapped {
                return Err(Error::Needs {
                    table: self.config.name.clone(),
                    what: "storage = \"mapped\"",
                    expected: "rows that are not composed of others: leave out compress",
                });
            }
        }
        self.check_l2_by()?;
        self.check_max_norm()
    }

    fn check_l2_by(&self) -> Result<(), Error> {
        if self.l2_by == L2By::Share {
            return Ok(());
        }
        let expected = if self.optimizer.kind == RowOptimizerKind::Ftrl {
            "an optimizer other than ftrl, whose L2 is no term of a gradient"
        } else if self.compress.is_some() {
            "rows that are not composed of others: leave out compress"
        } else if self.inverse_counts.is_none() {
            "values that were counted in training: those of hashed fields and of files of indices are \
             not"
        } else {
            return Ok(());
        };
        Err(Error::Needs {
            table: self.config.name.clone(),
            what: "l2_by = \"occurrence\"",
            expected,
        })
    }

    fn check_max_norm(&self) -> Result<(), Error> {
        let Some(max_norm) = self.max_norm else {
            return Ok(());
        };
        let table = self.config.name.clone();
        if !(max_norm > 0.0 && max_norm.is_finite()) {
            return Err(Error::OutOfRange {
                table,
                option: "max_norm",
                value: max_norm.into(),
                expected: "a finite number above 0",
            });
        }
        let needs = |expected| {
            Err(Error::Needs {
                table,
                what: "max_norm",
                expected,
            })
        };
        if self.optimizer.kind == RowOptimizerKind::Ftrl {
            return needs("an optimizer other than ftrl, whose weights follow from its state");
        }
        match &self.compress {
            None | Some(Compress::Frequent { .. }) => Ok(()),
            Some(_) => needs("rows that are not composed of others: leave out compress"),
        }
    }
}

impl Table {
    /// Makes a table whose rows depend on nothing but the seed, the name and the row. It is whole,
    /// whatever the plan's `compress` says: an [`EmbeddingCollection`](crate::EmbeddingCollection)
    /// makes the parts. The rows of a mapped table lie in a file without a name, in the system's
    /// temporary folder.
    ///
    /// # Errors
    /// As [`TablePlan::check`]; [`Error::NoMemory`]; [`Error::Io`] where the disk has no room.
    pub fn new(plan: &TablePlan, seed: u64) -> Result<Self, Error> {
        Self::make(plan, seed, None)
    }

    /// The same table, whose rows, if it is mapped, lie in a file of a run: a new one, or the one that
    /// is there.
    pub(crate) fn make(
        plan: &TablePlan,
        seed: u64,
        place: Option<Place<'_>>,
    ) -> Result<Self, Error> {
        plan.check()?;
        let TablePlan {
            config,
            optimizer,
            frozen,
            max_norm,
            ..
        } = plan.clone();
        let layout = plan.layout();
        let (len, block) = (config.rows * layout.stride, INIT_BLOCK * layout.stride);
        let grows = plan.growing.is_some();
        let rows = if grows {
            config.rows.min(1)
        } else {
            config.rows
        };
        let begin = |from: usize, rows: &mut [u8]| {
            let first = from / block;
            let blocks = rows.par_chunks_mut(block).enumerate();
            blocks.for_each(|(nth, rows)| begin_block(plan, layout, seed, first + nth, rows));
        };
        let mut undo = None;
        let memory = match (plan.storage, place) {
            (Storage::Memory, _) if grows => {
                let mut memory = Pages::reserved(&config.name, len)?;
                begin(0, &mut memory.bytes_mut()[..rows * layout.stride]);
                memory
            }
            (Storage::Memory, _) => {
                let mut memory = Pages::zeroed(&config.name, len)?;
                begin(0, memory.bytes_mut());
                memory
            }
            (Storage::Mapped, None) => {
                Pages::Mapped(MappedFile::scratch(len, FILE_BLOCKS * block, begin)?)
            }
            (Storage::Mapped, Some(place)) => {
                let stem = place.folder.join(file_name(&config.name));
                let path = rows_path(&stem);
                undo = Some(Undo::new(stem, config.rows, layout.stride));
                Pages::Mapped(if place.exists {
                    MappedFile::open(&path, len)?
                } else {
                    MappedFile::create(&path, len, FILE_BLOCKS * block, begin)?
                })
            }
        };
        Ok(Self {
            config,
            optimizer,
            frozen,
            max_norm,
            layout,
            memory,
            rows,
            grows,
            undo,
        })
    }

    /// Whether its rows lie in a mapped file.
    pub fn is_mapped(&self) -> bool {
        self.memory.mapped().is_some()
    }

    /// Whether its rows lie in a file of a run, which checkpoints leave where it is.
    pub(crate) fn is_kept(&self) -> bool {
        self.undo.is_some()
    }

    /// Notes which rows of a mapped table are read or changed, so that those that are not can go.
    pub(crate) fn touch(&self, rows: impl Iterator<Item = u32>) {
        if let Some(file) = self.memory.mapped() {
            file.touch(self.layout.stride, rows);
        }
    }

    /// Bounds the bytes of a mapped table that stay in memory.
    pub(crate) fn bound(&self, bytes: u64) {
        if let Some(file) = self.memory.mapped() {
            file.bound(bytes);
        }
    }

    /// Must be called before rows are changed: what they are is written down, where there is a
    /// checkpoint to go back to.
    pub(crate) fn about_to_change(&mut self, rows: impl Iterator<Item = u32>) -> Result<(), Error> {
        match &mut self.undo {
            Some(undo) if !self.frozen => undo.log(self.memory.bytes(), rows),
            _ => Ok(()),
        }
    }

    /// As [`about_to_change`](Self::about_to_change), where kernels change rows through
    /// [`bytes_mut`](Self::bytes_mut), which does not say which.
    pub(crate) fn kernels_change(&mut self, rows: &[u32]) -> Result<(), Error> {
        let all = || rows.iter().copied();
        if self.frozen {
            self.touch(all());
        } else {
            // First, so that the pages that the log reads are asked for together.
            self.memory.change_rows(self.layout.stride, all());
        }
        self.about_to_change(all())
    }

    /// Flushes the rows of a table that lies in a file of a run, and says what they are; none of
    /// others.
    pub(crate) fn settle(&mut self) -> Result<Option<MappedRows>, Error> {
        let (Some(undo), Pages::Mapped(file)) = (&mut self.undo, &self.memory) else {
            return Ok(None);
        };
        file.flush()?;
        let sums = undo.settle(file, self.config.rows)?;
        Ok(Some(undo::describe(self.config.rows, self.layout, sums)))
    }

    /// Begins the log that leads back to checkpoint `step`, which `saved` is of.
    pub(crate) fn begin_undo(&mut self, step: u64, saved: &MappedRows) -> Result<(), Error> {
        let begin = |undo: &mut Undo| undo.begin(step, saved.checksums.clone());
        self.undo.as_mut().map_or(Ok(()), begin)
    }

    /// Leads its rows back to checkpoint `step`.
    pub(crate) fn go_back(&mut self, step: u64, saved: &MappedRows) -> Result<(), Error> {
        let (Some(undo), Pages::Mapped(file)) = (&mut self.undo, &mut self.memory) else {
            return Ok(());
        };
        undo::check(file.path(), self.config.rows, self.layout, saved)?;
        undo.go_back(file, step, saved)
    }

    /// Removes logs that lead back to checkpoints before `step`.
    pub(crate) fn remove_undo_before(&self, step: u64) -> Result<(), Error> {
        let remove = |undo: &Undo| undo.remove_before(step);
        self.undo.as_ref().map_or(Ok(()), remove)
    }

    /// Shape and initialiser.
    pub fn config(&self) -> &TableConfig {
        &self.config
    }

    /// Rows in use: all, or of a table that grows those that were given so far.
    pub fn rows(&self) -> usize {
        self.rows
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

    /// The rows in use, one after the other as [`layout`](Self::layout) says: for kernels.
    pub fn bytes(&self) -> &[u8] {
        &self.memory.bytes()[..self.rows * self.layout.stride]
    }

    /// The rows in use, to be changed by kernels.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory.bytes_mut()[..self.rows * self.layout.stride]
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.bytes()[row * self.layout.stride..][..self.layout.stride]
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

    /// Copies the weights of several rows.
    ///
    /// # Shapes
    /// - weights: `[rows, dim]`
    pub(crate) fn read_rows(&self, rows: &[u32], weights: &mut [f32]) {
        match self.layout.dim {
            1 => self.read_rows_of::<1>(rows, weights),
            8 => self.read_rows_of::<8>(rows, weights),
            16 => self.read_rows_of::<16>(rows, weights),
            dim => {
                for (nth, weights) in weights.chunks_exact_mut(dim).enumerate() {
                    self.ask_for(rows.get(nth + AHEAD));
                    self.read_weights(rows[nth], weights);
                }
            }
        }
    }

    /// [`read_rows`](Self::read_rows) of a dim that the compiler knows: no call for each row.
    fn read_rows_of<const DIM: usize>(&self, rows: &[u32], weights: &mut [f32]) {
        let (weights, _) = weights.as_chunks_mut::<DIM>();
        for (nth, weights) in weights.iter_mut().enumerate() {
            self.ask_for(rows.get(nth + AHEAD));
            get(self.layout, self.row(rows[nth] as usize), weights);
        }
    }

    /// Asks for the memory of a row that is soon needed.
    #[inline]
    fn ask_for(&self, row: Option<&u32>) {
        if let Some(&row) = row {
            let stride = self.layout.stride;
            let from = self.bytes().as_ptr().wrapping_add(row as usize * stride);
            prefetch(from, stride);
        }
    }

    /// Sets the weights of a row.
    ///
    /// # Shapes
    /// - weights: `[dim]`
    pub fn write_weights(&mut self, row: u32, weights: &[f32]) {
        let layout = self.layout;
        let from = row as usize * layout.stride;
        put(
            layout,
            self.memory.change(from..from + layout.stride),
            weights,
        );
    }

    /// The weights of a row, to be filled from outside.
    ///
    /// # Panics
    /// If rows are kept in halves.
    pub fn weights_mut(&mut self, row: u32) -> &mut [f32] {
        self.row_mut(row).0
    }

    /// Sets the weights that a row begins with, and the optimizer's state that belongs to them.
    ///
    /// # Shapes
    /// - weights: `[dim]`
    pub fn begin_row(&mut self, row: u32, weights: &[f32]) {
        self.write_weights(row, weights);
        let (layout, optimizer) = (self.layout, self.optimizer);
        let from = row as usize * layout.stride;
        let row = self.memory.change(from..from + layout.stride);
        let state = &mut row[layout.state_at..];
        let state = &mut state[..optimizer.state_len(layout.dim) * size_of::<f32>()];
        optimizer.init_state(weights, bytemuck::cast_slice_mut(state));
    }

    /// Begins the rows that were given to keys, of a table that grows: weights that depend on nothing
    /// but the seed, the name of the table and the key, so that it does not matter which row a key
    /// has, and the optimizer's state that belongs to them. The example of
    /// [`Admission`](crate::Admission) begins one.
    ///
    /// # Panics
    /// If the table does not grow, or has no room for such a row.
    pub fn begin_keys(&mut self, seed: u64, begun: &[(u32, u64)]) {
        assert!(self.grows, "table `{}` does not grow", self.config.name);
        let name = name_key(&self.config.name);
        let fills = Fills::new(self.config.initializer);
        let mut weights = vec![0f32; self.layout.dim];
        for &(row, key) in begun {
            self.rows = self.rows.max(row as usize + 1);
            assert!(self.rows <= self.config.rows, "row {row}");
            fills.fill(&mut rng(seed, Purpose::KeyInit, name, key), &mut weights);
            self.begin_row(row, &weights);
        }
    }

    /// Updates rows by their gradients, unless the table is frozen; `step` is asked for each by
    /// its number.
    ///
    /// # Shapes
    /// - gradients: `[rows, dim]`
    pub(crate) fn update_rows(
        &mut self,
        rows: &[u32],
        gradients: &[f32],
        step: impl Fn(usize) -> RowStep,
    ) {
        if self.frozen {
            return;
        }
        for (nth, gradient) in gradients.chunks_exact(self.layout.dim).enumerate() {
            self.ask_for(rows.get(nth + AHEAD));
            self.update_row(rows[nth], gradient, step(nth));
        }
    }

    /// Updates a row by its gradient, unless the table is frozen.
    ///
    /// # Shapes
    /// - gradient: `[dim]`
    pub(crate) fn update_row(&mut self, row: u32, gradient: &[f32], step: RowStep) {
        if self.frozen {
            return;
        }
        let (optimizer, max_norm) = (self.optimizer, self.max_norm);
        let (weights, state) = self.row_mut(row);
        // Loops of a length that the compiler knows are a few vectors.
        match (weights.as_mut_array::<8>(), gradient.as_array::<8>()) {
            (Some(weights), Some(gradient)) => optimizer.update(weights, state, gradient, step),
            _ => optimizer.update(weights, state, gradient, step),
        }
        if let Some(max_norm) = max_norm {
            let norm = weights.iter().map(|w| w * w).sum::<f32>().sqrt();
            if norm > max_norm {
                weights.iter_mut().for_each(|w| *w *= max_norm / norm);
            }
        }
    }

    /// Weights and state of a row.
    fn row_mut(&mut self, row: u32) -> (&mut [f32], &mut [f32]) {
        assert_eq!(self.layout.precision, Precision::F32, "rows of halves");
        let layout = self.layout;
        let from = row as usize * layout.stride;
        let row = self.memory.change(from..from + layout.stride);
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

    /// Hands all rows over, some at a time, without keeping those of a file in memory.
    fn each_rows(&self, each: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let some = SNAPSHOT_ROWS * self.layout.stride;
        let Some(file) = self.memory.mapped() else {
            return self.bytes().chunks(some).try_for_each(each);
        };
        file.write()?;
        let len = self.config.rows * self.layout.stride;
        // Aligned as rows are.
        let mut words = vec![0u64; some.min(len).div_ceil(size_of::<u64>())];
        let rows: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        for from in (0..len).step_by(some) {
            let rows = &mut rows[..some.min(len - from)];
            file.read_at(from, rows)?;
            each(rows)?;
        }
        Ok(())
    }

    /// A tensor of the first numbers of each row, or of some of its state, that `copy` puts behind
    /// those of the rows before it.
    fn tensor<'a>(
        &'a self,
        width: usize,
        copy: impl Fn(&[u8], &mut Vec<f32>) + 'a,
    ) -> SnapshotTensor<'a> {
        SnapshotTensor {
            shape: vec![self.rows, width],
            values: Box::new(move |write| {
                let mut values = Vec::with_capacity(SNAPSHOT_ROWS.min(self.rows) * width);
                self.each_rows(&mut |rows| {
                    values.clear();
                    for row in rows.chunks_exact(self.layout.stride) {
                        copy(row, &mut values);
                    }
                    write(&values)
                })
            }),
        }
    }

    /// The weights, as a snapshot takes them: `[rows, dim]`.
    pub fn weight_tensor(&self) -> SnapshotTensor<'_> {
        let (layout, dim) = (self.layout, self.config.dim);
        self.tensor(dim, move |row, values| {
            let from = values.len();
            values.resize(from + dim, 0.0);
            get(layout, row, &mut values[from..]);
        })
    }

    /// The parts of the optimizer's state with their names: `[rows, dim]` or `[rows, 1]` each.
    pub fn state_tensors(&self) -> Vec<(&'static str, SnapshotTensor<'_>)> {
        let layout = self.layout;
        self.state_parts()
            .map(|(part, from, width)| {
                let tensor = self.tensor(width, move |row, values| {
                    let state: &[f32] = bytemuck::cast_slice(&row[layout.state_at..]);
                    values.extend_from_slice(&state[from..][..width]);
                });
                (part, tensor)
            })
            .collect()
    }

    /// Reads the weights from the tensor `name` of a snapshot. A table that grows has then as many
    /// rows as it.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn load_weights(&mut self, snapshot: &mut Snapshot, name: &str) -> Result<(), Error> {
        if self.grows
            && let Some([rows, _]) = snapshot.shape(name)
            && (1..=self.config.rows).contains(rows)
        {
            self.rows = *rows;
        }
        let (count, taken) = self.rows_taken(snapshot, name);
        let (shape, layout) = ([count, self.config.dim], self.layout);
        let (mut at, end) = (0, taken * layout.stride);
        snapshot.read(name, &shape, |block| {
            let from = at;
            let to = end.min(from + block.len() / layout.dim * layout.stride);
            let rows = self.memory.change(from..to).chunks_exact_mut(layout.stride);
            for (weights, row) in block.chunks_exact(layout.dim).zip(rows) {
                put(layout, row, weights);
                at += layout.stride;
            }
            self.memory.give_back(from, at);
        })
    }

    /// Rows that the tensor `name` of a snapshot has, and how many of them, from the first on, are taken.
    fn rows_taken(&self, snapshot: &Snapshot, name: &str) -> (usize, usize) {
        let rows = self.rows;
        let saved = snapshot
            .shape(name)
            .and_then(|shape| shape.first().copied());
        match (snapshot.rows(), saved) {
            (SavedRows::Fewer, Some(fewer)) if fewer < rows => {
                // A last row for all that is unseen moves to the new end.
                let moved = self.config.oov_row == Some(rows as u32 - 1);
                (fewer, fewer - usize::from(moved && fewer > 0))
            }
            _ => (rows, rows),
        }
    }

    /// Whether a snapshot holds the optimizer's state in tensors `name.<part>`.
    pub(crate) fn has_state_in(&self, snapshot: &Snapshot, name: &str) -> bool {
        let mut parts = self.state_parts();
        parts.any(|(part, ..)| snapshot.shape(&format!("{name}.{part}")).is_some())
    }

    /// Reads the optimizer's state from the tensors `name.<part>` of a snapshot.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn load_state(&mut self, snapshot: &mut Snapshot, name: &str) -> Result<(), Error> {
        let layout = self.layout;
        for (part, first, width) in self.state_parts() {
            let name = format!("{name}.{part}");
            let (count, taken) = self.rows_taken(snapshot, &name);
            let (mut at, end) = (0, taken * layout.stride);
            snapshot.read(&name, &[count, width], |block| {
                let from = at;
                let to = end.min(from + block.len() / width * layout.stride);
                let rows = self.memory.change(from..to).chunks_exact_mut(layout.stride);
                for (values, row) in block.chunks_exact(width).zip(rows) {
                    let state: &mut [f32] = bytemuck::cast_slice_mut(&mut row[layout.state_at..]);
                    state[first..][..width].copy_from_slice(values);
                    at += layout.stride;
                }
                self.memory.give_back(from, at);
            })?;
        }
        Ok(())
    }
}

/// Draws the rows of a block of [`INIT_BLOCK`].
fn begin_block(plan: &TablePlan, layout: RowLayout, seed: u64, block: usize, rows: &mut [u8]) {
    let (config, optimizer) = (&plan.config, &plan.optimizer);
    let fills = Fills::new(config.initializer);
    let oov_row = config.oov_row.map(|row| row as usize);
    let key = name_key(&config.name);
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
}

/// A table's name as that of a file, one for each name.
fn file_name(table: &str) -> String {
    let mut name = String::new();
    for byte in table.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => name.push(byte as char),
            other => name.push_str(&format!("%{other:02x}")),
        }
    }
    name
}

fn rows_path(stem: &Path) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(".rows");
    PathBuf::from(path)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(kind: RowOptimizerKind, max_norm: f32) -> TablePlan {
        let config = TableConfig {
            name: "v2.item".into(),
            rows: 3,
            dim: 2,
            fields: vec![0],
            initializer: Initializer::Zeros,
            oov_row: Some(0),
        };
        let optimizer = RowOptimizer {
            kind,
            lr: 1.0,
            ..RowOptimizer::default()
        };
        TablePlan {
            max_norm: Some(max_norm),
            ..TablePlan::new(config, optimizer)
        }
    }

    const STEP: RowStep = RowStep {
        rate: 1.0,
        share: 1.0,
    };

    #[test]
    fn a_row_longer_than_max_norm_is_scaled_back_after_its_update() {
        let mut table = Table::new(&plan(RowOptimizerKind::Sgd, 1.0), 1).unwrap();
        table.weights_mut(2).copy_from_slice(&[30.0, 40.0]);
        table.update_row(1, &[-3.0, -4.0], STEP);
        assert_eq!(table.weights(1), [0.6, 0.8]);
        assert_eq!(table.weights(2), [30.0, 40.0], "untouched rows stay");
        table.update_row(1, &[0.3, 0.4], STEP);
        assert!((table.weights(1)[0] - 0.3).abs() < 1e-6, "shorter ones too");
    }

    #[test]
    fn many_rows_are_read_and_updated_as_one_by_one() {
        let kinds = [
            RowOptimizerKind::Sgd,
            RowOptimizerKind::Adagrad,
            RowOptimizerKind::RowwiseAdagrad,
            RowOptimizerKind::Adam,
            RowOptimizerKind::Ftrl,
        ];
        for (kind, dim) in kinds
            .into_iter()
            .flat_map(|kind| [(kind, 1), (kind, 5), (kind, 8)])
        {
            let plan = TablePlan {
                max_norm: None,
                config: TableConfig {
                    rows: 100,
                    dim,
                    initializer: Initializer::Normal { std: 0.5 },
                    ..plan(kind, 1.0).config
                },
                ..plan(kind, 1.0)
            };
            let make = || Table::new(&plan, 1).unwrap();
            let (mut together, mut apart) = (make(), make());
            // More than are asked for ahead, without an order.
            let rows: Vec<u32> = (0..60).map(|row| row * 37 % 100).collect();
            let gradients: Vec<f32> = (0..rows.len() * dim)
                .map(|at| (at * 13 % 29) as f32 / 29.0 - 0.5)
                .collect();
            let step = |nth: usize| RowStep {
                rate: 0.5,
                share: nth as f32 / 60.0,
            };
            for _ in 0..2 {
                together.update_rows(&rows, &gradients, step);
                for (nth, gradient) in gradients.chunks_exact(dim).enumerate() {
                    apart.update_row(rows[nth], gradient, step(nth));
                }
            }
            assert!(together.bytes() == apart.bytes(), "{kind:?}, dim {dim}");
            let mut weights = vec![f32::NAN; rows.len() * dim];
            together.read_rows(&rows, &mut weights);
            for (row, weights) in rows.iter().zip(weights.chunks_exact(dim)) {
                assert_eq!(weights, apart.weights(*row));
            }
        }
    }

    #[test]
    fn a_row_that_is_begun_has_the_state_of_its_weights() {
        let plan = TablePlan {
            max_norm: None,
            ..plan(RowOptimizerKind::Ftrl, 1.0)
        };
        let mut table = Table::new(&plan, 1).unwrap();
        table.begin_row(1, &[0.5, -0.5]);
        // FTRL computes weights from its state: a tiny gradient does not throw them back to zero.
        table.update_row(1, &[1e-6, 1e-6], STEP);
        assert!((table.weights(1)[0] - 0.5).abs() < 1e-4);
    }

    fn growing() -> Table {
        let plan = TablePlan {
            max_norm: None,
            growing: Some(1),
            config: TableConfig {
                rows: 1 << 30,
                initializer: Initializer::Normal { std: 0.5 },
                ..plan(RowOptimizerKind::Adagrad, 1.0).config
            },
            ..plan(RowOptimizerKind::Adagrad, 1.0)
        };
        assert_eq!(plan.weight_bytes() + plan.state_bytes(), 16);
        Table::new(&plan, 1).unwrap()
    }

    #[test]
    fn what_a_key_begins_with_does_not_depend_on_its_row() {
        let (mut table, mut other) = (growing(), growing());
        assert_eq!((table.rows(), table.weights(0)), (1, &[0.0; 2][..]));
        table.begin_keys(1, &[(1, 77), (2, 88)]);
        other.begin_keys(1, &[(5, 77)]);
        assert_eq!((table.rows(), other.rows()), (3, 6));
        assert_eq!(table.weights(1), other.weights(5));
        assert_ne!(table.weights(1), table.weights(2));
        // Another key takes a row that was trained: nothing is left of the one before.
        table.update_row(2, &[1.0, 1.0], STEP);
        table.begin_keys(1, &[(2, 77)]);
        assert_eq!(table.row(2), table.row(1));
    }

    #[test]
    fn a_table_that_grows_takes_as_many_rows_as_were_saved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let mut table = growing();
        table.begin_keys(1, &[(1, 77), (2, 88)]);
        table.update_row(2, &[1.0, 1.0], STEP);
        let mut tensors = std::collections::BTreeMap::new();
        tensors.insert("t".to_owned(), table.weight_tensor());
        for (part, tensor) in table.state_tensors() {
            tensors.insert(format!("t.{part}"), tensor);
        }
        assert_eq!(tensors["t"].shape, [3, 2]);
        crate::write_snapshot(&path, tensors).unwrap();
        let mut loaded = growing();
        loaded.begin_keys(1, &[(7, 99)]);
        let mut snapshot = Snapshot::open(&path).unwrap();
        loaded.load_weights(&mut snapshot, "t").unwrap();
        loaded.load_state(&mut snapshot, "t").unwrap();
        assert!(loaded.bytes() == table.bytes());
    }

    fn normal(storage: Storage) -> TablePlan {
        let plan = plan(RowOptimizerKind::RowwiseAdagrad, 1.0);
        TablePlan {
            storage,
            max_norm: None,
            config: TableConfig {
                name: "v2.an item".into(),
                // More than a buffer of a file takes at a time.
                rows: FILE_BLOCKS * INIT_BLOCK + INIT_BLOCK + 7,
                initializer: Initializer::Normal { std: 0.5 },
                oov_row: Some(5000),
                ..plan.config
            },
            ..plan
        }
    }

    #[test]
    fn a_mapped_table_begins_is_saved_and_is_loaded_as_one_in_memory() {
        let [held, mut mapped] = [Storage::Memory, Storage::Mapped]
            .map(|storage| Table::new(&normal(storage), 3).unwrap());
        assert!(mapped.is_mapped() && !held.is_mapped());
        assert!(mapped.bytes() == held.bytes());
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        for (path, table) in paths.iter().zip([&held, &mapped]) {
            let mut tensors = std::collections::BTreeMap::new();
            tensors.insert("t".to_owned(), table.weight_tensor());
            for (part, tensor) in table.state_tensors() {
                tensors.insert(format!("t.{part}"), tensor);
            }
            crate::write_snapshot(path, tensors).unwrap();
        }
        let [of_held, of_mapped] = paths.each_ref().map(|path| std::fs::read(path).unwrap());
        assert!(of_held == of_mapped);
        mapped.bytes_mut().fill(7);
        let mut snapshot = Snapshot::open(&paths[0]).unwrap();
        mapped.load_weights(&mut snapshot, "t").unwrap();
        mapped.load_state(&mut snapshot, "t").unwrap();
        assert!(mapped.bytes() == held.bytes());
    }

    #[test]
    fn rows_that_are_about_to_change_are_written_down_for_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let place = |exists| {
            Some(Place {
                folder: folder.path(),
                exists,
            })
        };
        let mut table = Table::make(&normal(Storage::Mapped), 3, place(false)).unwrap();
        let saved = table.settle().unwrap().unwrap();
        table.begin_undo(8, &saved).unwrap();
        let before = table.bytes().to_vec();
        table.about_to_change([1, 70_000].into_iter()).unwrap();
        table.update_row(1, &[1.0, 1.0], STEP);
        // Of two changed rows one reaches the file before the process ends.
        table.memory.give_back(0, table.layout().stride * 60_000);
        table.update_row(70_000, &[1.0, 1.0], STEP);
        drop(table);
        assert!(folder.path().join("v2.an%20item.undo-0000000008").exists());
        let mut table = Table::make(&normal(Storage::Mapped), 4, place(true)).unwrap();
        assert!(table.bytes() != before);
        table.go_back(8, &saved).unwrap();
        assert!(table.bytes() == before);
        let other = MappedRows {
            stride: 80,
            ..saved
        };
        let message = table.go_back(8, &other).unwrap_err().to_string();
        assert!(message.contains("of 2 weights and 80 bytes"), "{message}");
    }

    #[test]
    fn a_max_norm_that_cannot_be_is_named() {
        let message = |kind, max_norm| plan(kind, max_norm).check().unwrap_err().to_string();
        assert_eq!(
            message(RowOptimizerKind::Sgd, f32::NAN),
            "optimizer of table `v2.item`: max_norm is NaN, expected a finite number above 0"
        );
        assert_eq!(
            message(RowOptimizerKind::Ftrl, 1.0),
            "table `v2.item`: max_norm needs an optimizer other than ftrl, whose weights follow \
             from its state"
        );
    }
}
