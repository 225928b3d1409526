//! Exact neighbours among 1,000,000 vectors of 64: one query at a time, against the time to sum the
//! same 256 MB, and many queries at a time.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossfield_core::rng::{Purpose, rng};
use crossfield_embedding::{Exact, Measure, Vectors};
use crossfield_simd::{Isa, Kernel, Lanes};
use rand::RngExt;

const ROWS: usize = 1_000_000;
const DIM: usize = 64;
const QUERIES: usize = 256;
const K: usize = 10;
/// Rounds in each of which both sides of the ratio are timed once.
const ROUNDS: usize = 31;

/// The sum of all numbers, in eight sums beside each other: no reader of the memory is faster.
struct Sum<'a>(&'a [f32]);

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        let mut at = self.0.as_ptr();
        // SAFETY: the caller vouches for the instruction set; a chunk is eight vectors long.
        unsafe {
            let mut sums = [L::splat(0.0); 8];
            for _ in 0..self.0.len() / (8 * L::N) {
                for sum in &mut sums {
                    *sum = sum.add(L::load(at));
                    at = at.add(L::N);
                }
            }
            let mut total = 0.0;
            for sum in sums {
                total += sum.sum();
            }
            total
        }
    }
}

fn draw(rows: usize, part: u64) -> Vectors {
    let mut rng = rng(1, Purpose::Synth, part, 0);
    let draws = (0..rows * DIM).map(|_| rng.random::<f32>() - 0.5);
    Vectors::from_flat(&draws.collect::<Vec<f32>>(), DIM).expect("finite numbers")
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn neighbours(c: &mut Criterion) {
    let (rows, queries) = (draw(ROWS, 0), draw(QUERIES, 1));
    let isa = Isa::detect().expect("no environment variable");
    let exact = Exact::new(&rows, Measure::Dot).expect("no environment variable");
    let sum = || isa.run(Sum(black_box(rows.padded())));
    let one = |query: u32| {
        let query = queries.row(query % QUERIES as u32);
        exact.nearest(query, K, &[]).expect("a query of that dim")
    };

    // In turn, so that whatever else the machine does falls on both.
    let (mut sums, mut scans) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let begin = Instant::now();
        black_box(sum());
        sums.push(begin.elapsed());
        let begin = Instant::now();
        black_box(one(round as u32));
        scans.push(begin.elapsed());
    }
    let least = |times: &[Duration]| {
        let least = times.iter().min().map(Duration::as_secs_f64);
        least.unwrap_or_default() * 1e3
    };
    let (least_sum, least_scan) = (least(&sums), least(&scans));
    let (sum_time, scan_time) = (median(sums), median(scans));
    println!(
        "{}, in turn, medians of {ROUNDS} rounds: sum {sum_time:.1} ms, top {K} {scan_time:.1} ms, \
         ratio {:.2}; least: sum {least_sum:.1} ms, top {K} {least_scan:.1} ms, ratio {:.2}",
        isa.name(),
        scan_time / sum_time,
        least_scan / least_sum,
    );

    let mut group = c.benchmark_group("1,000,000 x 64");
    group.throughput(Throughput::Elements(1));
    group.bench_function("sum", |bench| bench.iter(sum));
    let mut query = 0;
    group.bench_function("top 10, one query", |bench| {
        bench.iter(|| {
            query += 1;
            one(query)
        });
    });
    let wanted: Vec<u32> = (0..QUERIES as u32).collect();
    group.throughput(Throughput::Elements(QUERIES as u64));
    group.bench_function("top 10, 256 queries", |bench| {
        bench.iter(|| exact.nearest_of_each(&queries, &wanted, K, &|_| &[]));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = neighbours
}
criterion_main!(benches);
