//! Keys and tokens: made, changed, rotated, revoked; repeated; refused with the field at fault.

use super::Operator;
use crate::support::client::{Conn, get, post_bytes};
use crate::support::gateway::{Setup, block_on};
use merido::base::Secret;
use merido::store::rows::Scope;
use serde_json::{Value, json};

#[test]
fn a_key_is_made_used_changed_rotated_and_revoked() {
    let gateway = Setup::new().with(|s| s.require_api_key = Some(true)).start();
    let operator = Operator::anybody(&gateway);
    let asked = json!({"name": "ci", "rpm": 60, "models": ["demo/*"], "budget_usd": 0.1, "ttl_seconds": 3600});
    let made = operator.told("POST", "/api/keys", &asked, 201);
    let (id, plain) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(id.starts_with("key_") && plain.starts_with("mrd_") && plain.len() == 44);
    assert_eq!((&made["rpm"], &made["burst"], &made["budget_usd"]), (&json!(60), &Value::Null, &json!(0.1)));
    let models = |key: &str| get(gateway.addr, "/v1/models", &format!("authorization: Bearer {key}\r\n")).status;
    assert_eq!(models(plain), 200, "it works as soon as it was answered");

    let path = format!("/api/keys/{id}");
    let shown = operator.told("GET", &path, &Value::Null, 200);
    assert!(shown.get("key").is_none() && !operator.get("/api/keys").text().contains(plain), "never again");
    let expires = shown["expires_at"].clone();
    let changed = operator.told("PATCH", &path, &json!({"tpm": 5, "rpm": null}), 200);
    assert_eq!((&changed["tpm"], &changed["rpm"], &changed["name"]), (&json!(5), &Value::Null, &json!("ci")));
    assert_eq!(changed["expires_at"], expires, "what is left out stays");
    assert_eq!(operator.told("PATCH", &path, &json!({"ttl_seconds": null}), 200)["expires_at"], Value::Null);

    let rotated = operator.told("POST", &format!("{path}/rotate"), &Value::Null, 200);
    let new = rotated["key"].as_str().unwrap();
    assert_eq!((models(plain), models(new)), (401, 200), "the old one stopped before the answer came");
    operator.told("DELETE", &path, &Value::Null, 204);
    assert_eq!(models(new), 401);
    for (method, path) in [("DELETE", &path), ("GET", &path), ("POST", &format!("{path}/rotate"))] {
        operator.told(method, path, &Value::Null, 404);
    }
    operator.told("GET", "/api/keys/acc_0000000000000001", &Value::Null, 404);
}

#[test]
fn a_mistake_names_its_field() {
    let gateway = Setup::new().start();
    let operator = Operator::anybody(&gateway);
    for (body, field) in [
        (json!({}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"name": 5}), "name"),
        (json!({"name": "a", "rpm": 0}), "rpm"),
        (json!({"name": "a", "rpm": "60"}), "rpm"),
        (json!({"name": "a", "tpm": -1}), "tpm"),
        (json!({"name": "a", "max_parallel": 1.5}), "max_parallel"),
        (json!({"name": "a", "models": []}), "models"),
        (json!({"name": "a", "budget_usd": -0.01}), "budget_usd"),
        (json!({"name": "a", "budget_usd": 1e300}), "budget_usd"),
        (json!({"name": "a", "ttl_seconds": 0}), "ttl_seconds"),
        (json!({"name": "a", "rmp": 1}), "rmp"),
    ] {
        assert_eq!(operator.field("POST", "/api/keys", &body), field, "{body}");
    }
    for (body, field) in [
        (json!({"api_key": "sk"}), "provider"),
        (json!({"provider": "openai"}), "api_key"),
        (json!({"provider": "openai", "api_key": "a\nb"}), "api_key"),
        (json!({"provider": "nobody", "api_key": "sk"}), "provider"),
        (json!({"provider": "openai", "api_key": "sk", "base_url": "ftp://x"}), "base_url"),
        (json!({"provider": "openai", "api_key": "sk", "label": "env"}), "label"),
        (json!({"provider": "openai", "api_key": "sk", "weight": 0}), "weight"),
        (json!({"provider": "mine", "api_key": "sk", "dialect": "openai"}), "base_url"),
        (json!({"provider": "mine", "api_key": "sk", "dialect": "esperanto"}), "dialect"),
    ] {
        assert_eq!(operator.field("POST", "/api/accounts", &body), field, "{body}");
    }
    let target = json!([{"model": "openai/m"}]);
    for (body, field) in [
        (json!({"targets": target}), "name"),
        (json!({"name": "fast"}), "targets"),
        (json!({"name": "fast", "targets": []}), "targets"),
        (json!({"name": "fast", "targets": [{"modle": "a/b"}]}), "targets[0].model"),
        (json!({"name": "fast", "targets": [{"model": "a/b"}, {"model": "a/b", "weigth": 1}]}), "targets[1].weigth"),
        (json!({"name": "fast", "targets": target, "strategy": "best"}), "strategy"),
        (json!({"name": "fast", "targets": target, "sticky": 0}), "sticky"),
    ] {
        assert_eq!(operator.field("POST", "/api/virtual-models", &body), field, "{body}");
    }
    for (path, field) in [
        ("/api/keys?limit=0", "limit"),
        ("/api/keys?lmit=1", "lmit"),
        ("/api/keys?cursor=x", "cursor"),
        ("/api/accounts?limit=1", "limit"),
        ("/api/logs?status=2000", "status"),
        ("/api/logs?since=yesterday", "since"),
        ("/api/logs?key_id=key_1", "key_id"),
        ("/api/usage?by=colour", "by"),
        ("/api/usage?format=xml", "format"),
        ("/api/audit?cursor=-1", "cursor"),
    ] {
        assert_eq!(operator.field("GET", path, &Value::Null), field, "{path}");
    }
    assert!(operator.told("GET", "/api/keys", &Value::Null, 200)["keys"].as_array().unwrap().is_empty());
}

