//! The command line as a shell sees it: what each command prints, how it ends, and that a running gateway hears of it.

use crate::support::client::{get, post};
use crate::support::eventually;
use crate::support::process::{Process, ok, run, run_with};
use crate::support::provider::{Provider, chat};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const CHAT: &str = "/v1/chat/completions";

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn only(list: &Value) -> &Value {
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 1, "{list:?}");
    &list[0]
}

#[test]
fn version_help_and_bad_usage() {
    let dir = tempfile::tempdir().unwrap();
    let version = ok(dir.path(), "--version");
    assert_eq!(version.out.trim(), concat!("merido ", env!("CARGO_PKG_VERSION")));
    let help = ok(dir.path(), "--help");
    for command in ["start", "providers", "keys", "models", "tokens", "hash-password", "check", "migrate", "--config"] {
        assert!(help.out.contains(command), "{command}: {}", help.out);
    }
    for line in [
        "no-such-command",
        "--no-such-flag",
        "start --port 70000",
        "start --host nowhere",
        "keys",
        "keys create",
        "keys create --name a --rpm many",
        "keys revoke",
        "keys revoke 17",
        "providers add --provider openai",
        "providers add --provider nobody --api-key k",
        "providers add --provider x --api-key k --dialect cobol",
        "providers add --provider x --api-key k --dialect openai",
        "providers remove key_0123456789abcdef",
        "providers add --provider openai --api-key k --base-url nonsense",
        "providers add --provider openai --api-key k --weight 0",
        "models add m",
        "models add m --target nothing",
        "models add m --target openai/x --strategy luck",
        "models add m --target openai/x=heavy",
        "keys create --name a --budget-usd ten",
        "tokens create --name t --scope root",
        "keys list --port 1",
    ] {
        let said = run(dir.path(), line);
        assert_eq!(said.code, 64, "merido {line}: {said:?}");
        assert!(said.out.is_empty() && !said.err.trim().is_empty(), "merido {line}: {said:?}");
    }
    // Nothing half-written: all of these left no trace in the store.
    for listing in ["providers list --json", "keys list --json", "models list --json", "tokens list --json"] {
        assert_eq!(ok(dir.path(), listing).json(), Value::Array(vec![]), "{listing}");
    }
    for line in ["keys revoke key_0123456789abcdef", "providers remove acc_0123456789abcdef", "models remove nobody"] {
        let said = run(dir.path(), line);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "merido {line}: {said:?}");
        assert!(said.err.contains("there is no"), "{said:?}");
    }
}

#[test]
fn accounts_come_go_and_are_listed_without_their_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    ok(at, "providers add --provider openai --api-key sk-first-secret --label one --weight 3");
    let piped = run_with(at, "providers add --provider anthropic --api-key - ", &[], "sk-piped-secret\n");
    assert_eq!(piped.code, 0, "{piped:?}");
    ok(at, "providers add --provider mine --api-key sk-mine-secret --dialect openai --base-url http://127.0.0.1:9/v1");
    let list = ok(at, "providers list --json");
    let table = ok(at, "providers list");
    for said in [&piped, &list, &table] {
        assert!(!format!("{}{}", said.out, said.err).contains("secret"), "{said:?}");
    }
    let rows = list.json();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert_eq!(keys(row), ["base_url", "created", "id", "label", "provider", "weight"]);
        assert!(row["id"].as_str().unwrap().starts_with("acc_"));
    }
    let first = rows.iter().find(|row| row["provider"] == "openai").unwrap();
    assert_eq!((&first["label"], &first["weight"]), (&Value::from("one"), &Value::from(3)));
    assert!(table.out.contains("PROVIDER") && table.out.contains("one"), "{}", table.out);
    // The same label again is refused, and the list stays as it was.
    let again = run(at, "providers add --provider openai --api-key sk-x --label one");
    assert_eq!(again.code, 1, "{again:?}");
    ok(at, &format!("providers remove {}", first["id"].as_str().unwrap()));
    assert_eq!(ok(at, "providers list --json").json().as_array().unwrap().len(), 2);
}

