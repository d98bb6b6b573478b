//! Tests of loading and checking: every one builds its own environment and file, none reads the process'.

mod documents;
mod mistakes;

use super::*;
use std::ffi::OsString;
use std::path::Path;

const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b4dWRWJTmaaJObG1uT9LDv9Tuo";
const MASTER: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let mut env: Vec<_> = pairs.iter().map(|(name, value)| (name.into(), value.into())).collect();
    env.push(("HOME".into(), "/home/ada".into()));
    env
}

fn from_env(pairs: &[(&str, &str)]) -> Result<Loaded, Vec<Mistake>> {
    load(&Inputs { env: &env(pairs), ..Inputs::default() })
}

fn from_both(toml: &str, pairs: &[(&str, &str)]) -> Result<Loaded, Vec<Mistake>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), toml).unwrap();
    load(&Inputs { config_file: Some(file.path().to_owned()), env: &env(pairs), ..Inputs::default() })
}

fn from_file(toml: &str) -> Result<Loaded, Vec<Mistake>> {
    from_both(toml, &[])
}

fn in_lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn nothing_set_gives_the_defaults() {
    let loaded = from_env(&[]).unwrap();
    let expected = Settings { data_dir: "/home/ada/.merido".into(), ..Settings::default() };
    assert_eq!(loaded.settings, expected);
    assert!(loaded.sources.is_empty() && loaded.warnings.is_empty());
}

#[test]
fn file_beats_default_environment_beats_file_and_arguments_beat_all() {
    let toml = "port = 1\nhost = '127.0.0.2'\nworkers = 3\ndedup = 'all'\n[timeouts]\nconnect_seconds = 0.5\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), toml).unwrap();
    let env = env(&[
        ("MERIDO_CONFIG", file.path().to_str().unwrap()),
        ("MERIDO_PORT", "2"),
        ("MERIDO_HOST", "127.0.0.3"),
        ("MERIDO_TIMEOUT_STREAM_IDLE_SECONDS", "7"),
    ]);
    let loaded = load(&Inputs { env: &env, port: Some(4), ..Inputs::default() }).unwrap();
    let set = &loaded.settings;
    assert_eq!((set.port, set.host.to_string().as_str(), set.workers), (4, "127.0.0.3", 3));
    assert_eq!(set.dedup, DedupMode::All);
    assert_eq!(set.timeouts.connect, Duration::from_millis(500));
    assert_eq!(set.timeouts.stream_idle, Duration::from_secs(7));
    assert_eq!(set.timeouts.first_byte, Duration::from_secs(600));
    assert_eq!(loaded.sources["port"], Source::Argument("--port"));
    assert_eq!(loaded.sources["host"], Source::Env("MERIDO_HOST".into()));
    assert_eq!(loaded.sources["workers"], Source::File(file.path().to_owned()));
    assert!(!loaded.sources.contains_key("rate_limit_rpm"));
}

#[test]
fn the_argument_beats_the_variable_that_names_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "port = 7").unwrap();
    let env = env(&[("MERIDO_CONFIG", "/no/such/file.toml")]);
    let inputs = Inputs { env: &env, config_file: Some(file.path().to_owned()), ..Inputs::default() };
    assert_eq!(load(&inputs).unwrap().settings.port, 7);
    let wrong = load(&Inputs { env: &env, ..Inputs::default() }).unwrap_err();
    assert!(in_lines(&wrong).contains("/no/such/file.toml"), "{wrong:?}");
}

