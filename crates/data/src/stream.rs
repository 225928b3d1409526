//! Rows that are read block by block, so that memory does not grow with the files.

use std::fmt;
use std::sync::Arc;

use crossfield_core::Schema;
use crossfield_core::rng::{Purpose, rng};

use crate::config::DataSpec;
use crate::dataset::Dataset;
use crate::error::Error;
use crate::made_ahead::MadeAhead;
use crate::passes::{Fit, Progress, check_blocks, fit_in_passes, prepare_in_passes};
use crate::prepare::{Encoder, Prepared, Reader, config_error, expanded};
use crate::raw::{LabelKind, Labels};
use crate::report::DataReport;
use crate::schema::FittedSchema;
use crate::split::shuffle;

/// Blocks that may wait while one is trained on.
const DEPTH: usize = 1;

/// Training rows that are read anew each epoch, from their files or from the mapped file of a cache.
///
/// ```
/// use std::sync::Arc;
/// use crossfield_data::{DataSpec, FieldConfig, LabelKind, RowStream, prepare};
///
/// let folder = tempfile::tempdir()?;
/// let file = folder.path().join("a.csv");
/// std::fs::write(&file, "label,ad\n1,x\n0,y\n0,x\n")?;
/// let mut spec = DataSpec::default();
/// spec.data.train = vec![file.display().to_string()];
/// spec.data.block_rows = 2;
/// spec.field = vec![FieldConfig { name: "ad".into(), ..FieldConfig::default() }];
/// let schema = Arc::new(prepare(&spec, 1, LabelKind::Binary)?.schema);
/// let files = spec.data.train.clone();
/// let stream = RowStream::new(&spec, schema, &files, LabelKind::Binary)?;
/// let blocks = stream.blocks(1, 0, 0).collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(blocks[0].labels(), [1.0, 0.0]);
/// assert_eq!(blocks[1].labels(), [0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
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
    /// [`Error::Config`] for what cannot be done block by block: rows that a split takes from the
    /// files, and negatives that are left out by a draw; [`Error::Pattern`] and
    /// [`Error::Environment`] for files that cannot be named.
    pub fn new(
        spec: &DataSpec,
        schema: Arc<FittedSchema>,
        files: &[String],
        label: LabelKind,
    ) -> Result<Self, Error> {
        check_blocks(&spec.data)?;
        let files = expanded(files)?;
        if files.is_empty() {
            return Err(config_error("data.train", "(not set)", "at least one file"));
        }
        Ok(Self {
            spec: spec.clone(),
            schema,
            files,
            label,
            cached: None,
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
    ///
    /// An epoch goes through text files and row groups of Parquet files, or through stretches of a
    /// cache, in an order that is drawn for it, and a block is so many rows on that way; with
    /// `data.in_order` it is the order of the files.
    pub fn blocks(&self, seed: u64, epoch: u64, first: u64) -> Blocks {
        let stream = self.clone();
        let ahead = MadeAhead::new("reader", DEPTH, move |sender| {
            let give = |block| {
                let sent = sender.send(Ok(Arc::new(block)));
                sent.map_err(|_| Stop::NotWanted)
            };
            let read = match &stream.cached {
                Some(rows) => stream.read_cached(rows, seed, epoch, first, give),
                None => stream.read(seed, epoch, first, give),
            };
            if let Err(Stop::Failed(error)) = read {
                // Nobody there: the error is of a block that nobody asked for.
                let _ = sender.send(Err(error));
            }
        });
        Blocks(ahead.map_err(Some))
    }

    /// Gives the blocks of an epoch out of a cache to `give`: consecutive rows. What was copied out of
    /// the map does not stay in memory.
    fn read_cached(
        &self,
        rows: &Dataset,
        seed: u64,
        epoch: u64,
        first: u64,
        mut give: impl FnMut(Dataset) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let data = &self.spec.data;
        let mut order: Vec<u32> = (0..rows.len().div_ceil(data.block_rows) as u32).collect();
        if !data.in_order {
            shuffle(&mut order, &mut rng(seed, Purpose::Blocks, epoch, 0));
        }
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        for &block in order.iter().skip(first) {
            let start = block as usize * data.block_rows;
            let range = start..rows.len().min(start + data.block_rows);
            let mut block = rows.range(range.clone());
            rows.give_back(range);
            block.in_order = data.in_order;
            give(block)?;
        }
        Ok(())
    }

    /// Gives the blocks of an epoch from block `first` on to `give`.
    fn read(
        &self,
        seed: u64,
        epoch: u64,
        first: u64,
        mut give: impl FnMut(Dataset) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let data = &self.spec.data;
        let encoder = Encoder::new(&self.spec, &self.schema, self.label, Labels::Required)?;
        let empty = || {
            let mut table = encoder.table()?;
            table.full_at = data.block_rows;
            Ok::<_, Error>(table)
        };
        let mut table = empty()?;
        let mut reader = Reader::new(encoder.described(), encoder.plan(), &self.files[0])?;
        if self.spec.field.is_empty() {
            reader.close();
        }
        let mut units = reader.units(&table, &self.files)?;
        if !data.in_order {
            // The numbers below are those of blocks, whose rows are shuffled.
            shuffle(
                &mut units,
                &mut rng(seed, Purpose::Shuffle, epoch, u64::MAX),
            );
        }
        let mut encoded = |table| -> Result<(), Stop> {
            let mut block = encoder.encoded(table)?;
            block.in_order = data.in_order;
            block.negative_rate = self.negative_rate();
            give(block)
        };
        // How many rows their labels leave out is known when they were read.
        let (skip, mut passed) = if encoder.described().label.only_positive {
            (0, first)
        } else {
            (first.saturating_mul(data.block_rows as u64), 0)
        };
        reader.read_units(&mut table, &units, skip, &mut |table| {
            if table.rows < data.block_rows {
                return Ok(());
            }
            let full = std::mem::replace(table, empty()?);
            if passed > 0 {
                passed -= 1;
                return Ok(());
            }
            encoded(full)
        })?;
        if table.rows > 0 && passed == 0 {
            encoded(table)?;
        }
        Ok(())
    }
}

/// Why no more blocks are read.
enum Stop {
    /// Nobody takes them.
    NotWanted,
    /// They cannot be read.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A block, or why there is none.
type Sent = Result<Arc<Dataset>, Error>;

/// The blocks of an epoch; or, once, why there is no thread to read them on.
#[derive(Debug)]
pub struct Blocks(Result<MadeAhead<Sent>, Option<Error>>);

impl Iterator for Blocks {
    type Item = Sent;

    fn next(&mut self) -> Option<Sent> {
        match &mut self.0 {
            Ok(ahead) => ahead.next(),
            Err(error) => error.take().map(Err),
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
