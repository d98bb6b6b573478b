//! One call in flight: the bytes so far, who listens, and who leads next if it fails before its first byte.
//!
//! The lock is held for a few list operations and never while a waker runs. Every chunk is kept until the flight ends,
//! so that a late follower gets it all, until the answer or all flights together grow too large; from then on only
//! what present listeners still need is kept, and one that lags too far behind is cut off.

use super::sync::Mutex;
use crate::state::answer::Head;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Bounds of the whole table.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a finished answer is kept, and how long an `Idempotency-Key` remembers its body.
    pub ttl: Duration,
    /// Bytes of finished answers kept at most.
    pub kept: usize,
    /// Bytes of one answer: a larger one takes no new followers and is not kept. Also how far a listener may then lag.
    pub answer: usize,
    /// Bytes of all calls in flight: beyond, the flight that grows is treated as if it were too large.
    pub flying: usize,
}

/// How far a listener may lag once all flights together are over their bound.
const LAG_WHEN_FULL: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Flight {
    state: Mutex<State>,
    budget: Arc<Budget>,
}

/// Bytes held by all flights.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    limits: Limits,
}

/// What a listener finds.
#[derive(Debug)]
pub(super) enum Seen {
    Head(Arc<Head>),
    Data(Bytes),
    /// It leads now; it is no listener any more.
    Lead,
    Broken,
}

/// Whether a flight is over, so that the table forgets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    GoesOn,
    Over,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    head: Option<Arc<Head>>,
    chunks: VecDeque<Bytes>,
    /// Index of `chunks[0]` in the whole answer.
    first: usize,
    /// Bytes in `chunks`.
    held: usize,
    /// Nothing was pruned and nobody gave it up: it may be joined and kept.
    whole: bool,
    listeners: Vec<Option<Listener>>,
    joined: u64,
    /// The leader's, when it waits for everybody to leave.
    deserted: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Led,
    /// The leader failed before its first byte; this listener leads once it looks.
    Offered(usize),
    Done,
    Broken,
}

