//! Batches of a data set, made ready on a thread of their own.

use std::sync::Arc;

use crossfield_core::Batch;

use crate::dataset::Dataset;
use crate::error::Error;
use crate::made_ahead::MadeAhead;

/// Batches that may wait for the model.
const DEPTH: usize = 4;

/// In which order an epoch visits the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A new order each epoch, the same for the same seed and epoch: [`Dataset::epoch_order`].
    Shuffled {
        /// The run's seed.
        seed: u64,
        /// The epoch, from 0.
        epoch: u64,
        /// Number of the rows among the blocks of a stream, from 0.
        block: u64,
    },
    /// As the rows stand.
    Sequential,
}

/// The batches of one epoch, in an order that the seed decides; the last may be smaller.
///
/// They are prepared on a thread of their own, up to four ahead. A loader that starts at a later
/// step gives exactly what the full epoch gives from there on.
pub struct Loader {
    batches: MadeAhead<Batch>,
    steps: usize,
}

impl Loader {
    /// Batches of `batch_size` rows from step `first_step` (from 0) on.
    ///
    /// # Errors
    /// [`Error::Thread`].
    ///
    /// # Panics
    /// If `batch_size` is 0.
    pub fn new(
        dataset: Arc<Dataset>,
        order: Order,
        batch_size: usize,
        first_step: usize,
    ) -> Result<Self, Error> {
        assert!(batch_size > 0, "a batch has at least one row");
        let steps = dataset.len().div_ceil(batch_size);
        let batches = MadeAhead::new("loader", DEPTH, move |sender| {
            let rows = match order {
                Order::Shuffled { seed, epoch, block } => dataset.epoch_order(seed, epoch, block),
                Order::Sequential => (0..dataset.len() as u32).collect(),
            };
            for rows in rows.chunks(batch_size).skip(first_step) {
                // An error: the loader was dropped, nobody wants the rest.
                if sender.send(dataset.batch(rows)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { batches, steps })
    }

    /// Steps of a whole epoch, whichever step this loader starts at.
    pub fn steps(&self) -> usize {
        self.steps
    }
}

impl Iterator for Loader {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        self.batches.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Dataset;

    fn numbered(rows: u32) -> Arc<Dataset> {
        Arc::new(Dataset::numbered(rows))
    }

    fn labels(loader: Loader) -> Vec<Vec<f32>> {
        loader.map(|batch| batch.targets.labels).collect()
    }

    #[test]
    fn an_epoch_is_complete_and_its_order_repeatable() {
        let data = numbered(23);
        let order = Order::Shuffled {
            seed: 7,
            epoch: 1,
            block: 0,
        };
        let first = labels(Loader::new(data.clone(), order, 5, 0).unwrap());
        assert_eq!(
            first.iter().map(Vec::len).collect::<Vec<_>>(),
            [5, 5, 5, 5, 3]
        );
        let mut all = first.concat();
        assert_ne!(all, (0..23).map(|row| row as f32).collect::<Vec<_>>());
        all.sort_by(f32::total_cmp);
        assert_eq!(all, (0..23).map(|row| row as f32).collect::<Vec<_>>());
        assert_eq!(
            labels(Loader::new(data.clone(), order, 5, 0).unwrap()),
            first
        );
        let next = Order::Shuffled {
            seed: 7,
            epoch: 2,
            block: 0,
        };
        assert_ne!(
            labels(Loader::new(data.clone(), next, 5, 0).unwrap()),
            first
        );
        let rest = Loader::new(data, order, 5, 3).unwrap();
        assert_eq!(rest.steps(), 5);
        assert_eq!(labels(rest), first[3..]);
    }

    #[test]
    fn the_order_is_the_data_sets_in_blocks_too() {
        for shuffle_block in [0, 4] {
            let data = Arc::new(Dataset {
                shuffle_block,
                ..Dataset::numbered(100)
            });
            let order = Order::Shuffled {
                seed: 3,
                epoch: 2,
                block: 0,
            };
            let rows = data.epoch_order(3, 2, 0).into_iter().map(|row| row as f32);
            let expected: Vec<f32> = rows.collect();
            assert_eq!(
                labels(Loader::new(data, order, 7, 0).unwrap()).concat(),
                expected
            );
        }
    }

    #[test]
    fn sequential_keeps_the_rows_and_late_starts_are_empty() {
        let data = numbered(5);
        let batches = labels(Loader::new(data.clone(), Order::Sequential, 2, 0).unwrap());
        assert_eq!(batches, [vec![0.0, 1.0], vec![2.0, 3.0], vec![4.0]]);
        assert!(labels(Loader::new(data, Order::Sequential, 2, 3).unwrap()).is_empty());
    }

    #[test]
    fn a_loader_dropped_early_ends_its_thread() {
        let data = numbered(1000);
        let mut loader = Loader::new(data.clone(), Order::Sequential, 1, 0).unwrap();
        assert!(loader.next().is_some());
        drop(loader);
        // The thread has ended, so nothing else holds the rows.
        assert_eq!(Arc::strong_count(&data), 1);
    }
}
