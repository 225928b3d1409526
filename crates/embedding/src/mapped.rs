//! Rows in a file that is mapped into memory: more of them than memory holds.
//!
//! Kernels see a mapped table as they see any other, as bytes. The system reads a page of the file
//! when it is first touched; which pages stay, and when one that was changed is written, is decided
//! here. Pages that were touched are counted in three generations: the youngest is complete when it
//! has a third of the pages that may stay, and what was there before the last one is the oldest. When
//! there are more pages than may stay, all that are in the oldest alone are given back. So a row that is
//! read or changed again and again stays, one that was needed once goes after a while, and nothing goes
//! as long as all have room.
//!
//! A page that was changed is a copy of the process's own until it is given back or the file is
//! flushed: then it is written. The system would write changed pages of a file that is shared with it
//! every few seconds, hot rows again and again, and each of these would then wait at its next change
//! until the page could be written to once more. What is to be changed must therefore be said
//! ([`change`](MappedFile::change), [`change_rows`](MappedFile::change_rows)).
//!
//! Two things make rows at random bearable. Pages that are new are asked for all at once, so that the
//! disk reads many together while none of them is waited for. And what was written or read in one stretch
//! does not stay in the system's cache: it lies there in pieces of up to megabytes, of which the system
//! writes all when a single row of one changes. Not counted are pages that the system maps beside one that
//! is read because it has them at hand: they are its cache anyway, and go when others do.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::Range;
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

/// Whether changed pages are the process's own until they are written; else the system writes them.
const OWN_COPIES: bool = cfg!(unix);

