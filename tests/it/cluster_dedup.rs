//! Finished answers are every instance's, calls in flight if one wants it so; nobody gets what is not its own, and Redis
//! may do what it likes.

use crate::support::client::{Answer, Conn, post, post_bytes};
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway, named};
use crate::support::process::Process;
use crate::support::provider::{Provider, Script, Then, chat, chat_events};
use crate::support::shared::{Kind, Redis, on_both};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const CHAT: &str = "/v1/chat/completions";
const BODY: &[u8] = br#"{"model":"openai/gpt-4o-mini","messages":[{"role":"user","content":"same"}]}"#;
const STREAM: &[u8] = br#"{"model":"openai/gpt-4o-mini","stream":true,"messages":[]}"#;

/// Two gateways of one deployment. The deadline is long: what is tested is what they say, not how fast this machine is.
struct Pair {
    a: TestGateway,
    b: TestGateway,
    redis: Redis,
    _dir: TempDir,
}

impl Pair {
    fn of(kind: Kind, provider: &Provider, change: fn(Setup) -> Setup) -> Self {
        let (redis, dir) = (Redis::start(kind), tempfile::tempdir().unwrap());
        let patient =
            |setup: Setup| change(setup.redis(&redis).with(|set| set.redis_deadline = Duration::from_secs(5)));
        let a = patient(Setup::openai(provider)).start_in(dir.path());
        let b = patient(Setup::new()).start_in(dir.path());
        shares(a.addr, b.addr);
        shares(b.addr, a.addr);
        Self { a, b, redis, _dir: dir }
    }

    /// The key of the one answer that is in Redis now.
    fn stored(&self) -> String {
        let mut key = String::new();
        eventually("an answer is shared", || {
            let found = self.redis.command("KEYS t:{d:*}:a");
            found.lines().find(|line| line.starts_with("t:{d:")).unwrap_or_default().clone_into(&mut key);
            !key.is_empty()
        });
        key
    }

    fn empty(&self) {
        self.redis.command("FLUSHALL");
    }
}

fn ask(addr: SocketAddr, name: &str, body: &[u8]) -> Answer {
    post(addr, CHAT, &format!("idempotency-key: {name}\r\n"), body)
}

fn cache(answer: &Answer) -> &str {
    answer.header("x-merido-cache").unwrap_or_default()
}

/// Waits until what `one` got is the other's hit, several times in a row: of a cluster, all nodes are reached.
#[track_caller]
fn shares(one: SocketAddr, other: SocketAddr) {
    let (mut round, mut in_a_row) = (0, 0);
    eventually("answers are shared", || {
        round += 1;
        let name = format!("warm-{}-{round}", one.port());
        assert_eq!(ask(one, &name, BODY).status, 200);
        std::thread::sleep(Duration::from_millis(20));
        in_a_row = if cache(&ask(other, &name, BODY)) == "dedup" { in_a_row + 1 } else { 0 };
        in_a_row == 6
    });
}

fn an_answer_made_on_one_instance_is_a_hit_on_the_other_and_only_for_its_key(kind: Kind) {
    let provider = Provider::new(chat("shared"));
    let pair = Pair::of(kind, &provider, |setup| setup.with(|set| set.require_api_key = Some(false)));
    pair.empty();
    let before = provider.calls();
    let (mine, other) = (pair.a.key(named("mine")), pair.a.key(named("other")));
    let as_key =
        |addr, key: &str| post(addr, CHAT, &format!("authorization: Bearer {key}\r\nidempotency-key: one\r\n"), BODY);
    eventually("the other instance knows the key", || {
        crate::support::client::get(pair.b.addr, "/v1/models", &format!("authorization: Bearer {other}\r\n")).status
            == 200
    });
    let made = as_key(pair.a.addr, &mine);
    assert_eq!((made.status, cache(&made)), (200, "miss"));
    pair.stored();
    let hit = as_key(pair.b.addr, &mine);
    assert_eq!((hit.status, cache(&hit), &hit.body), (200, "dedup", &made.body));
    assert_eq!(hit.header("content-type"), Some("application/json"));
    assert_ne!(hit.header("x-request-id"), made.header("x-request-id"));
    assert_eq!(provider.calls(), before + 1, "the provider was asked once");
    // It lies in the other's own memory now.
    pair.empty();
    assert_eq!(cache(&as_key(pair.b.addr, &mine)), "dedup");
    let foreign = as_key(pair.b.addr, &other);
    assert_eq!((cache(&foreign), provider.calls()), ("miss", before + 2), "keys never share");
    // Whoever is served from elsewhere pays nothing.
    eventually("both hits are in the log, without a token", || {
        pair.b
            .rows(3)
            .iter()
            .filter(|row| row.key.as_ref().is_some_and(|(_, name)| name == "mine") && row.tokens.prompt == 0)
            .count()
            == 2
    });
}

