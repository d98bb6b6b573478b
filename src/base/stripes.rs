//! A hash map cut in power-of-two stripes, each behind its own lock on its own cache lines.
//!
//! A stripe's lock lives inside one closure: no guard is ever returned, so none can cross an await. Work inside the
//! closure must be short and must not touch another table (two stripes locked at once is a deadlock waiting).
//!
//! Nothing in here grows by itself for ever: tables that strangers can fill put things in with
//! [`Stripes::insert_bounded`] or call [`make_room`], and all of them are swept, one stripe a tick.

use crate::base::sync::Mutex;
use crossbeam::utils::CachePadded;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

/// The map of one stripe.
pub type Stripe<K, V> = HashMap<K, V, ahash::RandomState>;

/// The striped map.
#[derive(Debug)]
pub struct Stripes<K, V> {
    stripes: Box<[CachePadded<Mutex<Stripe<K, V>>>]>,
    hasher: ahash::RandomState,
}

/// How many entries [`make_room`] looks at to find the one to give up.
const SAMPLE: usize = 8;

impl<K: Hash + Eq, V> Stripes<K, V> {
    /// `count` is rounded up to a power of two; 64 is plenty for 2–16 cores. Empty stripes hold no heap memory.
    pub fn new(count: usize) -> Self {
        let hasher = ahash::RandomState::new();
        let stripes = (0..count.max(1).next_power_of_two())
            .map(|_| CachePadded::new(Mutex::new(HashMap::with_hasher(hasher.clone()))))
            .collect();
        Self { stripes, hasher }
    }

    fn stripe<Q>(&self, key: &Q) -> &Mutex<Stripe<K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        // The map inside uses the hash's low bits for its slots and the top seven for its tags: take some in between.
        let index = (self.hasher.hash_one(key) >> 40) as usize & (self.stripes.len() - 1);
        &self.stripes[index]
    }

    /// Runs `work` on the stripe that holds `key`.
    pub fn with<Q, R>(&self, key: &Q, work: impl FnOnce(&mut Stripe<K, V>) -> R) -> R
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        work(&mut self.stripe(key).lock())
    }

    /// Runs `work` on what `key` holds, if it holds anything.
    pub fn with_value<Q, R>(&self, key: &Q, work: impl FnOnce(&mut V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.stripe(key).lock().get_mut(key).map(work)
    }

    /// Runs `work` on what `key` holds, after putting `make`'s key and value there if it held nothing. The owned key
    /// is only made for a newcomer, so that a lookup by `&str` allocates nothing.
    pub fn upsert<Q, R>(&self, key: &Q, make: impl FnOnce() -> (K, V), work: impl FnOnce(&mut V) -> R) -> R
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut stripe = self.stripe(key).lock();
        if let Some(value) = stripe.get_mut(key) {
            return work(value);
        }
        let (owned, value) = make();
        work(stripe.entry(owned).or_insert(value))
    }

    /// A copy of what `key` holds.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        self.stripe(key).lock().get(key).cloned()
    }

    /// Puts `value` there; what was there before.
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        self.stripe(&key).lock().insert(key, value)
    }

    /// Puts `value` there; a stripe that already holds `most` entries first gives one up, see [`make_room`]. With
    /// `n` stripes the table never holds more than `n × most`.
    pub fn insert_bounded(&self, key: K, value: V, most: usize, worth: impl Fn(&K, &V) -> u64) -> Option<V> {
        let mut stripe = self.stripe(&key).lock();
        if let Some(old) = stripe.get_mut(&key) {
            return Some(std::mem::replace(old, value));
        }
        while stripe.len() >= most.max(1) && make_room(&mut stripe, |k, v| Some(worth(k, v))) {}
        stripe.insert(key, value)
    }

    /// Takes it out.
    pub fn remove<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.stripe(key).lock().remove(key)
    }

    /// Runs `work` on stripe `index`: for sweepers that take one stripe a tick.
    pub fn with_stripe<R>(&self, index: usize, work: impl FnOnce(&mut Stripe<K, V>) -> R) -> R {
        work(&mut self.stripes[index & (self.stripes.len() - 1)].lock())
    }

    /// Drops what `keep` refuses from one stripe, the `tick`-th in turn, and gives memory back when most of it was
    /// dropped. Returns how many went. As many ticks as there are stripes sweep the whole table.
    pub fn sweep_one(&self, tick: usize, mut keep: impl FnMut(&K, &mut V) -> bool) -> usize {
        self.with_stripe(tick, |stripe| {
            let before = stripe.len();
            stripe.retain(|key, value| keep(key, value));
            if stripe.capacity() > 32 && stripe.capacity() / 4 > stripe.len() {
                stripe.shrink_to(stripe.len() * 2);
            }
            before - stripe.len()
        })
    }

    /// Takes everything out.
    pub fn clear(&self) {
        for stripe in &self.stripes {
            *stripe.lock() = HashMap::with_hasher(self.hasher.clone());
        }
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

/// Gives up the least worthy of a few entries of `stripe`; `worth` says `None` for one that must stay. `false`: all
/// that were looked at must stay.
///
/// Looks at eight entries whatever the size, so a flood pays the same for its millionth entry as for its first; the
/// hash is keyed per process, so nobody outside can choose who is looked at.
pub fn make_room<K: Hash + Eq, V, S: BuildHasher>(
    stripe: &mut HashMap<K, V, S>,
    worth: impl Fn(&K, &V) -> Option<u64>,
) -> bool {
    let least = stripe.iter().take(SAMPLE).filter_map(|(k, v)| worth(k, v)).min();
    let Some(least) = least else { return false };
    let mut looked_at = 0;
    // `extract_if` stops where it is dropped, and `retain` would walk the whole stripe.
    stripe
        .extract_if(|k, v| {
            looked_at += 1;
            looked_at <= SAMPLE && worth(k, v) == Some(least)
        })
        .next()
        .is_some()
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

    #[test]
    fn a_borrowed_key_finds_what_an_owned_one_put_there() {
        let map: Stripes<Box<str>, u32> = Stripes::new(4);
        let mut made = 0;
        for _ in 0..3 {
            map.upsert(
                "a",
                || {
                    made += 1;
                    ("a".into(), 0)
                },
                |count| *count += 1,
            );
        }
        assert_eq!((made, map.get("a"), map.with_value("b", |_| ())), (1, Some(3), None));
    }

    #[test]
    fn a_bounded_table_stays_within_its_bound_and_gives_up_the_least_worthy_it_looked_at() {
        let map = Stripes::new(4);
        for n in 0..10_000u64 {
            map.insert_bounded(n, n, 16, |_, age| *age);
        }
        assert_eq!(map.len(), 64);
        let mut one: Stripe<u64, u64> = Stripe::default();
        one.extend([(1, 30), (2, 10), (3, 20)]);
        assert!(make_room(&mut one, |_, v| (*v > 15).then_some(*v)));
        assert!(one.contains_key(&1) && one.contains_key(&2) && !one.contains_key(&3), "{one:?}");
        assert!(!make_room(&mut one, |_, _| None));
    }

    #[test]
    fn sweeping_every_stripe_once_sweeps_the_table_and_gives_memory_back() {
        let map = Stripes::new(8);
        for n in 0..8_000u64 {
            map.insert(n, ());
        }
        let gone: usize = (0..8).map(|tick| map.sweep_one(tick, |n, ()| n % 100 == 0)).sum();
        assert_eq!((gone, map.len()), (7_920, 80));
        assert!((0..8).all(|i| map.with_stripe(i, |s| s.capacity()) < 200));
    }
}
