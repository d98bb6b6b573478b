//! Requests now running, counted per account (or whatever else load is compared over) by drop guards.
//!
//! A [`Load`] is one shared counter on a cache line of its own. Whoever compares loads often holds the `Load` of each
//! candidate (an account's live state does) and reads it at the price of one load; the table is for finding it once.

use crate::base::stripes::Stripes;
use crate::base::sync::{AtomicU32, Ordering};
use crossbeam::utils::CachePadded;
use std::hash::Hash;
use std::sync::Arc;

/// All counters by key: `Inflight<AccountId>`, `Inflight<(AccountId, ModelId)>`. Keys must come from the catalog, not
/// from callers.
#[derive(Debug)]
pub struct Inflight<K> {
    loads: Stripes<K, Load>,
}

/// One counter; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Load(Arc<CachePadded<AtomicU32>>);

/// One running request; dropping it ends it.
#[derive(Debug)]
#[must_use = "dropping it says the request has ended"]
pub struct InflightGuard(Load);

impl<K: Hash + Eq + Copy> Inflight<K> {
    /// Nothing runs.
    pub fn new() -> Self {
        Self { loads: Stripes::new(16) }
    }

    /// The counter of `key`, to be kept by whoever will ask again.
    pub fn of(&self, key: K) -> Load {
        self.loads.with(&key, |stripe| {
            if let Some(load) = stripe.get(&key) {
                return load.clone();
            }
            stripe.entry(key).or_default().clone()
        })
    }

    /// One more runs.
    pub fn enter(&self, key: K) -> InflightGuard {
        self.of(key).enter()
    }

    /// How many run.
    pub fn load(&self, key: &K) -> u32 {
        self.loads.with_value(key, |load| load.get()).unwrap_or(0)
    }

    /// Forgets counters nobody holds, in one stripe. How many went.
    pub fn sweep(&self, tick: usize) -> usize {
        // Guards hold their counter, and clones are only made under the stripe's lock or from another clone.
        self.loads.sweep_one(tick, |_, load| Arc::strong_count(&load.0) > 1)
    }

    /// Counters in the table.
    pub fn len(&self) -> usize {
        self.loads.len()
    }

    /// No counter at all.
    pub fn is_empty(&self) -> bool {
        self.loads.is_empty()
    }
}

impl<K: Hash + Eq + Copy> Default for Inflight<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl Load {
    /// One more runs.
    pub fn enter(&self) -> InflightGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        InflightGuard(self.clone())
    }

    /// How many run. Good for a choice, never for a limit: by the time it is compared it has changed.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for InflightGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::AccountId;

    #[test]
    fn guards_give_back_and_counters_outlive_no_one() {
        let inflight = Inflight::new();
        let account = AccountId(1);
        let (one, two) = (inflight.enter(account), inflight.of(account).enter());
        assert_eq!((inflight.load(&account), inflight.load(&AccountId(2))), (2, 0));
        drop(one);
        assert_eq!((0..16).map(|tick| inflight.sweep(tick)).sum::<usize>(), 0, "one still runs");
        assert_eq!(inflight.of(account).get(), 1);
        drop(two);
        let held = inflight.of(AccountId(3));
        assert_eq!((0..16).map(|tick| inflight.sweep(tick)).sum::<usize>(), 1);
        assert_eq!(held.get() + inflight.load(&account), 0);
    }

    /// Threads enter and leave while another sweeps: a sweep between "found" and "entered" would split the count.
    fn check(spawn: impl Fn(Box<dyn FnOnce() + Send>) -> Box<dyn FnOnce()>, rounds: usize) {
        let inflight = Arc::new(Inflight::new());
        let mut waits = Vec::new();
        for _ in 0..2 {
            let inflight = Arc::clone(&inflight);
            waits.push(spawn(Box::new(move || {
                for _ in 0..rounds {
                    let guard = inflight.enter(AccountId(1));
                    assert!((1..=2).contains(&inflight.load(&AccountId(1))), "mine is counted");
                    drop(guard);
                }
            })));
        }
        let sweeper = Arc::clone(&inflight);
        waits.push(spawn(Box::new(move || {
            for tick in 0..rounds * 16 {
                sweeper.sweep(tick);
            }
        })));
        for wait in waits {
            wait();
        }
        assert_eq!(inflight.load(&AccountId(1)), 0, "all are back");
    }

    #[cfg(feature = "shuttle")]
    #[test]
    fn model_of_inflight() {
        let spawn = |work: Box<dyn FnOnce() + Send>| -> Box<dyn FnOnce()> {
            let thread = shuttle::thread::spawn(work);
            Box::new(move || thread.join().unwrap())
        };
        shuttle::check_pct(move || check(spawn, 2), 500, 3);
    }

    #[cfg(not(feature = "shuttle"))]
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test waits for its threads itself")]
    fn sweeping_never_splits_a_count() {
        let spawn = |work: Box<dyn FnOnce() + Send>| -> Box<dyn FnOnce()> {
            let thread = std::thread::spawn(work);
            Box::new(move || thread.join().unwrap())
        };
        check(spawn, 5_000);
    }
}
