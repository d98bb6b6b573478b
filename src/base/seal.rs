//! Sealing secrets, hashing keys, making random ones. Pure: the master key comes in, no file is read or written here.
//!
//! Two levels: the *master key* (the operator's, 32 bytes) only ever wraps a random *data key*, which lies wrapped in
//! the store; everything else is sealed under sub-keys of the data key, one per purpose. So changing the master key
//! rewraps one value, and instances that hold the old and the new one still agree on every record.
//!
//! When it fails: [`SealError`], which says nothing about the bytes involved. No type in here prints what it holds.

use base64::Engine as _;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::sync::LazyLock;

/// First byte of everything sealed here.
const VERSION: u8 = 1;
const HEADER: usize = 2;
const TAG: usize = 16;
const KEY_LETTERS: usize = 40;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What can go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealError {
    /// The system's random source failed.
    Random,
    /// Not sealed here, not under this key, not for this record, or changed since.
    Unreadable,
    /// A master key must be the base64 of exactly 32 bytes.
    BadKey,
}

/// The operator's key: wraps and unwraps the data key, nothing else.
#[derive(Clone)]
pub struct MasterKey {
    sealer: Sealer,
}

/// The deployment's own random key. Lives in memory only; the store holds it wrapped.
#[derive(Clone)]
pub struct DataKey([u8; 32]);

/// Seals and opens records for one purpose.
#[derive(Clone)]
pub struct Sealer {
    key: LessSafeKey,
    id: u8,
}

impl MasterKey {
    /// From the base64 of 32 bytes, surrounding blanks ignored.
    pub fn from_base64(text: &str) -> Result<Self, SealError> {
        let text = text.trim().trim_end_matches('=');
        let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).map_err(|_| SealError::BadKey)?;
        Self::from_bytes(&bytes)
    }

    /// From 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        if bytes.len() != 32 {
            return Err(SealError::BadKey);
        }
        // The id is no secret: one byte of a hash, so that a record says which master key it waits for.
        let id = blake3::derive_key("merido master key id v1", bytes)[0];
        Ok(Self { sealer: Sealer { key: expand(bytes, "master-wrap")?, id } })
    }

    /// A new one, as the base64 an operator keeps.
    pub fn generate_base64() -> Result<String, SealError> {
        Ok(base64::engine::general_purpose::STANDARD.encode(random_bytes::<32>()?))
    }

    /// The data key as the store may hold it.
    pub fn wrap(&self, data: &DataKey, deployment: &[u8]) -> Result<Vec<u8>, SealError> {
        self.sealer.seal(deployment, &data.0)
    }

    /// The data key out of [`MasterKey::wrap`]; [`SealError::Unreadable`] under another master key or deployment.
    pub fn unwrap_key(&self, wrapped: &[u8], deployment: &[u8]) -> Result<DataKey, SealError> {
        let plain = self.sealer.open(deployment, wrapped)?;
        plain.as_slice().try_into().map(DataKey).map_err(|_| SealError::Unreadable)
    }
}

impl DataKey {
    /// A new one.
    pub fn generate() -> Result<Self, SealError> {
        Ok(Self(random_bytes()?))
    }

    /// The sealer of `purpose`: records of one purpose cannot be opened as another's.
    pub fn sealer(&self, purpose: &str) -> Result<Sealer, SealError> {
        Ok(Sealer { key: expand(&self.0, purpose)?, id: 0 })
    }

    /// 32 bytes for a keyed hash of `purpose`.
    pub fn sub_key(&self, purpose: &str) -> Result<[u8; 32], SealError> {
        let mut out = [0; 32];
        Salt::new(HKDF_SHA256, b"merido sub-key v1")
            .extract(&self.0)
            .expand(&[purpose.as_bytes()], HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut out))
            .map_err(|_| SealError::Unreadable)?;
        Ok(out)
    }

    /// A key of its own below this one, for whoever needs many sealers of one purpose (one a record, so that nonces of
    /// two records never meet under one key).
    pub fn child(&self, purpose: &str) -> Result<Self, SealError> {
        self.sub_key(purpose).map(Self)
    }

    /// 8 bytes that tell two deployments apart and betray nothing of the key. A new master key leaves it as it is.
    pub fn fingerprint(&self) -> [u8; 8] {
        let mut out = [0; 8];
        out.copy_from_slice(&blake3::derive_key("merido data key fingerprint v1", &self.0)[..8]);
        out
    }
}

