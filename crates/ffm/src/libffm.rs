//! libffm's model files, read and written vector by vector.
//!
//! A model of n features, m fields and vectors of length k has a vector for each feature towards
//! each field. Feature j's come one after the other, so that together they are a row of the
//! tables of an [`Ffm`](crate::Ffm): `m·k` weights, field by field.
//!
//! [`Format::Text`] is what libffm wrote until version 1.14, with six significant digits:
//!
//! ```text
//! n 7
//! m 3
//! k 2
//! normalization 1
//! w0,0 0.461 -0.093
//! w0,1 0.941 0.316
//! …
//! ```
//!
//! [`Format::Binary`] is what it writes since 1.20: n, m and k as 32-bit integers, a byte for the
//! normalisation, then the vectors as 32-bit floats, each beside its AdaGrad accumulators, in lanes
//! of four (weights of four entries, their accumulators, the next four; the rest is zero), or of one
//! where libffm was built without SSE. All little-endian.
//!
//! Weights are not scaled in either: with normalisation libffm divides the pairs of a row by Σ x²
//! when it predicts, as [`FfmConfig::normalize`](crate::FfmConfig::normalize) does. It passes over
//! features with an index ≥ n or a field ≥ m, but counts them in Σ x². Features that no training
//! row had keep the random numbers they began with. There is no bias and no linear term.
//!
//! ```
//! use crossfield_ffm::libffm::{Format, Header, read, write};
//!
//! let header = Header {
//!     features: 2,
//!     fields: 2,
//!     embedding_dim: 1,
//!     normalize: true,
//! };
//! let mut file = Vec::new();
//! write(&mut file, header, Format::Text, |index, field, weights| {
//!     weights[0] = (10 * index + field) as f32;
//! })?;
//! assert!(file.ends_with(b"w1,0 10.0 \nw1,1 11.0 \n"));
//!
//! let mut model = read("model", file.as_slice())?;
//! assert_eq!(model.header(), header);
//! let mut sum = 0.0;
//! while let Some(vector) = model.next_vector()? {
//!     sum += vector.weights[0];
//! }
//! assert_eq!(sum, 22.0);
//! # Ok::<(), crossfield_ffm::libffm::Error>(())
//! ```
//!
//! # Source
//! The behaviour of libffm 1.14 and 1.23.

use std::io::{self, BufRead, Chain, Cursor, Read, Write};

/// The largest number of fields, features and entries of a vector that is believed.
const LIMITS: [(&str, u32); 3] = [("n", i32::MAX as u32), ("m", 65_536), ("k", 1024)];
/// Bytes of the binary header.
const HEADER: u64 = 13;
/// Bytes by which the format is recognised.
const HEAD: u64 = 1 << 16;
/// Entries that a build of libffm with SSE keeps together.
const SSE_LANES: usize = 4;

/// Why a model file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read on.
    #[error("`{file}`, {place}: cannot read on: {source}")]
    Read {
        /// The file.
        file: String,
        /// The line, or the byte.
        place: String,
        /// What the system says.
        source: io::Error,
    },
    /// The file ends before its model does.
    #[error(
        "`{file}` ends at {place}, after {found} vectors: expected {expected}, {what} (is it a \
         copy that was cut short?)"
    )]
    Truncated {
        /// The file.
        file: String,
        /// The line, or the byte.
        place: String,
        /// Vectors that are there.
        found: u64,
        /// Vectors that there should be.
        expected: u64,
        /// Where that number is from.
        what: String,
    },
    /// Something that should not be there.
    #[error("`{file}`, {place}: `{value}`: expected {expected}")]
    Value {
        /// The file.
        file: String,
        /// The line, or the byte and the vector.
        place: String,
        /// What is there.
        value: String,
        /// What should be.
        expected: String,
    },
    /// A weight to be written is not finite.
    #[error("feature {index}, field {field}: the weight {value}: expected a finite number")]
    NonFinite {
        /// The feature.
        index: u32,
        /// The field.
        field: u32,
        /// The weight.
        value: f32,
    },
    /// A header to be written is beyond what a model file holds.
    #[error("{what} is {value}: expected 1 to {limit}")]
    OutOfRange {
        /// n, m or k.
        what: &'static str,
        /// Its value.
        value: u32,
        /// The largest that is legal.
        limit: u32,
    },
    /// The model cannot be written on.
    #[error("cannot write the model: {0}")]
    Write(#[source] io::Error),
}

