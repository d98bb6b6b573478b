//! The part of the rounds that serves limits: purses' calls out, their replies back, and the clocks of what they hold.
//!
//! Three queues of purses, each with one fixed delay, so their heads are what is due next: leases about to lapse, slots to
//! renew, settlements that may gather. While Redis is down nothing is called and nobody waits; what is unsaid stays in
//! the purses and is said on return.

use super::call::{Answer, Script, script};
use super::codec::Names;
use super::{Part, Round};
use crate::base::Now;
use crate::base::metrics::METRICS;
use crate::state::desk::{Account, Desk, LimitCall, LimitReply, Next};
use crate::state::lease::{LEASE_LOOK, Turn};
use redis::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

static LIMITS: Script = script!("limits.lua");

/// Slots live for 5 s: four renewals may be lost.
const BEAT: Duration = Duration::from_secs(1);
/// So long settlements gather.
const UNSAID: Duration = Duration::from_millis(50);
/// Purses in a queue at most; beyond, a settlement waits for its purse's next call.
const MOST: usize = 262_144;
/// Integers that Lua holds exactly.
const EXACT: i64 = (1 << 53) - 1;

/// The part.
pub(super) struct Limits {
    names: Names,
    desk: Arc<Desk>,
    lapses: VecDeque<(Now, Now, Account)>,
    beats: VecDeque<(Now, Account)>,
    unsaid: VecDeque<(Now, Account)>,
    sent: Vec<Account>,
    sent_at: Now,
    up: bool,
}

impl Limits {
    /// For the limiter at `desk`.
    pub(super) fn new(names: Names, desk: Arc<Desk>) -> Self {
        Self {
            names,
            desk,
            lapses: VecDeque::new(),
            beats: VecDeque::new(),
            unsaid: VecDeque::new(),
            sent: Vec::new(),
            sent_at: Now::default(),
            up: false,
        }
    }

    fn speak(&mut self, account: Account, turn: Turn, round: &mut Round<'_>) {
        let Some(call) = account.call(turn, round.now) else { return };
        METRICS.limits_calls.inc();
        let packed = self.pack(&call);
        round.push(packed);
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
        if next.unsaid && self.unsaid.len() < MOST {
            self.unsaid.push_back((now + UNSAID, account.clone()));
        }
        if let Some(until) = next.lapses {
            self.lapses.push_back((self.sent_at + LEASE_LOOK, until, account));
        }
    }
}

impl Part for Limits {
    fn gather(&mut self, round: &mut Round<'_>) {
        let (listed, later) = self.desk.take();
        let now = round.now;
        if later.len() + self.unsaid.len() <= MOST {
            self.unsaid.extend(later.into_iter().map(|account| (now + UNSAID, account)));
        }
        self.up = round.up;
        if !round.up {
            for account in listed {
                let next = account.give_up();
                self.file(account, Next { lapses: None, ..next }, now);
            }
            return;
        }
        self.sent_at = now;
        for account in listed {
            self.speak(account, Turn::Listed, round);
        }
        while let Some((_, account)) = pop_if(&mut self.unsaid, |(due, _)| *due <= now) {
            self.speak(account, Turn::Later, round);
        }
        while let Some((_, until, account)) = pop_if(&mut self.lapses, |(due, ..)| *due <= now) {
            self.speak(account, Turn::Lapse(until), round);
        }
        while let Some((_, account)) = pop_if(&mut self.beats, |(due, _)| *due <= now) {
            self.speak(account, Turn::Beat, round);
        }
    }

    fn settle(&mut self, answers: &mut dyn Iterator<Item = Answer>, now: Now) {
        let mut sent = std::mem::take(&mut self.sent);
        for account in sent.drain(..) {
            // Down, perhaps only for this key's node: the next round knows whether for all.
            let reply = answers.next().and_then(Result::ok).and_then(|value| read(&value));
            let next = account.answered(&self.desk, reply.as_ref(), now);
            self.file(account, next, now);
        }
        self.sent = sent;
    }

    fn due(&self) -> Option<Now> {
        if !self.up {
            return None;
        }
        let heads = [
            self.lapses.front().map(|(due, ..)| *due),
            self.beats.front().map(|(due, _)| *due),
            self.unsaid.front().map(|(due, _)| *due),
        ];
        heads.into_iter().flatten().min()
    }

    fn returned(&mut self, _now: Now) {
        self.up = true;
    }

    fn close(&mut self, round: &mut Round<'_>) {
        let (listed, later) = self.desk.take();
        let lapses = std::mem::take(&mut self.lapses).into_iter().map(|(_, _, account)| account);
        let beats = std::mem::take(&mut self.beats).into_iter().chain(std::mem::take(&mut self.unsaid));
        let all = listed.into_iter().chain(later).chain(lapses).chain(beats.map(|(_, account)| account));
        self.sent_at = round.now;
        for account in all.collect::<Vec<_>>() {
            self.speak(account, Turn::Close, round);
        }
    }
}

/// The head of a queue, when it is so.
pub(super) fn pop_if<T>(queue: &mut VecDeque<T>, so: impl FnOnce(&T) -> bool) -> Option<T> {
    if queue.front().is_some_and(so) { queue.pop_front() } else { None }
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
