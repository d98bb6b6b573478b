//! One rest: of an account (a cooldown) or of one model on it (a lock); how rests grow, end and merge.
//!
//! A rest is data with a total order, and merging two takes the greater: so any number of instances that hear of the
//! same rests in any order, late or twice, agree. Must never read time or hold a lock; a rest that is wrong costs an
//! account some minutes, so whoever made it can be asked (`reason`) and overruled ([`Held::unlock`]).

use crate::base::Now;
use std::time::Duration;

/// Deadlines closer than this are one and the same: no news.
pub const SAME: Duration = Duration::from_millis(50);

/// A tombstone outlives what it cancelled by at least this, so that no late message brings the dead one back.
pub const TOMBSTONE: Duration = Duration::from_secs(30 * 60);

/// Why somebody rests. The order only breaks ties between instances.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Not resting: a success or an operator ended it.
    Cleared = 0,
    /// 429 or 408.
    RateLimited = 1,
    /// 403: this account may not use this model.
    Forbidden = 2,
    /// 404: this account does not know the model.
    ModelMissing = 3,
    /// 402, or words about quota, credit and billing.
    Quota = 4,
    /// The breaker: failures in a row of seconds.
    Failing = 5,
    /// The provider refuses the credential.
    Credentials = 6,
}

/// A rest. Ordered by (generation, deadline, level, reason): merging takes the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rest {
    /// Rises with each clearing, so that a clearing beats the rest it cancels however long that was.
    pub generation: u32,
    /// When it ends; 0 in a tombstone.
    pub until: Now,
    /// How often it grew: n in base × 2ⁿ.
    pub level: u8,
    /// Why.
    pub reason: Reason,
    /// How long it must be remembered: its own end, or in a tombstone the end of what it cancelled (≥ 30 min).
    pub keep: Now,
}

/// How long a failure rests somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Why.
    pub reason: Reason,
    /// What the provider itself named, if it did: goes before the backoff.
    pub named: Option<Duration>,
    /// First rest; doubles with each level.
    pub base: Duration,
    /// Longest rest of the backoff.
    pub cap: Duration,
}

/// What a failure costs, as the verdict says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Penalty {
    /// Nothing: nobody here is at fault.
    None,
    /// The account rests, for every model.
    CoolAccount(Cost),
    /// The model rests on this account.
    LockModel(Cost),
    /// One failure counts towards the account's breaker.
    CountFailure(Breaker),
}

/// When a breaker opens and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breaker {
    /// Failures within `window` that open it.
    pub failures: u32,
    /// The window.
    pub window: Duration,
    /// First rest; doubles.
    pub open: Duration,
    /// Its cap.
    pub cap: Duration,
}

/// A rest and when it last changed here.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    rest: Rest,
    changed: Now,
}

impl Reason {
    const ALL: [Self; 7] = [
        Self::Cleared,
        Self::RateLimited,
        Self::Forbidden,
        Self::ModelMissing,
        Self::Quota,
        Self::Failing,
        Self::Credentials,
    ];

    /// As the control plane and logs write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cleared => "cleared",
            Self::RateLimited => "rate_limited",
            Self::Forbidden => "forbidden",
            Self::ModelMissing => "model_missing",
            Self::Quota => "quota",
            Self::Failing => "failing",
            Self::Credentials => "credentials",
        }
    }

    /// The reason a peer wrote as a number.
    pub fn from_u8(n: u8) -> Option<Self> {
        Self::ALL.get(n as usize).copied()
    }

    /// The provider's own limit (a client sees 429), not a defect of the provider or of ours (503).
    pub const fn is_limit(self) -> bool {
        matches!(self, Self::RateLimited | Self::Quota)
    }
}

impl Rest {
    /// Never rested.
    pub const NONE: Self =
        Self { generation: 0, until: Now::from_nanos(0), level: 0, reason: Reason::Cleared, keep: Now::from_nanos(0) };

    /// Whether it says that somebody rests or rested (and is on trial), rather than that he no longer does.
    pub fn is_live(&self) -> bool {
        self.reason != Reason::Cleared
    }

    /// The greater: commutative, associative, idempotent.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        self.max(other)
    }

    /// Whether somebody who knows `old` needs to hear of it.
    pub fn beats(&self, old: &Self) -> bool {
        self > old && self.is_news_over(old)
    }

    /// Whether `self`, which won over `old`, is worth telling: deadlines within [`SAME`] are equal.
    fn is_news_over(&self, old: &Self) -> bool {
        self.generation != old.generation
            || self.is_live() != old.is_live()
            || old.until.until(self.until) > SAME
            || (self.level, self.reason) > (old.level, old.reason)
    }
}

