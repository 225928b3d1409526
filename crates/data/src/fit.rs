//! From raw columns to vocabularies, transforms and encoded rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossfield_core::rng::name_key;
use crossfield_core::{Field, FieldKind, Jagged, Schema};

use crate::config::{Buckets, FieldConfig, Pooling, TransformKind, Unseen};
use crate::dataset::Dataset;
use crate::error::Error;
use crate::intern::{Interner, Keys, mix};
use crate::raw::{Column, ListColumn, MISSING, Table};
use crate::report::FieldReport;
use crate::schema::{Bits, FittedField, FittedSchema, Transform, Vocabulary};
use crate::slice::Slice;

/// A field, complete, and where its values are.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) config: FieldConfig,
    pub(crate) column: usize,
    /// The dictionary of its texts.
    pub(crate) dict: Option<usize>,
}

impl Planned {
    pub(crate) fn vocabulary(&self) -> &str {
        self.config
            .vocabulary
            .as_deref()
            .unwrap_or(&self.config.name)
    }
}

/// Learns vocabularies and transforms from the rows `train` of `table`, behind what was learned
/// `before`.
pub(crate) fn fit(
    table: &Table,
    fields: &[Planned],
    train: &[u32],
    unseen: Unseen,
    before: Option<&FittedSchema>,
) -> Result<FittedSchema, Error> {
    let mut by_vocabulary = BTreeMap::<&str, Vec<&Planned>>::new();
    for field in fields {
        if field.config.kind != FieldKind::Numeric {
            by_vocabulary
                .entry(field.vocabulary())
                .or_default()
                .push(field);
        }
    }
    let mut vocabularies = BTreeMap::new();
    for (name, fields) in by_vocabulary {
        let vocabulary = match (fields[0].dict, fields[0].config.kind) {
            (Some(dict), _) => {
                let mut vocabulary = count_keys(table, &fields, &table.dicts[dict], train);
                for field in &fields {
                    if let Some(run) = &field.config.keys_from {
                        let keys = Vocabulary::keys_of(name, &field.config.name, run)?;
                        vocabulary.take_keys(keys.iter());
                    }
                }
                vocabulary
            }
            (None, FieldKind::Hashed) => match &fields[0].config.admit {
                Some(admit) => Vocabulary::Admitted { rows: admit.rows() },
                None => Vocabulary::Hashed {
                    rows: fields[0].config.hash_rows.unwrap_or_default(),
                },
            },
            (None, _) => seen_indices(table, &fields, train, unseen)?,
        };
        let vocabulary = match before.and_then(|it| it.vocabularies.get(name)) {
            Some(before) => vocabulary.behind(before),
            None => vocabulary,
        };
        vocabularies.insert(name.to_owned(), vocabulary);
    }
    let transforms = fields
        .iter()
        .map(|field| match &table.columns[field.column] {
            Column::Number(numbers) => match before {
                Some(before) => Ok(before.transform(&field.config.name)),
                None => learn_transform(&field.config, numbers, train),
            },
            _ => Ok(Transform::None {}),
        });
    let transforms = transforms.collect::<Result<_, _>>()?;
    Ok(fitted(fields, vocabularies, transforms))
}

/// What was learned of `fields`, put together; the transforms are by field.
pub(crate) fn fitted(
    fields: &[Planned],
    vocabularies: BTreeMap<String, Vocabulary>,
    transforms: Vec<Transform>,
) -> FittedSchema {
    let mut schema = Schema::default();
    let mut fitted = Vec::new();
    let mut indicators = Vec::new();
    for (field, transform) in fields.iter().zip(transforms) {
        let config = &field.config;
        let (rows, oov_row) = match &transform {
            Transform::None {} => {
                let vocabulary = &vocabularies[field.vocabulary()];
                (vocabulary.rows(), vocabulary.oov_row())
            }
            Transform::Standard { indicator, .. } => {
                schema.dense.push(config.name.clone());
                if *indicator {
                    indicators.push(missing_indicator(&config.name));
                }
                (2, None)
            }
            Transform::Buckets { edges } => (edges.len() as u32 + 2, None),
        };
        schema.fields.push(Field {
            name: config.name.clone(),
            kind: config.kind,
            vocabulary: field.vocabulary().to_owned(),
            rows,
            oov_row,
        });
        fitted.push(FittedField {
            config: config.clone(),
            transform,
        });
    }
    schema.dense.extend(indicators);
    FittedSchema {
        schema: Arc::new(schema),
        fields: fitted,
        crosses: Vec::new(),
        vocabularies,
    }
}

