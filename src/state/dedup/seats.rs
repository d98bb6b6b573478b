//! The handles: who leads, who follows, what a follower sees. Dropping one is how it leaves.
//!
//! No handle holds a lock; every waker is called after the flight's lock was released.

use super::fingerprint::Claim;
use super::flight::{After, Flight, Seen};
use super::table::Dedup;
use crate::base::Now;
use crate::base::metrics::METRICS;
use crate::state::answer::{Answer, Head};
use bytes::Bytes;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Where a request sits.
#[derive(Debug)]
pub enum Seat {
    /// The answer is there.
    Hit(Arc<Answer>),
    /// The same call is in flight.
    Follower(Follower),
    /// Make the call.
    Leader(Leader),
    /// The same `Idempotency-Key` came with another body: 422.
    Conflict,
}

/// What a follower gets next.
#[derive(Debug)]
pub enum Step {
    /// Status and headers; always first.
    Head(Arc<Head>),
    /// The next bytes.
    Data(Bytes),
    /// The leader failed before its first byte: make the call.
    LeaderGone(Leader),
    /// The leader failed after its first byte, or this follower lagged too far: end with an error.
    Broken,
}

/// Makes the call and tells the others. Dropped without [`Leader::finish`], it failed.
#[derive(Debug)]
pub struct Leader {
    seat: Place,
    over: bool,
    /// Kept from chunk to chunk, so that waking allocates nothing.
    wake: Vec<Waker>,
}

/// Tails a leader.
#[derive(Debug)]
pub struct Follower {
    seat: Place,
    slot: Option<usize>,
    own: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) table: Arc<Dedup>,
    pub(super) flight: Arc<Flight>,
    pub(super) claim: Claim,
}

impl Leader {
    pub(super) fn new(seat: Place) -> Self {
        Self { seat, over: false, wake: Vec::new() }
    }

    /// A view of this call for the client it was made for: gets the same bytes as a follower, never takes the lead, and
    /// sees [`Step::Broken`] whenever this leader fails. `None` once the answer grew too large to join.
    pub fn tail(&self) -> Option<Follower> {
        let slot = self.seat.flight.join(true)?;
        Some(Follower { seat: self.seat.clone(), slot: Some(slot), own: true })
    }

    /// Status and headers. The first byte: from here on a failure breaks the followers. Only the first call counts.
    pub fn head(&mut self, head: Head) {
        self.seat.flight.head(head, &mut self.wake);
        wake_all(&mut self.wake);
    }

    /// The next bytes of the body; nothing before [`Leader::head`] is taken.
    pub fn push(&mut self, chunk: Bytes) {
        self.seat.flight.push(chunk, &mut self.wake);
        wake_all(&mut self.wake);
    }

    /// The answer is complete. Kept when it is a 2xx and not too large; then it is returned, for others to share.
    /// Without a head it is a failure.
    pub fn finish(self, now: Now) -> Option<Arc<Answer>> {
        self.finish_for(now, Duration::MAX)
    }

    /// The same for an answer that has only so long to live, because it came from elsewhere.
    pub fn finish_for(mut self, now: Now, left: Duration) -> Option<Arc<Answer>> {
        let mut kept = None;
        if let Some((head, chunks)) = self.seat.flight.finish(&mut self.wake)
            && head.status.is_success()
        {
            self.over = true;
            kept = Some(self.seat.table.keep(&self.seat, head, &chunks, now, left));
        }
        wake_all(&mut self.wake);
        kept
    }

    /// The answer is complete for those who listen, and not to be kept: nothing in it says that it is whole.
    pub fn finish_unkept(mut self) {
        self.seat.flight.finish(&mut self.wake);
        wake_all(&mut self.wake);
    }

    /// On another instance its `Idempotency-Key` was used for something else: here it names that from now on, or nothing.
    pub fn disown(&self) {
        self.seat.table.disown(&self.seat.claim);
    }

    /// It failed; the same as dropping it.
    pub fn fail(self) {
        drop(self);
    }

    /// What is called.
    pub fn claim(&self) -> Claim {
        self.seat.claim
    }

    /// Ready when no client listens any more: the call may be cancelled (by dropping this). Nobody can join from then on.
    /// Counts [`Leader::tail`]s and followers; a leader that serves its client in another way asks only once that left.
    pub fn poll_deserted(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.seat.flight.poll_deserted(cx)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        if self.seat.flight.abandon(&mut self.wake) == After::Over {
            self.seat.table.retire(&self.seat);
        }
        wake_all(&mut self.wake);
    }
}

impl Follower {
    pub(super) fn new(seat: Place, slot: usize) -> Self {
        Self { seat, slot: Some(slot), own: false }
    }

    /// The next step; `None` at the complete answer's end, after [`Step::Broken`] and after [`Step::LeaderGone`].
    pub fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<Step>> {
        let Some(slot) = self.slot else { return Poll::Ready(None) };
        let Poll::Ready(seen) = self.seat.flight.poll(slot, cx) else { return Poll::Pending };
        Poll::Ready(seen.map(|seen| match seen {
            Seen::Head(head) => {
                if !self.own {
                    METRICS.dedup_hits.inc();
                }
                Step::Head(head)
            }
            Seen::Data(chunk) => Step::Data(chunk),
            Seen::Broken => Step::Broken,
            Seen::Lead => {
                self.slot = None;
                Step::LeaderGone(Leader::new(self.seat.clone()))
            }
        }))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let mut wake = Vec::new();
        if self.seat.flight.leave(slot, &mut wake) == After::Over {
            self.seat.table.retire(&self.seat);
        }
        wake_all(&mut wake);
    }
}

fn wake_all(wake: &mut Vec<Waker>) {
    for waker in wake.drain(..) {
        waker.wake();
    }
}
