//! Texts, keys, and tuples of small numbers, as small numbers.

pub(crate) use crossfield_core::rng::mix;

/// The texts seen so far, each with an id in the order of first appearance.
///
/// All texts lie in one allocation and the hash table holds ids only: interning a text that is
/// known allocates nothing, and a new one costs its bytes and about 16 more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interner {
    text: String,
    ends: Vec<u64>,
    slots: Slots,
}

/// Ids by the hash of what they stand for: open addressing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    /// Ids, or `FREE`. Its length is a power of two, at most half full.
    ids: Vec<u32>,
}

const FREE: u32 = u32::MAX;

impl Slots {
    /// Room for so many ids.
    fn with_capacity(count: usize) -> Self {
        Self {
            ids: vec![FREE; (2 * count + 2).next_power_of_two().max(16)],
        }
    }

    /// Whether one more than `len` ids would fill more than half.
    pub(crate) fn is_full(&self, len: usize) -> bool {
        self.ids.len() < 2 * (len + 1)
    }

    /// Twice the room, for the ids from 0 whose hashes these are.
    pub(crate) fn grow(&mut self, hashes: impl Iterator<Item = u64>) {
        let mask = (self.ids.len() * 2).max(16) - 1;
        self.ids = vec![FREE; mask + 1];
        for (id, hash) in hashes.enumerate() {
            let slot = self.slot(hash, |_| false);
            self.ids[slot] = id as u32;
        }
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.ids.as_slice())
    }

    /// The slot of the id with this hash that `is_it`, or the free one where it belongs.
    fn slot(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> usize {
        let mask = self.ids.len() - 1;
        let mut slot = hash as usize & mask;
        while self.ids[slot] != FREE && !is_it(self.ids[slot]) {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// The id with this hash that `is_it`.
    fn get(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        if self.ids.is_empty() {
            return None;
        }
        let id = self.ids[self.slot(hash, is_it)];
        (id != FREE).then_some(id)
    }

    /// As [`get`](Self::get); where there is none, `new` takes its slot.
    pub(crate) fn get_or_take(
        &mut self,
        hash: u64,
        new: u32,
        is_it: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let slot = self.slot(hash, is_it);
        let id = self.ids[slot];
        if id == FREE {
            self.ids[slot] = new;
        }
        (id != FREE).then_some(id)
    }
}

impl Interner {
    /// The texts that end at `ends` of `text`, in the order of their ids; `None` if the ends do not
    /// fit, or a text stands twice.
    pub(crate) fn from_parts(text: &str, ends: &[u64]) -> Option<Self> {
        let mut interner = Self::default();
        let mut start = 0;
        for (id, &end) in ends.iter().enumerate() {
            let end = usize::try_from(end).ok()?;
            if interner.intern(text.get(start..end)?) as usize != id {
                return None;
            }
            start = end;
        }
        (start == text.len()).then_some(interner)
    }

    /// All texts in one, and where each ends.
    pub(crate) fn parts(&self) -> (&str, &[u64]) {
        (&self.text, &self.ends)
    }

    /// Number of texts.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text with this id.
    pub(crate) fn text(&self, id: u32) -> &str {
        let id = id as usize;
        let start = if id == 0 {
            0
        } else {
            self.ends[id - 1] as usize
        };
        &self.text[start..self.ends[id] as usize]
    }

    /// All texts in the order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        (0..self.len() as u32).map(|id| self.text(id))
    }

    /// The id of `text`, if it has one.
    pub(crate) fn get(&self, text: &str) -> Option<u32> {
        let is_it = |id| self.text(id) == text;
        self.slots.get(hash(text.as_bytes()), is_it)
    }

    /// The id of `text`, a new one if it has none yet.
    pub(crate) fn intern(&mut self, text: &str) -> u32 {
        let mut slots = std::mem::take(&mut self.slots);
        if slots.is_full(self.len()) {
            slots.grow(self.iter().map(|text| hash(text.as_bytes())));
        }
        let new = self.len() as u32;
        let is_it = |id| self.text(id) == text;
        let known = slots.get_or_take(hash(text.as_bytes()), new, is_it);
        self.slots = slots;
        known.unwrap_or_else(|| {
            assert!(
                new < FREE,
                "more than 4 billion distinct texts in one column"
            );
            self.text.push_str(text);
            self.ends.push(self.text.len() as u64);
            new
        })
    }
}

/// The tuples seen so far, all of one width, each with an id in the order of first appearance.
///
/// As of an [`Interner`], all of them lie in one allocation.
#[derive(Clone, Debug)]
pub(crate) struct Tuples {
    width: usize,
    numbers: Vec<u32>,
    slots: Slots,
}

impl Tuples {
    /// None yet, of `width` numbers each, at least one.
    pub(crate) fn new(width: usize) -> Self {
        Self {
            width,
            numbers: Vec::new(),
            slots: Slots::default(),
        }
    }

    /// As [`new`](Self::new), with room for so many.
    pub(crate) fn with_capacity(width: usize, count: usize) -> Self {
        Self {
            width,
            numbers: Vec::with_capacity(width * count),
            slots: Slots::with_capacity(count),
        }
    }

    /// The tuples that lie in `numbers` one after the other; `None` if the width does not fit, or
    /// one stands twice.
    pub(crate) fn from_numbers(width: usize, numbers: &[u32]) -> Option<Self> {
        if width == 0 || !numbers.len().is_multiple_of(width) {
            return None;
        }
        let mut tuples = Self::with_capacity(width, numbers.len() / width);
        let mut each = numbers.chunks_exact(width).enumerate();
        each.all(|(id, tuple)| tuples.intern(tuple) as usize == id)
            .then_some(tuples)
    }

    /// All tuples, one after the other.
    pub(crate) fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    /// Numbers in a tuple.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Number of tuples.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len() / self.width
    }

    /// The tuple with this id.
    pub(crate) fn tuple(&self, id: u32) -> &[u32] {
        &self.numbers[id as usize * self.width..][..self.width]
    }

    /// All tuples in the order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u32]> {
        self.numbers.chunks_exact(self.width)
    }

    /// The id of `tuple`, if it has one.
    pub(crate) fn get(&self, tuple: &[u32]) -> Option<u32> {
        self.slots
            .get(tuple_key(tuple), |id| self.tuple(id) == tuple)
    }

    /// The id of `tuple`, a new one if it has none yet.
    pub(crate) fn intern(&mut self, tuple: &[u32]) -> u32 {
        let mut slots = std::mem::take(&mut self.slots);
        if slots.is_full(self.len()) {
            slots.grow(self.iter().map(tuple_key));
        }
        let new = self.len() as u32;
        let known = slots.get_or_take(tuple_key(tuple), new, |id| self.tuple(id) == tuple);
        self.slots = slots;
        known.unwrap_or_else(|| {
            assert!(new < FREE, "more than 4 billion distinct combinations");
            self.numbers.extend_from_slice(tuple);
            new
        })
    }
}

