//! Tensors in safetensors files, written and read block by block so that no table is held twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::Error;

/// Floats that are converted at a time.
const BLOCK: usize = 1 << 16;

/// Something that can be written as one tensor of `f32`.
pub struct SnapshotTensor<'a> {
    /// Shape.
    pub shape: Vec<usize>,
    /// Hands the values over in row-major order, block by block.
    pub values: Values<'a>,
}

/// Calls what it is given with one block after the other, until that fails.
pub type Values<'a> =
    Box<dyn Fn(&mut dyn FnMut(&[f32]) -> Result<(), Error>) -> Result<(), Error> + 'a>;

impl<'a> SnapshotTensor<'a> {
    /// A tensor whose values lie in one slice.
    pub fn from_slice(shape: Vec<usize>, values: &'a [f32]) -> Self {
        Self {
            shape,
            values: Box::new(move |write| write(values)),
        }
    }
}

/// Writes tensors, sorted by name, and returns when the system says that they are on the disk.
///
/// # Errors
/// [`Error::Io`], [`Error::NonFiniteTensor`]; what was written until then stays behind, so write
/// beside and rename.
pub fn write_snapshot(
    path: &Path,
    tensors: BTreeMap<String, SnapshotTensor<'_>>,
) -> Result<(), Error> {
    let mut end = 0;
    let infos = tensors
        .iter()
        .map(|(name, tensor)| {
            let start = end;
            end += tensor.shape.iter().product::<usize>() * size_of::<f32>();
            let info = TensorInfo {
                dtype: Dtype::F32,
                shape: tensor.shape.clone(),
                data_offsets: (start, end),
            };
            (name.clone(), info)
        })
        .collect();
    let metadata = Metadata::new(None, infos).expect("offsets follow from the shapes");
    let mut header = serde_json::to_vec(&metadata).expect("names and numbers");
    // The format asks for data that begins at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');

    let file = File::create(path).map_err(Error::io(path, "create"))?;
    let mut out = BufWriter::with_capacity(1 << 18, file);
    let mut write = |bytes: &[u8]| out.write_all(bytes).map_err(Error::io(path, "write"));
    write(&(header.len() as u64).to_le_bytes())?;
    write(&header)?;
    let mut bytes = Vec::with_capacity(BLOCK * size_of::<f32>());
    for (name, tensor) in tensors {
        let mut count = 0;
        (tensor.values)(&mut |block| {
            count += block.len();
            if let Some(&value) = block.iter().find(|value| !value.is_finite()) {
                let tensor = name.clone();
                return Err(Error::NonFiniteTensor { tensor, value });
            }
            block.chunks(BLOCK).try_for_each(|part| {
                bytes.clear();
                bytes.extend(part.iter().flat_map(|value| value.to_le_bytes()));
                write(&bytes)
            })
        })?;
        assert_eq!(
            count,
            tensor.shape.iter().product::<usize>(),
            "values of `{name}`"
        );
    }
    let file = out
        .into_inner()
        .map_err(|error| Error::io(path, "write")(error.into_error()))?;
    file.sync_all().map_err(Error::io(path, "flush"))
}

/// Which rows of a table a snapshot has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SavedRows {
    /// All.
    #[default]
    All,
    /// All, or those that there were before a vocabulary grew: the first ones, but for the row of all
    /// that is unseen where that was the last. The others stay as they are.
    Fewer,
}

/// A safetensors file of which single tensors are read.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use crossfield_embedding::{Snapshot, SnapshotTensor, write_snapshot};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("a.safetensors");
/// let tensor = SnapshotTensor::from_slice(vec![2, 2], &[1.0, 2.0, 3.0, 4.0]);
/// write_snapshot(&path, BTreeMap::from([("a".to_owned(), tensor)]))?;
///
/// let mut snapshot = Snapshot::open(&path)?;
/// assert_eq!(snapshot.shape("a"), Some(&[2, 2][..]));
/// let mut values = Vec::new();
/// snapshot.read("a", &[2, 2], |block| values.extend_from_slice(block))?;
/// assert_eq!(values, [1.0, 2.0, 3.0, 4.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Snapshot {
    path: PathBuf,
    file: BufReader<File>,
    metadata: Metadata,
    data_start: u64,
    rows: SavedRows,
}

