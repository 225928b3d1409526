//! Threads that work on one row together.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::PARTS;

/// Turns of spinning before a waiting thread takes over a part of another: some microseconds.
const PATIENCE: u32 = 256;
/// Turns of spinning before a waiting thread lets others run.
const SPINS: u32 = 1024;

/// Where the threads of a team take their work: the parts of one stage after the other.
///
/// Each thread has parts of its own, so that the memory they need stays in its cache. One that waits
/// in vain for the others takes over what they have not begun: a thread that the system has put
/// aside holds up the team only with a part in its hands. Waiting is spinning: a row takes
/// microseconds, and a sleeping thread would need several to wake.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// From the highest bits: number of the stage; a bit for each part that is complete; a bit for
    /// each that is taken. One word, so that threads have one cache line to hand to and fro.
    state: AtomicU64,
    closed: AtomicBool,
}

/// Some parts of a stage, which one thread has taken: a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) stage: u64,
    parts: u64,
}

/// A bit for each part.
const ALL: u64 = (1 << PARTS) - 1;

impl Taken {
    /// The parts.
    pub(crate) fn parts(self) -> impl Iterator<Item = usize> {
        (0..PARTS).filter(move |part| self.parts >> part & 1 == 1)
    }
}

impl Desk {
    /// The next parts for thread `thread` of `threads` to do, of `stages` stages in all; `None`
    /// when all is done, or the desk closed.
    #[inline]
    pub(crate) fn take(&self, stages: u64, thread: usize, threads: usize) -> Option<Taken> {
        let own = (thread..PARTS)
            .step_by(threads)
            .fold(0, |own, part| own | 1 << part);
        let mut spins = 0;
        loop {
            let state = self.state.load(Ordering::Acquire);
            let stage = state >> (2 * PARTS);
            if stage >= stages || self.closed.load(Ordering::Relaxed) {
                return None;
            }
            let free = ALL & !state;
            let mine = if free & own != 0 {
                free & own
            } else if spins > PATIENCE {
                free
            } else {
                0
            };
            if mine != 0 {
                // Stages only grow: if nothing has happened since the load, the parts are ours.
                let taken = self.state.compare_exchange_weak(
                    state,
                    state | mine,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                if taken.is_ok() {
                    return Some(Taken { stage, parts: mine });
                }
                continue;
            }
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Parts are complete. True if they are the last of their stage: that thread goes on with what
    /// follows the stage, and then [opens](Self::open) the next.
    #[inline]
    pub(crate) fn finish(&self, taken: Taken) -> bool {
        let before = self.state.fetch_or(taken.parts << PARTS, Ordering::AcqRel);
        (before >> PARTS | taken.parts) & ALL == ALL
    }

    /// Opens a stage. What was written before is seen by whoever takes a part of it.
    #[inline]
    pub(crate) fn open(&self, stage: u64) {
        self.state.store(stage << (2 * PARTS), Ordering::Release);
    }

    /// Sends all threads home.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Closes the desk if the thread that holds it panics: its part will never be complete.
    pub(crate) fn guard(&self) -> Guard<'_> {
        Guard(self)
    }
}

pub(crate) struct Guard<'a>(&'a Desk);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn each_part_is_done_once_and_no_stage_begins_before_the_last_is_complete() {
        const STAGES: u64 = 3000;
        let desk = Desk::default();
        let done: Vec<AtomicUsize> = (0..STAGES).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (desk, done) = (&desk, &done);
                scope.spawn(move || {
                    while let Some(taken) = desk.take(STAGES, thread, 3) {
                        let stage = taken.stage as usize;
                        if stage > 0 {
                            let before = &done[stage - 1];
                            assert_eq!(before.load(Ordering::Relaxed), (1 << PARTS) - 1);
                        }
                        for part in taken.parts() {
                            let bit = 1 << part;
                            assert_eq!(done[stage].fetch_or(bit, Ordering::Relaxed) & bit, 0);
                        }
                        if desk.finish(taken) {
                            desk.open(taken.stage + 1);
                        }
                    }
                });
            }
        });
        let last = done[STAGES as usize - 1].load(Ordering::Relaxed);
        assert_eq!(last, (1 << PARTS) - 1);
    }

    #[test]
    fn a_thread_that_waits_in_vain_takes_over() {
        let desk = Desk::default();
        let own = desk.take(1, 0, 2).expect("the desk is open");
        assert_eq!(own.parts().collect::<Vec<_>>(), [0, 2]);
        assert!(!desk.finish(own));
        // Nobody else is there.
        let others = desk.take(1, 0, 2).expect("the desk is open");
        assert_eq!(others.parts().collect::<Vec<_>>(), [1, 3]);
        assert!(desk.finish(others));
        desk.open(1);
        assert_eq!(desk.take(1, 0, 2), None);
    }

    #[test]
    fn a_panic_sends_the_others_home() {
        let desk = Desk::default();
        // The others begin when the parts are taken that will never be complete.
        let begun = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _guard = desk.guard();
                let _taken = desk.take(2, 0, 2);
                begun.wait();
                panic!("on purpose");
            });
            let others = scope.spawn(|| {
                begun.wait();
                while let Some(taken) = desk.take(2, 1, 2) {
                    assert!(!desk.finish(taken));
                }
            });
            assert!(panics.join().is_err());
            assert!(others.join().is_ok());
        });
    }
}
