//! One value as it was written, in a TOML file or the environment, and how to read it as what a setting needs.
//!
//! Failures are phrases that go on after the setting's name ("must be …"). They never quote the value: the loader adds
//! it where it is no secret.

use super::Cidr;
use super::routes::RouteSpec;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// A value before it is understood.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    /// From the environment: never empty.
    Text(&'a str),
    /// From a file.
    Toml(&'a toml::Value),
}

/// What is wrong, as phrases.
pub(super) type Reasons = Vec<String>;

/// The longest duration that can be set: a year. More is a slip of units.
const LONGEST: f64 = 365.0 * 86_400.0;

impl Raw<'_> {
    /// Any text that is not blank.
    pub(super) fn text(&self) -> Result<String, String> {
        let text = match self {
            Self::Text(text) => *text,
            Self::Toml(toml::Value::String(text)) => text,
            Self::Toml(_) => return Err("must be a string (in quotes)".to_owned()),
        };
        let text = text.trim();
        if text.is_empty() {
            return Err("must not be empty (leave it out for its default)".to_owned());
        }
        Ok(text.to_owned())
    }

    /// `true` or `false`; in the environment `1` and `0` as well.
    pub(super) fn truth(&self) -> Result<bool, String> {
        match self {
            Self::Toml(toml::Value::Boolean(truth)) => Ok(*truth),
            Self::Text(text) => match text.trim() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err("must be true or false".to_owned()),
            },
            Self::Toml(_) => Err("must be true or false (without quotes)".to_owned()),
        }
    }

    /// A whole number within `least..=most`.
    pub(super) fn whole<T: TryFrom<u64> + Copy + Display + Into<u64>>(&self, least: T, most: T) -> Result<T, String> {
        let number = match self {
            Self::Toml(toml::Value::Integer(number)) => u64::try_from(*number).ok(),
            Self::Text(text) => digits(text.trim()),
            Self::Toml(_) => None,
        };
        number
            .filter(|number| (least.into()..=most.into()).contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("must be a whole number from {least} to {most}"))
    }

    /// [`Raw::whole`] for sizes of tables and numbers of things.
    pub(super) fn count(&self, least: u32, most: u32) -> Result<usize, String> {
        self.whole(least, most).map(|number| number as usize)
    }

    /// Bytes, plain or with a unit: `33554432`, `32 MiB`, `2GiB`.
    pub(super) fn size(&self, least: u64) -> Result<u64, String> {
        let size = match self {
            Self::Toml(toml::Value::Integer(number)) => u64::try_from(*number).ok(),
            Self::Text(text) => bytes(text),
            Self::Toml(toml::Value::String(text)) => bytes(text),
            Self::Toml(_) => None,
        };
        size.filter(|size| (least..=i64::MAX as u64).contains(size)).ok_or_else(|| {
            format!("must be a size of at least {least} bytes (\"33554432\", \"32 MiB\", \"2 GiB\", \"64 MB\")")
        })
    }

    /// [`Raw::size`] of something that lies in memory.
    pub(super) fn memory(&self, least: u64) -> Result<usize, String> {
        usize::try_from(self.size(least)?).map_err(|_| "must fit into this machine's address space".to_owned())
    }

    /// Seconds, fractions allowed, zero included.
    pub(super) fn seconds(&self) -> Result<Duration, String> {
        self.seconds_from(0.0).ok_or_else(|| "must be a number of seconds from 0 to a year".to_owned())
    }

    /// Seconds where none at all makes no sense: a millisecond at least.
    pub(super) fn some_seconds(&self) -> Result<Duration, String> {
        self.seconds_from(0.001).ok_or_else(|| "must be a number of seconds above 0, a year at most".to_owned())
    }

    fn seconds_from(&self, least: f64) -> Option<Duration> {
        let number = self.number()?;
        (least..=LONGEST).contains(&number).then(|| Duration::try_from_secs_f64(number).ok())?
    }

    /// A number within `0..=1`.
    pub(super) fn share(&self) -> Result<f32, String> {
        self.number()
            .filter(|number| (0.0..=1.0).contains(number))
            .map(|number| number as f32)
            .ok_or_else(|| "must be a number from 0 to 1".to_owned())
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Toml(toml::Value::Integer(number)) => Some(*number as f64),
            Self::Toml(toml::Value::Float(number)) => Some(*number),
            // `parse` alone would take "inf", "1e9" and "nan" too.
            Self::Text(text) if text.trim().bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
                text.trim().parse().ok()
            }
            _ => None,
        }
    }

    /// An address, or `localhost`.
    pub(super) fn address(&self) -> Result<IpAddr, String> {
        let text = self.text()?;
        if text == "localhost" {
            return Ok(Ipv4Addr::LOCALHOST.into());
        }
        text.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| {
            "must be an address to listen on (\"127.0.0.1\", \"0.0.0.0\", \"::\"), not a host name".to_owned()
        })
    }

    /// `ADDRESS:PORT`.
    pub(super) fn socket(&self) -> Result<SocketAddr, String> {
        self.text()?.parse().map_err(|_| "must be ADDRESS:PORT (\"127.0.0.1:8789\", \"[::1]:8789\")".to_owned())
    }

    /// A path; a leading `~/` is `home`.
    pub(super) fn path(&self, home: &Home) -> Result<PathBuf, String> {
        home.expand(&self.text()?)
    }

    /// One of the words of `choices`.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, String> {
        let text = self.text()?;
        choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice).ok_or_else(|| {
            format!("must be one of {}", choices.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", "))
        })
    }

    /// Address ranges: comma-separated, or a TOML array.
    pub(super) fn ranges(&self) -> Result<Vec<Cidr>, Reasons> {
        let words: Vec<&str> = match self {
            Self::Text(text) => text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect(),
            Self::Toml(toml::Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().ok_or_else(|| vec!["must be an array of strings".to_owned()]))
                .collect::<Result<_, _>>()?,
            Self::Toml(_) => return Err(vec!["must be an array of address ranges ([\"10.0.0.0/8\"])".to_owned()]),
        };
        all(words, |word| {
            word.parse().map_err(|why| format!("{word:?} is no address range like \"10.0.0.0/8\" or \"::1\": {why}"))
        })
    }

    /// Virtual models: a JSON array, or a TOML array of tables. Their form only; `routes::mistakes` looks inside.
    pub(super) fn routes(&self) -> Result<Vec<RouteSpec>, Reasons> {
        const FORM: &str = "must be an array of {name, strategy, targets: [{model, account?, weight?}], sticky?}";
        let at = |n: usize, why: &dyn Display| format!("route {}: {why}", n + 1);
        match self {
            Self::Text(text) => {
                let items: Vec<serde_json::Value> =
                    serde_json::from_str(text).map_err(|e| vec![format!("{FORM}, as JSON ({e})")])?;
                all(items.into_iter().enumerate(), |(n, item)| serde_json::from_value(item).map_err(|e| at(n, &e)))
            }
            Self::Toml(toml::Value::Array(items)) => all(items.iter().enumerate(), |(n, item)| {
                item.clone().try_into().map_err(|e: toml::de::Error| at(n, &e.message()))
            }),
            Self::Toml(_) => Err(vec![format!("{FORM}: in a file, one [[routes]] table each")]),
        }
    }

    /// The value for a message: short, on one line. Not for secrets.
    pub(super) fn shown(&self) -> String {
        let text = match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Toml(value @ (toml::Value::Array(_) | toml::Value::Table(_))) => {
                format!("a TOML {}", value.type_str())
            }
            Self::Toml(value) => value.to_string(),
        };
        if text.chars().count() <= 60 { text } else { text.chars().take(60).chain(['…']).collect() }
    }
}

