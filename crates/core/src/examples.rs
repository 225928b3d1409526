//! Encoded rows, side by side, as a row-by-row pass reads them.

use crate::FieldId;

/// A view of encoded rows in which the features of a row lie together.
///
/// ```text
/// one_hot_fields   2  5          lists[0]: field 3
/// one_hot          7 90          row 0: indices[offsets[0]..offsets[1]]
///                  8 12          row 1: indices[offsets[1]..offsets[2]]
/// ```
#[derive(Clone, Debug)]
pub struct Examples<'a> {
    /// Number of rows.
    pub rows: usize,
    /// The fields of which every row has exactly one feature, of weight 1; rising.
    pub one_hot_fields: &'a [FieldId],
    /// Their indices, `[rows, one_hot_fields.len()]`, row-major.
    pub one_hot: &'a [u32],
    /// The other fields, by rising field.
    pub lists: Vec<FeatureLists<'a>>,
    /// One label a row; empty where rows have none.
    pub labels: &'a [f32],
    /// One weight a row; `None`: all are 1.
    pub weights: Option<&'a [f32]>,
}

/// Any number of weighted features a row, of one field.
#[derive(Clone, Copy, Debug)]
pub struct FeatureLists<'a> {
    /// The field.
    pub field: FieldId,
    /// `rows + 1` positions in `indices`, rising from 0.
    pub offsets: &'a [u64],
    /// The indices of all rows, one row after the other.
    pub indices: &'a [u32],
    /// One weight for each index; `None`: all are 1.
    pub weights: Option<&'a [f32]>,
}

impl<'a> Examples<'a> {
    /// The one-hot indices of a row, in the order of `one_hot_fields`.
    #[inline]
    pub fn one_hot_of(&self, row: usize) -> &'a [u32] {
        let width = self.one_hot_fields.len();
        &self.one_hot[row * width..][..width]
    }
}

impl FeatureLists<'_> {
    /// Positions of the features of a row.
    #[inline]
    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        self.offsets[row] as usize..self.offsets[row + 1] as usize
    }

    /// The weight of the feature at `position`.
    #[inline]
    pub fn weight(&self, position: usize) -> f32 {
        self.weights.map_or(1.0, |weights| weights[position])
    }
}
