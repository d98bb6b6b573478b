//! Answers given before their request was read: the connection lives where its client was told nothing else, the answer
//! arrives where it does not, and what nobody reads is bounded in bytes, time and memory.

use crate::support::client::{Answer, Conn, get};
use crate::support::gateway::{Setup, TestGateway, block_on, named};
use crate::support::process::Process;
use crate::support::provider::{Provider, chat};
use crate::support::tls::Certificate;
use merido::store::rows::KeySpec;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const CHAT: &str = "/v1/chat/completions";
const BODY: &[u8] = br#"{"model":"openai/gpt-4o-mini","messages":[]}"#;

/// Nobody gets in without a key; a slow client has little time.
fn locked(provider: &Provider) -> TestGateway {
    let setup = Setup::openai(provider).with(|set| {
        set.require_api_key = Some(true);
        set.timeouts.client_header = Duration::from_millis(500);
    });
    setup.start()
}

fn head(path: &str, more: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n{more}\r\n").into_bytes()
}

/// `body` after `head`, which was answered in between.
#[track_caller]
fn late(conn: &mut Conn, head: &[u8], body: &[u8]) -> Answer {
    conn.send(head);
    let answer = conn.answer();
    conn.try_send(body);
    answer
}

/// The connection takes another request, and its bytes are not mistaken for the last one's.
#[track_caller]
fn lives(conn: &mut Conn) {
    conn.send(b"GET /healthz HTTP/1.1\r\nhost: g\r\n\r\n");
    assert_eq!(conn.answer().status, 200);
}

#[test]
fn a_body_that_comes_after_its_answer_leaves_the_connection_alive() {
    let provider = Provider::new(chat("hello"));
    let gateway = locked(&provider);
    let key = gateway.key(KeySpec { models: Some(vec!["openai/*".to_owned()]), ..named("k") });
    let mut conn = Conn::open(gateway.addr);
    let length = format!("content-length: {}\r\n", BODY.len());
    for round in 0..3 {
        for (path, more, status) in [(CHAT, "", 401), ("/v1/models", "", 405), ("/api/nothing", "", 404)] {
            let answer = late(&mut conn, &head(path, &format!("{more}{length}")), BODY);
            assert_eq!((answer.status, answer.header("connection")), (status, None), "{round} {path}: {}", answer.head);
            lives(&mut conn);
            let chunked = [format!("{:x}\r\n", BODY.len()).as_bytes(), BODY, b"\r\n0\r\n\r\n"].concat();
            let answer = late(&mut conn, &head(path, &format!("{more}transfer-encoding: chunked\r\n")), &chunked);
            assert_eq!((answer.status, answer.header("connection")), (status, None), "{round} {path}: {}", answer.head);
            lives(&mut conn);
        }
    }
    // Many pieces, the last of them together with the next request.
    let pad = vec![b' '; 200_000];
    conn.send(&head(CHAT, &format!("content-length: {}\r\n", pad.len() + 1)));
    assert_eq!(conn.answer().status, 401);
    conn.send(&pad);
    let next = head(CHAT, &format!("authorization: Bearer {key}\r\n{length}"));
    conn.send(&[b" ", &next[..], BODY].concat());
    let answer = conn.answer();
    assert!(answer.status == 200 && answer.text().contains("hello"), "{}", answer.text());
    // Idle now, and not on the clock of a head that would have begun.
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(late(&mut conn, &head(CHAT, &length), BODY).status, 401);
    std::thread::sleep(Duration::from_millis(1200));
    lives(&mut conn);
}

#[test]
fn over_tls_it_is_the_same() {
    let certificate = Certificate::new();
    let gateway = certificate.on(Setup::new().with(|set| set.require_api_key = Some(true))).start();
    block_on(async {
        let mut client = certificate.connect(gateway.addr, "http/1.1").await.unwrap();
        for length in [BODY.len(), 4 << 20] {
            client.write_all(&head(CHAT, &format!("content-length: {length}\r\n"))).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"}}") {
                assert!(client.read_buf(&mut answer).await.unwrap() > 0);
            }
            let text = String::from_utf8(answer).unwrap();
            assert!(text.starts_with("HTTP/1.1 401 "), "{text}");
            assert_eq!(text.contains("connection: close"), length > BODY.len(), "{text}");
            client.write_all(&vec![b' '; length]).await.unwrap();
        }
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "closed in order");
    });
}

