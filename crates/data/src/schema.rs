//! What was learned from the training part: vocabularies and transforms.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use crossfield_core::rng::name_key;
use crossfield_core::{Field, FieldId, FieldKind, Schema};
use serde::{Deserialize, Serialize};

use crate::config::{AdmitConfig, CrossConfig, DataSpec, FieldConfig, Format, expand};
use crate::cross::MOST;
use crate::error::Error;
use crate::indexed;
use crate::intern::{Interner, Tuples};
use crate::manifest::Manifest;

/// The schema of a run: the fields as models see them, and the vocabularies and transforms that
/// were learned from the training part to encode them.
#[derive(Clone, Debug)]
pub struct FittedSchema {
    pub(crate) schema: Arc<Schema>,
    /// The fields that are columns, which come first in the schema.
    pub(crate) fields: Vec<FittedField>,
    /// The fields behind them.
    pub(crate) crosses: Vec<FittedCross>,
    pub(crate) vocabularies: BTreeMap<String, Vocabulary>,
}

/// A cross and what it is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FittedCross {
    pub(crate) config: CrossConfig,
    pub(crate) rule: CrossRule,
}

/// Which features of its fields a cross has features for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum CrossRule {
    /// Every combination of one feature of each member.
    Product { members: Vec<FieldId> },
    /// Index 0 where every field has its index; none: where it has no feature at all.
    Condition { all: Vec<(FieldId, Option<u32>)> },
}

/// A field and what was learned for it alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FittedField {
    pub(crate) config: FieldConfig,
    pub(crate) transform: Transform,
}

/// What is done to the numbers of a field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Transform {
    /// The field has no numbers.
    None {},
    /// (x or sign(x)·ln(1 + |x|) − mean) / deviation.
    Standard {
        log: bool,
        mean: f64,
        deviation: f64,
        indicator: bool,
    },
    /// One bucket between any two edges and one beyond each end; the last row is for missing.
    Buckets { edges: Vec<f64> },
}

/// The values of a vocabulary and their rows.
#[derive(Clone, Debug)]
pub(crate) enum Vocabulary {
    /// Row 0 is out of vocabulary; key `i` has row `i + 1`.
    Keys { keys: Interner, counts: Vec<u64> },
    /// The index is the row; the last row is out of vocabulary.
    Indices { seen: Bits, rows: u32 },
    /// The hash of the value modulo `rows` is the row.
    Hashed { rows: u32 },
    /// Row 0 is shared; the hashes of values are given the rows behind it one by one, as they come.
    Admitted { rows: u32 },
    /// Indices of the members of a cross. Row 0 is out of vocabulary; tuple `i` has row `i + 1`.
    Combinations { tuples: Tuples, counts: Vec<u64> },
}

impl Vocabulary {
    pub(crate) fn rows(&self) -> u32 {
        match self {
            Self::Keys { keys, .. } => keys.len() as u32 + 1,
            Self::Combinations { tuples, .. } => tuples.len() as u32 + 1,
            Self::Indices { rows, .. } | Self::Hashed { rows } | Self::Admitted { rows } => *rows,
        }
    }

    /// The keys that the vocabulary `name` of a finished run has.
    ///
    /// # Errors
    /// [`Error::Config`] if that run has no such vocabulary; [`Error::Damaged`]; those of
    /// [`FittedSchema::load`].
    pub(crate) fn keys_of(name: &str, field: &str, run: &str) -> Result<Interner, Error> {
        let folder = expand(run)?;
        verify(Path::new(&folder))?;
        let mut other = FittedSchema::load(Path::new(&folder))?;
        if let Some(Self::Keys { keys, .. }) = other.vocabularies.remove(name) {
            return Ok(keys);
        }
        let known: Vec<&str> = other.vocabularies.keys().map(String::as_str).collect();
        Err(Error::Config {
            key: format!("field `{field}`: keys_from"),
            value: run.to_owned(),
            expected: format!(
                "a run with keys of the vocabulary `{name}`; it has {}",
                known.join(", ")
            ),
        })
    }

