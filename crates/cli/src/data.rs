//! `data synth`, `data fetch`, `data sequences`, `data stats` and `data prepare`.

use std::path::PathBuf;

use crossfield_data::synth::{SynthConfig, generate};
use crossfield_data::{
    EventFormat, SampleSplit, SampleTargets, SequenceSamples, Ties, grouped, prepare,
    prepare_in_passes,
};
use crossfield_train::{Error, RunFile};

use crate::model::ModelConfig;

/// `crossfield data`.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum DataCommand {
    /// Writes a planted ad log, as CSV or by its ending as Parquet; its true click probabilities
    /// are known.
    Synth {
        /// The file to write; `-` is stdout.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Impressions.
        #[arg(long, default_value_t = SynthConfig::default().rows)]
        rows: usize,
        /// Seed of everything random.
        #[arg(long, default_value_t = SynthConfig::default().seed)]
        seed: u64,
    },
    /// Downloads a data set from its home and checks it.
    #[cfg(feature = "fetch")]
    Fetch {
        /// ml-100k or adult.
        #[arg(value_parser = ["ml-100k", "adult"])]
        set: String,
        /// Where `<set>/<file>.gz` go; point CROSSFIELD_DATA there.
        #[arg(long, value_name = "DIR", default_value = "data")]
        out: PathBuf,
        /// A zip or folder that is already here, instead of a download.
        #[arg(long, value_name = "PATH")]
        from: Option<PathBuf>,
        /// Another server with the same files.
        #[arg(long, value_name = "URL", hide = true)]
        base_url: Option<String>,
    },
    /// Makes rows of a target and the history before it, from ratings or lists.
    Sequences(SequencesArgs),
    /// Reads the data of a run file and says what is in it.
    Stats {
        /// The run file (TOML).
        run_file: PathBuf,
        /// Overrides a key of the run file.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,
    },
    /// Builds the cache of a run file (data.cache) in memory that does not grow with the files.
    Prepare {
        /// The run file (TOML).
        run_file: PathBuf,
        /// Overrides a key of the run file.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,
    },
}

pub(crate) fn run(command: &DataCommand) -> Result<(), Box<dyn std::error::Error>> {
    match command {
        DataCommand::Synth { out, rows, seed } => {
            let log = generate(&SynthConfig {
                rows: *rows,
                seed: *seed,
                ..SynthConfig::default()
            })?;
            if out.as_os_str() == "-" {
                log.write_csv(std::io::stdout().lock())?;
            } else {
                let file = std::fs::File::create(out).map_err(Error::io(out, "create"))?;
                let file = std::io::BufWriter::new(file);
                let written = match out.extension().and_then(|extension| extension.to_str()) {
                    #[cfg(feature = "parquet")]
                    Some("parquet") => log.write_parquet(file),
                    _ => log.write_csv(file),
                };
                written.map_err(Error::io(out, "write"))?;
                eprintln!("{} rows in {}", log.len(), out.display());
            }
            Ok(())
        }
        #[cfg(feature = "fetch")]
        DataCommand::Fetch {
            set,
            out,
            from,
            base_url,
        } => {
            use crossfield_data::fetch::{DataSet, FetchOptions, fetch};
            let set: DataSet = set.parse()?;
            let options = FetchOptions {
                from: from.clone(),
                base_url: base_url.clone(),
                ..FetchOptions::into_folder(out)
            };
            let fetched = fetch(set, &options)?;
            for file in &fetched.files {
                println!("{}", file.display());
            }
            eprintln!("{}", fetched.terms);
            eprintln!("use it with: export CROSSFIELD_DATA={}", out.display());
            Ok(())
        }
        DataCommand::Sequences(args) => sequences(args),
        DataCommand::Stats { run_file, sets } => {
            let run = RunFile::<ModelConfig>::read(run_file, sets)?;
            let label = crate::run::label_kind(run.train.loss);
            let prepared = prepare(&run.data_spec(), run.train.seed, label)?;
            crate::run::print(&prepared.report.to_string())
        }
        DataCommand::Prepare { run_file, sets } => {
            let run = RunFile::<ModelConfig>::read(run_file, sets)?;
            let (seed, label) = (run.train.seed, crate::run::label_kind(run.train.loss));
            let mut reading = crate::console::Reading::new();
            let see = &mut |at| reading.see(at);
            let prepared = prepare_in_passes(&run.data_spec(), seed, label, see)?;
            drop(reading);
            crate::run::print(&prepared.report.to_string())
        }
    }
}

