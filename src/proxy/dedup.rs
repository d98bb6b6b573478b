//! Identical requests become one call: who leads, who follows, who is answered from memory.
//!
//! Only where the request says so (`Idempotency-Key`, `x-merido-dedup: on`, temperature 0 under `auto`). A leader runs as
//! a task of its own from the start: hyper drops a handler when its client leaves, and the followers must not be cut.
//! When nobody listens any more the task is dropped, and with it the provider's work.

use super::answer::{Answer, refused};
use super::settle::{Outcome, Ticket};
use super::{Proxy, Question, auth, elsewhere, relay, replay, semantic};
use crate::base::metrics::METRICS;
use crate::base::tasks::{Drain, spawn};
use crate::base::{Clock, Error, ErrorKind};
use crate::config::DedupMode;
use crate::dialect::errors::error_event;
use crate::server::body::{Cut, Ending};
use crate::server::{Body, Source};
use crate::state::answer::{Answer as Kept, Head};
use crate::state::dedup::{Asked, Caller, Claim, Follower, Found, Leader, Led, Seat, Step};
use crate::state::usage::CacheState;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{Response, response};
use http_body::Body as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static X_MERIDO_DEDUP: HeaderName = HeaderName::from_static("x-merido-dedup");
/// Longest `Idempotency-Key` taken.
const KEY_MAX: usize = 256;

/// What the leader's own client waits for: the head and a view of the body, or the answer that there is none.
type First = Result<(response::Parts, Option<Follower>), Box<Response<Body>>>;

/// The request's claim, if it is to be shared at all; computed only then.
pub(super) fn claim(proxy: &Proxy, question: &Question, ticket: &Ticket) -> Result<Option<Claim>, Error> {
    let mode = proxy.shared.settings.dedup;
    let headers = &question.parts.headers;
    let wish = headers.get(&X_MERIDO_DEDUP).map(HeaderValue::as_bytes);
    let named = headers.get(&IDEMPOTENCY_KEY);
    let applies = match (mode, wish) {
        (DedupMode::Off, _) | (_, Some(b"off")) => false,
        (DedupMode::All, _) | (_, Some(b"on")) => true,
        (DedupMode::Auto, _) => named.is_some() || question.peek.temperature_is_zero(),
    };
    // Who may not ask gets its refusal from routing.
    if !applies || !may_share(ticket) {
        return Ok(None);
    }
    if named.is_some_and(|key| key.is_empty() || key.len() > KEY_MAX) {
        return Err(Error::malformed("`Idempotency-Key` must have 1 to 256 characters").param("Idempotency-Key"));
    }
    Ok(Some(proxy.shared.fingerprints.claim(&Asked {
        caller: caller(ticket),
        method: "POST",
        path_and_query: path(question),
        versions: &versions(headers),
        idempotency_key: named.map(HeaderValue::as_bytes),
        catalog_version: proxy.catalog().digest,
        body: &question.body,
    })))
}

/// Whether the caller may have this model at all: a kept answer must not outlive that right.
pub(super) fn may_share(ticket: &Ticket) -> bool {
    ticket.caller.key().is_none_or(|key| key.allows(&ticket.requested_model))
}

/// Who asks, as fingerprints name it.
pub(super) fn caller(ticket: &Ticket) -> Caller {
    match &ticket.caller {
        auth::Caller::Key(key) => Caller::Key(key.id),
        auth::Caller::Anonymous(addr) => Caller::Address(*addr),
    }
}

/// Path and query, as the client wrote them.
pub(super) fn path(question: &Question) -> &str {
    question.parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str)
}

/// The headers that choose a version of a dialect.
pub(super) fn versions(headers: &HeaderMap) -> [Option<&[u8]>; 3] {
    ["anthropic-version", "anthropic-beta", "openai-beta"].map(|name| headers.get(name).map(HeaderValue::as_bytes))
}

