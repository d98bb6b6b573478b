//! One client connection's life on hyper.
//!
//! Its deadlines (slow head, idle keep-alive, a client that stopped reading) are one [`Alarm`] that the core's sweep
//! fires: hyper's own header timer costs 2–3 µs a request. When the alarm fires, or when shutdown is in its *finish*
//! phase and the connection is idle, it is closed; a request in flight is never cut by the latter.

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

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
const STUCK: u8 = 3;

/// Shared by the connection, its I/O and its current reply.
#[derive(Debug)]
struct State {
    what: AtomicU8,
    alarm: Arc<Alarm>,
    alarms: Arc<Alarms>,
    timeouts: ConnTimeouts,
}

/// Held by the reply: the connection is idle again when it drops.
#[derive(Debug)]
pub(super) struct Busy(Arc<State>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.what.store(IDLE, Ordering::Relaxed);
        self.0.alarm.set(self.0.alarms.now() + self.0.timeouts.idle);
    }
}

/// A socket that keeps [`State`] up to date.
#[derive(Debug)]
pub(super) struct Tracked<S> {
    inner: S,
    state: Arc<State>,
}

struct Serve<H> {
    handler: Arc<H>,
    peer: Peer,
    state: Arc<State>,
}

impl<H: Handler> Service<Request<Incoming>> for Serve<H> {
    type Response = Response<Body>;
    type Error = Infallible;
    // One allocation a request: the handler's future, whose size no name can tell.
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.state.what.store(BUSY, Ordering::Relaxed);
        self.state.alarm.clear();
        let busy = Busy(Arc::clone(&self.state));
        let answer = Arc::clone(&self.handler).handle(request, self.peer);
        Box::pin(async move { Ok(answer.await.map(|body| body.busy(busy))) })
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
    let state = Arc::new(State { what: AtomicU8::new(IDLE), alarm, alarms, timeouts });
    let io = TokioIo::new(Tracked { inner: socket, state: Arc::clone(&state) });
    let service = Serve { handler, peer, state: Arc::clone(&state) };
    // Never `pipeline_flush`: with it hyper takes from a body without end, and a client that does not read would have
    // its whole stream kept in our memory.
    let conn = hyper::server::conn::http1::Builder::new()
        .half_close(false)
        .max_headers(128)
        .max_buf_size(128 << 10)
        .serve_connection(io, service);
    // The core's ticker wakes every connection when the phase of shutdown changes (`Alarms::wake_all`).
    Conn { conn, state, drain, told: false }.await;
}

struct Conn<I, H>
where
    H: Handler,
{
    conn: hyper::server::conn::http1::Connection<I, Serve<H>>,
    state: Arc<State>,
    drain: Drain,
    told: bool,
}

impl<I, H> Future for Conn<I, H>
where
    I: Read + Write + Unpin + 'static,
    H: Handler,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.told && self.drain.phase() >= Phase::Finish {
            self.told = true;
            Pin::new(&mut self.conn).graceful_shutdown();
        }
        if Pin::new(&mut self.conn).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Slow head, idle too long, or a client that stopped reading: dropping the connection cancels all of it.
        if self.state.alarm.poll_fired(cx) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tracked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if polled.is_ready() && buf.filled().len() > before && self.state.what.load(Ordering::Relaxed) == IDLE {
            // A head began. Later reads of the same head do not move its deadline.
            self.state.what.store(HEAD, Ordering::Relaxed);
            self.state.alarm.set(self.state.alarms.now() + self.state.timeouts.head);
        }
        polled
    }
}

impl<S> Tracked<S> {
    fn wrote<T>(&self, polled: &Poll<T>) {
        match (polled.is_pending(), self.state.what.load(Ordering::Relaxed)) {
            (true, BUSY) => {
                self.state.what.store(STUCK, Ordering::Relaxed);
                self.state.alarm.set(self.state.alarms.now() + self.state.timeouts.write);
            }
            (false, STUCK) => {
                self.state.what.store(BUSY, Ordering::Relaxed);
                self.state.alarm.clear();
            }
            _ => {}
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tracked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(&polled);
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
