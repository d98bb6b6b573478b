//! `merido healthcheck`: asks the gateway that runs by the same settings, as a container engine does every few seconds.
//!
//! It asks its own machine and says nothing secret, so over TLS it looks at no certificate: one that has run out, or
//! files half replaced, are no reason to restart a gateway that serves.

use super::Stop;
use crate::config::Settings;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// For all of it: connecting, the handshake, the answer.
const DEADLINE: Duration = Duration::from_secs(3);

/// Good when `GET /healthz` says 200 in time.
pub(super) async fn healthcheck(settings: &Settings) -> Result<(), Stop> {
    let addr = SocketAddr::new(reachable(settings.host), settings.port);
    match tokio::time::timeout(DEADLINE, ask(addr, settings.tls_cert.is_some())).await {
        Ok(Ok(200)) => Ok(()),
        Ok(Ok(status)) => Err(Stop::failure(format!("{addr}/healthz says {status}"))),
        Ok(Err(error)) => Err(Stop::failure(format!("{addr}: {error}"))),
        Err(_) => Err(Stop::failure(format!("{addr} did not answer within {} s", DEADLINE.as_secs()))),
    }
}

/// Where one who listens on `host` can be asked.
fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    }
}

async fn ask(addr: SocketAddr, tls: bool) -> io::Result<u16> {
    let socket = TcpStream::connect(addr).await?;
    if !tls {
        return status(socket, addr).await;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    status(connector.connect(ServerName::from(addr.ip()), socket).await?, addr).await
}

async fn status(mut stream: impl AsyncRead + AsyncWrite + Unpin, addr: SocketAddr) -> io::Result<u16> {
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    let code = head.strip_prefix(b"HTTP/1.1 ").and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
    code.ok_or_else(|| io::Error::other("what answers there is no gateway"))
}

/// Takes any certificate.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn against(answer: &'static [u8]) -> Result<(), Stop> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let settings = Settings { host: Ipv4Addr::UNSPECIFIED.into(), port, ..Settings::default() };
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 21];
            socket.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"GET /healthz HTTP/1.1");
            socket.write_all(answer).await.unwrap();
        };
        tokio::join!(healthcheck(&settings), serve).0
    }

    #[tokio::test]
    async fn only_200_is_well() {
        assert_eq!(against(b"HTTP/1.1 200 OK\r\n\r\n").await, Ok(()));
        let said = against(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await.unwrap_err();
        assert!(said.code == 1 && said.message.contains("503"), "{said:?}");
        assert!(against(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap_err().message.contains("no gateway"));
    }

    #[test]
    fn every_address_is_asked_on_loopback() {
        assert_eq!(reachable("0.0.0.0".parse().unwrap()).to_string(), "127.0.0.1");
        assert_eq!(reachable("::".parse().unwrap()).to_string(), "::1");
        assert_eq!(reachable("10.1.2.3".parse().unwrap()).to_string(), "10.1.2.3");
    }
}
