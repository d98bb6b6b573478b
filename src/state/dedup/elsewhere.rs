//! The hatch to the finished answers of other instances: what goes out, what is asked for, who leads a call for all.
//!
//! Nothing here waits. A full queue drops what comes and counts it: an answer not shared costs another call, a question
//! not asked is answered "nothing". While the other side is away ([`Elsewhere::up`] is false) nobody even asks. What came
//! from elsewhere must never be put in again.

use super::{Claim, Fingerprint, Name};
use crate::base::metrics::METRICS;
use crate::state::answer::Answer;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Largest answer that is shared, in bytes of memory ([`Answer::bytes`]).
pub const LARGEST: usize = 256 << 10;
/// Questions that may wait.
const LOOKS: usize = 1_024;
/// Answers and ended calls that may wait; 64 MiB at worst.
const PUTS: usize = 256;

/// The way out. Cloned to whoever may use it.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere(Option<Arc<Hatch>>);

/// The receiving ends.
#[derive(Debug)]
pub struct Ends {
    /// Who asks.
    pub looks: mpsc::Receiver<Look>,
    /// What to keep, and which calls are over; in this order.
    pub puts: mpsc::Receiver<Put>,
    /// To be set while questions can be answered.
    pub up: Arc<AtomicBool>,
    /// How finished answers are kept.
    pub ttl: Duration,
    hatch: Arc<Hatch>,
}

/// A question.
#[derive(Debug)]
pub struct Look {
    /// For which answer.
    pub fingerprint: Fingerprint,
    /// Its `Idempotency-Key`: whether it was used for something else.
    pub name: Option<Name>,
    /// Whether to lead the call for the whole cluster if nobody does yet.
    pub claim: bool,
    /// Dropping it unanswered is [`Found::Nothing`].
    pub reply: oneshot::Sender<Found>,
}

/// What there is elsewhere.
#[derive(Debug)]
pub enum Found {
    /// The answer, and for how long it is kept still.
    Answer(Arc<Answer>, Duration),
    /// Nobody calls: call, and keep this until the call is over.
    Lead(Led),
    /// Another instance calls: what came of it, sooner or later. Bound the wait.
    Wait(oneshot::Receiver<Found>),
    /// On another instance the same `Idempotency-Key` came with another body: 422.
    Conflict,
    /// Nothing: call.
    Nothing,
}

/// Something to put there.
#[derive(Debug)]
pub enum Put {
    /// A finished answer.
    Keep(Fingerprint, Arc<Answer>),
    /// A call led for all is over, under this token.
    Over {
        /// Which call.
        fingerprint: Fingerprint,
        /// Whose.
        token: u64,
        /// It came to a good end: whoever waits and finds no answer calls alone, for there will be none to share.
        well: bool,
    },
}

/// A call led for the whole cluster. Dropped, it failed: the next in line leads.
#[derive(Debug)]
pub struct Led {
    hatch: Arc<Hatch>,
    fingerprint: Fingerprint,
    token: u64,
    well: bool,
    /// Says that this still lives, whatever became of the word that it does not.
    _alive: Arc<()>,
}

#[derive(Debug)]
struct Hatch {
    looks: mpsc::Sender<Look>,
    puts: mpsc::Sender<Put>,
    up: Arc<AtomicBool>,
    tokens: AtomicU64,
}

impl Elsewhere {
    /// No other instance.
    pub const fn closed() -> Self {
        Self(None)
    }

    /// A way out and its receiving ends; answers live for `ttl`.
    pub fn open(ttl: Duration) -> (Self, Ends) {
        let ((looks, asked), (puts, put)) = (mpsc::channel(LOOKS), mpsc::channel(PUTS));
        let up = Arc::new(AtomicBool::new(false));
        let hatch = Arc::new(Hatch { looks, puts, up: Arc::clone(&up), tokens: AtomicU64::new(1) });
        (Self(Some(Arc::clone(&hatch))), Ends { looks: asked, puts: put, up, ttl, hatch })
    }

    /// Whether a question would be answered. One relaxed load.
    pub fn up(&self) -> bool {
        self.0.as_ref().is_some_and(|hatch| hatch.up.load(Ordering::Relaxed))
    }

