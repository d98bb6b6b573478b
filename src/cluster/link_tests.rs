//! The link against a real server: scripts, deadlines, everything that counts as down, and the way back.

use super::*;
use crate::cluster::call::{Script, script};
use crate::cluster::codec::Names;
use crate::cluster::testing::RedisServer;
use redis::Value;

static PROBE: Script = script!("probe.lua");

/// A link that waits up to `deadline`, and where it publishes.
fn link(url: &str, deadline: Duration) -> (Link, Arc<Reach>) {
    let reach = Arc::new(Reach::new());
    let connector = Connector::new(url, None).unwrap();
    (Link::new(connector, "test", Names::new("t").probe(), deadline, Arc::clone(&reach)), reach)
}

/// Drives it until it is as wanted, or ten seconds have passed.
async fn until(link: &mut Link, up: bool) {
    let driven = async {
        while link.is_up() != up {
            tokio::select! {
                _ = link.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => link.beat().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), driven).await.unwrap_or_else(|_| panic!("never up = {up}"));
}

#[tokio::test]
async fn a_script_that_the_server_does_not_know_is_loaded_on_the_way() {
    let server = RedisServer::start();
    let (mut link, reach) = link(&server.url(), Duration::from_secs(5));
    until(&mut link, true).await;
    assert!(reach.is_up());
    let names = Names::new("t");
    let calls =
        [Call::new("SET", b"a").arg("a").arg(1), PROBE.call(&[&names.probe()]), Call::new("GET", b"a").arg("a")];
    for _ in 0..2 {
        let answers = link.round(&calls).await;
        assert_eq!(answers[0], Ok(Value::Okay));
        assert!(matches!(answers[1], Ok(Value::Int(micros)) if micros > 1_600_000_000_000_000), "{answers:?}");
        assert_eq!(answers[2], Ok(Value::BulkString(b"1".to_vec())));
        server.command("SCRIPT FLUSH");
    }
}

/// What a round comes to, and the reason published after it.
async fn tried(link: &mut Link, reach: &Reach) -> (Answer, Option<Box<str>>) {
    let answer = link.round(&[PROBE.call(&[b"t:x"])]).await.remove(0);
    (answer, reach.report().reason)
}

#[tokio::test]
async fn whatever_befalls_the_server_is_noticed_and_it_is_found_again() {
    let mut server = RedisServer::start();
    let (mut link, reach) = link(&server.url(), Duration::from_millis(500));
    until(&mut link, true).await;

    server.kill();
    assert_eq!(tried(&mut link, &reach).await.0, Err(Fault::Down));
    assert!(!reach.is_up() && !link.is_up());
    server.revive();
    until(&mut link, true).await;
    assert!(matches!(tried(&mut link, &reach).await, (Ok(_), None)));

    server.freeze();
    let (answer, reason) = tried(&mut link, &reach).await;
    assert_eq!(answer, Err(Fault::Down));
    assert!(reason.unwrap().contains("deadline"));
    server.thaw();
    until(&mut link, true).await;

    // The answer to the script it was sent while frozen must not be taken for this one's.
    assert_eq!(link.round(&[Call::new("ECHO", b"").arg("mine")]).await, [Ok(Value::BulkString(b"mine".to_vec()))]);

    server.command("CLIENT KILL TYPE normal");
    assert_eq!(tried(&mut link, &reach).await.0, Err(Fault::Down));
    until(&mut link, true).await;

    for (breaks, heals, why) in [
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "READONLY"),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"),
        ("ACL SETUSER default -evalsha", "ACL SETUSER default +evalsha", "NOPERM"),
        ("CONFIG SET min-replicas-to-write 3", "CONFIG SET min-replicas-to-write 0", "NOREPLICAS"),
    ] {
        server.command(breaks);
        let (answer, reason) = tried(&mut link, &reach).await;
        assert_eq!(answer, Err(Fault::Down), "{breaks}");
        assert!(reason.as_ref().is_some_and(|reason| reason.contains(why)), "{breaks}: {reason:?}");
        server.command(heals);
        until(&mut link, true).await;
        assert_eq!(reach.report().reason, None, "{heals}");
    }
}

#[tokio::test]
async fn an_outage_without_traffic_is_noticed_by_the_heartbeat() {
    let mut server = RedisServer::start();
    let (mut link, reach) = link(&server.url(), Duration::from_millis(500));
    until(&mut link, true).await;
    let before = server.info("total_commands_processed");
    for _ in 0..3 {
        link.beat().await;
    }
    assert!(server.info("total_commands_processed") - before < 10.0, "heartbeats before they were due");
    server.kill();
    until(&mut link, false).await;
    assert!(!reach.is_up());
}

