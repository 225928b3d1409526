//! Tables whose keys come and go: what they take, and what they cost in quality.
//!
//! - `admission keys`: so many distinct keys through an admission with a table of 8 weights under
//!   AdaGrad; prints keys a second and the peak of memory.
//! - `admission clicks`: one pass of a factorization machine over clicks of so many distinct users,
//!   most of them seen once or twice, with a row for each user and with rows for those that are
//!   admitted; prints the AUC of both.

use std::collections::HashMap;
use std::error::Error;
use std::time::Instant;

use bytesize::ByteSize;
use clap::{Args, Parser};
use crossfield_core::metrics::{Kind, Metrics};
use crossfield_core::rng::{Purpose, mix, rng};
use crossfield_core::{Examples, Initializer, Loss, TableConfig, TableField};
use crossfield_embedding::{
    Admission, AdmissionConfig, Admitted, EmbeddingCollection, RowOptimizer, Table, TablePlan,
};
use crossfield_fm::FusedFm;
use crossfield_fused::{Bias, BiasOptimizer, BiasRule, Fused, Isa, Options, RowData, Turn};
use crossfield_train::{bytes, peak_memory};
use rand::RngExt;
use rand_distr::{Distribution, Zipf};

/// Rows of data, or keys, that are admitted at once.
const BLOCK: u64 = 1 << 17;
const DIM: usize = 8;

#[derive(Parser)]
enum Command {
    /// Distinct keys through an admission with a table.
    Keys(Keys),
    /// Clicks, with a row for each user and with rows for those that are admitted.
    Clicks(Clicks),
}

#[derive(Args)]
struct Keys {
    /// Distinct keys; a tenth of them come a second time, a block later.
    #[arg(long, default_value_t = 50_000_000)]
    keys: u64,
    /// Occurrences after which a key is given a row.
    #[arg(long, default_value_t = 2)]
    min_count: u32,
    /// The most rows.
    #[arg(long, default_value_t = 1_000_000)]
    max_rows: u32,
    /// Memory for the counts.
    #[arg(long, default_value = "50MB")]
    sketch: ByteSize,
}

#[derive(Args)]
struct Clicks {
    /// Distinct users, about.
    #[arg(long, default_value_t = 2_500_000)]
    keys: u64,
    /// Share of the rows that are of users seen once or twice; two of three such rows are of a new one.
    #[arg(long, default_value_t = 0.25)]
    rare: f64,
    /// Occurrences after which a user is given a row.
    #[arg(long, default_value_t = 2)]
    min_count: u32,
    /// Memory for the counts.
    #[arg(long, default_value = "13MB")]
    sketch: ByteSize,
}

fn main() -> Result<(), Box<dyn Error>> {
    match Command::parse() {
        Command::Keys(keys) => keys.run(),
        Command::Clicks(clicks) => clicks.run(),
    }
}

/// A table that grows up to `rows`, of `dim` weights under AdaGrad.
fn plan(name: &str, dim: usize, rows: usize, field: usize, grows: bool) -> TablePlan {
    let config = TableConfig {
        name: name.into(),
        rows,
        dim,
        fields: vec![field],
        initializer: if dim == 1 {
            Initializer::Zeros
        } else {
            Initializer::Normal { std: 0.01 }
        },
        oov_row: Some(0),
    };
    TablePlan {
        growing: grows.then_some(1),
        ..TablePlan::new(config, RowOptimizer::default())
    }
}

fn peak() -> String {
    peak_memory().map_or("not known".to_owned(), bytes)
}

