//! Live events: from the data cores through bounded lanes into one ring that any number of readers follow by cursor.
//!
//! A sender never waits and never sees a reader: it pushes into its core's lane, or drops the event and counts it when
//! the lane is full (`started` gives way first, from three quarters on). A collector on the control runtime calls
//! [`Bus::collect`] every few milliseconds; it alone numbers our events. A reader that is overtaken by the ring sees a gap.
//!
//! Alone, while nobody listens (and nobody did for [`WARM`]) an event costs its sender one load and one branch, and the
//! ring is empty: a reader that comes back later than that sees a gap, since nobody knows what it missed. With a cluster
//! (`tap`) somebody may be watching elsewhere and we may not have heard of it yet: then the ring goes on with our own
//! events, as far back as whoever carries them away wants.

mod cursor;
mod event;
mod far;
mod position;
mod ring;
mod tap;

#[cfg(test)]
mod far_tests;
#[cfg(test)]
mod tests;

pub use cursor::{Cursor, HistoryAsk, Next};
pub use event::{Done, DoneView, Event, Item, Tokens, View};
pub use far::{FarDone, FarEvent};
pub use position::Position;
pub use ring::{Entry, What};
pub use tap::Following;

use crate::base::Now;
use crate::base::metrics::METRICS;
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use parking_lot::Mutex;
use ring::Ring;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tap::Tap;

/// Events the ring holds; what a reader may lag, or resume by `Last-Event-ID`.
pub const RING: usize = 32_768;

/// How long the ring goes on filling after the last reader left, so that one that reconnects misses nothing.
pub const WARM: Duration = Duration::from_secs(60);

/// Events in one core's lane: 100,000 events a second for 40 ms.
const LANE: usize = 4096;

/// Events moved into the ring under one lock.
const BATCH: usize = 256;

/// How often to collect while somebody listens, and while somebody elsewhere might.
const OFTEN: Duration = Duration::from_millis(4);
const SELDOM: Duration = Duration::from_millis(20);

/// The bus. Shared by all cores.
#[derive(Debug)]
pub struct Bus {
    wanted: CachePadded<AtomicBool>,
    lanes: Box<[CachePadded<ArrayQueue<Event>>]>,
    ring: Mutex<Ring>,
    epoch: u64,
    readers: AtomicUsize,
    collector: Mutex<Collector>,
    tap: Tap,
}

#[derive(Debug, Default)]
struct Collector {
    batch: Vec<Item>,
    freed: Vec<Entry>,
    /// When a reader was last seen.
    read: Option<Now>,
}

impl Bus {
    /// A bus for `lanes` senders (one per data core). `epoch` is random per process start, as in request ids.
    pub fn new(epoch: u64, lanes: usize) -> Arc<Self> {
        Self::with_sizes(epoch, lanes, LANE, RING)
    }

    pub(crate) fn with_sizes(epoch: u64, lanes: usize, lane: usize, ring: usize) -> Arc<Self> {
        Arc::new(Self {
            wanted: CachePadded::new(AtomicBool::new(false)),
            lanes: (0..lanes.max(1)).map(|_| CachePadded::new(ArrayQueue::new(lane))).collect(),
            ring: Mutex::new(Ring::new(epoch, ring)),
            epoch,
            readers: AtomicUsize::new(0),
            collector: Mutex::default(),
            tap: Tap::default(),
        })
    }

    /// Whether anybody wants events: one relaxed load. Build none when not.
    #[inline]
    pub fn wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Sends what `make` builds, when anybody wants it. Both events of a request must go by the same lane (its core's):
    /// order is kept within a lane only.
    #[inline]
    pub fn emit_with(&self, lane: usize, make: impl FnOnce() -> Event) {
        if self.wanted() {
            self.emit(lane, make());
        }
    }

    /// Sends an event: pushed, or dropped and counted; never waits.
    pub fn emit(&self, lane: usize, event: Event) {
        let lane = &self.lanes[lane % self.lanes.len()];
        if event.done.is_none() && lane.len() >= lane.capacity() / 4 * 3 {
            METRICS.events_dropped.inc();
            return;
        }
        if lane.push(event).is_err() {
            METRICS.events_dropped.inc();
        }
    }

    /// Moves what was sent into the ring, numbers it and wakes the readers; how many events. Call it every few
    /// milliseconds from the control runtime; of two calls at once, one does nothing.
    pub fn collect(&self, now: Now) -> usize {
        let Some(mut collector) = self.collector.try_lock() else { return 0 };
        let collector = &mut *collector;
        if self.readers.load(Ordering::Acquire) > 0 || (collector.read.is_none() && self.tapped() && !self.cold()) {
            // The latter: one came and went between two looks.
            collector.read = Some(now);
        } else if collector.read.is_none_or(|read| now.since(read) >= WARM) {
            if self.tapped() {
                self.cool(&mut collector.freed);
                collector.freed.clear();
                collector.read = None;
            } else if self.wanted() {
                self.sleep(collector);
                return 0;
            }
        }
        let mut moved = 0;
        for lane in &self.lanes {
            // At most what a lane holds, or a busy sender could keep the collector here.
            let mut left = lane.len();
            while left > 0 {
                let batch = left.min(BATCH);
                left -= batch;
                collector.batch.extend(std::iter::from_fn(|| lane.pop()).take(batch).map(|e| Item::Own(Arc::new(e))));
                moved += collector.batch.len();
                let mut ring = self.ring.lock();
                ring.append_own(collector.batch.drain(..), &mut collector.freed);
                let mut wake: Vec<_> = ring.waiting.drain().map(|(_, waker)| waker).collect();
                drop(ring);
                // What the ring gave up is freed here, after its lock.
                collector.freed.clear();
                wake.drain(..).for_each(std::task::Waker::wake);
            }
        }
        if moved > 0 {
            self.tell();
        }
        moved
    }

    /// How long to wait between two calls of [`Self::collect`].
    pub fn pace(&self) -> Duration {
        if self.cold() && !self.published() { SELDOM } else { OFTEN }
    }

    /// A reader. From the tail; with `after`, from behind that position: all that is left of this process' events when
    /// it knows none of them.
    pub fn subscribe(self: &Arc<Self>, after: Option<&Position>) -> Cursor {
        // In this order: a collector that puts the bus to sleep checks the readers again under the ring's lock.
        self.readers.fetch_add(1, Ordering::SeqCst);
        let mut ring = self.ring.lock();
        let cursor = Cursor::new(Arc::clone(self), after, &mut ring);
        self.warm_up();
        drop(ring);
        self.wanted.store(true, Ordering::SeqCst);
        cursor
    }

    /// This process' epoch: who writes these events.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Readers now.
    pub fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }

    fn sleep(&self, collector: &mut Collector) {
        self.wanted.store(false, Ordering::SeqCst);
        if self.readers.load(Ordering::SeqCst) > 0 || self.tapped() {
            self.wanted.store(true, Ordering::SeqCst);
            return;
        }
        for lane in &self.lanes {
            while lane.pop().is_some() {}
        }
        let freed = self.ring.lock().sleep();
        drop(freed);
        collector.read = None;
    }
}
