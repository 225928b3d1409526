//! The rows of one batch, as tensors.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Bool, Device, IndexingUpdateOp, Int, Tensor, TensorData};

use crate::gather::gather;
use crate::{Batch, Contribution, Feature, FieldId, Jagged, Ragged, Segments, TableField, What};

/// The unique rows that one batch reads from the tables of one dim: a leaf of the graph.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Weights, `[unique rows, dim]`.
    pub rows: Tensor<2>,
}

/// Where a staged table's indices went.
#[derive(Clone, Debug)]
pub struct StagedTable {
    /// Position in [`Lookup::leaves`].
    pub leaf: usize,
    /// The row of the leaf at which those of the table begin.
    pub first: u32,
    /// For each index of a field's [`Jagged`], its row among those of the table. Tables that the
    /// same fields read share them.
    pub positions: Arc<BTreeMap<FieldId, Vec<u32>>>,
}

/// Everything a component may read of one batch: the rows of its tables, dense columns, sizes.
///
/// The tables themselves stay in host memory; the graph sees only the rows of this batch, so that
/// no step does work in proportion to a table.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::Arc;
///
/// use burn::tensor::{Device, Tensor};
/// use crossfield_core::{Batch, Jagged, Leaf, Lookup, StagedTable, TableField};
///
/// // Two rows: the tags {0, 1}, and none. The leaf holds the vectors of tags 0 and 1.
/// let batch = Batch {
///     batch_size: 2,
///     sparse: vec![Jagged {
///         indices: vec![0, 1],
///         offsets: Some(vec![0, 2, 2]),
///         weights: None,
///     }],
///     ..Batch::default()
/// };
/// let device = Device::flex();
/// let leaf = Leaf {
///     rows: Tensor::from_data([[1.0, 2.0], [10.0, 20.0]], &device),
/// };
/// let staged = StagedTable {
///     leaf: 0,
///     first: 0,
///     positions: BTreeMap::from([(0, vec![0, 1])]).into(),
/// };
/// let tables = BTreeMap::from([("v2.tags".to_owned(), staged)]);
/// let x = Lookup::new(Arc::new(batch), device, vec![leaf], tables);
///
/// let tags = TableField {
///     table: "v2.tags".into(),
///     field: 0,
/// };
/// let pooled = x.pooled(std::slice::from_ref(&tags));
/// assert_eq!(pooled.try_into_vec_as::<f32>().unwrap(), [11.0, 22.0, 0.0, 0.0]);
/// let (items, mask) = x.sequence(&tags);
/// assert_eq!((items.dims(), mask.dims()), ([2, 2, 2], [2, 2]));
/// let ragged = x.ragged(&tags).expect("some row has a tag");
/// assert_eq!(ragged.values.dims(), [2, 2]);
/// assert_eq!(x.rows_of(&tags), [0, 1]);
/// let second = x.rows_at(&tags, vec![1]);
/// assert_eq!(second.try_into_vec_as::<f32>().unwrap(), [10.0, 20.0]);
/// // The second half of each row, one weight wide.
/// let (sum, square) = x.blocks_with_square(std::slice::from_ref(&tags), &[1], 1);
/// assert_eq!(sum.try_into_vec_as::<f32>().unwrap(), [22.0, 0.0]);
/// assert_eq!(square.try_into_vec_as::<f32>().unwrap(), [404.0, 0.0]);
/// let features = x.features(&[tags]);
/// assert_eq!((features[0][1].feature.index, &features[0][1].weights[..]), (1, &[10.0, 20.0][..]));
/// assert!(features[1].is_empty());
/// ```
#[derive(Clone, Debug)]
pub struct Lookup {
    batch: Arc<Batch>,
    device: Device,
    leaves: Vec<Leaf>,
    tables: BTreeMap<String, StagedTable>,
    training: Option<TrainingStep>,
}

/// The step of training that a batch is staged for: what random numbers of a forward pass are keyed
/// by, dropout masks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingStep {
    /// Seed of the run.
    pub seed: u64,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Step over all epochs, from 0.
    pub step: u64,
}

/// A feature of one row beside its weights, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct LookedUp {
    /// The feature.
    pub feature: Feature,
    /// Position of its field among those that were asked for.
    pub nth: usize,
    /// Its row of the table.
    pub weights: Vec<f32>,
}

/// A weighted selection of leaf rows, each to be added to one segment of the output.
struct Selection {
    positions: Vec<u32>,
    /// `None`: all weights are 1.
    weights: Option<Vec<f32>>,
    /// `None`: one feature a segment, in order.
    segments: Option<Vec<i64>>,
}

