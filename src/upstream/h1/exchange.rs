//! One request over one connection: writes it, watches for an early answer meanwhile, reads the head.
//!
//! Dropped midway it takes the connection with it, which is how a client that left cancels the provider's work. An
//! answer that comes before the request is written out (a 413, say) is the answer; such a connection never serves again.

use super::body::Started;
use super::conn::{Conn, SMALL};
use super::head::{self, Announce, Finder, Head};
use crate::base::Clock;
use crate::base::Pieces;
use crate::upstream::call::{Call, CallBody, CallError, CallErrorKind as Kind, Deadline};
use bytes::{Buf, Bytes};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

/// Why an exchange ended without an answer.
pub(in crate::upstream) struct Failed {
    pub(in crate::upstream) error: CallError,
    /// Not a byte of an answer came: a reused connection had died, as like as not.
    pub(in crate::upstream) unanswered: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "sending and reading go on side by side: no one state names both")]
struct Exchange<'a, 'b> {
    call: &'a mut Call<'b>,
    conn: &'a mut Conn,
    finder: Finder,
    /// Pieces not yet written, from byte `offset` of the first on.
    next: usize,
    offset: usize,
    /// What the stream gave and the kernel did not take yet.
    chunk: Bytes,
    /// Bytes a stream with a length still owes.
    owes: u64,
    chunked: bool,
    /// A chunk was begun: its CRLF goes before whatever follows.
    chunks: bool,
    stream_ended: bool,
    all_sent: bool,
    sent: bool,
    /// A write had to wait: the first-byte deadline starts when the last byte has gone.
    waited: bool,
    answered: bool,
    broken: Option<io::Error>,
}

/// Sends `call` and reads the answer up to its head; what of the body came with it waits in `conn`.
pub(in crate::upstream) async fn exchange(conn: &mut Conn, call: &mut Call<'_>) -> Result<Started, Failed> {
    let announce = match &call.body {
        CallBody::Pieces(pieces) => Announce::Length(pieces.len() as u64),
        CallBody::Stream(_, Some(length)) => Announce::Length(*length),
        CallBody::Stream(_, None) => Announce::Chunked,
    };
    conn.output.clear();
    conn.written = 0;
    if let Err(what) = head::write(&mut conn.output, call.method, call.base, call.path, call.headers, announce) {
        return Err(Failed { error: CallError::new(Kind::Protocol(what), false), unanswered: false });
    }
    let mut next = 0;
    if let CallBody::Pieces(pieces) = &call.body
        && conn.output.len() + pieces.len() <= SMALL
    {
        // One plain write instead of a vectored one: copying this little is cheaper than walking the list.
        pieces.as_slice().iter().for_each(|piece| conn.output.extend_from_slice(piece));
        next = Pieces::MOST;
    }
    conn.alarm.set(call.asked + call.first_byte);
    let mut exchange = Exchange {
        conn,
        call,
        finder: Finder::default(),
        next,
        offset: 0,
        chunk: Bytes::new(),
        owes: if let Announce::Length(length) = announce { length } else { 0 },
        chunked: announce == Announce::Chunked,
        chunks: false,
        stream_ended: false,
        all_sent: false,
        sent: false,
        waited: false,
        answered: false,
        broken: None,
    };
    poll_fn(|cx| exchange.poll(cx)).await
}

