//! The rules against false snippets: each must be found at its line, and what only looks like it must not.

use crate::Source;
use crate::rules::check;

const PLATE: &str = "//! A plate that says what lives here.\n";

/// Violations of one file, without its path; the plate makes the snippet begin at line 2.
fn found(path: &str, snippet: &str) -> Vec<String> {
    let source = Source { path: path.to_owned(), text: format!("{PLATE}{snippet}") };
    check(&[source]).into_iter().map(|line| line[path.len() + 1..].to_owned()).collect()
}

#[track_caller]
fn wrong(path: &str, snippet: &str, expected: &[&str]) {
    let found = found(path, snippet);
    assert_eq!(found.len(), expected.len(), "{path}: {snippet}\n{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected) || found.contains(expected), "{expected} in {found}");
    }
}

#[track_caller]
fn right(path: &str, snippet: &str) {
    assert_eq!(found(path, snippet), Vec::<String>::new(), "{path}: {snippet}");
}

#[test]
fn imports_point_down() {
    wrong("src/base/x.rs", "use crate::config::Settings;", &["2: `base` must not see `crate::config::Settings`"]);
    wrong("src/state/x.rs", "\nuse crate::proxy::Proxy;", &["3: `state` must not see"]);
    wrong("src/routing/mod.rs", "fn f() { crate::upstream::call(); }", &["2: `routing` must not see `crate::upstream"]);
    wrong("src/server/mod.rs", "use crate::{base::Now, proxy};", &["`crate::proxy`"]);
    wrong("src/server/mod.rs", "pub use super::admin::Api;", &["`crate::admin::Api`"]);
    wrong("src/dialect/a/b.rs", "use super::super::super::proxy::X;", &["`crate::proxy::X`"]);
    wrong("src/server/conn.rs", "mod inner { use super::super::super::urls::Urls; }", &["`crate::urls::Urls`"]);
    wrong("src/config/x.rs", "type T = Vec<crate::app::Gateway>;", &["imports point down"]);
    wrong("src/store/x.rs", "use crate::{\n    base::{Now, Clock},\n    app::{self, Gateway as G},\n};", &["4:", "4:"]);
    wrong("src/state/x.rs", "#[cfg(test)]\nmod tests {\n  use crate::proxy::X;\n}", &["4: `state`"]);
    right("src/proxy/x.rs", "use crate::{base::Now, state::dedup, routing::Plan, dialect, config::Settings};");
    right("src/app.rs", "use crate::{admin, proxy, urls, store::Store};");
    right("src/urls.rs", "use crate::{admin, proxy, server};");
    right("src/server/conn.rs", "use super::body::Body; pub(in crate::server) fn f() {} pub(crate) fn g() {}");
}

#[test]
fn neighbours_do_not_see_each_other() {
    wrong("src/state/x.rs", "use crate::config::Settings;", &["one floor"]);
    wrong("src/proxy/x.rs", "use crate::admin::Api;", &["one floor"]);
    wrong("src/upstream/x.rs", "use crate::server::body::Body;", &["one floor"]);
    wrong("src/urls.rs", "use crate::cli::Args;", &["one floor"]);
    right("src/state/x.rs", "use crate::state::catalog::Catalog; use crate::base::Now;");
}

#[test]
fn some_rooms_see_less() {
    wrong("src/proxy/x.rs", "use crate::store::Store;", &["sees less"]);
    wrong("src/proxy/x.rs", "use crate::server::conn::Conn;", &["sees less"]);
    wrong("src/proxy/x.rs", "use crate::server::{body::Body, bodyguard};", &["`crate::server::bodyguard`"]);
    wrong("src/proxy/x.rs", "use crate::cluster::Cluster;", &["sees less"]);
    wrong("src/admin/x.rs", "use crate::upstream::Client;", &["sees less"]);
    wrong("src/cli/x.rs", "use crate::proxy::Proxy; use crate::dialect::sse;", &["sees less", "sees less"]);
    right("src/proxy/x.rs", "use crate::server::body::{self, Body}; use crate::upstream;");
    right("src/admin/x.rs", "use crate::store::Store; use crate::server::body;");
    right("src/cli/x.rs", "use crate::{base, config::Settings, state::catalog, store::Store};");
}

