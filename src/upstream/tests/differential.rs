//! The same bytes to hyper's client and to ours: both must read the same answer, or ours must refuse.
//!
//! Ours is stricter on purpose, see [`STRICTER`]. It never accepts what hyper refuses and never reads another body.

use super::*;
use crate::upstream::h1::tests_fuzz::{CORPUS, Random, mutate};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;

type Read = Option<(u16, Vec<u8>)>;

/// What both read alike.
const ALIKE: &[(&str, bool)] = &[
    ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
    ("HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", true),
    ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok", true),
    ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more", true),
    ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
    ("HTTP/1.1 200 OK\r\n\r\nuntil the end", true),
    ("HTTP/1.0 200 OK\r\n\r\nuntil the end", true),
    ("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", true),
    ("HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n", true),
    ("HTTP/1.1 500 Oh No\r\ncontent-length: 1\r\n\r\nx", true),
    ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
    ("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: CHUNKED\r\n\r\n02 ;x=\"y\"\r\nok\r\n00\r\n\r\n", true),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nsum: 1\r\n\r\n", true),
    ("HTTP/1.1 200 OK\r\nx:  \t spaced \t\r\ncontent-length: 2\r\n\r\nok", true),
    ("", false),
    ("HTTP/1.1 200 OK\r\n", false),
    ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", false),
    ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", false),
    ("HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok", false),
    ("HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok", false),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", false),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokx\r\n0\r\n\r\n", false),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n", false),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nok", false),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a\nb\r\nok\r\n0\r\n\r\n", false),
    ("HTTP/1.1 200 OK\r\na: b\r\n folded\r\ncontent-length: 2\r\n\r\nok", false),
    ("HTTP/1.1 200 OK\r\na : b\r\ncontent-length: 2\r\n\r\nok", false),
    ("HTTP/1.1 200 OK\r\na: \0\r\ncontent-length: 2\r\n\r\nok", false),
    ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", false),
    ("HTTP/2.0 200 OK\r\n\r\n", false),
];

/// What hyper reads and we refuse, each with its reason.
const STRICTER: &[(&str, &str)] = &[
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "two framings: smuggling's first tool",
    ),
    ("HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok", "a list is no length"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "we would relay gzip as if it were not"),
    ("HTTP/1.1 200 OK\ncontent-length: 2\n\nok", "bare LF: others may see another line end"),
    ("\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "bytes before an answer belong to no request"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n00000000000000002\r\nok\r\n0\r\n\r\n", "17 digits of size"),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;\0\r\nok\r\n0\r\n\r\n",
        "control characters in an extension",
    ),
];

/// One connection: takes a request, answers `raw`, closes once the client is through.
async fn serve(listener: &TcpListener, raw: &[u8]) {
    let mut peer = listener.accept().await.unwrap().0;
    request(&mut peer).await;
    let _ = peer.write_all(raw).await;
    let _ = peer.shutdown().await;
    let _ = peer.read_to_end(&mut Vec::new()).await;
}

async fn ours(raw: &[u8]) -> Read {
    let rig = Rig::new().await;
    let get = async {
        let reply = rig.get(b"").await.ok()?;
        let status = reply.status.as_u16();
        let body = all(reply.body).await.ok()?;
        // Idle or gone, the peer waits for its end.
        rig.client.sweep(Clock::now() + Duration::from_secs(3600));
        Some((status, body))
    };
    tokio::join!(get, serve(&rig.listener, raw)).0
}

async fn hypers(raw: &[u8]) -> Read {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let get = async {
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.unwrap();
        let connection = crate::base::tasks::spawn("test-hyper", connection);
        let request = hyper::Request::post("/").header("host", "x").header("content-length", "0");
        let read = async {
            let reply = send.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.ok()?;
            let status = reply.status().as_u16();
            Some((status, reply.into_body().collect().await.ok()?.to_bytes().to_vec()))
        }
        .await;
        drop(send);
        connection.abort();
        read
    };
    tokio::join!(get, serve(&listener, raw)).0
}

#[tokio::test]
async fn both_read_the_same_or_both_refuse() {
    for (raw, accepted) in ALIKE {
        let (ours, hypers) = (ours(raw.as_bytes()).await, hypers(raw.as_bytes()).await);
        assert_eq!(ours, hypers, "{raw:?}");
        assert_eq!(ours.is_some(), *accepted, "{raw:?}");
    }
}

#[tokio::test]
async fn where_ours_is_stricter() {
    for (raw, why) in STRICTER {
        assert!(hypers(raw.as_bytes()).await.is_some(), "hyper refuses it by now, too: {raw:?}");
        assert_eq!(ours(raw.as_bytes()).await, None, "{why}: {raw:?}");
    }
}

#[tokio::test]
async fn no_mutant_is_read_otherwise_than_hyper_reads_it() {
    let mut read = 0;
    for seed in 0..600 {
        let mut random = Random::new(seed);
        let mut raw = CORPUS[random.below(CORPUS.len())].to_vec();
        mutate(&mut raw, &mut random);
        if let Some(mine) = ours(&raw).await {
            read += 1;
            assert_eq!(Some(mine), hypers(&raw).await, "seed {seed}: {}", raw.escape_ascii());
        }
    }
    assert!(read > 50, "mutants that nobody can read test nothing: {read}");
}
