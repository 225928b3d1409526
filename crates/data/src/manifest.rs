//! `checksums.json`: what the files of a folder were when they were written.
//!
//! ```json
//! {
//!   "files": {
//!     "model.safetensors": {
//!       "bytes": 1440128,
//!       "xxh3": "5c3a0de1f6b7a921"
//!     }
//!   },
//!   "xxh3": "e07b7d3f12c4a8d5"
//! }
//! ```
//!
//! The last one is of the list itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::Error;

/// Bytes that are read at a time.
const BLOCK: usize = 1 << 18;

/// The list of a folder's files with their lengths and checksums (XXH3, 64 bits): it tells damage,
/// not intent.
///
/// ```
/// use crossfield_data::Manifest;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("a.txt"), "one")?;
/// Manifest::of(folder.path(), ["a.txt"])?.save(folder.path())?;
///
/// let manifest = Manifest::read(folder.path())?;
/// manifest.verify(folder.path())?;
/// std::fs::write(folder.path().join("a.txt"), "two")?;
/// let error = manifest.verify(folder.path()).unwrap_err().to_string();
/// assert!(error.contains("a.txt` is damaged: its checksum is "));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    files: BTreeMap<String, Listed>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    bytes: u64,
    xxh3: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    files: BTreeMap<String, Listed>,
    xxh3: String,
}

