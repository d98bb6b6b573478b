//! Appending usage: totals and log rows of a batch in one transaction, once however often it is sent. And giving the
//! space of old rows back, a piece at a time so that the writer is never held up for long.

use super::{Embedded, gathered};
use crate::base::{Clock, KeyId};
use crate::state::usage::Total;
use crate::store::columns;
use crate::store::decode::size;
use crate::store::engine::PRUNE_STEP;
use crate::store::error::Result;
use crate::store::query::stored_epoch;
use crate::store::rows::{LoggedRow, Pruned, UsageBatch};
use crate::store::usage::{SUMMED, SUMS, Sums};
use rusqlite::{OptionalExtension as _, ToSql, Transaction, params};
use std::borrow::Cow;

impl Embedded {
    /// Stores `batch`; how many log rows are new. Nothing happens for a batch number that is stored already.
    pub(crate) async fn append(&self, batch: std::sync::Arc<UsageBatch>) -> Result<usize> {
        self.write(move |tx| {
            if !first_time(tx, &batch)? {
                return Ok(0);
            }
            for sums in &SUMS {
                add(tx, sums, &batch.totals)?;
            }
            let (mut rows, mut bytes) = (0, 0i64);
            for row in &batch.rows {
                let size = size(row);
                if insert(tx, row, size)? {
                    rows += 1;
                    bytes += size;
                }
            }
            tx.prepare_cached("UPDATE meta SET log_bytes = log_bytes + ?1")?.execute([bytes])?;
            Ok(rows)
        })
        .await
    }

    /// Removes some of the rows older than `before_ms`, or the oldest when all of them cost more than `max_bytes`.
    pub(crate) async fn prune(&self, before_ms: u64, max_bytes: u64) -> Result<Pruned> {
        self.write(move |tx| {
            let bytes: i64 = tx.query_row("SELECT log_bytes FROM meta", [], |row| row.get(0))?;
            let mut excess = bytes.saturating_sub(i64::try_from(max_bytes).unwrap_or(i64::MAX));
            let before = before_ms.cast_signed();
            let (mut last, mut freed, mut rows) = (None, 0i64, 0u64);
            {
                // By arrival: within the few seconds in which that differs from the time they began, nobody minds.
                let mut oldest =
                    tx.prepare_cached("SELECT seq, time_ms, size FROM request_log ORDER BY seq LIMIT ?1")?;
                let mut found = oldest.query([PRUNE_STEP])?;
                while let Some(row) = found.next()? {
                    let (seq, time, size): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                    if time >= before && excess <= 0 {
                        break;
                    }
                    last = Some(seq);
                    freed += size;
                    excess -= size;
                    rows += 1;
                }
            }
            if let Some(last) = last {
                tx.execute("DELETE FROM request_log WHERE seq <= ?1", [last])?;
                tx.execute("UPDATE meta SET log_bytes = max(0, log_bytes - ?1)", [freed])?;
            }
            // Writers of processes long gone.
            let week = Clock::unix_ms().saturating_sub(7 * 86_400_000).cast_signed();
            tx.execute("DELETE FROM writers WHERE seen_ms < ?1", [week])?;
            Ok(Pruned { rows, more: rows == u64::from(PRUNE_STEP) })
        })
        .await
    }

    /// Removes some of the totals by the minute before that Unix minute. Those by the day stay.
    pub(crate) async fn prune_minutes(&self, before: u32) -> Result<Pruned> {
        self.write(move |tx| {
            let places = "minute, key_id, account_id, model";
            let sql = format!("SELECT {places} FROM usage ORDER BY {places} LIMIT 1 OFFSET {PRUNE_STEP}");
            let place = |row: &rusqlite::Row<'_>| {
                Ok((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, String>(3)?))
            };
            let next = tx.prepare_cached(&sql)?.query_row([], place).optional()?.filter(|next| next.0 < before);
            let rows = match &next {
                Some((minute, key, account, model)) => {
                    let sql = format!("DELETE FROM usage WHERE ({places}) < (?1, ?2, ?3, ?4)");
                    tx.prepare_cached(&sql)?.execute(params![minute, key, account, model])?
                }
                None => tx.prepare_cached("DELETE FROM usage WHERE minute < ?1")?.execute([before])?,
            };
            Ok(Pruned { rows: rows as u64, more: next.is_some() })
        })
        .await
    }

    /// Gives freed pages back to the file system, at most `pages` of them.
    pub(crate) async fn shrink(&self, pages: u32) -> Result<()> {
        self.write
            .run(move |connection| {
                let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
                let mut steps = vacuum.query([])?;
                while steps.next()?.is_some() {}
                Ok(())
            })
            .await
    }

    /// What keys have spent; of those only that spent anything since, when a minute is given.
    pub(crate) async fn spent(&self, since_minute: Option<u32>) -> Result<Vec<(KeyId, i64)>> {
        self.query(move |tx| {
            let recent = "WHERE key_id IN (SELECT key_id FROM usage WHERE minute >= ?1)
                 AND key_id IN (SELECT id FROM keys WHERE budget_nanos IS NOT NULL)";
            let sums = "SELECT key_id, SUM(cost_nanos) FROM usage_key_days";
            let sql = format!("{sums} {} GROUP BY key_id", if since_minute.is_some() { recent } else { "" });
            let mut select = tx.prepare_cached(&sql)?;
            let read = |row: &rusqlite::Row<'_>| Ok((KeyId(row.get::<_, i64>(0)?.cast_unsigned()), row.get(1)?));
            let rows = match since_minute {
                Some(minute) => select.query_map([minute], read)?.collect::<rusqlite::Result<_>>()?,
                None => select.query_map([], read)?.collect::<rusqlite::Result<_>>()?,
            };
            Ok(rows)
        })
        .await
    }

    /// All totals by the minute, oldest first.
    pub(crate) async fn usage_totals(&self) -> Result<Vec<Total>> {
        self.query(|tx| {
            let mut select = tx.prepare_cached(&format!(
                "SELECT {} FROM usage ORDER BY minute, key_id, account_id, model",
                columns::TOTAL
            ))?;
            gathered(select.query([])?, columns::total)
        })
        .await
    }
}

