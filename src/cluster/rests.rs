//! Rests among instances: what this one tells is merged into Redis and then published; failures are summed up; the one
//! half-open trial of an account is claimed.
//!
//! Published only once the merge is acknowledged, at the price of one more trip: whoever subscribes after the message
//! finds the rest when it reads. (In one pipeline a script that must be loaded first, or another node, would be later.)
//! What another instance knows better comes back with the merge and is applied, never told. While Redis is away trips
//! wait here (bounded, merged by key) and go out on return; failures count locally, and whoever claims decides alone.

use super::call::{Answer, Call, Fault, Script, script};
use super::codec::{Names, WHOLE, field, shard};
use super::resync::{Progress, Read, Resync, rest_of};
use super::wire::{Remaining, Voice, Writer};
use super::{Part, Round};
use crate::base::{AccountId, ModelId, Now};
use crate::state::breakers::{BreakerCalls, Claim, Claimed, Failed, Gathered};
use crate::state::catalog::Directory;
use crate::state::cooldowns::PROBE_LEASE;
use crate::state::delta::Delta;
use crate::state::outbox::{Tell, Tells};
use crate::state::rest::{Rest, TOMBSTONE};
use redis::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

static REST: Script = script!("rest.lua");
static RESTING: Script = script!("resting.lua");
static FAILURES: Script = script!("failures.lua");
static CLAIM: Script = script!("claim.lua");
static HOLD: Script = script!("hold.lua");

/// Rests waiting to be told at most.
const BACKLOG: usize = 65_536;
/// Before the next try when a node of several is down.
const AGAIN: Duration = Duration::from_millis(100);
/// A claim holds so long after its holder was last heard of, who renews it well before.
const CLAIM_HOLDS: Duration = Duration::from_secs(10);
const CLAIM_RENEWED: Duration = Duration::from_secs(3);
/// Failures of one account remembered at most.
const FAILURES_KEPT: u32 = 1024;

/// The part.
pub(super) struct Rests {
    names: Names,
    voice: Voice,
    directory: Arc<Directory>,
    tells: Tells<Delta>,
    calls: BreakerCalls,
    progress: Arc<Progress>,
    resync: Resync,
    backlog: HashMap<(AccountId, Option<ModelId>), Delta, ahash::RandomState>,
    /// Merged, and to be published in the next round.
    merged: Vec<Delta>,
    holds: Vec<Hold>,
    /// Trials that are over, to be said after what came of them.
    ended: Vec<(AccountId, u64)>,
    sent: Vec<Sent>,
    /// The server's time in milliseconds when it was last heard.
    server: Option<(i64, Now)>,
    up: bool,
    /// What came back with a node that is down is not tried again before.
    again: Now,
}

/// A trial that this instance makes.
#[derive(Clone, Copy)]
struct Hold {
    account: AccountId,
    token: u64,
    renew: Now,
    since: Now,
}

/// A call under way.
enum Sent {
    Rest(Delta),
    /// Of rests that are told again when it fails.
    Publish(Vec<Delta>),
    Failed(Failed),
    Claim(Claim),
    Read(Read),
    /// Whose answer does not matter.
    Note,
}

