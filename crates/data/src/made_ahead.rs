//! What a thread of its own makes, some of it ahead of whoever takes it.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::error::Error;

/// What the thread sends, in order.
pub(crate) struct MadeAhead<T> {
    made: Option<Receiver<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T> fmt::Debug for MadeAhead<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadeAhead").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> MadeAhead<T> {
    /// What `make` sends on a thread called `name`, of which `depth` may wait.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub(crate) fn new(
        name: &'static str,
        depth: usize,
        make: impl FnOnce(&SyncSender<T>) + Send + 'static,
    ) -> Result<Self, Error> {
        let (sender, receiver) = sync_channel(depth);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || make(&sender))
            .map_err(Error::thread(name))?;
        Ok(Self {
            made: Some(receiver),
            thread: Some(thread),
        })
    }
}

impl<T> Iterator for MadeAhead<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if let Ok(made) = self.made.as_ref()?.recv() {
            return Some(made);
        }
        self.made = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        None
    }
}

impl<T> Drop for MadeAhead<T> {
    fn drop(&mut self) {
        // Without a receiver the thread's next send fails, and it ends.
        self.made = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was about something that nobody asked for.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_thread_reaches_whoever_takes() {
        let mut ahead = MadeAhead::new("test", 1, |sender| {
            sender.send(1).unwrap();
            panic!("no such row");
        })
        .unwrap();
        assert_eq!(ahead.next(), Some(1));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ahead.next()));
        let message = caught.unwrap_err();
        assert_eq!(message.downcast_ref::<&str>(), Some(&"no such row"));
        assert_eq!(ahead.next(), None);
    }
}
