//! A client that leaves takes its upstream call with it: at once, on every dialect, streamed or not; what was produced
//! by then is accounted for, and nothing is left behind.

use crate::support::client::{Conn, get, post, post_bytes};
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway, named};
use crate::support::process::Process;
use crate::support::provider::{Provider, Script, Then, chat, chat_events};
use merido::store::rows::{KeySpec, LoggedRow};
use std::time::{Duration, Instant};

const AT_ONCE: Duration = Duration::from_secs(1);

/// (endpoint's name, path, body without `stream`, first event of its stream).
const ASKS: [(&str, &str, &str, &str); 8] = [
    (
        "chat",
        "/v1/chat/completions",
        r#""model":"openai/m""#,
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"some words of an answer\"}}]}\n\n",
    ),
    (
        "responses",
        "/v1/responses",
        r#""model":"openai/m""#,
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"some words\"}\n\n",
    ),
    ("completions", "/v1/completions", r#""model":"openai/m""#, "data: {\"choices\":[{\"text\":\"some words\"}]}\n\n"),
    ("embeddings", "/v1/embeddings", r#""model":"openai/m""#, ""),
    (
        "messages",
        "/v1/messages",
        r#""model":"anthropic/m""#,
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"some words\"}}\n\n",
    ),
    ("count_tokens", "/v1/messages/count_tokens", r#""model":"anthropic/m""#, ""),
    ("generate_content", "/v1beta/models/gemini/m:generateContent", r#""contents":[]"#, ""),
    (
        "stream_generate_content",
        "/v1beta/models/gemini/m:streamGenerateContent?alt=sse",
        r#""contents":[]"#,
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"some words\"}]}}]}\n\n",
    ),
];

fn three(provider: &Provider) -> TestGateway {
    let (v1, bare) = (provider.openai_url(), provider.bare_url());
    Setup::new().account("openai", "a", &v1).account("anthropic", "a", &bare).account("gemini", "a", &bare).start()
}

/// Waits until the provider saw `count` callers hang up; fails when that took too long.
#[track_caller]
fn hung_up_at_once(provider: &Provider, count: usize, what: &str) {
    let since = Instant::now();
    eventually("the provider's connection closes", || provider.hung_up() >= count);
    assert!(since.elapsed() < AT_ONCE, "{what}: took {:?}", since.elapsed());
}

fn row_of(gateway: &TestGateway, count: usize, id: &str) -> LoggedRow {
    let rows = gateway.rows(count);
    rows.into_iter().find(|row| row.client_request_id.as_deref() == Some(id)).unwrap()
}

#[test]
fn before_the_answer_began() {
    let provider = Provider::new(Script::Stall);
    let gateway = three(&provider);
    let mut left = 0;
    for (endpoint, path, fields, event) in ASKS {
        let forms = if event.is_empty() || path.contains('?') { &[false][..] } else { &[false, true] };
        for stream in forms {
            let id = format!("{endpoint}-{stream}");
            let body = format!("{{{fields},\"stream\":{stream}}}");
            let mut conn = Conn::open(gateway.addr);
            conn.send(&post_bytes(path, &format!("x-request-id: {id}\r\n"), body.as_bytes()));
            eventually("the provider is asked", || provider.calls() == left + 1);
            drop(conn);
            left += 1;
            hung_up_at_once(&provider, left, &id);
            let row = row_of(&gateway, left, &id);
            assert_eq!((row.status, row.error.as_deref(), row.attempts), (499, Some("client_gone"), 1), "{row:?}");
            assert_eq!((row.tokens.prompt, row.tokens.completion), (body.len().div_ceil(4) as u64, 0), "{row:?}");
            assert!(row.estimated, "{row:?}");
        }
    }
    eventually("no connection is left", || provider.open() == 0);
    // Nobody was refused anything: an account's success rate must not fall because clients hang up.
    let usage = || get(gateway.addr, "/api/usage?by=account", "").json()["total"].clone();
    eventually("all are counted", || usage()["requests"] == left);
    assert_eq!(usage()["errors"], 0, "{}", usage());
}

#[test]
fn in_the_middle_of_a_stream() {
    let provider = Provider::new(Script::Stall);
    let gateway = three(&provider);
    let mut left = 0;
    for (endpoint, path, fields, event) in ASKS.into_iter().filter(|ask| !ask.3.is_empty()) {
        provider.then(Script::Events(vec![event.to_owned(); 5], Then::Stall));
        let body = format!("{{{fields},\"stream\":true}}");
        let mut conn = Conn::open(gateway.addr);
        conn.send(&post_bytes(path, &format!("x-request-id: {endpoint}\r\n"), body.as_bytes()));
        while conn.read_until("some words").matches("some words").count() < 5 {
            conn.read_more();
        }
        drop(conn);
        left += 1;
        hung_up_at_once(&provider, left, endpoint);
        let row = row_of(&gateway, left, endpoint);
        assert_eq!((row.status, row.error.as_deref(), row.stream), (200, Some("client_gone"), true), "{row:?}");
        assert_eq!(row.tokens.prompt, body.len().div_ceil(4) as u64, "{row:?}");
        assert!(row.estimated && (5..=50).contains(&row.tokens.completion), "{row:?}");
        assert!(row.first_byte_ms.is_some());
    }
    eventually("no connection is left", || provider.open() == 0);
}

#[test]
fn in_the_middle_of_a_whole_answer() {
    let provider = Provider::new(Script::Stall);
    let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"choices\":[";
    provider.then(Script::Part(half.into()));
    let gateway = three(&provider);
    let mut conn = Conn::open(gateway.addr);
    conn.send(&post_bytes("/v1/chat/completions", "", br#"{"model":"openai/m"}"#));
    conn.read_until("choices");
    drop(conn);
    hung_up_at_once(&provider, 1, "half an answer");
    let row = &gateway.rows(1)[0];
    assert_eq!((row.status, row.error.as_deref(), row.estimated), (200, Some("client_gone"), true), "{row:?}");
}

#[test]
fn what_the_provider_counted_so_far_is_no_final_count() {
    // Anthropic's first event names the prompt exactly, and one token of output whatever comes after it.
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":77,\"output_tokens\":1}}}\n\n";
    let event = ASKS[4].3;
    let provider = Provider::new(Script::Stall);
    let events = std::iter::once(start).chain([event; 20]).map(str::to_owned).collect();
    provider.then(Script::Events(events, Then::Stall));
    let gateway = three(&provider);
    let mut conn = Conn::open(gateway.addr);
    conn.send(&post_bytes("/v1/messages", "", br#"{"model":"anthropic/m","stream":true}"#));
    while conn.read_until("some words").matches("some words").count() < 20 {
        conn.read_more();
    }
    drop(conn);
    let row = &gateway.rows(1)[0];
    assert_eq!(row.tokens.prompt, 77, "{row:?}");
    assert!(row.tokens.completion >= 20 && row.estimated, "{row:?}");
}

#[test]
fn a_client_that_leaves_while_it_sends_costs_nothing() {
    let provider = Provider::new(chat("x"));
    let gateway = three(&provider);
    let wire = post_bytes("/v1/chat/completions", "", br#"{"model":"openai/m","messages":[]}"#);
    let mut conn = Conn::open(gateway.addr);
    conn.send(&wire[..wire.len() - 5]);
    drop(conn);
    let row = &gateway.rows(1)[0];
    assert_eq!((row.tokens.prompt, row.tokens.completion, row.attempts, provider.calls()), (0, 0, 0, 0), "{row:?}");
}

#[test]
fn a_hundred_aborted_streams_leave_nothing_behind() {
    let provider = Provider::new(Script::Events(chat_events(&["one", "two"], false)[..2].to_vec(), Then::Stall));
    // A process of its own: its gauges are nobody else's.
    let gateway = Process::of(Setup::openai(&provider));
    let spec = KeySpec { max_parallel: Some(10), ..named("ten at once") };
    let head = format!("authorization: Bearer {}\r\n", gateway.key(spec));
    let wire = post_bytes("/v1/chat/completions", &head, br#"{"model":"openai/m","stream":true}"#);
    for round in 0..10 {
        let mut conns: Vec<_> = (0..10).map(|_| Conn::open(gateway.addr)).collect();
        for (n, conn) in conns.iter_mut().enumerate() {
            conn.send(&wire);
            // Some leave before their answer began, some in the middle of it.
            if n % 2 == 0 {
                let text = conn.read_until("two");
                assert!(text.starts_with("HTTP/1.1 200 "), "round {round}: {text}");
            }
        }
        eventually("all are running", || provider.calls() == (round + 1) * 10);
        drop(conns);
        eventually("nothing runs", || gateway.metric("merido_requests_running") == 0.0);
    }
    eventually("the provider saw all of them go", || provider.hung_up() == 100);
    eventually("no connection to the provider", || provider.open() == 0);
    eventually("nor in our books", || gateway.metric("merido_upstream_connections") == 0.0);
    // The one that asks.
    eventually("no client connection", || gateway.metric("merido_client_connections") <= 1.0);
    assert_eq!(gateway.metric("merido_requests_abandoned_total"), 100.0);
    assert_eq!(gateway.metric("merido_task_panics_total"), 0.0);
    // All ten slots are there.
    provider.always(chat("x"));
    assert_eq!(post(gateway.addr, "/v1/chat/completions", &head, br#"{"model":"openai/m"}"#).status, 200);
    assert_eq!(get(gateway.addr, "/readyz", "").status, 200);
}
