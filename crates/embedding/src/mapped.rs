//! Rows in a file that is mapped into memory: more of them than memory holds.
//!
//! Kernels see a mapped table as they see any other, as bytes. The system reads a page of the file
//! when it is first touched and writes it back when it likes; what is decided here is which pages
//! stay mapped. Pages that were touched are counted in two generations, and half the bound may be
//! touched in each. When the younger generation is full, all pages that are not in it are given
//! back, and it becomes the older one. So a row that is read or changed again and again stays, one
//! that was needed once goes after a while, and no more than the bound is held. Giving back a page
//! loses nothing: what was changed is in the file.
//!
//! Two things make rows at random bearable. Pages that are new to the generation are asked for all at
//! once, so that the disk reads many together while none of them is waited for. And what was written or
//! read in one stretch does not stay in the system's cache: it lies there in pieces of up to megabytes, of
//! which the system writes all when a single row of one changes. Not counted are pages that the system maps beside one
//! that is read because it has them at hand: they are its cache anyway, and go when the generation does.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapMut;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Where the rows of a table lie.
///
/// ```
/// use crossfield_embedding::Storage;
///
/// #[derive(serde::Deserialize)]
/// struct Options {
///     storage: Storage,
/// }
///
/// let options: Options = serde_json::from_str(r#"{ "storage": "mapped" }"#)?;
/// assert_eq!(options.storage, Storage::Mapped);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// In memory.
    #[default]
    Memory,
    /// In a file that is mapped into memory; the table may be larger than memory.
    Mapped,
}

/// Bytes of a page, or of a part of one where the system's are larger.
const PAGE: usize = 4096;

/// A file of rows, mapped.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    #[cfg_attr(not(unix), expect(dead_code, reason = "rows are read through the map"))]
    file: File,
    map: MmapMut,
    len: usize,
    clock: Mutex<Clock>,
}

