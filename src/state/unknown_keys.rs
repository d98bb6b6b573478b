//! API keys found nowhere, remembered for seconds: a flood of bad keys must cost no store access.
//!
//! Bounded: the flood pushes out its own. Short-lived, and cleared whenever keys change, so a key made a moment ago
//! on another instance is not refused for long. Only hashes live here.

use crate::base::Now;
use crate::base::stripes::Stripes;
use crate::state::catalog::KeyHash;
use crate::state::subject::Net;
use std::time::Duration;

/// What is known not to exist, and who asks for it.
#[derive(Debug)]
pub struct UnknownKeys {
    hashes: Stripes<KeyHash, Now>,
    addrs: Stripes<Net, Tally>,
    ttl: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Tally {
    since: Now,
    count: u32,
}

const STRIPES: usize = 16;
/// 16 × 512 hashes: 8,192, less than half a megabyte.
const PER_STRIPE: usize = 512;
const MINUTE: Duration = Duration::from_secs(60);

impl UnknownKeys {
    /// Nothing is known; what will be is for `ttl`.
    pub fn new(ttl: Duration) -> Self {
        Self { hashes: Stripes::new(STRIPES), addrs: Stripes::new(STRIPES), ttl }
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
        let known = self.addrs.with_value(&net, |tally| {
            if now.since(tally.since) >= MINUTE {
                *tally = Tally { since: now, count: 0 };
            }
            tally.count = tally.count.saturating_add(1);
            tally.count
        });
        known.unwrap_or_else(|| {
            // Two first strikes at once may count as one: this is for a threshold of dozens. Quiet ones go first.
            self.addrs.insert_bounded(net, Tally { since: now, count: 1 }, PER_STRIPE, |_, tally| {
                if now.since(tally.since) >= MINUTE { 0 } else { u64::from(tally.count) }
            });
            1
        })
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
}
