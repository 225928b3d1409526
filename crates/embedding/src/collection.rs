//! The tables of a model: staging the rows of a batch, and updating them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use crossfield_core::{Batch, Examples, FieldId, Leaf, Lookup, StagedTable, TableConfig};

use crate::compress::{Composition, RowSums};
use crate::{
    Error, MappedRows, RowOptimizerKind, RowStep, Snapshot, SnapshotTensor, Table, TablePlan,
    Vectors,
};

/// All tables of a model, in host memory, outside autodiff.
///
/// A step works on the rows that its batch names and on nothing else: [`stage`](Self::stage)
/// gathers each once into leaf tensors, [`apply`](Self::apply) updates them by their gradients.
///
/// A table that is [compressed](crate::Compress) lies in memory as its parts, and these are what is
/// updated and saved; components look up the whole, whose rows are composed as they are staged.
///
/// The example of the [crate] takes a step.
#[derive(Debug, Default)]
pub struct EmbeddingCollection {
    /// What lies in memory, sorted by name.
    tables: Vec<Table>,
    /// What components look up, sorted by name.
    wholes: Vec<Whole>,
    /// Tables of one dim share a leaf, so that a component looks all of its fields up at once.
    groups: Vec<Vec<usize>>,
    dedup: Dedup,
}

/// Where the rows of mapped tables lie as long as a run lasts.
///
/// ```
/// use crossfield_core::{Initializer, TableConfig};
/// use crossfield_embedding::{EmbeddingCollection, Place, RowOptimizer, Storage, TablePlan};
///
/// let config = TableConfig {
///     name: "v8.user".into(),
///     rows: 1000,
///     dim: 8,
///     fields: vec![0],
///     initializer: Initializer::Normal { std: 0.01 },
///     oov_row: Some(0),
/// };
/// let plan = TablePlan {
///     storage: Storage::Mapped,
///     ..TablePlan::new(config, RowOptimizer::default())
/// };
/// let folder = tempfile::tempdir()?;
/// let place = |exists| Place { folder: folder.path(), exists };
/// let mut tables = EmbeddingCollection::in_place(&[plan.clone()], 1, place(false))?;
/// // A checkpoint: what it says of the rows is saved with it, the rows stay where they are.
/// let saved = tables.settle_mapped()?;
/// tables.begin_undo(1, &saved)?;
/// drop(tables);
/// assert_eq!(std::fs::metadata(folder.path().join("v8.user.rows"))?.len(), 64_000);
/// let mut tables = EmbeddingCollection::in_place(&[plan], 1, place(true))?;
/// tables.go_back(1, &saved)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The folder; it exists.
    pub folder: &'a Path,
    /// Whether the files are there, of a run that is gone on with.
    pub exists: bool,
}

/// A table as components look it up.
#[derive(Debug)]
struct Whole {
    config: TableConfig,
    rows: Composition,
    /// L2 that its rows pay before they are taken apart.
    l2: f32,
    /// For each row the share of its L2 that it pays at a step in which it occurs; none: the share of
    /// the batch's rows in which it does.
    l2_shares: Option<Arc<[f32]>>,
}

/// Which rows the leaves of a staged batch hold.
#[derive(Debug)]
pub struct StagedRows {
    batch_size: usize,
    /// Leaf by leaf, in the order of the leaf's rows.
    leaves: Vec<Vec<TableRows>>,
}

/// The unique rows of one table.
#[derive(Debug)]
struct TableRows {
    table: usize,
    unique: Arc<UniqueRows>,
}

/// The rows that a batch names in some fields, each once: of every table that those fields read.
#[derive(Debug)]
struct UniqueRows {
    rows: Vec<u32>,
    /// How often each occurs in the batch.
    counts: Vec<u32>,
    /// For each index of a field, the number of its row.
    positions: Arc<BTreeMap<FieldId, Vec<u32>>>,
}

impl StagedRows {
    /// How many rows were gathered, of all tables: each row that the batch names counts once a table,
    /// however many components look it up. The example of [`EmbeddingCollection::stage`] counts them.
    pub fn gathered(&self) -> usize {
        let tables = self.leaves.iter().flatten();
        tables.map(|table| table.unique.rows.len()).sum()
    }
}

impl EmbeddingCollection {
    /// Makes the tables; plans come sorted and unique by name, as
    /// [`merge_tables`](crossfield_core::merge_tables) gives them. The rows of mapped ones lie in files
    /// without a name, in the system's temporary folder.
    ///
    /// # Errors
    /// As [`TablePlan::check`]; [`Error::TableClash`], [`Error::NoMemory`]; [`Error::Io`] where the
    /// disk has no room for a mapped table.
    pub fn new(plans: &[TablePlan], seed: u64) -> Result<Self, Error> {
        Self::make(plans, seed, None)
    }

    /// The same tables, the rows of mapped ones in files of a run. Where these are there already,
    /// [`go_back`](Self::go_back) makes them those of a checkpoint.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::MappedTable`] for a file of another length.
    pub fn in_place(plans: &[TablePlan], seed: u64, place: Place<'_>) -> Result<Self, Error> {
        Self::make(plans, seed, Some(place))
    }

