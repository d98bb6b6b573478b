//! The end of a gateway: asked for, hurried, or sudden. Real processes, real signals.

use crate::support::client::{Conn, get, post, post_bytes};
use crate::support::dialects::WAYS;
use crate::support::eventually;
use crate::support::gateway::block_on;
use crate::support::process::{Process, ok};
use crate::support::provider::{Provider, Script, Then, chat, chat_events};
use merido::store::rows::LoggedRow;
use merido::store::{Store, StoreConfig};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const CHAT: &str = "/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"openai/gpt-4o-mini","messages":[]}"#;
const STREAM: &[u8] =
    br#"{"model":"openai/gpt-4o-mini","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;

/// A data directory with one account for each dialect, all at `provider`.
fn set_up(dir: &Path, provider: &Provider) {
    for name in ["openai", "anthropic", "gemini"] {
        let url = if name == "openai" { provider.openai_url() } else { provider.bare_url() };
        ok(dir, &format!("providers add --provider {name} --api-key k --base-url {url}"));
    }
}

fn store(dir: &Path) -> Store {
    Store::open(&StoreConfig::in_dir(&dir.join("data"))).unwrap()
}

/// A stream whose first half is on its way to the client when this returns.
fn half_sent(gateway: &Process, path: &str, body: &[u8], first: &str) -> Conn {
    let mut conn = Conn::open(gateway.addr);
    conn.send(&post_bytes(path, "", body));
    conn.read_until(first);
    conn
}

#[test]
fn a_stream_half_sent_arrives_whole_and_is_accounted_for() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(AtomicBool::new(false));
    let events = chat_events(&["one ", "two ", "three"], true);
    let provider = Provider::new(chat("fine"));
    provider.then(Script::Events(events[..1].to_vec(), Then::Gate(Arc::clone(&gate), events[1..].to_vec())));
    set_up(dir.path(), &provider);
    let gateway = Process::start(dir.path(), &[("MERIDO_LAME_DUCK_SECONDS", "3"), ("MERIDO_DRAIN_SECONDS", "60")]);
    let mut stream = half_sent(&gateway, CHAT, STREAM, "one ");
    let mut idle = Conn::open(gateway.addr);
    idle.send(&post_bytes(CHAT, "", ASK));
    assert_eq!(idle.answer().status, 200);
    assert_eq!(gateway.get("/readyz").status, 200);

    gateway.signal("TERM");
    // Lame duck: load balancers are told to look away, and whoever still comes is served.
    eventually("/readyz says 503", || gateway.get("/readyz").status == 503);
    let readyz = gateway.get("/readyz");
    assert_eq!((readyz.status, &readyz.json()["reason"]), (503, &"draining".into()));
    assert_eq!(gateway.get("/healthz").status, 200);
    assert_eq!(post(gateway.addr, CHAT, "", ASK).status, 200);
    idle.send(&post_bytes(CHAT, "", ASK));
    assert_eq!(idle.answer().status, 200);
    // Finish: the idle connection is closed (its own time would be 75 s), new ones are refused, the stream runs on.
    assert!(idle.closes());
    eventually("the listener is closed", || TcpStream::connect(gateway.addr).is_err());
    gate.store(true, Ordering::Release);
    let answer = stream.answer();
    assert_eq!(answer.text(), events.concat());
    assert!(gateway.wait().success());

    let store = store(dir.path());
    let rows = block_on(store.log_rows(10)).unwrap();
    let row = rows.iter().find(|row| row.stream).unwrap();
    assert_eq!((row.status, row.tokens.prompt, row.tokens.completion, row.estimated), (200, 11, 3, false));
    assert_eq!(rows.len(), 4);
    let totals = block_on(store.usage_totals()).unwrap();
    assert_eq!(totals.iter().map(|total| total.counts.requests).sum::<u64>(), 4);
}

