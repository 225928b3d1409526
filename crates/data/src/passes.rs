//! As [`prepare`](mod@crate::prepare), in passes over the files, a block of rows at a time: memory does
//! not grow with the files.
//!
//! 1. Learn: count keys, see numbers and indices, and how long lists are.
//! 2. Deviations of numbers from the mean that is known then.
//! 3. How long the lists of crosses are.
//! 4. Encode, and write the cache.
//!
//! A pass that nothing needs is left out.

use std::collections::BTreeMap;
use std::rc::Rc;

use crossfield_core::rng::{Purpose, name_key, rng};
use crossfield_core::{FieldKind, Jagged};
use rand::Rng;

use crate::cache::{self, ListShape, PartShape, Place, Writer};
use crate::config::{
    Buckets, DataConfig, DataSpec, FieldConfig, Format, SplitConfig, TransformKind,
};
use crate::count::{Counter, Spills};
use crate::cross::{self, IN_MEMORY};
use crate::dataset::{Dataset, LabelMean};
use crate::error::Error;
use crate::fit::{
    Distinct, Encoded, Moments, Planned, Seen, bucket_edges, encode, fitted, hashed_row, indices,
    quantiles,
};
use crate::intern::{Interner, tuple_key};
use crate::prepare::{Plan, Prepared, Reader, check_cached, config_error, expanded};
use crate::raw::{Column, LabelKind, Labels, Table};
use crate::report::{CrossReport, DataReport, FieldReport, PartReport};
use crate::schema::{Bits, FittedSchema, Transform, Vocabulary};

/// How far the passes over the files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The pass, from 1.
    pub pass: usize,
    /// How many there will be.
    pub passes: usize,
    /// Rows of this pass that were read.
    pub rows: u64,
}

const PARTS: [&str; 3] = ["train", "valid", "test"];

/// Most fields of a vocabulary: each has a bit.
const MOST_FIELDS: usize = 64;

/// As [`prepare`](crate::prepare()) with `data.cache`, but where the cache is built, rows are read in
/// passes, `data.block_rows` at a time, with `data.memory` for what is counted: memory does not grow
/// with the files. The cache is the one that [`prepare`](crate::prepare()) makes of the same files,
/// to the byte, unless quantiles are of a sample ([`FieldReport::sample`]).
///
/// `say` is told about the progress, after each block.
///
/// # Errors
/// As [`prepare`](crate::prepare()), and [`Error::Config`] without `data.cache` and for what cannot be
/// done block by block: splits of the train files, `data.keep_negatives`, crosses with a vocabulary.
///
/// ```
/// use crossfield_data::{DataSpec, FieldConfig, LabelKind, prepare, prepare_in_passes};
///
/// let folder = tempfile::tempdir()?;
/// let file = folder.path().join("a.csv");
/// std::fs::write(&file, "label,item\n1,a\n0,b\n1,b\n")?;
/// let mut spec = DataSpec::default();
/// spec.data.train = vec![file.display().to_string()];
/// spec.data.cache = Some(folder.path().join("cache").display().to_string());
/// spec.data.block_rows = 2;
/// spec.field = vec![FieldConfig { name: "item".into(), ..FieldConfig::default() }];
/// let mut rows = 0;
/// let prepared = prepare_in_passes(&spec, 1, LabelKind::Binary, &mut |at| rows += at.rows)?;
/// assert_eq!(prepared.train.examples().one_hot, [2, 1, 1]);
/// // Two passes of two blocks each.
/// assert_eq!(rows, (2 + 3) * 2);
/// assert!(prepare(&spec, 1, LabelKind::Binary)?.report.cache.unwrap().rebuilt.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn prepare_in_passes(
    spec: &DataSpec,
    seed: u64,
    label: LabelKind,
    say: &mut dyn FnMut(Progress),
) -> Result<Prepared, Error> {
    let Some(folder) = &spec.data.cache else {
        let expected = "a folder for the cache, such as \"cache/clicks\"";
        return Err(config_error("data.cache", "(not set)", expected));
    };
    check_cached(spec)?;
    let checked = checked(spec, label)?;
    let mut prepared = cache::through(folder, spec, seed, label, |place| {
        let spills = Spills::new(&place.folder, "spill-");
        let mut passes = Passes::new(&checked, label, Rc::new(spills), say)?;
        passes.learn(true)?.write(passes, place)
    })?;
    prepared.train.shuffle_block = spec.data.shuffle_block;
    Ok(prepared)
}

/// What was learned in passes, and the parts that are not trained on.
pub(crate) struct Fit {
    pub(crate) schema: FittedSchema,
    pub(crate) valid: Option<Dataset>,
    pub(crate) test: Option<Dataset>,
    pub(crate) report: DataReport,
}

