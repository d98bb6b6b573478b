//! What can be looked at: models, logs, usage, the cluster, and oneself.

use super::Operator;
use crate::support::client::{Conn, post};
use crate::support::eventually;
use crate::support::gateway::{Setup, named};
use crate::support::provider::{Provider, chat, error};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const QUESTION: &[u8] = br#"{"model":"openai/gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;

#[test]
fn requests_are_found_in_the_log_by_what_is_known_of_them() {
    let provider = Provider::new(chat("hello"));
    let gateway = Setup::openai(&provider).start();
    let operator = Operator::anybody(&gateway);
    let key = gateway.key(named("caller"));
    let bearer = format!("authorization: Bearer {key}\r\n");
    assert_eq!(post(gateway.addr, CHAT, &format!("{bearer}x-request-id: mine-1\r\n"), QUESTION).status, 200);
    assert_eq!(post(gateway.addr, CHAT, "", QUESTION).status, 200);
    provider.then(error(400, "no", ""));
    assert_eq!(post(gateway.addr, CHAT, "", QUESTION).status, 400);
    gateway.rows(3);
    let found = |query: &str| -> Vec<Value> {
        let page = operator.told("GET", &format!("/api/logs?{query}"), &Value::Null, 200);
        page["logs"].as_array().unwrap().clone()
    };
    assert_eq!(found("").len(), 3);
    let mine = found("q=mine-1");
    assert_eq!(
        (mine.len(), &mine[0]["client_request_id"], &mine[0]["key_name"]),
        (1, &json!("mine-1"), &json!("caller"))
    );
    let id = mine[0]["key_id"].as_str().unwrap();
    for (query, count) in [
        (format!("key_id={id}"), 1),
        ("key_id=anonymous".to_owned(), 2),
        ("status=ok".to_owned(), 2),
        ("status=4xx".to_owned(), 1),
        ("status=400".to_owned(), 1),
        ("provider=openai".to_owned(), 3),
        ("provider=groq".to_owned(), 0),
        ("model=openai%2Fgpt-4o-mini".to_owned(), 3),
        ("since=1h".to_owned(), 3),
        ("until=2020-01-01".to_owned(), 0),
        ("q=GPT-4O".to_owned(), 3),
    ] {
        assert_eq!(found(&query).len(), count, "{query}");
    }
    let (mut seen, mut cursor) = (0, String::new());
    for _ in 0..3 {
        let page = operator.told("GET", &format!("/api/logs?limit=1{cursor}"), &Value::Null, 200);
        seen += page["logs"].as_array().unwrap().len();
        cursor = format!("&cursor={}", page["next_cursor"].as_str().unwrap_or_default());
    }
    assert_eq!((seen, cursor.as_str()), (3, "&cursor="));
    let path = format!("/api/logs/{}", mine[0]["request_id"].as_str().unwrap());
    let one = operator.told("GET", &path, &Value::Null, 200);
    assert_eq!((&one["request_id"], one["timeline"].is_array()), (&mine[0]["request_id"], true));
    operator.told("GET", "/api/logs/req_0000000000000000000000", &Value::Null, 404);
    operator.told("GET", "/api/logs/nonsense", &Value::Null, 404);
}

#[test]
fn what_has_no_known_price_cost_nobody_knows_what_and_what_reached_nobody_cost_nothing() {
    let provider = Provider::new(chat("hello"));
    let gateway = Setup::openai(&provider).start();
    let operator = Operator::anybody(&gateway);
    for (model, status) in [("openai/gpt-4o-mini", 200), ("openai/of-my-own", 200), ("nobody/knows", 404)] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]}).to_string();
        assert_eq!(post(gateway.addr, CHAT, "", body.as_bytes()).status, status, "{model}");
    }
    gateway.rows(3);
    let page = operator.told("GET", "/api/logs", &Value::Null, 200);
    let cost = |model: &str| {
        let rows = page["logs"].as_array().unwrap();
        rows.iter().find(|row| row["requested_model"] == model).unwrap()["cost_usd"].clone()
    };
    assert!(cost("openai/gpt-4o-mini").as_f64().unwrap() > 0.0);
    assert_eq!((cost("openai/of-my-own"), cost("nobody/knows")), (Value::Null, json!(0.0)));
}

