//! A rule, a matter of pairs and a matter of the past in one log, and sums of three components.

use std::fmt::Write;
use std::path::Path;

use crossfield::attention::{DinConfig, Pooling};
use crossfield::core::Scored;
use crossfield::core::{Component, ComponentConfig, FieldKind, merge_tables};
use crossfield::data::{CrossConfig, DataSpec};
use crossfield::fm::FmConfig;
use crossfield::train::{OptimizerConfig, Parts, Scorer, TableOptions, Trained};
use crossfield::wide_deep::WideConfig;
use rand::{Rng, RngExt};

use crate::bars::Bars;
use crate::planted::{Log, dot, stream, vectors};
use crate::runs::{
    Failure, adam, correlation, losses_of, standard_errors_ahead, stopping_early, train_on_burn,
};

const COLUMNS: [&str; 5] = ["user", "item", "bank", "page", "history"];
const USERS: usize = 200;
/// Items are of a make; candidates of what the past is full of are wanted.
const MAKES: usize = 15;
const MODELS: usize = 6;
/// Banks, and pages; the pairs of them that have a rule; and what it adds or takes.
const CODES: usize = 30;
const RULES: usize = 300;
const RULE: f64 = 2.0;
/// Length of the planted vectors, and the standard deviation of their products.
const PLANTED_DIM: usize = 2;
const PAIR_STD: f64 = 1.2;
/// Items in a history, and what a history of nothing but the candidate's make adds.
const PAST: usize = 6;
const WANTED: f64 = 4.0;
const TRAIN_ROWS: usize = 30_000;
const VALID_ROWS: usize = 4_000;
const TEST_ROWS: usize = 10_000;

const DIM: usize = 8;
const EPOCHS: usize = 15;
const PATIENCE: usize = 3;
const BATCH: usize = 256;
// The best of a small grid for the sum of all three; every model has the same.
/// Rate and L2 of the vectors.
const RATE: f64 = 0.005;
const L2: f64 = 0.01;
/// Likewise of the weights of `wide`.
const WIDE_RATE: f64 = 0.03;
const WIDE_L2: f64 = 0.02;

/// What a predictor made of the test rows.
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    losses: Vec<f64>,
    /// How its score correlates with what each part of the truth adds: rules, pairs, the past.
    pub(crate) follows: [Option<f64>; 3],
}

impl Outcome {
    /// Mean logloss of the test rows.
    pub(crate) fn logloss(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len() as f64
    }

    /// By how much the logloss of another is higher, in standard errors of the difference row by
    /// row.
    pub(crate) fn ahead_of(&self, other: &Self) -> f64 {
        standard_errors_ahead(&self.losses, &other.losses)
    }
}

/// The predictors, and what became of the components in the sum of all three.
pub(crate) struct Outcomes {
    pub(crate) constant: Outcome,
    /// `wide`, `fm`, `din`.
    pub(crate) alone: Vec<Outcome>,
    /// Sums of two.
    pub(crate) two: Vec<Outcome>,
    pub(crate) all: Outcome,
    pub(crate) best: Outcome,
    /// How the score of each component of the sum of all correlates with the parts of the truth.
    pub(crate) within: Vec<(&'static str, [Option<f64>; 3])>,
    /// Tables of each component alone, and of the sum.
    pub(crate) tables: ([usize; 3], usize),
}

/// Rows, and what the parts of the truth add to the log odds of each.
struct Planted {
    log: Log,
    added: Vec<[f64; 3]>,
}

fn item_name(item: usize) -> String {
    format!("{}-{}", item / MODELS, item % MODELS)
}

fn plant(seed: u64) -> Planted {
    let mut truth = stream(seed, 0);
    let mut rules = vec![0.0; CODES * CODES];
    for at in rand::seq::index::sample(&mut truth, CODES * CODES, RULES) {
        rules[at] = if truth.random() { RULE } else { -RULE };
    }
    let std = PAIR_STD.sqrt() * (PLANTED_DIM as f64).powf(-0.25);
    let users = vectors(USERS, PLANTED_DIM, std, &mut truth);
    let items = vectors(MAKES * MODELS, PLANTED_DIM, std, &mut truth);

    let mut stream = stream(seed, 1);
    let mut planted = Planted {
        log: Log::new(&COLUMNS),
        added: Vec::new(),
    };
    for _ in 0..TRAIN_ROWS + VALID_ROWS + TEST_ROWS {
        let user = stream.random_range(0..USERS);
        let [bank, page] = [(); 2].map(|()| stream.random_range(0..CODES));
        let (past, item) = draw_past(&mut stream);
        let of_make = past.iter().filter(|&past| past / MODELS == item / MODELS);
        let share = of_make.count() as f64 / PAST as f64;
        let added = [
            rules[bank * CODES + page],
            dot(&users[user], &items[item]),
            WANTED * share,
        ];
        let past: Vec<String> = past.into_iter().map(item_name).collect();
        let codes = [user, bank, page].map(|code| code.to_string());
        let [user, bank, page] = codes;
        let cells = vec![user, item_name(item), bank, page, past.join("|")];
        let log_odds = added.iter().sum::<f64>() - 1.5;
        planted.log.push(cells, log_odds, &mut stream);
        planted.added.push(added);
    }
    planted
}

/// A history of two makes, and a candidate of one of them or of any.
fn draw_past(stream: &mut impl Rng) -> (Vec<usize>, usize) {
    let makes = [(); 2].map(|()| stream.random_range(0..MAKES));
    let share = stream.random::<f64>();
    let past: Vec<usize> = (0..PAST)
        .map(|_| {
            let make = makes[usize::from(stream.random_bool(share))];
            make * MODELS + stream.random_range(0..MODELS)
        })
        .collect();
    loop {
        let make = if stream.random_bool(0.6) {
            makes[stream.random_range(0..2)]
        } else {
            stream.random_range(0..MAKES)
        };
        let item = make * MODELS + stream.random_range(0..MODELS);
        if !past.contains(&item) {
            return (past, item);
        }
    }
}

fn describe(spec: &mut DataSpec) {
    if let Some(history) = spec.field.last_mut() {
        history.kind = FieldKind::Sequence;
        history.vocabulary = Some("item".to_owned());
    }
    spec.cross = vec![CrossConfig {
        fields: ["bank", "page"].map(str::to_owned).to_vec(),
        ..CrossConfig::default()
    }];
}

/// The test rows, with what each part of the truth adds to them.
struct Tested<'a> {
    data: &'a Parts,
    added: &'a [[f64; 3]],
    seed: u64,
}

