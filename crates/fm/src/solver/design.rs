//! The training rows, as sweeps over parameters read them.

use std::collections::BTreeMap;

use crossfield_core::{Examples, FieldId, Schema};

use super::SolverError;

/// Which columns a field's indices are: index `i` is column `base + i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldColumns {
    /// The field.
    pub field: FieldId,
    /// Its first column. Fields that share parameters share it.
    pub base: u32,
    /// Number of its columns.
    pub rows: u32,
}

/// The numbering of all features by columns, each with one `w` and one `v`, and their groups.
///
/// ```text
/// field     base  rows     column 0 1 2 3 4
/// user      0     3        group  0 0 0 1 1
/// item      3     2
/// seen      3     2        shares the columns of item
/// ```
///
/// Columns of one group share their prior: in MCMC a mean and a precision, drawn with the rest.
///
/// ```
/// use crossfield_core::{Field, FieldKind, Schema};
/// use crossfield_fm::solver::Columns;
///
/// let field = |name: &str, vocabulary: &str, rows| Field {
///     name: name.into(),
///     kind: FieldKind::Categorical,
///     vocabulary: vocabulary.into(),
///     rows,
///     oov_row: None,
/// };
/// let schema = Schema {
///     fields: vec![field("user", "user", 3), field("item", "item", 2), field("seen", "item", 2)],
///     dense: vec![],
/// };
/// let columns = Columns::of(&schema, &[0, 1, 2])?;
/// assert_eq!(columns.groups(), [0, 0, 0, 1, 1]);
/// assert_eq!(columns.fields()[1].base, columns.fields()[2].base);
/// # Ok::<(), crossfield_fm::solver::SolverError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Columns {
    fields: Vec<FieldColumns>,
    groups: Vec<u32>,
}

impl Columns {
    /// The columns of `fields`, with the group of each column.
    ///
    /// # Errors
    /// [`SolverError::FieldColumns`] for columns beyond the last group, and for two fields that
    /// share some columns but not all.
    pub fn new(fields: Vec<FieldColumns>, groups: Vec<u32>) -> Result<Self, SolverError> {
        for (position, one) in fields.iter().enumerate() {
            let end = u64::from(one.base) + u64::from(one.rows);
            let overlaps = |other: &FieldColumns| {
                u64::from(one.base) < u64::from(other.base) + u64::from(other.rows)
                    && u64::from(other.base) < end
                    && (one.base, one.rows) != (other.base, other.rows)
            };
            if end > groups.len() as u64 || fields[..position].iter().any(overlaps) {
                return Err(SolverError::FieldColumns {
                    field: one.field,
                    base: one.base,
                    end,
                    columns: groups.len(),
                });
            }
        }
        Ok(Self { fields, groups })
    }

    /// Columns for `fields` of a schema: a range and a group for each vocabulary, in the order in
    /// which the fields name them.
    ///
    /// # Errors
    /// [`SolverError::FieldColumns`] if there are more than a `u32` counts.
    ///
    /// # Panics
    /// If the schema has no such field.
    pub fn of(schema: &Schema, fields: &[FieldId]) -> Result<Self, SolverError> {
        let mut bases = BTreeMap::new();
        let mut groups = Vec::new();
        let mut ranges = Vec::with_capacity(fields.len());
        for &field in fields {
            let described = &schema.fields[field];
            let next = bases.len() as u32;
            let base = *bases
                .entry(described.vocabulary.as_str())
                .or_insert_with(|| {
                    let base = groups.len();
                    groups.resize(base + described.rows as usize, next);
                    base
                });
            if groups.len() > u32::MAX as usize {
                return Err(SolverError::FieldColumns {
                    field,
                    base: u32::MAX,
                    end: groups.len() as u64,
                    columns: u32::MAX as usize,
                });
            }
            ranges.push(FieldColumns {
                field,
                base: base as u32,
                rows: described.rows,
            });
        }
        Self::new(ranges, groups)
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The columns of each field.
    pub fn fields(&self) -> &[FieldColumns] {
        &self.fields
    }

    /// The group of each column.
    pub fn groups(&self) -> &[u32] {
        &self.groups
    }

    /// Whether no other field has the columns of the one at `position`.
    fn alone(&self, position: usize) -> bool {
        let base = self.fields[position].base;
        self.fields
            .iter()
            .filter(|other| other.base == base)
            .count()
            == 1
    }
}

/// Where the indices of a field lie in [`Examples`].
#[derive(Clone, Copy, Debug)]
enum Source {
    OneHot(usize),
    List(usize),
}

/// Reads rows of [`Examples`] as columns and values.
#[derive(Clone, Debug)]
pub(crate) struct RowReader<'a> {
    examples: &'a Examples<'a>,
    /// Fields of one feature of weight 1 a row, whose columns no other field has.
    single: Vec<(FieldColumns, usize)>,
    /// The others, in which a column may come twice.
    several: Vec<(FieldColumns, Source)>,
}

