//! Traces: what a collector gets of a request, what the provider is told, and that nobody waits for either.

use crate::support::client::{get, post};
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway, named};
use crate::support::provider::{Provider, chat, error};
use merido::base::Secret;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const QUESTION: &[u8] = br#"{"model":"openai/gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn traced(provider: &Provider, collector: &Provider) -> Setup {
    let url = collector.bare_url();
    Setup::openai(provider).with(|s| {
        s.otlp_endpoint = Some(url);
        s.otlp_headers = Some(Secret::new("X-Tenant = seven, authorization=Basic abc"));
    })
}

/// All spans the collector was sent.
fn spans(collector: &Provider) -> Vec<Value> {
    let messages = collector.seen();
    let read = messages.iter().map(|seen| serde_json::from_slice::<Value>(&seen.body).unwrap());
    read.flat_map(|message| message["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()).collect()
}

fn attribute(span: &Value, key: &str) -> Value {
    let all = span["attributes"].as_array().unwrap();
    let value = all.iter().find(|one| one["key"] == key).map(|one| one["value"].clone());
    value.and_then(|value| value.as_object()?.values().next().cloned()).unwrap_or_default()
}

fn dropped(gateway: &TestGateway) -> f64 {
    let text = get(gateway.addr, "/metrics", "").text();
    let line = text.lines().find(|line| line.starts_with("merido_trace_spans_total{outcome=\"dropped\"}")).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn a_request_becomes_a_span_of_its_clients_trace_and_the_providers_parent() {
    let (provider, collector) = (Provider::new(chat("hello")), Provider::new(chat("taken")));
    let gateway = traced(&provider, &collector).start();
    let key = gateway.create_key(named("caller"));
    let bearer = format!("authorization: Bearer {}\r\n", key.plain.reveal());
    eventually("the key is known", || get(gateway.addr, "/v1/models", &bearer).status == 200);
    let head = format!("{bearer}traceparent: {PARENT}\r\ntracestate: vendor=1\r\n");
    assert_eq!(post(gateway.addr, CHAT, &head, QUESTION).status, 200);
    provider.then(error(400, "nonsense", ""));
    assert_eq!(post(gateway.addr, CHAT, "", QUESTION).status, 400);
    eventually("both spans", || spans(&collector).len() == 2);
    let message = collector.seen()[0].clone();
    assert_eq!(message.line(), "POST /v1/traces HTTP/1.1");
    assert_eq!((message.header("x-tenant"), message.header("authorization")), (Some("seven"), Some("Basic abc")));
    let text = String::from_utf8(message.body).unwrap();
    assert!(!text.contains("mrd_") && !text.contains("sk-openai"), "{text}");

    let spans = spans(&collector);
    let (ours, failed) = (&spans[0], &spans[1]);
    assert_eq!(
        (&ours["traceId"], &ours["parentSpanId"]),
        (&json!("0af7651916cd43dd8448eb211c80319c"), &json!("b7ad6b7169203331"))
    );
    assert_eq!((&ours["name"], &ours["kind"]), (&json!("chat openai/gpt-4o-mini"), &json!(2)));
    let told = provider.seen()[0].header("traceparent").unwrap().to_owned();
    assert_eq!(told, format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", ours["spanId"].as_str().unwrap()));
    assert_eq!(provider.seen()[0].header("tracestate"), Some("vendor=1"));
    for (name, value) in [
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("openai")),
        ("gen_ai.system", json!("openai")),
        ("gen_ai.request.model", json!("openai/gpt-4o-mini")),
        ("gen_ai.response.model", json!("gpt-4o-mini")),
        ("http.response.status_code", json!("200")),
        ("merido.account", json!("a")),
        ("merido.key_id", json!(key.info.id.to_string())),
        ("merido.attempts", json!("1")),
    ] {
        assert_eq!(attribute(ours, name), value, "{name}");
    }
    let row = &gateway.rows(2).into_iter().find(|row| row.status == 200).unwrap();
    assert_eq!(attribute(ours, "gen_ai.usage.input_tokens"), json!(row.tokens.prompt.to_string()));
    assert_eq!(attribute(ours, "gen_ai.usage.output_tokens"), json!(row.tokens.completion.to_string()));
    assert_eq!(attribute(ours, "merido.request_id"), json!(row.id.to_string()));
    let time = |span: &Value, name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
    assert!(time(ours, "startTimeUnixNano") < time(ours, "endTimeUnixNano"));
    assert_eq!((&failed["status"]["code"], failed.get("parentSpanId")), (&json!(2), None), "a trace of our own");
    assert_ne!(failed["traceId"], ours["traceId"]);
}

#[test]
fn who_is_not_to_be_traced_is_not_and_without_a_collector_nothing_is_touched() {
    let (provider, collector) = (Provider::new(chat("hello")), Provider::new(chat("taken")));
    let quiet = traced(&provider, &collector).with(|s| s.otlp_sample_ratio = 0.0).start();
    let unsampled = PARENT.replace("-01", "-00");
    for head in [String::new(), format!("traceparent: {unsampled}\r\n"), format!("traceparent: {PARENT}\r\n")] {
        assert_eq!(post(quiet.addr, CHAT, &head, QUESTION).status, 200);
    }
    eventually("the one that asked for it", || !spans(&collector).is_empty());
    assert!(provider.seen()[1].header("traceparent").unwrap().ends_with("-00"));
    assert_eq!(spans(&collector).len(), 1);
    assert_eq!(spans(&collector)[0]["parentSpanId"], "b7ad6b7169203331");

    let off = Setup::openai(&provider).start();
    assert_eq!(post(off.addr, CHAT, &format!("traceparent: {PARENT}\r\n"), QUESTION).status, 200);
    assert_eq!(provider.seen().last().unwrap().header("traceparent"), Some(PARENT), "as it came");
}

#[test]
fn spans_go_out_at_the_end_and_a_collector_that_refuses_costs_spans_only() {
    let (provider, collector) = (Provider::new(chat("hello")), Provider::new(chat("taken")));
    let gateway = traced(&provider, &collector).start();
    for _ in 0..20 {
        assert_eq!(post(gateway.addr, CHAT, "", QUESTION).status, 200);
    }
    let (running, _store, _dir) = gateway.take();
    running.stop();
    assert_eq!(spans(&collector).len(), 20, "what was on its way is sent before the end");

    let refusing = Provider::new(error(400, "no", ""));
    let gateway = traced(&provider, &refusing).start();
    let before = dropped(&gateway);
    for _ in 0..5 {
        assert_eq!(post(gateway.addr, CHAT, "", QUESTION).status, 200);
    }
    eventually("they are counted", || dropped(&gateway) - before >= 5.0);
    refusing.always(chat("taken"));
    let sent = refusing.calls();
    assert_eq!(post(gateway.addr, CHAT, "", QUESTION).status, 200);
    eventually("it goes on", || refusing.calls() > sent);
}
