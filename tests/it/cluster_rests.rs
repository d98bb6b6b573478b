//! Who rests, over several gateways on one Redis: what one meets, all honour.

use crate::support::client::{Answer, Conn, get, post};
use crate::support::cut::Wire;
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway, block_on};
use crate::support::provider::{Provider, Script, chat, error};
use crate::support::shared::{Kind, Redis, on_both};
use merido::base::Secret;
use merido::store::rows::Scope;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ASK: &[u8] = br#"{"model":"openai/gpt-4o-mini","messages":[]}"#;

/// Several gateways that are one deployment, and their provider.
struct Deployment {
    provider: Provider,
    redis: Redis,
    dir: tempfile::TempDir,
    change: fn(Setup) -> Setup,
}

/// One of them and an operator's token.
struct One {
    gateway: TestGateway,
    operator: String,
}

impl Deployment {
    fn new(kind: Kind, change: fn(Setup) -> Setup) -> Self {
        let (provider, redis) = (Provider::new(chat("hello")), Redis::start(kind));
        let dir = tempfile::tempdir().unwrap();
        // The account is made once; all share it.
        Setup::openai(&provider).prepare(dir.path());
        Self { provider, redis, dir, change }
    }

    fn start(&self) -> One {
        self.start_by(&self.redis.url())
    }

    fn start_by(&self, url: &str) -> One {
        let setup = (self.change)(Setup::new().redis(&self.redis));
        let setup = setup.with(|settings| {
            settings.redis_url = Some(Secret::new(url));
            // A busy machine is not what is tested.
            settings.redis_deadline = Duration::from_secs(2);
        });
        One::new(setup, self.dir.path())
    }

    /// Whether the account's own rest is over by Redis' clock.
    fn ended_in_redis(&self) -> bool {
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let key = words(self.redis.command("KEYS t:{acc*:rests")).pop().unwrap();
        // (length, generation, end, …) and (count, length, seconds, …).
        let end: u64 = words(self.redis.command(&format!("HGET {key} account")))[2].parse().unwrap();
        let now: u64 = words(self.redis.command("TIME"))[2].parse().unwrap();
        now * 1000 > end
    }

    /// The provider refuses the next call for a minute.
    fn limit_next(&self) {
        self.provider.then(error(429, "rate_limit_exceeded", "retry-after: 60\r\n"));
    }
}

impl One {
    fn new(setup: Setup, dir: &Path) -> Self {
        let gateway = setup.start_in(dir);
        let (_, token) = block_on(gateway.store().create_token("t", Scope::Admin, None)).unwrap();
        let operator = format!("authorization: Bearer {}\r\n", token.reveal());
        let one = Self { gateway, operator };
        eventually("it knows the token", || one.get("/api/cooldowns").status == 200);
        one
    }

    fn ask(&self) -> u16 {
        post(self.gateway.addr, "/v1/chat/completions", "", ASK).status
    }

    fn get(&self, path: &str) -> Answer {
        get(self.gateway.addr, path, &self.operator)
    }

    fn cooldowns(&self) -> Vec<Value> {
        self.get("/api/cooldowns").json()["cooldowns"].as_array().unwrap().clone()
    }

