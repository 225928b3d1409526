//! Rules that are remembered, and tastes that are inferred: Wide & Deep and its two halves.

use std::fmt::Write;
use std::path::Path;

use crossfield::core::{ComponentConfig, FieldKind};
use crossfield::data::{CrossConfig, DataSpec, FieldConfig};
use crossfield::embedding::{RowOptimizer, RowOptimizerKind};
use crossfield::train::{OptimizerConfig, Parts, TableOptions};
use crossfield::wide_deep::{DeepConfig, WideConfig};
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};

use crate::bars::Bars;
use crate::planted::{Log, stream, vectors};
use crate::runs::{
    Failure, losses, losses_of, standard_errors_ahead, stopping_early, train_on_burn,
};

const COLUMNS: [&str; 6] = ["reader", "age", "ad", "price", "bank", "page"];
/// Ids that are seen in training, of readers and of ads; as many others are not. Each has an age, or
/// a price, and a small weight of its own.
const IDS: usize = 2000;
/// Ages, and prices.
const GROUPS: usize = 120;
/// Banks, and pages.
const CODES: usize = 60;
/// Pairs of a bank and a page that have a rule.
const RULES: usize = 150;
/// What a rule adds to the log odds or takes from them.
const RULE: f64 = 3.0;
/// Share of the training rows that a rule is about.
const RULE_ROWS: f64 = 0.2;
/// Share of the pairs of an age and a price that are kept out of training.
const HELD_OUT: f64 = 0.15;
/// Regions of ages and prices with a taste of their own.
const TASTES: usize = 8;
/// Ids seen less often in training share a row, from which new ones are scored.
const MIN_COUNT: u64 = 30;
const TRAIN_ROWS: usize = 100_000;
const VALID_ROWS: usize = 10_000;
/// Of each of the three kinds of test rows.
const TEST_ROWS: usize = 10_000;

// Of the settings tried, those that were best on all three seeds, for each model on its own.
/// Rate and L1 of the wide part's FTRL, alone and beside the deep part. Gradients are means over a
/// batch, which is why the rates are large.
const WIDE: (f64, f64) = (5.0, 0.03);
const WIDE_OF_BOTH: (f64, f64) = (20.0, 0.3);
/// Rate and L2 of the deep part's vectors; its dense weights take Adam at the default rate.
const VECTORS: (f64, f64) = (0.003, 0.01);
const EPOCHS: usize = 40;
const PATIENCE: usize = 3;
const BATCH: usize = 256;

/// The kinds of test rows, in the order in which they follow each other.
#[derive(Clone, Copy)]
pub(crate) enum Slice {
    /// The bank and the page have a rule.
    Rules,
    /// The age and the price did not meet in training.
    HeldOut,
    /// Neither the reader nor the ad was in training.
    NewIds,
}

/// What a model made of the test rows.
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    /// Logloss of each test row, rules first, then held-out pairs, then new ids.
    losses: Vec<f64>,
}

impl Outcome {
    /// The mean logloss of a kind of rows.
    pub(crate) fn logloss(&self, slice: Slice) -> f64 {
        let losses = self.of(slice);
        losses.iter().sum::<f64>() / losses.len() as f64
    }

    /// By how much the logloss of another model is higher on a kind of rows, in standard errors of
    /// the difference row by row.
    pub(crate) fn ahead_of(&self, other: &Self, slice: Slice) -> f64 {
        standard_errors_ahead(self.of(slice), other.of(slice))
    }

    fn of(&self, slice: Slice) -> &[f64] {
        &self.losses[slice as usize * TEST_ROWS..][..TEST_ROWS]
    }
}

/// What clicks are drawn from.
struct Truth {
    /// By reader, known ones first: age, weight. The same of ads: price, weight.
    ids: [Vec<(usize, f64)>; 2],
    /// By age, then price.
    taste: Vec<Vec<f64>>,
    held_out: Vec<Vec<bool>>,
    /// By bank, then page; 0 where there is none.
    rules: Vec<Vec<f64>>,
}

/// A row before its click: reader, ad, bank, page.
struct Impression {
    reader: usize,
    ad: usize,
    bank: usize,
    page: usize,
}

impl Truth {
    fn new(seed: u64) -> Self {
        let mut stream = stream(seed, 0);
        let ids = [(); 2].map(|()| {
            let weights = vectors(2 * IDS, 1, 0.3, &mut stream).into_iter().flatten();
            let weights: Vec<f64> = weights.collect();
            let group = |weight| (stream.random_range(0..GROUPS), weight);
            weights.into_iter().map(group).collect()
        });
        let tastes: Vec<Taste> = (0..TASTES).map(|_| Taste::draw(&mut stream)).collect();
        let taste = |age, price| tastes.iter().map(|taste| taste.at(age, price)).sum();
        let mut rules = vec![vec![0.0; CODES]; CODES];
        for at in rand::seq::index::sample(&mut stream, CODES * CODES, RULES) {
            rules[at / CODES][at % CODES] = sign(&mut stream) * RULE;
        }
        Self {
            ids,
            taste: (0..GROUPS)
                .map(|age| (0..GROUPS).map(|price| taste(age, price)).collect())
                .collect(),
            held_out: (0..GROUPS)
                .map(|_| (0..GROUPS).map(|_| stream.random_bool(HELD_OUT)).collect())
                .collect(),
            rules,
        }
    }

