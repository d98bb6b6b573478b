//! The usage writer: drains `state/usage` a few times a second, or when its queue is half full, into one transaction.
//!
//! Rows go each time, and totals with them while few are distinct. Ten thousand keys that are used in turn make a total of
//! nearly each request: those are written at [`PACE`], [`LONGEST`] apart at most, and merge meanwhile.
//!
//! A batch that could not be stored is kept as it is, with its number, and sent again until it is: the store knows the
//! number, so nothing counts twice even when only the answer was lost. Of a store that stays away the batches go to the
//! spill file, as does all that comes after them, so that order and memory hold; they are stored when it is back, by this
//! process or by the next. Where nothing can be spilled, totals go on merging in `state/usage` (exact, however long it
//! takes) and rows fill their queue there, which is bounded and counts what it drops.

use super::rows::UsageBatch;
use super::spill::{Spill, Waiting};
use super::{Result, Store, StoreError, StoreErrorKind};
use crate::base::metrics::METRICS;
use crate::base::seal::random_u64;
use crate::base::tasks::{self, Backoff, Drain, Phase};
use crate::base::{Clock, Now};
use crate::state::usage::{LogRow, Total, Usage};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(250);
/// One total's share of time, so that they are 5,000 a second: each is added to a row of three tables or four, some 10 µs.
const PACE: Duration = Duration::from_micros(200);
/// The longest that totals wait, and what a killed process may lose of them.
const LONGEST: Duration = Duration::from_secs(4);
const BACKOFF_CAP: Duration = Duration::from_secs(2);
/// A store that fails for so long is away: from then on the disk is touched.
const BLIP: Duration = Duration::from_secs(1);
/// How long the last drain keeps trying to reach a store that is away before it spills.
const LAST_PATIENCE: Duration = Duration::from_secs(4);
/// The same where nothing can be spilled.
const LAST_HOPE: Duration = Duration::from_secs(9);
/// Rows, and totals, in one transaction: bounds how long it holds the write lock against commands of other processes.
const MAX_ROWS: usize = 4_096;
/// Refusals of one batch for its content before its rows, and then all of it, are given up.
const STRIKES: (u32, u32) = (3, 6);

/// Moves usage from memory to the store.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    usage: Arc<Usage>,
    epoch: u64,
    number: u64,
    pending: VecDeque<Arc<UsageBatch>>,
    spill: Option<Spill>,
    away_since: Option<Now>,
    /// Totals are left to merge until then.
    totals_due: Now,
    strikes: u32,
    /// No call of the last drain may last longer.
    until: Option<Now>,
}

impl Writer {
    /// A writer with a random epoch of its own, and no file.
    pub fn new(store: Store, usage: Arc<Usage>) -> Result<Self> {
        let epoch = random_u64()?;
        Ok(Self {
            store,
            usage,
            epoch,
            number: 0,
            pending: VecDeque::new(),
            spill: None,
            away_since: None,
            totals_due: Now::default(),
            strikes: 0,
            until: None,
        })
    }

    /// Spills to `dir`, at most `max_bytes`, while the store is away. What earlier processes left there is stored first.
    #[must_use]
    pub fn spilling(mut self, dir: &Path, max_bytes: u64) -> Self {
        self.spill = Some(Spill::open(dir, self.epoch, max_bytes));
        self
    }

    /// Writes until `stop` reaches [`Phase::Cut`], then drains what is left and returns once all of it is stored or, of
    /// a store that stays away, spilled (or lost, which is logged with the number of rows). `stop` must be advanced
    /// only when no request can settle any more: hand it the view of a switch of its own.
    pub async fn run(mut self, stop: Drain) {
        let mut backoff = Backoff::new(EVERY, BACKOFF_CAP, self.epoch);
        let mut wait = EVERY;
        loop {
            let full = tokio::select! {
                () = tokio::time::sleep(wait) => false,
                () = self.usage.half_full(), if self.pending.is_empty() || self.spill.is_some() => true,
                () = stop.reached(Phase::Cut) => break,
            };
            if full && self.away_since.is_some() {
                // There will be room again only on the disk.
                self.spill_all().await;
                continue;
            }
            wait = self.attempt(&mut backoff).await.unwrap_or(EVERY);
        }
        let patience = if self.spill.is_some() { LAST_PATIENCE } else { LAST_HOPE };
        let end = Now::from_nanos(Clock::now().as_nanos() + patience.as_nanos() as u64);
        self.until = Some(end);
        // Not one timeout around it: cut off in the middle, the file would be lost to us.
        while let Some(wait) = self.attempt(&mut backoff).await {
            if Clock::now() >= end {
                break;
            }
            tokio::time::sleep(wait.min(EVERY)).await;
        }
        if self.is_done() {
            return;
        }
        self.spill_all().await;
        let rows = self.pending.iter().map(|batch| batch.rows.len()).sum::<usize>() + self.usage.queued();
        if rows > 0 || !self.pending.is_empty() || !self.usage.is_empty() {
            METRICS.log_rows_dropped.add(rows as u64);
            tracing::error!(rows, "the store stayed away: the last usage could not be written");
        } else {
            tracing::warn!("the store is away: the last usage waits in the data directory for the next start");
        }
    }

