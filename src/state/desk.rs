//! Where purses and the cluster meet: who is on the list for the next round, what a call carries, what answers mean.
//!
//! The hot path only puts a purse on a list, once; the one Redis task takes the list, makes a call of each purse and
//! hands back the reply. While Redis is known to be away nobody is listed and nobody waits: the policy decides. Lock
//! order: a purse, then a list; never the other way.

use super::buckets::{Limits, Purse, Which};
use super::lease::{Lease, Turn};
use super::limiter::{Decision, LimitHeaders, Refusal, Reservation, Via, wait};
use super::reach::Reach;
use super::subject::Subject;
use crate::base::bell::Bell;
use crate::base::metrics::METRICS;
use crate::base::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use crate::base::{Now, RequestId};
use std::sync::Arc;

/// What limits do while Redis is away. `max_parallel` never opens: then it is shared out by instances.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// Everybody gets in, and is counted.
    #[default]
    Open,
    /// This instance's share: limit ÷ instances last known.
    Local,
    /// Nobody gets in who has a limit.
    Closed,
}

/// The two ends' common ground. One per limiter.
#[derive(Debug)]
pub struct Desk {
    bell: Arc<Bell>,
    live: Arc<AtomicU32>,
    policy: Policy,
    /// This process: purses' names in Redis are made from it.
    epoch: u64,
    named: AtomicU64,
    /// Whether there is anybody to ask.
    reach: Arc<Reach>,
    /// For the next round; for one within a while.
    listed: Mutex<Vec<Account>>,
    later: Mutex<Vec<Account>>,
    waiting: Arc<AtomicU32>,
    counts: Counts,
}

/// A place among those that wait, given back on drop.
#[derive(Debug)]
pub(crate) struct Seat(Arc<AtomicU32>);

/// What came of admissions that were not paid from a lease.
#[derive(Debug, Default)]
struct Counts {
    waited: AtomicU64,
    fail_open: AtomicU64,
}

/// One purse, as the cluster sees it.
#[derive(Clone, Debug)]
pub struct Account(pub(crate) Arc<Mutex<Purse>>);

/// What a call says and asks. Tokens and requests are whole ones; what is in Redis counts in parts of 1/60,000, which flow
/// in at `n` a millisecond with a limit of `n` a minute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitCall {
    /// Of whom.
    pub subject: Subject,
    /// The purse's name: below 2⁵².
    pub id: u64,
    /// Greater than any before of this purse.
    pub seq: u64,
    /// The last of them that was answered; 0: none.
    pub answered: u64,
    /// As the caller knows them now.
    pub limits: Limits,
    /// Of the lease in hand when sent (requests, tokens), what is given back included.
    pub held: (u64, u64),
    /// What of it goes back.
    pub back: (u64, u64),
    /// What is wanted on lease beyond the rest.
    pub want: (u64, u64),
    /// Fewer tokens on lease than this are worth nothing.
    pub least: u64,
    /// Tokens used beyond what was set aside, since ever; and what of that Redis is known to have.
    pub used: i64,
    /// See `used`.
    pub acked: i64,
    /// What the buckets should hold by what was heard last (parts as in Redis): for a Redis that lost them.
    /// `i64::MAX`: a full one.
    pub seed: (i64, i64),
    /// Slots kept, and wanted beyond those.
    pub keep: u32,
    /// See `keep`.
    pub spare: u32,
    /// The tokens of each request that waits.
    pub asks: Vec<u64>,
}

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LimitReply {
    /// What the buckets held before the asks, in parts.
    pub start: (i64, i64),
    /// A digit per ask: 0 granted; else the sum of 1 requests, 2 tokens, or 4 slots.
    pub verdicts: Vec<u8>,
    /// What is left booked of the lease in hand.
    pub kept: (u64, u64),
    /// What was added to it.
    pub leased: (u64, u64),
    /// Slots this purse now has.
    pub slots: u32,
}

/// What a purse needs next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Next {
    /// Its lease is to be looked at before this.
    pub lapses: Option<Now>,
    /// Its slots are to be renewed; said once until they are gone.
    pub beats: bool,
    /// Something is unsaid: a call within a while.
    pub unsaid: bool,
}

/// Requests that wait at most, all purses together.
const MOST: u32 = 65_536;

impl Desk {
    /// `bell` wakes the Redis task; `reach` says whether it has anybody to talk to; `live` is how many instances there are.
    pub fn new(bell: Arc<Bell>, reach: Arc<Reach>, live: Arc<AtomicU32>, policy: Policy, epoch: u64) -> Self {
        Self {
            bell,
            live,
            policy,
            epoch,
            named: AtomicU64::new(0),
            reach,
            listed: Mutex::new(Vec::new()),
            later: Mutex::new(Vec::new()),
            waiting: Arc::default(),
            counts: Counts::default(),
        }
    }

    /// Instances now, this one included.
    pub fn instances(&self) -> u32 {
        self.live.load(Ordering::Relaxed).max(1)
    }

    /// Admissions that waited for Redis, and those let in because it was away.
    pub fn counts(&self) -> (u64, u64) {
        (self.counts.waited.load(Ordering::Relaxed), self.counts.fail_open.load(Ordering::Relaxed))
    }

    /// Who is listed for the next round, and who for one within a while.
    pub fn take(&self) -> (Vec<Account>, Vec<Account>) {
        let listed = std::mem::take(&mut *self.listed.lock());
        (listed, std::mem::take(&mut *self.later.lock()))
    }

