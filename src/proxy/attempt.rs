//! From plan to answer: pick a target, send, judge, take the next; until a provider's first byte is on its way out.
//!
//! Before that byte a failure costs the client nothing but time: the next target is asked. After it there is no second
//! try. What a failure means is decided in `routing/verdict`; here it is only carried out.

use super::answer::Answer;
use super::headers::{self, Outgoing};
use super::multipart::Form;
use super::settle::Ticket;
use super::{Proxy, Question, demo};
use crate::base::{Clock, Error, ErrorKind};
use crate::dialect::splice::splice;
use crate::dialect::{Dialect, Endpoint};
use crate::routing::{self, Plan, Target};
use crate::state::catalog::Account;
use crate::upstream::{Call, CallBody, CallError, CallErrorKind, Pieces, Reply};
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use std::borrow::Cow;
use std::time::Duration;

/// How much of a provider's error is read to judge it and pass it on.
const ERROR_BODY: usize = 64 << 10;
/// How long a provider may take over its error's body.
const ERROR_BODY_WAIT: Duration = Duration::from_secs(5);

/// Asks the targets of the question's model in turn.
pub(super) async fn run(proxy: &Proxy, question: &Question, ticket: &mut Ticket) -> Result<Answer, Error> {
    let plan = plan(proxy, question.endpoint, ticket)?;
    let mut last = None;
    for target in plan.targets {
        ticket.target = Some(target.clone());
        ticket.attempts += 1;
        if target.account.id.0 == 0 {
            return demo::answer(question, ticket).map(Answer::Demo);
        }
        let failed = match send(proxy, question, &target, ticket).await {
            Ok(reply) if reply.status.as_u16() < 400 => return Ok(Answer::Reply(reply)),
            Ok(reply) => Failed::read(reply).await,
            Err(error) => Failed::Call(error),
        };
        tracing::debug!(request = %ticket.id, account = &*target.account.label, "an attempt failed");
        let retry = failed.worth_another();
        last = Some(failed);
        if !retry {
            break;
        }
    }
    match last {
        Some(failed) => failed.into_answer(),
        None => Err(Error::new(ErrorKind::Unavailable, "no account can serve this model")),
    }
}

/// Relays an upload to the first target: what was sent can't be sent again.
pub(super) async fn upload(proxy: &Proxy, parts: &Parts, form: Form, ticket: &mut Ticket) -> Result<Answer, Error> {
    let plan = plan(proxy, ticket.endpoint, ticket)?;
    let Some(target) = plan.targets.into_iter().next() else {
        return Err(Error::new(ErrorKind::Unavailable, "no account can serve this model"));
    };
    ticket.target = Some(target.clone());
    ticket.attempts += 1;
    let (body, length) = form.for_model(&target.model.name);
    let body = CallBody::Stream(Box::pin(body), length);
    match call(proxy, parts, &target, ticket, body, false).await {
        Ok(reply) if reply.status.as_u16() < 400 => Ok(Answer::Reply(reply)),
        Ok(reply) => Failed::read(reply).await.into_answer(),
        Err(error) => Failed::Call(error).into_answer(),
    }
}

fn plan(proxy: &Proxy, endpoint: Endpoint, ticket: &Ticket) -> Result<Plan, Error> {
    let mut plan = routing::resolve(&proxy.catalog(), &ticket.requested_model)?;
    let dialect = endpoint.dialect();
    plan.targets.retain(|target| target.account.id.0 == 0 || target.account.provider.dialect == dialect);
    if plan.targets.is_empty() {
        let name = dialect.name();
        let message = format!("`{}` is not served by a provider that speaks {name} here", ticket.requested_model);
        return Err(Error::malformed(message).param("model"));
    }
    Ok(plan)
}

async fn send(proxy: &Proxy, question: &Question, target: &Target, ticket: &mut Ticket) -> Result<Reply, CallError> {
    let inject = question.inject_usage(&proxy.shared.settings);
    let spliced = splice(&question.body, &question.peek, Some(&target.model.name), inject);
    let mut pieces = Pieces::new();
    spliced.iter().for_each(|piece| pieces.push(piece.clone()));
    call(proxy, &question.parts, target, ticket, CallBody::Pieces(pieces), question.stream).await
}

