//! Checkpoints: a folder each, made beside the others and renamed when it is complete.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use crossfield_core::PredictionLink;
use crossfield_core::metrics::{Metrics, Report};
use crossfield_data::Manifest;
use crossfield_embedding::{
    EmbeddingCollection, MappedRows, SavedRows, Snapshot, SnapshotTensor, write_snapshot,
};
use serde::{Deserialize, Serialize};

use crate::admission::Admissions;
use crate::dense::{self, Number};
use crate::executor::{Executor, SavedTables};
use crate::{Error, FinalMetrics, manifest};

/// Weights of tables and dense layers.
pub(crate) const MODEL: &str = "model.safetensors";
/// State of their optimizers.
pub(crate) const OPTIMIZER: &str = "optimizer.safetensors";
/// Where the run is.
pub(crate) const STATE: &str = "state.json";
const FILES: [&str; 3] = [MODEL, OPTIMIZER, STATE];
/// What the rows of mapped tables are, which stay in their files; only where there are such.
const MAPPED: &str = "tables.json";
/// Prefix of dense optimizer state, beside the tables' `tables.`.
const DENSE: &str = "dense.";

/// What was measured at the end of an epoch: a line of metrics.jsonl.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Steps done.
    pub step: u64,
    /// Mean loss of the epoch's batches, each measured before its update.
    pub train_loss: f64,
    /// Figures on the training rows of the first epoch, each scored before the model learned from it,
    /// where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progressive: Option<Report>,
    /// Figures on the validation part, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<Report>,
}

/// Where a run is: state.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Fingerprint of the vocabularies and fields, in hex.
    pub schema: String,
    /// Seed of the run; with `epoch` and `step_in_epoch` it is the random state.
    pub seed: u64,
    /// Epochs that are complete.
    pub epoch: usize,
    /// Steps of the epoch that is not.
    pub step_in_epoch: u64,
    /// Blocks of that epoch that are complete; rows that are held are one block.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub block: u64,
    /// Steps of the block that is not.
    pub step_in_block: u64,
    /// Steps in all.
    pub step: u64,
    /// Sum over the current epoch's steps of loss × weight, and the weights.
    pub(crate) loss_sum: f64,
    pub(crate) loss_weight: f64,
    /// What was measured of the first epoch's rows before the model learned from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) progressive: Option<Metrics>,
    /// The step of the best evaluation so far.
    pub best_step: Option<u64>,
    /// All evaluations so far.
    pub evaluations: Vec<Evaluation>,
    /// Numbers of the dense optimizer's state.
    pub(crate) dense: BTreeMap<String, Number>,
    /// What the draws of the executor `mcmc` are; none for a model that scores rows by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posterior: Option<Posterior>,
    /// Share of the traffic's rows of label 0 that the model was trained on: predictions are
    /// corrected for it.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    pub negative_rate: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn all() -> f64 {
    1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_all(share: &f64) -> bool {
    *share == all()
}

/// What model.safetensors holds after the executor `mcmc`: draws, over which predictions are
/// averaged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Posterior {
    /// Draws that are saved: the first dimension of each tensor.
    pub draws: usize,
    /// What a score of a draw means.
    #[serde(flatten)]
    pub link: PredictionLink,
}

impl State {
    pub(crate) fn new(schema: u64, seed: u64) -> Self {
        Self {
            schema: format!("{schema:016x}"),
            seed,
            epoch: 0,
            step_in_epoch: 0,
            block: 0,
            step_in_block: 0,
            step: 0,
            loss_sum: 0.0,
            loss_weight: 0.0,
            progressive: None,
            best_step: None,
            evaluations: Vec::new(),
            dense: BTreeMap::new(),
            posterior: None,
            negative_rate: all(),
        }
    }

    /// Reads the state of a checkpoint or of a finished run whose model scores rows by itself, and
    /// checks that it belongs to the schema at hand.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::RunDirectory`], [`Error::OtherSchema`]; [`Error::Draws`] for a run
    /// of the executor `mcmc`.
    pub fn read(directory: &Path, schema: u64) -> Result<Self, Error> {
        let state = Self::read_any(directory, schema)?;
        match state.posterior {
            Some(Posterior { draws, .. }) => Err(Error::Draws {
                path: directory.to_owned(),
                draws,
            }),
            None => Ok(state),
        }
    }

