//! Who is in flight, which answers are kept, and what each `Idempotency-Key` was used for.
//!
//! One lock at a time but for a flight's inside its stripe. A kept answer is put in the table first and counted after,
//! so that whoever must make room for it is always there to be removed.

use super::fingerprint::{Claim, Fingerprint, Name};
use super::flight::{Budget, Flight, Limits};
use super::seats::{Follower, Leader, Place, Seat};
use super::sync::{Mutex, Stripes};
use crate::base::Now;
use crate::base::metrics::METRICS;
use crate::state::answer::{Answer, Head};
use crate::state::shelf::Shelf;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

const STRIPES: usize = 64;

/// `Idempotency-Key`s remembered in one stripe at most (a quarter of a million in all, 30 MB); beyond, a new one is
/// served but contradictions to it go unnoticed.
const NAMES_IN_A_STRIPE: usize = 4096;

/// Expired answers removed in one sweep at most.
const SWEEP: usize = 256;

/// The table. Shared by all cores.
#[derive(Debug)]
pub struct Dedup {
    calls: Stripes<Fingerprint, Entry>,
    names: Stripes<[u8; 32], Used>,
    shelf: Mutex<Shelf<Fingerprint>>,
    budget: Arc<Budget>,
    serial: AtomicU64,
    swept: AtomicUsize,
}

#[derive(Debug)]
enum Entry {
    Flying(Arc<Flight>),
    Kept { answer: Arc<Answer>, until: Now, serial: u64 },
}

/// What an `Idempotency-Key` was used for.
#[derive(Debug)]
struct Used {
    content: [u8; 32],
    until: Now,
    /// Calls in flight under it: it is not forgotten before they end.
    flying: u32,
}

enum Found {
    Hit(Arc<Answer>),
    Flying(Arc<Flight>, usize),
    Nothing(Arc<Flight>),
}

