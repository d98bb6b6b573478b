//! Who a limit counts against: a key, or the network address of a caller without one.

use crate::base::KeyId;
use std::net::{IpAddr, Ipv6Addr};

/// The thing that is limited.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    /// A caller's key.
    Key(KeyId),
    /// An anonymous caller.
    Addr(Net),
}

/// One client as far as an address can tell: an IPv4 address, or an IPv6 /64 (who has one address of a /64 has all).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Net {
    /// One address.
    V4(u32),
    /// The first 64 bits.
    V6(u64),
}

impl Net {
    /// 127.0.0.0/8 or `::1`'s network.
    pub const fn is_loopback(self) -> bool {
        match self {
            Self::V4(bits) => bits >> 24 == 127,
            Self::V6(bits) => bits == 0,
        }
    }
}

impl From<IpAddr> for Net {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or_else(
                || Self::V6((v6.to_bits() >> 64) as u64),
                // A dual-stack listener sees IPv4 callers like this: they must not get a second purse.
                |v4| Self::V4(v4.to_bits()),
            ),
        }
    }
}

impl From<Net> for IpAddr {
    fn from(net: Net) -> Self {
        match net {
            Net::V4(bits) => Self::V4(bits.into()),
            Net::V6(bits) => Self::V6(Ipv6Addr::from_bits(u128::from(bits) << 64)),
        }
    }
}

impl From<KeyId> for Subject {
    fn from(key: KeyId) -> Self {
        Self::Key(key)
    }
}

impl From<IpAddr> for Subject {
    fn from(addr: IpAddr) -> Self {
        Self::Addr(addr.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(addr: &str) -> Net {
        addr.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn a_client_has_one_net_however_it_comes() {
        assert_eq!(net("2001:db8:1:2::1"), net("2001:db8:1:2:ffff::9"));
        assert_ne!(net("2001:db8:1:2::1"), net("2001:db8:1:3::1"));
        assert_eq!(net("::ffff:10.1.2.3"), net("10.1.2.3"));
        assert_ne!(net("10.1.2.3"), net("10.1.2.4"));
        assert!(net("127.0.0.9").is_loopback() && net("::1").is_loopback() && net("::ffff:127.0.0.1").is_loopback());
        assert!(!net("10.0.0.1").is_loopback() && !net("2001:db8::1").is_loopback());
    }
}
