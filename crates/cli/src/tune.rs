//! `tune`: random search with successive halving over the settings of a run file.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossfield_core::metrics::Report;
use crossfield_core::{ComponentConfig, Schema};
use crossfield_data::{DataSpec, FittedSchema, LabelKind, Manifest, prepare};
use crossfield_embedding::TablePlan;
use crossfield_train::{
    Error, Evaluation, Executor, Observer, Parts, ScheduleKind, TuneConfig, begin_run,
    best_evaluation, check_begun, check_run, nearest, run_table, rungs, survivors, write_whole,
};
use serde::{Deserialize, Serialize};

use crate::console::{Console, WIDTH};
use crate::run::{
    Anyhow, Run, check, check_schema, clean_up, complete, fit, label_kind, make_directory, plan,
    print, refuse_taken, rows_a_step, tables,
};

/// The run file of a search, and what its trials have reached.
const SEARCH: &str = "tune.toml";
const TRIALS: &str = "trials.jsonl";
/// Trials of the table at the end.
const SHOWN: usize = 5;

/// `crossfield tune`.
#[derive(clap::Args, Debug)]
pub(crate) struct TuneArgs {
    /// The run file (TOML), with a section [tune].
    #[arg(required_unless_present = "resume", conflicts_with = "resume")]
    run_file: Option<PathBuf>,
    /// How many settings are tried: short for `--set tune.trials=N`.
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    trials: Option<usize>,
    /// Time after which nothing new begins, as in 10m; what trains ends at its next epoch.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    budget: Option<Duration>,
    /// Seed of the settings: short for `--set tune.seed=N`.
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    seed: Option<u64>,
    /// Overrides a key of the run file, as in `train.epochs=30`.
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "resume")]
    sets: Vec<String>,
    /// The folder to make [default: runs/NAME-tune, numbered; NAME is that of the run file].
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    out: Option<PathBuf>,
    /// Goes on with a search that was interrupted or whose time was over.
    #[arg(long, value_name = "DIR")]
    resume: Option<PathBuf>,
}

pub(crate) fn tune(args: &TuneArgs) -> Anyhow<()> {
    let deadline = args
        .budget
        .and_then(|time| Instant::now().checked_add(time));
    let mut search = match (&args.resume, &args.run_file) {
        (Some(directory), _) => {
            let known = known_lines(directory)?;
            let mut search = Search::read(&directory.join(SEARCH), &[])?;
            search.begin()?;
            search.directory = directory.clone();
            search.open(known)?;
            search
        }
        (None, Some(file)) => {
            let mut sets = args.sets.clone();
            sets.extend(args.trials.map(|trials| format!("tune.trials={trials}")));
            sets.extend(args.seed.map(|seed| format!("tune.seed={seed}")));
            if let Some(out) = &args.out {
                refuse_taken(out)?;
            }
            let mut search = Search::read(file, &sets)?;
            // Only then, so that a mistake in the run file or the data leaves no folder behind.
            search.begin()?;
            let name = file.file_stem().unwrap_or(file.as_os_str());
            let name = format!("{}-tune.toml", name.to_string_lossy());
            let directory = make_directory(args.out.as_deref(), Path::new(&name))?;
            search.save(&directory.join(SEARCH))?;
            search.directory = directory;
            search.list()?;
            search
        }
        (None, None) => unreachable!("clap asks for one of the two"),
    };
    eprintln!(
        "search directory: {0}\nif interrupted: crossfield tune --resume {0}\n",
        search.directory.display()
    );
    let is_complete = search.halve(deadline)?;
    search.report(is_complete)
}

/// Compares a search with its list of checksums; how many bytes of trials.jsonl are listed.
fn known_lines(directory: &Path) -> Result<u64, Error> {
    let (search, trials) = (directory.join(SEARCH), directory.join(TRIALS));
    let is_made = directory.join(Manifest::FILE).exists() || trials.exists();
    // Without, it was interrupted when its folder was made, or is no search.
    if !search.exists() || !is_made {
        return Ok(0);
    }
    let list = Manifest::read(directory)?;
    list.verify_file(directory, SEARCH)?;
    let has_trials = list.names().any(|name| name == TRIALS);
    Ok(if has_trials {
        list.verify_beginning(directory, TRIALS)?
    } else {
        0
    })
}

