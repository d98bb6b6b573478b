//! The ring of numbered events and the cursors into it.
//!
//! A reader holds a number, not a queue: however slow, it costs the others nothing, and once overtaken it is told how
//! much it missed. The lock is held for one look or one batch; events are freed and readers woken after it.

use super::{Bus, Event, Position};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

/// Numbered events, the newest last.
#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<Arc<Event>>,
    /// Number of `events[0]`, or of the next event while there is none. Numbers start at 1.
    first: u64,
    most: usize,
    waiting: HashMap<u64, Waker, ahash::RandomState>,
    readers: u64,
}

/// A reader's place in the ring. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Cursor {
    bus: Arc<Bus>,
    next: u64,
    id: u64,
}

/// What a cursor finds.
#[derive(Clone, Debug)]
pub enum Next {
    /// The next event and its number.
    Event(u64, Arc<Event>),
    /// At least so many events were missed; the cursor stands behind them.
    Gap(u64),
    /// Nothing new.
    Wait,
}

impl Ring {
    pub(super) fn new(most: usize) -> Self {
        Self { events: VecDeque::new(), first: 1, most, waiting: HashMap::default(), readers: 0 }
    }

    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Takes `batch`, leaves in it what had to go; whom to wake.
    pub(super) fn append(&mut self, batch: &mut Vec<Arc<Event>>) -> Vec<Waker> {
        self.events.extend(batch.drain(..));
        let over = self.events.len().saturating_sub(self.most);
        batch.extend(self.events.drain(..over));
        self.first += over as u64;
        self.waiting.drain().map(|(_, waker)| waker).collect()
    }

    /// Where a reader starts that has seen everything up to `after` (`None`: wants the news only).
    pub(super) fn place(&mut self, after: Option<u64>) -> (u64, u64) {
        self.readers += 1;
        let end = self.end();
        // A number we have not reached yet is not ours: the news only.
        let next = after.map_or(end, |seen| if seen >= end { end } else { seen + 1 });
        (self.readers, next)
    }

    /// Empties it. One number is skipped, so that whoever resumes across this sees a gap.
    pub(super) fn sleep(&mut self) -> VecDeque<Arc<Event>> {
        self.first = self.end() + 1;
        std::mem::take(&mut self.events)
    }

    fn look(&self, next: &mut u64) -> Next {
        if *next < self.first {
            let missed = self.first - *next;
            *next = self.first;
            return Next::Gap(missed);
        }
        let Some(event) = self.events.get((*next - self.first) as usize) else { return Next::Wait };
        *next += 1;
        Next::Event(*next - 1, Arc::clone(event))
    }
}

impl Cursor {
    pub(super) fn new(bus: Arc<Bus>, (id, next): (u64, u64)) -> Self {
        Self { bus, next, id }
    }

    /// What comes next, without waiting.
    pub fn try_next(&mut self) -> Next {
        self.bus.ring.lock().look(&mut self.next)
    }

    /// What comes next; never [`Next::Wait`]: the task is woken when there is something.
    pub fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Next> {
        let mut ring = self.bus.ring.lock();
        match ring.look(&mut self.next) {
            Next::Wait => {
                ring.waiting.insert(self.id, cx.waker().clone());
                Poll::Pending
            }
            next => Poll::Ready(next),
        }
    }

    /// Where this reader stands: all before this number was seen or missed.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Adds this reader's place to a position that may hold other writers'.
    pub fn mark(&self, position: &mut Position) {
        position.set(self.bus.epoch, self.next - 1);
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.bus.ring.lock().waiting.remove(&self.id);
        self.bus.readers.fetch_sub(1, Ordering::SeqCst);
    }
}
