//! Parquet files, row group by row group.
//!
//! Threads decode row groups, some batches ahead, and the table takes the batches in the order of the
//! groups. Only the columns that the table wants are read. The table's columns are filled one after the
//! other, without cells in between: a value of a dictionary is looked up once a batch, and a number
//! never becomes a text where a number is wanted.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Write;
use std::fs::File;
use std::io::{Read as _, Seek, SeekFrom};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, Once};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Date64Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, BooleanArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Schema, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Encoding;
use parquet::file::metadata::RowGroupMetaData;

use crate::config::Pooling;
use crate::error::{At, Error, Place, shortened};
use crate::intern::{Interner, mix};
use crate::prepare::Unit;
use crate::raw::{
    Binding, Column, ListColumn, MISSING, NO_SUM, Read, Spec, TIME, Table, Times, is_finite,
    is_missing, number, push_list, skipped, weighted,
};
use crossfield_core::rng::name_key;

/// Rows that are decoded at once.
const BATCH: usize = 8192;
/// Batches of a row group that may wait for the table.
const DEPTH: usize = 8;
/// Row groups that are decoded at the same time, at most.
const THREADS: usize = 4;
/// What a Parquet file begins and ends with.
const MAGIC: [u8; 4] = *b"PAR1";

const SCALARS: &str = "text, a number, a bool, a date or a timestamp";
const NUMBERS: &str = "a number, a bool, a date or a timestamp";
const LISTS: &str = "text, a number, or a list of such";

/// A file whose columns were found.
struct Opened {
    path: String,
    metadata: ArrowReaderMetadata,
    /// The columns that are read, rising.
    roots: Vec<usize>,
    /// Where they are among those.
    binding: Binding,
}

/// A row group of a file.
#[derive(Clone)]
pub(crate) struct RowGroup {
    file: Arc<Opened>,
    index: usize,
    /// Rows of the file before it.
    first: u64,
    rows: u64,
}

/// The row groups of `files`, in which the columns that `table` wants were found, of types that fit.
pub(crate) fn open(table: &Table, files: &[String]) -> Result<Vec<Unit>, Error> {
    let mut units = Vec::new();
    for path in files {
        let file = Arc::new(Opened::new(table, path)?);
        let mut first = 0;
        for index in 0..file.metadata.metadata().num_row_groups() {
            let rows = file.metadata.metadata().row_group(index).num_rows();
            let rows = u64::try_from(rows).map_err(|_| {
                let problem = format!("row group {} has {rows} rows", index + 1);
                file_error(path, problem)
            })?;
            if rows > 0 {
                let file = file.clone();
                units.push(Unit::RowGroup(RowGroup {
                    file,
                    index,
                    first,
                    rows,
                }));
            }
            first += rows;
        }
    }
    if units.is_empty() && !files.is_empty() {
        return Err(Error::Empty {
            file: files[0].clone(),
            expected: "at least one row",
        });
    }
    Ok(units)
}

fn file_error(path: &str, problem: impl ToString) -> Error {
    Error::Parquet {
        file: path.to_owned(),
        place: String::new(),
        problem: problem.to_string(),
    }
}

/// Runs `decode`; a panic in it is an error of the file, for only a damaged one can make a decoder
/// break its own rules. What is printed of a panic is for whoever mends a program, and here left out.
fn guarded<T>(
    decode: impl FnOnce() -> Result<T, parquet::errors::ParquetError>,
) -> Result<T, String> {
    thread_local! {
        static DECODES: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let hook = take_hook();
        set_hook(Box::new(move |panic| {
            if !DECODES.get() {
                hook(panic);
            }
        }));
    });
    DECODES.set(true);
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    DECODES.set(false);
    match decoded {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("what it holds contradicts itself".to_owned()),
    }
}

