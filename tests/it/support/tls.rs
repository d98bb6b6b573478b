//! TLS towards the gateway: a certificate in files, and clients that trust exactly it.

use super::gateway::Setup;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate for `localhost` and its key, in two files.
pub struct Certificate {
    dir: TempDir,
    pub der: CertificateDer<'static>,
}

impl Certificate {
    pub fn new() -> Self {
        let mut made = Self { dir: tempfile::tempdir().unwrap(), der: CertificateDer::from(Vec::new()) };
        made.renew();
        made
    }

    /// Another pair in the same files.
    pub fn renew(&mut self) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(self.path("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(self.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
        self.der = made.cert.der().clone();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A gateway that shows it.
    pub fn on(&self, setup: Setup) -> Setup {
        setup.with(|s| (s.tls_cert, s.tls_key) = (Some(self.path("cert.pem")), Some(self.path("key.pem"))))
    }

    /// A connection that agreed on `protocol`.
    pub async fn connect(&self, addr: SocketAddr, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let stream =
            TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(addr).await.unwrap()).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        Ok(stream)
    }

    /// An HTTP/2 client, and what ends when its connection does.
    pub async fn http2(&self, addr: SocketAddr) -> (Http2, tokio::task::JoinHandle<hyper::Result<()>>) {
        let stream = self.connect(addr, "h2").await.unwrap();
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(1 << 16).initial_connection_window_size(1 << 24);
        let (sender, conn) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        (Http2(sender), tokio::spawn(conn))
    }
}

/// Asks over HTTP/2, many at once.
#[derive(Clone)]
pub struct Http2(http2::SendRequest<Full<Bytes>>);

impl Http2 {
    /// The answer's head; its body as it comes.
    pub async fn send(&mut self, method: &str, path: &str, body: &'static [u8]) -> hyper::Response<Incoming> {
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("https://localhost{path}"))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(body)))
            .unwrap();
        self.0.send_request(request).await.unwrap()
    }

    /// Status and whole body.
    pub async fn ask(&mut self, method: &str, path: &str, body: &'static [u8]) -> (u16, String) {
        let answer = self.send(method, path, body).await;
        let status = answer.status().as_u16();
        (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }
}
