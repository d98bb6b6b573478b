//! One key's dollars, and how instances agree on them through Redis.
//!
//! Redis holds what all have spent and, per instance, what it has claimed: set aside for requests in flight, plus room it
//! may fill without asking. What was spent travels as a sum since ever under a sequence, so a call lost on the way costs
//! nothing but time; the total only rises, so whoever knows a greater one is right: a Redis that lost it is told again by
//! the first who calls. Without Redis this instance decides by the last total it heard (or the store's, if that is
//! greater) and its own spending: never open. A killed instance's requests in flight are forgotten, as in the store.

use super::demand::Demand;
use super::desk::Seat;
use super::lease::{Queues, Turn};
use crate::base::bell::Bell;
use crate::base::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use crate::base::{KeyId, Now};
use crate::state::reach::Reach;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A claim's life in Redis is 10 s; here, from when it was sent, a second less. Renewed every two.
const CLAIM_HERE: Duration = Duration::from_secs(9);
/// Redis remembers what a silent instance had said for 610 s; less, by what clocks may differ in that time.
const REMEMBERED: Duration = Duration::from_secs(590);
/// Asks that one call carries at most.
const ASKS: usize = 256;
/// Requests that wait at most, all keys together.
const MOST: u32 = 65_536;

/// Where ledgers and the cluster meet.
#[derive(Debug)]
pub struct Till {
    bell: Arc<Bell>,
    reach: Arc<Reach>,
    live: Arc<AtomicU32>,
    epoch: u64,
    named: AtomicU64,
    listed: Mutex<Vec<Book>>,
    later: Mutex<Vec<Book>>,
    waiting: Arc<AtomicU32>,
}

/// One ledger, as the cluster sees it.
#[derive(Clone, Debug)]
pub struct Book(pub(crate) Arc<Mutex<Ledger>>);

/// One key's books, in nanodollars.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Spent by all as last heard, and by this instance beyond that.
    total: i64,
    used: i64,
    acked: i64,
    /// What the store says, if that is more: rows come from others who may not reach Redis either.
    floor: i64,
    /// Set aside for requests in flight here.
    pub(crate) reserved: i64,
    shared: Option<Box<Claim>>,
}

/// What a ledger and Redis have to do with each other.
#[derive(Debug)]
struct Claim {
    till: Arc<Till>,
    key: KeyId,
    id: u64,
    seq: u64,
    budget: i64,
    /// What may be set aside without asking, until then.
    room: i64,
    until: Now,
    demand: Demand,
    flying: Option<(Now, i64, Vec<Ask>)>,
    asks: Vec<Ask>,
    heard: bool,
    /// Since when calls are of unknown fate, and what the last of them said was spent.
    doubt: Option<(Now, i64)>,
    /// What is taken to have arrived, though nobody said so.
    taken: i64,
    on: Queues,
}

#[derive(Debug)]
struct Ask {
    nanos: i64,
    reply: oneshot::Sender<Option<Granted>>,
    _seat: Seat,
}

/// What a call says and asks; nanodollars.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BudgetCall {
    /// Of which key.
    pub key: KeyId,
    /// The ledger's name: below 2⁵².
    pub id: u64,
    /// Greater than any before of this ledger.
    pub seq: u64,
    /// As the caller knows it now.
    pub budget: i64,
    /// The greatest total heard; the store's word, while none was.
    pub total: i64,
    /// Whether any was. One that was not is only good for a Redis that knows nothing: it may hold what others have spent
    /// and not said yet, which would count again when they do.
    pub heard: bool,
    /// Spent here since ever, and what of that Redis is known to have.
    pub used: i64,
    /// See `used`.
    pub acked: i64,
    /// Set aside here, room included; what more room is wanted.
    pub claim: i64,
    /// See `claim`.
    pub want: i64,
    /// What each request that waits would set aside.
    pub asks: Vec<i64>,
}

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BudgetReply {
    /// Spent by all.
    pub total: i64,
    /// A digit per ask: 0 granted.
    pub verdicts: Vec<u8>,
    /// Room added.
    pub room: i64,
}

/// What the hot path makes of one request.
pub(crate) enum Bought {
    Yes,
    No,
    Wait(oneshot::Receiver<Option<Granted>>),
}

/// Dollars set aside for one who waited; released if nobody takes them.
#[derive(Debug)]
pub struct Granted {
    ledger: Arc<Mutex<Ledger>>,
    nanos: i64,
}

impl Granted {
    /// How much, and off its hands.
    pub(crate) fn take(mut self) -> (Arc<Mutex<Ledger>>, i64) {
        (Arc::clone(&self.ledger), std::mem::take(&mut self.nanos))
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if self.nanos > 0 {
            // It is in flight no more; the next call says so.
            self.ledger.lock().release(self.nanos);
        }
    }
}

