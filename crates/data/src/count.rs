//! Counting keys in bounded memory: what does not fit is spilled to files, and counted part by part.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::Error;
use crate::intern::{Interner, Slots};

/// Parts that a spill is divided into, by these many bits of the hash of a key.
const PART_BITS: u32 = 6;
const PARTS: u64 = 1 << PART_BITS;
/// Bytes of records that share a checksum.
const BLOCK: usize = 1 << 15;
/// Bytes before the records of a block: their number, their checksum.
const BLOCK_HEAD: usize = 16;
/// Bytes before a key: its length, count, first place and fields.
const RECORD_HEAD: usize = 28;

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) count: u64,
    /// Its number among the keys in the order of first appearance; numbers may be left out.
    pub(crate) first: u64,
    /// The fields that have it, as bits.
    pub(crate) fields: u64,
}

/// Keys that are held in memory.
#[derive(Default)]
struct Held {
    text: Vec<u8>,
    ends: Vec<usize>,
    entries: Vec<Entry>,
    slots: Slots,
}

impl Held {
    fn key(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.text[start..self.ends[id]]
    }

    fn ids(&self) -> std::ops::Range<u32> {
        0..self.entries.len() as u32
    }

    fn bytes(&self) -> usize {
        self.text.capacity()
            + self.ends.capacity() * size_of::<usize>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.slots.bytes()
    }

    /// Adds what is known of a key to what was known before.
    fn add(&mut self, key: &[u8], entry: Entry) {
        let mut slots = std::mem::take(&mut self.slots);
        if slots.is_full(self.entries.len()) {
            slots.grow(self.ids().map(|id| xxh3_64(self.key(id))));
        }
        let new = self.entries.len() as u32;
        let known = slots.get_or_take(xxh3_64(key), new, |id| self.key(id) == key);
        self.slots = slots;
        let Some(id) = known else {
            self.text.extend_from_slice(key);
            self.ends.push(self.text.len());
            self.entries.push(entry);
            return;
        };
        let before = &mut self.entries[id as usize];
        before.count += entry.count;
        before.first = before.first.min(entry.first);
        before.fields |= entry.fields;
    }
}

/// How often keys were seen, those that did not fit in memory in spill files.
pub(crate) struct Counter {
    spills: Rc<Spills>,
    held: Held,
    /// The number of the next key that is new.
    next: u64,
    /// How many times the keys were divided before.
    depth: u32,
    /// What was spilled of each part; empty before the first spill.
    parts: Vec<Vec<Segment>>,
}

/// The vocabulary of some fields, and how many of its keys each of them has.
pub(crate) struct Counted {
    /// By falling count, then by first appearance.
    pub(crate) keys: Interner,
    pub(crate) counts: Vec<u64>,
    /// Of each field, those that it has.
    pub(crate) distinct: Vec<u64>,
    /// Of those, the ones with a row.
    pub(crate) kept: Vec<u64>,
}

impl Counter {
    pub(crate) fn new(spills: Rc<Spills>) -> Self {
        Self::at_depth(spills, 0)
    }

    fn at_depth(spills: Rc<Spills>, depth: u32) -> Self {
        Self {
            spills,
            held: Held::default(),
            next: 0,
            depth,
            parts: Vec::new(),
        }
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.held.bytes()
    }

    /// Adds `count` appearances of a key in these fields. Keys come in the order of appearance.
    pub(crate) fn add(&mut self, key: &[u8], count: u64, fields: u64) {
        let first = self.next;
        self.next += 1;
        let entry = Entry {
            count,
            first,
            fields,
        };
        self.held.add(key, entry);
    }

