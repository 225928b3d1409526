//! The `crossfield` command.

mod attention;
mod average;
mod candidates;
mod console;
mod data;
mod describe;
mod explain;
mod export;
mod libffm;
mod lists;
mod mf;
mod model;
mod next_item;
mod predicted;
mod rank;
mod recommend;
#[cfg(feature = "report")]
mod report;
mod run;
mod similar;
mod solver;
mod tune;
mod vectors;
mod warm_start;
mod weights;

use clap::Parser;
use crossfield_attention::BehaviourConfig;
use crossfield_core::Initializer;
use crossfield_data::CrossConfig;
use crossfield_embedding::{Compress, L2By, Precision, RowOptimizer, Storage};
use crossfield_train::{
    Between, Executor, Objective, Range, TableOptions, TrainConfig, TuneConfig, TuneScale,
};

/// Recommender and click models: train, evaluate, predict, recommend, explain.
#[derive(Parser, Debug)]
#[command(version, about, max_term_width = 100)]
enum Command {
    /// Trains the model of a run file.
    Train(run::TrainArgs),
    /// Measures a finished run on labelled rows.
    Eval(run::EvalArgs),
    /// Prints a prediction a line: a probability, or a rating.
    Predict(run::PredictArgs),
    /// Searches for settings of a run file by hold-out: random search with successive halving.
    Tune(tune::TuneArgs),
    /// Ranks candidates for a context, best first.
    Rank(rank::RankArgs),
    /// Says what a finished run is: components, tables, weights, operations, data, figures.
    Describe(describe::DescribeArgs),
    /// Takes the score of one row apart, or lists the heaviest weights of a model.
    Explain(explain::ExplainArgs),
    /// Finds the nearest neighbours of a key by the vectors that were learned.
    Similar(similar::SimilarArgs),
    /// Lists the best items for a user, known or new.
    Recommend(recommend::RecommendArgs),
    /// Puts finished runs on one page, to look at and to compare.
    #[cfg(feature = "report")]
    Report(report::ReportArgs),
    /// Makes a finished run of another program's model.
    Import(libffm::ImportArgs),
    /// Writes the vectors or the model of a finished run for other programs.
    Export(export::ExportArgs),
    /// Generates, fetches and describes data.
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Lists the models with their options and defaults.
    Models,
}

