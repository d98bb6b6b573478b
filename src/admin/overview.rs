//! What is there: who asks (`/api/me`), what can be asked for (`/api/models`), and who serves (`/api/cluster`).

use super::Admin;
use super::asked::{Answer, Asked};
use super::gate::Who;
use crate::base::{Clock, Now};
use crate::state::catalog::{Catalog, Model, Price};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

impl Admin {
    pub(super) fn me(&self, asked: &Asked<'_>) -> Answer {
        let operator = asked.operator;
        let (kind, id, name) = self.gate.identity(operator);
        let expires = match operator.who {
            Who::Session(session) => Some(session.expires_ms),
            Who::Token(id) => self.gate.token_row(id).and_then(|row| row.expires_ms),
            Who::Anybody => None,
        };
        Answer::ok(&json!({
            "kind": kind,
            "id": id,
            "name": name,
            "scope": operator.scope.name(),
            "expires_at": expires.map(Clock::rfc3339),
            "password_set": self.gate.has_password(),
            "key_required": self.key_required,
            "instance": &*self.instance,
            "version": env!("CARGO_PKG_VERSION"),
        }))
    }

    pub(super) fn models(&self) -> Answer {
        let (catalog, now) = (self.directory.catalog(), Clock::now());
        let mut shown = BTreeMap::new();
        for (name, seats) in &catalog.seats {
            let Some(provider) = seats.all.first().map(|seat| &seat.account.provider) else { continue };
            for model in provider.models.values() {
                let resting = seats.all.iter().filter(|seat| seat.live.resting(Some(model.id), now).is_some()).count();
                let mut one = described(&format!("{name}/{}", model.name), Some(model));
                one["providers"] = json!([name]);
                one["accounts"] = seats.all.len().into();
                one["resting"] = resting.into();
                shown.insert(format!("{name}/{}", model.name), one);
            }
        }
        for (name, model) in &catalog.virtual_models {
            let mut providers: Vec<&str> = model.targets.iter().map(|target| &*target.provider).collect();
            providers.sort_unstable();
            providers.dedup();
            let (accounts, resting) = reachable(&catalog, name, now);
            let mut one = described(name, None);
            one["kind"] = "virtual".into();
            one["providers"] = json!(providers);
            one["accounts"] = accounts.into();
            one["resting"] = resting.into();
            shown.insert(name.to_string(), one);
        }
        let models: Vec<Value> = shown.into_values().collect();
        Answer::ok(&json!({ "models": models }))
    }

    pub(super) fn cluster(&self) -> Answer {
        let (now, unix_ms) = (Clock::now(), Clock::unix_ms());
        let view = self.peers.view();
        let ago = |at: Now| Clock::rfc3339(unix_ms.saturating_sub(millis(now.since(at))));
        let mut instances = vec![json!({
            "id": &*self.instance,
            "self": true,
            "version": env!("CARGO_PKG_VERSION"),
            "started_at": ago(self.health.started),
            "catalog_version": self.directory.version(),
            "catalog": digest(self.directory.catalog().digest),
            "last_seen_ms": 0,
        })];
        for peer in &view.others {
            instances.push(json!({
                "id": super::instance_name(peer.epoch),
                "self": false,
                "version": peer.version,
                "started_at": Clock::rfc3339(peer.started_ms),
                "catalog_version": peer.catalog_version,
                "catalog": digest(peer.catalog_digest),
                "last_seen_ms": millis(now.since(peer.last_seen)),
            }));
        }
        let micros = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        let redis = self.health.reach.report();
        Answer::ok(&json!({
            "deployment": format!("{:016x}", self.store.deployment()),
            "instances": instances,
            "redis": {
                "state": redis.state.name(),
                "since": redis.since.map(ago),
                "reason": redis.reason,
                "rtt_p50_us": micros(redis.trip_p50),
                "rtt_p99_us": micros(redis.trip_p99),
                "queue": self.outbox.waiting(),
            },
            "event_lag_ms": view.event_lag.map(millis),
            "leases": {
                "subjects": view.leases.subjects,
                "requests": view.leases.requests,
                "slots": view.leases.slots,
            },
            "outbox_dropped": self.outbox.dropped(),
        }))
    }
}

/// As people compare it: instances that show the same serve alike.
fn digest(digest: u64) -> String {
    format!("{digest:016x}")
}

/// Accounts a virtual model may be served by, and how many of them are of no use for it now.
fn reachable(catalog: &Catalog, name: &str, now: Now) -> (usize, usize) {
    let Some(route) = catalog.routes.get(name) else { return (0, 0) };
    let seats = route.legs.iter().flat_map(|leg| leg.seats.all.iter().map(|seat| (seat, leg.model.id())));
    seats.fold((0, 0), |(all, resting), (seat, model)| {
        (all + 1, resting + usize::from(seat.live.resting(model, now).is_some()))
    })
}

fn described(id: &str, model: Option<&Model>) -> Value {
    let known = |field: fn(&Model) -> u32| model.map(field).filter(|n| *n > 0);
    json!({
        "id": id,
        "kind": "provider",
        "context": known(|model| model.context),
        "max_output": known(|model| model.max_output),
        "price": model.and_then(|model| model.price).map(price),
    })
}

/// Dollars per million tokens, as providers write them.
fn price(price: Price) -> Value {
    let dollars = |pico: u64| pico as f64 / 1e6;
    json!({
        "input": dollars(price.input),
        "output": dollars(price.output),
        "cache_read": dollars(price.cache_read),
        "cache_write": dollars(price.cache_write),
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
