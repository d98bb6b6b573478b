//! Limits over two real gateways on one real Redis: one number for both, whatever befalls the server.

use crate::support::client::{Conn, get, post, post_bytes};
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway, named};
use crate::support::provider::{Provider, Script, Then, chat, chat_events};
use crate::support::shared::{Kind, Redis, on_both};
use merido::config::OnRedisDown;
use merido::store::rows::KeySpec;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const ASK: &[u8] = br#"{"model":"openai/m","messages":[]}"#;

/// Two instances of one deployment, both connected, and a key that both know.
pub(crate) struct Pair {
    pub(crate) gateways: [TestGateway; 2],
    _dir: tempfile::TempDir,
}

impl Pair {
    pub(crate) fn new(provider: &Provider, server: &Redis, down: OnRedisDown) -> Self {
        // A loaded machine is late by more than a deadline now and then: that is not what is tested here.
        Self::with_deadline(provider, server, down, Duration::from_secs(5))
    }

    pub(crate) fn with_deadline(provider: &Provider, server: &Redis, down: OnRedisDown, deadline: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let start = |setup: Setup, path: &Path| {
            let patient = |settings: &mut merido::config::Settings| {
                settings.redis_deadline = deadline;
                settings.rate_limit_on_redis_down = down;
                settings.expected_instances = Some(2);
            };
            setup.redis(server).with(patient).start_in(path)
        };
        let gateways = [start(Setup::openai(provider), dir.path()), start(Setup::new(), dir.path())];
        let pair = Self { gateways, _dir: dir };
        pair.connected(server);
        for gateway in &pair.gateways {
            eventually("it counts both", || {
                get(gateway.addr, "/api/cluster", "").json()["instances"].as_array().is_some_and(|all| all.len() == 2)
            });
        }
        pair
    }

    /// Waits until each has written buckets of its own.
    fn connected(&self, server: &Redis) {
        for gateway in &self.gateways {
            // Of a cluster one node after the other is found.
            eventually("all of it is reached", || {
                get(gateway.addr, "/api/cluster", "").json()["redis"]["state"] == "ok"
            });
            // Limits are divided by those who are counted, not by those who are expected.
            eventually("both are counted", || {
                get(gateway.addr, "/api/cluster", "").json()["instances"].as_array().is_some_and(|all| all.len() == 2)
            });
            let probe = self.gateways[0].create_key(KeySpec { rpm: Some(1_000_000), ..named("probe") });
            let head = format!("authorization: Bearer {}\r\n", probe.plain.reveal());
            let exists = format!("EXISTS t:{{k{}}}:limit:1", probe.info.id.0);
            eventually("it is connected", || {
                post(gateway.addr, CHAT, &head, ASK);
                server.command(&exists).trim() == ":1"
            });
        }
    }

    pub(crate) fn key(&self, spec: KeySpec) -> String {
        let head = format!("authorization: Bearer {}\r\n", self.gateways[0].key(spec));
        eventually("both know the key", || get(self.gateways[1].addr, "/v1/models", &head).status == 200);
        head
    }

    /// All are on their way before the first answer is read, to one and the other in turn.
    pub(crate) fn at_once(&self, count: usize, wire: &[u8]) -> Vec<u16> {
        let mut conns: Vec<Conn> = (0..count).map(|n| Conn::open(self.gateways[n % 2].addr)).collect();
        for conn in &mut conns {
            conn.send(wire);
        }
        conns.iter_mut().map(|conn| conn.answer().status).collect()
    }
}

