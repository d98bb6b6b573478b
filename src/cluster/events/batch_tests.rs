//! What is packed is read back; whatever else comes is skipped, never fatal.

use super::*;
use proptest::prelude::*;

fn event(n: u64, done: bool) -> FarEvent {
    FarEvent {
        instance: "inst".into(),
        request: RequestId { epoch: 7, n },
        unix_ms: 1_000_000 - n * 3,
        client_request_id: n.is_multiple_of(2).then(|| "mine".into()),
        key: (!n.is_multiple_of(3)).then(|| (KeyId(n), "kéy".into())),
        dialect: "openai".into(),
        stream: n % 5 > 1,
        requested_model: "fast".into(),
        account: (n % 3 > 1).then(|| ("groq".into(), "main".into())),
        model: (n % 3 > 1).then(|| "llama".into()),
        done: done.then(|| FarDone {
            status: 200,
            cache: "miss".into(),
            attempts: 2,
            tokens: Tokens { prompt: u32::MAX, completion: 1, cache_read: 2, cache_write: 3, reasoning: 4 },
            cost_nanos: n.is_multiple_of(2).then_some(u64::MAX),
            latency_micros: 77,
            first_byte_micros: (!n.is_multiple_of(3)).then_some(5),
            overhead_micros: 9,
            error: n.is_multiple_of(7).then(|| "client_gone".into()),
        }),
    }
}

fn packed(prev: u64, events: &[(u64, FarEvent)]) -> Batch {
    Batch::pack(7, prev, events.iter().map(|(seq, event)| (*seq, event.view()))).unwrap()
}

fn events(entries: &[Entry]) -> Vec<(u64, u64, FarEvent)> {
    let one = |entry: &Entry| match &entry.what {
        What::Event(Item::Far(event)) => (entry.prev, entry.seq, FarEvent::clone(event)),
        other => panic!("{other:?}"),
    };
    entries.iter().map(one).collect()
}

#[test]
fn what_is_packed_is_read_back_with_the_numbers_it_follows() {
    let all: Vec<_> = (0..50).map(|n| (100 + n * 2, event(n, n % 4 > 1))).collect();
    let batch = packed(90, &all);
    assert_eq!((batch.prev, batch.last, batch.count), (90, 198, 50));
    let entries = read(&batch.bytes(7, "inst"), 55).unwrap();
    let wanted: Vec<_> =
        all.iter().enumerate().map(|(n, (seq, e))| (if n == 0 { 90 } else { seq - 2 }, *seq, e.clone())).collect();
    assert_eq!(events(&entries), wanted);
    assert!(entries.iter().all(|entry| (entry.epoch, entry.ms) == (7, 55)));
    // Names are there once, not fifty times.
    assert!(batch.weight() < 50 * 45, "{}", batch.weight());
}

#[test]
fn a_loss_and_an_earlier_birth_are_told() {
    let mut batch = packed(90, &[(100, event(1, true))]);
    (batch.lost, batch.born) = (5, 33);
    let entries = read(&batch.bytes(7, "inst"), 55).unwrap();
    assert!(matches!(entries[0], Entry { prev: 90, seq: 99, ms: 33, what: What::Lost(5), .. }), "{entries:?}");
    assert!(matches!(entries[1], Entry { prev: 99, seq: 100, ms: 33, .. }));
}

#[test]
fn names_are_cut_and_never_within_a_character() {
    let mut long = event(1, false);
    long.requested_model = format!("a{}", "é".repeat(NAME)).into();
    let read = events(&read(&packed(0, &[(1, long)]).bytes(7, "inst"), 1).unwrap());
    assert_eq!(read[0].2.requested_model.len(), NAME - 1);
}

#[test]
fn what_a_later_build_adds_to_an_event_is_skipped_and_its_versions_are_told_apart() {
    let mut bytes = packed(0, &[(1, event(2, true))]).bytes(7, "inst");
    // The event is the last thing there, more than ten bytes; its length is one byte, before it.
    let whole = read(&bytes, 1).unwrap();
    let length = (0..bytes.len() - 11).rev().find(|at| usize::from(bytes[*at]) == bytes.len() - at - 1).unwrap();
    bytes[length] += 3;
    bytes.extend_from_slice(b"new");
    assert_eq!(events(&read(&bytes, 1).unwrap()), events(&whole));
    bytes[0] = 2;
    assert_eq!(read(&bytes, 1).unwrap_err(), Skip::Version);
    assert_eq!(read(&[], 1).unwrap_err(), Skip::Broken);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), ms in any::<u64>()) {
        let _ = read(&bytes, ms);
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        let _ = read(&bytes, ms);
    }

    #[test]
    fn a_damaged_batch_is_read_or_skipped(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in any::<prop::sample::Index>(),
    ) {
        let all: Vec<_> = (1..20).map(|n| (n, event(n, n % 2 > 0))).collect();
        let mut bytes = packed(0, &all).bytes(7, "inst");
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(entries) = read(&bytes, 1) {
            prop_assert!(entries.is_sorted_by(|a, b| a.seq < b.seq && b.prev == a.seq));
            prop_assert!(entries.iter().all(|entry| entry.prev < entry.seq));
        }
        bytes.truncate(end.index(bytes.len()));
        let _ = read(&bytes, 1);
    }
}
