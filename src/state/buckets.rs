//! One token bucket, and the pair of them (requests, tokens) plus the running count that one limited thing has.
//!
//! Exact: integers only. Time counts in whole microseconds, a request or token in [`UNIT`] parts, so that a limit of
//! `n` a minute refills exactly `n` parts a microsecond: no rounding, however time is cut. Nothing in here locks;
//! `limiter` holds each [`Purse`] behind one lock and decides under it in one go.
//!
//! In a cluster a purse has a [`Lease`] as well: its buckets are then what Redis was last heard to hold, and requests are
//! paid from the lease (`lease`).

use super::desk::Desk;
use super::lease::Lease;
use crate::base::Now;
use crate::state::catalog::Key;
use std::sync::Arc;
use std::time::Duration;

/// What a key or an anonymous address may use. 0 = no such limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Requests per minute.
    pub rpm: u32,
    /// Requests at once; 0: `rpm`. Means nothing without `rpm`.
    pub burst: u32,
    /// Tokens per minute, and at once.
    pub tpm: u32,
    /// Requests in flight.
    pub max_parallel: u32,
}

/// Parts of one request or token: the microseconds of a minute. The largest limit (2³² − 1) takes 2.6 × 10¹⁷ parts.
const UNIT: i64 = 60_000_000;

/// The deepest debt, in parts: a provider's absurd token count must not overflow, it may keep a key out for long.
const DEEPEST: i64 = i64::MIN / 4;

/// Parts of ours in one of Redis': there a request has 60,000, so that all of it stays below 2⁵³.
const REDIS: i64 = 1_000;

/// One bucket. `per_minute` 0: never had a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Parts in it; below zero = debt.
    balance: i64,
    /// Parts it holds at most.
    capacity: i64,
    /// Parts that flow in per microsecond.
    per_minute: u32,
}

/// The buckets and the running count of one limited thing.
#[derive(Debug, Default)]
pub(crate) struct Purse {
    pub(crate) limits: Limits,
    /// Microseconds, as `Now`'s.
    refilled: u64,
    pub(crate) requests: Bucket,
    pub(crate) tokens: Bucket,
    pub(crate) running: u32,
    /// Its account with the cluster, if there is one.
    pub(crate) lease: Option<Box<Lease>>,
}

/// Which limit said no.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// Requests per minute.
    Requests,
    /// Tokens per minute.
    Tokens,
    /// Requests in flight.
    Parallel,
    /// Dollars.
    Budget,
    /// Nobody could tell: Redis is away, and the policy is `closed`.
    Away,
}

impl Limits {
    /// The limits of `key`: its own, where it has none of its own the defaults'. A key with its own `rpm` does not
    /// inherit the default burst.
    pub fn of(key: &Key, defaults: &Self) -> Self {
        let inherited = if key.rpm.is_some() { 0 } else { defaults.burst };
        Self {
            rpm: key.rpm.unwrap_or(defaults.rpm),
            burst: key.burst.unwrap_or(inherited),
            tpm: key.tpm.unwrap_or(defaults.tpm),
            max_parallel: key.max_parallel.unwrap_or(defaults.max_parallel),
        }
    }

    /// Nothing is limited: the limiter need not be asked.
    pub const fn is_none(&self) -> bool {
        self.rpm == 0 && self.tpm == 0 && self.max_parallel == 0
    }

    /// `burst`, resolved.
    pub const fn requests_at_once(&self) -> u32 {
        if self.burst == 0 { self.rpm } else { self.burst }
    }
}

impl Bucket {
    /// Takes the limit on: a first one starts full; a changed one keeps the balance, cut to the new capacity, and is
    /// never filled up by the change. One that is taken away goes on refilling unseen, so that switching a limit off
    /// and on again forgives nothing but the time in between.
    fn set(&mut self, per_minute: u32, at_once: u32) {
        if per_minute == 0 {
            return;
        }
        let first = self.per_minute == 0;
        self.per_minute = per_minute;
        self.capacity = i64::from(at_once) * UNIT;
        self.balance = if first { self.capacity } else { self.balance.min(self.capacity) };
    }

