//! What each command does.

use super::args::{AddModel, AddProvider, CreateKey, CreateToken};
use super::noted::noted;
use super::print::{listing, object, time};
use super::{Command, Keys, Models, Providers, Stop, Tokens, check, healthcheck};
use crate::base::ids::BadId;
use crate::base::{Clock, Dialect, Secret, seal};
use crate::config::{RouteSpec, Settings, TargetSpec};
use crate::store::rows::{CustomProvider, KeySpec, NewAccount, Scope, usual_auth};
use crate::store::validate;
use crate::store::{self, Rotated, Store, StoreConfig};
use argon2::password_hash::{PasswordHasher as _, SaltString};
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::str::FromStr;

/// Runs any command but `start`, which is the app's.
pub async fn run(
    command: Command,
    settings: &Settings,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    let open = || Store::open(&StoreConfig::from(settings));
    match command {
        Command::Start(_) => Err(Stop::failure("`start` is not run here")),
        Command::HashPassword => hash_password(input, out),
        Command::Healthcheck => healthcheck::healthcheck(settings).await,
        Command::Check => check::check(settings, out).await,
        Command::Migrate => {
            let version = open()?.schema_version().await?;
            Ok(writeln!(out, "the store is at version {version}")?)
        }
        Command::RotateMasterKey => rotate(settings, out).await,
        Command::MoveStore { to } => move_to(settings, to, input, out).await,
        Command::Providers(command) => providers(command, &open()?, input, out).await,
        Command::Keys(command) => keys(command, &open()?, out).await,
        Command::Models(command) => models(command, &open()?, out).await,
        Command::Tokens(command) => tokens(command, &open()?, out).await,
    }
}

async fn rotate(settings: &Settings, out: &mut dyn Write) -> Result<(), Stop> {
    let said = match store::rotate_master_key(&StoreConfig::from(settings)).await? {
        Rotated::Given => "the store is sealed under MERIDO_MASTER_KEY now; once every instance starts with it, drop \
                           the old key"
            .to_owned(),
        Rotated::Already => "the store is sealed under MERIDO_MASTER_KEY already; to change it, set the new key there \
                             and the old one in MERIDO_MASTER_KEY_PREVIOUS"
            .to_owned(),
        Rotated::File(path) => format!("the store is sealed under a new master key, kept in {}", path.display()),
    };
    Ok(writeln!(out, "{said}")?)
}

async fn move_to(settings: &Settings, to: String, input: &mut dyn BufRead, out: &mut dyn Write) -> Result<(), Stop> {
    let url = Secret::new(if to == "-" { line(input)? } else { to });
    let config = StoreConfig { database_url: None, ..StoreConfig::from(settings) };
    let moved = store::move_store(&config, &url).await?;
    for (table, rows) in moved.iter().filter(|(_, rows)| *rows > 0) {
        writeln!(out, "{rows:>12}  {table}")?;
    }
    let key = if settings.master_key.is_some() { "" } else { " and MERIDO_MASTER_KEY (the content of the key file)" };
    Ok(writeln!(out, "moved; start with MERIDO_DATABASE_URL{key} set. The old file was left as it is")?)
}

async fn providers(
    command: Providers,
    store: &Store,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    match command {
        Providers::Add(add) => {
            let added = store.add_account(new_account(add, input)?).await?;
            let detail = json!({ "provider": added.provider, "label": added.label });
            noted(store, "account.create", added.id, detail).await;
            Ok(writeln!(out, "added {} ({} @{})", added.id, added.provider, added.label)?)
        }
        Providers::List(list) => {
            let rows: Vec<Value> = store
                .accounts()
                .await?
                .into_iter()
                .map(|account| {
                    json!({
                        "id": account.id.to_string(),
                        "provider": account.provider,
                        "label": account.label,
                        "base_url": account.base_url,
                        "weight": account.weight,
                        "created": time(account.created_ms),
                    })
                })
                .collect();
            listing(out, list.json, &["id", "provider", "label", "weight", "base_url", "created"], &rows)
        }
        Providers::Remove { id } => {
            store.remove_account(id_of(&id, "acc")?).await?;
            noted(store, "account.remove", &id, json!({})).await;
            Ok(writeln!(out, "removed {id}")?)
        }
    }
}