#[derive(Debug)]
struct Listener {
    order: u64,
    /// The leader's own client: sees the bytes, never leads.
    own: bool,
    headed: bool,
    next: usize,
    sight: Sight,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sight {
    Reads,
    /// It will see a broken answer, whatever comes.
    Cut,
    /// It saw the end.
    Over,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limits })
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Flight {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        let state = State {
            stage: Stage::Led,
            head: None,
            chunks: VecDeque::new(),
            first: 0,
            held: 0,
            whole: true,
            listeners: Vec::new(),
            joined: 0,
            deserted: None,
        };
        Self { state: Mutex::new(state), budget: Arc::clone(budget) }
    }

    /// A seat among the listeners; none when it cannot give the whole answer any more.
    pub(super) fn join(&self, own: bool) -> Option<usize> {
        let mut state = self.state.lock();
        if !state.whole || state.stage == Stage::Broken {
            return None;
        }
        let order = state.joined;
        state.joined += 1;
        let listener = Listener { order, own, headed: false, next: 0, sight: Sight::Reads, waker: None };
        if let Some(slot) = state.listeners.iter().position(Option::is_none) {
            state.listeners[slot] = Some(listener);
            Some(slot)
        } else {
            state.listeners.push(Some(listener));
            Some(state.listeners.len() - 1)
        }
    }

    /// The first byte: from here on nobody else can lead.
    pub(super) fn head(&self, head: Head, wake: &mut Vec<Waker>) {
        let mut state = self.state.lock();
        if state.stage == Stage::Led && state.head.is_none() {
            state.head = Some(Arc::new(head));
            state.wakers(wake);
        }
    }

    pub(super) fn push(&self, chunk: Bytes, wake: &mut Vec<Waker>) {
        let limits = self.budget.limits;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.stage != Stage::Led || state.head.is_none() || chunk.is_empty() {
            return;
        }
        state.held += chunk.len();
        let full = self.budget.used.fetch_add(chunk.len(), Ordering::Relaxed) + chunk.len() > limits.flying;
        state.chunks.push_back(chunk);
        state.whole &= !full && state.held <= limits.answer;
        if !state.whole {
            let freed = state.prune(if full { LAG_WHEN_FULL.min(limits.answer) } else { limits.answer });
            self.budget.used.fetch_sub(freed, Ordering::Relaxed);
        }
        state.wakers(wake);
    }

    /// The end of a complete answer. What it was, if it is whole; `None` also when there was no head: that is a failure,
    /// see [`Flight::abandon`].
    pub(super) fn finish(&self, wake: &mut Vec<Waker>) -> Option<(Arc<Head>, Vec<Bytes>)> {
        let mut state = self.state.lock();
        if state.stage != Stage::Led {
            return None;
        }
        let head = state.head.clone()?;
        state.stage = Stage::Done;
        state.wakers(wake);
        state.whole.then(|| (head, state.chunks.iter().cloned().collect()))
    }

    /// The leader is gone. Before the first byte the oldest follower leads; after it, all break.
    pub(super) fn abandon(&self, wake: &mut Vec<Waker>) -> After {
        let mut state = self.state.lock();
        match state.stage {
            Stage::Led if state.head.is_none() => {
                for own in state.listeners.iter_mut().flatten().filter(|l| l.own && l.sight == Sight::Reads) {
                    own.sight = Sight::Cut;
                    wake.extend(own.waker.take());
                }
                state.offer(wake)
            }
            Stage::Led => {
                state.stage = Stage::Broken;
                state.wakers(wake);
                After::Over
            }
            Stage::Offered(_) => After::GoesOn,
            Stage::Done | Stage::Broken => After::Over,
        }
    }

    /// What comes next for the listener in `slot`; `None` at the end.
    pub(super) fn poll(&self, slot: usize, cx: &Context<'_>) -> Poll<Option<Seen>> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(listener) = state.listeners.get_mut(slot).and_then(Option::as_mut) else {
            return Poll::Ready(None);
        };
        if listener.sight == Sight::Over {
            return Poll::Ready(None);
        }
        let mut broken = listener.sight == Sight::Cut || listener.next < state.first;
        if !broken {
            match &state.head {
                Some(head) if !listener.headed => {
                    listener.headed = true;
                    return Poll::Ready(Some(Seen::Head(Arc::clone(head))));
                }
                _ => {}
            }
            if let Some(chunk) = state.chunks.get(listener.next - state.first) {
                listener.next += 1;
                return Poll::Ready(Some(Seen::Data(chunk.clone())));
            }
            match state.stage {
                Stage::Offered(heir) if heir == slot => {
                    state.stage = Stage::Led;
                    state.listeners[slot] = None;
                    return Poll::Ready(Some(Seen::Lead));
                }
                Stage::Done => {
                    listener.sight = Sight::Over;
                    return Poll::Ready(None);
                }
                Stage::Broken => broken = true,
                Stage::Led | Stage::Offered(_) => {}
            }
        }
        if broken {
            listener.sight = Sight::Over;
            return Poll::Ready(Some(Seen::Broken));
        }
        match &mut listener.waker {
            Some(old) if old.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The listener in `slot` is gone. If the lead was offered to it, the next one gets it.
    pub(super) fn leave(&self, slot: usize, wake: &mut Vec<Waker>) -> After {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.listeners[slot] = None;
        if state.stage == Stage::Offered(slot) {
            return state.offer(wake);
        }
        if !state.whole && state.stage == Stage::Led {
            let freed = state.prune(usize::MAX);
            self.budget.used.fetch_sub(freed, Ordering::Relaxed);
        }
        if state.stage == Stage::Led && state.listeners.iter().all(Option::is_none) {
            wake.extend(state.deserted.take());
        }
        After::GoesOn
    }

    /// Ready when nobody listens; nobody can join from then on, so the leader may stop.
    pub(super) fn poll_deserted(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.listeners.iter().all(Option::is_none) {
            state.whole = false;
            return Poll::Ready(());
        }
        state.deserted = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl State {
    fn wakers(&mut self, wake: &mut Vec<Waker>) {
        wake.extend(self.listeners.iter_mut().flatten().filter_map(|listener| listener.waker.take()));
    }

    /// Offers the lead to the oldest follower, or ends.
    fn offer(&mut self, wake: &mut Vec<Waker>) -> After {
        let followers = self.listeners.iter_mut().enumerate();
        let heir = followers
            .filter_map(|(slot, listener)| listener.as_mut().filter(|l| !l.own).map(|l| (slot, l)))
            .min_by_key(|(_, listener)| listener.order);
        if let Some((slot, listener)) = heir {
            wake.extend(listener.waker.take());
            self.stage = Stage::Offered(slot);
            return After::GoesOn;
        }
        self.stage = Stage::Broken;
        self.wakers(wake);
        After::Over
    }

    /// Drops what every listener has read, and what exceeds `lag`; bytes freed.
    fn prune(&mut self, lag: usize) -> usize {
        let reading = self.listeners.iter().flatten().filter(|l| l.sight == Sight::Reads && l.next >= self.first);
        let slowest = reading.map(|l| l.next).min().unwrap_or(usize::MAX);
        let before = self.held;
        while (self.first < slowest || self.held > lag)
            && let Some(chunk) = self.chunks.pop_front()
        {
            self.held -= chunk.len();
            self.first += 1;
        }
        before - self.held
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let held = self.state.lock().held;
        self.budget.used.fetch_sub(held, Ordering::Relaxed);
    }
}
