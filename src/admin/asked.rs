//! The words between the door and the handlers: what was asked, what is answered, and what goes into the audit.
//!
//! A handler that changes something hands back a [`Note`] with its answer; the door writes it down. No secret goes into
//! a note: it tells which fields were set and to what, but never a credential.

use super::fields::Fields;
use super::gate::Operator;
use crate::base::{Error, ErrorKind};
use crate::server::body::{self, Body};
use crate::store::{StoreError, StoreErrorKind};
use http::header::{ETAG, HeaderMap, HeaderValue, IF_MATCH};
use hyper::{Response, StatusCode};
use serde_json::Value;
use std::fmt::Display;
use std::str::FromStr;

/// A request that was let in and routed.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) operator: &'a Operator,
    pub(super) headers: &'a HeaderMap,
    /// As sent, without its question mark.
    pub(super) query: &'a str,
    /// What stands in the path's braces.
    pub(super) params: Vec<String>,
    /// The body's fields; none where the endpoint takes no body.
    pub(super) fields: Fields,
}

/// What goes back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    pub(super) note: Option<Note>,
}

/// What was changed.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Note {
    /// `key.create`, …
    pub(super) action: &'static str,
    pub(super) target: Option<String>,
    /// An object: the fields that were set.
    pub(super) detail: Value,
}

impl Asked<'_> {
    /// What stands in the path's nth braces.
    pub(super) fn param(&self, n: usize) -> &str {
        self.params.get(n).map_or("", String::as_str)
    }

    /// The first thing in braces as an id. What is no id names nothing.
    pub(super) fn id<T: FromStr>(&self, what: &str) -> Result<T, Error> {
        let text = self.param(0);
        text.parse().map_err(|_| {
            let shown: String = text.chars().take(64).collect();
            Error::new(ErrorKind::NotFound, format!("there is no {what} `{shown}`"))
        })
    }

    /// Refuses when the caller says what it saw (`If-Match`) and that is not how it is now.
    pub(super) fn unchanged(&self, tag: &str) -> Result<(), Error> {
        let mut seen = self.headers.get_all(IF_MATCH).iter().peekable();
        if seen.peek().is_none() {
            return Ok(());
        }
        let matches = |one: &str| one == "*" || one.trim_start_matches("W/").trim_matches('"') == tag;
        if seen.filter_map(|value| value.to_str().ok()).any(|list| list.split(',').any(|one| matches(one.trim()))) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Changed, "it was changed since you read it; read it again"))
    }
}

impl Answer {
    /// 200 with JSON.
    pub(super) fn ok(value: &Value) -> Self {
        Self { response: body::json(StatusCode::OK, value), note: None }
    }

    /// 201 with JSON.
    pub(super) fn created(value: &Value) -> Self {
        Self { response: body::json(StatusCode::CREATED, value), note: None }
    }

    /// 204.
    pub(super) fn gone() -> Self {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Self { response, note: None }
    }

    /// With the tag of what it shows.
    pub(super) fn tagged(mut self, tag: &str) -> Self {
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{tag}\"")) {
            self.response.headers_mut().insert(ETAG, tag);
        }
        self
    }

    /// Something was changed.
    pub(super) fn noting(mut self, action: &'static str, target: impl Display, detail: Value) -> Self {
        self.note = Some(Note { action, target: Some(target.to_string()), detail });
        self
    }
}

impl From<Response<Body>> for Answer {
    fn from(response: Response<Body>) -> Self {
        Self { response, note: None }
    }
}

/// The tag of what `value` shows. Leave out what changes by itself.
pub(super) fn tag(value: &Value) -> String {
    blake3::hash(value.to_string().as_bytes()).to_hex()[..16].to_owned()
}

/// A store's refusal, for an operator.
pub(super) fn refused(error: &StoreError) -> Error {
    match error.kind {
        StoreErrorKind::Invalid(field) => wrong(field, error.message.clone()),
        StoreErrorKind::Conflict => Error::new(ErrorKind::Conflict, error.message.clone()),
        StoreErrorKind::NotFound => Error::new(ErrorKind::NotFound, error.message.clone()),
        _ => super::gate::store_away(error),
    }
}

/// 422: `field` is wrong.
pub(super) fn wrong(field: impl Into<std::borrow::Cow<'static, str>>, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unprocessable, message.into()).param(field)
}
