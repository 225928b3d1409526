//! Dot-product attention over rows without padding, the operation on flex beside the same in Burn's
//! own operations on padded sequences: time of a forward and a backward pass, one thread, f32.
//!
//! `asked`: one query a row, heads of 32, rows of so many items that a batch has 10,000 in all.
//! `causal`: items that attend to those before them, one head of 64, 128 rows. `lengths` of `mixed`
//! are 1 to 50, as histories are: padding costs the plain form what it costs there.

use std::hint::black_box;

use burn::tensor::{Bool, Device, Tensor, TensorData, activation};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossfield_attention::dot_product_attention;
use crossfield_core::rng::{Purpose, rng};
use crossfield_core::{Ragged, Segments};
use rand::RngExt;

/// Items of all rows where one query a row asks.
const ITEMS: usize = 10_000;
/// Rows of self-attention.
const ROWS: usize = 128;

struct Asked {
    queries: Ragged,
    items: Ragged,
    causal: bool,
}

impl Asked {
    fn new(lengths: &[usize], dim: usize, causal: bool, device: &Device) -> Self {
        let mut rng = rng(1, Purpose::Synth, 0, 0);
        let mut tensor = |rows: usize| {
            let numbers = (0..rows * dim).map(|_| rng.random_range(-1.0..1.0f32));
            let numbers = TensorData::new(numbers.collect(), [rows, dim]);
            Tensor::<2>::from_data(numbers, device)
        };
        let mut offsets = vec![0];
        offsets.extend(lengths.iter().scan(0, |sum, &length| {
            *sum += length as u32;
            Some(*sum)
        }));
        let segments = Segments::new(offsets);
        let values = tensor(segments.items());
        let queries = if causal {
            (values.clone(), segments.clone())
        } else {
            (tensor(lengths.len()), Segments::of_one(lengths.len()))
        };
        Self {
            queries: Ragged {
                values: queries.0,
                segments: queries.1,
            },
            items: Ragged { values, segments },
            causal,
        }
    }

    /// Forward and backward pass of a form.
    fn step(&self, form: impl Fn(&Ragged, &Ragged, bool) -> Tensor<2>) {
        let leaf = |ragged: &Ragged| Ragged {
            values: ragged.values.clone().require_grad(),
            segments: ragged.segments.clone(),
        };
        let output = form(&leaf(&self.queries), &leaf(&self.items), self.causal);
        black_box(output.sum().backward());
    }
}

fn operation(queries: &Ragged, items: &Ragged, causal: bool) -> Tensor<2> {
    dot_product_attention(queries, items, items.values.clone(), 1, causal)
}

/// One head on padded sequences.
fn padded(queries: &Ragged, items: &Ragged, causal: bool) -> Tensor<2> {
    let ((asking, _), (keys, mask)) = (queries.padded(), items.padded());
    let ([rows, asked, dim], [_, time, _]) = (asking.dims(), keys.dims());
    let scores = asking.matmul(keys.clone().transpose());
    let scores = scores.div_scalar((dim as f64).sqrt());
    let real = mask.unsqueeze_dim::<3>(1).expand([rows, asked, time]);
    let real = if causal {
        let past = (0..asked * time).map(|at| at % time <= at / time);
        let past = TensorData::new(past.collect(), [1, asked, time]);
        let past = Tensor::<3, Bool>::from_data(past, &scores.device());
        real.bool_and(past.expand([rows, asked, time]))
    } else {
        real
    };
    let scores = scores.mask_fill(real.clone().bool_not(), f32::MIN / 2.0);
    let weights = activation::softmax(scores, 2) * real.float();
    queries.segments.unpad(weights.matmul(keys))
}

fn attention(c: &mut Criterion) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.expect("one thread");
    let device = Device::flex().autodiff();
    let mixed: Vec<usize> = (0..ROWS).map(|row| 1 + row * 37 % 50).collect();
    let mut cases: Vec<(&str, String, Asked)> = Vec::new();
    for length in [10, 50, 200, 1000, 10_000] {
        let asked = Asked::new(&vec![length; ITEMS / length], 32, false, &device);
        cases.push(("asked", length.to_string(), asked));
    }
    for length in [10, 50, 200] {
        let asked = Asked::new(&[length; ROWS], 64, true, &device);
        cases.push(("causal", length.to_string(), asked));
    }
    cases.push((
        "causal",
        "mixed".into(),
        Asked::new(&mixed, 64, true, &device),
    ));
    for (name, lengths, asked) in &cases {
        let mut group = c.benchmark_group(*name);
        group.throughput(Throughput::Elements(asked.items.segments.items() as u64));
        group.sample_size(10);
        group.bench_with_input(BenchmarkId::new("operation", lengths), asked, |b, asked| {
            pool.install(|| b.iter(|| asked.step(operation)));
        });
        group.bench_with_input(BenchmarkId::new("padded", lengths), asked, |b, asked| {
            pool.install(|| b.iter(|| asked.step(padded)));
        });
        group.finish();
    }
}

criterion_group!(benches, attention);
criterion_main!(benches);
