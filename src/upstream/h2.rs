//! HTTP/2 through hyper, for providers that ask for it: one connection per host and core, all calls multiplexed on it.
//!
//! Simple before fast: a call allocates, a deadline is an alarm of its own. A connection that ended (or is told to go
//! away) is replaced at the next call; a call hyper never put on the wire is repeated once.

use super::call::{Call, CallBody, CallError, CallErrorKind as Kind, Deadline, Reply};
use super::h1::{conn::Stream, head::checked};
use super::pool::Host;
use super::{BodyError, Inner, ReplyBody};
use crate::base::Pieces;
use crate::base::alarms::Alarm;
use crate::base::{Clock, Now, tasks};
use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// What one piece of an answer gathers at most.
const ROUND: usize = 64 * 1024;
/// Flow-control windows: a stream's and the connection's.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A host's connection.
#[derive(Debug, Default)]
pub(super) struct Slot {
    now: Mutex<Option<Live>>,
    /// Held while one connects, so that the others wait for it instead of connecting too.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Live {
    sender: SendRequest<Outgoing>,
    used: Now,
}

/// A body that is not all here yet.
#[derive(Debug)]
pub(super) struct Arriving {
    body: Incoming,
    alarm: Arc<Alarm>,
    idle: Duration,
    moved: bool,
    /// Met while gathering: told after what was gathered.
    late: Option<Result<(), CallError>>,
}

impl Slot {
    fn ready(&self, used: Now) -> Option<SendRequest<Outgoing>> {
        let mut now = self.now.lock();
        let live = now.as_mut()?;
        if live.sender.is_closed() {
            *now = None;
            return None;
        }
        live.used = used;
        Some(live.sender.clone())
    }

    /// Lets go of a connection unused for `idle`: it ends once its running streams have.
    pub(super) fn sweep(&self, now: Now, idle: Duration) {
        let mut slot = self.now.lock();
        if slot.as_ref().is_some_and(|live| live.sender.is_closed() || now.since(live.used) > idle) {
            *slot = None;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.now.lock().is_none()
    }
}

/// One call over HTTP/2.
pub(super) async fn call(inner: &Inner, call: &mut Call<'_>) -> Result<Reply, CallError> {
    let host = inner.pool.host(call.base, true);
    let headers = header_map(call)?;
    let uri = uri(call)?;
    let mut spare = match &call.body {
        CallBody::Pieces(pieces) => Some(pieces.clone()),
        CallBody::Stream(..) => None,
    };
    let mut body = Some(Outgoing(std::mem::replace(&mut call.body, CallBody::Pieces(Pieces::new()))));
    loop {
        let (sender, reused) = sender(inner, &host, call.base).await?;
        let mut request = http::Request::new(body.take().unwrap_or_default());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        *request.version_mut() = http::Version::HTTP_2;
        let alarm = inner.alarms.alarm();
        alarm.set(Clock::now() + call.first_byte);
        let answer = answer(sender, request, &alarm).await;
        match answer {
            Ok(answer) => {
                let (head, incoming) = answer.into_parts();
                let body = if incoming.is_end_stream() {
                    ReplyBody::whole(Bytes::new())
                } else {
                    ReplyBody::h2(Arriving { body: incoming, alarm, idle: call.idle, moved: true, late: None })
                };
                return Ok(Reply { status: head.status, headers: head.headers, body, reused });
            }
            // Never put on the wire: a connection that was told to go away, most likely.
            Err(error) if !error.sent && reused && spare.is_some() => {
                body = spare.take().map(|pieces| Outgoing(CallBody::Pieces(pieces)));
                host.h2.now.lock().take();
            }
            Err(error) => return Err(error),
        }
    }
}

async fn answer(
    mut sender: SendRequest<Outgoing>,
    request: http::Request<Outgoing>,
    alarm: &Alarm,
) -> Result<http::Response<Incoming>, CallError> {
    let mut waiting = pin!(sender.send_request(request));
    poll_fn(|cx| match waiting.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(answer.map_err(refused)),
        Poll::Pending if alarm.poll_fired(cx) => {
            Poll::Ready(Err(CallError::new(Kind::Timeout(Deadline::FirstByte), true)))
        }
        Poll::Pending => Poll::Pending,
    })
    .await
}