#[test]
fn every_room_stands_on_a_floor() {
    wrong("src/attic/mod.rs", "", &["1: room `attic` stands on no floor"]);
}

#[test]
fn every_file_has_a_plate_and_an_end() {
    let without = |path: &str, text: &str| check(&[Source { path: path.to_owned(), text: text.to_owned() }]);
    for path in ["src/base/x.rs", "loadtest/src/x.rs", "tests/it/x.rs", "benches/x.rs"] {
        assert_eq!(without(path, "fn f() {}\n").len(), 1, "{path}");
        assert_eq!(without(path, "// What lives here, said wrongly\n").len(), 1);
        assert_eq!(without(path, "//!\nfn f() {}\n").len(), 1, "an empty plate");
        assert_eq!(without(path, "").len(), 1);
        assert_eq!(without(path, &format!("{PLATE}{}", "\n".repeat(500))).len(), 1, "501 lines");
        assert!(without(path, &format!("{PLATE}{}", "\n".repeat(499))).is_empty(), "500 lines");
    }
}

#[test]
fn there_is_one_spawner() {
    wrong("src/store/x.rs", "fn f() {\n    tokio::spawn(async {});\n}", &["3: `tokio::spawn`"]);
    wrong("src/store/x.rs", "use tokio::{net::TcpStream, spawn};", &["`tokio::spawn`"]);
    wrong("src/store/x.rs", "fn f() { std::thread::spawn(|| 1); }", &["`std::thread::spawn`"]);
    wrong("src/store/x.rs", "use std::thread;\nfn f() { thread::spawn(|| 1); }", &["3: `thread::spawn`"]);
    wrong("src/store/x.rs", "fn f() { tokio::task::spawn_local(x); }", &["spawn_local"]);
    wrong("src/store/x.rs", "fn f() { tokio::task::spawn_blocking::<_, u8>(x); }", &["spawn_blocking"]);
    wrong("src/store/x.rs", "fn f() { Builder::new().name(n)\n    .spawn(work); }", &["3: `.spawn(…)`"]);
    wrong(
        "src/store/x.rs",
        "fn f() { self.handle.spawn(work); set.spawn_local(w); }",
        &["`.spawn(…)`", "`.spawn_local(…)`"],
    );
    right("src/store/x.rs", "fn f() { tasks.spawn(h, n, w); self.tasks.spawn(h, n, w); tasks::spawn(n, w); }");
    right("src/store/x.rs", "use crate::base::tasks::{self, spawn_on};\nfn f() { spawn_on(h, n, w); }");
    right("src/store/x.rs", "// tokio::spawn(x)\n/* a /* b */ thread::spawn */ fn f() { log(\"tokio::spawn\"); }");
    right("src/store/x.rs", "#[cfg(test)]\nmod tests { fn f() { std::thread::spawn(|| 1); } }");
    right("src/base/tasks.rs", "fn f() { on.spawn(w); tokio::spawn(w); }");
    right("loadtest/src/x.rs", "fn f() { std::thread::spawn(|| 1); }");
}

#[test]
fn there_is_one_clock() {
    wrong("src/server/x.rs", "fn f() { let t = Instant::now(); }", &["2: `Instant::now`"]);
    wrong("src/server/x.rs", "fn f() { std::time::SystemTime::now(); }", &["`std::time::SystemTime::now`"]);
    wrong(
        "src/server/x.rs",
        "fn f() { tokio::time::Instant::now(); UNIX_EPOCH.elapsed(); }",
        &["UNIX_EPOCH", "Instant::now"],
    );
    wrong("src/server/x.rs", "const F: fn() -> Instant = Instant::now;", &["`Instant::now`"]);
    wrong("src/base/tasks.rs", "fn f() { std::time::Instant::now(); }", &["Instant::now"]);
    right("src/base/tasks.rs", "fn f() { tokio::time::Instant::now(); }");
    right("src/base/clock.rs", "fn f() { Instant::now(); SystemTime::now(); }");
    right("src/server/x.rs", "fn f() { Clock::now(); let s = r#\"Instant::now()\"#; }");
    right("src/server/x.rs", "#[test]\nfn f() { Instant::now(); }");
    wrong("src/server/x.rs", "#[test]\nfn f() {}\nfn g() { Instant::now(); }", &["4:"]);
    wrong("src/server/x.rs", "#[cfg(not(test))]\nfn g() { Instant::now(); }", &["3:"]);
    right("loadtest/src/x.rs", "fn f() { Instant::now(); }");
}

