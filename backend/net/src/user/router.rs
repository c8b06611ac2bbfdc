//! The IPv6 router's advertisement (RFC 4861, 4.2): prefix for autoconfiguration, and the name
//! server (RFC 8106). DHCPv6 has nothing left to say.

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::wire::{IpProtocol, checksum};

use super::spec::{DNS6, MAC, MTU, NET6, PREFIX6, ROUTER6};
use super::wire::ip_frame;
use crate::Mac;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
/// On the link and for autoconfiguration (4.6.2).
const PREFIX_FLAGS: u8 = 0xc0;
const HOP_LIMIT: u8 = 64;
const ROUTER_LIFETIME_S: u16 = 1800;
const PREFIX_LIFETIME_S: u32 = 86400;
/// Neighbour discovery does not cross routers.
const LINK_HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

pub(super) fn is_solicitation(icmp: &[u8]) -> bool {
    icmp.first() == Some(&ROUTER_SOLICITATION)
}

/// An advertisement to all nodes, which are one.
pub(super) fn advertisement(to: Mac) -> Vec<u8> {
    let mut icmp = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, HOP_LIMIT, 0];
    icmp.extend(ROUTER_LIFETIME_S.to_be_bytes());
    icmp.extend([0; 8]); // reachable and retransmission times: the host's choice
    icmp.extend([1, 1]); // source link-layer address
    icmp.extend(MAC);
    icmp.extend([5, 1, 0, 0]); // MTU
    icmp.extend((MTU as u32).to_be_bytes());
    icmp.extend([3, 4, PREFIX6, PREFIX_FLAGS]); // prefix
    icmp.extend(PREFIX_LIFETIME_S.to_be_bytes());
    icmp.extend(PREFIX_LIFETIME_S.to_be_bytes());
    icmp.extend([0; 4]);
    icmp.extend(NET6.octets());
    icmp.extend([25, 3, 0, 0]); // recursive name server
    icmp.extend(PREFIX_LIFETIME_S.to_be_bytes());
    icmp.extend(DNS6.octets());
    let sum = checksum::combine(&[
        checksum::pseudo_header_v6(&ROUTER6, &ALL_NODES, IpProtocol::Icmpv6, icmp.len() as u32),
        checksum::data(&icmp),
    ]);
    icmp[2..4].copy_from_slice(&(!sum).to_be_bytes());
    let addresses = (IpAddr::V6(ROUTER6), IpAddr::V6(ALL_NODES));
    ip_frame(to, addresses, (IpProtocol::Icmpv6, LINK_HOP_LIMIT), icmp.len(), |bytes| {
        bytes.copy_from_slice(&icmp);
    })
}