impl Lookup {
    /// A lookup over rows that were staged for `batch`; called by whoever owns the tables.
    pub fn new(
        batch: Arc<Batch>,
        device: Device,
        leaves: Vec<Leaf>,
        tables: BTreeMap<String, StagedTable>,
    ) -> Self {
        Self {
            batch,
            device,
            leaves,
            tables,
            training: None,
        }
    }

    /// The same lookup, for a step of training.
    pub fn for_training(self, step: TrainingStep) -> Self {
        Self {
            training: Some(step),
            ..self
        }
    }

    /// The same lookup with other rows in a leaf, as checks of gradients need it.
    ///
    /// # Panics
    /// If the shape is another.
    pub fn with_leaf(&self, leaf: usize, rows: Tensor<2>) -> Self {
        assert_eq!(
            rows.dims(),
            self.leaves[leaf].rows.dims(),
            "the shape of a leaf"
        );
        let mut lookup = self.clone();
        lookup.leaves[leaf] = Leaf { rows };
        lookup
    }

    /// The step of training that this is; `None` where rows are only scored.
    pub fn training(&self) -> Option<TrainingStep> {
        self.training
    }

    /// The batch on the host.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Number of rows.
    pub fn batch_size(&self) -> usize {
        self.batch.batch_size
    }

    /// Where the tensors live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The leaves, one for each dim, for the owner of the tables to read gradients from.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// One vector for each field: Σ x v over the field's features.
    ///
    /// # Shapes
    /// - output: `[batch, fields, dim]`; an empty bag is a zero vector.
    ///
    /// # Panics
    /// If a table was not staged, or the tables differ in dim: a component must read what its
    /// config's `tables` declared.
    pub fn fields(&self, fields: &[TableField]) -> Tensor<3> {
        let [batch, count] = [self.batch_size(), fields.len()];
        let leaf = self.leaf(fields);
        let selection = self.select(fields, |row, nth| row * count + nth);
        let dim = leaf.rows.dims()[1];
        self.add_up(
            self.values(leaf, &selection),
            &selection,
            batch * count,
            dim,
        )
        .reshape([batch, count, dim])
    }

    /// Σ x v over all features of the given fields, as if they were one bag.
    ///
    /// # Shapes
    /// - output: `[batch, dim]`
    pub fn pooled(&self, fields: &[TableField]) -> Tensor<2> {
        let leaf = self.leaf(fields);
        let selection = self.select(fields, |row, _| row);
        self.pool(leaf, selection)
    }

    /// Σ x² v² over all features of the given fields, element-wise.
    ///
    /// # Shapes
    /// - output: `[batch, dim]`
    pub fn pooled_square(&self, fields: &[TableField]) -> Tensor<2> {
        self.pooled_with_square(fields).1
    }

    /// [`pooled`](Self::pooled) and [`pooled_square`](Self::pooled_square) of one pass over the
    /// rows: the two sums of a factorization machine.
    pub fn pooled_with_square(&self, fields: &[TableField]) -> (Tensor<2>, Tensor<2>) {
        let leaf = self.leaf(fields);
        let selection = self.select(fields, |row, _| row);
        let values = self.values(leaf, &selection);
        let squares = values.clone().map(|values| values.square());
        let dim = leaf.rows.dims()[1];
        let squares = self.pool_values(squares, &selection, dim);
        (self.pool_values(values, &selection, dim), squares)
    }

    /// One block of `width` weights of each feature: Σ x v by field, and Σ x² v² of all. A row of
    /// the table is read as blocks side by side, and `blocks` says which of them each field takes.
    ///
    /// # Shapes
    /// - first: `[batch, fields, width]`
    /// - second: `[batch, width]`, element-wise
    ///
    /// # Panics
    /// As [`fields`](Self::fields), and if `width` does not divide the dim of the tables.
    pub fn blocks_with_square(
        &self,
        fields: &[TableField],
        blocks: &[usize],
        width: usize,
    ) -> (Tensor<3>, Tensor<2>) {
        let [batch, count] = [self.batch_size(), fields.len()];
        let leaf = self.leaf(fields);
        let [rows, dim] = leaf.rows.dims();
        assert_eq!(
            dim % width,
            0,
            "rows of {dim} weights have no blocks of {width}"
        );
        let leaf = Leaf {
            rows: leaf.rows.clone().reshape([rows * dim / width, width]),
        };
        let mut selection = self.select(fields, |row, nth| row * count + nth);
        let segments = selection
            .segments
            .get_or_insert_with(|| (0..(batch * count) as i64).collect());
        for (position, segment) in selection.positions.iter_mut().zip(segments.iter()) {
            *position = *position * (dim / width) as u32 + blocks[*segment as usize % count] as u32;
        }
        let values = self.values(&leaf, &selection);
        let squares = values.clone().map(|values| values.square());
        let sums = self
            .add_up(values, &selection, batch * count, width)
            .reshape([batch, count, width]);
        if let Some(segments) = &mut selection.segments {
            for segment in segments {
                *segment /= count as i64;
            }
        }
        (sums, self.add_up(squares, &selection, batch, width))
    }

