//! What a failure means: whose fault it is, who rests for it and for how long, and whether another target is tried.
//!
//! One table, row by row. A caller must not be able to rest anybody: what the request caused is passed through, and
//! free text is only believed where callers cannot put their own words into it. Judging allocates (it reads an error's
//! body as JSON); it happens on failures only.

mod words;

use super::reset;
use crate::base::ErrorKind;
use crate::config::BreakerSettings;
use crate::dialect::Dialect;
use crate::state::rest::{Breaker, Cost, Penalty, Reason};
use std::time::Duration;
use words::Words;

/// Bytes of an error's body that are read; more says nothing new.
pub const BODY: usize = 16 * 1024;

/// Response headers, whoever holds them. Names are asked for in lower case.
pub trait HeaderView {
    /// The first value of that name.
    fn get(&self, name: &str) -> Option<&[u8]>;
}

/// How an attempt failed.
#[derive(Clone, Copy)]
pub enum Failure<'a> {
    /// The provider answered, and not with 2xx.
    Answer {
        /// Its status.
        status: u16,
        /// Its headers.
        headers: &'a dyn HeaderView,
        /// Its body, or the beginning of it.
        body: &'a [u8],
    },
    /// No connection: name, TCP or TLS failed, or took too long.
    Connect,
    /// The connection ended before the answer was whole.
    Closed,
    /// Nothing came in time.
    FirstByteTimeout {
        /// The call was for a stream.
        stream: bool,
    },
    /// The answer began and then nothing more came.
    IdleTimeout {
        /// The call was for a stream.
        stream: bool,
    },
    /// The answer is not HTTP, or not what the endpoint answers.
    Protocol,
    /// No permit or descriptor of ours was left.
    OurOverload,
    /// The client left.
    ClientLeft,
}

/// Who is judged.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// The numbers.
    pub settings: &'a BreakerSettings,
    /// What the provider speaks.
    pub dialect: Dialect,
    /// The model is in the catalog; false for a name that only the caller vouches for.
    pub known: bool,
    /// Wall time in milliseconds, for dates in headers.
    pub unix_ms: u64,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// The client's fault: pass the provider's answer on as it is.
    Pass,
    /// Try the next target, as long as nothing was sent to the client.
    Retry,
    /// No other target: answer with this.
    Stop(ErrorKind),
    /// Nobody is there to answer.
    Drop,
}

/// What a failure means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// What comes next.
    pub next: Next,
    /// Who rests for it: for `AccountLive::punish`.
    pub penalty: Penalty,
    /// When nothing else is left, the client may read the provider's own answer. False where that speaks of our
    /// account (its credential, its bill): then it is a 502.
    pub relay: bool,
}