impl Cost {
    fn wait(&self, level: u8) -> Duration {
        self.named.unwrap_or_else(|| self.base.saturating_mul(1 << level.min(24)).min(self.cap))
    }
}

impl Breaker {
    /// What an opened breaker costs.
    pub const fn cost(&self) -> Cost {
        Cost { reason: Reason::Failing, named: None, base: self.open, cap: self.cap }
    }
}

impl Held {
    /// Nothing yet.
    pub const NONE: Self = Self { rest: Rest::NONE, changed: Now::from_nanos(0) };

    /// The rest as it stands.
    pub const fn rest(&self) -> Rest {
        self.rest
    }

    /// An attempt that began at `started` failed. Whether anything changed: if not, there is nothing to tell.
    ///
    /// Only an attempt that began after the last change raises the level: what was already under way then says
    /// nothing new. It may still move the deadline, when the provider names one that is clearly later.
    pub fn trip(&mut self, cost: &Cost, started: Now, now: Now) -> bool {
        let old = self.rest;
        let fresh = self.is_after(started);
        let (level, until, reason) = if !old.is_live() || self.lapsed(now) {
            if !fresh {
                return false;
            }
            (0, now + cost.wait(0), cost.reason)
        } else if fresh {
            let level = old.level.saturating_add(1).min(24);
            // Never shorter than what is told already: in one generation the later deadline wins everywhere.
            (level, (now + cost.wait(level)).max(old.until), cost.reason)
        } else {
            let (Some(named), left) = (cost.named, now.until(old.until)) else { return false };
            // `Retry-After` counts whole seconds: fifty answers of one second's traffic must not creep it onwards.
            if named <= left + Duration::from_secs(1).max(left / 4) {
                return false;
            }
            (old.level, now + named, cost.reason)
        };
        let until = until.max(Now::from_nanos(1));
        self.rest = Rest { generation: old.generation, until, level, reason, keep: until };
        self.changed = now;
        true
    }

    /// An attempt that began at `started` succeeded: ends the rest, unless the attempt is older than it.
    pub fn clear(&mut self, started: Now, now: Now) -> bool {
        self.is_after(started) && self.unlock(now)
    }

    /// Whether an attempt that began at `started` knew of the last change. One that began within the moment from reading
    /// the clock to making the change was let in without it: a rest gets [`SAME`] of doubt, or half of it when shorter.
    fn is_after(&self, started: Now) -> bool {
        let doubt = SAME.min(self.changed.until(self.rest.until) / 2);
        started > self.changed + doubt
    }

    /// Ends the rest, whoever made it. False when there was none.
    pub fn unlock(&mut self, now: Now) -> bool {
        let old = self.rest;
        if !old.is_live() {
            return false;
        }
        let keep = old.until.max(now + TOMBSTONE);
        self.rest = Rest { generation: old.generation.saturating_add(1), keep, ..Rest::NONE };
        self.changed = now;
        true
    }

    /// What another instance knows. Whether it was news here.
    pub fn merge(&mut self, other: Rest, now: Now) -> bool {
        if other <= self.rest {
            return false;
        }
        let news = other.is_news_over(&self.rest);
        self.rest = other;
        if news {
            self.changed = now;
        }
        news
    }

