//! The one Redis task: waits for the bell or for what is due, makes one round of it, hands out the answers.
//!
//! What gathers during a round trip is the next round (natural batching). Ends with a last round, in which parts give
//! back what others could use.

use super::call::Call;
use super::link::Link;
use super::{Part, Round};
use crate::base::bell::Bell;
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
    loop {
        if !link.is_up() && link.connect().await {
            let now = Clock::now();
            for part in &mut parts {
                part.returned(now);
            }
        }
        let now = Clock::now();
        let due = parts.iter().filter_map(|part| part.due()).min().unwrap_or(now + IDLE);
        let ended = tokio::select! {
            () = bell.heard() => false,
            () = tokio::time::sleep(due.since(now)) => false,
            () = &mut end => true,
        };
        round(&mut link, &mut parts, ended).await;
        if ended {
            return;
        }
    }
}

async fn round(link: &mut Link, parts: &mut [Box<dyn Part>], last: bool) {
    let now = Clock::now();
    let mut calls: Vec<Call> = Vec::new();
    let mut counts = Vec::with_capacity(parts.len());
    for part in parts.iter_mut() {
        let before = calls.len();
        let mut round = Round { calls: &mut calls, now, up: link.is_up() };
        if last {
            part.close(&mut round);
        } else {
            part.gather(&mut round);
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
