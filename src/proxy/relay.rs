//! The reply's body: the provider's bytes to the client as they come, metered on the way.
//!
//! All that one read brought leaves in one write. Nothing is timed here and nothing is logged per chunk. When the
//! client leaves, hyper drops this body; the provider's connection closes with it and the ticket settles what was
//! relayed. When the provider breaks off, a stream ends with its dialect's own error event, anything else is cut. Where
//! the client's dialect is another one, a translator stands behind the meter.

use super::settle::{Outcome, Ticket};
use crate::base::tasks::{Drain, Phase};
use crate::base::{Error, ErrorKind};
use crate::dialect::errors::error_event;
use crate::dialect::sse::StreamMeter;
use crate::dialect::translate::StreamTranslator;
use crate::dialect::usage::{self, Usage};
use crate::server::Source;
use crate::server::body::{Cut, Ending};
use crate::upstream::{CallError, CallErrorKind, ReplyBody};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::task::{Context, Poll};

/// How much of a long JSON reply's end is kept to find its usage in.
const TAIL: usize = 32 << 10;

/// A reply on its way.
pub(super) struct Relay {
    body: ReplyBody,
    meter: Meter,
    ticket: Option<Box<Ticket>>,
    status: u16,
    drain: Drain,
    left: Option<u64>,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Going,
    Ended,
    Broken,
}

enum Meter {
    Events(Box<StreamMeter>),
    /// The client's dialect is another one.
    Translated(Box<StreamMeter>, Box<StreamTranslator>),
    Tail {
        kept: VecDeque<Bytes>,
        bytes: usize,
    },
    Blind,
}

impl Relay {
    /// Relays an event stream.
    pub(super) fn events(body: ReplyBody, ticket: Box<Ticket>, status: u16, meter: StreamMeter) -> Self {
        Self::new(body, ticket, status, Meter::Events(Box::new(meter)), None)
    }

    /// Relays an event stream of another dialect than the client's.
    pub(super) fn translated(
        body: ReplyBody,
        ticket: Box<Ticket>,
        status: u16,
        meter: StreamMeter,
        translator: Box<StreamTranslator>,
    ) -> Self {
        Self::new(body, ticket, status, Meter::Translated(Box::new(meter), translator), None)
    }

    /// Relays a JSON body of `length` bytes, if that is known.
    pub(super) fn json(body: ReplyBody, ticket: Box<Ticket>, status: u16, length: Option<u64>) -> Self {
        Self::new(body, ticket, status, Meter::Tail { kept: VecDeque::new(), bytes: 0 }, length)
    }

    /// Relays bytes that hold no usage (audio, images, compressed replies).
    pub(super) fn blind(body: ReplyBody, ticket: Box<Ticket>, status: u16, length: Option<u64>) -> Self {
        Self::new(body, ticket, status, Meter::Blind, length)
    }

    fn new(body: ReplyBody, ticket: Box<Ticket>, status: u16, meter: Meter, left: Option<u64>) -> Self {
        let drain = ticket.shared.drain.clone();
        Self { body, meter, ticket: Some(ticket), status, drain, left, state: State::Going }
    }

    /// What the meter knows, for a settlement now.
    fn measured(&self) -> (Option<Usage>, u64) {
        match &self.meter {
            Meter::Events(meter) | Meter::Translated(meter, _) => (meter.usage(), meter.content_estimate()),
            Meter::Tail { kept, .. } => {
                let mut tail = BytesMut::new();
                for part in kept {
                    tail.extend_from_slice(part);
                }
                let usage = self.ticket.as_ref().and_then(|ticket| usage::from_body(ticket.endpoint, &tail));
                (usage, tail.len() as u64 / 4)
            }
            Meter::Blind => (None, 0),
        }
    }

    fn whole(&mut self) {
        self.state = State::Ended;
        let (usage, estimate) = self.measured();
        if let Some(ticket) = self.ticket.take() {
            ticket.done(self.status, usage, estimate);
        }
    }

