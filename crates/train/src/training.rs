//! Training from Rust: what a run file says, with a model that is code.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossfield_core::metrics::Report;
use crossfield_core::{
    ComponentConfig, Examples, Init, Loss, Model, Schema, Scored, TableConfig, merge_tables,
};
use crossfield_data::{DataSpec, Dataset, FittedSchema, LabelKind, Labels, encode_files, prepare};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::trainer::{FinalMetrics, Observer, Parts, Setup, in_pool, train};
use crate::{
    Admissions, Error, Executor, OptimizerConfig, RunFile, Scorer, TrainConfig, Trained,
    check_memory,
};

/// A run of a model that is made in Rust: all of a [run file](RunFile) but its `[model]`, and the run
/// directory.
///
/// [`fit`](Self::fit) takes the configuration of a component, or of a sum of several, a pair of
/// configurations; [`fit_model`](Self::fit_model) any [`Model`]. The run directory holds what one of the
/// `crossfield` command does, with a run.toml that has no `[model]`: the same program reads it again.
///
/// ```
/// use crossfield_fm::FmConfig;
/// use crossfield_train::Training;
///
/// let folder = tempfile::tempdir()?;
/// let clicks = folder.path().join("clicks.csv");
/// std::fs::write(&clicks, "label,user,item\n1,u,a\n0,u,b\n1,v,a\n0,v,b\n")?;
/// let mut training = Training::parse(
///     "field = [{ name = 'user' }, { name = 'item' }]
///      [train]
///      epochs = 20",
///     folder.path().join("run"),
/// )?;
/// // What a text says can be said in Rust as well.
/// training.data.data.train = vec![clicks.display().to_string()];
/// let mut finished = training.fit(FmConfig::default())?;
/// // Item `a` is clicked, item `b` is not.
/// assert_eq!(finished.metrics.train.as_ref().and_then(|train| train.auc), Some(1.0));
///
/// let new = folder.path().join("new.csv");
/// std::fs::write(&new, "user,item\nu,a\nw,b\n")?;
/// let clicks = finished.predict(&new)?;
/// assert!(clicks[0] > 0.5 && clicks[1] < 0.5);
///
/// // Another program, later.
/// let training = Training::open(folder.path().join("run"))?;
/// assert_eq!(training.load(FmConfig::default())?.predict(&new)?, clicks);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Training {
    /// `[data]`, `[label]`, `[[field]]` and `[[cross]]`.
    pub data: DataSpec,
    /// `[optimizer]`.
    pub optimizer: OptimizerConfig,
    /// `[train]`; its executor is `burn`.
    pub train: TrainConfig,
    /// The run directory. A run that was interrupted there goes on, if its settings are these.
    pub out: PathBuf,
}

/// A finished run: the model and what reads new rows for it. [`Training::fit`] and
/// [`Training::load`] make one.
pub struct Finished<M> {
    /// The model and its tables.
    pub trained: Trained<M>,
    /// The figures of the run: metrics.json.
    pub metrics: FinalMetrics,
    /// What was learned of the data: the fields, and which row is which value.
    pub fitted: FittedSchema,
    /// The keys that were given rows as they came.
    admissions: Admissions,
    /// How the files of the run are read.
    data: DataSpec,
    label: LabelKind,
    threads: usize,
    check_rows: CheckRows,
}

/// Refuses rows that the model cannot read.
type CheckRows =
    Box<dyn Fn(&Schema, &Examples<'_>) -> Result<(), crossfield_core::Error> + Send + Sync>;

type RunFileWithoutModel = RunFile<Option<NoModel>>;

/// What stands for `[model]` where the model is code: nothing can be read as it.
#[derive(Clone, Debug, PartialEq)]
struct NoModel(Infallible);

impl<'de> Deserialize<'de> for NoModel {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(
            "the model is given in Rust: leave `[model]` out",
        ))
    }
}

impl Serialize for NoModel {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        match self.0 {}
    }
}

impl Training {
    /// From the text of a run file without `[model]`, and the run directory.
    ///
    /// # Errors
    /// [`Error::RunFile`] with the line, and the nearest key for an unknown one.
    pub fn parse(text: &str, out: impl Into<PathBuf>) -> Result<Self, Error> {
        let run = RunFileWithoutModel::parse(text, "run file", &[])?;
        Ok(Self::new(run, out.into()))
    }

