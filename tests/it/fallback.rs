//! The verdict table end to end: what each failure of a provider means for the client, for the next target and for the
//! next request. Call counts per account say who was asked.

use crate::support::client::{Answer, get, post};
use crate::support::dialects::{WAYS, all, refused};
use crate::support::gateway::{Setup, TestGateway};
use crate::support::provider::{Provider, Script, Then, chat, chat_events, error};
use merido::dialect::Dialect;
use serde_json::json;
use std::time::Duration;

const ASK: &[u8] = br#"{"model":"v","messages":[]}"#;
const STREAM: &[u8] = br#"{"model":"v","messages":[],"stream":true}"#;
const CHAT: &str = "/v1/chat/completions";

/// `v` fails over from account `a` to account `b`, both with one provider; quick deadlines.
fn pair(a: &str, b: &str) -> Setup {
    let target = |account: &str| json!({"model": "openai/gpt-4o-mini", "account": account});
    let quick = |settings: &mut merido::config::Settings| {
        settings.timeouts.first_byte_stream = Duration::from_millis(300);
        settings.timeouts.first_byte = Duration::from_millis(600);
        settings.timeouts.connect = Duration::from_millis(500);
    };
    let setup = Setup::new().account("openai", "a", a).account("openai", "b", b).with(quick);
    setup.route(json!({"name": "v", "targets": [target("a"), target("b")]}))
}

struct Two {
    a: Provider,
    b: Provider,
    gateway: TestGateway,
}

/// `a` answers so, once; then both answer well.
fn after(first: Script) -> Two {
    let (a, b) = (Provider::new(chat("from a")), Provider::new(chat("from b")));
    a.then(first);
    let gateway = pair(&a.openai_url(), &b.openai_url()).start();
    Two { a, b, gateway }
}

impl Two {
    #[track_caller]
    fn ask(&self, calls: (usize, usize)) -> Answer {
        let answer = post(self.gateway.addr, CHAT, "", ASK);
        assert_eq!((self.a.calls(), self.b.calls()), calls, "{}", answer.text());
        answer
    }

    /// `b` serves this request, and then `a` serves or rests.
    #[track_caller]
    fn falls_over(&self, what: &str, rests: bool) {
        let answer = self.ask((1, 1));
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        assert!(answer.text().contains("from b"), "{what}");
        assert_eq!(answer.header("x-merido-attempts"), Some("2"), "{what}");
        assert_eq!(answer.header("x-merido-account"), Some("b"), "{what}");
        let next = if rests { (1, 2) } else { (2, 1) };
        assert_eq!(self.ask(next).header("x-merido-attempts"), Some("1"), "{what}");
        let row = self.gateway.rows(2).into_iter().find(|row| row.attempts == 2).unwrap();
        let timeline: serde_json::Value = serde_json::from_str(row.timeline.as_deref().unwrap()).unwrap();
        assert_eq!((&timeline[0]["account"], &timeline[1]["account"]), (&json!("a"), &json!("b")), "{what}");
        assert!(timeline[0]["status"] != 200 && timeline[0]["took_ms"].is_u64(), "{what}: {timeline}");
        assert_eq!((&timeline[1]["status"], &timeline[2]), (&json!(200), &json!(null)), "{what}: {timeline}");
        assert_eq!((row.status, row.account.unwrap().1.as_str()), (200, "b"), "{what}");
    }
}

#[test]
fn what_is_the_accounts_fault_goes_to_the_next_and_rests() {
    let limit = r#"{"error":{"message":"Rate limit reached for gpt-4o-mini in organization org-1 on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;
    let quota = r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
    let key = r#"{"error":{"message":"Incorrect API key provided: sk-12***90.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#;
    let region = r#"{"error":{"message":"Country, region, or territory not supported","type":"request_forbidden","param":null,"code":"unsupported_country_region_territory"}}"#;
    let missing = r#"{"error":{"message":"The model `gpt-4o-mini` does not exist or you do not have access to it.","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#;
    let credit = r#"{"error":{"message":"Insufficient credits","code":402}}"#;
    for (status, head, body) in [
        (429, "retry-after: 20\r\nretry-after-ms: 20000\r\nx-ratelimit-reset-requests: 20s\r\n", limit),
        (429, "", quota),
        (408, "retry-after: 20\r\n", "{}"),
        (401, "", key),
        (403, "", key),
        (403, "", region),
        (404, "", missing),
        (402, "", credit),
    ] {
        let head = format!("content-type: application/json\r\n{head}");
        let two = after(Script::Reply(status, head, body.into()));
        two.falls_over(&format!("{status} {body}"), true);
    }
}

