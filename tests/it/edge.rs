//! Where clients come in: TLS with HTTP/1.1 and HTTP/2, the certificate's renewal, the control plane's own listener,
//! permits, the first request of a connection at shutdown, the health check.

use crate::support::client::{Conn, get, post, post_bytes};
use crate::support::eventually;
use crate::support::gateway::{Setup, block_on};
use crate::support::provider::{Provider, Script, Then, chat, chat_events};
use crate::support::tls::Certificate;
use http_body_util::BodyExt as _;
use merido::app::Order;
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const CHAT: &str = "/v1/chat/completions";
const BODY: &[u8] = br#"{"model":"openai/gpt-4o-mini","messages":[]}"#;
const STREAM: &[u8] = br#"{"model":"openai/gpt-4o-mini","stream":true,"messages":[]}"#;

#[test]
fn over_tls_by_http1_with_keep_alive() {
    let certificate = Certificate::new();
    let provider = Provider::new(chat("hello"));
    let gateway = certificate.on(Setup::openai(&provider)).start();
    block_on(async {
        let mut stream = certificate.connect(gateway.addr, "http/1.1").await.unwrap();
        for n in 1..=2 {
            stream.write_all(&post_bytes(CHAT, "", BODY)).await.unwrap();
            let mut raw = Vec::new();
            while !String::from_utf8_lossy(&raw).ends_with("}}") {
                assert!(stream.read_buf(&mut raw).await.unwrap() > 0, "round {n}");
            }
            let text = String::from_utf8(raw).unwrap();
            assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("hello"), "{text}");
        }
    });
    // Without TLS there is nobody to talk to.
    let mut plain = Conn::open(gateway.addr);
    plain.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(!String::from_utf8_lossy(&plain.rest()).contains("HTTP/1.1"));
    eventually("the failed handshake is counted", || {
        block_on(async {
            let (mut client, _) = certificate.http2(gateway.addr).await;
            let (_, metrics) = client.ask("GET", "/metrics", b"").await;
            !metrics.contains("merido_tls_handshake_errors_total 0\n")
        })
    });
}

#[test]
fn over_tls_by_http2_many_at_once_beside_a_stream() {
    let certificate = Certificate::new();
    let gate = Arc::new(AtomicBool::new(false));
    let provider = Provider::new(chat("hello"));
    let events = chat_events(&["one ", "two"], true);
    provider.then(Script::Events(events[..1].to_vec(), Then::Gate(Arc::clone(&gate), events[1..].to_vec())));
    // Longer than its idle limit: a connection with a request on it is not idle.
    let setup = Setup::openai(&provider).with(|s| s.timeouts.keep_alive = Duration::from_millis(200));
    let gateway = certificate.on(setup).start();
    block_on(async {
        let (mut client, ended) = certificate.http2(gateway.addr).await;
        let mut stream = client.send("POST", CHAT, STREAM).await.into_body();
        let first = stream.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&first[..], events[0].as_bytes());
        let many = (0..30).map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.ask("POST", CHAT, BODY).await })
        });
        for one in many.collect::<Vec<_>>() {
            let (status, text) = one.await.unwrap();
            assert!(status == 200 && text.contains("hello"), "{status} {text}");
        }
        assert_eq!(client.ask("GET", "/healthz", b"").await.0, 200);
        assert_eq!(client.ask("GET", CHAT, b"").await.0, 405);
        tokio::time::sleep(Duration::from_millis(500)).await;
        gate.store(true, Ordering::Release);
        let rest = stream.collect().await.unwrap().to_bytes();
        assert_eq!(&rest[..], [&events[1][..], &events[3]].concat().as_bytes());
        // Now it is idle, and closed for that.
        let closed = tokio::time::timeout(Duration::from_secs(10), ended).await;
        assert!(closed.is_ok(), "an idle connection is closed");
    });
}

#[test]
fn a_client_that_leaves_one_http2_stream_lying_loses_that_one_only() {
    let certificate = Certificate::new();
    let provider = Provider::new(chat("hello"));
    let events: Vec<String> = (0..4000).map(|_| format!("data: {{\"x\":\"{}\"}}\n\n", "y".repeat(2000))).collect();
    provider.then(Script::Events(events, Then::Stall));
    let setup = Setup::openai(&provider).with(|s| s.timeouts.stream_idle = Duration::from_millis(400));
    let gateway = certificate.on(setup).start();
    block_on(async {
        let (mut client, _ended) = certificate.http2(gateway.addr).await;
        // Its window fills, and nobody reads on.
        let lying = client.send("POST", CHAT, STREAM).await;
        while provider.hung_up() == 0 {
            assert_eq!(client.ask("POST", CHAT, BODY).await.0, 200);
        }
        assert!(lying.into_body().collect().await.is_err(), "it was reset");
        assert_eq!(client.ask("POST", CHAT, BODY).await.0, 200);
    });
}

#[test]
fn http2_drains_with_bytes_in_flight() {
    let certificate = Certificate::new();
    let gate = Arc::new(AtomicBool::new(false));
    let events = chat_events(&["one ", "two"], true);
    let provider =
        Provider::new(Script::Events(events[..1].to_vec(), Then::Gate(Arc::clone(&gate), events[1..].to_vec())));
    let gateway = certificate.on(Setup::openai(&provider)).start();
    let addr = gateway.addr;
    let (gateway, _store, _dir) = gateway.take();
    block_on(async {
        let (mut client, ended) = certificate.http2(addr).await;
        let mut stream = client.send("POST", CHAT, STREAM).await.into_body();
        stream.frame().await.unwrap().unwrap();
        let (_idle, idle_ended) = certificate.http2(addr).await;
        gateway.order(Order::DrainNow);
        // The idle one is told to go, the busy one waits for its stream.
        idle_ended.await.unwrap().unwrap();
        assert!(!ended.is_finished());
        gate.store(true, Ordering::Release);
        let rest = stream.collect().await.unwrap().to_bytes();
        assert!(rest.ends_with(events[3].as_bytes()));
        ended.await.unwrap().unwrap();
    });
    gateway.wait();
}

