//! The form in which finished answers lie in Redis: packed, compressed, sealed.
//!
//! Each fingerprint has a key of its own below the deployment's, and the seal is bound to form, prefix and fingerprint:
//! a value that was changed, copied under another name or written by a stranger does not open. Whatever can't be read is
//! a miss, never an error. Sizes are bounded before anything is unpacked.

use crate::base::seal::{DataKey, Sealer};
use crate::state::answer::{Answer, Head};
use crate::state::dedup::{Fingerprint, LARGEST};
use bytes::{Buf as _, BufMut as _, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::sync::Arc;

/// Changes with the layout: values of another form are misses.
const FORM: &str = "merido answer 1";
/// Unpacked bytes at most: an answer's memory is counted more generously than its packed form.
const UNPACKED: usize = LARGEST * 2;

/// Packs and unpacks the answers of one deployment under one prefix.
pub(super) struct Answers {
    key: DataKey,
    prefix: Box<str>,
}

impl Answers {
    pub(super) fn new(key: DataKey, prefix: &str) -> Self {
        Self { key, prefix: prefix.into() }
    }

    /// `None`: it can't be shared.
    pub(super) fn pack(&self, fingerprint: &Fingerprint, answer: &Answer) -> Option<Vec<u8>> {
        let mut plain = Vec::with_capacity(answer.bytes());
        plain.put_u16(answer.head.status.as_u16());
        plain.put_u16(u16::try_from(answer.head.headers.len()).ok()?);
        for (name, value) in &answer.head.headers {
            for part in [name.as_str().as_bytes(), value.as_bytes()] {
                plain.put_u16(u16::try_from(part.len()).ok()?);
                plain.put_slice(part);
            }
        }
        plain.put_slice(&answer.body);
        let small = lz4_flex::block::compress_prepend_size(&plain);
        self.sealer(fingerprint)?.seal(&self.bound(fingerprint), &small).ok()
    }

    /// `None`: not ours, not this one, or changed since.
    pub(super) fn unpack(&self, fingerprint: &Fingerprint, sealed: &[u8]) -> Option<Answer> {
        let small = self.sealer(fingerprint)?.open(&self.bound(fingerprint), sealed).ok()?;
        let (size, packed) = lz4_flex::block::uncompressed_size(&small).ok()?;
        if size > UNPACKED {
            return None;
        }
        let mut plain = Bytes::from(lz4_flex::block::decompress(packed, size).ok()?);
        let status = StatusCode::from_u16(plain.try_get_u16().ok()?).ok()?;
        let count = plain.try_get_u16().ok()?;
        let mut headers = HeaderMap::new();
        for _ in 0..count {
            let name = HeaderName::from_bytes(&part(&mut plain)?).ok()?;
            // Copied: a slice kept for its header would keep all the rest.
            headers.append(name, HeaderValue::from_bytes(&part(&mut plain)?).ok()?);
        }
        Some(Answer { head: Arc::new(Head { status, headers }), body: plain })
    }

    fn sealer(&self, fingerprint: &Fingerprint) -> Option<Sealer> {
        self.key.sealer(&blake3::Hash::from_bytes(*fingerprint).to_hex()).ok()
    }

    fn bound(&self, fingerprint: &Fingerprint) -> Vec<u8> {
        [FORM.as_bytes(), b"\0", self.prefix.as_bytes(), b"\0", fingerprint].concat()
    }
}

fn part(plain: &mut Bytes) -> Option<Bytes> {
    let length = usize::from(plain.try_get_u16().ok()?);
    (plain.len() >= length).then(|| plain.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{CONTENT_TYPE, SET_COOKIE};

    fn answer(body: &[u8]) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.append(SET_COOKIE, HeaderValue::from_static("a=1"));
        headers.append(SET_COOKIE, HeaderValue::from_bytes(b"b=\xff").unwrap());
        Answer { head: Arc::new(Head { status: StatusCode::CREATED, headers }), body: Bytes::copy_from_slice(body) }
    }

    #[test]
    fn what_is_packed_comes_back_and_nothing_else_does() {
        let key = DataKey::generate().unwrap();
        let answers = Answers::new(key.clone(), "p");
        for body in [vec![], b"{\"a\":1}".to_vec(), vec![b'x'; 200 << 10]] {
            let sealed = answers.pack(&[7; 32], &answer(&body)).unwrap();
            assert_eq!(answers.unpack(&[7; 32], &sealed), Some(answer(&body)));
            assert!(sealed.len() < body.len() / 50 + 200, "{} bytes of {}", sealed.len(), body.len());
        }
        let sealed = answers.pack(&[7; 32], &answer(b"secret text")).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(answers.unpack(&[8; 32], &sealed), None, "bound to its fingerprint");
        assert_eq!(Answers::new(key, "q").unpack(&[7; 32], &sealed), None, "bound to its prefix");
        let stranger = Answers::new(DataKey::generate().unwrap(), "p");
        assert_eq!(stranger.unpack(&[7; 32], &sealed), None);
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert_eq!(answers.unpack(&[7; 32], &bent), None, "byte {at}");
            assert_eq!(answers.unpack(&[7; 32], &sealed[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn what_unpacks_to_too_much_or_to_nonsense_is_a_miss() {
        let answers = Answers::new(DataKey::generate().unwrap(), "p");
        let seal = |plain: &[u8]| answers.sealer(&[1; 32]).unwrap().seal(&answers.bound(&[1; 32]), plain).unwrap();
        let bomb = lz4_flex::block::compress_prepend_size(&vec![0; UNPACKED + 1]);
        assert_eq!(answers.unpack(&[1; 32], &seal(&bomb)), None);
        for nonsense in [&b""[..], b"\xff\xff\xff\xff", b"\x04\0\0\0", &[0; 40]] {
            assert_eq!(answers.unpack(&[1; 32], &seal(nonsense)), None);
        }
        for plain in [&b"\0\xc8\0\x05"[..], b"\0\xc8\0\x01\0\x09short", b"\0\x01\0\0"] {
            assert_eq!(answers.unpack(&[1; 32], &seal(&lz4_flex::block::compress_prepend_size(plain))), None);
        }
    }
}
