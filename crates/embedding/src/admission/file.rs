//! Admissions in files, written and read as a stream.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::keys::{Entry, SHARDS};
use super::{Admission, AdmissionConfig};
use crate::Error;

/// The first bytes of a file, the last of them its version.
const MAGIC: [u8; 8] = *b"cf-keys\x01";
/// Numbers behind them.
const HEADER: usize = 15;
/// Stands for an option that is not set.
const NONE: u64 = u64::MAX;
/// Lines of a sketch that one word says of which are not zero.
const GROUP: usize = 64;
/// Bytes of an entry.
const ENTRY: u64 = 16;

impl Admission {
    /// Writes all of it, and returns when the system says that it is on the disk. `tag` says whose
    /// it is: [`load`](Self::load) asks for the same one.
    ///
    /// ```text
    /// magic and version | 15 numbers | clocks | free rows | sketch | keys by shard | xxh3 of it all
    /// ```
    ///
    /// All numbers are little-endian; of the sketch, lines of zeros are left out. The same admission
    /// gives the same bytes, whether or not it was loaded in between.
    ///
    /// # Errors
    /// [`Error::Io`]; what was written until then stays behind, so write beside and rename.
    ///
    /// ```
    /// use crossfield_embedding::{Admission, AdmissionConfig};
    ///
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("keys.user");
    /// let config = AdmissionConfig { sketch: 1 << 20, ..AdmissionConfig::default() };
    /// let mut admission = Admission::new(config)?;
    /// admission.admit(&[7, 8], &[2, 1], 3);
    /// admission.save(&path, 42)?;
    /// let mut again = Admission::load(&path, 42, config)?;
    /// assert_eq!(again.admit(&[7, 8], &[1, 1], 2).rows, [1, 2]);
    /// assert_eq!(
    ///     Admission::load(&path, 43, config).unwrap_err().to_string(),
    ///     format!(
    ///         "{}: the keys of another run, or of another step of this one",
    ///         path.display()
    ///     )
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&self, path: &Path, tag: u64) -> Result<(), Error> {
        let file = File::create(path).map_err(Error::io(path, "create"))?;
        let mut out = Out {
            file: BufWriter::with_capacity(1 << 18, file),
            hash: Xxh3::new(),
            path,
        };
        out.write(&MAGIC)?;
        let config = &self.config;
        let [sketch_hand, counted] = self.sketch.hand();
        let header: [u64; HEADER] = [
            tag,
            config.min_count.into(),
            config.max_rows.map_or(NONE, u64::from),
            config.evict_after.unwrap_or(NONE),
            config.sketch,
            self.sketch.lines().len() as u64,
            sketch_hand,
            counted,
            self.next_row.into(),
            self.block.into(),
            self.clock,
            self.hand as u64,
            self.clocks.len() as u64,
            self.free.len() as u64,
            self.keys.len() as u64,
        ];
        header.iter().try_for_each(|number| out.number(*number))?;
        self.clocks
            .iter()
            .try_for_each(|clock| out.number(*clock))?;
        for row in &self.free {
            out.write(&row.to_le_bytes())?;
        }
        for group in self.sketch.lines().chunks(GROUP) {
            let lines = group.iter().enumerate();
            let full = lines.filter(|(_, line)| line.0 != [0; 8]);
            out.number(full.clone().fold(0, |mask, (nth, _)| mask | 1 << nth))?;
            for word in full.flat_map(|(_, line)| line.0) {
                out.number(word)?;
            }
        }
        let mut entries: Vec<Entry> = Vec::new();
        for shard in 0..SHARDS {
            entries.clear();
            entries.extend(self.keys.entries(shard));
            // Where they lie depends on the order in which they came.
            entries.sort_unstable_by_key(|entry| entry.key);
            for entry in &entries {
                let rest = u64::from(entry.row) << 32 | u64::from(entry.seen);
                out.number(entry.key)?;
                out.number(rest)?;
            }
        }
        out.finish()
    }

    /// Reads what [`save`](Self::save) wrote with the same `tag`, of an admission of the same
    /// `config`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Keys`] for a file that is damaged; [`Error::OtherKeys`] for the keys
    /// of another run, or of other options; [`Error::NoSketch`].
    pub fn load(path: &Path, tag: u64, config: AdmissionConfig) -> Result<Self, Error> {
        let mut input = In::open(path)?;
        if input.bytes()? != MAGIC {
            return Err(input.broken("it does not begin as one of this version"));
        }
        let mut header = [0; HEADER];
        for number in &mut header {
            *number = input.number()?;
        }
        let [
            its_tag,
            min_count,
            max_rows,
            evict_after,
            sketch,
            lines,
            sketch_hand,
            counted,
            next_row,
            block,
            clock,
            hand,
            clocks,
            free,
            keys,
        ] = header;
        let options = [min_count, max_rows, evict_after, sketch];
        let expected = [
            config.min_count.into(),
            config.max_rows.map_or(NONE, u64::from),
            config.evict_after.unwrap_or(NONE),
            config.sketch,
        ];
        // What is damaged is not said to be another's.
        if (its_tag, options) != (tag, expected) {
            input.read_to_end()?;
            return Err(Error::OtherKeys {
                path: path.to_owned(),
                what: if its_tag == tag {
                    "other options of `admit`"
                } else {
                    "another run, or of another step of this one"
                },
            });
        }
        let mut read = Self::new(config)?;
        let rows = keys
            .checked_add(free)
            .and_then(|given| given.checked_add(1));
        let fits = lines == read.sketch.lines().len() as u64
            && read.sketch.set_hand([sketch_hand, counted])
            && rows == Some(next_row)
            && next_row <= u64::from(config.most()) + 1
            && hand < SHARDS as u64
            && block <= u64::from(u32::MAX)
            && clocks <= block;
        if !fits {
            return Err(input.broken("its numbers contradict each other"));
        }
        (read.next_row, read.block) = (next_row as u32, block as u32);
        (read.clock, read.hand) = (clock, hand as usize);
        input.expect(clocks, 8)?;
        for _ in 0..clocks {
            read.clocks.push_back(input.number()?);
        }
        input.expect(free, 4)?;
        for _ in 0..free {
            read.free.push(u32::from_le_bytes(input.bytes()?));
        }
        for group in read.sketch.lines_mut().chunks_mut(GROUP) {
            let full = input.number()?;
            for (nth, line) in group.iter_mut().enumerate() {
                if full >> nth & 1 == 1 {
                    for word in &mut line.0 {
                        *word = input.number()?;
                    }
                }
            }
        }
        input.expect(keys, ENTRY)?;
        for _ in 0..keys {
            let (key, rest) = (input.number()?, input.number()?);
            let (row, seen) = ((rest >> 32) as u32, rest as u32);
            if row == 0 || row >= read.next_row || seen > read.block {
                return Err(input.broken("a key has a row that was never given"));
            }
            if !read.keys.insert(key, row, seen) {
                return Err(input.broken("a key stands twice"));
            }
        }
        input.finish()?;
        Ok(read)
    }
}

