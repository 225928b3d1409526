//! Where the time of a step of Wide & Deep goes, on rows of the shape of Criteo's: 39 one-hot
//! fields of 1.48 million ids, drawn here; vectors of 8, layers of 256 and 128, batches of 1024, one
//! thread. FTRL on the wide rows, AdaGrad on the vectors, Adam on the layers.
//!
//! `wide_deep ROUNDS` walks so many times over the rows, 3 if it is left out. Each part of the time
//! is that of its fastest batch; the whole is processor time of all threads, the loader's included.

use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use crossfield_core::rng::{Purpose, rng};
use crossfield_core::{
    Batch, ComponentConfig, Init, Loss, Mlp, MlpConfig, Model, Schema, Scored, Sum, TableField,
    merge_tables,
};
use crossfield_data::{DataSpec, Dataset, Format, LabelKind, Loader, Order, prepare};
use crossfield_embedding::{EmbeddingCollection, RowOptimizer, RowOptimizerKind, TablePlan};
use crossfield_simd::{Isa, Kernel, Lanes};
use crossfield_train::{cpu_seconds, in_pool};
use crossfield_wide_deep::{Deep, DeepConfig, Wide, WideConfig};
use rand::RngExt;
use rand_distr::{Distribution, Zipf};

const BATCH: usize = 1024;
/// As the Burn executor scores.
const SCORE_BATCH: usize = 1024;
const ROWS: usize = 100 * BATCH;
const HIDDEN: [usize; 2] = [256, 128];
const DIM: usize = 8;
/// Ids of each field: thirteen numbers in buckets, then Criteo's categories, the large ones cut off.
const IDS: [u32; 39] = [
    50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 1460, 583, 200_000, 200_000, 305, 24,
    12517, 633, 3, 93145, 5683, 200_000, 3194, 27, 14992, 200_000, 10, 5652, 2173, 4, 200_000, 18,
    15, 200_000, 105, 142_572,
];

/// Rows of skewed ids in a file of libffm's format.
fn write_rows(path: &Path) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let laws = IDS.map(|ids| Zipf::new(ids as f32, 1.15).expect("a legal exponent"));
    let mut rng = rng(7, Purpose::Synth, 0, 0);
    for row in 0..ROWS {
        write!(file, "{}", u8::from(rng.random_bool(0.39)))?;
        let mut first = 0;
        for (field, (ids, law)) in IDS.iter().zip(&laws).enumerate() {
            let rank = (law.sample(&mut rng) as u32).clamp(1, *ids) - 1;
            // The last id of all occurs, so that the tables are whole.
            let id = if row == 0 { ids - 1 } else { rank };
            write!(file, " {field}:{}:1", first + id)?;
            first += ids;
        }
        writeln!(file)?;
    }
    file.flush()
}

type WideDeep = Scored<Sum<Wide, Deep>>;

struct Trainer {
    model: WideDeep,
    tables: EmbeddingCollection,
    optimizer: ModuleOptimizer,
    device: Device,
}

