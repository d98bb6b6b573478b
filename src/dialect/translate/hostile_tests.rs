//! What can't be translated is refused by name, and nothing that anybody sends is a panic or grows without bound.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

const CALLERS: [Endpoint; 4] = [Endpoint::Chat, Endpoint::Responses, Endpoint::Messages, Endpoint::Generate];
const PROVIDERS: [Endpoint; 3] = [Endpoint::Chat, Endpoint::Messages, Endpoint::StreamGenerate];

fn target() -> Target<'static> {
    Target { model: "m", provider: "p", max_output: 0 }
}

fn facts() -> Facts {
    Facts { id: "1".into(), model: "m".into(), created: 1, include_usage: true, array: false }
}

/// The field that `body` is refused for.
#[track_caller]
fn refused(from: Endpoint, body: &Value, to: Endpoint) -> String {
    let error = request(from, body.to_string().as_bytes(), to, &target(), false, false).unwrap_err();
    let param = error.param.unwrap_or_default().into_owned();
    assert!(error.kind == ErrorKind::Malformed && error.message.contains(&format!("`{param}`")), "{}", error.message);
    param
}

#[test]
fn what_has_no_counterpart_is_refused_by_its_own_name() {
    use Endpoint::{Chat, Generate, Messages, Responses};
    let chat = |more: Value| merged(json!({"messages": [{"role": "user", "content": "x"}]}), more);
    for (more, param) in [
        (json!({"n": 2}), "n"),
        (json!({"logprobs": true}), "logprobs"),
        (json!({"logit_bias": {"50256": -100}}), "logit_bias"),
        (json!({"functions": [{"name": "f"}]}), "functions"),
        (json!({"modalities": ["text", "audio"]}), "modalities[1]"),
        (json!({"web_search_options": {"a": 1}}), "web_search_options"),
        (json!({"tools": [{"type": "custom", "custom": {"name": "x"}}]}), "tools[0].type"),
        (json!({"response_format": {"type": "grammar"}}), "response_format.type"),
        (json!({"messages": [{"role": "tool", "tool_call_id": "x", "content": 7}]}), "messages[0].content"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}),
            "messages[0].content[0].file",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}]}),
            "messages[0].content[0].image_url",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[1]"}}]}]}),
            "messages[0].tool_calls[0].function.arguments",
        ),
    ] {
        for to in [Messages, Generate] {
            assert_eq!(refused(Chat, &chat(more.clone()), to), param, "{to:?}");
        }
    }
    for (more, param) in [
        (json!({"presence_penalty": 0.5}), "presence_penalty"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}]}]}),
            "messages[0].content[0].input_audio",
        ),
    ] {
        assert_eq!(refused(Chat, &chat(more), Messages), param);
    }
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    for (more, param) in [
        (json!({"tools": tool, "parallel_tool_calls": false}), "parallel_tool_calls"),
        (
            json!({"messages": [{"role": "tool", "tool_call_id": "nobody's", "content": "x"}]}),
            "messages[0].tool_call_id",
        ),
    ] {
        assert_eq!(refused(Chat, &chat(more), Generate), param);
    }
    for (more, param) in [
        (json!({"previous_response_id": "r"}), "previous_response_id"),
        (json!({"background": true}), "background"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"input": [{"type": "item_reference", "id": "x"}]}), "input[0].type"),
        (json!({"tool_choice": {"type": "file_search"}}), "tool_choice.type"),
    ] {
        assert_eq!(refused(Responses, &merged(json!({"input": "x"}), more), Messages), param);
    }
    let messages = |more: Value| merged(json!({"max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}), more);
    for (more, param) in [
        (json!({"top_k": 5}), "top_k"),
        (json!({"mcp_servers": [{"url": "x"}]}), "mcp_servers"),
        (json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}), "tools[0].type"),
        (json!({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "{"}]}), "messages"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "document", "citations": {"enabled": true}, "source": {}}]}]}),
            "messages[0].content[0].citations.enabled",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "x"}}]}]}),
            "messages[0].content[0].source.type",
        ),
    ] {
        assert_eq!(refused(Messages, &messages(more), Chat), param);
    }
    let generate = |more: Value| merged(json!({"contents": [{"parts": [{"text": "x"}]}]}), more);
    for (more, param) in [
        (json!({"cachedContent": "c/1"}), "cachedContent"),
        (json!({"tools": [{"googleSearch": {}}]}), "tools[0].googleSearch"),
        (json!({"generationConfig": {"candidateCount": 3}}), "generationConfig.candidateCount"),
        (json!({"generationConfig": {"topK": 3}}), "generationConfig.topK"),
        (json!({"generationConfig": {"responseModalities": ["IMAGE"]}}), "generationConfig.responseModalities[0]"),
        (json!({"contents": [{"parts": [{"fileData": {"fileUri": "gs://x"}}]}]}), "contents[0].parts[0].fileData"),
        (
            json!({"contents": [{"parts": [{"inlineData": {"mimeType": "video/mp4", "data": "x"}}]}]}),
            "contents[0].parts[0].inlineData",
        ),
    ] {
        assert_eq!(refused(Generate, &generate(more), Chat), param);
    }
}

