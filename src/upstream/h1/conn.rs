//! One connection: its socket, its two buffers, its alarm. Reads as much as is there, writes without copying what is large.
//!
//! A connection that is dropped is closed at once; nothing is flushed, nothing said goodbye to. What it reads is bounded
//! by who asks: a head by its limit, a body by one round of [`ROUND`] bytes.

use crate::base::alarms::Alarm;
use crate::upstream::pool::Open;
use bytes::{Bytes, BytesMut};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// What one read asks for at first.
const READ: usize = 8 * 1024;
/// What one read asks for once bulk was seen, and what goes out as one piece at most (or little more).
pub(super) const ROUND: usize = 64 * 1024;
/// A body up to this is copied behind its head and sent with it in one write.
pub(super) const SMALL: usize = 16 * 1024;

/// A connection to a provider.
pub(in crate::upstream) struct Conn {
    io: Stream,
    /// Read, not yet consumed.
    pub(super) input: BytesMut,
    /// How much the next read asks for.
    want: usize,
    /// An error met after bytes that had to be handed on first.
    late: Option<io::Error>,
    /// Request bytes of our own making: head, small body, chunk sizes.
    pub(super) output: Vec<u8>,
    /// So much of `output` is written.
    pub(super) written: usize,
    /// The deadline of whatever it does now.
    pub(super) alarm: Arc<Alarm>,
    _open: Open,
}

/// Plain or TLS.
pub(in crate::upstream) enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Conn {
    pub(in crate::upstream) fn new(io: Stream, alarm: Arc<Alarm>, open: Open) -> Self {
        Self { io, input: BytesMut::new(), want: READ, late: None, output: Vec::new(), written: 0, alarm, _open: open }
    }

    /// Whether a pooled connection may serve: nothing came while it idled, neither a byte nor the end. No system call
    /// while nothing arrived.
    pub(in crate::upstream) fn is_quiet(&mut self) -> bool {
        let mut byte = [0; 1];
        match &mut self.io {
            Stream::Plain(tcp) => matches!(tcp.try_read(&mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock),
            // Through rustls: a session ticket is no answer.
            Stream::Tls(tls) => {
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(tls).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        }
    }

    /// Makes it fit for the pool: no deadline, no large buffer kept.
    pub(in crate::upstream) fn rest(&mut self) {
        self.alarm.clear();
        self.written = 0;
        if self.output.capacity() > 2 * SMALL {
            self.output = Vec::new();
        }
        self.output.clear();
        if self.want > READ {
            self.want = READ;
            self.input = BytesMut::new();
        }
    }

    /// Lets go of both buffers until there is something to put into them: a stream waits nearly all its life, and ten
    /// thousand of them wait together.
    pub(super) fn doze(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        if self.written == self.output.len() {
            self.output = Vec::new();
            self.written = 0;
        }
    }

    /// Reads what is there, at most about [`ROUND`]; `Ok(0)` is the end. Leaves at once with whatever came: it goes on
    /// only while the socket keeps filling the buffer.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(error) = self.late.take() {
            return Poll::Ready(Err(error));
        }
        let mut total = 0;
        // Without a buffer nothing is fetched before there is something to put into it.
        if self.input.capacity() == 0
            && let Stream::Plain(tcp) = &self.io
        {
            ready!(tcp.poll_read_ready(cx))?;
        }
        loop {
            if self.input.capacity() - self.input.len() < self.want / 2 {
                // Takes the space back where earlier answers are dropped by now; else a fresh buffer.
                self.input.reserve(self.want);
            }
            let room = self.input.capacity() - self.input.len();
            match pin!(self.io.read_buf(&mut self.input)).poll(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(total)),
                Poll::Ready(Ok(n)) => {
                    total += n;
                    if n < room || total >= ROUND {
                        return Poll::Ready(Ok(total));
                    }
                    self.want = (self.want * 2).min(ROUND);
                }
                Poll::Ready(Err(error)) if total == 0 => return Poll::Ready(Err(error)),
                Poll::Ready(Err(error)) => {
                    self.late = Some(error);
                    return Poll::Ready(Ok(total));
                }
                Poll::Pending if total == 0 => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Ok(total)),
            }
        }
    }

    /// Writes the rest of `output`, then `pieces` from byte `offset` of the first on; how much of the pieces went, once
    /// any byte of either did. `Ok((0, 0))` when there is nothing to write.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[Bytes],
        offset: usize,
    ) -> Poll<io::Result<Wrote>> {
        let own = &self.output[self.written..];
        let n = if pieces.is_empty() {
            if own.is_empty() {
                return Poll::Ready(Ok(Wrote::default()));
            }
            ready!(Pin::new(&mut self.io).poll_write(cx, own))?
        } else {
            let mut slices = [IoSlice::new(&[]); 1 + crate::base::Pieces::MOST];
            slices[0] = IoSlice::new(own);
            for (n, (slot, piece)) in slices[1..].iter_mut().zip(pieces).enumerate() {
                *slot = IoSlice::new(&piece[if n == 0 { offset } else { 0 }..]);
            }
            let from = usize::from(own.is_empty());
            let to = 1 + pieces.len().min(slices.len() - 1);
            ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices[from..to]))?
        };
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_own = n.min(self.output.len() - self.written);
        self.written += of_own;
        Poll::Ready(Ok(Wrote { all: n, of_pieces: n - of_own }))
    }

    /// Hands on what rustls still holds; nothing to do on plain TCP.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }
}

/// What one write took.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Wrote {
    /// Altogether.
    pub(super) all: usize,
    /// Of the pieces.
    pub(super) of_pieces: usize,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("unread", &self.input.len()).finish_non_exhaustive()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
