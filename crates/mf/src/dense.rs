//! Small symmetric systems, one a user or an item: summed up, factored and solved.

use crossfield_simd::{Isa, Kernel, Lanes};

/// Rows are padded with zeros to whole vectors of the widest instruction set.
const PADDED: usize = 16;
/// Rows of a matrix that are summed up together, in registers.
const TILE: usize = 8;
/// Rows that are eliminated together.
const PIVOTS: usize = 4;
/// Observations that are summed up before they are added to the matrix.
const CHUNK: usize = 64;

/// Vectors of one length, each padded with zeros for the kernels of a [`System`].
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    size: usize,
    stride: usize,
    values: Vec<f32>,
}

impl Rows {
    /// `count` vectors of `size` zeros.
    pub(crate) fn new(count: usize, size: usize) -> Self {
        let stride = size.next_multiple_of(PADDED);
        Self {
            size,
            stride,
            values: vec![0.0; count * stride],
        }
    }

    /// Length of the vectors.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Vectors of `size` floats, one after the other.
    pub(crate) fn of(vectors: &[f32], size: usize) -> Self {
        let mut rows = Self::new(vectors.len() / size, size);
        let padded = rows.values.chunks_exact_mut(rows.stride);
        for (padded, vector) in padded.zip(vectors.chunks_exact(size)) {
            padded[..size].copy_from_slice(vector);
        }
        rows
    }

    /// The vectors one after the other, without the padding.
    pub(crate) fn copy_to(&self, vectors: &mut [f32]) {
        let padded = self.values.chunks_exact(self.stride);
        for (padded, vector) in padded.zip(vectors.chunks_exact_mut(self.size)) {
            vector.copy_from_slice(&padded[..self.size]);
        }
    }

    /// Floats from one vector to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// All vectors with their padding.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// All vectors with their padding, which has to stay zero.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// One vector, without the padding.
    #[cfg(test)]
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.stride..][..self.size]
    }

    /// One vector to write.
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.stride..][..self.size]
    }

    /// Number of vectors.
    pub(crate) fn count(&self) -> usize {
        self.values.len() / self.stride.max(1)
    }
}

/// The equations `A x = b` of a symmetric positive definite A, in f32.
///
/// They are summed up from observations `A = A₀ + Σ w z zᵀ`, `b = b₀ + Σ t z`, factored
/// (`A = Uᵀ U`, U upper triangular) and solved. With `y = U⁻ᵀ b` and `x = U⁻¹ (y + ε)`, ε standard
/// normal, x is a draw from the normal distribution of precision A and mean `A⁻¹ b`.
#[derive(Clone, Debug)]
pub(crate) struct System {
    isa: Isa,
    size: usize,
    stride: usize,
    /// `[stride, stride]`; what lies below the diagonal is not defined.
    matrix: Vec<f32>,
    right: Vec<f32>,
    /// `w z` of a chunk of observations.
    scaled: Vec<f32>,
}

/// The matrix has no Cholesky factor: its pivot at this place is not above the error of rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotPositiveDefinite(pub(crate) usize);

impl System {
    /// `size` equations of zeros.
    pub(crate) fn new(size: usize, isa: Isa) -> Self {
        let stride = size.next_multiple_of(PADDED);
        Self {
            isa,
            size,
            stride,
            matrix: vec![0.0; stride * stride],
            right: vec![0.0; stride],
            scaled: vec![0.0; CHUNK * stride],
        }
    }

    /// Starts from A and b of another system of the same size, times `factor`.
    pub(crate) fn start(&mut self, from: &Self, factor: f32) {
        assert_eq!(self.size, from.size, "systems of one size");
        for (to, from) in [
            (&mut self.matrix, &from.matrix),
            (&mut self.right, &from.right),
        ] {
            for (to, from) in to.iter_mut().zip(from) {
                *to = factor * from;
            }
        }
    }

    /// Adds A and b of another system of the same size.
    pub(crate) fn add_system(&mut self, other: &Self) {
        assert_eq!(self.size, other.size, "systems of one size");
        let add = |to: &mut [f32], from: &[f32]| {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        };
        add(&mut self.matrix, &other.matrix);
        add(&mut self.right, &other.right);
    }

