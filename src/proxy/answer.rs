//! The client's answer: head and body, from what a provider (or the demo) said.
//!
//! A body that is here whole goes out with its head in one write and is settled at once; anything else becomes a
//! [`Relay`], and the ticket travels with it.

use super::demo::Events;
use super::headers::{self, Values, ours};
use super::relay::Relay;
use super::settle::Ticket;
use super::{intake, limit, replay};
use crate::base::{Clock, Error};
use crate::dialect::errors::translated_refusal;
use crate::dialect::sse::StreamMeter;
use crate::dialect::translate::StreamTranslator;
use crate::dialect::usage::{self, Usage};
use crate::dialect::{Dialect, Endpoint, echo};
use crate::server::Body;
use crate::state::answer::Answer as Kept;
use crate::upstream::Reply;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use std::sync::Arc;

/// What the client gets.
pub(super) enum Answer {
    /// A provider's good answer, to be relayed.
    Reply(Reply),
    /// A stream of another dialect than the client's, to be translated on its way.
    Translated(Reply, Box<StreamTranslator>),
    /// A whole answer that was translated, and what its provider counted.
    Whole { status: StatusCode, headers: HeaderMap, body: Bytes, usage: Option<Usage> },
    /// A provider's refusal, in the dialect it speaks; passed on as it is where that is the client's.
    Refusal { status: StatusCode, headers: HeaderMap, body: Bytes, dialect: Dialect },
    /// The built-in demo's.
    Demo(echo::Reply),
    /// A similar question's, from memory.
    Kept(Arc<Kept>),
}

impl Answer {
    pub(super) fn into_response(self, mut ticket: Box<Ticket>, drops_usage: bool) -> Response<Body> {
        let keep = ticket.keep.take();
        let response = match self {
            Self::Reply(reply) => relay(reply, ticket, drops_usage),
            Self::Translated(reply, translator) => translated(reply, ticket, translator),
            Self::Whole { status, headers, body, usage } => {
                ticket.overhead += Clock::now().since(ticket.ours_since);
                let mut response = head(status, headers, &ticket, Says::Overhead);
                ticket.done(status.as_u16(), usage, body.len() as u64 / 4);
                *response.body_mut() = Body::full(body);
                response
            }
            Self::Refusal { status, mut headers, mut body, dialect } => {
                let own = ticket.endpoint.dialect();
                if own != dialect {
                    let id = request_id(&ticket);
                    body = translated_refusal(own, status.as_u16(), &body, id.to_str().unwrap_or_default()).into();
                    headers::translated(&mut headers, "application/json");
                }
                let mut response = head(status, headers, &ticket, Says::Nothing);
                *response.body_mut() = Body::full(body);
                ticket.failed(status.as_u16(), "upstream_refused");
                response
            }
            Self::Demo(reply) => demo(reply, ticket),
            Self::Kept(kept) => replay::whole(&kept, ticket),
        };
        match keep {
            Some(keep) => keep.watch(response),
            None => response,
        }
    }
}

fn relay(mut reply: Reply, mut ticket: Box<Ticket>, drops_usage: bool) -> Response<Body> {
    let status = reply.status;
    let kind = reply.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let is = |name: &[u8]| kind.len() >= name.len() && kind[..name.len()].eq_ignore_ascii_case(name);
    let (events, json) = (is(b"text/event-stream"), is(b"application/json"));
    // Bytes we can't read are bytes all the same.
    let readable = !reply.headers.contains_key(CONTENT_ENCODING);
    let length = reply.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let whole = if events { None } else { reply.body.take_complete() };
    if let Some(body) = whole {
        let usage = if readable { usage::from_body(ticket.endpoint, &body) } else { None };
        let now = Clock::now();
        ticket.overhead += now.since(ticket.ours_since);
        ticket.ended = Some(now);
        let mut response = head(status, reply.headers, &ticket, Says::Overhead);
        ticket.done(status.as_u16(), usage, body.len() as u64 / 4);
        *response.body_mut() = Body::full(body);
        return response;
    }
    let says = if ticket.stream { Says::Nothing } else { Says::Overhead };
    let mut response = head(status, reply.headers, &ticket, says);
    let status = status.as_u16();
    let array = ticket.endpoint == Endpoint::StreamGenerate && json;
    let relay = match (readable, events || array, json) {
        (false, ..) | (true, false, false) => Relay::blind(reply.body, ticket, status, length),
        (true, true, _) => {
            let meter = StreamMeter::new(ticket.endpoint, drops_usage);
            Relay::events(reply.body, ticket, status, meter)
        }
        (true, false, true) => Relay::json(reply.body, ticket, status, length),
    };
    *response.body_mut() = Body::stream(relay);
    response
}

