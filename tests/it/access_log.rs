//! Access lines as a process writes them: one a request, refusals too, the last one before it ends, never a secret.

use crate::support::client::{Conn, get, post, post_bytes};
use crate::support::eventually;
use crate::support::process::Process;
use serde_json::Value;
use std::path::Path;

const CHAT: &str = "/v1/chat/completions";
const BODY: &[u8] = br#"{"model":"demo/echo","messages":[{"role":"user","content":"hush-hush"}]}"#;

/// A gateway that is a process of its own.
fn start(dir: &Path, which: &str, format: &str) -> Process {
    Process::start(dir, &[("MERIDO_ACCESS_LOG", which), ("MERIDO_LOG_FORMAT", format)])
}

/// Lines about requests.
fn lines(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("access")).collect()
}

#[test]
fn every_request_has_its_line_refused_ones_and_the_last_one_too() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path(), "all", "json");
    let addr = process.addr;
    assert_eq!(post(addr, CHAT, "x-request-id: mine-1\r\n", BODY).status, 200);
    assert_eq!(post(addr, CHAT, "authorization: Bearer mrd_wrongwrong\r\n", BODY).status, 401);
    assert_eq!(get(addr, CHAT, "").status, 405);
    assert_eq!(post(addr, CHAT, "content-type: text/plain\r\n", BODY).status, 415);
    assert_eq!(post(addr, "/v1/messages", "", br#"{"model":"no/such","messages":[]}"#).status, 404);
    assert_eq!(get(addr, "/v1/models", "").status, 200);
    assert_eq!(get(addr, "/healthz", "").status, 200);
    eventually("six lines", || lines(&process.log()).len() >= 6);
    // Its line is still in memory when the process is told to end.
    assert_eq!(post(addr, CHAT, "x-request-id: last\r\n", BODY).status, 200);
    let everything = process.end();
    let lines: Vec<Value> = lines(&everything).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
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
    assert!(!everything.contains("mrd_wrong") && !everything.contains("hush-hush"), "{everything}");
}

#[test]
fn only_errors_when_only_errors_are_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path(), "errors", "text");
    let mut conn = Conn::open(process.addr);
    conn.send(&post_bytes(CHAT, "", BODY));
    assert_eq!(conn.answer().status, 200);
    conn.send(&post_bytes(CHAT, "x-request-id: second\r\n", b"{"));
    assert_eq!(conn.answer().status, 400);
    let log = process.end();
    let lines = lines(&log);
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in [" access: status=400 endpoint=chat ", " client=127.0.0.1 error=", " client_request_id=second"] {
        assert!(lines[0].contains(part), "{part}: {lines:?}");
    }
}
