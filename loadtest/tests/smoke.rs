//! The two programs against each other: what the generator says it got is what the mock says it gave.
//!
//! Counts only, never times: a busy machine must not fail these.

#![expect(clippy::expect_used, reason = "a helper that fails must fail its test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_loadtest");

/// A running mock; it ends when its standard input does.
struct Mock {
    child: Child,
    port: u64,
}

impl Mock {
    fn start(options: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["mock", "--until-stdin-closes", "--threads", "2"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the mock starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line with the port");
        let ready: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        Self { child, port: ready["port"].as_u64().expect("a port") }
    }

    fn stats(&self) -> serde_json::Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port as u16)).expect("the mock listens");
        stream.write_all(b"GET /__mock/stats HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("written");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("read");
        serde_json::from_str(reply.split("\r\n\r\n").nth(1).expect("a body")).expect("JSON")
    }

    /// Runs the generator for 0.3 s, or until `--requests` are through; its JSON outcome and whether it succeeded.
    fn load(&self, options: &[&str]) -> (serde_json::Value, bool) {
        let duration = if options.contains(&"--requests") { "60" } else { "0.3" };
        let done = Command::new(PROGRAM)
            .args(["run", "--url", &format!("http://127.0.0.1:{}", self.port), "--duration", duration, "--json", "-"])
            .args(options)
            .output()
            .expect("the generator starts");
        let measured: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
        (measured["outcome"].clone(), done.status.success())
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().expect("the mock ends when its input does");
    }
}

#[test]
fn plain_replies_are_counted_alike_on_both_sides() {
    let mock = Mock::start(&[]);
    let (outcome, good) = mock.load(&["--connections", "8"]);
    let answered = outcome["answered"].as_u64().expect("a number");
    assert!(good && answered > 0, "{outcome}");
    assert_eq!(outcome["failed"], serde_json::json!({}));
    let stats = mock.stats();
    assert_eq!(stats["calls"], answered);
    assert_eq!(stats["prompt_tokens"], answered * 210);
    assert_eq!(stats["completion_tokens"], answered * 100);
    assert_eq!(outcome["bytes"], answered * 600);
    assert_eq!(outcome["latency"]["count"], answered);
}

#[test]
fn streams_report_usage_only_when_asked() {
    let mock = Mock::start(&[]);
    let (asked, _) = mock.load(&["--connections", "4", "--stream", "--include-usage"]);
    let with_usage = asked["answered"].as_u64().expect("a number");
    assert!(with_usage > 0, "{asked}");
    let (unasked, _) = mock.load(&["--connections", "4", "--stream"]);
    assert_eq!((&asked["failed"], &unasked["failed"]), (&serde_json::json!({}), &serde_json::json!({})));
    let stats = mock.stats();
    assert_eq!(stats["streams"], with_usage + unasked["answered"].as_u64().expect("a number"));
    assert_eq!(stats["completion_tokens"], with_usage * 31);
}

#[test]
fn paced_events_carry_their_send_time() {
    let mock = Mock::start(&["--chunks", "5", "--pace-ms", "5"]);
    let (outcome, _) = mock.load(&["--connections", "4", "--stream", "--event-delay"]);
    let answered = outcome["answered"].as_u64().expect("a number");
    assert!(answered > 0, "{outcome}");
    assert_eq!(outcome["event_delay"]["count"], answered * 5, "one delay per event, none for the end mark");
}

#[test]
fn every_second_call_is_refused_when_told_so() {
    let mock = Mock::start(&["--status", "429", "--status-every", "2"]);
    let (outcome, good) = mock.load(&["--requests", "100", "--connections", "3"]);
    assert!(good);
    assert_eq!((&outcome["answered"], &outcome["failed"]["status 429"]), (&50.into(), &50.into()));
    assert_eq!(mock.stats()["refused"], 50);
}

#[test]
fn a_load_without_answers_is_a_failure() {
    let mock = Mock::start(&["--status", "500"]);
    let (outcome, good) = mock.load(&["--requests", "10"]);
    assert!(!good);
    assert_eq!(outcome["failed"]["status 500"], 10);
}

#[test]
fn an_open_loop_sends_every_request_that_is_due() {
    let mock = Mock::start(&[]);
    let (outcome, _) = mock.load(&["--rate", "500", "--connections", "4"]);
    assert_eq!(outcome["answered"], 150, "0.3 s at 500/s: {outcome}");
    assert_eq!(mock.stats()["calls"], 150);
}

#[test]
fn clients_that_leave_are_seen_by_the_mock() {
    let mock = Mock::start(&["--pace-ms", "10", "--chunks", "10"]);
    let (outcome, good) = mock.load(&["--stream", "--requests", "8", "--connections", "4", "--abort", "0.5"]);
    assert!(good);
    assert_eq!((&outcome["abandoned"], &outcome["answered"]), (&4.into(), &4.into()));
    // The mock meets a closed connection at its next look; how soon is the machine's affair, so it is asked again.
    let patience = (0..1000).any(|_| mock.stats()["aborted"] == 4);
    assert!(patience, "{}", mock.stats());
}

#[test]
fn every_dialect_is_whole() {
    let mock = Mock::start(&[]);
    for path in ["/v1/messages", "/v1/responses", "/v1/completions", "/v1/embeddings"] {
        let url = format!("http://127.0.0.1:{}{path}", mock.port);
        for stream in [&["--stream"][..], &[]] {
            let options = ["run", "--requests", "20", "--connections", "2", "--duration", "30", "--url", &url];
            let done = Command::new(PROGRAM).args(options).args(stream).output().expect("the generator starts");
            let said = String::from_utf8_lossy(&done.stdout);
            assert!(said.contains("20 answered") && said.contains(" 0 failed"), "{path} {stream:?}: {said}");
        }
    }
}
