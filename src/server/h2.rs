//! One client connection's life on HTTP/2: many requests at once, each a task of its own.
//!
//! The connection's deadline runs while nothing is asked, or while the socket takes nothing; a stream whose client
//! stops taking it has a deadline of its own and ends alone. At shutdown's *finish* the client is told to go away and
//! what it asked before is still answered.

use super::conn::Answering;
use super::conn_state::Busy;
use super::tracked::{Deadline, Tracked, Watch};
use super::{Body, ConnTimeouts, Handler, Incoming, Peer};
use crate::base::alarms::{Alarm, Alarms};
use crate::base::tasks::{self, Drain, Phase};
use hyper::rt::Executor;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Requests of one connection at once; a client with more waits.
const STREAMS: u32 = 256;
/// What may be on its way to us, for a stream and for all of them.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// At *finish*: how long a client with nothing running may take to go away.
const FAREWELL: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// The stream whose task this is.
    static STREAM: Arc<Taken>;
}

/// The connection's account of itself. One core's tasks touch it only; the atomics are for `Send`'s sake.
#[derive(Debug)]
struct State {
    begun: AtomicBool,
    running: AtomicUsize,
    deadline: Deadline,
    drain: Drain,
}

/// Whether a stream's client takes what we have for it.
#[derive(Debug)]
struct Taken {
    alarm: Arc<Alarm>,
    alarms: Arc<Alarms>,
    patience: Duration,
}

/// A request that runs; held by its handler first, then by its answer's body.
#[derive(Debug)]
pub(super) struct Running {
    of: Arc<State>,
    stream: Option<Arc<Taken>>,
}

impl State {
    /// Nothing is asked: the deadline runs.
    fn rest(&self) {
        self.deadline.set(if self.drain.phase() >= Phase::Finish { FAREWELL } else { self.deadline.timeouts.idle });
    }

    fn idle(&self) -> bool {
        self.running.load(Ordering::Relaxed) == 0
    }
}

impl Watch for State {
    fn read(&self) {
        // The preface came: from here it is an idle connection. Frames that ask nothing do not keep it.
        if !self.begun.swap(true, Ordering::Relaxed) && self.idle() {
            self.rest();
        }
    }

    fn wrote(&self, pending: bool) {
        if self.idle() {
            // The end of an answer that was handed over whole: as long as it moves, the connection lives.
            if !pending && self.begun.load(Ordering::Relaxed) {
                self.rest();
            }
        } else {
            self.deadline.wrote(pending);
        }
    }
}

impl Running {
    fn new(of: Arc<State>) -> Self {
        if of.running.fetch_add(1, Ordering::Relaxed) == 0 {
            of.deadline.busy();
        }
        Self { of, stream: None }
    }

    /// Its answer begins, in the task of its stream: from here on it is watched.
    pub(super) fn join(&mut self) {
        self.stream = STREAM.try_with(Arc::clone).ok();
    }

    /// More is wanted of the body: the client took what there was.
    pub(super) fn wanted(&self) {
        if let Some(stream) = &self.stream {
            stream.alarm.clear();
        }
    }

    /// A piece was handed over.
    pub(super) fn gave(&self) {
        if let Some(stream) = &self.stream {
            stream.alarm.set(stream.alarms.now() + stream.patience);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.of.running.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.of.rest();
        }
    }
}

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
        let busy = Busy::Stream(Running::new(Arc::clone(&self.state)));
        Answering::new(Arc::clone(&self.handler), Incoming::alone(request), self.peer, busy)
    }
}

/// Gives each stream a task on this core, with its own deadline.
#[derive(Clone)]
struct Streams {
    alarms: Arc<Alarms>,
    patience: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, work: F) {
        let alarm = self.alarms.alarm();
        let (alarms, patience) = (Arc::clone(&self.alarms), self.patience);
        let taken = Arc::new(Taken { alarm: Arc::clone(&alarm), alarms, patience });
        tasks::spawn("http2 stream", async move {
            let mut work = pin!(STREAM.scope(taken, work));
            poll_fn(|cx| match work.as_mut().poll(cx) {
                // Its client does not take it: dropping it resets the stream and cancels what fed it.
                Poll::Pending if alarm.poll_fired(cx) => Poll::Ready(()),
                other => other,
            })
            .await;
        });
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
    let state = Arc::new(State {
        begun: AtomicBool::new(false),
        running: AtomicUsize::new(0),
        deadline: Deadline::new(Arc::clone(&alarms), timeouts),
        drain: drain.clone(),
    });
    let io = TokioIo::new(Tracked::new(socket, Arc::clone(&state)));
    let service = Serve { handler, peer, state: Arc::clone(&state) };
    let conn = hyper::server::conn::http2::Builder::new(Streams { alarms, patience: timeouts.write })
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(128 << 10)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .serve_connection(io, service);
    let mut conn = pin!(conn);
    let mut told = false;
    poll_fn(|cx| {
        if !told && drain.phase() >= Phase::Finish {
            told = true;
            conn.as_mut().graceful_shutdown();
            if state.idle() {
                state.rest();
            }
        }
        if conn.as_mut().poll(cx).is_ready() || state.deadline.poll_passed(cx) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
