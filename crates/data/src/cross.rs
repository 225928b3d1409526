//! Crosses: values of several encoded fields together, as one more field.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crossfield_core::rng::name_key;
use crossfield_core::{Field, FieldId, FieldKind, Jagged};

use crate::condition::{self, Wanted};
use crate::config::{CrossConfig, FieldConfig, Pooling, TransformKind};
use crate::error::{Error, hint};
use crate::fit::{hashed_row, shared_rows};
use crate::intern::{Tuples, mix, tuple_key};
use crate::raw::{ListColumn, MISSING};
use crate::report::CrossReport;
use crate::schema::{CrossRule, FittedCross, FittedSchema, Transform, Vocabulary};

/// Most fields or conditions of a cross.
pub(crate) const MOST: usize = 4;

fn refuse<T>(cross: &CrossConfig, key: &str, value: &str, expected: &str) -> Result<T, Error> {
    Err(Error::Config {
        key: format!("cross `{}`: {key}", cross.name()),
        value: value.to_owned(),
        expected: expected.to_owned(),
    })
}

/// Whether complete `crosses` can be made of `fields`, as far as that is known before there is data.
pub(crate) fn check(crosses: &[CrossConfig], fields: &[&FieldConfig]) -> Result<(), Error> {
    for (position, cross) in crosses.iter().enumerate() {
        if cross.name().is_empty() {
            return Err(Error::Config {
                key: format!("cross {}", position + 1),
                value: "(neither fields nor when)".to_owned(),
                expected: "fields = [\"a\", \"b\"], or when = \"a=x AND b=y\"".to_owned(),
            });
        }
        let taken = crosses[..position]
            .iter()
            .any(|it| it.name() == cross.name())
            || fields.iter().any(|field| {
                let vocabulary = field.vocabulary.as_deref();
                field.name == cross.name() || vocabulary == Some(cross.name())
            });
        if taken {
            let expected = "a name that no field, vocabulary or other cross has";
            return refuse(cross, "name", cross.name(), expected);
        }
        if let Some(when) = &cross.when {
            for (key, set) in [
                ("fields", !cross.fields.is_empty()),
                ("hash_rows", cross.hash_rows.is_some()),
                ("min_count", cross.min_count.is_some()),
            ] {
                if set {
                    let expected = "no such key beside `when`, which is one feature";
                    return refuse(cross, key, "(set)", expected);
                }
            }
            for condition in conditions(cross, when)? {
                member(cross, "when", &condition.field, crosses, fields)?;
            }
            continue;
        }
        let count = cross.fields.len();
        let listed = format!("{:?}", cross.fields);
        if !(2..=MOST).contains(&count) {
            let expected = format!("two to four fields, not {count}");
            return refuse(cross, "fields", &listed, &expected);
        }
        for (position, name) in cross.fields.iter().enumerate() {
            member(cross, "fields", name, crosses, fields)?;
            if cross.fields[..position].contains(name) {
                return refuse(cross, "fields", &listed, "each field once");
            }
        }
        match (cross.hash_rows, cross.min_count) {
            (Some(rows @ (0 | u32::MAX)), _) => {
                return refuse(cross, "hash_rows", &rows.to_string(), "1 to 4294967294");
            }
            (Some(_), Some(count)) => {
                let expected = "either hash_rows or min_count: hashed rows have no counts";
                return refuse(cross, "min_count", &count.to_string(), expected);
            }
            (None, Some(0)) => return refuse(cross, "min_count", "0", "at least 1"),
            _ => {}
        }
    }
    Ok(())
}

fn conditions(cross: &CrossConfig, when: &str) -> Result<Vec<condition::Condition>, Error> {
    match condition::parse(when) {
        Ok(conditions) if conditions.len() <= MOST => Ok(conditions),
        Ok(conditions) => {
            let expected = format!("one to four conditions, not {}", conditions.len());
            refuse(cross, "when", when, &expected)
        }
        Err(expected) => refuse(cross, "when", when, &expected),
    }
}

