//! Spans as an OTLP/HTTP message in JSON, by OpenTelemetry's conventions for generative AI. Pure.
//!
//! In OTLP's JSON 64-bit numbers are strings and ids are hexadecimal.

use super::Span;
use serde_json::{Value, json};
use std::time::Duration;

/// A span that serves somebody's request.
const SERVER: u8 = 2;
const STATUS_ERROR: u8 = 2;

/// One message of `batch`.
pub(super) fn message(batch: &[Span], instance: &str) -> Vec<u8> {
    let resource = [
        text("service.name", "merido"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", instance),
    ];
    let spans: Vec<Value> = batch.iter().map(span).collect();
    let scope = json!({ "name": "merido", "version": env!("CARGO_PKG_VERSION") });
    let message = json!({
        "resourceSpans": [{
            "resource": { "attributes": resource },
            "scopeSpans": [{ "scope": scope, "spans": spans }],
        }],
    });
    message.to_string().into_bytes()
}

fn span(span: &Span) -> Value {
    let line = &span.line;
    let operation = operation(line.endpoint);
    let mut attributes = vec![
        text("gen_ai.operation.name", operation),
        text("gen_ai.request.model", &line.requested_model),
        whole("http.response.status_code", line.status.into()),
        text("merido.request_id", &line.id.to_string()),
        text("merido.cache", line.cache.name()),
        whole("merido.attempts", line.attempts.into()),
        whole("merido.overhead_us", micros(line.overhead)),
        json!({ "key": "merido.stream", "value": { "boolValue": line.stream } }),
    ];
    if let Some((account, model)) = &line.target {
        let provider = provider(&account.provider.name);
        attributes.extend([
            text("gen_ai.provider.name", provider),
            // Its older name, which most dashboards still read.
            text("gen_ai.system", provider),
            text("gen_ai.response.model", model),
            text("server.address", &account.base.host),
            whole("server.port", account.base.port.into()),
            text("merido.account", &account.label),
        ]);
    }
    let tokens = &line.tokens;
    if tokens.prompt + tokens.completion > 0 {
        attributes.extend([
            whole("gen_ai.usage.input_tokens", tokens.prompt),
            whole("gen_ai.usage.output_tokens", tokens.completion),
            whole("gen_ai.usage.cache_read.input_tokens", tokens.cache_read),
            whole("gen_ai.usage.cache_creation.input_tokens", tokens.cache_write),
        ]);
        let cost = |nanos| json!({ "key": "merido.cost_usd", "value": { "doubleValue": nanos as f64 / 1e9 } });
        attributes.extend(span.cost_nanos.map(cost));
    }
    if let Some(key) = line.caller.key() {
        attributes.push(text("merido.key_id", &key.id.to_string()));
    }
    if let Some(first) = line.first_byte {
        let seconds = first.as_secs_f64();
        attributes.push(json!({ "key": "gen_ai.server.time_to_first_token", "value": { "doubleValue": seconds } }));
    }
    let mut status = json!({});
    if let Some(error) = line.error.filter(|_| line.status >= 400) {
        attributes.push(text("error.type", error));
        status = json!({ "code": STATUS_ERROR, "message": error });
    }
    let ended = u128::from(span.ended_ms) * 1_000_000;
    let started = ended.saturating_sub(line.latency.as_nanos());
    let mut out = json!({
        "traceId": format!("{:032x}", span.trace.id),
        "spanId": format!("{:016x}", span.trace.span),
        "name": format!("{operation} {}", line.requested_model),
        "kind": SERVER,
        "startTimeUnixNano": started.to_string(),
        "endTimeUnixNano": ended.to_string(),
        "attributes": attributes,
        "status": status,
        "flags": 1,
    });
    if span.trace.parent != 0 {
        out["parentSpanId"] = format!("{:016x}", span.trace.parent).into();
    }
    out
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn whole(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What the conventions call an endpoint.
fn operation(endpoint: &'static str) -> &'static str {
    match endpoint {
        "chat" | "messages" | "responses" => "chat",
        "completions" => "text_completion",
        "generate" | "stream_generate" | "generate_content" | "stream_generate_content" => "generate_content",
        other => other,
    }
}

/// What the conventions call a provider; ours for those they do not know.
fn provider(name: &str) -> &str {
    match name {
        "gemini" => "gcp.gemini",
        "mistral" => "mistral_ai",
        "xai" => "x_ai",
        "azure" => "azure.ai.openai",
        other => other,
    }
}