/// Learns from the train files block by block; those of the other parts are encoded into memory.
pub(crate) fn fit_in_passes(
    spec: &DataSpec,
    label: LabelKind,
    say: &mut dyn FnMut(Progress),
) -> Result<Fit, Error> {
    let checked = checked(spec, label)?;
    let spills = Spills::new(&std::env::temp_dir(), "crossfield-spill-");
    let mut passes = Passes::new(&checked, label, Rc::new(spills), say)?;
    let Learned {
        schema,
        fields,
        rows,
        label_mean,
        left_out,
        ..
    } = passes.learn(false)?;
    let mut parts = vec![PartReport {
        name: PARTS[0].to_owned(),
        files: passes.files[0].clone(),
        rows,
        label_mean,
    }];
    let mut held_out = [None, None];
    passes.begin();
    for (part, held_out) in (1..).zip(&mut held_out) {
        let see = &mut |plan: &Plan, table: Table| {
            let block = Block::encode(plan, &schema, part, 0, table, &mut |_, _| {})?;
            *held_out = Some(block.into_rows(&schema));
            Ok(())
        };
        passes.read(part, usize::MAX, see)?;
        if let Some(rows) = held_out {
            parts.push(PartReport {
                name: PARTS[part].to_owned(),
                files: passes.files[part].clone(),
                rows: Some(rows.len()),
                label_mean: rows.label_mean(),
            });
        }
    }
    let [valid, test] = held_out;
    let crosses = schema.crosses.iter().map(|cross| CrossReport {
        name: cross.config.name().to_owned(),
        hash_rows: cross.config.hash_rows,
        ..CrossReport::default()
    });
    let report = DataReport {
        parts,
        fields,
        crosses: crosses.collect(),
        left_out,
        negatives: None,
        cache: None,
    };
    Ok(Fit {
        schema,
        valid,
        test,
        report,
    })
}

/// What is read, and what was learned before.
struct Checked {
    /// Complete.
    spec: DataSpec,
    before: Option<FittedSchema>,
    /// Whether the fields are those that were learned before: a file has no others.
    no_others: bool,
}

/// Refuses what needs all rows at hand.
pub(crate) fn check_blocks(data: &DataConfig) -> Result<(), Error> {
    let refuse = |key: &str, value: String, what: &str| {
        Err(config_error(key, value, &format!("{what}, {IN_MEMORY}")))
    };
    if data.block_rows == 0 || data.block_rows >= u32::MAX as usize {
        let value = data.block_rows.to_string();
        return Err(config_error("data.block_rows", value, "1 to 4294967294"));
    }
    if data.format == Format::Synth {
        return refuse(
            "data.format",
            "synth".to_owned(),
            "files (`crossfield data synth` writes them)",
        );
    }
    if data.keep_negatives != 1.0 {
        return refuse("data.keep_negatives", data.keep_negatives.to_string(), "1");
    }
    let (valid, test) = (data.valid.is_empty(), data.test.is_empty());
    let taken = match &data.split {
        None => None,
        Some(SplitConfig::Random { valid: a, test: b }) => Some(("random", *a > 0.0, *b > 0.0)),
        Some(SplitConfig::Time {
            valid: a, test: b, ..
        }) => Some(("time", *a > 0.0, *b > 0.0)),
        Some(SplitConfig::LeaveLast { valid, test, .. }) => Some(("leave_last", *valid, *test)),
        Some(SplitConfig::Rows { valid, test }) => Some(("rows", valid.is_some(), test.is_some())),
    };
    if let Some((kind, takes_valid, takes_test)) = taken
        && (takes_valid && valid || takes_test && test)
    {
        let files = match (takes_valid && valid, takes_test && test) {
            (true, true) => "files for data.valid and data.test",
            (true, false) => "files for data.valid",
            _ => "files for data.test",
        };
        return refuse(
            "data.split",
            kind.to_owned(),
            &format!("{files} in its place"),
        );
    }
    Ok(())
}

/// The description, complete, if its rows can be read block by block.
fn checked(spec: &DataSpec, label: LabelKind) -> Result<Checked, Error> {
    spec.check_negatives(label)?;
    let mut spec = spec.complete();
    let data = &mut spec.data;
    data.memory_bytes()?;
    check_blocks(data)?;
    data.split = None;
    for cross in &spec.cross {
        cross::without_rows(cross)?;
    }
    let before = FittedSchema::continued(&spec)?;
    let mut no_others = false;
    if let (Some(before), true) = (&before, spec.field.is_empty()) {
        spec.field = before.field_configs().cloned().collect();
        no_others = true;
    }
    Ok(Checked {
        spec,
        before,
        no_others,
    })
}

/// What reads the files, as often as is needed.
struct Passes<'a> {
    spec: &'a DataSpec,
    before: Option<&'a FittedSchema>,
    plan: Plan,
    reader: Reader<'a>,
    table: Table,
    files: [Vec<String>; 3],
    spills: Rc<Spills>,
    /// Whether a group has one number in all blocks, as a cache has it.
    one_number_a_group: bool,
    /// Bytes that counters may have before they spill, and all numbers of quantiles.
    memory: (usize, usize),
    progress: Progress,
    say: &'a mut dyn FnMut(Progress),
}

