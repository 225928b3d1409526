//! A candidate asks the past: what query-dependent weights see that fixed ones cannot.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use crossfield::attention::{DinConfig, Pooling};
use crossfield::core::{Component, FieldKind};
use crossfield::data::{DataSpec, FittedSchema};
use crossfield::train::Parts;
use crossfield_report::HeatMap;
use rand::{Rng, RngExt};

use crate::planted::{Log, stream};
use crate::runs::{
    Failure, adam, losses, losses_of, standard_errors_ahead, stopping_early, train_on_burn,
};

const COLUMNS: [&str; 2] = ["item", "history"];
/// Kinds of items.
const KINDS: [&str; 10] = [
    "shoes", "novel", "camera", "tea", "plant", "rug", "game", "lamp", "knife", "bike",
];
/// Makes of each kind: brands, authors.
const MAKES: usize = 6;
/// Items of each make.
const MODELS: usize = 4;
/// Kinds that a person buys, each of one make that they like.
const LIKED: usize = 4;
/// Share of what they buy that is of that make.
const LOYAL: f64 = 0.85;
const SHORTEST: usize = 6;
const LONGEST: usize = 24;
/// Log odds of a candidate of which the past says nothing, and what a past of nothing but the
/// candidate's make, among what is of its kind, adds.
const ODDS: (f64, f64) = (-2.0, 4.0);
const TRAIN_ROWS: usize = 60_000;
const VALID_ROWS: usize = 6_000;
const TEST_ROWS: usize = 12_000;

const EPOCHS: usize = 20;
const PATIENCE: usize = 2;
const BATCH: usize = 256;
/// Rate and L2 of the vectors.
const RATE: f64 = 0.003;
const L2: f64 = 0.005;

/// The person of the picture: what they bought, the oldest first, and what they are offered. Running
/// shoes of make 2 and novels by author 4, with three things by others.
const BOUGHT: [&str; 10] = [
    "shoes-2a", "novel-4a", "novel-1b", "shoes-2b", "novel-4b", "shoes-5a", "shoes-2c", "novel-4c",
    "shoes-1a", "novel-3a",
];
const OFFERED: [&str; 4] = ["shoes-2d", "shoes-5b", "novel-4d", "novel-3b"];

/// What a model made of the test rows, and of the person of the picture.
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    losses: Vec<f64>,
    /// By candidate, what each thing that they bought counted; none for a model without histories.
    pub(crate) weights: Vec<Vec<f32>>,
    /// Mean share of the weight on things of the candidate's make, over the test rows whose past has
    /// some.
    pub(crate) on_make: f64,
}

impl Outcome {
    /// Mean logloss of the test rows.
    pub(crate) fn logloss(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len() as f64
    }

    /// By how much the logloss of another model is higher, in standard errors of the difference row
    /// by row.
    pub(crate) fn ahead_of(&self, other: &Self) -> f64 {
        standard_errors_ahead(&self.losses, &other.losses)
    }

    /// The share of the weight that a candidate of the picture puts on what begins with `kind`.
    pub(crate) fn share(&self, candidate: usize, kind: &str) -> f32 {
        let Some(weights) = self.weights.get(candidate) else {
            return 0.0;
        };
        let pairs = weights.iter().zip(BOUGHT);
        let of_kind = pairs.filter(|(_, item)| item.starts_with(kind));
        of_kind.map(|(weight, _)| weight).sum::<f32>() / weights.iter().sum::<f32>()
    }
}

/// An item: kind, make, model.
type Item = (usize, usize, usize);

fn name((kind, make, model): Item) -> String {
    let letter = char::from(b'a' + model as u8);
    format!("{}-{make}{letter}", KINDS[kind])
}

