//! What the writer promises: everything once, whatever fails in between, and all of it before it ends.

use super::*;
use crate::base::tasks::{self, DrainSwitch};
use crate::base::{AccountId, KeyId};
use crate::state::usage::{Counts, Tokens};
use crate::store::embedded;
use crate::store::refresh::tests::eventually;
use crate::store::tests::{config, row};

struct Home {
    dir: tempfile::TempDir,
    store: Store,
    usage: Arc<Usage>,
    next: u64,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&config(dir.path())).unwrap();
        Self { dir, store, usage: Arc::new(Usage::new(1_000_000)), next: 0 }
    }

    fn requests(&mut self, count: u64) {
        for _ in 0..count {
            self.next += 1;
            let counts = Counts::one(Tokens { prompt: 3, ..Tokens::default() }, 7, false);
            self.usage.add(KeyId(1), AccountId(2), &"m".into(), 5, &counts);
            self.usage.log(false, 1_000, || row(self.next, 200));
        }
    }

    /// Breaks appends in their middle: the totals are added, then the rows find no table.
    fn away(&self, away: bool) {
        let raw = rusqlite::Connection::open(self.dir.path().join(embedded::FILE)).unwrap();
        let (from, to) = if away { ("request_log", "elsewhere") } else { ("elsewhere", "request_log") };
        raw.execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}")).unwrap();
    }

    async fn stored_totals(&self) -> usize {
        self.store.usage_totals().await.unwrap().len()
    }

    async fn stored(&self) -> (u64, u64, i64, usize) {
        let totals = self.store.usage_totals().await.unwrap();
        assert!(totals.len() <= 1);
        let counts = totals.first().map(|t| t.counts).unwrap_or_default();
        let rows = self.store.log_rows(u32::MAX).await.unwrap().len();
        (counts.requests, counts.tokens.prompt, counts.cost_nanos, rows)
    }
}

