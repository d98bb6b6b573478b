//! The demo provider's streams: the events each dialect's SDK expects, in the order it expects them.
//!
//! Pure and infallible; every stream ends with its dialect's own end marker.

use super::echo::{Turn, generate, output_item, output_text, response, stop_reason};
use super::{Dialect, Endpoint};
use bytes::Bytes;
use serde_json::{Value, json};

/// All events of one streamed answer.
pub(super) fn events(endpoint: Endpoint, turn: &Turn<'_>) -> Vec<Bytes> {
    let words: Vec<&str> = turn.text.split_inclusive(char::is_whitespace).collect();
    match (endpoint, endpoint.dialect()) {
        (Endpoint::Responses, _) => responses(turn, &words),
        (Endpoint::Completions, _) => {
            let choice =
                |text: &str, why: Value| json!({ "index": 0, "text": text, "finish_reason": why, "logprobs": null });
            openai(
                turn,
                ("cmpl", "text_completion"),
                words.iter().map(|w| choice(w, Value::Null)),
                choice("", turn.finish_reason().into()),
            )
        }
        (_, Dialect::Anthropic) => messages(turn, &words),
        (_, Dialect::Gemini) => gemini(turn, &words),
        _ => {
            let choice = |delta: Value, why: Value| json!({ "index": 0, "delta": delta, "finish_reason": why, "logprobs": null });
            let first = choice(json!({ "role": "assistant", "content": "", "refusal": null }), Value::Null);
            let rest = words.iter().map(|word| choice(json!({ "content": word }), Value::Null));
            let last = choice(json!({}), turn.finish_reason().into());
            openai(turn, ("chatcmpl", "chat.completion.chunk"), std::iter::once(first).chain(rest), last)
        }
    }
}

fn data(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

/// An event whose name is its data's `type`.
fn named(value: &Value) -> Bytes {
    Bytes::from(format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or_default()))
}

fn openai(
    turn: &Turn<'_>,
    (prefix, object): (&str, &str),
    choices: impl Iterator<Item = Value>,
    last: Value,
) -> Vec<Bytes> {
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({
            "id": format!("{prefix}-{}", turn.id), "object": object, "created": turn.created, "model": turn.model,
            "choices": choices,
        });
        // Only a stream that was asked for usage has the key at all.
        if turn.include_usage {
            chunk["usage"] = usage;
        }
        data(&chunk)
    };
    let mut events: Vec<Bytes> = choices.chain([last]).map(|choice| chunk(json!([choice]), Value::Null)).collect();
    if turn.include_usage {
        events.push(chunk(json!([]), turn.openai_usage()));
    }
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    events
}

fn responses(turn: &Turn<'_>, words: &[&str]) -> Vec<Bytes> {
    let item = format!("msg_{}", turn.id);
    let place = |kind: &str| json!({ "type": kind, "item_id": item, "output_index": 0, "content_index": 0 });
    let with = |mut event: Value, name: &str, value: Value| {
        event[name] = value;
        event
    };
    let begun = response(turn, "in_progress");
    let ended = response(turn, "completed");
    let mut all = vec![
        json!({ "type": "response.created", "response": begun }),
        json!({ "type": "response.in_progress", "response": begun }),
        json!({ "type": "response.output_item.added", "output_index": 0, "item": output_item(turn, "in_progress") }),
        with(place("response.content_part.added"), "part", output_text("")),
    ];
    for word in words {
        let delta = with(place("response.output_text.delta"), "delta", json!(word));
        all.push(with(delta, "logprobs", json!([])));
    }
    let text = with(place("response.output_text.done"), "text", json!(turn.text));
    all.push(with(text, "logprobs", json!([])));
    all.push(with(place("response.content_part.done"), "part", output_text(&turn.text)));
    all.push(json!({ "type": "response.output_item.done", "output_index": 0, "item": output_item(turn, "completed") }));
    let kind = if turn.cut { "response.incomplete" } else { "response.completed" };
    all.push(json!({ "type": kind, "response": ended }));
    all.into_iter().enumerate().map(|(n, event)| named(&with(event, "sequence_number", json!(n)))).collect()
}

fn messages(turn: &Turn<'_>, words: &[&str]) -> Vec<Bytes> {
    let mut all = vec![
        json!({ "type": "message_start", "message": {
            "id": format!("msg_{}", turn.id), "type": "message", "role": "assistant", "model": turn.model, "content": [],
            "stop_reason": null, "stop_sequence": null,
            "usage": {
                "input_tokens": turn.prompt, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                "output_tokens": 1,
            },
        } }),
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
        json!({ "type": "ping" }),
    ];
    for word in words {
        all.push(json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": word } }));
    }
    all.push(json!({ "type": "content_block_stop", "index": 0 }));
    all.push(json!({
        "type": "message_delta", "delta": { "stop_reason": stop_reason(turn), "stop_sequence": null },
        "usage": { "output_tokens": turn.completion },
    }));
    all.push(json!({ "type": "message_stop" }));
    all.iter().map(named).collect()
}

fn gemini(turn: &Turn<'_>, words: &[&str]) -> Vec<Bytes> {
    let Some((last, before)) = words.split_last() else { return vec![data(&generate(turn, "", true))] };
    let chunks = before.iter().map(|word| generate(turn, word, false));
    chunks.chain([generate(turn, last, true)]).map(|chunk| data(&chunk)).collect()
}
