//! The hatches in the wall: all that leaves this instance's memory for other instances goes out here, or nothing does.
//!
//! What is told may repeat, so what is told for one key merges to its latest state. Closed (one instance alone) a tell costs
//! a branch. Nothing here waits: a full hatch drops what comes and counts it, since a rest is retold by the next snapshot.
//! What came *from* another instance must never be put in. Limits, whose promises differ (spent once, asked under a
//! deadline), have a hatch of their own: `desk`.

use crate::base::bell::Bell;
use crate::base::sync::{AtomicU64, Mutex, Ordering};
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

/// Something told: idempotent and order-free.
pub trait Tell: Debug + Send + 'static {
    /// What it is about: of two tells about one thing only their merger goes out.
    type Key: Hash + Eq + Debug + Send;
    /// The thing.
    fn key(&self) -> Self::Key;
    /// Becomes both.
    fn merge(&mut self, other: Self);
}

/// The way out. Cloned to whoever may use it.
#[derive(Debug)]
pub struct Outbox<T: Tell>(Option<Arc<Hatch<T>>>);

/// What gathered since the last look.
#[derive(Debug)]
pub struct Batch<T> {
    /// One per key.
    pub tells: Vec<T>,
}

/// The receiving end.
#[derive(Debug)]
pub struct Tells<T: Tell>(Arc<Hatch<T>>);

#[derive(Debug)]
struct Hatch<T: Tell> {
    waiting: Mutex<Waiting<T>>,
    bell: Arc<Bell>,
    most: usize,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Waiting<T: Tell> {
    tells: HashMap<T::Key, T, ahash::RandomState>,
}

impl<T: Tell> Outbox<T> {
    /// No way out.
    pub const fn closed() -> Self {
        Self(None)
    }

    /// A way out with room for `most` keys told, and its receiving end. `bell` soon wakes whoever holds that.
    pub fn open(most: usize, bell: Arc<Bell>) -> (Self, Tells<T>) {
        let waiting = Mutex::new(Waiting { tells: HashMap::default() });
        let hatch = Arc::new(Hatch { waiting, bell, most: most.max(1), dropped: AtomicU64::new(0) });
        (Self(Some(Arc::clone(&hatch))), Tells(hatch))
    }

    /// Whether anything leaves at all.
    pub const fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Tells the others.
    pub fn tell(&self, tell: T) {
        let Some(hatch) = &self.0 else { return };
        let mut waiting = hatch.waiting.lock();
        let key = tell.key();
        if let Some(there) = waiting.tells.get_mut(&key) {
            there.merge(tell);
            return;
        }
        if waiting.tells.len() >= hatch.most {
            hatch.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.tells.insert(key, tell);
        drop(waiting);
        hatch.bell.ring();
    }

    /// How many wait to be taken.
    pub fn waiting(&self) -> usize {
        self.0.as_ref().map_or(0, |hatch| hatch.waiting.lock().tells.len())
    }

    /// How many tells found no room.
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |hatch| hatch.dropped.load(Ordering::Relaxed))
    }
}

impl<T: Tell> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Tell> Tells<T> {
    /// All that has gathered, perhaps nothing.
    pub fn take(&mut self) -> Batch<T> {
        let mut waiting = self.0.waiting.lock();
        Batch { tells: waiting.tells.drain().map(|(_, tell)| tell).collect() }
    }

    /// The same without its wrapping.
    pub fn told(&mut self) -> Vec<T> {
        self.take().tells
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