impl Exchange<'_, '_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Started, Failed>> {
        if !self.all_sent && self.broken.is_none() {
            match self.poll_send(cx) {
                Poll::Ready(Ok(())) => {
                    self.all_sent = true;
                    if self.waited {
                        self.conn.alarm.set(Clock::now() + self.call.first_byte);
                    }
                }
                // Perhaps it answered and closed: what it said is worth more than that it closed.
                Poll::Ready(Err(Send::Io(error))) => self.broken = Some(error),
                Poll::Ready(Err(Send::Call(error))) => return Poll::Ready(Err(self.failed(error))),
                Poll::Pending => {}
            }
        }
        loop {
            match self.conn.poll_fill(cx) {
                Poll::Ready(Ok(0)) => {
                    let kind = if self.answered { Kind::Truncated } else { Kind::Closed };
                    let error = match self.broken.take() {
                        Some(cause) => CallError::because(kind, self.sent, cause),
                        None => CallError::new(kind, self.sent),
                    };
                    return Poll::Ready(Err(self.failed(error)));
                }
                Poll::Ready(Ok(_)) => {
                    self.answered = true;
                    match self.take_head() {
                        Ok(Some(head)) => return Poll::Ready(self.start(head)),
                        Ok(None) => {}
                        Err(what) => {
                            let error = CallError::new(Kind::Protocol(what), self.sent);
                            return Poll::Ready(Err(self.failed(error)));
                        }
                    }
                }
                Poll::Ready(Err(error)) => {
                    let error = CallError::because(broke(&error, self.answered), self.sent, error);
                    return Poll::Ready(Err(self.failed(error)));
                }
                Poll::Pending => break,
            }
        }
        if self.conn.alarm.poll_fired(cx) {
            let which = if self.waited && !self.all_sent { Deadline::Idle } else { Deadline::FirstByte };
            let mut failed = self.failed(CallError::new(Kind::Timeout(which), self.sent));
            failed.unanswered = false;
            return Poll::Ready(Err(failed));
        }
        Poll::Pending
    }

    /// The final head, once all of it is here; interim ones are skipped.
    fn take_head(&mut self) -> Result<Option<Head>, &'static str> {
        // Each head is bounded by its size, their number by this one's: what was skipped counts.
        for _ in 0..8 {
            let Some(length) = self.finder.find(&self.conn.input)? else { return Ok(None) };
            let raw = self.conn.input.split_to(length).freeze();
            self.finder = Finder::default();
            let head = head::parse(&raw, self.call.method)?;
            if !head.status.is_informational() {
                return Ok(Some(head));
            }
        }
        Err("too many interim answers")
    }

    /// Takes what of the body is already here.
    fn start(&mut self, mut head: Head) -> Result<Started, Failed> {
        head.keep_alive &= self.all_sent && self.broken.is_none();
        Started::new(self.conn, head).map_err(|what| self.failed(CallError::new(Kind::Protocol(what), self.sent)))
    }

    fn failed(&self, error: CallError) -> Failed {
        let unanswered = !self.answered && matches!(error.kind, Kind::Closed | Kind::Io);
        Failed { error, unanswered }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Send>> {
        loop {
            let pieces = match &self.call.body {
                CallBody::Pieces(pieces) => pieces.as_slice().get(self.next..).unwrap_or(&[]),
                CallBody::Stream(..) if self.chunk.is_empty() => &[],
                CallBody::Stream(..) => std::slice::from_ref(&self.chunk),
            };
            match self.conn.poll_write(cx, pieces, self.offset) {
                Poll::Ready(Ok(wrote)) if wrote.all == 0 => match ready!(self.poll_more(cx)) {
                    Ok(true) => {}
                    Ok(false) => {
                        let flushed = self.conn.poll_flush(cx);
                        self.waited |= flushed.is_pending();
                        return flushed.map_err(Send::Io);
                    }
                    Err(error) => return Poll::Ready(Err(Send::Call(error))),
                },
                Poll::Ready(Ok(wrote)) => {
                    self.sent = true;
                    if self.waited {
                        self.conn.alarm.set(Clock::now() + self.call.idle);
                    }
                    self.advance(wrote.of_pieces);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Send::Io(error))),
                Poll::Pending => {
                    if !self.waited {
                        self.waited = true;
                        self.conn.alarm.set(Clock::now() + self.call.idle);
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn advance(&mut self, mut n: usize) {
        if let CallBody::Pieces(pieces) = &self.call.body {
            while n > 0 {
                let left = pieces.as_slice()[self.next].len() - self.offset;
                if n < left {
                    self.offset += n;
                    return;
                }
                n -= left;
                self.offset = 0;
                self.next += 1;
            }
        } else {
            self.chunk.advance(n);
        }
    }

    /// The next part of a streamed body: true when there is one to write.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, CallError>> {
        let CallBody::Stream(stream, _) = &mut self.call.body else { return Poll::Ready(Ok(false)) };
        if self.stream_ended {
            return Poll::Ready(Ok(false));
        }
        let frame = match stream.as_mut().poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                // The client is the slow one; its own deadlines are the server's business, not the provider's fault.
                self.conn.alarm.clear();
                self.waited = true;
                // What rustls holds must not wait for the client.
                let _ = self.conn.poll_flush(cx);
                return Poll::Pending;
            }
        };
        let output = &mut self.conn.output;
        let refused = |cause| Poll::Ready(Err(CallError::because(Kind::ClientBody, self.sent, cause)));
        self.waited = true;
        match frame {
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { return Poll::Ready(Ok(true)) };
                if data.is_empty() {
                    return Poll::Ready(Ok(true));
                }
                if self.chunked {
                    // Asked for only once all of `output` is written.
                    output.clear();
                    self.conn.written = 0;
                    if std::mem::replace(&mut self.chunks, true) {
                        output.extend_from_slice(b"\r\n");
                    }
                    hex(output, data.len());
                    output.extend_from_slice(b"\r\n");
                } else {
                    match self.owes.checked_sub(data.len() as u64) {
                        Some(left) => self.owes = left,
                        None => return refused("the body is longer than announced".into()),
                    }
                }
                self.chunk = data;
                Poll::Ready(Ok(true))
            }
            Some(Err(cause)) => refused(cause),
            None => {
                self.stream_ended = true;
                if self.chunked {
                    output.clear();
                    self.conn.written = 0;
                    output.extend_from_slice(if self.chunks { b"\r\n0\r\n\r\n" } else { b"0\r\n\r\n" });
                } else if self.owes > 0 {
                    return refused("the body is shorter than announced".into());
                }
                Poll::Ready(Ok(true))
            }
        }
    }
}

enum Send {
    Io(io::Error),
    Call(CallError),
}

/// What a broken read means. An end without TLS' goodbye is an end like any other.
pub(super) fn broke(error: &io::Error, answered: bool) -> Kind {
    match error.kind() {
        io::ErrorKind::UnexpectedEof if answered => Kind::Truncated,
        io::ErrorKind::UnexpectedEof => Kind::Closed,
        _ => Kind::Io,
    }
}

fn hex(out: &mut Vec<u8>, n: usize) {
    let digits = (usize::BITS - n.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[n >> (4 * digit) & 0xf]);
    }
}
