//! The kernel of many queries.

use crossfield_simd::{Kernel, Lanes};

use super::Top;

/// Rows that are laid out for the kernel at a time, side by side: a whole number of vectors.
const PANEL: usize = 32;
/// Queries that go over two vectors of rows together: twelve sums in registers.
const QUERIES: usize = 6;

/// Compares a tile of queries with all rows.
///
/// ```text
/// panel   d = 0   row 0 row 1 … row 31     a vector holds one number of N rows, so that the
///         d = 1   row 0 row 1 … row 31     products of N rows with a query are added up in one
///         …                                register, one a lane
/// ```
///
/// Rows are read from memory once for all queries of the tile; a panel stays in the cache. The
/// products of a row with a query are added up in their order, whatever the set of instructions.
pub(super) struct Tile<'a, 'b> {
    /// `[rows, width]`.
    pub(super) rows: &'a [f32],
    pub(super) dim: usize,
    pub(super) width: usize,
    /// `[rows]`.
    pub(super) bias: Option<&'a [f32]>,
    /// `[queries, width]`.
    pub(super) queries: &'a [f32],
    /// `[queries]`.
    pub(super) tops: &'a mut [Top<'b>],
}

impl Kernel for Tile<'_, '_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let (dim, width) = (self.dim, self.width);
        assert!(self.rows.len().is_multiple_of(width) && dim <= width);
        assert_eq!(self.queries.len(), self.tops.len() * width);
        let rows = self.rows.len() / width;
        let mut panel = vec![0.0; dim * PANEL];
        let mut bias = [0.0; PANEL];
        let mut first = 0;
        while first < rows {
            let count = (rows - first).min(PANEL);
            for nth in 0..count {
                let row = &self.rows[(first + nth) * width..][..dim];
                for (at, &value) in row.iter().enumerate() {
                    panel[at * PANEL + nth] = value;
                }
            }
            if let Some(of_rows) = self.bias {
                bias[..count].copy_from_slice(&of_rows[first..first + count]);
            }
            let mut query = 0;
            while query < self.tops.len() {
                let queries = &self.queries[query * width..];
                let tops = &mut self.tops[query..];
                // SAFETY: the caller vouches for the instruction set; the panel is `[dim, PANEL]`,
                // and there are as many queries as each branch takes.
                let taken = unsafe {
                    if tops.len() >= QUERIES {
                        compare::<L, QUERIES>(&panel, &bias, queries, width, first, count, tops)
                    } else {
                        compare::<L, 1>(&panel, &bias, queries, width, first, count, tops)
                    }
                };
                query += taken;
            }
            first += PANEL;
        }
    }
}

/// Compares the first `Q` queries with a panel, of whose rows `count` are there.
///
/// # Safety
/// The machine has the instruction set, the panel is `[dim, PANEL]`, and `Q` queries of `width` ≥
/// `dim` are there.
#[inline(always)]
unsafe fn compare<L: Lanes, const Q: usize>(
    panel: &[f32],
    bias: &[f32; PANEL],
    queries: &[f32],
    width: usize,
    first: usize,
    count: usize,
    tops: &mut [Top<'_>],
) -> usize {
    let mut scores = [[0.0f32; PANEL]; Q];
    let mut strip = 0;
    while strip < PANEL {
        // SAFETY: the caller vouches for the set, panel and queries; `PANEL` is a multiple of `2N`,
        // so that both vectors of the strip are in it.
        unsafe {
            let mut sums = [[L::splat(0.0); 2]; Q];
            let mut at = 0;
            while at < panel.len() {
                let low = L::load(panel.as_ptr().add(at + strip));
                let high = L::load(panel.as_ptr().add(at + strip + L::N));
                for (nth, sum) in sums.iter_mut().enumerate() {
                    let q = L::splat(*queries.as_ptr().add(nth * width + at / PANEL));
                    sum[0] = low.mul_add(q, sum[0]);
                    sum[1] = high.mul_add(q, sum[1]);
                }
                at += PANEL;
            }
            let low = L::load(bias.as_ptr().add(strip));
            let high = L::load(bias.as_ptr().add(strip + L::N));
            for (sum, scores) in sums.iter().zip(&mut scores) {
                sum[0].add(low).store(scores.as_mut_ptr().add(strip));
                sum[1]
                    .add(high)
                    .store(scores.as_mut_ptr().add(strip + L::N));
            }
        }
        strip += 2 * L::N;
    }
    for (scores, top) in scores.iter().zip(tops) {
        top.offer_all(first as u32, &scores[..count]);
    }
    Q
}
