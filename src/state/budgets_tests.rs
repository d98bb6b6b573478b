//! Books that must balance, alone and under threads.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

const KEY: KeyId = KeyId(1);

#[test]
fn reserve_settle_and_refuse_at_the_line() {
    let budgets = Budgets::new();
    budgets.seed(KEY, 400);
    let hold = budgets.reserve(KEY, 1_000, 500).unwrap();
    let mut crossing = budgets.reserve(KEY, 1_000, 500).unwrap();
    let refused = budgets.reserve(KEY, 1_000, 0).unwrap_err();
    assert_eq!(refused, Refusal { which: Which::Budget, retry_after: Duration::ZERO });
    assert_eq!((budgets.spent(KEY), budgets.reserved(KEY)), (400, 1_000));
    hold.settle(1, 100);
    assert!(budgets.reserve(KEY, 1_000, 1).is_err(), "500 spent, 500 reserved");
    assert!(crossing.record(1, 200) && !crossing.record(1, 200) && crossing.record(2, 50));
    drop(crossing);
    assert_eq!((budgets.spent(KEY), budgets.reserved(KEY)), (750, 0));
    drop(budgets.reserve(KEY, 1_000, 300).unwrap());
    assert_eq!((budgets.spent(KEY), budgets.reserved(KEY)), (1_050, 0), "who leaves has spent the estimate");
    assert!(budgets.reserve(KEY, 1_000, 1).is_err() && budgets.reserve(KEY, 2_000, 1).is_ok());
}

#[test]
fn nothing_is_negative_and_nothing_overflows() {
    let budgets = Budgets::new();
    let hold = budgets.reserve(KEY, 10, -5).unwrap();
    assert_eq!(budgets.reserved(KEY), 0);
    hold.settle(1, -50);
    assert_eq!(budgets.spent(KEY), 0);
    budgets.seed(KEY, -9);
    assert_eq!(budgets.spent(KEY), 0);
    budgets.reserve(KEY, 10, i64::MAX).unwrap().settle(1, i64::MAX);
    budgets.seed(KEY, 3);
    assert_eq!(budgets.spent(KEY), i64::MAX, "a seed never lowers");
    assert!(budgets.reserve(KEY, i64::MAX, 1).is_err());
    assert!(budgets.reserve(KeyId(2), 0, 1).is_err(), "a budget of nothing lets nobody in");
}

type Door = fn(&Budgets) -> Option<BudgetHold>;

fn honest(budgets: &Budgets) -> Option<BudgetHold> {
    budgets.reserve(KEY, 200, 100).ok()
}

/// Looks, and reserves later.
fn racy(budgets: &Budgets) -> Option<BudgetHold> {
    let ledger = budgets.ledger(KEY);
    let room = ledger.lock().has_room(200);
    #[cfg(not(feature = "shuttle"))]
    std::thread::yield_now();
    room.then(|| {
        ledger.lock().reserve(100);
        BudgetHold { ledger, reserved: 100, recorded: Attempts::default() }
    })
}

/// Four requests of 100 against a budget of 200: two get in.
fn check(door: Door, budgets: &Budgets, admitted: &AtomicUsize, settle: fn(BudgetHold)) {
    if let Some(hold) = door(budgets) {
        admitted.fetch_add(1, Ordering::SeqCst);
        settle(hold);
    }
}

fn judge(budgets: &Budgets, admitted: &AtomicUsize) -> Result<(), &'static str> {
    if admitted.load(Ordering::SeqCst) != 2 {
        return Err("promise broken: admitted");
    }
    if (budgets.spent(KEY), budgets.reserved(KEY)) != (200, 0) {
        return Err("promise broken: books");
    }
    Ok(())
}

#[cfg(feature = "shuttle")]
mod model {
    use super::*;

    fn model(door: Door, settle: fn(BudgetHold)) {
        shuttle::check_pct(
            move || {
                let shared = Arc::new((Budgets::new(), AtomicUsize::new(0)));
                let threads: Vec<_> = (0..4)
                    .map(|_| {
                        let shared = Arc::clone(&shared);
                        shuttle::thread::spawn(move || check(door, &shared.0, &shared.1, settle))
                    })
                    .collect();
                for thread in threads {
                    thread.join().unwrap();
                }
                judge(&shared.0, &shared.1).unwrap();
            },
            1_000,
            3,
        );
    }

    #[test]
    fn model_of_budgets() {
        model(honest, |hold| hold.settle(1, 100));
        model(honest, drop);
    }

    #[test]
    #[should_panic(expected = "promise broken: admitted")]
    fn model_notices_looking_first_and_reserving_later() {
        model(racy, |hold| hold.settle(1, 100));
    }

    #[test]
    #[should_panic(expected = "promise broken")]
    fn model_notices_a_second_charge() {
        model(honest, |mut hold| {
            hold.record(1, 100);
            hold.recorded = Attempts::default();
            hold.record(1, 100);
        });
    }
}

#[cfg(not(feature = "shuttle"))]
#[test]
fn threads_never_spend_the_same_dollar() {
    let stress = |door: Door| {
        let (budgets, admitted) = (Budgets::new(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| check(door, &budgets, &admitted, |hold| hold.settle(1, 100)));
            }
        });
        judge(&budgets, &admitted).is_ok()
    };
    assert!((0..200).all(|_| stress(honest)));
    assert!(!(0..2_000).all(|_| stress(racy)), "the check must notice a door in two steps");
}
