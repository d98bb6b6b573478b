//! The built-in `demo/echo` provider: answers with the last user message, in every dialect, with no provider behind.
//!
//! Pure: ids and the time come in. Cold path, so it may parse whole bodies. Its shapes are those the official SDKs of
//! the three dialects read; a body it cannot read is a 400 like a provider's.

use super::estimate::prompt_tokens;
use super::{Endpoint, echo_stream};
use crate::base::{Error, ErrorKind};
use bytes::Bytes;
use serde_json::{Value, json};

/// What the demo answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A whole JSON body.
    Whole(Bytes),
    /// SSE events (`text/event-stream`), one each.
    Events(Vec<Bytes>),
}

/// What the demo knows of a request; the shapes below are built from it.
pub(super) struct Turn<'a> {
    pub(super) id: &'a str,
    pub(super) created: u64,
    pub(super) model: &'a str,
    /// The answer.
    pub(super) text: String,
    /// Where the answer was cut by an output limit.
    pub(super) cut: bool,
    pub(super) prompt: u64,
    pub(super) completion: u64,
    pub(super) include_usage: bool,
}

/// Answers `body` as `endpoint` would. `model` is what the client asked for (the URL names it for Gemini), `id` is
/// unique and free of spaces, `created` is in Unix seconds.
pub fn answer(endpoint: Endpoint, body: &[u8], model: &str, id: &str, created: u64) -> Result<Reply, Error> {
    let request: Value = serde_json::from_slice(body).map_err(|_| Error::malformed("The body is not valid JSON."))?;
    let said = last_user_text(endpoint, &request);
    let stream = endpoint == Endpoint::StreamGenerate || request["stream"] == true;
    let words: Vec<&str> = said.split_inclusive(char::is_whitespace).collect();
    let limit = output_limit(&request);
    let kept = words.len().min(limit);
    let turn = Turn {
        id,
        created,
        model,
        text: words.get(..kept).unwrap_or_default().concat(),
        cut: kept < words.len(),
        prompt: prompt_tokens(body.len()),
        completion: kept.max(1) as u64,
        include_usage: request["stream_options"]["include_usage"] == true,
    };
    let whole = match endpoint {
        Endpoint::Embeddings => embeddings(&request, &turn),
        Endpoint::CountTokens => json!({ "input_tokens": turn.prompt }),
        Endpoint::Chat | Endpoint::Completions | Endpoint::Responses | Endpoint::Messages if stream => {
            return Ok(Reply::Events(echo_stream::events(endpoint, &turn)));
        }
        Endpoint::StreamGenerate => return Ok(Reply::Events(echo_stream::events(endpoint, &turn))),
        Endpoint::Chat => chat(&turn),
        Endpoint::Completions => completion(&turn),
        Endpoint::Responses => response(&turn, "completed"),
        Endpoint::Messages => message(&turn),
        Endpoint::Generate => generate(&turn, &turn.text, true),
        Endpoint::Rerank | Endpoint::Images | Endpoint::Speech | Endpoint::Transcriptions | Endpoint::Moderations => {
            return Err(Error::new(ErrorKind::NotFound, "The demo provider does not offer this endpoint."));
        }
    };
    Ok(Reply::Whole(Bytes::from(whole.to_string())))
}

impl Turn<'_> {
    pub(super) fn finish_reason(&self) -> &'static str {
        if self.cut { "length" } else { "stop" }
    }

    pub(super) fn openai_usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": { "cached_tokens": 0 },
            "completion_tokens_details": { "reasoning_tokens": 0 },
        })
    }
}

fn chat(turn: &Turn<'_>) -> Value {
    json!({
        "id": format!("chatcmpl-{}", turn.id), "object": "chat.completion", "created": turn.created, "model": turn.model,
        "choices": [{
            "index": 0, "finish_reason": turn.finish_reason(), "logprobs": null,
            "message": { "role": "assistant", "content": turn.text, "refusal": null },
        }],
        "usage": turn.openai_usage(),
    })
}

fn completion(turn: &Turn<'_>) -> Value {
    json!({
        "id": format!("cmpl-{}", turn.id), "object": "text_completion", "created": turn.created, "model": turn.model,
        "choices": [{ "index": 0, "text": turn.text, "finish_reason": turn.finish_reason(), "logprobs": null }],
        "usage": turn.openai_usage(),
    })
}

