//! What can be wrong with data, its description or its files.

use std::{fmt, io};

/// Why data could not be read, described, encoded, saved or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be opened.
    #[error("cannot open `{file}`: {source}")]
    Open {
        /// The file.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// A file cannot be read to its end.
    #[error("`{file}` line {line}: cannot read on: {source}")]
    Read {
        /// The file.
        file: String,
        /// The line that was being read, from 1.
        line: u64,
        /// What the system or the decompressor says.
        source: io::Error,
    },
    /// A compressed file ends before its data does.
    #[error(
        "`{file}` line {line}: the {format} data ends in the middle: the file is truncated \
         (an interrupted download or copy?); expected a complete {format} file"
    )]
    Truncated {
        /// The file.
        file: String,
        /// The line that was being read, from 1.
        line: u64,
        /// `gzip` or `zstd`.
        format: &'static str,
    },
    /// A file cannot be written.
    #[error("cannot write `{file}`: {source}")]
    Write {
        /// The file.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// A file that is not as it was written.
    #[error("`{file}` is damaged: {problem}")]
    Damaged {
        /// The file.
        file: String,
        /// What was found, and what was expected.
        problem: String,
    },
    /// A file without a single record.
    #[error("`{file}` is empty; expected {expected}")]
    Empty {
        /// The file.
        file: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A line longer than `data.max_line`.
    #[error(
        "`{file}` line {line}: longer than {limit} bytes; expected shorter lines (is it really a \
         text file? data.max_line sets the limit)"
    )]
    LineTooLong {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// Bytes that are not UTF-8.
    #[error(
        "`{file}` line {line}, byte {column}: 0x{byte:02x} is not valid UTF-8; expected UTF-8 \
         text, or encoding = \"latin-1\""
    )]
    InvalidUtf8 {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// The position of the byte in its line, from 1.
        column: usize,
        /// The byte.
        byte: u8,
    },
    /// A blank line between records.
    #[error("`{file}` line {line}: blank; expected a record (blank lines may only end a file)")]
    BlankLine {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
    },
    /// A quote that is not closed on its line, or text after the closing quote.
    #[error("`{file}` line {line}, column {column}: {problem}; expected {expected}")]
    Quote {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// The column, from 1.
        column: usize,
        /// What is wrong.
        problem: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// A record with too many or too few columns.
    #[error("`{file}` line {line}: {found} columns; expected {expected}")]
    ColumnCount {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// Columns of this line.
        found: usize,
        /// Columns of the header.
        expected: usize,
    },
    /// Two columns of the same name.
    #[error("`{file}`: two columns are called `{column}`; expected each name once")]
    DuplicateColumn {
        /// The file.
        file: String,
        /// The name.
        column: String,
    },
    /// A value that is not what its column should hold.
    #[error("`{file}` {place}, {column}: `{value}`; expected {expected}")]
    Value {
        /// The file.
        file: String,
        /// The line or row.
        place: Place,
        /// The column or the position in the line.
        column: Box<str>,
        /// The value.
        value: String,
        /// What was expected.
        expected: Box<str>,
    },
    /// A sequence that holds what it cannot, or is longer or shorter than it can be.
    #[error("`{file}` {place}, field `{field}`: {problem}; expected {expected}")]
    Sequence {
        /// The file.
        file: String,
        /// The line or row.
        place: Place,
        /// The field.
        field: Box<str>,
        /// Its column, the first of several.
        column: Box<str>,
        /// What is wrong.
        problem: Box<str>,
        /// What was expected.
        expected: &'static str,
    },
    /// A column that the run file names and the data does not have.
    #[error("{wanted_by}: `{file}` has no column `{column}`; {hint}")]
    NoColumn {
        /// What needs the column.
        wanted_by: String,
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// The nearest column, or all of them.
        hint: String,
    },
    /// A key that the joined file does not have.
    #[error(
        "`{file}` line {line}, column `{column}`: `{value}` is not in `{side}`; expected one of \
         its {keys} keys"
    )]
    JoinKey {
        /// The file with the row.
        file: String,
        /// The line, from 1.
        line: u64,
        /// The key column.
        column: String,
        /// The key.
        value: String,
        /// The joined file.
        side: String,
        /// Number of keys in the joined file.
        keys: usize,
    },
    /// Files that disagree on whether rows have labels, weights or groups.
    #[error("`{file}` {place}: {found}; expected the same in all rows that are read together")]
    Inconsistent {
        /// The file.
        file: String,
        /// The line or row.
        place: Place,
        /// What this row has or lacks.
        found: &'static str,
    },
    /// A Parquet file that cannot be read.
    #[error("`{file}`{place}: {problem}; expected a whole Parquet file, as it was written")]
    Parquet {
        /// The file.
        file: String,
        /// The row group and its rows; empty where it is the file as a whole.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// A column of a Parquet file whose type is not that of what is read out of it.
    #[error("{wanted_by}: column `{column}` of `{file}` is of type {found}; expected {expected}")]
    ColumnType {
        /// What needs the column.
        wanted_by: Box<str>,
        /// The file.
        file: Box<str>,
        /// The column.
        column: Box<str>,
        /// Its type.
        found: Box<str>,
        /// The types that would do.
        expected: &'static str,
    },
    /// A pattern of paths that names no file, or is none.
    #[error("`{pattern}`: {problem}; expected {expected}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        problem: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A path names an environment variable that is not set.
    #[error("`{path}`: the environment variable `{variable}` is not set; expected its value")]
    Environment {
        /// The path as written.
        path: String,
        /// The variable.
        variable: String,
    },
    /// A value of the run file that cannot be used.
    #[error("{key} = {value}: expected {expected}")]
    Config {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What was expected.
        expected: String,
    },
    /// A split that leaves a part without rows, or that the rows do not allow.
    #[error("data.split: {problem}; expected {expected}")]
    Split {
        /// What is wrong.
        problem: String,
        /// What was expected.
        expected: String,
    },
    /// A number that leaves the range of f32 when it is transformed.
    #[error(
        "field `{field}`, row {row} of the {part} part: `{value}` leaves the range of f32 when \
         transformed; expected numbers of the size of the training data's"
    )]
    Overflow {
        /// The field.
        field: String,
        /// The row in its part, from 0.
        row: usize,
        /// train, valid, test or encoded.
        part: &'static str,
        /// The value before the transform.
        value: f64,
    },
    /// A numeric field without a single value in the training part.
    #[error("field `{field}`: no value in the training part; expected at least one number")]
    NoValues {
        /// The field.
        field: String,
    },
    /// More than fits the 32-bit positions of a data set.
    #[error("{what}: more than {limit}; expected fewer (positions are 32 bits)")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// A generated log of a size or shape that cannot be.
    #[error("[data.synth] {0}")]
    Synth(#[from] crate::synth::SynthError),
    /// A thread that the system does not give.
    #[error("the system gives no thread for the {purpose}: {source}")]
    Thread {
        /// What would run on it.
        purpose: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file that a run of its own spilled to and reads back is not as it was written.
    #[error("`{file}`: {problem}; expected what was spilled to it (is the disk sound?)")]
    Spill {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A saved schema that cannot be used.
    #[error("`{file}`: {problem}; expected a schema as it was saved")]
    Schema {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
}

/// Where a record stands in its file, from 1.
///
/// ```
/// use crossfield_data::Place;
/// assert_eq!(Place::Line(2).to_string(), "line 2");
/// assert_eq!(Place::Row(1).to_string(), "row 1");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of text; a header is one.
    Line(u64),
    /// A row of a Parquet file.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row(row) => write!(f, "row {row}"),
        }
    }
}

