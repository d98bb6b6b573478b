//! The providers' own Python SDKs as clients: what their users' programs do must work against a gateway, unchanged.
//!
//! The programs lie in `tests/sdk/`; here they get something to talk to. A failure shows the program's own traceback.

use crate::support::gateway::{Setup, TestGateway, named};
use crate::support::provider::{Provider, Script, Then};
use merido::store::rows::KeySpec;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python that has the SDKs: `scripts/test.sh` makes it.
pub fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("MERIDO_TEST_PYTHON").map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
    assert!(
        python.is_file(),
        "no Python with the SDKs at {}: run scripts/test.sh once, it makes one",
        python.display()
    );
    python
}

/// Runs `tests/sdk/{program}` to its end, with nothing of this machine's environment.
#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(program);
    let output = Command::new(python())
        .arg("-B")
        .arg(file)
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} {arguments:?}:\n{}", String::from_utf8_lossy(&output.stderr));
}

const PROGRAMS: [(&str, &str); 3] =
    [("openai_client.py", "openai"), ("anthropic_client.py", "anthropic"), ("genai_client.py", "gemini")];

fn url(gateway: &TestGateway) -> String {
    format!("http://{}", gateway.addr)
}

#[test]
fn the_built_in_demo_serves_every_sdk() {
    let gateway = Setup::new().start();
    for (program, _) in PROGRAMS {
        run(program, &["serving", &url(&gateway), "any", "demo/echo"]);
    }
}

#[test]
fn a_provider_behind_serves_every_sdk() {
    // The provider is a gateway, too: its demo speaks every dialect and every endpoint, over a real wire.
    let behind = Setup::new().start();
    let (v1, bare) = (format!("{}/v1", url(&behind)), url(&behind));
    let setup = Setup::new().account("openai", "a", &v1).account("anthropic", "a", &bare).account("gemini", "a", &bare);
    let gateway = setup.with(|settings| settings.require_api_key = Some(true)).start();
    let key = gateway.key(named("sdk"));
    for (program, provider) in PROGRAMS {
        run(program, &["serving", &url(&gateway), &key, &format!("{provider}/demo/echo")]);
    }
    let rows = gateway.rows(10);
    let unaccounted = rows.iter().find(|row| row.status != 200 || row.tokens.prompt == 0 || row.estimated);
    // Counting tokens is free: the only answer that reports no use.
    assert!(unaccounted.is_none_or(|row| row.endpoint == "count_tokens"), "{unaccounted:?}");
}

#[test]
fn a_provider_of_another_dialect_serves_every_sdk() {
    let behind = Setup::new().start();
    let (v1, bare) = (format!("{}/v1", url(&behind)), url(&behind));
    let setup = Setup::new().account("openai", "a", &v1).account("anthropic", "a", &bare).account("gemini", "a", &bare);
    let gateway = setup.start();
    for (program, own) in PROGRAMS {
        for provider in ["openai", "anthropic", "gemini"].iter().filter(|provider| **provider != own) {
            run(program, &["foreign", &url(&gateway), "any", &format!("{provider}/demo/echo")]);
        }
    }
    let served = gateway.rows(30).into_iter().filter(|row| row.status == 200 && row.endpoint != "count_tokens");
    for row in served {
        assert!(row.tokens.prompt > 0 && row.tokens.completion > 0 && !row.estimated, "{row:?}");
    }
}

#[test]
fn tools_are_used_to_the_end_with_a_provider_of_another_dialect() {
    for (own, answers) in [("openai", "chat"), ("anthropic", "messages"), ("gemini", "generate")] {
        for (program, callers) in PROGRAMS {
            if callers == own {
                continue;
            }
            let provider = Provider::new(Script::Close);
            // OpenAI's program asks by two endpoints, each whole and streamed.
            for _ in 0..if callers == "openai" { 2 } else { 1 } {
                provider.then(golden(&format!("answers/tools.{answers}.json"))).then(sunny(own, false));
                provider.then(golden(&format!("streams/tools.{answers}.sse"))).then(sunny(own, true));
            }
            let base = if own == "openai" { provider.openai_url() } else { provider.bare_url() };
            let gateway = Setup::new().account(own, "a", &base).start();
            run(program, &["tools", &url(&gateway), "any", &format!("{own}/a-model")]);
            assert_eq!(provider.pending(), 0, "{program} {own}");
            for seen in provider.seen().iter().skip(1).step_by(2) {
                let body = String::from_utf8_lossy(&seen.body);
                assert!(body.contains("sunny") && body.contains("location"), "{program} {own}: {body}");
                // What its model sealed comes home as it was.
                let sealed = match own {
                    "gemini" => body.contains(r#""thoughtSignature":"CpcDAQHjZ2Vt""#),
                    "anthropic" if program != "openai_client.py" => {
                        body.contains("EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pk=")
                    }
                    _ => true,
                };
                assert!(sealed, "{program} {own}: {body}");
            }
        }
    }
}

/// A golden source as what a provider says.
fn golden(name: &str) -> Script {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    if name.starts_with("streams/") {
        return Script::Events(text.split_inclusive("\n\n").map(str::to_owned).collect(), Then::End);
    }
    Script::Reply(200, "content-type: application/json\r\n".to_owned(), text.into_bytes())
}

/// The answer once the tool has spoken.
fn sunny(dialect: &str, stream: bool) -> Script {
    let text = "It is sunny.";
    let usage = serde_json::json!({"input_tokens": 3, "output_tokens": 4});
    let gemini = serde_json::json!({"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}});
    let message = |content: serde_json::Value| {
        serde_json::json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content,
            "stop_reason": "end_turn", "stop_sequence": null, "usage": usage})
    };
    let event = |data: serde_json::Value| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap());
    match (dialect, stream) {
        ("openai", false) => super::support::provider::chat(text),
        ("openai", true) => {
            let mut events = super::support::provider::chat_events(&[text], true);
            let end = serde_json::json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
            events.insert(1, format!("data: {end}\n\n"));
            Script::Events(events, Then::End)
        }
        ("gemini", true) => Script::Events(vec![format!("data: {gemini}\n\n")], Then::End),
        ("gemini", false) => {
            Script::Reply(200, "content-type: application/json\r\n".to_owned(), gemini.to_string().into_bytes())
        }
        (_, false) => {
            let body = message(serde_json::json!([{"type": "text", "text": text}])).to_string();
            Script::Reply(200, "content-type: application/json\r\n".to_owned(), body.into_bytes())
        }
        (_, true) => Script::Events(
            vec![
                event(serde_json::json!({"type": "message_start", "message": message(serde_json::json!([]))})),
                event(
                    serde_json::json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                ),
                event(
                    serde_json::json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
                ),
                event(serde_json::json!({"type": "content_block_stop", "index": 0})),
                event(
                    serde_json::json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": 4}}),
                ),
                event(serde_json::json!({"type": "message_stop"})),
            ],
            Then::End,
        ),
    }
}

