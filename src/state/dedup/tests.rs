//! The table's promises one by one, single-threaded and without a clock.

use super::*;
use crate::base::{KeyId, Now};
use crate::state::answer::Head;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const NOW: Now = Now::from_nanos(1_000);
const TTL: Duration = Duration::from_secs(60);

fn table() -> Arc<Dedup> {
    Dedup::new(Limits { ttl: TTL, kept: 64 << 10, answer: 8 << 10, flying: 32 << 10 })
}

fn claim(key: u64, idempotency_key: Option<&str>, body: &str) -> Claim {
    Fingerprints::new([1; 32]).claim(&Asked {
        caller: Caller::Key(KeyId(key)),
        method: "POST",
        path_and_query: "/v1/messages",
        versions: &[],
        idempotency_key: idempotency_key.map(str::as_bytes),
        catalog_version: 1,
        body: body.as_bytes(),
    })
}

fn ok() -> Head {
    Head { status: StatusCode::OK, headers: HeaderMap::new() }
}

fn lead(table: &Arc<Dedup>, claim: &Claim) -> Leader {
    match table.seat(claim, NOW) {
        Seat::Leader(leader) => leader,
        other => panic!("not the leader: {other:?}"),
    }
}

fn follow(table: &Arc<Dedup>, claim: &Claim) -> Follower {
    match table.seat(claim, NOW) {
        Seat::Follower(follower) => follower,
        other => panic!("not a follower: {other:?}"),
    }
}

fn next(follower: &mut Follower) -> Poll<Option<Step>> {
    follower.poll_next(&Context::from_waker(Waker::noop()))
}

/// What a follower reads until it must wait: `H`, the bytes, then `.` at the end, `!` when broken, `^` when it leads.
fn read(follower: &mut Follower) -> String {
    let mut text = String::new();
    loop {
        match next(follower) {
            Poll::Pending => return text,
            Poll::Ready(None) => return text + ".",
            Poll::Ready(Some(Step::Head(_))) => text += "H",
            Poll::Ready(Some(Step::Data(data))) => text += std::str::from_utf8(&data).unwrap(),
            Poll::Ready(Some(Step::Broken)) => return text + "!",
            Poll::Ready(Some(Step::LeaderGone(_))) => return text + "^",
        }
    }
}

#[test]
fn followers_get_the_bytes_so_far_then_the_live_rest_and_the_next_is_served_from_memory() {
    let (table, claim) = (table(), claim(1, None, "q"));
    let mut leader = lead(&table, &claim);
    let mut early = follow(&table, &claim);
    assert_eq!(read(&mut early), "");
    leader.head(ok());
    leader.push("one ".into());
    let mut late = follow(&table, &claim);
    assert_eq!((read(&mut early), read(&mut late)), ("Hone ".to_owned(), "Hone ".to_owned()));
    let chunk = Bytes::from("two");
    leader.push(chunk.clone());
    let Poll::Ready(Some(Step::Data(seen))) = next(&mut early) else { panic!("bytes are there") };
    assert_eq!(seen.as_ptr(), chunk.as_ptr(), "not copied");
    leader.finish(NOW);
    assert_eq!((read(&mut early), read(&mut late)), (".".to_owned(), "two.".to_owned()));
    drop((early, late));
    assert_eq!(table.flying_bytes(), 0);
    let Seat::Hit(answer) = table.seat(&claim, NOW + TTL / 2) else { panic!("kept") };
    assert_eq!(answer.body, "one two");
    assert!(matches!(table.seat(&claim, NOW + TTL), Seat::Leader(_)), "its time is over");
}

#[test]
fn the_oldest_follower_leads_when_the_leader_fails_before_its_first_byte() {
    let (table, claim) = (table(), claim(1, None, "q"));
    let leader = lead(&table, &claim);
    let mut tail = leader.tail().unwrap();
    let (first, mut second, mut third) = (follow(&table, &claim), follow(&table, &claim), follow(&table, &claim));
    leader.fail();
    assert_eq!(read(&mut tail), "!", "the failed leader's own client is told by it, and never leads");
    assert_eq!(read(&mut third), "");
    drop(first); // The lead was offered to it: it goes on to the next.
    assert_eq!(read(&mut third), "");
    let Poll::Ready(Some(Step::LeaderGone(mut leader))) = next(&mut second) else { panic!("it leads") };
    let mut fourth = follow(&table, &claim);
    leader.head(ok());
    leader.push("a".into());
    drop(leader);
    assert_eq!((read(&mut third), read(&mut fourth)), ("Ha!".to_owned(), "Ha!".to_owned()));
    assert!(table.is_empty());
}

#[test]
fn a_tail_that_saw_its_leader_fail_is_not_told_again_when_the_next_one_fails() {
    let (table, claim) = (table(), claim(1, None, "q"));
    let leader = lead(&table, &claim);
    let mut tail = leader.tail().unwrap();
    let mut heir = follow(&table, &claim);
    drop(leader);
    assert_eq!(read(&mut tail), "!");
    let Poll::Ready(Some(Step::LeaderGone(second))) = next(&mut heir) else { panic!("it leads") };
    drop(second);
    assert_eq!(read(&mut tail), ".", "it ended before");
}