    /// A, both sides of the diagonal.
    pub(crate) fn symmetric(&self) -> Rows {
        let mut rows = Rows::new(self.size, self.size);
        for i in 0..self.size {
            for j in i..self.size {
                let value = self.matrix[i * self.stride + j];
                rows.row_mut(i)[j] = value;
                rows.row_mut(j)[i] = value;
            }
        }
        rows
    }

    /// Adds a number to an element of A on or above the diagonal.
    pub(crate) fn add_element(&mut self, row: usize, column: usize, value: f32) {
        assert!(row <= column && column < self.size, "above the diagonal");
        self.matrix[row * self.stride + column] += value;
    }

    /// Adds `w z zᵀ` to A and `t z` to b for each index of a row z.
    pub(crate) fn add(&mut self, rows: &Rows, indices: &[u32], weights: &[f32], targets: &[f32]) {
        assert_eq!(rows.size, self.size, "rows as long as the system");
        assert_eq!(indices.len(), weights.len(), "a weight for each index");
        assert_eq!(indices.len(), targets.len(), "a target for each index");
        let count = rows.count();
        assert!(indices.iter().all(|&index| (index as usize) < count));
        self.isa.run(Add {
            system: self,
            rows: &rows.values,
            indices,
            weights,
            targets,
        });
    }

    /// b, or what [`forward`](Self::forward) and [`backward`](Self::backward) have made of it.
    pub(crate) fn right(&self) -> &[f32] {
        &self.right[..self.size]
    }

    /// The same, to write.
    pub(crate) fn right_mut(&mut self) -> &mut [f32] {
        &mut self.right[..self.size]
    }

    /// Replaces A by U, `A = Uᵀ U`.
    ///
    /// # Errors
    /// [`NotPositiveDefinite`], with a matrix that is of no use any more.
    pub(crate) fn factor(&mut self) -> Result<(), NotPositiveDefinite> {
        self.isa.run(Factor(self))
    }

    /// b becomes `U⁻ᵀ b`; after [`factor`](Self::factor).
    pub(crate) fn forward(&mut self) {
        self.isa.run(Forward(self));
    }

    /// b becomes `U⁻¹ b`; after [`factor`](Self::factor). After [`forward`](Self::forward) as
    /// well, it is the solution.
    pub(crate) fn backward(&mut self) {
        self.isa.run(Backward(self));
    }
}

struct Add<'a> {
    system: &'a mut System,
    rows: &'a [f32],
    indices: &'a [u32],
    weights: &'a [f32],
    targets: &'a [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let (size, stride) = (self.system.size, self.system.stride);
        let matrix = self.system.matrix.as_mut_ptr();
        let right = self.system.right.as_mut_ptr();
        let scaled = self.system.scaled.as_mut_ptr();
        let rows = self.rows.as_ptr();
        let mut start = 0;
        while start < self.indices.len() {
            let end = (start + CHUNK).min(self.indices.len());
            let indices = &self.indices[start..end];
            let (weights, targets) = (&self.weights[start..end], &self.targets[start..end]);
            // SAFETY: `add` has seen that each index names a row and that rows are as long as
            // those of the matrix; `stride` is a multiple of N and of TILE, so that every vector
            // and every tile lies inside; `scaled` holds CHUNK rows.
            unsafe {
                for at in 0..indices.len() {
                    let weight = L::splat(weights[at]);
                    let mut column = 0;
                    while column < stride {
                        let z = L::load(rows.add(indices[at] as usize * stride + column));
                        z.mul(weight).store(scaled.add(at * stride + column));
                        column += L::N;
                    }
                }
                let mut column = 0;
                while column < stride {
                    let mut sum = L::splat(0.0);
                    for at in 0..indices.len() {
                        let z = L::load(rows.add(indices[at] as usize * stride + column));
                        sum = z.mul_add(L::splat(targets[at]), sum);
                    }
                    let to = right.add(column);
                    L::load(to).add(sum).store(to);
                    column += L::N;
                }
                let mut row = 0;
                while row < size {
                    let mut column = row / L::N * L::N;
                    while column < stride {
                        let to = matrix.add(row * stride + column);
                        add_tile::<L>(indices, rows.add(column), scaled.add(row), stride, to);
                        column += L::N;
                    }
                    row += TILE;
                }
            }
            start = end;
        }
    }
}

