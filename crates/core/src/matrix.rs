//! Products of matrices in memory, by the crate that flex multiplies with.

use gemm::{Parallelism, gemm};

/// A matrix in memory: the number at `(row, column)` lies at `row · steps[0] + column · steps[1]`.
///
/// ```
/// use crossfield_core::{Matrix, product, product_into};
///
/// let a = Matrix::new(&[1.0, 2.0, 3.0, 4.0], 2, 2);
/// let b = Matrix::new(&[10.0, 100.0], 2, 1);
/// assert_eq!(product(a, b), [210.0, 430.0]);
/// assert_eq!(product(a.transposed(), b), [310.0, 420.0]);
/// // Added to what is there.
/// let mut sums = [1.0, 2.0];
/// product_into(a, b, &mut sums, true);
/// assert_eq!(sums, [211.0, 432.0]);
/// product_into(a, b, &mut sums, false);
/// assert_eq!(sums, [210.0, 430.0]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub(crate) numbers: &'a [f32],
    pub(crate) dims: [usize; 2],
    pub(crate) steps: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Row after row.
    ///
    /// # Panics
    /// If there are not `rows · columns` numbers.
    pub fn new(numbers: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(numbers.len(), rows * columns, "a whole matrix");
        Self {
            numbers,
            dims: [rows, columns],
            steps: [columns, 1],
        }
    }

    /// Rows as columns; nothing is copied.
    pub fn transposed(self) -> Self {
        let ([rows, columns], [down, right]) = (self.dims, self.steps);
        Self {
            dims: [columns, rows],
            steps: [right, down],
            ..self
        }
    }
}

/// The product of two matrices, row after row. Threads take parts of the result, never of a sum:
/// the bits do not depend on their number.
///
/// # Panics
/// If `a` has not as many columns as `b` has rows.
pub fn product(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let count = a.dims[0] * b.dims[1];
    if count * a.dims[1] == 0 {
        return vec![0.0; count];
    }
    let mut output = Vec::with_capacity(count);
    // SAFETY: the buffer has room for the product, no size is 0, and without adding to what is there
    // every number of it is written and none is read, so that all are set when the length is.
    unsafe {
        multiply(a, b, output.as_mut_ptr(), false);
        output.set_len(count);
    }
    output
}

/// [`product`] into memory that is there, or with `add` added to what it holds.
///
/// # Panics
/// As [`product`], and if `output` is not as long as the product.
pub fn product_into(a: Matrix<'_>, b: Matrix<'_>, output: &mut [f32], add: bool) {
    let count = a.dims[0] * b.dims[1];
    assert_eq!(output.len(), count, "numbers of the product");
    if count * a.dims[1] == 0 {
        if !add {
            output.fill(0.0);
        }
        return;
    }
    // SAFETY: the output is as long as the product, is initialised, and no size is 0.
    unsafe { multiply(a, b, output.as_mut_ptr(), add) }
}

/// # Safety
/// `output` is valid for writes of the whole product, and with `add` for reads of as many numbers; no
/// size is 0.
unsafe fn multiply(a: Matrix<'_>, b: Matrix<'_>, output: *mut f32, add: bool) {
    let ([rows, inner], [inner_b, columns]) = (a.dims, b.dims);
    assert_eq!(inner, inner_b, "columns of `a` and rows of `b`");
    let threads = match rayon::current_num_threads() {
        1 => Parallelism::None,
        threads => Parallelism::Rayon(threads),
    };
    let steps = |matrix: Matrix<'_>| matrix.steps.map(|step| step as isize);
    let ([a_down, a_right], [b_down, b_right]) = (steps(a), steps(b));
    // SAFETY: a `Matrix` holds as many numbers as its dims and steps reach over, and the caller vouches
    // for the output.
    unsafe {
        gemm::<f32>(
            rows,
            columns,
            inner,
            output,
            1,
            columns as isize,
            add,
            a.numbers.as_ptr(),
            a_right,
            a_down,
            b.numbers.as_ptr(),
            b_right,
            b_down,
            if add { 1.0 } else { 0.0 },
            1.0,
            false,
            false,
            false,
            threads,
        );
    }
}
