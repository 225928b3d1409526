//! A click model that begins with vectors learned elsewhere.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use crossfield::core::metrics::sigmoid;
use crossfield::core::{ComponentConfig, Loss, factor_table, merge_tables};
use crossfield::data::{
    DataSpec, FieldConfig, FittedSchema, LabelKind, Labels, SplitConfig, encode_files, prepare,
};
use crossfield::embedding::{EmbeddingCollection, RowOptimizer};
use crossfield::mf::{BiasedMfConfig, Duplicates, Interactions, Wrmf, WrmfConfig};
use crossfield::train::{
    EarlyStop, Executor, FusedModel, FusedTrained, OptimizerConfig, Parts, Scorer, Setup,
    TrainConfig, train_fused,
};
use crossfield_fused::FusedConfig;
use plotters::prelude::*;
use rand::RngExt;
use tempfile::TempDir;

use crate::planted::{dot, stream, vectors};
use crate::runs::Failure;

/// Users with a history of plays, and users without.
const WARM: usize = 800;
const COLD: usize = 400;
const ITEMS: usize = 300;
/// Plays of each warm user.
const PLAYS: usize = 30;
/// Length of the planted vectors, and of the model's.
const PLANTED_DIM: usize = 4;
const DIM: usize = 8;
const TRAIN_ROWS: usize = 40_000;
const TEST_ROWS: usize = 20_000;
/// Shares of the training rows.
const SHARES: [f64; 3] = [0.01, 0.1, 1.0];

/// Passes over the training rows among which each model takes its best, by a tenth of its training
/// rows.
const EPOCHS: usize = 100;
const PATIENCE: usize = 20;
// The best of a small grid for the random start on all rows; both starts have the same.
const LR: f64 = 0.03;
const L2: f64 = 0.06;
const INIT_STD: f64 = 0.03;
const SWEEPS: usize = 15;

/// Logloss on new rows.
#[derive(Clone, Copy)]
pub(crate) struct Loglosses {
    /// Of users whose plays are known.
    pub(crate) warm: f64,
    /// Of users without any.
    pub(crate) cold: f64,
}

/// What a share of the training rows is enough for.
pub(crate) struct Outcome {
    pub(crate) rows: usize,
    /// Vectors drawn at random.
    pub(crate) random: Loglosses,
    /// Vectors from the plays.
    pub(crate) from_plays: Loglosses,
}

pub(crate) struct Outcomes {
    pub(crate) by_share: Vec<Outcome>,
    /// What the mean click rate gives.
    pub(crate) constant: Loglosses,
    /// What the true probabilities give.
    pub(crate) best: Loglosses,
}

/// Users and items as they are: plays and clicks follow from the same products.
struct Truth {
    users: Vec<Vec<f64>>,
    items: Vec<Vec<f64>>,
}

impl Truth {
    fn new(seed: u64) -> Self {
        let mut stream = stream(seed, 0);
        // Makes the variance of the products 1.
        let std = (PLANTED_DIM as f64).powf(-0.25);
        Self {
            users: vectors(WARM + COLD, PLANTED_DIM, std, &mut stream),
            items: vectors(ITEMS, PLANTED_DIM, std, &mut stream),
        }
    }

    fn affinity(&self, user: usize, item: usize) -> f64 {
        dot(&self.users[user], &self.items[item])
    }

    /// Who played what: items in proportion to e^(2 affinity).
    fn plays(&self, seed: u64) -> Vec<(usize, usize)> {
        let mut stream = stream(seed, 1);
        let mut plays = Vec::with_capacity(WARM * PLAYS);
        for user in 0..WARM {
            let mut sums = Vec::with_capacity(ITEMS);
            let mut sum = 0.0;
            for item in 0..ITEMS {
                sum += (2.0 * self.affinity(user, item)).exp();
                sums.push(sum);
            }
            for _ in 0..PLAYS {
                let at = sum * stream.random::<f64>();
                plays.push((user, sums.partition_point(|&sum| sum <= at).min(ITEMS - 1)));
            }
        }
        plays
    }

    /// Rows whose clicks are drawn from their true probabilities.
    fn clicks(&self, seed: u64, part: u64, rows: usize) -> Vec<Click> {
        let mut stream = stream(seed, part);
        let draw = |_| {
            let user = stream.random_range(0..self.users.len());
            let item = stream.random_range(0..ITEMS);
            let probability = sigmoid(1.5 * self.affinity(user, item) - 1.0);
            Click {
                user,
                item,
                click: stream.random::<f64>() < probability,
                probability,
            }
        };
        (0..rows).map(draw).collect()
    }
}

#[derive(Clone, Copy)]
struct Click {
    user: usize,
    item: usize,
    click: bool,
    probability: f64,
}

/// The plays, what was made of them, and where rows are written.
struct Demo {
    folder: TempDir,
    seed: u64,
    /// Keys of the plays.
    fitted: FittedSchema,
    /// Vectors of users and items, by their rows there.
    vectors: [Vec<f32>; 2],
}

const FIELDS: [&str; 2] = ["user", "item"];

