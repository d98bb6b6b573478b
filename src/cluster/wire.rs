//! The form of messages between instances: version, sender, then entries of (kind, length, bytes), then a MAC over all.
//!
//! Times are *remaining* milliseconds. Who may publish to Redis is not thereby one of us: the MAC is made with a key of the
//! deployment's, and a message without it is refused whole. What another instance writes is hostile input all the same:
//! it is bounded when read, a message of another version is skipped whole, an entry of an unknown kind or form is skipped
//! alone, and all are counted by the reader. A message that was heard can be said again by whoever heard it: within its
//! time a rest that was cleared is kept out by its generation, any other is as it was. Numbers are little-endian.

use crate::base::{AccountId, ModelId, Now};
use crate::state::delta::Delta;
use crate::state::news::Kind;
use crate::state::rest::{Reason, Rest};
use std::time::Duration;

/// The version this build speaks. A later build that must change what an entry means uses a new *kind*.
const VERSION: u8 = 2;

/// Bytes of a MAC.
const MAC: usize = 32;

/// Nobody rests longer than this by another instance's word.
const LONGEST: Duration = Duration::from_secs(62 * 24 * 3600);

/// Bytes of a rest.
const REST: usize = 39;

/// How this instance is known to the others: its epoch, and the deployment's key for messages.
#[derive(Clone, Copy)]
pub(super) struct Voice {
    pub(super) epoch: u64,
    pub(super) secret: [u8; 32],
}

/// A message being written.
pub(super) struct Writer {
    bytes: Vec<u8>,
    secret: [u8; 32],
}

/// Why a message is not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unread {
    /// Not in a version that is known here.
    Version,
    /// Whoever wrote it does not know the deployment's key.
    Forged,
}

/// A message being read.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    /// Who sent it.
    pub(super) epoch: u64,
    rest: &'a [u8],
}

/// A rest without an anchor in time, as it travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Remaining {
    pub(super) generation: u32,
    /// Milliseconds until it ends, below zero when it has; of no meaning in a tombstone.
    pub(super) left: i64,
    pub(super) level: u8,
    pub(super) reason: Reason,
    /// Milliseconds for which it must be remembered.
    pub(super) keep: u64,
}

impl Writer {
    /// From this instance.
    pub(super) fn new(voice: Voice) -> Self {
        let mut bytes = vec![VERSION];
        bytes.extend(voice.epoch.to_le_bytes());
        Self { bytes, secret: voice.secret }
    }

    /// One entry more. What is longer than an entry can be is left out.
    pub(super) fn entry(&mut self, kind: Kind, body: &[u8]) {
        let Ok(length) = u16::try_from(body.len()) else { return };
        self.bytes.push(kind.0);
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(body);
    }

    /// A rest.
    pub(super) fn rest(&mut self, delta: &Delta, now: Now) {
        let remaining = Remaining::of(&delta.rest, now);
        let mut body = [0; REST];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            body[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&delta.account.0.to_le_bytes());
        put(&[u8::from(delta.model.is_some())]);
        put(&delta.model.map_or(0, |model| model.0).to_le_bytes());
        put(&remaining.generation.to_le_bytes());
        put(&remaining.left.to_le_bytes());
        put(&[remaining.level, remaining.reason as u8]);
        put(&remaining.keep.to_le_bytes());
        self.entry(Kind::RESTS, &body);
    }

    /// As sent.
    pub(super) fn bytes(mut self) -> Vec<u8> {
        let mac = blake3::keyed_hash(&self.secret, &self.bytes);
        self.bytes.extend(mac.as_bytes());
        self.bytes
    }
}

