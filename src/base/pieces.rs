//! A body in a few parts that lie apart in memory.
//!
//! `dialect` cuts it so where it edits, `upstream` writes it so to a socket: between them no byte is copied.

use bytes::{Bytes, BytesMut};

/// Bytes in at most [`Pieces::MOST`] parts, inline: a clone copies no byte and allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    list: [Bytes; Pieces::MOST],
    count: usize,
    total: usize,
}

impl Pieces {
    /// Parts kept apart; what is pushed beyond them is copied together. Five, since two edits of a text leave no more.
    pub const MOST: usize = 5;

    /// No body.
    pub const fn new() -> Self {
        Self { list: [const { Bytes::new() }; Self::MOST], count: 0, total: 0 }
    }

    /// Adds one at the end. From the sixth on each is copied to the end of the fifth: put large ones first.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.total += piece.len();
        if self.count < Self::MOST {
            self.list[self.count] = piece;
            self.count += 1;
        } else {
            let last = &mut self.list[Self::MOST - 1];
            let mut joined = BytesMut::with_capacity(last.len() + piece.len());
            joined.extend_from_slice(last);
            joined.extend_from_slice(&piece);
            *last = joined.freeze();
        }
    }

    /// Bytes altogether.
    pub const fn len(&self) -> usize {
        self.total
    }

    /// No byte at all.
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Takes the first.
    pub fn pop_front(&mut self) -> Option<Bytes> {
        if self.count == 0 {
            return None;
        }
        let first = std::mem::take(&mut self.list[0]);
        self.list[..self.count].rotate_left(1);
        self.count -= 1;
        self.total -= first.len();
        Some(first)
    }

    /// In order; none is empty.
    pub fn as_slice(&self) -> &[Bytes] {
        &self.list[..self.count]
    }
}

impl From<Bytes> for Pieces {
    fn from(whole: Bytes) -> Self {
        let mut pieces = Self::new();
        pieces.push(whole);
        pieces
    }
}

impl FromIterator<Bytes> for Pieces {
    fn from_iter<I: IntoIterator<Item = Bytes>>(iter: I) -> Self {
        let mut pieces = Self::new();
        iter.into_iter().for_each(|piece| pieces.push(piece));
        pieces
    }
}
