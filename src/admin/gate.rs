//! Who may come in to the control plane: a session, a management token, or, without a password, this machine alone.
//!
//! Tokens, ended sessions and the revocation epoch are held in memory whole and read anew at most once a second; an
//! unknown token may hurry that to ten times a second, so no flood of guesses reaches the store. While the store is
//! away the last view goes on. Browsers are not trusted to tell who meant a request: writes by cookie must come from
//! our own pages, and an open control plane answers no foreign host name (a rebound one would be this machine).

use super::session::{Session, Sessions};
use crate::base::sync::Mutex;
use crate::base::{Clock, Error, ErrorKind, Now, Secret, TokenId, seal};
use crate::config::{Cidr, Settings};
use crate::server::peer::{Peer, client_addr};
use crate::store::Store;
use crate::store::rows::{Scope, TokenRow};
use http::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::Method;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The session's cookie.
pub(super) const COOKIE_NAME: &str = "merido_session";

/// How old what we know of tokens and ended sessions may be.
const FRESH: Duration = Duration::from_secs(1);
/// The same when somebody comes with a token we do not know: it may be new.
const HURRIED: Duration = Duration::from_millis(100);

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The door.
#[derive(Debug)]
pub(super) struct Gate {
    store: Store,
    /// `None`: no password is set.
    sessions: Option<Sessions>,
    open_to_all: bool,
    trusted: Vec<Cidr>,
    view: Mutex<Arc<View>>,
    /// Held by the one who reads the store.
    reading: tokio::sync::Mutex<()>,
}

/// Who came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Operator {
    pub(super) who: Who,
    pub(super) scope: Scope,
}

/// By what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    /// Anybody: there is no password.
    Anybody,
    /// The password's.
    Session(Session),
    /// A management token's.
    Token(TokenId),
}

#[derive(Debug, Default)]
struct View {
    /// When the store was last asked, with or without success.
    asked: Option<Now>,
    /// It has answered at least once.
    known: bool,
    epoch: u64,
    ended: HashSet<u64>,
    tokens: HashMap<[u8; 32], TokenRow>,
}

impl Gate {
    /// The door of these settings.
    pub(super) fn new(store: Store, settings: &Settings) -> Result<Self, Error> {
        let sessions = settings.dashboard_password_hash.as_ref();
        let sessions = sessions.map(|hash| Sessions::new(store.data_key(), hash)).transpose();
        Ok(Self {
            sessions: sessions.map_err(|e| Error::internal(e.to_string()))?,
            store,
            open_to_all: settings.allow_open_admin,
            trusted: settings.trusted_proxies.clone(),
            view: Mutex::new(Arc::default()),
            reading: tokio::sync::Mutex::new(()),
        })
    }

    /// Lets in or says why not.
    pub(super) async fn admit(&self, method: &Method, headers: &HeaderMap, peer: Peer) -> Result<Operator, Error> {
        let writes = !matches!(*method, Method::GET | Method::HEAD);
        let operator = if let Some(token) = bearer(headers) {
            if token.starts_with("mdm_") { self.token(token).await? } else { self.session(token).await? }
        } else if let (Some(token), Some(_)) = (cookie(headers), &self.sessions) {
            let operator = self.session(token).await?;
            if writes && same_origin(headers) != Some(true) {
                let message = "a write by cookie must come from the dashboard itself; programs send the token as \
                               `Authorization: Bearer …`";
                return Err(Error::new(ErrorKind::Forbidden, message));
            }
            operator
        } else if self.sessions.is_none() {
            self.anybody(writes, headers, peer)?
        } else {
            return Err(unauthenticated("log in first (POST /api/login), or send a management token"));
        };
        if writes && operator.scope == Scope::Read {
            return Err(Error::new(ErrorKind::Forbidden, "this management token may only read"));
        }
        Ok(operator)
    }

    /// Whether `operator` would still be let in, by what is known now. Asks nobody.
    pub(super) fn still(&self, operator: &Operator) -> bool {
        let (view, now) = (Arc::clone(&self.view.lock()), Clock::unix_ms());
        match operator.who {
            Who::Anybody => true,
            Who::Session(session) => now < session.expires_ms && view.allows(&session),
            Who::Token(id) => view.tokens.values().any(|token| token.id == id && !over(token, now)),
        }
    }

    /// A new session and its token. `None`: no password is set.
    pub(super) async fn begin(&self) -> Result<Option<(Session, Secret)>, Error> {
        let Some(sessions) = &self.sessions else { return Ok(None) };
        // Sealed under an old epoch it would be over at once: ask anew.
        let epoch = self.view(Duration::ZERO).await?.epoch;
        let issued = sessions.issue(epoch, Clock::unix_ms());
        issued.map(Some).map_err(|e| Error::internal(e.to_string()))
    }

    /// Ends `session`, or all of them, on every instance.
    pub(super) async fn end(&self, session: Option<Session>) -> Result<(), Error> {
        let ended = match session {
            Some(session) => self.store.end_session(session.id, session.expires_ms).await,
            None => self.store.end_all_sessions().await,
        };
        ended.map_err(|e| store_away(&e))?;
        self.view(Duration::ZERO).await.map(drop)
    }

    /// Reads the store anew: what was just revoked stops here at once.
    pub(super) async fn forget(&self) -> Result<(), Error> {
        self.view(Duration::ZERO).await.map(drop)
    }

    /// What kind of somebody `operator` is, which one, and by what name.
    pub(super) fn identity(&self, operator: &Operator) -> (&'static str, Option<String>, Option<String>) {
        match operator.who {
            Who::Anybody => ("anybody", None, None),
            Who::Session(session) => ("session", Some(format!("{:016x}", session.id)), None),
            Who::Token(id) => ("token", Some(id.to_string()), self.token_row(id).map(|row| row.name)),
        }
    }