/// What `~` stands for.
#[derive(Clone, Debug)]
pub(super) struct Home(pub(super) Option<PathBuf>);

impl Home {
    /// `text` as a path; `~` alone and `~/…` expand, `~user` does not.
    pub(super) fn expand(&self, text: &str) -> Result<PathBuf, String> {
        let rest = match text.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
            _ => return Ok(PathBuf::from(text)),
        };
        let home = self.0.as_ref().ok_or("must not start with ~ here: this user has no home directory")?;
        Ok(home.join(rest))
    }
}

/// All of them read, or every reason why not.
fn all<I, T>(items: impl IntoIterator<Item = I>, read: impl Fn(I) -> Result<T, String>) -> Result<Vec<T>, Reasons> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for item in items {
        match read(item) {
            Ok(item) => good.push(item),
            Err(why) => bad.push(why),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

/// Digits alone: no sign, no space, no underscore.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let cut = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(cut);
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    digits(number)?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_units_and_refuse_what_is_ambiguous() {
        let size = |text| Raw::Text(text).size(0).ok();
        assert_eq!(size("32 MiB"), Some(32 << 20));
        assert_eq!(size("2gib"), Some(2 << 30));
        assert_eq!(size("64 MB"), Some(64_000_000));
        assert_eq!(size("4096"), Some(4096));
        for bad in ["", "MiB", "-1", "1.5 GiB", "32 M", "1_000", "99999999999999999999", "9999999999 GiB", "1 MiB x"] {
            assert_eq!(size(bad), None, "{bad}");
        }
        assert!(Raw::Text("9").size(10).is_err());
    }

    #[test]
    fn seconds_take_fractions_and_refuse_the_absurd() {
        let seconds = |text| Raw::Text(text).seconds().ok();
        assert_eq!(seconds("0.25"), Some(Duration::from_millis(250)));
        assert_eq!(seconds("0"), Some(Duration::ZERO));
        for bad in ["", "-1", "1s", "inf", "NaN", "1e3", ".", "99999999999"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        assert!(Raw::Text("0").some_seconds().is_err());
        assert_eq!(Raw::Toml(&toml::Value::Float(0.5)).some_seconds(), Ok(Duration::from_millis(500)));
    }

    #[test]
    fn numbers_stay_within_their_bounds() {
        assert_eq!(Raw::Text("65535").whole(0, u16::MAX), Ok(65_535));
        for bad in ["65536", "-1", "+1", "0x10", "8788 8789", ""] {
            assert!(Raw::Text(bad).whole(0, u16::MAX).is_err(), "{bad}");
        }
        assert!(Raw::Toml(&toml::Value::String("1".into())).whole(0u32, 9).is_err(), "a quoted number is a mistake");
        assert!(Raw::Text("1.01").share().is_err() && Raw::Text("nan").share().is_err());
        assert_eq!(Raw::Text("0.95").share(), Ok(0.95));
    }

    #[test]
    fn a_tilde_is_home_only_where_it_stands_alone() {
        let home = Home(Some("/home/ada".into()));
        assert_eq!(home.expand("~/.merido").unwrap(), PathBuf::from("/home/ada/.merido"));
        assert_eq!(home.expand("~").unwrap(), PathBuf::from("/home/ada"));
        assert_eq!(home.expand("~bob/x").unwrap(), PathBuf::from("~bob/x"));
        assert_eq!(home.expand("/srv/~x").unwrap(), PathBuf::from("/srv/~x"));
        assert!(Home(None).expand("~/x").is_err());
    }
}