#[test]
fn keys_models_and_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let made = ok(
        at,
        "keys create --name app --rpm 60 --burst 5 --tpm 1000 --max-parallel 2 --models a/b,c/* --budget-usd 0.10 \
         --ttl-seconds 3600 --json",
    )
    .json();
    assert_eq!(keys(&made), ["id", "key", "name"]);
    let key = made["key"].as_str().unwrap();
    assert!(key.len() == 44 && key.starts_with("mrd_") && key[4..].bytes().all(|b| b.is_ascii_alphanumeric()), "{key}");
    let listed = ok(at, "keys list --json");
    assert!(!listed.out.contains(key));
    let list = listed.json();
    let row = only(&list);
    let numbers = [("rpm", 60), ("burst", 5), ("tpm", 1000), ("max_parallel", 2)];
    assert!(numbers.iter().all(|(name, n)| row[name] == *n), "{row}");
    assert_eq!((&row["id"], &row["name"], &row["budget_usd"]), (&made["id"], &Value::from("app"), &Value::from(0.1)));
    assert_eq!(row["models"], serde_json::json!(["a/b", "c/*"]));
    assert!(row["expires"].as_str().unwrap() > row["created"].as_str().unwrap());
    let plain = ok(at, "keys create --name plain").out;
    assert!(plain.starts_with("mrd_") && plain.contains("key_"), "{plain}");
    ok(at, &format!("keys revoke {}", made["id"].as_str().unwrap()));
    let left = ok(at, "keys list --json").json();
    assert_eq!(only(&left)["name"], "plain");

    ok(at, "models add fast --strategy weighted --target openai/gpt-4o@one=3 --target groq/llama:8b=1");
    let list = ok(at, "models list --json").json();
    let row = only(&list);
    assert_eq!((&row["name"], &row["strategy"]), (&Value::from("fast"), &Value::from("weighted")));
    assert_eq!(row["targets"], serde_json::json!(["openai/gpt-4o@one=3", "groq/llama:8b"]));
    assert!(row["id"].is_string());
    assert_eq!(run(at, "models add fast --target openai/gpt-4o").code, 1, "the name is taken");
    ok(at, "models remove fast");
    assert_eq!(ok(at, "models list --json").json(), Value::Array(vec![]));

    let token = ok(at, "tokens create --name ci --scope read --ttl-seconds 60 --json").json();
    assert_eq!(keys(&token), ["id", "name", "token"]);
    assert!(token["token"].as_str().unwrap().starts_with("mdm_"));
    let listed = ok(at, "tokens list --json");
    assert!(!listed.out.contains(token["token"].as_str().unwrap()));
    assert_eq!(only(&listed.json())["scope"], "read");
    ok(at, &format!("tokens revoke {}", token["id"].as_str().unwrap()));
    assert_eq!(ok(at, "tokens list --json").json(), Value::Array(vec![]));
}

#[test]
fn passwords_check_and_migrate() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let said = run_with(at, "hash-password", &[], "correct horse\n");
    let hash = said.out.trim();
    assert!(said.code == 0 && hash.starts_with("$argon2id$") && !hash.contains("horse"), "{said:?}");
    assert_eq!(run_with(at, "hash-password", &[], "").code, 64);
    assert!(!at.join("data").exists(), "a hash needs no store");

    let said = ok(at, "migrate");
    assert!(said.out.contains("version"), "{said:?}");
    let said = ok(at, "check");
    assert!(said.out.contains("ok    store") && said.out.contains("no account yet"), "{said:?}");
    let said = run_with(at, "check", &[("MERIDO_DASHBOARD_PASSWORD_HASH", hash), ("MERIDO_HOST", "0.0.0.0")], "");
    assert_eq!(said.code, 0, "{said:?}");
    // Open to the world: `check` says how to mend it.
    let said = run_with(at, "check", &[("MERIDO_HOST", "0.0.0.0")], "");
    assert!(said.code == 1 && said.out.contains("hash-password"), "{said:?}");
    // Another master key: said so, and nothing is changed.
    ok(at, "providers add --provider openai --api-key sk-x");
    let other = [("MERIDO_MASTER_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")];
    let said = run_with(at, "check", &other, "");
    assert!(said.code == 1 && said.out.contains("master key"), "{said:?}");
    let said = run_with(at, "start --port 0", &other, "");
    assert!(said.code == 1 && said.err.contains("master key"), "{said:?}");
    assert_eq!(ok(at, "providers list --json").json().as_array().unwrap().len(), 1);
}