impl Listed {
    fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len() as u64,
            xxh3: hex(xxh3_64(bytes)),
        }
    }

    /// Of the first `most` bytes of a file, read block by block.
    fn read(path: &Path, most: u64) -> io::Result<Self> {
        let mut file = File::open(path)?.take(most);
        let (mut hash, mut bytes) = (Xxh3::new(), 0);
        let mut block = vec![0; BLOCK];
        loop {
            match file.read(&mut block) {
                Ok(0) => break,
                Ok(count) => {
                    hash.update(&block[..count]);
                    bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let xxh3 = hex(hash.digest());
        Ok(Self { bytes, xxh3 })
    }
}

fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

impl Manifest {
    /// Name of the file, in the folder that it is of.
    pub const FILE: &'static str = "checksums.json";

    /// The list of these files of a folder. Names below it are written with `/`.
    ///
    /// # Errors
    /// [`Error::Open`] for a file that cannot be read.
    pub fn of<N: Into<String>>(
        folder: &Path,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Self, Error> {
        let mut manifest = Self::default();
        for name in names {
            manifest.add(folder, name)?;
        }
        Ok(manifest)
    }

    /// The list of all files of a folder and of the folders in it, but lists.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn of_all(folder: &Path) -> Result<Self, Error> {
        Self::of(folder, files_below(folder)?)
    }

    /// Adds a file as it is on the disk.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn add(&mut self, folder: &Path, name: impl Into<String>) -> Result<(), Error> {
        let name = name.into();
        let path = folder.join(&name);
        let listed = Listed::read(&path, u64::MAX).map_err(|source| Error::Open {
            file: path.display().to_string(),
            source,
        })?;
        self.files.insert(name, listed);
        Ok(())
    }

    /// Adds a file that is to be written.
    pub fn add_text(&mut self, name: impl Into<String>, text: &str) {
        self.files.insert(name.into(), Listed::of(text.as_bytes()));
    }

    /// Adds all files of another list, which are in this folder too.
    pub fn extend(&mut self, other: &Self) {
        let files = other.files.iter();
        self.files
            .extend(files.map(|(name, listed)| (name.clone(), listed.clone())));
    }

    /// The list without the files that `leave_out` is true of.
    #[must_use]
    pub fn without(&self, leave_out: impl Fn(&str) -> bool) -> Self {
        let mut files = self.files.clone();
        files.retain(|name, _| !leave_out(name));
        Self { files }
    }

    /// Names of the files, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Writes the list beside its place, on the disk, and renames it.
    ///
    /// # Errors
    /// [`Error::Write`]; an older list stays as it was.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(Self::FILE);
        let beside = folder.join(format!("{}.part", Self::FILE));
        let written = File::create(&beside).and_then(|mut file| {
            file.write_all(self.to_text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &path)
        });
        written.map_err(|source| {
            let _ = fs::remove_file(&beside);
            Error::Write {
                file: path.display().to_string(),
                source,
            }
        })
    }

    fn to_text(&self) -> String {
        let files = serde_json::to_vec(&self.files).expect("names and numbers");
        let saved = Saved {
            files: self.files.clone(),
            xxh3: hex(xxh3_64(&files)),
        };
        let mut text = serde_json::to_string_pretty(&saved).expect("names and numbers");
        text.push('\n');
        text
    }

    /// Reads the list of a folder.
    ///
    /// # Errors
    /// [`Error::Damaged`] if there is none, or it is not as it was written.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(Self::FILE);
        let damaged = |problem: String| Error::Damaged {
            file: path.display().to_string(),
            problem,
        };
        let text = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => damaged("it is missing, and with it the checksums".into()),
            _ => damaged(format!("it cannot be read: {error}")),
        })?;
        let saved: Saved =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        let manifest = Self { files: saved.files };
        let files = serde_json::to_vec(&manifest.files).expect("names and numbers");
        let found = hex(xxh3_64(&files));
        if found != saved.xxh3 {
            let expected = saved.xxh3;
            return Err(damaged(format!(
                "the checksum of its list is {found}, expected {expected}"
            )));
        }
        if manifest.to_text().as_bytes() != text {
            return Err(damaged("it is not written as it was saved".into()));
        }
        let is_below = |name: &str| {
            let mut parts = Path::new(name).components();
            parts.all(|part| matches!(part, Component::Normal(_)))
        };
        if let Some(name) = manifest.names().find(|name| !is_below(name)) {
            return Err(damaged(format!(
                "it lists `{name}`, expected files of its folder"
            )));
        }
        Ok(manifest)
    }

    /// Compares all files with the list.
    ///
    /// # Errors
    /// [`Error::Damaged`] for the first that is missing, longer or shorter, or changed.
    pub fn verify(&self, folder: &Path) -> Result<(), Error> {
        self.names()
            .try_for_each(|name| self.verify_file(folder, name))
    }

    /// Compares one file with the list.
    ///
    /// # Errors
    /// [`Error::Damaged`], also for a file that the list does not have.
    pub fn verify_file(&self, folder: &Path, name: &str) -> Result<(), Error> {
        let expected = self.listed(folder, name)?;
        let path = folder.join(name);
        let damaged = |problem: String| damaged(&path, problem);
        let length = fs::metadata(&path).map_err(|error| unreadable(&path, expected, &error))?;
        if length.len() != expected.bytes {
            let (found, expected) = (length.len(), expected.bytes);
            return Err(damaged(format!(
                "it has {found} bytes, expected {expected}"
            )));
        }
        self.verify_beginning(folder, name).map(|_| ())
    }

    /// Compares as much of a file as is listed, and says how many bytes that is: of a file that
    /// grows, and whose list is written after each line.
    ///
    /// # Errors
    /// As [`verify_file`](Self::verify_file).
    pub fn verify_beginning(&self, folder: &Path, name: &str) -> Result<u64, Error> {
        let expected = self.listed(folder, name)?;
        let path = folder.join(name);
        let found = Listed::read(&path, expected.bytes)
            .map_err(|error| unreadable(&path, expected, &error))?;
        let problem = if found.bytes != expected.bytes {
            format!("it has {} bytes, expected {}", found.bytes, expected.bytes)
        } else if found.xxh3 != expected.xxh3 {
            format!("its checksum is {}, expected {}", found.xxh3, expected.xxh3)
        } else {
            return Ok(expected.bytes);
        };
        Err(damaged(&path, problem))
    }

    /// Whether the list has these files, whose checksums are not compared.
    ///
    /// # Errors
    /// [`Error::Damaged`] for one that it does not have.
    pub fn requires(&self, folder: &Path, names: &[&str]) -> Result<(), Error> {
        let mut names = names.iter();
        names.try_for_each(|name| self.listed(folder, name).map(|_| ()))
    }

    fn listed(&self, folder: &Path, name: &str) -> Result<&Listed, Error> {
        self.files.get(name).ok_or_else(|| {
            let list = Self::FILE;
            damaged(&folder.join(name), format!("{list} does not have it"))
        })
    }
}

fn damaged(path: &Path, problem: String) -> Error {
    Error::Damaged {
        file: path.display().to_string(),
        problem,
    }
}

