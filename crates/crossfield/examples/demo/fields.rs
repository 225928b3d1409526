//! A feature that acts in one way beside one field and in another beside the next.

use std::fmt::Write;
use std::path::Path;

use crossfield::fm::FmConfig;
use crossfield::train::bytes;
use crossfield_ffm::FfmConfig;
use rand::RngExt;

use crate::bars::Bars;
use crate::planted::{Log, dot, stream, vectors};
use crate::runs::{Failure, Run, Settings, bounds, logloss};

/// Fields, and how many values each has.
const FIELDS: [(&str, usize); 5] = [
    ("gender", 2),
    ("age", 8),
    ("category", 20),
    ("site", 30),
    ("hour", 24),
];
const GENDER: usize = 0;
const AGE: usize = 1;
const CATEGORY: usize = 2;
/// Length of the planted vectors.
const PLANTED_DIM: usize = 2;
/// Standard deviation of the weights of pairs.
const PAIR_STD: f64 = 0.6;
const TRAIN_ROWS: usize = 60_000;
const TEST_ROWS: usize = 30_000;

/// Length of each of FFM's vectors.
const DIM: usize = 2;
/// The length at which FM has as many weights: FFM has a vector of `DIM` for each field.
const EQUAL_DIM: usize = DIM * FIELDS.len();
// The best learning rate and penalty of a grid, for each model on its own.
const FM: Settings = Settings {
    lr: 0.1,
    l2: 0.0,
    epochs: 10,
};
const EQUAL_FM: Settings = Settings {
    lr: 0.2,
    l2: 0.0,
    epochs: 10,
};
const DOUBLE_FM: Settings = Settings {
    lr: 0.1,
    l2: 0.001,
    epochs: 10,
};
const FFM: Settings = Settings {
    lr: 0.2,
    l2: 0.001,
    epochs: 10,
};

/// What a model made of the rows, and what it took.
pub(crate) struct Outcome {
    pub(crate) name: String,
    /// On new rows.
    pub(crate) logloss: f64,
    pub(crate) weights: usize,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

/// The models, and the logloss of the mean click rate and of the true probabilities.
pub(crate) struct Outcomes {
    pub(crate) fm: Outcome,
    /// As many weights as FFM.
    pub(crate) equal_fm: Outcome,
    /// Twice as many.
    pub(crate) double_fm: Outcome,
    pub(crate) ffm: Outcome,
    pub(crate) constant: f64,
    pub(crate) best: f64,
}

/// What clicks are drawn from: a weight for each value of a field, and for each pair of values the
/// inner product of the vectors that they have towards each other's field.
struct Truth {
    linear: Vec<Vec<f64>>,
    /// By field, field towards which, and value.
    vectors: Vec<Vec<Vec<Vec<f64>>>>,
}

impl Truth {
    fn new(seed: u64) -> Self {
        let mut stream = stream(seed, 0);
        let std = (PAIR_STD * PAIR_STD / PLANTED_DIM as f64).powf(0.25);
        let linear = FIELDS.map(|(_, values)| vectors(1, values, 0.5, &mut stream).remove(0));
        let towards = |values| {
            let towards = FIELDS.map(|_| vectors(values, PLANTED_DIM, std, &mut stream));
            towards.to_vec()
        };
        let mut vectors = FIELDS.map(|(_, values)| values).map(towards).to_vec();
        // The two genders are opposites, and turned round beside age.
        let (one, other) = (vec![std; PLANTED_DIM], vec![-std; PLANTED_DIM]);
        vectors[GENDER][CATEGORY] = vec![one.clone(), other.clone()];
        vectors[GENDER][AGE] = vec![other, one];
        Self {
            linear: linear.to_vec(),
            vectors,
        }
    }

    fn log_odds(&self, row: [usize; FIELDS.len()]) -> f64 {
        let mut log_odds = -1.0;
        for (f, &i) in row.iter().enumerate() {
            log_odds += self.linear[f][i];
            for (g, &j) in row.iter().enumerate().skip(f + 1) {
                log_odds += dot(&self.vectors[f][g][i], &self.vectors[g][f][j]);
            }
        }
        log_odds
    }