/// The field called `name`, if a cross can have it.
fn member(
    cross: &CrossConfig,
    key: &str,
    name: &str,
    crosses: &[CrossConfig],
    fields: &[&FieldConfig],
) -> Result<FieldId, Error> {
    let Some(id) = fields.iter().position(|field| field.name == name) else {
        let expected = if crosses.iter().any(|it| it.name() == name) {
            "a field: a cross is of fields, not of other crosses".to_owned()
        } else {
            let known = hint(name, fields.iter().map(|field| field.name.as_str()));
            format!("a field of the run file; {known}")
        };
        return refuse(cross, key, name, &expected);
    };
    let in_buckets = matches!(
        fields[id].transform,
        Some(TransformKind::Quantile | TransformKind::Buckets)
    );
    match fields[id].kind {
        FieldKind::Sequence => {
            let expected = "a field that is not a sequence: make it a bag, for the order is lost";
            refuse(cross, key, name, expected)
        }
        FieldKind::Numeric if !in_buckets => {
            let expected = "values that are told apart: put the field in buckets, with transform \
                            = \"quantile\" or \"buckets\"";
            refuse(cross, key, name, expected)
        }
        FieldKind::Hashed if fields[id].admit.is_some() => {
            let expected =
                "a field whose values keep their rows: give it hash_rows in place of admit";
            refuse(cross, key, name, expected)
        }
        _ => Ok(id),
    }
}