#[test]
fn what_may_pass_goes_to_the_next_and_does_not_rest_at_once() {
    for script in [error(500, "server_error", ""), error(502, "bad_gateway", ""), error(503, "overloaded", "")] {
        after(script.clone()).falls_over(&format!("{script:?}"), false);
    }
    for script in [Script::Close, Script::Raw(b"nonsense\r\n\r\n".to_vec())] {
        after(script.clone()).falls_over(&format!("{script:?}"), false);
    }
}

#[test]
fn nobody_listens_and_nobody_answers() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let b = Provider::new(chat("from b"));
    let gateway = pair(&format!("http://{gone}/v1"), &b.openai_url()).start();
    let answer = post(gateway.addr, CHAT, "", ASK);
    assert_eq!((answer.status, answer.header("x-merido-attempts"), b.calls()), (200, Some("2"), 1));

    let two = after(Script::Stall);
    two.b.always(Script::Events(chat_events(&["from b"], true), Then::End));
    let answer = post(two.gateway.addr, CHAT, "", STREAM);
    assert!(
        answer.status == 200 && answer.text().contains("from b"),
        "a stream that does not begin may be had elsewhere"
    );
    assert_eq!((two.a.calls(), two.b.calls()), (1, 1));

    // One that is not streamed may have been paid.
    let two = after(Script::Stall);
    let answer = two.ask((1, 0));
    assert_eq!((answer.status, answer.json()["error"]["type"].as_str()), (504, Some("timeout_error")));
    assert_eq!(two.ask((2, 0)).status, 200, "and is not held against the account");
}

