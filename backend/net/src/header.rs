//! The header of frames: `struct virtio_net_hdr_v1`, little-endian.

/// Bytes of the header.
pub const HEADER_SIZE: usize = 12;
/// Bytes of the longest frame: header, Ethernet with a VLAN tag, the longest IP packet.
pub const FRAME_MAX: usize = HEADER_SIZE + 18 + 65535;

/// The checksum is still to be computed.
pub const NEEDS_CSUM: u8 = 1;

/// How a frame is to be cut.
pub mod gso {
    /// Not at all.
    pub const NONE: u8 = 0;
    /// Into TCP segments over IPv4.
    pub const TCPV4: u8 = 1;
    /// Into fragments of a UDP datagram.
    pub const UDP: u8 = 3;
    /// Into TCP segments over IPv6.
    pub const TCPV6: u8 = 4;
}

/// What is left to be done to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// `NEEDS_CSUM`.
    pub flags: u8,
    /// Kind of segmentation; 0 for none.
    pub gso_type: u8,
    /// Bytes of all headers, as a hint.
    pub hdr_len: u16,
    /// Payload bytes of a segment.
    pub gso_size: u16,
    /// Where what the checksum is of begins.
    pub csum_start: u16,
    /// Where the checksum goes, from there.
    pub csum_offset: u16,
}

impl Header {
    /// As it is in a frame.
    pub fn bytes(&self) -> [u8; HEADER_SIZE] {
        let Self { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset } = *self;
        let mut bytes = [0; HEADER_SIZE];
        bytes[0] = flags;
        bytes[1] = gso_type;
        let words = [hdr_len, gso_size, csum_start, csum_offset];
        for (to, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}