    /// As [`read`](Self::read), whatever the run's executor is.
    pub(crate) fn read_any(directory: &Path, schema: u64) -> Result<Self, Error> {
        let path = directory.join(STATE);
        let text = fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        let state: Self = serde_json::from_str(&text).map_err(|error| Error::RunDirectory {
            path: path.clone(),
            reason: format!("not the state of a run: {error}"),
        })?;
        let expected = format!("{schema:016x}");
        if state.schema != expected {
            return Err(Error::OtherSchema {
                path,
                got: state.schema,
                expected,
            });
        }
        Ok(state)
    }
}

/// The checkpoints of a run, in `<run>/checkpoints/step-<n>`.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// Opens the folder and removes what an interrupted save left behind.
    pub(crate) fn open(run: &Path) -> Result<Self, Error> {
        let folder = run.join("checkpoints");
        fs::create_dir_all(&folder).map_err(Error::io(&folder, "create"))?;
        let checkpoints = Self { folder };
        for name in checkpoints.entries()? {
            if name.ends_with(".part") {
                let path = checkpoints.folder.join(name);
                fs::remove_dir_all(&path).map_err(Error::io(&path, "remove"))?;
            }
        }
        Ok(checkpoints)
    }

    fn entries(&self) -> Result<Vec<String>, Error> {
        let read = || -> std::io::Result<Vec<String>> {
            fs::read_dir(&self.folder)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect()
        };
        read().map_err(Error::io(&self.folder, "list"))
    }

    /// The steps of all checkpoints, rising.
    fn steps(&self) -> Result<Vec<u64>, Error> {
        let step = |name: String| name.strip_prefix("step-")?.parse().ok();
        let mut steps: Vec<u64> = self.entries()?.into_iter().filter_map(step).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// The checkpoint of a step.
    pub(crate) fn at(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:010}"))
    }

    /// The newest complete checkpoint.
    pub(crate) fn newest(&self) -> Result<Option<PathBuf>, Error> {
        Ok(self.steps()?.last().map(|&step| self.at(step)))
    }

    /// The list of a checkpoint's files, which are as it says.
    fn verified(&self, step: u64) -> Result<Manifest, Error> {
        let folder = self.at(step);
        let list = Manifest::read(&folder)?;
        list.verify(&folder)?;
        list.requires(&folder, &FILES)?;
        Ok(list)
    }

    /// Compares a checkpoint with its list of checksums.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] names the file that is damaged, and the newest checkpoint before it that
    /// is not.
    pub(crate) fn verify(&self, step: u64) -> Result<Manifest, Error> {
        self.verified(step).or_else(|damage| {
            let before = self.steps()?.into_iter().filter(|&other| other < step);
            let intact = before.rev().find(|&other| self.verified(other).is_ok());
            Err(Error::Checkpoint {
                damage: damage.to_string(),
                run: self.folder.parent().unwrap_or(&self.folder).to_owned(),
                intact,
            })
        })
    }

    /// Compares the newest checkpoint, if there is one, with its list.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub(crate) fn verify_newest(&self) -> Result<(), Error> {
        match self.steps()?.last() {
            Some(&step) => self.verify(step).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Saves a checkpoint; the older ones go when it is complete, except the one before it and the
    /// best. What leads mapped tables back goes with them.
    pub(crate) fn save(
        &self,
        state: &mut State,
        executor: &mut impl Executor,
        admissions: &Admissions,
    ) -> Result<(), Error> {
        let complete = self.at(state.step);
        let part = complete.with_extension("part");
        let mapped = match write(&part, state, executor, admissions) {
            Ok(mapped) => mapped,
            Err(error) => {
                // The checkpoints before this one are untouched; make room again, if that is
                // possible.
                let _ = fs::remove_dir_all(&part);
                return Err(error);
            }
        };
        fs::rename(&part, &complete).map_err(Error::io(&complete, "rename into place"))?;
        sync_folder(&self.folder)?;
        // Only now: until the checkpoint has its name, rows are led back to the one before.
        if let Some(tables) = executor.tables_mut() {
            tables.begin_undo(state.step, &mapped)?;
        }
        let steps = self.steps()?;
        let newest = &steps[steps.len().saturating_sub(2)..];
        let goes = |step: &&u64| !newest.contains(step) && Some(**step) != state.best_step;
        steps
            .iter()
            .filter(goes)
            .try_for_each(|&step| self.remove_one(step))?;
        if let (Some(tables), Some(&oldest)) = (executor.tables_mut(), self.steps()?.first()) {
            tables.remove_undo_before(oldest)?;
        }
        Ok(())
    }

    /// Leads the mapped tables of a run back to the checkpoint of `step`.
    pub(crate) fn lead_back(&self, step: u64, executor: &mut impl Executor) -> Result<(), Error> {
        let Some(tables) = executor.tables_mut().filter(|of| of.has_kept_rows()) else {
            return Ok(());
        };
        let path = self.at(step).join(MAPPED);
        let text = fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        let saved: BTreeMap<String, MappedRows> =
            serde_json::from_str(&text).map_err(|error| Error::RunDirectory {
                path,
                reason: format!("not what a checkpoint says of mapped tables: {error}"),
            })?;
        Ok(tables.go_back(step, &saved)?)
    }

    /// Removes the checkpoints after that of `step`, the newest first, so that whoever goes on finds
    /// one that can be gone back to.
    pub(crate) fn remove_after(&self, step: u64) -> Result<(), Error> {
        let later = self.steps()?.into_iter().rev();
        later
            .take_while(|&other| other > step)
            .try_for_each(|later| self.remove_one(later))?;
        sync_folder(&self.folder)
    }

    /// Removes the checkpoint of a step: at once, as far as whoever reads it can tell.
    fn remove_one(&self, step: u64) -> Result<(), Error> {
        let path = self.at(step);
        let part = path.with_extension("part");
        fs::rename(&path, &part)
            .and_then(|()| fs::remove_dir_all(&part))
            .map_err(Error::io(&path, "remove"))
    }

    /// Writes the checkpoint of `step`, which `executor` is at, with the tables that it leaves out;
    /// gives the folder to publish.
    pub(crate) fn complete(
        &self,
        step: u64,
        executor: &impl Executor,
        admissions: &Admissions,
    ) -> Result<PathBuf, Error> {
        let folder = self.folder.join("complete.part");
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(Error::io(&folder, "remove"))?;
        }
        fs::create_dir(&folder).map_err(Error::io(&folder, "create"))?;
        // The state that was saved is the one to publish.
        let mut ignored = State::new(0, 0);
        executor.save(&folder, &mut ignored, SavedTables::OfRun)?;
        for name in admissions.files().chain([STATE.to_owned()]) {
            let (from, to) = (self.at(step).join(&name), folder.join(&name));
            fs::copy(&from, &to).map_err(Error::io(&to, "write"))?;
        }
        Manifest::of_all(&folder)?.save(&folder)?;
        Ok(folder)
    }

    /// Makes what a folder holds, a checkpoint's, the run's model, and gives the list of its files.
    /// Can be repeated if it was interrupted.
    pub(crate) fn publish(
        from: &Path,
        run: &Path,
        admissions: &Admissions,
    ) -> Result<Manifest, Error> {
        let names: Vec<String> = admissions.files().chain(FILES.map(str::to_owned)).collect();
        let list = Manifest::read(from)?.without(|name| !names.iter().any(|other| other == name));
        for name in &names {
            let (from, to) = (from.join(name), run.join(name));
            let beside = run.join(format!("{name}.part"));
            let _ = fs::remove_file(&beside);
            // A second name costs no space; where the file system has none, a copy does.
            fs::hard_link(&from, &beside)
                .or_else(|_| fs::copy(&from, &beside).map(|_| ()))
                .map_err(Error::io(&beside, "write"))?;
            fs::rename(&beside, &to).map_err(Error::io(&to, "rename into place"))?;
            // Where `to` is the checkpoint's file already, from a publication that was
            // interrupted, both are names of one file, and such a rename does nothing.
            let _ = fs::remove_file(&beside);
        }
        sync_folder(run)?;
        Ok(list)
    }

    /// Removes the folder when the run is finished.
    pub(crate) fn remove(self) -> Result<(), Error> {
        fs::remove_dir_all(&self.folder).map_err(Error::io(&self.folder, "remove"))
    }
}

