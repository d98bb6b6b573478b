//! `GET /v1/models` and `GET /v1/model_group/info`: what this caller may ask for.
//!
//! One shape serves the OpenAI and the Anthropic SDK alike: each finds its own fields and skips the other's.

use super::access::LISTING;
use super::auth::{Caller, may_use};
use super::intake::X_REQUEST_ID;
use super::{Proxy, percent_decode, shown_id};
use crate::base::{Clock, Error, ErrorKind};
use crate::dialect::Dialect;
use crate::server::{Body, Peer, body};
use crate::state::catalog::{Catalog, Model};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A name a caller may use, and what is known of it.
struct Entry<'a> {
    owner: Vec<&'a str>,
    model: Option<&'a Model>,
}

/// By the name clients write.
type Entries<'a> = BTreeMap<String, Entry<'a>>;

impl Proxy {
    /// All models this caller may ask for, or one of them.
    pub fn models(&self, headers: &http::HeaderMap, peer: Peer, one: Option<&str>) -> Response<Body> {
        let dialect = if headers.contains_key("anthropic-version") { Dialect::Anthropic } else { Dialect::OpenAi };
        self.listed(dialect, headers, peer, |entries| match one {
            Some(name) => {
                // SDKs escape the slash of `provider/model`.
                let name = percent_decode(name)?;
                let (name, entry) = entries.get_key_value(&name).ok_or_else(|| unknown(&name))?;
                Ok(object(name, entry))
            }
            None => Ok(list(entries)),
        })
    }

    /// The same with providers, context windows and prices, in the shape that dashboards of other gateways read.
    pub fn model_groups(&self, headers: &http::HeaderMap, peer: Peer) -> Response<Body> {
        self.listed(Dialect::OpenAi, headers, peer, |entries| Ok(json!({ "data": groups(entries) })))
    }

    fn listed(
        &self,
        dialect: Dialect,
        headers: &http::HeaderMap,
        peer: Peer,
        show: impl FnOnce(&Entries<'_>) -> Result<Value, Error>,
    ) -> Response<Body> {
        let (started, id) = (Clock::now(), self.ids.next());
        let shown = self.caller(headers, peer).and_then(|caller| {
            let catalog = self.catalog();
            let shown = show(&entries(&catalog, &caller))?;
            Ok((shown, caller))
        });
        match shown {
            Ok((value, caller)) => {
                self.listing_line(started, id, headers, caller);
                let mut response = body::json(StatusCode::OK, &value);
                response.headers_mut().insert(X_REQUEST_ID.clone(), shown_id(headers, id));
                response
            }
            Err(error) => self.refuse(dialect, LISTING, &error, headers, peer),
        }
    }
}

fn list(entries: &Entries<'_>) -> Value {
    let data: Vec<Value> = entries.iter().map(|(name, entry)| object(name, entry)).collect();
    json!({
        "object": "list",
        "first_id": entries.keys().next(),
        "last_id": entries.keys().next_back(),
        "has_more": false,
        "data": data,
    })
}

fn groups(entries: &Entries<'_>) -> Vec<Value> {
    entries
        .iter()
        .map(|(name, entry)| {
            let known = |field: fn(&Model) -> u32| entry.model.map(field).filter(|n| *n > 0);
            let per_token = |pico: u64| pico as f64 / 1e12;
            let price = entry.model.and_then(|model| model.price);
            json!({
                "model_group": name,
                "providers": entry.owner,
                "max_input_tokens": known(|model| model.context),
                "max_output_tokens": known(|model| model.max_output),
                "input_cost_per_token": price.map(|p| per_token(p.input)),
                "output_cost_per_token": price.map(|p| per_token(p.output)),
            })
        })
        .collect()
}

fn entries<'a>(catalog: &'a Catalog, caller: &Caller) -> Entries<'a> {
    let mut entries = BTreeMap::new();
    for accounts in catalog.by_provider.values() {
        let Some(provider) = accounts.first().map(|account| &account.provider) else { continue };
        for model in provider.models.values() {
            let entry = Entry { owner: vec![&provider.name], model: Some(model) };
            entries.insert(format!("{}/{}", provider.name, model.name), entry);
        }
    }
    for (name, model) in &catalog.virtual_models {
        let mut owner: Vec<&str> = model.targets.iter().map(|target| &*target.provider).collect();
        owner.sort_unstable();
        owner.dedup();
        entries.insert(name.to_string(), Entry { owner, model: None });
    }
    entries.retain(|name, _| may_use(caller, name).is_ok());
    entries
}

fn object(name: &str, entry: &Entry<'_>) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": entry.owner.join(","),
        "type": "model",
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
    })
}

fn unknown(name: &str) -> Error {
    let shown: String = name.chars().take(100).collect();
    Error::new(ErrorKind::ModelNotFound, format!("no such model: `{shown}`")).param("model")
}
