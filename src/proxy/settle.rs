//! The end of a request, exactly once, however it came: done, failed, refused, or the client left.
//!
//! A [`Ticket`] is made when the caller is known and travels with the request into its reply's body; dropping it
//! settles. So nothing can forget to settle, and nothing can settle twice. It touches memory only: rows and events go
//! to bounded queues that others drain.

use super::auth::Caller;
use super::Shared;
use crate::base::metrics::METRICS;
use crate::base::{Clock, ModelId, Now, RequestId};
use crate::dialect::usage::Usage;
use crate::dialect::Endpoint;
use crate::routing::Target;
use crate::state::usage::{LogRow, UsageKey};
use http::HeaderValue;
use std::sync::Arc;
use std::time::Duration;

/// One request's account of itself.
pub(super) struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) id: RequestId,
    pub(super) client_request_id: Option<HeaderValue>,
    pub(super) caller: Caller,
    pub(super) endpoint: Endpoint,
    pub(super) started: Now,
    pub(super) requested_model: Arc<str>,
    pub(super) stream: bool,
    /// Prompt tokens by our estimate: what is charged when the provider reports none.
    pub(super) estimate: u64,
    /// Where it went last.
    pub(super) target: Option<Target>,
    pub(super) attempts: u32,
    pub(super) first_byte: Option<Now>,
    /// Our own time before the provider was asked and after it began to answer.
    pub(super) overhead: Duration,
    pub(super) outcome: Outcome,
    pub(super) reservation: Option<crate::state::limiter::Reservation>,
    _running: crate::base::metrics::GaugeGuard,
}

/// How it ended. `Abandoned` until something better is known: a drop without a word is a client that left.
pub(super) enum Outcome {
    /// The client left before the answer was whole; what was relayed until then.
    Abandoned { status: u16, usage: Option<Usage>, completion_estimate: u64, relayed: bool },
    /// The answer went out whole.
    Done { status: u16, usage: Option<Usage>, completion_estimate: u64 },
    /// The answer broke off after its head had gone out.
    Broken { error: &'static str, usage: Option<Usage>, completion_estimate: u64 },
    /// We answered with an error of ours or the provider's.
    Failed { status: u16, error: &'static str },
}

impl Ticket {
    pub(super) fn open(
        shared: Arc<Shared>,
        id: RequestId,
        client_request_id: Option<HeaderValue>,
        caller: Caller,
        endpoint: Endpoint,
        started: Now,
    ) -> Self {
        Self {
            shared,
            id,
            client_request_id,
            caller,
            endpoint,
            started,
            requested_model: Arc::from(""),
            stream: false,
            estimate: 0,
            target: None,
            attempts: 0,
            first_byte: None,
            overhead: Duration::ZERO,
            outcome: Outcome::Abandoned { status: 499, usage: None, completion_estimate: 0, relayed: false },
            reservation: None,
            _running: METRICS.requests_running.guard(),
        }
    }

    /// The answer went out whole (or is about to, in one write).
    pub(super) fn done(mut self, status: u16, usage: Option<Usage>, completion_estimate: u64) {
        self.outcome = Outcome::Done { status, usage, completion_estimate };
    }

    /// It failed with an answer of ours.
    pub(super) fn failed(mut self, status: u16, error: &'static str) {
        self.outcome = Outcome::Failed { status, error };
    }

    fn settle(&mut self) {
        let now = Clock::now();
        let took = now.since(self.started);
        METRICS.request_seconds.observe_micros(took.as_micros() as u64);
        METRICS.overhead_before_seconds.observe_micros(self.overhead.as_micros() as u64);
        if let Some(first) = self.first_byte {
            METRICS.first_byte_seconds.observe_micros(first.micros_since(self.started));
        }
        let (status, usage, estimated, error) = match &self.outcome {
            Outcome::Done { status, usage, completion_estimate } => {
                let (usage, estimated) = self.or_estimate(*usage, *completion_estimate);
                (*status, usage, estimated, None)
            }
            Outcome::Abandoned { status, usage, completion_estimate, relayed } => {
                METRICS.requests_abandoned.inc();
                // Nothing had come back yet: the provider may have worked on the prompt, and was told to stop.
                let (usage, estimated) = if *relayed {
                    self.or_estimate(*usage, *completion_estimate)
                } else if self.attempts > 0 {
                    (Usage { prompt: self.estimate, ..Usage::default() }, true)
                } else {
                    (Usage::default(), false)
                };
                (*status, usage, estimated, Some("client_gone"))
            }
            Outcome::Broken { error, usage, completion_estimate } => {
                let (usage, estimated) = self.or_estimate(*usage, *completion_estimate);
                (502, usage, estimated, Some(*error))
            }
            Outcome::Failed { status, error } => (*status, Usage::default(), false, Some(*error)),
        };
        match status {
            200..=299 => METRICS.requests_2xx.inc(),
            500.. => METRICS.requests_5xx.inc(),
            _ => METRICS.requests_4xx.inc(),
        }
        METRICS.tokens_prompt.add(usage.prompt);
        METRICS.tokens_completion.add(usage.completion);
        if let Some(reservation) = self.reservation.take() {
            // A request that reached no provider, or that one refused, used no tokens.
            reservation.settle(usage.prompt + usage.completion, now);
        }
        self.record(now, took, status, usage, estimated, error);
    }

    fn or_estimate(&self, usage: Option<Usage>, completion_estimate: u64) -> (Usage, bool) {
        match usage {
            Some(usage) => (usage, false),
            None => {
                (Usage { prompt: self.estimate, completion: completion_estimate, ..Usage::default() }, true)
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.settle();
    }
}