fn what_was_changed_in_redis_is_a_miss_and_what_is_large_is_never_there(kind: Kind) {
    let provider = Provider::new(chat("whole"));
    let pair = Pair::of(kind, &provider, |setup| setup);
    pair.empty();
    let before = provider.calls();
    ask(pair.a.addr, "bent", BODY);
    let key = pair.stored();
    let unreadable = pair.b.metric("merido_dedup_shared_total{what=\"unreadable\"}");
    let (length, ttl) = (pair.redis.command(&format!("STRLEN {key}")), pair.redis.command(&format!("PTTL {key}")));
    let number = |text: &str| text.trim().trim_start_matches(':').parse::<i64>().unwrap();
    assert!(number(&length) > 60 && (1..=60_000).contains(&number(&ttl)), "{length} {ttl}");
    // One bit, in the middle of what is sealed.
    let bit = number(&pair.redis.command(&format!("GETBIT {key} 321")));
    pair.redis.command(&format!("SETBIT {key} 321 {}", 1 - bit));
    let answer = ask(pair.b.addr, "bent", BODY);
    assert_eq!((answer.status, cache(&answer), provider.calls()), (200, "miss", before + 2));
    assert!(pair.b.metric("merido_dedup_shared_total{what=\"unreadable\"}") > unreadable);

    pair.empty();
    let large = format!("{{\"choices\":[],\"pad\":\"{}\"}}", "x".repeat(300 << 10));
    provider.then(Script::Reply(200, "content-type: application/json\r\n".to_owned(), large.clone().into_bytes()));
    assert_eq!(ask(pair.a.addr, "large", BODY).body.len(), large.len());
    ask(pair.a.addr, "small", BODY);
    pair.stored();
    assert_eq!(cache(&ask(pair.a.addr, "large", BODY)), "dedup", "here it is kept");
    let before = provider.calls();
    assert_eq!((cache(&ask(pair.b.addr, "large", BODY)), provider.calls()), ("miss", before + 1));
}

fn a_stream_made_on_one_instance_is_replayed_by_the_other(kind: Kind) {
    let provider = Provider::new(Script::Events(chat_events(&["one ", "two"], true), Then::End));
    let pair = Pair::of(kind, &provider, |setup| setup);
    pair.empty();
    let made = ask(pair.a.addr, "stream", STREAM);
    pair.stored();
    let before = provider.calls();
    let hit = ask(pair.b.addr, "stream", STREAM);
    assert_eq!((cache(&hit), hit.header("content-type")), ("dedup", made.header("content-type")));
    assert_eq!((hit.text(), provider.calls()), (made.text(), before));
}

fn requests_go_on_through_an_outage_and_answers_are_shared_again_after_it(kind: Kind) {
    let provider = Provider::new(chat("fine"));
    let mut pair = Pair::of(kind, &provider, |setup| setup.with(|set| set.redis_deadline = Duration::from_millis(25)));
    for round in 0..90 {
        match round {
            30 => pair.redis.kill(),
            60 => pair.redis.revive(),
            _ => {}
        }
        for gateway in [&pair.a, &pair.b] {
            let answer = ask(gateway.addr, &format!("round-{round}"), BODY);
            assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
        }
    }
    shares(pair.a.addr, pair.b.addr);
    shares(pair.b.addr, pair.a.addr);
}

fn fifty_identical_requests_over_two_instances_are_one_call_if_one_wants_it_so(kind: Kind) {
    let gate = Arc::new(AtomicBool::new(false));
    let provider = Provider::new(chat("shared"));
    let pair = Pair::of(kind, &provider, |setup| setup.with(|set| set.dedup_cluster = true));
    let before = provider.calls();
    let mut events = chat_events(&["one ", "two ", "three"], true);
    let rest = events.split_off(1);
    provider.then(Script::Events(events, Then::Gate(Arc::clone(&gate), rest)));
    let addrs = [pair.a.addr, pair.b.addr];
    let waited = pair.a.metric("merido_dedup_claims_total{what=\"waited\"}");
    let askers: Vec<_> = (0..50).map(|n| std::thread::spawn(move || ask(addrs[n % 2], "fifty", STREAM))).collect();
    eventually("one instance waits for the other", || {
        pair.a.metric("merido_dedup_claims_total{what=\"waited\"}") > waited
    });
    gate.store(true, Ordering::Release);
    let answers: Vec<_> = askers.into_iter().map(|one| one.join().unwrap()).collect();
    assert!(answers.iter().all(|one| one.status == 200 && one.body == answers[0].body));
    assert_eq!(provider.calls(), before + 1, "one call for fifty requests on two instances");
    assert_eq!(answers.iter().filter(|one| cache(one) == "miss").count(), 1);
}