impl<'a> Passes<'a> {
    fn new(
        checked: &'a Checked,
        label: LabelKind,
        spills: Rc<Spills>,
        say: &'a mut dyn FnMut(Progress),
    ) -> Result<Self, Error> {
        let spec = &checked.spec;
        let plan = Plan::new(spec, None)?;
        // Where the files name the fields, they are read first.
        if !spec.field.is_empty() {
            plan.check_crosses(spec)?;
        }
        let data = &spec.data;
        let files = [&data.train, &data.valid, &data.test].map(|files| expanded(files));
        let [train, valid, test] = files;
        let files = [train?, valid?, test?];
        let Some(first) = files[0].first() else {
            return Err(config_error("data.train", "(not set)", "at least one file"));
        };
        let mut reader = Reader::new(spec, &plan, first)?;
        if checked.no_others {
            reader.columns.close();
        }
        let table = Table::new(
            plan.specs.clone(),
            plan.checks.clone(),
            plan.n_dicts,
            &spec.label,
            label,
            &data.missing,
            Labels::Required,
        )?;
        let memory = data.memory_bytes()?;
        let quantiles = plan.fields.iter().any(|field| is_quantile(&field.config));
        let of_numbers = if quantiles { memory / 2 } else { 0 };
        Ok(Self {
            spec,
            before: checked.before.as_ref(),
            reader,
            table,
            files,
            spills,
            one_number_a_group: false,
            // Arrays double as they grow, and have both copies while they do.
            memory: ((memory - of_numbers) / 2, of_numbers),
            progress: Progress {
                pass: 0,
                passes: 1,
                rows: 0,
            },
            say,
            plan,
        })
    }

    fn begin(&mut self) {
        self.progress.pass += 1;
        self.progress.rows = 0;
    }

    /// Reads the files of a part; `see` is called with so many rows at a time.
    fn read(
        &mut self,
        part: usize,
        block_rows: usize,
        see: &mut dyn FnMut(&Plan, Table) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Self {
            plan,
            reader,
            table,
            files,
            progress,
            say,
            one_number_a_group,
            ..
        } = self;
        let mut see = |table: &mut Table| {
            progress.rows += table.rows as u64;
            see(plan, table.take())?;
            if !*one_number_a_group {
                table.forget_groups();
            }
            say(*progress);
            Ok(())
        };
        table.full_at = block_rows;
        reader.read(table, &files[part], &mut |table| match table.rows {
            rows if rows >= block_rows => see(table),
            _ => Ok(()),
        })?;
        match table.rows {
            0 => Ok(()),
            _ => see(table),
        }
    }

    fn block_rows(&self) -> usize {
        self.spec.data.block_rows
    }
}

fn is_quantile(config: &FieldConfig) -> bool {
    config.transform == Some(TransformKind::Quantile)
}

/// How long the lists of a column are.
#[derive(Clone, Copy, Debug, Default)]
struct Lengths {
    /// Rows with exactly one value.
    one_each: usize,
    values: usize,
    weighted: bool,
}

impl Lengths {
    fn see(&mut self, lists: &Jagged) {
        self.one_each += match &lists.offsets {
            None => lists.rows(),
            Some(ends) => ends
                .windows(2)
                .filter(|ends| ends[1] - ends[0] == 1)
                .count(),
        };
        self.values += lists.indices.len();
        let weights = lists.weights.iter().flatten();
        self.weighted = self.weighted || weights.into_iter().any(|&weight| weight != 1.0);
    }
}

/// What is seen of the numbers of a field.
enum Numbers {
    Moments(Moments),
    Sample(Sample),
    /// Nothing but whether there are any, for the edges are given.
    Edges(Vec<f64>, bool),
}

/// Numbers of a field, all of them as long as they are not too many, then as many, each equally
/// likely.
///
/// # Source
/// Vitter, Random Sampling with a Reservoir (1985), algorithm R.
struct Sample {
    numbers: Vec<f64>,
    limit: usize,
    seen: u64,
    stream: Box<dyn Rng>,
}

impl Sample {
    fn see(&mut self, number: f64) {
        self.seen += 1;
        if self.numbers.len() < self.limit {
            self.numbers.push(number);
            return;
        }
        // A whole number below `seen`.
        let place = (u128::from(self.stream.next_u64()) * u128::from(self.seen)) >> 64;
        if let Some(number_there) = self.numbers.get_mut(place as usize) {
            *number_there = number;
        }
    }
}

impl Numbers {
    fn new(config: &FieldConfig, limit: usize) -> Self {
        let kind = config.transform.unwrap_or_default();
        match (kind, &config.buckets) {
            (TransformKind::Standardise | TransformKind::Log, _) => {
                Self::Moments(Moments::new(kind))
            }
            (TransformKind::Buckets, Some(Buckets::Edges(edges))) => {
                Self::Edges(edges.clone(), false)
            }
            _ => Self::Sample(Sample {
                numbers: Vec::new(),
                limit,
                seen: 0,
                // One sample whatever the seed, so that a cache serves all of them.
                stream: Box::new(rng(0, Purpose::Sample, name_key(&config.name), 0)),
            }),
        }
    }

    fn see(&mut self, numbers: &[f64]) {
        let present = || numbers.iter().copied().filter(|number| !number.is_nan());
        match self {
            Self::Moments(moments) => numbers.iter().for_each(|&number| moments.see(number)),
            Self::Sample(sample) => present().for_each(|number| sample.see(number)),
            Self::Edges(_, any) => *any = *any || present().next().is_some(),
        }
    }

