//! The control plane: health, metrics, and what an operator sees and changes.
//!
//! Runs on the control runtime only. Whatever fails here fails for the operator; requests of the data plane go on.

mod health;
pub mod live;
mod live_json;

pub use health::Health;

use crate::base::metrics::METRICS;
use crate::base::{Error, ErrorKind};
use crate::server::{Body, Peer, body};
use http::header::{CONTENT_TYPE, HeaderValue};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};

/// Answers everything that is not a data-plane request.
#[derive(Debug)]
pub struct Admin {
    health: Health,
}

impl Admin {
    /// A control plane that reports on `health`.
    pub fn new(health: Health) -> Self {
        Self { health }
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request<Incoming>, _peer: Peer) -> Response<Body> {
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/healthz" if get => self.health.healthz(),
            "/readyz" if get => self.health.readyz(),
            "/metrics" if get => metrics(),
            "/healthz" | "/readyz" | "/metrics" => {
                body::control_error(&Error::new(ErrorKind::MethodNotAllowed, "this endpoint takes GET"))
            }
            path => {
                let message = format!("nothing here: {}", path.chars().take(100).collect::<String>());
                body::control_error(&Error::new(ErrorKind::NotFound, message))
            }
        }
    }
}

fn metrics() -> Response<Body> {
    let mut response = Response::new(Body::full(METRICS.render()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