    fn is_held_out(&self, row: &Impression) -> bool {
        self.held_out[self.ids[0][row.reader].0][self.ids[1][row.ad].0]
    }

    fn log_odds(&self, row: &Impression) -> f64 {
        let [(age, reader), (price, ad)] = [self.ids[0][row.reader], self.ids[1][row.ad]];
        self.taste[age][price] + reader + ad + self.rules[row.bank][row.page] - 1.0
    }

    /// A row of a kind of test rows, or of training.
    fn draw(&self, slice: Option<Slice>, stream: &mut impl Rng) -> Impression {
        let is_new = matches!(slice, Some(Slice::NewIds));
        // Some readers and ads come often, many rarely.
        let mut id = || {
            (IDS as f64 * stream.random::<f64>().powi(2)) as usize + if is_new { IDS } else { 0 }
        };
        let [reader, ad] = [id(), id()];
        let has_rule = match slice {
            Some(slice) => matches!(slice, Slice::Rules),
            None => stream.random_bool(RULE_ROWS),
        };
        loop {
            let mut code = || stream.random_range(0..CODES);
            let row = Impression {
                reader,
                ad,
                bank: code(),
                page: code(),
            };
            if (self.rules[row.bank][row.page] != 0.0) == has_rule {
                return row;
            }
        }
    }

    fn log(&self, seed: u64) -> Log {
        let mut stream = stream(seed, 1);
        let mut log = Log::new(&COLUMNS);
        let tests = [Slice::Rules, Slice::HeldOut, Slice::NewIds];
        let parts = std::iter::once((None, TRAIN_ROWS + VALID_ROWS))
            .chain(tests.map(|slice| (Some(slice), TEST_ROWS)));
        for (slice, rows) in parts {
            let held_out = matches!(slice, Some(Slice::HeldOut));
            for _ in 0..rows {
                let row = loop {
                    let row = self.draw(slice, &mut stream);
                    if self.is_held_out(&row) == held_out {
                        break row;
                    }
                };
                let [age, price] = [self.ids[0][row.reader].0, self.ids[1][row.ad].0];
                let cells = [row.reader, age, row.ad, price, row.bank, row.page];
                let cells = cells.map(|cell| cell.to_string()).to_vec();
                log.push(cells, self.log_odds(&row), &mut stream);
            }
        }
        log
    }
}

/// A hill or a hollow over ages and prices.
struct Taste {
    height: f64,
    centre: [f64; 2],
    width: [f64; 2],
}

impl Taste {
    fn draw(stream: &mut impl Rng) -> Self {
        let mut uniform = |low: f64, high: f64| stream.random_range(low..high);
        Self {
            centre: [(); 2].map(|()| uniform(0.0, GROUPS as f64)),
            width: [(); 2].map(|()| uniform(6.0, 12.0)),
            height: 4.0 * sign(stream),
        }
    }

    fn at(&self, age: usize, price: usize) -> f64 {
        let away =
            |axis: usize, place: usize| (place as f64 - self.centre[axis]) / self.width[axis];
        let square = away(0, age).powi(2) + away(1, price).powi(2);
        self.height * (-square / 2.0).exp()
    }
}

fn sign(stream: &mut impl Rng) -> f64 {
    let drawn: f64 = StandardNormal.sample(stream);
    drawn.signum()
}

/// Ages and prices as values and as numbers, and the two crosses.
fn describe(spec: &mut DataSpec) {
    for field in &mut spec.field {
        if field.name == "reader" || field.name == "ad" {
            field.min_count = Some(MIN_COUNT);
        }
    }
    let number = |column: &str| FieldConfig {
        name: format!("{column} as a number"),
        column: Some(column.into()),
        kind: FieldKind::Numeric,
        ..FieldConfig::default()
    };
    spec.field.extend(["age", "price"].map(number));
    let cross = |fields: [&str; 2]| CrossConfig {
        fields: fields.map(str::to_owned).to_vec(),
        ..CrossConfig::default()
    };
    spec.cross = [["bank", "page"], ["age", "price"]].map(cross).to_vec();
}

fn of_wide((lr, l1): (f64, f64)) -> TableOptions {
    TableOptions {
        pattern: "wide.*".into(),
        kind: Some(RowOptimizerKind::Ftrl),
        lr: Some(lr),
        l1: Some(l1),
        // Not that of the vectors.
        l2: Some(0.0),
        ..TableOptions::default()
    }
}

