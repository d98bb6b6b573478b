//! What providers do wrong: unreachable, silent, talking nonsense, refusing our credential. Never the client's fault,
//! never a hang, and never half an answer taken for whole.

use crate::support::client::{Answer, Conn, post, post_bytes};
use crate::support::dialects::{WAYS, Way, all, refused};
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway};
use crate::support::provider::{Provider, Script, Then, chat, chat_events, error};
use merido::dialect::Dialect;
use std::time::Duration;

const OK_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

/// Nobody rests: each case finds its account ready.
fn patient(setup: Setup) -> Setup {
    setup.with(|set| set.breaker.failures = 1_000_000)
}

fn ask(gateway: &TestGateway, way: Way) -> Answer {
    post(gateway.addr, way.path, "", way.body.as_bytes())
}

#[test]
fn a_provider_that_is_not_there() {
    let provider = Provider::new(chat("never said"));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}");
    let setup = Setup::new().account("openai", "a", &format!("{url}/v1"));
    let gateway = patient(setup.account("anthropic", "a", &url).account("gemini", "a", &url)).start();
    for way in WAYS {
        let message = refused(way.dialect, &ask(&gateway, way), 502);
        assert!(!message.contains(&closed.port().to_string()), "an inside address: {message}");
    }
    assert!(gateway.rows(3).iter().all(|row| (row.status, row.attempts) == (502, 1)));
    drop(provider);
}

#[test]
fn a_provider_that_breaks_the_rules_of_http() {
    let provider = Provider::new(chat("fine"));
    // One core, so one pool: each case begins with one connection in it.
    let gateway = patient(all(&provider)).with(|set| set.workers = 1).start();
    assert_eq!(ask(&gateway, WAYS[0]).status, 200);
    let nonsense: [&[u8]; 12] = [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 2OO OK\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
    ];
    for way in WAYS {
        for bytes in nonsense {
            // Twice: a pooled connection that closes without a byte is replaced once.
            provider.then(Script::Raw(bytes.to_vec())).then(Script::Raw(bytes.to_vec()));
            let answer = ask(&gateway, way);
            let shown = String::from_utf8_lossy(bytes);
            assert_eq!(answer.status, 502, "{shown:?}: {}", answer.text());
            refused(way.dialect, &answer, 502);
            // Whatever of the pair was not needed.
            while provider.pending() > 0 {
                assert_eq!(ask(&gateway, way).status, 502, "{shown:?}");
            }
            assert_eq!(ask(&gateway, way).status, 200, "the connection after {shown:?} is a new one");
        }
    }
}

#[test]
fn an_answer_that_breaks_off_is_not_taken_for_whole() {
    let provider = Provider::new(chat("fine"));
    let gateway = patient(all(&provider)).start();
    for way in WAYS {
        for cut in ["content-length: 100\r\n\r\n{\"half\":", "transfer-encoding: chunked\r\n\r\n8\r\n{\"half\":\r\n"] {
            provider.then(Script::Raw(format!("{OK_HEAD}{cut}").into_bytes()));
            let mut conn = Conn::open(gateway.addr);
            conn.send(&post_bytes(way.path, "connection: close\r\n", way.body.as_bytes()));
            let text = String::from_utf8_lossy(&conn.rest()).into_owned();
            // Early enough it is a 502; after the head has gone out, only a cut tells the client.
            let whole = text.ends_with("0\r\n\r\n");
            assert!(text.starts_with("HTTP/1.1 502") || !whole, "{cut:?}: {text}");
        }
    }
    let rows = gateway.rows(6);
    assert!(rows.iter().all(|row| row.status == 502 && row.error.is_some()), "{rows:?}");
    // Bad chunks after good ones.
    provider.then(Script::Raw(format!("{OK_HEAD}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\nzz\r\n").into_bytes()));
    let mut conn = Conn::open(gateway.addr);
    conn.send(&post_bytes(WAYS[0].path, "connection: close\r\n", WAYS[0].body.as_bytes()));
    assert!(!String::from_utf8_lossy(&conn.rest()).ends_with("0\r\n\r\n"));
}

