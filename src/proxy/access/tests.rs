//! Lines as they come out: bounded, escaped, in both forms.

use super::*;
use crate::state::catalog::Key;

fn line(model: &str, status: u16) -> Line {
    let caller = Caller::Anonymous([10, 0, 0, 9].into());
    let id = RequestId { epoch: 1, n: 2 };
    let headers = HeaderMap::from_iter([(intake::X_REQUEST_ID.clone(), HeaderValue::from_static("mine"))]);
    let bare = bare(Clock::now(), id, &headers, caller, "chat");
    Line { requested_model: Arc::from(model), status, ..bare }
}

fn written(lines: &AccessLines) -> String {
    let mut out = Vec::new();
    lines.gather(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn off_is_absent_and_errors_are_errors() {
    assert!(AccessLines::new(AccessLog::Off, LogFormat::Text).is_none());
    let errors = AccessLines::new(AccessLog::Errors, LogFormat::Text).unwrap();
    assert!(!errors.wants(200) && !errors.wants(399) && errors.wants(400) && errors.wants(502));
    assert!(AccessLines::new(AccessLog::All, LogFormat::Text).unwrap().wants(200));
}

#[test]
fn a_full_queue_loses_the_newest_and_counts_it() {
    let lines = AccessLines::new(AccessLog::Errors, LogFormat::Text).unwrap();
    let before = METRICS.access_lines_dropped.get();
    for n in 0..ROOM_ERRORS + 3 {
        lines.push(line(&format!("m{n}"), 500));
    }
    assert_eq!(METRICS.access_lines_dropped.get() - before, 3);
    let text = written(&lines);
    assert_eq!(text.lines().count(), ROOM_ERRORS);
    assert!(text.contains(&format!("=m{} ", ROOM_ERRORS - 1)) && !text.contains(&format!("=m{ROOM_ERRORS} ")));
}

#[test]
fn what_a_caller_named_cannot_break_out_of_its_line() {
    let lines = AccessLines::new(AccessLog::All, LogFormat::Text).unwrap();
    lines.push(line("a\nb status=200 \u{1b}[31m\"", 400));
    let text = written(&lines);
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains(r#" requested_model="a\nb status=200 \u{1b}[31m\"" client=10.0.0.9 "#), "{text}");
    let lines = AccessLines::new(AccessLog::All, LogFormat::Json).unwrap();
    lines.push(line("a\nb\"", 400));
    let text = written(&lines);
    assert_eq!(text.lines().count(), 1);
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(object["requested_model"], "a\nb\"");
}

#[test]
fn a_line_says_who_and_leaves_out_what_says_nothing() {
    let lines = AccessLines::new(AccessLog::All, LogFormat::Json).unwrap();
    let key = Key {
        id: crate::base::KeyId(1),
        name: Arc::from("ci"),
        rpm: None,
        burst: None,
        tpm: None,
        max_parallel: None,
        models: None,
        budget_nanos: None,
        expires_unix_ms: None,
    };
    let first_byte = Some(Duration::from_millis(7));
    lines.push(Line { caller: Caller::Key(Arc::new(key)), first_byte, ..line("", 200) });
    let object: serde_json::Value = serde_json::from_str(&written(&lines)).unwrap();
    assert_eq!((&object["key"], &object["first_byte_ms"], &object["status"]), (&"ci".into(), &7.into(), &200.into()));
    assert_eq!(object["request_id"], "req_0000000000010000000002");
    for absent in ["client", "requested_model", "provider", "cache", "error"] {
        assert!(object.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn a_long_model_is_cut_between_characters() {
    let long: Arc<str> = Arc::from("é".repeat(MODEL_MAX).as_str());
    assert_eq!(short(&long).len(), MODEL_MAX);
    assert_eq!(&*short(&Arc::from("m")), "m");
}