#[tokio::test]
async fn a_batch_that_failed_is_stored_once_when_the_store_is_back() {
    let mut home = Home::new();
    let mut writer = Writer::new(home.store.clone(), Arc::clone(&home.usage)).unwrap();
    home.requests(10);
    assert_eq!(writer.flush().await, Ok(10));
    home.requests(20);
    home.away(true);
    assert!(writer.flush().await.is_err());
    home.requests(5);
    assert!(writer.flush().await.is_err());
    home.away(false);
    assert_eq!(home.stored().await, (10, 30, 70, 10), "nothing half-stored");
    assert_eq!(writer.flush().await, Ok(20), "the batch as it was");
    assert_eq!(writer.flush().await, Ok(5), "then what came meanwhile");
    assert_eq!(writer.flush().await, Ok(0));
    assert_eq!(home.stored().await, (35, 105, 245, 35));
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_counts_once() {
    let mut home = Home::new();
    let mut writer = Writer::new(home.store.clone(), Arc::clone(&home.usage)).unwrap();
    home.requests(10_000);
    writer.gather();
    assert_eq!(writer.pending.len(), 3, "in pieces, so that no transaction holds the lock for long");
    for batch in writer.pending.clone() {
        home.store.append(batch).await.unwrap();
    }
    assert_eq!(writer.flush().await, Ok(0));
    assert_eq!(home.stored().await, (10_000, 30_000, 70_000, 10_000));
}

#[tokio::test]
async fn it_ends_only_when_all_is_written_even_if_the_store_was_away() {
    let mut home = Home::new();
    let switch = DrainSwitch::new();
    let writer = Writer::new(home.store.clone(), Arc::clone(&home.usage)).unwrap();
    let running = tasks::spawn("writer", writer.run(switch.drain()));
    home.requests(100);
    let usage = Arc::clone(&home.usage);
    eventually("the writer takes what waits", || usage.queued() == 0).await;
    home.away(true);
    let before = METRICS.store_errors.get();
    home.requests(50);
    switch.advance(Phase::Cut);
    eventually("it fails", || METRICS.store_errors.get() > before).await;
    home.away(false);
    running.await.unwrap();
    assert_eq!(home.stored().await, (150, 450, 1_050, 150));
}

#[tokio::test]
async fn of_a_store_that_stays_away_usage_waits_on_disk_and_counts_once_when_it_is_back() {
    let mut home = Home::new();
    let spill = home.dir.path().join("spill");
    let writer = Writer::new(home.store.clone(), Arc::clone(&home.usage)).unwrap().spilling(&spill, 1 << 20);
    let switch = DrainSwitch::new();
    let running = tasks::spawn("writer", writer.run(switch.drain()));
    home.away(true);
    home.requests(30);
    let files = || std::fs::read_dir(&spill).map(Iterator::count).unwrap_or_default();
    eventually("it is spilled", || files() == 1).await;
    home.requests(30);
    let usage = Arc::clone(&home.usage);
    eventually("what comes later, too", || usage.queued() == 0).await;
    home.away(false);
    eventually("the file is gone", || files() == 0).await;
    home.requests(30);
    switch.advance(Phase::Cut);
    running.await.unwrap();
    assert_eq!(home.stored().await, (90, 270, 630, 90));
}

#[tokio::test]
async fn what_one_process_spilled_at_its_end_the_next_one_stores() {
    let mut home = Home::new();
    let spill = home.dir.path().join("spill");
    let writer =
        |home: &Home| Writer::new(home.store.clone(), Arc::clone(&home.usage)).unwrap().spilling(&spill, 1 << 20);
    let first = writer(&home);
    let switch = DrainSwitch::new();
    switch.advance(Phase::Cut);
    home.away(true);
    home.requests(40);
    first.run(switch.drain()).await;
    assert_eq!(home.stored_totals().await, 0);
    home.away(false);
    // A crash after the batch was stored and before the file was gone: read twice, counted once.
    let file = std::fs::read_dir(&spill).unwrap().next().unwrap().unwrap().path();
    let copy = std::fs::read(&file).unwrap();
    assert_eq!(writer(&home).flush().await, Ok(40));
    assert!(!file.exists());
    std::fs::write(&file, copy).unwrap();
    assert_eq!(writer(&home).flush().await, Ok(0));
    assert_eq!(home.stored().await, (40, 120, 280, 40));
}

#[tokio::test]
async fn many_distinct_totals_merge_for_a_while_and_are_all_written_at_last() {
    let home = Home::new();
    let mut writer = Writer::new(home.store.clone(), Arc::clone(&home.usage)).unwrap();
    let model = "m".into();
    let once = |usage: &Usage| {
        let counts = Counts::one(Tokens { prompt: 3, ..Tokens::default() }, 7, false);
        (0..5_000).for_each(|key| usage.add(KeyId(key), AccountId(key % 2), &model, 5, &counts));
    };
    once(&home.usage);
    writer.gather();
    assert_eq!(writer.pending.len(), 2, "in pieces, so that no transaction holds the lock for long");
    once(&home.usage);
    home.usage.log(false, 1_000, || row(1, 200));
    writer.gather();
    assert_eq!(writer.pending.len(), 3, "the row does not wait");
    assert!(writer.pending[2].totals.is_empty(), "they had been written just now");
    once(&home.usage);
    writer.until = Some(Clock::now() + LAST_HOPE);
    assert_eq!(writer.flush().await, Ok(1));
    assert_eq!(writer.flush().await, Ok(0), "the last drain waits for nothing");
    let totals = home.store.usage_totals().await.unwrap();
    assert_eq!(totals.len(), 5_000);
    assert!(totals.iter().all(|total| total.counts.requests == 3 && total.counts.tokens.prompt == 9));
    let spent = home.store.spent().await.unwrap();
    assert!(spent.len() == 5_000 && spent.iter().all(|(_, nanos)| *nanos == 21));
}

#[tokio::test]
async fn totals_that_fill_the_memory_do_not_wait() {
    let home = Home::new();
    let mut writer = Writer::new(home.store.clone(), Arc::clone(&home.usage)).unwrap();
    let model = "m".into();
    let many = || (0..40_000).for_each(|key| home.usage.add(KeyId(key), AccountId(1), &model, 5, &Counts::default()));
    many();
    writer.gather();
    many();
    writer.gather();
    let taken: usize = writer.pending.iter().map(|batch| batch.totals.len()).sum();
    assert_eq!(taken, 80_000);
}

#[tokio::test]
async fn the_last_drain_begins_nothing_after_its_time_and_is_not_done_while_totals_wait() {
    let mut home = Home::new();
    let mut writer = Writer::new(home.store.clone(), Arc::clone(&home.usage)).unwrap();
    assert!(writer.is_done());
    home.usage.add(KeyId(1), AccountId(2), &"m".into(), 5, &Counts::one(Tokens::default(), 7, false));
    assert!(!writer.is_done(), "a total without a row");
    home.requests(4);
    writer.until = Some(Clock::now());
    assert!(writer.flush().await.is_err());
    assert_eq!(home.stored_totals().await, 0);
    writer.until = Some(Clock::now() + LAST_HOPE);
    assert_eq!(writer.flush().await, Ok(4));
    assert_eq!(home.stored().await.0, 5);
    assert!(writer.is_done());
}
