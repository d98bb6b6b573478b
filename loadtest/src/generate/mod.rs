//! The generator: sends one request over and over, checks every reply, measures.
//!
//! Closed loop (`closed`): each of N connections sends its next request when the last is answered. Open loop (`open`):
//! requests are due at a fixed rate and latency counts from when each was due, so a stalled server cannot hide its
//! stall. Must never aim anywhere but loopback: a target elsewhere is refused before a byte is sent. A reply that fails
//! is counted under its reason and does not end the run.

mod closed;
mod hold;
mod open;
mod reply;
mod requests;
mod tally;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) use hold::{Held, Hold};
pub(crate) use reply::{Ending, STAMP, STAMP_DIGITS};
pub(crate) use requests::{Form, Requests, Turns};
pub(crate) use tally::{Outcome, Quantiles, Tally};

use crate::clock;

/// One load: what is sent, to whom, how and until when.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Where to: connection i goes to the i-th of them, and round again.
    pub(crate) targets: Vec<SocketAddr>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) connections: usize,
    /// Threads of a closed loop; an open loop has one per connection.
    pub(crate) threads: usize,
    /// The connections of a closed loop begin over this time: at once, a stream's events come in lock step with all others'.
    pub(crate) spread: Duration,
    /// Requests per second; `None` is a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) duration: Duration,
    /// Stop after so many requests even when time is left.
    pub(crate) most: u64,
    /// Share of requests whose connection is dropped after the first bytes of the reply, 0 to 1.
    pub(crate) abort: f64,
    /// Set from outside to end early.
    pub(crate) stop: Stop,
    /// Requests begun so far, for whoever watches: the run counts them here.
    pub(crate) begun: Arc<AtomicU64>,
}

/// How long a request in flight may go on after the end of the run before it counts as unanswered.
const GRACE: Duration = Duration::from_secs(10);

/// A flag that ends a run early.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Load {
    /// Runs to the end. Refuses targets that are not loopback.
    pub(crate) fn run(&self) -> Result<Outcome, String> {
        if self.targets.is_empty() {
            return Err("no target".to_owned());
        }
        if let Some(elsewhere) = self.targets.iter().find(|target| !target.ip().is_loopback()) {
            return Err(format!("{elsewhere} is not a loopback address: this generator only aims at its own machine"));
        }
        self.begun.store(0, Ordering::Relaxed);
        let begun = clock::now();
        let tallies = match self.rate {
            Some(rate) => open::run(self, rate, begun),
            None => closed::run(self, begun),
        }
        .map_err(|error| format!("generator: {error}"))?;
        Ok(Outcome::new(tallies, clock::now() - begun, self.requests.names()))
    }

    /// Where connection `index` goes.
    fn target(&self, index: usize) -> SocketAddr {
        self.targets[index % self.targets.len()]
    }

    fn ends_at(&self, begun: Instant) -> Instant {
        begun + self.duration
    }

    /// Whether the nth request is one to abandon: spread evenly, no randomness, so runs repeat.
    fn abandons(&self, nth: u64) -> bool {
        self.abort > 0.0 && ((nth + 1) as f64 * self.abort).floor() > (nth as f64 * self.abort).floor()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(target: &str, abort: f64) -> Load {
        Load {
            targets: vec![target.parse().unwrap()],
            requests: Arc::new(Requests::one(Form::new("", Vec::new(), Ending::Framed, false))),
            connections: 1,
            threads: 1,
            spread: Duration::ZERO,
            rate: None,
            duration: Duration::ZERO,
            most: 1,
            abort,
            stop: Stop::default(),
            begun: Arc::default(),
        }
    }

    #[test]
    fn other_machines_are_refused() {
        assert!(load("192.0.2.1:80", 0.0).run().unwrap_err().contains("not a loopback"));
    }

    #[test]
    fn the_abort_share_is_kept_exactly() {
        let load = load("127.0.0.1:1", 0.3);
        assert_eq!((0..1000).filter(|nth| load.abandons(*nth)).count(), 300);
        assert!(!(0..1000).any(|nth| self::load("127.0.0.1:1", 0.0).abandons(nth)));
    }
}