    /// Whether there was a number; nothing is seen for the first time any more.
    fn end(&mut self) -> bool {
        match self {
            Self::Moments(moments) => moments.end(),
            Self::Sample(sample) => sample.seen > 0,
            Self::Edges(_, any) => *any,
        }
    }

    fn transform(self, config: &FieldConfig) -> Transform {
        match self {
            Self::Moments(moments) => moments.transform(),
            Self::Sample(sample) => Transform::Buckets {
                edges: bucket_edges(sample.numbers, quantiles(config)),
            },
            Self::Edges(edges, _) => Transform::Buckets { edges },
        }
    }
}

/// What is seen of the rows in the first pass.
struct Learning {
    /// For the cache, and not for the schema alone.
    for_cache: bool,
    /// By dictionary: the fields that have it, and their keys.
    keys: Vec<(Vec<Planned>, Counter)>,
    /// By field that is hashed, for the report.
    hashed: Vec<Option<Counter>>,
    /// By numeric field.
    numbers: Vec<Option<Numbers>>,
    /// By column of row numbers.
    seen: Vec<Bits>,
    /// By part and column.
    lengths: [Vec<Lengths>; 3],
    rows: [usize; 3],
    labels: LabelMean,
}

/// What was learned in passes.
struct Learned {
    schema: FittedSchema,
    fields: Vec<FieldReport>,
    /// By part and column.
    lengths: [Vec<Lengths>; 3],
    rows_of: [usize; 3],
    /// Training rows, if they were counted.
    rows: Option<usize>,
    label_mean: Option<f64>,
    left_out: u64,
}

impl Learning {
    fn new(passes: &Passes, for_cache: bool) -> Result<Self, Error> {
        let fields = &passes.plan.fields;
        let mut keys: Vec<_> = (0..passes.plan.n_dicts)
            .map(|_| (Vec::new(), Counter::new(passes.spills.clone())))
            .collect();
        for field in fields {
            if let Some(dict) = field.dict {
                keys[dict].0.push(field.clone());
            }
        }
        if let Some((fields, _)) = keys.iter().find(|(fields, _)| fields.len() > MOST_FIELDS) {
            let expected = format!("at most {MOST_FIELDS} fields that share it, {IN_MEMORY}");
            let key = format!("field `{}`: vocabulary", fields[MOST_FIELDS].config.name);
            return Err(config_error(key, fields[0].vocabulary(), &expected));
        }
        let of_quantiles = fields
            .iter()
            .filter(|field| is_quantile(&field.config))
            .count();
        let limit = passes.memory.1 / of_quantiles.max(1) / size_of::<f64>();
        let hashed = fields.iter().map(|field| {
            let wanted = for_cache && field.config.kind == FieldKind::Hashed;
            wanted.then(|| Counter::new(passes.spills.clone()))
        });
        let numbers = fields.iter().map(|field| {
            let wanted = field.config.kind == FieldKind::Numeric && passes.before.is_none();
            wanted.then(|| Numbers::new(&field.config, limit))
        });
        Ok(Self {
            for_cache,
            hashed: hashed.collect(),
            numbers: numbers.collect(),
            keys,
            seen: Vec::new(),
            lengths: Default::default(),
            rows: [0; 3],
            labels: LabelMean::default(),
        })
    }

    /// Whether anything is to be learned from the rows at all.
    fn is_needed(&self, plan: &Plan) -> bool {
        let given = |numbers: &Option<Numbers>| matches!(numbers, None | Some(Numbers::Edges(..)));
        self.for_cache
            || plan.n_dicts > 0
            || plan.fields.is_empty()
            || plan.fields.iter().any(|field| {
                field.dict.is_none()
                    && !matches!(field.config.kind, FieldKind::Numeric | FieldKind::Hashed)
            })
            || !self.numbers.iter().all(given)
    }

    /// The lengths of lists, of any part.
    fn see_lengths(&mut self, part: usize, table: &Table) {
        self.rows[part] += table.rows;
        if self.for_cache {
            let lengths = &mut self.lengths[part];
            lengths.resize(table.columns.len(), Lengths::default());
            for (lengths, column) in lengths.iter_mut().zip(&table.columns) {
                if let Column::List(list) = column {
                    lengths.see(&list.lists);
                }
            }
        }
    }

