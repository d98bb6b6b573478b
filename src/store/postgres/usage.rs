//! Appending usage: a batch's totals and log rows in one transaction, once however often it is sent.
//!
//! Many instances append at once. Rows go first (nobody else's), totals last and in one order everywhere: so their locks
//! are short and no two instances wait for each other in a circle.

use super::call::{BULK, SURVEY};
use super::error::no_partition;
use super::migrate::PARTITION_LOCK;
use super::values::{fit, params, typed, whole};
use super::{Param, Postgres, Tx};
use crate::base::{Clock, KeyId};
use crate::state::usage::Total;
use crate::store::columns;
use crate::store::decode::size;
use crate::store::error::Result;
use crate::store::query::stored_epoch;
use crate::store::rows::{LoggedRow, UsageBatch};
use crate::store::usage::{Place, SUMS, Sums};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Milliseconds of a day: one partition.
pub(super) const DAY_MS: i64 = 86_400_000;

impl Postgres {
    /// Stores `batch`; how many log rows are new. Nothing happens for a batch number that is stored already.
    pub(crate) async fn append(&self, batch: Arc<UsageBatch>) -> Result<usize> {
        let days: BTreeSet<i64> = batch.rows.iter().map(|row| whole(row.time_ms) / DAY_MS).collect();
        self.partitions(&days).await?;
        let again = Arc::clone(&batch);
        match self.run(BULK, |tx| async move { tx.append(&batch).await }).await {
            Err(e) if no_partition(&e) => {
                // Another instance's retention dropped what we believed to be there.
                self.inner.days.lock().clear();
                self.partitions(&days).await?;
                self.run(BULK, |tx| async move { tx.append(&again).await }).await
            }
            done => done,
        }
    }

    /// Makes the partitions of those days, where we do not know them to be there.
    pub(super) async fn partitions(&self, days: &BTreeSet<i64>) -> Result<()> {
        let missing: Vec<i64> = {
            let known = self.inner.days.lock();
            days.iter().copied().filter(|day| !known.contains(day)).collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let made = missing.clone();
        self.run(BULK, |tx| async move { tx.partitions(&missing).await }).await?;
        self.inner.days.lock().extend(made);
        Ok(())
    }

    /// What keys have spent; of those only that spent anything since, when a minute is given.
    pub(crate) async fn spent(&self, since_minute: Option<u32>) -> Result<Vec<(KeyId, i64)>> {
        self.run(SURVEY, move |tx| async move {
            let sums = "SELECT key_id, CAST(SUM(cost_nanos) AS BIGINT) FROM usage_key_days";
            let rows = match since_minute {
                Some(minute) => {
                    let recent = "WHERE key_id IN (SELECT key_id FROM usage WHERE minute >= $1)
                                  AND key_id IN (SELECT id FROM keys WHERE budget_nanos IS NOT NULL)";
                    tx.rows(&format!("{sums} {recent} GROUP BY key_id"), params![i64::from(minute)]).await?
                }
                None => tx.rows(&format!("{sums} GROUP BY key_id"), &[]).await?,
            };
            rows.iter().map(|row| Ok((KeyId(row.try_get::<_, i64>(0)?.cast_unsigned()), row.try_get(1)?))).collect()
        })
        .await
    }

    /// All totals by the minute, oldest first.
    pub(crate) async fn usage_totals(&self) -> Result<Vec<Total>> {
        self.run(SURVEY, |tx| async move {
            let sql = format!("SELECT {} FROM usage ORDER BY minute, key_id, account_id, model", columns::TOTAL);
            tx.rows(&sql, &[]).await?.iter().map(columns::total).collect()
        })
        .await
    }
}

impl Tx {
    async fn append(&self, batch: &UsageBatch) -> Result<usize> {
        let (writer, number) = (batch.writer.cast_signed(), batch.number.cast_signed());
        let first = self
            .execute(
                "INSERT INTO writers (epoch, last_batch, seen_ms) VALUES ($1, $2, $3)
                 ON CONFLICT (epoch) DO UPDATE SET last_batch = excluded.last_batch, seen_ms = excluded.seen_ms
                 WHERE writers.last_batch < excluded.last_batch",
                params![writer, number, whole(Clock::unix_ms())],
            )
            .await?;
        if first == 0 {
            return Ok(0);
        }
        let mut new = 0;
        if !batch.rows.is_empty() {
            for (day, rows, bytes) in self.insert(&batch.rows).await? {
                new += rows as usize;
                self.book(day, writer, rows, bytes).await?;
            }
        }
        if !batch.totals.is_empty() {
            for sums in &SUMS {
                self.add(sums, &batch.totals).await?;
            }
        }
        Ok(new)
    }

    /// What the rows of a day cost, by writer.
    pub(super) async fn book(&self, day: i64, writer: i64, rows: i64, bytes: i64) -> Result<()> {
        self.execute(
            "INSERT INTO log_sizes (day, writer, rows, bytes) VALUES ($1, $2, $3, $4)
             ON CONFLICT (day, writer) DO UPDATE SET rows = log_sizes.rows + excluded.rows,
             bytes = log_sizes.bytes + excluded.bytes",
            params![day, writer, rows, bytes],
        )
        .await?;
        Ok(())
    }

