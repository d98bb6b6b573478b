//! Between rows as engines keep them and what the gateway makes of them: the JSON in a column, names of enumerations,
//! the size a log row is booked with. Content that does not read is [`StoreErrorKind::Corrupt`](super::StoreErrorKind).

use super::error::{Result, StoreError};
use super::rows::{AccountInfo, CustomProvider, KeyInfo, KeySpec, LoggedRow, VirtualModelRow, auth_from_name};
use super::validate;
use crate::base::{Dialect, VirtualModelId};
use crate::config::{RouteSpec, TargetSpec};
use crate::state::catalog::{Key, KeyHash, VirtualModel};

/// A client's words are kept, not its novels.
pub(super) const MAX_TEXT: usize = 256;
/// The same for what went wrong.
pub(super) const MAX_ERROR: usize = 2_048;
/// What a row costs besides its texts: numbers, record header and its entries in the indexes.
const ROW_OVERHEAD: usize = 190;

/// Shorthand for content that does not read as what it must be.
pub(super) fn bad_row(what: &str) -> StoreError {
    StoreError::corrupt(format!("the store holds {what}"))
}

/// Nothing changed: there is no such thing.
pub(super) fn found(changed: u64, what: impl FnOnce() -> String) -> Result<()> {
    if changed == 0 { Err(StoreError::not_found(what())) } else { Ok(()) }
}

/// May there be an account with that provider? `known`: whether it is defined outside the catalogue, and then with a
/// base URL of its own.
pub(super) fn provider_usable(info: &AccountInfo, known: Option<bool>, builtin: bool) -> Result<()> {
    match known {
        None if !builtin => {
            let message = format!("`{}` is not in the catalogue: say its dialect and base URL", info.provider);
            Err(StoreError::invalid("provider", message))
        }
        Some(false) if !builtin && info.base_url.is_none() => {
            Err(StoreError::invalid("base_url", format!("`{}` has none of its own", info.provider)))
        }
        _ => Ok(()),
    }
}

/// `default`, `default-2`, …
pub(super) fn default_label(n: u32) -> String {
    if n == 1 { "default".to_owned() } else { format!("default-{n}") }
}

pub(super) fn provider(
    name: String,
    dialect: &str,
    auth: &str,
    http2: bool,
    base_url: Option<String>,
) -> Result<CustomProvider> {
    let dialect = Dialect::from_name(dialect).ok_or_else(|| bad_row("a provider of an unknown dialect"))?;
    let auth = auth_from_name(auth).ok_or_else(|| bad_row("a provider of an unknown auth"))?;
    Ok(CustomProvider { name, dialect, auth, http2, base_url })
}

pub(super) fn models_json(spec: &KeySpec) -> Result<Option<String>> {
    let json = spec.models.as_ref().map(serde_json::to_string).transpose();
    json.map_err(|e| StoreError::invalid("models", e.to_string()))
}

pub(super) fn models_of(json: Option<String>) -> Result<Option<Vec<String>>> {
    let models = json.map(|json| serde_json::from_str(&json)).transpose();
    models.map_err(|_| bad_row("a key whose models are no JSON array"))
}

pub(super) fn key_hash(bytes: Vec<u8>) -> Result<KeyHash> {
    KeyHash::try_from(bytes).map_err(|_| bad_row("a key with a hash of another size"))
}

pub(super) fn catalog_key(info: KeyInfo) -> Key {
    let spec = info.spec;
    Key {
        id: info.id,
        name: spec.name.into(),
        rpm: spec.rpm,
        burst: spec.burst,
        tpm: spec.tpm,
        max_parallel: spec.max_parallel,
        models: spec.models.map(|models| models.into_iter().map(String::into_boxed_str).collect()),
        budget_nanos: spec.budget_nanos,
        expires_unix_ms: spec.expires_ms,
    }
}

pub(super) fn targets_json(model: &VirtualModel) -> Result<String> {
    let targets: Vec<TargetSpec> = model.targets.iter().map(validate::target_spec).collect();
    serde_json::to_string(&targets).map_err(|e| StoreError::invalid("targets", e.to_string()))
}

/// A virtual model; `of`: name and strategy.
pub(super) fn virtual_model(
    id: u64,
    of: (String, String),
    sticky: u32,
    targets: &str,
    enabled: bool,
    position: u32,
) -> Result<VirtualModelRow> {
    let targets = serde_json::from_str(targets).map_err(|_| bad_row("a virtual model whose targets do not read"))?;
    let spec = RouteSpec { name: of.0, strategy: of.1, targets, sticky: Some(sticky) };
    let model = validate::virtual_model(VirtualModelId(id), &spec)
        .map_err(|e| bad_row(&format!("a virtual model `{}` that makes no sense: {e}", spec.name)))?;
    Ok(VirtualModelRow { model, enabled, position })
}

/// What a log row is booked with, in bytes, about.
pub(super) fn size(row: &LoggedRow) -> i64 {
    let texts = [row.client_request_id.as_deref(), row.model.as_deref(), Some(&*row.requested_model)];
    // Client ids and models lie in an index as well.
    let texts: usize = texts.into_iter().flatten().map(|text| 2 * text.len()).sum();
    let error = row.error.as_ref().map_or(0, String::len);
    let all = ROW_OVERHEAD + texts + error + row.timeline.as_ref().map_or(0, String::len);
    i64::try_from(all).unwrap_or(i64::MAX)
}

/// At most `max` bytes of it.
pub(super) fn cut(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let end = (0..=max).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}
