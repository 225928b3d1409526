//! `train`, `eval` and `predict`: from a run file to a run directory and back.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossfield_attention::{NextItem, NextItemConfig};
use crossfield_core::{
    ComponentConfig, Init, Loss, Model, Schema, Scored, TableConfig, merge_tables,
};
use crossfield_data::{
    Dataset, FittedSchema, LabelKind, Labels, Manifest, TrainingRows, encode_files, expand,
    prepare, stream_with,
};
use crossfield_embedding::{EmbeddingCollection, TablePlan};
use crossfield_train::{
    Admissions, Continued, Error, Executor, FinalMetrics, FusedModel, FusedTrained, Objective,
    Observer, Parts, RunFile, Scorer, Setup, SolverModel, SolverTrained, Trained, begin_run, bytes,
    check_begun, check_draws, check_memory_of, check_run, describe_admitted, describe_tables,
    go_back, in_pool, mapped_bytes, table_bytes, train_solver,
};

pub(crate) use crossfield_train::{check_schema, vocabulary};

use crate::average::{Average, is_average};
use crate::console::{self, Console};
use crate::mf::MfModel;
use crate::model::{Components, ModelConfig};
use crate::solver::{Fitted, FmModel};
use crate::warm_start::WarmStart;
use crate::weights::sparsity;

pub(crate) type Run = RunFile<ModelConfig>;
pub(crate) type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

/// `crossfield train`.
#[derive(clap::Args, Debug)]
pub(crate) struct TrainArgs {
    /// The run file (TOML).
    #[arg(
        required_unless_present_any = ["resume", "continue_from"],
        conflicts_with_all = ["resume", "continue_from"]
    )]
    run_file: Option<PathBuf>,
    /// Overrides a key of the run file, as in `train.epochs=3`.
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "resume")]
    sets: Vec<String>,
    /// The run directory to make [default: runs/NAME, numbered; NAME is that of the run file].
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    out: Option<PathBuf>,
    /// Goes on with an interrupted run, from its last checkpoint.
    #[arg(long, value_name = "DIR")]
    resume: Option<PathBuf>,
    /// Goes on from the checkpoint of this step, and removes the newer ones.
    #[arg(long, value_name = "N", requires = "resume")]
    step: Option<u64>,
    /// Goes on from a finished run with new rows, in a run directory of its own: with its settings,
    /// its vocabularies and those of the new rows behind them, its weights and its optimizer's state.
    #[arg(
        long = "continue",
        value_name = "RUN",
        requires = "data",
        conflicts_with = "resume"
    )]
    continue_from: Option<PathBuf>,
    /// Files of the new rows to train on.
    #[arg(long, num_args = 1.., value_name = "FILE", requires = "continue_from")]
    data: Vec<String>,
    /// Measures the rows of the first epoch before they are learned from: short for `--set
    /// train.evaluate_first=true`.
    #[arg(long, conflicts_with = "resume")]
    evaluate_first: bool,
    /// Device of the tensors: short for `--set train.device=…`.
    #[arg(long, value_name = "flex|ndarray", conflicts_with = "resume")]
    device: Option<String>,
}