/// The two kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines of numbers, until version 1.14.
    Text,
    /// Integers and floats as they lie in memory, since version 1.20.
    Binary,
}

/// The size of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// n: features have the indices 0..n.
    pub features: u32,
    /// m: fields have the numbers 0..m.
    pub fields: u32,
    /// k: entries of a vector.
    pub embedding_dim: u32,
    /// Whether the pairs of a row are divided by Σ x².
    pub normalize: bool,
}

impl Header {
    fn vectors(&self) -> u64 {
        u64::from(self.features) * u64::from(self.fields)
    }

    fn sizes(&self) -> [u32; 3] {
        [self.features, self.fields, self.embedding_dim]
    }
}

/// The vector that a feature has towards a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vector<'a> {
    /// The feature.
    pub index: u32,
    /// The field.
    pub field: u32,
    /// The `k` entries.
    pub weights: &'a [f32],
}

/// A model file that is being read.
///
/// The example of the [module](self) reads one.
#[derive(Debug)]
pub struct Reader<R> {
    file: String,
    input: Chain<Cursor<Vec<u8>>, R>,
    header: Header,
    layout: Layout,
    /// Vectors read.
    done: u64,
    bytes: Vec<u8>,
    weights: Vec<f32>,
}

#[derive(Clone, Copy, Debug)]
enum Layout {
    /// Lines read.
    Text { lines: u64 },
    /// Entries of a vector that lie together before their accumulators.
    Binary { lanes: usize },
}

/// Reads the header of a model in either format; `file` is its name in messages.
///
/// # Errors
/// [`Error::Value`] if this is not the header of a model, [`Error::Truncated`] if there is none,
/// [`Error::Read`].
pub fn read<R: BufRead>(file: &str, mut input: R) -> Result<Reader<R>, Error> {
    let mut head = Vec::new();
    let source = (&mut input).take(HEAD).read_to_end(&mut head);
    let no_header = Header {
        features: 0,
        fields: 0,
        embedding_dim: 0,
        normalize: false,
    };
    let text = head.starts_with(b"n ") && head.get(2).is_none_or(u8::is_ascii_digit);
    let binary = (!text).then(|| head.clone());
    let mut reader = Reader {
        file: file.to_owned(),
        input: Cursor::new(head).chain(input),
        header: no_header,
        layout: Layout::Text { lines: 0 },
        done: 0,
        bytes: Vec::new(),
        weights: Vec::new(),
    };
    source.map_err(|source| reader.unreadable(source))?;
    match binary {
        Some(head) => reader.binary_header(&head)?,
        None => reader.text_header()?,
    }
    Ok(reader)
}

impl<R: BufRead> Reader<R> {
    /// The size of the model.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The format of the file.
    pub fn format(&self) -> Format {
        match self.layout {
            Layout::Text { .. } => Format::Text,
            Layout::Binary { .. } => Format::Binary,
        }
    }

