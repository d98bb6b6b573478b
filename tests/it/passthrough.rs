//! Same dialect on both sides: every byte goes through, but for the permitted edits (model name, `include_usage`).
//!
//! Bodies and their framing; headers and uploads are `passhead`'s.

use crate::support::client::{Conn, post, post_bytes};
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway};
use crate::support::provider::{Provider, Script, Then, chat, chat_events};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Everything a careless rewrite would change: order, spacing, line ends, escapes, numbers no float holds, unknown
/// fields, a model's name where it is none.
const ODD: &str = "\r\n { \"zz\" :\t{\"a\":[1e400, 123456789012345678901234567890, -0.0, 1.10,\"\\u0000\\/\"]},\
    \"caf\u{e9} \u{2603}\\u2603\\ud83d\\ude00\" : \"openai/gpt-4o-mini \u{1f600}\",\n\n  MODEL \
    \"messages\":[ {\"content\":null,\"role\" : \"user\" , \"model\":\"openai/inner\"} ] ,\
    \"input\":\"x\",\"x\\\"y\":{},\"tools\":[[ ]]\t}\n";

fn odd(model: &str) -> String {
    ODD.replace("MODEL", model)
}

fn three(provider: &Provider) -> TestGateway {
    let (v1, bare) = (provider.openai_url(), provider.bare_url());
    Setup::new().account("openai", "a", &v1).account("anthropic", "a", &bare).account("gemini", "a", &bare).start()
}

#[test]
fn every_endpoint_passes_bodies_and_replies_untouched() {
    let reply = "\n{ \"x\" : 1.0e+5,\"\\u00e9\":\"\u{e9}\" ,\"usage\" : { \"zz\":1 } , \"n\":1e400 }\r\n\r\n";
    let provider = Provider::new(Script::Reply(200, "content-type: application/json\r\n".to_owned(), reply.into()));
    let gateway = three(&provider);
    let openai = [
        "chat/completions",
        "responses",
        "embeddings",
        "completions",
        "rerank",
        "images/generations",
        "audio/speech",
        "moderations",
    ]
    .map(|path| (format!("/v1/{path}"), "openai/gpt-4o-mini", "gpt-4o-mini", format!("/v1/{path}")));
    let anthropic = ["", "?beta=true", "/count_tokens"].map(|path| {
        let path = format!("/v1/messages{path}");
        (path.clone(), "anthropic/claude-x", "claude-x", path)
    });
    let gemini = [
        ("/v1beta/models/gemini/g-1:generateContent", "/v1beta/models/g-1:generateContent"),
        ("/v1/models/gemini%2Fg-1:generateContent?key=abc&x=%20y", "/v1/models/g-1:generateContent?x=%20y"),
        ("/v1beta/models/gemini/g:1:streamGenerateContent", "/v1beta/models/g:1:streamGenerateContent"),
        (
            "/v1beta/models/gemini/g-1:streamGenerateContent?alt=sse&key=abc",
            "/v1beta/models/g-1:streamGenerateContent?alt=sse",
        ),
    ]
    .map(|(path, there)| (path.to_owned(), "", "", there.to_owned()));
    for (path, asked, told, there) in openai.into_iter().chain(anthropic).chain(gemini) {
        let named =
            |model: &str| odd(&if model.is_empty() { String::new() } else { format!("\"model\" :\"{model}\" ,") });
        let answer = post(gateway.addr, &path, "", named(asked).as_bytes());
        assert_eq!((answer.status, answer.text().as_str()), (200, reply), "{path}");
        let seen = provider.seen().pop().unwrap();
        assert_eq!(seen.line(), format!("POST {there} HTTP/1.1"), "{path}");
        assert_eq!(String::from_utf8(seen.body).unwrap(), named(told), "{path}");
    }
}

