//! A stream on its way to the client: whole events pass as soon as they are whole, and what the provider counted is
//! read in passing.
//!
//! Nothing is parsed but the few lines that mention usage, and nothing is copied while reads end where events end. Only
//! an unfinished event is held back, 256 KiB at most: a longer one passes as it comes and its numbers are given up
//! (a long `response.completed` is still read at its end). Bytes are never changed; the one thing ever left out is the
//! usage-only chunk the gateway itself asked for. Unreadable events pass untouched.

use super::array::{self, ArrayMeter};
use super::lines::{data_of, event_around, first_boundary, join, last_boundary, line_around, without};
use super::scan::{Member, Members};
use super::usage::{self, NEEDLE, Raw, Usage};
use super::{Dialect, Endpoint};
use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;
use std::ops::Range;
use std::sync::LazyLock;

/// Most that is held back of an unfinished event.
pub const MAX_HELD: usize = 256 * 1024;

/// How much of the end of an overlong event is kept to find its usage.
const WINDOW: usize = 8 * 1024;

static DONE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"[DONE]"));
static MESSAGE_STOP: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"message_stop"));

/// Reads one stream in passing.
#[derive(Debug)]
pub struct StreamMeter {
    endpoint: Endpoint,
    drop_usage_chunk: bool,
    held: BytesMut,
    /// Inside an event too long to hold: its last bytes.
    overlong: Option<Vec<u8>>,
    /// Gemini's other stream form.
    array: Option<ArrayMeter>,
    started: bool,
    raw: Option<Raw>,
    ended: bool,
    lines: u64,
    bytes: u64,
}

impl StreamMeter {
    /// For one stream of `endpoint`. `drop_usage_chunk`: the client did not ask for usage, so the chunk that brings
    /// nothing else is left out.
    pub fn new(endpoint: Endpoint, drop_usage_chunk: bool) -> Self {
        Self {
            endpoint,
            drop_usage_chunk,
            held: BytesMut::new(),
            overlong: None,
            array: None,
            started: false,
            raw: None,
            ended: false,
            lines: 0,
            bytes: 0,
        }
    }

    /// Takes what one read brought; gives what may go to the client now (perhaps nothing).
    pub fn feed(&mut self, data: Bytes) -> Bytes {
        if data.is_empty() {
            return data;
        }
        if !self.started {
            self.begin(&data);
        }
        if let Some(array) = &mut self.array {
            array.feed(&data);
            self.bytes += data.len() as u64;
            return join([self.held.split().freeze(), data]);
        }
        if self.overlong.is_some() {
            return self.feed_overlong(data);
        }
        if self.held.is_empty() {
            let end = last_boundary(&data, 0);
            if end == data.len() {
                return self.pass(data);
            }
            self.held.extend_from_slice(data.get(end..).unwrap_or_default());
            let whole = self.pass(data.slice(..end));
            return self.bounded(whole);
        }
        let from = self.held.len();
        self.held.extend_from_slice(&data);
        let end = last_boundary(&self.held, from);
        let whole = self.held.split_to(end).freeze();
        let whole = self.pass(whole);
        self.bounded(whole)
    }

    /// The stream ended: gives what was still held back. Providers sometimes leave out the last blank line, so this is
    /// read like an event.
    pub fn finish(&mut self) -> Bytes {
        if let Some(window) = self.overlong.take() {
            self.read_window(&window);
        }
        let rest = self.held.split().freeze();
        self.pass(rest)
    }

    /// What the provider counted, as far as it said.
    pub fn usage(&self) -> Option<Usage> {
        let raw = self.array.as_ref().map_or(self.raw, ArrayMeter::raw)?;
        Some(raw.settle(self.endpoint.dialect()))
    }

    /// Events passed, comments included: told from the number of lines, so an estimate where a provider's events have
    /// an unusual number of lines. Of no meaning once the stream has told all.
    fn events(&self) -> u64 {
        if let Some(array) = &self.array {
            return array.elements();
        }
        // Event name, data and blank line; or data and blank line.
        match self.endpoint {
            Endpoint::Responses | Endpoint::Messages => self.lines / 3,
            _ => self.lines / 2,
        }
    }

    /// The stream said that it was whole.
    pub fn saw_end(&self) -> bool {
        self.ended || self.array.as_ref().is_some_and(ArrayMeter::ended)
    }

