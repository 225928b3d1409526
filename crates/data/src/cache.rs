//! The binary cache: everything that [`prepare`](crate::prepare) makes of files, in one file that
//! later runs map.
//!
//! ```text
//! header     magic, version, length of the file, place, length and checksum of the index,
//!            checksum of the header; seven numbers of 8 bytes, in the byte order of the machine
//! sections   arrays, each at a multiple of 64 bytes, the gaps between them zero
//! index      JSON: what the cache was made of, schema, report, and of each section its place,
//!            length and checksum
//! ```
//!
//! All checksums (XXH3, 64 bits) are verified when a cache is opened, and the gaps, and all indices and offsets are checked
//! against their bounds: kernels that read rows without checks rely on it. A cache that is damaged,
//! or was made of something else, is built anew.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytemuck::Pod;
use crossfield_core::{FieldId, Schema};
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::config::{DataSpec, FieldConfig, RowsPart, SplitConfig, expand};
use crate::dataset::{Dataset, Lists};
use crate::error::Error;
use crate::intern::{Interner, Tuples};
use crate::prepare::{Prepared, expanded};
use crate::raw::LabelKind;
use crate::report::{CacheUse, DataReport};
use crate::schema::{Bits, FittedCross, FittedField, FittedSchema, Vocabulary, vocabulary_file};
use crate::slice::Slice;

/// To be raised whenever the same files would be encoded otherwise, or the layout changes.
const VERSION: u64 = 4;
const MAGIC: u64 = u64::from_le_bytes(*b"CFcache\n");
const HEADER: usize = 7 * 8;
const ALIGNMENT: u64 = 64;
/// What is hashed of either end of a source file.
const END: u64 = 64 << 10;

/// What a cache is made of.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The description of the data, and what else decides how it is encoded.
    config: Value,
    sources: Vec<Source>,
}

/// A file that was read.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Source {
    path: PathBuf,
    bytes: u64,
    /// Seconds and nanoseconds of the last change.
    modified: (u64, u32),
    /// Checksum of the first and the last 64 KiB.
    ends: u64,
}

impl Origin {
    fn new(spec: &DataSpec, seed: u64, label: LabelKind) -> Result<Self, Error> {
        let mut complete = spec.complete();
        complete.data = complete.data.without_ways();
        let data = &complete.data;
        // The files that the patterns match now.
        let mut read = Vec::new();
        for files in [&data.train, &data.valid, &data.test] {
            read.extend(expanded(files)?);
        }
        let mut files: Vec<&String> = data.join.iter().map(|join| &join.file).collect();
        let mut drawn = data.keep_negatives != 1.0;
        match &data.split {
            Some(SplitConfig::Random { .. }) => drawn = true,
            Some(SplitConfig::Rows { test, valid }) => {
                files.extend(test);
                match valid {
                    Some(RowsPart::File(file)) => files.push(file),
                    Some(RowsPart::Share(_)) => drawn = true,
                    None => {}
                }
            }
            Some(SplitConfig::Time { .. } | SplitConfig::LeaveLast { .. }) | None => {}
        }
        let mut of_runs = Vec::new();
        for field in &complete.field {
            if let Some(run) = &field.keys_from {
                let vocabulary = field.vocabulary.as_deref().unwrap_or(&field.name);
                let run = expand(run)?;
                for file in ["schema.json", &vocabulary_file(vocabulary)] {
                    of_runs.push(Path::new(&run).join(file).display().to_string());
                }
            }
        }
        if let Some(run) = &data.continue_from {
            let run = Path::new(&expand(run)?).to_owned();
            of_runs.push(run.join("schema.json").display().to_string());
            let of_field =
                |field: &FieldConfig| field.vocabulary.clone().unwrap_or(field.name.clone());
            let of_fields = complete.field.iter().map(of_field);
            let of_crosses = complete.cross.iter().map(|cross| cross.name().to_owned());
            for vocabulary in of_fields.chain(of_crosses) {
                let file = run.join(vocabulary_file(&vocabulary));
                if file.exists() {
                    of_runs.push(file.display().to_string());
                }
            }
        }
        let named = files.into_iter().map(|file| expand(file));
        let sources = read.into_iter().map(Ok).chain(named);
        let sources = sources.chain(of_runs.into_iter().map(Ok));
        let sources = sources.map(|file| Source::of(&file?));
        let mut config = serde_json::to_value(&complete).expect("a description is plain data");
        config["seed"] = if drawn { seed.into() } else { Value::Null };
        config["labels"] = match label {
            LabelKind::Binary => "binary".into(),
            LabelKind::Number => "number".into(),
        };
        Ok(Self {
            sources: sources.collect::<Result<_, _>>()?,
            config,
        })
    }

