//! `/api/accounts`: credentials with providers, and whether one works. A credential goes in and never comes out.
//!
//! Accounts of the environment and the demo are shown beside the stored ones; they cannot be changed from here.

use super::Admin;
use super::asked::{Answer, Asked, refused, tag, wrong};
use super::fields::Given;
use crate::base::{AccountId, Clock, Dialect, Error, ErrorKind, Secret};
use crate::state::catalog::{Account, Catalog};
use crate::store::rows::{AccountInfo, CustomProvider, NewAccount, auth_from_name, auth_name, usual_auth};
use crate::store::validate::{DEMO, ENV_LABEL};
use serde_json::{Value, json};

impl Admin {
    pub(super) async fn accounts(&self) -> Result<Answer, Error> {
        let stored = self.store.accounts().await.map_err(|e| refused(&e))?;
        let catalog = self.directory.catalog();
        let mut shown: Vec<Value> = Vec::new();
        for account in &catalog.accounts {
            if !stored.iter().any(|info| info.id == account.id) && given(account) {
                shown.push(given_shown(account));
            }
        }
        shown.extend(stored.iter().map(|info| stored_shown(info, &catalog)));
        Ok(Answer::ok(&json!({ "accounts": shown })))
    }

    pub(super) async fn account(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let id: AccountId = asked.id("account")?;
        let catalog = self.directory.catalog();
        match self.stored_account(id).await {
            Ok(info) => Ok(Answer::ok(&stored_shown(&info, &catalog)).tagged(&account_tag(&info))),
            Err(error) => match in_catalog(&catalog, id).filter(|account| given(account)) {
                Some(account) => Ok(Answer::ok(&given_shown(account))),
                None => Err(error),
            },
        }
    }

    pub(super) async fn add_account(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let mut fields = asked.fields;
        let provider: String = fields.needed("provider")?;
        let secret: String = fields.needed("api_key")?;
        let base_url: Option<String> = fields.maybe("base_url")?;
        let label = fields.maybe("label")?;
        let weight = fields.maybe("weight")?.unwrap_or(1);
        let (dialect, auth, http2) =
            (fields.maybe::<String>("dialect")?, fields.maybe::<String>("auth")?, fields.maybe("http2")?);
        fields.done()?;
        let define = match dialect {
            Some(name) => {
                let dialect =
                    Dialect::from_name(&name).ok_or_else(|| wrong("dialect", "must be openai, anthropic or gemini"))?;
                if base_url.is_none() {
                    return Err(wrong("base_url", "is missing: a provider outside the catalogue needs one"));
                }
                let auth = match auth {
                    Some(name) => auth_from_name(&name)
                        .ok_or_else(|| wrong("auth", "must be bearer, x-api-key, x-goog-api-key, api-key or none"))?,
                    None => usual_auth(dialect),
                };
                let (name, http2) = (provider.clone(), http2.unwrap_or(false));
                Some(CustomProvider { name, dialect, auth, http2, base_url: base_url.clone() })
            }
            None if auth.is_some() => return Err(wrong("auth", "only together with a dialect: it defines a provider")),
            None if http2.is_some() => {
                return Err(wrong("http2", "only together with a dialect: it defines a provider"));
            }
            None => None,
        };
        let builtin = self.builtin.iter().find(|spec| *spec.provider.name == *provider);
        if base_url.is_none() && builtin.is_some_and(|spec| spec.default_base.is_none()) {
            return Err(wrong("base_url", format!("is missing: each account of `{provider}` has its own")));
        }
        let new = NewAccount { provider, label, base_url, weight, secret: Secret::new(secret), define };
        let info = self.store.add_account(new).await.map_err(|e| refused(&e))?;
        self.published().await;
        let shown = stored_shown(&info, &self.directory.catalog());
        Ok(Answer::created(&shown).tagged(&account_tag(&info)).noting("account.create", info.id, settings(&info)))
    }

    pub(super) async fn change_account(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let id: AccountId = asked.id("account")?;
        let _one_at_a_time = self.writes.lock().await;
        let before = self.changeable(id).await?;
        asked.unchanged(&account_tag(&before))?;
        let mut fields = asked.fields;
        let mut info = before.clone();
        match fields.take::<String>("label")? {
            Given::Absent => {}
            Given::Null => return Err(wrong("label", "must be a string")),
            Given::Value(label) => info.label = label,
        }
        match fields.take::<u32>("weight")? {
            Given::Absent => {}
            Given::Null => info.weight = 1,
            Given::Value(weight) => info.weight = weight,
        }
        fields.take::<String>("base_url")?.apply(&mut info.base_url);
        let secret = match fields.take::<String>("api_key")? {
            Given::Null => return Err(wrong("api_key", "must be a string")),
            given => given.some(),
        };
        fields.done()?;
        if info.base_url.is_none() && before.base_url.is_some() && !self.has_own_url(&info.provider).await? {
            return Err(wrong("base_url", format!("`{}` has none of its own", info.provider)));
        }
        let renewed = secret.is_some();
        let update = self.store.update_account(info.clone(), secret.map(Secret::new));
        update.await.map_err(|e| refused(&e))?;
        self.published().await;
        let mut detail = json!({});
        for (name, value) in settings(&info).as_object().into_iter().flatten() {
            if settings(&before).get(name) != Some(value) {
                detail[name] = value.clone();
            }
        }
        if renewed {
            detail["api_key"] = "renewed".into();
        }
        let shown = Answer::ok(&stored_shown(&info, &self.directory.catalog())).tagged(&account_tag(&info));
        Ok(shown.noting("account.change", id, detail))
    }

