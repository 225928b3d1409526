use super::*;
use crossfield_core::rng::{Purpose, rng};
use rand::RngExt;

/// Vectors of small integers: products are exact in any order, and many are equal.
fn integers(rows: usize, dim: usize, seed: u64) -> Vectors {
    let mut rng = rng(seed, Purpose::Synth, 0, 0);
    let draws = (0..rows * dim).map(|_| rng.random_range(-3i8..=3).into());
    Vectors::from_flat(&draws.collect::<Vec<f32>>(), dim).unwrap()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn naive(
    query: &[f32],
    rows: &Vectors,
    bias: &[f32],
    k: usize,
    excluded: &[u32],
) -> Vec<Neighbour> {
    let mut all: Vec<Neighbour> = (0..rows.rows() as u32)
        .filter(|row| !excluded.contains(row))
        .map(|row| Neighbour {
            row,
            score: dot(query, rows.row(row)) + bias[row as usize],
        })
        .collect();
    all.sort_by(Neighbour::nearer);
    all.truncate(k);
    all
}

/// A search on each instruction set.
fn searches<'a>(rows: &'a Vectors, measure: Measure) -> impl Iterator<Item = Exact<'a>> {
    Isa::available().into_iter().map(move |isa| Exact {
        isa,
        ..Exact::new(rows, measure).unwrap()
    })
}

#[test]
fn one_query_finds_what_a_sort_of_all_scores_finds() {
    // Rows that fill vectors and such that do not, counts that are no multiple of any block.
    for (rows, dim) in [(1, 1), (5, 3), (131, 8), (70, 16), (97, 17), (33, 64)] {
        let items = integers(rows, dim, 1);
        let bias: Vec<f32> = (0..rows).map(|row| (row % 5) as f32).collect();
        let query = integers(1, dim, 2);
        let excluded: Vec<u32> = (0..rows as u32).filter(|row| row % 3 == 1).collect();
        for search in searches(&items, Measure::Dot) {
            let biased = search.with_bias(&bias).unwrap();
            for k in [0, 1, 4, rows + 3] {
                let found = biased.nearest(query.row(0), k, &excluded).unwrap();
                assert_eq!(found, naive(query.row(0), &items, &bias, k, &excluded));
            }
        }
    }
}

#[test]
fn many_queries_find_what_a_sort_of_all_scores_finds() {
    for (rows, dim, queries) in [(1, 1, 1), (5, 3, 2), (131, 8, 70), (97, 17, 5)] {
        let items = integers(rows, dim, 1);
        let bias: Vec<f32> = (0..rows).map(|row| (row % 5) as f32).collect();
        let users = integers(queries, dim, 2);
        let seen: Vec<Vec<u32>> = (0..queries as u32)
            .map(|user| {
                (0..rows as u32)
                    .filter(|row| (row + user) % 4 == 1)
                    .collect()
            })
            .collect();
        let wanted: Vec<u32> = (0..queries as u32).rev().collect();
        for search in searches(&items, Measure::Dot) {
            let biased = search.with_bias(&bias).unwrap();
            let excluded = |user: u32| seen[user as usize].as_slice();
            let found = biased
                .nearest_of_each(&users, &wanted, 4, &excluded)
                .unwrap();
            assert_eq!(found.len(), queries);
            for (&user, found) in wanted.iter().zip(found) {
                let excluded = excluded(user);
                assert_eq!(found, naive(users.row(user), &items, &bias, 4, excluded));
            }
        }
    }
}

#[test]
fn cosine_is_the_product_of_directions_whatever_the_lengths() {
    let items = Vectors::from_flat(&[30.0, 40.0, 0.0, 0.0, -6.0, -8.0, 1e-30, 0.0], 2).unwrap();
    let queries = Vectors::from_flat(&[3e20, 4e20], 2).unwrap();
    for search in searches(&items, Measure::Cosine) {
        let one = search.nearest(queries.row(0), 4, &[]).unwrap();
        let each = search.nearest_of_each(&queries, &[0], 4, &|_| &[]).unwrap();
        for found in [&one, &each[0]] {
            let rows: Vec<u32> = found.iter().map(|found| found.row).collect();
            assert_eq!(rows, [0, 3, 1, 2]);
            for (found, expected) in found.iter().zip([1.0, 0.6, 0.0, -1.0]) {
                // Three roundings to f32.
                assert!((found.score - expected).abs() < 2e-7, "{found:?}");
            }
        }
    }
}

