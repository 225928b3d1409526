//! Vectors and their keys in the formats that other programs read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use npyz::WriterBuilder;

use crate::{Error, SnapshotTensor, Vectors, write_snapshot};

/// A format of vectors with keys.
///
/// ```
/// use crossfield_embedding::{VectorFormat, Vectors, write_vectors};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let vectors = Vectors::from_flat(&[0.5, 1.0, -2.0, 0.25], 2)?;
/// let keyed = [(0, "Brazil"), (1, "Star Wars")].map(|(row, key)| (row, key.to_owned()));
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("films.txt");
/// write_vectors(&path, VectorFormat::Word2vec, &vectors, &keyed)?;
/// let text = std::fs::read_to_string(path)?;
/// assert_eq!(text, "2 2\nBrazil 0.5 1\nStar_Wars -2 0.25\n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorFormat {
    /// An array `[rows, dim]` of `f32` as NumPy writes it, with the keys beside it.
    Npy,
    /// The text format of word2vec: a line with the numbers of rows and of dimensions, then a line
    /// a row, a key and its numbers with blanks between. Each blank of a key becomes a `_`, and a
    /// key of no characters is one. Numbers read back as they were.
    Word2vec,
    /// A safetensors file with the tensor `vectors`, `[rows, dim]`, with the keys beside it.
    Safetensors,
}

/// Writes the rows that are named, in that order, with their keys.
///
/// Formats that know no keys have them in a file of their own, one a line, in the order of the rows:
/// beside `films.npy` lies `films.npy.keys.txt`. Files are written beside their places and then
/// renamed.
///
/// # Errors
/// [`Error::Io`], [`Error::Key`] for a key that does not fit on a line, [`Error::NoRow`].
pub fn write_vectors(
    path: &Path,
    format: VectorFormat,
    vectors: &Vectors,
    keyed: &[(u32, String)],
) -> Result<(), Error> {
    for (row, key) in keyed {
        let rows = vectors.rows();
        if *row as usize >= rows {
            let (what, row) = ("vector", *row);
            return Err(Error::NoRow { what, row, rows });
        }
        if key.contains(['\n', '\r']) {
            return Err(Error::Key { key: key.clone() });
        }
    }
    let part = with_ending(path, ".part");
    let keys = with_ending(path, ".keys.txt");
    let keys_part = with_ending(&keys, ".part");
    let rows = || {
        keyed
            .iter()
            .map(|(row, key)| (vectors.row(*row), key.as_str()))
    };
    let shape = [keyed.len(), vectors.dim()];
    let written = match format {
        VectorFormat::Npy => write(&part, |out| npy(out, shape, rows())),
        VectorFormat::Word2vec => write(&part, |out| word2vec(out, shape, rows())),
        VectorFormat::Safetensors => {
            let tensor = SnapshotTensor {
                shape: shape.to_vec(),
                values: Box::new(|write| rows().try_for_each(|(row, _)| write(row))),
            };
            write_snapshot(&part, BTreeMap::from([("vectors".to_owned(), tensor)]))
        }
    };
    let put = |part: &Path, path: &Path| {
        fs::rename(part, path).map_err(Error::io(path, "rename into place"))
    };
    let with_keys = format != VectorFormat::Word2vec;
    let result = written
        .and_then(|()| {
            let lines =
                |out: &mut BufWriter<File>| rows().try_for_each(|(_, key)| writeln!(out, "{key}"));
            if with_keys {
                write(&keys_part, lines)
            } else {
                Ok(())
            }
        })
        .and_then(|()| put(&part, path))
        .and_then(|()| {
            if with_keys {
                put(&keys_part, &keys)
            } else {
                Ok(())
            }
        });
    if result.is_err() {
        // What was there before stays; a half of something new is of no use.
        let _ = fs::remove_file(&part);
        let _ = fs::remove_file(&keys_part);
    }
    result
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Writes a file, which is on the disk then.
fn write(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), Error> {
    let file = File::create(path).map_err(Error::io(path, "create"))?;
    let mut out = BufWriter::with_capacity(1 << 18, file);
    let written = content(&mut out).and_then(|()| {
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()
    });
    written.map_err(Error::io(path, "write"))
}

fn npy<'a>(
    out: &mut impl Write,
    shape: [usize; 2],
    rows: impl Iterator<Item = (&'a [f32], &'a str)>,
) -> io::Result<()> {
    let options = npyz::WriteOptions::new().default_dtype();
    let mut writer = options
        .shape(&shape.map(|length| length as u64))
        .writer(out)
        .begin_nd()?;
    for (row, _) in rows {
        writer.extend(row)?;
    }
    writer.finish()
}