/// A figure of the validation part that trials are compared by.
#[derive(Clone, Copy, Debug)]
struct Metric {
    name: &'static str,
    is_better_higher: bool,
    of: fn(&Report) -> Option<f64>,
}

impl Metric {
    const ALL: [Metric; 12] = [
        Self::lower("logloss", |report| report.logloss),
        Self::higher("auc", |report| report.auc),
        Self::higher("gauc", |report| report.gauc),
        Self::lower("normalized_entropy", |report| report.normalized_entropy),
        Self::lower("ece", |report| report.ece),
        Self::lower("rmse", |report| report.rmse),
        Self::lower("mae", |report| report.mae),
        Self::higher("ndcg@10", |report| Some(report.ranking.as_ref()?.ndcg)),
        Self::higher("recall@10", |report| Some(report.ranking.as_ref()?.recall)),
        Self::higher("map@10", |report| Some(report.ranking.as_ref()?.map)),
        Self::higher("hit_rate@10", |report| {
            Some(report.ranking.as_ref()?.hit_rate)
        }),
        Self::higher("mrr@10", |report| Some(report.ranking.as_ref()?.mrr)),
    ];

    const fn lower(name: &'static str, of: fn(&Report) -> Option<f64>) -> Self {
        Self {
            name,
            is_better_higher: false,
            of,
        }
    }

    const fn higher(name: &'static str, of: fn(&Report) -> Option<f64>) -> Self {
        Self {
            name,
            is_better_higher: true,
            of,
        }
    }

    /// The figure of that name, or the one that early stopping goes by under the run's loss.
    fn named(name: Option<&str>, run: &Run) -> Result<Self, Error> {
        let name = name.unwrap_or(match run.train.loss.of_rows() {
            None => "ndcg@10",
            Some(loss) if loss.link().is_probability() => "logloss",
            Some(_) => "rmse",
        });
        let mut all = Self::ALL.into_iter();
        all.find(|metric| metric.name == name).ok_or_else(|| {
            let known = Self::ALL.map(|metric| metric.name);
            let advice = nearest(name, &known)
                .map_or(String::new(), |near| format!("did you mean `{near}`? "));
            Error::Option {
                option: "tune.metric".into(),
                reason: format!("is `{name}`: {advice}(known: {})", known.join(", ")),
            }
        })
    }

    fn of(&self, evaluation: &Evaluation) -> Option<f64> {
        (self.of)(evaluation.valid.as_ref()?)
    }

    /// A figure as a number of which less is better.
    fn cost(&self, figure: f64) -> f64 {
        if self.is_better_higher {
            -figure
        } else {
            figure
        }
    }
}

/// A line of trials.jsonl: what a trial had reached at a rung.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    /// Number, from 1.
    trial: usize,
    /// From 1.
    rung: usize,
    /// What was drawn for it.
    settings: BTreeMap<String, toml::Value>,
    /// Of the search.
    seed: u64,
    /// Epochs that are done.
    epochs: usize,
    /// The one that the figure is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<usize>,
    /// Name of the figure.
    metric: String,
    /// On the validation part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    figure: Option<f64>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

/// A line of timing.jsonl.
#[derive(Serialize)]
struct Seconds {
    trial: usize,
    rung: usize,
    seconds: f64,
}

/// The rows of the trials that read the same data in the same way.
struct Rows {
    spec: DataSpec,
    kind: LabelKind,
    fitted: FittedSchema,
    parts: Parts,
}

struct Search {
    directory: PathBuf,
    /// Of the run file.
    name: String,
    /// The run file as it was given, overrides applied, without [tune].
    table: toml::Table,
    config: TuneConfig,
    seed: u64,
    metric: Metric,
    rungs: Vec<usize>,
    lines: Vec<Line>,
    rows: Option<Rows>,
}

/// Hears how a trial goes, and ends it at its rung or when the time is over.
struct Watch {
    console: Console,
    until: usize,
    deadline: Option<Instant>,
}

impl Observer for Watch {
    fn stepped(&mut self, epoch: usize, step: usize, steps: usize, loss: f64) {
        self.console.stepped(epoch, step, steps, loss);
    }

