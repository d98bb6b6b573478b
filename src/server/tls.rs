//! The certificate we show, and its change while we run.
//!
//! Files are looked at every two seconds. A pair that cannot be used is told of once and the old one stays, so a
//! renewal that went wrong takes nobody's connection away; connections already open keep what they were made with.

use crate::base::tasks::{Drain, Phase};
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt::Display;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(2);

/// Certificate and key by their files, as they were last found good.
#[derive(Debug)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
    loaded: Stamp,
}

/// What a file looks like from outside: replaced, rewritten or touched, it differs.
type Stamp = [Option<(SystemTime, u64, u64)>; 2];

impl Tls {
    /// Reads both files. The mistake otherwise, in words for the operator; never a byte of the key.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, String> {
        // Before reading: what changes meanwhile is read again.
        let loaded = stamp(certificate, key);
        let current = RwLock::new(config(certificate, key)?);
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current, loaded })
    }

    /// What the next handshake uses.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read())
    }

    /// Follows the files until shutdown's *finish* phase.
    pub async fn watch(self: Arc<Self>, drain: Drain) {
        let mut watcher = Watcher { tried: self.loaded, seen: self.loaded };
        let finish = drain.reached(Phase::Finish);
        tokio::pin!(finish);
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = &mut finish => return,
            }
            match watcher.look(&self) {
                Some(Ok(())) => tracing::info!(file = %self.certificate.display(), "a new certificate is in use"),
                Some(Err(why)) => tracing::warn!(why, "the new certificate can't be used; the old one stays"),
                None => {}
            }
        }
    }
}

/// What was looked at, so that one change is tried once.
struct Watcher {
    tried: Stamp,
    seen: Stamp,
}

impl Watcher {
    /// One look; the outcome when a change was tried.
    fn look(&mut self, tls: &Tls) -> Option<Result<(), String>> {
        let now = stamp(&tls.certificate, &tls.key);
        // Two files can't change at once: wait until both have been still for a turn.
        let still = std::mem::replace(&mut self.seen, now) == now;
        if !still || now == self.tried {
            return None;
        }
        self.tried = now;
        Some(config(&tls.certificate, &tls.key).map(|new| *tls.current.write() = new))
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.modified().ok()?, found.len(), found.ino()))
    })
}

fn config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let wrong = |path: &Path, what: &dyn Display| format!("{}: {what}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| wrong(certificate, &e))?;
    if chain.is_empty() {
        return Err(wrong(certificate, &"holds no certificate"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, &e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        // Checks that the two belong together.
        .with_single_cert(chain, secret)
        .map_err(|e| wrong(certificate, &format!("{e} (with the key {})", key.display())))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Sessions resume on any core, and nothing is kept for them here.
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|e| e.to_string())?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, host: &str) {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_new_pair_is_taken_once_it_is_still_and_a_bad_one_is_tried_once() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "one");
        let tls = Tls::load(&dir.path().join("cert.pem"), &dir.path().join("key.pem")).unwrap();
        let mut watcher = Watcher { tried: tls.loaded, seen: tls.loaded };
        let first = tls.current();
        assert!(watcher.look(&tls).is_none());

        write(dir.path(), "another");
        assert!(watcher.look(&tls).is_none(), "just changed: its other half may follow");
        assert!(watcher.look(&tls).unwrap().is_ok());
        let second = tls.current();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(watcher.look(&tls).is_none());

        let other = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
        std::fs::write(dir.path().join("key.pem"), other.signing_key.serialize_pem() + "\n").unwrap();
        assert!(watcher.look(&tls).is_none());
        let why = watcher.look(&tls).unwrap().unwrap_err();
        assert!(why.contains("cert.pem") && why.contains("key.pem") && !why.contains("BEGIN"), "{why}");
        assert!(watcher.look(&tls).is_none(), "said once");
        std::fs::remove_file(dir.path().join("key.pem")).unwrap();
        assert!(watcher.look(&tls).is_none());
        assert!(watcher.look(&tls).unwrap().is_err());
        assert!(Arc::ptr_eq(&second, &tls.current()), "the old one stays");
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        assert!(Tls::load(&cert, &key).unwrap_err().contains("cert.pem"));
        std::fs::write(&cert, "nothing").unwrap();
        assert!(Tls::load(&cert, &key).unwrap_err().contains("holds no certificate"));
        write(dir.path(), "one");
        std::fs::write(&key, "nothing").unwrap();
        assert!(Tls::load(&cert, &key).unwrap_err().contains("key.pem"));
    }
}