fn unreadable(path: &Path, expected: &Listed, error: &io::Error) -> Error {
    let bytes = expected.bytes;
    let problem = match error.kind() {
        io::ErrorKind::NotFound => format!("it is missing, expected {bytes} bytes"),
        _ => format!("it cannot be read: {error}"),
    };
    damaged(path, problem)
}

/// Names of all files of a folder and of those in it, but lists, sorted.
fn files_below(folder: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(below) = folders.pop() {
        let path = folder.join(&below);
        let unread = |source| Error::Open {
            file: path.display().to_string(),
            source,
        };
        for entry in fs::read_dir(&path).map_err(unread)? {
            let entry = entry.map_err(unread)?;
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            if entry.file_type().map_err(unread)?.is_dir() {
                folders.push(name + "/");
            } else if entry.file_name() != Manifest::FILE {
                names.push(name);
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Manifest) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("a"), "one\n").unwrap();
        fs::write(folder.path().join("below/b"), vec![7; 1 << 19]).unwrap();
        let manifest = Manifest::of_all(folder.path()).unwrap();
        manifest.save(folder.path()).unwrap();
        (folder, manifest)
    }

    fn message(result: Result<(), Error>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn what_was_saved_is_read_and_files_are_as_they_were() {
        let (folder, manifest) = folder();
        assert_eq!(manifest.names().collect::<Vec<_>>(), ["a", "below/b"]);
        assert_eq!(Manifest::read(folder.path()).unwrap(), manifest);
        manifest.verify(folder.path()).unwrap();
        let mut same = Manifest::default();
        same.add_text("a", "one\n");
        assert_eq!(same, manifest.without(|name| name != "a"));
        same.extend(&manifest);
        assert_eq!(same, manifest);
    }

    #[test]
    fn files_that_are_changed_cut_gone_or_not_listed_are_named() {
        let (folder, manifest) = folder();
        let path = folder.path().join("below/b");
        let name = path.display();
        let mut bytes = vec![7; 1 << 19];
        bytes[300_000] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = message(manifest.verify(folder.path()));
        let begin = format!("`{name}` is damaged: its checksum is ");
        assert!(error.starts_with(&begin), "{error}");
        fs::write(&path, &bytes[1..]).unwrap();
        assert_eq!(
            message(manifest.verify(folder.path())),
            format!("`{name}` is damaged: it has 524287 bytes, expected 524288")
        );
        fs::remove_file(&path).unwrap();
        assert_eq!(
            message(manifest.verify(folder.path())),
            format!("`{name}` is damaged: it is missing, expected 524288 bytes")
        );
        let error = message(manifest.verify_file(folder.path(), "c"));
        assert!(
            error.ends_with("checksums.json does not have it"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_has_grown_is_as_it_was_up_to_where_it_is_listed() {
        let (folder, manifest) = folder();
        fs::write(folder.path().join("a"), "one\ntw").unwrap();
        assert_eq!(manifest.verify_beginning(folder.path(), "a").unwrap(), 4);
        assert!(manifest.verify_file(folder.path(), "a").is_err());
        fs::write(folder.path().join("a"), "on").unwrap();
        assert!(manifest.verify_beginning(folder.path(), "a").is_err());
    }

    #[test]
    fn each_flipped_bit_of_a_list_and_each_cut_is_noticed() {
        let (folder, _) = folder();
        let path = folder.path().join(Manifest::FILE);
        let text = fs::read(&path).unwrap();
        for at in 0..text.len() {
            fs::write(&path, &text[..at]).unwrap();
            assert!(Manifest::read(folder.path()).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[at] ^= 1 << bit;
                fs::write(&path, &flipped).unwrap();
                let error = Manifest::read(folder.path()).map(|_| ());
                let error = message(error);
                assert!(error.contains("checksums.json` is damaged: "), "{error}");
            }
        }
        fs::remove_file(&path).unwrap();
        let error = message(Manifest::read(folder.path()).map(|_| ()));
        assert!(
            error.ends_with("it is missing, and with it the checksums"),
            "{error}"
        );
    }

    #[test]
    fn names_outside_of_the_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::default();
        manifest.add_text("../a", "one");
        manifest.save(folder.path()).unwrap();
        let error = message(Manifest::read(folder.path()).map(|_| ()));
        assert!(error.contains("`../a`"), "{error}");
    }
}
