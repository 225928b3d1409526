//! In which order an epoch visits the rows.

use crossfield_core::rng::{Purpose, rng};

use crate::split::shuffle;

/// Blocks among whose rows a blocked shuffle mixes.
const WINDOW: usize = 16;

/// All row numbers in the order of epoch `epoch` (from 0), decided by `seed` alone; `number` is that
/// of the block that the rows are, of those that are read one after the other.
///
/// With `block` = 0 the rows are shuffled as a whole. Otherwise the blocks of `block` consecutive
/// rows are, and then the rows of 16 blocks at a time: 16 stretches of a file are read at once, not
/// as many as a batch has rows.
pub(crate) fn epoch_order(
    rows: usize,
    block: usize,
    seed: u64,
    epoch: u64,
    number: u64,
) -> Vec<u32> {
    let mut stream = rng(seed, Purpose::Shuffle, epoch, number);
    if block == 0 {
        let mut order: Vec<u32> = (0..rows as u32).collect();
        shuffle(&mut order, &mut stream);
        return order;
    }
    let mut blocks: Vec<u32> = (0..rows.div_ceil(block) as u32).collect();
    shuffle(&mut blocks, &mut stream);
    let mut order = Vec::with_capacity(rows);
    for window in blocks.chunks(WINDOW) {
        let start = order.len();
        for &number in window {
            let first = number as usize * block;
            order.extend(first as u32..rows.min(first.saturating_add(block)) as u32);
        }
        shuffle(&mut order[start..], &mut stream);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(mut order: Vec<u32>) -> Vec<u32> {
        order.sort_unstable();
        order
    }

    #[test]
    fn each_row_comes_once_and_the_order_follows_seed_and_epoch() {
        for block in [0, 1, 3, 64, usize::MAX] {
            let order = epoch_order(1000, block, 7, 1, 0);
            assert_eq!(order, epoch_order(1000, block, 7, 1, 0));
            assert_ne!(order, epoch_order(1000, block, 7, 2, 0));
            assert_ne!(order, epoch_order(1000, block, 8, 1, 0));
            assert_eq!(sorted(order), (0..1000).collect::<Vec<_>>(), "{block}");
        }
        assert!(epoch_order(0, 4, 1, 0, 0).is_empty());
    }

    #[test]
    fn a_window_reads_sixteen_blocks() {
        // 64 blocks of 10 rows: each 160 rows visited are those of 16 whole blocks, mixed.
        let order = epoch_order(640, 10, 1, 0, 0);
        for window in order.chunks(160) {
            let mut blocks: Vec<u32> = window.iter().map(|row| row / 10).collect();
            assert!(blocks[..16].windows(2).any(|pair| pair[0] != pair[1]));
            blocks.sort_unstable();
            blocks.dedup();
            assert_eq!(blocks.len(), 16);
        }
        let first = sorted(order[..160].to_vec());
        assert_ne!(first, (0..160).collect::<Vec<_>>());
    }
}
