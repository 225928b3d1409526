//! Approximate neighbours among vectors from 1,000 Gaussian clusters: recall and rate against exact
//! search, the time to build the graph and its memory.
//!
//! `cargo bench --workspace --profile dev --bench ann -- [rows] [ef_construction] [ef_search]
//! [dot] [serial]`

use std::hint::black_box;
use std::time::{Duration, Instant};

use crossfield_core::rng::{Purpose, rng};
use crossfield_embedding::{Approximate, Exact, HnswConfig, Measure, Vectors};
use crossfield_train::{bytes, peak_memory};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

const DIM: usize = 64;
const CLUSTERS: usize = 1000;
/// Standard deviation within a cluster; that of the centres is 1.
const SPREAD: f32 = 0.5;
const QUERIES: usize = 500;
const K: usize = 10;

fn draw(rows: usize, part: u64) -> Vectors {
    let mut centres = rng(1, Purpose::Synth, 0, 0);
    let centres: Vec<f32> = (0..CLUSTERS * DIM)
        .map(|_| StandardNormal.sample(&mut centres))
        .collect();
    let mut rng = rng(1, Purpose::Synth, part, 0);
    let mut values = Vec::with_capacity(rows * DIM);
    for _ in 0..rows {
        let centre = &centres[rng.random_range(0..CLUSTERS) * DIM..][..DIM];
        for centre in centre {
            let apart: f32 = StandardNormal.sample(&mut rng);
            values.push(centre + SPREAD * apart);
        }
    }
    Vectors::from_flat(&values, DIM).expect("finite numbers")
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let mut numbers = args.iter().filter_map(|arg| arg.parse::<usize>().ok());
    let rows = numbers.next().unwrap_or(1_000_000);
    let defaults = HnswConfig::default();
    let config = HnswConfig {
        ef_construction: numbers.next().unwrap_or(defaults.ef_construction),
        ef_search: numbers.next().unwrap_or(defaults.ef_search),
        seed: defaults.seed,
        parallel: !has("serial"),
    };
    let measure = if has("dot") {
        Measure::Dot
    } else {
        Measure::Cosine
    };
    let (vectors, queries) = (draw(rows, 1), draw(QUERIES, 2));
    let query = |nth: usize| queries.row(nth as u32);

    let exact = Exact::new(&vectors, measure).expect("no environment variable");
    let all: Vec<u32> = (0..QUERIES as u32).collect();
    let expected = exact.nearest_of_each(&queries, &all, K, &|_| &[]);
    let expected = expected.expect("queries of that dim");
    println!("{rows} x {DIM} from {CLUSTERS} clusters, {measure:?}, {QUERIES} queries");

    let before = peak_memory();
    let begin = Instant::now();
    let index = Approximate::new(&vectors, measure, config).expect("legal options");
    let build = begin.elapsed().as_secs_f64();
    let memory = peak_memory()
        .zip(before)
        .map(|(after, before)| bytes(after - before));
    println!(
        "{config:?}: built in {build:.0} s on {} threads, {} of memory beside the vectors",
        if config.parallel {
            rayon::current_num_threads()
        } else {
            1
        },
        memory.unwrap_or_default(),
    );
    let (mut exact_times, mut times, mut hits) = (Vec::new(), Vec::new(), 0);
    for (nth, expected) in expected.iter().enumerate() {
        // In turn, so that whatever else the machine does falls on both.
        if nth % 10 == 0 {
            let begin = Instant::now();
            black_box(
                exact
                    .nearest(query(nth), K, &[])
                    .expect("a query of that dim"),
            );
            exact_times.push(begin.elapsed());
        }
        let begin = Instant::now();
        let found = index.nearest(query(nth), K).expect("a query of that dim");
        times.push(begin.elapsed());
        let is_found = |row| found.iter().any(|found| found.row == row);
        hits += expected
            .iter()
            .filter(|expected| is_found(expected.row))
            .count();
    }
    let (exact_time, time) = (median(exact_times), median(times));
    println!(
        "recall@{K} {:.4}; medians of a query: {time:.3} ms, exact {exact_time:.2} ms, \
             {:.0} x the exact rate",
        hits as f64 / (QUERIES * K) as f64,
        exact_time / time
    );
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}
