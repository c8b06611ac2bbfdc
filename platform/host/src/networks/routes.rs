//! Subnets that the host has already.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::links;

/// Where the host sends packets, but for the way to everywhere and our own networks.
pub fn subnets_in_use() -> Vec<IpNet> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let (v4, v6) = (v4.lines().filter_map(parse_v4), v6.lines().filter_map(parse_v6));
    let all = v4.chain(v6).filter(|(_, interface)| !links::is_ours(interface));
    all.map(|(subnet, _)| subnet).collect()
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, addresses in the order of this machine's bytes.
fn parse_v4(line: &str) -> Option<(IpNet, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let address = |word: &str| {
        u32::from_str_radix(word, 16).ok().map(|word| Ipv4Addr::from(word.to_ne_bytes()))
    };
    let subnet = Ipv4Net::with_netmask(address(words.get(1)?)?, address(words.get(7)?)?).ok()?;
    (subnet.prefix_len() > 0).then(|| (subnet.into(), words[0].to_owned()))
}

/// `destination length source length gateway metric … interface`, in hexadecimal.
fn parse_v6(line: &str) -> Option<(IpNet, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let address = Ipv6Addr::from(u128::from_str_radix(words.first()?, 16).ok()?);
    let length = u8::from_str_radix(words.get(1)?, 16).ok()?;
    let is_own = address.is_unicast_link_local() || address.is_multicast();
    let subnet = Ipv6Net::new(address, length).ok()?;
    (length > 0 && !is_own).then(|| (subnet.into(), (*words.last().unwrap_or(&"")).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let line = "eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
        let (subnet, interface) = parse_v4(line).unwrap();
        assert_eq!((subnet.to_string().as_str(), interface.as_str()), ("192.168.0.0/24", "eth0"));
        assert_eq!(parse_v4("eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0"), None);
        assert_eq!(parse_v4("Iface\tDestination"), None);
        let line = "fd000001000200030000000000000000 40 00000000000000000000000000000000 00 \
            00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0";
        let (subnet, interface) = parse_v6(line).unwrap();
        assert_eq!((subnet.to_string().as_str(), interface.as_str()), ("fd00:1:2:3::/64", "eth0"));
    }
}
