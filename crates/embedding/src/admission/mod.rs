//! Rows of a table for keys, given when a key has been seen often enough.

mod file;
mod keys;
mod sketch;

use std::collections::VecDeque;

use crossfield_core::rng::mix;

use crate::Error;
pub use keys::KeyRows;
use keys::{Entry, SHARDS};
pub use sketch::Sketch;

/// Keys between the one whose memory is asked for and the one that is worked on.
const AHEAD: usize = 16;

/// When keys are given rows, and when they lose them.
///
/// ```
/// use crossfield_embedding::AdmissionConfig;
///
/// let config = AdmissionConfig { min_count: 16, ..AdmissionConfig::default() };
/// assert_eq!(
///     config.check("user").unwrap_err().to_string(),
///     "admission of `user`: min_count is 16, expected 1 to 15"
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// How often a key has been seen lately when it is given a row, 1 to [`Sketch::MOST`].
    pub min_count: u32,
    /// Rows for keys, the shared row 0 aside; none: as many as there can be.
    pub max_rows: Option<u32>,
    /// Rows of data after which a key that none of them had loses its row; none: never.
    pub evict_after: Option<u64>,
    /// Bytes of the sketch that counts keys without a row.
    pub sketch: u64,
}

impl AdmissionConfig {
    /// The most rows for keys.
    pub const MOST_ROWS: u32 = u32::MAX - 2;

    /// Checks what an admission needs to be made. `name` is that of the vocabulary.
    ///
    /// # Errors
    /// [`Error::Admission`].
    pub fn check(&self, name: &str) -> Result<(), Error> {
        let fail = |option, value, expected| {
            Err(Error::Admission {
                name: name.to_owned(),
                option,
                value,
                expected,
            })
        };
        match *self {
            Self { min_count, .. } if !(1..=Sketch::MOST).contains(&min_count) => {
                fail("min_count", min_count.into(), "1 to 15")
            }
            Self {
                max_rows: Some(rows),
                ..
            } if !(1..=Self::MOST_ROWS).contains(&rows) => {
                fail("max_rows", rows.into(), "1 to 4294967293")
            }
            Self {
                evict_after: Some(0),
                ..
            } => fail("evict_after", 0, "at least 1 row of data"),
            Self { sketch: 0, .. } => fail("sketch", 0, "at least one byte"),
            _ => Ok(()),
        }
    }

    fn most(&self) -> u32 {
        self.max_rows.unwrap_or(Self::MOST_ROWS)
    }
}

/// Twice, no bound, never, 64 MB.
impl Default for AdmissionConfig {
    fn default() -> Self {
        Self {
            min_count: 2,
            max_rows: None,
            evict_after: None,
            sketch: 64_000_000,
        }
    }
}

/// What became of the keys of a block of data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// The row of each key; 0, which they share, of those that have none.
    pub rows: Vec<u32>,
    /// Rows that were given to a key, with the key: they are to be begun, whoever had them before.
    pub begun: Vec<(u32, u64)>,
    /// Keys that lost their row.
    pub evicted: usize,
}

