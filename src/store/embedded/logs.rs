//! Reading log rows back.

use super::{Embedded, first, gathered};
use crate::base::{KeyId, RequestId};
use crate::store::columns::{self, Columns as _, LOG, LOG_WIDTH, counts};
use crate::store::error::Result;
use crate::store::query::{LogCursor, LogSelect, Placed, Value, stored_epoch};
use crate::store::rows::LoggedRow;
use crate::store::usage_query::{Names, UsageRow, UsageSelect};
use rusqlite::types::ToSqlOutput;
use rusqlite::{OptionalExtension as _, ToSql, params_from_iter};

impl Embedded {
    /// A page, and a row more when there is one.
    pub(crate) async fn logs(&self, select: LogSelect) -> Result<Vec<Placed>> {
        self.query(move |tx| {
            let mut statement = tx.prepare_cached(&select.sql(LOG))?;
            let rows = statement.query(params_from_iter(&select.values))?;
            gathered(rows, |row| Ok((columns::log(row)?, row.count(LOG_WIDTH)?)))
        })
        .await
    }

    /// Where a search for a text stopped looking, if rows are left.
    pub(crate) async fn log_scan_end(&self, select: LogSelect) -> Result<Option<LogCursor>> {
        self.query(move |tx| {
            let mut statement = tx.prepare_cached(&select.scan_end_sql())?;
            let values = params_from_iter(&select.values[..select.indexed_values]);
            first(statement.query(values)?, |row| Ok(LogCursor { time_ms: row.count(0)?, seq: row.count(1)? }))
        })
        .await
    }

    /// Sums by group.
    pub(crate) async fn usage(&self, select: UsageSelect) -> Result<Vec<UsageRow>> {
        self.query(move |tx| {
            let mut statement = tx.prepare(&select.sql())?;
            gathered(statement.query([])?, |row| {
                select.row(row.int(0)?, row.int(1)?, row.text(2)?, row.int(3)?, counts(row, 4)?)
            })
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
            let mut select =
                tx.prepare_cached(&format!("SELECT {LOG} FROM request_log ORDER BY time_ms DESC, seq DESC LIMIT ?1"))?;
            gathered(select.query([limit])?, columns::log)
        })
        .await
    }

    /// The row of one request.
    pub(crate) async fn log(&self, id: RequestId) -> Result<Option<LoggedRow>> {
        self.query(move |tx| {
            let mut select =
                tx.prepare_cached(&format!("SELECT {LOG} FROM request_log WHERE epoch = ?1 AND n = ?2"))?;
            first(select.query([stored_epoch(id), id.n.cast_signed()])?, columns::log)
        })
        .await
    }
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
