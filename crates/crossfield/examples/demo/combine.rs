//! Four ways to make one number of two vectors.

use std::fmt::Write;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use crossfield::core::{
    Component, ComponentConfig, Error, Init, Initializer, Lookup, Mlp, MlpConfig, Schema,
    TableConfig, TableField, factor_table, tables_for,
};
use crossfield::train::Parts;
use rand::RngExt;

use crate::bars::Bars;
use crate::planted::{Log, dot, stream, vectors};
use crate::runs::{
    Failure, adam, losses, losses_of, standard_errors_ahead, stopping_early, train_on_burn,
};

const USERS: usize = 300;
const ITEMS: usize = 200;
const PLANTED_DIM: usize = 4;
const TRAIN_ROWS: usize = 30_000;
const VALID_ROWS: usize = 5_000;
const TEST_ROWS: usize = 20_000;

const DIM: usize = 8;
const HIDDEN: [usize; 2] = [64, 32];
const EPOCHS: usize = 40;
const PATIENCE: usize = 6;
const BATCH: usize = 256;
/// Of the vectors; the best of a grid for all four.
const RATE: f64 = 0.01;

/// A way to combine the vectors u and v of a user and an item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    /// ⟨u, v⟩.
    Dot,
    /// s ⟨u, v⟩ / (|u| |v|), with one trained number s.
    Cosine,
    /// Layers over [u, v].
    Concatenation,
    /// Layers over u ⊙ v.
    Product,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Dot => "dot product",
            Self::Cosine => "cosine",
            Self::Concatenation => "concatenation",
            Self::Product => "product",
        }
    }

    /// Numbers that layers read, if there are layers.
    fn inputs(self) -> Option<usize> {
        match self {
            Self::Dot | Self::Cosine => None,
            Self::Concatenation => Some(2 * DIM),
            Self::Product => Some(DIM),
        }
    }

    /// Penalty on the vectors: the best of a grid, for each way on its own.
    fn l2(self) -> f64 {
        match self {
            Self::Dot | Self::Concatenation => 0.03,
            Self::Cosine => 0.003,
            Self::Product => 0.006,
        }
    }
}

/// Combines the vectors of all fields, of which there are two.
struct CombinedConfig(Way);

#[derive(Module, Debug)]
struct Combined {
    #[module(skip)]
    way: Way,
    #[module(skip)]
    fields: Vec<TableField>,
    scale: Option<Param<Tensor<1>>>,
    layers: Option<Mlp>,
}

fn lookups(schema: &Schema) -> Result<(Vec<TableConfig>, Vec<TableField>), Error> {
    let begin = Initializer::Normal { std: 0.3 };
    let ids = schema.bags("combined", &[])?;
    Ok(tables_for(schema, &ids, DIM, begin, |vocabulary| {
        factor_table(DIM, vocabulary)
    }))
}

impl ComponentConfig for CombinedConfig {
    type Component = Combined;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        Ok(lookups(schema)?.0)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<Combined, Error> {
        let config = MlpConfig {
            hidden: HIDDEN.to_vec(),
            ..MlpConfig::default()
        };
        let layers = self.0.inputs();
        let layers = layers.map(|inputs| config.init("combined", inputs, init));
        let scale = Tensor::ones([1], &init.device);
        Ok(Combined {
            way: self.0,
            fields: lookups(schema)?.1,
            scale: (self.0 == Way::Cosine).then(|| Param::from_tensor(scale)),
            layers: layers.transpose()?,
        })
    }
}

impl Component for Combined {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        let v = x.fields(&self.fields);
        let [batch, _, dim] = v.dims();
        let of = |field| v.clone().narrow(1, field, 1).reshape([batch, dim]);
        let product = of(0) * of(1);
        if let Some(layers) = &self.layers {
            let read = match self.way {
                Way::Concatenation => v.reshape([batch, 2 * dim]),
                _ => product,
            };
            return layers.forward(read, x.training());
        }
        let z = product.sum_dim(1);
        match &self.scale {
            Some(scale) => {
                let norm = |field| of(field).square().sum_dim(1).add_scalar(1e-8).sqrt();
                z / (norm(0) * norm(1)) * scale.val().unsqueeze()
            }
            None => z,
        }
    }
}