/// `crossfield data sequences`.
#[derive(clap::Args, Debug)]
pub(crate) struct SequencesArgs {
    /// Ratings or lists of items, .gz and .zst too.
    file: String,
    /// Folder of train.csv, valid.csv and test.csv: new, or empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// An event a line between tabs; the same between commas, with a header; or a user a line,
    /// then their items.
    #[arg(long, value_enum, default_value_t)]
    format: FormatArg,
    /// Columns of user, item, rating and time; the last two may be absent, and - is no rating.
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "user,item,rating,timestamp"
    )]
    columns: Vec<String>,
    /// Between cells, if not a tab (ratings) or a comma (csv).
    #[arg(long, value_name = "CHAR")]
    separator: Option<String>,
    /// Categories of items: a csv file, or a .json object of lists.
    #[arg(long, value_name = "FILE")]
    attributes: Option<String>,
    /// Its columns of item and category, in a csv file.
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        num_args = 1,
        default_value = "item,category"
    )]
    attribute_columns: Vec<String>,
    /// Adds times and gaps; items of lists are item:time.
    #[arg(long)]
    times: bool,
    /// Ratings from here on are likes [default: all are].
    #[arg(long, value_name = "R")]
    min_rating: Option<f64>,
    /// Items kept of a history, the last; 0 keeps all.
    #[arg(long, value_name = "N", default_value_t = 50)]
    max_len: usize,
    /// A row for each event, or for the last one of each part.
    #[arg(long, value_enum, default_value_t)]
    targets: TargetsArg,
    /// Rows for likes alone; negatives imply it.
    #[arg(long)]
    liked_only: bool,
    /// Rows of label 0 for each like: items that the user never had.
    #[arg(long, value_name = "N", default_value_t = 0)]
    negatives: usize,
    /// The same of validation and test rows [default: as many].
    #[arg(long, value_name = "N")]
    test_negatives: Option<usize>,
    /// Negatives of test rows instead of drawn ones: a user, then their items, on a line.
    #[arg(long, value_name = "FILE")]
    test_candidates: Option<String>,
    /// Each user's last event tests, the one before it validates; or shares do; or --test-rows lists
    /// the events that test, and histories are of training events alone.
    #[arg(long, value_enum, default_value_t)]
    split: SplitArg,
    /// Share of each user's events, with --split rows of all [default: 0.1].
    #[arg(long, value_name = "SHARE")]
    valid: Option<f64>,
    /// Share of each user's events [default: 0.1].
    #[arg(long, value_name = "SHARE")]
    test: Option<f64>,
    /// The events that test: their places in the file, from 0, one a line.
    #[arg(long, value_name = "FILE")]
    test_rows: Option<String>,
    /// Events with nothing before them have rows too.
    #[arg(long)]
    empty_histories: bool,
    /// Events of the target's own time: not in the history, or as the file has them.
    #[arg(long, value_enum, default_value_t)]
    ties: TiesArg,
    /// Seed of the negatives, and of the share of --split rows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, Default)]
enum FormatArg {
    #[default]
    Ratings,
    Csv,
    Lists,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, Default)]
enum TargetsArg {
    #[default]
    All,
    Last,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, Default)]
enum SplitArg {
    #[default]
    Last,
    Share,
    Rows,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, Default)]
enum TiesArg {
    #[default]
    Exclude,
    Order,
}

fn sequences(args: &SequencesArgs) -> Result<(), Box<dyn std::error::Error>> {
    let refuse = |option: &str, reason: &str| Error::Option {
        option: option.to_owned(),
        reason: reason.to_owned(),
    };
    let split = match (args.split, args.valid, args.test, &args.test_rows) {
        (SplitArg::Share, valid, test, None) => SampleSplit::Share {
            valid: valid.unwrap_or(0.1),
            test: test.unwrap_or(0.1),
        },
        (SplitArg::Rows, valid, None, Some(file)) => SampleSplit::Rows {
            valid: valid.unwrap_or(0.1),
            test: file.clone(),
        },
        (SplitArg::Last, None, None, None) => SampleSplit::Last,
        (SplitArg::Rows, _, None, None) => {
            return Err(refuse("--split rows", "expected --test-rows FILE beside it").into());
        }
        (SplitArg::Rows, _, Some(_), _) => {
            return Err(refuse("--test", "expected --test-rows FILE with --split rows").into());
        }
        (_, _, _, Some(_)) => {
            return Err(refuse("--test-rows", "expected --split rows beside it").into());
        }
        (SplitArg::Last, valid, _, None) => {
            let option = if valid.is_some() { "--valid" } else { "--test" };
            return Err(refuse(option, "expected --split share beside it").into());
        }
    };
    let [item, category] = args.attribute_columns.as_slice() else {
        let reason = "expected two columns: item, category";
        return Err(refuse("--attribute-columns", reason).into());
    };
    let samples = SequenceSamples {
        file: args.file.clone(),
        format: match args.format {
            FormatArg::Ratings => EventFormat::Ratings,
            FormatArg::Csv => EventFormat::Csv,
            FormatArg::Lists => EventFormat::Lists,
        },
        columns: args.columns.clone(),
        separator: args.separator.clone(),
        attributes: args.attributes.clone(),
        attribute_columns: [item.clone(), category.clone()],
        times: args.times,
        min_rating: args.min_rating,
        max_len: args.max_len,
        targets: match args.targets {
            TargetsArg::All => SampleTargets::All,
            TargetsArg::Last => SampleTargets::Last,
        },
        liked_only: args.liked_only,
        negatives: args.negatives,
        test_negatives: args.test_negatives,
        test_candidates: args.test_candidates.clone(),
        empty_histories: args.empty_histories,
        split,
        ties: match args.ties {
            TiesArg::Exclude => Ties::Exclude,
            TiesArg::Order => Ties::Order,
        },
        seed: args.seed,
    };
    let report = samples.write(&args.out)?;
    let count = |count: usize| grouped(count as u64);
    let mut text = format!(
        "{} events\n{} users, {} items\n{:<5} {:>12} {:>12} {:>8}\n",
        count(report.events),
        count(report.users),
        count(report.items),
        "part",
        "rows",
        "of label 1",
        "longest"
    );
    for part in &report.parts {
        let figures = [part.rows, part.positives, part.longest].map(count);
        let [rows, positives, longest] = figures;
        text += &format!("{:<5} {rows:>12} {positives:>12} {longest:>8}\n", part.name);
    }
    if report.candidates > 0 {
        text += &format!("{} lines of candidates\n", count(report.candidates));
    }
    if report.without_history > 0 {
        let left_out = count(report.without_history);
        let what = if args.empty_histories {
            "with empty histories"
        } else {
            "left out"
        };
        text += &format!("{left_out} {what}: nothing before them\n");
    }
    if report.repeats > 0 {
        let repeats = count(report.repeats);
        text += &format!("{repeats} histories hold the target:\nread them with repeats = true\n");
    }
    crate::run::print(&text)
}
