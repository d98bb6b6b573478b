//! Callers and providers of different dialects: each is spoken to in its own, and what is counted is what the provider
//! counted.
//!
//! What becomes of each field is `tests/golden`'s; here are the ways around it: heads, fallbacks, breaks, refusals,
//! memory.

use crate::support::client::{Conn, post, post_bytes};
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway};
use crate::support::provider::{Provider, Script, Then, chat, chat_events, error};
use merido::dialect::Dialect;
use serde_json::{Value, json};
use std::path::Path;

/// How each caller asks `model` for a word: dialect, path, body.
fn asks(model: &str, stream: bool) -> [(Dialect, String, String); 4] {
    let verb = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
    let message = json!([{"role": "user", "content": "hi"}]);
    let chat = json!({"model": model, "messages": message, "stream": stream});
    let responses = json!({"model": model, "input": "hi", "stream": stream});
    let messages = json!({"model": model, "max_tokens": 9, "messages": message, "stream": stream});
    let generate = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    [
        (Dialect::OpenAi, "/v1/chat/completions".to_owned(), chat.to_string()),
        (Dialect::OpenAi, "/v1/responses".to_owned(), responses.to_string()),
        (Dialect::Anthropic, "/v1/messages?beta=true".to_owned(), messages.to_string()),
        (Dialect::Gemini, format!("/v1beta/models/{model}:{verb}"), generate.to_string()),
    ]
}

/// Provider, its golden name, the path it is asked at (whole, streamed) and what it counted in `tools` (prompt,
/// completion; whole, streamed).
const PROVIDERS: [(Dialect, &str, [&str; 2], [(u64, u64); 2]); 3] = [
    (Dialect::OpenAi, "chat", ["/v1/chat/completions", "/v1/chat/completions"], [(82, 17), (19, 10)]),
    (Dialect::Anthropic, "messages", ["/v1/messages", "/v1/messages"], [(2125, 88), (582, 89)]),
    (
        Dialect::Gemini,
        "generate",
        ["/v1beta/models/m-1:generateContent", "/v1beta/models/m-1:streamGenerateContent?alt=sse"],
        [(8, 221), (4, 42)],
    ),
];

