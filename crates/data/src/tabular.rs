//! Csv files, ratings files and the side files that are joined to them.

use std::collections::HashMap;
use std::ops::Range;

use crate::config::{DataConfig, Encoding, Header, JoinConfig, expand};
use crate::error::{At, Error, Place};
use crate::intern::Interner;
use crate::line::{Cutting, LineReader};
use crate::raw::{Binding, Table};

/// Records of a file of cells.
pub(crate) struct Records {
    file: String,
    lines: LineReader,
    cutting: Cutting,
    header: Vec<String>,
    unquoted: String,
    /// The cells of the first line, where it had to be read to count the columns.
    first: Option<Vec<String>>,
}

/// How a file of cells is written.
pub(crate) struct Layout<'a> {
    pub(crate) separator: &'a str,
    pub(crate) header: &'a Header,
    pub(crate) encoding: Encoding,
    pub(crate) trim: bool,
    pub(crate) max_line: usize,
}

impl<'a> Layout<'a> {
    /// That of the files of `data`, but for the header.
    fn of(data: &'a DataConfig, header: &'a Header) -> Self {
        Self {
            separator: data.separator.as_deref().unwrap_or(","),
            header,
            encoding: data.encoding,
            trim: data.trim,
            max_line: data.max_line,
        }
    }
}

impl Records {
    pub(crate) fn open(file: &str, key: &str, layout: &Layout<'_>) -> Result<Self, Error> {
        let &[separator] = layout.separator.as_bytes() else {
            return Err(Error::Config {
                key: key.to_owned(),
                value: format!("{:?}", layout.separator),
                expected: "one ASCII character".to_owned(),
            });
        };
        if !separator.is_ascii() || matches!(separator, b'"' | b'\n' | b'\r') {
            return Err(Error::Config {
                key: key.to_owned(),
                value: format!("{:?}", layout.separator),
                expected: "a character other than a quote or a line end".to_owned(),
            });
        }
        let mut records = Self {
            file: file.to_owned(),
            lines: LineReader::open(file, layout.encoding, layout.max_line)?,
            cutting: Cutting {
                separator,
                trim: layout.trim,
            },
            header: Vec::new(),
            unquoted: String::new(),
            first: None,
        };
        match layout.header {
            Header::Names(names) => records.header = names.clone(),
            Header::Present(present) => {
                let expected = if *present {
                    "a header and at least one record"
                } else {
                    "at least one record"
                };
                let mut cells = Vec::new();
                if records.cut(&mut cells)?.is_none() {
                    return Err(Error::Empty {
                        file: file.to_owned(),
                        expected,
                    });
                }
                let cells: Vec<String> = cells.into_iter().map(str::to_owned).collect();
                if *present {
                    records.header = cells;
                } else {
                    records.header = (0..cells.len()).map(|column| column.to_string()).collect();
                    records.first = Some(cells);
                }
            }
        }
        for (position, name) in records.header.iter().enumerate() {
            if records.header[..position].contains(name) {
                let (file, column) = (file.to_owned(), name.clone());
                return Err(Error::DuplicateColumn { file, column });
            }
        }
        Ok(records)
    }

