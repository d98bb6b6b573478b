//! What makes two requests the same: one keyed hash over everything that may change the answer.
//!
//! Every field is length-prefixed, so that no two different requests spell the same bytes. The key comes from outside
//! (derived from the deployment's, so that instances agree and nobody else can guess a fingerprint).

use crate::base::KeyId;
use std::net::IpAddr;

/// Keyed BLAKE3 of a request.
pub type Fingerprint = [u8; 32];

/// Makes fingerprints.
#[derive(Clone)]
pub struct Fingerprints {
    key: [u8; 32],
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// The bearer of an API key.
    Key(KeyId),
    /// Nobody we know, from there.
    Address(IpAddr),
}

/// A request, as far as it may change its answer.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who asks.
    pub caller: Caller,
    /// `POST`.
    pub method: &'a str,
    /// As the client wrote them.
    pub path_and_query: &'a str,
    /// `anthropic-version`, `anthropic-beta`, `openai-beta`, … always in the same order; `None` where absent.
    pub versions: &'a [Option<&'a [u8]>],
    /// The `Idempotency-Key`.
    pub idempotency_key: Option<&'a [u8]>,
    /// Digest of the catalog the model is looked up in: the same on all instances that serve alike.
    pub catalog_version: u64,
    /// The whole body, `stream` included.
    pub body: &'a [u8],
}

/// What a request comes to its seat with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The same for the same request only.
    pub fingerprint: Fingerprint,
    /// Set when there is an `Idempotency-Key`.
    pub name: Option<Name>,
}

/// An `Idempotency-Key` and what it was used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name {
    /// Hash of caller and `Idempotency-Key`.
    pub name: [u8; 32],
    /// Hash of method, path, query and body. Not of the catalog's version: a change of ours in between is no
    /// contradiction of the client's.
    pub content: [u8; 32],
}

impl Fingerprints {
    /// Fingerprints under `key`.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// The claim of one request. The body is hashed once: about 1 µs a kilobyte or less.
    pub fn claim(&self, asked: &Asked<'_>) -> Claim {
        let body = blake3::keyed_hash(&self.key, asked.body);
        let mut content = self.fields(b"content");
        content.field(asked.method.as_bytes()).field(asked.path_and_query.as_bytes()).field(body.as_bytes());
        let content = content.done();
        let mut all = self.fields(b"request");
        all.caller(asked.caller).field(&content).versions(asked).optional(asked.idempotency_key);
        let name = asked.idempotency_key.map(|key| {
            let mut name = self.fields(b"name");
            name.caller(asked.caller).field(key);
            Name { name: name.done(), content }
        });
        Claim { fingerprint: all.done(), name }
    }

    /// What must be equal before two questions are compared by meaning: who asks, where, in which versions, for which
    /// model of which catalog, and everything of the request but the question (`rest`). The `Idempotency-Key` and the
    /// body of `asked` do not count.
    pub fn scope(&self, asked: &Asked<'_>, model: &str, rest: &[u8; 32]) -> [u8; 32] {
        let mut all = self.fields(b"scope");
        all.caller(asked.caller).field(asked.method.as_bytes()).field(asked.path_and_query.as_bytes());
        all.field(model.as_bytes()).field(rest).versions(asked);
        all.done()
    }

    fn fields(&self, purpose: &[u8]) -> Fields {
        let mut fields = Fields(blake3::Hasher::new_keyed(&self.key));
        fields.field(purpose);
        fields
    }
}

impl std::fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fingerprints(…)")
    }
}

struct Fields(blake3::Hasher);

impl Fields {
    fn number(&mut self, n: u64) -> &mut Self {
        self.0.update(&n.to_le_bytes());
        self
    }

