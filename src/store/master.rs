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
const PREVIOUS_SETTING: &str = "MERIDO_MASTER_KEY_PREVIOUS";
const PATH_SETTING: &str = "MERIDO_MASTER_KEY_PATH";

/// Where to look.
#[derive(Clone, Debug)]
pub(super) struct MasterSource {
    /// `MERIDO_MASTER_KEY`.
    pub(super) given: Option<Secret>,
    /// `MERIDO_MASTER_KEY_PREVIOUS`: opens what was not rotated yet.
    pub(super) previous: Option<Secret>,
    /// The file opens it even when a key is given: while that one is to replace it.
    pub(super) also_filed: bool,
    /// The file, when nothing is given.
    pub(super) path: PathBuf,
}

impl MasterSource {
    /// The keys that may open a store that is there already: ours, the one it is being changed to, the one before.
    pub(super) fn load(&self) -> Result<Vec<MasterKey>> {
        let mut keys: Vec<_> = self.current()?.into_iter().collect();
        if self.given.is_none() {
            keys.extend(read(&self.next_path())?);
        } else if self.also_filed {
            keys.extend(self.filed()?);
        }
        if let Some(previous) = &self.previous {
            keys.push(given(PREVIOUS_SETTING, previous)?);
        }
        if keys.is_empty() {
            let path = self.path.display();
            let message = format!(
                "the store holds sealed secrets, but its master key file {path} is missing: put it back, or set {SETTING}"
            );
            return Err(StoreError::new(StoreErrorKind::WrongMasterKey, message));
        }
        Ok(keys)
    }

    /// The key to seal a new store with, made when there is none yet.
    pub(super) fn load_or_create(&self) -> Result<MasterKey> {
        if let Some(key) = self.current()? {
            return Ok(key);
        }
        create(&self.path)?;
        let made = read(&self.path)?;
        made.ok_or_else(|| StoreError::unavailable(format!("the master key {} vanished", self.path.display())))
    }

    /// The key of the setting, else that of the file.
    pub(super) fn current(&self) -> Result<Option<MasterKey>> {
        if self.given.is_some() { self.given() } else { self.filed() }
    }

    /// The key of the setting.
    pub(super) fn given(&self) -> Result<Option<MasterKey>> {
        self.given.as_ref().map(|key| given(SETTING, key)).transpose()
    }

    fn filed(&self) -> Result<Option<MasterKey>> {
        read(&self.path)
    }

    /// Writes a new key beside the file. It is no use yet, but from now on it opens the store as well.
    pub(super) fn prepare_next(&self) -> Result<MasterKey> {
        let path = self.next_path();
        if read(&path)?.is_none() {
            create(&path)?;
        }
        let made = read(&path)?;
        made.ok_or_else(|| StoreError::unavailable(format!("the master key {} vanished", path.display())))
    }

    /// The new key takes the file's place.
    pub(super) fn promote_next(&self) -> Result<()> {
        let moved = fs::rename(self.next_path(), &self.path);
        moved.map_err(|e| {
            let (next, path) = (self.next_path(), self.path.clone());
            let message = format!(
                "the store is sealed anew, but {} could not be moved to {}: {e}; move it yourself",
                next.display(),
                path.display()
            );
            StoreError::invalid(PATH_SETTING, message)
        })
    }

    fn next_path(&self) -> PathBuf {
        let mut beside = self.path.as_os_str().to_owned();
        beside.push(".next");
        PathBuf::from(beside)
    }
}

/// A key given in a setting.
fn given(setting: &'static str, key: &Secret) -> Result<MasterKey> {
    MasterKey::from_base64(key.reveal()).map_err(|e| StoreError::invalid(setting, e.to_string()))
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
        let source =
            MasterSource { given: None, previous: None, also_filed: false, path: dir.path().join("master.key") };
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
        let given =
            MasterSource { given: Some(Secret::new("short")), previous: None, also_filed: false, path: source.path };
        assert_eq!(given.load().err().map(|e| e.kind), Some(StoreErrorKind::Invalid(SETTING)));
    }
}
