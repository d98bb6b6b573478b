//! Identical requests are one call: many askers, one provider's answer, whoever leaves and whoever fails.

use crate::support::client::{Conn, post, post_bytes};
use crate::support::eventually;
use crate::support::gateway::{Setup, named};
use crate::support::provider::{Provider, Script, Then, chat, chat_events, error};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const BODY: &[u8] = br#"{"model":"openai/gpt-4o-mini","messages":[{"role":"user","content":"same"}]}"#;
const STREAM: &[u8] = br#"{"model":"openai/gpt-4o-mini","stream":true,"messages":[]}"#;
const CHAT: &str = "/v1/chat/completions";
const NAMED: &str = "idempotency-key: one\r\n";

/// A stream that sends one event, waits for the gate, and sends the rest.
fn gated(gate: &Arc<AtomicBool>) -> Script {
    let mut events = chat_events(&["one ", "two ", "three"], true);
    let rest = events.split_off(1);
    Script::Events(events, Then::Gate(Arc::clone(gate), rest))
}

#[test]
fn fifty_identical_requests_are_one_call_streamed_or_not() {
    let provider = Provider::new(chat("shared"));
    let gateway = Setup::openai(&provider).start();
    let addr = gateway.addr;
    for (round, body) in [BODY, STREAM].into_iter().enumerate() {
        let gate = Arc::new(AtomicBool::new(false));
        if round == 1 {
            provider.then(gated(&gate));
        }
        let head = format!("idempotency-key: round-{round}\r\n");
        let askers: Vec<_> = (0..50)
            .map(|_| {
                let head = head.clone();
                std::thread::spawn(move || post(addr, CHAT, &head, body))
            })
            .collect();
        eventually("the call is made", || provider.calls() > round);
        gate.store(true, Ordering::Release);
        let answers: Vec<_> = askers.into_iter().map(|one| one.join().unwrap()).collect();
        assert_eq!(provider.calls(), round + 1, "one call for fifty requests");
        let first = &answers[0];
        assert_eq!(first.status, 200, "{}", first.text());
        assert!(answers.iter().all(|one| one.body == first.body && one.status == 200));
        let leaders = answers.iter().filter(|one| one.header("x-merido-cache") == Some("miss")).count();
        assert_eq!(leaders, 1, "one leads, the others follow");
        let mut ids: Vec<_> = answers.iter().map(|one| one.header("x-request-id").unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 50, "every request keeps its own name");
    }
    let again = post(addr, CHAT, "idempotency-key: round-0\r\n", BODY);
    assert_eq!((again.header("x-merido-cache"), provider.calls()), (Some("dedup"), 2));
    assert_eq!(again.header("content-type"), Some("application/json"));
}

#[test]
fn a_leader_that_leaves_takes_nobody_with_it() {
    let gate = Arc::new(AtomicBool::new(false));
    let provider = Provider::new(gated(&gate));
    let gateway = Setup::openai(&provider).start();
    let mut leader = Conn::open(gateway.addr);
    leader.send(&post_bytes(CHAT, NAMED, STREAM));
    leader.read_until("one ");
    let mut follower = Conn::open(gateway.addr);
    follower.send(&post_bytes(CHAT, NAMED, STREAM));
    follower.read_until("one ");
    drop(leader);
    gate.store(true, Ordering::Release);
    let text = follower.read_until("[DONE]");
    assert!(text.contains("two ") && text.contains("three"), "{text}");
    assert_eq!((provider.calls(), provider.hung_up()), (1, 0));
    let rows = gateway.rows(2);
    let paid: Vec<_> = rows.iter().filter(|row| row.tokens.prompt > 0).collect();
    assert_eq!(paid.len(), 1, "one call, one bill");
    assert_eq!(paid[0].tokens.completion, 3);
}

#[test]
fn when_all_have_left_the_call_is_cancelled() {
    let provider = Provider::new(Script::Stall);
    let gateway = Setup::openai(&provider).start();
    let mut leader = Conn::open(gateway.addr);
    leader.send(&post_bytes(CHAT, NAMED, BODY));
    eventually("the call is made", || provider.calls() == 1);
    drop(leader);
    eventually("the provider is told", || provider.hung_up() == 1);
    eventually("nothing runs on", || gateway.metric("merido_requests_running") == 0.0);
}

