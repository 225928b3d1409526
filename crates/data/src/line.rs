//! Lines of a text file, plain or compressed, with their numbers.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use serde::{Deserialize, Serialize};

use crate::error::{At, Error};

/// How the bytes of a file become text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// UTF-8; a byte order mark at the start is dropped.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// ISO 8859-1: each byte is the character of that number.
    #[serde(rename = "latin-1")]
    Latin1,
}

/// The lines of one file, without their ends (`\n` or `\r\n`).
///
/// A blank line is an error unless only blank lines follow it. A line is never held beyond
/// `max_line` bytes.
pub(crate) struct LineReader {
    file: String,
    reader: Box<dyn BufRead>,
    compression: Option<&'static str>,
    encoding: Encoding,
    max_line: usize,
    line: u64,
    bytes: Vec<u8>,
    text: String,
}

impl LineReader {
    pub(crate) fn open(file: &str, encoding: Encoding, max_line: usize) -> Result<Self, Error> {
        let opened = File::open(file).map_err(|source| Error::Open {
            file: file.to_owned(),
            source,
        })?;
        let wrap = |source| Error::Open {
            file: file.to_owned(),
            source,
        };
        let (reader, compression): (Box<dyn BufRead>, _) = if file.ends_with(".gz") {
            let decoder = flate2::bufread::MultiGzDecoder::new(BufReader::new(opened));
            (
                Box::new(BufReader::with_capacity(1 << 16, decoder)),
                Some("gzip"),
            )
        } else if file.ends_with(".zst") {
            let decoder = zstd::stream::read::Decoder::new(opened).map_err(wrap)?;
            (
                Box::new(BufReader::with_capacity(1 << 16, decoder)),
                Some("zstd"),
            )
        } else {
            (Box::new(BufReader::with_capacity(1 << 16, opened)), None)
        };
        Ok(Self {
            file: file.to_owned(),
            reader,
            compression,
            encoding,
            max_line,
            line: 0,
            bytes: Vec::new(),
            text: String::new(),
        })
    }

    /// The next line that is not blank, and its number; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(&str, u64)>, Error> {
        let mut blank = None;
        loop {
            if !self.fill()? {
                return Ok(None);
            }
            // Tabs separate cells: a line of tabs is a record of empty cells.
            if self.bytes.iter().any(|&byte| byte != b' ') {
                break;
            }
            blank.get_or_insert(self.line);
        }
        if let Some(line) = blank {
            return Err(Error::BlankLine {
                file: self.file.clone(),
                line,
            });
        }
        let text = match self.encoding {
            Encoding::Utf8 => std::str::from_utf8(&self.bytes).map_err(|error| {
                let position = error.valid_up_to();
                Error::InvalidUtf8 {
                    file: self.file.clone(),
                    line: self.line,
                    column: position + 1,
                    byte: self.bytes[position],
                }
            })?,
            Encoding::Latin1 => {
                self.text.clear();
                self.text
                    .extend(self.bytes.iter().map(|&byte| char::from(byte)));
                &self.text
            }
        };
        Ok(Some((text, self.line)))
    }

    /// Reads one line into `bytes`; false at the end of the file.
    fn fill(&mut self) -> Result<bool, Error> {
        self.bytes.clear();
        self.line += 1;
        let mut any = false;
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(read_error(&self.file, self.line, self.compression, error));
                }
            };
            if chunk.is_empty() {
                if !any {
                    return Ok(false);
                }
                break;
            }
            any = true;
            let end = memchr::memchr(b'\n', chunk);
            let piece = &chunk[..end.unwrap_or(chunk.len())];
            // One more for the `\r` that is not part of the line.
            if self.bytes.len() + piece.len() > self.max_line + 1 {
                return Err(self.too_long());
            }
            self.bytes.extend_from_slice(piece);
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        if self.bytes.last() == Some(&b'\r') {
            self.bytes.pop();
        }
        if self.line == 1
            && self.encoding == Encoding::Utf8
            && self.bytes.starts_with(b"\xef\xbb\xbf")
        {
            self.bytes.drain(..3);
        }
        if self.bytes.len() > self.max_line {
            return Err(self.too_long());
        }
        Ok(true)
    }

    fn too_long(&self) -> Error {
        Error::LineTooLong {
            file: self.file.clone(),
            line: self.line,
            limit: self.max_line,
        }
    }
}

fn read_error(
    file: &str,
    line: u64,
    compression: Option<&'static str>,
    source: io::Error,
) -> Error {
    let file = file.to_owned();
    match compression {
        Some(format) if source.kind() == io::ErrorKind::UnexpectedEof => {
            Error::Truncated { file, line, format }
        }
        _ => Error::Read { file, line, source },
    }
}