    /// Rows of the training part. `limit` is what counters may have before they spill.
    fn see(&mut self, plan: &Plan, table: &Table, limit: usize) -> Result<(), Error> {
        self.see_lengths(0, table);
        let weights = (!table.weights.is_empty()).then_some(table.weights.as_slice());
        self.labels.see(&table.labels, weights);
        let all: Vec<u32> = (0..table.rows as u32).collect();
        for (dict, (fields, counter)) in self.keys.iter_mut().enumerate() {
            let (fields, dict) = (fields.iter().collect::<Vec<_>>(), &table.dicts[dict]);
            let seen = Seen::of(table, &fields, dict, &all);
            let ids = 0..dict.len() as u32;
            let mut ids: Vec<u32> = ids.filter(|&id| seen.counts[id as usize] > 0).collect();
            ids.sort_by_key(|&id| seen.place(id));
            for id in ids {
                let text = dict.text(id).as_bytes();
                let id = id as usize;
                counter.add(text, seen.counts[id], seen.fields[id]);
            }
        }
        self.seen.resize(table.columns.len(), Bits::default());
        for (seen, column) in self.seen.iter_mut().zip(&table.columns) {
            if let (Column::List(list), true) = (column, self.keys.is_empty()) {
                list.lists
                    .indices
                    .iter()
                    .for_each(|&index| seen.insert(index));
            }
        }
        for (id, field) in plan.fields.iter().enumerate() {
            match &table.columns[field.column] {
                Column::Number(numbers) => {
                    if let Some(of_field) = &mut self.numbers[id] {
                        of_field.see(numbers);
                    }
                }
                Column::Hash(keys) => {
                    if let Some(counter) = &mut self.hashed[id] {
                        for key in keys {
                            counter.add(&key.to_le_bytes(), 1, 1);
                        }
                    }
                }
                Column::Text(_) | Column::List(_) => {}
            }
        }
        let counters = self.keys.iter_mut().map(|(_, counter)| counter);
        spill_largest(counters.chain(self.hashed.iter_mut().flatten()), limit)
    }
}

/// Spills the largest counters until all of them together are no larger than `limit` bytes.
fn spill_largest<'a>(
    counters: impl Iterator<Item = &'a mut Counter>,
    limit: usize,
) -> Result<(), Error> {
    let mut counters: Vec<_> = counters.collect();
    let mut bytes: usize = counters.iter().map(|counter| counter.bytes()).sum();
    counters.sort_by_key(|counter| std::cmp::Reverse(counter.bytes()));
    for counter in counters {
        if bytes <= limit {
            break;
        }
        bytes -= counter.bytes();
        counter.spill()?;
    }
    Ok(())
}

/// What hashing does to distinct keys: how many there are, the rows they take, and the share of
/// them that is not alone in its row.
struct Places {
    /// Of each row, the number of its keys, as far as two.
    keys: Vec<u8>,
    distinct: u64,
}

impl Places {
    fn new(rows: u32) -> Self {
        Self {
            keys: vec![0; rows as usize],
            distinct: 0,
        }
    }

    fn see(&mut self, key: u64) {
        self.distinct += 1;
        let place = hashed_row(key, self.keys.len() as u32) as usize;
        self.keys[place] = (self.keys[place] + 1).min(2);
    }

    fn used(&self) -> u64 {
        self.keys.iter().filter(|&&keys| keys > 0).count() as u64
    }

    fn shared(&self) -> f64 {
        let alone = self.keys.iter().filter(|&&keys| keys == 1).count() as u64;
        (self.distinct - alone) as f64 / self.distinct.max(1) as f64
    }
}