/// `crossfield eval`.
#[derive(clap::Args, Debug)]
pub(crate) struct EvalArgs {
    /// A finished run.
    run: PathBuf,
    /// Files of labelled rows, in the format of the run's data.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<String>,
    /// Ranks these items alone beside those that are held out, not the whole catalogue: a file with a
    /// user and their candidates a line, separated by blanks. For runs measured by lists.
    #[arg(long, value_name = "FILE")]
    candidates: Option<PathBuf>,
    /// Overrides a key of the run's run.toml, as in `train.executor=burn`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

/// `crossfield predict`.
#[derive(clap::Args, Debug)]
pub(crate) struct PredictArgs {
    /// A finished run.
    run: PathBuf,
    /// Files of rows, in the format of the run's data; the label column may be missing.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<String>,
    /// Overrides a key of the run's run.toml, as in `train.executor=burn`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

/// Where a run is, or will be.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// A run directory that exists.
    Resumed(&'a Path),
    /// None yet; the run file that it is made for.
    New(&'a Path),
}

/// Removes what an interrupt between the last file of a finished run and its clean-up has left.
pub(crate) fn clean_up(run: &Path) {
    for folder in ["checkpoints", "tables"] {
        let _ = std::fs::remove_dir_all(run.join(folder));
    }
}

pub(crate) fn train(args: &TrainArgs) -> Anyhow<()> {
    if let Some(file) = args.run_file.as_ref().filter(|file| is_average(file)) {
        return crate::average::train(file, &args.sets, args.out.as_deref());
    }
    let (run, place) = match (&args.resume, &args.run_file) {
        (Some(directory), _) => {
            if directory.join("metrics.json").exists() {
                check_run(directory)?;
            } else if directory.join("run.toml").exists() {
                check_begun(directory)?;
            }
            let run = Run::read(&directory.join("run.toml"), &[])?;
            (run, Place::Resumed(directory))
        }
        (None, file) => {
            let mut sets = args.sets.clone();
            sets.extend(
                args.device
                    .iter()
                    .map(|device| format!("train.device={device}")),
            );
            if args.evaluate_first {
                sets.push("train.evaluate_first=true".to_owned());
            }
            let (mut run, named) = match (&args.continue_from, file) {
                (Some(before), _) => (continued(before, &args.data, &sets)?, before),
                (None, Some(file)) => (Run::read(file, &sets)?, file),
                (None, None) => unreachable!("clap asks for one of the three"),
            };
            // It is for searches; what was found is in the other sections.
            run.tune = None;
            hold_out(&mut run);
            complete(&mut run)?;
            if let Some(out) = &args.out {
                refuse_taken(out)?;
            }
            (run, Place::New(named))
        }
    };
    if let Place::Resumed(directory) = place
        && directory.join("metrics.json").exists()
    {
        clean_up(directory);
        eprintln!("{} is finished; nothing to do", directory.display());
        return Ok(());
    }
    check(&run)?;
    if let (Place::Resumed(directory), Some(step)) = (place, args.step) {
        go_back(directory, step)?;
    }

    let Data { fitted, parts } = read(&run)?;
    if let Place::Resumed(directory) = place {
        check_schema(directory, &fitted)?;
    }
    if run.train.early_stop.is_some() && parts.valid.is_none() {
        return Err(Error::Option {
            option: "train.early_stop".into(),
            reason: "needs validation rows: set data.valid, or valid in data.split".into(),
        }
        .into());
    }
    let held_out = parts.valid.iter().chain(&parts.test);
    for part in parts.train.held().into_iter().chain(held_out) {
        run.model.check_rows(part.schema(), &part.examples())?;
    }
    let plans = plan(&run, &fitted, &|text| eprintln!("{text}"))?;
    // A run that is resumed has its checkpoints, and may outlive the runs that it began with.
    if let Place::New(_) = place {
        WarmStart::open(&run.optimizer, &plans, &fitted)?;
    }

    // Only now, so that a mistake in the run file or the data leaves no folder behind.
    let out = match place {
        Place::Resumed(directory) => directory.to_owned(),
        Place::New(file) => {
            let out = make_directory(args.out.as_deref(), file)?;
            run.save(&out.join("run.toml"))?;
            out
        }
    };
    if !out.join(Manifest::FILE).exists() {
        fitted.save(&out)?;
        begin_run(&out)?;
    }
    eprintln!(
        "run directory: {0}\nif interrupted: crossfield train --resume {0}\n",
        out.display()
    );
    let schema = fitted.schema().clone();
    drop(fitted);
    let mut console = Console::new(run.train.epochs(), rows_a_step(&run, &parts)?);
    let metrics = fit(&run, &plans, &schema, &parts, &out, &mut console)?;
    drop(console);
    eprintln!();
    print(&console::summary(&metrics))?;
    print(&sparsity(&out, &plans, &schema)?)?;
    eprintln!("saved in {}", out.display());
    Ok(())
}

/// The run file of a run that goes on from a finished one, with new files to train on.
fn continued(before: &Path, files: &[String], sets: &[String]) -> Anyhow<Run> {
    let finished = Finished::open(before, &[])?;
    if finished.run.train.executor.is_solver() {
        return Err(Error::RunDirectory {
            path: before.to_owned(),
            reason:
                "was fitted by sweeps over all of its rows, and cannot go on with others: expected \
                     a run of the executor burn or fused"
                    .into(),
        }
        .into());
    }
    let mut run = Run::read(&before.join("run.toml"), sets)?;
    run.data.train = files.to_vec();
    run.data.continue_from = Some(before.display().to_string());
    // Both are in what the run before has learned.
    for table in &mut run.optimizer.table {
        table.init_from = None;
    }
    for field in &mut run.field {
        field.keys_from = None;
    }
    Ok(run)
}

/// The data of a run.
struct Data {
    fitted: Arc<FittedSchema>,
    parts: Parts,
}

/// Reads the data of a run, and says what is in it.
fn read(run: &Run) -> Anyhow<Data> {
    let (spec, kind) = (run.data_spec(), label_kind(run.train.loss));
    if spec.data.stream {
        let mut reading = console::Reading::new();
        let streamed = stream_with(&spec, run.train.seed, kind, &mut |at| reading.see(at))?;
        drop(reading);
        eprintln!("{}", streamed.report);
        let fitted = streamed.schema.clone();
        let parts = Parts::from(streamed);
        return Ok(Data { fitted, parts });
    }
    let prepared = prepare(&spec, run.train.seed, kind)?;
    eprintln!("{}", prepared.report);
    let fitted = Arc::new(prepared.schema);
    let train = TrainingRows::Held(Arc::new(prepared.train));
    let parts = Parts::new(&fitted, train, prepared.valid, prepared.test);
    Ok(Data { fitted, parts })
}

/// Writes out what of a run file depends on its other sections.
pub(crate) fn complete(run: &mut Run) -> Result<(), Error> {
    run.complete_data();
    let mut train = run.train.clone();
    if let Some(fitted) = Fitted::of(run)? {
        fitted.complete(&mut train);
    }
    train.complete();
    run.train = train;
    Ok(())
}

/// Refuses a run for what can be seen without its data.
pub(crate) fn check(run: &Run) -> Result<(), Error> {
    run.train.check()?;
    run.train.check_negatives(run.data_spec().negative_rate())?;
    run.train.device.init()?;
    if run.train.executor == Executor::Fused {
        run.model.check_fused()?;
    }
    if let Some(fitted) = Fitted::of(run)? {
        fitted.check(run)?;
    }
    if run.data.continue_from.is_some() {
        check_continued(run)?;
    }
    let admitted = run.field.iter().find(|field| field.admit.is_some());
    if let Some(field) = admitted.filter(|_| run.train.executor.is_solver()) {
        return Err(Error::Option {
            option: format!("admit of field `{}`", field.name),
            reason: format!(
                "gives rows as training goes on, and {} fits all at once: expected the executor burn \
                 or fused",
                run.train.executor.name()
            ),
        });
    }
    Ok(())
}

/// Refuses a run that cannot go on from another, whatever its data.
fn check_continued(run: &Run) -> Result<(), Error> {
    let refuse = |option: &str, reason: &str| {
        Err(Error::Option {
            option: option.into(),
            reason: reason.into(),
        })
    };
    if run.train.executor.is_solver() {
        return refuse(
            "data.continue_from",
            "is set, but a solver fits all rows anew: expected the executor burn or fused",
        );
    }
    if run
        .optimizer
        .table
        .iter()
        .any(|table| table.init_from.is_some())
    {
        return refuse(
            "optimizer.table.init_from",
            "is set beside data.continue_from: expected one of the two",
        );
    }
    if run
        .optimizer
        .table
        .iter()
        .any(|table| table.compress.is_some())
    {
        return refuse(
            "optimizer.table.compress",
            "is set beside data.continue_from: expected whole tables, whose rows can be told apart \
             when a vocabulary grows",
        );
    }
    Ok(())
}

/// Rows that a step is of.
pub(crate) fn rows_a_step(run: &Run, parts: &Parts) -> Result<usize, Error> {
    Ok(match Fitted::of(run)? {
        Some(_) => parts.held()?.len(),
        None => run.train.batch_size(),
    })
}

/// Trains what the run file says, into a run directory that has its run.toml and its schema.
pub(crate) fn fit(
    run: &Run,
    plans: &[TablePlan],
    schema: &Schema,
    parts: &Parts,
    out: &Path,
    observer: &mut (dyn Observer + Send),
) -> Anyhow<FinalMetrics> {
    // Opened again where it is needed, so that no other run's vocabularies are held for all of this.
    let fill = |tables: &mut EmbeddingCollection| {
        WarmStart::open(&run.optimizer, plans, &FittedSchema::load(out)?)?.fill(tables)
    };
    let check_block =
        |block: &Dataset| Ok(run.model.check_rows(block.schema(), &block.examples())?);
    let begins_with_another = run.optimizer.table.iter().any(|t| t.init_from.is_some());
    let before = run.data.continue_from.as_ref();
    let before = before.map(|before| expand(before)).transpose()?;
    let continues = before.as_ref().map(|before| {
        let before = Path::new(before);
        let schema = FittedSchema::load(before)?.fingerprint();
        Ok::<_, crossfield_data::Error>(Continued {
            run: before,
            schema,
        })
    });
    let setup = Setup {
        train: &run.train,
        optimizer: &run.optimizer,
        plans,
        out,
        fill: begins_with_another.then_some(&fill),
        continues: continues.transpose()?,
        check_block: Some(&check_block),
    };
    let mean = parts.train.label_mean().unwrap_or(0.5);
    Ok(match Fitted::of(run)? {
        Some(fitted) => {
            let solved = Solved {
                setup: &setup,
                run,
                schema,
                parts,
            };
            solved.train(fitted, observer)?
        }
        None if run.train.executor == Executor::Fused => {
            let model = fused_model(run, schema)?;
            crossfield_train::train_fused(&setup, parts, model, observer)?
        }
        None if let Some(config) = crate::next_item::config(run) => {
            let train = parts.held()?;
            let make = |init: &Init| crate::next_item::model(&config, schema, init, train);
            crossfield_train::train(&setup, parts, make, observer)?.1
        }
        None => {
            let make = |init: &Init| model(run, schema, mean, init);
            crossfield_train::train(&setup, parts, make, observer)?.1
        }
    })
}

pub(crate) fn eval(args: &EvalArgs) -> Anyhow<()> {
    if let Some(candidates) = &args.candidates {
        let finished = Finished::open(&args.run, &args.sets)?;
        let data = finished.encode(&args.data, Labels::Required)?;
        let report = crate::candidates::evaluate(&finished, &data, candidates)?;
        return print(&console::table(&[("", &report)]));
    }
    if let Some(average) = Average::open(&args.run, &args.sets)? {
        let predicted = average.predicted(&args.data, Labels::Required)?;
        return print(&console::table(&[("", &predicted.report()?)]));
    }
    let (run, mut scorer, data) = load(&args.run, &args.data, &args.sets, Labels::Required)?;
    let report = in_pool(run.train.threads, || scorer.evaluate(&data))??;
    print(&console::table(&[("", &report)]))
}

pub(crate) fn predict(args: &PredictArgs) -> Anyhow<()> {
    let predicted = match Average::open(&args.run, &args.sets)? {
        Some(average) => average.predicted(&args.data, Labels::Optional)?,
        None => {
            let finished = Finished::open(&args.run, &args.sets)?;
            finished.predicted(&finished.encode(&args.data, Labels::Optional)?)?
        }
    };
    let mut lines = String::new();
    for &prediction in &predicted.predictions {
        lines += &console::nine_digits(prediction);
        lines.push('\n');
    }
    print(&lines)
}

/// A finished run and new rows for it.
fn load(
    directory: &Path,
    files: &[String],
    sets: &[String],
    labels: Labels,
) -> Anyhow<(Run, Box<dyn Scorer + Send>, Arc<Dataset>)> {
    let finished = Finished::open(directory, sets)?;
    let data = finished.encode(files, labels)?;
    let scorer = finished.scorer()?;
    Ok((finished.run, scorer, data))
}

/// A finished run.
pub(crate) struct Finished {
    pub(crate) directory: PathBuf,
    pub(crate) run: Run,
    pub(crate) fitted: FittedSchema,
    pub(crate) tables: Vec<TableConfig>,
}

impl Finished {
    pub(crate) fn open(directory: &Path, sets: &[String]) -> Anyhow<Self> {
        if is_average(&directory.join("run.toml")) {
            return Err(Error::RunDirectory {
                path: directory.to_owned(),
                reason: "is an average of runs, which eval, predict, report and describe take; \
                         expected one run, such as its members/1"
                    .into(),
            }
            .into());
        }
        let is_finished = directory.join("metrics.json").exists();
        if is_finished {
            check_run(directory)?;
        }
        let run = Run::read(&directory.join("run.toml"), sets)?;
        if !is_finished {
            return Err(Error::RunDirectory {
                path: directory.to_owned(),
                reason: format!(
                    "not finished; go on with: crossfield train --resume {}",
                    directory.display()
                ),
            }
            .into());
        }
        let fitted = FittedSchema::load(directory)?;
        let tables = merge_tables(run.model.tables(fitted.schema())?)?;
        Ok(Self {
            directory: directory.to_owned(),
            run,
            fitted,
            tables,
        })
    }

    /// The tables as they lie in the model's file: whole, or compressed as they were trained.
    pub(crate) fn plans(&self) -> Result<Vec<TablePlan>, Error> {
        let plans = (self.run.optimizer).plan_for(self.tables.clone(), &self.fitted)?;
        Ok(plans.into_iter().map(TablePlan::into_read_only).collect())
    }

    /// The tables as they were trained.
    pub(crate) fn training_plans(&self) -> Result<Vec<TablePlan>, Error> {
        if self.run.train.executor.is_solver() {
            let tables = self.tables.iter().cloned();
            return Ok(tables.map(TablePlan::read_only).collect());
        }
        self.run
            .optimizer
            .plan_for(self.tables.clone(), &self.fitted)
    }

    /// New rows, encoded as the run's were.
    pub(crate) fn encode(&self, files: &[String], labels: Labels) -> Anyhow<Arc<Dataset>> {
        let kind = label_kind(self.run.train.loss);
        let data = encode_files(&self.run.data_spec(), &self.fitted, files, kind, labels)?;
        self.run.model.check_rows(data.schema(), &data.examples())?;
        let admissions = Admissions::open(&self.directory, &self.fitted)?;
        Ok(admissions.look_up(Arc::new(data)))
    }

    /// The model, to score rows.
    pub(crate) fn scorer(&self) -> Anyhow<Box<dyn Scorer + Send>> {
        Ok(match Fitted::of(&self.run)? {
            Some(fitted) => self.fitted_by_solver(fitted)?,
            None if self.run.train.executor == Executor::Fused => {
                let model = fused_model(&self.run, self.fitted.schema())?;
                let (fingerprint, plans) = (self.fitted.fingerprint(), self.plans()?);
                let trained = FusedTrained::load(&self.directory, fingerprint, model, plans)?;
                Box::new(trained)
            }
            None => match crate::next_item::config(&self.run) {
                Some(config) => Box::new(self.next_item(&config)?),
                None => Box::new(self.on_burn()?),
            },
        })
    }

    /// The parameters that a solver has left.
    fn fitted_by_solver(&self, fitted: Fitted<'_>) -> Anyhow<Box<dyn Scorer + Send>> {
        fn load<M: SolverModel + 'static>(
            of: &Finished,
            model: M,
        ) -> Anyhow<Box<dyn Scorer + Send>> {
            let (executor, link) = (of.run.train.executor, of.run.train.loss.link());
            let fingerprint = of.fitted.fingerprint();
            let trained = SolverTrained::load(&of.directory, fingerprint, executor, link, model)?;
            Ok(Box::new(trained))
        }
        let schema = self.fitted.schema();
        match fitted {
            Fitted::Fm(config) => load(self, FmModel::new(config, schema)?),
            Fitted::Ratings(config) => load(self, MfModel::of_rows(config, true, schema)?),
            Fitted::Implicit(config) => {
                let train = Arc::new(self.prepare()?.train);
                load(
                    self,
                    MfModel::of_lists(config, schema, &self.run.train, &train)?,
                )
            }
        }
    }

    /// The model on Burn, whatever has trained it.
    pub(crate) fn on_burn(&self) -> Anyhow<Trained<Scored<Components>>> {
        if self.run.train.loss.of_rows().is_none() {
            return Err(Error::Option {
                option: "train.loss".into(),
                reason: format!(
                    "is {}: the run ranks items, and its score of a row is not taken apart",
                    self.run.train.loss.name()
                ),
            }
            .into());
        }
        self.load(|init| model(&self.run, self.fitted.schema(), 0.5, init))
    }

    /// The model of a run that finds next items.
    pub(crate) fn next_item(&self, config: &NextItemConfig) -> Anyhow<Trained<NextItem>> {
        self.load(|init| Ok(config.init(self.fitted.schema(), init, &[])?))
    }

    fn load<M: Model>(&self, make: impl FnOnce(&Init) -> Result<M, Error>) -> Anyhow<Trained<M>> {
        let device = self.run.train.device.init()?;
        let init = Init {
            device: device.clone(),
            seed: self.run.train.seed,
        };
        let (fingerprint, plans) = (self.fitted.fingerprint(), self.plans()?);
        Ok(Trained::load(
            &self.directory,
            fingerprint,
            make(&init)?,
            plans,
            &device,
        )?)
    }
}

/// A run whose parameters a solver fits.
struct Solved<'a> {
    setup: &'a Setup<'a>,
    run: &'a Run,
    schema: &'a Schema,
    parts: &'a Parts,
}

impl Solved<'_> {
    fn train(
        self,
        fitted: Fitted<'_>,
        observer: &mut (dyn Observer + Send),
    ) -> Anyhow<FinalMetrics> {
        let Self {
            setup,
            run,
            schema,
            parts,
        } = self;
        let (train, rows) = (&run.train, parts.held()?);
        Ok(match fitted {
            Fitted::Fm(config) => {
                let model = FmModel::new(config, schema)?;
                let solver = model.solver(config, train, rows)?;
                train_solver(setup, parts, solver, model, observer)?
            }
            Fitted::Ratings(config) => {
                let model = MfModel::of_rows(config, true, schema)?;
                let solver = model.ratings(config, train, rows)?;
                in_pool(train.threads, || {
                    train_solver(setup, parts, solver, model, observer)
                })??
            }
            Fitted::Implicit(config) => {
                let model = MfModel::of_lists(config, schema, train, rows)?;
                in_pool(train.threads, || -> Result<_, Error> {
                    if train.loss == Objective::Bpr {
                        let solver = model.bpr(config, run, rows)?;
                        train_solver(setup, parts, solver, model, observer)
                    } else {
                        let solver = model.wrmf(config, train, rows)?;
                        train_solver(setup, parts, solver, model, observer)
                    }
                })??
            }
        })
    }
}

