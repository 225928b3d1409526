//! Approximate nearest neighbours: a graph of the vectors instead of a walk over all of them.

use std::sync::{Mutex, PoisonError};

use crossfield_simd::{Isa, Kernel, Lanes};
use instant_distance::{Builder, Hnsw, Point, Search};

use crate::vectors::{normalize, width};
use crate::{Error, Exact, Measure, Neighbour, Vectors};

/// How a graph is built and walked over.
///
/// ```
/// use crossfield_embedding::HnswConfig;
///
/// let config = HnswConfig {
///     ef_search: 200,
///     ..HnswConfig::default()
/// };
/// assert_eq!(config.ef_construction, 100);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HnswConfig {
    /// Candidates among which a vector's neighbours in the graph are chosen (efConstruction).
    /// Default: 100.
    pub ef_construction: usize,
    /// Candidates that a search keeps in mind: the most that it can find, and the more, the fewer
    /// are missed and the longer it takes. Default: 100.
    pub ef_search: usize,
    /// Of the layers that vectors are put into. Default: 1.
    pub seed: u64,
    /// Whether all threads of the pool build. The graph then depends on which of them is first, and
    /// so do the neighbours that are missed. Default: false, for the same graph each time.
    pub parallel: bool,
}

impl Default for HnswConfig {
    fn default() -> Self {
        Self {
            ef_construction: 100,
            ef_search: 100,
            seed: 1,
            parallel: false,
        }
    }
}

/// Finds nearly all of the nearest rows by walking over a hierarchical navigable small-world graph.
///
/// By cosine the graph is of the vectors at length 1, of which the nearest in space are the most
/// alike. By dot product each vector `x` of a set whose longest has length `m` gets one number more,
/// `[x / m, √(1 − |x / m|²)]`, and a query a 0: all are of length 1 then, and the nearest in
/// space has the largest product.
///
/// Scores are computed anew from the vectors: to the bit those of [`Exact::nearest`]. Which
/// neighbours are found is random, but the same each time, unless
/// [`parallel`](HnswConfig::parallel) is set.
///
/// # Source
/// The graph: Malkov, Yashunin, *Efficient and robust approximate nearest neighbor search using
/// Hierarchical Navigable Small World graphs* (2018), with neighbours chosen by algorithm 4 and M =
/// 32, by the crate `instant-distance`. The number more: Bachrach et al., *Speeding up the Xbox recommender
/// system using a Euclidean transformation for inner-product spaces* (2014), theorem 1.
///
/// ```
/// use crossfield_embedding::{Approximate, HnswConfig, Measure, Vectors};
///
/// let items = Vectors::from_flat(&[1.0, 0.0, 2.0, 0.0, 0.0, 3.0], 2)?;
/// let index = Approximate::new(&items, Measure::Dot, HnswConfig::default())?;
/// let found = index.nearest(&[1.0, 0.25], 1)?;
/// assert_eq!((found[0].row, found[0].score), (1, 2.0));
/// # Ok::<(), crossfield_embedding::Error>(())
/// ```
pub struct Approximate<'a> {
    exact: Exact<'a>,
    measure: Measure,
    isa: Isa,
    ef_search: usize,
    graph: Hnsw<Place>,
    /// The row of each point of the graph.
    rows: Vec<u32>,
    /// What searches that are over have left, for the next ones.
    searches: Mutex<Vec<Search>>,
}

