//! From a run file's data sections to encoded data sets.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use crossfield_core::FieldKind;

use crate::cache;
use crate::config::{
    AdmitConfig, DataSpec, FieldConfig, Format, Pooling, SplitConfig, Unseen, expand,
};
use crate::cross;
use crate::dataset::Dataset;
use crate::error::{At, Error};
use crate::fit::{Distinct, Planned, encode, fit};
use crate::indexed;
#[cfg(feature = "parquet")]
use crate::parquet;
use crate::raw::{Column, LabelKind, Labels, Read, SequenceCheck, Spec, Table};
use crate::report::{DataReport, PartReport};
use crate::schema::FittedSchema;
use crate::split::{self, Wanted, split};
use crate::synth::generate;
use crate::tabular::{self, Beside, Rows, Side};

/// Data sets ready to train on, and what was learned to encode them.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Vocabularies and transforms, learned from the training part.
    pub schema: FittedSchema,
    /// Training rows.
    pub train: Dataset,
    /// Validation rows, if there is a file or a split for them.
    pub valid: Option<Dataset>,
    /// Test rows, if there is a file or a split for them.
    pub test: Option<Dataset>,
    /// What a person wants to know about them.
    pub report: DataReport,
}

/// Rows that are generated instead of read, as text cells like those of a csv file.
pub trait Generated {
    /// What messages call it in place of a file name.
    fn name(&self) -> &str;
    /// The names of the columns.
    fn header(&self) -> &[&str];
    /// Number of rows.
    fn rows(&self) -> usize;
    /// Replaces `cells` by those of `row`.
    fn record(&self, row: usize, cells: &mut Vec<String>);
    /// The true probability of a positive label in `row`.
    fn probability(&self, row: usize) -> f32;
}

/// Which columns to keep for which field.
pub(crate) struct Plan {
    pub(crate) specs: Vec<Spec>,
    pub(crate) n_dicts: usize,
    pub(crate) fields: Vec<Planned>,
    pub(crate) checks: Vec<SequenceCheck>,
    time: Option<usize>,
    user: Option<usize>,
}

pub(crate) fn config_error(
    key: impl Into<String>,
    value: impl Into<String>,
    expected: &str,
) -> Error {
    Error::Config {
        key: key.into(),
        value: value.into(),
        expected: expected.to_owned(),
    }
}