    fn pauses(&mut self, epochs: usize) -> bool {
        epochs >= self.until || is_over(self.deadline)
    }
}

fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// Whether what went wrong is the fault of a trial's settings, and not of the disk, of a file or of a
/// machine that gives no threads.
fn is_of_settings(error: &Error) -> bool {
    use crossfield_data::Error as Data;
    use crossfield_embedding::Error as Tables;
    match error {
        Error::Tables(error) => !matches!(
            error,
            Tables::Io { .. }
                | Tables::Format { .. }
                | Tables::MissingTensor { .. }
                | Tables::Shape { .. }
        ),
        error => !matches!(
            error,
            Error::Io { .. }
                | Error::RunDirectory { .. }
                | Error::OtherSchema { .. }
                | Error::Checkpoint { .. }
                | Error::Threads { .. }
                | Error::Fused(crossfield_fused::Error::Threads { .. })
                | Error::Data(Data::Damaged { .. } | Data::Thread { .. })
        ),
    }
}

/// What is wrong, without the place or the option that it is said of anyway.
fn reason(error: Error) -> String {
    match error {
        Error::RunFile { message, .. } => message,
        Error::Set { reason, .. } => reason,
        error => error.to_string(),
    }
}

/// Whether a run of fewer epochs has the model that the longer one had then.
fn can_end_early(run: &Run) -> bool {
    let is_of_steps_done = matches!(
        run.optimizer.schedule.kind,
        ScheduleKind::Constant | ScheduleKind::Exponential
    );
    // The draws of MCMC are averaged: the last epoch stands for all.
    is_of_steps_done && run.train.executor != Executor::Mcmc
}