fn merged(mut into: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("{more}") };
    for (name, value) in more {
        into[name] = value;
    }
    into
}

#[test]
fn thinking_is_said_as_each_model_takes_it() {
    let body = |more: Value| merged(json!({"messages": [{"role": "user", "content": "x"}]}), more).to_string();
    let asked = |more: Value, to: Endpoint, model: &str| -> Value {
        let target = Target { model, provider: "p", max_output: 64_000 };
        let body = request(Endpoint::Chat, body(more).as_bytes(), to, &target, false, false).unwrap();
        serde_json::from_slice(&body).unwrap()
    };
    let effort = |word: &str| json!({"reasoning_effort": word});
    let claude = asked(effort("high"), Endpoint::Messages, "claude-opus-4-6");
    assert_eq!(
        (&claude["thinking"], &claude["output_config"]),
        (&json!({"type": "adaptive"}), &json!({"effort": "high"}))
    );
    let claude = asked(effort("low"), Endpoint::Messages, "claude-haiku-4-5");
    assert_eq!(claude["thinking"], json!({"type": "enabled", "budget_tokens": 1024}));
    let forced = json!({"reasoning_effort": "low", "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"});
    assert_eq!(asked(forced, Endpoint::Messages, "claude-haiku-4-5")["thinking"], Value::Null);
    let tight = json!({"reasoning_effort": "high", "max_tokens": 2000});
    assert_eq!(asked(tight, Endpoint::Messages, "claude-haiku-4-5")["thinking"]["budget_tokens"], 1999);
    let config = |more, model| asked(more, Endpoint::Generate, model)["generationConfig"]["thinkingConfig"].clone();
    assert_eq!(config(effort("medium"), "gemini-2.5-pro"), json!({"thinkingBudget": 8192, "includeThoughts": true}));
    assert_eq!(config(effort("none"), "gemini-2.5-flash"), json!({"thinkingBudget": 0}));
    assert_eq!(config(effort("minimal"), "gemini-3-pro"), json!({"thinkingLevel": "low", "includeThoughts": true}));
}

#[test]
fn a_count_is_guessed_from_what_is_said() {
    let picture = "x".repeat(40_000);
    let body = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "y".repeat(400)},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": picture}}]}]});
    let counted: Value = serde_json::from_slice(&count_tokens(body.to_string().as_bytes()).unwrap()).unwrap();
    assert_eq!(counted, json!({"input_tokens": 100 + 4 + 1600}));
}

#[test]
fn an_event_without_end_is_given_up() {
    let mut stream = StreamTranslator::new(Endpoint::Chat, Endpoint::Messages, facts());
    let piece = vec![b'x'; 1 << 20];
    let mut said = Vec::new();
    for _ in 0..20 {
        said.extend_from_slice(&stream.feed(&piece));
    }
    assert!(stream.broken().is_some());
    let text = String::from_utf8(said).unwrap();
    assert!(text.starts_with("event: error\n") && text.len() < 1000, "{text}");
    assert!(stream.finish().is_empty() && stream.error(&too_long()).is_empty(), "one last word only");
}

#[test]
fn arguments_without_end_are_given_up() {
    let start = json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}}]});
    let more =
        json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "x".repeat(1 << 20)}}]}}]});
    for to in [Endpoint::Responses, Endpoint::StreamGenerate] {
        let mut stream = StreamTranslator::new(Endpoint::Chat, to, facts());
        stream.feed(format!("data: {start}\n\n").as_bytes());
        let event = format!("data: {more}\n\n");
        for _ in 0..10 {
            stream.feed(event.as_bytes());
        }
        assert!(stream.broken().is_some(), "{to:?}");
    }
}

#[test]
fn items_without_end_are_given_up_however_small() {
    let redacted = r#"{"type":"content_block_start","content_block":{"type":"redacted_thinking","data":""}}"#;
    let many = format!("data: {redacted}\n\n").repeat(1000);
    let mut stream = StreamTranslator::new(Endpoint::Messages, Endpoint::Responses, facts());
    for _ in 0..80 {
        stream.feed(many.as_bytes());
    }
    assert!(stream.broken().is_some());
}

#[test]
fn calls_that_cannot_be_told_apart_are_an_error_and_no_lie() {
    let call = |index: u64, name: Value, args: &str| {
        let call = json!({"index": index, "id": format!("c{index}"), "function": {"name": name, "arguments": args}});
        format!("data: {}\n\n", json!({"choices": [{"delta": {"tool_calls": [call]}}]}))
    };
    for to in [Endpoint::Messages, Endpoint::Responses, Endpoint::StreamGenerate] {
        let mut stream = StreamTranslator::new(Endpoint::Chat, to, facts());
        for event in [call(0, json!("a"), "{"), call(1, json!("b"), "{"), call(0, Value::Null, "}")] {
            stream.feed(event.as_bytes());
        }
        assert!(stream.broken().is_some(), "{to:?}");
    }
}

