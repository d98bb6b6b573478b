//! The ring with other instances' events: each once, in each writer's order, by the position alone.

use super::tests::{NOW, event, read};
use super::*;
use crate::base::RequestId;
use std::task::Context;

const OWN: u64 = 0xa;
const B: u64 = 0xb;
const C: u64 = 0xc;

fn entry(epoch: u64, prev: u64, seq: u64, ms: u64) -> Entry {
    let far = FarEvent {
        instance: "far".into(),
        request: RequestId { epoch, n: seq },
        unix_ms: 0,
        client_request_id: None,
        key: None,
        dialect: "openai".into(),
        stream: false,
        requested_model: "m".into(),
        account: None,
        model: None,
        done: None,
    };
    Entry { epoch, prev, seq, ms, what: What::Event(Item::Far(Arc::new(far))) }
}

/// In a row, one a millisecond.
fn row(epoch: u64, from: u64, to: u64, ms: u64) -> Vec<Entry> {
    (from..=to).map(|seq| entry(epoch, seq - 1, seq, ms + seq - from)).collect()
}

fn take(bus: &Bus, entries: Vec<Entry>) -> (u64, u64) {
    let last = entries.last().map_or(0, |entry| entry.ms);
    bus.far(entries.into_iter(), 0, last, NOW)
}

fn own(bus: &Bus, n: u64) {
    bus.emit(0, event(n, true));
    bus.collect(NOW);
}

fn bus() -> Arc<Bus> {
    let bus = Bus::new(OWN, 1);
    bus.tap();
    bus
}

#[test]
fn a_cluster_keeps_our_events_until_they_are_carried_away_or_nobody_wants_them() {
    let bus = bus();
    assert!(bus.cold() && bus.wanted());
    (1..=5).for_each(|n| own(&bus, n));
    let numbers = |after| {
        let (lost, events) = bus.own_after(after, 3);
        (lost, events.into_iter().map(|(seq, _)| seq).collect::<Vec<_>>())
    };
    assert_eq!(numbers(0), (0, vec![1, 2, 3]));
    assert_eq!(numbers(3), (0, vec![4, 5]));
    bus.forget_own(2);
    assert_eq!(numbers(1), (1, vec![3, 4, 5]), "one of what was asked for is gone");
    let reader = bus.subscribe(None);
    bus.forget_own(5);
    assert_eq!(numbers(4), (0, vec![5]), "somebody here may come back to them");
    drop(reader);
    bus.collect(NOW + WARM * 2);
    bus.forget_own(5);
    assert_eq!(numbers(5), (0, vec![]));
    own(&bus, 6);
    assert_eq!(numbers(5), (0, vec![6]), "numbers go on");
}

#[test]
fn others_events_come_once_and_what_is_missing_is_a_gap() {
    let bus = bus();
    let mut reader = bus.subscribe(None);
    bus.follow(100);
    assert_eq!(take(&bus, row(B, 40, 42, 101)), (3, 0));
    own(&bus, 1);
    assert_eq!(take(&bus, row(B, 40, 43, 105)), (1, 0), "sent again");
    assert_eq!(take(&bus, row(OWN, 1, 1, 110)), (0, 0), "our own echo");
    assert_eq!(read(&mut reader), ["40:40", "41:41", "42:42", "1:1", "43:43"]);
    assert_eq!(reader.position().to_string(), "a.1-b.43-0.110");
    // Left out on purpose: no gap. Not there: a gap. Lost for good: a gap, even of a writer nobody knew.
    assert_eq!(take(&bus, vec![entry(B, 43, 50, 111)]), (1, 0));
    assert_eq!(take(&bus, vec![entry(B, 54, 55, 112)]), (1, 4));
    let lost = Entry { what: What::Lost(7), ..entry(C, 0, 7, 113) };
    assert_eq!(take(&bus, vec![lost, entry(C, 7, 8, 113)]), (2, 7));
    assert_eq!(read(&mut reader), ["50:50", "gap 4", "55:55", "gap 7", "8:8"]);
}

#[test]
fn what_a_writer_sends_again_from_before_anybody_watched_is_old() {
    let bus = bus();
    let mut reader = bus.subscribe(None);
    bus.follow(100);
    assert_eq!(bus.far(row(B, 1, 3, 99).into_iter(), 100, 200, NOW), (2, 0), "the first is older");
    assert_eq!(read(&mut reader), ["2:2", "3:3"]);
}