#[test]
fn a_query_of_zeros_is_as_near_to_all_rows() {
    let items = integers(9, 4, 1);
    for measure in [Measure::Dot, Measure::Cosine] {
        let found = Exact::new(&items, measure)
            .unwrap()
            .nearest(&[0.0; 4], 3, &[])
            .unwrap();
        let expected = [0, 1, 2].map(|row| Neighbour { row, score: 0.0 });
        assert_eq!(found, expected);
    }
}

#[test]
fn scores_that_are_no_numbers_are_in_no_list() {
    let large = f32::MAX;
    let items = Vectors::from_flat(&[large, -large, 1.0, 1.0, -large, -large], 2).unwrap();
    for search in searches(&items, Measure::Dot) {
        // ∞ − ∞, 2 large, −∞.
        let found = search.nearest(&[large / 2.0, large / 2.0], 3, &[]).unwrap();
        assert_eq!(
            found,
            [Neighbour {
                row: 1,
                score: large
            }]
        );
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let mut rng = rng(3, Purpose::Synth, 0, 0);
    let mut draw = |rows: usize| {
        let draws = (0..rows * 20).map(|_| rng.random::<f32>() - 0.5);
        Vectors::from_flat(&draws.collect::<Vec<f32>>(), 20).unwrap()
    };
    let (items, users) = (draw(300), draw(200));
    let search = Exact::new(&items, Measure::Cosine).unwrap();
    let wanted: Vec<u32> = (0..200).collect();
    let bits = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let found = pool
            .install(|| search.nearest_of_each(&users, &wanted, 10, &|_| &[]))
            .unwrap();
        let found = found.into_iter().flatten();
        found
            .map(|found| (found.row, found.score.to_bits()))
            .collect::<Vec<_>>()
    };
    assert_eq!(bits(1), bits(3));
}

#[test]
fn what_does_not_fit_is_refused() {
    let items = integers(3, 4, 1);
    let search = || Exact::new(&items, Measure::Dot).unwrap();
    let nearest = |query: &[f32], excluded: &[u32]| {
        search()
            .nearest(query, 1, excluded)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        nearest(&[1.0], &[]),
        "numbers of a query: got 1, expected 4"
    );
    assert_eq!(
        nearest(&[1.0, f32::INFINITY, 0.0, 0.0], &[]),
        "vector 0 holds inf, expected finite numbers"
    );
    assert_eq!(
        nearest(&[1.0; 4], &[2, 1]),
        "the rows that query 0 leaves out: expected rising numbers"
    );
    let error = search().with_bias(&[0.0; 2]).unwrap_err();
    assert_eq!(error.to_string(), "biases: got 2, expected 3");
    let error = search()
        .nearest_of_each(&items, &[3], 1, &|_| &[])
        .unwrap_err();
    assert_eq!(error.to_string(), "query 3: expected a row below 3");
}

#[test]
fn the_scores_of_some_rows_are_those_of_the_whole_search() {
    let mut rng = rng(5, Purpose::Synth, 0, 0);
    let draws = (0..9 * 20).map(|_| rng.random::<f32>() - 0.5);
    let items = Vectors::from_flat(&draws.collect::<Vec<f32>>(), 20).unwrap();
    let bias = [0.1; 9];
    for search in searches(&items, Measure::Cosine) {
        let search = search.with_bias(&bias).unwrap();
        // Eight rows are compared four at a time, the last one alone.
        let all = search.nearest(items.row(0), 9, &[]).unwrap();
        let picked: Vec<u32> = all.iter().map(|found| found.row).collect();
        assert_eq!(search.scores(items.row(0), &picked).unwrap(), all);
    }
}
