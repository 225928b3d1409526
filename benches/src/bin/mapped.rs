//! Step times on one table of `ROWS` × 16 with a row-wise AdaGrad state, in memory or mapped: FM on
//! Burn, staged, forward, backward and applied, and fused FM row by row.
//!
//! ```text
//! mapped ROWS memory|mapped [FOLDER [MEMORY]]
//! ```
//!
//! Ids are Zipf 1.05 over 1,000,000 ranks, spread over all rows, so that a step touches as many rows
//! whatever the size of the table. `FOLDER` is where the files of a mapped table lie, `MEMORY` bytes of
//! them may stay in memory. Printed are medians of steps after a first half that is not counted, and,
//! apart from them, what a checkpoint of the rows takes.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crossfield_benches::{BATCH, FIELDS, Trainer, fm};
use crossfield_core::rng::{Purpose, rng};
use crossfield_core::{Batch, Examples, Jagged, Loss, TableConfig, TableField, Targets};
use crossfield_embedding::{
    EmbeddingCollection, Place, RowOptimizer, RowOptimizerKind, Storage, TablePlan,
};
use crossfield_fm::{Fm, FmConfig, FusedFm};
use crossfield_fused::{Fused, Isa, Options, RowData, Turn};
use crossfield_train::{bytes, peak_memory};
use rand_distr::{Distribution, Zipf};

const DIM: usize = 16;
const RANKS: f32 = 1e6;
/// Batches, or turns of so many rows; as many again before them are not counted.
const STEPS: usize = 300;
const TABLE: &str = "v16.id";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(rows), Some(storage)) = (args.first(), args.get(1)) else {
        return Err("usage: mapped ROWS memory|mapped [FOLDER [MEMORY]]".into());
    };
    let rows: usize = rows.parse()?;
    let storage = match storage.as_str() {
        "memory" => Storage::Memory,
        "mapped" => Storage::Mapped,
        other => return Err(format!("`{other}`: expected memory or mapped").into()),
    };
    let folder = args.get(2).map_or("mapped-tables", String::as_str);
    let memory: Option<u64> = args.get(3).map(|bytes| bytes.parse()).transpose()?;
    let mut trainer = trainer(rows, storage, Path::new(folder), memory)?;

    // A first checkpoint, so that rows are written down from now on.
    checkpoint(&mut trainer.tables, 0)?;
    let ids = Ids::new(rows);
    let burn = median((0..2 * STEPS).map(|nth| step(&mut trainer, &ids, nth as u64)));
    println!("FM on Burn, {BATCH} rows × {FIELDS}: {:.2} ms", burn * 1e3);
    let mut tables = trainer.tables;
    checkpoint(&mut tables, 1)?;
    let fused = fused_steps(&mut tables, &ids)?;
    println!("fused FM, a row of {FIELDS}: {:.2} µs", fused * 1e6);
    checkpoint(&mut tables, 2)?;
    if let Some(peak) = peak_memory() {
        println!("peak memory {}", bytes(peak));
    }
    if storage == Storage::Mapped {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}

fn trainer(
    rows: usize,
    storage: Storage,
    folder: &Path,
    memory: Option<u64>,
) -> Result<Trainer<Fm>, Box<dyn Error>> {
    let fm = FmConfig {
        embedding_dim: DIM,
        ..fm()
    };
    let optimizer = RowOptimizer {
        kind: RowOptimizerKind::RowwiseAdagrad,
        lr: 0.01,
        ..RowOptimizer::default()
    };
    let plan = |config: TableConfig| TablePlan {
        storage,
        ..TablePlan::new(config, optimizer)
    };
    let begin = Instant::now();
    if storage == Storage::Mapped {
        std::fs::create_dir(folder)?;
    }
    let trainer = Trainer::with_tables(&fm, rows, plan, |plans| {
        let exists = false;
        EmbeddingCollection::in_place(plans, 1, Place { folder, exists })
    })?;
    if let Some(memory) = memory {
        trainer.tables.bound_mapped(memory);
    }
    let plan = &trainer.plans[0];
    println!(
        "{rows} rows × {} B = {} {storage:?}, made in {:.1} s",
        plan.layout().stride,
        bytes(plan.weight_bytes() + plan.state_bytes()),
        begin.elapsed().as_secs_f64()
    );
    Ok(trainer)
}

