//! From a database URL to connections: its `sslmode` in libpq's meaning, deadlines around connecting, a bounded pool.
//!
//! `disable`, `prefer` (the default: TLS if the server has it, unverified), `require` (TLS, unverified, unless
//! `sslrootcert` is given: then as `verify-ca`), `verify-ca` (the certificate's chain), `verify-full` (and its name).
//! Roots are those of `sslrootcert`, else the machine's. No message repeats the URL: it may hold a password.

use super::super::error::{Result, StoreError};
use crate::base::{Secret, tasks};
use deadpool_postgres::{Connect, Manager, ManagerConfig, PoolError, RecyclingMethod, Runtime};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::pin::Pin;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

pub(super) type Pool = deadpool_postgres::Pool;
pub(super) type Connection = deadpool_postgres::Object;
/// A connection and what drives it.
pub(super) type Driven =
    (Client, tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>);

/// Making a connection, TLS and authentication included.
const CONNECT: Duration = Duration::from_secs(5);
const SETTING: &str = "MERIDO_DATABASE_URL";

/// Where to connect, and how.
#[derive(Clone)]
pub(super) struct Link {
    config: Config,
    tls: MakeRustlsConnect,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Link {
    pub(super) fn new(url: &Secret) -> Result<Self> {
        let (plain, mode, roots) = split(url.reveal())?;
        // Its messages name the part that is wrong, not what stood there.
        let mut config = Config::from_str(&plain).map_err(|e| {
            let cause = std::error::Error::source(&e).map(|cause| format!(": {cause}")).unwrap_or_default();
            StoreError::invalid(SETTING, format!("must look like postgres://user:password@host:5432/database{cause}"))
        })?;
        let only_sockets = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        config.ssl_mode(match mode {
            Mode::Prefer | Mode::Disable if only_sockets => SslMode::Disable,
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        });
        config.connect_timeout(CONNECT);
        config.keepalives_idle(Duration::from_secs(30));
        config.tcp_user_timeout(Duration::from_secs(20));
        if config.get_application_name().is_none() {
            config.application_name("merido");
        }
        Ok(Self { config, tls: MakeRustlsConnect::new(tls(mode, roots.as_deref())?) })
    }

    /// `host:port/database`.
    pub(super) fn place(&self) -> String {
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let hosts: Vec<_> = hosts.collect();
        let port = self.config.get_ports().first().map(|port| format!(":{port}")).unwrap_or_default();
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or_default();
        format!("postgres://{}{port}/{database}", hosts.join(","))
    }

    /// One connection outside the pool.
    pub(super) async fn connect(&self) -> Result<Driven> {
        let connecting = self.config.connect(self.tls.clone());
        match tokio::time::timeout(CONNECT, connecting).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(late()),
        }
    }

    pub(super) fn pool(&self, size: usize) -> Result<Pool> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(self.config.clone(), Dialler(self.tls.clone()), recycling);
        let pool = Pool::builder(manager)
            .max_size(size)
            .wait_timeout(Some(CONNECT))
            .create_timeout(Some(CONNECT))
            .runtime(Runtime::Tokio1)
            .build();
        pool.map_err(|e| StoreError::unavailable(format!("cannot make the pool of connections: {e}")))
    }
}

/// A connection out of the pool; those the server closed meanwhile are let go first.
pub(super) async fn take(pool: &Pool) -> Result<Connection> {
    pool.retain(|connection, _| !connection.is_closed());
    match pool.get().await {
        Ok(connection) => Ok(connection),
        Err(PoolError::Backend(e)) => Err(e.into()),
        Err(PoolError::Timeout(_)) => Err(late()),
        Err(e) => Err(StoreError::unavailable(format!("the database: {e}"))),
    }
}

fn late() -> StoreError {
    StoreError::unavailable(format!("the database could not be reached within {} s", CONNECT.as_secs()))
}

/// Dials for the pool. What drives a connection ends with it; why, the next call on it says.
struct Dialler(MakeRustlsConnect);

impl Connect for Dialler {
    fn connect(
        &self,
        config: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>> + Send + '_>> {
        let (config, tls) = (config.clone(), self.0.clone());
        Box::pin(async move {
            let (client, connection) = config.connect(tls).await?;
            let driving = tasks::spawn("store connection", async move { drop(connection.await) });
            Ok((client, driving))
        })
    }
}

