//! The part of the rounds that serves budgets: what keys spend goes out, what all have spent comes back.
//!
//! As with limits: whoever waits comes first; all else stands in queues of fixed delays (settlements that may gather,
//! claims to renew) and has a share of each round. While Redis is down nothing is called and nobody waits; what is unsaid
//! stays in the ledgers and is said on return.

use super::call::{Answer, Script, carried_out, script};
use super::codec::Names;
use super::{Part, Round};
use crate::base::Now;
use crate::state::lease::Turn;
use crate::state::ledger::{Book, BudgetCall, BudgetReply, Till};
use redis::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

static BUDGETS: Script = script!("budgets.lua");

/// Claims live for 10 s.
const BEAT: Duration = Duration::from_secs(2);
/// So long settlements gather.
const UNSAID: Duration = Duration::from_millis(50);
/// Ledgers that somebody waits for in one round: no more than one trip takes.
const ASKED: usize = 256;
/// Integers that Lua holds exactly: nine million dollars.
const EXACT: i64 = (1 << 53) - 1;

/// The part.
pub(super) struct Budgets {
    names: Names,
    till: Arc<Till>,
    asked: VecDeque<Book>,
    unsaid: VecDeque<(Now, Book)>,
    beats: VecDeque<(Now, Book)>,
    sent: Vec<Book>,
    up: bool,
}

impl Budgets {
    /// For the ledgers at `till`.
    pub(super) fn new(names: Names, till: Arc<Till>) -> Self {
        let (asked, unsaid, beats) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { names, till, asked, unsaid, beats, sent: Vec::new(), up: false }
    }

    fn speak(&mut self, book: Book, turn: Turn, round: &mut Round<'_>) {
        if let Some(call) = book.call(turn, round.now) {
            let packed = self.pack(&call);
            if call.asks.is_empty() {
                round.tend(packed);
            } else {
                round.ask(packed);
            }
            self.sent.push(book);
        }
    }

    fn pack(&self, call: &BudgetCall) -> super::Call {
        let mut out = BUDGETS.call(&[&self.names.budget(call.key)]);
        let unsigned = |n: u64| i64::try_from(n).unwrap_or(EXACT);
        let head = [unsigned(call.id), unsigned(call.seq), call.budget, call.total, call.used, call.acked, call.claim];
        let tail = [call.want, self.till.instances().into(), unsigned(call.asks.len() as u64), call.heard.into()];
        for n in head.into_iter().chain(tail).chain(call.asks.iter().copied()) {
            out.cmd.arg(n.clamp(-EXACT, EXACT));
        }
        out
    }
}

impl Part for Budgets {
    fn gather(&mut self, round: &mut Round<'_>) {
        let (listed, later) = self.till.take();
        let now = round.now;
        self.unsaid.extend(later.into_iter().map(|book| (now + UNSAID, book)));
        self.up = round.up;
        if !round.up {
            for book in std::mem::take(&mut self.asked).into_iter().chain(listed) {
                book.give_up();
            }
            return;
        }
        self.asked.extend(listed);
        while self.sent.len() < ASKED
            && let Some(book) = self.asked.pop_front()
        {
            self.speak(book, Turn::Listed, round);
        }
    }

    fn tend(&mut self, round: &mut Round<'_>) {
        while round.up && round.room > 0 {
            let due =
                |queue: &VecDeque<(Now, Book)>| queue.front().map(|(due, _)| *due).filter(|due| *due <= round.now);
            let (queue, turn) = match (due(&self.unsaid), due(&self.beats)) {
                (None, None) => return,
                (Some(unsaid), beat) if beat.is_none_or(|beat| unsaid <= beat) => (&mut self.unsaid, Turn::Later),
                _ => (&mut self.beats, Turn::Beat),
            };
            if let Some((_, book)) = queue.pop_front() {
                self.speak(book, turn, round);
            }
        }
    }

    fn settle(&mut self, answers: &mut dyn Iterator<Item = Answer>, now: Now) {
        for book in std::mem::take(&mut self.sent) {
            let reply = carried_out(answers.next()).and_then(|value| read(&value));
            let (beats, unsaid) = book.answered(&self.till, reply.as_ref());
            if beats {
                self.beats.push_back((now + BEAT, book.clone()));
            }
            if unsaid {
                self.unsaid.push_back((now + UNSAID, book));
            }
        }
    }

    fn due(&self) -> Option<Now> {
        let heads = [self.unsaid.front(), self.beats.front()];
        let asked = self.asked.front().map(|_| Now::default());
        asked.or_else(|| heads.into_iter().flatten().map(|(due, _)| *due).min()).filter(|_| self.up)
    }

    fn returned(&mut self, _now: Now) {
        self.up = true;
    }

    fn close(&mut self, round: &mut Round<'_>) {
        let (listed, later) = self.till.take();
        let listed = std::mem::take(&mut self.asked).into_iter().chain(listed);
        let queued = std::mem::take(&mut self.unsaid).into_iter().chain(std::mem::take(&mut self.beats));
        let all: Vec<Book> = listed.chain(later).chain(queued.map(|(_, book)| book)).collect();
        for book in all {
            self.speak(book, Turn::Close, round);
        }
    }
}

fn read(value: &Value) -> Option<BudgetReply> {
    let Value::Array(parts) = value else { return None };
    let [Value::Int(total), Value::BulkString(verdicts), Value::Int(room)] = &parts[..] else { return None };
    Some(BudgetReply { total: *total, verdicts: verdicts.clone(), room: *room })
}

#[cfg(test)]
#[path = "budgets_tests.rs"]
mod tests;