    /// The stream said its last word and what it used: nothing is left to guess.
    fn told_all(&self) -> bool {
        self.saw_end() && self.array.as_ref().map_or(self.raw, ArrayMeter::raw).is_some()
    }

    /// Completion tokens guessed from what was relayed, for streams whose provider did not report all: one for each
    /// event, or a quarter of the bytes beyond an event's usual wrapping. 0 when it did.
    pub fn content_estimate(&self) -> u64 {
        if self.told_all() {
            return 0;
        }
        let events = self.events();
        let wrapping = match self.endpoint {
            Endpoint::Responses | Endpoint::Chat => 220,
            Endpoint::StreamGenerate => 200,
            _ => 110,
        };
        events.max(self.bytes.saturating_sub(events * wrapping) / 4)
    }

    #[cold]
    fn begin(&mut self, data: &[u8]) {
        let Some(first) = data.iter().find(|b| !b.is_ascii_whitespace()) else { return };
        self.started = true;
        if self.endpoint == Endpoint::StreamGenerate && *first == b'[' {
            self.array = Some(ArrayMeter::default());
        }
    }

    /// Lets go of an event that grew too long to hold.
    fn bounded(&mut self, whole: Bytes) -> Bytes {
        if self.held.len() <= MAX_HELD {
            return whole;
        }
        let mut window = Vec::with_capacity(2 * WINDOW);
        keep_end(&mut window, &self.held);
        self.overlong = Some(window);
        let long = self.held.split().freeze();
        self.bytes += long.len() as u64;
        join([whole, long])
    }

    /// Passes bytes until the overlong event ends, then goes on as usual.
    #[cold]
    fn feed_overlong(&mut self, data: Bytes) -> Bytes {
        let Some(window) = &mut self.overlong else { return data };
        // The boundary may have begun in what already passed: two bytes before are enough.
        let before = window.len();
        let joint = window.get(before.saturating_sub(2)..).unwrap_or_default();
        let mut seam = joint.to_vec();
        let lead = seam.len();
        seam.extend_from_slice(data.get(..3).unwrap_or(&data));
        let end = first_boundary(&seam, lead).map(|n| n - lead).or_else(|| first_boundary(&data, 0));
        let Some(end) = end else {
            keep_end(window, &data);
            self.bytes += data.len() as u64;
            return data;
        };
        keep_end(window, data.get(..end).unwrap_or_default());
        let window = self.overlong.take().unwrap_or_default();
        self.read_window(&window);
        self.bytes += end as u64;
        let rest = self.feed(data.slice(end..));
        join([data.slice(..end), rest])
    }

    /// The end of an overlong event: only Responses repeats a whole answer before its usage.
    fn read_window(&mut self, window: &[u8]) {
        if self.endpoint == Endpoint::Responses
            && let Some(at) = memchr::memmem::rfind(window, b"\"usage\"")
            && let Some(value) = usage::value_of_key(window, at, Dialect::OpenAi)
            && let Some(raw) = Raw::read(window, value)
        {
            self.raw = Some(raw);
            self.ended = true;
        }
    }

    /// Reads whole events; gives them, but for what is to be dropped.
    fn pass(&mut self, events: Bytes) -> Bytes {
        if events.is_empty() {
            return events;
        }
        self.bytes += events.len() as u64;
        if !self.ended {
            self.ended = self.find_end(&events);
        }
        let dropped = self.find_usage(&events);
        // Exact in a long burst, too: whoever leaves in the middle pays by it.
        if !self.told_all() {
            self.lines += memchr::memchr_iter(b'\n', &events).count() as u64;
        }
        if dropped.is_empty() { events } else { without(&events, &dropped) }
    }

    fn find_end(&self, events: &[u8]) -> bool {
        let line_is = |at: usize, words: [&[u8]; 2]| {
            let line = line_around(events, at);
            words.contains(&events.get(line).unwrap_or_default().trim_ascii_end())
        };
        match self.endpoint.dialect() {
            Dialect::OpenAi if self.endpoint == Endpoint::Responses => false, // told with the usage
            // Nearly always the last line.
            Dialect::OpenAi if events.trim_ascii_end().ends_with(b"\ndata: [DONE]") => true,
            Dialect::OpenAi => DONE.find_iter(events).any(|at| line_is(at, [b"data: [DONE]", b"data:[DONE]"])),
            Dialect::Anthropic => {
                MESSAGE_STOP.find_iter(events).any(|at| line_is(at, [b"event: message_stop", b"event:message_stop"]))
            }
            Dialect::Gemini => array::says_finished(events),
        }
    }

