//! The rows of all files in memory, column by column, before anything is learned from them.

use crossfield_core::Jagged;
use crossfield_core::rng::name_key;

use crate::config::{LabelConfig, Pooling};
use crate::error::{At, Error, hint, shortened};
use crate::intern::{Interner, mix};

/// The key that all declared missing values of a categorical field share.
pub(crate) const MISSING: &str = "<missing>";

/// What the label is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelKind {
    /// Clicks: 0 or 1.
    Binary,
    /// Any finite number.
    Number,
}

/// Whether each row must have a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Files without labels are an error.
    Required,
    /// Files may lack the label's column, and those of weights and groups.
    Optional,
}

/// What is read out of a cell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Read {
    /// The text, as an id of the dictionary of this number.
    Text { dict: usize },
    /// A 64-bit hash of the text.
    Hash,
    /// A number; missing is NaN, and an error where `required`.
    Number { required: bool },
    /// A list of texts, weighted.
    List {
        dict: usize,
        delimiter: String,
        weight_delimiter: Option<String>,
        pooling: Pooling,
        max_len: usize,
    },
    /// Several columns, each a value or nothing.
    Columns {
        dict: usize,
        padding: Option<String>,
        max_len: usize,
    },
    /// Several columns of 0 and 1; the values are the names of those that are 1.
    Flags { dict: usize, pooling: Pooling },
    /// Row numbers of a libsvm or libffm file.
    Indices { pooling: Pooling },
}

/// A column to keep: where it comes from, and as what.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spec {
    pub(crate) columns: Vec<String>,
    pub(crate) read: Read,
    /// For messages: the part of the run file that needs it.
    pub(crate) wanted_by: String,
}

/// What must hold of a sequence in each row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SequenceCheck {
    /// The field.
    pub(crate) field: String,
    /// Its number among the specs, as those that follow.
    pub(crate) sequence: usize,
    /// A text of the same dictionary that must not be in it.
    pub(crate) target: Option<usize>,
    /// The columns of the times of its values and of the row's own.
    pub(crate) times: Option<[String; 2]>,
    /// A sequence that is as long, and its field.
    pub(crate) beside: Option<(usize, String)>,
}

/// The values of one [`Spec`].
#[derive(Clone, Debug)]
pub(crate) enum Column {
    Text(Vec<u32>),
    Hash(Vec<u64>),
    Number(Vec<f64>),
    List(ListColumn),
}

/// Lists row by row. Offsets and weights come into being when the first row needs them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListColumn {
    pub(crate) lists: Jagged,
    rows: usize,
    start: usize,
}

impl ListColumn {
    /// `rows` empty lists.
    pub(crate) fn empty(rows: usize) -> Self {
        let offsets = (rows > 0).then(|| vec![0; rows + 1]);
        Self {
            lists: Jagged {
                offsets,
                ..Jagged::default()
            },
            rows,
            start: 0,
        }
    }

    pub(crate) fn push(&mut self, index: u32, weight: f32) {
        let lists = &mut self.lists;
        lists.indices.push(index);
        match &mut lists.weights {
            Some(weights) => weights.push(weight),
            None if weight == 1.0 => {}
            None => {
                let mut weights = vec![1.0; lists.indices.len()];
                weights[lists.indices.len() - 1] = weight;
                lists.weights = Some(weights);
            }
        }
    }

    /// Ends the list of a row. With `Mean`, false if its weights add up to nothing to divide by.
    pub(crate) fn end_row(&mut self, pooling: Pooling, what: &str) -> Result<bool, Error> {
        let end = self.lists.indices.len();
        let mut divided = true;
        if pooling == Pooling::Mean {
            divided = self.divide_by_sum(end);
        }
        if u32::try_from(end).is_err() {
            return Err(Error::TooLarge {
                what: format!("the values of {what}"),
                limit: u64::from(u32::MAX),
            });
        }
        self.rows += 1;
        match &mut self.lists.offsets {
            Some(offsets) => offsets.push(end as u32),
            None if end == self.rows => {}
            None => {
                let mut offsets: Vec<u32> = (0..self.rows as u32).collect();
                offsets.push(end as u32);
                self.lists.offsets = Some(offsets);
            }
        }
        self.start = end;
        Ok(divided)
    }

