//! Builds [`Settings`] from defaults, a file, the environment and the command line, each over the one before.
//!
//! The only file of this room that touches the world, and it only reads one file: the environment comes in as data.
//! On failure *every* mistake comes back, each with its key and source; none quotes a secret.

use super::near::nearest;
use super::table::{BARE, NOT_YET, PROVIDER_KEYS, ROWS, Row};
use super::value::{Home, Raw};
use super::{Settings, check};
use crate::base::Secret;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What settings are made of.
#[derive(Clone, Debug, Default)]
pub struct Inputs<'a> {
    /// `--config`; else `MERIDO_CONFIG` of `env` counts.
    pub config_file: Option<PathBuf>,
    /// The process' environment.
    pub env: &'a [(OsString, OsString)],
    /// `--host`.
    pub host: Option<IpAddr>,
    /// `--port`.
    pub port: Option<u16>,
    /// These are for a command: nothing will listen with them. Commands must work where `start` would refuse (one of
    /// them makes the password whose lack it complains of).
    pub command: bool,
}

/// Settings that passed every check.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Where each key that is not at its default came from.
    pub sources: BTreeMap<&'static str, Source>,
    /// What is odd but no reason to refuse: to be logged at start.
    pub warnings: Vec<String>,
}

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
    /// An argument.
    Argument(&'static str),
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// The setting's key in a file; the name itself where no setting is called so.
    pub key: String,
    /// Where it was written.
    pub source: Source,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Argument(name) => write!(f, "argument {name}"),
        }
    }
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.key, self.source, self.message)
    }
}

impl std::error::Error for Mistake {}

/// Reads everything, checks everything.
pub fn load(inputs: &Inputs<'_>) -> Result<Loaded, Vec<Mistake>> {
    let find = |name: &str| inputs.env.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_os_str());
    let home = find("HOME").map(PathBuf::from).or_else(std::env::home_dir).filter(|home| !home.as_os_str().is_empty());
    let mut loader = Loader::new(Home(home));

    let path = inputs.config_file.clone().or_else(|| find("MERIDO_CONFIG").map(PathBuf::from));
    if let Some(path) = path {
        loader.file(&path);
    }
    // Sorted, so that the same environment always gives the same list of mistakes.
    for (name, value) in inputs.env.iter().collect::<BTreeSet<_>>() {
        loader.variable(name, value);
    }
    for (bare, name) in BARE {
        if let (Some(value), None) = (find(bare), find(name)) {
            loader.setting(OsStr::new(bare), name, value);
        }
    }
    for (name, provider) in PROVIDER_KEYS {
        if let Some(key) = find(name) {
            loader.provider_key(name, provider, key);
        }
    }
    if let Some(host) = inputs.host {
        loader.settings.host = host;
        loader.set_from("host", Source::Argument("--host"));
    }
    if let Some(port) = inputs.port {
        loader.settings.port = port;
        loader.set_from("port", Source::Argument("--port"));
    }
    loader.finish(!inputs.command)
}

pub(super) struct Loader {
    pub(super) settings: Settings,
    sources: BTreeMap<&'static str, Source>,
    /// Keys whose value could not be read: checks across settings leave them out, or they would complain of a default.
    broken: BTreeSet<&'static str>,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<String>,
    home: Home,
}

impl Loader {
    fn new(home: Home) -> Self {
        let mut settings = Settings::default();
        if let Ok(dir) = home.expand("~/.merido") {
            settings.data_dir = dir;
        }
        Self { settings, sources: BTreeMap::new(), broken: BTreeSet::new(), mistakes: vec![], warnings: vec![], home }
    }

    fn finish(mut self, serves: bool) -> Result<Loaded, Vec<Mistake>> {
        check::across(&mut self, serves);
        if self.mistakes.is_empty() {
            Ok(Loaded { settings: self.settings, sources: self.sources, warnings: self.warnings })
        } else {
            Err(self.mistakes)
        }
    }

    /// Whether all of `keys` could be read.
    pub(super) fn sound(&self, keys: &[&str]) -> bool {
        !keys.iter().any(|key| self.broken.contains(key))
    }

    /// A mistake about `key`, wherever it was set.
    pub(super) fn complain(&mut self, key: &'static str, message: impl Into<String>) {
        let source = self.sources.get(key).cloned().unwrap_or(Source::Default);
        self.mistakes.push(Mistake { key: key.to_owned(), source, message: message.into() });
    }

    fn refuse(&mut self, key: &str, source: &Source, message: impl Into<String>) {
        self.mistakes.push(Mistake { key: key.to_owned(), source: source.clone(), message: message.into() });
    }

    fn set_from(&mut self, key: &'static str, source: Source) {
        self.sources.insert(key, source);
        self.broken.remove(key);
    }