impl<'a> Reader<'a> {
    /// A message as it came; read only if it was made with `secret`.
    pub(super) fn new(message: &'a [u8], secret: &[u8; 32]) -> Result<Self, Unread> {
        if message.first() != Some(&VERSION) {
            return Err(Unread::Version);
        }
        let (said, mac) = message.split_last_chunk::<MAC>().ok_or(Unread::Forged)?;
        // Compared in constant time.
        if blake3::keyed_hash(secret, said) != blake3::Hash::from_bytes(*mac) {
            return Err(Unread::Forged);
        }
        let (epoch, rest) = said[1..].split_first_chunk::<8>().ok_or(Unread::Forged)?;
        Ok(Self { epoch: u64::from_le_bytes(*epoch), rest })
    }
}

impl<'a> Iterator for Reader<'a> {
    /// `None`: it breaks off in the middle of an entry; nothing follows.
    type Item = Option<(Kind, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.rest.split_first_chunk::<3>().and_then(|(&[kind, low, high], rest)| {
            let (body, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
            Some((Kind(kind), body, rest))
        });
        self.rest = entry.map_or(&[], |(_, _, rest)| rest);
        Some(entry.map(|(kind, body, _)| (kind, body)))
    }
}

/// A rest as [`Writer::rest`] writes it; `None`: in no form that is known here.
pub(super) fn delta(mut body: &[u8], now: Now) -> Option<Delta> {
    fn number<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
        let (number, rest) = body.split_first_chunk::<N>()?;
        *body = rest;
        Some(*number)
    }
    let body = &mut body;
    let account = AccountId(u64::from_le_bytes(number(body)?));
    let [has_model] = number(body)?;
    let model = ModelId(u64::from_le_bytes(number(body)?));
    let model = match has_model {
        0 => None,
        1 => Some(model),
        _ => return None,
    };
    let generation = u32::from_le_bytes(number(body)?);
    let left = i64::from_le_bytes(number(body)?);
    let [level, reason] = number(body)?;
    let reason = Reason::from_u8(reason)?;
    // Later builds may add to the end.
    let keep = u64::from_le_bytes(number(body)?);
    let rest = Remaining { generation, left, level, reason, keep }.from(now);
    Some(Delta { account, model, rest, since: Delta::LONG_AGO })
}

impl Remaining {
    /// As seen at `now`.
    pub(super) fn of(rest: &Rest, now: Now) -> Self {
        let ahead = millis(now.until(rest.until));
        let left = if ahead > 0 { ahead } else { -millis(rest.until.until(now)) };
        let left = if rest.is_live() { left } else { 0 };
        let keep = millis(now.until(rest.keep)).unsigned_abs();
        Self { generation: rest.generation, left, level: rest.level, reason: rest.reason, keep }
    }

    /// As it is here, when read at `now`.
    pub(super) fn from(self, now: Now) -> Rest {
        let longest = LONGEST.as_millis() as u64;
        let by = Duration::from_millis(self.left.unsigned_abs().min(longest));
        let keep = now + Duration::from_millis(self.keep.min(longest));
        let (generation, level, reason) = (self.generation, self.level, self.reason);
        if reason == Reason::Cleared {
            return Rest { generation, keep, ..Rest::NONE };
        }
        let until = if self.left < 0 { now - by } else { now + by };
        let until = until.max(Now::from_nanos(1));
        Rest { generation, until, level: level.min(24), reason, keep: until }
    }
}

