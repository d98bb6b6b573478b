//! When a connection serves again, and when it must not.

use super::*;

/// One call answered with `raw` on a fresh connection: body (or error) and how many connections wait afterwards.
async fn after(raw: &[u8], close: bool) -> (Result<Vec<u8>, CallErrorKind>, usize) {
    let rig = Rig::new().await;
    let (got, peer) = tokio::join!(
        async {
            match rig.get(b"{}").await {
                Ok(reply) => all(reply.body).await.map_err(|e| e.kind),
                Err(error) => Err(error.kind),
            }
        },
        async {
            let mut peer = rig.accept().await;
            answer(&mut peer, raw).await;
            (!close).then_some(peer)
        }
    );
    let idle = rig.client.stats().idle;
    assert_eq!(rig.client.stats().open, idle, "what does not wait is closed");
    drop(peer);
    (got, idle)
}

#[tokio::test]
async fn a_clean_end_gives_the_connection_back_and_any_doubt_closes_it() {
    let ok = |body: &[u8]| Ok(body.to_vec());
    assert_eq!(after(OK, false).await, (ok(b"ok"), 1));
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\na: b\r\n\r\n";
    assert_eq!(after(chunked, false).await, (ok(b"ok"), 1));
    assert_eq!(after(b"HTTP/1.1 204 No Content\r\n\r\n", false).await, (ok(b""), 1));
    let interim = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(after(interim, false).await, (ok(b"ok"), 1));

    let close = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(after(close, false).await, (ok(b"ok"), 0));
    assert_eq!(after(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", false).await, (ok(b"ok"), 0));
    assert_eq!(after(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", true).await, (ok(b"until the end"), 0));
    let excess = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n";
    assert_eq!(after(excess, false).await, (ok(b"ok"), 0), "bytes nobody asked for");
    assert_eq!(after(b"HTTP/1.1 204 No Content\r\n\r\nx", false).await, (ok(b""), 0));
}

#[tokio::test]
async fn broken_answers_are_errors() {
    let is = |raw: &'static [u8]| async move { after(raw, true).await.0.unwrap_err() };
    assert_eq!(is(b"").await, CallErrorKind::Closed);
    assert_eq!(is(b"HTTP/1.1 200").await, CallErrorKind::Truncated);
    assert_eq!(is(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab").await, CallErrorKind::Truncated);
    let cut = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
    assert_eq!(is(cut).await, CallErrorKind::Truncated);
    assert!(matches!(is(b"HTTP/1.1 101 Switching\r\n\r\n").await, CallErrorKind::Protocol(_)));
    assert!(matches!(is(b"SSH-2.0-x\r\n").await, CallErrorKind::Protocol(_)));
    let interim: &[u8] = &b"HTTP/1.1 100 Continue\r\n\r\n".repeat(9);
    assert!(matches!(after(interim, true).await.0, Err(CallErrorKind::Protocol(_))), "no endless interim answers");
}

#[tokio::test]
async fn one_connection_serves_call_after_call() {
    let rig = Rig::new().await;
    let serve = async {
        let mut peer = rig.accept().await;
        for _ in 0..50 {
            answer(&mut peer, OK).await;
        }
        peer
    };
    let calls = async {
        for n in 0..50 {
            let mut reply = rig.get(b"{}").await.unwrap();
            assert_eq!(reply.reused, n > 0);
            assert_eq!(reply.body.take_complete().unwrap(), "ok");
        }
    };
    let ((), _peer) = tokio::join!(calls, serve);
    assert_eq!(rig.client.stats(), Stats { open: 1, idle: 1 });
}

#[tokio::test]
async fn a_connection_that_dies_under_a_call_is_replaced_once() {
    let rig = Rig::new().await;
    let serve = async {
        let mut first = rig.accept().await;
        answer(&mut first, OK).await;
        // The next request is read and never answered: only a real death under the call looks like this.
        request(&mut first).await;
        drop(first);
        let mut second = rig.accept().await;
        answer(&mut second, OK).await;
        request(&mut second).await;
        drop(second);
        // The replacement of the third call dies, too: that is an answer.
        request(&mut rig.accept().await).await;
    };
    let calls = async {
        assert!(!rig.get(b"1").await.unwrap().reused);
        let second = rig.get(b"2").await.unwrap();
        assert!(!second.reused, "served by the fresh connection");
        let error = rig.get(b"3").await.unwrap_err();
        assert_eq!((error.kind, error.sent), (CallErrorKind::Closed, true));
    };
    tokio::join!(calls, serve);
    assert_eq!(rig.client.stats(), Stats::default());
}

#[tokio::test]
async fn a_pooled_connection_its_host_closed_or_spoke_on_is_not_used() {
    for closing in [true, false] {
        let rig = Rig::new().await;
        let (_, mut first) = tokio::join!(rig.get(b"1"), async {
            let mut peer = rig.accept().await;
            answer(&mut peer, OK).await;
            peer
        });
        assert_eq!(rig.client.stats().idle, 1);
        let serve = async {
            let first = if closing {
                drop(first);
                None
            } else {
                first.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
                Some(first)
            };
            // Its client learns of it through the reactor before it goes on.
            while rig.client.stats().idle > 0 {
                rig.client.sweep(Clock::now());
                tokio::task::yield_now().await;
            }
            first
        };
        let _first = serve.await;
        let (reply, _) = tokio::join!(rig.get(b"2"), async { answer(&mut rig.accept().await, OK).await });
        assert!(!reply.unwrap().reused);
    }
}

#[tokio::test]
async fn idle_connections_are_swept_and_bounded() {
    let rig = Rig::new().await;
    let mut replies = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..6 {
        let (reply, peer) = tokio::join!(rig.get(b"1"), async {
            let mut peer = rig.accept().await;
            answer(&mut peer, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
            peer
        });
        replies.push(reply.unwrap());
        peers.push(peer);
    }
    assert_eq!(rig.client.stats(), Stats { open: 6, idle: 0 });
    for (reply, peer) in replies.into_iter().zip(&mut peers) {
        peer.write_all(b"ok").await.unwrap();
        assert_eq!(all(reply.body).await.unwrap(), b"ok");
    }
    assert_eq!(rig.client.stats(), Stats { open: 4, idle: 4 }, "four wait per host");
    let now = Clock::now();
    rig.client.sweep(now + Duration::from_secs(40));
    assert_eq!(rig.client.stats().idle, 4);
    rig.client.sweep(now + Duration::from_secs(60));
    assert_eq!(rig.client.stats(), Stats::default());
}

#[tokio::test]
async fn dropping_a_call_or_its_body_closes_the_connection() {
    let rig = Rig::new().await;
    let mut buf = [0; 1];
    // The call: dropped while it waits for the head.
    let mut peer = {
        let mut call = Box::pin(rig.get(b"1"));
        let mut peer = tokio::select! {
            _ = &mut call => panic!("nobody answered"),
            peer = async {
                let mut peer = rig.accept().await;
                request(&mut peer).await;
                peer
            } => peer,
        };
        assert_eq!(rig.client.stats().open, 1);
        drop(call);
        assert_eq!(peer.read(&mut buf).await.unwrap(), 0, "the provider sees the end");
        peer = rig_body(&rig).await;
        peer
    };
    // The body: dropped after its first piece.
    assert_eq!(peer.read(&mut buf).await.unwrap(), 0);
    assert_eq!(rig.client.stats(), Stats::default());
}

/// A call whose body is dropped after its first piece; the peer.
async fn rig_body(rig: &Rig) -> TcpStream {
    let (reply, peer) = tokio::join!(rig.get(b"1"), async {
        let mut peer = rig.accept().await;
        answer(&mut peer, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n").await;
        peer
    });
    let mut reply = reply.unwrap();
    assert_eq!(next(&mut reply.body).await.unwrap().unwrap(), "ok");
    peer
}