#[test]
fn a_leader_that_fails_before_its_first_byte_hands_over() {
    // A call that stalls until its own deadline: long enough for the others to join.
    let provider = Provider::new(chat("second try"));
    provider.then(Script::Stall);
    let gateway =
        Setup::openai(&provider).with(|set| set.timeouts.first_byte = std::time::Duration::from_secs(2)).start();
    let mut leader = Conn::open(gateway.addr);
    leader.send(&post_bytes(CHAT, NAMED, BODY));
    eventually("the call is made", || provider.calls() == 1);
    let mut followers: Vec<_> = (0..5).map(|_| Conn::open(gateway.addr)).collect();
    for one in &mut followers {
        one.send(&post_bytes(CHAT, NAMED, BODY));
    }
    assert_eq!(leader.answer().status, 504);
    for one in &mut followers {
        let answer = one.answer();
        assert_eq!(
            (answer.status, answer.json()["choices"][0]["message"]["content"].as_str()),
            (200, Some("second try"))
        );
    }
    assert_eq!(provider.calls(), 2, "the next in line made one call for all of them");
}

#[test]
fn failures_are_not_kept_and_keys_never_share() {
    let provider = Provider::new(chat("fine"));
    let gateway = Setup::openai(&provider).with(|set| set.require_api_key = Some(true)).start();
    let (one, two) = (gateway.key(named("one")), gateway.key(named("two")));
    let ask = |key: &str, body: &[u8]| post(gateway.addr, CHAT, &format!("x-api-key: {key}\r\n{NAMED}"), body);
    provider.then(error(400, "bad", ""));
    assert_eq!(ask(&one, BODY).status, 400);
    assert_eq!(ask(&one, BODY).status, 200, "a failure is asked again");
    assert_eq!(ask(&one, BODY).header("x-merido-cache"), Some("dedup"));
    assert_eq!(ask(&two, BODY).header("x-merido-cache"), Some("miss"), "another key's answer is not for this one");
    let other = ask(&one, STREAM);
    assert_eq!(other.status, 422, "the same name for another request: {}", other.text());
    assert_eq!(provider.calls(), 3);
}

#[test]
fn it_applies_only_where_the_request_says_so() {
    let provider = Provider::new(chat("fine"));
    let gateway = Setup::openai(&provider).start();
    let zero = br#"{"model":"openai/gpt-4o-mini","temperature":0,"messages":[]}"#;
    let ask =
        |head: &str, body: &[u8]| post(gateway.addr, CHAT, head, body).header("x-merido-cache").map(str::to_owned);
    assert_eq!([ask("", BODY), ask("", BODY)].map(Option::unwrap), ["miss", "miss"]);
    assert_eq!([ask("", zero), ask("", zero)].map(Option::unwrap), ["miss", "dedup"]);
    assert_eq!(ask("x-merido-dedup: off\r\n", zero).unwrap(), "miss");
    let on = "x-merido-dedup: on\r\n";
    assert_eq!([ask(on, BODY), ask(on, BODY)].map(Option::unwrap), ["miss", "dedup"]);
}

#[test]
fn a_stream_that_was_not_whole_is_not_kept() {
    let events = chat_events(&["one ", "two"], true);
    let provider = Provider::new(Script::Events(events.clone(), Then::End));
    let gateway = Setup::openai(&provider).start();
    for (call, then) in [Then::Break, Then::End].into_iter().enumerate() {
        provider.then(Script::Events(events[..1].to_vec(), then));
        let answer = post(gateway.addr, CHAT, NAMED, STREAM);
        assert!(answer.text().starts_with(&events[0]), "{}", answer.text());
        assert_eq!(answer.text().matches("\"error\"").count(), 1 - call, "broken off, it says so once");
    }
    let whole = post(gateway.addr, CHAT, NAMED, STREAM);
    assert_eq!((whole.header("x-merido-cache"), provider.calls()), (Some("miss"), 3));
    assert!(whole.text().contains("two"), "{}", whole.text());
}
