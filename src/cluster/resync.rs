//! The rests that Redis remembers, read whole: after each (re)connection and now and then, in case a message was lost.
//!
//! Subscribe, *then* read, then merge, then send what of ours still wins: so nothing falls between. A part of the accounts
//! in each round, those of the catalog first; accounts only Redis knows of come after. A read that fails is begun again.

use super::call::{Answer, Call, Fault, Script, script};
use super::codec::{Names, SHARDS, model};
use super::wire::Remaining;
use crate::base::{AccountId, ModelId, Now};
use crate::state::catalog::Directory;
use crate::state::delta::Delta;
use crate::state::rest::{Reason, Rest};
use redis::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

static RESTS: Script = script!("rests.lua");

/// How often it is read without any reason.
const EVERY: Duration = Duration::from_secs(30);
/// After a read that failed although Redis is there: of several nodes one may be down.
const AGAIN: Duration = Duration::from_secs(1);
/// Accounts taken from one list at most.
const LISTED: usize = 4096;

/// How far this instance knows what the others know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    /// Nobody has answered yet.
    Asking,
    /// There is no Redis to ask.
    Unreachable,
    /// All rests of the others are known, and news of them arrives.
    All,
}

/// How long a first failure is not believed.
const SECOND_WIND: Duration = Duration::from_millis(800);

/// What the subscription and the rounds tell each other.
#[derive(Debug)]
pub(super) struct Progress {
    wanted: AtomicU64,
    subscribed: AtomicBool,
    known: watch::Sender<Known>,
}

/// The reading.
#[derive(Debug)]
pub(super) struct Resync {
    progress: Arc<Progress>,
    /// Which wish the last whole reading fulfilled.
    done: u64,
    /// When to read next without any wish.
    next: Now,
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    wish: u64,
    subscribed: bool,
    /// Asked about, or to be.
    known: HashSet<AccountId, ahash::RandomState>,
    /// To be asked about in the next rounds: each once, or a round might have nothing to ask and the reading no end.
    more: Vec<AccountId>,
    /// What Redis has.
    theirs: HashMap<(AccountId, Option<ModelId>), Rest, ahash::RandomState>,
    failed: bool,
}

/// A call of a reading.
#[derive(Clone, Copy, Debug)]
pub(super) enum Read {
    /// A list of accounts.
    List,
    /// An account's rests.
    Rests(AccountId),
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { wanted: AtomicU64::new(0), subscribed: AtomicBool::new(false), known: watch::channel(Known::Asking).0 }
    }

    /// What Redis has must be read (again).
    pub(super) fn want(&self) {
        self.wanted.fetch_add(1, Ordering::AcqRel);
    }

    /// Messages arrive from now on.
    pub(super) fn subscribed(&self) {
        self.subscribed.store(true, Ordering::Release);
        self.want();
    }

    /// Messages no longer arrive, or never did.
    pub(super) fn unsubscribed(&self) {
        self.subscribed.store(false, Ordering::Release);
        self.unreachable();
    }

    /// There is nobody to ask.
    pub(super) fn unreachable(&self) {
        self.known.send_replace(Known::Unreachable);
    }

    /// Returns once everything is known, or nobody could be reached for [`SECOND_WIND`]: of several nodes the first asked
    /// may be the one that answers late, and so may a subscription's.
    pub(super) async fn settled(&self) -> bool {
        let mut known = self.known.subscribe();
        if known.wait_for(|known| *known != Known::Asking).await.is_ok_and(|known| *known == Known::All) {
            return true;
        }
        let later = known.wait_for(|known| *known == Known::All);
        tokio::time::timeout(SECOND_WIND, later).await.is_ok_and(|known| known.is_ok())
    }
}

impl Resync {
    pub(super) fn new(progress: Arc<Progress>) -> Self {
        Self { progress, done: 0, next: Now::from_nanos(0), reading: None }
    }

    /// When it has something to ask.
    pub(super) fn due(&self) -> Now {
        if self.reading.is_some() || self.wished() != self.done { Now::from_nanos(0) } else { self.next }
    }

    fn wished(&self) -> u64 {
        self.progress.wanted.load(Ordering::Acquire)
    }

