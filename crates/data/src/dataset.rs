//! Encoded rows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crossfield_core::{Batch, Examples, FeatureLists, FieldId, Jagged, Schema, Targets};

use crate::fit::missing_indicator;
use crate::order;
use crate::slice::Slice;

/// Encoded rows, from which batches are taken, or which are read as they lie.
///
/// The fields of which every row has exactly one feature of weight 1 lie together, row by row; the
/// others are lists, field by field. The arrays are in memory, or in the mapped file of a cache.
///
/// ```
/// use crossfield_data::{DataSpec, Format, LabelKind, prepare};
///
/// let directory = tempfile::tempdir()?;
/// let file = directory.path().join("a.ffm");
/// std::fs::write(&file, "1 0:2:1 1:7:1\n0 0:3:1 1:8:1\n")?;
/// let mut spec = DataSpec::default();
/// spec.data.format = Format::Libffm;
/// spec.data.train = vec![file.display().to_string()];
/// let data = prepare(&spec, 1, LabelKind::Binary)?.train;
/// assert_eq!(data.examples().one_hot_of(1), [3, 8]);
/// assert_eq!(data.batch(&[1]).sparse[1].indices, [8]);
/// assert_eq!(data.column(1).indices, [7, 8]);
/// assert_eq!(data.labels(), [1.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    pub(crate) schema: Arc<Schema>,
    pub(crate) rows: usize,
    /// Rising.
    pub(crate) one_hot_fields: Vec<FieldId>,
    /// Row-major `[rows, one_hot_fields.len()]`.
    pub(crate) one_hot: Slice<u32>,
    /// By rising field.
    pub(crate) lists: Vec<Lists>,
    /// Row-major `[rows, schema.dense.len()]`; empty without dense columns.
    pub(crate) dense: Slice<f32>,
    /// Empty where rows have none.
    pub(crate) labels: Slice<f32>,
    pub(crate) weights: Option<Slice<f32>>,
    pub(crate) groups: Option<Slice<u32>>,
    pub(crate) probabilities: Option<Slice<f32>>,
    /// Share of the traffic's rows of label 0 that are among these.
    pub(crate) negative_rate: f64,
    /// How many rows stay together when they are shuffled; 0: none.
    pub(crate) shuffle_block: usize,
    /// By vocabulary: the distinct keys of fields whose indices are numbers of these keys, for they
    /// were not looked up yet.
    pub(crate) keys: BTreeMap<String, Slice<u64>>,
    /// Whether an epoch visits the rows as they stand.
    pub(crate) in_order: bool,
}

/// A field that is not one-hot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lists {
    pub(crate) field: FieldId,
    /// Every row has exactly one feature: the offsets are `0, 1, 2, …`, shared by all such fields.
    pub(crate) one_a_row: bool,
    pub(crate) offsets: Slice<u64>,
    pub(crate) indices: Slice<u32>,
    pub(crate) weights: Option<Slice<f32>>,
}

impl Lists {
    fn view(&self) -> FeatureLists<'_> {
        FeatureLists {
            field: self.field,
            offsets: &self.offsets,
            indices: &self.indices,
            weights: self.weights.as_deref(),
        }
    }

    fn select(&self, rows: impl ExactSizeIterator<Item = usize>) -> Jagged {
        let lists = self.view();
        let mut indices = Vec::new();
        let mut weights = lists.weights.map(|_| Vec::new());
        let mut offsets = (!self.one_a_row).then(|| {
            let mut offsets = Vec::with_capacity(rows.len() + 1);
            offsets.push(0);
            offsets
        });
        if self.one_a_row {
            indices.reserve_exact(rows.len());
            weights
                .iter_mut()
                .for_each(|it| it.reserve_exact(rows.len()));
        }
        for row in rows {
            let range = lists.range(row);
            indices.extend_from_slice(&lists.indices[range.clone()]);
            if let (Some(picked), Some(weights)) = (&mut weights, lists.weights) {
                picked.extend_from_slice(&weights[range]);
            }
            if let Some(offsets) = &mut offsets {
                offsets.push(indices.len() as u32);
            }
        }
        Jagged {
            indices,
            offsets,
            weights,
        }
    }
}