#[test]
fn what_is_no_json_too_large_or_for_another_method_is_refused_in_words() {
    let gateway = Setup::new().start();
    let send = |head: &str, body: &[u8]| {
        let mut conn = Conn::open(gateway.addr);
        conn.send(&post_bytes("/api/keys", head, body));
        conn.answer().status
    };
    assert_eq!(send("content-type: text/plain\r\n", br#"{"name":"a"}"#), 415);
    assert_eq!(send("content-encoding: gzip\r\n", b"x"), 415);
    for body in [&b""[..], b"{", b"[]", b"\xff", br#"{"name":"\ud800"}"#] {
        assert_eq!(send("", body), 400, "{}", String::from_utf8_lossy(body));
    }
    let mut conn = Conn::open(gateway.addr);
    let head = "POST /api/keys HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n";
    conn.send(format!("{head}content-length: {}\r\n\r\n", (1 << 20) + 1).as_bytes());
    assert_eq!(conn.answer().status, 413);
    let wrong = Operator::anybody(&gateway).send("PUT", "/api/keys", &Value::Null);
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET, HEAD, POST")));
}

#[test]
fn keys_come_in_pages_that_miss_none_and_repeat_none() {
    let gateway = Setup::new().start();
    let operator = Operator::anybody(&gateway);
    let made: Vec<_> = (0..7)
        .map(|n| operator.told("POST", "/api/keys", &json!({"name": format!("k{n}")}), 201)["id"].clone())
        .collect();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for left in [7, 4, 1] {
        let page = operator.told("GET", &format!("/api/keys?limit=3{cursor}"), &Value::Null, 200);
        let keys = page["keys"].as_array().unwrap();
        assert_eq!(keys.len(), left.min(3));
        seen.extend(keys.iter().map(|key| key["id"].clone()));
        cursor = page["next_cursor"].as_str().map_or(String::new(), |next| format!("&cursor={next}"));
        assert_eq!(cursor.is_empty(), left < 3);
    }
    let sorted = |mut ids: Vec<Value>| {
        ids.sort_by_key(Value::to_string);
        ids
    };
    assert_eq!(sorted(seen), sorted(made));
}

#[test]
fn the_same_request_sent_twice_makes_one_key_on_any_instance() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (Setup::new().start_in(dir.path()), Setup::new().start_in(dir.path()));
    let head = "idempotency-key: deploy-17\r\n";
    let (here, there) = (Operator::with(&one, head), Operator::with(&two, head));
    let body = json!({"name": "ci"});
    let first = here.send("POST", "/api/keys", &body);
    let again = there.send("POST", "/api/keys", &body);
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!((first.text(), again.header("idempotency-replayed")), (again.text(), Some("true")));
    assert_eq!(here.field("POST", "/api/keys", &json!({"name": "other"})), "Idempotency-Key");
    assert_eq!(here.field("POST", "/api/tokens", &json!({"name": "ci"})), "Idempotency-Key");
    let all = Operator::anybody(&one);
    assert_eq!(all.told("GET", "/api/keys", &Value::Null, 200)["keys"].as_array().unwrap().len(), 1);
    // Many at once: one does it, the others hear that it is under way, or its answer.
    let many = Operator::with(&one, "idempotency-key: rush\r\n");
    let keys = std::thread::scope(|scope| {
        let sent: Vec<_> =
            (0..8).map(|_| scope.spawn(|| many.send("POST", "/api/keys", &json!({"name": "rush"})))).collect();
        let answers: Vec<_> = sent.into_iter().map(|one| one.join().unwrap()).collect();
        assert!(answers.iter().all(|answer| matches!(answer.status, 201 | 409)), "{answers:?}");
        answers
            .iter()
            .filter(|answer| answer.status == 201)
            .map(|answer| answer.json()["key"].clone())
            .collect::<Vec<_>>()
    });
    assert!(!keys.is_empty() && keys.iter().all(|key| *key == keys[0]));
    // What was refused may be tried again under the same name.
    let mended = Operator::with(&one, "idempotency-key: mended\r\n");
    assert_eq!(mended.field("POST", "/api/keys", &json!({"name": ""})), "name");
    mended.told("POST", "/api/keys", &json!({"name": "ok"}), 201);
    assert_eq!(Operator::with(&one, "idempotency-key: \r\n").field("POST", "/api/keys", &body), "Idempotency-Key");
    // The store holds the answer, but nobody who reads its file reads the key.
    let plain = first.json()["key"].as_str().unwrap().to_owned();
    for file in ["merido.db", "merido.db-wal"] {
        let bytes = std::fs::read(dir.path().join(file)).unwrap_or_default();
        assert!(!bytes.windows(plain.len()).any(|window| window == plain.as_bytes()), "{file}");
    }
}

#[test]
fn a_change_of_what_was_not_seen_is_refused() {
    let gateway = Setup::new().start();
    let operator = Operator::anybody(&gateway);
    let made = operator.told("POST", "/api/keys", &json!({"name": "a"}), 201);
    let path = format!("/api/keys/{}", made["id"].as_str().unwrap());
    let tag = operator.get(&path).header("etag").unwrap().to_owned();
    let mine = Operator::with(&gateway, &format!("if-match: {tag}\r\n"));
    let changed = mine.send("PATCH", &path, &json!({"rpm": 1}));
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag").unwrap(), tag);
    for (method, body) in [("PATCH", json!({"rpm": 2})), ("DELETE", Value::Null)] {
        let refused = mine.send(method, &path, &body);
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (412, &json!("precondition_failed")));
    }
    assert_eq!(operator.told("GET", &path, &Value::Null, 200)["rpm"], json!(1));
    let newest = Operator::with(&gateway, &format!("if-match: \"x\", {}\r\n", changed.header("etag").unwrap()));
    newest.told("DELETE", &path, &Value::Null, 204);
}