fn model(run: &Run, schema: &Schema, mean: f64, init: &Init) -> Result<Scored<Components>, Error> {
    let (component, loss) = (run.model.init(schema, init)?, loss_of_rows(run)?);
    Ok(if run.model.bias {
        Scored::new(component, loss, mean, &init.device)
    } else {
        Scored::without_bias(component, loss)
    })
}

fn fused_model(run: &Run, schema: &Schema) -> Result<FusedModel, Error> {
    Ok(FusedModel {
        components: run.model.fused(schema)?,
        loss: loss_of_rows(run)?,
        bias: run.model.bias,
    })
}

/// The loss of a run whose model scores rows.
fn loss_of_rows(run: &Run) -> Result<Loss, Error> {
    run.train.loss.of_rows().ok_or_else(|| Error::Option {
        option: "train.loss".into(),
        reason:
            "bpr and wrmf are of kind = \"mf\", bpr and sampled_softmax of kind = \"sasrec\" alone"
                .into(),
    })
}

/// The tables that a run reads, each once.
pub(crate) fn tables(run: &Run, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
    let tables = match crate::next_item::config(run) {
        Some(config) => config.tables(schema)?,
        None => run.model.tables(schema)?,
    };
    Ok(merge_tables(tables)?)
}

/// How each table is updated; says what memory that takes, and refuses what the machine does not
/// have.
pub(crate) fn plan(
    run: &Run,
    fitted: &FittedSchema,
    say: &dyn Fn(&str),
) -> Result<Vec<TablePlan>, Error> {
    let tables = tables(run, fitted.schema())?;
    if Fitted::of(run)?.is_none() {
        let plans = run.optimizer.plan_for(tables, fitted)?;
        run.train.check_plans(&plans)?;
        let (weights, state) = table_bytes(&plans);
        say(&format!(
            "{}\n{}{}",
            console::memory_line(weights, state),
            describe_tables(&plans),
            describe_admitted(fitted)
        ));
        let left = check_memory_of(&plans, run.train.memory()?)?;
        let mapped = mapped_bytes(&plans);
        if mapped > 0 {
            say(&console::mapped_line(mapped, left));
        }
        return Ok(plans);
    }
    let each = tables.iter().map(|table| 4 * table.rows * table.dim);
    let each = each.sum::<usize>() as u64;
    // Beside those that are kept: the parameters as they are, and as they were before a sweep.
    let draws = match run.train.executor {
        Executor::Mcmc => run.train.solver().draws(run.train.epochs()),
        _ => 0,
    };
    match draws {
        0 => say(&format!("parameters: {}\n", bytes(each))),
        _ => say(&format!(
            "parameters: {}; {draws} draws of them: {}\n",
            bytes(each),
            bytes(each * draws as u64)
        )),
    }
    check_draws(draws + 3, each)?;
    Ok(tables.into_iter().map(TablePlan::read_only).collect())
}

