//! One Redis server as the rounds see it: up with a connection in hand, or down and being probed.
//!
//! It goes down by a missed deadline, a broken connection, or an answer that shows that scripts cannot work there. The
//! first probe leaves at once, then with jittered backoff; a probe opens a connection and runs the real write script.
//! A server that falls soon after it came back is not tried at once again: one that takes connections and fails every
//! round would flap. Only changes are logged.

use super::call::{Call, Script, script};
use super::dial::{Held, Server};
use super::reply::{Broken, Reply};
use crate::base::metrics::METRICS;
use crate::base::tasks::Backoff;
use crate::base::{Clock, Now};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Whether scripts that write work there.
static PROBE: Script = script!("probe.lua");
/// Between probes at first, and at most.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Up for so long, it is taken to be well: when it falls then, it is probed at once.
pub(super) const WELL: Duration = Duration::from_secs(5);
/// Without a sign of life for so long, it is asked for one.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(500);

/// Calls in one trip at most: a few milliseconds of a server's time.
const A_TRIP: usize = 256;

/// How long a trip may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    base: Duration,
    /// Bytes a second that count as a network which works; `None`: trips are so small that it does not matter.
    slowest: Option<u32>,
}

/// One server.
pub(super) struct Node {
    server: Server,
    role: &'static str,
    /// What a probe writes to.
    probe: Vec<u8>,
    patience: Patience,
    state: State,
    backoff: Backoff,
    /// When it last came up or went down.
    since: Now,
    heard: Now,
    told: Option<bool>,
}

enum State {
    Up(Held),
    Down { probing: Probe, why: String },
}

type Probe = Pin<Box<dyn Future<Output = Result<Held, Broken>> + Send>>;

/// What came of polling a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probed {
    /// It is up now.
    Returned,
    /// Still down; the next probe is on its way.
    Failed,
}

impl Node {
    /// Down, with its first probe leaving at once.
    pub(super) fn new(server: Server, role: &'static str, probe: Vec<u8>, patience: Patience) -> Self {
        let now = Clock::now();
        let seed = now.as_nanos() ^ u64::from(std::process::id()) << 32;
        let probing = probe_after(Duration::ZERO, &server, &probe, patience.base);
        let state = State::Down { probing, why: "not reached yet".to_owned() };
        let backoff = Backoff::new(BACKOFF.0, BACKOFF.1, seed);
        Self { server, role, probe, patience, state, backoff, since: now, heard: now, told: None }
    }

    /// The same, writing its probes to `key` from the next one on.
    pub(super) fn probed_with(mut self, key: Vec<u8>) -> Self {
        self.probe = key;
        self
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Why it is down.
    pub(super) fn lacking(&self) -> Option<String> {
        match &self.state {
            State::Up(_) => None,
            State::Down { why, .. } => Some(format!("{}: {why}", self.server.address())),
        }
    }

    /// When it should be asked for a sign of life, if it is up.
    pub(super) fn beat_due(&self) -> Option<Now> {
        self.is_up().then(|| self.heard + HEARTBEAT)
    }

    /// The call that asks for it.
    pub(super) fn beat(&self) -> Call {
        PROBE.call(&[&self.probe])
    }

    /// The calls' replies, in order; fewer, or `None`: it is, or went, down. Many go in several trips, each with a deadline
    /// of its own: all that gathered in an outage would never get through in one.
    pub(super) async fn trip(&mut self, calls: &[&Call]) -> Option<Vec<Reply>> {
        let mut replies = Vec::new();
        for some in calls.chunks(A_TRIP) {
            match self.one_trip(some).await {
                Some(more) => replies.extend(more),
                None => break,
            }
        }
        (!replies.is_empty()).then_some(replies)
    }

    async fn one_trip(&mut self, calls: &[&Call]) -> Option<Vec<Reply>> {
        let State::Up(held) = &mut self.state else { return None };
        let began = Clock::now();
        METRICS.redis_batches.inc();
        METRICS.redis_commands.add(calls.len() as u64);
        let replies = held.trip(calls, self.patience.of(calls)).await;
        let now = Clock::now();
        match replies {
            Ok(replies) => {
                METRICS.redis_trip_seconds.observe_micros(now.micros_since(began));
                self.heard = now;
                let why = replies.iter().find_map(|reply| match reply {
                    Reply::Down(why) => Some(why.clone()),
                    _ => None,
                });
                if let Some(why) = why {
                    self.fell(&Broken::Unfit(why), now);
                }
                Some(replies)
            }
            Err(broken) => {
                self.fell(&broken, now);
                None
            }
        }
    }

    /// Drives the probe. Pending while it is up.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Probed> {
        let State::Down { probing, why } = &mut self.state else { return Poll::Pending };
        let Poll::Ready(probed) = probing.as_mut().poll(cx) else { return Poll::Pending };
        let now = Clock::now();
        match probed {
            Ok(held) => {
                let was_down_ms = now.since(self.since).as_millis() as u64;
                if self.told != Some(true) {
                    tracing::info!(role = self.role, server = %self.server.address(), was_down_ms, "redis answers");
                }
                self.told = Some(true);
                self.state = State::Up(held);
                (self.since, self.heard) = (now, now);
                self.counted(1);
                Poll::Ready(Probed::Returned)
            }
            Err(broken) => {
                METRICS.redis_probes_failed.inc();
                *why = broken.to_string();
                if self.told.is_none() {
                    tracing::warn!(role = self.role, server = %self.server.address(), %why, "redis cannot be reached");
                    self.told = Some(false);
                }
                *probing = probe_after(self.backoff.wait(), &self.server, &self.probe, self.patience.base);
                Poll::Ready(Probed::Failed)
            }
        }
    }

