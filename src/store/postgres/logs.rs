//! Reading log rows and sums back.

use super::call::{QUERY, SURVEY};
use super::values::params;
use super::{Param, Postgres};
use crate::base::{KeyId, RequestId};
use crate::store::columns::{self, Columns as _, LOG, LOG_WIDTH, counts};
use crate::store::error::Result;
use crate::store::query::{LogCursor, LogSelect, Placed, Value, stored_epoch};
use crate::store::rows::LoggedRow;
use crate::store::usage_query::{Names, UsageRow, UsageSelect};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

impl Postgres {
    /// A page, and a row more when there is one.
    pub(crate) async fn logs(&self, select: LogSelect) -> Result<Vec<Placed>> {
        self.run(QUERY, move |tx| async move {
            let values: Vec<Param<'_>> = select.values.iter().map(param).collect();
            let read = |row: &Row| Ok((columns::log(row)?, row.count(LOG_WIDTH)?));
            tx.rows(&select.sql(LOG), &values).await?.iter().map(read).collect()
        })
        .await
    }

    /// Where a search for a text stopped looking, if rows are left.
    pub(crate) async fn log_scan_end(&self, select: LogSelect) -> Result<Option<LogCursor>> {
        self.run(QUERY, move |tx| async move {
            let values: Vec<Param<'_>> = select.values[..select.indexed_values].iter().map(param).collect();
            let Some(row) = tx.maybe(&select.scan_end_sql(), &values).await? else { return Ok(None) };
            Ok(Some(LogCursor { time_ms: row.count(0)?, seq: row.count(1)? }))
        })
        .await
    }

    /// Sums by group.
    pub(crate) async fn usage(&self, select: UsageSelect) -> Result<Vec<UsageRow>> {
        self.run(QUERY, move |tx| async move {
            let read = |row: &Row| select.row(row.int(0)?, row.int(1)?, row.text(2)?, row.int(3)?, counts(row, 4)?);
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
                names.keys.insert(row.count(0)?, row.text(1)?);
            }
            for row in tx.rows("SELECT id, provider, label FROM accounts", &[]).await? {
                names.accounts.insert(row.count(0)?, (row.text(1)?, row.text(2)?));
            }
            Ok(names)
        })
        .await
    }

    /// The newest `limit` rows, newest first.
    pub(crate) async fn log_rows(&self, limit: u32) -> Result<Vec<LoggedRow>> {
        self.run(SURVEY, move |tx| async move {
            let sql = format!("SELECT {LOG} FROM request_log ORDER BY time_ms DESC, seq DESC LIMIT {limit}");
            tx.rows(&sql, &[]).await?.iter().map(columns::log).collect()
        })
        .await
    }

    /// The row of one request.
    pub(crate) async fn log(&self, id: RequestId) -> Result<Option<LoggedRow>> {
        self.run(QUERY, move |tx| async move {
            let sql = format!("SELECT {LOG} FROM request_log WHERE epoch = $1 AND n = $2 LIMIT 1");
            let row = tx.maybe(&sql, params![stored_epoch(id), id.n.cast_signed()]).await?;
            row.as_ref().map(columns::log).transpose()
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

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
