//! An event as JSON: the fields `GET /api/events` promises, all present in each event, `null` where not known (yet).
//!
//! The memory's own types are not serializable; this is their outside.

use crate::base::Clock;
use crate::state::bus::{DoneView, View};
use serde::Serialize;

/// Appends `event` as one line of JSON.
pub(super) fn write(out: &mut Vec<u8>, event: &View<'_>) {
    let done = event.done.as_ref();
    let shown = Shown {
        request_id: event.request.to_string(),
        client_request_id: event.client_request_id,
        instance: event.instance,
        time: Clock::rfc3339(event.unix_ms),
        key_id: event.key.map(|(id, _)| id.to_string()),
        key_name: event.key.map(|(_, name)| name),
        dialect: event.dialect,
        requested_model: event.requested_model,
        provider: event.account.map(|(provider, _)| provider),
        account: event.account.map(|(_, label)| label),
        model: event.model,
        status: done.map(|done| done.status),
        stream: event.stream,
        cache: done.map(|done| done.cache),
        attempts: done.map(|done| done.attempts),
        tokens: done.map(tokens),
        cost_usd: done.and_then(|done| done.cost_nanos).map(|nanos| nanos as f64 / 1e9),
        latency_ms: done.map(|done| done.latency_micros as f64 / 1e3),
        first_byte_ms: done.and_then(|done| done.first_byte_micros).map(|micros| micros as f64 / 1e3),
        overhead_us: done.map(|done| done.overhead_micros),
        error: done.and_then(|done| done.error),
    };
    // Writing plain fields to memory cannot fail.
    let _ = serde_json::to_writer(out, &shown);
}

#[derive(Serialize)]
struct Shown<'a> {
    request_id: String,
    client_request_id: Option<&'a str>,
    instance: &'a str,
    time: String,
    key_id: Option<String>,
    key_name: Option<&'a str>,
    dialect: &'a str,
    requested_model: &'a str,
    provider: Option<&'a str>,
    account: Option<&'a str>,
    model: Option<&'a str>,
    status: Option<u16>,
    stream: bool,
    cache: Option<&'a str>,
    attempts: Option<u16>,
    tokens: Option<TokensView>,
    cost_usd: Option<f64>,
    latency_ms: Option<f64>,
    first_byte_ms: Option<f64>,
    overhead_us: Option<u64>,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct TokensView {
    prompt: u32,
    completion: u32,
    cache_read: u32,
    cache_write: u32,
    reasoning: u32,
}

fn tokens(done: &DoneView<'_>) -> TokensView {
    let all = done.tokens;
    TokensView {
        prompt: all.prompt,
        completion: all.completion,
        cache_read: all.cache_read,
        cache_write: all.cache_write,
        reasoning: all.reasoning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{KeyId, RequestId};
    use crate::dialect::Dialect;
    use crate::state::bus::{Done, Event, Tokens};
    use crate::state::catalog::Key;
    use crate::state::usage::CacheState;
    use std::sync::Arc;

    #[test]
    fn every_promised_field_is_there() {
        let key = Key {
            id: KeyId(0x12),
            name: "na\"me".into(),
            rpm: None,
            burst: None,
            tpm: None,
            max_parallel: None,
            models: None,
            budget_nanos: None,
            expires_unix_ms: None,
        };
        let mut event = Event {
            request: RequestId { epoch: 1, n: 2 },
            unix_ms: 1_735_689_600_001,
            client_request_id: Some("mine".into()),
            key: Some(Arc::new(key)),
            dialect: Dialect::Anthropic,
            stream: true,
            requested_model: "fast".into(),
            account: None,
            model: Some("claude".into()),
            done: None,
        };
        let json = |event: &Event| {
            let mut out = Vec::new();
            write(&mut out, &event.view("inst"));
            serde_json::from_slice::<serde_json::Value>(&out).unwrap()
        };
        let started = json(&event);
        assert!(started["status"].is_null() && started["tokens"].is_null() && started["key_name"] == "na\"me");
        event.done = Some(Done {
            status: 200,
            cache: CacheState::Semantic,
            attempts: 2,
            tokens: Tokens { prompt: 1, completion: 2, cache_read: 3, cache_write: 4, reasoning: 5 },
            cost_nanos: Some(1_500_000),
            latency_micros: 12_345,
            first_byte_micros: Some(1_000),
            overhead_micros: 77,
            error: None,
        });
        let completed = json(&event);
        for (field, value) in [
            ("request_id", serde_json::json!(event.request.to_string())),
            ("client_request_id", "mine".into()),
            ("instance", "inst".into()),
            ("time", "2025-01-01T00:00:00.001Z".into()),
            ("key_id", "key_0000000000000012".into()),
            ("dialect", "anthropic".into()),
            ("requested_model", "fast".into()),
            ("provider", serde_json::Value::Null),
            ("account", serde_json::Value::Null),
            ("model", "claude".into()),
            ("status", 200.into()),
            ("stream", true.into()),
            ("cache", "semantic".into()),
            ("attempts", 2.into()),
            ("tokens", serde_json::json!({"prompt":1,"completion":2,"cache_read":3,"cache_write":4,"reasoning":5})),
            ("cost_usd", 0.0015.into()),
            ("latency_ms", 12.345.into()),
            ("first_byte_ms", 1.0.into()),
            ("overhead_us", 77.into()),
            ("error", serde_json::Value::Null),
        ] {
            assert_eq!(completed.get(field), Some(&value), "{field}");
        }
        assert_eq!(completed.as_object().unwrap().len(), 21);
        assert_eq!(started.as_object().unwrap().len(), 21);
    }
}