impl Plan {
    /// `spec` is complete.
    pub(crate) fn new(spec: &DataSpec, split: Option<&SplitConfig>) -> Result<Self, Error> {
        let mut plan = Self {
            specs: Vec::new(),
            n_dicts: 0,
            fields: Vec::new(),
            checks: Vec::new(),
            time: None,
            user: None,
        };
        let format = spec.data.format;
        let mut vocabularies = BTreeMap::<String, &FieldConfig>::new();
        let mut dicts = BTreeMap::<String, usize>::new();
        for (position, field) in spec.field.iter().enumerate() {
            if field.name.is_empty() {
                let expected = "a name for each field";
                return Err(config_error(
                    format!("field {}: name", position + 1),
                    "\"\"",
                    expected,
                ));
            }
            if spec.field[..position]
                .iter()
                .any(|other| other.name == field.name)
            {
                return Err(config_error("field: name", &field.name, "each name once"));
            }
            field.check(format)?;
            let vocabulary = field.vocabulary.as_deref().unwrap_or(&field.name);
            if let Some(first) = vocabularies.get(vocabulary) {
                check_sharing(vocabulary, first, field)?;
            } else {
                vocabularies.insert(vocabulary.to_owned(), field);
            }
            let wanted_by = format!("field `{}`", field.name);
            let mut dict = || {
                let next = dicts.len();
                *dicts.entry(vocabulary.to_owned()).or_insert(next)
            };
            let pooling = field.pooling.unwrap_or_default();
            let (read, dict) = match field.kind {
                _ if format.is_indexed() => (Read::Indices { pooling }, None),
                FieldKind::Categorical => {
                    let dict = dict();
                    (Read::Text { dict }, Some(dict))
                }
                FieldKind::Hashed => (Read::Hash, None),
                FieldKind::Cross => unreachable!("no column is a cross: fields are checked"),
                FieldKind::Numeric => (Read::Number { required: false }, None),
                FieldKind::Bag if field.columns.is_some() => {
                    let dict = dict();
                    (Read::Flags { dict, pooling }, Some(dict))
                }
                FieldKind::Sequence if field.columns.is_some() => {
                    let dict = dict();
                    let read = Read::Columns {
                        dict,
                        padding: field.padding.clone(),
                        max_len: field.max_len.unwrap_or(0) as usize,
                    };
                    (read, Some(dict))
                }
                FieldKind::Bag | FieldKind::Sequence => {
                    let dict = dict();
                    let read = Read::List {
                        dict,
                        delimiter: field.delimiter.clone().unwrap_or_default(),
                        weight_delimiter: field.weight_delimiter.clone(),
                        pooling: if field.kind == FieldKind::Bag {
                            pooling
                        } else {
                            Pooling::Sum
                        },
                        max_len: field.max_len.unwrap_or(0) as usize,
                    };
                    (read, Some(dict))
                }
            };
            let columns = match (&field.columns, &field.column) {
                (Some(columns), _) => columns.clone(),
                (None, column) => vec![column.clone().unwrap_or_else(|| field.name.clone())],
            };
            let column = plan.keep(Spec {
                columns,
                read,
                wanted_by,
            });
            plan.fields.push(Planned {
                config: field.clone(),
                column,
                dict,
            });
        }
        plan.n_dicts = dicts.len();
        for field in &plan.fields {
            if field.config.kind == FieldKind::Sequence {
                plan.checks.push(sequence_check(field, &plan.fields)?);
            }
        }
        let (user, time) = match split {
            Some(SplitConfig::Time { column, .. }) => (None, Some(column)),
            Some(SplitConfig::LeaveLast { user, time, .. }) => (Some(user), Some(time)),
            _ => (None, None),
        };
        if format.is_indexed() {
            let name = if format == Format::Libsvm {
                "libsvm"
            } else {
                "libffm"
            };
            for (key, column) in [
                ("data.split", time),
                ("label.weight", spec.label.weight.as_ref()),
                ("label.group", spec.label.group.as_ref()),
            ] {
                if let Some(column) = column {
                    let expected = format!("no column by name in a {name} file");
                    return Err(config_error(key, column, &expected));
                }
            }
            for (key, set) in [
                ("data.separator", spec.data.separator.is_some()),
                ("data.header", spec.data.header.is_some()),
                ("data.join", !spec.data.join.is_empty()),
                ("label.only_positive", spec.label.only_positive),
            ] {
                if set {
                    return Err(config_error(
                        key,
                        "(set)",
                        &format!("no such key with {name}"),
                    ));
                }
            }
            return Ok(plan);
        }
        if spec.data.unseen == Unseen::Own {
            let expected = "\"shared\": only in libsvm and libffm files is an index a row";
            return Err(config_error("data.unseen", "own", expected));
        }
        if spec.field.is_empty() {
            return Err(config_error("field", "(none)", "at least one [[field]]"));
        }
        plan.time = time.map(|column| {
            plan.keep(Spec {
                columns: vec![column.clone()],
                read: Read::Number { required: true },
                wanted_by: "data.split".to_owned(),
            })
        });
        if let Some(user) = user {
            let dict = plan.n_dicts;
            plan.n_dicts += 1;
            plan.user = Some(plan.keep(Spec {
                columns: vec![user.clone()],
                read: Read::Text { dict },
                wanted_by: "data.split".to_owned(),
            }));
        }
        Ok(plan)
    }

    /// Takes the fields that the train files have, where the run file names none.
    pub(crate) fn take_fields(
        &mut self,
        columns: &mut indexed::Columns,
        spec: &DataSpec,
    ) -> Result<(), Error> {
        columns.close();
        for (number, column) in columns.numbers() {
            self.fields.push(Planned {
                config: indexed::default_field(spec.data.format, number),
                column,
                dict: None,
            });
        }
        self.check_crosses(spec)
    }

    /// Whether the crosses of `spec` can be made of the fields.
    pub(crate) fn check_crosses(&self, spec: &DataSpec) -> Result<(), Error> {
        let fields: Vec<_> = self.fields.iter().map(|field| &field.config).collect();
        cross::check(&spec.cross, &fields)
    }