impl Dataset {
    /// Rows whose fields come as `columns`, in the order of the schema. There is nothing beside
    /// them yet: no dense columns, no labels.
    pub(crate) fn new(schema: Arc<Schema>, rows: usize, columns: Vec<Jagged>) -> Self {
        let mut one_hot_fields = Vec::new();
        let mut one_hot = Vec::new();
        let mut lists = Vec::new();
        let mut one_each: Option<Slice<u64>> = None;
        for (field, column) in columns.into_iter().enumerate() {
            if column.is_one_hot() {
                one_hot_fields.push(field);
                one_hot.push(column.indices);
                continue;
            }
            let one_a_row = column.offsets.is_none();
            let offsets = match column.offsets {
                Some(offsets) => offsets
                    .into_iter()
                    .map(u64::from)
                    .collect::<Vec<_>>()
                    .into(),
                None => one_each
                    .get_or_insert_with(|| (0..=rows as u64).collect::<Vec<_>>().into())
                    .clone(),
            };
            lists.push(Lists {
                field,
                one_a_row,
                offsets,
                indices: column.indices.into(),
                weights: column.weights.map(Slice::from),
            });
        }
        Self {
            schema,
            rows,
            one_hot: row_major(&one_hot, rows).into(),
            one_hot_fields,
            lists,
            dense: Vec::new().into(),
            labels: Vec::new().into(),
            weights: None,
            groups: None,
            probabilities: None,
            negative_rate: 1.0,
            shuffle_block: 0,
            keys: BTreeMap::new(),
            in_order: false,
        }
    }

