//! A kept answer as another request's own: the shared part of its head, this request's id and limits, no tokens.
//!
//! What of a head is kept is decided here, once for all who keep answers; nothing that names one request or one
//! caller's limits is.

use super::headers::{Values, ours};
use super::settle::Ticket;
use super::{answer, intake};
use crate::dialect::usage::Usage;
use crate::server::Body;
use crate::state::answer::{Answer as Kept, Head};
use http::Response;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};

/// What of a head is for everyone.
pub(super) fn shared(headers: &HeaderMap) -> HeaderMap {
    let own = |name: &HeaderName| {
        let name = name.as_str();
        name == "x-request-id"
            || name == "date"
            || name.starts_with("x-ratelimit-")
            || name.starts_with("anthropic-ratelimit-")
            || name == ours::CACHE.as_str()
            || name == ours::OVERHEAD.as_str()
    };
    headers.iter().filter(|(name, _)| !own(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A kept head as this request's own; `x-merido-cache` is what the ticket says.
pub(super) fn head(kept: &Head, ticket: &Ticket) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = kept.status;
    let mut headers = kept.headers.clone();
    headers.remove(CONTENT_LENGTH);
    answer::put_own(&mut headers, ticket, &mut Values::new());
    headers.insert(ours::CACHE.clone(), HeaderValue::from_static(ticket.cache.name()));
    headers.insert(intake::X_REQUEST_ID.clone(), answer::request_id(ticket));
    *response.headers_mut() = headers;
    response
}

/// A whole kept answer. Settles: no provider was asked, so it costs nothing.
pub(super) fn whole(kept: &Kept, ticket: Box<Ticket>) -> Response<Body> {
    let response = head(&kept.head, &ticket);
    ticket.done(kept.head.status.as_u16(), Some(Usage::default()), 0);
    response.map(|()| Body::full(kept.body.clone()))
}
