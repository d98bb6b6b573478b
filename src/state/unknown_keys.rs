//! API keys found nowhere, remembered for seconds: a flood of bad keys must cost no store access.
//!
//! Bounded: the flood pushes out its own. Short-lived, and cleared whenever keys change, so a key made a moment ago
//! on another instance is not refused for long. Only hashes live here.

use crate::base::Now;
use crate::base::stripes::Stripes;
use crate::state::catalog::KeyHash;
use crate::state::subject::Net;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What is known not to exist, and who asks for it.
#[derive(Debug)]
pub struct UnknownKeys {
    hashes: Stripes<KeyHash, Now>,
    addrs: Stripes<Net, Tally>,
    ttl: Duration,
    /// Strikes the others have not been told of; empty where there are none to tell.
    untold: Mutex<HashMap<Net, u32, ahash::RandomState>>,
    told: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Tally {
    since: Now,
    count: u32,
    reported: bool,
}

const STRIPES: usize = 16;
/// 16 × 512 hashes: 8,192, less than half a megabyte.
const PER_STRIPE: usize = 512;
/// The window that strikes are counted in.
pub const MINUTE: Duration = Duration::from_secs(60);
/// Addresses whose strikes may wait to be told; of more, only these are.
const UNTOLD: usize = 1_024;

impl UnknownKeys {
    /// Nothing is known; what will be is for `ttl`.
    pub fn new(ttl: Duration) -> Self {
        Self {
            hashes: Stripes::new(STRIPES),
            addrs: Stripes::new(STRIPES),
            ttl,
            untold: Mutex::default(),
            told: AtomicBool::new(false),
        }
    }

    /// Whether the store was asked for `hash` less than the TTL ago and had none.
    pub fn contains(&self, hash: &KeyHash, now: Now) -> bool {
        self.hashes.with_value(hash, |until| now < *until).unwrap_or(false)
    }

    /// The store has no key of `hash`.
    pub fn learn(&self, hash: KeyHash, now: Now) {
        self.hashes.insert_bounded(hash, now + self.ttl, PER_STRIPE, |_, until| until.as_nanos());
    }

    /// There is a key of `hash` now.
    pub fn forget(&self, hash: &KeyHash) {
        self.hashes.remove(hash);
    }

    /// Keys have changed and it is not known which.
    pub fn clear(&self) {
        self.hashes.clear();
    }

    /// `net` came with an unknown key: how many it did in its current minute, this one included.
    pub fn strike(&self, net: Net, now: Now) -> u32 {
        if self.told.load(Ordering::Relaxed) {
            let mut untold = self.untold.lock();
            if untold.len() < UNTOLD || untold.contains_key(&net) {
                let count = untold.entry(net).or_default();
                *count = count.saturating_add(1);
            }
        }
        let known = self.addrs.with_value(&net, |tally| {
            if now.since(tally.since) >= MINUTE {
                *tally = Tally { since: now, count: 0, reported: false };
            }
            tally.count = tally.count.saturating_add(1);
            tally.count
        });
        known.unwrap_or_else(|| {
            // Two first strikes at once may count as one: this is for a threshold of dozens. Quiet ones go first.
            let first = Tally { since: now, count: 1, reported: false };
            self.addrs.insert_bounded(net, first, PER_STRIPE, |_, tally| {
                if now.since(tally.since) >= MINUTE { 0 } else { u64::from(tally.count) }
            });
            1
        })
    }

    /// Whether `net`'s current minute is to be reported: once each.
    pub fn report(&self, net: Net) -> bool {
        self.addrs.with_value(&net, |tally| !std::mem::replace(&mut tally.reported, true)).unwrap_or(false)
    }