#[test]
fn a_stream_that_outlives_the_drain_ends_with_its_dialects_own_error() {
    let dir = tempfile::tempdir().unwrap();
    let first = chat_events(&["one "], false)[..1].to_vec();
    let provider = Provider::new(Script::Events(first.clone(), Then::Stall));
    set_up(dir.path(), &provider);
    let gateway = Process::start(dir.path(), &[("MERIDO_DRAIN_SECONDS", "1")]);
    let chat = r#"data: {"error":{"#;
    let streams = [
        (CHAT, &br#"{"model":"openai/m","stream":true}"#[..], chat, "shutting down"),
        // Shared by dedup: its call runs in a task of its own, and the second joins it.
        (CHAT, br#"{"model":"openai/m","stream":true,"temperature":0}"#, chat, "shutting down"),
        (CHAT, br#"{"model":"openai/m","stream":true,"temperature":0}"#, chat, "shutting down"),
        ("/v1/responses", br#"{"model":"openai/m","stream":true}"#, "event: error\ndata: {", "shutting down"),
        (
            "/v1/messages",
            br#"{"model":"anthropic/m","stream":true}"#,
            "event: error\ndata: {\"error\":{",
            "shutting down",
        ),
        ("/v1beta/models/gemini/m:streamGenerateContent?alt=sse", b"{}", chat, "shutting down"),
    ];
    let conns = streams.map(|(path, body, error, why)| (half_sent(&gateway, path, body, "one "), path, error, why));
    assert_eq!(provider.calls(), conns.len() - 1);
    let began = Instant::now();
    gateway.signal("TERM");
    for (mut conn, path, error, why) in conns {
        let text = conn.answer().text();
        let last = text.strip_prefix(&*first[0]).unwrap();
        assert!(last.starts_with(error) && last.ends_with("}\n\n"), "{path}: {last}");
        assert!(last.contains(why), "{path}: {last}");
    }
    assert!(began.elapsed() >= Duration::from_millis(900), "not before its time: {:?}", began.elapsed());
    assert!(gateway.wait().success());
    let rows = block_on(store(dir.path()).log_rows(10)).unwrap();
    assert_eq!(rows.len(), 6);
    let told = |row: &&LoggedRow| row.status == 502 && row.error.as_deref() == Some("overloaded");
    assert_eq!(rows.iter().filter(told).count(), 6, "{rows:?}");
    assert_eq!(rows.iter().filter(|row| row.estimated).count(), 5, "who joined was given no tokens: {rows:?}");
    eventually("the provider is let go", || provider.open() == 0);
}

#[test]
fn a_request_still_waiting_for_its_provider_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::new(Script::Stall);
    set_up(dir.path(), &provider);
    let gateway = Process::start(dir.path(), &[("MERIDO_DRAIN_SECONDS", "1")]);
    let mut waiting = WAYS.map(|way| {
        let mut conn = Conn::open(gateway.addr);
        conn.send(&post_bytes(way.path, "", way.body.as_bytes()));
        (way.dialect, conn)
    });
    eventually("the provider is asked", || provider.calls() == waiting.len());
    gateway.signal("TERM");
    for (dialect, conn) in &mut waiting {
        let answer = conn.answer();
        assert_eq!(answer.status, 503, "{dialect:?}: {}", answer.text());
        assert!(answer.text().contains("shutting down"), "{dialect:?}: {}", answer.text());
        assert!(conn.closes());
    }
    assert!(gateway.wait().success());
    let rows = block_on(store(dir.path()).log_rows(10)).unwrap();
    assert_eq!(rows.iter().map(|row| row.status).collect::<Vec<_>>(), [503; 3]);
}

#[test]
fn a_second_signal_ends_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT")] {
        let dir = tempfile::tempdir().unwrap();
        let events = chat_events(&["one "], false)[..1].to_vec();
        let provider = Provider::new(Script::Events(events, Then::Stall));
        set_up(dir.path(), &provider);
        // Without the second signal neither would be over before the test gives up.
        let gateway =
            Process::start(dir.path(), &[("MERIDO_DRAIN_SECONDS", "600"), ("MERIDO_LAME_DUCK_SECONDS", "600")]);
        let mut stream = half_sent(&gateway, CHAT, STREAM, "one ");
        gateway.signal(first);
        gateway.logged("shutting down");
        gateway.signal(second);
        let text = stream.answer().text();
        assert!(text.contains("shutting down"), "{text}");
        assert!(gateway.wait().success());
    }
}

#[test]
fn an_interrupt_skips_the_lame_duck() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Process::start(dir.path(), &[("MERIDO_LAME_DUCK_SECONDS", "600")]);
    let mut idle = Conn::open(gateway.addr);
    idle.send(b"GET /healthz HTTP/1.1\r\nhost: g\r\n\r\n");
    assert_eq!(idle.answer().status, 200);
    gateway.signal("INT");
    assert!(idle.closes());
    assert!(gateway.wait().success());
}

