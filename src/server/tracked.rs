//! A client's socket that tells what it does, and the one deadline of its connection.
//!
//! Both versions of HTTP keep the same account of writing: a socket that takes nothing starts the clock, one that moves
//! stops it. What the deadline means while nothing is written is theirs to say.
//!
//! A client that leaves while its answer is awaited is noticed here, after each flush and by a read of one byte into the
//! stack: hyper's own watch (`half_close(false)`) holds a read buffer of 8 KiB for as long as a stream lasts. A byte that
//! does come is kept for whoever reads next.

use super::ConnTimeouts;
use crate::base::alarms::{Alarm, Alarms};
use bytes::Bytes;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Hears what a socket does.
pub(super) trait Watch: Send + Sync + 'static {
    /// Bytes came.
    fn read(&self);
    /// Bytes went out, or (`pending`) the socket takes none.
    fn wrote(&self, pending: bool);
    /// All that was to be written is.
    fn flushed(&self) {}
    /// Whether nothing but the client's end is expected now.
    fn awaits_end(&self) -> bool {
        false
    }
}

/// A connection's deadline. One core's tasks touch it only; the atomics are for `Send`'s sake.
#[derive(Debug)]
pub(super) struct Deadline {
    alarm: Arc<Alarm>,
    alarms: Arc<Alarms>,
    stuck: AtomicBool,
    pub(super) timeouts: ConnTimeouts,
}

/// A socket that keeps its watch up to date.
#[derive(Debug)]
pub(super) struct Tracked<S, W> {
    inner: S,
    watch: Arc<W>,
    /// Read, and nobody's yet.
    kept: Bytes,
}

impl Deadline {
    /// That of a connection just made: its first head.
    pub(super) fn new(alarms: Arc<Alarms>, timeouts: ConnTimeouts) -> Self {
        let deadline = Self { alarm: alarms.alarm(), alarms, stuck: AtomicBool::new(false), timeouts };
        deadline.set(timeouts.head);
        deadline
    }

    /// From now on.
    pub(super) fn set(&self, patience: Duration) {
        self.alarm.set(self.alarms.now() + patience);
    }

    /// A request runs: none but for writing.
    pub(super) fn busy(&self) {
        self.stuck.store(false, Ordering::Relaxed);
        self.alarm.clear();
    }

    /// What is written for a running request moves, or does not.
    pub(super) fn wrote(&self, pending: bool) {
        if pending != self.stuck.swap(pending, Ordering::Relaxed) {
            if pending {
                self.set(self.timeouts.write);
            } else {
                self.alarm.clear();
            }
        }
    }

    /// Whether it has passed; the connection's task is woken when it does.
    pub(super) fn poll_passed(&self, cx: &Context<'_>) -> bool {
        self.alarm.poll_fired(cx)
    }

    /// Has the connection's task look at itself.
    pub(super) fn wake(&self) {
        self.alarm.wake();
    }
}

impl<S, W> Tracked<S, W> {
    pub(super) fn new(inner: S, watch: Arc<W>) -> Self {
        Self { inner, watch, kept: Bytes::new() }
    }

    /// What was read of it and not used: whoever reads next finds it.
    pub(super) fn give_back(&mut self, read: Bytes) {
        self.kept = match (read.is_empty(), self.kept.is_empty()) {
            (true, _) => return,
            (_, true) => read,
            (false, false) => [read, std::mem::take(&mut self.kept)].concat().into(),
        };
    }

    /// The socket itself.
    pub(super) fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin, W: Watch> Tracked<S, W> {
    /// After a write: one that has to wait may wait for a client that is gone.
    fn wrote(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.watch.wrote(polled.is_pending());
        if polled.is_pending() {
            self.look_for_end(cx)?;
        }
        polled
    }

    /// Fails once the client has left. No system call while nothing arrived.
    fn look_for_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.kept.is_empty() || !self.watch.awaits_end() {
            return Ok(());
        }
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        match Pin::new(&mut self.inner).poll_read(cx, &mut buf) {
            Poll::Pending => Ok(()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) => {
                if buf.filled().is_empty() {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                self.kept = Bytes::copy_from_slice(buf.filled());
                // hyper may have been about to read it.
                cx.waker().wake_by_ref();
                Ok(())
            }
        }
    }
}

impl<S: AsyncRead + Unpin, W: Watch> AsyncRead for Tracked<S, W> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.kept.is_empty() {
            let n = buf.remaining().min(self.kept.len());
            buf.put_slice(&self.kept.split_to(n));
            self.watch.read();
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if polled.is_ready() && buf.filled().len() > before {
            self.watch.read();
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, W: Watch> AsyncWrite for Tracked<S, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch.flushed();
        self.look_for_end(cx)?;
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