/// Makes a finished run of weights that were trained elsewhere: `model.safetensors`, `state.json` of
/// no epochs, `checksums.json` of all, and, last, `metrics.json` without figures. `run.toml` and the schema are the caller's.
///
/// # Errors
/// [`Error::Io`], [`Error::Tables`]; what was written until then stays.
pub fn save_imported(
    run: &Path,
    schema: u64,
    tensors: BTreeMap<String, SnapshotTensor<'_>>,
) -> Result<(), Error> {
    write_snapshot(&run.join(MODEL), tensors)?;
    write_synced(&run.join(STATE), &json(&State::new(schema, 0)))?;
    let model = Manifest::of(run, [MODEL, STATE])?;
    manifest::finish(run, &model, &json(&FinalMetrics::default()))?;
    sync_folder(run)
}

/// Goes back to an older checkpoint of an interrupted run: removes the newer ones, so that the run
/// goes on from there.
///
/// # Errors
/// [`Error::Option`] for a step without a checkpoint; [`Error::Checkpoint`] if it is damaged. The newer
/// ones are then still there.
pub fn go_back(run: &Path, step: u64) -> Result<(), Error> {
    let checkpoints = Checkpoints::open(run)?;
    let steps = checkpoints.steps()?;
    if !steps.contains(&step) {
        let steps: Vec<String> = steps.iter().map(u64::to_string).collect();
        return Err(Error::Option {
            option: format!("--step {step}"),
            reason: format!(
                "{} has no such checkpoint: expected one of {}",
                run.display(),
                steps.join(", ")
            ),
        });
    }
    checkpoints.verify(step)?;
    checkpoints.remove_after(step)
}