    /// Gives a row to each key of `others`.
    pub(crate) fn take_keys<'a>(&mut self, others: impl Iterator<Item = &'a str>) {
        let Self::Keys { keys, counts } = self else {
            unreachable!("fields with keys_from have learned keys");
        };
        for key in others {
            keys.intern(key);
        }
        counts.resize(keys.len(), 0);
    }

    /// What was learned here, behind what was learned `before`: rows that there were stay what they
    /// are, new values have rows behind them, and counts add up.
    pub(crate) fn behind(self, before: &Self) -> Self {
        match (self, before) {
            (
                Self::Keys { keys, counts },
                Self::Keys {
                    keys: first,
                    counts: of_first,
                },
            ) => {
                let mut all = first.clone();
                let ids = keys.iter().map(|key| all.intern(key));
                let counts = summed(of_first, ids.zip(counts));
                Self::Keys { keys: all, counts }
            }
            (
                Self::Combinations { tuples, counts },
                Self::Combinations {
                    tuples: first,
                    counts: of_first,
                },
            ) => {
                let mut all = first.clone();
                let ids = tuples.iter().map(|tuple| all.intern(tuple));
                let counts = summed(of_first, ids.zip(counts));
                Self::Combinations {
                    tuples: all,
                    counts,
                }
            }
            (
                Self::Indices { mut seen, rows },
                Self::Indices {
                    seen: first,
                    rows: of_first,
                },
            ) => {
                seen.join(first);
                Self::Indices {
                    seen,
                    rows: rows.max(*of_first),
                }
            }
            // The rows of hashes are what the run file says.
            (learned, _) => learned,
        }
    }

    pub(crate) fn oov_row(&self) -> Option<u32> {
        match self {
            Self::Keys { .. } | Self::Combinations { .. } | Self::Admitted { .. } => Some(0),
            Self::Indices { rows, .. } => Some(rows - 1),
            Self::Hashed { .. } => None,
        }
    }
}

/// Counts of keys, with those of keys that came again or are new.
fn summed(before: &[u64], again: impl Iterator<Item = (u32, u64)>) -> Vec<u64> {
    let mut sums = before.to_vec();
    for (id, count) in again {
        let id = id as usize;
        sums.resize(sums.len().max(id + 1), 0);
        sums[id] += count;
    }
    sums
}

/// A set of row numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// The set whose number `n` is bit `n % 64` of word `n / 64`.
    pub(crate) fn from_words(words: &[u64]) -> Self {
        Self(words.to_vec())
    }

    /// The numbers 0 to `last`.
    pub(crate) fn up_to(last: u32) -> Self {
        let mut words = vec![u64::MAX; last as usize / 64 + 1];
        if let Some(end) = words.last_mut() {
            *end >>= 63 - last % 64;
        }
        Self(words)
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.0
    }

    pub(crate) fn insert(&mut self, index: u32) {
        let word = index as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (index % 64);
    }

    /// Takes the numbers of `other` in.
    pub(crate) fn join(&mut self, other: &Self) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
    }

    pub(crate) fn contains(&self, index: u32) -> bool {
        self.0
            .get(index as usize / 64)
            .is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    pub(crate) fn largest(&self) -> Option<u32> {
        let word = self.0.iter().rposition(|&word| word != 0)?;
        Some((word * 64) as u32 + 63 - self.0[word].leading_zeros())
    }

    /// Lengths of runs, those of absent and of present numbers in turn, from 0 to the largest.
    fn runs(&self) -> String {
        let mut runs = Vec::new();
        let (mut present, mut length) = (false, 0u64);
        for index in 0..self.largest().map_or(0, |largest| largest + 1) {
            if self.contains(index) != present {
                runs.push(length.to_string());
                (present, length) = (!present, 0);
            }
            length += 1;
        }
        if length > 0 {
            runs.push(length.to_string());
        }
        runs.join(" ")
    }

    /// The set with these runs, all below `rows`; `None` if they are no such runs.
    fn from_runs(runs: &str, rows: u32) -> Option<Self> {
        let mut bits = Self::default();
        let mut start = 0u32;
        for (position, run) in runs.split_ascii_whitespace().enumerate() {
            let end = start
                .checked_add(run.parse().ok()?)
                .filter(|&end| end < rows)?;
            if position % 2 == 1 {
                (start..end).for_each(|index| bits.insert(index));
            }
            start = end;
        }
        Some(bits)
    }
}

/// `schema.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    schema: Schema,
    fields: Vec<FittedField>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    crosses: Vec<FittedCross>,
    vocabularies: BTreeMap<String, SavedVocabulary>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum SavedVocabulary {
    Keys { file: String, rows: u32 },
    Indices { rows: u32, seen: String },
    Hashed { rows: u32 },
    Admitted { rows: u32 },
    Combinations { file: String, rows: u32 },
}