impl Till {
    /// `bell` wakes the Redis task, `reach` says whether it has anybody to talk to, `live` is how many instances there are.
    pub fn new(bell: Arc<Bell>, reach: Arc<Reach>, live: Arc<AtomicU32>, epoch: u64) -> Self {
        let (named, waiting) = (AtomicU64::new(0), Arc::default());
        Self { bell, reach, live, epoch, named, listed: Mutex::default(), later: Mutex::default(), waiting }
    }

    /// Who is to be called for now, and who within a while.
    pub fn take(&self) -> (Vec<Book>, Vec<Book>) {
        let listed = std::mem::take(&mut *self.listed.lock());
        (listed, std::mem::take(&mut *self.later.lock()))
    }

    /// Instances now, this one included.
    pub fn instances(&self) -> u32 {
        self.live.load(Ordering::Relaxed).max(1)
    }

    pub(crate) fn list(&self, book: Book, urgent: bool) {
        if urgent {
            self.listed.lock().push(book);
            self.bell.ring();
        } else {
            self.later.lock().push(book);
            self.bell.soon();
        }
    }
}

impl Ledger {
    /// One that others share.
    pub(crate) fn shared(till: &Arc<Till>, key: KeyId) -> Self {
        let id = super::desk::name(till.epoch, till.named.fetch_add(1, Ordering::Relaxed));
        let claim = Claim {
            till: Arc::clone(till),
            key,
            id,
            seq: 0,
            budget: 0,
            room: 0,
            until: Now::default(),
            demand: Demand::default(),
            flying: None,
            asks: Vec::new(),
            heard: false,
            doubt: None,
            taken: 0,
            on: Queues::default(),
        };
        Self { shared: Some(Box::new(claim)), ..Self::default() }
    }

    /// Spent by all, as far as is known here.
    pub(crate) fn spent(&self) -> i64 {
        self.total.saturating_add(self.used - self.acked).max(self.floor)
    }

    /// The store's total. Before Redis was heard it stands for the total itself.
    pub(crate) fn seed(&mut self, nanos: i64) {
        if self.shared.as_deref().is_some_and(|claim| !claim.heard) {
            self.total = self.total.max(nanos.saturating_sub(self.used - self.acked));
        }
        self.floor = self.floor.max(nanos);
    }

    pub(crate) fn has_room(&self, budget: i64) -> bool {
        self.spent().saturating_add(self.reserved) < budget
    }

    pub(crate) const fn reserve(&mut self, nanos: i64) {
        self.reserved = self.reserved.saturating_add(nanos);
    }

    const fn release(&mut self, nanos: i64) {
        self.reserved = self.reserved.saturating_sub(nanos);
    }

    /// `actual` in the place of `reserved`. The till, when the cluster should hear of it within a while.
    pub(crate) fn settle(&mut self, reserved: i64, actual: i64) -> Option<Arc<Till>> {
        let before = self.spent();
        self.reserved = self.reserved.saturating_sub(reserved).max(0);
        self.used = self.used.saturating_add(actual.max(0));
        // The store's word was not of this: it comes on top.
        self.floor = if before <= self.floor { self.floor.saturating_add(actual.max(0)) } else { self.floor };
        let claim = self.shared.as_deref_mut()?;
        let first = !std::mem::replace(&mut claim.on.later, true);
        first.then(|| Arc::clone(&claim.till))
    }

    /// May a request that may cost `nanos` go on? Sets them aside if so.
    pub(crate) fn buy(&mut self, budget: i64, nanos: i64, now: Now) -> (Bought, Option<Arc<Till>>) {
        let room = self.has_room(budget);
        let Some(claim) = self.shared.as_deref_mut().filter(|_| room) else {
            if room {
                self.reserve(nanos);
            }
            return (if room { Bought::Yes } else { Bought::No }, None);
        };
        claim.demand.note(nanos.unsigned_abs(), now);
        claim.budget = budget;
        if now < claim.until && claim.room > 0 && claim.room >= nanos {
            claim.room -= nanos;
            self.reserve(nanos);
            return (Bought::Yes, None);
        }
        let seat = if claim.till.reach.is_up() { Seat::of(&claim.till.waiting, MOST) } else { None };
        let Some(seat) = seat else {
            self.reserve(nanos);
            return (Bought::Yes, None);
        };
        let (reply, answer) = oneshot::channel();
        claim.asks.push(Ask { nanos, reply, _seat: seat });
        let first = claim.flying.is_none() && !std::mem::replace(&mut claim.on.listed, true);
        (Bought::Wait(answer), first.then(|| Arc::clone(&claim.till)))
    }

