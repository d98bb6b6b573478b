//! The published view of the others: instances, Redis, lag, leases. Written by the cluster and the store, read by the
//! control plane.
//!
//! Swapped whole, so a reader never sees half of one. An instance alone never publishes: it reads the view of nobody.
//! Holds no I/O and no clock.

use crate::base::Now;
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;

/// Where the view is published.
#[derive(Debug, Default)]
pub struct Peers {
    view: RwLock<Arc<PeersView>>,
}

/// What is known of the deployment beyond this instance.
#[derive(Clone, Debug, Default)]
pub struct PeersView {
    /// The other instances, those gone silent included until they are forgotten.
    pub others: Vec<PeerInstance>,
    /// The shared memory.
    pub redis: RedisView,
    /// How far behind the others' live events this instance is; `None`: it does not read them now.
    pub event_lag: Option<Duration>,
    /// Limits decided here on credit.
    pub leases: LeasesView,
}

/// Another instance, by its last heartbeat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerInstance {
    /// Its process epoch.
    pub epoch: u64,
    /// Its version.
    pub version: Box<str>,
    /// When it started, Unix milliseconds.
    pub started_ms: u64,
    /// The catalog it serves by.
    pub catalog_version: u64,
    /// When its last heartbeat was read.
    pub last_seen: Now,
}

/// The shared memory, as seen from here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RedisView {
    /// How it is.
    pub state: RedisState,
    /// Since when.
    pub since: Option<Now>,
    /// Why it is down.
    pub reason: Option<Box<str>>,
    /// Half of the last round trips took no longer.
    pub rtt_p50: Option<Duration>,
    /// 99 in 100 of the last round trips took no longer.
    pub rtt_p99: Option<Duration>,
    /// Tells, spends and asks that wait to be sent.
    pub queue: u64,
}

/// How the shared memory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RedisState {
    /// None is set.
    #[default]
    Off,
    /// Answers.
    Up,
    /// Does not.
    Down,
}

/// What this instance holds of shared limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeasesView {
    /// Keys with a lease in hand.
    pub subjects: u64,
    /// Requests it may admit on them without asking.
    pub requests: u64,
    /// Slots of parallel requests.
    pub slots: u64,
}

impl Peers {
    /// Nobody else.
    pub fn new() -> Self {
        Self::default()
    }

    /// The newest view.
    pub fn view(&self) -> Arc<PeersView> {
        Arc::clone(&self.view.read())
    }

    /// Replaces it.
    pub fn publish(&self, view: PeersView) {
        *self.view.write() = Arc::new(view);
    }
}

impl RedisState {
    /// As `/healthz` and `/api/cluster` say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Up => "ok",
            Self::Down => "down",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_swapped_whole_and_who_holds_the_old_one_keeps_it() {
        let peers = Peers::new();
        let before = peers.view();
        let redis = RedisView { state: RedisState::Down, reason: Some("gone".into()), ..RedisView::default() };
        peers.publish(PeersView { redis, ..PeersView::default() });
        assert_eq!((before.redis.state.name(), peers.view().redis.state.name()), ("off", "down"));
    }
}
