//! `merido check`: what is wrong, and how to mend it. The settings were read before; here comes what they point to.

use super::Stop;
use crate::base::AccountId;
use crate::config::Settings;
use crate::state::catalog::{Auth, Directory};
use crate::store::refresh::Sources;
use crate::store::{Refresher, Result, Store, StoreConfig};
use argon2::password_hash::PasswordHash;
use std::io::Write;
use std::sync::Arc;

/// Says `ok`, `note` or `bad` line by line; a failure when anything is bad.
pub(super) async fn check(settings: &Settings, out: &mut dyn Write) -> std::result::Result<(), Stop> {
    let mut bad = 0;
    writeln!(out, "ok    settings")?;
    if let Some(hash) = &settings.dashboard_password_hash
        && PasswordHash::new(hash.reveal()).is_err()
    {
        writeln!(out, "bad   MERIDO_DASHBOARD_PASSWORD_HASH is no argon2 hash: make one with `merido hash-password`")?;
        bad += 1;
    }
    if settings.dashboard_password_hash.is_none() && !settings.host.is_loopback() && !settings.allow_open_admin {
        writeln!(
            out,
            "bad   MERIDO_HOST is not loopback and the control plane has no password: set \
             MERIDO_DASHBOARD_PASSWORD_HASH to what `merido hash-password` prints"
        )?;
        bad += 1;
    }
    match store(settings).await {
        Ok((place, version, directory)) => {
            writeln!(out, "ok    store in {place} (version {version})")?;
            writeln!(out, "ok    master key")?;
            for line in catalog(&directory) {
                writeln!(out, "{line}")?;
            }
        }
        Err(error) => {
            match settings.database_url {
                Some(_) => writeln!(out, "bad   store in MERIDO_DATABASE_URL: {error}")?,
                None => writeln!(out, "bad   store in {}: {error}", settings.data_dir.display())?,
            }
            bad += 1;
        }
    }
    if bad > 0 { Err(Stop::failure(format!("{bad} thing(s) to mend"))) } else { Ok(()) }
}

async fn store(settings: &Settings) -> Result<(String, u32, Arc<Directory>)> {
    let store = Store::open(&StoreConfig::from(settings))?;
    let (place, version) = (store.place(), store.schema_version().await?);
    let directory = Arc::new(Directory::new());
    Refresher::new(store, Arc::clone(&directory), Sources::from(settings))?.load().await?;
    Ok((place, version, directory))
}

fn catalog(directory: &Directory) -> Vec<String> {
    let catalog = directory.catalog();
    let real = catalog.accounts.iter().filter(|account| account.id != AccountId(0)).count();
    let mut lines = vec![format!("ok    {real} account(s), {} key(s)", directory.key_count())];
    if real == 0 {
        lines.push("note  no account yet: merido providers add --provider openai --api-key …".to_owned());
    }
    for account in &catalog.accounts {
        if account.id != AccountId(0) && account.credential.is_none() && account.provider.auth != Auth::None {
            lines.push(format!("note  {} @{} has an empty API key", account.provider.name, account.label));
        }
    }
    let mut models: Vec<_> = catalog.virtual_models.values().collect();
    models.sort_by(|a, b| a.name.cmp(&b.name));
    for model in models {
        for target in &model.targets {
            let accounts = catalog.by_provider.get(&target.provider).map(Vec::as_slice).unwrap_or_default();
            let named = |label: &str| {
                accounts.iter().any(|account| *account.label == *label || account.id.to_string() == label)
            };
            let (name, provider) = (&model.name, &target.provider);
            if accounts.is_empty() {
                lines.push(format!("note  virtual model {name}: there is no account with {provider}"));
            } else if let Some(label) = target.account.as_deref().filter(|label| !named(label)) {
                lines.push(format!("note  virtual model {name}: {provider} has no account `{label}`"));
            }
        }
    }
    lines
}