    /// Writes what is in memory to a file, and lets go of it.
    ///
    /// # Errors
    /// [`Error::Write`] if that file cannot be written.
    pub(crate) fn spill(&mut self) -> Result<(), Error> {
        let held = std::mem::take(&mut self.held);
        let shift = u64::BITS - PART_BITS * (self.depth + 1);
        let part = |id| (xxh3_64(held.key(id)) >> shift) & (PARTS - 1);
        let mut ids: Vec<(u64, u32)> = held.ids().map(|id| (part(id), id)).collect();
        ids.sort_unstable();
        self.parts.resize_with(PARTS as usize, Vec::new);
        let mut file = self.spills.create()?;
        for of_part in ids.chunk_by(|a, b| a.0 == b.0) {
            for &(_, id) in of_part {
                file.push(held.key(id), held.entries[id as usize])?;
            }
            self.parts[of_part[0].0 as usize].push(file.end_segment()?);
        }
        self.spills.count.set(self.spills.count.get() + 1);
        Ok(())
    }

    /// Calls `see` with tables that have each key once, in one of them alone; they are about
    /// `limit` bytes large.
    fn disjoint(
        mut self,
        limit: usize,
        see: &mut dyn FnMut(&Held) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.parts.is_empty() {
            return see(&self.held);
        }
        self.spill()?;
        for segments in std::mem::take(&mut self.parts) {
            let mut part = Self::at_depth(self.spills.clone(), self.depth + 1);
            // Of the last bits of a hash there is nothing left to divide by.
            let divisible = PART_BITS * (part.depth + 1) <= u64::BITS;
            for segment in segments {
                let mut records = segment.records();
                while records.next()? {
                    part.held.add(records.key(), records.entry);
                    if divisible && part.bytes() > limit {
                        part.spill()?;
                    }
                }
            }
            part.disjoint(limit, see)?;
        }
        Ok(())
    }

    /// Calls `see` with every key once, in no particular order.
    ///
    /// # Errors
    /// Those of spill files.
    pub(crate) fn for_each(
        self,
        limit: usize,
        see: &mut dyn FnMut(&[u8], Entry),
    ) -> Result<(), Error> {
        self.disjoint(limit, &mut |held| {
            held.ids()
                .for_each(|id| see(held.key(id), held.entries[id as usize]));
            Ok(())
        })
    }

    /// The vocabulary of the keys that were seen `min_count` times or more; keys of `others` get a
    /// row elsewhere, however rare they are. Beside the vocabulary, about `limit` bytes are held.
    ///
    /// # Errors
    /// Those of spill files.
    pub(crate) fn into_vocabulary(
        self,
        min_count: u64,
        n_fields: usize,
        others: &Interner,
        limit: usize,
    ) -> Result<Counted, Error> {
        let mut counted = Counted {
            keys: Interner::default(),
            counts: Vec::new(),
            distinct: vec![0; n_fields],
            kept: vec![0; n_fields],
        };
        let spills = self.spills.clone();
        let in_memory = self.parts.is_empty();
        let mut runs = Vec::new();
        self.disjoint(limit, &mut |held| {
            let mut ids = Vec::new();
            for id in held.ids() {
                let entry = held.entries[id as usize];
                let frequent = entry.count >= min_count;
                let has_row = frequent || has(others, held.key(id));
                for field in (0..n_fields).filter(|field| entry.fields >> field & 1 == 1) {
                    counted.distinct[field] += 1;
                    counted.kept[field] += u64::from(has_row);
                }
                if frequent {
                    ids.push(id);
                }
            }
            ids.sort_unstable_by_key(|&id| rank(held.entries[id as usize]));
            if in_memory {
                for id in ids {
                    let taken = take(&mut counted, held.key(id), held.entries[id as usize].count);
                    taken.expect("keys that were never spilled are texts");
                }
                return Ok(());
            }
            let mut file = spills.create()?;
            for id in ids {
                file.push(held.key(id), held.entries[id as usize])?;
            }
            runs.push(file.end_segment()?);
            Ok(())
        })?;
        merge(&runs, &mut |key, entry| {
            take(&mut counted, key, entry.count)
        })?;
        Ok(counted)
    }
}

/// By falling count, then by first appearance.
fn rank(entry: Entry) -> (Reverse<u64>, u64) {
    (Reverse(entry.count), entry.first)
}

fn has(keys: &Interner, key: &[u8]) -> bool {
    std::str::from_utf8(key).is_ok_and(|key| keys.get(key).is_some())
}

