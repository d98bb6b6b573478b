//! From plan to answer: pick a target, send, judge, take the next; until a provider's first byte is on its way out.
//!
//! Before that byte a failure costs the client nothing but time: the next target is asked. After it there is no second
//! try. What a failure means is decided in `routing/verdict`; here it is only carried out.

use super::answer::Answer;
use super::headers::Outgoing;
use super::multipart::Form;
use super::settle::Ticket;
use super::{Proxy, Question, demo, foreign, limit, trial};
use crate::base::metrics::METRICS;
use crate::base::tasks::Phase;
use crate::base::{AccountId, Clock, Error, ErrorKind, Now};
use crate::dialect::splice::splice;
use crate::dialect::{Dialect, Endpoint};
use crate::routing::{Failure, Judge, Next, Pick, Plan, Target, Tried, Verdict, pick, resolve};
use crate::state::catalog::Account;
use crate::state::rest::Penalty;
use crate::upstream::{Call, CallBody, CallError, CallErrorKind, Deadline, Reply};
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use std::borrow::Cow;
use std::task::Poll;
use std::time::Duration;

/// The built-in demo's account.
const DEMO: AccountId = AccountId(0);
/// How much of a provider's error is read to judge it and pass it on.
const ERROR_BODY: usize = 64 << 10;
/// How long a provider may take over its error's body.
const ERROR_BODY_WAIT: Duration = Duration::from_secs(5);

/// Asks the targets of the question's model in turn, until shutdown cuts: whoever still waits for a first byte then gets
/// an answer instead of a dead socket. The core's ticker wakes every call when the phase changes.
pub(super) async fn run(proxy: &Proxy, question: &Question, ticket: &mut Ticket) -> Result<Answer, Error> {
    let drain = &proxy.shared.drain;
    let mut asking = std::pin::pin!(ask(proxy, question, ticket));
    std::future::poll_fn(|cx| {
        if drain.phase() >= Phase::Cut {
            return Poll::Ready(Err(Error::new(ErrorKind::Overloaded, "the gateway is shutting down")));
        }
        asking.as_mut().poll(cx)
    })
    .await
}

async fn ask(proxy: &Proxy, question: &Question, ticket: &mut Ticket) -> Result<Answer, Error> {
    let plan = plan(proxy, ticket)?;
    let dialect = question.endpoint.dialect();
    let (mut tried, mut failures) = (Tried::default(), Failures::default());
    loop {
        let (picked, trial, now) = trial::next(proxy, &plan, &mut tried).await;
        let refusal = picked.refusal(now);
        let Pick::Go(target, _) = picked else { return failures.into_answer(refusal) };
        limit::hold_budget(proxy, ticket, &target).await?;
        if target.account().id == DEMO {
            ticket.begin(target);
            return demo::answer(question, ticket).map(Answer::Demo);
        }
        let failed = if target.account().provider.dialect == dialect {
            ticket.begin(target.clone());
            match send(proxy, question, &target, ticket).await {
                Ok(reply) if reply.status.is_success() => {
                    ticket.first_byte = Some(ticket.ours_since);
                    settle_success(proxy, &target, now, ticket.ours_since);
                    return Ok(Answer::Reply(reply));
                }
                Ok(reply) => Failed::read(reply, &target).await,
                Err(error) => Failed::Call(error),
            }
        } else if question.endpoint == Endpoint::CountTokens {
            return foreign::count(question);
        } else {
            // Rare, and large: its future must not make every request's larger.
            match Box::pin(foreign::ask(proxy, question, &target, ticket)).await {
                Ok(answer) => {
                    ticket.first_byte = Some(ticket.ours_since);
                    settle_success(proxy, &target, now, ticket.ours_since);
                    return Ok(answer);
                }
                Err(foreign::Missed::Failed(failed)) => *failed,
                Err(foreign::Missed::Unsaid(error)) => {
                    failures.foreign = Some(Box::new(error));
                    continue;
                }
            }
        };
        let verdict = failed.judge(proxy, &target, question.stream);
        settle_failure(proxy, &target, &verdict, now);
        ticket.timeline.add(&target, &failed, now, Clock::now(), ticket.started);
        // Only now: a half-open account must see the verdict before the next attempt may probe it.
        drop(trial);
        ticket.running = None;
        tracing::debug!(request = %ticket.id, account = &*target.account().label, ?verdict, "an attempt failed");
        match verdict.next {
            Next::Retry => failures.add(failed, verdict),
            Next::Pass | Next::Stop(_) | Next::Drop => return failed.into_answer(&verdict),
        }
    }
}