    /// The distinct keys of each vocabulary whose values are given rows as they come (`admit` of a
    /// field): an index of its fields is the number of a key here, until [`with_rows`](Self::with_rows)
    /// puts rows in their place.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    ///
    /// use crossfield_core::FieldKind;
    /// use crossfield_data::{AdmitConfig, DataSpec, FieldConfig, LabelKind, prepare};
    ///
    /// let directory = tempfile::tempdir()?;
    /// let file = directory.path().join("a.csv");
    /// std::fs::write(&file, "label,user\n1,ann\n0,bob\n0,ann\n")?;
    /// let mut spec = DataSpec::default();
    /// spec.data.train = vec![file.display().to_string()];
    /// spec.field = vec![FieldConfig {
    ///     name: "user".into(),
    ///     kind: FieldKind::Hashed,
    ///     admit: Some(AdmitConfig::default()),
    ///     ..FieldConfig::default()
    /// }];
    /// let data = prepare(&spec, 1, LabelKind::Binary)?.train;
    /// assert_eq!(data.keys().next().map(|(vocabulary, keys)| (vocabulary, keys.len())), Some(("user", 2)));
    /// assert_eq!(data.key_counts("user"), [2, 1]);
    /// // Ann has row 1 of a table, Bob none of his own.
    /// let data = data.with_rows(&BTreeMap::from([("user", vec![1, 0])]));
    /// assert_eq!(data.column(0).indices, [1, 0, 1]);
    /// assert_eq!(data.keys().count(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keys(&self) -> impl Iterator<Item = (&str, &[u64])> {
        self.keys
            .iter()
            .map(|(name, keys)| (name.as_str(), &**keys))
    }

    /// How often each of the [`keys`](Self::keys) of a vocabulary occurs in these rows.
    ///
    /// # Panics
    /// If there are none of that vocabulary.
    pub fn key_counts(&self, vocabulary: &str) -> Vec<u32> {
        let mut counts = vec![0; self.keys[vocabulary].len()];
        let (width, places) = (self.one_hot_fields.len(), self.places(vocabulary));
        for row in self.one_hot.chunks_exact(width.max(1)) {
            for &place in &places {
                counts[row[place] as usize] += 1;
            }
        }
        counts
    }

    /// Where the fields of a vocabulary are among the one-hot ones.
    fn places(&self, vocabulary: &str) -> Vec<usize> {
        let fields = self.one_hot_fields.iter().enumerate();
        let of = fields.filter(|&(_, &field)| self.schema.fields[field].vocabulary == vocabulary);
        of.map(|(place, _)| place).collect()
    }

    /// The same rows, each index of a vocabulary whose values are given rows as they come replaced by
    /// `rows[vocabulary][index]`.
    ///
    /// # Panics
    /// If `rows` lacks a vocabulary of [`keys`](Self::keys), or the row of one of its keys.
    pub fn with_rows(&self, rows: &BTreeMap<&str, Vec<u32>>) -> Self {
        let mut one_hot = self.one_hot.to_vec();
        let width = self.one_hot_fields.len();
        let of_places = self.keys.keys().flat_map(|vocabulary| {
            let places = self.places(vocabulary).into_iter();
            places.map(|place| (place, &rows[vocabulary.as_str()]))
        });
        let of_places: Vec<(usize, &Vec<u32>)> = of_places.collect();
        for row in one_hot.chunks_exact_mut(width.max(1)) {
            for &(place, rows) in &of_places {
                row[place] = rows[row[place] as usize];
            }
        }
        Self {
            one_hot: one_hot.into(),
            keys: BTreeMap::new(),
            ..self.clone()
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The fields and dense columns of the rows.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The rows as they lie, the features of a row side by side. Nothing is copied.
    pub fn examples(&self) -> Examples<'_> {
        Examples {
            rows: self.rows,
            one_hot_fields: &self.one_hot_fields,
            one_hot: &self.one_hot,
            lists: self.lists.iter().map(Lists::view).collect(),
            labels: &self.labels,
            weights: self.weights(),
        }
    }

    /// A copy of the features of one field, of all rows.
    ///
    /// # Panics
    /// If the schema has no such field.
    pub fn column(&self, field: FieldId) -> Jagged {
        let width = self.one_hot_fields.len();
        match self.one_hot_fields.binary_search(&field) {
            Ok(place) => {
                let indices = self.one_hot.iter().skip(place).step_by(width);
                Jagged::one_hot(indices.copied().collect())
            }
            Err(_) => {
                let lists = self.lists.iter().find(|lists| lists.field == field);
                lists
                    .expect("a field of the schema is one-hot or a list")
                    .select(0..self.rows)
            }
        }
    }

    /// One label a row: 0 or 1 for clicks, any finite number for ratings. Empty where a file to
    /// be predicted has none.
    pub fn labels(&self) -> &[f32] {
        &self.labels
    }

    /// Sample weights; `None`: all are 1.
    pub fn weights(&self) -> Option<&[f32]> {
        self.weights.as_deref()
    }

    /// Share of the traffic's rows of label 0 that are among these rows, 1 for all. Rows of label 1
    /// are all there.
    pub fn negative_rate(&self) -> f64 {
        self.negative_rate
    }

    /// The weights by which some of the rows stand for the traffic that they are from: the sample
    /// weight, of a row of label 0 over [`negative_rate`](Self::negative_rate), so that figures are
    /// those of the whole traffic in expectation; `None`: all are 1.
    ///
    /// # Panics
    /// If there is no such row, or no labels where rows of label 0 are missing.
    pub fn traffic_weights(&self, rows: Range<usize>) -> Option<Cow<'_, [f32]>> {
        let weights = self.weights().map(|weights| &weights[rows.clone()]);
        if self.negative_rate == 1.0 {
            return weights.map(Cow::Borrowed);
        }
        let labels = self.labels[rows].iter().enumerate();
        let weight = |(row, &label): (usize, &f32)| {
            let weight = weights.map_or(1.0, |weights| weights[row]);
            if label == 0.0 {
                (f64::from(weight) / self.negative_rate) as f32
            } else {
                weight
            }
        };
        Some(labels.map(weight).collect())
    }

    /// Group of each row (a user, a query), for GAUC.
    pub fn groups(&self) -> Option<&[u32]> {
        self.groups.as_deref()
    }

    /// The true probability of each row of a generated log.
    pub fn probabilities(&self) -> Option<&[f32]> {
        self.probabilities.as_deref()
    }

    /// The order in which epoch `epoch` (from 0) of a run with `seed` visits the rows: the one
    /// that [`Loader`](crate::Loader) follows, in blocks if `data.shuffle_block` says so, and as
    /// they stand with `data.in_order`.
    ///
    /// `block` is the number of these rows among the blocks of a stream (from 0), 0 where they are
    /// all.
    pub fn epoch_order(&self, seed: u64, epoch: u64, block: u64) -> Vec<u32> {
        if self.in_order {
            return (0..self.rows as u32).collect();
        }
        order::epoch_order(self.rows, self.shuffle_block, seed, epoch, block)
    }

    /// The rows at the given positions, in that order.
    ///
    /// # Panics
    /// If a position is not below [`len`](Self::len), or [`keys`](Self::keys) were not looked up.
    pub fn batch(&self, rows: &[u32]) -> Batch {
        assert!(self.keys.is_empty(), "keys were not looked up");
        let fields = self.one_hot_fields.len();
        let mut one_hot: Vec<Vec<u32>> = (0..fields)
            .map(|_| Vec::with_capacity(rows.len()))
            .collect();
        let (all, dense) = (&*self.one_hot, &*self.dense);
        for &row in rows {
            assert!((row as usize) < self.rows, "row {row} of {}", self.rows);
            let row = &all[row as usize * fields..][..fields];
            for (column, &index) in one_hot.iter_mut().zip(row) {
                column.push(index);
            }
        }
        let mut sparse = vec![Jagged::default(); fields + self.lists.len()];
        for (&field, indices) in self.one_hot_fields.iter().zip(one_hot) {
            sparse[field] = Jagged::one_hot(indices);
        }
        for lists in &self.lists {
            sparse[lists.field] = lists.select(rows.iter().map(|&row| row as usize));
        }
        let columns = self.schema.dense.len();
        let dense = (columns > 0).then(|| {
            let mut picked = Vec::with_capacity(rows.len() * columns);
            for &row in rows {
                picked.extend_from_slice(&dense[row as usize * columns..][..columns]);
            }
            picked
        });
        Batch {
            batch_size: rows.len(),
            sparse,
            dense,
            targets: Targets {
                labels: if self.labels.is_empty() {
                    Vec::new()
                } else {
                    pick(&self.labels, rows)
                },
                weights: self.weights().map(|weights| pick(weights, rows)),
                groups: self.groups().map(|groups| pick(groups, rows)),
                log_q: None,
            },
        }
    }

    /// The rows at the given positions, in that order, as rows of their own.
    ///
    /// # Panics
    /// If a position is not below [`len`](Self::len).
    pub fn select(&self, rows: &[u32]) -> Self {
        let columns = (0..self.schema.fields.len()).map(|field| self.column(field).select(rows));
        let n_dense = self.schema.dense.len();
        let dense = rows
            .iter()
            .flat_map(|&row| &self.dense[row as usize * n_dense..][..n_dense]);
        let picked = |values: &[f32]| -> Slice<f32> { pick(values, rows).into() };
        Self {
            dense: dense.copied().collect::<Vec<f32>>().into(),
            labels: match self.labels.is_empty() {
                true => Vec::new().into(),
                false => picked(&self.labels),
            },
            weights: self.weights().map(picked),
            groups: self.groups().map(|groups| pick(groups, rows).into()),
            probabilities: self.probabilities().map(picked),
            negative_rate: self.negative_rate,
            keys: self.keys.clone(),
            ..Self::new(self.schema.clone(), rows.len(), columns.collect())
        }
    }

    /// These rows, but what some fields say is what they say in other rows: row `r` has that of row
    /// `from[r]`. The dense columns of a number go with it. A cross is a field of its own: it still
    /// says what the fields behind it said.
    ///
    /// # Panics
    /// If `from` is not as long as there are rows, or names one that is not there.
    ///
    /// ```
    /// use crossfield_data::{DataSpec, Format, LabelKind, prepare};
    ///
    /// let directory = tempfile::tempdir()?;
    /// let file = directory.path().join("a.ffm");
    /// std::fs::write(&file, "1 0:2:1 1:7:1\n0 0:3:1 1:8:1\n")?;
    /// let mut spec = DataSpec::default();
    /// spec.data.format = Format::Libffm;
    /// spec.data.train = vec![file.display().to_string()];
    /// let data = prepare(&spec, 1, LabelKind::Binary)?.train;
    /// let turned = data.rearranged(&[1], &[1, 0]);
    /// assert_eq!(turned.column(0).indices, [2, 3]);
    /// assert_eq!(turned.column(1).indices, [8, 7]);
    /// assert_eq!(turned.labels(), data.labels());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn rearranged(&self, fields: &[FieldId], from: &[u32]) -> Self {
        assert_eq!(from.len(), self.rows, "a row for each row");
        let columns = (0..self.schema.fields.len()).map(|field| {
            let column = self.column(field);
            match fields.contains(&field) {
                true => column.select(from),
                false => column,
            }
        });
        let columns = columns.collect();
        let is_of_fields = |dense: &str| {
            let mut names = fields.iter().map(|&field| &self.schema.fields[field].name);
            names.any(|name| dense == name || dense == missing_indicator(name))
        };
        let mut dense = self.dense.to_vec();
        let n_dense = self.schema.dense.len();
        for column in (0..n_dense).filter(|&column| is_of_fields(&self.schema.dense[column])) {
            for (row, &from) in from.iter().enumerate() {
                dense[row * n_dense + column] = self.dense[from as usize * n_dense + column];
            }
        }
        Self {
            dense: dense.into(),
            labels: self.labels.clone(),
            weights: self.weights.clone(),
            groups: self.groups.clone(),
            probabilities: self.probabilities.clone(),
            negative_rate: self.negative_rate,
            shuffle_block: self.shuffle_block,
            keys: self.keys.clone(),
            in_order: self.in_order,
            ..Self::new(self.schema.clone(), self.rows, columns)
        }
    }

    /// Mean of the labels, each with its weight; `None` without labels or weight.
    pub fn label_mean(&self) -> Option<f64> {
        self.mean_by(self.weights())
    }

    /// Mean of the labels of the traffic that the rows are from, by
    /// [their weights](Self::traffic_weights); `None` without labels or weight.
    pub fn traffic_mean(&self) -> Option<f64> {
        self.mean_by(self.traffic_weights(0..self.labels.len()).as_deref())
    }

    fn mean_by(&self, weights: Option<&[f32]>) -> Option<f64> {
        let mut mean = LabelMean::default();
        mean.see(&self.labels, weights);
        mean.mean()
    }

    /// A copy of consecutive rows, in memory.
    ///
    /// # Panics
    /// If they are not all there.
    pub(crate) fn range(&self, rows: Range<usize>) -> Self {
        let of_rows = |values: &Slice<f32>, width: usize| -> Slice<f32> {
            match values.is_empty() {
                true => Vec::new().into(),
                false => values[rows.start * width..rows.end * width].to_vec().into(),
            }
        };
        let mut one_each: Option<Slice<u64>> = None;
        let lists = self.lists.iter().map(|list| {
            let values = list.offsets[rows.start] as usize..list.offsets[rows.end] as usize;
            let first = list.offsets[rows.start];
            let offsets = || -> Slice<u64> {
                let offsets = list.offsets[rows.start..=rows.end].iter();
                offsets.map(|&end| end - first).collect::<Vec<_>>().into()
            };
            Lists {
                field: list.field,
                one_a_row: list.one_a_row,
                offsets: match list.one_a_row {
                    true => one_each.get_or_insert_with(offsets).clone(),
                    false => offsets(),
                },
                weights: (list.weights.as_ref())
                    .map(|weights| weights[values.clone()].to_vec().into()),
                indices: list.indices[values].to_vec().into(),
            }
        });
        let width = self.one_hot_fields.len();
        let one_hot = &self.one_hot[rows.start * width..rows.end * width];
        Self {
            schema: self.schema.clone(),
            rows: rows.len(),
            one_hot_fields: self.one_hot_fields.clone(),
            lists: lists.collect(),
            one_hot: one_hot.to_vec().into(),
            dense: of_rows(&self.dense, self.schema.dense.len()),
            labels: of_rows(&self.labels, 1),
            weights: self.weights.as_ref().map(|values| of_rows(values, 1)),
            groups: (self.groups.as_ref()).map(|groups| groups[rows.clone()].to_vec().into()),
            probabilities: (self.probabilities.as_ref()).map(|values| of_rows(values, 1)),
            negative_rate: self.negative_rate,
            shuffle_block: 0,
            keys: self.keys.clone(),
            in_order: self.in_order,
        }
    }

    /// Lets go of the memory that consecutive rows of a mapped file take: they are read again when
    /// they are asked for.
    pub(crate) fn give_back(&self, rows: Range<usize>) {
        let of_rows = |width: usize| rows.start * width..rows.end * width;
        self.one_hot.give_back(of_rows(self.one_hot_fields.len()));
        for list in &self.lists {
            let values = list.offsets[rows.start] as usize..list.offsets[rows.end] as usize;
            list.offsets.give_back(rows.clone());
            list.indices.give_back(values.clone());
            if let Some(weights) = &list.weights {
                weights.give_back(values);
            }
        }
        self.dense.give_back(of_rows(self.schema.dense.len()));
        let others = [&self.weights, &self.probabilities].into_iter().flatten();
        for values in std::iter::once(&self.labels).chain(others) {
            values.give_back(rows.clone());
        }
        if let Some(groups) = &self.groups {
            groups.give_back(rows.clone());
        }
    }

    /// Rows that have nothing but their number as their label.
    #[cfg(test)]
    pub(crate) fn numbered(rows: u32) -> Self {
        let labels: Vec<f32> = (0..rows).map(|row| row as f32).collect();
        Self {
            labels: labels.into(),
            ..Self::new(Arc::new(Schema::default()), rows as usize, Vec::new())
        }
    }
}

