//! One stream's translator: a provider's events in, however reads cut them, the caller's events out.
//!
//! Holds at most one unfinished event. After an error, the provider's or its own, it says nothing more; a stream that
//! ends without a word of why is an error too, since it would look like a short answer.

use super::said::{Event, Facts};
use super::said::{chat_in, chat_out, generate_in, generate_out, messages_in, messages_out, responses_out};
use super::{Obj, json, too_long};
use crate::base::{Error, ErrorKind};
use crate::dialect::lines::{first_boundary, last_boundary};
use crate::dialect::{Dialect, Endpoint};
use bytes::Bytes;
use std::borrow::Cow;

/// Longest event taken: a call's arguments or a picture may come in one.
const MAX_EVENT: usize = 8 << 20;

/// Translates one stream.
#[derive(Debug)]
pub struct StreamTranslator {
    from: Reader,
    to: Writer,
    held: Vec<u8>,
    /// The provider said why it ended.
    finished: bool,
    /// The caller has the last word.
    ended: bool,
    broken: Option<Error>,
}

#[derive(Debug)]
enum Reader {
    Chat(chat_in::Reader),
    Messages(messages_in::Reader),
    Generate(generate_in::Reader),
}

#[derive(Debug)]
enum Writer {
    Chat(chat_out::Writer),
    Responses(Box<responses_out::Writer>),
    Messages(messages_out::Writer),
    Generate(generate_out::Writer),
}

impl StreamTranslator {
    /// From the provider's endpoint `from` to the caller's `to`.
    pub fn new(from: Endpoint, to: Endpoint, facts: Facts) -> Self {
        let from = match from.dialect() {
            Dialect::OpenAi => Reader::Chat(chat_in::Reader::default()),
            Dialect::Anthropic => Reader::Messages(messages_in::Reader::default()),
            Dialect::Gemini => Reader::Generate(generate_in::Reader::default()),
        };
        let to = match (to, to.dialect()) {
            (Endpoint::Responses, _) => Writer::Responses(Box::new(responses_out::Writer::new(facts))),
            (_, Dialect::OpenAi) => Writer::Chat(chat_out::Writer::new(facts)),
            (_, Dialect::Anthropic) => Writer::Messages(messages_out::Writer::new(facts)),
            (_, Dialect::Gemini) => Writer::Generate(generate_out::Writer::new(facts)),
        };
        Self { from, to, held: Vec::new(), finished: false, ended: false, broken: None }
    }

    /// Takes what one read brought; gives what may go to the caller now (perhaps nothing).
    pub fn feed(&mut self, data: &[u8]) -> Bytes {
        let mut out = Vec::new();
        if self.ended {
            return Bytes::new();
        }
        if self.held.is_empty() {
            let end = last_boundary(data, 0);
            let (whole, rest) = data.split_at_checked(end).unwrap_or((data, &[]));
            self.events(whole, &mut out);
            self.held.extend_from_slice(rest);
        } else {
            let from = self.held.len();
            self.held.extend_from_slice(data);
            let end = last_boundary(&self.held, from);
            if end > 0 {
                let held = std::mem::take(&mut self.held);
                let (whole, rest) = held.split_at_checked(end).unwrap_or((&held, &[]));
                self.events(whole, &mut out);
                self.held.extend_from_slice(rest);
            }
        }
        if self.held.len() > MAX_EVENT {
            self.give_up(too_long(), &mut out);
        }
        out.into()
    }

    /// The stream ended in order: gives the caller's last words.
    pub fn finish(&mut self) -> Bytes {
        let mut out = Vec::new();
        let rest = std::mem::take(&mut self.held);
        self.event(&rest, &mut out);
        if !self.ended {
            if self.finished {
                self.end(&mut out);
            } else {
                let short = "the provider's stream ended without saying why";
                self.give_up(Error::new(ErrorKind::UpstreamFailed, short), &mut out);
            }
        }
        out.into()
    }