    /// The next vector: feature by feature, towards each field in turn. `None` after the last,
    /// which must end the file.
    ///
    /// # Errors
    /// [`Error::Value`] for a weight that is not a finite number, a vector out of order, too few or
    /// too many entries, and anything behind the last vector; [`Error::Truncated`]; [`Error::Read`].
    pub fn next_vector(&mut self) -> Result<Option<Vector<'_>>, Error> {
        if self.done == self.header.vectors() {
            self.end()?;
            return Ok(None);
        }
        match self.layout {
            Layout::Text { .. } => self.text_vector()?,
            Layout::Binary { lanes } => self.binary_vector(lanes)?,
        }
        let [index, field] = self.at();
        self.done += 1;
        Ok(Some(Vector {
            index,
            field,
            weights: &self.weights,
        }))
    }

    /// Feature and field of the next vector.
    fn at(&self) -> [u32; 2] {
        let fields = u64::from(self.header.fields.max(1));
        [(self.done / fields) as u32, (self.done % fields) as u32]
    }

    fn text_header(&mut self) -> Result<(), Error> {
        let mut sizes = [0; 3];
        for (size, (name, limit)) in sizes.iter_mut().zip(LIMITS) {
            let expected = format!("`{name}` and a number from 1 to {limit}");
            *size = self.header_line(name, 1..=limit, expected)?;
        }
        let expected = "`normalization` and 0 or 1".to_owned();
        let normalize = self.header_line("normalization", 0..=1, expected)? == 1;
        self.header = header(sizes, normalize);
        Ok(())
    }

    fn header_line(
        &mut self,
        name: &str,
        range: std::ops::RangeInclusive<u32>,
        expected: String,
    ) -> Result<u32, Error> {
        let line = self.line(128)?.unwrap_or_default();
        let value = line
            .strip_prefix(name)
            .and_then(|rest| rest.trim().parse().ok());
        match value.filter(|value| range.contains(value)) {
            Some(value) => Ok(value),
            None => Err(self.value(self.place(), &line, expected)),
        }
    }

    fn text_vector(&mut self) -> Result<(), Error> {
        let [index, field] = self.at();
        let dim = self.header.embedding_dim as usize;
        let name = format!("w{index},{field}");
        let Some(line) = self.line(64 + 64 * dim)? else {
            return Err(self.truncated());
        };
        // Without its end a line may have lost digits of its last number.
        if !self.bytes.ends_with(b"\n") {
            return Err(self.truncated());
        }
        let mut tokens = line.split_ascii_whitespace();
        let found = tokens.next().unwrap_or_default();
        if found != name {
            return Err(self.value(self.place(), found, format!("`{name}`, the next vector")));
        }
        self.weights.clear();
        for token in tokens {
            match token.parse::<f32>() {
                Ok(weight) if weight.is_finite() => self.weights.push(weight),
                _ => {
                    let place = format!("{}, {name}", self.place());
                    return Err(self.value(place, token, "a finite number".to_owned()));
                }
            }
        }
        if self.weights.len() != dim {
            let found = format!("{} numbers", self.weights.len());
            let place = format!("{}, {name}", self.place());
            return Err(self.value(place, &found, format!("{dim}, the k of the header")));
        }
        Ok(())
    }

    /// The next line without its end; `None` at the end of the file.
    fn line(&mut self, limit: usize) -> Result<Option<String>, Error> {
        if let Layout::Text { lines } = &mut self.layout {
            *lines += 1;
        }
        self.bytes.clear();
        let read = (&mut self.input)
            .take(limit as u64)
            .read_until(b'\n', &mut self.bytes);
        read.map_err(|source| self.unreadable(source))?;
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&self.bytes);
        if self.bytes.len() == limit && !line.ends_with('\n') {
            let expected = format!("a line of at most {limit} bytes");
            return Err(self.value(self.place(), &line, expected));
        }
        Ok(Some(line.trim_end().to_owned()))
    }

    fn binary_header(&mut self, head: &[u8]) -> Result<(), Error> {
        self.layout = Layout::Binary { lanes: SSE_LANES };
        let (ints, rest) = head.as_chunks::<4>();
        let &[normalize, ref floats @ ..] = &head[12.min(head.len())..] else {
            let expected = "a model of libffm: `n` and a number, or 13 bytes of header".to_owned();
            let found = format!("{} bytes", ints.len() * 4 + rest.len());
            return Err(self.value(self.place(), &found, expected));
        };
        let mut sizes = [0; 3];
        for (at, (size, (name, limit))) in sizes.iter_mut().zip(LIMITS).enumerate() {
            *size = u32::from_le_bytes(ints[at]);
            if !(1..=limit).contains(size) {
                let expected = format!(
                    "{name}, from 1 to {limit}, or a text file that begins with `n` and a number"
                );
                return Err(self.value(format!("byte {}", at * 4), &size.to_string(), expected));
            }
        }
        if normalize > 1 {
            let expected = "0 or 1, whether rows are normalised".to_owned();
            return Err(self.value("byte 12".to_owned(), &normalize.to_string(), expected));
        }
        self.header = header(sizes, normalize == 1);
        self.input.consume(HEADER as usize);
        // Accumulators begin at 1 and grow, weights as a rule stay below: their places tell the
        // lanes.
        let floats = floats
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes));
        let model = self
            .header
            .vectors()
            .saturating_mul(u64::from(2 * sizes[2]));
        let floats: Vec<f32> = floats.take(model.min(HEAD) as usize).collect();
        let fits = |lanes: usize| {
            let mut blocks = floats.chunks(2 * lanes);
            blocks.all(|block| {
                block
                    .iter()
                    .skip(lanes)
                    .all(|&accumulator| accumulator >= 1.0)
            })
        };
        let lanes = if floats.len() >= 2 * SSE_LANES && fits(SSE_LANES) {
            SSE_LANES
        } else if fits(1) {
            1
        } else if floats.len() < 2 * SSE_LANES {
            return Err(self.truncated());
        } else {
            let expected = "accumulators of at least 1 behind each four weights, or each one";
            let found = "other numbers";
            return Err(self.value(format!("byte {HEADER}"), found, expected.to_owned()));
        };
        self.layout = Layout::Binary { lanes };
        Ok(())
    }

    fn binary_vector(&mut self, lanes: usize) -> Result<(), Error> {
        let dim = self.header.embedding_dim as usize;
        self.bytes.resize(stored(dim, lanes) * 4, 0);
        if let Err(source) = self.input.read_exact(&mut self.bytes) {
            return Err(match source.kind() {
                io::ErrorKind::UnexpectedEof => self.truncated(),
                _ => self.unreadable(source),
            });
        }
        let floats = self.bytes.as_chunks::<4>().0;
        let weights = floats.chunks(2 * lanes).flat_map(|block| &block[..lanes]);
        self.weights.clear();
        self.weights
            .extend(weights.take(dim).map(|&bytes| f32::from_le_bytes(bytes)));
        if let Some(weight) = self.weights.iter().find(|weight| !weight.is_finite()) {
            let [index, field] = self.at();
            let place = format!("{}, w{index},{field}", self.place());
            return Err(self.value(place, &weight.to_string(), "a finite number".to_owned()));
        }
        Ok(())
    }

    /// Checks that nothing but white space follows a text, and nothing at all binary vectors.
    fn end(&mut self) -> Result<(), Error> {
        let text = matches!(self.layout, Layout::Text { .. });
        loop {
            let buffer = self.input.fill_buf();
            let (length, first) = match buffer {
                Ok(buffer) => (
                    buffer.len(),
                    buffer
                        .iter()
                        .find(|byte| !(text && byte.is_ascii_whitespace())),
                ),
                Err(source) => return Err(self.unreadable(source)),
            };
            if let Some(&byte) = first {
                let found = if text {
                    char::from(byte).to_string()
                } else {
                    format!("0x{byte:02x}")
                };
                let expected = format!("the end, after {}", self.what());
                return Err(self.value(format!("behind {}", self.place()), &found, expected));
            }
            if length == 0 {
                return Ok(());
            }
            self.input.consume(length);
        }
    }

    fn place(&self) -> String {
        match self.layout {
            Layout::Text { lines } => format!("line {lines}"),
            Layout::Binary { lanes } => {
                let vector = stored(self.header.embedding_dim as usize, lanes) as u64 * 4;
                let header = if self.header.embedding_dim == 0 {
                    0
                } else {
                    HEADER
                };
                format!("byte {}", header + self.done * vector)
            }
        }
    }

    fn what(&self) -> String {
        let Header {
            features, fields, ..
        } = self.header;
        format!("{features} features by {fields} fields")
    }

    fn value(&self, place: String, value: &str, expected: String) -> Error {
        let mut shortened: String = value.chars().take(80).collect();
        if shortened.len() < value.len() {
            shortened.push('…');
        }
        Error::Value {
            file: self.file.clone(),
            place,
            value: shortened,
            expected,
        }
    }

    fn truncated(&self) -> Error {
        Error::Truncated {
            file: self.file.clone(),
            place: self.place(),
            found: self.done,
            expected: self.header.vectors(),
            what: self.what(),
        }
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::Read {
            file: self.file.clone(),
            place: self.place(),
            source,
        }
    }
}

