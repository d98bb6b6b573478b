//! The control plane: health, metrics, the dashboard, and what an operator sees and changes.
//!
//! Runs on the control runtime only. Whatever fails here fails for the operator; requests of the data plane go on.
//! Below `/api/` nobody is answered, not even with 404, before the gate let them in. What changes something is written
//! into the audit before its answer goes out, and a changed catalog is what this instance goes by from then on.

mod accounts;
mod asked;
mod audit;
mod cooldowns;
mod door;
mod events;
mod fields;
mod gate;
mod health;
mod input;
mod keys;
pub mod live;
mod live_json;
mod login;
mod logs;
mod openapi;
mod overview;
mod query;
mod repeat;
mod routes;
mod session;
mod tokens;
mod ui;
mod usage;
mod virtual_models;
mod when;

pub use door::Door;
pub use events::LiveBus;
pub use health::Health;

use crate::base::hatch::TestAccount;
use crate::base::metrics::METRICS;
use crate::base::tasks::Drain;
use crate::base::{Clock, Error, ErrorKind};
use crate::config::{RouteSpec, Settings};
use crate::server::body::{self, Body, Incoming};
use crate::server::peer::Peer;
use crate::state::budgets::Budgets;
use crate::state::catalog::Directory;
use crate::state::delta::Delta;
use crate::state::outbox::Outbox;
use crate::state::peers::Peers;
use crate::state::providers::{self, ProviderSpec};
use crate::store::Store;
use asked::{Answer, Asked, Note};
use bytes::Bytes;
use fields::Fields;
use gate::{Gate, Operator, Who};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response};
use login::Login;
use repeat::{Begun, Ending};
use routes::{Found, Op, Route};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// A change is answered when this instance goes by it, or after so long all the same.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(2);

/// Answers everything that is not a data-plane request.
#[derive(Debug)]
pub struct Admin {
    health: Health,
    gate: Arc<Gate>,
    login: Login,
    store: Store,
    directory: Arc<Directory>,
    budgets: Arc<Budgets>,
    outbox: Outbox<Delta>,
    peers: Arc<Peers>,
    test: Arc<dyn TestAccount>,
    /// Virtual models of the settings.
    routes: Vec<RouteSpec>,
    builtin: Vec<ProviderSpec>,
    repeat_key: [u8; 32],
    /// Held from reading what is to be changed until it is changed.
    writes: tokio::sync::Mutex<()>,
    live: LiveBus,
    instance: Arc<str>,
    /// The data plane refuses who brings no key.
    key_required: bool,
    drain: Drain,
}

/// What the control plane is given.
#[derive(Debug)]
pub struct AdminParts {
    /// As started with.
    pub settings: Arc<Settings>,
    /// What survives.
    pub store: Store,
    /// Counts login failures.
    pub door: Door,
    /// What keys have spent.
    pub budgets: Arc<Budgets>,
    /// Where an operator's word goes out to other instances.
    pub outbox: Outbox<Delta>,
    /// What is known of those.
    pub peers: Arc<Peers>,
    /// Makes one real call with a credential.
    pub test: Arc<dyn TestAccount>,
    /// Live events.
    pub live: LiveBus,
    /// Reports; its directory and drain serve everything else, too.
    pub health: Health,
}

/// A process' name to the outside, by its epoch.
pub fn instance_name(epoch: u64) -> String {
    format!("{:012x}", epoch & 0xffff_ffff_ffff)
}