/// What the ids of a dictionary are seen by.
pub(crate) struct Seen {
    /// How often.
    pub(crate) counts: Vec<u64>,
    /// Row and field of the first appearance.
    first: Vec<u64>,
    /// The fields, as bits; of those from the 64th on, nothing.
    pub(crate) fields: Vec<u64>,
}

impl Seen {
    /// The ids of `dict` in the rows `train` of these `fields` of its vocabulary.
    pub(crate) fn of(table: &Table, fields: &[&Planned], dict: &Interner, train: &[u32]) -> Self {
        let mut seen = Self {
            counts: vec![0; dict.len()],
            first: vec![u64::MAX; dict.len()],
            fields: vec![0; dict.len()],
        };
        for (position, field) in fields.iter().enumerate() {
            let bit = 1u64.checked_shl(position as u32).unwrap_or(0);
            let mut see = |row: usize, id: u32| {
                let id = id as usize;
                seen.counts[id] += 1;
                let place = (row * fields.len() + position) as u64;
                seen.first[id] = seen.first[id].min(place);
                seen.fields[id] |= bit;
            };
            for &row in train {
                let row = row as usize;
                match &table.columns[field.column] {
                    Column::Text(ids) => see(row, ids[row]),
                    Column::List(list) => {
                        list.lists
                            .range(row)
                            .for_each(|at| see(row, list.lists.indices[at]));
                    }
                    Column::Hash(_) | Column::Number(_) => {
                        unreachable!("only texts and lists have a dictionary")
                    }
                }
            }
        }
        seen
    }

    /// Puts ids in the order of their first appearance. Ids break ties inside one list: they follow
    /// the order of its values.
    pub(crate) fn place(&self, id: u32) -> (u64, u32) {
        (self.first[id as usize], id)
    }
}

/// Keys by falling count, then by first appearance in the training rows.
fn count_keys(table: &Table, fields: &[&Planned], dict: &Interner, train: &[u32]) -> Vocabulary {
    let seen = Seen::of(table, fields, dict, train);
    let counts = &seen.counts;
    let min_count = fields[0].config.min_count.unwrap_or(1);
    let mut kept: Vec<u32> = (0..dict.len() as u32)
        .filter(|&id| counts[id as usize] >= min_count)
        .collect();
    kept.sort_by_key(|&id| (u64::MAX - counts[id as usize], seen.place(id)));
    let mut keys = Interner::default();
    for &id in &kept {
        keys.intern(dict.text(id));
    }
    Vocabulary::Keys {
        keys,
        counts: kept.iter().map(|&id| counts[id as usize]).collect(),
    }
}

fn seen_indices(
    table: &Table,
    fields: &[&Planned],
    train: &[u32],
    unseen: Unseen,
) -> Result<Vocabulary, Error> {
    let mut seen = Bits::default();
    for field in fields {
        let Column::List(list) = &table.columns[field.column] else {
            unreachable!("row numbers come in lists");
        };
        for &row in train {
            for at in list.lists.range(row as usize) {
                seen.insert(list.lists.indices[at]);
            }
        }
    }
    indices(seen, unseen).ok_or_else(|| Error::NoValues {
        field: fields[0].config.name.clone(),
    })
}

/// The vocabulary of the indices that were seen, if there are any.
pub(crate) fn indices(seen: Bits, unseen: Unseen) -> Option<Vocabulary> {
    // The largest index is at most u32::MAX - 2: the run file's limit is checked.
    let largest = seen.largest()?;
    let seen = match unseen {
        Unseen::Own => Bits::up_to(largest),
        Unseen::Shared => seen,
    };
    let rows = largest + 2;
    Some(Vocabulary::Indices { seen, rows })
}

fn log(x: f64) -> f64 {
    x.signum() * x.abs().ln_1p()
}

