//! Whom we trust and what we offer: roots of the machine, roots of the operator, HTTP/1.1 or HTTP/2 by ALPN.
//!
//! Built once and shared by all cores, so that TLS sessions resume on any of them. A machine without roots is no error
//! (plain and private providers may be all there is); an operator's file that cannot be read is.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;
use std::sync::Arc;

/// The two settings of TLS towards providers.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// Offers `http/1.1` only.
    pub http1: Arc<rustls::ClientConfig>,
    /// Offers `h2` only, for providers with `http2 = true`.
    pub http2: Arc<rustls::ClientConfig>,
}

/// System roots plus those in the PEM file `extra_roots`. The file's mistake otherwise, in words for the operator.
pub fn tls_config(extra_roots: Option<&Path>) -> Result<TlsConfig, String> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "some system roots cannot be read");
    }
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = extra_roots {
        let wrong = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
        let mut found = 0;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(&e))? {
            roots.add(certificate.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
            found += 1;
        }
        if found == 0 {
            return Err(wrong(&"holds no certificate"));
        }
    }
    if roots.is_empty() {
        tracing::warn!("no root certificates on this machine: providers over https cannot be reached");
    }
    let base = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let offering = |protocol: &[u8]| {
        let mut config = base.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        // Each its own memory: a session of the one must not be resumed under the other's protocol.
        config.resumption = rustls::client::Resumption::in_memory_sessions(256);
        Arc::new(config)
    };
    Ok(TlsConfig { http1: offering(b"http/1.1"), http2: offering(b"h2") })
}
