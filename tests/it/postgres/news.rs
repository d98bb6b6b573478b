//! How a change travels from one instance to another when the database's notifications do not come through: by Redis,
//! and without it by looking. (By notification alone: `store/refresh_shared_tests.rs`.)

use super::*;
use crate::support::client::request;
use crate::support::deaf::DeafWire;
use crate::support::redis::RedisServer;
use serde_json::json;
use std::time::{Duration, Instant};

/// Promised with neither notifications nor Redis.
const LOOKED_FOR: Duration = Duration::from_secs(6);
/// A trip so short was no find of a look every other second, but for one in seven.
const TOLD: Duration = Duration::from_millis(300);

/// A database behind a wire that passes no notification.
fn behind_a_deaf_wire(server: &Server, provider: &Provider) -> (DeafWire, Cluster) {
    let wire = DeafWire::start(server.dir().join(format!(".s.PGSQL.{}", server.port())));
    server.sql("postgres", "CREATE DATABASE shared");
    let cluster = Cluster::new(wire.url("shared"), provider);
    (wire, cluster)
}

fn until(gateway: &Process, head: &str, status: u16) -> Duration {
    let start = Instant::now();
    while get(gateway.addr, "/v1/models", head).status != status {
        assert!(start.elapsed() < Duration::from_secs(30), "never {status}");
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}

/// A key made on `a` works on `b`, revoked on `a` it stops there: how long each took, from the answer on.
fn trip(a: &Process, b: &Process) -> [Duration; 2] {
    let made = request(a.addr, "POST", "/api/keys", "", &json!({"name": "k"})).json();
    let head = format!("authorization: Bearer {}\r\n", made["key"].as_str().unwrap());
    let there = until(b, &head, 200);
    let path = format!("/api/keys/{}", made["id"].as_str().unwrap());
    assert!(request(a.addr, "DELETE", &path, "", &Value::Null).status < 300);
    [there, until(b, &head, 401)]
}

#[test]
fn by_redis_alone() {
    let (server, redis, provider) = (Server::start(&[]), RedisServer::start(), Provider::new(chat("fine")));
    let (_wire, cluster) = behind_a_deaf_wire(&server, &provider);
    let url = redis.url();
    let more = [("MERIDO_REDIS_URL", &*url)];
    let (a, b) = (cluster.start_with("a", &more), cluster.start_with("b", &more));
    for gateway in [&a, &b] {
        eventually("Redis is there", || gateway.get("/healthz").json()["redis"] == "ok");
    }
    let trips: Vec<Duration> = (0..12).flat_map(|_| trip(&a, &b)).collect();
    let told = trips.iter().filter(|took| **took < TOLD).count();
    println!("{told} of {}: {trips:?}", trips.len());
    assert!(told * 2 >= trips.len(), "found by looking, not told: {trips:?}");
}

#[test]
fn with_neither_it_is_found_within_seconds() {
    let (server, provider) = (Server::start(&[]), Provider::new(chat("fine")));
    let (_wire, cluster) = behind_a_deaf_wire(&server, &provider);
    let (a, b) = (cluster.start("a"), cluster.start("b"));
    for _ in 0..2 {
        let took = trip(&a, &b);
        assert!(took.iter().all(|took| *took < LOOKED_FOR), "{took:?}");
    }
    b.logged("do not come through");
}
