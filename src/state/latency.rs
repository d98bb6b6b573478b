//! How fast a model answers on an account: a decayed mean of first-byte times, in one atomic word.
//!
//! Written once an attempt, read for each candidate of a `latency_based` model. Two writers at once both count (a
//! compare-and-swap loop); a reader sees one or the other. Knows nothing of who rests.

use crate::base::Now;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A value not renewed for so long is tried again, by one attempt.
pub const STALE: Duration = Duration::from_secs(30);

/// How fast the past fades.
const FADE: Duration = Duration::from_secs(10);

/// What a failure counts as at least.
const FAILURE: Duration = Duration::from_secs(10);

/// High half: mean in microseconds, 0 = never measured. Low half: when last written or claimed, in 1/64 s.
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

/// What is known of a target's speed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speed {
    /// Nothing, or nothing recent: somebody should try it (see [`Latency::claim`]).
    Unknown,
    /// Nothing yet, but somebody is trying.
    BeingTried,
    /// Mean time to the first byte.
    Micros(u32),
}

fn tick(now: Now) -> u32 {
    // 64ths of a second: wraps after two years, and then one value looks stale or fresh for a moment.
    (now.as_nanos() / 15_625_000) as u32
}

const fn pack(micros: u32, at: u32) -> u64 {
    (micros as u64) << 32 | at as u64
}

const fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

impl Latency {
    /// What is known at `now`.
    pub fn speed(&self, now: Now) -> Speed {
        let word = self.0.load(Ordering::Relaxed);
        let (micros, at) = unpack(word);
        let old = word == 0 || tick(now).wrapping_sub(at) >= STALE.as_secs() as u32 * 64;
        match (micros, old) {
            (_, true) => Speed::Unknown,
            (0, false) => Speed::BeingTried,
            (micros, false) => Speed::Micros(micros),
        }
    }

    /// Asks to be the one who tries a target of unknown speed. At most one attempt per [`STALE`] gets it.
    pub fn claim(&self, now: Now) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        self.speed(now) == Speed::Unknown
            && self
                .0
                // The tick is never 0 here (`Now` starts at an hour), so a claim differs from "never touched".
                .compare_exchange(word, pack(unpack(word).0, tick(now)), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// The first byte came after `took`.
    pub fn observe(&self, took: Duration, now: Now) {
        self.update(now, |mean, age| {
            let took = micros(took);
            if mean == 0 {
                return took;
            }
            let weight = (1.0 - (-age.as_secs_f64() / FADE.as_secs_f64()).exp()).max(0.05);
            (f64::from(mean) + weight * (f64::from(took) - f64::from(mean))) as u32
        });
    }

    /// The attempt failed: counts as a very slow answer, so that a target which fails fast does not look fast.
    pub fn observe_failure(&self, now: Now) {
        self.update(now, |mean, _| mean.max(micros(FAILURE) / 2).saturating_mul(2).min(micros(FAILURE) * 6));
    }

    fn update(&self, now: Now, next: impl Fn(u32, Duration) -> u32) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (mean, at) = unpack(word);
            let age = Duration::from_millis(u64::from(tick(now).wrapping_sub(at)) * 1000 / 64);
            Some(pack(next(mean, age).max(1), tick(now)))
        });
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Now = Now::from_nanos(3_600_000_000_000);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_unknown_target_is_tried_by_one_at_a_time_and_again_when_stale() {
        let latency = Latency::default();
        assert_eq!(latency.speed(T0), Speed::Unknown);
        assert!(latency.claim(T0) && !latency.claim(T0));
        assert_eq!(latency.speed(T0), Speed::BeingTried);
        latency.observe(200 * MS, T0 + 200 * MS);
        assert_eq!(latency.speed(T0 + 200 * MS), Speed::Micros(200_000));
        assert_eq!(latency.speed(T0 + STALE + 250 * MS), Speed::Unknown);
        assert!(latency.claim(T0 + STALE + 250 * MS));
        assert_eq!(latency.speed(T0 + STALE + 250 * MS), Speed::Micros(200_000), "its old value while it is tried");
    }

    #[test]
    fn the_mean_follows_and_failures_weigh_in() {
        let latency = Latency::default();
        latency.observe(100 * MS, T0);
        latency.observe(200 * MS, T0 + 10 * Duration::from_secs(1));
        let Speed::Micros(mean) = latency.speed(T0 + 10 * Duration::from_secs(1)) else { panic!() };
        assert!((160_000..166_000).contains(&mean), "1 - 1/e of the way: {mean}");
        latency.observe_failure(T0 + 10 * Duration::from_secs(1));
        let Speed::Micros(mean) = latency.speed(T0 + 10 * Duration::from_secs(1)) else { panic!() };
        assert_eq!(mean, 10_000_000);
        for _ in 0..9 {
            latency.observe_failure(T0 + 10 * Duration::from_secs(1));
        }
        assert_eq!(latency.speed(T0 + 10 * Duration::from_secs(1)), Speed::Micros(60_000_000), "capped at a minute");
    }
}
