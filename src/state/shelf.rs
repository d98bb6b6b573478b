//! Who goes first when the shelf is full: a queue by age with a byte cap, for tables whose entries all live equally long.
//!
//! Holds keys and sizes only; the entries lie in their owner's table. It never looks into that table (the owner holds
//! one lock at a time): it hands out who must go, and the owner removes it if the serial number still matches.

use crate::base::Now;
use std::collections::VecDeque;

/// Keys in the order they were put.
#[derive(Debug)]
pub(super) struct Shelf<K> {
    queue: VecDeque<Record<K>>,
    bytes: usize,
    max: usize,
}

#[derive(Debug)]
struct Record<K> {
    key: K,
    serial: u64,
    bytes: usize,
    until: Now,
}

impl<K> Shelf<K> {
    /// Room for `max` bytes.
    pub(super) fn new(max: usize) -> Self {
        Self { queue: VecDeque::new(), bytes: 0, max }
    }

    /// Counts an entry that is in the table already (a victim must be there to be removed); who must go for it, oldest
    /// first. The newest itself goes when it alone is larger than the shelf.
    pub(super) fn put(&mut self, key: K, serial: u64, bytes: usize, until: Now) -> Vec<(K, u64)> {
        self.queue.push_back(Record { key, serial, bytes, until });
        self.bytes += bytes;
        let mut victims = Vec::new();
        while self.bytes > self.max
            && let Some(oldest) = self.queue.pop_front()
        {
            self.bytes -= oldest.bytes;
            victims.push((oldest.key, oldest.serial));
        }
        victims
    }

    /// Who has expired, at most `most` at once.
    pub(super) fn expired(&mut self, now: Now, most: usize) -> Vec<(K, u64)> {
        let mut gone = Vec::new();
        while gone.len() < most
            && self.queue.front().is_some_and(|oldest| oldest.until <= now)
            && let Some(oldest) = self.queue.pop_front()
        {
            self.bytes -= oldest.bytes;
            gone.push((oldest.key, oldest.serial));
        }
        gone
    }

    /// Bytes counted.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Entries counted: for tests of what leaks.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}
