//! What is refused: all of it at once, each with its key and source, no secret in the words.

use super::*;

/// Each of these alone is refused, and the message holds the words.
fn refused(pairs: &[(&str, &str)], words: &[&str]) {
    let wrong = from_env(pairs).expect_err(&format!("{pairs:?}"));
    let lines = in_lines(&wrong);
    for word in words {
        assert!(lines.contains(word), "{pairs:?}: {word:?} is missing in\n{lines}");
    }
    assert_eq!(wrong.len(), 1, "{pairs:?}:\n{lines}");
}

#[test]
fn three_mistakes_at_once_are_all_reported() {
    let wrong = from_both("prot = 1\n[breaker]\nfailures = 0\n", &[("MERIDO_DEDUP", "yes"), ("MERIDO_TLS_CERT", "/c")])
        .unwrap_err();
    let lines = in_lines(&wrong);
    assert_eq!(wrong.len(), 4, "{lines}");
    assert!(wrong.iter().any(|m| m.key == "prot" && matches!(m.source, Source::File(_))), "{lines}");
    assert!(lines.contains("did you mean port?"), "{lines}");
    assert!(wrong.iter().any(|m| m.key == "breaker.failures" && matches!(m.source, Source::File(_))), "{lines}");
    assert!(wrong.iter().any(|m| m.key == "dedup" && m.source == Source::Env("MERIDO_DEDUP".into())), "{lines}");
    assert!(wrong.iter().any(|m| m.key == "tls_cert" && m.source == Source::Env("MERIDO_TLS_CERT".into())), "{lines}");
    assert!(lines.contains("must be one of off, auto, all, not \"yes\""), "{lines}");
}

#[test]
fn unknown_names_are_refused_with_a_hint() {
    refused(&[("MERIDO_RATE_LIMT_RPM", "60")], &["MERIDO_RATE_LIMT_RPM", "did you mean MERIDO_RATE_LIMIT_RPM?"]);
    refused(&[("MERIDO_FROBNICATE", "60")], &["no such setting", "docs/SETTINGS.md"]);
    for (toml, word) in [
        ("[timeouts]\nconect_seconds = 1", "did you mean timeouts.connect_seconds?"),
        ("timeouts = 5", "[timeouts]"),
        ("[server]\nport = 1", "server"),
        ("[port]\nx = 1", "whole number"),
        ("[[routes]]\nname = 'a'\ntargets = []\ncolour = 1", "colour"),
    ] {
        let lines = in_lines(&from_file(toml).unwrap_err());
        assert!(lines.contains(word), "{toml}: {lines}");
    }
}

#[test]
fn what_is_not_built_yet_is_not_ignored() {
    refused(&[("MERIDO_LOG_BODIES", "true")], &["MERIDO_LOG_BODIES", "not supported by this build yet"]);
}

#[test]
fn a_shared_store_needs_the_shared_key() {
    refused(&[("MERIDO_DATABASE_URL", "postgres://u:hunter2@db/m")], &["database_url", "share the master key"]);
    refused(&[("DATABASE_URL", "postgres://u@db/m")], &["environment variable DATABASE_URL", "master_key"]);
    refused(&[("MERIDO_REDIS_PREFIX", "a{b}")], &["redis_prefix", "letters"]);
}