    fn divide_by_sum(&mut self, end: usize) -> bool {
        let count = end - self.start;
        if count == 0 || (count == 1 && self.lists.weight(self.start) == 1.0) {
            return true;
        }
        let sum: f64 = (self.start..end)
            .map(|position| f64::from(self.lists.weight(position)))
            .sum();
        let indices = self.lists.indices.len();
        let weights = self.lists.weights.get_or_insert_with(|| vec![1.0; indices]);
        let mut finite = sum != 0.0;
        for weight in &mut weights[self.start..end] {
            *weight = (f64::from(*weight) / sum) as f32;
            finite &= weight.is_finite();
        }
        finite
    }
}

/// How a label's text becomes a number.
#[derive(Clone)]
pub(crate) struct LabelRule {
    pub(crate) column: String,
    positive: Vec<String>,
    negative: Vec<String>,
    threshold: Option<f64>,
    pub(crate) only_positive: bool,
    kind: LabelKind,
}

impl LabelRule {
    pub(crate) fn new(config: &LabelConfig, kind: LabelKind) -> Result<Self, Error> {
        let fail = |key: &str, value: String, expected: &str| {
            Err(Error::Config {
                key: key.to_owned(),
                value,
                expected: expected.to_owned(),
            })
        };
        if let Some(threshold) = config.threshold {
            if !threshold.is_finite() {
                return fail("label.threshold", threshold.to_string(), "a finite number");
            }
            if !config.positive.is_empty() {
                let value = threshold.to_string();
                return fail("label.threshold", value, "either threshold or positive");
            }
        }
        if config.positive.is_empty() && !config.negative.is_empty() {
            let value = format!("{:?}", config.negative);
            return fail("label.negative", value, "label.positive beside it");
        }
        if let Some(both) = config
            .positive
            .iter()
            .find(|value| config.negative.contains(value))
        {
            return fail(
                "label.negative",
                both.clone(),
                "values that are not positive as well",
            );
        }
        Ok(Self {
            column: config.column.clone(),
            positive: config.positive.clone(),
            negative: config.negative.clone(),
            threshold: config.threshold,
            only_positive: config.only_positive,
            kind,
        })
    }

    pub(crate) fn parse(&self, text: &str, missing: bool, at: At<'_>) -> Result<f32, Error> {
        let is = |values: &[String]| values.iter().any(|value| value == text);
        if is(&self.positive) {
            return Ok(1.0);
        }
        if is(&self.negative) {
            return Ok(0.0);
        }
        if missing {
            return Err(at.value(&self.column, text, "a label (a label cannot be missing)"));
        }
        if !self.positive.is_empty() {
            if self.negative.is_empty() {
                return Ok(0.0);
            }
            let known = [self.positive.as_slice(), &self.negative]
                .concat()
                .join("`, `");
            let expected = format!("one of `{known}` (label.positive and label.negative)");
            return Err(at.value(&self.column, text, expected));
        }
        number(text)
            .and_then(|number| self.of_number(number))
            .ok_or_else(|| at.value(&self.column, text, self.expected()))
    }

    /// Whether labels are numbers, and not words that the run file lists.
    #[cfg(feature = "parquet")]
    pub(crate) fn reads_numbers(&self) -> bool {
        self.positive.is_empty()
    }

    /// The label that a finite number stands for, if it stands for one.
    pub(crate) fn of_number(&self, number: f64) -> Option<f32> {
        match (self.threshold, self.kind) {
            (Some(threshold), _) => Some(f32::from(u8::from(number >= threshold))),
            (None, LabelKind::Number) => Some(number as f32),
            (None, LabelKind::Binary) if number == 1.0 => Some(1.0),
            (None, LabelKind::Binary) if number == 0.0 || number == -1.0 => Some(0.0),
            (None, LabelKind::Binary) => None,
        }
    }

    pub(crate) fn expected(&self) -> &'static str {
        match (self.threshold, self.kind) {
            (None, LabelKind::Binary) => {
                "0, 1 or -1 as a label (set label.threshold or label.positive for other values)"
            }
            _ => "a finite number as a label",
        }
    }
}

/// A finite number that f32 can hold.
pub(crate) fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|&number| is_finite(number))
}

/// Whether f32 can hold it.
pub(crate) fn is_finite(number: f64) -> bool {
    number.abs() <= f64::from(f32::MAX)
}

/// Where the cells of one file's records are.
pub(crate) struct Binding {
    pub(crate) columns: Vec<Vec<usize>>,
    /// The columns of times of each check.
    pub(crate) times: Vec<Option<[usize; 2]>>,
    pub(crate) label: Option<usize>,
    pub(crate) weight: Option<usize>,
    pub(crate) group: Option<usize>,
}