#[test]
fn a_stream_that_just_stops_is_an_error() {
    for (from, text) in [
        (Endpoint::Chat, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"),
        (Endpoint::Messages, "data: {\"type\":\"message_start\",\"message\":{}}\n\n"),
        (Endpoint::StreamGenerate, "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}\n\n"),
    ] {
        for to in CALLERS.into_iter().filter(|to| to.dialect() != from.dialect()) {
            let mut stream = StreamTranslator::new(from, to, facts());
            stream.feed(text.as_bytes());
            let last = String::from_utf8(stream.finish().to_vec()).unwrap();
            assert!(stream.broken().is_some() && last.contains("without saying why"), "{from:?} {to:?}: {last}");
        }
    }
}

/// Every golden source, as something to spoil.
fn goldens(kind: &str) -> Vec<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(kind);
    let mut all: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// Words that readers look for, in places where they do not expect them.
fn value() -> impl Strategy<Value = Value> {
    let word = proptest::sample::select(vec![
        "type",
        "text",
        "content",
        "role",
        "user",
        "assistant",
        "model",
        "messages",
        "input",
        "contents",
        "parts",
        "tools",
        "function",
        "functionCall",
        "functionResponse",
        "name",
        "id",
        "args",
        "arguments",
        "tool_calls",
        "tool_use",
        "tool_result",
        "thinking",
        "signature",
        "source",
        "url",
        "base64",
        "data",
        "choices",
        "delta",
        "usage",
        "index",
        "candidates",
        "finishReason",
        "finish_reason",
        "stop_reason",
        "generationConfig",
        "response_format",
        "schema",
        "output_config",
        "reasoning",
        "summary",
        "message",
        "error",
        "content_block",
        "tool_choice",
        "system",
        "message_start",
        "content_block_start",
        "content_block_delta",
        "message_delta",
        "input_json_delta",
        "text_delta",
        "parameters",
        "functionDeclarations",
        "properties",
        "items",
        "anyOf",
        "inlineData",
        "mimeType",
        "image_url",
        "file",
        "tool",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!("data:;base64,")),
        Just(json!("{\"a\": [")),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((word.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

fn all_ways(body: &[u8]) {
    for from in CALLERS {
        for to in PROVIDERS {
            if let Ok(body) = request(from, body, to, &target(), true, true) {
                assert!(json::document(&body).is_some(), "{from:?} {to:?}: {}", String::from_utf8_lossy(&body));
            }
        }
        let _ = count_tokens(body);
    }
    for from in PROVIDERS {
        for to in CALLERS {
            if let Ok(body) = answer(from, body, to, &facts()) {
                assert!(json::document(&body).is_some(), "{from:?} {to:?}: {}", String::from_utf8_lossy(&body));
            }
        }
    }
}

fn stream_all_ways(text: &[u8], cut: usize) {
    for from in PROVIDERS {
        for to in CALLERS {
            let run = |cut: usize| {
                let mut stream = StreamTranslator::new(from, to, facts());
                let (one, two) = text.split_at(cut.min(text.len()));
                let mut all = stream.feed(one).to_vec();
                all.extend_from_slice(&stream.feed(two));
                all.extend_from_slice(&stream.finish());
                all
            };
            let (cut, whole) = (run(cut), run(0));
            assert_eq!(cut, whole, "{from:?} {to:?}");
            // Ended, one way or the other, and every line of data is JSON.
            let text = String::from_utf8(whole).unwrap();
            for data in text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]") {
                assert!(serde_json::from_str::<&serde_json::value::RawValue>(data).is_ok(), "{data}");
            }
            assert!(!text.is_empty(), "{from:?} {to:?} ended without a word");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_json_is_too_strange(value in value(), wrap in 0_usize..4) {
        let body = match wrap {
            0 => value,
            1 => json!({"messages": [{"role": "user", "content": value}, value], "tools": [value], "tool_choice": value}),
            2 => json!({"input": [value, {"role": "user", "content": value}], "choices": [{"message": value, "delta": value}], "content": [value]}),
            _ => json!({"contents": [{"parts": [value, {"functionCall": value}]}], "generationConfig": value, "candidates": [{"content": {"parts": [value]}}], "tools": [{"functionDeclarations": [value]}]}),
        };
        all_ways(body.to_string().as_bytes());
        stream_all_ways(format!("data: {body}\n\ndata: {body}\n\n").as_bytes(), 9);
    }

    #[test]
    fn no_spoilt_body_is_a_panic(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), gone in 0_usize..40) {
        let mut all = goldens("requests");
        all.extend(goldens("answers"));
        let mut body = all[which.index(all.len())].clone().into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        let end = (at + gone).min(body.len());
        body.drain(at..end);
        all_ways(&body);
    }

    #[test]
    fn no_spoilt_stream_is_a_panic(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(), bytes in proptest::collection::vec(any::<u8>(), 0..4)) {
        let all = goldens("streams");
        let mut text = all[which.index(all.len())].clone().into_bytes();
        let at = at.index(text.len());
        text.splice(at..(at + bytes.len()).min(text.len()), bytes);
        let cut = cut.index(text.len());
        stream_all_ways(&text, cut);
    }
}