/// Adds `Σ (w z)ᵢ zⱼ` for TILE rows i and a vector of columns j.
///
/// # Safety
/// The machine has the instruction set of `L`; each pointer reaches over all rows of its matrix.
#[inline(always)]
unsafe fn add_tile<L: Lanes>(
    indices: &[u32],
    rows: *const f32,
    scaled: *const f32,
    stride: usize,
    to: *mut f32,
) {
    // SAFETY: the caller vouches for the set and the pointers.
    unsafe {
        // From zero, not from what is there: fewer roundings of a great sum.
        let mut sums = [L::splat(0.0); TILE];
        for (at, &index) in indices.iter().enumerate() {
            let z = L::load(rows.add(index as usize * stride));
            let scaled = scaled.add(at * stride);
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = z.mul_add(L::splat(*scaled.add(i)), *sum);
            }
        }
        for (i, sum) in sums.iter().enumerate() {
            let to = to.add(i * stride);
            L::load(to).add(*sum).store(to);
        }
    }
}

/// `to −= factor × from` over the vectors of a row from the one with `column` on.
///
/// # Safety
/// The machine has the instruction set of `L`; both pointers reach over `stride` floats.
#[inline(always)]
unsafe fn subtract<L: Lanes>(
    from: *const f32,
    factor: f32,
    column: usize,
    stride: usize,
    to: *mut f32,
) {
    let mut column = column / L::N * L::N;
    // SAFETY: the caller vouches for the set and the pointers.
    unsafe {
        let factor = L::splat(factor);
        while column < stride {
            let to = to.add(column);
            let value = L::load(from.add(column)).neg_mul_add(factor, L::load(to));
            value.store(to);
            column += L::N;
        }
    }
}

struct Factor<'a>(&'a mut System);

impl Kernel for Factor<'_> {
    type Output = Result<(), NotPositiveDefinite>;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> Self::Output {
        let System {
            size,
            stride,
            matrix,
            ..
        } = self.0;
        let (size, stride) = (*size, *stride);
        // The diagonal before elimination: what a pivot is measured by. `scaled` is free here.
        let whole = &mut self.0.scaled[..size];
        for i in 0..size {
            whole[i] = matrix[i * stride + i];
        }
        for first in (0..size).step_by(PIVOTS) {
            let end = (first + PIVOTS).min(size);
            let (done, below) = matrix.split_at_mut(end * stride);
            let pivots = &mut done[first * stride..];
            for i in first..end {
                let (row, rest) = pivots[(i - first) * stride..].split_at_mut(stride);
                let pivot = row[i];
                // Written so that NaN fails too.
                if !(pivot > size as f32 * f32::EPSILON * whole[i] && pivot < f32::INFINITY) {
                    return Err(NotPositiveDefinite(i));
                }
                // Zeros below the diagonal: rows are then used by whole vectors.
                row[..i].fill(0.0);
                let scale = 1.0 / pivot.sqrt();
                for value in &mut row[i..] {
                    *value *= scale;
                }
                for j in i + 1..end {
                    let to = rest[(j - i - 1) * stride..].as_mut_ptr();
                    // SAFETY: both rows are of `stride` floats, a multiple of N.
                    unsafe { subtract::<L>(row.as_ptr(), row[j], j, stride, to) };
                }
            }
            // There are rows below none but a whole block.
            for (j, to) in (end..size).zip(below.chunks_exact_mut(stride)) {
                // SAFETY: `pivots` holds PIVOTS rows; all are of `stride` floats.
                unsafe { subtract_pivots::<L>(pivots.as_ptr(), j, stride, to.as_mut_ptr()) };
            }
        }
        Ok(())
    }
}

