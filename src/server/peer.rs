//! Who is at the other end of a connection, and whom that one speaks for.
//!
//! `X-Forwarded-For` is anybody's claim: it counts from trusted proxies only, from the right, as far as those reach.

use crate::config::Cidr;
use http::header::{HeaderMap, HeaderName};
use std::net::{IpAddr, SocketAddr};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The address of the socket; see `MERIDO_TRUSTED_PROXIES` for the client's.
    pub addr: SocketAddr,
    /// This connection holds a reserved permit: it may not run data-plane requests.
    pub control_only: bool,
}

/// The client's address: the socket's, or, when that is a trusted proxy's, the rightmost untrusted one it forwards for.
pub fn client_addr(headers: &HeaderMap, peer: Peer, trusted: &[Cidr]) -> IpAddr {
    let socket = peer.addr.ip().to_canonical();
    let is_trusted = |addr: IpAddr| trusted.iter().any(|range| range.contains(addr));
    if trusted.is_empty() || !is_trusted(socket) {
        return socket;
    }
    let mut last = socket;
    // Several headers count as one list; the last entry is the nearest hop.
    for value in headers.get_all(&X_FORWARDED_FOR).iter().rev() {
        let Ok(list) = value.to_str() else { return last };
        for entry in list.rsplit(',') {
            let Some(addr) = forwarded_addr(entry.trim()) else { return last };
            last = addr;
            if !is_trusted(addr) {
                return addr;
            }
        }
    }
    last
}

fn forwarded_addr(entry: &str) -> Option<IpAddr> {
    let addr = entry
        .parse::<IpAddr>()
        .or_else(|_| entry.parse::<std::net::SocketAddr>().map(|addr| addr.ip()))
        .or_else(|_| entry.trim_start_matches('[').trim_end_matches(']').parse())
        .ok()?;
    Some(addr.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn peer(addr: &str) -> Peer {
        Peer { addr: format!("{addr}:1").parse().unwrap(), control_only: false }
    }

    #[test]
    fn forwarded_for_counts_from_trusted_proxies_only_and_from_the_right() {
        let trusted = [Cidr { addr: "10.0.0.0".parse().unwrap(), bits: 8 }];
        let forged = headers(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2, 10.0.0.7")]);
        assert_eq!(client_addr(&forged, peer("9.9.9.9"), &trusted).to_string(), "9.9.9.9");
        assert_eq!(client_addr(&forged, peer("10.0.0.1"), &trusted).to_string(), "2.2.2.2");
        assert_eq!(client_addr(&forged, peer("10.0.0.1"), &[]).to_string(), "10.0.0.1");
        let junk = headers(&[("x-forwarded-for", "unknown")]);
        assert_eq!(client_addr(&junk, peer("10.0.0.1"), &trusted).to_string(), "10.0.0.1");
        let several = headers(&[("x-forwarded-for", "3.3.3.3"), ("x-forwarded-for", "10.1.1.1")]);
        assert_eq!(client_addr(&several, peer("10.0.0.1"), &trusted).to_string(), "3.3.3.3");
    }
}
