//! The binary cache: everything that [`prepare`](crate::prepare) makes of files, in one file that
//! later runs map.
//!
//! ```text
//! header     magic, version, length of the file, place, length and checksum of the index,
//!            checksum of the header; seven numbers of 8 bytes, in the byte order of the machine
//! sections   arrays, each at a multiple of 64 bytes
//! index      JSON: what the cache was made of, schema, report, and of each section its place,
//!            length and checksum
//! ```
//!
//! All checksums are verified when a cache is opened, and all indices and offsets are checked
//! against their bounds: kernels that read rows without checks rely on it. A cache that is damaged,
//! or was made of something else, is built anew.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytemuck::Pod;
use crossfield_core::{FieldId, Schema};
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checksum::checksum;
use crate::config::{DataSpec, FieldConfig, RowsPart, SplitConfig, expand};
use crate::dataset::{Dataset, Lists};
use crate::error::Error;
use crate::intern::{Interner, Tuples};
use crate::prepare::Prepared;
use crate::raw::LabelKind;
use crate::report::{CacheUse, DataReport};
use crate::schema::{Bits, FittedCross, FittedField, FittedSchema, Vocabulary, vocabulary_file};
use crate::slice::Slice;

/// To be raised whenever the same files would be encoded otherwise, or the layout changes.
const VERSION: u64 = 3;
const MAGIC: u64 = u64::from_le_bytes(*b"CFcache\n");
const HEADER: usize = 7 * 8;
const ALIGNMENT: u64 = 64;
/// What is hashed of either end of a source file.
const END: u64 = 64 << 10;

/// What a cache is made of.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Origin {
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
        // These two decide nothing about what is encoded.
        complete.data.cache = None;
        complete.data.shuffle_block = 0;
        let data = &complete.data;
        let mut files: Vec<&String> = (data.train.iter().chain(&data.valid).chain(&data.test))
            .chain(data.join.iter().map(|join| &join.file))
            .collect();
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
        let read = files.into_iter().map(|file| expand(file));
        let sources = read.chain(of_runs.into_iter().map(Ok));
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
            ends: checksum(&ends),
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

/// What `build` makes, out of the cache in `folder` if it was made of the same data before.
pub(crate) fn through(
    folder: &str,
    spec: &DataSpec,
    seed: u64,
    label: LabelKind,
    build: impl FnOnce() -> Result<Prepared, Error>,
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
    let used = |mut prepared: Prepared, rebuilt| {
        let file = path.display().to_string();
        prepared.report.cache = Some(CacheUse { file, rebuilt });
        prepared
    };
    if let Ok(prepared) = open(&path, &origin) {
        return Ok(used(prepared, None));
    }
    // One run builds; the others wait, and find what it built. The system lets go of the lock when
    // its owner ends, however that comes about.
    let lock = folder.join("rows.lock");
    let locked = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let _locked = locked.map_err(write_error(&lock))?;
    let reason = match open(&path, &origin) {
        Ok(prepared) => return Ok(used(prepared, None)),
        Err(reason) => reason,
    };
    let built = build()?;
    let beside = folder.join("rows.cache.part");
    let write = || {
        save(&beside, &built, &origin)?;
        // What is trained on is what later runs will map; the arrays in memory are not needed.
        drop(built);
        let prepared = open(&beside, &origin).map_err(io::Error::other)?;
        fs::rename(&beside, &path)?;
        Ok(prepared)
    };
    let prepared = write().map_err(|error| {
        // The old cache is untouched; what is left of the new one is of no use.
        let _ = fs::remove_file(&beside);
        write_error(&path)(error)
    })?;
    Ok(used(prepared, Some(reason)))
}

/// Writes sections one after the other.
struct Sections {
    file: BufWriter<File>,
    at: u64,
}

impl Sections {
    fn push<T: Pod>(&mut self, values: &[T]) -> io::Result<Section> {
        let gap = self.at.next_multiple_of(ALIGNMENT) - self.at;
        self.file
            .write_all(&[0; ALIGNMENT as usize][..gap as usize])?;
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.file.write_all(bytes)?;
        let section = Section {
            at: self.at + gap,
            bytes: bytes.len() as u64,
            checksum: checksum(bytes),
        };
        self.at = section.at + section.bytes;
        Ok(section)
    }

    fn push_any<T: Pod>(&mut self, values: &Option<Slice<T>>) -> io::Result<Option<Section>> {
        values.as_ref().map(|values| self.push(values)).transpose()
    }
}