/// The Responses API's object; without its output while it is `in_progress`.
pub(super) fn response(turn: &Turn<'_>, status: &str) -> Value {
    let done = status != "in_progress";
    let status = if done && turn.cut { "incomplete" } else { status };
    let output = if done { json!([output_item(turn, "completed")]) } else { json!([]) };
    let usage = if done {
        json!({
            "input_tokens": turn.prompt, "input_tokens_details": { "cached_tokens": 0 },
            "output_tokens": turn.completion, "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": turn.prompt + turn.completion,
        })
    } else {
        Value::Null
    };
    let why = if status == "incomplete" { json!({ "reason": "max_output_tokens" }) } else { Value::Null };
    json!({
        "id": format!("resp_{}", turn.id), "object": "response", "created_at": turn.created, "status": status,
        "error": null, "incomplete_details": why, "instructions": null, "max_output_tokens": null, "model": turn.model,
        "output": output, "parallel_tool_calls": true, "previous_response_id": null,
        "reasoning": { "effort": null, "summary": null }, "store": false, "temperature": 1.0,
        "text": { "format": { "type": "text" } }, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "truncation": "disabled", "usage": usage, "user": null, "metadata": {},
    })
}

/// The one message of a response.
pub(super) fn output_item(turn: &Turn<'_>, status: &str) -> Value {
    let content = if status == "completed" { json!([output_text(&turn.text)]) } else { json!([]) };
    json!({ "id": format!("msg_{}", turn.id), "type": "message", "status": status, "role": "assistant", "content": content })
}

/// A text part of a response.
pub(super) fn output_text(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn message(turn: &Turn<'_>) -> Value {
    json!({
        "id": format!("msg_{}", turn.id), "type": "message", "role": "assistant", "model": turn.model,
        "content": [{ "type": "text", "text": turn.text }],
        "stop_reason": stop_reason(turn), "stop_sequence": null,
        "usage": {
            "input_tokens": turn.prompt, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "output_tokens": turn.completion,
        },
    })
}

/// Anthropic's word for why it ended.
pub(super) fn stop_reason(turn: &Turn<'_>) -> &'static str {
    if turn.cut { "max_tokens" } else { "end_turn" }
}

/// Gemini's reply, or one chunk of it: only the last one names a finish reason.
pub(super) fn generate(turn: &Turn<'_>, text: &str, last: bool) -> Value {
    let mut candidate = json!({ "content": { "role": "model", "parts": [{ "text": text }] }, "index": 0 });
    let mut usage = json!({ "promptTokenCount": turn.prompt, "totalTokenCount": turn.prompt });
    if last {
        candidate["finishReason"] = json!(if turn.cut { "MAX_TOKENS" } else { "STOP" });
        usage["candidatesTokenCount"] = json!(turn.completion);
        usage["totalTokenCount"] = json!(turn.prompt + turn.completion);
    }
    json!({ "candidates": [candidate], "usageMetadata": usage, "modelVersion": turn.model, "responseId": turn.id })
}

/// Small vectors that depend on the input alone: the same text is the same vector on every machine.
fn embeddings(request: &Value, turn: &Turn<'_>) -> Value {
    const SIZE: usize = 16;
    let inputs: Vec<String> = match &request["input"] {
        Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_number) => {
            vec![request["input"].to_string()]
        }
        Value::Array(list) => list.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect(),
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    };
    let base64 = request["encoding_format"] == "base64";
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let hash = blake3::hash(text.as_bytes());
            let raw: Vec<f32> = hash.as_bytes().iter().take(SIZE).map(|b| f32::from(*b) - 127.5).collect();
            let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
            let vector: Vec<f32> = raw.iter().map(|x| x / length).collect();
            let embedding = if base64 {
                use base64::Engine;
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                json!(base64::engine::general_purpose::STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    json!({
        "object": "list", "data": data, "model": turn.model,
        "usage": { "prompt_tokens": turn.prompt, "total_tokens": turn.prompt },
    })
}

/// What the user said last, wherever the dialect keeps it.
fn last_user_text(endpoint: Endpoint, request: &Value) -> String {
    let turns = match endpoint {
        Endpoint::Completions => return text_of(&request["prompt"]),
        Endpoint::Responses => &request["input"],
        Endpoint::Generate | Endpoint::StreamGenerate => &request["contents"],
        _ => &request["messages"],
    };
    let Value::Array(turns) = turns else { return text_of(turns) };
    let of_user = |turn: &&Value| turn["role"].as_str().is_none_or(|role| role == "user");
    turns.iter().rev().find(of_user).map_or_else(String::new, |turn| {
        let content = if turn["parts"].is_array() { &turn["parts"] } else { &turn["content"] };
        text_of(content)
    })
}

/// A string, or the texts of a list of parts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.as_str().or_else(|| part["text"].as_str()));
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

/// Words of answer at most: the demo counts a word as a token.
fn output_limit(request: &Value) -> usize {
    let config = &request["generationConfig"]["maxOutputTokens"];
    let names = ["max_completion_tokens", "max_tokens", "max_output_tokens"];
    let given = names.iter().filter_map(|name| request[*name].as_u64()).chain(config.as_u64()).min();
    given.map_or(usize::MAX, |n| usize::try_from(n.max(1)).unwrap_or(usize::MAX))
}

#[cfg(test)]
#[path = "echo_tests.rs"]
mod tests;
