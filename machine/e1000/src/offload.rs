//! Checksums, and what is left to the network of packets to be cut (3.2.9, 3.5, 3.6).

use net::{HEADER_SIZE, Header, NEEDS_CSUM, gso};

use crate::state::Context;

const ETHERNET_SIZE: usize = 14;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The sum of all words, begun with `sum` (RFC 1071).
fn sum(sum: u32, bytes: &[u8]) -> u16 {
    let (words, last) = bytes.as_chunks::<2>();
    let words = words.iter().map(|word| u64::from(u16::from_be_bytes(*word)));
    let last = last.first().map_or(0, |byte| u64::from(*byte) << 8);
    let mut sum = u64::from(sum) + words.sum::<u64>() + last;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Puts the checksum of `start..=end` at `at`; an end of 0 is that of the packet. Places outside of it
/// are the driver's mistake, and nothing happens.
pub(crate) fn insert(packet: &mut [u8], (start, at, end): (u8, u8, u16)) {
    let (start, at) = (usize::from(start), usize::from(at));
    let end = if end == 0 { packet.len() } else { (usize::from(end) + 1).min(packet.len()) };
    let Some(bytes) = packet.get(start..end) else { return };
    let value = !sum(0, bytes);
    if let Some(to) = packet.get_mut(at..at + 2) {
        to.copy_from_slice(&value.to_be_bytes());
    }
}

/// Makes a packet that is to be cut one for the network, which cuts it: what differs from segment to
/// segment, and the driver has left out, is that of the whole. `None` when it is not TCP.
pub(crate) fn leave_segmentation(frame: &mut [u8], context: &Context, ip_sum: bool) -> Option<()> {
    let Context { ipcss, ipcso, ipcse, tucss, tucso, tucmd, hdrlen, mss, .. } = *context;
    let packet = frame.get_mut(HEADER_SIZE..)?;
    let is_v4 = tucmd & crate::spec::TUCMD_IP != 0;
    let offset = u16::from(tucso.checked_sub(tucss)?);
    if tucmd & crate::spec::TUCMD_TCP == 0 || mss == 0 || packet.len() < usize::from(hdrlen) {
        return None;
    }
    let ip = usize::from(ipcss);
    let (length_at, headers) = if is_v4 { (ip + 2, 0) } else { (ip + 4, 40) };
    let length = u16::try_from(packet.len().checked_sub(ip + headers)?).ok()?;
    packet.get_mut(length_at..length_at + 2)?.copy_from_slice(&length.to_be_bytes());
    if is_v4 && ip_sum {
        let at = usize::from(ipcso);
        packet.get_mut(at..at + 2)?.fill(0);
        insert(packet, (ipcss, ipcso, ipcse));
    }
    let at = usize::from(tucso);
    let tcp_size = packet.len().checked_sub(usize::from(tucss))? as u32;
    let field = packet.get_mut(at..at + 2)?;
    let pseudo = sum(tcp_size, field);
    field.copy_from_slice(&pseudo.to_be_bytes());
    let large = packet.len() - usize::from(hdrlen) > usize::from(mss);
    let kind = if is_v4 { gso::TCPV4 } else { gso::TCPV6 };
    let header = Header {
        flags: NEEDS_CSUM,
        gso_type: if large { kind } else { gso::NONE },
        hdr_len: u16::from(hdrlen),
        gso_size: if large { mss } else { 0 },
        csum_start: u16::from(tucss),
        csum_offset: offset,
    };
    frame[..HEADER_SIZE].copy_from_slice(&header.bytes());
    Some(())
}

/// Four bytes were put before what the header speaks of.
pub(crate) fn move_header(frame: &mut [u8]) {
    const HDR_LEN: usize = 2;
    const CSUM_START: usize = 6;
    if frame[0] & NEEDS_CSUM == 0 {
        return;
    }
    for at in [HDR_LEN, CSUM_START] {
        let moved = u16::from_le_bytes([frame[at], frame[at + 1]]) + 4;
        frame[at..at + 2].copy_from_slice(&moved.to_le_bytes());
    }
}

/// What the card found in a received frame: are there checksums, and are they right? First that of
/// IPv4, then that of TCP or UDP.
pub(crate) fn verify(frame: &[u8]) -> [Option<bool>; 2] {
    let at = |n: usize| frame.get(n).copied().unwrap_or_default();
    let (kind, ip) = match (at(12), at(13)) {
        (0x81, 0) => ((at(16), at(17)), ETHERNET_SIZE + 4),
        kind => (kind, ETHERNET_SIZE),
    };
    let word = |n: usize| usize::from(u16::from_be_bytes([at(n), at(n + 1)]));
    let (header, protocol, length, addresses, ip_right) = match kind {
        (8, 0) if at(ip) >> 4 == 4 => {
            let header = usize::from(at(ip) & 15) * 4;
            let Some(bytes) = frame.get(ip..ip + header) else { return [None; 2] };
            let right = header >= 20 && sum(0, bytes) == 0xffff;
            let whole = word(ip + 6) & 0x3fff == 0; // neither offset nor more fragments
            let protocol = if whole { at(ip + 9) } else { 0 };
            (header, protocol, word(ip + 2).saturating_sub(header), ip + 12..ip + 20, Some(right))
        }
        (0x86, 0xdd) => (40, at(ip + 6), word(ip + 4), ip + 8..ip + 40, None),
        _ => return [None; 2],
    };
    let start = ip + header;
    let (Some(bytes), Some(addresses)) = (frame.get(start..start + length), frame.get(addresses))
    else {
        return [ip_right, None];
    };
    let has = match protocol {
        TCP => length >= 20,
        UDP => length >= 8 && word(start + 6) != 0,
        _ => false,
    };
    let pseudo = u32::from(sum(u32::from(protocol) + length as u32, addresses));
    [ip_right, has.then(|| sum(pseudo, bytes) == 0xffff)]
}
