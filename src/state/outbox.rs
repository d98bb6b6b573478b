//! The hatches in the wall: all that leaves this instance's memory for other instances goes out here, or nothing does.
//!
//! Three promises. *tell*: may repeat, so what is told for one key merges to its latest state. *spend*: a sum, carried
//! over at most once. *ask*: one answer, or the asker's own deadline. Closed (one instance alone) each costs a branch.
//! Nothing here waits: a full hatch drops what comes and counts it, since a rest is retold by the next snapshot and an
//! ask falls back to the local decision. What came *from* another instance must never be put in.

use crate::base::bell::Bell;
use crate::base::sync::{AtomicU64, Mutex, Ordering};
use crate::state::limiter::Refusal;
use crate::state::subject::Subject;
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Something told: idempotent and order-free.
pub trait Tell: Debug + Send + 'static {
    /// What it is about: of two tells about one thing only their merger goes out.
    type Key: Hash + Eq + Debug + Send;
    /// The thing.
    fn key(&self) -> Self::Key;
    /// Becomes both.
    fn merge(&mut self, other: Self);
}

/// Real usage of one subject, to be added up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spend {
    /// Tokens beyond (below zero: short of) what was reserved.
    pub tokens: i64,
    /// Nanodollars.
    pub nanos: i64,
}

/// A question only the cluster can answer. Dropping it unanswered tells the asker to decide alone.
#[derive(Debug)]
pub struct Ask {
    /// Whose limit.
    pub subject: Subject,
    /// Tokens the request may use.
    pub tokens: u64,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<(), Refusal>>,
}

/// The way out. Cloned to whoever may use it.
#[derive(Debug)]
pub struct Outbox<T: Tell>(Option<Arc<Hatch<T>>>);

/// What gathered since the last look.
#[derive(Debug)]
pub struct Batch<T> {
    /// One per key.
    pub tells: Vec<T>,
    /// One sum per subject.
    pub spends: Vec<(Subject, Spend)>,
}

/// The receiving end of tells and spends.
#[derive(Debug)]
pub struct Tells<T: Tell>(Arc<Hatch<T>>);

/// The receiving end of spends alone, for whoever carries sums and not news.
#[derive(Debug)]
pub struct Spends<T: Tell>(Arc<Hatch<T>>);

/// The receiving end of asks.
#[derive(Debug)]
pub struct Asks(mpsc::Receiver<Ask>);

#[derive(Debug)]
struct Hatch<T: Tell> {
    waiting: Mutex<Waiting<T>>,
    bell: Arc<Bell>,
    asks: mpsc::Sender<Ask>,
    most: usize,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Waiting<T: Tell> {
    tells: HashMap<T::Key, T, ahash::RandomState>,
    spends: HashMap<Subject, Spend, ahash::RandomState>,
}

impl<T: Tell> Outbox<T> {
    /// No way out.
    pub const fn closed() -> Self {
        Self(None)
    }

    /// A way out with room for `most` keys told, subjects spent for, and asks each; and its two receiving ends. `bell` wakes
    /// whoever holds them: soon for spends, at once for asks and for tells: those are rare, and every instance that does not
    /// know of a rest yet runs into what it is about.
    pub fn open(most: usize, bell: Arc<Bell>) -> (Self, Tells<T>, Asks) {
        let most = most.max(1);
        let (asks, answers) = mpsc::channel(most);
        let waiting = Mutex::new(Waiting { tells: HashMap::default(), spends: HashMap::default() });
        let hatch = Arc::new(Hatch { waiting, bell, asks, most, dropped: AtomicU64::new(0) });
        (Self(Some(Arc::clone(&hatch))), Tells(hatch), Asks(answers))
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

    /// Adds to what `subject` has used.
    pub fn spend(&self, subject: Subject, spend: Spend) {
        let Some(hatch) = &self.0 else { return };
        let mut waiting = hatch.waiting.lock();
        if waiting.spends.len() >= hatch.most && !waiting.spends.contains_key(&subject) {
            hatch.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let sum = waiting.spends.entry(subject).or_default();
        sum.tokens = sum.tokens.saturating_add(spend.tokens);
        sum.nanos = sum.nanos.saturating_add(spend.nanos);
        drop(waiting);
        hatch.bell.soon();
    }

    /// Asks for one more request of `tokens` tokens. `None`: nobody to ask, or too many are asking: decide alone.
    /// Wait for the answer under a deadline; an error there means the same.
    pub fn ask(&self, subject: Subject, tokens: u64) -> Option<oneshot::Receiver<Result<(), Refusal>>> {
        let hatch = self.0.as_ref()?;
        let (reply, answer) = oneshot::channel();
        if hatch.asks.try_send(Ask { subject, tokens, reply }).is_err() {
            hatch.dropped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        hatch.bell.ring();
        Some(answer)
    }

    /// How many tells, spends and asks wait to be taken.
    pub fn waiting(&self) -> usize {
        let Some(hatch) = &self.0 else { return 0 };
        let asks = hatch.asks.max_capacity() - hatch.asks.capacity();
        let waiting = hatch.waiting.lock();
        waiting.tells.len() + waiting.spends.len() + asks
    }

    /// How many tells, spends and asks found no room.
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
        Batch { tells: waiting.tells.drain().map(|(_, tell)| tell).collect(), spends: waiting.spends.drain().collect() }
    }
}

impl<T: Tell> Tells<T> {
    /// What was told, without the spends: for when those have their own end.
    pub fn told(&mut self) -> Vec<T> {
        self.0.waiting.lock().tells.drain().map(|(_, tell)| tell).collect()
    }

    /// The end of the spends.
    pub fn spends(&self) -> Spends<T> {
        Spends(Arc::clone(&self.0))
    }
}

impl<T: Tell> Spends<T> {
    /// The sums that have gathered.
    pub fn take(&mut self) -> Vec<(Subject, Spend)> {
        self.0.waiting.lock().spends.drain().collect()
    }
}

impl Asks {
    /// The next question that is there.
    pub fn take(&mut self) -> Option<Ask> {
        self.0.try_recv().ok()
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