    /// There are others who want to know.
    pub fn tell(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// Strikes since the last call, by address; at most `most` of them.
    pub fn take_untold(&self, most: usize) -> Vec<(Net, u32)> {
        let mut untold = self.untold.lock();
        let nets: Vec<Net> = untold.keys().take(most).copied().collect();
        nets.into_iter().filter_map(|net| Some((net, untold.remove(&net)?))).collect()
    }

    /// All instances together counted `total` for `net` in the current minute.
    pub fn heard(&self, net: Net, total: u32, now: Now) {
        // An address that never struck here is none of ours.
        self.addrs.with_value(&net, |tally| {
            if now.since(tally.since) < MINUTE {
                tally.count = tally.count.max(total);
            }
        });
    }

    /// Drops what is over from one stripe. How many entries went.
    pub fn sweep(&self, tick: usize, now: Now) -> usize {
        self.hashes.sweep_one(tick, |_, until| now < *until)
            + self.addrs.sweep_one(tick, |_, tally| now.since(tally.since) < MINUTE)
    }

    /// Entries held: (hashes, addresses).
    pub fn len(&self) -> (usize, usize) {
        (self.hashes.len(), self.addrs.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now::from_nanos(3_600_000_000_000);

    fn hash(n: u32) -> KeyHash {
        *blake3::hash(&n.to_le_bytes()).as_bytes()
    }

    #[test]
    fn unknown_for_a_while_and_not_once_there_is_one() {
        let unknown = UnknownKeys::new(Duration::from_secs(10));
        assert!(!unknown.contains(&hash(1), START));
        unknown.learn(hash(1), START);
        unknown.learn(hash(2), START);
        let just_before = START + Duration::from_millis(9_999);
        assert!(
            unknown.contains(&hash(1), just_before) && !unknown.contains(&hash(1), START + Duration::from_secs(10))
        );
        unknown.forget(&hash(1));
        assert!(!unknown.contains(&hash(1), START) && unknown.contains(&hash(2), START));
        unknown.clear();
        assert!(!unknown.contains(&hash(2), START));
    }

    #[test]
    fn a_flood_of_keys_and_addresses_is_bounded_and_counted() {
        let unknown = UnknownKeys::new(Duration::from_secs(10));
        let loud = Net::V4(u32::MAX);
        for n in 0..50_000 {
            unknown.learn(hash(n), START);
            unknown.strike(Net::V6(u64::from(n)), START);
            assert_eq!(unknown.strike(loud, START), n + 1, "the loudest is never pushed out by quiet ones");
        }
        let bound = STRIPES * PER_STRIPE;
        assert!(unknown.len().0 <= bound && unknown.len().1 <= bound, "{:?}", unknown.len());
        assert!(unknown.contains(&hash(49_999), START), "the newest is remembered");
        let later = START + MINUTE;
        assert_eq!(unknown.strike(loud, later), 1, "a new minute");
        for tick in 0..STRIPES {
            unknown.sweep(tick, later);
        }
        assert_eq!(unknown.len(), (0, 1));
    }

    #[test]
    fn strikes_are_told_once_and_what_others_counted_adds_up() {
        let (here, there) = (UnknownKeys::new(MINUTE), UnknownKeys::new(MINUTE));
        let net = Net::V4(7);
        here.strike(net, START);
        assert_eq!(here.take_untold(9), [], "nobody to tell");
        here.tell();
        there.tell();
        for _ in 0..40 {
            here.strike(net, START);
            there.strike(net, START);
        }
        let told: u32 = [here.take_untold(9), there.take_untold(9)].concat().iter().map(|(_, count)| count).sum();
        assert_eq!((told, here.take_untold(9)), (80, vec![]));
        here.heard(net, told, START);
        here.heard(net, 3, START);
        assert_eq!(here.strike(net, START), 81, "what is older than what is known changes nothing");
        assert!(here.report(net) && !here.report(net));
        here.heard(Net::V4(8), 500, START);
        assert_eq!(here.strike(Net::V4(8), START), 1);
        for n in 0..5_000 {
            here.strike(Net::V6(n), START);
        }
        assert_eq!(here.take_untold(usize::MAX).len(), UNTOLD);
    }
}
