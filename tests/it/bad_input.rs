//! What callers do wrong: each mistake gets its status in the caller's own dialect, and no provider hears of it.

use crate::support::client::{Answer, Conn, get, post, post_bytes};
use crate::support::dialects::{WAYS, all, refused, refused_for};
use crate::support::eventually;
use crate::support::gateway::{TestGateway, block_on, named};
use crate::support::provider::{Provider, chat};
use merido::dialect::Dialect;
use merido::store::rows::KeySpec;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A gateway for all dialects whose provider must stay unasked.
fn quiet() -> (Provider, TestGateway) {
    let provider = Provider::new(chat("never said"));
    let gateway = all(&provider).start();
    (provider, gateway)
}

#[test]
fn a_body_that_is_no_json_object() {
    let (provider, gateway) = quiet();
    for way in WAYS {
        for body in [
            "",
            " ",
            "{",
            "[]",
            "null",
            "7",
            "{\"a\":}",
            "{\"model\":\"openai/m\",}",
            "{}{}",
            "\u{feff}{}",
            "{'model':'x'}",
            "{\"temperature\":NaN}",
        ] {
            let answer = post(gateway.addr, way.path, "", body.as_bytes());
            refused_for(way.dialect, &answer, 400, None);
        }
        let deep = [b"{\"a\":".to_vec(), vec![b'['; 100_000]].concat();
        refused(way.dialect, &post(gateway.addr, way.path, "", &deep), 400);
    }
    assert_eq!(provider.calls(), 0);
}