fn checkpoint(tables: &mut EmbeddingCollection, step: u64) -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    let saved = tables.settle_mapped()?;
    tables.begin_undo(step, &saved)?;
    tables.remove_undo_before(step)?;
    if !saved.is_empty() {
        println!("checkpoint {step}: {:.2} s", begin.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Draws ids: ranks, spread over the rows.
struct Ids {
    rows: u64,
    zipf: Zipf<f32>,
}

impl Ids {
    fn new(rows: usize) -> Self {
        let zipf = Zipf::new(RANKS, 1.05).expect("a legal exponent");
        Self {
            rows: rows as u64,
            zipf,
        }
    }

    /// Some of the stream `nth`.
    fn draw(&self, nth: u64, count: usize) -> Vec<u32> {
        let mut rng = rng(1, Purpose::Synth, 0, nth);
        // A prime that divides no number of rows of ours permutes them.
        let id = |rank: f32| (rank as u64 * 2_147_483_647 % self.rows) as u32;
        (0..count).map(|_| id(self.zipf.sample(&mut rng))).collect()
    }
}

/// Seconds of one step on a batch.
fn step(trainer: &mut Trainer<Fm>, ids: &Ids, nth: u64) -> f64 {
    let ids = ids.draw(nth, BATCH * FIELDS);
    let fields = ids.chunks_exact(BATCH);
    let batch = Batch {
        batch_size: BATCH,
        sparse: fields.map(|ids| Jagged::one_hot(ids.to_vec())).collect(),
        dense: None,
        targets: Targets {
            labels: (0..BATCH).map(|row| f32::from(row % 3 == 0)).collect(),
            ..Targets::default()
        },
    };
    let batch = Arc::new(batch);
    let begin = Instant::now();
    trainer.step(&batch);
    begin.elapsed().as_secs_f64()
}

/// Seconds a row.
fn fused_steps(tables: &mut EmbeddingCollection, ids: &Ids) -> Result<f64, Box<dyn Error>> {
    let lookups = (0..FIELDS).map(|field| TableField {
        table: TABLE.into(),
        field,
    });
    let fm = FusedFm::new(lookups.collect(), Vec::new());
    let options = Options {
        isa: Isa::detect()?,
        fast: false,
    };
    let mut fused = Fused::new(vec![Box::new(fm)], Loss::Logistic, None, options)?;
    let fields: Vec<usize> = (0..FIELDS).collect();
    let labels: Vec<f32> = (0..BATCH).map(|row| f32::from(row % 3 == 0)).collect();
    let order: Vec<u32> = (0..BATCH as u32).collect();
    let rates = vec![1.0; BATCH];
    let mut seconds = Vec::new();
    for nth in 0..2 * STEPS as u64 {
        let indices = ids.draw(1_000_000 + nth, BATCH * FIELDS);
        let data = RowData::new(Examples {
            rows: BATCH,
            one_hot_fields: &fields,
            one_hot: &indices,
            lists: Vec::new(),
            labels: &labels,
            weights: None,
        });
        let begin = Instant::now();
        tables.about_to_change(data.examples(), 0..BATCH)?;
        let turn = Turn {
            rows: &order,
            rates: &rates,
            seed: 1,
            first_step: nth * BATCH as u64,
            threads: 1,
        };
        fused.train(tables, &data, turn)?;
        seconds.push(begin.elapsed().as_secs_f64() / BATCH as f64);
    }
    Ok(median(seconds.into_iter()))
}

/// Of the second half.
fn median(seconds: impl Iterator<Item = f64>) -> f64 {
    let all: Vec<f64> = seconds.collect();
    let mut counted = all[all.len() / 2..].to_vec();
    counted.sort_by(f64::total_cmp);
    counted[counted.len() / 2]
}
