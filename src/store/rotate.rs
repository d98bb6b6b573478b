//! Changing the master key: the data key is wrapped anew, in one statement that only succeeds on what was read.
//!
//! The new key is `MERIDO_MASTER_KEY`, else one made beside the key file, which takes its place once the store is
//! sealed under it: whatever ends the command in between, one of the two files opens the store, and the next start
//! looks at both. Running instances hold the data key and notice nothing.

use super::master::MasterSource;
use super::seals;
use super::{Result, Store, StoreConfig, StoreError, StoreErrorKind};
use std::path::PathBuf;

/// How a rotation ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rotated {
    /// The store opens under `MERIDO_MASTER_KEY` now.
    Given,
    /// The store opened under `MERIDO_MASTER_KEY` already.
    Already,
    /// The store opens under a new key in this file.
    File(PathBuf),
}

/// Seals the store of `config` under its new master key.
pub async fn rotate_master_key(config: &StoreConfig) -> Result<Rotated> {
    let source = MasterSource { also_filed: true, ..config.master() };
    let store = Store::open_by(config, source.clone())?;
    let found = store.engine.deployment().await?;
    let found = found.ok_or_else(|| StoreError::corrupt("the store has no deployment"))?;
    let (new, done) = match source.given()? {
        Some(given) if seals::open(std::slice::from_ref(&given), &found).is_ok() => return Ok(Rotated::Already),
        Some(given) => (given, Rotated::Given),
        None => (source.prepare_next()?, Rotated::File(source.path.clone())),
    };
    // Else an earlier rotation got so far and no further.
    if seals::open(std::slice::from_ref(&new), &found).is_err() {
        let wrapped = seals::rotate(&found, &source.load()?, &new)?;
        if !store.engine.rewrap(found.wrapped_key, wrapped).await? {
            let message = "somebody else changed the master key just now: look which one holds, then try again";
            return Err(StoreError::new(StoreErrorKind::Conflict, message));
        }
    }
    if matches!(done, Rotated::File(_)) {
        source.promote_next()?;
    }
    Ok(done)
}
