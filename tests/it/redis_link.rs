//! The way to Redis under a real gateway: it serves whatever befalls the server, notices, and finds back.

use crate::support::client::post;
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway};
use crate::support::provider::{Provider, chat};
use crate::support::redis::RedisServer;

const ASK: &[u8] = br#"{"model":"openai/gpt-4o-mini","messages":[]}"#;

#[track_caller]
fn serves(gateway: &TestGateway) {
    let answer = post(gateway.addr, "/v1/chat/completions", "", ASK);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[track_caller]
fn is_connected(server: &RedisServer) {
    // The asker is a client, too.
    eventually("the gateway is connected", || server.info("connected_clients") >= 2.0);
}

#[test]
fn a_gateway_with_redis_serves_and_ends() {
    let server = RedisServer::start();
    let provider = Provider::new(chat("hello"));
    let gateway = Setup::openai(&provider).redis(&server).start();
    serves(&gateway);
    is_connected(&server);
    let (gateway, _store, _dir) = gateway.take();
    gateway.stop();
    eventually("it closed its connections", || server.info("connected_clients") < 2.0);
}

#[test]
fn a_gateway_whose_redis_is_absent_at_boot_serves_and_finds_it_later() {
    let mut server = RedisServer::start();
    server.kill();
    let provider = Provider::new(chat("hello"));
    let gateway = Setup::openai(&provider).redis(&server).start();
    serves(&gateway);
    server.revive();
    is_connected(&server);
    serves(&gateway);
}
