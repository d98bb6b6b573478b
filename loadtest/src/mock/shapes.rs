//! The mock's bodies, one function a dialect and form.
//!
//! Must never be called per request: `book` calls each once, at start. Cannot fail.

use std::fmt::Write as _;

use super::book::{MODEL, PROMPT, Tokens, text};
use crate::generate::STAMP_DIGITS;

pub(super) fn chat(content: &str, used: Tokens) -> String {
    let Tokens { prompt, completion } = used;
    let total = prompt + completion;
    format!(
        r#"{{"id":"chatcmpl-mock","object":"chat.completion","created":1700000000,"model":"{MODEL}","choices":[{{"index":0,"message":{{"role":"assistant","content":"{content}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total}}}}}"#
    )
}

pub(super) fn completion(content: &str, used: Tokens) -> String {
    let Tokens { prompt, completion } = used;
    let total = prompt + completion;
    format!(
        r#"{{"id":"cmpl-mock","object":"text_completion","created":1700000000,"model":"{MODEL}","choices":[{{"index":0,"text":"{content}","finish_reason":"stop"}}],"usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total}}}}}"#
    )
}

pub(super) fn response(content: &str, used: Tokens) -> String {
    let Tokens { prompt, completion } = used;
    let total = prompt + completion;
    format!(
        r#"{{"id":"resp_mock","object":"response","created_at":1700000000,"status":"completed","model":"{MODEL}","output":[{{"type":"message","id":"msg_mock","role":"assistant","status":"completed","content":[{{"type":"output_text","text":"{content}","annotations":[]}}]}}],"usage":{{"input_tokens":{prompt},"output_tokens":{completion},"total_tokens":{total}}}}}"#
    )
}

pub(super) fn message(content: &str, used: Tokens) -> String {
    let Tokens { prompt, completion } = used;
    format!(
        r#"{{"id":"msg_mock","type":"message","role":"assistant","model":"claude-mock","content":[{{"type":"text","text":"{content}"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":{prompt},"output_tokens":{completion}}}}}"#
    )
}

pub(super) fn gemini(content: &str, used: Tokens) -> String {
    let Tokens { prompt, completion } = used;
    let total = prompt + completion;
    format!(
        r#"{{"candidates":[{{"content":{{"role":"model","parts":[{{"text":"{content}"}}]}},"finishReason":"STOP","index":0}}],"usageMetadata":{{"promptTokenCount":{prompt},"candidatesTokenCount":{completion},"totalTokenCount":{total}}},"modelVersion":"gemini-mock"}}"#
    )
}

pub(super) fn embedding(bytes: usize) -> String {
    let mut numbers = String::from("0.0625");
    for step in 1..(bytes.saturating_sub(150) / 8).max(1) {
        let _ = write!(numbers, ",0.{:05}", step * 37 % 100_000);
    }
    let prompt = PROMPT;
    format!(
        r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":[{numbers}]}}],"model":"{MODEL}","usage":{{"prompt_tokens":{prompt},"total_tokens":{prompt}}}}}"#
    )
}

