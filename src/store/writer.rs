//! The usage writer: drains `state/usage` a few times a second, or when its queue is half full, into one transaction.
//!
//! A batch that could not be stored is kept as it is, with its number, and sent again until it is: the store knows the
//! number, so nothing counts twice even when only the answer was lost. Meanwhile totals go on merging in `state/usage`
//! (exact, however long it takes) and rows fill their queue there, which is bounded and counts what it drops.

use super::rows::UsageBatch;
use super::{Result, Store};
use crate::base::metrics::METRICS;
use crate::base::seal::random_u64;
use crate::base::tasks::{Backoff, Drain, Phase};
use crate::state::usage::Usage;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(250);
const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// How long the last drain keeps trying to reach a store that is away.
const LAST_PATIENCE: Duration = Duration::from_secs(10);
/// Rows in one transaction: bounds how long it holds the write lock against commands of other processes.
const MAX_ROWS: usize = 4_096;

/// Moves usage from memory to the store.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    usage: Arc<Usage>,
    epoch: u64,
    number: u64,
    pending: VecDeque<Arc<UsageBatch>>,
}

impl Writer {
    /// A writer with a random epoch of its own.
    pub fn new(store: Store, usage: Arc<Usage>) -> Result<Self> {
        Ok(Self { store, usage, epoch: random_u64()?, number: 0, pending: VecDeque::new() })
    }

    /// Writes until `stop` reaches [`Phase::Cut`], then drains what is left and returns once all of it is stored (or
    /// the store stayed away for ten seconds, which is logged with the number of rows lost). `stop` must be advanced
    /// only when no request can settle any more: hand it the view of a switch of its own.
    pub async fn run(mut self, stop: Drain) {
        let mut backoff = Backoff::new(EVERY, BACKOFF_CAP, self.epoch);
        let mut wait = EVERY;
        loop {
            let stopping = tokio::select! {
                () = tokio::time::sleep(wait) => false,
                () = self.usage.half_full(), if self.pending.is_empty() => false,
                () = stop.reached(Phase::Cut) => true,
            };
            if stopping {
                break;
            }
            wait = self.attempt(&mut backoff).await.unwrap_or(EVERY);
        }
        let last = async {
            while let Some(wait) = self.attempt(&mut backoff).await {
                tokio::time::sleep(wait.min(EVERY)).await;
            }
        };
        if tokio::time::timeout(LAST_PATIENCE, last).await.is_err() {
            let rows = self.pending.iter().map(|batch| batch.rows.len()).sum::<usize>() + self.usage.queued();
            METRICS.log_rows_dropped.add(rows as u64);
            tracing::error!(rows, "the store stayed away: the last usage could not be written");
        }
    }

    /// Stores everything gathered so far; how many log rows are new. On an error what was not stored is kept for the
    /// next call.
    pub async fn flush(&mut self) -> Result<usize> {
        if self.pending.is_empty() {
            self.gather();
        }
        let mut rows = 0;
        while let Some(batch) = self.pending.front() {
            let new = self.store.append(Arc::clone(batch)).await?;
            self.pending.pop_front();
            METRICS.log_rows.add(new as u64);
            rows += new;
        }
        Ok(rows)
    }

    /// `None` when all is written, else how long to wait before the next try. Says so once when it begins to fail and
    /// once when it works again.
    async fn attempt(&mut self, backoff: &mut Backoff) -> Option<Duration> {
        let failing = !self.pending.is_empty();
        match self.flush().await {
            Ok(_) => {
                if failing {
                    tracing::info!("usage is being written again");
                }
                backoff.reset();
                // What arrived while an old batch was in the way.
                failing.then_some(Duration::ZERO)
            }
            Err(error) => {
                METRICS.store_errors.inc();
                if !failing {
                    tracing::warn!(%error, "usage cannot be written; it is kept and tried again");
                }
                Some(backoff.wait())
            }
        }
    }

    fn gather(&mut self) {
        let (mut totals, rows) = self.usage.drain();
        let mut rows = rows.into_iter();
        loop {
            let piece: Vec<_> = rows.by_ref().take(MAX_ROWS).collect();
            if piece.is_empty() && totals.is_empty() {
                return;
            }
            self.number += 1;
            let totals = std::mem::take(&mut totals);
            self.pending.push_back(Arc::new(UsageBatch {
                writer: self.epoch,
                number: self.number,
                totals,
                rows: piece,
            }));
        }
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
