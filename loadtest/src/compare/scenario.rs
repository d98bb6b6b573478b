//! Scenario files: what is switched on (a basis) and what is asked (a work), as TOML.
//!
//! Must never let a misspelt key pass: unknown keys are refused, with the file's name. A basis and a work are separate
//! files so that every work can be measured on every basis and a table can name both.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::mock;

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
    pub(crate) connections: usize,
    #[serde(default)]
    pub(crate) stream: bool,
    #[serde(default)]
    pub(crate) include_usage: bool,
    pub(crate) body_bytes: usize,
    /// Open loop, requests a second; absent is a closed loop.
    #[serde(default)]
    pub(crate) rate: Option<f64>,
    #[serde(default)]
    pub(crate) abort: f64,
    /// Seconds measured in each round.
    pub(crate) seconds: f64,
    /// Seconds before each measurement that are not counted.
    pub(crate) warmup: f64,
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
    ("everything-on", include_str!("../../scenarios/everything-on.toml")),
    ("everything-on-redis", include_str!("../../scenarios/everything-on-redis.toml")),
    ("bare", include_str!("../../scenarios/bare.toml")),
    ("unary", include_str!("../../scenarios/unary.toml")),
    ("sse-burst", include_str!("../../scenarios/sse-burst.toml")),
    ("sse-paced", include_str!("../../scenarios/sse-paced.toml")),
    ("upstream-50ms", include_str!("../../scenarios/upstream-50ms.toml")),
    ("open-2000", include_str!("../../scenarios/open-2000.toml")),
    ("one-connection", include_str!("../../scenarios/one-connection.toml")),
];

/// Reads a basis: a built-in name or a path.
pub(crate) fn basis(name: &str) -> Result<Basis, String> {
    let basis: Basis = read(name)?;
    if basis.merido.accounts == 0 || basis.merido.accounts > 26 {
        return Err(format!("{name}: merido.accounts is 1 to 26, not {}", basis.merido.accounts));
    }
    Ok(basis)
}

/// Reads a work: a built-in name or a path.
pub(crate) fn work(name: &str) -> Result<Work, String> {
    let work: Work = read(name)?;
    crate::run::seconds(work.load.seconds)
        .and(crate::run::rate(work.load.rate))
        .map_err(|error| format!("{name}: {error}"))?;
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
