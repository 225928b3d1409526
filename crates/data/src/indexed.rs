//! libsvm (libFM) and libffm files: the index in the file is a row number.

use crossfield_core::FieldKind;

use crate::config::{DataConfig, FieldConfig, Format, Pooling};
use crate::error::{At, Error};
use crate::line::LineReader;
use crate::raw::{Column, Read, Spec, Table};

/// Field numbers of a libffm file beyond this are taken for a mistake.
pub(crate) const MAX_FIELD: u64 = 65_535;

/// Name of the one field of a libsvm file.
const FEATURES: &str = "features";

/// The vocabulary of all fields that the run file does not declare.
pub(crate) const INDEX: &str = "index";

/// The field that a field number (libsvm: 0) is where the run file declares none.
pub(crate) fn default_field(format: Format, number: usize) -> FieldConfig {
    let field = FieldConfig {
        name: default_name(format, number),
        kind: FieldKind::Bag,
        vocabulary: Some(INDEX.to_owned()),
        ..FieldConfig::default()
    };
    field.complete(format)
}

fn default_name(format: Format, number: usize) -> String {
    match format {
        Format::Libsvm => FEATURES.to_owned(),
        _ => number.to_string(),
    }
}

/// Which column of the table takes the pairs of each field number.
#[derive(Default)]
pub(crate) struct Columns {
    /// By field number (libsvm: 0 alone): the columns that read it.
    by_number: Vec<Vec<usize>>,
    /// Whether each number of the files becomes a column of its own.
    open: bool,
    /// Whether a number without a column is an error.
    closed: bool,
}

impl Columns {
    /// Columns for the fields that the run file declares; other numbers are not kept.
    pub(crate) fn declared(format: Format, specs: &[Spec], file: &str) -> Result<Self, Error> {
        let mut columns = Self::default();
        for (id, spec) in specs
            .iter()
            .enumerate()
            .filter(|(_, spec)| is_indices(spec))
        {
            let name = spec.columns[0].as_str();
            let number = match format {
                Format::Libsvm => (name == FEATURES).then_some(0),
                _ => name.parse().ok().filter(|&number| number <= MAX_FIELD),
            };
            let number = number.ok_or_else(|| Error::NoColumn {
                wanted_by: spec.wanted_by.clone(),
                file: file.to_owned(),
                column: name.to_owned(),
                hint: match format {
                    Format::Libsvm => format!("a libsvm file has `{FEATURES}`"),
                    _ => format!("the columns of a libffm file are its fields, 0 to {MAX_FIELD}"),
                },
            })?;
            columns.add(number as usize, id);
        }
        Ok(columns)
    }

    /// A column for every number that the train files have.
    pub(crate) fn open() -> Self {
        Self {
            open: true,
            ..Self::default()
        }
    }

    /// From now on, a number without a column is an error.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.open = false;
    }

    /// Numbers with a column, and the column.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = (usize, usize)> {
        self.by_number
            .iter()
            .enumerate()
            .flat_map(|(number, ids)| ids.iter().map(move |&id| (number, id)))
    }

    fn add(&mut self, number: usize, id: usize) {
        if self.by_number.len() <= number {
            self.by_number.resize(number + 1, Vec::new());
        }
        self.by_number[number].push(id);
    }
}

fn is_indices(spec: &Spec) -> bool {
    matches!(spec.read, Read::Indices { .. })
}

/// The spec of the default field for `number`.
pub(crate) fn default_spec(name: &str) -> Spec {
    Spec {
        columns: vec![name.to_owned()],
        read: Read::Indices {
            pooling: Pooling::Sum,
        },
        wanted_by: format!("field `{name}`"),
    }
}

