//! Who is next: the target's strategy first, then one of its accounts.
//!
//! Skips who rests, who is locked and who was tried; each (account, model) gets at most one attempt per request and a
//! request at most [`MOST_ATTEMPTS`]. Locks nothing and allocates nothing while targets are healthy. When nobody is
//! left it says why, so that the client learns when to come back.

use super::Plan;
use crate::base::{AccountId, Error, ErrorKind, Now};
use crate::state::catalog::{Account, Strategy};
use crate::state::latency::{Latency, Speed};
use crate::state::live::Probe;
use crate::state::rest::Reason;
use crate::state::targets::{Leg, ModelRef, Route, Seat, Seats};
use std::sync::Arc;
use std::time::Duration;

/// Attempts of one request at most, whatever its plan says.
pub const MOST_ATTEMPTS: usize = 8;

/// The next step of a request.
#[derive(Debug)]
pub enum Pick {
    /// Try this one. Keep the probe until the verdict was applied.
    Go(Target, Option<Probe>),
    /// Every target rests.
    AllResting {
        /// When the first one may be tried again.
        earliest: Now,
        /// Why that one rests.
        why: Reason,
        /// All of them rest because of the providers' limits: a 429 rather than a 503.
        limits_only: bool,
    },
    /// Something was tried, and nothing else is left.
    Exhausted,
}

/// An account and a model on it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The account and its live record.
    pub seat: Arc<Seat>,
    /// What to ask for.
    pub model: ModelRef,
    speed: Option<Arc<Latency>>,
}

/// What a request tried so far.
#[derive(Debug)]
pub struct Tried {
    list: [(AccountId, u64); MOST_ATTEMPTS],
    len: usize,
    start: usize,
}

/// A small random generator, one per core: no shared state, and seeded in tests.
#[derive(Debug)]
pub struct Dice(u64);

/// The next target of `plan` for a request that already `tried` some.
pub fn pick(plan: &Plan, tried: &mut Tried, dice: &mut Dice, now: Now) -> Pick {
    if tried.len == MOST_ATTEMPTS {
        return Pick::Exhausted;
    }
    let found = match plan {
        Plan::Direct { seats, model } => from_seats(seats, model, 0, tried, dice, now)
            .map(|(index, probe)| (target(seats, model, None, index), 0, probe)),
        Plan::Virtual(route) => from_route(route, tried, dice, now),
    };
    match found {
        Some((target, ident, probe)) => {
            tried.push(target.seat.account.id, ident);
            Pick::Go(target, probe)
        }
        None => nobody(plan, tried, now),
    }
}

impl Pick {
    /// What the client reads when every target rests; `None` for the other picks.
    pub fn refusal(&self, now: Now) -> Option<Error> {
        let Self::AllResting { earliest, why, limits_only } = self else { return None };
        let (kind, message) = if *limits_only {
            (ErrorKind::RateLimited, "The providers' limits are reached on every account for this model.".into())
        } else {
            (ErrorKind::Unavailable, format!("No account is available for this model now ({}).", why.name()).into())
        };
        Some(Error {
            kind,
            message,
            param: None,
            retry_after: Some(now.until(*earliest).max(Duration::from_millis(1))),
        })
    }
}

impl Target {
    /// The account.
    pub fn account(&self) -> &Arc<Account> {
        &self.seat.account
    }

    /// The first byte came after `took`: feeds `latency_based`.
    pub fn answered(&self, took: Duration, now: Now) {
        if let Some(speed) = &self.speed {
            speed.observe(took, now);
        }
    }

    /// The attempt failed by the provider's fault: feeds `latency_based`.
    pub fn failed(&self, now: Now) {
        if let Some(speed) = &self.speed {
            speed.observe_failure(now);
        }
    }
}

impl Default for Tried {
    fn default() -> Self {
        Self { list: [(AccountId(0), 0); MOST_ATTEMPTS], len: 0, start: 0 }
    }
}