impl Demo {
    /// Learns vectors from the plays, of which a click model knows nothing.
    fn new(truth: &Truth, seed: u64) -> Result<Self, Failure> {
        let folder = TempDir::new()?;
        let file = folder.path().join("plays.csv");
        let mut text = String::from("user,item,click\n");
        for (user, item) in truth.plays(seed) {
            let _ = writeln!(text, "{user},{item},1");
        }
        std::fs::write(&file, text)?;
        let prepared = prepare(&spec(&file, None), seed, LabelKind::Binary)?;
        prepared.schema.save(folder.path())?;
        let sizes = [0, 1].map(|at| prepared.schema.schema().fields[at].rows as usize);
        let examples = prepared.train.examples();
        let plays = Interactions::of_examples(&examples, [0, 1], sizes, Duplicates::Sum)?;
        let config = WrmfConfig {
            embedding_dim: DIM,
            ..WrmfConfig::default()
        };
        let mut wrmf = Wrmf::new(plays, config, seed)?;
        for _ in 0..SWEEPS {
            wrmf.iterate()?;
        }
        let parameters = wrmf.parameters();
        Ok(Self {
            vectors: [parameters.users.clone(), parameters.items.clone()],
            fitted: prepared.schema,
            folder,
            seed,
        })
    }

    /// Trains a click model on these rows, and scores others.
    fn logloss(
        &self,
        train: &[Click],
        tests: [&[Click]; 2],
        warm: bool,
    ) -> Result<Loglosses, Failure> {
        let file = self.folder.path().join("clicks.csv");
        write_clicks(&file, train)?;
        // Both models know the same keys.
        let mut spec = spec(&file, Some(self.folder.path()));
        spec.data.split = Some(SplitConfig::Random {
            valid: 0.1,
            test: 0.0,
        });
        let prepared = prepare(&spec, self.seed, LabelKind::Binary)?;
        let fitted = prepared.schema.clone();
        let parts = Parts::from(prepared);
        let config = BiasedMfConfig {
            embedding_dim: DIM,
            init_std: INIT_STD,
            ..BiasedMfConfig::default()
        };
        let optimizer = OptimizerConfig {
            rows: RowOptimizer {
                lr: LR,
                l2: L2,
                ..RowOptimizer::default()
            },
            ..OptimizerConfig::default()
        };
        let settings = TrainConfig {
            executor: Executor::Fused,
            epochs: Some(EPOCHS),
            early_stop: Some(EarlyStop { patience: PATIENCE }),
            seed: self.seed,
            threads: 1,
            ..TrainConfig::default()
        };
        let tables = merge_tables(config.tables(fitted.schema())?)?;
        let plans = optimizer.plan(tables)?;
        let out = TempDir::new()?;
        let fill = |tables: &mut EmbeddingCollection| {
            self.fill(&fitted, tables);
            Ok(())
        };
        let setup = Setup {
            train: &settings,
            optimizer: &optimizer,
            plans: &plans,
            out: out.path(),
            fill: warm.then_some(&fill),
            continues: None,
            check_block: None,
        };
        let model = || -> Result<FusedModel, Failure> {
            Ok(FusedModel {
                components: vec![config.fused(fitted.schema())?],
                loss: Loss::Logistic,
                bias: true,
            })
        };
        train_fused(&setup, &parts, model()?, &mut ())?;
        let mut trained =
            FusedTrained::load(out.path(), fitted.fingerprint(), model()?, plans.clone())?;
        let mut of = |clicks: &[Click]| -> Result<f64, Failure> {
            write_clicks(&file, clicks)?;
            let files = [file.display().to_string()];
            let data = encode_files(&spec, &fitted, &files, LabelKind::Binary, Labels::Required)?;
            let report = trained.evaluate(&Arc::new(data))?;
            Ok(report.logloss.ok_or("no rows")?)
        };
        Ok(Loglosses {
            warm: of(tests[0])?,
            cold: of(tests[1])?,
        })
    }

    /// What `init_from` of a run file does: each row begins with the vector of its key.
    fn fill(&self, fitted: &FittedSchema, tables: &mut EmbeddingCollection) {
        for (field, vectors) in FIELDS.iter().zip(&self.vectors) {
            let Some(table) = tables.table_mut(&factor_table(DIM, field)) else {
                continue;
            };
            for row in 1..table.config().rows as u32 {
                let key = fitted.key(field, row);
                if let Some(there) = key.and_then(|key| self.fitted.row(field, key)) {
                    table.begin_row(row, &vectors[there as usize * DIM..][..DIM]);
                }
            }
        }
    }
}

fn spec(file: &Path, keys_from: Option<&Path>) -> DataSpec {
    let mut spec = DataSpec::default();
    spec.data.train = vec![file.display().to_string()];
    spec.label.column = "click".into();
    let field = |name: &str| FieldConfig {
        name: name.into(),
        keys_from: keys_from.map(|run| run.display().to_string()),
        ..FieldConfig::default()
    };
    spec.field = FIELDS.map(field).to_vec();
    spec
}

