//! The part of the rounds that serves limits: purses' calls out, their replies back, and the clocks of what they hold.
//!
//! Whoever waits is called for first. All else stands in four queues of purses, each with one fixed delay, so their heads
//! are what is due next: leases to renew, leases about to lapse, slots to renew, settlements that may gather. It has a
//! bounded share of each round, the most overdue first. While Redis is down nothing is called and nobody waits; what is
//! unsaid stays in the purses and is said on return.

use super::call::{Answer, Script, carried_out, script};
use super::codec::Names;
use super::{Part, Round};
use crate::base::Now;
use crate::base::metrics::METRICS;
use crate::state::desk::{Account, Desk, LimitCall, LimitReply, Next};
use crate::state::lease::{LEASE_LOOK, Turn};
use crate::state::peers::{LeasesView, Peers};
use redis::Value;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

static LIMITS: Script = script!("limits.lua");

/// Slots live for 5 s: four renewals may be lost.
const BEAT: Duration = Duration::from_secs(1);
/// So long settlements gather.
const UNSAID: Duration = Duration::from_millis(50);
/// Purses with settlements in the queue at most; beyond, one waits for its purse's next call or settlement.
const MOST: usize = 262_144;
/// Purses that somebody waits for in one round: no more than one trip takes.
const ASKED: usize = 256;
/// How often it is shown what is held, and of how many at most.
const LOOK: Duration = Duration::from_secs(1);
const LOOKED_AT: usize = 16_384;
/// Integers that Lua holds exactly.
const EXACT: i64 = (1 << 53) - 1;

/// The part.
pub(super) struct Limits {
    names: Names,
    desk: Arc<Desk>,
    /// Somebody waits, in the order they came.
    asked: VecDeque<Account>,
    renewals: VecDeque<(Now, Account)>,
    lapses: VecDeque<(Now, Now, Account)>,
    beats: VecDeque<(Now, Account)>,
    unsaid: VecDeque<(Now, Account)>,
    sent: Vec<Account>,
    sent_at: Now,
    up: bool,
    most: usize,
    /// Where it is shown what is held, and when next.
    shown: Option<Arc<Peers>>,
    next_look: Now,
}

impl Limits {
    /// For the limiter at `desk`.
    pub(super) fn new(names: Names, desk: Arc<Desk>) -> Self {
        Self {
            names,
            desk,
            asked: VecDeque::new(),
            renewals: VecDeque::new(),
            lapses: VecDeque::new(),
            beats: VecDeque::new(),
            unsaid: VecDeque::new(),
            sent: Vec::new(),
            sent_at: Now::default(),
            up: false,
            most: MOST,
            shown: None,
            next_look: Now::default(),
        }
    }

    /// Shows in `peers` what it holds, once a second.
    pub(super) fn showing(self, peers: Arc<Peers>) -> Self {
        Self { shown: Some(peers), ..self }
    }

    /// Whoever holds a lease is about to be looked at, whoever holds slots is about to renew them.
    fn show(&mut self, now: Now) {
        let Some(peers) = self.shown.as_ref().filter(|_| now >= self.next_look) else { return };
        self.next_look = now + LOOK;
        let holders =
            self.lapses.iter().map(|(.., account)| account).chain(self.beats.iter().map(|(_, account)| account));
        let (mut seen, mut leases) = (HashSet::<_, ahash::RandomState>::default(), LeasesView::default());
        for account in holders.take(LOOKED_AT).filter(|account| seen.insert(account.address())) {
            let (requests, slots) = account.in_hand(now);
            leases.subjects += u64::from(requests > 0 || slots > 0);
            leases.requests += requests;
            leases.slots += u64::from(slots);
        }
        peers.change(|view| view.leases = leases);
    }

    fn speak(&mut self, account: Account, turn: Turn, round: &mut Round<'_>) {
        let Some(call) = account.call(turn, round.now) else { return };
        METRICS.limits_calls.inc();
        let packed = self.pack(&call);
        if call.asks.is_empty() {
            round.tend(packed);
        } else {
            round.ask(packed);
        }
        self.sent.push(account);
    }

    fn pack(&self, call: &LimitCall) -> super::Call {
        let key = self.names.limit(call.subject);
        let limits = &call.limits;
        let mut out = LIMITS.call(&[&key]);
        let mut arg = |n: i64| {
            out.cmd.arg(n.clamp(-EXACT, EXACT));
        };
        let unsigned = |n: u64| i64::try_from(n).unwrap_or(EXACT);
        arg(unsigned(call.id));
        arg(unsigned(call.seq));
        arg(limits.rpm.into());
        arg(limits.requests_at_once().into());
        arg(limits.tpm.into());
        arg(limits.max_parallel.into());
        arg(self.desk.instances().into());
        for n in [call.held.0, call.back.0, call.want.0, call.held.1, call.back.1, call.want.1, call.least] {
            arg(unsigned(n));
        }
        for n in [call.used, call.acked, call.seed.0, call.seed.1] {
            arg(n);
        }
        for n in [call.keep.into(), call.spare.into(), call.answered, call.asks.len() as u64] {
            arg(unsigned(n));
        }
        if limits.tpm > 0 {
            for tokens in &call.asks {
                // More than any bucket holds is as good: the script clamps it.
                arg(unsigned((*tokens).min(u32::MAX.into())));
            }
        }
        out
    }

