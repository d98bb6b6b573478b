//! A client's body on its way in, and what becomes of the part that nobody reads.
//!
//! Many answers are given from the head alone (401, 403, 404, 429), while the client still sends its body. What is left
//! of a body then goes back to its connection, which reads on and forgets it: up to [`MOST`] bytes, so that a client
//! that was told nothing of an end finds its connection alive. Where that would be too much, the answer says
//! `connection: close`. Nothing is kept: memory does not grow with what is forgotten.

use super::conn_state::State;
use super::gate;
use http::HeaderMap;
use http::header::{CONNECTION, EXPECT, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::Request;
use hyper::body::Bytes;
use parking_lot::Mutex;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// As much of an unread body is read on for the connection's sake: more than that costs more than a new connection.
pub(super) const MOST: u64 = 256 << 10;

/// The body of a request. Dropped before its end, it gives the rest back to its connection (HTTP/1.1 only: in HTTP/2 a
/// stream is reset alone).
pub struct Incoming {
    /// `None` only while it is dropped.
    body: Option<hyper::body::Incoming>,
    home: Option<Arc<State>>,
    /// Which request of its connection's this is.
    nth: u32,
    /// The client waits for a word before it sends.
    waits: bool,
}

/// Where the rest of a connection's body lies.
#[derive(Debug, Default)]
pub(super) struct Unread(Mutex<Option<Rest>>);

#[derive(Debug)]
struct Rest {
    body: hyper::body::Incoming,
    waits: bool,
    forgotten: u64,
}

/// How far reading on has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// There is none.
    Nothing,
    /// It has not all come yet.
    Some,
    /// It ended just now.
    Ended,
    /// It was given up just now: the connection can't go on.
    TooMuch,
}

impl Incoming {
    /// One whose rest nobody wants back.
    pub(super) fn alone(request: Request<hyper::body::Incoming>) -> Request<Self> {
        request.map(|body| Self { body: Some(body), home: None, nth: 0, waits: false })
    }

    /// One whose rest goes back to `home`.
    pub(super) fn of(request: Request<hyper::body::Incoming>, home: &Arc<State>) -> Request<Self> {
        let there = !request.body().is_end_stream();
        let waits = there && request.headers().contains_key(EXPECT);
        let nth = home.handover.nth();
        let home = there.then(|| Arc::clone(home));
        request.map(|body| Self { body: Some(body), home, nth, waits })
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Asked for: the client was told to go on.
        self.waits = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let mut last = false;
        let polled = gate::taking(|| {
            let polled = Pin::new(&mut *body).poll_frame(cx);
            last = matches!(polled, Poll::Ready(Some(Ok(_)))) && body.is_end_stream();
            (polled, last)
        });
        let ended = match &polled {
            Poll::Ready(None) => true,
            // Trailers are the end.
            Poll::Ready(Some(Ok(frame))) => last || frame.is_trailers(),
            _ => false,
        };
        if ended && let Some(home) = &self.home {
            home.read_whole(self.nth);
        }
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.home = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let (Some(body), Some(home)) = (self.body.take(), self.home.take())
            && !body.is_end_stream()
        {
            home.leave(body, self.waits);
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.body.fmt(f)
    }
}

impl Unread {
    pub(super) fn put(&self, body: hyper::body::Incoming, waits: bool) {
        // A former request's has ended, or hyper would not have seen this one's.
        *self.0.lock() = Some(Rest { body, waits, forgotten: 0 });
    }

    pub(super) fn any(&self) -> bool {
        self.0.lock().is_some()
    }

    /// The answer is there: where its request's rest is not worth reading on, the answer says so. Whether it does.
    pub(super) fn announce(&self, answer: &mut HeaderMap) -> bool {
        let mut unread = self.0.lock();
        let Some(rest) = &*unread else { return false };
        if !rest.too_much() && !closes(answer) {
            return false;
        }
        answer.insert(CONNECTION, HeaderValue::from_static("close"));
        *unread = None;
        true
    }

    /// Reads on what is here of it.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Left {
        let mut unread = self.0.lock();
        let Some(rest) = &mut *unread else { return Left::Nothing };
        let left = rest.poll(cx);
        if left != Left::Some {
            *unread = None;
        }
        left
    }
}

impl Rest {
    fn too_much(&self) -> bool {
        // One that waits for our word may send the body or its next request: only an end is clear to both sides.
        self.waits || self.forgotten.saturating_add(self.body.size_hint().lower()) > MOST
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Left {
        loop {
            if self.too_much() {
                return Left::TooMuch;
            }
            if self.body.is_end_stream() {
                return Left::Ended;
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Left::Some,
                // Broken off: hyper ends the connection.
                Poll::Ready(None | Some(Err(_))) => return Left::Ended,
                Poll::Ready(Some(Ok(frame))) => self.forgotten += frame.data_ref().map_or(0, |data| data.len() as u64),
            }
        }
    }
}

fn closes(answer: &HeaderMap) -> bool {
    answer.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}