fn write_clicks(file: &Path, clicks: &[Click]) -> Result<(), Failure> {
    let mut text = String::from("user,item,click\n");
    for Click {
        user, item, click, ..
    } in clicks
    {
        let _ = writeln!(text, "{user},{item},{}", u8::from(*click));
    }
    Ok(std::fs::write(file, text)?)
}

pub(crate) fn run(seed: u64) -> Result<Outcomes, Failure> {
    let truth = Truth::new(seed);
    let demo = Demo::new(&truth, seed)?;
    let train = truth.clicks(seed, 2, TRAIN_ROWS);
    let (warm, cold): (Vec<Click>, Vec<Click>) = truth
        .clicks(seed, 3, TEST_ROWS)
        .into_iter()
        .partition(|click| click.user < WARM);
    let tests = [&warm[..], &cold[..]];
    let by_share = SHARES.iter().map(|share| {
        let rows = (share * TRAIN_ROWS as f64) as usize;
        let train = &train[..rows];
        Ok(Outcome {
            rows,
            random: demo.logloss(train, tests, false)?,
            from_plays: demo.logloss(train, tests, true)?,
        })
    });
    let clicks = train.iter().filter(|click| click.click).count();
    let mean = clicks as f64 / train.len() as f64;
    let both = |of: &dyn Fn(&Click) -> f64| Loglosses {
        warm: logloss(&warm, of),
        cold: logloss(&cold, of),
    };
    Ok(Outcomes {
        by_share: by_share.collect::<Result<_, Failure>>()?,
        constant: both(&|_| mean),
        best: both(&|click| click.probability),
    })
}

/// Mean logloss of probabilities that are given.
fn logloss(clicks: &[Click], probability: &dyn Fn(&Click) -> f64) -> f64 {
    let of = |click: &Click| {
        let p = probability(click);
        -(if click.click { p } else { 1.0 - p }).ln()
    };
    clicks.iter().map(of).sum::<f64>() / clicks.len() as f64
}

pub(crate) fn report(outcomes: &Outcomes) -> String {
    let mut text = String::from("logloss on new rows\n\n");
    text += "             warm users    cold users\n";
    text += "   rows    random  plays random  plays\n";
    for Outcome {
        rows,
        random,
        from_plays,
    } in &outcomes.by_share
    {
        let _ = writeln!(
            text,
            "{rows:>7}     {:.4} {:.4} {:.4} {:.4}",
            random.warm, from_plays.warm, random.cold, from_plays.cold
        );
    }
    for (name, of) in [("constant", outcomes.constant), ("best", outcomes.best)] {
        let _ = writeln!(text, "{name:<11} {:.4}        {:.4}", of.warm, of.cold);
    }
    text += "\nrandom: vectors begin at random;\n";
    text += "plays: as WRMF learned them from plays,\n";
    text += "which warm users have and cold have not.\n";
    text
}

/// Draws logloss over the number of training rows.
pub(crate) fn draw(outcomes: &Outcomes, file: &Path) -> Result<(), Failure> {
    let root = SVGBackend::new(file, (480, 400)).into_drawing_area();
    root.fill(&WHITE)?;
    let rows = |outcome: &Outcome| outcome.rows as f64;
    let (first, last) = match &outcomes.by_share[..] {
        [first, .., last] => (rows(first), rows(last)),
        _ => return Err("at least two shares".into()),
    };
    let low = outcomes.best.warm.min(outcomes.best.cold) - 0.02;
    let high = outcomes.constant.warm.max(outcomes.constant.cold) + 0.04;
    let mut chart = ChartBuilder::on(&root)
        .caption("Logloss of a click model on new rows", ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d((first..last).log_scale(), low..high)?;
    chart
        .configure_mesh()
        .x_desc("training rows")
        .x_label_formatter(&|rows| format!("{rows:.0}"))
        .y_desc("logloss")
        .light_line_style(WHITE)
        .draw()?;
    type Curve = (&'static str, RGBColor, fn(&Outcome) -> f64);
    let curves: [Curve; 4] = [
        (
            "warm users, random start",
            RGBColor(0x9e, 0xc5, 0xe8),
            |of| of.random.warm,
        ),
        ("warm users, from plays", RGBColor(0x1f, 0x77, 0xb4), |of| {
            of.from_plays.warm
        }),
        (
            "cold users, random start",
            RGBColor(0xf4, 0xb1, 0x9b),
            |of| of.random.cold,
        ),
        ("cold users, from plays", RGBColor(0xd6, 0x27, 0x28), |of| {
            of.from_plays.cold
        }),
    ];
    for (name, colour, of) in curves {
        let points = outcomes
            .by_share
            .iter()
            .map(|outcome| (rows(outcome), of(outcome)));
        let line = LineSeries::new(points, colour.stroke_width(2)).point_size(3);
        chart
            .draw_series(line)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    for (name, level) in [
        ("constant", outcomes.constant.warm),
        ("best", outcomes.best.warm),
    ] {
        let points = [(first, level), (last, level)];
        let grey = RGBColor(0x80, 0x80, 0x80);
        chart.draw_series(LineSeries::new(points, grey))?;
        let style = ("sans-serif", 13).into_font().color(&grey);
        chart.draw_series([Text::new(name, (last * 0.4, level + 0.012), style)])?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}
