//! The mock provider: speaks OpenAI, Anthropic and Gemini, costs as little as a server can.
//!
//! One single-threaded runtime per core, each with its own listener on the same port (`SO_REUSEPORT`); replies are
//! built once at start and written whole. Must never listen anywhere but loopback. A connection that misbehaves is
//! closed and forgotten; a port that cannot be had ends the mock before it says it is ready.

mod book;
mod conn;
mod counters;
mod shapes;
mod tls;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;
use tokio::task::JoinSet;

use book::Book;
use conn::Shared;
use counters::Counters;

/// How the mock behaves. The same fields are a scenario's `[mock]` table.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Options {
    /// Port on 127.0.0.1; 0 takes a free one. The ports taken are printed as one line of JSON.
    #[arg(long, default_value_t = 0)]
    #[serde(skip)]
    pub(crate) port: u16,
    /// Threads, each with its own listener; 0 is one per core.
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Wait before the first byte of every reply, ms.
    #[arg(long, default_value_t = 0)]
    pub(crate) latency_ms: u64,
    /// Answer with this status instead of 200.
    #[arg(long, default_value_t = 200)]
    pub(crate) status: u16,
    /// Only every Nth call gets `--status`; 1 is all of them.
    #[arg(long, default_value_t = 1)]
    pub(crate) status_every: u64,
    /// Events of a stream, before the usage chunk and the end mark.
    #[arg(long, default_value_t = 33)]
    pub(crate) chunks: usize,
    /// Time between two events, ms; 0 writes the whole stream at once.
    #[arg(long, default_value_t = 0)]
    pub(crate) pace_ms: u64,
    /// Size of a plain reply's body, bytes (a floor: each dialect's envelope must fit).
    #[arg(long, default_value_t = 600)]
    pub(crate) reply_bytes: usize,
    /// Also listen with TLS on a second port; the certificate authority to trust is written to this file.
    #[arg(long, value_name = "CA_FILE")]
    #[serde(skip)]
    pub(crate) tls: Option<PathBuf>,
    /// Stop when standard input ends, so that the mock cannot outlive the program that started it.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) until_stdin_closes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            threads: 0,
            latency_ms: 0,
            status: 200,
            status_every: 1,
            chunks: 33,
            pace_ms: 0,
            reply_bytes: 600,
            tls: None,
            until_stdin_closes: false,
        }
    }
}

/// The line the mock prints when it is ready.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) port: u16,
    pub(crate) tls_port: Option<u16>,
}

/// Serves until `SIGINT`, or until standard input ends if asked. `ready` is called once all listeners are open.
pub(crate) fn serve(options: &Options, ready: impl FnOnce(&Ready) -> io::Result<()>) -> io::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if options.threads == 0 { cores } else { options.threads };
    let acceptor = options.tls.as_deref().map(tls::acceptor).transpose()?;
    let plain = listeners(options.port, threads)?;
    let secure = if acceptor.is_some() { listeners(0, threads)? } else { (0, Vec::new()) };
    let counters: Arc<[Counters]> = (0..threads).map(|_| Counters::default()).collect();
    let book = Arc::new(Book::new(options.chunks, options.reply_bytes, options.pace_ms > 0));
    let (stop, stopped) = watch::channel(());

    std::thread::scope(|scope| {
        let mut secure_listeners = secure.1.into_iter();
        for (core, listener) in plain.1.into_iter().enumerate() {
            let shared = Arc::new(Shared {
                core,
                counters: Arc::clone(&counters),
                book: Arc::clone(&book),
                latency: Duration::from_millis(options.latency_ms),
                pace: Duration::from_millis(options.pace_ms),
                failure: (options.status != 200)
                    .then(|| book::failure(options.status))
                    .map(|wire| (wire, options.status_every.max(1))),
            });
            let secure = acceptor.clone().zip(secure_listeners.next());
            let stopped = stopped.clone();
            std::thread::Builder::new().name(format!("mock-{core}")).spawn_scoped(scope, move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(accept(listener, secure, shared, stopped))
            })?;
        }
        let outcome = ready(&Ready { port: plain.0, tls_port: acceptor.is_some().then_some(secure.0) });
        if outcome.is_ok() {
            wait_for_the_end(options.until_stdin_closes)?;
        }
        drop(stop);
        outcome
    })
}

type Secure = Option<(tokio_rustls::TlsAcceptor, TcpListener)>;

/// One core's accept loop. Ends when the sender of `stopped` is gone; its connections end with the runtime.
async fn accept(
    listener: TcpListener,
    secure: Secure,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<()>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let secure = match secure {
        Some((acceptor, listener)) => Some((acceptor, tokio::net::TcpListener::from_std(listener)?)),
        None => None,
    };
    let mut connections = JoinSet::new();
    loop {
        let accept_secure = async {
            match &secure {
                Some((acceptor, listener)) => listener.accept().await.map(|(stream, _)| (stream, acceptor)),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                stream.set_nodelay(true)?;
                connections.spawn(conn::run(stream, Arc::clone(&shared)));
            }
            accepted = accept_secure => {
                let Ok((stream, acceptor)) = accepted else { continue };
                stream.set_nodelay(true)?;
                let (handshake, shared) = (acceptor.accept(stream), Arc::clone(&shared));
                connections.spawn(async move {
                    if let Ok(stream) = handshake.await {
                        conn::run(stream, shared).await;
                    }
                });
            }
            Some(_) = connections.join_next() => {}
            _ = stopped.changed() => return Ok(()),
        }
    }
}

fn wait_for_the_end(until_stdin_closes: bool) -> io::Result<()> {
    if until_stdin_closes {
        return io::copy(&mut io::stdin().lock(), &mut io::sink()).map(|_| ());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::signal::ctrl_c())
}

/// `count` listeners on one loopback port; the kernel spreads connections over them.
fn listeners(port: u16, count: usize) -> io::Result<(u16, Vec<TcpListener>)> {
    let mut port = port;
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        socket.listen(4096)?;
        let listener = TcpListener::from(socket);
        port = listener.local_addr()?.port();
        all.push(listener);
    }
    Ok((port, all))
}
