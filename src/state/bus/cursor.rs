//! A reader's place: a number and a position, not a queue. However slow, it costs the others nothing, and once overtaken
//! it is told how much it missed.
//!
//! Whoever comes back with a position first gets what the shared stream still holds of it ([`HistoryAsk`]), then what the
//! ring holds, each event once: the position decides, not the way an event came.

use super::event::Item;
use super::position::Position;
use super::ring::{Entry, FEW, Ring, What};
use super::{Bus, Following};
use crate::base::Now;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// A reader's place. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Cursor {
    bus: Arc<Bus>,
    id: u64,
    position: Position,
    stage: Stage,
    /// Missed, and not said yet.
    gap: u64,
}

/// What a cursor finds.
#[derive(Clone, Debug)]
pub enum Next {
    /// The next event and its writer's number of it.
    Event(u64, Item),
    /// At least so many events were missed; the cursor stands behind them.
    Gap(u64),
    /// Nothing new.
    Wait,
}

/// Somebody came back and wants what the shared stream took since: answered page by page, until the end is dropped.
#[derive(Debug)]
pub struct HistoryAsk {
    /// From there, in Redis' milliseconds.
    pub from_ms: u64,
    /// Where the pages go, in the stream's order.
    pub pages: mpsc::Sender<Vec<Entry>>,
}

#[derive(Debug)]
enum Stage {
    /// Came back, has not been opened.
    Resuming,
    /// Reads what the stream holds, or waits for it. Ours meanwhile come from the ring, if none is missing there.
    History { pages: mpsc::Receiver<Vec<Entry>>, page: VecDeque<Entry>, own: u64 },
    /// Follows the ring: the next index, and the first of which everything is news.
    Ring { next: u64, live: u64 },
}

impl Cursor {
    /// Counted as a reader already. `after`: see [`Bus::subscribe`].
    pub(super) fn new(bus: Arc<Bus>, after: Option<&Position>, ring: &mut Ring) -> Self {
        ring.readers += 1;
        let id = ring.readers;
        let (position, stage) = match after {
            Some(after) => (after.clone(), Stage::Resuming),
            None => (ring.here(), Stage::Ring { next: ring.end(), live: ring.end() }),
        };
        Self { bus, id, position, stage, gap: 0 }
    }

    /// Whether the others' events are on their way, or nobody can say when they will be. If not, the task is woken.
    pub fn ready(&self, cx: &Context<'_>) -> bool {
        let mut ring = self.bus.ring.lock();
        if self.bus.following() != Following::Starting {
            return true;
        }
        ring.waiting.insert(self.id, cx.waker().clone());
        false
    }

    /// Begins. Done by the first look, too; a position shown before it does not resume.
    pub fn open(&mut self) {
        let bus = Arc::clone(&self.bus);
        let mut ring = bus.ring.lock();
        if !matches!(self.stage, Stage::Resuming) {
            // The stream's reader may have begun since.
            if let (None, Some(ms)) = (self.position.stream_ms(), ring.stream_ms) {
                self.position.read_to(ms);
            }
            return;
        }
        ring.introduce(&mut self.position);
        match self.position.stream_ms() {
            Some(from_ms) if bus.following() != Following::Alone => {
                // One page waits while one is being read: a slow reader holds up nobody but itself.
                let (pages, answer) = mpsc::channel(1);
                self.stage = Stage::History { pages: answer, page: VecDeque::new(), own: ring.first() };
                drop(ring);
                bus.ask(HistoryAsk { from_ms, pages });
            }
            _ => self.enter(&mut ring),
        }
    }

    /// If what the stream holds has not begun to come, it is waited for no longer: what is missing shows as a gap.
    pub fn give_up(&mut self) {
        if matches!(self.stage, Stage::History { .. }) {
            let bus = Arc::clone(&self.bus);
            self.enter(&mut bus.ring.lock());
        }
    }

    fn enter(&mut self, ring: &mut Ring) {
        self.gap = ring.welcome(&mut self.position);
        self.stage = Stage::Ring { next: ring.first(), live: ring.end() };
    }

    /// What comes next, without waiting.
    pub fn try_next(&mut self) -> Next {
        match self.poll_next(&Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(next) => next,
            Poll::Pending => Next::Wait,
        }
    }

