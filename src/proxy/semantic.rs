//! Similar questions are answered from memory: who may be, and what is kept on its way out.
//!
//! After `dedup`, before routing; off by default, one instance's own. The scope (caller, path, model, everything of the
//! request but the last user message) must be equal before two questions are compared, so no answer ever reaches another
//! key. Whatever goes wrong here is a miss. A hit costs no tokens and asks no provider; the embedding that may have been
//! bought to find it is accounted for by `embeddings`.

use super::answer::Answer;
use super::settle::Ticket;
use super::{Proxy, Question, attempt, dedup, embeddings, replay};
use crate::base::metrics::METRICS;
use crate::base::tasks::{Drain, Phase};
use crate::base::{Clock, Error};
use crate::config::{SemanticMode, Settings};
use crate::dialect::question::question;
use crate::server::body::{Cut, Ending};
use crate::server::{Body, Source};
use crate::state::answer::{Answer as Kept, Head};
use crate::state::dedup::Asked;
use crate::state::embed::embed;
use crate::state::semantic::{Limits, Scope, Semantic, Vector};
use crate::state::usage::CacheState;
use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::Body as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Vectors and answers kept at most.
const BYTES: usize = 64 << 20;
/// Largest answer kept.
const ANSWER: usize = 8 << 20;
/// Largest request looked at: it is parsed whole, on a data core.
const REQUEST: usize = 256 << 10;
/// How often the expired ones are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// The cache and where its vectors come from.
#[derive(Debug)]
pub struct Similar {
    kept: Semantic,
    /// `provider/model` of an embeddings model; `None`: the built-in one.
    model: Option<Arc<str>>,
}

/// A missed question: where its answer is to be kept.
pub(super) struct Keep {
    similar: Arc<Similar>,
    scope: Scope,
    vector: Vector,
}

impl Similar {
    /// As the settings say; `None` when it is off.
    pub fn new(settings: &Settings) -> Option<Arc<Self>> {
        let model = match &settings.semantic_cache {
            SemanticMode::Off => return None,
            SemanticMode::Builtin => None,
            SemanticMode::Model(name) => Some(Arc::from(name.as_str())),
        };
        let limits =
            Limits { threshold: settings.semantic_cache_threshold, ttl: settings.semantic_cache_ttl, bytes: BYTES };
        Some(Arc::new(Self { kept: Semantic::new(limits), model }))
    }

    /// Forgets what has expired, until the last phase of shutdown. A task of its own.
    pub async fn sweep(self: Arc<Self>, drain: Drain) {
        let end = drain.reached(Phase::Cut);
        tokio::pin!(end);
        while tokio::time::timeout(SWEEP, &mut end).await.is_err() {
            self.kept.sweep(Clock::now());
        }
    }
}

/// Answers from memory or by asking a provider. Off, it costs one branch.
pub(super) async fn answer(proxy: &Proxy, question: &Question, ticket: &mut Ticket) -> Result<Answer, Error> {
    if let Some(similar) = &proxy.shared.semantic {
        // Boxed: rarely on, and its state would ride in every request's future.
        if let Some(kept) = Box::pin(known(similar, proxy, question, ticket)).await {
            ticket.cache = CacheState::Semantic;
            METRICS.semantic_hits.inc();
            return Ok(Answer::Kept(kept));
        }
    }
    attempt::run(proxy, question, ticket).await
}

async fn known(similar: &Arc<Similar>, proxy: &Proxy, question_: &Question, ticket: &mut Ticket) -> Option<Arc<Kept>> {
    let headers = &question_.parts.headers;
    // A key that may no longer ask for this model gets its 403 from routing, not an answer of earlier days.
    if question_.body.len() > REQUEST || !dedup::may_share(ticket) {
        return None;
    }
    let asked = question(question_.endpoint, &question_.body)?;
    let scope = Asked {
        caller: dedup::caller(ticket),
        method: "POST",
        path_and_query: dedup::path(question_),
        versions: &dedup::versions(headers),
        idempotency_key: None,
        catalog_version: proxy.shared.directory.version(),
        body: &[],
    };
    let scope = proxy.shared.fingerprints.scope(&scope, &ticket.requested_model, &asked.rest);
    let vector = match &similar.model {
        None => embed(&asked.text)?,
        Some(model) => embeddings::vector(proxy, model, &asked.text, ticket).await?,
    };
    let found = similar.kept.lookup(&scope, &vector, Clock::now());
    if found.is_none() {
        ticket.keep = Some(Box::new(Keep { similar: Arc::clone(similar), scope, vector }));
    }
    found
}

impl Keep {
    /// Watches `response` on its way out and keeps it once it was whole.
    pub(super) fn watch(self: Box<Self>, response: Response<Body>) -> Response<Body> {
        if !response.status().is_success() || response.body().is_end_stream() {
            return response;
        }
        let (parts, body) = response.into_parts();
        let head = Head { status: parts.status, headers: replay::shared(&parts.headers) };
        let body = if let Some(whole) = body.as_full() {
            if whole.len() <= ANSWER {
                self.store(head, Bytes::copy_from_slice(whole));
            }
            body
        } else {
            Body::stream(Collector { body, keep: Some((self, head)), pieces: Vec::new(), bytes: 0 })
        };
        Response::from_parts(parts, body)
    }

    fn store(self, head: Head, body: Bytes) {
        let answer = Arc::new(Kept { head: Arc::new(head), body });
        self.similar.kept.store(&self.scope, self.vector, answer, Clock::now());
    }
}

/// A body on its way to the client, remembered piece by piece. The pieces are shared, not copied; only a whole answer is
/// copied, into one piece of its own.
struct Collector {
    body: Body,
    /// Until it is kept, or is known not to be.
    keep: Option<(Box<Keep>, Head)>,
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Collector {
    fn give_up(&mut self) {
        self.keep = None;
        self.pieces = Vec::new();
    }

    fn collect(&mut self, data: &Bytes) {
        if self.keep.is_some() {
            self.bytes += data.len();
            self.pieces.push(data.clone());
            if self.bytes > ANSWER {
                self.give_up();
            }
        }
    }

    fn ended(&mut self) {
        let Some((keep, head)) = self.keep.take() else { return };
        let pieces = std::mem::take(&mut self.pieces);
        if self.body.ending() == Ending::Whole {
            let mut whole = BytesMut::with_capacity(self.bytes);
            for piece in &pieces {
                whole.extend_from_slice(piece);
            }
            keep.store(head, whole.freeze());
        }
    }
}

impl Source for Collector {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        let data = frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()));
        match &data {
            Some(Ok(data)) => {
                self.collect(data);
                if self.remaining() == Some(0) {
                    // hyper does not poll again after the last byte of a known length.
                    self.ended();
                }
            }
            Some(Err(_)) => self.give_up(),
            None => self.ended(),
        }
        Poll::Ready(data)
    }

    fn remaining(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    fn ending(&self) -> Ending {
        self.body.ending()
    }
}
