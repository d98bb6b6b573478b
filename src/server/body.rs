//! Bodies: what we send, how much of a client's we take, and the one place where an error becomes HTTP.
//!
//! A reply that is whole is one frame, written with its head in one system call. A streamed one is a [`Source`] polled
//! by hyper; when it breaks after its head has gone out, the connection is cut, so no client takes half for whole.

use super::conn_state::Busy;
pub use super::incoming::Incoming;
use crate::base::{Error, ErrorKind};
use crate::dialect::Dialect;
use crate::dialect::errors::error_body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{Response, StatusCode};
use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A streamed reply.
pub trait Source: Send {
    /// What is there now; `Err` cuts the connection.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>>;

    /// Bytes still to come, when that is known: becomes `content-length`.
    fn remaining(&self) -> Option<u64> {
        None
    }

    /// How it ended; asked after its last chunk.
    fn ending(&self) -> Ending {
        Ending::Whole
    }
}

/// How a reply ended, for those who keep answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All of it went out.
    Whole,
    /// It stopped cleanly, but its last word (`[DONE]`, `message_stop`, …) was missing: an answer for whom it was made,
    /// not one to keep.
    Unsaid,
    /// It broke off, even if its last chunk was a well-formed error event.
    Broken,
}

/// A reply broke after its head had gone out.
#[derive(Debug, Clone, Copy)]
pub struct Cut;

/// What we answer with.
pub struct Body {
    kind: Kind,
    /// Dropped with the body: marks the connection idle again.
    guard: Option<Box<dyn Any + Send>>,
    busy: Option<Busy>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Stream(Box<dyn Source>),
    /// The connection itself goes on with it.
    Elsewhere,
}

impl Body {
    /// Nothing.
    pub fn empty() -> Self {
        Self { kind: Kind::Empty, guard: None, busy: None }
    }

    /// All there is.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { kind: if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) }, guard: None, busy: None }
    }

    /// As it comes.
    pub fn stream(source: impl Source + 'static) -> Self {
        Self { kind: Kind::Stream(Box::new(source)), guard: None, busy: None }
    }

    /// The bytes, where it is all there and nothing was sent yet.
    pub fn as_full(&self) -> Option<&Bytes> {
        match &self.kind {
            Kind::Full(bytes) => Some(bytes),
            Kind::Empty | Kind::Stream(_) | Kind::Elsewhere => None,
        }
    }

    /// How it ended; only after its last frame does that mean anything.
    pub fn ending(&self) -> Ending {
        match &self.kind {
            Kind::Empty | Kind::Full(_) | Kind::Elsewhere => Ending::Whole,
            Kind::Stream(source) => source.ending(),
        }
    }

    /// Drops `guard` when the body has been sent or given up.
    #[must_use]
    pub fn guarded(mut self, guard: impl Send + 'static) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }

    /// Whether it is streamed, and nobody knows how long.
    pub(super) fn is_endless(&self) -> bool {
        matches!(&self.kind, Kind::Stream(source) if source.remaining().is_none())
    }

    /// Leaves hyper, if it may, for the connection to go on with; hyper waits for nothing then.
    fn leave(&mut self) {
        if let Some(Busy::Only(only)) = &self.busy
            && let Some(state) = only.takes_streams()
        {
            let gone = Self { kind: Kind::Elsewhere, guard: None, busy: None };
            state.handover.put(std::mem::replace(self, gone));
        }
    }

    pub(super) fn busy(mut self, busy: Busy) -> Self {
        self.busy = Some(busy);
        self
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Empty => f.write_str("Body(empty)"),
            Kind::Full(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Kind::Stream(_) => f.write_str("Body(stream)"),
            Kind::Elsewhere => f.write_str("Body(elsewhere)"),
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reply broke off")
    }
}

impl std::error::Error for Cut {}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(Busy::Stream(stream)) = &self.busy {
            stream.wanted();
        }
        let polled = match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Stream(source) => {
                let polled = source.poll_chunk(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)));
                if polled.is_pending() {
                    self.leave();
                }
                polled
            }
            Kind::Elsewhere => Poll::Pending,
        };
        if let (Some(Busy::Stream(stream)), Poll::Ready(Some(_))) = (&self.busy, &polled) {
            stream.gave();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(source) => source.remaining().map_or_else(SizeHint::new, SizeHint::with_exact),
            Kind::Elsewhere => SizeHint::new(),
        }
    }
}

