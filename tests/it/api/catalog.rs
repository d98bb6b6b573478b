//! Accounts, virtual models, providers and the call that tests a credential.

use super::Operator;
use crate::support::client::post;
use crate::support::gateway::Setup;
use crate::support::provider::{Provider, chat, error};
use merido::base::Secret;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// Head and body of the last request the provider got.
fn last(provider: &Provider) -> String {
    let seen = provider.seen();
    let last = seen.last().unwrap();
    format!("{}{}", last.head, String::from_utf8_lossy(&last.body))
}

#[test]
fn an_account_serves_as_soon_as_it_is_made_and_its_secret_is_never_shown() {
    let provider = Provider::new(chat("hello"));
    let gateway = Setup::new().with(|s| s.env_accounts = vec![("groq".to_owned(), Secret::new("sk-env"))]).start();
    let operator = Operator::anybody(&gateway);
    let asked =
        json!({"provider": "mine", "api_key": "sk-secret-1", "base_url": provider.openai_url(), "dialect": "openai"});
    let made = operator.send("POST", "/api/accounts", &asked);
    assert_eq!(made.status, 201, "{}", made.text());
    let account = made.json();
    assert_eq!((&account["label"], &account["weight"]), (&json!("default"), &json!(1)));
    assert_eq!((&account["dialect"], &account["source"]), (&json!("openai"), &json!("store")));
    let question = br#"{"model":"mine/any","messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(post(gateway.addr, CHAT, "", question).status, 200);
    assert!(last(&provider).contains("sk-secret-1"), "its credential went out");

    let path = format!("/api/accounts/{}", account["id"].as_str().unwrap());
    let changed = operator.told("PATCH", &path, &json!({"label": "b", "weight": 7, "api_key": "sk-secret-2"}), 200);
    assert_eq!(
        (&changed["label"], &changed["weight"], &changed["base_url"]),
        (&json!("b"), &json!(7), &asked["base_url"])
    );
    assert_eq!(post(gateway.addr, CHAT, "", question).status, 200);
    assert!(last(&provider).contains("sk-secret-2"));
    assert_eq!(operator.told("PATCH", &path, &json!({"weight": null}), 200)["weight"], json!(1));

    let list = operator.get("/api/accounts");
    for shown in [&made, &list, &operator.get(&path), &operator.get("/api/audit")] {
        assert!(!shown.text().contains("sk-"), "{}", shown.text());
    }
    let list = list.json();
    let env = list["accounts"].as_array().unwrap().iter().find(|one| one["provider"] == "groq").unwrap();
    assert_eq!((&env["source"], &env["label"]), (&json!("environment"), &json!("env")));
    let env = format!("/api/accounts/{}", env["id"].as_str().unwrap());
    operator.told("GET", &env, &Value::Null, 200);
    operator.told("PATCH", &env, &json!({"weight": 2}), 409);
    operator.told("DELETE", &env, &Value::Null, 409);

    let twice = json!({"provider": "mine", "api_key": "sk", "label": "b"});
    operator.told("POST", "/api/accounts", &twice, 409);
    operator.told("DELETE", &path, &Value::Null, 204);
    operator.told("DELETE", &path, &Value::Null, 404);
    assert_eq!(post(gateway.addr, CHAT, "", question).status, 404, "nobody serves it now");
    let providers = operator.told("GET", "/api/providers", &Value::Null, 200);
    let named = |name: &str| providers["providers"].as_array().unwrap().iter().find(|one| one["name"] == name).cloned();
    assert_eq!(named("mine").unwrap()["builtin"], json!(false));
    assert_eq!(named("anthropic").unwrap()["dialect"], json!("anthropic"));
}

#[test]
fn a_base_url_goes_back_to_the_providers_own_where_it_has_one() {
    let gateway = Setup::new().account("openai", "a", "http://127.0.0.1:9/v1").start();
    let operator = Operator::anybody(&gateway);
    let own = json!({"provider": "ours", "api_key": "k", "base_url": "http://127.0.0.1:9", "dialect": "gemini"});
    operator.told("POST", "/api/accounts", &own, 201);
    let other = json!({"provider": "azure", "api_key": "k", "base_url": "http://127.0.0.1:9"});
    let accounts = operator.told("GET", "/api/accounts", &Value::Null, 200);
    let path = |provider: &str| {
        let all = accounts["accounts"].as_array().unwrap();
        format!("/api/accounts/{}", all.iter().find(|one| one["provider"] == provider).unwrap()["id"].as_str().unwrap())
    };
    let back = operator.told("PATCH", &path("openai"), &json!({"base_url": null}), 200);
    assert_eq!((&back["base_url"], &back["effective_base_url"]), (&Value::Null, &json!("https://api.openai.com/v1")));
    // A definition keeps the URL it was made with.
    let back = operator.told("PATCH", &path("ours"), &json!({"base_url": null}), 200);
    assert_eq!(back["effective_base_url"], json!("http://127.0.0.1:9"));
    // One whose every account must say where it listens.
    assert_eq!(operator.field("POST", "/api/accounts", &json!({"provider": "azure", "api_key": "k"})), "base_url");
    let made = operator.told("POST", "/api/accounts", &other, 201);
    let path = format!("/api/accounts/{}", made["id"].as_str().unwrap());
    assert_eq!(operator.field("PATCH", &path, &json!({"base_url": null})), "base_url");
}

