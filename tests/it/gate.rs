//! The control plane's door, who rests, and the live events, from outside.

use crate::support::client::{Answer, Conn, get, post, post_bytes};
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway, block_on};
use crate::support::provider::{Provider, Script, chat, error};
use argon2::password_hash::{PasswordHasher as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use merido::app::Order;
use merido::base::Secret;
use merido::store::rows::Scope;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const PASSWORD: &str = "correct horse";
const CHAT: &str = "/v1/chat/completions";
const QUESTION: &[u8] = br#"{"model":"openai/gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;

/// A hash of the password that costs `rounds` times the least.
fn hash(rounds: u32) -> Secret {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, rounds, 1, None).unwrap());
    let salt = SaltString::from_b64("c29tZXNhbHRzb21lc2FsdA").unwrap();
    Secret::new(argon2.hash_password(PASSWORD.as_bytes(), &salt).unwrap().to_string())
}

fn locked(setup: Setup) -> Setup {
    setup.with(|settings| settings.dashboard_password_hash = Some(hash(1)))
}

fn login(addr: SocketAddr, password: &str, head: &str) -> Answer {
    post(addr, "/api/login", head, serde_json::json!({ "password": password }).to_string().as_bytes())
}

fn token(addr: SocketAddr) -> String {
    let answer = login(addr, PASSWORD, "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["token"].as_str().unwrap().to_owned()
}

fn send(addr: SocketAddr, method: &str, path: &str, head: &str) -> Answer {
    let mut conn = Conn::open(addr);
    conn.send(format!("{method} {path} HTTP/1.1\r\nhost: gateway\r\n{head}content-length: 0\r\n\r\n").as_bytes());
    conn.answer()
}

fn code(answer: &Answer) -> String {
    answer.json()["error"]["code"].as_str().unwrap().to_owned()
}

#[test]
fn nobody_comes_in_without_and_a_session_is_good_on_every_instance_until_it_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let one = locked(Setup::new()).start_in(dir.path());
    let two = locked(Setup::new()).start_in(dir.path());
    for path in ["/api/cooldowns", "/api/events", "/api/nothing"] {
        let refused = get(one.addr, path, "");
        assert_eq!((refused.status, &*code(&refused)), (401, "unauthenticated"), "{path}");
        assert_eq!(refused.header("cache-control"), Some("no-store"));
    }
    assert_eq!(login(one.addr, "wrong", "").status, 401);
    let answer = login(one.addr, PASSWORD, "");
    let cookie = answer.header("set-cookie").unwrap().to_owned();
    assert!(cookie.contains("HttpOnly; SameSite=Strict") && !cookie.contains("Secure"), "{cookie}");
    let expires = answer.json()["expires_at"].as_str().unwrap().to_owned();
    assert!(expires.ends_with('Z') && expires.len() == 24, "{expires}");
    let bearer = format!("authorization: Bearer {}\r\n", answer.json()["token"].as_str().unwrap());
    let other = format!("authorization: Bearer {}\r\n", token(two.addr));
    for addr in [one.addr, two.addr] {
        assert_eq!(get(addr, "/api/cooldowns", &bearer).status, 200);
        assert_eq!(get(addr, "/api/cooldowns", &other).status, 200);
    }
    assert_eq!(get(one.addr, "/api/nothing", &bearer).status, 404);
    assert_eq!(send(one.addr, "PUT", "/api/cooldowns", &bearer).status, 405);
    assert_eq!(get(one.addr, "/api/login", "").status, 405);

    let out = send(one.addr, "POST", "/api/logout", &bearer);
    assert_eq!(out.status, 200, "{}", out.text());
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(get(one.addr, "/api/cooldowns", &bearer).status, 401);
    eventually("the other instance hears of it", || get(two.addr, "/api/cooldowns", &bearer).status == 401);
    assert_eq!(get(two.addr, "/api/cooldowns", &other).status, 200, "the other session goes on");
    let all = post(one.addr, "/api/logout", &other, br#"{"everywhere":true}"#);
    assert_eq!(all.status, 200, "{}", all.text());
    eventually("all are over everywhere", || get(two.addr, "/api/cooldowns", &other).status == 401);
}

#[test]
fn a_cookie_opens_and_writes_only_from_our_own_page() {
    let gateway = locked(Setup::new()).start();
    let answer = login(gateway.addr, PASSWORD, "x-forwarded-proto: https\r\n");
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.ends_with("; Secure"), "{cookie}");
    let cookie = format!("cookie: {}\r\n", cookie.split(';').next().unwrap());
    assert_eq!(get(gateway.addr, "/api/cooldowns", &cookie).status, 200);
    let write = |more: &str| send(gateway.addr, "POST", "/api/logout", &format!("{cookie}{more}")).status;
    assert_eq!(write(""), 403);
    assert_eq!(write("origin: https://evil.example\r\n"), 403);
    assert_eq!(write("sec-fetch-site: cross-site\r\n"), 403);
    assert_eq!(get(gateway.addr, "/api/cooldowns", &cookie).status, 200, "nobody was logged out");
    assert_eq!(write("origin: https://gateway\r\n"), 200);
    assert_eq!(get(gateway.addr, "/api/cooldowns", &cookie).status, 401);
    assert_eq!(login(gateway.addr, PASSWORD, "origin: https://evil.example\r\n").status, 403);
}