const VERSION: u32 = 1;
const SCHEMA_FILE: &str = "schema.json";

impl FittedSchema {
    /// The fields and dense columns as models see them.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The fields as the run file describes them, with every default written out, without the
    /// crosses.
    pub fn field_configs(&self) -> impl Iterator<Item = &FieldConfig> {
        self.fields.iter().map(|field| &field.config)
    }

    /// What is done to the numbers of a field; what a number means to the weights that there are does
    /// not change in a run that goes on.
    ///
    /// # Panics
    /// If there is no such field.
    pub(crate) fn transform(&self, field: &str) -> Transform {
        let same = self.fields.iter().find(|it| it.config.name == field);
        same.expect("the fields are the same").transform.clone()
    }

    /// The schema of the run that `data.continue_from` names.
    ///
    /// # Errors
    /// Those of [`load`](Self::load); [`Error::Config`] where the run file describes other fields than
    /// that run has.
    pub(crate) fn continued(spec: &DataSpec) -> Result<Option<Self>, Error> {
        let Some(run) = &spec.data.continue_from else {
            return Ok(None);
        };
        let folder = expand(run)?;
        verify(Path::new(&folder))?;
        let before = Self::load(Path::new(&folder))?;
        let refuse = |problem: String| {
            Err(Error::Config {
                key: "data.continue_from".to_owned(),
                value: run.clone(),
                expected: format!("a run with the fields of this run file: {problem}"),
            })
        };
        // What decides which values have rows may change, what a row means may not.
        let meaning = |field: &FieldConfig| FieldConfig {
            min_count: None,
            keys_from: None,
            ..field.clone()
        };
        for field in &spec.field {
            match before.field_configs().find(|it| it.name == field.name) {
                None => return refuse(format!("it has no field `{}`", field.name)),
                Some(other) if meaning(other) != meaning(field) => {
                    return refuse(format!("its field `{}` is another one", field.name));
                }
                Some(_) => {}
            }
        }
        let lost = before.field_configs().find(|it| {
            !spec.field.is_empty() && spec.field.iter().all(|field| field.name != it.name)
        });
        if let Some(lost) = lost {
            return refuse(format!("it has a field `{}` as well", lost.name));
        }
        let crosses = before.crosses.iter().map(|cross| CrossConfig {
            min_count: None,
            ..cross.config.clone()
        });
        let here = spec.cross.iter().map(|cross| CrossConfig {
            min_count: None,
            ..cross.clone()
        });
        if !crosses.eq(here) {
            return refuse("its crosses are others".to_owned());
        }
        Ok(Some(before))
    }

    /// The value behind `row` of a vocabulary of texts; `None` for the out-of-vocabulary row, a
    /// row beyond the end, and vocabularies of row numbers or hashes.
    pub fn key(&self, vocabulary: &str, row: u32) -> Option<&str> {
        match self.vocabularies.get(vocabulary)? {
            Vocabulary::Keys { keys, .. } => {
                (row >= 1 && row as usize <= keys.len()).then(|| keys.text(row - 1))
            }
            _ => None,
        }
    }

    /// The row of a value in a vocabulary of texts; `None` if the vocabulary does not hold it.
    pub fn row(&self, vocabulary: &str, value: &str) -> Option<u32> {
        match self.vocabularies.get(vocabulary)? {
            Vocabulary::Keys { keys, .. } => keys.get(value).map(|id| id + 1),
            _ => None,
        }
    }

    /// How often the value behind `row` was seen in training, in a vocabulary of texts or of
    /// combinations.
    pub fn count(&self, vocabulary: &str, row: u32) -> Option<u64> {
        match self.vocabularies.get(vocabulary)? {
            Vocabulary::Keys { counts, .. } | Vocabulary::Combinations { counts, .. } => {
                counts.get((row as usize).checked_sub(1)?).copied()
            }
            Vocabulary::Indices { .. }
            | Vocabulary::Hashed { .. }
            | Vocabulary::Admitted { .. } => None,
        }
    }

    /// When the values of a vocabulary are given rows, if they are given them as they come.
    pub fn admit(&self, vocabulary: &str) -> Option<&AdmitConfig> {
        let mut fields = self.fields.iter().zip(&self.schema.fields);
        let found = fields.find(|(_, field)| field.vocabulary == vocabulary);
        found.and_then(|(fitted, _)| fitted.config.admit.as_ref())
    }

