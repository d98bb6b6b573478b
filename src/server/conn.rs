//! One client connection's life on HTTP/1.1.
//!
//! Its deadlines (slow head, idle keep-alive, a client that stopped reading) are one [`Alarm`] that the core's sweep
//! fires: hyper's own header timer costs 2–3 µs a request. When the alarm fires, or when shutdown is in its *finish*
//! phase and the connection is idle, it is closed; a request in flight is never cut by the latter, nor is the first one
//! of a connection just made, whose client can't know.

use super::{Body, Handler, Peer};
use crate::base::alarms::{Alarm, Alarms};
use crate::base::tasks::{Drain, Phase};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Limits in time of a client connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnTimeouts {
    /// From a head's first byte to its last.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// A client that does not take what we send.
    pub write: Duration,
}

/// No byte has come yet.
const FRESH: u8 = 0;
const IDLE: u8 = 1;
const HEAD: u8 = 2;
const BUSY: u8 = 3;
const STUCK: u8 = 4;

/// At *finish*: how long a connection just made may take to send its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(1);

/// Hears what a socket does.
pub(super) trait Watch: Send + Sync + 'static {
    /// Bytes came.
    fn read(&self);
    /// Bytes went out, or (`pending`) the socket takes none.
    fn wrote(&self, pending: bool);
}

/// Shared by the connection, its I/O and its current reply.
#[derive(Debug)]
pub(super) struct State {
    what: AtomicU8,
    alarm: Arc<Alarm>,
    alarms: Arc<Alarms>,
    timeouts: ConnTimeouts,
}

/// Held by the reply: its request has ended when it drops.
#[derive(Debug)]
pub(super) enum Busy {
    /// The connection's only one: it is idle then.
    Only(#[expect(dead_code, reason = "held for its drop")] Only),
    /// One of many.
    Stream(super::h2::Running),
}

/// The request that a connection is busy with.
#[derive(Debug)]
pub(super) struct Only(Arc<State>);

impl Drop for Only {
    fn drop(&mut self) {
        self.0.what.store(IDLE, Ordering::Relaxed);
        self.0.alarm.set(self.0.alarms.now() + self.0.timeouts.idle);
    }
}

/// A socket that keeps its watch up to date.
#[derive(Debug)]
pub(super) struct Tracked<S, W> {
    inner: S,
    watch: Arc<W>,
}

struct Serve<H> {
    handler: Arc<H>,
    peer: Peer,
    state: Arc<State>,
}

impl<H: Handler> Service<Request<Incoming>> for Serve<H> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.state.what.store(BUSY, Ordering::Relaxed);
        self.state.alarm.clear();
        let busy = Busy::Only(Only(Arc::clone(&self.state)));
        Answering::new(Arc::clone(&self.handler), request, self.peer, busy)
    }
}

/// The handler at work. A struct and not an `async` block: that would hold the handler's future twice.
pub(super) struct Answering {
    // One allocation a request: the handler's future, which has no name.
    answer: Pin<Box<dyn Future<Output = Response<Body>> + Send>>,
    busy: Option<Busy>,
}

impl Answering {
    pub(super) fn new<H: Handler>(handler: Arc<H>, request: Request<Incoming>, peer: Peer, busy: Busy) -> Self {
        Self { answer: Box::pin(handler.handle(request, peer)), busy: Some(busy) }
    }
}

impl Future for Answering {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = std::task::ready!(self.answer.as_mut().poll(cx));
        let mut busy = self.busy.take();
        if let Some(Busy::Stream(running)) = &mut busy {
            running.join();
        }
        Poll::Ready(Ok(response.map(|body| match busy {
            Some(busy) => body.busy(busy),
            None => body,
        })))
    }
}

/// Serves one connection to its end.
pub(super) async fn run<S, H>(
    socket: S,
    peer: Peer,
    handler: Arc<H>,
    alarms: Arc<Alarms>,
    timeouts: ConnTimeouts,
    drain: Drain,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let alarm = alarms.alarm();
    alarm.set(alarms.now() + timeouts.head);
    let state = Arc::new(State { what: AtomicU8::new(FRESH), alarm, alarms, timeouts });
    let io = TokioIo::new(Tracked::new(socket, Arc::clone(&state)));
    let service = Serve { handler, peer, state: Arc::clone(&state) };
    let http = hyper::server::conn::http1::Builder::new()
        .half_close(false)
        // Taken at the very end: one answer, which says so.
        .keep_alive(drain.phase() < Phase::Finish)
        .max_headers(128)
        .max_buf_size(128 << 10)
        // Not `pipeline_flush`: with it the 400 to a head that can't be read would stay in the buffer, and a body
        // would be taken without end: a client that does not read would have its whole stream kept in our memory.
        .serve_connection(io, service);
    // The core's ticker wakes every connection when the phase of shutdown changes (`Alarms::wake_all`).
    Life { http, state, drain, told: false, hurried: false }.await;
}

struct Life<I, H>
where
    H: Handler,
{
    http: hyper::server::conn::http1::Connection<I, Serve<H>>,
    state: Arc<State>,
    drain: Drain,
    told: bool,
    hurried: bool,
}

impl<I, H> Life<I, H>
where
    I: Read + Write + Unpin + 'static,
    H: Handler,
{
    /// At *finish*: tells hyper to close when idle; whether it was told just now. One whose first request may be on
    /// its way yet is given a moment instead.
    fn finish(&mut self) -> bool {
        if self.told || self.drain.phase() < Phase::Finish {
            return false;
        }
        if self.state.what.load(Ordering::Relaxed) == FRESH {
            if !self.hurried {
                self.hurried = true;
                self.state.alarm.set(self.state.alarms.now() + FIRST_BYTE.min(self.state.timeouts.head));
            }
            return false;
        }
        self.told = true;
        Pin::new(&mut self.http).graceful_shutdown();
        true
    }
}

impl<I, H> Future for Life<I, H>
where
    I: Read + Write + Unpin + 'static,
    H: Handler,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.finish();
        if Pin::new(&mut self.http).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Its first request came with this very poll: hyper must hear of the end before it waits for another.
        if self.finish() && Pin::new(&mut self.http).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Slow head, idle too long, or a client that stopped reading: dropping the connection cancels all of it.
        if self.state.alarm.poll_fired(cx) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Watch for State {
    fn read(&self) {
        if self.what.load(Ordering::Relaxed) <= IDLE {
            // A head began. Later reads of the same head do not move its deadline.
            self.what.store(HEAD, Ordering::Relaxed);
            self.alarm.set(self.alarms.now() + self.timeouts.head);
        }
    }

    fn wrote(&self, pending: bool) {
        match (pending, self.what.load(Ordering::Relaxed)) {
            (true, BUSY) => {
                self.what.store(STUCK, Ordering::Relaxed);
                self.alarm.set(self.alarms.now() + self.timeouts.write);
            }
            (false, STUCK) => {
                self.what.store(BUSY, Ordering::Relaxed);
                self.alarm.clear();
            }
            // The end of an answer that was handed over whole: as long as it moves, the connection lives.
            (false, IDLE) => self.alarm.set(self.alarms.now() + self.timeouts.idle),
            _ => {}
        }
    }
}

impl<S, W> Tracked<S, W> {
    pub(super) fn new(inner: S, watch: Arc<W>) -> Self {
        Self { inner, watch }
    }
}

impl<S: AsyncRead + Unpin, W: Watch> AsyncRead for Tracked<S, W> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if polled.is_ready() && buf.filled().len() > before {
            self.watch.read();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin, W: Watch> AsyncWrite for Tracked<S, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watch.wrote(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.watch.wrote(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