/// Gives the next row to a key; `None` if it is no text.
fn take(counted: &mut Counted, key: &[u8], count: u64) -> Option<()> {
    counted.keys.intern(std::str::from_utf8(key).ok()?);
    counted.counts.push(count);
    Some(())
}

/// Calls `see` with the records of all `runs`, each of which is in order of [`rank`], in that order.
fn merge(runs: &[Segment], see: &mut dyn FnMut(&[u8], Entry) -> Option<()>) -> Result<(), Error> {
    let mut readers: Vec<_> = runs.iter().map(Segment::records).collect();
    let mut heap = BinaryHeap::new();
    for (number, reader) in readers.iter_mut().enumerate() {
        if reader.next()? {
            heap.push(Reverse((rank(reader.entry), number)));
        }
    }
    while let Some(Reverse((_, number))) = heap.pop() {
        let reader = &mut readers[number];
        let taken = see(reader.key(), reader.entry);
        taken.ok_or_else(|| reader.damaged("a key that is not UTF-8"))?;
        if reader.next()? {
            heap.push(Reverse((rank(reader.entry), number)));
        }
    }
    Ok(())
}

/// A folder of spill files, made when the first is, and removed at the end. One that a killed run
/// left is removed by the next run beside it.
pub(crate) struct Spills {
    parent: PathBuf,
    prefix: &'static str,
    made: RefCell<Option<Made>>,
    files: Cell<u64>,
    count: Cell<u64>,
}

/// A folder that is there as long as its lock is held.
struct Made {
    folder: PathBuf,
    lock: PathBuf,
    _locked: File,
}

impl Drop for Made {
    fn drop(&mut self) {
        // What cannot be removed now, the next run removes.
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(&self.lock);
    }
}

impl Spills {
    /// A folder below `parent` whose name begins with `prefix`; what killed runs left of such is
    /// removed.
    pub(crate) fn new(parent: &Path, prefix: &'static str) -> Self {
        let spills = Self {
            parent: parent.to_owned(),
            prefix,
            made: RefCell::new(None),
            files: Cell::new(0),
            count: Cell::new(0),
        };
        spills.remove_leftovers();
        spills
    }

    /// How often something was spilled.
    #[cfg(test)]
    fn count(&self) -> u64 {
        self.count.get()
    }

    fn remove_leftovers(&self) {
        let entries = self.parent.read_dir().into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let name = path.file_name().and_then(|name| name.to_str());
            let is_lock = name.is_some_and(|name| {
                name.starts_with(self.prefix) && path.extension().is_some_and(|it| it == "lock")
            });
            // Who holds the lock is alive; the system lets go of it when its owner ends.
            if is_lock && File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                let _ = fs::remove_dir_all(path.with_extension(""));
                let _ = fs::remove_file(&path);
            }
        }
    }

    fn make(&self) -> Result<Made, Error> {
        for number in 0.. {
            let name = format!("{}{}-{number}", self.prefix, std::process::id());
            let folder = self.parent.join(&name);
            let lock = folder.with_extension("lock");
            let failed = |path: &Path| {
                let file = path.display().to_string();
                move |source| Error::Write { file, source }
            };
            let file = match File::create_new(&lock) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file.map_err(failed(&lock))?,
            };
            file.lock().map_err(failed(&lock))?;
            let made = Made {
                folder,
                lock,
                _locked: file,
            };
            fs::create_dir(&made.folder).map_err(failed(&made.folder))?;
            return Ok(made);
        }
        unreachable!("some number is free")
    }

    /// A new file.
    fn create(&self) -> Result<SpillFile, Error> {
        let mut made = self.made.borrow_mut();
        if made.is_none() {
            *made = Some(self.make()?);
        }
        let folder = &made.as_ref().expect("it was just made").folder;
        let number = self.files.get();
        self.files.set(number + 1);
        let path: Rc<Path> = folder.join(number.to_string()).into();
        let file = File::create_new(&path).map_err(|source| write_error(&path, source))?;
        Ok(SpillFile {
            path,
            file,
            at: 0,
            start: 0,
            records: Vec::new(),
        })
    }
}

