//! Scenario files: what is switched on (a basis) and what is asked (a work), as TOML.
//!
//! Must never let a misspelt key pass: unknown keys are refused, with the file's name. A basis and a work are separate
//! files so that every work can be measured on every basis and a table can name both.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::generate::{Requests, Turns};
use crate::mock;
use crate::request::Shape;

/// What merido has switched on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Basis {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) merido: Switches,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Switches {
    /// Requests a minute allowed to the key; 0 sets no limit.
    pub(crate) rpm: u64,
    /// Tokens a minute allowed to the key; 0 sets no limit.
    pub(crate) tpm: u64,
    /// Accounts of the one provider, labelled a, b, …
    pub(crate) accounts: usize,
    /// Strategy of the virtual model `fast` over all accounts; empty asks for `openai/gpt-4o-mini` directly.
    pub(crate) strategy: String,
    /// Start a Redis of our own and point merido at it.
    #[serde(default)]
    pub(crate) redis: bool,
    /// How many merido share one store (and the Redis, if there is one); the load is spread over them.
    #[serde(default = "one")]
    pub(crate) instances: usize,
    /// Keys made beside the first; the load goes under each in turn.
    #[serde(default)]
    pub(crate) more_keys: usize,
    /// Accounts made beside the first that are asked for nothing: what holding them costs.
    #[serde(default)]
    pub(crate) more_accounts: usize,
    /// Virtual models made beside `fast`, likewise.
    #[serde(default)]
    pub(crate) more_models: usize,
    /// Further settings, as merido's environment names them.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
}

/// What is asked of every proxy.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Work {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) load: LoadTable,
    #[serde(default)]
    pub(crate) mock: mock::Options,
    #[serde(default)]
    pub(crate) nginx: NginxTable,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadTable {
    /// Connections at once; in a hold, what its steps say instead.
    #[serde(default = "one")]
    pub(crate) connections: usize,
    /// Path of the request, which says its dialect.
    #[serde(default = "chat")]
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) stream: bool,
    #[serde(default)]
    pub(crate) include_usage: bool,
    #[serde(default = "usual_body")]
    pub(crate) body_bytes: usize,
    /// Open loop, requests a second; absent is a closed loop.
    #[serde(default)]
    pub(crate) rate: Option<f64>,
    #[serde(default)]
    pub(crate) abort: f64,
    /// Seconds measured in each round; of a ramp or a hold, in each step.
    pub(crate) seconds: f64,
    /// Seconds before each measurement that are not counted.
    pub(crate) warmup: f64,
    /// A closed loop's connections begin over so many milliseconds instead of all at once.
    #[serde(default)]
    pub(crate) spread_ms: u64,
    /// Whether a mix changes from request to request or from connection to connection.
    #[serde(default)]
    pub(crate) turns: Turns,
    /// Several forms of request instead of the one above.
    #[serde(default)]
    pub(crate) mix: Vec<MixTable>,
    /// Open loops at rising rates until p99 breaks.
    #[serde(default)]
    pub(crate) ramp: Option<RampTable>,
    /// Streams held open, more in each step.
    #[serde(default)]
    pub(crate) hold: Option<HoldTable>,
}