/// The 64-bit keys seen so far, each with an id in the order of first appearance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    keys: Vec<u64>,
    slots: Slots,
}

impl Keys {
    /// The id of `key`, a new one if it has none yet.
    pub(crate) fn intern(&mut self, key: u64) -> u32 {
        if self.slots.is_full(self.keys.len()) {
            self.slots.grow(self.keys.iter().map(|&key| mix(key)));
        }
        let new = self.keys.len() as u32;
        let keys = &self.keys;
        let is_it = |id: u32| keys[id as usize] == key;
        let known = self.slots.get_or_take(mix(key), new, is_it);
        known.unwrap_or_else(|| {
            assert!(new < FREE, "more than 4 billion distinct keys in a block");
            self.keys.push(key);
            new
        })
    }

    /// All keys, in the order of their ids.
    pub(crate) fn into_keys(self) -> Vec<u64> {
        self.keys
    }
}

/// A 64-bit key of a tuple, the same on every platform: hashed crosses are encoded by it.
pub(crate) fn tuple_key(tuple: &[u32]) -> u64 {
    let start = tuple.len() as u64;
    tuple.iter().fold(start, |key, &number| {
        mix(key
            .wrapping_add(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(u64::from(number)))
    })
}

/// A fast hash of bytes; it decides nothing but the place in a table that is never written.
fn hash(bytes: &[u8]) -> u64 {
    let mut state = bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("chunks have eight bytes"));
        state = (state ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }
    let last = chunks
        .remainder()
        .iter()
        .fold(0, |word, &byte| word << 8 | u64::from(byte));
    mix((state ^ last).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_first_appearance_and_survive_growth() {
        let mut interner = Interner::default();
        assert_eq!(interner.get("a"), None);
        let texts: Vec<String> = (0..1000).map(|n| format!("value-{n}")).collect();
        for (id, text) in texts.iter().enumerate() {
            assert_eq!(interner.intern(text), id as u32);
        }
        assert_eq!(interner.intern("value-0"), 0);
        assert_eq!(interner.get("value-999"), Some(999));
        assert_eq!(interner.text(500), "value-500");
        assert_eq!(interner.get("value-1000"), None);
        assert_eq!(interner.intern(""), 1000);
        assert_eq!(interner.get(""), Some(1000));
        assert_eq!(interner.iter().count(), 1001);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let whole = Interner::from_parts("abé", &[1, 1, 4]).unwrap();
        assert_eq!(whole.iter().collect::<Vec<_>>(), ["a", "", "bé"]);
        assert_eq!(whole.get("bé"), Some(2));
        assert_eq!(whole.parts(), ("abé", &[1, 1, 4][..]));
        // Beyond the end, inside a character, falling, twice the same, text left over.
        for ends in [&[1, 5][..], &[3, 4], &[2, 1, 4], &[1, 1, 1, 4], &[1]] {
            assert!(Interner::from_parts("abé", ends).is_none(), "{ends:?}");
        }
    }

    #[test]
    fn ids_of_tuples_follow_first_appearance_and_survive_growth() {
        let mut tuples = Tuples::new(2);
        assert_eq!((tuples.len(), tuples.get(&[0, 0])), (0, None));
        for id in 0..1000 {
            assert_eq!(tuples.intern(&[id % 10, id]), id);
        }
        assert_eq!(tuples.intern(&[9, 999]), 999);
        assert_eq!(tuples.get(&[999, 9]), None);
        assert_eq!((tuples.tuple(12), tuples.len()), (&[2, 12][..], 1000));
        let again = Tuples::from_numbers(2, tuples.numbers()).unwrap();
        assert_eq!(again.numbers(), tuples.numbers());
        // A tuple that stands twice, one that is cut short, tuples of nothing.
        for (width, numbers) in [(2, &[1, 2, 1, 2][..]), (2, &[1, 2, 3]), (0, &[])] {
            assert!(Tuples::from_numbers(width, numbers).is_none());
        }
    }

    #[test]
    fn ids_of_keys_follow_first_appearance_and_survive_growth() {
        let mut keys = Keys::default();
        for id in 0..1000 {
            assert_eq!(keys.intern(u64::from(id) << 40), id);
        }
        assert_eq!(keys.intern(5 << 40), 5);
        assert_eq!(keys.into_keys()[7], 7 << 40);
    }

    #[test]
    fn the_key_of_a_tuple_depends_on_order_and_width() {
        // mix(2 + γ + 3) and then mix(… + γ + 5), γ the golden gamma of splitmix64.
        let gamma = 0x9e37_79b9_7f4a_7c15_u64;
        let first = mix(gamma.wrapping_add(5));
        let second = mix(first.wrapping_add(gamma).wrapping_add(5));
        assert_eq!(tuple_key(&[3, 5]), second);
        assert_ne!(tuple_key(&[5, 3]), second);
        assert_ne!(tuple_key(&[3, 5, 0]), second);
    }

    #[test]
    fn mix_is_the_finaliser_of_splitmix64() {
        // First output of splitmix64 with seed 0 (Vigna's reference code): mix(golden gamma).
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
    }
}
