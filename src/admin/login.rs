//! Logging in and out.
//!
//! An attempt counts as failed before the password is looked at; a right one takes that back. Passwords are checked on
//! threads of their own, two at once: a hundred logins delay neither health nor a dashboard.

use super::asked::{Answer, Asked, Note};
use super::door::Door;
use super::gate::{COOKIE_NAME, Gate, Who, same_origin};
use super::input;
use super::session::{LASTS_MS, Session};
use crate::base::metrics::METRICS;
use crate::base::{Clock, Error, ErrorKind, Secret, tasks};
use crate::config::Settings;
use crate::server::body::{self, Body, Incoming};
use crate::server::peer::Peer;
use crate::state::subject::Net;
use argon2::{Argon2, PasswordHash, PasswordVerifier as _};
use http::header::{HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

/// Passwords checked at once.
const AT_ONCE: usize = 2;
/// A longer one is no password of ours.
const LONGEST: usize = 1_024;

static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Checks passwords.
#[derive(Debug)]
pub(super) struct Login {
    hash: Option<Secret>,
    door: Door,
    checking: Semaphore,
    tls: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Password {
    password: String,
}

impl Login {
    /// By these settings, behind `door`.
    pub(super) fn new(settings: &Settings, door: Door) -> Self {
        Self {
            hash: settings.dashboard_password_hash.clone(),
            door,
            checking: Semaphore::new(AT_ONCE),
            tls: settings.tls_cert.is_some(),
        }
    }

    /// `POST /api/login`.
    pub(super) async fn log_in(
        &self,
        gate: &Gate,
        headers: &HeaderMap,
        incoming: Incoming,
        peer: Peer,
    ) -> Result<(Session, Response<Body>), Error> {
        if same_origin(headers) == Some(false) {
            return Err(Error::new(ErrorKind::Forbidden, "this login comes from a page of somebody else's"));
        }
        // What exactly is wrong with it stays unsaid: the words would quote the password.
        let given: Password = input::json(headers, incoming).await.map_err(|error| match error.kind {
            ErrorKind::Malformed => Error::malformed("the body must be {\"password\": \"…\"}"),
            _ => error,
        })?;
        let Some(hash) = self.hash.clone() else {
            return Err(Error::new(ErrorKind::Conflict, "no password is set: there is nothing to log in to"));
        };
        let net = Net::from(gate.client(headers, peer));
        let entered = self.door.enter(net).await?;
        let right = match self.checking.acquire().await {
            Ok(_permit) => tasks::blocking("password check", move || is_right(&given.password, &hash)).await,
            Err(_closed) => None,
        };
        match right {
            Some(true) => {}
            Some(false) => {
                METRICS.logins_wrong.inc();
                tracing::warn!(address = %std::net::IpAddr::from(net), "a login with a wrong password");
                return Err(Error::new(ErrorKind::Unauthenticated, "wrong password"));
            }
            None => {
                self.door.not_judged(entered);
                return Err(Error::internal("the password could not be checked; try again"));
            }
        }
        self.door.right(entered);
        let Some((session, token)) = gate.begin().await? else {
            return Err(Error::internal("the session could not be made"));
        };
        METRICS.logins_ok.inc();
        let expires_at = Clock::rfc3339(session.expires_ms);
        let answer = json!({ "token": token.reveal(), "expires_at": expires_at });
        let mut response = body::json(StatusCode::OK, &answer);
        self.put_cookie(&mut response, headers, token.reveal(), LASTS_MS / 1000);
        Ok((session, response))
    }

    /// `POST /api/logout`: ends this session on every instance, or all sessions with `{"everywhere": true}`.
    pub(super) async fn log_out(&self, gate: &Gate, asked: Asked<'_>) -> Result<Answer, Error> {
        let mut fields = asked.fields;
        let everywhere = fields.maybe("everywhere")?.unwrap_or(false);
        fields.done()?;
        match asked.operator.who {
            _ if everywhere => gate.end(None).await?,
            Who::Session(session) => gate.end(Some(session)).await?,
            // A token is revoked by its id; without a password there is nothing to end.
            Who::Token(_) | Who::Anybody => {}
        }
        let mut answer = Answer::ok(&json!({ "logged_out": true }));
        self.put_cookie(&mut answer.response, asked.headers, "", 0);
        answer.note = Some(Note { action: "logout", target: None, detail: json!({ "everywhere": everywhere }) });
        Ok(answer)
    }

    fn put_cookie(&self, response: &mut Response<Body>, headers: &HeaderMap, value: &str, seconds: u64) {
        // A proxy that lies about TLS only keeps its own users from sending the cookie: no trust is needed.
        let secure = self.tls || headers.get(&X_FORWARDED_PROTO).is_some_and(|proto| proto == "https");
        let secure = if secure { "; Secure" } else { "" };
        let cookie = format!("{COOKIE_NAME}={value}; Path=/api; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
    }
}

/// Costs what the hash says it costs: tens of milliseconds and megabytes.
fn is_right(password: &str, hash: &Secret) -> bool {
    let Ok(parsed) = PasswordHash::new(hash.reveal()) else { return false };
    password.len() <= LONGEST && Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok()
}