    fn is_done(&self) -> bool {
        let spilled = self.spill.as_ref().is_none_or(Spill::is_empty);
        spilled && self.pending.is_empty() && self.usage.is_empty() && self.away_since.is_none()
    }

    /// Stores everything gathered so far; how many log rows are new. On an error what was not stored is kept for the
    /// next call.
    pub async fn flush(&mut self) -> Result<usize> {
        let mut rows = self.replay().await?;
        if self.pending.is_empty() {
            self.gather();
        }
        while let Some(batch) = self.pending.front().cloned() {
            let new = self.append(&batch).await?;
            self.strikes = 0;
            self.pending.pop_front();
            METRICS.log_rows.add(new as u64);
            rows += new;
        }
        Ok(rows)
    }

    /// Stores what was spilled, oldest first. What comes meanwhile is put behind it.
    async fn replay(&mut self) -> Result<usize> {
        let mut rows = 0;
        while let Some(waiting) = self.next_spilled().await {
            let new = self.append(&waiting.batch).await?;
            self.strikes = 0;
            METRICS.log_rows.add(new as u64);
            rows += new;
            if let Some(spill) = &mut self.spill {
                spill.done(&waiting);
            }
            if self.usage.crowded() {
                self.spill_all().await;
            }
        }
        Ok(rows)
    }

