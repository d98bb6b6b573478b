//! Tests an account for the control plane: one real call with its credential, on the control runtime.
//!
//! A client of its own for each test: nothing is pooled, nothing of a core is touched, no rest is set or lifted. The whole
//! call has one deadline. What the provider says is shown shortened, without the credential.

use crate::base::alarms::Alarms;
use crate::base::hatch::{TestAccount, Tested};
use crate::base::{AccountId, Clock, Dialect, Error, ErrorKind, Pieces};
use crate::state::catalog::{Account, Directory};
use crate::upstream::{Call, CallBody, CallError, Client, ClientConfig, Headers, Reply};
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Connecting, asking and reading altogether.
const PATIENCE: Duration = Duration::from_secs(20);
/// How much of an answer is read.
const MOST: usize = 256 << 10;
/// How much of a provider's words is shown.
const SHOWN: usize = 300;

/// Makes the calls.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) directory: Arc<Directory>,
    pub(super) upstream: ClientConfig,
}

struct Asking<'a> {
    account: &'a Account,
}

impl Headers for Asking<'_> {
    fn visit(&self, put: &mut dyn FnMut(&str, &[u8])) {
        put("accept", b"application/json");
        put("content-type", b"application/json");
        if self.account.provider.dialect == Dialect::Anthropic {
            put("anthropic-version", b"2023-06-01");
        }
        if let Some(credential) = &self.account.credential {
            put(credential.header, credential.value.reveal().as_bytes());
        }
    }
}

impl TestAccount for Probe {
    fn test<'a>(
        &'a self,
        account: AccountId,
        model: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = Result<Tested, Error>> + Send + 'a>> {
        Box::pin(self.run(account, model))
    }
}

impl Probe {
    async fn run(&self, id: AccountId, model: Option<&str>) -> Result<Tested, Error> {
        let catalog = self.directory.catalog();
        let Some(account) = catalog.accounts.iter().find(|account| account.id == id) else {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no account {id} that could be asked")));
        };
        if id == AccountId(0) {
            let message = "the demo answers by itself".to_owned();
            return Ok(Tested { ok: true, status: None, took: Duration::ZERO, message });
        }
        let started = Clock::now();
        let called = tokio::time::timeout(PATIENCE, self.call(account, model)).await;
        let took = Clock::now().since(started);
        let (status, message) = match called {
            Err(_) => (None, format!("no answer within {} s", PATIENCE.as_secs())),
            Ok(Err(error)) => (None, error.to_string()),
            Ok(Ok((status, body))) => (Some(status), said(account, status, &body)),
        };
        let ok = status.is_some_and(|status| status.is_success());
        Ok(Tested { ok, status: status.map(|status| status.as_u16()), took, message })
    }

    async fn call(&self, account: &Account, model: Option<&str>) -> Result<(StatusCode, Bytes), CallError> {
        let client = Client::new(self.upstream.clone(), Arc::new(Alarms::default()));
        let (method, path, body) = question(account.provider.dialect, model);
        let call = Call {
            base: &account.base,
            http2: account.provider.http2,
            method: &method,
            path: &path,
            headers: &Asking { account },
            body: CallBody::Pieces(Pieces::from(body)),
            asked: Clock::now(),
            // The clock around the whole call is the one that counts: nobody sweeps this client's alarms.
            first_byte: PATIENCE,
            idle: PATIENCE,
        };
        let Reply { status, mut body, .. } = client.call(call).await?;
        let mut whole = BytesMut::new();
        while whole.len() < MOST {
            match std::future::poll_fn(|cx| body.poll_data(cx)).await {
                Some(data) => whole.extend_from_slice(&data?),
                None => break,
            }
        }
        Ok((status, whole.freeze()))
    }
}

/// What to ask: a few tokens of `model`, or what models there are.
fn question(dialect: Dialect, model: Option<&str>) -> (Method, String, Bytes) {
    let Some(model) = model else {
        let path = match dialect {
            Dialect::OpenAi => "/models",
            Dialect::Anthropic => "/v1/models",
            Dialect::Gemini => "/v1beta/models",
        };
        return (Method::GET, path.to_owned(), Bytes::new());
    };
    let said = "Answer with the word ok.";
    let (path, body) = match dialect {
        Dialect::OpenAi => {
            let body = json!({ "model": model, "messages": [{ "role": "user", "content": said }] });
            ("/chat/completions".to_owned(), body)
        }
        Dialect::Anthropic => {
            let messages = json!([{ "role": "user", "content": said }]);
            ("/v1/messages".to_owned(), json!({ "model": model, "max_tokens": 16, "messages": messages }))
        }
        Dialect::Gemini => {
            let body = json!({ "contents": [{ "role": "user", "parts": [{ "text": said }] }] });
            (format!("/v1beta/models/{}:generateContent", escaped(model)), body)
        }
    };
    (Method::POST, path, Bytes::from(body.to_string()))
}

/// A model's name as a segment of a path.
fn escaped(model: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:@".contains(&b);
    model.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// What an answer means, in words.
fn said(account: &Account, status: StatusCode, body: &[u8]) -> String {
    if status.is_success() {
        return "the provider answered".to_owned();
    }
    let meaning = match status.as_u16() {
        401 | 403 => "the provider refuses the credential",
        402 => "the provider says that the account is out of money",
        404 => "the provider has no such model, or its base URL is another",
        429 => "the provider limits this account now",
        500.. => "the provider fails",
        _ => "the provider refuses the request",
    };
    let words = serde_json::from_slice::<Value>(body).ok();
    let words = words.as_ref().and_then(|body| {
        let error = body.get("error").or_else(|| body.get(0)?.get("error"))?;
        error.get("message").or(Some(error))?.as_str()
    });
    let Some(words) = words else { return format!("{meaning} (status {})", status.as_u16()) };
    let mut words: String = words.chars().filter(|c| !c.is_control()).take(4 * SHOWN).collect();
    if let Some(credential) = &account.credential {
        let secret = credential.value.reveal();
        let secret = secret.strip_prefix("Bearer ").unwrap_or(secret);
        words = words.replace(secret, "…");
    }
    let words: String = words.chars().take(SHOWN).collect();
    format!("{meaning} (status {}): {words}", status.as_u16())
}
