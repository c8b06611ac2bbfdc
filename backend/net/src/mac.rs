//! Addresses of network cards.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;

/// FNV-1a, 64 bits: the same everywhere and for ever, unlike the standard library's hashes.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address of card `index` of the VM that `identity` names: the same for the same VM,
    /// locally administered (IEEE 802, bit 1 of the first byte), 40 bits of hash.
    pub fn of_vm(identity: &str, index: usize) -> Self {
        let byte = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        let hash = identity.bytes().chain((index as u64).to_le_bytes()).fold(FNV_OFFSET, byte);
        let hash = hash ^ hash >> 40;
        let [a, b, c, d, e, ..] = hash.to_le_bytes();
        Self([0x02, a, b, c, d, e])
    }

    /// It is for a group of stations (bit 0 of the first byte).
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = ParseError("not a MAC address: give six bytes, as 02:00:00:00:00:01");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let is_byte = |p: &&str| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit());
            let part = parts.next().filter(is_byte).ok_or(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad)?;
        }
        match Self(bytes) {
            _ if parts.next().is_some() => Err(bad),
            mac if mac.is_group() => Err(ParseError("the MAC address is a group's")),
            mac if mac.0 == [0; 6] => Err(ParseError("the MAC address is no card's")),
            mac => Ok(mac),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_has_the_same_local_address_each_time_and_each_card_its_own() {
        let mac = Mac::of_vm("kernel:disk", 0);
        assert_eq!(mac, Mac::of_vm("kernel:disk", 0));
        assert_ne!(mac, Mac::of_vm("kernel:disk", 1));
        assert_ne!(mac, Mac::of_vm("kernel:disk2", 0));
        assert_eq!(mac.0[0] & 3, 2, "local, not a group's");
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }

    #[test]
    fn what_is_no_address_of_a_card_is_refused() {
        for bad in
            ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "+2:00:00:00:00:01", "0:0:0:0:0:1"]
        {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
        assert!("01:00:5e:00:00:01".parse::<Mac>().is_err());
        assert!("00:00:00:00:00:00".parse::<Mac>().is_err());
    }
}
