//! After all kinds of requests everything is given back: connections on both sides, tasks, descriptors, permits.

use crate::support::client::{Conn, post, post_bytes};
use crate::support::eventually;
use crate::support::process::{Process, ok};
use crate::support::provider::{Provider, Script, Then, chat, chat_events, error};

const CHAT: &str = "/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"openai/gpt-4o-mini","messages":[]}"#;
const STREAM: &[u8] = br#"{"model":"openai/gpt-4o-mini","stream":true,"messages":[]}"#;
const ROUNDS: usize = 20;

/// What must be as it was.
#[derive(Debug)]
struct Held {
    clients: f64,
    upstream: f64,
    running: f64,
    tasks: f64,
    descriptors: usize,
    threads: usize,
}

impl Held {
    fn by(gateway: &Process) -> Self {
        let entries = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", gateway.id())).unwrap().count();
        Self {
            clients: gateway.metric("merido_client_connections"),
            upstream: gateway.metric("merido_upstream_connections"),
            running: gateway.metric("merido_requests_running"),
            tasks: gateway.metric("merido_tasks"),
            descriptors: entries("fd"),
            threads: entries("task"),
        }
    }
}

/// Sends a request and leaves once `calls` have reached the provider (or `needle` the client).
fn abort(gateway: &Process, provider: &Provider, body: &[u8], needle: Option<&str>) {
    let calls = provider.calls();
    let mut conn = Conn::open(gateway.addr);
    conn.send(&post_bytes(CHAT, "", body));
    match needle {
        Some(needle) => drop(conn.read_until(needle)),
        None => eventually("the provider is asked", || provider.calls() > calls),
    }
}

#[test]
fn mixed_requests_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::new(chat("fine"));
    ok(dir.path(), &format!("providers add --provider openai --api-key k --base-url {}", provider.openai_url()));
    let env = [("MERIDO_BREAKER_FAILURES", "1000000"), ("MERIDO_TIMEOUT_UPSTREAM_IDLE_SECONDS", "1")];
    let gateway = Process::start(dir.path(), &env);
    // Both cores and the control runtime have worked once: what they keep for good is there.
    for _ in 0..20 {
        assert_eq!(post(gateway.addr, CHAT, "", ASK).status, 200);
    }
    let settled = || {
        let held = Held::by(&gateway);
        (held.clients, held.upstream, held.running) == (1.0, 0.0, 0.0)
    };
    eventually("the pool is empty", settled);
    let before = Held::by(&gateway);

    let events = chat_events(&["one ", "two"], true);
    let half = || events[..1].to_vec();
    for _ in 0..ROUNDS {
        let ask = |body: &[u8]| post(gateway.addr, CHAT, "connection: close\r\n", body).status;
        assert_eq!(ask(ASK), 200);
        provider.then(Script::Events(events.clone(), Then::End));
        assert_eq!(ask(STREAM), 200);
        assert_eq!(ask(b"{"), 400);
        assert_eq!(ask(br#"{"model":"nobody/x"}"#), 404);
        provider.then(error(422, "unprocessable", ""));
        assert_eq!(ask(ASK), 422);
        provider.then(error(500, "broken", ""));
        assert_eq!(ask(ASK), 502);
        provider.then(Script::Raw(b"not http\r\n\r\n".to_vec()));
        assert_eq!(ask(ASK), 502);
        provider.then(Script::Events(half(), Then::Break));
        assert_eq!(ask(STREAM), 200);
        provider.then(Script::Stall);
        abort(&gateway, &provider, ASK, None);
        provider.then(Script::Events(half(), Then::Stall));
        abort(&gateway, &provider, STREAM, Some("one "));
        // Gone in the middle of its own body.
        let mut conn = Conn::open(gateway.addr);
        let whole = post_bytes(CHAT, "", ASK);
        conn.send(&whole[..whole.len() - 5]);
    }
    eventually("the provider is let go", || provider.hung_up() == 2 * ROUNDS);
    eventually("the pool is empty", settled);
    // A task or a socket may take a moment from its end to its being counted as ended.
    let mut after = Held::by(&gateway);
    eventually("all is given back", || {
        after = Held::by(&gateway);
        after.tasks <= before.tasks && after.descriptors <= before.descriptors && after.clients <= 1.0
    });
    assert_eq!((after.clients, after.upstream, after.running), (1.0, 0.0, 0.0));
    assert!(after.threads <= before.threads, "{before:?} {after:?}");
    // The provider hears of an end when its own thread gets to run.
    eventually("nor on the provider's side", || provider.open() == 0);
    assert!(gateway.metric("merido_task_panics_total") < 1.0);
    // Clients that left before they had asked anything are not requests that were abandoned.
    assert!(gateway.metric("merido_requests_abandoned_total") >= 2.0 * ROUNDS as f64);
    assert!(gateway.stop().success());
}
