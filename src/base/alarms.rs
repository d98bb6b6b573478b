//! Deadlines without timers: one coarse sweep per core instead of a timer armed and dropped for each request.
//!
//! A connection owns one [`Alarm`] for its whole life and moves its due time with a single atomic store; the core's
//! ticker calls [`Alarms::sweep`] every [`TICK`]. So a deadline fires up to one tick late and never early, which is
//! right for connect, first-byte, idle and keep-alive limits (all ≥ 1 s by default) and costs a request next to
//! nothing (a timer per request costs 2–3 µs at saturation).

use super::clock::Now;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

/// How often a core sweeps: the precision of every deadline built on this.
pub const TICK: Duration = Duration::from_millis(100);

const NEVER: u64 = u64::MAX;

/// One deadline that moves. Belongs to a connection (or a call); dropped with it.
#[derive(Debug)]
pub struct Alarm {
    due: AtomicU64,
    fired: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// All alarms of one core.
#[derive(Debug, Default)]
pub struct Alarms {
    all: Mutex<Vec<Weak<Alarm>>>,
    swept: AtomicU64,
}

impl Alarms {
    /// A new alarm, not set.
    pub fn alarm(&self) -> Arc<Alarm> {
        let alarm =
            Arc::new(Alarm { due: AtomicU64::new(NEVER), fired: AtomicBool::new(false), waker: Mutex::new(None) });
        self.all.lock().push(Arc::downgrade(&alarm));
        alarm
    }

    /// The time of the last sweep: at most one [`TICK`] old and cheaper than asking the clock.
    pub fn now(&self) -> Now {
        Now::from_nanos(self.swept.load(Ordering::Relaxed))
    }

    /// Wakes every task that waits with an alarm, without firing any: they look at the phase of shutdown.
    pub fn wake_all(&self) {
        let all: Vec<_> = self.all.lock().iter().filter_map(Weak::upgrade).collect();
        for alarm in all {
            alarm.wake();
        }
    }

    /// Fires what is due and forgets what was dropped.
    pub fn sweep(&self, now: Now) {
        self.swept.store(now.as_nanos(), Ordering::Relaxed);
        let mut due = Vec::new();
        self.all.lock().retain(|weak| {
            let Some(alarm) = weak.upgrade() else { return false };
            if alarm.due.load(Ordering::Acquire) <= now.as_nanos() {
                due.push(alarm);
            }
            true
        });
        // Woken outside the lock: a waker may run code of its own.
        for alarm in due {
            alarm.fire(now);
        }
    }

    /// How many alarms live (and how many dropped ones the next sweep forgets).
    pub fn len(&self) -> usize {
        self.all.lock().len()
    }

    /// No alarm at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Alarm {
    /// Moves the deadline and forgets an earlier firing.
    pub fn set(&self, at: Now) {
        self.due.store(at.as_nanos(), Ordering::Release);
        if self.fired.load(Ordering::Relaxed) {
            self.fired.store(false, Ordering::Release);
        }
    }

    /// No deadline from now on.
    pub fn clear(&self) {
        self.due.store(NEVER, Ordering::Release);
        if self.fired.load(Ordering::Relaxed) {
            self.fired.store(false, Ordering::Release);
        }
    }

    /// Whether it went off since it was last set.
    pub fn fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }

    /// Whether it went off; if not, the task is woken when it does. Call it on the way to `Poll::Pending`.
    pub fn poll_fired(&self, cx: &Context<'_>) -> bool {
        if self.fired() {
            return true;
        }
        let mut waker = self.waker.lock();
        match &*waker {
            Some(old) if old.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
        drop(waker);
        self.fired()
    }

    /// Wakes the task that waits with it, without firing.
    pub fn wake(&self) {
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn fire(&self, now: Now) {
        // Moved between the look and now: not due any more.
        if self.due.load(Ordering::Acquire) > now.as_nanos() {
            return;
        }
        self.due.store(NEVER, Ordering::Release);
        self.fired.store(true, Ordering::Release);
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn fires_once_when_due_and_never_after_it_was_moved_or_dropped() {
        let alarms = Alarms::default();
        let start = Now::from_nanos(1_000);
        let second = Duration::from_secs(1);
        let a = alarms.alarm();
        a.set(start + second);
        alarms.sweep(start);
        assert!(!a.fired());
        alarms.sweep(start + second);
        assert!(a.fired());
        a.set(start + 3 * second);
        assert!(!a.fired(), "setting it anew forgets the old firing");
        alarms.sweep(start + 2 * second);
        assert!(!a.fired());
        a.clear();
        alarms.sweep(start + 9 * second);
        assert!(!a.fired());
        drop(a);
        alarms.sweep(start);
        assert!(alarms.is_empty());
    }
}
