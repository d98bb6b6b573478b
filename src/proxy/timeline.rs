//! The attempts of one request that did not go straight through: which account, when, how long, and how it ended.
//!
//! Nothing is kept, and nothing allocated, until an attempt fails: a row of the log then says what its client waited
//! for. A bounded number of attempts is remembered; their number is in the row anyway.

use super::attempt::Failed;
use crate::base::Now;
use crate::routing::Target;
use crate::upstream::{CallErrorKind, Deadline};
use serde_json::{Value, json};

/// Attempts told of at most.
const MOST: usize = 32;

/// What happened so far.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    failed: Vec<Value>,
}

impl Timeline {
    /// The attempt at `target`, begun at `began`, failed at `now`.
    pub(super) fn add(&mut self, target: &Target, failed: &Failed, began: Now, now: Now, started: Now) {
        if self.failed.len() == MOST {
            return;
        }
        let mut entry = attempt(target, began.since(started).as_millis() as u64);
        entry["took_ms"] = (now.since(began).as_millis() as u64).into();
        match failed {
            Failed::Refused { status, .. } => entry["status"] = status.as_u16().into(),
            Failed::Call(error) => entry["error"] = word(error.kind).into(),
        }
        self.failed.push(entry);
    }

    /// As the log keeps it; `None` when none failed. `last`: the attempt after those, if there was one, and how the
    /// request ended. `attempts`: how many there were.
    pub(super) fn text(&self, attempts: u32, last: Option<&Target>, status: u16) -> Option<Box<str>> {
        let before = self.failed.last()?;
        let mut all = self.failed.clone();
        if let Some(target) = last.filter(|_| attempts as usize > all.len()) {
            let sum = |name: &str| before[name].as_u64().unwrap_or_default();
            let mut entry = attempt(target, sum("at_ms") + sum("took_ms"));
            entry["status"] = status.into();
            all.push(entry);
        }
        Some(Value::Array(all).to_string().into())
    }
}

fn attempt(target: &Target, at_ms: u64) -> Value {
    let account = target.account();
    json!({
        "provider": &*account.provider.name,
        "account": &*account.label,
        "model": target.model.name(),
        "at_ms": at_ms,
    })
}

const fn word(kind: CallErrorKind) -> &'static str {
    match kind {
        CallErrorKind::Connect => "connect",
        CallErrorKind::Tls => "tls",
        CallErrorKind::Timeout(Deadline::Connect) => "connect timeout",
        CallErrorKind::Timeout(Deadline::FirstByte) => "first byte timeout",
        CallErrorKind::Timeout(_) => "timeout",
        CallErrorKind::Closed => "closed",
        CallErrorKind::Truncated => "truncated",
        CallErrorKind::Protocol(_) => "protocol",
        CallErrorKind::Io => "broken",
        CallErrorKind::ClientBody => "client",
    }
}
