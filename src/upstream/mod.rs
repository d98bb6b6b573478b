//! Calls to providers: pools, TLS, the hand-built HTTP/1.1 client codec, deadlines.
//!
//! One [`Client`] a core, used on that core's runtime only. A call connects where no pooled connection is good, sends,
//! and returns with the answer's head; the body follows through [`ReplyBody`]. It never looks into a body, retries
//! nothing but a pooled connection found dead, and knows neither accounts nor verdicts. Dropping the call or the body
//! closes the connection at once. Without the core's ticker ([`Alarms::sweep`], [`Client::sweep`]) no deadline but the
//! one for connecting ever passes.

mod call;
mod connect;
pub mod h1;
mod h2;
mod pool;
mod tls;

pub use call::{BodyError, BodyStream, Call, CallBody, CallError, CallErrorKind, Deadline, Headers, Reply};
pub use tls::{TlsConfig, tls_config};

use crate::base::alarms::Alarms;
use crate::base::{Clock, Now};
use bytes::Bytes;
use h1::body::Arriving;
use h1::conn::Conn;
use h1::exchange::exchange;
use pool::Pool;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Calls providers, from one core. A clone is the same client.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

/// How a [`Client`] behaves.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Name, TCP and TLS altogether.
    pub connect: Duration,
    /// How long a connection waits in the pool (a second more or less).
    pub pool_idle: Duration,
    /// How many wait per host at most.
    pub max_idle_per_host: usize,
    /// Whom to trust.
    pub tls: TlsConfig,
}

/// Connections of one [`Client`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Open, idle ones and HTTP/2 included.
    pub open: usize,
    /// Waiting in the pool.
    pub idle: usize,
}

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    alarms: Arc<Alarms>,
    pool: Pool,
}

/// An answer's body. Its connection goes back to the pool at a clean end, and is closed when this is dropped before.
#[derive(Debug)]
pub struct ReplyBody {
    /// Payload that came with the head.
    first: Option<Bytes>,
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    Done,
    H1(Arriving),
    H2(Box<h2::Arriving>),
}

impl Client {
    /// A client whose deadlines fire with `alarms`.
    pub fn new(config: ClientConfig, alarms: Arc<Alarms>) -> Self {
        let pool = Pool::new(config.max_idle_per_host, Clock::now());
        Self(Arc::new(Inner { config, alarms, pool }))
    }

    /// Sends `call` and waits for the answer's head. A pooled connection that died without a byte of answer is replaced
    /// by a fresh one, once and in silence, unless the body was a stream.
    pub async fn call(&self, mut call: Call<'_>) -> Result<Reply, CallError> {
        self.send(&mut call).await
    }

    /// As [`Self::call`]; what it was called with stays where it is, so that the future is small to move.
    pub async fn send(&self, call: &mut Call<'_>) -> Result<Reply, CallError> {
        if call.http2 {
            return Box::pin(h2::call(&self.0, call)).await;
        }
        let host = self.0.pool.host(call.base, false);
        let pooled = host.get();
        let mut reused = pooled.is_some();
        let mut conn = match pooled {
            Some(conn) => conn,
            None => self.0.connect(&host, call).await?,
        };
        let started = match exchange(&mut conn, call).await {
            Ok(started) => started,
            Err(failed) if reused && failed.unanswered && matches!(call.body, CallBody::Pieces(_)) => {
                drop(conn);
                reused = false;
                conn = self.0.connect(&host, call).await.map_err(|error| CallError { sent: true, ..error })?;
                exchange(&mut conn, call).await.map_err(|failed| failed.error)?
            }
            Err(failed) => return Err(failed.error),
        };
        let body = if started.done {
            if started.head.keep_alive {
                host.put(conn);
            }
            ReplyBody::whole(started.first)
        } else {
            let first = (!started.first.is_empty()).then_some(started.first);
            ReplyBody { first, rest: Rest::H1(Arriving::new(conn, host, &started.head, call.idle)) }
        };
        Ok(Reply { status: started.head.status, headers: started.head.headers, body, reused })
    }

    /// Closes pooled connections that waited too long or were closed by their host. Once a second, on the client's core.
    pub fn sweep(&self, now: Now) {
        self.0.pool.sweep(now, self.0.config.pool_idle);
    }

    /// How many connections there are.
    pub fn stats(&self) -> Stats {
        Stats { open: self.0.pool.open(), idle: self.0.pool.idle() }
    }
}

impl Inner {
    async fn connect(&self, host: &Arc<pool::Host>, call: &mut Call<'_>) -> Result<Box<Conn>, CallError> {
        // Boxed: rare, and the handshake's state would ride in every call's future.
        let stream = Box::pin(connect::connect(call.base, &self.config.tls.http1, self.config.connect)).await?;
        // That took time of its own deadline, not of the answer's.
        call.asked = Clock::now();
        Ok(Box::new(Conn::new(stream, self.alarms.alarm(), host.opened())))
    }
}

impl ReplyBody {
    /// A body that is all here.
    pub fn whole(body: Bytes) -> Self {
        Self { first: (!body.is_empty()).then_some(body), rest: Rest::Done }
    }

    fn h2(arriving: h2::Arriving) -> Self {
        Self { first: None, rest: Rest::H2(Box::new(arriving)) }
    }

    /// The next payload: everything one read brought, as one piece, never empty. `None` at the clean end, and for ever
    /// after an end or an error.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CallError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let (next, ended) = match &mut self.rest {
            Rest::Done => return Poll::Ready(None),
            Rest::H1(arriving) => {
                let next = ready!(arriving.poll_data(cx));
                (next, arriving.is_done())
            }
            Rest::H2(arriving) => (ready!(arriving.poll_data(cx)), false),
        };
        if ended || !matches!(next, Ok(Some(_))) {
            let rest = std::mem::replace(&mut self.rest, Rest::Done);
            if let (Rest::H1(arriving), Ok(_)) = (rest, &next) {
                arriving.finish();
            }
        }
        Poll::Ready(next.transpose())
    }

    /// The whole body if all of it came with the head; its connection is back in the pool already.
    pub fn take_complete(&mut self) -> Option<Bytes> {
        matches!(self.rest, Rest::Done).then(|| self.first.take().unwrap_or_default())
    }

    /// Bytes still to come, this side's included, where the answer said how many.
    pub fn remaining_hint(&self) -> Option<u64> {
        let first = self.first.as_ref().map_or(0, |first| first.len() as u64);
        match &self.rest {
            Rest::Done => Some(first),
            Rest::H1(arriving) => arriving.remaining().map(|left| left + first),
            Rest::H2(arriving) => arriving.remaining(),
        }
    }

    /// Nothing follows.
    pub fn is_end(&self) -> bool {
        self.first.is_none() && matches!(self.rest, Rest::Done)
    }
}

#[cfg(test)]
mod tests;
