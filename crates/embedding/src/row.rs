//! Where the parts of a table's row lie.

use serde::{Deserialize, Serialize};

use crate::{RowOptimizer, StateWidth};

/// Floats of a cache line, and of the widest vector a kernel works on.
const LINE: usize = 16;

/// How the weights of a row are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Four bytes a weight.
    #[default]
    F32,
    /// Two bytes a weight: the upper half of an `f32`, eight bits of precision. Updates are rounded
    /// at random, up or down in proportion, so that small ones are not lost. Only the fused
    /// executor trains such rows.
    Bf16,
}

/// The layout of a row: weights, then the optimizer's state, part by part.
///
/// ```text
/// 6 weights, AdaGrad    w w w w w w · · | n n n n n n · ·
///                       0               width
/// ```
///
/// Weights and each part of the state are padded with zeros to whole vectors, so that a kernel can walk
/// over them without a remainder, and long rows to whole cache lines where that takes less than a
/// quarter of them.
///
/// ```
/// use crossfield_embedding::{Precision, RowLayout, RowOptimizer};
///
/// let layout = RowLayout::new(6, &RowOptimizer::default(), Precision::F32);
/// assert_eq!((layout.width, layout.stride), (8, 64));
/// // 39 fields of 4: half the bytes, with one accumulator a row even less.
/// let layout = RowLayout::new(156, &RowOptimizer::default(), Precision::F32);
/// assert_eq!((layout.width, layout.stride), (160, 1280));
/// // 16 weights and one accumulator: two lines whether or not they are filled up.
/// let rowwise = RowOptimizer {
///     kind: crossfield_embedding::RowOptimizerKind::RowwiseAdagrad,
///     ..RowOptimizer::default()
/// };
/// assert_eq!(RowLayout::new(16, &rowwise, Precision::F32).stride, 72);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowLayout {
    /// Weights.
    pub dim: usize,
    /// Weights and padding.
    pub width: usize,
    /// Bytes from the start of a row to its state.
    pub state_at: usize,
    /// Bytes from a row to the next.
    pub stride: usize,
    /// How weights are kept; the state is always `f32`.
    pub precision: Precision,
}

impl RowLayout {
    /// The layout of rows of `dim` weights under an optimizer.
    pub fn new(dim: usize, optimizer: &RowOptimizer, precision: Precision) -> Self {
        let width = padded(dim);
        let weight = match precision {
            Precision::F32 => size_of::<f32>(),
            Precision::Bf16 => size_of::<u16>(),
        };
        let state_at = (width * weight).next_multiple_of(size_of::<f32>());
        let bytes = state_at + optimizer.state_len(dim) * size_of::<f32>();
        let line = LINE * size_of::<f32>();
        let lines = bytes.next_multiple_of(line);
        let stride = if bytes <= line / 2 {
            bytes
        } else if bytes <= line || (lines - bytes) * 4 < lines {
            lines
        } else {
            bytes.next_multiple_of(2 * size_of::<f32>())
        };
        Self {
            dim,
            width,
            state_at,
            stride,
            precision,
        }
    }
}

impl StateWidth {
    /// Floats for a row of `dim` weights, padding included.
    pub fn len(self, dim: usize) -> usize {
        match self {
            StateWidth::One => 1,
            StateWidth::Dim => padded(dim),
        }
    }

    /// Floats for a row of `dim` weights, without padding.
    pub fn values(self, dim: usize) -> usize {
        match self {
            StateWidth::One => 1,
            StateWidth::Dim => dim,
        }
    }
}

/// Weights of a row, and what fills them up to whole vectors of 8 or 16. One or two stay as they
/// are: linear weights are too many to be padded.
pub(crate) fn padded(dim: usize) -> usize {
    match dim {
        0..=2 => dim,
        3..=8 => 8,
        _ => dim.next_multiple_of(LINE),
    }
}

/// The nearest value whose lower half is zero, as a half.
pub(crate) fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    // Ties to even; weights are finite, so that the sum cannot run into a NaN.
    (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}

pub(crate) fn from_bf16(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RowOptimizerKind;

    #[test]
    fn short_rows_are_packed_and_long_ones_begin_on_a_line() {
        let adagrad = RowOptimizer::default();
        let stride = |dim, precision| RowLayout::new(dim, &adagrad, precision).stride;
        assert_eq!(stride(1, Precision::F32), 8);
        assert_eq!(stride(4, Precision::F32), 64);
        assert_eq!(stride(8, Precision::F32), 64);
        assert_eq!(stride(16, Precision::F32), 128);
        let rowwise = RowOptimizer {
            kind: RowOptimizerKind::RowwiseAdagrad,
            ..adagrad
        };
        let half = RowLayout::new(156, &rowwise, Precision::Bf16);
        assert_eq!((half.state_at, half.stride), (320, 384));
    }

    #[test]
    fn halves_are_the_nearest() {
        assert_eq!(from_bf16(to_bf16(1.0)), 1.0);
        assert_eq!(from_bf16(to_bf16(-0.0)).to_bits(), (-0.0f32).to_bits());
        // Between 1 and 1 + 2⁻⁷.
        assert_eq!(from_bf16(to_bf16(1.003)), 1.0);
        assert_eq!(from_bf16(to_bf16(1.005)), 1.0078125);
    }
}