impl std::fmt::Debug for Approximate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Approximate")
            .field("exact", &self.exact)
            .field("points", &self.rows.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Approximate<'a> {
    /// Builds the graph of these rows.
    ///
    /// # Errors
    /// [`Error::Length`] for an option of 0, [`Error::NoMemory`], [`Error::Isa`],
    /// [`Error::Threads`].
    pub fn new(rows: &'a Vectors, measure: Measure, config: HnswConfig) -> Result<Self, Error> {
        check("ef_construction", config.ef_construction, 1, usize::MAX)?;
        check("ef_search", config.ef_search, 1, usize::MAX)?;
        let (isa, count) = (Isa::detect()?, rows.rows());
        let longest = match measure {
            Measure::Cosine => 0.0,
            Measure::Dot => (0..count as u32)
                .map(|row| length(rows.row(row)))
                .fold(0.0, f64::max),
        };
        let places = (0..count as u32).map(|row| {
            let mut values = point(measure, rows.dim());
            place(measure, rows.row(row), longest, &mut values);
            Place { values, isa }
        });
        let places: Vec<Place> = places.collect();
        let build = || {
            let builder = Builder::default().seed(config.seed);
            let builder = builder.ef_construction(config.ef_construction);
            builder.ef_search(config.ef_search).build_hnsw(places)
        };
        let (graph, ids) = if config.parallel {
            build()
        } else {
            let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build();
            alone.map_err(Error::Threads)?.install(build)
        };
        let mut row_of = vec![0; count];
        for (row, id) in (0..).zip(ids) {
            row_of[id.into_inner() as usize] = row;
        }
        Ok(Self {
            exact: Exact::new(rows, measure)?,
            measure,
            isa,
            ef_search: config.ef_search,
            graph,
            rows: row_of,
            searches: Mutex::default(),
        })
    }

    /// Nearly the `k` nearest rows of a vector, out of the
    /// [`ef_search`](HnswConfig::ef_search) that the walk keeps in mind.
    ///
    /// # Shapes
    /// - query: `[dim]`
    ///
    /// # Errors
    /// [`Error::Length`] for the query or if `k` is more than `ef_search`,
    /// [`Error::NonFiniteVector`] in the query.
    pub fn nearest(&self, query: &[f32], k: usize) -> Result<Vec<Neighbour>, Error> {
        // Checks the query before it is compared with anything.
        self.exact.scores(query, &[])?;
        check("neighbours of a graph", k, 0, self.ef_search)?;
        let mut values = point(self.measure, query.len());
        // A query may have any length: its own number more is 0.
        normalize(query, &mut values[..query.len()]);
        let query_place = Place {
            values,
            isa: self.isa,
        };
        let free = || self.searches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut search = free().pop().unwrap_or_default();
        let found = self.graph.search(&query_place, &mut search);
        let rows = found.map(|found| self.rows[found.pid.into_inner() as usize]);
        let rows: Vec<u32> = rows.collect();
        free().push(search);
        let mut neighbours = self.exact.scores(query, &rows)?;
        neighbours.sort_unstable_by(Neighbour::nearer);
        neighbours.truncate(k);
        Ok(neighbours)
    }
}

fn check(what: &'static str, got: usize, least: usize, most: usize) -> Result<(), Error> {
    if (least..=most).contains(&got) {
        return Ok(());
    }
    let expected = match most {
        usize::MAX => format!("{least} or more"),
        most => format!("{least} to {most}"),
    };
    Err(Error::Length {
        what,
        got,
        expected,
    })
}

fn length(vector: &[f32]) -> f64 {
    let square: f64 = vector.iter().map(|&value| f64::from(value).powi(2)).sum();
    square.sqrt()
}

/// Zeros for a point of the graph.
fn point(measure: Measure, dim: usize) -> Vec<f32> {
    match measure {
        Measure::Cosine => vec![0.0; width(dim)],
        Measure::Dot => vec![0.0; width(dim + 1)],
    }
}

/// Where a vector lies in the graph's space.
fn place(measure: Measure, vector: &[f32], longest: f64, point: &mut [f32]) {
    let dim = vector.len();
    match measure {
        Measure::Cosine => normalize(vector, &mut point[..dim]),
        Measure::Dot => {
            let scale = if longest > 0.0 { 1.0 / longest } else { 0.0 };
            for (to, &from) in point.iter_mut().zip(vector) {
                *to = (f64::from(from) * scale) as f32;
            }
            let rest = 1.0 - (length(vector) * scale).powi(2);
            point[dim] = rest.max(0.0).sqrt() as f32;
        }
    }
}

/// A point of the graph.
#[derive(Clone, Debug)]
struct Place {
    values: Vec<f32>,
    isa: Isa,
}

impl Point for Place {
    /// `|a − b|²`.
    fn distance(&self, other: &Self) -> f32 {
        let between = Between {
            a: &self.values,
            b: &other.values,
        };
        if self.values.len().is_multiple_of(16) {
            self.isa.run(between)
        } else {
            self.isa.run_eight(between)
        }
    }
}