/// Answers a request that may be shared.
pub(super) async fn seated(
    proxy: &Arc<Proxy>,
    question: Question,
    mut ticket: Box<Ticket>,
    claim: &Claim,
) -> Response<Body> {
    let mut follower = match proxy.shared.dedup.seat(claim, Clock::now()) {
        Seat::Hit(kept) => {
            ticket.cache = CacheState::Dedup;
            return replay::whole(&kept, ticket);
        }
        Seat::Conflict => return refused(&conflict(), ticket),
        Seat::Leader(leader) => return lead(proxy, question, ticket, leader).await,
        Seat::Follower(follower) => follower,
    };
    loop {
        match std::future::poll_fn(|cx| follower.poll_next(cx)).await {
            Some(Step::Head(head)) => {
                ticket.cache = CacheState::Dedup;
                let response = replay::head(&head, &ticket);
                let (status, left) = (head.status.as_u16(), length(&head.headers));
                let events = head.stream();
                let (endpoint, drain) = (question.endpoint, proxy.shared.drain.clone());
                let tail = Tail { follower, ticket: Some(ticket), status, left, endpoint, events, drain };
                return response.map(|()| Body::stream(tail));
            }
            // The leader failed before its first byte: this request makes the call.
            Some(Step::LeaderGone(leader)) => return lead(proxy, question, ticket, leader).await,
            Some(Step::Data(_)) => {}
            Some(Step::Broken) | None => {
                let error = Error::new(ErrorKind::UpstreamFailed, "the call this request was joined to broke off");
                return refused(&relay::cut(&proxy.shared.drain).unwrap_or(error), ticket);
            }
        }
    }
}

fn conflict() -> Error {
    let why = "this `Idempotency-Key` was used for another request; use a new one";
    Error::new(ErrorKind::Unprocessable, why).param("Idempotency-Key")
}

/// Makes the call in a task of its own and answers its client like a follower.
async fn lead(proxy: &Arc<Proxy>, question: Question, ticket: Box<Ticket>, leader: Leader) -> Response<Body> {
    let (first, told) = oneshot::channel();
    let (endpoint, shown) = (question.endpoint, ticket.shown_id.clone());
    spawn("dedup leader", call(Arc::clone(proxy), question, ticket, leader, first));
    let lost = |why| super::refusal(endpoint.dialect(), &Error::internal(why), shown.clone());
    let (parts, follower) = match told.await {
        Ok(Ok(led)) => led,
        Ok(Err(refusal)) => return *refusal,
        Err(_) => return lost("the shared call ended without an answer"),
    };
    let Some(follower) = follower else { return lost("the shared answer can't be followed") };
    let (status, left) = (parts.status.as_u16(), length(&parts.headers));
    let events = Head { status: parts.status, headers: parts.headers.clone() }.stream();
    let mut response = Response::from_parts(parts, Body::empty());
    response.headers_mut().remove(CONTENT_LENGTH);
    let drain = proxy.shared.drain.clone();
    let tail = Tail { follower, ticket: None, status, left, endpoint, events, drain };
    response.map(|_| Body::stream(tail))
}

/// Where a leader's answer comes from.
#[expect(clippy::large_enum_variant, reason = "lives for one step of one call; a box would be an allocation a call")]
enum Made {
    /// Another instance; kept there for so long still.
    Elsewhere(Arc<Kept>, Duration),
    /// From nowhere: on another instance the `Idempotency-Key` was used for something else.
    Conflict,
    /// A call of ours, perhaps made for the whole cluster.
    Here(Result<Answer, Error>, Option<Led>),
}

async fn made(proxy: &Arc<Proxy>, question: &Question, ticket: &mut Ticket, claim: &Claim) -> Made {
    let led = match elsewhere::found(proxy, question, claim).await {
        Found::Answer(kept, left) => return Made::Elsewhere(kept, left),
        Found::Lead(led) => Some(led),
        Found::Conflict => return Made::Conflict,
        Found::Wait(_) | Found::Nothing => None,
    };
    Made::Here(semantic::answer(proxy, question, ticket).await, led)
}

