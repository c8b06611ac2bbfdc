//! Addresses of the user-mode network, those people know from QEMU.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The router: the host itself.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The name server: the host's.
pub(super) const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// What DHCP gives.
pub(super) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub(super) const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
pub(super) const PREFIX: u8 = 24;

pub(super) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 2);
pub(super) const DNS6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 3);
pub(super) const NET6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0);
/// The router advertises under its link-local address (RFC 4861, 6.1.2).
pub(super) const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
pub(super) const PREFIX6: u8 = 64;

/// The network's own card.
pub(super) const MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];

pub(super) const DNS_PORT: u16 = 53;
pub(super) const DHCP_SERVER_PORT: u16 = 67;
pub(super) const DHCP_CLIENT_PORT: u16 = 68;

/// Largest IP packet on the link.
pub(super) const MTU: usize = 1500;

/// These addresses are the network's own.
pub(super) fn is_ours(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a == GATEWAY || a == DNS,
        IpAddr::V6(a) => a == GATEWAY6 || a == DNS6 || a == ROUTER6,
    }
}

/// It is the name server.
pub(super) fn is_dns(address: IpAddr) -> bool {
    address == IpAddr::V4(DNS) || address == IpAddr::V6(DNS6)
}

/// A guest may have this address.
pub(super) fn is_guests(address: IpAddr) -> bool {
    let inside = match address {
        IpAddr::V4(a) => {
            a.octets()[..3] == GUEST.octets()[..3] && !matches!(a.octets()[3], 0 | 255)
        }
        IpAddr::V6(a) => a.segments()[..4] == NET6.segments()[..4],
    };
    inside && !is_ours(address)
}

/// Where the host reaches what the guest calls `address`; `None` where it may not go. The host's
/// own loopback is behind the gateway's address and nowhere else; link-local addresses are the
/// host's neighbourhood, which in clouds answers with the host's own secrets.
pub(super) fn outside(address: IpAddr) -> Option<IpAddr> {
    if is_ours(address) {
        return Some(match address {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let may = match address {
        IpAddr::V4(a) => {
            let own = a.octets()[..3] == GATEWAY.octets()[..3];
            !(own || a.is_loopback() || a.is_link_local() || a.is_multicast() || a.is_broadcast())
                && a.octets()[0] != 0
        }
        IpAddr::V6(a) => {
            let own = a.segments()[..4] == NET6.segments()[..4];
            // An IPv4 address in IPv6's clothes would pass for one that is not looked at.
            let mapped = a.to_ipv4_mapped().is_some() || a.to_ipv4().is_some();
            !(own || mapped || a.is_multicast() || a.is_unicast_link_local())
        }
    };
    may.then_some(address)
}

/// The guest's name for where something comes from.
pub(super) fn inside(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(a) if a.is_loopback() => GATEWAY.into(),
        IpAddr::V6(a) if a.is_loopback() => GATEWAY6.into(),
        other => other,
    }
}