impl Rests {
    pub(super) fn new(
        names: Names,
        voice: Voice,
        directory: Arc<Directory>,
        tells: Tells<Delta>,
        calls: BreakerCalls,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            names,
            voice,
            directory,
            tells,
            calls,
            resync: Resync::new(Arc::clone(&progress)),
            progress,
            backlog: HashMap::default(),
            merged: Vec::new(),
            holds: Vec::new(),
            ended: Vec::new(),
            sent: Vec::new(),
            server: None,
            up: false,
            again: Now::from_nanos(0),
        }
    }

    fn put_back(&mut self, delta: Delta) {
        if let Some(there) = self.backlog.get_mut(&delta.key()) {
            there.merge(delta);
        } else if self.backlog.len() < BACKLOG {
            self.backlog.insert(delta.key(), delta);
        }
    }

    fn push(&mut self, round: &mut Round<'_>, sent: Sent, call: Call) {
        self.sent.push(sent);
        round.push(call);
    }

    /// What was told and waits: a part of it; the next round follows at once.
    fn tell(&mut self, round: &mut Round<'_>) {
        let keys: Vec<_> = self.backlog.keys().take(round.room).copied().collect();
        let batch: Vec<_> = keys.iter().filter_map(|key| self.backlog.remove(key)).collect();
        if batch.is_empty() {
            return;
        }
        let mut listed: BTreeMap<u64, BTreeMap<AccountId, u64>> = BTreeMap::new();
        for delta in &batch {
            let keep = keep(&delta.rest, round.now);
            let there = listed.entry(shard(delta.account)).or_default().entry(delta.account).or_default();
            *there = keep.max(*there);
            let server = self.server.map_or(-1, |(then, at)| then + round.now.since(at).as_millis() as i64);
            self.push(round, Sent::Rest(*delta), merge(&self.names, delta, keep, round.now).arg(server));
        }
        round.room = round.room.saturating_sub(batch.len());
        for (shard, accounts) in listed {
            let note = RESTING.call(&[&self.names.resting(shard)]);
            let note = accounts.iter().fold(note, |note, (account, keep)| note.arg(account.to_string()).arg(*keep));
            self.push(round, Sent::Note, note);
        }
    }

    /// One message for all that was merged.
    fn publish(&mut self, round: &mut Round<'_>) {
        if self.merged.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.merged);
        let mut message = Writer::new(self.voice);
        for delta in &batch {
            message.rest(delta, round.now);
        }
        // Any node will do: one that has just answered.
        let node = self.names.rests(batch[0].account);
        let publish = Call::new("PUBLISH", &node).arg(self.names.news()).arg(message.bytes());
        self.push(round, Sent::Publish(batch), publish);
    }

    fn count(&mut self, round: &mut Round<'_>, failed: Vec<Failed>) {
        for failed in failed {
            let generation = self.directory.live().of(failed.account).generation();
            let window = failed.breaker.window.as_millis().max(1) as u64;
            let call = FAILURES.call(&[&self.names.failures(failed.account, generation)]);
            self.push(round, Sent::Failed(failed), call.arg(failed.count).arg(window).arg(FAILURES_KEPT));
        }
    }

    fn claim(&mut self, round: &mut Round<'_>, claims: Vec<Claim>) {
        for claim in claims {
            let generation = self.directory.live().of(claim.account).generation();
            let call = CLAIM.call(&[&self.names.rests(claim.account), &self.names.trial(claim.account)]);
            let call = call.arg(WHOLE).arg(self.claimant(claim.token)).arg(generation);
            round.asked = true;
            self.push(round, Sent::Claim(claim), call.arg(CLAIM_HOLDS.as_millis() as u64));
        }
    }

    /// Ends and renews trials. Stands after what was told: nobody sees a trial's end before its verdict.
    fn hold(&mut self, round: &mut Round<'_>) {
        for (account, token) in std::mem::take(&mut self.ended) {
            if self.backlog.keys().any(|(untold, _)| *untold == account) {
                self.ended.push((account, token));
                continue;
            }
            self.holds.retain(|hold| hold.token != token);
            let call = HOLD.call(&[&self.names.trial(account)]).arg(self.claimant(token)).arg(0);
            self.push(round, Sent::Note, call);
        }
        // One that hangs is nobody's verdict: others may try.
        self.holds.retain(|hold| round.now.since(hold.since) < PROBE_LEASE);
        for at in 0..self.holds.len() {
            let Hold { account, token, renew, .. } = self.holds[at];
            if renew <= round.now {
                self.holds[at].renew = round.now + CLAIM_RENEWED;
                let call = HOLD.call(&[&self.names.trial(account)]).arg(self.claimant(token));
                self.push(round, Sent::Note, call.arg(CLAIM_HOLDS.as_millis() as u64));
            }
        }
    }

    fn claimant(&self, token: u64) -> String {
        format!("{:016x}:{token:x}", self.voice.epoch)
    }

    /// What the merge said; the server's time stands last.
    fn judged(&mut self, delta: &Delta, answer: Answer, now: Now) {
        let values = match answer {
            Ok(Value::Array(values)) => values,
            Ok(_) | Err(Fault::Refused(_)) => Vec::new(),
            Err(Fault::Down) => {
                self.again = now + AGAIN;
                return self.put_back(*delta);
            }
        };
        if let Some(Value::Int(time)) = values.last() {
            self.server = Some((*time, now));
        }
        let [Value::Int(0), rest @ .., Value::Int(ago), _] = &values[..] else {
            // Ours holds; or nobody can say, and then the others had better hear of it.
            return self.merged.push(*delta);
        };
        let Some(winner) = rest_of(rest, now) else { return };
        let live = self.directory.live();
        live.apply(&Delta { rest: winner, since: Delta::LONG_AGO, ..*delta }, now);
        let ago = Duration::from_millis(u64::try_from(*ago).unwrap_or(0));
        if let Some(again) = delta.retold(winner, ago, now) {
            live.apply(&again, now);
            self.put_back(again);
        }
    }

    fn counted(&mut self, failed: &Failed, answer: &Answer, now: Now) {
        let Ok(Value::Int(sum)) = answer else { return };
        if *sum >= i64::from(failed.breaker.failures) {
            let record = self.directory.live().of(failed.account);
            if let Some(delta) = record.open(&failed.breaker, failed.started, now) {
                self.put_back(delta);
            }
        }
    }

    fn claimed(&mut self, claim: Claim, answer: Answer, now: Now) {
        // Unanswered, its sender drops: whoever asked decides alone.
        let Ok(Value::Array(values)) = answer else { return };
        let said = match &values[..] {
            [Value::Int(1)] => {
                let Claim { account, token, .. } = claim;
                self.holds.push(Hold { account, token, renew: now + CLAIM_RENEWED, since: now });
                Claimed::Granted
            }
            [Value::Int(2), rest @ ..] => {
                if let Some(rest) = rest_of(rest, now) {
                    let delta = Delta { account: claim.account, model: None, rest, since: Delta::LONG_AGO };
                    self.directory.live().apply(&delta, now);
                }
                Claimed::Changed
            }
            [Value::Int(0), Value::Int(left)] => {
                Claimed::Elsewhere(Duration::from_millis(u64::try_from(*left).unwrap_or(0)))
            }
            _ => return,
        };
        // Whoever asked may have gone on alone by now; then his end of it still ends the claim.
        let _ = claim.reply.send(said);
    }
}

