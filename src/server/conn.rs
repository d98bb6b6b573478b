//! One client connection's life on HTTP/1.1.
//!
//! Its deadlines (slow head, idle keep-alive, a client that stopped reading) are one deadline that the core's sweep
//! fires: hyper's own header timer costs 2–3 µs a request. When it passes, or when shutdown is in its *finish*
//! phase and the connection is idle, it is closed; a request in flight is never cut by the latter, nor is the first one
//! of a connection just made, whose client can't know.
//!
//! An answer may come before its request's body has: what nobody read is read on here and forgotten ([`State::read_on`]),
//! for a while after the answer. A connection that ends with a body still on its way lingers ([`Linger`]), so that the
//! answer is not lost to a reset.

use super::conn_state::{Busy, Only, State, polled};
use super::gate::Gate;
use super::linger::Linger;
use super::stream::Streaming;
use super::tracked::Tracked;
use super::{Body, Handler, Incoming, Peer};
use crate::base::alarms::Alarms;
use crate::base::tasks::{Drain, Phase};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

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

/// At *finish*: how long a connection just made may take to send its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(1);

struct Serve<H> {
    handler: Arc<H>,
    peer: Peer,
    state: Arc<State>,
}

impl<H: Handler> Service<Request<hyper::body::Incoming>> for Serve<H> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<hyper::body::Incoming>) -> Self::Future {
        let busy = self.state.begin(&request);
        Answering::new(Arc::clone(&self.handler), Incoming::of(request, &self.state), self.peer, busy)
    }
}

/// The handler at work. A struct and not an `async` block: that would hold the handler's future twice.
pub(super) struct Answering {
    answer: super::body::Answering,
    busy: Option<Busy>,
}

impl Answering {
    pub(super) fn new<H: Handler>(handler: Arc<H>, request: Request<Incoming>, peer: Peer, busy: Busy) -> Self {
        Self { answer: handler.handle(request, peer), busy: Some(busy) }
    }
}

impl Future for Answering {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = std::task::ready!(self.answer.as_mut().poll(cx));
        let mut busy = self.busy.take();
        match &mut busy {
            Some(Busy::Stream(running)) => running.join(),
            Some(Busy::Only(Only(state))) if state.unread.announce(response.headers_mut()) => {
                state.lingers.store(true, Ordering::Relaxed);
            }
            Some(Busy::Only(Only(state))) if !state.unread.any() => state.handover.answer(&response),
            Some(Busy::Only(_)) | None => {}
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
    let state = Arc::new(State::new(alarms, timeouts));
    let service = Serve { handler, peer, state: Arc::clone(&state) };
    let http = serve(Tracked::new(socket, Arc::clone(&state)), service, &drain);
    // The core's ticker wakes every connection when the phase of shutdown changes (`Alarms::wake_all`).
    let gate = Arc::new(Gate::default());
    let waker = Waker::from(Arc::clone(&gate));
    Life { stage: Stage::Http(http), state, drain, gate, waker, told: false, hurried: false }.await;
}

/// hyper, from the first request on or from the one after a stream.
fn serve<S, H>(socket: Tracked<S, State>, service: Serve<H>, drain: &Drain) -> Http<S, H>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler,
{
    hyper::server::conn::http1::Builder::new()
        // A client that leaves is seen by `Tracked`, without the buffer that hyper would hold to see it.
        .half_close(true)
        // Taken at the very end: one answer, which says so.
        .keep_alive(drain.phase() < Phase::Finish)
        // No `max_headers`: hyper's own 100 lines lie on the stack, any other number in two blocks of the heap, 8 KB
        // a request.
        // The longest head, and the most that one read brings: twice that leaves the processor's cache before a large
        // body is put together.
        .max_buf_size(64 << 10)
        // Not `pipeline_flush`: with it the 400 to a head that can't be read would stay in the buffer, and a body
        // would be taken without end: a client that does not read would have its whole stream kept in our memory.
        .serve_connection(TokioIo::new(socket), service)
}

struct Life<S, H: Handler> {
    stage: Stage<S, H>,
    state: Arc<State>,
    drain: Drain,
    /// What hyper wakes instead of the task itself.
    gate: Arc<Gate>,
    waker: Waker,
    told: bool,
    hurried: bool,
}

type Http<S, H> = hyper::server::conn::http1::Connection<TokioIo<Tracked<S, State>>, Serve<H>>;

#[expect(clippy::large_enum_variant, reason = "the large one is what nearly every connection is all its life")]
enum Stage<S, H: Handler> {
    Http(Http<S, H>),
    /// With what serves the request after it.
    Stream(Streaming<S>, Serve<H>),
    Linger(Linger<S>),
    Over,
}

impl<S, H> Life<S, H>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler,
{
    /// At *finish*: tells hyper to close when idle; whether it was told just now. One whose first request may be on
    /// its way yet is given a moment instead.
    fn finish(&mut self) -> bool {
        if self.told || self.drain.phase() < Phase::Finish {
            return false;
        }
        if self.state.is_fresh() {
            if !self.hurried {
                self.hurried = true;
                self.state.deadline.set(FIRST_BYTE.min(self.state.deadline.timeouts.head));
            }
            return false;
        }
        self.told = true;
        if let Stage::Http(http) = &mut self.stage {
            Pin::new(http).graceful_shutdown();
        }
        true
    }

