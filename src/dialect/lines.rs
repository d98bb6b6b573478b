//! Where lines and events of a stream begin and end: bytes only, no JSON, no state.
//!
//! Every line end of the standard counts (LF, CRLF, CR), and the answer never depends on how reads cut the stream.
//! Positions come from the bytes themselves: nothing here can fail, only find nothing.

use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// Whether an event ends with the line end at `at`: its line is blank. A CR that may yet be followed by its LF is
/// left to that LF, so that the answer never depends on how reads cut the stream.
fn ends_event(text: &[u8], at: usize) -> bool {
    let back = |n: usize| at.checked_sub(n).and_then(|i| text.get(i)).copied();
    match text.get(at) {
        Some(b'\n') => back(1) == Some(b'\n') || (back(1) == Some(b'\r') && back(2) == Some(b'\n')),
        Some(b'\r') => back(1) == Some(b'\r'),
        _ => false,
    }
}

/// The end of the last whole event; 0 when there is none. Bytes before `from` were looked at before and held none.
pub(super) fn last_boundary(text: &[u8], from: usize) -> usize {
    if !text.is_empty() && ends_event(text, text.len() - 1) {
        return text.len();
    }
    let mut end = text.len();
    while let Some(at) = memchr::memrchr2(b'\n', b'\r', text.get(from..end).unwrap_or_default()).map(|n| n + from) {
        if ends_event(text, at) {
            return at + 1;
        }
        end = at;
    }
    0
}

/// The end of the first event that ends at or after `from`.
pub(super) fn first_boundary(text: &[u8], from: usize) -> Option<usize> {
    let rest = text.get(from..)?;
    memchr::memchr2_iter(b'\n', b'\r', rest).map(|n| n + from).find(|at| ends_event(text, *at)).map(|at| at + 1)
}

/// The line `at` stands in, without its end.
pub(super) fn line_around(text: &[u8], at: usize) -> Range<usize> {
    let start = memchr::memrchr2(b'\n', b'\r', text.get(..at).unwrap_or_default()).map_or(0, |n| n + 1);
    let rest = text.get(at..).unwrap_or_default();
    start..memchr::memchr2(b'\n', b'\r', rest).map_or(text.len(), |n| at + n)
}

/// Where the data of a `data:` line begins.
pub(super) fn data_of(text: &[u8], line: Range<usize>) -> Option<usize> {
    let start = line.start;
    text.get(line)?.starts_with(b"data:").then_some(start + 5)
}

/// The event around one of its lines, blank line included; blank lines before it are not part of it.
pub(super) fn event_around(text: &[u8], line: Range<usize>) -> Range<usize> {
    let mut start = line.start;
    loop {
        let before = text.get(..start).unwrap_or_default();
        let Some(end) = before.strip_suffix(b"\r\n").or(before.strip_suffix(b"\n")).or(before.strip_suffix(b"\r"))
        else {
            break;
        };
        let line_start = memchr::memrchr2(b'\n', b'\r', end).map_or(0, |n| n + 1);
        if line_start == end.len() {
            break; // a blank line
        }
        start = line_start;
    }
    let end = first_boundary(text, line.end).unwrap_or(text.len());
    start..end
}

/// `events` without the given ranges, which are in order.
#[cold]
pub(super) fn without(events: &Bytes, dropped: &[Range<usize>]) -> Bytes {
    let mut kept = [Bytes::new(), Bytes::new()];
    if let [gap] = dropped {
        kept[0] = events.slice(..gap.start);
        kept[1] = events.slice(gap.end.max(gap.start)..);
        return join(kept);
    }
    let mut out = BytesMut::with_capacity(events.len());
    let mut done = 0;
    for gap in dropped {
        out.extend_from_slice(events.get(done..gap.start).unwrap_or_default());
        done = gap.end;
    }
    out.extend_from_slice(events.get(done..).unwrap_or_default());
    out.freeze()
}

/// One after the other; copies only when both hold something.
pub(super) fn join([a, b]: [Bytes; 2]) -> Bytes {
    if a.is_empty() {
        return b;
    }
    if b.is_empty() {
        return a;
    }
    let mut both = BytesMut::with_capacity(a.len() + b.len());
    both.extend_from_slice(&a);
    both.extend_from_slice(&b);
    both.freeze()
}
