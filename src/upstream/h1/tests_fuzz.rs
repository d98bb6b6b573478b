//! A seeded mutational fuzz of head and framing: never a panic, never a byte too many, never a different reading because
//! the stream was cut elsewhere.
//!
//! `MERIDO_FUZZ_ITERATIONS` raises the count, `MERIDO_FUZZ_SEED` replays one failing input (its seed is in the message).

use super::framing::Framing;
use super::head::Finder;
use super::tests_framing::feed;
use super::tests_head::read;
use http::Method;

/// xorshift: a fuzzer needs no better, and replays from one number.
pub(in crate::upstream) struct Random(u64);

impl Random {
    pub(in crate::upstream) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(in crate::upstream) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }
}

pub(in crate::upstream) const CORPUS: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"a\":\"bcd\"}",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nx: y\r\n\r\nA\r\n0123456789\r\n0\r\nsum: 1\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nserver: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\n{}",
    b"HTTP/1.0 200 OK\r\nserver: old\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
];

const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"0",
    b"-",
    b"+",
    b"f",
    b"0\r\n\r\n",
    b"\r\n\r\n",
    b"\xff",
    b"transfer-encoding: chunked\r\n",
    b"content-length: 3\r\n",
    b"ffffffffffffffff",
    b"connection: close\r\n",
    b"HTTP/1.1",
    b"chunked",
    b"\r\n ",
];

pub(in crate::upstream) fn mutate(raw: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(raw.len() + 1);
        match random.below(6) {
            0 => {
                if let Some(byte) = raw.get_mut(at) {
                    *byte = random.below(256) as u8;
                }
            }
            1 => raw.truncate(at),
            2 => drop(raw.drain(at..(at + 1 + random.below(8)).min(raw.len()).max(at))),
            3 => {
                let other = CORPUS[random.below(CORPUS.len())];
                let from = random.below(other.len());
                raw.splice(at..at, other[from..(from + random.below(30)).min(other.len())].iter().copied());
            }
            _ => drop(raw.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied())),
        }
    }
}

fn one(seed: u64) {
    let mut random = Random::new(seed);
    let mut raw = CORPUS[random.below(CORPUS.len())].to_vec();
    mutate(&mut raw, &mut random);
    let mut cuts: Vec<usize> = (0..random.below(6)).map(|_| random.below(raw.len() + 1)).collect();
    cuts.sort_unstable();

    // The head's end is the same however the stream was cut.
    let whole = Finder::default().find(&raw);
    let mut finder = Finder::default();
    let in_pieces = cuts
        .iter()
        .chain([&raw.len()])
        .map(|cut| finder.find(&raw[..*cut]))
        .find(|found| !matches!(found, Ok(None)))
        .unwrap_or(Ok(None));
    assert_eq!(whole, in_pieces, "seed {seed}");

    let method = if random.below(8) == 0 { Method::HEAD } else { Method::POST };
    let framing = match read(&raw, &method) {
        Ok(Some((head, length))) => {
            raw.drain(..length);
            head.framing
        }
        // Whatever it is, it may also be the inside of a body.
        _ => Framing::CHUNKED,
    };
    let mut cuts: Vec<usize> = (0..random.below(6)).map(|_| random.below(raw.len() + 1)).collect();
    cuts.sort_unstable();
    assert_eq!(feed(framing, &raw, &[]), feed(framing, &raw, &cuts), "seed {seed}");
}

#[test]
fn no_mutant_panics_or_reads_differently_when_cut() {
    let set = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = set("MERIDO_FUZZ_SEED") {
        return one(seed);
    }
    (0..set("MERIDO_FUZZ_ITERATIONS").unwrap_or(200_000)).for_each(one);
}
