//! Reading log rows back.

use super::Embedded;
use crate::base::{AccountId, KeyId, RequestId};
use crate::state::usage::Tokens;
use crate::store::error::Result;
use crate::store::rows::LoggedRow;
use rusqlite::{OptionalExtension as _, Row};

const COLUMNS: &str = "epoch, n, time_ms, client_request_id, key_id, key_name, dialect, endpoint, requested_model,
    provider, account_id, account, model, status, stream, cache, attempts, timeline, prompt, completion, cache_read,
    cache_write, reasoning, cost_nanos, latency_ms, first_byte_ms, overhead_us, error, estimated, sampled";

impl Embedded {
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
    pub(crate) async fn log_row(&self, id: RequestId) -> Result<Option<LoggedRow>> {
        self.query(move |tx| {
            let mut select =
                tx.prepare_cached(&format!("SELECT {COLUMNS} FROM request_log WHERE epoch = ?1 AND n = ?2"))?;
            Ok(select.query_row([stored_epoch(id), id.n.cast_signed()], read).optional()?)
        })
        .await
    }
}

/// An id prints 48 bits of its epoch: what is stored must be found again by what was printed.
pub(super) fn stored_epoch(id: RequestId) -> i64 {
    (id.epoch & 0xffff_ffff_ffff).cast_signed()
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
