//! `/api/cooldowns`: who rests, until when and why; and an operator's word that ends a rest.

use super::asked::Answer;
use crate::base::{AccountId, Clock, Error, ErrorKind, ModelId, Now};
use crate::state::catalog::{Account, Catalog, Directory};
use crate::state::delta::Delta;
use crate::state::live::Resting;
use crate::state::outbox::Outbox;
use crate::state::rest::Reason;
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;

#[derive(Serialize)]
struct Row<'a> {
    account: String,
    provider: &'a str,
    label: &'a str,
    /// The model that is locked; `null`: the account as a whole rests.
    model: Option<&'a str>,
    reason: &'static str,
    level: u8,
    until: String,
    until_unix_ms: u64,
    /// 0: it is over and the next attempt is the probe.
    remaining_ms: u64,
}

/// `GET /api/cooldowns`.
pub(super) fn list(directory: &Directory) -> Answer {
    let (now, unix_ms) = (Clock::now(), Clock::unix_ms());
    let catalog = directory.catalog();
    // An account that is gone may be remembered for a while; nobody can ask it.
    let rows: Vec<_> = directory
        .live()
        .resting(now)
        .iter()
        .filter_map(|resting| Some(row(find(&catalog, resting.account)?, resting, now, unix_ms)))
        .collect();
    Answer::ok(&json!({ "cooldowns": rows }))
}

/// `DELETE /api/cooldowns/{account}`: ends its rest and all its locks.
pub(super) fn unlock(directory: &Directory, outbox: &Outbox<Delta>, account: &str) -> Result<Answer, Error> {
    let catalog = directory.catalog();
    let account = named(&catalog, account)?;
    let told = directory.live().unlock(account.id, Clock::now());
    Ok(unlocked(account, outbox, told))
}

/// `DELETE /api/cooldowns/{account}/{model}`: ends one lock.
pub(super) fn unlock_model(
    directory: &Directory,
    outbox: &Outbox<Delta>,
    account: &str,
    model: &str,
) -> Result<Answer, Error> {
    let catalog = directory.catalog();
    let account = named(&catalog, account)?;
    // Both ways in which clients write a model; only those of the catalogue have locks.
    let bare = model.strip_prefix(&*account.provider.name).and_then(|rest| rest.strip_prefix('/'));
    let known = [Some(model), bare].into_iter().flatten().find_map(|name| account.provider.models.get(name));
    let Some(known) = known else {
        let message = format!("`{model}` is no model of {} that could be locked", account.provider.name);
        return Err(Error::new(ErrorKind::NotFound, message));
    };
    let told = directory.live().unlock_model(account.id, known.id, Clock::now());
    Ok(unlocked(account, outbox, told.into_iter().collect()))
}

/// Tells the other instances, and the operator.
fn unlocked(account: &Account, outbox: &Outbox<Delta>, told: Vec<Delta>) -> Answer {
    let ended: Vec<_> = told.iter().map(|delta| delta.model).collect();
    for delta in told {
        outbox.tell(delta);
    }
    tracing::info!(account = %account.id, count = ended.len(), "an operator ended rests");
    let models: Vec<_> = ended.iter().map(|model| model.and_then(|id| model_name(account, id))).collect();
    let account_too = ended.contains(&None);
    let models: Vec<_> = models.into_iter().flatten().collect();
    let answer =
        json!({ "account": account.id.to_string(), "account_unlocked": account_too, "models_unlocked": models });
    Answer::ok(&answer).noting("cooldown.unlock", account.id, json!({ "account": account_too, "models": models }))
}

