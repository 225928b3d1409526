//! Keys and the rows that were given to them.

use crossfield_simd::prefetch;

use super::mix;

/// Bits of a hash that name its shard.
const SHARD_BITS: u32 = 10;
/// Shards, each of which grows by itself.
pub(super) const SHARDS: usize = 1 << SHARD_BITS;
/// Slots of a shard when it takes its first key.
const FIRST: usize = 4;

/// A key, the row that it has, and the block in which it was seen last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: u64,
    /// 0 where the slot is free: row 0 is never one key's own.
    pub(super) row: u32,
    pub(super) seen: u32,
}

/// Which row each key has, and when it was seen last: open addressing in shards, so that a growing
/// one moves a thousandth of the keys.
///
/// A slot is 16 bytes, and between half and three quarters of them are taken: 21 to 32 bytes a key.
///
/// ```
/// use crossfield_embedding::KeyRows;
///
/// let mut keys = KeyRows::default();
/// assert!(keys.insert(0xfeed, 1, 0));
/// assert!(!keys.insert(0xfeed, 2, 0), "it has a row");
/// assert_eq!((keys.row(0xfeed), keys.row(0xbeef)), (Some(1), None));
/// assert_eq!(keys.remove(0xfeed), Some(1));
/// assert!(keys.is_empty());
/// ```
#[derive(Clone, Debug)]
pub struct KeyRows {
    shards: Vec<Shard>,
    len: usize,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    slots: Vec<Entry>,
    len: usize,
}

/// The shard of a key, and what decides its slot there.
#[inline]
fn place(key: u64) -> (usize, u32) {
    // Keys are hashes already, but those of a caller may not be.
    let hash = mix(key ^ 0x2545_f491_4f6c_dd1d);
    ((hash >> (u64::BITS - SHARD_BITS)) as usize, hash as u32)
}

impl Default for KeyRows {
    fn default() -> Self {
        Self {
            shards: vec![Shard::default(); SHARDS],
            len: 0,
        }
    }
}

impl KeyRows {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the slots take, free ones included.
    pub fn bytes(&self) -> u64 {
        let slots: usize = self.shards.iter().map(|shard| shard.slots.len()).sum();
        (slots * size_of::<Entry>()) as u64
    }

    /// Asks for the slot of a key that is soon looked up.
    #[inline]
    pub(super) fn ask_for(&self, key: u64) {
        let (shard, hash) = place(key);
        let slots = &self.shards[shard].slots;
        if !slots.is_empty() {
            let slot = home(hash, slots.len());
            prefetch(std::ptr::from_ref(&slots[slot]).cast(), 1);
        }
    }

    /// The row of a key.
    #[inline]
    pub fn row(&self, key: u64) -> Option<u32> {
        let (shard, hash) = place(key);
        let shard = &self.shards[shard];
        let slot = shard.find(key, hash)?;
        Some(shard.slots[slot].row)
    }

    /// The row of a key, which was seen in block `seen`.
    #[inline]
    pub(super) fn see(&mut self, key: u64, seen: u32) -> Option<u32> {
        let (shard, hash) = place(key);
        let shard = &mut self.shards[shard];
        let slot = shard.find(key, hash)?;
        shard.slots[slot].seen = seen;
        Some(shard.slots[slot].row)
    }

    /// Gives a row, not 0, to a key that was seen in block `seen`; false if it has one.
    ///
    /// # Panics
    /// For row 0.
    pub fn insert(&mut self, key: u64, row: u32, seen: u32) -> bool {
        assert_ne!(row, 0, "row 0 is never one key's own");
        let (shard, hash) = place(key);
        let inserted = self.shards[shard].insert(Entry { key, row, seen }, hash);
        self.len += usize::from(inserted);
        inserted
    }

    /// Takes its row from a key.
    pub fn remove(&mut self, key: u64) -> Option<u32> {
        let (shard, hash) = place(key);
        let shard = &mut self.shards[shard];
        let slot = shard.find(key, hash)?;
        let row = shard.slots[slot].row;
        shard.remove(slot);
        self.len -= 1;
        Some(row)
    }