/// An OpenAI chunk; with `stamped` its `system_fingerprint` is where the send time goes.
fn chunk(stamped: bool, delta: &str, finish: &str) -> String {
    let zeros = "0".repeat(STAMP_DIGITS);
    let stamp = if stamped { format!(r#""system_fingerprint":"ts_{zeros}","#) } else { String::new() };
    format!(
        "data: {{\"id\":\"chatcmpl-mock00001\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"{MODEL}\",{stamp}\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
    )
}

pub(super) fn chat_stream(chunks: usize, stamped: bool, usage: Option<Tokens>) -> Vec<String> {
    let mut events = vec![chunk(stamped, r#"{"role":"assistant"}"#, "null")];
    events.extend((2..chunks).map(|n| chunk(stamped, &format!(r#"{{"content":"word{n} "}}"#), "null")));
    events.push(chunk(stamped, "{}", "\"stop\""));
    if let Some(Tokens { prompt, completion }) = usage {
        let total = prompt + completion;
        events.push(format!(
            "data: {{\"id\":\"chatcmpl-mock00001\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"{MODEL}\",\"choices\":[],\"usage\":{{\"prompt_tokens\":{prompt},\"completion_tokens\":{completion},\"total_tokens\":{total}}}}}\n\n"
        ));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

pub(super) fn completion_stream(chunks: usize, usage: Option<Tokens>) -> Vec<String> {
    let piece = |text: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"cmpl-mock\",\"object\":\"text_completion\",\"created\":1700000000,\"model\":\"{MODEL}\",\"choices\":[{{\"index\":0,\"text\":\"{text}\",\"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    let mut events: Vec<String> = (1..chunks).map(|n| piece(&format!("word{n} "), "null")).collect();
    events.push(piece("", "\"stop\""));
    if let Some(Tokens { prompt, completion }) = usage {
        let total = prompt + completion;
        events.push(format!(
            "data: {{\"id\":\"cmpl-mock\",\"object\":\"text_completion\",\"model\":\"{MODEL}\",\"choices\":[],\"usage\":{{\"prompt_tokens\":{prompt},\"completion_tokens\":{completion},\"total_tokens\":{total}}}}}\n\n"
        ));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

pub(super) fn response_stream(chunks: usize, used: Tokens) -> Vec<String> {
    let event = |kind: &str, rest: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\",{rest}}}\n\n");
    let mut events = vec![event(
        "response.created",
        &format!(
            r#""response":{{"id":"resp_mock","object":"response","status":"in_progress","model":"{MODEL}","output":[]}}"#
        ),
    )];
    events.extend((2..chunks).map(|n| {
        let rest = format!(r#""item_id":"msg_mock","output_index":0,"content_index":0,"delta":"word{n} ""#);
        event("response.output_text.delta", &rest)
    }));
    events.push(event("response.completed", &format!(r#""response":{}"#, response(&text(40), used))));
    events
}

pub(super) fn message_stream(chunks: usize, used: Tokens) -> Vec<String> {
    let event = |kind: &str, rest: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{rest}}}\n\n");
    let Tokens { prompt, completion } = used;
    let start = format!(
        r#","message":{{"id":"msg_mock","type":"message","role":"assistant","model":"claude-mock","content":[],"stop_reason":null,"usage":{{"input_tokens":{prompt},"output_tokens":1}}}}"#
    );
    let mut events = vec![event("message_start", &start)];
    events.push(event("content_block_start", r#","index":0,"content_block":{"type":"text","text":""}"#));
    events.extend((5..chunks).map(|n| {
        let rest = format!(r#","index":0,"delta":{{"type":"text_delta","text":"word{n} "}}"#);
        event("content_block_delta", &rest)
    }));
    events.push(event("content_block_stop", r#","index":0"#));
    let end = format!(
        r#","delta":{{"stop_reason":"end_turn","stop_sequence":null}},"usage":{{"output_tokens":{completion}}}"#
    );
    events.push(event("message_delta", &end));
    events.push(event("message_stop", ""));
    events
}

pub(super) fn gemini_stream(chunks: usize, used: Tokens) -> Vec<String> {
    let Tokens { prompt, completion } = used;
    let total = prompt + completion;
    let piece = |text: &str, rest: &str| {
        format!(
            "data: {{\"candidates\":[{{\"content\":{{\"role\":\"model\",\"parts\":[{{\"text\":\"{text}\"}}]}}{rest}\r\n\r\n"
        )
    };
    let mut events: Vec<String> =
        (1..chunks).map(|n| piece(&format!("word{n} "), ",\"index\":0}],\"modelVersion\":\"gemini-mock\"}")).collect();
    let end = format!(
        ",\"finishReason\":\"STOP\",\"index\":0}}],\"usageMetadata\":{{\"promptTokenCount\":{prompt},\"candidatesTokenCount\":{completion},\"totalTokenCount\":{total}}},\"modelVersion\":\"gemini-mock\"}}"
    );
    events.push(piece("end", &end));
    events
}
