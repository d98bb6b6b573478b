//! Reads `REDIS_URL`: which Redis, by which way, as whom. Knows no network.
//!
//! Forms: `redis://[user[:password]@]host[:port][/db]`, `rediss://…` (TLS), `unix:///path`, `redis+unix:///path` (both
//! with `?db=`, `?user=`, `?pass=`), and several nodes of a Redis Cluster apart by commas, of which the first may name
//! scheme and credentials for all. What stands in credentials and paths may be percent-encoded (and a comma, `@`, `/`,
//! `?` or `#` in them must be). A mistake is named without quoting the URL: it may hold a password.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const PORT: u16 = 6379;

/// Which Redis.
pub(super) struct Target {
    /// Where to begin: the one server, or some nodes of the cluster.
    pub(super) seeds: Vec<Address>,
    /// Speaks TLS.
    pub(super) tls: bool,
    /// As whom.
    pub(super) login: redis::RedisConnectionInfo,
    clustered: AtomicBool,
    /// Set while connections to it must not be used, because it is another deployment's.
    pub(super) alone: Arc<AtomicBool>,
}

/// Where one server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Address {
    /// Host or IP, and port.
    Tcp(Box<str>, u16),
    /// A socket's path.
    Unix(PathBuf),
}

impl Target {
    /// Reads the URL.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let mut parts = url.trim().split(',').map(str::trim).filter(|part| !part.is_empty());
        let first = parts.next().ok_or("it is empty")?;
        let (scheme, rest) = first.split_once("://").ok_or("it has no scheme such as redis://")?;
        if rest.contains('#') {
            return Err("a #fragment means nothing here; certificates are always checked".to_owned());
        }
        let mut target = match scheme {
            "redis" => tcp(rest, false)?,
            "rediss" => tcp(rest, true)?,
            "unix" | "redis+unix" => unix(rest)?,
            _ => return Err("its scheme is none of redis, rediss, unix, redis+unix".to_owned()),
        };
        for part in parts {
            let (own, rest) = part.split_once("://").unwrap_or((scheme, part));
            if own != scheme || matches!(target.seeds[0], Address::Unix(_)) {
                return Err("the nodes of a Redis Cluster must all be redis:// or all be rediss://".to_owned());
            }
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            target.seeds.push(address(host.split(['/', '?']).next().unwrap_or_default())?);
        }
        let clustered = target.seeds.len() > 1;
        if clustered && target.login.db != 0 {
            return Err("a Redis Cluster has no database but 0".to_owned());
        }
        target.clustered = AtomicBool::new(clustered);
        Ok(target)
    }

    /// Whether keys are spread over several servers.
    pub(super) fn is_cluster(&self) -> bool {
        self.clustered.load(Ordering::Relaxed)
    }

    /// It answered as only a node of a cluster does.
    pub(super) fn turned_out_a_cluster(&self) {
        self.clustered.store(true, Ordering::Relaxed);
    }
}

fn tcp(rest: &str, tls: bool) -> Result<Target, String> {
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
    if !query.is_empty() {
        return Err("it takes no ?options".to_owned());
    }
    // An `@` in a password must be encoded; taking the last one forgives those who did not.
    let (login, rest) = rest.rsplit_once('@').map_or(("", rest), |(login, rest)| (login, rest));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut info = redis::RedisConnectionInfo::default();
    let (user, password) = login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
    info.username = Some(decoded(user)?).filter(|user| !user.is_empty());
    info.password = password.map(decoded).transpose()?.filter(|password| !password.is_empty());
    info.db = database(path)?;
    Ok(Target {
        seeds: vec![address(host)?],
        tls,
        login: info,
        clustered: AtomicBool::new(false),
        alone: Arc::default(),
    })
}