    /// Appends the cells of the next line; gives its number, `None` at the end.
    fn cut<'a>(&'a mut self, cells: &mut Vec<&'a str>) -> Result<Option<u64>, Error> {
        let Some((text, line)) = self.lines.next()? else {
            return Ok(None);
        };
        let at = At::line(&self.file, line);
        self.cutting.cut(text, at, &mut self.unquoted, cells)?;
        Ok(Some(line))
    }

    /// The names of the columns.
    pub(crate) fn header(&self) -> &[String] {
        &self.header
    }

    /// Gives the cells and the line of each record to `take`.
    pub(crate) fn for_each(
        self,
        take: impl FnMut(Vec<&str>, At<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.for_each_from(&mut 0, take)
    }

    /// The same without the first `skip` records, whose cells are not cut; `skip` falls by those
    /// that there were.
    pub(crate) fn for_each_from<E: From<Error>>(
        mut self,
        skip: &mut u64,
        mut take: impl FnMut(Vec<&str>, At<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut any = false;
        if *skip > 0 && self.first.take().is_some() {
            any = true;
            *skip -= 1;
        }
        while *skip > 0 && self.lines.next()?.is_some() {
            any = true;
            *skip -= 1;
        }
        if let Some(first) = self.first.take() {
            any = true;
            let at = At::line(&self.file, 1);
            take(first.iter().map(String::as_str).collect(), at)?;
        }
        let expected = self.header.len();
        // The closure keeps the name while the cells borrow the rest.
        let file = self.file.clone();
        loop {
            let mut cells = Vec::with_capacity(expected);
            let Some(line) = self.cut(&mut cells)? else {
                break;
            };
            if cells.len() != expected {
                let found = cells.len();
                return Err(E::from(Error::ColumnCount {
                    file,
                    line,
                    found,
                    expected,
                }));
            }
            any = true;
            take(cells, At::line(&file, line))?;
        }
        if any {
            Ok(())
        } else {
            Err(E::from(Error::Empty {
                file,
                expected: "at least one record",
            }))
        }
    }
}

/// A side file in memory, by key.
pub(crate) struct Side {
    file: String,
    on: String,
    /// Names of its columns but the key.
    header: Vec<String>,
    /// The id of a key is its row.
    keys: Interner,
    /// The cells of all rows, one after the other.
    text: String,
    ends: Vec<usize>,
}

impl Side {
    pub(crate) fn open(config: &JoinConfig, data: &DataConfig) -> Result<Self, Error> {
        let file = expand(&config.file)?;
        let layout = Layout {
            separator: &config.separator,
            header: &config.header,
            encoding: config.encoding,
            trim: data.trim,
            max_line: data.max_line,
        };
        let records = Records::open(&file, "data.join.separator", &layout)?;
        let key = records.header.iter().position(|name| *name == config.on);
        let key = key.ok_or_else(|| Error::NoColumn {
            wanted_by: "data.join.on".to_owned(),
            file: file.clone(),
            column: config.on.clone(),
            hint: crate::error::hint(&config.on, records.header.iter().map(String::as_str)),
        })?;
        let mut header = records.header.clone();
        header.remove(key);
        let mut side = Self {
            file,
            on: config.on.clone(),
            header,
            keys: Interner::default(),
            text: String::new(),
            ends: Vec::new(),
        };
        records.for_each(|cells, at| {
            let rows = side.keys.len();
            if (side.keys.intern(cells[key]) as usize) < rows {
                return Err(at.value(&side.on, cells[key], "each key once"));
            }
            for (column, cell) in cells.iter().enumerate() {
                if column != key {
                    side.text.push_str(cell);
                    side.ends.push(side.text.len());
                }
            }
            Ok(())
        })?;
        Ok(side)
    }

    /// Key and cell of each row, in a column other than that of the keys.
    fn column(&self, column: usize) -> impl Iterator<Item = (&str, &str)> {
        self.keys.iter().enumerate().map(move |(row, key)| {
            let cell = row * self.header.len() + column;
            let start = if cell == 0 { 0 } else { self.ends[cell - 1] };
            (key, &self.text[start..self.ends[cell]])
        })
    }

    fn append<'a>(&'a self, row: u32, cells: &mut Vec<&'a str>) {
        let columns = self.header.len();
        let first = row as usize * columns;
        for cell in first..first + columns {
            let start = if cell == 0 { 0 } else { self.ends[cell - 1] };
            cells.push(&self.text[start..self.ends[cell]]);
        }
    }
}

