//! What the dialect layer costs a request: the first look at a body, the edits, and the metering of replies.
//!
//! `cargo bench --bench peek`. The sizes are those of the load test: 1 KB chat body, 0.6 KB reply, 33 events in 6.2 KB.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use merido::dialect::Endpoint;
use merido::dialect::peek::peek;
use merido::dialect::splice::splice;
use merido::dialect::sse::StreamMeter;
use merido::dialect::usage::from_body;
use std::fmt::Write;
use std::hint::black_box;

/// A chat body of about `size` bytes whose prompt is prose with a line end every 60 characters and some quotes.
fn chat_body(size: usize) -> Bytes {
    let line = "The quick brown fox said \\\"no\\\" and jumped over the lazy dog.\\n";
    let prompt = line.repeat(size / line.len() / 4);
    let turns: Vec<String> = ["system", "user", "assistant", "user"]
        .iter()
        .map(|role| format!(r#"{{"role":"{role}","content":"{prompt}"}}"#))
        .collect();
    let messages = turns.join(",");
    Bytes::from(format!(
        r#"{{"model":"openai/gpt-4o-mini","stream":true,"temperature":0.7,"max_tokens":256,"messages":[{messages}]}}"#
    ))
}

fn reply() -> Bytes {
    let text = "word ".repeat(60);
    Bytes::from(format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":212,"completion_tokens":60,"total_tokens":272,"prompt_tokens_details":{{"cached_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0}}}}}}"#
    ))
}

/// 33 events; `null_usage`: each one says `"usage":null`, as OpenAI does once usage was asked for.
fn burst(null_usage: bool) -> Bytes {
    let null = if null_usage { r#","usage":null"# } else { "" };
    let mut all = String::new();
    for n in 0..31 {
        let _ = write!(
            all,
            "data: {{\"id\":\"chatcmpl-123456789012345678901234\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt-4o-mini\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{n:02}\"}},\"finish_reason\":null}}]{null}}}\n\n"
        );
    }
    all += "data: {\"id\":\"chatcmpl-123456789012345678901234\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt-4o-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":212,\"completion_tokens\":31,\"total_tokens\":243}}\n\n";
    all += "data: [DONE]\n\n";
    Bytes::from(all)
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    for (name, size) in [("1 KB", 900), ("300 KB", 300_000)] {
        let body = chat_body(size);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("peek {name}"), |b| b.iter(|| peek(black_box(&body), Endpoint::Chat)));
    }
    let body = chat_body(900);
    let Ok(looked_at) = peek(&body, Endpoint::Chat) else { return };
    group.throughput(Throughput::Elements(1));
    group.bench_function("splice, prefix cut off", |b| {
        b.iter(|| splice(black_box(&body), &looked_at, Some("gpt-4o-mini"), false));
    });
    group.bench_function("splice, other model and usage", |b| {
        b.iter(|| splice(black_box(&body), &looked_at, Some("claude"), true));
    });
    group.finish();
}

fn replies(c: &mut Criterion) {
    let mut group = c.benchmark_group("reply");
    let whole = reply();
    group.throughput(Throughput::Bytes(whole.len() as u64));
    group.bench_function("usage of 0.6 KB", |b| b.iter(|| from_body(Endpoint::Chat, black_box(&whole))));
    for (name, null, drop) in [
        ("plain", false, false),
        ("usage null in each", true, false),
        ("usage null in each, chunk dropped", true, true),
    ] {
        let data = burst(null);
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_function(format!("33 events in one read, {name}"), |b| {
            b.iter(|| {
                let mut meter = StreamMeter::new(Endpoint::Chat, drop);
                let out = meter.feed(black_box(data.clone()));
                (out, meter.finish(), meter.usage())
            });
        });
    }
    let events: Vec<Bytes> = burst(false)
        .split(|b| *b == b'\n')
        .filter(|e| !e.is_empty())
        .map(|e| Bytes::from([e, b"\n\n"].concat()))
        .collect();
    group.throughput(Throughput::Elements(events.len() as u64));
    group.bench_function("33 events, one a read", |b| {
        b.iter(|| {
            let mut meter = StreamMeter::new(Endpoint::Chat, false);
            for event in &events {
                black_box(meter.feed(event.clone()));
            }
            meter.usage()
        });
    });
    group.finish();
}

criterion_group!(benches, requests, replies);
criterion_main!(benches);