/// What a time is.
pub(crate) const TIME: &str = "a finite number as a time";

/// The times of the values of a sequence, and that of the row.
pub(crate) struct Times {
    pub(crate) past: Vec<f64>,
    pub(crate) now: f64,
}

/// All rows read so far.
pub(crate) struct Table {
    pub(crate) specs: Vec<Spec>,
    pub(crate) checks: Vec<SequenceCheck>,
    /// How many values the row that is being read has, by spec, those that `max_len` cuts off
    /// included.
    pub(crate) lengths: Vec<usize>,
    /// The ids of the names of flag columns, by spec.
    pub(crate) flags: Vec<Vec<u32>>,
    pub(crate) columns: Vec<Column>,
    pub(crate) dicts: Vec<Interner>,
    pub(crate) rule: LabelRule,
    pub(crate) weight: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) missing: Vec<String>,
    required: Labels,
    pub(crate) labels: Vec<f32>,
    pub(crate) weights: Vec<f32>,
    pub(crate) groups: Vec<u32>,
    pub(crate) group_names: Interner,
    pub(crate) rows: usize,
    /// What reads many rows at once stops at this number of them, for whoever takes them away.
    pub(crate) full_at: usize,
    /// Rows that were left out, for they are not positive.
    pub(crate) left_out: u64,
}

impl Table {
    pub(crate) fn new(
        specs: Vec<Spec>,
        checks: Vec<SequenceCheck>,
        n_dicts: usize,
        label: &LabelConfig,
        kind: LabelKind,
        missing: &[String],
        required: Labels,
    ) -> Result<Self, Error> {
        let mut table = Self {
            specs: Vec::new(),
            checks,
            lengths: Vec::new(),
            flags: Vec::new(),
            columns: Vec::new(),
            dicts: (0..n_dicts).map(|_| Interner::default()).collect(),
            rule: LabelRule::new(label, kind)?,
            weight: label.weight.clone(),
            group: label.group.clone(),
            missing: missing.to_vec(),
            required,
            labels: Vec::new(),
            weights: Vec::new(),
            groups: Vec::new(),
            group_names: Interner::default(),
            rows: 0,
            full_at: usize::MAX,
            left_out: 0,
        };
        for spec in specs {
            table.add(spec);
        }
        Ok(table)
    }

    /// One more column, without values in the rows so far.
    pub(crate) fn add(&mut self, spec: Spec) -> usize {
        let mut flags = Vec::new();
        self.columns.push(match &spec.read {
            Read::Text { .. } => Column::Text(Vec::new()),
            Read::Hash => Column::Hash(Vec::new()),
            Read::Number { .. } => Column::Number(Vec::new()),
            Read::Flags { dict, .. } => {
                flags = spec
                    .columns
                    .iter()
                    .map(|name| self.dicts[*dict].intern(name))
                    .collect();
                Column::List(ListColumn::default())
            }
            Read::List { .. } | Read::Columns { .. } | Read::Indices { .. } => {
                Column::List(ListColumn::empty(self.rows))
            }
        });
        self.lengths.push(0);
        self.flags.push(flags);
        self.specs.push(spec);
        self.specs.len() - 1
    }

    /// The rows so far, which are gone then. Numbers of groups and of rows that were left out go on.
    pub(crate) fn take(&mut self) -> Self {
        let mut next = Self {
            specs: Vec::new(),
            checks: self.checks.clone(),
            lengths: Vec::new(),
            flags: Vec::new(),
            columns: Vec::new(),
            dicts: self.dicts.iter().map(|_| Interner::default()).collect(),
            rule: self.rule.clone(),
            weight: self.weight.clone(),
            group: self.group.clone(),
            missing: self.missing.clone(),
            required: self.required,
            labels: Vec::new(),
            weights: Vec::new(),
            groups: Vec::new(),
            group_names: std::mem::take(&mut self.group_names),
            rows: 0,
            left_out: self.left_out,
            full_at: self.full_at,
        };
        for spec in &self.specs {
            next.add(spec.clone());
        }
        std::mem::replace(self, next)
    }

    /// Begins to number groups anew.
    pub(crate) fn forget_groups(&mut self) {
        self.group_names = Interner::default();
    }

