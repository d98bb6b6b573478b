//! A hash map cut in power-of-two stripes, each behind its own lock on its own cache lines.
//!
//! A stripe's lock lives inside one closure: no guard is ever returned, so none can cross an await. Work inside the
//! closure must be short and must not touch another table (two stripes locked at once is a deadlock waiting).

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;

/// The map of one stripe.
pub type Stripe<K, V> = HashMap<K, V, ahash::RandomState>;

/// The striped map.
#[derive(Debug)]
pub struct Stripes<K, V> {
    stripes: Box<[CachePadded<Mutex<Stripe<K, V>>>]>,
    hasher: ahash::RandomState,
}

impl<K: Hash + Eq, V> Stripes<K, V> {
    /// `count` is rounded up to a power of two; 64 is plenty for 2–16 cores.
    pub fn new(count: usize) -> Self {
        let hasher = ahash::RandomState::new();
        let stripes = (0..count.max(1).next_power_of_two())
            .map(|_| CachePadded::new(Mutex::new(HashMap::with_hasher(hasher.clone()))))
            .collect();
        Self { stripes, hasher }
    }

    fn stripe(&self, key: &K) -> &Mutex<Stripe<K, V>> {
        // The map inside uses the hash's low bits for its slots and the top seven for its tags: take some in between.
        let index = (self.hasher.hash_one(key) >> 40) as usize & (self.stripes.len() - 1);
        &self.stripes[index]
    }

    /// Runs `work` on the stripe that holds `key`.
    pub fn with<R>(&self, key: &K, work: impl FnOnce(&mut Stripe<K, V>) -> R) -> R {
        work(&mut self.stripe(key).lock())
    }

    /// A copy of what `key` holds.
    pub fn get(&self, key: &K) -> Option<V>
    where
        V: Clone,
    {
        self.stripe(key).lock().get(key).cloned()
    }

    /// Puts `value` there; what was there before.
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        self.stripe(&key).lock().insert(key, value)
    }

    /// Takes it out.
    pub fn remove(&self, key: &K) -> Option<V> {
        self.stripe(key).lock().remove(key)
    }

    /// Runs `work` on stripe `index`: for sweepers that take one stripe a tick.
    pub fn with_stripe<R>(&self, index: usize, work: impl FnOnce(&mut Stripe<K, V>) -> R) -> R {
        work(&mut self.stripes[index & (self.stripes.len() - 1)].lock())
    }

    /// How many stripes there are.
    pub fn stripes(&self) -> usize {
        self.stripes.len()
    }

    /// Entries in all stripes; counted stripe by stripe, so only exact when nobody writes.
    pub fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.lock().len()).sum()
    }

    /// No entry at all.
    pub fn is_empty(&self) -> bool {
        self.stripes.iter().all(|stripe| stripe.lock().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_and_stripes_share_the_load() {
        let map = Stripes::new(60);
        assert_eq!(map.stripes(), 64);
        for n in 0..10_000u64 {
            assert_eq!(map.insert(n, n * 2), None);
        }
        assert_eq!(map.len(), 10_000);
        assert_eq!(map.get(&77), Some(154));
        assert_eq!(map.remove(&77), Some(154));
        assert_eq!(map.get(&77), None);
        let fullest = (0..64).map(|i| map.with_stripe(i, |s| s.len())).max();
        assert!(fullest < Some(320), "10,000 over 64 stripes is 156 each: {fullest:?}");
    }
}