pub(crate) fn label_kind(loss: Objective) -> LabelKind {
    loss.label_kind()
}

/// Early stopping needs validation rows: where the run file names none, a tenth of the training
/// rows is held out.
fn hold_out(run: &mut Run) {
    if run.train.early_stop.is_some() && run.data.hold_out() {
        eprintln!("early stopping: a tenth of the training rows is held out to decide it");
    }
}

pub(crate) fn refuse_taken(out: &Path) -> Result<(), Error> {
    let taken = out
        .read_dir()
        .map_or(out.exists(), |mut entries| entries.next().is_some());
    if !taken {
        return Ok(());
    }
    Err(Error::RunDirectory {
        path: out.to_owned(),
        reason: "exists and is not empty: go on with --resume, or name another --out".into(),
    })
}

/// Makes the run directory: the one that was asked for, or the first free `runs/<name>[-n]`.
pub(crate) fn make_directory(asked: Option<&Path>, run_file: &Path) -> Result<PathBuf, Error> {
    if let Some(out) = asked {
        refuse_taken(out)?;
        std::fs::create_dir_all(out).map_err(Error::io(out, "create"))?;
        return Ok(out.to_owned());
    }
    let runs = Path::new("runs");
    std::fs::create_dir_all(runs).map_err(Error::io(runs, "create"))?;
    let name = run_file
        .file_stem()
        .unwrap_or(run_file.as_os_str())
        .to_string_lossy();
    for number in 1.. {
        let out = match number {
            1 => runs.join(&*name),
            _ => runs.join(format!("{name}-{number}")),
        };
        // Making it is what claims it: another run may be starting at the same time.
        match std::fs::create_dir(&out) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => {
                return made
                    .map(|()| out.clone())
                    .map_err(Error::io(&out, "create"));
            }
        }
    }
    unreachable!("some number is free")
}

/// Prints to stdout; a reader that has seen enough is no error.
pub(crate) fn print(text: &str) -> Anyhow<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