    /// What comes next; never [`Next::Wait`]: the task is woken when there is something.
    pub fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Next> {
        if matches!(self.stage, Stage::Resuming) {
            self.open();
        }
        let bus = Arc::clone(&self.bus);
        while let Stage::History { pages, page, own } = &mut self.stage {
            if let Some(entry) = page.pop_front() {
                // What of ours the ring still holds is whole there: the stream may lack some that were shed.
                if entry.epoch == bus.epoch && entry.seq > bus.ring.lock().own_floor() {
                    continue;
                }
                match judge(&mut self.position, &entry, true) {
                    Judged::Seen => {}
                    // Its time is not this reader's yet: some of ours that the stream took earlier are still to come.
                    Judged::News => return Poll::Ready(taken(&mut self.position, Entry { ms: 0, ..entry })),
                    Judged::Missing(missed) => {
                        page.push_front(entry);
                        return Poll::Ready(Next::Gap(missed));
                    }
                }
                continue;
            }
            match pages.poll_recv(&mut Context::from_waker(cx.waker())) {
                Poll::Ready(Some(more)) => *page = more.into(),
                Poll::Ready(None) => break,
                Poll::Pending => {
                    let mut ring = bus.ring.lock();
                    let whole = self.position.of(bus.epoch).is_some_and(|seen| seen >= ring.own_floor());
                    while whole && let Some(entry) = ring.get((*own).max(ring.first())) {
                        *own = (*own).max(ring.first()) + 1;
                        if entry.epoch == bus.epoch
                            && let Judged::News = judge(&mut self.position, entry, true)
                        {
                            return Poll::Ready(taken(&mut self.position, entry.clone()));
                        }
                    }
                    ring.waiting.insert(self.id, cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        let mut ring = bus.ring.lock();
        if matches!(self.stage, Stage::History { .. }) {
            self.enter(&mut ring);
        }
        match self.look(&ring) {
            Next::Wait => {
                ring.waiting.insert(self.id, cx.waker().clone());
                Poll::Pending
            }
            next => Poll::Ready(next),
        }
    }

    fn look(&mut self, ring: &Ring) -> Next {
        if self.gap > 0 {
            return Next::Gap(std::mem::take(&mut self.gap));
        }
        let Stage::Ring { next, live } = &mut self.stage else { return Next::Wait };
        if *next < ring.first() {
            let missed = ring.first() - *next;
            *next = ring.first();
            ring.overtake(&mut self.position);
            return Next::Gap(missed);
        }
        while let Some(entry) = ring.get(*next) {
            let judged = judge(&mut self.position, entry, *next < *live);
            if let Judged::Missing(missed) = judged {
                return Next::Gap(missed);
            }
            *next += 1;
            if let Judged::News = judged {
                return taken(&mut self.position, entry.clone());
            }
        }
        if let Some(ms) = ring.stream_ms {
            self.position.read_to(ms);
        }
        Next::Wait
    }

    /// Where this reader stands: all up to there was seen or missed.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Leaves writers that fell silent long ago out of the position, once it names many.
    pub fn prune(&mut self, now: Now) {
        if self.position.len() > FEW {
            self.bus.ring.lock().prune(&mut self.position, now);
        }
    }
}

enum Judged {
    Seen,
    News,
    /// So many are missing before it; the position is set behind them.
    Missing(u64),
}

/// `old`: was there before this reader; of a writer it never heard of it wants only what the stream took since.
fn judge(position: &mut Position, entry: &Entry, old: bool) -> Judged {
    match position.of(entry.epoch) {
        Some(seen) if entry.seq <= seen => Judged::Seen,
        Some(seen) if seen < entry.prev => {
            position.set(entry.epoch, entry.prev);
            Judged::Missing(entry.prev - seen)
        }
        None if old && entry.ms > 0 && position.stream_ms().is_some_and(|ms| entry.ms < ms) => Judged::Seen,
        _ => Judged::News,
    }
}

fn taken(position: &mut Position, entry: Entry) -> Next {
    position.set(entry.epoch, entry.seq);
    if entry.ms > 0 {
        position.read_to(entry.ms);
    }
    match entry.what {
        What::Event(item) => Next::Event(entry.seq, item),
        What::Lost(lost) => Next::Gap(lost),
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.bus.ring.lock().waiting.remove(&self.id);
        self.bus.readers.fetch_sub(1, Ordering::SeqCst);
    }
}