impl Snapshot {
    /// Opens a file and checks its header against its length.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let broken = |reason: String| Error::Format {
            path: path.to_owned(),
            reason,
        };
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let len = file.metadata().map_err(Error::io(path, "read"))?.len();
        let mut file = BufReader::with_capacity(1 << 18, file);
        let mut size = [0; 8];
        file.read_exact(&mut size)
            .map_err(|_| broken(format!("only {len} bytes long")))?;
        let size = u64::from_le_bytes(size);
        let data_start = size.saturating_add(8);
        if data_start > len {
            return Err(broken(format!(
                "a header of {size} bytes in a file of {len}"
            )));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header)
            .map_err(Error::io(path, "read"))?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| broken(error.to_string()))?;
        let expected = data_start + metadata.data_len() as u64;
        if expected != len {
            return Err(broken(format!(
                "{len} bytes long, its header says {expected}"
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            metadata,
            data_start,
            rows: SavedRows::All,
        })
    }

    /// The same file, of tables with these rows.
    pub fn with_rows(self, rows: SavedRows) -> Self {
        Self { rows, ..self }
    }

    /// Which rows its tables have.
    pub fn rows(&self) -> SavedRows {
        self.rows
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.metadata.offset_keys();
        names.sort_unstable();
        names
    }

    /// Shape of a tensor, if the file holds it.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|info| info.shape.as_slice())
    }

    /// Reads a tensor of the given shape, handing its values over in blocks of whole rows (of the
    /// last dimension).
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], [`Error::Io`].
    pub fn read(
        &mut self,
        name: &str,
        shape: &[usize],
        mut block: impl FnMut(&[f32]),
    ) -> Result<(), Error> {
        let info = self
            .metadata
            .info(name)
            .ok_or_else(|| Error::MissingTensor {
                path: self.path.clone(),
                name: name.to_owned(),
            })?;
        if info.dtype != Dtype::F32 || info.shape != shape {
            return Err(Error::Shape {
                path: self.path.clone(),
                name: name.to_owned(),
                got: format!("{:?} {:?}", info.dtype, info.shape),
                expected: format!("{:?} {shape:?}", Dtype::F32),
            });
        }
        let start = self.data_start + info.data_offsets.0 as u64;
        let io = |source| Error::Io {
            path: self.path.clone(),
            action: "read",
            source,
        };
        self.file.seek(SeekFrom::Start(start)).map_err(io)?;
        let width = shape.last().copied().unwrap_or(1).max(1);
        let step = (BLOCK / width).max(1) * width;
        let mut left = shape.iter().product::<usize>();
        let mut bytes = vec![0; step.min(left) * size_of::<f32>()];
        let mut values = Vec::with_capacity(step.min(left));
        while left > 0 {
            let count = step.min(left);
            let bytes = &mut bytes[..count * size_of::<f32>()];
            self.file.read_exact(bytes).map_err(io)?;
            values.clear();
            values.extend(
                bytes
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|&value| f32::from_le_bytes(value)),
            );
            block(&values);
            left -= count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path) {
        let tensors = BTreeMap::from([
            (
                "b".to_owned(),
                SnapshotTensor::from_slice(vec![2, 2], &[1.0, 2.0, 3.0, -4.5]),
            ),
            ("a".to_owned(), SnapshotTensor::from_slice(vec![], &[7.0])),
            (
                "empty".to_owned(),
                SnapshotTensor::from_slice(vec![0, 3], &[]),
            ),
        ]);
        write_snapshot(path, tensors).unwrap();
    }

    #[test]
    fn what_was_written_is_read_and_other_programs_read_it_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        write(&path);
        let mut snapshot = Snapshot::open(&path).unwrap();
        assert_eq!(snapshot.names(), ["a", "b", "empty"]);
        let mut got = Vec::new();
        snapshot
            .read("b", &[2, 2], |block| got.extend_from_slice(block))
            .unwrap();
        assert_eq!(got, [1.0, 2.0, 3.0, -4.5]);
        let bytes = std::fs::read(&path).unwrap();
        let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(reference.tensor("b").unwrap().shape(), [2, 2]);
        assert_eq!(reference.tensor("a").unwrap().data(), 7f32.to_le_bytes());
    }

    #[test]
    fn what_is_not_finite_is_not_saved() {
        let dir = tempfile::tempdir().unwrap();
        for value in [f32::NAN, f32::INFINITY] {
            let values = [1.0, value];
            let tensor = SnapshotTensor::from_slice(vec![2], &values);
            let tensors = BTreeMap::from([("tables.a".to_owned(), tensor)]);
            let error = write_snapshot(&dir.path().join("t"), tensors).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("tensor `tables.a` holds {value}, expected finite numbers")
            );
        }
    }

    #[test]
    fn damaged_files_and_wrong_shapes_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        write(&path);
        let error = Snapshot::open(&path)
            .unwrap()
            .read("b", &[4], |_| ())
            .unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("`b` is F32 [2, 2], the model expects F32 [4]"),
            "{error}"
        );
        let error = Snapshot::open(&path)
            .unwrap()
            .read("c", &[4], |_| ())
            .unwrap_err();
        assert!(
            error.to_string().ends_with("holds no tensor `c`"),
            "{error}"
        );
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 5, 20, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(
                matches!(Snapshot::open(&path), Err(Error::Format { .. })),
                "cut at {cut}"
            );
        }
    }
}
