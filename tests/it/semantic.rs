//! Similar questions are answered from memory where that is switched on: never another key's, model's or conversation's.

use crate::support::client::{Answer, post};
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway, block_on, named};
use crate::support::provider::{Provider, Script, Then, chat, chat_events, error};
use merido::config::SemanticMode;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const FRANCE: &str = "What is the capital of France?";
const FRANCE_AGAIN: &str = "Please, could you tell me: what is the capital of France";

fn builtin(provider: &Provider) -> Setup {
    Setup::openai(provider).with(|set| set.semantic_cache = SemanticMode::Builtin)
}

/// A request with `text` as its last user message, and more fields.
fn asking(text: &str, more: Value) -> Vec<u8> {
    let mut body = json!({"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": text}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string().into_bytes()
}

fn ask(gateway: &TestGateway, head: &str, body: &[u8]) -> Answer {
    post(gateway.addr, CHAT, head, body)
}

/// Where the answer came from.
fn from(gateway: &TestGateway, text: &str, more: Value) -> String {
    let answer = ask(gateway, "", &asking(text, more));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-merido-cache").unwrap().to_owned()
}

#[test]
fn off_by_default() {
    let provider = Provider::new(chat("Paris"));
    let gateway = Setup::openai(&provider).start();
    assert_eq!([(), ()].map(|()| from(&gateway, FRANCE, json!({}))), ["miss", "miss"]);
    assert_eq!(provider.calls(), 2);
}

#[test]
fn the_same_question_in_other_words_is_answered_from_memory_and_costs_nothing() {
    let provider = Provider::new(chat("Paris"));
    let gateway = builtin(&provider).start();
    let first = ask(&gateway, "", &asking(FRANCE, json!({})));
    let again = ask(&gateway, "x-request-id: second\r\n", &asking(FRANCE_AGAIN, json!({})));
    assert_eq!(first.header("x-merido-cache"), Some("miss"));
    assert_eq!((again.status, again.header("x-merido-cache")), (200, Some("semantic")));
    assert_eq!((&again.body, again.header("content-type")), (&first.body, first.header("content-type")));
    assert_eq!(again.header("x-request-id"), Some("second"), "every request keeps its own name");
    assert_eq!(provider.calls(), 1);
    let rows = gateway.rows(2);
    let kept = rows.iter().find(|row| row.cache == "semantic").unwrap();
    assert_eq!((kept.tokens.prompt, kept.tokens.completion, kept.cost_nanos, kept.attempts), (0, 0, 0, 0));
    assert!(!kept.estimated && gateway.metric("merido_semantic_hits_total") > 0.0);
}

#[test]
fn a_number_a_negation_or_the_threshold_makes_it_another_question() {
    let provider = Provider::new(chat("fine"));
    let gateway = builtin(&provider).start();
    for text in ["What is 17 times 23?", "What is 17 times 24?", "Is it safe?", "Is it not safe?", FRANCE] {
        assert_eq!(from(&gateway, text, json!({})), "miss", "{text}");
    }
    assert_eq!(from(&gateway, "what is 17 times 24", json!({})), "semantic");
    let near = "What is the capital of France today?";
    assert_eq!(from(&gateway, near, json!({})), "miss");
    let loose = builtin(&provider).with(|set| set.semantic_cache_threshold = 0.3).start();
    assert_eq!(from(&loose, FRANCE, json!({})), "miss");
    assert_eq!(from(&loose, near, json!({})), "semantic", "the threshold decides");
}

#[test]
fn everything_else_must_be_equal() {
    let provider = Provider::new(chat("fine"));
    let gateway = builtin(&provider).start();
    let others = [
        json!({}),
        json!({"model": "openai/gpt-4o"}),
        json!({"temperature": 0.5}),
        json!({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": FRANCE}]}),
        json!({"messages": [{"role": "system", "content": "Be long."}, {"role": "user", "content": FRANCE}]}),
    ];
    for other in &others {
        assert_eq!(from(&gateway, FRANCE, other.clone()), "miss", "{other}");
    }
    for other in &others {
        assert_eq!(from(&gateway, FRANCE, other.clone()), "semantic", "{other}");
    }
    let tools = json!({"tools": [{"type": "function", "function": {"name": "f"}}]});
    for never in [tools, json!({"n": 2})] {
        assert_eq!([(), ()].map(|()| from(&gateway, FRANCE, never.clone())), ["miss", "miss"], "{never}");
    }
}

#[test]
fn keys_never_share_and_a_right_that_is_gone_is_gone() {
    let provider = Provider::new(chat("fine"));
    let gateway = builtin(&provider).with(|set| set.require_api_key = Some(true)).start();
    let (one, two) = (gateway.create_key(named("one")), gateway.key(named("two")));
    let head = |key: &str| format!("x-api-key: {key}\r\n");
    let (one_id, one) = (one.info.id, head(one.plain.reveal()));
    let body = asking(FRANCE, json!({}));
    eventually("the key is known", || ask(&gateway, &one, &body).status == 200);
    assert_eq!(ask(&gateway, &one, &body).header("x-merido-cache"), Some("semantic"));
    assert_eq!(ask(&gateway, &head(&two), &body).header("x-merido-cache"), Some("miss"));
    block_on(gateway.store().update_key(one_id, |spec| spec.models = Some(vec!["other/*".into()]))).unwrap();
    eventually("the right is gone, whatever is remembered", || ask(&gateway, &one, &body).status == 403);
}

#[test]
fn a_stream_is_replayed_as_a_stream_and_only_if_it_was_whole() {
    let events = chat_events(&["Par", "is"], false);
    let provider = Provider::new(Script::Events(events.clone(), Then::End));
    let gateway = builtin(&provider).start();
    let stream = |text| ask(&gateway, "", &asking(text, json!({"stream": true})));
    let unsaid = Script::Events(events[..1].to_vec(), Then::End);
    let broken = Script::Events(events[..1].to_vec(), Then::Break);
    for script in [error(400, "bad", ""), unsaid, broken] {
        provider.then(script);
        stream(FRANCE);
    }
    let first = stream(FRANCE);
    assert_eq!((first.header("x-merido-cache"), provider.calls()), (Some("miss"), 4), "none of those was kept");
    let again = stream(FRANCE_AGAIN);
    assert_eq!((again.header("x-merido-cache"), provider.calls()), (Some("semantic"), 4));
    assert_eq!((again.text(), again.header("content-type")), (events.concat(), Some("text/event-stream")));
    provider.then(chat("Paris"));
    assert_eq!(from(&gateway, FRANCE, json!({})), "miss", "who wants no stream gets none");
    assert_eq!(from(&gateway, FRANCE, json!({})), "semantic");
}

#[test]
fn a_leader_of_identical_requests_looks_there_too() {
    let provider = Provider::new(chat("Paris"));
    let gateway = builtin(&provider).start();
    let ask = |key: &str, text| {
        let answer = post(gateway.addr, CHAT, &format!("idempotency-key: {key}\r\n"), &asking(text, json!({})));
        (answer.header("x-merido-cache").unwrap().to_owned(), answer.text())
    };
    let first = ask("a", FRANCE);
    assert_eq!((first.0.as_str(), ask("b", FRANCE_AGAIN)), ("miss", ("semantic".to_owned(), first.1.clone())));
    assert_eq!(ask("b", FRANCE_AGAIN), ("dedup".to_owned(), first.1));
    assert_eq!(provider.calls(), 1);
}

/// An embeddings answer.
fn vector(numbers: &[f32]) -> Script {
    let body = json!({
        "object": "list", "model": "e", "data": [{"object": "embedding", "index": 0, "embedding": numbers}],
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    });
    Script::Reply(200, "content-type: application/json\r\n".to_owned(), body.to_string().into_bytes())
}

/// Chats at one provider, embeddings at another.
fn with_model(chats: &Provider, vectors: &Provider) -> Setup {
    Setup::openai(chats)
        .account("groq", "e", &vectors.openai_url())
        .with(|set| set.semantic_cache = SemanticMode::Model("groq/embed-1".to_owned()))
}

#[test]
fn a_providers_embeddings_decide_and_are_booked_as_calls_of_their_own() {
    let (chats, vectors) = (Provider::new(chat("fine")), Provider::new(vector(&[1.0, 0.0, 0.0])));
    vectors.then(vector(&[0.0, 1.0, 0.0])).then(vector(&[0.01, 0.99, 0.0]));
    let gateway = with_model(&chats, &vectors).start();
    let asked = ["How old is the moon?", "What is the age of our moon?", "Who are you?"];
    assert_eq!(asked.map(|text| from(&gateway, text, json!({}))), ["miss", "semantic", "miss"]);
    assert_eq!((chats.calls(), vectors.calls()), (2, 3));
    let seen = &vectors.seen()[1];
    assert_eq!(seen.line(), "POST /v1/embeddings HTTP/1.1");
    assert_eq!(seen.header("authorization"), Some("Bearer sk-groq-e"));
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(body, json!({"model": "embed-1", "input": asked[1]}));
    let rows = gateway.rows(6);
    let bought: Vec<_> = rows.iter().filter(|row| row.endpoint == "embeddings").collect();
    assert_eq!(bought.len(), 3);
    assert!(bought.iter().all(|row| row.tokens.prompt == 5 && row.status == 200 && row.attempts == 1));
}

#[test]
fn a_slow_or_failing_embedding_is_a_miss_and_nothing_else() {
    let (chats, vectors) = (Provider::new(chat("fine")), Provider::new(vector(&[1.0, 0.0])));
    let gateway = with_model(&chats, &vectors).start();
    let not_json = Script::Reply(200, String::new(), b"{\"data\":[".to_vec());
    let nowhere = vector(&[0.0, 0.0]);
    for script in [Script::Stall, not_json, nowhere, error(400, "bad", "")] {
        vectors.then(script);
        assert_eq!(from(&gateway, FRANCE, json!({})), "miss");
    }
    assert_eq!(vectors.calls(), 4);
    eventually("the slow one is told to stop", || vectors.hung_up() == 1);
    // Nothing of it was held against the account, and nothing was kept.
    assert_eq!([(), ()].map(|()| from(&gateway, FRANCE, json!({}))), ["miss", "semantic"]);
    let rows = gateway.rows(12);
    let of = |error: &str| rows.iter().filter(|row| row.error.as_deref() == Some(error)).collect::<Vec<_>>();
    assert_eq!((of("embedding_timeout").len(), of("embedding_failed").len()), (1, 1));
    assert!(of("embedding_timeout")[0].estimated, "it may have worked");
    assert!(rows.iter().filter(|row| row.endpoint == "chat").all(|row| row.status == 200));
}