#[test]
fn whoever_comes_back_reads_the_stream_then_the_ring_each_event_once() {
    let bus = bus();
    let mut other = bus.subscribe(None);
    bus.follow(100);
    (1..=3).for_each(|n| own(&bus, n));
    bus.acked(3, 104);
    take(&bus, row(B, 10, 12, 110));
    // It was elsewhere: saw B up to 8 and the stream up to 103, knows nothing of us nor of C.
    let position = Position::parse("b.8-0.103").unwrap();
    let mut back = bus.subscribe(Some(&position));
    assert_eq!(read(&mut back), ["1:1", "2:2", "3:3"], "the others' wait for what the stream has");
    let ask = bus.next_ask().unwrap();
    assert_eq!(ask.from_ms, 103);
    // Ours of before it looked, B's that it saw, one it missed; C's is older than its look, then newer.
    let page = vec![entry(B, 7, 8, 102), entry(C, 4, 5, 102), entry(C, 5, 6, 103), entry(B, 8, 9, 105)];
    ask.pages.try_send(page).unwrap();
    assert_eq!(read(&mut back), ["6:6", "9:9"]);
    // Whoever goes on elsewhere from here looks in the stream where it looked before: of ours it may lack some.
    assert_eq!(back.position().stream_ms(), Some(103));
    own(&bus, 4);
    bus.acked(4, 105);
    ask.pages.try_send([row(B, 10, 12, 110), row(OWN, 4, 4, 105)].concat()).unwrap();
    drop(ask);
    assert_eq!(read(&mut back), ["10:10", "11:11", "12:12", "4:4"]);
    assert_eq!(read(&mut other), ["1:1", "2:2", "3:3", "10:10", "11:11", "12:12", "4:4"]);
    take(&bus, row(C, 7, 7, 120));
    assert_eq!((read(&mut back), read(&mut other)), (vec!["7:7".to_owned()], vec!["7:7".to_owned()]));
}

#[test]
fn ours_that_the_stream_took_before_it_looked_are_old_to_whoever_never_heard_of_us() {
    let bus = bus();
    let _keeps = bus.subscribe(None);
    bus.follow(100);
    (1..=4).for_each(|n| own(&bus, n));
    bus.acked(2, 101);
    let mut back = bus.subscribe(Some(&Position::parse("b.8-0.103").unwrap()));
    drop(bus.next_ask());
    assert_eq!(read(&mut back), ["3:3", "4:4"]);
}

#[test]
fn a_gap_in_the_stream_is_told_to_whoever_comes_back() {
    let bus = bus();
    let _keeps = bus.subscribe(None);
    bus.follow(100);
    take(&bus, row(B, 20, 21, 110));
    let mut back = bus.subscribe(Some(&Position::parse("a.0-b.8-0.103").unwrap()));
    back.open();
    // Nothing comes: Redis is away.
    drop(bus.next_ask());
    assert_eq!(read(&mut back), ["gap 11", "20:20", "21:21"]);
}

#[test]
fn while_the_stream_is_awaited_ours_go_on_unless_some_are_only_there() {
    let bus = bus();
    let _keeps = bus.subscribe(None);
    bus.lose();
    (1..=2).for_each(|n| own(&bus, n));
    let mut back = bus.subscribe(Some(&Position::parse("a.1-b.8-0.103").unwrap()));
    assert_eq!(read(&mut back), ["2:2"], "Redis is away, we are not");
    take(&bus, row(B, 12, 13, 110));
    own(&bus, 3);
    assert_eq!(read(&mut back), ["3:3"], "what came before is awaited");
    let ask = bus.next_ask().unwrap();
    ask.pages.try_send(row(B, 9, 12, 105)).unwrap();
    drop(ask);
    assert_eq!(read(&mut back), ["9:9", "10:10", "11:11", "12:12", "13:13"]);
    let mut waits = bus.subscribe(Some(&Position::parse("a.3-b.8-0.103").unwrap()));
    assert!(read(&mut waits).is_empty());
    waits.give_up();
    assert_eq!(read(&mut waits), ["gap 3", "12:12", "13:13"]);
}

#[test]
fn a_stream_opens_when_the_others_are_on_their_way_or_nobody_knows() {
    let bus = bus();
    let cx = Context::from_waker(std::task::Waker::noop());
    let reader = bus.subscribe(None);
    assert!(!reader.ready(&cx));
    bus.lose();
    assert!(reader.ready(&cx));
    bus.follow(77);
    let mut late = bus.subscribe(None);
    assert!(late.ready(&cx));
    late.open();
    assert_eq!(late.position().to_string(), "a.0-0.77");
    assert!(!bus.unfollow(), "somebody watches");
    drop((reader, late));
    bus.collect(NOW);
    assert!(!bus.unfollow(), "and did a moment ago");
    bus.collect(NOW + WARM);
    assert!(bus.unfollow());
    assert_eq!(bus.following(), Following::Starting);
    assert!(Bus::new(1, 1).subscribe(None).ready(&cx), "alone there is nothing to wait for");
}

#[test]
fn writers_and_questions_are_bounded_and_the_silent_leave_a_long_position() {
    let bus = Bus::with_sizes(OWN, 1, 64, 1024);
    bus.tap();
    let mut reader = bus.subscribe(None);
    bus.follow(1);
    for epoch in 100..1_000 {
        take(&bus, row(epoch, 1, 1, 10));
        read(&mut reader);
    }
    assert!(reader.position().len() <= 64);
    reader.prune(NOW + WARM * 60);
    assert_eq!(reader.position().to_string(), "0.10", "the silent, and a position without us gets us again");
    own(&bus, 1);
    assert_eq!(read(&mut reader), ["1:1"]);
    let asked: Vec<_> = (0..100)
        .map(|_| {
            let mut back = bus.subscribe(Some(&Position::parse("b.8-0.5").unwrap()));
            back.open();
            back
        })
        .collect();
    let asks: Vec<_> = std::iter::from_fn(|| bus.next_ask()).collect();
    assert!(asks.len() < asked.len());
    assert!(asks.iter().all(|ask| !ask.pages.is_closed()));
    drop(asked);
    assert!(asks.iter().all(|ask| ask.pages.is_closed()));
}
