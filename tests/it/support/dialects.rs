//! The three callers: where each asks, what each sends, and how each expects to be told that something is wrong.
//!
//! The table of refusals stands here once, written from the APIs' documents and not from the gateway's code.

use super::client::Answer;
use super::gateway::Setup;
use super::provider::Provider;
use merido::dialect::Dialect;
use serde_json::Value;

/// One dialect's way of asking.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub dialect: Dialect,
    pub path: &'static str,
    pub body: &'static str,
}

/// One of each.
pub const WAYS: [Way; 3] = [
    Way {
        dialect: Dialect::OpenAi,
        path: "/v1/chat/completions",
        body: r#"{"model":"openai/gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#,
    },
    Way {
        dialect: Dialect::Anthropic,
        path: "/v1/messages",
        body: r#"{"model":"anthropic/claude-x","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#,
    },
    Way {
        dialect: Dialect::Gemini,
        path: "/v1beta/models/gemini/gemini-x:generateContent",
        body: r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#,
    },
];

/// Status; OpenAI's `type` and `code`; Anthropic's `error.type`; Gemini's `error.status`.
type Refusal = (u16, &'static str, &'static str, &'static str, &'static str);

const REFUSALS: [Refusal; 12] = [
    (400, "invalid_request_error", "invalid_request", "invalid_request_error", "INVALID_ARGUMENT"),
    (401, "authentication_error", "invalid_api_key", "authentication_error", "UNAUTHENTICATED"),
    (403, "permission_error", "model_not_allowed", "permission_error", "PERMISSION_DENIED"),
    (404, "invalid_request_error", "model_not_found", "not_found_error", "NOT_FOUND"),
    (405, "invalid_request_error", "method_not_allowed", "invalid_request_error", "UNIMPLEMENTED"),
    (408, "invalid_request_error", "request_timeout", "timeout_error", "DEADLINE_EXCEEDED"),
    (413, "invalid_request_error", "request_too_large", "request_too_large", "INVALID_ARGUMENT"),
    (415, "invalid_request_error", "unsupported_media_type", "invalid_request_error", "INVALID_ARGUMENT"),
    (429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED"),
    (502, "upstream_error", "upstream_failed", "api_error", "UNAVAILABLE"),
    (503, "server_error", "unavailable", "overloaded_error", "UNAVAILABLE"),
    (504, "timeout_error", "upstream_timeout", "timeout_error", "DEADLINE_EXCEEDED"),
];

/// One account for each caller, all at `provider`.
pub fn all(provider: &Provider) -> Setup {
    Setup::openai(provider).account("anthropic", "a", &provider.bare_url()).account("gemini", "a", &provider.bare_url())
}

/// `answer` is the refusal `status` in `dialect`, whole: shape, names, headers. What it says, for closer looks.
#[track_caller]
pub fn refused(dialect: Dialect, answer: &Answer, status: u16) -> String {
    let text = answer.text();
    assert_eq!(answer.status, status, "{dialect:?}: {text}");
    let &(_, kind, code, anthropic, google) = REFUSALS.iter().find(|row| row.0 == status).unwrap();
    assert_eq!(answer.header("content-type"), Some("application/json"), "{dialect:?} {status}");
    let id = answer.header("x-request-id").unwrap_or_else(|| panic!("{dialect:?} {status}: no x-request-id"));
    assert!(!id.is_empty());
    let body = answer.json();
    let error = &body["error"];
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    match dialect {
        Dialect::OpenAi => {
            assert_eq!(keys(&body), ["error"]);
            assert_eq!(keys(error), ["code", "message", "param", "type"]);
            assert_eq!((&error["type"], &error["code"]), (&Value::from(kind), &Value::from(code)), "{text}");
        }
        Dialect::Anthropic => {
            assert_eq!(keys(&body), ["error", "request_id", "type"]);
            assert_eq!(keys(error), ["message", "type"]);
            assert_eq!((&body["type"], &error["type"]), (&Value::from("error"), &Value::from(anthropic)), "{text}");
            assert_eq!(body["request_id"], id);
        }
        Dialect::Gemini => {
            assert_eq!(keys(&body), ["error"]);
            assert_eq!(keys(error), ["code", "message", "status"]);
            assert_eq!((&error["code"], &error["status"]), (&Value::from(status), &Value::from(google)), "{text}");
        }
    }
    let message = error["message"].as_str().unwrap();
    assert!(!message.is_empty());
    message.to_owned()
}

/// The same, and `param` names the field at fault where the dialect has such a thing.
#[track_caller]
pub fn refused_for(dialect: Dialect, answer: &Answer, status: u16, param: Option<&str>) -> String {
    let message = refused(dialect, answer, status);
    if dialect == Dialect::OpenAi {
        assert_eq!(answer.json()["error"]["param"].as_str(), param, "{}", answer.text());
    }
    message
}