impl Sealer {
    /// `version · key id · nonce · ciphertext · tag`. `aad` names the record (table and row id): the result opens
    /// nowhere else, so a row copied over another is refused.
    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_LEN] = random_bytes()?;
        let mut body = Vec::with_capacity(plain.len() + TAG);
        body.extend_from_slice(plain);
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound(self.id, aad)), &mut body)
            .map_err(|_| SealError::Unreadable)?;
        let mut out = Vec::with_capacity(HEADER + NONCE_LEN + body.len());
        out.extend_from_slice(&[VERSION, self.id]);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&body);
        Ok(out)
    }

    /// What [`Sealer::seal`] was given, if key and `aad` are the same and no bit changed.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        if sealed.len() < HEADER + NONCE_LEN + TAG || sealed[0] != VERSION || sealed[1] != self.id {
            return Err(SealError::Unreadable);
        }
        let (head, body) = sealed.split_at(HEADER + NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&head[HEADER..]).map_err(|_| SealError::Unreadable)?;
        let mut body = body.to_vec();
        let len = self
            .key
            .open_in_place(nonce, Aad::from(bound(self.id, aad)), &mut body)
            .map_err(|_| SealError::Unreadable)?
            .len();
        body.truncate(len);
        Ok(body)
    }
}

fn bound(id: u8, aad: &[u8]) -> Vec<u8> {
    [&[VERSION, id], aad].concat()
}

fn expand(key: &[u8], purpose: &str) -> Result<LessSafeKey, SealError> {
    Salt::new(HKDF_SHA256, b"merido seal v1")
        .extract(key)
        .expand(&[purpose.as_bytes()], &AES_256_GCM)
        .map(|okm| LessSafeKey::new(UnboundKey::from(okm)))
        .map_err(|_| SealError::Unreadable)
}

/// What the store and the directory know of an API key. Keyed with a derived constant: a hash of ours means nothing
/// elsewhere, and the hot path pays for one block only. No salt: a key is 238 random bits.
pub fn key_hash(key: &str) -> [u8; 32] {
    static CONTEXT: LazyLock<[u8; 32]> = LazyLock::new(|| blake3::derive_key("merido api key hash v1", b""));
    *blake3::keyed_hash(&CONTEXT, key.as_bytes()).as_bytes()
}

/// What the store knows of a management token.
pub fn token_hash(token: &str) -> [u8; 32] {
    static CONTEXT: LazyLock<[u8; 32]> = LazyLock::new(|| blake3::derive_key("merido management token hash v1", b""));
    *blake3::keyed_hash(&CONTEXT, token.as_bytes()).as_bytes()
}

/// A new API key: `mrd_` + 40 letters of base62.
pub fn new_api_key() -> Result<String, SealError> {
    random_name("mrd_")
}

/// A new management token: `mdm_` + 40 letters of base62.
pub fn new_management_token() -> Result<String, SealError> {
    random_name("mdm_")
}

/// Random bytes of the system.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], SealError> {
    let mut out = [0; N];
    SystemRandom::new().fill(&mut out).map_err(|_| SealError::Random)?;
    Ok(out)
}

/// A random id; never 0, which stands for "none" and "built in".
pub fn random_u64() -> Result<u64, SealError> {
    Ok(u64::from_le_bytes(random_bytes()?).max(1))
}

