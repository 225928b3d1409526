//! Time of a training step against the size of the table: it must not grow with it. And that of a mix
//! against its parts alone: it must not be more than their sum.

use std::sync::Arc;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use crossfield_benches::{BATCH, DIM, Ids, Trainer, batches, fm};
use crossfield_core::{Batch, Component};
use crossfield_wide_deep::DeepConfig;

fn step(c: &mut Criterion) {
    for (name, ids) in [("zipf", Ids::Zipf), ("uniform", Ids::Uniform)] {
        let mut group = c.benchmark_group(format!("step/{name}"));
        group.throughput(Throughput::Elements(BATCH as u64));
        for rows in [100_000, 1_000_000, 10_000_000] {
            let mut trainer = Trainer::new(&fm(), rows);
            let batches = batches(rows, ids, 64);
            let mut next = batches.iter().cycle();
            group.bench_function(format!("{rows} rows"), |bench| {
                bench.iter(|| trainer.step(next.next().expect("a cycle has no end")));
            });
        }
        group.finish();
    }
}

fn mix(c: &mut Criterion) {
    const ROWS: usize = 1_000_000;
    let deep = DeepConfig {
        embedding_dim: DIM,
        hidden: vec![64, 32],
        ..DeepConfig::default()
    };
    let batches = batches(ROWS, Ids::Zipf, 64);
    let mut group = c.benchmark_group("step/mix");
    group.throughput(Throughput::Elements(BATCH as u64));
    time(&mut group, "fm", Trainer::new(&fm(), ROWS), &batches);
    time(&mut group, "deep", Trainer::new(&deep, ROWS), &batches);
    time(
        &mut group,
        "fm + deep",
        Trainer::new(&(fm(), deep), ROWS),
        &batches,
    );
    group.finish();
}

fn time<C: Component>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    mut trainer: Trainer<C>,
    batches: &[Arc<Batch>],
) {
    let mut next = batches.iter().cycle();
    group.bench_function(name, |bench| {
        bench.iter(|| trainer.step(next.next().expect("a cycle has no end")));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = step, mix
}
criterion_main!(benches);
