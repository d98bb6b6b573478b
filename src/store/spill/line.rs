//! A batch as a line of JSON and back. Arrays without names: a row costs about 250 bytes.
//!
//! The form belongs to this version: a line that does not read is left out, it is never guessed at.

use crate::base::{AccountId, KeyId, RequestId};
use crate::state::usage::{Counts, Tokens, Total};
use crate::store::rows::{LoggedRow, UsageBatch};
use serde::{Deserialize, Serialize};
use std::io;

/// First in each line.
const FORM: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Line(u32, u64, u64, Vec<TotalLine>, Vec<RowLine>);

#[derive(Serialize, Deserialize)]
struct TotalLine(u64, u64, String, u32, [u64; 7], i64);

#[derive(Serialize, Deserialize)]
struct RowLine(Asked, Served, Cost);

/// epoch, n, time, client's id, key, dialect, endpoint, model
#[derive(Serialize, Deserialize)]
struct Asked(u64, u64, u64, Option<String>, Option<(u64, String)>, String, String, String);

/// provider, account, model, status, stream, cache, attempts, timeline, error
#[derive(Serialize, Deserialize)]
struct Served(
    Option<String>,
    Option<(u64, String)>,
    Option<String>,
    u16,
    bool,
    String,
    u32,
    Option<String>,
    Option<String>,
);

/// tokens, nanodollars, latency, first byte, overhead, estimated, sampled
#[derive(Serialize, Deserialize)]
struct Cost([u64; 5], i64, u32, Option<u32>, u32, bool, u32);

/// The line, with its end.
pub(super) fn write(batch: &UsageBatch) -> io::Result<Vec<u8>> {
    let totals = batch.totals.iter().map(total_line).collect();
    let rows = batch.rows.iter().map(row_line).collect();
    let mut out = serde_json::to_vec(&Line(FORM, batch.writer, batch.number, totals, rows))?;
    out.push(b'\n');
    Ok(out)
}

/// The batch, unless the line was cut off or is of another form.
pub(super) fn read(text: &[u8]) -> Option<UsageBatch> {
    let Line(form, writer, number, totals, rows) = serde_json::from_slice(text.strip_suffix(b"\n")?).ok()?;
    let totals = totals.into_iter().map(total).collect();
    (form == FORM).then(|| UsageBatch { writer, number, totals, rows: rows.into_iter().map(row).collect() })
}

fn total_line(total: &Total) -> TotalLine {
    let (counts, tokens) = (&total.counts, &total.counts.tokens);
    let sums = [
        counts.requests,
        counts.errors,
        tokens.prompt,
        tokens.completion,
        tokens.cache_read,
        tokens.cache_write,
        tokens.reasoning,
    ];
    TotalLine(total.key.0, total.account.0, total.model.to_string(), total.minute, sums, counts.cost_nanos)
}

fn total(TotalLine(key, account, model, minute, sums, cost_nanos): TotalLine) -> Total {
    let [requests, errors, prompt, completion, cache_read, cache_write, reasoning] = sums;
    let tokens = Tokens { prompt, completion, cache_read, cache_write, reasoning };
    let counts = Counts { requests, errors, tokens, cost_nanos };
    Total { key: KeyId(key), account: AccountId(account), model: model.into(), minute, counts }
}

fn row_line(row: &LoggedRow) -> RowLine {
    let tokens = &row.tokens;
    let key = row.key.as_ref().map(|(id, name)| (id.0, name.clone()));
    let account = row.account.as_ref().map(|(id, label)| (id.0, label.clone()));
    RowLine(
        Asked(
            row.id.epoch,
            row.id.n,
            row.time_ms,
            row.client_request_id.clone(),
            key,
            row.dialect.clone(),
            row.endpoint.clone(),
            row.requested_model.clone(),
        ),
        Served(
            row.provider.clone(),
            account,
            row.model.clone(),
            row.status,
            row.stream,
            row.cache.clone(),
            row.attempts,
            row.timeline.clone(),
            row.error.clone(),
        ),
        Cost(
            [tokens.prompt, tokens.completion, tokens.cache_read, tokens.cache_write, tokens.reasoning],
            row.cost_nanos,
            row.latency_ms,
            row.first_byte_ms,
            row.overhead_us,
            row.estimated,
            row.sampled,
        ),
    )
}

fn row(RowLine(asked, served, cost): RowLine) -> LoggedRow {
    let Asked(epoch, n, time_ms, client_request_id, key, dialect, endpoint, requested_model) = asked;
    let Served(provider, account, model, status, stream, cache, attempts, timeline, error) = served;
    let Cost(tokens, cost_nanos, latency_ms, first_byte_ms, overhead_us, estimated, sampled) = cost;
    let [prompt, completion, cache_read, cache_write, reasoning] = tokens;
    LoggedRow {
        id: RequestId { epoch, n },
        time_ms,
        client_request_id,
        key: key.map(|(id, name)| (KeyId(id), name)),
        dialect,
        endpoint,
        requested_model,
        provider,
        account: account.map(|(id, label)| (AccountId(id), label)),
        model,
        status,
        stream,
        cache,
        attempts,
        timeline,
        tokens: Tokens { prompt, completion, cache_read, cache_write, reasoning },
        cost_nanos,
        latency_ms,
        first_byte_ms,
        overhead_us,
        error,
        estimated,
        sampled,
    }
}