fn main() -> std::process::ExitCode {
    let command = Command::parse();
    let result = make_threads().and_then(|()| command.run());
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// Makes the threads for what has no pool of its own. Left to their first use, they end the process in a
/// panic where the system gives none.
fn make_threads() -> run::Anyhow<()> {
    let made = rayon::ThreadPoolBuilder::new().build_global();
    made.map_err(|error| format!("no threads to work with: {error}").into())
}

impl Command {
    fn run(&self) -> run::Anyhow<()> {
        match self {
            Self::Train(args) => run::train(args),
            Self::Eval(args) => run::eval(args),
            Self::Predict(args) => run::predict(args),
            Self::Tune(args) => tune::tune(args),
            Self::Rank(args) => rank::rank(args),
            Self::Describe(args) => describe::describe(args),
            Self::Explain(args) => explain::explain(args),
            Self::Similar(args) => similar::similar(args),
            Self::Recommend(args) => recommend::recommend(args),
            #[cfg(feature = "report")]
            Self::Report(args) => report::report(args),
            Self::Import(args) => libffm::import(args),
            Self::Export(args) => export::export(args),
            Self::Data(command) => data::run(command),
            Self::Models => models(),
        }
    }
}

fn models() -> Result<(), Box<dyn std::error::Error>> {
    let mut text =
        String::from("# [model]: sum = [names], kind = name for one, or average = [runs]\n");
    for kind in model::KINDS {
        let defaults = model::Choice::defaults(kind).expect("a known kind");
        text += &format!("\n[model.{kind}]\n{}", toml::to_string(&defaults)?);
    }
    let spec = crossfield_data::DataSpec {
        field: vec![crossfield_data::FieldConfig::default()],
        ..Default::default()
    };
    let spec = spec.complete();
    let data = toml::Value::try_from(spec.data)?;
    let label = toml::Value::try_from(spec.label)?;
    let field = toml::Value::try_from(spec.field)?;
    let optimizer = toml::Value::try_from(crossfield_train::OptimizerConfig::default())?;
    let mut train = TrainConfig::default();
    train.complete();
    let train = toml::Value::try_from(train)?;
    let sections = [
        ("data", data),
        ("label", label),
        ("field", field),
        ("optimizer", optimizer),
        ("train", train),
    ];
    for (name, section) in sections {
        let section = toml::Table::from_iter([(name.to_owned(), section)]);
        text += &format!("\n{}", toml::to_string(&section)?);
    }
    // As comments, what not every run may have. These name its fields.
    let cross = CrossConfig {
        fields: ["bank", "clicked"].map(str::to_owned).to_vec(),
        ..CrossConfig::default()
    };
    let condition = CrossConfig {
        when: Some("bank=kookmin AND clicked=travel".to_owned()),
        ..CrossConfig::default()
    };
    text += "\n# crosses of fields; hash_rows = 10000 in place of min_count for no vocabulary\n";
    for cross in [cross, condition] {
        text += "# [[cross]]\n";
        let cross = toml::to_string(&cross.complete())?;
        text.extend(cross.lines().map(|line| format!("# {line}\n")));
    }
    text += "\n# what asks which histories, as often as wanted; left out, every sequence is the\n\
             # history of the one field of its vocabulary\n# [[model.din.behaviour]]\n";
    let behaviour = BehaviourConfig {
        target: ["item", "category"].map(str::to_owned).to_vec(),
        history: ["history", "history_category"].map(str::to_owned).to_vec(),
        ..BehaviourConfig::default()
    };
    let behaviour = toml::to_string(&behaviour)?;
    text.extend(behaviour.lines().map(|line| format!("# {line}\n")));
    text += "\n# what tables may take of the memory; left out, what the machine has\n\
             # [train]\n# memory = \"6GB\"\n";
    // No other executor takes these.
    let solvers = [
        (Executor::Als, Objective::Squared),
        (Executor::Als, Objective::Wrmf),
        (Executor::Mcmc, Objective::Squared),
    ];
    for (executor, loss) in solvers {
        let mut solver = TrainConfig {
            executor,
            loss,
            ..TrainConfig::default()
        };
        solver.complete();
        let (executor, loss) = (executor.name(), loss.name());
        text += &format!("\n# with train.executor = \"{executor}\", train.loss = \"{loss}\"\n");
        let options = toml::to_string(&solver.solver())?;
        text += &format!("# epochs = {}\n# [train.solver]\n", solver.epochs());
        text.extend(options.lines().map(|line| format!("# {line}\n")));
    }
    let lr = Range::Between(Between {
        low: 0.003,
        high: 0.3,
        scale: TuneScale::Log,
        integer: false,
    });
    let tune = TuneConfig {
        range: [("optimizer.rows.lr".to_owned(), lr)].into(),
        ..TuneConfig::default()
    };
    text += "\n# what `crossfield tune` searches: keys as --set has them\n# [tune]\n";
    let tune = toml::to_string(&tune)?;
    let tune = tune.replace("[range", "[tune.range");
    text.extend(tune.lines().map(|line| format!("# {line}\n")));
    // And these match tables by name. They have no defaults: what is left out is as for all tables.
    let rows = RowOptimizer::default();
    let table = TableOptions {
        pattern: "v8.*".into(),
        kind: Some(rows.kind),
        lr: Some(rows.lr),
        l2: Some(rows.l2),
        l2_by: L2By::default(),
        l1: Some(rows.l1),
        beta: Some(rows.beta),
        initial_accumulator: Some(rows.initial_accumulator),
        precision: Precision::default(),
        storage: Storage::default(),
        initializer: Some(Initializer::Normal { std: 0.01 }),
        frozen: false,
        max_norm: Some(1.0),
        compress: Some(Compress::Hash {
            rows: 10_000,
            hashes: 2,
        }),
        init_from: Some("runs/mf".into()),
        init_table: Some("v32.item".into()),
    };
    text += "\n# exceptions by table, each key where it is wanted\n# [[optimizer.table]]\n";
    for (key, value) in toml::Table::try_from(table)? {
        text += &format!("# {key} = {value}\n");
    }
    run::print(&text)
}