    /// The provider broke off, or shutdown cuts: the stream's last event, or nothing but the cut.
    fn broken(&mut self, error: &Error) -> Poll<Option<Result<Bytes, Cut>>> {
        self.state = State::Broken;
        let (usage, completion_estimate) = self.measured();
        let Some(mut ticket) = self.ticket.take() else { return Poll::Ready(None) };
        let event = match &mut self.meter {
            Meter::Events(_) => Some(error_event(ticket.endpoint, error)),
            Meter::Translated(_, translator) => Some(translator.error(error)),
            _ => None,
        };
        ticket.outcome = Outcome::Broken { error: error.kind.code(), usage, completion_estimate };
        drop(ticket);
        Poll::Ready(match event {
            Some(event) if event.is_empty() => None,
            event => Some(event.ok_or(Cut)),
        })
    }

    /// The translator gave up, and has told the client: the provider need not go on.
    fn given_up(&mut self) -> bool {
        let error = match &self.meter {
            Meter::Translated(_, translator) => translator.broken().map(|error| error.kind.code()),
            _ => None,
        };
        let Some(error) = error else { return false };
        let (usage, completion_estimate) = self.measured();
        self.state = State::Broken;
        if let Some(mut ticket) = self.ticket.take() {
            ticket.outcome = Outcome::Broken { error, usage, completion_estimate };
        }
        true
    }

    fn count(&mut self, data: &Bytes) {
        if let Meter::Tail { kept, bytes } = &mut self.meter {
            *bytes += data.len();
            kept.push_back(data.clone());
            while let Some(first) = kept.front().map(Bytes::len).filter(|first| *bytes - first >= TAIL) {
                *bytes -= first;
                kept.pop_front();
            }
        }
    }
}

impl Source for Relay {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        if self.state != State::Going {
            return Poll::Ready(None);
        }
        if let Some(error) = cut(&self.drain) {
            return self.broken(&error);
        }
        loop {
            let data = match self.body.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(data))) => data,
                Poll::Ready(Some(Err(error))) => return self.broken(&broke_off(&error)),
                Poll::Ready(None) => {
                    let rest = match &mut self.meter {
                        Meter::Events(meter) => meter.finish(),
                        Meter::Translated(meter, translator) => {
                            let last = translator.feed(&meter.finish());
                            join([last, translator.finish()])
                        }
                        _ => Bytes::new(),
                    };
                    if !self.given_up() {
                        self.whole();
                    }
                    return Poll::Ready((!rest.is_empty()).then_some(Ok(rest)));
                }
            };
            self.count(&data);
            let data = match &mut self.meter {
                Meter::Events(meter) => meter.feed(data),
                Meter::Translated(meter, translator) => {
                    let translated = translator.feed(&meter.feed(data));
                    if self.given_up() {
                        return Poll::Ready(Some(Ok(translated)));
                    }
                    translated
                }
                _ => data,
            };
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(data.len() as u64);
            }
            if data.is_empty() {
                continue; // an event that is not whole yet
            }
            if self.left == Some(0) {
                // hyper will not poll again after the last byte of a known length.
                self.whole();
            }
            return Poll::Ready(Some(Ok(data)));
        }
    }

    fn remaining(&self) -> Option<u64> {
        self.left
    }

    fn ending(&self) -> Ending {
        match (&self.state, &self.meter) {
            (State::Broken, _) => Ending::Broken,
            (_, Meter::Events(meter) | Meter::Translated(meter, _)) if !meter.saw_end() => Ending::Unsaid,
            _ => Ending::Whole,
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            let (usage, completion_estimate) = self.measured();
            if let Some(ticket) = &mut self.ticket {
                let status = self.status;
                ticket.outcome = Outcome::Abandoned { status, usage, completion_estimate, relayed: true };
            }
        }
    }
}

/// One after the other.
fn join([a, b]: [Bytes; 2]) -> Bytes {
    if b.is_empty() { a } else { [a, b].concat().into() }
}

/// Why every answer that still goes out ends now, when shutdown cuts.
pub(super) fn cut(drain: &Drain) -> Option<Error> {
    let cut = || Error::new(ErrorKind::Overloaded, "the gateway is shutting down; the stream was cut");
    (drain.phase() >= Phase::Cut).then(cut)
}

fn broke_off(error: &CallError) -> Error {
    if matches!(error.kind, CallErrorKind::Timeout(_)) {
        Error::new(ErrorKind::UpstreamTimeout, "the provider went silent in the middle of its answer")
    } else {
        Error::new(ErrorKind::UpstreamFailed, "the provider broke off in the middle of its answer")
    }
}
