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
use std::sync::atomic::Ordering;

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
        // What is gone stays in the index until the database has tidied up: without a lower bound each look would go
        // through all of it.
        let gone = self.inner.minutes_gone.load(Ordering::Relaxed);
        if gone >= before {
            return Ok(Pruned::default());
        }
        let (pruned, gone) = self
            .run(BULK, move |tx| async move {
                let lock = tx.one("SELECT pg_try_advisory_xact_lock($1)", params![PARTITION_LOCK]).await?;
                if lock.try_get::<_, bool>(0)? { tx.prune_minutes(gone, before).await } else { Ok(<_>::default()) }
            })
            .await?;
        self.inner.minutes_gone.fetch_max(gone, Ordering::Relaxed);
        Ok(pruned)
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

    /// One step of the totals of minutes `[gone, before)`; and the first minute of which any may be left.
    async fn prune_minutes(&self, gone: u32, before: u32) -> Result<(Pruned, u32)> {
        let places = "minute, key_id, account_id, model";
        let (low, high) = (i64::from(gone), i64::from(before));
        let sql = format!(
            "SELECT {places} FROM usage WHERE minute >= $1 AND minute < $2 ORDER BY {places} LIMIT 1 OFFSET {PRUNE_STEP}"
        );
        let next = self.rows(&sql, params![low, high]).await?;
        let Some(next) = next.first() else {
            let rows = self.execute("DELETE FROM usage WHERE minute >= $1 AND minute < $2", params![low, high]).await?;
            return Ok((Pruned { rows, more: false }, before));
        };
        let (minute, key, account): (i64, i64, i64) = (next.try_get(0)?, next.try_get(1)?, next.try_get(2)?);
        let model: String = next.try_get(3)?;
        let sql = format!("DELETE FROM usage WHERE minute >= $1 AND ({places}) < ($2, $3, $4, $5)");
        let rows = self.execute(&sql, params![low, minute, key, account, model]).await?;
        Ok((Pruned { rows, more: true }, u32::try_from(minute).unwrap_or(gone)))
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
