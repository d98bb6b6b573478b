//! The link against a real Redis Cluster: every call finds its node, also while slots move and nodes die.

use super::*;
use crate::cluster::call::{Script, script};
use crate::cluster::testing::RedisCluster;
use redis::Value;

static PROBE: Script = script!("probe.lua");

fn link(url: &str) -> (Link, Arc<Reach>) {
    let reach = Arc::new(Reach::new());
    let connector = Connector::new(url, None).unwrap();
    (Link::new(connector, "test", b"t:probe".to_vec(), Duration::from_secs(2), Arc::clone(&reach)), reach)
}

/// Drives it until `holds`, or ten seconds have passed.
async fn until(link: &mut Link, what: &str, mut holds: impl FnMut(&Link) -> bool) {
    let driven = async {
        while !holds(link) {
            tokio::select! {
                _ = link.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => link.beat().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), driven).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn all_up(link: &Link) -> bool {
    link.map.is_some() && link.nodes.len() == 3 && link.nodes.iter().all(Node::is_up)
}

fn set(key: &str) -> Call {
    Call::new("SET", key.as_bytes()).arg(key).arg(key)
}

fn get(key: &str) -> Call {
    Call::new("GET", key.as_bytes()).arg(key)
}

#[expect(clippy::unnecessary_wraps, reason = "compared with answers as they come")]
fn is(text: &str) -> Answer {
    Ok(Value::BulkString(text.as_bytes().to_vec()))
}

#[tokio::test]
async fn every_call_goes_to_its_node_and_every_answer_comes_back_in_its_place() {
    let cluster = RedisCluster::start();
    // One address of it is enough: it turns out a cluster at the first call that is sent elsewhere.
    for url in [cluster.url(), cluster.nodes[1].url()] {
        let (mut link, reach) = link(&url);
        until(&mut link, "a node is up", Link::is_up).await;
        let keys: Vec<String> = (0..60).map(|n| format!("k{n}")).collect();
        link.round(&keys.iter().map(|key| set(key)).collect::<Vec<_>>()).await;
        until(&mut link, "all nodes are up", all_up).await;
        assert_eq!(reach.report().reason, None);
        link.round(&keys.iter().map(|key| set(key)).collect::<Vec<_>>()).await;
        let mut calls: Vec<Call> = keys.iter().map(|key| get(key)).collect();
        calls.push(PROBE.call(&[b"{k1}:probe", b"k1"]));
        let before: f64 = cluster.nodes.iter().map(|node| node.info("total_error_replies")).sum();
        let answers = link.round(&calls).await;
        for (key, answer) in keys.iter().zip(&answers) {
            assert_eq!(*answer, is(key));
        }
        assert!(matches!(answers[60], Ok(Value::Int(_))), "{answers:?}");
        let after: f64 = cluster.nodes.iter().map(|node| node.info("total_error_replies")).sum();
        // The script may not be known where that key is; nothing was sent to a wrong node.
        assert!(after - before <= 1.0, "{before} {after}");
        for node in &cluster.nodes {
            assert!(node.command("DBSIZE").trim_start_matches(':').trim().parse::<u32>().unwrap() > 10);
        }
    }
}

#[tokio::test]
async fn a_slot_that_moves_is_followed() {
    let cluster = RedisCluster::start();
    let (mut link, _) = link(&cluster.url());
    until(&mut link, "all nodes are up", all_up).await;
    let (old, new, probe) = ("{x}:old", "{x}:new", "{x}:probe");
    link.round(&[set(old)]).await;
    let from = cluster.owner(old);
    let to = (from + 1) % 3;
    cluster.nodes[to].command("SCRIPT FLUSH");
    cluster.begin_move(old, to);
    // What is there is served there; what is not is served by the other, asked for each time; a script it does not
    // know is loaded there on the way.
    for _ in 0..2 {
        let answers = link.round(&[get(old), set(new), get(new), PROBE.call(&[probe.as_bytes()]), get(old)]).await;
        assert_eq!(
            [&answers[0], &answers[1], &answers[2], &answers[4]],
            [&is(old), &Ok(Value::Okay), &is(new), &is(old)]
        );
        assert!(matches!(answers[3], Ok(Value::Int(_))), "{answers:?}");
    }
    cluster.end_move(&[old], from, to);
    assert_eq!(link.round(&[get(old), get(new)]).await, [is(old), is(new)]);
    let at = cluster.nodes[to].addr().port();
    until(&mut link, "the map is fetched anew", |link| {
        let owner = link.owner(old.as_bytes()).unwrap();
        *link.nodes[owner].server().address() == Address::Tcp("127.0.0.1".into(), at)
    })
    .await;
    assert_eq!(link.round(&[get(old), get(new)]).await, [is(old), is(new)]);
}

#[tokio::test]
async fn a_node_that_dies_takes_nothing_with_it_but_its_own_keys() {
    let mut cluster = RedisCluster::start();
    let (mut link, reach) = link(&cluster.url());
    until(&mut link, "all nodes are up", all_up).await;
    let keys: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    let owners: Vec<usize> = keys.iter().map(|key| cluster.owner(key)).collect();
    cluster.nodes[1].kill();
    let calls: Vec<Call> = keys.iter().map(|key| set(key)).collect();
    for _ in 0..2 {
        for ((key, owner), answer) in keys.iter().zip(&owners).zip(link.round(&calls).await) {
            assert_eq!(answer.is_ok(), *owner != 1, "{key}: {answer:?}");
        }
    }
    assert!(reach.is_up() && link.is_up(), "the rest of it is there");
    // What belongs nowhere goes to whoever is there.
    for channel in ["a", "b", "c", "d"] {
        let said = link.round(&[Call::new("PUBLISH", b"").arg(channel).arg("x")]).await;
        assert!(matches!(said[..], [Ok(Value::Int(_))]), "{said:?}");
    }
    let reason = reach.report().reason.unwrap();
    assert!(reason.contains(&cluster.nodes[1].addr().to_string()), "{reason}");
    cluster.nodes[1].revive();
    until(&mut link, "all nodes are up", all_up).await;
    assert_eq!(reach.report().reason, None);
    cluster.settled();
    // A node that was away may be unsure of its slots for a moment after it answers again.
    for _ in 0..100 {
        if link.round(&calls).await.iter().all(Result::is_ok) {
            return;
        }
        until(&mut link, "all nodes are up", all_up).await;
    }
    panic!("not all keys are served again");
}

#[tokio::test]
async fn a_connection_of_ones_own_goes_to_the_keys_node() {
    let cluster = RedisCluster::start();
    let mut way = Connector::new(&cluster.url(), None).unwrap().way("test");
    for key in ["a", "b", "c", "d"] {
        let mut held = way.connection(key.as_bytes()).await;
        let answers = held.round(&[set(key), get(key)], Duration::from_secs(5)).await;
        assert_eq!(answers.unwrap()[1], is(key));
    }
    let mut heard = way.subscription(&[b"news"]).await;
    for node in &cluster.nodes {
        node.command("PUBLISH news hello");
        assert_eq!(heard.next().await.unwrap().payload, b"hello");
    }
}
