//! Golden pairs: `tests/golden/{requests,answers,streams}/CASE.FROM.*` and what each becomes, `CASE.FROM-TO.*`.
//!
//! The sources are the forms of the providers' public documentation. With `MERIDO_TEST_BLESS=1` what comes out is written
//! down anew; look at the difference before it is kept.

use super::*;
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const CALLERS: [(&str, Endpoint); 4] = [
    ("chat", Endpoint::Chat),
    ("responses", Endpoint::Responses),
    ("messages", Endpoint::Messages),
    ("generate", Endpoint::StreamGenerate),
];

fn endpoint(name: &str) -> Endpoint {
    CALLERS.iter().find(|(known, _)| *known == name).unwrap().1
}

fn providers() -> impl Iterator<Item = (&'static str, Endpoint)> {
    CALLERS.into_iter().filter(|(_, endpoint)| *endpoint != Endpoint::Responses)
}

fn target(to: Endpoint) -> Target<'static> {
    match to.dialect() {
        Dialect::OpenAi => Target { model: "gpt-4o", provider: "openai", max_output: 16_384 },
        Dialect::Anthropic => Target { model: "claude-sonnet-4-5", provider: "anthropic", max_output: 64_000 },
        Dialect::Gemini => Target { model: "gemini-3-flash-preview", provider: "gemini", max_output: 65_536 },
    }
}

fn facts() -> Facts {
    Facts { id: "00ff".into(), model: "asked".into(), created: 1_700_000_000, include_usage: true, array: false }
}

fn dir(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(kind)
}