/// A file of rows, mapped.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    file: File,
    map: MmapMut,
    len: usize,
    clock: Box<Mutex<Clock>>,
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
            unsafe {
                if OWN_COPIES {
                    // No more of them than the bound: room for copies of all is not to be set aside.
                    let mut options = memmap2::MmapOptions::new();
                    options.no_reserve_swap().map_copy(&file)
                } else {
                    MmapMut::map_mut(&file)
                }
            }
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
            clock: Box::new(Mutex::new(Clock::new(len, usize::MAX))),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map[..self.len]
    }

    /// What kernels change, after [`change_rows`](Self::change_rows).
    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[..self.len]
    }

    /// Bytes that are about to be changed.
    pub(crate) fn change(&mut self, range: Range<usize>) -> &mut [u8] {
        let mut clock = self.clock();
        clock.begin();
        for page in range.start / PAGE..range.end.div_ceil(PAGE) {
            clock.touch(page);
            clock.changed.insert(page);
        }
        self.keep_within_bound(&mut clock);
        drop(clock);
        &mut self.map[range]
    }

    /// Keeps no more than so many bytes of the file mapped, from what it is told of.
    pub(crate) fn bound(&self, bytes: u64) {
        self.clock().bound = usize::try_from(bytes).unwrap_or(usize::MAX) / PAGE;
    }

    /// Notes that rows are about to be read: asks for their pages, and gives back others if there are
    /// too many.
    pub(crate) fn touch(&self, stride: usize, rows: impl Iterator<Item = u32>) {
        self.note(stride, rows, false);
    }

    /// As [`touch`](Self::touch), of rows that kernels are about to change.
    pub(crate) fn change_rows(&mut self, stride: usize, rows: impl Iterator<Item = u32>) {
        self.note(stride, rows, true);
    }

    fn note(&self, stride: usize, rows: impl Iterator<Item = u32>, change: bool) {
        let mut clock = self.clock();
        clock.begin();
        for row in rows {
            let from = row as usize * stride;
            for page in from / PAGE..=(from + stride - 1) / PAGE {
                if clock.touch(page) {
                    self.ask_for(page);
                }
                if change {
                    clock.changed.insert(page);
                }
            }
        }
        self.keep_within_bound(&mut clock);
    }

    fn clock(&self) -> std::sync::MutexGuard<'_, Clock> {
        self.clock.lock().expect("no panic while it is held")
    }

    /// Gives back pages if there are more than may stay.
    fn keep_within_bound(&self, clock: &mut Clock) {
        for pages in clock.others() {
            self.let_go(clock, pages);
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
        let end = if to >= self.len {
            self.len.div_ceil(PAGE)
        } else {
            to / PAGE
        };
        let pages = from.div_ceil(PAGE)..end;
        let mut clock = self.clock();
        clock.forget(pages.clone());
        self.let_go(&mut clock, pages);
    }

    /// Writes the pages that were changed, and gives back all. Where they cannot be written they stay, and
    /// whoever flushes hears of it.
    fn let_go(&self, clock: &mut Clock, pages: Range<usize>) {
        if self.write_pages(clock, pages.clone()).is_err() {
            return;
        }
        #[cfg(unix)]
        {
            // The system's pages may be larger; those that are only in part among ours stay.
            let page = rustix::param::page_size();
            let from = (pages.start * PAGE).next_multiple_of(page);
            let to = pages.end * PAGE;
            let to = if to >= self.len {
                self.len
            } else {
                to / page * page
            };
            if from < to {
                // SAFETY: within the map. What was changed on these pages is in the file, from which
                // they are read again, so that no reference to their bytes sees a change.
                // A wish: pages that stay are no error.
                let _ = unsafe {
                    let advice = memmap2::UncheckedAdvice::DontNeed;
                    self.map.unchecked_advise_range(advice, from, to - from)
                };
            }
        }
    }

    /// Writes those of some pages that were changed to the file.
    fn write_pages(&self, clock: &mut Clock, pages: Range<usize>) -> Result<(), Error> {
        #[cfg(unix)]
        for run in clock.changed.runs(pages) {
            use std::os::unix::fs::FileExt;
            let (from, to) = (run.start * PAGE, self.len.min(run.end * PAGE));
            let written = self.file.write_all_at(&self.bytes()[from..to], from as u64);
            written.map_err(Error::io(&self.path, "write the rows of a mapped table"))?;
            run.for_each(|page| {
                clock.changed.remove(page);
            });
        }
        #[cfg(not(unix))]
        let _ = (clock, pages);
        Ok(())
    }

    /// Copies bytes of the file without mapping its pages; what was changed is among them once it was
    /// [written](Self::write).
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

    /// Writes all that was changed to the file.
    pub(crate) fn write(&self) -> Result<(), Error> {
        self.write_pages(&mut self.clock(), 0..self.len.div_ceil(PAGE))
    }

    /// Returns when the system says that all that was changed is on the disk.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.write()?;
        if OWN_COPIES {
            self.file.sync_data()
        } else {
            self.map.flush()
        }
        .map_err(Error::io(&self.path, "flush"))
    }
}

