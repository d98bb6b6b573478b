//! Deadlines pass when the core's ticker says so, each under its own name.

use super::*;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";

#[tokio::test]
async fn no_head_in_time() {
    let rig = Rig::new().await;
    let (reply, _peer) = tokio::join!(rig.get(b"1"), async {
        let mut peer = rig.accept().await;
        request(&mut peer).await;
        rig.late();
        peer
    });
    let error = reply.unwrap_err();
    assert_eq!((error.kind, error.sent), (CallErrorKind::Timeout(Deadline::FirstByte), true));
    assert_eq!(rig.client.stats(), Stats::default(), "its connection is closed, and no other was tried");
}

#[tokio::test]
async fn a_deadline_that_is_not_due_does_nothing() {
    let rig = Rig::new().await;
    let (reply, ()) = tokio::join!(rig.get(b"1"), async {
        let mut peer = rig.accept().await;
        request(&mut peer).await;
        rig.alarms.sweep(Clock::now() + Duration::from_secs(50));
        peer.write_all(OK).await.unwrap();
    });
    assert!(reply.is_ok());
}

#[tokio::test]
async fn silence_within_a_body() {
    let rig = Rig::new().await;
    let (reply, mut peer) = tokio::join!(rig.get(b"1"), async {
        let mut peer = rig.accept().await;
        answer(&mut peer, HEAD).await;
        peer
    });
    let mut body = reply.unwrap().body;
    peer.write_all(b"abc").await.unwrap();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "abc");
    let (end, ()) = tokio::join!(next(&mut body), async {
        rig.alarms.sweep(Clock::now() + Duration::from_secs(25));
        rig.alarms.sweep(Clock::now() + Duration::from_secs(35));
    });
    assert_eq!(end.unwrap().unwrap_err().kind, CallErrorKind::Timeout(Deadline::Idle));
    assert!(next(&mut body).await.is_none());
    assert_eq!(rig.client.stats(), Stats::default());
}

#[tokio::test]
async fn a_pooled_connection_has_no_deadline_left() {
    let rig = Rig::new().await;
    let (_, mut peer) = tokio::join!(rig.get(b"1"), async {
        let mut peer = rig.accept().await;
        answer(&mut peer, OK).await;
        peer
    });
    rig.late();
    let (reply, _) = tokio::join!(rig.get(b"2"), answer(&mut peer, OK));
    assert!(reply.unwrap().reused);
}

#[tokio::test]
async fn nobody_listens() {
    let rig = Rig::new().await;
    let base = rig.base.clone();
    let Rig { client, listener, .. } = rig;
    drop(listener);
    let error = client.call(call(&base, whole(b"1"))).await.unwrap_err();
    assert_eq!((error.kind, error.sent), (CallErrorKind::Connect, false));
    assert!(error.cause.is_some());
}
