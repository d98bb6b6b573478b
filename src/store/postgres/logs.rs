//! Reading log rows and sums back.

use super::call::{QUERY, SURVEY};
use super::usage::counts;
use super::values::params;
use super::{Param, Postgres};
use crate::base::{AccountId, KeyId, RequestId};
use crate::state::usage::Tokens;
use crate::store::error::Result;
use crate::store::query::{LogCursor, LogSelect, Placed, Value, stored_epoch};
use crate::store::rows::LoggedRow;
use crate::store::usage_query::{Names, UsageRow, UsageSelect};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

pub(super) const COLUMNS: &str =
    "epoch, n, time_ms, client_request_id, key_id, key_name, dialect, endpoint, requested_model,
    provider, account_id, account, model, status, stream, cache, attempts, timeline, prompt, completion, cache_read,
    cache_write, reasoning, cost_nanos, latency_ms, first_byte_ms, overhead_us, error, estimated, sampled";

impl Postgres {
    /// A page, and a row more when there is one.
    pub(crate) async fn logs(&self, select: LogSelect) -> Result<Vec<Placed>> {
        self.run(QUERY, move |tx| async move {
            let values: Vec<Param<'_>> = select.values.iter().map(param).collect();
            let read = |row: &Row| Ok((read(row)?, row.try_get::<_, i64>(30)?.cast_unsigned()));
            tx.rows(&select.sql(COLUMNS), &values).await?.iter().map(read).collect()
        })
        .await
    }

    /// Where a search for a text stopped looking, if rows are left.
    pub(crate) async fn log_scan_end(&self, select: LogSelect) -> Result<Option<LogCursor>> {
        self.run(QUERY, move |tx| async move {
            let values: Vec<Param<'_>> = select.values[..select.indexed_values].iter().map(param).collect();
            let Some(row) = tx.maybe(&select.scan_end_sql(), &values).await? else { return Ok(None) };
            let (time, seq): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            Ok(Some(LogCursor { time_ms: time.cast_unsigned(), seq: seq.cast_unsigned() }))
        })
        .await
    }

    /// Sums by group.
    pub(crate) async fn usage(&self, select: UsageSelect) -> Result<Vec<UsageRow>> {
        self.run(QUERY, move |tx| async move {
            let read = |row: &Row| {
                let (key, account, model, day) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
                select.row(key, account, model, day, counts(row, 4)?)
            };
            tx.rows(&select.sql(), &[]).await?.iter().map(read).collect()
        })
        .await
    }

    /// Names of those keys and of all accounts.
    pub(crate) async fn names(&self, keys: Vec<KeyId>) -> Result<Names> {
        self.run(QUERY, move |tx| async move {
            let ids: Vec<i64> = keys.iter().map(|key| key.0.cast_signed()).collect();
            let mut names = Names::default();
            for row in tx.rows("SELECT id, name FROM keys WHERE id = ANY($1)", params![ids]).await? {
                names.keys.insert(row.try_get::<_, i64>(0)?.cast_unsigned(), row.try_get(1)?);
            }
            for row in tx.rows("SELECT id, provider, label FROM accounts", &[]).await? {
                let id = row.try_get::<_, i64>(0)?.cast_unsigned();
                names.accounts.insert(id, (row.try_get(1)?, row.try_get(2)?));
            }
            Ok(names)
        })
        .await
    }

    /// The newest `limit` rows, newest first.
    pub(crate) async fn log_rows(&self, limit: u32) -> Result<Vec<LoggedRow>> {
        self.run(SURVEY, move |tx| async move {
            let sql = format!("SELECT {COLUMNS} FROM request_log ORDER BY time_ms DESC, seq DESC LIMIT {limit}");
            tx.rows(&sql, &[]).await?.iter().map(read).collect()
        })
        .await
    }

    /// The row of one request.
    pub(crate) async fn log(&self, id: RequestId) -> Result<Option<LoggedRow>> {
        self.run(QUERY, move |tx| async move {
            let sql = format!("SELECT {COLUMNS} FROM request_log WHERE epoch = $1 AND n = $2 LIMIT 1");
            let row = tx.maybe(&sql, params![stored_epoch(id), id.n.cast_signed()]).await?;
            row.as_ref().map(read).transpose()
        })
        .await
    }
}

pub(super) fn param(value: &Value) -> Param<'_> {
    match value {
        Value::Int(n) => (n, Type::INT8),
        Value::Text(text) => (text, Type::TEXT),
    }
}

fn read(row: &Row) -> Result<LoggedRow> {
    let int = |at| row.try_get::<_, i64>(at);
    let count = |at| int(at).map(i64::cast_unsigned);
    let small = |at| int(at).map(|n| n as u32);
    let key = row.try_get::<_, Option<String>>(5)?.map(|name| count(4).map(|id| (KeyId(id), name))).transpose()?;
    let account =
        row.try_get::<_, Option<String>>(11)?.map(|label| count(10).map(|id| (AccountId(id), label))).transpose()?;
    Ok(LoggedRow {
        id: RequestId { epoch: count(0)?, n: count(1)? },
        time_ms: count(2)?,
        client_request_id: row.try_get(3)?,
        key,
        dialect: row.try_get(6)?,
        endpoint: row.try_get(7)?,
        requested_model: row.try_get(8)?,
        provider: row.try_get(9)?,
        account,
        model: row.try_get(12)?,
        status: int(13)? as u16,
        stream: row.try_get(14)?,
        cache: row.try_get(15)?,
        attempts: small(16)?,
        timeline: row.try_get(17)?,
        tokens: Tokens {
            prompt: count(18)?,
            completion: count(19)?,
            cache_read: count(20)?,
            cache_write: count(21)?,
            reasoning: count(22)?,
        },
        cost_nanos: int(23)?,
        latency_ms: small(24)?,
        first_byte_ms: row.try_get::<_, Option<i64>>(25)?.map(|n| n as u32),
        overhead_us: small(26)?,
        error: row.try_get(27)?,
        estimated: row.try_get(28)?,
        sampled: small(29)?,
    })
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
