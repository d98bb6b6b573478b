//! Gemini's other stream form: one JSON array whose elements come as they are made (`streamGenerateContent` without
//! `alt=sse`). Only watched: every byte passes at once, elements are read when they are whole.
//!
//! An element too long to keep is given up; the next one is read again.

use super::Endpoint;
use super::sse::MAX_HELD;
use super::usage::{self, Raw};
use memchr::memmem::Finder;
use std::sync::LazyLock;

static FINISH_REASON: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(FINISH_KEY));
const FINISH_KEY: &[u8] = b"\"finishReason\"";

/// Reads one array in passing.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four facts of a byte scanner, none excludes another")]
pub(super) struct ArrayMeter {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// What earlier reads brought of the element that is open.
    element: Vec<u8>,
    too_long: bool,
    elements: u64,
    raw: Option<Raw>,
    ended: bool,
}

impl ArrayMeter {
    /// Takes what one read brought.
    pub(super) fn feed(&mut self, data: &[u8]) {
        let mut start = 0;
        for (at, byte) in data.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.depth = self.depth.saturating_add(1);
                    if self.depth == 2 {
                        start = at;
                    }
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 1 {
                        self.close(data.get(start..=at).unwrap_or_default());
                    }
                }
                _ => {}
            }
        }
        if self.depth >= 2 && !self.too_long {
            self.element.extend_from_slice(data.get(start..).unwrap_or_default());
            self.too_long = self.element.len() > MAX_HELD;
        }
    }

    /// The numbers of the last element that had any.
    pub(super) fn raw(&self) -> Option<Raw> {
        self.raw
    }

    /// Some element named a finish reason.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Elements seen whole.
    pub(super) fn elements(&self) -> u64 {
        self.elements
    }

    fn close(&mut self, rest: &[u8]) {
        self.elements += 1;
        let before = std::mem::take(&mut self.element);
        if std::mem::take(&mut self.too_long) {
            return;
        }
        let joined;
        let element = if before.is_empty() {
            rest
        } else {
            joined = [&before, rest].concat();
            &joined
        };
        self.raw = usage::raw_from_body(Endpoint::StreamGenerate, element).or(self.raw);
        self.ended |= says_finished(element);
    }
}

/// Whether some candidate names the reason it finished.
pub(super) fn says_finished(text: &[u8]) -> bool {
    FINISH_REASON.find_iter(text).any(|at| {
        let after = text.get(at + FINISH_KEY.len()..).unwrap_or_default().trim_ascii_start();
        after.strip_prefix(b":").is_some_and(|value| value.trim_ascii_start().starts_with(b"\""))
    })
}
