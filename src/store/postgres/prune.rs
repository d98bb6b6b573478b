//! Keeping the log within its days and bytes: whole days are dropped, the broken day loses rows a step at a time.
//!
//! One instance does it at a time (an advisory lock); the others find nothing to do.

use super::call::BULK;
use super::migrate::PARTITION_LOCK;
use super::usage::{DAY_MS, partition};
use super::values::{params, whole};
use super::{Postgres, Tx};
use crate::base::Clock;
use crate::store::engine::PRUNE_STEP;
use crate::store::error::Result;
use crate::store::rows::Pruned;
use std::collections::BTreeMap;

/// Days whose partition is made before they come.
const AHEAD: i64 = 3;

impl Postgres {
    /// Removes some of the rows older than `before_ms`, or the oldest when all of them cost more than `max_bytes`.
    pub(crate) async fn prune(&self, before_ms: u64, max_bytes: u64) -> Result<Pruned> {
        let today = whole(Clock::unix_ms()) / DAY_MS;
        self.partitions(&(today..today + AHEAD).collect()).await?;
        let (pruned, dropped) = self
            .run(BULK, move |tx| async move {
                let lock = tx.one("SELECT pg_try_advisory_xact_lock($1)", params![PARTITION_LOCK]).await?;
                if lock.try_get::<_, bool>(0)? {
                    tx.prune(whole(before_ms), whole(max_bytes), today).await
                } else {
                    Ok((Pruned::default(), Vec::new()))
                }
            })
            .await?;
        let mut known = self.inner.days.lock();
        for day in dropped {
            known.remove(&day);
        }
        Ok(pruned)
    }

    /// Removes some of the totals by the minute before that Unix minute. Those by the day stay.
    pub(crate) async fn prune_minutes(&self, before: u32) -> Result<Pruned> {
        self.run(BULK, move |tx| async move {
            let sql = format!("SELECT minute + 1 FROM usage ORDER BY minute LIMIT 1 OFFSET {PRUNE_STEP}");
            let step = tx.rows(&sql, &[]).await?.first().map(|row| row.try_get::<_, i64>(0)).transpose()?;
            let until = step.map_or(before.into(), |step| step.min(before.into()));
            let rows = tx.execute("DELETE FROM usage WHERE minute < $1", params![until]).await?;
            Ok(Pruned { rows, more: until < i64::from(before) })
        })
        .await
    }

    /// Dropped partitions gave their space back already; the rest is the database's own housekeeping.
    #[expect(clippy::unused_async, reason = "the shape of every engine")]
    pub(crate) async fn shrink(&self, _pages: u32) -> Result<()> {
        Ok(())
    }
}

impl Tx {
    async fn prune(&self, before: i64, max_bytes: i64, today: i64) -> Result<(Pruned, Vec<i64>)> {
        let mut pruned = Pruned::default();
        let mut dropped = Vec::new();
        let mut days: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        let sql = "SELECT day, CAST(sum(rows) AS BIGINT), CAST(sum(bytes) AS BIGINT) FROM log_sizes GROUP BY day";
        for row in self.rows(sql, &[]).await? {
            days.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
        }
        let total: i64 = days.values().map(|(_, bytes)| *bytes).sum();
        let mut excess = total.saturating_sub(max_bytes);
        while let Some((&day, &(rows, bytes))) = days.first_key_value() {
            let over = (day + 1).saturating_mul(DAY_MS) <= before || (excess > 0 && bytes <= excess);
            if day >= today || !over {
                break;
            }
            self.batch(&format!("DROP TABLE IF EXISTS {}", partition(day))).await?;
            self.execute("DELETE FROM log_sizes WHERE day = $1", params![day]).await?;
            pruned.rows += rows.max(0).cast_unsigned();
            excess -= bytes;
            days.pop_first();
            dropped.push(day);
        }
        if days.first_key_value().is_some_and(|(day, _)| excess > 0 || day.saturating_mul(DAY_MS) < before) {
            let rows = self.prune_rows(before, excess).await?;
            pruned.more = rows == u64::from(PRUNE_STEP);
            pruned.rows += rows;
        }
        // Writers of processes long gone.
        let week = whole(Clock::unix_ms()) - 7 * DAY_MS;
        self.execute("DELETE FROM writers WHERE seen_ms < $1", params![week]).await?;
        Ok((pruned, dropped))
    }

    /// One step of the oldest rows that are over; how many there were.
    async fn prune_rows(&self, before: i64, mut excess: i64) -> Result<u64> {
        let sql = format!("SELECT time_ms, seq, size FROM request_log ORDER BY time_ms, seq LIMIT {PRUNE_STEP}");
        let (mut last, mut count) = (None, 0);
        let mut freed: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for row in self.rows(&sql, &[]).await? {
            let (time, seq, size): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if time >= before && excess <= 0 {
                break;
            }
            last = Some((time, seq));
            let day = freed.entry(time / DAY_MS).or_default();
            *day = (day.0 + 1, day.1 + size);
            excess -= size;
            count += 1;
        }
        if let Some((time, seq)) = last {
            let sql = "DELETE FROM request_log WHERE time_ms <= $1 AND (time_ms, seq) <= ($1, $2)";
            self.execute(sql, params![time, seq]).await?;
            for (day, (rows, bytes)) in freed {
                self.book(day, 0, -rows, -bytes).await?;
            }
        }
        Ok(count)
    }
}
