//! The kernel of one query.

use crossfield_simd::{Kernel, Lanes};

use super::Top;

/// Rows whose products are added up beside each other.
const ROWS: usize = 4;

/// Compares one query with all rows, in one pass over them.
pub(super) struct Scan<'a, 'b> {
    /// `[rows, width]`.
    pub(super) rows: &'a [f32],
    /// `[rows]`.
    pub(super) bias: Option<&'a [f32]>,
    /// `[width]`.
    pub(super) query: &'a [f32],
    pub(super) top: &'a mut Top<'b>,
}

impl Kernel for Scan<'_, '_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let width = self.query.len();
        assert!(width.is_multiple_of(L::N) && self.rows.len().is_multiple_of(width));
        let rows = self.rows.len() / width;
        let at = self.rows.as_ptr();
        let mut row = 0;
        while row + ROWS <= rows {
            // SAFETY: the caller vouches for the instruction set; four rows are there from `row`
            // on, and the query is whole vectors long.
            let mut scores = unsafe { products::<L>(at.add(row * width), self.query) };
            if let Some(bias) = self.bias {
                for (score, bias) in scores.iter_mut().zip(&bias[row..row + ROWS]) {
                    *score += bias;
                }
            }
            self.top.offer_all(row as u32, &scores);
            row += ROWS;
        }
        for row in row..rows {
            // SAFETY: as above, of one row.
            let score = unsafe { product::<L>(at.add(row * width), self.query) };
            let bias = self.bias.map_or(0.0, |bias| bias[row]);
            self.top.offer_all(row as u32, &[score + bias]);
        }
    }
}

/// The products of one query with some of the rows.
pub(super) struct Pick<'a> {
    /// `[rows, width]`.
    pub(super) rows: &'a [f32],
    /// `[width]`.
    pub(super) query: &'a [f32],
    /// Their numbers.
    pub(super) picked: &'a [u32],
    /// `[picked]`.
    pub(super) scores: &'a mut [f32],
}

impl Kernel for Pick<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let width = self.query.len();
        assert!(width.is_multiple_of(L::N));
        for (&row, score) in self.picked.iter().zip(self.scores) {
            let row = &self.rows[row as usize * width..][..width];
            // SAFETY: the caller vouches for the instruction set; row and query are of one width.
            *score = unsafe { product::<L>(row.as_ptr(), self.query) };
        }
    }
}

/// The product of a query with the row at `row`.
///
/// # Safety
/// The machine has the instruction set, the row is there, and the query is whole vectors long.
#[inline(always)]
unsafe fn product<L: Lanes>(row: *const f32, query: &[f32]) -> f32 {
    // SAFETY: the caller vouches for the set and the row; `at` is below the width of both.
    unsafe {
        let mut sum = L::splat(0.0);
        let mut at = 0;
        while at < query.len() {
            let q = L::load(query.as_ptr().add(at));
            sum = L::load(row.add(at)).mul_add(q, sum);
            at += L::N;
        }
        sum.sum()
    }
}

/// The products of a query with four rows, one after the other from `rows` on: to the bit those of
/// [`product`].
///
/// # Safety
/// As `product`.
#[inline(always)]
unsafe fn products<L: Lanes>(rows: *const f32, query: &[f32]) -> [f32; ROWS] {
    let width = query.len();
    // SAFETY: the caller vouches for the set and the rows; `at` is below the width of both.
    unsafe {
        let mut sums = [L::splat(0.0); ROWS];
        let mut at = 0;
        while at < width {
            let q = L::load(query.as_ptr().add(at));
            for (nth, sum) in sums.iter_mut().enumerate() {
                *sum = L::load(rows.add(nth * width + at)).mul_add(q, *sum);
            }
            at += L::N;
        }
        L::sums(sums)
    }
}
