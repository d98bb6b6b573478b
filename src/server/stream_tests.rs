//! A connection whose streams wait wherever they like, over a socket that takes as little as it likes: what arrives is
//! what was sent, in order, and the connection goes on where it may.

use crate::base::alarms::Alarms;
use crate::base::tasks::{DrainSwitch, Phase, spawn};
use crate::server::body::{Answering, Cut, frame};
use crate::server::conn::{self, ConnTimeouts};
use crate::server::{Body, Handler, Incoming, Peer, Source};
use bytes::Bytes;
use hyper::{Request, Response};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

const LONG: Duration = Duration::from_secs(60);
/// A body that comes in many reads, and is not to come in many more.
const LARGE: usize = 1 << 20;

#[derive(Clone, Debug)]
enum Step {
    Wait,
    /// For ever, and wakes nobody.
    Sleep,
    Say(usize),
    Break,
}

/// Answers request `/n` with the nth script.
struct Scripts {
    scripts: Vec<Vec<Step>>,
    open: Arc<AtomicUsize>,
}

struct Told {
    steps: VecDeque<Step>,
    from: usize,
    open: Arc<AtomicUsize>,
}

impl Source for Told {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        match self.steps.pop_front() {
            None => Poll::Ready(None),
            Some(Step::Break) => Poll::Ready(Some(Err(Cut))),
            Some(Step::Say(length)) => {
                let text = text(self.from, length);
                self.from += length;
                Poll::Ready(Some(Ok(text.into())))
            }
            Some(Step::Sleep) => {
                self.steps.push_front(Step::Sleep);
                Poll::Pending
            }
            Some(Step::Wait) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Handler for Scripts {
    fn handle(self: Arc<Self>, request: Request<Incoming>, _: Peer) -> Answering {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            assert!(parts.method == "POST" || parts.method == "HEAD", "a body's rest was taken for a head");
            if parts.uri.query().is_none() {
                let (mut body, mut pieces, mut length) = (body, 0, 0);
                while let Some(piece) = frame(&mut body, LONG).await.unwrap() {
                    assert!(piece.iter().all(|byte| *byte == b'q'), "another request's bytes");
                    (pieces, length) = (pieces + 1, length + piece.len());
                }
                assert!(length < LARGE || pieces < length / 1000, "{length} bytes in {pieces} pieces");
            } else {
                drop(body); // an answer from the head alone
            }
            let steps = self.scripts[parts.uri.path()[1..].parse::<usize>().unwrap()].clone();
            self.open.fetch_add(1, Ordering::Relaxed);
            Response::new(Body::stream(Told { steps: steps.into(), from: 0, open: Arc::clone(&self.open) }))
        })
    }
}

/// Bytes `from..` of what every stream says: no two places of it look alike.
fn text(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|n| b'a' + (n % 23 + n / 1000 % 3) as u8).collect()
}

fn said(script: &[Step]) -> Vec<u8> {
    text(0, script.iter().map(|step| if let Step::Say(length) = step { *length } else { 0 }).sum())
}

/// One whole answer: head and payload; and whether it ended as it should.
async fn answer(client: &mut (impl AsyncRead + Unpin), seen: &mut Vec<u8>, chunked: bool) -> (String, Vec<u8>, bool) {
    let (mut head, mut body) = (None, Vec::new());
    loop {
        if head.is_none()
            && let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n")
        {
            head = Some(String::from_utf8(seen.drain(..end + 4).collect()).unwrap());
        }
        while chunked && head.is_some() {
            let Some(end) = seen.windows(2).position(|two| two == b"\r\n") else { break };
            let size = usize::from_str_radix(std::str::from_utf8(&seen[..end]).unwrap(), 16).unwrap();
            if seen.len() < end + 2 + size + 2 {
                break;
            }
            assert_eq!(&seen[end + 2 + size..][..2], b"\r\n");
            body.extend_from_slice(&seen[end + 2..end + 2 + size]);
            seen.drain(..end + 4 + size);
            if size == 0 {
                return (head.unwrap_or_default(), body, true);
            }
        }
        if client.read_buf(seen).await.unwrap() == 0 {
            if !chunked {
                body.append(seen);
            }
            return (head.unwrap_or_default(), body, !chunked);
        }
    }
}