    /// Servers, not ways to them: the other roles' nodes are the same ones.
    fn counted(&self, by: i64) {
        if self.role == super::ROUNDS {
            METRICS.redis_up.add(by);
        }
    }

    fn fell(&mut self, broken: &Broken, now: Now) {
        match broken {
            Broken::Timeout => METRICS.redis_down_timeout.inc(),
            Broken::Lost(_) => METRICS.redis_down_lost.inc(),
            Broken::Unfit(_) => METRICS.redis_down_unfit.inc(),
        }
        self.counted(-1);
        let why = broken.to_string();
        tracing::warn!(role = self.role, server = %self.server.address(), %why, "redis is down");
        self.told = Some(false);
        let wait = if now.since(self.since) >= WELL {
            self.backoff.reset();
            Duration::ZERO
        } else {
            self.backoff.wait()
        };
        let probing = probe_after(wait, &self.server, &self.probe, self.patience.base);
        if let State::Up(mut held) = std::mem::replace(&mut self.state, State::Down { probing, why }) {
            held.spoil();
        }
        self.since = now;
    }
}

impl From<Duration> for Patience {
    fn from(base: Duration) -> Self {
        Self { base, slowest: None }
    }
}

impl Patience {
    /// `base`, and the time that a trip's bytes take at `slowest` a second.
    pub(super) const fn by_size(base: Duration, slowest: u32) -> Self {
        Self { base, slowest: Some(slowest) }
    }

    fn of(self, calls: &[&Call]) -> Duration {
        let Some(slowest) = self.slowest else { return self.base };
        let bytes: u64 = calls.iter().map(|call| call.bytes()).sum();
        self.base + Duration::from_micros(bytes.saturating_mul(1_000_000) / u64::from(slowest.max(1)))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.is_up() {
            self.counted(-1);
        }
    }
}

fn probe_after(wait: Duration, server: &Server, key: &[u8], deadline: Duration) -> Probe {
    let (server, call) = (server.clone(), PROBE.call(&[key]));
    Box::pin(async move {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let mut held = server.connection().await?;
        let reply = held.trip(&[&call], deadline).await?.pop();
        let fit = matches!(reply, Some(Reply::Is(Ok(_)) | Reply::Elsewhere { .. }));
        if !fit {
            held.spoil();
        }
        match reply {
            // One of a cluster that does not have the probe's slot is alive all the same.
            Some(Reply::Is(Ok(_)) | Reply::Elsewhere { .. }) => Ok(held),
            Some(Reply::Is(Err(fault))) => Err(Broken::Unfit(format!("{fault:?}"))),
            Some(Reply::Down(why)) => Err(Broken::Unfit(why)),
            Some(Reply::NoScript) | None => Err(Broken::Unfit("it forgets scripts at once".to_owned())),
        }
    })
}