    /// The keys of a shard, in no particular order.
    pub(super) fn entries(&self, shard: usize) -> impl Iterator<Item = &Entry> {
        let slots = self.shards[shard].slots.iter();
        slots.filter(|entry| entry.row != 0)
    }

    /// Number of keys of a shard.
    pub(super) fn shard_len(&self, shard: usize) -> usize {
        self.shards[shard].len
    }
}

/// The slot where a key with this hash belongs, if it is free.
#[inline]
fn home(hash: u32, slots: usize) -> usize {
    ((u64::from(hash) * slots as u64) >> u32::BITS) as usize
}

impl Shard {
    /// The slot of a key.
    #[inline]
    fn find(&self, key: u64, hash: u32) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut slot = home(hash, self.slots.len());
        loop {
            let entry = &self.slots[slot];
            if entry.row == 0 {
                return None;
            }
            if entry.key == key {
                return Some(slot);
            }
            slot += 1;
            if slot == self.slots.len() {
                slot = 0;
            }
        }
    }

    fn insert(&mut self, entry: Entry, hash: u32) -> bool {
        if self.find(entry.key, hash).is_some() {
            return false;
        }
        // At most three quarters are taken.
        if 4 * (self.len + 1) > 3 * self.slots.len() {
            let count = (self.slots.len() + self.slots.len() / 2).max(FIRST);
            let old = std::mem::replace(&mut self.slots, vec![Entry::default(); count]);
            for entry in old.into_iter().filter(|entry| entry.row != 0) {
                self.put(entry, place(entry.key).1);
            }
        }
        self.put(entry, hash);
        self.len += 1;
        true
    }

    /// Puts a key that is not there into the first free slot.
    fn put(&mut self, entry: Entry, hash: u32) {
        let mut slot = home(hash, self.slots.len());
        while self.slots[slot].row != 0 {
            slot = (slot + 1) % self.slots.len();
        }
        self.slots[slot] = entry;
    }

    /// Frees a slot, and moves up what was put behind it because it was taken.
    fn remove(&mut self, mut free: usize) {
        let count = self.slots.len();
        let mut slot = free;
        loop {
            slot = (slot + 1) % count;
            let entry = self.slots[slot];
            if entry.row == 0 {
                break;
            }
            let home = home(place(entry.key).1, count);
            // Whether its home lies behind the free slot, on the way around to where it is.
            let stays = if free < slot {
                free < home && home <= slot
            } else {
                free < home || home <= slot
            };
            if !stays {
                self.slots[free] = entry;
                free = slot;
            }
        }
        self.slots[free] = Entry::default();
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_survive_growth_and_zero_is_a_key() {
        let mut keys = KeyRows::default();
        for key in 0..50_000u64 {
            assert!(keys.insert(key, key as u32 + 1, 0));
        }
        assert_eq!(keys.len(), 50_000);
        assert!((0..50_000).all(|key| keys.row(key) == Some(key as u32 + 1)));
        assert_eq!(keys.row(50_000), None);
        // 21 to 32 bytes a key, and less than a slot a shard beside.
        let each = keys.bytes() as f64 / 50_000.0;
        assert!((21.0..34.0).contains(&each), "{each}");
    }

    proptest! {
        #[test]
        fn a_map_does_the_same(steps in prop::collection::vec((0..40u64, any::<bool>()), 0..400)) {
            // Keys of one shard, so that they get in each other's way.
            let of_shard: Vec<u64> = (0..).filter(|&key| place(key).0 == 0).take(40).collect();
            let (mut keys, mut map) = (KeyRows::default(), BTreeMap::new());
            for (row, (at, insert)) in steps.into_iter().enumerate() {
                let (key, row) = (of_shard[at as usize], row as u32 + 1);
                if insert {
                    let new = !map.contains_key(&key);
                    map.entry(key).or_insert(row);
                    prop_assert_eq!(keys.insert(key, row, 0), new);
                } else {
                    prop_assert_eq!(keys.remove(key), map.remove(&key));
                }
                for key in &of_shard {
                    prop_assert_eq!(keys.row(*key), map.get(key).copied());
                }
                prop_assert_eq!(keys.len(), map.len());
            }
        }
    }
}