/// `to −= Σ fromⱼ × from` over PIVOTS rows `from`, from the vector with column `j` on: the row to
/// be changed is read and written once.
///
/// # Safety
/// The machine has the instruction set of `L`; `from` reaches over PIVOTS rows of `stride` floats
/// and `to` over one.
#[inline(always)]
unsafe fn subtract_pivots<L: Lanes>(from: *const f32, j: usize, stride: usize, to: *mut f32) {
    let mut column = j / L::N * L::N;
    // SAFETY: the caller vouches for the set and the pointers.
    unsafe {
        let mut factors = [L::splat(0.0); PIVOTS];
        for (pivot, factor) in factors.iter_mut().enumerate() {
            *factor = L::splat(*from.add(pivot * stride + j));
        }
        while column < stride {
            let to = to.add(column);
            let mut value = L::load(to);
            for (pivot, factor) in factors.iter().enumerate() {
                value = L::load(from.add(pivot * stride + column)).neg_mul_add(*factor, value);
            }
            value.store(to);
            column += L::N;
        }
    }
}

struct Forward<'a>(&'a mut System);

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let System {
            size,
            stride,
            matrix,
            right,
            ..
        } = self.0;
        for i in 0..*size {
            let row = &matrix[i * *stride..][..*stride];
            let value = right[i] / row[i];
            // SAFETY: both are of `stride` floats, a multiple of N. What lies before `i` stays: the
            // row has zeros there.
            unsafe { subtract::<L>(row.as_ptr(), value, i, *stride, right.as_mut_ptr()) };
            right[i] = value;
        }
    }
}

