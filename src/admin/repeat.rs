//! `Idempotency-Key`: the same request sent twice is done once and answered twice the same.
//!
//! The answer may hold a new key, so it is kept sealed and for ten minutes. Whoever crashes in between leaves the
//! request begun: a repeat then hears that, and never gets a second key. In the store, so any instance answers.

use super::Admin;
use super::asked::{Answer, refused, wrong};
use super::gate::Operator;
use crate::base::{Error, ErrorKind};
use crate::server::body::Body;
use crate::store::audit::Repeat;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A request that must be done once.
#[derive(Debug)]
pub(super) struct Once {
    id: [u8; 32],
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// It was done: status and body.
    Answered(Vec<u8>),
    /// It changed nothing and may be tried again.
    Refused,
    /// The store failed halfway: nobody knows whether it was done, so it stays begun.
    Unknown,
}

/// What to do with it.
#[derive(Debug)]
pub(super) enum Begun {
    /// No `Idempotency-Key`: nothing to remember.
    Plain,
    /// Do it, then say how it ended.
    First(Once),
    /// It was done.
    Done(Response<Body>),
}

impl Admin {
    pub(super) async fn begin(
        &self,
        operator: &Operator,
        headers: &HeaderMap,
        path: &str,
        body: &[u8],
    ) -> Result<Begun, Error> {
        let Some(key) = headers.get(&IDEMPOTENCY_KEY) else { return Ok(Begun::Plain) };
        let key = key.to_str().unwrap_or_default();
        if key.is_empty() || key.len() > 255 || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong("Idempotency-Key", "must be 1 to 255 visible characters"));
        }
        // Sessions come and go; whoever has the password is the same somebody.
        let (kind, who, _) = self.gate.identity(operator);
        let who = if kind == "token" { who.unwrap_or_default() } else { String::new() };
        let id = *blake3::Hasher::new_keyed(&self.repeat_key)
            .update(format!("{kind}\n{who}\n{key}").as_bytes())
            .finalize()
            .as_bytes();
        let request = *blake3::Hasher::new_keyed(&self.repeat_key)
            .update(path.as_bytes())
            .update(b"\n")
            .update(body)
            .finalize()
            .as_bytes();
        let conflict = |message: &'static str| Err(Error::new(ErrorKind::Conflict, message));
        match self.store.begin_repeat(id, request).await.map_err(|e| refused(&e))? {
            Repeat::First => Ok(Begun::First(Once { id })),
            Repeat::Pending { request: before } | Repeat::Answered { request: before, .. } if before != request => {
                Err(wrong("Idempotency-Key", "was used for another request"))
            }
            Repeat::Pending { .. } => conflict(
                "the first request with this Idempotency-Key has not been answered; look at the list before trying with \
                 another",
            ),
            Repeat::Answered { answer, .. } => match replay(&answer) {
                Some(response) => Ok(Begun::Done(response)),
                None => conflict("the first request with this Idempotency-Key was done; its answer is not known here"),
            },
        }
    }

    /// Keeps the answer of what was done, or forgets what was refused.
    pub(super) async fn end(&self, once: Once, ending: Ending) {
        let kept = match ending {
            Ending::Answered(kept) => Some(kept),
            Ending::Refused => None,
            Ending::Unknown => return,
        };
        if let Err(error) = self.store.end_repeat(once.id, kept.as_deref()).await {
            tracing::warn!(%error, "the answer of a repeatable request could not be kept");
        }
    }
}

impl Ending {
    pub(super) fn of(done: &Result<Answer, Error>) -> Self {
        match done {
            Ok(answer) => {
                let status = answer.response.status().as_u16().to_be_bytes();
                let body = answer.response.body().as_full().map_or(&[][..], |body| body);
                Self::Answered([&status[..], body].concat())
            }
            Err(error) if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Internal) => Self::Unknown,
            Err(_) => Self::Refused,
        }
    }
}

fn replay(kept: &[u8]) -> Option<Response<Body>> {
    let (status, body) = kept.split_first_chunk::<2>()?;
    let mut response = Response::new(Body::full(body.to_vec()));
    *response.status_mut() = StatusCode::from_u16(u16::from_be_bytes(*status)).ok()?;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(REPLAYED.clone(), HeaderValue::from_static("true"));
    Some(response)
}
