//! Pairs that never occur together in training.

use std::fmt::Write;
use std::path::Path;

use crossfield::data::FittedSchema;
use crossfield::fm::FmConfig;
use crossfield::wide_deep::WideConfig;
use crossfield_ffm::FfmConfig;
use rand::RngExt;

use crate::bars::Bars;
use crate::planted::{Log, dot, stream, vectors};
use crate::runs::{Failure, Run, Settings, bounds, correlation, logloss};

const FIELDS: [&str; 3] = ["reader", "ad", "site"];
/// Each pair of fields as a field of its own, for Poly2: its name and the two fields.
const PAIRS: [(&str, usize, usize); 3] = [
    ("reader*ad", 0, 1),
    ("reader*site", 0, 2),
    ("ad*site", 1, 2),
];
/// Values of each field.
const VALUES: usize = 40;
/// Length of the planted vectors.
const PLANTED_DIM: usize = 3;
/// Share of the pairs of a reader and an ad that are kept out of training.
const UNSEEN: f64 = 0.25;
const TRAIN_ROWS: usize = 60_000;
/// Rows of seen pairs, and as many of unseen ones, to measure on.
const TEST_ROWS: usize = 20_000;

/// Length of the vectors of FM and FFM: not the planted one, which nobody would know.
const DIM: usize = 4;
// The best of a grid on new rows of seen pairs, for each model on its own.
const LINEAR: Settings = Settings {
    lr: 0.1,
    l2: 0.0,
    epochs: 5,
};
const POLY2: Settings = Settings {
    lr: 0.1,
    l2: 0.003,
    epochs: 15,
};
const FM: Settings = Settings {
    lr: 0.1,
    l2: 0.001,
    epochs: 5,
};
const FFM: Settings = Settings {
    lr: 0.1,
    l2: 0.003,
    epochs: 15,
};

/// What a model made of the rows.
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    /// Logloss on new rows of pairs that were trained on.
    pub(crate) seen: f64,
    /// Logloss on rows of pairs that were not.
    pub(crate) unseen: f64,
    /// Correlation of estimated and planted weight over the unseen pairs; `None` where all
    /// estimates are the same, or there are none.
    pub(crate) correlation: Option<f64>,
}

/// What clicks are drawn from: a weight for each value of a field, and for each pair of values of
/// two fields the inner product of their vectors.
struct Truth {
    linear: Vec<Vec<f64>>,
    vectors: Vec<Vec<Vec<f64>>>,
    /// Whether a reader and an ad are kept apart, by reader and then ad.
    unseen: Vec<Vec<bool>>,
}

impl Truth {
    fn new(seed: u64) -> Self {
        let mut stream = stream(seed, 0);
        // Makes the variance of the inner products 1.
        let std = (PLANTED_DIM as f64).powf(-0.25);
        Self {
            linear: vectors(FIELDS.len(), VALUES, 0.5, &mut stream),
            vectors: (0..FIELDS.len())
                .map(|_| vectors(VALUES, PLANTED_DIM, std, &mut stream))
                .collect(),
            unseen: (0..VALUES)
                .map(|_| (0..VALUES).map(|_| stream.random_bool(UNSEEN)).collect())
                .collect(),
        }
    }

    fn pair(&self, [f, g]: [usize; 2], [i, j]: [usize; 2]) -> f64 {
        dot(&self.vectors[f][i], &self.vectors[g][j])
    }

    fn log_odds(&self, row: [usize; 3]) -> f64 {
        let linear: f64 = (0..3).map(|field| self.linear[field][row[field]]).sum();
        let pairs = PAIRS.map(|(_, f, g)| self.pair([f, g], [row[f], row[g]]));
        linear + pairs.iter().sum::<f64>() - 1.0
    }

    fn log(&self, seed: u64) -> Log {
        let mut stream = stream(seed, 1);
        let columns = [&FIELDS[..], &PAIRS.map(|(name, ..)| name)].concat();
        let mut log = Log::new(&columns);
        for at in 0..TRAIN_ROWS + 2 * TEST_ROWS {
            let unseen = at >= TRAIN_ROWS + TEST_ROWS;
            let row = loop {
                let row = [(); 3].map(|()| stream.random_range(0..VALUES));
                if self.unseen[row[0]][row[1]] == unseen {
                    break row;
                }
            };
            let values = row.iter().map(usize::to_string);
            let pairs = PAIRS.iter().map(|&(_, f, g)| pair_cell(row[f], row[g]));
            let cells = values.chain(pairs).collect();
            log.push(cells, self.log_odds(row), &mut stream);
        }
        log
    }

    /// Over the unseen pairs of a reader and an ad.
    fn correlation(&self, estimate: impl Fn(usize, usize) -> f64) -> Option<f64> {
        let mut pairs = Vec::new();
        for (i, unseen) in self.unseen.iter().enumerate() {
            for j in (0..VALUES).filter(|&j| unseen[j]) {
                pairs.push((estimate(i, j), self.pair([0, 1], [i, j])));
            }
        }
        correlation(&pairs)
    }
}

fn pair_cell(i: usize, j: usize) -> String {
    format!("{i}*{j}")
}

