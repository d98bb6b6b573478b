//! The shortest way through: a request in, a provider asked, an answer out, a row in the store.

use crate::support::client::post;
use crate::support::gateway::Setup;
use crate::support::provider::{Provider, Script, Then, chat, chat_events};

#[test]
fn a_request_goes_through_and_is_accounted_for() {
    let provider = Provider::new(chat("hello"));
    let gateway = Setup::openai(&provider).start();
    let body = br#"{"model":"openai/gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
    let answer = post(gateway.addr, "/v1/chat/completions", "x-request-id: mine-1\r\n", body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "hello");
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    assert_eq!(answer.header("x-merido-account"), Some("a"));
    let seen = provider.seen();
    assert_eq!(seen[0].header("authorization"), Some("Bearer sk-openai-a"));
    let row = &gateway.rows(1)[0];
    assert_eq!((row.tokens.prompt, row.tokens.completion, row.status), (11, 7, 200));
    assert_eq!(row.client_request_id.as_deref(), Some("mine-1"));
}

#[test]
fn a_stream_goes_through_and_is_accounted_for() {
    let events = chat_events(&["one ", "two"], true);
    let provider = Provider::new(Script::Events(events.clone(), Then::End));
    let gateway = Setup::openai(&provider).start();
    let body = br#"{"model":"openai/gpt-4o-mini","stream":true,"messages":[]}"#;
    let answer = post(gateway.addr, "/v1/chat/completions", "", body);
    // The client did not ask for usage: we did, and kept that chunk to ourselves.
    assert_eq!(answer.text(), [&events[0][..], &events[1], &events[3]].concat());
    assert!(String::from_utf8_lossy(&provider.seen()[0].body).contains("include_usage"));
    let row = &gateway.rows(1)[0];
    assert_eq!((row.tokens.prompt, row.tokens.completion, row.stream), (11, 2, true));
}
