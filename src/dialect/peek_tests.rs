//! What `peek` takes, refuses and finds, by example and against `serde_json` as the judge.

use super::super::Endpoint;
use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const SPICE: &[u8] = b"\"\\{}[]:,0123456789.eE+-tfnu \n\xff\x00mdl";

fn chat(body: &str) -> Result<Peek, PeekError> {
    peek(body.as_bytes(), Endpoint::Chat)
}

fn refused(body: &str, param: &str) {
    let e = chat(body).expect_err(body);
    assert_eq!(e.param, Some(param), "{body}: {}", e.message);
    let error = Error::from(e);
    assert_eq!((error.status(), error.param.as_deref()), (400, Some(param)));
}

#[test]
fn the_fields_are_found() {
    let body = r#"{"messages":[{"role":"user","content":"\"model\":\"x\" {"}],"model":"openai/gpt-x","stream":true,
        "temperature":0,"max_tokens":5,"max_completion_tokens":7,"stream_options":{"include_usage":true}}"#;
    let p = chat(body).unwrap();
    assert_eq!(p.model(body.as_bytes()), Some("openai/gpt-x"));
    assert_eq!(&body[p.model_range().unwrap()], r#""openai/gpt-x""#);
    assert_eq!((p.stream, p.max_output, p.temperature_is_zero(), p.include_usage()), (Some(true), Some(7), true, true));
    assert_eq!((p.end, p.empty), (body.len() - 1, false));
    let p = chat(" {} ").unwrap();
    assert_eq!((p.end, p.empty, p.model(b" {} ")), (2, true, None));
}

#[test]
fn each_dialect_has_its_own_words() {
    let body = br#"{"max_output_tokens":9,"stream_options":{"include_obfuscation":1}}"#;
    assert_eq!(peek(body, Endpoint::Responses).unwrap().max_output, Some(9));
    let body = br#"{"contents":[],"generationConfig":{"maxOutputTokens":"64","temperature":0.0},"stream":"whatever"}"#;
    let p = peek(body, Endpoint::Generate).unwrap();
    assert_eq!((p.max_output, p.temperature_is_zero(), p.stream), (Some(64), true, None));
    for bad in [
        r#"{"generationConfig":{},"generation_config":{}}"#,
        r#"{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":9}}"#,
        r#"{"generationConfig":{"maxOutputTokens":-1}}"#,
        r#"{"generationConfig":[]}"#,
    ] {
        assert!(peek(bad.as_bytes(), Endpoint::StreamGenerate).unwrap_err().param.is_some(), "{bad}");
    }
}