/// Runs `with` as the client of a connection that answers by `scripts`, over a socket that holds `room` bytes.
fn connection<F: Future<Output = ()>>(
    scripts: Vec<Vec<Step>>,
    room: usize,
    with: impl FnOnce(DuplexStream, DrainSwitch) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (client, server) = tokio::io::duplex(room);
        let open = Arc::new(AtomicUsize::new(0));
        let handler = Arc::new(Scripts { scripts, open: Arc::clone(&open) });
        let peer = Peer { addr: "127.0.0.1:1".parse().unwrap(), control_only: false };
        let timeouts = ConnTimeouts { head: LONG, idle: LONG, write: LONG };
        let switch = DrainSwitch::new();
        let drain = switch.drain();
        let state = Arc::downgrade(&handler);
        let served = spawn("server", conn::run(server, peer, handler, Arc::<Alarms>::default(), timeouts, drain));
        tokio::time::timeout(LONG / 2, with(client, switch)).await.unwrap();
        tokio::time::timeout(LONG / 2, served).await.unwrap().unwrap();
        assert_eq!(open.load(Ordering::Relaxed), 0, "every stream was dropped");
        assert!(state.upgrade().is_none(), "and nothing holds the connection");
    });
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Wait),
        4 => (1_usize..300).prop_map(Step::Say),
        1 => (4000_usize..5000).prop_map(Step::Say),
        1 => (60_000_usize..70_000).prop_map(Step::Say),
        1 => Just(Step::Say(0)),
    ];
    prop::collection::vec(step, 0..12)
}

fn ask(n: usize, body: usize, chunked: bool, more: &str) -> Vec<u8> {
    let body = "q".repeat(body);
    if chunked && !body.is_empty() {
        let length = body.len();
        return format!(
            "POST /{n} HTTP/1.1\r\nhost: x\r\n{more}transfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        )
        .into_bytes();
    }
    format!("POST /{n} HTTP/1.1\r\nhost: x\r\n{more}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streams_arrive_whole_and_the_connection_goes_on(
        scripts in prop::collection::vec((steps(), 0_usize..5000, any::<bool>()), 1..5),
        room in prop_oneof![1_usize..64, 1000_usize..5000, Just(1_usize << 20)],
        ahead in prop_oneof![Just(0_usize), 1_usize..6000],
    ) {
        let asked: Vec<_> = scripts.iter().enumerate().map(|(n, (_, body, chunked))| ask(n, *body, *chunked, "")).collect();
        let expected: Vec<_> = scripts.iter().map(|(script, ..)| said(script)).collect();
        let scripts = scripts.into_iter().map(|(script, ..)| script).collect();
        connection(scripts, room, |client, _| async move {
            let (mut reading, mut writing) = tokio::io::split(client);
            let sent = Arc::new(tokio::sync::Semaphore::new(0));
            let may = Arc::clone(&sent);
            // Each request whole, and so many bytes of those after it while its answer is still on the way.
            let writer = spawn("writer", async move {
                let all: Vec<u8> = asked.concat();
                let (mut at, mut until) = (0, 0);
                for one in &asked {
                    until += one.len();
                    let to = (until + ahead).min(all.len());
                    if to > at {
                        writing.write_all(&all[at..to]).await.unwrap();
                        at = to;
                    }
                    may.acquire().await.unwrap().forget();
                }
                writing
            });
            let mut seen = Vec::new();
            for expected in &expected {
                let (head, body, whole) = answer(&mut reading, &mut seen, true).await;
                assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("transfer-encoding: chunked"), "{head}");
                assert!(whole && body == *expected, "{} of {} bytes", body.len(), expected.len());
                sent.add_permits(1);
            }
            assert!(seen.is_empty());
            drop((reading, writer.await.unwrap()));
        });
    }
}

const SLOW: [Step; 5] = [Step::Wait, Step::Say(10), Step::Wait, Step::Wait, Step::Say(5000)];

#[test]
fn who_asks_for_an_end_gets_one() {
    let both = "transfer-encoding: chunked\r\n";
    for (more, chunked) in [
        ("connection: close\r\n", true),
        ("connection: Keep-Alive, close\r\n", true),
        ("connection: keep-alive\r\nconnection: close\r\n", true),
        (both, true),
        ("", false),
    ] {
        connection(vec![SLOW.to_vec()], 1 << 20, |mut client, _| async move {
            let mut asked = String::from_utf8(ask(0, 3, false, more)).unwrap();
            if more == both {
                asked = asked.replace("qqq", "3\r\nqqq\r\n0\r\n\r\n");
            }
            if !chunked {
                asked = asked.replace("HTTP/1.1", "HTTP/1.0");
            }
            client.write_all(asked.as_bytes()).await.unwrap();
            let mut seen = Vec::new();
            let (head, body, whole) = answer(&mut client, &mut seen, chunked).await;
            assert_eq!(head.contains("transfer-encoding"), chunked, "{head}");
            assert!(whole && body == said(&SLOW));
            assert_eq!(client.read_buf(&mut seen).await.unwrap(), 0, "closed, with nothing more: {seen:?}");
        });
    }
}