/// What was bought, and a candidate that was not.
fn draw(stream: &mut impl Rng) -> (Vec<Item>, Item) {
    let kinds = rand::seq::index::sample(stream, KINDS.len(), LIKED).into_vec();
    let makes: Vec<usize> = (0..LIKED).map(|_| stream.random_range(0..MAKES)).collect();
    let item = |loyal: f64, stream: &mut dyn FnMut(usize) -> usize| {
        let nth = stream(LIKED);
        let make = if (stream(1000) as f64) < 1000.0 * loyal {
            makes[nth]
        } else {
            stream(MAKES)
        };
        (kinds[nth], make, stream(MODELS))
    };
    let mut below = |most: usize| stream.random_range(0..most);
    let length = SHORTEST + below(LONGEST - SHORTEST + 1);
    let bought: Vec<Item> = (0..length).map(|_| item(LOYAL, &mut below)).collect();
    loop {
        let candidate = if below(4) == 0 {
            (below(KINDS.len()), below(MAKES), below(MODELS))
        } else {
            item(0.5, &mut below)
        };
        if !bought.contains(&candidate) {
            return (bought, candidate);
        }
    }
}

fn log_odds(bought: &[Item], candidate: Item) -> f64 {
    let of_kind = bought.iter().filter(|item| item.0 == candidate.0);
    let of_make = of_kind.clone().filter(|item| item.1 == candidate.1).count();
    let share = match of_kind.count() {
        0 => 0.0,
        count => of_make as f64 / count as f64,
    };
    ODDS.0 + ODDS.1 * share
}

fn log(seed: u64) -> Log {
    let mut stream = stream(seed, 0);
    let mut log = Log::new(&COLUMNS);
    for _ in 0..TRAIN_ROWS + VALID_ROWS + TEST_ROWS {
        let (bought, candidate) = draw(&mut stream);
        let odds = log_odds(&bought, candidate);
        let bought: Vec<String> = bought.into_iter().map(name).collect();
        log.push(vec![name(candidate), bought.join("|")], odds, &mut stream);
    }
    // The person of the picture comes last.
    for offered in OFFERED {
        log.push(vec![offered.to_owned(), BOUGHT.join("|")], 0.0, &mut stream);
    }
    log
}

fn describe(spec: &mut DataSpec) {
    if let [_, history] = &mut spec.field[..] {
        history.kind = FieldKind::Sequence;
        history.vocabulary = Some("item".to_owned());
    }
}

fn outcome(
    name: &'static str,
    attention: Pooling,
    (schema, data): (&FittedSchema, &Parts),
    seed: u64,
) -> Result<Outcome, Failure> {
    let config = DinConfig {
        attention,
        embedding_dim: 8,
        hidden: vec![64, 32],
        ..DinConfig::default()
    };
    let optimizer = adam(RATE, L2);
    let settings = stopping_early(EPOCHS, BATCH, PATIENCE, seed);
    let mut trained = train_on_burn(&config, &optimizer, &settings, data)?;
    let mut losses = losses(&mut trained, data)?;
    losses.truncate(TEST_ROWS);
    let test = data.test.as_ref().ok_or("no test rows")?;
    let all: Vec<u32> = (0..test.len() as u32).collect();
    let batch = Arc::new(test.batch(&all));
    let (lookup, _) = trained.tables.stage(batch.clone(), &trained.device);
    let attention = trained.model.component().attention(&lookup);
    // All but the letter of the model.
    let make = |index| {
        let item = schema.key("item", index).unwrap_or_default();
        &item[..item.len().saturating_sub(1)]
    };
    let shares = attention.iter().take(TEST_ROWS).filter_map(|of_row| {
        let (items, history) = (&batch.sparse[of_row.target], &batch.sparse[of_row.history]);
        let asked = make(items.indices[of_row.row]);
        let past = history.range(of_row.row).zip(&of_row.weights);
        let of_make = past.filter(|&(at, _)| make(history.indices[at]) == asked);
        let weights: Vec<f32> = of_make.map(|(_, &weight)| weight).collect();
        let all: f32 = of_row.weights.iter().sum();
        (!weights.is_empty()).then(|| f64::from(weights.iter().sum::<f32>() / all))
    });
    let shares: Vec<f64> = shares.collect();
    let picture = attention.into_iter().skip(TEST_ROWS);
    Ok(Outcome {
        name,
        losses,
        weights: picture.map(|of_row| of_row.weights).collect(),
        on_make: shares.iter().sum::<f64>() / shares.len().max(1) as f64,
    })
}