async fn call(
    proxy: &Proxy,
    parts: &Parts,
    target: &Target,
    ticket: &mut Ticket,
    body: CallBody,
    stream: bool,
) -> Result<Reply, CallError> {
    let account: &Account = &target.account;
    let timeouts = &proxy.shared.settings.timeouts;
    let path = path(ticket.endpoint, &target.model.name, parts);
    let own_id;
    let request_id = match &ticket.client_request_id {
        Some(id) => id,
        None => {
            own_id = headers::text(&ticket.id.to_string());
            &own_id
        }
    };
    let outgoing = Outgoing { client: &parts.headers, account, request_id };
    let asked = Clock::now();
    ticket.overhead += asked.since(ticket.ours_since);
    let reply = proxy
        .client
        .call(Call {
            base: &account.base,
            http2: account.provider.http2,
            method: &Method::POST,
            path: &path,
            headers: &outgoing,
            body,
            first_byte: if stream { timeouts.first_byte_stream } else { timeouts.first_byte },
            idle: timeouts.stream_idle,
        })
        .await;
    let now = Clock::now();
    ticket.ours_since = now;
    ticket.first_byte = Some(now);
    reply
}

/// What follows the provider's base URL.
fn path<'a>(endpoint: Endpoint, model: &str, parts: &'a Parts) -> Cow<'a, str> {
    let query = parts.uri.query().unwrap_or("");
    let suffix = endpoint.upstream_path();
    let mut path = match endpoint.dialect() {
        Dialect::Gemini => {
            // The client's own API version stays: `/v1beta/models/…` or `/v1/models/…`.
            let version = if parts.uri.path().starts_with("/v1/") { "/v1" } else { "/v1beta" };
            format!("{version}/models/{}{suffix}", encode(model))
        }
        _ if query.is_empty() => return Cow::Borrowed(suffix),
        _ => suffix.to_owned(),
    };
    // A key in the query is the client's own, for us: it never goes to a provider.
    let mut mark = '?';
    for pair in query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("key=")) {
        path.push(mark);
        path.push_str(pair);
        mark = '&';
    }
    Cow::Owned(path)
}

/// A model's name as a path: what could end the segment or the path is escaped.
fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:@".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push('%');
            out.extend([byte >> 4, byte & 15].map(|half| char::from_digit(u32::from(half), 16).unwrap_or('0')));
        }
    }
    out
}

/// An attempt that did not work.
enum Failed {
    Refused { status: StatusCode, headers: HeaderMap, body: Bytes },
    Call(CallError),
}

impl Failed {
    /// Reads a refusal's body, bounded in size and time.
    async fn read(mut reply: Reply) -> Self {
        let mut body = BytesMut::new();
        let read = async {
            while body.len() < ERROR_BODY {
                match std::future::poll_fn(|cx| reply.body.poll_data(cx)).await {
                    Some(Ok(data)) => body.extend_from_slice(&data),
                    _ => break,
                }
            }
        };
        // A provider that stalls within its own error has said enough with its status.
        let _ = tokio::time::timeout(ERROR_BODY_WAIT, read).await;
        Self::Refused { status: reply.status, headers: reply.headers, body: body.freeze() }
    }

    fn worth_another(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                matches!(status.as_u16(), 401..=404 | 408 | 429) || status.is_server_error()
            }
            Self::Call(error) => !matches!(error.kind, CallErrorKind::ClientBody),
        }
    }

    fn into_answer(self) -> Result<Answer, Error> {
        match self {
            Self::Refused { status, headers, body } => match status.as_u16() {
                401 | 402 | 403 => {
                    Err(Error::new(ErrorKind::Unavailable, "the provider refused the gateway's own credentials"))
                }
                500.. => Err(Error::new(ErrorKind::UpstreamFailed, format!("the provider failed ({status})"))),
                _ => Ok(Answer::Refusal { status, headers, body }),
            },
            Self::Call(error) => Err(match error.kind {
                CallErrorKind::Timeout(_) => {
                    Error::new(ErrorKind::UpstreamTimeout, "the provider did not answer in time")
                }
                CallErrorKind::ClientBody => Error::malformed("the request body broke off"),
                _ => Error::new(ErrorKind::UpstreamFailed, "the provider can't be reached"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str) -> Parts {
        http::Request::builder().uri(uri).body(()).unwrap().into_parts().0
    }

    #[test]
    fn paths_keep_the_query_but_never_a_key() {
        let path = |endpoint, model, uri: &str| path(endpoint, model, &parts(uri)).into_owned();
        assert_eq!(path(Endpoint::Chat, "m", "/v1/chat/completions"), "/chat/completions");
        assert_eq!(path(Endpoint::Messages, "m", "/v1/messages?beta=true"), "/v1/messages?beta=true");
        let uri = "/v1beta/models/x:streamGenerateContent?key=mrd_1&alt=sse";
        assert_eq!(path(Endpoint::StreamGenerate, "g-1", uri), "/v1beta/models/g-1:streamGenerateContent?alt=sse");
        let uri = "/v1/models/x:generateContent";
        assert_eq!(path(Endpoint::Generate, "a b?c#d", uri), "/v1/models/a%20b%3fc%23d:generateContent");
    }
}