/// Mean and deviation of the numbers of a field, which are seen twice, in the same order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    as_log: bool,
    rows: u64,
    count: u64,
    /// Away from the first value, so that a constant has the deviation 0 exactly.
    origin: f64,
    from_origin: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    pub(crate) fn new(kind: TransformKind) -> Self {
        Self {
            as_log: kind == TransformKind::Log,
            rows: 0,
            count: 0,
            origin: 0.0,
            from_origin: 0.0,
            mean: 0.0,
            squares: 0.0,
        }
    }

    fn value(&self, number: f64) -> f64 {
        if self.as_log { log(number) } else { number }
    }

    /// The first time, of each row; NaN is a missing one.
    pub(crate) fn see(&mut self, number: f64) {
        self.rows += 1;
        if number.is_nan() {
            return;
        }
        let value = self.value(number);
        if self.count == 0 {
            self.origin = value;
        }
        self.count += 1;
        self.from_origin += value - self.origin;
    }

    /// Ends the first time; whether there was a number.
    pub(crate) fn end(&mut self) -> bool {
        self.mean = self.origin + self.from_origin / self.count as f64;
        self.count > 0
    }

    /// The second time.
    pub(crate) fn see_again(&mut self, number: f64) {
        if !number.is_nan() {
            let from_mean = self.value(number) - self.mean;
            self.squares += from_mean * from_mean;
        }
    }

    pub(crate) fn transform(&self) -> Transform {
        let deviation = (self.squares / self.count as f64).sqrt();
        Transform::Standard {
            log: self.as_log,
            mean: self.mean,
            deviation: if deviation > 0.0 { deviation } else { 1.0 },
            indicator: self.count < self.rows,
        }
    }
}

/// The edges of buckets between `count` quantiles of all numbers, at least one, and of those that
/// are not zero.
pub(crate) fn bucket_edges(mut all: Vec<f64>, count: usize) -> Vec<f64> {
    all.sort_by(f64::total_cmp);
    let smallest = all[0];
    let mut edges = quantile_edges(&all, count);
    all.retain(|&x| x != 0.0);
    edges.extend(quantile_edges(&all, count));
    // Nothing in training is left of the smallest value.
    edges.retain(|&edge| edge > smallest);
    edges.sort_by(f64::total_cmp);
    edges.dedup();
    edges
}

/// The quantiles that the buckets of a field lie between, unless its edges are given.
pub(crate) fn quantiles(config: &FieldConfig) -> usize {
    match config.buckets {
        Some(Buckets::Count(count)) => count as usize,
        _ => 33,
    }
}

fn learn_transform(
    config: &FieldConfig,
    numbers: &[f64],
    train: &[u32],
) -> Result<Transform, Error> {
    let present = || {
        train
            .iter()
            .map(|&row| numbers[row as usize])
            .filter(|x| !x.is_nan())
    };
    if present().next().is_none() {
        return Err(Error::NoValues {
            field: config.name.clone(),
        });
    }
    let kind = config.transform.unwrap_or_default();
    Ok(match (kind, &config.buckets) {
        (TransformKind::Standardise | TransformKind::Log, _) => {
            let mut moments = Moments::new(kind);
            let all = || train.iter().map(|&row| numbers[row as usize]);
            all().for_each(|number| moments.see(number));
            moments.end();
            all().for_each(|number| moments.see_again(number));
            moments.transform()
        }
        (TransformKind::Buckets, Some(Buckets::Edges(edges))) => Transform::Buckets {
            edges: edges.clone(),
        },
        _ => Transform::Buckets {
            edges: bucket_edges(present().collect(), quantiles(config)),
        },
    })
}

/// `count` quantiles of sorted values, from the smallest to the largest, linear in between.
fn quantile_edges(sorted: &[f64], count: usize) -> Vec<f64> {
    let Some(last) = sorted.len().checked_sub(1) else {
        return Vec::new();
    };
    (0..count)
        .map(|quantile| {
            let place = last as f64 * quantile as f64 / (count - 1) as f64;
            let low = place.floor() as usize;
            let high = (low + 1).min(last);
            sorted[low] + (sorted[high] - sorted[low]) * (place - low as f64)
        })
        .collect()
}

/// What became of the values of one field in one part.
#[derive(Clone, Copy, Default)]
struct Counts {
    out_of_vocabulary: u64,
    missing: u64,
}

