//! Names of keys and channels, and the form of messages. Nothing else spells a Redis key.
//!
//! Every key begins with the deployment's prefix. What must be in one slot of a Redis Cluster carries the same hash tag
//! (`{…}`): one tag per limited thing or account, never one for the whole prefix. Messages carry a version and *remaining*
//! milliseconds, never a wall time; kinds and versions that are not known are skipped and counted.

use crate::base::{AccountId, KeyId, ModelId};
use crate::state::subject::{Net, Subject};

/// Lists of accounts that rests are remembered of; each in a slot of its own.
pub(super) const SHARDS: u64 = 16;

/// The field of an account's own rest in its table.
pub(super) const WHOLE: &str = "account";

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

    /// The stream of live events; all that belongs to it is in one slot.
    pub(super) fn events(&self) -> Vec<u8> {
        format!("{}:{{events}}:stream", self.prefix).into_bytes()
    }

    /// The last number of a writer in that stream.
    pub(super) fn events_writer(&self, epoch: u64) -> Vec<u8> {
        format!("{}:{{events}}:writer:{epoch:x}", self.prefix).into_bytes()
    }

    /// The mark that somebody watches live events.
    pub(super) fn events_watch(&self) -> Vec<u8> {
        format!("{}:{{events}}:watch", self.prefix).into_bytes()
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

    /// The buckets of what is limited.
    pub(super) fn limit(&self, subject: Subject) -> Vec<u8> {
        match subject {
            Subject::Key(key) => format!("{}:{{k{}}}:limit", self.prefix, key.0),
            Subject::Addr(Net::V4(bits)) => format!("{}:{{a{bits:08x}}}:limit", self.prefix),
            Subject::Addr(Net::V6(bits)) => format!("{}:{{a{bits:016x}}}:limit", self.prefix),
        }
        .into_bytes()
    }

    /// What a key has spent.
    pub(super) fn budget(&self, key: KeyId) -> Vec<u8> {
        format!("{}:{{k{}}}:budget", self.prefix, key.0).into_bytes()
    }

    /// What a probe writes to; its own slot.
    pub(super) fn probe(&self) -> Vec<u8> {
        format!("{}:probe", self.prefix).into_bytes()
    }

    /// The channel that all instances listen to.
    pub(super) fn news(&self) -> Vec<u8> {
        format!("{}:news", self.prefix).into_bytes()
    }

    /// The table of an account's rests.
    pub(super) fn rests(&self, account: AccountId) -> Vec<u8> {
        format!("{}:{{{account}}}:rests", self.prefix).into_bytes()
    }

    /// An account's failures since its rest was last cleared.
    pub(super) fn failures(&self, account: AccountId, generation: u32) -> Vec<u8> {
        format!("{}:{{{account}}}:failures:{generation}", self.prefix).into_bytes()
    }

    /// Who makes the half-open trial of an account.
    pub(super) fn trial(&self, account: AccountId) -> Vec<u8> {
        format!("{}:{{{account}}}:trial", self.prefix).into_bytes()
    }

    /// A list of accounts that have rests; `shard` below [`SHARDS`].
    pub(super) fn resting(&self, shard: u64) -> Vec<u8> {
        format!("{}:{{resting-{shard}}}", self.prefix).into_bytes()
    }
}

/// The list that `account` is in.
pub(super) const fn shard(account: AccountId) -> u64 {
    account.0 % SHARDS
}

/// The field of a rest in its account's table.
pub(super) fn field(model: Option<ModelId>) -> String {
    model.map_or_else(|| WHOLE.to_owned(), |model| format!("{:016x}", model.0))
}

/// What [`field`] was made of; an error: nothing of ours.
pub(super) fn model(field: &[u8]) -> Result<Option<ModelId>, ()> {
    if field == WHOLE.as_bytes() {
        return Ok(None);
    }
    let hex = std::str::from_utf8(field).ok().filter(|hex| hex.len() == 16).ok_or(())?;
    u64::from_str_radix(hex, 16).map(|n| Some(ModelId(n))).map_err(drop)
}