    /// Why a cache of `other` does not serve, if it does not.
    fn difference(&self, other: &Self) -> Option<String> {
        if let Some(key) = other_key(&self.config, &other.config) {
            return Some(format!("it was made with another `{key}`"));
        }
        if self.sources.len() != other.sources.len() {
            return Some("it was made of other files".to_owned());
        }
        let mut pairs = self.sources.iter().zip(&other.sources);
        pairs.find_map(|(now, then)| {
            let file = now.path.display();
            if now.path != then.path {
                Some(format!("it was made of `{}`", then.path.display()))
            } else if now.bytes != then.bytes {
                let (now, then) = (now.bytes, then.bytes);
                Some(format!("`{file}` has {now} bytes and had {then}"))
            } else if now.modified != then.modified {
                Some(format!("`{file}` was changed after it"))
            } else {
                (now.ends != then.ends).then(|| format!("`{file}` has another content"))
            }
        })
    }
}

/// The first key, dotted, whose value is not the same.
fn other_key(now: &Value, then: &Value) -> Option<String> {
    let (Value::Object(now), Value::Object(then)) = (now, then) else {
        return (now != then).then(String::new);
    };
    let keys = now.keys().chain(then.keys());
    for key in keys {
        let below = other_key(
            now.get(key).unwrap_or(&Value::Null),
            then.get(key).unwrap_or(&Value::Null),
        );
        match below {
            Some(below) if below.is_empty() => return Some(key.clone()),
            Some(below) => return Some(format!("{key}.{below}")),
            None => {}
        }
    }
    None
}

impl Source {
    fn of(file: &str) -> Result<Self, Error> {
        Self::read(file).map_err(|source| Error::Open {
            file: file.to_owned(),
            source,
        })
    }

    fn read(file: &str) -> io::Result<Self> {
        use io::Read;
        let path = fs::canonicalize(file)?;
        let mut opened = File::open(file)?;
        let metadata = opened.metadata()?;
        let bytes = metadata.len();
        let modified = metadata.modified()?;
        let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut ends = Vec::new();
        (&mut opened).take(END).read_to_end(&mut ends)?;
        opened.seek(SeekFrom::Start(
            bytes.saturating_sub(END).max(END.min(bytes)),
        ))?;
        opened.take(END).read_to_end(&mut ends)?;
        Ok(Self {
            path,
            bytes,
            modified: (modified.as_secs(), modified.subsec_nanos()),
            ends: xxh3_64(&ends),
        })
    }
}

/// An array in the file.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Section {
    at: u64,
    bytes: u64,
    checksum: u64,
}

#[derive(Serialize, Deserialize)]
struct Index {
    origin: Origin,
    schema: Schema,
    fields: Vec<FittedField>,
    #[serde(default)]
    crosses: Vec<FittedCross>,
    vocabularies: BTreeMap<String, CachedVocabulary>,
    report: DataReport,
    parts: BTreeMap<String, CachedPart>,
}

impl Index {
    /// All arrays of the file but the index.
    fn sections(&self) -> Vec<Section> {
        let mut all = Vec::new();
        for vocabulary in self.vocabularies.values() {
            match vocabulary {
                CachedVocabulary::Keys { text, ends, counts } => all.extend([text, ends, counts]),
                CachedVocabulary::Indices { seen, .. } => all.push(seen),
                CachedVocabulary::Hashed { .. } => {}
                CachedVocabulary::Combinations {
                    numbers, counts, ..
                } => all.extend([numbers, counts]),
            }
        }
        for part in self.parts.values() {
            for list in &part.lists {
                all.push(&list.indices);
                all.extend(list.offsets.iter().chain(&list.weights));
            }
            all.extend([&part.one_hot, &part.dense, &part.labels]);
            all.extend(part.one_each.iter().chain(&part.weights));
            all.extend(part.groups.iter().chain(&part.probabilities));
        }
        all.into_iter().copied().collect()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CachedVocabulary {
    Keys {
        text: Section,
        ends: Section,
        counts: Section,
    },
    Indices {
        seen: Section,
        rows: u32,
    },
    Hashed {
        rows: u32,
    },
    Combinations {
        width: usize,
        numbers: Section,
        counts: Section,
    },
}

#[derive(Serialize, Deserialize)]
struct CachedPart {
    rows: usize,
    one_hot_fields: Vec<FieldId>,
    one_hot: Section,
    /// `0, 1, 2, …`, the offsets of fields of exactly one feature a row.
    one_each: Option<Section>,
    lists: Vec<CachedLists>,
    dense: Section,
    labels: Section,
    weights: Option<Section>,
    groups: Option<Section>,
    probabilities: Option<Section>,
    negative_rate: f64,
}

#[derive(Serialize, Deserialize)]
struct CachedLists {
    field: FieldId,
    /// `None`: those of `one_each`.
    offsets: Option<Section>,
    indices: Section,
    weights: Option<Section>,
}

/// Where a cache is built, and of what.
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    /// Where it will be.
    path: PathBuf,
    /// Where it is as long as it is not whole.
    beside: PathBuf,
    origin: Origin,
}

/// What `build` makes, out of the cache in `folder` if it was made of the same data before.
///
/// `build` writes the file of a [`Place`].
pub(crate) fn through(
    folder: &str,
    spec: &DataSpec,
    seed: u64,
    label: LabelKind,
    build: impl FnOnce(&Place) -> Result<(), Error>,
) -> Result<Prepared, Error> {
    let folder = PathBuf::from(expand(folder)?);
    let path = folder.join("rows.cache");
    let write_error = |path: &Path| {
        let file = path.display().to_string();
        move |source| Error::Write { file, source }
    };
    // Before the files are read, so that a change meanwhile shows in the next run.
    let origin = Origin::new(spec, seed, label)?;
    // First of all, so that a folder that cannot be is known before the files are read.
    fs::create_dir_all(&folder).map_err(write_error(&folder))?;
    let used = |path: &Path, mut prepared: Prepared, rebuilt| {
        let file = path.display().to_string();
        prepared.report.cache = Some(CacheUse { file, rebuilt });
        prepared
    };
    if let Ok(prepared) = open(&path, &origin) {
        return Ok(used(&path, prepared, None));
    }
    // One run builds; the others wait, and find what it built. The system lets go of the lock when
    // its owner ends, however that comes about.
    let lock = folder.join("rows.lock");
    let locked = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let _locked = locked.map_err(write_error(&lock))?;
    let reason = match open(&path, &origin) {
        Ok(prepared) => return Ok(used(&path, prepared, None)),
        Err(reason) => reason,
    };
    let place = Place {
        beside: folder.join("rows.cache.part"),
        path,
        folder,
        origin,
    };
    let Place {
        path,
        beside,
        origin,
        ..
    } = &place;
    let put = || {
        build(&place)?;
        // What is trained on is what later runs will map.
        let read_back = open(beside, origin).map_err(io::Error::other);
        let renamed = read_back.and_then(|prepared| {
            fs::rename(beside, path)?;
            Ok(prepared)
        });
        renamed.map_err(write_error(path))
    };
    let prepared = put().inspect_err(|_| {
        // The old cache is untouched; what is left of the new one is of no use.
        let _ = fs::remove_file(beside);
    })?;
    Ok(used(path, prepared, Some(reason)))
}

/// What a part will hold: known before its rows are.
#[derive(Clone, Debug)]
pub(crate) struct PartShape {
    pub(crate) rows: usize,
    pub(crate) one_hot_fields: Vec<FieldId>,
    /// Values of all these fields.
    pub(crate) one_hot: usize,
    /// By rising field.
    pub(crate) lists: Vec<ListShape>,
    /// Values of all dense columns.
    pub(crate) dense: usize,
    pub(crate) labels: usize,
    pub(crate) weights: bool,
    pub(crate) groups: bool,
    pub(crate) probabilities: bool,
    pub(crate) negative_rate: f64,
}

/// What the lists of a field will hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListShape {
    pub(crate) field: FieldId,
    /// Every row has exactly one feature.
    pub(crate) one_a_row: bool,
    pub(crate) values: usize,
    /// Whether any feature has another weight than 1.
    pub(crate) weighted: bool,
}

