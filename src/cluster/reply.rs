//! What a reply means, judged by its cause and not by the class of its error: an answer, a refusal, a sign that Redis
//! is down for us, or a hint that the key lives elsewhere.

use super::call::{Answer, Fault};
use super::url::Address;
use redis::{ErrorKind, RedisError, Value};

/// What one reply means.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// This came of the call.
    Is(Answer),
    /// The server does not know the script. Nothing was done.
    NoScript,
    /// The server cannot work for us now. Nothing was done.
    Down(String),
    /// The key's slot is there now (`asking`: for this call only). Nothing was done.
    Elsewhere { at: Option<Address>, asking: bool },
}

/// Why a connection is of no more use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// No answer within the deadline.
    Timeout,
    /// Closed, reset, refused, or it spoke no Redis.
    Lost(String),
    /// It answers, but cannot work for us.
    Unfit(String),
}

/// Codes with which no script that writes can be run.
const DOWN: &[&str] = &[
    "READONLY",
    "OOM",
    "LOADING",
    "MISCONF",
    "NOAUTH",
    "NOPERM",
    "WRONGPASS",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "NOREPLICAS",
    "BUSY",
    "NOGOODSLAVE",
];

impl Reply {
    /// Of a value as it came.
    pub(super) fn of(value: Value) -> Self {
        let Value::ServerError(error) = value else { return Self::Is(Ok(value)) };
        let (code, detail) = (error.code(), error.details().unwrap_or_default());
        match code {
            "NOSCRIPT" => Self::NoScript,
            // Its keys are on their way to another server: soon, but not now.
            "TRYAGAIN" => Self::Is(Err(Fault::Down)),
            "MOVED" | "ASK" => Self::Elsewhere { at: elsewhere(detail), asking: code == "ASK" },
            _ => match down(code, detail) {
                Some(why) => Self::Down(why),
                None if code == "ERR" => Self::Is(Err(Fault::Refused(format!("{code} {detail}")))),
                None => Self::Is(Err(Fault::Refused(code.to_owned()))),
            },
        }
    }
}

/// Why it is down, if this error says so. Older servers wrap what a script ran into in an `ERR` of their own.
fn down(code: &str, detail: &str) -> Option<String> {
    if let Some(code) = DOWN.iter().find(|&&known| known == code) {
        return Some((*code).to_owned());
    }
    if code != "ERR" {
        return None;
    }
    // A proxy before Redis that knows no scripts, a server full up, or a command that was renamed away.
    if detail.contains("unknown command") || detail.contains("max number of clients") {
        return Some(format!("{code} {}", short(detail)));
    }
    let mut wrapped = detail.split([' ', '\'']).filter_map(|word| word.strip_prefix('-'));
    wrapped.find_map(|word| DOWN.iter().find(|&&known| known == word)).map(|code| (*code).to_owned())
}

/// `3999 127.0.0.1:6381`; the host may be missing, which means the one that said so.
fn elsewhere(detail: &str) -> Option<Address> {
    let (host, port) = detail.split(' ').nth(1)?.rsplit_once(':')?;
    let port = port.parse().ok()?;
    (!host.is_empty() && host != "?").then(|| Address::Tcp(host.into(), port))
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

impl Broken {
    /// Of the library's error.
    pub(super) fn of(error: &RedisError) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) => Self::Unfit("authentication failed".to_owned()),
            (_, Some(code)) => Self::Unfit(short(&format!("{code} {}", error.detail().unwrap_or_default()))),
            _ => Self::Lost(short(&error.to_string())),
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timeout => f.write_str("no answer within the deadline"),
            Self::Lost(why) | Self::Unfit(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(line: &str) -> Reply {
        Reply::of(redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap())
    }

    #[test]
    fn an_error_is_judged_by_its_cause() {
        for line in ["READONLY You can't write", "OOM command not allowed", "LOADING Redis is", "NOAUTH a", "BUSY x"] {
            let code = line.split(' ').next().unwrap();
            assert_eq!(reply(line), Reply::Down(code.to_owned()));
        }
        let old = "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command not allowed";
        assert_eq!(reply(old), Reply::Down("OOM".to_owned()));
        assert!(matches!(reply("ERR unknown command 'EVALSHA', with args"), Reply::Down(_)));
        assert_eq!(reply("NOSCRIPT No matching script"), Reply::NoScript);
        assert_eq!(reply("WRONGTYPE Operation"), Reply::Is(Err(Fault::Refused("WRONGTYPE".to_owned()))));
        assert!(matches!(reply("ERR value is not an integer"), Reply::Is(Err(Fault::Refused(_)))));
    }

    #[test]
    fn a_key_that_lives_elsewhere_names_where() {
        let at = Some(Address::Tcp("10.0.0.1".into(), 7001));
        assert_eq!(reply("MOVED 42 10.0.0.1:7001"), Reply::Elsewhere { at: at.clone(), asking: false });
        assert_eq!(reply("ASK 42 10.0.0.1:7001"), Reply::Elsewhere { at, asking: true });
        assert_eq!(reply("MOVED 42 :7001"), Reply::Elsewhere { at: None, asking: false });
    }
}
