//! Who is there: instances see each other come and go, and one of another deployment stays out.

use crate::support::client::get;
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway};
use crate::support::process::Process;
use crate::support::provider::{Provider, chat};
use crate::support::shared::{Kind, Redis, on_both};
use merido::app::Gateway;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Instant;

fn cluster(addr: SocketAddr) -> Value {
    get(addr, "/api/cluster", "").json()
}

fn ids(addr: SocketAddr) -> Vec<String> {
    let view = cluster(addr);
    let mut ids: Vec<String> =
        view["instances"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

fn id(addr: SocketAddr) -> String {
    get(addr, "/healthz", "").json()["instance"].as_str().unwrap().to_owned()
}

fn redis_is(addr: SocketAddr) -> String {
    let answer = get(addr, "/healthz", "");
    assert_eq!(answer.status, 200);
    answer.json()["redis"].as_str().unwrap().to_owned()
}

fn instances_list_each_other_and_one_that_is_killed_disappears(kind: Kind) {
    let (redis, dir) = (Redis::start(kind), tempfile::tempdir().unwrap());
    let provider = Provider::new(chat("hello"));
    let data = dir.path().join("data");
    let a = Setup::openai(&provider).redis(&redis).start_in(&data);
    let b = Setup::new().redis(&redis).start_in(&data);
    let url = redis.url();
    let c = Process::start(dir.path(), &[("MERIDO_REDIS_URL", url.as_str()), ("MERIDO_REDIS_PREFIX", "t")]);
    let mut all = [id(a.addr), id(b.addr), id(c.addr)];
    all.sort();
    for addr in [a.addr, b.addr, c.addr] {
        eventually("three instances are listed", || ids(addr) == all);
        eventually("they serve alike", || {
            let view = cluster(addr);
            let mut catalogs: Vec<_> =
                view["instances"].as_array().unwrap().iter().map(|one| one["catalog"].to_string()).collect();
            catalogs.sort();
            catalogs.dedup();
            catalogs.len() == 1
        });
    }
    let view = cluster(a.addr);
    assert_eq!((view["redis"]["state"].as_str(), view["redis"]["reason"].as_str()), (Some("ok"), None));
    assert!(view["instances"].as_array().unwrap().iter().all(|one| one["version"] == env!("CARGO_PKG_VERSION")));
    let gone = id(c.addr);
    c.signal("KILL");
    let began = Instant::now();
    eventually("the killed one is gone", || !ids(a.addr).contains(&gone) && !ids(b.addr).contains(&gone));
    println!("a killed instance was gone from all lists after {:.1} s", began.elapsed().as_secs_f64());
    // One that ends in good order says so.
    let gone = id(b.addr);
    drop(b);
    eventually("it said goodbye", || ids(a.addr) == [id(a.addr)]);
    assert!(!redis.command("HKEYS t:{peers}:words").contains(&gone));
}

fn health_says_down_and_ok_again_and_the_list_comes_back(kind: Kind) {
    let (mut redis, dir) = (Redis::start(kind), tempfile::tempdir().unwrap());
    let (a, b) = (Setup::new().redis(&redis).start_in(dir.path()), Setup::new().redis(&redis).start_in(dir.path()));
    let both = |what: &str, want: &str| {
        let began = Instant::now();
        for gateway in [&a, &b] {
            eventually(what, || redis_is(gateway.addr) == want);
        }
        println!("{what}: {:.2} s", began.elapsed().as_secs_f64());
    };
    both("ok at first", "ok");
    redis.kill();
    both("down after the kill", "down");
    assert!(cluster(a.addr)["redis"]["reason"].is_string());
    redis.revive();
    both("ok after the return", "ok");
    eventually("both are listed again", || ids(a.addr).len() == 2 && ids(b.addr).len() == 2);
    redis.freeze();
    both("down when frozen", "down");
    redis.thaw();
    both("ok when thawed", "ok");
    drop((a, b));
    let alone = Setup::new().start();
    assert_eq!(redis_is(alone.addr), "off");
}

fn an_instance_of_another_deployment_does_not_start_and_says_what_differs(kind: Kind) {
    let redis = Redis::start(kind);
    let first = Setup::new().redis(&redis).start();
    let dir = tempfile::tempdir().unwrap();
    let settings = Setup::new().redis(&redis).prepare(dir.path());
    let refused = Gateway::start(settings.clone()).unwrap_err();
    for word in ["prefix `t`", "deployment id", "data key", "MERIDO_REDIS_PREFIX"] {
        assert!(refused.contains(word), "{word} is not in: {refused}");
    }
    let mut elsewhere = settings.clone();
    "u".clone_into(&mut elsewhere.redis_prefix);
    Gateway::start(elsewhere).unwrap().stop();
    // Once the first has ended the prefix is free.
    drop(first);
    Gateway::start(settings).unwrap().stop();
}

fn of_two_deployments_that_meet_later_one_serves_alone_and_says_why(kind: Kind) {
    let mut redis = Redis::start(kind);
    redis.kill();
    let (a, b) = (Setup::new().redis(&redis).start(), Setup::new().redis(&redis).start());
    redis.revive();
    let owner = |a: &TestGateway, b: &TestGateway| match (&*redis_is(a.addr), &*redis_is(b.addr)) {
        ("ok", "down") => Some(true),
        ("down", "ok") => Some(false),
        _ => None,
    };
    let reason =
        |gateway: &TestGateway| cluster(gateway.addr)["redis"]["reason"].as_str().unwrap_or_default().to_owned();
    eventually("one of them has the prefix", || {
        owner(&a, &b).is_some_and(|first| reason(if first { &b } else { &a }).contains("another live deployment"))
    });
    let (winner, other) = if owner(&a, &b) == Some(true) { (a, b) } else { (b, a) };
    assert_eq!(ids(winner.addr).len(), 1, "the other is not listed");
    assert!(reason(&other).contains("data key"), "{}", reason(&other));
    let answer = crate::support::client::post(
        other.addr,
        "/v1/chat/completions",
        "idempotency-key: a\r\n",
        br#"{"model":"demo/echo","messages":[{"role":"user","content":"hi"}]}"#,
    );
    assert_eq!(answer.status, 200, "it serves all the same");
    assert_eq!(redis.command("KEYS t:{d:*"), "*0\r\n", "and leaves nothing there");
    drop(winner);
    eventually("the prefix is free", || redis_is(other.addr) == "ok");
}

fn one_instance_leads_and_hands_over_when_it_ends(kind: Kind) {
    let (redis, dir) = (Redis::start(kind), tempfile::tempdir().unwrap());
    let a = Setup::new().redis(&redis).start_in(dir.path());
    let holder = || redis.command("GET t:{lead}:retention");
    eventually("it leads", || holder().contains(&id(a.addr)));
    let b = Setup::new().redis(&redis).start_in(dir.path());
    eventually("both are there", || ids(b.addr).len() == 2);
    let (gone, heir) = (id(a.addr), id(b.addr));
    let number = || holder().trim().rsplit_once(':').and_then(|(_, number)| number.parse::<u64>().ok()).unwrap_or(0);
    let first = number();
    assert!(holder().contains(&gone) && first > 0, "{}", holder());
    drop(a);
    eventually("the other leads under a greater number", || holder().contains(&heir) && number() > first);
}

on_both!(
    instances_list_each_other_and_one_that_is_killed_disappears,
    health_says_down_and_ok_again_and_the_list_comes_back,
    an_instance_of_another_deployment_does_not_start_and_says_what_differs,
    of_two_deployments_that_meet_later_one_serves_alone_and_says_why,
    one_instance_leads_and_hands_over_when_it_ends,
);