impl<'a> RowReader<'a> {
    pub(crate) fn new(examples: &'a Examples<'a>, columns: &Columns) -> Result<Self, SolverError> {
        let mut reader = Self {
            examples,
            single: Vec::new(),
            several: Vec::new(),
        };
        for (position, &one) in columns.fields.iter().enumerate() {
            let hot = examples.one_hot_fields.iter();
            let mut lists = examples.lists.iter();
            if let Some(at) = hot.clone().position(|&field| field == one.field) {
                if columns.alone(position) {
                    reader.single.push((one, at));
                } else {
                    reader.several.push((one, Source::OneHot(at)));
                }
            } else if let Some(at) = lists.position(|list| list.field == one.field) {
                reader.several.push((one, Source::List(at)));
            } else {
                return Err(SolverError::MissingField(one.field));
            }
        }
        Ok(reader)
    }

    /// The column of a row in each of the `single` fields, of value 1.
    fn read_single(&self, row: usize, out: &mut Vec<(u32, f32)>) -> Result<(), SolverError> {
        let hot = self.examples.one_hot_of(row);
        for (one, at) in &self.single {
            out.push((column(one, row, hot[*at])?, 1.0));
        }
        Ok(())
    }

    /// The columns and values of a row in the `several` fields, rising and each once: what a row
    /// has twice counts as one feature of the summed value.
    fn read_several(&self, row: usize, out: &mut Vec<(u32, f32)>) -> Result<(), SolverError> {
        let start = out.len();
        for (one, source) in &self.several {
            match *source {
                Source::OneHot(at) => {
                    out.push((column(one, row, self.examples.one_hot_of(row)[at])?, 1.0));
                }
                Source::List(at) => {
                    let list = &self.examples.lists[at];
                    for position in list.range(row) {
                        let value = list.weight(position);
                        if !value.is_finite() {
                            return Err(SolverError::Weight {
                                row,
                                field: one.field,
                                value,
                            });
                        }
                        out.push((column(one, row, list.indices[position])?, value));
                    }
                }
            }
        }
        let several = &mut out[start..];
        if several.is_sorted_by(|a, b| a.0 < b.0) {
            return Ok(());
        }
        // Stable, so that equal columns are added in the order in which they came.
        several.sort_by_key(|&(column, _)| column);
        let mut last = start;
        for at in start + 1..out.len() {
            if out[at].0 == out[last].0 {
                out[last].1 += out[at].1;
            } else {
                last += 1;
                out[last] = out[at];
            }
        }
        out.truncate(last + 1);
        Ok(())
    }

    /// All columns and values of a row; `out` is emptied first.
    pub(crate) fn read(&self, row: usize, out: &mut Vec<(u32, f32)>) -> Result<(), SolverError> {
        out.clear();
        self.read_single(row, out)?;
        self.read_several(row, out)
    }
}

fn column(field: &FieldColumns, row: usize, index: u32) -> Result<u32, SolverError> {
    if index < field.rows {
        Ok(field.base + index)
    } else {
        Err(SolverError::Index {
            row,
            field: field.field,
            index,
            rows: field.rows,
        })
    }
}

/// The training rows, compressed by column for updates, and by row for scores.
///
/// A field of which every row has one feature of value 1 takes eight bytes a row: the column of
/// each row, and the rows of each column. The other fields take eight bytes a feature, and eight
/// more where values are not all 1.
///
/// ```
/// use crossfield_core::Examples;
/// use crossfield_fm::solver::{Columns, Design, FieldColumns};
///
/// let examples = Examples {
///     rows: 2,
///     one_hot_fields: &[0, 1],
///     one_hot: &[2, 0, 1, 1],
///     lists: vec![],
///     labels: &[],
///     weights: None,
/// };
/// let user = FieldColumns { field: 0, base: 0, rows: 3 };
/// let item = FieldColumns { field: 1, base: 3, rows: 2 };
/// let columns = Columns::new(vec![user, item], vec![0, 0, 0, 1, 1])?;
/// let design = Design::new(&examples, &columns)?;
/// assert_eq!((design.rows(), design.columns()), (2, 5));
/// // User 0 is in no row.
/// assert!(!design.occurs(0) && design.occurs(1));
/// # Ok::<(), crossfield_fm::solver::SolverError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Design {
    rows: usize,
    groups: Vec<u32>,
    group_count: usize,
    occurs: Vec<bool>,
    /// Fields of one feature of value 1 a row: the column of each row.
    single: Vec<Vec<u32>>,
    /// Columns and values of each row in the other fields.
    by_row: Compressed,
    /// Rows and values of each column that occurs, by field.
    by_column: Vec<(Vec<u32>, Compressed)>,
}

/// Sparse entries, line by line: rows of columns, or columns of rows.
#[derive(Clone, Debug, Default)]
struct Compressed {
    offsets: Vec<usize>,
    indices: Vec<u32>,
    values: Option<Vec<f32>>,
}

