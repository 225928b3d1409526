//! How fast rows come, beside how fast they are trained on: the loader over a mapped cache, blocks out
//! of zstd Parquet, and a whole epoch of a fused FM from either.
//!
//! The log has 39 columns like those of Criteo's: 13 small whole numbers and 26 texts of eight
//! characters with Zipf frequencies, all hashed into one table.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossfield_core::rng::{Purpose, rng};
use crossfield_core::{FieldKind, Initializer, Loss, TableConfig, TableField};
use crossfield_data::{
    DataSpec, Dataset, FieldConfig, Format, LabelKind, Loader, Order, RowStream, prepare,
};
use crossfield_embedding::{EmbeddingCollection, RowOptimizer, TablePlan};
use crossfield_fm::FusedFm;
use crossfield_fused::{Fused, Isa, Options, RowData, Turn};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use rand::RngExt;
use rand_distr::{Distribution, Zipf};

const ROWS: usize = 1 << 18;
const ROW_GROUP: usize = 1 << 17;
const BATCH: usize = 1024;
const NUMBERS: usize = 13;
/// Distinct values of the columns of texts.
const VALUES: [u32; 26] = [
    1460, 583, 200_000, 200_000, 305, 24, 12_517, 633, 3, 93_145, 5683, 200_000, 3194, 27, 14_992,
    200_000, 10, 5652, 2173, 4, 200_000, 18, 15, 200_000, 105, 142_572,
];
const FIELDS: usize = NUMBERS + VALUES.len();
const HASH_ROWS: u32 = 1_500_000;
const DIM: usize = 8;

fn columns(group: usize) -> Vec<(String, ArrayRef)> {
    let mut rng = rng(1, Purpose::Synth, 0, group as u64);
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    let labels = (0..ROW_GROUP).map(|_| i64::from(rng.random::<bool>()));
    columns.push((
        "label".to_owned(),
        Arc::new(Int64Array::from_iter_values(labels)),
    ));
    for field in 0..FIELDS {
        let name = format!("f{field}");
        let values = field.checked_sub(NUMBERS).map_or(50, |text| VALUES[text]);
        let zipf = Zipf::new(values as f32, 1.05).expect("a legal exponent");
        let ids: Vec<u32> = (0..ROW_GROUP)
            .map(|_| zipf.sample(&mut rng) as u32 - 1)
            .collect();
        columns.push(if field < NUMBERS {
            let numbers = ids.iter().map(|&id| i64::from(id) + 1000 * field as i64);
            (name, Arc::new(Int64Array::from_iter_values(numbers)))
        } else {
            let texts = ids.iter().map(|&id| {
                let spread = id.wrapping_add(field as u32 * 1_000_003);
                format!("{:08x}", spread.wrapping_mul(0x9e37_79b9))
            });
            (name, Arc::new(StringArray::from_iter_values(texts)))
        });
    }
    columns
}

fn write(path: &Path) {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let mut writer = None;
    for group in 0..ROWS / ROW_GROUP {
        let batch = RecordBatch::try_from_iter(columns(group)).expect("columns of one length");
        let writer = writer.get_or_insert_with(|| {
            let file = File::create(path).expect("a folder that can be written");
            ArrowWriter::try_new(file, batch.schema(), Some(properties.clone()))
                .expect("columns that Parquet has")
        });
        writer.write(&batch).expect("a disk with room");
        writer.flush().expect("a disk with room");
    }
    writer
        .expect("at least one row group")
        .close()
        .expect("a disk with room");
}

struct Trainer {
    fused: Fused,
    tables: EmbeddingCollection,
    step: u64,
}