/// Encoded columns, and the table that has the rest of what belongs to their rows.
pub(crate) struct Encoded {
    /// The columns of each part, with its name.
    pub(crate) parts: Vec<(&'static str, Vec<Jagged>)>,
    dense: Vec<Vec<f32>>,
    /// The distinct keys of each part by vocabulary, of those whose keys are given rows as they come.
    keys: Vec<BTreeMap<String, Keys>>,
    table: Table,
}

/// Whether reports say how many distinct values a field has in the first part.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Distinct {
    Counted,
    LeftOut,
}

/// Encodes `parts`, rows of `table`, field by field; the raw columns are dropped on the way.
pub(crate) fn encode(
    table: Table,
    fields: &[Planned],
    fitted: &FittedSchema,
    parts: &[(&'static str, &[u32])],
    distinct: Distinct,
) -> Result<(Encoded, Vec<FieldReport>), Error> {
    let n_dense = fitted.schema.dense.len();
    let mut table = table;
    let mut columns: Vec<Vec<Jagged>> = parts.iter().map(|_| Vec::new()).collect();
    let mut dense: Vec<Vec<f32>> = parts
        .iter()
        .map(|(_, rows)| vec![0.0; rows.len() * n_dense])
        .collect();
    // Rows of the ids of each dictionary, made once.
    let mut row_of = BTreeMap::<&str, Vec<u32>>::new();
    for field in fields {
        if let (Some(dict), Some(Vocabulary::Keys { keys, .. })) =
            (field.dict, fitted.vocabularies.get(field.vocabulary()))
        {
            row_of.entry(field.vocabulary()).or_insert_with(|| {
                let texts = table.dicts[dict].iter();
                texts
                    .map(|text| keys.get(text).map_or(0, |id| id + 1))
                    .collect()
            });
        }
    }
    let mut keys: Vec<BTreeMap<String, Keys>> = vec![BTreeMap::new(); parts.len()];
    let missing_ids: Vec<Option<u32>> = table.dicts.iter().map(|dict| dict.get(MISSING)).collect();
    let mut dense_column = 0;
    let mut indicator_column = fitted
        .fields
        .iter()
        .filter(|field| matches!(field.transform, Transform::Standard { .. }))
        .count();
    let mut reports = Vec::new();
    for (id, (field, learned)) in fields.iter().zip(&fitted.fields).enumerate() {
        let mut report = FieldReport::new(&field.config);
        let column = &table.columns[field.column];
        let places = parts
            .iter()
            .zip(&mut columns)
            .zip(&mut dense)
            .zip(&mut keys);
        for ((((part, rows), columns), dense), keys) in places {
            let vocabulary = fitted.vocabularies.get(field.vocabulary());
            let (lists, counts) = match &learned.transform {
                Transform::None {} if let Some(Vocabulary::Admitted { .. }) = vocabulary => {
                    let keys = keys.entry(field.vocabulary().to_owned()).or_default();
                    encode_keys(column, rows, keys)
                }
                Transform::None {} => encode_values(
                    column,
                    rows,
                    &fitted.vocabularies[field.vocabulary()],
                    row_of.get(field.vocabulary()).map_or(&[], Vec::as_slice),
                    field.dict.and_then(|dict| missing_ids[dict]),
                    &field.config.name,
                )?,
                transform => {
                    let numbers = NumberField {
                        name: &field.config.name,
                        part,
                        transform,
                        dense: (dense_column, indicator_column, n_dense),
                    };
                    numbers.encode(column, rows, dense)?
                }
            };
            columns.push(lists);
            report.out_of_vocabulary.push(counts.out_of_vocabulary);
            report.missing.push(counts.missing);
        }
        if let Transform::Standard { indicator, .. } = learned.transform {
            dense_column += 1;
            indicator_column += usize::from(indicator);
        }
        if distinct == Distinct::Counted {
            let vocabulary = fitted.vocabularies.get(field.vocabulary());
            let rows = row_of
                .get(field.vocabulary())
                .map_or(&[][..], Vec::as_slice);
            describe(&mut report, column, vocabulary, rows, parts[0].1);
        }
        reports.push(report);
        // Two copies of a large column only as long as both are needed.
        if fields[id + 1..]
            .iter()
            .all(|later| later.column != field.column)
        {
            table.columns[field.column] = Column::Number(Vec::new());
        }
    }
    drop(row_of);
    let encoded = Encoded {
        parts: parts.iter().map(|(name, _)| *name).zip(columns).collect(),
        dense,
        keys,
        table,
    };
    Ok((encoded, reports))
}

impl Encoded {
    /// The data sets of these `parts`, whose columns are the fields of `schema`.
    pub(crate) fn into_datasets(
        self,
        schema: &Arc<Schema>,
        parts: &[(&'static str, &[u32])],
        probabilities: Option<&[f32]>,
    ) -> Vec<Dataset> {
        let table = &self.table;
        let datasets = parts.iter().zip(self.parts).zip(self.dense).zip(self.keys);
        let datasets = datasets.map(|((((_, rows), (_, columns)), dense), keys)| Dataset {
            keys: keys
                .into_iter()
                .map(|(vocabulary, keys)| (vocabulary, keys.into_keys().into()))
                .collect(),
            dense: dense.into(),
            labels: if table.labels.is_empty() {
                Vec::new().into()
            } else {
                pick(&table.labels, rows)
            },
            weights: (!table.weights.is_empty()).then(|| pick(&table.weights, rows)),
            groups: (!table.groups.is_empty()).then(|| pick(&table.groups, rows)),
            probabilities: probabilities.map(|all| pick(all, rows)),
            ..Dataset::new(schema.clone(), rows.len(), columns)
        });
        datasets.collect()
    }
}

fn pick<T: Copy>(all: &[T], rows: &[u32]) -> Slice<T> {
    let picked: Vec<T> = rows.iter().map(|&row| all[row as usize]).collect();
    picked.into()
}

/// The distinct values of a field in the training rows.
fn describe(
    report: &mut FieldReport,
    column: &Column,
    vocabulary: Option<&Vocabulary>,
    row_of: &[u32],
    train: &[u32],
) {
    let mut seen = Bits::default();
    let rows = train.iter().map(|&row| row as usize);
    match column {
        Column::Number(_) => return,
        Column::Text(ids) => rows.for_each(|row| seen.insert(ids[row])),
        Column::List(list) => {
            for value in rows.flat_map(|row| &list.lists.indices[list.lists.range(row)]) {
                seen.insert(*value);
            }
        }
        Column::Hash(keys) => {
            let mut keys: Vec<u64> = rows.map(|row| keys[row]).collect();
            keys.sort_unstable();
            keys.dedup();
            let Some(Vocabulary::Hashed { rows: n_rows }) = vocabulary else {
                // Which of them are given rows shows in training.
                report.distinct = Some(keys.len() as u64);
                return;
            };
            let places = keys.iter().map(|&key| hashed_row(key, *n_rows));
            let (used, share) = shared_rows(places.collect());
            report.distinct = Some(keys.len() as u64);
            report.kept = Some(used);
            report.collisions = Some(share);
            return;
        }
    }
    report.distinct = Some(seen.count());
    report.kept = Some(match vocabulary {
        Some(Vocabulary::Keys { .. }) => {
            let kept = (0..row_of.len() as u32).filter(|&id| seen.contains(id));
            kept.filter(|&id| row_of[id as usize] != 0).count() as u64
        }
        // All indices of the training rows have their row.
        _ => seen.count(),
    });
}

/// The distinct rows of what is hashed to `places`, and the share of it that is not alone there.
pub(crate) fn shared_rows(mut places: Vec<u32>) -> (u64, f64) {
    places.sort_unstable();
    let alone = places
        .chunk_by(|a, b| a == b)
        .filter(|chunk| chunk.len() == 1)
        .count();
    let all = places.len();
    places.dedup();
    // Of nothing, nothing is shared.
    (
        places.len() as u64,
        (all - alone) as f64 / all.max(1) as f64,
    )
}

pub(crate) fn hashed_row(key: u64, rows: u32) -> u32 {
    (key % u64::from(rows)) as u32
}

/// Keys as their numbers among those of the part.
fn encode_keys(column: &Column, rows: &[u32], ids: &mut Keys) -> (Jagged, Counts) {
    let Column::Hash(keys) = column else {
        unreachable!("hashed fields read hashes");
    };
    let missing = mix(name_key(MISSING));
    let mut counts = Counts::default();
    let encoded = rows.iter().map(|&row| {
        let key = keys[row as usize];
        counts.missing += u64::from(key == missing);
        ids.intern(key)
    });
    (Jagged::one_hot(encoded.collect()), counts)
}

fn encode_values(
    column: &Column,
    rows: &[u32],
    vocabulary: &Vocabulary,
    row_of: &[u32],
    missing: Option<u32>,
    name: &str,
) -> Result<(Jagged, Counts), Error> {
    let mut counts = Counts::default();
    let lists = match (column, vocabulary) {
        (Column::Text(ids), Vocabulary::Keys { .. }) => {
            let encoded = rows.iter().map(|&row| {
                let id = ids[row as usize];
                counts.missing += u64::from(Some(id) == missing);
                let row = row_of[id as usize];
                counts.out_of_vocabulary += u64::from(row == 0);
                row
            });
            Jagged::one_hot(encoded.collect())
        }
        (Column::Hash(keys), Vocabulary::Hashed { rows: n_rows }) => {
            let missing = mix(name_key(MISSING));
            let encoded = rows.iter().map(|&row| {
                let key = keys[row as usize];
                counts.missing += u64::from(key == missing);
                hashed_row(key, *n_rows)
            });
            Jagged::one_hot(encoded.collect())
        }
        (Column::List(list), _) => {
            let lists = &list.lists;
            let mut encoded = ListColumn::default();
            for &row in rows {
                let range = lists.range(row as usize);
                counts.missing += u64::from(range.is_empty());
                for at in range {
                    let value = lists.indices[at];
                    let (index, known) = match vocabulary {
                        Vocabulary::Indices { seen, rows } => {
                            if seen.contains(value) {
                                (value, true)
                            } else {
                                (rows - 1, false)
                            }
                        }
                        _ => {
                            let row = row_of[value as usize];
                            (row, row != 0)
                        }
                    };
                    counts.out_of_vocabulary += u64::from(!known);
                    encoded.push(index, lists.weight(at));
                }
                // A mean was divided by its sum when it was read.
                encoded.end_row(Pooling::Sum, name)?;
            }
            encoded.lists
        }
        _ => unreachable!("a vocabulary fits the columns that it was learned from"),
    };
    Ok((lists, counts))
}

struct NumberField<'a> {
    name: &'a str,
    part: &'static str,
    transform: &'a Transform,
    /// The field's dense column, its indicator's, and the number of dense columns.
    dense: (usize, usize, usize),
}

impl NumberField<'_> {
    fn encode(
        &self,
        column: &Column,
        rows: &[u32],
        dense: &mut [f32],
    ) -> Result<(Jagged, Counts), Error> {
        let Column::Number(numbers) = column else {
            unreachable!("numeric fields read numbers");
        };
        let mut counts = Counts::default();
        let mut indices = Vec::with_capacity(rows.len());
        let mut weights = Vec::new();
        let (value_column, indicator_column, n_dense) = self.dense;
        for (position, &row) in rows.iter().enumerate() {
            let number = numbers[row as usize];
            counts.missing += u64::from(number.is_nan());
            match self.transform {
                Transform::Buckets { edges } => indices.push(if number.is_nan() {
                    edges.len() as u32 + 1
                } else {
                    edges.partition_point(|&edge| edge <= number) as u32
                }),
                Transform::Standard { indicator, .. } if number.is_nan() => {
                    indices.push(1);
                    weights.push(1.0);
                    if *indicator {
                        dense[position * n_dense + indicator_column] = 1.0;
                    }
                }
                Transform::Standard {
                    log: as_log,
                    mean,
                    deviation,
                    ..
                } => {
                    let value = if *as_log { log(number) } else { number };
                    let value = ((value - mean) / deviation) as f32;
                    if !value.is_finite() {
                        return Err(Error::Overflow {
                            field: self.name.to_owned(),
                            row: position,
                            part: self.part,
                            value: number,
                        });
                    }
                    indices.push(0);
                    weights.push(value);
                    dense[position * n_dense + value_column] = value;
                }
                Transform::None {} => unreachable!("numeric fields have a transform"),
            }
        }
        let weights = matches!(self.transform, Transform::Standard { .. }).then_some(weights);
        Ok((
            Jagged {
                indices,
                offsets: None,
                weights,
            },
            counts,
        ))
    }
}

/// The dense column that says where a number is missing.
pub(crate) fn missing_indicator(field: &str) -> String {
    format!("{field}.missing")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transform(kind: TransformKind, buckets: Option<Buckets>, numbers: &[f64]) -> Transform {
        let config = FieldConfig {
            name: "n".to_owned(),
            kind: FieldKind::Numeric,
            transform: Some(kind),
            buckets,
            ..FieldConfig::default()
        };
        let rows: Vec<u32> = (0..numbers.len() as u32).collect();
        learn_transform(&config, numbers, &rows).unwrap()
    }

    fn encoded(transform: &Transform, numbers: &[f64]) -> (Jagged, Vec<f32>) {
        let n_dense = 2;
        let mut dense = vec![0.0; n_dense * numbers.len()];
        let field = NumberField {
            name: "n",
            part: "train",
            transform,
            dense: (0, 1, n_dense),
        };
        let rows: Vec<u32> = (0..numbers.len() as u32).collect();
        let column = Column::Number(numbers.to_vec());
        let lists = field.encode(&column, &rows, &mut dense).unwrap().0;
        (lists, dense)
    }

    #[test]
    fn numbers_are_standardised_and_missing_ones_are_the_mean() {
        let numbers = [1.0, 3.0, f64::NAN];
        let learned = transform(TransformKind::Standardise, None, &numbers);
        let expected = Transform::Standard {
            log: false,
            mean: 2.0,
            deviation: 1.0,
            indicator: true,
        };
        assert_eq!(learned, expected);
        let (lists, dense) = encoded(&learned, &numbers);
        assert_eq!(lists.indices, [0, 0, 1]);
        assert_eq!(lists.weights, Some(vec![-1.0, 1.0, 1.0]));
        assert_eq!(dense, [-1.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn a_constant_is_zero_not_nan() {
        let learned = transform(TransformKind::Standardise, None, &[0.1, 0.1, 0.1]);
        assert_eq!(
            encoded(&learned, &[0.1, 1.1]).0.weights,
            Some(vec![0.0, 1.0])
        );
    }

    #[test]
    fn log_keeps_the_sign() {
        let e = std::f64::consts::E;
        let learned = transform(TransformKind::Log, None, &[e - 1.0, 1.0 - e]);
        // Logs 1 and -1: mean 0, deviation 1.
        let weights = encoded(&learned, &[e - 1.0, 1.0 - e, 0.0])
            .0
            .weights
            .unwrap();
        let expected = [1.0, -1.0, 0.0];
        assert!(
            weights
                .iter()
                .zip(expected)
                .all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6)
        );
    }

    #[test]
    fn quantiles_of_all_and_of_non_zero_values_are_united() {
        let numbers = [0.0, 0.0, 0.0, 0.0, 10.0, 20.0, 30.0];
        let count = Some(Buckets::Count(3));
        let learned = transform(TransformKind::Quantile, count, &numbers);
        // All: 0, 0, 30. Not zero: 10, 20, 30. The smallest value, 0, is no edge.
        assert_eq!(
            learned,
            Transform::Buckets {
                edges: vec![10.0, 20.0, 30.0]
            }
        );
        let (lists, _) = encoded(&learned, &[0.0, 9.9, 10.0, 25.0, 99.0, -5.0, f64::NAN]);
        assert_eq!(lists.indices, [0, 0, 1, 2, 3, 0, 4]);
        assert!(lists.is_one_hot());
    }

    #[test]
    fn a_value_equal_to_an_edge_is_right_of_it() {
        let edges = Some(Buckets::Edges(vec![20.0, 30.0]));
        let learned = transform(TransformKind::Buckets, edges, &[1.0]);
        let (lists, _) = encoded(&learned, &[19.9, 20.0, 30.0, f64::NAN]);
        assert_eq!(lists.indices, [0, 1, 2, 3]);
    }

    #[test]
    fn quantiles_are_linear_between_values() {
        assert_eq!(
            quantile_edges(&[0.0, 1.0, 10.0], 5),
            [0.0, 0.5, 1.0, 5.5, 10.0]
        );
        assert_eq!(quantile_edges(&[7.0], 2), [7.0, 7.0]);
    }
}