    /// The column for `spec`; one that is kept already if it reads the same.
    fn keep(&mut self, spec: Spec) -> usize {
        let same = |kept: &Spec| kept.columns == spec.columns && kept.read == spec.read;
        self.specs.iter().position(same).unwrap_or_else(|| {
            self.specs.push(spec);
            self.specs.len() - 1
        })
    }
}

/// What must hold of a sequence among `fields`.
fn sequence_check(field: &Planned, fields: &[Planned]) -> Result<SequenceCheck, Error> {
    let config = &field.config;
    let find = |name: &str| fields.iter().find(|field| field.config.name == name);
    let key = |key: &str| format!("field `{}`: {key}", config.name);
    let mut check = SequenceCheck {
        field: config.name.clone(),
        sequence: field.column,
        target: None,
        times: config
            .times
            .clone()
            .zip(config.time.clone())
            .map(<[_; 2]>::from),
        beside: None,
    };
    if let Some(name) = &config.target {
        let fits = |other: &&Planned| {
            other.config.kind == FieldKind::Categorical && other.dict == field.dict
        };
        let Some(target) = find(name).filter(fits) else {
            let expected = format!(
                "a categorical field of the vocabulary `{}`",
                field.vocabulary()
            );
            return Err(config_error(key("target"), name, &expected));
        };
        check.target = (config.repeats != Some(true)).then_some(target.column);
    }
    if let Some(name) = &config.beside {
        let fits = |other: &&Planned| {
            other.config.kind == FieldKind::Sequence && other.config.name != config.name
        };
        let Some(other) = find(name).filter(fits) else {
            return Err(config_error(
                key("beside"),
                name,
                "another field of kind sequence",
            ));
        };
        if other.config.max_len != config.max_len {
            let max_len = other.config.max_len.unwrap_or(0);
            let expected = format!("{max_len} as in field `{name}`, beside which it is");
            let value = config.max_len.unwrap_or(0).to_string();
            return Err(config_error(key("max_len"), value, &expected));
        }
        check.beside = Some((other.column, name.clone()));
    }
    Ok(check)
}

/// Whether two fields can share a vocabulary.
fn check_sharing(vocabulary: &str, first: &FieldConfig, field: &FieldConfig) -> Result<(), Error> {
    let key = |key: &str| format!("field `{}`: {key}", field.name);
    let (a, b) = (first.kind, field.kind);
    let learned = |kind| {
        matches!(
            kind,
            FieldKind::Categorical | FieldKind::Bag | FieldKind::Sequence
        )
    };
    if !(learned(a) && learned(b) || a == FieldKind::Hashed && b == FieldKind::Hashed) {
        let expected = format!(
            "a vocabulary of its own: kind {} cannot share one with `{}` of kind {}",
            b.name(),
            first.name,
            a.name()
        );
        return Err(config_error(key("vocabulary"), vocabulary, &expected));
    }
    for (name, first_value, value) in [
        ("min_count", first.min_count, field.min_count),
        (
            "hash_rows",
            first.hash_rows.map(u64::from),
            field.hash_rows.map(u64::from),
        ),
    ] {
        if first_value != value {
            let shown = |value: Option<u64>| value.map_or("none".to_owned(), |it| it.to_string());
            let expected = format!(
                "{} as in field `{}`, which shares the vocabulary `{vocabulary}`",
                shown(first_value),
                first.name
            );
            return Err(config_error(key(name), shown(value), &expected));
        }
    }
    if first.admit != field.admit {
        let shown = |admit: &Option<AdmitConfig>| {
            let admit = admit.as_ref();
            admit.map_or("none".to_owned(), AdmitConfig::to_string)
        };
        let expected = format!(
            "{} as in field `{}`, which shares the vocabulary `{vocabulary}`",
            shown(&first.admit),
            first.name
        );
        return Err(config_error(key("admit"), shown(&field.admit), &expected));
    }
    Ok(())
}

