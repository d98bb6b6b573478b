//! Address ranges: whose `X-Forwarded-For` is believed. Pure arithmetic; what cannot be read is refused with words.

use std::net::IpAddr;
use std::str::FromStr;

/// An address range (`10.0.0.0/8`, `::1`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    /// Any address of the range.
    pub addr: IpAddr,
    /// Leading bits that count.
    pub bits: u8,
}

impl Cidr {
    /// Whether `ip` lies within. `::ffff:10.0.0.1` is `10.0.0.1`: a dual-stack listener reports v4 peers so.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (range, bits) = widened(self.addr, self.bits);
        let (ip, _) = widened(ip, 0);
        // A v4 range of zero bits is all of v4, not all of v6: widening made it 96 bits.
        (range ^ ip).checked_shr(128 - u32::from(bits)).unwrap_or(0) == 0
    }
}

/// Everything as v6; v4 lies at `::ffff:0:0/96`.
fn widened(addr: IpAddr, bits: u8) -> (u128, u8) {
    match addr {
        IpAddr::V4(v4) => (u128::from(v4.to_ipv6_mapped()), bits + 96),
        IpAddr::V6(v6) => (u128::from(v6), bits),
    }
}

impl FromStr for Cidr {
    type Err = String;

    /// `ADDRESS/BITS`, or an address alone for just that one.
    fn from_str(text: &str) -> Result<Self, String> {
        let (addr, bits) = text.split_once('/').map_or((text, None), |(addr, bits)| (addr, Some(bits)));
        let addr: IpAddr = addr.parse().map_err(|_| "not an address".to_owned())?;
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= most)
                .ok_or_else(|| format!("bits after the slash go from 0 to {most}"))?,
            Some(_) => return Err(format!("bits after the slash go from 0 to {most}")),
        };
        // A range written in mapped form is the v4 range it means.
        match addr {
            IpAddr::V6(v6) if bits >= 96 => {
                Ok(v6.to_ipv4_mapped().map_or(Self { addr, bits }, |v4| Self { addr: v4.into(), bits: bits - 96 }))
            }
            _ => Ok(Self { addr, bits }),
        }
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.addr, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(range: &str, ip: &str) -> bool {
        range.parse::<Cidr>().unwrap().contains(ip.parse().unwrap())
    }

    #[test]
    fn ranges_hold_their_addresses_and_no_others() {
        assert!(within("10.0.0.0/8", "10.255.0.1") && !within("10.0.0.0/8", "11.0.0.0"));
        assert!(within("10.1.2.3/8", "10.9.9.9"), "bits below the mask do not count");
        assert!(within("192.168.1.7", "192.168.1.7") && !within("192.168.1.7", "192.168.1.6"));
        assert!(within("fd00::/8", "fd12::1") && !within("fd00::/8", "fe80::1"));
        assert!(within("0.0.0.0/0", "255.255.255.255") && !within("0.0.0.0/0", "::1"), "all of v4 is not all of v6");
        assert!(within("::/0", "::1") && within("::/0", "10.0.0.1"));
    }

    #[test]
    fn a_mapped_address_is_the_v4_address() {
        assert!(within("10.0.0.0/8", "::ffff:10.1.2.3") && !within("10.0.0.0/8", "::ffff:11.1.2.3"));
        assert!(within("::ffff:10.0.0.0/104", "10.1.2.3") && !within("::ffff:10.0.0.0/104", "11.1.2.3"));
        assert!(!within("10.0.0.0/8", "::10.1.2.3"), "the old compatible form is another address");
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/256", "::/129", "10.0.0/8", "localhost"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        assert_eq!("10.0.0.0/8".parse::<Cidr>().unwrap().to_string(), "10.0.0.0/8");
    }
}
