//! What seals a deployment's secrets: the data key that its store holds wrapped, checked against the canary beside it.
//!
//! The master key only ever wraps the data key, so changing it rewraps one value ([`rotate`]) and running instances,
//! which hold the data key in memory, notice nothing. A wrong master key is one clear error, before anything is served.

use super::engine::Deployment;
use super::master::MasterSource;
use super::{Result, StoreError, StoreErrorKind};
use crate::base::AccountId;
use crate::base::seal::{self, DataKey, MasterKey, SealError, Sealer};
use crate::state::providers;
use std::collections::BTreeSet;

const CANARY: &[u8] = b"merido";

/// What opens and seals.
pub(super) struct Seals {
    pub(super) deployment: u64,
    pub(super) data: DataKey,
    pub(super) accounts: Sealer,
    /// Names of the catalogue's providers.
    pub(super) builtin: BTreeSet<Box<str>>,
}

impl Seals {
    fn new(deployment: u64, data: DataKey) -> Result<Self> {
        let builtin = providers::builtin().map_err(StoreError::corrupt)?;
        Ok(Self {
            deployment,
            accounts: data.sealer("accounts")?,
            data,
            builtin: builtin.into_iter().map(|spec| spec.provider.name.clone()).collect(),
        })
    }
}

/// Opens the deployment that was found, or invents one: what to write then, and what seals.
pub(super) fn settle(source: &MasterSource, found: Option<Deployment>) -> Result<(Option<Deployment>, Seals)> {
    if let Some(found) = found {
        let data = open(&source.load()?, &found)?;
        return Ok((None, Seals::new(found.id, data)?));
    }
    let (new, data) = invent(&source.load_or_create()?)?;
    let seals = Seals::new(new.id, data)?;
    Ok((Some(new), seals))
}

/// Takes a deployment over as it is: refused where there is one already.
pub(super) fn adopt(found: Option<&Deployment>, moved: Deployment) -> Result<Deployment> {
    match found {
        None => Ok(moved),
        Some(there) if there.id == moved.id => {
            Err(StoreError::new(StoreErrorKind::Conflict, "this store was moved there already"))
        }
        Some(_) => {
            let message = "there is a deployment in that database already: give an empty one (or another schema)";
            Err(StoreError::new(StoreErrorKind::Conflict, message))
        }
    }
}

/// The wrapped key under `new`, if one of `old` opens what is there.
pub(super) fn rotate(found: &Deployment, old: &[MasterKey], new: &MasterKey) -> Result<Vec<u8>> {
    let data = open(old, found)?;
    Ok(new.wrap(&data, &found.id.to_le_bytes())?)
}

/// The data key, by the first of `masters` that opens it.
pub(super) fn open(masters: &[MasterKey], found: &Deployment) -> Result<DataKey> {
    let bound = found.id.to_le_bytes();
    let opened = |master: &MasterKey| -> Result<DataKey, SealError> {
        let data = master.unwrap_key(&found.wrapped_key, &bound)?;
        let canary = data.sealer("canary")?.open(&bound, &found.canary)?;
        if canary == CANARY { Ok(data) } else { Err(SealError::Unreadable) }
    };
    masters.iter().find_map(|master| opened(master).ok()).ok_or_else(|| {
        let message = "the master key is not the one this store was sealed with: give the right one in \
                       MERIDO_MASTER_KEY or MERIDO_MASTER_KEY_PATH";
        StoreError::new(StoreErrorKind::WrongMasterKey, message)
    })
}

fn invent(master: &MasterKey) -> Result<(Deployment, DataKey)> {
    let id = seal::random_u64()?;
    let data = DataKey::generate()?;
    let wrapped_key = master.wrap(&data, &id.to_le_bytes())?;
    let canary = data.sealer("canary")?.seal(&id.to_le_bytes(), CANARY)?;
    Ok((Deployment { id, wrapped_key, canary }, data))
}

/// What an account's secret is bound to: copied to another row it opens no more.
pub(super) fn record(id: AccountId) -> Vec<u8> {
    format!("accounts/{id}").into_bytes()
}
