//! Time of a training step against the size of the table: it must not grow with it.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossfield_benches::{BATCH, Ids, Trainer, batches};

fn step(c: &mut Criterion) {
    for (name, ids) in [("zipf", Ids::Zipf), ("uniform", Ids::Uniform)] {
        let mut group = c.benchmark_group(format!("step/{name}"));
        group.throughput(Throughput::Elements(BATCH as u64));
        for rows in [100_000, 1_000_000, 10_000_000] {
            let mut trainer = Trainer::new(rows);
            let batches = batches(rows, ids, 64);
            let mut next = batches.iter().cycle();
            group.bench_function(format!("{rows} rows"), |bench| {
                bench.iter(|| trainer.step(next.next().expect("a cycle has no end")));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = step
}
criterion_main!(benches);
