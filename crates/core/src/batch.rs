//! A batch of rows on the host, field by field.

/// For each row of a batch, any number of weighted indices into one vocabulary.
///
/// ```text
/// row   values                 offsets  indices   weights
///  0    7×1.0  9×0.5           0        7 9       1.0 0.5
///  1    (none)                 2
///  2    4×1.0                  2        4         1.0
///                              3
/// ```
///
/// ```
/// use crossfield_core::Jagged;
///
/// let bags = Jagged {
///     indices: vec![7, 9, 4],
///     offsets: Some(vec![0, 2, 2, 3]),
///     weights: Some(vec![1.0, 0.5, 1.0]),
/// };
/// assert_eq!(bags.range(0), 0..2);
/// assert!(bags.range(1).is_empty());
/// assert_eq!(bags.select(&[2, 0]).indices, [4, 7, 9]);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Jagged {
    /// The indices of all rows, one row after the other.
    pub indices: Vec<u32>,
    /// `rows + 1` positions in `indices`, rising from 0; `None`: exactly one index a row.
    pub offsets: Option<Vec<u32>>,
    /// One weight for each index; `None`: all are 1.
    pub weights: Option<Vec<f32>>,
}

impl Jagged {
    /// One index a row, each of weight 1.
    pub fn one_hot(indices: Vec<u32>) -> Self {
        Self {
            indices,
            offsets: None,
            weights: None,
        }
    }

    /// Positions of the indices of `row`.
    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        match &self.offsets {
            Some(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            None => row..row + 1,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        match &self.offsets {
            Some(offsets) => offsets.len() - 1,
            None => self.indices.len(),
        }
    }

    /// The weight of the index at `position`.
    pub fn weight(&self, position: usize) -> f32 {
        self.weights
            .as_ref()
            .map_or(1.0, |weights| weights[position])
    }

    /// Whether each row is one index of weight 1.
    pub fn is_one_hot(&self) -> bool {
        self.offsets.is_none() && self.weights.is_none()
    }

    /// The rows at the given positions, in that order.
    pub fn select(&self, rows: &[u32]) -> Self {
        if self.offsets.is_none() {
            return Self {
                indices: rows.iter().map(|&row| self.indices[row as usize]).collect(),
                offsets: None,
                weights: self
                    .weights
                    .as_ref()
                    .map(|weights| rows.iter().map(|&row| weights[row as usize]).collect()),
            };
        }
        let mut selected = Self {
            indices: Vec::new(),
            offsets: Some(vec![0]),
            weights: self.weights.as_ref().map(|_| Vec::new()),
        };
        for &row in rows {
            selected.push_row(
                &self.indices[self.range(row as usize)],
                self.weights
                    .as_ref()
                    .map(|weights| &weights[self.range(row as usize)]),
            );
        }
        selected
    }

    fn push_row(&mut self, indices: &[u32], weights: Option<&[f32]>) {
        self.indices.extend_from_slice(indices);
        if let (Some(all), Some(weights)) = (&mut self.weights, weights) {
            all.extend_from_slice(weights);
        }
        if let Some(offsets) = &mut self.offsets {
            offsets.push(self.indices.len() as u32);
        }
    }
}

/// What a model is trained towards, and how each row counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Targets {
    /// One label a row: 0 or 1 for clicks, any finite number for ratings. Empty where a file to
    /// be predicted has none.
    pub labels: Vec<f32>,
    /// Sample weights; `None`: all are 1.
    pub weights: Option<Vec<f32>>,
    /// Group of each row (a user, a query), for GAUC.
    pub groups: Option<Vec<u32>>,
    /// Log of the probability with which a sampled candidate was drawn.
    pub log_q: Option<Vec<f32>>,
}

/// Rows of a data set as a model gets them, on the host.
///
/// ```
/// use crossfield_core::{Batch, Jagged, Targets};
///
/// let batch = Batch {
///     batch_size: 2,
///     sparse: vec![Jagged::one_hot(vec![3, 1])],
///     targets: Targets {
///         labels: vec![1.0, 0.0],
///         ..Targets::default()
///     },
///     ..Batch::default()
/// };
/// assert_eq!(batch.sparse[0].rows(), batch.batch_size);
/// assert_eq!(batch.targets.labels.len(), batch.batch_size);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Number of rows.
    pub batch_size: usize,
    /// Indices by field, in the order of [`Schema::fields`](crate::Schema::fields).
    pub sparse: Vec<Jagged>,
    /// Dense columns, row-major `[batch_size, schema.dense.len()]`; `None` if there are none.
    pub dense: Option<Vec<f32>>,
    /// Labels, weights, groups.
    pub targets: Targets,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Jagged {
        Jagged {
            indices: vec![7, 9, 4],
            offsets: Some(vec![0, 2, 2, 3]),
            weights: Some(vec![1.0, 0.5, 1.0]),
        }
    }

    #[test]
    fn ranges_follow_offsets() {
        assert_eq!(grid().rows(), 3);
        assert_eq!(grid().range(0), 0..2);
        assert!(grid().range(1).is_empty());
        assert_eq!(grid().weight(1), 0.5);
    }

    #[test]
    fn select_keeps_order_repeats_and_empty_rows() {
        let selected = grid().select(&[2, 1, 0, 2]);
        assert_eq!(selected.indices, [4, 7, 9, 4]);
        assert_eq!(selected.offsets, Some(vec![0, 1, 1, 3, 4]));
        assert_eq!(selected.weights, Some(vec![1.0, 1.0, 0.5, 1.0]));
        let one_hot = Jagged::one_hot(vec![5, 6, 7]);
        assert_eq!(one_hot.select(&[2, 0]).indices, [7, 5]);
        assert!(one_hot.is_one_hot());
    }
}