#[test]
fn a_module_declared_as_test_is_test_code() {
    let file = |path: &str, text: &str| Source { path: path.to_owned(), text: format!("{PLATE}{text}") };
    let declared = file("src/server/mod.rs", "#[cfg(test)]\nmod probes;\nmod other;");
    let probes = file("src/server/probes/deep.rs", "fn f() { Instant::now(); }");
    let other = file("src/server/other.rs", "fn f() { Instant::now(); }");
    let found = check(&[declared, probes, other]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("src/server/other.rs:2:"));
    let declared = file("src/server/conn.rs", "#[cfg(test)]\n#[path = \"conn_tests.rs\"]\nmod tests;");
    let named = file("src/server/conn_tests.rs", "fn f() { Instant::now(); }");
    let stray = file("src/server/other_tests.rs", "fn f() { Instant::now(); }");
    let found = check(&[declared, named, stray]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("src/server/other_tests.rs"));
}

#[test]
fn pure_rooms_hold_no_world() {
    for (snippet, word) in [
        ("use tokio::net::UdpSocket as U;", "tokio::net"),
        ("use std::{collections::HashMap, fs};", "std::fs"),
        ("fn f() { std::fs::read(p); }", "std::fs"),
        ("use crate::base::tasks;", "base::tasks"),
        ("fn f() { tokio::time::sleep(d); }", "tokio::time"),
    ] {
        for room in ["state", "routing", "dialect"] {
            let found = found(&format!("src/{room}/x.rs"), snippet);
            assert!(found.iter().any(|line| line.contains(word) && line.contains("pure")), "{snippet}: {found:?}");
        }
    }
    wrong("src/state/x.rs", "fn f() { Clock::now(); }", &["`Clock`"]);
    wrong("src/state/x.rs", "fn f(s: &TcpStream) {}", &["`TcpStream`"]);
    right("src/state/x.rs", "use std::net::IpAddr; use crate::base::Now; fn f(now: Now) {}");
    right("src/state/x.rs", "#[cfg(test)]\nmod tests { use crate::base::Clock; use std::fs; }");
    right("src/store/x.rs", "use std::fs; use crate::base::Clock;");
}

#[test]
fn an_error_response_is_spelled_in_one_place() {
    for snippet in [
        r#"fn f() { let s = "{\"error\": {\"message\":"; }"#,
        r##"fn f() { let s = r#"data: {"type": "error", "x":1}"#; }"##,
        r#"fn f() { json!({ "error": { "message": m } }); }"#,
        r#"fn f() { json!({ "x": 1, "type": "error" }); }"#,
        r#"const X: &[u8] = b"{\"error\":{}}";"#,
    ] {
        wrong("src/proxy/x.rs", snippet, &["2: an error response"]);
        right("src/dialect/errors.rs", snippet);
        right("src/dialect/errors/anthropic.rs", snippet);
        right("src/server/body.rs", snippet);
    }
    right(
        "src/proxy/x.rs",
        r#"fn f() { value.get("error"); match t { "error" => 1, _ => 2 }; json!({"id": 1, "error": e}); }"#,
    );
    right("src/proxy/x.rs", "#[cfg(test)]\nmod tests { const X: &str = r#\"{\"error\":1}\"#; }");
}

#[test]
fn the_lexer_is_not_fooled() {
    // Lifetimes, characters, escapes, raw strings: what follows them is still seen, at its own line.
    let snippet = "fn f<'a>(x: &'a str) { let c = '\"'; let d = '\\''; let e = b'\"'; let s = \"\\\"\\\n\"; }\n\
                   const R: &str = r##\"a\"# \n\"##;\nfn g() { Instant::now(); }";
    wrong("src/server/x.rs", snippet, &["6: `Instant::now`"]);
}