#[test]
fn values_out_of_bounds_are_refused() {
    refused(&[("MERIDO_PORT", "65536")], &["port", "from 0 to 65535", "\"65536\""]);
    refused(&[("MERIDO_HOST", "example.com")], &["address to listen on"]);
    refused(&[("MERIDO_SEMANTIC_CACHE_THRESHOLD", "1.5")], &["from 0 to 1"]);
    refused(&[("MERIDO_SEMANTIC_CACHE", "on")], &["builtin"]);
    refused(&[("MERIDO_TRUSTED_PROXIES", "10.0.0.0/8, 10.0.0.0/40")], &["10.0.0.0/40", "0 to 32"]);
    refused(&[("MERIDO_LOG", "merido=loud")], &["log filter"]);
    refused(&[("MERIDO_TIMEOUT_CONNECT_SECONDS", "0")], &["above 0"]);
    refused(&[("MERIDO_SEMANTIC_CACHE_TTL_SECONDS", "0")], &["above 0"]);
    refused(&[("MERIDO_DRAIN_SECONDS", "10m")], &["seconds"]);
    refused(&[("MERIDO_MAX_BODY_BYTES", "32 megs")], &["32 MiB"]);
    refused(&[("MERIDO_LOG_RETENTION_DAYS", "0")], &["from 1"]);
    refused(&[("MERIDO_ALLOW_OPEN_ADMIN", "yes")], &["true or false"]);
    refused(&[("MERIDO_ROUTES", "{}")], &["JSON"]);
    refused(&[("MERIDO_ROUTES", r#"[{"name":"a","strategy":"best","targets":[{"model":"x/y"}]}]"#)], &["\"best\""]);
}

#[test]
fn every_mistake_of_a_list_is_reported() {
    let wrong = from_env(&[("MERIDO_ROUTES", r#"[{"name":"a"},{"targets":[]},{"name":"c","targets":[],"x":1}]"#)]);
    assert_eq!(wrong.unwrap_err().len(), 3);
    let wrong = from_env(&[("MERIDO_TRUSTED_PROXIES", "a,10.0.0.1,b")]).unwrap_err();
    assert_eq!(wrong.len(), 2);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    refused(&[("MERIDO_TLS_KEY", "/k")], &["MERIDO_TLS_CERT", "MERIDO_TLS_KEY)"]);
    refused(&[("MERIDO_RATE_LIMIT_BURST", "5")], &["rate_limit_rpm"]);
    refused(&[("MERIDO_ADMIN_LISTEN", "127.0.0.1:8788")], &["8788 is taken"]);
    refused(&[("MERIDO_BREAKER_OPEN_CAP_SECONDS", "10")], &["below breaker.open_seconds (30 s)"]);
    assert!(from_env(&[("MERIDO_ADMIN_LISTEN", "127.0.0.1:0"), ("MERIDO_PORT", "0")]).is_ok(), "two free ports differ");
}

#[test]
fn an_open_control_plane_is_refused_with_the_line_that_closes_it() {
    refused(&[("MERIDO_HOST", "0.0.0.0")], &["$(merido hash-password)", "MERIDO_ALLOW_OPEN_ADMIN=true"]);
    refused(&[("MERIDO_ADMIN_LISTEN", "10.0.0.5:9000")], &["admin_listen", "merido hash-password"]);
    assert!(from_env(&[("MERIDO_HOST", "0.0.0.0"), ("MERIDO_ALLOW_OPEN_ADMIN", "true")]).is_ok());
    assert!(from_env(&[("MERIDO_HOST", "0.0.0.0"), ("MERIDO_DASHBOARD_PASSWORD_HASH", HASH)]).is_ok());
    assert!(from_env(&[("MERIDO_HOST", "::ffff:127.0.0.1")]).is_ok(), "loopback in its mapped form");
    let open = load(&Inputs { host: Some("0.0.0.0".parse().unwrap()), env: &env(&[]), ..Inputs::default() });
    assert!(in_lines(&open.unwrap_err()).contains("argument --host"));
}

#[test]
fn a_broken_value_is_not_reported_twice() {
    // The flag cannot be read; that the control plane would be open then is no second mistake.
    refused(&[("MERIDO_HOST", "0.0.0.0"), ("MERIDO_ALLOW_OPEN_ADMIN", "ja")], &["true or false"]);
    refused(&[("MERIDO_RATE_LIMIT_RPM", "x"), ("MERIDO_RATE_LIMIT_BURST", "5")], &["rate_limit_rpm"]);
}

#[test]
fn no_message_quotes_a_secret() {
    let secrets = ["hunter2", "$argon2id$v=19$hunter2", "aHVudGVyMg==", "hunter2 hunter2"];
    for secret in secrets {
        for name in ["MERIDO_MASTER_KEY", "MERIDO_DASHBOARD_PASSWORD_HASH"] {
            let wrong = from_env(&[(name, secret)]).unwrap_err();
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            assert!(!format!("{wrong:?} {}", in_lines(&wrong)).contains(secret), "{wrong:?}");
            assert!(in_lines(&wrong).contains(name));
        }
    }
    let digits = from_file("master_key = 4815162342").unwrap_err();
    assert!(!format!("{digits:?}").contains("4815162342"), "{digits:?}");
    for toml in [
        "master_key = \"hunter2",
        "master_key = hunter2",
        "master_key = ['hunter2']",
        "master_key = 'a' hunter2",
        "dashboard_password_hash = { hunter2 = 'hunter2' }",
    ] {
        let wrong = from_file(toml).unwrap_err();
        assert!(!format!("{wrong:?}").contains("hunter2"), "{toml}: {wrong:?}");
    }
}

#[test]
fn a_password_hash_must_be_whole() {
    for (bad, word) in [
        ("plain", "start with $argon2"),
        (&HASH[..40], "cut off"),
        ("$argon2id$v=19$m=19456,t=2,p=1", "cut off"),
        ("$scrypt$ln=17,r=8,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b4dWRWJTmaaJObG1uT9LDv9Tuo", "another kind"),
        ("$argon2id$v=19$m=1,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b4dWRWJTmaaJObG1uT9LDv9Tuo", "parameters"),
    ] {
        refused(&[("MERIDO_DASHBOARD_PASSWORD_HASH", bad)], &[word]);
    }
}

#[test]
fn a_broken_file_names_its_line_and_the_environment_is_still_checked() {
    let wrong = from_both("port = 1\n\nhost = = 2\n", &[("MERIDO_PORT", "x")]).unwrap_err();
    let lines = in_lines(&wrong);
    assert!(lines.contains("line 3") && lines.contains("MERIDO_PORT") && wrong.len() == 2, "{lines}");
}

#[cfg(unix)]
#[test]
fn values_that_are_not_text_are_refused() {
    use std::os::unix::ffi::OsStringExt as _;
    let bytes = |text: &[u8]| OsString::from_vec(text.to_vec());
    let env = [(bytes(b"MERIDO_LOG"), bytes(b"\xff")), (bytes(b"MERIDO_\xff"), bytes(b"1"))];
    let wrong = load(&Inputs { env: &env, ..Inputs::default() }).unwrap_err();
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(in_lines(&wrong).contains("UTF-8"));
}
