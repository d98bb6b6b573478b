//! Counts that all instances share: failed logins (decided there, before a password is looked at) and unknown API keys.
//!
//! Addresses go out as keyed hashes: whoever reads Redis learns nobody's. What a login's end takes back is retried until
//! it arrived; a lost attempt counts as a failure. While Redis is away attempts are answered at once: nobody to ask.

use super::call::{Answer, Call, Fault, Script, script};
use super::codec::{Names, hidden};
use super::{Part, Round};
use crate::base::Now;
use crate::base::metrics::METRICS;
use crate::state::logins::{Counted, Said, Sayings, Verdict};
use crate::state::subject::Net;
use crate::state::throttle::rules;
use crate::state::unknown_keys::{MINUTE, UnknownKeys};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

static LOGIN: Script = script!("login.lua");
static STRIKES: Script = script!("strikes.lua");

/// Attempts in one round: the rest waits for the next.
const A_ROUND: usize = 32;
/// Ends of attempts kept for a Redis that is away; older ones stay counted.
const ENDS: usize = 256;
/// Unknown keys are told in batches, this far apart.
const EVERY: Duration = Duration::from_millis(500);
/// Addresses in one batch.
const NETS: usize = 256;
/// Addresses counted in a minute by all.
const NETS_IN_ALL: usize = 8_192;

/// Counts logins with the others.
pub(super) struct LoginCounts {
    names: Names,
    key: [u8; 32],
    epoch: u64,
    said: Sayings,
    ends: VecDeque<Said>,
    sent: VecDeque<Sent>,
    /// A round was full, and more may wait.
    more: bool,
}

/// Counts unknown API keys with the others.
pub(super) struct Strikes {
    key: Vec<u8>,
    secret: [u8; 32],
    unknown: Arc<UnknownKeys>,
    sent: Vec<(Net, u32)>,
    next: Now,
}

enum Sent {
    Attempt(oneshot::Sender<Verdict>),
    End(Said),
}

impl LoginCounts {
    /// Under the deployment's `key`.
    pub(super) fn new(names: Names, key: [u8; 32], epoch: u64, said: Sayings) -> Self {
        Self { names, key, epoch, said, ends: VecDeque::new(), sent: VecDeque::new(), more: false }
    }

    fn call(&self, what: &str, counted: Counted) -> Call {
        let address = hidden(&self.key, counted.net);
        let keys = self.names.logins(&address);
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        LOGIN
            .call(&keys)
            .arg(what)
            .arg(format!("{:016x}-{}", self.epoch, counted.number))
            .arg(address)
            .arg(u8::from(counted.net.is_loopback()))
            .arg(millis(rules::WINDOW))
            .arg(rules::PER_ADDRESS)
            .arg(rules::OVERALL)
            .arg(millis(rules::LONGEST))
            .arg(millis(rules::FORGIVEN))
            .arg(millis(rules::KNOWN_FOR))
            .arg(rules::KNOWN_AT_MOST)
    }

    fn end(&mut self, said: Said) {
        if self.ends.len() >= ENDS {
            self.ends.pop_front();
        }
        self.ends.push_back(said);
    }
}

impl Part for LoginCounts {
    fn gather(&mut self, round: &mut Round<'_>) {
        while (!round.up || self.sent.len() < A_ROUND)
            && let Some(said) = self.said.take()
        {
            match said {
                // Dropping the question answers it.
                Said::Attempt(..) if !round.up => {}
                Said::Attempt(counted, reply) => {
                    round.ask(self.call("attempt", counted));
                    self.sent.push_back(Sent::Attempt(reply));
                }
                end => self.end(end),
            }
        }
        self.more = round.up && self.sent.len() >= A_ROUND;
        while round.up
            && self.sent.len() < A_ROUND * 2
            && let Some(end) = self.ends.pop_front()
        {
            match &end {
                Said::Right(counted) => round.push(self.call("right", *counted)),
                Said::NotJudged(counted) => round.push(self.call("not_judged", *counted)),
                Said::Attempt(..) => continue,
            }
            self.sent.push_back(Sent::End(end));
        }
    }

    fn settle(&mut self, answers: &mut dyn Iterator<Item = Answer>, _now: Now) {
        for sent in std::mem::take(&mut self.sent) {
            match (sent, answers.next()) {
                (Sent::Attempt(reply), Some(Ok(answer))) => {
                    if let Ok((wait, known)) = redis::from_owned_redis_value::<(u64, bool)>(answer) {
                        // Whoever asked may have decided alone by now.
                        let _ = reply.send(match wait {
                            0 => Verdict::In { known },
                            wait => Verdict::Wait(Duration::from_millis(wait)),
                        });
                    } else {
                        METRICS.cluster_unreadable.inc();
                    }
                }
                (Sent::End(end), Some(Err(Fault::Down)) | None) => self.end(end),
                (Sent::Attempt(_) | Sent::End(_), _) => {}
            }
        }
    }

    fn due(&self) -> Option<Now> {
        self.more.then(Now::default)
    }
}

impl Strikes {
    /// Of `unknown`, under the deployment's `secret`.
    pub(super) fn new(names: &Names, secret: [u8; 32], unknown: Arc<UnknownKeys>) -> Self {
        unknown.tell();
        Self { key: names.strikes(), secret, unknown, sent: Vec::new(), next: Now::default() }
    }
}

impl Part for Strikes {
    fn gather(&mut self, round: &mut Round<'_>) {
        if round.now < self.next {
            return;
        }
        self.next = round.now + EVERY;
        if !round.up {
            // What gathers is bounded; it is told on return.
            return;
        }
        self.sent = self.unknown.take_untold(NETS);
        if self.sent.is_empty() {
            return;
        }
        let mut call = STRIKES.call(&[&self.key]).arg(MINUTE.as_millis() as u64).arg(NETS_IN_ALL);
        for (net, count) in &self.sent {
            call = call.arg(hidden(&self.secret, *net)).arg(*count);
        }
        round.push(call);
    }

    fn settle(&mut self, answers: &mut dyn Iterator<Item = Answer>, now: Now) {
        let sent = std::mem::take(&mut self.sent);
        // At most once: a batch whose answer was lost may have been counted.
        let Some(Ok(answer)) = answers.next() else { return };
        match redis::from_owned_redis_value::<Vec<u32>>(answer) {
            Ok(totals) => {
                for ((net, _), total) in sent.into_iter().zip(totals) {
                    self.unknown.heard(net, total, now);
                }
            }
            Err(_) => METRICS.cluster_unreadable.inc(),
        }
    }

    fn due(&self) -> Option<Now> {
        Some(self.next)
    }
}

#[cfg(test)]
#[path = "counts_tests.rs"]
mod tests;
