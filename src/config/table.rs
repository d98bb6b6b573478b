//! The table of settings: for each its key in a file, its name in the environment, what it means, and how it is read.
//!
//! The loader knows no setting but these; tests hold `config/default.toml` and `docs/SETTINGS.md` against them.

use super::value::{Home, Raw, Reasons};
use super::{AccessLog, DedupMode, OnRedisDown, SemanticMode, Settings, StreamUsage, routes};
use crate::base::Secret;
use crate::base::telemetry::LogFormat;

/// One setting.
#[derive(Debug)]
pub struct Row {
    /// Its key in a file: `port`, `timeouts.connect_seconds`.
    pub key: &'static str,
    /// Its name in the environment.
    pub env: &'static str,
    /// What it means, in one line for the documentation.
    pub meaning: &'static str,
    /// No message may quote its value.
    pub secret: bool,
    pub(super) set: Set,
}

type Set = fn(&mut Settings, Raw<'_>, &Home) -> Result<(), Reasons>;

const fn row(key: &'static str, env: &'static str, meaning: &'static str, set: Set) -> Row {
    Row { key, env, meaning, secret: false, set }
}

const fn secret(key: &'static str, env: &'static str, meaning: &'static str, set: Set) -> Row {
    Row { key, env, meaning, secret: true, set }
}

fn put<T>(slot: &mut T, read: Result<T, String>) -> Result<(), Reasons> {
    *slot = read.map_err(|why| vec![why])?;
    Ok(())
}

fn some<T>(slot: &mut Option<T>, read: Result<T, String>) -> Result<(), Reasons> {
    put(slot, read.map(Some))
}

/// A key prefix: what no tool mistakes for a pattern, a hash tag or another key's part.
fn prefix(text: String) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.len() <= 64 && text.bytes().all(plain) {
        Ok(text)
    } else {
        Err("must be at most 64 letters, digits, dots, dashes and underscores".to_owned())
    }
}

fn http_url(text: String) -> Result<String, String> {
    if text.starts_with("http://") || text.starts_with("https://") {
        Ok(text)
    } else {
        Err("must start with http:// or https://".to_owned())
    }
}

fn header_list(text: String) -> Result<String, String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let good = |pair: &str| {
        pair.split_once('=').is_some_and(|(name, value)| {
            let (name, value) = (name.trim(), value.trim());
            !name.is_empty() && name.bytes().all(token) && value.bytes().all(|b| (0x20..0x7f).contains(&b))
        })
    };
    if text.split(',').all(good) { Ok(text) } else { Err("must be name=value, several apart by commas".to_owned()) }
}

/// Named by the documentation, but not built yet: refused instead of ignored. (Key in a file, name in the environment.)
pub(super) const NOT_YET: &[(&str, &str)] = &[("log_bodies", "MERIDO_LOG_BODIES")];

/// Hosting platforms set these by themselves: they count where the `MERIDO_*` name is not set. (Name, what it means.)
pub(super) const BARE: &[(&str, &str)] = &[("DATABASE_URL", "MERIDO_DATABASE_URL"), ("REDIS_URL", "MERIDO_REDIS_URL")];

/// Bare keys of providers that become accounts: (name in the environment, provider).
pub(super) const PROVIDER_KEYS: &[(&str, &str)] = &[
    ("OPENAI_API_KEY", "openai"),
    ("ANTHROPIC_API_KEY", "anthropic"),
    ("GEMINI_API_KEY", "gemini"),
    ("OPENROUTER_API_KEY", "openrouter"),
    ("GROQ_API_KEY", "groq"),
    ("DEEPSEEK_API_KEY", "deepseek"),
    ("MISTRAL_API_KEY", "mistral"),
    ("XAI_API_KEY", "xai"),
];

