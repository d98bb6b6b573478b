//! Under a thousand requests a second: a database that is killed and comes back, an instance that is killed.

use super::*;
use crate::support::client::request;
use crate::support::load::{CONNECTIONS, Load};
use serde_json::json;
use std::time::{Duration, Instant};

const RATE: u64 = 1_000;
/// Rows of one batch at most.
const BATCH: u64 = 4_096;

#[test]
fn a_database_killed_under_load_fails_no_request_and_loses_no_row() {
    let provider = Provider::new(chat("fine"));
    let mut server = Server::start(&[]);
    let cluster = Cluster::new(server.database(), &provider);
    let gateway = cluster.start("a");
    let (_, head) = cluster.key("--rpm 1000000");
    eventually("the key works", || get(gateway.addr, "/v1/models", &head).status == 200);
    let load = Load::start(gateway.addr, &head, RATE);
    load.more(300);
    server.kill();
    eventually("health says so", || health(&gateway) == "down");
    let admin = request(gateway.addr, "POST", "/api/keys", "", &json!({"name": "new"}));
    assert_eq!(admin.status, 503, "{}", admin.text());
    // For as long as our view is fresh an unknown key is the caller's fault, then it is ours.
    let start = Instant::now();
    while get(gateway.addr, "/v1/models", &stranger()).status != 503 {
        assert!(start.elapsed() < Duration::from_secs(40), "never 503");
        std::thread::sleep(Duration::from_millis(50));
    }
    load.more(300);
    server.resume();
    eventually("health says so", || health(&gateway) == "ok");
    eventually("unknown keys are the caller's fault again", || {
        get(gateway.addr, "/v1/models", &stranger()).status == 401
    });
    load.more(300);
    let outcome = load.stop();
    println!("{outcome}");
    assert_eq!(outcome.failed, 0, "no request failed");
    assert!(gateway.metric("merido_log_rows_spilled_total") > 0.0, "it went through the spill");
    assert_eq!(gateway.metric("merido_log_rows_dropped_total"), 0.0);
    assert!(gateway.stop().success());
    let (rows, requests) = cluster.counted();
    assert_eq!((rows as u64, requests), (outcome.done, outcome.done), "one row and one count for each");
}

#[test]
fn an_instance_killed_under_load_loses_one_batch_at_most() {
    let provider = Provider::new(chat("fine"));
    let cluster = Cluster::new(postgres::database(), &provider);
    let gateway = cluster.start("a");
    let (_, head) = cluster.key("--rpm 1000000");
    eventually("the key works", || get(gateway.addr, "/v1/models", &head).status == 200);
    let load = Load::start(gateway.addr, &head, RATE);
    // More than a batch: were all of it kept in memory, too much would be lost.
    load.more(BATCH + 2 * CONNECTIONS + 500);
    gateway.signal("KILL");
    gateway.wait();
    let outcome = load.stop();
    assert_eq!(outcome.failed, 0);
    let asked = provider.calls() as u64;
    // What it had put on disk, if anything, the next one stores.
    let gateway = cluster.start("a");
    let (_, another) = cluster.key("");
    eventually("it serves", || get(gateway.addr, "/v1/models", &another).status == 200);
    assert!(gateway.stop().success());
    let (rows, requests) = cluster.counted();
    let lost = asked - rows as u64;
    println!("{outcome}: the provider saw {asked}, {rows} were stored, {lost} lost");
    assert!(lost <= BATCH + CONNECTIONS, "{lost} of {asked} lost: more than a batch and what was in flight");
    assert!(requests.abs_diff(rows as u64) <= CONNECTIONS, "{requests} counted, {rows} rows");
    assert!(asked.abs_diff(outcome.done) <= CONNECTIONS, "the provider saw {asked}, {outcome:?}");
}
