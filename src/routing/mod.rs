//! Pure decisions: which targets a request may go to, and what a failure means.

use crate::base::{Error, ErrorKind};
use crate::state::catalog::{Account, Catalog, Model};
use std::sync::Arc;

/// Where a request may go, in order.
#[derive(Debug)]
pub struct Plan {
    /// Targets.
    pub targets: Vec<Target>,
}

/// One account and the model to ask it for.
#[derive(Clone, Debug)]
pub struct Target {
    /// Whom to ask.
    pub account: Arc<Account>,
    /// For what.
    pub model: ModelRef,
}

/// A model at a provider.
#[derive(Clone, Debug)]
pub struct ModelRef {
    /// Its name there.
    pub name: Arc<str>,
    /// What is known of it; `None`: passed through unseen.
    pub known: Option<Arc<Model>>,
}

/// Turns a model's name into a plan.
pub fn resolve(catalog: &Catalog, requested: &str) -> Result<Plan, Error> {
    let mut targets = Vec::new();
    if let Some(virtual_model) = catalog.virtual_models.get(requested) {
        for target in &virtual_model.targets {
            for account in catalog.by_provider.get(&target.provider).into_iter().flatten() {
                let pinned = target.account.as_deref();
                if pinned.is_none_or(|pin| pin == &*account.label || pin == account.id.to_string()) {
                    targets.push(one(account, &target.model));
                }
            }
        }
    } else if let Some((provider, model)) = requested.split_once('/')
        && let Some(accounts) = catalog.by_provider.get(provider)
    {
        targets.extend(accounts.iter().map(|account| one(account, model)));
    } else if let Some([provider]) = catalog.bare.get(requested).map(Vec::as_slice) {
        let accounts = catalog.by_provider.get(&provider.name);
        targets.extend(accounts.into_iter().flatten().map(|account| one(account, requested)));
    }
    if targets.is_empty() {
        let shown: String = requested.chars().take(100).collect();
        return Err(Error::new(ErrorKind::ModelNotFound, format!("no such model: `{shown}`")).param("model"));
    }
    Ok(Plan { targets })
}

fn one(account: &Arc<Account>, model: &str) -> Target {
    let known = account.provider.models.get(model).cloned();
    Target { account: Arc::clone(account), model: ModelRef { name: Arc::from(model), known } }
}