impl Part for Rests {
    fn gather(&mut self, round: &mut Round<'_>) {
        self.up = round.up;
        // In this order: see `BreakerCalls::take`.
        let Gathered { failed, mut claims, ended } = self.calls.take();
        // Whose asker did not wait for it, and is done.
        claims.retain(|claim| !ended.contains(&(claim.account, claim.token)));
        self.ended.extend(ended);
        for delta in self.tells.told() {
            self.put_back(delta);
        }
        if !round.up {
            // Claims drop unanswered; failures count here alone.
            self.holds.clear();
            self.ended.clear();
            for delta in std::mem::take(&mut self.merged) {
                self.put_back(delta);
            }
            return;
        }
        self.publish(round);
        self.count(round, failed);
        self.claim(round, claims);
    }

    fn tend(&mut self, round: &mut Round<'_>) {
        if !round.up {
            return;
        }
        self.tell(round);
        self.hold(round);
        let sent = &mut self.sent;
        let (now, room) = (round.now, round.room);
        self.resync.gather(&self.names, &self.directory, now, room, |read, call| {
            sent.push(Sent::Read(read));
            round.tend(call);
        });
    }

    fn settle(&mut self, answers: &mut dyn Iterator<Item = Answer>, now: Now) {
        let mut read = false;
        for (sent, answer) in std::mem::take(&mut self.sent).into_iter().zip(answers) {
            match sent {
                Sent::Rest(delta) => self.judged(&delta, answer, now),
                Sent::Publish(batch) => {
                    if answer == Err(Fault::Down) {
                        self.again = now + AGAIN;
                        for delta in batch {
                            self.put_back(delta);
                        }
                    }
                }
                Sent::Failed(failed) => self.counted(&failed, &answer, now),
                Sent::Claim(claim) => self.claimed(claim, answer, now),
                Sent::Read(what) => {
                    read = true;
                    self.resync.settle(what, answer, &self.directory, now);
                }
                Sent::Note => {}
            }
        }
        if read {
            for delta in self.resync.finish(&self.directory, now) {
                self.put_back(delta);
            }
        }
    }

    fn due(&self) -> Option<Now> {
        if !self.up {
            return None;
        }
        if !self.merged.is_empty() {
            return Some(Now::from_nanos(0));
        }
        let told = (!self.backlog.is_empty()).then_some(self.again);
        let renewals = self.holds.iter().map(|hold| hold.renew);
        renewals.chain(told).chain([self.resync.due()]).min()
    }

    fn returned(&mut self, _now: Now) {
        self.up = true;
        // Perhaps another server.
        self.server = None;
        self.progress.want();
    }

    fn unreachable(&mut self) {
        self.progress.unreachable();
    }

    fn close(&mut self, round: &mut Round<'_>) {
        self.gather(round);
        self.tend(round);
        if round.up {
            // There is no next round.
            let told =
                self.sent.iter().filter_map(|sent| if let Sent::Rest(delta) = sent { Some(*delta) } else { None });
            self.merged = told.collect();
            self.publish(round);
        }
        self.ended.extend(self.holds.iter().map(|hold| (hold.account, hold.token)));
        self.hold(round);
    }
}

/// Milliseconds for which a rest must be remembered: one that ended waits for its trial.
fn keep(rest: &Rest, now: Now) -> u64 {
    let end = if rest.is_live() { rest.until + TOMBSTONE } else { rest.keep };
    now.until(end).as_millis().max(1) as u64
}

fn merge(names: &Names, delta: &Delta, keep: u64, now: Now) -> Call {
    let Remaining { generation, left, level, reason, .. } = Remaining::of(&delta.rest, now);
    let ago = if delta.since == Delta::LONG_AGO { -1 } else { now.since(delta.since).as_millis() as i64 };
    let call = REST.call(&[&names.rests(delta.account)]).arg(field(delta.model));
    call.arg(generation).arg(left).arg(level).arg(reason as u8).arg(keep).arg(ago)
}
