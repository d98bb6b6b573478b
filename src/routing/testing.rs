//! A small catalog for the tests of this room.

use crate::base::{AccountId, ModelId, VirtualModelId};
use crate::dialect::Dialect;
use crate::state::catalog::*;
use std::sync::Arc;

pub(super) fn provider(name: &str, models: &[(&str, u64)]) -> Arc<Provider> {
    let models = models.iter().map(|&(name, input)| {
        let price = (input > 0).then_some(Price { input, output: input * 4, ..Price::default() });
        let model = Model { name: name.into(), id: ModelId::of(name), context: 0, max_output: 0, price };
        (name.into(), Arc::new(model))
    });
    Arc::new(Provider {
        name: name.into(),
        dialect: Dialect::OpenAi,
        auth: Auth::Bearer,
        http2: false,
        models: models.collect(),
    })
}

pub(super) fn account(id: u64, provider: &Arc<Provider>, label: &str, weight: u32) -> Arc<Account> {
    Arc::new(Account {
        id: AccountId(id),
        provider: Arc::clone(provider),
        label: label.into(),
        weight,
        base: BaseUrl::parse("http://127.0.0.1:1").unwrap(),
        credential: None,
    })
}

pub(super) fn virtual_model(
    name: &str,
    strategy: Strategy,
    targets: &[(&str, &str, Option<&str>, u32)],
) -> VirtualModel {
    let targets = targets.iter().map(|&(provider, model, account, weight)| VirtualTarget {
        provider: provider.into(),
        model: model.into(),
        account: account.map(Into::into),
        weight,
    });
    VirtualModel { id: VirtualModelId(0), name: name.into(), strategy, sticky: 1, targets: targets.collect() }
}

/// Published, so that names are resolved.
pub(super) fn published(accounts: Vec<Arc<Account>>, models: Vec<VirtualModel>) -> Directory {
    let directory = Directory::new();
    directory.publish(Catalog::build(accounts, models));
    directory
}