/// The constant predictor; without histories; with the mean of the past; with attention to it; and
/// the planted probabilities.
pub(crate) fn run(seed: u64) -> Result<Vec<Outcome>, Failure> {
    let test_rows = TEST_ROWS + OFFERED.len();
    let (schema, data) = log(seed).prepare_as(seed, VALID_ROWS, test_rows, describe)?;
    let test = data.test.as_ref().ok_or("no test rows")?;
    let odds = |p: f64| (p / (1.0 - p)).ln();
    let mean = data.train.label_mean().ok_or("no training rows")?;
    let truth = test.probabilities().ok_or("the rows were not planted")?;
    let read = (&schema, &data);
    let given = |name, logits: Vec<f64>| Outcome {
        name,
        losses: losses_of(logits.into_iter().take(TEST_ROWS), test),
        weights: Vec::new(),
        on_make: 0.0,
    };
    Ok(vec![
        given("constant", vec![odds(mean); test.len()]),
        outcome("no history", Pooling::None, read, seed)?,
        outcome("fixed weights", Pooling::Mean, read, seed)?,
        outcome("attention", Pooling::UnitSoftmax, read, seed)?,
        given(
            "Bayes-optimal",
            truth.iter().map(|&p| odds(f64::from(p))).collect(),
        ),
    ])
}

const TOLD: &str = "\
A candidate asks the past

People buy things of four kinds of ten,
and of each kind mostly one make. A
candidate is wanted if it is of the make
that they bought of its kind; the rest
of the past does not matter to it. One
model, with three ways to read the past:

               logloss
";

const PICTURE: &str = "
One person's past. Only the candidate
changes; these are the weights in
percent:

              fixed     attention
bought              shoes-2d novel-4d
";

const SEEN: &str = "
Fixed weights are the same whoever asks:
what is pooled cannot tell the candidate
what it wants to know.
";

/// The outcomes as a table, in lines of at most 40 characters.
pub(crate) fn report(outcomes: &[Outcome]) -> String {
    let mut text = TOLD.to_owned();
    for outcome in outcomes {
        let _ = writeln!(text, "{:<14} {:.4}", outcome.name, outcome.logloss());
    }
    if let [_, none, fixed, attention, _] = outcomes {
        let _ = write!(
            text,
            "\nAhead in standard errors of the\ndifference, row by row:\n\
             attention of fixed weights {:>6.1}\n\
             fixed weights of none      {:>6.1}\n",
            attention.ahead_of(fixed),
            fixed.ahead_of(none),
        );
        let _ = write!(
            text,
            "\nWeight on what is of the candidate's\nmake, where there is some, in percent:\n\
             fixed weights {:>5.1}\nattention     {:>5.1}\n",
            100.0 * fixed.on_make,
            100.0 * attention.on_make,
        );
        text += PICTURE;
        let percent = |outcome: &Outcome, candidate: usize, item: usize| {
            let weights = outcome.weights.get(candidate);
            weights.map_or(0.0, |weights| 100.0 * weights[item])
        };
        for (item, name) in BOUGHT.iter().enumerate() {
            let _ = writeln!(
                text,
                "{name:<12} {:>6.1} {:>8.1} {:>8.1}",
                percent(fixed, 0, item),
                percent(attention, 0, item),
                percent(attention, 2, item)
            );
        }
        for kind in ["shoes", "novel"] {
            let _ = writeln!(
                text,
                "all {kind:<8} {:>6.1} {:>8.1} {:>8.1}",
                100.0 * fixed.share(0, kind),
                100.0 * attention.share(0, kind),
                100.0 * attention.share(2, kind)
            );
        }
    }
    text + SEEN
}

/// Draws the weights of the person of the picture for all that they are offered.
pub(crate) fn draw_map(outcomes: &[Outcome], file: &Path) -> Result<(), Failure> {
    let attention = outcomes.get(3).ok_or("five predictors")?;
    let values: Vec<f32> = (0..BOUGHT.len())
        .flat_map(|item| attention.weights.iter().map(move |weights| weights[item]))
        .collect();
    let map = HeatMap {
        title: "What each candidate looks at in one past",
        rows: &BOUGHT.map(str::to_owned),
        columns: &OFFERED.map(str::to_owned),
        values: &values,
    };
    Ok(std::fs::write(file, map.svg()?)?)
}