#[test]
fn what_the_request_caused_is_the_clients_to_read() {
    let context = r#"{"error":{"message":"This model's maximum context length is 128000 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;
    let previous = r#"{"error":{"message":"Previous response with id 'resp_1' not found.","type":"invalid_request_error","param":"previous_response_id","code":"previous_response_not_found"}}"#;
    for (status, body) in [
        (400, context),
        (404, previous),
        (413, r#"{ "odd" : 1.0 }"#),
        (415, ""),
        (422, r#"{"detail":[{"type":"missing","loc":["body","messages"],"msg":"Field required"}]}"#),
    ] {
        let two =
            after(Script::Reply(status, "content-type: application/json\r\nx-theirs: 1\r\n".to_owned(), body.into()));
        let answer = two.ask((1, 0));
        assert_eq!((answer.status, answer.text().as_str()), (status, body));
        assert_eq!((answer.header("x-theirs"), answer.header("x-merido-account")), (Some("1"), Some("a")));
        assert_eq!(two.ask((2, 0)).status, 200, "{status}: nobody rests for it");
        let rows = two.gateway.rows(2);
        let row = rows.iter().find(|row| row.status == status).unwrap();
        assert_eq!((row.attempts, row.tokens.prompt, row.cost_nanos), (1, 0, 0));
    }
}

#[test]
fn after_the_first_byte_there_is_no_second_try() {
    let (a, b) = (Provider::new(chat("x")), Provider::new(chat("from b")));
    let gateway = pair(&a.openai_url(), &b.openai_url()).start();
    let half = chat_events(&["half"], false)[..1].to_vec();
    a.then(Script::Events(half.clone(), Then::Break));
    let answer = post(gateway.addr, CHAT, "", STREAM);
    let text = answer.text();
    let (first, rest) = text.split_at(half[0].len());
    assert_eq!((answer.status, first), (200, half[0].as_str()));
    let last: serde_json::Value = serde_json::from_str(rest.strip_prefix("data: ").unwrap().trim_end()).unwrap();
    assert_eq!(last["error"]["type"], "upstream_error", "{last}");
    assert!(!text.contains("[DONE]"));
    assert_eq!((a.calls(), b.calls()), (1, 0));
    let row = &gateway.rows(1)[0];
    assert_eq!((row.status, row.attempts, row.estimated), (502, 1, true), "{row:?}");
}

#[test]
fn five_failures_open_the_breaker() {
    let two = after(error(500, "server_error", ""));
    two.a.always(error(503, "overloaded", ""));
    for n in 1..=5 {
        assert_eq!(two.ask((n, n)).status, 200);
    }
    for n in 6..=8 {
        assert_eq!(two.ask((5, n)).status, 200, "the sixth request spares it");
    }
    // For every model of it.
    let target = json!({"model": "openai/gpt-4o", "messages": []}).to_string();
    assert_eq!(post(two.gateway.addr, CHAT, "", target.as_bytes()).header("x-merido-account"), Some("b"));
}

#[test]
fn a_lock_holds_for_its_model_only_and_a_refused_credential_for_all() {
    let other = json!({"model": "other", "messages": []}).to_string();
    for (status, code, other_goes_to) in [(429, "rate_limit_exceeded", "a"), (401, "invalid_api_key", "b")] {
        let (a, b) = (Provider::new(chat("x")), Provider::new(chat("x")));
        let targets = ["a", "b"].map(|account| json!({"model": "openai/gpt-4o", "account": account}));
        let setup = pair(&a.openai_url(), &b.openai_url()).route(json!({"name": "other", "targets": targets}));
        let gateway = setup.start();
        a.then(error(status, code, "retry-after: 60\r\n"));
        assert_eq!(post(gateway.addr, CHAT, "", ASK).header("x-merido-account"), Some("b"));
        let answer = post(gateway.addr, CHAT, "", other.as_bytes());
        assert_eq!(answer.header("x-merido-account"), Some(other_goes_to), "{code}");
    }
}

#[test]
fn a_pinned_target_goes_nowhere_else() {
    let (a, b) = (Provider::new(chat("from a")), Provider::new(chat("from b")));
    let target = json!([{"model": "openai/gpt-4o-mini", "account": "b"}]);
    let setup = pair(&a.openai_url(), &b.openai_url()).route(json!({"name": "pinned", "targets": target}));
    let gateway = setup.start();
    for _ in 0..10 {
        let answer = post(gateway.addr, CHAT, "", br#"{"model":"pinned"}"#);
        assert!(answer.text().contains("from b"), "{}", answer.text());
    }
    b.then(error(429, "rate_limit_exceeded", "retry-after: 30\r\n"));
    for _ in 0..3 {
        assert_eq!(post(gateway.addr, CHAT, "", br#"{"model":"pinned"}"#).status, 429);
    }
    assert_eq!((a.calls(), b.calls()), (0, 11));
}

#[test]
fn when_all_rest_the_client_learns_when_to_come_back() {
    let (a, b) = (Provider::new(chat("x")), Provider::new(chat("x")));
    a.then(error(429, "rate_limit_exceeded", "retry-after: 50\r\n"));
    b.then(error(429, "rate_limit_exceeded", "retry-after: 30\r\n"));
    let gateway = pair(&a.openai_url(), &b.openai_url()).start();
    // Whether they were asked just now or rest since before.
    for attempts in [Some("2"), None] {
        let answer = post(gateway.addr, CHAT, "", ASK);
        let message = refused(Dialect::OpenAi, &answer, 429);
        assert!(message.contains("every account"), "not a provider's words: {message}");
        let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((28..=30).contains(&after), "the earliest of them: {after}");
        let asked = ["x-merido-attempts", "x-merido-account", "x-merido-model"].map(|name| answer.header(name));
        assert_eq!(asked, [attempts, attempts.map(|_| "b"), attempts.map(|_| "openai/gpt-4o-mini")]);
    }
    assert_eq!((a.calls(), b.calls()), (1, 1));
    assert_eq!(get(gateway.addr, "/readyz", "").status, 200, "a resting provider is no reason to take us out");
}

#[test]
fn a_limit_on_every_target_is_told_in_each_dialect() {
    for way in WAYS {
        let provider = Provider::new(error(429, "rate_limit_exceeded", "retry-after: 30\r\nx-theirs: 1\r\n"));
        let gateway = all(&provider).start();
        for calls in [0, 1] {
            let answer = post(gateway.addr, way.path, "", way.body.as_bytes());
            // For a name outside the catalog nobody rests: it is asked again.
            let attempts = (provider.calls() > calls).then_some("1");
            refused(way.dialect, &answer, 429);
            let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((28..=30).contains(&after), "{after}");
            assert_eq!((answer.header("x-merido-attempts"), answer.header("x-theirs")), (attempts, None));
        }
        let rows = gateway.rows(2);
        assert!(rows.iter().all(|row| row.status == 429 && row.error.as_deref() == Some("rate_limit_exceeded")));
    }
}

#[test]
fn a_failure_beside_a_limit_is_a_failure_in_either_order() {
    let limit = || error(429, "rate_limit_exceeded", "retry-after: 30\r\n");
    let broken = || error(500, "server_error", "");
    for (first, second) in [(limit(), broken()), (broken(), limit())] {
        let (a, b) = (Provider::new(first), Provider::new(second));
        let gateway = pair(&a.openai_url(), &b.openai_url()).start();
        let answer = post(gateway.addr, CHAT, "", ASK);
        refused(Dialect::OpenAi, &answer, 502);
        let asked = ["x-merido-attempts", "x-merido-account", "retry-after"].map(|name| answer.header(name));
        assert_eq!(asked, [Some("2"), Some("b"), None], "one of them is awake");
    }
    // All rest, and not for limits only: still known is when the first one wakes.
    let key = || error(401, "invalid_api_key", "");
    for (first, second) in [(limit(), key()), (key(), limit())] {
        let (a, b) = (Provider::new(first), Provider::new(second));
        let gateway = pair(&a.openai_url(), &b.openai_url()).start();
        for status in [502, 503] {
            let answer = post(gateway.addr, CHAT, "", ASK);
            refused(Dialect::OpenAi, &answer, status);
            let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((28..=30).contains(&after), "{after}");
        }
    }
    // Larger than anybody's whole minute: that only its sender can mend.
    let large = r#"{"error":{"message":"Request too large for gpt-4o-mini in organization org-1 on tokens per min (TPM): Limit 30000, Requested 40000.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#;
    let large = Script::Reply(429, "content-type: application/json\r\n".to_owned(), large.into());
    let (a, b) = (Provider::new(large), Provider::new(limit()));
    let gateway = pair(&a.openai_url(), &b.openai_url()).start();
    let answer = post(gateway.addr, CHAT, "", ASK);
    assert!(answer.status == 429 && answer.text().contains("Request too large"), "{}", answer.text());
}

#[test]
fn a_shared_calls_refusal_says_who_was_asked() {
    let provider = Provider::new(error(500, "server_error", ""));
    let gateway = Setup::openai(&provider).start();
    let body = br#"{"model":"openai/gpt-4o-mini","messages":[],"temperature":0}"#;
    let answer = post(gateway.addr, CHAT, "x-request-id: mine\r\n", body);
    refused(Dialect::OpenAi, &answer, 502);
    let said = ["x-merido-attempts", "x-merido-account", "x-merido-model", "x-request-id"].map(|n| answer.header(n));
    assert_eq!(said, [Some("1"), Some("a"), Some("openai/gpt-4o-mini"), Some("mine")]);
    // Before any attempt there is nobody to name.
    let answer = post(gateway.addr, CHAT, "", b"{}");
    assert_eq!((answer.status, answer.header("x-merido-attempts")), (400, None));
}

#[test]
fn our_own_trouble_is_503_in_the_callers_dialect() {
    for (provider, path, body, status, kind) in [
        ("openai", CHAT, r#"{"model":"openai/gpt-4o-mini"}"#, "/error/code", "unavailable"),
        ("anthropic", "/v1/messages", r#"{"model":"anthropic/claude-sonnet-4-5"}"#, "/error/type", "overloaded_error"),
        ("gemini", "/v1beta/models/gemini/gemini-2.5-flash:generateContent", "{}", "/error/status", "UNAVAILABLE"),
    ] {
        let there = Provider::new(error(401, "invalid_api_key", ""));
        let url = if provider == "openai" { there.openai_url() } else { there.bare_url() };
        let gateway = Setup::new().account(provider, "a", &url).start();
        let first = post(gateway.addr, path, "", body.as_bytes());
        assert_eq!(first.status, 502, "never a 401 for our own credential: {}", first.text());
        assert!(!first.text().contains("invalid_api_key"), "{}", first.text());
        let answer = post(gateway.addr, path, "", body.as_bytes());
        assert_eq!((answer.status, there.calls()), (503, 1), "{}", answer.text());
        assert_eq!(answer.json().pointer(status).and_then(|kind| kind.as_str()), Some(kind), "{}", answer.text());
        let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((118..=120).contains(&after), "{after}");
    }
}

#[test]
fn names_that_callers_invent_rest_nobody() {
    let provider = Provider::new(error(404, "model_not_found", ""));
    let gateway = Setup::openai(&provider).start();
    for n in 1..=3 {
        let answer = post(gateway.addr, CHAT, "", br#"{"model":"openai/invented"}"#);
        assert_eq!((answer.status, provider.calls()), (404, n), "the provider's answer, each time");
    }
}
