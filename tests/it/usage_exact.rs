//! Ten thousand requests of every kind over two instances: what `/api/usage` adds up is what the provider reported, to the
//! token; of those whose client left it is what their rows say.

mod provider;

use crate::support::client::{Conn, get, post_bytes};
use crate::support::eventually;
use crate::support::gateway::{Setup, TestGateway};
use crate::support::redis::RedisServer;
use merido::store::rows::LoggedRow;
use provider::{Ledger, Meter, Reported};
use serde_json::{Value, json};

const REQUESTS: usize = 10_000;
const CALLERS: usize = 16;
/// One in so many streams is left in its middle.
const LEFT: usize = 9;
/// Who asks for what.
const ASKS: [(&str, &str); 5] = [
    ("chat", "openai/gpt-4o-mini"),
    ("messages", "anthropic/claude-sonnet-4-5"),
    ("gemini", "gemini/gemini-2.5-flash"),
    ("responses", "openai/gpt-4o"),
    ("embeddings", "openai/text-embedding-3-small"),
];

/// One request: how it is asked, for what, and whether its client stays.
#[derive(Clone, Copy, Debug)]
struct Plan {
    caller: &'static str,
    model: &'static str,
    stream: bool,
    leaves: bool,
}

impl Plan {
    /// All kinds in turn, whole and streamed.
    fn of(n: usize) -> Self {
        let (caller, model) = ASKS[n % ASKS.len()];
        let turn = n / ASKS.len();
        let stream = turn % 2 == 1 && caller != "embeddings";
        Self { caller, model, stream, leaves: stream && (turn / 2).is_multiple_of(LEFT) }
    }

    fn path(self) -> String {
        match self.caller {
            "chat" => "/v1/chat/completions".to_owned(),
            "gemini" if self.stream => format!("/v1beta/models/{}:streamGenerateContent?alt=sse", self.model),
            "gemini" => format!("/v1beta/models/{}:generateContent", self.model),
            caller => format!("/v1/{caller}"),
        }
    }

    fn body(self, n: usize) -> Value {
        let (model, stream) = (self.model, self.stream);
        let words = format!("{} {n}", if self.leaves { provider::STAY_SILENT } else { "Tell me something" });
        let messages = json!([{"role": "user", "content": words}]);
        match self.caller {
            // Some ask for usage themselves; for the others the gateway does.
            "chat" if stream && n.is_multiple_of(2) => {
                json!({"model": model, "stream": true, "stream_options": {"include_usage": true}, "messages": messages})
            }
            "chat" => json!({"model": model, "stream": stream, "messages": messages}),
            "messages" => json!({"model": model, "stream": stream, "max_tokens": 64, "messages": messages}),
            "gemini" => json!({"contents": [{"role": "user", "parts": [{"text": words}]}]}),
            "responses" => json!({"model": model, "stream": stream, "input": words}),
            _ => json!({"model": model, "input": words}),
        }
    }

    fn send(self, n: usize, gateway: &TestGateway, kept: &mut Conn) {
        let bytes = post_bytes(&self.path(), "", self.body(n).to_string().as_bytes());
        if self.leaves {
            let mut conn = Conn::open(gateway.addr);
            conn.send(&bytes);
            conn.read_until(provider::WORD);
            return;
        }
        kept.send(&bytes);
        let answer = kept.answer();
        assert_eq!(answer.status, 200, "{self:?}: {}", answer.text());
        assert!(answer.text().contains(provider::WORD) || self.caller == "embeddings", "{self:?}: {}", answer.text());
    }
}

fn reported(sums: &Value) -> Reported {
    let count = |name: &str| sums["tokens"][name].as_u64().unwrap();
    Reported {
        requests: sums["requests"].as_u64().unwrap(),
        prompt: count("prompt"),
        completion: count("completion"),
        cache_read: count("cache_read"),
        cache_write: count("cache_write"),
        reasoning: count("reasoning"),
    }
}

fn usage(gateway: &TestGateway, query: &str) -> Value {
    get(gateway.addr, &format!("/api/usage?{query}"), "").json()
}

