//! Writes the model's name and `include_usage` into a body without touching any other byte.
//!
//! Pure and cheap: the untouched parts are slices of the same memory. It cannot fail; a [`Peek`] of another body
//! gives nonsense, never a panic.

use super::peek::{Peek, StreamOptions};
use crate::base::Pieces;
use bytes::Bytes;
use std::ops::Range;

/// `body` with its model renamed and, if `inject_usage`, with `stream_options.include_usage` on.
///
/// Allocates only for a new model name that is not the end of the old one (`openai/gpt-x` → `gpt-x` is a cut).
/// A body that names no model (Gemini's URL does) gets none.
pub fn splice(body: &Bytes, peek: &Peek, new_model: Option<&str>, inject_usage: bool) -> Pieces {
    let model = new_model.and_then(|name| model_edit(body, peek, name));
    let usage = if inject_usage { usage_edit(peek) } else { None };
    let mut pieces = Pieces::default();
    let mut done = 0;
    let (first, second) = match (model, usage) {
        (Some(m), Some(u)) if u.0.start < m.0.start => (Some(u), Some(m)),
        (m, u) => (m, u),
    };
    for (gap, text) in [first, second].into_iter().flatten() {
        pieces.push(slice(body, done..gap.start));
        pieces.push(text);
        done = gap.end;
    }
    pieces.push(slice(body, done..body.len()));
    pieces
}

/// What goes out and what comes in its place.
type Edit = (Range<usize>, Bytes);

fn model_edit(body: &Bytes, peek: &Peek, name: &str) -> Option<Edit> {
    let range = peek.model_range()?;
    let old = peek.model(body)?;
    if old == name {
        return None;
    }
    if peek.model_is_plain() && old.ends_with(name) && !name.is_empty() {
        let start = range.start + 1;
        return Some((start..start + old.len() - name.len(), Bytes::new()));
    }
    Some((range, quoted(name)))
}

/// `name` as JSON. What needs no escape, as models' names do not, is copied once into room of its very size.
fn quoted(name: &str) -> Bytes {
    if name.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        return serde_json::Value::from(name).to_string().into();
    }
    let mut out = Vec::with_capacity(name.len() + 2);
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.push(b'"');
    out.into()
}

fn usage_edit(peek: &Peek) -> Option<Edit> {
    let at = |n: usize| n..n;
    Some(match &peek.stream_options {
        StreamOptions::Absent if peek.empty => {
            (at(peek.end), Bytes::from_static(br#""stream_options":{"include_usage":true}"#))
        }
        StreamOptions::Absent => (at(peek.end), Bytes::from_static(br#","stream_options":{"include_usage":true}"#)),
        StreamOptions::Null(range) => (range.clone(), Bytes::from_static(br#"{"include_usage":true}"#)),
        StreamOptions::Object { include_usage: Some((true, _)), .. } => return None,
        StreamOptions::Object { include_usage: Some((false, value)), .. } => {
            (value.clone(), Bytes::from_static(b"true"))
        }
        StreamOptions::Object { range, empty: true, .. } => {
            (at(range.start + 1), Bytes::from_static(br#""include_usage":true"#))
        }
        StreamOptions::Object { range, .. } => (at(range.start + 1), Bytes::from_static(br#""include_usage":true,"#)),
    })
}

/// As `Bytes::slice`, but a range that does not fit gives nothing.
fn slice(body: &Bytes, range: Range<usize>) -> Bytes {
    if range.start < range.end && range.end <= body.len() { body.slice(range) } else { Bytes::new() }
}

#[cfg(test)]
mod tests {
    use super::super::Endpoint;
    use super::super::peek::peek;
    use super::*;

    fn spliced(body: &str, model: Option<&str>, usage: bool) -> String {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let pieces = splice(&bytes, &peek(&bytes, Endpoint::Chat).unwrap(), model, usage);
        let joined = pieces.as_slice().iter().fold(Vec::new(), |mut all, part| {
            assert!(!part.is_empty());
            all.extend_from_slice(part);
            all
        });
        assert_eq!(joined.len(), pieces.len());
        let text = String::from_utf8(joined).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        text
    }

    #[test]
    fn the_model_changes_and_nothing_else() {
        let body = r#" { "x" : 1.50, "model" : "openai/gpt-x" , "messages":[ ] }"#;
        assert_eq!(spliced(body, Some("gpt-x"), false), body.replace("openai/gpt-x", "gpt-x"));
        assert_eq!(spliced(body, Some("other \"one\""), false), body.replace("openai/gpt-x", r#"other \"one\""#));
        assert_eq!(spliced(body, Some("openai/gpt-x"), false), body);
        assert_eq!(spliced(body, None, false), body);
        assert_eq!(spliced(r#"{"model":"a\/b"}"#, Some("b"), false), r#"{"model":"b"}"#);
        assert_eq!(spliced(r#"{"x":1}"#, Some("b"), false), r#"{"x":1}"#, "no model is written where none stood");
    }

    #[test]
    fn usage_is_asked_for_wherever_it_must_be_written() {
        let on = r#""stream_options":{"include_usage":true}"#;
        for (body, want) in [
            ("{ }".to_owned(), format!("{{ {on}}}")),
            (r#"{"a":1 } "#.into(), format!(r#"{{"a":1 ,{on}}} "#)),
            (r#"{"stream_options":null,"a":1}"#.into(), format!(r#"{{{on},"a":1}}"#)),
            (r#"{"stream_options":{}}"#.into(), format!("{{{on}}}")),
            (
                r#"{"stream_options":{ "include_usage" : false }}"#.into(),
                r#"{"stream_options":{ "include_usage" : true }}"#.into(),
            ),
            (r#"{"stream_options":{"include_usage":null}}"#.into(), format!("{{{on}}}")),
            (r#"{"stream_options":{"b":2}}"#.into(), r#"{"stream_options":{"include_usage":true,"b":2}}"#.into()),
            (format!("{{{on}}}"), format!("{{{on}}}")),
        ] {
            assert_eq!(spliced(&body, None, true), want);
        }
    }

    #[test]
    fn both_edits_work_in_either_order() {
        let want = r#"{"model":"m","stream_options":{"include_usage":true},"z":0}"#;
        assert_eq!(spliced(r#"{"model":"longer","stream_options":null,"z":0}"#, Some("m"), true), want);
        let want = r#"{"stream_options":{"include_usage":true},"model":"m","z":0}"#;
        assert_eq!(spliced(r#"{"stream_options":null,"model":"p/m","z":0}"#, Some("m"), true), want);
    }

    #[test]
    fn a_peek_of_another_body_is_no_panic() {
        let looked_at =
            peek(br#"{"model":"something long","stream_options":null,"x":[1,2,3]}"#, Endpoint::Chat).unwrap();
        for body in ["", "{", "{\"model\":\"\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\"}"] {
            let _ = splice(&Bytes::copy_from_slice(body.as_bytes()), &looked_at, Some("m"), true);
        }
    }
}
