//! `logs`: pages of the log and sums of the totals, asked over HTTP of a gateway that serves.

use crate::rows::{self, DAY_MS, DAYS, EPOCH};
use crate::support::client::Conn;
use crate::support::postgres::Server;
use crate::support::process::{Process, run_with};
use crate::{MASTER, Times, get};
use std::time::Instant;

const TIMES: u64 = 40;

pub fn run(engine: &str, rows: u64, wait: bool) {
    let (dir, now) = (tempfile::tempdir().unwrap(), merido::base::Clock::unix_ms().cast_signed());
    // The last day is today, up to now.
    let end = (now / DAY_MS + 1) * DAY_MS;
    let settings = ["maintenance_work_mem=512MB", "max_wal_size=512MB", "wal_level=minimal", "max_wal_senders=0"];
    let server = (engine == "postgres").then(|| Server::start(&[&settings[..], &["shared_buffers=512MB"]].concat()));
    let url = server.as_ref().map(Server::database).unwrap_or_default();
    let mut env = vec![("MERIDO_MASTER_KEY", MASTER), ("MERIDO_LOG_RETENTION_DAYS", "365")];
    env.push(("MERIDO_LOG_MAX_BYTES", "1 TiB"));
    if server.is_some() {
        env.push(("MERIDO_DATABASE_URL", &url));
    }
    let made = run_with(dir.path(), "migrate", &env, "");
    assert_eq!(made.code, 0, "{made:?}");
    let start = Instant::now();
    if server.is_some() {
        rows::postgres(&url, rows, end, now);
    } else {
        rows::embedded(&dir.path().join("data/merido.db"), rows, end, now);
    }
    println!("\n{engine}: {rows} log rows of {DAYS} days, made in {:.0} s", start.elapsed().as_secs_f64());
    if server.is_some() {
        let size = "SELECT pg_size_pretty(pg_database_size(current_database())) || ', usage rows: ' ||
                    (SELECT count(*) FROM usage) || ', by day: ' || (SELECT count(*) FROM usage_days)";
        println!("{:?}", crate::support::postgres::run_sql(&url, size).unwrap());
    }
    if wait {
        println!("waiting for a line on stdin");
        std::io::stdin().read_line(&mut String::new()).unwrap();
    }
    let gateway = Process::start(dir.path(), &env);
    println!("started in {:.2} s", gateway.took.as_secs_f64());
    ask(&gateway, rows, end);
    assert!(gateway.stop().success());
}

fn ask(gateway: &Process, rows: u64, end: i64) {
    let mut conn = Conn::open(gateway.addr);
    let mut time = |what: &str, path: &dyn Fn(u64) -> String| {
        let mut times = Times::default();
        let mut longest = 0;
        for n in 0..TIMES + 3 {
            let (status, took, body) = get(&mut conn, &path(n), "");
            assert_eq!(status, 200, "{}: {}", path(n), String::from_utf8_lossy(&body));
            // The first few find cold caches; a dashboard's next question does not.
            if n >= 3 {
                times.0.push(took);
            }
            longest = longest.max(body.len());
        }
        times.tell(&format!("{what} ({} kB)", longest / 1_000));
    };
    // Small numbers of keys are busy ones: `busy` has thousands of rows, `idle` a few hundred.
    let busy = |n: u64| format!("key_{:016x}", 1_000 + [0, 60, 120, 240, 360, 720][(n % 6) as usize]);
    let idle = |n: u64| format!("key_{:016x}", 1_000 + [97 * 89, 91 * 79, 83 * 97, 71 * 93][(n % 4) as usize]);
    // Somewhere in the month, each time elsewhere.
    let deep = |n: u64| end - DAY_MS * (2 + (n * 7 % 27).cast_signed()) - (n.cast_signed() * 1_234_567) % DAY_MS;
    let cursor = |n: u64| format!("{:x}-0", deep(n));
    let id = |n: u64| {
        let n = (n * 7_919 * 1_013) % rows / 100 * 100 + 1;
        merido::base::RequestId { epoch: EPOCH, n }.to_string()
    };
    let traces: Vec<String> =
        (0..20).flat_map(|n| traces(gateway, &format!("/api/logs?cursor={}", cursor(n)))).collect();
    time("newest", &|_| "/api/logs".to_owned());
    time("newest, 1,000 rows", &|_| "/api/logs?limit=1000".to_owned());
    time("deep cursor", &|n| format!("/api/logs?cursor={}", cursor(n)));
    time("by a busy key", &|n| format!("/api/logs?key_id={}", busy(n)));
    time("by a busy key, deep cursor", &|n| format!("/api/logs?key_id={}&cursor={}", busy(n), cursor(n)));
    time("by an idle key", &|n| format!("/api/logs?key_id={}", idle(n)));
    time("by model", &|n| format!("/api/logs?model=model-{}", n % 60));
    time("by model, deep cursor", &|n| format!("/api/logs?model=model-{}&cursor={}", n % 60, cursor(n)));
    time("by provider/model", &|n| format!("/api/logs?model=provider-{}/model-{}", n % 60 % 8, n % 60));
    time("by provider", &|n| format!("/api/logs?provider=provider-{}", n % 8));
    time("status 429", &|_| "/api/logs?status=429".to_owned());
    time("status 5xx, deep cursor", &|n| format!("/api/logs?status=5xx&cursor={}", cursor(n)));
    time("a busy key's errors", &|n| format!("/api/logs?status=error&key_id={}", busy(n)));
    time("an idle key's errors", &|n| format!("/api/logs?status=error&key_id={}", idle(n)));
    time("an idle key's errors by a model", &|n| {
        format!("/api/logs?status=error&key_id={}&model=model-{}", idle(n), n % 60)
    });
    time("an hour", &|n| format!("/api/logs?since={}&until={}", deep(n), deep(n) + 3_600_000));
    time("by internal request id", &|n| format!("/api/logs?q={}", id(n)));
    time("one request", &|n| format!("/api/logs/{}", id(n)));
    time("by client's request id", &|n| format!("/api/logs?q={}", traces[(n % traces.len() as u64) as usize]));
    time("text that many hold", &|_| "/api/logs?q=overloaded".to_owned());
    time("text that nobody wrote (50,000 rows)", &|_| "/api/logs?q=nobody+wrote+this".to_owned());
    time("the same of a busy key (10,000 rows)", &|n| format!("/api/logs?q=nobody+wrote+this&key_id={}", busy(n)));
    for by in ["key", "model", "provider", "account", "day", "key,model"] {
        time(&format!("30 days to this minute by {by}"), &|_| format!("/api/usage?by={by}"));
    }
    let month = format!("since={}&until={}", end - 31 * DAY_MS, end - DAY_MS);
    time("30 whole days by key", &|_| format!("/api/usage?by=key&{month}"));
    let (noon, month) = (DAY_MS / 2, 30 * DAY_MS);
    time("30 days from noon to noon by key (worst)", &|_| {
        format!("/api/usage?by=key&since={}&until={}", end - DAY_MS - month + noon, end - DAY_MS + noon)
    });
    time("one hour's usage by key", &|n| format!("/api/usage?by=key&since={}&until={}", deep(n), deep(n) + 3_600_000));
}

/// Clients' ids that a page of the log holds.
fn traces(gateway: &Process, path: &str) -> Vec<String> {
    let page = gateway.get(path).json();
    let ids = page["logs"].as_array().unwrap().iter().filter_map(|row| row["client_request_id"].as_str());
    ids.take(3).map(str::to_owned).collect()
}