#[tokio::test]
async fn the_wrong_password_and_none_are_named_and_never_quoted() {
    let server = RedisServer::with(&["--requirepass", "right"]);
    for (login, why) in [("", "NOAUTH"), (":hunter2@", "authentication failed")] {
        let (mut link, reach) = link(&server.url().replace("://", &format!("://{login}")), Duration::from_secs(5));
        assert!(!link.changed().await.returned);
        let reason = reach.report().reason.unwrap();
        assert!(reason.contains(why) && !reason.contains("hunter2"), "{reason}");
    }
    let (mut link, _) = link(&server.url().replace("://", "://:right@"), Duration::from_secs(5));
    until(&mut link, true).await;
}

#[tokio::test]
async fn a_socket_and_a_database_of_its_own() {
    let server = RedisServer::start();
    let (mut link, _) = link(&format!("unix://{}?db=3", server.socket().display()), Duration::from_secs(5));
    until(&mut link, true).await;
    link.round(&[Call::new("SET", b"").arg("a").arg("b")]).await;
    assert!(server.command("INFO keyspace").contains("db3:"));
}

#[tokio::test]
async fn a_subscription_hears_notices_its_end_and_is_found_again() {
    let mut server = RedisServer::start();
    let connector = Connector::new(&server.url(), None).unwrap();
    let mut way = connector.way("test");
    for _ in 0..2 {
        let mut heard = way.subscription(&[b"news", b"other"]).await;
        server.command("PUBLISH news one");
        server.command("PUBLISH other two");
        for (channel, payload) in [("news", "one"), ("other", "two")] {
            let message = heard.next().await.unwrap();
            assert_eq!((&message.channel[..], &message.payload[..]), (channel.as_bytes(), payload.as_bytes()));
        }
        server.kill();
        assert_eq!(heard.next().await, None);
        server.revive();
    }
    let mut heard = way.subscription(&[b"news"]).await;
    server.freeze();
    // Nothing says that it is gone, but PING.
    assert_eq!(heard.next().await, None);
}

#[tokio::test]
async fn a_subscription_that_falls_behind_says_so_and_stays_bounded() {
    let server = RedisServer::start();
    let mut way = Connector::new(&server.url(), None).unwrap().way("test");
    let mut heard = way.subscription(&[b"news"]).await;
    let publish = "for n = 1, 9000 do redis.call('PUBLISH', 'news', n) end";
    let mut other = way.connection(b"").await;
    other.command(Call::new("EVAL", b"").arg(publish).arg(0), Duration::from_secs(10)).await.unwrap().unwrap();
    for _ in 0..1_000 {
        // Time for the connection's driver to take in what is there.
        tokio::task::yield_now().await;
    }
    let mut taken = 0;
    let all = async {
        while heard.next().await.is_some() {
            taken += 1;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("it does not say so");
    assert!(taken < 9_000, "{taken}");
}

#[tokio::test]
async fn a_connection_given_up_half_way_is_not_used_again() {
    let server = RedisServer::start();
    let mut way = Connector::new(&server.url(), None).unwrap().way("test");
    let mut held = way.connection(b"").await;
    let blocking = Call::new("BLPOP", b"").arg("nothing").arg(5);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), held.command(blocking, Duration::from_secs(9))).await.is_err()
    );
    assert!(!held.is_alive());
    drop(held);
    let mut held = way.connection(b"").await;
    let echo = held.command(Call::new("ECHO", b"").arg("mine"), Duration::from_secs(5)).await.unwrap();
    assert_eq!(echo, Ok(Value::BulkString(b"mine".to_vec())));
}

#[tokio::test]
async fn tls_trusts_the_extra_root_and_nobody_without_it() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (port, shown, with) = (port.to_string(), certificate.to_str().unwrap(), key.to_str().unwrap());
    let tls = ["--tls-port", &port, "--tls-cert-file", shown, "--tls-key-file", with, "--tls-auth-clients", "no"];
    let server = RedisServer::with(&[&tls[..], &["--tls-ca-cert-file", shown]].concat());
    let url = format!("rediss://localhost:{port}");
    for roots in [None, Some(&*certificate)] {
        let Ok(connector) = Connector::new(&url, roots) else {
            assert!(roots.is_none(), "a machine without roots");
            continue;
        };
        let reach = Arc::new(Reach::new());
        let mut link = Link::new(connector, "test", b"t:probe".to_vec(), Duration::from_secs(5), Arc::clone(&reach));
        assert_eq!(link.changed().await.returned, roots.is_some(), "{:?}", reach.report().reason);
    }
    drop(server);
}

