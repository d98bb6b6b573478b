//! What an operator sends: JSON of at most a mebibyte, and names in paths. Whatever is wrong with it is said in words.

use crate::base::{Error, ErrorKind};
use crate::server::body::{self, Incoming};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::body::Body as _;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Largest body.
const MOST: u64 = 1 << 20;
/// A client may be silent for so long within its body.
const SILENCE: Duration = Duration::from_secs(30);

/// The body as `T`.
pub(super) async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Incoming) -> Result<T, Error> {
    let bytes = bytes(headers, body).await?;
    serde_json::from_slice(&bytes).map_err(|e| Error::malformed(format!("the body can't be read: {e}")))
}

/// The body, which must say that it is JSON.
pub(super) async fn bytes(headers: &HeaderMap, body: Incoming) -> Result<Bytes, Error> {
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Error::new(ErrorKind::UnsupportedMedia, "compressed request bodies are not supported"));
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    // Required, and not only for form's sake: it is what keeps a foreign page's form from writing here.
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Error::new(ErrorKind::UnsupportedMedia, "this endpoint takes content-type application/json"));
    }
    body::read(body, MOST, SILENCE).await
}

/// The same where there may be no body: then it is an empty object.
pub(super) async fn bytes_or_none(headers: &HeaderMap, body: Incoming) -> Result<Bytes, Error> {
    if body.is_end_stream() { Ok(Bytes::from_static(b"{}")) } else { bytes(headers, body).await }
}

/// The segments of a path below `/api/`, decoded. A segment that cannot be decoded is a mistake.
pub(super) fn segments(path: &str) -> Result<Vec<String>, Error> {
    path.split('/').map(decode).collect()
}

/// A query's name or value: as in a form, `+` is a space.
pub(super) fn decode_form(raw: &str) -> Result<String, Error> {
    decode(&raw.replace('+', " "))
}

fn decode(raw: &str) -> Result<String, Error> {
    let bad = || Error::malformed("the URL is not properly encoded");
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or_else(bad);
            out.push((digit()? * 16 + digit()?) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_decoded_one_by_one() {
        assert_eq!(segments("cooldowns/a%2Fb/c").unwrap(), ["cooldowns", "a/b", "c"]);
        assert_eq!(segments("%C3%A9").unwrap(), ["é"]);
        for bad in ["%", "%4", "%zz", "%ff", "a/%+1"] {
            assert!(segments(bad).is_err(), "{bad}");
        }
    }
}
