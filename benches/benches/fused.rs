//! The fused executor row by row: training and scoring of FFM and FM on a log of 39 fields whose
//! ids are Zipf over tables that no cache holds, and the time of a single row.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossfield_core::rng::{Purpose, rng};
use crossfield_core::{Examples, Initializer, Loss, TableConfig, TableField};
use crossfield_embedding::{
    EmbeddingCollection, Precision, RowOptimizer, RowOptimizerKind, TablePlan,
};
use crossfield_ffm::FusedFfm;
use crossfield_fm::FusedFm;
use crossfield_fused::{Fused, FusedComponent, Isa, Options, RowData, Turn};
use rand::RngExt;
use rand_distr::{Distribution, Zipf};

const FIELDS: usize = 39;
const ROWS: usize = 20_000;
/// Ids a field: 1.2 million in all.
const IDS: u32 = 30_000;

struct Log {
    fields: Vec<usize>,
    indices: Vec<u32>,
    labels: Vec<f32>,
    order: Vec<u32>,
}

impl Log {
    fn new() -> Self {
        let zipf = Zipf::new(IDS as f32, 1.05).expect("a legal exponent");
        let mut rng = rng(1, Purpose::Synth, 0, 0);
        let indices = (0..ROWS * FIELDS).map(|at| {
            let id = zipf.sample(&mut rng) as u32 - 1;
            // A prime spreads the frequent ones over the field's rows.
            (at % FIELDS) as u32 * IDS + id * 7919 % IDS
        });
        let indices = indices.collect();
        Self {
            fields: (0..FIELDS).collect(),
            indices,
            labels: (0..ROWS).map(|_| f32::from(rng.random::<bool>())).collect(),
            order: (0..ROWS as u32).collect(),
        }
    }

    fn examples(&self) -> Examples<'_> {
        Examples {
            rows: ROWS,
            one_hot_fields: &self.fields,
            one_hot: &self.indices,
            lists: Vec::new(),
            labels: &self.labels,
            weights: None,
        }
    }
}

fn tables(dim: usize, kind: RowOptimizerKind, precision: Precision) -> EmbeddingCollection {
    let table = |name: &str, dim, initializer| TableConfig {
        name: name.into(),
        rows: FIELDS * IDS as usize,
        dim,
        fields: (0..FIELDS).collect(),
        initializer,
        oov_row: None,
    };
    let uniform = Initializer::Uniform {
        low: -0.05,
        high: 0.05,
    };
    let optimizer = RowOptimizer {
        kind,
        lr: 0.01,
        initial_accumulator: 1.0,
        ..RowOptimizer::default()
    };
    let plans = [
        TablePlan::new(
            table("linear", 1, Initializer::Zeros),
            RowOptimizer::default(),
        ),
        TablePlan {
            precision,
            ..TablePlan::new(table("vectors", dim, uniform), optimizer)
        },
    ];
    EmbeddingCollection::new(&plans, 1).expect("legal tables")
}

fn fused(component: Box<dyn FusedComponent>, fast: bool) -> Fused {
    let isa = Isa::detect().expect("no environment variable");
    let options = Options { isa, fast };
    Fused::new(vec![component], Loss::Logistic, None, options).expect("one component")
}

fn lookups(table: &str) -> Vec<TableField> {
    let at = |field| TableField {
        table: table.into(),
        field,
    };
    (0..FIELDS).map(at).collect()
}

fn passes(c: &mut Criterion) {
    let log = Log::new();
    let data = RowData::new(log.examples());
    let ffm = || -> Box<dyn FusedComponent> {
        Box::new(FusedFfm::new(lookups("vectors"), Vec::new(), 4, true, true))
    };
    let fm = || -> Box<dyn FusedComponent> {
        Box::new(FusedFm::new(lookups("vectors"), lookups("linear")))
    };
    let adagrad = RowOptimizerKind::Adagrad;
    let rowwise = RowOptimizerKind::RowwiseAdagrad;
    let (full, half) = (Precision::F32, Precision::Bf16);
    let cases = [
        (
            "ffm k=4, AdaGrad",
            ffm(),
            FIELDS * 4,
            adagrad,
            full,
            false,
            1,
        ),
        (
            "ffm k=4, AdaGrad, fast",
            ffm(),
            FIELDS * 4,
            adagrad,
            full,
            true,
            1,
        ),
        (
            "ffm k=4, AdaGrad, two threads",
            ffm(),
            FIELDS * 4,
            adagrad,
            full,
            false,
            2,
        ),
        (
            "ffm k=4, row-wise AdaGrad",
            ffm(),
            FIELDS * 4,
            rowwise,
            full,
            false,
            1,
        ),
        (
            "ffm k=4, row-wise AdaGrad, bf16",
            ffm(),
            FIELDS * 4,
            rowwise,
            half,
            false,
            1,
        ),
        (
            "fm k=8 with linear terms, AdaGrad",
            fm(),
            8,
            adagrad,
            full,
            false,
            1,
        ),
    ];
    for (name, component, dim, kind, precision, fast, threads) in cases {
        let mut tables = tables(dim, kind, precision);
        let mut fused = fused(component, fast);
        let rates = vec![1.0; ROWS];
        let mut group = c.benchmark_group("fused");
        group.throughput(Throughput::Elements(ROWS as u64));
        let mut step = 0;
        group.bench_function(format!("{name}: train"), |bench| {
            bench.iter(|| {
                let turn = Turn {
                    rows: &log.order,
                    rates: &rates,
                    seed: 1,
                    first_step: step,
                    threads,
                };
                step += ROWS as u64;
                fused
                    .train(&mut tables, &data, turn)
                    .expect("finite scores")
            });
        });
        if threads == 1 && !fast {
            group.bench_function(format!("{name}: score"), |bench| {
                bench.iter(|| {
                    fused
                        .score(&tables, &data, |_| ())
                        .expect("they fit together")
                });
            });
            // A single row, everything made ready anew, as a request would.
            group.throughput(Throughput::Elements(1));
            group.bench_function(format!("{name}: score one row"), |bench| {
                let mut row = 0;
                bench.iter(|| {
                    row = (row + 1) % ROWS;
                    let one = Examples {
                        rows: 1,
                        one_hot: &log.indices[row * FIELDS..][..FIELDS],
                        labels: &log.labels[row..][..1],
                        ..log.examples()
                    };
                    let one = RowData::new(one);
                    fused
                        .score(&tables, &one, |_| ())
                        .expect("they fit together");
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = passes
}
criterion_main!(benches);