/// Every setting, in the order of the documentation.
pub static ROWS: &[Row] = &[
    row("host", "MERIDO_HOST", "Listen address.", |s, v, _| put(&mut s.host, v.address())),
    row("port", "MERIDO_PORT", "Listen port; 0 picks a free one.", |s, v, _| put(&mut s.port, v.whole(0, u16::MAX))),
    row(
        "admin_listen",
        "MERIDO_ADMIN_LISTEN",
        "`ADDRESS:PORT`: control plane, health and metrics on a listener of their own as well.",
        |s, v, _| some(&mut s.admin_listen, v.socket()),
    ),
    row("data_dir", "MERIDO_DATA_DIR", "Where the embedded store and the master key file lie.", |s, v, home| {
        put(&mut s.data_dir, v.path(home))
    }),
    secret(
        "database_url",
        "MERIDO_DATABASE_URL",
        "`postgres://…`: the store of several instances; TLS by `sslmode`. Unset: the embedded store. `DATABASE_URL` \
         counts, too.",
        |s, v, _| some(&mut s.database_url, v.text().map(Secret::new)),
    ),
    secret(
        "redis_url",
        "MERIDO_REDIS_URL",
        "What instances share. `redis://`, `rediss://` (TLS), `unix://`; several nodes of a Redis Cluster apart by \
         commas. Unset: off. `REDIS_URL` counts, too.",
        |s, v, _| some(&mut s.redis_url, v.text().map(Secret::new)),
    ),
    row(
        "redis_ca",
        "MERIDO_REDIS_CA",
        "Extra roots (PEM) to check `rediss://` by; the system's are always there.",
        |s, v, home| some(&mut s.redis_ca, v.path(home)),
    ),
    row("redis_prefix", "MERIDO_REDIS_PREFIX", "Key prefix; several deployments may share one Redis.", |s, v, _| {
        put(&mut s.redis_prefix, v.text().and_then(prefix))
    }),
    row("redis_deadline_ms", "MERIDO_REDIS_DEADLINE_MS", "Bound on any wait for Redis, in milliseconds.", |s, v, _| {
        let millis = v.whole(1, 10_000_u32);
        put(&mut s.redis_deadline, millis.map(|ms| std::time::Duration::from_millis(ms.into())))
    }),
    row(
        "rate_limit_on_redis_down",
        "MERIDO_RATE_LIMIT_ON_REDIS_DOWN",
        "What limits do while Redis is away: `open` admits, `local` divides the limit by the instances last known, \
         `closed` refuses.",
        |s, v, _| {
            let choices = [("open", OnRedisDown::Open), ("local", OnRedisDown::Local), ("closed", OnRedisDown::Closed)];
            put(&mut s.rate_limit_on_redis_down, v.choice(&choices))
        },
    ),
    row(
        "expected_instances",
        "MERIDO_EXPECTED_INSTANCES",
        "Instances to divide by under `local` before any other was ever seen.",
        |s, v, _| some(&mut s.expected_instances, v.whole(1, 10_000_u32)),
    ),
    secret(
        "master_key",
        "MERIDO_MASTER_KEY",
        "base64 of 32 bytes; seals provider secrets. Better kept in the environment or a file of its own than here.",
        |s, v, _| some(&mut s.master_key, v.text().map(Secret::new)),
    ),
    row(
        "master_key_path",
        "MERIDO_MASTER_KEY_PATH",
        "File that holds the master key; unset: `master.key` in the data directory. Made (mode 0600) when absent.",
        |s, v, home| some(&mut s.master_key_path, v.path(home)),
    ),
    secret(
        "master_key_previous",
        "MERIDO_MASTER_KEY_PREVIOUS",
        "The master key before this one: either opens the store while `merido rotate-master-key` changes it.",
        |s, v, _| some(&mut s.master_key_previous, v.text().map(Secret::new)),
    ),
    secret(
        "dashboard_password_hash",
        "MERIDO_DASHBOARD_PASSWORD_HASH",
        "argon2 hash (`merido hash-password`) that gates the control plane; needed on any address but loopback.",
        |s, v, _| some(&mut s.dashboard_password_hash, v.text().map(Secret::new)),
    ),
    row(
        "allow_open_admin",
        "MERIDO_ALLOW_OPEN_ADMIN",
        "Start without a password on a non-loopback address all the same.",
        |s, v, _| put(&mut s.allow_open_admin, v.truth()),
    ),
    row(
        "require_api_key",
        "MERIDO_REQUIRE_API_KEY",
        "Refuse `/v1/*` without a key; unset: `false` on loopback, `true` otherwise.",
        |s, v, _| some(&mut s.require_api_key, v.truth()),
    ),
    row(
        "trusted_proxies",
        "MERIDO_TRUSTED_PROXIES",
        "Address ranges (comma-separated in the environment) whose `X-Forwarded-For` is believed.",
        |s, v, _| {
            s.trusted_proxies = v.ranges()?;
            Ok(())
        },
    ),
    row(
        "rate_limit_rpm",
        "MERIDO_RATE_LIMIT_RPM",
        "Requests per minute of a key without a limit of its own, and of an anonymous address; 0 = none.",
        |s, v, _| put(&mut s.rate_limit_rpm, v.whole(0, u32::MAX)),
    ),
    row("rate_limit_burst", "MERIDO_RATE_LIMIT_BURST", "Burst of those; 0 = `rate_limit_rpm`.", |s, v, _| {
        put(&mut s.rate_limit_burst, v.whole(0, u32::MAX))
    }),
    row(
        "rate_limit_tpm",
        "MERIDO_RATE_LIMIT_TPM",
        "Tokens per minute of a key without a limit of its own; 0 = none.",
        |s, v, _| put(&mut s.rate_limit_tpm, v.whole(0, u32::MAX)),
    ),
    row(
        "routes",
        "MERIDO_ROUTES",
        "Virtual models: a JSON array of `{name, strategy, targets: [{model, account?, weight?}], sticky?}`; in a file \
         one `[[routes]]` table each. The environment's list replaces the file's.",
        |s, v, _| {
            s.routes = v.routes()?;
            let mistakes = routes::mistakes(&s.routes);
            if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
        },
    ),
    row("demo", "MERIDO_DEMO", "The built-in `demo/echo` provider; unset: on while no account exists.", |s, v, _| {
        some(&mut s.demo, v.truth())
    }),
    row("dedup", "MERIDO_DEDUP", "When identical requests become one: `off`, `auto`, `all`.", |s, v, _| {
        put(&mut s.dedup, v.choice(&[("off", DedupMode::Off), ("auto", DedupMode::Auto), ("all", DedupMode::All)]))
    }),
    row(
        "dedup_ttl_seconds",
        "MERIDO_DEDUP_TTL_SECONDS",
        "How long a finished answer is kept; 0 = only requests that run at the same time become one.",
        |s, v, _| put(&mut s.dedup_ttl, v.seconds()),
    ),
    row("dedup_max_bytes", "MERIDO_DEDUP_MAX_BYTES", "Finished answers kept at most.", |s, v, _| {
        put(&mut s.dedup_max_bytes, v.memory(0))
    }),
    row(
        "dedup_cluster",
        "MERIDO_DEDUP_CLUSTER",
        "With Redis: identical requests that run at the same time on several instances become one call, too. Whoever \
         waits gets the answer when it is whole, streams included.",
        |s, v, _| put(&mut s.dedup_cluster, v.truth()),
    ),
    row(
        "semantic_cache",
        "MERIDO_SEMANTIC_CACHE",
        "`off`, `builtin`, or `provider/model` of an embeddings model. Per instance.",
        |s, v, _| {
            let mode = v.text().and_then(|text| match text.as_str() {
                "off" => Ok(SemanticMode::Off),
                "builtin" => Ok(SemanticMode::Builtin),
                model if routes::is_provider_model(model) => Ok(SemanticMode::Model(text)),
                _ => Err("must be off, builtin, or provider/model of an embeddings model".to_owned()),
            });
            put(&mut s.semantic_cache, mode)
        },
    ),
    row(
        "semantic_cache_threshold",
        "MERIDO_SEMANTIC_CACHE_THRESHOLD",
        "Cosine similarity (0 to 1) from which two questions count as one.",
        |s, v, _| put(&mut s.semantic_cache_threshold, v.share()),
    ),
    row(
        "semantic_cache_ttl_seconds",
        "MERIDO_SEMANTIC_CACHE_TTL_SECONDS",
        "How long an answer is kept for similar questions.",
        |s, v, _| put(&mut s.semantic_cache_ttl, v.some_seconds()),
    ),
    row(
        "stream_usage",
        "MERIDO_STREAM_USAGE",
        "OpenAI streams that do not ask for usage: `inject` asks and hides the answer, `estimate` leaves them alone.",
        |s, v, _| {
            let choices = [("inject", StreamUsage::Inject), ("estimate", StreamUsage::Estimate)];
            put(&mut s.stream_usage, v.choice(&choices))
        },
    ),
    row("log", "MERIDO_LOG", "Log filter: `warn`, `info`, `warn,merido::store=debug`. To stderr.", |s, v, _| {
        let filter = v.text().and_then(|text| {
            let checked = crate::base::telemetry::check_filter(&text);
            checked.map_err(|why| format!("must be a log filter like \"warn,merido=debug\" ({why})"))?;
            Ok(text)
        });
        put(&mut s.log, filter)
    }),
    row("log_format", "MERIDO_LOG_FORMAT", "`text` or `json`; unset: `text` on a terminal, else `json`.", |s, v, _| {
        some(&mut s.log_format, v.choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]))
    }),
    row("access_log", "MERIDO_ACCESS_LOG", "Which requests get a line: `off`, `errors`, `all`.", |s, v, _| {
        let choices = [("off", AccessLog::Off), ("errors", AccessLog::Errors), ("all", AccessLog::All)];
        put(&mut s.access_log, v.choice(&choices))
    }),
    row(
        "log_rows_per_second",
        "MERIDO_LOG_ROWS_PER_SECOND",
        "Request-log rows kept at most; above, successes are sampled, marked and counted. Usage totals stay exact.",
        |s, v, _| put(&mut s.log_rows_per_second, v.whole(0, 1_000_000)),
    ),
    row("log_retention_days", "MERIDO_LOG_RETENTION_DAYS", "Days a row is kept.", |s, v, _| {
        put(&mut s.log_retention_days, v.whole(1, 36_500))
    }),
    row("log_max_bytes", "MERIDO_LOG_MAX_BYTES", "Rows kept at most; the oldest go first.", |s, v, _| {
        put(&mut s.log_max_bytes, v.size(1 << 20))
    }),
    row(
        "otlp_endpoint",
        "MERIDO_OTLP_ENDPOINT",
        "Where traces go: the base URL of an OTLP/HTTP collector (`http://localhost:4318`). Unset: off.",
        |s, v, _| some(&mut s.otlp_endpoint, v.text().and_then(http_url)),
    ),
    secret("otlp_headers", "MERIDO_OTLP_HEADERS", "Headers for the collector: `name=value,name=value`.", |s, v, _| {
        some(&mut s.otlp_headers, v.text().and_then(header_list).map(Secret::new))
    }),
    row(
        "otlp_sample_ratio",
        "MERIDO_OTLP_SAMPLE_RATIO",
        "Share of requests that are traced; whoever sends a `traceparent` has decided already.",
        |s, v, _| put(&mut s.otlp_sample_ratio, v.share()),
    ),
    row("workers", "MERIDO_WORKERS", "Data-path threads; 0 = one a core.", |s, v, _| {
        put(&mut s.workers, v.count(0, 1024))
    }),
    row(
        "max_connections",
        "MERIDO_MAX_CONNECTIONS",
        "Client connections at most; a reserve for health and control plane comes on top.",
        |s, v, _| put(&mut s.max_connections, v.count(1, 10_000_000)),
    ),
    row("max_body_bytes", "MERIDO_MAX_BODY_BYTES", "Largest request body; above: 413.", |s, v, _| {
        put(&mut s.max_body_bytes, v.size(1))
    }),
    row(
        "max_audio_body_bytes",
        "MERIDO_MAX_AUDIO_BODY_BYTES",
        "Largest request body of the audio endpoints.",
        |s, v, _| put(&mut s.max_audio_body_bytes, v.size(1)),
    ),
    row(
        "tls_cert",
        "MERIDO_TLS_CERT",
        "Certificate chain (PEM): terminate TLS here, on every listener; read again when it changes.",
        |s, v, home| some(&mut s.tls_cert, v.path(home)),
    ),
    row("tls_key", "MERIDO_TLS_KEY", "Its key (PEM).", |s, v, home| some(&mut s.tls_key, v.path(home))),
    row(
        "upstream_ca",
        "MERIDO_UPSTREAM_CA",
        "Extra roots (PEM) for private providers; the system's are always there.",
        |s, v, home| some(&mut s.upstream_ca, v.path(home)),
    ),
    row("drain_seconds", "MERIDO_DRAIN_SECONDS", "How long streams may run on after shutdown began.", |s, v, _| {
        put(&mut s.drain, v.seconds())
    }),
    row(
        "lame_duck_seconds",
        "MERIDO_LAME_DUCK_SECONDS",
        "`/readyz` says 503 for so long before the listener closes; unset: 0 on loopback, 15 otherwise.",
        |s, v, _| some(&mut s.lame_duck, v.seconds()),
    ),
    row(
        "timeouts.connect_seconds",
        "MERIDO_TIMEOUT_CONNECT_SECONDS",
        "Connecting to a provider, TLS included.",
        |s, v, _| put(&mut s.timeouts.connect, v.some_seconds()),
    ),
    row(
        "timeouts.first_byte_stream_seconds",
        "MERIDO_TIMEOUT_FIRST_BYTE_STREAM_SECONDS",
        "A streamed answer's first byte; then another target is tried.",
        |s, v, _| put(&mut s.timeouts.first_byte_stream, v.some_seconds()),
    ),
    row(
        "timeouts.first_byte_seconds",
        "MERIDO_TIMEOUT_FIRST_BYTE_SECONDS",
        "A non-streamed answer's first byte; then 504.",
        |s, v, _| put(&mut s.timeouts.first_byte, v.some_seconds()),
    ),
    row(
        "timeouts.stream_idle_seconds",
        "MERIDO_TIMEOUT_STREAM_IDLE_SECONDS",
        "Silence within a stream or a body, either side.",
        |s, v, _| put(&mut s.timeouts.stream_idle, v.some_seconds()),
    ),
    row(
        "timeouts.client_header_seconds",
        "MERIDO_TIMEOUT_CLIENT_HEADER_SECONDS",
        "A client's request head.",
        |s, v, _| put(&mut s.timeouts.client_header, v.some_seconds()),
    ),
    row("timeouts.keep_alive_seconds", "MERIDO_TIMEOUT_KEEP_ALIVE_SECONDS", "An idle client connection.", |s, v, _| {
        put(&mut s.timeouts.keep_alive, v.some_seconds())
    }),
    row(
        "timeouts.upstream_idle_seconds",
        "MERIDO_TIMEOUT_UPSTREAM_IDLE_SECONDS",
        "An idle provider connection in the pool.",
        |s, v, _| put(&mut s.timeouts.upstream_idle, v.some_seconds()),
    ),
    row(
        "breaker.auth_cooldown_seconds",
        "MERIDO_BREAKER_AUTH_COOLDOWN_SECONDS",
        "First rest of an account whose credentials were refused; doubles.",
        |s, v, _| put(&mut s.breaker.auth_cooldown, v.some_seconds()),
    ),
    row("breaker.auth_cooldown_cap_seconds", "MERIDO_BREAKER_AUTH_COOLDOWN_CAP_SECONDS", "Its cap.", |s, v, _| {
        put(&mut s.breaker.auth_cooldown_cap, v.some_seconds())
    }),
    row(
        "breaker.model_lock_seconds",
        "MERIDO_BREAKER_MODEL_LOCK_SECONDS",
        "Lock of a model that an account may not use.",
        |s, v, _| put(&mut s.breaker.model_lock, v.some_seconds()),
    ),
    row(
        "breaker.quota_lock_seconds",
        "MERIDO_BREAKER_QUOTA_LOCK_SECONDS",
        "Lock after a spent quota without a time of reset.",
        |s, v, _| put(&mut s.breaker.quota_lock, v.some_seconds()),
    ),
    row(
        "breaker.rate_limit_lock_seconds",
        "MERIDO_BREAKER_RATE_LIMIT_LOCK_SECONDS",
        "First lock after a 429 without a time of reset; doubles.",
        |s, v, _| put(&mut s.breaker.rate_limit_lock, v.some_seconds()),
    ),
    row("breaker.rate_limit_lock_cap_seconds", "MERIDO_BREAKER_RATE_LIMIT_LOCK_CAP_SECONDS", "Its cap.", |s, v, _| {
        put(&mut s.breaker.rate_limit_lock_cap, v.some_seconds())
    }),
    row(
        "breaker.failures",
        "MERIDO_BREAKER_FAILURES",
        "Failures within the window that open an account's breaker.",
        |s, v, _| put(&mut s.breaker.failures, v.whole(1, 1_000_000)),
    ),
    row("breaker.window_seconds", "MERIDO_BREAKER_WINDOW_SECONDS", "The window.", |s, v, _| {
        put(&mut s.breaker.window, v.some_seconds())
    }),
    row("breaker.open_seconds", "MERIDO_BREAKER_OPEN_SECONDS", "First rest of an open breaker; doubles.", |s, v, _| {
        put(&mut s.breaker.open, v.some_seconds())
    }),
    row("breaker.open_cap_seconds", "MERIDO_BREAKER_OPEN_CAP_SECONDS", "Its cap.", |s, v, _| {
        put(&mut s.breaker.open_cap, v.some_seconds())
    }),
];
