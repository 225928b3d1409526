//! Exact nearest neighbours: of one vector, and of many.

mod scan;
mod tiles;

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crossfield_simd::{Isa, Kernel};
use rayon::prelude::*;

use crate::vectors::{normalize, width};
use crate::{Error, Vectors};

/// Queries whose scores are computed together: rows are read from memory once for all of them.
const TILE: usize = 96;

/// How alike two vectors are.
///
/// ```
/// use crossfield_embedding::{Exact, Measure, Vectors};
///
/// let rows = Vectors::from_flat(&[1.0, 1.0, 9.0, 0.0], 2)?;
/// let nearest = |measure| Exact::new(&rows, measure)?.nearest(&[1.0, 0.9], 1, &[]);
/// assert_eq!(nearest(Measure::Dot)?[0].row, 1);
/// assert_eq!(nearest(Measure::Cosine)?[0].row, 0);
/// # Ok::<(), crossfield_embedding::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// `a · b`.
    Dot,
    /// `a · b / (|a| |b|)`; 0 where one of them has no direction, because it is all zeros.
    Cosine,
}

/// A row and how near it is.
///
/// ```
/// use crossfield_embedding::Neighbour;
///
/// let mut neighbours = [(4, 0.5), (2, 0.5), (7, 0.75)].map(|(row, score)| Neighbour { row, score });
/// neighbours.sort_by(Neighbour::nearer);
/// assert_eq!(neighbours.map(|neighbour| neighbour.row), [7, 2, 4]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// The row.
    pub row: u32,
    /// Its score: the nearest has the largest.
    pub score: f32,
}

impl Neighbour {
    /// The order of lists of neighbours: by falling score, of one score by rising row.
    pub fn nearer(&self, other: &Self) -> Ordering {
        other
            .score
            .total_cmp(&self.score)
            .then(self.row.cmp(&other.row))
    }
}

/// Finds the nearest rows of any vector by comparing it with all of them.
///
/// Lists are the nearest first, those of one score by rising row, and as long as there are rows for
/// them. A score that is not a number or −∞, as products of the largest numbers may be, is never
/// in a list.
///
/// ```
/// use crossfield_embedding::{Exact, Measure, Neighbour, Vectors};
///
/// let items = Vectors::from_flat(&[1.0, 0.0, 2.0, 0.0, 0.0, 3.0], 2)?;
/// let bias = [0.0, 0.0, 0.5];
/// let exact = Exact::new(&items, Measure::Dot)?.with_bias(&bias)?;
/// let found = exact.nearest(&[1.0, 0.5], 2, &[]) ?;
/// let expected = [Neighbour { row: 1, score: 2.0 }, Neighbour { row: 2, score: 2.0 }];
/// assert_eq!(found, expected);
///
/// // Without row 1, for many queries at once.
/// let users = Vectors::from_flat(&[1.0, 0.5], 2)?;
/// let found = exact.nearest_of_each(&users, &[0], 2, &|_| &[1])?;
/// assert_eq!(found[0].iter().map(|found| found.row).collect::<Vec<_>>(), [2, 0]);
/// # Ok::<(), crossfield_embedding::Error>(())
/// ```
#[derive(Debug)]
pub struct Exact<'a> {
    rows: Rows<'a>,
    measure: Measure,
    bias: Option<&'a [f32]>,
    isa: Isa,
}

#[derive(Debug)]
enum Rows<'a> {
    Borrowed(&'a Vectors),
    Normalized(Vectors),
}

impl<'a> Exact<'a> {
    /// A search among these rows. By cosine it holds a copy of them, of length 1.
    ///
    /// # Errors
    /// [`Error::NoMemory`] for the copy, [`Error::Isa`].
    pub fn new(rows: &'a Vectors, measure: Measure) -> Result<Self, Error> {
        Ok(Self {
            rows: match measure {
                Measure::Dot => Rows::Borrowed(rows),
                Measure::Cosine => Rows::Normalized(rows.normalized()?),
            },
            measure,
            bias: None,
            isa: Isa::detect()?,
        })
    }

