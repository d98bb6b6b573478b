//! Which URL goes to whom.
//!
//! Data-plane requests are answered on the core that accepted them. Everything else (health, metrics, control plane)
//! runs on the control runtime; the core only relays its body, so a slow page or a password hash delays no stream.

use crate::admin::Admin;
use crate::base::tasks::spawn_on;
use crate::base::{Error, ErrorKind};
use crate::dialect::{Dialect, Endpoint};
use crate::proxy::{Asked, LISTING, Proxy};
use crate::server::body::{Answering, answered};
use crate::server::{Body, Handler, Incoming, Peer, body};
use http::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, Response};
use std::ops::Range;
use std::sync::Arc;
use tokio::runtime::Handle;

/// One core's switchboard.
#[derive(Debug)]
pub struct Urls {
    proxy: Arc<Proxy>,
    admin: Arc<Admin>,
    control: Handle,
}

/// The switchboard of the control plane's own listener: no model is asked anything there. Runs on the control runtime.
#[derive(Debug)]
pub struct AdminUrls {
    admin: Arc<Admin>,
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// A model is asked something. Gemini's model stands in the path: its byte range there.
    Data(Endpoint, Option<Range<usize>>),
    /// `GET /v1/models`, or one of them by name.
    Models(Option<String>),
    /// `GET /v1/model_group/info`.
    ModelGroups,
    /// Everything else.
    Control,
}

/// Where `path` leads; by path alone, the method is checked by who gets it.
pub fn route(path: &str) -> Route {
    let data = |endpoint| Route::Data(endpoint, None);
    match path {
        "/v1/chat/completions" => data(Endpoint::Chat),
        "/v1/messages" => data(Endpoint::Messages),
        "/v1/responses" => data(Endpoint::Responses),
        "/v1/embeddings" => data(Endpoint::Embeddings),
        "/v1/messages/count_tokens" => data(Endpoint::CountTokens),
        "/v1/completions" => data(Endpoint::Completions),
        "/v1/rerank" => data(Endpoint::Rerank),
        "/v1/images/generations" => data(Endpoint::Images),
        "/v1/audio/speech" => data(Endpoint::Speech),
        "/v1/audio/transcriptions" => data(Endpoint::Transcriptions),
        "/v1/moderations" => data(Endpoint::Moderations),
        "/v1/models" => Route::Models(None),
        "/v1/model_group/info" => Route::ModelGroups,
        _ => path
            .strip_prefix("/v1beta/models/")
            .or_else(|| path.strip_prefix("/v1/models/"))
            .map_or(Route::Control, |rest| model_route(path.len() - rest.len(), rest)),
    }
}

fn model_route(start: usize, rest: &str) -> Route {
    // Model names may hold colons themselves (`llama3:8b`): the verb is what follows the last.
    match rest.rsplit_once(':') {
        Some((model, "generateContent")) => Route::Data(Endpoint::Generate, Some(start..start + model.len())),
        Some((model, "streamGenerateContent")) => {
            Route::Data(Endpoint::StreamGenerate, Some(start..start + model.len()))
        }
        _ => Route::Models(Some(rest.to_owned())),
    }
}

impl Urls {
    /// A core's switchboard.
    pub fn new(proxy: Arc<Proxy>, admin: Arc<Admin>, control: Handle) -> Self {
        Self { proxy, admin, control }
    }

    fn wrong_method(
        &self,
        dialect: Dialect,
        endpoint: &'static str,
        request: &Request<Incoming>,
        peer: Peer,
        allowed: &'static str,
    ) -> Response<Body> {
        let error = Error::new(ErrorKind::MethodNotAllowed, format!("this endpoint takes {allowed}"));
        let mut response = self.proxy.refuse(dialect, endpoint, &error, request.headers(), peer);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        response
    }

    fn control(&self, request: Request<Incoming>, peer: Peer) -> Answering {
        let admin = Arc::clone(&self.admin);
        let answer = spawn_on(&self.control, "control request", async move { admin.handle(request, peer).await });
        Box::pin(async move {
            match answer.await {
                Ok(response) => response,
                Err(_) => body::control_error(&Error::internal("the request failed; the log has more")),
            }
        })
    }
}

impl AdminUrls {
    /// For `admin` alone.
    pub fn new(admin: Arc<Admin>) -> Self {
        Self { admin }
    }
}

impl Handler for AdminUrls {
    fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Answering {
        match route(request.uri().path()) {
            Route::Control => Box::pin(async move { self.admin.handle(request, peer).await }),
            _ => answered(body::control_error(&Error::new(
                ErrorKind::NotFound,
                "models are not served on this listener",
            ))),
        }
    }
}

impl Handler for Urls {
    fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Answering {
        let (endpoint, model) = match route(request.uri().path()) {
            Route::Control => return self.control(request, peer),
            Route::Models(one) if reads(request.method()) => {
                return answered(self.proxy.models(request.headers(), peer, one.as_deref()));
            }
            Route::ModelGroups if reads(request.method()) => {
                return answered(self.proxy.model_groups(request.headers(), peer));
            }
            Route::Models(_) | Route::ModelGroups => {
                return answered(self.wrong_method(Dialect::OpenAi, LISTING, &request, peer, "GET"));
            }
            Route::Data(endpoint, model) => (endpoint, model),
        };
        if request.method() != Method::POST {
            return answered(self.wrong_method(endpoint.dialect(), endpoint.name(), &request, peer, "POST"));
        }
        if peer.control_only {
            let full = Error::new(ErrorKind::Overloaded, "too many connections; try again")
                .retry_after(std::time::Duration::from_secs(1));
            return answered(self.proxy.refuse(endpoint.dialect(), endpoint.name(), &full, request.headers(), peer));
        }
        self.proxy.handle(Asked { endpoint, model_in_path: model }, request, peer)
    }
}

/// HEAD is a GET whose body hyper leaves out.
fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_the_contract_says() {
        assert_eq!(route("/v1/chat/completions"), Route::Data(Endpoint::Chat, None));
        let path = "/v1beta/models/gemini-2.5-flash:generateContent";
        assert_eq!(route(path), Route::Data(Endpoint::Generate, Some(15..31)));
        assert_eq!(&path[15..31], "gemini-2.5-flash");
        let path = "/v1/models/ollama/llama3:8b:streamGenerateContent";
        let Route::Data(Endpoint::StreamGenerate, Some(model)) = route(path) else { panic!("{:?}", route(path)) };
        assert_eq!(&path[model], "ollama/llama3:8b");
        assert_eq!(route("/v1/models/openai/gpt-x"), Route::Models(Some("openai/gpt-x".to_owned())));
        for path in ["/", "/healthz", "/api/keys", "/v1", "/v1/chat", "/v1/chat/completions/"] {
            assert_eq!(route(path), Route::Control, "{path}");
        }
    }
}