/// The leader's task. The ticket lives here: what the provider did is accounted for whoever still listens.
async fn call(
    proxy: Arc<Proxy>,
    question: Question,
    mut ticket: Box<Ticket>,
    mut leader: Leader,
    mut first: oneshot::Sender<First>,
) {
    let claim = leader.claim();
    let answered = {
        let attempt = made(&proxy, &question, &mut ticket, &claim);
        tokio::pin!(attempt);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(answer) = attempt.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            // The client this was begun for has left, and nobody else came.
            if first.poll_closed(cx).is_ready() && leader.poll_deserted(cx).is_ready() {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await
    };
    let (response, led, left) = match answered {
        None => return,
        Some(Made::Elsewhere(kept, left)) => {
            METRICS.dedup_shared_hits.inc();
            ticket.cache = CacheState::Dedup;
            (replay::whole(&kept, ticket), None, Some(left))
        }
        Some(Made::Conflict) => {
            leader.disown();
            let _ = first.send(Err(Box::new(refused(&conflict(), ticket))));
            return leader.fail();
        }
        Some(Made::Here(Err(error), _)) => {
            // First our own client, then the next in line: it must not wait for the lead it is about to give away.
            let _ = first.send(Err(Box::new(refused(&error, ticket))));
            return leader.fail();
        }
        Some(Made::Here(Ok(answer), led)) => {
            (answer.into_response(ticket, question.inject_usage(&proxy.shared.settings)), led, None)
        }
    };
    let (mut parts, mut body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    leader.head(Head { status: parts.status, headers: replay::shared(&parts.headers) });
    let _ = first.send(Ok((parts, leader.tail())));
    loop {
        let frame = std::future::poll_fn(|cx| {
            if let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(cx) {
                return Poll::Ready(Some(frame));
            }
            leader.poll_deserted(cx).map(|()| None)
        });
        match frame.await {
            Some(Some(Ok(frame))) => {
                if body.ending() == Ending::Broken {
                    // Its last chunk says so in the leader's words; each listener is told in its own.
                    return leader.fail();
                }
                if let Ok(data) = frame.into_data() {
                    leader.push(data);
                }
            }
            Some(None) if body.ending() == Ending::Whole => {
                match left {
                    Some(left) => drop(leader.finish_for(Clock::now(), left)),
                    None => {
                        if let Some(kept) = leader.finish(Clock::now()) {
                            proxy.shared.elsewhere.keep(claim.fingerprint, &kept);
                        }
                    }
                }
                return led.into_iter().for_each(Led::finish);
            }
            Some(None) => {
                leader.finish_unkept();
                return led.into_iter().for_each(Led::finish);
            }
            Some(Some(Err(_))) | None => return leader.fail(),
        }
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A shared body on its way to one client.
struct Tail {
    follower: Follower,
    /// A follower's; the leader's own client has none, its task settles.
    ticket: Option<Box<Ticket>>,
    status: u16,
    left: Option<u64>,
    endpoint: crate::dialect::Endpoint,
    events: bool,
    drain: Drain,
}

impl Source for Tail {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let nothing = crate::dialect::usage::Usage::default();
        let mut step = std::task::ready!(self.follower.poll_next(cx));
        if matches!(step, Some(Step::Head(_))) {
            // The leader's own client has its head already.
            step = std::task::ready!(self.follower.poll_next(cx));
        }
        let whole = match step {
            Some(Step::Data(data)) => {
                if let Some(left) = &mut self.left {
                    *left = left.saturating_sub(data.len() as u64);
                }
                if self.left == Some(0)
                    && let Some(ticket) = self.ticket.take()
                {
                    // hyper does not poll again after the last byte of a known length.
                    ticket.done(self.status, Some(nothing), 0);
                }
                return Poll::Ready(Some(Ok(data)));
            }
            None => true,
            Some(_) => false,
        };
        if whole {
            if let Some(ticket) = self.ticket.take() {
                ticket.done(self.status, Some(nothing), 0);
            }
            return Poll::Ready(None);
        }
        let broke = || Error::new(ErrorKind::UpstreamFailed, "the provider broke off in the middle of its answer");
        // The leader's end has no reason with it; at shutdown all of them end for the same one.
        let error = relay::cut(&self.drain).unwrap_or_else(broke);
        if let Some(mut ticket) = self.ticket.take() {
            let code = error.kind.code();
            ticket.outcome = Outcome::Broken { error: code, usage: Some(nothing), completion_estimate: 0 };
        }
        Poll::Ready(Some(if self.events { Ok(error_event(self.endpoint, &error)) } else { Err(Cut) }))
    }

    fn remaining(&self) -> Option<u64> {
        self.left
    }
}
