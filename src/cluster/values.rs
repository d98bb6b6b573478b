//! Finished answers that all instances share, and who makes a call for all: on a thread and a connection of their own,
//! so that no large value ever stands before a limit's question.
//!
//! What waits while a round is under way is the next round; values in one round are bounded. While Redis is away nobody
//! even asks ([`Ends::up`] is false); a round that fails answers everybody "nothing", and what was to be put is lost: it
//! costs another call to a provider, never an error. A claim is renewed while its leader lives and lapses by itself
//! otherwise; whoever waits asks again and again until there is an answer, or the claim is its own.

use super::call::{Answer as Reply, Call, Fault, Script, script};
use super::codec::Names;
use super::dedup::Answers;
use super::link::Link;
use crate::base::metrics::METRICS;
use crate::base::tasks::{Drain, Phase};
use crate::base::{Clock, Now};
use crate::state::dedup::{Ends, Fingerprint, Found, LARGEST, Look, Name, Put};
use crate::state::reach::Reach;
use redis::Value;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::oneshot;

static LOOK: Script = script!("look.lua");
static RENEW: Script = script!("renew.lua");
static OVER: Script = script!("over.lua");
static NAMED: Script = script!("named.lua");

/// Questions in one round: each may bring a value back, and a round has time for all of them (`Patience::by_size`). So
/// few that a server which says nothing at all is found out within 1.5 s; by the shared rounds it is much sooner.
const LOOKS: usize = 8;
/// Bytes put in one round, roughly.
const PUT_BYTES: usize = 512 << 10;
/// How often a round looks whether the shared rounds found Redis gone.
const GLANCE: Duration = Duration::from_millis(25);
/// Calls of others waited for at most; beyond, one's own call is made.
const WAITING: usize = 1_024;
/// A claim lapses so long after its holder was last heard of.
const CLAIM_MS: u64 = 2_000;
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// At most so long without a look at what is due: claims to renew, whether Redis may be used.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Whoever waits asks again so often.
const POLL: Duration = Duration::from_millis(40);
/// For so long whoever waits is told to call alone, when there is no answer to share.
const ALONE_MS: u64 = 2_000;

/// The task's own.
pub(super) struct Values {
    link: Link,
    names: Names,
    answers: Answers,
    ends: Ends,
    epoch: u64,
    rounds: Rounds,
    waiting: HashMap<Fingerprint, Waiting, ahash::RandomState>,
    led: Vec<(Fingerprint, u64, Weak<()>)>,
    next_renewal: Now,
}

/// What the shared rounds know: they notice sooner that nobody is there, and whose Redis it is.
pub(super) struct Rounds {
    pub(super) reach: Arc<Reach>,
    pub(super) drain: Drain,
}

impl Rounds {
    /// Redis is away, or not to be used. Once they have ended they say nothing of it any more.
    fn away(&self) -> bool {
        !self.reach.is_up() && self.drain.phase() < Phase::Cut
    }
}

/// Who waits for another instance's call, and when to ask for it again.
struct Waiting {
    due: Now,
    askers: Vec<oneshot::Sender<Found>>,
}

/// One question, and all who asked it.
struct Asked {
    fingerprint: Fingerprint,
    /// Of the claim, if one is to be made.
    token: Option<u64>,
    askers: Vec<oneshot::Sender<Found>>,
    /// They were told already that another instance makes the call.
    wait: bool,
}

/// What was sent, in the order of the calls.
enum Sent {
    Look(Asked),
    /// Of the question after it: whether its name is used for nothing else.
    Named,
    Keep,
    Other,
}

impl Values {
    pub(super) fn new(link: Link, names: Names, answers: Answers, ends: Ends, epoch: u64, rounds: Rounds) -> Self {
        Self {
            link,
            names,
            answers,
            ends,
            epoch,
            rounds,
            waiting: HashMap::default(),
            led: Vec::new(),
            next_renewal: Now::default(),
        }
    }

    /// Serves until shutdown's last phase. `alone`: Redis must not be used, whoever answers there.
    pub(super) async fn run(mut self, alone: Arc<AtomicBool>) {
        let drain = self.rounds.drain.clone();
        let end = drain.reached(Phase::Cut);
        tokio::pin!(end);
        loop {
            let usable = self.link.is_up() && !self.rounds.away() && !alone.load(Ordering::Acquire);
            self.ends.up.store(usable, Ordering::Release);
            let now = Clock::now();
            let mut due = self.link.beat_due().unwrap_or(now + LOOK_AGAIN).min(now + LOOK_AGAIN);
            if !usable {
                self.forsake();
            } else if let Some(first) = self.waiting.values().map(|one| one.due).min() {
                due = due.min(first);
            }
            let (mut look, mut put) = (None, None);
            tokio::select! {
                got = self.ends.looks.recv() => look = got,
                got = self.ends.puts.recv() => put = got,
                () = tokio::time::sleep(due.since(now)) => {}
                _ = self.link.changed() => continue,
                () = &mut end => return self.last().await,
            }
            if usable {
                self.round(look, put, false).await;
            }
            if self.link.beat_due().is_some_and(|due| due <= Clock::now()) {
                self.link.beat().await;
            }
        }
    }

