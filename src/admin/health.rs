//! `/healthz` (can this process serve?) and `/readyz` (should a load balancer send it traffic?).

use crate::base::tasks::{Drain, Phase};
use crate::base::{Clock, Now};
use crate::server::body::{self, Body};
use crate::state::catalog::Directory;
use crate::state::reach::Reach;
use hyper::{Response, StatusCode};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A store that was not read for so long counts as down (it is polled many times a second).
const STORE_SILENT: Duration = Duration::from_secs(5);

/// What health is judged by.
#[derive(Debug)]
pub struct Health {
    /// This process' random name.
    pub instance: String,
    /// When it started.
    pub started: Now,
    /// Whether Redis is there.
    pub reach: Arc<Reach>,
    /// Versions, and when the store was last read.
    pub directory: Arc<Directory>,
    /// Where shutdown stands.
    pub drain: Drain,
    /// Set once all listeners accept.
    pub serving: Arc<AtomicBool>,
}

impl Health {
    pub(super) fn healthz(&self) -> Response<Body> {
        let now = Clock::now();
        let store = if now.since(self.directory.last_refresh()) < STORE_SILENT { "ok" } else { "down" };
        let health = json!({
            "status": "ok",
            "redis": self.reach.report().state.name(),
            "store": store,
            "instance": self.instance,
            "version": env!("CARGO_PKG_VERSION"),
            "catalog_version": self.directory.version(),
            "uptime_seconds": now.since(self.started).as_secs(),
        });
        body::json(StatusCode::OK, &health)
    }

    pub(super) fn readyz(&self) -> Response<Body> {
        let reason = if !self.serving.load(Ordering::Acquire) {
            Some("starting")
        } else if self.drain.phase() > Phase::Run {
            Some("draining")
        } else {
            None
        };
        match reason {
            None => body::json(StatusCode::OK, &json!({ "status": "ready" })),
            Some(reason) => {
                body::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "not ready", "reason": reason }))
            }
        }
    }
}
