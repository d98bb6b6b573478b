//! The demo's answers, judged by the gateway's own readers: what it counts is what they must find.

use super::super::sse::StreamMeter;
use super::super::usage::from_body;
use super::*;

fn ask(endpoint: Endpoint, body: &Value) -> Reply {
    answer(endpoint, body.to_string().as_bytes(), "demo/echo", "abc", 1_700_000_000).unwrap()
}

fn whole(endpoint: Endpoint, body: &Value) -> (Value, Bytes) {
    let Reply::Whole(bytes) = ask(endpoint, body) else { panic!("a stream") };
    (serde_json::from_slice(&bytes).unwrap(), bytes)
}

/// The data of each event, `[DONE]` left out.
fn stream(endpoint: Endpoint, body: &Value) -> (Vec<Value>, StreamMeter) {
    let Reply::Events(events) = ask(endpoint, body) else { panic!("no stream") };
    let mut meter = StreamMeter::new(endpoint, false);
    let mut all = Vec::new();
    for event in events {
        let text = String::from_utf8(event.to_vec()).unwrap();
        assert_eq!(meter.feed(event), text.as_bytes());
        let data = text.lines().find_map(|l| l.strip_prefix("data: ")).unwrap();
        if data != "[DONE]" {
            let value: Value = serde_json::from_str(data).unwrap();
            if let Some(name) = text.lines().find_map(|l| l.strip_prefix("event: ")) {
                assert_eq!(value["type"], name);
            }
            all.push(value);
        }
    }
    assert!(meter.saw_end(), "{endpoint:?}");
    (all, meter)
}

fn request(endpoint: Endpoint) -> Value {
    match endpoint {
        Endpoint::Completions => json!({ "prompt": "hello  new world" }),
        Endpoint::Responses => {
            json!({ "input": [{ "role": "user", "content": [{ "type": "input_text", "text": "hello  new world" }] }] })
        }
        Endpoint::Generate | Endpoint::StreamGenerate => {
            json!({ "contents": [{ "role": "user", "parts": [{ "text": "hello  new world" }] }, { "role": "model", "parts": [{ "text": "no" }] }] })
        }
        _ => json!({ "messages": [
            { "role": "user", "content": "first" }, { "role": "user", "content": "hello  new world" }, { "role": "assistant", "content": "no" },
        ] }),
    }
}

#[test]
fn every_endpoint_echoes_and_counts() {
    for (endpoint, text, usage) in [
        (Endpoint::Chat, "/choices/0/message/content", "/usage/prompt_tokens"),
        (Endpoint::Completions, "/choices/0/text", "/usage/prompt_tokens"),
        (Endpoint::Responses, "/output/0/content/0/text", "/usage/input_tokens"),
        (Endpoint::Messages, "/content/0/text", "/usage/input_tokens"),
        (Endpoint::Generate, "/candidates/0/content/parts/0/text", "/usageMetadata/promptTokenCount"),
    ] {
        let (reply, bytes) = whole(endpoint, &request(endpoint));
        assert_eq!(reply.pointer(text), Some(&json!("hello  new world")), "{endpoint:?}");
        let counted = from_body(endpoint, &bytes).unwrap();
        assert_eq!(reply.pointer(usage).and_then(Value::as_u64), Some(counted.prompt));
        assert!(counted.prompt > 0 && counted.completion == 4, "{counted:?}");
    }
}

#[test]
fn every_stream_has_its_events_and_the_same_numbers() {
    for (endpoint, text) in [
        (Endpoint::Chat, "/choices/0/delta/content"),
        (Endpoint::Completions, "/choices/0/text"),
        (Endpoint::Responses, "/delta"),
        (Endpoint::Messages, "/delta/text"),
        (Endpoint::StreamGenerate, "/candidates/0/content/parts/0/text"),
    ] {
        let mut body = request(endpoint);
        body["stream"] = json!(true);
        body["stream_options"] = json!({ "include_usage": true });
        let (events, meter) = stream(endpoint, &body);
        let said: String = events.iter().filter_map(|e| e.pointer(text)?.as_str()).collect();
        assert_eq!(said, "hello  new world", "{endpoint:?}");
        let counted = meter.usage().unwrap();
        assert!(counted.prompt > 0 && counted.completion == 4, "{endpoint:?} {counted:?}");
    }
    let mut body = request(Endpoint::Chat);
    body["stream"] = json!(true);
    let (events, meter) = stream(Endpoint::Chat, &body);
    assert!(meter.usage().is_none() && events.iter().all(|e| e.get("usage").is_none()), "nobody asked for usage");
    let mut body = request(Endpoint::Responses);
    body["stream"] = json!(true);
    let (events, _) = stream(Endpoint::Responses, &body);
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], n);
    }
    assert_eq!(
        (&events[0]["type"], &events.last().unwrap()["type"]),
        (&json!("response.created"), &json!("response.completed"))
    );
}

#[test]
fn a_limit_cuts_the_answer_and_says_so() {
    let mut body = request(Endpoint::Messages);
    body["max_tokens"] = json!(1);
    let (reply, _) = whole(Endpoint::Messages, &body);
    assert_eq!((&reply["content"][0]["text"], &reply["stop_reason"]), (&json!("hello "), &json!("max_tokens")));
    let mut body = request(Endpoint::Responses);
    body["max_output_tokens"] = json!(1);
    body["stream"] = json!(true);
    let (events, _) = stream(Endpoint::Responses, &body);
    assert_eq!(events.last().unwrap()["type"], "response.incomplete");
}

#[test]
fn embeddings_depend_on_the_text_alone() {
    let (a, _) = whole(Endpoint::Embeddings, &json!({ "input": ["x", "y"] }));
    let (b, _) = whole(Endpoint::Embeddings, &json!({ "input": "x" }));
    assert_eq!(a["data"][0]["embedding"], b["data"][0]["embedding"]);
    assert_ne!(a["data"][0]["embedding"], a["data"][1]["embedding"]);
    let (c, _) = whole(Endpoint::Embeddings, &json!({ "input": "x", "encoding_format": "base64" }));
    assert!(c["data"][0]["embedding"].is_string());
    let (d, _) = whole(Endpoint::Embeddings, &json!({ "input": [1, 2, 3] }));
    assert_eq!(d["data"].as_array().unwrap().len(), 1, "a list of tokens is one input");
}

#[test]
fn what_it_cannot_do_it_says() {
    assert_eq!(answer(Endpoint::Chat, b"{", "m", "i", 0).unwrap_err().status(), 400);
    assert_eq!(answer(Endpoint::Images, b"{}", "m", "i", 0).unwrap_err().status(), 404);
    let (reply, _) = whole(Endpoint::CountTokens, &request(Endpoint::Messages));
    assert!(reply["input_tokens"].as_u64().unwrap() > 0);
    for endpoint in [Endpoint::Chat, Endpoint::Messages, Endpoint::Responses, Endpoint::Generate] {
        for odd in ["{}", "[]", "1", r#"{"messages":5,"contents":[1],"input":{}}"#] {
            assert!(answer(endpoint, odd.as_bytes(), "m", "i", 0).is_ok());
        }
    }
}
