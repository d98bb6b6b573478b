//! The limits a request meets at the door: one question, one decision, everything that follows from it.
//!
//! Each limited thing has one [`Purse`] behind one lock; a decision is made and charged under it in one go, so two
//! requests never spend the same token. What it finds out beyond yes or no (headers, when to come back) is reckoned
//! from a copy, after the lock. Keys' purses are forgotten only when forgetting changes nothing; addresses' are
//! bounded as well, because strangers make them.

use crate::base::stripes::{Stripes, make_room};
use crate::base::sync::Mutex;
use crate::base::{KeyId, Now, RequestId};
use crate::state::attempts::Attempts;
use crate::state::buckets::{Bucket, Limits, Purse, Which};
use crate::state::desk::{Account, Desk};
use crate::state::lease::{Ask, Step};
use crate::state::subject::{Net, Subject};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// All limits of this instance. Shared by all cores.
#[derive(Debug)]
pub struct Limiter {
    keys: Stripes<KeyId, Arc<Mutex<Purse>>>,
    addrs: Stripes<Net, Arc<Mutex<Purse>>>,
    /// Where the cluster is asked; `None`: this instance is alone.
    desk: Option<Arc<Desk>>,
}

/// What [`Limiter::ask`] comes to.
#[derive(Debug)]
pub enum Taken {
    /// Decided here and now.
    Now(Decision),
    /// Only the cluster can tell.
    Later(Waiting),
}

/// A request that waits for the cluster's word. Dropping it is leaving.
#[derive(Debug)]
pub struct Waiting {
    desk: Arc<Desk>,
    purse: Arc<Mutex<Purse>>,
    limits: Limits,
    id: RequestId,
    estimate: u64,
    /// The word, unless nobody is there to give it.
    pub answer: oneshot::Receiver<Decision>,
}

/// The answer to one request.
#[derive(Debug)]
pub struct Decision {
    /// The reservation, or why not.
    pub outcome: Result<Reservation, Refusal>,
    /// What both families of rate-limit headers are made from.
    pub headers: LimitHeaders,
}

/// A refusal: nothing was charged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The limit that said no; of two, the one that will for longer.
    pub which: Which,
    /// When the same request would be let in if nobody else came. For `Parallel` a second, since nobody knows when a
    /// running request ends; for `Budget` zero: only an operator can help.
    pub retry_after: Duration,
}

/// What a client may know of its limits; only of those that exist.
///
/// `remaining` is what is left after this decision, and decisions on one subject are made one after the other: of two
/// answers the later decided never shows more than the earlier, save for what flowed in between (or came back when
/// a request used fewer tokens than it had reserved).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LimitHeaders {
    /// Requests.
    pub requests: Option<Quota>,
    /// Tokens.
    pub tokens: Option<Quota>,
}

/// One limit as a client sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quota {
    /// What may be used at once (the bucket's capacity: `burst`, or `tpm`); never below `remaining`.
    pub limit: u64,
    /// What is left now; 0 while in debt.
    pub remaining: u64,
    /// Until `remaining` is `limit` again.
    pub reset: Duration,
}

/// A place in the limits, given back by dropping it.
///
/// The slot comes back on drop, always. The tokens reserved stay charged unless [`settle`](Self::settle) or
/// [`record`](Self::record) put the real number in their place: who leaves early keeps the debit. Each attempt of the
/// request counts once, however often it is recorded; the reservation cannot be cloned and `settle` takes it away, so
/// nobody else can speak for this request.
#[derive(Debug)]
#[must_use = "dropping it gives the slot back"]
pub struct Reservation {
    purse: Arc<Mutex<Purse>>,
    id: RequestId,
    /// Tokens charged in advance and not yet replaced; `None`: tokens are not limited.
    reserved: Option<u64>,
    recorded: Attempts,
    via: Via,
}

/// Who set a reservation's tokens aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Via {
    /// The purse's own buckets, or Redis through its lease.
    Purse,
    /// This instance's share of the limits, while Redis was away.
    Share,
    /// Nobody: let in while Redis was away.
    Free,
}

/// Purses of anonymous addresses per stripe: 64 × 1,024 of them, about 10 MB at most.
const ADDRS_PER_STRIPE: usize = 1_024;
const STRIPES: usize = 64;

impl Limiter {
    /// No purse yet.
    pub fn new() -> Self {
        Self { keys: Stripes::new(STRIPES), addrs: Stripes::new(STRIPES), desk: None }
    }