fn header([features, fields, embedding_dim]: [u32; 3], normalize: bool) -> Header {
    Header {
        features,
        fields,
        embedding_dim,
        normalize,
    }
}

/// Floats that a vector of `dim` takes in a binary file, accumulators included.
fn stored(dim: usize, lanes: usize) -> usize {
    2 * dim.next_multiple_of(lanes)
}

/// Writes a model that libffm reads, every weight exactly. `fill` is asked for the vectors in the
/// order of the file, feature by feature and field by field, and gets `k` zeros to fill in.
/// Accumulators, which only training reads, are written as they begin.
///
/// # Errors
/// [`Error::OutOfRange`], [`Error::NonFinite`], [`Error::Write`].
pub fn write(
    mut output: impl Write,
    header: Header,
    format: Format,
    mut fill: impl FnMut(u32, u32, &mut [f32]),
) -> Result<(), Error> {
    for (value, (what, limit)) in header.sizes().into_iter().zip(LIMITS) {
        if !(1..=limit).contains(&value) {
            return Err(Error::OutOfRange { what, value, limit });
        }
    }
    let mut bytes = Vec::new();
    match format {
        Format::Text => {
            let [n, m, k] = header.sizes();
            let normalize = u8::from(header.normalize);
            let text = format!("n {n}\nm {m}\nk {k}\nnormalization {normalize}\n");
            bytes.extend(text.bytes());
        }
        Format::Binary => {
            bytes.extend(header.sizes().into_iter().flat_map(u32::to_le_bytes));
            bytes.push(u8::from(header.normalize));
        }
    }
    output.write_all(&bytes).map_err(Error::Write)?;
    let mut weights = vec![0f32; header.embedding_dim as usize];
    for index in 0..header.features {
        for field in 0..header.fields {
            weights.fill(0.0);
            fill(index, field, &mut weights);
            if let Some(&value) = weights.iter().find(|weight| !weight.is_finite()) {
                return Err(Error::NonFinite {
                    index,
                    field,
                    value,
                });
            }
            bytes.clear();
            match format {
                Format::Text => {
                    bytes.extend(format!("w{index},{field} ").bytes());
                    for weight in &weights {
                        bytes.extend(format!("{weight:?} ").bytes());
                    }
                    bytes.push(b'\n');
                }
                Format::Binary => {
                    for lane in weights.chunks(SSE_LANES) {
                        let mut block = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0f32];
                        block[..lane.len()].copy_from_slice(lane);
                        bytes.extend(block.into_iter().flat_map(f32::to_le_bytes));
                    }
                }
            }
            output.write_all(&bytes).map_err(Error::Write)?;
        }
    }
    output.flush().map_err(Error::Write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: Header = Header {
        features: 3,
        fields: 2,
        embedding_dim: 5,
        normalize: false,
    };

    fn weight(index: u32, field: u32, at: usize) -> f32 {
        (index * 2 + field) as f32 * 0.1 + at as f32 * 1e-7 - 0.3
    }

    fn file(format: Format) -> Vec<u8> {
        let mut file = Vec::new();
        write(&mut file, SMALL, format, |index, field, weights| {
            for (at, entry) in weights.iter_mut().enumerate() {
                *entry = weight(index, field, at);
            }
        })
        .unwrap();
        file
    }

    /// Header and all weights.
    fn all(bytes: &[u8]) -> Result<(Header, Format, Vec<f32>), Error> {
        let mut reader = read("m", bytes)?;
        let mut weights = Vec::new();
        while let Some(vector) = reader.next_vector()? {
            weights.extend(vector.weights);
        }
        Ok((reader.header(), reader.format(), weights))
    }

    fn message(bytes: &[u8]) -> String {
        all(bytes).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read_to_the_bit_in_order() {
        for format in [Format::Text, Format::Binary] {
            let bytes = file(format);
            let mut reader = read("m", bytes.as_slice()).unwrap();
            assert_eq!((reader.header(), reader.format()), (SMALL, format));
            for index in 0..3 {
                for field in 0..2 {
                    let vector = reader.next_vector().unwrap().unwrap();
                    assert_eq!((vector.index, vector.field), (index, field));
                    let expected: Vec<f32> = (0..5).map(|at| weight(index, field, at)).collect();
                    assert_eq!(vector.weights, expected);
                }
            }
            assert_eq!(reader.next_vector().unwrap(), None);
            assert_eq!(reader.next_vector().unwrap(), None);
        }
    }

    #[test]
    fn the_binary_layout_keeps_four_weights_before_their_accumulators() {
        let bytes = file(Format::Binary);
        assert_eq!(bytes.len(), 13 + 3 * 2 * 2 * 8 * 4);
        assert_eq!(bytes[..13], [3, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0]);
        let second: Vec<f32> = bytes[13 + 64..][..64]
            .chunks(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert_eq!(second[..4], [0, 1, 2, 3].map(|at| weight(0, 1, at)));
        assert_eq!(second[4..8], [1.0; 4]);
        assert_eq!(
            second[8..],
            [weight(0, 1, 4), 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
        );
    }

    #[test]
    fn lanes_are_told_by_their_accumulators() {
        // The beginnings of two models of `ffm-train -k 2 -t 8 -s 1`, libffm 1.23 (af3ae37), built
        // without and with SSE, under a header of one feature.
        let head = [1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1];
        let model = |floats: &[f32]| {
            let floats = floats.iter().flat_map(|float| float.to_le_bytes());
            head.into_iter().chain(floats).collect::<Vec<u8>>()
        };
        let one = [
            5.5337496e-6,
            1.0,
            0.09301127,
            1.0,
            0.9410174,
            1.2779187,
            0.31481037,
            1.0018164,
        ];
        let four = [
            5.5337496e-6,
            0.09301127,
            0.0,
            0.0,
            1.0,
            1.0,
            1.0,
            1.0,
            0.9410312,
            0.3148096,
            0.0,
            0.0,
            1.2779231,
            1.0018164,
            1.0,
            1.0,
        ];
        for (floats, expected) in [
            (&one[..], [5.5337496e-6, 0.09301127, 0.9410174, 0.31481037]),
            (&four[..], [5.5337496e-6, 0.09301127, 0.9410312, 0.3148096]),
        ] {
            let (header, format, weights) = all(&model(floats)).unwrap();
            assert!(header.normalize);
            assert_eq!(format, Format::Binary);
            assert_eq!(weights, expected);
        }
        // The smallest there can be.
        let mut bytes = vec![1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
        bytes.extend([0.5f32, 1.0].into_iter().flat_map(f32::to_le_bytes));
        assert_eq!(all(&bytes).unwrap().2, [0.5]);
    }

    #[test]
    fn a_file_cut_short_anywhere_is_an_error() {
        for format in [Format::Text, Format::Binary] {
            let bytes = file(format);
            for length in 0..bytes.len() {
                assert!(
                    all(&bytes[..length]).is_err(),
                    "{format:?} of {length} bytes"
                );
            }
        }
        let text = file(Format::Text);
        let lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
        assert_eq!(
            message(&lines[..7].concat()),
            "`m` ends at line 8, after 3 vectors: expected 6, 3 features by 2 fields (is it a copy \
             that was cut short?)"
        );
        assert_eq!(
            message(&file(Format::Binary)[..13 + 3 * 64 + 10]),
            "`m` ends at byte 205, after 3 vectors: expected 6, 3 features by 2 fields (is it a \
             copy that was cut short?)"
        );
    }

    #[test]
    fn what_is_wrong_in_a_text_is_named_by_line_and_vector() {
        let head = "n 2\nm 1\nk 2\nnormalization 1\n";
        for (text, expected) in [
            (
                "n 2\nm x\n",
                "`m`, line 2: `m x`: expected `m` and a number from 1 to 65536",
            ),
            (
                "n 0\n",
                "`m`, line 1: `n 0`: expected `n` and a number from 1 to 2147483647",
            ),
            (
                "n 2\nm 1\nk 99999999\n",
                "`m`, line 3: `k 99999999`: expected `k` and a number from 1 to 1024",
            ),
            (
                "n 2\nm 1\nk 2\nnormalization 2\n",
                "`m`, line 4: `normalization 2`: expected `normalization` and 0 or 1",
            ),
            (
                "n 2\n",
                "`m`, line 2: ``: expected `m` and a number from 1 to 65536",
            ),
        ] {
            assert_eq!(message(text.as_bytes()), expected);
        }
        for (vectors, expected) in [
            (
                "w0,0 1 nan\nw1,0 1 2\n",
                "`m`, line 5, w0,0: `nan`: expected a finite number",
            ),
            (
                "w0,0 1 2\nw1,0 1 1e99\n",
                "`m`, line 6, w1,0: `1e99`: expected a finite number",
            ),
            (
                "w0,0 1 2\nw2,0 1 2\n",
                "`m`, line 6: `w2,0`: expected `w1,0`, the next vector",
            ),
            (
                "w0,0 1 2 3\nw1,0 1 2\n",
                "`m`, line 5, w0,0: `3 numbers`: expected 2, the k of the header",
            ),
            (
                "w0,0 1\nw1,0 1 2\n",
                "`m`, line 5, w0,0: `1 numbers`: expected 2, the k of the header",
            ),
            (
                "w0,0 1 2\nw1,0 1 2\nw2,0 1 2\n",
                "`m`, behind line 6: `w`: expected the end, after 2 features by 1 fields",
            ),
        ] {
            assert_eq!(message(format!("{head}{vectors}").as_bytes()), expected);
        }
        let endless = format!("{head}w0,0 {}", "1 ".repeat(10_000));
        assert!(message(endless.as_bytes()).ends_with("expected a line of at most 192 bytes"));
        assert!(all(format!("{head}w0,0 1 2\nw1,0 -0.5 1e-3\n\n").as_bytes()).is_ok());
    }

    #[test]
    fn what_is_wrong_in_a_binary_file_is_named_by_byte() {
        assert_eq!(
            message(b"PK\x03\x04"),
            "`m`, byte 0: `4 bytes`: expected a model of libffm: `n` and a number, or 13 bytes of \
             header"
        );
        let mut bytes = file(Format::Binary);
        bytes.push(7);
        assert_eq!(
            message(&bytes),
            "`m`, behind byte 397: `0x07`: expected the end, after 3 features by 2 fields"
        );
        let mut bytes = file(Format::Binary);
        bytes[4..8].fill(0);
        assert_eq!(
            message(&bytes),
            "`m`, byte 4: `0`: expected m, from 1 to 65536, or a text file that begins with `n` \
             and a number"
        );
        let mut bytes = file(Format::Binary);
        bytes[12] = 9;
        assert_eq!(
            message(&bytes),
            "`m`, byte 12: `9`: expected 0 or 1, whether rows are normalised"
        );
        let mut bytes = file(Format::Binary);
        bytes[13 + 64..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
        assert_eq!(
            message(&bytes),
            "`m`, byte 77, w0,1: `NaN`: expected a finite number"
        );
        let mut bytes = file(Format::Binary);
        bytes[13..].fill(0);
        assert_eq!(
            message(&bytes),
            "`m`, byte 13: `other numbers`: expected accumulators of at least 1 behind each four \
             weights, or each one"
        );
    }

    #[test]
    fn what_libffm_could_not_read_is_not_written() {
        let none = Header { fields: 0, ..SMALL };
        let error = write(io::sink(), none, Format::Text, |_, _, _| {});
        assert_eq!(
            error.unwrap_err().to_string(),
            "m is 0: expected 1 to 65536"
        );
        let error = write(io::sink(), SMALL, Format::Binary, |index, _, weights| {
            weights[1] = if index == 2 { f32::INFINITY } else { 0.0 };
        });
        assert_eq!(
            error.unwrap_err().to_string(),
            "feature 2, field 0: the weight inf: expected a finite number"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = all(&bytes);
        }

        #[test]
        fn a_changed_byte_is_an_error_or_another_model(at in 0usize..397, byte in any::<u8>()) {
            for format in [Format::Text, Format::Binary] {
                let mut bytes = file(format);
                if let Some(changed) = bytes.get_mut(at) {
                    *changed = byte;
                }
                if let Ok((_, _, weights)) = all(&bytes) {
                    prop_assert!(weights.iter().all(|weight| weight.is_finite()));
                }
            }
        }
    }
}
