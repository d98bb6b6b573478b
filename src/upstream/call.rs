//! The words of a call: what goes to a provider, what comes back, what can go wrong.
//!
//! No I/O here. A [`CallError`] tells `routing/verdict` what it needs: what broke, and whether the provider may have
//! seen the request. It never holds a header's value, so it may be logged.

use crate::base::{Now, Pieces};
use crate::state::catalog::BaseUrl;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

/// One request to a provider.
pub struct Call<'a> {
    /// Where.
    pub base: &'a BaseUrl,
    /// Over HTTP/2 (the provider's setting; never guessed).
    pub http2: bool,
    /// The method.
    pub method: &'a Method,
    /// What follows `base.path`, query included.
    pub path: &'a str,
    /// Everything but the headers that frame the message; see [`Headers`].
    pub headers: &'a dyn Headers,
    /// The body.
    pub body: CallBody,
    /// When it was asked: its first deadline counts from here.
    pub asked: Now,
    /// From the request's last byte to the answer's head at most.
    pub first_byte: Duration,
    /// Silence within the answer's body (or of a provider that does not take our body) at most.
    pub idle: Duration,
}

/// The request's headers, written straight to where they go: lines of HTTP/1.1 or a header map of HTTP/2.
///
/// `host`, `content-length` and every hop-by-hop header are the codec's own: put here, they are left out in silence, so
/// that no caller's header can frame a request. A name or value that cannot stand in a header fails the call before
/// anything is sent. Visited again when the call is repeated on a fresh connection.
pub trait Headers: Sync {
    /// Calls `put(name, value)` for each.
    fn visit(&self, put: &mut dyn FnMut(&str, &[u8]));
}

/// What a streamed body of a client may fail with.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body that is relayed while it arrives.
pub type BodyStream = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send + Sync>>;

/// A request's body.
pub enum CallBody {
    /// All there.
    Pieces(Pieces),
    /// Relayed as it comes; chunked when its length is unknown. Read only as fast as the provider takes it.
    Stream(BodyStream, Option<u64>),
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status; never 1xx.
    pub status: StatusCode,
    /// Its end-to-end headers: `connection` (with what it names), `transfer-encoding` and their like are taken out;
    /// `content-length` stays. Values are slices of one buffer.
    pub headers: HeaderMap,
    /// Its body.
    pub body: super::ReplyBody,
    /// It came over a connection that had served before.
    pub reused: bool,
}

/// Why there is no answer, or no more of it.
#[derive(Debug)]
pub struct CallError {
    /// What broke.
    pub kind: CallErrorKind,
    /// Any byte of the request was handed to the kernel: the provider may have acted on it.
    pub sent: bool,
    /// The error below, where there is one.
    pub cause: Option<BodyError>,
}

/// What broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallErrorKind {
    /// No address, or none took the connection.
    Connect,
    /// The handshake failed: wrong certificate, wrong host, wrong protocol.
    Tls,
    /// A deadline passed.
    Timeout(Deadline),
    /// The connection ended before any byte of the answer.
    Closed,
    /// The connection ended in the middle of the answer.
    Truncated,
    /// The other side (or, with `sent` false, our own header) broke HTTP's rules; says which.
    Protocol(&'static str),
    /// The connection broke.
    Io,
    /// The client's own body broke off.
    ClientBody,
}

/// Which deadline passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deadline {
    /// Name, connection and handshake.
    Connect,
    /// The answer's head.
    FirstByte,
    /// The next byte.
    Idle,
}

impl CallError {
    pub(super) const fn new(kind: CallErrorKind, sent: bool) -> Self {
        Self { kind, sent, cause: None }
    }

    pub(super) fn because(kind: CallErrorKind, sent: bool, cause: impl Into<BodyError>) -> Self {
        Self { kind, sent, cause: Some(cause.into()) }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            CallErrorKind::Connect => "cannot connect",
            CallErrorKind::Tls => "TLS handshake failed",
            CallErrorKind::Timeout(Deadline::Connect) => "connecting took too long",
            CallErrorKind::Timeout(Deadline::FirstByte) => "no answer in time",
            CallErrorKind::Timeout(Deadline::Idle) => "silent for too long",
            CallErrorKind::Closed => "closed without an answer",
            CallErrorKind::Truncated => "closed in the middle of the answer",
            CallErrorKind::Protocol(what) => what,
            CallErrorKind::Io => "connection broke",
            CallErrorKind::ClientBody => "the client's body broke off",
        })?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CallError {}

impl fmt::Debug for CallBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pieces(pieces) => write!(f, "Pieces({} bytes)", pieces.len()),
            Self::Stream(_, length) => write!(f, "Stream({length:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_keep_order_and_total_beyond_their_number() {
        let all: Vec<Bytes> = (0..12u8).map(|n| Bytes::from(vec![n; 3])).collect();
        let pieces: Pieces = all.iter().cloned().chain([Bytes::new()]).collect();
        assert_eq!(pieces.as_slice().len(), Pieces::MOST);
        assert_eq!(pieces.as_slice().concat(), all.concat());
        assert_eq!(pieces.len(), 36);
    }
}