#[test]
fn a_start_takes_little_time() {
    let dir = tempfile::tempdir().unwrap();
    for round in ["first", "second"] {
        let began = Instant::now();
        let gateway = Process::start(dir.path(), &[]);
        let body = br#"{"model":"demo/echo","messages":[{"role":"user","content":"hello"}]}"#;
        assert_eq!(post(gateway.addr, CHAT, "", body).status, 200);
        let took = began.elapsed();
        // Shown by `--nocapture`; the bound only catches a start that has become another kind of thing.
        println!("{round} start to first answer: {took:?} (listening after {:?})", gateway.took);
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(gateway.stop().success());
    }
}

/// Keeps asking over one connection until it breaks; counts whole answers.
fn load(gateway: std::net::SocketAddr, answered: &AtomicUsize) {
    let Ok(socket) = TcpStream::connect(gateway) else { return };
    drop(socket);
    let mut conn = Conn::open(gateway);
    while conn.try_send(&post_bytes(CHAT, "", ASK)) && conn.try_answer().is_some_and(|answer| answer.status == 200) {
        answered.fetch_add(1, Ordering::AcqRel);
        // A pace, not a wait for anything: a few hundred requests over many of the writer's rounds.
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_kill_under_load_loses_the_last_moments_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::new(chat("fine"));
    set_up(dir.path(), &provider);
    let gateway = Process::start(dir.path(), &[]);
    let reader = store(dir.path());
    let (addr, answered) = (gateway.addr, Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let answered = Arc::clone(&answered);
            std::thread::spawn(move || load(addr, &answered))
        })
        .collect();
    // How many the provider had answered at each moment, until there are a few hundred and many of them are stored.
    let (mut moments, mut durable) = (Vec::new(), 0);
    eventually("a few hundred requests, some of them stored", || {
        moments.push((Instant::now(), provider.calls()));
        durable = block_on(reader.log_rows(100_000)).unwrap().len();
        durable >= 400 && moments[0].0.elapsed() >= Duration::from_secs(3)
    });
    gateway.signal("KILL");
    let killed = Instant::now();
    for caller in callers {
        caller.join().unwrap();
    }
    assert!(!gateway.wait().success());
    drop(reader);

    let file = rusqlite::Connection::open(dir.path().join("data/merido.db")).unwrap();
    let verdict: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    drop(file);
    let store = store(dir.path());
    let rows = block_on(store.log_rows(100_000)).unwrap();
    let totals = block_on(store.usage_totals()).unwrap();
    let counted: u64 = totals.iter().map(|total| total.counts.requests).sum();
    assert_eq!(counted, rows.len() as u64, "totals and rows are written together");
    assert!(rows.len() >= durable, "{} rows were there, {} are left", durable, rows.len());
    let mut ids: Vec<_> = rows.iter().map(|row| (row.id.epoch, row.id.n)).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), rows.len());

    // The writer drains every 250 ms, and one such batch may have been on its way; as much again for a busy machine.
    let (answered, window) = (answered.load(Ordering::Acquire), Duration::from_secs(1));
    let before = moments.iter().rev().find(|(at, _)| killed.duration_since(*at) >= window).map_or(0, |moment| moment.1);
    let lost = answered.saturating_sub(rows.len());
    println!(
        "answered {answered}, stored {}, lost {lost}, answered in the last second {}",
        rows.len(),
        provider.calls() - before
    );
    assert!(before >= 100, "there was load before the last second: {before}");
    assert!(rows.len() >= before.saturating_sub(4), "lost {lost} of {answered}, {before} of them older than a second");

    // And it goes on from there.
    let gateway = Process::start(dir.path(), &[]);
    assert_eq!(post(gateway.addr, CHAT, "", ASK).status, 200);
    assert!(gateway.stop().success());
    assert_eq!(block_on(store.log_rows(100_000)).unwrap().len(), rows.len() + 1);
}

#[test]
fn idle_gateways_end_at_once_and_leave_nothing_listening() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Process::start(dir.path(), &[]);
    let addr = gateway.addr;
    assert_eq!(get(addr, "/healthz", "").status, 200);
    assert!(gateway.stop().success());
    assert!(TcpStream::connect(addr).is_err());
}
