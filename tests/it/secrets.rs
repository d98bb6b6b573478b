//! Secrets stay where they belong: no log at its loudest, no error, no metric, no file shows one.

use crate::support::client::{get, post};
use crate::support::dialects::WAYS;
use crate::support::process::{Process, ok};
use crate::support::provider::{Provider, Script, chat, error};

const SECRETS: [&str; 3] = ["sk-provider-secret-one", "sk-provider-secret-two", "sk-provider-secret-three"];

#[test]
fn no_log_error_metric_or_file_shows_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let provider = Provider::new(chat("fine"));
    for (name, secret) in ["openai", "anthropic", "gemini"].into_iter().zip(SECRETS) {
        let url = if name == "openai" { provider.openai_url() } else { provider.bare_url() };
        ok(at, &format!("providers add --provider {name} --api-key {secret} --base-url {url}"));
    }
    let key = ok(at, "keys create --name app --json").json()["key"].as_str().unwrap().to_owned();
    let token = ok(at, "tokens create --name t --json").json()["token"].as_str().unwrap().to_owned();
    let wrong = format!("mrd_{}", "Q".repeat(40));
    let gateway = Process::start(
        at,
        &[
            ("MERIDO_REQUIRE_API_KEY", "true"),
            ("MERIDO_LOG", "trace"),
            ("MERIDO_ACCESS_LOG", "all"),
            ("MERIDO_BREAKER_FAILURES", "1000000"),
        ],
    );
    let mut shown = String::new();
    for way in WAYS {
        let scripts = [
            chat("fine"),
            error(401, "invalid_api_key", "www-authenticate: sk-provider-secret-one\r\n"),
            error(500, "broken", ""),
            Script::Close,
            Script::Raw(b"not http\r\n\r\n".to_vec()),
        ];
        for script in scripts {
            provider.then(script);
            let head = format!("x-api-key: {key}\r\nconnection: close\r\n");
            let answer = post(gateway.addr, way.path, &head, way.body.as_bytes());
            shown += &(answer.head.clone() + &answer.text());
        }
        for head in ["x-api-key", "x-goog-api-key", "authorization"] {
            let value = if head == "authorization" { format!("Bearer {wrong}") } else { wrong.clone() };
            let answer = post(gateway.addr, way.path, &format!("{head}: {value}\r\n"), b"{");
            assert_eq!(answer.status, 401, "{}", answer.text());
            shown += &(answer.head.clone() + &answer.text());
        }
        let answer = get(gateway.addr, &format!("{}?key={key}", way.path), "");
        shown += &(answer.head.clone() + &answer.text());
    }
    let answer = post(gateway.addr, &format!("{}?key={key}", WAYS[2].path), "", WAYS[2].body.as_bytes());
    shown += &(answer.head.clone() + &answer.text());
    let answer =
        get(gateway.addr, &format!("/nothing/here?token={token}"), &format!("authorization: Bearer {token}\r\n"));
    shown += &(answer.head.clone() + &answer.text());
    shown += &gateway.get("/metrics").text();
    shown += &gateway.get("/healthz").text();
    // What went to providers carried their own secret and never a key of ours.
    let to_providers: String = provider.seen().iter().map(|seen| seen.head.clone()).collect();
    assert!(SECRETS.iter().all(|secret| to_providers.contains(secret)), "the calls did go out");
    assert!(!to_providers.contains("mrd_"), "{to_providers}");

    gateway.signal("TERM");
    gateway.logged("\"ended\"");
    let log = gateway.log();
    assert!(log.contains("an attempt failed"), "the log was at its loudest: {log}");
    let secrets: Vec<&str> = SECRETS.into_iter().chain([&*key, &*token, &*wrong]).collect();
    for secret in &secrets {
        for (name, text) in [("an answer", &shown), ("the log", &log)] {
            let found = text.find(secret).map(|at| &text[at.saturating_sub(200)..at]);
            assert_eq!(found, None, "{secret} in {name}");
        }
    }
    assert!(gateway.wait().success());
    for entry in std::fs::read_dir(at.join("data")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        for secret in &secrets {
            assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret} in {}", path.display());
        }
    }
}
