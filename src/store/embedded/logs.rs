//! Reading log rows back.

use super::Embedded;
use super::usage::counts;
use crate::base::{AccountId, KeyId, RequestId};
use crate::state::usage::Tokens;
use crate::store::error::Result;
use crate::store::query::{LogCursor, LogSelect, Placed, Value, stored_epoch};
use crate::store::rows::LoggedRow;
use crate::store::usage_query::{Names, UsageRow, UsageSelect};
use rusqlite::types::ToSqlOutput;
use rusqlite::{OptionalExtension as _, Row, ToSql, params_from_iter};

const COLUMNS: &str = "epoch, n, time_ms, client_request_id, key_id, key_name, dialect, endpoint, requested_model,
    provider, account_id, account, model, status, stream, cache, attempts, timeline, prompt, completion, cache_read,
    cache_write, reasoning, cost_nanos, latency_ms, first_byte_ms, overhead_us, error, estimated, sampled";

impl Embedded {
    /// A page, and a row more when there is one.
    pub(crate) async fn logs(&self, select: LogSelect) -> Result<Vec<Placed>> {
        self.query(move |tx| {
            let mut statement = tx.prepare_cached(&select.sql(COLUMNS))?;
            let rows = statement.query_map(params_from_iter(&select.values), |row| {
                Ok((read(row)?, row.get::<_, i64>(30)?.cast_unsigned()))
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Where a search for a text stopped looking, if rows are left.
    pub(crate) async fn log_scan_end(&self, select: LogSelect) -> Result<Option<LogCursor>> {
        self.query(move |tx| {
            let mut statement = tx.prepare_cached(&select.scan_end_sql())?;
            let values = params_from_iter(&select.values[..select.indexed_values]);
            let end = statement.query_row(values, |row| {
                let (time, seq): (i64, i64) = (row.get(0)?, row.get(1)?);
                Ok(LogCursor { time_ms: time.cast_unsigned(), seq: seq.cast_unsigned() })
            });
            Ok(end.optional()?)
        })
        .await
    }

    /// Sums by group.
    pub(crate) async fn usage(&self, select: UsageSelect) -> Result<Vec<UsageRow>> {
        self.query(move |tx| {
            let mut statement = tx.prepare(&select.sql())?;
            let mut rows = statement.query([])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                let (key, account, model, day) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
                out.push(select.row(key, account, model, day, counts(row, 4)?)?);
            }
            Ok(out)
        })
        .await
    }

    /// Names of those keys and of all accounts.
    pub(crate) async fn names(&self, keys: Vec<KeyId>) -> Result<Names> {
        self.query(move |tx| {
            let mut names = Names::default();
            let mut key = tx.prepare_cached("SELECT name FROM keys WHERE id = ?1")?;
            for id in keys {
                let name: Option<String> = key.query_row([id.0.cast_signed()], |row| row.get(0)).optional()?;
                names.keys.extend(name.map(|name| (id.0, name)));
            }
            let mut accounts = tx.prepare_cached("SELECT id, provider, label FROM accounts")?;
            let mut rows = accounts.query([])?;
            while let Some(row) = rows.next()? {
                names.accounts.insert(row.get::<_, i64>(0)?.cast_unsigned(), (row.get(1)?, row.get(2)?));
            }
            Ok(names)
        })
        .await
    }

    /// The newest `limit` rows, newest first.
    pub(crate) async fn log_rows(&self, limit: u32) -> Result<Vec<LoggedRow>> {
        self.query(move |tx| {
            let mut select = tx.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM request_log ORDER BY time_ms DESC, seq DESC LIMIT ?1"
            ))?;
            Ok(select.query_map([limit], read)?.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// The row of one request.
    pub(crate) async fn log(&self, id: RequestId) -> Result<Option<LoggedRow>> {
        self.query(move |tx| {
            let mut select =
                tx.prepare_cached(&format!("SELECT {COLUMNS} FROM request_log WHERE epoch = ?1 AND n = ?2"))?;
            Ok(select.query_row([stored_epoch(id), id.n.cast_signed()], read).optional()?)
        })
        .await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<LoggedRow> {
    let count = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
    let key = row.get::<_, Option<String>>(5)?.map(|name| count(4).map(|id| (KeyId(id), name))).transpose()?;
    let account =
        row.get::<_, Option<String>>(11)?.map(|label| count(10).map(|id| (AccountId(id), label))).transpose()?;
    Ok(LoggedRow {
        id: RequestId { epoch: count(0)?, n: count(1)? },
        time_ms: count(2)?,
        client_request_id: row.get(3)?,
        key,
        dialect: row.get(6)?,
        endpoint: row.get(7)?,
        requested_model: row.get(8)?,
        provider: row.get(9)?,
        account,
        model: row.get(12)?,
        status: row.get(13)?,
        stream: row.get(14)?,
        cache: row.get(15)?,
        attempts: row.get(16)?,
        timeline: row.get(17)?,
        tokens: Tokens {
            prompt: count(18)?,
            completion: count(19)?,
            cache_read: count(20)?,
            cache_write: count(21)?,
            reasoning: count(22)?,
        },
        cost_nanos: row.get(23)?,
        latency_ms: row.get(24)?,
        first_byte_ms: row.get(25)?,
        overhead_us: row.get(26)?,
        error: row.get(27)?,
        estimated: row.get(28)?,
        sampled: row.get(29)?,
    })
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Int(n) => n.to_sql(),
            Self::Text(text) => text.to_sql(),
        }
    }
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
