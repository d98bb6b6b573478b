//! What the store refuses before it asks an engine. Pure; every refusal names its field.

use super::error::{Result, StoreError};
use super::rows::{CustomProvider, KeySpec, NewAccount};
use crate::base::VirtualModelId;
use crate::config::{RouteSpec, TargetSpec};
use crate::state::catalog::{BaseUrl, Strategy, VirtualModel, VirtualTarget};

/// The label of accounts that come from the environment; nobody else may take it.
pub const ENV_LABEL: &str = "env";
/// The built-in provider's name.
pub const DEMO: &str = "demo";
/// Weights stay far from where their sums could overflow.
pub const MAX_WEIGHT: u32 = 1_000_000;

/// A name for people: 1 to 128 characters, none of them control.
pub fn name(field: &'static str, value: &str) -> Result<()> {
    let length = value.chars().count();
    if value.trim().is_empty() || length > 128 || value.chars().any(char::is_control) {
        return Err(StoreError::invalid(field, "must be 1 to 128 characters, no control characters"));
    }
    Ok(())
}

/// A label: what `provider/model@label=weight` can carry.
pub fn label(value: &str) -> Result<()> {
    word("label", value)?;
    if value == ENV_LABEL {
        return Err(StoreError::invalid("label", "`env` is the label of accounts from the environment; take another"));
    }
    Ok(())
}

fn word(field: &'static str, value: &str) -> Result<()> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    if value.is_empty() || value.len() > 64 || !value.bytes().all(good) {
        return Err(StoreError::invalid(field, "must be 1 to 64 letters, digits or any of - _ . :"));
    }
    Ok(())
}

/// A provider's name: the part before the slash.
pub fn provider_name(value: &str) -> Result<()> {
    word("provider", value)
}

/// A base URL.
pub fn base_url(value: &str) -> Result<()> {
    BaseUrl::parse(value).map(drop).map_err(|e| StoreError::invalid("base_url", e))
}

/// An account to be made.
pub fn account(new: &NewAccount) -> Result<()> {
    provider_name(&new.provider)?;
    if let Some(value) = &new.label {
        label(value)?;
    }
    if let Some(url) = &new.base_url {
        base_url(url)?;
    }
    weight(new.weight)?;
    let secret = new.secret.reveal();
    if secret.is_empty() || secret.len() > 8192 || secret.bytes().any(|b| b < 0x20 || b == 0x7f) {
        // It travels in a header: a stray newline from a paste would otherwise fail at each request.
        return Err(StoreError::invalid(
            "api_key",
            "must be 1 to 8192 characters, no line breaks or control characters",
        ));
    }
    if let Some(custom) = &new.define {
        custom_provider(custom)?;
        if custom.name != new.provider {
            return Err(StoreError::invalid("provider", "the definition is for another provider"));
        }
    }
    Ok(())
}

/// A provider's definition.
pub fn custom_provider(custom: &CustomProvider) -> Result<()> {
    provider_name(&custom.name)?;
    if custom.name == DEMO {
        return Err(StoreError::invalid("provider", "`demo` is the built-in provider; take another name"));
    }
    custom.base_url.as_deref().map_or(Ok(()), base_url)
}

/// A weight.
pub fn weight(value: u32) -> Result<()> {
    if value == 0 || value > MAX_WEIGHT {
        return Err(StoreError::invalid("weight", "must be 1 to 1000000"));
    }
    Ok(())
}

/// What a key may do. `now_ms` is Unix time: a key that has expired already is a mistake.
pub fn key(spec: &KeySpec, now_ms: u64) -> Result<()> {
    name("name", &spec.name)?;
    for (field, value) in
        [("rpm", spec.rpm), ("burst", spec.burst), ("tpm", spec.tpm), ("max_parallel", spec.max_parallel)]
    {
        if value == Some(0) {
            return Err(StoreError::invalid(field, "must be at least 1; leave it out for no limit of its own"));
        }
    }
    if let Some(models) = &spec.models {
        if models.is_empty() {
            return Err(StoreError::invalid("models", "must name at least one model; leave it out to allow all"));
        }
        if models.len() > 1_000 || models.iter().any(|m| !model_name(m)) {
            return Err(StoreError::invalid("models", "must be at most 1000 names without spaces"));
        }
    }
    if spec.budget_nanos.is_some_and(|nanos| nanos < 0) {
        return Err(StoreError::invalid("budget_usd", "must not be negative"));
    }
    if spec.expires_ms.is_some_and(|at| at <= now_ms) {
        return Err(StoreError::invalid("ttl_seconds", "must lie in the future"));
    }
    Ok(())
}

/// A virtual model as the catalog takes it. Whether its providers have accounts is known only when it is used.
pub fn virtual_model(id: VirtualModelId, spec: &RouteSpec) -> Result<VirtualModel> {
    if !model_name(&spec.name) {
        return Err(StoreError::invalid("name", "must be 1 to 256 characters without spaces"));
    }
    let strategy = Strategy::from_name(&spec.strategy).ok_or_else(|| {
        let known = "failover, load_balance, weighted, cost_optimized, latency_based";
        StoreError::invalid("strategy", format!("must be one of {known}"))
    })?;
    if spec.targets.is_empty() || spec.targets.len() > 256 {
        return Err(StoreError::invalid("targets", "must be 1 to 256 targets"));
    }
    let sticky = spec.sticky.unwrap_or(1);
    if sticky == 0 {
        return Err(StoreError::invalid("sticky", "must be at least 1"));
    }
    let targets = spec.targets.iter().map(target).collect::<Result<_>>()?;
    Ok(VirtualModel { id, name: spec.name.as_str().into(), strategy, sticky, targets })
}

fn target(spec: &TargetSpec) -> Result<VirtualTarget> {
    let Some((provider, model)) = spec.model.split_once('/') else {
        return Err(StoreError::invalid("targets", format!("`{}` must be provider/model", spec.model)));
    };
    if provider_name(provider).is_err() || !model_name(model) {
        return Err(StoreError::invalid("targets", format!("`{}` must be provider/model", spec.model)));
    }
    let weight = spec.weight.unwrap_or(1);
    if weight == 0 || weight > MAX_WEIGHT {
        return Err(StoreError::invalid("targets", format!("`{}`: weight must be 1 to 1000000", spec.model)));
    }
    if let Some(account) = &spec.account {
        word("targets", account)?;
    }
    let account = spec.account.as_deref().map(Into::into);
    Ok(VirtualTarget { provider: provider.into(), model: model.into(), account, weight })
}

/// The other way round, for storing and listing.
pub fn target_spec(target: &VirtualTarget) -> TargetSpec {
    TargetSpec {
        model: format!("{}/{}", target.provider, target.model),
        account: target.account.as_deref().map(Into::into),
        weight: (target.weight != 1).then_some(target.weight),
    }
}

fn model_name(value: &str) -> bool {
    !value.is_empty() && value.len() <= 256 && !value.chars().any(|c| c.is_control() || c.is_whitespace())
}
