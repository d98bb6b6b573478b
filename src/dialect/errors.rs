//! An [`Error`] in the caller's own dialect: as a reply's body, and as the event that ends a broken stream.
//!
//! Cold path; says only what the error's message says. It cannot fail.

use super::{Dialect, Endpoint};
use crate::base::{Error, ErrorKind, Fault};
use bytes::Bytes;
use serde_json::{Value, json};

/// The JSON body of an error reply.
pub fn error_body(dialect: Dialect, e: &Error, request_id: &str) -> Vec<u8> {
    let body = match dialect {
        Dialect::OpenAi => json!({ "error": openai(e) }),
        Dialect::Anthropic => {
            json!({ "type": "error", "error": { "type": anthropic_type(e.kind), "message": e.message }, "request_id": request_id })
        }
        Dialect::Gemini => json!({ "error": gemini(e) }),
    };
    body.to_string().into_bytes()
}

/// The event that ends a stream which broke after its first byte. Clients raise it as the error it is; a stream that
/// just stopped would look like a short answer.
pub fn error_event(endpoint: Endpoint, e: &Error) -> Bytes {
    let text = match (endpoint.dialect(), endpoint) {
        (Dialect::Anthropic, _) => {
            let data = json!({ "type": "error", "error": { "type": anthropic_type(e.kind), "message": e.message } });
            format!("event: error\ndata: {data}\n\n")
        }
        // The real API's own stream error. Its sequence number is not ours to know; clients do not check it.
        (Dialect::OpenAi, Endpoint::Responses) => return numbered_error_event(e, 0),
        (Dialect::OpenAi, _) => format!("data: {}\n\n", json!({ "error": openai(e) })),
        (Dialect::Gemini, _) => format!("data: {}\n\n", json!({ "error": gemini(e) })),
    };
    Bytes::from(text)
}

/// The same for a stream of the Responses API, as its `number`-th event.
pub fn numbered_error_event(e: &Error, number: u64) -> Bytes {
    let data = json!({ "type": "error", "sequence_number": number, "code": e.kind.code(), "message": e.message, "param": e.param });
    Bytes::from(format!("event: error\ndata: {data}\n\n"))
}

/// A provider's refusal with `status`, in another dialect than its own: its words, and the code where it had one that
/// clients act on.
pub fn translated_refusal(to: Dialect, status: u16, body: &[u8], request_id: &str) -> Vec<u8> {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    // Google's OpenAI-compatible endpoint wraps its error in an array.
    let said = said.as_array().and_then(|all| all.first()).unwrap_or(&said);
    let error = &said["error"];
    let words = [&error["message"], error, &said["message"], &said["detail"]];
    let text = words.into_iter().find_map(Value::as_str).unwrap_or("the provider refused the request");
    let lower = text.get(..512).unwrap_or(text).to_lowercase();
    let too_long = error["code"] == "context_length_exceeded"
        || ["prompt is too long", "maximum context length", "exceeds the maximum number of tokens"]
            .iter()
            .any(|words| lower.contains(words));
    let kind = match status {
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        413 => ErrorKind::TooLarge,
        429 => ErrorKind::RateLimited,
        _ => ErrorKind::Malformed,
    };
    let mut e = Error::new(kind, text.to_owned());
    if too_long && to == Dialect::Anthropic && !lower.contains("prompt is too long") {
        // The words by which Anthropic's clients know it.
        e.message = format!("prompt is too long: {text}").into();
    }
    let mut body: Value = serde_json::from_slice(&error_body(to, &e, request_id)).unwrap_or_default();
    match to {
        Dialect::OpenAi => {
            let code = if too_long { Some("context_length_exceeded") } else { error["code"].as_str() };
            body["error"]["code"] = code.into();
        }
        Dialect::Gemini => body["error"]["code"] = status.into(),
        Dialect::Anthropic => {}
    }
    body.to_string().into_bytes()
}

fn openai(e: &Error) -> Value {
    json!({ "message": e.message, "type": openai_type(e.kind), "param": e.param, "code": e.kind.code() })
}

fn gemini(e: &Error) -> Value {
    json!({ "code": e.status(), "message": e.message, "status": google_status(e.kind) })
}

/// OpenAI's `type`.
const fn openai_type(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unauthenticated => "authentication_error",
        ErrorKind::Forbidden => "permission_error",
        ErrorKind::BudgetExceeded => "insufficient_quota",
        ErrorKind::RateLimited => "rate_limit_error",
        ErrorKind::UpstreamTimeout => "timeout_error",
        kind => match kind.fault() {
            Fault::Client => "invalid_request_error",
            Fault::Upstream => "upstream_error",
            Fault::Ours => "server_error",
        },
    }
}

