//! One purse's account with the cluster: what it holds on lease, what it asks for, what Redis last said.
//!
//! Pure and under its purse's lock. A lease is credit that Redis has set aside for this instance: spending it costs no
//! trip. One call is in flight per purse; it carries all of the purse that Redis must know as absolute or cumulative
//! numbers under a sequence, so that one lost on the way costs nothing but time. A lease lapses here *before* it does
//! there: what is left of it then is lost, never spent twice.

mod calls;
mod share;

use share::Share;

use super::buckets::{Bucket, Limits, Purse, Which};
use super::demand::{Demand, HORIZON_NANOS};
use super::desk::{Desk, Next, Seat};
use super::limiter::Decision;
use super::subject::Subject;
use crate::base::{Now, RequestId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A lease's life in Redis, from when it arrives there.
pub const LEASE_TTL: Duration = Duration::from_millis(250);
/// Its life here, from when the call for it was *sent*: 20 ms less.
const LEASE_HERE: Duration = Duration::from_millis(230);
/// When a lease nobody renewed is looked at: spent on, it is prolonged, else given back.
pub const LEASE_LOOK: Duration = Duration::from_millis(150);
/// Slots live 5 s in Redis, half a second less here; they are renewed every second.
const SLOTS_HERE: Duration = Duration::from_millis(4_500);
/// Redis remembers a purse without slots for 60 s after its last lease; less, by what clocks may differ in that time.
const REMEMBERED: Duration = Duration::from_secs(58);
/// How long Redis' no is taken for an answer. Requests flow in as foretold; tokens may come back sooner than that, when
/// somebody used fewer than were set aside.
const NO_REQUESTS: Duration = Duration::from_secs(5);
const NO_TOKENS: Duration = Duration::from_secs(1);
/// Horizons in a minute.
const PER_MINUTE: u32 = (60_000_000_000 / HORIZON_NANOS) as u32;
/// A key that was refused is not asked about again before as much has flowed in as does in this time: over its limit a
/// busy key costs a call per 5 ms and instance, not one per request. No credit is lost by it, as long as the bucket has room.
const AGAIN: Duration = Duration::from_millis(5);
/// Asks that one call carries at most.
const ASKS: usize = 256;

/// One request that waits.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) id: RequestId,
    pub(crate) tokens: u64,
    pub(crate) reply: oneshot::Sender<Decision>,
    /// Its place in the queue, given back with it.
    pub(crate) _seat: Seat,
}

/// A call under way.
#[derive(Debug)]
struct Flying {
    sent: Now,
    used: i64,
    asks: Vec<Ask>,
    /// Spent of the old lease meanwhile.
    spent: (u64, u64),
}

/// One purse's account.
#[derive(Debug)]
pub(crate) struct Lease {
    desk: Arc<Desk>,
    subject: Subject,
    /// This purse's own name among all that spend from the same thing in Redis, now or before.
    id: u64,
    seq: u64,
    /// The last one that was answered: what an answer that was lost had granted is given back by the next call.
    answered: u64,
    // In hand: until `until`, slots until `slots_until`.
    requests: u64,
    tokens: u64,
    until: Now,
    slots: u32,
    slots_until: Now,
    /// Slots to have beyond those in use, as of the last call.
    spare: u32,
    /// Less than this in hand, and it is time for more.
    marks: (u64, u64),
    demand: Demand,
    flying: Option<Flying>,
    asks: VecDeque<Ask>,
    /// Tokens used beyond what was set aside, since ever; what Redis is known to have of it.
    used: i64,
    acked: i64,
    /// Since when calls are of unknown fate, and what the last of them said of that; what is taken to have arrived.
    doubt: Option<(Now, i64)>,
    taken: Option<i64>,
    /// When Redis last spoke; from then on the purse's buckets are what it said, and refill.
    heard: Option<Now>,
    /// It refused somebody then, for want of anything but slots.
    refused: bool,
    /// What headers say: Redis' balance and what is in hand, less what is spent here; not refilled, so that of two answers
    /// the later never shows more. A lower bound.
    shown: (i64, i64),
    pub(crate) on: Queues,
    /// Policy `local`: this instance's share of the limits, while nobody can be asked.
    share: Option<Box<Share>>,
}

/// Which queues one is in; each has it once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Queues {
    /// For the next round.
    pub(crate) listed: bool,
    /// For one within a while.
    pub(crate) later: bool,
    /// To renew slots or claims.
    pub(crate) beating: bool,
}

/// What the hot path makes of one request.
#[derive(Debug)]
pub(crate) enum Step {
    /// Paid from the lease; tokens set aside.
    Paid(Option<u64>),
    /// Redis said no lately and nothing has flowed in since.
    Refused(Which),
    /// Redis must be asked.
    Ask,
}

