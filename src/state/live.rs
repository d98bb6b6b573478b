//! The live record of each account: its rest, its locks, what runs on it, how fast it answers.
//!
//! One record an account for the life of the process, found once per publication of the catalog and carried beside the
//! account from then on: a request asks it with a few atomic loads and never looks it up. Whatever changes a rest
//! returns the [`Delta`] to tell, once; what peers tell comes in through [`Live::apply`] and is never told again.

use super::cooldowns::{Admit, Cooldown};
use super::delta::Delta;
use super::latency::Latency;
use super::model_locks::ModelLocks;
use super::rest::{Breaker, Penalty, Reason, Rest};
use crate::base::stripes::Stripes;
use crate::base::{AccountId, ModelId, Now};
use crossbeam::utils::CachePadded;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Records in one of the 64 stripes beyond which another instance's word makes none: 65,536 in all.
const IN_A_STRIPE: usize = 1024;

/// All live records of this instance.
#[derive(Debug)]
pub struct Live {
    accounts: Stripes<AccountId, Arc<AccountLive>>,
}

/// One account's live record.
#[derive(Debug)]
pub struct AccountLive {
    id: AccountId,
    cooldown: Cooldown,
    locks: ModelLocks,
    latencies: Mutex<HashMap<ModelId, Arc<Latency>, ahash::RandomState>>,
    // Written by every attempt: on a cache line of its own, so that checks of rests stay in every core's cache.
    running: CachePadded<AtomicU32>,
}

/// One attempt running on an account; gives its place back when dropped.
#[derive(Debug)]
pub struct Running(Arc<AccountLive>);

/// The one attempt that tries a half-open account. Dropped without a verdict, the next attempt is the probe: so keep it
/// until the verdict was applied.
#[derive(Debug)]
pub struct Probe {
    account: Arc<AccountLive>,
    token: u64,
}

/// Who rests, until when and why: a row of `GET /api/cooldowns`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resting {
    /// Whose.
    pub account: AccountId,
    /// One model's lock; `None`: the account as a whole.
    pub model: Option<ModelId>,
    /// When it ends. For an account it may have passed: then it is half-open and waits for its probe.
    pub until: Now,
    /// How often it grew.
    pub level: u8,
    /// Why.
    pub reason: Reason,
}

/// What applying a verdict led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// To tell the others, if anything changed.
    pub delta: Option<Delta>,
    /// Failures within the window that this instance counts now, this one included; 0 = it did not count. Where
    /// instances sum up, each non-zero outcome is one failure to spend.
    pub failures: u32,
}

impl Live {
    /// No account yet.
    pub fn new() -> Self {
        Self { accounts: Stripes::new(64) }
    }

    /// The record of `account`, made when there is none.
    pub fn of(&self, account: AccountId) -> Arc<AccountLive> {
        self.accounts.with(&account, |stripe| {
            Arc::clone(stripe.entry(account).or_insert_with(|| Arc::new(AccountLive::new(account))))
        })
    }

    /// News from another instance. Whether it was news here. It may be of an account that is not known here yet; of so
    /// many that only a mistake or malice can have named them, none is remembered more.
    pub fn apply(&self, delta: &Delta, now: Now) -> bool {
        let record = self.accounts.with(&delta.account, |stripe| {
            let known = stripe.get(&delta.account).map(Arc::clone);
            known.or_else(|| {
                (stripe.len() < IN_A_STRIPE).then(|| {
                    let record = Arc::new(AccountLive::new(delta.account));
                    stripe.insert(delta.account, Arc::clone(&record));
                    record
                })
            })
        });
        record.is_some_and(|record| record.apply(delta.model, delta.rest, now))
    }