impl Search {
    fn read(path: &Path, sets: &[String]) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
        let name = path.display().to_string();
        let run = Run::parse(&text, &name, sets)?;
        let mut config = run.tune.clone().unwrap_or_default();
        config.check()?;
        let metric = Metric::named(config.metric.as_deref(), &run)?;
        let seed = config.seed.unwrap_or(run.train.seed);
        config.seed = Some(seed);
        config.metric = Some(metric.name.to_owned());
        let mut table = run_table(&text, &name, sets)?;
        table.remove("tune");
        Ok(Self {
            directory: PathBuf::new(),
            rungs: rungs(config.min_epochs, run.train.epochs(), config.keep),
            name,
            table,
            config,
            seed,
            metric,
            lines: Vec::new(),
            rows: None,
        })
    }

    /// Writes all that the search depends on beside the data.
    fn save(&self, path: &Path) -> Result<(), Error> {
        let mut table = self.table.clone();
        let config = toml::Value::try_from(&self.config).expect("numbers, texts and ranges");
        table.insert("tune".into(), config);
        write_whole(path, &table.to_string())
    }

    /// Reads what the search has found so far: what is listed of it. A line behind that, which an
    /// interrupt came upon, is dropped, and its trial measured again.
    fn open(&mut self, known: u64) -> Result<(), Error> {
        let path = self.directory.join(TRIALS);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            text => text.map_err(Error::io(&path, "read"))?,
        };
        let listed = String::from_utf8_lossy(&text[..text.len().min(known as usize)]);
        for (number, line) in listed.lines().enumerate() {
            let line = serde_json::from_str(line).map_err(|error| Error::RunDirectory {
                path: path.clone(),
                reason: format!("line {}: not what a trial has reached: {error}", number + 1),
            })?;
            self.lines.push(line);
        }
        if listed.len() < text.len() {
            write_whole(&path, &listed)?;
        }
        self.list()
    }

    /// Lists the checksums of what a resumed search goes by.
    fn list(&self) -> Result<(), Error> {
        let names = [SEARCH, TRIALS];
        let there = names
            .into_iter()
            .filter(|name| self.directory.join(name).exists());
        Ok(Manifest::of(&self.directory, there)?.save(&self.directory)?)
    }

    /// The run of these settings, as trials train it: without a test part.
    fn run_of(&self, settings: &[(String, toml::Value)]) -> Result<Run, Error> {
        let mut run = Run::from_table(self.table.clone(), &self.name, settings)?;
        run.data.leave_out_test_files();
        run.data.hold_out();
        complete(&mut run)?;
        check(&run)?;
        Ok(run)
    }

    /// Looks at the run file of each end of each range, and reads the rows.
    fn begin(&mut self) -> Anyhow<()> {
        let of_range = |key: &str, value: &toml::Value, error: Error| Error::Option {
            option: format!("tune.range.\"{key}\" = {value}"),
            reason: reason(error),
        };
        let base = self.run_of(&[])?;
        let mut ends = Vec::new();
        for (key, range) in &self.config.range {
            for value in range.ends() {
                let run = self.run_of(&[(key.clone(), value.clone())]);
                let run = run.map_err(|error| of_range(key, &value, error))?;
                ends.push((key.clone(), value, run));
            }
        }
        let given = Run::from_table(self.table.clone(), &self.name, &[])?;
        if given.data.valid.is_empty() && given.data.complete().split.is_none() {
            eprintln!("a tenth of the training rows is held out to compare trials");
        }
        let rows = self.rows(&base)?;
        eprintln!(
            "{} rows train, {} validate; the test part is left alone",
            rows.parts.held()?.len(),
            rows.parts.valid.as_ref().map_or(0, |valid| valid.len()),
        );
        let spec = rows.spec.clone();
        let schema = rows.fitted.schema().clone();
        check_tables(&base, &schema)?;
        for (key, value, run) in ends {
            // Of other data the fields are not known before it is read.
            if run.data_spec() == spec {
                let checked = check_tables(&run, &schema);
                checked.map_err(|error| of_range(&key, &value, error))?;
            }
        }
        Ok(())
    }

    /// The rows of a run, read again only if those of the run before are others.
    fn rows(&mut self, run: &Run) -> Anyhow<&Rows> {
        let (spec, kind) = (run.data_spec(), label_kind(run.train.loss));
        let is_same = |rows: &Rows| rows.spec == spec && rows.kind == kind;
        let rows = match self.rows.take().filter(is_same) {
            Some(rows) => rows,
            None => {
                let prepared = prepare(&spec, run.train.seed, kind)?;
                let fitted = prepared.schema.clone();
                let parts = Parts {
                    // A split may have taken rows for it.
                    test: None,
                    ..Parts::from(prepared)
                };
                if parts.valid.is_none() {
                    return Err(Error::Option {
                        option: "tune".into(),
                        reason: "compares trials on validation rows: set data.valid, or valid in \
                                 data.split"
                            .into(),
                    }
                    .into());
                }
                Rows {
                    spec,
                    kind,
                    fitted,
                    parts,
                }
            }
        };
        Ok(self.rows.insert(rows))
    }

    /// Successive halving; whether it came to its end before the time was over.
    fn halve(&mut self, deadline: Option<Instant>) -> Anyhow<bool> {
        let mut alive: Vec<usize> = (1..=self.config.trials).collect();
        for (nth, until) in self.rungs.clone().into_iter().enumerate() {
            let rung = nth + 1;
            let mut figures = Vec::with_capacity(alive.len());
            for &trial in &alive {
                let mut known = self.lines.iter();
                let known = known.rfind(|line| line.trial == trial && line.rung == rung);
                let line = match known {
                    Some(line) => line.clone(),
                    None if is_over(deadline) => return Ok(false),
                    None => match self.climb(trial, rung, until, deadline)? {
                        Some(line) => line,
                        None => return Ok(false),
                    },
                };
                figures.push((trial, line.figure.map(|figure| self.metric.cost(figure))));
            }
            let is_last = rung == self.rungs.len();
            let share = if is_last { 0.0 } else { self.config.keep };
            let next = survivors(&figures, share);
            for trial in alive.iter().filter(|trial| !next.contains(trial)) {
                let path = self.trial_directory(*trial);
                if path.exists() {
                    std::fs::remove_dir_all(&path).map_err(Error::io(&path, "remove"))?;
                }
            }
            alive = next;
        }
        Ok(true)
    }

    fn trial_directory(&self, trial: usize) -> PathBuf {
        self.directory.join("trials").join(trial.to_string())
    }

    /// Trains a trial up to a rung, and writes down what it has reached; `None`: the time was over
    /// before.
    fn climb(
        &mut self,
        trial: usize,
        rung: usize,
        until: usize,
        deadline: Option<Instant>,
    ) -> Anyhow<Option<Line>> {
        let started = Instant::now();
        let settings = self.config.settings(self.seed, trial);
        let reached = match self.run_of(&settings) {
            Ok(run) => self.train(&run, trial, until, deadline),
            Err(error) => Err(error.into()),
        };
        let mut line = Line {
            trial,
            rung,
            settings: settings.into_iter().collect(),
            seed: self.seed,
            epochs: 0,
            epoch: None,
            metric: self.metric.name.to_owned(),
            figure: None,
            failed: None,
        };
        match reached {
            Ok(None) => return Ok(None),
            Ok(Some(Reached {
                epochs,
                epoch,
                figure,
            })) => {
                (line.epochs, line.epoch, line.figure) = (epochs, Some(epoch), Some(figure));
            }
            // The run file's own mistakes are not those of a trial.
            Err(error) => match error.downcast::<Error>() {
                Ok(error) if is_of_settings(&error) => line.failed = Some(reason(*error)),
                Ok(error) => return Err(error),
                Err(error) => match error.downcast::<crossfield_data::Error>() {
                    Ok(error) if !line.settings.is_empty() => line.failed = Some(error.to_string()),
                    Ok(error) => return Err(error),
                    Err(error) => return Err(error),
                },
            },
        }
        let seconds = started.elapsed().as_secs_f64();
        let seconds = Seconds {
            trial,
            rung,
            seconds,
        };
        append(&self.directory.join("timing.jsonl"), &seconds)?;
        append(&self.directory.join(TRIALS), &line)?;
        self.list()?;
        let place = format!("{rung}/{} trial {trial:>3}", self.rungs.len());
        match (&line.failed, line.figure) {
            (None, Some(figure)) => eprintln!(
                "{place} epoch {:>3} {} {figure:.5}",
                line.epochs, self.metric.name
            ),
            (failed, _) => eprintln!("{place} failed: {}", failed.as_deref().unwrap_or_default()),
        }
        self.lines.push(line.clone());
        Ok(Some(line))
    }

    /// `None`: the time was over before the rung.
    fn train(
        &mut self,
        run: &Run,
        trial: usize,
        until: usize,
        deadline: Option<Instant>,
    ) -> Anyhow<Option<Reached>> {
        let out = self.trial_directory(trial);
        let metric = self.metric;
        let rows = self.rows(run)?;
        let valid = rows.parts.valid.iter();
        for part in std::iter::once(rows.parts.held()?).chain(valid) {
            let checked = run.model.check_rows(part.schema(), &part.examples());
            checked.map_err(Error::from)?;
        }
        let plans = plan(run, &rows.fitted, &|_| ())?;
        let is_finished = out.join("metrics.json").exists();
        if !is_finished {
            std::fs::create_dir_all(&out).map_err(Error::io(&out, "create"))?;
            check_begun(&out)?;
            check_schema(&out, &rows.fitted)?;
            run.save(&out.join("run.toml"))?;
            rows.fitted.save(&out)?;
            begin_run(&out)?;
            let mut watch = Watch {
                console: Console::new(run.train.epochs(), rows_a_step(run, &rows.parts)?),
                until,
                deadline,
            };
            let schema = rows.fitted.schema();
            let trained = fit(run, &plans, schema, &rows.parts, &out, &mut watch);
            if let Err(error) = trained {
                match error.downcast::<Error>() {
                    Ok(error) if matches!(*error, Error::Paused { .. }) => {}
                    Ok(error) => return Err(error),
                    Err(error) => return Err(error),
                }
            }
        }
        if is_finished {
            check_run(&out)?;
            clean_up(&out);
        }
        let evaluations = evaluations(&out.join("metrics.jsonl"))?;
        let epochs = evaluations.last().map_or(0, |last| last.epoch);
        let is_finished = out.join("metrics.json").exists();
        if epochs < until && !is_finished {
            return Ok(None);
        }
        let kept = kept(run, metric, &evaluations).and_then(|it| Some((it, metric.of(it)?)));
        let (evaluation, figure) = kept.ok_or_else(|| Error::Option {
            option: "tune.metric".into(),
            reason: format!(
                "is {}, which the validation part does not have",
                metric.name
            ),
        })?;
        if !figure.is_finite() {
            return Err(Error::Option {
                option: metric.name.into(),
                reason: format!("is {figure}: expected a finite number"),
            }
            .into());
        }
        Ok(Some(Reached {
            epochs,
            epoch: evaluation.epoch,
            figure,
        }))
    }

    /// The last line of each trial that has a figure, the best first. Where figures before the last
    /// epoch are not those of a run that could end there, of the highest rung alone.
    fn ranked(&self) -> Vec<&Line> {
        let mut last: BTreeMap<usize, &Line> = BTreeMap::new();
        for line in self.lines.iter().filter(|line| line.figure.is_some()) {
            last.insert(line.trial, line);
        }
        let of_a_shorter_run = |trial: &usize| {
            let run = self.run_of(&self.config.settings(self.seed, *trial));
            run.is_ok_and(|run| run.train.early_stop.is_some() || can_end_early(&run))
        };
        if !last.keys().all(of_a_shorter_run) {
            let highest = last.values().map(|line| line.rung).max();
            last.retain(|_, line| Some(line.rung) == highest);
        }
        let mut ranked: Vec<&Line> = last.into_values().collect();
        let cost = |line: &Line| self.metric.cost(line.figure.unwrap_or(f64::NAN));
        ranked.sort_by(|left, right| cost(left).total_cmp(&cost(right)));
        ranked
    }

    /// Writes best.toml, and prints the best trials.
    fn report(&self, is_complete: bool) -> Anyhow<()> {
        let ranked = self.ranked();
        let Some(best) = ranked.first() else {
            let failed = self.lines.iter().find_map(|line| line.failed.as_deref());
            let reason = match failed {
                Some(failed) => format!("no trial has a figure; the first that failed: {failed}"),
                None => "the time was over before the first trial had a figure".to_owned(),
            };
            let path = self.directory.clone();
            return Err(Error::RunDirectory { path, reason }.into());
        };
        let file = self.directory.join("best.toml");
        write_whole(&file, &self.best(best)?)?;
        eprintln!();
        print(&self.table(&ranked))?;
        let trial = self.trial_directory(best.trial);
        eprintln!("best settings: {}", file.display());
        if trial.join("metrics.json").exists() {
            eprintln!("its run: {}", trial.display());
        } else if trial.exists() {
            eprintln!(
                "its run, so far: {0}\ngo on with it: crossfield train --resume {0}",
                trial.display()
            );
        }
        if !is_complete {
            eprintln!(
                "the time was over; go on with the search: crossfield tune --resume {}",
                self.directory.display()
            );
        }
        Ok(())
    }

    /// The run file of the best settings, complete, with a test part where there was one.
    fn best(&self, line: &Line) -> Result<String, Error> {
        let settings = self.config.settings(self.seed, line.trial);
        let mut run = Run::from_table(self.table.clone(), &self.name, &settings)?;
        if let (true, Some(epoch)) = (can_end_early(&run), line.epoch) {
            run.train.epochs = Some(epoch);
        }
        complete(&mut run)?;
        let tried = self.lines.iter().filter(|line| line.rung == 1).count();
        Ok(format!(
            "# The best of {tried} trials by {} on the validation part: trial {}, {:.5} after epoch {}.\n\
             # Found by `crossfield tune` with seed {}.\n\n{}",
            self.metric.name,
            line.trial,
            line.figure.unwrap_or(f64::NAN),
            line.epoch.unwrap_or_default(),
            self.seed,
            run.to_toml()
        ))
    }

    fn table(&self, ranked: &[&Line]) -> String {
        let name = self.metric.name;
        let width = name.len().max(8);
        let mut text = format!("   {name:>width$}  epoch  trial\n");
        for (nth, line) in ranked.iter().take(SHOWN).enumerate() {
            text += &format!(
                "{:>2} {:>width$.5}  {:>5}  {:>5}\n",
                nth + 1,
                line.figure.unwrap_or(f64::NAN),
                line.epoch.unwrap_or_default(),
                line.trial
            );
            if line.settings.is_empty() {
                text += "     as the run file says\n";
            }
            for (key, value) in &line.settings {
                let setting = format!("     {key} = {value}");
                text += &if setting.chars().count() <= WIDTH {
                    setting
                } else {
                    format!("     {key}\n       = {value}")
                };
                text.push('\n');
            }
        }
        let failed = self.lines.iter().filter(|line| line.failed.is_some());
        match failed.count() {
            0 => {}
            1 => text += "1 trial has failed: trials.jsonl\n",
            count => text += &format!("{count} trials have failed: trials.jsonl\n"),
        }
        text
    }
}

