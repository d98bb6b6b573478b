//! How an access line looks: for eyes, or one JSON object. A field that says nothing is left out.
//!
//! What a caller or an operator named is escaped: no line break, no terminal sequence of theirs gets into the log.

use super::Line;
use crate::base::Clock;
use crate::proxy::auth::Caller;
use crate::state::usage::CacheState;
use serde::Serialize;
use std::fmt::{self, Display};
use std::io::Write as _;

/// Field by field, in the order of a line.
#[derive(Serialize)]
struct Fields<'a> {
    timestamp: String,
    level: &'static str,
    target: &'static str,
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    endpoint: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    requested_model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    status: u16,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'static str>,
    attempts: u32,
    prompt_tokens: u64,
    completion_tokens: u64,
    latency_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<u64>,
    overhead_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

impl<'a> Fields<'a> {
    fn of(line: &'a Line) -> Self {
        let (key, client) = match &line.caller {
            Caller::Key(key) => (Some(&*key.name), None),
            Caller::Anonymous(addr) => (None, Some(addr.to_string())),
        };
        let account = line.target.as_ref().map(|(account, _)| account);
        Self {
            timestamp: Clock::rfc3339(line.unix_ms),
            level: "INFO",
            target: "access",
            request_id: line.id.to_string(),
            client_request_id: line.client_request_id.as_ref().and_then(|id| id.to_str().ok()),
            key,
            client,
            endpoint: line.endpoint,
            requested_model: &line.requested_model,
            provider: account.map(|account| &*account.provider.name),
            account: account.map(|account| &*account.label),
            model: line.target.as_ref().map(|(_, model)| &**model),
            status: line.status,
            stream: line.stream,
            cache: (line.cache != CacheState::Miss).then(|| line.cache.name()),
            attempts: line.attempts,
            prompt_tokens: line.tokens.prompt,
            completion_tokens: line.tokens.completion,
            latency_ms: line.latency.as_millis() as u64,
            first_byte_ms: line.first_byte.map(|after| after.as_millis() as u64),
            overhead_us: line.overhead.as_micros() as u64,
            error: line.error,
        }
    }
}

/// One JSON object and a line break.
pub(super) fn json(line: &Line, out: &mut Vec<u8>) {
    // Into memory, and of plain fields: it can't fail.
    let _ = serde_json::to_writer(&mut *out, &Fields::of(line));
    out.push(b'\n');
}

/// `time INFO access: name=value …` and a line break.
pub(super) fn text(line: &Line, out: &mut Vec<u8>) {
    let fields = Fields::of(line);
    let _ = write!(out, "{}  {} {}:", fields.timestamp, fields.level, fields.target);
    let mut put = |name: &str, value: &dyn Display| {
        let _ = write!(out, " {name}={value}");
    };
    put("status", &fields.status);
    put("endpoint", &fields.endpoint);
    for (name, value) in [
        ("requested_model", Some(fields.requested_model).filter(|name| !name.is_empty())),
        ("provider", fields.provider),
        ("account", fields.account),
        ("model", fields.model),
        ("key", fields.key),
        ("client", fields.client.as_deref()),
        ("cache", fields.cache),
        ("error", fields.error),
    ] {
        if let Some(value) = value {
            put(name, &Plain(value));
        }
    }
    put("stream", &fields.stream);
    put("attempts", &fields.attempts);
    put("prompt_tokens", &fields.prompt_tokens);
    put("completion_tokens", &fields.completion_tokens);
    put("latency_ms", &fields.latency_ms);
    if let Some(after) = fields.first_byte_ms {
        put("first_byte_ms", &after);
    }
    put("overhead_us", &fields.overhead_us);
    put("request_id", &fields.request_id);
    if let Some(id) = fields.client_request_id {
        put("client_request_id", &Plain(id));
    }
    out.push(b'\n');
}

/// As it is when nothing in it can be misread, else quoted and escaped.
struct Plain<'a>(&'a str);

impl Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@*+".contains(&b);
        if self.0.bytes().all(plain) && !self.0.is_empty() { f.write_str(self.0) } else { write!(f, "{:?}", self.0) }
    }
}