impl Keys {
    fn run(&self) -> Result<(), Box<dyn Error>> {
        let mut admission = Admission::new(AdmissionConfig {
            min_count: self.min_count,
            max_rows: Some(self.max_rows),
            evict_after: None,
            sketch: self.sketch.as_u64(),
        })?;
        let rows = self.max_rows as usize + 1;
        let mut table = Table::new(&plan("v8.user", DIM, rows, 0, true), 1)?;
        let (mut begun, mut evicted, mut occurrences) = (0, 0, 0);
        let mut keys = Vec::new();
        let started = Instant::now();
        for from in (0..self.keys).step_by(BLOCK as usize) {
            let to = (from + BLOCK).min(self.keys);
            keys.clear();
            // No two numbers have one key.
            keys.extend((from..to).map(mix));
            keys.extend((from.saturating_sub(BLOCK)..from).step_by(10).map(mix));
            let counts = vec![1; keys.len()];
            let admitted = admission.admit(&keys, &counts, keys.len() as u64);
            table.begin_keys(1, &admitted.begun);
            begun += admitted.begun.len();
            evicted += admitted.evicted;
            occurrences += keys.len();
        }
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{} distinct keys, {occurrences} occurrences: {seconds:.1} s, {:.2} M a second\n\
             {begun} were given a row, {evicted} lost it, {} have one\n\
             counts and keys {}, rows {}, peak of memory {}",
            self.keys,
            occurrences as f64 / seconds / 1e6,
            admission.keys(),
            bytes(admission.bytes()),
            bytes(table.bytes().len() as u64),
            peak(),
        );
        Ok(())
    }
}

fn adagrad() -> BiasOptimizer {
    BiasOptimizer {
        kind: BiasRule::Adagrad,
        lr: 0.1,
        weight_decay: 0.0,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
    }
}

/// Values of the two other fields.
const OTHERS: [u32; 2] = [1000, 100];

/// Rows of a user, an ad and a site: most are of users whose popularity is Zipf's, the others of users
/// that are seen once, or again at some later time.
struct Log {
    rng: rand_chacha::ChaCha8Rng,
    zipf: Zipf<f64>,
    /// Share of the rows that are of users of the second kind.
    share: f64,
    /// Users of the second kind so far.
    rare: u64,
}

impl Log {
    fn new(frequent: u64, share: f64) -> Self {
        Self {
            rng: rng(1, Purpose::Synth, 0, 0),
            zipf: Zipf::new(frequent as f64, 1.05).expect("a legal exponent"),
            share,
            rare: 0,
        }
    }

    /// The effect of a value on the log-odds: about normal, of deviation 1.
    fn effect(field: u64, value: u64) -> f64 {
        let bits = mix(value ^ (field + 1) << 56);
        let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
        (sum as f64 / 65536.0 - 2.0) * 3f64.sqrt()
    }

    fn user(&mut self) -> u64 {
        if self.rng.random::<f64>() >= self.share {
            return self.zipf.sample(&mut self.rng) as u64;
        }
        let number = if self.rare > 0 && self.rng.random_ratio(1, 3) {
            self.rng.random_range(0..self.rare)
        } else {
            self.rare += 1;
            self.rare - 1
        };
        1 << 40 | number
    }

    fn block(&mut self, rows: u64) -> Block {
        let mut block = Block::default();
        let mut numbers = HashMap::new();
        for _ in 0..rows {
            let user = self.user();
            let others = OTHERS.map(|most| self.rng.random_range(0..most));
            let logit = -1.0
                + Self::effect(0, user)
                + 0.5 * Self::effect(1, others[0].into())
                + 0.5 * Self::effect(2, others[1].into());
            let clicks = self.rng.random::<f64>() < 1.0 / (1.0 + (-logit).exp());
            let number = *numbers.entry(user).or_insert_with(|| {
                block.keys.push(mix(user));
                block.counts.push(0);
                block.keys.len() as u32 - 1
            });
            block.counts[number as usize] += 1;
            block.indices.extend([number, others[0], others[1]]);
            block.labels.push(f32::from(u8::from(clicks)));
        }
        block
    }
}

/// Rows whose users are numbers of keys, until those are looked up.
#[derive(Default)]
struct Block {
    keys: Vec<u64>,
    counts: Vec<u32>,
    indices: Vec<u32>,
    labels: Vec<f32>,
}

impl Block {
    fn put_rows(&mut self, rows: &[u32]) {
        for row in self.indices.chunks_exact_mut(3) {
            row[0] = rows[row[0] as usize];
        }
    }