struct Backward<'a>(&'a mut System);

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let System {
            size,
            stride,
            matrix,
            right,
            ..
        } = self.0;
        for i in (0..*size).rev() {
            let row = &matrix[i * *stride..][..*stride];
            let value = std::mem::replace(&mut right[i], 0.0);
            let mut column = i / L::N * L::N;
            // SAFETY: both are of `stride` floats, a multiple of N. The row has zeros before `i`,
            // and `right` has one at `i`.
            let known = unsafe {
                let mut sum = L::splat(0.0);
                while column < *stride {
                    let x = L::load(right.as_ptr().add(column));
                    sum = L::load(row.as_ptr().add(column)).mul_add(x, sum);
                    column += L::N;
                }
                sum.sum()
            };
            right[i] = (value - known) / row[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number in ±1 that depends on where it stands.
    fn number(row: usize, column: usize) -> f32 {
        ((row * 37 + column * 101 + row * column * 7) % 41) as f32 / 20.0 - 1.0
    }

    fn rows(count: usize, size: usize) -> Rows {
        let mut rows = Rows::new(count, size);
        for row in 0..count {
            for column in 0..size {
                rows.row_mut(row)[column] = number(row, column);
            }
        }
        rows
    }

    /// A and b in plain code and f64.
    fn plain(
        rows: &Rows,
        indices: &[u32],
        w: &[f32],
        t: &[f32],
        ridge: f64,
    ) -> (Vec<f64>, Vec<f64>) {
        let n = rows.size;
        let (mut a, mut b) = (vec![0.0; n * n], vec![0.0; n]);
        for (at, &index) in indices.iter().enumerate() {
            let z = rows.row(index as usize);
            for i in 0..n {
                for j in 0..n {
                    a[i * n + j] += f64::from(w[at]) * f64::from(z[i]) * f64::from(z[j]);
                }
                b[i] += f64::from(t[at]) * f64::from(z[i]);
            }
        }
        for i in 0..n {
            a[i * n + i] += ridge;
        }
        (a, b)
    }

    #[test]
    fn kernels_equal_plain_code_at_every_size_and_instruction_set() {
        for isa in Isa::available() {
            for size in [1, 2, 9, 16, 17, 33] {
                let rows = rows(50, size);
                // More than a chunk, with repeated indices.
                let indices: Vec<u32> = (0..150).map(|at| (at * 7 % 50) as u32).collect();
                let weights: Vec<f32> = (0..150).map(|at| 0.5 + (at % 3) as f32).collect();
                let targets: Vec<f32> = (0..150).map(|at| number(at, 3)).collect();
                let (a, b) = plain(&rows, &indices, &weights, &targets, 2.0);

                let mut prior = System::new(size, isa);
                for i in 0..size {
                    prior.add_element(i, i, 0.5);
                }
                let mut system = System::new(size, isa);
                // What is left of an earlier system has no influence.
                system.matrix.fill(f32::NAN);
                system.right.fill(7.0);
                system.start(&prior, 4.0);
                system.add(&rows, &indices, &weights, &targets);
                for i in 0..size {
                    for j in i..size {
                        let got = f64::from(system.matrix[i * system.stride + j]);
                        assert!((got - a[i * size + j]).abs() < 2e-4, "{isa:?} {size}");
                    }
                    assert!((f64::from(system.right()[i]) - b[i]).abs() < 1e-4);
                }

                system.factor().unwrap();
                let u: Vec<f64> = system.matrix.iter().copied().map(f64::from).collect();
                for i in 0..size {
                    for j in i..size {
                        let product: f64 = (0..=i)
                            .map(|m| u[m * system.stride + i] * u[m * system.stride + j])
                            .sum();
                        assert!((product - a[i * size + j]).abs() < 5e-4, "{isa:?} {size}");
                    }
                }
                system.forward();
                system.backward();
                for i in 0..size {
                    let product: f64 = (0..size)
                        .map(|j| a[i * size + j] * f64::from(system.right()[j]))
                        .sum();
                    assert!((product - b[i]).abs() < 5e-4, "{isa:?} {size}");
                }
            }
        }
    }

    #[test]
    fn rows_give_their_vectors_back_without_the_padding() {
        let vectors: Vec<f32> = (0..51).map(|at| at as f32).collect();
        let rows = Rows::of(&vectors, 17);
        assert_eq!((rows.count(), rows.stride()), (3, 32));
        assert_eq!(rows.row(1)[..3], [17.0, 18.0, 19.0]);
        assert!(
            rows.values()[32 + 17..64]
                .iter()
                .all(|&padding| padding == 0.0)
        );
        let mut copy = vec![0.0; 51];
        rows.copy_to(&mut copy);
        assert_eq!(copy, vectors);
    }

    #[test]
    fn systems_add_up_and_are_symmetric() {
        let mut system = System::new(2, Isa::PORTABLE);
        system.add(&Rows::of(&[1.0, 2.0], 2), &[0], &[1.0], &[3.0]);
        let other = system.clone();
        system.add_system(&other);
        assert_eq!(system.symmetric().row(0), [2.0, 4.0]);
        assert_eq!(system.symmetric().row(1), [4.0, 8.0]);
        assert_eq!(system.right(), [6.0, 12.0]);
    }

    #[test]
    fn two_equations_are_solved_as_by_hand() {
        // A = (4 2; 2 5) has U = (2 1; 0 2); b = (2, 5): y = U⁻ᵀ b = (1, 2), x = U⁻¹ y = (0, 1).
        let mut system = System::new(2, Isa::PORTABLE);
        for (row, column, value) in [(0, 0, 4.0), (0, 1, 2.0), (1, 1, 5.0)] {
            system.add_element(row, column, value);
        }
        system.right_mut().copy_from_slice(&[2.0, 5.0]);
        system.factor().unwrap();
        system.forward();
        assert_eq!(system.right(), [1.0, 2.0]);
        system.backward();
        assert_eq!(system.right(), [0.0, 1.0]);
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_refused() {
        let of = |diagonal: [f32; 2], other: f32| {
            let mut system = System::new(2, Isa::PORTABLE);
            system.add_element(0, 0, diagonal[0]);
            system.add_element(0, 1, other);
            system.add_element(1, 1, diagonal[1]);
            system.factor()
        };
        assert_eq!(of([1.0, 1.0], 0.5), Ok(()));
        assert_eq!(of([1.0, 1.0], 1.0), Err(NotPositiveDefinite(1)));
        assert_eq!(of([1.0, 1.0], 2.0), Err(NotPositiveDefinite(1)));
        assert_eq!(of([0.0, 1.0], 0.0), Err(NotPositiveDefinite(0)));
        assert_eq!(of([f32::NAN, 1.0], 0.0), Err(NotPositiveDefinite(0)));
        assert_eq!(of([f32::INFINITY, 1.0], 0.0), Err(NotPositiveDefinite(0)));
    }
}