impl Admin {
    /// A control plane of these parts.
    pub fn new(parts: AdminParts) -> Result<Self, Error> {
        let internal = |what: String| Error::internal(what);
        Ok(Self {
            gate: Arc::new(Gate::new(parts.store.clone(), &parts.settings)?),
            login: Login::new(&parts.settings, parts.door),
            repeat_key: parts.store.data_key().sub_key("repeats").map_err(|e| internal(e.to_string()))?,
            builtin: providers::builtin().map_err(internal)?,
            routes: parts.settings.routes.clone(),
            key_required: parts.settings.keys_required(),
            store: parts.store,
            budgets: parts.budgets,
            outbox: parts.outbox,
            peers: parts.peers,
            test: parts.test,
            writes: tokio::sync::Mutex::default(),
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
            "/healthz" | "/readyz" | "/metrics" => not_allowed(&["GET", "HEAD"]),
            path if path.starts_with("/api/") => {
                let mut response = match Box::pin(self.api(request, peer)).await {
                    Ok(response) => response,
                    Err(error) => body::control_error(&error),
                };
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
            path => match ui::file(path, request.headers()) {
                Some(file) if get => file,
                Some(_) => not_allowed(&["GET", "HEAD"]),
                None => body::control_error(&nothing_at(path)),
            },
        }
    }

    async fn api(&self, request: Request<Incoming>, peer: Peer) -> Result<Response<Body>, Error> {
        let (parts, incoming) = request.into_parts();
        let (method, headers, path) = (&parts.method, &parts.headers, parts.uri.path());
        if path == "/api/login" {
            return if *method == Method::POST {
                self.log_in(&parts, incoming, peer).await
            } else {
                Ok(not_allowed(&["POST"]))
            };
        }
        let operator = self.gate.admit(method, headers, peer).await?;
        let segments = input::segments(path.strip_prefix("/api/").unwrap_or_default())?;
        let (route, params) = match routes::find(method.as_str(), &segments) {
            Found::Route(route, params) => (route, params),
            Found::Methods(methods) => return Ok(not_allowed(&methods)),
            Found::Nothing => return Err(nothing_at(path)),
        };
        let bytes = match route.body {
            routes::Body::Nothing => Bytes::from_static(b"{}"),
            routes::Body::Fields(_) => input::bytes(headers, incoming).await?,
            routes::Body::Maybe(_) => input::bytes_or_none(headers, incoming).await?,
        };
        let begun = if route.repeatable { self.begin(&operator, headers, path, &bytes).await? } else { Begun::Plain };
        let once = match begun {
            Begun::Done(response) => return Ok(response),
            Begun::First(once) => Some(once),
            Begun::Plain => None,
        };
        let query = parts.uri.query().unwrap_or_default();
        let asked = Fields::parse(&bytes);
        let asked = asked.map(|fields| Asked { operator: &operator, headers, query, params, fields });
        let done = match asked {
            Ok(asked) => self.run(route, asked).await,
            Err(error) => Err(error),
        };
        if let Some(once) = once {
            let ending = Ending::of(&done);
            self.end(once, ending).await;
        }
        let Answer { response, note } = done?;
        if let Some(note) = note {
            self.noted(Some(&operator), self.gate.client(headers, peer), note).await;
        }
        if route.catalog {
            self.published().await;
        }
        Ok(response)
    }

    async fn run(&self, route: &Route, asked: Asked<'_>) -> Result<Answer, Error> {
        if route.query.is_empty() {
            query::Query::parse(asked.query)?.done()?;
        }
        match route.op {
            // Answered before the gate.
            Op::Login => Err(nothing_at(route.path)),
            Op::Logout => self.login.log_out(&self.gate, asked).await,
            Op::Me => Ok(self.me(&asked)),
            Op::Keys => self.keys(asked).await,
            Op::KeyAdd => self.add_key(asked).await,
            Op::Key => self.key(asked).await,
            Op::KeyChange => self.change_key(asked).await,
            Op::KeyRemove => self.remove_key(asked).await,
            Op::KeyRotate => self.rotate_key(asked).await,
            Op::Accounts => self.accounts().await,
            Op::AccountAdd => self.add_account(asked).await,
            Op::Account => self.account(asked).await,
            Op::AccountChange => self.change_account(asked).await,
            Op::AccountRemove => self.remove_account(asked).await,
            Op::AccountTest => self.test_account(asked).await,
            Op::VirtualModels => self.virtual_models().await,
            Op::VirtualModelAdd => self.add_virtual_model(asked).await,
            Op::VirtualModel => self.virtual_model(asked).await,
            Op::VirtualModelReplace => self.replace_virtual_model(asked).await,
            Op::VirtualModelRemove => self.remove_virtual_model(asked).await,
            Op::VirtualModelToggle => self.toggle_virtual_model(asked).await,
            Op::VirtualModelsReorder => self.reorder_virtual_models(asked).await,
            Op::Tokens => self.tokens().await,
            Op::TokenAdd => self.add_token(asked).await,
            Op::TokenRemove => self.remove_token(asked).await,
            Op::Events => Ok(self.events(*asked.operator, asked.headers).into()),
            Op::Cooldowns => Ok(cooldowns::list(&self.directory)),
            Op::Unlock => cooldowns::unlock(&self.directory, &self.outbox, asked.param(0)),
            Op::UnlockModel => cooldowns::unlock_model(&self.directory, &self.outbox, asked.param(0), asked.param(1)),
            Op::Models => Ok(self.models()),
            Op::Providers => self.providers().await,
            Op::Cluster => Ok(self.cluster()),
            Op::Logs => self.logs(asked).await,
            Op::Log => self.log(asked).await,
            Op::Usage => self.usage(asked).await,
            Op::Audit => self.audit(asked).await,
            Op::OpenApi => Ok(openapi::document().into()),
        }
    }

    async fn log_in(
        &self,
        parts: &http::request::Parts,
        incoming: Incoming,
        peer: Peer,
    ) -> Result<Response<Body>, Error> {
        let done = self.login.log_in(&self.gate, &parts.headers, incoming, peer).await;
        let address = self.gate.client(&parts.headers, peer);
        let note = |action| Note { action, target: None, detail: json!({}) };
        match done {
            Ok((session, response)) => {
                let operator = Operator { who: Who::Session(session), scope: crate::store::rows::Scope::Admin };
                self.noted(Some(&operator), address, note("login")).await;
                Ok(response)
            }
            Err(error) => {
                // Only what the throttle let in: a flood of guesses writes nothing.
                if error.kind == ErrorKind::Unauthenticated {
                    self.noted(None, address, note("login.failed")).await;
                }
                Err(error)
            }
        }
    }

    /// Waits until what the store holds now is what this instance goes by.
    async fn published(&self) {
        let written = Clock::now();
        // It rang already when the store was written; a look that began before that does not count.
        self.store.bell().notify_one();
        while self.directory.last_refresh() < written && Clock::now().since(written) < PUBLISHED_WITHIN {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// 405, and what would do.
fn not_allowed(methods: &[&str]) -> Response<Body> {
    let error = Error::new(ErrorKind::MethodNotAllowed, format!("this endpoint takes {}", methods.join(", ")));
    let mut response = body::control_error(&error);
    if let Ok(methods) = HeaderValue::from_str(&methods.join(", ")) {
        response.headers_mut().insert(ALLOW, methods);
    }
    response
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