    /// From a run file without `[model]`, and the run directory.
    ///
    /// # Errors
    /// [`Error::Io`]; as [`parse`](Self::parse).
    pub fn read(run_file: impl AsRef<Path>, out: impl Into<PathBuf>) -> Result<Self, Error> {
        let run = RunFileWithoutModel::read(run_file.as_ref(), &[])?;
        Ok(Self::new(run, out.into()))
    }

    /// A run directory that was made before: to [`load`](Self::load) what it holds, or to go on.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn open(out: impl Into<PathBuf>) -> Result<Self, Error> {
        let out = out.into();
        Self::read(out.join("run.toml"), out)
    }

    fn new(run: RunFileWithoutModel, out: PathBuf) -> Self {
        Self {
            data: run.data_spec(),
            optimizer: run.optimizer,
            train: run.train,
            out,
        }
    }

    /// The run file, every default written out.
    fn complete(&self) -> RunFileWithoutModel {
        let data = self.data.clone();
        let mut run = RunFile {
            data: data.data,
            label: data.label,
            field: data.field,
            cross: data.cross,
            model: None,
            optimizer: self.optimizer.clone(),
            train: self.train.clone(),
            tune: None,
        };
        if run.train.early_stop.is_some() {
            run.data.hold_out();
        }
        run.complete_data();
        run.train.complete();
        run
    }

    /// Trains a component with a bias under the loss that `train.loss` names.
    ///
    /// With early stopping and neither validation rows nor a split, a tenth of the training rows is
    /// held out to decide it.
    ///
    /// # Errors
    /// Whatever is wrong with the settings, the data, or the model under this data, before there is a
    /// run directory; [`Error::RunDirectory`] if that holds anything but an interrupted run of these
    /// settings; whatever stops the run.
    pub fn fit<C>(&self, config: C) -> Result<Finished<Scored<C::Component>>, Error>
    where
        C: ComponentConfig + Send + Sync + 'static,
    {
        self.fit_observed(config, &mut ())
    }

    /// As [`fit`](Self::fit); `observer` hears how it goes.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn fit_observed<C>(
        &self,
        config: C,
        observer: &mut (dyn Observer + Send),
    ) -> Result<Finished<Scored<C::Component>>, Error>
    where
        C: ComponentConfig + Send + Sync + 'static,
    {
        let (loss, config) = (self.loss()?, Arc::new(config));
        let of_rows = config.clone();
        self.run(
            |schema| config.tables(schema),
            |train, init| {
                let component = config.init(train.schema(), init)?;
                let mean = train.label_mean().unwrap_or_default();
                Ok(Scored::new(component, loss, mean, &init.device))
            },
            Box::new(move |schema, rows| of_rows.check_rows(schema, rows)),
            observer,
        )
    }

    /// Trains a model of one's own: one that is no sum of scores, has a loss of its own, or ranks items.
    /// `tables` says which tables it looks up; `make` makes it, given the training rows with their schema,
    /// and where and from which seed its weights are drawn.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn fit_model<M: Model>(
        &self,
        tables: impl FnOnce(&Schema) -> Result<Vec<TableConfig>, crossfield_core::Error>,
        make: impl FnOnce(&Dataset, &Init) -> Result<M, Error> + Send,
        observer: &mut (dyn Observer + Send),
    ) -> Result<Finished<M>, Error> {
        self.run(tables, make, Box::new(|_, _| Ok(())), observer)
    }

    /// The finished run in the run directory, which [`fit`](Self::fit) has left with this configuration.
    ///
    /// # Errors
    /// [`Error::RunDirectory`] if it is not finished; whatever is wrong with its files, or with the
    /// configuration.
    pub fn load<C>(&self, config: C) -> Result<Finished<Scored<C::Component>>, Error>
    where
        C: ComponentConfig + Send + Sync + 'static,
    {
        let (run, fitted) = (self.complete(), FittedSchema::load(&self.out)?);
        let file = self.out.join("metrics.json");
        if !file.exists() {
            return Err(self.refuse("is not finished: `fit` goes on with it"));
        }
        let metrics = std::fs::read_to_string(&file).map_err(Error::io(&file, "read"))?;
        let metrics = serde_json::from_str(&metrics).map_err(|error| Error::RunDirectory {
            path: file,
            reason: error.to_string(),
        })?;
        let tables = merge_tables(config.tables(fitted.schema())?)?;
        let plans = run.optimizer.plan_for(tables, &fitted)?;
        let device = run.train.device.init()?;
        let init = Init {
            device: device.clone(),
            seed: run.train.seed,
        };
        let component = config.init(fitted.schema(), &init)?;
        // The bias is read with the other weights.
        let model = Scored::new(component, self.loss()?, 0.5, &device);
        let trained = Trained::load(&self.out, fitted.fingerprint(), model, plans, &device)?;
        let admissions = Admissions::open(&self.out, &fitted)?;
        let check = move |schema: &Schema, rows: &Examples<'_>| config.check_rows(schema, rows);
        Ok(Finished::new(
            &run,
            trained,
            metrics,
            (fitted, admissions),
            Box::new(check),
        ))
    }

    /// The loss of a component.
    fn loss(&self) -> Result<Loss, Error> {
        self.train.loss.of_rows().ok_or_else(|| Error::Option {
            option: "train.loss".into(),
            reason: format!(
                "is {}, which looks at the order of items: expected logistic, probit or squared, or \
                 a model of its own by `fit_model`",
                self.train.loss.name()
            ),
        })
    }

    fn run<M: Model>(
        &self,
        tables: impl FnOnce(&Schema) -> Result<Vec<TableConfig>, crossfield_core::Error>,
        make: impl FnOnce(&Dataset, &Init) -> Result<M, Error> + Send,
        check_rows: CheckRows,
        observer: &mut (dyn Observer + Send),
    ) -> Result<Finished<M>, Error> {
        let run = self.complete();
        check(&run)?;
        self.check_place(&run)?;
        let label = run.train.loss.label_kind();
        let prepared = prepare(&run.data_spec(), run.train.seed, label)?;
        check_schema(&self.out, &prepared.schema)?;
        if run.train.early_stop.is_some() && prepared.valid.is_none() {
            return Err(Error::Option {
                option: "train.early_stop".into(),
                reason: "needs validation rows: set data.valid, or valid in data.split".into(),
            });
        }
        let tables = merge_tables(tables(prepared.schema.schema())?)?;
        let held_out = prepared.valid.iter().chain(&prepared.test);
        for part in std::iter::once(&prepared.train).chain(held_out) {
            check_rows(part.schema(), &part.examples())?;
        }
        let plans = run.optimizer.plan_for(tables, &prepared.schema)?;
        run.train.check_plans(&plans)?;
        check_memory(&plans)?;

        // Only now, so that a mistake leaves no folder behind.
        std::fs::create_dir_all(&self.out).map_err(Error::io(&self.out, "create"))?;
        run.save(&self.out.join("run.toml"))?;
        if !self.out.join("schema.json").exists() {
            prepared.schema.save(&self.out)?;
        }
        let fitted = prepared.schema.clone();
        let parts = Parts::from(prepared);
        let setup = Setup {
            train: &run.train,
            optimizer: &run.optimizer,
            plans: &plans,
            out: &self.out,
            fill: None,
            continues: None,
            check_block: None,
        };
        let of_rows = parts.held()?;
        let (trained, metrics) =
            train(&setup, &parts, |init: &Init| make(of_rows, init), observer)?;
        let admissions = Admissions::open(&self.out, &fitted)?;
        let fitted = (fitted, admissions);
        Ok(Finished::new(&run, trained, metrics, fitted, check_rows))
    }

    /// Refuses a run directory that holds anything but an interrupted run of these settings.
    fn check_place(&self, run: &RunFileWithoutModel) -> Result<(), Error> {
        let file = self.out.join("run.toml");
        if !file.exists() {
            let mut entries = match self.out.read_dir() {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                entries => entries.map_err(Error::io(&self.out, "read"))?,
            };
            return match entries.next() {
                None => Ok(()),
                Some(_) => Err(self.refuse("is not empty, and no run: name another folder")),
            };
        }
        if self.out.join("metrics.json").exists() {
            let reason = "holds a finished run: name another folder, remove this one, or read it by \
                          `Training::open` and `load`";
            return Err(self.refuse(reason));
        }
        if RunFileWithoutModel::read(&file, &[])? != *run {
            let reason = "holds an interrupted run with other settings (its run.toml has them): name \
                          another folder, or remove this one";
            return Err(self.refuse(reason));
        }
        Ok(())
    }

    fn refuse(&self, reason: &str) -> Error {
        Error::RunDirectory {
            path: self.out.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// Refuses settings that would have to be ignored here, and numbers that cannot be.
fn check(run: &RunFileWithoutModel) -> Result<(), Error> {
    let refuse = |option: &str, reason: String| {
        Err(Error::Option {
            option: option.into(),
            reason,
        })
    };
    if run.train.executor != Executor::Burn {
        let reason = format!(
            "is {}: a model from Rust trains on burn",
            run.train.executor.name()
        );
        return refuse("train.executor", reason);
    }
    if run.optimizer.table.iter().any(|it| it.init_from.is_some()) {
        let reason =
            "is for runs of the crossfield command: fill tables by `Setup::fill` and `train`";
        return refuse("optimizer.table.init_from", reason.into());
    }
    run.train.check()?;
    run.train.check_negatives(run.data_spec().negative_rate())?;
    run.train.device.init()?;
    Ok(())
}

/// Refuses data that is not encoded as the checkpoints of a run directory expect.
///
/// # Errors
/// [`Error::OtherSchema`]; what is wrong with the saved schema.
pub fn check_schema(directory: &Path, schema: &FittedSchema) -> Result<(), Error> {
    let saved = directory.join("schema.json");
    if !saved.exists() {
        // Interrupted before it was saved, hence before any checkpoint.
        return Ok(());
    }
    let (known, now) = (
        FittedSchema::load(directory)?.fingerprint(),
        schema.fingerprint(),
    );
    if known == now {
        return Ok(());
    }
    Err(Error::OtherSchema {
        path: saved,
        got: format!("{known:016x}"),
        expected: format!("{now:016x}"),
    })
}

impl<M: fmt::Debug> fmt::Debug for Finished<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finished")
            .field("trained", &self.trained)
            .field("metrics", &self.metrics)
            .finish_non_exhaustive()
    }
}

