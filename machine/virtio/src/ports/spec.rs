//! Console device with several ports (5.3).

/// There are several ports, and queues of control messages.
pub(super) const F_MULTIPORT: u64 = 1 << 1;

/// Device configuration (5.3.4): the offset of `max_nr_ports`.
pub(super) const MAX_NR_PORTS: u64 = 4;

/// Queues of control messages.
pub(super) const CONTROL_RECEIVE: usize = 2;
pub(super) const CONTROL_TRANSMIT: usize = 3;
/// Queues before those of port 1: port 0's and the control queues.
pub(super) const FIRST_PORT_QUEUE: usize = 4;

/// Bytes of `struct virtio_console_control` (5.3.6.2): le32 id, le16 event, le16 value.
pub(super) const CONTROL_SIZE: usize = 8;

/// Control events.
pub(super) const DEVICE_READY: u16 = 0;
pub(super) const PORT_ADD: u16 = 1;
pub(super) const PORT_READY: u16 = 3;
pub(super) const PORT_OPEN: u16 = 6;
pub(super) const PORT_NAME: u16 = 7;