#[test]
fn usage_adds_up_by_what_is_asked_for_and_comes_as_a_spreadsheet() {
    let provider = Provider::new(chat("hello"));
    let gateway = Setup::openai(&provider).start();
    let operator = Operator::anybody(&gateway);
    let made = operator.told("POST", "/api/keys", &json!({"name": "=cmd(),\"x\"", "budget_usd": 5}), 201);
    let bearer = format!("authorization: Bearer {}\r\n", made["key"].as_str().unwrap());
    for _ in 0..3 {
        assert_eq!(post(gateway.addr, CHAT, &bearer, QUESTION).status, 200);
    }
    assert_eq!(post(gateway.addr, CHAT, "", QUESTION).status, 200);
    let usage = |query: &str| operator.told("GET", &format!("/api/usage?{query}"), &Value::Null, 200);
    eventually("all is counted", || usage("")["total"]["requests"] == json!(4));
    let by_key = usage("by=key,provider");
    let rows = by_key["usage"].as_array().unwrap();
    let ours = rows.iter().find(|row| row["key_id"] == made["id"]).unwrap();
    assert_eq!((&ours["requests"], &ours["provider"]), (&json!(3), &json!("openai")));
    assert!(ours["tokens"]["prompt"].as_u64().unwrap() > 0 && ours["cost_usd"].as_f64().unwrap() > 0.0);
    let nobody = rows.iter().find(|row| row["key_id"].is_null()).unwrap();
    assert_eq!(nobody["requests"], json!(1));
    assert!(usage("by=day")["usage"][0]["day"].as_str().unwrap().len() == 10);
    assert_eq!(usage("until=2020-01-01")["usage"], json!([]));
    let shown = operator.told("GET", &format!("/api/keys/{}", made["id"].as_str().unwrap()), &Value::Null, 200);
    assert!(shown["spent_usd"].as_f64().unwrap() > 0.0);
    for head in ["", "accept: text/csv\r\n"] {
        let format = if head.is_empty() { "&format=csv" } else { "" };
        let sheet = Operator::with(&gateway, head).get(&format!("/api/usage?by=key{format}"));
        assert_eq!(sheet.header("content-type"), Some("text/csv; charset=utf-8"));
        let text = sheet.text();
        let mut lines = text.lines();
        let names = "key_id,key_name,requests,errors,prompt,completion,cache_read,cache_write,reasoning,cost_usd";
        assert_eq!(lines.next(), Some(names));
        assert!(text.contains(r#","'=cmd(),""x""",3,0,"#), "a name that is a formula is text: {text}");
    }
}

#[test]
fn what_can_be_asked_for_is_listed_with_its_price_and_who_rests() {
    let provider = Provider::new(chat("hello"));
    let gateway = Setup::openai(&provider)
        .account("openai", "b", &provider.openai_url())
        .route(json!({"name": "fast", "targets": [{"model": "openai/gpt-4o-mini"}]}))
        .start();
    let operator = Operator::anybody(&gateway);
    provider.then(error(429, "slow down", "retry-after: 60\r\n"));
    assert_eq!(post(gateway.addr, CHAT, "", QUESTION).status, 200);
    let listed = operator.told("GET", "/api/models", &Value::Null, 200);
    let one = |id: &str| listed["models"].as_array().unwrap().iter().find(|one| one["id"] == id).cloned().unwrap();
    let mini = one("openai/gpt-4o-mini");
    assert_eq!((&mini["kind"], &mini["accounts"], &mini["resting"]), (&json!("provider"), &json!(2), &json!(1)));
    assert!(mini["price"]["input"].as_f64().unwrap() > 0.0 && mini["context"].as_u64().unwrap() > 0);
    let fast = one("fast");
    assert_eq!(
        (&fast["kind"], &fast["resting"], &fast["providers"]),
        (&json!("virtual"), &json!(1), &json!(["openai"]))
    );
}

#[test]
fn an_instance_alone_is_a_cluster_of_one_and_anybody_knows_who_they_are() {
    let gateway = Setup::new().start();
    let operator = Operator::anybody(&gateway);
    let cluster = operator.told("GET", "/api/cluster", &Value::Null, 200);
    let health = operator.told("GET", "/healthz", &Value::Null, 200);
    let instances = cluster["instances"].as_array().unwrap();
    assert_eq!((instances.len(), &instances[0]["self"]), (1, &json!(true)));
    assert_eq!((&instances[0]["id"], &cluster["redis"]["state"]), (&health["instance"], &json!("off")));
    assert_eq!(health["redis"], json!("off"));
    let me = operator.told("GET", "/api/me", &Value::Null, 200);
    assert_eq!((&me["kind"], &me["scope"], &me["password_set"]), (&json!("anybody"), &json!("admin"), &json!(false)));
    let mut conn = Conn::open(gateway.addr);
    conn.send(b"HEAD /api/me HTTP/1.1\r\nhost: gateway\r\n\r\n");
    assert!(conn.read_until("\r\n\r\n").starts_with("HTTP/1.1 200"));
}
