//! Listeners and the accept loop: one of each per core, on the same port.

use super::conn::{self, ConnTimeouts};
use super::{Handler, Peer, Tls, h2};
use crate::base::alarms::{Alarms, TICK};
use crate::base::clock::Clock;
use crate::base::metrics::METRICS;
use crate::base::tasks::{Backoff, Drain, Phase, spawn};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Connections above the limit that are still let in, for health and control plane only.
const RESERVE: usize = 64;

/// Counts client connections over all cores.
#[derive(Debug)]
pub struct Permits {
    open: AtomicUsize,
    max: usize,
}

/// What a core brings along to serve with.
#[derive(Debug)]
pub struct Core<H> {
    /// Answers requests.
    pub handler: Arc<H>,
    /// Swept by this core's ticker.
    pub alarms: Arc<Alarms>,
    /// Shared by all cores.
    pub permits: Arc<Permits>,
    /// Limits in time.
    pub timeouts: ConnTimeouts,
    /// Where shutdown stands.
    pub drain: Drain,
    /// Terminates TLS with it.
    pub tls: Option<Arc<Tls>>,
}

struct Permit {
    of: Arc<Permits>,
    control_only: bool,
}

impl Permits {
    /// At most `max` connections, and a reserve.
    pub fn new(max: usize) -> Self {
        Self { open: AtomicUsize::new(0), max }
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn take(self: &Arc<Self>) -> Option<Permit> {
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        if before >= self.max + RESERVE {
            self.open.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        METRICS.client_connections.add(1);
        Some(Permit { of: Arc::clone(self), control_only: before >= self.max })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.of.open.fetch_sub(1, Ordering::AcqRel);
        METRICS.client_connections.add(-1);
    }
}

/// `count` listeners on one address; port 0 becomes the same free port for all.
pub fn bind(addr: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<StdListener>)> {
    // The first one is bound without sharing: a second gateway on the port must fail, not take half the traffic.
    let probe = socket(addr, false)?;
    let addr = probe.local_addr()?;
    drop(probe);
    let listeners = (0..count.max(1)).map(|_| socket(addr, true)).collect::<io::Result<Vec<_>>>()?;
    for listener in &listeners {
        listener.set_nonblocking(true)?;
    }
    Ok((addr, listeners))
}

fn socket(addr: SocketAddr, share: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Accepts and serves until shutdown's *finish* phase, then closes the listener and waits for its connections.
pub async fn serve<H: Handler>(listener: StdListener, core: Core<H>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    core.alarms.sweep(Clock::now());
    let mine = Arc::new(AtomicUsize::new(0));
    let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_secs(1), Clock::now().as_nanos());
    let finish = core.drain.reached(Phase::Finish);
    tokio::pin!(finish);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut finish => break,
        };
        match accepted {
            Ok((socket, addr)) => {
                backoff.reset();
                accept(socket, addr, &core, &mine);
            }
            // The peer was gone before we took it: nothing of ours is short.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                METRICS.accept_errors.inc();
                tracing::warn!(%error, "accept failed; pausing");
                tokio::select! {
                    () = tokio::time::sleep(backoff.wait()) => {}
                    () = &mut finish => break,
                }
            }
        }
    }
    accept_rest(listener, &core, &mine);
    while mine.load(Ordering::Acquire) > 0 {
        tokio::time::sleep(TICK / 4).await;
    }
    Ok(())
}

/// Takes what the kernel has accepted for us already, then closes: closing alone would reset those connections.
fn accept_rest<H: Handler>(listener: TcpListener, core: &Core<H>, mine: &Arc<AtomicUsize>) {
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((socket, addr)) = listener.accept() {
        if socket.set_nonblocking(true).is_ok()
            && let Ok(socket) = TcpStream::from_std(socket)
        {
            accept(socket, addr, core, mine);
        }
    }
}

fn accept<H: Handler>(socket: TcpStream, addr: SocketAddr, core: &Core<H>, mine: &Arc<AtomicUsize>) {
    let Some(permit) = core.permits.take() else {
        METRICS.client_connections_refused.inc();
        return;
    };
    // Only a socket that is already dead refuses; serving it ends at once.
    let _ = socket.set_nodelay(true);
    let peer = Peer { addr, control_only: permit.control_only };
    let (handler, alarms) = (Arc::clone(&core.handler), Arc::clone(&core.alarms));
    let (timeouts, drain) = (core.timeouts, core.drain.clone());
    let counted = Counted::new(mine);
    let Some(tls) = &core.tls else {
        spawn("connection", async move {
            let _held = (counted, permit);
            conn::run(socket, peer, handler, alarms, timeouts, drain).await;
        });
        return;
    };
    let handshake = TlsAcceptor::from(tls.current()).accept(socket);
    spawn("tls connection", async move {
        let _held = (counted, permit);
        let Ok(Ok(stream)) = tokio::time::timeout(timeouts.head, handshake).await else {
            METRICS.tls_errors.inc();
            return;
        };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            h2::run(stream, peer, handler, alarms, timeouts, drain).await;
        } else {
            conn::run(stream, peer, handler, alarms, timeouts, drain).await;
        }
    });
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(in_total: &Arc<AtomicUsize>) -> Self {
        in_total.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(in_total))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A core's ticker: fires alarms, and wakes everything when shutdown moves on. Ends only with its runtime.
pub async fn tick(alarms: Arc<Alarms>, drain: Drain, mut each: impl FnMut(crate::base::Now) + Send) {
    let mut seen = drain.phase();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Clock::now();
        Clock::look_at_wall(now);
        alarms.sweep(now);
        each(now);
        let phase = drain.phase();
        if phase != seen {
            seen = phase;
            alarms.wake_all();
        }
    }
}

#[cfg(test)]
#[path = "listen_tests.rs"]
mod tests;