/// Mean of labels, each with its weight, which come one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LabelMean {
    sum: f64,
    total: f64,
}

impl LabelMean {
    /// The next labels, and their weights if not all are 1.
    pub(crate) fn see(&mut self, labels: &[f32], weights: Option<&[f32]>) {
        for (row, &label) in labels.iter().enumerate() {
            let weight = weights.map_or(1.0, |all| f64::from(all[row]));
            self.sum += weight * f64::from(label);
            self.total += weight;
        }
    }

    /// `None` without weight.
    pub(crate) fn mean(self) -> Option<f64> {
        (self.total > 0.0).then(|| self.sum / self.total)
    }
}

/// `[rows, columns.len()]`, row by row. Blocks of rows, so that each column is read, and what is
/// written stays in the cache.
fn row_major(columns: &[Vec<u32>], rows: usize) -> Vec<u32> {
    const BLOCK: usize = 64;
    let width = columns.len();
    let mut all = vec![0; rows * width];
    if width == 0 {
        return all;
    }
    for (number, block) in all.chunks_mut(BLOCK * width).enumerate() {
        let start = number * BLOCK;
        for (place, column) in columns.iter().enumerate() {
            let places = block.iter_mut().skip(place).step_by(width);
            for (to, &index) in places.zip(&column[start..]) {
                *to = index;
            }
        }
    }
    all
}

