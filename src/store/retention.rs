//! Keeps the log within its days and bytes, and totals by the minute within theirs: a pass every few minutes, in pieces,
//! so that writes slip in between.
//!
//! Fails quietly: a pass that could not be made is made the next time. In a cluster one instance leads it; when nobody
//! can say who, each does it, which is harmless.

use super::rows::Pruned;
use super::{Result, Store};
use crate::base::Clock;
use crate::base::tasks::{Drain, Phase};
use crate::state::lead::Lead;
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(300);
/// Between two looks at who leads.
const LOOK: Duration = Duration::from_secs(5);
const BREATH: Duration = Duration::from_millis(20);

/// Prunes until the process drains.
pub async fn run(store: Store, days: u32, max_bytes: u64, lead: Arc<Lead>, drain: Drain) {
    loop {
        let leads = lead.leads(Clock::now());
        if leads {
            tokio::select! {
                () = pass(&store, days, max_bytes) => {}
                () = drain.reached(Phase::Finish) => return,
            }
        }
        // Who leads now may end any time.
        let wait = if leads { EVERY } else { LOOK };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = drain.reached(Phase::Finish) => return,
        }
    }
}

async fn pass(store: &Store, days: u32, max_bytes: u64) {
    let before = Clock::unix_ms().saturating_sub(u64::from(days) * 86_400_000);
    let rows = all("log", || store.prune(before, max_bytes)).await;
    let minutes = all("usage by the minute", || store.prune_minutes()).await;
    if rows + minutes > 0 {
        tracing::info!(rows, minutes, "old log rows, and old totals by the minute, removed");
        let _ = store.shrink().await;
    }
}

/// Steps until there is no more; how many rows are gone.
async fn all<F: Future<Output = Result<Pruned>>>(what: &str, step: impl Fn() -> F) -> u64 {
    let mut rows = 0;
    loop {
        match step().await {
            Ok(pruned) => {
                rows += pruned.rows;
                if !pruned.more {
                    return rows;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the {what} could not be pruned; trying again later");
                return rows;
            }
        }
        tokio::time::sleep(BREATH).await;
    }
}
