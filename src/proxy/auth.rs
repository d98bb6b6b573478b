//! Who calls. Decided from the head alone: a stranger never makes us buffer a body.
//!
//! A key is looked up by its hash in memory. One that is not there is wrong (401) only while our view of the store is
//! fresh; when it is not, that is our fault and the answer is 503.

use super::Shared;
use crate::base::metrics::METRICS;
use crate::base::seal::key_hash;
use crate::base::{Clock, Error, ErrorKind, Now};
use crate::dialect::Dialect;
use crate::server::peer::{Peer, client_addr};
use crate::state::catalog::Key;
use crate::state::subject::Net;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Above this age of the last good look at the store, an unknown key is our fault.
const FRESH: Duration = Duration::from_secs(10);

/// Unknown keys of one address within a minute that are worth a line in the log.
const LOUD: u32 = 60;

/// Looks like a key of ours; anything else is some other service's (SDKs insist on sending one).
const PREFIX: &str = "mrd_";

static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
static X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// Who calls.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// By a key.
    Key(Arc<Key>),
    /// From an address, where keys are not required.
    Anonymous(IpAddr),
}

impl Caller {
    pub(super) fn key(&self) -> Option<&Arc<Key>> {
        match self {
            Self::Key(key) => Some(key),
            Self::Anonymous(_) => None,
        }
    }
}

/// Finds out who calls.
pub(super) fn identify(
    headers: &HeaderMap,
    query: Option<&str>,
    dialect: Dialect,
    peer: Peer,
    shared: &Shared,
    now: Now,
) -> Result<Caller, Error> {
    let (settings, directory) = (&shared.settings, &shared.directory);
    let required = settings.keys_required();
    let token = presented(headers, query, dialect)?;
    let Some(token) = token.filter(|token| required || token.starts_with(PREFIX)) else {
        return if required {
            Err(unauthenticated("no API key given; send it as `Authorization: Bearer mrd_…` or `x-api-key`"))
        } else {
            Ok(Caller::Anonymous(client_addr(headers, peer, &settings.trusted_proxies)))
        };
    };
    let key = token.starts_with(PREFIX).then(|| directory.key(&key_hash(token))).flatten();
    match key {
        Some(key) if key.expires_unix_ms.is_some_and(|end| end <= Clock::unix_ms()) => {
            Err(unauthenticated("this API key has expired"))
        }
        Some(key) => Ok(Caller::Key(key)),
        None if now.since(directory.last_refresh()) > FRESH => {
            Err(Error::new(ErrorKind::Unavailable, "this API key can't be checked right now; try again")
                .retry_after(Duration::from_secs(1)))
        }
        None => {
            unknown(client_addr(headers, peer, &settings.trusted_proxies), shared, now);
            Err(unauthenticated("this API key is not known here"))
        }
    }
}

/// Counts a key we do not know. Keys are all in memory, so guessing costs us nothing but this; an operator is told of
/// an address that does it by the dozen, once for each of its loud minutes.
fn unknown(addr: IpAddr, shared: &Shared, now: Now) {
    METRICS.unknown_keys.inc();
    let net = Net::from(addr);
    let strikes = shared.unknown.strike(net, now);
    // More at once than one: other instances have counted, too.
    if strikes >= LOUD && shared.unknown.report(net) {
        tracing::warn!(%addr, strikes, "unknown API keys by the dozen within a minute from one address");
    }
}

fn unauthenticated(message: &'static str) -> Error {
    Error::new(ErrorKind::Unauthenticated, message)
}

/// The key the client sent. Two different ones are a mistake that must not be decided by the order of headers.
fn presented<'a>(headers: &'a HeaderMap, query: Option<&'a str>, dialect: Dialect) -> Result<Option<&'a str>, Error> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let plain = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let in_query = if dialect == Dialect::Gemini { query.and_then(query_key) } else { None };
    let mut found: Option<&str> = None;
    for token in [bearer, plain(&X_API_KEY), plain(&X_GOOG_API_KEY), in_query].into_iter().flatten() {
        if token.is_empty() {
            continue;
        }
        match found {
            // Of two, ours counts: some clients put another service's key beside it.
            Some(first) if first.starts_with(PREFIX) && token.starts_with(PREFIX) && first != token => {
                return Err(unauthenticated("two different API keys were sent"));
            }
            Some(first) if first.starts_with(PREFIX) => {}
            _ => found = Some(token),
        }
    }
    Ok(found)
}

fn query_key(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("key="))
}

/// Whether this caller may ask for `model`, by the name the client wrote.
pub(super) fn may_use(caller: &Caller, model: &str) -> Result<(), Error> {
    match caller.key() {
        Some(key) if !key.allows(model) => {
            Err(Error::new(ErrorKind::Forbidden, format!("this API key may not use the model `{model}`"))
                .param("model"))
        }
        _ => Ok(()),
    }
}
