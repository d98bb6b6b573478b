//! Names resolved once per publication of the catalog: which accounts with their live records a name stands for.
//!
//! Built when the catalog is published, read by every request; nothing in here is looked up or allocated then. What
//! cannot be resolved (a provider without an account) is left out, and a route may end up empty.

use super::catalog::{Account, Catalog, Model, Provider, Strategy, VirtualModel, VirtualTarget};
use super::latency::Latency;
use super::live::{AccountLive, Live};
use crate::base::ModelId;
use crossbeam::utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Targets of one virtual model at most; more are ignored.
pub const MOST_TARGETS: usize = 64;

/// An account and its live record.
#[derive(Debug)]
pub struct Seat {
    /// The account.
    pub account: Arc<Account>,
    /// Its rest, its load.
    pub live: Arc<AccountLive>,
}

/// The accounts that one target may use.
#[derive(Debug)]
pub struct Seats {
    /// Them.
    pub all: Box<[Arc<Seat>]>,
    /// Sum of their weights (each ≥ 1).
    pub weight: u64,
    /// All weights are equal.
    pub even: bool,
}

/// A model as a target names it.
#[derive(Clone, Debug)]
pub enum ModelRef {
    /// Of the catalog.
    Known(Arc<Model>),
    /// Not in the provider's list: passed through, never locked.
    Other(Arc<str>),
}

/// A virtual model, resolved.
#[derive(Debug)]
pub struct Route {
    /// What clients ask for.
    pub name: Arc<str>,
    /// How the next target is chosen.
    pub strategy: Strategy,
    /// Requests that stay on one target under `load_balance`; ≥ 1.
    pub sticky: u32,
    /// Where it may go.
    pub legs: Box<[Leg]>,
    /// Indices of `legs`, cheapest first.
    pub by_price: Box<[u8]>,
    /// Requests so far: survives publications, so that the rotation does not start anew with each.
    pub turn: Arc<CachePadded<AtomicU64>>,
}

/// One target of a virtual model, resolved.
#[derive(Debug)]
pub struct Leg {
    /// What to ask for.
    pub model: ModelRef,
    /// The same on every leg with that model name: tells whether (account, model) was tried.
    pub ident: u64,
    /// Share under `weighted`; ≥ 1.
    pub weight: u32,
    /// Whom to ask: all accounts of the provider, or the one it is pinned to.
    pub seats: Arc<Seats>,
    /// Speeds beside `seats`; empty unless the route is `latency_based`.
    pub speeds: Box<[Arc<Latency>]>,
}

impl ModelRef {
    /// The model `name` of `provider`, known or not.
    pub fn of(provider: &Provider, name: &str) -> Self {
        provider.models.get(name).map_or_else(|| Self::Other(name.into()), |model| Self::Known(Arc::clone(model)))
    }

    /// Its name at the provider.
    pub fn name(&self) -> &str {
        self.shared_name()
    }

    /// The same, to be kept.
    pub fn shared_name(&self) -> &Arc<str> {
        match self {
            Self::Known(model) => &model.name,
            Self::Other(name) => name,
        }
    }

    /// The catalog's entry.
    pub fn known(&self) -> Option<&Arc<Model>> {
        match self {
            Self::Known(model) => Some(model),
            Self::Other(_) => None,
        }
    }

    /// Its id in locks; only models of the catalog have one.
    pub fn id(&self) -> Option<ModelId> {
        self.known().map(|model| model.id)
    }

    /// Picodollars for one token of output and three of prompt, a chat's usual mix; `None` = unknown.
    pub fn price(&self) -> Option<u64> {
        let price = self.known()?.price?;
        Some(price.input.saturating_mul(3).saturating_add(price.output))
    }
}

impl Seats {
    /// Seats of these accounts.
    pub fn new(accounts: &[Arc<Account>], live: &Live) -> Self {
        let all: Box<[_]> = accounts
            .iter()
            .map(|account| Arc::new(Seat { account: Arc::clone(account), live: live.of(account.id) }))
            .collect();
        Self::of(all)
    }

    /// The one seat of `account` (by label or id), sharing the record.
    pub fn pinned(&self, account: &str) -> Option<Self> {
        let seat = self
            .all
            .iter()
            .find(|seat| &*seat.account.label == account)
            .or_else(|| self.all.iter().find(|seat| seat.account.id.to_string() == account))?;
        Some(Self::of(Box::new([Arc::clone(seat)])))
    }

    fn of(all: Box<[Arc<Seat>]>) -> Self {
        let weight = all.iter().map(|seat| seat.weight()).sum();
        let even = all.windows(2).all(|pair| pair[0].weight() == pair[1].weight());
        Self { all, weight, even }
    }
}

impl Seat {
    /// Its account's share; ≥ 1.
    pub fn weight(&self) -> u64 {
        u64::from(self.account.weight.max(1))
    }
}

impl Route {
    fn build(model: &VirtualModel, catalog: &Catalog, live: &Live, turn: Arc<CachePadded<AtomicU64>>) -> Self {
        let speeds = model.strategy == Strategy::LatencyBased;
        let legs: Box<[_]> = model
            .targets
            .iter()
            .filter_map(|target| Leg::build(target, catalog, live, speeds))
            .take(MOST_TARGETS)
            .collect();
        let mut by_price: Vec<u8> = (0..legs.len() as u8).collect();
        by_price.sort_by_key(|&i| legs[i as usize].model.price().unwrap_or(u64::MAX));
        Self {
            name: Arc::clone(&model.name),
            strategy: model.strategy,
            sticky: model.sticky.max(1),
            legs,
            by_price: by_price.into(),
            turn,
        }
    }

    /// Which leg `load_balance` starts with, for the next request.
    pub fn next_turn(&self) -> usize {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) / u64::from(self.sticky);
        (turn % self.legs.len().max(1) as u64) as usize
    }
}

impl Leg {
    fn build(target: &VirtualTarget, catalog: &Catalog, live: &Live, speeds: bool) -> Option<Self> {
        let all = catalog.seats.get(&target.provider)?;
        let seats = match &target.account {
            Some(account) => Arc::new(all.pinned(account)?),
            None => Arc::clone(all),
        };
        let model = ModelRef::of(&seats.all.first()?.account.provider, &target.model);
        let id = model.id().unwrap_or_else(|| ModelId::of(model.name()));
        let speeds = if speeds {
            seats.all.iter().map(|seat| live.of(seat.account.id).latency(id)).collect()
        } else {
            Box::default()
        };
        Some(Self { model, ident: id.0, weight: target.weight.max(1), seats, speeds })
    }
}

impl Catalog {
    /// Resolves all names against the live records. Called by whoever publishes; `before` is the catalog it replaces.
    pub fn attach(&mut self, live: &Live, before: &Self) {
        self.seats =
            self.by_provider.iter().map(|(name, all)| (name.clone(), Arc::new(Seats::new(all, live)))).collect();
        let routes = self.virtual_models.values().map(|model| {
            let turn = before.routes.get(&model.name).map_or_else(Arc::default, |route| Arc::clone(&route.turn));
            (Arc::clone(&model.name), Arc::new(Route::build(model, self, live, turn)))
        });
        self.routes = routes.collect();
    }
}
