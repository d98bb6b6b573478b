//! Real instances on a real Redis that is flushed, killed and whose connections are reset at random: all agree in the end.
//!
//! Seeded, but not to be replayed to the microsecond: the machine takes part. `MERIDO_SEED` picks one.

use super::*;
use crate::state::rest::Rest;
use std::collections::BTreeMap;

type View = BTreeMap<(AccountId, Option<ModelId>), Rest>;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

fn seen(instance: &Instance) -> View {
    let all = instance.directory.live().snapshot(Clock::now());
    all.into_iter().map(|delta| ((delta.account, delta.model), delta.rest)).collect()
}

/// As far as it matters: who rests, since which clearing, until when.
fn agree(one: &View, two: &View) -> bool {
    let near = |a: &Rest, b: &Rest| a.until.since(b.until).max(b.until.since(a.until)) < Duration::from_millis(200);
    let same = |a: &Rest, b: &Rest| a.generation == b.generation && a.is_live() == b.is_live() && near(a, b);
    one.len() == two.len() && one.iter().all(|(key, rest)| two.get(key).is_some_and(|other| same(rest, other)))
}

fn act(instance: &Instance, dice: &mut Dice) {
    let account = AccountId(1 + dice.roll(4));
    let started = Clock::now() - Duration::from_millis(dice.roll(50));
    let named = (dice.roll(2) == 0).then(|| Duration::from_secs(20 + dice.roll(100)));
    match dice.roll(8) {
        0..=2 => instance.punish(account, &Penalty::LockModel(Cost { named, ..LIMIT }), started),
        3 => instance.punish(account, &Penalty::CoolAccount(AUTH), started),
        4 | 5 => instance.punish(account, &Penalty::CountFailure(BREAKER), started),
        6 => instance.succeed(account, started),
        _ => instance.unlock(account),
    }
}

#[test]
fn instances_agree_whatever_befalls_redis() {
    let seeds = match std::env::var("MERIDO_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 1..7u64,
    };
    for seed in seeds {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut server = RedisServer::start();
        let mut instances: Vec<_> = (0..3).map(|n| Instance::joined(&server, 10 + n)).collect();
        for step in 0..150 {
            let me = dice.roll(3) as usize;
            match dice.roll(50) {
                0 => drop(server.command("CLIENT KILL TYPE pubsub")),
                1 => drop(server.command("CLIENT KILL TYPE normal")),
                2 => drop(server.command("FLUSHALL")),
                3 => drop(server.command("SCRIPT FLUSH")),
                4 if dice.roll(3) == 0 => server.revive(),
                5 if dice.roll(3) == 0 => instances[me] = Instance::start(&server, 100 + step),
                6 => std::thread::sleep(Duration::from_millis(dice.roll(30))),
                _ => act(&instances[me], &mut dice),
            }
        }
        // What a flush took without a sound comes back with the next reading, which a reset brings about.
        server.command("CLIENT KILL TYPE pubsub");
        eventually(&format!("seed {seed}: all agree"), || {
            let views: Vec<_> = instances.iter().map(seen).collect();
            agree(&views[0], &views[1]) && agree(&views[0], &views[2])
        });
        eventually(&format!("seed {seed}: a newcomer knows the same"), || {
            agree(&seen(&instances[0]), &seen(&Instance::joined(&server, 999)))
        });
    }
}
