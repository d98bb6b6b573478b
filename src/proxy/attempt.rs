//! From plan to answer: pick a target, send, judge, take the next; until a provider's first byte is on its way out.
//!
//! Before that byte a failure costs the client nothing but time: the next target is asked. After it there is no second
//! try. What a failure means is decided in `routing/verdict`; here it is only carried out.

use super::headers::{self, Outgoing};
use super::multipart::Form;
use super::settle::Ticket;
use super::{Proxy, Question, demo};
use crate::base::{Clock, Error, ErrorKind, Now};
use crate::dialect::echo::Echo;
use crate::dialect::splice::splice;
use crate::dialect::{Dialect, Endpoint};
use crate::routing::pick::{Pick, Picker};
use crate::routing::verdict::{Failure, Next, judge};
use crate::routing::{self, Plan, Target};
use crate::upstream::{Call, CallBody, CallError, Reply};
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

/// How much of a provider's error is read to judge it and pass it on.
const ERROR_BODY: usize = 64 << 10;
/// How long a provider may take over its error's body.
const ERROR_BODY_WAIT: Duration = Duration::from_secs(5);

/// What the client gets.
pub(super) enum Answer {
    /// A provider's good answer, to be relayed.
    Reply(Reply),
    /// A provider's refusal, passed on as it is.
    Refusal { status: StatusCode, headers: HeaderMap, body: Bytes },
    /// The built-in demo's.
    Demo(Echo),
}

/// Asks the targets of the question's model in turn.
pub(super) async fn run(proxy: &Proxy, question: &Question, ticket: &mut Ticket) -> Result<Answer, Error> {
    let plan = plan(proxy, ticket)?;
    let mut picker = Picker::new(&plan, ticket.id.n ^ ticket.started.as_nanos());
    let mut last: Option<Last> = None;
    loop {
        let now = Clock::now();
        let (target, probe) = match picker.next(now) {
            Pick::Go(target, probe) => (target, probe),
            Pick::AllResting(resting) => return last.map_or_else(|| Err(resting.error(now)), Last::into_answer),
            Pick::Exhausted => return last.unwrap_or(Last::Nothing).into_answer(),
        };
        ticket.enter(&target, now);
        if target.is_demo() {
            return demo::answer(question, ticket.id).map(Answer::Demo);
        }
        let sent = send(proxy, question, &target, ticket).await;
        let failed = match sent {
            Ok(reply) if reply.status.as_u16() < 400 => {
                let now = Clock::now();
                ticket.answered(now);
                picker.succeeded(&target, probe, ticket.attempt_started, now);
                return Ok(Answer::Reply(reply));
            }
            Ok(reply) => Failed::read(reply).await,
            Err(error) => Failed::Call(error),
        };
        let now = Clock::now();
        let failure = failed.failure(question.stream);
        let verdict = judge(&failure, question.endpoint.dialect(), &target, proxy.rests(), Clock::unix_ms());
        picker.failed(&target, probe, &verdict, ticket.attempt_started, now);
        tracing::debug!(request = %ticket.id, account = &*target.account.label, ?verdict, "an attempt failed");
        match verdict.next {
            Next::Pass => return failed.into_last(&verdict).into_answer(),
            Next::Stop => return failed.into_last(&verdict).into_answer(),
            Next::Retry => last = Some(failed.into_last(&verdict)),
        }
    }
}