/// Room made at once for a body that was announced: nearly every prompt, images aside.
const RESERVED: u64 = 1 << 20;

/// Reads a client's body whole. More than `limit` bytes → 413 before they are buffered; `idle` of silence → 408.
pub async fn read(mut body: Incoming, limit: u64, idle: Duration) -> Result<Bytes, Error> {
    let announced = body.size_hint();
    if announced.lower() > limit {
        return Err(too_large(limit));
    }
    let Some(first) = frame(&mut body, idle).await? else { return Ok(Bytes::new()) };
    // The usual case: a small body that came with its head. No copy.
    if announced.exact() == Some(first.len() as u64) {
        return Ok(first);
    }
    // The announced length is a promise of the client's: room for more than this is made as bytes come, which copies what
    // has come. What is only reserved is not resident.
    let mut whole = BytesMut::with_capacity((announced.lower().min(RESERVED) as usize).max(first.len()));
    let mut next = Some(first);
    while let Some(data) = next {
        if whole.len() as u64 + data.len() as u64 > limit {
            return Err(too_large(limit));
        }
        whole.extend_from_slice(&data);
        if announced.exact() == Some(whole.len() as u64) {
            break;
        }
        next = frame(&mut body, idle).await?;
    }
    Ok(whole.freeze())
}

/// An answer in the making. Boxed by who makes it: a future within a future is moved whole each time, and a request's is
/// the largest thing it owns.
pub type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// An answer that is there.
pub fn answered(response: Response<Body>) -> Answering {
    Box::pin(std::future::ready(response))
}

/// 413.
pub fn too_large(limit: u64) -> Error {
    Error::new(ErrorKind::TooLarge, format!("the request body is larger than {limit} bytes"))
}

/// The next bytes of a client's body; `None` at its end.
pub async fn frame(body: &mut Incoming, idle: Duration) -> Result<Option<Bytes>, Error> {
    loop {
        let next = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        // A timer is made only when the body is not there yet.
        let mut next = std::pin::pin!(next);
        let here = std::future::poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await;
        let waited = match here {
            Poll::Ready(frame) => Ok(frame),
            Poll::Pending => Box::pin(tokio::time::timeout(idle, next)).await,
        };
        let frame = match waited {
            Err(_) => return Err(Error::new(ErrorKind::RequestTimeout, "the request body did not arrive in time")),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err(Error::malformed("the request body broke off")),
            Ok(Some(Ok(frame))) => frame,
        };
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => return Ok(Some(data)),
            Err(_trailers) => return Ok(None),
        }
    }
}

/// The one place where an [`Error`] becomes HTTP, in the caller's dialect.
pub fn error(dialect: Dialect, error: &Error, request_id: &str) -> Response<Body> {
    finish_error(error, Bytes::from(error_body(dialect, error, request_id)))
}

/// The control plane's form of it: `{"error":{code,message}}`, and `field` where one is at fault.
pub fn control_error(error: &Error) -> Response<Body> {
    // Two kinds are named for the data plane; here nobody shows an API key or asks for a model.
    let code = match error.kind {
        ErrorKind::Unauthenticated => "unauthenticated",
        ErrorKind::Forbidden => "forbidden",
        kind => kind.code(),
    };
    let mut body = serde_json::json!({ "error": { "code": code, "message": error.message } });
    if let Some(field) = &error.param {
        body["error"]["field"] = serde_json::Value::from(&**field);
    }
    finish_error(error, Bytes::from(body.to_string()))
}

fn finish_error(error: &Error, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(after) = error.retry_after {
        // Rounded up: who comes back on the second must not come too early.
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_millis().div_ceil(1000).max(1) as u64));
    }
    if matches!(error.kind, ErrorKind::TooLarge | ErrorKind::RequestTimeout) {
        // The rest of the body is still on its way; this connection can't carry another request.
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A JSON reply.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::full(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