/// What reads files into a table, whatever their format.
pub(crate) struct Reader<'a> {
    spec: &'a DataSpec,
    sides: Vec<Side>,
    pub(crate) columns: indexed::Columns,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(spec: &'a DataSpec, plan: &Plan, file: &str) -> Result<Self, Error> {
        let data = &spec.data;
        if data.max_index > u64::from(u32::MAX - 2) {
            let expected = "at most 4294967293 (indices are 32 bits)";
            return Err(config_error(
                "data.max_index",
                data.max_index.to_string(),
                expected,
            ));
        }
        let columns = if spec.field.is_empty() {
            indexed::Columns::open()
        } else if data.format.is_indexed() {
            indexed::Columns::declared(data.format, &plan.specs, file)?
        } else {
            indexed::Columns::default()
        };
        let sides = data.join.iter().map(|join| Side::open(join, data));
        Ok(Self {
            spec,
            sides: sides.collect::<Result<_, _>>()?,
            columns,
        })
    }

    /// From now on, a field of an indexed file that training lacks is an error.
    pub(crate) fn close(&mut self) {
        self.columns.close();
    }

    /// Reads files into `table`; `after` is called after each record, of a Parquet file after some
    /// thousand.
    pub(crate) fn read(
        &mut self,
        table: &mut Table,
        files: &[String],
        after: &mut dyn FnMut(&mut Table) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let units = self.units(table, files)?;
        self.read_units(table, &units, 0, after)
    }

    /// What of `files` is read as a whole, in their order. Parquet files are opened, and their columns
    /// found.
    pub(crate) fn units(&self, table: &Table, files: &[String]) -> Result<Vec<Unit>, Error> {
        let _ = table;
        #[cfg(feature = "parquet")]
        if self.spec.data.format == Format::Parquet {
            return parquet::open(table, files);
        }
        Ok(files.iter().cloned().map(Unit::File).collect())
    }

    /// As [`read`](Self::read), without the first `skip` records, which are passed over as cheaply as
    /// can be. [`Table::full_at`] is kept to.
    pub(crate) fn read_units<E: From<Error>>(
        &mut self,
        table: &mut Table,
        units: &[Unit],
        mut skip: u64,
        after: &mut dyn FnMut(&mut Table) -> Result<(), E>,
    ) -> Result<(), E> {
        #[cfg(feature = "parquet")]
        if self.spec.data.format == Format::Parquet {
            return parquet::read(table, units, skip, after);
        }
        let (data, skip) = (&self.spec.data, &mut skip);
        for unit in units {
            match unit {
                Unit::File(file) if data.format.is_indexed() => {
                    indexed::read(table, &mut self.columns, file, data, skip, after)?;
                }
                Unit::File(file) => tabular::read(table, file, data, &self.sides, skip, after)?,
                #[cfg(feature = "parquet")]
                Unit::RowGroup(_) => unreachable!("text files have no row groups"),
            }
        }
        Ok(())
    }
}

/// What is read as a whole, and shuffled among others of its kind.
#[derive(Clone)]
pub(crate) enum Unit {
    /// A text file.
    File(String),
    /// A row group of a Parquet file.
    #[cfg(feature = "parquet")]
    RowGroup(parquet::RowGroup),
}

/// The files that `files` name: variables are replaced, and patterns stand for what they match.
pub(crate) fn expanded(files: &[String]) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for file in files {
        all.extend(matching(expand(file)?)?);
    }
    Ok(all)
}

/// The files that match `pattern`, sorted; `pattern` itself if it is none, or there is such a file.
fn matching(pattern: String) -> Result<Vec<String>, Error> {
    if !pattern.contains(['*', '?', '[']) || Path::new(&pattern).exists() {
        return Ok(vec![pattern]);
    }
    let fail = |problem: String, expected| Error::Pattern {
        pattern: pattern.clone(),
        problem,
        expected,
    };
    let hidden_are_named = glob::MatchOptions {
        require_literal_leading_dot: true,
        ..glob::MatchOptions::new()
    };
    let paths = glob::glob_with(&pattern, hidden_are_named)
        .map_err(|error| fail(error.to_string(), "a pattern of `*`, `?` and `[…]`"))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|error| fail(error.to_string(), "folders that can be read"))?;
        if !path.is_dir() {
            let path = path.into_os_string().into_string();
            files.push(path.map_err(|path| {
                let problem = format!("it matches {}", path.display());
                fail(problem, "names of files in UTF-8")
            })?);
        }
    }
    if files.is_empty() {
        return Err(fail("no file matches".to_owned(), "at least one"));
    }
    files.sort_unstable();
    Ok(files)
}