impl Passes<'_> {
    /// The first passes, over the training part, and over the others for what the cache is to know.
    fn learn(&mut self, for_cache: bool) -> Result<Learned, Error> {
        self.one_number_a_group = for_cache;
        let mut learning = Learning::new(self, for_cache)?;
        let (limit, block_rows) = (self.memory.0, self.block_rows());
        let moments = |numbers: &Option<Numbers>| matches!(numbers, Some(Numbers::Moments(_)));
        let deviations = learning.numbers.iter().any(moments);
        let is_needed = learning.is_needed(&self.plan);
        let learning_passes = usize::from(is_needed) + usize::from(deviations);
        self.progress.passes = learning_passes + self.passes_behind(for_cache);
        if is_needed {
            self.begin();
            self.read(0, block_rows, &mut |plan, table| {
                learning.see(plan, &table, limit)
            })?;
            if learning.rows[0] == 0 {
                let expected = "at least one row whose label is not 0";
                return Err(config_error("label.only_positive", "true", expected));
            }
            if self.spec.field.is_empty() {
                self.plan.take_fields(&mut self.reader.columns, self.spec)?;
                // Crosses may be of fields that only the files name.
                self.progress.passes = learning_passes + self.passes_behind(for_cache);
                learning.hashed.resize_with(self.plan.fields.len(), || None);
                learning
                    .numbers
                    .resize_with(self.plan.fields.len(), || None);
            }
            if for_cache {
                for part in 1..PARTS.len() {
                    self.read(part, block_rows, &mut |_, table| {
                        learning.see_lengths(part, &table);
                        Ok(())
                    })?;
                }
            }
        }
        let left_out = self.table.left_out;
        if is_needed {
            for (field, numbers) in self.plan.fields.iter().zip(&mut learning.numbers) {
                if numbers.as_mut().is_some_and(|numbers| !numbers.end()) {
                    let field = field.config.name.clone();
                    return Err(Error::NoValues { field });
                }
            }
        }
        if deviations {
            self.begin();
            self.read(0, block_rows, &mut |plan, table| {
                for (field, numbers) in plan.fields.iter().zip(&mut learning.numbers) {
                    if let (Some(Numbers::Moments(moments)), Column::Number(numbers)) =
                        (numbers, &table.columns[field.column])
                    {
                        numbers.iter().for_each(|&number| moments.see_again(number));
                    }
                }
                Ok(())
            })?;
        }
        let (rows_of, label_mean) = (learning.rows, learning.labels.mean());
        let lengths = std::mem::take(&mut learning.lengths);
        let (mut schema, fields) = self.fit(learning)?;
        cross::declare(&self.spec.cross, &mut schema)?;
        Ok(Learned {
            schema,
            fields,
            lengths,
            rows_of,
            rows: is_needed.then_some(rows_of[0]),
            label_mean,
            left_out,
        })
    }

    /// How many passes there are once all is learned.
    fn passes_behind(&self, for_cache: bool) -> usize {
        match for_cache {
            true => 1 + usize::from(self.crosses_have_lengths()),
            false => usize::from(self.files[1..].iter().any(|files| !files.is_empty())),
        }
    }

    fn fit(&self, learning: Learning) -> Result<(FittedSchema, Vec<FieldReport>), Error> {
        let limit = self.memory.0;
        let planned = &self.plan.fields;
        let mut reports: Vec<_> = (planned.iter())
            .map(|field| FieldReport::new(&field.config))
            .collect();
        let mut by_vocabulary = BTreeMap::<&str, Vec<usize>>::new();
        for (id, field) in planned.iter().enumerate() {
            if field.config.kind != FieldKind::Numeric {
                by_vocabulary
                    .entry(field.vocabulary())
                    .or_default()
                    .push(id);
            }
        }
        let mut vocabularies = BTreeMap::new();
        let mut counters: Vec<_> = learning.keys.into_iter().map(|it| Some(it.1)).collect();
        let mut hashed = learning.hashed;
        for (name, fields) in by_vocabulary {
            let first = &planned[fields[0]];
            let before = self.before.and_then(|it| it.vocabularies.get(name));
            let vocabulary = match (first.dict, first.config.kind) {
                (Some(dict), _) => {
                    let counter = counters[dict]
                        .take()
                        .expect("a vocabulary has a dictionary");
                    // Keys that have rows anyway: first those of runs that are named.
                    let mut others = Interner::default();
                    for &id in &fields {
                        let config = &planned[id].config;
                        if let Some(run) = &config.keys_from {
                            let keys = Vocabulary::keys_of(name, &config.name, run)?;
                            keys.iter().for_each(|key| {
                                others.intern(key);
                            });
                        }
                    }
                    let from_runs = others.len() as u32;
                    if let Some(Vocabulary::Keys { keys, .. }) = before {
                        keys.iter().for_each(|key| {
                            others.intern(key);
                        });
                    }
                    let min_count = first.config.min_count.unwrap_or(1);
                    let counted =
                        counter.into_vocabulary(min_count, fields.len(), &others, limit)?;
                    for (position, &id) in fields.iter().enumerate() {
                        reports[id].distinct = Some(counted.distinct[position]);
                        reports[id].kept = Some(counted.kept[position]);
                    }
                    let mut vocabulary = Vocabulary::Keys {
                        keys: counted.keys,
                        counts: counted.counts,
                    };
                    vocabulary.take_keys((0..from_runs).map(|id| others.text(id)));
                    vocabulary
                }
                (None, FieldKind::Hashed) if let Some(admit) = &first.config.admit => {
                    Vocabulary::Admitted { rows: admit.rows() }
                }
                (None, FieldKind::Hashed) => {
                    let rows = first.config.hash_rows.unwrap_or_default();
                    for &id in &fields {
                        let Some(counter) = hashed[id].take() else {
                            continue;
                        };
                        let mut places = Places::new(rows);
                        counter.for_each(limit, &mut |key, _| {
                            let key = key.try_into().expect("a hash has eight bytes");
                            places.see(u64::from_le_bytes(key));
                        })?;
                        reports[id].distinct = Some(places.distinct);
                        reports[id].kept = Some(places.used());
                        reports[id].collisions = Some(places.shared());
                    }
                    Vocabulary::Hashed { rows }
                }
                (None, _) => {
                    let mut all = Bits::default();
                    for &id in &fields {
                        let seen = &learning.seen[planned[id].column];
                        all.join(seen);
                        reports[id].distinct = Some(seen.count());
                        reports[id].kept = Some(seen.count());
                    }
                    indices(all, self.spec.data.unseen).ok_or_else(|| Error::NoValues {
                        field: first.config.name.clone(),
                    })?
                }
            };
            let vocabulary = match before {
                Some(before) => vocabulary.behind(before),
                None => vocabulary,
            };
            vocabularies.insert(name.to_owned(), vocabulary);
        }
        let mut transforms = Vec::new();
        for ((field, numbers), report) in planned.iter().zip(learning.numbers).zip(&mut reports) {
            if let Some(Numbers::Sample(sample)) = &numbers {
                let drawn = sample.numbers.len() as u64;
                report.sample = (drawn < sample.seen).then_some(drawn);
            }
            transforms.push(match (numbers, self.before) {
                (Some(numbers), _) => numbers.transform(&field.config),
                (None, Some(before)) => before.transform(&field.config.name),
                (None, None) => Transform::None {},
            });
        }
        Ok((fitted(planned, vocabularies, transforms), reports))
    }

    /// Whether any cross has as many features in a row as only its fields tell.
    fn crosses_have_lengths(&self) -> bool {
        self.spec
            .cross
            .iter()
            .any(|cross| !self.is_one_each(&cross.fields))
    }

    /// Whether a cross of these fields has one feature in each row; a condition has no fields.
    fn is_one_each(&self, fields: &[String]) -> bool {
        let kind = |name: &String| {
            let mut planned = self.plan.fields.iter();
            planned
                .find(|field| field.config.name == *name)
                .map(|field| field.config.kind)
        };
        let one_each = |name| {
            let kinds = [
                FieldKind::Categorical,
                FieldKind::Hashed,
                FieldKind::Numeric,
            ];
            kind(name).is_some_and(|kind| kinds.contains(&kind))
        };
        !fields.is_empty() && fields.iter().all(one_each)
    }
}