fn new_account(add: AddProvider, input: &mut dyn BufRead) -> Result<NewAccount, Stop> {
    let secret = if add.api_key == "-" { line(input)? } else { add.api_key };
    let dialect = add.dialect.as_deref().and_then(Dialect::from_name);
    if dialect.is_some() && add.base_url.is_none() {
        return Err(Stop::usage("--dialect: a provider outside the catalogue needs --base-url as well"));
    }
    let define = dialect.map(|dialect| CustomProvider {
        name: add.provider.clone(),
        dialect,
        auth: usual_auth(dialect),
        http2: false,
        base_url: add.base_url.clone(),
    });
    Ok(NewAccount {
        provider: add.provider,
        label: add.label,
        base_url: add.base_url,
        weight: add.weight,
        secret: Secret::new(secret),
        define,
    })
}

async fn keys(command: Keys, store: &Store, out: &mut dyn Write) -> Result<(), Stop> {
    match command {
        Keys::Create(create) => {
            let as_json = create.json;
            let made = store.create_key(key_spec(create)?).await?;
            noted(store, "key.create", made.info.id, json!({ "name": made.info.spec.name })).await;
            let (id, name, key) = (made.info.id.to_string(), made.info.spec.name, made.plain.reveal());
            if as_json {
                return object(out, &json!({ "id": id, "name": name, "key": key }));
            }
            writeln!(out, "{key}")?;
            Ok(writeln!(out, "({id}; it is shown this once and cannot be read again)")?)
        }
        Keys::List(list) => {
            let rows: Vec<Value> = store
                .keys()
                .await?
                .into_iter()
                .map(|key| {
                    let spec = key.spec;
                    json!({
                        "id": key.id.to_string(),
                        "name": spec.name,
                        "rpm": spec.rpm,
                        "burst": spec.burst,
                        "tpm": spec.tpm,
                        "max_parallel": spec.max_parallel,
                        "models": spec.models,
                        "budget_usd": spec.budget_nanos.map(|nanos| nanos as f64 / 1e9),
                        "expires": spec.expires_ms.map(time),
                        "created": time(key.created_ms),
                    })
                })
                .collect();
            listing(out, list.json, &["id", "name", "rpm", "tpm", "models", "budget_usd", "expires", "created"], &rows)
        }
        Keys::Revoke { id } => {
            store.revoke_key(id_of(&id, "key")?).await?;
            noted(store, "key.revoke", &id, json!({})).await;
            Ok(writeln!(out, "revoked {id}")?)
        }
    }
}

fn key_spec(create: CreateKey) -> Result<KeySpec, Stop> {
    Ok(KeySpec {
        name: create.name,
        rpm: create.rpm,
        burst: create.burst,
        tpm: create.tpm,
        max_parallel: create.max_parallel,
        models: create.models,
        budget_nanos: create.budget_usd.as_deref().map(nanodollars).transpose()?,
        expires_ms: create.ttl_seconds.map(expiry),
    })
}

async fn models(command: Models, store: &Store, out: &mut dyn Write) -> Result<(), Stop> {
    match command {
        Models::Add(add) => {
            let spec = route(add)?;
            let id = store.add_virtual_model(&spec).await?;
            noted(store, "virtual_model.create", id, json!({ "name": spec.name })).await;
            Ok(writeln!(out, "added {} ({id})", spec.name)?)
        }
        Models::List(list) => {
            let rows: Vec<Value> = store
                .virtual_models()
                .await?
                .into_iter()
                .map(|row| {
                    let targets: Vec<_> = row.model.targets.iter().map(validate::target_spec).collect();
                    json!({
                        "id": row.model.id.to_string(),
                        "name": &*row.model.name,
                        "strategy": row.model.strategy.name(),
                        "sticky": row.model.sticky,
                        "enabled": row.enabled,
                        "targets": targets.iter().map(written).collect::<Vec<_>>(),
                    })
                })
                .collect();
            listing(out, list.json, &["name", "strategy", "enabled", "targets", "id"], &rows)
        }
        Models::Remove { name } => {
            let rows = store.virtual_models().await?;
            let Some(row) = rows.iter().find(|row| *row.model.name == *name) else {
                return Err(Stop::failure(format!("there is no virtual model `{name}`")));
            };
            store.remove_virtual_model(row.model.id).await?;
            noted(store, "virtual_model.remove", row.model.id, json!({ "name": name })).await;
            Ok(writeln!(out, "removed {name}")?)
        }
    }
}

fn route(add: AddModel) -> Result<RouteSpec, Stop> {
    let targets = add.targets.iter().map(|text| target(text)).collect::<Result<_, _>>()?;
    Ok(RouteSpec { name: add.name, strategy: add.strategy, targets, sticky: add.sticky })
}