fn write(
    folder: &Path,
    state: &mut State,
    executor: &mut impl Executor,
    admissions: &Admissions,
) -> Result<BTreeMap<String, MappedRows>, Error> {
    fs::create_dir(folder).map_err(Error::io(folder, "create"))?;
    executor.save(folder, state, SavedTables::OfCheckpoint)?;
    admissions.save(folder, state)?;
    let mapped = match executor.tables_mut() {
        Some(tables) => tables.settle_mapped()?,
        None => BTreeMap::new(),
    };
    if !mapped.is_empty() {
        write_synced(&folder.join(MAPPED), &json(&mapped))?;
    }
    write_synced(&folder.join(STATE), &json(state))?;
    Manifest::of_all(folder)?.save(folder)?;
    sync_folder(folder)?;
    Ok(mapped)
}

/// Writes a Burn model and its optimizers, beside the weights of tables and their optimizers' states.
pub(crate) fn write_model<M: Module>(
    folder: &Path,
    state: &mut State,
    model: &M,
    of_tables: [BTreeMap<String, SnapshotTensor<'_>>; 2],
    optimizer: &ModuleOptimizer,
) -> Result<(), Error> {
    let weights = dense::weights(model);
    let [mut tensors, of_optimizers] = of_tables;
    tensors.extend(
        weights
            .iter()
            .map(|(path, tensor)| (path.clone(), tensor.as_snapshot())),
    );
    write_snapshot(&folder.join(MODEL), tensors)?;
    let (dense_state, numbers) = dense::optimizer_state(optimizer, &weights);
    state.dense = numbers;
    let mut tensors = of_optimizers;
    tensors.extend(
        dense_state
            .iter()
            .map(|(path, tensor)| (format!("{DENSE}{path}"), tensor.as_snapshot())),
    );
    Ok(write_snapshot(&folder.join(OPTIMIZER), tensors)?)
}

/// Loads the weights of a checkpoint or of a finished run.
pub(crate) fn load_weights<M: Module>(
    folder: &Path,
    rows: SavedRows,
    model: M,
    tables: &mut EmbeddingCollection,
) -> Result<M, Error> {
    let mut snapshot = Snapshot::open(&folder.join(MODEL))?.with_rows(rows);
    tables.load_weights(&mut snapshot)?;
    dense::load_weights(model, &mut snapshot)
}

/// Loads the optimizers' state of a checkpoint.
pub(crate) fn load_optimizers<M: Module>(
    folder: &Path,
    rows: SavedRows,
    state: &State,
    model: &M,
    tables: &mut EmbeddingCollection,
    optimizer: ModuleOptimizer,
) -> Result<ModuleOptimizer, Error> {
    let mut snapshot = Snapshot::open(&folder.join(OPTIMIZER))?.with_rows(rows);
    tables.load_state(&mut snapshot)?;
    dense::load_optimizer_state(optimizer, model, &mut snapshot, DENSE, &state.dense)
}

/// Pretty JSON with a last line end.
pub(crate) fn json(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("numbers, texts and lists");
    text.push('\n');
    text
}

fn write_synced(path: &Path, text: &str) -> Result<(), Error> {
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(Error::io(path, "write"))
}

/// Writes a file beside its place and renames it, so that a reader sees all of it or none.
///
/// # Errors
/// [`Error::Io`].
///
/// # Panics
/// If the path names no file.
pub fn write_whole(path: &Path, text: &str) -> Result<(), Error> {
    let mut name = path.file_name().expect("a file has a name").to_owned();
    name.push(".part");
    let beside = path.with_file_name(name);
    if let Err(error) = write_synced(&beside, text) {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    fs::rename(&beside, path).map_err(Error::io(path, "rename into place"))
}

/// A rename is only safe on the disk when its folder is.
fn sync_folder(folder: &Path) -> Result<(), Error> {
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io(folder, "flush"))
}