/// Rows of a part that are encoded, but not put together yet.
struct Block {
    part: &'static str,
    rows: Vec<u32>,
    encoded: Encoded,
    fields: Vec<FieldReport>,
}

impl Block {
    /// Encodes the rows of `table`, which `before` others of the part were before; `see` is called
    /// as [`cross::encode`] has it.
    fn encode(
        plan: &Plan,
        schema: &FittedSchema,
        part: usize,
        before: usize,
        table: Table,
        see: &mut dyn FnMut(usize, &[u32]),
    ) -> Result<Self, Error> {
        let part = PARTS[part];
        let rows: Vec<u32> = (0..table.rows as u32).collect();
        let encoded = || {
            let parts = [(part, rows.as_slice())];
            let (mut encoded, fields) =
                encode(table, &plan.fields, schema, &parts, Distinct::LeftOut)?;
            for (part, columns) in &mut encoded.parts {
                cross::encode(schema, part, columns, see)?;
            }
            Ok((encoded, fields))
        };
        let in_part = |mut error| {
            if let Error::Overflow { row, .. } = &mut error {
                *row += before;
            }
            error
        };
        let (encoded, fields) = encoded().map_err(in_part)?;
        Ok(Self {
            part,
            rows,
            encoded,
            fields,
        })
    }

    fn columns(&self) -> &[Jagged] {
        &self.encoded.parts[0].1
    }

    fn into_rows(self, schema: &FittedSchema) -> Dataset {
        let parts = [(self.part, self.rows.as_slice())];
        let datasets = self.encoded.into_datasets(&schema.schema, &parts, None);
        datasets.into_iter().next().expect("one part was encoded")
    }
}

impl Learned {
    /// The last passes: encodes all rows, and writes the cache.
    fn write(mut self, mut passes: Passes, place: &Place) -> Result<(), Error> {
        if let Some(part) = (0..).zip(self.rows_of).find(|it| it.1 >= u32::MAX as usize) {
            return Err(Error::TooLarge {
                what: format!("the rows of the {} part", PARTS[part.0]),
                limit: u64::from(u32::MAX - 1),
            });
        }
        let block_rows = passes.block_rows();
        let parts: Vec<usize> = (0..PARTS.len())
            .filter(|&part| self.rows_of[part] > 0)
            .collect();
        let of_crosses = self.lengths_of_crosses(&mut passes, &parts)?;
        let shapes: Vec<_> = (parts.iter().zip(&of_crosses))
            .map(|(&part, of_crosses)| (PARTS[part], self.shape(&passes, part, of_crosses)))
            .collect();
        let mut writer = Writer::new(place, &self.schema, &shapes)?;
        let mut crosses: Vec<_> = (self.schema.crosses.iter())
            .map(|cross| Crossed::new(cross.config.hash_rows, &passes.spills))
            .collect();
        let limit = passes.memory.0;
        let mut reports = Vec::new();
        passes.begin();
        for (number, &part) in parts.iter().enumerate() {
            let (mut rows, mut labels) = (0, LabelMean::default());
            let first_cross = self.schema.fields.len();
            for field in &mut self.fields {
                field.out_of_vocabulary.push(0);
                field.missing.push(0);
            }
            crosses.iter_mut().for_each(|cross| cross.seen.push(0));
            let schema = &self.schema;
            let fields = &mut self.fields;
            passes.read(part, block_rows, &mut |plan, table| {
                let see = &mut |cross: usize, tuple: &[u32]| {
                    if part == 0 {
                        crosses[cross].see(tuple);
                    }
                };
                let block = Block::encode(plan, schema, part, rows, table, see)?;
                for (field, of_block) in fields.iter_mut().zip(&block.fields) {
                    field.out_of_vocabulary[number] += of_block.out_of_vocabulary[0];
                    field.missing[number] += of_block.missing[0];
                }
                for (cross, column) in crosses.iter_mut().zip(&block.columns()[first_cross..]) {
                    cross.seen[number] += column.indices.len() as u64;
                }
                let counters = crosses.iter_mut().filter_map(|cross| cross.tuples.as_mut());
                spill_largest(counters, limit)?;
                let block = block.into_rows(schema);
                rows += block.len();
                labels.see(block.labels(), block.weights());
                writer.push(number, &block)
            })?;
            reports.push(PartReport {
                name: PARTS[part].to_owned(),
                files: passes.files[part].clone(),
                rows: Some(rows),
                label_mean: labels.mean(),
            });
        }
        let crosses = crosses.into_iter().zip(&self.schema.crosses);
        let crosses = crosses.map(|(crossed, cross)| crossed.report(cross.config.name(), limit));
        let report = DataReport {
            parts: reports,
            fields: self.fields,
            crosses: crosses.collect::<Result<_, _>>()?,
            left_out: self.left_out,
            negatives: None,
            cache: None,
        };
        writer.finish(&self.schema, &report)
    }