fn row<'a>(account: &'a Account, resting: &Resting, now: Now, unix_ms: u64) -> Row<'a> {
    // In whole milliseconds, rounded up: nobody comes back too early for it.
    let remaining_ms = now.until(resting.until).as_nanos().div_ceil(1_000_000) as u64;
    let past_ms = resting.until.until(now).as_millis() as u64;
    let until_unix_ms = (unix_ms + remaining_ms).saturating_sub(past_ms);
    Row {
        account: account.id.to_string(),
        provider: &account.provider.name,
        label: &account.label,
        model: resting.model.map(|id| model_name(account, id).unwrap_or("?")),
        reason: reason(resting.reason),
        level: resting.level,
        until: Clock::rfc3339(until_unix_ms),
        until_unix_ms,
        remaining_ms,
    }
}

fn find(catalog: &Catalog, id: AccountId) -> Option<&Account> {
    catalog.accounts.iter().find(|account| account.id == id).map(|account| &**account)
}

/// By id, or by label when only one account bears it.
fn named<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Arc<Account>, Error> {
    if let Ok(id) = name.parse::<AccountId>()
        && let Some(account) = catalog.accounts.iter().find(|account| account.id == id)
    {
        return Ok(account);
    }
    let mut bearers = catalog.accounts.iter().filter(|account| &*account.label == name);
    match (bearers.next(), bearers.next()) {
        (Some(account), None) => Ok(account),
        (Some(_), Some(_)) => {
            let message = format!("several accounts are called `{name}`; use the id");
            Err(Error::new(ErrorKind::Conflict, message))
        }
        _ => Err(Error::new(ErrorKind::NotFound, format!("there is no account `{name}`"))),
    }
}

fn model_name(account: &Account, id: ModelId) -> Option<&str> {
    account.provider.models.values().find(|model| model.id == id).map(|model| &*model.name)
}

const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Cleared => "cleared",
        Reason::RateLimited => "rate_limited",
        Reason::Forbidden => "forbidden",
        Reason::ModelMissing => "model_missing",
        Reason::Quota => "quota",
        Reason::Failing => "failing",
        Reason::Credentials => "credentials",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Dialect;
    use crate::state::catalog::{Auth, BaseUrl, Model, Provider};
    use crate::state::rest::{Cost, Penalty};
    use std::time::Duration;

    #[test]
    fn an_operators_word_goes_out_to_the_other_instances_once() {
        let model = Model { name: "m".into(), id: ModelId::of("m"), context: 0, max_output: 0, price: None };
        let models = [("m".into(), Arc::new(model))].into_iter().collect();
        let provider = Provider { name: "p".into(), dialect: Dialect::OpenAi, auth: Auth::None, http2: false, models };
        let account = Account {
            id: AccountId(1),
            provider: Arc::new(provider),
            label: "a".into(),
            weight: 1,
            base: BaseUrl::parse("http://localhost").unwrap(),
            credential: None,
        };
        let directory = Directory::new();
        directory.publish(Catalog::build(vec![Arc::new(account)], Vec::new()));
        let (outbox, mut tells) = Outbox::open(8, Arc::default());
        let rest = Duration::from_secs(60);
        let cost = Cost { reason: Reason::Quota, named: None, base: rest, cap: rest };
        let now = Clock::now();
        let live = directory.live().of(AccountId(1));
        live.punish(&Penalty::CoolAccount(cost), None, now, now);
        live.punish(&Penalty::LockModel(cost), Some(ModelId::of("m")), now, now);
        unlock_model(&directory, &outbox, "a", "p/m").unwrap();
        let told = tells.take().tells;
        assert_eq!(told.iter().map(|delta| delta.model).collect::<Vec<_>>(), [Some(ModelId::of("m"))]);
        unlock(&directory, &outbox, "acc_0000000000000001").unwrap();
        let told = tells.take().tells;
        assert_eq!(told.iter().map(|delta| delta.model).collect::<Vec<_>>(), [None]);
        assert!(told.iter().all(|delta| !delta.rest.is_live()));
        unlock(&directory, &outbox, "a").unwrap();
        assert!(tells.take().tells.is_empty(), "nothing rested, nothing is told");
    }
}