impl MappedFile {
    /// Makes a file of `len` bytes, of what `fill` puts into one buffer after the other, and maps it.
    /// All of it is written: a page for which the disk has no room when it is first touched would
    /// end the process.
    pub(crate) fn create(
        path: &Path,
        len: usize,
        buffer: usize,
        fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<Self, Error> {
        let made = Self::make(path, len, buffer, fill)?;
        made.leave_cache()?;
        Ok(made)
    }

    fn make(
        path: &Path,
        len: usize,
        buffer: usize,
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<Self, Error> {
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(true);
        let mut file = open.open(path).map_err(Error::io(path, "create"))?;
        // Aligned as rows in memory are.
        let mut words = vec![0u64; buffer.min(len).div_ceil(size_of::<u64>())];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        for from in (0..len).step_by(buffer.max(1)) {
            let part = &mut bytes[..buffer.min(len - from)];
            part.fill(0);
            fill(from, part);
            let written = file.write_all(part);
            written.map_err(Error::io(path, "write the rows of a mapped table"))?;
        }
        Self::map(path, file, len)
    }

    /// The same in the system's temporary folder, without a name: it goes with the process. Its rows are
    /// only read, and stay in the cache.
    pub(crate) fn scratch(
        len: usize,
        buffer: usize,
        fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<Self, Error> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("crossfield-{}-{number}.rows", std::process::id());
        let path = std::env::temp_dir().join(name);
        let made = Self::make(&path, len, buffer, fill);
        // What is mapped stays without a name; one that could not be made is no use to anyone.
        let _ = std::fs::remove_file(&path);
        made
    }

    /// Maps a file that was made before.
    pub(crate) fn open(path: &Path, len: usize) -> Result<Self, Error> {
        let open = OpenOptions::new().read(true).write(true).open(path);
        let file = open.map_err(Error::io(path, "open"))?;
        let found = file.metadata().map_err(Error::io(path, "read"))?.len();
        if found != len as u64 {
            return Err(Error::MappedTable {
                path: path.to_owned(),
                reason: format!("{found} bytes long, expected {len}"),
            });
        }
        Self::map(path, file, len)
    }

    fn map(path: &Path, file: File, len: usize) -> Result<Self, Error> {
        let map = if len == 0 {
            // The system maps nothing of length zero.
            MmapMut::map_anon(1)
        } else {
            // SAFETY: the file is the run's own, or has no name; nobody else writes to it or makes it
            // shorter while the run has it.
            unsafe { MmapMut::map_mut(&file) }
        };
        let map = map.map_err(Error::io(path, "map into memory"))?;
        // A wish: rows lie anywhere, and what lies beside them is not needed.
        #[cfg(unix)]
        let _ = map.advise(memmap2::Advice::Random);
        Ok(Self {
            path: path.to_owned(),
            file,
            map,
            len,
            clock: Mutex::new(Clock::new(len, usize::MAX)),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map[..self.len]
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[..self.len]
    }

    /// Keeps no more than so many bytes of the file mapped, from what [`touch`](Self::touch) is told.
    pub(crate) fn bound(&self, bytes: u64) {
        let half = usize::try_from(bytes / 2).unwrap_or(usize::MAX) / PAGE;
        *self.clock.lock().expect("no panic while it is held") = Clock::new(self.len, half.max(1));
    }

    /// Notes that rows are about to be read or changed: asks for their pages, and gives back others if
    /// there are too many.
    pub(crate) fn touch(&self, stride: usize, rows: impl Iterator<Item = u32>) {
        let mut clock = self.clock.lock().expect("no panic while it is held");
        for row in rows {
            let from = row as usize * stride;
            for page in from / PAGE..=(from + stride - 1) / PAGE {
                if clock.touch(page) {
                    self.ask_for(page);
                }
            }
        }
        if clock.is_full() {
            clock.turn(|pages| self.give_back(pages.start * PAGE, pages.end * PAGE));
        }
    }

    /// Asks the system to read a page, without waiting for it.
    fn ask_for(&self, page: usize) {
        let from = page * PAGE;
        #[cfg(unix)]
        if from < self.len {
            let len = PAGE.min(self.len - from);
            // A wish: where it is refused, whoever needs the page waits for it.
            let _ = (self.map).advise_range(memmap2::Advice::WillNeed, from, len);
        }
        #[cfg(not(unix))]
        let _ = from;
    }

    /// Lets go of what the system's cache has of the file, but for pages that are mapped.
    pub(crate) fn leave_cache(&self) -> Result<(), Error> {
        #[cfg(target_os = "linux")]
        if self.len > 0 {
            // What is not on the disk yet stays.
            let synced = self.file.sync_data();
            synced.map_err(Error::io(&self.path, "flush"))?;
            // A wish: a system that keeps it is slower.
            let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
        }
        Ok(())
    }

    /// Gives back pages that lie wholly between two positions: they are read again when they are
    /// needed.
    pub(crate) fn give_back(&self, from: usize, to: usize) {
        #[cfg(unix)]
        {
            let from = from.next_multiple_of(PAGE);
            let to = if to >= self.len {
                self.len
            } else {
                to / PAGE * PAGE
            };
            if from < to {
                // SAFETY: within the map, which is shared and of a file: pages are read from the
                // file again, with everything that was written to them, so that no reference to
                // their bytes sees a change.
                // A wish: where pages are larger the system refuses what does not begin on one.
                let _ = unsafe {
                    let advice = memmap2::UncheckedAdvice::DontNeed;
                    self.map.unchecked_advise_range(advice, from, to - from)
                };
            }
        }
        #[cfg(not(unix))]
        let _ = (from, to);
    }

    /// Copies bytes of the file, with what was changed through the map, without mapping its pages.
    pub(crate) fn read_at(&self, from: usize, bytes: &mut [u8]) -> Result<(), Error> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileExt;
            let read = self.file.read_exact_at(bytes, from as u64);
            read.map_err(Error::io(&self.path, "read"))
        }
        #[cfg(not(unix))]
        {
            bytes.copy_from_slice(&self.bytes()[from..][..bytes.len()]);
            Ok(())
        }
    }

    /// Returns when the system says that all that was changed is on the disk.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.map.flush().map_err(Error::io(&self.path, "flush"))
    }
}

/// A set of small numbers.
#[derive(Debug, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    /// Whether it was not in it before.
    #[inline]
    pub(crate) fn insert(&mut self, at: usize) -> bool {
        let (word, bit) = (&mut self.0[at / 64], 1 << (at % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    pub(crate) fn clear(&mut self) {
        self.0.fill(0);
    }

    /// All of them, rising.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        let words = self.0.iter().enumerate().filter(|&(_, &word)| word != 0);
        words.flat_map(|(at, &word)| {
            let bits = std::iter::successors(Some(word), |word| Some(word & (word - 1)));
            let bits = bits.take_while(|&word| word != 0);
            bits.map(move |word| at * 64 + word.trailing_zeros() as usize)
        })
    }
}

/// Which pages were touched lately.
#[derive(Debug)]
struct Clock {
    pages: usize,
    /// Pages of a generation.
    half: usize,
    young: Bits,
    count: usize,
}

impl Clock {
    fn new(len: usize, half: usize) -> Self {
        let pages = len.div_ceil(PAGE);
        Self {
            pages,
            half,
            young: Bits::new(pages),
            count: 0,
        }
    }

    /// Whether the page is new to the generation.
    #[inline]
    fn touch(&mut self, page: usize) -> bool {
        let is_new = self.young.insert(page);
        self.count += usize::from(is_new);
        is_new
    }

    fn is_full(&self) -> bool {
        self.count >= self.half
    }

    /// Hands over all pages that are not of the young generation, in runs, and begins another.
    fn turn(&mut self, mut give_back: impl FnMut(std::ops::Range<usize>)) {
        let mut from = 0;
        for page in self.young.iter().chain([self.pages]) {
            if from < page {
                give_back(from..page);
            }
            from = page + 1;
        }
        self.young.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_listed_in_order() {
        let mut bits = Bits::new(200);
        for at in [199, 0, 64, 63, 64] {
            bits.insert(at);
        }
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 63, 64, 199]);
        assert!(!bits.insert(63) && bits.insert(1) && !bits.insert(1));
    }

    #[test]
    fn pages_of_the_last_generation_stay_and_the_others_are_given_back_in_runs() {
        let mut clock = Clock::new(10 * PAGE - 1, 3);
        let new = [4, 5, 4, 8].map(|page| clock.touch(page));
        assert_eq!(new, [true, true, false, true]);
        assert!(clock.is_full());
        let mut given = Vec::new();
        clock.turn(|pages| given.push(pages));
        assert_eq!(given, [0..4, 6..8, 9..10]);
        assert!(!clock.is_full());
    }

    #[test]
    fn a_page_that_was_given_back_has_what_was_written_to_it() {
        let len = 3 * PAGE + 100;
        let numbered = |from: usize, part: &mut [u8]| {
            let at = from..from + part.len();
            part.iter_mut()
                .zip(at)
                .for_each(|(byte, at)| *byte = at as u8);
        };
        let mut file = MappedFile::scratch(len, 1000, numbered).unwrap();
        assert!(!file.path().exists());
        let mut expected: Vec<u8> = (0..len).map(|at| at as u8).collect();
        assert!(file.bytes() == expected);
        for at in [7, 2 * PAGE, len - 1] {
            file.bytes_mut()[at] = 200;
            expected[at] = 200;
        }
        file.give_back(0, len);
        assert!(file.bytes() == expected);
        let mut part = vec![0; 10];
        file.read_at(len - 10, &mut part).unwrap();
        assert_eq!(part, expected[len - 10..]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn no_more_pages_stay_mapped_than_the_bound_and_hot_rows_are_among_them() {
        const PAGES: usize = 4096;
        let file = MappedFile::scratch(PAGES * PAGE, 1 << 20, |_, _| {}).unwrap();
        file.bound(512 * PAGE as u64);
        for page in 0..PAGES as u32 {
            // One row of a page each: a cold one, and a hot one with each.
            let rows = [page, 5];
            for row in rows {
                std::hint::black_box(file.bytes()[row as usize * PAGE]);
            }
            file.touch(PAGE, rows.into_iter());
        }
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = smaps.lines();
        let start = format!("{:x}-", file.bytes().as_ptr() as usize);
        assert!(lines.any(|line| line.starts_with(&start)));
        let resident = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        let resident: usize = resident.trim_end_matches("kB").trim().parse().unwrap();
        // The system maps up to 16 pages where one is read.
        assert!(resident <= 4 * (512 + 16), "{resident} kB");
        assert!(resident >= 4, "{resident} kB");
    }
}
