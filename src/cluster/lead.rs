//! Leases on work that a deployment needs done once; each under a number that only rises.
//!
//! A lease counts from the moment its renewal was *sent* and ends here before it does in Redis. While Redis is away all
//! are cut off and each does the work itself: only work that is harmless when done twice is led this way.

use super::call::{Answer, Script, script};
use super::codec::Names;
use super::{Part, Round};
use crate::base::Now;
use crate::state::lead::Lead;
use redis::Value;
use std::sync::Arc;
use std::time::Duration;

static LEAD: Script = script!("lead.lua");
static UNLEAD: Script = script!("unlead.lua");

const TTL: Duration = Duration::from_secs(15);
const EVERY: Duration = Duration::from_secs(5);
/// Ends so much earlier here.
const MARGIN: Duration = Duration::from_secs(1);

/// Seeks or renews one lease.
pub(super) struct Leading {
    keys: [Vec<u8>; 2],
    instance: String,
    lead: Arc<Lead>,
    next: Now,
    sent: Now,
}

impl Leading {
    /// The lease on `work`.
    pub(super) fn new(names: &Names, work: &str, epoch: u64, lead: Arc<Lead>) -> Self {
        let instance = format!("{epoch:016x}");
        Self { keys: names.lease(work), instance, lead, next: Now::default(), sent: Now::default() }
    }
}

impl Part for Leading {
    fn gather(&mut self, round: &mut Round<'_>) {
        if !round.up {
            self.lead.cut_off();
            self.next = round.now + EVERY;
        } else if round.now >= self.next {
            self.sent = round.now;
            self.next = round.now + EVERY;
            let [lease, counter] = &self.keys;
            let ttl = TTL.as_millis() as u64;
            round.push(LEAD.call(&[lease, counter]).arg(&self.instance).arg(ttl));
        }
    }

    fn settle(&mut self, answers: &mut dyn Iterator<Item = Answer>, _now: Now) {
        match answers.next() {
            Some(Ok(Value::Int(fence))) if fence > 0 => {
                self.lead.hold(self.sent + TTL - MARGIN, u64::try_from(fence).unwrap_or_default());
            }
            Some(Ok(_)) => self.lead.follow(),
            // Not known who leads: what is held lapses by itself, and a round that finds Redis away cuts all off.
            Some(Err(_)) | None => {}
        }
    }

    fn due(&self) -> Option<Now> {
        Some(self.next)
    }

    fn returned(&mut self, now: Now) {
        self.next = now;
    }

    fn close(&mut self, round: &mut Round<'_>) {
        if self.lead.fence() > 0 {
            round.push(UNLEAD.call(&[&self.keys[0]]).arg(&self.instance));
        }
    }
}
