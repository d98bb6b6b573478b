//! Names of keys and channels, and the form of messages. Nothing else spells a Redis key.
//!
//! Every key begins with the deployment's prefix. What must be in one slot of a Redis Cluster carries the same hash tag
//! (`{…}`): one tag per limited thing or account, never one for the whole prefix. Messages carry a version and *remaining*
//! milliseconds, never a wall time; kinds and versions that are not known are skipped and counted.

/// Names below one prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: Box<str>,
}

impl Names {
    /// Below `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Who owns the prefix, who beats when, and what each says of itself; in one slot.
    pub(super) fn peers(&self) -> [Vec<u8>; 3] {
        ["owner", "beats", "words"].map(|what| format!("{}:{{peers}}:{what}", self.prefix).into_bytes())
    }

    /// The lease on some work, and the counter of its holders.
    pub(super) fn lease(&self, work: &str) -> [Vec<u8>; 2] {
        ["", ":n"].map(|what| format!("{}:{{lead}}:{work}{what}", self.prefix).into_bytes())
    }

    /// Unknown API keys by address.
    pub(super) fn strikes(&self) -> Vec<u8> {
        format!("{}:{{strikes}}", self.prefix).into_bytes()
    }

    /// Failures and refusal of one address, of all, and the known addresses. Logins are rare: one slot for all of them.
    pub(super) fn logins(&self, address: &str) -> [Vec<u8>; 5] {
        let of = |what: &str| format!("{}:{{login}}:{what}", self.prefix).into_bytes();
        [of(&format!("f:{address}")), of(&format!("r:{address}")), of("f"), of("r"), of("known")]
    }

    /// A finished answer and the claim to make the call; in one slot.
    pub(super) fn answer(&self, fingerprint: &[u8; 32]) -> [Vec<u8>; 2] {
        let hex = blake3::Hash::from_bytes(*fingerprint).to_hex();
        ["a", "c"].map(|what| format!("{}:{{d:{hex}}}:{what}", self.prefix).into_bytes())
    }

    /// The prefix itself: sealed values are bound to it.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What a probe writes to; its own slot.
    pub(super) fn probe(&self) -> Vec<u8> {
        format!("{}:probe", self.prefix).into_bytes()
    }
}
