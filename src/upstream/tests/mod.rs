//! Calls over real sockets against a scripted peer. No test waits on the clock: deadlines pass by sweeping with a made-up
//! `now`.

mod deadlines;
mod differential;
mod reuse;
mod secure;
mod upload;

use super::*;
use crate::state::catalog::BaseUrl;
use http::{Method, StatusCode};
use std::future::poll_fn;
use std::sync::LazyLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A client, its alarms and a peer that does what the test says.
struct Rig {
    client: Client,
    alarms: Arc<Alarms>,
    listener: TcpListener,
    base: BaseUrl,
}

struct NoHeaders;

impl Headers for NoHeaders {
    fn visit(&self, put: &mut dyn FnMut(&str, &[u8])) {
        put("x-test", b"1");
    }
}

/// Reading the machine's roots takes tens of milliseconds: once is enough.
static TLS: LazyLock<TlsConfig> = LazyLock::new(|| tls_config(None).unwrap());

fn config() -> ClientConfig {
    ClientConfig {
        connect: Duration::from_secs(5),
        pool_idle: Duration::from_secs(50),
        max_idle_per_host: 4,
        tls: TLS.clone(),
    }
}

impl Rig {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = BaseUrl::parse(&format!("http://{}/v1", listener.local_addr().unwrap())).unwrap();
        let alarms = Arc::new(Alarms::default());
        Self { client: Client::new(config(), Arc::clone(&alarms)), alarms, listener, base }
    }

    fn call(&self, body: CallBody) -> Call<'_> {
        call(&self.base, body)
    }

    async fn get(&self, body: &'static [u8]) -> Result<Reply, CallError> {
        self.client.call(self.call(whole(body))).await
    }

    async fn accept(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// All deadlines pass.
    fn late(&self) {
        self.alarms.sweep(Clock::now() + Duration::from_secs(3600));
    }
}

fn call(base: &BaseUrl, body: CallBody) -> Call<'_> {
    Call {
        base,
        http2: false,
        method: &Method::POST,
        path: "/chat",
        headers: &NoHeaders,
        body,
        asked: Clock::now(),
        first_byte: Duration::from_secs(60),
        idle: Duration::from_secs(30),
    }
}

fn whole(body: &'static [u8]) -> CallBody {
    CallBody::Pieces(Bytes::from_static(body).into())
}

/// Reads one request whose length is announced; its head and body.
async fn request(peer: &mut TcpStream) -> (String, Vec<u8>) {
    let mut raw = Vec::new();
    let head = loop {
        if let Some(at) = memchr::memmem::find(&raw, b"\r\n\r\n") {
            break at + 4;
        }
        assert!(peer.read_buf(&mut raw).await.unwrap() > 0, "ended within a head");
    };
    let text = String::from_utf8(raw[..head].to_vec()).unwrap();
    let length = text.split("content-length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
    while raw.len() < head + length {
        assert!(peer.read_buf(&mut raw).await.unwrap() > 0, "ended within a body");
    }
    (text, raw.split_off(head))
}

/// Answers the next request of `peer`.
async fn answer(peer: &mut TcpStream, raw: &[u8]) -> (String, Vec<u8>) {
    let request = request(peer).await;
    peer.write_all(raw).await.unwrap();
    request
}

async fn next(body: &mut ReplyBody) -> Option<Result<Bytes, CallError>> {
    poll_fn(|cx| body.poll_data(cx)).await
}

async fn all(mut body: ReplyBody) -> Result<Vec<u8>, CallError> {
    let mut whole = Vec::new();
    while let Some(piece) = next(&mut body).await {
        let piece = piece?;
        assert!(!piece.is_empty(), "an empty piece would be an empty chunk at the client's: its end");
        whole.extend_from_slice(&piece);
    }
    assert!(next(&mut body).await.is_none(), "an end stays the end");
    Ok(whole)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn a_call_may_be_spawned_and_keeps_its_future_small() {
    fn is_send<T: Send>(value: &T) -> usize {
        size_of_val(value)
    }
    let client = Client::new(config(), Arc::default());
    let base = BaseUrl::parse("http://host").unwrap();
    let size = is_send(&client.call(call(&base, whole(b""))));
    assert!(size < 2048, "rides in every request's future: {size} bytes");
}

#[tokio::test]
async fn one_call_there_and_back() {
    let rig = Rig::new().await;
    let (reply, seen) = tokio::join!(rig.get(b"{}"), async { answer(&mut rig.accept().await, OK).await });
    let mut reply = reply.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.body.remaining_hint(), Some(2));
    assert_eq!(reply.body.take_complete().unwrap(), "ok");
    assert!(reply.body.is_end());
    assert!(seen.0.starts_with("POST /v1/chat HTTP/1.1\r\nhost: 127.0.0.1:"), "{}", seen.0);
    assert_eq!(seen.1, b"{}");
}

#[tokio::test]
async fn everything_one_read_brought_is_one_piece() {
    let rig = Rig::new().await;
    let (reply, mut peer) = tokio::join!(rig.get(b"{}"), async {
        let mut peer = rig.accept().await;
        answer(&mut peer, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        peer
    });
    let mut reply = reply.unwrap();
    assert!(reply.body.take_complete().is_none());
    let burst = b"9\r\ndata: xx\n\r\n".repeat(33);
    peer.write_all(&burst).await.unwrap();
    let first = next(&mut reply.body).await.unwrap().unwrap();
    assert_eq!(first.len(), 33 * 9, "33 chunks in one read");
    // A paced one leaves at once, and so does the end with its trailers.
    peer.write_all(b"3\r\nend\r\n").await.unwrap();
    assert_eq!(next(&mut reply.body).await.unwrap().unwrap(), "end");
    peer.write_all(b"0\r\nx-sum: 1\r\n\r\n").await.unwrap();
    assert!(next(&mut reply.body).await.is_none());
    assert_eq!(rig.client.stats(), Stats { open: 1, idle: 1 });
}

#[tokio::test]
async fn bulk_arrives_whole_and_in_large_pieces() {
    let rig = Rig::new().await;
    let bulk: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let serve = async {
        let mut peer = rig.accept().await;
        request(&mut peer).await;
        peer.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bulk.len()).as_bytes()).await.unwrap();
        peer.write_all(&bulk).await.unwrap();
    };
    let (got, ()) = tokio::join!(async { all(rig.get(b"{}").await.unwrap().body).await.unwrap() }, serve);
    assert!(got == bulk);
}