    /// The features of each row with their weights, field by field: what explanations read.
    ///
    /// # Panics
    /// As [`fields`](Self::fields).
    pub fn features(&self, fields: &[TableField]) -> Vec<Vec<LookedUp>> {
        if fields.is_empty() {
            return vec![Vec::new(); self.batch_size()];
        }
        let leaf = self.leaf(fields);
        let dim = leaf.rows.dims()[1];
        let weights = leaf.rows.clone().into_data().convert::<f32>();
        let weights = weights.as_slice::<f32>().expect("weights were made f32");
        let of_row = |row| {
            let of_field = |(nth, field): (usize, &TableField)| {
                let jagged = &self.batch.sparse[field.field];
                let (first, positions) = self.positions(field);
                let field = field.field;
                jagged.range(row).map(move |at| LookedUp {
                    feature: Feature {
                        field,
                        index: jagged.indices[at],
                        value: jagged.weight(at),
                    },
                    nth,
                    weights: weights[(first + positions[at]) as usize * dim..][..dim].to_vec(),
                })
            };
            fields.iter().enumerate().flat_map(of_field).collect()
        };
        (0..self.batch_size()).map(of_row).collect()
    }

    /// The terms w x of each row: [`pooled`](Self::pooled) of tables of dim 1, taken apart.
    ///
    /// # Panics
    /// As [`fields`](Self::fields).
    pub fn linear_terms(&self, fields: &[TableField]) -> Vec<Contribution> {
        let term = |(
            row,
            LookedUp {
                feature, weights, ..
            },
        ): (usize, &LookedUp)| Contribution {
            row,
            what: What::Linear(*feature),
            weight: weights[0],
            contribution: weights[0] * feature.value,
        };
        let rows = self.features(fields);
        let features = rows.iter().enumerate();
        features
            .flat_map(|(row, features)| features.iter().map(move |feature| (row, feature)))
            .map(term)
            .collect()
    }

    /// Σ x² over all features of the given fields: what instance-wise normalisation divides by.
    ///
    /// # Shapes
    /// - output: `[batch, 1]`
    pub fn norm2(&self, fields: &[FieldId]) -> Tensor<2> {
        let mut norms = vec![0f32; self.batch_size()];
        for &field in fields {
            let jagged = &self.batch.sparse[field];
            for (row, norm) in norms.iter_mut().enumerate() {
                *norm += jagged
                    .range(row)
                    .map(|at| jagged.weight(at).powi(2))
                    .sum::<f32>();
            }
        }
        let shape = [norms.len(), 1];
        Tensor::from_data(TensorData::new(norms, shape), &self.device)
    }

    /// The items of a sequence field, padded at the end to the longest of the batch.
    ///
    /// # Shapes
    /// - items: `[batch, time, dim]`, zero where padded; `time ≥ 1`
    /// - mask: `[batch, time]`, true where real
    pub fn sequence(&self, field: &TableField) -> (Tensor<3>, Tensor<2, Bool>) {
        let leaf = self.leaf(std::slice::from_ref(field));
        let (first, positions) = self.positions(field);
        let jagged = &self.batch.sparse[field.field];
        let batch = self.batch_size();
        let time = (0..batch)
            .map(|row| jagged.range(row).len())
            .max()
            .unwrap_or(0)
            .max(1);
        let mut padded = vec![0; batch * time];
        let mut real = vec![false; batch * time];
        for row in 0..batch {
            let items = &positions[jagged.range(row)];
            for (padded, item) in padded[row * time..].iter_mut().zip(items) {
                *padded = first + item;
            }
            real[row * time..][..items.len()].fill(true);
        }
        let mask = Tensor::<2, Bool>::from_data(TensorData::new(real, [batch, time]), &self.device);
        let dim = leaf.rows.dims()[1];
        let items = gather(leaf.rows.clone(), padded, 1)
            .reshape([batch, time, dim])
            .mul(mask.clone().float().reshape([batch, time, 1]));
        (items, mask)
    }