    fn make(plans: &[TablePlan], seed: u64, place: Option<Place<'_>>) -> Result<Self, Error> {
        plans.iter().try_for_each(TablePlan::check)?;
        let mut parts: Vec<TablePlan> = plans.iter().flat_map(TablePlan::parts).collect();
        parts.sort_by(|a, b| a.config.name.cmp(&b.config.name));
        for pair in parts.windows(2) {
            if pair[0].config.name == pair[1].config.name {
                let table = pair[0].config.name.clone();
                return Err(Error::TableClash { table });
            }
        }
        let tables = parts
            .iter()
            .map(|plan| Table::make(plan, seed, place))
            .collect::<Result<Vec<_>, Error>>()?;
        let position = |name: &str| {
            let found = parts.binary_search_by(|part| part.config.name.as_str().cmp(name));
            found.expect("each part was made")
        };
        let whole = |plan: &TablePlan| Whole {
            config: plan.config.clone(),
            rows: Composition::new(plan, position),
            l2: match plan.optimizer.kind {
                // No term of its gradient; that of the parts.
                RowOptimizerKind::Ftrl => 0.0,
                _ => plan.optimizer.l2 as f32,
            },
            l2_shares: plan.inverse_counts.clone(),
        };
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, plan) in plans.iter().enumerate() {
            groups.entry(plan.config.dim).or_default().push(at);
        }
        Ok(Self {
            wholes: plans.iter().map(whole).collect(),
            tables,
            groups: groups.into_values().collect(),
            dedup: Dedup::default(),
        })
    }

    /// The tables in memory, sorted by name: whole ones, and the parts of compressed ones.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The tables in memory, to be trained by kernels.
    pub fn tables_mut(&mut self) -> &mut [Table] {
        &mut self.tables
    }

    fn whole(&self, table: &str) -> &Whole {
        let whole = self.wholes.iter().find(|whole| whole.config.name == table);
        whole.unwrap_or_else(|| panic!("no table `{table}` was planned"))
    }

    /// Copies a row of a table as components look it up, composed if the table is compressed.
    ///
    /// # Shapes
    /// - weights: `[dim]`
    ///
    /// # Panics
    /// If there is no such table.
    pub fn read_weights(&self, table: &str, row: u32, weights: &mut [f32]) {
        self.whole(table).rows.read(&self.tables, row, weights);
    }

    /// All rows of a table as components look it up, to be compared with each other.
    ///
    /// # Errors
    /// [`Error::NonFiniteVector`], [`Error::NoMemory`].
    ///
    /// # Panics
    /// If there is no such table.
    pub fn vectors(&self, table: &str) -> Result<Vectors, Error> {
        let Whole { config, rows, .. } = self.whole(table);
        let count = match rows {
            Composition::Whole(table) => self.tables[*table].rows(),
            _ => config.rows,
        };
        Vectors::build(count, config.dim, |row, vector| {
            rows.read(&self.tables, row as u32, vector);
        })
    }

    /// The table in memory called `name`, to be filled from outside.
    pub fn table_mut(&mut self, name: &str) -> Option<&mut Table> {
        self.tables
            .iter_mut()
            .find(|table| table.config().name == name)
    }

    /// Gathers the unique rows of a batch. On an autodiff device they are leaves that collect
    /// gradients. A field behind those that the batch has is empty: what a model draws for a step of
    /// training, and rows that are only scored do not have.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use burn::tensor::Device;
    /// use crossfield_core::{Batch, Initializer, Jagged, TableConfig};
    /// use crossfield_embedding::{EmbeddingCollection, RowOptimizer, TablePlan};
    ///
    /// let plan = |name: &str, dim| {
    ///     let config = TableConfig {
    ///         name: name.into(),
    ///         rows: 10,
    ///         dim,
    ///         fields: vec![0, 1],
    ///         initializer: Initializer::Zeros,
    ///         oov_row: None,
    ///     };
    ///     TablePlan::new(config, RowOptimizer::default())
    /// };
    /// let mut tables = EmbeddingCollection::new(&[plan("fm.ad", 1), plan("v8.ad", 8)], 1)?;
    /// let batch = Batch {
    ///     batch_size: 2,
    ///     sparse: vec![Jagged::one_hot(vec![7, 3]), Jagged::one_hot(vec![3, 3])],
    ///     ..Batch::default()
    /// };
    /// let (x, staged) = tables.stage(Arc::new(batch), &Device::flex());
    /// // Rows 7 and 3, of two tables.
    /// assert_eq!(staged.gathered(), 4);
    /// assert_eq!(x.leaves().len(), 2);
    /// # Ok::<(), crossfield_embedding::Error>(())
    /// ```
    pub fn stage(&mut self, batch: Arc<Batch>, device: &Device) -> (Lookup, StagedRows) {
        let mut leaves = Vec::with_capacity(self.groups.len());
        let mut staged_tables = BTreeMap::new();
        let mut staged_rows = Vec::with_capacity(self.groups.len());
        // Linear weights and factors are read by the same fields: their rows are numbered once.
        let mut numbered: BTreeMap<&[FieldId], Arc<UniqueRows>> = BTreeMap::new();
        for (leaf, group) in self.groups.iter().enumerate() {
            let dim = self.wholes[group[0]].config.dim;
            let mut weights = Vec::new();
            let mut rows_of_leaf = Vec::with_capacity(group.len());
            for &at in group {
                let whole = &self.wholes[at];
                let config = &whole.config;
                let unique = numbered
                    .entry(&config.fields)
                    .or_insert_with(|| Arc::new(self.dedup.unique(&batch, &config.fields)))
                    .clone();
                if let Composition::Whole(table) = whole.rows {
                    self.tables[table].touch(unique.rows.iter().copied());
                }
                let first = (weights.len() / dim) as u32;
                whole
                    .rows
                    .gather(&self.tables, &unique.rows, dim, &mut weights);
                let staged = StagedTable {
                    leaf,
                    first,
                    positions: unique.positions.clone(),
                };
                staged_tables.insert(config.name.clone(), staged);
                rows_of_leaf.push(TableRows { table: at, unique });
            }
            if weights.is_empty() {
                // Burn has no empty leaf; nothing points at this row.
                weights.resize(dim, 0.0);
            }
            let shape = [weights.len() / dim, dim];
            let rows = Tensor::<2>::from_data(TensorData::new(weights, shape), device);
            let rows = if device.is_autodiff() {
                rows.require_grad()
            } else {
                rows
            };
            leaves.push(Leaf { rows });
            staged_rows.push(rows_of_leaf);
        }
        let staged = StagedRows {
            batch_size: batch.batch_size,
            leaves: staged_rows,
        };
        (
            Lookup::new(batch, device.clone(), leaves, staged_tables),
            staged,
        )
    }

    /// Updates the staged rows by their gradients, at `rate` times their learning rates.
    ///
    /// # Errors
    /// [`Error::NonFiniteGradient`], before any row of that leaf is changed; [`Error::Io`] where the
    /// disk has no room for what leads a mapped table back to its checkpoint.
    pub fn apply(
        &mut self,
        lookup: &Lookup,
        staged: &StagedRows,
        gradients: &mut Gradients,
        rate: f32,
    ) -> Result<(), Error> {
        for (leaf, rows_of_leaf) in lookup.leaves().iter().zip(&staged.leaves) {
            // A leaf that no component used has no gradient.
            let Some(gradient) = leaf.rows.grad_remove(gradients) else {
                continue;
            };
            let gradient = gradient.into_data();
            let gradient = gradient.as_slice::<f32>().expect("factors are f32");
            let dim = leaf.rows.dims()[1];
            // Without a way out in between, the check of all is a walk over vectors.
            let finite = gradient.iter().fold(true, |all, g| all & g.is_finite());
            if !finite {
                let at = gradient.iter().position(|value| !value.is_finite());
                let at = at.expect("one of them was not finite");
                return Err(self.non_finite(rows_of_leaf, at / dim));
            }
            let mut gradients = gradient;
            let of_parts = rows_of_leaf.iter().map(|part| {
                let (of_part, rest) = gradients.split_at(part.unique.rows.len() * dim);
                gradients = rest;
                (part, of_part)
            });
            let of_parts: Vec<(&TableRows, &[f32])> = of_parts.collect();
            // What is composed is taken apart before any row changes.
            let mut sums = Vec::new();
            for (part, gradients) in &of_parts {
                sums.push(self.take_apart(part, staged.batch_size, gradients)?);
            }
            for ((part, gradients), sums) in of_parts.into_iter().zip(sums) {
                let whole = &self.wholes[part.table];
                if let Composition::Whole(table) = whole.rows {
                    let UniqueRows { rows, counts, .. } = &*part.unique;
                    let step = |nth: usize| RowStep {
                        rate,
                        share: match &whole.l2_shares {
                            Some(shares) => shares[rows[nth] as usize],
                            None => counts[nth] as f32 / staged.batch_size as f32,
                        },
                    };
                    self.tables[table].about_to_change(rows.iter().copied())?;
                    self.tables[table].update_rows(rows, gradients, step);
                }
                for sums in &sums {
                    let table = &mut self.tables[sums.table];
                    // Their share is in the sums.
                    let step = RowStep { rate, share: 0.0 };
                    for (row, gradient) in sums.rows() {
                        table.update_row(row, gradient, step);
                    }
                }
            }
        }
        Ok(())
    }

    /// The gradients of the rows that those of a compressed table are composed of, with the
    /// penalty of the composed ones; nothing of a whole table.
    fn take_apart(
        &self,
        part: &TableRows,
        batch_size: usize,
        gradients: &[f32],
    ) -> Result<Vec<RowSums>, Error> {
        let Whole {
            config, rows, l2, ..
        } = &self.wholes[part.table];
        if let Composition::Whole(_) = rows {
            return Ok(Vec::new());
        }
        let unique = &part.unique;
        let mut sums = rows.sums(&self.tables, unique.rows.len());
        let mut penalized = vec![0f32; config.dim];
        let gradients = gradients.chunks_exact(config.dim);
        for ((&row, &count), gradient) in unique.rows.iter().zip(&unique.counts).zip(gradients) {
            let l2 = l2 * count as f32 / batch_size as f32;
            rows.read(&self.tables, row, &mut penalized);
            for (weight, &g) in penalized.iter_mut().zip(gradient) {
                // As in a row optimizer: what took no part pays nothing.
                *weight = if g == 0.0 { 0.0 } else { g + l2 * *weight };
            }
            rows.scatter(&self.tables, row, &penalized, &mut sums);
        }
        for sums in &sums {
            let mut rows = sums.rows();
            if let Some((row, _)) = rows.find(|(_, sum)| sum.iter().any(|g| !g.is_finite())) {
                let table = self.tables[sums.table].config().name.clone();
                return Err(Error::NonFiniteGradient { table, row });
            }
        }
        Ok(sums)
    }

    fn non_finite(&self, rows_of_leaf: &[TableRows], mut at: usize) -> Error {
        for part in rows_of_leaf {
            if let Some(&row) = part.unique.rows.get(at) {
                let table = self.tables[part.table].config().name.clone();
                return Error::NonFiniteGradient { table, row };
            }
            at -= part.unique.rows.len();
        }
        unreachable!("the leaf has a gradient for each of its rows")
    }

    /// The weights of all tables under `tables.<name>`.
    pub fn weight_tensors(&self) -> BTreeMap<String, SnapshotTensor<'_>> {
        self.weight_tensors_of(|_| true)
    }

    /// The optimizers' states of all tables under `tables.<name>.<part>`.
    pub fn state_tensors(&self) -> BTreeMap<String, SnapshotTensor<'_>> {
        self.state_tensors_of(|_| true)
    }

    /// The weights and, separately, the optimizers' states of the tables that a checkpoint has to hold:
    /// all but those whose rows lie in files of the run.
    pub fn checkpoint_tensors(&self) -> [BTreeMap<String, SnapshotTensor<'_>>; 2] {
        let is_held = |table: &Table| !table.is_kept();
        [
            self.weight_tensors_of(is_held),
            self.state_tensors_of(is_held),
        ]
    }

    fn weight_tensors_of(
        &self,
        which: impl Fn(&Table) -> bool,
    ) -> BTreeMap<String, SnapshotTensor<'_>> {
        let tables = self.tables.iter().filter(|table| which(table));
        tables
            .map(|table| (tensor_name(&table.config().name), table.weight_tensor()))
            .collect()
    }

    fn state_tensors_of(
        &self,
        which: impl Fn(&Table) -> bool,
    ) -> BTreeMap<String, SnapshotTensor<'_>> {
        let tables = self.tables.iter().filter(|table| which(table));
        tables
            .flat_map(|table| {
                let name = tensor_name(&table.config().name);
                let named = move |(part, tensor)| (format!("{name}.{part}"), tensor);
                table.state_tensors().into_iter().map(named)
            })
            .collect()
    }

    /// Reads the weights of all tables. One whose rows lie in a file of a run stays as it is where the
    /// snapshot does not hold it: [`go_back`](Self::go_back) makes it that of a checkpoint.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn load_weights(&mut self, snapshot: &mut Snapshot) -> Result<(), Error> {
        self.tables.iter_mut().try_for_each(|table| {
            let name = tensor_name(&table.config().name);
            if table.is_kept() && snapshot.shape(&name).is_none() {
                return Ok(());
            }
            table.load_weights(snapshot, &name)
        })
    }

    /// Reads the optimizers' states of the same tables.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn load_state(&mut self, snapshot: &mut Snapshot) -> Result<(), Error> {
        self.tables.iter_mut().try_for_each(|table| {
            let name = tensor_name(&table.config().name);
            if table.is_kept() && !table.has_state_in(snapshot, &name) {
                return Ok(());
            }
            table.load_state(snapshot, &name)
        })
    }

    fn kept(&mut self) -> impl Iterator<Item = &mut Table> {
        self.tables.iter_mut().filter(|table| table.is_kept())
    }

    /// Whether rows of a table lie in a file of a run, which its checkpoints do not copy.
    pub fn has_kept_rows(&self) -> bool {
        self.tables.iter().any(Table::is_kept)
    }

    /// Whether a table is mapped.
    pub fn has_mapped_rows(&self) -> bool {
        self.tables.iter().any(Table::is_mapped)
    }

    /// Bounds the bytes of mapped tables that stay in memory together, each by its share of all of
    /// them: those that were used last do. A step may go beyond it by what it needs.
    pub fn bound_mapped(&self, bytes: u64) {
        let mapped = || self.tables.iter().filter(|table| table.is_mapped());
        let all: usize = mapped().map(|table| table.bytes().len()).sum();
        for table in mapped() {
            let share = table.bytes().len() as f64 / all.max(1) as f64;
            table.bound((bytes as f64 * share) as u64);
        }
    }

    /// Must be called before kernels change what some rows of data name, `rows` being their
    /// numbers: the rows of tables in files of a run are written down as they are, if there is a
    /// checkpoint to go back to; and what changes in a mapped table without being named here is lost
    /// when its page is given back. ([`apply`](Self::apply) does so itself.)
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn about_to_change(
        &mut self,
        examples: &Examples<'_>,
        rows: impl Iterator<Item = usize> + Clone,
    ) -> Result<(), Error> {
        for table in self.tables.iter_mut().filter(|table| table.is_mapped()) {
            table.kernels_change(&named(examples, table.config(), rows.clone()))?;
        }
        Ok(())
    }

    /// Notes that kernels have read what some rows of data name, so that rows of mapped tables that
    /// nobody reads can go.
    pub fn touch(&self, examples: &Examples<'_>, rows: std::ops::Range<usize>) {
        for table in self.tables.iter().filter(|table| table.is_mapped()) {
            table.touch(named(examples, table.config(), rows.clone()).into_iter());
        }
    }

    /// Flushes the rows of tables in files of a run, and says what they are, for a checkpoint; empty if
    /// there are none. Rows may change again when [`begin_undo`](Self::begin_undo) was called.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn settle_mapped(&mut self) -> Result<BTreeMap<String, MappedRows>, Error> {
        let mut all = BTreeMap::new();
        for table in self.kept() {
            if let Some(rows) = table.settle()? {
                all.insert(table.config().name.clone(), rows);
            }
        }
        Ok(all)
    }

    /// Begins to write down what leads back to checkpoint `step`, which `saved` is of.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin_undo(
        &mut self,
        step: u64,
        saved: &BTreeMap<String, MappedRows>,
    ) -> Result<(), Error> {
        self.kept().try_for_each(|table| {
            let saved = saved.get(&table.config().name);
            saved.map_or(Ok(()), |saved| table.begin_undo(step, saved))
        })
    }

    /// Leads the rows of tables in files of a run back to checkpoint `step`, which `saved` is of, and
    /// begins to write down what leads back there again.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::MappedTable`] for a file that is damaged, or rows that are not those of
    /// the checkpoint.
    pub fn go_back(
        &mut self,
        step: u64,
        saved: &BTreeMap<String, MappedRows>,
    ) -> Result<(), Error> {
        self.kept()
            .try_for_each(|table| match saved.get(&table.config().name) {
                Some(saved) => table.go_back(step, saved),
                None => Err(Error::Needs {
                    table: table.config().name.clone(),
                    what: "storage = \"mapped\"",
                    expected: "a run that began with it: the checkpoint has this table itself",
                }),
            })
    }

    /// Removes what leads rows back to checkpoints before `step`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove_undo_before(&mut self, step: u64) -> Result<(), Error> {
        self.kept()
            .try_for_each(|table| table.remove_undo_before(step))
    }
}