impl Judge<'_> {
    /// The verdict on `failure`.
    pub fn judge(&self, failure: &Failure<'_>) -> Verdict {
        let failed = Verdict { next: Next::Retry, penalty: Penalty::CountFailure(self.breaker()), relay: true };
        let nobody = Verdict { next: Next::Retry, penalty: Penalty::None, relay: true };
        match *failure {
            Failure::Answer { status, headers, body } => self.answer(status, headers, body, failed, nobody),
            Failure::Connect
            | Failure::Closed
            | Failure::Protocol
            | Failure::FirstByteTimeout { stream: true }
            | Failure::IdleTimeout { stream: true } => failed,
            // It may have been paid: neither tried again nor held against a provider that may only be thinking.
            Failure::FirstByteTimeout { stream: false } => {
                Verdict { next: Next::Stop(ErrorKind::UpstreamTimeout), ..nobody }
            }
            // It answered and then stalled: paid as well, but no longer innocent.
            Failure::IdleTimeout { stream: false } => {
                Verdict { next: Next::Stop(ErrorKind::UpstreamTimeout), ..failed }
            }
            Failure::OurOverload => Verdict { next: Next::Stop(ErrorKind::Overloaded), ..nobody },
            Failure::ClientLeft => Verdict { next: Next::Drop, ..nobody },
        }
    }

    fn answer(&self, status: u16, headers: &dyn HeaderView, body: &[u8], failed: Verdict, nobody: Verdict) -> Verdict {
        let pass = Verdict { next: Next::Pass, ..nobody };
        // Neither success nor error: nothing the client could use (a redirect would leave with the credential).
        if !(400..600).contains(&status) {
            return Verdict { relay: false, ..failed };
        }
        if status >= 500 {
            return failed;
        }
        let words = Words::read(&body[..body.len().min(BODY)]);
        let own = |penalty| Verdict { next: Next::Retry, penalty, relay: false };
        match status {
            401 => own(self.refused()),
            // Larger than the account's whole minute or credit: waiting does not help it, resting would hurt others.
            402 | 429 if words.is_request_sized() => nobody,
            402 => own(self.quota(headers, &words)),
            403 if words.is_moderation() => pass,
            403 | 404 if words.names_model_missing() => self.model_lock(Reason::ModelMissing, nobody),
            403 | 429 if words.names_quota(self.dialect) => own(self.quota(headers, &words)),
            403 if words.names_credential(self.known) => own(self.refused()),
            403 => self.model_lock(Reason::Forbidden, nobody),
            408 | 429 => Verdict { penalty: Penalty::LockModel(self.rate_limit(headers, &words)), ..nobody },
            // Some providers say 400 where others say 401 or 402.
            400 if words.is_bad_key_as_400(self.dialect) => own(self.refused()),
            400 if words.is_quota_as_400() => own(self.quota(headers, &words)),
            _ => pass,
        }
    }

    fn breaker(&self) -> Breaker {
        let set = self.settings;
        Breaker { failures: set.failures, window: set.window, open: set.open, cap: set.open_cap }
    }

    fn refused(&self) -> Penalty {
        let set = self.settings;
        let (base, cap) = (set.auth_cooldown, set.auth_cooldown_cap);
        Penalty::CoolAccount(Cost { reason: Reason::Credentials, named: None, base, cap })
    }

    fn rate_limit(&self, headers: &dyn HeaderView, words: &Words) -> Cost {
        let set = self.settings;
        let named = reset::named(headers, self.unix_ms, false).max(words.retry_in());
        Cost { reason: Reason::RateLimited, named, base: set.rate_limit_lock, cap: set.rate_limit_lock_cap }
    }

    fn quota(&self, headers: &dyn HeaderView, words: &Words) -> Penalty {
        let named = reset::named(headers, self.unix_ms, true).max(words.retry_in());
        Penalty::LockModel(flat(Reason::Quota, self.settings.quota_lock, named))
    }

    /// Whoever invents model names gets the provider's answer, and costs nobody anything.
    fn model_lock(&self, reason: Reason, nobody: Verdict) -> Verdict {
        if self.known {
            Verdict { penalty: Penalty::LockModel(flat(reason, self.settings.model_lock, None)), ..nobody }
        } else {
            Verdict { next: Next::Pass, ..nobody }
        }
    }
}

fn flat(reason: Reason, rest: Duration, named: Option<Duration>) -> Cost {
    Cost { reason, named, base: rest, cap: rest }
}

impl HeaderView for &[(&str, &str)] {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes())
    }
}

impl<const N: usize> HeaderView for [(&str, &str); N] {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes())
    }
}

impl HeaderView for http::HeaderMap {
    fn get(&self, name: &str) -> Option<&[u8]> {
        Self::get(self, name).map(http::HeaderValue::as_bytes)
    }
}

impl std::fmt::Debug for Failure<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Never the body: it may hold the caller's words.
            Self::Answer { status, .. } => write!(f, "Answer({status})"),
            Self::Connect => f.write_str("Connect"),
            Self::Closed => f.write_str("Closed"),
            Self::FirstByteTimeout { stream } => write!(f, "FirstByteTimeout(stream: {stream})"),
            Self::IdleTimeout { stream } => write!(f, "IdleTimeout(stream: {stream})"),
            Self::Protocol => f.write_str("Protocol"),
            Self::OurOverload => f.write_str("OurOverload"),
            Self::ClientLeft => f.write_str("ClientLeft"),
        }
    }
}

#[cfg(test)]
mod tests;