impl<M> Finished<M> {
    fn new(
        run: &RunFileWithoutModel,
        trained: Trained<M>,
        metrics: FinalMetrics,
        (fitted, admissions): (FittedSchema, Admissions),
        check_rows: CheckRows,
    ) -> Self {
        Self {
            trained,
            metrics,
            fitted,
            admissions,
            data: run.data_spec(),
            label: run.train.loss.label_kind(),
            threads: run.train.threads,
            check_rows,
        }
    }

    /// Encodes a file of new rows as those of the run were; `labels` says whether it must have labels.
    ///
    /// # Errors
    /// Whatever is wrong with the file, or with its rows for the model.
    pub fn encode(&self, file: impl AsRef<Path>, labels: Labels) -> Result<Arc<Dataset>, Error> {
        let file = file.as_ref().display().to_string();
        let rows = encode_files(&self.data, &self.fitted, &[file], self.label, labels)?;
        (self.check_rows)(rows.schema(), &rows.examples())?;
        Ok(self.admissions.look_up(Arc::new(rows)))
    }
}

impl<M: Model> Finished<M> {
    /// The predictions for the rows of a file, in its order: probabilities, or ratings. It may have
    /// labels or not.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn predict(&mut self, file: impl AsRef<Path>) -> Result<Vec<f64>, Error> {
        let rows = self.encode(file, Labels::Optional)?;
        let output = self.trained.output();
        let mut predictions = Vec::with_capacity(rows.len());
        in_pool(self.threads, || {
            self.trained.score(&rows, &mut |values| {
                predictions.extend(values.iter().map(|&value| output.prediction(value)));
            })
        })??;
        Ok(predictions)
    }

    /// Figures on a file of labelled rows.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn evaluate(&mut self, file: impl AsRef<Path>) -> Result<Report, Error> {
        let rows = self.encode(file, Labels::Required)?;
        in_pool(self.threads, || self.trained.evaluate(&rows))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfield_fm::FmConfig;
    use tempfile::TempDir;

    const TEXT: &str = "field = [{ name = 'user' }, { name = 'item' }]
                        train = { epochs = 3, batch_size = 2, checkpoint_every = 2 }";

    /// Four clicks, and where a run of them may go.
    fn training(text: &str) -> (TempDir, Training) {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("clicks.csv");
        let rows = "label,user,item\n1,u,a\n0,u,b\n1,v,a\n0,v,b\n";
        std::fs::write(&file, rows).unwrap();
        let mut training = Training::parse(text, folder.path().join("run")).unwrap();
        training.data.data.train = vec![file.display().to_string()];
        (folder, training)
    }

    fn message<T>(result: Result<T, Error>) -> String {
        result.err().map(|error| error.to_string()).unwrap()
    }

    struct BreaksOff;

    impl Observer for BreaksOff {
        fn stepped(&mut self, epoch: usize, step: usize, _steps: usize, _loss: f64) {
            assert!((epoch, step) != (2, 2), "broken off on purpose");
        }
    }

    #[test]
    fn an_interrupted_run_goes_on_to_the_same_bits() {
        let (_whole, undisturbed) = training(TEXT);
        let expected = undisturbed.fit(FmConfig::default()).unwrap().metrics;
        let (_folder, training) = training(TEXT);
        let broken = std::panic::catch_unwind(|| {
            let _ = training.fit_observed(FmConfig::default(), &mut BreaksOff);
        });
        assert!(broken.is_err());
        struct Heard(Option<u64>);
        impl Observer for Heard {
            fn resumed(&mut self, state: &crate::State) {
                self.0 = Some(state.step);
            }
        }
        let other = Training {
            optimizer: toml::from_str("rows = { lr = 0.5 }").unwrap(),
            ..training.clone()
        };
        let error = message(other.fit(FmConfig::default()));
        assert!(
            error.contains("interrupted run with other settings"),
            "{error}"
        );
        let mut heard = Heard(None);
        let finished = training
            .fit_observed(FmConfig::default(), &mut heard)
            .unwrap();
        assert_eq!(heard.0, Some(2));
        assert_eq!(finished.metrics, expected);
        let [weights, again] = [&undisturbed, &training]
            .map(|run| std::fs::read(run.out.join("model.safetensors")).unwrap());
        assert!(weights == again);
    }

    #[test]
    fn a_finished_run_is_read_and_not_overwritten() {
        let (folder, training) = training(TEXT);
        assert!(message(training.load(FmConfig::default())).contains("schema.json"));
        let mut finished = training.fit(FmConfig::default()).unwrap();
        let error = message(training.fit(FmConfig::default()));
        assert!(error.contains("holds a finished run"), "{error}");
        let file = folder.path().join("clicks.csv");
        let predictions = finished.predict(&file).unwrap();
        let opened = Training::open(&training.out).unwrap();
        let mut loaded = opened.load(FmConfig::default()).unwrap();
        assert_eq!(loaded.predict(&file).unwrap(), predictions);
        assert_eq!(loaded.metrics, finished.metrics);
        let measured = loaded.evaluate(&file).unwrap();
        assert_eq!(Some(measured), finished.metrics.train);
        // What was opened is what was asked for, every default written out.
        assert_eq!(opened.complete(), training.complete());
    }

    #[test]
    fn a_model_of_ones_own_trains_as_its_component_does() {
        let (_folder, training) = training(TEXT);
        let config = FmConfig::default();
        let own = Training {
            out: training.out.with_file_name("own"),
            ..training.clone()
        };
        let fitted = training.fit(config.clone()).unwrap();
        let make = |train: &Dataset, init: &Init| {
            let component = config.init(train.schema(), init)?;
            let mean = train.label_mean().unwrap_or_default();
            Ok(Scored::new(component, Loss::Logistic, mean, &init.device))
        };
        let of_model = own.fit_model(|schema| config.tables(schema), make, &mut ());
        assert_eq!(of_model.unwrap().metrics, fitted.metrics);
    }

    #[test]
    fn what_would_be_ignored_is_refused_before_there_is_a_folder() {
        for (text, expected) in [
            (
                "train = { executor = 'fused' }",
                "train.executor: is fused: a model from Rust trains on burn",
            ),
            (
                "train = { loss = 'wrmf' }",
                "train.loss: is wrmf, which looks at the order of items: expected logistic, probit or \
                 squared, or a model of its own by `fit_model`",
            ),
            (
                "optimizer = { table = [{ match = '*', init_from = 'runs/mf' }] }",
                "optimizer.table.init_from: is for runs of the crossfield command: fill tables by \
                 `Setup::fill` and `train`",
            ),
            (
                "train = { early_stop = {} }\ndata = { split = { kind = 'random', test = 0.5 } }",
                "train.early_stop: needs validation rows: set data.valid, or valid in data.split",
            ),
        ] {
            let text = format!("field = [{{ name = 'user' }}]\n{text}");
            let (_folder, training) = training(&text);
            assert_eq!(message(training.fit(FmConfig::default())), expected);
            assert!(!training.out.exists(), "{expected}");
        }
    }

    #[test]
    fn mistakes_in_the_text_are_named_with_their_line() {
        let parse = |text| message(Training::parse(text, "run"));
        assert!(parse("\n[train]\nepoch = 3").contains("did you mean `epochs`?"));
        let error = parse("[model]\nkind = 'fm'");
        assert!(
            error.contains("the model is given in Rust: leave `[model]` out"),
            "{error}"
        );
    }
}