#[test]
fn a_longer_name_and_an_escaped_one_are_replaced_and_nothing_else() {
    let provider = Provider::new(chat("x"));
    let target = serde_json::json!([{"model": "openai/ft:gpt-4o-mini:org::\"q\""}]);
    let setup = Setup::openai(&provider).route(serde_json::json!({"name": "v", "targets": target}));
    let gateway = setup.start();
    for asked in ["\"v\"", "\"\\u0076\""] {
        let answer = post(gateway.addr, "/v1/chat/completions", "", odd(&format!("\"model\":{asked},")).as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let body = provider.seen().pop().unwrap().body;
        let told = odd(r#""model":"ft:gpt-4o-mini:org::\"q\"","#);
        assert_eq!(String::from_utf8(body).unwrap(), told);
    }
}

#[test]
fn usage_is_asked_for_where_it_was_not_and_kept_from_who_did_not_ask() {
    let events = chat_events(&["one", " two"], true);
    let quiet = [&events[0][..], &events[1], &events[3]].concat();
    let provider = Provider::new(Script::Events(events.clone(), Then::End));
    let gateway = Setup::openai(&provider).start();
    let model = "\"model\":\"openai/gpt-4o-mini\",\"stream\":true,";
    let ask = |path: &str, extra: &str| {
        let answer = post(gateway.addr, path, "", odd(&format!("{model}{extra}")).as_bytes());
        assert_eq!(answer.status, 200);
        (answer.text(), String::from_utf8(provider.seen().pop().unwrap().body).unwrap())
    };
    let told = |extra: &str| odd(&format!("\"model\":\"gpt-4o-mini\",\"stream\":true,{extra}"));
    for path in ["/v1/chat/completions", "/v1/completions"] {
        let (answer, body) = ask(path, "");
        let asked = told("").replace("]]\t}\n", "]]\t,\"stream_options\":{\"include_usage\":true}}\n");
        assert_eq!((answer, body), (quiet.clone(), asked), "{path}");

        let wanted = "\"stream_options\": { \"include_usage\" : true , \"z\":1 },";
        assert_eq!(ask(path, wanted), (events.concat(), told(wanted)), "{path}: asked for, so kept");

        let refused = "\"stream_options\": { \"include_usage\" : false },";
        let turned = told(&refused.replace("false", "true"));
        assert_eq!(ask(path, refused), (quiet.clone(), turned), "{path}");
    }
    // Elsewhere it means nothing, or something else: hands off.
    let (answer, body) = ask("/v1/responses", "");
    assert_eq!((answer, body), (events.concat(), told("")));
    for row in gateway.rows(7).iter().filter(|row| row.endpoint != "responses") {
        assert_eq!((row.tokens.prompt, row.tokens.completion, row.estimated), (11, 2, false), "{row:?}");
    }
}

#[test]
fn a_setting_leaves_the_request_alone() {
    let provider = Provider::new(Script::Events(chat_events(&["one"], false), Then::End));
    let estimate = |settings: &mut merido::config::Settings| {
        settings.stream_usage = merido::config::StreamUsage::Estimate;
    };
    let gateway = Setup::openai(&provider).with(estimate).start();
    let body = odd("\"model\":\"openai/m\",\"stream\":true,");
    post(gateway.addr, "/v1/chat/completions", "", body.as_bytes());
    assert_eq!(provider.seen()[0].body, odd("\"model\":\"m\",\"stream\":true,").as_bytes());
    let row = &gateway.rows(1)[0];
    assert!(row.estimated && row.tokens.prompt == body.len().div_ceil(4) as u64, "{row:?}");
}

/// The head of a provider's answer and its body in chunks of the given sizes, in turn.
fn chunked(kind: &str, body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut wire =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n").into_bytes();
    let (mut rest, mut turn) = (body, sizes.iter().cycle());
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(*turn.next().unwrap()));
        wire.extend_from_slice(format!("{:X};ext=\"1\"\r\n", now.len()).as_bytes());
        wire.extend_from_slice(now);
        wire.extend_from_slice(b"\r\n");
        rest = later;
    }
    wire.extend_from_slice(b"0\r\ntrailer: x\r\n\r\n");
    wire
}

const USAGE: &str = "{\"a\":\"\u{1f600}\u{e9}\", \"usage\": {\"prompt_tokens\": 5, \"completion_tokens\": 3}}\n";