#[test]
fn what_is_sent_is_json_and_bounded() {
    let gateway = locked(Setup::new()).start();
    let send = |head: &str, body: &[u8]| post(gateway.addr, "/api/login", head, body);
    assert_eq!(send("content-type: text/plain\r\n", br#"{"password":"x"}"#).status, 415);
    assert_eq!(send("content-encoding: gzip\r\n", b"x").status, 415);
    for body in [&b"{"[..], b"[]", br#"{"password":7654321}"#, br#"{"pass":"7654321"}"#, b""] {
        let answer = send("", body);
        assert_eq!((answer.status, &*code(&answer)), (400, "invalid_request"));
        assert!(!answer.text().contains("7654321"), "a password is not quoted: {}", answer.text());
    }
    let mut conn = Conn::open(gateway.addr);
    let head = "POST /api/login HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n";
    conn.send(format!("{head}content-length: {}\r\n\r\n", (1 << 20) + 1).as_bytes());
    assert_eq!(conn.answer().status, 413);
    // None of these was a login: the real one is let in.
    assert_eq!(login(gateway.addr, PASSWORD, "").status, 200);
}

#[test]
fn five_wrong_passwords_close_the_door_to_an_address_and_to_no_other() {
    let gateway = locked(Setup::new()).with(|s| s.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]).start();
    let from = |addr: &str, password: &str| login(gateway.addr, password, &format!("x-forwarded-for: {addr}\r\n"));
    for _ in 0..5 {
        assert_eq!(from("192.0.2.1", "wrong").status, 401);
    }
    for password in ["wrong", PASSWORD] {
        let refused = from("192.0.2.1", password);
        assert_eq!((refused.status, &*code(&refused)), (429, "rate_limit_exceeded"));
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((200..=300).contains(&wait), "{wait}");
    }
    assert_eq!(from("192.0.2.2", PASSWORD).status, 200);
    assert_eq!(from("198.51.100.7, 192.0.2.1", PASSWORD).status, 429, "what a client says of itself does not count");
}

#[test]
fn management_tokens_open_by_scope_and_stop_when_revoked() {
    let gateway = locked(Setup::new()).start();
    let make = |name, scope| block_on(gateway.store().create_token(name, scope, None)).unwrap();
    let ((reader, read), (_, admin)) = (make("r", Scope::Read), make("a", Scope::Admin));
    let (read, admin) = (
        format!("authorization: Bearer {}\r\n", read.reveal()),
        format!("authorization: Bearer {}\r\n", admin.reveal()),
    );
    eventually("the gateway knows the tokens", || get(gateway.addr, "/api/cooldowns", &read).status == 200);
    let refused = send(gateway.addr, "POST", "/api/logout", &read);
    assert_eq!((refused.status, &*code(&refused)), (403, "forbidden"));
    assert_eq!(send(gateway.addr, "POST", "/api/logout", &admin).status, 200);
    block_on(gateway.store().revoke_token(reader.id)).unwrap();
    eventually("the gateway forgets the token", || get(gateway.addr, "/api/cooldowns", &read).status == 401);
    assert_eq!(get(gateway.addr, "/api/cooldowns", "authorization: Bearer mdm_guess\r\n").status, 401);
    assert_eq!(get(gateway.addr, "/api/cooldowns", &admin).status, 200);
}

#[test]
fn health_answers_while_many_log_in() {
    // As dear as a tenth of a second here and now, whatever this was built for: two seconds of work in all.
    let start = Instant::now();
    hash(50);
    let rounds = Duration::from_millis(100).as_nanos() * 50 / start.elapsed().as_nanos().max(1);
    let setup = Setup::new().with(|s| {
        s.dashboard_password_hash = Some(hash(rounds.clamp(1, 100_000) as u32));
        s.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    });
    let gateway = setup.start();
    let addr = gateway.addr;
    std::thread::scope(|scope| {
        let logins: Vec<_> = (0..50)
            .map(|n| scope.spawn(move || login(addr, "wrong", &format!("x-forwarded-for: 192.0.2.{n}\r\n")).status))
            .collect();
        eventually("the first are refused: the throttle is full", || {
            get(addr, "/metrics", "").text().contains("merido_logins_total{outcome=\"throttled\"}")
        });
        let mut asked = 0;
        while !logins.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let start = Instant::now();
            assert_eq!(get(addr, "/healthz", "").status, 200);
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
            asked += 1;
        }
        assert!(asked > 1, "the logins were over too soon to show anything");
        let statuses: Vec<_> = logins.into_iter().map(|login| login.join().unwrap()).collect();
        assert_eq!(statuses.iter().filter(|s| **s == 401).count(), 20, "no more were looked at: {statuses:?}");
        assert_eq!(statuses.iter().filter(|s| **s == 429).count(), 30);
    });
}

