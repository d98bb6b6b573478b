//! For tests of this room: a real Redis of their own.

#[path = "../../tests/it/support/redis.rs"]
mod redis;

#[path = "../../tests/it/support/redis_cluster.rs"]
mod redis_cluster;

#[path = "../../tests/it/support/shared.rs"]
mod shared;

pub(crate) use redis::RedisServer;
pub(super) use redis_cluster::RedisCluster;
pub(super) use shared::{HasUrl, Kind, Redis};

use super::{Company, Hello, Identity};
use crate::base::bell::Bell;
use crate::base::seal::DataKey;
use crate::state::desk::{Desk, Policy};
use crate::state::lead::Lead;
use crate::state::ledger::Till;
use crate::state::logins::Sayings;
use crate::state::unknown_keys::UnknownKeys;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Instances of one deployment have one key.
static KEY: LazyLock<DataKey> = LazyLock::new(|| DataKey::generate().unwrap());

/// The company of one of several instances of one deployment.
pub(super) fn company(epoch: u64) -> Company {
    let identity = Identity { deployment: 1, data_key: [1; 8] };
    Company {
        hello: Hello { identity, epoch, started_ms: 1, met: true },
        peers: Arc::default(),
        retention: Arc::new(Lead::alone()),
        logins: Sayings::none(),
        unknown: Arc::new(UnknownKeys::new(Duration::ZERO)),
        answers: None,
        key: KEY.clone(),
    }
}

/// Limits that nobody asks about.
pub(super) fn desk(bell: &Arc<Bell>, epoch: u64) -> Arc<Desk> {
    Arc::new(Desk::new(Arc::clone(bell), Arc::default(), Arc::default(), Policy::Open, epoch))
}

/// Budgets that nobody asks about.
pub(super) fn till(bell: &Arc<Bell>, epoch: u64) -> Arc<Till> {
    Arc::new(Till::new(Arc::clone(bell), Arc::default(), Arc::default(), epoch))
}
