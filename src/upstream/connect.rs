//! From a host's name to a connection: addresses, TCP, TLS, all within one deadline.
//!
//! Tries every address in the resolver's order; one that stays silent gets its share of the time only, so that a host
//! with a dead first address is still reached. Rare beside requests, so a timer is fine here.

use super::call::{CallError, CallErrorKind as Kind, Deadline};
use super::h1::conn::Stream;
use crate::state::catalog::BaseUrl;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Connects to `base` within `patience`; `tls` is used for `https` only.
pub(super) async fn connect(
    base: &BaseUrl,
    tls: &Arc<rustls::ClientConfig>,
    patience: Duration,
) -> Result<Stream, CallError> {
    match timeout(patience, connect_untimed(base, tls, patience)).await {
        Ok(done) => done,
        Err(_) => Err(CallError::new(Kind::Timeout(Deadline::Connect), false)),
    }
}

async fn connect_untimed(
    base: &BaseUrl,
    tls: &Arc<rustls::ClientConfig>,
    patience: Duration,
) -> Result<Stream, CallError> {
    let tcp = tcp(base, patience).await.map_err(|cause| CallError::because(Kind::Connect, false, cause))?;
    if !base.tls {
        return Ok(Stream::Plain(tcp));
    }
    let failed = |cause: io::Error| CallError::because(Kind::Tls, false, cause);
    let name = ServerName::try_from(base.host.to_string()).map_err(|e| failed(io::Error::other(e)))?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await.map_err(failed)?;
    Ok(Stream::Tls(Box::new(stream)))
}

async fn tcp(base: &BaseUrl, patience: Duration) -> io::Result<TcpStream> {
    let addresses: Vec<_> = tokio::net::lookup_host((&*base.host, base.port)).await?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (n, address) in addresses.iter().enumerate() {
        let share = if n + 1 == addresses.len() { patience } else { patience / (addresses.len() as u32).max(2) };
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Without it the second write of a request may wait 40 ms for the provider's delayed ACK.
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}