#[test]
fn who_rests_is_listed_and_unlocked_and_no_secret_is_shown() {
    let provider = Provider::new(chat("hello"));
    provider.then(error(401, "invalid_api_key", ""));
    let gateway = locked(Setup::openai(&provider)).start();
    let bearer = format!("authorization: Bearer {}\r\n", token(gateway.addr));
    assert_eq!(post(gateway.addr, CHAT, "", QUESTION).status, 502);
    let calls = provider.calls();
    let refused = post(gateway.addr, CHAT, "", QUESTION);
    assert!(refused.status >= 429 && provider.calls() == calls, "it rests: {}", refused.text());

    let list = get(gateway.addr, "/api/cooldowns", &bearer);
    assert!(!list.text().contains("sk-openai-a"), "{}", list.text());
    let row = &list.json()["cooldowns"][0];
    assert_eq!((&row["label"], &row["provider"]), (&Value::from("a"), &Value::from("openai")));
    assert_eq!((&row["reason"], &row["model"]), (&Value::from("credentials"), &Value::Null));
    let remaining = row["remaining_ms"].as_u64().unwrap();
    assert!((1..=120_000).contains(&remaining), "{row}");
    assert!(row["until"].as_str().unwrap().ends_with('Z') && row["level"].is_u64());

    assert_eq!(send(gateway.addr, "DELETE", "/api/cooldowns/acc_0000000000000009", &bearer).status, 404);
    assert_eq!(send(gateway.addr, "DELETE", "/api/cooldowns/a", "").status, 401);
    let account = row["account"].as_str().unwrap();
    let unlocked = send(gateway.addr, "DELETE", &format!("/api/cooldowns/{account}"), &bearer);
    assert_eq!((unlocked.status, &unlocked.json()["account_unlocked"]), (200, &Value::from(true)));
    assert_eq!(get(gateway.addr, "/api/cooldowns", &bearer).json()["cooldowns"], serde_json::json!([]));
    assert_eq!(post(gateway.addr, CHAT, "", QUESTION).status, 200);
}

#[test]
fn one_models_lock_is_listed_and_unlocked_by_its_name() {
    let provider = Provider::new(chat("hello"));
    provider.then(error(429, "rate_limit_exceeded", "retry-after: 30\r\n"));
    let gateway = Setup::openai(&provider).start();
    post(gateway.addr, CHAT, "", QUESTION);
    let row = get(gateway.addr, "/api/cooldowns", "").json()["cooldowns"][0].clone();
    assert_eq!((&row["reason"], &row["model"]), (&Value::from("rate_limited"), &Value::from("gpt-4o-mini")), "{row}");
    let unlock = |name: &str| send(gateway.addr, "DELETE", &format!("/api/cooldowns/a/{name}"), "");
    assert_eq!(unlock("no-such-model").status, 404);
    let done = unlock("openai%2Fgpt-4o-mini");
    assert_eq!(done.json()["models_unlocked"], serde_json::json!(["gpt-4o-mini"]), "{}", done.text());
    assert_eq!(unlock("openai/gpt-4o-mini").json()["models_unlocked"], serde_json::json!([]));
    assert_eq!(post(gateway.addr, CHAT, "", QUESTION).status, 200);
}

/// An open event stream.
struct Watch(Conn);

impl Watch {
    fn open(gateway: &TestGateway, head: &str) -> Self {
        let mut conn = Conn::open(gateway.addr);
        conn.send(format!("GET /api/events HTTP/1.1\r\nhost: gateway\r\n{head}\r\n").as_bytes());
        let head = conn.read_until("retry: 1000");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
        Self(conn)
    }

    /// Everything up to and including the event that `needle` is in: (kind, id, data) each.
    #[track_caller]
    fn events_until(&mut self, needle: &str) -> Vec<(String, String, Value)> {
        // A frame's chunk holds whole events, and the next line of the wire shows that it has ended.
        let mut text = self.0.read_until(needle);
        while !text.rsplit(needle).next().is_some_and(|tail| tail.contains("\n\n")) {
            text = self.0.read_more();
        }
        events(&text)
    }
}