    /// The vocabularies whose values are given rows as they come, each with when they are.
    pub fn admitted(&self) -> BTreeMap<String, AdmitConfig> {
        let admit = |name: &String| Some((name.clone(), self.admit(name)?.clone()));
        self.vocabularies.keys().filter_map(admit).collect()
    }

    /// Whether an index of libsvm or libffm files has a row of its own in a vocabulary of such
    /// indices; the row's number is the index.
    pub fn has_own_row(&self, vocabulary: &str, index: u32) -> bool {
        matches!(
            self.vocabularies.get(vocabulary),
            Some(Vocabulary::Indices { seen, .. }) if seen.contains(index)
        )
    }

    /// What the data said where a field has the index `index` with the value `x`, for people to
    /// read: `item=a`, `tags=b × 0.5`, `age=38`, `age=[30, 40)`, `item=(unseen)`; of a cross
    /// `item=a & age=[30, 40)`, or its condition.
    ///
    /// A number is found again from its transformed value, to six significant digits.
    ///
    /// # Panics
    /// If the schema has no such field.
    pub fn name(&self, field: FieldId, index: u32, x: f32) -> String {
        let Some(fitted) = self.fields.get(field) else {
            return times(self.cross_name(field, index), x);
        };
        let Field {
            name,
            vocabulary,
            oov_row,
            ..
        } = &self.schema.fields[field];
        let value = match &fitted.transform {
            Transform::Standard { .. } if index == 1 => "(missing)".to_owned(),
            Transform::Standard {
                log,
                mean,
                deviation,
                ..
            } => {
                let number = f64::from(x) * deviation + mean;
                let number = if *log {
                    number.signum() * number.abs().exp_m1()
                } else {
                    number
                };
                return format!("{name}={}", six_digits(number));
            }
            Transform::Buckets { edges } => {
                let edge = |at: usize| six_digits(edges[at]);
                match index as usize {
                    missing if missing > edges.len() => "(missing)".to_owned(),
                    _ if edges.is_empty() => "(any)".to_owned(),
                    0 => return format!("{name}<{}", edge(0)),
                    last if last == edges.len() => return format!("{name}≥{}", edge(last - 1)),
                    at => format!("[{}, {})", edge(at - 1), edge(at)),
                }
            }
            Transform::None {} => match self.vocabularies.get(vocabulary) {
                Some(Vocabulary::Hashed { .. }) => format!("(hash {index})"),
                _ if *oov_row == Some(index) => "(unseen)".to_owned(),
                Some(Vocabulary::Admitted { .. }) => format!("(row {index})"),
                Some(Vocabulary::Keys { keys, .. }) => keys.text(index - 1).to_owned(),
                Some(Vocabulary::Indices { .. } | Vocabulary::Combinations { .. }) | None => {
                    index.to_string()
                }
            },
        };
        times(format!("{name}={value}"), x)
    }

    /// As [`name`](Self::name), of a cross.
    fn cross_name(&self, field: FieldId, index: u32) -> String {
        let name = &self.schema.fields[field].name;
        let members = match &self.crosses[field - self.fields.len()].rule {
            CrossRule::Condition { .. } => return name.clone(),
            CrossRule::Product { members } => members,
        };
        match self.vocabularies.get(name) {
            Some(Vocabulary::Combinations { tuples, .. }) if index > 0 => {
                self.combination(members, tuples.tuple(index - 1))
            }
            Some(Vocabulary::Hashed { .. }) => format!("{name}=(hash {index})"),
            _ => format!("{name}=(unseen)"),
        }
    }

    /// The features with these indices of these fields, together.
    fn combination(&self, members: &[FieldId], indices: &[u32]) -> String {
        let features = members.iter().zip(indices);
        let names = features.map(|(&field, &index)| self.name(field, index, 1.0));
        names.collect::<Vec<_>>().join(" & ")
    }

    /// What `index` stands for in a field whatever the value: its [`name`](Self::name), and the field
    /// alone where the index is that of a number, of which it has one for all values.
    ///
    /// # Panics
    /// If the schema has no such field.
    pub fn feature_name(&self, field: FieldId, index: u32) -> String {
        match self.fields.get(field).map(|fitted| &fitted.transform) {
            Some(Transform::Standard { .. }) if index == 0 => {
                self.schema.fields[field].name.clone()
            }
            _ => self.name(field, index, 1.0),
        }
    }