    fn call(&mut self, turn: Turn, now: Now) -> Option<BudgetCall> {
        let (beat, last) = (matches!(turn, Turn::Beat | Turn::Close), turn == Turn::Close);
        let claim = self.shared.as_deref_mut()?;
        // Each queue has a ledger once: only its own turn there ends that.
        claim.on.listed &= turn != Turn::Listed;
        claim.on.later &= turn != Turn::Later;
        claim.on.beating &= turn != Turn::Beat;
        claim.asks.retain(|ask| !ask.reply.is_closed());
        let news = !claim.asks.is_empty() || self.used != self.acked || (beat && self.reserved + claim.room > 0);
        if claim.flying.is_some() || !(news || (last && claim.room > 0)) {
            return None;
        }
        let lately = claim.demand.recent(now);
        let want = if lately.requests < 2 || last { 0 } else { i64::try_from(lately.tokens).unwrap_or(i64::MAX) };
        claim.room = if now < claim.until { claim.room.min(want) } else { 0 };
        claim.seq = (claim.seq + 1).max(now.as_nanos() / 1_000);
        let asks: Vec<Ask> = claim.asks.drain(..claim.asks.len().min(ASKS)).collect();
        // Redis may have forgotten us since. What was said to it then is taken to have arrived: twice it must not count,
        // and if it did not arrive, the store knows.
        if let Some((_, said)) = claim.doubt.take_if(|(since, _)| now.since(*since) >= REMEMBERED) {
            claim.taken = said;
        }
        claim.doubt = Some((claim.doubt.map_or(now, |(since, _)| since), self.used));
        let call = BudgetCall {
            key: claim.key,
            id: claim.id,
            seq: claim.seq,
            budget: claim.budget,
            total: self.total,
            heard: claim.heard,
            used: self.used,
            acked: self.acked.max(claim.taken),
            claim: self.reserved.saturating_add(claim.room),
            want: want - claim.room,
            asks: asks.iter().map(|ask| ask.nanos).collect(),
        };
        claim.flying = Some((now, self.used, asks));
        Some(call)
    }

    /// Who is answered how; then whether it beats, has more to say, or somebody waits already.
    fn answered(&mut self, reply: Option<&BudgetReply>) -> (Vec<(Ask, bool)>, [bool; 3]) {
        let Some(claim) = self.shared.as_deref_mut() else { return (Vec::new(), [false; 3]) };
        let mut done = Vec::new();
        if let Some((sent, used, asks)) = claim.flying.take()
            && let Some(reply) = reply
        {
            // The first word of Redis stands for itself: the store's was a guess at it, and stays the floor.
            self.total = if claim.heard { self.total.max(reply.total) } else { reply.total };
            (self.acked, claim.heard, claim.doubt) = (used, true, None);
            (claim.room, claim.until) = (claim.room + reply.room, sent + CLAIM_HERE);
            for (n, ask) in asks.into_iter().enumerate() {
                let granted = reply.verdicts.get(n) == Some(&b'0');
                if granted {
                    self.reserved = self.reserved.saturating_add(ask.nanos);
                }
                done.push((ask, granted));
            }
        }
        let beats = self.reserved + claim.room > 0 && !claim.on.beating;
        claim.on.beating |= beats;
        let unsaid = self.used != self.acked && !std::mem::replace(&mut claim.on.later, true);
        let waits = !claim.asks.is_empty() && !std::mem::replace(&mut claim.on.listed, true);
        (done, [beats, unsaid, waits])
    }
}

impl Book {
    /// The call that is due, if there is anything to say.
    pub fn call(&self, turn: Turn, now: Now) -> Option<BudgetCall> {
        self.0.lock().call(turn, now)
    }

    /// What came of its call; `None`: nobody knows. Whether its claim is to be renewed, and whether it has more to say
    /// within a while; each said once.
    pub fn answered(&self, till: &Till, reply: Option<&BudgetReply>) -> (bool, bool) {
        let (done, [beats, unsaid, waits]) = self.0.lock().answered(reply);
        for (ask, granted) in done {
            let granted = granted.then(|| Granted { ledger: Arc::clone(&self.0), nanos: ask.nanos });
            // Who has left, or decided alone, lets go of it here.
            drop(ask.reply.send(granted));
        }
        if waits {
            till.list(self.clone(), true);
        }
        (beats, unsaid)
    }

    /// Redis is away: nobody waits for it.
    pub fn give_up(&self) {
        if let Some(claim) = self.0.lock().shared.as_deref_mut() {
            claim.on.listed = false;
            claim.asks.clear();
        }
    }
}