impl Opened {
    fn new(table: &Table, path: &str) -> Result<Self, Error> {
        let open_error = |source| Error::Open {
            file: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(open_error)?;
        check_magic(&mut file, path).map_err(open_error)??;
        // The types of the file itself: what a writer noted of its own in-memory types is not needed.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = guarded(|| ArrowReaderMetadata::load(&file, options));
        let metadata = metadata.map_err(|problem| file_error(path, problem))?;
        let fields = metadata.schema().fields();
        let header: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        for (position, &name) in header.iter().enumerate() {
            if header[..position].contains(&name) {
                let (file, column) = (path.to_owned(), name.to_owned());
                return Err(Error::DuplicateColumn { file, column });
            }
        }
        let mut binding = table.bind(path, &header)?;
        check_types(table, path, metadata.schema(), &binding)?;
        let mut roots = Vec::new();
        places(&mut binding, |place| roots.push(*place));
        roots.sort_unstable();
        roots.dedup();
        places(&mut binding, |place| {
            *place = roots.partition_point(|root| root < place);
        });
        Ok(Self {
            path: path.to_owned(),
            metadata,
            roots,
            binding,
        })
    }

    /// The metadata to read `group` by: texts whose pages are all of dictionaries stay numbers of
    /// their entries.
    fn metadata_of(
        &self,
        group: &RowGroupMetaData,
    ) -> Result<ArrowReaderMetadata, parquet::errors::ParquetError> {
        let schema = self.metadata.schema();
        let parquet_schema = self.metadata.parquet_schema();
        let mut in_dictionaries = vec![false; schema.fields().len()];
        for (leaf, column) in group.columns().iter().enumerate() {
            let pages = column.page_encoding_stats_mask();
            in_dictionaries[parquet_schema.get_column_root_idx(leaf)] =
                column.dictionary_page_offset().is_some()
                    && pages.is_some_and(|pages| {
                        pages.is_only(Encoding::RLE_DICTIONARY)
                            || pages.is_only(Encoding::PLAIN_DICTIONARY)
                    });
        }
        let fields = schema.fields().iter().enumerate().map(|(root, field)| {
            let field = field.as_ref().clone();
            if in_dictionaries[root] && *field.data_type() == DataType::Utf8 {
                let of_texts = Box::new(DataType::Utf8);
                field.with_data_type(DataType::Dictionary(Box::new(DataType::Int32), of_texts))
            } else {
                field
            }
        });
        let fields: Vec<_> = fields.collect();
        let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
        ArrowReaderMetadata::try_new(
            self.metadata.metadata().clone(),
            ArrowReaderOptions::new().with_schema(Arc::new(schema)),
        )
    }
}

/// Says what is no Parquet file at all, and what was cut short.
fn check_magic(file: &mut File, path: &str) -> std::io::Result<Result<(), Error>> {
    let bytes = file.metadata()?.len();
    let mut ends = [[0; 4]; 2];
    if bytes >= 12 {
        file.read_exact(&mut ends[0])?;
        file.seek(SeekFrom::End(-4))?;
        file.read_exact(&mut ends[1])?;
    }
    let problem = if bytes < 12 {
        format!("{bytes} bytes are too few for a Parquet file")
    } else if ends[0] != MAGIC {
        "it does not begin with PAR1, so it is no Parquet file".to_owned()
    } else if ends[1] != MAGIC {
        "it does not end with PAR1: it is truncated (an interrupted download or copy?)".to_owned()
    } else {
        return Ok(Ok(()));
    };
    Ok(Err(file_error(path, problem)))
}

/// All places of a binding.
fn places(binding: &mut Binding, visit: impl FnMut(&mut usize)) {
    let columns = binding.columns.iter_mut().flatten();
    let times = binding.times.iter_mut().flatten().flatten();
    let targets = [&mut binding.label, &mut binding.weight, &mut binding.group];
    columns
        .chain(times)
        .chain(targets.into_iter().flatten())
        .for_each(visit);
}

fn is_number(of: &DataType) -> bool {
    use DataType::{
        Boolean, Date32, Date64, Float32, Float64, Int8, Int16, Int32, Int64, Null, Timestamp,
        UInt8, UInt16, UInt32, UInt64,
    };
    matches!(
        of,
        Boolean
            | Int8
            | Int16
            | Int32
            | Int64
            | UInt8
            | UInt16
            | UInt32
            | UInt64
            | Float32
            | Float64
            | Date32
            | Date64
            | Timestamp(..)
            | Null
    )
}

fn is_scalar(of: &DataType) -> bool {
    is_number(of) || matches!(of, DataType::Utf8 | DataType::Binary)
}

fn is_list(of: &DataType) -> bool {
    match of {
        DataType::List(values) => is_scalar(values.data_type()),
        _ => is_scalar(of),
    }
}

/// Whether the columns are of types that what they are read as can be made of.
fn check_types(table: &Table, path: &str, schema: &Schema, binding: &Binding) -> Result<(), Error> {
    let check = |place: usize, wanted_by: &str, fits: fn(&DataType) -> bool, expected| {
        let field = schema.field(place);
        if fits(field.data_type()) {
            return Ok(());
        }
        Err(Error::ColumnType {
            wanted_by: wanted_by.into(),
            file: path.into(),
            column: field.name().as_str().into(),
            found: shortened(&field.data_type().to_string()).into(),
            expected,
        })
    };
    for (spec, places) in table.specs.iter().zip(&binding.columns) {
        for &place in places {
            match spec.read {
                Read::Number { .. } => check(place, &spec.wanted_by, is_number, NUMBERS)?,
                Read::List { .. } => check(place, &spec.wanted_by, is_list, LISTS)?,
                _ => check(place, &spec.wanted_by, is_scalar, SCALARS)?,
            }
        }
    }
    for (of, times) in table.checks.iter().zip(&binding.times) {
        if let &Some([past, now]) = times {
            let wanted_by = format!("field `{}`", of.field);
            check(past, &wanted_by, is_list, LISTS)?;
            check(now, &wanted_by, is_scalar, SCALARS)?;
        }
    }
    for (place, key, fits, expected) in [
        (
            binding.label,
            "label.column",
            is_scalar as fn(&_) -> _,
            SCALARS,
        ),
        (binding.weight, "label.weight", is_number, NUMBERS),
        (binding.group, "label.group", is_scalar, SCALARS),
    ] {
        if let Some(place) = place {
            check(place, key, fits, expected)?;
        }
    }
    Ok(())
}

/// A batch, and the number of its first row in its file, from 1.
type Decoded = Result<(RecordBatch, u64), Error>;

/// Reads row groups into `table`, but for the first `skip` rows; `after` is called after each batch,
/// and where the table has [`full_at`](Table::full_at) rows.
pub(crate) fn read<E: From<Error>>(
    table: &mut Table,
    units: &[Unit],
    mut skip: u64,
    after: &mut dyn FnMut(&mut Table) -> Result<(), E>,
) -> Result<(), E> {
    let mut work = Vec::new();
    for unit in units {
        let Unit::RowGroup(group) = unit else {
            unreachable!("Parquet files are read by row groups");
        };
        let skipped = skip.min(group.rows);
        skip -= skipped;
        if skipped < group.rows {
            work.push((group, skipped));
        }
    }
    let (senders, receivers): (Vec<_>, Vec<_>) =
        work.iter().map(|_| sync_channel::<Decoded>(DEPTH)).unzip();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(THREADS).min(work.len());
    let queue = Mutex::new(work.iter().zip(senders));
    let next = || {
        let mut queue = queue.lock().expect("taking from a queue does not panic");
        queue.next()
    };
    std::thread::scope(|scope| {
        for number in 0..threads {
            let decode = || {
                while let Some((&(group, skipped), sender)) = next() {
                    if !decode(group, skipped, &sender) {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().name(format!("parquet {number}"));
            match thread.spawn_scoped(scope, decode) {
                // Those that there are do the work.
                Err(_) if number > 0 => break,
                started => started.map_err(Error::thread("decoder"))?,
            };
        }
        fill_all(table, &work, receivers, after)
    })
}

/// Takes the batches of each group in turn. When it returns early the receivers go, and so the
/// threads end.
fn fill_all<E: From<Error>>(
    table: &mut Table,
    work: &[(&RowGroup, u64)],
    receivers: Vec<Receiver<Decoded>>,
    after: &mut dyn FnMut(&mut Table) -> Result<(), E>,
) -> Result<(), E> {
    let mut keys = Vec::new();
    for ((group, _), batches) in work.iter().zip(receivers) {
        keys.clear();
        keys.resize_with(group.file.roots.len(), Keys::default);
        for decoded in batches {
            let (batch, first) = decoded?;
            let rows = Rows {
                file: &group.file,
                first,
                cells: cells(&group.file, &batch, first)?,
            };
            let mut start = 0;
            while start < batch.num_rows() {
                let room = table.full_at.saturating_sub(table.rows).max(1);
                let end = batch.num_rows().min(start.saturating_add(room));
                rows.push(table, start..end, &mut keys)?;
                start = end;
                after(table)?;
            }
        }
    }
    Ok(())
}

/// Decodes a row group but for its first `skipped` rows; false if nobody takes what comes out.
fn decode(group: &RowGroup, skipped: u64, sender: &SyncSender<Decoded>) -> bool {
    let fail = |problem| {
        let (first, last) = (group.first + 1, group.first + group.rows);
        Err(Error::Parquet {
            file: group.file.path.clone(),
            place: format!(", row group {} (rows {first} to {last})", group.index + 1),
            problem,
        })
    };
    let mut reader = match guarded(|| group.reader(skipped)) {
        Ok(reader) => reader,
        Err(problem) => return sender.send(fail(problem)).is_ok(),
    };
    let mut row = group.first + skipped;
    loop {
        let batch = guarded(|| Ok(reader.next().transpose()?));
        let decoded = match batch {
            Ok(Some(batch)) => {
                let first = row + 1;
                row += batch.num_rows() as u64;
                Ok((batch, first))
            }
            Ok(None) if row == group.first + group.rows => return true,
            Ok(None) => fail(format!("its rows end behind row {row}")),
            Err(problem) => fail(problem),
        };
        let failed = decoded.is_err();
        if sender.send(decoded).is_err() {
            return false;
        }
        if failed {
            return true;
        }
    }
}

impl RowGroup {
    fn reader(
        &self,
        skipped: u64,
    ) -> Result<ParquetRecordBatchReader, parquet::errors::ParquetError> {
        let file = File::open(&self.file.path)?;
        let group = self.file.metadata.metadata().row_group(self.index);
        let metadata = self.file.metadata_of(group)?;
        let columns =
            ProjectionMask::roots(metadata.parquet_schema(), self.file.roots.iter().copied());
        ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
            .with_row_groups(vec![self.index])
            .with_projection(columns)
            .with_batch_size(BATCH)
            .with_offset(skipped as usize)
            .build()
    }
}

/// The values of a column in a batch.
enum Cells<'a> {
    One(Scalars<'a>),
    Many {
        /// Where there are missing lists.
        lists: Option<&'a dyn Array>,
        offsets: &'a [i32],
        values: Scalars<'a>,
    },
}

struct Scalars<'a> {
    /// Where there are missing values.
    nulls: Option<&'a dyn Array>,
    values: Values<'a>,
}

enum Values<'a> {
    Texts(Cow<'a, StringArray>),
    Keyed {
        keys: &'a [i32],
        texts: &'a StringArray,
    },
    Integers(Cow<'a, [i64]>),
    Unsigned(Cow<'a, [u64]>),
    Singles(&'a [f32]),
    Doubles(&'a [f64]),
    Bools(&'a BooleanArray),
    /// All are missing.
    Nothing,
}

/// The columns of a batch whose first row is row `first` of its file.
fn cells<'a>(file: &Opened, batch: &'a RecordBatch, first: u64) -> Result<Vec<Cells<'a>>, Error> {
    let named = batch.schema();
    let columns = batch.columns().iter().zip(named.fields());
    let columns = columns.map(|(column, field)| {
        let scalars = |values, lists: Option<&[i32]>| {
            Scalars::new(values).map_err(|place| {
                // Of a list the row is the one that ends behind the value.
                let row = lists.map_or(place, |offsets| {
                    offsets.partition_point(|&offset| offset as usize <= place) - 1
                });
                let place = Place::Row(first + row as u64);
                let file = &file.path;
                At { file, place }.value(field.name(), "(bytes)", "text in UTF-8")
            })
        };
        Ok(match column.data_type() {
            DataType::List(_) => {
                let lists = column.as_list::<i32>();
                Cells::Many {
                    lists: (lists.null_count() > 0).then_some(column.as_ref()),
                    offsets: lists.value_offsets(),
                    values: scalars(lists.values().as_ref(), Some(lists.value_offsets()))?,
                }
            }
            _ => Cells::One(scalars(column.as_ref(), None)?),
        })
    });
    columns.collect()
}

fn primitive<T: ArrowPrimitiveType>(array: &dyn Array) -> &[T::Native] {
    array.as_primitive::<T>().values()
}

/// The numbers of a column, as integers of 64 bits.
fn widened<T: ArrowPrimitiveType>(array: &dyn Array) -> Cow<'_, [i64]>
where
    i64: From<T::Native>,
{
    Cow::Owned(primitive::<T>(array).iter().map(|&it| it.into()).collect())
}

fn unsigned<T: ArrowPrimitiveType>(array: &dyn Array) -> Cow<'_, [u64]>
where
    u64: From<T::Native>,
{
    Cow::Owned(primitive::<T>(array).iter().map(|&it| it.into()).collect())
}

impl<'a> Scalars<'a> {
    /// The values of `array`, or the place of bytes that are no text.
    fn new(array: &'a dyn Array) -> Result<Self, usize> {
        use Values::{Bools, Doubles, Integers, Keyed, Nothing, Singles, Texts, Unsigned};
        let values = match array.data_type() {
            DataType::Utf8 => Texts(Cow::Borrowed(array.as_string())),
            DataType::Binary => {
                let bytes = array.as_binary::<i32>();
                let wrong = || {
                    let texts = bytes.iter().map(Option::unwrap_or_default);
                    texts
                        .map(std::str::from_utf8)
                        .position(|text| text.is_err())
                };
                match StringArray::try_from_binary(bytes.clone()) {
                    Ok(texts) => Texts(Cow::Owned(texts)),
                    Err(_) => return Err(wrong().unwrap_or_default()),
                }
            }
            DataType::Dictionary(..) => {
                let dictionary = array.as_dictionary::<Int32Type>();
                Keyed {
                    keys: dictionary.keys().values(),
                    texts: dictionary.values().as_string(),
                }
            }
            DataType::Int8 => Integers(widened::<Int8Type>(array)),
            DataType::Int16 => Integers(widened::<Int16Type>(array)),
            DataType::Int32 => Integers(widened::<Int32Type>(array)),
            DataType::Int64 => Integers(Cow::Borrowed(primitive::<Int64Type>(array))),
            DataType::UInt8 => Unsigned(unsigned::<UInt8Type>(array)),
            DataType::UInt16 => Unsigned(unsigned::<UInt16Type>(array)),
            DataType::UInt32 => Unsigned(unsigned::<UInt32Type>(array)),
            DataType::UInt64 => Unsigned(Cow::Borrowed(primitive::<UInt64Type>(array))),
            DataType::Date32 => Integers(widened::<Date32Type>(array)),
            DataType::Date64 => Integers(Cow::Borrowed(primitive::<Date64Type>(array))),
            DataType::Timestamp(unit, _) => Integers(Cow::Borrowed(match unit {
                TimeUnit::Second => primitive::<TimestampSecondType>(array),
                TimeUnit::Millisecond => primitive::<TimestampMillisecondType>(array),
                TimeUnit::Microsecond => primitive::<TimestampMicrosecondType>(array),
                TimeUnit::Nanosecond => primitive::<TimestampNanosecondType>(array),
            })),
            DataType::Float32 => Singles(primitive::<Float32Type>(array)),
            DataType::Float64 => Doubles(primitive::<Float64Type>(array)),
            DataType::Boolean => Bools(array.as_boolean()),
            DataType::Null => Nothing,
            other => unreachable!("types were checked when the file was opened: {other}"),
        };
        let nulls = (array.null_count() > 0).then_some(array);
        Ok(Self { nulls, values })
    }

    fn is_null(&self, row: usize) -> bool {
        matches!(self.values, Values::Nothing) || self.nulls.is_some_and(|array| array.is_null(row))
    }

    /// The value as a csv file has it, in `room` if it is no text; not of a missing one.
    fn text<'b>(&'b self, row: usize, room: &'b mut String) -> &'b str {
        room.clear();
        let written = match &self.values {
            Values::Texts(texts) => return texts.value(row),
            Values::Keyed { keys, texts } => return texts.value(keys[row] as usize),
            Values::Integers(numbers) => {
                if numbers[row] < 0 {
                    room.push('-');
                }
                push_digits(numbers[row].unsigned_abs(), room);
                Ok(())
            }
            Values::Unsigned(numbers) => {
                push_digits(numbers[row], room);
                Ok(())
            }
            Values::Singles(numbers) => write!(room, "{}", numbers[row]),
            Values::Doubles(numbers) => write!(room, "{}", numbers[row]),
            Values::Bools(bools) => write!(room, "{}", bools.value(row)),
            Values::Nothing => Ok(()),
        };
        written.expect("a String takes all text");
        room
    }

    /// The value if it is a number; not of a missing one.
    fn number(&self, row: usize) -> Option<f64> {
        match &self.values {
            Values::Texts(_) | Values::Keyed { .. } | Values::Nothing => None,
            Values::Integers(numbers) => Some(numbers[row] as f64),
            Values::Unsigned(numbers) => Some(numbers[row] as f64),
            Values::Singles(numbers) => Some(f64::from(numbers[row])),
            Values::Doubles(numbers) => Some(numbers[row]),
            Values::Bools(bools) => Some(f64::from(u8::from(bools.value(row)))),
        }
    }

    /// The number that a value is or says.
    fn parsed(&self, row: usize, room: &mut String) -> Option<f64> {
        let is = self.number(row).or_else(|| number(self.text(row, room)));
        is.filter(|&number| is_finite(number) && !self.is_null(row))
    }

    /// What messages call a value.
    fn shown(&self, row: usize) -> String {
        if self.is_null(row) {
            return "null".to_owned();
        }
        self.text(row, &mut String::new()).to_owned()
    }
}

/// Appends a number as decimal digits; formatting it costs several times as much.
fn push_digits(mut number: u64, text: &mut String) {
    // 2^64 has 20 of them.
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend(digits[first..].iter().map(|&digit| char::from(digit)));
}

/// The keys of the values of a dictionary, as far as they were needed.
#[derive(Default)]
struct Keys {
    /// Kept so that no other dictionary can take its place in memory.
    texts: Option<StringArray>,
    keys: Vec<Option<u64>>,
}

impl Keys {
    /// Forgets the keys of another dictionary.
    fn of(&mut self, texts: &StringArray) -> &mut [Option<u64>] {
        let same = self.texts.as_ref().is_some_and(|known| {
            let (known_at, at) = (known.value_data().as_ptr(), texts.value_data().as_ptr());
            let offsets = known.value_offsets().as_ptr() == texts.value_offsets().as_ptr();
            known_at == at && offsets && known.len() == texts.len()
        });
        if !same {
            self.keys.clear();
            self.keys.resize(texts.len(), None);
            self.texts = Some(texts.clone());
        }
        &mut self.keys
    }
}

/// The rows of a batch.
struct Rows<'a> {
    file: &'a Opened,
    /// The number of the first one in its file, from 1.
    first: u64,
    cells: Vec<Cells<'a>>,
}

impl Rows<'_> {
    fn at(&self, row: usize) -> At<'_> {
        At {
            file: &self.file.path,
            place: Place::Row(self.first + row as u64),
        }
    }

    fn one(&self, place: usize) -> &Scalars<'_> {
        match &self.cells[place] {
            Cells::One(scalars) => scalars,
            Cells::Many { .. } => unreachable!("types were checked when the file was opened"),
        }
    }

    /// Appends these rows to the table. `keys` are of the columns of the file.
    fn push(&self, table: &mut Table, range: Range<usize>, keys: &mut [Keys]) -> Result<(), Error> {
        let binding = &self.file.binding;
        let mut rows: Vec<usize> = range.collect();
        let labels = match binding.label {
            Some(place) => Some(self.labels(table, place, &mut rows)?),
            None => None,
        };
        let Some(&first) = rows.first() else {
            return Ok(());
        };
        // Values of one dictionary get their numbers row by row, as they do from text files.
        let mut of_dictionary: Vec<Vec<usize>> = vec![Vec::new(); table.dicts.len()];
        for id in 0..table.specs.len() {
            match &table.specs[id].read {
                Read::Text { dict } | Read::List { dict, .. } | Read::Columns { dict, .. } => {
                    of_dictionary[*dict].push(id);
                }
                Read::Hash => {
                    let place = binding.columns[id][0];
                    let (scalars, keys) = (self.one(place), &mut keys[place]);
                    let Column::Hash(column) = &mut table.columns[id] else {
                        unreachable!("a column is made for what its spec reads");
                    };
                    hash(scalars, &rows, &table.missing, keys, column);
                }
                Read::Number { required } => {
                    let required = *required;
                    self.numbers(table, id, &rows, required)?;
                }
                Read::Flags { pooling, .. } => {
                    let pooling = *pooling;
                    self.flags(table, id, &rows, pooling)?;
                }
                Read::Indices { .. } => unreachable!("a Parquet file has no indices"),
            }
        }
        let mut lengths = vec![Vec::new(); table.specs.len()];
        for ids in of_dictionary.iter().filter(|ids| !ids.is_empty()) {
            self.texts(table, ids, &rows, &mut lengths)?;
        }
        if !table.checks.is_empty() {
            self.check(table, &rows, &lengths)?;
        }
        self.targets(table, labels, &rows, self.at(first))
    }

    /// The labels of `rows`, from which those that are left out are taken.
    fn labels(
        &self,
        table: &mut Table,
        place: usize,
        rows: &mut Vec<usize>,
    ) -> Result<Vec<f32>, Error> {
        let (scalars, rule, mut room) = (self.one(place), &table.rule, String::new());
        // Where numbers may be words of the run file, they are compared as texts.
        let are_numbers = rule.reads_numbers() && !any_number(&table.missing);
        let label = |row: usize, room: &mut String| {
            if scalars.is_null(row) {
                let expected = "a label (a label cannot be missing)";
                return Err(self.at(row).value(&rule.column, "null", expected));
            }
            let number = scalars.number(row);
            if let Some(number) = number.filter(|&it| are_numbers && is_finite(it)) {
                return rule.of_number(number).ok_or_else(|| {
                    let expected = rule.expected();
                    self.at(row)
                        .value(&rule.column, &scalars.shown(row), expected)
                });
            }
            let text = scalars.text(row, room);
            rule.parse(text, is_missing(&table.missing, text), self.at(row))
        };
        let mut labels = Vec::with_capacity(rows.len());
        if !rule.only_positive {
            for &row in rows.iter() {
                labels.push(label(row, &mut room)?);
            }
            return Ok(labels);
        }
        let mut kept = Vec::new();
        for &row in rows.iter() {
            let label = label(row, &mut room)?;
            if label != 0.0 {
                kept.push(row);
                labels.push(label);
            }
        }
        table.left_out += (rows.len() - kept.len()) as u64;
        *rows = kept;
        Ok(labels)
    }

    fn numbers(
        &self,
        table: &mut Table,
        id: usize,
        rows: &[usize],
        required: bool,
    ) -> Result<(), Error> {
        let scalars = self.one(self.file.binding.columns[id][0]);
        let name = &table.specs[id].columns[0];
        let declared = |number: f64| {
            let same = |missing: f64| missing == number || missing.is_nan() && number.is_nan();
            let mut declared = table.missing.iter().filter_map(|text| text.parse().ok());
            declared.any(same)
        };
        // Most runs declare no number as missing.
        let any_declared = any_number(&table.missing);
        let Column::Number(column) = &mut table.columns[id] else {
            unreachable!("a column is made for what its spec reads");
        };
        column.reserve(rows.len());
        for &row in rows {
            let number = if scalars.is_null(row) {
                None
            } else {
                scalars.number(row)
            };
            column.push(match number {
                None if !required => f64::NAN,
                Some(number) if !required && any_declared && declared(number) => f64::NAN,
                Some(number) if is_finite(number) => number,
                _ => {
                    let expected = if required {
                        "a finite number"
                    } else {
                        "a finite number (or declare it in data.missing)"
                    };
                    return Err(self.at(row).value(name, &scalars.shown(row), expected));
                }
            });
        }
        Ok(())
    }

    fn flags(
        &self,
        table: &mut Table,
        id: usize,
        rows: &[usize],
        pooling: Pooling,
    ) -> Result<(), Error> {
        let (spec, flags) = (&table.specs[id], &table.flags[id]);
        let Column::List(list) = &mut table.columns[id] else {
            unreachable!("a column is made for what its spec reads");
        };
        let mut room = String::new();
        for &row in rows {
            let places = &self.file.binding.columns[id];
            for ((&place, &flag), column) in places.iter().zip(flags).zip(&spec.columns) {
                let scalars = self.one(place);
                match scalars.parsed(row, &mut room) {
                    Some(0.0) => {}
                    Some(1.0) => list.push(flag, 1.0),
                    _ => return Err(self.at(row).value(column, &scalars.shown(row), "0 or 1")),
                }
            }
            list.end_row(pooling, &spec.wanted_by)?;
        }
        Ok(())
    }

    /// Appends the values of the specs `ids`, which share a dictionary; `lengths` become those of
    /// their lists.
    fn texts(
        &self,
        table: &mut Table,
        ids: &[usize],
        rows: &[usize],
        lengths: &mut [Vec<usize>],
    ) -> Result<(), Error> {
        let mut room = String::new();
        // What the entries of a column's dictionary are called in the table, as far as it is known.
        let mut known: Vec<Vec<Option<u32>>> = ids.iter().map(|_| Vec::new()).collect();
        for (known, &id) in known.iter_mut().zip(ids) {
            if let (Read::Text { .. }, Cells::One(scalars)) = (
                &table.specs[id].read,
                &self.cells[self.file.binding.columns[id][0]],
            ) && let Values::Keyed { texts, .. } = &scalars.values
            {
                known.resize(texts.len(), None);
            }
        }
        for &row in rows {
            for (known, &id) in known.iter_mut().zip(ids) {
                let spec = &table.specs[id];
                let places = &self.file.binding.columns[id];
                let (dicts, missing) = (&mut table.dicts, &table.missing);
                match (&mut table.columns[id], &spec.read) {
                    (Column::Text(column), Read::Text { dict }) => {
                        let scalars = self.one(places[0]);
                        let dict = &mut dicts[*dict];
                        column.push(intern(scalars, row, known, missing, dict, &mut room));
                    }
                    (Column::List(list), Read::List { .. }) => {
                        let cells = &self.cells[places[0]];
                        let length = self.list(list, dicts, spec, cells, row, missing)?;
                        lengths[id].push(length);
                    }
                    (
                        Column::List(list),
                        Read::Columns {
                            dict,
                            padding,
                            max_len,
                        },
                    ) => {
                        let mut values = Vec::with_capacity(places.len());
                        for &place in places {
                            let scalars = self.one(place);
                            if scalars.is_null(row) {
                                continue;
                            }
                            let text = scalars.text(row, &mut room);
                            let none = text.is_empty() || padding.as_deref() == Some(text);
                            if !none && !is_missing(missing, text) {
                                values.push(text.to_owned());
                            }
                        }
                        for value in values.iter().skip(skipped(values.len(), *max_len)) {
                            list.push(dicts[*dict].intern(value), 1.0);
                        }
                        list.end_row(Pooling::Sum, &spec.wanted_by)?;
                        lengths[id].push(values.len());
                    }
                    _ => unreachable!("a column is made for what its spec reads"),
                }
            }
        }
        Ok(())
    }

    /// Appends the list of a row; gives its length, what `max_len` cuts off included.
    fn list(
        &self,
        list: &mut ListColumn,
        dicts: &mut [Interner],
        spec: &Spec,
        cells: &Cells<'_>,
        row: usize,
        missing: &[String],
    ) -> Result<usize, Error> {
        let (name, at) = (spec.columns[0].as_str(), self.at(row));
        let Read::List {
            dict,
            weight_delimiter,
            pooling,
            max_len,
            ..
        } = &spec.read
        else {
            unreachable!("only lists are read here");
        };
        let mut room = String::new();
        let (lists, offsets, values) = match cells {
            Cells::One(scalars) if scalars.is_null(row) => {
                return push_list(list, dicts, spec, name, "", true, at);
            }
            Cells::One(scalars) => {
                let text = scalars.text(row, &mut room);
                let missing = is_missing(missing, text);
                return push_list(list, dicts, spec, name, text, missing, at);
            }
            Cells::Many {
                lists,
                offsets,
                values,
            } => (lists, offsets, values),
        };
        let range = if lists.is_some_and(|lists| lists.is_null(row)) {
            0..0
        } else {
            offsets[row] as usize..offsets[row + 1] as usize
        };
        let length = range.len();
        let skipped = skipped(length, *max_len);
        for (position, place) in range.enumerate() {
            if values.is_null(place) {
                return Err(at.value(name, "null", "no missing value in a list"));
            }
            let entry = values.text(place, &mut room);
            let (value, weight) = weighted(entry, weight_delimiter.as_deref(), name, at)?;
            if value.is_empty() {
                return Err(at.value(name, entry, "no empty value in a list"));
            }
            if position >= skipped {
                list.push(dicts[*dict].intern(value), weight);
            }
        }
        if !list.end_row(*pooling, &spec.wanted_by)? {
            return Err(at.value(name, "(list)", NO_SUM));
        }
        Ok(length)
    }

    /// Whether sequences are what they should be.
    fn check(
        &self,
        table: &mut Table,
        rows: &[usize],
        lengths: &[Vec<usize>],
    ) -> Result<(), Error> {
        for (position, &row) in rows.iter().enumerate() {
            for (length, lengths) in table.lengths.iter_mut().zip(lengths) {
                *length = lengths.get(position).copied().unwrap_or_default();
            }
            for (check, places) in table.checks.iter().zip(&self.file.binding.times) {
                let times = || match (places, &check.times) {
                    (Some(places), Some(names)) => {
                        let delimiter = match &table.specs[check.sequence].read {
                            Read::List { delimiter, .. } => delimiter,
                            _ => unreachable!("times are of a sequence in one column"),
                        };
                        self.times(*places, names, row, delimiter, &table.missing)
                    }
                    _ => Ok(None),
                };
                table.check(check, table.rows + position, times, self.at(row))?;
            }
        }
        Ok(())
    }

    fn times(
        &self,
        [past, now]: [usize; 2],
        [past_name, now_name]: &[String; 2],
        row: usize,
        delimiter: &str,
        missing: &[String],
    ) -> Result<Option<Times>, Error> {
        let (mut room, at) = (String::new(), self.at(row));
        let of_row = self.one(now);
        let now = of_row.parsed(row, &mut room);
        let now = now.ok_or_else(|| at.value(now_name, &of_row.shown(row), TIME))?;
        let mut times = Vec::new();
        match &self.cells[past] {
            Cells::Many { lists, .. } if lists.is_some_and(|lists| lists.is_null(row)) => {}
            Cells::Many {
                offsets, values, ..
            } => {
                for place in offsets[row] as usize..offsets[row + 1] as usize {
                    let time = values.parsed(place, &mut room);
                    times
                        .push(time.ok_or_else(|| at.value(past_name, &values.shown(place), TIME))?);
                }
            }
            Cells::One(scalars) if scalars.is_null(row) => {}
            Cells::One(scalars) => {
                let text = scalars.text(row, &mut room);
                if !text.is_empty() && !is_missing(missing, text) {
                    for text in text.split(delimiter) {
                        let time = number(text);
                        times.push(time.ok_or_else(|| at.value(past_name, text, TIME))?);
                    }
                }
            }
        }
        Ok(Some(Times { past: times, now }))
    }

    /// Appends labels, weights and groups; ends the rows.
    fn targets(
        &self,
        table: &mut Table,
        labels: Option<Vec<f32>>,
        rows: &[usize],
        first: At<'_>,
    ) -> Result<(), Error> {
        let (weight, group) = (self.file.binding.weight, self.file.binding.group);
        let now = [labels.is_some(), weight.is_some(), group.is_some()];
        table.check_targets(now, table.rows, first)?;
        table.labels.extend(labels.into_iter().flatten());
        if let Some(place) = weight {
            let scalars = self.one(place);
            let column = table.weight.as_deref().unwrap_or_default();
            for &row in rows {
                let weight = scalars.number(row).filter(|_| !scalars.is_null(row));
                let weight = weight.filter(|&weight| weight >= 0.0 && is_finite(weight));
                table.weights.push(weight.ok_or_else(|| {
                    let expected = "a finite weight of at least 0";
                    self.at(row).value(column, &scalars.shown(row), expected)
                })? as f32);
            }
        }
        if let Some(place) = group {
            let (scalars, mut room) = (self.one(place), String::new());
            for &row in rows {
                let names = &mut table.group_names;
                let group = intern(scalars, row, &mut [], &table.missing, names, &mut room);
                table.groups.push(group);
            }
        }
        table.rows += rows.len();
        if table.rows >= u32::MAX as usize {
            return Err(Error::TooLarge {
                what: "the rows of all files".to_owned(),
                limit: u64::from(u32::MAX - 1),
            });
        }
        Ok(())
    }
}

/// Whether a number is declared as missing.
fn any_number(missing: &[String]) -> bool {
    missing.iter().any(|text| text.parse::<f64>().is_ok())
}

/// The number of a value in `dict`; `known` are those of the values of its dictionary in the file,
/// empty where it has none.
fn intern(
    scalars: &Scalars<'_>,
    row: usize,
    known: &mut [Option<u32>],
    missing: &[String],
    dict: &mut Interner,
    room: &mut String,
) -> u32 {
    if scalars.is_null(row) {
        return dict.intern(MISSING);
    }
    let mut of = |text: &str| {
        dict.intern(if is_missing(missing, text) {
            MISSING
        } else {
            text
        })
    };
    match &scalars.values {
        Values::Keyed { keys, texts } if !known.is_empty() => {
            let key = keys[row] as usize;
            *known[key].get_or_insert_with(|| of(texts.value(key)))
        }
        _ => of(scalars.text(row, room)),
    }
}

/// Appends the keys of values that are hashed.
fn hash(
    scalars: &Scalars<'_>,
    rows: &[usize],
    missing: &[String],
    known: &mut Keys,
    column: &mut Vec<u64>,
) {
    let of = |text: &str| {
        mix(name_key(if is_missing(missing, text) {
            MISSING
        } else {
            text
        }))
    };
    let of_missing = mix(name_key(MISSING));
    column.reserve(rows.len());
    if let Values::Keyed { keys, texts } = &scalars.values {
        let known = known.of(texts);
        column.extend(rows.iter().map(|&row| {
            if scalars.is_null(row) {
                return of_missing;
            }
            let key = keys[row] as usize;
            *known[key].get_or_insert_with(|| of(texts.value(key)))
        }));
        return;
    }
    let mut room = String::new();
    column.extend(rows.iter().map(|&row| {
        if scalars.is_null(row) {
            of_missing
        } else {
            of(scalars.text(row, &mut room))
        }
    }));
}
