//! Names of keys and channels, and the form of messages. Nothing else spells a Redis key.
//!
//! Every key begins with the deployment's prefix. What must be in one slot of a Redis Cluster carries the same hash tag
//! (`{…}`): one tag per limited thing or account, never one for the whole prefix. Messages carry a version and *remaining*
//! milliseconds, never a wall time; kinds and versions that are not known are skipped and counted.

/// Names below one prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: Box<str>,
}

impl Names {
    /// Below `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// What a probe writes to; its own slot.
    pub(super) fn probe(&self) -> Vec<u8> {
        format!("{}:probe", self.prefix).into_bytes()
    }
}