    fn log(&self, seed: u64) -> Log {
        let mut stream = stream(seed, 1);
        let mut log = Log::new(&FIELDS.map(|(name, _)| name));
        for _ in 0..TRAIN_ROWS + TEST_ROWS {
            let row = FIELDS.map(|(_, values)| stream.random_range(0..values));
            let cells = row.iter().map(usize::to_string).collect();
            log.push(cells, self.log_odds(row), &mut stream);
        }
        log
    }
}

/// Trains the models.
pub(crate) fn run(seed: u64) -> Result<Outcomes, Failure> {
    let log = Truth::new(seed).log(seed);
    let (_, data) = log.prepare(seed, 0, TEST_ROWS)?;
    let fm = |embedding_dim, settings| {
        let fm = FmConfig {
            embedding_dim,
            init_std: 0.1,
            ..FmConfig::default()
        };
        let run = Run::train(&fm, settings, &data, seed)?;
        outcome(format!("FM k={embedding_dim}"), &run)
    };
    let ffm = FfmConfig {
        embedding_dim: DIM,
        normalize: false,
        init_scale: 0.2,
        ..FfmConfig::default()
    };
    let ffm = Run::train(&ffm, FFM, &data, seed)?;
    let [constant, best] = bounds(&data, data.test.as_ref())?;
    Ok(Outcomes {
        fm: fm(DIM, FM)?,
        equal_fm: fm(EQUAL_DIM, EQUAL_FM)?,
        double_fm: fm(2 * EQUAL_DIM, DOUBLE_FM)?,
        ffm: outcome(format!("FFM k={DIM}"), &ffm)?,
        constant,
        best,
    })
}

fn outcome(name: String, run: &Run) -> Result<Outcome, Failure> {
    Ok(Outcome {
        name,
        logloss: logloss(run.metrics.test.as_ref())?,
        weights: run.weights,
        bytes: run.bytes,
        seconds: run.seconds,
    })
}

const TOLD: &str = "\
One vector a value, or one a field

Clicks on rows of gender, age, category,
site and hour. Two values of different
fields have a planted weight as a pair:
the product of the vectors that they
have towards each other's field. Gender
acts on age in reverse of how it acts on
category; the other vectors are drawn
at random. FM has one vector of length k
for a value, FFM one towards each field.

                logloss     above
                of new   the best
                rows     possible
";

const COST: &str = "
Weights, bytes with AdaGrad's state, and
seconds of training:

";

const SEEN: &str = "
FFM beats the FM of as many weights. The
FM of twice as many could hold all that
is planted, but has to learn it from the
same rows. Beside the FM of its own k,
FFM takes nearly four times the weights,
and more time.
";

/// The outcomes as two tables, in lines of at most 40 characters.
pub(crate) fn report(outcomes: &Outcomes) -> String {
    let (mut gain, mut cost) = (String::new(), String::new());
    let mut line = |name: &str, logloss: f64| {
        let above = logloss - outcomes.best;
        let _ = writeln!(gain, "{name:<15} {logloss:.4}   {above:>8.4}");
    };
    let models = [
        &outcomes.fm,
        &outcomes.equal_fm,
        &outcomes.double_fm,
        &outcomes.ffm,
    ];
    line("constant", outcomes.constant);
    for outcome in models {
        line(&outcome.name, outcome.logloss);
        let (name, weights, seconds) = (&outcome.name, outcome.weights, outcome.seconds);
        let bytes = bytes(outcome.bytes);
        let _ = writeln!(cost, "{name:<15} {weights:>5} {bytes:>9} {seconds:>7.2}");
    }
    line("Bayes-optimal", outcomes.best);
    [TOLD, &gain, COST, &cost, SEEN].concat()
}

/// Draws how far each model is from the best possible one, with the weights that it has.
pub(crate) fn draw(outcomes: &Outcomes, file: &Path) -> Result<(), Failure> {
    let models = [
        &outcomes.fm,
        &outcomes.equal_fm,
        &outcomes.double_fm,
        &outcomes.ffm,
    ];
    let above = |of: &Outcome| {
        let name = format!("{}, {} weights", of.name, of.weights);
        (name, vec![of.logloss - outcomes.best])
    };
    Bars {
        title: "One vector a value, or one a field",
        kinds: &["new rows"],
        groups: models.into_iter().map(above).collect(),
    }
    .draw(file)
}