/// `provider/model[@label][=weight]`, read from the right: a model's own name may hold `/`, `:` and the like.
pub(super) fn target(text: &str) -> Result<TargetSpec, Stop> {
    let (rest, weight) = match text.rsplit_once('=') {
        Some((rest, weight)) => {
            let weight =
                weight.parse().map_err(|_| Stop::usage(format!("--target {text}: `{weight}` is no weight")))?;
            (rest, Some(weight))
        }
        None => (text, None),
    };
    let (model, account) = match rest.rsplit_once('@') {
        Some((model, label)) => (model, Some(label.to_owned())),
        None => (rest, None),
    };
    Ok(TargetSpec { model: model.to_owned(), account, weight })
}

fn written(target: &TargetSpec) -> String {
    let label = target.account.as_ref().map(|label| format!("@{label}")).unwrap_or_default();
    let weight = target.weight.map(|weight| format!("={weight}")).unwrap_or_default();
    format!("{}{label}{weight}", target.model)
}

async fn tokens(command: Tokens, store: &Store, out: &mut dyn Write) -> Result<(), Stop> {
    match command {
        Tokens::Create(CreateToken { name, scope, ttl_seconds, json: as_json }) => {
            let scope = Scope::from_name(&scope).ok_or_else(|| Stop::usage("--scope: admin, write or read"))?;
            let (token, plain) = store.create_token(&name, scope, ttl_seconds.map(expiry)).await?;
            noted(store, "token.create", token.id, json!({ "name": name, "scope": scope.name() })).await;
            let (id, plain) = (token.id.to_string(), plain.reveal());
            if as_json {
                return object(out, &json!({ "id": id, "name": name, "token": plain }));
            }
            writeln!(out, "{plain}")?;
            Ok(writeln!(out, "({id}; it is shown this once and cannot be read again)")?)
        }
        Tokens::List(list) => {
            let rows: Vec<Value> = store
                .tokens()
                .await?
                .into_iter()
                .map(|token| {
                    json!({
                        "id": token.id.to_string(),
                        "name": token.name,
                        "scope": token.scope.name(),
                        "expires": token.expires_ms.map(time),
                        "created": time(token.created_ms),
                    })
                })
                .collect();
            listing(out, list.json, &["id", "name", "scope", "expires", "created"], &rows)
        }
        Tokens::Revoke { id } => {
            store.revoke_token(id_of(&id, "tok")?).await?;
            noted(store, "token.revoke", &id, json!({})).await;
            Ok(writeln!(out, "revoked {id}")?)
        }
    }
}

fn hash_password(input: &mut dyn BufRead, out: &mut dyn Write) -> Result<(), Stop> {
    let password = line(input)?;
    if password.is_empty() {
        return Err(Stop::usage("give the password on stdin: merido hash-password < file"));
    }
    let failed = |e: String| Stop::failure(format!("the password could not be hashed: {e}"));
    let salt = seal::random_bytes::<16>().map_err(|e| failed(e.to_string()))?;
    let salt = SaltString::encode_b64(&salt).map_err(|e| failed(e.to_string()))?;
    let hash =
        argon2::Argon2::default().hash_password(password.as_bytes(), &salt).map_err(|e| failed(e.to_string()))?;
    Ok(writeln!(out, "{hash}")?)
}

/// The first line, without its end.
fn line(input: &mut dyn BufRead) -> Result<String, Stop> {
    let mut text = String::new();
    input.read_line(&mut text).map_err(|e| Stop::failure(format!("cannot read stdin: {e}")))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn id_of<T: FromStr<Err = BadId>>(text: &str, prefix: &str) -> Result<T, Stop> {
    text.parse().map_err(|_| Stop::usage(format!("`{text}` is no id: it looks like {prefix}_0123456789abcdef")))
}

fn expiry(ttl_seconds: u64) -> u64 {
    // Far enough to mean "never" and still fit the store's signed numbers.
    const FAR: u64 = 4_000_000_000_000_000;
    Clock::unix_ms().saturating_add(ttl_seconds.saturating_mul(1000)).min(FAR)
}

/// A decimal number of dollars, exactly: binary fractions would make 0.1 a little more.
pub(super) fn nanodollars(text: &str) -> Result<i64, Stop> {
    let wrong = || Stop::usage(format!("--budget-usd: `{text}` must be a number of dollars like 25 or 0.50"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    format!("{whole}{fraction:0<9}").parse().map_err(|_| wrong())
}