#[test]
fn a_stream_that_breaks_off_ends_with_the_dialects_own_error() {
    let events = chat_events(&["one "], false)[..1].to_vec();
    let provider = Provider::new(Script::Events(events.clone(), Then::Break));
    let gateway = patient(all(&provider)).start();
    let stream = |path: &str, body: &str| post(gateway.addr, path, "", body.as_bytes()).text();
    let text = stream("/v1/chat/completions", r#"{"model":"openai/m","stream":true,"messages":[]}"#);
    let last = text.strip_prefix(&*events[0]).unwrap();
    assert!(last.starts_with(r#"data: {"error":{"#) && last.contains("upstream_failed"), "{last}");
    let text = stream("/v1/responses", r#"{"model":"openai/m","stream":true,"input":"x"}"#);
    assert!(text.strip_prefix(&*events[0]).unwrap().starts_with("event: error\ndata: {"), "{text}");
    let text = stream("/v1/messages", r#"{"model":"anthropic/c","stream":true,"messages":[]}"#);
    let last = text.strip_prefix(&*events[0]).unwrap();
    assert!(last.starts_with("event: error\ndata: {") && last.contains("api_error"), "{last}");
    let text = stream("/v1beta/models/gemini/g:streamGenerateContent?alt=sse", "{}");
    let last = text.strip_prefix(&*events[0]).unwrap();
    assert!(last.starts_with(r#"data: {"error":{"#) && last.contains("UNAVAILABLE"), "{last}");
    assert!(gateway.rows(4).iter().all(|row| row.status == 502 && row.stream));
}

#[test]
fn a_provider_that_says_nothing() {
    let provider = Provider::new(Script::Stall);
    let short = Duration::from_millis(300);
    let setup = patient(all(&provider)).with(|set| {
        (set.timeouts.first_byte, set.timeouts.first_byte_stream) = (short, short);
    });
    let gateway = setup.start();
    for way in WAYS {
        refused(way.dialect, &ask(&gateway, way), 504);
    }
    let answer = post(gateway.addr, "/v1/chat/completions", "", br#"{"model":"openai/m","stream":true,"messages":[]}"#);
    refused(Dialect::OpenAi, &answer, 504);
    eventually("the calls are given up", || provider.hung_up() == 4 && provider.open() == 0);
    assert_eq!(provider.calls(), 4, "asked once each: it may have been paid");
}

#[test]
fn a_provider_that_goes_silent_in_the_middle() {
    let events = chat_events(&["one "], false)[..1].to_vec();
    let provider = Provider::new(Script::Events(events, Then::Stall));
    let gateway = patient(all(&provider)).with(|set| set.timeouts.stream_idle = Duration::from_millis(300)).start();
    let body = br#"{"model":"openai/m","stream":true,"messages":[]}"#;
    let text = post(gateway.addr, "/v1/chat/completions", "", body).text();
    assert!(text.contains("upstream_timeout"), "{text}");
    eventually("the call is given up", || provider.open() == 0);
}

#[test]
fn a_refusal_of_our_own_credential_is_not_the_clients() {
    let google = r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}]}}"#;
    let json = "content-type: application/json\r\n".to_owned();
    let quoted = r#"{"error":{"message":"Incorrect API key provided: sk-openai-a.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#;
    for script in [
        error(401, "invalid_api_key", "www-authenticate: Bearer realm=\"sk-openai-a\"\r\n"),
        Script::Reply(401, json.clone(), quoted.as_bytes().to_vec()),
        error(402, "insufficient_quota", ""),
        error(429, "insufficient_quota", ""),
        Script::Reply(302, "location: http://127.0.0.1:1/sk-openai-a\r\n".to_owned(), Vec::new()),
        Script::Reply(400, json.clone(), google.as_bytes().to_vec()),
    ] {
        let google_only = matches!(script, Script::Reply(400, ..));
        // Its bill is a limit like another: the client learns when to come back.
        let limit = matches!(script, Script::Reply(402 | 429, ..));
        for way in WAYS.into_iter().filter(|way| !google_only || way.dialect == Dialect::Gemini) {
            // A gateway each: the refusal puts the account to rest.
            let provider = Provider::new(script.clone());
            let gateway = all(&provider).start();
            let answer = ask(&gateway, way);
            let message = refused(way.dialect, &answer, if limit { 429 } else { 502 });
            assert!(message.contains("gateway") || message.contains("provider"), "{message}");
            assert!(!limit || answer.header("retry-after").is_some(), "{}", answer.head);
            assert!(!format!("{}{}", answer.head, answer.text()).contains("sk-"), "{}", answer.text());
            assert!(answer.header("www-authenticate").is_none() && answer.header("location").is_none());
            assert_eq!(provider.calls(), 1);
        }
    }
}