    fn field(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).0.update(bytes);
        self
    }

    /// Absent is not empty.
    fn optional(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            Some(bytes) => self.field(bytes),
            None => self.number(u64::MAX),
        }
    }

    fn versions(&mut self, asked: &Asked<'_>) -> &mut Self {
        self.number(asked.catalog_version).number(asked.versions.len() as u64);
        for version in asked.versions {
            self.optional(*version);
        }
        self
    }

    fn caller(&mut self, caller: Caller) -> &mut Self {
        match caller {
            Caller::Key(id) => self.number(0).number(id.0),
            Caller::Address(IpAddr::V4(address)) => self.number(4).field(&address.octets()),
            Caller::Address(IpAddr::V6(address)) => self.number(6).field(&address.octets()),
        }
    }

    fn done(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_counts_and_none_runs_into_the_next() {
        let prints = Fingerprints::new([7; 32]);
        let asked = Asked {
            caller: Caller::Key(KeyId(1)),
            method: "POST",
            path_and_query: "/v1/messages",
            versions: &[Some(b"2023-06-01"), None, None],
            idempotency_key: Some(b"abc"),
            catalog_version: 3,
            body: b"{}",
        };
        let claim = prints.claim(&asked);
        assert_eq!(claim, prints.claim(&asked));
        let others = [
            Asked { caller: Caller::Key(KeyId(2)), ..asked },
            Asked { caller: Caller::Address(IpAddr::from([0, 0, 0, 1])), ..asked },
            Asked { method: "GET", ..asked },
            Asked { path_and_query: "/v1/messages?beta", ..asked },
            Asked { versions: &[None, Some(b"2023-06-01"), None], ..asked },
            Asked { versions: &[Some(b"2023-06-01"), Some(b""), None], ..asked },
            Asked { idempotency_key: Some(b"abd"), ..asked },
            Asked { idempotency_key: None, ..asked },
            Asked { catalog_version: 4, ..asked },
            Asked { body: b"{} ", ..asked },
        ];
        let mut all: Vec<_> = others.iter().map(|other| prints.claim(other).fingerprint).collect();
        all.push(claim.fingerprint);
        all.push(Fingerprints::new([8; 32]).claim(&asked).fingerprint);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), others.len() + 2);
    }

    #[test]
    fn a_scope_is_one_callers_and_one_models() {
        let prints = Fingerprints::new([7; 32]);
        let asked = Asked {
            caller: Caller::Key(KeyId(1)),
            method: "POST",
            path_and_query: "/",
            versions: &[None],
            idempotency_key: None,
            catalog_version: 1,
            body: b"",
        };
        let one = prints.scope(&asked, "m", &[0; 32]);
        assert_eq!(one, prints.scope(&Asked { idempotency_key: Some(b"k"), body: b"b", ..asked }, "m", &[0; 32]));
        for other in [
            prints.scope(&Asked { caller: Caller::Key(KeyId(2)), ..asked }, "m", &[0; 32]),
            prints.scope(&Asked { path_and_query: "/x", ..asked }, "m", &[0; 32]),
            prints.scope(&Asked { versions: &[Some(b"v")], ..asked }, "m", &[0; 32]),
            prints.scope(&Asked { catalog_version: 2, ..asked }, "m", &[0; 32]),
            prints.scope(&asked, "n", &[0; 32]),
            prints.scope(&asked, "m", &[1; 32]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_name_is_the_callers_and_tells_bodies_apart() {
        let prints = Fingerprints::new([7; 32]);
        let asked = Asked {
            caller: Caller::Key(KeyId(1)),
            method: "POST",
            path_and_query: "/",
            versions: &[],
            idempotency_key: Some(b"k"),
            catalog_version: 1,
            body: b"a",
        };
        let name = |asked: &Asked<'_>| prints.claim(asked).name.unwrap();
        let (one, body) = (name(&asked), name(&Asked { body: b"b", ..asked }));
        assert!(one.name == body.name && one.content != body.content);
        assert_eq!(one, name(&Asked { catalog_version: 2, ..asked }), "our own change is no contradiction");
        assert_ne!(one.name, name(&Asked { caller: Caller::Key(KeyId(2)), ..asked }).name);
    }
}