/// The rows of a table that rows of data name, as they come.
fn named(
    examples: &Examples<'_>,
    table: &TableConfig,
    rows: impl Iterator<Item = usize>,
) -> Vec<u32> {
    let fields = || table.fields.iter();
    let columns: Vec<usize> = fields()
        .filter_map(|field| examples.one_hot_fields.iter().position(|at| at == field))
        .collect();
    let lists: Vec<_> = (examples.lists.iter())
        .filter(|list| table.fields.contains(&list.field))
        .collect();
    let mut named = Vec::new();
    for row in rows {
        let one_hot = examples.one_hot_of(row);
        named.extend(columns.iter().map(|&column| one_hot[column]));
        for list in &lists {
            named.extend_from_slice(&list.indices[list.range(row)]);
        }
    }
    named
}

/// The name of a table's weights in a snapshot: `tables.<table>`.
pub fn tensor_name(table: &str) -> String {
    format!("tables.{table}")
}

/// Numbers the distinct rows of a batch in the order in which they first occur, in memory
/// proportional to the batch.
#[derive(Debug, Default)]
pub(crate) struct Dedup {
    /// Open addressing: number of the row + 1, 0 where free. A power of two, at most half full.
    slots: Vec<u32>,
    shift: u32,
    rows: Vec<u32>,
    counts: Vec<u32>,
}