fn pick<T: Copy>(values: &[T], rows: &[u32]) -> Vec<T> {
    rows.iter().map(|&row| values[row as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 0 and 3 one-hot, 1 numeric, 2 a bag.
    fn columns() -> Vec<Jagged> {
        vec![
            Jagged::one_hot(vec![7, 8, 9]),
            Jagged {
                indices: vec![0, 1, 0],
                offsets: None,
                weights: Some(vec![0.5, 1.0, -2.0]),
            },
            Jagged {
                indices: vec![4, 5, 6],
                offsets: Some(vec![0, 2, 2, 3]),
                weights: None,
            },
            Jagged::one_hot(vec![1, 2, 3]),
        ]
    }

    #[test]
    fn features_of_a_row_lie_together_and_columns_come_back() {
        let data = Dataset::new(Arc::new(Schema::default()), 3, columns());
        let examples = data.examples();
        assert_eq!(examples.one_hot_fields, [0, 3]);
        assert_eq!(examples.one_hot, [7, 1, 8, 2, 9, 3]);
        let fields: Vec<_> = examples.lists.iter().map(|lists| lists.field).collect();
        assert_eq!(fields, [1, 2]);
        assert_eq!(examples.lists[0].range(2), 2..3);
        assert_eq!(examples.lists[0].weight(2), -2.0);
        assert_eq!(examples.lists[1].offsets, [0, 2, 2, 3]);
        for (field, column) in columns().into_iter().enumerate() {
            assert_eq!(data.column(field), column);
        }
    }

    #[test]
    fn batches_are_selections_of_the_columns() {
        let data = Dataset::new(Arc::new(Schema::default()), 3, columns());
        for rows in [&[2, 0, 2][..], &[1], &[]] {
            let batch = data.batch(rows);
            let expected: Vec<_> = columns().iter().map(|column| column.select(rows)).collect();
            assert_eq!(batch.sparse, expected);
            assert_eq!(batch.batch_size, rows.len());
        }
    }

    #[test]
    fn negatives_stand_for_those_that_are_not_there() {
        let mut data = Dataset::new(Arc::new(Schema::default()), 3, Vec::new());
        data.labels = vec![1.0, 0.0, 0.0].into();
        assert_eq!(data.traffic_weights(0..3), None);
        data.negative_rate = 0.25;
        // One click and two negatives, of eight.
        let weights = data.traffic_weights(0..3);
        assert_eq!(weights.as_deref(), Some(&[1.0, 4.0, 4.0][..]));
        assert_eq!(data.traffic_mean(), Some(1.0 / 9.0));
        assert_eq!(data.label_mean(), Some(1.0 / 3.0));
        data.weights = Some(vec![3.0, 0.5, 1.0].into());
        let weights = data.traffic_weights(1..3);
        assert_eq!(weights.as_deref(), Some(&[2.0, 4.0][..]));
        assert_eq!(data.weights(), Some(&[3.0, 0.5, 1.0][..]));
    }

    fn three_rows() -> Dataset {
        let schema = Schema {
            fields: ["a", "b", "c", "d"].map(field).to_vec(),
            dense: vec!["b".into()],
        };
        let mut data = Dataset::new(Arc::new(schema), 3, columns());
        data.dense = vec![0.5, 1.0, -2.0].into();
        data.labels = vec![1.0, 0.0, 1.0].into();
        data
    }

    #[test]
    fn selected_rows_are_rows_of_their_own() {
        let mut data = three_rows();
        data.groups = Some(vec![7, 8, 9].into());
        let selected = data.select(&[2, 0]);
        assert_eq!(selected.len(), 2);
        assert_eq!(selected.batch(&[0, 1]), data.batch(&[2, 0]));
        assert_eq!(selected.groups(), Some(&[9, 7][..]));
    }

    #[test]
    fn consecutive_rows_are_those_that_are_selected() {
        let mut data = three_rows();
        data.weights = Some(vec![1.0, 2.0, 3.0].into());
        for rows in [0..3usize, 1..3, 2..3, 1..1] {
            let picked: Vec<u32> = rows.clone().map(|row| row as u32).collect();
            let range = data.range(rows);
            let all: Vec<u32> = (0..range.len() as u32).collect();
            assert_eq!(range.batch(&all), data.batch(&picked));
            assert_eq!(range.one_hot_fields, [0, 3]);
        }
    }

    #[test]
    fn a_field_of_other_rows_takes_its_dense_columns_along() {
        let schema = Schema {
            fields: ["a", "b", "c", "d"].map(field).to_vec(),
            dense: vec!["b".into(), "e".into(), "b.missing".into()],
        };
        let mut data = Dataset::new(Arc::new(schema), 3, columns());
        data.dense = vec![0.5, 10.0, 0.0, 1.0, 11.0, 1.0, -2.0, 12.0, 0.0].into();
        data.labels = vec![1.0, 0.0, 1.0].into();
        let turned = data.rearranged(&[1, 2], &[1, 2, 0]);
        let expected: Vec<_> = columns()[1..3]
            .iter()
            .map(|it| it.select(&[1, 2, 0]))
            .collect();
        assert_eq!([turned.column(1), turned.column(2)], expected[..]);
        assert_eq!(turned.column(0), data.column(0));
        let dense = [1.0, 10.0, 1.0, -2.0, 11.0, 0.0, 0.5, 12.0, 0.0];
        assert_eq!(turned.batch(&[0, 1, 2]).dense.as_deref(), Some(&dense[..]));
        assert_eq!(turned.labels(), data.labels());
    }

    fn field(name: &str) -> crossfield_core::Field {
        crossfield_core::Field {
            name: name.into(),
            kind: crossfield_core::FieldKind::Categorical,
            vocabulary: name.into(),
            rows: 10,
            oov_row: None,
        }
    }

    #[test]
    fn rows_beyond_a_block_are_transposed_too() {
        let columns: Vec<Vec<u32>> = (0..3)
            .map(|column| (0..150).map(|row| 1000 * column + row).collect())
            .collect();
        let all = row_major(&columns, 150);
        assert_eq!(all[..3], [0, 1000, 2000]);
        assert_eq!(all[149 * 3..], [149, 1149, 2149]);
        let sum = |values: &[u32]| values.iter().sum::<u32>();
        assert_eq!(
            sum(&all),
            columns.iter().map(|column| sum(column)).sum::<u32>()
        );
    }
}
