//! `GET /api/events` as a response body: the event stream, its heartbeats, and the three ways it ends.
//!
//! It ends with shutdown's *finish* phase, when whoever opened it is no longer let in, and when the client leaves. A
//! client that does not read is not waited for: its body is not polled, the ring overtakes it, and it is told of a gap.

use super::Admin;
use super::gate::{Gate, Operator};
use super::live::EventStream;
use crate::base::Clock;
use crate::base::tasks::{Drain, Phase};
use crate::server::body::{Body, Cut, Source};
use crate::state::bus::Bus;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::Response;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Notify;

static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
static X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The bus, and the bell that wakes its collector.
#[derive(Clone, Debug)]
pub struct LiveBus {
    /// Where cores send to.
    pub bus: Arc<Bus>,
    bell: Arc<Notify>,
}

struct Events {
    stream: EventStream,
    beat: Pin<Box<tokio::time::Sleep>>,
    finish: Pin<Box<dyn Future<Output = ()> + Send>>,
    gate: Arc<Gate>,
    operator: Operator,
}

impl LiveBus {
    /// Around `bus`.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self { bus, bell: Arc::default() }
    }

    /// Collects while somebody listens, sleeps while nobody does; until shutdown's end: requests that end late are seen
    /// by whoever watches on other instances.
    pub async fn collect(self, drain: Drain) {
        let end = drain.reached(Phase::Cut);
        tokio::pin!(end);
        loop {
            let next = async {
                if !self.bus.wanted() {
                    self.bell.notified().await;
                }
                let pace = tokio::time::sleep(self.bus.pace());
                tokio::select! {
                    () = pace => {}
                    // Somebody came: the slow pace is not for them.
                    () = self.bell.notified() => {}
                }
            };
            tokio::select! {
                () = next => {}
                () = &mut end => return,
            }
            self.bus.collect(Clock::now());
        }
    }
}

impl Admin {
    pub(super) fn events(&self, operator: Operator, headers: &HeaderMap) -> Response<Body> {
        let now = Clock::now();
        let last = headers.get(&LAST_EVENT_ID).and_then(|id| id.to_str().ok());
        let stream = EventStream::new(&self.live.bus, Arc::clone(&self.instance), last, now);
        self.live.bell.notify_one();
        let drain = self.drain.clone();
        let events = Events {
            beat: Box::pin(tokio::time::sleep(now.until(stream.beat_due()))),
            stream,
            finish: Box::pin(async move { drain.reached(Phase::Finish).await }),
            gate: Arc::clone(&self.gate),
            operator,
        };
        let mut response = Response::new(Body::stream(events));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_ACCEL_BUFFERING.clone(), HeaderValue::from_static("no"));
        response
    }
}

impl Source for Events {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        if self.finish.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        loop {
            let now = Clock::now();
            if let Poll::Ready(bytes) = self.stream.poll_next(cx, now) {
                return Poll::Ready(Some(Ok(bytes)));
            }
            if self.beat.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if !self.gate.still(&self.operator) {
                return Poll::Ready(None);
            }
            // Events put the heartbeat off: the timer is only moved when it fires. Never zero: that would spin.
            let rest = now.until(self.stream.beat_due()).max(Duration::from_millis(1));
            self.beat = Box::pin(tokio::time::sleep(rest));
        }
    }
}
