//! What leads a mapped table back to a checkpoint.
//!
//! A checkpoint does not copy the rows of a mapped table: they stay in `<table>.rows`, and go on
//! changing there. Before a row changes for the first time since checkpoint `S`, its bytes go to
//! `<table>.undo-S`. Reading that log into the rows leads back to `S`; behind it the logs of the
//! checkpoints before `S` lead further back.
//!
//! # A log
//! ```text
//! header   "xfundo1\n", bytes of a row (u32), 0 (u32)
//! chunk    rows (u32), row number each (u32), bytes of each, xxh3 of all that (u64)
//! chunk    …                                                 all little endian
//! ```
//! A chunk is written by one call before any of its rows changes. A row is in a log once.
//!
//! # Killed at any moment
//! What a process wrote to a file is the system's, and survives the process. A changed page of the rows
//! is written when it is given back, or at a checkpoint. So after a kill the logs are what they were at
//! that moment, and each page of the rows is what it was then or at an earlier moment since the
//! checkpoint:
//!
//! - *Before the first checkpoint* there is no log: the run begins anew, and so do its rows.
//! - *While a chunk is written*: a part of it is at the end of the log, none of its rows has
//!   changed, and it is left out. *After it*: some of its rows have changed in the file, others not; the
//!   old bytes are right for both.
//! - *While a checkpoint `N` is written*: it has no name yet, the newest one is `S < N`, and log `S`
//!   leads back to it.
//! - *After `N` got its name and before log `N` begins*: there is no log of `N` or later. The rows are
//!   those of `N`; log `S` is of no use to them and stays for whoever goes back to `S`.
//! - *While `N` is gone back to*: the logs of `N` and later are read from the newest to that of `N`. Each
//!   sets its rows to fixed bytes, so that doing it again changes nothing. Then the later logs are
//!   removed, the newest first, and that of `N` last begins anew. At each moment those that are left, read
//!   in the same order, lead to `N` again: a row in a removed one is that of `N` already, or is in one
//!   that is left.
//! - *Going back to the best epoch at the end*: checkpoints after it are removed before the rows are led
//!   back, so that no checkpoint is ever newer than the rows and the logs are.
//!
//! Logs go with the checkpoints that they lead back to: one is kept as long as there is a checkpoint of
//! its step or an earlier one.
//!
//! # Checksums
//! Of each block of 65,536 rows the sum of xxh3(bytes of the row, seed: its number), modulo 2⁶⁴, is
//! saved in the checkpoint. A sum follows what changes: when a row goes to the log its hash is taken
//! away, at the checkpoint that of its new bytes is added. So a checkpoint costs in proportion to the
//! rows that changed, and only the first one, and going back, look at all. A power cut may leave rows
//! in the file that are newer than what is left of their log: then the sums do not fit, and the rows are
//! refused.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::mapped::{Bits, MappedFile};
use crate::{Error, Precision, RowLayout};

/// Rows that one checksum is of.
pub(crate) const SUM_ROWS: usize = 1 << 16;

/// Rows of a chunk of a log at most.
const CHUNK_ROWS: usize = 1 << 14;

const MAGIC: &[u8; 8] = b"xfundo1\n";
const HEADER: usize = 16;

/// What a checkpoint says of a mapped table, whose rows stay in their file.
///
/// [`EmbeddingCollection::settle_mapped`](crate::EmbeddingCollection::settle_mapped) gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedRows {
    /// Rows.
    pub rows: usize,
    /// Weights a row.
    pub dim: usize,
    /// How weights are kept.
    pub precision: Precision,
    /// Bytes from the start of a row to its optimizer's state.
    pub state_at: usize,
    /// Bytes from a row to the next.
    pub stride: usize,
    /// Rows that a checksum is of.
    pub block_rows: usize,
    /// For each block the sum over its rows of xxh3 of the row's bytes, seeded by its number.
    pub checksums: Vec<u64>,
}

/// The logs of a table, and the sums over its rows.
#[derive(Debug)]
pub(crate) struct Undo {
    /// `<folder>/<table>`, to which `.undo-<step>` is added.
    stem: PathBuf,
    stride: usize,
    /// The open log; none before the first checkpoint.
    log: Option<Log>,
    /// Rows that are in the open log.
    logged: Bits,
    /// Sums over the rows that are not in the log, block by block; none: not known yet.
    sums: Option<Vec<u64>>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
}

