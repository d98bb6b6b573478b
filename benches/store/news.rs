//! `news`: a key is made on one instance and used on another, then revoked; by the database's notifications alone, by
//! Redis alone, and with neither. From the answer to the operator until the other instance goes by it.

use crate::support::deaf::DeafWire;
use crate::support::postgres::Server;
use crate::support::process::Process;
use crate::support::redis::RedisServer;
use crate::{MASTER, Times, make_key, revoke, until};

pub fn run(trips: usize) {
    let (server, redis) = (Server::start(&[]), RedisServer::start());
    let wire = DeafWire::start(server.dir().join(format!(".s.PGSQL.{}", server.port())));
    server.sql("postgres", "CREATE DATABASE plain; ");
    server.sql("postgres", "CREATE DATABASE deaf");
    server.sql("postgres", "CREATE DATABASE alone");
    let redis = redis.url();
    println!("\nnews: {trips} trips each, from the operator's answer on");
    way("notifications alone", &server.url("plain"), None, trips);
    way("Redis alone", &wire.url("deaf"), Some(&redis), trips);
    way("neither", &wire.url("alone"), None, trips.min(20));
}

fn way(name: &str, url: &str, redis: Option<&str>, trips: usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut env = vec![("MERIDO_MASTER_KEY", MASTER), ("MERIDO_REQUIRE_API_KEY", "true"), ("MERIDO_DATABASE_URL", url)];
    env.extend(redis.map(|url| ("MERIDO_REDIS_URL", url)));
    let start = |name: &str| {
        let dir = dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Process::start(&dir, &env)
    };
    let (a, b) = (start("a"), start("b"));
    if redis.is_some() {
        for gateway in [&a, &b] {
            crate::support::eventually("Redis is there", || gateway.get("/healthz").json()["redis"] == "ok");
        }
    }
    let (mut works, mut stops) = (Times::default(), Times::default());
    for _ in 0..trips {
        let (id, head, _) = make_key(&a);
        works.0.push(until(&b, &head, 200));
        revoke(&a, &id);
        stops.0.push(until(&b, &head, 401));
    }
    works.tell(&format!("{name}: works"));
    stops.tell(&format!("{name}: stops"));
    assert!(a.stop().success() && b.stop().success());
}