    /// The schema of libffm files for a model of libffm: its fields are `0` to `fields - 1`, its
    /// indices are rows from 0 to `features - 1`, and one row behind them is for larger ones.
    ///
    /// # Errors
    /// [`Error::Config`] for no fields or features, or more than such files may have.
    ///
    /// ```
    /// use crossfield_data::FittedSchema;
    ///
    /// let schema = FittedSchema::libffm(100, 3)?;
    /// assert_eq!(schema.schema().fields[2].name, "2");
    /// assert_eq!(schema.schema().fields[2].oov_row, Some(100));
    /// assert!(schema.has_own_row("index", 99) && !schema.has_own_row("index", 100));
    /// assert_eq!(schema.name(2, 7, 0.5), "2=7 × 0.5");
    /// # Ok::<(), crossfield_data::Error>(())
    /// ```
    pub fn libffm(features: u32, fields: u32) -> Result<Self, Error> {
        let most_fields = indexed::MAX_FIELD as u32 + 1;
        for (key, value, most) in [
            ("features", features, u32::MAX - 2),
            ("fields", fields, most_fields),
        ] {
            if !(1..=most).contains(&value) {
                return Err(Error::Config {
                    key: key.to_owned(),
                    value: value.to_string(),
                    expected: format!("1 to {most}"),
                });
            }
        }
        let rows = features + 1;
        let fitted = (0..fields as usize).map(|number| FittedField {
            config: indexed::default_field(Format::Libffm, number),
            transform: Transform::None {},
        });
        let fitted: Vec<FittedField> = fitted.collect();
        let field = |fitted: &FittedField| Field {
            name: fitted.config.name.clone(),
            kind: FieldKind::Bag,
            vocabulary: indexed::INDEX.to_owned(),
            rows,
            oov_row: Some(rows - 1),
        };
        let schema = Schema {
            fields: fitted.iter().map(field).collect(),
            dense: Vec::new(),
        };
        let seen = Bits::up_to(features - 1);
        let vocabulary = Vocabulary::Indices { seen, rows };
        Ok(Self {
            schema: Arc::new(schema),
            fields: fitted,
            crosses: Vec::new(),
            vocabularies: BTreeMap::from([(indexed::INDEX.to_owned(), vocabulary)]),
        })
    }

    /// A hash of the whole content: schemas that encode differently have different ones, so that
    /// a checkpoint can refuse a schema it was not trained with.
    pub fn fingerprint(&self) -> u64 {
        let saved = serde_json::to_vec(&self.saved()).expect("a schema is plain data");
        let mut hash = Fnv::default();
        hash.bytes(&saved);
        for vocabulary in self.vocabularies.values() {
            match vocabulary {
                Vocabulary::Keys { keys, counts } => {
                    for (key, count) in keys.iter().zip(counts) {
                        hash.bytes(&(key.len() as u64).to_le_bytes());
                        hash.bytes(key.as_bytes());
                        hash.bytes(&count.to_le_bytes());
                    }
                }
                Vocabulary::Combinations { tuples, counts } => {
                    for (tuple, count) in tuples.iter().zip(counts) {
                        tuple.iter().for_each(|row| hash.bytes(&row.to_le_bytes()));
                        hash.bytes(&count.to_le_bytes());
                    }
                }
                // All of them is in what is saved.
                Vocabulary::Indices { .. }
                | Vocabulary::Hashed { .. }
                | Vocabulary::Admitted { .. } => {}
            }
        }
        hash.0
    }

    fn saved(&self) -> Saved {
        let vocabularies = self.vocabularies.iter().map(|(name, vocabulary)| {
            let rows = vocabulary.rows();
            let saved = match vocabulary {
                Vocabulary::Keys { .. } => SavedVocabulary::Keys {
                    file: vocabulary_file(name),
                    rows,
                },
                Vocabulary::Indices { seen, .. } => SavedVocabulary::Indices {
                    rows,
                    seen: seen.runs(),
                },
                Vocabulary::Hashed { .. } => SavedVocabulary::Hashed { rows },
                Vocabulary::Admitted { .. } => SavedVocabulary::Admitted { rows },
                Vocabulary::Combinations { .. } => SavedVocabulary::Combinations {
                    file: vocabulary_file(name),
                    rows,
                },
            };
            (name.clone(), saved)
        });
        Saved {
            version: VERSION,
            schema: (*self.schema).clone(),
            fields: self.fields.clone(),
            crosses: self.crosses.clone(),
            vocabularies: vocabularies.collect(),
        }
    }