impl Error {
    /// Says what a thread was wanted for.
    pub(crate) fn thread(purpose: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Thread { purpose, source }
    }
}

/// Where a record stands.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) file: &'a str,
    pub(crate) place: Place,
}

impl<'a> At<'a> {
    pub(crate) fn line(file: &'a str, line: u64) -> Self {
        let place = Place::Line(line);
        Self { file, place }
    }

    /// The number of the line or row.
    pub(crate) fn number(&self) -> u64 {
        let (Place::Line(number) | Place::Row(number)) = self.place;
        number
    }

    /// A wrong value in the column called `column`.
    pub(crate) fn value(&self, column: &str, value: &str, expected: impl Into<String>) -> Error {
        self.value_in(format!("column `{column}`"), value, expected)
    }

    /// A wrong value at a place that is described.
    pub(crate) fn value_in(
        &self,
        place: String,
        value: &str,
        expected: impl Into<String>,
    ) -> Error {
        Error::Value {
            file: self.file.to_owned(),
            place: self.place,
            column: place.into(),
            value: shortened(value),
            expected: expected.into().into(),
        }
    }
}

/// At most 80 characters of `value`, so that a message stays readable.
pub(crate) fn shortened(value: &str) -> String {
    match value.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

/// "did you mean …?" for the candidate nearest to `wanted`, or the list of all where none is near.
pub(crate) fn hint<'a>(wanted: &str, candidates: impl Iterator<Item = &'a str> + Clone) -> String {
    let wanted = wanted.to_lowercase();
    let nearest = candidates
        .clone()
        .map(|name| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), name))
        .fold(None, |best: Option<(f64, &str)>, next| match best {
            Some(best) if best.0 >= next.0 => Some(best),
            _ => Some(next),
        });
    match nearest {
        Some((likeness, name)) if likeness >= 0.7 => format!("did you mean `{name}`?"),
        Some(_) => {
            let mut names = candidates.collect::<Vec<_>>().join("`, `");
            names = shortened_list(names);
            format!("it has `{names}`")
        }
        None => "it has none".to_owned(),
    }
}

fn shortened_list(names: String) -> String {
    match names.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &names[..end]),
        None => names,
    }
}
