//! What names stand for.

use super::testing::*;
use super::*;
use crate::base::KeyId;
use crate::state::catalog::{Directory, Strategy};

fn directory() -> Directory {
    let (a, b) = (provider("a", &[("m", 5), ("only-a", 1)]), provider("b", &[("m", 5), ("org/x", 1)]));
    let accounts = vec![account(1, &a, "one", 1), account(2, &a, "two", 1), account(3, &b, "one", 1)];
    let models = vec![
        virtual_model(
            "fast",
            Strategy::Failover,
            &[("a", "m", Some("two"), 1), ("b", "m", None, 1), ("none", "m", None, 1)],
        ),
        virtual_model("empty", Strategy::Failover, &[("none", "m", None, 1)]),
        virtual_model("a/m2", Strategy::Failover, &[("b", "odd", Some("acc_0000000000000003"), 1)]),
    ];
    published(accounts, models)
}

#[test]
fn names_resolve_to_accounts_and_models() {
    let catalog = directory().catalog();
    let direct = |name: &str| match resolve(&catalog, None, name).unwrap() {
        Plan::Direct { seats, model } => (seats.all.len(), model.name().to_owned(), model.known().is_some()),
        Plan::Virtual(_) => panic!("{name} is no virtual model"),
    };
    assert_eq!(direct("a/m"), (2, "m".into(), true));
    assert_eq!(direct("a/new-model"), (2, "new-model".into(), false));
    assert_eq!(direct("b/org/x"), (1, "org/x".into(), true));
    assert_eq!(direct("only-a"), (2, "only-a".into(), true));
    assert_eq!(direct("org/x"), (1, "org/x".into(), true));
    let Plan::Virtual(route) = resolve(&catalog, None, "fast").unwrap() else { panic!() };
    assert_eq!(route.legs.len(), 2, "targets without an account are left out");
    assert_eq!(&*route.legs[0].seats.all[0].account.label, "two");
    let Plan::Virtual(route) = resolve(&catalog, None, "a/m2").unwrap() else { panic!("a virtual name goes first") };
    assert!(route.legs[0].model.known().is_none());
}

#[test]
fn refusals_say_why_and_repeat_no_more_than_they_should() {
    let catalog = directory().catalog();
    let refusal = |name: &str| resolve(&catalog, None, name).unwrap_err();
    let several = refusal("m");
    assert_eq!(several.status(), 404);
    assert!(several.message.contains("a/m, b/m"), "{several}");
    for name in ["x/m", "nothing", "", "a/", "/", "/m"] {
        let error = refusal(name);
        assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::ModelNotFound, Some("model")), "{name}");
        assert!(error.message.contains(name));
    }
    assert!(refusal(&"é".repeat(10_000)).message.len() < 500);
    assert_eq!(refusal("empty").status(), 503);
    let key = Key {
        id: KeyId(1),
        name: "k".into(),
        rpm: None,
        burst: None,
        tpm: None,
        max_parallel: None,
        models: Some(["a/*".into()].into()),
        budget_nanos: None,
        expires_unix_ms: None,
    };
    assert!(resolve(&catalog, Some(&key), "a/m").is_ok());
    for name in ["b/m", "fast", "does-not-exist"] {
        assert_eq!(
            resolve(&catalog, Some(&key), name).unwrap_err().status(),
            403,
            "{name}: 403 whether it exists or not"
        );
    }
}

#[test]
fn rests_and_turns_outlive_a_publication() {
    let directory = directory();
    let now = crate::base::Now::from_nanos(3_600_000_000_000);
    let Plan::Virtual(route) = resolve(&directory.catalog(), None, "fast").unwrap() else { panic!() };
    route.next_turn();
    let breaker = crate::state::rest::Breaker {
        failures: 1,
        window: std::time::Duration::from_secs(1),
        open: std::time::Duration::from_secs(9),
        cap: std::time::Duration::from_secs(9),
    };
    route.legs[0].seats.all[0].live.open(&breaker, now, now);
    let old = directory.catalog();
    let next = crate::state::catalog::Catalog::build(
        old.accounts.clone(),
        old.virtual_models.values().map(|model| (**model).clone()).collect(),
    );
    directory.publish(next);
    let Plan::Virtual(route) = resolve(&directory.catalog(), None, "fast").unwrap() else { panic!() };
    assert!(route.legs[0].seats.all[0].live.resting(None, now).is_some());
    assert_eq!(route.next_turn(), 1);
}