    /// Writes `schema.json` and `vocabularies/<name>.csv` below `directory`: key and count, or of a
    /// cross the row of each member, count and what they stand for; row 1 first. Each file is
    /// written beside its place and then renamed.
    ///
    /// # Errors
    /// [`Error::Write`] if a file cannot be written; what was there before stays.
    pub fn save(&self, directory: &Path) -> Result<(), Error> {
        let saved = self.saved();
        let folder = directory.join("vocabularies");
        fs::create_dir_all(&folder).map_err(|source| write_error(&folder, source))?;
        for (name, vocabulary) in &self.vocabularies {
            let path = directory.join(vocabulary_file(name));
            match vocabulary {
                Vocabulary::Keys { keys, counts } => write_beside(&path, |file| {
                    let mut writer = csv::Writer::from_writer(file);
                    writer.write_record(["key", "count"])?;
                    for (key, count) in keys.iter().zip(counts) {
                        writer.write_record([key, &count.to_string()])?;
                    }
                    writer.flush()
                })?,
                Vocabulary::Combinations { tuples, counts } => {
                    let members = self.members(name);
                    write_beside(&path, |file| {
                        let mut writer = csv::Writer::from_writer(file);
                        for &field in members {
                            writer.write_field(&self.schema.fields[field].name)?;
                        }
                        writer.write_record(["count", "combination"])?;
                        for (tuple, count) in tuples.iter().zip(counts) {
                            for row in tuple {
                                writer.write_field(row.to_string())?;
                            }
                            let combination = self.combination(members, tuple);
                            writer.write_record([count.to_string(), combination])?;
                        }
                        writer.flush()
                    })?;
                }
                Vocabulary::Indices { .. }
                | Vocabulary::Hashed { .. }
                | Vocabulary::Admitted { .. } => {}
            }
        }
        write_beside(&directory.join(SCHEMA_FILE), |file| {
            serde_json::to_writer_pretty(&mut *file, &saved)?;
            file.write_all(b"\n")
        })
    }

    /// The fields that the cross `name` combines.
    fn members(&self, name: &str) -> &[FieldId] {
        let cross = self.crosses.iter().find(|it| it.config.name() == name);
        match cross.map(|cross| &cross.rule) {
            Some(CrossRule::Product { members }) => members,
            _ => unreachable!("combinations are learned for crosses of fields"),
        }
    }

    /// Reads what [`save`](Self::save) wrote; the numbers come back to the bit.
    ///
    /// # Errors
    /// [`Error::Open`] if a file is missing, [`Error::Schema`] if one does not hold what was
    /// saved.
    pub fn load(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(SCHEMA_FILE);
        let file = path.display().to_string();
        let text = fs::read_to_string(&path).map_err(|source| Error::Open {
            file: file.clone(),
            source,
        })?;
        let wrong = |problem: String| Error::Schema {
            file: file.clone(),
            problem,
        };
        let saved: Saved = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if saved.version != VERSION {
            return Err(wrong(format!(
                "version {} instead of {VERSION}",
                saved.version
            )));
        }
        let mut vocabularies = BTreeMap::new();
        for (name, vocabulary) in saved.vocabularies {
            let (vocabulary, rows) = match vocabulary {
                SavedVocabulary::Keys { file, rows } => (load_keys(&directory.join(file))?, rows),
                SavedVocabulary::Indices { rows, seen } => {
                    let seen = Bits::from_runs(&seen, rows)
                        .ok_or_else(|| wrong(format!("vocabulary `{name}`: broken runs")))?;
                    (Vocabulary::Indices { seen, rows }, rows)
                }
                SavedVocabulary::Hashed { rows } => (Vocabulary::Hashed { rows }, rows),
                SavedVocabulary::Admitted { rows } => (Vocabulary::Admitted { rows }, rows),
                SavedVocabulary::Combinations { file, rows } => {
                    (load_combinations(&directory.join(file))?, rows)
                }
            };
            if vocabulary.rows() != rows || rows == 0 {
                let found = vocabulary.rows();
                return Err(wrong(format!(
                    "vocabulary `{name}` has {found} rows, not {rows}"
                )));
            }
            vocabularies.insert(name, vocabulary);
        }
        Self::checked(saved.schema, saved.fields, saved.crosses, vocabularies).map_err(wrong)
    }