/// Writes a cache. It need not be flushed to the disk: whatever a crash of the system leaves of it
/// fails its checksums.
fn save(path: &Path, prepared: &Prepared, origin: &Origin) -> io::Result<()> {
    let mut sections = Sections {
        file: BufWriter::with_capacity(1 << 18, File::create(path)?),
        at: 0,
    };
    sections.push(&[0u8; HEADER])?;
    let mut vocabularies = BTreeMap::new();
    for (name, vocabulary) in &prepared.schema.vocabularies {
        let cached = match vocabulary {
            Vocabulary::Keys { keys, counts } => {
                let (text, ends) = keys.parts();
                CachedVocabulary::Keys {
                    text: sections.push(text.as_bytes())?,
                    ends: sections.push(ends)?,
                    counts: sections.push(counts)?,
                }
            }
            Vocabulary::Indices { seen, rows } => CachedVocabulary::Indices {
                seen: sections.push(seen.words())?,
                rows: *rows,
            },
            Vocabulary::Hashed { rows } => CachedVocabulary::Hashed { rows: *rows },
            Vocabulary::Admitted { .. } => unreachable!("no cache is kept of such fields"),
            Vocabulary::Combinations { tuples, counts } => CachedVocabulary::Combinations {
                width: tuples.width(),
                numbers: sections.push(tuples.numbers())?,
                counts: sections.push(counts)?,
            },
        };
        vocabularies.insert(name.clone(), cached);
    }
    let mut parts = BTreeMap::new();
    let datasets = [
        ("train", Some(&prepared.train)),
        ("valid", prepared.valid.as_ref()),
        ("test", prepared.test.as_ref()),
    ];
    for (name, dataset) in datasets {
        if let Some(dataset) = dataset {
            parts.insert(name.to_owned(), save_part(&mut sections, dataset)?);
        }
    }
    let index = serde_json::to_vec(&serde_json::json!({
        "origin": origin,
        "schema": prepared.schema.schema(),
        "fields": prepared.schema.fields,
        "crosses": prepared.schema.crosses,
        "vocabularies": vocabularies,
        "report": prepared.report,
        "parts": parts,
    }))?;
    let index = sections.push(&index)?;
    let header = [
        MAGIC,
        VERSION,
        sections.at,
        index.at,
        index.bytes,
        index.checksum,
    ];
    sections.file.rewind()?;
    sections.file.write_all(bytemuck::cast_slice(&header))?;
    let checksum = checksum(bytemuck::cast_slice(&header));
    sections.file.write_all(&checksum.to_ne_bytes())?;
    sections.file.flush()
}

fn save_part(sections: &mut Sections, dataset: &Dataset) -> io::Result<CachedPart> {
    let mut one_each = None;
    let mut lists = Vec::new();
    for list in &dataset.lists {
        let offsets = if list.one_a_row {
            if one_each.is_none() {
                one_each = Some(sections.push(&list.offsets)?);
            }
            None
        } else {
            Some(sections.push(&list.offsets)?)
        };
        lists.push(CachedLists {
            field: list.field,
            offsets,
            indices: sections.push(&list.indices)?,
            weights: sections.push_any(&list.weights)?,
        });
    }
    Ok(CachedPart {
        rows: dataset.rows,
        one_hot_fields: dataset.one_hot_fields.clone(),
        one_hot: sections.push(&dataset.one_hot)?,
        one_each,
        lists,
        dense: sections.push(&dataset.dense)?,
        labels: sections.push(&dataset.labels)?,
        weights: sections.push_any(&dataset.weights)?,
        groups: sections.push_any(&dataset.groups)?,
        probabilities: sections.push_any(&dataset.probabilities)?,
        negative_rate: dataset.negative_rate,
    })
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
    if checksum(&map[..HEADER - 8]) != of_header {
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
    if let Some(difference) = origin.difference(&index.origin) {
        return Err(difference);
    }
    cache.prepared(index).map_err(damaged)
}

/// A mapped file.
struct Cache {
    map: Arc<Mmap>,
}

impl Cache {
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
        if checksum(bytemuck::cast_slice(&slice)) == section.checksum {
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
        if width > 0 {
            for row in one_hot.chunks_exact(width) {
                for (largest, &index) in largest.iter_mut().zip(row) {
                    *largest = index.max(*largest);
                }
            }
        }
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
            if offsets[0] != 0 || offsets[rows] != values.len() as u64 || !offsets.is_sorted() {
                return Err(format!("its {offsets_name} do not rise from 0 to the end"));
            }
            let largest = values.iter().copied().max().unwrap_or(0);
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
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CrossConfig, Format};
    use crate::prepare;

    /// Field 0 is one-hot, field 1 a list; the crosses come behind them.
    fn three_rows(directory: &Path, cross: Vec<CrossConfig>) -> (Prepared, Origin) {
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
        (prepared, origin)
    }

    #[test]
    fn a_flipped_bit_anywhere_is_caught_or_harmless() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.cache");
        let crosses = r#"[{"fields": ["0", "1"]}, {"when": "0=2"}]"#;
        let crosses = serde_json::from_str(crosses).unwrap();
        let (plain, origin) = three_rows(directory.path(), crosses);
        save(&path, &plain, &origin).unwrap();
        let whole = fs::read(&path).unwrap();
        let (mut caught, mut harmless) = (0, 0);
        let mut file = File::options().write(true).open(&path).unwrap();
        let mut put = |at: usize, byte: u8| {
            file.seek(SeekFrom::Start(at as u64)).unwrap();
            file.write_all(&[byte]).unwrap();
        };
        for (at, byte) in whole.iter().enumerate() {
            put(at, byte ^ (1 << (at % 8)));
            match open(&path, &origin) {
                Ok(prepared) => {
                    assert_eq!(prepared.train, plain.train);
                    let fingerprint = plain.schema.fingerprint();
                    assert_eq!(prepared.schema.fingerprint(), fingerprint);
                    harmless += 1;
                }
                Err(_) => caught += 1,
            }
            put(at, *byte);
        }
        // The gaps between arrays alone are harmless; there are sixteen arrays.
        assert!(harmless > 0 && harmless < 16 * ALIGNMENT);
        assert!(caught > harmless, "{caught} {harmless}");
    }

    #[test]
    fn an_index_beyond_its_vocabulary_is_refused_whatever_the_checksums_say() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.cache");
        let (plain, origin) = three_rows(directory.path(), Vec::new());
        let refusal = |change: &dyn Fn(&mut Dataset)| {
            let mut wrong = plain.clone();
            change(&mut wrong.train);
            save(&path, &wrong, &origin).unwrap();
            let message = open(&path, &origin).unwrap_err();
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
        assert_eq!(
            refusal(&|train| train.rows = 4),
            "wrong length of its indices of the train part"
        );
        assert_eq!(
            refusal(&|train| train.labels = vec![1.0].into()),
            "wrong length of its labels of the train part"
        );
    }
}
