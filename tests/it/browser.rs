//! The dashboard in a real browser: `tests/browser/run.mjs` drives one Chromium against gateways started here. Two are one
//! deployment with Redis between them; one was just started and has no password; one has its door tried.
//!
//! Pictures of every page are left in `target/dashboard/`.

use crate::support::gateway::Setup;
use crate::support::provider::{Provider, Script, chat, error};
use crate::support::redis::RedisServer;
use argon2::password_hash::{PasswordHasher as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use merido::base::Secret;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PASSWORD: &str = "correct horse";
/// All of it, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(400);

fn locked(setup: Setup) -> Setup {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
    let salt = SaltString::from_b64("c29tZXNhbHRzb21lc2FsdA").unwrap();
    let hash = argon2.hash_password(PASSWORD.as_bytes(), &salt).unwrap().to_string();
    setup.with(|settings| settings.dashboard_password_hash = Some(Secret::new(hash)))
}

#[test]
fn an_operator_works_with_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scripts = root.join("tests/browser");
    assert!(
        scripts.join("node_modules/playwright-core").is_dir(),
        "no playwright-core in tests/browser: run scripts/test.sh once, it installs it"
    );
    let shots = root.join("target/dashboard");
    std::fs::create_dir_all(&shots).unwrap();

    let good = Provider::new(chat("Hello."));
    let bad = Provider::new(error(429, "rate_limit_exceeded", "retry-after: 185\r\n"));
    let slow = Provider::new(Script::Stall);
    let (redis, dir) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let instance = || locked(Setup::new()).redis(&redis).start_in(dir.path());
    let (a, b) = (instance(), instance());
    let open = Setup::new().start();
    let door = locked(Setup::new()).start();
    let world = serde_json::json!({
        "a": format!("http://{}", a.addr),
        "b": format!("http://{}", b.addr),
        "open": format!("http://{}", open.addr),
        "locked": format!("http://{}", door.addr),
        "good": good.openai_url(),
        "bad": bad.openai_url(),
        "slow": slow.openai_url(),
        "password": PASSWORD,
        "shots": shots,
    });

    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new("node");
    command.arg("run.mjs").current_dir(&scripts).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home.path());
    command.env("TMPDIR", home.path()).env("TZ", "UTC").env("MERIDO_TEST_DESK", world.to_string());
    if let Some(chromium) = std::env::var_os("MERIDO_TEST_CHROMIUM") {
        command.env("MERIDO_TEST_CHROMIUM", chromium);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("no node: run scripts/test.sh once, it installs it");
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let said = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.read_to_string(&mut text);
        text
    });
    let wrong = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if began.elapsed() > PATIENCE {
            // TERM first: Chromium goes with its driver.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            std::thread::sleep(Duration::from_secs(2));
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let (said, wrong) = (said.join().unwrap(), wrong.join().unwrap());
    println!("{said}");
    assert!(status.is_some(), "it took longer than {PATIENCE:?}:\n{said}\n{wrong}");
    assert!(status.is_some_and(|status| status.success()), "{said}\n{wrong}");
}