/// All sources of a kind: `(case, from, text)`.
fn sources(kind: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir(kind)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (case, from) = name.split_once('.').unwrap();
        if !from.contains('-') {
            found.push((case.to_owned(), from.to_owned(), fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    assert!(found.len() >= 6, "{kind}: the goldens are gone");
    found
}

#[track_caller]
fn golden(kind: &str, name: &str, became: &str) {
    let path = dir(kind).join(name);
    if std::env::var_os("MERIDO_TEST_BLESS").is_some() {
        fs::write(&path, became).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(known == became, "{name} is now\n{became}\nand was\n{known}");
}

/// Order and digits as they went out, one member a line.
fn pretty(json: &[u8]) -> String {
    fn write(raw: &RawValue, depth: usize, text: &mut String) {
        let pad = "  ".repeat(depth);
        let comma = |n: usize| if n > 0 { ",\n" } else { "" };
        if let Some(members) = json::members(raw).filter(|members| !members.is_empty()) {
            text.push_str("{\n");
            for (n, (key, value)) in members.iter().enumerate() {
                write!(text, "{}{pad}  {}: ", comma(n), Value::from(&**key)).unwrap();
                write(value, depth + 1, text);
            }
            write!(text, "\n{pad}}}").unwrap();
        } else if let Some(items) = json::list(raw).filter(|items| !items.is_empty()) {
            text.push_str("[\n");
            for (n, value) in items.into_iter().enumerate() {
                write!(text, "{}{pad}  ", comma(n)).unwrap();
                write(value, depth + 1, text);
            }
            write!(text, "\n{pad}]").unwrap();
        } else {
            text.push_str(raw.get());
        }
    }
    let mut text = String::new();
    let raw = json::document(json).unwrap_or_else(|| panic!("no JSON: {}", String::from_utf8_lossy(json)));
    write(raw, 0, &mut text);
    text + "\n"
}

#[test]
fn requests_become_what_they_should() {
    for (case, from, text) in sources("requests") {
        let asked = endpoint(&from);
        for (name, to) in providers().filter(|(_, to)| to.dialect() != asked.dialect()) {
            let stream = text.contains("\"stream\": true");
            let became = match request(asked, text.as_bytes(), to, &target(to), stream, true) {
                Ok(body) => pretty(&body),
                Err(error) => format!("refused: {} [{}]\n", error.message, error.param.unwrap_or_default()),
            };
            golden("requests", &format!("{case}.{from}-{name}.json"), &became);
        }
    }
}

#[test]
fn answers_become_what_they_should() {
    for (case, from, text) in sources("answers") {
        let asked = endpoint(&from);
        for (name, to) in CALLERS.into_iter().filter(|(_, to)| to.dialect() != asked.dialect()) {
            let body = answer(asked, text.as_bytes(), to, &facts()).unwrap();
            golden("answers", &format!("{case}.{from}-{name}.json"), &pretty(&body));
        }
    }
}

fn translated(from: Endpoint, to: Endpoint, facts: Facts, pieces: &[&[u8]]) -> String {
    let mut translator = StreamTranslator::new(from, to, facts);
    let mut all = Vec::new();
    for piece in pieces {
        all.extend_from_slice(&translator.feed(piece));
    }
    all.extend_from_slice(&translator.finish());
    String::from_utf8(all).unwrap()
}

#[test]
fn streams_become_what_they_should_however_they_are_cut() {
    for (case, from, text) in sources("streams") {
        let asked = endpoint(&from);
        let bytes = text.as_bytes();
        for (name, to) in CALLERS.into_iter().filter(|(_, to)| to.dialect() != asked.dialect()) {
            let whole = translated(asked, to, facts(), &[bytes]);
            golden("streams", &format!("{case}.{from}-{name}.sse"), &whole);
            for cut in 0..bytes.len() {
                let (one, two) = bytes.split_at(cut);
                assert_eq!(translated(asked, to, facts(), &[one, two]), whole, "{case} {from}-{name} cut at {cut}");
            }
            let each: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(translated(asked, to, facts(), &each), whole, "{case} {from}-{name} byte by byte");
            let windows = text.replace('\n', "\r\n");
            assert_eq!(translated(asked, to, facts(), &[windows.as_bytes()]), whole, "{case} {from}-{name} in CRLF");
        }
    }
}

#[test]
fn geminis_other_stream_form_is_one_array() {
    let text = fs::read_to_string(dir("streams").join("tools.chat.sse")).unwrap();
    let events = translated(Endpoint::Chat, Endpoint::StreamGenerate, facts(), &[text.as_bytes()]);
    let array = Facts { array: true, ..facts() };
    let whole = translated(Endpoint::Chat, Endpoint::StreamGenerate, array.clone(), &[text.as_bytes()]);
    let list: Vec<Value> = serde_json::from_str(&whole).unwrap();
    let each: Vec<Value> = events
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|d| serde_json::from_str(d).unwrap())
        .collect();
    assert_eq!(list, each);
    let broken = translated(Endpoint::Chat, Endpoint::StreamGenerate, array, &[b"data: {nonsense}\n\n"]);
    assert_eq!(serde_json::from_str::<Vec<Value>>(&broken).unwrap()[0]["error"]["code"], 502);
}

#[test]
fn usage_goes_only_to_who_asked_for_it() {
    let text = fs::read_to_string(dir("streams").join("text.messages.sse")).unwrap();
    let quiet = Facts { include_usage: false, ..facts() };
    let chunks = translated(Endpoint::Messages, Endpoint::Chat, quiet, &[text.as_bytes()]);
    assert!(!chunks.contains("usage") && chunks.ends_with("data: [DONE]\n\n"), "{chunks}");
}

/// A conversation that every dialect can say, in the form that the chat writer gives it.
const EVERYWHERE: &str = r#"{"model":"gpt-4o","messages":[{"role":"system","content":"Be kind."},{"role":"user","content":[{"type":"text","text":"What is it?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]},{"role":"assistant","content":"I look.","tool_calls":[{"id":"call_1","type":"function","function":{"name":"look","arguments":"{\"z\":1.50,\"a\":[12345678901234567890]}"}}]},{"role":"tool","tool_call_id":"call_1","content":"a \"cat\"\n"},{"role":"user","content":"So?"}],"tools":[{"type":"function","function":{"name":"look","description":"Looks","parameters":{"type":"object","properties":{"z":{"type":"number"},"a":{"type":"array"}}}}}],"tool_choice":"required","max_completion_tokens":77,"temperature":0.30,"top_p":0.9,"stop":["x"]}"#;

#[test]
fn there_and_back_again_says_the_same() {
    let gpt = target(Endpoint::Chat);
    for to in [Endpoint::Messages, Endpoint::Generate] {
        let there = request(Endpoint::Chat, EVERYWHERE.as_bytes(), to, &target(to), false, false).unwrap();
        let back = request(to, &there, Endpoint::Chat, &gpt, false, false).unwrap();
        assert_eq!(std::str::from_utf8(&back).unwrap(), EVERYWHERE, "{to:?}");
        // And between the two others.
        let other = if to == Endpoint::Messages { Endpoint::Generate } else { Endpoint::Messages };
        let on = request(to, &there, other, &target(other), false, false).unwrap();
        let back = request(other, &on, Endpoint::Chat, &gpt, false, false).unwrap();
        assert_eq!(std::str::from_utf8(&back).unwrap(), EVERYWHERE, "{to:?} {other:?}");
    }
}

#[test]
fn a_seal_finds_its_call_behind_a_thought() {
    let said = r#"{"candidates":[{"content":{"parts":[{"text":"Hm.","thought":true},{"functionCall":{"name":"f","args":{}},"thoughtSignature":"c2VhbA=="}]},"finishReason":"STOP"}]}"#;
    let message = answer(Endpoint::Generate, said.as_bytes(), Endpoint::Messages, &facts()).unwrap();
    let message: Value = serde_json::from_slice(&message).unwrap();
    let ask = serde_json::json!({"max_tokens": 9, "messages": [{"role": "user", "content": "x"},
        {"role": "assistant", "content": message["content"]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": message["content"][2]["id"], "content": "y"}]}]});
    let to = Endpoint::Generate;
    let back = request(Endpoint::Messages, ask.to_string().as_bytes(), to, &target(to), false, false).unwrap();
    let back: Value = serde_json::from_slice(&back).unwrap();
    assert_eq!(back["contents"][1]["parts"][0]["thoughtSignature"], "c2VhbA==", "{back}");
}

#[test]
fn answers_come_back_the_same() {
    let text = fs::read_to_string(dir("answers").join("tools.chat.json")).unwrap();
    let direct = answer(Endpoint::Chat, text.as_bytes(), Endpoint::Responses, &facts()).unwrap();
    for through in [Endpoint::Messages, Endpoint::Generate] {
        let there = answer(Endpoint::Chat, text.as_bytes(), through, &facts()).unwrap();
        let read = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).unwrap() };
        let (back, direct) = (read(&answer(through, &there, Endpoint::Responses, &facts()).unwrap()), read(&direct));
        for (one, two) in back["output"].as_array().unwrap().iter().zip(direct["output"].as_array().unwrap()) {
            assert_eq!(
                (&one["type"], &one["call_id"], &one["content"]),
                (&two["type"], &two["call_id"], &two["content"])
            );
        }
        assert_eq!(back["usage"]["total_tokens"], direct["usage"]["total_tokens"]);
        assert_eq!(back["usage"]["input_tokens_details"], direct["usage"]["input_tokens_details"]);
    }
}
