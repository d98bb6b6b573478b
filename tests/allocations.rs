//! What a request costs in heap allocations, held against `benches/budget.toml`: everything on, one core, in this process.
//!
//! The allocator counts for the whole process, so this test has a process of its own, and its client and its provider
//! allocate nothing between the two readings: blocking sockets, fixed buffers, ready-made bytes. What the gateway's other
//! threads do for a request (its row, its totals) is counted with it. Counts do not depend on how busy the machine is.

#![expect(clippy::unwrap_used, reason = "a test: what cannot be set up is a failure")]
#![expect(clippy::disallowed_methods, reason = "the provider is not of the gateway: threads of its own")]

use std::alloc::System;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use merido::app::Gateway;
use merido::base::Secret;
use merido::config::{RouteSpec, Settings};
use merido::store::rows::{KeySpec, NewAccount};
use merido::store::{Store, StoreConfig};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Enough that a queue's growth, a table's resize or a tick of the background is nothing beside it.
const REQUESTS: usize = 2000;
const WARM: usize = 300;

/// A provider that gives one answer, whatever is asked.
fn provider(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                socket.set_nodelay(true).unwrap();
                let mut buffer = [0; 16 << 10];
                while read_message(&mut socket, &mut buffer) && socket.write_all(answer).is_ok() {}
            });
        }
    });
    addr
}

/// Reads one message whole, request or answer, by its length or to its last chunk. False when the other side left.
fn read_message(socket: &mut TcpStream, buffer: &mut [u8]) -> bool {
    let mut filled = 0;
    loop {
        match socket.read(&mut buffer[filled..]) {
            Ok(0) | Err(_) => return false,
            Ok(read) => filled += read,
        }
        let seen = &buffer[..filled];
        let Some(head) = memchr::memmem::find(seen, b"\r\n\r\n").map(|at| at + 4) else { continue };
        let ended = match memchr::memmem::find(&seen[..head], b"content-length: ") {
            Some(at) => {
                let digits = seen[at + 16..].iter().take_while(|byte| byte.is_ascii_digit());
                head + digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')) <= filled
            }
            None => seen.ends_with(b"0\r\n\r\n"),
        };
        if ended {
            return true;
        }
    }
}

fn plain() -> Vec<u8> {
    let body = format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"gpt-4o-mini","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":210,"completion_tokens":100,"total_tokens":310}}}}"#,
        "lorem ipsum ".repeat(28)
    );
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into()
}

fn stream() -> Vec<u8> {
    let mut text =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    let mut event = |data: &str| {
        let event = format!("data: {data}\n\n");
        let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{:x}\r\n{event}\r\n", event.len()));
    };
    for n in 0..33 {
        event(&format!(
            r#"{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini","choices":[{{"index":0,"delta":{{"content":"word{n} "}},"finish_reason":null}}]}}"#
        ));
    }
    event(
        r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":210,"completion_tokens":33,"total_tokens":243}}"#,
    );
    event("[DONE]");
    text += "0\r\n\r\n";
    text.into()
}

/// Allocations and bytes per request, with everything on.
fn cost(answer: Vec<u8>, extra: &str) -> (f64, f64) {
    let dir = tempfile::tempdir().unwrap();
    let provider = provider(answer.leak());
    let route: RouteSpec = serde_json::from_value(serde_json::json!({
        "name": "fast", "strategy": "load_balance",
        "targets": [{"model": "openai/gpt-4o-mini", "account": "a"}, {"model": "openai/gpt-4o-mini", "account": "b"}],
    }))
    .unwrap();
    let settings = Settings {
        port: 0,
        workers: 1,
        data_dir: dir.path().to_owned(),
        require_api_key: Some(true),
        routes: vec![route],
        ..Settings::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = Store::open(&StoreConfig::from(&settings)).unwrap();
    for label in ["a", "b"] {
        let account = NewAccount {
            provider: "openai".to_owned(),
            label: Some(label.to_owned()),
            base_url: Some(format!("http://{provider}/v1")),
            weight: 1,
            secret: Secret::new("mock".to_owned()),
            define: None,
        };
        runtime.block_on(store.add_account(account)).unwrap();
    }
    let (rpm, tpm) = (Some(100_000_000), Some(4_000_000_000));
    let spec = KeySpec { name: "load".to_owned(), rpm, tpm, ..KeySpec::default() };
    let key = runtime.block_on(store.create_key(spec)).unwrap().plain;
    let gateway = Gateway::start(settings).unwrap();

    let body = format!(
        r#"{{"model":"fast","temperature":0.7,"max_tokens":256{extra},"messages":[{{"role":"user","content":"{}"}}]}}"#,
        "Tell me how a relay keeps its costs low. ".repeat(20)
    );
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\naccept: */*\r\nuser-agent: load\r\ncontent-length: {}\r\n\r\n{body}",
        key.reveal(),
        body.len()
    );
    let mut socket = TcpStream::connect(gateway.addr()).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut buffer = [0; 16 << 10];
    let mut ask = |count: usize| {
        for _ in 0..count {
            socket.write_all(request.as_bytes()).unwrap();
            assert!(read_message(&mut socket, &mut buffer), "no whole answer");
            assert!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer[..200]));
        }
    };
    ask(WARM);
    let region = Region::new(HEAP);
    ask(REQUESTS);
    let spent = region.change();
    gateway.stop();
    let each = |count: usize| count as f64 / REQUESTS as f64;
    (each(spent.allocations + spent.reallocations), each(spent.bytes_allocated))
}

#[test]
fn a_request_allocates_no_more_than_its_budget() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/budget.toml")).unwrap();
    let budget: toml::Value = toml::from_str(&text).unwrap();
    let tolerance = budget["tolerance"].as_float().unwrap();
    let mut over = Vec::new();
    for (work, answer, extra) in
        [("unary", plain(), ""), ("sse-burst", stream(), r#","stream":true,"stream_options":{"include_usage":true}"#)]
    {
        let most = budget["works"][work]["allocations"].as_integer().unwrap() as f64;
        let (seen, bytes) = cost(answer, extra);
        let line = format!("{work:<10} {seen:.2} allocations of {most}, {bytes:.0} bytes");
        println!("{line}");
        if seen > most * (1.0 + tolerance) {
            over.push(line);
        }
    }
    assert!(
        over.is_empty(),
        "over budget (benches/budget.toml says why each number is what it is):\n{}",
        over.join("\n")
    );
}
