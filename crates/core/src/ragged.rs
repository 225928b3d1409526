//! Sequences of any length, one row after the other, without padding.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Bool, Tensor, TensorData};

use crate::gather::gather;
use crate::{Jagged, segment_operations};

/// The items of a sequence field without padding.
///
/// ```text
/// row   items      offsets  values
///  0    a b        0        a
///  1    (none)     2        b
///  2    c          2        c
///                  3
/// ```
///
/// What is computed from it costs as much as there are items, whatever the longest sequence is.
#[derive(Clone, Debug)]
pub struct Ragged {
    /// The items of all rows, one row after the other: `[items, dim]`.
    pub values: Tensor<2>,
    /// Which of them belong to which row.
    pub segments: Segments,
}

impl Ragged {
    /// One item in each row: the queries of rows, to attention.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use crossfield_core::Ragged;
    ///
    /// let queries = Ragged::of_one(Tensor::from_data([[1.0], [2.0]], &Device::flex()));
    /// assert_eq!(queries.segments.range(1), 1..2);
    /// ```
    ///
    /// # Shapes
    /// - values: `[rows, dim]`
    pub fn of_one(values: Tensor<2>) -> Self {
        Self {
            segments: Segments::of_one(values.dims()[0]),
            values,
        }
    }

    /// The real items of padded sequences; `None` if there is none.
    ///
    /// # Shapes
    /// - values: `[rows, time, dim]`
    /// - mask: `[rows, time]`, true where real: anywhere in a row
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use crossfield_core::Ragged;
    ///
    /// let device = Device::flex();
    /// let values = Tensor::from_data([[[1.0], [0.0]], [[2.0], [3.0]]], &device);
    /// let mask = Tensor::from_data([[true, false], [true, true]], &device);
    /// let ragged = Ragged::from_padded(values, mask).expect("three items are real");
    /// assert_eq!(ragged.values.clone().try_into_vec_as::<f32>().unwrap(), [1.0, 2.0, 3.0]);
    /// assert_eq!(ragged.segments.range(1), 1..3);
    /// let (values, mask) = ragged.padded();
    /// assert_eq!(values.try_into_vec_as::<f32>().unwrap(), [1.0, 0.0, 2.0, 3.0]);
    /// assert_eq!(mask.try_into_vec_as::<bool>().unwrap(), [true, false, true, true]);
    /// ```
    pub fn from_padded(values: Tensor<3>, mask: Tensor<2, Bool>) -> Option<Self> {
        let [rows, time, dim] = values.dims();
        let real = mask.into_data().convert::<bool>();
        let real = real.as_slice::<bool>().expect("a mask of truths");
        let mut positions = Vec::new();
        let mut offsets = vec![0];
        for row in 0..rows {
            let places = (row * time..(row + 1) * time).filter(|&place| real[place]);
            positions.extend(places.map(|place| place as u32));
            offsets.push(positions.len() as u32);
        }
        (!positions.is_empty()).then(|| Self {
            values: gather(values.reshape([rows * time, dim]), positions, 1),
            segments: Segments::new(offsets),
        })
    }

    /// The sequences padded at the end to the longest.
    ///
    /// # Shapes
    /// - items: `[rows, time, dim]`, zero where padded
    /// - mask: `[rows, time]`, true where real
    pub fn padded(&self) -> (Tensor<3>, Tensor<2, Bool>) {
        self.segments.pad(self.values.clone())
    }
}

/// Where the rows begin in a list of items of all rows.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use crossfield_core::Segments;
///
/// // Two items, none, one.
/// let segments = Segments::new(vec![0, 2, 2, 3]);
/// let device = Device::flex();
/// let scores = Tensor::from_data([[0.0], [0.0], [5.0]], &device);
/// let weights = segments.softmax(scores);
/// assert_eq!(weights.clone().try_into_vec_as::<f32>().unwrap(), [0.5, 0.5, 1.0]);
/// assert_eq!(segments.sum(weights).try_into_vec_as::<f32>().unwrap(), [1.0, 0.0, 1.0]);
/// let rows = Tensor::from_data([[1.0], [2.0], [3.0]], &device);
/// assert_eq!(segments.spread(rows).try_into_vec_as::<f32>().unwrap(), [1.0, 1.0, 3.0]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    offsets: Arc<[u32]>,
}

impl Segments {
    /// From `rows + 1` positions.
    ///
    /// # Panics
    /// If they do not rise from 0.
    pub fn new(offsets: Vec<u32>) -> Self {
        assert!(
            offsets.first() == Some(&0) && offsets.is_sorted(),
            "offsets rise from 0"
        );
        Self {
            offsets: offsets.into(),
        }
    }

    /// Those of the rows of a field.
    pub fn of(field: &Jagged) -> Self {
        match &field.offsets {
            Some(offsets) => Self::new(offsets.clone()),
            None => Self::of_one(field.indices.len()),
        }
    }

