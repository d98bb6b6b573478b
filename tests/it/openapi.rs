//! The published document against what is really there: every operation is routed, every answer is as described.

use crate::sdk::python;
use crate::support::client::{get, request};
use crate::support::gateway::Setup;
use crate::support::process::{Process, ok, run_with};
use merido::base::Secret;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

/// Operations that `tests/sdk/schemathesis.toml` leaves out.
const LEFT_OUT: usize = 4;

fn operations(document: &Value) -> Vec<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
    });
    all.collect()
}

#[test]
fn every_documented_operation_is_routed_and_nobody_gets_to_one_unasked() {
    let open = Setup::new().start();
    let locked = Setup::new().with(|s| s.dashboard_password_hash = Some(Secret::new("$argon2id$x"))).start();
    let document = get(open.addr, "/api/openapi.json", "").json();
    assert_eq!(document["openapi"], "3.1.0");
    let all = operations(&document);
    assert!(all.len() > 30, "{all:?}");
    for (method, path) in &all {
        let path = path.replace("{id}", "vm_0000000000000000").replace(['{', '}'], "");
        if path != "/api/login" {
            assert_eq!(request(locked.addr, method, &path, "", &Value::Null).status, 401, "{method} {path}");
        }
        if path == "/api/events" {
            continue;
        }
        let answer = request(open.addr, method, &path, "", &json!({}));
        let text = answer.text();
        assert!(answer.status != 405 && !text.contains("nothing here"), "{method} {path}: {text}");
        assert!(answer.status < 500, "{method} {path}: {text}");
    }
    for (method, path) in &all {
        let others =
            all.iter().filter(|(_, other)| other == path).map(|(method, _)| method.as_str()).collect::<Vec<_>>();
        let path = path.replace("{id}", "vm_0000000000000000").replace(['{', '}'], "");
        for other in ["GET", "POST", "PUT", "PATCH", "DELETE"].into_iter().filter(|one| !others.contains(one)) {
            let answer = request(open.addr, other, &path, "", &json!({}));
            assert_eq!(answer.status, 405, "{other} {path}: {}", answer.text());
            assert!(answer.header("allow").unwrap().contains(method.as_str()), "{other} {path}");
        }
    }
}

#[test]
fn a_thousand_requests_made_from_the_document_break_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let hash = run_with(dir.path(), "hash-password", &[], "pw\n").out;
    let process = Process::start(dir.path(), &[("MERIDO_DASHBOARD_PASSWORD_HASH", hash.trim())]);
    let made = ok(dir.path(), "keys create --name there --json").json();
    assert!(made["id"].is_string());
    // A session: the run revokes every management token that it finds.
    let answer = request(process.addr, "POST", "/api/login", "", &json!({"password": "pw"}));
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/schemathesis.toml");
    let output = Command::new(python())
        .args(["-B", "-m", "schemathesis.cli", "--config-file"])
        .arg(file)
        .args(["run", &format!("http://{}/api/openapi.json", process.addr)])
        .args(["--checks", "all", "--max-examples", "8", "--workers", "1", "--seed", "7", "--no-shrink"])
        .args(["--header", &format!("authorization: Bearer {token}")])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir.path())
        .env("LC_ALL", "C.UTF-8")
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    // Every operation but those that the settings beside it leave out, each for a reason that stands there.
    let all = operations(&get(process.addr, "/api/openapi.json", &format!("authorization: Bearer {token}\r\n")).json());
    // The document itself was read to begin with, and is not counted.
    let (total, tried) = (all.len() - 1, all.len() - 1 - LEFT_OUT);
    assert!(
        said.contains(&format!("Selected: {tried}/{total}")) && said.contains(&format!("Tested: {tried}")),
        "{said}"
    );
    assert!(!process.log().contains("panicked"), "{}", process.log());
    assert_eq!(process.get("/healthz").status, 200);
}
