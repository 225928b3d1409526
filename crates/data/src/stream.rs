//! Rows that are read block by block, so that memory does not grow with the files.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crossfield_core::Schema;
use crossfield_core::rng::{Purpose, rng};

use crate::config::DataSpec;
use crate::dataset::Dataset;
use crate::error::Error;
use crate::passes::{Fit, Progress, fit_in_passes, prepare_in_passes};
use crate::prepare::{Encoder, Prepared, Reader, expanded};
use crate::raw::{LabelKind, Labels};
use crate::report::DataReport;
use crate::schema::FittedSchema;
use crate::split::shuffle;

/// Blocks that may wait while one is trained on.
const DEPTH: usize = 1;

/// Training rows that are read anew each epoch, from their files or from the mapped file of a cache.
pub struct RowStream {
    spec: DataSpec,
    schema: Arc<FittedSchema>,
    files: Vec<String>,
    label: LabelKind,
    /// The rows, where they come out of a cache.
    cached: Option<Dataset>,
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
            cached: None,
        })
    }

    /// The blocks of an epoch out of a cache: consecutive rows, in an order of the blocks that the
    /// seed and the epoch decide. What was copied out of the map does not stay in memory.
    fn cached_blocks(&self, rows: &Dataset, seed: u64, epoch: u64, first: u64) -> Blocks {
        let (rows, block_rows) = (rows.clone(), self.spec.data.block_rows);
        let mut order: Vec<u32> = (0..rows.len().div_ceil(block_rows) as u32).collect();
        shuffle(&mut order, &mut rng(seed, Purpose::Blocks, epoch, 0));
        Blocks::read_ahead(move |sender| {
            let first = usize::try_from(first).unwrap_or(usize::MAX);
            for &block in order.iter().skip(first) {
                let start = block as usize * block_rows;
                let range = start..rows.len().min(start + block_rows);
                let block = rows.range(range.clone());
                rows.give_back(range);
                if sender.send(Ok(Arc::new(block))).is_err() {
                    return;
                }
            }
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
    pub fn blocks(&self, seed: u64, epoch: u64, first: u64) -> Blocks {
        if let Some(rows) = &self.cached {
            return self.cached_blocks(rows, seed, epoch, first);
        }
        let (spec, schema, files, label) = (
            self.spec.clone(),
            self.schema.clone(),
            self.files.clone(),
            self.label,
        );
        Blocks::read_ahead(move |sender| {
            let mut number = 0;
            let sent = sender;
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
        })
    }
}

/// A block, or why there is none.
type Sent = Result<Arc<Dataset>, Error>;

/// The blocks of an epoch.
#[derive(Debug)]
pub struct Blocks {
    receiver: Option<Receiver<Sent>>,
    thread: Option<JoinHandle<()>>,
}

impl Blocks {
    /// What `read` sends, on a thread of its own.
    fn read_ahead(read: impl FnOnce(&SyncSender<Sent>) + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(DEPTH);
        let thread = std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || read(&sender));
        Self {
            receiver: Some(receiver),
            thread: Some(thread.expect("the system has a thread for the reader")),
        }
    }
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

/// As [`prepare`](crate::prepare()), with training rows that are read block by block, and learned from
/// as [`prepare_in_passes`] does. With `data.cache` they are read out of the cache, which is built
/// where there is none; without, out of their files.
///
/// # Errors
/// As [`prepare_in_passes`].
pub fn stream(spec: &DataSpec, seed: u64, label: LabelKind) -> Result<Streamed, Error> {
    stream_with(spec, seed, label, &mut |_| {})
}

/// As [`stream`]; `say` is told about the progress of the passes over the files.
///
/// # Errors
/// As [`prepare_in_passes`].
pub fn stream_with(
    spec: &DataSpec,
    seed: u64,
    label: LabelKind,
    say: &mut dyn FnMut(Progress),
) -> Result<Streamed, Error> {
    if spec.data.cache.is_some() {
        let Prepared {
            schema,
            train,
            valid,
            test,
            report,
        } = prepare_in_passes(spec, seed, label, say)?;
        let schema = Arc::new(schema);
        let files = &spec.data.train;
        let mut rows = RowStream::new(&spec.complete(), schema.clone(), files, label)?;
        rows.cached = Some(train);
        return Ok(Streamed {
            schema,
            train: rows,
            valid,
            test,
            report,
        });
    }
    let Fit {
        schema,
        valid,
        test,
        report,
    } = fit_in_passes(spec, label, say)?;
    let schema = Arc::new(schema);
    Ok(Streamed {
        train: RowStream::new(&spec.complete(), schema.clone(), &spec.data.train, label)?,
        schema,
        valid,
        test,
        report,
    })
}
