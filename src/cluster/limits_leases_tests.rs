//! What leases add up to: calls that gather, and one burst in all.

use super::*;

#[test]
fn settlements_of_a_busy_key_gather() {
    let mut world = World::new(2);
    let limits = Limited { rpm: 600_000, burst: 20_000, tpm: 60_000_000, max_parallel: 0 };
    let (mut waited, mut offered) = (0, 0);
    for _ in 0..3_000 {
        for of in 0..2 {
            offered += 1;
            let taken = world.instances[of].ask(&limits, 300, world.now);
            waited += u32::from(matches!(taken, Taken::Later(_)));
            let decision = match taken {
                Taken::Now(decision) => decision,
                Taken::Later(waiting) => {
                    world.round(of, None);
                    word(waiting, world.now)
                }
            };
            decision.outcome.unwrap().settle(1, 100, world.now);
            world.round(of, None);
        }
        world.pass(1);
    }
    assert!(waited * 20 < offered, "{waited} of {offered} waited");
    assert!(world.calls * 10 < offered as usize, "{} calls for {offered} requests", world.calls);
}

#[test]
fn what_is_lent_and_what_is_left_are_one_burst_together() {
    let mut world = World::new(2);
    let limits = requests(60_000, 400);
    for _ in 0..40 {
        assert!(world.ok(0, &limits));
        world.round(0, None);
        world.pass(1);
    }
    // All that was spent has flowed in again, but a lease is still out.
    world.pass(100);
    let elsewhere = (0..500).filter(|_| world.ok(1, &limits)).count();
    let lease = (0..500)
        .filter(|_| matches!(world.instances[0].ask(&limits, 0, world.now), Taken::Now(paid) if paid.outcome.is_ok()))
        .count();
    assert!(lease > 10 && elsewhere + lease <= 400, "{elsewhere} and {lease} on lease");
}

#[test]
fn what_is_held_is_shown() {
    let mut world = World::new(1);
    let peers = Arc::<Peers>::default();
    world.instances[0].part.shown = Some(Arc::clone(&peers));
    let limits = Limited { rpm: 60_000, burst: 400, tpm: 0, max_parallel: 40 };
    let mut running = Vec::new();
    for _ in 0..30 {
        running.extend(world.get(0, &limits, 0).ok());
        world.round(0, None);
        world.pass(1);
    }
    world.instances[0].part.next_look = world.now;
    world.round(0, None);
    let held = peers.view().leases;
    assert!(held.subjects == 1 && held.requests > 0 && held.slots >= 30, "{held:?}");
    running.clear();
    for _ in 0..60 {
        world.pass(100);
        world.round(0, None);
    }
    assert_eq!(peers.view().leases, LeasesView::default(), "nothing is left of it");
}
