//! An answer's body as it arrives: everything one read brought as one piece, and the connection back to the pool at its
//! clean end.
//!
//! Any doubt (bytes beyond the end, a broken rule, a drop midway) closes the connection instead.

use super::conn::Conn;
use super::exchange::broke;
use super::framing::Framing;
use super::head::Head;
use crate::base::Clock;
use crate::upstream::call::{CallError, CallErrorKind as Kind, Deadline};
use crate::upstream::pool::Host;
use bytes::{Buf, Bytes};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// An answer's head and as much of its body as came with it.
pub(in crate::upstream) struct Started {
    pub(in crate::upstream) head: Head,
    /// Payload that is already here.
    pub(in crate::upstream) first: Bytes,
    /// The body ended.
    pub(in crate::upstream) done: bool,
}

/// A body that is not all here yet.
#[derive(Debug)]
pub(in crate::upstream) struct Arriving {
    conn: Box<Conn>,
    host: Arc<Host>,
    framing: Framing,
    keep_alive: bool,
    idle: Duration,
    /// Bytes came since the deadline was last moved.
    moved: bool,
}

impl Started {
    pub(super) fn new(conn: &mut Conn, mut head: Head) -> Result<Self, &'static str> {
        let mut first = Bytes::new();
        if !conn.input.is_empty() && !head.framing.is_done() {
            first = take(conn, &mut head.framing)?;
        }
        let done = head.framing.is_done();
        // What follows an answer nobody asked for belongs to no request.
        head.keep_alive &= !done || conn.input.is_empty();
        Ok(Self { head, first, done })
    }
}

impl Arriving {
    pub(in crate::upstream) fn new(conn: Box<Conn>, host: Arc<Host>, head: &Head, idle: Duration) -> Self {
        Self { conn, host, framing: head.framing, keep_alive: head.keep_alive, idle, moved: true }
    }

    /// Bytes still to come, where the answer said so.
    pub(in crate::upstream) const fn remaining(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(left) => Some(left),
            _ => None,
        }
    }

    /// The next payload; `Ok(None)` for a clean end. After an end or an error it must not be polled again.
    pub(in crate::upstream) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, CallError>> {
        loop {
            match self.conn.poll_fill(cx) {
                Poll::Ready(Ok(0)) => {
                    let clean = self.framing == Framing::UntilClose;
                    return Poll::Ready(if clean { Ok(None) } else { Err(CallError::new(Kind::Truncated, true)) });
                }
                Poll::Ready(Ok(_)) => {
                    self.moved = true;
                    let payload = take(&mut self.conn, &mut self.framing)
                        .map_err(|what| CallError::new(Kind::Protocol(what), true))?;
                    if !payload.is_empty() {
                        return Poll::Ready(Ok(Some(payload)));
                    }
                    if self.framing.is_done() {
                        return Poll::Ready(Ok(None));
                    }
                }
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(CallError::because(broke(&error, true), true, error)));
                }
                Poll::Pending => {
                    self.conn.doze();
                    if std::mem::take(&mut self.moved) {
                        self.conn.alarm.set(Clock::now() + self.idle);
                    }
                    if self.conn.alarm.poll_fired(cx) {
                        return Poll::Ready(Err(CallError::new(Kind::Timeout(Deadline::Idle), true)));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// The body's last byte has been taken.
    pub(in crate::upstream) const fn is_done(&self) -> bool {
        self.framing.is_done()
    }

    /// After a clean end: back to the pool, or closed when it may not serve again.
    pub(in crate::upstream) fn finish(self) {
        if self.keep_alive && self.framing.is_done() && self.conn.input.is_empty() {
            self.host.put(self.conn);
        }
    }
}

/// All payload in `conn.input`, framing removed, as one piece.
fn take(conn: &mut Conn, framing: &mut Framing) -> Result<Bytes, &'static str> {
    let found = framing.decode(&mut conn.input)?;
    if found.start == found.end {
        conn.input.advance(found.used);
        return Ok(Bytes::new());
    }
    conn.input.advance(found.start);
    let payload = conn.input.split_to(found.end - found.start).freeze();
    conn.input.advance(found.used - found.end);
    Ok(payload)
}
