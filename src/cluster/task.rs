//! The one Redis task: waits for the bell or for what is due, makes one round of it, hands out the answers.
//!
//! What gathers during a round trip is the next round (natural batching). While nobody is there, rounds are still made:
//! parts answer whoever waits, at once. The same while a part objects to Redis being used (it may be another deployment's):
//! then only that part's calls go out. What somebody waits for goes first; what may wait has a bounded share of each
//! round, small beside asks, so that no backlog ever stands before them. Ends with a last round, in which parts give back
//! what others could use.

use super::call::{Call, Fault};
use super::link::Link;
use super::{Part, Round, TENDED, TENDED_BESIDE_ASKS};
use crate::base::bell::Bell;
use crate::base::metrics::METRICS;
use crate::base::tasks::{Drain, Phase};
use crate::base::{Clock, Now};
use std::sync::Arc;
use std::time::Duration;

/// At most so long without a look at what is due.
const IDLE: Duration = Duration::from_millis(500);

/// Serves `parts` until shutdown's last phase.
pub(super) async fn run(mut link: Link, mut parts: Vec<Box<dyn Part>>, bell: Arc<Bell>, drain: Drain) {
    let end = drain.reached(Phase::Cut);
    tokio::pin!(end);
    let mut ended = false;
    let mut turn = 0;
    while !ended {
        let now = Clock::now();
        let due = parts.iter().filter_map(|part| part.due()).chain(link.beat_due()).fold(now + IDLE, Now::min);
        tokio::select! {
            biased;
            () = &mut end => ended = true,
            changed = link.changed() => {
                if changed.returned {
                    returned(&mut parts);
                } else if !link.is_up() {
                    for part in &mut parts {
                        part.unreachable();
                    }
                }
            }
            () = bell.heard() => {}
            () = rest(due.since(now)) => {}
        }
        let was_up = link.is_up();
        turn += 1;
        let was_barred = round(&mut link, &mut parts, &bell, ended, turn).await;
        let why = objection(&parts);
        if was_barred && why.is_none() {
            // All have heard of it before anybody is told that it is there.
            returned(&mut parts);
            round(&mut link, &mut parts, &bell, ended, turn).await;
        }
        link.bar(why);
        if link.beat_due().is_some_and(|due| due <= Clock::now()) {
            link.beat().await;
        }
        if was_up && !link.is_up() && !ended {
            // Nobody who came meanwhile waits for the bell to hear that there is nobody to ask; and whoever may object
            // does from now on, until it is heard whose Redis it is that comes back.
            round(&mut link, &mut parts, &bell, false, turn).await;
        }
    }
}

/// A timer's tick is a millisecond: what is due now does not wait for it.
async fn rest(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn objection(parts: &[Box<dyn Part>]) -> Option<Box<str>> {
    parts.iter().find_map(|part| part.objects())
}

/// While somebody objects only they hear of it; the others once that ends.
fn returned(parts: &mut [Box<dyn Part>]) {
    let (now, barred) = (Clock::now(), objection(parts).is_some());
    for part in parts.iter_mut().filter(|part| !barred || part.objects().is_some()) {
        part.returned(now);
    }
}

/// One round. Whether anybody objected to others taking part in it: that is asked anew each time, for before the first
/// word of whoever may object nothing else goes out, whatever was known of the Redis that was there before.
async fn round(link: &mut Link, parts: &mut [Box<dyn Part>], bell: &Bell, last: bool, turn: usize) -> bool {
    let (now, barred) = (Clock::now(), objection(parts).is_some());
    if let Some(since) = bell.waited() {
        METRICS.redis_queue_seconds.observe_micros(now.micros_since(since));
    }
    let mut gathered: Vec<Vec<Call>> = Vec::with_capacity(parts.len());
    let (mut asked, mut ups) = (false, Vec::with_capacity(parts.len()));
    for part in parts.iter_mut() {
        let mut calls = Vec::new();
        let up = link.is_up() && !(barred && part.objects().is_none());
        let mut round = Round::new(&mut calls, now, up);
        if last {
            part.close(&mut round);
        } else {
            part.gather(&mut round);
            asked |= round.asked;
        }
        gathered.push(calls);
        ups.push(up);
    }
    let mut room = if asked { TENDED_BESIDE_ASKS } else { TENDED };
    let count = if last { 0 } else { parts.len() };
    for at in (0..count).map(|n| (n + turn) % count) {
        let mut round = Round { room, ..Round::new(&mut gathered[at], now, ups[at]) };
        parts[at].tend(&mut round);
        room = round.room;
    }
    let mut calls = Vec::with_capacity(gathered.iter().map(Vec::len).sum());
    let mut counts = Vec::with_capacity(parts.len());
    for ((part, up), mut own) in parts.iter_mut().zip(ups).zip(gathered) {
        if barred && !up && !own.is_empty() {
            part.settle(&mut std::iter::repeat_n(Err(Fault::Down), own.len()), now);
            own.clear();
        }
        counts.push(own.len());
        calls.append(&mut own);
    }
    if calls.is_empty() {
        return barred;
    }
    let mut answers = link.round(&calls).await.into_iter();
    let now: Now = Clock::now();
    for (part, count) in parts.iter_mut().zip(counts) {
        if count > 0 {
            let mut own = answers.by_ref().take(count);
            part.settle(&mut own, now);
            // What it did not look at is not the next one's.
            own.for_each(drop);
        }
    }
    barred
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
