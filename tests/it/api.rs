//! The control plane from outside: what is made, changed, removed and told, and what a second asking finds.

mod audit;
mod catalog;
mod reading;
mod writing;

use crate::support::client::{Answer, request};
use crate::support::gateway::TestGateway;
use serde_json::Value;

/// Somebody at a gateway's control plane.
struct Operator<'a> {
    gateway: &'a TestGateway,
    head: String,
}

impl<'a> Operator<'a> {
    /// Nobody in particular: the gateway has no password.
    fn anybody(gateway: &'a TestGateway) -> Self {
        Self { gateway, head: String::new() }
    }

    /// With more lines in each head.
    fn with(gateway: &'a TestGateway, head: &str) -> Self {
        Self { gateway, head: head.to_owned() }
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        request(self.gateway.addr, method, path, &self.head, body)
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &Value::Null)
    }

    /// The JSON of an answer that must have that status.
    #[track_caller]
    fn told(&self, method: &str, path: &str, body: &Value, status: u16) -> Value {
        let answer = self.send(method, path, body);
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text());
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    /// The field that a refusal with 422 names.
    #[track_caller]
    fn field(&self, method: &str, path: &str, body: &Value) -> String {
        let refused = self.told(method, path, body, 422);
        refused["error"]["field"].as_str().unwrap_or_else(|| panic!("{refused}")).to_owned()
    }
}