/// What a trial has at a rung.
struct Reached {
    epochs: usize,
    epoch: usize,
    figure: f64,
}

/// The evaluation of the model that a run with these settings would keep: under early stopping the one
/// that it goes back to, else that of the best number of epochs, or of the last where a shorter run is
/// another.
fn kept<'e>(run: &Run, metric: Metric, evaluations: &'e [Evaluation]) -> Option<&'e Evaluation> {
    if run.train.early_stop.is_some() {
        return best_evaluation(evaluations);
    }
    if !can_end_early(run) {
        return evaluations.last();
    }
    let cost = |it: &&Evaluation| metric.of(it).map_or(f64::INFINITY, |it| metric.cost(it));
    let mut all = evaluations.iter();
    let first = all.next()?;
    Some(all.fold(
        first,
        |best, it| if cost(&it) < cost(&best) { it } else { best },
    ))
}

/// The lines of a metrics.jsonl.
pub(crate) fn evaluations(path: &Path) -> Result<Vec<Evaluation>, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    let lines = text.lines().map(|line| {
        serde_json::from_str(line).map_err(|error| Error::RunDirectory {
            path: path.to_owned(),
            reason: format!("not the evaluations of a run: {error}"),
        })
    });
    lines.collect()
}

/// Refuses tables that a model cannot have under the schema, whatever memory there is.
fn check_tables(run: &Run, schema: &Schema) -> Result<(), Error> {
    let plans = run.optimizer.plan(tables(run, schema)?)?;
    if !run.train.executor.is_solver() {
        run.train.check_plans(&plans)?;
        plans.iter().try_for_each(TablePlan::check)?;
    }
    Ok(())
}