    /// Finds the columns of `header`, the columns of `file` and of what is joined to it.
    pub(crate) fn bind(&self, file: &str, header: &[&str]) -> Result<Binding, Error> {
        let find = |column: &str, wanted_by: &str| {
            header
                .iter()
                .position(|name| *name == column)
                .ok_or_else(|| Error::NoColumn {
                    wanted_by: wanted_by.to_owned(),
                    file: file.to_owned(),
                    column: column.to_owned(),
                    hint: hint(column, header.iter().copied()),
                })
        };
        let mut columns = Vec::new();
        for spec in &self.specs {
            let mut found = Vec::new();
            for column in &spec.columns {
                let ends = match (&spec.read, column.split_once("..")) {
                    (Read::Columns { .. }, Some(ends)) if !header.contains(&column.as_str()) => {
                        ends
                    }
                    _ => {
                        found.push(find(column, &spec.wanted_by)?);
                        continue;
                    }
                };
                let first = find(ends.0, &spec.wanted_by)?;
                let last = find(ends.1, &spec.wanted_by)?;
                if first > last {
                    return Err(Error::Config {
                        key: format!("{}: columns", spec.wanted_by),
                        value: column.clone(),
                        expected: format!("the first of them first, as `{file}` has them"),
                    });
                }
                found.extend(first..=last);
            }
            columns.push(found);
        }
        let mut times = Vec::new();
        for check in &self.checks {
            let wanted_by = format!("field `{}`", check.field);
            times.push(match &check.times {
                Some([times, time]) => Some([find(times, &wanted_by)?, find(time, &wanted_by)?]),
                None => None,
            });
        }
        let target = |column: Option<&String>, key: &str| match (column, self.required) {
            (None, _) => Ok(None),
            (Some(column), Labels::Required) => find(column, key).map(Some),
            (Some(column), Labels::Optional) => Ok(find(column, key).ok()),
        };
        Ok(Binding {
            columns,
            times,
            label: target(Some(&self.rule.column), "label.column")?,
            weight: target(self.weight.as_ref(), "label.weight")?,
            group: target(self.group.as_ref(), "label.group")?,
        })
    }

    /// One record.
    pub(crate) fn push(
        &mut self,
        cells: &[&str],
        binding: &Binding,
        at: At<'_>,
    ) -> Result<(), Error> {
        if self.rule.only_positive
            && let Some(place) = binding.label
        {
            let missing = is_missing(&self.missing, cells[place]);
            if self.rule.parse(cells[place], missing, at)? == 0.0 {
                self.left_out += 1;
                return Ok(());
            }
        }
        for (id, spec) in self.specs.iter().enumerate() {
            let places = &binding.columns[id];
            let name = spec.columns.first().map_or("", String::as_str);
            let cell = places.first().map_or("", |&place| cells[place]);
            let missing = is_missing(&self.missing, cell);
            match (&mut self.columns[id], &spec.read) {
                (Column::Text(ids), Read::Text { dict }) => {
                    ids.push(self.dicts[*dict].intern(if missing { MISSING } else { cell }));
                }
                (Column::Hash(keys), Read::Hash) => {
                    keys.push(mix(name_key(if missing { MISSING } else { cell })));
                }
                (Column::Number(numbers), Read::Number { required }) => {
                    numbers.push(match number(cell) {
                        _ if missing && !required => f64::NAN,
                        Some(number) => number,
                        None if *required => {
                            return Err(at.value(name, cell, "a finite number"));
                        }
                        None => {
                            let expected = "a finite number (or declare it in data.missing)";
                            return Err(at.value(name, cell, expected));
                        }
                    });
                }
                (Column::List(list), Read::List { .. }) => {
                    let length = push_list(list, &mut self.dicts, spec, name, cell, missing, at)?;
                    self.lengths[id] = length;
                }
                (
                    Column::List(list),
                    Read::Columns {
                        dict,
                        padding,
                        max_len,
                    },
                ) => {
                    let is_value = |cell: &str| {
                        let none = cell.is_empty() || padding.as_deref() == Some(cell);
                        !none && !is_missing(&self.missing, cell)
                    };
                    let values = places.iter().map(|&place| cells[place]);
                    let values = values.filter(|cell| is_value(cell));
                    let length = values.clone().count();
                    for value in values.skip(skipped(length, *max_len)) {
                        list.push(self.dicts[*dict].intern(value), 1.0);
                    }
                    list.end_row(Pooling::Sum, &spec.wanted_by)?;
                    self.lengths[id] = length;
                }
                (Column::List(list), Read::Flags { pooling, .. }) => {
                    for ((&place, &flag), column) in
                        places.iter().zip(&self.flags[id]).zip(&spec.columns)
                    {
                        match cells[place] {
                            "0" => {}
                            "1" => list.push(flag, 1.0),
                            other => return Err(at.value(column, other, "0 or 1")),
                        }
                    }
                    list.end_row(*pooling, &spec.wanted_by)?;
                }
                _ => unreachable!("a column is made for what its spec reads"),
            }
        }
        for (check, places) in self.checks.iter().zip(&binding.times) {
            let times = || match places {
                Some(places) => self.times(check, places.map(|place| cells[place]), at),
                None => Ok(None),
            };
            self.check(check, self.rows, times, at)?;
        }
        let target = |place: Option<usize>| place.map(|place| cells[place]);
        self.push_targets(
            target(binding.label),
            target(binding.weight),
            target(binding.group),
            at,
        )
    }

