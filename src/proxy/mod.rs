//! One request, one file a step.
//!
//! `handle` reads as the list of steps; each step's result is the next one's argument, so their order can't be broken
//! by accident. No step waits for a store or for another instance. Whatever ends a request, `settle` hears of it once.

mod access;
mod answer;
mod attempt;
mod auth;
mod dedup;
mod demo;
mod elsewhere;
mod embeddings;
mod events;
mod foreign;
mod headers;
mod intake;
mod limit;
mod listing;
mod multipart;
mod relay;
mod replay;
mod semantic;
mod settle;
mod timeline;
mod traces;
mod trial;

use crate::base::ids::RequestIds;
use crate::base::tasks::Drain;
use crate::base::{Clock, Error, ErrorKind, Now, RequestId, spare};
use crate::config::{Settings, StreamUsage};
use crate::dialect::peek::{Peek, peek};
use crate::dialect::{Dialect, Endpoint, estimate};
use crate::routing::Dice;
use crate::server::body::{Answering, Incoming, answered};
use crate::server::{Body, Peer, body};
use crate::state::breakers::Breakers;
use crate::state::buckets::Limits;
use crate::state::budgets::Budgets;
use crate::state::bus::Bus;
use crate::state::catalog::{Catalog, Directory};
use crate::state::dedup::{Claim, Dedup, Elsewhere, Fingerprints};
use crate::state::delta::Delta;
use crate::state::limiter::Limiter;
use crate::state::outbox::Outbox;
use crate::state::unknown_keys::UnknownKeys;
use crate::state::usage::Usage as UsageBook;
use crate::upstream::Client;
pub use access::{AccessLines, LISTING};
use answer::Answer;
use auth::Caller;
use bytes::Bytes;
use http::header::HeaderValue;
use http::request::Parts;
use hyper::{Request, Response};
pub use limit::{dedup_limits, default_limits, limit_policy};
use parking_lot::Mutex;
pub use semantic::Similar;
use settle::Ticket;
use std::ops::Range;
use std::sync::Arc;
pub use traces::Traces;

/// What all cores share.
#[derive(Debug)]
pub struct Shared {
    /// As started with.
    pub settings: Arc<Settings>,
    /// Keys, accounts, virtual models.
    pub directory: Arc<Directory>,
    /// Usage totals and log rows on their way out.
    pub usage: Arc<UsageBook>,
    /// Requests and tokens per minute, requests at once.
    pub limiter: Arc<Limiter>,
    /// Dollars per key.
    pub budgets: Arc<Budgets>,
    /// Calls in flight and finished answers.
    pub dedup: Arc<Dedup>,
    /// Finished answers of other instances.
    pub elsewhere: Elsewhere,
    /// Answers to similar questions; `None`: off.
    pub semantic: Option<Arc<Similar>>,
    /// Makes their fingerprints.
    pub fingerprints: Fingerprints,
    /// The way out to other instances.
    pub outbox: Outbox<Delta>,
    /// What instances count and claim together.
    pub breakers: Breakers,
    /// The limits of who has none of its own.
    pub limits: Limits,
    /// The name that totals of requests without a target go under.
    pub no_model: Arc<str>,
    /// Who comes with API keys that do not exist.
    pub unknown: Arc<UnknownKeys>,
    /// Live events, when anybody watches.
    pub bus: Arc<Bus>,
    /// Where shutdown stands.
    pub drain: Drain,
    /// Takes access lines, if any are wanted.
    pub access: Option<Arc<AccessLines>>,
    /// Takes spans, if traces are on.
    pub traces: Option<Arc<Traces>>,
}

/// The data plane of one core.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    client: Client,
    ids: RequestIds,
    /// The tables last seen: looked at again only when their version moved.
    catalog: Mutex<Arc<Catalog>>,
    dice: Mutex<Dice>,
}

/// What the URL said.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// Where in the path the model stands (Gemini).
    pub model_in_path: Option<Range<usize>>,
}

/// A request whose body has been looked at.
struct Question {
    endpoint: Endpoint,
    parts: Box<Parts>,
    body: Bytes,
    peek: Peek,
    stream: bool,
}

impl Proxy {
    /// A core's data plane.
    pub fn new(shared: Arc<Shared>, client: Client, ids: RequestIds) -> Self {
        let catalog = Mutex::new(shared.directory.catalog());
        let dice = Mutex::new(Dice::new(ids.next().n ^ Clock::now().as_nanos()));
        Self { shared, client, ids, catalog, dice }
    }

    /// Answers one data-plane request.
    pub fn handle(self: &Arc<Self>, asked: Asked, request: Request<Incoming>, peer: Peer) -> Answering {
        let started = Clock::now();
        let id = self.ids.next();
        let (parts, incoming) = request.into_parts();
        // In a box: they go through many hands.
        let parts = Box::new(parts);
        let client_id = intake::client_request_id(&parts.headers);
        let endpoint = asked.endpoint;
        let ticket = match self.admit(started, id, client_id, endpoint, &parts, peer) {
            Ok(ticket) => ticket,
            Err(error) => {
                self.refused(started, id, endpoint.name(), &error, &parts.headers, peer);
                return answered(refusal(endpoint.dialect(), &error, shown_id(&parts.headers, id)));
            }
        };
        Box::pin(Arc::clone(self).steps(asked, parts, incoming, ticket))
    }

