//! A certificate authority made at start, and the mock's server side of TLS.
//!
//! Must never write a private key to disk: both live in this process alone. An unwritable path fails the start.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// Makes an authority and a certificate for `localhost` and `127.0.0.1`; writes the authority's PEM to `ca_file`.
pub(crate) fn acceptor(ca_file: &Path) -> io::Result<TlsAcceptor> {
    let (ca_pem, leaf, key) = certificates().map_err(io::Error::other)?;
    std::fs::write(ca_file, ca_pem)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![leaf], key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

type Made = (String, rustls::pki_types::CertificateDer<'static>, Vec<u8>);

fn certificates() -> Result<Made, rcgen::Error> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "loadtest mock authority");
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let authority_key = KeyPair::generate()?;
    let ca_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let mut leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, "loadtest mock");
    let leaf_key = KeyPair::generate()?;
    let signed = leaf.signed_by(&leaf_key, &issuer)?;
    Ok((ca_pem, signed.der().clone(), leaf_key.serialize_der()))
}
