//! The bus' end towards other instances: what carries our events away, and what brings theirs.
//!
//! Whoever holds it runs elsewhere and may fail or fall behind: nothing here waits for it, and what it leaves in the ring
//! is bounded as everything there is.

use super::{Bus, Entry, Event, HistoryAsk};
use crate::base::Now;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use tokio::sync::Notify;

/// Questions for the stream's history that wait at most; more are answered with nothing.
const ASKS: usize = 64;

/// How it stands with the others' events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Following {
    /// There are no others.
    Alone = 0,
    /// Nobody brings them yet; somebody will, or say that it can't.
    Starting = 1,
    /// They come.
    Live = 2,
    /// Nobody knows when they will come again.
    Down = 3,
}

#[derive(Debug, Default)]
pub(super) struct Tap {
    /// Whether there is a cluster.
    open: AtomicBool,
    /// Whether our events are carried away now.
    published: AtomicBool,
    /// Nobody here listens, and nobody did for a while. Changed under the ring's lock only.
    cold: AtomicBool,
    following: AtomicU8,
    /// There is something new of ours.
    news: Notify,
    /// A reader came, or asked.
    called: Notify,
    asks: Mutex<VecDeque<HistoryAsk>>,
}

impl Bus {
    /// There is a cluster: from now on our events are kept until whoever carries them away forgets them. Once, at start.
    pub fn tap(&self) {
        let _ring = self.ring.lock();
        self.tap.cold.store(self.readers() == 0, Ordering::SeqCst);
        self.tap.following.store(Following::Starting as u8, Ordering::SeqCst);
        self.tap.open.store(true, Ordering::SeqCst);
        self.wanted.store(true, Ordering::SeqCst);
    }

    /// Whether there is a cluster.
    pub fn tapped(&self) -> bool {
        self.tap.open.load(Ordering::Relaxed)
    }

    /// Whether our events are carried away as they come, or only kept for a while. Said by whoever would do it.
    pub fn publish(&self, on: bool) {
        self.tap.published.store(on, Ordering::Relaxed);
    }

    pub(super) fn published(&self) -> bool {
        self.tap.published.load(Ordering::Relaxed)
    }

    /// Nobody here listens, and nobody did for [`super::WARM`].
    pub fn cold(&self) -> bool {
        self.tap.cold.load(Ordering::SeqCst)
    }

    /// Returns when there is something new of ours and it is to be carried away.
    pub async fn news(&self) {
        self.tap.news.notified().await;
    }

    /// Returns when a reader came or asked for history.
    pub async fn called(&self) {
        self.tap.called.notified().await;
    }

    /// The last number of our events.
    pub fn own_last(&self) -> u64 {
        self.ring.lock().own_last()
    }

    /// Our events from behind number `after`, at most `most`, with their numbers; and how many of these the ring had
    /// given up already.
    pub fn own_after(&self, after: u64, most: usize) -> (u64, Vec<(u64, Arc<Event>)>) {
        self.ring.lock().own_after(after, most)
    }

    /// Nobody watched anywhere when our events up to `through` happened.
    pub fn unwatched(&self, through: u64) {
        let mut freed = Vec::new();
        let mut ring = self.ring.lock();
        if self.cold() {
            ring.unwatched(through);
            ring.forget_own(through, &mut freed);
        }
        drop(ring);
    }

    /// The stream has our events up to `through`; unless somebody here listens, they are forgotten.
    pub fn forget_own(&self, through: u64) {
        let mut freed = Vec::new();
        let mut ring = self.ring.lock();
        if self.cold() {
            ring.forget_own(through, &mut freed);
        }
        drop(ring);
    }

    /// The stream took our events up to `seq` at `ms` (Redis' time).
    pub fn acked(&self, seq: u64, ms: u64) {
        self.ring.lock().acked(seq, ms);
    }

    /// How it stands with the others' events.
    pub fn following(&self) -> Following {
        match self.tap.following.load(Ordering::SeqCst) {
            0 => Following::Alone,
            1 => Following::Starting,
            2 => Following::Live,
            _ => Following::Down,
        }
    }

    /// From now on the stream is read from `from_ms` (Redis' time) on; whoever waits for that is woken.
    pub fn follow(&self, from_ms: u64) {
        let mut ring = self.ring.lock();
        if ring.stream_ms.is_none() {
            ring.stream_ms = Some(from_ms);
        }
        self.change(Following::Live, ring);
    }

    /// The stream can't be read just now.
    pub fn lose(&self) {
        let ring = self.ring.lock();
        self.change(Following::Down, ring);
    }

    /// If nobody listens any more: the stream will not be read until somebody comes.
    pub fn unfollow(&self) -> bool {
        let mut freed = Vec::new();
        let mut ring = self.ring.lock();
        if !self.cold() {
            return false;
        }
        ring.forget_far(&mut freed);
        self.tap.following.store(Following::Starting as u8, Ordering::SeqCst);
        true
    }

    fn change(&self, to: Following, mut ring: parking_lot::MutexGuard<'_, super::Ring>) {
        self.tap.following.store(to as u8, Ordering::SeqCst);
        let wake: Vec<_> = ring.waiting.drain().map(|(_, waker)| waker).collect();
        drop(ring);
        wake.into_iter().for_each(std::task::Waker::wake);
    }

    /// What other instances wrote, in the stream's order, up to `read_ms` (Redis' time). `since`: see
    /// [`Self::follow`]; of writers not heard of so far, what is older than that is skipped. How many entries were news,
    /// and how many numbers are missing.
    pub fn far(&self, entries: impl Iterator<Item = Entry>, since: u64, read_ms: u64, now: Now) -> (u64, u64) {
        let mut freed = Vec::new();
        let mut ring = self.ring.lock();
        let counts = ring.append_far(entries, since, now, &mut freed);
        ring.stream_ms = Some(read_ms);
        let wake: Vec<_> = ring.waiting.drain().map(|(_, waker)| waker).collect();
        drop(ring);
        drop(freed);
        wake.into_iter().for_each(std::task::Waker::wake);
        counts
    }

    /// The next question for the stream's history.
    pub fn next_ask(&self) -> Option<HistoryAsk> {
        self.tap.asks.lock().pop_front()
    }

    pub(super) fn ask(&self, ask: HistoryAsk) {
        let mut asks = self.tap.asks.lock();
        asks.retain(|waits| !waits.pages.is_closed());
        if asks.len() < ASKS {
            asks.push_back(ask);
            drop(asks);
            self.tap.called.notify_one();
        }
    }

    /// Under the ring's lock.
    pub(super) fn warm_up(&self) {
        if self.tapped() {
            self.tap.cold.store(false, Ordering::SeqCst);
            self.tap.called.notify_one();
        }
    }

    pub(super) fn cool(&self, freed: &mut Vec<Entry>) {
        if self.cold() {
            return;
        }
        let mut ring = self.ring.lock();
        if self.readers() == 0 {
            self.tap.cold.store(true, Ordering::SeqCst);
            ring.forget_far(freed);
        }
    }

    pub(super) fn tell(&self) {
        if self.published() {
            self.tap.news.notify_one();
        }
    }
}