    /// Asks. `None`: there is nobody to ask. Bound the wait; an error there is [`Found::Nothing`].
    pub fn look(&self, of: &Claim, claim: bool) -> Option<oneshot::Receiver<Found>> {
        let hatch = self.0.as_ref().filter(|hatch| hatch.up.load(Ordering::Relaxed))?;
        let (reply, found) = oneshot::channel();
        let look = Look { fingerprint: of.fingerprint, name: of.name, claim, reply };
        if hatch.looks.try_send(look).is_err() {
            METRICS.dedup_shared_dropped.inc();
            return None;
        }
        Some(found)
    }

    /// Shares an answer of ours, unless it is too large.
    pub fn keep(&self, fingerprint: Fingerprint, answer: &Arc<Answer>) {
        let Some(hatch) = self.0.as_ref().filter(|hatch| hatch.up.load(Ordering::Relaxed)) else { return };
        if answer.bytes() > LARGEST {
            METRICS.dedup_shared_too_large.inc();
        } else if hatch.puts.try_send(Put::Keep(fingerprint, Arc::clone(answer))).is_err() {
            METRICS.dedup_shared_dropped.inc();
        }
    }
}

impl Ends {
    /// A lead to give away, under a token of its own; and what tells whether it is still held.
    pub fn lead(&self, fingerprint: Fingerprint, token: u64) -> (Led, Weak<()>) {
        let alive = Arc::new(());
        let held = Arc::downgrade(&alive);
        (Led { hatch: Arc::clone(&self.hatch), fingerprint, token, well: false, _alive: alive }, held)
    }

    /// The next token: unique in this process.
    pub fn token(&self) -> u64 {
        self.hatch.tokens.fetch_add(1, Ordering::Relaxed)
    }
}

impl Led {
    /// The call came to a good end; its answer, if it can be shared, was put in before.
    pub fn finish(mut self) {
        self.well = true;
    }
}

impl Drop for Led {
    fn drop(&mut self) {
        let over = Put::Over { fingerprint: self.fingerprint, token: self.token, well: self.well };
        if self.hatch.puts.try_send(over).is_err() {
            // The claim lapses by itself: whoever waits takes over then.
            METRICS.dedup_shared_dropped.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::answer::Head;
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    fn answer(bytes: usize) -> Arc<Answer> {
        let head = Arc::new(Head { status: StatusCode::OK, headers: HeaderMap::new() });
        Arc::new(Answer { head, body: Bytes::from(vec![b'x'; bytes]) })
    }

    fn of(n: u8) -> Claim {
        Claim { fingerprint: [n; 32], name: None }
    }

    #[test]
    fn nobody_asks_and_nothing_leaves_while_the_other_side_is_away() {
        assert!(Elsewhere::closed().look(&of(0), true).is_none());
        let (elsewhere, mut ends) = Elsewhere::open(Duration::from_secs(60));
        assert!(elsewhere.look(&of(1), false).is_none());
        elsewhere.keep([1; 32], &answer(10));
        assert!(ends.puts.try_recv().is_err());
        ends.up.store(true, Ordering::Relaxed);
        let _found = elsewhere.look(&of(1), false).unwrap();
        elsewhere.keep([1; 32], &answer(10));
        elsewhere.keep([1; 32], &answer(LARGEST));
        assert!(ends.looks.try_recv().is_ok());
        assert!(matches!(ends.puts.try_recv(), Ok(Put::Keep(..))));
        assert!(ends.puts.try_recv().is_err(), "too large to be shared");
    }

    #[test]
    fn queues_are_bounded_and_a_lead_that_is_dropped_has_failed() {
        let (elsewhere, mut ends) = Elsewhere::open(Duration::from_secs(60));
        ends.up.store(true, Ordering::Relaxed);
        let asked: Vec<_> = (0..LOOKS + 5).map_while(|_| elsewhere.look(&of(1), false)).collect();
        assert_eq!(asked.len(), LOOKS);
        let (failed, held) = ends.lead([2; 32], 7);
        assert!(held.upgrade().is_some());
        drop(failed);
        assert!(held.upgrade().is_none());
        ends.lead([2; 32], 8).0.finish();
        assert!(matches!(ends.puts.try_recv(), Ok(Put::Over { token: 7, well: false, .. })));
        assert!(matches!(ends.puts.try_recv(), Ok(Put::Over { token: 8, well: true, .. })));
        (0..PUTS + 5).for_each(|_| elsewhere.keep([3; 32], &answer(1)));
        assert_eq!(std::iter::from_fn(|| ends.puts.try_recv().ok()).count(), PUTS);
    }
}