/// Reads, splits, learns and encodes the data that `spec` describes. `seed` decides random
/// splits; `label` follows from the loss.
///
/// With `data.cache`, all that comes out of it is kept in that folder; as long as neither the
/// description nor the files change, later calls map what is there and read no text.
/// [`DataReport::cache`] says what was done.
///
/// # Errors
/// [`Error`] for anything that is wrong with the description or the files, with its place;
/// [`Error::Write`] if the cache cannot be written.
pub fn prepare(spec: &DataSpec, seed: u64, label: LabelKind) -> Result<Prepared, Error> {
    if spec.data.format == Format::Synth {
        let log = generate(&spec.data.synth.clone().unwrap_or_default())?;
        return prepare_generated(spec, seed, label, &log);
    }
    check_cached(spec)?;
    let mut prepared = match &spec.data.cache {
        Some(folder) => cache::through(folder, spec, seed, label, |place| {
            cache::save(place, &assemble(spec, seed, label, None)?)
        })?,
        None => assemble(spec, seed, label, None)?,
    };
    prepared.train.shuffle_block = spec.data.shuffle_block;
    prepared.train.in_order = spec.data.in_order;
    Ok(prepared)
}

/// Refuses a cache of what cannot be kept in one.
pub(crate) fn check_cached(spec: &DataSpec) -> Result<(), Error> {
    let admitted = spec.field.iter().find(|field| field.admit.is_some());
    match (&spec.data.cache, admitted) {
        (Some(folder), Some(field)) => {
            let name = &field.name;
            let expected = format!("no cache beside `admit` of field `{name}`: leave one out");
            Err(config_error("data.cache", folder, &expected))
        }
        _ => Ok(()),
    }
}

/// As [`prepare`], with the rows of `log` in place of train files. The true probabilities go with
/// the rows.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_generated(
    spec: &DataSpec,
    seed: u64,
    label: LabelKind,
    log: &dyn Generated,
) -> Result<Prepared, Error> {
    if let Some(folder) = &spec.data.cache {
        let expected = "no cache of generated rows: they have no file to check it against";
        return Err(config_error("data.cache", folder, expected));
    }
    let mut prepared = assemble(spec, seed, label, Some(log))?;
    prepared.train.shuffle_block = spec.data.shuffle_block;
    prepared.train.in_order = spec.data.in_order;
    Ok(prepared)
}