    /// Makes the part of a new purse that speaks with Redis.
    pub(crate) fn lease(self: &Arc<Self>, subject: Subject) -> Box<Lease> {
        let id = name(self.epoch, self.named.fetch_add(1, Ordering::Relaxed));
        Box::new(Lease::new(Arc::clone(self), subject, id))
    }

    pub(crate) fn is_down(&self) -> bool {
        !self.reach.is_up()
    }

    pub(crate) fn list(&self, account: Account, urgent: bool) {
        self.listed.lock().push(account);
        if urgent {
            self.bell.ring();
        } else {
            self.bell.soon();
        }
    }

    pub(crate) fn list_later(&self, account: Account) {
        self.later.lock().push(account);
        self.bell.soon();
    }

    /// A place for one more that waits, if there is room.
    pub(crate) fn seat(&self) -> Option<Seat> {
        let seat = Seat::of(&self.waiting, MOST)?;
        self.counts.waited.fetch_add(1, Ordering::Relaxed);
        METRICS.limits_waited.inc();
        Some(seat)
    }

    /// Decides without the cluster.
    pub(crate) fn alone(
        &self,
        account: &Arc<Mutex<Purse>>,
        limits: &Limits,
        id: RequestId,
        estimate: u64,
        now: Now,
    ) -> Decision {
        let instances = self.instances();
        let (verdict, requests, tokens) = {
            let mut purse = account.lock();
            purse.refresh(limits, now);
            let slots = if limits.max_parallel == 0 { u32::MAX } else { (limits.max_parallel / instances).max(1) };
            let limited = limits.rpm > 0 || limits.tpm > 0;
            let verdict = if purse.running >= slots {
                Err(Which::Parallel)
            } else if limited && self.policy == Policy::Closed {
                Err(Which::Away)
            } else if limited && self.policy == Policy::Local {
                purse.take_share(estimate, instances, now).map(|reserved| (reserved, Via::Share))
            } else {
                purse.running += 1;
                Ok((None, Via::Free))
            };
            let (requests, tokens) = if self.policy == Policy::Local { purse.share() } else { purse.shown() };
            (verdict, requests, tokens)
        };
        let outcome = match verdict {
            Ok((reserved, via)) => {
                if via == Via::Free && (limits.rpm > 0 || limits.tpm > 0) {
                    self.counts.fail_open.fetch_add(1, Ordering::Relaxed);
                    METRICS.limits_fail_open.inc();
                }
                Ok(Reservation::new(Arc::clone(account), id, reserved, via))
            }
            Err(which) => {
                let wait = wait(which, &requests, &tokens, estimate);
                let by = if self.policy == Policy::Local { instances } else { 1 };
                Err(Refusal { which, retry_after: wait * by })
            }
        };
        Decision { outcome, headers: LimitHeaders::of(limits, &requests, &tokens) }
    }
}

/// The `n`-th name of a process, below 2⁵². A name per purse, not per process: one that was forgotten and made anew must
/// not be taken for the old one.
pub(crate) const fn name(epoch: u64, n: u64) -> u64 {
    let mut id = epoch ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    id = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    id = (id ^ (id >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (id ^ (id >> 31)) >> 12
}

impl Seat {
    /// One of `most` that `taken` counts.
    pub(crate) fn of(taken: &Arc<AtomicU32>, most: u32) -> Option<Self> {
        if taken.fetch_add(1, Ordering::Relaxed) >= most {
            taken.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(Arc::clone(taken)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Account {
    /// The call that is due, if there is anything to say.
    pub fn call(&self, turn: Turn, now: Now) -> Option<LimitCall> {
        self.0.lock().call(turn, now)
    }

    /// What came of its call; `None`: nobody knows, or nothing. Answers whoever waited.
    pub fn answered(&self, desk: &Desk, reply: Option<&LimitReply>, now: Now) -> Next {
        let (done, limits, next, waits) = {
            let mut purse = self.0.lock();
            let done = purse.answered(reply, now);
            let (next, waits) = purse.next();
            (done, purse.limits, next, waits)
        };
        // Outside the lock: a reservation whose request has left gives its slot back here and now.
        for (ask, verdict, requests, tokens) in done {
            let headers = LimitHeaders::of(&limits, &requests, &tokens);
            let outcome = match verdict {
                Ok(reserved) => Ok(Reservation::new(Arc::clone(&self.0), ask.id, reserved, Via::Purse)),
                Err(which) => Err(Refusal { which, retry_after: wait(which, &requests, &tokens, ask.tokens) }),
            };
            if let Err(Decision { outcome: Ok(reservation), .. }) = ask.reply.send(Decision { outcome, headers }) {
                // It had decided without us: what it really uses is no business of this reservation.
                reservation.settle(1, 0, now);
            }
        }
        if waits {
            desk.list(self.clone(), true);
        }
        next
    }

    /// Requests it may admit without asking, and its slots.
    pub fn in_hand(&self, now: Now) -> (u64, u32) {
        self.0.lock().lease.as_ref().map_or((0, 0), |lease| lease.holds(now))
    }

    /// Tells one from another.
    pub fn address(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// Whether somebody waits for Redis' word.
    pub fn waits(&self) -> bool {
        self.0.lock().lease.as_ref().is_some_and(|lease| lease.waits())
    }

    /// Nobody will call for what it settled: the next settlement says so again.
    pub fn unlist(&self) {
        if let Some(lease) = self.0.lock().lease.as_deref_mut() {
            lease.on.later = false;
        }
    }

    /// Redis is away: nobody waits for it.
    pub fn give_up(&self) -> Next {
        let mut purse = self.0.lock();
        purse.give_up();
        purse.next().0
    }
}