fn events(text: &str) -> Vec<(String, String, Value)> {
    let line = |block: &str, name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
    };
    let blocks = text.split("\n\n").filter(|block| block.contains("event: "));
    blocks
        .filter_map(|block| {
            let data = serde_json::from_str(&line(block, "data: ")?).ok()?;
            Some((line(block, "event: ")?, line(block, "id: ")?, data))
        })
        .collect()
}

#[test]
fn a_requests_two_events_come_in_order_and_a_reconnect_resumes() {
    let provider = Provider::new(chat("hello"));
    let gateway = Setup::openai(&provider).start();
    let mut watch = Watch::open(&gateway, "");
    assert_eq!(post(gateway.addr, CHAT, "x-request-id: mine-1\r\n", QUESTION).status, 200);
    let seen = watch.events_until("event: completed");
    let kinds: Vec<_> = seen.iter().map(|(kind, ..)| kind.as_str()).collect();
    assert_eq!(kinds, ["started", "completed"]);
    let (started, completed) = (&seen[0].2, &seen[1].2);
    assert_eq!(started["request_id"], completed["request_id"]);
    assert_eq!(started["request_id"], gateway.rows(1)[0].id.to_string());
    assert_eq!((&started["client_request_id"], &started["status"]), (&Value::from("mine-1"), &Value::Null));
    assert_eq!((&completed["status"], &completed["account"]), (&Value::from(200), &Value::from("a")));
    assert_eq!(completed["tokens"]["prompt"], 11);
    assert!(completed["latency_ms"].as_f64().unwrap() > 0.0 && completed["error"].is_null(), "{completed}");
    drop(watch);

    for n in 2..4 {
        assert_eq!(post(gateway.addr, CHAT, &format!("x-request-id: mine-{n}\r\n"), QUESTION).status, 200);
    }
    let mut again = Watch::open(&gateway, &format!("last-event-id: {}\r\n", seen[0].1));
    let resumed = again.events_until("mine-3");
    assert_eq!(resumed[0].0, "completed", "what was seen does not come again");
    assert_eq!(resumed[0].2["client_request_id"], "mine-1");
    assert!(resumed.iter().any(|(kind, _, data)| kind == "completed" && data["client_request_id"] == "mine-2"));
    assert!(resumed.iter().all(|(kind, ..)| kind != "gap"));
}

#[test]
fn an_error_before_any_provider_is_an_event_too() {
    let gateway = Setup::new().start();
    let mut watch = Watch::open(&gateway, "");
    let refused = post(gateway.addr, CHAT, "", br#"{"model":"nope/none","messages":[]}"#);
    let seen = watch.events_until("event: completed");
    assert_eq!(seen.last().unwrap().2["status"], refused.status);
    assert_eq!(seen.last().unwrap().2["requested_model"], "nope/none");
}

#[test]
fn a_reader_that_does_not_read_holds_nobody_up_and_is_told_of_its_gap() {
    // An answer without a provider: many requests in little time.
    let gateway = Setup::new().with(|s| s.demo = Some(true)).start();
    let mut slow = Watch(Conn::open_narrow(gateway.addr));
    slow.0.send(b"GET /api/events HTTP/1.1\r\nhost: gateway\r\n\r\n");
    slow.0.read_until("retry: 1000");
    let name = "x".repeat(120);
    let body = br#"{"model":"demo/echo","messages":[{"role":"user","content":"hi"}]}"#;
    let addr = gateway.addr;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let head = format!("x-request-id: {name}\r\n");
            scope.spawn(move || {
                let mut conn = Conn::open(addr);
                for _ in 0..6_000 {
                    conn.send(&post_bytes(CHAT, &head, body));
                    assert_eq!(conn.answer().status, 200);
                }
            });
        }
    });
    // 48,000 events of 700 bytes: more than the ring and the sockets hold. All of them were sent by now, so the stream
    // says the gap before it falls silent.
    assert!(slow.0.skip_to("event: gap") > 1_000, "what it could take it got");
}

#[test]
fn streams_of_events_end_when_shutdown_begins() {
    let provider = Provider::new(Script::Stall);
    let gateway = locked(Setup::openai(&provider)).with(|s| s.drain = Duration::from_secs(30)).start();
    let bearer = format!("authorization: Bearer {}\r\n", token(gateway.addr));
    let mut watch = Watch::open(&gateway, &bearer);
    let mut asking = Conn::open(gateway.addr);
    asking.send(&post_bytes(CHAT, "", QUESTION));
    watch.events_until("event: started");
    let (gateway, _store, _dir) = gateway.take();
    gateway.order(Order::DrainNow);
    // The request still runs, the dashboard's stream ends at once and whole.
    let end = watch.0.rest();
    assert!(String::from_utf8_lossy(&end).ends_with("0\r\n\r\n"), "{}", String::from_utf8_lossy(&end));
    assert!(!gateway.ended());
    drop(asking);
    gateway.order(Order::Cut);
    gateway.wait();
}