impl Tried {
    /// Attempts so far.
    pub fn attempts(&self) -> usize {
        self.len
    }

    /// The last one was not tried after all.
    pub fn take_back(&mut self) {
        self.len = self.len.saturating_sub(1);
    }

    fn push(&mut self, account: AccountId, ident: u64) {
        self.list[self.len] = (account, ident);
        self.len += 1;
    }

    fn has(&self, account: AccountId, ident: u64) -> bool {
        self.list[..self.len].contains(&(account, ident))
    }
}

impl Dice {
    /// Any seed will do.
    pub const fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// Steele's split-and-mix: passes statistical tests, three multiplications' worth of time.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 … `sides` − 1.
    fn roll(&mut self, sides: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(sides)) >> 64) as u64
    }
}

type Found = Option<(Target, u64, Option<Probe>)>;

fn from_route(route: &Route, tried: &mut Tried, dice: &mut Dice, now: Now) -> Found {
    if route.strategy == Strategy::LatencyBased {
        return fastest(route, tried, now);
    }
    if route.strategy == Strategy::LoadBalance && tried.len == 0 {
        tried.start = route.next_turn();
    }
    let legs = route.legs.len();
    // A bit for each leg that has nobody (left).
    let mut out = 0u64;
    for round in 0..legs {
        let index = match route.strategy {
            Strategy::LoadBalance => (tried.start + round) % legs,
            Strategy::CostOptimized => route.by_price[round] as usize,
            Strategy::Weighted => weighted(route, out, dice),
            Strategy::Failover | Strategy::LatencyBased => round,
        };
        let leg = &route.legs[index];
        if let Some((seat, probe)) = from_seats(&leg.seats, &leg.model, leg.ident, tried, dice, now) {
            return Some((target(&leg.seats, &leg.model, None, seat), leg.ident, probe));
        }
        out |= 1 << index;
    }
    None
}

fn weighted(route: &Route, out: u64, dice: &mut Dice) -> usize {
    let left = |index: &usize| out & (1 << index) == 0;
    let total: u64 = (0..route.legs.len()).filter(left).map(|i| u64::from(route.legs[i].weight)).sum();
    let mut ticket = dice.roll(total);
    for index in (0..route.legs.len()).filter(left) {
        let weight = u64::from(route.legs[index].weight);
        if ticket < weight {
            return index;
        }
        ticket -= weight;
    }
    0
}

/// One of the seats by two random choices over running attempts per weight. First draws follow the weights, so that an
/// idle provider's accounts are used by their shares too.
fn from_seats(
    seats: &Seats,
    model: &ModelRef,
    ident: u64,
    tried: &Tried,
    dice: &mut Dice,
    now: Now,
) -> Option<(usize, Option<Probe>)> {
    let id = model.id();
    let free = |index: usize| {
        let seat = &seats.all[index];
        seat.live.resting(id, now).is_none() && !tried.has(seat.account.id, ident)
    };
    let enter = |index: usize| seats.all[index].live.admit(now).ok().map(|probe| (index, probe));
    let count = seats.all.len();
    if count == 1 {
        return if free(0) { enter(0) } else { None };
    }
    let (one, two) = (draw(seats, dice), draw(seats, dice));
    let better = match (free(one), one != two && free(two)) {
        (true, true) if busier(&seats.all[one], &seats.all[two]) => Some(two),
        (true, _) => Some(one),
        (false, true) => Some(two),
        (false, false) => None,
    };
    if let Some(found) = better.and_then(enter) {
        return Some(found);
    }
    // Both draws were bad luck (or lost the race for a probe): look at all, from a random place on.
    let start = dice.roll(count as u64) as usize;
    (0..count).map(|step| (start + step) % count).filter(|&index| free(index)).find_map(enter)
}

