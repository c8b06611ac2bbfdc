//! The stack's card.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta, RxToken,
    SegmentationCapabilities, TxToken,
};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet, checksum,
};

use super::spec::MTU;
use super::wire::ETHERNET_SIZE;
use crate::header::{Header, NEEDS_CSUM, gso};
use crate::{HEADER_SIZE, Offloads};

/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: usize = 16;

/// Frames on their way between the stack and the guest.
pub(super) struct Link {
    offloads: Offloads,
    /// From the guest, with headers.
    pub(super) inward: VecDeque<Vec<u8>>,
    /// To the guest, with headers.
    pub(super) outward: Vec<Vec<u8>>,
    /// How many more frames the guest's queue takes.
    pub(super) room: usize,
}

impl Link {
    pub(super) fn new(offloads: Offloads) -> Self {
        Self { offloads, inward: VecDeque::new(), outward: Vec::new(), room: 0 }
    }

    /// Puts a frame on the way to the guest; without room it is lost.
    pub(super) fn put(&mut self, frame: Vec<u8>) {
        if self.outward.len() < self.room {
            self.outward.push(frame);
        }
    }

    fn has_room(&self) -> bool {
        self.outward.len() < self.room
    }
}

pub(super) struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0.get(HEADER_SIZE..).unwrap_or_default())
    }
}

pub(super) struct Outgoing<'a> {
    to: &'a mut Vec<Vec<u8>>,
    offloads: Offloads,
    segment: Option<u16>,
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, size: usize, f: F) -> R {
        let mut frame = vec![0; HEADER_SIZE + size];
        let result = f(&mut frame[HEADER_SIZE..]);
        if self.offloads.contains(Offloads::CHECKSUM) {
            leave_checksum(&mut frame, self.segment);
        }
        self.to.push(frame);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size.map(Into::into);
    }
}

/// Leaves the checksum of TCP to the guest, which knows how to leave it, too: only that of the
/// pseudo-header is in its place, as drivers expect it (virtio 1.2, 5.1.6.4).
fn leave_checksum(frame: &mut [u8], segment: Option<u16>) {
    let bytes = &frame[HEADER_SIZE..];
    let Ok(ethernet) = EthernetFrame::new_checked(bytes) else { return };
    let size = |headers: usize| (bytes.len() - ETHERNET_SIZE - headers) as u32;
    let (headers, sum, kind) = match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            let ip = Ipv4Packet::new_unchecked(ethernet.payload());
            if ip.next_header() != IpProtocol::Tcp {
                return;
            }
            let headers = usize::from(ip.header_len());
            let (from, to) = (ip.src_addr(), ip.dst_addr());
            let sum = checksum::pseudo_header_v4(&from, &to, IpProtocol::Tcp, size(headers));
            (headers, sum, gso::TCPV4)
        }
        EthernetProtocol::Ipv6 => {
            let ip = Ipv6Packet::new_unchecked(ethernet.payload());
            if ip.next_header() != IpProtocol::Tcp {
                return;
            }
            let (from, to) = (ip.src_addr(), ip.dst_addr());
            let sum = checksum::pseudo_header_v6(&from, &to, IpProtocol::Tcp, size(40));
            (40, sum, gso::TCPV6)
        }
        _ => return,
    };
    let start = ETHERNET_SIZE + headers;
    let at = HEADER_SIZE + start + TCP_CHECKSUM;
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let tcp_size = usize::from(frame[HEADER_SIZE + start + 12] >> 4) * 4;
    let header = Header {
        flags: NEEDS_CSUM,
        gso_type: if segment.is_some() { kind } else { gso::NONE },
        hdr_len: (start + tcp_size) as u16,
        gso_size: segment.unwrap_or(0),
        csum_start: start as u16,
        csum_offset: TCP_CHECKSUM as u16,
    };
    frame[..HEADER_SIZE].copy_from_slice(&header.bytes());
}

impl Device for Link {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, now: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        if !self.has_room() {
            return None;
        }
        let frame = self.inward.pop_front()?;
        Some((Incoming(frame), self.transmit(now)?))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        let offloads = self.offloads;
        self.has_room().then_some(Outgoing { to: &mut self.outward, offloads, segment: None })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        // Frames cross no wire: what the guest sends has no wrong checksums, only unfinished ones.
        let mut checksum = ChecksumCapabilities::ignored();
        checksum.ipv4 = Checksum::Tx;
        checksum.icmpv4 = Checksum::Tx;
        checksum.icmpv6 = Checksum::Tx;
        let left = self.offloads.contains(Offloads::CHECKSUM);
        checksum.tcp = if left { Checksum::None } else { Checksum::Tx };
        let largest = NonZeroUsize::new(ETHERNET_SIZE + usize::from(u16::MAX));
        let mut segmentation = SegmentationCapabilities::default();
        segmentation.tcpv4 = largest.filter(|_| left && self.offloads.contains(Offloads::TSO4));
        segmentation.tcpv6 = largest.filter(|_| left && self.offloads.contains(Offloads::TSO6));
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = ETHERNET_SIZE + MTU;
        capabilities.checksum = checksum;
        capabilities.segmentation = segmentation;
        capabilities
    }
}
