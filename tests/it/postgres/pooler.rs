//! Behind a PgBouncer in transaction mode: all works, and what nobody tells is found by looking.

use super::*;
use crate::support::load::Load;

#[test]
fn two_instances_behind_a_pooler_are_one_deployment() {
    let provider = Provider::new(chat("fine"));
    let server = Server::start(&[]);
    server.sql("postgres", "CREATE DATABASE pooled");
    let pooler = server.pooler();
    let cluster = Cluster::new(pooler.url("pooled"), &provider);
    let (a, b) = (cluster.start("a"), cluster.start("b"));
    let (id, head) = cluster.key("--rpm 1000000");
    for gateway in [&a, &b] {
        eventually("the new key works", || ask(gateway, &head).status == 200);
    }
    for gateway in [&a, &b] {
        gateway.logged("do not come through");
    }
    let loads = [Load::start(a.addr, &head, 200), Load::start(b.addr, &head, 200)];
    for load in &loads {
        load.more(200);
    }
    let (_, other) = cluster.key("");
    for gateway in [&a, &b] {
        eventually("a key made meanwhile works", || get(gateway.addr, "/v1/models", &other).status == 200);
    }
    for load in loads {
        assert_eq!(load.stop().failed, 0);
    }
    cluster.command(&format!("keys revoke {id}"));
    for gateway in [&a, &b] {
        eventually("the revoked key does not", || ask(gateway, &head).status == 401);
    }
    assert_eq!(a.metric("merido_store_errors_total") + b.metric("merido_store_errors_total"), 0.0);
    assert!(a.stop().success() && b.stop().success());
    let (rows, requests) = cluster.counted();
    assert_eq!(rows as u64, requests, "every request is in the log and in the totals, of both");
}
