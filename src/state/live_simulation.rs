//! Instances that tell each other of rests over a bus that loses, repeats, delays and reorders, with a shared memory that
//! merges as Redis does, may be emptied, and is read on return: whatever happened, all agree in the end.
//!
//! Seeded; `MERIDO_SEED` replays one seed, `MERIDO_SEEDS` says how many are tried (1,500 unless said).

use super::*;
use crate::state::outbox::Tell as _;
use crate::state::rest::{Cost, TOMBSTONE};
use std::collections::BTreeMap;
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
const T0: Now = Now::from_nanos(3_600_000_000_000);
const LIMIT: Cost = Cost { reason: Reason::RateLimited, named: None, base: S, cap: Duration::from_secs(240) };
const AUTH: Cost =
    Cost { reason: Reason::Credentials, named: None, base: Duration::from_secs(120), cap: Duration::from_secs(1800) };
const BREAKER: Breaker = Breaker {
    failures: 3,
    window: Duration::from_secs(30),
    open: Duration::from_secs(30),
    cap: Duration::from_secs(300),
};
const ACCOUNTS: u64 = 2;
const MODELS: u64 = 2;

type Key = (AccountId, Option<ModelId>);

struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// The shared memory: the greater wins, and since when it stands.
#[derive(Default)]
struct Redis(BTreeMap<Key, (Rest, Now)>);

struct Peer {
    live: Live,
    /// Told, and not yet merged there.
    backlog: Vec<Delta>,
    /// Hears and reaches Redis.
    connected: bool,
}

struct World {
    peers: Vec<Peer>,
    redis: Redis,
    /// (when, to whom, what): delivered in any order once their time has come.
    bus: Vec<(Now, usize, Delta)>,
    now: Now,
    dice: Dice,
    seed: u64,
}