/// Relays an upload to the first target: what was sent can't be sent again.
pub(super) async fn upload(proxy: &Proxy, parts: &Parts, form: Form, ticket: &mut Ticket) -> Result<Answer, Error> {
    let plan = plan(proxy, ticket)?;
    let (mut tried, mut failures) = (Tried::default(), Failures::default());
    let (picked, trial, now) = trial::next(proxy, &plan, &mut tried).await;
    let refusal = picked.refusal(now);
    let Pick::Go(target, _) = picked else { return failures.into_answer(refusal) };
    if target.account().provider.dialect != Dialect::OpenAi || target.account().id == DEMO {
        let (model, name) = (&ticket.requested_model, ticket.endpoint.name());
        let dialect = ticket.endpoint.dialect().name();
        let message = format!(
            "`{model}` is not served by a provider that speaks {dialect}; others have no counterpart of {name}."
        );
        return Err(Error::malformed(message).param("model"));
    }
    limit::hold_budget(proxy, ticket, &target).await?;
    ticket.begin(target.clone());
    let (body, length) = form.for_model(target.model.name());
    let body = CallBody::Stream(Box::pin(body), length);
    let failed = match call(proxy, parts, &target, ticket, body, false).await {
        Ok(reply) if reply.status.is_success() => {
            ticket.first_byte = Some(ticket.ours_since);
            settle_success(proxy, &target, now, ticket.ours_since);
            return Ok(Answer::Reply(reply));
        }
        Ok(reply) => Failed::read(reply, &target).await,
        Err(error) => Failed::Call(error),
    };
    let verdict = failed.judge(proxy, &target, false);
    settle_failure(proxy, &target, &verdict, now);
    ticket.timeline.add(&target, &failed, now, Clock::now(), ticket.started);
    drop(trial);
    if verdict.next != Next::Retry {
        return failed.into_answer(&verdict);
    }
    failures.add(failed, verdict);
    // Not to send it again, but to say when its client may.
    let now = Clock::now();
    let refusal = pick(&plan, &mut tried, &mut proxy.dice.lock(), now).refusal(now);
    failures.into_answer(refusal)
}

fn plan(proxy: &Proxy, ticket: &Ticket) -> Result<Plan, Error> {
    resolve(&proxy.catalog(), ticket.caller.key().map(|key| &**key), &ticket.requested_model)
}

/// What a request's attempts came to, for its client to read when there is no target (left).
#[derive(Default)]
struct Failures {
    /// The last one that did not just rest its target.
    kept: Option<Box<(Failed, Verdict)>>,
    /// Those that answered with something to rest for: the shortest rest, and whether all were limits.
    rested: Option<(Duration, bool)>,
    /// A target was passed over: this can't be said in its dialect.
    foreign: Option<Box<Error>>,
}

impl Failures {
    fn add(&mut self, failed: Failed, verdict: Verdict) {
        match verdict.penalty {
            Penalty::LockModel(cost) => {
                let (wait, limits) = self.rested.unwrap_or((Duration::MAX, true));
                self.rested = Some((wait.min(cost.named.unwrap_or(cost.base)), limits && cost.reason.is_limit()));
            }
            _ => self.kept = Some(Box::new((failed, verdict))),
        }
    }

    /// `refusal`: every target rests now.
    fn into_answer(self, refusal: Option<Error>) -> Result<Answer, Error> {
        if let Some((failed, verdict)) = self.kept.map(|kept| *kept) {
            let when = refusal.and_then(|refusal| refusal.retry_after);
            return failed.into_answer(&verdict).map_err(|error| Error { retry_after: when, ..error });
        }
        Err(match (refusal, self.rested) {
            (Some(refusal), _) => refusal,
            // A model that nobody rests for (its name is the caller's), a rest that is over, or no attempts left.
            (None, Some((wait, true))) => {
                Error::new(ErrorKind::RateLimited, "The providers' limits are reached on every account asked.")
                    .retry_after(wait)
            }
            (None, None) if let Some(foreign) = self.foreign => *foreign,
            (None, _) => Error::new(ErrorKind::Unavailable, "no account can serve this model now"),
        })
    }
}

pub(super) fn settle_success(proxy: &Proxy, target: &Target, started: Now, now: Now) {
    METRICS.upstream_ok.inc();
    target.answered(now.since(started), now);
    for delta in target.seat.live.succeed(target.model.id(), started, now).into_iter().flatten() {
        proxy.shared.outbox.tell(delta);
    }
}

pub(super) fn settle_failure(proxy: &Proxy, target: &Target, verdict: &Verdict, started: Now) {
    let now = Clock::now();
    if verdict.next == Next::Pass {
        METRICS.upstream_refused.inc();
    } else {
        METRICS.upstream_failed.inc();
        target.failed(now);
    }
    let outcome = target.seat.live.punish(&verdict.penalty, target.model.id(), started, now);
    match (outcome.delta, &verdict.penalty) {
        (Some(delta), _) => proxy.shared.outbox.tell(delta),
        // Too few here; perhaps not together with the others'.
        (None, Penalty::CountFailure(breaker)) if outcome.failures > 0 => {
            proxy.shared.breakers.failed(target.account().id, breaker, started);
        }
        (None, _) => {}
    }
}

