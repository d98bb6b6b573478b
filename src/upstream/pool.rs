//! Connections that wait for the next request, by host.
//!
//! One pool a core, so its locks are never contended. Last in, first out: the warmest serves, the rest age and are swept.
//! Time is as coarse as the sweep (once a second): nobody reads the clock to put a connection back.

use super::h1::conn::Conn;
use crate::base::Now;
use crate::base::metrics::{GaugeGuard, METRICS};
use crate::state::catalog::BaseUrl;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// All hosts of one core.
#[derive(Debug)]
pub(super) struct Pool {
    /// By hash of (TLS, HTTP/2, host, port), so that a lookup borrows and never allocates; two hosts may share one.
    hosts: Mutex<HashMap<u64, Vec<Arc<Host>>, ahash::RandomState>>,
    hasher: ahash::RandomState,
    shared: Arc<Shared>,
}

/// One host's idle connections.
#[derive(Debug)]
pub(super) struct Host {
    tls: bool,
    http2: bool,
    port: u16,
    name: Box<str>,
    idle: Mutex<Vec<Idle>>,
    shared: Arc<Shared>,
    /// The one connection of an HTTP/2 host.
    pub(super) h2: super::h2::Slot,
}

#[derive(Debug)]
struct Idle {
    conn: Box<Conn>,
    since: Now,
}

#[derive(Debug)]
pub(super) struct Shared {
    /// The last sweep's time.
    now: AtomicU64,
    open: AtomicUsize,
    most_idle: usize,
}

/// Counts an open connection while it lives.
#[derive(Debug)]
pub(super) struct Open {
    shared: Arc<Shared>,
    _gauge: GaugeGuard,
}

impl Pool {
    pub(super) fn new(most_idle: usize, now: Now) -> Self {
        let shared = Shared { now: AtomicU64::new(now.as_nanos()), open: AtomicUsize::new(0), most_idle };
        Self { hosts: Mutex::default(), hasher: ahash::RandomState::new(), shared: Arc::new(shared) }
    }

    /// The host of `base`, made when new.
    pub(super) fn host(&self, base: &BaseUrl, http2: bool) -> Arc<Host> {
        let hash = self.hasher.hash_one((&*base.host, base.port, base.tls, http2));
        let mut hosts = self.hosts.lock();
        let same = hosts.entry(hash).or_default();
        if let Some(host) = same.iter().find(|host| host.is(base, http2)) {
            return Arc::clone(host);
        }
        let host = Arc::new(Host {
            tls: base.tls,
            http2,
            port: base.port,
            name: base.host.clone(),
            idle: Mutex::default(),
            shared: Arc::clone(&self.shared),
            h2: super::h2::Slot::default(),
        });
        same.push(Arc::clone(&host));
        host
    }

    /// Closes what idles since before `now − idle`, and what its host closed meanwhile; forgets hosts without any.
    pub(super) fn sweep(&self, now: Now, idle: Duration) {
        self.shared.now.store(now.as_nanos(), Ordering::Relaxed);
        // Closed outside the locks: closing is a system call.
        let mut gone = Vec::new();
        self.hosts.lock().retain(|_, same| {
            same.retain(|host| {
                let mut conns = host.idle.lock();
                gone.extend(conns.extract_if(.., |one| now.since(one.since) > idle || !one.conn.is_quiet()));
                let empty = conns.is_empty();
                drop(conns);
                host.h2.sweep(now, idle);
                // Somebody else holds it: a call on its way, which will want to put its connection back here.
                !(empty && host.h2.is_empty()) || Arc::strong_count(host) > 1
            });
            !same.is_empty()
        });
    }

    pub(super) fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    pub(super) fn idle(&self) -> usize {
        self.hosts.lock().values().flatten().map(|host| host.idle.lock().len()).sum()
    }
}

impl Host {
    fn is(&self, base: &BaseUrl, http2: bool) -> bool {
        self.port == base.port && self.tls == base.tls && self.http2 == http2 && *self.name == *base.host
    }

    /// The connection that idled last and is still good; dead ones on the way are closed.
    pub(super) fn get(&self) -> Option<Box<Conn>> {
        loop {
            let mut conn = self.idle.lock().pop()?.conn;
            if conn.is_quiet() {
                return Some(conn);
            }
        }
    }

    /// A connection whose answer ended cleanly. Closed instead when enough wait already.
    pub(super) fn put(&self, mut conn: Box<Conn>) {
        conn.rest();
        let since = self.now();
        let mut idle = self.idle.lock();
        if idle.len() < self.shared.most_idle {
            idle.push(Idle { conn, since });
        }
    }

    /// The last sweep's time.
    pub(super) fn now(&self) -> Now {
        Now::from_nanos(self.shared.now.load(Ordering::Relaxed))
    }

    /// Counts a connection that was just opened.
    pub(super) fn opened(&self) -> Open {
        METRICS.upstream_connects.inc();
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        Open { shared: Arc::clone(&self.shared), _gauge: METRICS.upstream_connections.guard() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
    }
}