/// Gives rows 1, 2, … to keys that were seen often enough, and takes them from keys that were not
/// seen for long: the vocabulary of a table that no file could list beforehand.
///
/// Keys without a row are counted in a [`Sketch`], whose size is fixed. Keys with one lie in
/// [`KeyRows`], and are no longer counted. All memory is bounded by these two.
///
/// - A key whose count reaches `min_count` is given a row, in the block in which it does.
/// - With `evict_after`, a hand goes around the shards of the keys, in a block so far that it is
///   around once in half of `evict_after` rows of data, and frees the rows of those not seen for
///   longer: at the latest after one and a half times as many.
/// - Where `max_rows` keys have a row, new ones take those of the longest unseen of the shards that
///   the hand comes to, at most an eighth of each; a key of the block itself never loses its row.
/// - No step looks at all keys, unless the block is as large as `evict_after`.
///
/// Two names of one key are one to all of this. Of n names hashed to 64 bits, any two are with a
/// probability of n² / 2⁶⁵: 1.4 % among a billion.
///
/// ```
/// use crossfield_core::{Initializer, TableConfig};
/// use crossfield_embedding::{Admission, AdmissionConfig, RowOptimizer, Table, TablePlan};
///
/// let config = AdmissionConfig { sketch: 1 << 20, ..AdmissionConfig::default() };
/// let mut admission = Admission::new(config)?;
/// let plan = TablePlan {
///     growing: Some(1),
///     ..TablePlan::new(
///         TableConfig {
///             name: "v8.user".into(),
///             rows: 1_000_000,
///             dim: 8,
///             fields: vec![0],
///             initializer: Initializer::Normal { std: 0.01 },
///             oov_row: Some(0),
///         },
///         RowOptimizer::default(),
///     )
/// };
/// let mut table = Table::new(&plan, 1)?;
/// assert_eq!(table.rows(), 1);
///
/// // A block of four rows of data: key 7 occurs three times, key 8 once.
/// let admitted = admission.admit(&[7, 8], &[3, 1], 4);
/// assert_eq!(admitted.rows, [1, 0]);
/// assert_eq!(admitted.begun, [(1, 7)]);
/// table.begin_keys(1, &admitted.begun);
/// assert_eq!(table.rows(), 2);
///
/// // Key 8 again: that is twice.
/// assert_eq!(admission.admit(&[8], &[1], 1).rows, [2]);
/// assert_eq!(admission.look_up(&[8, 7, 9]), [2, 1, 0]);
/// # Ok::<(), crossfield_embedding::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Admission {
    config: AdmissionConfig,
    sketch: Sketch,
    keys: KeyRows,
    /// Rows that no key has any more; the last one is given away first.
    free: Vec<u32>,
    /// The row behind all that were ever given.
    next_row: u32,
    /// Blocks so far.
    block: u32,
    /// Rows of data so far.
    clock: u64,
    /// The clock at the end of each block not longer than `evict_after` ago, the last one at the
    /// back; empty without `evict_after`.
    clocks: VecDeque<u64>,
    /// The shard that is looked through next.
    hand: usize,
}

impl Admission {
    /// Without keys.
    ///
    /// # Errors
    /// As [`AdmissionConfig::check`]; [`Error::NoSketch`].
    pub fn new(config: AdmissionConfig) -> Result<Self, Error> {
        config.check("keys")?;
        // Where the first occurrence is enough, nothing is counted.
        let sketch = Sketch::new(if config.min_count == 1 {
            1
        } else {
            config.sketch
        })?;
        Ok(Self {
            config,
            sketch,
            keys: KeyRows::default(),
            free: Vec::new(),
            next_row: 1,
            block: 0,
            clock: 0,
            clocks: VecDeque::new(),
            hand: 0,
        })
    }

    /// When keys are given rows, and when they lose them.
    pub fn config(&self) -> &AdmissionConfig {
        &self.config
    }

    /// Number of keys that have a row.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Rows that a table needs for the keys so far, row 0 among them.
    pub fn rows(&self) -> usize {
        self.next_row as usize
    }

    /// What sketch, keys and free rows take, in bytes.
    pub fn bytes(&self) -> u64 {
        let free = self.free.capacity() * size_of::<u32>();
        self.sketch.bytes() + self.keys.bytes() + free as u64
    }

    /// The row of each key; 0 of those that have none. Nothing is counted.
    pub fn look_up(&self, keys: &[u64]) -> Vec<u32> {
        let row = |(nth, &key)| {
            if let Some(&ahead) = keys.get(nth + AHEAD) {
                self.keys.ask_for(ahead);
            }
            self.keys.row(key).unwrap_or(0)
        };
        keys.iter().enumerate().map(row).collect()
    }