    /// Makes the partitions of those days. Attaching an empty table holds up no write.
    pub(super) async fn partitions(&self, days: &[i64]) -> Result<()> {
        self.rows("SELECT pg_advisory_xact_lock($1)", params![PARTITION_LOCK]).await?;
        for day in days {
            let name = partition(*day);
            let there: bool = self.one("SELECT to_regclass($1) IS NOT NULL", params![name]).await?.try_get(0)?;
            if !there {
                let (from, to) = (day * DAY_MS, (day + 1) * DAY_MS);
                self.batch(&format!(
                    "CREATE TABLE {name} (LIKE request_log INCLUDING ALL);
                     ALTER TABLE request_log ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})"
                ))
                .await?;
            }
        }
        Ok(())
    }

    /// Adds to totals, the same ones of the batch merged first: one statement may touch a row only once.
    async fn add(&self, sums: &Sums, totals: &[Total]) -> Result<()> {
        let merged = sums.merged(totals, |model| fit(model).into());
        let ints = |pick: &dyn Fn(&Place<'_>) -> i64| merged.iter().map(|(place, _)| pick(place)).collect::<Vec<i64>>();
        let spans = ints(&|(span, ..)| i64::from(*span));
        let keys = ints(&|(_, key, ..)| *key);
        let accounts = ints(&|(_, _, account, _)| *account);
        let counts: Vec<_> = merged.iter().map(|(_, counts)| columns::summed(counts)).collect();
        let counts: [Vec<i64>; 8] = std::array::from_fn(|n| counts.iter().map(|row| row[n]).collect());
        let models: Vec<String> = merged.into_iter().map(|((.., model), _)| model.into_owned()).collect();
        let mut values: Vec<Param<'_>> = vec![typed(&spans)];
        if sums.by_key {
            values.push(typed(&keys));
        }
        if sums.by_target {
            values.extend([typed(&accounts), typed(&models)]);
        }
        values.extend(counts.iter().map(typed));
        let places: Vec<_> = (1..=values.len()).map(|n| format!("${n}")).collect();
        let rows = format!("SELECT * FROM unnest({})", places.join(", "));
        self.execute(&sums.upsert(&rows), &values).await?;
        Ok(())
    }

    /// Inserts the rows that are not there yet: (day, rows, bytes) of those that were new.
    async fn insert(&self, rows: &[LoggedRow]) -> Result<Vec<(i64, i64, i64)>> {
        let ints = |pick: &dyn Fn(&LoggedRow) -> i64| rows.iter().map(pick).collect::<Vec<i64>>();
        let some = |pick: &dyn Fn(&LoggedRow) -> Option<i64>| rows.iter().map(pick).collect::<Vec<Option<i64>>>();
        let texts = |pick: &dyn for<'r> Fn(&'r LoggedRow) -> &'r str| {
            rows.iter().map(|row| fit(pick(row))).collect::<Vec<String>>()
        };
        let words = |pick: &dyn for<'r> Fn(&'r LoggedRow) -> Option<&'r str>| {
            rows.iter().map(|row| pick(row).map(fit)).collect::<Vec<Option<String>>>()
        };
        let flags = |pick: fn(&LoggedRow) -> bool| rows.iter().map(pick).collect::<Vec<bool>>();
        let found = self
            .rows(
                "WITH new AS (
                   INSERT INTO request_log (epoch, n, time_ms, client_request_id, key_id, key_name, dialect, endpoint,
                   requested_model, provider, account_id, account, model, status, stream, cache, attempts, timeline,
                   prompt, completion, cache_read, cache_write, reasoning, cost_nanos, latency_ms, first_byte_ms,
                   overhead_us, error, estimated, sampled, size)
                   SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                   $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31)
                   ON CONFLICT DO NOTHING RETURNING time_ms, size)
                 SELECT time_ms / 86400000, count(*), CAST(sum(size) AS BIGINT) FROM new GROUP BY 1",
                params![
                    ints(&|row| stored_epoch(row.id)),
                    ints(&|row| row.id.n.cast_signed()),
                    ints(&|row| whole(row.time_ms)),
                    words(&|row| row.client_request_id.as_deref()),
                    ints(&|row| row.key.as_ref().map_or(0, |(id, _)| id.0.cast_signed())),
                    words(&|row| row.key.as_ref().map(|(_, name)| &**name)),
                    texts(&|row| &row.dialect),
                    texts(&|row| &row.endpoint),
                    texts(&|row| &row.requested_model),
                    words(&|row| row.provider.as_deref()),
                    some(&|row| row.account.as_ref().map(|(id, _)| id.0.cast_signed())),
                    words(&|row| row.account.as_ref().map(|(_, label)| &**label)),
                    words(&|row| row.model.as_deref()),
                    ints(&|row| row.status.into()),
                    flags(|row| row.stream),
                    texts(&|row| &row.cache),
                    ints(&|row| row.attempts.into()),
                    words(&|row| row.timeline.as_deref()),
                    ints(&|row| whole(row.tokens.prompt)),
                    ints(&|row| whole(row.tokens.completion)),
                    ints(&|row| whole(row.tokens.cache_read)),
                    ints(&|row| whole(row.tokens.cache_write)),
                    ints(&|row| whole(row.tokens.reasoning)),
                    ints(&|row| row.cost_nanos),
                    ints(&|row| row.latency_ms.into()),
                    some(&|row| row.first_byte_ms.map(i64::from)),
                    ints(&|row| row.overhead_us.into()),
                    words(&|row| row.error.as_deref()),
                    flags(|row| row.estimated),
                    ints(&|row| row.sampled.into()),
                    ints(&size)
                ],
            )
            .await?;
        found.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
    }
}

/// `request_log_20261231`.
pub(super) fn partition(day: i64) -> String {
    let date = Clock::rfc3339((day * DAY_MS).cast_unsigned());
    let digits: String = date.chars().take(10).filter(char::is_ascii_digit).collect();
    format!("request_log_{digits}")
}
