//! `/api/usage`: exact totals, grouped by what is asked for, as JSON or as CSV for a spreadsheet.

use super::Admin;
use super::asked::{Answer, Asked, refused, wrong};
use super::keys::dollars;
use super::logs::{moment, tokens};
use super::query::Query;
use crate::base::{Clock, Error};
use crate::server::body::Body;
use crate::state::usage::Counts;
use crate::store::usage_query::{MAX_GROUPS, UsageBy, UsageRow, answered};
use http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::Response;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// What is asked about unless it is said: the last thirty days.
const SPAN_MS: u64 = 30 * 86_400_000;

impl Admin {
    pub(super) async fn usage(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let mut query = Query::parse(asked.query)?;
        let by = by(query.text("by"))?;
        let until = moment(&mut query, "until")?.unwrap_or_else(next_minute);
        let since = moment(&mut query, "since")?.unwrap_or_else(|| until.saturating_sub(SPAN_MS));
        let csv = match query.text("format").as_deref() {
            Some("csv") => true,
            Some("json") => false,
            Some(_) => return Err(wrong("format", "must be json or csv")),
            None => wants_csv(asked.headers),
        };
        query.done()?;
        let (since, until) = answered(since, until);
        let rows = self.store.usage(&by, since, until).await.map_err(|e| refused(&e))?;
        if csv {
            return Ok(spreadsheet(&by, &rows).into());
        }
        let mut total = Counts::default();
        for row in &rows {
            total.add(&row.counts);
        }
        Ok(Answer::ok(&json!({
            "by": by.iter().map(|by| by.name()).collect::<Vec<_>>(),
            "since": Clock::rfc3339(since),
            "until": Clock::rfc3339(until),
            "usage": rows.iter().map(|row| shown(&by, row)).collect::<Vec<_>>(),
            "total": sums(&total),
            "complete": rows.len() < MAX_GROUPS,
        })))
    }
}

/// The minute that runs now is in it.
fn next_minute() -> u64 {
    (Clock::unix_ms() / 60_000 + 1) * 60_000
}

fn by(text: Option<String>) -> Result<Vec<UsageBy>, Error> {
    let Some(text) = text else { return Ok(vec![UsageBy::Day]) };
    let mut all = Vec::new();
    for name in text.split(',') {
        let one = UsageBy::from_name(name.trim())
            .ok_or_else(|| wrong("by", "must be some of key, model, provider, account, day, apart by commas"))?;
        if !all.contains(&one) {
            all.push(one);
        }
    }
    Ok(all)
}

fn wants_csv(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.starts_with("text/csv"))
}

/// The columns of a grouping and their values in a row.
fn columns(by: &[UsageBy], row: &UsageRow) -> Vec<(&'static str, Value)> {
    let mut out = Vec::new();
    for by in by {
        match by {
            UsageBy::Key => {
                out.push(("key_id", json!(row.key.filter(|key| key.0 != 0).map(|key| key.to_string()))));
                out.push(("key_name", json!(row.key_name)));
            }
            UsageBy::Model => out.push(("model", json!(row.model))),
            UsageBy::Provider => out.push(("provider", json!(row.provider))),
            UsageBy::Account => {
                out.push(("account_id", json!(row.account.map(|account| account.to_string()))));
                out.push(("account", json!(row.account_label)));
                out.push(("account_provider", json!(row.provider)));
            }
            UsageBy::Day => {
                let day = row.day.map(|day| Clock::rfc3339(u64::from(day) * 86_400_000)[..10].to_owned());
                out.push(("day", json!(day)));
            }
        }
    }
    out
}

fn shown(by: &[UsageBy], row: &UsageRow) -> Value {
    let mut out: Map<String, Value> =
        columns(by, row).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    if let Value::Object(sums) = sums(&row.counts) {
        out.extend(sums);
    }
    Value::Object(out)
}

fn sums(counts: &Counts) -> Value {
    json!({
        "requests": counts.requests,
        "errors": counts.errors,
        "tokens": tokens(&counts.tokens),
        "cost_usd": dollars(counts.cost_nanos),
    })
}

fn spreadsheet(by: &[UsageBy], rows: &[UsageRow]) -> Response<Body> {
    let mut out = String::new();
    let names: Vec<_> = columns(by, &UsageRow::default()).into_iter().map(|(name, _)| name).collect();
    for name in names {
        let _ = write!(out, "{name},");
    }
    out.push_str("requests,errors,prompt,completion,cache_read,cache_write,reasoning,cost_usd\r\n");
    for row in rows {
        for (_, value) in columns(by, row) {
            cell(&mut out, value.as_str().unwrap_or_default());
            out.push(',');
        }
        let (counts, tokens) = (&row.counts, &row.counts.tokens);
        let _ = write!(
            out,
            "{},{},{},{},{},{},{},{:.9}\r\n",
            counts.requests,
            counts.errors,
            tokens.prompt,
            tokens.completion,
            tokens.cache_read,
            tokens.cache_write,
            tokens.reasoning,
            dollars(counts.cost_nanos)
        );
    }
    let mut response = Response::new(Body::full(out));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"usage.csv\""));
    response
}

/// A text as a cell. One that a spreadsheet would run as a formula gets a quote in front: names come from callers.
fn cell(out: &mut String, text: &str) {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text != "-";
    let guard = if formula { "'" } else { "" };
    if formula || text.contains([',', '"', '\n', '\r']) {
        let _ = write!(out, "\"{guard}{}\"", text.replace('"', "\"\""));
    } else {
        out.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_hold_what_they_are_given_and_run_nothing() {
        let written = |text: &str| {
            let mut out = String::new();
            cell(&mut out, text);
            out
        };
        assert_eq!(written("a b"), "a b");
        assert_eq!(written("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(written("=1+1"), "\"'=1+1\"");
        assert_eq!(written("-"), "-");
    }

    #[test]
    fn groupings_are_read_once_each_and_in_order() {
        assert_eq!(by(Some("model,day,model".to_owned())).unwrap(), [UsageBy::Model, UsageBy::Day]);
        assert_eq!(by(None).unwrap(), [UsageBy::Day]);
        assert_eq!(by(Some("mdoel".to_owned())).unwrap_err().param.as_deref(), Some("by"));
    }
}
