//! The end of a request, exactly once, however it came: done, failed, refused, or the client left.
//!
//! A [`Ticket`] is made when the caller is known and travels with the request into its reply's body; dropping it
//! settles. So nothing can forget to settle, and nothing can settle twice. It touches memory only: rows and events go
//! to bounded queues that others drain.

use super::access::{self, Line};
use super::auth::Caller;
use super::semantic::Keep;
use super::timeline::Timeline;
use super::traces::Trace;
use super::{Shared, events};
use crate::base::metrics::METRICS;
use crate::base::{AccountId, Clock, KeyId, Now, RequestId};
use crate::dialect::Endpoint;
use crate::dialect::usage::Usage;
use crate::routing::Target;
use crate::state::budgets::BudgetHold;
use crate::state::catalog::Price;
use crate::state::limiter::{LimitHeaders, Reservation};
use crate::state::live::Running;
use crate::state::usage::{CacheState, Counts, LogRow, Tokens};
use http::HeaderValue;
use std::sync::Arc;
use std::time::Duration;

/// The status of a request whose client left before it had one.
const LEFT: u16 = 499;

/// One request's account of itself.
pub(super) struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) id: RequestId,
    pub(super) client_request_id: Option<HeaderValue>,
    /// The client's name for the request, else ours.
    pub(super) shown_id: HeaderValue,
    pub(super) caller: Caller,
    pub(super) endpoint: Endpoint,
    /// Where the provider is asked: the same endpoint, or its counterpart in another dialect.
    pub(super) asked_at: Endpoint,
    pub(super) started: Now,
    pub(super) requested_model: Arc<str>,
    pub(super) stream: bool,
    /// Prompt tokens by our estimate: what is charged when the provider reports none.
    pub(super) estimate: u64,
    /// Prompt and output by our estimate: what limits and budget set aside.
    pub(super) reserved: u64,
    /// Dollars set aside.
    pub(super) budget: Option<BudgetHold>,
    /// Where it went last.
    pub(super) target: Option<Target>,
    pub(super) attempts: u32,
    pub(super) timeline: Timeline,
    pub(super) first_byte: Option<Now>,
    /// Our own time before the provider was asked and after it began to answer.
    pub(super) overhead: Duration,
    /// Since when the request has been in our own hands.
    pub(super) ours_since: Now,
    pub(super) outcome: Outcome,
    /// When, where that is known already.
    pub(super) ended: Option<Now>,
    /// Whether a provider was asked for this at all.
    pub(super) cache: CacheState,
    pub(super) reservation: Option<Reservation>,
    /// What it is in a trace; `None`: traces are off.
    pub(super) trace: Option<Trace>,
    /// The attempt now running, counted on its account.
    pub(super) running: Option<Running>,
    pub(super) limits: Option<LimitHeaders>,
    /// Where its answer is to be kept for similar questions.
    pub(super) keep: Option<Box<Keep>>,
    /// A call of ours on the caller's behalf: no client waits for it, so what counts clients' requests leaves it out.
    pub(super) own: bool,
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
    ) -> Box<Self> {
        // In a box: it goes through many hands.
        Box::new(Self {
            shared,
            id,
            shown_id: client_request_id.clone().unwrap_or_else(|| id.header()),
            client_request_id,
            caller,
            endpoint,
            asked_at: endpoint,
            started,
            requested_model: Arc::from(""),
            stream: false,
            estimate: 0,
            reserved: 0,
            budget: None,
            target: None,
            attempts: 0,
            timeline: Timeline::default(),
            first_byte: None,
            overhead: Duration::ZERO,
            ours_since: started,
            outcome: Outcome::Abandoned { status: LEFT, usage: None, completion_estimate: 0, relayed: false },
            ended: None,
            cache: CacheState::Miss,
            reservation: None,
            running: None,
            trace: None,
            limits: None,
            keep: None,
            own: false,
            _running: METRICS.requests_running.guard(),
        })
    }

    /// An attempt begins, in the client's own dialect until said otherwise.
    pub(super) fn begin(&mut self, target: Target) {
        self.asked_at = self.endpoint;
        self.running = Some(target.seat.live.enter());
        self.target = Some(target);
        self.attempts += 1;
        if self.attempts == 1 {
            events::started(self);
        }
    }

    /// The answer went out whole (or is about to, in one write).
    pub(super) fn done(mut self: Box<Self>, status: u16, usage: Option<Usage>, completion_estimate: u64) {
        self.outcome = Outcome::Done { status, usage, completion_estimate };
    }

    /// It failed with an answer of ours.
    pub(super) fn failed(mut self: Box<Self>, status: u16, error: &'static str) {
        self.outcome = Outcome::Failed { status, error };
    }

    fn settle(&mut self) {
        let now = self.ended.unwrap_or_else(Clock::now);
        let took = now.since(self.started);
        let (status, usage, estimated, error) = match &self.outcome {
            Outcome::Done { status, usage, completion_estimate } => {
                let (usage, estimated) = self.or_estimate(*usage, *completion_estimate);
                (*status, usage, estimated, None)
            }
            Outcome::Abandoned { status, usage, completion_estimate, relayed } => {
                // Nothing had come back yet: the provider may have worked on the prompt, and was told to stop.
                let (usage, estimated) = if *relayed {
                    self.so_far(*usage, *completion_estimate)
                } else if self.attempts > 0 {
                    (Usage { prompt: self.estimate, ..Usage::default() }, true)
                } else {
                    (Usage::default(), false)
                };
                (*status, usage, estimated, Some("client_gone"))
            }
            Outcome::Broken { error, usage, completion_estimate } => {
                let (usage, estimated) = self.so_far(*usage, *completion_estimate);
                (502, usage, estimated, Some(*error))
            }
            Outcome::Failed { status, error } => (*status, Usage::default(), false, Some(*error)),
        };
        if !self.own {
            self.count(status, now);
        }
        METRICS.tokens_prompt.add(usage.prompt);
        METRICS.tokens_completion.add(usage.completion);
        if let Some(reservation) = self.reservation.take() {
            // A request that reached no provider, or that one refused, used no tokens.
            reservation.settle(self.attempts, usage.prompt + usage.completion, now);
        }
        let cost_nanos = self.cost_nanos(&usage);
        if let Some(hold) = self.budget.take() {
            hold.settle(self.attempts, cost_nanos.unwrap_or(0));
        }
        events::completed(self, took, status, &usage, error);
        self.record(now, cost_nanos, status, usage, estimated, error);
    }

    /// What an answer that broke off used. Anthropic's streams begin with one token of output and name the real number
    /// at their end only: until then what was relayed is the better count.
    fn so_far(&self, usage: Option<Usage>, completion_estimate: u64) -> (Usage, bool) {
        match usage {
            Some(usage) if self.stream && self.asked_at == Endpoint::Messages => {
                let completion = usage.completion.max(completion_estimate);
                (Usage { completion, ..usage }, completion > usage.completion)
            }
            usage => self.or_estimate(usage, completion_estimate),
        }
    }

    fn count(&self, status: u16, now: Now) {
        METRICS.request_seconds.observe_micros(now.micros_since(self.started));
        METRICS.overhead_before_seconds.observe_micros(self.overhead.as_micros() as u64);
        if let Some(first) = self.first_byte {
            METRICS.first_byte_seconds.observe_micros(first.micros_since(self.started));
        }
        if matches!(self.outcome, Outcome::Abandoned { .. }) {
            METRICS.requests_abandoned.inc();
        }
        match status {
            200..=299 => METRICS.requests_2xx.inc(),
            500.. => METRICS.requests_5xx.inc(),
            _ => METRICS.requests_4xx.inc(),
        }
    }

    fn or_estimate(&self, usage: Option<Usage>, completion_estimate: u64) -> (Usage, bool) {
        match usage {
            Some(usage) => (usage, false),
            None => (Usage { prompt: self.estimate, completion: completion_estimate, ..Usage::default() }, true),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Ticket {
    /// In nanodollars; `None`: it was sent to a model of which no price is known. What reached no provider cost nothing.
    pub(super) fn cost_nanos(&self, usage: &Usage) -> Option<i64> {
        let Some(target) = &self.target else { return Some(0) };
        target.model.known().and_then(|model| model.price).map(|price| cost(&price, usage))
    }

    fn record(
        &self,
        now: Now,
        cost_nanos: Option<i64>,
        status: u16,
        usage: Usage,
        estimated: bool,
        error: Option<&'static str>,
    ) {
        let took = now.since(self.started);
        let unix_ms = Clock::unix_ms_at(now);
        let tokens = Tokens {
            prompt: usage.prompt,
            completion: usage.completion,
            cache_read: usage.cache_read,
            cache_write: usage.cache_write,
            reasoning: usage.reasoning,
        };
        // Who hung up did not get an error, and the account that was working on it did nothing wrong.
        let failed = status >= 400 && status != LEFT;
        if let Some(access) = self.shared.access.as_ref().filter(|access| access.wants(status)) {
            access.push(self.line(unix_ms, took, status, tokens, error));
        }
        if let (Some(traces), Some(trace)) = (&self.shared.traces, self.trace.filter(|trace| trace.sampled)) {
            // Who knows an attribute's name knows what it holds: the span takes the same values as the row.
            traces.push(trace, unix_ms, cost_nanos, self.line(unix_ms, took, status, tokens, error));
        }
        let key = self.caller.key();
        let account = self.target.as_ref().map(Target::account);
        let name = self.target.as_ref().map(|target| target.model.shared_name());
        let counts = Counts::one(tokens, cost_nanos.unwrap_or(0), failed);
        let minute = (unix_ms / 60_000) as u32;
        let (key_id, account_id) = (key.map_or(KeyId(0), |key| key.id), account.map_or(AccountId(0), |one| one.id));
        // A name that led nowhere is the caller's invention: it must not make totals of its own.
        self.shared.usage.add(key_id, account_id, name.unwrap_or(&self.shared.no_model), minute, &counts);
        self.shared.usage.log(status >= 400, unix_ms, || LogRow {
            id: self.id,
            time_ms: unix_ms.saturating_sub(took.as_millis() as u64),
            client_request_id: self.client_request_id.as_ref().and_then(|id| id.to_str().ok()).map(Arc::from),
            key: key.cloned(),
            endpoint: self.endpoint,
            requested_model: Arc::clone(&self.requested_model),
            account: account.cloned(),
            model: name.map(Arc::clone),
            status,
            stream: self.stream,
            cache: self.cache,
            attempts: self.attempts,
            timeline: self.timeline.text(self.attempts, self.target.as_ref(), status),
            tokens,
            cost_nanos,
            latency_ms: took.as_millis() as u32,
            first_byte_ms: self.first_byte.map(|first| first.since(self.started).as_millis() as u32),
            overhead_us: self.overhead.as_micros() as u32,
            error: error.map(Box::from),
            estimated,
            sampled: 1,
        });
    }

    fn line(&self, unix_ms: u64, took: Duration, status: u16, tokens: Tokens, error: Option<&'static str>) -> Line {
        Line {
            unix_ms,
            id: self.id,
            client_request_id: self.client_request_id.clone(),
            caller: self.caller.clone(),
            endpoint: self.endpoint.name(),
            requested_model: access::short(&self.requested_model),
            target: self.target.as_ref().map(|to| (Arc::clone(to.account()), Arc::clone(to.model.shared_name()))),
            status,
            stream: self.stream,
            cache: self.cache,
            attempts: self.attempts,
            tokens,
            latency: took,
            first_byte: self.first_byte.map(|first| first.since(self.started)),
            overhead: self.overhead,
            error,
        }
    }
}

/// What `usage` costs, in nanodollars. Cached prompt tokens are part of the prompt and have prices of their own.
pub(super) fn cost(price: &Price, usage: &Usage) -> i64 {
    let plain = usage.prompt.saturating_sub(usage.cache_read).saturating_sub(usage.cache_write);
    let parts = [
        (plain, price.input),
        (usage.cache_read, price.cache_read),
        (usage.cache_write, price.cache_write),
        (usage.completion, price.output),
    ];
    let pico: u128 = parts.iter().map(|(tokens, each)| u128::from(*tokens) * u128::from(*each)).sum();
    i64::try_from(pico / 1000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_cost_what_they_cost_and_are_not_counted_twice() {
        let price = Price { input: 2_000_000, output: 8_000_000, cache_read: 500_000, cache_write: 2_500_000 };
        let usage = Usage { prompt: 1000, completion: 100, cache_read: 400, cache_write: 100, reasoning: 50 };
        // 500 × 2 µ$ + 400 × 0.5 + 100 × 2.5 + 100 × 8 = 2,250 µ$
        assert_eq!(cost(&price, &usage), 2_250_000);
        assert!(cost(&price, &Usage { cache_read: u64::MAX, ..usage }) > 0);
    }
}
