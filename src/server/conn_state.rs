//! What a client's connection on HTTP/1.1 is doing: shared by its task, its socket, its request's body and its reply.

use super::ConnTimeouts;
use super::incoming::{Left, Unread};
use super::stream::Handover;
use super::tracked::{Deadline, Watch};
use crate::base::alarms::Alarms;
use hyper::Request;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::Context;
use std::time::Duration;

/// No byte has come yet.
const FRESH: u8 = 0;
const IDLE: u8 = 1;
const HEAD: u8 = 2;
const BUSY: u8 = 3;
/// Answered, and the rest of the request is still on its way.
const UNREAD: u8 = 4;

/// How long a client may go on sending what nobody reads. No longer than it may take over a head.
const PATIENCE: Duration = Duration::from_secs(5);

thread_local! {
    /// The connection whose task is polled on this thread.
    static POLLED: Cell<usize> = const { Cell::new(0) };
}

/// Polls a connection's task by `poll`.
pub(super) fn polled<T>(id: usize, poll: impl FnOnce() -> T) -> T {
    POLLED.set(id);
    let polled = poll();
    POLLED.set(0);
    polled
}

/// Shared by the connection, its I/O, its current request's body and its reply.
#[derive(Debug)]
pub(super) struct State {
    what: AtomicU8,
    pub(super) deadline: Deadline,
    pub(super) unread: Unread,
    /// It ends with a body on its way.
    pub(super) lingers: AtomicBool,
    pub(super) handover: Handover,
}

/// Held by the reply: its request has ended when it drops.
#[derive(Debug)]
pub(super) enum Busy {
    /// The connection's only one: it is idle then.
    Only(Only),
    /// One of many.
    Stream(super::h2::Running),
}

/// The request that a connection is busy with.
#[derive(Debug)]
pub(super) struct Only(pub(super) Arc<State>);

impl Only {
    /// The connection, where it takes a stream over that has to wait.
    pub(super) fn takes_streams(&self) -> Option<Arc<State>> {
        self.0.handover.is_open().then(|| Arc::clone(&self.0))
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        if self.0.unread.any() {
            self.0.wait_for_rest();
        } else {
            self.0.rest();
        }
    }
}

impl State {
    /// That of a connection just made.
    pub(super) fn new(alarms: Arc<Alarms>, timeouts: ConnTimeouts) -> Self {
        Self {
            what: AtomicU8::new(FRESH),
            deadline: Deadline::new(alarms, timeouts),
            unread: Unread::default(),
            lingers: AtomicBool::new(false),
            handover: Handover::default(),
        }
    }

    /// Whether no byte has come yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.what.load(Ordering::Relaxed) == FRESH
    }

    /// A request begins: what its answer holds until it has ended.
    pub(super) fn begin(self: &Arc<Self>, request: &Request<hyper::body::Incoming>) -> Busy {
        self.what.store(BUSY, Ordering::Relaxed);
        self.deadline.busy();
        self.handover.ask(request);
        Busy::Only(Only(Arc::clone(self)))
    }

    /// Nothing is asked: the deadline runs.
    fn rest(&self) {
        self.what.store(IDLE, Ordering::Relaxed);
        self.deadline.set(self.deadline.timeouts.idle);
    }

    fn wait_for_rest(&self) {
        self.what.store(UNREAD, Ordering::Relaxed);
        self.deadline.set(self.patience());
    }

    pub(super) fn patience(&self) -> Duration {
        PATIENCE.min(self.deadline.timeouts.head)
    }

    /// A request's body was dropped before its end. Mostly from within the connection's own poll; the control plane
    /// drops on its own thread.
    pub(super) fn leave(&self, body: hyper::body::Incoming, waits: bool) {
        self.unread.put(body, waits);
        if self.what.load(Ordering::Relaxed) <= HEAD {
            self.wait_for_rest();
        }
        self.deadline.wake();
    }

    /// A body has been read to its end. Where another task read it (an upload by HTTP/2, the control plane), nobody
    /// polls this connection for it: it must look for its client's end.
    pub(super) fn read_whole(&self, nth: u32) {
        self.handover.read_whole(nth);
        if POLLED.get() != self.id() {
            self.deadline.wake();
        }
    }

    /// Tells it from others, for [`polled`].
    pub(super) fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Reads on and forgets.
    pub(super) fn read_on(&self, cx: &mut Context<'_>) {
        match self.unread.poll(cx) {
            // The next head may be here already, and be the busy one.
            Left::Ended if self.what.load(Ordering::Relaxed) == UNREAD => self.rest(),
            Left::Ended => {
                self.handover.read_whole(self.handover.nth());
                // hyper was polled already, and it is after that that a client's end is looked for.
                cx.waker().wake_by_ref();
            }
            Left::Nothing | Left::Some => {}
            // hyper sees that nobody wants it, and closes.
            Left::TooMuch => self.lingers.store(true, Ordering::Relaxed),
        }
    }
}

impl Watch for State {
    fn read(&self) {
        if self.what.load(Ordering::Relaxed) <= IDLE {
            // A head began. Later reads of the same head do not move its deadline.
            self.what.store(HEAD, Ordering::Relaxed);
            self.deadline.set(self.deadline.timeouts.head);
        }
    }

    fn wrote(&self, pending: bool) {
        self.handover.flushed(false);
        match (pending, self.what.load(Ordering::Relaxed)) {
            (pending, BUSY) => self.deadline.wrote(pending),
            // The end of an answer that was handed over whole: as long as it moves, the connection lives.
            (false, IDLE) => self.deadline.set(self.deadline.timeouts.idle),
            (false, UNREAD) => self.deadline.set(self.patience()),
            _ => {}
        }
    }

    fn flushed(&self) {
        self.handover.flushed(true);
    }

    fn awaits_end(&self) -> bool {
        // Not while its body is on its way: hyper reads then, and would find one byte at a time.
        self.what.load(Ordering::Relaxed) == BUSY && self.handover.is_read()
    }
}