    /// Adds a number of its own to the score of each row, as the biases of items are.
    ///
    /// # Shapes
    /// - bias: `[rows]`
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::NonFiniteVector`].
    pub fn with_bias(self, bias: &'a [f32]) -> Result<Self, Error> {
        check_length("biases", bias.len(), self.rows().rows())?;
        if let Some(row) = bias.iter().position(|bias| !bias.is_finite()) {
            let value = bias[row];
            return Err(Error::NonFiniteVector { row, value });
        }
        Ok(Self {
            bias: Some(bias),
            ..self
        })
    }

    fn rows(&self) -> &Vectors {
        match &self.rows {
            Rows::Borrowed(rows) => rows,
            Rows::Normalized(rows) => rows,
        }
    }

    /// The `k` nearest rows of one vector, but for the `excluded`, which rise: one pass over the
    /// memory, on one thread.
    ///
    /// # Shapes
    /// - query: `[dim]`
    ///
    /// # Errors
    /// [`Error::Length`] for the query, [`Error::NonFiniteVector`] in it, [`Error::Unsorted`].
    pub fn nearest(
        &self,
        query: &[f32],
        k: usize,
        excluded: &[u32],
    ) -> Result<Vec<Neighbour>, Error> {
        let rows = self.rows();
        let query = self.padded_query(query)?;
        check_rising(0, excluded)?;
        let mut top = Top::new(k.min(rows.rows()), excluded);
        self.run(scan::Scan {
            rows: rows.padded(),
            bias: self.bias,
            query: &query,
            top: &mut top,
        });
        Ok(top.into_list())
    }

    /// The scores of some rows, in their order: to the bit those of [`nearest`](Self::nearest).
    ///
    /// # Shapes
    /// - query: `[dim]`
    ///
    /// # Errors
    /// [`Error::Length`] for the query, [`Error::NonFiniteVector`] in it, [`Error::NoRow`].
    pub fn scores(&self, query: &[f32], picked: &[u32]) -> Result<Vec<Neighbour>, Error> {
        let rows = self.rows();
        let query = self.padded_query(query)?;
        check_rows("candidate", picked, rows.rows())?;
        let mut scores = vec![0.0; picked.len()];
        self.run(scan::Pick {
            rows: rows.padded(),
            query: &query,
            picked,
            scores: &mut scores,
        });
        let neighbours = picked.iter().zip(scores).map(|(&row, score)| {
            let bias = self.bias.map_or(0.0, |bias| bias[row as usize]);
            let score = score + bias;
            Neighbour { row, score }
        });
        Ok(neighbours.collect())
    }

    /// The `k` nearest rows of each of the `wanted` rows of `queries`, but for the rising lists
    /// that `excluded` gives for them.
    ///
    /// On all threads of the pool, each of which takes tiles of queries; the bits do not depend on
    /// their number. The last bits of a score may differ from those of [`nearest`](Self::nearest),
    /// which adds the products up in another order.
    ///
    /// # Errors
    /// [`Error::Length`] if the queries have another dim, [`Error::NoRow`], [`Error::Unsorted`].
    pub fn nearest_of_each<'e>(
        &self,
        queries: &Vectors,
        wanted: &[u32],
        k: usize,
        excluded: &(dyn Fn(u32) -> &'e [u32] + Sync),
    ) -> Result<Vec<Vec<Neighbour>>, Error> {
        let rows = self.rows();
        check_length("numbers of a query", queries.dim(), rows.dim())?;
        check_rows("query", wanted, queries.rows())?;
        let tiles = wanted.par_chunks(TILE).map(|wanted| {
            let width = rows.width();
            let mut tile = vec![0.0; wanted.len() * width];
            let mut tops = Vec::with_capacity(wanted.len());
            for (&query, padded) in wanted.iter().zip(tile.chunks_exact_mut(width)) {
                self.copy_query(queries.row(query), padded);
                let excluded = excluded(query);
                check_rising(query, excluded)?;
                tops.push(Top::new(k.min(rows.rows()), excluded));
            }
            self.isa.run(tiles::Tile {
                rows: rows.padded(),
                dim: rows.dim(),
                width,
                bias: self.bias,
                queries: &tile,
                tops: &mut tops,
            });
            Ok(tops.into_iter().map(Top::into_list).collect())
        });
        let tiles: Vec<Vec<Vec<Neighbour>>> = tiles.collect::<Result<_, Error>>()?;
        Ok(tiles.into_iter().flatten().collect())
    }

    /// A query as the rows are: padded, and by cosine of length 1.
    fn padded_query(&self, query: &[f32]) -> Result<Vec<f32>, Error> {
        check_length("numbers of a query", query.len(), self.rows().dim())?;
        if let Some(&value) = query.iter().find(|value| !value.is_finite()) {
            return Err(Error::NonFiniteVector { row: 0, value });
        }
        let mut padded = vec![0.0; self.rows().width()];
        self.copy_query(query, &mut padded);
        Ok(padded)
    }

    /// Runs a kernel that walks over rows, on vectors that they are whole numbers of.
    fn run<K: Kernel>(&self, kernel: K) -> K::Output {
        if self.rows().width().is_multiple_of(16) {
            self.isa.run(kernel)
        } else {
            self.isa.run_eight(kernel)
        }
    }

    fn copy_query(&self, from: &[f32], to: &mut [f32]) {
        debug_assert_eq!(to.len(), width(from.len()));
        match self.measure {
            Measure::Dot => to[..from.len()].copy_from_slice(from),
            Measure::Cosine => normalize(from, to),
        }
    }
}

pub(crate) fn check_length(what: &'static str, got: usize, expected: usize) -> Result<(), Error> {
    if got == expected {
        return Ok(());
    }
    let expected = expected.to_string();
    Err(Error::Length {
        what,
        got,
        expected,
    })
}

pub(crate) fn check_rows(what: &'static str, wanted: &[u32], rows: usize) -> Result<(), Error> {
    match wanted.iter().find(|&&row| row as usize >= rows) {
        Some(&row) => Err(Error::NoRow { what, row, rows }),
        None => Ok(()),
    }
}

fn check_rising(query: u32, list: &[u32]) -> Result<(), Error> {
    if list.is_sorted() {
        Ok(())
    } else {
        Err(Error::Unsorted { query })
    }
}

/// The best rows so far.
#[derive(Debug)]
struct Top<'a> {
    k: usize,
    excluded: &'a [u32],
    /// The farthest on top.
    heap: BinaryHeap<Farthest>,
    /// Only what is above it is worth a look.
    threshold: f32,
}

#[derive(Debug)]
struct Farthest(Neighbour);

impl Ord for Farthest {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.nearer(&other.0)
    }
}

impl PartialOrd for Farthest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Farthest {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Farthest {}

impl<'a> Top<'a> {
    fn new(k: usize, excluded: &'a [u32]) -> Self {
        Self {
            k,
            excluded,
            heap: BinaryHeap::with_capacity(k),
            threshold: if k == 0 {
                f32::INFINITY
            } else {
                f32::NEG_INFINITY
            },
        }
    }

    /// Takes in the scores of rows from `first` on. Rows come rising, so that of one score the
    /// first stays.
    #[inline(always)]
    fn offer_all(&mut self, first: u32, scores: &[f32]) {
        let mut above = 0;
        for &score in scores {
            above |= u32::from(score > self.threshold);
        }
        if above != 0 {
            self.take(first, scores);
        }
    }

    /// Kept out of the kernels: after the first rows there is rarely something to take.
    #[cold]
    #[inline(never)]
    fn take(&mut self, first: u32, scores: &[f32]) {
        for (row, &score) in (first..).zip(scores) {
            if score > self.threshold && self.excluded.binary_search(&row).is_err() {
                // −0 is 0 and shall not come after it.
                let score = score + 0.0;
                self.put(Neighbour { row, score });
            }
        }
    }

    fn put(&mut self, neighbour: Neighbour) {
        if self.heap.len() < self.k {
            self.heap.push(Farthest(neighbour));
        } else if let Some(mut farthest) = self.heap.peek_mut() {
            *farthest = Farthest(neighbour);
        }
        if self.heap.len() == self.k
            && let Some(farthest) = self.heap.peek()
        {
            self.threshold = farthest.0.score;
        }
    }

    fn into_list(self) -> Vec<Neighbour> {
        // Rising in the order of the heap is the nearest first.
        let sorted = self.heap.into_sorted_vec();
        sorted
            .into_iter()
            .map(|Farthest(neighbour)| neighbour)
            .collect()
    }
}

#[cfg(test)]
mod tests;