fn write_error(path: &Path, source: io::Error) -> Error {
    let file = path.display().to_string();
    Error::Write { file, source }
}

/// A file that records are written to, in blocks that have a checksum each.
struct SpillFile {
    path: Rc<Path>,
    file: File,
    at: u64,
    /// Where the segment that is being written begins.
    start: u64,
    records: Vec<u8>,
}

impl SpillFile {
    fn push(&mut self, key: &[u8], entry: Entry) -> Result<(), Error> {
        let Entry {
            count,
            first,
            fields,
        } = entry;
        let length = u32::try_from(key.len()).expect("a cell is shorter than 4 GiB");
        self.records.extend_from_slice(&length.to_le_bytes());
        for number in [count, first, fields] {
            self.records.extend_from_slice(&number.to_le_bytes());
        }
        self.records.extend_from_slice(key);
        if self.records.len() >= BLOCK {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), Error> {
        if self.records.is_empty() {
            return Ok(());
        }
        let mut head = [0; BLOCK_HEAD];
        head[..8].copy_from_slice(&(self.records.len() as u64).to_le_bytes());
        head[8..].copy_from_slice(&xxh3_64(&self.records).to_le_bytes());
        let written = self.file.write_all(&head);
        let written = written.and_then(|()| self.file.write_all(&self.records));
        written.map_err(|source| write_error(&self.path, source))?;
        self.at += (BLOCK_HEAD + self.records.len()) as u64;
        self.records.clear();
        Ok(())
    }

    /// What was pushed since the last segment ended.
    fn end_segment(&mut self) -> Result<Segment, Error> {
        self.end_block()?;
        let start = std::mem::replace(&mut self.start, self.at);
        Ok(Segment {
            path: self.path.clone(),
            start,
            end: self.at,
        })
    }
}

/// Blocks of a file that follow each other.
struct Segment {
    path: Rc<Path>,
    start: u64,
    end: u64,
}

impl Segment {
    fn records(&self) -> Records<'_> {
        Records {
            segment: self,
            at: self.start,
            block: Vec::new(),
            place: 0,
            key: 0..0,
            entry: Entry {
                count: 0,
                first: 0,
                fields: 0,
            },
        }
    }
}

/// The records of a segment, one after the other.
struct Records<'a> {
    segment: &'a Segment,
    /// Where the next block begins.
    at: u64,
    block: Vec<u8>,
    /// Where the next record begins in the block.
    place: usize,
    key: std::ops::Range<usize>,
    entry: Entry,
}