    pub(super) async fn remove_account(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let id: AccountId = asked.id("account")?;
        let _one_at_a_time = self.writes.lock().await;
        let info = self.changeable(id).await?;
        asked.unchanged(&account_tag(&info))?;
        self.store.remove_account(id).await.map_err(|e| refused(&e))?;
        Ok(Answer::gone().noting("account.remove", id, json!({ "provider": info.provider, "label": info.label })))
    }

    pub(super) async fn test_account(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let id: AccountId = asked.id("account")?;
        let mut fields = asked.fields;
        let model: Option<String> = fields.maybe("model")?;
        fields.done()?;
        if model
            .as_ref()
            .is_some_and(|model| model.is_empty() || model.len() > 256 || model.chars().any(char::is_control))
        {
            return Err(wrong("model", "must be 1 to 256 characters, no control characters"));
        }
        let tested = self.test.test(id, model.as_deref()).await?;
        let shown = json!({
            "ok": tested.ok,
            "status": tested.status,
            "latency_ms": tested.took.as_secs_f64() * 1e3,
            "model": model,
            "message": tested.message,
        });
        Ok(Answer::ok(&shown).noting("account.test", id, json!({ "ok": tested.ok, "model": model })))
    }

    async fn stored_account(&self, id: AccountId) -> Result<AccountInfo, Error> {
        let all = self.store.accounts().await.map_err(|e| refused(&e))?;
        let found = all.into_iter().find(|info| info.id == id);
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no account {id}")))
    }

    /// The same, with a better word for one that is there but not ours to change.
    async fn changeable(&self, id: AccountId) -> Result<AccountInfo, Error> {
        let found = self.stored_account(id).await;
        if found.is_err() && in_catalog(&self.directory.catalog(), id).is_some_and(given) {
            return Err(Error::new(ErrorKind::Conflict, "this account comes from the environment; change it there"));
        }
        found
    }

    async fn has_own_url(&self, provider: &str) -> Result<bool, Error> {
        if let Some(spec) = self.builtin.iter().find(|spec| &*spec.provider.name == provider) {
            return Ok(spec.default_base.is_some());
        }
        let custom = self.store.providers().await.map_err(|e| refused(&e))?;
        Ok(custom.iter().any(|custom| custom.name == provider && custom.base_url.is_some()))
    }

    /// `GET /api/providers`: those of the catalogue, then those defined here.
    pub(super) async fn providers(&self) -> Result<Answer, Error> {
        let mut shown: Vec<Value> = Vec::new();
        for spec in self.builtin.iter().filter(|spec| &*spec.provider.name != DEMO) {
            let provider = &spec.provider;
            shown.push(json!({
                "name": provider.name,
                "dialect": provider.dialect.name(),
                "auth": auth_name(&provider.auth),
                "http2": provider.http2,
                "base_url": spec.default_base.as_ref().map(written),
                "builtin": true,
            }));
        }
        for custom in self.store.providers().await.map_err(|e| refused(&e))? {
            shown.push(json!({
                "name": custom.name,
                "dialect": custom.dialect.name(),
                "auth": auth_name(&custom.auth),
                "http2": custom.http2,
                "base_url": custom.base_url,
                "builtin": false,
            }));
        }
        Ok(Answer::ok(&json!({ "providers": shown })))
    }
}

fn in_catalog(catalog: &Catalog, id: AccountId) -> Option<&Account> {
    catalog.accounts.iter().find(|account| account.id == id).map(|account| &**account)
}

/// It comes from the environment, or is the demo: nothing that is stored.
fn given(account: &Account) -> bool {
    &*account.label == ENV_LABEL || account.id == AccountId(0)
}

fn stored_shown(info: &AccountInfo, catalog: &Catalog) -> Value {
    let live = in_catalog(catalog, info.id);
    json!({
        "id": info.id.to_string(),
        "provider": info.provider,
        "label": info.label,
        "base_url": info.base_url,
        "weight": info.weight,
        "source": "store",
        "dialect": live.map(|account| account.provider.dialect.name()),
        "effective_base_url": live.map(|account| written(&account.base)),
        "running": running(catalog, info.id),
        "created_at": Clock::rfc3339(info.created_ms),
    })
}

fn given_shown(account: &Account) -> Value {
    let demo = account.id == AccountId(0);
    json!({
        "id": account.id.to_string(),
        "provider": account.provider.name,
        "label": account.label,
        "base_url": null,
        "weight": account.weight,
        "source": if demo { "demo" } else { "environment" },
        "dialect": account.provider.dialect.name(),
        "effective_base_url": (!demo).then(|| written(&account.base)),
        "running": 0,
        "created_at": null,
    })
}

/// What an operator sets, and what the tag is of.
fn settings(info: &AccountInfo) -> Value {
    json!({ "provider": info.provider, "label": info.label, "base_url": info.base_url, "weight": info.weight })
}

fn account_tag(info: &AccountInfo) -> String {
    tag(&settings(info))
}

fn written(base: &crate::state::catalog::BaseUrl) -> String {
    format!("{}://{}{}", if base.tls { "https" } else { "http" }, base.authority, base.path)
}

fn running(catalog: &Catalog, id: AccountId) -> u32 {
    let seats = catalog.seats.values().flat_map(|seats| seats.all.iter());
    seats.filter(|seat| seat.account.id == id).map(|seat| seat.live.running()).next().unwrap_or(0)
}
