use std::path::{Path, PathBuf};

use thiserror::Error;

/// What can stop a run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] crossfield_data::Error),
    /// The model does not fit the data.
    #[error(transparent)]
    Model(#[from] crossfield_core::Error),
    /// A table or a snapshot.
    #[error(transparent)]
    Tables(#[from] crossfield_embedding::Error),
    /// The fused executor.
    #[error(transparent)]
    Fused(#[from] crossfield_fused::Error),
    /// A solver.
    #[error("the executor {executor}: {source}")]
    Solver {
        /// Its name.
        executor: &'static str,
        /// What it says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Draws from the posterior, where one model is expected.
    #[error(
        "{path}: the run holds {draws} draws of the executor mcmc, over which `eval` and `predict` \
         average: expected one model (run.toml with train.executor = \"mcmc\" reads it)",
        path = path.display()
    )]
    Draws {
        /// The run directory.
        path: PathBuf,
        /// How many.
        draws: usize,
    },
    /// Draws that do not fit into memory.
    #[error(
        "not enough memory: {draws} draws of {each} each need {total}; {available} is available; \
         keep fewer (train.solver.thin)"
    )]
    DrawMemory {
        /// How many.
        draws: usize,
        /// Size of one.
        each: String,
        /// Size of all.
        total: String,
        /// What the system can give.
        available: String,
    },
    /// Predictions that cannot be measured.
    #[error(transparent)]
    Metrics(#[from] crossfield_core::metrics::MetricsError),
    /// A file cannot be read or written.
    #[error("{path}: cannot {action}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A run file that is not TOML, or not a run file.
    #[error("{place}: {message}")]
    RunFile {
        /// File, and line where it is known.
        place: String,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// A `--set` that cannot be applied.
    #[error("--set {assignment}: {reason}")]
    Set {
        /// As it was given.
        assignment: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the run directory that cannot be understood.
    #[error("{path}: {reason}", path = path.display())]
    RunDirectory {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint that is not as it was saved.
    #[error("{damage}{}", offer(run, *intact))]
    Checkpoint {
        /// Which file is damaged, and how.
        damage: String,
        /// The run directory.
        run: PathBuf,
        /// The step of the newest checkpoint before it that is whole, if there is one.
        intact: Option<u64>,
    },
    /// A checkpoint that was made under other vocabularies or fields.
    #[error(
        "{path}: belongs to another schema (fingerprint {got}, this data gives {expected}): \
         the data, the fields or the split changed since; train anew with another --out",
        path = path.display()
    )]
    OtherSchema {
        /// The checkpoint.
        path: PathBuf,
        /// Fingerprint in the checkpoint.
        got: String,
        /// Fingerprint of the schema at hand.
        expected: String,
    },
    /// Tables that do not fit into memory.
    #[error(
        "not enough memory: the tables need {weights} and their optimizers {state}, \
         {total} in all; {available} is available\n{tables}\n\
         a table may lie in a file instead: [[optimizer.table]] match = \"{largest}\", \
         storage = \"mapped\""
    )]
    Memory {
        /// Size of the weights.
        weights: String,
        /// Size of the optimizers' state.
        state: String,
        /// Their sum.
        total: String,
        /// What the system can give.
        available: Box<str>,
        /// The arithmetic, table by table.
        tables: Box<str>,
        /// The largest of those that could lie in a file.
        largest: Box<str>,
    },
    /// Files of mapped tables that do not fit on the disk.
    #[error(
        "{path}: not enough room on the disk: the files of mapped tables need {files}, and with the \
         finished run {total}; {available} is available",
        path = path.display()
    )]
    Disk {
        /// The folder of the files.
        path: PathBuf,
        /// Size of the files.
        files: String,
        /// Their size, and that of the finished run.
        total: String,
        /// What the disk has.
        available: String,
    },
    /// Threads that the system does not give.
    #[error("train.threads = {threads}: the system gives no such threads: {source}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system says.
        source: rayon::ThreadPoolBuildError,
    },
    /// The loss is no number any more.
    #[error(
        "training diverged: the loss is {loss} at epoch {epoch}, step {step} (rows: {optimizer}); \
         try a lower learning rate (optimizer.rows.lr) or more L2 (optimizer.rows.l2)"
    )]
    Diverged {
        /// The loss.
        loss: f32,
        /// Epoch, from 1.
        epoch: usize,
        /// Step of the run, from 1.
        step: u64,
        /// Kind and rate of the row optimizer.
        optimizer: String,
    },
    /// A weight, what its optimizer keeps of it, or a prediction is no number any more.
    #[error(
        "training diverged: {what} at epoch {epoch}, step {step} (rows: {optimizer}); try a lower \
         learning rate (optimizer.rows.lr) or more L2 (optimizer.rows.l2)"
    )]
    DivergedWeights {
        /// Which number was found where.
        what: String,
        /// Epoch, from 1.
        epoch: usize,
        /// Step of the run, from 1.
        step: u64,
        /// Kind and rate of the row optimizer.
        optimizer: String,
    },
    /// The run was asked to stop where it has a checkpoint, to go on later.
    #[error(
        "paused after epoch {epoch}, as it was asked to: its checkpoint is there to go on from"
    )]
    Paused {
        /// Epochs that are done.
        epoch: usize,
    },
    /// An option that does not fit the others.
    #[error("{option}: {reason}")]
    Option {
        /// The key of the run file.
        option: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
}

/// What can be done about a damaged checkpoint.
fn offer(run: &Path, intact: Option<u64>) -> String {
    match intact {
        Some(step) => format!(
            "; go on from step {step}: crossfield train --resume {} --step {step}",
            run.display()
        ),
        None => "; there is no intact checkpoint before it: train anew with another --out".into(),
    }
}

impl Error {
    /// Names the file and the action that an I/O error interrupted.
    pub fn io<'a>(
        path: &'a Path,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self + use<'a> {
        move |source| Self::Io {
            path: path.to_owned(),
            action,
            source,
        }
    }
}