/// One column of a side file by key: titles of items, names of users.
///
/// How cells are trimmed is as in `data`.
///
/// # Errors
/// Those of reading the file as a [join](JoinConfig); [`Error::NoColumn`] if it has no such column,
/// or none of the keys.
///
/// ```
/// use crossfield_data::{DataConfig, JoinConfig, side_column};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let file = folder.path().join("films.csv");
/// std::fs::write(&file, "item,title,year\n50,Star Wars,1977\n172,Brazil,1985\n")?;
/// let join = JoinConfig {
///     file: file.display().to_string(),
///     on: "item".into(),
///     ..JoinConfig::default()
/// };
/// let titles = side_column(&join, &DataConfig::default().complete(), "title")?;
/// assert_eq!(titles["172"], "Brazil");
/// # Ok(())
/// # }
/// ```
pub fn side_column(
    join: &JoinConfig,
    data: &DataConfig,
    column: &str,
) -> Result<HashMap<String, String>, Error> {
    let side = Side::open(join, data)?;
    let place = side.header.iter().position(|name| name == column);
    let place = place.ok_or_else(|| Error::NoColumn {
        wanted_by: column.to_owned(),
        file: side.file.clone(),
        column: column.to_owned(),
        hint: crate::error::hint(column, side.header.iter().map(String::as_str)),
    })?;
    let cells = side.column(place);
    Ok(cells
        .map(|(key, cell)| (key.to_owned(), cell.to_owned()))
        .collect())
}

/// Where the cells of records and of what is joined to them go.
struct Joined<'a> {
    sides: &'a [Side],
    /// The column of each side's key.
    keys: Vec<usize>,
    binding: Binding,
}

impl<'a> Joined<'a> {
    /// Finds the columns of `header`, that of `file`, and of the side files.
    fn new(table: &Table, file: &str, header: &[String], sides: &'a [Side]) -> Result<Self, Error> {
        let mut joined: Vec<&str> = header.iter().map(String::as_str).collect();
        let mut keys = Vec::new();
        for side in sides {
            let key = joined.iter().position(|name| *name == side.on);
            keys.push(key.ok_or_else(|| Error::NoColumn {
                wanted_by: "data.join.on".to_owned(),
                file: file.to_owned(),
                column: side.on.clone(),
                hint: crate::error::hint(&side.on, joined.iter().copied()),
            })?);
            for name in &side.header {
                if joined.contains(&name.as_str()) {
                    let (file, column) =
                        (format!("{file} joined with {}", side.file), name.clone());
                    return Err(Error::DuplicateColumn { file, column });
                }
                joined.push(name);
            }
        }
        Ok(Self {
            binding: table.bind(file, &joined)?,
            sides,
            keys,
        })
    }

    /// Gives a record to the table, with the cells that are joined to it.
    fn push<'b>(&self, table: &mut Table, mut cells: Vec<&'b str>, at: At<'_>) -> Result<(), Error>
    where
        'a: 'b,
    {
        for (side, &key) in self.sides.iter().zip(&self.keys) {
            let value = cells[key];
            let row = side.keys.get(value).ok_or_else(|| Error::JoinKey {
                file: at.file.to_owned(),
                line: at.number(),
                column: side.on.clone(),
                value: value.to_owned(),
                side: side.file.clone(),
                keys: side.keys.len(),
            })?;
            side.append(row, &mut cells);
        }
        table.push(&cells, &self.binding, at)
    }
}

/// Reads a csv or ratings file into `table`, but for the first `skip` records, by which `skip`
/// falls; `after` is called after each record.
pub(crate) fn read<E: From<Error>>(
    table: &mut Table,
    file: &str,
    data: &DataConfig,
    sides: &[Side],
    skip: &mut u64,
    after: &mut dyn FnMut(&mut Table) -> Result<(), E>,
) -> Result<(), E> {
    let header = data.header.clone().unwrap_or_default();
    let records = Records::open(file, "data.separator", &Layout::of(data, &header))?;
    let joined = Joined::new(table, file, &records.header, sides)?;
    records.for_each_from(skip, |cells, at| {
        joined.push(table, cells, at)?;
        after(table)
    })
}

