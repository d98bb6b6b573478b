//! Appending usage: a batch's totals and log rows in one transaction, once however often it is sent.
//!
//! Many instances append at once. Rows go first (nobody else's), totals last and in one order everywhere: so their locks
//! are short and no two instances wait for each other in a circle.

use super::call::{BULK, SURVEY};
use super::error::no_partition;
use super::migrate::PARTITION_LOCK;
use super::values::{fit, params, whole};
use super::{Postgres, Tx};
use crate::base::{AccountId, Clock, KeyId};
use crate::state::usage::{Counts, Tokens, Total};
use crate::store::decode::{MAX_TEXT, cut, size};
use crate::store::error::Result;
use crate::store::query::stored_epoch;
use crate::store::rows::{LoggedRow, UsageBatch};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio_postgres::Row;

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
            let sums = "SELECT key_id, CAST(SUM(cost_nanos) AS BIGINT) FROM usage_days";
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

    /// All totals, oldest first.
    pub(crate) async fn usage_totals(&self) -> Result<Vec<Total>> {
        self.run(SURVEY, |tx| async move {
            let sql = "SELECT minute, key_id, account_id, model, requests, errors, prompt, completion, cache_read,
                       cache_write, reasoning, cost_nanos FROM usage ORDER BY minute, key_id, account_id, model";
            let read = |row: &Row| {
                let count = |at| row.try_get::<_, i64>(at).map(i64::cast_unsigned);
                Ok(Total {
                    minute: count(0)? as u32,
                    key: KeyId(count(1)?),
                    account: AccountId(count(2)?),
                    model: row.try_get::<_, String>(3)?.into(),
                    counts: counts(row, 4)?,
                })
            };
            tx.rows(sql, &[]).await?.iter().map(read).collect()
        })
        .await
    }
}

/// The eight sums from column `at` on.
pub(super) fn counts(row: &Row, at: usize) -> Result<Counts> {
    let count = |n| row.try_get::<_, i64>(at + n).map(i64::cast_unsigned);
    Ok(Counts {
        requests: count(0)?,
        errors: count(1)?,
        tokens: Tokens {
            prompt: count(2)?,
            completion: count(3)?,
            cache_read: count(4)?,
            cache_write: count(5)?,
            reasoning: count(6)?,
        },
        cost_nanos: row.try_get(at + 7)?,
    })
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
            self.add("usage", "minute", &batch.totals, |total| total.minute).await?;
            self.add("usage_days", "day", &batch.totals, |total| total.minute / 1_440).await?;
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
    async fn add(&self, table: &str, span: &str, totals: &[Total], at: fn(&Total) -> u32) -> Result<()> {
        let mut merged: BTreeMap<(u32, i64, i64, String), Counts> = BTreeMap::new();
        for total in totals {
            let (key, account) = (total.key.0.cast_signed(), total.account.0.cast_signed());
            let model = fit(cut(&total.model, MAX_TEXT));
            merged.entry((at(total), key, account, model)).or_default().add(&total.counts);
        }
        let places: Vec<_> = merged.keys().collect();
        let spans: Vec<i64> = places.iter().map(|(span, ..)| i64::from(*span)).collect();
        let keys: Vec<i64> = places.iter().map(|(_, key, ..)| *key).collect();
        let accounts: Vec<i64> = places.iter().map(|(_, _, account, _)| *account).collect();
        let models: Vec<String> = places.iter().map(|(.., model)| model.clone()).collect();
        let sums = |pick: fn(&Counts) -> u64| merged.values().map(|counts| whole(pick(counts))).collect::<Vec<i64>>();
        let costs: Vec<i64> = merged.values().map(|counts| counts.cost_nanos).collect();
        self.execute(
            &format!(
                "INSERT INTO {table} AS old ({span}, key_id, account_id, model, requests, errors, prompt, completion,
                 cache_read, cache_write, reasoning, cost_nanos)
                 SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
                 ON CONFLICT ({span}, key_id, account_id, model) DO UPDATE SET
                 requests = old.requests + excluded.requests, errors = old.errors + excluded.errors,
                 prompt = old.prompt + excluded.prompt, completion = old.completion + excluded.completion,
                 cache_read = old.cache_read + excluded.cache_read, cache_write = old.cache_write + excluded.cache_write,
                 reasoning = old.reasoning + excluded.reasoning, cost_nanos = old.cost_nanos + excluded.cost_nanos"
            ),
            params![
                spans,
                keys,
                accounts,
                models,
                sums(|c| c.requests),
                sums(|c| c.errors),
                sums(|c| c.tokens.prompt),
                sums(|c| c.tokens.completion),
                sums(|c| c.tokens.cache_read),
                sums(|c| c.tokens.cache_write),
                sums(|c| c.tokens.reasoning),
                costs
            ],
        )
        .await?;
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
