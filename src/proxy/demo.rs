//! The built-in `demo/echo` provider: answers from the request, so that the first `curl` works without any key.
//!
//! In the catalog only while no real account exists. It goes the way of every other target but for the wire.

use super::Question;
use super::settle::Ticket;
use crate::base::{Clock, Error};
use crate::dialect::echo;
use crate::server::Source;
use crate::server::body::Cut;
use bytes::Bytes;
use std::collections::VecDeque;
use std::task::{Context, Poll};

/// What `demo/echo` says to `question`.
pub(super) fn answer(question: &Question, ticket: &Ticket) -> Result<echo::Reply, Error> {
    let id = ticket.id.to_string();
    echo::answer(question.endpoint, &question.body, &ticket.requested_model, &id, Clock::unix_seconds())
}

/// Its events, one a frame.
pub(super) struct Events(pub(super) VecDeque<Bytes>);

impl Source for Events {
    fn poll_chunk(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}