impl PartShape {
    fn of(dataset: &Dataset) -> Self {
        let lists = dataset.lists.iter().map(|list| ListShape {
            field: list.field,
            one_a_row: list.one_a_row,
            values: list.indices.len(),
            weighted: list.weights.is_some(),
        });
        Self {
            rows: dataset.rows,
            one_hot_fields: dataset.one_hot_fields.clone(),
            one_hot: dataset.one_hot.len(),
            lists: lists.collect(),
            dense: dataset.dense.len(),
            labels: dataset.labels.len(),
            weights: dataset.weights.is_some(),
            groups: dataset.groups.is_some(),
            probabilities: dataset.probabilities.is_some(),
            negative_rate: dataset.negative_rate,
        }
    }
}

/// An array that is written piece by piece, to its place in the file.
struct Array {
    at: u64,
    bytes: u64,
    done: u64,
    hash: Xxh3,
}

impl Array {
    /// The next values.
    fn put<T: Pod>(&mut self, file: &mut File, values: &[T]) -> io::Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if bytes.len() as u64 > self.bytes - self.done {
            return Err(changed());
        }
        file.seek(SeekFrom::Start(self.at + self.done))?;
        file.write_all(bytes)?;
        self.hash.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }

    fn end(self) -> io::Result<Section> {
        if self.done != self.bytes {
            return Err(changed());
        }
        Ok(Section {
            at: self.at,
            bytes: self.bytes,
            checksum: self.hash.digest(),
        })
    }
}

fn changed() -> io::Error {
    io::Error::other("the files have other rows than when they were read before")
}

/// Where the next array begins.
struct End(u64);

impl End {
    fn room<T>(&mut self, count: usize) -> Array {
        let at = self.0.next_multiple_of(ALIGNMENT);
        let bytes = (count * size_of::<T>()) as u64;
        self.0 = at + bytes;
        Array {
            at,
            bytes,
            done: 0,
            hash: Xxh3::new(),
        }
    }

    fn room_any<T>(&mut self, wanted: bool, count: usize) -> Option<Array> {
        wanted.then(|| self.room::<T>(count))
    }
}

/// Writes a cache block by block. It need not be flushed to the disk: whatever a crash of the system
/// leaves of it fails its checksums.
pub(crate) struct Writer<'a> {
    place: &'a Place,
    file: File,
    end: End,
    vocabularies: BTreeMap<String, CachedVocabulary>,
    parts: Vec<(&'static str, PartWriter)>,
}