impl Redis {
    /// Merges; the winner and its age when that is not `delta`.
    fn merge(&mut self, delta: &Delta, now: Now) -> Option<(Rest, Duration)> {
        match self.0.get_mut(&delta.key()) {
            Some((held, since)) if *held >= delta.rest => (*held > delta.rest).then(|| (*held, now.since(*since))),
            entry => {
                let since = if delta.since == Delta::LONG_AGO { now } else { delta.since };
                match entry {
                    Some(entry) => *entry = (delta.rest, since),
                    None => drop(self.0.insert(delta.key(), (delta.rest, since))),
                }
                None
            }
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let peers = 2 + dice.roll(4) as usize;
        let peers = (0..peers).map(|_| Peer { live: Live::new(), backlog: Vec::new(), connected: true }).collect();
        Self { peers, redis: Redis::default(), bus: Vec::new(), now: T0, dice, seed }
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(self.dice.roll(1500));
        let me = self.dice.roll(self.peers.len() as u64) as usize;
        match self.dice.roll(40) {
            0..=15 => self.act(me),
            16..=30 => self.deliver(),
            31..=35 => self.speak(me),
            36 => self.peers[me].connected = false,
            37 => self.reconnect(me),
            38 if self.dice.roll(8) == 0 => self.redis.0.clear(),
            39 if self.dice.roll(8) == 0 => {
                // Killed; another one starts in its place.
                self.peers[me] = Peer { live: Live::new(), backlog: Vec::new(), connected: true };
                self.reconnect(me);
            }
            _ => {}
        }
    }

    /// Something ends, or an operator speaks.
    fn act(&mut self, me: usize) {
        let (now, dice) = (self.now, &mut self.dice);
        let account = AccountId(dice.roll(ACCOUNTS));
        let model = Some(ModelId(dice.roll(MODELS)));
        let started = now - Duration::from_millis(dice.roll(4000));
        let named = (dice.roll(3) == 0).then(|| Duration::from_secs(dice.roll(100)));
        let peer = &mut self.peers[me];
        let record = peer.live.of(account);
        let punish = |penalty| record.punish(&penalty, model, started, now).delta.into_iter().collect();
        let told: Vec<Delta> = match dice.roll(7) {
            0 | 1 => punish(Penalty::LockModel(Cost { named, ..LIMIT })),
            2 => punish(Penalty::CoolAccount(AUTH)),
            3 => punish(Penalty::CountFailure(BREAKER)),
            4 => record.open(&BREAKER, started, now).into_iter().collect(),
            5 => record.succeed(model, started, now).into_iter().flatten().collect(),
            _ if dice.roll(4) == 0 => peer.live.unlock(account, now),
            _ => Vec::new(),
        };
        peer.backlog.extend(told);
    }

    /// One round: merge, apply what won, tell once more what lost by the generation alone, publish what holds.
    fn speak(&mut self, me: usize) {
        if !self.peers[me].connected {
            return;
        }
        for delta in std::mem::take(&mut self.peers[me].backlog) {
            match self.redis.merge(&delta, self.now) {
                Some((winner, ago)) => {
                    let peer = &mut self.peers[me];
                    peer.live.apply(&Delta { rest: winner, since: Delta::LONG_AGO, ..delta }, self.now);
                    if let Some(again) = delta.retold(winner, ago, self.now) {
                        peer.live.apply(&again, self.now);
                        assert_eq!(again.retold(winner, ago, self.now), None, "seed {}: twice", self.seed);
                        peer.backlog.push(again);
                    }
                }
                None => self.publish(me, delta),
            }
        }
    }

    fn publish(&mut self, me: usize, delta: Delta) {
        for to in (0..self.peers.len()).filter(|&to| to != me) {
            // Lost, once, or twice.
            for _ in 0..self.dice.roll(4).min(2) {
                let late = Duration::from_millis(self.dice.roll(6000));
                self.bus.push((self.now + late, to, Delta { since: Delta::LONG_AGO, ..delta }));
            }
        }
    }

    fn deliver(&mut self) {
        if self.bus.is_empty() {
            return;
        }
        let at = self.dice.roll(self.bus.len() as u64) as usize;
        if self.bus[at].0 > self.now {
            return;
        }
        let (_, to, delta) = self.bus.swap_remove(at);
        let peer = &self.peers[to];
        if peer.connected {
            peer.live.apply(&delta, self.now);
            assert!(!peer.live.apply(&delta, self.now), "seed {}: a repeat is no news", self.seed);
        }
    }

    /// Subscribed: read everything, then tell what of ours still wins.
    fn reconnect(&mut self, me: usize) {
        let peer = &mut self.peers[me];
        peer.connected = true;
        for (&(account, model), &(rest, _)) in &self.redis.0 {
            peer.live.apply(&Delta { account, model, rest, since: Delta::LONG_AGO }, self.now);
        }
        for delta in peer.live.snapshot(self.now) {
            if self.redis.0.get(&delta.key()).is_none_or(|(theirs, _)| delta.rest.beats(theirs)) {
                peer.backlog.push(delta);
            }
        }
    }

    /// The network heals: each returns and is heard out, and once more for what came after the first ones.
    fn heal(&mut self) {
        for _ in 0..4 {
            for me in 0..self.peers.len() {
                self.reconnect(me);
                self.speak(me);
                self.speak(me);
            }
        }
        let told = self.peers.iter().map(|peer| peer.backlog.len()).sum::<usize>();
        assert_eq!(told, 0, "seed {}: it never ends", self.seed);
    }

    fn view(&self, peer: usize) -> BTreeMap<Key, Rest> {
        self.peers[peer].live.snapshot(self.now).iter().map(|delta| (delta.key(), delta.rest)).collect()
    }
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("MERIDO_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("MERIDO_SEEDS").unwrap_or(1500) + 1,
    }
}

#[test]
fn instances_converge_over_a_bad_bus() {
    let (mut tombstones, mut rests) = (0, 0);
    for seed in seeds() {
        let mut world = World::new(seed);
        (0..400).for_each(|_| world.step());
        let before = world.now;
        world.heal();
        let first = world.view(0);
        for peer in 1..world.peers.len() {
            let other = world.view(peer);
            assert_eq!(first.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>(), "seed {seed}");
            for (key, one) in &first {
                let two = other[key];
                let word = |rest: &Rest| (rest.generation, rest.is_live());
                assert_eq!(word(one), word(&two), "seed {seed}: {key:?}");
                let apart = one.until.since(two.until).max(two.until.since(one.until));
                assert!(apart <= crate::state::rest::SAME, "seed {seed}: {key:?}: {apart:?} apart");
            }
        }
        for (&(account, model), rest) in &first {
            assert!(rest.keep <= before + TOMBSTONE + 1800 * S, "seed {seed}: kept for ever");
            if rest.is_live() {
                rests += 1;
            } else {
                tombstones += 1;
            }
            for peer in &world.peers {
                let until = peer.live.of(account).why(model, world.now);
                let rests = rest.is_live() && rest.until > world.now + S;
                assert!(!rests || until.is_some(), "seed {seed}: the gate does not agree");
            }
        }
    }
    // One seed may hold none of either.
    assert!(seeds().count() == 1 || (tombstones > 100 && rests > 100), "{tombstones} and {rests}: it tests nothing");
}

#[test]
fn an_operators_word_is_not_undone_by_what_was_before_it() {
    for seed in seeds() {
        let mut world = World::new(seed);
        (0..150).for_each(|_| world.step());
        world.heal();
        // Some are cut off, and meet failures of their own; messages are still under way.
        for peer in &mut world.peers[1..] {
            peer.connected = world.dice.roll(2) == 0;
        }
        world.now = world.now + S;
        for _ in 0..10 {
            let me = world.dice.roll(world.peers.len() as u64) as usize;
            let (account, model) = (AccountId(world.dice.roll(ACCOUNTS)), ModelId(world.dice.roll(MODELS)));
            let limit = Penalty::LockModel(Cost { named: Some(600 * S), ..LIMIT });
            let penalty = if world.dice.roll(2) == 0 { limit } else { Penalty::CoolAccount(AUTH) };
            let (live, now) = (&world.peers[me].live, world.now);
            let told = live.of(account).punish(&penalty, Some(model), now - S / 2, now).delta;
            world.peers[me].backlog.extend(told);
        }
        // What rests by the operator's own instance's knowledge ends; the others do not hear of it yet.
        world.now = world.now + S;
        let rests = |(key, rest): (Key, Rest)| (rest.is_live() && key.0 == AccountId(0)).then_some(key);
        let ended: Vec<Key> = world.view(0).into_iter().filter_map(rests).collect();
        let told = world.peers[0].live.unlock(AccountId(0), world.now);
        assert_eq!(told.len(), ended.len());
        world.peers[0].backlog.extend(told);
        world.now = world.now + S;
        world.bus.iter_mut().for_each(|(when, ..)| *when = T0);
        (0..30).for_each(|_| world.deliver());
        world.heal();
        (0..30).for_each(|_| world.deliver());
        for (me, peer) in world.peers.iter().enumerate() {
            let back = peer.live.snapshot(world.now).into_iter().find(|d| d.rest.is_live() && ended.contains(&d.key()));
            assert_eq!(back, None, "seed {seed}: it rests again at {me}");
        }
        // And a fresh failure rests it everywhere, wherever it happens.
        let Some(&(account, model)) = ended.first() else { continue };
        let me = world.dice.roll(world.peers.len() as u64) as usize;
        let penalty = model.map_or(Penalty::CoolAccount(AUTH), |_| Penalty::LockModel(AUTH));
        let (started, now) = (world.now + S, world.now + 2 * S);
        world.now = now;
        let told = world.peers[me].live.of(account).punish(&penalty, model, started, now).delta;
        assert!(told.is_some(), "seed {seed}");
        world.peers[me].backlog.extend(told);
        world.heal();
        let resting = |peer: &Peer| peer.live.of(account).resting(model, now).is_some();
        assert!(world.peers.iter().all(resting), "seed {seed}: not honoured by all");
    }
}
