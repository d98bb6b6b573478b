//! Where a reader stands: per writer (process epoch) the last sequence number it saw, written `a1b2.57-c3d4.33`.
//!
//! This is an SSE `id:` and comes back as `Last-Event-ID`: hostile input, so its size is bounded and what cannot be
//! read is no position at all. Epochs of other instances ride along untouched.

use std::fmt;

/// Writers in one position at most: more instances than any deployment has; the rest are refused with the whole.
const WRITERS: usize = 64;

/// Sequence numbers by epoch, in the order they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position(Vec<(u64, u64)>);

impl Position {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut all = Vec::new();
        for one in text.split('-') {
            let (epoch, seq) = one.split_once('.')?;
            let plain = epoch.bytes().all(|b| b.is_ascii_hexdigit()) && seq.bytes().all(|b| b.is_ascii_digit());
            if !plain || all.len() == WRITERS {
                return None;
            }
            let (epoch, seq) = (u64::from_str_radix(epoch, 16).ok()?, seq.parse().ok()?);
            if all.iter().any(|(known, _)| *known == epoch) {
                return None;
            }
            all.push((epoch, seq));
        }
        Some(Self(all))
    }

    /// The last sequence number seen of that writer; 0: none.
    pub fn of(&self, epoch: u64) -> u64 {
        self.0.iter().find(|(known, _)| *known == epoch).map_or(0, |(_, seq)| *seq)
    }

    /// Sets it.
    pub fn set(&mut self, epoch: u64, seq: u64) {
        if let Some((_, old)) = self.0.iter_mut().find(|(known, _)| *known == epoch) {
            *old = seq;
            return;
        }
        if self.0.len() == WRITERS {
            // The oldest writer is the likeliest to be gone.
            self.0.remove(0);
        }
        self.0.push((epoch, seq));
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (epoch, seq)) in self.0.iter().enumerate() {
            write!(f, "{}{epoch:x}.{seq}", if n == 0 { "" } else { "-" })?;
        }
        Ok(())
    }
}
