//! The hot path asks the store nothing: whatever the number of requests, its calls are those of the clock and of batches.

use super::*;
use crate::support::gateway::{Setup, named};
use crate::support::load::Load;
use merido::store::rows::KeySpec;
use std::time::{Duration, Instant};

const REQUESTS: u64 = 1_500;

fn calls(gateway: &Process, op: &str) -> u64 {
    gateway.metric(&format!("merido_store_calls_total{{op=\"{op}\"}}")) as u64
}

/// Sends requests on a known key; no kind of call may be made more often than its clock says.
fn quiet(gateway: &Process, head: &str, look: Duration) {
    eventually("retention has had its pass", || calls(gateway, "prune") > 0);
    let (ops, start) = (["read", "write", "prune", "look", "append", "spent"], Instant::now());
    let before = ops.map(|op| calls(gateway, op));
    let load = Load::start(gateway.addr, head, 1_000);
    load.more(REQUESTS);
    assert_eq!(load.stop().failed, 0);
    eventually("they are stored", || gateway.metric("merido_log_rows_total") >= REQUESTS as f64);
    let made: Vec<u64> = ops.iter().zip(before).map(|(op, before)| calls(gateway, op) - before).collect();
    let ticks = |every: Duration| (start.elapsed().as_millis() / every.as_millis()) as u64 + 2;
    let appends = ticks(Duration::from_millis(250)) + REQUESTS / 1_000;
    let allowed = [0, 0, 0, ticks(look), appends, ticks(Duration::from_secs(3))];
    println!("{ops:?}: {made:?} of {allowed:?}");
    for (n, op) in ops.iter().enumerate() {
        assert!(made[n] <= allowed[n], "{op}: {} calls, {} allowed", made[n], allowed[n]);
    }
    assert!(made[4] > 0, "usage was appended: the calls are counted");
}

#[test]
fn no_request_on_a_known_key_calls_the_embedded_store() {
    let provider = Provider::new(chat("fine"));
    let gateway = Process::of(Setup::openai(&provider));
    let head = format!("authorization: Bearer {}\r\n", gateway.key(KeySpec { rpm: Some(1_000_000), ..named("load") }));
    quiet(&gateway, &head, Duration::from_millis(50));
}

#[test]
fn no_request_on_a_known_key_calls_the_database() {
    let provider = Provider::new(chat("fine"));
    let cluster = Cluster::new(postgres::database(), &provider);
    let gateway = cluster.start("a");
    let (_, head) = cluster.key("--rpm 1000000");
    eventually("the key works", || ask(&gateway, &head).status == 200);
    quiet(&gateway, &head, Duration::from_secs(2));
}