    /// The stream broke: the event that tells the caller, unless it has had its last word.
    pub fn error(&mut self, error: &Error) -> Bytes {
        let mut out = Vec::new();
        if !std::mem::replace(&mut self.ended, true) {
            self.tell(error, &mut out);
        }
        out.into()
    }

    /// Why nothing more can be translated, once that is so; the caller has been told.
    pub fn broken(&self) -> Option<&Error> {
        self.broken.as_ref()
    }

    fn events(&mut self, mut whole: &[u8], out: &mut Vec<u8>) {
        while let Some(end) = first_boundary(whole, 0) {
            let (event, rest) = whole.split_at_checked(end).unwrap_or((whole, &[]));
            self.event(event, out);
            whole = rest;
        }
        self.event(whole, out);
    }

    fn event(&mut self, event: &[u8], out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        let Some(data) = data(event) else { return };
        if data.trim_ascii() == b"[DONE]" {
            return self.end(out);
        }
        let Some(obj) = json::document(&data).and_then(Obj::lax) else {
            let unreadable = Error::new(ErrorKind::UpstreamFailed, "the provider's stream can't be read");
            return self.give_up(unreadable, out);
        };
        let Self { from, to, finished, .. } = self;
        let (mut last, mut wrong) = (None, None);
        let mut put = |event: Event<'_>| {
            if last.is_some() || wrong.is_some() {
                return;
            }
            match event {
                Event::Failed(error) => last = Some(Err(error)),
                Event::End => last = Some(Ok(())),
                event => {
                    *finished |= matches!(event, Event::Finish(_));
                    wrong = to.event(event, out).err();
                }
            }
        };
        match from {
            Reader::Chat(reader) => reader.chunk(&obj, &mut put),
            Reader::Messages(reader) => reader.chunk(&obj, &mut put),
            Reader::Generate(reader) => reader.chunk(&obj, &mut put),
        }
        match (last, wrong) {
            (_, Some(wrong)) => self.give_up(wrong, out),
            (Some(Ok(())), None) => self.end(out),
            // The provider's own word: passed on, as it would be to a caller of its dialect.
            (Some(Err(error)), None) => {
                self.ended = true;
                self.tell(&error, out);
            }
            (None, None) => {}
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.ended = true;
        match &mut self.to {
            Writer::Chat(writer) => writer.end(out),
            Writer::Responses(writer) => writer.end(out),
            Writer::Messages(writer) => writer.end(out),
            Writer::Generate(writer) => writer.end(out),
        }
    }

    #[cold]
    fn give_up(&mut self, error: Error, out: &mut Vec<u8>) {
        self.ended = true;
        self.held = Vec::new();
        self.tell(&error, out);
        self.broken = Some(error);
    }

    fn tell(&mut self, error: &Error, out: &mut Vec<u8>) {
        match &mut self.to {
            Writer::Chat(writer) => writer.error(error, out),
            Writer::Responses(writer) => writer.error(error, out),
            Writer::Messages(writer) => writer.error(error, out),
            Writer::Generate(writer) => writer.error(error, out),
        }
    }
}

impl Writer {
    fn event(&mut self, event: Event<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Chat(writer) => {
                writer.event(event, out);
                Ok(())
            }
            Self::Responses(writer) => writer.event(event, out),
            Self::Messages(writer) => writer.event(event, out),
            Self::Generate(writer) => writer.event(event, out),
        }
    }
}

/// An event's data: its `data:` lines, joined by line ends. `None`: it has none.
fn data(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut data: Option<Cow<'_, [u8]>> = None;
    for line in event.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let Some(rest) = line.strip_prefix(b"data:") else { continue };
        let rest = rest.strip_prefix(b" ").unwrap_or(rest);
        match &mut data {
            None => data = Some(Cow::Borrowed(rest)),
            Some(all) => {
                let all = all.to_mut();
                all.push(b'\n');
                all.extend_from_slice(rest);
            }
        }
    }
    data.filter(|data| !data.trim_ascii().is_empty())
}