#[test]
fn a_new_certificate_is_shown_and_open_connections_stay() {
    let mut certificate = Certificate::new();
    let provider = Provider::new(chat("hello"));
    let gateway = certificate.on(Setup::openai(&provider)).start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut old, _ended) = runtime.block_on(certificate.http2(gateway.addr));
    certificate.renew();
    assert!(runtime.block_on(certificate.connect(gateway.addr, "h2")).is_err(), "not yet");
    eventually("the new certificate", || runtime.block_on(certificate.connect(gateway.addr, "h2")).is_ok());
    assert_eq!(runtime.block_on(old.ask("POST", CHAT, BODY)).0, 200);
}

#[test]
fn a_client_that_never_shakes_hands_is_let_go() {
    let certificate = Certificate::new();
    let setup = Setup::new().with(|s| s.timeouts.client_header = Duration::from_millis(200));
    let gateway = certificate.on(setup).start();
    assert!(Conn::open(gateway.addr).rest().is_empty());
}

#[test]
fn the_control_planes_own_listener_serves_no_model() {
    let provider = Provider::new(chat("hello"));
    let gateway = Setup::openai(&provider).with(|s| s.admin_listen = Some("127.0.0.1:0".parse().unwrap())).start();
    let admin = gateway.admin_addr();
    assert_ne!(admin, gateway.addr);
    assert_eq!(get(admin, "/healthz", "").json()["status"], "ok");
    assert!(get(admin, "/metrics", "").text().contains("merido_requests_total"));
    for answer in [post(admin, CHAT, "", BODY), get(admin, "/v1/models", "")] {
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &"not_found".into()), "{}", answer.text());
    }
    assert_eq!(provider.calls(), 0);
    // As well, not instead.
    assert_eq!(get(gateway.addr, "/healthz", "").status, 200);
    let (gateway, _store, _dir) = gateway.take();
    gateway.stop();
    assert!(TcpStream::connect(admin).is_err());
}

#[test]
fn health_is_told_when_every_permit_is_taken() {
    let provider = Provider::new(chat("hello"));
    let gateway = Setup::openai(&provider).with(|s| s.max_connections = 2).start();
    let mut held: Vec<_> = (0..2).map(|_| Conn::open(gateway.addr)).collect();
    for conn in &mut held {
        conn.send(&post_bytes(CHAT, "", BODY));
        assert_eq!(conn.answer().status, 200);
    }
    let mut late = Conn::open(gateway.addr);
    late.send(&post_bytes(CHAT, "", BODY));
    let refused = late.answer();
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{}", refused.text());
    assert_eq!(provider.calls(), 2);
    late.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(late.answer().status, 200);
    late.send(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(late.answer().status, 200);
    drop(held);
    eventually("a permit is free again", || post(gateway.addr, CHAT, "", BODY).status == 200);
}

#[test]
fn a_connection_just_made_gets_its_first_answer_at_shutdown() {
    let gate = Arc::new(AtomicBool::new(false));
    let provider = Provider::new(chat("hello"));
    provider.then(Script::Events(chat_events(&["one"], true), Then::Gate(Arc::clone(&gate), Vec::new())));
    let gateway = Setup::openai(&provider).start();
    let addr = gateway.addr;
    let mut busy = Conn::open(addr);
    busy.send(&post_bytes(CHAT, "", STREAM));
    busy.read_until("one");
    let mut fresh = Conn::open(addr);
    let (gateway, _store, _dir) = gateway.take();
    gateway.order(Order::DrainNow);
    eventually("no new connections", || TcpStream::connect(addr).is_err());
    fresh.send(&post_bytes(CHAT, "", BODY));
    let answer = fresh.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{}", answer.head);
    assert!(fresh.rest().is_empty());
    gate.store(true, Ordering::Release);
    assert!(String::from_utf8_lossy(&busy.rest()).contains("[DONE]"));
    gateway.wait();
}

#[test]
fn the_health_check_asks_with_and_without_tls() {
    let check = |port: u16, certificate: Option<&Certificate>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_merido"));
        command.arg("healthcheck").env_clear().env("MERIDO_PORT", port.to_string());
        if let Some(certificate) = certificate {
            command.env("MERIDO_TLS_CERT", certificate.path("cert.pem"));
            command.env("MERIDO_TLS_KEY", certificate.path("key.pem"));
        }
        command.output().unwrap()
    };
    let gateway = Setup::new().start();
    let said = check(gateway.addr.port(), None);
    assert!(said.status.success(), "{said:?}");
    let port = gateway.addr.port();
    drop(gateway);
    let said = check(port, None);
    assert_eq!(said.status.code(), Some(1), "{said:?}");

    let certificate = Certificate::new();
    let gateway = certificate.on(Setup::new()).start();
    let said = check(gateway.addr.port(), Some(&certificate));
    assert!(said.status.success(), "{said:?}");
    assert_eq!(check(gateway.addr.port(), None).status.code(), Some(1), "no TLS, no answer");
}