// Not `async`: a future within a future is moved whole, and counted twice.
fn send<'a>(
    proxy: &'a Proxy,
    question: &'a Question,
    target: &'a Target,
    ticket: &'a mut Ticket,
) -> impl Future<Output = Result<Reply, CallError>> + Send + 'a {
    let inject = question.inject_usage(&proxy.shared.settings);
    let pieces = splice(&question.body, &question.peek, Some(target.model.name()), inject);
    call(proxy, &question.parts, target, ticket, CallBody::Pieces(pieces), question.stream)
}

/// Asks `target` at the endpoint that the ticket names.
pub(super) async fn call(
    proxy: &Proxy,
    parts: &Parts,
    target: &Target,
    ticket: &mut Ticket,
    body: CallBody,
    stream: bool,
) -> Result<Reply, CallError> {
    let account: &Account = target.account();
    let timeouts = &proxy.shared.settings.timeouts;
    let foreign = ticket.asked_at != ticket.endpoint;
    let path = if foreign {
        Cow::Owned(foreign::path(ticket.asked_at, target.model.name()))
    } else {
        path(ticket.endpoint, target.model.name(), parts)
    };
    let (client, request_id, trace) = (&parts.headers, &ticket.shown_id, ticket.trace);
    let outgoing = Outgoing { client, account, request_id, trace, foreign };
    let asked = Clock::now();
    ticket.overhead += asked.since(ticket.ours_since);
    let mut call = Call {
        base: &account.base,
        http2: account.provider.http2,
        method: &Method::POST,
        path: &path,
        headers: &outgoing,
        body,
        asked,
        first_byte: if stream { timeouts.first_byte_stream } else { timeouts.first_byte },
        idle: timeouts.stream_idle,
    };
    let reply = proxy.client.send(&mut call).await;
    ticket.ours_since = Clock::now();
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
pub(super) fn encode(name: &str) -> String {
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
pub(super) enum Failed {
    Refused { status: StatusCode, headers: HeaderMap, body: Bytes, dialect: Dialect },
    Call(CallError),
}

impl Failed {
    /// Reads a refusal's body, bounded in size and time.
    pub(super) async fn read(mut reply: Reply, target: &Target) -> Self {
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
        let dialect = target.account().provider.dialect;
        Self::Refused { status: reply.status, headers: reply.headers, body: body.freeze(), dialect }
    }

    pub(super) fn judge(&self, proxy: &Proxy, target: &Target, stream: bool) -> Verdict {
        let judge = Judge {
            settings: &proxy.shared.settings.breaker,
            dialect: target.account().provider.dialect,
            known: target.model.known().is_some(),
            unix_ms: Clock::unix_ms(),
        };
        judge.judge(&match self {
            Self::Refused { status, headers, body, .. } => Failure::Answer { status: status.as_u16(), headers, body },
            Self::Call(error) => match error.kind {
                CallErrorKind::Connect | CallErrorKind::Tls | CallErrorKind::Timeout(Deadline::Connect) => {
                    Failure::Connect
                }
                CallErrorKind::Timeout(Deadline::FirstByte) => Failure::FirstByteTimeout { stream },
                CallErrorKind::Timeout(Deadline::Idle) => Failure::IdleTimeout { stream },
                CallErrorKind::Closed | CallErrorKind::Truncated | CallErrorKind::Io => Failure::Closed,
                CallErrorKind::Protocol(_) => Failure::Protocol,
                CallErrorKind::ClientBody => Failure::ClientLeft,
            },
        })
    }

    /// What the client gets of it. A refusal that speaks of our own account is ours to explain, not the client's.
    fn into_answer(self, verdict: &Verdict) -> Result<Answer, Error> {
        match (self, verdict.next) {
            (Self::Refused { status, headers, body, dialect }, next) if verdict.relay || next == Next::Pass => {
                match status.as_u16() {
                    500.. => Err(failed(status)),
                    _ => Ok(Answer::Refusal { status, headers, body, dialect }),
                }
            }
            (Self::Refused { status, .. }, _) => Err(failed(status)),
            (Self::Call(error), next) => Err(match (error.kind, next) {
                (CallErrorKind::Timeout(Deadline::FirstByte | Deadline::Idle), _) | (_, Next::Stop(_)) => {
                    Error::new(ErrorKind::UpstreamTimeout, "the provider did not answer in time")
                }
                (CallErrorKind::ClientBody, _) => Error::malformed("the request body broke off"),
                (CallErrorKind::Protocol(why), _) => {
                    Error::new(ErrorKind::UpstreamFailed, format!("the provider's answer can't be read: {why}"))
                }
                _ => Error::new(ErrorKind::UpstreamFailed, "the provider can't be reached"),
            }),
        }
    }
}

fn failed(status: StatusCode) -> Error {
    let message = match status.as_u16() {
        401 | 403 => "the provider refused the gateway's own credentials".into(),
        402 | 429 => "the gateway's own account with the provider is exhausted".into(),
        code => format!("the provider failed (status {code})").into(),
    };
    Error { kind: ErrorKind::UpstreamFailed, message, param: None, retry_after: None }
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