    fn apply(&mut self, row: &'static Row, raw: Raw<'_>, source: Source) {
        match (row.set)(&mut self.settings, raw, &self.home) {
            Ok(()) => self.set_from(row.key, source),
            Err(reasons) => {
                for why in reasons {
                    // "must be …, not …"; other phrases name what they mean themselves.
                    let quote = !row.secret && why.starts_with("must be");
                    let message = if quote { format!("{why}, not {}", raw.shown()) } else { why };
                    self.refuse(row.key, &source, message);
                }
                self.broken.insert(row.key);
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let source = Source::File(path.to_owned());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(why) => return self.refuse("config", &source, format!("cannot be read: {why}")),
        };
        match text.parse::<toml::Table>() {
            Ok(table) => self.table(&table, "", &source),
            Err(why) => {
                // The error's own display quotes the line, and a secret may stand there.
                let upto = why.span().map_or(0, |span| span.start.min(text.len()));
                let line = memchr::memchr_iter(b'\n', &text.as_bytes()[..upto]).count() + 1;
                self.refuse("config", &source, format!("line {line} is not TOML: {}", why.message()));
            }
        }
    }

    fn table(&mut self, table: &toml::Table, prefix: &str, source: &Source) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            if let Some(row) = ROWS.iter().find(|row| row.key == key) {
                self.apply(row, Raw::Toml(value), source.clone());
            } else if ROWS.iter().any(|row| row.key.strip_prefix(&*key).is_some_and(|rest| rest.starts_with('.'))) {
                match value {
                    toml::Value::Table(inner) => self.table(inner, &format!("{key}."), source),
                    _ => self.refuse(&key, source, format!("is a table: write its keys below [{key}]")),
                }
            } else if NOT_YET.iter().any(|(not_yet, _)| *not_yet == key) {
                self.refuse(&key, source, "not supported by this build yet");
            } else {
                let message = unknown(&key, ROWS.iter().map(|row| row.key));
                self.refuse(&key, source, message);
            }
        }
    }

    fn variable(&mut self, name: &OsStr, value: &OsStr) {
        let lossy = name.to_string_lossy();
        if value.is_empty() || is_none_of_ours(&lossy, value) {
            return;
        }
        if lossy.starts_with("MERIDO_") {
            self.setting(name, &lossy, value);
        }
    }

    /// `value`, written under `name`, for the setting whose own name is `means`.
    fn setting(&mut self, name: &OsStr, means: &str, value: &OsStr) {
        let source = Source::Env(name.to_string_lossy().into_owned());
        let Some(row) = ROWS.iter().find(|row| row.env == means) else {
            if NOT_YET.iter().any(|(_, not_yet)| *not_yet == means) {
                return self.refuse(means, &source, "not supported by this build yet");
            }
            let message = unknown(means, ROWS.iter().map(|row| row.env));
            return self.refuse(means, &source, message);
        };
        let Some(value) = value.to_str() else {
            self.broken.insert(row.key);
            return self.refuse(row.key, &source, "must be UTF-8");
        };
        if row.key == "port" && value.contains("://") {
            return self.warnings.push(format!(
                "MERIDO_PORT looks like a service link of Kubernetes and is ignored ({} stays); \
                 enableServiceLinks: false in the pod keeps it away",
                self.settings.port
            ));
        }
        if !value.trim().is_empty() {
            self.apply(row, Raw::Text(value), source);
        }
    }

    fn provider_key(&mut self, name: &str, provider: &str, key: &OsStr) {
        let key = key.to_str().map_or("\0", str::trim);
        if key.is_empty() {
            return;
        }
        if !key.bytes().all(|b| b.is_ascii_graphic()) {
            return self.warnings.push(format!("{name} holds characters that no header can carry; it is ignored"));
        }
        self.settings.env_accounts.push((provider.to_owned(), Secret::new(key)));
    }
}

/// Variables that start like ours and are not settings: the file's own path, what tests use, and what Kubernetes sets
/// in every pod beside a service called `merido` or `merido-…`.
fn is_none_of_ours(name: &str, value: &OsStr) -> bool {
    let Some(rest) = name.strip_prefix("MERIDO_") else { return false };
    if rest == "CONFIG" || rest.starts_with("TEST_") {
        return true;
    }
    if ROWS.iter().any(|row| row.env == name) {
        return false;
    }
    // Judged by the value where the name alone could be a slip (`MERIDO_LISTEN_PORT`).
    let rest = format!("_{rest}");
    let link = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.to_string_lossy().starts_with(scheme));
    link || rest.ends_with("_SERVICE_HOST")
        || rest.contains("_SERVICE_PORT")
        || ["_PROTO", "_PORT", "_ADDR"].iter().filter_map(|tail| rest.strip_suffix(tail)).any(is_port_and_protocol)
}

/// `…_PORT_8788_TCP`.
fn is_port_and_protocol(name: &str) -> bool {
    let Some((name, "TCP" | "UDP" | "SCTP")) = name.rsplit_once('_') else { return false };
    let Some((name, number)) = name.rsplit_once('_') else { return false };
    name.ends_with("_PORT") && number.parse::<u16>().is_ok()
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    match nearest(name, known) {
        Some(meant) => format!("no such setting; did you mean {meant}?"),
        None => "no such setting (docs/SETTINGS.md lists them all)".to_owned(),
    }
}