impl<'a> Writer<'a> {
    /// A cache whose parts have these shapes; writes the vocabularies.
    pub(crate) fn new(
        place: &'a Place,
        schema: &FittedSchema,
        shapes: &[(&'static str, PartShape)],
    ) -> Result<Self, Error> {
        let create = || {
            let file = File::create(&place.beside)?;
            let mut writer = Self {
                place,
                file,
                end: End(HEADER as u64),
                vocabularies: BTreeMap::new(),
                parts: Vec::new(),
            };
            for (name, vocabulary) in &schema.vocabularies {
                let cached = writer.vocabulary(vocabulary)?;
                writer.vocabularies.insert(name.clone(), cached);
            }
            for (name, shape) in shapes {
                let part = PartWriter::new(shape.clone(), &mut writer.end);
                writer.parts.push((name, part));
            }
            Ok(writer)
        };
        create().map_err(|source| place.write_error(source))
    }

    fn array<T: Pod>(&mut self, values: &[T]) -> io::Result<Section> {
        let mut array = self.end.room::<T>(values.len());
        array.put(&mut self.file, values)?;
        array.end()
    }

    fn vocabulary(&mut self, vocabulary: &Vocabulary) -> io::Result<CachedVocabulary> {
        Ok(match vocabulary {
            Vocabulary::Keys { keys, counts } => {
                let (text, ends) = keys.parts();
                CachedVocabulary::Keys {
                    text: self.array(text.as_bytes())?,
                    ends: self.array(ends)?,
                    counts: self.array(counts)?,
                }
            }
            Vocabulary::Indices { seen, rows } => CachedVocabulary::Indices {
                seen: self.array(seen.words())?,
                rows: *rows,
            },
            Vocabulary::Hashed { rows } => CachedVocabulary::Hashed { rows: *rows },
            Vocabulary::Admitted { .. } => unreachable!("no cache is kept of such fields"),
            Vocabulary::Combinations { tuples, counts } => CachedVocabulary::Combinations {
                width: tuples.width(),
                numbers: self.array(tuples.numbers())?,
                counts: self.array(counts)?,
            },
        })
    }

    /// The next rows of a part, by its number.
    pub(crate) fn push(&mut self, part: usize, rows: &Dataset) -> Result<(), Error> {
        let pushed = self.parts[part].1.push(&mut self.file, rows);
        pushed.map_err(|source| self.place.write_error(source))
    }

    /// Ends the file, all of whose rows are there.
    pub(crate) fn finish(
        mut self,
        schema: &FittedSchema,
        report: &DataReport,
    ) -> Result<(), Error> {
        let place = self.place;
        let mut parts = BTreeMap::new();
        let mut finish = || {
            for (name, part) in std::mem::take(&mut self.parts) {
                parts.insert(name, part.end()?);
            }
            let index = serde_json::to_vec(&serde_json::json!({
                "origin": place.origin,
                "schema": schema.schema(),
                "fields": schema.fields,
                "crosses": schema.crosses,
                "vocabularies": self.vocabularies,
                "report": report,
                "parts": parts,
            }))?;
            let index = self.array(&index)?;
            let header = [
                MAGIC,
                VERSION,
                self.end.0,
                index.at,
                index.bytes,
                index.checksum,
            ];
            let of_header = xxh3_64(bytemuck::cast_slice(&header));
            self.file.rewind()?;
            self.file.write_all(bytemuck::cast_slice(&header))?;
            self.file.write_all(&of_header.to_ne_bytes())
        };
        finish().map_err(|source| place.write_error(source))
    }
}

impl Place {
    fn write_error(&self, source: io::Error) -> Error {
        Error::Write {
            file: self.path.display().to_string(),
            source,
        }
    }
}

/// A part that is being written.
struct PartWriter {
    shape: PartShape,
    /// Rows that are there.
    rows: usize,
    one_each: Option<Array>,
    lists: Vec<ListArrays>,
    one_hot: Array,
    dense: Array,
    labels: Array,
    weights: Option<Array>,
    groups: Option<Array>,
    probabilities: Option<Array>,
}

struct ListArrays {
    shape: ListShape,
    /// `None`: those of fields with one feature a row.
    offsets: Option<Array>,
    indices: Array,
    weights: Option<Array>,
    /// Values that are there.
    values: u64,
}

impl PartWriter {
    fn new(shape: PartShape, end: &mut End) -> Self {
        let rows = shape.rows;
        let mut one_each = None;
        let mut lists = Vec::new();
        for &list in &shape.lists {
            let mut offsets = None;
            if !list.one_a_row {
                offsets = Some(end.room::<u64>(rows + 1));
            } else if one_each.is_none() {
                one_each = Some(end.room::<u64>(rows + 1));
            }
            lists.push(ListArrays {
                shape: list,
                offsets,
                indices: end.room::<u32>(list.values),
                weights: end.room_any::<f32>(list.weighted, list.values),
                values: 0,
            });
        }
        Self {
            rows: 0,
            one_each,
            lists,
            one_hot: end.room::<u32>(shape.one_hot),
            dense: end.room::<f32>(shape.dense),
            labels: end.room::<f32>(shape.labels),
            weights: end.room_any::<f32>(shape.weights, rows),
            groups: end.room_any::<u32>(shape.groups, rows),
            probabilities: end.room_any::<f32>(shape.probabilities, rows),
            shape,
        }
    }

    /// The next rows. A field that is one-hot, or has one feature a row, or no weights, among these
    /// rows alone is written as the field is in the whole part.
    fn push(&mut self, file: &mut File, block: &Dataset) -> io::Result<()> {
        let (first, end) = (self.rows, self.rows + block.rows);
        // The offset before the first row.
        let from = if first == 0 { 0 } else { first as u64 + 1 };
        if let Some(one_each) = &mut self.one_each {
            let offsets: Vec<u64> = (from..=end as u64).collect();
            one_each.put(file, &offsets)?;
        }
        let place_of = |field: FieldId| block.one_hot_fields.binary_search(&field).ok();
        let column = |place: usize| {
            let width = block.one_hot_fields.len();
            block.one_hot.iter().skip(place).step_by(width).copied()
        };
        for list in &mut self.lists {
            let field = list.shape.field;
            list.push(file, block, first, || {
                Some(column(place_of(field)?).collect())
            })?;
        }
        if self.shape.one_hot_fields == block.one_hot_fields {
            self.one_hot.put(file, &block.one_hot)?;
        } else {
            // More fields are one-hot among these rows than in all.
            let places = self
                .shape
                .one_hot_fields
                .iter()
                .map(|&field| place_of(field));
            let places: Vec<usize> = places.collect::<Option<_>>().ok_or_else(changed)?;
            let width = block.one_hot_fields.len();
            let mut kept = Vec::with_capacity(places.len() * block.rows);
            for row in block.one_hot.chunks_exact(width) {
                kept.extend(places.iter().map(|&place| row[place]));
            }
            self.one_hot.put(file, &kept)?;
        }
        self.dense.put(file, &block.dense)?;
        self.labels.put(file, &block.labels)?;
        put_any(file, &mut self.weights, &block.weights)?;
        put_any(file, &mut self.groups, &block.groups)?;
        put_any(file, &mut self.probabilities, &block.probabilities)?;
        self.rows = end;
        Ok(())
    }

    fn end(self) -> io::Result<CachedPart> {
        let end_any = |array: Option<Array>| array.map(Array::end).transpose();
        let lists = self.lists.into_iter().map(|list| {
            Ok(CachedLists {
                field: list.shape.field,
                offsets: end_any(list.offsets)?,
                indices: list.indices.end()?,
                weights: end_any(list.weights)?,
            })
        });
        Ok(CachedPart {
            rows: self.shape.rows,
            one_hot_fields: self.shape.one_hot_fields,
            lists: lists.collect::<io::Result<_>>()?,
            one_hot: self.one_hot.end()?,
            one_each: end_any(self.one_each)?,
            dense: self.dense.end()?,
            labels: self.labels.end()?,
            weights: end_any(self.weights)?,
            groups: end_any(self.groups)?,
            probabilities: end_any(self.probabilities)?,
            negative_rate: self.shape.negative_rate,
        })
    }
}

fn put_any<T: Pod>(
    file: &mut File,
    array: &mut Option<Array>,
    values: &Option<Slice<T>>,
) -> io::Result<()> {
    match (array, values) {
        (Some(array), Some(values)) => array.put(file, values),
        (None, None) => Ok(()),
        _ => Err(changed()),
    }
}

impl ListArrays {
    /// The lists of the next rows, which `first` rows were before; `one_hot` gives the indices of a
    /// field that is one-hot among them.
    fn push(
        &mut self,
        file: &mut File,
        block: &Dataset,
        first: usize,
        one_hot: impl FnOnce() -> Option<Vec<u32>>,
    ) -> io::Result<()> {
        let list = (block.lists.iter()).find(|list| list.field == self.shape.field);
        let values = match list {
            Some(list) => {
                self.indices.put(file, &list.indices)?;
                list.indices.len()
            }
            None => {
                let indices = one_hot().ok_or_else(changed)?;
                self.indices.put(file, &indices)?;
                indices.len()
            }
        };
        if let Some(array) = &mut self.offsets {
            if let (0, Some(list)) = (first, list) {
                array.put(file, &list.offsets)?;
            } else {
                let in_block = |row: usize| list.map_or(row as u64, |list| list.offsets[row]);
                let rows = usize::from(first > 0)..=block.rows;
                let ends: Vec<u64> = rows.map(|row| self.values + in_block(row)).collect();
                array.put(file, &ends)?;
            }
        }
        match (
            &mut self.weights,
            list.and_then(|list| list.weights.as_ref()),
        ) {
            (Some(array), Some(weights)) => array.put(file, weights)?,
            (Some(array), None) => array.put(file, &vec![1f32; values])?,
            (None, None) => {}
            (None, Some(_)) => return Err(changed()),
        }
        self.values += values as u64;
        Ok(())
    }
}

/// Writes the cache of what is in memory.
pub(crate) fn save(place: &Place, prepared: &Prepared) -> Result<(), Error> {
    let parts = [
        ("train", Some(&prepared.train)),
        ("valid", prepared.valid.as_ref()),
        ("test", prepared.test.as_ref()),
    ];
    let parts: Vec<_> = (parts.into_iter())
        .filter_map(|(name, part)| Some((name, part?)))
        .collect();
    let shapes = parts
        .iter()
        .map(|&(name, part)| (name, PartShape::of(part)));
    let mut writer = Writer::new(place, &prepared.schema, &shapes.collect::<Vec<_>>())?;
    for (number, (_, part)) in parts.into_iter().enumerate() {
        writer.push(number, part)?;
    }
    writer.finish(&prepared.schema, &prepared.report)
}

/// Whether a checksum is the one that was expected. Fuzzing, which does not find such numbers, is let
/// in to what lies behind them.
fn is(checksum: u64, expected: u64) -> bool {
    checksum == expected || cfg!(fuzzing)
}

/// Maps the cache at `path` if it is whole and was made of `origin`; otherwise why not.
fn open(path: &Path, origin: &Origin) -> Result<Prepared, String> {
    let damaged = |problem: String| format!("the one there is damaged: {problem}");
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err("there was none".to_owned());
        }
        Err(error) => return Err(format!("the one there cannot be opened: {error}")),
    };
    let unreadable = |error: io::Error| format!("the one there cannot be read: {error}");
    let length = file.metadata().map_err(unreadable)?.len();
    if length < HEADER as u64 {
        return Err(damaged(format!("{length} bytes, less than a header")));
    }
    // SAFETY: caches are written beside their place and renamed, never changed in place; the mapped
    // file stays as it is even if another run puts a new one in its place. A stranger who writes
    // into it or cuts it while it is mapped can make any program that maps it read wrong bytes;
    // the documentation forbids it.
    let map = Arc::new(unsafe { Mmap::map(&file) }.map_err(unreadable)?);
    let header: [u64; HEADER / 8] = bytemuck::pod_read_unaligned(&map[..HEADER]);
    let [magic, version, whole, at, bytes, of_index, of_header] = header;
    if magic != MAGIC {
        return Err(damaged("it does not start as a cache does".to_owned()));
    }
    if version != VERSION {
        return Err(format!(
            "the one there has version {version}, expected {VERSION}"
        ));
    }
    if !is(xxh3_64(&map[..HEADER - 8]), of_header) {
        return Err(damaged("wrong checksum of its header".to_owned()));
    }
    if whole != length {
        return Err(damaged(format!("{length} bytes, expected {whole}")));
    }
    let cache = Cache { map };
    let section = Section {
        at,
        bytes,
        checksum: of_index,
    };
    let index = cache.slice::<u8>(&section, "index").map_err(damaged)?;
    let index: Index =
        serde_json::from_slice(&index).map_err(|error| damaged(format!("its index: {error}")))?;
    // Before its arrays are read, which takes longer.
    if let Some(difference) = origin.difference(&index.origin).filter(|_| !cfg!(fuzzing)) {
        return Err(difference);
    }
    cache.check_gaps(&index, section).map_err(damaged)?;
    cache.prepared(index).map_err(damaged)
}