    /// The times of the values of a sequence, and the row's own, of their cells.
    pub(crate) fn times(
        &self,
        check: &SequenceCheck,
        [past, now]: [&str; 2],
        at: At<'_>,
    ) -> Result<Option<Times>, Error> {
        let Some([past_name, now_name]) = &check.times else {
            return Ok(None);
        };
        let Read::List { delimiter, .. } = &self.specs[check.sequence].read else {
            unreachable!("times are of a sequence in one column");
        };
        let parse =
            |column: &str, text: &str| number(text).ok_or_else(|| at.value(column, text, TIME));
        let now = parse(now_name, now)?;
        let missing = past.is_empty() || is_missing(&self.missing, past);
        let texts = past.split(delimiter.as_str()).filter(|_| !missing);
        let past = texts.map(|text| parse(past_name, text));
        let past = past.collect::<Result<_, _>>()?;
        Ok(Some(Times { past, now }))
    }

    /// Whether a sequence of `row`, the one that is being read, is what it should be. `times` are
    /// those of its values and the row's own.
    pub(crate) fn check(
        &self,
        check: &SequenceCheck,
        row: usize,
        times: impl FnOnce() -> Result<Option<Times>, Error>,
        at: At<'_>,
    ) -> Result<(), Error> {
        let spec = &self.specs[check.sequence];
        let fail = |problem: String, expected: &'static str| {
            Err(Error::Sequence {
                file: at.file.to_owned(),
                place: at.place,
                field: check.field.as_str().into(),
                column: spec.columns.first().map_or("", String::as_str).into(),
                problem: problem.into(),
                expected,
            })
        };
        let length = self.lengths[check.sequence];
        if let Some((other, name)) = &check.beside
            && self.lengths[*other] != length
        {
            let problem = format!(
                "{length} values beside {} of `{name}`",
                self.lengths[*other]
            );
            return fail(problem, "one for each");
        }
        if let Some(target) = check.target
            && let Column::Text(ids) = &self.columns[target]
            && let Column::List(list) = &self.columns[check.sequence]
            && list.lists.indices[list.lists.range(row)].contains(&ids[row])
            && let Read::Text { dict } = self.specs[target].read
        {
            let target = shortened(self.dicts[dict].text(ids[row]));
            return fail(
                format!("the history holds the target `{target}` itself"),
                "only what came before it (`repeats = true` where people come back to what they \
                 had, `beside` where this describes the items of another sequence)",
            );
        }
        let (Some(Times { past, now }), Some([past_name, now_name])) = (times()?, &check.times)
        else {
            return Ok(());
        };
        let (mut before, count) = (f64::NEG_INFINITY, past.len());
        for time in past {
            if time < before {
                let problem = format!("time {time} behind {before} in column `{past_name}`");
                return fail(problem, "times that do not fall: the oldest item first");
            }
            if time >= now {
                let problem = format!(
                    "time {time} in column `{past_name}`, with {now} of the row in `{now_name}`"
                );
                return fail(problem, "only what came before the row");
            }
            before = time;
        }
        if count != length {
            let problem = format!("{count} times in column `{past_name}` for {length} values");
            return fail(problem, "one for each");
        }
        Ok(())
    }

    /// The label, weight and group of one record; ends the record.
    pub(crate) fn push_targets(
        &mut self,
        label: Option<&str>,
        weight: Option<&str>,
        group: Option<&str>,
        at: At<'_>,
    ) -> Result<(), Error> {
        if let Some(text) = label {
            let missing = is_missing(&self.missing, text);
            self.labels.push(self.rule.parse(text, missing, at)?);
        }
        if let Some(text) = weight {
            let column = self.weight.as_deref().unwrap_or_default();
            let weight = number(text)
                .filter(|&weight| weight >= 0.0)
                .ok_or_else(|| at.value(column, text, "a finite weight of at least 0"))?;
            self.weights.push(weight as f32);
        }
        if let Some(text) = group {
            let text = if is_missing(&self.missing, text) {
                MISSING
            } else {
                text
            };
            self.groups.push(self.group_names.intern(text));
        }
        let now = [label.is_some(), weight.is_some(), group.is_some()];
        self.check_targets(now, self.rows + 1, at)?;
        self.rows += 1;
        if self.rows >= u32::MAX as usize {
            let limit = u64::from(u32::MAX - 1);
            return Err(Error::TooLarge {
                what: "the rows of all files".to_owned(),
                limit,
            });
        }
        Ok(())
    }

    /// Refuses rows that have a label, a weight or a group where those before them have none, or the
    /// other way round; `rows` are as many as a column has that is there.
    pub(crate) fn check_targets(
        &self,
        [label, weight, group]: [bool; 3],
        rows: usize,
        at: At<'_>,
    ) -> Result<(), Error> {
        for (found, now, has, lacks) in [
            (
                self.labels.len(),
                label,
                "it has a label",
                "it has no label",
            ),
            (
                self.weights.len(),
                weight,
                "it has a weight",
                "it has no weight",
            ),
            (
                self.groups.len(),
                group,
                "it has a group",
                "it has no group",
            ),
        ] {
            if found != if now { rows } else { 0 } {
                return Err(Error::Inconsistent {
                    file: at.file.to_owned(),
                    place: at.place,
                    found: if now { has } else { lacks },
                });
            }
        }
        Ok(())
    }

    /// How the lists of each column are pooled.
    pub(crate) fn poolings(&self) -> Vec<Pooling> {
        let pooling = |spec: &Spec| match spec.read {
            Read::List { pooling, .. }
            | Read::Flags { pooling, .. }
            | Read::Indices { pooling } => pooling,
            Read::Text { .. } | Read::Hash | Read::Number { .. } | Read::Columns { .. } => {
                Pooling::Sum
            }
        };
        self.specs.iter().map(pooling).collect()
    }

    /// The name of the label's column, for messages.
    pub(crate) fn label_column(&self) -> &str {
        &self.rule.column
    }

    pub(crate) fn labels_required(&self) -> bool {
        self.required == Labels::Required
    }
}