/// The URL without what the driver does not know, the mode, and the file of roots.
fn split(url: &str) -> Result<(String, Mode, Option<String>)> {
    let wrong = |message: String| StoreError::invalid(SETTING, message);
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(wrong("must begin with postgres://".to_owned()));
    }
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut mode, mut roots, mut rest) = (None, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", value)) => {
                mode = Some(match value {
                    "disable" => Mode::Disable,
                    "allow" | "prefer" => Mode::Prefer,
                    "require" => Mode::Require,
                    "verify-ca" => Mode::VerifyCa,
                    "verify-full" => Mode::VerifyFull,
                    _ => {
                        let known = "disable, prefer, require, verify-ca or verify-full";
                        return Err(wrong(format!("sslmode must be {known}")));
                    }
                });
            }
            Some(("sslrootcert", path)) => roots = Some(decoded(path)).filter(|path| path != "system"),
            Some((name @ ("sslcert" | "sslkey" | "sslcrl"), _)) => {
                return Err(wrong(format!("{name} is not supported")));
            }
            _ => rest.push(pair),
        }
    }
    let mode = match mode.unwrap_or(Mode::Prefer) {
        Mode::Require if roots.is_some() => Mode::VerifyCa,
        mode => mode,
    };
    let query = if rest.is_empty() { String::new() } else { format!("?{}", rest.join("&")) };
    Ok((format!("{place}{query}"), mode, roots))
}

fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let pair = [ahead.next(), ahead.next()].map(|b| b.and_then(|b| char::from(b).to_digit(16)));
        match (byte, pair) {
            (b'%', [Some(high), Some(low)]) => {
                out.push((high * 16 + low) as u8);
                bytes = ahead;
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn tls(mode: Mode, roots: Option<&str>) -> Result<ClientConfig> {
    let wrong = |what: String| StoreError::invalid(SETTING, what);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(e.to_string()))?;
    if !matches!(mode, Mode::VerifyCa | Mode::VerifyFull) {
        let any = Arc::new(Lenient { strict: None, provider });
        return Ok(builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth());
    }
    let mut store = RootCertStore::empty();
    if let Some(path) = roots {
        let unreadable = |e: &dyn std::fmt::Display| wrong(format!("sslrootcert {path}: {e}"));
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))? {
            store.add(certificate.map_err(|e| unreadable(&e))?).map_err(|e| unreadable(&e))?;
        }
    } else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if store.is_empty() {
        return Err(wrong("there is no root certificate to verify the server with: give sslrootcert".to_owned()));
    }
    if mode == Mode::VerifyFull {
        return Ok(builder.with_root_certificates(store).with_no_client_auth());
    }
    let strict = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider)).build();
    let strict = strict.map_err(|e| wrong(e.to_string()))?;
    let chain = Arc::new(Lenient { strict: Some(strict), provider });
    Ok(builder.dangerous().with_custom_certificate_verifier(chain).with_no_client_auth())
}

/// Takes any certificate, or any of a known authority whatever its name.
#[derive(Debug)]
struct Lenient {
    strict: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(strict) = &self.strict else { return Ok(ServerCertVerified::assertion()) };
        // The name is looked at last: when it is what is wrong, the chain was right.
        match strict.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Link::new(&Secret::new(url.to_owned())).err().unwrap().to_string()
    }

    #[test]
    fn urls_are_read_and_mistakes_named_without_repeating_the_password() {
        let link =
            Link::new(&Secret::new("postgres://u:hunter2@db:5433/m?sslmode=require&application_name=x")).unwrap();
        assert_eq!(link.place(), "postgres://db:5433/m");
        assert_eq!(link.config.get_ssl_mode(), SslMode::Require);
        assert_eq!(link.config.get_application_name(), Some("x"));
        let socket = Link::new(&Secret::new("postgresql://u@%2Frun%2Fpg/m")).unwrap();
        assert_eq!(
            (socket.place().as_str(), socket.config.get_ssl_mode()),
            ("postgres:///run/pg:5432/m", SslMode::Disable)
        );
        let (_, mode, roots) = split("postgres://h/d?sslmode=require&sslrootcert=%2Fetc%2Fca.pem").unwrap();
        assert!(mode == Mode::VerifyCa && roots.as_deref() == Some("/etc/ca.pem"), "as libpq has it");
        for (url, part) in [
            ("mysql://u:hunter2@h/d", "postgres://"),
            ("postgres://u:hunter2@h/d?sslmode=maybe", "sslmode"),
            ("postgres://u:hunter2@h/d?sslkey=x", "sslkey"),
            ("postgres://u:hunter2@h:port/d", "port"),
            ("postgres://u:hunter2@h/d?sslmode=verify-full&sslrootcert=/nowhere", "/nowhere"),
        ] {
            let said = refused(url);
            assert!(said.contains(part) && said.contains(SETTING) && !said.contains("hunter2"), "{said}");
        }
    }
}