/// A mapped file.
struct Cache {
    map: Arc<Mmap>,
}

impl Cache {
    /// Whether arrays and gaps of zeros are all that there is.
    fn check_gaps(&self, index: &Index, of_index: Section) -> Result<(), String> {
        let mut sections = index.sections();
        sections.push(of_index);
        sections.sort_by_key(|section| (section.at, section.bytes));
        let mut end = HEADER as u64;
        for section in sections {
            let gap = end..section.at;
            let bytes = self.map.get(gap.start as usize..gap.end as usize);
            let is_gap = section.at == end.next_multiple_of(ALIGNMENT)
                && bytes.is_some_and(|bytes| bytes.iter().all(|&byte| byte == 0));
            if !is_gap {
                return Err(format!("no gap of zeros from byte {end} on"));
            }
            // Bounds of sections are checked by the length of the file, and here by the next.
            end = section.at.saturating_add(section.bytes);
        }
        if end == self.map.len() as u64 {
            Ok(())
        } else {
            Err(format!("it goes on behind its end at byte {end}"))
        }
    }

    /// The array of a section, its checksum verified.
    fn slice<T: Pod>(&self, section: &Section, what: &str) -> Result<Slice<T>, String> {
        let start = usize::try_from(section.at).ok();
        let end = section.at.checked_add(section.bytes);
        let end = end.and_then(|end| usize::try_from(end).ok());
        let slice = match (start, end) {
            (Some(start), Some(end)) => Slice::mapped(&self.map, start..end),
            _ => None,
        };
        let slice = slice.ok_or_else(|| format!("no whole array for its {what}"))?;
        let mut hash = Xxh3::new();
        slice.scan(1, |values| hash.update(bytemuck::cast_slice(values)));
        if is(hash.digest(), section.checksum) {
            Ok(slice)
        } else {
            Err(format!("wrong checksum of its {what}"))
        }
    }

