//! Vectors to be compared with each other.

use rayon::prelude::*;

use crate::pages::Pages;
use crate::row::padded;
use crate::{Error, Table};

/// Rows that a thread fills at a time.
const BLOCK: usize = 4096;

/// Rows of `dim` finite numbers in one allocation, each padded with zeros to whole vectors of the
/// processor, so that a kernel walks over them without a remainder.
///
/// ```
/// use crossfield_embedding::Vectors;
///
/// let vectors = Vectors::from_flat(&[3.0, 4.0, 0.0, 0.0], 2)?;
/// assert_eq!((vectors.rows(), vectors.dim()), (2, 2));
/// let normalized = vectors.normalized()?;
/// assert_eq!(normalized.row(0), [0.6, 0.8]);
/// // A vector of zeros has no direction and stays as it is.
/// assert_eq!(normalized.row(1), [0.0, 0.0]);
/// # Ok::<(), crossfield_embedding::Error>(())
/// ```
#[derive(Debug)]
pub struct Vectors {
    rows: usize,
    dim: usize,
    width: usize,
    memory: Pages,
}

impl Vectors {
    /// The rows of a matrix that lie one after the other.
    ///
    /// # Shapes
    /// - values: `[rows, dim]`
    ///
    /// # Errors
    /// [`Error::Length`] if `dim` is 0 or the values are no whole rows, [`Error::NonFiniteVector`],
    /// [`Error::NoMemory`].
    pub fn from_flat(values: &[f32], dim: usize) -> Result<Self, Error> {
        if dim == 0 || !values.len().is_multiple_of(dim) {
            return Err(Error::Length {
                what: "values of vectors",
                got: values.len(),
                expected: format!("rows of {dim}, of one number or more"),
            });
        }
        Self::build(values.len() / dim, dim, |row, vector| {
            vector.copy_from_slice(&values[row * dim..][..dim]);
        })
    }

    /// The weights of a table.
    ///
    /// # Errors
    /// [`Error::NonFiniteVector`], [`Error::NoMemory`].
    pub fn from_table(table: &Table) -> Result<Self, Error> {
        let config = table.config();
        Self::build(config.rows, config.dim, |row, vector| {
            table.read_weights(row as u32, vector);
        })
    }

    /// The vectors at length 1; those of zeros stay so.
    ///
    /// Lengths are computed in `f64`, in which neither the largest nor the smallest `f32` is lost.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn normalized(&self) -> Result<Self, Error> {
        Self::build(self.rows, self.dim, |row, vector| {
            normalize(self.row(row as u32), vector);
        })
    }

    /// Vectors that a function fills, any row at any time.
    pub(crate) fn build(
        rows: usize,
        dim: usize,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Self, Error> {
        let width = width(dim);
        let mut memory = Pages::zeroed("vectors", rows * width * size_of::<f32>())?;
        let values: &mut [f32] = bytemuck::cast_slice_mut(memory.bytes_mut());
        let blocks = values.par_chunks_mut(BLOCK * width).enumerate();
        blocks.try_for_each(|(block, values)| {
            for (nth, row) in values.chunks_exact_mut(width).enumerate() {
                let row_number = block * BLOCK + nth;
                fill(row_number, &mut row[..dim]);
                if let Some(&value) = row.iter().find(|value| !value.is_finite()) {
                    let row = row_number;
                    return Err(Error::NonFiniteVector { row, value });
                }
            }
            Ok(())
        })?;
        Ok(Self {
            rows,
            dim,
            width,
            memory,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Numbers of a row with its padding: 8, or a multiple of 16.
    pub fn width(&self) -> usize {
        self.width
    }

    /// A row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: u32) -> &[f32] {
        &self.padded_row(row)[..self.dim]
    }

    /// A row with its padding.
    pub(crate) fn padded_row(&self, row: u32) -> &[f32] {
        &self.padded()[row as usize * self.width..][..self.width]
    }

    /// All rows with their padding: `[rows, width]`.
    pub fn padded(&self) -> &[f32] {
        bytemuck::cast_slice(self.memory.bytes())
    }
}

/// Numbers of a row of `dim` and its padding.
pub(crate) fn width(dim: usize) -> usize {
    // Other than in tables, short rows too are whole vectors.
    padded(dim.max(3))
}

/// Writes a vector at length 1, or zeros.
pub(crate) fn normalize(from: &[f32], to: &mut [f32]) {
    let square: f64 = from.iter().map(|&value| f64::from(value).powi(2)).sum();
    let scale = if square > 0.0 {
        1.0 / square.sqrt()
    } else {
        0.0
    };
    for (to, &from) in to.iter_mut().zip(from) {
        *to = (f64::from(from) * scale) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Precision, RowOptimizer, RowOptimizerKind, TablePlan};
    use crossfield_core::{Initializer, TableConfig};

    #[test]
    fn rows_are_padded_with_zeros_to_whole_vectors() {
        let vectors = Vectors::from_flat(&[1.0, 2.0], 1).unwrap();
        assert_eq!(vectors.width(), 8);
        assert_eq!(
            vectors.padded()[..9],
            [1.0, 0., 0., 0., 0., 0., 0., 0., 2.0]
        );
        let vectors = Vectors::from_flat(&[1.0; 9], 9).unwrap();
        assert_eq!((vectors.width(), vectors.padded().len()), (16, 16));
    }

    #[test]
    fn values_that_are_no_whole_rows_are_refused() {
        for dim in [0, 2] {
            let error = Vectors::from_flat(&[1.0, 2.0, 3.0], dim).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("values of vectors: got 3, expected rows of {dim}, of one number or more")
            );
        }
        assert_eq!(Vectors::from_flat(&[], 4).unwrap().rows(), 0);
    }

    #[test]
    fn a_vector_with_a_number_that_is_not_finite_is_refused_by_its_row() {
        let mut values = vec![0.5; 3 * 5000];
        values[3 * 4321 + 1] = f32::NAN;
        let error = Vectors::from_flat(&values, 3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "vector 4321 holds NaN, expected finite numbers"
        );
    }

    #[test]
    fn the_vectors_of_a_table_are_its_weights_at_any_precision() {
        for precision in [Precision::F32, Precision::Bf16] {
            let config = TableConfig {
                name: "v5.item".into(),
                rows: 7,
                dim: 5,
                fields: vec![0],
                initializer: Initializer::Normal { std: 1.0 },
                oov_row: Some(0),
            };
            let optimizer = RowOptimizer {
                kind: RowOptimizerKind::RowwiseAdagrad,
                ..RowOptimizer::default()
            };
            let plan = TablePlan {
                precision,
                ..TablePlan::new(config, optimizer)
            };
            let table = Table::new(&plan, 1).unwrap();
            let vectors = Vectors::from_table(&table).unwrap();
            let mut weights = [0.0; 5];
            for row in 0..7 {
                table.read_weights(row, &mut weights);
                assert_eq!(vectors.row(row), weights);
            }
        }
    }

    #[test]
    fn lengths_of_the_largest_and_smallest_numbers_are_known() {
        let smallest = f32::from_bits(1);
        let vectors = Vectors::from_flat(&[f32::MAX, 0.0, 0.0, -smallest], 2).unwrap();
        let normalized = vectors.normalized().unwrap();
        assert_eq!(
            (normalized.row(0), normalized.row(1)),
            (&[1.0, 0.0][..], &[0.0, -1.0][..])
        );
    }
}