#[test]
fn errors_arrive_as_the_sdks_own_classes() {
    let gateway = Setup::new().with(|settings| settings.require_api_key = Some(true)).start();
    let key = gateway.key(named("free"));
    let fenced = gateway.key(KeySpec { models: Some(vec!["openai/*".to_owned()]), ..named("fenced") });
    for (program, _) in PROGRAMS {
        let limited = gateway.key(KeySpec { rpm: Some(1), burst: Some(1), ..named("limited") });
        run(program, &["errors", &url(&gateway), &key, &limited, &fenced]);
    }
}

#[test]
fn what_openai_sends_arrives_as_its_sdk_expects_it() {
    let chunk = |delta: serde_json::Value| {
        let chunk = serde_json::json!({
            "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini",
            "service_tier": "default", "system_fingerprint": "fp_1",
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}], "usage": null,
        });
        format!("data: {chunk}\n\n")
    };
    let call = |part: serde_json::Value| chunk(serde_json::json!({"tool_calls": [part]}));
    let tools = vec![
        call(serde_json::json!({"index": 0, "id": "call_1", "type": "function",
            "function": {"name": "weather", "arguments": ""}})),
        call(serde_json::json!({"index": 0, "function": {"arguments": "{\"city\":"}})),
        call(serde_json::json!({"index": 0, "function": {"arguments": "\"Köln\"}"}})),
        "data: [DONE]\n\n".to_owned(),
    ];
    let refusal = r#"{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;
    let provider = Provider::new(Script::Close);
    provider
        .then(Script::Events(tools, Then::End))
        .then(Script::Events(vec![chunk(serde_json::json!({"content": "half"}))], Then::Break))
        .then(Script::Reply(400, "content-type: application/json\r\n".to_owned(), refusal.into()));
    let gateway = Setup::openai(&provider).start();
    run("openai_client.py", &["shapes", &url(&gateway), "any", "openai/gpt-4o-mini"]);
    assert_eq!(provider.calls(), 3);
}

#[test]
fn what_anthropic_sends_arrives_as_its_sdk_expects_it() {
    let event = |data: serde_json::Value| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap());
    let start = event(serde_json::json!({"type": "message_start", "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [],
        "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 9, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4, "output_tokens": 1},
    }}));
    let block = |index: u64, block: serde_json::Value, deltas: &[serde_json::Value]| {
        let mut events =
            vec![event(serde_json::json!({"type": "content_block_start", "index": index, "content_block": block}))];
        for delta in deltas {
            events.push(event(serde_json::json!({"type": "content_block_delta", "index": index, "delta": delta})));
        }
        events.push(event(serde_json::json!({"type": "content_block_stop", "index": index})));
        events.concat()
    };
    let thought = block(
        0,
        serde_json::json!({"type": "thinking", "thinking": "", "signature": ""}),
        &[
            serde_json::json!({"type": "thinking_delta", "thinking": "Hm, Köln."}),
            serde_json::json!({"type": "signature_delta", "signature": "c2ln"}),
        ],
    );
    let call = block(
        1,
        serde_json::json!({"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}),
        &[
            serde_json::json!({"type": "input_json_delta", "partial_json": "{\"city\": \"K"}),
            serde_json::json!({"type": "input_json_delta", "partial_json": "öln\"}"}),
        ],
    );
    let end =
        event(serde_json::json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null},
        "usage": {"output_tokens": 21}}));
    let stop = event(serde_json::json!({"type": "message_stop"}));
    let ping = event(serde_json::json!({"type": "ping"}));
    let half = vec![
        start.clone(),
        event(
            serde_json::json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        ),
        event(
            serde_json::json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "half"}}),
        ),
    ];
    let refusal = r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 1 tokens > 0 maximum"},"request_id":"req_1"}"#;
    let provider = Provider::new(Script::Close);
    provider
        .then(Script::Events(vec![start, ping, thought, call, end, stop], Then::End))
        .then(Script::Events(half, Then::Break))
        .then(Script::Reply(400, "content-type: application/json\r\n".to_owned(), refusal.into()));
    let gateway = Setup::new().account("anthropic", "a", &provider.bare_url()).start();
    run("anthropic_client.py", &["shapes", &url(&gateway), "any", "anthropic/claude-sonnet-4-5"]);
    let row = gateway.rows(3).into_iter().find(|row| row.tokens.completion == 21).unwrap();
    assert_eq!((row.tokens.prompt, row.tokens.cache_read), (13, 4));
}