    /// The items of a sequence field without padding, or `None` if no row has one.
    pub fn ragged(&self, field: &TableField) -> Option<Ragged> {
        let leaf = self.leaf(std::slice::from_ref(field));
        let (first, positions) = self.positions(field);
        if positions.is_empty() {
            return None;
        }
        let positions = positions.iter().map(|position| first + position).collect();
        Some(Ragged {
            values: gather(leaf.rows.clone(), positions, 1),
            segments: Segments::of(&self.batch.sparse[field.field]),
        })
    }

    /// For each index of a field, in the order of its [`Jagged`], where its row lies in the leaf:
    /// what [`rows_at`](Self::rows_at) takes. None where the batch does not have the field.
    ///
    /// # Panics
    /// As [`fields`](Self::fields).
    pub fn rows_of(&self, field: &TableField) -> Vec<u32> {
        let (first, positions) = self.positions(field);
        positions.iter().map(|position| first + position).collect()
    }

    /// Rows of the leaf that a field is looked up in, in any order and as often as they are named.
    ///
    /// # Shapes
    /// - rows: `[n]`, n ≥ 1, of [`rows_of`](Self::rows_of) of this field or another of its table
    /// - output: `[n, dim]`
    ///
    /// # Panics
    /// As [`fields`](Self::fields).
    pub fn rows_at(&self, field: &TableField, rows: Vec<u32>) -> Tensor<2> {
        let leaf = self.leaf(std::slice::from_ref(field));
        gather(leaf.rows.clone(), rows, 1)
    }

    /// The dense columns, or `None` if the data has none.
    ///
    /// # Shapes
    /// - output: `[batch, columns]`
    pub fn dense(&self) -> Option<Tensor<2>> {
        let dense = self.batch.dense.as_ref()?;
        let shape = [self.batch_size(), dense.len() / self.batch_size()];
        Some(Tensor::from_data(
            TensorData::new(dense.clone(), shape),
            &self.device,
        ))
    }

    fn table(&self, name: &str) -> &StagedTable {
        self.tables
            .get(name)
            .unwrap_or_else(|| panic!("table `{name}` was not declared by any component"))
    }

    /// The first row of the table in its leaf, and the positions from there on.
    fn positions(&self, field: &TableField) -> (u32, &Vec<u32>) {
        let table = self.table(&field.table);
        let positions = table.positions.get(&field.field);
        let positions = positions.unwrap_or_else(|| {
            panic!(
                "table `{}` was not declared for field {}",
                field.table, field.field
            )
        });
        (table.first, positions)
    }

    fn leaf(&self, fields: &[TableField]) -> &Leaf {
        let first = self
            .table(&fields.first().expect("at least one field").table)
            .leaf;
        for field in fields {
            assert_eq!(
                self.table(&field.table).leaf,
                first,
                "tables `{}` and `{}` differ in dim: look them up one by one",
                fields[0].table,
                field.table
            );
        }
        &self.leaves[first]
    }

    /// The features of several fields, row by row. `segment(row, nth field)` says what each is
    /// added to.
    fn select(&self, fields: &[TableField], segment: impl Fn(usize, usize) -> usize) -> Selection {
        let batch = self.batch_size();
        let parts: Vec<(&Jagged, u32, &Vec<u32>)> = fields
            .iter()
            .map(|field| {
                let (first, positions) = self.positions(field);
                (&self.batch.sparse[field.field], first, positions)
            })
            .collect();
        let total = parts.iter().map(|(_, _, positions)| positions.len()).sum();
        if parts.iter().all(|(jagged, ..)| jagged.offsets.is_none()) {
            let positions = side_by_side(&parts, batch);
            let weights = parts
                .iter()
                .any(|(jagged, ..)| jagged.weights.is_some())
                .then(|| {
                    (0..batch)
                        .flat_map(|row| parts.iter().map(move |(jagged, ..)| jagged.weight(row)))
                        .collect()
                });
            return Selection {
                positions,
                weights,
                segments: None,
            };
        }
        let mut positions = Vec::with_capacity(total);
        let mut weights = Vec::with_capacity(total);
        let mut segments = Vec::with_capacity(total);
        for row in 0..batch {
            for (nth, (jagged, first, field_positions)) in parts.iter().enumerate() {
                for at in jagged.range(row) {
                    positions.push(first + field_positions[at]);
                    weights.push(jagged.weight(at));
                    segments.push(segment(row, nth) as i64);
                }
            }
        }
        let weights = weights
            .iter()
            .any(|&weight| weight != 1.0)
            .then_some(weights);
        Selection {
            positions,
            weights,
            segments: Some(segments),
        }
    }

