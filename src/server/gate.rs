//! Keeps a connection's task from waking itself for nothing.
//!
//! hyper hands a request's body over through a channel whose both ends live in one task: who takes a piece wakes whoever
//! sends, so the task is polled once more for each request, down through all it holds, and finds nothing to do. A wake
//! that comes while a piece is taken is held back here; [`taking`] passes it on unless that piece was the last.
//! Any other wake goes straight through.

use parking_lot::Mutex;
use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

thread_local! {
    /// A piece of a body is taken on this thread just now.
    static TAKING: Cell<bool> = const { Cell::new(false) };
    /// Who was to be woken meanwhile.
    static HELD: Cell<Option<Arc<Gate>>> = const { Cell::new(None) };
}

/// Stands between hyper and the waker of its connection's task.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Option<Waker>>);

impl Gate {
    /// The task that polls now is the one to wake.
    pub(super) fn open_to(&self, cx: &Context<'_>) {
        let mut task = self.0.lock();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    fn pass(&self) {
        // Cloned: a waker may run code of its own, which must not find the lock taken.
        let task = self.0.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if TAKING.get() {
            // Of two tasks' gates the first goes on at once: only one can be the taken body's own.
            if let Some(other) = HELD.replace(Some(Arc::clone(self))) {
                other.pass();
            }
        } else {
            self.pass();
        }
    }
}

/// Takes a piece of a body by `take`, which says whether it was the last: then nobody waits to send another.
pub(super) fn taking<T>(take: impl FnOnce() -> (T, bool)) -> T {
    /// Ends with it, a panic too: else this thread's wakes were held for ever.
    struct Taking;
    impl Drop for Taking {
        fn drop(&mut self) {
            TAKING.set(false);
        }
    }
    TAKING.set(true);
    let whole = Taking;
    let (taken, last) = take();
    drop(whole);
    if let Some(held) = HELD.take()
        && !last
    {
        held.pass();
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_what_the_last_piece_woke_is_forgotten() {
        let count = Arc::new(Count::default());
        let task = Waker::from(Arc::clone(&count));
        let gate = Arc::new(Gate::default());
        gate.open_to(&Context::from_waker(&task));
        let waker = Waker::from(Arc::clone(&gate));
        let woken = || count.0.load(Ordering::Relaxed);
        waker.wake_by_ref();
        assert_eq!(woken(), 1);
        taking(|| (waker.wake_by_ref(), false));
        assert_eq!(woken(), 2, "more is to come: its sender must hear that there is room");
        taking(|| (waker.wake_by_ref(), true));
        assert_eq!(woken(), 2);
        let elsewhere = waker.clone();
        taking(|| (std::thread::scope(|scope| scope.spawn(|| elsewhere.wake_by_ref()).join().unwrap()), true));
        assert_eq!(woken(), 3, "another thread's wake has nothing to do with this piece");
        waker.wake();
        assert_eq!(woken(), 4);
    }
}