    /// Who rests now, ordered by account; accounts before their models.
    pub fn resting(&self, now: Now) -> Vec<Resting> {
        let mut rows = Vec::new();
        for Delta { account, model, rest, .. } in self.snapshot(now) {
            // An ended lock is over; an ended cooldown still waits for its probe.
            if rest.is_live() && (model.is_none() || rest.until > now) {
                rows.push(Resting { account, model, until: rest.until, level: rest.level, reason: rest.reason });
            }
        }
        rows.sort_unstable_by_key(|row| (row.account, row.model));
        rows
    }

    /// All there is to tell a newcomer, tombstones included.
    pub fn snapshot(&self, now: Now) -> Vec<Delta> {
        let mut all = Vec::new();
        for record in self.records() {
            all.extend(record.told(None, record.cooldown.rest(now), Delta::LONG_AGO));
            let locks = record.locks.rests(now).into_iter();
            all.extend(locks.filter_map(|(model, rest)| record.told(Some(model), Some(rest), Delta::LONG_AGO)));
        }
        all
    }

    /// An operator ends the account's rest and all its locks. What to tell; empty when nothing rested.
    pub fn unlock(&self, account: AccountId, now: Now) -> Vec<Delta> {
        let Some(record) = self.accounts.get(&account) else { return Vec::new() };
        let mut told: Vec<_> = record.told(None, record.cooldown.unlock(now), now).into_iter().collect();
        for (model, rest) in record.locks.rests(now) {
            if rest.is_live() {
                told.extend(record.told(Some(model), record.locks.unlock(model, now), now));
            }
        }
        told
    }

    /// An operator ends one lock.
    pub fn unlock_model(&self, account: AccountId, model: ModelId, now: Now) -> Option<Delta> {
        let record = self.accounts.get(&account)?;
        record.told(Some(model), record.locks.unlock(model, now), now)
    }

    /// Forgets, in stripe `index`, what need not be remembered; call it for one stripe a tick.
    pub fn sweep(&self, index: usize, now: Now) {
        let records: Vec<_> = self.accounts.with_stripe(index, |stripe| stripe.values().cloned().collect());
        for record in records {
            record.locks.sweep(now);
        }
    }

    /// Drops the records of accounts that are gone, unless something about them must still be remembered or somebody
    /// holds them: a publication under way may have found one that `keep` does not know of yet.
    pub fn retain(&self, keep: impl Fn(AccountId) -> bool, now: Now) {
        for index in 0..self.accounts.stripes() {
            self.accounts.with_stripe(index, |stripe| {
                stripe.retain(|&id, record| {
                    // Records are only cloned under their stripe's lock: a count of one is final while we hold it.
                    keep(id)
                        || Arc::strong_count(record) > 1
                        || record.cooldown.rest(now).is_some()
                        || !record.locks.rests(now).is_empty()
                });
            });
        }
    }

    fn records(&self) -> Vec<Arc<AccountLive>> {
        // Copied out first: a record's own lock is never taken under a stripe's for long.
        (0..self.accounts.stripes())
            .flat_map(|index| self.accounts.with_stripe(index, |stripe| stripe.values().cloned().collect::<Vec<_>>()))
            .collect()
    }
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

impl AccountLive {
    /// Healthy and idle.
    pub fn new(id: AccountId) -> Self {
        Self {
            id,
            cooldown: Cooldown::new(),
            locks: ModelLocks::default(),
            latencies: Mutex::default(),
            running: CachePadded::new(AtomicU32::new(0)),
        }
    }

    /// Whose record it is.
    pub fn id(&self) -> AccountId {
        self.id
    }

    /// Until when this account is of no use for `model`, without entering: `None` = it may be tried.
    pub fn resting(&self, model: Option<ModelId>, now: Now) -> Option<Now> {
        let account = self.cooldown.resting(now);
        let lock = model.and_then(|model| self.locks.locked(model, now)).map(|(until, _)| until);
        account.max(lock)
    }