    /// Who calls, and whether we read on: from the head alone.
    fn admit(
        &self,
        started: Now,
        id: RequestId,
        client_id: Option<HeaderValue>,
        endpoint: Endpoint,
        parts: &Parts,
        peer: Peer,
    ) -> Result<Box<Ticket>, Error> {
        let caller =
            auth::identify(&parts.headers, parts.uri.query(), endpoint.dialect(), peer, &self.shared, started)?;
        intake::check_content(endpoint, &parts.headers)?;
        let mut ticket = Ticket::open(Arc::clone(&self.shared), id, client_id, caller, endpoint, started);
        ticket.trace = self.shared.traces.as_ref().map(|traces| traces.begin(&parts.headers, id));
        Ok(ticket)
    }

    async fn steps(
        self: Arc<Self>,
        asked: Asked,
        parts: Box<Parts>,
        incoming: Incoming,
        mut ticket: Box<Ticket>,
    ) -> Response<Body> {
        if asked.endpoint == Endpoint::Transcriptions {
            let answer = Box::pin(self.upload(parts, incoming, &mut ticket)).await;
            return finish(answer, ticket, false);
        }
        match self.question(asked, parts, incoming, &mut ticket).await {
            // Rare, and large: its future must not make every request's larger.
            Ok((question, Some(claim))) => Box::pin(dedup::seated(&self, question, ticket, &claim)).await,
            Ok((question, None)) => {
                let answer = semantic::answer(&self, &question, &mut ticket).await;
                let drops_usage = question.inject_usage(&self.shared.settings);
                spare::keep(question.parts.headers);
                finish(answer, ticket, drops_usage)
            }
            Err(error) => answer::refused(&error, ticket),
        }
    }

    async fn question(
        &self,
        asked: Asked,
        parts: Box<Parts>,
        incoming: Incoming,
        ticket: &mut Ticket,
    ) -> Result<(Question, Option<Claim>), Error> {
        let settings = &self.shared.settings;
        let endpoint = asked.endpoint;
        let limit = if endpoint == Endpoint::Speech { settings.max_audio_body_bytes } else { settings.max_body_bytes };
        let body = body::read(incoming, limit, settings.timeouts.stream_idle).await?;
        let peek = peek(&body, endpoint).map_err(Error::from)?;
        let decoded;
        let model: &str = match &asked.model_in_path {
            Some(range) => {
                let raw = parts.uri.path().get(range.clone()).unwrap_or_default();
                decoded = percent_decode(raw)?;
                &decoded
            }
            None => peek.model(&body).ok_or_else(|| Error::malformed("`model` is missing").param("model"))?,
        };
        ticket.requested_model = Arc::from(model);
        ticket.stream = peek.stream.unwrap_or(false) || endpoint == Endpoint::StreamGenerate;
        ticket.estimate = estimate::prompt_tokens(body.len());
        let stream = ticket.stream;
        limit::take(&self.shared, ticket, estimate::reservation(body.len(), peek.max_output)).await?;
        let question = Question { endpoint, parts, body, peek, stream };
        let claim = dedup::claim(self, &question, ticket)?;
        Ok((question, claim))
    }

    fn catalog(&self) -> Arc<Catalog> {
        let version = self.shared.directory.version();
        let mut held = self.catalog.lock();
        if held.version != version {
            *held = self.shared.directory.catalog();
        }
        Arc::clone(&held)
    }

    fn caller(&self, headers: &http::HeaderMap, peer: Peer) -> Result<Caller, Error> {
        auth::identify(headers, None, Dialect::OpenAi, peer, &self.shared, Clock::now())
    }
}

/// The id that a request goes by outside: its client's when that is sane, else ours.
fn shown_id(headers: &http::HeaderMap, id: RequestId) -> HeaderValue {
    intake::client_request_id(headers).unwrap_or_else(|| id.header())
}

/// The step's answer with its ticket in it, or its error with the ticket settled.
fn finish(answer: Result<Answer, Error>, ticket: Box<Ticket>, drops_usage: bool) -> Response<Body> {
    match answer {
        Ok(answer) => answer.into_response(ticket, drops_usage),
        Err(error) => answer::refused(&error, ticket),
    }
}

impl Question {
    /// Whether to ask the provider for a usage chunk that the client did not ask for.
    fn inject_usage(&self, settings: &Settings) -> bool {
        self.stream
            && settings.stream_usage == StreamUsage::Inject
            && matches!(self.endpoint, Endpoint::Chat | Endpoint::Completions)
            && !self.peek.include_usage()
    }
}

fn refusal(dialect: Dialect, error: &Error, shown: HeaderValue) -> Response<Body> {
    let mut response = body::error(dialect, error, shown.to_str().unwrap_or_default());
    response.headers_mut().insert(intake::X_REQUEST_ID.clone(), shown);
    response
}

fn percent_decode(raw: &str) -> Result<String, Error> {
    let bad = || Error::new(ErrorKind::Malformed, "the model in the path is not properly encoded").param("model");
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| (b as char).to_digit(16)).ok_or_else(bad);
        out.push((digit()? * 16 + digit()?) as u8);
    }
    let name = String::from_utf8(out).map_err(|_| bad())?;
    if name.is_empty() || name.len() > 256 || name.chars().any(char::is_control) {
        return Err(bad());
    }
    Ok(name)
}