fn hash(row: usize, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, row as u64)
}

impl Undo {
    /// `stem` is the path of the rows without its extension.
    pub(crate) fn new(stem: PathBuf, rows: usize, stride: usize) -> Self {
        Self {
            stem,
            stride,
            log: None,
            logged: Bits::new(rows),
            sums: None,
        }
    }

    /// Writes rows that are about to change to the log, those that are in it already left out.
    pub(crate) fn log(
        &mut self,
        bytes: &[u8],
        rows: impl Iterator<Item = u32>,
    ) -> Result<(), Error> {
        let (Some(log), Some(sums)) = (&mut self.log, &mut self.sums) else {
            return Ok(());
        };
        let mut new: Vec<u32> = rows
            .filter(|&row| self.logged.insert(row as usize))
            .collect();
        // Rows of a page one after the other: each page is read once.
        new.sort_unstable();
        let stride = self.stride;
        for rows in new.chunks(CHUNK_ROWS) {
            let mut chunk = Vec::with_capacity(12 + rows.len() * (4 + stride));
            chunk.extend((rows.len() as u32).to_le_bytes());
            chunk.extend(rows.iter().flat_map(|row| row.to_le_bytes()));
            for &row in rows {
                let row = row as usize;
                let old = &bytes[row * stride..][..stride];
                chunk.extend(old);
                let sum = &mut sums[row / SUM_ROWS];
                *sum = sum.wrapping_sub(hash(row, old));
            }
            chunk.extend(xxh3_64(&chunk).to_le_bytes());
            let written = log.file.write_all(&chunk);
            written.map_err(Error::io(&log.path, "write"))?;
        }
        Ok(())
    }

    /// The sums over the rows as they are. What follows is not to be logged until a log begins.
    pub(crate) fn settle(&mut self, file: &MappedFile, rows: usize) -> Result<Vec<u64>, Error> {
        let stride = self.stride;
        let sums = match self.sums.take() {
            None => sums(file, rows, stride)?,
            Some(mut sums) => {
                for row in self.logged.iter() {
                    let bytes = &file.bytes()[row * stride..][..stride];
                    let sum = &mut sums[row / SUM_ROWS];
                    *sum = sum.wrapping_add(hash(row, bytes));
                    file.touch(stride, [row as u32].into_iter());
                }
                sums
            }
        };
        self.logged.clear();
        self.log = None;
        Ok(sums)
    }

    /// Begins the log that leads back to checkpoint `step`, over rows with these sums.
    pub(crate) fn begin(&mut self, step: u64, sums: Vec<u64>) -> Result<(), Error> {
        let path = self.at(step);
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&(self.stride as u32).to_le_bytes());
        let mut file = File::create(&path).map_err(Error::io(&path, "create"))?;
        let written = file.write_all(&header);
        written.map_err(Error::io(&path, "write"))?;
        self.log = Some(Log { path, file });
        self.logged.clear();
        self.sums = Some(sums);
        Ok(())
    }

    fn at(&self, step: u64) -> PathBuf {
        let mut name = self.stem.as_os_str().to_owned();
        name.push(format!(".undo-{step:010}"));
        PathBuf::from(name)
    }

    /// The steps of the logs that there are, rising.
    fn steps(&self) -> Result<Vec<u64>, Error> {
        let folder = self.stem.parent().expect("a file in a folder");
        let name = self.stem.file_name().expect("a name");
        let prefix = format!("{}.undo-", name.to_string_lossy());
        let entries = std::fs::read_dir(folder).map_err(Error::io(folder, "list"))?;
        let mut steps = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io(folder, "list"))?.file_name();
            let step = name.to_str().and_then(|name| name.strip_prefix(&prefix));
            steps.extend(step.and_then(|step| step.parse::<u64>().ok()));
        }
        steps.sort_unstable();
        Ok(steps)
    }

    fn remove(&self, step: u64) -> Result<(), Error> {
        let path = self.at(step);
        std::fs::remove_file(&path).map_err(Error::io(&path, "remove"))
    }

    /// Removes the logs that lead back to checkpoints before `step`.
    pub(crate) fn remove_before(&self, step: u64) -> Result<(), Error> {
        let steps = self.steps()?.into_iter();
        let mut before = steps.take_while(|&of| of < step);
        before.try_for_each(|of| self.remove(of))
    }

    /// Leads the rows back to checkpoint `step`, checks them against what was saved of them, and begins
    /// the log anew.
    pub(crate) fn go_back(
        &mut self,
        file: &mut MappedFile,
        step: u64,
        saved: &MappedRows,
    ) -> Result<(), Error> {
        self.log = None;
        let later: Vec<u64> = self.steps()?.into_iter().filter(|&of| of >= step).collect();
        for &of in later.iter().rev() {
            apply(&self.at(of), file, saved.rows, self.stride)?;
        }
        file.flush()?;
        let found = sums(file, saved.rows, self.stride)?;
        for (block, (found, expected)) in found.iter().zip(&saved.checksums).enumerate() {
            if found != expected {
                let last = ((block + 1) * SUM_ROWS).min(saved.rows) - 1;
                return Err(Error::MappedTable {
                    path: file.path().to_owned(),
                    reason: format!(
                        "damaged: the checksum of rows {} to {last} is {found:016x}, expected \
                         {expected:016x} as the checkpoint of step {step} says",
                        block * SUM_ROWS
                    ),
                });
            }
        }
        for &of in later.iter().rev().filter(|&&of| of > step) {
            self.remove(of)?;
        }
        self.begin(step, found)
    }
}

