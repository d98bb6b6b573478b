//! Whether the shared memory can be reached: one relaxed load for whoever would ask it something, a report for those
//! who tell people.
//!
//! Written by the cluster's link alone. An instance without Redis has a [`Reach::off`]: never up, and not down either.

use crate::base::Now;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

/// Round trips remembered for [`Report::trip_p50`] and `p99`.
const TRIPS: usize = 256;

/// Whether Redis is there.
#[derive(Debug)]
pub struct Reach {
    up: AtomicBool,
    off: bool,
    whole: Mutex<(bool, Option<Now>, Option<Box<str>>)>,
    /// Microseconds + 1; 0: none yet.
    trips: [AtomicU32; TRIPS],
    next: AtomicUsize,
}

/// How Redis is, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// How it is.
    pub state: ReachState,
    /// Since when; `None`: never reached or lost yet.
    pub since: Option<Now>,
    /// Why it is down. Holds no secret.
    pub reason: Option<Box<str>>,
    /// Half of the last 256 round trips took no longer.
    pub trip_p50: Option<Duration>,
    /// 99 in 100 of them took no longer.
    pub trip_p99: Option<Duration>,
}

/// How Redis is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReachState {
    /// None is set.
    Off,
    /// It answers; of a Redis Cluster every node does.
    Ok,
    /// It does not, or a node of it does not.
    Down,
}

impl Reach {
    /// Where there is a Redis, not reached yet.
    pub fn new() -> Self {
        Self {
            up: AtomicBool::new(false),
            off: false,
            whole: Mutex::new((false, None, Some("not reached yet".into()))),
            trips: [const { AtomicU32::new(0) }; TRIPS],
            next: AtomicUsize::new(0),
        }
    }

    /// Where there is none.
    pub fn off() -> Self {
        Self { off: true, ..Self::new() }
    }

    /// Whether it makes sense to ask: some of it answers.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// How it is now: whether any of it answers, and why not all of it does (`None`: all does).
    pub fn set(&self, any: bool, lacking: Option<&str>, now: Now) {
        self.up.store(any, Ordering::Relaxed);
        let mut whole = self.whole.lock();
        if whole.0 != lacking.is_none() || whole.1.is_none() {
            whole.1 = Some(now);
        }
        whole.0 = lacking.is_none();
        if whole.2.as_deref() != lacking {
            whole.2 = lacking.map(Into::into);
        }
    }

    /// A round trip took so long.
    pub fn took(&self, trip: Duration) {
        let micros = u32::try_from(trip.as_micros()).unwrap_or(u32::MAX - 1).saturating_add(1);
        self.trips[self.next.fetch_add(1, Ordering::Relaxed) % TRIPS].store(micros, Ordering::Relaxed);
    }

    /// How it is. Sorts the last trips: not for the hot path.
    pub fn report(&self) -> Report {
        let mut trips: Vec<u32> =
            self.trips.iter().map(|one| one.load(Ordering::Relaxed)).filter(|&one| one > 0).collect();
        trips.sort_unstable();
        let at = |share: usize| {
            let micros = trips.get(trips.len().saturating_sub(1) * share / 100)?;
            Some(Duration::from_micros(u64::from(micros - 1)))
        };
        let whole = self.whole.lock();
        let state = match (self.off, whole.0) {
            (true, _) => ReachState::Off,
            (false, true) => ReachState::Ok,
            (false, false) => ReachState::Down,
        };
        let reason = whole.2.clone().filter(|_| state == ReachState::Down);
        Report { state, since: whole.1, reason, trip_p50: at(50), trip_p99: at(99) }
    }
}

impl Default for Reach {
    fn default() -> Self {
        Self::new()
    }
}

impl ReachState {
    /// As `/healthz` says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Ok => "ok",
            Self::Down => "down",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_counts_from_the_change_and_not_from_its_retelling() {
        let reach = Reach::new();
        let at = |n| Now::from_nanos(n);
        assert_eq!((reach.report().state, reach.is_up()), (ReachState::Down, false));
        reach.set(true, None, at(1));
        reach.set(true, None, at(2));
        assert_eq!((reach.report().state, reach.report().since, reach.is_up()), (ReachState::Ok, Some(at(1)), true));
        reach.set(true, Some("b is down"), at(3));
        reach.set(false, Some("all are down"), at(4));
        let report = reach.report();
        assert_eq!(
            (report.state, report.since, report.reason.as_deref()),
            (ReachState::Down, Some(at(3)), Some("all are down"))
        );
        assert_eq!(Reach::off().report().state.name(), "off");
    }

    #[test]
    fn quantiles_are_of_the_last_trips() {
        let reach = Reach::new();
        assert_eq!(reach.report().trip_p50, None);
        for n in 0..1_000 {
            reach.took(Duration::from_micros(n));
        }
        let report = reach.report();
        assert_eq!(report.trip_p50, Some(Duration::from_micros(744 + 127)));
        assert_eq!(report.trip_p99, Some(Duration::from_micros(744 + 252)));
    }
}