    /// Why it is of no use for `model`, and until when; for the answer when nobody is left.
    pub fn why(&self, model: Option<ModelId>, now: Now) -> Option<(Now, Reason)> {
        let account = self.cooldown.resting(now).map(|until| {
            let reason = self.cooldown.rest(now).map_or(Reason::Failing, |rest| rest.reason);
            (until, reason)
        });
        account.max(model.and_then(|model| self.locks.locked(model, now)))
    }

    /// Lets an attempt for a model that is not locked in: `Ok(None)` plainly, `Ok(Some(probe))` as the one probe.
    pub fn admit(self: &Arc<Self>, now: Now) -> Result<Option<Probe>, Now> {
        match self.cooldown.admit(now) {
            Admit::Open => Ok(None),
            Admit::Probe(token) => Ok(Some(Probe { account: Arc::clone(self), token })),
            Admit::Resting(until) => Err(until),
            Admit::ProbeTaken => Err(now),
        }
    }

    /// Applies a verdict on an attempt that began at `started`. `model` is `None` for names outside the catalog: they
    /// get no lock.
    pub fn punish(&self, penalty: &Penalty, model: Option<ModelId>, started: Now, now: Now) -> Outcome {
        match (penalty, model) {
            (Penalty::None, _) | (Penalty::LockModel(_), None) => Outcome::default(),
            (Penalty::CoolAccount(cost), _) => {
                Outcome { delta: self.told(None, self.cooldown.trip(cost, started, now), started), failures: 0 }
            }
            (Penalty::LockModel(cost), Some(model)) => {
                let rest = self.locks.trip(model, cost, started, now);
                Outcome { delta: self.told(Some(model), rest, started), failures: 0 }
            }
            (Penalty::CountFailure(breaker), _) => {
                let counted = self.cooldown.fail(breaker, started, now);
                Outcome { delta: self.told(None, counted.opened, started), failures: counted.failures }
            }
        }
    }

    /// How often the account's own rest was cleared: what is counted towards its breaker belongs to one generation.
    pub fn generation(&self) -> u32 {
        self.cooldown.generation()
    }

    /// The instances' sum says that the breaker opens.
    pub fn open(&self, breaker: &Breaker, started: Now, now: Now) -> Option<Delta> {
        self.told(None, self.cooldown.open(breaker, started, now), started)
    }

    /// An attempt that began at `started` succeeded (its head said so). Two loads while all is well. What to tell:
    /// the account's clearing, the lock's.
    pub fn succeed(&self, model: Option<ModelId>, started: Now, now: Now) -> [Option<Delta>; 2] {
        [
            self.told(None, self.cooldown.succeed(started, now), now),
            model.and_then(|model| self.told(Some(model), self.locks.succeed(model, started, now), now)),
        ]
    }

    /// Attempts running now.
    pub fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    /// One attempt more, until the guard drops.
    pub fn enter(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(self))
    }

    /// The speed record of a model; made when there is none. For models of the catalog's routes only.
    pub fn latency(&self, model: ModelId) -> Arc<Latency> {
        Arc::clone(self.latencies.lock().entry(model).or_default())
    }

    /// How many locks are remembered.
    pub fn lock_count(&self) -> usize {
        self.locks.len()
    }

    fn apply(&self, model: Option<ModelId>, rest: Rest, now: Now) -> bool {
        match model {
            None => self.cooldown.merge(rest, now),
            Some(model) => self.locks.merge(model, rest, now),
        }
    }

    fn told(&self, model: Option<ModelId>, rest: Option<Rest>, since: Now) -> Option<Delta> {
        rest.map(|rest| Delta { account: self.id, model, rest, since })
    }
}

impl Probe {
    /// Whose.
    pub fn account(&self) -> &Arc<AccountLive> {
        &self.account
    }

    /// Another instance is the probe: until `until` nobody here need ask again.
    pub fn elsewhere(self, until: Now) {
        self.account.cooldown.defer(self.token, until);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.account.cooldown.release(self.token);
    }
}

#[cfg(test)]
#[path = "live_simulation.rs"]
mod simulation;
#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