impl Dedup {
    /// An empty table.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            calls: Stripes::new(STRIPES),
            names: Stripes::new(STRIPES),
            shelf: Mutex::new(Shelf::new(limits.kept)),
            budget: Budget::new(limits),
            serial: AtomicU64::new(0),
            swept: AtomicUsize::new(0),
        })
    }

    /// Seats a request.
    pub fn seat(self: &Arc<Self>, claim: &Claim, now: Now) -> Seat {
        if claim.name.is_some_and(|name| !self.admit(&name, now)) {
            return Seat::Conflict;
        }
        let found = self.calls.with(&claim.fingerprint, |calls| {
            match calls.get(&claim.fingerprint) {
                Some(Entry::Kept { answer, until, .. }) if *until > now => return Found::Hit(Arc::clone(answer)),
                Some(Entry::Flying(flight)) => {
                    if let Some(slot) = flight.join(false) {
                        return Found::Flying(Arc::clone(flight), slot);
                    }
                }
                _ => {}
            }
            let flight = Arc::new(Flight::new(&self.budget));
            calls.insert(claim.fingerprint, Entry::Flying(Arc::clone(&flight)));
            Found::Nothing(flight)
        });
        let place = |flight| Place { table: Arc::clone(self), flight, claim: *claim };
        match found {
            Found::Hit(answer) => {
                METRICS.dedup_hits.inc();
                Seat::Hit(answer)
            }
            Found::Flying(flight, slot) => Seat::Follower(Follower::new(place(flight), slot)),
            Found::Nothing(flight) => {
                self.hold(claim);
                Seat::Leader(Leader::new(place(flight)))
            }
        }
    }

    /// Forgets what has expired: a batch of answers and one stripe of names. Call it every tick.
    pub fn sweep(&self, now: Now) {
        let expired = self.shelf.lock().expired(now, SWEEP);
        self.discard(&expired);
        let stripe = self.swept.fetch_add(1, Ordering::Relaxed);
        self.names.with_stripe(stripe, |names| {
            names.retain(|_, used| used.flying > 0 || used.until > now);
            if names.capacity() > 64 && names.len() < names.capacity() / 8 {
                names.shrink_to_fit();
            }
        });
    }

    /// Bytes of finished answers kept.
    pub fn kept_bytes(&self) -> usize {
        self.shelf.lock().bytes()
    }

    /// Bytes held by calls in flight.
    pub fn flying_bytes(&self) -> usize {
        self.budget.used()
    }

    /// Calls in flight and answers kept; counted stripe by stripe.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Nothing in flight, nothing kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The call in `place` came to its end with this answer: 2xx, whole; it lives for `left` at most.
    pub(super) fn keep(
        &self,
        place: &Place,
        head: Arc<Head>,
        chunks: &[Bytes],
        now: Now,
        left: Duration,
    ) -> Arc<Answer> {
        let limits = self.budget.limits();
        let mut body = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
        for chunk in chunks {
            body.extend_from_slice(chunk);
        }
        let answer = Arc::new(Answer { head, body: body.freeze() });
        let (bytes, until, kept_answer) = (answer.bytes(), now + limits.ttl.min(left), Arc::clone(&answer));
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let fingerprint = place.claim.fingerprint;
        let kept = self.calls.with(&fingerprint, |calls| {
            let ours = matches!(calls.get(&fingerprint), Some(Entry::Flying(one)) if Arc::ptr_eq(one, &place.flight));
            if ours {
                calls.insert(fingerprint, Entry::Kept { answer, until, serial });
            }
            ours
        });
        self.release(&place.claim, Some(until));
        if kept {
            let victims = self.shelf.lock().put(fingerprint, serial, bytes, until);
            self.discard(&victims);
        }
        kept_answer
    }

    /// The call in `place` ended with nothing to keep.
    pub(super) fn retire(&self, place: &Place) {
        let fingerprint = place.claim.fingerprint;
        self.calls.with(&fingerprint, |calls| {
            if matches!(calls.get(&fingerprint), Some(Entry::Flying(one)) if Arc::ptr_eq(one, &place.flight)) {
                calls.remove(&fingerprint);
            }
        });
        self.release(&place.claim, None);
    }

    /// The name of `claim` was used elsewhere for something else: what came here under it counts for nothing.
    pub(super) fn disown(&self, claim: &Claim) {
        let Some(name) = &claim.name else { return };
        self.names.with(&name.name, |names| {
            if names.get(&name.name).is_some_and(|used| used.content == name.content) {
                names.remove(&name.name);
            }
        });
    }

    fn discard(&self, gone: &[(Fingerprint, u64)]) {
        for (fingerprint, old) in gone {
            // The answer itself is freed after the stripe's lock.
            let _freed = self.calls.with(fingerprint, |calls| {
                let same = matches!(calls.get(fingerprint), Some(Entry::Kept { serial, .. }) if serial == old);
                same.then(|| calls.remove(fingerprint))
            });
        }
    }

    /// Whether the name is new, forgotten, or was used for the same content.
    fn admit(&self, name: &Name, now: Now) -> bool {
        let until = now + self.budget.limits().ttl;
        self.names.with(&name.name, |names| {
            if let Some(used) = names.get_mut(&name.name) {
                if used.content != name.content {
                    if used.flying > 0 || used.until > now {
                        return false;
                    }
                    used.content = name.content;
                }
                used.until = used.until.max(until);
            } else if names.len() < NAMES_IN_A_STRIPE {
                names.insert(name.name, Used { content: name.content, until, flying: 0 });
            }
            true
        })
    }

    fn hold(&self, claim: &Claim) {
        self.used(claim, |used| used.flying += 1);
    }

    fn release(&self, claim: &Claim, until: Option<Now>) {
        self.used(claim, |used| {
            used.flying = used.flying.saturating_sub(1);
            used.until = used.until.max(until.unwrap_or_default());
        });
    }

    fn used(&self, claim: &Claim, work: impl FnOnce(&mut Used)) {
        let Some(name) = &claim.name else { return };
        self.names.with(&name.name, |names| {
            // Another content means that ours was never remembered (the stripe was full).
            if let Some(used) = names.get_mut(&name.name).filter(|used| used.content == name.content) {
                work(used);
            }
        });
    }

    /// Names remembered, answers counted: for tests of what leaks.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.names.len(), self.shelf.lock().len())
    }
}
