//! Request bodies: large, streamed, refused half-way.

use super::*;
use crate::base::Pieces;
use http_body_util::{BodyExt, channel::Channel};
use std::pin::Pin;

fn big() -> Pieces {
    (0..6u8).map(|n| Bytes::from(vec![b'a' + n; 700_000])).collect()
}

#[tokio::test]
async fn large_bodies_go_out_in_pieces() {
    let rig = Rig::new().await;
    let (reply, seen) = tokio::join!(rig.client.call(rig.call(CallBody::Pieces(big()))), async {
        answer(&mut rig.accept().await, OK).await
    });
    assert!(seen.1 == big().as_slice().concat());
    assert_eq!(all(reply.unwrap().body).await.unwrap(), b"ok");
}

#[tokio::test]
async fn an_early_refusal_is_the_answer() {
    let rig = Rig::new().await;
    let body = CallBody::Pieces((0..4).map(|_| Bytes::from(vec![0; 8_000_000])).collect());
    let (reply, ()) = tokio::join!(rig.client.call(rig.call(body)), async {
        let mut peer = rig.accept().await;
        let mut some = [0; 1000];
        peer.read_exact(&mut some).await.unwrap();
        peer.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig").await.unwrap();
        // Half-closed: closing outright would reset the connection and may take the answer with it.
        peer.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = peer.read_to_end(&mut rest).await;
        assert!(rest.len() < 32_000_000, "the rest is not sent any more");
    });
    let mut reply = reply.unwrap();
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(reply.body.take_complete().unwrap(), "big");
    assert_eq!(rig.client.stats(), Stats::default(), "never used again");
}

async fn chunked(peer: &mut TcpStream) -> Vec<u8> {
    let mut raw = Vec::new();
    while !raw.ends_with(b"0\r\n\r\n") {
        assert!(peer.read_buf(&mut raw).await.unwrap() > 0);
    }
    raw
}

#[tokio::test]
async fn a_stream_without_a_length_is_relayed_in_chunks_as_it_comes() {
    let rig = Rig::new().await;
    let (mut send, body) = Channel::<Bytes, BodyError>::new(1);
    let (reply, raw) = tokio::join!(rig.client.call(rig.call(CallBody::Stream(Box::pin(body), None))), async {
        let mut peer = rig.accept().await;
        send.send_data(Bytes::from_static(b"hello")).await.unwrap();
        let mut raw = Vec::new();
        // Only once the first part has arrived is there a second one.
        while !raw.ends_with(b"hello") {
            assert!(peer.read_buf(&mut raw).await.unwrap() > 0);
        }
        send.send_data(Bytes::from(vec![b'x'; 26])).await.unwrap();
        drop(send);
        raw.extend(chunked(&mut peer).await);
        peer.write_all(OK).await.unwrap();
        raw
    });
    let raw = String::from_utf8(raw).unwrap();
    let (head, body) = raw.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"), "{head}");
    assert_eq!(body, format!("5\r\nhello\r\n1a\r\n{}\r\n0\r\n\r\n", "x".repeat(26)));
    assert_eq!(reply.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn an_empty_stream_is_an_empty_chunked_body() {
    let rig = Rig::new().await;
    let body = http_body_util::Empty::new().map_err(|never| match never {});
    let (reply, raw) = tokio::join!(rig.client.call(rig.call(CallBody::Stream(Box::pin(body), None))), async {
        let mut peer = rig.accept().await;
        let raw = chunked(&mut peer).await;
        peer.write_all(OK).await.unwrap();
        raw
    });
    assert!(raw.ends_with(b"\r\n\r\n0\r\n\r\n"));
    assert!(reply.is_ok());
}

struct Never;

impl http_body::Body for Never {
    type Data = Bytes;
    type Error = BodyError;
    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn a_slow_client_is_no_fault_of_the_providers_but_an_early_answer_is_still_heard() {
    let rig = Rig::new().await;
    let (reply, ()) = tokio::join!(rig.client.call(rig.call(CallBody::Stream(Box::pin(Never), Some(10)))), async {
        let mut peer = rig.accept().await;
        let mut some = [0; 16];
        peer.read_exact(&mut some).await.unwrap();
        rig.late();
        peer.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    });
    assert_eq!(reply.unwrap().status, StatusCode::UNAUTHORIZED);
    assert_eq!(rig.client.stats(), Stats::default());
}

#[tokio::test]
async fn a_stream_that_breaks_off_or_lies_about_its_length_is_the_clients_fault() {
    let part = |text: &'static str| Ok::<_, BodyError>(http_body::Frame::data(Bytes::from_static(text.as_bytes())));
    let cases: [(Vec<Result<http_body::Frame<Bytes>, BodyError>>, Option<u64>); 3] = [
        (vec![part("ab"), Err("the client left".into())], None),
        (vec![part("ab")], Some(3)),
        (vec![part("abcd")], Some(3)),
    ];
    for (parts, length) in cases {
        let rig = Rig::new().await;
        let body = Parts(parts.into_iter());
        let (reply, _peer) =
            tokio::join!(rig.client.call(rig.call(CallBody::Stream(Box::pin(body), length))), rig.accept());
        assert_eq!(reply.unwrap_err().kind, CallErrorKind::ClientBody);
        assert_eq!(rig.client.stats(), Stats::default());
    }
}

struct Parts(std::vec::IntoIter<Result<http_body::Frame<Bytes>, BodyError>>);

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = BodyError;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.next())
    }
}