    async fn next_spilled(&mut self) -> Option<Waiting> {
        if self.spill.as_ref().is_none_or(Spill::is_empty) {
            return None;
        }
        match self.on_disk(Spill::next).await {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(%error, "spilled usage cannot be read; it stays in its file");
                self.spill = None;
                None
            }
        }
    }

    /// `None` when all is written, else how long to wait before the next try. Says so once when it begins to fail and
    /// once when it works again.
    async fn attempt(&mut self, backoff: &mut Backoff) -> Option<Duration> {
        let flushed = self.flush().await;
        match flushed {
            Ok(_) => {
                let failing = self.away_since.take().is_some();
                if failing {
                    tracing::info!("usage is being written again");
                }
                backoff.reset();
                // What arrived while an old batch was in the way.
                failing.then_some(Duration::ZERO)
            }
            Err(error) => {
                METRICS.store_errors.inc();
                let first = self.away_since.is_none();
                let lasting = Clock::now().since(*self.away_since.get_or_insert_with(Clock::now));
                if first {
                    tracing::warn!(%error, "usage cannot be written; it is kept and tried again");
                }
                self.strike(&error).await;
                if lasting >= BLIP || self.usage.crowded() {
                    self.spill_all().await;
                }
                Some(backoff.wait())
            }
        }
    }

    /// Stores one batch. A store too slow for what comes meanwhile counts as away: what it was given goes on there, and
    /// sent again it counts once.
    async fn append(&self, batch: &Arc<UsageBatch>) -> Result<usize> {
        if self.until.is_some_and(|until| Clock::now() >= until) {
            return Err(StoreError::unavailable("there is no time left to store it"));
        }
        let appended = self.store.append(Arc::clone(batch));
        if let Some(until) = self.until {
            let left = Clock::now().until(until).max(EVERY);
            let late = |_| Err(StoreError::unavailable("the store did not answer in time"));
            return tokio::time::timeout(left, appended).await.unwrap_or_else(late);
        }
        if self.spill.is_none() {
            return appended.await;
        }
        let crowded = async {
            while !self.usage.crowded() {
                self.usage.half_full().await;
            }
        };
        tokio::select! {
            biased;
            done = appended => done,
            () = crowded => Err(StoreError::unavailable("the store is too slow for what is logged")),
        }
    }

    /// A batch the store refuses for its content would be in the way for ever: first its rows go, then it.
    async fn strike(&mut self, error: &StoreError) {
        if !matches!(error.kind, StoreErrorKind::Corrupt | StoreErrorKind::Conflict) {
            return;
        }
        self.strikes += 1;
        if self.strikes != STRIKES.0 && self.strikes < STRIKES.1 {
            return;
        }
        let spilled = self.next_spilled().await;
        let Some(batch) = spilled.as_ref().map(|waiting| &waiting.batch).or(self.pending.front()) else { return };
        tracing::error!(%error, rows = batch.rows.len(), "the store refuses this usage: it is given up");
        METRICS.log_rows_dropped.add(batch.rows.len() as u64);
        let totals = batch.totals.clone();
        match (spilled, &mut self.spill) {
            (Some(waiting), Some(spill)) => spill.done(&waiting),
            _ => drop(self.pending.pop_front()),
        }
        if self.strikes < STRIKES.1 {
            // Under a number of its own: the old one may lie below what is stored by then.
            self.number += 1;
            let (writer, number, rows) = (self.epoch, self.number, Vec::new());
            self.pending.push_back(Arc::new(UsageBatch { writer, number, totals, rows }));
        } else {
            self.strikes = 0;
        }
    }

    /// Everything that waits in memory goes to the file, as far as it has room. What has none stays where it is bounded.
    async fn spill_all(&mut self) {
        self.spill_pending().await;
        if self.spill.is_some() && self.pending.is_empty() {
            self.gather();
            self.spill_pending().await;
        }
    }

    async fn spill_pending(&mut self) {
        if self.spill.is_none() || self.pending.is_empty() {
            return;
        }
        let batches = self.pending.clone();
        let pushed = self.on_disk(move |spill| {
            let (mut count, mut rows) = (0, 0);
            for batch in batches {
                if !spill.push(&batch)? {
                    break;
                }
                count += 1;
                rows += batch.rows.len() as u64;
            }
            spill.sync()?;
            Ok((count, rows))
        });
        match pushed.await {
            Ok((count, rows)) => {
                METRICS.log_rows_spilled.add(rows);
                self.pending.drain(..count);
            }
            // What did get there counts once all the same.
            Err(error) => {
                tracing::warn!(%error, "usage cannot be spilled to the data directory; it waits in memory");
                self.spill = None;
            }
        }
    }

    /// Does something that may wait for the disk, where that holds up nobody.
    async fn on_disk<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Spill) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Some(mut spill) = self.spill.take() else { return Err(io::ErrorKind::NotFound.into()) };
        let done = tasks::blocking("usage spill", move || {
            let out = work(&mut spill);
            (spill, out)
        });
        let Some((spill, out)) = done.await else { return Err(io::ErrorKind::Other.into()) };
        self.spill = Some(spill);
        out
    }

    fn gather(&mut self) {
        let (mut totals, rows) = self.take();
        // Cut in the order of the tables: each batch then goes to a place of its own.
        totals.sort_unstable_by(|a, b| by_place(a).cmp(&by_place(b)));
        let (mut totals, mut rows) = (totals.into_iter(), rows.into_iter());
        loop {
            let totals: Vec<_> = totals.by_ref().take(MAX_ROWS).collect();
            let rows: Vec<_> = rows.by_ref().take(MAX_ROWS).map(Into::into).collect();
            if rows.is_empty() && totals.is_empty() {
                return;
            }
            self.number += 1;
            self.pending.push_back(Arc::new(UsageBatch { writer: self.epoch, number: self.number, totals, rows }));
        }
    }

    /// The rows; and the totals, unless they had better merge for a while yet.
    fn take(&mut self) -> (Vec<Total>, Vec<LogRow>) {
        let now = Clock::now();
        let due = now >= self.totals_due || self.until.is_some() || self.usage.wide();
        let (totals, rows) = self.usage.take(due);
        let share = PACE.saturating_mul(u32::try_from(totals.len()).unwrap_or(u32::MAX));
        if share > EVERY {
            self.totals_due = now + share.min(LONGEST);
        }
        (totals, rows)
    }
}

/// What a total is found by, as the tables are ordered.
fn by_place(total: &Total) -> (u32, i64, i64, &str) {
    (total.minute, total.key.0.cast_signed(), total.account.0.cast_signed(), &total.model)
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
