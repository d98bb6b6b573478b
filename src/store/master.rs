//! Where the master key comes from: the setting, or a file of ours made on the first start.
//!
//! The file is made whole and at once with mode 0600, so that two processes that start together end up with one key.
//! A file that others may read is refused: whoever can read it and the store owns every provider secret.

use super::error::{Result, StoreError, StoreErrorKind};
use crate::base::Secret;
use crate::base::seal::{MasterKey, random_u64};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

const SETTING: &str = "MERIDO_MASTER_KEY";
const PATH_SETTING: &str = "MERIDO_MASTER_KEY_PATH";

/// Where to look.
#[derive(Clone, Debug)]
pub(super) struct MasterSource {
    /// `MERIDO_MASTER_KEY`.
    pub(super) given: Option<Secret>,
    /// The file, when nothing is given.
    pub(super) path: PathBuf,
}

impl MasterSource {
    /// The key that must be there already: a store that holds secrets waits for it.
    pub(super) fn load(&self) -> Result<MasterKey> {
        if let Some(given) = &self.given {
            return MasterKey::from_base64(given.reveal()).map_err(|e| StoreError::invalid(SETTING, e.to_string()));
        }
        match read(&self.path)? {
            Some(key) => Ok(key),
            None => Err(StoreError::new(
                StoreErrorKind::WrongMasterKey,
                format!(
                    "the store holds sealed secrets, but its master key file {} is missing: put it back, or set {SETTING}",
                    self.path.display()
                ),
            )),
        }
    }

    /// The key, made when there is none yet.
    pub(super) fn load_or_create(&self) -> Result<MasterKey> {
        if self.given.is_some() {
            return self.load();
        }
        if let Some(key) = read(&self.path)? {
            return Ok(key);
        }
        create(&self.path)?;
        self.load()
    }
}

fn read(path: &Path) -> Result<Option<MasterKey>> {
    let failed = |e: std::io::Error| {
        StoreError::invalid(PATH_SETTING, format!("cannot read the master key {}: {e}", path.display()))
    };
    let mode = match fs::metadata(path) {
        Ok(meta) => meta.permissions().mode() & 0o777,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    if mode & 0o077 != 0 {
        let path = path.display();
        let message = format!("the master key {path} may be read by others (mode {mode:04o}); run: chmod 600 {path}");
        return Err(StoreError::invalid(PATH_SETTING, message));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let key = MasterKey::from_base64(&text)
        .map_err(|e| StoreError::invalid(PATH_SETTING, format!("the master key {}: {e}", path.display())))?;
    Ok(Some(key))
}

/// Writes beside it, then links: the name appears with its whole content or not at all, and never over another's.
fn create(path: &Path) -> Result<()> {
    let failed = |e: std::io::Error| {
        StoreError::invalid(PATH_SETTING, format!("cannot make the master key {}: {e}", path.display()))
    };
    let text = MasterKey::generate_base64()?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{:016x}", random_u64()?));
    let beside = PathBuf::from(beside);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        // Sealed rows may reach the disk right after: a key lost to a power cut would lock them for ever.
        file.sync_all()?;
        match fs::hard_link(&beside, path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    };
    let written = write();
    let _ = fs::remove_file(&beside);
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_private_and_refused_when_others_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let source = MasterSource { given: None, path: dir.path().join("master.key") };
        assert_eq!(source.load().err().map(|e| e.kind), Some(StoreErrorKind::WrongMasterKey));
        source.load_or_create().unwrap();
        let text = fs::read_to_string(&source.path).unwrap();
        source.load_or_create().unwrap();
        assert_eq!(fs::read_to_string(&source.path).unwrap(), text, "made once");
        assert_eq!(fs::metadata(&source.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");

        fs::set_permissions(&source.path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = source.load().err().unwrap().to_string();
        assert!(refused.contains("0644") && refused.contains("chmod 600"), "{refused}");
        let given = MasterSource { given: Some(Secret::new("short")), path: source.path };
        assert_eq!(given.load().err().map(|e| e.kind), Some(StoreErrorKind::Invalid(SETTING)));
    }
}
