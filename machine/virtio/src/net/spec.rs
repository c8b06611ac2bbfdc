//! Network device (5.1).

/// Feature bits (5.1.3).
pub(super) const F_CSUM: u64 = 1 << 0;
pub(super) const F_GUEST_CSUM: u64 = 1 << 1;
pub(super) const F_MAC: u64 = 1 << 5;
pub(super) const F_GUEST_TSO4: u64 = 1 << 7;
pub(super) const F_GUEST_TSO6: u64 = 1 << 8;
pub(super) const F_GUEST_ECN: u64 = 1 << 9;
pub(super) const F_GUEST_UFO: u64 = 1 << 10;
pub(super) const F_HOST_TSO4: u64 = 1 << 11;
pub(super) const F_HOST_TSO6: u64 = 1 << 12;
pub(super) const F_HOST_ECN: u64 = 1 << 13;
pub(super) const F_HOST_UFO: u64 = 1 << 14;
pub(super) const F_MRG_RXBUF: u64 = 1 << 15;
pub(super) const F_STATUS: u64 = 1 << 16;
pub(super) const F_CTRL_VQ: u64 = 1 << 17;
pub(super) const F_CTRL_RX: u64 = 1 << 18;
pub(super) const F_CTRL_RX_EXTRA: u64 = 1 << 20;
pub(super) const F_MQ: u64 = 1 << 22;
pub(super) const F_CTRL_MAC_ADDR: u64 = 1 << 23;

/// Device configuration (5.1.4): offsets of `struct virtio_net_config`.
pub(super) const MAC: usize = 0;
pub(super) const STATUS: usize = 6;
pub(super) const MAX_VIRTQUEUE_PAIRS: usize = 8;
pub(super) const CONFIG_SIZE: usize = 10;

/// The link is up.
pub(super) const S_LINK_UP: u16 = 1;

/// `num_buffers` in a frame's header (5.1.6).
pub(super) const NUM_BUFFERS: usize = 10;

/// Classes and commands of the control queue (5.1.6.5).
pub(super) mod ctrl {
    pub(in crate::net) const OK: u8 = 0;
    pub(in crate::net) const ERR: u8 = 1;
    pub(in crate::net) const RX: u8 = 0;
    pub(in crate::net) const RX_PROMISC: u8 = 0;
    pub(in crate::net) const RX_ALLMULTI: u8 = 1;
    pub(in crate::net) const RX_ALLUNI: u8 = 2;
    pub(in crate::net) const RX_NOMULTI: u8 = 3;
    pub(in crate::net) const RX_NOUNI: u8 = 4;
    pub(in crate::net) const RX_NOBCAST: u8 = 5;
    pub(in crate::net) const MAC: u8 = 1;
    pub(in crate::net) const MAC_TABLE_SET: u8 = 0;
    pub(in crate::net) const MAC_ADDR_SET: u8 = 1;
    pub(in crate::net) const MQ: u8 = 4;
    pub(in crate::net) const MQ_VQ_PAIRS_SET: u8 = 0;
}
