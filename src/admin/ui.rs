//! The dashboard's files: compiled in, served at `/` and below `/ui/`, the same to everybody.
//!
//! They hold no data and need no session; whatever they show they ask `/api/` for. A page may run and load only what lies
//! here (its policy says so to the browser), so that a text from a provider or a caller can never become a script. The
//! browser asks by its tag whether the page is still the one; the page names its parts below `/ui/` and the version, and
//! these are kept for good. Where another version's page asks, while instances are replaced one by one, it gets ours, to be
//! kept by nobody: `boot.js` begins anew if that does not fit.

use crate::server::body::Body;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};
use std::sync::LazyLock;

/// Nothing but what lies here, nobody's frame, no markup made of texts.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

macro_rules! files {
    ($($path:literal),* $(,)?) => { &[$(($path, include_bytes!(concat!("ui/", $path)))),*] };
}

/// Path below `/ui/` and bytes.
const FILES: &[(&str, &[u8])] = files![
    "index.html",
    "boot.js",
    "icon.svg",
    "caret.svg",
    "css/base.css",
    "css/layout.css",
    "css/parts.css",
    "css/tables.css",
    "css/pages.css",
    "api.js",
    "app.js",
    "chart.js",
    "dialog.js",
    "dom.js",
    "feed.js",
    "fmt.js",
    "form.js",
    "icons.js",
    "page.js",
    "sse.js",
    "pages/account-form.js",
    "pages/accounts.js",
    "pages/audit.js",
    "pages/cluster.js",
    "pages/connect.js",
    "pages/keys.js",
    "pages/live-list.js",
    "pages/live.js",
    "pages/log-detail.js",
    "pages/login.js",
    "pages/logs.js",
    "pages/model-form.js",
    "pages/models.js",
    "pages/row.js",
    "pages/settings.js",
    "pages/sortable.js",
    "pages/usage.js",
    "pages/welcome.js",
];

/// A file as it goes out.
struct Served {
    path: &'static str,
    bytes: Bytes,
    kind: &'static str,
    tag: HeaderValue,
}

/// Digits of a version in a path.
const DIGITS: usize = 16;

/// What all files say together: a path with it in it means the same bytes for ever.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = blake3::Hasher::new();
    for (path, bytes) in FILES {
        hasher.update(&(path.len() as u64).to_le_bytes()).update(path.as_bytes());
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }
    hasher.finalize().to_hex()[..DIGITS].to_owned()
});

static SERVED: LazyLock<Vec<Served>> = LazyLock::new(|| {
    let serve = |&(path, bytes): &(&'static str, &'static [u8])| {
        let bytes = match std::str::from_utf8(bytes) {
            Ok(page) if path == "index.html" => page.replace("\"/ui/", &format!("\"/ui/{}/", *VERSION)).into(),
            _ => Bytes::from_static(bytes),
        };
        Served { path, kind: kind(path), tag: tag(&bytes), bytes }
    };
    FILES.iter().map(serve).collect()
});

/// The file at that path of the URL, or that the browser has it already. `None`: there is none.
pub(super) fn file(path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let name = if path == "/" { "index.html" } else { path.strip_prefix("/ui/")? };
    let (name, keep) = match name.split_at_checked(DIGITS).and_then(|(v, rest)| Some((v, rest.strip_prefix('/')?))) {
        Some((version, rest)) if version == *VERSION => (rest, "public, max-age=31536000, immutable"),
        Some((version, rest)) if version.bytes().all(|b| b.is_ascii_hexdigit()) => (rest, "no-store"),
        _ => (name, "no-cache"),
    };
    let served = SERVED.iter().find(|served| served.path == name)?;
    let mut response = if has(headers, &served.tag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(Body::full(served.bytes.clone()))
    };
    let out = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, served.kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, keep),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        out.insert(name, HeaderValue::from_static(value));
    }
    out.insert(ETAG, served.tag.clone());
    Some(response)
}

fn kind(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

fn tag(bytes: &[u8]) -> HeaderValue {
    let text = format!("\"{}\"", &blake3::hash(bytes).to_hex()[..20]);
    // Hexadecimal digits between quotes are always a header's value; an empty one would match nothing.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

fn has(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let Ok(tag) = tag.to_str() else { return false };
    let lists = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|one| one.trim().trim_start_matches("W/") == tag || one.trim() == "*")
}

#[cfg(test)]
#[path = "ui_tests.rs"]
mod tests;