impl Dedup {
    pub(crate) fn begin(&mut self, occurrences: usize) {
        let size = (occurrences * 2).next_power_of_two().max(2);
        self.slots.clear();
        self.slots.resize(size, 0);
        self.shift = u32::BITS - size.trailing_zeros();
    }

    /// The distinct rows that a batch names in the given fields.
    fn unique(&mut self, batch: &Batch, fields: &[FieldId]) -> UniqueRows {
        // A field that only batches of training have is empty in others.
        let indices = |&field: &FieldId| {
            let field = batch.sparse.get(field);
            field.map_or(&[][..], |field| &field.indices[..])
        };
        self.begin(fields.iter().map(|field| indices(field).len()).sum());
        let positions = fields.iter().map(|field| {
            let slots = indices(field).iter().map(|&row| self.slot(row));
            (*field, slots.collect())
        });
        let positions = Arc::new(positions.collect());
        let (rows, counts) = self.finish();
        UniqueRows {
            rows,
            counts,
            positions,
        }
    }

    /// The number of a row, a new one if it was not seen before.
    #[inline]
    pub(crate) fn slot(&mut self, row: u32) -> u32 {
        // Fibonacci hashing: the high bits of the product are well mixed.
        let mut at = (row.wrapping_mul(0x9E37_79B9) >> self.shift) as usize;
        loop {
            match self.slots[at] {
                0 => {
                    self.rows.push(row);
                    self.counts.push(1);
                    self.slots[at] = self.rows.len() as u32;
                    return self.rows.len() as u32 - 1;
                }
                number if self.rows[number as usize - 1] == row => {
                    self.counts[number as usize - 1] += 1;
                    return number - 1;
                }
                _ => at = (at + 1) & (self.slots.len() - 1),
            }
        }
    }

