//! The request's head, and then its body: what is read before anything is decided.
//!
//! The head alone decides who calls (`auth`); only then is the body read, bounded. Nothing here trusts a client's
//! words: its request id is echoed and stored, never used as a key; `X-Forwarded-For` counts from trusted proxies only.

use crate::base::{Error, ErrorKind};
use crate::config::Cidr;
use crate::dialect::Endpoint;
use crate::server::Peer;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use std::net::IpAddr;

/// The client's own name for a request.
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Longest client request id that is echoed.
const REQUEST_ID_MAX: usize = 128;

/// The client's `x-request-id`, when it is sane: visible ASCII, at most 128 characters. A clone of a reference.
pub(super) fn client_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(&X_REQUEST_ID)?;
    let bytes = value.as_bytes();
    let sane = !bytes.is_empty() && bytes.len() <= REQUEST_ID_MAX && bytes.iter().all(u8::is_ascii_graphic);
    sane.then(|| value.clone())
}

/// The client's address: the socket's, or, when that is a trusted proxy's, the rightmost untrusted one it forwards for.
pub(super) fn client_addr(headers: &HeaderMap, peer: Peer, trusted: &[Cidr]) -> IpAddr {
    let socket = peer.addr.ip().to_canonical();
    let is_trusted = |addr: IpAddr| trusted.iter().any(|range| range.contains(addr));
    if trusted.is_empty() || !is_trusted(socket) {
        return socket;
    }
    let mut last = socket;
    // Several headers count as one list; the last entry is the nearest hop.
    for value in headers.get_all(&X_FORWARDED_FOR).iter().rev() {
        let Ok(list) = value.to_str() else { return last };
        for entry in list.rsplit(',') {
            let Some(addr) = forwarded_addr(entry.trim()) else { return last };
            last = addr;
            if !is_trusted(addr) {
                return addr;
            }
        }
    }
    last
}

fn forwarded_addr(entry: &str) -> Option<IpAddr> {
    let addr = entry
        .parse::<IpAddr>()
        .or_else(|_| entry.parse::<std::net::SocketAddr>().map(|addr| addr.ip()))
        .or_else(|_| entry.trim_start_matches('[').trim_end_matches(']').parse())
        .ok()?;
    Some(addr.to_canonical())
}

/// Refuses what is not JSON where JSON is needed. No content type at all counts as JSON.
pub(super) fn check_content(endpoint: Endpoint, headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Error::new(ErrorKind::UnsupportedMedia, "compressed request bodies are not supported"));
    }
    let Some(kind) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let kind = kind.to_str().unwrap_or("");
    let essence = kind.split(';').next().unwrap_or("").trim();
    let wanted = if endpoint == Endpoint::Transcriptions { "multipart/form-data" } else { "application/json" };
    let json_like = endpoint != Endpoint::Transcriptions && essence.to_ascii_lowercase().ends_with("+json");
    if essence.eq_ignore_ascii_case(wanted) || json_like {
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

    fn peer(addr: &str) -> Peer {
        Peer { addr: format!("{addr}:1").parse().unwrap(), control_only: false }
    }

    #[test]
    fn forwarded_for_counts_from_trusted_proxies_only_and_from_the_right() {
        let trusted = [Cidr { addr: "10.0.0.0".parse().unwrap(), bits: 8 }];
        let forged = headers(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2, 10.0.0.7")]);
        assert_eq!(client_addr(&forged, peer("9.9.9.9"), &trusted).to_string(), "9.9.9.9");
        assert_eq!(client_addr(&forged, peer("10.0.0.1"), &trusted).to_string(), "2.2.2.2");
        assert_eq!(client_addr(&forged, peer("10.0.0.1"), &[]).to_string(), "10.0.0.1");
        let junk = headers(&[("x-forwarded-for", "unknown")]);
        assert_eq!(client_addr(&junk, peer("10.0.0.1"), &trusted).to_string(), "10.0.0.1");
        let several = headers(&[("x-forwarded-for", "3.3.3.3"), ("x-forwarded-for", "10.1.1.1")]);
        assert_eq!(client_addr(&several, peer("10.0.0.1"), &trusted).to_string(), "3.3.3.3");
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
        assert!(!ok(Endpoint::Chat, "text/plain") && !ok(Endpoint::Chat, "application/x-www-form-urlencoded"));
        assert!(ok(Endpoint::Transcriptions, "multipart/form-data; boundary=x"));
        assert!(!ok(Endpoint::Transcriptions, "application/json"));
        assert!(check_content(Endpoint::Chat, &headers(&[])).is_ok());
        assert!(check_content(Endpoint::Chat, &headers(&[("content-encoding", "gzip")])).is_err());
    }
}