    /// The array of a section that has `length` values.
    fn sized<T: Pod>(
        &self,
        section: &Section,
        length: Option<usize>,
        what: &str,
    ) -> Result<Slice<T>, String> {
        let slice = self.slice(section, what)?;
        match length {
            Some(length) if length == slice.len() => Ok(slice),
            _ => Err(format!("wrong length of its {what}")),
        }
    }

    fn sized_any<T: Pod>(
        &self,
        section: &Option<Section>,
        length: usize,
        what: &str,
    ) -> Result<Option<Slice<T>>, String> {
        let section = section.as_ref();
        section
            .map(|section| self.sized(section, Some(length), what))
            .transpose()
    }

    fn prepared(&self, index: Index) -> Result<Prepared, String> {
        let mut vocabularies = BTreeMap::new();
        for (name, cached) in &index.vocabularies {
            let what = format!("vocabulary `{name}`");
            vocabularies.insert(name.clone(), self.vocabulary(cached, &what)?);
        }
        let schema =
            FittedSchema::checked(index.schema, index.fields, index.crosses, vocabularies)?;
        let part = |name: &str| match index.parts.get(name) {
            Some(part) => self.dataset(&schema.schema, part, name).map(Some),
            None => Ok(None),
        };
        Ok(Prepared {
            train: part("train")?.ok_or("it has no training part")?,
            valid: part("valid")?,
            test: part("test")?,
            report: index.report,
            schema,
        })
    }