fn golden(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

fn whole(body: String) -> Script {
    let head =
        "content-type: application/json\r\nanthropic-organization-id: org\r\nopenai-version: 1\r\nx-kept: yes\r\n";
    Script::Reply(200, head.to_owned(), body.into_bytes())
}

fn events(text: &str, then: Then) -> Script {
    Script::Events(text.split_inclusive("\n\n").map(str::to_owned).collect(), then)
}

fn at(provider: &Provider, dialect: Dialect) -> Setup {
    let base = if dialect == Dialect::OpenAi { provider.openai_url() } else { provider.bare_url() };
    Setup::new().account(dialect.name(), "a", &base)
}

const CLIENT: &str = "authorization: Bearer any\r\nanthropic-version: 1999-01-01\r\nanthropic-beta: x\r\nopenai-beta: y\r\n\
    x-goog-user-project: z\r\nx-stainless-lang: python\r\nx-team: blue\r\n";

#[test]
fn every_caller_reaches_every_provider() {
    for stream in [false, true] {
        for (dialect, name, paths, counts) in PROVIDERS {
            let provider = Provider::new(if stream {
                events(&golden(&format!("streams/tools.{name}.sse")), Then::End)
            } else {
                whole(golden(&format!("answers/tools.{name}.json")))
            });
            let gateway = at(&provider, dialect).start();
            let callers = asks(&format!("{}/m-1", dialect.name()), stream);
            let foreign: Vec<_> = callers.into_iter().filter(|(caller, ..)| *caller != dialect).collect();
            for (caller, path, body) in &foreign {
                let answer = post(gateway.addr, path, CLIENT, body.as_bytes());
                let text = answer.text();
                assert_eq!(answer.status, 200, "{path} {name}: {text}");
                let (kind, last) = match (stream, *caller, path.as_str()) {
                    (false, ..) => ("application/json", ""),
                    (true, Dialect::OpenAi, "/v1/responses") => ("text/event-stream", "event: response.completed"),
                    (true, Dialect::OpenAi, _) => ("text/event-stream", "data: [DONE]"),
                    (true, Dialect::Anthropic, _) => ("text/event-stream", "event: message_stop"),
                    (true, Dialect::Gemini, _) => ("text/event-stream", "\"finishReason\":\"STOP\""),
                };
                assert_eq!(answer.header("content-type"), Some(kind), "{path} {name}");
                assert!(stream || answer.header("x-kept") == Some("yes"), "{}", answer.head);
                assert_eq!(answer.header("x-merido-attempts"), Some("1"));
                assert!(
                    answer.header("anthropic-organization-id").is_none() && answer.header("openai-version").is_none()
                );
                // A stream may bring "location" in two pieces.
                assert!(text.contains("ation") && text.contains(last), "{path} {name}: {text}");

                let seen = provider.seen().pop().unwrap();
                assert_eq!(seen.line(), format!("POST {} HTTP/1.1", paths[usize::from(stream)]), "{path}");
                let version = (dialect == Dialect::Anthropic).then_some("2023-06-01");
                assert_eq!(
                    (seen.header("anthropic-version"), seen.header("x-team")),
                    (version, Some("blue")),
                    "{path}"
                );
                for gone in ["anthropic-beta", "openai-beta", "x-goog-user-project", "x-stainless-lang"] {
                    assert_eq!(seen.header(gone), None, "{path}");
                }
                assert_eq!(seen.header("content-type"), Some("application/json"));
                let asked: Value = serde_json::from_slice(&seen.body).unwrap();
                assert!(asked.to_string().contains("hi"), "{asked}");
                assert_eq!(asked["stream"] == true, stream && dialect != Dialect::Gemini, "{asked}");
            }
            let (prompt, completion) = counts[usize::from(stream)];
            for row in gateway.rows(foreign.len()) {
                let (tokens, streamed) = (row.tokens, row.stream);
                assert_eq!((tokens.prompt, tokens.completion), (prompt, completion), "{name} {}", row.endpoint);
                assert!(!row.estimated && row.status == 200 && streamed == stream, "{name}");
            }
        }
    }
}

#[test]
fn a_stream_that_breaks_ends_with_the_callers_own_error() {
    for (dialect, name, ..) in PROVIDERS {
        let text = golden(&format!("streams/text.{name}.sse"));
        let first: String = text.split_inclusive("\n\n").take(3).collect();
        let provider = Provider::new(Script::Events(vec![first], Then::Break));
        let gateway = at(&provider, dialect).start();
        for (caller, path, body) in asks(&format!("{}/m", dialect.name()), true) {
            if caller == dialect {
                continue;
            }
            let answer = post(gateway.addr, &path, "", body.as_bytes());
            let text = answer.text();
            let last = text.trim_end().rsplit("\n\n").next().unwrap();
            let data: Value = serde_json::from_str(last.rsplit("data: ").next().unwrap()).unwrap();
            let (kind, message) = match (caller, path.as_str()) {
                (Dialect::OpenAi, "/v1/responses") => (&data["type"], &data["message"]),
                (Dialect::OpenAi | Dialect::Anthropic, _) => (&data["error"]["type"], &data["error"]["message"]),
                (Dialect::Gemini, _) => (&data["error"]["status"], &data["error"]["message"]),
            };
            assert!(message.as_str().unwrap().contains("broke off") && kind.is_string(), "{path} {name}: {text}");
        }
        for row in gateway.rows(2) {
            assert_eq!((row.status, row.error.as_deref()), (502, Some("upstream_failed")), "{row:?}");
        }
    }
}

#[test]
fn a_refusal_is_told_in_the_callers_dialect() {
    let refusal = r#"{"error":{"message":"This model's maximum context length is 9 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;
    let provider = Provider::new(Script::Reply(400, "content-type: application/json\r\n".to_owned(), refusal.into()));
    let gateway = at(&provider, Dialect::OpenAi).start();
    let [.., (_, messages, ask), (_, generate, question)] = asks("openai/m", false);
    let answer = post(gateway.addr, &messages, "x-request-id: mine\r\n", ask.as_bytes());
    let said = "prompt is too long: This model's maximum context length is 9 tokens.";
    let known =
        json!({"type": "error", "error": {"type": "invalid_request_error", "message": said}, "request_id": "mine"});
    assert_eq!((answer.status, answer.json()), (400, known));
    let answer = post(gateway.addr, &generate, "", question.as_bytes());
    let said = "This model's maximum context length is 9 tokens.";
    assert_eq!(answer.json(), json!({"error": {"code": 400, "message": said, "status": "INVALID_ARGUMENT"}}));

    let refusal = r#"{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: too many"}}"#;
    let provider = Provider::new(Script::Reply(400, "content-type: application/json\r\n".to_owned(), refusal.into()));
    let gateway = at(&provider, Dialect::Anthropic).start();
    let [(_, path, ask), ..] = asks("anthropic/m", true);
    let answer = post(gateway.addr, &path, "", ask.as_bytes());
    let error =
        json!({"message": "max_tokens: too many", "type": "invalid_request_error", "param": null, "code": null});
    assert_eq!((answer.status, answer.json()), (400, json!({"error": error})));
}

/// `v`: first `anthropic`, then `openai`.
fn mixed(anthropic: &Provider, openai: &Provider) -> TestGateway {
    let targets = json!([{"model": "anthropic/claude-x"}, {"model": "openai/gpt-x"}]);
    let setup = at(anthropic, Dialect::Anthropic).account("openai", "b", &openai.openai_url());
    setup.route(json!({"name": "v", "targets": targets})).start()
}

#[test]
fn targets_of_one_model_may_speak_different_dialects() {
    let nonsense = Script::Reply(200, "content-type: application/json\r\n".to_owned(), b"[]".to_vec());
    let html = Script::Reply(200, "content-type: text/html\r\n".to_owned(), b"<p>".to_vec());
    let half =
        Script::Part(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{".to_vec());
    for first in [error(500, "x", ""), Script::Close, nonsense, html, half] {
        let (anthropic, openai) = (Provider::new(first), Provider::new(chat("from b")));
        let gateway = {
            let targets = json!([{"model": "anthropic/claude-x"}, {"model": "openai/gpt-x"}]);
            let quick = |settings: &mut merido::config::Settings| {
                settings.timeouts.stream_idle = std::time::Duration::from_millis(300);
            };
            let setup = at(&anthropic, Dialect::Anthropic).account("openai", "b", &openai.openai_url()).with(quick);
            setup.route(json!({"name": "v", "targets": targets})).start()
        };
        let [(_, path, ask), ..] = asks("v", false);
        let answer = post(gateway.addr, &path, "", ask.as_bytes());
        if answer.status == 504 {
            continue; // half an answer of one that may have been paid is not tried again
        }
        assert_eq!((answer.status, answer.header("x-merido-attempts")), (200, Some("2")), "{}", answer.text());
        // Its own dialect again, so byte for byte.
        let Script::Reply(_, _, own) = chat("from b") else { unreachable!() };
        assert_eq!(answer.body, own);
        assert_eq!(anthropic.seen()[0].line(), "POST /v1/messages HTTP/1.1");
        let seen = openai.seen();
        assert_eq!(seen[0].line(), "POST /v1/chat/completions HTTP/1.1");
        assert_eq!(String::from_utf8_lossy(&seen[0].body), ask.replace("\"v\"", "\"gpt-x\""));
    }
}

#[test]
fn what_one_target_cannot_be_asked_another_may() {
    let (anthropic, openai) = (Provider::new(Script::Close), Provider::new(chat("from b")));
    let gateway = mixed(&anthropic, &openai);
    let ask = json!({"model": "v", "n": 2, "messages": [{"role": "user", "content": "x"}]}).to_string();
    let answer = post(gateway.addr, "/v1/chat/completions", "", ask.as_bytes());
    assert_eq!((answer.status, answer.header("x-merido-attempts")), (200, Some("1")), "{}", answer.text());
    assert_eq!((anthropic.calls(), openai.calls()), (0, 1));

    let answer = post(gateway.addr, "/v1/chat/completions", "", ask.replace("\"v\"", "\"anthropic/x\"").as_bytes());
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("n")), "{}", answer.text());
    let embed = br#"{"model":"anthropic/x","input":"a"}"#;
    let answer = post(gateway.addr, "/v1/embeddings", "", embed);
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("no counterpart of embeddings"), "{}", answer.text());
    assert_eq!(anthropic.calls(), 0);
}