    /// One item in each of so many rows.
    pub fn of_one(rows: usize) -> Self {
        Self::new((0..=rows as u32).collect())
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of items in all rows.
    pub fn items(&self) -> usize {
        self.offsets[self.rows()] as usize
    }

    /// The items of a row.
    pub fn range(&self, row: usize) -> Range<usize> {
        self.offsets[row] as usize..self.offsets[row + 1] as usize
    }

    /// The most items that a row has.
    pub fn longest(&self) -> usize {
        let lengths = (0..self.rows()).map(|row| self.range(row).len());
        lengths.max().unwrap_or(0)
    }

    /// The items of each row that has some.
    pub(crate) fn with_items(&self) -> impl Iterator<Item = Range<usize>> {
        let ranges = (0..self.rows()).map(|row| self.range(row));
        ranges.filter(|range| !range.is_empty())
    }

    /// The row of each item.
    pub(crate) fn row_of_items(&self) -> impl Iterator<Item = usize> {
        (0..self.rows()).flat_map(|row| std::iter::repeat_n(row, self.range(row).len()))
    }

    /// What a row has, beside each of its items.
    ///
    /// # Shapes
    /// - rows: `[rows, dim]`
    /// - output: `[items, dim]`
    ///
    /// # Panics
    /// If the shapes do not fit; so do the other operations.
    pub fn spread(&self, rows: Tensor<2>) -> Tensor<2> {
        assert_eq!(rows.dims()[0], self.rows(), "rows");
        segment_operations::spread(self, rows)
    }

    /// Σ over the items of each row; 0 where there is none.
    ///
    /// # Shapes
    /// - items: `[items, dim]`
    /// - output: `[rows, dim]`
    pub fn sum(&self, items: Tensor<2>) -> Tensor<2> {
        assert_eq!(items.dims()[0], self.items(), "items");
        segment_operations::sum(self, items)
    }

    /// exp(score) / Σ exp(score) over the items of each row, column by column.
    ///
    /// # Shapes
    /// - scores and output: `[items, columns]`
    pub fn softmax(&self, scores: Tensor<2>) -> Tensor<2> {
        assert_eq!(scores.dims()[0], self.items(), "items");
        segment_operations::softmax(self, scores)
    }

    /// The items padded at the end to the longest row.
    ///
    /// # Shapes
    /// - items: `[items, dim]`
    /// - padded: `[rows, time, dim]`, zero where padded; `time ≥ 1`
    /// - mask: `[rows, time]`, true where real
    pub fn pad(&self, items: Tensor<2>) -> (Tensor<3>, Tensor<2, Bool>) {
        let [count, dim] = items.dims();
        assert_eq!(count, self.items(), "items");
        let (rows, time) = (self.rows(), self.longest().max(1));
        let mut positions = vec![0; rows * time];
        let mut real = vec![false; rows * time];
        for row in 0..rows {
            for (place, item) in (row * time..).zip(self.range(row)) {
                (positions[place], real[place]) = (item as u32, true);
            }
        }
        let device = items.device();
        let mask = Tensor::<2, Bool>::from_data(TensorData::new(real, [rows, time]), &device);
        let padded = gather(items, positions, 1).reshape([rows, time, dim]);
        let real = mask.clone().float().cast(padded.dtype());
        (padded * real.unsqueeze_dim::<3>(2), mask)
    }

    /// The items of sequences that were [padded](Self::pad) at the end.
    ///
    /// # Shapes
    /// - padded: `[rows, time, dim]`
    /// - output: `[items, dim]`
    pub fn unpad(&self, padded: Tensor<3>) -> Tensor<2> {
        let [rows, time, dim] = padded.dims();
        assert_eq!(rows, self.rows(), "rows");
        let places = |row| (0..self.range(row).len()).map(move |place| (row * time + place) as u32);
        let positions = (0..rows).flat_map(places).collect();
        gather(padded.reshape([rows * time, dim]), positions, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn values(tensor: Tensor<2>) -> Vec<f32> {
        tensor.try_into_vec_as().unwrap()
    }

    #[test]
    fn weights_of_a_row_add_up_to_one_and_padding_gets_none() {
        let segments = Segments::new(vec![0, 3, 3, 4]);
        let scores = [
            [0.0, -400.0],
            [2f32.ln(), -400.0],
            [0.0, -400.0],
            [9.0, 1e30],
        ];
        let weights = segments.softmax(Tensor::from_data(scores, &Device::flex()));
        let sums = segments.sum(weights.clone());
        let third = 1.0 / 3.0;
        assert_eq!(
            values(weights),
            [0.25, third, 0.5, third, 0.25, third, 1.0, 1.0]
        );
        assert_eq!(values(sums), [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn items_that_were_padded_come_back() {
        let segments = Segments::new(vec![0, 1, 1, 3]);
        let items = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::flex());
        let (padded, mask) = segments.pad(items.clone());
        assert_eq!(padded.dims(), [3, 2, 2]);
        assert_eq!(
            mask.try_into_vec_as::<bool>().unwrap(),
            [true, false, false, false, true, true]
        );
        assert_eq!(values(segments.unpad(padded)), values(items));
    }
}