fn assemble(
    spec: &DataSpec,
    seed: u64,
    label: LabelKind,
    log: Option<&dyn Generated>,
) -> Result<Prepared, Error> {
    spec.check_negatives(label)?;
    spec.data.check_parquet()?;
    let mut spec = spec.complete();
    let before = FittedSchema::continued(&spec)?;
    let names_fields = spec.field.is_empty();
    if let Some(before) = &before
        && names_fields
    {
        spec.field = before.field_configs().cloned().collect();
    }
    let split_config = spec.data.split.as_ref();
    let mut plan = Plan::new(&spec, split_config)?;
    // Where the files name the fields, they are read first.
    if !spec.field.is_empty() {
        plan.check_crosses(&spec)?;
    }
    let files = [&spec.data.train, &spec.data.valid, &spec.data.test].map(|files| expanded(files));
    let [train_files, valid_files, test_files] = files;
    let (mut train_files, valid_files, test_files) = (train_files?, valid_files?, test_files?);
    let mut table = Table::new(
        plan.specs.clone(),
        plan.checks.clone(),
        plan.n_dicts,
        &spec.label,
        label,
        &spec.data.missing,
        Labels::Required,
    )?;
    if let Some(log) = log {
        if !train_files.is_empty() || !valid_files.is_empty() || !test_files.is_empty() {
            let expected = "no files beside generated data";
            return Err(config_error("data.train", "(set)", expected));
        }
        train_files = vec![log.name().to_owned()];
    } else if train_files.is_empty() {
        return Err(config_error("data.train", "(not set)", "at least one file"));
    }
    let mut reader = Reader::new(&spec, &plan, &train_files[0])?;
    if before.is_some() && names_fields {
        reader.columns.close();
    }
    let mut probabilities = None;
    match log {
        Some(log) => probabilities = Some(push_generated(&mut table, log)?),
        None => reader.read(&mut table, &train_files, &mut |_| Ok(()))?,
    }
    let train_rows = table.rows;
    if train_rows == 0 {
        let expected = "at least one row whose label is not 0";
        return Err(config_error("label.only_positive", "true", expected));
    }
    if spec.field.is_empty() {
        plan.take_fields(&mut reader.columns, &spec)?;
    }
    reader.read(&mut table, &valid_files, &mut |_| Ok(()))?;
    let valid_end = table.rows;
    reader.read(&mut table, &test_files, &mut |_| Ok(()))?;
    let left_out = table.left_out;
    let time = plan.time.map(|column| match &table.columns[column] {
        Column::Number(numbers) => numbers.as_slice(),
        _ => unreachable!("the time of a split is read as a number"),
    });
    let user = plan.user.map(|column| match &table.columns[column] {
        Column::Text(ids) => ids.as_slice(),
        _ => unreachable!("the user of a split is read as text"),
    });
    let wanted = Wanted {
        valid: valid_files.is_empty(),
        test: test_files.is_empty(),
    };
    let mut parts = split(
        split_config,
        train_rows,
        split::Columns { time, user },
        wanted,
        seed,
    )?;
    let negatives = split::keep_negatives(
        &mut parts.train,
        &table.labels,
        spec.data.keep_negatives,
        seed,
    )?;
    parts.valid.extend(train_rows as u32..valid_end as u32);
    parts.test.extend(valid_end as u32..table.rows as u32);
    let mut schema = fit(
        &table,
        &plan.fields,
        &parts.train,
        spec.data.unseen,
        before.as_ref(),
    )?;
    // What is not of a file of its own is of the train files.
    let mut named = vec![("train", parts.train.as_slice(), &train_files, false)];
    for (name, rows, files) in [
        ("valid", &parts.valid, &valid_files),
        ("test", &parts.test, &test_files),
    ] {
        if !rows.is_empty() {
            let own = !files.is_empty();
            named.push((name, rows, if own { files } else { &train_files }, own));
        }
    }
    let rows: Vec<_> = named
        .iter()
        .map(|(name, rows, ..)| (*name, *rows))
        .collect();
    let (mut encoded, fields) = encode(table, &plan.fields, &schema, &rows, Distinct::Counted)?;
    let crosses = cross::learn(
        &spec.cross,
        &mut schema,
        before.as_ref(),
        &mut encoded.parts,
    )?;
    let datasets = encoded.into_datasets(&schema.schema, &rows, probabilities.as_deref());
    let part_reports = named
        .iter()
        .zip(&datasets)
        .map(|((name, rows, files, _), dataset)| PartReport {
            name: (*name).to_owned(),
            files: files.to_vec(),
            rows: Some(rows.len()),
            label_mean: dataset.label_mean(),
        });
    let report = DataReport {
        parts: part_reports.collect(),
        fields,
        crosses,
        left_out,
        negatives,
        cache: None,
    };
    let held_out: Vec<_> = named[1..]
        .iter()
        .map(|&(name, .., own)| (name, own))
        .collect();
    let mut datasets = datasets.into_iter();
    let mut train = datasets
        .next()
        .expect("the training part is always encoded");
    train.negative_rate = spec.negative_rate();
    let (mut valid, mut test) = (None, None);
    for ((name, own), mut dataset) in held_out.into_iter().zip(datasets) {
        // Files of their own hold all rows of the traffic.
        if !own {
            dataset.negative_rate = spec.label.negative_rate;
        }
        *(if name == "valid" {
            &mut valid
        } else {
            &mut test
        }) = Some(dataset);
    }
    Ok(Prepared {
        schema,
        train,
        valid,
        test,
        report,
    })
}