impl Tested<'_> {
    fn train<C: ComponentConfig + Sync>(
        &self,
        config: &C,
    ) -> Result<Trained<Scored<C::Component>>, Failure> {
        let tables = config.tables(self.data.train.schema())?;
        let is_wide = tables.iter().any(|table| table.name.starts_with("wide."));
        let of_wide = TableOptions {
            pattern: "wide.*".into(),
            lr: Some(WIDE_RATE),
            l2: Some(WIDE_L2),
            ..TableOptions::default()
        };
        let optimizer = OptimizerConfig {
            table: is_wide.then_some(of_wide).into_iter().collect(),
            ..adam(RATE, L2)
        };
        let settings = stopping_early(EPOCHS, BATCH, PATIENCE, self.seed);
        train_on_burn(config, &optimizer, &settings, self.data)
    }

    fn outcome_of<C: ComponentConfig + Sync>(
        &self,
        name: &'static str,
        config: &C,
    ) -> Result<Outcome, Failure> {
        self.scored(name, &mut self.train(config)?)
    }

    fn scored<C: Component>(
        &self,
        name: &'static str,
        trained: &mut Trained<Scored<C>>,
    ) -> Result<Outcome, Failure> {
        let test = self.data.test.as_ref().ok_or("no test rows")?;
        let mut logits = Vec::with_capacity(test.len());
        trained.score(test, &mut |scores| {
            logits.extend(scores.iter().map(|&score| f64::from(score)));
        })?;
        self.given(name, &logits)
    }

    fn given(&self, name: &'static str, logits: &[f64]) -> Result<Outcome, Failure> {
        let test = self.data.test.as_ref().ok_or("no test rows")?;
        Ok(Outcome {
            name,
            losses: losses_of(logits.iter().copied(), test),
            follows: self.follows(logits),
        })
    }

    fn follows(&self, scores: &[f64]) -> [Option<f64>; 3] {
        [0, 1, 2].map(|part| {
            let pairs = scores.iter().zip(self.added);
            let pairs: Vec<_> = pairs.map(|(&score, added)| (score, added[part])).collect();
            correlation(&pairs)
        })
    }
}