/// The layout that rows have, against what a checkpoint says of them.
pub(crate) fn check(
    path: &Path,
    rows: usize,
    layout: RowLayout,
    saved: &MappedRows,
) -> Result<(), Error> {
    let expected = MappedRows {
        checksums: saved.checksums.clone(),
        ..describe(rows, layout, Vec::new())
    };
    if *saved == expected && saved.checksums.len() == rows.div_ceil(SUM_ROWS) {
        return Ok(());
    }
    Err(Error::MappedTable {
        path: path.to_owned(),
        reason: format!(
            "the checkpoint has {} rows of {} weights and {} bytes, and {} checksums; expected {rows} \
             rows of {} weights and {} bytes",
            saved.rows,
            saved.dim,
            saved.stride,
            saved.checksums.len(),
            layout.dim,
            layout.stride
        ),
    })
}

pub(crate) fn describe(rows: usize, layout: RowLayout, checksums: Vec<u64>) -> MappedRows {
    MappedRows {
        rows,
        dim: layout.dim,
        precision: layout.precision,
        state_at: layout.state_at,
        stride: layout.stride,
        block_rows: SUM_ROWS,
        checksums,
    }
}

/// The sums over all rows, of the file read from its beginning to its end.
fn sums(file: &MappedFile, rows: usize, stride: usize) -> Result<Vec<u64>, Error> {
    /// Divides the rows of a block.
    const ROWS: usize = 1 << 13;
    let mut sums = vec![0u64; rows.div_ceil(SUM_ROWS)];
    let mut bytes = vec![0; ROWS.min(rows) * stride];
    for from in (0..rows).step_by(ROWS) {
        let part = &mut bytes[..ROWS.min(rows - from) * stride];
        file.read_at(from * stride, part)?;
        let hashes = part.chunks_exact(stride).enumerate();
        let hashes = hashes.map(|(nth, row)| hash(from + nth, row));
        let sum = &mut sums[from / SUM_ROWS];
        *sum = hashes.fold(*sum, u64::wrapping_add);
    }
    file.leave_cache()?;
    Ok(sums)
}