fn push_generated(table: &mut Table, log: &dyn Generated) -> Result<Vec<f32>, Error> {
    let binding = table.bind(log.name(), log.header())?;
    let mut record = Vec::new();
    let mut probabilities = Vec::with_capacity(log.rows());
    for row in 0..log.rows() {
        log.record(row, &mut record);
        let cells: Vec<&str> = record.iter().map(String::as_str).collect();
        let at = At::line(log.name(), row as u64 + 1);
        if cells.len() != log.header().len() {
            let (file, found) = (log.name().to_owned(), cells.len());
            let expected = log.header().len();
            return Err(Error::ColumnCount {
                file,
                line: at.number(),
                found,
                expected,
            });
        }
        table.push(&cells, &binding, at)?;
        probabilities.push(log.probability(row));
    }
    if probabilities.is_empty() {
        let file = log.name().to_owned();
        return Err(Error::Empty {
            file,
            expected: "at least one record",
        });
    }
    Ok(probabilities)
}

/// What encodes new rows with a schema that was learned before.
pub(crate) struct Encoder<'a> {
    described: DataSpec,
    schema: &'a FittedSchema,
    label: LabelKind,
    labels: Labels,
    plan: Plan,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(
        spec: &DataSpec,
        schema: &'a FittedSchema,
        label: LabelKind,
        labels: Labels,
    ) -> Result<Self, Error> {
        let mut described = spec.clone();
        described.field = schema.field_configs().cloned().collect();
        // What must hold of a history is the files' matter: what was learned does not depend on it.
        for field in &mut described.field {
            if let Some(of) = spec.field.iter().find(|of| of.name == field.name) {
                field.target = of.target.clone();
                field.repeats = of.repeats;
                field.times = of.times.clone();
                field.time = of.time.clone();
                field.beside = of.beside.clone();
            }
        }
        described.data.check_parquet()?;
        let described = described.complete();
        Ok(Self {
            plan: Plan::new(&described, None)?,
            described,
            schema,
            label,
            labels,
        })
    }

    /// What the rows are read by: the description of the files, and which columns to keep.
    pub(crate) fn described(&self) -> &DataSpec {
        &self.described
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A table without rows, to be read into.
    pub(crate) fn table(&self) -> Result<Table, Error> {
        Table::new(
            self.plan.specs.clone(),
            self.plan.checks.clone(),
            self.plan.n_dicts,
            &self.described.label,
            self.label,
            &self.described.data.missing,
            self.labels,
        )
    }

    /// The rows that `read` reads, in their order.
    fn encode(&self, read: impl FnOnce(&mut Table) -> Result<(), Error>) -> Result<Dataset, Error> {
        let mut table = self.table()?;
        read(&mut table)?;
        self.encoded(table)
    }

    /// The rows of a table, in their order.
    pub(crate) fn encoded(&self, table: Table) -> Result<Dataset, Error> {
        let rows: Vec<u32> = (0..table.rows as u32).collect();
        let parts = [("encoded", rows.as_slice())];
        let (mut encoded, _) = encode(
            table,
            &self.plan.fields,
            self.schema,
            &parts,
            Distinct::LeftOut,
        )?;
        for (part, columns) in &mut encoded.parts {
            cross::encode(self.schema, part, columns, &mut |_, _| {})?;
        }
        let datasets = encoded.into_datasets(&self.schema.schema, &parts, None);
        Ok(datasets.into_iter().next().expect("one part was encoded"))
    }
}

/// Encodes files with a schema that was learned before: its fields are read, as `spec` describes
/// the files. Rows keep the order of the files.
///
/// # Errors
/// As [`prepare`]. With [`Labels::Optional`], files may lack the columns of labels, weights and
/// groups.
pub fn encode_files(
    spec: &DataSpec,
    schema: &FittedSchema,
    files: &[String],
    label: LabelKind,
    labels: Labels,
) -> Result<Dataset, Error> {
    let encoder = Encoder::new(spec, schema, label, labels)?;
    let files = expanded(files)?;
    let Some(first) = files.first() else {
        return Err(config_error("files", "(none)", "at least one file"));
    };
    let mut reader = Reader::new(&encoder.described, &encoder.plan, first)?;
    if spec.field.is_empty() {
        reader.columns.close();
    }
    encoder.encode(|table| reader.read(table, &files, &mut |_| Ok(())))
}

