//! Traces: one span a request, to an OTLP/HTTP collector. Off unless an endpoint is set.
//!
//! A data core puts a small record into a bounded queue and goes on; the control runtime turns what gathered into one
//! message and sends it. A collector that is slow or away costs spans, which are counted, and never a request. What goes
//! out names models, accounts and keys by id; never a body, an address or a secret.

mod context;
mod format;

pub(super) use context::Trace;

use super::access::Line;
use crate::base::alarms::Alarms;
use crate::base::metrics::METRICS;
use crate::base::tasks::{Backoff, Drain, Phase};
use crate::base::{Clock, Pieces, RequestId};
use crate::config::Settings;
use crate::state::catalog::BaseUrl;
use crate::upstream::{Call, CallBody, Client, ClientConfig, Headers};
use bytes::Bytes;
use context::Chooser;
use crossbeam::queue::ArrayQueue;
use http::{HeaderMap, Method};
use std::sync::Arc;
use std::time::Duration;

/// How often spans are sent.
const EVERY: Duration = Duration::from_millis(500);
/// Room for what comes between two messages, or while one is under way.
const ROOM: usize = 8_192;
/// Spans in one message.
const BATCH: usize = 512;
/// One message's time, connecting included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Times a message is sent before it is given up.
const TRIES: u32 = 3;
/// Messages at the end: what is left then is lost.
const LAST: usize = ROOM / BATCH;

/// Spans on their way out.
#[derive(Debug)]
pub struct Traces {
    queue: ArrayQueue<Span>,
    chooser: Chooser,
    collector: BaseUrl,
    headers: Vec<(String, String)>,
    instance: String,
}

/// A request as a span.
#[derive(Debug)]
struct Span {
    trace: Trace,
    /// When it ended, Unix milliseconds.
    ended_ms: u64,
    cost_nanos: Option<i64>,
    line: Line,
}

/// What a message is sent with.
struct Sending<'a>(&'a [(String, String)]);

impl Traces {
    /// `None`: traces are off. What is wrong with the endpoint otherwise.
    pub fn new(settings: &Settings, instance: String, seed: u64) -> Result<Option<Self>, &'static str> {
        let Some(endpoint) = &settings.otlp_endpoint else { return Ok(None) };
        let headers = settings.otlp_headers.as_ref().map_or("", |headers| headers.reveal());
        let headers = headers.split(',').filter_map(|pair| pair.split_once('='));
        Ok(Some(Self {
            queue: ArrayQueue::new(ROOM),
            chooser: Chooser::new(settings.otlp_sample_ratio, seed),
            collector: BaseUrl::parse(endpoint)?,
            headers: headers.map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned())).collect(),
            instance,
        }))
    }

    /// What the request with these headers is in a trace.
    pub(super) fn begin(&self, headers: &HeaderMap, id: RequestId) -> Trace {
        self.chooser.begin(headers, id)
    }

    /// A request ended.
    pub(super) fn push(&self, trace: Trace, ended_ms: u64, cost_nanos: Option<i64>, line: Line) {
        if self.queue.push(Span { trace, ended_ms, cost_nanos, line }).is_err() {
            METRICS.spans_dropped.inc();
        }
    }

    /// Sends until `stop` reaches [`Phase::Cut`], then what is left. `stop` must get there only when no request can end
    /// any more.
    pub async fn run(self: Arc<Self>, upstream: ClientConfig, stop: Drain) {
        let client = Client::new(upstream, Arc::new(Alarms::default()));
        let mut backoff = Backoff::new(EVERY, Duration::from_secs(5), self.chooser.seed());
        let mut away = false;
        loop {
            let last = tokio::select! {
                () = tokio::time::sleep(EVERY) => false,
                () = stop.reached(Phase::Cut) => true,
            };
            client.sweep(Clock::now());
            for _ in 0..LAST {
                let batch = self.gather();
                if batch.is_empty() {
                    break;
                }
                let sent = self.deliver(&client, &batch, &mut backoff, last).await;
                if sent == away {
                    away = !sent;
                    if sent {
                        tracing::info!("the collector of traces is back");
                    } else {
                        tracing::warn!("the collector of traces does not take spans; they are dropped and counted");
                    }
                }
                if last && !sent {
                    break;
                }
            }
            if last {
                METRICS.spans_dropped.add(self.queue.len() as u64);
                return;
            }
        }
    }

    fn gather(&self) -> Vec<Span> {
        std::iter::from_fn(|| self.queue.pop()).take(BATCH).collect()
    }

    /// Whether the collector took them.
    async fn deliver(&self, client: &Client, batch: &[Span], backoff: &mut Backoff, last: bool) -> bool {
        let message = Bytes::from(format::message(batch, &self.instance));
        let count = batch.len() as u64;
        for tried in 1..=TRIES {
            let again = match tokio::time::timeout(PATIENCE, self.send(client, message.clone())).await {
                Ok(Some(200..=299)) => {
                    METRICS.spans_sent.add(count);
                    backoff.reset();
                    return true;
                }
                // What the protocol says may be sent again; anything else was refused for good.
                Ok(Some(status)) => matches!(status, 429 | 502 | 503 | 504),
                Ok(None) | Err(_) => true,
            };
            if !again || last || tried == TRIES {
                break;
            }
            tokio::time::sleep(backoff.wait()).await;
        }
        METRICS.spans_dropped.add(count);
        false
    }

    /// The status of the collector's answer; `None`: there was none.
    async fn send(&self, client: &Client, message: Bytes) -> Option<u16> {
        let call = Call {
            base: &self.collector,
            http2: false,
            method: &Method::POST,
            path: "/v1/traces",
            headers: &Sending(&self.headers),
            body: CallBody::Pieces(Pieces::from(message)),
            asked: Clock::now(),
            first_byte: PATIENCE,
            idle: PATIENCE,
        };
        let mut reply = client.call(call).await.ok()?;
        // Read to its end, so that the connection can be used again.
        while let Some(Ok(_)) = std::future::poll_fn(|cx| reply.body.poll_data(cx)).await {}
        Some(reply.status.as_u16())
    }
}

impl Headers for Sending<'_> {
    fn visit(&self, put: &mut dyn FnMut(&str, &[u8])) {
        put("content-type", b"application/json");
        for (name, value) in self.0 {
            put(name, value.as_bytes());
        }
    }
}
