//! Whether an account as a whole may be used: its breaker and its rest, half-open trials included.
//!
//! The healthy case is one atomic load. All changes happen under the record's own small lock, which publishes the
//! gate before it lets go; nobody waits for anything else in there. Failure: none; a probe whose holder vanishes is
//! given back by its guard, one whose holder hangs may be taken over after [`PROBE_LEASE`].

use super::rest::{Breaker, Cost, Held, Rest};
use crate::base::Now;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A probe without an answer for so long no longer keeps others from probing: a slow answer is no verdict.
pub const PROBE_LEASE: Duration = Duration::from_secs(60);

/// Failure times kept at most, whatever the settings say.
const MOST_FAILURES: u32 = 1024;

/// One account's breaker and rest.
#[derive(Debug)]
pub struct Cooldown {
    /// 0: healthy. Else the rest's end in nanoseconds; when that has passed, half-open.
    gate: AtomicU64,
    /// 0: nobody probes. Else when the present probe was let in.
    probe: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    held: Held,
    failures: VecDeque<Now>,
}

/// What an account says to the next attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admit {
    /// Come in.
    Open,
    /// Come in, as the one probe; the token gives it back.
    Probe(u64),
    /// Not before then.
    Resting(Now),
    /// Half-open, and somebody else is the probe.
    ProbeTaken,
}

/// What a failure led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counted {
    /// Failures of this instance within the window, this one included; 0 when it did not count.
    pub failures: u32,
    /// The rest that began or grew by it.
    pub opened: Option<Rest>,
}

impl Cooldown {
    /// Healthy.
    pub fn new() -> Self {
        Self {
            gate: AtomicU64::new(0),
            probe: AtomicU64::new(0),
            inner: Mutex::new(Inner { held: Held::NONE, failures: VecDeque::new() }),
        }
    }

    /// Whether an attempt may start, without starting one: `None` yes (or as a probe), else when to ask again.
    pub fn resting(&self, now: Now) -> Option<Now> {
        let gate = self.gate.load(Ordering::Acquire);
        if gate == 0 {
            None
        } else if now.as_nanos() < gate {
            Some(Now::from_nanos(gate))
        } else {
            self.probe_until(now)
        }
    }

    /// Whether it never failed, or has recovered since.
    pub fn is_healthy(&self) -> bool {
        self.gate.load(Ordering::Acquire) == 0
    }

    /// Lets an attempt in, or says why not. [`Admit::Probe`] must be followed by [`Self::release`].
    pub fn admit(&self, now: Now) -> Admit {
        loop {
            let gate = self.gate.load(Ordering::Acquire);
            if gate == 0 {
                return Admit::Open;
            }
            if now.as_nanos() < gate {
                return Admit::Resting(Now::from_nanos(gate));
            }
            if self.probe_until(now).is_some() {
                return Admit::ProbeTaken;
            }
            if let Some(token) = self.take_probe(gate, now) {
                return Admit::Probe(token);
            }
        }
    }

    /// Takes the probe of the rest that ended at `gate`; `None` when somebody else did, or when the gate has moved.
    fn take_probe(&self, gate: u64, now: Now) -> Option<u64> {
        let seen = self.probe.load(Ordering::Acquire);
        let token = now.as_nanos().max(1);
        if lease_end(seen).is_some_and(|end| now < end)
            || self.probe.compare_exchange(seen, token, Ordering::AcqRel, Ordering::Acquire).is_err()
        {
            return None;
        }
        // The last probe may have spoken between the look at the gate and the taking: it moves the gate *before* it
        // gives the probe back, so an unchanged gate now means that ours is the only one.
        if self.gate.load(Ordering::Acquire) == gate {
            return Some(token);
        }
        self.release(token);
        None
    }