/// Whole milliseconds, rounded up: nobody comes back too early for it.
fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const T0: Now = Now::from_nanos(3_600_000_000_000);

    const KEY: [u8; 32] = [9; 32];
    const VOICE: Voice = Voice { epoch: 7, secret: KEY };

    fn written(deltas: &[Delta], now: Now) -> Vec<u8> {
        let mut message = Writer::new(VOICE);
        for delta in deltas {
            message.rest(delta, now);
        }
        message.bytes()
    }

    #[test]
    fn a_rest_arrives_with_the_time_it_has_left_whatever_the_clocks_say() {
        let live =
            Rest { generation: 3, until: T0 + 1500 * MS, level: 2, reason: Reason::Failing, keep: T0 + 1500 * MS };
        let trial = Rest { until: T0 - 400 * MS, keep: T0 - 400 * MS, ..live };
        let cleared = Rest { generation: 4, keep: T0 + 1_800_000 * MS, ..Rest::NONE };
        let all = [(None, live), (Some(ModelId(9)), trial), (Some(ModelId(0)), cleared)].map(|(model, rest)| Delta {
            account: AccountId(5),
            model,
            rest,
            since: Delta::LONG_AGO,
        });
        let there = Now::from_nanos(9_000_000_000_000);
        let message = written(&all, T0);
        let reader = Reader::new(&message, &KEY).unwrap();
        assert_eq!(reader.epoch, 7);
        let got: Vec<_> = reader.map(|entry| delta(entry.unwrap().1, there).unwrap()).collect();
        let shifted = |now: Now, of: Now| if of > T0 { now + T0.until(of) } else { now - of.until(T0) };
        for (sent, got) in all.iter().zip(&got) {
            let mut want = *sent;
            if sent.rest.is_live() {
                want.rest.until = shifted(there, sent.rest.until);
            }
            want.rest.keep = shifted(there, sent.rest.keep);
            assert_eq!(*got, want);
        }
    }

    #[test]
    fn other_versions_and_kinds_are_skipped_and_nothing_after_them_is_lost() {
        let one = Delta { account: AccountId(1), model: None, rest: Rest::NONE, since: Delta::LONG_AGO };
        let mut message = Writer::new(VOICE);
        message.entry(Kind(250), b"from the future");
        message.rest(&one, T0);
        let mut bytes = message.bytes();
        let kinds: Vec<_> = Reader::new(&bytes, &KEY).unwrap().map(|entry| entry.unwrap().0).collect();
        assert_eq!(kinds, [Kind(250), Kind::RESTS]);
        let mut broken = Writer::new(VOICE);
        broken.rest(&one, T0);
        broken.bytes.push(1);
        assert_eq!(Reader::new(&broken.bytes(), &KEY).unwrap().last(), Some(None), "it breaks off");
        bytes[0] = VERSION + 1;
        assert_eq!(Reader::new(&bytes, &KEY).unwrap_err(), Unread::Version);
        let body = [0xff; REST];
        assert_eq!(delta(&body, T0), None, "no such reason");
    }

    #[test]
    fn what_was_not_said_by_one_of_us_is_refused_whole() {
        let one = Delta { account: AccountId(1), model: None, rest: Rest::NONE, since: Delta::LONG_AGO };
        let bytes = written(&[one], T0);
        assert!(Reader::new(&bytes, &KEY).is_ok());
        assert_eq!(Reader::new(&bytes, &[8; 32]).unwrap_err(), Unread::Forged, "another deployment's");
        for at in 1..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            assert_eq!(Reader::new(&bent, &KEY).unwrap_err(), Unread::Forged, "byte {at}");
            assert_eq!(Reader::new(&bytes[..at], &KEY).unwrap_err(), Unread::Forged, "cut at {at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn nothing_that_arrives_panics_or_rests_anybody_for_ever(
            mut bytes in prop::collection::vec(any::<u8>(), 0..120),
            valid in any::<bool>(),
        ) {
            if valid && bytes.len() > 12 {
                bytes[0] = VERSION;
                bytes[9] = Kind::RESTS.0;
                bytes[10..12].copy_from_slice(&(REST as u16).to_le_bytes());
                bytes = Writer { bytes, secret: KEY }.bytes();
            }
            for entry in Reader::new(&bytes, &KEY).into_iter().flatten().flatten() {
                if let Some(delta) = delta(entry.1, T0) {
                    prop_assert!(delta.rest.until <= T0 + LONGEST && delta.rest.keep <= T0 + LONGEST);
                    prop_assert!(delta.rest.level <= 24);
                    // And it can be said again.
                    let mut again = Writer::new(VOICE);
                    again.rest(&delta, T0);
                }
            }
        }
    }
}