/// How the lines of a table are cut into cells.
#[derive(Clone, Copy)]
pub(crate) struct Cutting {
    pub(crate) separator: u8,
    pub(crate) trim: bool,
}

impl Cutting {
    /// Appends the cells of `line` to `cells`. `unquoted` is room for the text of quoted cells.
    pub(crate) fn cut<'a>(
        &self,
        line: &'a str,
        at: At<'_>,
        unquoted: &'a mut String,
        cells: &mut Vec<&'a str>,
    ) -> Result<(), Error> {
        if memchr::memchr(b'"', line.as_bytes()).is_some() {
            return self.cut_quoted(line, at, unquoted, cells);
        }
        let mut start = 0;
        for end in memchr::memchr_iter(self.separator, line.as_bytes()) {
            cells.push(self.trimmed(&line[start..end]));
            start = end + 1;
        }
        cells.push(self.trimmed(&line[start..]));
        Ok(())
    }

    fn trimmed<'a>(&self, cell: &'a str) -> &'a str {
        if self.trim { cell.trim() } else { cell }
    }

    /// As RFC 4180 has it: a cell that starts with a quote ends at the next single quote, and two
    /// quotes stand for one; a quote inside an unquoted cell is text. With `trim`, blanks around
    /// the quotes do not count.
    fn cut_quoted<'a>(
        &self,
        line: &'a str,
        at: At<'_>,
        unquoted: &'a mut String,
        cells: &mut Vec<&'a str>,
    ) -> Result<(), Error> {
        unquoted.clear();
        let mut ends = Vec::new();
        let mut rest = line;
        loop {
            let quote = |problem, expected| Error::Quote {
                file: at.file.to_owned(),
                line: at.number(),
                column: ends.len() + 1,
                problem,
                expected,
            };
            let opened = if self.trim && self.separator != b' ' {
                rest.trim_start_matches(' ')
            } else {
                rest
            };
            let end = if let Some(mut inside) = opened.strip_prefix('"') {
                loop {
                    let Some(position) = memchr::memchr(b'"', inside.as_bytes()) else {
                        return Err(quote(
                            "a quote is opened and not closed on this line",
                            "quoted values that do not span lines",
                        ));
                    };
                    unquoted.push_str(&inside[..position]);
                    inside = &inside[position + 1..];
                    match inside.strip_prefix('"') {
                        Some(after) => {
                            unquoted.push('"');
                            inside = after;
                        }
                        None => break,
                    }
                }
                let end = memchr::memchr(self.separator, inside.as_bytes());
                let tail = &inside[..end.unwrap_or(inside.len())];
                if !self.trimmed(tail).is_empty() {
                    return Err(quote(
                        "text after a closing quote",
                        "a separator there, and quotes inside a quoted value doubled",
                    ));
                }
                end.map(|end| &inside[end + 1..])
            } else {
                let end = memchr::memchr(self.separator, rest.as_bytes());
                unquoted.push_str(self.trimmed(&rest[..end.unwrap_or(rest.len())]));
                end.map(|end| &rest[end + 1..])
            };
            ends.push(unquoted.len());
            match end {
                Some(next) => rest = next,
                None => break,
            }
        }
        let mut start = 0;
        for end in ends {
            cells.push(&unquoted[start..end]);
            start = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(line: &str, separator: u8) -> Result<Vec<String>, String> {
        let at = At::line("a.csv", 3);
        let (mut unquoted, mut cells) = (String::new(), Vec::new());
        let cutting = Cutting {
            separator,
            trim: true,
        };
        cutting
            .cut(line, at, &mut unquoted, &mut cells)
            .map_err(|error| error.to_string())?;
        Ok(cells.into_iter().map(str::to_owned).collect())
    }

    #[test]
    fn cells_are_cut_and_trimmed() {
        assert_eq!(cut("a, b ,,c", b',').unwrap(), ["a", "b", "", "c"]);
        assert_eq!(cut("a\t\t", b'\t').unwrap(), ["a", "", ""]);
    }

    #[test]
    fn quotes_hold_separators_and_doubled_quotes() {
        assert_eq!(
            cut("1, \"a, \"\"b\"\"\" ,x\"y", b',').unwrap(),
            ["1", "a, \"b\"", "x\"y"]
        );
        assert_eq!(cut("\"\",\"é\"", b',').unwrap(), ["", "é"]);
    }

    #[test]
    fn quotes_that_span_lines_or_stop_early_are_errors() {
        assert_eq!(
            cut("1,\"a", b',').unwrap_err(),
            "`a.csv` line 3, column 2: a quote is opened and not closed on this line; expected \
             quoted values that do not span lines"
        );
        assert_eq!(
            cut("\"a\"b,1", b',').unwrap_err(),
            "`a.csv` line 3, column 1: text after a closing quote; expected a separator there, \
             and quotes inside a quoted value doubled"
        );
    }
}