    fn examples(&self) -> Examples<'_> {
        Examples {
            rows: self.labels.len(),
            one_hot_fields: &[0, 1, 2],
            one_hot: &self.indices,
            lists: Vec::new(),
            labels: &self.labels,
            weights: None,
        }
    }
}

impl Clicks {
    fn run(&self) -> Result<(), Box<dyn Error>> {
        let usual = AdmissionConfig {
            sketch: self.sketch.as_u64(),
            ..AdmissionConfig::default()
        };
        let mut of_each = Vec::new();
        for min_count in [1, self.min_count] {
            let config = AdmissionConfig { min_count, ..usual };
            of_each.push(self.train(config)?);
        }
        println!(
            "AUC below that of a row for each user: {:.5}",
            of_each[0] - of_each[1]
        );
        Ok(())
    }

    /// The AUC, on later rows, of a pass with the users that are admitted.
    fn train(&self, config: AdmissionConfig) -> Result<f64, Box<dyn Error>> {
        let rows = (1.5 * self.keys as f64 / self.rare) as u64;
        let mut log = Log::new((self.keys / 50).max(1), self.rare);
        let mut admission = Admission::new(config)?;
        let most = AdmissionConfig::MOST_ROWS as usize + 1;
        let mut plans = vec![
            plan("fm.user", 1, most, 0, true),
            plan("v8.user", DIM, most, 0, true),
        ];
        for (field, most) in [(1, OTHERS[0]), (2, OTHERS[1])] {
            for (prefix, dim) in [("fm", 1), ("v8", DIM)] {
                let name = format!("{prefix}.{field}");
                plans.push(plan(&name, dim, most as usize, field, false));
            }
        }
        plans.sort_by(|a, b| a.config.name.cmp(&b.config.name));
        let mut tables = EmbeddingCollection::new(&plans, 1)?;
        let fields = |prefix: &str| {
            let table = |(field, name): (usize, &str)| TableField {
                table: format!("{prefix}.{name}"),
                field,
            };
            ["user", "1", "2"]
                .into_iter()
                .enumerate()
                .map(table)
                .collect()
        };
        let fm = FusedFm::new(fields("v8"), fields("fm"));
        let bias = Bias::new(-1.0, adagrad());
        let options = Options {
            isa: Isa::detect()?,
            fast: false,
        };
        let mut fused = Fused::new(vec![Box::new(fm)], Loss::Logistic, Some(bias), options)?;
        let started = Instant::now();
        for first in (0..rows).step_by(BLOCK as usize) {
            let mut block = log.block(BLOCK.min(rows - first));
            let count = block.labels.len();
            let Admitted { rows, begun, .. } =
                admission.admit(&block.keys, &block.counts, count as u64);
            for name in ["fm.user", "v8.user"] {
                let table = tables.table_mut(name).ok_or("planned")?;
                table.begin_keys(1, &begun);
            }
            block.put_rows(&rows);
            let order: Vec<u32> = (0..count as u32).collect();
            let turn = Turn {
                rows: &order,
                rates: &vec![1.0; count],
                seed: 1,
                first_step: first,
                threads: 1,
            };
            fused.train(&mut tables, &RowData::new(block.examples()), turn)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let mut metrics = Metrics::new(Kind::Logits);
        for _ in 0..4 {
            let mut block = log.block(BLOCK);
            block.put_rows(&admission.look_up(&block.keys));
            let (mut scores, data) = (Vec::new(), RowData::new(block.examples()));
            fused.score(&tables, &data, |block| scores.extend_from_slice(block))?;
            metrics.update(&scores, &block.labels, None, None)?;
        }
        let auc = metrics.finish().auc.ok_or("both labels occur")?;
        println!(
            "min_count {}: {rows} rows, {} users with a row of {} seen once or twice, {seconds:.1} s, \
             counts and keys {}, peak of memory {}, AUC {auc:.5}",
            config.min_count,
            admission.keys(),
            log.rare,
            bytes(admission.bytes()),
            peak(),
        );
        Ok(auc)
    }
}