/// One form of a mix.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MixTable {
    pub(crate) name: String,
    pub(crate) share: usize,
    #[serde(default)]
    pub(crate) stream: bool,
    #[serde(default)]
    pub(crate) include_usage: bool,
    #[serde(default = "usual_body")]
    pub(crate) body_bytes: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RampTable {
    /// The first rate, requests a second.
    pub(crate) from: f64,
    /// Each step is so many times the one before.
    pub(crate) factor: f64,
    /// The last rate at most.
    pub(crate) most: f64,
    /// A step whose p99 is above this twice is the last.
    pub(crate) break_p99_ms: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HoldTable {
    /// Streams open in each step, rising.
    pub(crate) steps: Vec<usize>,
}

fn one() -> usize {
    1
}

fn chat() -> String {
    "/v1/chat/completions".to_owned()
}

fn usual_body() -> usize {
    930
}

impl Work {
    /// What is sent: the forms with their shares, for a peer that wants this model, key and further head lines.
    pub(crate) fn requests(
        &self,
        model: &str,
        key: Option<&str>,
        headers: &[(String, String)],
    ) -> Result<Requests, String> {
        let paced = self.mock.pace_ms > 0;
        let form = |name: &str, stream, include_usage, body_bytes| {
            let (path, host) = (self.load.path.as_str(), "127.0.0.1");
            Shape { path, host, model, key, stream, include_usage, body_bytes, headers }.form(name, paced)
        };
        let load = &self.load;
        if load.mix.is_empty() {
            return Ok(Requests::one(form(&self.name, load.stream, load.include_usage, load.body_bytes)));
        }
        let forms = load.mix.iter();
        let forms = forms.map(|one| (one.share, form(&one.name, one.stream, one.include_usage, one.body_bytes)));
        Requests::mixed(forms.collect(), load.turns).map_err(|error| format!("{}: {error}", self.name))
    }

    /// Bytes of an average request's body.
    pub(crate) fn body_bytes(&self) -> f64 {
        let (mut bytes, mut shares) = (0, 0);
        for one in &self.load.mix {
            (bytes, shares) = (bytes + one.share * one.body_bytes, shares + one.share);
        }
        if shares == 0 { self.load.body_bytes as f64 } else { bytes as f64 / shares as f64 }
    }

    fn check(&self) -> Result<(), String> {
        crate::run::seconds(self.load.seconds).and(crate::run::rate(self.load.rate))?;
        if let Some(ramp) = &self.load.ramp
            && !(ramp.factor > 1.0 && ramp.from >= 1.0 && ramp.most >= ramp.from && ramp.break_p99_ms > 0.0)
        {
            return Err("a ramp rises: from >= 1, factor > 1, most >= from, break_p99_ms > 0".to_owned());
        }
        if let Some(hold) = &self.load.hold
            && (hold.steps.is_empty() || hold.steps.windows(2).any(|two| two[0] >= two[1]))
        {
            return Err("the steps of a hold rise".to_owned());
        }
        if self.load.hold.is_some() && (self.mock.pace_ms == 0 || !self.load.stream) {
            return Err("what is held are paced streams: stream = true and mock.pace_ms".to_owned());
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NginxTable {
    /// nginx's `proxy_buffering`: its default is on; a stream whose events must leave at once needs it off.
    pub(crate) buffering: bool,
    /// A listener per worker instead of one for all. Spreads connections evenly; was dearer per request when tried.
    pub(crate) reuseport: bool,
}

impl Default for NginxTable {
    fn default() -> Self {
        Self { buffering: true, reuseport: false }
    }
}

/// The files that ride in the binary, by name.
const BUILT_IN: &[(&str, &str)] = &[
    ("everything-on", include_str!("../scenarios/everything-on.toml")),
    ("everything-on-redis", include_str!("../scenarios/everything-on-redis.toml")),
    ("two-on-redis", include_str!("../scenarios/two-on-redis.toml")),
    ("bare", include_str!("../scenarios/bare.toml")),
    ("ten-thousand-keys", include_str!("../scenarios/ten-thousand-keys.toml")),
    ("extremes", include_str!("../scenarios/extremes.toml")),
    ("unary", include_str!("../scenarios/unary.toml")),
    ("sse-burst", include_str!("../scenarios/sse-burst.toml")),
    ("sse-paced", include_str!("../scenarios/sse-paced.toml")),
    ("sse-spread", include_str!("../scenarios/sse-spread.toml")),
    ("upstream-50ms", include_str!("../scenarios/upstream-50ms.toml")),
    ("large-prompts", include_str!("../scenarios/large-prompts.toml")),
    ("mixed", include_str!("../scenarios/mixed.toml")),
    ("abort-half", include_str!("../scenarios/abort-half.toml")),
    ("aborted-streams", include_str!("../scenarios/aborted-streams.toml")),
    ("open-streams", include_str!("../scenarios/open-streams.toml")),
    ("open-2000", include_str!("../scenarios/open-2000.toml")),
    ("one-connection", include_str!("../scenarios/one-connection.toml")),
    ("ramp", include_str!("../scenarios/ramp.toml")),
    ("balance-8", include_str!("../scenarios/balance-8.toml")),
    ("balance-64", include_str!("../scenarios/balance-64.toml")),
    ("balance-1000", include_str!("../scenarios/balance-1000.toml")),
    ("slow-peers", include_str!("../scenarios/slow-peers.toml")),
];

/// Names and one line each of all built-in files, bases first.
pub(crate) fn list() -> String {
    let mut lines = Vec::new();
    for (name, text) in BUILT_IN {
        let about = text.lines().find_map(|line| line.strip_prefix("about = ")).unwrap_or_default().trim_matches('"');
        let kind = if text.contains("\n[merido]") { "basis" } else { "work " };
        lines.push(format!("{kind}  {name:<20} {about}\n"));
    }
    lines.sort();
    lines.concat()
}

/// Reads a basis: a built-in name or a path.
pub(crate) fn basis(name: &str) -> Result<Basis, String> {
    let basis: Basis = read(name)?;
    if basis.merido.instances == 0 || basis.merido.instances > 16 {
        return Err(format!("{name}: merido.instances is 1 to 16, not {}", basis.merido.instances));
    }
    if basis.merido.accounts == 0 || basis.merido.accounts > 26 {
        return Err(format!("{name}: merido.accounts is 1 to 26, not {}", basis.merido.accounts));
    }
    Ok(basis)
}

/// Reads a work: a built-in name or a path.
pub(crate) fn work(name: &str) -> Result<Work, String> {
    let work: Work = read(name)?;
    work.check().map_err(|error| format!("{name}: {error}"))?;
    Ok(work)
}

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> Result<T, String> {
    let text = match BUILT_IN.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => (*text).to_owned(),
        None => std::fs::read_to_string(Path::new(name)).map_err(|error| {
            let known: Vec<&str> = BUILT_IN.iter().map(|(known, _)| *known).collect();
            format!("{name}: {error} (built in: {})", known.join(", "))
        })?,
    };
    toml::from_str(&text).map_err(|error| format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_file_is_read_and_named_after_itself() {
        for (name, text) in BUILT_IN {
            let named = if text.contains("\n[merido]") { basis(name).unwrap().name } else { work(name).unwrap().name };
            assert_eq!(named, *name);
        }
    }

    #[test]
    fn everything_on_has_everything_on() {
        let switches = basis("everything-on").unwrap().merido;
        assert!(switches.rpm > 0 && switches.tpm > 0 && switches.accounts == 2 && !switches.strategy.is_empty());
        assert!(switches.env.is_empty(), "defaults stay defaults: {:?}", switches.env);
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "name='x'\nabout=''\n[merido]\nrpm=1\ntpm=1\naccounts=1\nstrategy=''\nrmp=2\n")
            .unwrap();
        assert!(basis(&file.path().to_string_lossy()).unwrap_err().contains("rmp"));
        assert!(work("no-such-work").unwrap_err().contains("built in"));
    }
}