fn first_time(tx: &Transaction<'_>, batch: &UsageBatch) -> Result<bool> {
    let (writer, number) = (batch.writer.cast_signed(), batch.number.cast_signed());
    let mut select = tx.prepare_cached("SELECT last_batch FROM writers WHERE epoch = ?1")?;
    let last: Option<i64> = select.query_row([writer], |row| row.get(0)).optional()?;
    if last.is_some_and(|last| last >= number) {
        return Ok(false);
    }
    tx.prepare_cached(
        "INSERT INTO writers (epoch, last_batch, seen_ms) VALUES (?1, ?2, ?3)
         ON CONFLICT (epoch) DO UPDATE SET last_batch = excluded.last_batch, seen_ms = excluded.seen_ms",
    )?
    .execute([writer, number, Clock::unix_ms().cast_signed()])?;
    Ok(true)
}

fn add(tx: &Transaction<'_>, sums: &Sums, totals: &[Total]) -> Result<()> {
    let merged = sums.merged(totals, Cow::Borrowed);
    if merged.is_empty() {
        return Ok(());
    }
    let columns = sums.columns().split(", ").count() + SUMMED.split(", ").count();
    let mut upsert = tx.prepare_cached(&sums.upsert(&format!("VALUES ({})", vec!["?"; columns].join(", "))))?;
    for ((span, key, account, model), counts) in &merged {
        let mut at = 1..;
        let mut bind = |value: &dyn ToSql| upsert.raw_bind_parameter(at.next().unwrap_or_default(), value);
        bind(span)?;
        if sums.by_key {
            bind(key)?;
        }
        if sums.by_target {
            bind(account)?;
            bind(model)?;
        }
        for sum in columns::summed(counts) {
            bind(&sum)?;
        }
        upsert.raw_execute()?;
    }
    Ok(())
}

fn insert(tx: &Transaction<'_>, row: &LoggedRow, size: i64) -> Result<bool> {
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let inserted = tx
        .prepare_cached(
            "INSERT OR IGNORE INTO request_log (epoch, n, time_ms, client_request_id, key_id, key_name, dialect,
             endpoint, requested_model, provider, account_id, account, model, status, stream, cache, attempts, timeline,
             prompt, completion, cache_read, cache_write, reasoning, cost_nanos, latency_ms, first_byte_ms, overhead_us,
             error, estimated, sampled, size) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,
             ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31)",
        )?
        .execute(params![
            stored_epoch(row.id),
            row.id.n.cast_signed(),
            row.time_ms.cast_signed(),
            row.client_request_id,
            row.key.as_ref().map_or(0, |(id, _)| id.0.cast_signed()),
            row.key.as_ref().map(|(_, name)| name),
            row.dialect,
            row.endpoint,
            row.requested_model,
            row.provider,
            row.account.as_ref().map(|(id, _)| id.0.cast_signed()),
            row.account.as_ref().map(|(_, label)| label),
            row.model,
            row.status,
            row.stream,
            row.cache,
            row.attempts,
            row.timeline,
            whole(row.tokens.prompt),
            whole(row.tokens.completion),
            whole(row.tokens.cache_read),
            whole(row.tokens.cache_write),
            whole(row.tokens.reasoning),
            row.cost_nanos,
            row.latency_ms,
            row.first_byte_ms,
            row.overhead_us,
            row.error,
            row.estimated,
            row.sampled,
            size
        ])?;
    Ok(inserted > 0)
}