/// Reads a log into the rows. A part of a chunk at its end is left out.
fn apply(path: &Path, file: &mut MappedFile, rows: usize, stride: usize) -> Result<(), Error> {
    let open = OpenOptions::new().read(true).open(path);
    let log = open.map_err(Error::io(path, "open"))?;
    let len = log.metadata().map_err(Error::io(path, "read"))?.len();
    let mut log = BufReader::with_capacity(1 << 18, log);
    let mut at = 0;
    let mut read = |bytes: &mut [u8]| log.read_exact(bytes).map_err(Error::io(path, "read"));
    let damaged = |at: u64, what: &str| Error::MappedTable {
        path: path.to_owned(),
        reason: format!("damaged: {what} at byte {at}"),
    };
    if len < HEADER as u64 {
        return Ok(());
    }
    let mut header = [0; HEADER];
    read(&mut header)?;
    at += HEADER as u64;
    let mut expected = [0; HEADER];
    expected[..8].copy_from_slice(MAGIC);
    expected[8..12].copy_from_slice(&(stride as u32).to_le_bytes());
    if header != expected {
        return Err(damaged(0, "not the header of a log of such rows"));
    }
    let mut chunk = Vec::new();
    while at + 4 <= len {
        let mut count = [0; 4];
        read(&mut count)?;
        let of_chunk = u32::from_le_bytes(count) as usize;
        let rest = of_chunk as u64 * (4 + stride as u64) + 8;
        if at + 4 + rest > len {
            break;
        }
        if of_chunk > CHUNK_ROWS {
            return Err(damaged(at, "a chunk of too many rows"));
        }
        chunk.clear();
        chunk.extend(count);
        chunk.resize(4 + rest as usize, 0);
        read(&mut chunk[4..])?;
        let (content, sum) = chunk.split_at(chunk.len() - 8);
        if xxh3_64(content).to_le_bytes() != *sum {
            return Err(damaged(at, "the checksum of a chunk does not fit"));
        }
        let (numbers, old) = content[4..].split_at(4 * of_chunk);
        let numbers = numbers.as_chunks::<4>().0.iter();
        for (row, old) in numbers.zip(old.chunks_exact(stride)) {
            let row = u32::from_le_bytes(*row) as usize;
            if row >= rows {
                return Err(damaged(at, "a row beyond the table's last"));
            }
            file.change(row * stride..(row + 1) * stride)
                .copy_from_slice(old);
        }
        at += 4 + rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRIDE: usize = 8;
    const ROWS: usize = 100;

    struct Rows {
        folder: tempfile::TempDir,
        file: MappedFile,
        undo: Undo,
    }

    impl Rows {
        /// Each row eight times its number.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("v.rows");
            let fill = |from: usize, part: &mut [u8]| {
                for (nth, row) in part.chunks_exact_mut(STRIDE).enumerate() {
                    row.fill((from / STRIDE + nth) as u8);
                }
            };
            Self {
                file: MappedFile::create(&path, ROWS * STRIDE, 10 * STRIDE, fill).unwrap(),
                undo: Undo::new(folder.path().join("v"), ROWS, STRIDE),
                folder,
            }
        }

        fn save(&mut self, step: u64) -> (MappedRows, Vec<u8>) {
            self.file.flush().unwrap();
            let sums = self.undo.settle(&self.file, ROWS).unwrap();
            self.undo.begin(step, sums.clone()).unwrap();
            let saved = MappedRows {
                rows: ROWS,
                dim: 1,
                precision: Precision::F32,
                state_at: 4,
                stride: STRIDE,
                block_rows: SUM_ROWS,
                checksums: sums,
            };
            (saved, self.file.bytes().to_vec())
        }

        fn change(&mut self, rows: &[u32], by: u8) {
            let logged = self.undo.log(self.file.bytes(), rows.iter().copied());
            logged.unwrap();
            for &row in rows {
                let from = row as usize * STRIDE;
                let row = self.file.change(from..from + STRIDE);
                row.iter_mut()
                    .for_each(|byte| *byte = byte.wrapping_add(by));
            }
        }

        /// As a process that begins after another was killed.
        fn go_back(&mut self, step: u64, saved: &MappedRows) -> Result<(), Error> {
            let path = self.folder.path().join("v.rows");
            self.file = MappedFile::open(&path, ROWS * STRIDE)?;
            self.undo = Undo::new(self.folder.path().join("v"), ROWS, STRIDE);
            self.undo.go_back(&mut self.file, step, saved)
        }

        fn names(&self) -> Vec<String> {
            let entries = self.folder.path().read_dir().unwrap();
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    #[test]
    fn logs_lead_back_to_any_checkpoint_that_is_kept() {
        let mut rows = Rows::new();
        rows.change(&[1], 100);
        let (first, at_first) = rows.save(10);
        rows.change(&[1, 2, 3], 1);
        rows.change(&[3, 4], 1);
        let (second, at_second) = rows.save(20);
        assert_ne!(at_first, at_second);
        rows.change(&[2, 99], 1);
        // Once what was changed has reached the file, and once not.
        rows.file.write().unwrap();
        rows.change(&[3, 98], 1);
        rows.go_back(20, &second).unwrap();
        assert!(rows.file.bytes() == at_second);
        rows.change(&[4, 50], 7);
        rows.save(30);
        rows.change(&[4, 60], 7);
        rows.go_back(10, &first).unwrap();
        assert!(rows.file.bytes() == at_first);
        assert_eq!(rows.names(), ["v.rows", "v.undo-0000000010"]);
    }

    #[test]
    fn sums_that_follow_the_log_are_those_of_all_rows() {
        let mut rows = Rows::new();
        rows.save(1);
        rows.change(&[5, 6, 5], 3);
        rows.change(&[6, 7], 3);
        let (saved, _) = rows.save(2);
        assert_eq!(saved.checksums, sums(&rows.file, ROWS, STRIDE).unwrap());
        // By hand: a row's number is its seed.
        let by_hand = rows.file.bytes().chunks_exact(STRIDE).enumerate();
        let by_hand = by_hand.fold(0u64, |sum, (row, bytes)| {
            sum.wrapping_add(xxh3_64_with_seed(bytes, row as u64))
        });
        assert_eq!(saved.checksums, [by_hand]);
    }

    #[test]
    fn a_part_of_a_chunk_is_left_out_and_a_changed_one_refused() {
        let mut rows = Rows::new();
        let (saved, at) = rows.save(1);
        rows.change(&[1, 2], 1);
        let log = rows.folder.path().join("v.undo-0000000001");
        let whole = std::fs::read(&log).unwrap();
        let chunk = 4 + 2 * (4 + STRIDE) + 8;
        assert_eq!(whole.len(), HEADER + chunk);
        // A chunk whose write was cut off, at each of its bytes: its rows had not changed yet.
        for cut in 0..chunk {
            let bytes = [&whole[..], &whole[HEADER..][..cut]].concat();
            std::fs::write(&log, bytes).unwrap();
            rows.go_back(1, &saved).unwrap();
            assert!(rows.file.bytes() == at, "{cut}");
        }
        let mut flipped = whole.clone();
        flipped[HEADER + 13] ^= 1;
        std::fs::write(&log, flipped).unwrap();
        let message = rows.go_back(1, &saved).unwrap_err().to_string();
        let expected = format!(
            "{}: damaged: the checksum of a chunk does not fit at byte 16",
            log.display()
        );
        assert_eq!(message, expected);
    }

    #[test]
    fn rows_that_no_log_explains_are_named() {
        let mut rows = Rows::new();
        let (saved, _) = rows.save(1);
        rows.file.change(3 * STRIDE..3 * STRIDE + 1)[0] ^= 1;
        rows.file.write().unwrap();
        let message = rows.go_back(1, &saved).unwrap_err().to_string();
        assert!(
            message.contains("v.rows: damaged: the checksum of rows 0 to 99 is "),
            "{message}"
        );
    }

    #[test]
    fn going_back_can_be_interrupted_anywhere() {
        let mut rows = Rows::new();
        let (first, at_first) = rows.save(1);
        rows.change(&[1, 2, 3], 1);
        rows.save(2);
        rows.change(&[3, 4], 1);
        rows.save(3);
        rows.change(&[4, 5], 1);
        let logs = [3, 2, 1].map(|step| rows.undo.at(step));
        rows.file.write().unwrap();
        let kept = rows.file.bytes().to_vec();
        let contents = logs.each_ref().map(|log| std::fs::read(log).unwrap());
        // Killed after so many logs were read, and after so many of them were removed.
        for (read, removed) in [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (3, 2)] {
            rows.file.change(0..kept.len()).copy_from_slice(&kept);
            for (log, content) in logs.iter().zip(&contents) {
                std::fs::write(log, content).unwrap();
            }
            for log in &logs[..read] {
                apply(log, &mut rows.file, ROWS, STRIDE).unwrap();
            }
            for log in &logs[..removed] {
                std::fs::remove_file(log).unwrap();
            }
            rows.file.write().unwrap();
            rows.go_back(1, &first).unwrap();
            assert!(
                rows.file.bytes() == at_first,
                "{read} read, {removed} removed"
            );
        }
    }

    #[test]
    fn logs_go_with_the_checkpoints_that_they_lead_back_to() {
        let mut rows = Rows::new();
        for step in [1, 2, 3] {
            rows.save(step);
            rows.change(&[step as u32], 1);
        }
        rows.undo.remove_before(2).unwrap();
        let expected = ["v.rows", "v.undo-0000000002", "v.undo-0000000003"];
        assert_eq!(rows.names(), expected);
    }
}