    fn vocabulary(&self, cached: &CachedVocabulary, what: &str) -> Result<Vocabulary, String> {
        let wrong = || format!("its {what} does not hold together");
        match cached {
            CachedVocabulary::Keys { text, ends, counts } => {
                let text = self.slice::<u8>(text, what)?;
                let text = std::str::from_utf8(&text).map_err(|_| wrong())?;
                let ends = self.slice::<u64>(ends, what)?;
                let keys = Interner::from_parts(text, &ends).ok_or_else(wrong)?;
                let counts = self.sized::<u64>(counts, Some(keys.len()), what)?.to_vec();
                Ok(Vocabulary::Keys { keys, counts })
            }
            CachedVocabulary::Indices { seen, rows } => {
                let seen = Bits::from_words(&self.slice::<u64>(seen, what)?);
                let fits = seen.largest().is_some_and(|largest| largest + 1 < *rows);
                let rows = *rows;
                fits.then_some(Vocabulary::Indices { seen, rows })
                    .ok_or_else(wrong)
            }
            CachedVocabulary::Hashed { rows: 0 } => Err(wrong()),
            CachedVocabulary::Hashed { rows } => Ok(Vocabulary::Hashed { rows: *rows }),
            CachedVocabulary::Combinations {
                width,
                numbers,
                counts,
            } => {
                let numbers = self.slice::<u32>(numbers, what)?;
                let tuples = Tuples::from_numbers(*width, &numbers).ok_or_else(wrong)?;
                let counts = self.sized::<u64>(counts, Some(tuples.len()), what)?;
                let counts = counts.to_vec();
                Ok(Vocabulary::Combinations { tuples, counts })
            }
        }
    }

