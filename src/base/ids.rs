//! Newtypes for every identity, and [`Secret`], which does not print.
//!
//! Ids are 64 random bits made by the store; they look like `key_00c4…` outside. A [`RequestId`] is process epoch +
//! counter: rows, events and settlement use only that, never a client's `x-request-id`.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{:016x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(s: &str) -> Result<Self, BadId> {
                let hex = s.strip_prefix(concat!($prefix, "_")).ok_or(BadId)?;
                if hex.len() != 16 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(BadId);
                }
                u64::from_str_radix(hex, 16).map(Self).map_err(|_| BadId)
            }
        }
    };
}

/// Not an id of the expected kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadId;

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an id of this kind")
    }
}

impl std::error::Error for BadId {}

id!(
    /// A caller's API key.
    KeyId,
    "key"
);
id!(
    /// An account with a provider.
    AccountId,
    "acc"
);
id!(
    /// A virtual model.
    VirtualModelId,
    "vm"
);
id!(
    /// A management token.
    TokenId,
    "tok"
);

/// A provider's model name, hashed: the same on every instance. Only models of the catalog get one that is stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ModelId(pub u64);

impl ModelId {
    /// The id of `name` (without the provider): the first 8 bytes of its BLAKE3 hash.
    pub fn of(name: &str) -> Self {
        let hash = blake3::hash(name.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        Self(u64::from_le_bytes(first))
    }
}

/// One request of this process: random epoch of the process + a counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId {
    /// Random per process start.
    pub epoch: u64,
    /// Counts up within the process.
    pub n: u64,
}

/// Makes [`RequestId`]s: one per core, so that counting touches no shared cache line.
#[derive(Debug)]
pub struct RequestIds {
    epoch: u64,
    next: AtomicU64,
    step: u64,
}

impl RequestIds {
    /// The ids of worker `index` of `workers`: they interleave, so no two workers ever make the same.
    pub fn new(epoch: u64, index: usize, workers: usize) -> Self {
        Self { epoch, next: AtomicU64::new(index as u64 + 1), step: workers.max(1) as u64 }
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        RequestId { epoch: self.epoch, n: self.next.fetch_add(self.step, Ordering::Relaxed) }
    }
}

impl RequestId {
    /// As a header's value: one allocation, no formatting machinery (each request does it once).
    pub fn header(self) -> http::HeaderValue {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'0'; 32];
        text[..4].copy_from_slice(b"req_");
        for (place, digit) in text[4..16].iter_mut().zip((0..12).rev()) {
            *place = HEX[(self.epoch >> (digit * 4)) as usize & 15];
        }
        let digits = (64 - self.n.leading_zeros() as usize).div_ceil(4).clamp(10, 16);
        for (place, digit) in text[16..16 + digits].iter_mut().zip((0..digits).rev()) {
            *place = HEX[(self.n >> (digit * 4)) as usize & 15];
        }
        http::HeaderValue::from_bytes(&text[..16 + digits]).unwrap_or_else(|_| http::HeaderValue::from_static("req"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "req_{:012x}{:010x}", self.epoch & 0xffff_ffff_ffff, self.n)
    }
}

impl FromStr for RequestId {
    type Err = BadId;
    fn from_str(s: &str) -> Result<Self, BadId> {
        let hex = s.strip_prefix("req_").ok_or(BadId)?;
        if hex.len() < 22 || hex.len() > 28 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(BadId);
        }
        let (epoch, n) = hex.split_at(12);
        Ok(Self {
            epoch: u64::from_str_radix(epoch, 16).map_err(|_| BadId)?,
            n: u64::from_str_radix(n, 16).map_err(|_| BadId)?,
        })
    }
}

/// A string that no log, error or metric can print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps it.
    pub fn new(value: impl Into<Box<str>>) -> Self {
        Self(value.into())
    }

    /// The value itself: for the one place that puts it on the wire or seals it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_print() {
        let key = KeyId(0x1234);
        assert_eq!(key.to_string(), "key_0000000000001234");
        assert_eq!(key.to_string().parse::<KeyId>(), Ok(key));
        assert!(key.to_string().parse::<AccountId>().is_err(), "a key's id is not an account's");
        let request = RequestIds::new(0xabc_def0_1234, 1, 2).next();
        assert_eq!(request.to_string().parse::<RequestId>(), Ok(request));
        for bad in ["", "req_", "req_zz", "req_+00000000000000000000000", "key_1", "key_+000000000000001"] {
            assert!(bad.parse::<RequestId>().is_err() && bad.parse::<KeyId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn workers_never_make_the_same_request_id() {
        let (a, b) = (RequestIds::new(7, 0, 2), RequestIds::new(7, 1, 2));
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            assert!(seen.insert(a.next()) && seen.insert(b.next()));
        }
    }

    #[test]
    fn a_request_id_is_the_same_in_a_header() {
        for (epoch, n) in [(0, 1), (0xabc_def0_1234, u64::MAX), (u64::MAX, 0x0100_0000_0000), (7, 0xff_ffff_ffff)] {
            let id = RequestId { epoch, n };
            assert_eq!(id.header().to_str().unwrap(), id.to_string());
        }
    }

    #[test]
    fn a_secret_does_not_print() {
        assert!(!format!("{:?}", Secret::new("sk-abc")).contains("abc"));
    }
}
