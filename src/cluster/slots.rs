//! Which server of a Redis Cluster has which key: slots, hash tags, and the map of them as a server tells it.

use super::url::Address;
use redis::Value;

/// Slots of a Redis Cluster.
pub(super) const SLOTS: u16 = 16_384;
/// No server is known for it.
pub(super) const NOBODY: u16 = u16::MAX;

/// Who has which slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SlotMap {
    /// Those that have any.
    pub(super) owners: Vec<Address>,
    of: Box<[u16]>,
}

/// The slot of a key: of what stands in its first braces, if there is anything, else of all of it.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tagged = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|&byte| byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16(tagged.unwrap_or(key)) % SLOTS
}

impl SlotMap {
    /// Reads the reply to `CLUSTER SLOTS`, asked of `asked` (a host left out means that one).
    pub(super) fn read(reply: &Value, asked: &Address) -> Option<Self> {
        let Value::Array(ranges) = reply else { return None };
        let mut map = Self { owners: Vec::new(), of: vec![NOBODY; usize::from(SLOTS)].into() };
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(owner), ..] = &range[..] else { return None };
            let [host, Value::Int(port), ..] = &owner[..] else { return None };
            let host = match host {
                Value::BulkString(host) => std::str::from_utf8(host).ok()?,
                _ => "",
            };
            let host = match (host, asked) {
                ("" | "?", Address::Tcp(asked, _)) => asked,
                (host, _) => host,
            };
            let owner = Address::Tcp(host.into(), u16::try_from(*port).ok()?);
            let index = map.owners.iter().position(|known| *known == owner).unwrap_or_else(|| {
                map.owners.push(owner);
                map.owners.len() - 1
            });
            let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
            map.of.get_mut(first..=last)?.fill(u16::try_from(index).ok().filter(|&index| index != NOBODY)?);
        }
        (!map.owners.is_empty()).then_some(map)
    }

    /// Index of the key's owner.
    pub(super) fn owner(&self, key: &[u8]) -> Option<usize> {
        Some(self.of[usize::from(slot(key))]).filter(|&index| index != NOBODY).map(usize::from)
    }

    /// A tag whose slot belongs to the owner with this index.
    pub(super) fn tag(&self, index: usize) -> Option<String> {
        (0..u32::from(SLOTS) * 4).map(|n| n.to_string()).find(|tag| self.owner(tag.as_bytes()) == Some(index))
    }
}

/// CRC-16/XMODEM, as Redis Cluster has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = (n as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, host: &str, port: i64) -> Value {
        let replica = Value::Array(vec![bulk("replica"), Value::Int(1), bulk("id")]);
        Value::Array(vec![
            Value::Int(first),
            Value::Int(last),
            Value::Array(vec![bulk(host), Value::Int(port), bulk("id")]),
            replica,
        ])
    }

    #[test]
    fn slots_are_those_of_redis() {
        // From the specification, and `CLUSTER KEYSLOT` of a server.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"somekey"), 11_058);
        assert_eq!(slot(b"foo{hash_tag}"), 2_515);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
    }

    #[test]
    fn a_map_is_read_and_a_hole_in_it_has_no_owner() {
        let asked = Address::Tcp("seed".into(), 7);
        let reply = Value::Array(vec![range(0, 99, "a", 1), range(200, 16_383, "", 2), range(100, 150, "a", 1)]);
        let map = SlotMap::read(&reply, &asked).unwrap();
        assert_eq!(map.owners, [Address::Tcp("a".into(), 1), Address::Tcp("seed".into(), 2)]);
        assert_eq!(map.owner(b"somekey"), Some(1));
        assert_eq!((map.of[150], map.of[151], map.of[199], map.of[200]), (0, NOBODY, NOBODY, 1));
        for index in 0..2 {
            assert_eq!(map.owner(format!("t:{{{}}}", map.tag(index).unwrap()).as_bytes()), Some(index));
        }
    }

    #[test]
    fn a_broken_map_is_no_map() {
        let asked = Address::Tcp("seed".into(), 7);
        for reply in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![range(0, 16_384, "a", 1)]),
            Value::Array(vec![range(5, 4, "a", 70_000)]),
            Value::Array(vec![range(-1, 4, "a", 1)]),
            Value::Array(vec![Value::Array(vec![])]),
        ] {
            assert_eq!(SlotMap::read(&reply, &asked), None, "{reply:?}");
        }
    }
}
