//! A hash of large arrays that runs as fast as memory is read.

use crate::intern::mix;

/// Multiplier of a step; odd, so that no two words have one product.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
const LANES: usize = 8;

/// A 64-bit hash that tells damage, not intent.
///
/// The 8-byte words go to eight lanes in turn, each of which does `lane = rotate((lane ^ word) ·
/// odd)`; the lanes are then folded into one in the same way, and the last bytes and the length
/// after them. Each step is a bijection of the lane for a given word and of the word for a given
/// lane: a change inside one word always changes the hash, and any other goes unseen once in 2⁶⁴.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let step = |state: u64, word: u64| (state ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("a word has eight bytes"));
    let mut lanes: [u64; LANES] = std::array::from_fn(|lane| mix(lane as u64 + 1));
    let mut blocks = bytes.chunks_exact(8 * LANES);
    for block in &mut blocks {
        for (lane, bytes) in lanes.iter_mut().zip(block.chunks_exact(8)) {
            *lane = step(*lane, word(bytes));
        }
    }
    let mut state = lanes.into_iter().fold(0, step);
    let mut words = blocks.remainder().chunks_exact(8);
    for bytes in &mut words {
        state = step(state, word(bytes));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    state = step(state, u64::from_le_bytes(last));
    mix(step(state, bytes.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flipped_bit_and_each_length_changes_the_hash() {
        let bytes: Vec<u8> = (0..150u8).map(|byte| byte.wrapping_mul(7)).collect();
        let whole = checksum(&bytes);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_ne!(checksum(&flipped), whole, "bit {bit} of byte {at}");
            }
        }
        let zeros = [0u8; 100];
        let mut hashes: Vec<u64> = (0..=100).map(|end| checksum(&zeros[..end])).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 101);
    }

    #[test]
    fn blocks_may_not_change_places() {
        let mut bytes = [0u8; 192];
        bytes[0] = 1;
        let first = checksum(&bytes);
        bytes.swap(0, 64);
        assert_ne!(checksum(&bytes), first);
    }
}
