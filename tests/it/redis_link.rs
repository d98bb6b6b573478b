//! The way to Redis under a real gateway: it serves whatever befalls the server, notices, and finds back.

use crate::support::client::{get, post};
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway, named};
use crate::support::process::run_with;
use crate::support::provider::{Provider, chat};
use crate::support::shared::{Kind, Redis, on_both};

const ASK: &[u8] = br#"{"model":"openai/gpt-4o-mini","messages":[]}"#;

#[track_caller]
fn serves(gateway: &TestGateway) {
    let answer = post(gateway.addr, "/v1/chat/completions", "", ASK);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[track_caller]
fn is_connected(server: &Redis) {
    eventually("the gateway is connected", || server.clients() >= 1.0);
}

fn a_gateway_with_redis_serves_and_ends(kind: Kind) {
    let server = Redis::start(kind);
    let provider = Provider::new(chat("hello"));
    let gateway = Setup::openai(&provider).redis(&server).start();
    serves(&gateway);
    is_connected(&server);
    let (gateway, _store, _dir) = gateway.take();
    gateway.stop();
    eventually("it closed its connections", || server.clients() < 1.0);
}

fn a_gateway_whose_redis_is_absent_at_boot_serves_and_finds_it_later(kind: Kind) {
    let mut server = Redis::start(kind);
    server.kill();
    let provider = Provider::new(chat("hello"));
    let gateway = Setup::openai(&provider).redis(&server).start();
    serves(&gateway);
    server.revive();
    is_connected(&server);
    serves(&gateway);
}

fn two_instances_share_a_store_and_a_redis(kind: Kind) {
    let server = Redis::start(kind);
    let provider = Provider::new(chat("hello"));
    let dir = tempfile::tempdir().unwrap();
    let first = Setup::openai(&provider).redis(&server).start_in(dir.path());
    let second = Setup::new().redis(&server).start_in(dir.path());
    let key = first.key(named("shared"));
    let head = format!("authorization: Bearer {key}\r\n");
    eventually("the other knows the key", || get(second.addr, "/v1/models", &head).status == 200);
    eventually("both are connected", || server.clients() >= 2.0);
}

#[test]
fn a_url_that_cannot_be_read_is_refused_without_its_password() {
    let dir = tempfile::tempdir().unwrap();
    let env = [("MERIDO_REDIS_URL", "redis://:hunter2@cache:99999")];
    let said = run_with(dir.path(), "start --port 0", &env, "");
    assert_ne!(said.code, 0);
    assert!(said.err.contains("redis_url") && said.err.contains("port") && !said.err.contains("hunter2"), "{said:?}");
}

fn a_gateway_ends_in_time_while_its_redis_is_frozen(kind: Kind) {
    let server = Redis::start(kind);
    let provider = Provider::new(chat("hello"));
    let gateway = Setup::openai(&provider).redis(&server).start();
    is_connected(&server);
    server.freeze();
    serves(&gateway);
    let (gateway, _store, _dir) = gateway.take();
    gateway.stop();
}

on_both!(
    a_gateway_with_redis_serves_and_ends,
    a_gateway_whose_redis_is_absent_at_boot_serves_and_finds_it_later,
    two_instances_share_a_store_and_a_redis,
    a_gateway_ends_in_time_while_its_redis_is_frozen,
);