/// Each component alone, the sums of two and the sum of three.
pub(crate) fn run(seed: u64) -> Result<Outcomes, Failure> {
    let planted = plant(seed);
    let (_, data) = planted
        .log
        .prepare_as(seed, VALID_ROWS, TEST_ROWS, describe)?;
    let schema = data.train.schema();
    let tested = Tested {
        data: &data,
        added: &planted.added[TRAIN_ROWS + VALID_ROWS..],
        seed,
    };
    let named = |fields: &[&str]| fields.iter().map(|&field| field.to_owned()).collect();
    let wide = WideConfig {
        fields: named(&["bank", "page", "bank & page"]),
        ..WideConfig::default()
    };
    let fm = FmConfig {
        fields: named(&["user", "item"]),
        embedding_dim: DIM,
        init_std: 0.1,
        ..FmConfig::default()
    };
    let din = DinConfig {
        fields: named(&["item"]),
        embedding_dim: DIM,
        init_std: 0.1,
        attention: Pooling::UnitSoftmax,
        unit_hidden: vec![16],
        hidden: vec![32, 16],
        ..DinConfig::default()
    };

    let tables = |tables| -> Result<usize, Failure> { Ok(merge_tables(tables)?.len()) };
    let of_each = [
        tables(wide.tables(schema)?)?,
        tables(fm.tables(schema)?)?,
        tables(din.tables(schema)?)?,
    ];
    let alone = vec![
        tested.outcome_of("wide", &wide)?,
        tested.outcome_of("fm", &fm)?,
        tested.outcome_of("din", &din)?,
    ];
    let two = vec![
        tested.outcome_of("wide + fm", &(wide.clone(), fm.clone()))?,
        tested.outcome_of("wide + din", &(wide.clone(), din.clone()))?,
        tested.outcome_of("fm + din", &(fm.clone(), din.clone()))?,
    ];
    let sum = ((wide, fm), din);
    let of_sum = tables(sum.tables(schema)?)?;
    let mut trained = tested.train(&sum)?;
    let all = tested.scored("all three", &mut trained)?;

    let test = data.test.as_ref().ok_or("no test rows")?;
    let rows: Vec<u32> = (0..test.len() as u32).collect();
    let (x, _) = trained
        .tables
        .stage(test.batch(&rows).into(), &trained.device);
    let sum = trained.model.component();
    let parts = [
        ("wide", sum.a.a.forward(&x)),
        ("fm", sum.a.b.forward(&x)),
        ("din", sum.b.forward(&x)),
    ];
    let mut within = Vec::new();
    for (name, score) in parts {
        let scores = score.into_data();
        let scores = scores.as_slice::<f32>().map_err(|_| "scores are f32")?;
        let scores: Vec<f64> = scores.iter().map(|&score| f64::from(score)).collect();
        within.push((name, tested.follows(&scores)));
    }

    let odds = |p: f64| (p / (1.0 - p)).ln();
    let mean = data.train.label_mean().ok_or("no training rows")?;
    let truth = test.probabilities().ok_or("the rows were not planted")?;
    let truth: Vec<f64> = truth.iter().map(|&p| odds(f64::from(p))).collect();
    Ok(Outcomes {
        constant: tested.given("constant", &vec![odds(mean); test.len()])?,
        alone,
        two,
        all,
        best: tested.given("Bayes-optimal", &truth)?,
        within,
        tables: (of_each, of_sum),
    })
}

const TOLD: &str = "\
Three kinds of knowledge, one sum

The log odds of a click add up a rule on
some pairs of a bank and a page, the
product of two planted vectors of a user
and an item, and how much of the past is
of the item's make. `wide` has a weight
for each pair of bank and page, `fm`
vectors of users and items, `din` reads
the past for the item. Logloss on new
rows; how the score correlates with what
each part of the truth adds.

              logloss   rule  pair  past
";

const WITHIN: &str = "
What each component scores within the
sum of all three:

                        rule  pair  past
";

impl Outcomes {
    fn all(&self) -> impl Iterator<Item = &Outcome> {
        let models = self.alone.iter().chain(&self.two);
        std::iter::once(&self.constant)
            .chain(models)
            .chain([&self.all, &self.best])
    }
}

fn columns(follows: &[Option<f64>; 3]) -> String {
    let column = |value: &Option<f64>| match value {
        Some(value) => format!(" {value:>5.2}"),
        None => format!(" {:>5}", "-"),
    };
    follows.iter().map(column).collect()
}

/// The outcomes as tables, in lines of at most 40 characters.
pub(crate) fn report(outcomes: &Outcomes) -> String {
    let mut text = TOLD.to_owned();
    for outcome in outcomes.all() {
        let (name, logloss) = (outcome.name, outcome.logloss());
        let follows = columns(&outcome.follows);
        let _ = writeln!(text, "{name:<13} {logloss:>7.4} {follows}");
    }
    text += WITHIN;
    for (name, follows) in &outcomes.within {
        let _ = writeln!(text, "{name:<21} {}", columns(follows));
    }
    text += "\nAhead in standard errors of the\ndifference, row by row, all three of\n";
    for outcome in outcomes.alone.iter().chain(&outcomes.two) {
        let ahead = outcomes.all.ahead_of(outcome);
        let _ = writeln!(text, "{:<13} {ahead:>7.1}", outcome.name);
    }
    let ([wide, fm, din], sum) = outcomes.tables;
    let _ = write!(
        text,
        "\nTables: wide {wide}, fm {fm}, din {din}; the sum\n\
         has {sum}, for the vectors of items are\n\
         one table, which fm and din share.\n"
    );
    text
}

/// Draws how far each predictor is from the best possible.
pub(crate) fn draw(outcomes: &Outcomes, file: &Path) -> Result<(), Failure> {
    let best = outcomes.best.logloss();
    let others = outcomes.all().filter(|of| of.name != outcomes.best.name);
    let above = |of: &Outcome| (of.name.to_owned(), vec![of.logloss() - best]);
    Bars {
        title: "Components and their sums",
        kinds: &["new rows"],
        groups: others.map(above).collect(),
    }
    .draw(file)
}