    /// One that shares its limits through `desk`.
    pub fn shared(desk: Arc<Desk>) -> Self {
        Self { desk: Some(desk), ..Self::new() }
    }

    /// May `subject` make one more request of about `estimate` tokens (prompt and output together)? Charges one
    /// request, the estimate (at most a full bucket of it) and a slot: all of them or none.
    ///
    /// `limits` may differ from the last call's (the key was edited): balances are cut to fit and never raised.
    /// Without any limit (`limits.is_none()`) do not ask.
    pub fn take(&self, subject: Subject, limits: &Limits, id: RequestId, estimate: u64, now: Now) -> Decision {
        let purse = self.purse(subject, limits, now);
        let (outcome, requests, tokens) = {
            let mut held = purse.lock();
            held.refresh(limits, now);
            (held.take(estimate), held.requests, held.tokens)
        };
        let headers = LimitHeaders::of(limits, &requests, &tokens);
        let outcome = match outcome {
            Ok(reserved) => Ok(Reservation::new(purse, id, reserved, Via::Purse)),
            Err(which) => Err(Refusal { which, retry_after: wait(which, &requests, &tokens, estimate) }),
        };
        Decision { outcome, headers }
    }

    /// The same for an instance that may have others beside it: paid from a lease in hand, refused by what Redis said a
    /// moment ago, decided by policy while it is away, or else to be waited for.
    pub fn ask(&self, subject: Subject, limits: &Limits, id: RequestId, estimate: u64, now: Now) -> Taken {
        let Some(desk) = &self.desk else { return Taken::Now(self.take(subject, limits, id, estimate, now)) };
        let purse = self.purse(subject, limits, now);
        let (step, list, (requests, tokens)) = {
            let mut held = purse.lock();
            held.refresh(limits, now);
            let (step, low) = held.spend(estimate, now);
            if low && let Some(lease) = held.lease.as_deref_mut() {
                lease.on.listed = true;
            }
            (step, low, held.shown())
        };
        if list {
            desk.list(Account(Arc::clone(&purse)), false);
        }
        let outcome = match step {
            Step::Paid(reserved) => Ok(Reservation::new(purse, id, reserved, Via::Purse)),
            Step::Refused(which) => Err(Refusal { which, retry_after: wait(which, &requests, &tokens, estimate) }),
            Step::Ask => return Self::wait(desk, purse, limits, id, estimate, now),
        };
        Taken::Now(Decision { outcome, headers: LimitHeaders::of(limits, &requests, &tokens) })
    }

    #[cold]
    fn wait(
        desk: &Arc<Desk>,
        purse: Arc<Mutex<Purse>>,
        limits: &Limits,
        id: RequestId,
        estimate: u64,
        now: Now,
    ) -> Taken {
        let seat = if desk.is_down() { None } else { desk.seat() };
        let Some(seat) = seat else { return Taken::Now(desk.alone(&purse, limits, id, estimate, now)) };
        let (reply, answer) = oneshot::channel();
        let list = {
            let mut held = purse.lock();
            held.lease.as_deref_mut().is_some_and(|lease| lease.wait(Ask { id, tokens: estimate, reply, _seat: seat }))
        };
        if list {
            desk.list(Account(Arc::clone(&purse)), true);
        }
        Taken::Later(Waiting { desk: Arc::clone(desk), purse, limits: *limits, id, estimate, answer })
    }

    /// Forgets what needs no remembering in one stripe, the `tick`-th in turn: full buckets without a request in
    /// flight. How many went.
    pub fn sweep(&self, tick: usize, now: Now) -> usize {
        fn spare(purse: &mut Arc<Mutex<Purse>>, now: Now) -> bool {
            // Purses are only cloned under their stripe's lock: a count of one is final while we hold it.
            Arc::strong_count(purse) > 1 || !purse.lock().is_idle(now)
        }
        self.keys.sweep_one(tick, |_, purse| spare(purse, now))
            + self.addrs.sweep_one(tick, |_, purse| spare(purse, now))
    }

    /// How many (keys, addresses) are being watched.
    pub fn watched(&self) -> (usize, usize) {
        (self.keys.len(), self.addrs.len())
    }

    fn purse(&self, subject: Subject, limits: &Limits, now: Now) -> Arc<Mutex<Purse>> {
        match subject {
            Subject::Key(key) => find(&self.keys, key, usize::MAX, || self.new_purse(subject, limits, now)),
            Subject::Addr(net) => find(&self.addrs, net, ADDRS_PER_STRIPE, || self.new_purse(subject, limits, now)),
        }
    }

