//! Heads: a request's is written, an answer's is found, read and judged. Pure.
//!
//! What an answer's head says decides where its body ends, so it is read strictly: one length or one encoding, never
//! both, no bare LF, no folded line, no control character. Limits: [`MAX_HEAD`] bytes, [`MAX_HEADERS`] lines.

use super::framing::{Framing, is_text, is_token};
use crate::base::spare;
use crate::state::catalog::BaseUrl;
use crate::upstream::call::Headers;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use std::mem::MaybeUninit;

/// Headers a reply's map has room for beyond its own.
const ROOM: usize = 14;

/// Bytes of an answer's head at most.
pub const MAX_HEAD: usize = 64 * 1024;

/// Header lines of an answer at most.
pub const MAX_HEADERS: usize = 128;

/// An answer's head, judged.
#[derive(Debug)]
pub struct Head {
    /// Its status; 1xx (but 101, which is an error) means: another head follows.
    pub status: StatusCode,
    /// End-to-end headers.
    pub headers: HeaderMap,
    /// Where the body ends.
    pub framing: Framing,
    /// The connection may serve again once the body has ended.
    pub keep_alive: bool,
}

/// How a request's body is framed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Announce {
    /// `content-length`, left out for a GET or HEAD without a body.
    Length(u64),
    /// `transfer-encoding: chunked`.
    Chunked,
}

/// Looks for a head's end across reads without looking at a byte twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Finder {
    looked: usize,
    line: usize,
}

impl Finder {
    /// The head's length once all of it is in `raw`, which starts where the head starts and only grows between calls.
    pub fn find(&mut self, raw: &[u8]) -> Result<Option<usize>, &'static str> {
        const START: &[u8] = b"HTTP/1.";
        let known = raw.len().min(START.len());
        // Another protocol's bytes (a TLS alert, say) may hold no line end for long: refused at once.
        if raw[..known] != START[..known] {
            return Err("not an HTTP/1 answer");
        }
        for at in memchr::memchr_iter(b'\n', &raw[self.looked..]).map(|at| at + self.looked) {
            if at == 0 || raw[at - 1] != b'\r' {
                return Err("bare LF in the head");
            }
            if at - self.line == 1 {
                return if at < MAX_HEAD { Ok(Some(at + 1)) } else { Err("head too large") };
            }
            self.line = at + 1;
        }
        self.looked = raw.len();
        if raw.len() >= MAX_HEAD { Err("head too large") } else { Ok(None) }
    }
}

/// Reads `raw`, exactly one head as [`Finder`] found it. `method` is the request's.
pub fn parse(raw: &Bytes, method: &Method) -> Result<Head, &'static str> {
    let mut lines = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut answer, raw, &mut lines) {
        Ok(httparse::Status::Complete(length)) if length == raw.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err("too many headers"),
        Ok(_) | Err(_) => return Err("bad head"),
    }
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or("bad status")?;
    // Room for what the caller adds on the way to its client: a map that grows is hashed anew.
    let mut headers = spare::header_map(answer.headers.len() + ROOM);
    let mut length = None;
    let mut chunked = false;
    let mut keep_alive = answer.version == Some(1);
    let mut named_hop_by_hop = false;
    for line in answer.headers.iter() {
        match known(line.name) {
            Known::Length => {
                let value = decimal(line.value).ok_or("bad content-length")?;
                if length.is_some_and(|other| other != value) {
                    return Err("conflicting content-length");
                }
                if length.replace(value).is_some() {
                    continue;
                }
            }
            Known::Encoding => {
                if chunked || !line.value.eq_ignore_ascii_case(b"chunked") {
                    return Err("unknown transfer-encoding");
                }
                chunked = true;
                continue;
            }
            Known::Connection => {
                for token in line.value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                    if token.eq_ignore_ascii_case(b"close") {
                        keep_alive = false;
                    } else if token.eq_ignore_ascii_case(b"keep-alive") {
                        // HTTP/1.0 asks for it; a `close` beside it wins below.
                        keep_alive |= answer.version == Some(0);
                    } else {
                        named_hop_by_hop |= !token.is_empty();
                    }
                }
                continue;
            }
            Known::Hop => continue,
            Known::Host | Known::No => {}
        }
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| "bad header name")?;
        let value = HeaderValue::from_maybe_shared(raw.slice_ref(line.value)).map_err(|_| "bad header value")?;
        headers.try_append(name, value).map_err(|_| "too many headers")?;
    }
    if named_hop_by_hop || answer.version == Some(0) {
        keep_alive &= drop_named(&mut headers, answer.headers);
    }
    let bodiless = *method == Method::HEAD || status.is_informational() || matches!(status.as_u16(), 204 | 304);
    let framing = match (chunked, length) {
        (true, Some(_)) => return Err("both content-length and transfer-encoding"),
        (true, None) if answer.version == Some(0) => return Err("transfer-encoding in HTTP/1.0"),
        _ if bodiless => Framing::EMPTY,
        (true, None) => Framing::CHUNKED,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::UntilClose,
    };
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err("switched protocols unasked");
    }
    if framing == Framing::UntilClose {
        keep_alive = false;
    }
    Ok(Head { status, headers, framing, keep_alive })
}

