//! The published view of the others: instances, lag, leases. Written by the cluster, each part its own; read by the
//! control plane. Whether the shared memory is there says [`super::reach`].
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
    /// The catalog it serves by: how often it published one.
    pub catalog_version: u64,
    /// What is in that catalog: equal on instances that serve alike.
    pub catalog_digest: u64,
    /// When its last heartbeat was read.
    pub last_seen: Now,
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

    /// Changes a part of it; whoever writes the other parts is not disturbed.
    pub fn change(&self, with: impl FnOnce(&mut PeersView)) {
        with(Arc::make_mut(&mut self.view.write()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_swapped_whole_and_who_holds_the_old_one_keeps_it() {
        let peers = Peers::new();
        let before = peers.view();
        let leases = LeasesView { subjects: 3, ..LeasesView::default() };
        peers.publish(PeersView { leases, ..PeersView::default() });
        peers.change(|view| view.event_lag = Some(Duration::ZERO));
        let after = peers.view();
        assert_eq!((before.leases.subjects, before.event_lag), (0, None));
        assert_eq!((after.leases.subjects, after.event_lag), (3, Some(Duration::ZERO)), "other parts stay");
    }
}
