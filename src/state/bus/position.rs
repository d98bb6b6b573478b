//! Where a reader stands: per writer (process epoch) the last sequence number it saw, written `a1b2.57-c3d4.33`.
//!
//! The writer `0` is no process: its number is how far the shared stream was read, in Redis' milliseconds. That tells
//! another instance where to look for what this reader missed, and what of writers it never heard of is older than it.
//!
//! This is an SSE `id:` and comes back as `Last-Event-ID`: hostile input, so its size is bounded and what cannot be
//! read is no position at all.

use std::fmt;

/// Writers in one position at most: more instances than any deployment has; the rest are refused with the whole.
const WRITERS: usize = 64;

/// Sequence numbers by epoch, the one heard last at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    writers: Vec<(u64, u64)>,
    stream_ms: Option<u64>,
}

impl Position {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut all = Self::default();
        for one in text.split('-') {
            let (epoch, seq) = one.split_once('.')?;
            let plain = epoch.bytes().all(|b| b.is_ascii_hexdigit()) && seq.bytes().all(|b| b.is_ascii_digit());
            if !plain {
                return None;
            }
            let (epoch, seq) = (u64::from_str_radix(epoch, 16).ok()?, seq.parse().ok()?);
            if epoch == 0 {
                if all.stream_ms.replace(seq).is_some() {
                    return None;
                }
                continue;
            }
            if all.of(epoch).is_some() || all.writers.len() == WRITERS {
                return None;
            }
            all.writers.push((epoch, seq));
        }
        Some(all)
    }

    /// The last sequence number seen of that writer.
    pub fn of(&self, epoch: u64) -> Option<u64> {
        // From the end: whoever spoke last is the likeliest to speak now.
        self.writers.iter().rev().find(|(known, _)| *known == epoch).map(|(_, seq)| *seq)
    }

    /// Sets it.
    pub fn set(&mut self, epoch: u64, seq: u64) {
        if let Some(at) = self.writers.iter().rposition(|(known, _)| *known == epoch) {
            self.writers[at].1 = seq;
            self.writers[at..].rotate_left(1);
            return;
        }
        if self.writers.len() == WRITERS {
            // Whoever was silent for longest is the likeliest to be gone.
            self.writers.remove(0);
        }
        self.writers.push((epoch, seq));
    }

    /// How far the shared stream was read, in Redis' milliseconds.
    pub fn stream_ms(&self) -> Option<u64> {
        self.stream_ms
    }

    /// It was read as far as that; never back.
    pub fn read_to(&mut self, ms: u64) {
        self.stream_ms = Some(self.stream_ms.map_or(ms, |old| old.max(ms)));
    }

    /// Writers it names.
    pub fn len(&self) -> usize {
        self.writers.len()
    }

    /// It names none.
    pub fn is_empty(&self) -> bool {
        self.writers.is_empty()
    }

    /// Forgets writers.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) {
        self.writers.retain(|(epoch, _)| keep(*epoch));
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (epoch, seq) in self.writers.iter().copied().chain(self.stream_ms.map(|ms| (0, ms))) {
            write!(f, "{}{epoch:x}.{seq}", if first { "" } else { "-" })?;
            first = false;
        }
        Ok(())
    }
}
