//! What instances decide together about a breaker: how many failures there were, and who makes the one half-open trial.
//!
//! A failure is spent (summed up, carried over at most once); a trial is claimed (one answer, or the asker's deadline and
//! then the local decision). Closed, and while Redis is away, each instance counts and probes for itself. Nothing waits
//! in here; a full hatch drops what comes, and the local count stands.

use super::rest::Breaker;
use crate::base::bell::Bell;
use crate::base::{AccountId, Now};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// The way out; cloned to whoever may use it.
#[derive(Clone, Debug)]
pub struct Breakers(Option<Arc<Hatch>>);

/// The receiving end.
#[derive(Debug)]
pub struct BreakerCalls(Arc<Hatch>);

/// Failures of one account since the last look.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// Whose.
    pub account: AccountId,
    /// How many.
    pub count: u32,
    /// What opens at how many.
    pub breaker: Breaker,
    /// When the last one's attempt began.
    pub started: Now,
}

/// Somebody wants to make the trial. Dropping it unanswered tells him to decide alone.
#[derive(Debug)]
pub struct Claim {
    /// Of which account.
    pub account: AccountId,
    /// What the claim goes by.
    pub token: u64,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Claimed>,
}

/// What came of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claimed {
    /// The trial is the asker's.
    Granted,
    /// Another instance makes it; its claim lapses after so long at most.
    Elsewhere(Duration),
    /// There is nothing to try: the rest has changed, and the account's record knows by now.
    Changed,
}

/// The claim of a trial; ends when dropped, which must be after the verdict was applied and told.
#[derive(Debug)]
pub struct Claiming {
    hatch: Arc<Hatch>,
    account: AccountId,
    token: u64,
}

/// All that gathered since the last look.
#[derive(Debug, Default)]
pub struct Gathered {
    /// One sum an account.
    pub failed: Vec<Failed>,
    /// Who wants to make a trial.
    pub claims: Vec<Claim>,
    /// Trials that are over: (account, token).
    pub ended: Vec<(AccountId, u64)>,
}

#[derive(Debug)]
struct Hatch {
    waiting: Mutex<Waiting>,
    bell: Arc<Bell>,
    most: usize,
    tokens: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    failed: HashMap<AccountId, Failed, ahash::RandomState>,
    claims: Vec<Claim>,
    ended: Vec<(AccountId, u64)>,
}

impl Breakers {
    /// Nobody else to decide with.
    pub const fn closed() -> Self {
        Self(None)
    }

    /// With room for `most` accounts' failures, claims and ends each; and the receiving end that `bell` wakes.
    pub fn open(most: usize, bell: Arc<Bell>) -> (Self, BreakerCalls) {
        let hatch = Hatch { waiting: Mutex::default(), bell, most: most.max(1), tokens: AtomicU64::new(1) };
        let hatch = Arc::new(hatch);
        (Self(Some(Arc::clone(&hatch))), BreakerCalls(hatch))
    }

    /// One failure more of an attempt that began at `started`.
    pub fn failed(&self, account: AccountId, breaker: &Breaker, started: Now) {
        let Some(hatch) = &self.0 else { return };
        let mut waiting = hatch.waiting.lock();
        if waiting.failed.len() >= hatch.most && !waiting.failed.contains_key(&account) {
            return;
        }
        let sum = waiting.failed.entry(account).or_insert(Failed { account, count: 0, breaker: *breaker, started });
        sum.count = sum.count.saturating_add(1);
        sum.started = sum.started.max(started);
        drop(waiting);
        hatch.bell.soon();
    }

    /// Asks for the half-open trial of `account`. `None`: nobody to ask: decide alone. Wait under a deadline; an error
    /// there means the same. Keep the [`Claiming`] until the verdict was told.
    pub fn claim(&self, account: AccountId) -> Option<(Claiming, oneshot::Receiver<Claimed>)> {
        let hatch = self.0.as_ref()?;
        let token = hatch.tokens.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let mut waiting = hatch.waiting.lock();
        if waiting.claims.len() >= hatch.most {
            return None;
        }
        waiting.claims.push(Claim { account, token, reply });
        drop(waiting);
        hatch.bell.ring();
        Some((Claiming { hatch: Arc::clone(hatch), account, token }, answer))
    }
}

impl BreakerCalls {
    /// All that has gathered. Look here *before* looking at what was told: a verdict is told before its trial ends, so
    /// that nobody sees the end without the verdict.
    pub fn take(&mut self) -> Gathered {
        let mut waiting = self.0.waiting.lock();
        Gathered {
            failed: waiting.failed.drain().map(|(_, failed)| failed).collect(),
            claims: std::mem::take(&mut waiting.claims),
            ended: std::mem::take(&mut waiting.ended),
        }
    }
}

impl Drop for Claiming {
    fn drop(&mut self) {
        let mut waiting = self.hatch.waiting.lock();
        // Beyond the bound the claim lapses by its own time.
        if waiting.ended.len() < self.hatch.most {
            waiting.ended.push((self.account, self.token));
            drop(waiting);
            self.hatch.bell.soon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BREAKER: Breaker = Breaker {
        failures: 5,
        window: Duration::from_secs(30),
        open: Duration::from_secs(30),
        cap: Duration::from_secs(300),
    };

    #[test]
    fn failures_sum_up_and_are_bounded() {
        let (breakers, mut calls) = Breakers::open(2, Arc::default());
        for n in [1, 1, 2, 3] {
            breakers.failed(AccountId(n), &BREAKER, Now::from_nanos(n));
        }
        let mut failed = calls.take().failed;
        failed.sort_by_key(|one| one.account);
        let seen: Vec<_> = failed.iter().map(|one| (one.account.0, one.count, one.started.as_nanos())).collect();
        assert_eq!(seen, [(1, 2, 1), (2, 1, 2)], "the third account found no room");
        assert!(calls.take().failed.is_empty());
        Breakers::closed().failed(AccountId(1), &BREAKER, Now::from_nanos(1));
    }

    #[test]
    fn a_claim_is_answered_or_dropped_and_its_end_is_told() {
        let (breakers, mut calls) = Breakers::open(1, Arc::default());
        let (claiming, mut answer) = breakers.claim(AccountId(7)).unwrap();
        assert!(breakers.claim(AccountId(8)).is_none(), "full: decide alone");
        let claim = calls.take().claims.pop().unwrap();
        claim.reply.send(Claimed::Granted).unwrap();
        assert_eq!(answer.try_recv(), Ok(Claimed::Granted));
        assert!(calls.take().ended.is_empty());
        drop(claiming);
        assert_eq!(calls.take().ended, [(AccountId(7), claim.token)]);
        let (_claiming, mut answer) = breakers.claim(AccountId(8)).unwrap();
        drop(calls.take());
        assert!(answer.try_recv().is_err(), "nobody there");
        assert!(Breakers::closed().claim(AccountId(7)).is_none());
    }
}
