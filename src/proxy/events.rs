//! A request's two live events. Nothing is built while nobody watches: one load each.
//!
//! Both go by the lane of the request's core, which its number tells: `started` never overtakes `completed`. A request
//! that reached no provider has no `started`.

use super::settle::Ticket;
use crate::base::Clock;
use crate::dialect::usage::Usage;
use crate::routing::Target;
use crate::state::bus::{Done, Event, Tokens};
use std::sync::Arc;
use std::time::Duration;

/// The first attempt begins.
pub(super) fn started(ticket: &Ticket) {
    ticket.shared.bus.emit_with(ticket.id.n as usize, || event(ticket, None));
}

/// It is over.
pub(super) fn completed(ticket: &Ticket, took: Duration, status: u16, usage: &Usage, error: Option<&'static str>) {
    ticket.shared.bus.emit_with(ticket.id.n as usize, || {
        let done = Done {
            status,
            cache: ticket.cache,
            attempts: u16::try_from(ticket.attempts).unwrap_or(u16::MAX),
            tokens: tokens(usage),
            cost_nanos: ticket.cost_nanos(usage).map(|nanos| nanos.max(0).cast_unsigned()),
            latency_micros: took.as_micros() as u64,
            first_byte_micros: ticket.first_byte.map(|first| first.micros_since(ticket.started)),
            overhead_micros: ticket.overhead.as_micros() as u64,
            error,
        };
        event(ticket, Some(done))
    });
}

fn event(ticket: &Ticket, done: Option<Done>) -> Event {
    let target = ticket.target.as_ref();
    Event {
        request: ticket.id,
        unix_ms: Clock::unix_ms(),
        client_request_id: ticket.client_request_id.as_ref().and_then(|id| id.to_str().ok()).map(Arc::from),
        key: ticket.caller.key().cloned(),
        dialect: ticket.endpoint.dialect(),
        stream: ticket.stream,
        requested_model: Arc::clone(&ticket.requested_model),
        account: target.map(Target::account).cloned(),
        model: target.map(|target| Arc::clone(target.model.shared_name())),
        done,
    }
}

fn tokens(usage: &Usage) -> Tokens {
    // What a provider reports is its word: an absurd number is shown as the largest, not wrapped around.
    let count = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
    Tokens {
        prompt: count(usage.prompt),
        completion: count(usage.completion),
        cache_read: count(usage.cache_read),
        cache_write: count(usage.cache_write),
        reasoning: count(usage.reasoning),
    }
}