/// What a predictor made of the test rows.
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    /// Weights of the layers and numbers beside the vectors.
    pub(crate) beside: usize,
    losses: Vec<f64>,
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

fn log(seed: u64) -> Log {
    let mut truth = stream(seed, 0);
    // Makes the standard deviation of the products 1.5.
    let std = 1.5f64.sqrt() * (PLANTED_DIM as f64).powf(-0.25);
    let [users, items] = [USERS, ITEMS].map(|ids| vectors(ids, PLANTED_DIM, std, &mut truth));
    let mut stream = stream(seed, 1);
    let mut log = Log::new(&["user", "item"]);
    for _ in 0..TRAIN_ROWS + VALID_ROWS + TEST_ROWS {
        let [user, item] = [USERS, ITEMS].map(|ids| stream.random_range(0..ids));
        let cells = vec![user.to_string(), item.to_string()];
        log.push(cells, dot(&users[user], &items[item]) - 0.5, &mut stream);
    }
    log
}

fn outcome(way: Way, data: &Parts, seed: u64) -> Result<Outcome, Failure> {
    let optimizer = adam(RATE, way.l2());
    let settings = stopping_early(EPOCHS, BATCH, PATIENCE, seed);
    let config = CombinedConfig(way);
    let mut trained = train_on_burn(&config, &optimizer, &settings, data)?;
    Ok(Outcome {
        name: way.name(),
        beside: trained.model.component().num_params(),
        losses: losses(&mut trained, data)?,
    })
}

/// The constant predictor, the four ways and the planted probabilities.
pub(crate) fn run(seed: u64) -> Result<Vec<Outcome>, Failure> {
    let (_, data) = log(seed).prepare(seed, VALID_ROWS, TEST_ROWS)?;
    let test = data.test.as_ref().ok_or("no test rows")?;
    let odds = |p: f64| (p / (1.0 - p)).ln();
    let mean = data.train.label_mean().ok_or("no training rows")?;
    let truth = test.probabilities().ok_or("the rows were not planted")?;
    let given = |name, logits: Vec<f64>| Outcome {
        name,
        beside: 0,
        losses: losses_of(logits.into_iter(), test),
    };
    let mut outcomes = vec![given("constant", vec![odds(mean); test.len()])];
    for way in [Way::Dot, Way::Cosine, Way::Concatenation, Way::Product] {
        outcomes.push(outcome(way, &data, seed)?);
    }
    let truth = truth.iter().map(|&p| odds(f64::from(p))).collect();
    outcomes.push(given("Bayes-optimal", truth));
    Ok(outcomes)
}

const TOLD: &str = "\
Two vectors, one number

Users like items as the product of two
planted vectors says, some of them long
and some short. The same rows, vectors
of 8 for each user and each item, and
four ways to make a score of two. The
last column: weights beside the vectors.

               logloss   weights
";

const AHEAD: &str = "
Ahead in standard errors of the
difference, row by row:
";

const SEEN: &str = "
The cosine forgets how long the vectors
are. Over vectors side by side, layers
have to learn what a product is; given
the products they need not.
";

/// The outcomes as a table, in lines of at most 40 characters.
pub(crate) fn report(outcomes: &[Outcome]) -> String {
    let mut text = TOLD.to_owned();
    for outcome in outcomes {
        let _ = writeln!(
            text,
            "{:<14} {:.4} {:>9}",
            outcome.name,
            outcome.logloss(),
            outcome.beside
        );
    }
    text += AHEAD;
    if let [_, dot, cosine, concatenation, product, _] = outcomes {
        for (name, ahead) in [
            ("dot of cosine", dot.ahead_of(cosine)),
            ("dot of concatenation", dot.ahead_of(concatenation)),
            ("dot of product", dot.ahead_of(product)),
        ] {
            let _ = writeln!(text, "{name:<26} {ahead:>6.1}");
        }
    }
    text + SEEN
}

/// Draws how far each way is from the best possible.
pub(crate) fn draw(outcomes: &[Outcome], file: &Path) -> Result<(), Failure> {
    let (best, others) = outcomes.split_last().ok_or("six predictors")?;
    let above = |of: &Outcome| (of.name.to_owned(), vec![of.logloss() - best.logloss()]);
    Bars {
        title: "Two vectors, one number",
        kinds: &["new rows"],
        groups: others.iter().map(above).collect(),
    }
    .draw(file)
}
