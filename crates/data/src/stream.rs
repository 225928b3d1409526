//! Rows that are read block by block, so that memory does not grow with the files.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use crossfield_core::Schema;

use crate::config::DataSpec;
use crate::dataset::Dataset;
use crate::error::Error;
use crate::prepare::{Encoder, Prepared, Reader, expanded};
use crate::raw::{LabelKind, Labels};
use crate::report::DataReport;
use crate::schema::FittedSchema;

/// Blocks that may wait while one is trained on.
const DEPTH: usize = 1;

/// Training rows that are read from their files anew each epoch.
pub struct RowStream {
    spec: DataSpec,
    schema: Arc<FittedSchema>,
    files: Vec<String>,
    label: LabelKind,
}

impl fmt::Debug for RowStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowStream")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl RowStream {
    /// The rows of `files`, encoded with a schema that was learned before; `spec` describes the
    /// files, and how many rows a block has.
    ///
    /// # Errors
    /// [`Error::Config`] for files that cannot be named.
    pub fn new(
        spec: &DataSpec,
        schema: Arc<FittedSchema>,
        files: &[String],
        label: LabelKind,
    ) -> Result<Self, Error> {
        Ok(Self {
            spec: spec.clone(),
            schema,
            files: expanded(files)?,
            label,
        })
    }

    /// Share of the traffic's rows of label 0 that are among these.
    pub fn negative_rate(&self) -> f64 {
        self.spec.negative_rate()
    }

    /// The fields and dense columns of the rows.
    pub fn schema(&self) -> &Schema {
        self.schema.schema()
    }

    /// The blocks of an epoch from block `first` (from 0) on, read ahead on a thread of its own. The
    /// same seed and epoch give the same blocks.
    pub fn blocks(&self, _seed: u64, _epoch: u64, first: u64) -> Blocks {
        let (spec, schema, files, label) = (
            self.spec.clone(),
            self.schema.clone(),
            self.files.clone(),
            self.label,
        );
        let (sender, receiver) = sync_channel(DEPTH);
        let work = move || {
            let mut number = 0;
            let sent = &sender;
            let mut read = || {
                let encoder = Encoder::new(&spec, &schema, label, Labels::Required)?;
                let mut reader = Reader::new(encoder.described(), encoder.plan(), &files[0])?;
                let mut table = encoder.table()?;
                let block_rows = spec.data.block_rows;
                reader.read(&mut table, &files, &mut |table| {
                    if table.rows < block_rows {
                        return Ok(());
                    }
                    let full = std::mem::replace(table, encoder.table()?);
                    number += 1;
                    if number > first && sent.send(Ok(Arc::new(encoder.encoded(full)?))).is_err() {
                        return Err(Error::NotWanted);
                    }
                    Ok(())
                })?;
                number += 1;
                if table.rows > 0 && number > first {
                    let _ = sent.send(Ok(Arc::new(encoder.encoded(table)?)));
                }
                Ok(())
            };
            match read() {
                Ok(()) | Err(Error::NotWanted) => {}
                Err(error) => {
                    let _ = sender.send(Err(error));
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(work);
        Blocks {
            receiver: Some(receiver),
            thread: Some(thread.expect("the system has a thread for the reader")),
        }
    }
}

/// The blocks of an epoch.
#[derive(Debug)]
pub struct Blocks {
    receiver: Option<Receiver<Result<Arc<Dataset>, Error>>>,
    thread: Option<JoinHandle<()>>,
}

impl Iterator for Blocks {
    type Item = Result<Arc<Dataset>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Ok(block) = self.receiver.as_ref()?.recv() {
            return Some(block);
        }
        self.receiver = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        None
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        // Without a receiver the thread's next send fails, and it ends.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was about a block that nobody asked for.
            let _ = thread.join();
        }
    }
}

/// Rows to learn from.
#[derive(Clone, Debug)]
pub enum TrainingRows {
    /// All of them, in memory or in a mapped cache.
    Held(Arc<Dataset>),
    /// Read block by block, each epoch anew.
    Streamed(Arc<RowStream>),
}

impl TrainingRows {
    /// Share of the traffic's rows of label 0 that are among these.
    pub fn negative_rate(&self) -> f64 {
        match self {
            Self::Held(rows) => rows.negative_rate(),
            Self::Streamed(rows) => rows.negative_rate(),
        }
    }

    /// The fields and dense columns of the rows.
    pub fn schema(&self) -> &Schema {
        match self {
            Self::Held(rows) => rows.schema(),
            Self::Streamed(rows) => rows.schema(),
        }
    }

    /// Mean of the labels, each with its weight; `None` without weight, and of rows that are read
    /// block by block, of which nothing is known beforehand.
    pub fn label_mean(&self) -> Option<f64> {
        self.held().and_then(|rows| rows.label_mean())
    }

    /// The rows, if they are all at hand.
    pub fn held(&self) -> Option<&Arc<Dataset>> {
        match self {
            Self::Held(rows) => Some(rows),
            Self::Streamed(_) => None,
        }
    }

    /// The blocks of an epoch from block `first` (from 0) on; rows that are held are one.
    pub fn blocks(
        &self,
        seed: u64,
        epoch: u64,
        first: u64,
    ) -> Box<dyn Iterator<Item = Result<Arc<Dataset>, Error>>> {
        match self {
            Self::Held(rows) => Box::new((first == 0).then(|| Ok(rows.clone())).into_iter()),
            Self::Streamed(rows) => Box::new(rows.blocks(seed, epoch, first)),
        }
    }
}

/// Data of which the training part is read block by block.
#[derive(Debug)]
pub struct Streamed {
    /// Vocabularies and transforms, learned from the training part.
    pub schema: Arc<FittedSchema>,
    /// Training rows.
    pub train: RowStream,
    /// Validation rows, if there is a file for them.
    pub valid: Option<Dataset>,
    /// Test rows, if there is a file for them.
    pub test: Option<Dataset>,
    /// What a person wants to know about them.
    pub report: DataReport,
}

/// As [`prepare`](crate::prepare()), with training rows that are read block by block.
///
/// # Errors
/// As [`prepare`](crate::prepare()).
pub fn stream(spec: &DataSpec, seed: u64, label: LabelKind) -> Result<Streamed, Error> {
    let Prepared {
        schema,
        valid,
        test,
        report,
        ..
    } = crate::prepare(spec, seed, label)?;
    let schema = Arc::new(schema);
    Ok(Streamed {
        train: RowStream::new(&spec.complete(), schema.clone(), &spec.data.train, label)?,
        schema,
        valid,
        test,
        report,
    })
}
