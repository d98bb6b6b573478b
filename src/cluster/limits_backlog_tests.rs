//! Many keys at once: who waits goes first, and what finds no room is not forgotten.

use super::*;

fn many(world: &World, keys: std::ops::Range<u64>, limits: &Limited) -> Vec<Taken> {
    let ask =
        |n| world.instances[0].limiter.ask(Subject::Key(KeyId(n)), limits, RequestId { epoch: 1, n }, 10, world.now);
    keys.map(ask).collect()
}

/// Calls of one round that has `room` for those that may wait.
fn calls(world: &mut World, room: usize) -> usize {
    let (now, part, mut calls) = (world.now, &mut world.instances[0].part, Vec::new());
    let mut round = Round::new(&mut calls, now, true);
    part.gather(&mut round);
    round.room = room;
    part.tend(&mut round);
    let answers = world.runtime.block_on(world.link.round(&at(&calls, server_clock(now))));
    world.instances[0].settle(answers, now);
    calls.len()
}

#[test]
fn who_waits_is_called_for_before_all_that_may_wait() {
    let mut world = World::new(1);
    let limits = Limited { rpm: 0, burst: 0, tpm: 6_000, max_parallel: 0 };
    let asked = many(&world, 0..300, &limits);
    assert_eq!(calls(&mut world, 0), ASKED, "what one trip takes; nothing that may wait");
    assert!(world.instances[0].part.due().is_some_and(|due| due <= world.now), "the rest follows at once");
    assert_eq!(calls(&mut world, 0), 300 - ASKED);
    for one in asked {
        let Taken::Later(waiting) = one else { panic!("nothing is known yet") };
        word(waiting, world.now).outcome.unwrap().settle(1, 20, world.now);
    }
    assert_eq!(calls(&mut world, 0), 0);
    world.pass(60);
    let asked = many(&world, 1_000..1_001, &limits);
    assert_eq!(calls(&mut world, 40), 41, "one waits, a part of the rest goes along");
    let Some(Taken::Later(waiting)) = asked.into_iter().next() else { panic!("nothing is known yet") };
    assert!(word(waiting, world.now).outcome.is_ok());
    let mut said = 40;
    while world.instances[0].part.due().is_some_and(|due| due <= world.now) {
        said += calls(&mut world, 40);
    }
    assert_eq!(said, 300, "nothing is left out");
    // Redis went away with some of them still waiting their turn: they are answered, too.
    let asked = many(&world, 2_000..2_300, &limits);
    assert_eq!(calls(&mut world, 0), ASKED);
    let now = world.now;
    assert!(world.instances[0].gather(now, false).is_empty());
    for one in asked {
        let Taken::Later(waiting) = one else { panic!("nothing is known yet") };
        drop(word(waiting, now));
    }
}

#[test]
fn a_settlement_without_room_is_counted_and_told_with_the_next() {
    let mut world = World::new(2);
    world.instances[0].part.most = 4;
    let limits = Limited { rpm: 0, burst: 0, tpm: 6_000, max_parallel: 0 };
    let get = |world: &mut World, of: usize, key: u64| {
        let id = RequestId { epoch: 1, n: key };
        match world.instances[of].limiter.ask(Subject::Key(KeyId(key)), &limits, id, 10, world.now) {
            Taken::Now(decision) => decision,
            Taken::Later(waiting) => {
                world.round(of, None);
                word(waiting, world.now)
            }
        }
    };
    let holds: Vec<_> = (0..10).map(|key| [(); 2].map(|()| get(&mut world, 0, key).outcome.unwrap())).collect();
    let (firsts, seconds): (Vec<_>, Vec<_>) = holds.into_iter().map(|[first, second]| (first, second)).unzip();
    let before = METRICS.limits_unsaid_over.get();
    for hold in firsts {
        hold.settle(1, 110, world.now);
    }
    assert_eq!(world.round(0, None), 0, "they gather");
    assert!(METRICS.limits_unsaid_over.get() >= before + 6, "counted");
    world.pass(60);
    assert_eq!(world.round(0, None), 4);
    for (key, hold) in seconds.into_iter().enumerate().skip(4) {
        hold.settle(1, 110, world.now);
        assert_eq!(world.round(0, None), 0);
        world.pass(60);
        assert_eq!(world.round(0, None), 1, "{key}: nobody calls for it");
        let left = get(&mut world, 1, key as u64).headers.tokens.unwrap().remaining;
        assert!(left < 5_880, "{key}: {left} of 6,000 less two times 110");
    }
}
