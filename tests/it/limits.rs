//! Limits from real sockets: how many get in, what they are told, and that every slot and token comes back.

use crate::support::client::{Answer, Conn, post, post_bytes};
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway, named};
use crate::support::provider::{Provider, Script, Then, chat, chat_events};
use merido::store::rows::KeySpec;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const CHAT: &str = "/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"openai/m","messages":[]}"#;

fn bearer(key: &str) -> String {
    format!("authorization: Bearer {key}\r\n")
}

fn with_key(gateway: &TestGateway, spec: KeySpec) -> String {
    // `key` asks for the models, which is not limited: nothing of the limits is used.
    bearer(&gateway.key(spec))
}

fn number(answer: &Answer, name: &str) -> u64 {
    let value = answer.header(name).unwrap_or_else(|| panic!("no {name}: {}", answer.head));
    value.parse().unwrap()
}

/// All requests are on their way before the first answer is read.
fn at_once(gateway: &TestGateway, count: usize, wire: &[u8]) -> Vec<Answer> {
    let mut conns: Vec<Conn> = (0..count).map(|_| Conn::open(gateway.addr)).collect();
    for conn in &mut conns {
        conn.send(wire);
    }
    conns.iter_mut().map(Conn::answer).collect()
}

#[test]
fn of_two_hundred_at_once_exactly_the_burst_gets_in() {
    let provider = Provider::new(chat("x"));
    let gateway = Setup::openai(&provider).start();
    for run in 1..=20 {
        // One a minute: none flows back while the run lasts.
        let spec = KeySpec { rpm: Some(1), burst: Some(50), ..named(&format!("run {run}")) };
        let answers = at_once(&gateway, 200, &post_bytes(CHAT, &with_key(&gateway, spec), ASK));
        let (good, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        assert_eq!((good.len(), refused.len()), (50, 150), "run {run}");
        assert_eq!(provider.calls(), run * 50, "a refused request is nobody's call");
        let mut left: Vec<_> = good.iter().map(|answer| number(answer, "x-ratelimit-remaining-requests")).collect();
        left.sort_unstable();
        assert_eq!(left, (0..50).collect::<Vec<_>>(), "each was told its own place");
        for answer in refused {
            assert_eq!((answer.status, number(answer, "x-ratelimit-remaining-requests")), (429, 0));
            assert!((50..=60).contains(&number(answer, "retry-after")), "{}", answer.head);
        }
    }
}

#[test]
fn both_families_say_where_a_caller_stands() {
    let provider = Provider::new(Script::Reply(
        200,
        "content-type: application/json\r\nx-ratelimit-remaining-requests: 9999\r\nanthropic-ratelimit-requests-limit: 9\r\n"
            .to_owned(),
        br#"{"usage":{"input_tokens":11,"output_tokens":7}}"#.to_vec(),
    ));
    let (v1, bare) = (provider.openai_url(), provider.bare_url());
    let gateway = Setup::new().account("openai", "a", &v1).account("anthropic", "a", &bare).start();
    let head = with_key(&gateway, KeySpec { rpm: Some(2), burst: Some(3), tpm: Some(60_000), ..named("k") });
    let openai = post(gateway.addr, CHAT, &head, ASK);
    assert_eq!((openai.status, number(&openai, "x-ratelimit-limit-requests")), (200, 3));
    assert_eq!(number(&openai, "x-ratelimit-remaining-requests"), 2, "ours in the place of the provider's");
    assert_eq!(openai.header("x-ratelimit-reset-requests"), Some("30s"));
    assert_eq!(number(&openai, "x-ratelimit-limit-tokens"), 60_000);
    assert!(number(&openai, "x-ratelimit-remaining-tokens") < 60_000);
    assert!(openai.header("x-ratelimit-reset-tokens").is_some());

    let body = br#"{"model":"anthropic/m","max_tokens":5,"messages":[]}"#;
    let anthropic = post(gateway.addr, "/v1/messages", &head, body);
    assert_eq!(number(&anthropic, "anthropic-ratelimit-requests-limit"), 3);
    assert_eq!(number(&anthropic, "anthropic-ratelimit-requests-remaining"), 1);
    assert_eq!(number(&anthropic, "x-ratelimit-remaining-requests"), 1, "one decision, told twice");
    assert!(anthropic.header("anthropic-ratelimit-requests-reset").unwrap().ends_with('Z'));
    assert!(number(&anthropic, "anthropic-ratelimit-tokens-remaining") <= 60_000);

    assert_eq!(post(gateway.addr, "/v1/messages", &head, body).status, 200);
    let refused = post(gateway.addr, "/v1/messages", &head, body);
    assert_eq!((refused.status, refused.json()["error"]["type"].as_str()), (429, Some("rate_limit_error")));
    assert_eq!(number(&refused, "anthropic-ratelimit-requests-remaining"), 0);
    assert!((25..=30).contains(&number(&refused, "retry-after")), "{}", refused.head);
    let row = gateway.rows(4).into_iter().find(|row| row.status == 429).unwrap();
    assert_eq!((row.attempts, row.tokens.prompt, row.account), (0, 0, None));
}

#[test]
fn tokens_are_reserved_and_what_was_not_used_comes_back() {
    let provider = Provider::new(chat("x"));
    let gateway = Setup::openai(&provider).start();
    let head = with_key(&gateway, KeySpec { tpm: Some(10_000), ..named("k") });
    let body = br#"{"model":"openai/m","messages":[],"max_tokens":4000}"#;
    let estimate = 4000 + body.len().div_ceil(4) as u64;
    let left = |answer: &Answer| number(answer, "x-ratelimit-remaining-tokens");
    let first = post(gateway.addr, CHAT, &head, body);
    assert_eq!((first.status, left(&first)), (200, 10_000 - estimate));
    // The provider reported 18: unsettled, each further request would find 4,000 less.
    for _ in 0..5 {
        let next = left(&post(gateway.addr, CHAT, &head, body));
        assert!((10_000 - estimate - 5 * 18..=10_000 - estimate).contains(&next), "{next}");
    }
    // Two at once: while the first runs, its reservation holds.
    let gate = Arc::new(AtomicBool::new(false));
    provider.then(Script::Events(vec![], Then::Gate(Arc::clone(&gate), chat_events(&["x"], true))));
    let stream = br#"{"model":"openai/m","messages":[],"max_tokens":4000,"stream":true}"#;
    let mut running = Conn::open(gateway.addr);
    running.send(&post_bytes(CHAT, &head, stream));
    running.read_until("\r\n\r\n");
    let beside = left(&post(gateway.addr, CHAT, &head, body));
    assert!(beside < 10_000 - 2 * 4000, "{beside}");
    gate.store(true, Ordering::Release);
    running.read_until("[DONE]");
    eventually("the stream's reservation is settled", || left(&post(gateway.addr, CHAT, &head, body)) > 5_000);
}

#[test]
fn tokens_that_are_not_there_refuse() {
    let provider = Provider::new(chat("x"));
    let gateway = Setup::openai(&provider).start();
    let head = with_key(&gateway, KeySpec { tpm: Some(1_000), ..named("k") });
    let gate = Arc::new(AtomicBool::new(false));
    provider.then(Script::Events(vec![], Then::Gate(Arc::clone(&gate), chat_events(&["x"], true))));
    let mut running = Conn::open(gateway.addr);
    running.send(&post_bytes(CHAT, &head, br#"{"model":"openai/m","max_tokens":900,"stream":true}"#));
    running.read_until("\r\n\r\n");
    let refused = post(gateway.addr, CHAT, &head, br#"{"model":"openai/m","max_tokens":900}"#);
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(refused.text().contains("tokens per minute"), "{}", refused.text());
    assert!((1..=60).contains(&number(&refused, "retry-after")));
    let small = post(gateway.addr, CHAT, &head, br#"{"model":"openai/m","max_tokens":5}"#);
    assert_eq!(small.status, 200, "a large one that was refused does not stand in a small one's way");
    gate.store(true, Ordering::Release);
    running.read_until("[DONE]");
}

#[test]
fn slots_are_counted_and_every_way_out_gives_one_back() {
    let gate = Arc::new(AtomicBool::new(false));
    let held = Script::Events(chat_events(&["x"], false)[..1].to_vec(), Then::Gate(Arc::clone(&gate), vec![]));
    let provider = Provider::new(held);
    let gateway = Setup::openai(&provider).start();
    let head = with_key(&gateway, KeySpec { max_parallel: Some(3), ..named("k") });
    let wire = post_bytes(CHAT, &head, br#"{"model":"openai/m","stream":true}"#);
    let start = || {
        let mut conn = Conn::open(gateway.addr);
        conn.send(&wire);
        let text = conn.read_until("\r\n\r\n");
        (conn, text.starts_with("HTTP/1.1 200 "))
    };
    let refused = || post(gateway.addr, CHAT, &head, br#"{"model":"openai/m","stream":true}"#);
    let mut three: Vec<_> = (0..3).map(|_| start()).collect();
    assert!(three.iter().all(|(_, good)| *good));
    let fourth = refused();
    assert_eq!(fourth.status, 429);
    assert!(fourth.text().contains("at once") && fourth.header("retry-after").is_some(), "{}", fourth.text());
    // One leaves.
    drop(three.pop());
    eventually("its slot is free", || {
        let (conn, good) = start();
        if good {
            three.push((conn, good));
        }
        good
    });
    assert_eq!(refused().status, 429);
    // All are served to the end.
    gate.store(true, Ordering::Release);
    for (conn, _) in &mut three {
        conn.read_until("0\r\n\r\n");
    }
    // Failures give back, too.
    for status in [400, 500, 400, 500] {
        provider.then(crate::support::provider::error(status, "x", ""));
        assert!(post(gateway.addr, CHAT, &head, ASK).status != 429);
    }
    let answers = at_once(&gateway, 1, &wire);
    assert_eq!(answers[0].status, 200, "{}", answers[0].text());
}

#[test]
fn aborted_streams_give_their_slots_back() {
    let provider = Provider::new(Script::Events(chat_events(&["x"], false)[..1].to_vec(), Then::Stall));
    let gateway = Setup::openai(&provider).start();
    let head = with_key(&gateway, KeySpec { max_parallel: Some(20), ..named("k") });
    let wire = post_bytes(CHAT, &head, br#"{"model":"openai/m","stream":true}"#);
    for round in 1..=5 {
        let mut conns: Vec<Conn> = (0..20).map(|_| Conn::open(gateway.addr)).collect();
        for conn in &mut conns {
            conn.send(&wire);
        }
        eventually("all are running", || provider.calls() == round * 20);
        for conn in conns.iter_mut().step_by(2) {
            assert!(conn.read_until("\r\n\r\n").starts_with("HTTP/1.1 200 "), "round {round}");
        }
        drop(conns);
        eventually("nobody is served any more", || provider.open() == 0);
        assert_eq!(gateway.rows(round * 20).len(), round * 20, "and each has its row");
    }
}

#[test]
fn uploads_are_limited_like_everything_else() {
    let provider = Provider::new(chat("x"));
    let gateway = Setup::openai(&provider).start();
    let head = with_key(&gateway, KeySpec { rpm: Some(1), burst: Some(1), ..named("k") });
    let head = format!("{head}content-type: multipart/form-data; boundary=b\r\n");
    let form = b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nopenai/w\r\n--b--\r\n";
    let statuses = [(); 2].map(|()| post(gateway.addr, "/v1/audio/transcriptions", &head, form).status);
    assert_eq!((statuses, provider.calls()), ([200, 429], 1));
}

/// A connection from another address of loopback.
fn ask_from(from: Ipv4Addr, to: SocketAddr) -> u16 {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut conn = Conn::on(socket.into());
    conn.send(&post_bytes(CHAT, "", ASK));
    conn.answer().status
}

#[test]
fn strangers_are_limited_by_their_address() {
    let provider = Provider::new(chat("x"));
    let limited = |settings: &mut merido::config::Settings| {
        settings.rate_limit_rpm = 1;
        settings.rate_limit_burst = 3;
    };
    let gateway = Setup::openai(&provider).with(limited).start();
    let statuses = |last: u8| [(); 4].map(|()| ask_from(Ipv4Addr::new(127, 0, 0, last), gateway.addr));
    for address in [1, 2, 3] {
        assert_eq!(statuses(address), [200, 200, 200, 429], "127.0.0.{address}");
    }
    // A key has a limit of its own, with the deployment's numbers.
    let head = with_key(&gateway, named("k"));
    assert_eq!(number(&post(gateway.addr, CHAT, &head, ASK), "x-ratelimit-remaining-requests"), 2);
    // Whom nobody trusts can't choose his address.
    let forged = post(gateway.addr, CHAT, "x-forwarded-for: 10.1.1.1\r\n", ASK);
    assert_eq!(forged.status, 429);
}

#[test]
fn behind_a_trusted_proxy_the_clients_address_counts() {
    let provider = Provider::new(chat("x"));
    let limited = |settings: &mut merido::config::Settings| {
        settings.rate_limit_rpm = 1;
        settings.rate_limit_burst = 1;
        settings.trusted_proxies = vec![merido::config::Cidr { addr: Ipv4Addr::LOCALHOST.into(), bits: 32 }];
    };
    let gateway = Setup::openai(&provider).with(limited).start();
    let ask = |chain: &str| post(gateway.addr, CHAT, &format!("x-forwarded-for: {chain}\r\n"), ASK).status;
    assert_eq!([ask("10.1.1.1"), ask("9.9.9.9, 10.1.1.1"), ask("10.1.1.2")], [200, 429, 200]);
}