#[test]
fn a_count_that_nobody_can_make_is_marked_as_a_guess() {
    let provider = Provider::new(Script::Close);
    let gateway = at(&provider, Dialect::OpenAi).start();
    let ask = json!({"model": "openai/m", "messages": [{"role": "user", "content": "x".repeat(400)}]}).to_string();
    let answer = post(gateway.addr, "/v1/messages/count_tokens", "", ask.as_bytes());
    assert_eq!((answer.status, answer.json()), (200, json!({"input_tokens": 104})));
    assert_eq!((answer.header("x-merido-estimated"), provider.calls()), (Some("true"), 0));
    let row = &gateway.rows(1)[0];
    assert_eq!((row.tokens.prompt, row.cost_nanos, row.attempts), (0, 0, 0), "{row:?}");
}

#[test]
fn what_is_kept_is_kept_as_the_caller_reads_it() {
    let provider = Provider::new(events(&golden("streams/tools.chat.sse"), Then::End));
    let gateway = at(&provider, Dialect::OpenAi).start();
    let [_, _, (_, messages, ask), (_, generate, question)] = asks("openai/m", true);
    let head = "idempotency-key: one\r\n";
    let first = post(gateway.addr, &messages, head, ask.as_bytes());
    let again = post(gateway.addr, &messages, head, ask.as_bytes());
    assert_eq!((first.header("x-merido-cache"), again.header("x-merido-cache")), (Some("miss"), Some("dedup")));
    assert_eq!((first.text(), provider.calls()), (again.text(), 1));
    assert!(again.text().ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"), "{}", again.text());
    let other = post(gateway.addr, &generate, "x-merido-dedup: on\r\n", question.as_bytes());
    assert_eq!(
        (other.header("x-merido-cache"), provider.calls()),
        (Some("miss"), 2),
        "another dialect, another answer"
    );
    assert!(other.text().contains("functionCall"));
}

#[test]
fn geminis_callers_without_events_get_their_array() {
    let provider = Provider::new(events(&golden("streams/text.messages.sse"), Then::End));
    let gateway = at(&provider, Dialect::Anthropic).start();
    let [.., (_, path, ask)] = asks("anthropic/m", true);
    let answer = post(gateway.addr, path.trim_end_matches("?alt=sse"), "", ask.as_bytes());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let list = answer.json();
    assert_eq!(list[0]["candidates"][0]["content"]["parts"][0]["text"], "Hello", "{list}");
    assert_eq!(list.as_array().unwrap().last().unwrap()["candidates"][0]["finishReason"], "MAX_TOKENS", "{list}");
}

#[test]
fn a_caller_that_leaves_takes_the_providers_work_with_it() {
    let provider = Provider::new(Script::Events(chat_events(&["one"], false)[..1].to_vec(), Then::Stall));
    let gateway = at(&provider, Dialect::OpenAi).start();
    let [_, _, (_, path, ask), _] = asks("openai/m", true);
    let mut conn = Conn::open(gateway.addr);
    conn.send(&post_bytes(&path, "", ask.as_bytes()));
    conn.read_until("text_delta");
    drop(conn);
    eventually("the provider is hung up on", || provider.hung_up() == 1);
    let row = &gateway.rows(1)[0];
    assert_eq!((row.error.as_deref(), row.estimated), (Some("client_gone"), true), "{row:?}");
    assert!(row.tokens.completion > 0, "{row:?}");
}
