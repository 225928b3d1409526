//! `data synth`, `data fetch` and `data stats`.

use std::path::PathBuf;

use crossfield_data::prepare;
use crossfield_data::synth::{SynthConfig, generate};
use crossfield_train::{Error, RunFile};

use crate::model::ModelConfig;

/// `crossfield data`.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum DataCommand {
    /// Writes a planted ad log as CSV; its true click probabilities are known.
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
    /// Reads the data of a run file and says what is in it.
    Stats {
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
                log.write_csv(std::io::BufWriter::new(file))
                    .map_err(Error::io(out, "write"))?;
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
        DataCommand::Stats { run_file, sets } => {
            let run = RunFile::<ModelConfig>::read(run_file, sets)?;
            let label = crate::run::label_kind(run.train.loss);
            let prepared = prepare(&run.data_spec(), run.train.seed, label)?;
            crate::run::print(&prepared.report.to_string())
        }
    }
}
