//! The control plane: health, metrics, and what an operator sees and changes.
//!
//! Runs on the control runtime only. Whatever fails here fails for the operator; requests of the data plane go on.
//! Below `/api/` nobody is answered, not even with 404, before the gate let them in.

mod cooldowns;
mod events;
mod gate;
mod health;
mod input;
pub mod live;
mod live_json;
mod login;
mod session;
mod when;

pub use events::LiveBus;
pub use health::Health;

use crate::base::metrics::METRICS;
use crate::base::tasks::Drain;
use crate::base::{Error, ErrorKind};
use crate::config::Settings;
use crate::server::Incoming;
use crate::server::body::{self, Body};
use crate::server::peer::Peer;
use crate::state::catalog::Directory;
use crate::state::throttle::Throttle;
use crate::store::Store;
use gate::Gate;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response};
use login::Login;
use std::sync::Arc;

/// Answers everything that is not a data-plane request.
#[derive(Debug)]
pub struct Admin {
    health: Health,
    gate: Arc<Gate>,
    login: Login,
    directory: Arc<Directory>,
    live: LiveBus,
    instance: Arc<str>,
    drain: Drain,
}

/// What the control plane is given.
#[derive(Debug)]
pub struct AdminParts {
    /// As started with.
    pub settings: Arc<Settings>,
    /// What survives.
    pub store: Store,
    /// Login failures.
    pub throttle: Arc<Throttle>,
    /// Live events.
    pub live: LiveBus,
    /// Reports; its directory and drain serve everything else, too.
    pub health: Health,
}

impl Admin {
    /// A control plane of these parts.
    pub fn new(parts: AdminParts) -> Result<Self, Error> {
        Ok(Self {
            gate: Arc::new(Gate::new(parts.store, &parts.settings)?),
            login: Login::new(&parts.settings, parts.throttle),
            directory: Arc::clone(&parts.health.directory),
            live: parts.live,
            instance: parts.health.instance.as_str().into(),
            drain: parts.health.drain.clone(),
            health: parts.health,
        })
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/healthz" if get => self.health.healthz(),
            "/readyz" if get => self.health.readyz(),
            "/metrics" if get => metrics(),
            "/healthz" | "/readyz" | "/metrics" => body::control_error(&not_allowed("GET")),
            path if path.starts_with("/api/") => {
                let mut response = match self.api(request, peer).await {
                    Ok(response) => response,
                    Err(error) => body::control_error(&error),
                };
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
            path => body::control_error(&nothing_at(path)),
        }
    }

    async fn api(&self, request: Request<Incoming>, peer: Peer) -> Result<Response<Body>, Error> {
        let (parts, incoming) = request.into_parts();
        let (method, headers, path) = (&parts.method, &parts.headers, parts.uri.path());
        if path == "/api/login" {
            if *method != Method::POST {
                return Err(not_allowed("POST"));
            }
            return self.login.log_in(&self.gate, headers, incoming, peer).await;
        }
        let operator = self.gate.admit(method, headers, peer).await?;
        let segments = input::segments(path.strip_prefix("/api/").unwrap_or_default())?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
        match (method, segments.as_slice()) {
            ("POST", ["logout"]) => self.login.log_out(&self.gate, &operator, headers, incoming).await,
            ("GET", ["events"]) => Ok(self.events(operator, headers)),
            ("GET", ["cooldowns"]) => Ok(cooldowns::list(&self.directory)),
            ("DELETE", ["cooldowns", account]) => cooldowns::unlock(&self.directory, account),
            // A model's name may hold slashes: all that follows the account is the name.
            ("DELETE", ["cooldowns", account, model @ ..]) if !model.is_empty() => {
                cooldowns::unlock_model(&self.directory, account, &model.join("/"))
            }
            (_, ["logout"]) => Err(not_allowed("POST")),
            (_, ["events" | "cooldowns"]) => Err(not_allowed("GET")),
            (_, ["cooldowns", ..]) => Err(not_allowed("DELETE")),
            _ => Err(nothing_at(path)),
        }
    }
}

fn not_allowed(allowed: &'static str) -> Error {
    Error::new(ErrorKind::MethodNotAllowed, format!("this endpoint takes {allowed}"))
}

fn nothing_at(path: &str) -> Error {
    let shown: String = path.chars().take(100).collect();
    Error::new(ErrorKind::NotFound, format!("nothing here: {shown}"))
}

fn metrics() -> Response<Body> {
    let mut response = Response::new(Body::full(METRICS.render()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
