//! The pairs of a field-aware factorization machine, forward and backward: the operation against
//! Burn's own.

use burn::tensor::{Device, Tensor, TensorData};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossfield_benches::{BATCH, FIELDS};
use crossfield_core::rng::{Purpose, rng};
use rand::RngExt;

/// Entries of a vector.
const DIM: usize = 4;

type Form = fn(Tensor<4>) -> Tensor<2>;

fn interaction(c: &mut Criterion) {
    let mut rng = rng(1, Purpose::Synth, 0, 0);
    let shape = [BATCH, FIELDS, FIELDS, DIM];
    let numbers = (0..shape.iter().product()).map(|_| rng.random::<f32>() - 0.5);
    let v = TensorData::new(numbers.collect::<Vec<f32>>(), shape);
    let v = Tensor::<4>::from_data(v, &Device::flex());
    let mut group = c.benchmark_group(format!("ffm/interaction {BATCH} × {FIELDS}² × {DIM}"));
    group.throughput(Throughput::Elements(BATCH as u64));
    let forms = [
        ("operation", crossfield_ffm::interaction as Form),
        ("plain", crossfield_ffm::interaction_plain),
    ];
    for (name, form) in forms {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let leaf = v.clone().autodiff().require_grad();
                // As after a gather, only the graph holds what the form takes.
                let v = leaf.clone().mul_scalar(2.0);
                let mut gradients = form(v).square().sum().backward();
                leaf.grad_remove(&mut gradients)
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = interaction
}
criterion_main!(benches);
