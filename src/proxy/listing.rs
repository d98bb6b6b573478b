//! `GET /v1/models` and `GET /v1/model_group/info`: what this caller may ask for.
//!
//! One shape serves the OpenAI and the Anthropic SDK alike: each finds its own fields and skips the other's.

use super::auth::{Caller, may_use};
use super::intake::X_REQUEST_ID;
use super::{Proxy, percent_decode};
use crate::base::{Error, ErrorKind};
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

impl Proxy {
    /// All models this caller may ask for, or one of them.
    pub fn models(&self, headers: &http::HeaderMap, peer: Peer, one: Option<&str>) -> Response<Body> {
        let dialect = if headers.contains_key("anthropic-version") { Dialect::Anthropic } else { Dialect::OpenAi };
        let caller = match self.caller(headers, peer) {
            Ok(caller) => caller,
            Err(error) => return self.refuse(dialect, headers, &error),
        };
        let catalog = self.catalog();
        let entries = entries(&catalog, &caller);
        if let Some(name) = one {
            // SDKs escape the slash of `provider/model`.
            let name = match percent_decode(name) {
                Ok(name) => name,
                Err(error) => return self.refuse(dialect, headers, &error),
            };
            return match entries.get_key_value(&name) {
                Some((name, entry)) => self.listed(headers, &object(name, entry)),
                None => self.refuse(dialect, headers, &unknown(&name)),
            };
        }
        let data: Vec<Value> = entries.iter().map(|(name, entry)| object(name, entry)).collect();
        let list = json!({
            "object": "list",
            "first_id": entries.keys().next(),
            "last_id": entries.keys().next_back(),
            "has_more": false,
            "data": data,
        });
        self.listed(headers, &list)
    }

    /// The same with providers, context windows and prices, in the shape that dashboards of other gateways read.
    pub fn model_groups(&self, headers: &http::HeaderMap, peer: Peer) -> Response<Body> {
        let caller = match self.caller(headers, peer) {
            Ok(caller) => caller,
            Err(error) => return self.refuse(Dialect::OpenAi, headers, &error),
        };
        let catalog = self.catalog();
        let data: Vec<Value> = entries(&catalog, &caller)
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
            .collect();
        self.listed(headers, &json!({ "data": data }))
    }

    fn listed(&self, headers: &http::HeaderMap, list: &Value) -> Response<Body> {
        let mut response = body::json(StatusCode::OK, list);
        response.headers_mut().insert(X_REQUEST_ID.clone(), self.shown_id(headers));
        response
    }
}

fn entries<'a>(catalog: &'a Catalog, caller: &Caller) -> BTreeMap<String, Entry<'a>> {
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