/// Adds a line to a file, on the disk before anything else happens.
fn append(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let line = serde_json::to_string(value).expect("numbers, names and settings") + "\n";
    let mut options = std::fs::OpenOptions::new();
    let written = options
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| {
            file.write_all(line.as_bytes())?;
            file.sync_data()
        });
    written.map_err(Error::io(path, "write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_without_room_are_the_fault_of_a_trial_and_a_full_disk_is_not() {
        let text = || String::from("1 GB");
        let memory = Error::Memory {
            weights: text(),
            state: text(),
            total: text(),
            available: text().into(),
            tables: text().into(),
            largest: "".into(),
        };
        assert!(is_of_settings(&memory));
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert!(!is_of_settings(&Error::io(Path::new("a"), "write")(full)));
    }

    #[test]
    fn without_early_stopping_the_best_epoch_counts_where_a_run_could_end_there() {
        let after = |epoch, logloss| Evaluation {
            epoch,
            step: epoch as u64,
            progressive: None,
            train_loss: 0.5,
            valid: Some(Report {
                logloss: Some(logloss),
                auc: Some(logloss),
                ..Report::default()
            }),
        };
        let evaluations = [after(1, 0.6), after(2, 0.5), after(3, 0.55)];
        let epoch = |sets: &str, metric: &str| {
            let text = format!("[data]\ntrain = 'a.csv'\n[model]\nkind = 'fm'\n{sets}");
            let run = Run::parse(&text, "a.toml", &[]).unwrap();
            let metric = Metric::named(Some(metric), &run).unwrap();
            kept(&run, metric, &evaluations).map(|kept| kept.epoch)
        };
        assert_eq!(epoch("", "logloss"), Some(2));
        assert_eq!(epoch("", "auc"), Some(1));
        let linear = "[optimizer]\nschedule = { kind = 'linear' }\n";
        assert_eq!(epoch(linear, "logloss"), Some(3));
        // Early stopping goes back by its own figure, whatever is compared.
        let stop = "[train]\nearly_stop = { patience = 1 }\n";
        assert_eq!(epoch(stop, "auc"), Some(2));
    }
}
