//! Access lines: one a request, to stderr.
//!
//! A data core puts a small record into a bounded queue and goes on; the control runtime formats what is there and
//! writes it in one piece, ten times a second. A full queue loses lines and counts them. What a caller sent stands in a
//! line escaped, and never is it a secret or a body.

mod format;

use super::auth::Caller;
use super::{Proxy, intake, refusal, shown_id};
use crate::base::metrics::METRICS;
use crate::base::tasks::{Drain, Phase};
use crate::base::telemetry::LogFormat;
use crate::base::{Clock, Error, Now, RequestId};
use crate::config::AccessLog;
use crate::dialect::Dialect;
use crate::server::peer::client_addr;
use crate::server::{Body, Peer};
use crate::state::catalog::Account;
use crate::state::usage::{CacheState, Tokens};
use crossbeam::queue::ArrayQueue;
use http::header::{HeaderMap, HeaderValue};
use hyper::Response;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// How often lines are written.
const EVERY: Duration = Duration::from_millis(100);
/// Room for what comes between two writes: everything, or what goes wrong.
const ROOM_ALL: usize = 16_384;
const ROOM_ERRORS: usize = 2_048;
/// Of a model's name a line keeps so many bytes.
const MODEL_MAX: usize = 256;

/// The endpoint of `/v1/models` and its like, in lines.
pub const LISTING: &str = "models";

/// The lines on their way out.
#[derive(Debug)]
pub struct AccessLines {
    all: bool,
    format: LogFormat,
    queue: ArrayQueue<Line>,
}

/// What a line says.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) unix_ms: u64,
    pub(super) id: RequestId,
    pub(super) client_request_id: Option<HeaderValue>,
    pub(super) caller: Caller,
    pub(super) endpoint: &'static str,
    pub(super) requested_model: Arc<str>,
    pub(super) target: Option<(Arc<Account>, Arc<str>)>,
    pub(super) status: u16,
    pub(super) stream: bool,
    pub(super) cache: CacheState,
    pub(super) attempts: u32,
    pub(super) tokens: Tokens,
    pub(super) latency: Duration,
    pub(super) first_byte: Option<Duration>,
    pub(super) overhead: Duration,
    pub(super) error: Option<&'static str>,
}

impl AccessLines {
    /// `None` when no line is wanted.
    pub fn new(which: AccessLog, format: LogFormat) -> Option<Self> {
        let (all, room) = match which {
            AccessLog::Off => return None,
            AccessLog::Errors => (false, ROOM_ERRORS),
            AccessLog::All => (true, ROOM_ALL),
        };
        Some(Self { all, format, queue: ArrayQueue::new(room) })
    }

    /// Writes until `stop` reaches [`Phase::Cut`], then what is left. `stop` must get there only when no request can
    /// end any more.
    pub async fn run(self: Arc<Self>, stop: Drain) {
        let mut batch = Vec::new();
        loop {
            let last = tokio::select! {
                () = tokio::time::sleep(EVERY) => false,
                () = stop.reached(Phase::Cut) => true,
            };
            self.gather(&mut batch);
            if !batch.is_empty() {
                // Nobody reads it: there is nobody to tell, either.
                let _ = std::io::stderr().write_all(&batch);
                batch.clear();
            }
            if last {
                return;
            }
        }
    }

    /// Whether an answer with `status` gets a line.
    pub(super) fn wants(&self, status: u16) -> bool {
        self.all || status >= 400
    }

    pub(super) fn push(&self, line: Line) {
        if self.queue.push(line).is_err() {
            METRICS.access_lines_dropped.inc();
        }
    }

    /// What is there now, at most one queue's worth: new lines must not keep it here.
    fn gather(&self, out: &mut Vec<u8>) {
        for _ in 0..self.queue.capacity() {
            let Some(line) = self.queue.pop() else { return };
            match self.format {
                LogFormat::Text => format::text(&line, out),
                LogFormat::Json => format::json(&line, out),
            }
        }
    }
}

/// A model's name as a line keeps it: the caller chose its length.
pub(super) fn short(model: &Arc<str>) -> Arc<str> {
    if model.len() <= MODEL_MAX {
        return Arc::clone(model);
    }
    let end = (0..=MODEL_MAX).rev().find(|end| model.is_char_boundary(*end)).unwrap_or(0);
    Arc::from(&model[..end])
}

impl Proxy {
    /// Answers with `error` before anything was read but the head; the request counts and gets its line.
    pub fn refuse(
        &self,
        dialect: Dialect,
        endpoint: &'static str,
        error: &Error,
        headers: &HeaderMap,
        peer: Peer,
    ) -> Response<Body> {
        let id = self.ids.next();
        self.refused(Clock::now(), id, endpoint, error, headers, peer);
        refusal(dialect, error, shown_id(headers, id))
    }

    pub(super) fn refused(
        &self,
        started: Now,
        id: RequestId,
        endpoint: &'static str,
        error: &Error,
        headers: &HeaderMap,
        peer: Peer,
    ) {
        let status = error.status();
        if status >= 500 {
            METRICS.requests_5xx.inc();
        } else {
            METRICS.requests_4xx.inc();
        }
        let Some(access) = self.shared.access.as_ref().filter(|access| access.wants(status)) else { return };
        let caller = Caller::Anonymous(client_addr(headers, peer, &self.shared.settings.trusted_proxies));
        let bare = bare(started, id, headers, caller, endpoint);
        access.push(Line { status, error: Some(error.kind.code()), ..bare });
    }

    /// A listing was answered.
    pub(super) fn listing_line(&self, started: Now, id: RequestId, headers: &HeaderMap, caller: Caller) {
        if let Some(access) = self.shared.access.as_ref().filter(|access| access.wants(200)) {
            access.push(bare(started, id, headers, caller, LISTING));
        }
    }
}

/// A line about a request that no provider heard of.
fn bare(started: Now, id: RequestId, headers: &HeaderMap, caller: Caller, endpoint: &'static str) -> Line {
    Line {
        unix_ms: Clock::unix_ms(),
        id,
        client_request_id: intake::client_request_id(headers),
        caller,
        endpoint,
        requested_model: Arc::from(""),
        target: None,
        status: 200,
        stream: false,
        cache: CacheState::Miss,
        attempts: 0,
        tokens: Tokens::default(),
        latency: Clock::now().since(started),
        first_byte: None,
        overhead: Duration::ZERO,
        error: None,
    }
}

#[cfg(test)]
mod tests;
