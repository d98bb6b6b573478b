//! Access lines as a process writes them: one a request, refusals too, the last one before it ends, never a secret.

use crate::support::client::{Conn, get, post, post_bytes};
use crate::support::eventually;
use parking_lot::Mutex;
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

const CHAT: &str = "/v1/chat/completions";
const BODY: &[u8] = br#"{"model":"demo/echo","messages":[{"role":"user","content":"hush-hush"}]}"#;

/// A gateway that is a process of its own, and what it has said.
struct Process {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    reader: Option<std::thread::JoinHandle<()>>,
    addr: SocketAddr,
    _dir: TempDir,
}

impl Process {
    fn start(which: &str, format: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_merido"))
            .env_clear()
            .env("MERIDO_DATA_DIR", dir.path())
            .env("MERIDO_PORT", "0")
            .env("MERIDO_WORKERS", "2")
            .env("MERIDO_ACCESS_LOG", which)
            .env("MERIDO_LOG_FORMAT", format)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&said));
        let reader = std::thread::spawn(move || lines.for_each(|line| kept.lock().push(line.unwrap())));
        let mut process = Self { child, said, reader: Some(reader), addr: SocketAddr::from(([0; 4], 0)), _dir: dir };
        eventually("it says where it listens", || {
            let found = process.said.lock().iter().find_map(|line| {
                let after = line.split_once("127.0.0.1:")?.1;
                after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
            });
            found.map(|port: u16| process.addr = SocketAddr::from(([127, 0, 0, 1], port))).is_some()
        });
        process
    }

    /// Lines about requests.
    fn lines(&self) -> Vec<String> {
        self.said.lock().iter().filter(|line| line.contains("access")).cloned().collect()
    }

    /// Ends it as a service manager does; all it ever said.
    fn end(mut self) -> Vec<String> {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        self.reader.take().unwrap().join().unwrap();
        self.lines()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, unless the test failed.
        let _ = self.child.kill();
    }
}

#[test]
fn every_request_has_its_line_refused_ones_and_the_last_one_too() {
    let process = Process::start("all", "json");
    let addr = process.addr;
    assert_eq!(post(addr, CHAT, "x-request-id: mine-1\r\n", BODY).status, 200);
    assert_eq!(post(addr, CHAT, "authorization: Bearer mrd_wrongwrong\r\n", BODY).status, 401);
    assert_eq!(get(addr, CHAT, "").status, 405);
    assert_eq!(post(addr, CHAT, "content-type: text/plain\r\n", BODY).status, 415);
    assert_eq!(post(addr, "/v1/messages", "", br#"{"model":"no/such","messages":[]}"#).status, 404);
    assert_eq!(get(addr, "/v1/models", "").status, 200);
    assert_eq!(get(addr, "/healthz", "").status, 200);
    eventually("six lines", || process.lines().len() >= 6);
    // Its line is still in memory when the process is told to end.
    assert_eq!(post(addr, CHAT, "x-request-id: last\r\n", BODY).status, 200);
    let said = Arc::clone(&process.said);
    let lines: Vec<Value> = process.end().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let brief: Vec<_> = lines
        .iter()
        .map(|line| (line["status"].as_u64().unwrap(), line["endpoint"].as_str().unwrap(), line["error"].as_str()))
        .collect();
    assert_eq!(
        brief,
        [
            (200, "chat", None),
            (401, "chat", Some("invalid_api_key")),
            (405, "chat", Some("method_not_allowed")),
            (415, "chat", Some("unsupported_media_type")),
            (404, "messages", Some("model_not_found")),
            (200, "models", None),
            (200, "chat", None),
        ]
    );
    let first = &lines[0];
    assert_eq!(first["client_request_id"], "mine-1");
    assert_eq!((&first["requested_model"], &first["provider"]), (&"demo/echo".into(), &"demo".into()));
    assert_eq!((&first["client"], &first["target"]), (&"127.0.0.1".into(), &"access".into()));
    assert!(first["prompt_tokens"].as_u64() > Some(0) && first["request_id"].as_str().unwrap().starts_with("req_"));
    assert!(first["timestamp"].as_str().unwrap().ends_with('Z') && first["latency_ms"].is_u64());
    assert_eq!(lines[6]["client_request_id"], "last");
    let everything = said.lock().join("\n");
    assert!(!everything.contains("mrd_wrong") && !everything.contains("hush-hush"), "{everything}");
}

#[test]
fn only_errors_when_only_errors_are_wanted() {
    let process = Process::start("errors", "text");
    let mut conn = Conn::open(process.addr);
    conn.send(&post_bytes(CHAT, "", BODY));
    assert_eq!(conn.answer().status, 200);
    conn.send(&post_bytes(CHAT, "x-request-id: second\r\n", b"{"));
    assert_eq!(conn.answer().status, 400);
    let lines = process.end();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in [" access: status=400 endpoint=chat ", " client=127.0.0.1 error=", " client_request_id=second"] {
        assert!(lines[0].contains(part), "{part}: {lines:?}");
    }
}