    /// Says which calls are over, so that nobody waits for them, and puts what can still be put.
    async fn last(&mut self) {
        self.ends.up.store(false, Ordering::Release);
        self.waiting.clear();
        self.led.clear();
        while self.ends.looks.try_recv().is_ok() {}
        self.round(None, None, true).await;
    }

    /// Whoever waits goes on alone; what was to be put is lost.
    fn forsake(&mut self) {
        self.waiting.clear();
        while self.ends.looks.try_recv().is_ok() {}
        while self.ends.puts.try_recv().is_ok() {
            METRICS.dedup_shared_dropped.inc();
        }
    }

    async fn round(&mut self, look: Option<Look>, put: Option<Put>, last: bool) {
        let now = Clock::now();
        let (mut calls, mut sent) = (Vec::new(), VecDeque::new());
        self.put(put, last, &mut calls, &mut sent);
        if now >= self.next_renewal {
            self.next_renewal = now + RENEW_EVERY;
            self.renew(&mut calls, &mut sent);
        }
        self.poll(now, &mut calls, &mut sent);
        self.look(look, &mut calls, &mut sent);
        if calls.is_empty() {
            return;
        }
        let replies = {
            let round = self.link.round(&calls);
            tokio::pin!(round);
            loop {
                tokio::select! {
                    replies = &mut round => break replies,
                    () = tokio::time::sleep(GLANCE) => {}
                }
                if self.rounds.away() {
                    // Given up half-way, the connection is of no more use; whoever asks goes on alone.
                    self.ends.up.store(false, Ordering::Release);
                    break vec![Err(Fault::Down); calls.len()];
                }
            }
        };
        let mut taken = false;
        for (sent, reply) in sent.into_iter().zip(replies) {
            match sent {
                Sent::Named => taken = reply == Ok(Value::Int(0)),
                Sent::Look(asked) if std::mem::take(&mut taken) => self.conflicts(asked, &reply),
                Sent::Look(asked) => self.found(asked, reply),
                Sent::Keep if reply.is_ok() => METRICS.dedup_shared_kept.inc(),
                Sent::Keep => METRICS.dedup_shared_dropped.inc(),
                Sent::Other => {}
            }
        }
    }

    fn put(&mut self, first: Option<Put>, all: bool, calls: &mut Vec<Call>, sent: &mut VecDeque<Sent>) {
        let mut next = first;
        let mut bytes = 0;
        while all || bytes < PUT_BYTES {
            let Some(put) = next.take().or_else(|| self.ends.puts.try_recv().ok()) else { return };
            match put {
                // At the end only what one round takes.
                Put::Keep(..) if bytes >= PUT_BYTES => METRICS.dedup_shared_dropped.inc(),
                Put::Keep(fingerprint, answer) => {
                    let Some(packed) = self.answers.pack(&fingerprint, &answer) else { continue };
                    bytes += packed.len();
                    let [key, _] = self.names.answer(&fingerprint);
                    let ttl = u64::try_from(self.ends.ttl.as_millis()).unwrap_or(u64::MAX).max(1);
                    calls.push(Call::new("SET", &key).arg(&key).arg(packed).arg("PX").arg(ttl));
                    sent.push_back(Sent::Keep);
                }
                Put::Over { fingerprint, token, well } => {
                    self.led.retain(|(_, held, _)| *held != token);
                    let [answer, claim] = self.names.answer(&fingerprint);
                    let call = OVER.call(&[&answer, &claim]);
                    calls.push(call.arg(self.token(token)).arg(u8::from(well)).arg(ALONE_MS));
                    sent.push_back(Sent::Other);
                    bytes += 64;
                }
            }
        }
    }

    fn renew(&mut self, calls: &mut Vec<Call>, sent: &mut VecDeque<Sent>) {
        // Gone without a word (its queue was full): it lapses.
        self.led.retain(|(_, _, held)| held.strong_count() > 0);
        for (fingerprint, token, _) in &self.led {
            let [_, claim] = self.names.answer(fingerprint);
            calls.push(RENEW.call(&[&claim]).arg(self.token(*token)).arg(CLAIM_MS));
            sent.push_back(Sent::Other);
        }
    }