/// Reads a file into `table`, but for the first `skip` records, by which `skip` falls; `after` is
/// called after each record.
pub(crate) fn read<E: From<Error>>(
    table: &mut Table,
    columns: &mut Columns,
    file: &str,
    data: &DataConfig,
    skip: &mut u64,
    after: &mut dyn FnMut(&mut Table) -> Result<(), E>,
) -> Result<(), E> {
    let mut lines = LineReader::open(file, data.encoding, data.max_line)?;
    let mut poolings = table.poolings();
    let mut any = false;
    while let Some((text, line)) = lines.next()? {
        let at = At::line(file, line);
        let text = match data.format {
            Format::Libsvm => text.split('#').next().unwrap_or_default(),
            _ => text,
        };
        let mut tokens = text.split_ascii_whitespace().enumerate().peekable();
        if tokens.peek().is_none() {
            // A line that is all comment.
            continue;
        }
        any = true;
        if *skip > 0 {
            *skip -= 1;
            continue;
        }
        // A first token that is a pair: the line has no label.
        let label = tokens
            .next_if(|(_, token)| !token.contains(':'))
            .map(|(_, token)| token);
        if label.is_none() && table.labels_required() {
            let token = tokens.peek().map_or("", |(_, token)| token);
            return Err(at
                .value(table.label_column(), token, "a label first")
                .into());
        }
        for (position, token) in tokens {
            let (number, index, value) = pair(data, at, position, token)?;
            let ids = match columns.by_number.get(number) {
                Some(ids) if !ids.is_empty() => ids,
                _ if columns.open => {
                    let id = table.add(default_spec(&default_name(data.format, number)));
                    columns.add(number, id);
                    poolings.resize(id + 1, Pooling::Sum);
                    &columns.by_number[number]
                }
                _ if columns.closed => {
                    let known: Vec<_> = columns
                        .numbers()
                        .map(|(number, _)| number.to_string())
                        .collect();
                    let expected = format!("a field of the training files: {}", known.join(" "));
                    return Err(at.value_in(place(position), token, expected).into());
                }
                _ => continue,
            };
            for &id in ids {
                if let Column::List(list) = &mut table.columns[id] {
                    list.push(index, value);
                }
            }
        }
        for (id, column) in table.columns.iter_mut().enumerate() {
            if let Column::List(list) = column
                && !list.end_row(poolings[id], "a libsvm or libffm field")?
            {
                let expected = "values whose sum in a field is not 0 (pooling = \"mean\")";
                return Err(at.value_in("this row".to_owned(), text, expected).into());
            }
        }
        table.push_targets(label, None, None, at)?;
        after(table)?;
    }
    if any {
        Ok(())
    } else {
        let expected = match data.format {
            Format::Libsvm => "lines of `label index:value …`",
            _ => "lines of `label field:index:value …`",
        };
        let file = file.to_owned();
        Err(E::from(Error::Empty { file, expected }))
    }
}

fn place(position: usize) -> String {
    format!("position {}", position + 1)
}

/// The field number, index and value of `token`.
fn pair(
    data: &DataConfig,
    at: At<'_>,
    position: usize,
    token: &str,
) -> Result<(usize, u32, f32), Error> {
    let fail = |expected: &str| Err(at.value_in(place(position), token, expected));
    let ffm = data.format == Format::Libffm;
    let mut parts = token.split(':');
    let number = if ffm { parts.next() } else { Some("0") };
    let (Some(number), Some(index), Some(value), None) =
        (number, parts.next(), parts.next(), parts.next())
    else {
        return fail(if ffm {
            "field:index:value"
        } else {
            "index:value"
        });
    };
    let Some(number) = natural(number).filter(|&number| number <= MAX_FIELD) else {
        return fail("a field number from 0 to 65535");
    };
    let Some(index) = natural(index).filter(|&index| index <= data.max_index) else {
        let largest = data.max_index;
        let expected =
            format!("an index from 0 to {largest}, for it is a row number (data.max_index)");
        return fail(&expected);
    };
    let value = match value {
        "1" => 1.0,
        text => match text.parse::<f32>() {
            Ok(value) if value.is_finite() => value,
            _ => return fail("a finite number as the value"),
        },
    };
    Ok((number as usize, index as u32, value))
}

/// A number of digits alone; one that u64 cannot hold is as large as can be.
fn natural(text: &str) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.bytes().try_fold(0u64, |number, byte| {
        byte.is_ascii_digit().then(|| {
            number
                .saturating_mul(10)
                .saturating_add(u64::from(byte - b'0'))
        })
    })
}
