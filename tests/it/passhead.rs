//! What travels beside bodies: headers in both directions, credentials swapped; and uploads that are never held whole.

use crate::support::client::{Conn, get, post, post_bytes};
use crate::support::eventually;
use crate::support::gateway::{Setup, named};
use crate::support::provider::{Provider, Script, chat};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn credentials_are_swapped_on_every_dialect() {
    let provider = Provider::new(chat("x"));
    let (v1, bare) = (provider.openai_url(), provider.bare_url());
    let setup = Setup::new().account("openai", "a", &v1).account("anthropic", "a", &bare).account("gemini", "a", &bare);
    let gateway = setup.with(|settings| settings.require_api_key = Some(true)).start();
    let key = gateway.key(named("k"));
    let asks = [
        ("/v1/chat/completions", r#"{"model":"openai/m"}"#, "authorization", "Bearer sk-openai-a"),
        ("/v1/messages", r#"{"model":"anthropic/m"}"#, "x-api-key", "sk-anthropic-a"),
        ("/v1beta/models/gemini/m:generateContent", "{}", "x-goog-api-key", "sk-gemini-a"),
    ];
    let sent = [format!("Authorization: Bearer {key}"), format!("X-Api-Key: {key}"), format!("x-goog-api-key: {key}")];
    for (path, body, header, credential) in asks {
        for line in &sent {
            let head = format!("{line}\r\napi-key: other\r\ncookie: c=1\r\n");
            assert_eq!(post(gateway.addr, path, &head, body.as_bytes()).status, 200, "{path} {line}");
            let seen = provider.seen().pop().unwrap();
            assert_eq!(seen.header(header), Some(credential), "{path} {line}");
            assert!(!seen.head.contains(&key) && !seen.head.contains("other") && !seen.head.contains("c=1"));
            let credentials = ["authorization", "x-api-key", "x-goog-api-key"].map(|name| seen.header(name));
            assert_eq!(credentials.iter().flatten().count(), 1, "{}", seen.head);
        }
    }
    let path = format!("/v1beta/models/gemini/m:generateContent?key={key}&alt=json");
    assert_eq!(post(gateway.addr, &path, "", b"{}").status, 200);
    assert_eq!(provider.seen().pop().unwrap().line(), "POST /v1beta/models/m:generateContent?alt=json HTTP/1.1");
}

#[test]
fn headers_pass_but_for_what_is_one_hops_own() {
    let theirs = "content-type: application/json\r\nOpenAI-Processing-Ms: 12\r\nx-request-id: theirs\r\n\
        keep-alive: timeout=5\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nset-cookie: __cf=1\r\n\
        x-odd: a\r\nx-odd: b\r\nx-latin: \u{e9}\r\nstrict-transport-security: max-age=1\r\n";
    let provider = Provider::new(Script::Reply(200, theirs.to_owned(), b"{}".to_vec()));
    let gateway = Setup::new().account("anthropic", "a", &provider.bare_url()).start();
    let head = "User-Agent: mine/1.0 (x; y)\r\nanthropic-version: 2023-06-01\r\nanthropic-beta: a,b\r\nanthropic-beta: c\r\n\
        x-stainless-lang: python\r\nx-request-id: mine-7\r\nconnection: keep-alive, X-Hop\r\nx-hop: secret\r\nkeep-alive: 5\r\n\
        te: trailers\r\nproxy-authorization: Basic x\r\nupgrade: h2c\r\naccept-encoding: gzip, br\r\n\
        x-forwarded-for: 10.0.0.1\r\nx-merido-dedup: off\r\naccept: */*\r\nx-empty:\r\n";
    let body = br#"{"model":"anthropic/m"}"#;
    let answer = post(gateway.addr, "/v1/messages", head, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = provider.seen().pop().unwrap();
    for (name, value) in [
        ("user-agent", "mine/1.0 (x; y)"),
        ("anthropic-version", "2023-06-01"),
        ("x-stainless-lang", "python"),
        ("x-request-id", "mine-7"),
        ("accept", "*/*"),
        ("x-empty", ""),
        ("content-type", "application/json"),
        ("content-length", &(body.len() - "anthropic/".len()).to_string()),
        ("host", &provider.addr.to_string()),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}\n{}", seen.head);
    }
    let betas: Vec<_> = seen.head.lines().filter_map(|line| line.strip_prefix("anthropic-beta: ")).collect();
    assert_eq!(betas, ["a,b", "c"]);
    for name in ["x-hop", "keep-alive", "te", "proxy-authorization", "upgrade", "x-forwarded-for", "x-merido-dedup"] {
        assert_eq!(seen.header(name), None, "{name} went to the provider");
    }
    assert!(!seen.head.contains("gzip"), "a compressed reply could not be metered");

    assert_eq!(answer.header("openai-processing-ms"), Some("12"));
    assert_eq!(answer.header("x-request-id"), Some("mine-7"));
    assert_eq!(answer.head.matches("x-odd: ").count(), 2, "{}", answer.head);
    for name in ["x-hop", "keep-alive", "set-cookie", "strict-transport-security"] {
        assert_eq!(answer.header(name), None, "{name} came through");
    }
    for (name, value) in [("x-merido-account", "a"), ("x-merido-model", "anthropic/m"), ("x-merido-attempts", "1")] {
        assert_eq!(answer.header(name), Some(value));
    }
    let insane = post(gateway.addr, "/v1/messages", "x-request-id: a b\r\n", body);
    let id = insane.header("x-request-id").unwrap();
    assert!(id.len() > 8 && id.bytes().all(|b| b.is_ascii_graphic()), "{id}");
    assert_eq!(provider.seen().pop().unwrap().header("x-request-id"), Some(id));
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on_or_not_to() {
    let provider = Provider::new(chat("x"));
    let gateway = Setup::openai(&provider).with(|settings| settings.require_api_key = Some(true)).start();
    let key = gateway.key(named("k"));
    let (body, path) = (br#"{"model":"openai/m"}"#, "/v1/chat/completions");
    let wire = |key: &str| {
        let head = format!("authorization: Bearer {key}\r\nexpect: 100-continue\r\n");
        let mut wire = post_bytes(path, &head, body);
        wire.truncate(wire.len() - body.len());
        wire
    };
    let mut conn = Conn::open(gateway.addr);
    conn.send(&wire(&key));
    assert!(conn.read_until("\r\n\r\n").starts_with("HTTP/1.1 100 "));
    conn.send(body);
    let both = conn.read_until("chatcmpl-1");
    assert!(both.contains("\r\n\r\nHTTP/1.1 200 "), "{both}");
    assert_eq!(provider.seen()[0].header("expect"), None);
    // A stranger is refused from the head alone: its body is never asked for.
    let mut conn = Conn::open(gateway.addr);
    conn.send(&wire("mrd_nobody"));
    assert_eq!(conn.answer().status, 401);
}

#[test]
fn head_says_what_get_would_and_nothing_more() {
    let gateway = Setup::new().start();
    let mut conn = Conn::open(gateway.addr);
    for path in ["/healthz", "/v1/models", "/v1/models/demo%2Fecho", "/v1/model_group/info"] {
        let length = get(gateway.addr, path, "").header("content-length").map(str::to_owned);
        conn.send(
            format!("HEAD {path} HTTP/1.1\r\nhost: x\r\n\r\nGET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes(),
        );
        let head = conn.read_until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
        assert!(path == "/healthz" || head.contains(&format!("content-length: {}\r\n", length.unwrap())), "{head}");
        // What follows its head is the next answer's head.
        let both = conn.read_until("nothing here");
        assert!(both[both.find("\r\n\r\n").unwrap() + 4..].starts_with("HTTP/1.1 404 "), "{path}: {both}");
        conn = Conn::open(gateway.addr);
    }
}

/// A provider that reads an upload only while the gate is open, and counts.
fn slow_reader(
    gate: Arc<AtomicBool>,
    got: Arc<AtomicUsize>,
) -> (std::net::SocketAddr, std::thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let reading = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let (mut all, mut chunk, mut whole) = (Vec::new(), vec![0; 64 << 10], usize::MAX);
        while all.len() < whole {
            if got.load(Ordering::Acquire) > 0 {
                eventually("the gate opens", || gate.load(Ordering::Acquire));
            }
            let n = socket.read(&mut chunk).unwrap();
            assert!(n > 0, "the upload broke off");
            all.extend_from_slice(&chunk[..n]);
            got.fetch_add(n, Ordering::AcqRel);
            if whole == usize::MAX
                && let Some(end) = all.windows(4).position(|w| w == b"\r\n\r\n")
            {
                let head = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
                whole = end + 4 + length.parse::<usize>().unwrap();
            }
        }
        let reply = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"text\":\"hi\"}";
        socket.write_all(reply.as_bytes()).unwrap();
        all
    });
    (addr, reading)
}

#[test]
fn an_upload_flows_through_and_is_never_held_whole() {
    let (gate, got) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (addr, reading) = slow_reader(Arc::clone(&gate), Arc::clone(&got));
    let gateway = Setup::new().account("openai", "a", &format!("http://{addr}/v1")).start();
    let part = |name: &str| format!("--b0\r\nContent-Disposition: form-data; name=\"{name}\"");
    let form = |model: &str| {
        let fields = format!("{}\r\n\r\n{model}\r\n{}\r\n\r\nen\r\n", part("model"), part("language"));
        let file = format!("{}; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n", part("file"));
        let mut body = [fields.into_bytes(), file.into_bytes()].concat();
        body.extend((0..20 << 20).map(|n: u32| (n ^ n >> 9) as u8));
        body.extend_from_slice(b"\r\n--b0--\r\n");
        body
    };
    let body = form("openai/whisper-1");
    let wire = post_bytes("/v1/audio/transcriptions", "content-type: multipart/form-data; boundary=b0\r\n", &body);
    let mut client = TcpStream::connect(gateway.addr).unwrap();
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    // The provider has stopped reading: after what the sockets hold, the client must be stopped as well.
    while let Ok(n) = client.write(&wire[sent..]) {
        sent += n;
        assert!(sent < wire.len(), "all of it was taken while the provider took nothing");
    }
    eventually("the provider began to receive before the client was done", || got.load(Ordering::Acquire) > 0);
    gate.store(true, Ordering::Release);
    client.set_write_timeout(None).unwrap();
    client.write_all(&wire[sent..]).unwrap();
    let all = reading.join().unwrap();
    let start = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    assert!(all[start..] == form("whisper-1"), "the file changed on its way");
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let row = &gateway.rows(1)[0];
    assert_eq!((row.endpoint.as_str(), row.model.as_deref(), row.status), ("transcriptions", Some("whisper-1"), 200));
}