    fn new_purse(&self, subject: Subject, limits: &Limits, now: Now) -> Purse {
        let mut purse = Purse::new(limits, now);
        purse.lease = self.desk.as_ref().map(|desk| desk.lease(subject));
        purse
    }
}

fn find<K: Hash + Eq + Copy>(
    table: &Stripes<K, Arc<Mutex<Purse>>>,
    key: K,
    most: usize,
    make: impl FnOnce() -> Purse,
) -> Arc<Mutex<Purse>> {
    table.with(&key, |stripe| {
        if let Some(purse) = stripe.get(&key) {
            return Arc::clone(purse);
        }
        // Room is made of what has least to forget. Purses in use stay, so the bound is exceeded by the requests in
        // flight at most.
        if stripe.len() >= most {
            make_room(stripe, |_, purse| {
                (Arc::strong_count(purse) == 1).then(|| purse.lock().requests.time_to_full().as_micros() as u64)
            });
        }
        let purse = Arc::new(Mutex::new(make()));
        stripe.insert(key, Arc::clone(&purse));
        purse
    })
}

pub(crate) fn wait(which: Which, requests: &Bucket, tokens: &Bucket, estimate: u64) -> Duration {
    match which {
        Which::Requests => requests.time_to_cover(1),
        Which::Tokens => tokens.time_to_cover(estimate),
        Which::Parallel | Which::Away => Duration::from_secs(1),
        Which::Budget => Duration::ZERO,
    }
}

impl LimitHeaders {
    pub(crate) fn of(limits: &Limits, requests: &Bucket, tokens: &Bucket) -> Self {
        let quota =
            |bucket: &Bucket| Quota { limit: bucket.holds(), remaining: bucket.whole(), reset: bucket.time_to_full() };
        Self { requests: (limits.rpm > 0).then(|| quota(requests)), tokens: (limits.tpm > 0).then(|| quota(tokens)) }
    }
}

impl Waiting {
    /// No word came, in time or at all: the policy decides. Word of the last moment is word: what it set aside would be
    /// spent on nobody.
    pub fn alone(mut self, now: Now) -> Decision {
        self.answer.close();
        if let Ok(decision) = self.answer.try_recv() {
            return decision;
        }
        self.desk.alone(&self.purse, &self.limits, self.id, self.estimate, now)
    }
}

impl Reservation {
    pub(crate) fn new(purse: Arc<Mutex<Purse>>, id: RequestId, reserved: Option<u64>, via: Via) -> Self {
        Self { purse, id, reserved, recorded: Attempts::default(), via }
    }

    /// The request it was made for.
    pub const fn id(&self) -> RequestId {
        self.id
    }

    /// Tokens charged in advance and not yet replaced by real ones.
    pub fn reserved(&self) -> u64 {
        self.reserved.unwrap_or(0)
    }

    /// `attempt` (1 is the first; past the 62nd they count as one) used `tokens`. The first record replaces the
    /// estimate, others add to it; the same attempt again changes nothing and returns `false`. The slot stays taken.
    pub fn record(&mut self, attempt: u32, tokens: u64, now: Now) -> bool {
        if !self.recorded.first(attempt) {
            return false;
        }
        if let Some(reserved) = self.reserved.as_mut() {
            let reserved = std::mem::take(reserved);
            let news = {
                let mut purse = self.purse.lock();
                match self.via {
                    Via::Purse => purse.settle(reserved, tokens, now),
                    Via::Share => {
                        purse.settle_share(reserved, tokens);
                        None
                    }
                    Via::Free => None,
                }
            };
            if let Some(desk) = news {
                desk.list_later(Account(Arc::clone(&self.purse)));
            }
        }
        true
    }

    /// [`record`](Self::record), then gives the slot back. `0` tokens for a request that never reached a provider.
    ///
    /// ```compile_fail
    /// # fn twice(r: merido::state::limiter::Reservation, now: merido::base::Now) {
    /// r.settle(1, 10, now);
    /// r.settle(1, 10, now); // there is no second time
    /// # }
    /// ```
    pub fn settle(mut self, attempt: u32, tokens: u64, now: Now) {
        self.record(attempt, tokens, now);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let news = self.purse.lock().leave();
        if let Some((desk, urgent)) = news {
            desk.list(Account(Arc::clone(&self.purse)), urgent);
        }
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