    /// Reads the lines that mention usage; gives the events to leave out.
    fn find_usage(&mut self, events: &[u8]) -> Vec<Range<usize>> {
        let mut dropped = Vec::new(); // does not allocate until something is dropped
        let dialect = self.endpoint.dialect();
        let mut from = 0;
        while let Some(hit) = NEEDLE.find(events.get(from..).unwrap_or_default()) {
            let at = from + hit;
            from = at + NEEDLE.needle().len();
            let Some(value) = usage::value_of_key(events, at, dialect) else { continue };
            let is_object = events.get(value) == Some(&b'{');
            if !is_object && self.endpoint != Endpoint::Responses {
                continue;
            }
            let line = line_around(events, at);
            from = from.max(line.end);
            let Some(json) = data_of(events, line.clone()) else { continue };
            let text = events.get(..line.end).unwrap_or_default();
            let alone = match dialect {
                Dialect::Anthropic => self.read_anthropic(text, json),
                Dialect::Gemini => self.read_top(text, json, b"usageMetadata"),
                Dialect::OpenAi if self.endpoint == Endpoint::Responses => self.read_responses(text, json),
                Dialect::OpenAi => self.read_chat(text, json),
            };
            if alone == Some(true) && self.drop_usage_chunk {
                dropped.push(event_around(events, line));
            }
        }
        dropped
    }

    /// `Some(true)`: this chunk brings usage and nothing else. The functions below likewise.
    fn read_chat(&mut self, text: &[u8], at: usize) -> Option<bool> {
        let mut no_choices = false;
        let mut found = None;
        let mut vendor = None;
        let mut members = Members::open(text, at).ok()?;
        while let Some(Member { key, value }) = members.next().ok()? {
            match key {
                b"choices" => {
                    let list = text.get(value)?;
                    no_choices = list.first() == Some(&b'[') && list.get(1..)?.trim_ascii_start() == b"]";
                }
                b"usage" => found = Raw::read(text, value.start),
                b"x_groq" => vendor = member(text, value.start, b"usage").and_then(|at| Raw::read(text, at)),
                _ => {}
            }
        }
        let alone = found.is_some() && no_choices;
        if let Some(raw) = found.or(vendor) {
            self.raw = Some(raw);
        }
        Some(alone)
    }

    fn read_top(&mut self, text: &[u8], at: usize, name: &[u8]) -> Option<bool> {
        let raw = Raw::read(text, member(text, at, name)?)?;
        self.raw = Some(raw);
        Some(false)
    }

    fn read_responses(&mut self, text: &[u8], at: usize) -> Option<bool> {
        let mut last = false;
        let mut response = None;
        let mut members = Members::open(text, at).ok()?;
        while let Some(Member { key, value }) = members.next().ok()? {
            match key {
                b"type" => {
                    last = matches!(
                        text.get(value)?,
                        b"\"response.completed\"" | b"\"response.incomplete\"" | b"\"response.failed\""
                    );
                }
                b"response" => response = Some(value.start),
                _ => {}
            }
        }
        if last {
            self.ended = true;
            if let Some(raw) = member(text, response?, b"usage").and_then(|at| Raw::read(text, at)) {
                self.raw = Some(raw);
            }
        }
        Some(false)
    }

    fn read_anthropic(&mut self, text: &[u8], at: usize) -> Option<bool> {
        let found = match member(text, at, b"usage") {
            Some(at) => Raw::read(text, at), // message_delta
            None => Raw::read(text, member(text, member(text, at, b"message")?, b"usage")?), // message_start
        };
        let found = found?;
        self.raw.get_or_insert_default().grow(found);
        Some(false)
    }
}

/// Where the value of the member `name` begins, in the object at `at`.
fn member(text: &[u8], at: usize, name: &[u8]) -> Option<usize> {
    let mut members = Members::open(text, at).ok()?;
    while let Some(Member { key, value }) = members.next().ok()? {
        if key == name {
            return Some(value.start);
        }
    }
    None
}

/// Appends to a window that keeps the last bytes only.
fn keep_end(window: &mut Vec<u8>, more: &[u8]) {
    window.extend_from_slice(more.get(more.len().saturating_sub(WINDOW)..).unwrap_or_default());
    let excess = window.len().saturating_sub(WINDOW);
    window.drain(..excess);
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;
