//! The ways out of this instance: to Redis and through it to the others, or closed.
//!
//! Off is absence: without a Redis URL no thread is started and every hatch is closed.

use super::Parts;
use crate::base::bell::Bell;
use crate::base::tasks::DrainSwitch;
use crate::cluster::{self, Cluster, ClusterConfig, Company};
use crate::state::dedup::Elsewhere;
use crate::state::delta::Delta;
use crate::state::logins::Sayings;
use crate::state::outbox::Outbox;
use std::sync::Arc;
use std::time::Duration;

/// Keys told, subjects spent for and asks that may wait for Redis, each; beyond, they are dropped and counted.
const OUTBOX: usize = 65_536;

/// The ways out to other instances.
pub(super) struct WaysOut {
    pub(super) outbox: Outbox<Delta>,
    pub(super) elsewhere: Elsewhere,
    pub(super) cluster: Option<Cluster>,
}

impl Parts {
    /// The way to the others, if there are any: without a Redis URL nothing leaves this instance.
    pub(super) fn ways_out(&self, bell: Arc<Bell>, logins: Sayings, switch: &DrainSwitch) -> Result<WaysOut, String> {
        let settings = &self.settings;
        let Some(url) = &settings.redis_url else {
            return Ok(WaysOut { outbox: Outbox::closed(), elsewhere: Elsewhere::closed(), cluster: None });
        };
        let (outbox, tells, asks) = Outbox::open(OUTBOX, Arc::clone(&bell));
        // What is not kept at all is not shared either.
        let (elsewhere, answers) = match settings.dedup_ttl {
            Duration::ZERO => (Elsewhere::closed(), None),
            ttl => {
                let (elsewhere, ends) = Elsewhere::open(ttl);
                (elsewhere, Some(ends))
            }
        };
        let config = ClusterConfig {
            url: url.clone(),
            prefix: settings.redis_prefix.clone(),
            deadline: settings.redis_deadline,
            epoch: self.epoch,
        };
        let company = Company {
            hello: self.hello.clone(),
            directory: Arc::clone(&self.directory),
            peers: Arc::clone(&self.peers),
            retention: Arc::clone(&self.retention),
            logins,
            unknown: Arc::clone(&self.unknown),
            answers,
            key: self.store.data_key().clone(),
        };
        let instances = Arc::clone(&self.instances);
        let reach = Arc::clone(&self.reach);
        let shared = cluster::Shared { bell, drain: switch.drain(), reach, tells, asks, instances, company };
        Ok(WaysOut { outbox, elsewhere, cluster: Some(Cluster::start(&config, shared)?) })
    }
}