async fn sender(
    inner: &Inner,
    host: &Arc<Host>,
    base: &crate::state::catalog::BaseUrl,
) -> Result<(SendRequest<Outgoing>, bool), CallError> {
    if let Some(sender) = host.h2.ready(host.now()) {
        return Ok((sender, true));
    }
    let _turn = host.h2.connecting.lock().await;
    if let Some(sender) = host.h2.ready(host.now()) {
        return Ok((sender, true));
    }
    let stream = super::connect::connect(base, &inner.config.tls.http2, inner.config.connect).await?;
    if let Stream::Tls(tls) = &stream
        && tls.get_ref().1.alpn_protocol() != Some(b"h2")
    {
        return Err(CallError::because(Kind::Tls, false, "the provider does not speak HTTP/2"));
    }
    let open = host.opened();
    let handshake = Builder::new(Spawner)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(super::h1::head::MAX_HEAD as u32)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = match tokio::time::timeout(inner.config.connect, handshake).await {
        Ok(Ok(pair)) => pair,
        Ok(Err(error)) => return Err(CallError::because(Kind::Io, false, error)),
        Err(_) => return Err(CallError::new(Kind::Timeout(Deadline::Connect), false)),
    };
    // Ends by itself: with the provider's goodbye, or once no sender and no stream is left.
    drop(tasks::spawn("upstream-h2", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an HTTP/2 connection to a provider ended");
        }
        drop(open);
    }));
    *host.h2.now.lock() = Some(Live { sender: sender.clone(), used: host.now() });
    Ok((sender, false))
}

impl Arriving {
    pub(super) fn remaining(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// As for HTTP/1.1: everything that is there as one piece, `Ok(None)` for a clean end.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, CallError>> {
        if let Some(late) = self.late.take() {
            return Poll::Ready(late.map(|()| None));
        }
        let mut first = Bytes::new();
        let mut gathered = BytesMut::new();
        while first.len() + gathered.len() < ROUND {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.moved = true;
                    let Ok(data) = frame.into_data() else { continue };
                    if first.is_empty() {
                        first = data;
                    } else {
                        gathered.extend_from_slice(&std::mem::take(&mut first));
                        gathered.extend_from_slice(&data);
                        first = gathered.split().freeze();
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.late = Some(Err(broken(error)));
                    break;
                }
                Poll::Ready(None) => {
                    self.late = Some(Ok(()));
                    break;
                }
                Poll::Pending if first.is_empty() => {
                    if std::mem::take(&mut self.moved) {
                        self.alarm.set(Clock::now() + self.idle);
                    }
                    if self.alarm.poll_fired(cx) {
                        return Poll::Ready(Err(CallError::new(Kind::Timeout(Deadline::Idle), true)));
                    }
                    return Poll::Pending;
                }
                Poll::Pending => break,
            }
        }
        if !first.is_empty() {
            return Poll::Ready(Ok(Some(first)));
        }
        Poll::Ready(self.late.take().map_or(Ok(None), |late| late.map(|()| None)))
    }
}

/// An answer that did not come.
fn refused(error: hyper::Error) -> CallError {
    if error.is_canceled() {
        return CallError::because(Kind::Closed, false, error);
    }
    if error.is_user() {
        return CallError::because(Kind::ClientBody, true, error);
    }
    CallError::because(Kind::Io, true, error)
}

/// An answer that broke off.
fn broken(error: hyper::Error) -> CallError {
    CallError::because(Kind::Truncated, true, error)
}

fn uri(call: &Call<'_>) -> Result<http::Uri, CallError> {
    http::Uri::builder()
        .scheme(if call.base.tls { "https" } else { "http" })
        .authority(&*call.base.authority)
        .path_and_query(format!("{}{}", call.base.path, call.path))
        .build()
        .map_err(|_| CallError::new(Kind::Protocol("bad request path"), false))
}

fn header_map(call: &Call<'_>) -> Result<HeaderMap, CallError> {
    let mut headers = HeaderMap::new();
    let mut wrong = None;
    call.headers.visit(&mut |name, value| match checked(name, value) {
        Ok(true) => match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) => drop(headers.append(name, value)),
            _ => wrong = Some("bad request header"),
        },
        Ok(false) => {}
        Err(what) => wrong = Some(what),
    });
    wrong.map_or(Ok(headers), |what| Err(CallError::new(Kind::Protocol(what), false)))
}

/// A request's body on its way into hyper.
struct Outgoing(CallBody);

impl Default for Outgoing {
    fn default() -> Self {
        Self(CallBody::Pieces(Pieces::new()))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            CallBody::Pieces(pieces) => Poll::Ready(pieces.pop_front().map(|piece| Ok(Frame::data(piece)))),
            CallBody::Stream(stream, _) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            CallBody::Pieces(pieces) => pieces.is_empty(),
            CallBody::Stream(stream, _) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            CallBody::Pieces(pieces) => SizeHint::with_exact(pieces.len() as u64),
            CallBody::Stream(_, Some(length)) => SizeHint::with_exact(*length),
            CallBody::Stream(_, None) => SizeHint::new(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Spawner;

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        drop(tasks::spawn("upstream-h2-stream", work));
    }
}