#[test]
fn every_setting_can_be_set_from_the_environment() {
    let loaded = from_env(&[
        ("MERIDO_HOST", "::"),
        ("MERIDO_ADMIN_LISTEN", "[::1]:9000"),
        ("MERIDO_DATA_DIR", "~/data"),
        ("MERIDO_MASTER_KEY", MASTER),
        ("MERIDO_DASHBOARD_PASSWORD_HASH", HASH),
        ("MERIDO_REQUIRE_API_KEY", "false"),
        ("MERIDO_TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
        ("MERIDO_RATE_LIMIT_RPM", "60"),
        ("MERIDO_RATE_LIMIT_BURST", "5"),
        ("MERIDO_ROUTES", r#"[{"name":"fast","targets":[{"model":"groq/x","weight":2}]}]"#),
        ("MERIDO_DEMO", "0"),
        ("MERIDO_SEMANTIC_CACHE", "openai/text-embedding-3-small"),
        ("MERIDO_SEMANTIC_CACHE_THRESHOLD", "0.9"),
        ("MERIDO_STREAM_USAGE", "estimate"),
        ("MERIDO_LOG", "warn,merido=debug"),
        ("MERIDO_LOG_FORMAT", "json"),
        ("MERIDO_ACCESS_LOG", "all"),
        ("MERIDO_LOG_MAX_BYTES", "1 GiB"),
        ("MERIDO_TLS_CERT", "/c"),
        ("MERIDO_TLS_KEY", "/k"),
        ("MERIDO_LAME_DUCK_SECONDS", "0"),
        ("MERIDO_BREAKER_FAILURES", "9"),
    ])
    .unwrap();
    let set = loaded.settings;
    assert_eq!(set.data_dir, Path::new("/home/ada/data"));
    assert_eq!(set.admin_listen.unwrap().port(), 9000);
    assert!(!set.keys_required(), "said so, though the address is open");
    assert_eq!(set.lame_duck(), Duration::ZERO);
    assert_eq!(set.trusted_proxies.len(), 2);
    assert!(set.trusted_proxies[0].contains("10.9.9.9".parse().unwrap()));
    assert_eq!((set.rate_limit_rpm, set.rate_limit_burst), (60, 5));
    assert_eq!((set.routes[0].name.as_str(), set.routes[0].targets[0].weight), ("fast", Some(2)));
    assert_eq!(set.demo, Some(false));
    assert_eq!(set.semantic_cache, SemanticMode::Model("openai/text-embedding-3-small".into()));
    assert_eq!((set.stream_usage, set.access_log), (StreamUsage::Estimate, AccessLog::All));
    assert_eq!((set.log_format, set.log_max_bytes), (Some(LogFormat::Json), 1 << 30));
    assert_eq!(set.breaker.failures, 9);
}

#[test]
fn every_row_sets_a_field_of_its_own() {
    // A row that writes another's field (copied, not adapted) would change the same settings as that one.
    let values = |key: &str| match key {
        "host" => "127.0.0.9",
        "admin_listen" => "127.0.0.1:1",
        "master_key" | "master_key_previous" | "dashboard_password_hash" => "secret",
        "rate_limit_on_redis_down" => "closed",
        "allow_open_admin" | "require_api_key" | "demo" | "dedup_cluster" => "true",
        "trusted_proxies" => "10.0.0.0/8",
        "routes" => r#"[{"name":"a","targets":[{"model":"x/y"}]}]"#,
        "dedup" | "access_log" => "all",
        "semantic_cache" => "builtin",
        "semantic_cache_threshold" | "otlp_sample_ratio" => "0.123",
        "otlp_endpoint" => "http://x",
        "otlp_headers" => "a=b",
        "stream_usage" => "estimate",
        "log" => "trace",
        "log_format" => "json",
        "log_max_bytes" => "3 GiB",
        key if key.ends_with("path") || key.ends_with("dir") || key.starts_with("tls") || key.ends_with("_ca") => "/x",
        _ => "77",
    };
    let mut seen: Vec<(&str, Settings)> = Vec::new();
    for row in ROWS {
        let mut set = Settings::default();
        (row.set)(&mut set, value::Raw::Text(values(row.key)), &value::Home(None)).unwrap();
        assert_ne!(set, Settings::default(), "{} changes nothing", row.key);
        if let Some((other, _)) = seen.iter().find(|(_, other)| *other == set) {
            panic!("{} and {other} set the same field", row.key);
        }
        seen.push((row.key, set));
    }
}

#[test]
fn a_file_may_hold_routes_as_tables() {
    let loaded = from_file(
        "trusted_proxies = ['192.168.0.0/16']\nmax_body_bytes = 1024\n\
         [[routes]]\nname = 'fast'\nstrategy = 'weighted'\nsticky = 2\n\
         targets = [{ model = 'groq/a', weight = 3 }, { model = 'openai/b', account = 'env' }]\n\
         [[routes]]\nname = 'slow'\ntargets = [{ model = 'openai/c' }]\n",
    )
    .unwrap();
    assert_eq!(loaded.settings.routes.len(), 2);
    assert_eq!(loaded.settings.routes[0].targets[1].account.as_deref(), Some("env"));
    assert_eq!(loaded.settings.max_body_bytes, 1024);
}

#[test]
fn bare_provider_keys_become_accounts_in_the_catalogues_order() {
    let loaded = from_env(&[
        ("XAI_API_KEY", "xai-1"),
        ("OPENAI_API_KEY", " sk-2\n"),
        ("GROQ_API_KEY", ""),
        ("MISTRAL_API_KEY", "two words"),
    ])
    .unwrap();
    let found: Vec<_> = loaded.settings.env_accounts.iter().map(|(p, k)| (p.as_str(), k.reveal())).collect();
    assert_eq!(found, [("openai", "sk-2"), ("xai", "xai-1")]);
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].contains("MISTRAL_API_KEY") && !loaded.warnings[0].contains("two words"));
}

#[test]
fn empty_variables_are_as_good_as_unset() {
    let loaded = from_env(&[("MERIDO_PORT", ""), ("MERIDO_ROUTES", " "), ("MERIDO_CONFIG", "")]).unwrap();
    assert_eq!(loaded.settings.port, 8788);
}

#[test]
fn what_platforms_set_by_themselves_is_no_mistake() {
    let loaded = from_env(&[
        ("REDIS_URL", "redis://:hunter2@r"),
        ("DATABASE_URL", "postgres://u:hunter2@h/d"),
        ("MERIDO_MASTER_KEY_PATH", "/k"),
        ("MERIDO_REDIS_URL", "redis://own"),
        ("MERIDO_PORT", "tcp://10.0.0.7:8788"),
        ("MERIDO_PORT_8788_TCP", "tcp://10.0.0.7:8788"),
        ("MERIDO_PORT_8788_TCP_ADDR", "10.0.0.7"),
        ("MERIDO_ADMIN_PORT_9000_TCP_PROTO", "tcp"),
        ("MERIDO_SERVICE_HOST", "10.0.0.7"),
        ("MERIDO_SERVICE_PORT_HTTP", "8788"),
        ("MERIDO_TEST_SEED", "1"),
    ])
    .unwrap();
    assert_eq!(loaded.settings.port, 8788);
    let warnings = loaded.warnings.join("\n");
    assert_eq!(loaded.warnings.len(), 1, "{warnings}");
    assert!(warnings.contains("Kubernetes"));
    let (redis, database) = (loaded.settings.redis_url.unwrap(), loaded.settings.database_url.unwrap());
    assert_eq!(redis.reveal(), "redis://own", "the name of our own goes first");
    assert_eq!(database.reveal(), "postgres://u:hunter2@h/d", "the platform's counts where there is no other");
    assert!(from_env(&[("MERIDO_LISTEN_PORT", "9000")]).is_err(), "a slip that only looks like a service link");
}