/// Milliseconds of each batch, by part.
#[derive(Default)]
struct Parts(Vec<(&'static str, Vec<f64>)>);

impl Parts {
    fn time<R>(&mut self, part: &'static str, work: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        let result = work();
        let milliseconds = started.elapsed().as_secs_f64() * 1e3;
        match self.0.iter_mut().find(|(name, _)| *name == part) {
            Some((_, times)) => times.push(milliseconds),
            None => self.0.push((part, vec![milliseconds])),
        }
        result
    }

    /// Of the fastest batch: on a machine that others use too, the time that the work takes and not
    /// that of waiting.
    fn least(&mut self, part: &str) -> f64 {
        let times = self.0.iter_mut().find(|(name, _)| *name == part);
        let (_, times) = times.expect("a part that was timed");
        times.sort_by(f64::total_cmp);
        times[0]
    }
}

impl Trainer {
    fn new(schema: &Schema) -> Self {
        let device = Device::flex().autodiff();
        let configs = (WideConfig::default(), deep());
        let tables = configs
            .tables(schema)
            .and_then(merge_tables)
            .expect("a legal model");
        let plan = |config: crossfield_core::TableConfig| {
            let (kind, lr) = match config.dim {
                1 => (RowOptimizerKind::Ftrl, 0.1),
                _ => (RowOptimizerKind::Adagrad, 0.05),
            };
            let optimizer = RowOptimizer {
                kind,
                lr,
                ..RowOptimizer::default()
            };
            TablePlan::new(config, optimizer)
        };
        let plans: Vec<TablePlan> = tables.into_iter().map(plan).collect();
        let init = Init {
            device: device.clone(),
            seed: 1,
        };
        let sum = configs.init(schema, &init).expect("a legal model");
        Self {
            model: Scored::new(sum, Loss::Logistic, 0.39, &device),
            tables: EmbeddingCollection::new(&plans, 1).expect("memory for the tables"),
            optimizer: AdamConfig::new().init(),
            device,
        }
    }

    fn step(&mut self, batch: Arc<Batch>, parts: &mut Parts) {
        let (lookup, staged) =
            parts.time("stage", || self.tables.stage(batch.clone(), &self.device));
        let loss = parts.time("forward", || self.model.loss(&lookup, &batch.targets));
        let mut gradients = parts.time("backward", || loss.backward());
        parts.time("row update", || {
            self.tables
                .apply(&lookup, &staged, &mut gradients, 1.0)
                .expect("finite gradients");
        });
        parts.time("dense update", || {
            let gradients = GradientsParams::from_grads(gradients, &self.model);
            self.model = self.optimizer.step(1e-3, self.model.clone(), gradients);
        });
    }
}

fn deep() -> DeepConfig {
    DeepConfig {
        embedding_dim: DIM,
        hidden: HIDDEN.to_vec(),
        ..DeepConfig::default()
    }
}

/// The layers alone, on inputs of the same shape.
fn dense_alone(mlp: &Mlp, batch: usize, parts: &mut Parts, device: &Device) {
    let input = Tensor::<2>::ones([batch, IDS.len() * DIM], device).require_grad();
    let output = parts
        .time("dense forward", || mlp.forward(input, None))
        .sum();
    parts.time("dense backward", || drop(output.backward()));
}

/// Multiplications and additions a second of one thread, in 10⁹: twelve sums in registers, to which
/// products are added as fast as the machine can.
fn peak(isa: Isa) -> f64 {
    const TIMES: usize = 200_000;
    let started = Instant::now();
    let lanes = isa.run(Sums { times: TIMES });
    let operations = 2 * 12 * TIMES * lanes;
    operations as f64 / started.elapsed().as_secs_f64() / 1e9
}

struct Sums {
    times: usize,
}

impl Kernel for Sums {
    type Output = usize;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> usize {
        // SAFETY: `Isa::run` vouches for the instruction set; the buffer holds `L::N` floats.
        unsafe {
            let (factor, term) = (L::splat(black_box(0.5)), L::splat(black_box(1.0)));
            let mut sums = [L::splat(black_box(0.0)); 12];
            for _ in 0..self.times {
                for sum in &mut sums {
                    *sum = sum.mul_add(factor, term);
                }
            }
            let mut last = vec![0f32; L::N];
            for sum in sums {
                sum.store(last.as_mut_ptr());
                black_box(&last);
            }
            L::N
        }
    }
}

fn train(trainer: &mut Trainer, data: &Arc<Dataset>, rounds: u64) {
    let mut parts = Parts::default();
    let mut cpu = Vec::new();
    for epoch in 0..rounds {
        let before = cpu_seconds();
        let order = Order::Shuffled {
            seed: 1,
            epoch,
            block: 0,
        };
        for batch in Loader::new(data.clone(), order, BATCH, 0).expect("a thread") {
            trainer.step(Arc::new(batch), &mut parts);
        }
        cpu.extend(cpu_seconds().zip(before).map(|(now, then)| now - then));
    }
    let mlp = mlp(&trainer.device);
    let order = data.epoch_order(1, 0, 0);
    let fields: Vec<TableField> = (0..IDS.len())
        .map(|field| TableField {
            table: "v8.index".into(),
            field,
        })
        .collect();
    let isa = Isa::detect().expect("an instruction set of this machine");
    let products = IDS.len() * DIM * HIDDEN[0] + HIDDEN[0] * HIDDEN[1] + HIDDEN[1];
    let flops = (6 * BATCH * products) as f64;
    let mut best = 0f64;
    for rows in order.chunks(BATCH) {
        let batch = parts.time("loader", || data.batch(rows));
        let (lookup, _) = trainer.tables.stage(Arc::new(batch), &trainer.device);
        let vectors = parts
            .time("vectors forward", || lookup.fields(&fields))
            .sum();
        parts.time("vectors backward", || drop(vectors.backward()));
        dense_alone(&mlp, BATCH, &mut parts, &trainer.device);
        // The best of as many moments.
        best = peak(isa).max(best);
    }
    let gather = parts.least("stage") + parts.least("vectors forward");
    let [forward, backward] = ["dense forward", "dense backward"].map(|part| parts.least(part));
    let rows = parts.least("vectors backward") + parts.least("row update");
    let dense = parts.least("dense update");
    let loader = parts.least("loader");
    let steps = ["stage", "forward", "backward", "row update", "dense update"];
    let all = loader + steps.iter().map(|part| parts.least(part)).sum::<f64>();
    let rest = all - gather - forward - backward - rows - dense - loader;
    println!("training, ms a batch of {BATCH} (fastest batches)");
    for (part, time) in [
        ("gather", gather),
        ("dense forward", forward),
        ("dense backward", backward),
        ("row update", rows),
        ("dense update", dense),
        ("loader", loader),
        ("rest", rest),
        ("all", all),
    ] {
        println!("  {part:<15} {time:6.2}");
    }
    for part in steps.iter().chain(&["vectors forward", "vectors backward"]) {
        println!("    {part:<18} {:6.2}", parts.least(part));
    }
    print_rate(&cpu);
    let reached = flops / 1e6 / (forward + backward);
    println!(
        "  the layers: {reached:.0} GFLOP/s, {:.0} % of the {best:.0} of sums in registers ({})",
        100.0 * reached / best,
        isa.name()
    );
}

/// Rows a processor second, given the processor seconds of each round.
fn print_rate(rounds: &[f64]) {
    if let Some(best) = rounds.iter().copied().reduce(f64::min) {
        let rate = ROWS as f64 / best;
        println!("  {rate:.0} examples a processor second (the best of {rounds:.2?} s)");
    }
}

fn mlp(device: &Device) -> Mlp {
    let init = Init {
        device: device.clone(),
        seed: 1,
    };
    let config = MlpConfig {
        hidden: HIDDEN.to_vec(),
        ..MlpConfig::default()
    };
    let mlp = config.init("deep", IDS.len() * DIM, &init);
    mlp.expect("legal layers")
}

fn predict(trainer: &mut Trainer, data: &Arc<Dataset>, rounds: u64) {
    let (model, device) = (trainer.model.valid(), trainer.device.clone().inner());
    let mlp = mlp(&trainer.device).valid();
    let input = Tensor::<2>::ones([SCORE_BATCH, IDS.len() * DIM], &device);
    let mut parts = Parts::default();
    let mut cpu = Vec::new();
    for _ in 0..rounds {
        let before = cpu_seconds();
        for batch in Loader::new(data.clone(), Order::Sequential, SCORE_BATCH, 0).expect("a thread")
        {
            let batch = Arc::new(batch);
            let (lookup, _) = parts.time("stage", || trainer.tables.stage(batch, &device));
            parts.time("score", || model.score(&lookup).into_data());
        }
        cpu.extend(cpu_seconds().zip(before).map(|(now, then)| now - then));
    }
    for _ in 0..20 {
        parts.time("dense forward", || mlp.forward(input.clone(), None));
    }
    println!("prediction, ms a batch of {SCORE_BATCH} (fastest batches)");
    for part in ["stage", "score", "dense forward"] {
        println!("  {part:<15} {:6.2}", parts.least(part));
    }
    print_rate(&cpu);
}

fn main() {
    let mut rounds = std::env::args().filter_map(|rounds| rounds.parse().ok());
    let rounds: u64 = rounds.next_back().unwrap_or(3);
    let folder = tempfile::tempdir().expect("a folder for the rows");
    let path = folder.path().join("rows.ffm");
    write_rows(&path).expect("room for the rows");
    let mut spec = DataSpec::default();
    spec.data.format = Format::Libffm;
    spec.data.train = vec![path.display().to_string()];
    let data = prepare(&spec, 1, LabelKind::Binary).expect("rows that were written well");
    let data = Arc::new(data.train);
    let run = || {
        let mut trainer = Trainer::new(data.schema());
        train(&mut trainer, &data, rounds);
        predict(&mut trainer, &data, rounds);
    };
    in_pool(1, run).expect("a thread");
}
