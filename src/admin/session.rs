//! Sessions as sealed tokens: any instance with the same data key and password opens them, none remembers them.
//!
//! A token holds its id, its end, the revocation epoch it was made in and a fingerprint of the password's hash: a new
//! password ends every session. What ends one early is the gate's to know.

use crate::base::Secret;
use crate::base::seal::{self, DataKey, SealError, Sealer};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// How long a session lasts.
pub(super) const LASTS_MS: u64 = 12 * 60 * 60 * 1000;

const PREFIX: &str = "mds_";
const RECORD: &[u8] = b"session";
const LEN: usize = 32;

/// Seals and opens.
#[derive(Debug)]
pub(super) struct Sessions {
    sealer: Sealer,
    password: [u8; 8],
}

/// What a token says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Session {
    pub(super) id: u64,
    /// The revocation epoch it was made in.
    pub(super) epoch: u64,
    pub(super) expires_ms: u64,
}

impl Sessions {
    /// Under a sub-key of `data`, for the password of that hash.
    pub(super) fn new(data: &DataKey, password_hash: &Secret) -> Result<Self, SealError> {
        let key = data.sub_key("session password")?;
        let mut password = [0; 8];
        password.copy_from_slice(&blake3::keyed_hash(&key, password_hash.reveal().as_bytes()).as_bytes()[..8]);
        Ok(Self { sealer: data.sealer("sessions")?, password })
    }

    /// A new session and its token.
    pub(super) fn issue(&self, epoch: u64, now_ms: u64) -> Result<(Session, Secret), SealError> {
        let session = Session { id: seal::random_u64()?, epoch, expires_ms: now_ms + LASTS_MS };
        let mut plain = [0; LEN];
        for (place, part) in plain.chunks_exact_mut(8).zip([
            session.id.to_le_bytes(),
            session.epoch.to_le_bytes(),
            session.expires_ms.to_le_bytes(),
            self.password,
        ]) {
            place.copy_from_slice(&part);
        }
        let sealed = self.sealer.seal(RECORD, &plain)?;
        Ok((session, Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(sealed)))))
    }

    /// The session of a token, unless it is not one of ours, was made under another password, or is over.
    pub(super) fn open(&self, token: &str, now_ms: u64) -> Option<Session> {
        // A stranger's megabyte is not decoded.
        let text = token.strip_prefix(PREFIX).filter(|text| text.len() <= 128)?;
        let plain = self.sealer.open(RECORD, &URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let plain: [u8; LEN] = plain.try_into().ok()?;
        let word = |n: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&plain[n * 8..n * 8 + 8]);
            bytes
        };
        let number = |n| u64::from_le_bytes(word(n));
        let session = Session { id: number(0), epoch: number(1), expires_ms: number(2) };
        (word(3) == self.password && now_ms < session.expires_ms).then_some(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_on_every_instance_until_it_ends_or_the_password_changes() {
        let data = DataKey::generate().unwrap();
        let here = Sessions::new(&data, &Secret::new("$argon2id$a")).unwrap();
        let there = Sessions::new(&data, &Secret::new("$argon2id$a")).unwrap();
        let (session, token) = here.issue(3, 1_000).unwrap();
        assert_eq!(there.open(token.reveal(), 1_000), Some(session));
        assert_eq!(there.open(token.reveal(), 1_000 + LASTS_MS - 1), Some(session));
        assert_eq!(there.open(token.reveal(), 1_000 + LASTS_MS), None);
        let changed = Sessions::new(&data, &Secret::new("$argon2id$b")).unwrap();
        assert_eq!(changed.open(token.reveal(), 1_000), None, "another password");
        let elsewhere = Sessions::new(&DataKey::generate().unwrap(), &Secret::new("$argon2id$a")).unwrap();
        assert_eq!(elsewhere.open(token.reveal(), 1_000), None, "another deployment");
    }

    #[test]
    fn nothing_else_opens() {
        let sessions = Sessions::new(&DataKey::generate().unwrap(), &Secret::new("h")).unwrap();
        let (_, token) = sessions.issue(0, 0).unwrap();
        let token = token.reveal();
        for n in 0..token.len() {
            let bent: String = token
                .chars()
                .enumerate()
                .map(|(i, c)| {
                    if i != n {
                        c
                    } else if c == 'A' {
                        'B'
                    } else {
                        'A'
                    }
                })
                .collect();
            // The last letter holds spare bits: bent, it is refused as well.
            assert_eq!(sessions.open(&bent, 0), None, "letter {n}");
        }
        for junk in ["", "mds_", "mdm_abc", "mds_💥", &token[..token.len() - 1], &format!("{token}A")] {
            assert_eq!(sessions.open(junk, 0), None, "{junk}");
        }
        assert_eq!(sessions.open(&format!("mds_{}", "A".repeat(1 << 20)), 0), None);
    }
}