#[test]
fn escapes_do_not_hide_a_field() {
    let body = r#"{"mod\u0065l":"gpt\u002dx\/y"}"#;
    assert_eq!(chat(body).unwrap().model(body.as_bytes()), Some("gpt-x/y"));
    refused(r#"{"model":"a","mod\u0065l":"b"}"#, "model");
    refused(r#"{"model":"a","Model":"b"}"#, "model");
    refused(r#"{"stream":true,"\u0073tream":false}"#, "stream");
    assert!(chat(r#"{"\model":"a"}"#).is_err(), "a lax reader would take the backslash away");
}

#[test]
fn wrong_values_name_their_field() {
    for (body, param) in [
        (r#"{"model":1}"#, "model"),
        (r#"{"model":null}"#, "model"),
        (r#"{"model":""}"#, "model"),
        (r#"{"model":"a\nb"}"#, "model"),
        ("{\"model\":\"a\u{7f}\"}", "model"),
        (r#"{"model":"\ud800"}"#, "model"),
        (r#"{"model":{"a":1}}"#, "model"),
        (r#"{"model":"a","model":"a"}"#, "model"),
        (r#"{"stream":"true"}"#, "stream"),
        (r#"{"stream":1}"#, "stream"),
        (r#"{"max_tokens":"5"}"#, "max_tokens"),
        (r#"{"max_tokens":-5}"#, "max_tokens"),
        (r#"{"max_completion_tokens":1.5}"#, "max_completion_tokens"),
        (r#"{"temperature":"0"}"#, "temperature"),
        (r#"{"stream_options":[]}"#, "stream_options"),
        (r#"{"stream_options":{"include_usage":1}}"#, "stream_options.include_usage"),
        (r#"{"stream_options":{"include_usage":true,"include\u005fusage":false}}"#, "stream_options.include_usage"),
    ] {
        refused(body, param);
    }
    refused(&format!(r#"{{"model":"{}"}}"#, "a".repeat(257)), "model");
    refused(&format!(r#"{{"model":"{}"}}"#, "a".repeat(10_000)), "model");
    assert!(chat(&format!(r#"{{"model":"{}"}}"#, "a".repeat(256))).is_ok());
    assert_eq!(peek(b"{\"model\":\"\xff\"}", Endpoint::Chat).unwrap_err().param, Some("model"));
    let p = chat(r#"{"stream":null,"max_tokens":null,"temperature":null,"stream_options":null}"#).unwrap();
    assert_eq!((p.stream, p.max_output, p.temperature), (None, None, None));
}

#[test]
fn what_is_no_object_is_refused_as_a_whole() {
    for bad in ["", "  ", "\u{feff}{}", "[]", "1", "null", "{} x", "{}{}", "{", r#"{"a":1"#, r#"{"model":"a}"#, "{]"] {
        let e = chat(bad).expect_err(bad);
        assert!(e.param.is_none() && e.message.starts_with("The body "), "{bad}: {}", e.message);
    }
}

/// What `serde_json` says of the same body; `None` where a field must be refused.
fn judged(object: &Map<String, Value>) -> Option<(Option<String>, Option<bool>, Option<u64>)> {
    if object.keys().any(|k| k.eq_ignore_ascii_case("model") && k != "model") {
        return None;
    }
    let model = match object.get("model") {
        None => None,
        Some(Value::String(s)) if !s.is_empty() && s.len() <= 256 && !s.chars().any(char::is_control) => {
            Some(s.clone())
        }
        Some(_) => return None,
    };
    let flag = |v: Option<&Value>| match v {
        None | Some(Value::Null) => Some(None),
        Some(Value::Bool(b)) => Some(Some(*b)),
        Some(_) => None,
    };
    let stream = flag(object.get("stream"))?;
    let mut most = None;
    for name in ["max_tokens", "max_completion_tokens", "max_output_tokens"] {
        most = most.max(match object.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::Number(n)) => match (n.as_u64(), n.as_f64()) {
                (Some(n), _) => Some(n),
                (None, Some(f)) if f >= 0.0 && f.fract() == 0.0 => Some(f as u64),
                _ => return None,
            },
            Some(_) => return None,
        });
    }
    if !matches!(object.get("temperature"), None | Some(Value::Null | Value::Number(_))) {
        return None;
    }
    match object.get("stream_options") {
        None | Some(Value::Null) => {}
        Some(Value::Object(options)) => {
            flag(options.get("include_usage"))?;
        }
        Some(_) => return None,
    }
    Some((model, stream, most))
}

fn agrees(body: &[u8]) {
    let ours = peek(body, Endpoint::Chat);
    let Ok(object) = serde_json::from_slice::<Map<String, Value>>(body) else { return };
    match (judged(&object), ours) {
        (Some((model, stream, most)), Ok(p)) => {
            assert_eq!(p.model(body), model.as_deref());
            assert_eq!((p.stream, p.max_output), (stream, most));
            assert_eq!(body[p.end], b'}');
            assert_eq!(p.empty, object.is_empty());
        }
        (None, Err(e)) => assert!(e.param.is_some(), "{}", e.message),
        // Only a repeated field is refused where the judge sees one value.
        (Some(_), Err(e)) => {
            assert!(e.message.contains("more than once"), "{}: {}", e.message, String::from_utf8_lossy(body));
        }
        // The judge keeps the last of two; the first one was refused.
        (None, Ok(_)) => panic!("taken: {}", String::from_utf8_lossy(body)),
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        (-1e6..1e6_f64).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[\\\\\"{}\\[\\]:,/a]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(key(), inner, 0..5).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "model",
        "stream",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "stream_options",
        "include_usage",
        "messages",
    ]);
    prop_oneof![known.prop_map(str::to_owned), "[a-z\\\\\"]{0,6}"]
}

proptest! {
    #[test]
    fn what_serde_reads_we_read_alike(m in prop::collection::hash_map(key(), value(), 0..8), pretty: bool) {
        let object = Value::Object(m.into_iter().collect());
        let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
        agrees(text.unwrap().as_bytes());
    }

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for endpoint in [Endpoint::Chat, Endpoint::Messages, Endpoint::Generate] {
            let _ = peek(&bytes, endpoint);
        }
    }
}

#[test]
fn broken_bodies_are_judged_alike() {
    let seed = json!({"model": "openai/gpt-x", "stream": true, "messages": [{"role": "user", "content": "a\"b\\ c\n"}],
        "stream_options": {"include_usage": false}, "max_tokens": 12, "temperature": 0.5, "tools": [[], {}, [1, -2.5e3]]})
    .to_string()
    .into_bytes();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    for _ in 0..20_000 {
        let mut body = seed.clone();
        for _ in 0..=next(3) {
            let at = next(body.len());
            if body.is_empty() {
                break;
            }
            match next(4) {
                0 => body[at] = SPICE[next(SPICE.len())],
                1 => body.insert(at, SPICE[next(SPICE.len())]),
                2 => drop(body.remove(at)),
                _ => body.truncate(at.max(1)),
            }
        }
        agrees(&body);
    }
}
