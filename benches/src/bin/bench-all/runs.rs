//! Trains the runs, and reads what they have left.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crossfield_core::metrics::Report;
use crossfield_train::{FinalMetrics, Timing};

use crate::RUNS;
use crate::plan::{Data, Model};

/// What runs are made with.
pub(crate) struct Bench<'a> {
    pub(crate) root: &'a Path,
    pub(crate) crossfield: &'a Path,
    pub(crate) seeds: &'a [u64],
}

/// The figures of a data set's models.
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) rows: Vec<Row>,
}

/// The figures of a model, a value a seed.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) model: String,
    pub(crate) logloss: Vec<f64>,
    pub(crate) auc: Vec<f64>,
    pub(crate) rmse: Vec<f64>,
    pub(crate) ndcg: Vec<f64>,
    /// Training rows a second of processor time.
    pub(crate) rate: Vec<f64>,
    /// Most bytes held.
    pub(crate) memory: Vec<f64>,
}

impl Row {
    fn add(&mut self, report: &Report) {
        self.logloss.extend(report.logloss);
        self.auc.extend(report.auc);
        self.rmse.extend(report.rmse);
        self.ndcg
            .extend(report.ranking.as_ref().map(|ranking| ranking.ndcg));
    }
}

type Done<T> = Result<T, Box<dyn std::error::Error>>;

impl Bench<'_> {
    /// Trains what of a data set's runs is not there yet; one that fails does not keep the others from
    /// being run. Gives what failed.
    pub(crate) fn run(&self, data: &Data) -> Done<Vec<String>> {
        let mut failed = Vec::new();
        for model in &data.runs {
            for &seed in self.seeds {
                let out = self.folder(data, model, seed);
                if out.join("metrics.json").exists() {
                    continue;
                }
                // Of a command that was killed: a run file may have changed since.
                if out.exists() {
                    std::fs::remove_dir_all(&out)?;
                }
                let name = format!("{}: {}, seed {seed}", data.name, model.model);
                eprintln!("{name}");
                if let Err(error) = self.train(model, seed, &out) {
                    eprintln!("error: {error}");
                    failed.push(name);
                }
            }
        }
        Ok(failed)
    }

    fn folder(&self, data: &Data, model: &Model, seed: u64) -> PathBuf {
        self.root.join(RUNS).join(data.folder(model, seed))
    }

    fn train(&self, model: &Model, seed: u64, out: &Path) -> Done<()> {
        let preset = format!("configs/{}.toml", model.preset);
        let mut train = Command::new(self.crossfield);
        train.args(["train", &preset, "--out"]).arg(out);
        for set in &model.set {
            train.args(["--set", set]);
        }
        if model.average.is_empty() {
            self.make_data(&preset)?;
            train.args(["--set", &format!("train.seed={seed}")]);
        } else {
            let runs = model.average.iter();
            let runs: Vec<String> = runs.map(|name| format!("'{RUNS}/{name}.{seed}'")).collect();
            train.args(["--set", &format!("model.average=[{}]", runs.join(", "))]);
        }
        run(train.current_dir(self.root))
    }

    /// Runs what the comments of a preset say to make its data with, if that was not done yet.
    fn make_data(&self, preset: &str) -> Done<()> {
        let text = std::fs::read_to_string(self.root.join(preset))?;
        let indented = text.lines().filter_map(|line| line.strip_prefix("#     "));
        // Neither what fetches data nor what is done with a run.
        let others = ["crossfield data fetch", "crossfield eval", "export "];
        let script: Vec<&str> = indented
            .filter(|line| !others.iter().any(|start| line.starts_with(start)))
            .collect();
        let run_file: toml::Table = toml::from_str(&text)?;
        let train = run_file.get("data").and_then(|data| data.get("train"));
        let file = train.and_then(|train| train.get(0).unwrap_or(train).as_str());
        if script.is_empty() || file.is_some_and(|file| self.root.join(file).exists()) {
            return Ok(());
        }
        std::fs::create_dir_all(self.root.join("data"))?;
        let programs = self.crossfield.parent().ok_or("a command is in a folder")?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell
            .args(["-ec", &script.join("\n")])
            .env("PATH", format!("{}:{path}", programs.display()))
            .current_dir(self.root);
        run(&mut shell)
    }

    /// The figures of all runs that are there.
    pub(crate) fn table(&self, data: &Data) -> Table {
        let mut rows = Vec::new();
        let mut constant = Row::default();
        let mut bayes = Row::default();
        for model in &data.runs {
            let mut row = Row {
                model: model.model.clone(),
                ..Row::default()
            };
            for &seed in self.seeds {
                let Some(metrics) = self.metrics(data, model, seed) else {
                    continue;
                };
                if let Some(report) = metrics.test.as_ref().or(metrics.valid.as_ref()) {
                    row.add(report);
                }
                // They are the same for all models, but for whether rows or lists are measured.
                if constant.model.is_empty()
                    && let Some(report) = &metrics.constant
                {
                    let lists = report.ranking.is_some();
                    constant.model = if lists { "popularity" } else { "constant" }.to_owned();
                    constant.add(report);
                }
                if bayes.model.is_empty()
                    && let Some(report) = &metrics.bayes
                {
                    "best possible".clone_into(&mut bayes.model);
                    bayes.add(report);
                }
                self.add_timing(data, model, seed, &mut row);
            }
            rows.push(row);
        }
        rows.extend(
            [constant, bayes]
                .into_iter()
                .filter(|row| !row.model.is_empty()),
        );
        Table {
            name: data.name.clone(),
            about: data.about.clone(),
            rows,
        }
    }

    fn metrics(&self, data: &Data, model: &Model, seed: u64) -> Option<FinalMetrics> {
        let file = self.folder(data, model, seed).join("metrics.json");
        serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()
    }

    /// An average is not trained, and has no times.
    fn add_timing(&self, data: &Data, model: &Model, seed: u64, row: &mut Row) {
        let file = self.folder(data, model, seed).join("timing.jsonl");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let lines: Vec<Timing> = lines.collect();
        let examples = |line: &Timing| line.examples_per_second * line.train_seconds;
        let examples: f64 = lines.iter().map(examples).sum();
        let seconds: f64 = lines.iter().filter_map(|line| line.cpu_seconds).sum();
        if seconds > 0.0 {
            row.rate.push(examples / seconds);
        }
        let peak = lines.iter().filter_map(|line| line.peak_memory).max();
        row.memory.extend(peak.map(|bytes| bytes as f64));
    }
}

fn run(command: &mut Command) -> Done<()> {
    // Tables of single runs are not what this command prints.
    let status = command.stdout(Stdio::null()).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {status}").into())
    }
}