#[test]
fn a_credential_is_tested_by_one_real_call() {
    let provider = Provider::new(chat("ok"));
    let gateway = Setup::openai(&provider).start();
    let operator = Operator::anybody(&gateway);
    let accounts = operator.told("GET", "/api/accounts", &Value::Null, 200);
    let path = format!("/api/accounts/{}/test", accounts["accounts"][0]["id"].as_str().unwrap());
    let tested = operator.told("POST", &path, &Value::Null, 200);
    assert_eq!((&tested["ok"], &tested["status"], provider.calls()), (&json!(true), &json!(200), 1));
    assert!(last(&provider).starts_with("GET /v1/models ") && last(&provider).contains("Bearer sk-openai-a"));
    let tested = operator.told("POST", &path, &json!({"model": "gpt-4o-mini"}), 200);
    assert_eq!((&tested["ok"], &tested["model"]), (&json!(true), &json!("gpt-4o-mini")));
    assert!(last(&provider).starts_with("POST /v1/chat/completions ") && last(&provider).contains("gpt-4o-mini"));
    provider.then(error(401, "Incorrect API key provided: sk-openai-a", ""));
    let tested = operator.send("POST", &path, &json!({}));
    assert_eq!((tested.status, &tested.json()["ok"], &tested.json()["status"]), (200, &json!(false), &json!(401)));
    assert!(
        tested.text().contains("refuses the credential") && !tested.text().contains("sk-openai-a"),
        "{}",
        tested.text()
    );
    assert_eq!(
        operator.told("GET", "/api/cooldowns", &Value::Null, 200)["cooldowns"],
        json!([]),
        "nobody rests for it"
    );
    let dead = operator.told(
        "POST",
        "/api/accounts",
        &json!({"provider": "openai", "api_key": "k", "label": "dead", "base_url": "http://127.0.0.1:1"}),
        201,
    );
    let tested =
        operator.told("POST", &format!("/api/accounts/{}/test", dead["id"].as_str().unwrap()), &Value::Null, 200);
    assert_eq!((&tested["ok"], &tested["status"]), (&json!(false), &Value::Null));
    operator.told("POST", "/api/accounts/acc_00000000000000ff/test", &Value::Null, 404);
    assert_eq!(operator.field("POST", &path, &json!({"model": ""})), "model");
}

#[test]
fn virtual_models_are_made_ordered_switched_replaced_and_removed() {
    let gateway = Setup::new()
        .route(json!({"name": "given", "targets": [{"model": "demo/echo"}]}))
        .with(|s| s.demo = Some(true))
        .start();
    let operator = Operator::anybody(&gateway);
    let make = |name: &str| {
        let body = json!({"name": name, "strategy": "weighted", "targets": [{"model": "demo/echo", "weight": 3}]});
        operator.told("POST", "/api/virtual-models", &body, 201)
    };
    let (a, b) = (make("a"), make("b"));
    let ask = |model: &str| {
        let question = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]}).to_string();
        post(gateway.addr, CHAT, "", question.as_bytes()).status
    };
    assert_eq!((ask("a"), ask("given")), (200, 200), "it answers as soon as it was made");
    operator.told("POST", "/api/virtual-models", &json!({"name": "a", "targets": [{"model": "demo/echo"}]}), 409);
    let names = || -> Vec<String> {
        let list = operator.told("GET", "/api/virtual-models", &Value::Null, 200);
        list["virtual_models"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(), ["given", "a", "b"]);
    let order = json!({"ids": [b["id"], a["id"]]});
    operator.told("PUT", "/api/virtual-models/reorder", &order, 200);
    assert_eq!(names(), ["given", "b", "a"]);
    operator.told("POST", "/api/virtual-models/reorder", &json!({"ids": [a["id"]]}), 200);
    assert_eq!(names(), ["given", "a", "b"]);
    assert_eq!(operator.field("PUT", "/api/virtual-models/reorder", &json!({"ids": [a["id"], a["id"]]})), "ids");
    operator.told("PUT", "/api/virtual-models/reorder", &json!({"ids": ["vm_00000000000000ff"]}), 404);
    assert_eq!(names(), ["given", "a", "b"], "nothing was moved by what was refused");

    let path = format!("/api/virtual-models/{}", a["id"].as_str().unwrap());
    let toggle = format!("{path}/toggle");
    assert_eq!(operator.told("POST", &toggle, &json!({"enabled": false}), 200)["enabled"], json!(false));
    assert_eq!(operator.told("POST", &toggle, &json!({"enabled": false}), 200)["enabled"], json!(false));
    assert_eq!(ask("a"), 404);
    assert_eq!(operator.told("POST", &toggle, &Value::Null, 200)["enabled"], json!(true));
    assert_eq!(ask("a"), 200);
    let targets = json!([{"model": "demo/echo"}, {"model": "openai/m", "account": "x"}]);
    let replaced = operator.told("PUT", &path, &json!({"name": "c", "targets": targets}), 200);
    assert_eq!((&replaced["strategy"], &replaced["targets"][1]["account"]), (&json!("failover"), &json!("x")));
    assert_eq!((ask("a"), ask("c")), (404, 200));
    operator.told("DELETE", &path, &Value::Null, 204);
    operator.told("DELETE", &path, &Value::Null, 404);
    assert_eq!(ask("c"), 404);
    operator.told("PUT", &path, &json!({"name": "c", "targets": targets}), 404);
}