/// The meter reads the provider's own bytes, the client gets the translator's.
fn translated(reply: Reply, ticket: Box<Ticket>, translator: Box<StreamTranslator>) -> Response<Body> {
    let mut response = head(reply.status, reply.headers, &ticket, Says::Nothing);
    let meter = StreamMeter::new(ticket.asked_at, false);
    let status = reply.status.as_u16();
    *response.body_mut() = Body::stream(Relay::translated(reply.body, ticket, status, meter, translator));
    response
}

fn demo(reply: echo::Reply, ticket: Box<Ticket>) -> Response<Body> {
    let kind = match &reply {
        echo::Reply::Whole(_) => "application/json",
        echo::Reply::Events(_) => "text/event-stream",
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let mut response = head(StatusCode::OK, headers, &ticket, Says::Nothing);
    *response.body_mut() = match reply {
        echo::Reply::Whole(body) => {
            let usage = usage::from_body(ticket.endpoint, &body);
            ticket.done(200, usage, 0);
            Body::full(body)
        }
        echo::Reply::Events(events) => {
            let mut meter = StreamMeter::new(ticket.endpoint, false);
            for event in &events {
                meter.feed(event.clone());
            }
            let (usage, estimate) = (meter.usage(), meter.content_estimate());
            ticket.done(200, usage, estimate);
            Body::stream(Events(events.into()))
        }
    };
    response
}

/// Whether an answer's head says how long we had the request in our own hands: known only when nothing is to come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    Overhead,
    Nothing,
}

/// The provider's head with our own lines in it.
fn head(status: StatusCode, mut headers: HeaderMap, ticket: &Ticket, says: Says) -> Response<Body> {
    let mut values = Values::new();
    headers::strip_reply(&mut headers);
    headers.insert(&intake::X_REQUEST_ID, request_id(ticket));
    put_attempts(&mut headers, ticket, &mut values);
    headers.insert(&ours::CACHE, HeaderValue::from_static("miss"));
    put_own(&mut headers, ticket, &mut values);
    if says == Says::Overhead {
        headers.insert(&ours::OVERHEAD, values.number(ticket.overhead.as_micros() as u64));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// An error of ours, with what was tried before it; settles.
pub(super) fn refused(error: &Error, ticket: Box<Ticket>) -> Response<Body> {
    let mut response = super::refusal(ticket.endpoint.dialect(), error, request_id(&ticket));
    let headers = response.headers_mut();
    let mut values = Values::new();
    if ticket.attempts > 0 {
        put_attempts(headers, &ticket, &mut values);
    }
    // Who is refused needs them most.
    put_own(headers, &ticket, &mut values);
    ticket.failed(error.status(), error.kind.code());
    response
}

/// Who was asked, and at which attempt.
fn put_attempts(headers: &mut HeaderMap, ticket: &Ticket, values: &mut Values) {
    if let Some(target) = &ticket.target {
        let account = target.account();
        headers.insert(&ours::ACCOUNT, values.text(&[&account.label]));
        headers.insert(&ours::MODEL, values.text(&[&account.provider.name, "/", target.model.name()]));
    }
    headers.insert(
        &ours::ATTEMPTS,
        match ticket.attempts {
            1 => HeaderValue::from_static("1"),
            more => values.number(more.into()),
        },
    );
}

/// The client's request id if it sent a sane one, else ours.
pub(super) fn request_id(ticket: &Ticket) -> HeaderValue {
    ticket.shown_id.clone()
}

/// What this caller may know of its own limits.
pub(super) fn put_own(headers: &mut HeaderMap, ticket: &Ticket, values: &mut Values) {
    if let Some(limits) = &ticket.limits {
        limit::put_headers(limits, ticket.endpoint.dialect(), headers, values);
    }
}
