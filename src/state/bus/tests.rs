//! The bus' promises: order, gaps, shedding, sleep, and readers that cost the others nothing.

use super::*;
use crate::base::Dialect;
use crate::base::RequestId;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Wake, Waker};

pub(super) const NOW: Now = Now::from_nanos(1_000);

pub(super) fn event(n: u64, done: bool) -> Event {
    Event {
        request: RequestId { epoch: 9, n },
        unix_ms: 0,
        client_request_id: None,
        key: None,
        dialect: Dialect::OpenAi,
        stream: false,
        requested_model: "m".into(),
        account: None,
        model: None,
        done: done.then(Done::default),
    }
}

pub(super) fn read(cursor: &mut Cursor) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        match cursor.try_next() {
            Next::Event(seq, item) => all.push(format!("{seq}:{}", item.view("").request.n)),
            Next::Gap(missed) => all.push(format!("gap {missed}")),
            Next::Wait => return all,
        }
    }
}

#[test]
fn readers_get_the_news_in_order_and_resume_where_they_were() {
    let bus = Bus::new(0xa, 2);
    let mut first = bus.subscribe(None);
    for n in 1..=3 {
        bus.emit_with(0, || event(n, false));
    }
    assert_eq!(bus.collect(NOW), 3);
    let mut second = bus.subscribe(None);
    bus.emit(1, event(4, true));
    bus.collect(NOW);
    assert_eq!(
        (read(&mut first), read(&mut second)),
        (vec!["1:1".into(), "2:2".into(), "3:3".into(), "4:4".into()], vec!["4:4".to_owned()])
    );
    let position = Position::parse("b.7-a.2").unwrap();
    let mut resumed = bus.subscribe(Some(&position));
    assert_eq!(read(&mut resumed), ["3:3", "4:4"]);
    assert_eq!(resumed.position().to_string(), "b.7-a.4");
    assert_eq!(read(&mut bus.subscribe(Some(&Position::parse("b.7").unwrap()))).len(), 4, "none of ours seen yet");
    assert_eq!(read(&mut bus.subscribe(Some(&Position::parse("a.999").unwrap()))).len(), 0, "not a number of ours");
}

#[test]
fn an_overtaken_reader_sees_the_gap_and_goes_on() {
    let bus = Bus::with_sizes(1, 1, 64, 8);
    let mut slow = bus.subscribe(None);
    for n in 1..=20 {
        bus.emit(0, event(n, true));
    }
    bus.collect(NOW);
    let seen = read(&mut slow);
    assert_eq!((seen.len(), &*seen[0], &*seen[1], &*seen[8]), (9, "gap 12", "13:13", "20:20"));
}

#[test]
fn a_full_lane_sheds_the_started_first_and_counts() {
    let bus = Bus::with_sizes(1, 1, 8, 64);
    let mut reader = bus.subscribe(None);
    let dropped = METRICS.events_dropped.get();
    for n in 0..8 {
        bus.emit(0, event(n, false));
    }
    for n in 10..14 {
        bus.emit(0, event(n, true));
    }
    // Other tests drop events too: at least ours are counted.
    assert!(METRICS.events_dropped.get() - dropped >= 4);
    bus.collect(NOW);
    let seen: Vec<_> = read(&mut reader).iter().map(|one| one.split_once(':').unwrap().1.to_owned()).collect();
    assert_eq!(seen, ["0", "1", "2", "3", "4", "5", "10", "11"]);
}

#[test]
fn without_readers_nothing_is_built_and_sleep_is_a_visible_gap() {
    let bus = Bus::new(1, 1);
    bus.emit_with(0, || panic!("nobody wants it"));
    let mut reader = bus.subscribe(None);
    bus.emit_with(0, || event(1, true));
    bus.collect(NOW);
    assert_eq!(read(&mut reader), ["1:1"]);
    let position = reader.position().clone();
    drop(reader);
    bus.collect(NOW + WARM / 2);
    bus.emit_with(0, || event(2, true));
    bus.collect(NOW + WARM / 2);
    assert_eq!(read(&mut bus.subscribe(Some(&position))), ["2:2"], "still warm: nothing was missed");
    bus.collect(NOW + WARM);
    assert!(!bus.wanted());
    bus.emit_with(0, || panic!("nobody wants it"));
    let mut late = bus.subscribe(Some(&position));
    bus.emit_with(0, || event(4, true));
    bus.collect(NOW + 2 * WARM);
    assert_eq!(read(&mut late), ["gap 2", "4:4"]);
}

#[test]
fn a_waiting_reader_is_woken_by_the_collector_and_only_by_news() {
    #[derive(Default)]
    struct Count(AtomicU64);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let bus = Bus::new(1, 1);
    let mut reader = bus.subscribe(None);
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let cx = Context::from_waker(&waker);
    assert!(reader.poll_next(&cx).is_pending() && reader.poll_next(&cx).is_pending());
    bus.collect(NOW);
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
    bus.emit(0, event(1, true));
    bus.collect(NOW);
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert!(matches!(reader.poll_next(&cx), Poll::Ready(Next::Event(1, _))));
}

#[test]
fn under_threads_each_event_comes_once_in_its_lanes_order_or_is_counted() {
    const EACH: u64 = 20_000;
    let bus = Bus::with_sizes(1, 3, 256, RING * 4);
    let mut reader = bus.subscribe(None);
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..3)
            .map(|lane| {
                let bus = &bus;
                scope.spawn(move || {
                    for n in 0..EACH {
                        // Waits for room: dropping is another test's.
                        while bus.lanes[lane].len() > 128 {
                            std::thread::yield_now();
                        }
                        bus.emit(lane, event(n * 3 + lane as u64, true));
                    }
                })
            })
            .collect();
        let mut seen = [0; 3];
        let mut last = 0;
        while seen.iter().sum::<u64>() < 3 * EACH {
            bus.collect(NOW);
            match reader.try_next() {
                Next::Event(seq, item) => {
                    let n = item.view("").request.n;
                    let lane = (n % 3) as usize;
                    assert_eq!((seq, n / 3), (last + 1, seen[lane]));
                    seen[lane] += 1;
                    last = seq;
                }
                Next::Gap(missed) => panic!("{missed} missed in a ring that holds all"),
                Next::Wait => std::thread::yield_now(),
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

#[test]
fn a_position_reads_back_and_nonsense_is_none() {
    for good in ["a.57-b33.33", "0.0", "a.5-0.77", "ffffffffffffffff.18446744073709551615"] {
        assert_eq!(Position::parse(good).unwrap().to_string(), good);
    }
    let long = vec!["1.1"; 100].join("-");
    for bad in [
        "",
        "a",
        "a.",
        ".1",
        "a.1-",
        "-a.1",
        "a.1-a.2",
        "0.1-0.2",
        "g.1",
        "a.-1",
        "+a.1",
        "a.99999999999999999999",
        &long,
    ] {
        assert_eq!(Position::parse(bad), None, "{bad}");
    }
    let mut many = Position::default();
    for n in 1..=100 {
        many.set(n, n);
    }
    assert_eq!((many.of(100), many.of(1)), (Some(100), None));
    many.read_to(7);
    many.read_to(5);
    assert!(many.to_string().ends_with("-64.100-0.7"), "{many}");
    assert_eq!(Position::parse(&many.to_string()), Some(many));
}