    /// Gives a probe back. Harmless when somebody took it over meanwhile.
    pub fn release(&self, token: u64) {
        let _ = self.probe.compare_exchange(token, 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Gives a probe back, but as one that somebody else makes until `until` ([`PROBE_LEASE`] from now at most).
    pub fn defer(&self, token: u64, until: Now) {
        let since = until.as_nanos().saturating_sub(PROBE_LEASE.as_nanos() as u64).max(1);
        let _ = self.probe.compare_exchange(token, since, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// How often it was cleared.
    pub fn generation(&self) -> u32 {
        self.inner.lock().held.rest().generation
    }

    /// The account rests. What to tell, if anything changed.
    pub fn trip(&self, cost: &Cost, started: Now, now: Now) -> Option<Rest> {
        self.change(|inner| inner.held.trip(cost, started, now))
    }

    /// A failure that counts: opens the breaker when it is one too many, or at once when it was the probe's.
    pub fn fail(&self, breaker: &Breaker, started: Now, now: Now) -> Counted {
        let mut failures = 0;
        let opened = self.change(|inner| {
            if inner.held.rest().is_live() && !inner.held.lapsed(now) {
                // Already open: only the probe (began after) has something new to say.
                return inner.held.trip(&breaker.cost(), started, now);
            }
            let most = breaker.failures.clamp(1, MOST_FAILURES);
            while inner.failures.front().is_some_and(|&first| now.since(first) >= breaker.window)
                || inner.failures.len() >= most as usize
            {
                inner.failures.pop_front();
            }
            inner.failures.push_back(now);
            failures = inner.failures.len() as u32;
            let opens = failures >= most && inner.held.trip(&breaker.cost(), started, now);
            if opens {
                inner.failures.clear();
            }
            opens
        });
        Counted { failures, opened }
    }

    /// The sum over all instances says it: open, as if our own count had.
    pub fn open(&self, breaker: &Breaker, started: Now, now: Now) -> Option<Rest> {
        self.change(|inner| {
            let closed = !inner.held.rest().is_live() || inner.held.lapsed(now);
            let opens = closed && inner.held.trip(&breaker.cost(), started, now);
            if opens {
                inner.failures.clear();
            }
            opens
        })
    }

    /// An attempt succeeded. Costs one load while healthy.
    pub fn succeed(&self, started: Now, now: Now) -> Option<Rest> {
        if self.is_healthy() {
            return None;
        }
        self.change(|inner| inner.held.clear(started, now))
    }

    /// An operator's word.
    pub fn unlock(&self, now: Now) -> Option<Rest> {
        self.change(|inner| {
            inner.failures.clear();
            inner.held.unlock(now)
        })
    }

    /// What another instance knows; whether it was news.
    pub fn merge(&self, rest: Rest, now: Now) -> bool {
        self.change(|inner| inner.held.merge(rest, now)).is_some()
    }

    /// The rest as it stands, tombstones included; `None` when there is nothing to remember.
    pub fn rest(&self, now: Now) -> Option<Rest> {
        let held = self.inner.lock().held;
        (held.rest() != Rest::NONE && !held.lapsed(now)).then(|| held.rest())
    }

    /// When to ask again while a probe keeps others out: its answer is due any moment.
    fn probe_until(&self, now: Now) -> Option<Now> {
        lease_end(self.probe.load(Ordering::Acquire))
            .filter(|&end| now < end)
            .map(|end| end.min(now + Duration::from_secs(1)))
    }

    fn change(&self, work: impl FnOnce(&mut Inner) -> bool) -> Option<Rest> {
        let mut inner = self.inner.lock();
        let changed = work(&mut inner);
        let rest = inner.held.rest();
        // Even when it was no news: a merge may have moved the deadline by some milliseconds.
        self.gate.store(if rest.is_live() { rest.until.as_nanos().max(1) } else { 0 }, Ordering::Release);
        changed.then_some(rest)
    }
}

fn lease_end(since: u64) -> Option<Now> {
    (since != 0).then(|| Now::from_nanos(since) + PROBE_LEASE)
}

impl Default for Cooldown {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::rest::Reason;

    const S: Duration = Duration::from_secs(1);
    const T0: Now = Now::from_nanos(3_600_000_000_000);
    const BREAKER: Breaker = Breaker {
        failures: 5,
        window: Duration::from_secs(30),
        open: Duration::from_secs(30),
        cap: Duration::from_secs(300),
    };

    fn opened() -> Cooldown {
        let account = Cooldown::new();
        for n in 1..=4 {
            assert_eq!(account.fail(&BREAKER, T0, T0 + S), Counted { failures: n, opened: None });
        }
        let rest = account.fail(&BREAKER, T0, T0 + S).opened.unwrap();
        assert_eq!((rest.until, rest.level, rest.reason), (T0 + 31 * S, 0, Reason::Failing));
        account
    }

    #[test]
    fn five_failures_in_thirty_seconds_open_it_and_four_or_slow_ones_do_not() {
        let account = opened();
        assert_eq!(account.admit(T0 + 30 * S), Admit::Resting(T0 + 31 * S));
        for _ in 0..50 {
            let late = account.fail(&BREAKER, T0 + S, T0 + 2 * S);
            assert_eq!(late, Counted { failures: 0, opened: None }, "in flight when it opened");
        }
        let slow = Cooldown::new();
        for n in 0..100 {
            let at = T0 + 8 * n * S;
            assert_eq!(slow.fail(&BREAKER, at, at).opened, None, "four within any thirty seconds");
        }
        assert_eq!(slow.admit(T0 + 800 * S), Admit::Open);
    }

    #[test]
    fn half_open_lets_one_probe_in_and_takes_it_back() {
        let account = opened();
        let t = T0 + 31 * S;
        let Admit::Probe(token) = account.admit(t) else { panic!("the rest is over") };
        assert_eq!(account.admit(t), Admit::ProbeTaken);
        assert!(account.resting(t).is_some());
        account.release(token);
        let Admit::Probe(token) = account.admit(t + S) else { panic!("given back without a verdict") };
        // Its failure opens it again at once, twice as long.
        let rest = account.fail(&BREAKER, t + S, t + 2 * S).opened.unwrap();
        account.release(token);
        assert_eq!((rest.level, rest.until), (1, t + 62 * S));
        // The next one's success closes it.
        let Admit::Probe(token) = account.admit(t + 62 * S) else { panic!("half-open again") };
        assert_eq!(account.succeed(T0, t + 63 * S), None, "an old slow success clears nothing");
        let rest = account.succeed(t + 62 * S, t + 63 * S).unwrap();
        account.release(token);
        assert_eq!((rest.generation, rest.is_live()), (1, false));
        assert_eq!(account.admit(t + 63 * S), Admit::Open);
        assert_eq!(account.fail(&BREAKER, t + 64 * S, t + 64 * S).failures, 1, "the count starts anew");
    }

    #[test]
    fn rests_double_up_to_the_cap() {
        let account = opened();
        let mut t = T0 + 31 * S;
        for want in [60, 120, 240, 300, 300] {
            let rest = account.fail(&BREAKER, t, t + S).opened.unwrap();
            assert_eq!((t + S).until(rest.until), want * S);
            t = rest.until;
        }
    }

    #[test]
    fn a_probe_that_hangs_is_taken_over_and_cannot_give_back_what_it_lost() {
        let account = opened();
        let t = T0 + 31 * S;
        let Admit::Probe(old) = account.admit(t) else { panic!() };
        assert_eq!(account.admit(t + 59 * S), Admit::ProbeTaken);
        let Admit::Probe(new) = account.admit(t + 60 * S) else { panic!() };
        account.release(old);
        assert_eq!(account.admit(t + 61 * S), Admit::ProbeTaken);
        account.release(new);
        assert!(matches!(account.admit(t + 61 * S), Admit::Probe(_)));
    }

    #[test]
    fn a_probe_made_elsewhere_keeps_others_out_for_as_long_as_that() {
        let account = opened();
        let t = T0 + 31 * S;
        let Admit::Probe(token) = account.admit(t) else { panic!() };
        account.defer(token, t + S);
        account.release(token);
        assert_eq!(account.admit(t + S / 2), Admit::ProbeTaken);
        assert_eq!(account.resting(t + S / 2), Some(t + S));
        assert!(matches!(account.admit(t + S), Admit::Probe(_)));
    }

    #[test]
    fn a_probe_that_spoke_between_look_and_taking_lets_nobody_follow() {
        let account = opened();
        let t = T0 + 31 * S;
        let looked = account.gate.load(Ordering::Acquire);
        let Admit::Probe(token) = account.admit(t) else { panic!() };
        assert_eq!(account.take_probe(looked, t), None, "taken between the two looks");
        account.fail(&BREAKER, t, t + S);
        account.release(token);
        assert_eq!(account.take_probe(looked, t + S), None);
        assert_eq!(account.admit(t + S), Admit::Resting(t + 61 * S), "and the place is free again");
        assert!(matches!(account.admit(t + 61 * S), Admit::Probe(_)));
    }

    #[test]
    fn the_clusters_sum_opens_it_once() {
        let account = Cooldown::new();
        assert!(account.open(&BREAKER, T0, T0 + S).is_some());
        assert_eq!(account.open(&BREAKER, T0, T0 + S), None);
    }
}
