//! The harness with a real gateway behind it: a comparison from start to page, and the manifest for the public harness.
//!
//! Counts and shapes only, never speeds. Uses the merido beside this program: the whole workspace's tests build both.

#![expect(clippy::expect_used, reason = "a helper that fails must fail its test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_loadtest");

fn merido() -> PathBuf {
    let file = Path::new(PROGRAM).with_file_name("merido");
    assert!(file.is_file(), "{} is not built: cargo build --bins", file.display());
    file
}

/// Runs a comparison of short rounds; its report and what it said.
fn compare(dir: &Path, arguments: &[&str]) -> (serde_json::Value, String) {
    let json = dir.join("report.json");
    let html = dir.join("report.html");
    let done = Command::new(PROGRAM)
        .args(["compare", "--rounds", "1", "--merido"])
        .arg(merido())
        .args(["--json", &json.to_string_lossy(), "--html", &html.to_string_lossy()])
        .args(arguments)
        .output()
        .expect("the comparison starts");
    let said = told(&done);
    assert!(done.status.success(), "{said}");
    let report = std::fs::read_to_string(json).expect("a report");
    assert!(std::fs::read_to_string(html).expect("a page").contains("\"tables\""));
    (serde_json::from_str(&report).expect("JSON"), said)
}

fn told(done: &Output) -> String {
    String::from_utf8_lossy(&[&done.stdout[..], &done.stderr[..]].concat()).into_owned()
}

fn work(dir: &Path, text: &str) -> String {
    let file = dir.join("work.toml");
    std::fs::write(&file, text).expect("a scenario");
    file.to_string_lossy().into_owned()
}

#[test]
fn a_mix_through_two_instances_on_one_redis() {
    let dir = tempfile::tempdir().expect("a directory");
    let work = work(
        dir.path(),
        "name = 'mix'\nabout = ''\n[load]\nconnections = 4\nseconds = 0.5\nwarmup = 0.2\n\
         [[load.mix]]\nname = 'unary'\nshare = 1\n[[load.mix]]\nname = 'stream'\nshare = 1\nstream = true\n",
    );
    let (report, said) = compare(dir.path(), &["--work", &work, "--basis", "two-on-redis", "--peers", "merido"]);
    let rounds = report["tables"][0]["rounds"].as_array().expect("rounds");
    let merido = rounds.iter().find(|round| round["peer"] == "merido").expect("merido's turn");
    assert!(merido["outcome"]["answered"].as_u64() > Some(0), "{said}");
    assert!(merido["outcome"]["forms"]["stream"]["count"].as_u64() > Some(0), "{merido}");
    assert!(merido["redis"]["commands"].as_u64() > Some(0), "the heartbeats at least: {merido}");
    assert!(report["versions"]["merido"].as_str().is_some_and(|version| version.contains("merido")), "{report}");
    assert!(said.contains("stream: p50 / p99 µs"), "{said}");
}

#[test]
fn many_keys_accounts_and_models_are_made_and_used() {
    let dir = tempfile::tempdir().expect("a directory");
    let basis = dir.path().join("basis.toml");
    let text = "name = 'many'\nabout = ''\n[merido]\nrpm = 100000\ntpm = 0\naccounts = 2\nstrategy = 'load_balance'\n\
                more_keys = 40\nmore_accounts = 10\nmore_models = 20\n";
    std::fs::write(&basis, text).expect("a basis");
    let basis = basis.to_string_lossy();
    let options = ["--work", "unary", "--connections", "4", "--seconds", "0.5", "--peers", "merido", "--basis", &basis];
    let (report, said) = compare(dir.path(), &options);
    assert!(report["tables"][0]["rounds"][0]["outcome"]["answered"].as_u64() > Some(41), "{said}");
}

#[test]
fn a_ramp_ends_where_p99_breaks_or_at_its_last_rate() {
    let dir = tempfile::tempdir().expect("a directory");
    let work = work(
        dir.path(),
        "name = 'ramp'\nabout = ''\n[load]\nconnections = 4\nseconds = 0.3\nwarmup = 0.1\n\
         [load.ramp]\nfrom = 20\nfactor = 2\nmost = 40\nbreak_p99_ms = 5000\n",
    );
    let (report, said) = compare(dir.path(), &["--work", &work, "--peers", "merido"]);
    let steps = report["tables"][0]["steps"].as_array().expect("steps");
    let rates: Vec<_> = steps.iter().filter(|step| step["peer"] == "merido").map(|step| &step["rate"]).collect();
    assert_eq!(rates, [&serde_json::json!(20.0), &serde_json::json!(40.0)], "{said}");
}

#[test]
fn streams_are_held_open_step_by_step() {
    let dir = tempfile::tempdir().expect("a directory");
    let work = work(
        dir.path(),
        "name = 'hold'\nabout = ''\n[load]\nstream = true\ninclude_usage = true\nseconds = 0.5\nwarmup = 0\n\
         [load.hold]\nsteps = [10, 40]\n[mock]\nchunks = 1000\npace_ms = 100\n",
    );
    let (report, said) = compare(dir.path(), &["--work", &work, "--peers", "merido"]);
    let held = report["tables"][0]["held"].as_array().expect("steps");
    let open: Vec<_> = held.iter().filter(|row| row["peer"] == "merido").map(|row| row["open"].as_u64()).collect();
    assert_eq!(open, [Some(10), Some(40)], "{said}");
    assert!(
        held.iter().all(|row| row["events"].as_u64() > Some(0) && row["lost"] == serde_json::json!({})),
        "{held:?}"
    );
}

#[test]
fn a_peer_that_is_not_here_is_said_and_left_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let nowhere = dir.path().join("none").to_string_lossy().into_owned();
    let options = ["--peers", "portkey,merido", "--peers-dir", &nowhere, "--work", "unary", "--seconds", "0.2"];
    let (report, said) = compare(dir.path(), &options);
    assert_eq!(report["skipped"], serde_json::json!(["portkey"]));
    assert!(said.contains("loadtest peers install portkey"), "{said}");
}

#[test]
fn the_public_harness_manifest_does_what_its_runner_asks() {
    let dir = tempfile::tempdir().expect("a directory");
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("onthebench");
    std::fs::copy(home.join("gateway.sh"), dir.path().join("gateway.sh")).expect("the manifest");
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let done = Command::new("bash")
        .arg(home.join("stub-runner.sh"))
        .arg(dir.path())
        .args([PROGRAM, "50"])
        .env("MERIDO_BIN", merido())
        .env("GW_PORT", port.to_string())
        .output()
        .expect("bash starts");
    let said = told(&done);
    assert!(done.status.success() && said.contains("stopped; all held"), "{said}");
}
