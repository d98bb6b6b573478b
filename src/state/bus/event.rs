//! What happened: a request started, a request ended.
//!
//! Built on the hot path from what the request holds already: reference counts and numbers, no string is made. Holding
//! an account keeps it (and its credential) in memory until the ring moves on; nothing here prints it.

use crate::base::Dialect;
use crate::base::RequestId;
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

impl Event {
    /// `started` or `completed`.
    pub const fn kind(&self) -> &'static str {
        if self.done.is_some() { "completed" } else { "started" }
    }
}
