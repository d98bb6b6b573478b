//! What the spill promises: order, one reader a file, a bound, and that a crash costs a line at most.

use super::*;
use crate::store::tests::{row, total};

fn batch(number: u64) -> UsageBatch {
    let rows = (0..3).map(|n| row(number * 10 + n, 200).into()).collect();
    UsageBatch { writer: 5, number, totals: vec![total("m", number)], rows }
}

fn drained(spill: &mut Spill) -> Vec<u64> {
    let mut out = Vec::new();
    while let Some(waiting) = spill.next().unwrap() {
        out.push(waiting.batch.number);
        spill.done(&waiting);
    }
    out
}

#[test]
fn batches_come_back_whole_and_in_order_and_the_file_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut spill = Spill::open(dir.path(), 5, 1 << 20);
    assert!(spill.is_empty() && spill.next().unwrap().is_none());
    for number in 1..=3 {
        assert!(spill.push(&batch(number)).unwrap());
    }
    let first = spill.next().unwrap().unwrap();
    assert_eq!((&first.batch.rows, &first.batch.totals), (&batch(1).rows, &batch(1).totals), "to the last field");
    assert_eq!(spill.next().unwrap().unwrap().batch.number, 1, "until it is stored it is the next");
    spill.done(&first);
    assert!(spill.push(&batch(4)).unwrap(), "while it is read it grows");
    assert_eq!(drained(&mut spill), [2, 3, 4]);
    assert!(spill.is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(spill.push(&batch(5)).unwrap());
    assert_eq!(drained(&mut spill), [5]);
}

#[test]
fn a_living_process_keeps_its_file_and_a_dead_ones_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut alive = Spill::open(dir.path(), 5, 1 << 20);
    alive.push(&batch(1)).unwrap();
    let mut next = Spill::open(dir.path(), 6, 1 << 20);
    assert!(next.is_empty());
    drop(alive);
    // A crash in the middle of a line, and one that is not ours.
    let path = dir.path().join(format!("{PREFIX}{:016x}{SUFFIX}", 5));
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"[9,1]\n").unwrap();
    file.write_all(&line::write(&batch(2)).unwrap()).unwrap();
    file.write_all(&line::write(&batch(3)).unwrap()[..40]).unwrap();
    drop(file);
    next = Spill::open(dir.path(), 6, 1 << 20);
    next.push(&batch(7)).unwrap();
    assert_eq!(drained(&mut next), [1, 2, 7], "theirs first");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn it_is_bounded_and_only_ours_to_read() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("new");
    let mut spill = Spill::open(&home, 5, 2_500);
    let taken = (1..=10).take_while(|number| spill.push(&batch(*number)).unwrap()).count();
    assert!((1..5).contains(&taken), "{taken}");
    let path = fs::read_dir(&home).unwrap().next().unwrap().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o077, 0);
    assert!(path.metadata().unwrap().len() <= 2_500);
    assert_eq!(drained(&mut spill).len(), taken);
    fs::write(dir.path().join("file"), "x").unwrap();
    assert!(Spill::open(&dir.path().join("file"), 5, 1 << 20).push(&batch(1)).is_err());
}
