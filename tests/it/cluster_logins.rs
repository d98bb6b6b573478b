//! Wrong passwords and unknown keys are counted over all instances; without Redis each counts on, and none opens.

use crate::support::client::{Answer, get, post};
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway};
use crate::support::shared::{Kind, Redis, on_both};
use argon2::password_hash::{PasswordHasher as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use merido::base::Secret;
use std::net::SocketAddr;
use std::time::Duration;
use tempfile::TempDir;

const PASSWORD: &str = "correct horse";

fn hash() -> Secret {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
    let salt = SaltString::from_b64("c29tZXNhbHRzb21lc2FsdA").unwrap();
    Secret::new(argon2.hash_password(PASSWORD.as_bytes(), &salt).unwrap().to_string())
}

fn pair(kind: Kind) -> (TestGateway, TestGateway, Redis, TempDir) {
    let (redis, dir) = (Redis::start(kind), tempfile::tempdir().unwrap());
    let one = || {
        let gateway = Setup::new().redis(&redis).with(|set| {
            set.dashboard_password_hash = Some(hash());
            set.redis_deadline = Duration::from_secs(5);
            set.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        });
        gateway.start_in(dir.path())
    };
    let (a, b) = (one(), one());
    for gateway in [&a, &b] {
        eventually("redis is there", || redis_is(gateway.addr) == "ok");
    }
    (a, b, redis, dir)
}

fn redis_is(addr: SocketAddr) -> String {
    get(addr, "/healthz", "").json()["redis"].as_str().unwrap().to_owned()
}

fn login(addr: SocketAddr, from: &str, password: &str) -> Answer {
    let body = serde_json::json!({ "password": password }).to_string();
    post(addr, "/api/login", &format!("x-forwarded-for: {from}\r\n"), body.as_bytes())
}

fn five_wrong_passwords_over_two_instances_close_both_and_redis_gone_opens_neither(kind: Kind) {
    let (a, b, mut redis, _dir) = pair(kind);
    let from = "192.0.2.7";
    for gateway in [&a, &a, &a, &b, &b] {
        assert_eq!(login(gateway.addr, from, "wrong").status, 401);
    }
    for gateway in [&a, &b] {
        let refused = login(gateway.addr, from, PASSWORD);
        assert_eq!(refused.status, 429, "{}", refused.text());
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((200..=300).contains(&wait), "{wait} s");
        assert_eq!(login(gateway.addr, "192.0.2.8", PASSWORD).status, 200, "another address is let in");
    }
    redis.kill();
    for gateway in [&a, &b] {
        eventually("the outage is noticed", || redis_is(gateway.addr) == "down");
        assert_eq!(login(gateway.addr, from, PASSWORD).status, 429, "what the cluster said still holds");
        // Nobody to ask: each counts for itself.
        for _ in 0..5 {
            assert_eq!(login(gateway.addr, "192.0.2.9", "wrong").status, 401);
        }
        assert_eq!(login(gateway.addr, "192.0.2.9", PASSWORD).status, 429);
    }
}

fn a_right_password_takes_back_what_was_counted_everywhere(kind: Kind) {
    let (a, b, redis, _dir) = pair(kind);
    let from = "192.0.2.7";
    for _ in 0..3 {
        for gateway in [&a, &b] {
            assert_eq!(login(gateway.addr, from, "wrong").status, 401);
            assert_eq!(login(gateway.addr, from, "wrong").status, 401);
        }
        assert_eq!(login(a.addr, from, PASSWORD).status, 200, "the fifth of four failures");
        // What is taken back is on its way; each instance's own count knows only of its own successes.
        eventually("it was taken back", || redis.command("KEYS t:{login}:f:*").starts_with("*0"));
        assert_eq!(login(b.addr, from, PASSWORD).status, 200);
        eventually("it was taken back", || redis.command("KEYS t:{login}:f:*").starts_with("*0"));
    }
    // Nobody reads in Redis from where operators log in.
    assert!(!redis.command("ZRANGE t:{login}:known 0 -1").contains("192.0.2"));
}

fn the_count_over_all_addresses_is_the_clusters_and_spares_who_is_known_anywhere(kind: Kind) {
    let (a, b, _redis, _dir) = pair(kind);
    assert_eq!(login(a.addr, "198.51.100.1", PASSWORD).status, 200);
    for n in 0..20 {
        let gateway = if n % 2 == 0 { &a } else { &b };
        assert_eq!(login(gateway.addr, &format!("192.0.2.{n}"), "wrong").status, 401, "{n}");
    }
    for gateway in [&a, &b] {
        assert_eq!(login(gateway.addr, "203.0.113.5", PASSWORD).status, 429, "twenty failures over all");
    }
    assert_eq!(login(b.addr, "198.51.100.1", PASSWORD).status, 200, "it logged in on the other instance");
    assert_eq!(login(b.addr, "127.0.0.1", PASSWORD).status, 200, "this machine is spared");
}

fn unknown_api_keys_are_counted_over_all_instances(kind: Kind) {
    let (a, b, redis, _dir) = pair(kind);
    let knock = |gateway: &TestGateway| {
        let head =
            "authorization: Bearer mrd_0000000000000000000000000000000000000000\r\nx-forwarded-for: 192.0.2.7\r\n";
        assert_eq!(get(gateway.addr, "/v1/models", head).status, 401);
    };
    for _ in 0..40 {
        knock(&a);
        knock(&b);
    }
    eventually("all 80 are counted in one place", || redis.command("HVALS t:{strikes}").contains("\r\n80\r\n"));
    assert!(!redis.command("HKEYS t:{strikes}").contains("192.0.2"));
}

on_both!(
    five_wrong_passwords_over_two_instances_close_both_and_redis_gone_opens_neither,
    a_right_password_takes_back_what_was_counted_everywhere,
    the_count_over_all_addresses_is_the_clusters_and_spares_who_is_known_anywhere,
    unknown_api_keys_are_counted_over_all_instances,
);
