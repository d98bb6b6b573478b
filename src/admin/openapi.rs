//! `/api/openapi.json`: the document of the control plane, made of the same table that routes it.
//!
//! Schemas are data (`openapi.json` beside this file); paths, methods, bodies, answers and statuses come from `routes`.

use super::routes::{Body as Takes, Op, ROUTES, Route};
use crate::server::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use hyper::Response;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

const PARTS: &str = include_str!("openapi.json");

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(built().to_string()));

/// What a status means, where it needs saying.
const MEANINGS: &[(u16, &str)] = &[
    (200, "Done"),
    (201, "Made"),
    (204, "Gone"),
    (400, "The request can't be read"),
    (401, "Nobody that is known"),
    (403, "Not allowed to them"),
    (404, "There is no such thing"),
    (408, "The body did not arrive in time"),
    (409, "Contradicts what is there"),
    (412, "Changed since it was read (If-Match)"),
    (413, "The body is larger than a mebibyte"),
    (415, "The body is no application/json"),
    (422, "A field is wrong; `field` names it"),
    (429, "Too many wrong passwords"),
    (500, "A fault of the gateway's own"),
    (503, "The store can't be used right now"),
];

/// The document as a response.
pub(super) fn document() -> Response<Body> {
    let mut response = Response::new(Body::full(DOCUMENT.clone()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn built() -> Value {
    // Compiled in and read by a test: an empty document is all that could be said otherwise.
    let mut parts: Map<String, Value> = serde_json::from_str(PARTS).unwrap_or_default();
    let parameters = parts.remove("parameters").unwrap_or_default();
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method.to_ascii_lowercase()] = operation(route, &parameters);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "merido control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Keys, accounts, virtual models, usage, logs and live events of a merido gateway. Send a \
                session's or a management token's value as `Authorization: Bearer …`; browsers may use the session's \
                cookie, whose writes must come from the dashboard itself.",
        },
        "security": [{ "bearer": [] }, { "cookie": [] }, {}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "cookie": { "type": "apiKey", "in": "cookie", "name": super::gate::COOKIE_NAME },
            },
            "schemas": parts.remove("schemas").unwrap_or_default(),
        },
    })
}

fn operation(route: &Route, described: &Value) -> Value {
    let mut parameters: Vec<Value> = Vec::new();
    for name in route.params() {
        parameters.push(in_path(route, name));
    }
    for name in route.query {
        let mut parameter = described[*name].clone();
        parameter["name"] = (*name).into();
        parameter["in"] = "query".into();
        parameters.push(parameter);
    }
    if route.repeatable {
        let schema = json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" });
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "schema": schema,
            "description": "The same request with the same key within ten minutes is done once and answered the same.",
        }));
    }
    if route.tagged && route.writes() {
        parameters.push(json!({
            "name": "If-Match", "in": "header", "schema": { "type": "string" },
            "description": "The ETag of what was read: refused with 412 when it has changed since.",
        }));
    }
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "tags": [route.path.split('/').nth(2).unwrap_or_default()],
        "responses": responses(route),
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Takes::Fields(schema) | Takes::Maybe(schema) = route.body {
        let required = matches!(route.body, Takes::Fields(_));
        operation["requestBody"] = json!({ "required": required, "content": content(schema) });
    }
    if route.op == Op::Login {
        operation["security"] = json!([]);
    }
    operation
}

fn operation_id(route: &Route) -> String {
    match (route.op, route.method) {
        // One thing under two methods.
        (Op::VirtualModelsReorder, "POST") => "VirtualModelsReorderPost".to_owned(),
        (op, _) => format!("{op:?}"),
    }
}

fn in_path(route: &Route, name: &str) -> Value {
    let kind = route.path.split('/').nth(2).unwrap_or_default();
    let pattern = match (kind, name) {
        ("keys", _) => "^key_[0-9a-f]{16}$",
        ("accounts", _) => "^acc_[0-9a-f]{16}$",
        ("virtual-models", _) => "^vm_[0-9a-f]{16}$",
        ("tokens", _) => "^tok_[0-9a-f]{16}$",
        ("logs", _) => "^req_[0-9a-f]{22,28}$",
        _ => "",
    };
    let schema = if pattern.is_empty() {
        json!({ "type": "string", "minLength": 1 })
    } else {
        json!({ "type": "string", "pattern": pattern })
    };
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

fn responses(route: &Route) -> Value {
    let mut statuses: Vec<u16> = vec![400, 500, 503];
    if route.op == Op::Login {
        statuses.extend([403, 429]);
    } else {
        statuses.extend([401, 403, 422]);
    }
    if route.body != Takes::Nothing {
        statuses.extend([408, 413, 415, 422]);
    }
    if route.repeatable {
        statuses.extend([409, 422]);
    }
    statuses.extend(route.also);
    let mut out = Map::new();
    for status in statuses {
        out.insert(status.to_string(), json!({ "description": meaning(status), "content": content("Error") }));
    }
    let mut done = json!({ "description": meaning(route.status) });
    match route.op {
        Op::Events => done["content"] = json!({ "text/event-stream": { "schema": { "type": "string" } } }),
        Op::Usage => {
            done["content"] = content(route.answer);
            done["content"]["text/csv"] = json!({ "schema": { "type": "string" } });
        }
        _ if route.answer.is_empty() => {}
        _ => done["content"] = content(route.answer),
    }
    if route.tagged && route.status == 200 {
        done["headers"] = json!({ "ETag": { "schema": { "type": "string" }, "description": "For If-Match" } });
    }
    out.insert(route.status.to_string(), done);
    Value::Object(out)
}

fn content(schema: &str) -> Value {
    json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } })
}

fn meaning(status: u16) -> &'static str {
    MEANINGS.iter().find(|(known, _)| *known == status).map_or("", |(_, meaning)| meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_that_is_named_is_there_and_none_is_there_for_nothing() {
        let document = built();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let text = document.to_string();
        let mut named: Vec<&str> =
            text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        named.sort_unstable();
        named.dedup();
        for name in &named {
            assert!(schemas.contains_key(*name), "no schema {name}");
        }
        for name in schemas.keys() {
            assert!(named.contains(&name.as_str()), "nobody needs the schema {name}");
        }
    }

    #[test]
    fn every_route_has_an_operation_of_its_own_with_all_its_parameters_described() {
        let document = built();
        let mut ids = Vec::new();
        for route in ROUTES {
            let operation = &document["paths"][route.path][route.method.to_ascii_lowercase()];
            ids.push(operation["operationId"].as_str().unwrap().to_owned());
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["schema"].is_object(), "{} {}: {parameter}", route.method, route.path);
            }
            for (status, answer) in operation["responses"].as_object().unwrap() {
                assert_ne!(answer["description"], "", "{status}");
            }
        }
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
