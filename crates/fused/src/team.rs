//! Threads that work on one row together.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

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
    /// Number of the stage, and in the lowest byte a bit for each part that is taken.
    state: AtomicU64,
    /// Parts of the stage that are complete.
    done: AtomicUsize,
    closed: AtomicBool,
}

/// A part of a stage, which one thread has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) stage: u64,
    pub(crate) number: usize,
}

impl Desk {
    /// The next part for thread `thread` of `threads` to do, of `stages` stages in all; `None` when
    /// all is done, or the desk closed.
    #[inline]
    pub(crate) fn take(&self, stages: u64, thread: usize, threads: usize) -> Option<Part> {
        let mut spins = 0;
        loop {
            let state = self.state.load(Ordering::Acquire);
            let (stage, taken) = (state >> 8, state & 0xFF);
            if stage >= stages || self.closed.load(Ordering::Relaxed) {
                return None;
            }
            let free = |part: &usize| taken >> part & 1 == 0;
            let own = (thread..PARTS).step_by(threads).find(free);
            let any = || (0..PARTS).find(free).filter(|_| spins > PATIENCE);
            if let Some(number) = own.or_else(any) {
                // Stages only grow: if nothing has happened since the load, the part is ours.
                let bit = 1 << number;
                let swapped = self.state.compare_exchange_weak(
                    state,
                    state | bit,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                if swapped.is_ok() {
                    return Some(Part { stage, number });
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

    /// A part is complete. True for the last of its stage: that thread goes on with what follows
    /// the stage, and then [opens](Self::open) the next.
    #[inline]
    pub(crate) fn finish(&self) -> bool {
        let last = self.done.fetch_add(1, Ordering::AcqRel) + 1 == PARTS;
        if last {
            self.done.store(0, Ordering::Relaxed);
        }
        last
    }

    /// Opens a stage. What was written before is seen by whoever takes a part of it.
    #[inline]
    pub(crate) fn open(&self, stage: u64) {
        self.state.store(stage << 8, Ordering::Release);
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

    #[test]
    fn each_part_is_done_once_and_no_stage_begins_before_the_last_is_complete() {
        const STAGES: u64 = 3000;
        let desk = Desk::default();
        let done: Vec<AtomicUsize> = (0..STAGES).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (desk, done) = (&desk, &done);
                scope.spawn(move || {
                    while let Some(part) = desk.take(STAGES, thread, 3) {
                        let stage = part.stage as usize;
                        if stage > 0 {
                            let before = &done[stage - 1];
                            assert_eq!(before.load(Ordering::Relaxed), (1 << PARTS) - 1);
                        }
                        let bit = 1 << part.number;
                        assert_eq!(done[stage].fetch_or(bit, Ordering::Relaxed) & bit, 0);
                        if desk.finish() {
                            desk.open(part.stage + 1);
                        }
                    }
                });
            }
        });
        assert_eq!(
            done[STAGES as usize - 1].load(Ordering::Relaxed),
            (1 << PARTS) - 1
        );
    }

    #[test]
    fn a_panic_sends_the_others_home() {
        let desk = Desk::default();
        // The others begin when the part is taken that will never be complete.
        let begun = std::sync::Barrier::new(2);
        let taken = std::thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _guard = desk.guard();
                let _part = desk.take(2, 0, 2);
                begun.wait();
                panic!("on purpose");
            });
            let others = scope.spawn(|| {
                begun.wait();
                let mut taken = 0;
                while desk.take(2, 1, 2).is_some() {
                    taken += usize::from(!desk.finish());
                }
                taken
            });
            assert!(panics.join().is_err());
            others.join().expect("it went home")
        });
        assert!(taken < PARTS);
    }
}