/// Anthropic's `error.type`.
const fn anthropic_type(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unauthenticated => "authentication_error",
        ErrorKind::BudgetExceeded => "billing_error",
        ErrorKind::Forbidden => "permission_error",
        ErrorKind::NotFound | ErrorKind::ModelNotFound => "not_found_error",
        ErrorKind::TooLarge => "request_too_large",
        ErrorKind::RateLimited => "rate_limit_error",
        ErrorKind::Unavailable | ErrorKind::Overloaded => "overloaded_error",
        ErrorKind::UpstreamTimeout | ErrorKind::RequestTimeout => "timeout_error",
        ErrorKind::Internal | ErrorKind::UpstreamFailed => "api_error",
        ErrorKind::Malformed
        | ErrorKind::MethodNotAllowed
        | ErrorKind::Conflict
        | ErrorKind::Changed
        | ErrorKind::UnsupportedMedia
        | ErrorKind::Unprocessable => "invalid_request_error",
    }
}

/// Gemini's `status`: a `google.rpc.Code` name.
const fn google_status(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unauthenticated => "UNAUTHENTICATED",
        ErrorKind::BudgetExceeded | ErrorKind::Unprocessable => "FAILED_PRECONDITION",
        ErrorKind::Forbidden => "PERMISSION_DENIED",
        ErrorKind::NotFound | ErrorKind::ModelNotFound => "NOT_FOUND",
        ErrorKind::MethodNotAllowed => "UNIMPLEMENTED",
        ErrorKind::RequestTimeout | ErrorKind::UpstreamTimeout => "DEADLINE_EXCEEDED",
        ErrorKind::Conflict | ErrorKind::Changed => "ABORTED",
        ErrorKind::RateLimited => "RESOURCE_EXHAUSTED",
        ErrorKind::Internal => "INTERNAL",
        ErrorKind::UpstreamFailed | ErrorKind::Unavailable | ErrorKind::Overloaded => "UNAVAILABLE",
        ErrorKind::Malformed | ErrorKind::TooLarge | ErrorKind::UnsupportedMedia => "INVALID_ARGUMENT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn each_dialect_reads_its_own_error() {
        let e = Error::new(ErrorKind::Malformed, "no \"such\"\nthing \u{1}").param("model");
        assert_eq!(
            read(&error_body(Dialect::OpenAi, &e, "req_1")),
            json!({"error": {"message": "no \"such\"\nthing \u{1}", "type": "invalid_request_error", "param": "model", "code": "invalid_request"}})
        );
        let e = Error::new(ErrorKind::Overloaded, "later");
        assert_eq!(
            read(&error_body(Dialect::Anthropic, &e, "req_1")),
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "later"}, "request_id": "req_1"})
        );
        let e = Error::new(ErrorKind::RateLimited, "slow down");
        assert_eq!(
            read(&error_body(Dialect::Gemini, &e, "req_1")),
            json!({"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}})
        );
        let e = Error::new(ErrorKind::RateLimited, "slow down");
        assert_eq!(read(&error_body(Dialect::OpenAi, &e, ""))["error"]["param"], Value::Null);
    }

    #[test]
    fn a_broken_stream_ends_in_one_whole_event() {
        let e = Error::new(ErrorKind::UpstreamFailed, "cut\n\noff");
        for (endpoint, name, path) in [
            (Endpoint::Chat, None, "/error/message"),
            (Endpoint::Completions, None, "/error/message"),
            (Endpoint::Responses, Some("error"), "/message"),
            (Endpoint::Messages, Some("error"), "/error/message"),
            (Endpoint::StreamGenerate, None, "/error/message"),
        ] {
            let event = error_event(endpoint, &e);
            let text = std::str::from_utf8(&event).unwrap();
            let mut lines = text.strip_suffix("\n\n").unwrap().lines();
            if let Some(name) = name {
                assert_eq!(lines.next(), Some(format!("event: {name}").as_str()));
            }
            let data = read(lines.next().unwrap().strip_prefix("data: ").unwrap().as_bytes());
            assert_eq!(data.pointer(path), Some(&json!("cut\n\noff")), "{endpoint:?}");
            assert_eq!(lines.next(), None);
        }
    }
}