    /// Goes on by a block of `rows` rows of data whose distinct keys are `keys`: counts those that
    /// have no row, gives rows to those that were seen often enough, and takes some from others. A
    /// count of 0 is of a key that was counted before, in an earlier epoch: it is seen, but not
    /// counted again.
    ///
    /// # Shapes
    /// - keys, counts: `[keys]`
    ///
    /// # Panics
    /// If a key that is to be given a row stands twice, or lengths differ.
    pub fn admit(&mut self, keys: &[u64], counts: &[u32], rows: u64) -> Admitted {
        assert_eq!(keys.len(), counts.len(), "a count for each key");
        self.next_block(rows);
        let mut admitted = Admitted {
            rows: Vec::with_capacity(keys.len()),
            ..Admitted::default()
        };
        let mut unknown = Vec::new();
        for (nth, &key) in keys.iter().enumerate() {
            if let Some(&ahead) = keys.get(nth + AHEAD) {
                self.keys.ask_for(ahead);
            }
            let row = self.keys.see(key, self.block);
            if row.is_none() {
                unknown.push(nth);
            }
            admitted.rows.push(row.unwrap_or(0));
        }
        let mut wanted = Vec::new();
        for (at, &nth) in unknown.iter().enumerate() {
            if let Some(&ahead) = unknown.get(at + AHEAD) {
                self.sketch.ask_for(keys[ahead]);
            }
            let min_count = self.config.min_count;
            if min_count == 1 || self.sketch.count(keys[nth], counts[nth]) >= min_count {
                wanted.push(nth);
            }
        }
        admitted.evicted = self.evict_stale(rows) + self.make_room(wanted.len());
        for nth in wanted {
            let Some(row) = self.free_row() else {
                break;
            };
            let new = self.keys.insert(keys[nth], row, self.block);
            assert!(new, "key {:016x} stands twice in a block", keys[nth]);
            admitted.rows[nth] = row;
            admitted.begun.push((row, keys[nth]));
        }
        admitted
    }

    fn next_block(&mut self, rows: u64) {
        self.block = self.block.checked_add(1).expect("fewer than 2³² blocks");
        self.clock += rows;
        if let Some(after) = self.config.evict_after {
            self.clocks.push_back(self.clock);
            while self
                .clocks
                .front()
                .is_some_and(|&end| self.clock.saturating_sub(end) > after)
            {
                self.clocks.pop_front();
            }
        }
    }

    /// Frees the rows of keys that were not seen for longer than `evict_after`, in as many shards as
    /// these rows of data are the time for.
    fn evict_stale(&mut self, rows: u64) -> usize {
        let Some(after) = self.config.evict_after else {
            return 0;
        };
        let shards = (u128::from(rows) * 2 * SHARDS as u128).div_ceil(u128::from(after));
        let shards = shards.min(SHARDS as u128) as usize;
        // The first block that is not too long ago.
        let first = self.block - (self.clocks.len() as u32 - 1);
        let mut evicted = 0;
        for _ in 0..shards {
            let entries = self.keys.entries(self.hand);
            let stale = entries.filter(|entry| entry.seen < first).copied();
            let stale: Vec<Entry> = stale.collect();
            evicted += stale.len();
            self.evict(stale);
            self.hand = (self.hand + 1) % SHARDS;
        }
        evicted
    }

    /// Frees rows of keys that were not seen for long until `wanted` are free, if that can be.
    fn make_room(&mut self, wanted: usize) -> usize {
        let never_given = self.config.most() - (self.next_row - 1);
        let at_hand = self.free.len() + never_given as usize;
        let needed = wanted.saturating_sub(at_hand);
        let mut evicted = 0;
        for _ in 0..SHARDS {
            if evicted == needed {
                break;
            }
            let most = self.keys.shard_len(self.hand).div_ceil(8);
            let entries = self.keys.entries(self.hand);
            let others = entries.filter(|entry| entry.seen < self.block).copied();
            let mut others: Vec<Entry> = others.collect();
            let count = most.min(needed - evicted).min(others.len());
            if count < others.len() {
                others.select_nth_unstable_by_key(count, by_age);
                others.truncate(count);
            }
            evicted += others.len();
            self.evict(others);
            self.hand = (self.hand + 1) % SHARDS;
        }
        evicted
    }

    /// Frees the rows of keys, in an order that does not depend on where they lie.
    fn evict(&mut self, mut entries: Vec<Entry>) {
        entries.sort_unstable_by_key(by_age);
        for entry in entries {
            self.keys.remove(entry.key);
            self.free.push(entry.row);
        }
    }

    fn free_row(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let row = self.next_row;
            let given = row <= self.config.most();
            self.next_row += u32::from(given);
            given.then_some(row)
        })
    }
}