/// The models, between the best possible predictor and one that knows the mean alone.
pub(crate) fn run(seed: u64) -> Result<Vec<Outcome>, Failure> {
    let truth = Truth::new(seed);
    let (schema, data) = truth.log(seed).prepare(seed, TEST_ROWS, TEST_ROWS)?;
    let fields = FIELDS.map(str::to_owned).to_vec();

    let linear = WideConfig {
        fields: fields.clone(),
        ..WideConfig::default()
    };
    let run = Run::train(&linear, LINEAR, &data, seed)?;
    let linear = outcome("linear", &run, None)?;

    // All fields, those of the pairs among them.
    let run = Run::train(&WideConfig::default(), POLY2, &data, seed)?;
    let pairs = (0..VALUES * VALUES).map(|at| pair_cell(at / VALUES, at % VALUES));
    let weights = run.rows(&schema, "wide.", PAIRS[0].0, pairs)?;
    let estimated = truth.correlation(|i, j| weights[i * VALUES + j][0]);
    let poly2 = outcome("Poly2", &run, estimated)?;

    let fm = FmConfig {
        fields: fields.clone(),
        embedding_dim: DIM,
        init_std: 0.1,
        ..FmConfig::default()
    };
    let run = Run::train(&fm, FM, &data, seed)?;
    let [readers, ads] = readers_and_ads(&run, &schema, &format!("v{DIM}."))?;
    let estimated = truth.correlation(|i, j| dot(&readers[i], &ads[j]));
    let fm = outcome("FM", &run, estimated)?;

    let ffm = FfmConfig {
        fields,
        embedding_dim: DIM,
        normalize: false,
        init_scale: 0.2,
        ..FfmConfig::default()
    };
    let run = Run::train(&ffm, FFM, &data, seed)?;
    let [readers, ads] = readers_and_ads(&run, &schema, &format!("ffm.v{DIM}."))?;
    // The vectors of a value lie side by side: the first is that towards readers, the second that
    // towards ads.
    let estimated = truth.correlation(|i, j| dot(&readers[i][DIM..2 * DIM], &ads[j][..DIM]));
    let ffm = outcome("FFM", &run, estimated)?;

    let [seen, unseen] = [&data.valid, &data.test].map(|part| bounds(&data, part.as_ref()));
    let (seen, unseen) = (seen?, unseen?);
    let bound = |name, nth: usize| Outcome {
        name,
        seen: seen[nth],
        unseen: unseen[nth],
        correlation: None,
    };
    let (constant, best) = (bound("constant", 0), bound("Bayes-optimal", 1));
    Ok(vec![constant, linear, poly2, fm, ffm, best])
}

/// The rows of readers and of ads in the tables of that prefix.
fn readers_and_ads(
    run: &Run,
    schema: &FittedSchema,
    prefix: &str,
) -> Result<[Vec<Vec<f64>>; 2], Failure> {
    let of = |field| {
        let values = (0..VALUES).map(|value| value.to_string());
        run.rows(schema, prefix, field, values)
    };
    Ok([of(FIELDS[0])?, of(FIELDS[1])?])
}

fn outcome(name: &'static str, run: &Run, correlation: Option<f64>) -> Result<Outcome, Failure> {
    Ok(Outcome {
        name,
        seen: logloss(run.metrics.valid.as_ref())?,
        unseen: logloss(run.metrics.test.as_ref())?,
        correlation,
    })
}

const TOLD: &str = "\
Pairs that were never seen together

Readers meet ads on sites, 40 of each.
The log odds of a click add up a weight
for each of the three and one for each
pair of them, which is the product of
two planted vectors. A quarter of the
pairs of a reader and an ad never occurs
in training, though both occur with
others. Logloss on new rows of pairs
that do occur, and of those that do not;
how the learned weights of the latter
correlate with the planted ones (-: no
such weights, or all of them 0).

              logloss      correlation
              seen   unseen  on unseen
";

const SEEN: &str = "
Poly2 has a weight for each pair that it
saw and none for the others; FM and FFM
know those nearly as well.
";

/// The outcomes as a table, in lines of at most 40 characters.
pub(crate) fn report(outcomes: &[Outcome]) -> String {
    let mut text = TOLD.to_owned();
    for outcome in outcomes {
        let correlation = outcome.correlation.map(|value| format!("{value:.2}"));
        let _ = writeln!(
            text,
            "{:<13} {:.4} {:.4} {:>10}",
            outcome.name,
            outcome.seen,
            outcome.unseen,
            correlation.as_deref().unwrap_or("-"),
        );
    }
    text + SEEN
}

/// Draws how far each predictor is from the best possible one, on seen and on unseen pairs.
pub(crate) fn draw(outcomes: &[Outcome], file: &Path) -> Result<(), Failure> {
    let (best, others) = outcomes.split_last().ok_or("six predictors")?;
    let above = |of: &Outcome| {
        let numbers = vec![of.seen - best.seen, of.unseen - best.unseen];
        (of.name.to_owned(), numbers)
    };
    Bars {
        title: "Pairs seen and never seen",
        kinds: &["pairs of the training rows", "pairs that never met there"],
        groups: others.iter().map(above).collect(),
    }
    .draw(file)
}
