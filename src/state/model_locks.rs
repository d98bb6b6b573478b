//! Rests of one (account, model): what a 429, a 403 or an empty quota costs.
//!
//! While nothing of an account is locked, a check is one atomic load. Only models of the catalog get a lock: names
//! that callers invent never arrive here (the caller has no [`ModelId`] for them), and [`MOST`] bounds what peers send.

use super::rest::{Cost, Held, Reason, Rest};
use crate::base::{ModelId, Now};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Locks of one account at most; beyond it a new one is not kept.
pub const MOST: usize = 4096;

/// All locks of one account.
#[derive(Debug, Default)]
pub struct ModelLocks {
    /// The latest end among its locks in nanoseconds; 0: none at all (tombstones aside).
    latest: AtomicU64,
    locks: Mutex<HashMap<ModelId, Held, ahash::RandomState>>,
}

impl ModelLocks {
    /// Until when `model` is locked, and why.
    pub fn locked(&self, model: ModelId, now: Now) -> Option<(Now, Reason)> {
        if self.latest.load(Ordering::Acquire) <= now.as_nanos() {
            return None;
        }
        let rest = self.locks.lock().get(&model)?.rest();
        (rest.is_live() && rest.until > now).then_some((rest.until, rest.reason))
    }

    /// Whether no lock is held or on trial.
    pub fn is_healthy(&self) -> bool {
        self.latest.load(Ordering::Acquire) == 0
    }

    /// Locks `model`. What to tell, if anything changed.
    pub fn trip(&self, model: ModelId, cost: &Cost, started: Now, now: Now) -> Option<Rest> {
        self.change(model, now, |held| held.trip(cost, started, now))
    }

    /// An attempt succeeded. Costs one load while nothing is locked.
    pub fn succeed(&self, model: ModelId, started: Now, now: Now) -> Option<Rest> {
        if self.is_healthy() {
            return None;
        }
        self.change(model, now, |held| held.clear(started, now))
    }

    /// An operator's word.
    pub fn unlock(&self, model: ModelId, now: Now) -> Option<Rest> {
        self.change(model, now, |held| held.unlock(now))
    }

    /// What another instance knows; whether it was news.
    pub fn merge(&self, model: ModelId, rest: Rest, now: Now) -> bool {
        self.change(model, now, |held| held.merge(rest, now)).is_some()
    }

    /// Everything remembered, tombstones included.
    pub fn rests(&self, now: Now) -> Vec<(ModelId, Rest)> {
        let locks = self.locks.lock();
        locks.iter().filter(|(_, held)| !held.lapsed(now)).map(|(model, held)| (*model, held.rest())).collect()
    }

    /// Forgets what need not be remembered.
    pub fn sweep(&self, now: Now) {
        let mut locks = self.locks.lock();
        locks.retain(|_, held| !held.lapsed(now));
        self.publish(&locks);
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.locks.lock().len()
    }

    /// None remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn change(&self, model: ModelId, now: Now, work: impl FnOnce(&mut Held) -> bool) -> Option<Rest> {
        let mut locks = self.locks.lock();
        let mut held = locks.get(&model).copied().unwrap_or(Held::NONE);
        let changed = work(&mut held);
        if held.rest() == Rest::NONE {
            return None;
        }
        if locks.len() >= MOST && !locks.contains_key(&model) {
            locks.retain(|_, held| !held.lapsed(now));
            if locks.len() >= MOST {
                return None;
            }
        }
        locks.insert(model, held);
        self.publish(&locks);
        changed.then_some(held.rest())
    }

    fn publish(&self, locks: &HashMap<ModelId, Held, ahash::RandomState>) {
        let live = locks.values().map(Held::rest).filter(Rest::is_live);
        self.latest.store(live.map(|rest| rest.until.as_nanos()).max().unwrap_or(0), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::rest::TOMBSTONE;
    use std::time::Duration;

    const S: Duration = Duration::from_secs(1);
    const T0: Now = Now::from_nanos(3_600_000_000_000);
    const LIMIT: Cost = Cost { reason: Reason::RateLimited, named: None, base: S, cap: Duration::from_secs(240) };

    #[test]
    fn a_lock_holds_one_model_only_and_ends() {
        let locks = ModelLocks::default();
        assert!(locks.trip(ModelId(1), &LIMIT, T0, T0).is_some());
        assert_eq!(locks.locked(ModelId(1), T0), Some((T0 + S, Reason::RateLimited)));
        assert_eq!(locks.locked(ModelId(2), T0), None);
        assert_eq!(locks.locked(ModelId(1), T0 + S), None);
    }

    #[test]
    fn a_short_lock_does_not_hide_a_long_one() {
        let locks = ModelLocks::default();
        locks.trip(ModelId(1), &Cost { named: Some(60 * S), ..LIMIT }, T0, T0);
        locks.trip(ModelId(2), &LIMIT, T0, T0);
        assert!(locks.locked(ModelId(1), T0 + 59 * S).is_some());
        locks.unlock(ModelId(1), T0 + S);
        assert!(locks.locked(ModelId(1), T0 + S).is_none());
    }

    #[test]
    fn fifty_in_flight_raise_it_once_and_an_old_success_clears_nothing() {
        let locks = ModelLocks::default();
        let told =
            (0..50).filter_map(|n| locks.trip(ModelId(1), &LIMIT, T0 + Duration::from_micros(n), T0 + S)).count();
        assert_eq!((told, locks.rests(T0 + S)[0].1.level), (1, 0));
        assert_eq!(locks.succeed(ModelId(1), T0, T0 + 2 * S), None);
        assert!(!locks.is_healthy());
        assert!(locks.succeed(ModelId(1), T0 + 2 * S, T0 + 3 * S).is_some());
        assert!(locks.is_healthy());
        assert_eq!(locks.succeed(ModelId(2), T0 + 2 * S, T0 + 3 * S), None);
        assert_eq!(locks.len(), 1, "a success leaves no entry behind");
        locks.sweep(T0 + 3 * S + TOMBSTONE);
        assert!(locks.is_empty());
    }

    #[test]
    fn what_peers_send_is_bounded() {
        let locks = ModelLocks::default();
        for n in 0..(MOST as u64 + 100) {
            locks.trip(ModelId(n), &LIMIT, T0, T0);
        }
        assert_eq!(locks.len(), MOST);
        // Once they lapse there is room again.
        let later = T0 + TOMBSTONE + 2 * S;
        assert!(locks.trip(ModelId(u64::MAX), &LIMIT, later, later).is_some());
        assert_eq!(locks.len(), 1);
    }
}