#[test]
fn half_a_body_that_was_enough_for_its_answer_leaves_the_connection_alive() {
    let provider = Provider::new(chat("never said"));
    let gateway = Setup::openai(&provider).start();
    let mut conn = Conn::open(gateway.addr);
    let file = vec![b'x'; 100 << 10];
    let head = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: g\r\ncontent-type: multipart/form-data; boundary=b\r\n\
         content-length: {}\r\n\r\n",
        file.len() + 100_000
    );
    for _ in 0..2 {
        let answer = late(&mut conn, &[head.as_bytes(), &file].concat(), &vec![b'x'; 100_000]);
        assert!(answer.status == 400 && answer.text().contains("64 KiB"), "{}", answer.text());
        assert_eq!(answer.header("connection"), None);
        lives(&mut conn);
    }
    assert_eq!(provider.calls(), 0);
}

#[test]
fn a_client_that_reads_only_after_it_has_sent_all_finds_its_answer() {
    let provider = Provider::new(chat("never said"));
    let gateway = locked(&provider);
    let key = gateway.key(named("k"));
    let (mine, no_key) = (format!("authorization: Bearer {key}\r\n"), String::new());
    for (auth, length, status) in [(&no_key, 16 << 20, 401), (&mine, 48 << 20, 413)] {
        let mut conn = Conn::open(gateway.addr);
        conn.send(&head(CHAT, &format!("{auth}content-length: {length}\r\n")));
        let piece = vec![b' '; 1 << 20];
        for sent in 0..length >> 20 {
            assert!(conn.try_send(&piece), "{status}: no more was taken after {sent} MiB");
        }
        let answer = conn.answer();
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{}", answer.head);
        assert!(conn.ends(), "closed, not reset");
    }
    // A head that can't be read, and a body after it.
    let mut conn = Conn::open(gateway.addr);
    conn.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nbad header\r\n\r\n");
    for _ in 0..20 {
        assert!(conn.try_send(&vec![b' '; 100_000]));
    }
    assert_eq!(conn.answer().status, 400);
    assert!(conn.ends());
    assert_eq!(provider.calls(), 0);
}

#[test]
fn a_client_that_waits_for_our_word_is_told_of_the_end() {
    let provider = Provider::new(chat("hello"));
    let gateway = locked(&provider);
    let key = gateway.key(named("k"));
    let expecting = format!("expect: 100-continue\r\ncontent-length: {}\r\n", BODY.len());
    let mut conn = Conn::open(gateway.addr);
    conn.send(&head(CHAT, &expecting));
    let answer = conn.answer();
    assert_eq!((answer.status, answer.header("connection")), (401, Some("close")), "{}", answer.head);
    assert!(conn.ends());
    // Who is let in is told to go on.
    let mut conn = Conn::open(gateway.addr);
    conn.send(&head(CHAT, &format!("{expecting}authorization: Bearer {key}\r\n")));
    assert_eq!(conn.answer().status, 100);
    conn.send(BODY);
    assert_eq!(conn.answer().status, 200);
    lives(&mut conn);
}

#[test]
fn a_body_without_end_is_cut_off_and_costs_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Process::start(dir.path(), &[("MERIDO_REQUIRE_API_KEY", "true")]);
    // The allocator's first touch of its pages is not what is measured.
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    let endless = |least: usize| {
        let mut conn = Conn::open(gateway.addr);
        let head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n";
        conn.send(head);
        let mut sent = 0;
        while conn.try_send(&chunk) {
            sent += chunk.len();
            assert!(sent < 256 << 20, "it takes without end");
        }
        assert!(sent > least, "cut off after {sent} bytes: a client that sends first would lose its answer");
    };
    endless(16 << 20);
    let before = gateway.resident_kb();
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(|| endless(1 << 20)))));
    let grown = gateway.resident_kb().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more after 8 bodies without end");
    assert_eq!(get(gateway.addr, "/healthz", "").status, 200);
}

#[test]
fn a_body_that_drips_is_cut_by_time() {
    let provider = Provider::new(chat("never said"));
    let gateway = locked(&provider);
    // One that would be read on, and one whose connection ends.
    for length in [100_000, 10 << 20] {
        let mut conn = Conn::open(gateway.addr);
        conn.send(&head(CHAT, &format!("content-length: {length}\r\n")));
        assert_eq!(conn.answer().status, 401);
        let drips = (0..400).take_while(|_| {
            std::thread::sleep(Duration::from_millis(25));
            conn.try_send(b" ")
        });
        let drips = drips.count();
        assert!(drips < 400, "after ten seconds it is still listened to");
        assert!(conn.closes());
    }
    // One that sends nothing more.
    let mut conn = Conn::open(gateway.addr);
    conn.send(&head(CHAT, "content-length: 10\r\n"));
    assert_eq!(conn.answer().status, 401);
    assert!(conn.closes());
}
