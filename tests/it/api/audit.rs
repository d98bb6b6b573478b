//! The audit: every change and every login, who, from where; and no secret in it.

use super::Operator;
use crate::support::client::{post, request};
use crate::support::gateway::Setup;
use crate::support::process::{Process, ok};
use crate::support::provider::{Provider, chat, error};
use argon2::password_hash::{PasswordHasher as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use merido::base::Secret;
use serde_json::{Value, json};

fn hash() -> Secret {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
    let salt = SaltString::from_b64("c29tZXNhbHRzb21lc2FsdA").unwrap();
    Secret::new(argon2.hash_password(b"open sesame", &salt).unwrap().to_string())
}

#[test]
fn every_change_and_login_is_told_with_who_and_from_where() {
    let provider = Provider::new(chat("hello"));
    let gateway = Setup::openai(&provider)
        .with(|s| s.dashboard_password_hash = Some(hash()))
        .with(|s| s.trusted_proxies = vec!["127.0.0.1".parse().unwrap()])
        .start();
    let login = |password: &str| {
        let body = json!({ "password": password });
        request(gateway.addr, "POST", "/api/login", "x-forwarded-for: 192.0.2.7\r\n", &body)
    };
    assert_eq!(login("wrong").status, 401);
    let token = login("open sesame").json()["token"].as_str().unwrap().to_owned();
    let head = format!("authorization: Bearer {token}\r\nx-forwarded-for: 192.0.2.8\r\n");
    let operator = Operator::with(&gateway, &head);
    let id = |made: &Value| made["id"].as_str().unwrap().to_owned();

    let key = operator.told("POST", "/api/keys", &json!({"name": "k"}), 201);
    operator.told("PATCH", &format!("/api/keys/{}", id(&key)), &json!({"rpm": 5, "name": "k"}), 200);
    operator.told("PATCH", &format!("/api/keys/{}", id(&key)), &json!({"rpm": "x"}), 422);
    operator.told("POST", &format!("/api/keys/{}/rotate", id(&key)), &Value::Null, 200);
    operator.told("DELETE", &format!("/api/keys/{}", id(&key)), &Value::Null, 204);
    let account = json!({"provider": "groq", "api_key": "sk-hidden"});
    let account = operator.told("POST", "/api/accounts", &account, 201);
    operator.told("PATCH", &format!("/api/accounts/{}", id(&account)), &json!({"api_key": "sk-hidden-2"}), 200);
    operator.told("DELETE", &format!("/api/accounts/{}", id(&account)), &Value::Null, 204);
    let targets = json!([{"model": "openai/m"}]);
    let model = operator.told("POST", "/api/virtual-models", &json!({"name": "v", "targets": targets}), 201);
    let path = format!("/api/virtual-models/{}", id(&model));
    operator.told("PUT", &path, &json!({"name": "w", "targets": targets}), 200);
    operator.told("POST", &format!("{path}/toggle"), &json!({"enabled": false}), 200);
    operator.told("PUT", "/api/virtual-models/reorder", &json!({"ids": [model["id"]]}), 200);
    operator.told("DELETE", &path, &Value::Null, 204);
    let made = operator.told("POST", "/api/tokens", &json!({"name": "t", "scope": "write"}), 201);
    let by_token = Operator::with(&gateway, &format!("authorization: Bearer {}\r\n", made["token"].as_str().unwrap()));
    by_token.told("POST", "/api/keys", &json!({"name": "from a program"}), 201);
    operator.told("DELETE", &format!("/api/tokens/{}", id(&made)), &Value::Null, 204);
    provider.then(error(401, "invalid_api_key", ""));
    let question = br#"{"model":"openai/gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
    post(gateway.addr, "/v1/chat/completions", "", question);
    operator.told("DELETE", "/api/cooldowns/a", &Value::Null, 200);
    operator.told("POST", "/api/logout", &Value::Null, 200);

    let token = login("open sesame").json()["token"].as_str().unwrap().to_owned();
    let operator = Operator::with(&gateway, &format!("authorization: Bearer {token}\r\n"));
    let answer = operator.get("/api/audit");
    let text = answer.text();
    for secret in ["sk-hidden", "mrd_", "mdm_", "mds_", "open sesame", "wrong"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let mut rows = answer.json()["audit"].as_array().unwrap().clone();
    rows.reverse();
    let actions: Vec<_> = rows.iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        [
            "login.failed",
            "login",
            "key.create",
            "key.change",
            "key.rotate",
            "key.revoke",
            "account.create",
            "account.change",
            "account.remove",
            "virtual_model.create",
            "virtual_model.change",
            "virtual_model.toggle",
            "virtual_model.reorder",
            "virtual_model.remove",
            "token.create",
            "key.create",
            "token.revoke",
            "cooldown.unlock",
            "logout",
            "login",
        ]
    );
    assert_eq!((&rows[0]["actor"]["kind"], &rows[0]["address"]), (&json!("nobody"), &json!("192.0.2.7")));
    let change = &rows[3];
    assert_eq!((&change["actor"]["kind"], &change["address"]), (&json!("session"), &json!("192.0.2.8")));
    assert_eq!((&change["target"], &change["detail"]), (&key["id"], &json!({"rpm": 5})), "what changed, not all");
    assert_eq!(rows[2]["actor"]["id"], rows[1]["actor"]["id"], "the login's own session");
    assert_eq!(rows[7]["detail"], json!({"api_key": "renewed"}));
    let program = &rows[15];
    assert_eq!((&program["actor"]["name"], &program["actor"]["id"]), (&json!("t"), &made["id"]));
    let page = operator.told("GET", "/api/audit?limit=2", &Value::Null, 200);
    assert_eq!(page["audit"].as_array().unwrap().len(), 2);
    let next = format!("/api/audit?limit=1000&cursor={}", page["next_cursor"].as_str().unwrap());
    assert_eq!(operator.told("GET", &next, &Value::Null, 200)["audit"].as_array().unwrap().len(), actions.len() - 2);
}

#[test]
fn what_a_command_changes_is_told_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let made = ok(dir.path(), "keys create --name ci --json").json();
    ok(dir.path(), "providers add --provider groq --api-key sk-hidden");
    ok(dir.path(), &format!("keys revoke {}", made["id"].as_str().unwrap()));
    let process = Process::start(dir.path(), &[]);
    let answer = process.get("/api/audit");
    assert!(!answer.text().contains("sk-hidden"));
    let rows = answer.json()["audit"].as_array().unwrap().clone();
    let told: Vec<_> =
        rows.iter().map(|row| (row["action"].as_str().unwrap(), row["actor"]["kind"].as_str().unwrap())).collect();
    assert_eq!(told, [("key.revoke", "command"), ("account.create", "command"), ("key.create", "command")]);
    assert_eq!((&rows[2]["target"], &rows[2]["detail"]), (&made["id"], &json!({"name": "ci"})));
}
