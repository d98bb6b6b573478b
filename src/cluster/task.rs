//! The one Redis task: waits for the bell or for what is due, makes one round of it, hands out the answers.
//!
//! What gathers during a round trip is the next round (natural batching). While nobody is there, rounds are still made:
//! parts answer whoever waits, at once. The same while a part objects to Redis being used (it may be another deployment's):
//! then only that part's calls go out. Ends with a last round, in which parts give back what others could use.

use super::call::{Call, Fault};
use super::link::Link;
use super::{Part, Round};
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
    // Before the first word of whoever may object nothing else goes out.
    let mut barred = objection(&parts).is_some();
    while !ended {
        let now = Clock::now();
        let due = parts.iter().filter_map(|part| part.due()).chain(link.beat_due()).fold(now + IDLE, Now::min);
        tokio::select! {
            biased;
            () = &mut end => ended = true,
            changed = link.changed() => {
                if changed.returned {
                    returned(&mut parts, barred);
                } else if !link.is_up() {
                    for part in &mut parts {
                        part.unreachable();
                    }
                }
            }
            () = bell.heard() => {}
            () = tokio::time::sleep(due.since(now)) => {}
        }
        let was_up = link.is_up();
        round(&mut link, &mut parts, &bell, ended, barred).await;
        let why = objection(&parts);
        if barred != why.is_some() {
            barred = why.is_some();
            if !barred {
                // All have heard of it before anybody is told that it is there.
                returned(&mut parts, false);
                round(&mut link, &mut parts, &bell, ended, false).await;
            }
        }
        link.bar(why);
        if link.beat_due().is_some_and(|due| due <= Clock::now()) {
            link.beat().await;
        }
        if was_up && !link.is_up() && !ended {
            // Nobody who came meanwhile waits for the bell to hear that there is nobody to ask.
            round(&mut link, &mut parts, &bell, false, barred).await;
        }
    }
}

fn objection(parts: &[Box<dyn Part>]) -> Option<Box<str>> {
    parts.iter().find_map(|part| part.objects())
}

/// While somebody objects only they hear of it; the others once that ends.
fn returned(parts: &mut [Box<dyn Part>], barred: bool) {
    let now = Clock::now();
    for part in parts.iter_mut().filter(|part| !barred || part.objects().is_some()) {
        part.returned(now);
    }
}

async fn round(link: &mut Link, parts: &mut [Box<dyn Part>], bell: &Bell, last: bool, barred: bool) {
    let now = Clock::now();
    if let Some(since) = bell.waited() {
        METRICS.redis_queue_seconds.observe_micros(now.micros_since(since));
    }
    let mut calls: Vec<Call> = Vec::new();
    let mut counts = Vec::with_capacity(parts.len());
    for part in parts.iter_mut() {
        let before = calls.len();
        let kept_out = barred && part.objects().is_none();
        let mut round = Round { calls: &mut calls, now, up: link.is_up() && !kept_out };
        if last {
            part.close(&mut round);
        } else {
            part.gather(&mut round);
        }
        if kept_out && calls.len() > before {
            let count = calls.split_off(before).len();
            part.settle(&mut std::iter::repeat_n(Err(Fault::Down), count), now);
        }
        counts.push(calls.len() - before);
    }
    if calls.is_empty() {
        return;
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
}