#[test]
fn whole_replies_arrive_whole_however_they_are_framed() {
    let provider = Provider::new(Script::Close);
    let gateway = Setup::openai(&provider).start();
    let close = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{USAGE}");
    let length =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{USAGE}", USAGE.len());
    let ahead = format!("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n{length}");
    let mut framings = vec![close.into_bytes(), length.into_bytes(), ahead.into_bytes()];
    framings.extend([&[1][..], &[7, 1, 2], &[4096]].map(|sizes| chunked("application/json", USAGE.as_bytes(), sizes)));
    let count = framings.len();
    for wire in framings {
        let shown = String::from_utf8_lossy(&wire).into_owned();
        provider.then(Script::Raw(wire));
        let answer = post(gateway.addr, "/v1/chat/completions", "", br#"{"model":"openai/m"}"#);
        assert_eq!((answer.status, answer.text().as_str()), (200, USAGE), "{shown}");
    }
    for row in gateway.rows(count) {
        assert_eq!((row.tokens.prompt, row.tokens.completion, row.status), (5, 3, 200), "{row:?}");
    }
}

#[test]
fn streams_split_anywhere_arrive_as_they_were() {
    let events = ": ping\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"\u{1f600}\u{e9}\"}}]}\r\n\r\nevent: odd\ndata: one\n\
        data: two\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}\n\n\
        data: [DONE]\n\nid: 7";
    let provider = Provider::new(Script::Close);
    let gateway = Setup::openai(&provider).start();
    let body = br#"{"model":"openai/m","stream":true,"stream_options":{"include_usage":true}}"#;
    for sizes in [&[1][..], &[2, 3, 5, 7], &[events.len()], &[events.len() - 9, 1]] {
        provider.then(Script::Raw(chunked("text/event-stream; charset=utf-8", events.as_bytes(), sizes)));
        let answer = post(gateway.addr, "/v1/chat/completions", "", body);
        assert_eq!(answer.text(), events, "{sizes:?}");
        assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    }
    // Each piece a write of its own.
    let pieces: Vec<String> = events.split_inclusive(['\n', ':', '}']).map(str::to_owned).collect();
    provider.then(Script::Events(pieces, Then::End));
    assert_eq!(post(gateway.addr, "/v1/chat/completions", "", body).text(), events);
    for row in gateway.rows(5) {
        assert_eq!((row.tokens.prompt, row.tokens.completion, row.estimated), (5, 3, false), "{row:?}");
    }
}

#[test]
fn a_long_reply_is_metered_at_its_end() {
    let mut reply = br#"{"data":[{"b64_json":""#.to_vec();
    reply.extend(std::iter::repeat_n(b'Q', 5 << 20));
    reply.extend_from_slice(br#""}],"usage":{"prompt_tokens":21,"completion_tokens":4000}}"#);
    let head = "content-type: application/json\r\n".to_owned();
    let provider = Provider::new(Script::Reply(200, head, reply.clone()));
    let gateway = Setup::openai(&provider).start();
    let answer = post(gateway.addr, "/v1/images/generations", "", br#"{"model":"openai/gpt-image-1"}"#);
    assert_eq!(answer.header("content-length"), Some(reply.len().to_string().as_str()));
    assert!(answer.body == reply, "{} of {} bytes", answer.body.len(), reply.len());
    let row = &gateway.rows(1)[0];
    assert_eq!((row.tokens.prompt, row.tokens.completion, row.estimated), (21, 4000, false));
}

#[test]
fn one_connection_carries_one_request_after_another_and_several_at_once() {
    let provider = Provider::new(chat("x"));
    let gateway = Setup::openai(&provider).start();
    let ask = |n: usize| {
        let head = format!("x-request-id: r{n}\r\n");
        post_bytes("/v1/chat/completions", &head, format!(r#"{{"model":"openai/m{n}"}}"#).as_bytes())
    };
    let mut conn = Conn::open(gateway.addr);
    for n in 0..3 {
        conn.send(&ask(n));
        assert_eq!(conn.answer().header("x-request-id"), Some(format!("r{n}").as_str()));
    }
    // Pipelined, with a stranger among them: answers come in order, and none is lost.
    conn.send(&[ask(3), ask(4), post_bytes("/v1/nothing", "", b"{}"), ask(5)].concat());
    let ids: Vec<_> =
        (0..4).map(|_| conn.answer()).map(|a| (a.status, a.header("x-request-id").map(str::to_owned))).collect();
    let id = |n: usize| (200, Some(format!("r{n}")));
    assert_eq!([&ids[0], &ids[1], &ids[3]], [&id(3), &id(4), &id(5)]);
    assert_eq!(ids[2].0, 404);
    assert_eq!((provider.calls(), provider.open()), (6, 1), "and the provider's connection was kept, too");
}

/// What a client sends while it waits is neither lost nor taken for its leaving: it is the next request.
#[test]
fn requests_that_come_while_an_answer_is_awaited_are_served_in_turn() {
    let (whole, rest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let events = chat_events(&["some", "words"], false);
    let (first, later) = events.split_at(1);
    let provider = Provider::new(chat("x"));
    provider
        .then(Script::Gated(Arc::clone(&whole), Box::new(chat("waited for"))))
        .then(Script::Events(first.to_vec(), Then::Gate(Arc::clone(&rest), later.to_vec())));
    let gateway = Setup::openai(&provider).start();
    let ask = |n: usize, stream: bool| {
        let head = format!("x-request-id: r{n}\r\n");
        let body = format!(r#"{{"model":"openai/m{n}","stream":{stream}}}"#);
        post_bytes("/v1/chat/completions", &head, body.as_bytes())
    };
    let mut conn = Conn::open(gateway.addr);
    conn.send(&ask(0, false));
    eventually("the first is asked", || provider.calls() == 1);
    // A byte first, the rest of the head and half the body, the end.
    let second = ask(1, true);
    for part in [&second[..1], &second[1..second.len() - 10], &second[second.len() - 10..]] {
        conn.send(part);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(provider.calls(), 1, "one after the other");
    whole.store(true, Ordering::Relaxed);
    assert_eq!(conn.answer().header("x-request-id"), Some("r0"));
    conn.read_until("data: ");
    conn.send(&ask(2, false));
    rest.store(true, Ordering::Relaxed);
    assert!(conn.answer().text().contains("[DONE]"));
    assert_eq!(conn.answer().header("x-request-id"), Some("r2"));
    assert_eq!(provider.calls(), 3);
}