fn left<'a>(rows: &'a [LoggedRow], provider: Option<&'a str>) -> impl Iterator<Item = &'a LoggedRow> {
    let gone = rows.iter().filter(|row| row.error.as_deref() == Some("client_gone"));
    gone.filter(move |row| provider.is_none() || row.provider.as_deref() == provider)
}

#[test]
fn ten_thousand_requests_are_counted_to_the_token() {
    let meter = Meter::start();
    let (redis, dir) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let setup = || Setup::new().redis(&redis).with(|s| s.log_rows_per_second = 1_000_000);
    let accounts = [("openai", "/v1"), ("anthropic", ""), ("gemini", "")];
    let first = accounts.iter().fold(setup(), |setup, (name, base)| setup.account(name, "a", &meter.url(base)));
    let both = [first.start_in(dir.path()), setup().start_in(dir.path())];

    std::thread::scope(|threads| {
        for caller in 0..CALLERS {
            let gateway = &both[caller % 2];
            threads.spawn(move || {
                let mut kept = Conn::open(gateway.addr);
                for n in (caller..REQUESTS).step_by(CALLERS) {
                    Plan::of(n).send(n, gateway, &mut kept);
                }
            });
        }
    });

    let leavers = (0..REQUESTS).filter(|n| Plan::of(*n).leaves).count() as u64;
    assert!(leavers > 400, "{leavers}");
    let ended = || meter.whole(None).requests + meter.ledger().hung_up;
    eventually("the provider is done with all of them", || ended() == REQUESTS as u64);
    let whole = meter.whole(None);
    assert_eq!((meter.calls(), whole.requests), (REQUESTS as u64, REQUESTS as u64 - leavers), "nobody was asked twice");
    eventually("all is counted", || usage(&both[0], "")["total"]["requests"] == json!(REQUESTS));
    let rows = both[0].rows(REQUESTS);
    assert_eq!(left(&rows, None).count() as u64, leavers);
    assert!(rows.iter().all(|row| row.sampled == 1 && row.estimated == (row.error.is_some())), "who stayed is exact");

    // Everything, and by provider; the same at both instances, in JSON and as a spreadsheet.
    let expected = |provider: Option<&str>| {
        left(&rows, provider).fold(meter.whole(provider), |sum, row| sum.plus(&Reported::of(&row.tokens)))
    };
    let by_provider = usage(&both[0], "by=provider");
    assert_eq!(reported(&by_provider["total"]), expected(None));
    let groups = by_provider["usage"].as_array().unwrap();
    assert_eq!(groups.len(), 3, "{by_provider}");
    for group in groups {
        let provider = group["provider"].as_str().unwrap();
        assert_eq!(reported(group), expected(Some(provider)), "{provider}");
        assert_eq!(group["errors"], 0, "who leaves is no error of {provider}'s");
    }
    let there = usage(&both[1], "by=provider");
    assert_eq!((&there["total"], &there["usage"]), (&by_provider["total"], &by_provider["usage"]));
    let sheet = get(both[1].addr, "/api/usage?by=model,day&format=csv", "").text();
    let mut lines = sheet.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let column = |line: &str, name: &str| -> u64 {
        let at = names.iter().position(|one| *one == name).unwrap();
        line.split(',').nth(at).unwrap().parse().unwrap()
    };
    let (prompt, completion) = lines.fold((0, 0), |(prompt, completion), line| {
        (prompt + column(line, "prompt"), completion + column(line, "completion"))
    });
    assert_eq!((prompt, completion), (expected(None).prompt, expected(None).completion), "{sheet}");
    // What the dollars are made of: the same sums, so that nothing is charged twice or forgotten.
    let cost: i64 = rows.iter().map(|row| row.cost_nanos.max(0)).sum();
    let told = by_provider["total"]["cost_usd"].as_f64().unwrap();
    assert!((told - cost as f64 / 1e9).abs() < 1e-6 && told > 0.0, "{told} is not {cost} nanodollars");
    let Ledger { hung_up, .. } = meter.ledger();
    assert_eq!(hung_up, leavers, "each of them was let go at the provider, too");
}