/// Learns `crosses`, which are complete, from the columns of the training part, the first of
/// `parts`, behind what was learned `before`; adds their fields to `fitted` and their columns to each part.
pub(crate) fn learn(
    crosses: &[CrossConfig],
    fitted: &mut FittedSchema,
    before: Option<&FittedSchema>,
    parts: &mut [(&'static str, Vec<Jagged>)],
) -> Result<Vec<CrossReport>, Error> {
    let mut reports = Vec::new();
    for cross in crosses {
        let mut report = CrossReport {
            name: cross.name().to_owned(),
            hash_rows: cross.hash_rows,
            ..CrossReport::default()
        };
        let fitted_cross = FittedCross {
            config: cross.clone(),
            rule: rule(cross, crosses, fitted)?,
        };
        let mut vocabulary = None;
        for (position, (part, columns)) in parts.iter_mut().enumerate() {
            let column = match &fitted_cross.rule {
                CrossRule::Product { members } if position == 0 => {
                    let mut seen = Seen::new(members.len());
                    let ids = |tuple: &[u32]| seen.see(tuple);
                    let mut column = products(cross, members, columns, part, ids)?;
                    let (learned, rows) = seen.into_vocabulary(cross, before, &mut report);
                    vocabulary = Some(learned);
                    for index in &mut column.indices {
                        *index = rows[*index as usize];
                    }
                    column
                }
                _ => {
                    let learned = vocabulary.as_ref();
                    column(&fitted_cross, learned, columns, part, &mut |_| {})?
                }
            };
            report.seen.push(column.indices.len() as u64);
            if vocabulary.as_ref().is_some_and(|it| it.oov_row().is_some()) {
                let unknown = column.indices.iter().filter(|&&index| index == 0).count();
                report.out_of_vocabulary.push(unknown as u64);
            }
            columns.push(column);
        }
        add(fitted, fitted_cross, vocabulary);
        reports.push(report);
    }
    Ok(reports)
}

/// Adds the field of a cross.
fn add(fitted: &mut FittedSchema, cross: FittedCross, vocabulary: Option<Vocabulary>) {
    let name = cross.config.name().to_owned();
    Arc::make_mut(&mut fitted.schema).fields.push(Field {
        name: name.clone(),
        kind: FieldKind::Cross,
        vocabulary: name.clone(),
        rows: vocabulary.as_ref().map_or(1, Vocabulary::rows),
        oov_row: vocabulary.as_ref().and_then(Vocabulary::oov_row),
    });
    if let Some(vocabulary) = vocabulary {
        fitted.vocabularies.insert(name, vocabulary);
    }
    fitted.crosses.push(cross);
}

/// Adds the fields of `crosses`, which are complete, and of which nothing is to be learned: those
/// with hashed rows, and conditions.
pub(crate) fn declare(crosses: &[CrossConfig], fitted: &mut FittedSchema) -> Result<(), Error> {
    for cross in crosses {
        let fitted_cross = FittedCross {
            config: cross.clone(),
            rule: rule(cross, crosses, fitted)?,
        };
        add(fitted, fitted_cross, without_rows(cross)?);
    }
    Ok(())
}

/// The vocabulary of a cross that has one of which nothing is to be learned.
pub(crate) fn without_rows(cross: &CrossConfig) -> Result<Option<Vocabulary>, Error> {
    match (&cross.when, cross.hash_rows) {
        (Some(_), _) => Ok(None),
        (None, Some(rows)) => Ok(Some(Vocabulary::Hashed { rows })),
        (None, None) => {
            let count = cross.min_count.unwrap_or(1).to_string();
            let expected = format!("hash_rows in its place, {IN_MEMORY}");
            refuse(cross, "min_count", &count, &expected)
        }
    }
}

/// Why something cannot be, and what to do about it.
pub(crate) const IN_MEMORY: &str = "for rows are read block by block here (or train with data.stream = false, which reads them all \
     into memory)";

/// Adds the columns of all crosses of `fitted` to those of its fields. `see` is called with the
/// number of a cross with hashed rows and each of its combinations.
pub(crate) fn encode(
    fitted: &FittedSchema,
    part: &'static str,
    columns: &mut Vec<Jagged>,
    see: &mut dyn FnMut(usize, &[u32]),
) -> Result<(), Error> {
    for (number, cross) in fitted.crosses.iter().enumerate() {
        let vocabulary = fitted.vocabularies.get(cross.config.name());
        let mut see = |tuple: &[u32]| see(number, tuple);
        columns.push(column(cross, vocabulary, columns, part, &mut see)?);
    }
    Ok(())
}

/// What a cross is made of, once the values of its fields are known.
fn rule(
    cross: &CrossConfig,
    crosses: &[CrossConfig],
    fitted: &FittedSchema,
) -> Result<CrossRule, Error> {
    let fields: Vec<&FieldConfig> = fitted.field_configs().collect();
    let Some(when) = &cross.when else {
        let members = cross.fields.iter();
        let members = members.map(|name| member(cross, "fields", name, crosses, &fields));
        return Ok(CrossRule::Product {
            members: members.collect::<Result<_, _>>()?,
        });
    };
    let all = conditions(cross, when)?.into_iter().map(|condition| {
        let field = member(cross, "when", &condition.field, crosses, &fields)?;
        let index = wanted(cross, fitted, field, &condition.value)?;
        Ok((field, index))
    });
    Ok(CrossRule::Condition {
        all: all.collect::<Result<_, Error>>()?,
    })
}

/// The index that a condition asks for; `None` for a field without a feature.
fn wanted(
    cross: &CrossConfig,
    fitted: &FittedSchema,
    field: FieldId,
    value: &Wanted,
) -> Result<Option<u32>, Error> {
    let Field {
        name,
        vocabulary,
        kind,
        ..
    } = &fitted.schema.fields[field];
    let text = match value {
        Wanted::Missing => "(missing)",
        Wanted::Text(text) => text.as_str(),
    };
    let fail = |expected: &str| refuse(cross, "when", &format!("{name}={text}"), expected);
    if let Transform::Buckets { edges } = &fitted.fields[field].transform {
        let Wanted::Text(text) = value else {
            return Ok(Some(edges.len() as u32 + 1));
        };
        return match text.parse::<f64>() {
            Ok(number) if number.is_finite() => {
                Ok(Some(edges.partition_point(|&edge| edge <= number) as u32))
            }
            _ => fail("a number, for the bucket that it falls into"),
        };
    }
    if let (FieldKind::Bag, Wanted::Missing) = (kind, value) {
        return Ok(None);
    }
    let key = match value {
        Wanted::Missing => MISSING,
        Wanted::Text(text) => text,
    };
    match &fitted.vocabularies[vocabulary] {
        Vocabulary::Keys { keys, .. } => match keys.get(key) {
            Some(id) => Ok(Some(id + 1)),
            None => {
                let known = hint(text, keys.iter().filter(|&key| key != MISSING));
                fail(&format!("a value that the training rows have; {known}"))
            }
        },
        Vocabulary::Indices { seen, .. } => match text.parse::<u32>() {
            Ok(index) if seen.contains(index) => Ok(Some(index)),
            _ => fail("an index that the training rows have"),
        },
        Vocabulary::Hashed { rows } => Ok(Some(hashed_row(mix(name_key(key)), *rows))),
        Vocabulary::Admitted { .. } => unreachable!("crosses of such fields are refused"),
        Vocabulary::Combinations { .. } => unreachable!("no column has combinations"),
    }
}

/// The features of a cross in each row. `see` is called with each combination that is hashed.
fn column(
    cross: &FittedCross,
    vocabulary: Option<&Vocabulary>,
    columns: &[Jagged],
    part: &'static str,
    see: &mut dyn FnMut(&[u32]),
) -> Result<Jagged, Error> {
    let config = &cross.config;
    match (&cross.rule, vocabulary) {
        (CrossRule::Condition { all }, _) => condition_column(config, all, columns),
        (CrossRule::Product { members }, Some(Vocabulary::Combinations { tuples, .. })) => {
            let row = |tuple: &[u32]| tuples.get(tuple).map_or(0, |id| id + 1);
            products(config, members, columns, part, row)
        }
        (CrossRule::Product { members }, Some(Vocabulary::Hashed { rows })) => {
            let row = |tuple: &[u32]| {
                see(tuple);
                hashed_row(tuple_key(tuple), *rows)
            };
            products(config, members, columns, part, row)
        }
        _ => unreachable!("a cross of fields has combinations or hashed rows"),
    }
}

/// The features of a cross of fields in each row, with the indices that `index` gives them:
///
/// φ(x) = Π_m x_m for every combination of one feature `m` of each member.
///
/// A value that a bag holds twice makes two features, whose weights a sum adds up.
///
/// # Source
/// Cheng et al., Wide & Deep Learning for Recommender Systems (2016), equation 1.
fn products(
    cross: &CrossConfig,
    members: &[FieldId],
    columns: &[Jagged],
    part: &'static str,
    mut index: impl FnMut(&[u32]) -> u32,
) -> Result<Jagged, Error> {
    let members: Vec<&Jagged> = members.iter().map(|&member| &columns[member]).collect();
    let mut encoded = ListColumn::default();
    for row in 0..members[0].rows() {
        // A product that f32 cannot hold.
        let mut beyond = None;
        each_combination(&members, row, &mut |tuple, product| {
            let weight = product as f32;
            if !weight.is_finite() {
                beyond = Some(product);
            }
            encoded.push(index(tuple), weight);
        });
        if let Some(value) = beyond {
            return Err(Error::Overflow {
                field: cross.name().to_owned(),
                row,
                part,
                value,
            });
        }
        encoded.end_row(Pooling::Sum, cross.name())?;
    }
    Ok(encoded.lists)
}

/// One feature where all conditions hold, none elsewhere.
fn condition_column(
    cross: &CrossConfig,
    all: &[(FieldId, Option<u32>)],
    columns: &[Jagged],
) -> Result<Jagged, Error> {
    let mut encoded = ListColumn::default();
    // All fields have the same number of rows, and a condition is of one.
    for row in 0..columns[all[0].0].rows() {
        let mut each = all.iter();
        if each.all(|&(field, index)| holds(&columns[field], row, index)) {
            encoded.push(0, 1.0);
        }
        encoded.end_row(Pooling::Sum, cross.name())?;
    }
    Ok(encoded.lists)
}

/// Whether `row` has the feature `index`, or none at all.
fn holds(column: &Jagged, row: usize, index: Option<u32>) -> bool {
    let mut features = column.range(row);
    match index {
        Some(index) => features.any(|at| column.indices[at] == index && column.weight(at) != 0.0),
        None => features.is_empty(),
    }
}

/// Every combination of one feature of each member, the last member's changing fastest, with the
/// product of the weights.
fn each_combination(members: &[&Jagged], row: usize, see: &mut impl FnMut(&[u32], f64)) {
    let mut tuple = [0; MOST];
    extend(members, row, 0, &mut tuple, 1.0, see);
}

fn extend(
    members: &[&Jagged],
    row: usize,
    depth: usize,
    tuple: &mut [u32; MOST],
    product: f64,
    see: &mut impl FnMut(&[u32], f64),
) {
    let Some(member) = members.get(depth) else {
        return see(&tuple[..depth], product);
    };
    for at in member.range(row) {
        tuple[depth] = member.indices[at];
        let product = product * f64::from(member.weight(at));
        extend(members, row, depth + 1, tuple, product, see);
    }
}

/// How often the rarest, the median and the most frequent combination occur; `counts` has how many
/// occur so often.
pub(crate) fn spread(counts: &BTreeMap<u64, u64>) -> Option<[u64; 3]> {
    let all: u64 = counts.values().sum();
    let mut before = 0;
    let median = counts.iter().find(|&(_, combinations)| {
        before += combinations;
        before > all / 2
    });
    let (&smallest, &largest) = (counts.keys().next()?, counts.keys().next_back()?);
    Some([smallest, *median?.0, largest])
}

/// The combinations of the training rows, by first appearance.
struct Seen {
    tuples: Tuples,
    counts: Vec<u64>,
}

impl Seen {
    fn new(width: usize) -> Self {
        Self {
            tuples: Tuples::new(width),
            counts: Vec::new(),
        }
    }

    /// Counts a combination, and gives its id.
    fn see(&mut self, tuple: &[u32]) -> u32 {
        let id = self.tuples.intern(tuple);
        if id as usize == self.counts.len() {
            self.counts.push(0);
        }
        self.counts[id as usize] += 1;
        id
    }

    /// The rows of the combinations: hashed, or those that are not too rare, by falling count, then
    /// by first appearance. Beside it the row of each id.
    fn into_vocabulary(
        self,
        cross: &CrossConfig,
        before: Option<&FittedSchema>,
        report: &mut CrossReport,
    ) -> (Vocabulary, Vec<u32>) {
        let Self { tuples, counts } = self;
        report.distinct = Some(counts.len() as u64);
        let mut of_count = BTreeMap::new();
        counts
            .iter()
            .for_each(|&count| *of_count.entry(count).or_insert(0) += 1);
        report.counts = spread(&of_count);
        if let Some(rows) = cross.hash_rows {
            let places = tuples.iter().map(|it| hashed_row(tuple_key(it), rows));
            let places: Vec<u32> = places.collect();
            let (used, share) = shared_rows(places.clone());
            report.kept = Some(used);
            report.collisions = Some(share);
            return (Vocabulary::Hashed { rows }, places);
        }
        let min_count = cross.min_count.unwrap_or(1);
        let mut kept: Vec<u32> = (0..counts.len() as u32)
            .filter(|&id| counts[id as usize] >= min_count)
            .collect();
        // Stable: ids follow first appearance.
        kept.sort_by_key(|&id| Reverse(counts[id as usize]));
        report.kept = Some(kept.len() as u64);
        let mut rows = vec![0; counts.len()];
        let mut by_count = Tuples::with_capacity(tuples.width(), kept.len());
        for &id in &kept {
            rows[id as usize] = by_count.intern(tuples.tuple(id)) + 1;
        }
        let vocabulary = Vocabulary::Combinations {
            tuples: by_count,
            counts: kept.iter().map(|&id| counts[id as usize]).collect(),
        };
        let Some(before) = before.and_then(|it| it.vocabularies.get(cross.name())) else {
            return (vocabulary, rows);
        };
        let vocabulary = vocabulary.behind(before);
        if let Vocabulary::Combinations { tuples: all, .. } = &vocabulary {
            let row = |tuple| all.get(tuple).map_or(0, |id| id + 1);
            rows = tuples.iter().map(row).collect();
        }
        (vocabulary, rows)
    }
}