pub(crate) fn is_missing(missing: &[String], cell: &str) -> bool {
    missing.iter().any(|declared| declared == cell)
}

/// How many of `length` values are before the last `max_len`; 0 keeps all.
pub(crate) fn skipped(length: usize, max_len: usize) -> usize {
    match max_len {
        0 => 0,
        _ => length.saturating_sub(max_len),
    }
}

/// The values of a cell; gives their number, those that `max_len` cuts off included.
pub(crate) fn push_list(
    list: &mut ListColumn,
    dicts: &mut [Interner],
    spec: &Spec,
    name: &str,
    cell: &str,
    missing: bool,
    at: At<'_>,
) -> Result<usize, Error> {
    let mut length = 0;
    let Read::List {
        dict,
        delimiter,
        weight_delimiter,
        pooling,
        max_len,
    } = &spec.read
    else {
        unreachable!("only lists are read here");
    };
    if !missing && !cell.is_empty() {
        length = cell.split(delimiter.as_str()).count();
        let skipped = skipped(length, *max_len);
        for (position, entry) in cell.split(delimiter.as_str()).enumerate() {
            let (value, weight) = weighted(entry, weight_delimiter.as_deref(), name, at)?;
            if value.is_empty() {
                let expected = format!("no empty value in a list (`{delimiter}` separates values)");
                return Err(at.value(name, cell, expected));
            }
            if position >= skipped {
                list.push(dicts[*dict].intern(value), weight);
            }
        }
    }
    if !list.end_row(*pooling, &spec.wanted_by)? {
        return Err(at.value(name, cell, NO_SUM));
    }
    Ok(length)
}

/// What the weights of a mean are.
pub(crate) const NO_SUM: &str = "weights whose sum is not 0 (pooling = \"mean\")";