    fn unlock(&self) {
        let mut conn = Conn::open(self.gateway.addr);
        let head = "host: gateway\r\ncontent-length: 0\r\n";
        conn.send(format!("DELETE /api/cooldowns/a HTTP/1.1\r\n{head}{}\r\n", self.operator).as_bytes());
        let answer = conn.answer();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn a_limit_met_by_one_is_honoured_by_the_other(kind: Kind) {
    let all = Deployment::new(kind, |setup| setup);
    let (a, b) = (all.start(), all.start());
    assert_eq!((a.ask(), b.ask()), (200, 200));
    let mut took: Vec<Duration> = (0..200)
        .map(|n| {
            all.limit_next();
            assert_eq!(a.ask(), 429);
            let began = Instant::now();
            while b.ask() != 429 {
                assert!(began.elapsed() < Duration::from_secs(10), "trip {n} was never honoured");
            }
            let took = began.elapsed();
            let calls = all.provider.calls();
            assert_eq!((a.ask(), b.ask(), all.provider.calls()), (429, 429, calls), "nobody is asked any more");
            // The operator of the other one ends it for both.
            b.unlock();
            eventually("both serve again", || a.ask() == 200);
            took
        })
        .collect();
    took.sort_unstable();
    println!(
        "a 429 of one is honoured by the other after p50 {:?}, p99 {:?}, at most {:?}",
        took[100], took[197], took[199]
    );
    assert!(took[197] < Duration::from_secs(1), "{took:?}");
}

fn a_newcomer_and_one_that_was_cut_off_know_who_rests_before_their_first_request(kind: Kind) {
    let mut all = Deployment::new(kind, |setup| setup);
    let a = all.start();
    all.limit_next();
    assert_eq!(a.ask(), 429);
    let listed = || all.redis.command("KEYS t:{acc*:rests").contains(":rests");
    eventually("it is written down", listed);
    let b = all.start();
    let calls = all.provider.calls();
    assert_eq!(b.ask(), 429);
    assert_eq!(all.provider.calls(), calls, "its very first request asks nobody");
    let until = |one: &One| one.cooldowns()[0]["until_unix_ms"].as_u64().unwrap();
    assert!(until(&a).abs_diff(until(&b)) < 1000, "one deadline");
    // Connections are reset while there is news.
    a.unlock();
    eventually("both serve", || b.ask() == 200);
    all.redis.command("CLIENT KILL TYPE pubsub");
    all.limit_next();
    assert_eq!(a.ask(), 429);
    eventually("it is heard all the same", || b.ask() == 429);
    // Redis dies, and comes back knowing nothing: whoever starts then is told by those who remember.
    all.redis.revive();
    eventually("it is written down again", || all.redis.command("KEYS t:{acc*:rests").contains(":rests"));
    let c = all.start();
    let calls = all.provider.calls();
    assert_eq!(c.ask(), 429);
    assert_eq!(all.provider.calls(), calls);
}

#[test]
fn one_that_is_cut_off_does_not_bring_back_what_an_operator_ended() {
    let all = Deployment::new(Kind::OneServer, |setup| setup);
    let wire = Wire::new(all.redis.one().addr());
    let (a, b) = (all.start(), all.start_by(&wire.redis_url()));
    all.limit_next();
    assert_eq!(b.ask(), 429);
    eventually("a honours it", || a.ask() == 429);
    wire.cut();
    a.unlock();
    assert_eq!(a.ask(), 200);
    let calls = all.provider.calls();
    assert_eq!((b.ask(), all.provider.calls()), (429, calls), "b cannot know");
    wire.mend();
    eventually("b hears of it on return", || b.ask() == 200);
    for _ in 0..20 {
        assert_eq!((a.ask(), b.ask()), (200, 200));
    }
    assert_eq!((a.cooldowns().len(), b.cooldowns().len()), (0, 0));
    // A fresh one is honoured by all.
    all.limit_next();
    assert_eq!(b.ask(), 429);
    eventually("a honours it", || a.ask() == 429);
    // And one that b meets while it is cut off, when it is back.
    a.unlock();
    eventually("both serve", || b.ask() == 200);
    wire.cut();
    all.limit_next();
    assert_eq!(b.ask(), 429);
    assert_eq!(a.ask(), 200, "a cannot know");
    wire.mend();
    eventually("a hears of it", || a.ask() == 429);
}

fn fifty_in_flight_over_two_raise_the_level_once(kind: Kind) {
    for (status, code, head) in
        [(401, "invalid_api_key", ""), (429, "rate_limit_exceeded", "retry-after: 60\r\n"), (429, "slow_down", "")]
    {
        let all = Deployment::new(kind, |setup| {
            setup.with(|settings| {
                settings.breaker.rate_limit_lock = Duration::from_secs(30);
                settings.breaker.auth_cooldown = Duration::from_secs(30);
            })
        });
        let (a, b) = (all.start(), all.start());
        let gate = Arc::new(AtomicBool::new(false));
        all.provider.always(Script::Gated(Arc::clone(&gate), Box::new(error(status, code, head))));
        std::thread::scope(|scope| {
            for n in 0..50 {
                let one = if n % 2 == 0 { &a } else { &b };
                scope.spawn(move || assert!(one.ask() >= 429, "refused"));
            }
            eventually("all are in flight", || all.provider.calls() == 50);
            gate.store(true, Ordering::Release);
        });
        for one in [&a, &b] {
            eventually("it rests", || !one.cooldowns().is_empty());
            let rows = one.cooldowns();
            assert_eq!((rows.len(), &rows[0]["level"]), (1, &Value::from(0)), "{status} {code}: {rows:?}");
        }
        assert_eq!((a.ask() >= 429, b.ask() >= 429, all.provider.calls()), (true, true, 50), "nobody is asked");
        let level = all.redis.command("KEYS t:{acc*:rests");
        assert!(level.contains(":rests"));
    }
}

fn five_failures_over_two_open_the_breaker_on_both_and_one_trial_closes_it(kind: Kind) {
    let all = Deployment::new(kind, |setup| {
        setup.with(|settings| {
            settings.breaker.failures = 5;
            settings.breaker.open = Duration::from_millis(1500);
        })
    });
    let (a, b) = (all.start(), all.start());
    all.provider.always(error(500, "server_error", ""));
    for one in [&a, &b, &a, &b] {
        assert_eq!(one.ask(), 502);
    }
    assert_eq!(all.provider.calls(), 4);
    let counted = || {
        let key = all.redis.command("KEYS t:{acc*:failures:0");
        let key = key.lines().find(|line| line.starts_with("t:")).map(str::to_owned);
        let entries = key.map(|key| all.redis.command(&format!("LRANGE {key} 0 -1"))).unwrap_or_default();
        entries.lines().filter_map(|line| line.split_once(' ')?.1.parse::<u32>().ok()).sum::<u32>()
    };
    eventually("four are counted", || counted() == 4);
    assert!(a.cooldowns().is_empty() && b.cooldowns().is_empty());
    a.ask();
    eventually("open on both", || a.cooldowns().len() == 1 && b.cooldowns().len() == 1);
    assert_eq!((a.ask(), b.ask(), all.provider.calls()), (503, 503, 5), "nobody is asked");
    // Half-open: of all who ask, one is let through, and its answer takes its time.
    let gate = Arc::new(AtomicBool::new(false));
    all.provider.always(Script::Gated(Arc::clone(&gate), Box::new(chat("well again"))));
    let waits = |one: &One| one.cooldowns().first().is_some_and(|row| row["remaining_ms"] == 0);
    eventually("half-open on both", || waits(&a) && waits(&b));
    // Redis' own deadline may be a few milliseconds later.
    eventually("half-open there", || all.ended_in_redis());
    let served = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..40)
            .map(|n| {
                let one = if n % 2 == 0 { &a } else { &b };
                scope.spawn(move || one.ask())
            })
            .collect();
        eventually("all but one are turned away", || asked.iter().filter(|ask| ask.is_finished()).count() == 39);
        assert_eq!(all.provider.calls(), 6, "one trial");
        assert_eq!((a.ask(), b.ask(), all.provider.calls()), (503, 503, 6));
        gate.store(true, Ordering::Release);
        asked.into_iter().map(|ask| ask.join().unwrap()).filter(|&status| status == 200).count()
    });
    assert_eq!(served, 1);
    eventually("closed on both", || a.ask() == 200 && b.ask() == 200);
    assert!(a.cooldowns().is_empty() && b.cooldowns().is_empty());
}

fn without_redis_each_counts_and_tries_for_itself(kind: Kind) {
    let mut all = Deployment::new(kind, |setup| {
        setup.with(|settings| {
            settings.breaker.failures = 2;
            settings.breaker.open = Duration::from_millis(200);
        })
    });
    let a = all.start();
    all.redis.kill();
    all.provider.then(error(500, "server_error", "")).then(error(500, "server_error", ""));
    assert_eq!((a.ask(), a.ask()), (502, 502));
    assert_eq!(a.cooldowns().len(), 1, "open by its own count");
    eventually("its own trial closes it", || a.ask() == 200);
    assert!(a.cooldowns().is_empty());
}

on_both!(
    a_limit_met_by_one_is_honoured_by_the_other,
    a_newcomer_and_one_that_was_cut_off_know_who_rests_before_their_first_request,
    fifty_in_flight_over_two_raise_the_level_once,
    five_failures_over_two_open_the_breaker_on_both_and_one_trial_closes_it,
    without_redis_each_counts_and_tries_for_itself,
);