/// A line of sparse entries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Line<'a> {
    /// The columns of a row, or the rows of a column, rising.
    pub(crate) indices: &'a [u32],
    /// Their values; `None`: all are 1.
    pub(crate) values: Option<&'a [f32]>,
}

impl Compressed {
    fn line(&self, line: usize) -> Line<'_> {
        let range = self.offsets[line]..self.offsets[line + 1];
        Line {
            indices: &self.indices[range.clone()],
            values: self.values.as_ref().map(|values| &values[range]),
        }
    }
}

impl Design {
    /// Reads all rows; labels and sample weights are not looked at.
    ///
    /// # Errors
    /// [`SolverError::NoRows`], [`SolverError::TooManyRows`], [`SolverError::MissingField`],
    /// [`SolverError::Index`] and [`SolverError::Weight`].
    pub fn new(examples: &Examples, columns: &Columns) -> Result<Self, SolverError> {
        let rows = examples.rows;
        if rows == 0 {
            return Err(SolverError::NoRows);
        }
        if rows > u32::MAX as usize {
            return Err(SolverError::TooManyRows(rows));
        }
        let reader = RowReader::new(examples, columns)?;
        let mut occurs = vec![false; columns.len()];
        let mut single = vec![Vec::with_capacity(rows); reader.single.len()];
        let mut by_row = Compressed {
            offsets: Vec::with_capacity(rows + 1),
            indices: Vec::new(),
            values: None,
        };
        by_row.offsets.push(0);
        let mut values = Vec::new();
        let mut features = Vec::new();
        for row in 0..rows {
            features.clear();
            reader.read_single(row, &mut features)?;
            for (out, &(column, _)) in single.iter_mut().zip(&features) {
                out.push(column);
                occurs[column as usize] = true;
            }
            features.clear();
            reader.read_several(row, &mut features)?;
            for &(column, value) in &features {
                by_row.indices.push(column);
                values.push(value);
                occurs[column as usize] = true;
            }
            by_row.offsets.push(by_row.indices.len());
        }
        by_row.values = values.iter().any(|&value| value != 1.0).then_some(values);
        let mut by_column: Vec<_> = single
            .iter()
            .map(|of_row| transpose(columns.len(), None, |row| &of_row[row..row + 1], rows))
            .collect();
        let values = by_row.values.as_deref();
        by_column.push(transpose(
            columns.len(),
            values,
            |row| by_row.line(row).indices,
            rows,
        ));
        Ok(Self {
            rows,
            groups: columns.groups.clone(),
            group_count: columns
                .groups
                .iter()
                .max()
                .map_or(0, |&last| last as usize + 1),
            occurs,
            single,
            by_row,
            by_column,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.groups.len()
    }

    /// The group of each column.
    pub fn groups(&self) -> &[u32] {
        &self.groups
    }

    /// Number of groups.
    pub fn group_count(&self) -> usize {
        self.group_count
    }

    /// Whether any row has the column.
    pub fn occurs(&self, column: usize) -> bool {
        self.occurs[column]
    }

    /// The columns and values of a row.
    pub(crate) fn read(&self, row: usize, out: &mut Vec<(u32, f32)>) {
        out.clear();
        out.extend(self.single.iter().map(|field| (field[row], 1.0)));
        let line = self.by_row.line(row);
        match line.values {
            None => out.extend(line.indices.iter().map(|&column| (column, 1.0))),
            Some(values) => {
                out.extend(line.indices.iter().copied().zip(values.iter().copied()));
            }
        }
    }

    /// The columns that occur and their entries, field by field.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, Line<'_>)> {
        self.by_column.iter().flat_map(|(columns, entries)| {
            let lines = (0..columns.len()).map(|line| entries.line(line));
            columns.iter().map(|&column| column as usize).zip(lines)
        })
    }
}

/// Entries by column, from the columns of each row and the values in their order.
fn transpose<'a>(
    columns: usize,
    values: Option<&[f32]>,
    of_row: impl Fn(usize) -> &'a [u32],
    rows: usize,
) -> (Vec<u32>, Compressed) {
    let mut next = vec![0usize; columns];
    for row in 0..rows {
        for &column in of_row(row) {
            next[column as usize] += 1;
        }
    }
    let mut occurring = Vec::new();
    let mut offsets = vec![0];
    let mut total = 0;
    for (column, count) in next.iter_mut().enumerate() {
        let start = total;
        if *count > 0 {
            occurring.push(column as u32);
            total += *count;
            offsets.push(total);
        }
        *count = start;
    }
    let mut entries = Compressed {
        offsets,
        indices: vec![0; total],
        values: values.map(|_| vec![0.0; total]),
    };
    let mut at = 0;
    for row in 0..rows {
        for &column in of_row(row) {
            let place = next[column as usize];
            next[column as usize] += 1;
            entries.indices[place] = row as u32;
            if let (Some(out), Some(values)) = (&mut entries.values, values) {
                out[place] = values[at];
            }
            at += 1;
        }
    }
    (occurring, entries)
}
