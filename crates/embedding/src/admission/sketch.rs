//! How often keys were seen lately, in memory that does not grow with their number.

use crossfield_simd::prefetch;

use super::mix;

/// Words of a line.
const WORDS: usize = 8;
/// Counters of a key, each in a quarter of its line.
const DEPTH: usize = 4;
/// Counters of a quarter.
const QUARTER: u64 = 32;
/// Counters of a line.
const COUNTERS: u64 = DEPTH as u64 * QUARTER;
/// Occurrences counted between halvings of a line, in the mean: an eighth of its counters. With as
/// many as it has counters nearly all of them would be above zero, and a key seen once would look
/// like one seen twice.
const HALVED_AFTER: u64 = COUNTERS / 8;
/// What halving four-bit counters in a word leaves of each.
const HALVES: u64 = 0x7777_7777_7777_7777;

/// A cache line of counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [u64; WORDS]);

/// A count-min sketch of four-bit counters with conservative update: how often each of any number
/// of keys was seen lately.
///
/// ```text
/// one key, one cache line   |  32 counters  |  32 counters  |  32 counters  |  32 counters  |
///                                   ^ 2          ^ 1                    ^ 1        ^ 3
///                           estimate: the least of four, 1; counting it raises those of 1 alone
/// ```
///
/// - An estimate is never below the number of occurrences counted since the key's line was halved
///   last, up to [`MOST`](Self::MOST).
/// - It is above where each of the four counters is raised by other keys too. A line of `n` other
///   keys that were seen once gives a key too much with a probability of about
///   `(1 − e^(−4n/128))⁴`: 0.2 % at n = 8, 2.4 % at n = 16.
/// - Lines are halved in turn, one whenever 16 occurrences were counted, so that each is halved once
///   while an eighth as many are counted as there are counters: counts mean "lately", and n stays
///   about 16. Halving takes a key seen once back to 0, and one seen twice to 1. There is never a
///   pass over all lines.
///
/// The same counts in the same order give the same sketch on every platform.
///
/// ```
/// use crossfield_embedding::Sketch;
///
/// let mut sketch = Sketch::new(64 << 10)?;
/// assert_eq!(sketch.count(7, 1), 1);
/// assert_eq!(sketch.count(7, 2), 3);
/// assert_eq!(sketch.estimate(7), 3);
/// assert_eq!(sketch.estimate(8), 0);
/// assert_eq!(sketch.bytes(), 64 << 10);
/// # Ok::<(), crossfield_embedding::Error>(())
/// ```
///
/// # Source
/// Cormode and Muthukrishnan, An Improved Data Stream Summary: The Count-Min Sketch and its
/// Applications, Journal of Algorithms 55 (2005); conservative update: Estan and Varghese, New
/// Directions in Traffic Measurement and Accounting, SIGCOMM 2002; four bits and halving: Einziger,
/// Friedman and Manes, TinyLFU: A Highly Efficient Cache Admission Policy, ACM Transactions on
/// Storage 13 (2017). Unlike there, a key's counters lie in one cache line, and lines are halved one
/// by one, eight times as often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    lines: Vec<Line>,
    /// The line that is halved next.
    hand: usize,
    /// Occurrences that were counted since a line was halved.
    counted: u64,
}

/// Where the counters of a key are.
struct Place {
    line: usize,
    /// Five bits for each quarter.
    counters: u64,
}

impl Sketch {
    /// The largest count.
    pub const MOST: u32 = 15;

    /// A sketch of so many bytes, rounded up to whole cache lines.
    ///
    /// # Errors
    /// [`Error::NoSketch`](crate::Error::NoSketch) if the system does not give them.
    pub fn new(bytes: u64) -> Result<Self, crate::Error> {
        let count = bytes.div_ceil(size_of::<Line>() as u64).max(1);
        let none = |()| crate::Error::NoSketch { bytes };
        let count = usize::try_from(count).map_err(|_| none(()))?;
        let mut lines = Vec::new();
        lines.try_reserve_exact(count).map_err(|_| none(()))?;
        lines.resize(count, Line::default());
        Ok(Self {
            lines,
            hand: 0,
            counted: 0,
        })
    }

    /// What the counters take.
    pub fn bytes(&self) -> u64 {
        size_of_val(&self.lines[..]) as u64
    }

    fn place(&self, key: u64) -> Place {
        let hash = mix(key ^ 0x5ce7_c4a1_90d3_be2f);
        let line = (u128::from(hash) * self.lines.len() as u128) >> 64;
        Place {
            line: line as usize,
            // The high bits decide the line.
            counters: hash,
        }
    }