    pub(crate) fn rows(&self) -> &[u32] {
        &self.rows
    }

    fn finish(&mut self) -> (Vec<u32>, Vec<u32>) {
        (
            std::mem::take(&mut self.rows),
            std::mem::take(&mut self.counts),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{L2By, RowOptimizer, RowOptimizerKind};
    use burn::tensor::module::embedding;
    use burn::tensor::{Int, Tolerance};
    use crossfield_core::{Initializer, Jagged, TableConfig, TableField};
    use proptest::prelude::*;

    fn plan(name: &str, rows: usize, dim: usize, fields: &[usize]) -> TablePlan {
        let config = TableConfig {
            name: name.into(),
            rows,
            dim,
            fields: fields.to_vec(),
            initializer: Initializer::Normal { std: 0.3 },
            oov_row: Some(0),
        };
        let optimizer = RowOptimizer {
            kind: RowOptimizerKind::Sgd,
            lr: 1.0,
            ..Default::default()
        };
        TablePlan::new(config, optimizer)
    }

    fn one_hot(fields: &[&[u32]]) -> Arc<Batch> {
        Arc::new(Batch {
            batch_size: fields[0].len(),
            sparse: fields
                .iter()
                .map(|indices| Jagged::one_hot(indices.to_vec()))
                .collect(),
            ..Batch::default()
        })
    }

    fn field(table: &str, field: usize) -> TableField {
        TableField {
            table: table.into(),
            field,
        }
    }

    /// Any smooth function of the vectors, with another gradient for each.
    fn head(v: Tensor<3>) -> Tensor<1> {
        let pairs = v.clone().sum_dim(1).square() - v.clone().square().sum_dim(1);
        (pairs.sum_dim(2).exp().sum_dim(0).reshape([1]))
            + v.sum_dim(1).sum_dim(2).sum_dim(0).reshape([1])
    }

    fn check_against_dense_embedding(device: &Device, equal: impl Fn(&TensorData, &TensorData)) {
        let device = device.clone().autodiff();
        let (rows, dim) = (50, 4);
        let mut tables = EmbeddingCollection::new(&[plan("v", rows, dim, &[0, 1, 2])], 5).unwrap();
        let batch = one_hot(&[&[3, 3, 7, 49, 3], &[0, 7, 7, 1, 2], &[3, 8, 9, 8, 8]]);
        let (lookup, _) = tables.stage(batch.clone(), &device);
        let refs = [field("v", 0), field("v", 1), field("v", 2)];
        let sparse = head(lookup.fields(&refs)).backward();
        let sparse = lookup.leaves()[0].rows.grad(&sparse).unwrap().into_data();

        let all: Vec<f32> = (0..rows as u32)
            .flat_map(|row| tables.tables()[0].weights(row).to_vec())
            .collect();
        let weight =
            Tensor::<2>::from_data(TensorData::new(all, [rows, dim]), &device).require_grad();
        let indices: Vec<i64> = (0..5)
            .flat_map(|row| (0..3).map(move |f| (row, f)))
            .map(|(row, f)| i64::from(batch.sparse[f].indices[row]))
            .collect();
        let indices = Tensor::<2, Int>::from_data(TensorData::new(indices, [5, 3]), &device);
        let dense = head(embedding(weight.clone(), indices)).backward();
        let dense = weight.grad(&dense).unwrap();

        let unique = [3i64, 7, 49, 0, 1, 2, 8, 9];
        let indices = Tensor::<1, Int>::from_data(unique, &dense.device());
        let touched = dense.clone().select(0, indices).into_data();
        assert_eq!(
            touched.shape(),
            sparse.shape(),
            "unique rows in order of first occurrence"
        );
        equal(&sparse, &touched);
        let untouched = dense.abs().sum_dim(1).try_into_vec_as::<f32>().unwrap();
        for (row, size) in untouched.iter().enumerate() {
            assert_eq!(*size != 0.0, unique.contains(&(row as i64)), "row {row}");
        }
    }

    #[test]
    fn row_gradients_equal_the_dense_embedding_gradient_to_the_bit() {
        check_against_dense_embedding(&Device::flex(), |sparse, dense| assert_eq!(sparse, dense));
    }

    #[cfg(feature = "ndarray")]
    #[test]
    #[expect(deprecated, reason = "kept as the second CPU backend")]
    fn row_gradients_equal_the_dense_embedding_gradient_on_ndarray() {
        check_against_dense_embedding(&Device::ndarray(), |sparse, dense| {
            sparse.assert_approx_eq::<f32>(dense, Tolerance::absolute(1e-6));
        });
    }

    #[test]
    fn tables_that_the_same_fields_read_share_the_numbering_of_their_rows() {
        let plans = [
            plan("v2.ad", 9, 2, &[0, 1]),
            plan("v2.site", 5, 2, &[2]),
            plan("wide.ad", 9, 1, &[0, 1]),
            plan("wide.site", 5, 1, &[2]),
        ];
        let mut tables = EmbeddingCollection::new(&plans, 5).unwrap();
        let before: Vec<f32> = (0..9).map(|ad| tables.tables()[2].weights(ad)[0]).collect();
        let device = Device::flex().autodiff();
        // Row 0: ads 7 and 1, site 4; row 1: ads 1 and 1, site 3.
        let batch = one_hot(&[&[7, 1], &[1, 1], &[4, 3]]);
        let (lookup, staged) = tables.stage(batch, &device);
        let [linear, factors] = &staged.leaves[..] else {
            panic!("a leaf for each dim");
        };
        assert!(Arc::ptr_eq(&linear[0].unique, &factors[0].unique));

        let all = |prefix: &str| {
            let ad = format!("{prefix}.ad");
            [
                field(&ad, 0),
                field(&ad, 1),
                field(&format!("{prefix}.site"), 2),
            ]
        };
        let (scores, vectors) = (lookup.pooled(&all("wide")), lookup.fields(&all("v2")));
        let site = |row| tables.tables()[3].weights(row)[0];
        let expected = [
            before[7] + before[1] + site(4),
            before[1] + before[1] + site(3),
        ];
        let got = scores.clone().try_into_vec_as::<f32>().unwrap();
        assert_eq!(got, expected);
        let got = vectors.clone().try_into_vec_as::<f32>().unwrap();
        let expected = [(0, 7), (0, 1), (1, 4), (0, 1), (0, 1), (1, 3)];
        let expected = expected.map(|(table, row)| tables.tables()[table].weights(row));
        assert_eq!(got, expected.concat());

        // SGD at rate 1 takes away how often a row occurs.
        let mut gradients = (scores.sum() + vectors.sum()).backward();
        tables.apply(&lookup, &staged, &mut gradients, 1.0).unwrap();
        let after: Vec<f32> = (0..9).map(|ad| tables.tables()[2].weights(ad)[0]).collect();
        for (ad, times) in [(7, 1.0), (1, 3.0), (2, 0.0)] {
            assert_eq!(after[ad], before[ad] - times);
        }
    }

    #[test]
    fn bags_are_weighted_sums_and_empty_ones_are_zero() {
        let mut tables = EmbeddingCollection::new(&[plan("v", 10, 3, &[0])], 5).unwrap();
        let bag = Jagged {
            indices: vec![4, 6, 4],
            offsets: Some(vec![0, 2, 2, 3]),
            weights: Some(vec![2.0, 0.5, -1.0]),
        };
        let batch = Arc::new(Batch {
            batch_size: 3,
            sparse: vec![bag],
            ..Batch::default()
        });
        let (lookup, _) = tables.stage(batch, &Device::flex());
        let (sum, square) = lookup.pooled_with_square(&[field("v", 0)]);
        let table = &tables.tables()[0];
        let (four, six) = (table.weights(4), table.weights(6));
        let expected_sum: Vec<f32> = (0..3)
            .map(|d| 2.0 * four[d] + 0.5 * six[d])
            .chain([0.0; 3])
            .chain((0..3).map(|d| -four[d]))
            .collect();
        let expected_square: Vec<f32> = (0..3)
            .map(|d| (2.0 * four[d]).powi(2) + (0.5 * six[d]).powi(2))
            .chain([0.0; 3])
            .chain((0..3).map(|d| four[d].powi(2)))
            .collect();
        let tolerance = Tolerance::absolute(1e-6);
        sum.into_data()
            .assert_approx_eq::<f32>(&TensorData::new(expected_sum, [3, 3]), tolerance);
        let expected_square = TensorData::new(expected_square, [3, 3]);
        square
            .into_data()
            .assert_approx_eq::<f32>(&expected_square, tolerance);
        assert_eq!(
            lookup.norm2(&[0]).try_into_vec_as::<f32>().unwrap(),
            [4.25, 0.0, 1.0]
        );
    }

    #[test]
    fn a_batch_of_empty_bags_is_legal_and_changes_nothing() {
        let mut tables = EmbeddingCollection::new(&[plan("v", 10, 3, &[0])], 5).unwrap();
        let bag = Jagged {
            indices: vec![],
            offsets: Some(vec![0, 0, 0]),
            weights: None,
        };
        let batch = Arc::new(Batch {
            batch_size: 2,
            sparse: vec![bag],
            ..Batch::default()
        });
        let (lookup, staged) = tables.stage(batch, &Device::flex().autodiff());
        let pooled = lookup.pooled(&[field("v", 0)]);
        assert_eq!(pooled.dims(), [2, 3]);
        let before = tables.tables()[0].weights(0).to_vec();
        let other = Tensor::<1>::ones([1], lookup.device()).require_grad();
        let mut gradients = (pooled.sum() + other).backward();
        tables.apply(&lookup, &staged, &mut gradients, 1.0).unwrap();
        assert_eq!(tables.tables()[0].weights(0), before);
        let (items, mask) = lookup.sequence(&field("v", 0));
        assert_eq!(items.dims(), [2, 1, 3]);
        assert!(!mask.any().into_scalar::<bool>());
        assert!(lookup.ragged(&field("v", 0)).is_none());
    }

    #[test]
    fn sequences_are_padded_with_zeros_behind_a_mask() {
        let mut tables = EmbeddingCollection::new(&[plan("v", 10, 2, &[0, 1])], 5).unwrap();
        let history = Jagged {
            indices: vec![5, 6, 7],
            offsets: Some(vec![0, 1, 3]),
            weights: None,
        };
        let batch = Arc::new(Batch {
            batch_size: 2,
            sparse: vec![Jagged::one_hot(vec![6, 1]), history],
            ..Batch::default()
        });
        let (lookup, _) = tables.stage(batch, &Device::flex());
        let (items, mask) = lookup.sequence(&field("v", 1));
        let items = items.try_into_vec_as::<f32>().unwrap();
        let table = &tables.tables()[0];
        let expected = [
            table.weights(5),
            &[0.0, 0.0],
            table.weights(6),
            table.weights(7),
        ]
        .concat();
        assert_eq!(items, expected);
        assert_eq!(
            mask.try_into_vec_as::<bool>().unwrap(),
            [true, false, true, true]
        );
        let ragged = lookup.ragged(&field("v", 1)).unwrap();
        assert_eq!(ragged.segments.range(1), 1..3);
    }

    #[test]
    fn a_row_that_occurs_pays_its_l2_through_its_occurrences_in_training() {
        // Equation 6 of Zhou et al. 2018: w ← w − η (g + λ w / n_j) for a row j of the batch, however
        // often it occurs there; g is 0.25, the mean of a gradient of 1 over four rows, as often as
        // the row occurs.
        let sgd = RowOptimizer {
            kind: RowOptimizerKind::Sgd,
            lr: 0.5,
            l2: 0.8,
            ..RowOptimizer::default()
        };
        let plan = TablePlan {
            l2_by: L2By::Occurrence,
            optimizer: sgd,
            ..plan("v1.item", 4, 1, &[0])
        };
        let plan = plan.with_counts(|row| [0, 2, 8, 5][row as usize]);
        let mut tables = EmbeddingCollection::new(&[plan], 1).unwrap();
        let table = tables.table_mut("v1.item").unwrap();
        for row in 0..4 {
            table.weights_mut(row)[0] = 1.0 + row as f32;
        }
        let batch = Batch {
            batch_size: 4,
            sparse: vec![Jagged::one_hot(vec![1, 2, 2, 2])],
            ..Batch::default()
        };
        let device = Device::flex().autodiff();
        let (lookup, staged) = tables.stage(Arc::new(batch), &device);
        let item = TableField {
            table: "v1.item".into(),
            field: 0,
        };
        let loss = lookup.pooled(&[item]).mean();
        let mut gradients = loss.backward();
        tables.apply(&lookup, &staged, &mut gradients, 1.0).unwrap();
        let weight = |row: u32| tables.tables()[0].weights(row)[0];
        let expected = |w: f32, g: f32, n: f32| w - 0.5 * (g + 0.8 * w / n);
        assert_eq!(weight(1), expected(2.0, 0.25, 2.0));
        assert_eq!(weight(2), expected(3.0, 0.75, 8.0));
        // What does not occur pays nothing.
        assert_eq!((weight(0), weight(3)), (1.0, 4.0));
    }

    #[test]
    fn tables_of_one_dim_share_a_leaf_and_keep_their_own_rows() {
        let plans = [
            plan("a", 5, 2, &[0]),
            plan("b", 5, 3, &[0]),
            plan("c", 5, 2, &[1]),
        ];
        let mut tables = EmbeddingCollection::new(&plans, 5).unwrap();
        let device = Device::flex().autodiff();
        let (lookup, staged) = tables.stage(one_hot(&[&[1, 2, 1], &[1, 4, 3]]), &device);
        assert_eq!(lookup.leaves().len(), 2);
        let before: Vec<Vec<f32>> = (0..3)
            .map(|t| tables.tables()[t].weights(1).to_vec())
            .collect();
        let both = lookup.fields(&[field("a", 0), field("c", 1)]);
        let first = both
            .clone()
            .slice([0..1, 0..1])
            .try_into_vec_as::<f32>()
            .unwrap();
        assert_eq!(first, before[0]);
        // Row 1 of `a` occurs twice, row 1 of `c` once: the gradient of a sum counts them.
        let mut gradients = both.sum().backward();
        tables.apply(&lookup, &staged, &mut gradients, 0.5).unwrap();
        assert_eq!(tables.tables()[0].weights(1)[0], before[0][0] - 1.0);
        assert_eq!(tables.tables()[1].weights(1), before[1]);
        assert_eq!(tables.tables()[2].weights(1)[0], before[2][0] - 0.5);
    }

    #[test]
    fn a_gradient_that_is_not_finite_stops_before_it_reaches_a_table() {
        let mut tables = EmbeddingCollection::new(&[plan("v8.ad", 9, 2, &[0])], 5).unwrap();
        let device = Device::flex().autodiff();
        let (lookup, staged) = tables.stage(one_hot(&[&[1, 7]]), &device);
        let pooled = lookup.pooled(&[field("v8.ad", 0)]);
        let poison = Tensor::<2>::from_data([[1.0, 1.0], [1.0, f32::NAN]], &device);
        let mut gradients = (pooled * poison).sum().backward();
        let before = tables.tables()[0].weights(1).to_vec();
        let error = tables
            .apply(&lookup, &staged, &mut gradients, 1.0)
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the gradient of table `v8.ad` is not finite (row 7)")
        );
        assert_eq!(tables.tables()[0].weights(1), before);
    }

    #[test]
    fn frozen_tables_stay_and_the_unseen_row_begins_at_zero() {
        let frozen = TablePlan {
            frozen: true,
            ..plan("v", 9, 2, &[0])
        };
        let mut tables = EmbeddingCollection::new(&[frozen], 5).unwrap();
        assert_eq!(tables.tables()[0].weights(0), [0.0, 0.0]);
        let (lookup, staged) = tables.stage(one_hot(&[&[1, 7]]), &Device::flex().autodiff());
        let before = tables.tables()[0].weights(7).to_vec();
        let mut gradients = lookup.pooled(&[field("v", 0)]).sum().backward();
        tables.apply(&lookup, &staged, &mut gradients, 1.0).unwrap();
        assert_eq!(tables.tables()[0].weights(7), before);
    }

    #[test]
    fn snapshots_bring_weights_and_state_back() {
        let adam = RowOptimizer {
            kind: RowOptimizerKind::Adam,
            ..RowOptimizer::default()
        };
        let plans = [
            TablePlan {
                optimizer: adam,
                ..plan("a", 70_000, 2, &[0])
            },
            TablePlan {
                optimizer: RowOptimizer::default(),
                ..plan("b", 9, 3, &[1])
            },
        ];
        let mut tables = EmbeddingCollection::new(&plans, 5).unwrap();
        let step = |tables: &mut EmbeddingCollection| {
            let device = Device::flex().autodiff();
            let (lookup, staged) = tables.stage(one_hot(&[&[69_999, 1], &[3, 3]]), &device);
            let a = lookup.pooled(&[field("a", 0)]).square().sum();
            let mut gradients = (a + lookup.pooled(&[field("b", 1)]).square().sum()).backward();
            tables.apply(&lookup, &staged, &mut gradients, 1.0).unwrap();
        };
        step(&mut tables);
        let dir = tempfile::tempdir().unwrap();
        let [weights, state] = ["w", "s"].map(|name| dir.path().join(name));
        crate::write_snapshot(&weights, tables.weight_tensors()).unwrap();
        crate::write_snapshot(&state, tables.state_tensors()).unwrap();
        let names = Snapshot::open(&state).unwrap().names();
        assert_eq!(
            names,
            [
                "tables.a.moment_1",
                "tables.a.moment_2",
                "tables.a.time",
                "tables.b.accumulator"
            ]
        );

        let mut loaded = EmbeddingCollection::new(&plans, 6).unwrap();
        loaded
            .load_weights(&mut Snapshot::open(&weights).unwrap())
            .unwrap();
        loaded
            .load_state(&mut Snapshot::open(&state).unwrap())
            .unwrap();
        step(&mut tables);
        step(&mut loaded);
        for (table, row) in [(0, 69_999), (0, 1), (0, 2), (1, 3)] {
            assert_eq!(
                tables.tables()[table].weights(row),
                loaded.tables()[table].weights(row)
            );
        }
    }

    proptest! {
        #[test]
        fn dedup_numbers_rows_by_first_occurrence(rows in proptest::collection::vec(0u32..40, 0..200)) {
            let mut dedup = Dedup::default();
            dedup.begin(rows.len());
            let slots: Vec<u32> = rows.iter().map(|&row| dedup.slot(row)).collect();
            let (unique, counts) = dedup.finish();
            let mut seen = Vec::new();
            for &row in &rows {
                if !seen.contains(&row) {
                    seen.push(row);
                }
            }
            prop_assert_eq!(&unique, &seen);
            for (row, slot) in rows.iter().zip(&slots) {
                prop_assert_eq!(unique[*slot as usize], *row);
            }
            prop_assert_eq!(counts.iter().sum::<u32>() as usize, rows.len());
        }
    }
}