    /// The parts of a schema put together, if they fit each other.
    pub(crate) fn checked(
        schema: Schema,
        fields: Vec<FittedField>,
        crosses: Vec<FittedCross>,
        vocabularies: BTreeMap<String, Vocabulary>,
    ) -> Result<Self, String> {
        if fields.len() + crosses.len() != schema.fields.len() {
            return Err("two numbers of fields".to_owned());
        }
        for (fitted, field) in fields.iter().zip(&schema.fields) {
            let rows = match &fitted.transform {
                Transform::None {} => vocabularies.get(&field.vocabulary).map(Vocabulary::rows),
                Transform::Standard { .. } => Some(2),
                Transform::Buckets { edges } => Some(edges.len() as u32 + 2),
            };
            if rows != Some(field.rows) || fitted.config.name != field.name {
                return Err(format!(
                    "field `{}` does not fit what encodes it",
                    field.name
                ));
            }
        }
        let columns = &schema.fields[..fields.len()];
        for (cross, field) in crosses.iter().zip(&schema.fields[fields.len()..]) {
            let vocabulary = vocabularies.get(&field.vocabulary);
            let fits = |member: FieldId, index: u32| {
                columns.get(member).is_some_and(|field| index < field.rows)
            };
            let fit = match (&cross.rule, vocabulary) {
                (CrossRule::Product { members }, Some(Vocabulary::Combinations { tuples, .. })) => {
                    (2..=MOST).contains(&members.len())
                        && tuples.width() == members.len()
                        && tuples.iter().all(|tuple| {
                            let mut each = members.iter().zip(tuple);
                            each.all(|(&member, &index)| fits(member, index))
                        })
                }
                (CrossRule::Product { members }, Some(Vocabulary::Hashed { .. })) => {
                    let mut each = members.iter();
                    each.all(|&member| fits(member, 0)) && (2..=MOST).contains(&members.len())
                }
                (CrossRule::Condition { all }, None) => {
                    let mut each = all.iter();
                    !all.is_empty() && each.all(|&(field, index)| fits(field, index.unwrap_or(0)))
                }
                _ => false,
            };
            let rows = vocabulary.map_or(1, Vocabulary::rows);
            if !fit || rows != field.rows || cross.config.name() != field.name {
                return Err(format!("cross `{}` does not fit its fields", field.name));
            }
        }
        Ok(Self {
            schema: Arc::new(schema),
            fields,
            crosses,
            vocabularies,
        })
    }
}

/// Compares what a run has learned of its data with the run's list of checksums; a schema that was
/// saved by itself has none.
fn verify(run: &Path) -> Result<(), Error> {
    if !run.join(Manifest::FILE).exists() {
        return Ok(());
    }
    let is_of_schema = |name: &str| name == SCHEMA_FILE || name.starts_with("vocabularies/");
    let manifest = Manifest::read(run)?;
    manifest.without(|name| !is_of_schema(name)).verify(run)
}

/// What has the value `x` where that is not 1.
fn times(text: String, x: f32) -> String {
    if x == 1.0 {
        text
    } else {
        format!("{text} × {}", six_digits(f64::from(x)))
    }
}

/// As few digits as needed, six significant ones at most.
fn six_digits(number: f64) -> String {
    let rounded: f64 = format!("{number:.5e}").parse().unwrap_or(number);
    rounded.to_string()
}

fn load_keys(path: &Path) -> Result<Vocabulary, Error> {
    let file = path.display().to_string();
    let opened = File::open(path).map_err(|source| Error::Open {
        file: file.clone(),
        source,
    })?;
    let wrong = |problem: String| Error::Schema {
        file: file.clone(),
        problem,
    };
    let mut reader = csv::Reader::from_reader(opened);
    let (mut keys, mut counts) = (Interner::default(), Vec::new());
    for (row, record) in reader.records().enumerate() {
        let record = record.map_err(|error| wrong(error.to_string()))?;
        let count = record.get(1).and_then(|count| count.parse().ok());
        let (Some(key), Some(count), 2) = (record.get(0), count, record.len()) else {
            return Err(wrong(format!("record {} is not `key,count`", row + 1)));
        };
        if (keys.intern(key) as usize) < row {
            return Err(wrong(format!("`{key}` stands twice")));
        }
        counts.push(count);
    }
    Ok(Vocabulary::Keys { keys, counts })
}