fn draw(seats: &Seats, dice: &mut Dice) -> usize {
    if seats.even {
        return dice.roll(seats.all.len() as u64) as usize;
    }
    let mut ticket = dice.roll(seats.weight);
    for (index, seat) in seats.all.iter().enumerate() {
        if ticket < seat.weight() {
            return index;
        }
        ticket -= seat.weight();
    }
    0
}

fn busier(one: &Seat, two: &Seat) -> bool {
    u64::from(one.live.running()) * two.weight() > u64::from(two.live.running()) * one.weight()
}

/// The fastest (account, model); who was not measured lately is tried by one attempt first.
fn fastest(route: &Route, tried: &Tried, now: Now) -> Found {
    let mut lost = [0u64; MOST_ATTEMPTS];
    let mut losses = 0;
    loop {
        let mut best: Option<(&Leg, usize, u64)> = None;
        for leg in &route.legs {
            for (index, seat) in leg.seats.all.iter().enumerate() {
                let mark = seat.account.id.0 ^ leg.ident;
                if tried.has(seat.account.id, leg.ident)
                    || lost[..losses].contains(&mark)
                    || seat.live.resting(leg.model.id(), now).is_some()
                {
                    continue;
                }
                let micros = match leg.speeds[index].speed(now) {
                    Speed::Unknown if leg.speeds[index].claim(now) => 0,
                    Speed::Unknown | Speed::BeingTried => u64::from(u32::MAX) + 1,
                    // Within an eighth two are equally fast: the less busy one is then the better bet.
                    Speed::Micros(micros) => u64::from(micros),
                };
                let wins = best.is_none_or(|(other, at, than)| {
                    let alike = micros.abs_diff(than) <= micros.min(than) / 8;
                    if alike { busier(&other.seats.all[at], seat) } else { micros < than }
                });
                if wins {
                    best = Some((leg, index, micros));
                }
                if micros == 0 {
                    break;
                }
            }
            if best.is_some_and(|(_, _, micros)| micros == 0) {
                break;
            }
        }
        let (leg, index, _) = best?;
        let seat = &leg.seats.all[index];
        if let Ok(probe) = seat.live.admit(now) {
            return Some((target(&leg.seats, &leg.model, Some(&leg.speeds[index]), index), leg.ident, probe));
        }
        if losses == lost.len() {
            return None;
        }
        lost[losses] = seat.account.id.0 ^ leg.ident;
        losses += 1;
    }
}

fn target(seats: &Seats, model: &ModelRef, speed: Option<&Arc<Latency>>, index: usize) -> Target {
    Target { seat: Arc::clone(&seats.all[index]), model: model.clone(), speed: speed.cloned() }
}

/// Nobody is left: all resting, or all tried.
fn nobody(plan: &Plan, tried: &Tried, now: Now) -> Pick {
    let mut earliest: Option<(Now, Reason)> = None;
    let (mut awake, mut limits_only) = (false, true);
    let mut look = |seats: &Seats, model: &ModelRef| {
        for seat in &seats.all {
            match seat.live.why(model.id(), now) {
                None => awake = true,
                Some(rest) => {
                    limits_only &= rest.1.is_limit();
                    earliest = Some(earliest.map_or(rest, |first| first.min(rest)));
                }
            }
        }
    };
    match plan {
        Plan::Direct { seats, model } => look(seats, model),
        Plan::Virtual(route) => route.legs.iter().for_each(|leg| look(&leg.seats, &leg.model)),
    }
    match earliest {
        Some((earliest, why)) if !awake => Pick::AllResting { earliest, why, limits_only },
        // Somebody woke up (or gave his probe back) just now: as good as half a second's rest.
        _ if tried.len == 0 => {
            Pick::AllResting { earliest: now + Duration::from_millis(500), why: Reason::Failing, limits_only: false }
        }
        _ => Pick::Exhausted,
    }
}

#[cfg(test)]
#[path = "pick_tests.rs"]
mod tests;