    /// Whether it may be forgotten: a tombstone past its time, or a rest that ended long ago and that nobody tried
    /// since.
    pub fn lapsed(&self, now: Now) -> bool {
        if self.rest.is_live() { self.rest.until + TOMBSTONE <= now } else { self.rest.keep <= now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);
    const T0: Now = Now::from_nanos(3_600_000_000_000);

    fn limit(named: Option<Duration>) -> Cost {
        Cost { reason: Reason::RateLimited, named, base: S, cap: 240 * S }
    }

    fn any_rest() -> impl Strategy<Value = Rest> {
        // Small ranges, so that ties and near ties are common.
        (0u32..3, 0u64..6, 0u8..3, 0u8..7, 0u64..3).prop_map(|(generation, step, level, reason, keep)| Rest {
            generation,
            until: Now::from_nanos(step * 30_000_000),
            level,
            reason: Reason::from_u8(reason).unwrap(),
            keep: Now::from_nanos(keep),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn merging_is_commutative_idempotent_and_free_of_order(
            rests in prop::collection::vec(any_rest(), 1..8),
            order in prop::collection::vec(0usize..8, 1..40),
        ) {
            let all = rests.iter().copied().reduce(Rest::merge).unwrap();
            // Any order, any repetition, then each once: an unreliable bus and a snapshot.
            let mut held = Held::NONE;
            for i in order.iter().map(|i| i % rests.len()).chain((0..rests.len()).rev()) {
                held.merge(rests[i], T0);
            }
            prop_assert_eq!(held.rest(), all.merge(Rest::NONE));
            prop_assert!(!held.merge(all, T0), "what is known is no news");
            for (a, b) in rests.iter().zip(rests.iter().rev()) {
                prop_assert_eq!(a.merge(*b), b.merge(*a));
            }
        }
    }

    #[test]
    fn deadlines_within_50_ms_are_no_news() {
        let mut held = Held::NONE;
        assert!(held.trip(&limit(Some(10 * S)), T0 + S, T0 + S));
        let mut near = held.rest();
        near.until = near.until + SAME;
        assert!(!held.merge(near, T0 + S));
        near.until = near.until + SAME + Duration::from_nanos(1);
        assert!(held.merge(near, T0 + S));
    }

    #[test]
    fn backoff_doubles_for_new_attempts_only_and_stops_at_the_cap() {
        let mut held = Held::NONE;
        let mut now = T0;
        for want in [1, 2, 4, 8, 16, 32, 64, 128, 240, 240] {
            let started = now + S;
            assert!(held.trip(&limit(None), started, started + S));
            assert_eq!((started + S).until(held.rest().until), want * S);
            for late in 0..50 {
                assert!(!held.trip(&limit(None), started, started + S + Duration::from_millis(late)), "same wave");
            }
            now = held.rest().until;
        }
    }

    #[test]
    fn an_attempt_let_in_while_a_rest_was_being_made_says_nothing_about_it() {
        let mut held = Held::NONE;
        assert!(held.trip(&limit(Some(10 * S)), T0, T0 + S));
        assert!(!held.clear(T0 + S + Duration::from_micros(3), T0 + 2 * S));
        assert!(held.clear(T0 + S + 2 * SAME, T0 + 2 * S));
        // After a clearing the next failure counts at once.
        let began = T0 + 2 * S + Duration::from_nanos(1);
        assert!(held.trip(&limit(Some(Duration::from_millis(20))), began, began));
        assert!(held.trip(&limit(None), began + Duration::from_millis(11), began + S), "half of a short one");
    }

    #[test]
    fn the_same_wave_moves_the_deadline_only_for_a_clearly_later_one() {
        let mut held = Held::NONE;
        assert!(held.trip(&limit(Some(10 * S)), T0, T0 + S));
        assert!(!held.trip(&limit(Some(10 * S)), T0, T0 + 2 * S), "the clock ran on, not the provider's mind");
        assert!(!held.trip(&limit(Some(2 * S)), T0, T0 + 2 * S), "shorter never wins");
        assert!(held.trip(&limit(Some(60 * S)), T0, T0 + 2 * S));
        assert_eq!((held.rest().until, held.rest().level), (T0 + 62 * S, 0));
    }

    #[test]
    fn clearing_leaves_a_tombstone_that_beats_the_rest_it_cancelled() {
        let mut held = Held::NONE;
        held.trip(&limit(Some(3600 * S)), T0 + S, T0 + 2 * S);
        let rest = held.rest();
        assert!(!held.clear(T0 + 2 * S, T0 + 3 * S), "it began before (or at) the change");
        assert!(held.clear(T0 + 3 * S, T0 + 4 * S));
        assert_eq!((held.rest().generation, held.rest().until), (1, Now::from_nanos(0)));
        assert_eq!(held.rest().keep, rest.until, "kept as long as what it cancelled");
        assert!(!held.merge(rest, T0 + 5 * S), "the dead do not return");
        assert!(!held.trip(&limit(None), T0 + 3 * S, T0 + 5 * S), "began before the clearing");
        assert!(!held.lapsed(T0 + 3601 * S) && held.lapsed(rest.until));
        assert!(held.trip(&limit(None), T0 + 5 * S, T0 + 6 * S));
        assert_eq!((held.rest().generation, held.rest().level), (1, 0));
        assert!(held.unlock(T0 + 7 * S) && !held.unlock(T0 + 7 * S));
        assert_eq!(held.rest().keep, T0 + 7 * S + TOMBSTONE, "at least half an hour");
    }

    #[test]
    fn a_rest_nobody_tried_for_half_an_hour_starts_anew() {
        let mut held = Held::NONE;
        held.trip(&limit(None), T0, T0 + S);
        held.trip(&limit(None), T0 + 2 * S, T0 + 3 * S);
        assert_eq!(held.rest().level, 1);
        let later = held.rest().until + TOMBSTONE;
        assert!(held.trip(&limit(None), later, later + S));
        assert_eq!(held.rest().level, 0);
    }
}
