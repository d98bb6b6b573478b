//! A streamed answer that goes on without hyper.
//!
//! Most of a stream's life is waiting, and a connection of hyper's waits with two buffers of 8 KiB. So hyper begins a
//! stream: its head and whatever is there at once. When it waits for the first time, with all of that written, the
//! connection takes socket and body back ([`Handover`]) and writes the remaining chunks itself ([`Streaming`]), each as
//! it comes, holding nothing in between. What follows the stream is a new hyper connection's.
//!
//! Only where both sides are plain: HTTP/1.1, a request that is read whole, a connection that is to last, chunks. All
//! else stays with hyper.

use super::Body;
use super::body::Cut;
use super::conn_state::State;
use super::tracked::Tracked;
use bytes::{Buf, Bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, Version};
use http_body::Body as _;
use hyper::{Request, Response};
use parking_lot::Mutex;
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};

/// A chunk up to this is copied behind its size: cheaper than one more piece for the kernel to walk.
const SMALL: usize = 4 << 10;
/// So much is gathered at most before it is written.
const ROUND: usize = 64 << 10;

/// The way of a body from hyper to its connection. One task's; the atomics are for `Send`'s sake.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// The request allows it.
    asked: AtomicBool,
    /// Which request of this connection runs: what is told of a former one's body is no news.
    nth: AtomicU32,
    /// The request's body has been read to its end.
    read: AtomicBool,
    /// The answer allows it, too.
    answered: AtomicBool,
    /// hyper holds nothing that is not written.
    flushed: AtomicBool,
    waits: AtomicBool,
    body: Mutex<Option<Body>>,
}

impl Handover {
    /// A request begins. One with `transfer-encoding` stays with hyper, which closes after it where it has a length,
    /// too, and leaves no other trace of that.
    pub(super) fn ask(&self, request: &Request<hyper::body::Incoming>) {
        let lasts = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"keep-alive");
        let plain = request.version() == Version::HTTP_11 && request.method() != Method::HEAD;
        let headers = request.headers();
        let lasts = headers.get_all(CONNECTION).iter().all(lasts) && !headers.contains_key(TRANSFER_ENCODING);
        self.asked.store(plain && lasts, Ordering::Relaxed);
        self.nth.fetch_add(1, Ordering::Relaxed);
        self.read.store(request.body().is_end_stream(), Ordering::Relaxed);
        self.answered.store(false, Ordering::Relaxed);
    }

    /// Which request that was.
    pub(super) fn nth(&self) -> u32 {
        self.nth.load(Ordering::Relaxed)
    }

    /// The body of the nth has been read to the end.
    pub(super) fn read_whole(&self, nth: u32) {
        if nth == self.nth() {
            self.read.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it has.
    pub(super) fn is_read(&self) -> bool {
        self.read.load(Ordering::Relaxed)
    }

    /// Its answer begins.
    pub(super) fn answer(&self, response: &Response<Body>) {
        let headers = response.headers();
        let may = response.body().is_endless()
            && self.asked.load(Ordering::Relaxed)
            && self.is_read()
            && response.status().is_success()
            && response.status() != http::StatusCode::NO_CONTENT
            && !headers.contains_key(CONTENT_LENGTH)
            && !headers.contains_key(CONNECTION);
        self.answered.store(may, Ordering::Relaxed);
    }

    /// Whether hyper has written all it was given.
    pub(super) fn flushed(&self, all: bool) {
        self.flushed.store(all, Ordering::Relaxed);
    }

    /// Whether a body that has to wait may leave hyper.
    pub(super) fn is_open(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// One that has to wait. What hyper was given instead never ends.
    pub(super) fn put(&self, body: Body) {
        self.answered.store(false, Ordering::Relaxed);
        *self.body.lock() = Some(body);
        self.waits.store(true, Ordering::Relaxed);
    }

    /// The body that left hyper, once nothing of it is left there.
    pub(super) fn take(&self) -> Option<Body> {
        if !self.waits.load(Ordering::Relaxed) || !self.flushed.load(Ordering::Relaxed) {
            return None;
        }
        self.waits.store(false, Ordering::Relaxed);
        self.body.lock().take()
    }

    /// The connection is over: a body left here holds the connection's state, which holds it.
    pub(super) fn clear(&self) {
        if self.waits.load(Ordering::Relaxed) {
            let body = self.body.lock().take();
            drop(body);
        }
    }
}

/// The rest of a stream, between two chunks at first.
#[derive(Debug)]
pub(super) struct Streaming<S> {
    socket: Tracked<S, State>,
    /// `None` once it ended.
    body: Option<Body>,
    /// Sizes and small chunks, with their ends.
    small: Vec<u8>,
    /// What comes behind them, uncopied.
    large: Bytes,
    /// Its end.
    tail: &'static [u8],
    /// So much of `small` is written.
    written: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Streaming<S> {
    pub(super) fn new(socket: Tracked<S, State>, body: Body) -> Self {
        Self { socket, body: Some(body), small: Vec::new(), large: Bytes::new(), tail: b"", written: 0 }
    }

    /// Its socket, after its end.
    pub(super) fn into_socket(self) -> Tracked<S, State> {
        self.socket
    }

    /// Ready at its end: an error when it broke off or the client left, and the connection is to be cut.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let waits = self.gather(cx).map_err(|_cut| io::ErrorKind::ConnectionAborted)?;
            ready!(self.poll_write(cx))?;
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            // TLS may hold something yet; and this is where a client that left is seen.
            let _ = Pin::new(&mut self.socket).poll_flush(cx)?;
            if waits {
                return Poll::Pending;
            }
        }
    }

    /// Takes what is there of the body; whether it has to wait for more.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<bool, Cut> {
        while self.small.len() < ROUND && self.tail.is_empty() {
            let Some(body) = &mut self.body else { break };
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(None) => {
                    self.body = None;
                    self.small.extend_from_slice(b"0\r\n\r\n");
                }
                Poll::Ready(Some(Err(cut))) => return Err(cut),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.add(data);
                    }
                }
            }
        }
        Ok(false)
    }

    fn add(&mut self, data: Bytes) {
        if data.is_empty() {
            return; // it would read as the end
        }
        self.small.reserve(if data.len() <= SMALL { data.len() + 16 } else { 16 });
        // A `Vec` takes all.
        let _ = write!(self.small, "{:X}\r\n", data.len());
        if data.len() <= SMALL {
            self.small.extend_from_slice(&data);
            self.small.extend_from_slice(b"\r\n");
        } else {
            self.large = data;
            self.tail = b"\r\n";
        }
    }

    /// Writes all that was gathered and lets go of it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let small = &self.small[self.written..];
            if small.is_empty() && self.tail.is_empty() {
                self.small = Vec::new();
                self.written = 0;
                return Poll::Ready(Ok(()));
            }
            let wrote = if self.tail.is_empty() {
                Pin::new(&mut self.socket).poll_write(cx, small)
            } else {
                let slices = [IoSlice::new(small), IoSlice::new(&self.large), IoSlice::new(self.tail)];
                let first = usize::from(small.is_empty()) + usize::from(small.is_empty() && self.large.is_empty());
                Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[first..])
            };
            let mut wrote = ready!(wrote)?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_small = wrote.min(self.small.len() - self.written);
            self.written += of_small;
            wrote -= of_small;
            let of_large = wrote.min(self.large.len());
            self.large.advance(of_large);
            if self.large.is_empty() && of_large > 0 {
                self.large = Bytes::new();
            }
            self.tail = &self.tail[wrote - of_large..];
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