    /// Asks for the counters of a key that is soon counted.
    #[inline]
    pub(super) fn ask_for(&self, key: u64) {
        let line = self.place(key).line;
        prefetch(self.lines[line].0.as_ptr().cast(), size_of::<Line>());
    }

    /// How often a key was seen lately, at most [`MOST`](Self::MOST).
    pub fn estimate(&self, key: u64) -> u32 {
        let place = self.place(key);
        let line = &self.lines[place.line];
        let each = (0..DEPTH).map(|quarter| line.get(quarter, place.counters));
        each.min().unwrap_or(0) as u32
    }

    /// Counts so many occurrences of a key, and returns the new estimate.
    pub fn count(&mut self, key: u64, occurrences: u32) -> u32 {
        if occurrences == 0 {
            return self.estimate(key);
        }
        let raised = self
            .estimate(key)
            .saturating_add(occurrences)
            .min(Self::MOST);
        let place = self.place(key);
        let line = &mut self.lines[place.line];
        for quarter in 0..DEPTH {
            if line.get(quarter, place.counters) < u64::from(raised) {
                line.set(quarter, place.counters, u64::from(raised));
            }
        }
        self.counted += u64::from(occurrences.min(Self::MOST));
        while self.counted >= HALVED_AFTER {
            self.counted -= HALVED_AFTER;
            for word in &mut self.lines[self.hand].0 {
                *word = *word >> 1 & HALVES;
            }
            self.hand = (self.hand + 1) % self.lines.len();
        }
        raised
    }

    pub(super) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The line that is halved next, and the occurrences counted since one was.
    pub(super) fn hand(&self) -> [u64; 2] {
        [self.hand as u64, self.counted]
    }

    pub(super) fn lines_mut(&mut self) -> &mut [Line] {
        &mut self.lines
    }

    /// Sets what [`hand`](Self::hand) gives; whether that can be.
    pub(super) fn set_hand(&mut self, [hand, counted]: [u64; 2]) -> bool {
        (self.hand, self.counted) = (hand as usize, counted);
        hand < self.lines.len() as u64 && counted < HALVED_AFTER
    }
}

impl Line {
    /// Word and shift of a key's counter in a quarter.
    fn at(quarter: usize, counters: u64) -> (usize, u64) {
        let counter = counters >> (5 * quarter) & (QUARTER - 1);
        (2 * quarter + (counter >> 4) as usize, 4 * (counter & 15))
    }

    fn get(&self, quarter: usize, counters: u64) -> u64 {
        let (word, shift) = Self::at(quarter, counters);
        self.0[word] >> shift & 15
    }

    fn set(&mut self, quarter: usize, counters: u64, count: u64) {
        let (word, shift) = Self::at(quarter, counters);
        self.0[word] = self.0[word] & !(15 << shift) | count << shift;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_never_below_the_count() {
        // Without halving: fewer occurrences than a line is halved after.
        let mut sketch = Sketch::new(64 << 10).unwrap();
        for key in 0..5 {
            for _ in 0..key {
                sketch.count(key, 1);
            }
        }
        for key in 0..5 {
            assert!(sketch.estimate(key) >= key as u32);
        }
        assert_eq!(sketch.count(9, 100), Sketch::MOST);
        assert_eq!(sketch.count(9, 1), Sketch::MOST);
    }

    #[test]
    fn few_keys_that_were_seen_once_look_like_two() {
        // 1024 lines, whose window is 16 occurrences each: ten windows of keys that never return.
        let mut sketch = Sketch::new(64 << 10).unwrap();
        let keys = 10 * 16 * 1024;
        let twice = (0..keys).filter(|&key| sketch.count(key, 1) >= 2).count();
        // 16 keys a line: at most 2.4 %, less while lines fill; lines are not all alike.
        assert!(twice as f64 / (keys as f64) < 0.03, "{twice} of {keys}");
    }

    #[test]
    fn what_was_not_seen_for_long_is_forgotten() {
        let mut sketch = Sketch::new(1 << 10).unwrap();
        sketch.count(1, 8);
        // 16 lines: after 16 × 16 occurrences each was halved once, after five times as many to 0.
        for _ in 0..5 * 16 * 16 / 2 {
            sketch.count(2, 2);
        }
        assert!(sketch.estimate(1) <= 1 || sketch.place(1).line == sketch.place(2).line);
    }

    #[test]
    fn an_occurrence_of_none_changes_nothing() {
        let mut sketch = Sketch::new(1 << 10).unwrap();
        sketch.count(3, 2);
        let before = sketch.clone();
        assert_eq!(sketch.count(3, 0), 2);
        assert_eq!(sketch, before);
    }
}