    /// x v of each selected feature, `[features, dim]`; `None` if there is none.
    fn values(&self, leaf: &Leaf, selection: &Selection) -> Option<Tensor<2>> {
        if selection.positions.is_empty() {
            return None;
        }
        let values = gather(leaf.rows.clone(), selection.positions.clone(), 1);
        Some(match &selection.weights {
            Some(weights) => {
                let shape = [weights.len(), 1];
                let weights = TensorData::new(weights.clone(), shape);
                values * Tensor::<2>::from_data(weights, &self.device)
            }
            None => values,
        })
    }

    /// Adds values up by segment, `[segments, dim]`.
    fn add_up(
        &self,
        values: Option<Tensor<2>>,
        selection: &Selection,
        segments: usize,
        dim: usize,
    ) -> Tensor<2> {
        match (values, &selection.segments) {
            (Some(values), None) => values,
            (Some(values), Some(of_feature)) => Tensor::zeros([segments, dim], &self.device)
                .select_assign(
                    0,
                    indices(of_feature.clone(), &self.device),
                    values,
                    IndexingUpdateOp::Add,
                ),
            (None, _) => Tensor::zeros([segments, dim], &self.device),
        }
    }

    /// Adds the selected features up by row, `[batch, dim]`.
    fn pool(&self, leaf: &Leaf, selection: Selection) -> Tensor<2> {
        match selection {
            Selection {
                positions,
                weights: None,
                segments: None,
            } if !positions.is_empty() => {
                let fields = positions.len() / self.batch_size();
                gather(leaf.rows.clone(), positions, fields)
            }
            selection => {
                let values = self.values(leaf, &selection);
                self.pool_values(values, &selection, leaf.rows.dims()[1])
            }
        }
    }

    /// Adds values up by row, `[batch, dim]`, where one-hot fields came side by side.
    fn pool_values(
        &self,
        values: Option<Tensor<2>>,
        selection: &Selection,
        dim: usize,
    ) -> Tensor<2> {
        let batch = self.batch_size();
        match (values, &selection.segments) {
            (Some(values), None) => {
                let fields = selection.positions.len() / batch;
                values
                    .reshape([batch, fields, dim])
                    .sum_dim(1)
                    .reshape([batch, dim])
            }
            (values, _) => self.add_up(values, selection, batch, dim),
        }
    }
}

/// The positions of one-hot fields, row by row.
fn side_by_side(fields: &[(&Jagged, u32, &Vec<u32>)], batch: usize) -> Vec<u32> {
    /// Rows whose positions stay near while all fields are walked over.
    const BLOCK: usize = 64;
    let count = fields.len();
    let mut positions = vec![0; batch * count];
    for (block, rows) in positions.chunks_mut(BLOCK * count.max(1)).enumerate() {
        for (nth, (_, first, field)) in fields.iter().enumerate() {
            let places = rows.iter_mut().skip(nth).step_by(count);
            for (place, position) in places.zip(&field[block * BLOCK..]) {
                *place = first + position;
            }
        }
    }
    positions
}

fn indices(indices: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let shape = [indices.len()];
    Tensor::from_data(TensorData::new(indices, shape), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_the_columns_of_one_hot_fields_and_of_bags_alike() {
        let device = Device::flex();
        // Two rows of two fields; rows of the table are [1, 2], [10, 20] and [100, 200].
        let one_hot = [Jagged::one_hot(vec![0, 1]), Jagged::one_hot(vec![2, 2])];
        let as_bags = one_hot.clone().map(|jagged| Jagged {
            offsets: Some(vec![0, 1, 2]),
            ..jagged
        });
        for sparse in [one_hot, as_bags] {
            let positions = sparse
                .iter()
                .enumerate()
                .map(|(field, jagged)| (field, jagged.indices.clone()));
            let staged = StagedTable {
                leaf: 0,
                first: 0,
                positions: Arc::new(positions.collect()),
            };
            let tables = BTreeMap::from([("t".to_owned(), staged)]);
            let rows = Tensor::from_data([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]], &device);
            let batch = Batch {
                batch_size: 2,
                sparse: sparse.to_vec(),
                ..Batch::default()
            };
            let leaves = vec![Leaf { rows }];
            let x = Lookup::new(Arc::new(batch), device.clone(), leaves, tables);
            let fields = [0, 1].map(|field| TableField {
                table: "t".into(),
                field,
            });
            // The second column of the first field, the first of the other.
            let (sum, square) = x.blocks_with_square(&fields, &[1, 0], 1);
            let sum = sum.try_into_vec_as::<f32>();
            assert_eq!(sum.ok(), Some(vec![2.0, 100.0, 20.0, 100.0]));
            let square = square.try_into_vec_as::<f32>();
            assert_eq!(square.ok(), Some(vec![4.0 + 1e4, 400.0 + 1e4]));
        }
    }
}
