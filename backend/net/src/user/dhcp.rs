//! The DHCP server (RFC 2131): one guest, one lease, always the same.

use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr};

use super::spec::{DNS, GATEWAY, GUEST, NETMASK};

const LEASE_S: u32 = 86400;

/// The answer to a client's message, if it gets one.
pub(super) fn answer(message: &[u8]) -> Option<Vec<u8>> {
    let packet = DhcpPacket::new_checked(message).ok()?;
    let asked = DhcpRepr::parse(&packet).ok()?;
    let elsewhere = asked.server_identifier.is_some_and(|server| server != GATEWAY);
    let wanted = asked.requested_ip.or(Some(asked.client_ip).filter(|ip| !ip.is_unspecified()));
    let message_type = match asked.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request if elsewhere => return None,
        // A lease of another network: the client shall begin anew.
        DhcpMessageType::Request if wanted.is_some_and(|ip| ip != GUEST) => DhcpMessageType::Nak,
        DhcpMessageType::Request | DhcpMessageType::Inform => DhcpMessageType::Ack,
        _ => return None,
    };
    let gives = message_type != DhcpMessageType::Nak;
    let lease = (gives && asked.message_type != DhcpMessageType::Inform).then_some(LEASE_S);
    let unspecified = std::net::Ipv4Addr::UNSPECIFIED;
    let reply = DhcpRepr {
        message_type,
        transaction_id: asked.transaction_id,
        secs: 0,
        client_hardware_address: asked.client_hardware_address,
        client_ip: if gives { asked.client_ip } else { unspecified },
        your_ip: if lease.is_some() { GUEST } else { unspecified },
        server_ip: GATEWAY,
        router: gives.then_some(GATEWAY),
        subnet_mask: gives.then_some(NETMASK),
        relay_agent_ip: unspecified,
        broadcast: asked.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(GATEWAY),
        parameter_request_list: None,
        dns_servers: gives.then(|| [DNS].into_iter().collect()),
        max_size: None,
        lease_duration: lease,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut bytes = vec![0; reply.buffer_len()];
    reply.emit(&mut DhcpPacket::new_unchecked(&mut bytes)).ok()?;
    Some(bytes)
}
