//! Opens connections to one server: TCP, TLS or a unix socket, then login. Each is bounded; who asks for one waits for
//! the network, which is no sign yet that Redis is slow.
//!
//! A pool (mobc) bounds how many are open to a server. Whoever holds one keeps it; one that broke is not put back.
//! No PING at checkout: the first round shows whether it is alive.

use super::conn::Conn;
use super::reply::Broken;
use super::url::{Address, Target};
use crate::base::metrics::METRICS;
use crate::base::tasks;
use mobc_redis::mobc::{Connection, Error, Manager, Pool, async_trait};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo};
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

/// Bound on opening a connection, login included. Short enough that a probe which hangs in it does not keep a server
/// that is back from being noticed within 3 s (with the 2 s between probes).
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// Connections to one server at most: rounds, values, the stream, and what is about to replace them.
const MOST: u64 = 8;
/// Pushed messages of a subscription that may wait to be looked at; more, and the subscription counts as broken.
pub(super) const PUSHED: usize = 8_192;

/// Opens connections to one server.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) address: Address,
    target: Arc<Target>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// A connection that goes back to its server's pool unless it broke.
pub(super) type Held = Connection<Dialer>;

/// What a connection was sent without asking.
pub(super) struct Pushed {
    pub(super) receiver: mpsc::Receiver<PushInfo>,
    /// Something found no room: what is here is not all.
    pub(super) lost: Arc<AtomicBool>,
}

type Pusher = (mpsc::Sender<PushInfo>, Arc<AtomicBool>);

/// The connections to one server.
#[derive(Clone)]
pub(super) struct Server {
    pool: Pool<Dialer>,
    dialer: Dialer,
}

impl Server {
    /// At `address`.
    pub(super) fn new(target: &Arc<Target>, tls: Option<&Arc<rustls::ClientConfig>>, address: Address) -> Self {
        let dialer = Dialer { address, target: Arc::clone(target), tls: tls.cloned() };
        let pool = Pool::builder().max_open(MOST).max_idle(2).test_on_check_out(false).get_timeout(None);
        Self { pool: pool.build(dialer.clone()), dialer }
    }

    /// Where it is.
    pub(super) fn address(&self) -> &Address {
        &self.dialer.address
    }

    /// A connection, within [`CONNECT`].
    pub(super) async fn connection(&self) -> Result<Held, Broken> {
        let got = async {
            loop {
                let held = self.pool.get().await.map_err(|error| match error {
                    Error::Inner(broken) => broken,
                    _ => Broken::Lost("no connection to be had".to_owned()),
                })?;
                if held.is_alive() {
                    return Ok(held);
                }
                // It lay in the pool when its server ended.
                drop(held.into_inner());
            }
        };
        tokio::time::timeout(CONNECT, got)
            .await
            .unwrap_or_else(|_| Err(Broken::Lost("cannot connect in time".to_owned())))
    }

    /// A connection of its own that also takes what is pushed, within [`CONNECT`].
    pub(super) async fn listening(&self) -> Result<(Conn, Pushed), Broken> {
        let (sender, receiver) = mpsc::channel(PUSHED);
        let lost = Arc::<AtomicBool>::default();
        let opened = tokio::time::timeout(CONNECT, self.dialer.open(Some((sender, Arc::clone(&lost))))).await;
        let conn = opened.unwrap_or_else(|_| Err(Broken::Lost("cannot connect in time".to_owned())))?;
        Ok((conn, Pushed { receiver, lost }))
    }
}

impl Dialer {
    async fn open(&self, pushed: Option<Pusher>) -> Result<Conn, Broken> {
        let lost = |error: std::io::Error| Broken::Lost(error.to_string());
        METRICS.redis_connects.inc();
        match (&self.address, &self.tls) {
            (Address::Unix(path), _) => self.greet(UnixStream::connect(path).await.map_err(lost)?, pushed).await,
            (Address::Tcp(host, port), tls) => {
                let tcp = TcpStream::connect((&**host, *port)).await.map_err(lost)?;
                tcp.set_nodelay(true).map_err(lost)?;
                let Some(tls) = tls else { return self.greet(tcp, pushed).await };
                let name = ServerName::try_from(host.to_string()).map_err(|e| Broken::Lost(e.to_string()))?;
                let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await.map_err(lost)?;
                self.greet(stream, pushed).await
            }
        }
    }

    async fn greet<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        pushed: Option<Pusher>,
    ) -> Result<Conn, Broken> {
        let mut login = self.target.login.clone();
        let mut config = AsyncConnectionConfig::new();
        if let Some((sender, lost)) = pushed {
            login.protocol = ProtocolVersion::RESP3;
            config = config.set_push_sender(move |info| {
                let sent = sender.try_send(info);
                if sent.is_err() {
                    lost.store(true, Ordering::Release);
                }
                sent
            });
        }
        let opened = MultiplexedConnection::new_with_config(&login, stream, config).await;
        let (connection, driver) = opened.map_err(|error| Broken::of(&error))?;
        Ok(Conn::new(connection, tasks::spawn("redis connection", driver), Arc::clone(&self.target)))
    }
}

#[async_trait]
impl Manager for Dialer {
    type Connection = Conn;
    type Error = Broken;

    fn spawn_task<T>(&self, task: T)
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        // Nothing to put it back into once the runtime is gone.
        if let Ok(here) = tokio::runtime::Handle::try_current() {
            drop(tasks::spawn_on(&here, "redis pool", task));
        }
    }

    async fn connect(&self) -> Result<Conn, Broken> {
        self.open(None).await
    }

    async fn check(&self, conn: Conn) -> Result<Conn, Broken> {
        Ok(conn)
    }

    fn validate(&self, conn: &mut Conn) -> bool {
        conn.is_alive()
    }
}

/// What TLS to Redis trusts: this machine's roots, and those in `extra`.
pub(super) fn tls_config(extra: Option<&Path>) -> Result<Arc<rustls::ClientConfig>, String> {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = extra {
        let wrong = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(&e))? {
            roots.add(certificate.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
        }
    }
    if roots.is_empty() {
        return Err("there is no root certificate to check rediss:// by".to_owned());
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