fn word2vec<'a>(
    out: &mut impl Write,
    [rows, dim]: [usize; 2],
    mut keyed: impl Iterator<Item = (&'a [f32], &'a str)>,
) -> io::Result<()> {
    writeln!(out, "{rows} {dim}")?;
    keyed.try_for_each(|(row, key)| {
        let key = if key.is_empty() { "_" } else { key };
        write!(out, "{}", key.replace(char::is_whitespace, "_"))?;
        row.iter().try_for_each(|value| write!(out, " {value}"))?;
        writeln!(out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Snapshot;

    const VALUES: [f32; 9] = [1.0, -0.5, f32::MIN_POSITIVE, 0.1, 2.0, -3e8, 9.0, 9.0, 9.0];
    const FORMATS: [VectorFormat; 3] = [
        VectorFormat::Npy,
        VectorFormat::Word2vec,
        VectorFormat::Safetensors,
    ];

    /// Three numbers a row; the last row has no key, and the first two come in reverse.
    fn written(format: VectorFormat) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        let vectors = Vectors::from_flat(&VALUES, 3).unwrap();
        let keyed = [(1, "a b\tc".to_owned()), (0, String::new())];
        write_vectors(&path, format, &vectors, &keyed).unwrap();
        (folder, path)
    }

    fn names(folder: &tempfile::TempDir) -> Vec<String> {
        let entries = folder.path().read_dir().unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn expected() -> Vec<f32> {
        [&VALUES[3..6], &VALUES[..3]].concat()
    }

    #[test]
    fn an_npy_file_reads_back_with_its_keys_beside_it() {
        let (folder, path) = written(VectorFormat::Npy);
        let file = npyz::NpyFile::new(File::open(&path).unwrap()).unwrap();
        assert_eq!(file.shape(), [2, 3]);
        assert_eq!(file.order(), npyz::Order::C);
        assert_eq!(file.into_vec::<f32>().unwrap(), expected());
        let keys = fs::read_to_string(folder.path().join("v.keys.txt")).unwrap();
        assert_eq!(keys, "a b\tc\n\n");
        assert_eq!(names(&folder), ["v", "v.keys.txt"]);
    }

    #[test]
    fn a_safetensors_file_reads_back_with_its_keys_beside_it() {
        let (folder, path) = written(VectorFormat::Safetensors);
        let mut values = Vec::new();
        let mut snapshot = Snapshot::open(&path).unwrap();
        let read = snapshot.read("vectors", &[2, 3], |block| values.extend_from_slice(block));
        read.unwrap();
        assert_eq!(values, expected());
        assert_eq!(names(&folder), ["v", "v.keys.txt"]);
    }

    #[test]
    fn a_word2vec_file_reads_back_and_has_no_blanks_in_its_keys() {
        let (folder, path) = written(VectorFormat::Word2vec);
        let text = fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("2 3"));
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for line in lines {
            let (key, numbers) = line.split_once(' ').unwrap();
            keys.push(key);
            values.extend(
                numbers
                    .split(' ')
                    .map(|number| number.parse::<f32>().unwrap()),
            );
        }
        assert_eq!(keys, ["a_b_c", "_"]);
        assert_eq!(values, expected());
        assert_eq!(names(&folder), ["v"]);
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let vectors = Vectors::from_flat(&VALUES, 3).unwrap();
        for format in FORMATS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("v");
            let fails = |row, key: &str| {
                let keyed = [(row, key.to_owned())];
                write_vectors(&path, format, &vectors, &keyed)
                    .unwrap_err()
                    .to_string()
            };
            assert_eq!(fails(3, "a"), "vector 3: expected a row below 3");
            assert_eq!(
                fails(0, "a\nb"),
                "key \"a\\nb\": expected no line end in it"
            );
            // A folder is in the place of the file.
            fs::create_dir(&path).unwrap();
            assert!(fails(0, "a").contains("cannot rename into place"));
            assert_eq!(names(&folder), ["v"]);
        }
    }
}