    pub(crate) fn refill(&mut self, micros: i64) {
        let inflow = micros.saturating_mul(i64::from(self.per_minute));
        self.balance = self.balance.saturating_add(inflow).min(self.capacity);
    }

    /// `n` in parts, never more than it can ever hold: a request larger than the bucket needs a full one.
    fn need(&self, n: u64) -> i64 {
        i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(UNIT).min(self.capacity)
    }

    /// Whether `n` (or, if that is less, a full bucket) is there.
    pub(crate) fn covers(&self, n: u64) -> bool {
        self.balance >= self.need(n)
    }

    /// Takes `n`, clamped to the capacity, whether it is there or not; how much that was.
    pub(crate) fn charge(&mut self, n: u64) -> u64 {
        let taken = self.need(n);
        self.balance -= taken;
        (taken / UNIT) as u64
    }

    /// Gives `reserved` back and takes `actual`: exactly, debt and all.
    pub(crate) fn adjust(&mut self, reserved: u64, actual: u64) {
        let difference = i128::from(reserved) - i128::from(actual);
        let parts = (difference * i128::from(UNIT)).clamp(i128::from(DEEPEST), i128::from(i64::MAX)) as i64;
        self.balance = self.balance.saturating_add(parts).clamp(DEEPEST, self.capacity);
    }

    /// Whole ones in it; none while in debt.
    pub(crate) const fn whole(&self) -> u64 {
        if self.balance > 0 { (self.balance / UNIT) as u64 } else { 0 }
    }

    /// Whole ones that flow in within `time`.
    pub(crate) const fn inflow(&self, time: Duration) -> u64 {
        time.as_micros() as u64 * self.per_minute as u64 / UNIT as u64
    }

    /// Whole ones it holds at most.
    pub(crate) const fn holds(&self) -> u64 {
        (self.capacity / UNIT) as u64
    }

    fn time_to(&self, parts: i64) -> Duration {
        let missing = parts.saturating_sub(self.balance).max(0) as u64;
        Duration::from_micros(missing.div_ceil(u64::from(self.per_minute.max(1))))
    }

    /// Until it covers `n`.
    pub(crate) fn time_to_cover(&self, n: u64) -> Duration {
        self.time_to(self.need(n))
    }

    /// Until it is full.
    pub(crate) fn time_to_full(&self) -> Duration {
        self.time_to(self.capacity)
    }

    /// `n` in parts.
    pub(crate) const fn parts(n: i64) -> i64 {
        n.saturating_mul(UNIT)
    }

    /// Parts in it.
    pub(crate) const fn balance(&self) -> i64 {
        self.balance
    }

    /// The same bucket with `balance` parts in it.
    pub(crate) const fn with(self, balance: i64) -> Self {
        Self { balance, ..self }
    }

    /// With `parts` more in it, however many it holds.
    pub(crate) const fn plus(self, parts: i64) -> Self {
        self.with(self.balance.saturating_add(parts))
    }

    /// The same bucket, full.
    pub(crate) const fn full(self) -> Self {
        self.with(self.capacity)
    }

    /// One of `n` parts of it, but room for one request at least. It refills as the whole does: time must be shared out.
    pub(crate) fn part_of(self, n: u32) -> Self {
        let n = i64::from(n.max(1));
        let capacity = (self.capacity / n).max(UNIT.min(self.capacity));
        Self { balance: (self.balance / n).min(capacity), capacity, per_minute: self.per_minute }
    }

    /// With what is in it, cut to `other`'s measure.
    pub(crate) fn like(self, other: &Self) -> Self {
        other.with(self.balance.min(other.capacity))
    }

    /// What is in it, as Redis counts: 1,000 times coarser.
    pub(crate) const fn for_redis(&self) -> i64 {
        self.balance.div_euclid(REDIS)
    }

    /// Redis says what is in it.
    pub(crate) fn set_from_redis(&mut self, parts: i64) {
        if self.per_minute > 0 {
            self.balance = parts.saturating_mul(REDIS).clamp(DEEPEST, self.capacity);
        }
    }