    /// Asks again for what is waited for.
    fn poll(&mut self, now: Now, calls: &mut Vec<Call>, sent: &mut VecDeque<Sent>) {
        let due = self.waiting.iter().filter(|(_, one)| one.due <= now).map(|(fingerprint, _)| *fingerprint);
        for fingerprint in due.take(LOOKS).collect::<Vec<_>>() {
            let Some(mut one) = self.waiting.remove(&fingerprint) else { continue };
            one.askers.retain(|asker| !asker.is_closed());
            if !one.askers.is_empty() {
                let token = Some(self.ends.token());
                self.ask(Asked { fingerprint, token, askers: one.askers, wait: true }, calls, sent);
            }
        }
    }

    fn look(&mut self, first: Option<Look>, calls: &mut Vec<Call>, sent: &mut VecDeque<Sent>) {
        let mut next = first;
        for _ in 0..LOOKS {
            let Some(look) = next.take().or_else(|| self.ends.looks.try_recv().ok()) else { return };
            if !look.reply.is_closed() {
                self.named(look.name, calls, sent);
                let token = look.claim.then(|| self.ends.token());
                let askers = vec![look.reply];
                self.ask(Asked { fingerprint: look.fingerprint, token, askers, wait: false }, calls, sent);
            }
        }
    }

    fn ask(&self, asked: Asked, calls: &mut Vec<Call>, sent: &mut VecDeque<Sent>) {
        let [answer, claim] = self.names.answer(&asked.fingerprint);
        let token = asked.token.map_or_else(String::new, |token| self.token(token));
        calls.push(LOOK.call(&[&answer, &claim]).arg(token).arg(CLAIM_MS).back(LARGEST as u32));
        sent.push_back(Sent::Look(asked));
    }

    fn named(&self, name: Option<Name>, calls: &mut Vec<Call>, sent: &mut VecDeque<Sent>) {
        let Some(Name { name, content }) = name else { return };
        let ttl = u64::try_from(self.ends.ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        calls.push(NAMED.call(&[&self.names.named(&name)]).arg(&content[..]).arg(ttl));
        sent.push_back(Sent::Named);
    }

    fn conflicts(&self, asked: Asked, reply: &Reply) {
        if let (Ok(Value::Array(items)), Some(token)) = (reply, asked.token)
            && items.first() == Some(&Value::Int(2))
        {
            // The claim is ours, and nobody will make the call.
            drop(self.ends.lead(asked.fingerprint, token));
        }
        for asker in asked.askers {
            let _ = asker.send(Found::Conflict);
        }
    }

    fn found(&mut self, mut asked: Asked, reply: Reply) {
        // Dropping whoever asks answers "nothing".
        let Ok(Value::Array(items)) = reply else { return };
        let mut items = items.into_iter();
        match (items.next(), items.next(), items.next(), asked.token) {
            (Some(Value::Int(1)), Some(Value::BulkString(sealed)), Some(Value::Int(left)), _) => {
                let Some(answer) = self.answers.unpack(&asked.fingerprint, &sealed) else {
                    METRICS.dedup_shared_unreadable.inc();
                    return;
                };
                let (answer, left) = (Arc::new(answer), Duration::from_millis(u64::try_from(left).unwrap_or_default()));
                for asker in asked.askers {
                    // Whoever asked may have gone on alone by now.
                    let _ = asker.send(Found::Answer(Arc::clone(&answer), left));
                }
            }
            (Some(Value::Int(2)), .., Some(token)) => {
                // One of them leads; whoever else is here asked for the same and waits for it.
                let Some(first) = asked.askers.pop() else { return };
                let (led, held) = self.ends.lead(asked.fingerprint, token);
                self.led.push((asked.fingerprint, token, held));
                METRICS.dedup_claims_led.inc();
                // If it has left by now, the lead falls back here at once.
                let _ = first.send(Found::Lead(led));
                self.wait(asked);
            }
            (Some(Value::Int(3)), ..) => self.wait(asked),
            _ => {}
        }
    }

    fn wait(&mut self, asked: Asked) {
        let due = Clock::now() + POLL;
        for asker in asked.askers {
            if self.waiting.len() >= WAITING && !self.waiting.contains_key(&asked.fingerprint) {
                return;
            }
            let asker = if asked.wait {
                asker
            } else {
                let (later, wait) = oneshot::channel();
                if asker.send(Found::Wait(wait)).is_err() {
                    continue;
                }
                later
            };
            let waiting = self.waiting.entry(asked.fingerprint);
            waiting.or_insert_with(|| Waiting { due, askers: Vec::new() }).askers.push(asker);
        }
    }

    /// Fenced: no two leaders ever, of whatever process, have the same.
    fn token(&self, token: u64) -> String {
        format!("{:016x}-{token}", self.epoch)
    }
}
