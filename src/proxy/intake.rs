//! The request's head, and then its body: what is read before anything is decided.
//!
//! The head alone decides who calls (`auth`); only then is the body read, bounded. Nothing here trusts a client's
//! words: its request id is echoed and stored, never used as a key.

use crate::base::{Error, ErrorKind};
use crate::dialect::Endpoint;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

/// The client's own name for a request.
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest client request id that is echoed.
const REQUEST_ID_MAX: usize = 128;

/// The client's `x-request-id`, when it is sane: visible ASCII, at most 128 characters. A clone of a reference.
pub(super) fn client_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(&X_REQUEST_ID)?;
    let bytes = value.as_bytes();
    let sane = !bytes.is_empty() && bytes.len() <= REQUEST_ID_MAX && bytes.iter().all(u8::is_ascii_graphic);
    sane.then(|| value.clone())
}

/// Refuses what is not JSON where JSON is needed. No content type at all counts as JSON.
pub(super) fn check_content(endpoint: Endpoint, headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Error::new(ErrorKind::UnsupportedMedia, "compressed request bodies are not supported"));
    }
    let Some(kind) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let essence = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let wanted = if endpoint == Endpoint::Transcriptions { "multipart/form-data" } else { "application/json" };
    let json_like = || {
        let ending = essence.last_chunk::<5>();
        endpoint != Endpoint::Transcriptions && ending.is_some_and(|ending| ending.eq_ignore_ascii_case(b"+json"))
    };
    if essence.eq_ignore_ascii_case(wanted.as_bytes()) || json_like() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::UnsupportedMedia, format!("this endpoint takes content-type {wanted}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn only_sane_request_ids_are_echoed() {
        assert!(client_request_id(&headers(&[("x-request-id", "abc-123")])).is_some());
        assert!(client_request_id(&headers(&[("x-request-id", "a b")])).is_none());
        assert!(client_request_id(&headers(&[("x-request-id", &"x".repeat(129))])).is_none());
        assert!(client_request_id(&headers(&[])).is_none());
    }

    #[test]
    fn content_types() {
        let ok = |endpoint, kind: &str| check_content(endpoint, &headers(&[("content-type", kind)])).is_ok();
        assert!(ok(Endpoint::Chat, "application/json; charset=utf-8") && ok(Endpoint::Chat, "Application/JSON"));
        assert!(ok(Endpoint::Chat, "application/problem+JSON") && !ok(Endpoint::Chat, "json"));
        assert!(!ok(Endpoint::Chat, "text/plain") && !ok(Endpoint::Chat, "application/x-www-form-urlencoded"));
        assert!(ok(Endpoint::Transcriptions, "multipart/form-data; boundary=x"));
        assert!(!ok(Endpoint::Transcriptions, "application/json"));
        assert!(check_content(Endpoint::Chat, &headers(&[])).is_ok());
        assert!(check_content(Endpoint::Chat, &headers(&[("content-encoding", "gzip")])).is_err());
    }
}