/// Trains a model and scores the test rows.
fn outcome(
    name: &'static str,
    config: &(impl ComponentConfig + Sync),
    wide: Option<(f64, f64)>,
    data: &Parts,
    seed: u64,
) -> Result<Outcome, Failure> {
    let (lr, l2) = VECTORS;
    let optimizer = OptimizerConfig {
        rows: RowOptimizer {
            lr,
            l2,
            ..RowOptimizer::default()
        },
        table: wide.map(of_wide).into_iter().collect(),
        ..OptimizerConfig::default()
    };
    let settings = stopping_early(EPOCHS, BATCH, PATIENCE, seed);
    let mut trained = train_on_burn(config, &optimizer, &settings, data)?;
    Ok(Outcome {
        name,
        losses: losses(&mut trained, data)?,
    })
}

/// The constant predictor, the wide part alone, the deep part alone, both, and the planted
/// probabilities.
pub(crate) fn run(seed: u64) -> Result<Vec<Outcome>, Failure> {
    let log = Truth::new(seed).log(seed);
    let (_, data) = log.prepare_as(seed, VALID_ROWS, 3 * TEST_ROWS, describe)?;
    let wide = WideConfig {
        // Not the numbers, of which these are buckets.
        fields: COLUMNS
            .into_iter()
            .chain(["bank & page", "age & price"])
            .map(str::to_owned)
            .collect(),
        ..WideConfig::default()
    };
    let deep = DeepConfig {
        embedding_dim: 4,
        hidden: vec![64, 32],
        ..DeepConfig::default()
    };
    let test = data.test.as_ref().ok_or("no test rows")?;
    let odds = |p: f64| (p / (1.0 - p)).ln();
    let mean = data.train.label_mean().ok_or("no training rows")?;
    let truth = test.probabilities().ok_or("the rows were not planted")?;
    let given = |name, logits: Vec<f64>| Outcome {
        name,
        losses: losses_of(logits.into_iter(), test),
    };
    Ok(vec![
        given("constant", vec![odds(mean); test.len()]),
        outcome("wide", &wide, Some(WIDE), &data, seed)?,
        outcome("deep", &deep, None, &data, seed)?,
        outcome(
            "wide & deep",
            &(wide, deep),
            Some(WIDE_OF_BOTH),
            &data,
            seed,
        )?,
        given(
            "Bayes-optimal",
            truth.iter().map(|&p| odds(f64::from(p))).collect(),
        ),
    ])
}

const TOLD: &str = "\
Remembering and inferring

Readers of some age meet ads of some
price. How they like them is smooth in
both. And 150 pairs of a bank and a page
have a rule, which follows from nothing
but that pair. The wide part has a
weight for each value and each pair of
bank and page, and of age and price; the
deep part vectors, and age and price as
numbers. Logloss on rows with a rule, on
pairs of age and price kept out of
training, and on readers and ads that
training never saw.

              rules  held out  new ids
";

const AHEAD: &str = "
Ahead in standard errors of the
difference, row by row:
";

const SEEN: &str = "
The wide part knows the rules, the deep
part what lies between what it saw; both
together know both.
";

/// The outcomes as a table, in lines of at most 40 characters.
pub(crate) fn report(outcomes: &[Outcome]) -> String {
    let mut text = TOLD.to_owned();
    for outcome in outcomes {
        let [rules, held_out, new_ids] =
            [Slice::Rules, Slice::HeldOut, Slice::NewIds].map(|slice| outcome.logloss(slice));
        let _ = writeln!(
            text,
            "{:<13} {rules:.4} {held_out:>9.4} {new_ids:>8.4}",
            outcome.name
        );
    }
    text += AHEAD;
    if let [_, wide, deep, both, _] = outcomes {
        let slices = [Slice::Rules, Slice::HeldOut, Slice::NewIds];
        let rows = [
            (
                "wide of deep",
                slices.map(|slice| wide.ahead_of(deep, slice)),
            ),
            (
                "both of wide",
                slices.map(|slice| both.ahead_of(wide, slice)),
            ),
            (
                "both of deep",
                slices.map(|slice| both.ahead_of(deep, slice)),
            ),
        ];
        for (name, [rules, held_out, new_ids]) in rows {
            let _ = writeln!(
                text,
                "{name:<13} {rules:>6.1} {held_out:>9.1} {new_ids:>8.1}"
            );
        }
    }
    text + SEEN
}

/// Draws how far each model is from the best possible one, on each kind of rows.
pub(crate) fn draw(outcomes: &[Outcome], file: &Path) -> Result<(), Failure> {
    let (best, others) = outcomes.split_last().ok_or("five predictors")?;
    let above = |of: &Outcome| {
        let slices = [Slice::Rules, Slice::HeldOut, Slice::NewIds];
        let above = |slice| of.logloss(slice) - best.logloss(slice);
        (of.name.to_owned(), slices.map(above).to_vec())
    };
    Bars {
        title: "Wide, deep and both",
        kinds: &["rows with a rule", "held-out pairs", "new ids"],
        groups: others.iter().map(above).collect(),
    }
    .draw(file)
}