/// A file that is written, and the hash of what was.
struct Out<'a> {
    file: BufWriter<File>,
    hash: Xxh3,
    path: &'a Path,
}

impl Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hash.update(bytes);
        let written = self.file.write_all(bytes);
        written.map_err(Error::io(self.path, "write"))
    }

    fn number(&mut self, number: u64) -> Result<(), Error> {
        self.write(&number.to_le_bytes())
    }

    fn finish(mut self) -> Result<(), Error> {
        let hash = self.hash.digest();
        self.number(hash)?;
        let file = self.file.into_inner();
        let file = file.map_err(|error| Error::io(self.path, "write")(error.into_error()))?;
        file.sync_all().map_err(Error::io(self.path, "flush"))
    }
}

/// A file that is read, and the hash of what was.
struct In {
    file: BufReader<File>,
    hash: Xxh3,
    /// Bytes before the hash that are still to be read.
    left: u64,
    path: PathBuf,
}

impl In {
    fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let len = file.metadata().map_err(Error::io(path, "read"))?.len();
        Ok(Self {
            file: BufReader::with_capacity(1 << 18, file),
            hash: Xxh3::new(),
            left: len.saturating_sub(8),
            path: path.to_owned(),
        })
    }

    fn broken(&self, reason: &'static str) -> Error {
        Error::Keys {
            path: self.path.clone(),
            reason,
        }
    }

    /// Refuses a file that is too short for so many values of `size` bytes.
    fn expect(&self, count: u64, size: u64) -> Result<(), Error> {
        match count.checked_mul(size) {
            Some(bytes) if bytes <= self.left => Ok(()),
            _ => Err(self.broken("it is cut short")),
        }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.expect(1, N as u64)?;
        let mut bytes = [0; N];
        let read = self.file.read_exact(&mut bytes);
        read.map_err(Error::io(&self.path, "read"))?;
        self.left -= N as u64;
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// Reads what is left, for its hash alone.
    fn read_to_end(&mut self) -> Result<(), Error> {
        while self.left >= 8 {
            self.number()?;
        }
        while self.left > 0 {
            self.bytes::<1>()?;
        }
        self.check()
    }

    fn finish(&mut self) -> Result<(), Error> {
        if self.left > 0 {
            return Err(self.broken("it is longer than it says"));
        }
        self.check()
    }

    /// Compares the hash at the end with that of what was read.
    fn check(&mut self) -> Result<(), Error> {
        let mut hash = [0; 8];
        let read = self.file.read_exact(&mut hash);
        read.map_err(Error::io(&self.path, "read"))?;
        if u64::from_le_bytes(hash) != self.hash.digest() {
            return Err(self.broken("its checksum is not that of its bytes"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: AdmissionConfig = AdmissionConfig {
        min_count: 2,
        max_rows: Some(30),
        evict_after: Some(40),
        sketch: 4096,
    };

    fn used() -> Admission {
        let mut admission = Admission::new(CONFIG).unwrap();
        for block in 0..20u64 {
            let keys: Vec<u64> = (0..8).map(|nth| block * 5 + nth).collect();
            admission.admit(&keys, &[1; 8], 8);
        }
        admission
    }

    #[test]
    fn what_was_loaded_goes_on_as_what_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = ["a", "b"].map(|name| dir.path().join(name));
        let mut admission = used();
        admission.save(&first, 1).unwrap();
        let mut loaded = Admission::load(&first, 1, CONFIG).unwrap();
        for block in 15..40u64 {
            let keys: Vec<u64> = (0..8).map(|nth| block * 3 + nth).collect();
            let expected = admission.admit(&keys, &[1; 8], 8);
            assert_eq!(loaded.admit(&keys, &[1; 8], 8), expected);
        }
        admission.save(&first, 2).unwrap();
        loaded.save(&second, 2).unwrap();
        assert_eq!(
            std::fs::read(&first).unwrap(),
            std::fs::read(&second).unwrap()
        );
    }

    #[test]
    fn damaged_files_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.user");
        used().save(&path, 1).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = Admission::load(&path, 1, CONFIG).unwrap_err();
            let message = error.to_string();
            assert!(matches!(error, Error::Keys { .. }), "{message}");
            assert!(
                message.starts_with(&path.display().to_string()),
                "{message}"
            );
        };
        for cut in (0..whole.len()).step_by(17) {
            refused(&whole[..cut]);
        }
        for at in (0..200).chain((200..whole.len()).step_by(5)) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            refused(&bytes);
        }
        let longer = [&whole[..], &[0; 8]].concat();
        refused(&longer);
    }

    #[test]
    fn other_options_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.user");
        used().save(&path, 1).unwrap();
        let other = AdmissionConfig {
            min_count: 3,
            ..CONFIG
        };
        assert_eq!(
            Admission::load(&path, 1, other).unwrap_err().to_string(),
            format!("{}: the keys of other options of `admit`", path.display())
        );
    }
}
