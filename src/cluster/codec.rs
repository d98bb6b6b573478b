//! Names of keys and channels, and the form of messages. Nothing else spells a Redis key.
//!
//! Every key begins with the deployment's prefix. What must be in one slot of a Redis Cluster carries the same hash tag
//! (`{…}`): one tag per limited thing or account, never one for the whole prefix. Messages carry a version and *remaining*
//! milliseconds, never a wall time; kinds and versions that are not known are skipped and counted.

use crate::base::{AccountId, KeyId, ModelId};
use crate::state::subject::{Net, Subject};

/// Lists of accounts that rests are remembered of; each in a slot of its own.
pub(super) const SHARDS: u64 = 16;

/// The forms of what lies under a key's buckets and budget. They stand in the keys' names: where two versions of a script
/// run side by side, each has a value of its own and never takes the other's for nothing.
const LIMIT_FORM: u32 = 1;
const BUDGET_FORM: u32 = 1;

/// The field of an account's own rest in its table.
pub(super) const WHOLE: &str = "account";

/// Names below one prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: Box<str>,
    /// Addresses are hashed with it.
    secret: [u8; 32],
}

impl Names {
    /// Below `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into(), secret: [0; 32] }
    }

    /// Addresses are hashed with `secret`, the deployment's own, before they stand in a name.
    pub(super) fn hiding(self, secret: [u8; 32]) -> Self {
        Self { secret, ..self }
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

    /// What an `Idempotency-Key` was used for.
    pub(super) fn named(&self, name: &[u8; 32]) -> Vec<u8> {
        format!("{}:{{n:{}}}", self.prefix, blake3::Hash::from_bytes(*name).to_hex()).into_bytes()
    }

    /// The prefix itself: sealed values are bound to it.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The buckets of what is limited.
    pub(super) fn limit(&self, subject: Subject) -> Vec<u8> {
        match subject {
            Subject::Key(key) => format!("{}:{{k{}}}:limit:{LIMIT_FORM}", self.prefix, key.0),
            Subject::Addr(net) => format!("{}:{{a{}}}:limit:{LIMIT_FORM}", self.prefix, hidden(&self.secret, net)),
        }
        .into_bytes()
    }

    /// What a key has spent.
    pub(super) fn budget(&self, key: KeyId) -> Vec<u8> {
        format!("{}:{{k{}}}:budget:{BUDGET_FORM}", self.prefix, key.0).into_bytes()
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

/// An address as it goes out: whoever reads Redis learns nobody's.
pub(super) fn hidden(secret: &[u8; 32], net: Net) -> String {
    let hash = match net {
        Net::V4(bits) => blake3::keyed_hash(secret, &bits.to_be_bytes()),
        Net::V6(bits) => blake3::keyed_hash(secret, &bits.to_be_bytes()),
    };
    hash.to_hex()[..24].to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_shows_an_address_and_each_deployment_has_its_own() {
        let names = |secret| Names::new("p").hiding([secret; 32]);
        let limit = |secret, net| String::from_utf8(names(secret).limit(Subject::Addr(net))).unwrap();
        let (four, six) = (Net::V4(0x0a0b_0c0d), Net::V6(0x2001_0db8_0001_0002));
        assert_eq!(limit(1, four), limit(1, four));
        let all = [limit(1, four), limit(2, four), limit(1, six), limit(1, Net::V6(0x0a0b_0c0d))];
        assert!(all.iter().all(|one| !one.contains("0a0b0c0d") && !one.contains("20010db8")), "{all:?}");
        assert!((1..all.len()).all(|n| !all[..n].contains(&all[n])), "{all:?}");
    }
}