    const fn is_full(&self) -> bool {
        self.balance >= self.capacity
    }
}

impl Purse {
    /// A full one.
    pub(crate) fn new(limits: &Limits, now: Now) -> Self {
        let mut purse = Self { refilled: now.as_nanos() / 1_000, ..Self::default() };
        purse.set(limits);
        purse
    }

    #[cold]
    fn set(&mut self, limits: &Limits) {
        self.limits = *limits;
        if let Some(lease) = self.lease.as_deref_mut() {
            lease.forget_refusals();
        }
        self.requests.set(limits.rpm, limits.requests_at_once());
        self.tokens.set(limits.tpm, limits.tpm);
    }

    /// What has flowed in by `now`, and `limits` if they have changed. A `now` from before the last one (another core
    /// read its clock earlier) adds nothing and takes nothing back.
    pub(crate) fn refresh(&mut self, limits: &Limits, now: Now) {
        self.refill(now);
        if self.limits != *limits {
            self.set(limits);
        }
    }

    fn refill(&mut self, now: Now) {
        let micros = now.as_nanos() / 1_000;
        if micros > self.refilled {
            let passed = i64::try_from(micros - self.refilled).unwrap_or(i64::MAX);
            self.refilled = micros;
            self.requests.refill(passed);
            self.tokens.refill(passed);
        }
    }

    /// Which limit stands in the way of one more request of `estimate` tokens: the one that will longest.
    pub(crate) fn refuses(&self, estimate: u64) -> Option<Which> {
        let requests = self.limits.rpm > 0 && !self.requests.covers(1);
        let tokens = self.limits.tpm > 0 && !self.tokens.covers(estimate);
        match (requests, tokens) {
            (true, true) if self.tokens.time_to_cover(estimate) > self.requests.time_to_cover(1) => Some(Which::Tokens),
            (true, _) => Some(Which::Requests),
            (false, true) => Some(Which::Tokens),
            (false, false) if self.limits.max_parallel > 0 && self.running >= self.limits.max_parallel => {
                Some(Which::Parallel)
            }
            (false, false) => None,
        }
    }

    /// Takes one request, a slot, and `estimate` tokens; how many tokens were reserved.
    pub(crate) fn charge(&mut self, estimate: u64) -> Option<u64> {
        if self.limits.rpm > 0 {
            self.requests.charge(1);
        }
        self.running += 1;
        (self.limits.tpm > 0).then(|| self.tokens.charge(estimate))
    }

    /// All or nothing: which limit refuses, or what was reserved (`None` when tokens are not limited).
    pub(crate) fn take(&mut self, estimate: u64) -> Result<Option<u64>, Which> {
        match self.refuses(estimate) {
            Some(which) => Err(which),
            None => Ok(self.charge(estimate)),
        }
    }

    /// Replaces `reserved` tokens by the `actual` ones. The desk, when the cluster should hear of it within a while.
    pub(crate) fn settle(&mut self, reserved: u64, actual: u64, now: Now) -> Option<Arc<Desk>> {
        if let Some(lease) = self.lease.as_deref_mut() {
            return lease.settle(reserved, actual);
        }
        self.refill(now);
        self.tokens.adjust(reserved, actual);
        None
    }

    /// Gives the slot back. The desk, when others could use it, and whether at once.
    pub(crate) fn leave(&mut self) -> Option<(Arc<Desk>, bool)> {
        self.running = self.running.saturating_sub(1);
        if self.limits.max_parallel == 0 {
            return None;
        }
        self.lease.as_deref_mut()?.freed(self.running)
    }

    /// Forgetting it now would change no answer.
    pub(crate) fn is_idle(&mut self, now: Now) -> bool {
        self.refill(now);
        let settled = self.lease.as_deref().is_none_or(|lease| lease.is_idle(now));
        self.running == 0 && self.requests.is_full() && self.tokens.is_full() && settled
    }
}

#[cfg(test)]
#[path = "buckets_tests.rs"]
mod tests;
