//! Frames of the network's own making.

use std::net::{IpAddr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, IpRepr, UdpPacket, UdpRepr,
    checksum,
};

use super::spec::MAC;
use crate::header::{Header, gso};
use crate::{HEADER_SIZE, Mac};

pub(super) const ETHERNET_SIZE: usize = 14;
const UDP_SIZE: usize = 8;
const HOP_LIMIT: u8 = 64;

/// A frame to `to` with an IP packet whose payload `fill` writes.
pub(super) fn ip_frame(
    to: Mac,
    (from_ip, to_ip): (IpAddr, IpAddr),
    (protocol, hop_limit): (IpProtocol, u8),
    size: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let ip = IpRepr::new(from_ip.into(), to_ip.into(), protocol, size, hop_limit);
    let at = HEADER_SIZE + ETHERNET_SIZE;
    let mut frame = vec![0; at + ip.header_len() + size];
    let mut ethernet = EthernetFrame::new_unchecked(&mut frame[HEADER_SIZE..]);
    ethernet.set_src_addr(EthernetAddress(MAC));
    ethernet.set_dst_addr(EthernetAddress(to.0));
    ethernet.set_ethertype(match to_ip {
        IpAddr::V4(_) => EthernetProtocol::Ipv4,
        IpAddr::V6(_) => EthernetProtocol::Ipv6,
    });
    ip.emit(&mut frame[at..], &ChecksumCapabilities::default());
    fill(&mut frame[at + ip.header_len()..]);
    frame
}

fn pseudo_header(from: IpAddr, to: IpAddr, size: u32) -> u16 {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            checksum::pseudo_header_v4(&from, &to, IpProtocol::Udp, size)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            checksum::pseudo_header_v6(&from, &to, IpProtocol::Udp, size)
        }
        _ => 0,
    }
}

/// A UDP datagram. One that does not fit the link is for the guest to take as it is, if it does
/// (`large`), and nothing otherwise.
pub(super) fn udp_frame(
    to: Mac,
    from_at: SocketAddr,
    to_at: SocketAddr,
    payload: &[u8],
    (mtu, large): (usize, bool),
) -> Option<Vec<u8>> {
    let (from_ip, to_ip) = (from_at.ip(), to_at.ip());
    let size = UDP_SIZE + payload.len();
    let repr = UdpRepr { src_port: from_at.port(), dst_port: to_at.port() };
    let ports = (from_ip, to_ip);
    let mut frame = ip_frame(to, ports, (IpProtocol::Udp, HOP_LIMIT), size, |bytes| {
        let mut packet = UdpPacket::new_unchecked(bytes);
        let fill = |data: &mut [u8]| data.copy_from_slice(payload);
        let checksums = ChecksumCapabilities::default();
        repr.emit(&mut packet, &from_ip.into(), &to_ip.into(), payload.len(), fill, &checksums);
    });
    let headers = frame.len() - HEADER_SIZE - size;
    let packet_size = headers - ETHERNET_SIZE + size;
    if packet_size > mtu {
        let fits = large && u16::try_from(packet_size).is_ok();
        return fits.then(|| {
            let room = mtu - (headers - ETHERNET_SIZE);
            let header = Header {
                flags: crate::header::NEEDS_CSUM,
                gso_type: gso::UDP,
                hdr_len: (headers + UDP_SIZE) as u16,
                gso_size: (room & !7) as u16, // fragments begin at multiples of 8 (RFC 791)
                csum_start: headers as u16,
                csum_offset: 6,
            };
            frame[..HEADER_SIZE].copy_from_slice(&header.bytes());
            let sum = pseudo_header(from_ip, to_ip, size as u32);
            frame[HEADER_SIZE + headers + 6..][..2].copy_from_slice(&sum.to_be_bytes());
            frame
        });
    }
    Some(frame)
}
