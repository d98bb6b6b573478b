//! An attempt at a provider of another dialect than the client's: asked in its own, understood in the client's.
//!
//! A whole answer is read to its end before the client hears of it, bounded, so one that can't be read may still be
//! tried elsewhere. A stream goes out as it comes. What the client asks and the provider's dialect can't say is refused
//! by name; nobody is asked then.

use super::answer::Answer;
use super::attempt::{Failed, call, encode};
use super::settle::Ticket;
use super::{Proxy, Question, headers};
use crate::base::{Clock, Error, Pieces};
use crate::config::StreamUsage;
use crate::dialect::translate::{self, Facts, StreamTranslator, Target as Asked};
use crate::dialect::{Endpoint, usage};
use crate::routing::Target;
use crate::upstream::{CallBody, CallError, CallErrorKind, Reply, ReplyBody};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};

/// Largest whole answer that is translated.
const REPLY: usize = 32 << 20;

/// Why there is no answer.
pub(super) enum Missed {
    /// The question can't be put in the provider's dialect: nobody was asked.
    Unsaid(Error),
    /// The attempt failed.
    Failed(Box<Failed>),
}

/// Asks `target` in its dialect.
pub(super) async fn ask(
    proxy: &Proxy,
    question: &Question,
    target: &Target,
    ticket: &mut Ticket,
) -> Result<Answer, Missed> {
    let provider = &target.account().provider;
    let at = translate::counterpart(question.endpoint, provider.dialect, question.stream).ok_or_else(|| {
        let (model, name) = (&ticket.requested_model, question.endpoint.name());
        let dialect = question.endpoint.dialect().name();
        let message = format!(
            "`{model}` is not served by a provider that speaks {dialect}; others have no counterpart of {name}."
        );
        Missed::Unsaid(Error::malformed(message).param("model"))
    })?;
    let asked = Asked {
        model: target.model.name(),
        provider: &provider.name,
        max_output: target.model.known().map_or(0, |model| model.max_output),
    };
    let usage = proxy.shared.settings.stream_usage == StreamUsage::Inject || question.peek.include_usage();
    let body = translate::request(question.endpoint, &question.body, at, &asked, question.stream, usage)
        .map_err(Missed::Unsaid)?;
    ticket.begin(target.clone());
    ticket.asked_at = at;
    let body = CallBody::Pieces(Pieces::from(body));
    let failed = |failed| Missed::Failed(Box::new(failed));
    let reply = match call(proxy, &question.parts, target, ticket, body, question.stream).await {
        Ok(reply) if reply.status.is_success() => reply,
        Ok(reply) => return Err(failed(Failed::read(reply, target).await)),
        Err(error) => return Err(failed(Failed::Call(error))),
    };
    let facts = Facts {
        id: ticket.id.to_string().trim_start_matches("req_").to_owned(),
        model: target.model.name().to_owned(),
        created: Clock::unix_seconds(),
        include_usage: question.peek.include_usage(),
        array: takes_array(question),
    };
    receive(question, reply, ticket, facts).await.map_err(|error| failed(Failed::Call(error)))
}

/// An answer that nobody was asked for: a provider of another dialect can't count for this one.
pub(super) fn count(question: &Question) -> Result<Answer, Error> {
    let body = translate::count_tokens(&question.body)?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(headers::ours::ESTIMATED.clone(), HeaderValue::from_static("true"));
    Ok(Answer::Whole { status: StatusCode::OK, headers, body, usage: Some(usage::Usage::default()) })
}

/// What follows the provider's base URL. Nothing of the client's query: it was meant for another dialect.
pub(super) fn path(at: Endpoint, model: &str) -> String {
    let suffix = at.upstream_path();
    match at {
        Endpoint::StreamGenerate => format!("/v1beta/models/{}{suffix}?alt=sse", encode(model)),
        Endpoint::Generate => format!("/v1beta/models/{}{suffix}", encode(model)),
        _ => suffix.to_owned(),
    }
}

/// Whether the client takes Gemini's stream as an array: it does where it did not ask for events.
fn takes_array(question: &Question) -> bool {
    let events = |query: &str| query.split('&').any(|pair| pair == "alt=sse");
    question.endpoint == Endpoint::StreamGenerate && !question.parts.uri.query().is_some_and(events)
}

async fn receive(
    question: &Question,
    mut reply: Reply,
    ticket: &mut Ticket,
    facts: Facts,
) -> Result<Answer, CallError> {
    // We asked for no compression.
    if reply.headers.contains_key(CONTENT_ENCODING) {
        return Err(nonsense("it is compressed"));
    }
    let kind = reply.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let events = kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"));
    if events != question.stream {
        return Err(nonsense(if events { "it is a stream" } else { "it is no stream" }));
    }
    if events {
        let kind = if facts.array { "application/json" } else { "text/event-stream" };
        headers::translated(&mut reply.headers, kind);
        let translator = Box::new(StreamTranslator::new(ticket.asked_at, question.endpoint, facts));
        return Ok(Answer::Translated(reply, translator));
    }
    let body = whole(reply.body).await?;
    ticket.ours_since = Clock::now();
    let usage = usage::from_body(ticket.asked_at, &body);
    let translated = translate::answer(ticket.asked_at, &body, question.endpoint, &facts).map_err(|error| {
        tracing::debug!(request = %ticket.id, %error, "an answer can't be translated");
        nonsense("it can't be translated")
    })?;
    headers::translated(&mut reply.headers, "application/json");
    Ok(Answer::Whole { status: reply.status, headers: reply.headers, body: translated, usage })
}

async fn whole(mut body: ReplyBody) -> Result<Bytes, CallError> {
    if let Some(whole) = body.take_complete() {
        return Ok(whole);
    }
    let mut whole = BytesMut::new();
    while let Some(data) = std::future::poll_fn(|cx| body.poll_data(cx)).await {
        whole.extend_from_slice(&data?);
        if whole.len() > REPLY {
            return Err(nonsense("it is too long to be translated"));
        }
    }
    Ok(whole.freeze())
}

fn nonsense(why: &'static str) -> CallError {
    CallError { kind: CallErrorKind::Protocol(why), sent: true, cause: None }
}
