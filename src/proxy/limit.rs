//! The caller's limits: one decision, charged before a provider is asked.
//!
//! What is reserved here is put right when the request settles. A refusal tells which limit and when to come back. Where
//! others share the limits and no lease is in hand, this is the one step that waits for Redis: under a deadline, then
//! the policy decides. Refused because nobody could tell (`closed`) is our fault: 503 with `Retry-After`, never 429.

use super::auth::Caller;
use super::headers::Values;
use super::settle::Ticket;
use super::{Proxy, Shared, settle};
use crate::base::metrics::METRICS;
use crate::base::{Clock, Error, ErrorKind};
use crate::config::{OnRedisDown, Settings};
use crate::dialect::Dialect;
use crate::dialect::usage::Usage;
use crate::routing::Target;
use crate::state::buckets::{Limits, Which};
use crate::state::budgets::{BudgetHold, Seeking, Sought};
use crate::state::dedup;
use crate::state::desk::Policy;
use crate::state::limit_headers::{self, Family, for_each};
use crate::state::limiter::{Decision, LimitHeaders, Refusal, Taken, Waiting};
use crate::state::subject::Subject;
use http::header::{HeaderMap, HeaderName};
use std::time::Duration;

/// What keys without limits of their own, and anonymous callers, may use.
pub fn default_limits(settings: &Settings) -> Limits {
    Limits {
        rpm: settings.rate_limit_rpm,
        burst: settings.rate_limit_burst,
        tpm: settings.rate_limit_tpm,
        max_parallel: 0,
    }
}

/// What limits do while Redis is away.
pub fn limit_policy(settings: &Settings) -> Policy {
    match settings.rate_limit_on_redis_down {
        OnRedisDown::Open => Policy::Open,
        OnRedisDown::Local => Policy::Local,
        OnRedisDown::Closed => Policy::Closed,
    }
}

/// How much of finished answers and calls in flight is kept for identical requests.
pub fn dedup_limits(settings: &Settings) -> dedup::Limits {
    let kept = settings.dedup_max_bytes;
    dedup::Limits { ttl: settings.dedup_ttl, kept, answer: (8 << 20).min(kept), flying: kept }
}

/// Takes what the request needs from its caller's limits and leaves it in the ticket. `estimate`: prompt and output.
pub(super) async fn take(shared: &Shared, ticket: &mut Ticket, estimate: u64) -> Result<(), Error> {
    let (subject, limits) = match &ticket.caller {
        Caller::Key(key) => (Subject::Key(key.id), Limits::of(key, &shared.limits)),
        Caller::Anonymous(addr) => (Subject::Addr((*addr).into()), shared.limits),
    };
    ticket.reserved = estimate;
    if limits.is_none() {
        return Ok(());
    }
    let decision = match shared.limiter.ask(subject, &limits, ticket.id, estimate, ticket.started) {
        Taken::Now(decision) => decision,
        // Rare, and large: its future must not make every request's larger.
        Taken::Later(waiting) => Box::pin(word(waiting, shared.settings.redis_deadline)).await,
    };
    ticket.limits = Some(decision.headers);
    match decision.outcome {
        Ok(reservation) => {
            ticket.reservation = Some(reservation);
            Ok(())
        }
        Err(refusal) => {
            if refusal.which != Which::Away {
                METRICS.rate_limited.inc();
            }
            let what = match refusal.which {
                Which::Requests => "requests per minute",
                Which::Tokens => "tokens per minute",
                Which::Parallel => "requests at once",
                Which::Away => {
                    let why = "limits cannot be checked at the moment";
                    return Err(Error::new(ErrorKind::Unavailable, why).retry_after(refusal.retry_after));
                }
                Which::Budget => return Err(Error::new(ErrorKind::BudgetExceeded, "the budget is spent")),
            };
            Err(Error::new(ErrorKind::RateLimited, format!("rate limit reached: {what}"))
                .retry_after(refusal.retry_after))
        }
    }
}

/// The cluster's word, or the policy's once the deadline has passed.
async fn word(mut waiting: Waiting, deadline: Duration) -> Decision {
    match tokio::time::timeout(deadline, &mut waiting.answer).await {
        Ok(Ok(decision)) => decision,
        Ok(Err(_)) | Err(_) => waiting.alone(Clock::now()),
    }
}

/// Sets aside what the request may cost with `target`; an earlier target's hold is replaced. 402 once the key's budget
/// is spent. Models without a known price cost nothing here: they can't be budgeted.
pub(super) async fn hold_budget(proxy: &Proxy, ticket: &mut Ticket, target: &Target) -> Result<(), Error> {
    let Some((key, budget)) = ticket.caller.key().and_then(|key| Some((key.id, key.budget_nanos?))) else {
        return Ok(());
    };
    if let Some(hold) = ticket.budget.take() {
        hold.settle(ticket.attempts, 0);
    }
    let price = target.model.known().and_then(|model| model.price).unwrap_or_default();
    let completion = ticket.reserved.saturating_sub(ticket.estimate);
    let usage = Usage { prompt: ticket.estimate, completion, ..Usage::default() };
    let sought = match proxy.shared.budgets.ask(key, budget, settle::cost(&price, &usage), Clock::now()) {
        Sought::Now(sought) => sought,
        Sought::Later(seeking) => Box::pin(budgets_word(seeking, proxy.shared.settings.redis_deadline)).await,
    };
    match sought {
        Ok(hold) => {
            ticket.budget = Some(hold);
            Ok(())
        }
        Err(_) => Err(Error::new(ErrorKind::BudgetExceeded, "the budget of this API key is spent")),
    }
}

/// The cluster's word on a budget; what is known here once the deadline has passed: never open.
async fn budgets_word(mut seeking: Seeking, deadline: Duration) -> Result<BudgetHold, Refusal> {
    match tokio::time::timeout(deadline, &mut seeking.answer).await {
        Ok(Ok(granted)) => Seeking::told(granted),
        Ok(Err(_)) | Err(_) => seeking.alone(),
    }
}

/// Names that need no reading at each answer.
static OPENAI: [HeaderName; 6] = names(limit_headers::OPENAI);
static ANTHROPIC: [HeaderName; 6] = names(limit_headers::ANTHROPIC);

const fn names([limit, left, reset, limit_2, left_2, reset_2]: [&'static str; 6]) -> [HeaderName; 6] {
    [
        HeaderName::from_static(limit),
        HeaderName::from_static(left),
        HeaderName::from_static(reset),
        HeaderName::from_static(limit_2),
        HeaderName::from_static(left_2),
        HeaderName::from_static(reset_2),
    ]
}

/// Writes what the caller may know of its limits; ours take the place of the provider's.
pub(super) fn put_headers(limits: &LimitHeaders, dialect: Dialect, headers: &mut HeaderMap, values: &mut Values) {
    let mut put = |names: &'static [HeaderName; 6], which: usize, value: &str| {
        if let Some(name) = names.get(which) {
            headers.insert(name, values.text(&[value]));
        }
    };
    // Wall time is only asked for where a header says it.
    for_each(limits, Family::OpenAi, 0, |which, value| put(&OPENAI, which, value));
    if dialect == Dialect::Anthropic {
        for_each(limits, Family::Anthropic, Clock::unix_ms(), |which, value| put(&ANTHROPIC, which, value));
    }
}
