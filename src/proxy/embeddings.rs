//! A question's direction, asked of a provider's embeddings model: the similarity cache's one call of its own.
//!
//! It goes through the gateway's routing and upstream like any other, with one attempt and a deadline: a slow or failing
//! embedding must cost the client's request nothing but that time, so every failure is `None`. Nothing of the client's
//! head goes out. The call is a row of its own in log and usage, endpoint `embeddings`, under the asker's key and against
//! its budget (who is answered from memory because of it saved more); its limits are not touched, and client metrics do
//! not count it. A call cut off by the deadline is booked by estimate: the provider was told to stop, but may have worked.

use super::attempt::{Failed, settle_failure, settle_success};
use super::headers::{self, Outgoing};
use super::settle::{Outcome, Ticket};
use super::{Proxy, limit, trial};
use crate::base::{AccountId, Clock, Pieces};
use crate::dialect::usage::{self, Usage};
use crate::dialect::{Dialect, Endpoint, estimate};
use crate::routing::{Pick, Target, Tried, resolve};
use crate::state::semantic::Vector;
use crate::upstream::{Call, CallBody, CallError, Reply, ReplyBody};
use bytes::{Bytes, BytesMut};
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// What a similar question may cost in time at most, connecting included.
const DEADLINE: Duration = Duration::from_millis(300);
/// Longest text sent, in bytes: embeddings models take about 8,000 tokens.
const TEXT: usize = 32 << 10;
/// Largest answer read: 3,072 numbers are about 70 KB.
const REPLY: usize = 1 << 20;

#[derive(Deserialize)]
struct Embedded {
    data: Vec<One>,
}

#[derive(Deserialize)]
struct One {
    embedding: Vec<f32>,
}

/// The direction of `text` by `model` (`provider/model`), on behalf of `asker`'s caller.
pub(super) async fn vector(proxy: &Proxy, model: &Arc<str>, text: &str, asker: &Ticket) -> Option<Vector> {
    if text.len() > TEXT {
        return None;
    }
    // The operator chose the model: the caller's own list of models does not matter.
    let plan = resolve(&proxy.catalog(), None, model).ok()?;
    let (picked, trial, now) = trial::next(proxy, &plan, &mut Tried::default()).await;
    let Pick::Go(target, _) = picked else { return None };
    if target.account().provider.dialect != Dialect::OpenAi || target.account().id == AccountId(0) {
        return None;
    }
    let body = serde_json::json!({ "model": target.model.name(), "input": text }).to_string();
    let (shared, client_id) = (Arc::clone(&proxy.shared), asker.client_request_id.clone());
    let mut ticket = Ticket::open(shared, proxy.ids.next(), client_id, asker.caller.clone(), Endpoint::Embeddings, now);
    ticket.own = true;
    ticket.requested_model = Arc::clone(model);
    ticket.estimate = estimate::prompt_tokens(body.len());
    ticket.reserved = ticket.estimate;
    if limit::hold_budget(proxy, &mut ticket, &target).await.is_err() {
        ticket.failed(402, "budget_exceeded");
        return None;
    }
    ticket.begin(target.clone());
    let asked = tokio::time::timeout(DEADLINE, ask(proxy, &target, &ticket, body.into())).await;
    let (code, error) = match asked {
        Ok(Ok((usage, vector))) => {
            ticket.first_byte = Some(Clock::now());
            settle_success(proxy, &target, now, Clock::now());
            ticket.done(200, usage, 0);
            return vector;
        }
        Ok(Err(failed)) => {
            settle_failure(proxy, &target, &failed.judge(proxy, &target, false), now);
            (502, "embedding_failed")
        }
        // Our own impatience: it says nothing about the account.
        Err(_) => {
            ticket.outcome = Outcome::Broken { error: "embedding_timeout", usage: None, completion_estimate: 0 };
            return None;
        }
    };
    // A half-open account must see the verdict before the next attempt may probe it.
    drop(trial);
    ticket.failed(code, error);
    None
}

async fn ask(
    proxy: &Proxy,
    target: &Target,
    ticket: &Ticket,
    body: Bytes,
) -> Result<(Option<Usage>, Option<Vector>), Failed> {
    let account = target.account();
    let timeouts = &proxy.shared.settings.timeouts;
    let mut client = HeaderMap::new();
    client.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let request_id = headers::text(&ticket.id.to_string());
    let call = Call {
        base: &account.base,
        http2: account.provider.http2,
        method: &Method::POST,
        path: Endpoint::Embeddings.upstream_path(),
        headers: &Outgoing { client: &client, account, request_id: &request_id, trace: None, foreign: false },
        body: CallBody::Pieces(Pieces::from(body)),
        asked: Clock::now(),
        first_byte: timeouts.first_byte,
        idle: timeouts.stream_idle,
    };
    let reply: Reply = proxy.client.call(call).await.map_err(Failed::Call)?;
    if !reply.status.is_success() {
        return Err(Failed::read(reply, target).await);
    }
    let body = read(reply.body).await.map_err(Failed::Call)?;
    let embedded: Option<Embedded> = serde_json::from_slice(&body).ok();
    let raw = embedded.and_then(|mut embedded| embedded.data.pop()).map(|one| one.embedding);
    Ok((usage::from_body(Endpoint::Embeddings, &body), raw.and_then(Vector::new)))
}

/// The whole body, as far as it is not too large: half of one is no JSON, and a miss.
async fn read(mut body: ReplyBody) -> Result<Bytes, CallError> {
    if let Some(whole) = body.take_complete() {
        return Ok(whole);
    }
    let mut whole = BytesMut::new();
    while whole.len() <= REPLY {
        match std::future::poll_fn(|cx| body.poll_data(cx)).await {
            Some(data) => whole.extend_from_slice(&data?),
            None => break,
        }
    }
    Ok(whole.freeze())
}
