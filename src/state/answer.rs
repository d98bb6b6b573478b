//! A whole answer as a client got it: what `dedup` and `semantic` keep and replay.
//!
//! Immutable once made, shared by reference count. Holds no header that belongs to one connection: whoever makes a
//! [`Head`] leaves those out.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;

/// What an answer costs beside its body: table entries, reference counts, the header map's own memory.
const OVERHEAD: usize = 512;

/// Status and headers: what goes out before the first byte of a body.
#[derive(Debug, PartialEq)]
pub struct Head {
    /// The status.
    pub status: StatusCode,
    /// End-to-end headers only.
    pub headers: HeaderMap,
}

/// A complete answer.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// Status and headers.
    pub head: Arc<Head>,
    /// The whole body in one piece of its own: a slice of a read buffer would pin the whole buffer.
    pub body: Bytes,
}

impl Head {
    /// Whether the body is a stream of events: a replay may then not carry `content-length`.
    pub fn stream(&self) -> bool {
        const EVENTS: &[u8] = b"text/event-stream";
        self.headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().get(..EVENTS.len()).is_some_and(|k| k.eq_ignore_ascii_case(EVENTS)))
    }
}

impl Answer {
    /// Bytes of memory it takes, roughly; what byte caps count.
    pub fn bytes(&self) -> usize {
        let headers: usize =
            self.head.headers.iter().map(|(name, value)| name.as_str().len() + value.as_bytes().len() + 64).sum();
        OVERHEAD + headers + self.body.len()
    }
}