#[test]
fn only_complete_2xx_answers_are_kept() {
    let (table, claim) = (table(), claim(1, None, "q"));
    let mut leader = lead(&table, &claim);
    leader.head(Head { status: StatusCode::BAD_REQUEST, ..ok() });
    leader.push("no".into());
    let mut follower = follow(&table, &claim);
    leader.finish(NOW);
    assert_eq!(read(&mut follower), "Hno.", "it was the same mistake");
    let leader = lead(&table, &claim);
    leader.finish(NOW); // No head at all: a failure.
    drop(lead(&table, &claim));
    assert!(table.is_empty());
}

#[test]
fn callers_never_share_and_a_name_is_good_for_one_body() {
    let table = table();
    let leader = lead(&table, &claim(1, Some("k"), "q"));
    let other = lead(&table, &claim(2, Some("k"), "q"));
    assert!(matches!(table.seat(&claim(1, Some("k"), "other"), NOW), Seat::Conflict));
    assert!(matches!(table.seat(&claim(1, Some("k2"), "other"), NOW), Seat::Leader(_)));
    for _ in 0..64 {
        table.sweep(NOW + 10 * TTL);
    }
    let late = NOW + 10 * TTL;
    assert!(matches!(table.seat(&claim(1, Some("k"), "other"), late), Seat::Conflict), "still in flight");
    drop((leader, other));
    assert!(matches!(table.seat(&claim(1, Some("k"), "other"), late), Seat::Leader(_)), "long forgotten");
}

#[test]
fn a_large_answer_takes_no_new_followers_is_not_kept_and_holds_no_more_than_its_listeners_need() {
    let (table, claim) = (table(), claim(1, None, "q"));
    let mut leader = lead(&table, &claim);
    leader.head(ok());
    let (mut reader, mut sleeper) = (follow(&table, &claim), follow(&table, &claim));
    let kilobyte = Bytes::from(vec![b'x'; 1 << 10]);
    for _ in 0..8 {
        leader.push(kilobyte.clone());
    }
    assert_eq!((table.flying_bytes(), read(&mut reader).len()), (8 << 10, 1 + (8 << 10)));
    leader.push(kilobyte.clone());
    let mut second = lead(&table, &claim);
    assert_eq!(table.flying_bytes(), 8 << 10, "the sleeper may lag so far and no further");
    assert_eq!(read(&mut sleeper), "!");
    leader.push(kilobyte.clone());
    assert_eq!(read(&mut reader).len(), 2 << 10);
    leader.push(kilobyte);
    assert_eq!(table.flying_bytes(), 1 << 10, "only what the reader has not read yet");
    leader.finish(NOW);
    assert_eq!(read(&mut reader).len(), (1 << 10) + 1);
    drop((reader, sleeper));
    second.head(ok());
    second.finish(NOW);
    assert!(matches!(table.seat(&claim, NOW), Seat::Hit(_)), "the old flight's end did not touch the new one");
    assert_eq!(table.flying_bytes(), 0);
}

#[test]
fn all_flights_together_are_bounded() {
    let table = table();
    let chunk = Bytes::from(vec![0; 4 << 10]);
    let mut leaders: Vec<_> = (0..40).map(|n| lead(&table, &claim(n, None, "q"))).collect();
    for leader in &mut leaders {
        leader.head(ok());
        leader.push(chunk.clone());
    }
    assert_eq!(table.flying_bytes(), 32 << 10, "eight hold theirs, the others hold nothing");
    drop(leaders);
    assert_eq!(table.flying_bytes(), 0);
}

#[test]
fn kept_answers_stay_under_their_cap_and_the_oldest_go_first() {
    let table = table();
    for n in 0..100 {
        let mut leader = lead(&table, &claim(n, None, "q"));
        leader.head(ok());
        leader.push(vec![0; 4 << 10].into());
        leader.finish(NOW);
    }
    assert!(table.kept_bytes() <= 64 << 10 && table.kept_bytes() > 56 << 10, "{}", table.kept_bytes());
    assert!(matches!(table.seat(&claim(99, None, "q"), NOW), Seat::Hit(_)));
    assert!(matches!(table.seat(&claim(80, None, "q"), NOW), Seat::Leader(_)));
    table.sweep(NOW + TTL);
    assert_eq!((table.kept_bytes(), table.len()), (0, 0));
}

#[test]
fn a_call_nobody_listens_to_may_stop_and_takes_nobody_aboard() {
    let (table, claim) = (table(), claim(1, None, "q"));
    let cx = Context::from_waker(Waker::noop());
    let mut leader = lead(&table, &claim);
    let tail = leader.tail();
    let follower = follow(&table, &claim);
    drop(tail);
    assert!(leader.poll_deserted(&cx).is_pending(), "the follower still listens");
    drop(follower);
    assert!(leader.poll_deserted(&cx).is_ready());
    let second = lead(&table, &claim);
    drop(leader);
    assert_eq!(table.len(), 1);
    drop(second);
    assert!(table.is_empty());
}