struct Between<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl Kernel for Between<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        let Self { a, b } = self;
        assert!(a.len() == b.len() && a.len().is_multiple_of(L::N));
        // SAFETY: the caller vouches for the instruction set; both are whole vectors long.
        unsafe {
            let mut sum = L::splat(0.0);
            let mut at = 0;
            while at < a.len() {
                let apart = L::load(a.as_ptr().add(at)).sub(L::load(b.as_ptr().add(at)));
                sum = apart.mul_add(apart, sum);
                at += L::N;
            }
            sum.sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfield_core::rng::{Purpose, rng};
    use rand::RngExt;
    use rand_distr::{Distribution, StandardNormal};

    const DIM: usize = 12;

    /// Vectors around twenty centres, of lengths from a half to two.
    fn clusters(rows: usize, part: u64) -> Vectors {
        let mut centres = rng(1, Purpose::Synth, 0, 0);
        let mut normal = || StandardNormal.sample(&mut centres);
        let centres: Vec<f32> = (0..20 * DIM).map(|_| normal()).collect();
        let mut rng = rng(1, Purpose::Synth, part, 0);
        let mut values = Vec::new();
        for _ in 0..rows {
            let centre = &centres[rng.random_range(0..20) * DIM..][..DIM];
            let length: f32 = rng.random_range(0.5..2.0);
            for centre in centre {
                let apart: f32 = StandardNormal.sample(&mut rng);
                values.push(length * (centre + 0.5 * apart));
            }
        }
        Vectors::from_flat(&values, DIM).unwrap()
    }

    #[test]
    fn nearly_all_neighbours_are_found_with_their_exact_scores() {
        let (rows, queries) = (clusters(3000, 1), clusters(50, 2));
        for measure in [Measure::Cosine, Measure::Dot] {
            let exact = Exact::new(&rows, measure).unwrap();
            for parallel in [false, true] {
                let config = HnswConfig {
                    parallel,
                    ..HnswConfig::default()
                };
                let index = Approximate::new(&rows, measure, config).unwrap();
                let mut found = 0;
                for query in 0..50 {
                    let query = queries.row(query);
                    let expected = exact.nearest(query, 10, &[]).unwrap();
                    let got = index.nearest(query, 10).unwrap();
                    assert_eq!(got.len(), 10);
                    found += got.iter().filter(|got| expected.contains(got)).count();
                }
                assert!(
                    found >= 475,
                    "{measure:?}, parallel {parallel}: {found} of 500"
                );
            }
        }
    }

    #[test]
    fn a_graph_that_one_thread_builds_is_the_same_each_time() {
        let (rows, queries) = (clusters(1000, 1), clusters(20, 2));
        let config = HnswConfig {
            ef_construction: 8,
            ef_search: 10,
            ..HnswConfig::default()
        };
        // A graph so sparse that it misses some.
        let found = || {
            let index = Approximate::new(&rows, Measure::Cosine, config).unwrap();
            let of = |query| index.nearest(queries.row(query), 10).unwrap();
            (0..20).flat_map(of).collect::<Vec<_>>()
        };
        assert_eq!(found(), found());
    }

    #[test]
    fn few_rows_rows_of_zeros_and_no_rows_are_searched_too() {
        for measure in [Measure::Cosine, Measure::Dot] {
            for rows in 0..3 {
                let vectors = Vectors::from_flat(&vec![0.0; 3 * rows], 3).unwrap();
                let index = Approximate::new(&vectors, measure, HnswConfig::default()).unwrap();
                let found = index.nearest(&[1.0, 2.0, 0.0], 5).unwrap();
                assert!(found.len() <= rows && found.iter().all(|found| found.score == 0.0));
                assert_eq!(found.is_empty(), rows == 0, "{found:?}");
            }
        }
    }

    #[test]
    fn distances_are_those_of_plain_code_on_each_instruction_set() {
        let draw = |seed, len| {
            let mut rng = rng(seed, Purpose::Synth, 0, 0);
            (0..len)
                .map(|_| rng.random_range(-3i8..=3).into())
                .collect::<Vec<f32>>()
        };
        for len in [8, 16, 80] {
            let (a, b) = (draw(1, len), draw(2, len));
            let expected: f32 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum();
            for isa in Isa::available() {
                let [a, b] = [&a, &b].map(|values| Place {
                    values: values.clone(),
                    isa,
                });
                assert_eq!(a.distance(&b), expected);
            }
        }
    }

    #[test]
    fn what_a_graph_cannot_give_is_refused() {
        let vectors = clusters(1, 1);
        let config = HnswConfig {
            ef_search: 0,
            ..HnswConfig::default()
        };
        let error = Approximate::new(&vectors, Measure::Dot, config).unwrap_err();
        assert_eq!(error.to_string(), "ef_search: got 0, expected 1 or more");
        let index = Approximate::new(&vectors, Measure::Dot, HnswConfig::default()).unwrap();
        let error = index.nearest(vectors.row(0), 101).unwrap_err();
        assert_eq!(
            error.to_string(),
            "neighbours of a graph: got 101, expected 0 to 100"
        );
        assert!(matches!(
            index.nearest(&[1.0], 1),
            Err(Error::Length { .. })
        ));
    }
}