/// Why a purse's turn has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// It was listed.
    Listed,
    /// What it had to say has gathered for a while.
    Later,
    /// Its lease of this end is about to lapse.
    Lapse(Now),
    /// Its slots must be renewed.
    Beat,
    /// Shutdown: everything goes back.
    Close,
}

impl Lease {
    pub(crate) fn new(desk: Arc<Desk>, subject: Subject, id: u64) -> Self {
        Self {
            desk,
            subject,
            id,
            seq: 0,
            answered: 0,
            requests: 0,
            tokens: 0,
            until: Now::default(),
            slots: 0,
            slots_until: Now::default(),
            spare: 0,
            marks: (0, 0),
            demand: Demand::default(),
            flying: None,
            asks: VecDeque::new(),
            used: 0,
            acked: 0,
            doubt: None,
            taken: None,
            heard: None,
            refused: false,
            shown: (0, 0),
            on: Queues::default(),
            share: None,
        }
    }

    /// Forgetting it loses nothing.
    pub(crate) fn is_idle(&self, now: Now) -> bool {
        self.flying.is_none()
            && self.asks.is_empty()
            && self.used == self.acked
            && self.slots(now) == 0
            && (now >= self.until || self.requests + self.tokens == 0)
    }

    /// The limits were changed: what Redis said of the old ones is no answer any more.
    pub(crate) const fn forget_refusals(&mut self) {
        (self.heard, self.refused) = (None, false);
    }

    /// `actual` tokens in the place of `reserved`. The desk, when that is news to be carried over.
    pub(crate) fn settle(&mut self, reserved: u64, actual: u64) -> Option<Arc<Desk>> {
        let beyond = (i128::from(actual) - i128::from(reserved)).clamp(-(1 << 40), 1 << 40) as i64;
        self.used = self.used.saturating_add(beyond);
        self.shown.1 = self.shown.1.saturating_sub(Bucket::parts(beyond));
        let first = beyond != 0 && !self.on.later;
        self.on.later |= first;
        first.then(|| Arc::clone(&self.desk))
    }

    /// A slot is free. The desk, when Redis should hear of it, and whether at once: a slow key's slots are nobody's when
    /// they are not in use, a busy one's are kept for the next request.
    pub(crate) fn freed(&mut self, running: u32) -> Option<(Arc<Desk>, bool)> {
        let idle = u64::from(self.slots.saturating_sub(running));
        if self.on.listed || self.flying.is_some() || idle <= 2 * u64::from(self.spare) {
            return None;
        }
        self.on.listed = true;
        Some((Arc::clone(&self.desk), self.spare == 0))
    }

    /// One more waits. Whether its purse is to be listed for that.
    pub(crate) fn wait(&mut self, ask: Ask) -> bool {
        self.asks.push_back(ask);
        // Under way: who waits is seen to when that call is answered. Listed for a lease: that may take a while.
        let first = self.flying.is_none() && self.asks.len() == 1;
        self.on.listed |= first;
        first
    }

    pub(crate) fn waits(&self) -> bool {
        !self.asks.is_empty()
    }

    /// Requests and slots in hand.
    pub(crate) fn holds(&self, now: Now) -> (u64, u32) {
        (self.in_hand(now).0, self.slots(now))
    }

    fn in_hand(&self, now: Now) -> (u64, u64) {
        if now < self.until { (self.requests, self.tokens) } else { (0, 0) }
    }

    fn slots(&self, now: Now) -> u32 {
        if now < self.slots_until { self.slots } else { 0 }
    }

    /// What to hold: the last 100 ms' worth, at most a quarter of the burst and what flows in in that time (what a burst
    /// is spent on beyond is asked for one by one, so that none of it is left with who needs no more), and nothing when
    /// that is less than two (whole estimates, with tokens); and the least lease of tokens that is worth having.
    fn wanted(&self, limits: &Limits, now: Now) -> ((u64, u64), u64) {
        let lately = self.demand.recent(now);
        let least = lately.mean().saturating_mul(2);
        let most = |per_minute: u32, at_once: u32| u64::from((per_minute / PER_MINUTE).min(at_once / 4));
        let requests = if limits.rpm > 0 { most(limits.rpm, limits.requests_at_once()) } else { u64::MAX };
        let requests = lately.requests.min(requests);
        let tokens = if limits.tpm > 0 { lately.tokens.min(most(limits.tpm, limits.tpm)) } else { 0 };
        if requests < 2 || (limits.tpm > 0 && tokens < least) { ((0, 0), least) } else { ((requests, tokens), least) }
    }