/// The records of a file in memory, cells and lines.
pub(crate) struct Rows {
    file: String,
    header: Vec<String>,
    /// The cells of all records, one after the other.
    text: String,
    ends: Vec<usize>,
    /// The number of each record's line in the file.
    lines: Vec<u64>,
}

impl Rows {
    /// Reads a file whose first line names its columns.
    pub(crate) fn open(file: &str, data: &DataConfig) -> Result<Self, Error> {
        let header = Header::Present(true);
        let records = Records::open(file, "data.separator", &Layout::of(data, &header))?;
        let mut rows = Self {
            file: file.to_owned(),
            header: records.header.clone(),
            text: String::new(),
            ends: Vec::new(),
            lines: Vec::new(),
        };
        records.for_each(|cells, at| {
            for cell in cells {
                rows.text.push_str(cell);
                rows.ends.push(rows.text.len());
            }
            rows.lines.push(at.number());
            Ok(())
        })?;
        Ok(rows)
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(crate) fn cells(&self, row: usize) -> impl Iterator<Item = &str> {
        let columns = self.header.len();
        (row * columns..(row + 1) * columns).map(|cell| {
            let start = if cell == 0 { 0 } else { self.ends[cell - 1] };
            &self.text[start..self.ends[cell]]
        })
    }
}

/// Two files whose rows are put together: each of the second beside one of the first.
pub(crate) struct Beside<'a> {
    context: &'a Rows,
    candidates: &'a Rows,
    header: Vec<String>,
    /// What messages call the two.
    file: String,
}

impl<'a> Beside<'a> {
    pub(crate) fn new(context: &'a Rows, candidates: &'a Rows) -> Result<Self, Error> {
        let file = format!("{}` with `{}", context.file, candidates.file);
        let twice = (candidates.header.iter()).find(|name| context.header.contains(name));
        if let Some(column) = twice {
            let column = column.clone();
            return Err(Error::DuplicateColumn { file, column });
        }
        Ok(Self {
            context,
            candidates,
            header: [context.header.as_slice(), &candidates.header].concat(),
            file,
        })
    }

    /// Reads these candidates beside these rows of the context into `table`.
    pub(crate) fn read(
        &self,
        table: &mut Table,
        contexts: Range<usize>,
        candidates: Range<usize>,
        sides: &[Side],
    ) -> Result<(), Error> {
        let joined = Joined::new(table, &self.file, &self.header, sides)?;
        for context in contexts {
            for candidate in candidates.clone() {
                let cells = self.context.cells(context);
                let cells = cells.chain(self.candidates.cells(candidate)).collect();
                let line = self.candidates.lines[candidate];
                let at = At::line(&self.candidates.file, line);
                let pushed = joined.push(table, cells, at);
                pushed.map_err(|error| self.in_context(error, context))?;
            }
        }
        Ok(())
    }

    /// Says of what is wrong in a cell of the context where that stands.
    fn in_context(&self, mut error: Error, context: usize) -> Error {
        let is_context = |name: &str| self.context.header.iter().any(|column| column == name);
        let line = self.context.lines[context];
        let file = match &mut error {
            Error::Value {
                file,
                place,
                column,
                ..
            } if column
                .strip_prefix("column `")
                .and_then(|name| name.strip_suffix('`'))
                .is_some_and(is_context) =>
            {
                *place = Place::Line(line);
                file
            }
            Error::JoinKey {
                file,
                line: of_key,
                column,
                ..
            } if is_context(column) => {
                *of_key = line;
                file
            }
            Error::Sequence {
                file,
                place,
                column,
                ..
            } if is_context(column) => {
                *place = Place::Line(line);
                file
            }
            _ => return error,
        };
        file.clone_from(&self.context.file);
        error
    }
}
