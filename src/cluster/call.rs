//! One command of a round, and what came of it.
//!
//! Scripts are called by their hash; the link loads one that the server does not know and calls it again, which is safe
//! because a call answered NOSCRIPT did nothing.

use crate::base::metrics::METRICS;
use redis::{Cmd, ToRedisArgs, Value};
use std::sync::LazyLock;

/// A script, known by the hash of its text: old and new versions run side by side.
#[derive(Debug)]
pub(super) struct Script {
    code: &'static str,
    hash: LazyLock<Box<str>>,
}

/// One command.
#[derive(Clone)]
pub(super) struct Call {
    /// The key that decides which node it goes to. Empty: to any that is up.
    pub(super) key: Box<[u8]>,
    /// As sent.
    pub(super) cmd: Cmd,
    /// What to load when the server does not know it.
    pub(super) script: Option<&'static Script>,
    /// Bytes of a large value that it may be answered with; 0: a few.
    pub(super) back: u32,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Redis is away, or this call's fate is unknown: it may or may not have been carried out.
    Down,
    /// Redis answered with an error that is no sign of being down.
    Refused(String),
}

/// What came of one call.
pub(super) type Answer = Result<Value, Fault>;

/// A [`Script`] of the file `lua/$name`.
macro_rules! script {
    ($name:literal) => {{
        const CODE: &str = include_str!(concat!("lua/", $name));
        $crate::cluster::call::Script::new(CODE, || ::redis::Script::new(CODE).get_hash().into())
    }};
}
pub(super) use script;

/// What came of a call, if it was carried out. A refusal of a script that is meant to work is counted: something else than
/// ours lies under its key, or the server forbids what it needs.
pub(super) fn carried_out(answer: Option<Answer>) -> Option<Value> {
    match answer? {
        Ok(value) => Some(value),
        Err(Fault::Down) => None,
        Err(Fault::Refused(_)) => {
            METRICS.cluster_unreadable.inc();
            None
        }
    }
}

impl Script {
    /// Of this text and its SHA-1; see [`script!`].
    pub(super) const fn new(code: &'static str, hash: fn() -> Box<str>) -> Self {
        Self { code, hash: LazyLock::new(hash) }
    }

    /// A call on `keys` (at least one; on a Redis Cluster all in one slot) with `args` added by the caller.
    pub(super) fn call(&'static self, keys: &[&[u8]]) -> Call {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&**self.hash).arg(keys.len()).arg(keys);
        Call { key: keys.first().copied().unwrap_or_default().into(), cmd, script: Some(self), back: 0 }
    }

    /// `SCRIPT LOAD` of it.
    pub(super) fn load(&self) -> Cmd {
        let mut cmd = redis::cmd("SCRIPT");
        cmd.arg("LOAD").arg(self.code);
        cmd
    }
}

impl Call {
    /// A plain command that belongs to `key`. The key is *not* added as an argument.
    pub(super) fn new(name: &str, key: &[u8]) -> Self {
        Self { key: key.into(), cmd: redis::cmd(name), script: None, back: 0 }
    }

    /// It may be answered with so many bytes.
    #[must_use]
    pub(super) fn back(mut self, bytes: u32) -> Self {
        self.back = bytes;
        self
    }

    /// Bytes of its arguments, and of what it may be answered with.
    pub(super) fn bytes(&self) -> u64 {
        let lengths = self.cmd.args_iter().map(|arg| match arg {
            redis::Arg::Simple(bytes) => bytes.len() as u64,
            redis::Arg::Cursor => 0,
        });
        lengths.sum::<u64>() + u64::from(self.back)
    }

    /// One argument more.
    #[must_use]
    pub(super) fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.cmd.arg(arg);
        self
    }
}
