//! Commands as a shell gives them, against a store of their own.

use super::run::{nanodollars, target};
use super::*;
use crate::base::Secret;
use crate::config::Settings;
use serde_json::Value;

struct Shell {
    settings: Settings,
    _dir: tempfile::TempDir,
}

impl Shell {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { settings: Settings { data_dir: dir.path().join("data"), ..Settings::default() }, _dir: dir }
    }

    async fn try_run(&self, line: &str, stdin: &str) -> Result<String, Stop> {
        let invocation = parse(line.split_whitespace())?;
        let mut out = Vec::new();
        run(invocation.command, &self.settings, &mut stdin.as_bytes(), &mut out).await?;
        Ok(String::from_utf8(out).unwrap())
    }

    async fn run(&self, line: &str) -> String {
        self.try_run(line, "").await.unwrap()
    }

    async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.run(line).await).unwrap()
    }

    async fn code(&self, line: &str) -> u8 {
        self.try_run(line, "").await.unwrap_err().code
    }
}

#[test]
fn arguments_are_read_or_refused_with_the_right_code() {
    let started = |line: &str| match parse(line.split_whitespace()).unwrap().command {
        Command::Start(start) => (start.host.map(|h| h.to_string()), start.port),
        other => panic!("{other:?}"),
    };
    assert_eq!(started("merido"), (None, None));
    assert_eq!(started("merido --host ::1 --port 0"), (Some("::1".into()), Some(0)));
    assert_eq!(started("merido --port 1 start --port 2"), (None, Some(2)));
    let config = |line: &str| parse(line.split_whitespace()).unwrap().config;
    assert_eq!(config("merido keys list --config a.toml"), Some("a.toml".into()));
    assert_eq!(config("merido --config a.toml start"), Some("a.toml".into()));
    for (line, code) in [
        ("merido --version", EXIT_OK),
        ("merido --help", EXIT_OK),
        ("merido keys create --help", EXIT_OK),
        ("merido dance", EXIT_USAGE),
        ("merido keys", EXIT_USAGE),
        ("merido keys create", EXIT_USAGE),
        ("merido --port 70000", EXIT_USAGE),
        ("merido --port 1 keys list", EXIT_USAGE),
        ("merido models add fast", EXIT_USAGE),
        ("merido providers add --provider x --api-key y --dialect klingon", EXIT_USAGE),
    ] {
        assert_eq!(parse(line.split_whitespace()).unwrap_err().code, code, "{line}");
    }
    assert!(parse(["merido", "--version"]).unwrap_err().message.contains(env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn keys_are_made_shown_once_listed_and_revoked() {
    let shell = Shell::new();
    let made = shell
        .json("merido keys create --name ci --rpm 60 --models fast,openai/* --budget-usd 1.10 --ttl-seconds 60 --json")
        .await;
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(made["name"] == "ci" && key.starts_with("mrd_") && key.len() == 44 && made.as_object().unwrap().len() == 3);
    let listed = shell.json("merido keys list --json").await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let one = &listed[0];
    assert!(one["id"] == id && one["name"] == "ci" && one["rpm"] == 60 && one["budget_usd"] == 1.1);
    assert_eq!(one["models"], serde_json::json!(["fast", "openai/*"]));
    let text = shell.run("merido keys list").await;
    assert!(
        text.contains(id) && text.contains("fast,openai/*") && !text.contains(key) && !listed.to_string().contains(key)
    );
    let plain = shell.run("merido keys create --name other").await;
    assert!(plain.starts_with("mrd_") && plain.contains("key_"));
    shell.run(&format!("merido keys revoke {id}")).await;
    assert_eq!(shell.code(&format!("merido keys revoke {id}")).await, EXIT_FAILURE, "it is gone");
    assert_eq!(shell.code("merido keys revoke ci").await, EXIT_USAGE);
    assert_eq!(shell.code("merido keys create --name x --rpm 0").await, EXIT_USAGE);
    assert_eq!(shell.code("merido keys create --name x --budget-usd -1").await, EXIT_USAGE);
}

#[tokio::test]
async fn providers_of_the_catalogue_and_outside_it() {
    let shell = Shell::new();
    shell.run("merido providers add --provider openai --api-key sk-typed --label team --weight 3").await;
    shell.try_run("merido providers add --provider openai --api-key -", "sk-piped\n").await.unwrap();
    assert_eq!(shell.code("merido providers add --provider mine --api-key k").await, EXIT_USAGE);
    assert_eq!(shell.code("merido providers add --provider mine --api-key k --dialect openai").await, EXIT_USAGE);
    let add = "merido providers add --provider mine --api-key k";
    shell.run(&format!("{add} --dialect gemini --base-url http://127.0.0.1:9")).await;
    shell.run(&format!("{add} --label second")).await;
    let listed = shell.json("merido providers list --json").await;
    let labels: Vec<_> = listed.as_array().unwrap().iter().map(|row| row["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["team", "default", "default", "second"]);
    assert_eq!((&listed[0]["weight"], &listed[2]["base_url"]), (&3.into(), &"http://127.0.0.1:9".into()));
    let everything = format!("{listed}{}", shell.run("merido providers list").await);
    assert!(!everything.contains("sk-"), "no secret in a listing");
    let id = listed[0]["id"].as_str().unwrap();
    shell.run(&format!("merido providers remove {id}")).await;
    assert_eq!(shell.json("merido providers list --json").await.as_array().unwrap().len(), 3);
    let twice = shell.try_run("merido providers add --provider openai --api-key secret-k --label default", "").await;
    let twice = twice.unwrap_err();
    assert!(twice.code == EXIT_FAILURE && twice.message.contains("default") && !twice.message.contains("secret-k"));
}

#[tokio::test]
async fn models_tokens_passwords_and_the_check() {
    let mut shell = Shell::new();
    let add = "merido models add fast --strategy weighted";
    shell.run(&format!("{add} --target openai/gpt@team=3 --target groq/a/b")).await;
    let listed = shell.json("merido models list --json").await;
    assert_eq!(listed[0]["targets"], serde_json::json!(["openai/gpt@team=3", "groq/a/b"]));
    assert!(listed[0]["name"] == "fast" && listed[0]["id"].as_str().unwrap().starts_with("vm_"));
    assert_eq!(shell.code(&format!("{add} --target openai/m")).await, EXIT_FAILURE, "the name is taken");
    assert_eq!(shell.code("merido models add x --target gpt").await, EXIT_USAGE);
    assert_eq!(shell.code("merido models add x --target a/b=c").await, EXIT_USAGE);

    let token = shell.json("merido tokens create --name ops --json").await;
    assert!(token["token"].as_str().unwrap().starts_with("mdm_"));
    assert_eq!(shell.json("merido tokens list --json").await[0]["scope"], "admin");
    shell.run(&format!("merido tokens revoke {}", token["id"].as_str().unwrap())).await;
    assert_eq!(shell.run("merido tokens list --json").await.trim(), "[]");

    let hash = shell.try_run("merido hash-password", "pass word\r\n").await.unwrap();
    let parsed = argon2::PasswordHash::new(hash.trim()).unwrap();
    let verify =
        |password: &[u8]| argon2::PasswordVerifier::verify_password(&argon2::Argon2::default(), password, &parsed);
    assert!(hash.starts_with("$argon2id$") && verify(b"pass word").is_ok() && verify(b"pass word\r").is_err());
    assert_eq!(shell.try_run("merido hash-password", "\n").await.unwrap_err().code, EXIT_USAGE);

    let said = shell.run("merido check").await;
    assert!(said.contains("ok    master key") && said.contains("no account with openai"), "{said}");
    shell.run("merido models remove fast").await;
    assert_eq!(shell.code("merido models remove fast").await, EXIT_FAILURE);
    assert!(shell.run("merido migrate").await.contains("version 6"));
    shell.settings.dashboard_password_hash = Some(Secret::new("plain"));
    shell.settings.master_key = Some(Secret::new("AAAA"));
    let mut out = Vec::new();
    let stop = run(Command::Check, &shell.settings, &mut "".as_bytes(), &mut out).await.unwrap_err();
    let said = String::from_utf8(out).unwrap();
    assert!(stop.code == EXIT_FAILURE && stop.message.starts_with('2'), "all mistakes at once: {said}");
    assert!(said.contains("MERIDO_DASHBOARD_PASSWORD_HASH") && said.contains("MERIDO_MASTER_KEY"), "{said}");
}

#[test]
fn dollars_targets_and_times_are_exact() {
    assert_eq!(nanodollars("1.10"), Ok(1_100_000_000));
    assert_eq!(nanodollars(".000000001"), Ok(1));
    assert_eq!(nanodollars("25"), Ok(25_000_000_000));
    for bad in ["", ".", "-1", "1e3", "1.0000000001", "99999999999999", "1,5", "+1"] {
        assert!(nanodollars(bad).is_err(), "{bad}");
    }
    let read = target("a/b:c/d@l=7").unwrap();
    assert_eq!((&*read.model, read.account.as_deref(), read.weight), ("a/b:c/d", Some("l"), Some(7)));
    assert_eq!(print::time(0), "1970-01-01T00:00:00Z");
    assert_eq!(print::time(951_782_400_000), "2000-02-29T00:00:00Z");
    assert_eq!(print::time(1_772_323_199_999), "2026-02-28T23:59:59Z");
}
