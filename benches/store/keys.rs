//! `keys`: a gateway that knows a million keys. What it costs to start with them, and what one more costs.

use crate::support::postgres::{Server, run_sql};
use crate::support::process::{Process, run_with};
use crate::{MASTER, Times, make_key, revoke, until};
use std::path::Path;
use std::time::Instant;

const TRIPS: usize = 50;

pub fn run(engine: &str, keys: u64) {
    let dir = tempfile::tempdir().unwrap();
    let server = (engine == "postgres").then(|| Server::start(&["shared_buffers=512MB"]));
    let url = server.as_ref().map(Server::database).unwrap_or_default();
    let mut env = vec![("MERIDO_MASTER_KEY", MASTER), ("MERIDO_REQUIRE_API_KEY", "true")];
    if server.is_some() {
        env.push(("MERIDO_DATABASE_URL", &url));
    }
    let home = |name: &str| {
        let dir = dir.path().join(if server.is_some() { name } else { "one" });
        std::fs::create_dir_all(&dir).unwrap();
        dir
    };
    let made = run_with(&home("one"), "migrate", &env, "");
    assert_eq!(made.code, 0, "{made:?}");
    let empty = Process::start(&home("one"), &env);
    let (bare, bare_start) = (empty.resident_kb(), empty.took);
    assert!(empty.stop().success());
    let start = Instant::now();
    fill(server.is_some().then_some(&*url), &home("one").join("data/merido.db"), keys);
    println!("\n{engine}: {keys} keys, made in {:.1} s", start.elapsed().as_secs_f64());
    let a = Process::start(&home("one"), &env);
    // Another process on the same store: of the embedded one a second reader of its file.
    let b = Process::start(&home("two"), &env);
    println!("start, no key                   {:.2} s   {bare} kB", bare_start.as_secs_f64());
    let each = (a.resident_kb() - bare) * 1_024 / keys;
    println!(
        "start, all keys                 {:.2} s   {} kB: {each} bytes a key",
        a.took.as_secs_f64(),
        a.resident_kb()
    );
    let builds = || a.metric("merido_catalog_builds_total") + b.metric("merido_catalog_builds_total");
    let before = builds();
    let mut times = [Times::default(), Times::default(), Times::default(), Times::default()];
    for _ in 0..TRIPS {
        let (id, head, took) = make_key(&a);
        let answered = Instant::now();
        times[0].0.push(took);
        until(&a, &head, 200);
        times[1].0.push(took + answered.elapsed());
        until(&b, &head, 200);
        times[2].0.push(took + answered.elapsed());
        let start = Instant::now();
        revoke(&a, &id);
        until(&b, &head, 401);
        times[3].0.push(start.elapsed());
    }
    let names = [
        "made (POST until its answer)",
        "works where it was made",
        "works on the other",
        "revoked: stops on the other",
    ];
    for (times, name) in times.into_iter().zip(names) {
        times.tell(name);
    }
    println!("catalogs built meanwhile        {}", builds() - before);
    assert!(a.stop().success() && b.stop().success());
}

fn fill(url: Option<&str>, file: &Path, keys: u64) {
    let more = "NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1";
    let columns =
        "id, name, hash, rpm, burst, tpm, max_parallel, models, budget_nanos, expires_ms, created_ms, changed_seq";
    if let Some(url) = url {
        let sql = format!(
            "INSERT INTO keys ({columns}) SELECT 1000 + n, 'team-' || n, decode(lpad(to_hex(n), 64, '0'), 'hex'), {more}, n
             FROM generate_series(1::bigint, {keys}) n;
             UPDATE meta SET change_seq = {keys}"
        );
        run_sql(url, &sql).unwrap();
        run_sql(url, "VACUUM ANALYZE keys").unwrap();
        return;
    }
    let sql = format!(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {keys})
         INSERT INTO keys ({columns}) SELECT 1000 + n, 'team-' || n, cast(printf('%032d', n) AS BLOB), {more}, n FROM n;
         UPDATE meta SET change_seq = {keys}"
    );
    rusqlite::Connection::open(file).unwrap().execute_batch(&sql).unwrap();
}