    /// Slots to hold beyond those in use: the last 100 ms' worth while there are plenty.
    fn spare_slots(&self, limits: &Limits, running: u32, now: Now) -> u32 {
        let most = if running > limits.max_parallel / 2 { 0 } else { limits.max_parallel / 8 };
        let lately = self.demand.recent(now).requests.min(most.into());
        if lately < 2 { 0 } else { lately as u32 }
    }

    /// The same by the marks of the last call: a few comparisons.
    const fn below_marks(&self, running: u32) -> bool {
        self.requests < self.marks.0
            || self.tokens < self.marks.1
            || self.slots.saturating_sub(running) < self.spare.div_ceil(2)
    }

    /// Less than half of what it should hold.
    fn runs_low(&self, limits: &Limits, running: u32, now: Now) -> bool {
        let ((requests, tokens), _) = self.wanted(limits, now);
        let (have_requests, have_tokens) = self.in_hand(now);
        let spare = self.spare_slots(limits, running, now);
        (limits.rpm > 0 && have_requests < requests.div_ceil(2))
            || (limits.tpm > 0 && have_tokens < tokens.div_ceil(2))
            || (limits.max_parallel > 0 && self.slots(now).saturating_sub(running) < spare.div_ceil(2))
    }
}

impl Purse {
    /// One more request of about `estimate` tokens, from what is in hand; `true`: Redis should be called soon.
    pub(crate) fn spend(&mut self, estimate: u64, now: Now) -> (Step, bool) {
        let Self { limits, requests, tokens, running, lease: Some(lease), .. } = self else {
            return (Step::Ask, false);
        };
        let need = estimate.min(tokens.holds());
        lease.demand.note(need, now);
        let (have_requests, have_tokens) = lease.in_hand(now);
        let paid = (limits.rpm == 0 || have_requests > 0)
            && (limits.tpm == 0 || have_tokens >= need.max(1))
            && (limits.max_parallel == 0 || *running < lease.slots(now));
        if paid {
            let (one, need) = (u64::from(limits.rpm > 0), if limits.tpm > 0 { need } else { 0 });
            lease.requests -= one;
            lease.tokens -= need;
            if let Some(flying) = &mut lease.flying {
                flying.spent.0 += one;
                flying.spent.1 += need;
            }
            lease.shown.0 -= Bucket::parts(one.cast_signed());
            lease.shown.1 -= Bucket::parts(need.cast_signed());
            *running += 1;
            let low = lease.flying.is_none() && !lease.on.listed && lease.below_marks(*running);
            return (Step::Paid((limits.tpm > 0).then_some(need)), low);
        }
        // A no is remembered as what there was and when, so that who is refused costs no trip and a small ask is not
        // refused for a large one's sake.
        if let Some(heard) = lease.heard {
            let several = if lease.refused { requests.inflow(AGAIN).min(requests.holds() / 8) + 1 } else { 1 };
            if limits.rpm > 0 && have_requests == 0 && !requests.covers(several) && now < heard + NO_REQUESTS {
                return (Step::Refused(Which::Requests), false);
            }
            if limits.tpm > 0 && have_tokens < need && !tokens.covers(estimate) && now < heard + NO_TOKENS {
                return (Step::Refused(Which::Tokens), false);
            }
        }
        (Step::Ask, false)
    }

    /// The buckets as headers show them.
    pub(crate) fn shown(&self) -> (Bucket, Bucket) {
        match &self.lease {
            Some(lease) if lease.heard.is_some() => {
                (self.requests.with(lease.shown.0), self.tokens.with(lease.shown.1))
            }
            _ => (self.requests, self.tokens),
        }
    }

    /// What it needs next, each said once; and whether somebody waits already (it counts as listed then).
    pub(crate) fn next(&mut self) -> (Next, bool) {
        let Some(lease) = self.lease.as_deref_mut() else { return (Next::default(), false) };
        let waits = !lease.asks.is_empty() && !lease.on.listed;
        lease.on.listed |= waits;
        let next = Next {
            lapses: (lease.requests + lease.tokens > 0).then_some(lease.until),
            beats: lease.slots > 0 && !lease.on.beating,
            unsaid: lease.used != lease.acked && !lease.on.later,
        };
        lease.on.beating |= next.beats;
        lease.on.later |= next.unsaid;
        (next, waits)
    }

    /// Nobody can be asked: who waits hears so by the end of its channel.
    pub(crate) fn give_up(&mut self) {
        if let Some(lease) = self.lease.as_deref_mut() {
            lease.on.listed = false;
            lease.asks.clear();
        }
    }
}

const _: () = assert!(HORIZON_NANOS < LEASE_LOOK.as_nanos() as u64, "a lease outlives what it was reckoned from");