    fn dataset(
        &self,
        schema: &Arc<Schema>,
        part: &CachedPart,
        name: &str,
    ) -> Result<Dataset, String> {
        let what = |array: &str| format!("{array} of the {name} part");
        let rows = part.rows;
        // Row numbers are 32 bits wide.
        if rows >= u32::MAX as usize {
            return Err(format!("its {name} part has {rows} rows"));
        }
        let mut fields: Vec<FieldId> = part.one_hot_fields.clone();
        fields.extend(part.lists.iter().map(|list| list.field));
        fields.sort_unstable();
        if !fields.iter().copied().eq(0..schema.fields.len())
            || !part.one_hot_fields.is_sorted()
            || !part.lists.is_sorted_by_key(|list| list.field)
        {
            return Err(format!("its {name} part has other fields than its schema"));
        }
        let bound = |field: FieldId| schema.fields[field].rows;
        let width = part.one_hot_fields.len();
        let indices = what("indices");
        let one_hot = self.sized::<u32>(&part.one_hot, rows.checked_mul(width), &indices)?;
        let mut largest = vec![0; width];
        one_hot.scan(width.max(1), |indices| {
            for row in indices.chunks_exact(width) {
                for (largest, &index) in largest.iter_mut().zip(row) {
                    *largest = index.max(*largest);
                }
            }
        });
        let beyond = |index: u32, field: FieldId| {
            let (name, rows) = (&schema.fields[field].name, bound(field));
            Err(format!(
                "index {index} of field `{name}`, expected less than {rows}"
            ))
        };
        for (&largest, &field) in largest.iter().zip(&part.one_hot_fields) {
            if largest >= bound(field) {
                return beyond(largest, field);
            }
        }
        let offsets_name = what("offsets");
        let one_each = self.sized_any::<u64>(&part.one_each, rows + 1, &offsets_name)?;
        let mut lists = Vec::new();
        for list in &part.lists {
            let values = self.slice::<u32>(&list.indices, &indices)?;
            let offsets = match (&list.offsets, &one_each) {
                (Some(section), _) => self.sized(section, Some(rows + 1), &offsets_name)?,
                (None, Some(one_each)) => one_each.clone(),
                (None, None) => return Err(format!("its {offsets_name} are not there")),
            };
            let (mut rise, mut before) = (true, 0);
            offsets.scan(1, |some| {
                rise &= before <= some[0] && some.is_sorted();
                before = some[some.len() - 1];
            });
            if offsets[0] != 0 || offsets[rows] != values.len() as u64 || !rise {
                return Err(format!("its {offsets_name} do not rise from 0 to the end"));
            }
            let mut largest = 0;
            values.scan(1, |some| {
                largest = some.iter().copied().fold(largest, u32::max)
            });
            if largest >= bound(list.field) {
                return beyond(largest, list.field);
            }
            lists.push(Lists {
                field: list.field,
                one_a_row: list.offsets.is_none(),
                offsets,
                weights: self.sized_any(&list.weights, values.len(), &what("values"))?,
                indices: values,
            });
        }
        let labels = what("labels");
        let labels = if part.labels.bytes == 0 {
            self.slice(&part.labels, &labels)?
        } else {
            self.sized(&part.labels, Some(rows), &labels)?
        };
        let dense = rows.checked_mul(schema.dense.len());
        Ok(Dataset {
            schema: schema.clone(),
            rows,
            one_hot_fields: part.one_hot_fields.clone(),
            one_hot,
            lists,
            dense: self.sized(&part.dense, dense, &what("dense columns"))?,
            labels,
            weights: self.sized_any(&part.weights, rows, &what("weights"))?,
            groups: self.sized_any(&part.groups, rows, &what("groups"))?,
            probabilities: self.sized_any(&part.probabilities, rows, &what("probabilities"))?,
            negative_rate: part.negative_rate,
            shuffle_block: 0,
            keys: BTreeMap::new(),
            in_order: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CrossConfig, Format};
    use crate::prepare;

    /// Field 0 is one-hot, field 1 a list; the crosses come behind them.
    fn three_rows(directory: &Path, cross: Vec<CrossConfig>) -> (Prepared, Place) {
        let file = directory.join("t.ffm");
        fs::write(&file, "1 0:2:1 1:7:1\n0 0:3:1 1:8:0.5\n1 0:2:1\n").unwrap();
        let mut spec = DataSpec {
            cross,
            ..DataSpec::default()
        };
        spec.data.format = Format::Libffm;
        spec.data.train = vec![file.to_str().unwrap().to_owned()];
        let prepared = prepare(&spec, 1, LabelKind::Binary).unwrap();
        let origin = Origin::new(&spec, 1, LabelKind::Binary).unwrap();
        let place = Place {
            folder: directory.to_owned(),
            path: directory.join("rows.cache"),
            beside: directory.join("rows.cache.part"),
            origin,
        };
        (prepared, place)
    }

    #[test]
    fn a_flipped_bit_is_caught_wherever_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let crosses = r#"[{"fields": ["0", "1"]}, {"when": "0=2"}]"#;
        let crosses = serde_json::from_str(crosses).unwrap();
        let (plain, place) = three_rows(directory.path(), crosses);
        save(&place, &plain).unwrap();
        assert_eq!(
            open(&place.beside, &place.origin).unwrap().train,
            plain.train
        );
        let whole = fs::read(&place.beside).unwrap();
        let mut file = File::options().write(true).open(&place.beside).unwrap();
        let mut put = |at: usize, byte: u8| {
            file.seek(SeekFrom::Start(at as u64)).unwrap();
            file.write_all(&[byte]).unwrap();
        };
        for (at, byte) in whole.iter().enumerate() {
            put(at, byte ^ (1 << (at % 8)));
            assert!(open(&place.beside, &place.origin).is_err(), "byte {at}");
            put(at, *byte);
        }
    }

    #[test]
    fn an_index_beyond_its_vocabulary_is_refused_whatever_the_checksums_say() {
        let directory = tempfile::tempdir().unwrap();
        let (plain, place) = three_rows(directory.path(), Vec::new());
        let refusal = |change: &dyn Fn(&mut Dataset)| {
            let mut wrong = plain.clone();
            change(&mut wrong.train);
            save(&place, &wrong).unwrap();
            let message = open(&place.beside, &place.origin).unwrap_err();
            message.replace("the one there is damaged: ", "")
        };
        assert_eq!(
            refusal(&|train| train.one_hot = vec![2, 10, 2].into()),
            "index 10 of field `0`, expected less than 10"
        );
        assert_eq!(
            refusal(&|train| train.lists[0].indices = vec![7, 4000].into()),
            "index 4000 of field `1`, expected less than 10"
        );
        for offsets in [[0, 2, 1, 2], [1, 1, 2, 2], [0, 1, 2, 3]] {
            assert_eq!(
                refusal(&|train| train.lists[0].offsets = offsets.to_vec().into()),
                "its offsets of the train part do not rise from 0 to the end"
            );
        }
        assert_eq!(
            refusal(&|train| train.one_hot_fields = vec![1]),
            "its train part has other fields than its schema"
        );
        let mut more = plain.clone();
        more.train.rows = 4;
        let refused = save(&place, &more).unwrap_err().to_string();
        assert!(refused.ends_with(&changed().to_string()), "{refused}");
        assert_eq!(
            refusal(&|train| train.labels = vec![1.0].into()),
            "wrong length of its labels of the train part"
        );
    }
}
