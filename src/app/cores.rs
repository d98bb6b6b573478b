//! What serves: a data core (its own thread, runtime, listener and pool), and the control plane's own listener.
//!
//! A core that can't start says so and leaves the others to serve.

use crate::admin::Admin;
use crate::base::alarms::Alarms;
use crate::base::ids::RequestIds;
use crate::base::tasks::{self, Drain};
use crate::base::{Clock, Now};
use crate::config::Settings;
use crate::proxy::{Proxy, Shared};
use crate::server::{self, ConnTimeouts, Core, Handler, Permits, Tls};
use crate::upstream::{Client, ClientConfig};
use crate::urls::{AdminUrls, Urls};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};

/// Connections to the control plane's own listener at most.
const ADMIN_CONNECTIONS: usize = 256;

/// What one data core runs on.
pub(super) struct CoreParts {
    pub(super) shared: Arc<Shared>,
    pub(super) admin: Arc<Admin>,
    pub(super) control: Handle,
    pub(super) ids: RequestIds,
    pub(super) permits: Arc<Permits>,
    pub(super) upstream: ClientConfig,
    pub(super) drain: Drain,
    pub(super) tls: Option<Arc<Tls>>,
}

/// What the control plane's own listener runs on.
pub(super) struct OwnListener {
    pub(super) admin: Arc<Admin>,
    pub(super) timeouts: ConnTimeouts,
    pub(super) drain: Drain,
    pub(super) tls: Option<Arc<Tls>>,
}

impl CoreParts {
    /// Serves on this thread until shutdown's end.
    pub(super) fn run(self, listener: TcpListener) {
        let runtime: Runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "a core has no runtime");
                return;
            }
        };
        runtime.block_on(async {
            let alarms = Arc::new(Alarms::default());
            let client = Client::new(self.upstream, Arc::clone(&alarms));
            let sweeping = client.clone();
            let mut last = Clock::now();
            let sweep = move |now: Now| {
                if now.since(last) >= Duration::from_secs(1) {
                    last = now;
                    sweeping.sweep(now);
                }
            };
            let timeouts = timeouts(&self.shared.settings);
            let proxy = Arc::new(Proxy::new(Arc::clone(&self.shared), client, self.ids));
            let handler = Arc::new(Urls::new(proxy, self.admin, self.control));
            let core = Core { handler, alarms, permits: self.permits, timeouts, drain: self.drain, tls: self.tls };
            serve(listener, core, sweep).await;
        });
    }
}

impl OwnListener {
    /// Serves on the runtime that it is called on.
    pub(super) async fn run(self, listener: TcpListener) {
        let core = Core {
            handler: Arc::new(AdminUrls::new(self.admin)),
            alarms: Arc::default(),
            permits: Arc::new(Permits::new(ADMIN_CONNECTIONS)),
            timeouts: self.timeouts,
            drain: self.drain,
            tls: self.tls,
        };
        serve(listener, core, |_| {}).await;
    }
}

/// The limits in time of client connections.
pub(super) fn timeouts(settings: &Settings) -> ConnTimeouts {
    let timeouts = &settings.timeouts;
    ConnTimeouts { head: timeouts.client_header, idle: timeouts.keep_alive, write: timeouts.stream_idle }
}

async fn serve<H: Handler>(listener: TcpListener, core: Core<H>, each: impl FnMut(Now) + Send + 'static) {
    let ticking = server::tick(Arc::clone(&core.alarms), core.drain.clone(), each);
    let ticker = tasks::spawn("core ticker", ticking);
    let served = server::serve(listener, core).await;
    ticker.abort();
    if let Err(error) = served {
        tracing::error!(%error, "a listener ended");
    }
}