    /// hyper's part, and what comes after it.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let next = match &mut self.stage {
                Stage::Http(http) => match Pin::new(http).poll(&mut Context::from_waker(&self.waker)) {
                    Poll::Pending => match self.state.handover.take() {
                        Some(body) => self.go_on_with(body),
                        None => return Poll::Pending,
                    },
                    Poll::Ready(ended) => self.see_off(ended),
                },
                Stage::Stream(stream, _) => match std::task::ready!(stream.poll(cx)) {
                    Ok(()) => self.after_stream(),
                    // Cut, as hyper would.
                    Err(_) => Stage::Over,
                },
                // Cut or not, what was said goes out: a stream's last words, TLS' goodbye.
                Stage::Linger(linger) => {
                    let polled = linger.poll(cx);
                    let over = self.drain.phase() >= Phase::Cut && linger.has_said();
                    return if over { Poll::Ready(()) } else { polled };
                }
                Stage::Over => return Poll::Ready(()),
            };
            self.stage = next;
        }
    }

    /// Takes over from hyper, which has written all it had.
    fn go_on_with(&mut self, body: Body) -> Stage<S, H> {
        let Stage::Http(http) = std::mem::replace(&mut self.stage, Stage::Over) else { return Stage::Over };
        let parts = http.into_parts();
        let mut socket = parts.io.into_inner();
        socket.give_back(parts.read_buf);
        Stage::Stream(Streaming::new(socket, body), parts.service)
    }

    fn after_stream(&mut self) -> Stage<S, H> {
        let Stage::Stream(stream, service) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Stage::Over;
        };
        let socket = stream.into_socket();
        if self.drain.phase() < Phase::Finish {
            return Stage::Http(serve(socket, service, &self.drain));
        }
        self.state.deadline.set(self.state.patience());
        Stage::Linger(Linger::new(socket.into_inner()))
    }

    fn see_off(&mut self, ended: hyper::Result<()>) -> Stage<S, H> {
        // A reply that broke off is cut, not seen off. A head that can't be read was answered, body or not.
        let lingers = match ended {
            Ok(()) => self.state.lingers.load(Ordering::Relaxed),
            Err(error) => error.is_parse(),
        };
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Http(http) if lingers => {
                // What hyper still held of a request lets go here, and sets a deadline of its own.
                let socket = http.into_parts().io.into_inner().into_inner();
                self.state.deadline.set(self.state.patience());
                Stage::Linger(Linger::new(socket))
            }
            _ => Stage::Over,
        }
    }
}

impl<S, H: Handler> Drop for Life<S, H> {
    fn drop(&mut self) {
        self.state.handover.clear();
    }
}

impl<S, H> Future for Life<S, H>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.gate.open_to(cx);
        polled(self.state.id(), || self.turn(cx))
    }
}

impl<S, H> Life<S, H>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler,
{
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.finish();
        if self.step(cx).is_ready() {
            return Poll::Ready(());
        }
        // Its first request came with this very poll: hyper must hear of the end before it waits for another.
        if self.finish() && self.step(cx).is_ready() {
            return Poll::Ready(());
        }
        if matches!(self.stage, Stage::Http(_)) {
            self.state.read_on(cx);
        }
        // Slow head, idle too long, or a client that stopped reading: dropping the connection cancels all of it.
        if self.state.deadline.poll_passed(cx) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