#[tokio::test]
async fn an_answer_that_came_while_this_thread_was_late_counts() {
    let server = RedisServer::start();
    let mut way = Connector::new(&server.url(), None).unwrap().way("test");
    let mut held = way.connection(b"").await;
    for _ in 0..20 {
        let asked = held.command(Call::new("ECHO", b"").arg("mine"), Duration::from_millis(5));
        let late = async {
            // It is sent; then this thread has no time for it until long after the deadline.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            std::thread::sleep(Duration::from_millis(30));
        };
        let (answer, ()) = tokio::join!(asked, late);
        assert_eq!(answer, Ok(Ok(Value::BulkString(b"mine".to_vec()))));
    }
    server.freeze();
    let asked = held.command(Call::new("ECHO", b"").arg("mine"), Duration::from_millis(5)).await;
    assert_eq!(asked, Err(super::super::reply::Broken::Timeout));
}

#[tokio::test]
async fn a_round_that_takes_longer_than_the_deadline_as_a_whole_gets_through() {
    let server = RedisServer::start();
    let calls = |count| vec![Call::new("EVAL", b"").arg("for _ = 1, 10000 do end return 1").arg(0); count];
    let (mut patient, _) = link(&server.url(), Duration::from_secs(60));
    until(&mut patient, true).await;
    let mut some = Duration::from_secs(60);
    for _ in 0..5 {
        let began = Clock::now();
        patient.round(&calls(256)).await;
        some = some.min(Clock::now().since(began));
    }
    // Twenty times what these took at best, and three times as many as can be done by then.
    let deadline = (some * 20).max(Duration::from_millis(200));
    let many = 3 * 256 * (deadline.as_micros() / some.as_micros()) as usize;
    let (mut link, reach) = link(&server.url(), deadline);
    until(&mut link, true).await;
    let answers = link.round(&calls(many)).await;
    assert!(answers.iter().all(|answer| *answer == Ok(Value::Int(1))), "{many} calls: {:?}", reach.report());
    assert_eq!(answers.len(), many);
}

#[tokio::test]
async fn a_forgotten_script_is_loaded_once_however_many_call_it() {
    let server = RedisServer::start();
    let (mut link, _) = link(&server.url(), Duration::from_secs(5));
    until(&mut link, true).await;
    server.command("SCRIPT FLUSH");
    let before = server.info("total_commands_processed");
    let answers = link.round(&vec![PROBE.call(&[b"t:x"]); 100]).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(
        server.info("total_commands_processed") - before < 450.0,
        "100 calls, twice, of two commands, and one script"
    );
}

#[tokio::test]
async fn a_node_that_a_call_was_once_sent_to_and_that_is_gone_is_not_missed() {
    let (mut link, reach) = link("redis://127.0.0.1:1", Duration::from_secs(1));
    let owner = Value::Array(vec![Value::BulkString(b"127.0.0.1".to_vec()), Value::Int(1)]);
    let slots = Value::Array(vec![Value::Array(vec![Value::Int(0), Value::Int(16_383), owner])]);
    let map = || SlotMap::read(&slots, &Address::Tcp("127.0.0.1".into(), 1)).unwrap();
    link.adopt(map());
    link.index(Address::Tcp("127.0.0.1".into(), 2));
    assert_eq!(link.nodes.len(), 2);
    link.adopt(map());
    assert_eq!(link.nodes.len(), 1, "it has no slot: {:?}", reach.report());
}

#[tokio::test]
async fn a_link_that_nobody_drives_any_more_is_down() {
    let server = RedisServer::start();
    let (mut link, reach) = link(&server.url(), Duration::from_secs(5));
    until(&mut link, true).await;
    assert!(reach.is_up());
    drop(link);
    assert!(!reach.is_up(), "requests would wait for an answer until their deadline, each of them");
}

#[tokio::test]
async fn who_moves_large_values_has_time_for_their_bytes() {
    let server = RedisServer::start();
    let connector = || Connector::new(&server.url(), None).unwrap();
    let slow = |bytes| [Call::new("BLPOP", b"t").arg("nothing").arg("0.3").back(bytes)];
    let patience = Patience::by_size(Duration::from_millis(100), 100_000);
    let mut link = Link::new(connector(), "test", b"t:probe".to_vec(), patience, Arc::default());
    until(&mut link, true).await;
    assert_eq!(link.round(&slow(1_000_000)).await, [Ok(Value::Nil)], "ten seconds for a megabyte");
    assert_eq!(link.round(&slow(0)).await, [Err(Fault::Down)]);
    // Where nothing large is moved, what may come back makes no difference.
    let (mut link, _) = self::link(&server.url(), Duration::from_millis(100));
    until(&mut link, true).await;
    assert_eq!(link.round(&slow(1_000_000)).await, [Err(Fault::Down)]);
}
