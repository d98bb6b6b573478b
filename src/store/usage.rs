//! The store's usage and log: appended in batches, read back, pruned.

use super::Store;
use super::error::Result;
use super::rows::{LoggedRow, Pruned, UsageBatch};
use crate::base::KeyId;
use crate::state::usage::Total;
use std::sync::Arc;

impl Store {
    /// Stores a batch in one transaction; how many log rows are new. Sending the same (writer, number) again does
    /// nothing, so a batch whose answer was lost may be sent once more.
    pub async fn append(&self, batch: Arc<UsageBatch>) -> Result<usize> {
        self.engine.append(batch).await
    }

    /// All totals, oldest minute first.
    pub async fn usage_totals(&self) -> Result<Vec<Total>> {
        self.engine.usage_totals().await
    }

    /// What each key has spent so far, in nanodollars.
    pub async fn spent(&self) -> Result<Vec<(KeyId, i64)>> {
        self.engine.spent(None).await
    }

    /// The same, of those keys only that have a budget and spent anything since that Unix minute, on any instance.
    pub async fn spent_since(&self, minute: u32) -> Result<Vec<(KeyId, i64)>> {
        self.engine.spent(Some(minute)).await
    }

    /// The newest `limit` log rows, newest first.
    pub async fn log_rows(&self, limit: u32) -> Result<Vec<LoggedRow>> {
        self.engine.log_rows(limit).await
    }

    /// Removes some of the log rows older than `before_ms` (Unix milliseconds), or the oldest while all of them cost
    /// more than `max_bytes`. Call again while it says there is more.
    pub async fn prune(&self, before_ms: u64, max_bytes: u64) -> Result<Pruned> {
        self.engine.prune(before_ms, max_bytes).await
    }

    /// Gives space that pruning freed back to the file system, a piece of it.
    pub async fn shrink(&self) -> Result<()> {
        self.engine.shrink(4_096).await
    }
}