#[test]
fn an_answer_from_the_head_alone_is_no_end_for_the_rest_of_its_request() {
    connection(vec![SLOW.to_vec(), SLOW.to_vec()], 1 << 20, |mut client, _| async move {
        let first = String::from_utf8(ask(0, 3000, false, "")).unwrap().replace("/0", "/0?");
        let (mut seen, second) = (Vec::new(), ask(1, 3, false, ""));
        client.write_all(&first.as_bytes()[..2000]).await.unwrap();
        client.read_buf(&mut seen).await.unwrap();
        client.write_all(&first.as_bytes()[2000..]).await.unwrap();
        for asked in [&[][..], &second] {
            client.write_all(asked).await.unwrap();
            let (_, body, whole) = answer(&mut client, &mut seen, true).await;
            assert!(whole && body == said(&SLOW));
        }
    });
}

#[test]
fn a_large_body_comes_in_large_pieces() {
    connection(vec![SLOW.to_vec()], 64 << 10, |mut client, _| async move {
        client.write_all(&ask(0, LARGE, false, "")).await.unwrap();
        let (_, body, whole) = answer(&mut client, &mut Vec::new(), true).await;
        assert!(whole && body == said(&SLOW));
    });
}

#[test]
fn a_head_request_gets_a_head() {
    connection(vec![SLOW.to_vec(), SLOW.to_vec()], 1 << 20, |mut client, _| async move {
        client.write_all(b"HEAD /0 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            client.read_buf(&mut seen).await.unwrap();
        }
        seen.clear();
        client.write_all(&ask(1, 3, false, "connection: keep-alive\r\n")).await.unwrap();
        let (_, body, whole) = answer(&mut client, &mut seen, true).await;
        assert!(whole && body == said(&SLOW));
    });
}

#[test]
fn a_stream_that_breaks_cuts_the_connection() {
    for script in [
        vec![Step::Say(3), Step::Wait, Step::Break],
        vec![Step::Wait, Step::Say(3), Step::Wait, Step::Say(9000), Step::Break],
    ] {
        connection(vec![script.clone()], 1 << 20, |mut client, _| async move {
            client.write_all(&ask(0, 3, false, "")).await.unwrap();
            let (_, body, whole) = answer(&mut client, &mut Vec::new(), true).await;
            assert!(!whole, "nobody takes it for whole");
            assert!(said(&script).starts_with(&body));
        });
    }
}

#[test]
fn a_client_that_leaves_takes_its_stream_along() {
    let endless = [vec![Step::Wait; 3], vec![Step::Say(100); 40_000]].concat();
    let waiting = vec![Step::Wait, Step::Wait, Step::Sleep];
    // Written to no end, and waiting for nobody; before hyper has let go of it and after.
    for (script, room, reads) in
        [(&endless, 64, 0), (&endless, 64, 2000), (&waiting, 1 << 20, 0), (&waiting, 1 << 20, 20)]
    {
        connection(vec![script.clone()], room, |mut client, _| async move {
            client.write_all(&ask(0, 3, false, "")).await.unwrap();
            client.read_exact(&mut vec![0; reads]).await.unwrap();
            drop(client);
        });
    }
}

#[test]
fn trailers_or_an_unread_body_do_not_hide_a_client_that_leaves() {
    let trailers = "POST /0 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nqqq\r\n0\r\nx: y\r\n\r\n";
    let unread = "POST /0? HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nqqq";
    for asked in [trailers, unread] {
        connection(vec![vec![Step::Wait, Step::Say(3), Step::Sleep]], 1 << 20, |mut client, _| async move {
            client.write_all(asked.as_bytes()).await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"abc\r\n") {
                client.read_buf(&mut seen).await.unwrap();
            }
            tokio::task::yield_now().await;
            drop(client);
        });
    }
}

#[test]
fn the_last_stream_before_the_end_is_whole_and_the_last_thing() {
    connection(vec![SLOW.to_vec()], 64, |mut client, switch| async move {
        client.write_all(&ask(0, 3, false, "")).await.unwrap();
        let mut seen = Vec::new();
        client.read_buf(&mut seen).await.unwrap();
        switch.advance(Phase::Finish);
        let (_, body, whole) = answer(&mut client, &mut seen, true).await;
        assert!(whole && body == said(&SLOW));
        assert_eq!(client.read_buf(&mut seen).await.unwrap(), 0, "closed in order");
    });
}