/// A set of small numbers.
#[derive(Clone, Debug, Default)]
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

    /// Whether it was in it.
    #[inline]
    fn remove(&mut self, at: usize) -> bool {
        let was_in = self.contains(at);
        self.0[at / 64] &= !(1 << (at % 64));
        was_in
    }

    /// Takes in what is in another.
    fn join(&mut self, other: &Self) {
        let words = self.0.iter_mut().zip(&other.0);
        words.for_each(|(word, other)| *word |= other);
    }

    fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    #[inline]
    fn contains(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    /// Those of a range, in runs.
    fn runs(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let mut runs = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let rest = self.0[at / 64] >> (at % 64);
            if rest == 0 {
                at = (at / 64 + 1) * 64;
                continue;
            }
            let from = at + rest.trailing_zeros() as usize;
            let absent = (from..range.end).find(|&at| !self.contains(at));
            at = absent.unwrap_or(range.end);
            if from < at {
                runs.push(from..at);
            }
        }
        runs
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

/// Which pages were touched lately, and which were changed and not written.
#[derive(Debug)]
struct Clock {
    /// Pages of the file.
    pages: usize,
    /// Pages that may stay.
    bound: usize,
    /// From the youngest to the oldest generation.
    touched: [Bits; 3],
    /// Pages of the youngest generation.
    young: usize,
    /// Pages of all.
    count: usize,
    changed: Bits,
}

impl Clock {
    fn new(len: usize, bound: usize) -> Self {
        let pages = len.div_ceil(PAGE);
        Self {
            pages,
            bound,
            touched: [(); 3].map(|()| Bits::new(pages)),
            young: 0,
            count: 0,
            changed: Bits::new(pages),
        }
    }

    /// Before pages are touched together: begins another generation if the youngest is complete.
    #[inline]
    fn begin(&mut self) {
        if self.young >= (self.bound / 3).max(1) {
            let [young, last, old] = &mut self.touched;
            old.join(last);
            std::mem::swap(young, last);
            young.clear();
            self.young = 0;
        }
    }

    /// Whether the page was not there.
    #[inline]
    fn touch(&mut self, page: usize) -> bool {
        let [young, last, old] = &mut self.touched;
        if !young.insert(page) {
            return false;
        }
        self.young += 1;
        let is_new = !last.contains(page) && !old.contains(page);
        self.count += usize::from(is_new);
        is_new
    }

    /// Pages that are given back before their time.
    fn forget(&mut self, pages: Range<usize>) {
        for page in pages {
            let [young, last, old] = self.touched.each_mut().map(|bits| bits.remove(page));
            self.young -= usize::from(young);
            self.count -= usize::from(young || last || old);
        }
    }

    /// What is to go, in runs, if there are more pages than may stay: all that were not touched together
    /// with the last, or not in the last generation either.
    fn others(&mut self) -> Vec<Range<usize>> {
        let mut runs = Vec::new();
        if self.count < self.bound {
            return runs;
        }
        let [young, last, old] = &mut self.touched;
        old.clear();
        let mut kept = young.clone();
        kept.join(last);
        self.count = kept.len();
        if self.count >= self.bound {
            last.clear();
            kept = young.clone();
            self.count = self.young;
        }
        let mut from = 0;
        for page in kept.iter().chain([self.pages]) {
            if from < page {
                runs.push(from..page);
            }
            from = page + 1;
        }
        runs
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
        let runs = |range| bits.runs(range);
        assert_eq!(runs(0..200), [0..2, 63..65, 199..200]);
        assert_eq!(runs(1..64), [1..2, 63..64]);
        assert!(runs(65..199).is_empty());
        assert!(bits.remove(63) && !bits.remove(63));
        assert_eq!(bits.runs(2..200), [64..65, 199..200]);
    }

    #[test]
    fn nothing_goes_while_all_have_room_and_then_what_was_not_touched_for_long() {
        let mut clock = Clock::new(20 * PAGE - 1, 9);
        let mut touch = |pages: &[usize]| {
            clock.begin();
            let new = pages.iter().filter(|&&page| clock.touch(page)).count();
            let others: Vec<usize> = clock.others().into_iter().flatten().collect();
            (new, others)
        };
        // Generations of three.
        assert_eq!(touch(&[4, 5, 4, 8]), (3, vec![]));
        assert_eq!(touch(&[5, 10, 11]), (2, vec![]));
        assert_eq!(touch(&[11, 12, 13]), (2, vec![]));
        assert_eq!(touch(&[14]), (1, vec![]));
        assert_eq!(touch(&[15]), (1, (0..11).chain(16..20).collect()));
        // Of those that went, and of those that are there.
        assert_eq!(touch(&[5, 11]), (1, vec![]));
        // More together than may stay.
        let many: Vec<usize> = (0..10).collect();
        assert_eq!(touch(&many), (9, (10..20).collect()));
        assert_eq!(touch(&many), (0, (10..20).collect()));
        clock.forget(0..8);
        assert_eq!((clock.young, clock.count), (2, 2));
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
            file.change(at..at + 1)[0] = 200;
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
    fn a_file_larger_than_memory_is_mapped_and_changed() {
        const LEN: usize = 200 << 30;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.rows");
        // It has holes, and takes no room.
        File::create(&path).unwrap().set_len(LEN as u64).unwrap();
        let mut file = MappedFile::open(&path, LEN).unwrap();
        file.change(LEN - 8..LEN).copy_from_slice(b"the last");
        file.give_back(0, LEN);
        assert_eq!(&file.bytes()[LEN - 9..], b"\0the last");
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