impl Records<'_> {
    /// The key of the record that was read last.
    fn key(&self) -> &[u8] {
        &self.block[self.key.clone()]
    }

    fn damaged(&self, problem: impl Into<String>) -> Error {
        Error::Spill {
            file: self.segment.path.display().to_string(),
            problem: problem.into(),
        }
    }

    /// Whether there is one more record, which is then at hand.
    fn next(&mut self) -> Result<bool, Error> {
        if self.place == self.block.len() {
            if self.at == self.segment.end {
                return Ok(false);
            }
            self.read_block()?;
        }
        let record = &self.block[self.place..];
        let number = |at: usize| {
            let bytes = record.get(at..at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let read = || {
            let length = record.get(..4)?;
            let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
            let entry = Entry {
                count: number(4)?,
                first: number(12)?,
                fields: number(20)?,
            };
            (record.len() >= RECORD_HEAD + length).then_some((length, entry))
        };
        // The checksum was right: only who wrote it can have written less than a record.
        let (length, entry) = read().ok_or_else(|| self.damaged("a record without an end"))?;
        self.entry = entry;
        let start = self.place + RECORD_HEAD;
        self.place = start + length;
        self.key = start..self.place;
        Ok(true)
    }

    /// The next block. The file is opened for it alone, for many segments may be read at once.
    fn read_block(&mut self) -> Result<(), Error> {
        let (at, rest) = (self.at, self.segment.end - self.at);
        let mut block = std::mem::take(&mut self.block);
        let mut read = || -> io::Result<Option<u64>> {
            let mut file = File::open(&self.segment.path)?;
            file.seek(SeekFrom::Start(at))?;
            let mut head = [0; BLOCK_HEAD];
            file.read_exact(&mut head)?;
            let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight"));
            let (bytes, checksum) = (word(0), word(8));
            if bytes > rest - BLOCK_HEAD as u64 {
                return Ok(None);
            }
            block.resize(bytes as usize, 0);
            file.read_exact(&mut block)?;
            Ok((xxh3_64(&block) == checksum).then_some(bytes))
        };
        let read = read().map_err(|error| self.damaged(error.to_string()))?;
        let bytes = read
            .ok_or_else(|| self.damaged(format!("the block at byte {at} has another checksum")))?;
        self.block = block;
        self.place = 0;
        self.at += BLOCK_HEAD as u64 + bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of a few letters, common ones often; each with the field that has it.
    fn keys(count: u64) -> impl Iterator<Item = (String, u64)> {
        (0..count).map(|number| {
            let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            (format!("k{}", mixed % (1 + mixed % 3000)), mixed % 2)
        })
    }

    /// What a counter makes of them that spills when it is `limit` bytes large.
    fn counted(spills: &Rc<Spills>, limit: usize, min_count: u64) -> Counted {
        let mut counter = Counter::new(spills.clone());
        for (key, field) in keys(8_000) {
            counter.add(key.as_bytes(), 1, 1 << field);
            if counter.bytes() > limit {
                counter.spill().unwrap();
            }
        }
        let mut others = Interner::default();
        others.intern("k2999");
        counter
            .into_vocabulary(min_count, 2, &others, limit)
            .unwrap()
    }

    fn plain(counted: &Counted) -> (Vec<&str>, &[u64], &[u64], &[u64]) {
        let keys = counted.keys.iter().collect();
        (keys, &counted.counts, &counted.distinct, &counted.kept)
    }

    #[test]
    fn spilling_gives_the_vocabulary_of_not_spilling() {
        let folder = tempfile::tempdir().unwrap();
        let spills = Rc::new(Spills::new(folder.path(), "spill-"));
        for min_count in [1, 4] {
            let whole = counted(&spills, usize::MAX, min_count);
            assert!(whole.keys.len() > 500);
            assert!(whole.counts.is_sorted_by(|a, b| a >= b));
            // The second divides parts again.
            for (limit, least) in [(1 << 15, 2), (1 << 10, 200)] {
                let before = spills.count();
                let spilled = counted(&spills, limit, min_count);
                assert!(spills.count() - before >= least, "{}", spills.count());
                assert_eq!(plain(&spilled), plain(&whole), "{limit}");
            }
        }
        drop(spills);
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_spill_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let spills = Rc::new(Spills::new(folder.path(), "spill-"));
        let message = |damage: &dyn Fn(&mut Vec<u8>)| {
            let mut counter = Counter::new(spills.clone());
            counter.add(b"a", 1, 1);
            counter.spill().unwrap();
            let path = counter.parts.iter().flatten().next().unwrap().path.clone();
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes);
            fs::write(&path, bytes).unwrap();
            let read = counter.for_each(usize::MAX, &mut |_, _| {});
            let name = path.display().to_string();
            read.unwrap_err().to_string().replace(&name, "FILE")
        };
        for at in [0, 9, BLOCK_HEAD, BLOCK_HEAD + RECORD_HEAD] {
            assert_eq!(
                message(&|bytes| bytes[at] ^= 64),
                "`FILE`: the block at byte 0 has another checksum; expected what was spilled to it \
                 (is the disk sound?)"
            );
        }
        let cut = message(&|bytes| bytes.truncate(BLOCK_HEAD));
        assert!(cut.starts_with("`FILE`: failed to fill"), "{cut}");
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_what_a_live_one_has_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("spill-1-0");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("0"), "half").unwrap();
        fs::write(left.with_extension("lock"), "").unwrap();
        let live = Spills::new(folder.path(), "spill-");
        assert!(!left.exists() && !left.with_extension("lock").exists());
        let file = live.create().unwrap();
        Spills::new(folder.path(), "spill-");
        assert!(file.path.exists());
    }
}