impl Trainer {
    fn new() -> Self {
        let table = |name: &str, dim, initializer| TableConfig {
            name: name.into(),
            rows: HASH_ROWS as usize,
            dim,
            fields: (0..FIELDS).collect(),
            initializer,
            oov_row: None,
        };
        let uniform = Initializer::Uniform {
            low: -0.05,
            high: 0.05,
        };
        let plan = |config| {
            let optimizer = RowOptimizer {
                lr: 0.01,
                ..RowOptimizer::default()
            };
            TablePlan::new(config, optimizer)
        };
        let plans = [
            plan(table("linear", 1, Initializer::Zeros)),
            plan(table("vectors", DIM, uniform)),
        ];
        let lookups = |table: &str| {
            let at = |field| TableField {
                table: table.into(),
                field,
            };
            (0..FIELDS).map(at).collect()
        };
        let fm = FusedFm::new(lookups("vectors"), lookups("linear"));
        let isa = Isa::detect().expect("no environment variable");
        let options = Options { isa, fast: false };
        Self {
            fused: Fused::new(vec![Box::new(fm)], Loss::Logistic, None, options)
                .expect("one component"),
            tables: EmbeddingCollection::new(&plans, 1).expect("legal tables"),
            step: 0,
        }
    }

    /// Trains on all rows once, as the fused executor does.
    fn train(&mut self, rows: &Dataset, epoch: u64, block: u64) {
        let data = RowData::new(rows.examples());
        let order = rows.epoch_order(1, epoch, block);
        let rates = vec![1.0; order.len()];
        let turn = Turn {
            rows: &order,
            rates: &rates,
            seed: 1,
            first_step: self.step,
            threads: 1,
        };
        self.step += order.len() as u64;
        self.fused
            .train(&mut self.tables, &data, turn)
            .expect("finite scores");
    }
}

fn rates(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for a while");
    let file = folder.path().join("log.parquet");
    write(&file);
    let mut spec = DataSpec::default();
    spec.data.format = Format::Parquet;
    spec.data.train = vec![file.display().to_string()];
    spec.data.cache = Some(folder.path().join("cache").display().to_string());
    let hashed = |field| FieldConfig {
        name: format!("f{field}"),
        kind: FieldKind::Hashed,
        vocabulary: Some("id".to_owned()),
        hash_rows: Some(HASH_ROWS),
        ..FieldConfig::default()
    };
    spec.field = (0..FIELDS).map(hashed).collect();
    let kind = LabelKind::Binary;
    prepare(&spec, 1, kind).expect("the log can be read");
    // The second time it is mapped.
    let prepared = prepare(&spec, 1, kind).expect("the log can be read");
    let (cached, schema) = (Arc::new(prepared.train), Arc::new(prepared.schema));
    let files = spec.data.train.clone();
    let stream = RowStream::new(&spec, schema, &files, kind).expect("the log can be read");

    let mut group = c.benchmark_group("loader");
    group.throughput(Throughput::Elements(ROWS as u64));
    let mut epoch = 0;
    group.bench_function("batches of 1024 from the cache", |bench| {
        bench.iter(|| {
            epoch += 1;
            let order = Order::Shuffled {
                seed: 1,
                epoch,
                block: 0,
            };
            let batches = Loader::new(cached.clone(), order, BATCH, 0).expect("a thread");
            batches.map(|batch| batch.batch_size).sum::<usize>()
        });
    });
    group.bench_function("blocks from zstd Parquet", |bench| {
        bench.iter(|| {
            epoch += 1;
            let blocks = stream.blocks(1, epoch, 0);
            let rows = blocks.map(|block| block.expect("the log can be read").len());
            rows.sum::<usize>()
        });
    });
    let mut trainer = Trainer::new();
    group.bench_function("fused FM, an epoch from the cache", |bench| {
        bench.iter(|| {
            epoch += 1;
            trainer.train(&cached, epoch, 0);
        });
    });
    group.bench_function("fused FM, an epoch from zstd Parquet", |bench| {
        bench.iter(|| {
            epoch += 1;
            for (number, block) in stream.blocks(1, epoch, 0).enumerate() {
                let block = block.expect("the log can be read");
                trainer.train(&block, epoch, number as u64);
            }
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = rates
}
criterion_main!(benches);