fn by_age(entry: &Entry) -> (u32, u64) {
    (entry.seen, entry.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(min_count: u32, max_rows: Option<u32>, evict_after: Option<u64>) -> Admission {
        let config = AdmissionConfig {
            min_count,
            max_rows,
            evict_after,
            sketch: 64 << 10,
        };
        Admission::new(config).unwrap()
    }

    #[test]
    fn a_key_has_a_row_from_its_second_occurrence_on() {
        let mut admission = admission(2, None, None);
        assert_eq!(admission.admit(&[5, 6, 0], &[1, 2, 1], 4).rows, [0, 1, 0]);
        let admitted = admission.admit(&[0, 5, 6], &[1, 1, 1], 3);
        assert_eq!(admitted.rows, [2, 3, 1]);
        assert_eq!(admitted.begun, [(2, 0), (3, 5)]);
        assert_eq!((admission.keys(), admission.rows()), (3, 4));
    }

    #[test]
    fn what_was_counted_before_is_not_counted_again() {
        let mut admission = admission(2, None, None);
        admission.admit(&[5], &[1], 1);
        for _ in 0..3 {
            assert_eq!(admission.admit(&[5], &[0], 1).rows, [0]);
        }
        assert_eq!(admission.admit(&[5], &[1], 1).rows, [1]);
    }

    #[test]
    fn a_key_unseen_for_too_long_loses_its_row_and_begins_anew() {
        // Blocks of 10 rows: the hand is around in one.
        let mut admission = admission(1, None, Some(20));
        assert_eq!(admission.admit(&[5, 6], &[1, 1], 10).rows, [1, 2]);
        assert_eq!(admission.admit(&[6], &[1], 10).evicted, 0);
        assert_eq!(admission.admit(&[6], &[1], 10).evicted, 0, "20 rows ago");
        assert_eq!(admission.admit(&[6], &[1], 10).evicted, 1);
        assert_eq!(admission.look_up(&[5, 6]), [0, 2]);
        let admitted = admission.admit(&[7, 5], &[1, 1], 10);
        assert_eq!(admitted.rows, [1, 3], "the free row first");
        assert_eq!(admitted.begun, [(1, 7), (3, 5)]);
    }

    #[test]
    fn a_full_table_gives_the_rows_of_the_longest_unseen() {
        let mut admission = admission(1, Some(3), None);
        admission.admit(&[1], &[1], 1);
        admission.admit(&[2, 3], &[1, 1], 1);
        // Each lies in a shard of its own: the hand takes those that it comes to first.
        let admitted = admission.admit(&[4, 2], &[1, 1], 1);
        assert_eq!(admitted.evicted, 1);
        assert_eq!((admission.keys(), admission.rows()), (3, 4));
        let rows = admission.look_up(&[1, 2, 3, 4]);
        assert_eq!(rows[1], 2, "a key of the block keeps its row");
        assert_eq!(rows.iter().filter(|&&row| row == 0).count(), 1);
        // More keys than rows: the last ones wait.
        let admitted = admission.admit(&[10, 11, 12, 13], &[1; 4], 1);
        assert_eq!(admitted.rows.iter().filter(|&&row| row == 0).count(), 1);
        assert_eq!(admitted.rows[3], 0);
        assert_eq!(admission.rows(), 4);
    }

    #[test]
    fn of_one_shard_the_longest_unseen_go_first() {
        let mut admission = admission(1, Some(64), None);
        let mut keys = KeyRows::default();
        let of_shard = (0..u64::MAX).filter(|&key| {
            let before = keys.shard_len(0);
            keys.insert(key, 1, 0);
            keys.shard_len(0) > before
        });
        let of_shard: Vec<u64> = of_shard.take(65).collect();
        for key in &of_shard[..64] {
            admission.admit(&[*key], &[1], 1);
        }
        admission.admit(&of_shard[..1], &[1], 1);
        admission.admit(&of_shard[64..], &[1], 1);
        assert_eq!(admission.look_up(&of_shard[..3]), [1, 0, 3]);
    }

    #[test]
    fn options_out_of_range_are_named() {
        let message = |config: AdmissionConfig| config.check("user").unwrap_err().to_string();
        let usual = AdmissionConfig::default();
        assert_eq!(
            message(AdmissionConfig {
                min_count: 0,
                ..usual
            }),
            "admission of `user`: min_count is 0, expected 1 to 15"
        );
        assert_eq!(
            message(AdmissionConfig {
                max_rows: Some(0),
                ..usual
            }),
            "admission of `user`: max_rows is 0, expected 1 to 4294967293"
        );
        assert_eq!(
            message(AdmissionConfig {
                evict_after: Some(0),
                ..usual
            }),
            "admission of `user`: evict_after is 0, expected at least 1 row of data"
        );
    }
}
