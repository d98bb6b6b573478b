//! Headers on their way through: the client's to the provider (credentials swapped), the provider's to the client.
//!
//! Hop-by-hop headers and credentials never cross, in either direction; everything else does, untouched.

use super::traces::Trace;
use crate::dialect::Dialect;
use crate::state::catalog::Account;
use crate::upstream::Headers;
use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

/// The version of Anthropic's API that `dialect/translate` writes and reads.
const ANTHROPIC_VERSION: &[u8] = b"2023-06-01";

/// What of the client's request goes to a provider.
pub(super) struct Outgoing<'a> {
    pub(super) client: &'a HeaderMap,
    pub(super) account: &'a Account,
    /// The client's request id when it sent a sane one, else ours.
    pub(super) request_id: &'a HeaderValue,
    /// Our span, when this request is part of a trace of ours.
    pub(super) trace: Option<Trace>,
    /// The body was translated: what the client's headers say of its dialect and of that body is not so any more.
    pub(super) foreign: bool,
}

impl Headers for Outgoing<'_> {
    fn visit(&self, put: &mut dyn FnMut(&str, &[u8])) {
        let more = names_more(self.client);
        for (name, value) in self.client {
            let name = name.as_str();
            if stays_here(name)
                || self.foreign && of_a_dialect(name)
                || (self.trace.is_some() && name == "traceparent")
                || more && named(self.client).any(|other| other.eq_ignore_ascii_case(name))
            {
                continue;
            }
            put(name, value.as_bytes());
        }
        put("x-request-id", self.request_id.as_bytes());
        if self.foreign {
            put("content-type", b"application/json");
            if self.account.provider.dialect == Dialect::Anthropic {
                put("anthropic-version", ANTHROPIC_VERSION);
            }
        }
        if let Some(trace) = self.trace {
            put("traceparent", &trace.header());
        }
        if let Some(credential) = &self.account.credential {
            put(credential.header, credential.value.reveal().as_bytes());
        }
    }
}

/// Client headers that do not go to a provider.
fn stays_here(name: &str) -> bool {
    matches!(
        name,
        // ours to set
        "host" | "content-length" | "transfer-encoding" | "x-request-id"
        // hop by hop
        | "connection" | "keep-alive" | "te" | "trailer" | "upgrade" | "expect" | "proxy-connection"
        | "proxy-authorization" | "proxy-authenticate" | "http2-settings"
        // credentials: the client's are for us
        | "authorization" | "x-api-key" | "x-goog-api-key" | "api-key" | "cookie"
        // usage is read on the way back, so the reply must come uncompressed
        | "accept-encoding"
        // where the client sits is nobody's business
        | "forwarded" | "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "x-forwarded-port" | "x-real-ip"
        | "via"
    ) || name.starts_with("x-merido-")
}

/// What only means something in its own dialect, or describes a body in it.
fn of_a_dialect(name: &str) -> bool {
    matches!(name, "content-type" | "accept" | "request-id")
        || ["anthropic-", "openai-", "x-goog-", "x-stainless-", "x-ratelimit-"].iter().any(|own| name.starts_with(own))
}

/// A translated reply's head: what is left of the provider's, and what the body is now.
pub(super) fn translated(headers: &mut HeaderMap, kind: &'static str) {
    let own: Vec<HeaderName> = headers.keys().filter(|name| of_a_dialect(name.as_str())).cloned().collect();
    for name in own {
        headers.remove(name);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
}

/// What `connection` names: other headers that are this hop's own.
fn named(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Whether it names any beyond those that never cross.
fn names_more(headers: &HeaderMap) -> bool {
    named(headers).any(|name| !["keep-alive", "close"].iter().any(|usual| usual.eq_ignore_ascii_case(name)))
}

/// Removes from a provider's reply head what is not for the client; what is left goes out as it came.
pub(super) fn strip_reply(headers: &mut HeaderMap) {
    if names_more(headers) {
        let more: Vec<String> = named(headers).map(str::to_owned).collect();
        for name in more.iter().filter(|name| !name.eq_ignore_ascii_case("content-type")) {
            headers.remove(name.as_str());
        }
    }
    for name in &GONE {
        headers.remove(name);
    }
}

/// The others that belong to one hop are gone already: `upstream` takes them out.
static GONE: [HeaderName; 6] = [
    CONNECTION,
    http::header::CONTENT_LENGTH,
    http::header::SET_COOKIE,
    http::header::ALT_SVC,
    http::header::STRICT_TRANSPORT_SECURITY,
    http::header::PROXY_AUTHENTICATE,
];

/// Names of our own reply headers.
pub(super) mod ours {
    use http::header::HeaderName;
    pub(in crate::proxy) static ACCOUNT: HeaderName = HeaderName::from_static("x-merido-account");
    pub(in crate::proxy) static MODEL: HeaderName = HeaderName::from_static("x-merido-model");
    pub(in crate::proxy) static ATTEMPTS: HeaderName = HeaderName::from_static("x-merido-attempts");
    pub(in crate::proxy) static CACHE: HeaderName = HeaderName::from_static("x-merido-cache");
    pub(in crate::proxy) static ESTIMATED: HeaderName = HeaderName::from_static("x-merido-estimated");
    pub(in crate::proxy) static OVERHEAD: HeaderName = HeaderName::from_static("x-merido-overhead-us");
}

/// `value` as a header value; labels and model names were checked when they were made, so this does not fail in practice.
pub(super) fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static("?"))
}

/// The values of our own lines in one answer: all in one block of memory, since ten small ones cost more than the text.
pub(super) struct Values(BytesMut);

impl Values {
    pub(super) fn new() -> Self {
        // Labels and models are short, and six lines of limits take sixty bytes.
        Self(BytesMut::with_capacity(192))
    }

    /// Labels and model names were checked when they were made, so this does not fail in practice.
    pub(super) fn text(&mut self, parts: &[&str]) -> HeaderValue {
        for part in parts {
            self.0.extend_from_slice(part.as_bytes());
        }
        let value = self.0.split().freeze();
        HeaderValue::from_maybe_shared(value).unwrap_or_else(|_| HeaderValue::from_static("?"))
    }

    pub(super) fn number(&mut self, number: u64) -> HeaderValue {
        self.text(&[itoa::Buffer::new().format(number)])
    }
}
