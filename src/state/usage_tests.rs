//! What `usage` promises: totals exact over threads, rows bounded, sampled and marked.

use super::*;

pub(crate) fn row(n: u64, status: u16) -> LogRow {
    LogRow {
        id: RequestId { epoch: 7, n },
        time_ms: 60_000,
        client_request_id: None,
        key: None,
        endpoint: Endpoint::Chat,
        requested_model: "openai/m".into(),
        account: None,
        model: Some("m".into()),
        status,
        stream: false,
        cache: CacheState::Miss,
        attempts: 1,
        timeline: None,
        tokens: Tokens::default(),
        cost_nanos: Some(0),
        latency_ms: 1,
        first_byte_ms: None,
        overhead_us: 1,
        error: None,
        estimated: false,
        sampled: 0,
    }
}

fn one() -> Counts {
    Counts::one(Tokens { prompt: 3, completion: 2, ..Tokens::default() }, 5, false)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "threads are the point")]
fn totals_are_exact_over_many_threads_and_drains() {
    let usage = Arc::new(Usage::new(10));
    let models: [Arc<str>; 2] = ["a".into(), "b".into()];
    let mut threads = Vec::new();
    for _ in 0..4 {
        let (usage, models) = (Arc::clone(&usage), models.clone());
        threads.push(std::thread::spawn(move || {
            for n in 0..10_000u64 {
                usage.add(KeyId(n % 3), AccountId(1), &models[(n % 2) as usize], (n % 2) as u32, &one());
            }
        }));
    }
    let mut sums = Counts::default();
    let mut distinct = std::collections::HashSet::new();
    let mut collect = |usage: &Usage| {
        for total in usage.take(true).0 {
            distinct.insert((total.key, total.model, total.minute));
            sums.add(&total.counts);
        }
    };
    for _ in 0..20 {
        collect(&usage);
        std::thread::yield_now();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    collect(&usage);
    assert_eq!((sums.requests, sums.tokens.prompt, sums.cost_nanos), (40_000, 120_000, 200_000));
    assert_eq!(distinct.len(), 6, "three keys, and a model goes with its minute");
    assert!(usage.take(true).0.is_empty());
}

#[test]
fn one_drain_merges_what_several_threads_counted() {
    let usage = Usage::new(10);
    let model: Arc<str> = "a".into();
    std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| usage.add(KeyId(1), AccountId(1), &model, 1, &one()));
        }
    });
    let totals = usage.take(true).0;
    assert_eq!(totals.len(), 1);
    assert_eq!(totals[0].counts.requests, 3);
}

#[test]
fn above_the_rate_successes_are_sampled_and_marked_and_errors_are_not() {
    let usage = Usage::new(100);
    let mut n = 0;
    let mut second = |at: u64| {
        for _ in 0..1_000 {
            n += 1;
            usage.log(false, at * 1000, || row(n, 200));
        }
        for _ in 0..50 {
            n += 1;
            usage.log(true, at * 1000, || row(n, 500));
        }
        usage.take(false).1
    };
    let rows = second(1);
    assert_eq!(rows.iter().filter(|r| r.status == 200).count(), 100, "the first second knows nothing yet");
    assert_eq!(rows.iter().filter(|r| r.status == 500).count(), 50);
    let rows = second(2);
    let kept: Vec<_> = rows.iter().filter(|r| r.status == 200).map(|r| r.sampled).collect();
    assert_eq!(kept, vec![10; 100], "one in ten, spread over the second, each standing for ten");
    let rows = second(9);
    assert!(rows.iter().all(|r| r.sampled == 1), "after a pause it starts over");
}

#[test]
fn the_queue_is_bounded_and_keeps_its_last_quarter_for_errors() {
    let usage = Usage::new(100_000);
    let mut built = 0;
    for n in 0..70_000 {
        usage.log(false, 1_000, || {
            built += 1;
            row(n, 200)
        });
    }
    assert_eq!((built, usage.queued()), (49_152, 49_152), "dropped rows are not even built");
    for n in 0..20_000 {
        usage.log(true, 1_000, || row(n, 500));
    }
    assert_eq!(usage.queued(), 65_536);
    assert_eq!(usage.take(false).1.len(), 65_536);
    assert_eq!(usage.queued(), 0);
}

#[test]
fn a_part_half_full_of_totals_says_so_until_they_are_taken() {
    let usage = Usage::new(1);
    let model = Arc::from("m");
    let add = |keys: std::ops::Range<u64>| {
        keys.for_each(|key| usage.add(KeyId(key), AccountId(1), &model, 1, &one()));
    };
    add(0..MAX_SLOTS as u64 / 2 - 1);
    assert!(!usage.wide());
    add(0..MAX_SLOTS as u64 / 2);
    assert!(usage.wide() && !usage.is_empty());
    assert!(usage.take(false).0.is_empty() && usage.wide());
    assert_eq!(usage.take(true).0.len(), MAX_SLOTS / 2);
    assert!(!usage.wide() && usage.is_empty());
}
