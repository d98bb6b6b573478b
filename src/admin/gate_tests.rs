//! Tests of the gate: who is let in, and what a flood of guesses costs the store.

use super::*;
use crate::base::clock::Clock;
use crate::store::StoreConfig;
use http::HeaderValue;

struct Home {
    gate: Gate,
    store: Store,
    _dir: tempfile::TempDir,
}

fn home(change: impl FnOnce(&mut Settings)) -> Home {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings { data_dir: dir.path().to_owned(), ..Settings::default() };
    change(&mut settings);
    let store = Store::open(&StoreConfig::from(&settings)).unwrap();
    Home { gate: Gate::new(store.clone(), &settings).unwrap(), store, _dir: dir }
}

fn locked() -> Home {
    home(|settings| settings.dashboard_password_hash = Some(Secret::new("$argon2id$…")))
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap())).collect()
}

fn peer(addr: &str) -> Peer {
    Peer { addr: format!("{addr}:1").parse().unwrap(), control_only: false }
}

impl Home {
    async fn admit(&self, method: Method, pairs: &[(&'static str, &str)]) -> Result<Operator, u16> {
        self.admit_from("127.0.0.1", method, pairs).await
    }

    async fn admit_from(&self, addr: &str, method: Method, pairs: &[(&'static str, &str)]) -> Result<Operator, u16> {
        self.gate.admit(&method, &headers(pairs), peer(addr)).await.map_err(|error| error.status())
    }

    fn asked(&self) -> Option<Now> {
        self.gate.view.lock().asked
    }
}

#[tokio::test]
async fn a_session_opens_by_bearer_and_by_cookie_and_writes_by_cookie_need_our_own_page() {
    let home = locked();
    let (session, token) = home.gate.begin().await.unwrap().unwrap();
    let (bearer, cookie) =
        (format!("bearer {}", token.reveal()), format!("a=b; {COOKIE_NAME}={}; c=d", token.reveal()));
    let expected = Operator { who: Who::Session(session), scope: Scope::Admin };
    assert_eq!(home.admit(Method::POST, &[("authorization", &bearer)]).await, Ok(expected));
    assert_eq!(home.admit(Method::GET, &[("cookie", &cookie)]).await, Ok(expected));
    for (more, status) in [
        (vec![], Err(403)),
        (vec![("origin", "https://evil.example"), ("host", "gw.example")], Err(403)),
        (vec![("origin", "null"), ("host", "gw.example")], Err(403)),
        (vec![("origin", "https://gw.example")], Err(403)),
        (vec![("origin", "https://GW.example"), ("host", "gw.example")], Ok(())),
        (vec![("sec-fetch-site", "same-origin")], Ok(())),
        (vec![("sec-fetch-site", "same-site")], Err(403)),
        (vec![("sec-fetch-site", "cross-site"), ("origin", "http://gw"), ("host", "gw")], Err(403)),
    ] {
        let pairs = [vec![("cookie", &*cookie)], more].concat();
        assert_eq!(home.admit(Method::DELETE, &pairs).await.map(drop), status, "{pairs:?}");
    }
    assert_eq!(home.admit(Method::GET, &[]).await, Err(401));
    assert_eq!(home.admit(Method::GET, &[("cookie", "merido_session=x")]).await, Err(401));
    assert_eq!(home.admit(Method::GET, &[("authorization", "Bearer mrd_x")]).await, Err(401));

    assert!(home.gate.still(&expected));
    let (_, other) = home.gate.begin().await.unwrap().unwrap();
    let other = format!("Bearer {}", other.reveal());
    home.gate.end(Some(session)).await.unwrap();
    assert_eq!(home.admit(Method::GET, &[("authorization", &bearer)]).await, Err(401), "logged out");
    assert!(!home.gate.still(&expected) && home.admit(Method::GET, &[("authorization", &other)]).await.is_ok());
    home.gate.end(None).await.unwrap();
    assert_eq!(home.admit(Method::GET, &[("authorization", &other)]).await, Err(401), "all are");
    let (_, new) = home.gate.begin().await.unwrap().unwrap();
    assert!(home.admit(Method::GET, &[("authorization", &format!("Bearer {}", new.reveal()))]).await.is_ok());
}

#[tokio::test]
async fn management_tokens_have_scopes_and_guesses_do_not_reach_the_store() {
    let home = locked();
    let (row, reader) = home.store.create_token("r", Scope::Read, None).await.unwrap();
    let (_, admin) = home.store.create_token("a", Scope::Admin, None).await.unwrap();
    let soon = Clock::unix_ms() + 1;
    let (_, short) = home.store.create_token("s", Scope::Admin, Some(soon)).await.unwrap();
    let as_bearer = |token: &Secret| format!("Bearer {}", token.reveal());
    let (reader, admin, short) = (as_bearer(&reader), as_bearer(&admin), as_bearer(&short));
    let operator = home.admit(Method::GET, &[("authorization", &reader)]).await.unwrap();
    assert_eq!(operator, Operator { who: Who::Token(row.id), scope: Scope::Read });
    assert_eq!(home.admit(Method::POST, &[("authorization", &reader)]).await, Err(403));
    assert!(home.admit(Method::POST, &[("authorization", &admin)]).await.is_ok());
    while Clock::unix_ms() <= soon {
        tokio::task::yield_now().await;
    }
    assert_eq!(home.admit(Method::GET, &[("authorization", &short)]).await, Err(401));

    // What a guess may cost is one look every 100 ms: pretend the last one was just now, long enough for the loop.
    let view = Arc::clone(&home.gate.view.lock());
    let asked = Clock::now() + Duration::from_secs(60);
    let (tokens, ended) = (view.tokens.clone(), HashSet::new());
    *home.gate.view.lock() = Arc::new(View { asked: Some(asked), known: true, epoch: 0, ended, tokens });
    for n in 0..1_000 {
        assert_eq!(home.admit(Method::GET, &[("authorization", &format!("Bearer mdm_{n}"))]).await, Err(401));
    }
    assert_eq!(home.asked(), Some(asked), "a thousand guesses, no look");

    home.store.revoke_token(row.id).await.unwrap();
    *home.gate.view.lock() = Arc::default();
    assert_eq!(home.admit(Method::GET, &[("authorization", &reader)]).await, Err(401), "revoked");
    assert!(!home.gate.still(&operator));
}

#[tokio::test]
async fn without_a_password_only_this_machine_comes_in_and_by_no_foreign_name() {
    let home = home(|settings| settings.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]);
    for host in ["localhost", "localhost:8788", "127.0.0.1:8788", "[::1]:8788", "::1", "gateway:80", "a.localhost."] {
        assert!(home.admit(Method::POST, &[("host", host)]).await.is_ok(), "{host}");
    }
    for host in ["evil.example", "evil.example:8788", "127.0.0.1.evil.example", "localhost.evil.example."] {
        assert_eq!(home.admit(Method::GET, &[("host", host)]).await, Err(403), "{host}");
    }
    assert_eq!(home.admit_from("10.0.0.1", Method::GET, &[]).await, Err(403));
    assert_eq!(home.admit(Method::GET, &[("x-forwarded-for", "9.9.9.9")]).await, Err(403), "a proxy lets others in");
    assert_eq!(home.admit(Method::POST, &[("sec-fetch-site", "cross-site")]).await, Err(403));
    assert_eq!(
        home.admit(Method::GET, &[("authorization", "Bearer mdm_x")]).await,
        Err(401),
        "what is shown is judged"
    );
    let open = self::home(|settings| settings.allow_open_admin = true);
    assert!(open.admit_from("10.0.0.1", Method::POST, &[("host", "gw.example")]).await.is_ok());
}

#[tokio::test]
async fn a_view_asked_for_now_is_read_once_for_all_who_wait() {
    let home = locked();
    home.gate.view(Duration::ZERO).await.map(drop).unwrap();
    let first = home.asked();
    home.gate.view(Duration::from_secs(3600)).await.map(drop).unwrap();
    assert_eq!(home.asked(), first, "young enough");
    home.gate.view(Duration::ZERO).await.map(drop).unwrap();
    assert!(home.asked() > first);
}