/// Candidates, each beside every context: rows whose columns stand in two files.
///
/// Both files are csv as the files of `spec` are, and begin with a line that names their columns.
/// They are held in memory; rows are encoded a context at a time.
///
/// ```
/// use crossfield_data::{Candidates, DataSpec, FieldConfig, LabelKind, prepare};
///
/// let folder = tempfile::tempdir()?;
/// let write = |name: &str, text: &str| {
///     let file = folder.path().join(name);
///     std::fs::write(&file, text).map(|()| file.display().to_string())
/// };
/// let mut spec = DataSpec::default();
/// spec.data.train = vec![write("a.csv", "label,user,ad\n1,u,x\n0,v,y\n")?];
/// let field = |name: &str| FieldConfig { name: name.into(), ..FieldConfig::default() };
/// spec.field = vec![field("user"), field("ad")];
/// let schema = prepare(&spec, 1, LabelKind::Binary)?.schema;
/// let (context, ads) = (write("f.csv", "user\nv\n")?, write("g.csv", "ad\nx\ny\n")?);
/// let candidates = Candidates::open(&spec, &schema, &context, &ads, LabelKind::Binary)?;
/// let rows = candidates.encode(0)?;
/// assert_eq!(rows.examples().one_hot_of(0), [2, 1]);
/// assert_eq!(rows.examples().one_hot_of(1), [2, 2]);
/// assert_eq!(candidates.cells(1).collect::<Vec<_>>(), ["y"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Candidates<'a> {
    encoder: Encoder<'a>,
    sides: Vec<Side>,
    contexts: Rows,
    rows: Rows,
}

impl<'a> Candidates<'a> {
    /// Reads both files.
    ///
    /// # Errors
    /// As [`encode_files`], for the contexts; [`Error::Config`] for a format whose files have no
    /// columns, [`Error::DuplicateColumn`] for one that stands in both files.
    pub fn open(
        spec: &DataSpec,
        schema: &'a FittedSchema,
        contexts: &str,
        candidates: &str,
        label: LabelKind,
    ) -> Result<Self, Error> {
        let no_csv = match spec.data.format {
            Format::Libsvm => Some("libsvm"),
            Format::Libffm => Some("libffm"),
            Format::Parquet => Some("parquet"),
            Format::Csv | Format::Ratings | Format::Synth => None,
        };
        if let Some(format) = no_csv {
            return Err(config_error(
                "data.format",
                format,
                "csv or ratings to put contexts and candidates together by their columns; write \
                 whole rows for `predict`",
            ));
        }
        let mut spec = spec.clone();
        // A candidate is a candidate whatever its label, should there be one.
        spec.label.only_positive = false;
        let encoder = Encoder::new(&spec, schema, label, Labels::Optional)?;
        let data = &encoder.described.data;
        let sides = data.join.iter().map(|join| Side::open(join, data));
        let opened = Self {
            sides: sides.collect::<Result<_, _>>()?,
            contexts: Rows::open(&expand(contexts)?, data)?,
            rows: Rows::open(&expand(candidates)?, data)?,
            encoder,
        };
        // What is wrong with any context shows before the first is ranked.
        opened.rows_of(0..opened.contexts(), 0..1)?;
        Ok(opened)
    }

    /// Number of contexts, at least one.
    pub fn contexts(&self) -> usize {
        self.contexts.len()
    }

    /// The cells of a candidate as they stand in its file.
    ///
    /// # Panics
    /// If there is no such candidate.
    pub fn cells(&self, candidate: usize) -> impl Iterator<Item = &str> {
        self.rows.cells(candidate)
    }

    /// All candidates beside one context, in the order of their file.
    ///
    /// # Errors
    /// [`Error::Value`], [`Error::JoinKey`] for what is wrong with a candidate, with its place.
    ///
    /// # Panics
    /// If there is no such context.
    pub fn encode(&self, context: usize) -> Result<Dataset, Error> {
        self.rows_of(context..context + 1, 0..self.rows.len())
    }

    fn rows_of(&self, contexts: Range<usize>, candidates: Range<usize>) -> Result<Dataset, Error> {
        let beside = Beside::new(&self.contexts, &self.rows)?;
        self.encoder
            .encode(|table| beside.read(table, contexts, candidates, &self.sides))
    }
}
