//! A database that takes connections and says nothing: worse than one that is gone.

use super::*;
use crate::support::client::request;
use crate::support::load::Load;
use serde_json::json;
use std::time::{Duration, Instant};

/// Promised to whoever waits for the control plane.
const PROMISED: Duration = Duration::from_secs(5);

#[test]
fn a_frozen_database_costs_an_operator_seconds_and_a_request_nothing() {
    let provider = Provider::new(chat("fine"));
    let mut server = Server::start(&[]);
    let cluster = Cluster::new(server.database(), &provider);
    let gateway = cluster.start("a");
    let (_, head) = cluster.key("--rpm 1000000");
    eventually("the key works", || get(gateway.addr, "/v1/models", &head).status == 200);
    let load = Load::start(gateway.addr, &head, 100);
    load.more(20);
    server.freeze();
    for (method, path, body) in [
        ("POST", "/api/keys", json!({"name": "new"})),
        ("GET", "/api/keys", Value::Null),
        ("GET", "/api/logs", Value::Null),
        ("GET", "/api/usage?by=key", Value::Null),
    ] {
        let start = Instant::now();
        let answer = request(gateway.addr, method, path, "", &body);
        let took = start.elapsed();
        assert_eq!(answer.status, 503, "{method} {path}: {}", answer.text());
        assert!(took < PROMISED, "{method} {path} took {took:?}");
    }
    eventually("health says so", || health(&gateway) == "down");
    let start = Instant::now();
    while get(gateway.addr, "/v1/models", &stranger()).status != 503 {
        assert!(start.elapsed() < Duration::from_secs(40), "never 503");
        std::thread::sleep(Duration::from_millis(50));
    }
    load.more(100);
    server.thaw();
    eventually("health says so", || health(&gateway) == "ok");
    let made = request(gateway.addr, "POST", "/api/keys", "", &json!({"name": "after"}));
    assert_eq!(made.status, 201, "{}", made.text());
    load.more(20);
    let outcome = load.stop();
    assert_eq!(outcome.failed, 0);
    assert_eq!(gateway.metric("merido_log_rows_dropped_total"), 0.0);
    assert!(gateway.stop().success());
    let (rows, requests) = cluster.counted();
    assert_eq!((rows as u64, requests), (outcome.done, outcome.done), "one row and one count for each");
}
