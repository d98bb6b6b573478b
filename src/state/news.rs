//! Small messages between instances: a kind and some bytes. The rests travel beside them, in a form of their own.
//!
//! News is a hint, never the only copy of anything: what is told while Redis is away may be lost, and whoever acts on a
//! kind is told of every gap instead ([`Heard::Gap`]), after which all he knew may be old. Two of one kind with the same
//! bytes that wait together are one.

use super::outbox::{Outbox, Tell};
use std::fmt;

/// What a message is about: its first byte on the wire, so numbers are never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Kind(pub u8);

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct News {
    /// What it is about.
    pub kind: Kind,
    /// At most [`News::LONGEST`] bytes; longer ones are not sent.
    pub body: Box<[u8]>,
}

/// The way out for news; closed when there are no others.
pub type Herald = Outbox<News>;

/// What a [`Listener`] is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard<'a> {
    /// Another instance's message: its bytes, as hostile as any input.
    News(&'a [u8]),
    /// Messages may have been missed: told at the first connection and after each break.
    Gap,
}

/// Somebody who acts on news of one kind. Called on the Redis thread: it rings, stores or counts, and returns at once.
pub struct Listener {
    /// Which kind.
    pub kind: Kind,
    hear: Box<dyn FnMut(Heard<'_>) + Send>,
}

impl Kind {
    /// Rests of accounts and models; spoken and heard by `cluster/` itself.
    pub const RESTS: Self = Self(1);
    /// Keys, accounts or virtual models changed: look at the store. No bytes.
    pub const CATALOG: Self = Self(2);
}

impl News {
    /// Longest body.
    pub const LONGEST: usize = 4096;

    /// Of this kind, with these bytes.
    pub fn new(kind: Kind, body: impl Into<Box<[u8]>>) -> Self {
        Self { kind, body: body.into() }
    }
}

impl Tell for News {
    type Key = (Kind, Box<[u8]>);

    fn key(&self) -> Self::Key {
        (self.kind, self.body.clone())
    }

    fn merge(&mut self, _: Self) {}
}

impl Listener {
    /// Calls `hear` for each message of `kind`.
    pub fn new(kind: Kind, hear: impl FnMut(Heard<'_>) + Send + 'static) -> Self {
        Self { kind, hear: Box::new(hear) }
    }

    /// Tells it.
    pub fn hear(&mut self, heard: Heard<'_>) {
        (self.hear)(heard);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("kind", &self.kind).finish_non_exhaustive()
    }
}
