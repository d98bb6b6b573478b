//! Plain settings: what can be set, what it is by default, what is wrong with a set of them.
//!
//! No file is read here but in `load`; nothing here changes after start. Checks report *all* mistakes, each naming its
//! key and where it came from. `table` is the one list of what can be set: the loader, `config/default.toml` and
//! `docs/SETTINGS.md` all follow it.

mod check;
mod cidr;
mod limits;
mod load;
mod near;
mod routes;
mod table;
#[cfg(test)]
mod tests;
mod value;

pub use cidr::Cidr;
pub use limits::{BreakerSettings, Timeouts};
pub use load::{Inputs, Loaded, Mistake, Source, load};
pub use routes::{RouteSpec, TargetSpec};
pub use table::{ROWS, Row};

use crate::base::Secret;
use crate::base::telemetry::LogFormat;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything `config/default.toml` lists.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Listen address.
    pub host: IpAddr,
    /// Listen port; 0 picks a free one.
    pub port: u16,
    /// Control plane, health and metrics on a listener of their own as well.
    pub admin_listen: Option<std::net::SocketAddr>,
    /// Embedded store and master key file.
    pub data_dir: PathBuf,
    /// `postgres://…`; unset: the embedded store.
    pub database_url: Option<Secret>,
    /// Where instances share their state; unset: nowhere.
    pub redis_url: Option<Secret>,
    /// Extra roots (PEM) for `rediss://`.
    pub redis_ca: Option<PathBuf>,
    /// Of every key there.
    pub redis_prefix: String,
    /// Bound on any wait for Redis.
    pub redis_deadline: Duration,
    /// What limits do while Redis is away.
    pub rate_limit_on_redis_down: OnRedisDown,
    /// Instances to divide by before any other was seen.
    pub expected_instances: Option<u32>,
    /// base64 of 32 bytes; seals provider secrets.
    pub master_key: Option<Secret>,
    /// Where the master key lies when it is not given; made with mode 0600 when absent.
    pub master_key_path: Option<PathBuf>,
    /// The master key before this one; opens what is not sealed anew yet.
    pub master_key_previous: Option<Secret>,
    /// argon2 hash that gates the control plane.
    pub dashboard_password_hash: Option<Secret>,
    /// Start with an open control plane on a non-loopback host all the same.
    pub allow_open_admin: bool,
    /// Refuse anonymous `/v1/*`; unset: false on loopback, true otherwise.
    pub require_api_key: Option<bool>,
    /// Requests per minute of keys without their own limit; 0 = none.
    pub rate_limit_rpm: u32,
    /// Burst of those; 0 = `rate_limit_rpm`.
    pub rate_limit_burst: u32,
    /// Tokens per minute of keys without their own limit; 0 = none.
    pub rate_limit_tpm: u32,
    /// Virtual models given by the environment (JSON array), already read.
    pub routes: Vec<RouteSpec>,
    /// `off`, `auto`, `all`.
    pub dedup: DedupMode,
    /// How long a finished answer is kept.
    pub dedup_ttl: Duration,
    /// Bytes of finished answers kept at most.
    pub dedup_max_bytes: usize,
    /// Identical requests on several instances become one call, too.
    pub dedup_cluster: bool,
    /// Off, the built-in embedding, or an embeddings model.
    pub semantic_cache: SemanticMode,
    /// Cosine similarity from which two questions count as one.
    pub semantic_cache_threshold: f32,
    /// How long an answer is kept for similar questions.
    pub semantic_cache_ttl: Duration,
    /// Log filter (`info`, `warn,merido=debug`).
    pub log: String,
    /// Log form; unset: text on a terminal, else JSON.
    pub log_format: Option<LogFormat>,
    /// Which requests get an access line.
    pub access_log: AccessLog,
    /// Request-log rows per second kept at most; above, successes are sampled and counted.
    pub log_rows_per_second: u32,
    /// Days a row is kept.
    pub log_retention_days: u32,
    /// Bytes of rows kept at most.
    pub log_max_bytes: u64,
    /// Base URL of the collector that traces go to; unset: off.
    pub otlp_endpoint: Option<String>,
    /// `name=value,…` for the collector.
    pub otlp_headers: Option<Secret>,
    /// Share of requests that are traced unless their sender decided.
    pub otlp_sample_ratio: f32,
    /// What to do with OpenAI streams that do not ask for usage.
    pub stream_usage: StreamUsage,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Cidr>,
    /// Extra roots (PEM) for private providers.
    pub upstream_ca: Option<PathBuf>,
    /// Data-path threads; 0 = cores.
    pub workers: usize,
    /// The built-in `demo/echo` provider; unset: on while no account exists.
    pub demo: Option<bool>,
    /// Terminate TLS here.
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
    /// Largest request body.
    pub max_body_bytes: u64,
    /// Largest request body of the audio endpoints.
    pub max_audio_body_bytes: u64,
    /// Client connections at most (a reserve for health and control plane comes on top).
    pub max_connections: usize,
    /// How long streams may run on after shutdown began.
    pub drain: Duration,
    /// `/readyz` says 503 for so long before the listener closes; unset: 0 on loopback, 15 s otherwise.
    pub lame_duck: Option<Duration>,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Rests, breaker, backoff.
    pub breaker: BreakerSettings,
    /// API keys of providers found in the environment: (provider, key), in the catalogue's order.
    pub env_accounts: Vec<(String, Secret)>,
}

