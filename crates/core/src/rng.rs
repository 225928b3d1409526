//! Random numbers that depend on nothing but what they are for.
//!
//! Every stream is ChaCha8 keyed by `(seed, purpose, a, b)`, so that a run that is resumed in the
//! middle draws what the undisturbed run would have drawn, at any number of threads. Burn's own
//! device generator is one state for the whole process that cannot be saved; nothing here uses it.
//!
//! ```
//! use crossfield_core::rng::{Purpose, name_key, rng};
//! use rand::RngExt;
//!
//! let draw = |epoch| rng(1, Purpose::Shuffle, epoch, 0).random::<u64>();
//! assert_eq!(draw(3), draw(3));
//! assert_ne!(draw(3), draw(4));
//! assert_ne!(name_key("v8.user"), name_key("v8.item"));
//! ```

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// What a stream of random numbers is for; streams of different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// The rows of a table: `a` = [`name_key`] of the table, `b` = block of rows.
    TableInit = 1,
    /// A dense weight: `a` = [`name_key`] of the weight.
    DenseInit = 2,
    /// The order of the training rows: `a` = epoch.
    Shuffle = 3,
    /// Which rows are held out.
    Split = 4,
    /// Dropout masks: `a` = [`name_key`] of the layer, `b` = step over all epochs.
    Dropout = 5,
    /// Sampled negatives: `a` = epoch, `b` = step.
    Negatives = 6,
    /// Generated data: `a` = part of the generator, `b` = block of rows.
    Synth = 7,
    /// Which way weights of halves are rounded.
    Rounding = 8,
    /// Draws of a posterior: `a` = iteration, `b` = step within it.
    Gibbs = 9,
    /// Which negatives a down-sampled training part keeps.
    KeepNegatives = 10,
    /// Negatives of samples that are made of lists: `a` = [`name_key`] of the user, `b` = part.
    Samples = 11,
    /// Resamples of rows that figures are taken of: `a` = resample.
    Bootstrap = 12,
    /// How the values of a field are shuffled among rows: `a` = [`name_key`] of the field, `b` = shuffle.
    Permutation = 13,
    /// Settings of the trials of a search: `a` = number of the trial, `b` = [`name_key`] of the setting.
    Trials = 14,
    /// Numbers that quantiles are taken of, where they are too many: `a` = [`name_key`] of the field.
    Sample = 15,
    /// The order of the blocks of a stream: `a` = epoch.
    Blocks = 16,
    /// The row that a key begins with: `a` = [`name_key`] of the table, `b` = key.
    KeyInit = 17,
}

/// The stream of random numbers for one purpose.
pub fn rng(seed: u64, purpose: Purpose, a: u64, b: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    key[16..24].copy_from_slice(&a.to_le_bytes());
    key[24..].copy_from_slice(&b.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// A 64-bit key for a name (FNV-1a), the same on every platform and in every version.
pub fn name_key(name: &str) -> u64 {
    fnv1a(0xcbf2_9ce4_8422_2325, name.as_bytes())
}

/// Goes on with an FNV-1a hash; [`name_key`] of nothing is where one begins.
pub fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finaliser of splitmix64: every bit of the input reaches every bit of the output, and no two
/// inputs give the same.
pub fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn streams_repeat_and_differ_by_each_part_of_their_key() {
        let first = |seed, purpose, a, b| rng(seed, purpose, a, b).random::<u64>();
        let base = first(1, Purpose::Shuffle, 2, 3);
        assert_eq!(base, first(1, Purpose::Shuffle, 2, 3));
        assert_ne!(base, first(2, Purpose::Shuffle, 2, 3));
        assert_ne!(base, first(1, Purpose::Split, 2, 3));
        assert_ne!(base, first(1, Purpose::Shuffle, 3, 3));
        assert_ne!(base, first(1, Purpose::Shuffle, 2, 4));
    }

    #[test]
    fn name_key_is_fnv_1a() {
        // Reference values of FNV-1a 64 from the authors' test suite.
        assert_eq!(name_key(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(name_key("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(name_key("foobar"), 0x8594_4171_f739_67e8);
    }
}