#[test]
fn a_model_that_is_missing_or_no_name() {
    let (provider, gateway) = quiet();
    let long = "x".repeat(300);
    for way in WAYS.iter().filter(|way| way.dialect != Dialect::Gemini) {
        for body in [
            r#"{"messages":[]}"#.to_owned(),
            r#"{"model":null,"messages":[]}"#.to_owned(),
            r#"{"model":7,"messages":[]}"#.to_owned(),
            r#"{"model":["openai/m"],"messages":[]}"#.to_owned(),
            r#"{"model":{"name":"m"},"messages":[]}"#.to_owned(),
            r#"{"model":"","messages":[]}"#.to_owned(),
            format!(r#"{{"model":"openai/{long}","messages":[]}}"#),
            r#"{"model":"openai/m","model":"openai/n","messages":[]}"#.to_owned(),
        ] {
            let answer = post(gateway.addr, way.path, "", body.as_bytes());
            let message = refused_for(way.dialect, &answer, 400, Some("model"));
            assert!(message.contains("model"), "{message}");
        }
    }
    for path in
        ["/v1beta/models/:generateContent", "/v1beta/models/%zz:generateContent", "/v1/models/%00:generateContent"]
    {
        refused(Dialect::Gemini, &post(gateway.addr, path, "", b"{}"), 400);
    }
    assert_eq!(provider.calls(), 0);
}

#[test]
fn other_fields_of_the_wrong_type_are_named() {
    let (provider, gateway) = quiet();
    for (param, field) in [
        ("stream", r#""stream":"yes""#),
        ("max_tokens", r#""max_tokens":"many""#),
        ("temperature", r#""temperature":[1]"#),
    ] {
        for way in WAYS.iter().filter(|way| way.dialect != Dialect::Gemini) {
            let (provider, model) = if way.dialect == Dialect::OpenAi { ("openai", "m") } else { ("anthropic", "c") };
            let body = format!(r#"{{"model":"{provider}/{model}",{field},"messages":[]}}"#);
            let message =
                refused_for(way.dialect, &post(gateway.addr, way.path, "", body.as_bytes()), 400, Some(param));
            assert!(message.contains(param), "{message}");
        }
    }
    let body = br#"{"contents":[],"generationConfig":{"maxOutputTokens":"x y"}}"#;
    let message = refused(Dialect::Gemini, &post(gateway.addr, WAYS[2].path, "", body), 400);
    assert!(message.contains("maxOutputTokens"), "{message}");
    assert_eq!(provider.calls(), 0);
}

#[test]
fn a_model_that_nobody_serves() {
    let (provider, gateway) = quiet();
    for way in WAYS {
        for model in ["nobody/model", "no-such-model", "/", "mistral/large"] {
            let answer = match way.dialect {
                Dialect::Gemini => post(gateway.addr, &format!("/v1beta/models/{model}:generateContent"), "", b"{}"),
                _ => post(gateway.addr, way.path, "", format!(r#"{{"model":"{model}"}}"#).as_bytes()),
            };
            let message = refused_for(way.dialect, &answer, 404, Some("model"));
            assert!(message.contains(model), "{message}");
        }
    }
    assert_eq!(provider.calls(), 0);
}

#[test]
fn what_another_dialect_can_not_say_is_refused_before_anybody_is_asked() {
    let (provider, gateway) = quiet();
    let said = r#""messages":[{"role":"user","content":"hi"}]"#;
    let body = format!(r#"{{"model":"anthropic/claude-x",{said},"n":2}}"#);
    refused_for(Dialect::OpenAi, &post(gateway.addr, "/v1/chat/completions", "", body.as_bytes()), 400, Some("n"));
    let body = br#"{"model":"anthropic/claude-x","prompt":"hi"}"#;
    let message = refused_for(Dialect::OpenAi, &post(gateway.addr, "/v1/completions", "", body), 400, Some("model"));
    assert!(message.contains("anthropic/claude-x") && message.contains("openai"), "{message}");
    let body = format!(r#"{{"model":"openai/gpt-4o-mini","max_tokens":9,{said},"container":"c"}}"#);
    let message = refused(Dialect::Anthropic, &post(gateway.addr, "/v1/messages", "", body.as_bytes()), 400);
    assert!(message.contains("container"), "{message}");
    let body = br#"{"contents":[{"parts":[{"text":"hi"}]}],"cachedContent":"cachedContents/x"}"#;
    let path = "/v1beta/models/openai/m:generateContent";
    let message = refused(Dialect::Gemini, &post(gateway.addr, path, "", body), 400);
    assert!(message.contains("cachedContent"), "{message}");
    assert_eq!(provider.calls(), 0);
}

/// Each way a client may hand over a key.
fn heads(key: &str) -> [String; 3] {
    [format!("authorization: Bearer {key}\r\n"), format!("x-api-key: {key}\r\n"), format!("x-goog-api-key: {key}\r\n")]
}

#[test]
fn keys_that_do_not_open() {
    let provider = Provider::new(chat("never said"));
    let gateway = all(&provider).with(|set| set.require_api_key = Some(true)).start();
    let ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let short = gateway.key(KeySpec { expires_ms: Some(ms + 3000), ..named("short-lived") });
    let limited = gateway.key(KeySpec { models: Some(vec!["openai/allowed*".to_owned()]), ..named("limited") });
    let revoked = gateway.create_key(named("revoked"));
    let (id, revoked) = (revoked.info.id, revoked.plain.reveal().to_owned());
    let opens = || get(gateway.addr, "/v1/models", &heads(&revoked)[0]).status == 200;
    // Known first, or its refusal might come from before the gateway had heard of it.
    eventually("the gateway knows the key", opens);
    block_on(gateway.store().revoke_key(id)).unwrap();
    eventually("the gateway forgets the key", || !opens());

    let unknown = format!("mrd_{}", "A".repeat(40));
    let asked = |head: &str| WAYS.map(|way| (way.dialect, post(gateway.addr, way.path, head, way.body.as_bytes())));
    for (dialect, answer) in asked("") {
        let message = refused(dialect, &answer, 401);
        assert!(message.contains("no API key"), "{message}");
    }
    for wrong in [&unknown, &revoked, "sk-some-other-service", "mrd_", "Bearer"] {
        for head in heads(wrong) {
            for (dialect, answer) in asked(&head) {
                refused_for(dialect, &answer, 401, None);
                assert!(!answer.text().contains(&unknown) && !answer.text().contains(&revoked));
            }
        }
    }
    eventually("the short-lived key expires", || {
        let head = &heads(&short)[0];
        let answers = asked(head);
        answers[0].1.status == 401
    });
    for head in heads(&short) {
        for (dialect, answer) in asked(&head) {
            let message = refused(dialect, &answer, 401);
            assert!(message.contains("expired"), "{message}");
        }
    }
    for head in heads(&limited) {
        for (dialect, answer) in asked(&head) {
            refused_for(dialect, &answer, 403, Some("model"));
        }
    }
    // Two keys of ours that differ: neither is picked by chance.
    let two = format!("authorization: Bearer {limited}\r\nx-api-key: {unknown}\r\n");
    for (dialect, answer) in &asked(&two) {
        drop(refused(*dialect, answer, 401));
    }
    let calls = provider.calls();
    let allowed = post(gateway.addr, WAYS[0].path, &heads(&limited)[0], br#"{"model":"openai/allowed-1"}"#);
    assert_eq!(allowed.status, 200, "{}", allowed.text());
    assert_eq!(provider.calls(), calls + 1);
}

#[test]
fn a_key_is_checked_before_the_body_is_read() {
    let provider = Provider::new(chat("never said"));
    let gateway = all(&provider).with(|set| set.require_api_key = Some(true)).start();
    for way in WAYS {
        let mut conn = Conn::open(gateway.addr);
        let head = format!("POST {} HTTP/1.1\r\nhost: g\r\ncontent-length: 1000000\r\n\r\n", way.path);
        conn.send(head.as_bytes());
        refused(way.dialect, &conn.answer(), 401);
        assert!(conn.closes(), "a body nobody will read is on its way");
    }
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_buffered() {
    let provider = Provider::new(chat("never said"));
    let gateway = all(&provider).with(|set| set.max_body_bytes = 64 << 10).start();
    for way in WAYS {
        // By its own word: not a byte of the body was sent.
        let mut conn = Conn::open(gateway.addr);
        let json = "content-type: application/json";
        conn.send(
            format!("POST {} HTTP/1.1\r\nhost: g\r\n{json}\r\ncontent-length: 65537\r\n\r\n", way.path).as_bytes(),
        );
        closed_with_413(way.dialect, &mut conn);
        // Without a word: as soon as the bytes are too many, and the last chunk never came.
        let mut conn = Conn::open(gateway.addr);
        conn.send(
            format!("POST {} HTTP/1.1\r\nhost: g\r\n{json}\r\ntransfer-encoding: chunked\r\n\r\n", way.path).as_bytes(),
        );
        for _ in 0..5 {
            conn.try_send(format!("4000\r\n{}\r\n", " ".repeat(0x4000)).as_bytes());
        }
        closed_with_413(way.dialect, &mut conn);
        // At the limit it is taken.
        let pad = " ".repeat((64 << 10) - way.body.len());
        assert_eq!(post(gateway.addr, way.path, "", format!("{}{pad}", way.body).as_bytes()).status, 200);
    }
    assert_eq!(provider.calls(), WAYS.len());
}

#[track_caller]
fn closed_with_413(dialect: Dialect, conn: &mut Conn) {
    let answer = conn.answer();
    let message = refused(dialect, &answer, 413);
    assert!(message.contains("65536"), "{message}");
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(conn.closes(), "the connection carries half a body");
}

#[test]
fn a_content_type_that_is_not_json() {
    let (provider, gateway) = quiet();
    for way in WAYS {
        for kind in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json", "a\u{e9}"]
        {
            let answer = post(gateway.addr, way.path, &format!("content-type: {kind}\r\n"), way.body.as_bytes());
            let message = refused(way.dialect, &answer, 415);
            assert!(message.contains("application/json"), "{message}");
        }
        let answer = post(gateway.addr, way.path, "content-encoding: gzip\r\n", way.body.as_bytes());
        refused(way.dialect, &answer, 415);
    }
    assert_eq!(provider.calls(), 0);
    let answer = post(gateway.addr, "/v1/audio/transcriptions", "", b"{}");
    assert!(refused(Dialect::OpenAi, &answer, 415).contains("multipart/form-data"));
}

#[test]
fn a_method_the_endpoint_does_not_take() {
    let (provider, gateway) = quiet();
    for way in WAYS {
        let answer = get(gateway.addr, way.path, "x-request-id: mine\r\n");
        assert!(refused(way.dialect, &answer, 405).contains("POST"));
        assert_eq!((answer.header("allow"), answer.header("x-request-id")), (Some("POST"), Some("mine")));
        let mut conn = Conn::open(gateway.addr);
        conn.send(format!("DELETE {} HTTP/1.1\r\nhost: g\r\n\r\n", way.path).as_bytes());
        refused(way.dialect, &conn.answer(), 405);
    }
    let answer = post(gateway.addr, "/v1/models", "", b"{}");
    assert!(refused(Dialect::OpenAi, &answer, 405).contains("GET"));
    assert_eq!(answer.header("allow"), Some("GET"));
    assert_eq!(provider.calls(), 0);
}

#[test]
fn a_body_that_stops_coming() {
    let provider = Provider::new(chat("never said"));
    let gateway = all(&provider).with(|set| set.timeouts.stream_idle = Duration::from_millis(300)).start();
    for way in WAYS {
        let mut conn = Conn::open(gateway.addr);
        let whole = post_bytes(way.path, "", way.body.as_bytes());
        conn.send(&whole[..whole.len() - 5]);
        let answer: Answer = conn.answer();
        refused(way.dialect, &answer, 408);
        assert!(conn.closes());
    }
    assert_eq!(provider.calls(), 0);
}

#[test]
fn a_head_that_stops_coming_and_one_that_is_none() {
    let provider = Provider::new(chat("never said"));
    let gateway = all(&provider).with(|set| set.timeouts.client_header = Duration::from_millis(300)).start();
    for slow in ["", "P", "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-le"] {
        let mut conn = Conn::open(gateway.addr);
        conn.send(slow.as_bytes());
        assert!(conn.closes(), "still open after `{slow}`");
    }
    for garbage in ["\x16\x03\x01\x02\x00\x01", "GET\r\n\r\n", "POST /v1/messages HTTP/9.9\r\n\r\n"] {
        let mut conn = Conn::open(gateway.addr);
        conn.send(garbage.as_bytes());
        let text = String::from_utf8_lossy(&conn.rest()).into_owned();
        assert!(text.starts_with("HTTP/1.1 400"), "{garbage:?}: {text}");
    }
    assert_eq!(provider.calls(), 0);
}

#[test]
fn two_framings_at_once_are_not_smuggled_through() {
    let (provider, gateway) = quiet();
    let both = "content-length: 4\r\ntransfer-encoding: chunked\r\n";
    for framing in
        [both, "content-length: 4\r\ncontent-length: 5\r\n", "transfer-encoding: gzip\r\n", "content-length: -1\r\n"]
    {
        let mut conn = Conn::open(gateway.addr);
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\n{framing}\r\n");
        conn.send(format!("{head}0\r\n\r\nGET /v1/models HTTP/1.1\r\nhost: g\r\n\r\n").as_bytes());
        let text = String::from_utf8_lossy(&conn.rest()).into_owned();
        assert!(text.starts_with("HTTP/1.1 400"), "{framing}: {text}");
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{framing}: {text}");
    }
    assert_eq!(provider.calls(), 0);
}