fn load_combinations(path: &Path) -> Result<Vocabulary, Error> {
    let file = path.display().to_string();
    let opened = File::open(path).map_err(|source| Error::Open {
        file: file.clone(),
        source,
    })?;
    let wrong = |problem: String| Error::Schema {
        file: file.clone(),
        problem,
    };
    let mut reader = csv::Reader::from_reader(opened);
    let headers = reader.headers().map_err(|error| wrong(error.to_string()))?;
    // Behind the members stand count and text.
    let width = headers.len().saturating_sub(2);
    let (mut rows, mut counts) = (Vec::new(), Vec::new());
    for (number, record) in reader.records().enumerate() {
        let record = record.map_err(|error| wrong(error.to_string()))?;
        let mut members = record.iter().take(width).map(str::parse::<u32>);
        let read = members.try_for_each(|row| row.map(|row| rows.push(row)));
        match (read, record.get(width).map(str::parse)) {
            (Ok(()), Some(Ok(count))) => counts.push(count),
            _ => {
                let number = number + 1;
                return Err(wrong(format!("record {number} is not rows and a count")));
            }
        }
    }
    let tuples = Tuples::from_numbers(width, &rows)
        .ok_or_else(|| wrong("a combination stands twice".to_owned()))?;
    Ok(Vocabulary::Combinations { tuples, counts })
}

/// Longest name of a file that is kept as it is; most file systems take 255 bytes.
const LONG_NAME: usize = 187;

/// The file of a vocabulary.
pub(crate) fn vocabulary_file(name: &str) -> String {
    format!("vocabularies/{}.csv", file_name(name))
}

/// A name of a file for any name. Bytes that some file system does not take are escaped, and the end
/// of a long name gives way to a hash of it.
///
/// ```
/// assert_eq!(crossfield_data::file_name("../a b"), "%2E.%2Fa%20b");
/// ```
pub fn file_name(name: &str) -> String {
    let mut file = String::new();
    for (position, byte) in name.bytes().enumerate() {
        match byte {
            b'.' if position == 0 => file.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                file.push(char::from(byte));
            }
            _ => file.push_str(&format!("%{byte:02X}")),
        }
    }
    if file.len() > LONG_NAME {
        file.truncate(LONG_NAME);
        file.push_str(&format!("~{:016x}", name_key(name)));
    }
    file
}

fn write_error(path: &Path, source: std::io::Error) -> Error {
    Error::Write {
        file: path.display().to_string(),
        source,
    }
}

/// Writes a file beside its place, then renames it.
fn write_beside(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<(), Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let written = File::create(beside).and_then(|file| {
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        fs::rename(beside, path)
    });
    written.map_err(|source| {
        // The old file, if any, is untouched; what is left of the new one is of no use.
        let _ = fs::remove_file(beside);
        write_error(path, source)
    })
}

struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(name_key(""))
    }
}

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 = crossfield_core::rng::fnv1a(self.0, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_from_their_runs() {
        let mut bits = Bits::default();
        for index in [2, 3, 64, 130] {
            bits.insert(index);
        }
        assert_eq!(bits.runs(), "2 2 60 1 65 1");
        assert_eq!(Bits::from_runs("2 2 60 1 65 1", 132), Some(bits.clone()));
        assert_eq!(Bits::from_runs("2 2 60 1 65 1", 131), None);
        assert_eq!((bits.count(), bits.largest()), (4, Some(130)));
        assert!(bits.contains(64) && !bits.contains(65) && !bits.contains(100_000));
        assert_eq!(Bits::default().runs(), "");
        for last in [0, 62, 63, 64, 130] {
            let all = Bits::up_to(last);
            assert_eq!(
                (all.count(), all.largest()),
                (u64::from(last) + 1, Some(last))
            );
        }
        assert_eq!(Bits::up_to(130).runs(), "0 131");
    }

    #[test]
    fn file_names_of_vocabularies_are_escaped() {
        assert_eq!(vocabulary_file("item"), "vocabularies/item.csv");
        assert_eq!(vocabulary_file("../a b"), "vocabularies/%2E.%2Fa%20b.csv");
        // Names that differ at their ends only have files that differ.
        let long = |end: &str| vocabulary_file(&format!("{}{end}", "은행".repeat(60)));
        assert!(long("a").len() < 240 && long("a") != long("b"));
    }
}