pub(crate) fn good(statuses: &[u16]) -> usize {
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

fn a_limit_of_n_admits_n_over_both(kind: Kind) {
    let (server, provider) = (Redis::start(kind), Provider::new(chat("x")));
    let pair = Pair::new(&provider, &server, OnRedisDown::Closed);
    for run in 1..=5 {
        // One a minute: none flows back while the run lasts.
        let head = pair.key(KeySpec { rpm: Some(1), burst: Some(40), ..named(&format!("run {run}")) });
        assert_eq!(good(&pair.at_once(100, &post_bytes(CHAT, &head, ASK))), 40, "run {run}");
        let refused = post(pair.gateways[run % 2].addr, CHAT, &head, ASK);
        assert_eq!((refused.status, refused.header("x-ratelimit-remaining-requests")), (429, Some("0")));
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((40..=60).contains(&wait), "{}", refused.head);
    }
}

fn tokens_used_on_one_are_missing_on_the_other(kind: Kind) {
    let (server, provider) = (Redis::start(kind), Provider::new(chat("x")));
    let pair = Pair::new(&provider, &server, OnRedisDown::Closed);
    let head = pair.key(KeySpec { tpm: Some(6_000), ..named("k") });
    let body = br#"{"model":"openai/m","messages":[],"max_tokens":4000}"#;
    let left = |of: usize| -> u64 {
        let answer = post(pair.gateways[of].addr, CHAT, &head, body);
        answer.header("x-ratelimit-remaining-tokens").unwrap_or_else(|| panic!("{}", answer.head)).parse().unwrap()
    };
    let set_aside = 6_000 - left(0);
    assert!(set_aside >= 4_000);
    // The provider reported 18: once that is carried over the other finds nearly all of it.
    eventually("what was not used is back", || left(1) > 6_000 - set_aside - 400);
}

fn what_one_spent_is_missing_on_the_other(kind: Kind) {
    let (server, provider) = (Redis::start(kind), Provider::new(chat("x")));
    let pair = Pair::new(&provider, &server, OnRedisDown::Open);
    // Ten answers of the provider's, at 5,850 nanodollars each.
    let head = pair.key(KeySpec { budget_nanos: Some(58_500), ..named("k") });
    let body = br#"{"model":"openai/gpt-4o-mini","messages":[],"max_tokens":7}"#;
    let ask = || [0, 1].map(|of| post(pair.gateways[of].addr, CHAT, &head, body).status);
    let mut paid = 0;
    eventually("it is spent", || {
        let both = ask();
        assert!(both.iter().all(|status| [200, 402].contains(status)), "{both:?}");
        paid += both.iter().filter(|status| **status == 200).count();
        both == [402, 402]
    });
    assert!((8..=10).contains(&paid), "{paid} answers for the price of ten");
    // Redis forgets it: each is behind by what the other spent since they last heard of each other, no more.
    server.command("FLUSHALL");
    for _ in 0..20 {
        paid += ask().iter().filter(|status| **status == 200).count();
    }
    assert!(paid <= 12, "{paid} answers for the price of ten");
    assert_eq!(ask(), [402, 402]);
}

fn requests_at_once_are_n_over_both(kind: Kind) {
    let (server, provider) = (Redis::start(kind), Provider::new(chat("x")));
    let pair = Pair::new(&provider, &server, OnRedisDown::Open);
    let head = pair.key(KeySpec { max_parallel: Some(3), ..named("k") });
    let gate = Arc::new(AtomicBool::new(false));
    let stream = post_bytes(CHAT, &head, br#"{"model":"openai/m","messages":[],"stream":true}"#);
    let mut running: Vec<Conn> = Vec::new();
    for n in 0..3 {
        provider.then(Script::Events(vec![], Then::Gate(Arc::clone(&gate), chat_events(&["x"], true))));
        let mut conn = Conn::open(pair.gateways[n % 2].addr);
        conn.send(&stream);
        conn.read_until("\r\n\r\n");
        running.push(conn);
    }
    for gateway in &pair.gateways {
        assert_eq!(post(gateway.addr, CHAT, &head, ASK).status, 429, "three run over both");
    }
    gate.store(true, Ordering::Release);
    for conn in &mut running {
        conn.read_until("[DONE]");
    }
    drop(running);
    // Each slot goes back as its request ends.
    for gateway in &pair.gateways {
        eventually("a slot is free", || post(gateway.addr, CHAT, &head, ASK).status == 200);
    }
}

fn without_redis_the_policy_holds_and_with_it_again_the_limit_does(kind: Kind) {
    for (policy, expected) in [(OnRedisDown::Open, 40), (OnRedisDown::Local, 20), (OnRedisDown::Closed, 0)] {
        let (mut server, provider) = (Redis::start(kind), Provider::new(chat("x")));
        let pair = Pair::new(&provider, &server, policy);
        let head = pair.key(KeySpec { rpm: Some(1), burst: Some(20), ..named("k") });
        let wire = post_bytes(CHAT, &head, ASK);
        server.kill();
        let before = pair.gateways[0].metric("merido_limits_fail_open_total");
        let statuses = pair.at_once(40, &wire);
        let good = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(good, expected, "{policy:?}: {statuses:?}");
        match policy {
            OnRedisDown::Open => {
                assert!(pair.gateways[0].metric("merido_limits_fail_open_total") >= before + 40.0);
            }
            OnRedisDown::Local => assert!(statuses.iter().all(|status| [200, 429].contains(status))),
            OnRedisDown::Closed => {
                let refused = post(pair.gateways[0].addr, CHAT, &head, ASK);
                assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "our fault, not theirs");
            }
        }
        server.revive();
        pair.connected(&server);
        assert_eq!(pair.at_once(40, &wire).iter().filter(|status| **status == 200).count(), 20, "{policy:?}");
    }
}

on_both!(
    a_limit_of_n_admits_n_over_both,
    tokens_used_on_one_are_missing_on_the_other,
    what_one_spent_is_missing_on_the_other,
    requests_at_once_are_n_over_both,
    without_redis_the_policy_holds_and_with_it_again_the_limit_does,
);