/// The value of an entry of a list, and its weight.
pub(crate) fn weighted<'a>(
    entry: &'a str,
    weight_delimiter: Option<&str>,
    name: &str,
    at: At<'_>,
) -> Result<(&'a str, f32), Error> {
    let Some(between) = weight_delimiter else {
        return Ok((entry, 1.0));
    };
    let pair = entry.rsplit_once(between);
    let pair = pair.and_then(|(value, text)| Some((value, number(text)?)));
    let (value, weight) = pair.ok_or_else(|| {
        let expected = format!("value{between}weight, the weight finite");
        at.value(name, entry, expected)
    })?;
    Ok((value, weight as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_stay_one_hot_until_a_row_is_not() {
        let mut column = ListColumn::default();
        for index in [7, 8] {
            column.push(index, 1.0);
            column.end_row(Pooling::Sum, "f").unwrap();
        }
        assert!(column.lists.is_one_hot());
        column.end_row(Pooling::Sum, "f").unwrap();
        column.push(9, 0.5);
        column.push(7, 1.0);
        column.end_row(Pooling::Sum, "f").unwrap();
        assert_eq!(column.lists.indices, [7, 8, 9, 7]);
        assert_eq!(column.lists.offsets, Some(vec![0, 1, 2, 2, 4]));
        assert_eq!(column.lists.weights, Some(vec![1.0, 1.0, 0.5, 1.0]));
        assert_eq!(column.lists.rows(), 4);
    }

    #[test]
    fn means_divide_by_the_sum_of_weights() {
        let mut column = ListColumn::empty(1);
        column.push(1, 1.0);
        column.push(2, 3.0);
        assert!(column.end_row(Pooling::Mean, "f").unwrap());
        column.push(1, 1.0);
        column.push(2, -1.0);
        assert!(!column.end_row(Pooling::Mean, "f").unwrap());
        assert_eq!(column.lists.offsets, Some(vec![0, 0, 2, 4]));
        assert_eq!(column.lists.weights.unwrap()[..2], [0.25, 0.75]);
    }

    #[test]
    fn labels_follow_their_rule() {
        let parse = |config: &LabelConfig, kind, text: &str| {
            let at = At::line("a.csv", 2);
            let rule = LabelRule::new(config, kind).unwrap();
            rule.parse(text, text.is_empty(), at)
                .map_err(|error| error.to_string())
        };
        let plain = LabelConfig::default();
        assert_eq!(parse(&plain, LabelKind::Binary, "-1"), Ok(0.0));
        assert_eq!(parse(&plain, LabelKind::Binary, "1.0"), Ok(1.0));
        assert_eq!(
            parse(&plain, LabelKind::Binary, "3").unwrap_err(),
            "`a.csv` line 2, column `label`: `3`; expected 0, 1 or -1 as a label (set \
             label.threshold or label.positive for other values)"
        );
        assert_eq!(parse(&plain, LabelKind::Number, "3.5"), Ok(3.5));
        for text in ["NaN", "inf", "1e39"] {
            assert_eq!(
                parse(&plain, LabelKind::Number, text).unwrap_err(),
                format!(
                    "`a.csv` line 2, column `label`: `{text}`; expected a finite number as a label"
                )
            );
        }
        assert_eq!(
            parse(&plain, LabelKind::Number, "").unwrap_err(),
            "`a.csv` line 2, column `label`: ``; expected a label (a label cannot be missing)"
        );
        let threshold = LabelConfig {
            threshold: Some(4.0),
            ..LabelConfig::default()
        };
        assert_eq!(parse(&threshold, LabelKind::Binary, "4"), Ok(1.0));
        assert_eq!(parse(&threshold, LabelKind::Binary, "3.9"), Ok(0.0));
        let positive = LabelConfig {
            positive: vec!["yes".into()],
            ..LabelConfig::default()
        };
        assert_eq!(parse(&positive, LabelKind::Binary, "yes"), Ok(1.0));
        assert_eq!(parse(&positive, LabelKind::Binary, "maybe"), Ok(0.0));
        let both = LabelConfig {
            negative: vec!["no".into()],
            ..positive
        };
        assert_eq!(
            parse(&both, LabelKind::Binary, "maybe").unwrap_err(),
            "`a.csv` line 2, column `label`: `maybe`; expected one of `yes`, `no` (label.positive \
             and label.negative)"
        );
    }
}
