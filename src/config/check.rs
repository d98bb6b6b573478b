//! Checks that need more than one setting, or more than the form of one. Every mistake is found, none stops the search.

use super::load::Loader;
use crate::base::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::net::IpAddr;

/// What to run to be let in.
const HASH_LINE: &str = "export MERIDO_DASHBOARD_PASSWORD_HASH=\"$(merido hash-password)\"";

/// Looks at the whole and complains to `loader`.
pub(super) fn across(loader: &mut Loader, serves: bool) {
    secrets(loader);
    if serves {
        open_admin(loader);
    }
    listeners(loader);
    tls(loader);
    limits(loader);
    breaker(loader);
}

fn secrets(loader: &mut Loader) {
    let set = &loader.settings;
    if set.database_url.is_some() && set.master_key.is_none() && set.master_key_path.is_none() {
        let message = "instances that share a database share the master key: set master_key or master_key_path as well";
        loader.complain("database_url", message);
    }
    let wrong = |key: &Option<Secret>| {
        key.as_ref().is_some_and(|key| STANDARD.decode(key.reveal()).map(|bytes| bytes.len()) != Ok(32))
    };
    let set = &loader.settings;
    let (current, previous) = (wrong(&set.master_key), wrong(&set.master_key_previous));
    for (wrong, name) in [(current, "master_key"), (previous, "master_key_previous")] {
        if wrong {
            loader.complain(name, "must be base64 of exactly 32 bytes (`openssl rand -base64 32` makes one)");
        }
    }
    if loader.settings.master_key.is_some() && loader.settings.master_key_path.is_some() {
        loader.warnings.push("master_key is set, so master_key_path is not looked at".to_owned());
    }
    if let Some(hash) = &loader.settings.dashboard_password_hash
        && let Err(why) = phc(hash.reveal())
    {
        loader.complain(
            "dashboard_password_hash",
            format!("must be an argon2 hash as `merido hash-password` prints it: {why}"),
        );
    }
}

/// Whether a login could be checked against `hash` at all. The reason never quotes it.
fn phc(hash: &str) -> Result<(), &'static str> {
    let parsed = argon2::PasswordHash::new(hash).map_err(|_| {
        if hash.starts_with("$argon2") {
            "it is cut off or damaged"
        } else {
            "it does not start with $argon2 (were its $ signs eaten by a shell?)"
        }
    })?;
    argon2::Algorithm::try_from(parsed.algorithm).map_err(|_| "it is a hash of another kind")?;
    argon2::Params::try_from(&parsed).map_err(|_| "its parameters are out of range")?;
    if parsed.hash.is_none() || parsed.salt.is_none() { Err("it is cut off") } else { Ok(()) }
}

fn open_admin(loader: &mut Loader) {
    let set = &loader.settings;
    if set.allow_open_admin || set.dashboard_password_hash.is_some() {
        return;
    }
    if !loader.sound(&["host", "admin_listen", "dashboard_password_hash", "allow_open_admin"]) {
        return;
    }
    let (host, admin) = (set.host, set.admin_listen.map(|at| at.ip()));
    let open = [("host", Some(host)), ("admin_listen", admin)];
    for (key, at) in open {
        if let Some(at) = at.filter(|at| !is_loopback(*at)) {
            loader.complain(
                key,
                format!(
                    "{at} can be reached from outside and the control plane has no password. Make one and set it:\n    \
                     {HASH_LINE}\n  or start open all the same with MERIDO_ALLOW_OPEN_ADMIN=true"
                ),
            );
        }
    }
}

/// `::ffff:127.0.0.1` is loopback as well.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn listeners(loader: &mut Loader) {
    let set = &loader.settings;
    let Some(admin) = set.admin_listen.filter(|_| loader.sound(&["host", "port", "admin_listen"])) else { return };
    let one_covers_other = admin.ip() == set.host || admin.ip().is_unspecified() || set.host.is_unspecified();
    if admin.port() == set.port && set.port != 0 && one_covers_other {
        loader.complain("admin_listen", format!("port {} is taken by host and port already", admin.port()));
    }
}

fn tls(loader: &mut Loader) {
    if !loader.sound(&["tls_cert", "tls_key"]) {
        return;
    }
    match (&loader.settings.tls_cert, &loader.settings.tls_key) {
        (Some(_), None) => loader.complain("tls_cert", "needs tls_key (MERIDO_TLS_KEY) as well"),
        (None, Some(_)) => loader.complain("tls_key", "needs tls_cert (MERIDO_TLS_CERT) as well"),
        _ => {}
    }
}

fn limits(loader: &mut Loader) {
    let set = &loader.settings;
    if set.rate_limit_burst > 0 && set.rate_limit_rpm == 0 && loader.sound(&["rate_limit_rpm", "rate_limit_burst"]) {
        loader.complain("rate_limit_burst", "is the burst of rate_limit_rpm, which is not set");
    }
}

fn breaker(loader: &mut Loader) {
    let b = loader.settings.breaker.clone();
    for (first, first_key, cap, cap_key) in [
        (b.auth_cooldown, "breaker.auth_cooldown_seconds", b.auth_cooldown_cap, "breaker.auth_cooldown_cap_seconds"),
        (
            b.rate_limit_lock,
            "breaker.rate_limit_lock_seconds",
            b.rate_limit_lock_cap,
            "breaker.rate_limit_lock_cap_seconds",
        ),
        (b.open, "breaker.open_seconds", b.open_cap, "breaker.open_cap_seconds"),
    ] {
        if cap < first && loader.sound(&[first_key, cap_key]) {
            loader.complain(
                cap_key,
                format!("is {} s, below {first_key} ({} s)", cap.as_secs_f64(), first.as_secs_f64()),
            );
        }
    }
}