    /// The next calls, perhaps none: at most `room`, but for the lists that a reading begins with.
    pub(super) fn gather(
        &mut self,
        names: &Names,
        directory: &Directory,
        now: Now,
        room: usize,
        mut push: impl FnMut(Read, Call),
    ) {
        if room == 0 {
            return;
        }
        let wish = self.wished();
        if self.reading.is_none() && (wish != self.done || now >= self.next) {
            self.next = now + EVERY;
            // Before the first read, so that a subscription that breaks meanwhile is a new wish.
            let subscribed = self.progress.subscribed.load(Ordering::Acquire);
            let known = directory.catalog().accounts.iter().map(|account| account.id).collect();
            self.reading = Some(Reading::new(wish, subscribed, known));
            for shard in 0..SHARDS {
                let key = names.resting(shard);
                push(Read::List, Call::new("ZRANGE", &key).arg(&key[..]).arg(0).arg(LISTED - 1));
            }
        }
        let Some(reading) = &mut self.reading else { return };
        let later = reading.more.split_off(reading.more.len().min(room));
        for account in std::mem::replace(&mut reading.more, later) {
            push(Read::Rests(account), RESTS.call(&[&names.rests(account)]));
        }
    }

    /// The answer to one of them.
    pub(super) fn settle(&mut self, read: Read, answer: Answer, directory: &Directory, now: Now) {
        let Some(reading) = &mut self.reading else { return };
        match (read, answer) {
            (_, Err(Fault::Down | Fault::Refused(_))) => reading.failed = true,
            (Read::List, Ok(value)) => {
                let listed = redis::from_redis_value::<Vec<String>>(&value).unwrap_or_default();
                let listed = listed.iter().filter_map(|name| name.parse().ok());
                reading.more.extend(listed.filter(|account| reading.known.insert(*account)));
            }
            (Read::Rests(account), Ok(Value::Array(values))) => {
                for entry in values.chunks_exact(6) {
                    let Some((model, rest)) = entry_of(entry, now) else { continue };
                    reading.theirs.insert((account, model), rest);
                    directory.live().apply(&Delta { account, model, rest, since: Delta::LONG_AGO }, now);
                }
            }
            (Read::Rests(_), Ok(_)) => {}
        }
    }

    /// After all answers of a round: what of ours the others must hear of, once all was read.
    pub(super) fn finish(&mut self, directory: &Directory, now: Now) -> Vec<Delta> {
        let Some(reading) = self.reading.take_if(|reading| reading.failed || reading.more.is_empty()) else {
            return Vec::new();
        };
        self.done = reading.wish;
        if reading.failed {
            self.next = now + AGAIN;
            return Vec::new();
        }
        if reading.subscribed && self.progress.subscribed.load(Ordering::Acquire) {
            self.progress.known.send_replace(Known::All);
        }
        let mut ours = directory.live().snapshot(now);
        ours.retain(|delta| {
            let theirs = reading.theirs.get(&(delta.account, delta.model));
            theirs.is_none_or(|theirs| delta.rest.beats(theirs))
        });
        ours
    }
}

impl Reading {
    fn new(wish: u64, subscribed: bool, known: HashSet<AccountId, ahash::RandomState>) -> Self {
        let more = known.iter().copied().collect();
        Self { wish, subscribed, known, more, theirs: HashMap::default(), failed: false }
    }
}

/// (field, generation, left, level, reason, keep) of a script's answer.
fn entry_of(values: &[Value], now: Now) -> Option<(Option<ModelId>, Rest)> {
    let (Value::BulkString(field), numbers) = values.split_first()? else { return None };
    Some((model(field).ok()?, rest_of(numbers, now)?))
}

/// (generation, left, level, reason, keep) of a script's answer.
pub(super) fn rest_of(values: &[Value], now: Now) -> Option<Rest> {
    let [generation, left, level, reason, keep, ..] = values else { return None };
    let number = |value: &Value| if let Value::Int(n) = value { Some(*n) } else { None };
    let remaining = Remaining {
        generation: u32::try_from(number(generation)?).ok()?,
        left: number(left)?,
        level: u8::try_from(number(level)?).ok()?,
        reason: Reason::from_u8(u8::try_from(number(reason)?).ok()?)?,
        keep: u64::try_from(number(keep)?).ok()?,
    };
    Some(remaining.from(now))
}