fn random_name(prefix: &str) -> Result<String, SealError> {
    let mut name = String::with_capacity(prefix.len() + KEY_LETTERS);
    name.push_str(prefix);
    loop {
        for byte in random_bytes::<64>()? {
            if name.len() == prefix.len() + KEY_LETTERS {
                return Ok(name);
            }
            // 248 = 4 · 62: a byte above it would make the first letters likelier than the others.
            if byte < 248 {
                name.push(char::from(BASE62[usize::from(byte % 62)]));
            }
        }
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random => "the system's random source failed",
            Self::Unreadable => "sealed under another key, for another record, or changed since",
            Self::BadKey => "must be the base64 of exactly 32 bytes",
        })
    }
}

impl std::error::Error for SealError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_under_its_key_for_its_record_and_unchanged() {
        let data = DataKey::generate().unwrap();
        let sealer = data.sealer("accounts").unwrap();
        let sealed = sealer.seal(b"accounts/1", b"sk-secret").unwrap();
        assert_eq!(sealer.open(b"accounts/1", &sealed).unwrap(), b"sk-secret");
        assert_ne!(sealed, sealer.seal(b"accounts/1", b"sk-secret").unwrap(), "a nonce of its own each time");
        assert!(!sealed.windows(9).any(|w| w == b"sk-secret"));
        assert_eq!(sealer.open(b"accounts/2", &sealed), Err(SealError::Unreadable), "bound to its row");
        assert!(data.sealer("sessions").unwrap().open(b"accounts/1", &sealed).is_err(), "bound to its purpose");
        assert!(DataKey::generate().unwrap().sealer("accounts").unwrap().open(b"accounts/1", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert!(sealer.open(b"accounts/1", &bent).is_err(), "byte {at}");
            assert!(sealer.open(b"accounts/1", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_new_master_key_rewraps_the_same_data_key() {
        let (old, new) = (MasterKey::generate_base64().unwrap(), MasterKey::generate_base64().unwrap());
        let (old, new) = (MasterKey::from_base64(&old).unwrap(), MasterKey::from_base64(&format!(" {new}\n")).unwrap());
        let data = DataKey::generate().unwrap();
        let wrapped = old.wrap(&data, b"d1").unwrap();
        assert!(new.unwrap_key(&wrapped, b"d1").is_err());
        assert!(old.unwrap_key(&wrapped, b"d2").is_err(), "another deployment's");
        let rewrapped = new.wrap(&old.unwrap_key(&wrapped, b"d1").unwrap(), b"d1").unwrap();
        let again = new.unwrap_key(&rewrapped, b"d1").unwrap();
        assert_eq!(again.fingerprint(), data.fingerprint());
        assert_eq!(again.sub_key("dedup").unwrap(), data.sub_key("dedup").unwrap());
        assert_ne!(again.sub_key("dedup").unwrap(), data.sub_key("events").unwrap());
        for bad in ["", "AAAA", "not base64!", &"A".repeat(44)] {
            assert_eq!(MasterKey::from_base64(bad).err(), Some(SealError::BadKey), "{bad}");
        }
    }

    #[test]
    fn keys_have_their_form_and_every_letter_is_as_likely() {
        let mut seen = [0u32; 62];
        for _ in 0..2_000 {
            let key = new_api_key().unwrap();
            assert!(key.len() == 44 && key.starts_with("mrd_"), "{key}");
            for byte in key.bytes().skip(4) {
                seen[BASE62.iter().position(|b| *b == byte).unwrap()] += 1;
            }
        }
        // 80,000 letters, 1,290 of each expected, σ = 36: eight of them is out of reach by chance. A plain `% 62`
        // makes the first eight letters 25 % likelier (1,560).
        assert!(seen.iter().all(|n| (1_002..1_578).contains(n)), "{seen:?}");
        let first: u32 = seen[..8].iter().sum();
        assert!((9_700..10_950).contains(&first), "{first}");
        assert!(new_management_token().unwrap().starts_with("mdm_"));
        assert_ne!(key_hash("mrd_a"), token_hash("mrd_a"));
    }
}
