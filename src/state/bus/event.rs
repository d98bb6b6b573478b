//! What happened: a request started, a request ended.
//!
//! Built on the hot path from what the request holds already: reference counts and numbers, no string is made. Holding
//! an account keeps it (and its credential) in memory until the ring moves on; nothing here prints it. What leaves this
//! memory (JSON, other instances) sees an event as a [`View`]: names and numbers, nothing secret.

use super::far::FarEvent;
use crate::base::Dialect;
use crate::base::{KeyId, RequestId};
use crate::state::catalog::{Account, Key};
use crate::state::usage::CacheState;
use std::sync::Arc;

/// One event. `started` until it is [`Event::done`].
#[derive(Clone, Debug)]
pub struct Event {
    /// Joins `started` and `completed`.
    pub request: RequestId,
    /// Unix time in milliseconds.
    pub unix_ms: u64,
    /// What the client called the request.
    pub client_request_id: Option<Arc<str>>,
    /// Who asked; `None`: nobody we know.
    pub key: Option<Arc<Key>>,
    /// What the client speaks.
    pub dialect: Dialect,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// The model as the client wrote it.
    pub requested_model: Arc<str>,
    /// Who answers, once known.
    pub account: Option<Arc<Account>>,
    /// The model's name at the provider, once known.
    pub model: Option<Arc<str>>,
    /// Set when it ended.
    pub done: Option<Done>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Done {
    /// Status the client got; 499 when it left before one.
    pub status: u16,
    /// Where the answer came from.
    pub cache: CacheState,
    /// Upstream calls made.
    pub attempts: u16,
    /// What was used.
    pub tokens: Tokens,
    /// Nanodollars; `None`: no price known.
    pub cost_nanos: Option<u64>,
    /// From the request's head to the answer's last byte.
    pub latency_micros: u64,
    /// To the answer's first byte; `None`: there was none.
    pub first_byte_micros: Option<u64>,
    /// Time of ours in it.
    pub overhead_micros: u64,
    /// A code of [`crate::base::ErrorKind`] or of a relay's end (`client_gone`).
    pub error: Option<&'static str>,
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// All of the prompt.
    pub prompt: u32,
    /// All of the answer.
    pub completion: u32,
    /// Of the prompt: read from the provider's cache.
    pub cache_read: u32,
    /// Of the prompt: written to the provider's cache.
    pub cache_write: u32,
    /// Of the answer: reasoning.
    pub reasoning: u32,
}

/// An event of this instance, or of another.
#[derive(Clone, Debug)]
pub enum Item {
    /// Happened here.
    Own(Arc<Event>),
    /// Another instance said so.
    Far(Arc<FarEvent>),
}

/// All that is shown of an event, whoever's it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View<'a> {
    /// The name of the instance where it happened.
    pub instance: &'a str,
    /// See [`Event::request`].
    pub request: RequestId,
    /// See [`Event::unix_ms`].
    pub unix_ms: u64,
    /// See [`Event::client_request_id`].
    pub client_request_id: Option<&'a str>,
    /// The key's id and name.
    pub key: Option<(KeyId, &'a str)>,
    /// What the client speaks.
    pub dialect: &'a str,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// The model as the client wrote it.
    pub requested_model: &'a str,
    /// Provider and label of the account.
    pub account: Option<(&'a str, &'a str)>,
    /// The model's name at the provider.
    pub model: Option<&'a str>,
    /// Set when it ended.
    pub done: Option<DoneView<'a>>,
}

/// All that is shown of an end; see [`Done`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields of `Done`")]
pub struct DoneView<'a> {
    pub status: u16,
    pub cache: &'a str,
    pub attempts: u16,
    pub tokens: Tokens,
    pub cost_nanos: Option<u64>,
    pub latency_micros: u64,
    pub first_byte_micros: Option<u64>,
    pub overhead_micros: u64,
    pub error: Option<&'a str>,
}

impl Event {
    /// What is shown of it; `instance` is our name.
    pub fn view<'a>(&'a self, instance: &'a str) -> View<'a> {
        View {
            instance,
            request: self.request,
            unix_ms: self.unix_ms,
            client_request_id: self.client_request_id.as_deref(),
            key: self.key.as_ref().map(|key| (key.id, &*key.name)),
            dialect: self.dialect.name(),
            stream: self.stream,
            requested_model: &self.requested_model,
            account: self.account.as_ref().map(|account| (&*account.provider.name, &*account.label)),
            model: self.model.as_deref(),
            done: self.done.as_ref().map(Done::view),
        }
    }
}

impl Done {
    fn view(&self) -> DoneView<'_> {
        DoneView {
            status: self.status,
            cache: self.cache.name(),
            attempts: self.attempts,
            tokens: self.tokens,
            cost_nanos: self.cost_nanos,
            latency_micros: self.latency_micros,
            first_byte_micros: self.first_byte_micros,
            overhead_micros: self.overhead_micros,
            error: self.error,
        }
    }
}

impl Item {
    /// What is shown of it; `instance` is our name.
    pub fn view<'a>(&'a self, instance: &'a str) -> View<'a> {
        match self {
            Self::Own(event) => event.view(instance),
            Self::Far(event) => event.view(),
        }
    }
}

impl View<'_> {
    /// `started` or `completed`.
    pub const fn kind(&self) -> &'static str {
        if self.done.is_some() { "completed" } else { "started" }
    }
}
