//! Heads: found across any split, read strictly, written without letting a header frame the message.

use super::framing::Framing;
use super::head::{Announce, Finder, Head, MAX_HEAD, MAX_HEADERS, parse, write};
use crate::state::catalog::BaseUrl;
use crate::upstream::call::Headers;
use bytes::Bytes;
use http::Method;

pub(super) fn read(raw: &[u8], method: &Method) -> Result<Option<(Head, usize)>, &'static str> {
    let Some(length) = Finder::default().find(raw)? else { return Ok(None) };
    parse(&Bytes::copy_from_slice(&raw[..length]), method).map(|head| Some((head, length)))
}

fn get(raw: &str) -> Result<Head, &'static str> {
    read(raw.as_bytes(), &Method::POST).map(|found| found.expect("a whole head").0)
}

struct Lines<'a>(&'a [(&'a str, &'a [u8])]);

impl Headers for Lines<'_> {
    fn visit(&self, put: &mut dyn FnMut(&str, &[u8])) {
        self.0.iter().for_each(|(name, value)| put(name, value));
    }
}

fn written(path: &str, lines: &[(&str, &[u8])], body: Announce) -> Result<String, &'static str> {
    let mut out = Vec::new();
    let base = BaseUrl::parse("http://host:81/v1").unwrap();
    write(&mut out, &Method::POST, &base, path, &Lines(lines), body)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn the_end_is_found_across_any_split() {
    let raw = b"HTTP/1.1 200 OK\r\na: b\r\n\r\nbody\r\n\r\n";
    for cut in 0..raw.len() {
        let mut finder = Finder::default();
        let found = match finder.find(&raw[..cut]).unwrap() {
            Some(length) => length,
            None => finder.find(raw).unwrap().expect("all of it is there"),
        };
        assert_eq!(found, 25, "cut at {cut}");
    }
}

#[test]
fn the_head_says_where_the_body_ends() {
    let of = |lines: &str| get(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n")).map(|head| (head.framing, head.keep_alive));
    assert_eq!(of("content-length: 5\r\n"), Ok((Framing::Length(5), true)));
    assert_eq!(of("Content-Length: 5\r\ncontent-length: 5\r\n"), Ok((Framing::Length(5), true)));
    assert_eq!(of("transfer-encoding: Chunked\r\n"), Ok((Framing::CHUNKED, true)));
    assert_eq!(of("content-length: 5\r\nconnection: Close\r\n"), Ok((Framing::Length(5), false)));
    assert_eq!(of(""), Ok((Framing::UntilClose, false)));
    let old = |lines: &str| get(&format!("HTTP/1.0 200 OK\r\n{lines}\r\n")).map(|head| head.keep_alive);
    assert_eq!(old("content-length: 5\r\n"), Ok(false));
    assert_eq!(old("content-length: 5\r\nconnection: keep-alive\r\n"), Ok(true));
    assert_eq!(old("content-length: 5\r\nconnection: close\r\nconnection: keep-alive\r\n"), Ok(false));
    for status in ["204 No Content", "304 Not Modified", "100 Continue"] {
        assert_eq!(get(&format!("HTTP/1.1 {status}\r\n\r\n")).unwrap().framing, Framing::EMPTY);
    }
    let head = read(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", &Method::HEAD).unwrap().unwrap().0;
    assert_eq!(head.framing, Framing::EMPTY, "an answer to HEAD has no body, whatever it says");
}

#[test]
fn only_end_to_end_headers_come_out() {
    let head = get(concat!(
        "HTTP/1.1 200 OK\r\nconnection: x-hop, Keep-Alive\r\nx-hop: 1\r\nkeep-alive: 5\r\n",
        "set-cookie: a\r\nset-cookie: b\r\nretry-after: \t7 \r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n"
    ))
    .unwrap();
    let mut seen: Vec<_> = head.headers.iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap())).collect();
    seen.sort();
    assert_eq!(seen, ["content-length=1", "retry-after=7", "set-cookie=a", "set-cookie=b"]);
}

#[test]
fn doubtful_heads_are_refused() {
    for lines in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 5\r\n",
        "content-length: +5\r\n",
        "content-length: -1\r\n",
        "content-length: 5 5\r\n",
        "content-length:\r\n",
        "content-length: 0x5\r\n",
        "content-length: 99999999999999999999\r\n",
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "a: b\r\n folded\r\n",
        "a : b\r\n",
        "a: b\0\r\n",
        "a: b\rc\r\n",
        "a: b\nc: d\r\n",
        "no colon\r\n",
        ": empty\r\n",
    ] {
        assert!(get(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n")).is_err(), "{lines:?}");
    }
    for start in ["HTTP/1.1 101 Switching Protocols", "HTTP/1.1 99 x", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK"] {
        assert!(get(&format!("{start}\r\n\r\n")).is_err(), "{start}");
    }
    assert!(get("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    for raw in [&b"HTTP/2.0"[..], b"\x15\x03\x01", b"\r\nHTTP/1.1 200", b"http/1.1", b"ICY 200 OK\r\n"] {
        assert!(Finder::default().find(raw).is_err(), "refused without waiting for more: {:?}", raw.escape_ascii());
    }
}

#[test]
fn heads_are_bounded() {
    let endless = [b"HTTP/1.1 200 OK\r\na: ".as_slice(), &vec![b'x'; MAX_HEAD]].concat();
    assert!(Finder::default().find(&endless).is_err());
    let whole = [&endless[..], b"\r\n\r\n"].concat();
    assert!(Finder::default().find(&whole).is_err(), "in one read, too");
    let lines = |n: usize| get(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(n)));
    assert!(lines(MAX_HEADERS).is_ok());
    assert_eq!(lines(MAX_HEADERS + 1).unwrap_err(), "too many headers");
}

#[test]
fn a_request_is_written_with_our_own_framing() {
    let lines: &[(&str, &[u8])] = &[
        ("authorization", b"Bearer k"),
        ("Host", b"evil"),
        ("content-length", b"1"),
        ("Transfer-Encoding", b"chunked"),
        ("connection", b"close"),
        ("x-a", b""),
    ];
    assert_eq!(
        written("/chat?x=1", lines, Announce::Length(7)).unwrap(),
        "POST /v1/chat?x=1 HTTP/1.1\r\nhost: host:81\r\nauthorization: Bearer k\r\nx-a: \r\ncontent-length: 7\r\n\r\n"
    );
    assert!(written("/", &[], Announce::Chunked).unwrap().ends_with("\r\ntransfer-encoding: chunked\r\n\r\n"));
}

#[test]
fn nothing_slips_into_a_request_head() {
    for path in ["/a b", "/a\r\nx: y", "/\0", "/ä"] {
        assert!(written(path, &[], Announce::Length(0)).is_err(), "{path:?}");
    }
    for (name, value) in
        [("a", "b\r\nc: d"), ("a", "\n"), ("a", "\0"), ("a\r\n", "b"), ("a b", "c"), ("", "c"), ("a:", "b")]
    {
        assert!(written("/", &[(name, value.as_bytes())], Announce::Length(0)).is_err(), "{name:?}: {value:?}");
    }
}