    /// What is known of a token.
    pub(super) fn token_row(&self, id: TokenId) -> Option<TokenRow> {
        let view = Arc::clone(&self.view.lock());
        view.tokens.values().find(|token| token.id == id).cloned()
    }

    /// Whether a password is set.
    pub(super) fn has_password(&self) -> bool {
        self.sessions.is_some()
    }

    /// The client's address, as far as trusted proxies tell it.
    pub(super) fn client(&self, headers: &HeaderMap, peer: Peer) -> IpAddr {
        client_addr(headers, peer, &self.trusted)
    }

    async fn session(&self, token: &str) -> Result<Operator, Error> {
        let opened = self.sessions.as_ref().and_then(|sessions| sessions.open(token, Clock::unix_ms()));
        match opened {
            Some(session) if self.view(FRESH).await?.allows(&session) => {
                Ok(Operator { who: Who::Session(session), scope: Scope::Admin })
            }
            _ => Err(unauthenticated("this session is over or was never one; log in again")),
        }
    }

    async fn token(&self, token: &str) -> Result<Operator, Error> {
        let hash = seal::token_hash(token);
        let mut view = self.view(FRESH).await?;
        if !view.tokens.contains_key(&hash) {
            view = self.view(HURRIED).await?;
        }
        match view.tokens.get(&hash) {
            Some(row) if !over(row, Clock::unix_ms()) => Ok(Operator { who: Who::Token(row.id), scope: row.scope }),
            Some(_) => Err(unauthenticated("this management token has expired")),
            None => Err(unauthenticated("this management token is not known")),
        }
    }

    fn anybody(&self, writes: bool, headers: &HeaderMap, peer: Peer) -> Result<Operator, Error> {
        let no = |message: &'static str| Err(Error::new(ErrorKind::Forbidden, message));
        if !self.open_to_all {
            if !self.client(headers, peer).to_canonical().is_loopback() {
                return no("the control plane has no password: only this machine may come in");
            }
            if headers.get(HOST).is_some_and(|host| foreign(host.to_str().unwrap_or("?."))) {
                return no("the control plane has no password: it answers to no name but localhost");
            }
        }
        if writes && same_origin(headers) == Some(false) {
            return no("this write comes from a page of somebody else's");
        }
        Ok(Operator { who: Who::Anybody, scope: Scope::Admin })
    }

    /// What is known, at most `age` old if the store can be asked.
    async fn view(&self, age: Duration) -> Result<Arc<View>, Error> {
        let asked = Clock::now();
        if let Some(view) = self.fresh(asked, age) {
            return Ok(view);
        }
        let _reading = self.reading.lock().await;
        // Whoever was before us may have read what we want: then it was asked after we came.
        if let Some(view) = self.fresh(asked, age) {
            return Ok(view);
        }
        let now = Clock::now();
        let next = match self.store.admissions().await {
            Ok(rows) => View {
                asked: Some(now),
                known: true,
                epoch: rows.session_epoch,
                ended: rows.ended.into_iter().collect(),
                tokens: rows.tokens.into_iter().collect(),
            },
            Err(error) => {
                tracing::warn!(%error, "the control plane's tokens and sessions could not be read");
                let old = Arc::clone(&self.view.lock());
                let (ended, tokens) = (old.ended.clone(), old.tokens.clone());
                View { asked: Some(now), known: old.known, epoch: old.epoch, ended, tokens }
            }
        };
        let next = Arc::new(next);
        *self.view.lock() = Arc::clone(&next);
        next.usable()
    }

    fn fresh(&self, asked: Now, age: Duration) -> Option<Arc<View>> {
        let view = self.view.lock();
        view.asked.filter(|at| *at + age > asked && view.known).map(|_| Arc::clone(&view))
    }
}

impl View {
    fn allows(&self, session: &Session) -> bool {
        session.epoch >= self.epoch && !self.ended.contains(&session.id)
    }

    fn usable(self: Arc<Self>) -> Result<Arc<Self>, Error> {
        if self.known {
            return Ok(self);
        }
        Err(Error::new(ErrorKind::Unavailable, "the store can't be asked right now; try again").retry_after(FRESH))
    }
}

fn over(token: &TokenRow, now_ms: u64) -> bool {
    token.expires_ms.is_some_and(|at| at <= now_ms)
}

fn unauthenticated(message: &'static str) -> Error {
    Error::new(ErrorKind::Unauthenticated, message)
}

/// A store's failure, for an operator.
pub(super) fn store_away(error: &crate::store::StoreError) -> Error {
    tracing::warn!(%error, "the control plane could not use the store");
    Error::new(ErrorKind::Unavailable, "the store can't be used right now; try again").retry_after(FRESH)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value)
}

/// Whether a browser says that the request comes from one of our own pages. `None`: it says nothing.
pub(super) fn same_origin(headers: &HeaderMap) -> Option<bool> {
    if let Some(site) = headers.get(&SEC_FETCH_SITE) {
        return Some(site == "same-origin");
    }
    let origin = headers.get(ORIGIN)?.to_str().unwrap_or_default();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    // A proxy in front may end TLS, so only the authority is compared.
    Some(origin.split_once("://").zip(host).is_some_and(|((_, at), host)| at.eq_ignore_ascii_case(host)))
}

/// A name somebody else may own. Addresses, localhost and names without a dot are nobody's in the public DNS.
fn foreign(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_end_matches('.');
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    let local = name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"));
    !address && !local && name.contains('.')
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
