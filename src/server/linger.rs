//! The end of a connection whose client still sends: its answer has gone out, and a plain close would reset the
//! connection, answer and all.
//!
//! So our side is closed, and what comes is dropped until the client closes, too: at most [`MOST`] bytes, through one
//! small buffer on the stack; the time is its owner's. After that the connection is closed whatever the client thinks.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Twice the largest body that is taken by default: a client that reads only after it has written all finds its 413.
const MOST: usize = 64 << 20;

/// A socket that is only read, for good manners.
#[derive(Debug)]
pub(super) struct Linger<S> {
    socket: S,
    said: bool,
    left: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Linger<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { socket, said: false, left: MOST }
    }

    /// Whether our side is closed: all we had is the kernel's.
    pub(super) fn has_said(&self) -> bool {
        self.said
    }

    /// Ready when the client is done, or we are with it. Its share of the core is bounded by the runtime's budget.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.said {
            self.said = ready!(Pin::new(&mut self.socket).poll_shutdown(cx)).is_ok();
            if !self.said {
                return Poll::Ready(());
            }
        }
        let mut dropped = [0; 16 << 10];
        while self.left > 0 {
            let mut buffer = ReadBuf::new(&mut dropped);
            let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.left = self.left.saturating_sub(buffer.filled().len());
        }
        Poll::Ready(())
    }
}