#[test]
fn the_data_directory_and_what_lies_in_it_are_private() {
    let dir = tempfile::tempdir().unwrap();
    ok(dir.path(), "providers add --provider openai --api-key sk-x");
    let data = dir.path().join("data");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let entries: Vec<_> = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(entries.iter().any(|path| path.ends_with("master.key")), "{entries:?}");
    for path in &entries {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    std::fs::set_permissions(data.join("master.key"), PermissionsExt::from_mode(0o644)).unwrap();
    let said = run(dir.path(), "providers list");
    assert!(said.code != 0 && said.err.contains("chmod 600"), "{said:?}");
}

#[test]
fn wrong_settings_are_told_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("merido.toml");
    std::fs::write(&file, "port = \"many\"\nhots = \"x\"\n[timeouts]\nconnect_seconds = 0\n").unwrap();
    let env = [
        ("MERIDO_CONFIG", file.to_str().unwrap()),
        ("MERIDO_DEDUP", "sometimes"),
        ("MERIDO_LOG_RETENTION_DAYS", "-1"),
        ("MERIDO_RUOTES", "[]"),
        ("MERIDO_MASTER_KEY", "c2hvcnQtc2VjcmV0"),
        ("MERIDO_TLS_CERT", "/nowhere/cert.pem"),
    ];
    for line in ["start", "keys list", "check"] {
        let said = run_with(dir.path(), line, &env, "");
        assert_eq!(said.code, 64, "merido {line}: {said:?}");
        for (key, source) in [
            ("port", "merido.toml"),
            ("hots", "did you mean host"),
            ("timeouts.connect_seconds", "merido.toml"),
            ("dedup", "MERIDO_DEDUP"),
            ("log_retention_days", "MERIDO_LOG_RETENTION_DAYS"),
            ("MERIDO_RUOTES", "did you mean MERIDO_ROUTES"),
            ("master_key", "MERIDO_MASTER_KEY"),
            ("tls_cert", "tls_key"),
        ] {
            let named = |text: &str| text.trim_start().starts_with(&format!("{key} (")) && text.contains(source);
            assert!(said.err.lines().any(named), "merido {line}: {key} with {source}: {}", said.err);
        }
        assert!(!said.err.contains("c2hvcnQtc2VjcmV0"), "a secret: {}", said.err);
    }
    // On an address that others reach and without a password, the exact line to run is part of the refusal.
    let said = run_with(dir.path(), "start --host 0.0.0.0 --port 0", &[], "");
    assert!(said.code == 64 && said.err.contains("merido hash-password"), "{said:?}");
    assert!(!dir.path().join("data").exists(), "nothing was made");
}

#[test]
fn a_port_that_is_taken_is_a_failure_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let said = run(dir.path(), &format!("start --port {port}"));
    assert!(said.code == 1 && said.err.contains(&format!("127.0.0.1:{port}")), "{said:?}");
}

#[test]
fn commands_act_on_a_running_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let provider = Provider::new(chat("from the provider"));
    let gateway = Process::start(at, &[("MERIDO_REQUIRE_API_KEY", "true")]);
    let made = ok(at, "keys create --name app --json").json();
    let head = format!("authorization: Bearer {}\r\n", made["key"].as_str().unwrap());
    let demo = br#"{"model":"demo/echo","messages":[{"role":"user","content":"hello"}]}"#;
    let ask = |body: &[u8]| post(gateway.addr, CHAT, &head, body);
    let clock = std::time::Instant::now();
    eventually("the new key works", || ask(demo).status == 200);
    assert!(clock.elapsed().as_secs() < 1, "{:?}", clock.elapsed());

    // A real account: the demo is off, and its models are there.
    let url = provider.openai_url();
    ok(at, &format!("providers add --provider openai --api-key sk-real --label one --base-url {url}"));
    eventually("the demo goes", || ask(demo).status == 404);
    let answer = ask(br#"{"model":"openai/gpt-4o-mini","messages":[]}"#);
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "from the provider");
    assert_eq!(provider.seen()[0].header("authorization"), Some("Bearer sk-real"));
    let models = get(gateway.addr, "/v1/models", &head).text();
    assert!(models.contains("openai/gpt-4o-mini") && !models.contains("demo/echo"), "{models}");

    ok(at, "models add best --target openai/gpt-4o-mini@one");
    eventually("the virtual model is there", || ask(br#"{"model":"best","messages":[]}"#).status == 200);
    ok(at, "models remove best");
    eventually("and goes", || ask(br#"{"model":"best","messages":[]}"#).status == 404);

    let account = only(&ok(at, "providers list --json").json())["id"].as_str().unwrap().to_owned();
    ok(at, &format!("providers remove {account}"));
    eventually("the account goes and the demo is back", || ask(demo).status == 200);
    ok(at, &format!("keys revoke {}", made["id"].as_str().unwrap()));
    let clock = std::time::Instant::now();
    eventually("the revoked key stops", || ask(demo).status == 401);
    assert!(clock.elapsed().as_secs() < 1, "{:?}", clock.elapsed());
    assert!(gateway.stop().success());
}

#[test]
fn keys_of_providers_in_the_environment_become_accounts() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Process::start(dir.path(), &[("GROQ_API_KEY", "gsk-env-secret")]);
    let models = gateway.get("/v1/models").text();
    assert!(models.contains("groq/") && !models.contains("demo/echo"), "{models}");
    let list = ok(dir.path(), "providers list --json");
    assert!(!list.out.contains("gsk-env-secret"), "{list:?}");
    assert!(!gateway.log().contains("gsk-env-secret"));
}