fn unix(rest: &str) -> Result<Target, String> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = decoded(path)?;
    if !path.starts_with('/') {
        return Err("a socket's path must be absolute, as in unix:///run/redis.sock".to_owned());
    }
    let mut info = redis::RedisConnectionInfo::default();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "db" => info.db = database(value)?,
            "user" => info.username = Some(decoded(value)?),
            "pass" => info.password = Some(decoded(value)?),
            _ => return Err("of ?options a socket takes db, user and pass".to_owned()),
        }
    }
    Ok(Target {
        seeds: vec![Address::Unix(path.into())],
        tls: false,
        login: info,
        clustered: AtomicBool::new(false),
        alone: Arc::default(),
    })
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
fn address(text: &str) -> Result<Address, String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("an IPv6 address lacks its ]")?;
            (host, rest.strip_prefix(':').or((!rest.is_empty()).then_some("?")))
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err("it names no host".to_owned());
    }
    let port = port.map_or(Ok(PORT), |port| port.parse().map_err(|_| "its port is not a number below 65536"))?;
    Ok(Address::Tcp(decoded(host)?.into(), port))
}

fn database(text: &str) -> Result<i64, String> {
    match text.trim_end_matches('/') {
        "" => Ok(0),
        text => text.parse::<u32>().map(i64::from).map_err(|_| "its database is not a number".to_owned()),
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let wrong = || "its %-encoding is broken".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(wrong);
            bytes.push((digit(rest.next())? * 16 + digit(rest.next())?) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp_at(host: &str, port: u16) -> Address {
        Address::Tcp(host.into(), port)
    }

    #[test]
    fn every_form_of_the_address_is_read() {
        let plain = Target::parse("redis://cache").unwrap();
        assert_eq!((plain.seeds, plain.tls, plain.login.db), (vec![tcp_at("cache", 6379)], false, 0));
        let full = Target::parse("rediss://me%40home:p%2Cw%2f@[::1]:7000/3").unwrap();
        assert_eq!((&full.seeds[..], full.tls, full.login.db), (&[tcp_at("::1", 7000)][..], true, 3));
        assert_eq!(full.login.username.as_deref(), Some("me@home"));
        assert_eq!(full.login.password.as_deref(), Some("p,w/"));
        let only = Target::parse("redis://:hunter2@r:1").unwrap();
        assert_eq!((only.login.username, only.login.password.as_deref()), (None, Some("hunter2")));
        for scheme in ["unix", "redis+unix"] {
            let socket = Target::parse(&format!("{scheme}:///run/my%20redis.sock?db=2&user=u&pass=p%26")).unwrap();
            assert_eq!(socket.seeds, [Address::Unix("/run/my redis.sock".into())]);
            assert_eq!((socket.login.db, socket.login.password.as_deref()), (2, Some("p&")));
        }
        assert!(!only_one("redis://a:1"));
        let nodes = Target::parse("redis://u:p@a:1, b:2,redis://c").unwrap();
        assert_eq!(nodes.seeds, [tcp_at("a", 1), tcp_at("b", 2), tcp_at("c", 6379)]);
        assert!(nodes.is_cluster());
    }

    fn only_one(url: &str) -> bool {
        Target::parse(url).unwrap().is_cluster()
    }

    #[test]
    fn a_mistake_is_named_and_no_password_quoted() {
        for (url, part) in [
            ("", "empty"),
            ("hunter2@cache:6379", "scheme"),
            ("http://:hunter2@cache", "scheme"),
            ("redis://:hunter2@", "host"),
            ("redis://:hunter2@cache:99999", "port"),
            ("redis://:hunter2@[::1", "]"),
            ("redis://:hunter2@[::1]x", "port"),
            ("redis://:hunter2@cache/one", "database"),
            ("redis://:hunter2%zz@cache", "encoding"),
            ("rediss://:hunter2@cache#insecure", "fragment"),
            ("redis://:hunter2@cache?protocol=resp3", "options"),
            ("redis://:hunter2@a,rediss://b", "all be"),
            ("redis://:hunter2@a/2,b", "database"),
            ("unix://run/x?pass=hunter2", "absolute"),
            ("unix:///run/x?pass=hunter2&x=1", "options"),
        ] {
            let why = Target::parse(url).err().unwrap_or_else(|| panic!("{url} is taken"));
            assert!(why.contains(part) && !why.contains("hunter2"), "{url}: {why}");
        }
    }
}
