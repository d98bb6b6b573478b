//! `/api/logs`: requests that ended, newest first, and one of them with its attempts.

use super::Admin;
use super::asked::{Answer, Asked, refused, wrong};
use super::keys::dollars;
use super::query::Query;
use super::when;
use crate::base::{Clock, Error, ErrorKind, KeyId, RequestId};
use crate::state::usage::Tokens;
use crate::store::query::{LogCursor, LogFilter};
use crate::store::rows::LoggedRow;
use serde_json::{Value, json};

const STATUS: &str = "a status like 429, a class like 4xx, ok or error";
const MOMENT: &str = "a moment like 2026-01-02T03:04:05Z, Unix milliseconds, or how long ago like 24h";

impl Admin {
    pub(super) async fn logs(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let mut query = Query::parse(asked.query)?;
        let limit = query.limit()?;
        let cursor: Option<LogCursor> = query.read("cursor", "one that an earlier page gave")?;
        let key_id = query.text("key_id").map(|key| match &*key {
            "anonymous" => Ok(KeyId(0)),
            key => key.parse().map_err(|_| wrong("key_id", "must be a key's id, or `anonymous`")),
        });
        let filter = LogFilter {
            provider: query.text("provider"),
            model: query.text("model"),
            key_id: key_id.transpose()?,
            status: query.read("status", STATUS)?,
            since_ms: moment(&mut query, "since")?,
            until_ms: moment(&mut query, "until")?,
            q: query.text("q"),
        };
        query.done()?;
        let page = self.store.logs(&filter, cursor, limit).await.map_err(|e| refused(&e))?;
        let rows: Vec<_> = page.rows.iter().map(shown).collect();
        Ok(Answer::ok(&json!({ "logs": rows, "next_cursor": page.next.map(|next| next.to_string()) })))
    }

    pub(super) async fn log(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let id: RequestId = asked.id("request")?;
        let row = self.store.log(id).await.map_err(|e| refused(&e))?;
        let row = row.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no row of request {id}")))?;
        let mut one = shown(&row);
        let timeline = row.timeline.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
        one["timeline"] = timeline.filter(Value::is_array).unwrap_or_else(|| json!([]));
        Ok(Answer::ok(&one))
    }
}

/// `since`, `until`: Unix milliseconds.
pub(super) fn moment(query: &mut Query, name: &'static str) -> Result<Option<u64>, Error> {
    let Some(text) = query.text(name) else { return Ok(None) };
    when::parse(&text, Clock::unix_ms()).map(Some).ok_or_else(|| wrong(name, format!("must be {MOMENT}")))
}

fn shown(row: &LoggedRow) -> Value {
    json!({
        "request_id": row.id.to_string(),
        "client_request_id": row.client_request_id,
        "time": Clock::rfc3339(row.time_ms),
        "key_id": row.key.as_ref().map(|(id, _)| id.to_string()),
        "key_name": row.key.as_ref().map(|(_, name)| name),
        "dialect": row.dialect,
        "endpoint": row.endpoint,
        "requested_model": row.requested_model,
        "provider": row.provider,
        "account_id": row.account.as_ref().map(|(id, _)| id.to_string()),
        "account": row.account.as_ref().map(|(_, label)| label),
        "model": row.model,
        "status": row.status,
        "stream": row.stream,
        "cache": row.cache,
        "attempts": row.attempts,
        "tokens": tokens(&row.tokens),
        "cost_usd": (row.cost_nanos >= 0).then(|| dollars(row.cost_nanos)),
        "latency_ms": row.latency_ms,
        "first_byte_ms": row.first_byte_ms,
        "overhead_us": row.overhead_us,
        "error": row.error,
        "estimated": row.estimated,
        "sampled": row.sampled,
    })
}

pub(super) fn tokens(all: &Tokens) -> Value {
    json!({
        "prompt": all.prompt,
        "completion": all.completion,
        "cache_read": all.cache_read,
        "cache_write": all.cache_write,
        "reasoning": all.reasoning,
    })
}