#[test]
fn a_token_does_what_its_scope_says_and_nothing_more() {
    let gateway = Setup::new().with(|s| s.dashboard_password_hash = Some(Secret::new("$argon2id$x"))).start();
    let (_, root) = block_on(gateway.store().create_token("root", Scope::Admin, None)).unwrap();
    let bearer = |token: &str| Operator::with(&gateway, &format!("authorization: Bearer {token}\r\n"));
    let root = bearer(root.reveal());
    crate::support::eventually("the token is known", || root.get("/api/me").status == 200);
    let make = |body: Value| root.told("POST", "/api/tokens", &body, 201);
    let (read, write) = (make(json!({"name": "r"})), make(json!({"name": "w", "scope": "write", "ttl_seconds": 60})));
    assert_eq!((&read["scope"], &read["expires_at"]), (&json!("read"), &Value::Null));
    let as_read = bearer(read["token"].as_str().unwrap());
    let as_write = bearer(write["token"].as_str().unwrap());
    let me = as_write.told("GET", "/api/me", &Value::Null, 200);
    assert_eq!((&me["kind"], &me["name"], &me["scope"]), (&json!("token"), &json!("w"), &json!("write")));
    assert_eq!(me["id"], write["id"]);
    as_read.told("GET", "/api/keys", &Value::Null, 200);
    as_read.told("POST", "/api/keys", &json!({"name": "a"}), 403);
    as_write.told("POST", "/api/keys", &json!({"name": "a"}), 201);
    as_write.told("POST", "/api/tokens", &json!({"name": "more", "scope": "admin"}), 403);
    let path = format!("/api/tokens/{}", read["id"].as_str().unwrap());
    as_write.told("DELETE", &path, &Value::Null, 403);
    assert_eq!(root.field("POST", "/api/tokens", &json!({"name": "a", "scope": "all"})), "scope");
    let list = root.get("/api/tokens").text();
    assert!(!list.contains(read["token"].as_str().unwrap()) && list.contains(read["id"].as_str().unwrap()));
    root.told("DELETE", &path, &Value::Null, 204);
    assert_eq!(as_read.get("/api/keys").status, 401, "it stops before the answer comes");
    root.told("DELETE", &path, &Value::Null, 404);
}
