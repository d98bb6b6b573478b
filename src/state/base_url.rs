//! A provider's base URL: taken apart once, when its account is read, never per request.
//!
//! Pure text. What is wrong with a URL is said in words that go after its setting's name; it never holds credentials.

/// A provider's base URL, taken apart once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    /// `https`.
    pub tls: bool,
    /// Host name or address, no brackets.
    pub host: Box<str>,
    /// Port.
    pub port: u16,
    /// The `host` header: host with port unless it is the scheme's own, IPv6 in brackets.
    pub authority: Box<str>,
    /// Path before the endpoint's, no slash at its end (`/v1`, or empty).
    pub path: Box<str>,
}

impl BaseUrl {
    /// Takes `http(s)://host[:port][/path]` apart; what is wrong with it otherwise.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let (tls, rest) = if let Some(rest) = url.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = url.strip_prefix("http://") {
            (false, rest)
        } else {
            return Err("must start with http:// or https://");
        };
        if rest.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'?' || b == b'#' || b == b'\\' || b >= 0x80) {
            return Err("must hold no spaces, query, fragment or non-ASCII characters");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("must not hold credentials; use the API key");
        }
        let own_port = if tls { 443 } else { 80 };
        let (host, port) = if let Some(inner) = authority.strip_prefix('[') {
            let (host, after) = inner.split_once(']').ok_or("has an unclosed [")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| "has a bad IPv6 address")?;
            (host, after.strip_prefix(':').or(if after.is_empty() { Some("") } else { None }).ok_or("has a bad port")?)
        } else {
            match authority.split_once(':') {
                Some((host, port)) if !port.is_empty() => (host, port),
                Some(_) => return Err("has a bad port"),
                None => (authority, ""),
            }
        };
        if host.is_empty() {
            return Err("has no host");
        }
        let port = if port.is_empty() { own_port } else { port.parse().map_err(|_| "has a bad port")? };
        if port == 0 {
            return Err("has a bad port");
        }
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let authority = if port == own_port { bracketed } else { format!("{bracketed}:{port}") };
        Ok(Self { tls, host: host.into(), port, authority: authority.into(), path: path.trim_end_matches('/').into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_come_apart_or_say_why_not() {
        let url = BaseUrl::parse("https://api.openai.com/v1/").unwrap();
        assert_eq!(
            (url.tls, &*url.host, url.port, &*url.authority, &*url.path),
            (true, "api.openai.com", 443, "api.openai.com", "/v1")
        );
        let url = BaseUrl::parse("http://[::1]:8080").unwrap();
        assert_eq!((&*url.host, url.port, &*url.authority, &*url.path), ("::1", 8080, "[::1]:8080", ""));
        for bad in [
            "",
            "ftp://x",
            "http://",
            "http://:80",
            "http://a:b",
            "http://a:",
            "http://a:0",
            "http://u:p@h",
            "http://a b",
            "http://a/?q",
            "http://[::1",
            "http://[x]",
        ] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