/// What limits do while Redis is away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnRedisDown {
    /// Admit, and count what was admitted so.
    Open,
    /// This instance's part of the limit: limit ÷ instances last known.
    Local,
    /// Refuse.
    Closed,
}

/// When identical requests become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DedupMode {
    /// Never.
    Off,
    /// With an `Idempotency-Key`, `x-merido-dedup: on`, or temperature 0.
    Auto,
    /// Always.
    All,
}

/// Where the semantic cache gets its vectors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SemanticMode {
    /// No semantic cache.
    Off,
    /// Hashed word features; no network.
    Builtin,
    /// `provider/model` of an embeddings model.
    Model(String),
}

/// Which requests get an access line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessLog {
    /// None.
    Off,
    /// Status ≥ 400.
    Errors,
    /// All.
    All,
}

/// OpenAI streams without `include_usage`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamUsage {
    /// Ask for it and drop the usage-only chunk on the way back.
    Inject,
    /// Leave the request alone and estimate.
    Estimate,
}

impl Settings {
    /// `require_api_key`, resolved.
    pub fn keys_required(&self) -> bool {
        self.require_api_key.unwrap_or(!self.on_loopback())
    }

    /// Nobody but this machine can connect. `::ffff:127.0.0.1` counts too.
    pub fn on_loopback(&self) -> bool {
        self.host.to_canonical().is_loopback()
    }

    /// `lame_duck`, resolved.
    pub fn lame_duck(&self) -> Duration {
        self.lame_duck.unwrap_or(if self.on_loopback() { Duration::ZERO } else { Duration::from_secs(15) })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            port: 8788,
            admin_listen: None,
            data_dir: std::env::home_dir().unwrap_or_default().join(".merido"),
            database_url: None,
            redis_url: None,
            redis_ca: None,
            redis_prefix: "merido".to_owned(),
            redis_deadline: Duration::from_millis(25),
            rate_limit_on_redis_down: OnRedisDown::Open,
            expected_instances: None,
            master_key: None,
            master_key_path: None,
            master_key_previous: None,
            dashboard_password_hash: None,
            allow_open_admin: false,
            require_api_key: None,
            rate_limit_rpm: 0,
            rate_limit_burst: 0,
            rate_limit_tpm: 0,
            routes: Vec::new(),
            dedup: DedupMode::Auto,
            dedup_ttl: Duration::from_secs(60),
            dedup_max_bytes: 64 << 20,
            dedup_cluster: false,
            semantic_cache: SemanticMode::Off,
            semantic_cache_threshold: 0.95,
            semantic_cache_ttl: Duration::from_secs(3600),
            log: "info".to_owned(),
            log_format: None,
            access_log: AccessLog::Errors,
            log_rows_per_second: 2000,
            log_retention_days: 14,
            log_max_bytes: 2 << 30,
            otlp_endpoint: None,
            otlp_headers: None,
            otlp_sample_ratio: 1.0,
            stream_usage: StreamUsage::Inject,
            trusted_proxies: Vec::new(),
            upstream_ca: None,
            workers: 0,
            demo: None,
            tls_cert: None,
            tls_key: None,
            max_body_bytes: 32 << 20,
            max_audio_body_bytes: 64 << 20,
            max_connections: 16_384,
            drain: Duration::from_secs(600),
            lame_duck: None,
            timeouts: Timeouts::default(),
            breaker: BreakerSettings::default(),
            env_accounts: Vec::new(),
        }
    }
}
