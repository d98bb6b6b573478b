//! An event of another instance: names where ours hold what is in the catalog, since the sender knew what they meant.

use super::event::{DoneView, Tokens, View};
use crate::base::{KeyId, RequestId};
use std::sync::Arc;

/// What [`View`] shows, owned. Names that occur often in one message share their memory.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields of `View`")]
pub struct FarEvent {
    pub instance: Arc<str>,
    pub request: RequestId,
    pub unix_ms: u64,
    pub client_request_id: Option<Arc<str>>,
    pub key: Option<(KeyId, Arc<str>)>,
    pub dialect: Arc<str>,
    pub stream: bool,
    pub requested_model: Arc<str>,
    pub account: Option<(Arc<str>, Arc<str>)>,
    pub model: Option<Arc<str>>,
    pub done: Option<FarDone>,
}

/// What [`DoneView`] shows, owned.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields of `DoneView`")]
pub struct FarDone {
    pub status: u16,
    pub cache: Arc<str>,
    pub attempts: u16,
    pub tokens: Tokens,
    pub cost_nanos: Option<u64>,
    pub latency_micros: u64,
    pub first_byte_micros: Option<u64>,
    pub overhead_micros: u64,
    pub error: Option<Arc<str>>,
}

impl FarEvent {
    /// What is shown of it.
    pub fn view(&self) -> View<'_> {
        View {
            instance: &self.instance,
            request: self.request,
            unix_ms: self.unix_ms,
            client_request_id: self.client_request_id.as_deref(),
            key: self.key.as_ref().map(|(id, name)| (*id, &**name)),
            dialect: &self.dialect,
            stream: self.stream,
            requested_model: &self.requested_model,
            account: self.account.as_ref().map(|(provider, label)| (&**provider, &**label)),
            model: self.model.as_deref(),
            done: self.done.as_ref().map(|done| DoneView {
                status: done.status,
                cache: &done.cache,
                attempts: done.attempts,
                tokens: done.tokens,
                cost_nanos: done.cost_nanos,
                latency_micros: done.latency_micros,
                first_byte_micros: done.first_byte_micros,
                overhead_micros: done.overhead_micros,
                error: done.error.as_deref(),
            }),
        }
    }
}
