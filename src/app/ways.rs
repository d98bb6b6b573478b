//! The ways out of this instance: to Redis and through it to the others, or closed.
//!
//! Off is absence: without a Redis URL no thread is started and every hatch is closed.

use super::Parts;
use crate::admin::instance_name;
use crate::base::Secret;
use crate::base::bell::Bell;
use crate::base::tasks::DrainSwitch;
use crate::cluster::{self, Cluster, ClusterConfig, Company};
use crate::config::Settings;
use crate::proxy;
use crate::state::breakers::Breakers;
use crate::state::bus::Bus;
use crate::state::dedup::Elsewhere;
use crate::state::delta::Delta;
use crate::state::desk::Desk;
use crate::state::ledger::Till;
use crate::state::logins::Sayings;
use crate::state::news::{Kind, Listener};
use crate::state::outbox::Outbox;
use crate::state::reach::Reach;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Keys told that may wait for Redis; beyond, they are dropped and counted.
const OUTBOX: usize = 65_536;
/// Small messages that may wait for Redis.
const NEWS: usize = 1024;

/// The ways out to other instances.
pub(super) struct WaysOut {
    pub(super) outbox: Outbox<Delta>,
    pub(super) breakers: Breakers,
    pub(super) elsewhere: Elsewhere,
    pub(super) cluster: Option<Cluster>,
}

/// Where limits and budgets meet the cluster, if there is one.
pub(super) fn shared_limits(
    settings: &Settings,
    bell: &Arc<Bell>,
    reach: &Arc<Reach>,
    instances: &Arc<AtomicU32>,
    epoch: u64,
) -> (Option<Arc<Desk>>, Option<Arc<Till>>) {
    if settings.redis_url.is_none() {
        return (None, None);
    }
    let ends = || (Arc::clone(bell), Arc::clone(reach), Arc::clone(instances));
    let ((bell, reach, live), policy) = (ends(), proxy::limit_policy(settings));
    let desk = Arc::new(Desk::new(bell, reach, live, policy, epoch));
    let (bell, reach, live) = ends();
    (Some(desk), Some(Arc::new(Till::new(bell, reach, live, epoch))))
}

impl Parts {
    /// What it takes to find the others at `url`.
    pub(super) fn cluster_config(&self, url: &Secret) -> ClusterConfig {
        let settings = &self.settings;
        ClusterConfig {
            url: url.clone(),
            extra_roots: settings.redis_ca.clone(),
            prefix: settings.redis_prefix.clone(),
            deadline: settings.redis_deadline,
            epoch: self.epoch,
            instance: instance_name(self.epoch).into(),
        }
    }

    /// The way to the others, if there are any: without a Redis URL nothing leaves this instance.
    pub(super) fn ways_out(
        &self,
        bell: Arc<Bell>,
        logins: Sayings,
        bus: &Arc<Bus>,
        switch: &DrainSwitch,
    ) -> Result<WaysOut, String> {
        let settings = &self.settings;
        let (Some(url), Some(limits), Some(budgets)) = (&settings.redis_url, &self.desk, &self.till) else {
            let (outbox, breakers, elsewhere) = (Outbox::closed(), Breakers::closed(), Elsewhere::closed());
            return Ok(WaysOut { outbox, breakers, elsewhere, cluster: None });
        };
        let (outbox, tells) = Outbox::open(OUTBOX, Arc::clone(&bell));
        // What is not kept at all is not shared either.
        let (elsewhere, answers) = match settings.dedup_ttl {
            Duration::ZERO => (Elsewhere::closed(), None),
            ttl => {
                let (elsewhere, ends) = Elsewhere::open(ttl);
                (elsewhere, Some(ends))
            }
        };
        let config = self.cluster_config(url);
        let (breakers, breaker_calls) = Breakers::open(OUTBOX, Arc::clone(&bell));
        let (herald, news) = Outbox::open(NEWS, Arc::clone(&bell));
        self.store.tell_of_changes(herald);
        let changed = self.store.bell();
        let company = Company {
            hello: self.hello.clone(),
            peers: Arc::clone(&self.peers),
            retention: Arc::clone(&self.retention),
            logins,
            unknown: Arc::clone(&self.unknown),
            answers,
            key: self.store.data_key().clone(),
        };
        let shared = cluster::Shared {
            bell,
            drain: switch.drain(),
            reach: Arc::clone(&self.reach),
            directory: Arc::clone(&self.directory),
            tells,
            breakers: breaker_calls,
            news,
            listeners: vec![Listener::new(Kind::CATALOG, move |_| changed.notify_one())],
            bus: Arc::clone(bus),
            instances: Arc::clone(&self.instances),
            limits: Arc::clone(limits),
            budgets: Arc::clone(budgets),
            company,
        };
        Ok(WaysOut { outbox, breakers, elsewhere, cluster: Some(Cluster::start(&config, shared)?) })
    }
}

#[cfg(test)]
#[path = "ways_tests.rs"]
mod tests;
