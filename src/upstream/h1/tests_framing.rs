//! Framing must not depend on where reads happen to cut the stream, and must refuse what could be read two ways.

use super::framing::{Framing, MAX_OVERHEAD};
use proptest::prelude::*;

/// Feeds `raw` cut at `cuts`; payload, bytes used, whether it ended.
pub(super) fn feed(mut framing: Framing, raw: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, usize, bool), &'static str> {
    let (mut payload, mut used, mut from) = (Vec::new(), 0, 0);
    for to in cuts.iter().copied().chain([raw.len()]) {
        let mut piece = raw[from..to].to_vec();
        let found = framing.decode(&mut piece)?;
        assert!(found.start <= found.end && found.end <= found.used && found.used <= piece.len());
        payload.extend_from_slice(&piece[found.start..found.end]);
        used += found.used;
        if found.done {
            assert!(framing.is_done());
            return Ok((payload, used, true));
        }
        assert_eq!(found.used, to - from, "an unfinished body takes every byte");
        from = to;
    }
    Ok((payload, used, framing.is_done()))
}

fn encode(chunks: &[Vec<u8>], extension: &str, trailers: &str) -> (Vec<u8>, Vec<u8>) {
    let (mut raw, mut payload) = (Vec::new(), Vec::new());
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
        raw.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
        raw.extend_from_slice(chunk);
        raw.extend_from_slice(b"\r\n");
        payload.extend_from_slice(chunk);
    }
    raw.extend_from_slice(format!("0{extension}\r\n{trailers}\r\n").as_bytes());
    (raw, payload)
}

#[test]
fn every_split_gives_the_same_payload_and_stops_at_the_same_byte() {
    let chunks = [b"data: 1\n\n".to_vec(), b"\r\n0\r\n\r\n".to_vec(), vec![b'x'; 300]];
    let (mut raw, payload) = encode(&chunks, " ;a=\"b\"", "x-sum: 1\r\ny:\r\n");
    let length = raw.len();
    raw.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    for first in 0..=raw.len() {
        let got = feed(Framing::CHUNKED, &raw, &[first]).unwrap();
        assert_eq!(got, (payload.clone(), length, true), "cut at {first}");
    }
    // A byte at a time, too.
    let all: Vec<usize> = (1..raw.len()).collect();
    assert_eq!(feed(Framing::CHUNKED, &raw, &all).unwrap(), (payload, length, true));
}

#[test]
fn cut_short_is_never_done() {
    let (raw, _) = encode(&[vec![b'x'; 20]], "", "a: b\r\n");
    for end in 0..raw.len() {
        assert!(!feed(Framing::CHUNKED, &raw[..end], &[]).unwrap().2, "at {end}");
    }
    assert!(!feed(Framing::Length(4), b"abc", &[]).unwrap().2);
    assert!(!feed(Framing::UntilClose, b"abc", &[]).unwrap().2);
}

#[test]
fn a_length_takes_no_byte_more() {
    assert_eq!(feed(Framing::Length(3), b"abcdef", &[]).unwrap(), (b"abc".to_vec(), 3, true));
    assert_eq!(feed(Framing::Length(3), b"abcdef", &[1, 2]).unwrap(), (b"abc".to_vec(), 3, true));
    assert!(Framing::EMPTY.is_done());
}

#[test]
fn the_payload_of_one_read_moves_together() {
    let mut raw = *b"1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\nnext";
    let found = Framing::decode(&mut { Framing::CHUNKED }, &mut raw).unwrap();
    assert_eq!(&raw[found.start..found.end], b"abcdef");
    assert_eq!(&raw[found.used..], b"next");
}

#[test]
fn what_could_be_read_two_ways_is_refused() {
    let long_extension = [b"1;".as_slice(), &vec![b'x'; MAX_OVERHEAD as usize + 1], b"\r\na\r\n0\r\n\r\n"].concat();
    let long_trailer = [b"0\r\na:".as_slice(), &vec![b'x'; MAX_OVERHEAD as usize + 1], b"\r\n\r\n"].concat();
    let bad: &[&[u8]] = &[
        b"\r\n",
        b";a\r\n",
        b" 1\r\na\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"1_0\r\n",
        b"g\r\n",
        b"10000000000000000\r\n",
        b"00000000000000001\r\na\r\n",
        b"1\na\r\n",
        b"1\r\r\na",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\na\r0\r\n\r\n",
        b"1;a\nb\r\na\r\n",
        b"1;a\0\r\na\r\n",
        b"1 2\r\n",
        b"0\r\n\n",
        b"0\r\n\rx",
        b"0\r\nno-colon\r\n\r\n",
        b"0\r\n: v\r\n\r\n",
        b"0\r\na : v\r\n\r\n",
        b"0\r\na: v\nb: w\r\n\r\n",
        b"0\r\na: v\r\n folded\r\n\r\n",
        b"0\r\na: \0\r\n\r\n",
        &long_extension,
        &long_trailer,
    ];
    for raw in bad {
        for cut in 0..raw.len().min(40) {
            assert!(feed(Framing::CHUNKED, raw, &[cut]).is_err(), "{:?} cut at {cut}", raw.escape_ascii().to_string());
        }
    }
    // The largest size that can be written is no overflow, only a long wait.
    assert!(!feed(Framing::CHUNKED, b"ffffffffffffffff\r\nabc", &[]).unwrap().2);
}

proptest! {
    #[test]
    fn any_splits_give_the_same(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        extension in prop::sample::select(vec!["", ";", " ", ";x", "\t;n=\"v\""]),
        trailers in prop::sample::select(vec!["", "a: b\r\n", "a:\r\nb: c\r\n"]),
    ) {
        let (mut raw, payload) = encode(&chunks, extension, trailers);
        let length = raw.len();
        raw.extend_from_slice(b"\r\n\r\nrest");
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(raw.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(feed(Framing::CHUNKED, &raw, &cuts), Ok((payload.clone(), length, true)));
        prop_assert_eq!(feed(Framing::Length(length as u64), &raw, &cuts), Ok((raw[..length].to_vec(), length, true)));
    }
}