/// Removes what `connection` names; false when it says `close` as well.
fn drop_named(headers: &mut HeaderMap, lines: &[httparse::Header<'_>]) -> bool {
    let mut stays = true;
    for line in lines.iter().filter(|line| matches!(known(line.name), Known::Connection)) {
        for token in line.value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                stays = false;
            } else if let Ok(name) = HeaderName::from_bytes(token) {
                // A length is no hop's own business, whatever a provider says.
                if name != CONTENT_LENGTH {
                    headers.remove(name);
                }
            }
        }
    }
    stays
}

/// Appends a request's head to `out`. What cannot stand in a head otherwise; `out` is of no use then.
pub fn write(
    out: &mut Vec<u8>,
    method: &Method,
    base: &BaseUrl,
    path: &str,
    headers: &dyn Headers,
    body: Announce,
) -> Result<(), &'static str> {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    let target = out.len();
    out.extend_from_slice(base.path.as_bytes());
    out.extend_from_slice(path.as_bytes());
    if out.len() == target || out[target] != b'/' {
        out.insert(target, b'/');
    }
    if !all(&out[target..], |b| b > b' ' && b < 0x7f) {
        return Err("bad request path");
    }
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(base.authority.as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut wrong = None;
    headers.visit(&mut |name, value| match checked(name, value) {
        Ok(true) => {
            out.reserve(name.len() + value.len() + 4);
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        Ok(false) => {}
        Err(what) => wrong = Some(what),
    });
    if let Some(what) = wrong {
        return Err(what);
    }
    match body {
        Announce::Length(0) if matches!(*method, Method::GET | Method::HEAD) => {}
        Announce::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Announce::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Whether a header goes out: `Ok(false)` for those that are the codec's own, an error for what no header may hold.
pub fn checked(name: &str, value: &[u8]) -> Result<bool, &'static str> {
    if name.is_empty() || !all(name.as_bytes(), is_token) {
        return Err("bad request header name");
    }
    if !all(value, is_text) {
        return Err("bad request header value");
    }
    Ok(matches!(known(name), Known::No))
}

/// Without an early way out, so that it is done many bytes at a time.
fn all(bytes: &[u8], good: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |so_far, b| so_far & good(*b))
}

/// Digits and nothing else.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0u64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + u64::from(b - b'0')))
}

enum Known {
    Host,
    Length,
    Encoding,
    Connection,
    Hop,
    No,
}

/// The headers that are not end-to-end, told apart by length first.
fn known(name: &str) -> Known {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.len() {
        2 if is("te") => Known::Hop,
        4 if is("host") => Known::Host,
        6 if is("expect") => Known::Hop,
        7 if is("trailer") || is("upgrade") => Known::Hop,
        10 if is("connection") => Known::Connection,
        10 if is("keep-alive") => Known::Hop,
        14 if is("content-length") => Known::Length,
        16 if is("proxy-connection") => Known::Hop,
        17 if is("transfer-encoding") => Known::Encoding,
        _ => Known::No,
    }
}