    fn file(&mut self, account: Account, next: Next, now: Now) {
        if next.beats {
            self.beats.push_back((now + BEAT, account.clone()));
        }
        if next.unsaid {
            self.gather_unsaid(account.clone(), now);
        }
        if let Some(until) = next.lapses {
            self.lapses.push_back((self.sent_at + LEASE_LOOK, until, account));
        }
    }

    fn gather_unsaid(&mut self, account: Account, now: Now) {
        if self.unsaid.len() < self.most {
            self.unsaid.push_back((now + UNSAID, account));
        } else {
            // It says so itself that it is in no queue: its next settlement lists it again.
            account.unlist();
            METRICS.limits_unsaid_over.inc();
        }
    }

    /// Whose turn is the most overdue: 0 renewals, 1 lapses, 2 slots, 3 settlements; and when it was, or will be.
    fn next_due(&self) -> Option<(Now, usize)> {
        let heads = [
            self.renewals.front().map(|(due, _)| *due),
            self.lapses.front().map(|(due, ..)| *due),
            self.beats.front().map(|(due, _)| *due),
            self.unsaid.front().map(|(due, _)| *due),
        ];
        heads.into_iter().enumerate().filter_map(|(queue, due)| Some((due?, queue))).min()
    }
}

impl Part for Limits {
    fn gather(&mut self, round: &mut Round<'_>) {
        let (listed, later) = self.desk.take();
        let now = round.now;
        for account in later {
            self.gather_unsaid(account, now);
        }
        self.up = round.up;
        if !round.up {
            let waited = std::mem::take(&mut self.renewals).into_iter().map(|(_, account)| account);
            for account in std::mem::take(&mut self.asked).into_iter().chain(waited).chain(listed) {
                let next = account.give_up();
                self.file(account, Next { lapses: None, ..next }, now);
            }
            return;
        }
        self.sent_at = now;
        for account in listed {
            if account.waits() {
                self.asked.push_back(account);
            } else {
                self.renewals.push_back((now, account));
            }
        }
        while self.sent.len() < ASKED
            && let Some(account) = self.asked.pop_front()
        {
            self.speak(account, Turn::Listed, round);
        }
    }

    fn tend(&mut self, round: &mut Round<'_>) {
        let now = round.now;
        self.show(now);
        while round.up
            && round.room > 0
            && let Some((_, queue)) = self.next_due().filter(|(due, _)| *due <= now)
        {
            let next = match queue {
                0 => self.renewals.pop_front().map(|(_, account)| (account, Turn::Listed)),
                1 => self.lapses.pop_front().map(|(_, until, account)| (account, Turn::Lapse(until))),
                2 => self.beats.pop_front().map(|(_, account)| (account, Turn::Beat)),
                _ => self.unsaid.pop_front().map(|(_, account)| (account, Turn::Later)),
            };
            if let Some((account, turn)) = next {
                self.speak(account, turn, round);
            }
        }
    }

    fn settle(&mut self, answers: &mut dyn Iterator<Item = Answer>, now: Now) {
        let mut sent = std::mem::take(&mut self.sent);
        for account in sent.drain(..) {
            // Down, perhaps only for this key's node: the next round knows whether for all.
            let reply = carried_out(answers.next()).and_then(|value| read(&value));
            let next = account.answered(&self.desk, reply.as_ref(), now);
            self.file(account, next, now);
        }
        self.sent = sent;
    }

    fn due(&self) -> Option<Now> {
        let asked = self.asked.front().map(|_| Now::default());
        asked.or_else(|| self.next_due().map(|(due, _)| due)).filter(|_| self.up)
    }

    fn returned(&mut self, _now: Now) {
        self.up = true;
    }

    fn close(&mut self, round: &mut Round<'_>) {
        let (listed, later) = self.desk.take();
        let asked = std::mem::take(&mut self.asked).into_iter().chain(listed).chain(later);
        let lapses = std::mem::take(&mut self.lapses).into_iter().map(|(_, _, account)| account);
        let others = [&mut self.renewals, &mut self.beats, &mut self.unsaid].map(std::mem::take);
        let all = asked.chain(lapses).chain(others.into_iter().flatten().map(|(_, account)| account));
        self.sent_at = round.now;
        for account in all.collect::<Vec<_>>() {
            self.speak(account, Turn::Close, round);
        }
    }
}

/// The reply, if it is one of ours.
fn read(value: &Value) -> Option<LimitReply> {
    let Value::Array(parts) = value else { return None };
    let number = |n: usize| match parts.get(n) {
        Some(Value::Int(number)) => Some(*number),
        _ => None,
    };
    let whole = |n| number(n).and_then(|number| u64::try_from(number).ok());
    let Some(Value::BulkString(verdicts)) = parts.get(2) else { return None };
    Some(LimitReply {
        start: (number(0)?, number(1)?),
        verdicts: verdicts.clone(),
        kept: (whole(3)?, whole(5)?),
        leased: (whole(4)?, whole(6)?),
        slots: u32::try_from(number(7)?).ok()?,
    })
}

#[cfg(test)]
#[path = "limits_live.rs"]
mod live;
#[cfg(test)]
#[path = "limits_model.rs"]
mod model;
#[cfg(test)]
#[path = "limits_tests.rs"]
pub(super) mod tests;