    /// How long the lists of each cross are, by part; those of one feature a row are not asked.
    fn lengths_of_crosses(
        &self,
        passes: &mut Passes,
        parts: &[usize],
    ) -> Result<Vec<Vec<Lengths>>, Error> {
        let schema = &self.schema;
        let mut all = Vec::new();
        let needed = passes.crosses_have_lengths();
        if needed {
            passes.begin();
        }
        for &part in parts {
            let one_each = Lengths {
                one_each: self.rows_of[part],
                values: self.rows_of[part],
                weighted: false,
            };
            if !needed {
                all.push(vec![one_each; schema.crosses.len()]);
                continue;
            }
            let mut lengths = vec![Lengths::default(); schema.crosses.len()];
            let mut rows = 0;
            passes.read(part, passes.block_rows(), &mut |plan, table| {
                let before = rows;
                rows += table.rows;
                let block = Block::encode(plan, schema, part, before, table, &mut |_, _| {})?;
                let columns = &block.columns()[schema.fields.len()..];
                for (lengths, column) in lengths.iter_mut().zip(columns) {
                    lengths.see(column);
                }
                Ok(())
            })?;
            all.push(lengths);
        }
        Ok(all)
    }

    fn shape(&self, passes: &Passes, part: usize, of_crosses: &[Lengths]) -> PartShape {
        let (rows, spec) = (self.rows_of[part], passes.spec);
        let mut shape = PartShape {
            rows,
            one_hot_fields: Vec::new(),
            one_hot: 0,
            lists: Vec::new(),
            dense: rows * self.schema.schema.dense.len(),
            labels: rows,
            weights: spec.label.weight.is_some(),
            groups: spec.label.group.is_some(),
            probabilities: false,
            // Files of their own hold all rows of the traffic.
            negative_rate: if part == 0 { spec.negative_rate() } else { 1.0 },
        };
        let one_each = Lengths {
            one_each: rows,
            values: rows,
            weighted: false,
        };
        let columns = passes.plan.fields.iter().zip(&self.schema.fields);
        let columns = columns.map(|(field, learned)| {
            let is_list = matches!(passes.table.columns[field.column], Column::List(_));
            match learned.transform {
                // A part whose files ended before a column came has none of its values.
                Transform::None {} if is_list => self.lengths[part]
                    .get(field.column)
                    .copied()
                    .unwrap_or_default(),
                Transform::Standard { .. } => Lengths {
                    weighted: true,
                    ..one_each
                },
                Transform::None {} | Transform::Buckets { .. } => one_each,
            }
        });
        for (field, lengths) in columns.chain(of_crosses.iter().copied()).enumerate() {
            let one_a_row = lengths.one_each == rows;
            if one_a_row && !lengths.weighted {
                shape.one_hot_fields.push(field);
                continue;
            }
            shape.lists.push(ListShape {
                field,
                one_a_row,
                values: lengths.values,
                weighted: lengths.weighted,
            });
        }
        shape.one_hot = rows * shape.one_hot_fields.len();
        shape
    }
}

/// What is seen of a cross.
struct Crossed {
    /// The combinations of the training part, if they are hashed, and the rows.
    tuples: Option<Counter>,
    hash_rows: Option<u32>,
    /// Occurrences by part.
    seen: Vec<u64>,
}

impl Crossed {
    fn new(hash_rows: Option<u32>, spills: &Rc<Spills>) -> Self {
        Self {
            tuples: hash_rows.map(|_| Counter::new(spills.clone())),
            hash_rows,
            seen: Vec::new(),
        }
    }

    fn see(&mut self, tuple: &[u32]) {
        if let Some(tuples) = &mut self.tuples {
            let mut bytes = [0; 4 * cross::MOST];
            let bytes = &mut bytes[..4 * tuple.len()];
            for (to, number) in bytes.chunks_exact_mut(4).zip(tuple) {
                to.copy_from_slice(&number.to_le_bytes());
            }
            tuples.add(bytes, 1, 1);
        }
    }

    fn report(self, name: &str, limit: usize) -> Result<CrossReport, Error> {
        let mut report = CrossReport {
            name: name.to_owned(),
            hash_rows: self.hash_rows,
            seen: self.seen,
            ..CrossReport::default()
        };
        if let (Some(tuples), Some(rows)) = (self.tuples, self.hash_rows) {
            let mut places = Places::new(rows);
            let mut of_count = BTreeMap::new();
            tuples.for_each(limit, &mut |bytes, entry| {
                let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four"));
                let tuple: Vec<u32> = bytes.chunks_exact(4).map(number).collect();
                places.see(tuple_key(&tuple));
                *of_count.entry(entry.count).or_insert(0) += 1;
            })?;
            report.distinct = Some(places.distinct);
            report.kept = Some(places.used());
            report.collisions = Some(places.shared());
            report.counts = cross::spread(&of_count);
        }
        Ok(report)
    }
}