fn whoever_waits_for_another_instance_goes_on_when_that_fails_or_has_nothing_to_share(kind: Kind) {
    let provider = Provider::new(chat("second"));
    let pair = Pair::of(kind, &provider, |setup| {
        setup.with(|set| (set.dedup_cluster, set.timeouts.first_byte) = (true, Duration::from_secs(2)))
    });
    let before = provider.calls();
    provider.then(Script::Stall);
    let mut one = Conn::open(pair.a.addr);
    one.send(&post_bytes(CHAT, "idempotency-key: fails\r\n", BODY));
    eventually("the call is made", || provider.calls() == before + 1);
    let other = std::thread::spawn({
        let addr = pair.b.addr;
        move || ask(addr, "fails", BODY)
    });
    assert_eq!(one.answer().status, 504);
    let other = other.join().unwrap();
    assert_eq!((other.status, cache(&other), provider.calls()), (200, "miss", before + 2));

    // A good answer that is too large: whoever waits is told so.
    let gate = Arc::new(AtomicBool::new(false));
    let mut events = chat_events(&["one ", "two"], true);
    let rest = vec![
        format!("data: {{\"choices\":[],\"pad\":\"{}\"}}\n\n", "x".repeat(300 << 10)),
        events.split_off(1).concat(),
    ];
    provider.then(Script::Events(events, Then::Gate(Arc::clone(&gate), rest)));
    let waited = pair.a.metric("merido_dedup_claims_total{what=\"waited\"}");
    let addr = pair.a.addr;
    let large = std::thread::spawn(move || ask(addr, "large", STREAM));
    eventually("the call is made", || provider.calls() == before + 3);
    let addr = pair.b.addr;
    let other = std::thread::spawn(move || ask(addr, "large", STREAM));
    eventually("the other waits", || pair.a.metric("merido_dedup_claims_total{what=\"waited\"}") > waited);
    gate.store(true, Ordering::Release);
    assert!(large.join().unwrap().body.len() > 300 << 10);
    assert_eq!((other.join().unwrap().status, provider.calls()), (200, before + 4), "too large to share: called alone");
}

fn when_the_instance_that_calls_for_all_is_killed_another_takes_over(kind: Kind) {
    let provider = Provider::new(chat("second"));
    let (redis, dir) = (Redis::start(kind), tempfile::tempdir().unwrap());
    Setup::openai(&provider).prepare(&dir.path().join("data"));
    let url = redis.url();
    let env = [
        ("MERIDO_REDIS_URL", url.as_str()),
        ("MERIDO_REDIS_PREFIX", "t"),
        ("MERIDO_REDIS_DEADLINE_MS", "5000"),
        ("MERIDO_DEDUP_CLUSTER", "true"),
    ];
    let (a, b) = (Process::start(dir.path(), &env), Process::start(dir.path(), &env));
    shares(a.addr, b.addr);
    shares(b.addr, a.addr);
    let before = provider.calls();
    provider.then(Script::Stall);
    let mut led = Conn::open(a.addr);
    led.send(&post_bytes(CHAT, "idempotency-key: killed\r\n", BODY));
    eventually("the call is made", || provider.calls() == before + 1);
    let addr = b.addr;
    let waiting = std::thread::spawn(move || ask(addr, "killed", BODY));
    eventually("the other waits", || b.get("/metrics").text().contains("merido_dedup_claims_total{what=\"waited\"} 1"));
    a.signal("KILL");
    let answer = waiting.join().unwrap();
    assert_eq!((answer.status, cache(&answer), provider.calls()), (200, "miss", before + 2));
}

fn the_same_idempotency_key_with_another_body_is_refused_wherever_it_comes(kind: Kind) {
    let provider = Provider::new(chat("once"));
    let pair = Pair::of(kind, &provider, |setup| setup.with(|set| set.require_api_key = Some(false)));
    let other: &[u8] = br#"{"model":"openai/gpt-4o-mini","messages":[{"role":"user","content":"other"}]}"#;
    assert_eq!(ask(pair.a.addr, "one", BODY).status, 200);
    let refused = ask(pair.b.addr, "one", other);
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("Idempotency-Key"), "{}", refused.text());
    assert_eq!(ask(pair.b.addr, "one", other).status, 422, "again, and nothing of it stays");
    assert_eq!(ask(pair.b.addr, "two", other).status, 200);
    assert_eq!(ask(pair.a.addr, "two", BODY).status, 422);
    eventually("the same is the same on both", || cache(&ask(pair.b.addr, "one", BODY)) == "dedup");
}

on_both!(
    an_answer_made_on_one_instance_is_a_hit_on_the_other_and_only_for_its_key,
    what_was_changed_in_redis_is_a_miss_and_what_is_large_is_never_there,
    a_stream_made_on_one_instance_is_replayed_by_the_other,
    requests_go_on_through_an_outage_and_answers_are_shared_again_after_it,
    fifty_identical_requests_over_two_instances_are_one_call_if_one_wants_it_so,
    whoever_waits_for_another_instance_goes_on_when_that_fails_or_has_nothing_to_share,
    when_the_instance_that_calls_for_all_is_killed_another_takes_over,
    the_same_idempotency_key_with_another_body_is_refused_wherever_it_comes,
);
